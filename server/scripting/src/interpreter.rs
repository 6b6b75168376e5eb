//! One Lua state in its sandbox, and the few functions of the prelude through which it is used.

use std::sync::{Arc, Mutex, PoisonError};

use carnelian_resp::Writer;
use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, Variadic, VmState};

use mlua::chunk::ChunkMode;
use mlua::debug::Debug;

use crate::error::{self, PRELUDE, Raised};
use crate::host::{Slot, Tick, current};
use crate::random::Random;
use crate::raw::{Callable, Passing, Runner, Status, strings};
use crate::reply::Booleans;
use crate::{api, library};

/// How many instructions run between two looks at the host.
pub(crate) const INSTRUCTIONS_A_TICK: u32 = 100_000;
/// How many resumptions of coroutines do: each may hide almost as many instructions.
const RESUMPTIONS_A_TICK: u32 = 64;
/// Redis's words for a script that was ended from outside.
pub(crate) const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";

/// What runs in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scripts,
    Functions,
}

pub(crate) struct Interpreter {
    lua: Lua,
    runner: Runner,
    load: Function,
    restore: Function,
}

/// An error that nothing in the script caught.
pub(crate) struct Failure {
    /// None where there is only a text, as when memory runs out.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) place: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) plain: Vec<u8>,
    pub(crate) counted: bool,
}

impl Interpreter {
    pub(crate) fn new(kind: Kind, memory_limit: usize) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::new())?;
        let native = native(&lua, kind)?;
        let name = if kind == Kind::Scripts { "eval" } else { "functions" };
        let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
        let drivers: Table = prelude.call((native, name))?;
        lua.set_globals(drivers.raw_get("globals")?)?;
        watch(&lua)?;
        let runner = Runner::new(&lua, drivers.raw_get("real")?, drivers.raw_get("handler")?)?;
        // From here on: the runner's own places had to be made without one.
        lua.set_memory_limit(memory_limit)?;
        let driver = |name: &str| drivers.raw_get(name);
        let state = Self { runner, load: driver("load")?, restore: driver("restore")?, lua };
        drop(drivers);
        // What the making of it left behind is a good part of a small heap.
        state.collect();
        Ok(state)
    }

    /// Compiles source; an error's text is Lua's own.
    pub(crate) fn compile(&self, source: &[u8], name: &str) -> Result<Function, Vec<u8>> {
        if source.first() == Some(&0x1B) {
            let name = name.trim_start_matches('@');
            return Err(format!("{name}:1: unexpected symbol near 'char(27)'").into_bytes());
        }
        let chunk = self.lua.load(source).set_name(name).set_mode(ChunkMode::Text);
        let compiled = chunk.into_function().map_err(|problem| error::describe(&problem));
        self.collect_some(1);
        compiled
    }

    /// Keeps a function to be run.
    pub(crate) fn keep(&self, function: Function) -> Result<Callable, Vec<u8>> {
        self.runner.keep(&self.lua, function).map_err(|problem| error::describe(&problem))
    }

    /// From here on whatever runs is shown to the debugger of its run.
    pub(crate) fn debug(&mut self) {
        self.runner.hook();
    }

    /// Runs a script of EVAL, or calls a function of a library. What it returns is held until
    /// [`Self::clear`].
    pub(crate) fn run(
        &mut self,
        callable: &Callable,
        passing: Passing,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Result<(), Failure> {
        if self.runner.run(callable, passing, keys, arguments) == Status::Returned {
            // It may have caught its end and returned all the same.
            if current(|slot| slot.run.killed) != Some(true) {
                return Ok(());
            }
        }
        let parts = self.runner.error();
        let killed = current(|slot| slot.run.killed.then(|| slot.run.killed_at.take())).flatten();
        if let Some(place) = killed {
            // The hook left behind fires at every instruction.
            self.runner.clear();
            let _ = watch(&self.lua);
            let text = Some(KILLED.into());
            return Err(Failure { text, place, plain: Vec::new(), counted: false });
        }
        if parts.text.is_none() {
            self.runner.clear();
            let _ = self.lua.gc_collect();
        }
        Err(Failure {
            text: parts.text,
            place: parts.place,
            plain: parts.plain.unwrap_or_else(|| b"execution failure".to_vec()),
            counted: parts.counted,
        })
    }

    /// Writes what a run returned; true if it is an error whose statistics are still to be booked.
    pub(crate) fn write(&mut self, booleans: Booleans, writer: &mut Writer<'_>) -> bool {
        self.runner.write(booleans, writer)
    }

    /// Forgets what a run returned.
    pub(crate) fn clear(&mut self) {
        self.runner.clear();
    }

    /// Runs a library's source. The error has its code in front.
    pub(crate) fn load(&self, chunk: &Function) -> Result<(), Vec<u8>> {
        let ended = self.load.call::<(bool, Value)>(chunk);
        self.collect_some(8);
        if current(|slot| slot.run.killed) == Some(true) {
            let _ = watch(&self.lua);
            let _ = self.restore.call::<()>(());
            return Err(b"ERR FUNCTION LOAD timeout".to_vec());
        }
        match ended {
            Ok((true, _)) => Ok(()),
            Ok((false, Value::String(text))) => Err(text.as_bytes().to_vec()),
            Ok(_) => Err(b"ERR unknown error".to_vec()),
            Err(problem) => {
                let _ = self.restore.call::<()>(());
                Err([b"ERR ", error::describe(&problem).as_slice()].concat())
            }
        }
    }

    /// Bytes of the Lua heap.
    pub(crate) fn used_memory(&self) -> usize {
        self.lua.used_memory()
    }

    /// Has the collector go on a little: compiling leaves more behind than it keeps, and by itself the collector
    /// comes only when the heap has doubled.
    fn collect_some(&self, steps: usize) {
        for _ in 0..steps {
            let _ = self.lua.gc_step();
        }
    }

    /// Frees what nothing refers to any more.
    pub(crate) fn collect(&self) {
        let _ = self.lua.gc_collect();
    }
}

/// Looks at the host every so many instructions.
fn watch(lua: &Lua) -> mlua::Result<()> {
    let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_A_TICK);
    lua.set_global_hook(triggers, on_tick)
}

fn on_tick(lua: &Lua, frame: &Debug<'_>) -> mlua::Result<VmState> {
    let Some(Tick::Kill) = current(tick) else { return Ok(VmState::Continue) };
    let line = frame.current_line();
    let source = frame.source().source.map(|source| source.into_owned());
    let place = source.filter(|source| source != PRELUDE).zip(line);
    current(|slot| {
        let bytes =
            |(source, line): (String, usize)| (source.into_bytes(), line.to_string().into_bytes());
        slot.run.killed_at = slot.run.killed_at.take().or_else(|| place.map(bytes));
    });
    // From here on every instruction of this coroutine fails, so that no `pcall` in it goes on; those
    // around it come here in their turn.
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(1), on_tick)?;
    Err(Raised::table(KILLED))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what there is to give")]
fn tick(slot: Slot<'_>) -> Tick {
    if slot.run.killed {
        return Tick::Kill;
    }
    let tick = slot.host.tick();
    slot.run.killed = tick == Tick::Kill;
    tick
}

/// What the prelude cannot do itself.
fn native(lua: &Lua, kind: Kind) -> mlua::Result<Table> {
    let native = lua.create_table()?;
    native.raw_set("repair", lua.create_function(error::repair)?)?;
    native.raw_set("place", lua.create_function(|lua, ()| Ok(place(lua)))?)?;
    native.raw_set("beat", lua.create_function(|_, ()| beat())?)?;
    let killed = |_: &Lua, ()| Ok(current(|slot| slot.run.killed) == Some(true));
    native.raw_set("killed", lua.create_function(killed)?)?;
    let random = Arc::new(Mutex::new(Random::default()));
    let seeded = Arc::clone(&random);
    let draw = move |lua: &Lua, arguments: Variadic<Value>| {
        let fraction = random.lock().unwrap_or_else(PoisonError::into_inner).fraction();
        library::math::random(lua, &arguments, fraction)
    };
    native.raw_set("random", lua.create_function(draw)?)?;
    let seed = move |lua: &Lua, arguments: Variadic<Value>| {
        let seed = library::int_argument(lua, &arguments, 1)?;
        *seeded.lock().unwrap_or_else(PoisonError::into_inner) = Random::seed(seed);
        Ok(())
    };
    native.raw_set("randomseed", lua.create_function(seed)?)?;
    native.raw_set("string", strings::table(lua)?)?;
    native.raw_set("cjson", library::cjson::table(lua)?)?;
    native.raw_set("cmsgpack", library::cmsgpack::table(lua)?)?;
    native.raw_set("struct", library::packing::table(lua)?)?;
    native.raw_set("bit", library::bit::table(lua)?)?;
    native.raw_set("redis", api::redis(lua, kind)?)?;
    native.raw_set("library", api::library(lua)?)?;
    Ok(native)
}

fn place(lua: &Lua) -> (Option<String>, Option<i64>) {
    error::place(lua).unzip()
}

/// Coroutines count their instructions each for itself: their resumptions are counted as well.
fn beat() -> mlua::Result<()> {
    let killed = current(|slot| {
        slot.run.beats += 1;
        if slot.run.killed {
            return true;
        }
        if slot.run.beats < RESUMPTIONS_A_TICK {
            return false;
        }
        slot.run.beats = 0;
        tick(slot) == Tick::Kill
    });
    if killed == Some(true) { Err(Raised::table(KILLED)) } else { Ok(()) }
}
