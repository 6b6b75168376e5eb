//! What a script asks of the server it runs in.

use carnelian_resp::Protocol;
use scoped_tls_hkt::{ReborrowMut, scoped_thread_local};

use crate::debugger::Debugger;

/// The server, as one run of a script sees it.
pub trait Host {
    /// Runs one command and appends its reply, an error included, in the protocol asked for.
    ///
    /// The first word is the command's name as the script wrote it. An error whose statistics are
    /// booked already is told from one that is not by what is returned.
    fn call(&mut self, words: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>);

    /// `redis.log`, already found to be worth writing.
    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// Whether the user may run this command on these keys; none if there is no such command.
    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool>;

    /// `redis.set_repl`: bit 0 is the AOF, bit 1 are the replicas.
    fn set_repl(&mut self, targets: u8);

    /// Called from time to time while the script runs: after so many instructions, and before
    /// steps that may take long. What it does (serving BUSY, looking at the clock) is its affair.
    fn tick(&mut self) -> Tick;

    /// Who debugs the script, if somebody does.
    fn console(&mut self) -> Option<&mut dyn Console> {
        None
    }

    /// Whether the last command was refused before it ran; asked once, and only for a debugger.
    fn was_refused(&mut self) -> bool {
        false
    }
}

/// The client of a debugging session.
pub trait Console {
    /// Sends a reply.
    fn show(&mut self, reply: Vec<u8>);

    /// Waits for what it says next.
    fn ask(&mut self) -> Asked;
}

/// What the client of a debugging session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The words of a command; there is one at least.
    Command(Vec<Vec<u8>>),
    /// What cannot be understood: the script ends with this error.
    Broken(&'static str),
    /// It is gone: the script runs to its end.
    Gone,
    /// The script is to end.
    Killed,
}

/// What is to become of a script that is still running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    Continue,
    /// It ends now, with an error that it cannot catch.
    Kill,
}

/// The levels of `redis.log`, as scripts number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
}

/// What lives for one run.
pub(crate) struct Slot<'a> {
    pub(crate) host: &'a mut (dyn Host + 'a),
    pub(crate) run: &'a mut RunState,
}

/// What a script can change for the rest of its run, and buffers that outlive runs.
#[derive(Default)]
pub(crate) struct RunState {
    /// What `redis.setresp` chose; commands answer in it.
    pub(crate) protocol: Protocol,
    pub(crate) killed: bool,
    /// What the host panicked with, once Lua has been left.
    pub(crate) panic: Option<crate::raw::command::Panic>,
    /// The chunk and line it was killed in.
    pub(crate) killed_at: Option<(Vec<u8>, Vec<u8>)>,
    /// Replies of commands, one at a time.
    pub(crate) reply: Vec<u8>,
    /// Numbers among a command's words.
    pub(crate) numbers: Vec<u8>,
    /// Resumptions of coroutines since the last tick for their sake.
    pub(crate) beats: u32,
    /// Work of functions that take long for one instruction, since the last tick for its sake.
    pub(crate) steps: usize,
    /// Present while a script is debugged.
    pub(crate) debugger: Option<Box<Debugger>>,
    /// The library being loaded, during FUNCTION LOAD.
    pub(crate) loading: Option<crate::functions::Registrations>,
}

impl<'short> ReborrowMut<'short> for Slot<'_> {
    type Result = Slot<'short>;

    fn reborrow_mut(&'short mut self) -> Slot<'short> {
        Slot { host: &mut *self.host, run: &mut *self.run }
    }
}

scoped_thread_local!(static mut CURRENT: for<'a> Slot<'a>);

/// Makes a host reachable from the functions that scripts call, while `body` runs.
pub(crate) fn with_host<R>(slot: Slot<'_>, body: impl FnOnce() -> R) -> R {
    CURRENT.set(slot, body)
}

/// The host of the run on this thread. None where no script runs, as at load time.
pub(crate) fn current<R>(body: impl FnOnce(Slot<'_>) -> R) -> Option<R> {
    CURRENT.is_set().then(|| CURRENT.with(body))
}
