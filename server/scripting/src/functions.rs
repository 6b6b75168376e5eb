//! Libraries of functions: what FUNCTION LOAD registers and FCALL calls.
#![allow(clippy::needless_pass_by_value)] // Functions that Lua calls own what they are given.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use mlua::{Function, Lua, Table, Value, Variadic};

use crate::error::Raised;
use crate::flags::Flags;
use crate::host::{Host, RunState, Slot, current, with_host};
use crate::interpreter::Interpreter;
use crate::raw::Callable;
use crate::{payload, shebang};

const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must \
                        be at least one character long";

/// What to do with a library that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    New,
    Replace,
}

/// The policy of FUNCTION RESTORE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    Flush,
    Append,
    Replace,
}

/// A function that FCALL found. It goes stale with the next change of the libraries.
#[derive(Clone)]
pub struct FunctionHandle(Arc<LoadedFunction>);

impl FunctionHandle {
    /// The function's name as it was registered.
    pub fn name(&self) -> &[u8] {
        &self.0.name
    }

    pub fn flags(&self) -> Flags {
        self.0.flags
    }
}

/// A library, as FUNCTION LIST shows it.
#[derive(Debug)]
pub struct LibraryInfo<'a> {
    pub name: &'a [u8],
    pub code: &'a [u8],
    pub functions: Vec<FunctionInfo<'a>>,
}

#[derive(Debug)]
pub struct FunctionInfo<'a> {
    pub name: &'a [u8],
    pub description: Option<&'a [u8]>,
    pub flags: Flags,
}

/// What a library has registered so far, while its source runs.
#[derive(Default)]
pub(crate) struct Registrations(BTreeMap<Vec<u8>, Registered>);

struct Registered {
    callback: Function,
    description: Option<Vec<u8>>,
    flags: Flags,
}

struct LoadedFunction {
    name: Vec<u8>,
    /// The name in lower case.
    key: Vec<u8>,
    callable: Callable,
    description: Option<Vec<u8>>,
    flags: Flags,
}

#[derive(Clone)]
struct Library {
    name: Arc<[u8]>,
    code: Arc<[u8]>,
    /// Ascending by name.
    functions: Vec<Arc<LoadedFunction>>,
}

/// Invariant: `functions` has each function of each library, by its name in lower case.
#[derive(Clone, Default)]
pub(crate) struct Libraries {
    libraries: BTreeMap<Arc<[u8]>, Library>,
    functions: HashMap<Vec<u8>, Arc<LoadedFunction>, RandomState>,
}

impl Libraries {
    pub(crate) fn load(
        &mut self,
        state: &Interpreter,
        run: &mut RunState,
        code: &[u8],
        loading: Loading,
        host: &mut dyn Host,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let library = self.read(state, run, code, loading, host)?;
        let name = library.name.to_vec();
        let old = self.remove(&library.name);
        if let Some(taken) = self.taken(&library) {
            if let Some(old) = old {
                self.insert(old);
            }
            return Err([b"Function ", taken.as_slice(), b" already exists"].concat());
        }
        self.insert(library);
        Ok(name)
    }

    /// Runs a library's source, without changing anything here.
    fn read(
        &self,
        state: &Interpreter,
        run: &mut RunState,
        code: &[u8],
        loading: Loading,
        host: &mut dyn Host,
    ) -> Result<Library, Vec<u8>> {
        let read = shebang::library(code)?;
        if !is_name(&read.name) {
            return Err(BAD_NAME.into());
        }
        if !read.engine.eq_ignore_ascii_case(b"lua") {
            return Err([b"Engine '", read.engine.as_slice(), b"' not found"].concat());
        }
        if loading == Loading::New && self.libraries.contains_key(read.name.as_slice()) {
            return Err([b"Library '", read.name.as_slice(), b"' already exists"].concat());
        }
        let chunk = state
            .compile(&code[read.source_at..], "@user_function")
            .map_err(|problem| [b"Error compiling function: ", problem.as_slice()].concat())?;
        run.killed = false;
        run.loading = Some(Registrations::default());
        let loaded = with_host(Slot { host, run: &mut *run }, || state.load(&chunk));
        let registered = run.loading.take().unwrap_or_default();
        loaded
            .map_err(|problem| [b"Error registering functions: ", problem.as_slice()].concat())?;
        if registered.0.is_empty() {
            return Err(b"No functions registered".to_vec());
        }
        let keep = |(name, Registered { callback, description, flags }): (Vec<u8>, _)| {
            let (callable, key) = (state.keep(callback)?, name.to_ascii_lowercase());
            Ok(Arc::new(LoadedFunction { name, key, callable, description, flags }))
        };
        let functions = registered.0.into_iter().map(keep).collect::<Result<_, Vec<u8>>>()?;
        Ok(Library { name: read.name.into(), code: code.into(), functions })
    }

    /// A function of this library whose name another one has.
    fn taken(&self, library: &Library) -> Option<Vec<u8>> {
        let mut functions = library.functions.iter();
        let taken = functions.find(|function| self.functions.contains_key(&function.key))?;
        Some(taken.name.clone())
    }

    fn insert(&mut self, library: Library) {
        for function in &library.functions {
            self.functions.insert(function.key.clone(), Arc::clone(function));
        }
        self.libraries.insert(Arc::clone(&library.name), library);
    }

    fn remove(&mut self, name: &[u8]) -> Option<Library> {
        let library = self.libraries.remove(name)?;
        for function in &library.functions {
            self.functions.remove(&function.key);
        }
        Some(library)
    }

    pub(crate) fn delete(&mut self, name: &[u8]) -> bool {
        self.remove(name).is_some()
    }

    pub(crate) fn len(&self) -> (usize, usize) {
        (self.libraries.len(), self.functions.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = LibraryInfo<'_>> {
        self.libraries.values().map(|library| LibraryInfo {
            name: &library.name,
            code: &library.code,
            functions: library
                .functions
                .iter()
                .map(|function| FunctionInfo {
                    name: &function.name,
                    description: function.description.as_deref(),
                    flags: function.flags,
                })
                .collect(),
        })
    }

    pub(crate) fn function(&self, name: &[u8]) -> Option<FunctionHandle> {
        let found = match self.functions.get(name) {
            Some(found) => found,
            None => self.functions.get(&name.to_ascii_lowercase())?,
        };
        Some(FunctionHandle(Arc::clone(found)))
    }

    /// What to call, unless the function is gone.
    pub(crate) fn callback<'h>(&self, handle: &'h FunctionHandle) -> Option<&'h Callable> {
        let present = self.functions.get(&handle.0.key)?;
        Arc::ptr_eq(present, &handle.0).then_some(&handle.0.callable)
    }

    pub(crate) fn dump(&self) -> Vec<u8> {
        payload::encode(self.libraries.values().map(|library| &*library.code))
    }

    pub(crate) fn restore(
        &mut self,
        state: &Interpreter,
        run: &mut RunState,
        payload: &[u8],
        policy: Restore,
        host: &mut dyn Host,
    ) -> Result<(), Vec<u8>> {
        let mut restored = Self::default();
        for code in payload::decode(payload)? {
            restored.load(state, run, &code, Loading::New, host)?;
        }
        let mut joined = if policy == Restore::Flush { Self::default() } else { self.clone() };
        for library in restored.libraries.values() {
            let is_there = joined.libraries.contains_key(&library.name);
            if is_there && policy == Restore::Append {
                return Err([b"Library ", &*library.name, b" already exists"].concat());
            }
            joined.remove(&library.name);
        }
        for library in restored.libraries.into_values() {
            if let Some(taken) = joined.taken(&library) {
                return Err([b"Function ", taken.as_slice(), b" already exists"].concat());
            }
            joined.insert(library);
        }
        *self = joined;
        Ok(())
    }
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// `redis.register_function`.
pub(crate) fn register(_: &Lua, arguments: Variadic<Value>) -> mlua::Result<()> {
    let registered = current(|slot| {
        let loading = slot.run.loading.as_mut()?;
        Some(read_arguments(&arguments).and_then(|(name, function)| {
            if !is_name(&name) {
                return Err(BAD_NAME);
            }
            if loading.0.contains_key(&name) {
                return Err("Function already exists in the library");
            }
            loading.0.insert(name, function);
            Ok(())
        }))
    });
    let problem = match registered.flatten() {
        Some(Ok(())) => return Ok(()),
        Some(Err(problem)) => problem,
        None => "redis.register_function can only be called on FUNCTION LOAD command",
    };
    Err(Raised::table(format!("ERR {problem}")))
}

fn read_arguments(arguments: &[Value]) -> Result<(Vec<u8>, Registered), &'static str> {
    match arguments {
        [Value::Table(named)] => read_named(named),
        [_] => Err("calling redis.register_function with a single argument is only applicable to \
                    Lua table (representing named arguments)."),
        [name, callback] => {
            let name =
                text(name).ok_or("first argument to redis.register_function must be a string")?;
            let Value::Function(callback) = callback else {
                return Err("second argument to redis.register_function must be a function");
            };
            let callback = callback.clone();
            Ok((name, Registered { callback, description: None, flags: Flags::default() }))
        }
        _ => Err("wrong number of arguments to redis.register_function"),
    }
}

fn read_named(named: &Table) -> Result<(Vec<u8>, Registered), &'static str> {
    let (mut name, mut callback, mut description) = (None, None, None);
    let mut flags = Flags::default();
    let entries = crate::library::entries(named).map_err(|_| "unknown error")?;
    for (key, value) in entries {
        let key = text(&key)
            .ok_or("named argument key given to redis.register_function is not a string")?;
        match key.to_ascii_lowercase().as_slice() {
            b"function_name" => {
                name = Some(text(&value).ok_or(
                    "function_name argument given to redis.register_function must be a string",
                )?);
            }
            b"description" => {
                description = Some(text(&value).ok_or(
                    "description argument given to redis.register_function must be a string",
                )?);
            }
            b"callback" => match value {
                Value::Function(function) => callback = Some(function),
                _ => {
                    return Err(
                        "callback argument given to redis.register_function must be a function",
                    );
                }
            },
            b"flags" => {
                let Value::Table(list) = value else {
                    return Err("flags argument to redis.register_function must be a table \
                                representing function flags");
                };
                flags = read_flags(&list).ok_or("unknown flag given")?;
            }
            _ => return Err("unknown argument given to redis.register_function"),
        }
    }
    let name = name.ok_or("redis.register_function must get a function name argument")?;
    let callback = callback.ok_or("redis.register_function must get a callback argument")?;
    Ok((name, Registered { callback, description, flags }))
}

fn read_flags(list: &Table) -> Option<Flags> {
    let mut flags = Flags::default();
    for index in 1.. {
        match list.raw_get(index).ok()? {
            Value::Nil => break,
            value => {
                let name = text(&value)?.to_ascii_lowercase();
                flags.insert(Flags::named(&name)?);
            }
        }
    }
    Some(flags)
}

/// A text, or a number's digits.
fn text(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(number) => Some(number.to_string().into_bytes()),
        Value::Number(number) => Some(number.to_string().into_bytes()),
        _ => None,
    }
}
