//! All that runs scripts of one database: the cache of EVAL, the libraries, and a Lua state for each.

use std::fmt;
use std::panic::resume_unwind;
use std::time::Duration;

use carnelian_resp::{Protocol, Writer};

use crate::api::hex_digest;
use crate::debugger::Debugger;
use crate::functions::{FunctionHandle, Libraries, LibraryInfo, Loading, Restore};
use crate::host::{Host, RunState, Slot, with_host};
use crate::interpreter::{Failure, Interpreter, Kind};
use crate::raw::debug::SCRIPT;
use crate::raw::{Callable, Passing};
use crate::reply::{Booleans, up_to_nul};
use crate::scripts::{Origin, ScriptHandle, Scripts, Sha};
use crate::shebang;

/// What scripts may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the Lua heap, for scripts and for functions each.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 1 << 30 }
    }
}

/// How a run ended, for the statistics of errors; its reply is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The reply is an error; `counted` if a command within has booked it already.
    Error {
        counted: bool,
    },
}

/// What a run is given.
pub struct Run<'a> {
    pub keys: &'a [&'a [u8]],
    pub arguments: &'a [&'a [u8]],
    pub host: &'a mut dyn Host,
    /// What the client speaks; commands of the script answer in RESP2 until `redis.setresp`.
    pub protocol: Protocol,
    pub out: &'a mut Vec<u8>,
}

/// One for a database, shared by all that run scripts: whoever runs one has it to itself.
pub struct Engine {
    scripts: Scripts,
    script_state: Interpreter,
    libraries: Libraries,
    function_state: Interpreter,
    run: RunState,
    limits: Limits,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("scripts", &self.scripts.len()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Errors only if there is no memory for two empty states.
    pub fn new(limits: Limits) -> Result<Self, String> {
        let state = |kind| Interpreter::new(kind, limits.memory).map_err(|e| e.to_string());
        Ok(Self {
            scripts: Scripts::default(),
            script_state: state(Kind::Scripts)?,
            libraries: Libraries::default(),
            function_state: state(Kind::Functions)?,
            run: RunState::default(),
            limits,
        })
    }

    // --- Scripts ---

    /// The script of EVAL, compiled and kept if it is new. The error's text is without its code.
    pub fn script(&mut self, body: &[u8]) -> Result<ScriptHandle, Vec<u8>> {
        match self.scripts.by_body(body) {
            Some(handle) => Ok(handle),
            None => self.compile(body, Origin::Evaluated),
        }
    }

    /// The script of EVALSHA.
    pub fn script_by_sha(&self, sha: &[u8]) -> Option<ScriptHandle> {
        self.scripts.by_sha(sha)
    }

    /// SCRIPT LOAD.
    pub fn load_script(&mut self, body: &[u8]) -> Result<Sha, Vec<u8>> {
        match self.scripts.by_body(body) {
            Some(handle) => Ok(handle.sha),
            None => self.compile(body, Origin::Loaded).map(|handle| handle.sha),
        }
    }

    pub fn script_exists(&self, sha: &[u8]) -> bool {
        self.scripts.exists(sha)
    }

    /// SCRIPT SHOW: the source of a script.
    pub fn script_body(&self, sha: &[u8]) -> Option<&[u8]> {
        self.scripts.by_sha(sha).map(|handle| self.scripts.body(&handle))
    }

    /// SCRIPT FLUSH: also what scripts left in the state goes, as in Redis.
    pub fn flush_scripts(&mut self) {
        self.scripts.clear();
        match Interpreter::new(Kind::Scripts, self.limits.memory) {
            Ok(state) => self.script_state = state,
            Err(_) => self.script_state.collect(),
        }
    }

    /// Runs a script and writes its reply.
    pub fn run_script(&mut self, handle: &ScriptHandle, run: Run<'_>) -> Outcome {
        let Some(function) = self.scripts.used(handle) else {
            Writer::new(run.out, run.protocol)
                .error("NOSCRIPT No matching script. Please use EVAL.");
            return Outcome::Error { counted: false };
        };
        let state = &mut self.script_state;
        finish(&mut self.run, state, Name(&handle.sha), function, Passing::Globals, run)
    }

    /// Begins a debugging session: the script of this body, which is to be run next, asks the console of its
    /// host what to do. One that runs for longer than `patience` is stopped.
    pub fn debug(&mut self, body: &[u8], patience: Duration) {
        self.run.debugger = Some(Box::new(Debugger::new(body, patience)));
        self.script_state.debug();
    }

    /// Ends it; what is yet to be told, as a reply.
    pub fn end_debugging(&mut self) -> Vec<u8> {
        let Some(mut debugger) = self.run.debugger.take() else { return Vec::new() };
        debugger.log(b"<endsession>");
        debugger.take_pending()
    }

    pub fn scripts_len(&self) -> usize {
        self.scripts.len()
    }

    pub fn scripts_evicted(&self) -> u64 {
        self.scripts.evicted()
    }

    /// Bytes of sources and caches, and of the two Lua heaps: `used_memory_scripts_eval`,
    /// `used_memory_vm_eval`, `used_memory_vm_functions`.
    pub fn memory(&self) -> (usize, usize, usize) {
        let vm = self.script_state.used_memory();
        (self.scripts.bytes(), vm, self.function_state.used_memory())
    }

    fn compile(&mut self, body: &[u8], origin: Origin) -> Result<ScriptHandle, Vec<u8>> {
        let read = shebang::script(body)?;
        let source = &body[read.source_at..];
        let state = &self.script_state;
        let compiled = state.compile(source, SCRIPT).and_then(|chunk| state.keep(chunk));
        let function = compiled.map_err(|problem| {
            [b"Error compiling script (new function): ", problem.as_slice()].concat()
        })?;
        Ok(self.scripts.insert(body, hex_digest(body), read.flags, function, origin))
    }

    // --- Functions ---

    /// FUNCTION LOAD; the library's name. The error's text is without its code.
    pub fn load_library(
        &mut self,
        code: &[u8],
        loading: Loading,
        host: &mut dyn Host,
    ) -> Result<Vec<u8>, Vec<u8>> {
        self.libraries.load(&self.function_state, &mut self.run, code, loading, host)
    }

    /// FUNCTION DELETE; false if there is no such library.
    pub fn delete_library(&mut self, name: &[u8]) -> bool {
        self.libraries.delete(name)
    }

    /// FUNCTION FLUSH: the Lua state is made anew.
    pub fn flush_libraries(&mut self) {
        self.libraries = Libraries::default();
        match Interpreter::new(Kind::Functions, self.limits.memory) {
            Ok(state) => self.function_state = state,
            Err(_) => self.function_state.collect(),
        }
    }

    /// FUNCTION LIST, in no order that means something.
    pub fn libraries(&self) -> impl Iterator<Item = LibraryInfo<'_>> {
        self.libraries.iter()
    }

    /// Libraries and functions, as FUNCTION STATS and INFO count them.
    pub fn libraries_len(&self) -> (usize, usize) {
        self.libraries.len()
    }

    /// FUNCTION DUMP.
    pub fn dump_libraries(&self) -> Vec<u8> {
        self.libraries.dump()
    }

    /// FUNCTION RESTORE: all of it or nothing. The error's text is without its code.
    pub fn restore_libraries(
        &mut self,
        payload: &[u8],
        policy: Restore,
        host: &mut dyn Host,
    ) -> Result<(), Vec<u8>> {
        self.libraries.restore(&self.function_state, &mut self.run, payload, policy, host)
    }

    /// Where FCALL finds a function; capitals do not matter.
    pub fn function(&self, name: &[u8]) -> Option<FunctionHandle> {
        self.libraries.function(name)
    }

    /// Runs a function and writes its reply.
    pub fn call_function(&mut self, handle: &FunctionHandle, run: Run<'_>) -> Outcome {
        let Some(callback) = self.libraries.callback(handle) else {
            Writer::new(run.out, run.protocol).error("ERR Function not found");
            return Outcome::Error { counted: false };
        };
        let state = &mut self.function_state;
        finish(&mut self.run, state, Name(handle.name()), callback, Passing::Arguments, run)
    }
}

/// What errors call the script: its digest, or the function's name.
#[derive(Clone, Copy)]
struct Name<'a>(&'a [u8]);

fn finish(
    state: &mut RunState,
    interpreter: &mut Interpreter,
    name: Name<'_>,
    callable: &Callable,
    passing: Passing,
    run: Run<'_>,
) -> Outcome {
    let Run { keys, arguments, host, protocol, out } = run;
    state.protocol = Protocol::Resp2;
    state.killed = false;
    state.killed_at = None;
    let ended = with_host(Slot { host, run: &mut *state }, || {
        interpreter.run(callable, passing, keys, arguments)
    });
    if let Some(panic) = state.panic.take() {
        interpreter.clear();
        resume_unwind(panic.0);
    }
    let mut writer = Writer::new(out, protocol);
    let outcome = match ended {
        Ok(()) => {
            let booleans = match state.protocol {
                Protocol::Resp2 => Booleans::AsNumbers,
                Protocol::Resp3 => Booleans::AsBooleans,
            };
            let start = writer.len();
            if interpreter.write(booleans, &mut writer) {
                Outcome::Error { counted: false }
            } else if writer.written().get(start) == Some(&b'-') {
                Outcome::Error { counted: true }
            } else {
                Outcome::Done
            }
        }
        Err(failure) => {
            writer.error(failure_text(&failure, name));
            Outcome::Error { counted: failure.counted }
        }
    };
    interpreter.clear();
    outcome
}

fn failure_text(failure: &Failure, Name(name): Name<'_>) -> Vec<u8> {
    let Some(text) = &failure.text else {
        let plain = &failure.plain[..failure.plain.len().min(100)];
        return [b"ERR Error running script ", name, b", ", plain].concat();
    };
    let mut whole = up_to_nul(text).to_vec();
    if let Some((source, line)) = &failure.place {
        for part in [&b" script: "[..], name, b", on ", source, b":", line, b"."] {
            whole.extend_from_slice(part);
        }
    }
    whole
}
