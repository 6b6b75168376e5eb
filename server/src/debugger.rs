//! SCRIPT DEBUG: a script that runs under the control of its client, line by line.
//!
//! It runs on a thread of its own, since it waits for a human. The connection stays with its reactor, which passes
//! on what the client says (`forward`), and gets what the client is told as messages.
//!
//! In place (`SYNC`) the script holds the locks that any script does for as long as it is debugged: after
//! `busy-reply-threshold` others are told that the server is busy. Apart (`YES`) it runs in a database of its own, which
//! has nothing but a copy of what the script touches, and goes with it: nothing it does is seen, logged or heard of.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use carnelian_commands::{CommandError, Effect, Scope};
use carnelian_keyspace::{Fork, SegmentSet, Segments, segment_of};
use carnelian_resp::{Protocol, Writer};
use carnelian_scripting::{Asked, Console, Engine, Host, Limits, LogLevel, Run, Tick};
use parking_lot::{Condvar, Mutex};

use crate::acl::{Acl, User};
use crate::allocator;
use crate::blocking;
use crate::clients::ClientShared;
use crate::clock::Clock;
use crate::commands::{Context, ScriptAccess, check_script_state, count_script_keys, is_read_only};
use crate::database::{Database, Stats};
use crate::dispatch::{self, Nest, Nesting};
use crate::encryption::Encryption;
use crate::features;
use crate::log;
use crate::registry::Handler;
use crate::replication::gate;
use crate::scripting::ScriptHost;
use crate::server::Server;
use crate::session::{Batch, Session, Worker};

/// Sessions of a database at a time: each has a thread and a Lua state.
const SESSIONS_MAX: usize = 32;
/// How often one that waits looks whether it is to end.
const CHECK: Duration = Duration::from_millis(50);
/// After this a script that does not stop is stopped, where there is no `busy-reply-threshold`.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lua calls itself through C.
const STACK_BYTES: usize = 16 << 20;
/// What a client may say: no command has more words, no word more bytes, and no more waits in all.
const WORDS_MAX: usize = 1024;
const WORD_BYTES_MAX: usize = 1024;
const WAITING_BYTES_MAX: usize = 1 << 20;

/// What a client has asked for by SCRIPT DEBUG.
pub enum Debugging {
    /// Its next EVAL is debugged.
    Asked(Mode),
    /// One is, and what it sends is for the debugger.
    Running(Arc<Inbox>),
}

/// Where a script is debugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `YES`: on a copy.
    Apart,
    /// `SYNC`: on the data.
    InPlace,
}

/// What the client has said and the debugger has yet to read.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    said: VecDeque<Asked>,
    bytes: usize,
    /// Nothing more is taken: what was said last is the end.
    is_full: bool,
    is_gone: bool,
    is_killed: bool,
}

impl Inbox {
    fn push(&self, words: &[&[u8]]) {
        let mut state = self.state.lock();
        if state.is_full {
            return;
        }
        state.bytes += words.iter().map(|word| word.len()).sum::<usize>();
        let is_sound = |word: &&[u8]| (1..=WORD_BYTES_MAX).contains(&word.len());
        let asked = if WAITING_BYTES_MAX < state.bytes {
            Asked::Broken("ERR max client buffer reached")
        } else if WORDS_MAX < words.len() || !words.iter().all(is_sound) {
            Asked::Broken("ERR protocol error")
        } else {
            Asked::Command(words.iter().map(|word| word.to_vec()).collect())
        };
        state.is_full = matches!(asked, Asked::Broken(_));
        state.said.push_back(asked);
        self.changed.notify_all();
    }

    /// The client's connection has ended.
    pub fn leave(&self) {
        self.state.lock().is_gone = true;
        self.changed.notify_all();
    }

    fn kill(&self) {
        self.state.lock().is_killed = true;
        self.changed.notify_all();
    }

    fn is_killed(&self) -> bool {
        self.state.lock().is_killed
    }

    /// What the client says next, if it says something before long.
    fn take(&self) -> Option<Asked> {
        let mut state = self.state.lock();
        if state.said.is_empty() && !state.is_gone && !state.is_killed {
            self.changed.wait_for(&mut state, CHECK);
        }
        if state.is_killed {
            return Some(Asked::Killed);
        }
        let asked = state.said.pop_front();
        if let Some(Asked::Command(words)) = &asked {
            state.bytes -= words.iter().map(Vec::len).sum::<usize>();
        }
        asked.or_else(|| state.is_gone.then_some(Asked::Gone))
    }
}

/// The sessions of a database.
#[derive(Default)]
pub struct Debuggers(Mutex<Vec<Weak<Inbox>>>);

impl Debuggers {
    fn enter(&self) -> Option<Arc<Inbox>> {
        let mut sessions = self.0.lock();
        sessions.retain(|inbox| inbox.strong_count() != 0);
        if SESSIONS_MAX <= sessions.len() {
            return None;
        }
        let inbox = Arc::new(Inbox::default());
        sessions.push(Arc::downgrade(&inbox));
        Some(inbox)
    }

    /// Ends them all.
    pub fn end(&self) {
        self.0.lock().iter().filter_map(Weak::upgrade).for_each(|inbox| inbox.kill());
    }
}

/// Passes what a client says on to the debugger of its script; false if there is none.
#[cold]
pub fn forward(session: &Session, batch: &Batch<'_>) -> bool {
    let Some(Debugging::Running(inbox)) = &session.debugging else { return false };
    batch.commands().for_each(|words| inbox.push(words));
    true
}

/// Whether what a client sends is for a debugger.
pub fn is_running(session: &Session) -> bool {
    matches!(session.debugging, Some(Debugging::Running(_)))
}

/// EVAL under the debugger: the reply comes when the script has ended, and is the last.
pub(crate) fn start(
    context: &mut Context<'_>,
    mode: Mode,
    access: ScriptAccess,
) -> Result<Effect, CommandError> {
    if context.held.is_some() {
        return Err(CommandError::text("ERR a script cannot be debugged inside of a transaction"));
    }
    let session = &mut *context.session;
    let refusal = |reason: &str| {
        CommandError::text(format!("ERR can't run EVAL in debugging mode: {reason}"))
    };
    let debuggers = &context.database.scripting.debuggers;
    let inbox = debuggers.enter().ok_or_else(|| refusal("too many scripts are debugged"))?;
    let job = Job {
        mode,
        access,
        server: Arc::clone(&context.worker.server),
        clock: context.worker.clock.clone(),
        origin: Arc::clone(context.database),
        client: Arc::clone(&session.shared),
        user: Arc::clone(&session.user),
        db: session.db,
        protocol: session.protocol,
        is_out_of_memory: session.is_out_of_memory,
        loopback: session.loopback,
        words: context.args.iter().map(|word| word.to_vec()).collect(),
        inbox: Arc::clone(&inbox),
    };
    let thread = std::thread::Builder::new().name("debugger".into()).stack_size(STACK_BYTES);
    thread.spawn(move || job.run()).map_err(|error| refusal(&error.to_string()))?;
    session.debugging = Some(Debugging::Running(inbox));
    Ok(Effect::None)
}

/// A script to be debugged.
struct Job {
    mode: Mode,
    access: ScriptAccess,
    server: Arc<Server>,
    clock: Clock,
    origin: Arc<Database>,
    client: Arc<ClientShared>,
    user: Arc<User>,
    db: u16,
    protocol: Protocol,
    is_out_of_memory: bool,
    loopback: bool,
    words: Vec<Vec<u8>>,
    inbox: Arc<Inbox>,
}

impl Job {
    fn run(&self) {
        let how = if self.mode == Mode::InPlace { "synchronous" } else { "separate" };
        log::notice!("A {how} debugging session of a script has begun");
        let mut last = Vec::new();
        let ran = catch_unwind(AssertUnwindSafe(|| match self.mode {
            Mode::InPlace => self.debug_in_place(&mut last),
            Mode::Apart => self.debug_apart(&mut last),
        }));
        let logged = ran.unwrap_or_else(|_| {
            log::warning!("Ending a debugging session that ran into a bug");
            self.origin.log.end()
        });
        log::notice!("A debugging session of a script has ended");
        self.client.dismiss(last.into(), logged);
        allocator::publish();
    }

    /// It counts in figures that are no reactor's, and has no mail of its own.
    fn worker(&self) -> Worker {
        let mut worker = Worker::new(self.server.mailboxes.len(), Arc::clone(&self.server));
        worker.clock = self.clock.clone();
        worker.clock.synchronize();
        worker
    }

    fn session(&self, database: &Arc<Database>) -> Session {
        let mut session =
            Session::new(Arc::clone(&self.client), Arc::clone(database), self.loopback);
        session.log_in(Arc::clone(&self.user));
        session.db = self.db;
        session.protocol = self.protocol;
        session.is_out_of_memory = self.is_out_of_memory;
        session
    }

    /// Returns where in the log its effects end.
    fn debug_in_place(&self, last: &mut Vec<u8>) -> u64 {
        let database = &self.origin;
        let (mut worker, mut session) = (self.worker(), self.session(database));
        let Ok(mut access) = database.keyspace.lock_lazily_unless_busy() else {
            last.extend_from_slice(b"*1\r\n+<endsession>\r\n");
            let busy = CommandError::text(database.scripting.busy_text());
            busy.write_to(&mut Writer::new(last, self.protocol));
            return 0;
        };
        self.evaluate(&mut worker, &mut session, &mut access, last);
        dispatch::log_nested(&mut worker, &mut session);
        drop(access);
        if !worker.scratch.ready.is_empty() {
            blocking::serve(&mut worker, database);
        }
        features::end_turn(&mut worker);
        worker.send_published();
        session.logged
    }

    fn debug_apart(&self, last: &mut Vec<u8>) -> u64 {
        let own = Arc::new(self.database());
        let (mut worker, mut session) = (self.worker(), self.session(&own));
        let mut fork = Fork::new(&self.origin.keyspace, &own.keyspace);
        self.evaluate(&mut worker, &mut session, &mut fork, last);
        0
    }

    /// A database like the one that the client is connected to, but empty, and without anybody.
    fn database(&self) -> Database {
        let (server, origin) = (&self.server, &self.origin);
        let stats = Stats::new(server.mailboxes.len(), server.registry.entries().len());
        let (acl, ids) = (Acl::new(&server.registry), Arc::clone(&server.client_ids));
        let mut own =
            Database::new(origin.uid, origin.config(), acl, Encryption::none(), stats, ids);
        own.keyspace = origin.keyspace.sibling();
        own.settings.store(origin.settings.load_full());
        let gate = origin.replication.gate() & !(gate::REPLICA | gate::LINK_DOWN);
        own.replication.set_gate(gate, true);
        let denies_nothing = origin.scripting.denies_nothing.load(Ordering::Relaxed);
        own.scripting.denies_nothing.store(denies_nothing, Ordering::Relaxed);
        own
    }

    fn evaluate(
        &self,
        worker: &mut Worker,
        session: &mut Session,
        held: &mut dyn Segments,
        last: &mut Vec<u8>,
    ) {
        let mut reply = Vec::new();
        let words: Vec<&[u8]> = self.words.iter().map(Vec::as_slice).collect();
        let refused = match Engine::new(Limits::default()) {
            Ok(mut engine) => {
                engine.debug(words[1], self.patience());
                let database = Arc::clone(&session.database);
                let nest = Nest { worker, session, held, nesting: Nesting::Script };
                let ran = self.run_script(&mut engine, nest, &database, &words, &mut reply);
                last.append(&mut engine.end_debugging());
                ran.err()
            }
            Err(problem) => {
                last.extend_from_slice(b"*1\r\n+<endsession>\r\n");
                Some(CommandError::text(format!("ERR {problem}")))
            }
        };
        if let Some(error) = refused {
            error.write_to(&mut Writer::new(&mut reply, self.protocol));
        }
        last.append(&mut reply);
    }

    /// How long a script may run without a stop, and keep others waiting.
    fn patience(&self) -> Duration {
        match self.origin.config().busy_reply_threshold {
            0 => PATIENCE,
            milliseconds => Duration::from_millis(milliseconds),
        }
    }

    fn run_script(
        &self,
        engine: &mut Engine,
        mut nest: Nest<'_>,
        database: &Arc<Database>,
        words: &[&[u8]],
        reply: &mut Vec<u8>,
    ) -> Result<(), CommandError> {
        let count = count_script_keys(words)?;
        let compiled = |text: Vec<u8>| CommandError::Quoting([b"ERR ", &*text].concat().into());
        let handle = engine.script(words[1]).map_err(compiled)?;
        check_script_state(handle.flags, nest.session, &self.origin)?;
        let is_read_only = is_read_only(handle.flags, self.access)?;
        if self.mode == Mode::InPlace
            && let Ok(mut shared) = database.scripting.engine(database)
        {
            // EVALSHA knows it from now on.
            shared.script(words[1]).map_err(compiled)?;
        }
        let place = (&self.server.registry, &**database);
        let (keys, arguments) = words[3..].split_at(count);
        let inner = ScriptHost::new(&mut nest, place, words, None, handle.flags, is_read_only, &[]);
        let mut host = DebugHost {
            inner,
            job: self,
            copied: SegmentSet::default(),
            busy_from: Instant::now() + self.patience().min(PATIENCE),
        };
        let run = Run { keys, arguments, host: &mut host, protocol: self.protocol, out: reply };
        engine.run_script(&handle, run);
        Ok(())
    }
}

/// What a script that is debugged may do, and who debugs it.
struct DebugHost<'a, 'n> {
    inner: ScriptHost<'a, 'n>,
    job: &'a Job,
    /// Segments that there is a copy of, or will be.
    copied: SegmentSet,
    /// When others are told at the latest that they wait in vain.
    busy_from: Instant,
}

impl DebugHost<'_, '_> {
    /// While the client is asked, no reactor may wait for the script's locks without end: it may be the one
    /// that the client's words come through. What a primary sends waits so.
    fn let_go(&mut self) {
        let origin = &self.job.origin;
        if self.job.mode == Mode::InPlace
            && (origin.replication.is_replica() || self.busy_from <= Instant::now())
        {
            self.inner.be_busy();
        }
    }

    /// Whether what a command touches can be copied within `maxmemory`.
    fn has_room(&mut self, words: &[&[u8]]) -> bool {
        let origin = &self.job.origin;
        let limit = origin.room.limit();
        if self.job.mode == Mode::InPlace || limit == 0 {
            return true;
        }
        let Some(entry) = self.job.server.registry.find(words[0]) else { return true };
        let mut wanted = SegmentSet::default();
        if matches!(entry.handler, Handler::Data(_)) && entry.scope == Scope::Keys {
            let hash = |key: &[u8]| wanted.insert(segment_of(origin.keyspace.hash(key)));
            let _ = entry.for_each_key(words, hash);
        } else {
            wanted = SegmentSet::all();
        }
        let mut missing = SegmentSet::default();
        wanted.iter().filter(|it| !self.copied.contains(*it)).for_each(|it| missing.insert(it));
        if missing.is_empty() {
            return true;
        }
        allocator::publish();
        if limit < allocator::used_memory() + origin.keyspace.heap_bytes_of(missing) {
            return false;
        }
        missing.iter().for_each(|segment| self.copied.insert(segment));
        true
    }
}

impl Host for DebugHost<'_, '_> {
    fn call(&mut self, words: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        if self.has_room(words) {
            return self.inner.call(words, protocol, reply);
        }
        self.inner.is_refused = true;
        let text = "OOM there is no room for a copy of the data that this touches";
        CommandError::text(text).write_to(&mut Writer::new(reply, protocol));
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        self.inner.log(level, text);
    }

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        self.inner.acl_check(words)
    }

    fn set_repl(&mut self, targets: u8) {
        self.inner.set_repl(targets);
    }

    fn tick(&mut self) -> Tick {
        if self.job.inbox.is_killed() {
            return Tick::Kill;
        }
        match self.job.mode {
            Mode::InPlace => self.inner.tick(),
            // It is in nobody's way.
            Mode::Apart => Tick::Continue,
        }
    }

    fn console(&mut self) -> Option<&mut dyn Console> {
        Some(self)
    }

    fn was_refused(&mut self) -> bool {
        std::mem::take(&mut self.inner.is_refused)
    }
}

impl Console for DebugHost<'_, '_> {
    fn show(&mut self, reply: Vec<u8>) {
        self.job.client.deliver(reply.into());
        allocator::publish();
    }

    fn ask(&mut self) -> Asked {
        loop {
            self.let_go();
            if let Some(asked) = self.job.inbox.take() {
                return asked;
            }
            if self.tick() == Tick::Kill {
                return Asked::Killed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_command_is_the_last_that_is_taken() {
        let inbox = Inbox::default();
        inbox.push(&[b"p", b"x"]);
        inbox.push(&[b"p", b""]);
        inbox.push(&[b"c"]);
        assert_eq!(inbox.take(), Some(Asked::Command(vec![b"p".to_vec(), b"x".to_vec()])));
        assert_eq!(inbox.take(), Some(Asked::Broken("ERR protocol error")));
        assert_eq!(inbox.take(), None);
        inbox.leave();
        assert_eq!(inbox.take(), Some(Asked::Gone));
        inbox.kill();
        assert_eq!(inbox.take(), Some(Asked::Killed));
    }

    #[test]
    fn what_waits_is_bounded() {
        let inbox = Inbox::default();
        let word = [b'x'; WORD_BYTES_MAX];
        for _ in 0..3000 {
            inbox.push(&[&word]);
        }
        let commands = std::iter::from_fn(|| inbox.take()).collect::<Vec<_>>();
        assert_eq!(commands.len(), WAITING_BYTES_MAX / WORD_BYTES_MAX + 1);
        assert_eq!(commands.last(), Some(&Asked::Broken("ERR max client buffer reached")));
    }

    #[test]
    fn so_many_sessions_and_no_more() {
        let debuggers = Debuggers::default();
        let mut all: Vec<_> = (0..SESSIONS_MAX).map(|_| debuggers.enter()).collect();
        assert!(all.iter().all(Option::is_some) && debuggers.enter().is_none());
        all.pop();
        let late = debuggers.enter().expect("one has ended");
        debuggers.end();
        assert!(late.is_killed());
    }
}
