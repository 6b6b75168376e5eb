//! One Lua state in its sandbox, and the few functions of the prelude through which it is used.

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Function, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, Variadic, VmState};

use mlua::chunk::ChunkMode;
use mlua::debug::Debug;

use crate::error::{self, PRELUDE, Raised};
use crate::host::{Slot, Tick, current};
use crate::random::Random;
use crate::{api, library};

/// How many instructions run between two looks at the host.
const INSTRUCTIONS_A_TICK: u32 = 100_000;
/// How many resumptions of coroutines do: each may hide almost as many instructions.
const RESUMPTIONS_A_TICK: u32 = 64;
/// More keys and arguments than these are handed over in tables, as Lua's stack is bounded.
const SPREAD_MAX: usize = 64;
/// Redis's words for a script that was ended from outside.
const KILLED: &str = "ERR Script killed by user with SCRIPT KILL...";

/// What runs in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Scripts,
    Functions,
}

pub(crate) struct Interpreter {
    lua: Lua,
    run: Function,
    run_tables: Function,
    call: Function,
    call_tables: Function,
    load: Function,
    restore: Function,
    memory_limit: usize,
}

/// How a run ended.
pub(crate) enum End {
    Returned(Value, Shape),
    Failed(Failure),
}

/// What the prelude has seen of a value already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Unknown,
    /// A table that is a plain array.
    Array,
    /// The text of a status.
    Status,
}

impl Shape {
    fn named(name: &Value) -> Self {
        match name {
            Value::Nil => Self::Unknown,
            Value::Integer(1) => Self::Status,
            _ => Self::Array,
        }
    }
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
        let driver = |name: &str| drivers.raw_get(name);
        Ok(Self {
            run: driver("run")?,
            run_tables: driver("run_tables")?,
            call: driver("call")?,
            call_tables: driver("call_tables")?,
            load: driver("load")?,
            restore: driver("restore")?,
            lua,
            memory_limit,
        })
    }

    /// Compiles source; an error's text is Lua's own.
    pub(crate) fn compile(&self, source: &[u8], name: &str) -> Result<Function, Vec<u8>> {
        if source.first() == Some(&0x1B) {
            let name = name.trim_start_matches('@');
            return Err(format!("{name}:1: unexpected symbol near 'char(27)'").into_bytes());
        }
        let _limited = WithLimit::new(&self.lua, self.memory_limit);
        let chunk = self.lua.load(source).set_name(name).set_mode(ChunkMode::Text);
        chunk.into_function().map_err(|problem| error::describe(&problem))
    }

    /// Runs a script of EVAL.
    pub(crate) fn run(&self, script: &Function, keys: &[&[u8]], arguments: &[&[u8]]) -> End {
        self.enter(&self.run, &self.run_tables, script, keys, arguments)
    }

    /// Calls a function of a library.
    pub(crate) fn call(&self, callback: &Function, keys: &[&[u8]], arguments: &[&[u8]]) -> End {
        self.enter(&self.call, &self.call_tables, callback, keys, arguments)
    }

    fn enter(
        &self,
        spread: &Function,
        tables: &Function,
        body: &Function,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> End {
        let ended = self.try_enter(spread, tables, body, keys, arguments);
        let killed = current(|slot| slot.run.killed) == Some(true);
        if killed {
            // The hook left behind fires at every instruction.
            let _ = watch(&self.lua);
        }
        match ended {
            Ok(Ended(true, value, shape, ..)) => End::Returned(value, Shape::named(&shape)),
            Ok(Ended(false, text, source, line, counted)) => {
                let bytes = |value: &Value| match value {
                    Value::String(text) => Some(text.as_bytes().to_vec()),
                    _ => None,
                };
                let text = bytes(&text);
                let place = bytes(&source).zip(bytes(&line));
                let plain = if text.is_none() { bytes(&source) } else { None };
                let out_of_memory = text.is_none();
                if out_of_memory {
                    let _ = self.lua.gc_collect();
                }
                End::Failed(Failure {
                    place: place.filter(|_| text.is_some()),
                    text,
                    plain: plain.unwrap_or_else(|| b"execution failure".to_vec()),
                    counted,
                })
            }
            Err(problem) => {
                let text = if killed { KILLED.into() } else { error::describe(&problem) };
                let place = current(|slot| slot.run.killed_at.take()).flatten();
                End::Failed(Failure { text: Some(text), place, plain: Vec::new(), counted: false })
            }
        }
    }

    fn try_enter(
        &self,
        spread: &Function,
        tables: &Function,
        body: &Function,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> mlua::Result<Ended> {
        let text = |bytes: &&[u8]| self.lua.create_string(bytes).map(Value::String);
        if keys.len() + arguments.len() <= SPREAD_MAX {
            let all: Variadic<Value> =
                keys.iter().chain(arguments).map(text).collect::<mlua::Result<_>>()?;
            let _limited = WithLimit::new(&self.lua, self.memory_limit);
            spread.call::<Parts>((body, keys.len(), all)).map(Ended::from)
        } else {
            let table = |all: &[&[u8]]| {
                let table = self.lua.create_table_with_capacity(all.len(), 0)?;
                for (index, bytes) in all.iter().enumerate() {
                    table.raw_seti(index + 1, self.lua.create_string(bytes)?)?;
                }
                Ok::<_, mlua::Error>(table)
            };
            let (keys, arguments) = (table(keys)?, table(arguments)?);
            let _limited = WithLimit::new(&self.lua, self.memory_limit);
            tables.call::<Parts>((body, keys, arguments)).map(Ended::from)
        }
    }

    /// Runs a library's source. The error has its code in front.
    pub(crate) fn load(&self, chunk: &Function) -> Result<(), Vec<u8>> {
        let limited = WithLimit::new(&self.lua, self.memory_limit);
        let ended = self.load.call::<(bool, Value)>(chunk);
        drop(limited);
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

    /// Frees what nothing refers to any more.
    pub(crate) fn collect(&self) {
        let _ = self.lua.gc_collect();
    }
}

/// What the drivers of the prelude return: success and the value, or the error's parts.
struct Ended(bool, Value, Value, Value, bool);

type Parts = (bool, Value, Value, Value, Value);

impl From<Parts> for Ended {
    fn from(parts: Parts) -> Self {
        let (ok, value, source, line, counted) = parts;
        Self(ok, value, source, line, matches!(counted, Value::Boolean(true)))
    }
}

/// Bounds the Lua heap while a script runs. In between there is no bound, which spares each
/// allocation of ours a protected call.
struct WithLimit<'a>(&'a Lua);

impl<'a> WithLimit<'a> {
    fn new(lua: &'a Lua, limit: usize) -> Self {
        let _ = lua.set_memory_limit(limit);
        Self(lua)
    }
}

impl Drop for WithLimit<'_> {
    fn drop(&mut self) {
        let _ = self.0.set_memory_limit(0);
    }
}

/// Lifts the bound where our own code builds something that is bounded otherwise.
pub(crate) struct WithoutLimit<'a>(&'a Lua, usize);

impl<'a> WithoutLimit<'a> {
    pub(crate) fn new(lua: &'a Lua) -> Self {
        Self(lua, lua.set_memory_limit(0).unwrap_or(0))
    }
}

impl Drop for WithoutLimit<'_> {
    fn drop(&mut self) {
        let _ = self.0.set_memory_limit(self.1);
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
    native.raw_set("string", lua.create_table()?)?;
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
