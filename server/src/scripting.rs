//! Scripts and functions of a database: the engine they run in, who runs one, and what a script may
//! do here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use carnelian_commands::{CommandError, Flags};
use carnelian_resp::{Protocol, Writer};
use carnelian_scripting::{
    Engine, Flags as ScriptFlags, Host, Limits, LogLevel, Tick, script_flags,
};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::acl::{self, Origin};
use crate::clock::Clock;
use crate::database::Database;
use crate::debugger::Debuggers;
use crate::dispatch::{self, BUSY, BUSY_FUNCTION, Nest, UNSAVED};
use crate::effects::Audience;
use crate::log;
use crate::reactor;
use crate::registry::{Entry, Registry};
use crate::replication::gate;

/// How long a wait for the engine goes on before it looks whether a script has run for too long.
const BUSY_CHECK: Duration = Duration::from_millis(1);
/// How often the reactor's other clients are served while a script runs for too long.
const SERVE_NS: u64 = 5_000_000;
/// How long the source of a library may run.
const LOAD_NS_MAX: u64 = 500_000_000;

/// What belongs to one database.
#[derive(Default)]
pub struct Scripting {
    /// Made when first needed. Taken after the keyspace's token and segments, and by nobody who could
    /// be asked for either while holding it: FUNCTION LOAD runs no commands.
    engine: Mutex<Option<Engine>>,
    /// The script that has run for too long.
    running: Mutex<Option<Arc<Running>>>,
    /// As of the last look.
    figures: Mutex<Figures>,
    /// Scripts that had been evicted at the last CONFIG RESETSTAT.
    evicted_before: AtomicU64,
    /// Scripts that are debugged.
    pub debuggers: Debuggers,
    /// DEBUG SET-DISABLE-DENY-SCRIPTS: scripts may run what they may not run otherwise.
    pub denies_nothing: AtomicBool,
}

/// What INFO shows of scripts and functions.
#[derive(Clone, Copy, Default)]
pub struct Figures {
    pub scripts: usize,
    pub evicted: u64,
    pub libraries: usize,
    pub functions: usize,
    /// Sources and what finds them.
    pub scripts_bytes: usize,
    /// The two heaps of Lua.
    pub scripts_heap: usize,
    pub functions_heap: usize,
}

/// A script that has run for longer than `busy-reply-threshold`.
pub struct Running {
    pub is_function: bool,
    /// The function's name.
    pub name: Vec<u8>,
    pub command: Vec<Vec<u8>>,
    pub start_us: u64,
    wrote: AtomicBool,
    killed: AtomicBool,
}

impl Scripting {
    /// The engine, unless a script has it that has run for too long.
    pub fn engine(
        &self,
        database: &Database,
    ) -> Result<MappedMutexGuard<'_, Engine>, CommandError> {
        let mut guard = loop {
            if let Some(guard) = self.engine.try_lock_for(BUSY_CHECK) {
                break guard;
            }
            if database.keyspace.is_busy() {
                return Err(CommandError::text(self.busy_text()));
            }
        };
        if guard.is_none() {
            let made = Engine::new(Limits::default());
            *guard = Some(made.map_err(|problem| CommandError::text(format!("ERR {problem}")))?);
        }
        MutexGuard::try_map(guard, Option::as_mut)
            .map_err(|_| CommandError::text("ERR there is no engine for scripts"))
    }

    /// The sources of all libraries of functions.
    pub fn library_sources(&self) -> Vec<Vec<u8>> {
        let engine = self.engine.lock();
        let sources = |engine: &Engine| engine.libraries().map(|it| it.code.to_vec()).collect();
        engine.as_ref().map_or(Vec::new(), sources)
    }

    /// Whether a script may write, or pass something on, for all it says of itself.
    pub fn may_write(&self, database: &Database, command: &str, words: &[&[u8]]) -> bool {
        let says_so = |flags: ScriptFlags| flags.contains(ScriptFlags::NO_WRITES);
        !command.ends_with("_ro") && !self.flags(database, command, words).is_some_and(says_so)
    }

    /// What the script or function that a command runs says of itself; none if there is no such.
    pub fn flags(
        &self,
        database: &Database,
        command: &str,
        words: &[&[u8]],
    ) -> Option<ScriptFlags> {
        match command {
            "eval" | "eval_ro" => script_flags(words[1]),
            "evalsha" | "evalsha_ro" => {
                Some(self.engine(database).ok()?.script_by_sha(words[1])?.flags)
            }
            _ => Some(self.engine(database).ok()?.function(words[1])?.flags()),
        }
    }

    /// The script that has run for too long, if one has.
    pub fn running(&self) -> Option<Arc<Running>> {
        self.running.lock().clone()
    }

    /// What others are told while a script runs for too long.
    pub fn busy_text(&self) -> &'static str {
        let is_function = self.running().is_some_and(|running| running.is_function);
        if is_function { BUSY_FUNCTION } else { BUSY }
    }

    /// What there is; as it was at the last look where a script has the engine, even if the one who
    /// asks runs inside of it.
    pub fn figures(&self) -> Figures {
        if let Some(guard) = self.engine.try_lock_for(BUSY_CHECK)
            && let Some(engine) = guard.as_ref()
        {
            let (scripts_bytes, scripts_heap, functions_heap) = engine.memory();
            let (libraries, functions) = engine.libraries_len();
            *self.figures.lock() = Figures {
                scripts: engine.scripts_len(),
                evicted: engine
                    .scripts_evicted()
                    .saturating_sub(self.evicted_before.load(Ordering::Relaxed)),
                libraries,
                functions,
                scripts_bytes,
                scripts_heap,
                functions_heap,
            };
        }
        *self.figures.lock()
    }

    /// CONFIG RESETSTAT.
    pub fn reset(&self) {
        let evicted = self.figures().evicted;
        self.evicted_before.fetch_add(evicted, Ordering::Relaxed);
        self.figures.lock().evicted = 0;
    }

    /// Ends a script that has run for too long, whatever it has done: its data are of no use to anybody any more.
    pub fn end_running(&self) {
        self.debuggers.end();
        if let Some(running) = self.running() {
            running.killed.store(true, Ordering::Release);
        }
    }

    /// SCRIPT KILL, or FUNCTION KILL.
    pub fn kill(&self, function: bool) -> Result<(), CommandError> {
        let Some(running) = self.running() else {
            return Err(CommandError::text("NOTBUSY No scripts in execution right now."));
        };
        if running.wrote.load(Ordering::Acquire) {
            return Err(CommandError::text(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. \
                 You can either wait the script termination or kill the server in a hard way using \
                 the SHUTDOWN NOSAVE command.",
            ));
        }
        match (running.is_function, function) {
            (true, false) => return Err(CommandError::text(BUSY_FUNCTION)),
            (false, true) => return Err(CommandError::text(BUSY)),
            _ => {}
        }
        running.killed.store(true, Ordering::Release);
        Ok(())
    }
}

/// What a script is run for, and what it may do.
pub struct ScriptHost<'a, 'n> {
    nest: &'a mut Nest<'n>,
    registry: &'a Registry,
    database: &'a Database,
    /// The command that runs the script.
    command: &'a [&'a [u8]],
    is_read_only: bool,
    may_exceed_memory: bool,
    /// The name, where it is a function.
    function: Option<&'a [u8]>,
    wrote: bool,
    /// The last command was refused before it ran; taken back by who asks.
    pub is_refused: bool,
    /// `redis.set_repl`: for whom what it does is.
    audience: Audience,
    start_ns: u64,
    published: Option<Arc<Running>>,
    /// Replies of this turn that are yet to be flushed.
    staged: &'a [u8],
    /// When others were served last.
    served_ns: u64,
}

impl<'a, 'n> ScriptHost<'a, 'n> {
    pub fn new(
        nest: &'a mut Nest<'n>,
        (registry, database): (&'a Registry, &'a Database),
        command: &'a [&'a [u8]],
        function: Option<&'a [u8]>,
        flags: ScriptFlags,
        is_read_only: bool,
        staged: &'a [u8],
    ) -> Self {
        let start_ns = nest.worker.clock.elapsed_ns();
        Self {
            nest,
            registry,
            database,
            command,
            is_read_only,
            may_exceed_memory: flags.contains(ScriptFlags::ALLOW_OOM),
            function,
            wrote: false,
            is_refused: false,
            audience: Audience::All,
            start_ns,
            published: None,
            staged,
            served_ns: 0,
        }
    }

    fn find(&self, words: &[&[u8]]) -> Option<&'a Entry> {
        let entry = self.registry.find(words[0])?;
        match words.get(1) {
            Some(word) if !entry.subcommands.is_empty() => self.registry.find_sub(entry, word),
            _ => Some(entry),
        }
    }

    /// Whether the command may be called; its entry.
    fn admit(&self, words: &[&[u8]]) -> Result<&'a Entry, (Option<&'a Entry>, CommandError)> {
        let unknown = || (None, CommandError::text("ERR Unknown Redis command called from script"));
        let entry = self.find(words).ok_or_else(unknown)?;
        if !entry.accepts(words.len()) {
            return Err((
                None,
                CommandError::text("ERR Wrong number of args calling Redis command from script"),
            ));
        }
        let denies = !self.database.scripting.denies_nothing.load(Ordering::Relaxed);
        if denies && entry.flags.contains(Flags::NOSCRIPT) {
            return Err((
                Some(entry),
                CommandError::text("ERR This Redis command is not allowed from script"),
            ));
        }
        let session = &*self.nest.session;
        let gate = session.database.replication.gate();
        if gate & gate::STALE != 0
            && session.primary.is_none()
            && !entry.flags.contains(Flags::STALE)
        {
            let text = "ERR Can not execute the command on a stale replica";
            return Err((Some(entry), CommandError::text(text)));
        }
        if !session.may_do_all()
            && let Err(denied) = acl::check(&session.user, entry, words, session.db)
        {
            acl::report(self.nest.worker, session, entry, words, denied, Origin::Lua);
            let text = denied.text(&session.user, entry);
            let text = [b"ERR ACL failure in script: ", text.as_slice()].concat();
            return Err((Some(entry), CommandError::Quoting(text.into())));
        }
        if self.is_read_only && (entry.flags.contains(Flags::WRITE) || entry.may_replicate) {
            return Err((
                Some(entry),
                CommandError::text("ERR Write commands are not allowed from read-only scripts."),
            ));
        }
        if gate & gate::REFUSING != 0
            && (!self.wrote || gate & gate::CLOSED != 0)
            && let Some(text) = dispatch::gated(session, entry, None, gate)
        {
            return Err((Some(entry), CommandError::text(text)));
        }
        if (self.database.snapshots.refuses_writes() || self.database.aof.refuses_writes())
            && (entry.flags.contains(Flags::WRITE) || entry.may_replicate)
            && !self.wrote
        {
            let refusal = self.database.write_refusal();
            return Err((Some(entry), refusal.unwrap_or_else(|| CommandError::text(UNSAVED))));
        }
        // Once it has written it goes on, since half of it would be worse.
        if session.is_out_of_memory
            && entry.flags.contains(Flags::DENYOOM)
            && !self.wrote
            && !self.may_exceed_memory
        {
            return Err((
                Some(entry),
                CommandError::text("OOM command not allowed when used memory > 'maxmemory'."),
            ));
        }
        Ok(entry)
    }

    /// Others are told from now on that they cannot be served, whatever the threshold for that.
    pub fn be_busy(&mut self) {
        if self.published.is_none() {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let clock = &self.nest.worker.clock;
        let elapsed_us = clock.elapsed_ns().saturating_sub(self.start_ns) / 1000;
        let running = Arc::new(Running {
            is_function: self.function.is_some(),
            name: self.function.unwrap_or_default().to_vec(),
            command: self.command.iter().map(|word| word.to_vec()).collect(),
            start_us: clock.elapsed_us().saturating_sub(elapsed_us),
            wrote: AtomicBool::new(self.wrote),
            killed: AtomicBool::new(false),
        });
        let kind = if self.function.is_some() { "function" } else { "script" };
        log::warning!(
            "Slow {kind} detected: still in execution after {} milliseconds. You can try killing \
             the {kind} using the {} KILL command.",
            elapsed_us / 1000,
            if self.function.is_some() { "FUNCTION" } else { "SCRIPT" },
        );
        *self.database.scripting.running.lock() = Some(Arc::clone(&running));
        self.database.keyspace.set_busy(true);
        self.published = Some(running);
    }
}

impl Drop for ScriptHost<'_, '_> {
    fn drop(&mut self) {
        if self.published.is_some() {
            self.database.keyspace.set_busy(false);
            *self.database.scripting.running.lock() = None;
        }
    }
}

impl Host for ScriptHost<'_, '_> {
    fn call(&mut self, words: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        let entry = match self.admit(words) {
            Ok(entry) => entry,
            Err((entry, error)) => {
                self.is_refused = true;
                let counters = self.nest.worker.counters(self.database);
                if let Some(entry) = entry {
                    counters.commands[entry.id].rejected.add(1);
                }
                counters.count_error(&error.to_string());
                error.write_to(&mut Writer::new(reply, protocol));
                return;
            }
        };
        if !self.wrote && entry.flags.contains(Flags::WRITE) {
            self.wrote = true;
            if let Some(running) = &self.published {
                running.wrote.store(true, Ordering::Release);
            }
        }
        let before = std::mem::replace(&mut self.nest.session.protocol, protocol);
        self.nest.worker.scratch.unit.audience = self.audience;
        self.nest.run(self.registry, entry, words, reply);
        self.nest.worker.scratch.unit.audience = Audience::All;
        self.nest.session.protocol = before;
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        write_log(level, text);
    }

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        let entry = self.find(words)?;
        let session = &*self.nest.session;
        if session.may_do_all() {
            return Some(true);
        }
        let may = entry.accepts(words.len())
            && acl::check(&session.user, entry, words, session.db).is_ok();
        Some(may)
    }

    fn set_repl(&mut self, targets: u8) {
        self.audience = match (targets & 1 != 0, targets & 2 != 0) {
            (true, true) => Audience::All,
            (true, false) => Audience::File,
            (false, true) => Audience::Replicas,
            (false, false) => Audience::Nobody,
        };
    }

    fn tick(&mut self) -> Tick {
        let now_ns = self.nest.worker.clock.elapsed_ns();
        if let Some(running) = &self.published {
            if self.served_ns + SERVE_NS <= now_ns {
                self.served_ns = now_ns;
                let goes_on = reactor::serve_meanwhile(self.nest.worker, self.staged);
                if !goes_on {
                    return Tick::Kill;
                }
            }
            let killed = running.killed.load(Ordering::Acquire);
            return if killed { Tick::Kill } else { Tick::Continue };
        }
        if self.nest.session.settings.busy_ns <= now_ns.saturating_sub(self.start_ns) {
            self.publish();
        }
        Tick::Continue
    }
}

/// What a library may do while it is loaded: nothing but log, and not for long.
pub struct LoadHost<'a> {
    clock: &'a Clock,
    start_ns: u64,
}

impl<'a> LoadHost<'a> {
    pub fn new(clock: &'a Clock) -> Self {
        Self { clock, start_ns: clock.elapsed_ns() }
    }
}

impl Host for LoadHost<'_> {
    fn call(&mut self, _: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        Writer::new(reply, protocol).error("ERR This Redis command is not allowed from script");
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        write_log(level, text);
    }

    fn acl_check(&mut self, _: &[&[u8]]) -> Option<bool> {
        Some(false)
    }

    fn set_repl(&mut self, _: u8) {}

    fn tick(&mut self) -> Tick {
        let elapsed = self.clock.elapsed_ns().saturating_sub(self.start_ns);
        if elapsed < LOAD_NS_MAX { Tick::Continue } else { Tick::Kill }
    }
}

fn write_log(level: LogLevel, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match level {
        LogLevel::Debug => log::debug!("{text}"),
        LogLevel::Verbose => log::verbose!("{text}"),
        LogLevel::Notice => log::notice!("{text}"),
        LogLevel::Warning => log::warning!("{text}"),
    }
}
