//! The hot path of a script, on Lua's own stack: the call of a compiled function with its keys and
//! arguments, `redis.call`, and the two ways of replies.
//!
//! The safe binding takes a lock, a reference and an allocation for each value that crosses it,
//! several times what a small script costs by itself. Here values stay where Lua has them.
//!
//! Why this is sound:
//! * Lua raises an error by a jump over the frames in between. What can raise therefore holds nothing
//!   with a destructor: buffers live in `RunState`, and the host is called from `command::ask` alone, which
//!   calls nothing of Lua's that can raise. A panic of the host is caught there, and goes on once Lua
//!   has been left.
//! * What runs outside of a protected call ([`Runner::run`] around it, [`Runner::write`]) touches
//!   values that exist, through names that were made in advance, within room reserved before: it
//!   does not allocate from Lua.
//! * Strings are read in place while they are on the stack, which keeps them alive; Lua does not move
//!   them.
//! * A [`Runner`] belongs to one `Interpreter`, and that to one engine, which is lent exclusively to
//!   whoever runs something: no other thread is in the state meanwhile.
#![allow(unsafe_code)]

pub(crate) mod command;
pub(crate) mod debug;
mod reply;
pub(crate) mod strings;

use std::ffi::{c_char, c_int};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, Table};

/// What no script names: a function that Lua keeps for us until the last copy of this goes.
#[derive(Clone)]
pub(crate) struct Callable(Arc<Reference>);

struct Reference {
    id: c_int,
    freed: Freed,
}

/// References given up, to be released when next somebody has the state.
type Freed = Arc<Mutex<Vec<c_int>>>;

impl Drop for Reference {
    fn drop(&mut self) {
        self.freed.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
    }
}

/// Places on the bottom of the main stack, from [`Runner::first`] on.
const NAMES: [&[u8]; 12] = [
    b"err",
    b"ok",
    b"double",
    b"big_number",
    b"verbatim_string",
    b"map",
    b"set",
    b"format",
    b"string",
    b"ignore_error_stats_update",
    b"source",
    b"line",
];
const ERR: c_int = 0;
const OK: c_int = 1;
const DOUBLE: c_int = 2;
const BIG_NUMBER: c_int = 3;
const VERBATIM: c_int = 4;
const MAP: c_int = 5;
const SET: c_int = 6;
const FORMAT: c_int = 7;
const STRING: c_int = 8;
const COUNTED: c_int = 9;
const SOURCE: c_int = 10;
const LINE: c_int = 11;
const HANDLER: c_int = 12;
const ENTER: c_int = 13;
const RESULT: c_int = 14;

/// Room on the main stack for replies of ordinary depth.
const ROOM: c_int = 64;

/// The main thread of a Lua state, prepared for running functions.
pub(crate) struct Runner {
    state: *mut lua_State,
    first: c_int,
    freed: Freed,
}

// SAFETY: the state may be used from any thread, one at a time: see the module's text.
unsafe impl Send for Runner {}

/// How a function is given its keys and arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// In `KEYS` and `ARGV`.
    Globals,
    Arguments,
}

/// How a run ended; what it left is on the stack until [`Runner::clear`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Returned,
    Failed,
}

/// What [`enter`] is given.
struct Entry<'a> {
    id: c_int,
    passing: Passing,
    keys: &'a [&'a [u8]],
    arguments: &'a [&'a [u8]],
}

/// The parts of an error as the handler of the prelude left it.
#[derive(Default)]
pub(crate) struct Parts {
    /// None where it is no table, as when memory runs out.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) place: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) plain: Option<Vec<u8>>,
    pub(crate) counted: bool,
}

impl Runner {
    /// `globals` is where `KEYS` and `ARGV` go; `handler` makes tables of errors.
    pub(crate) fn new(lua: &Lua, globals: Table, handler: Function) -> mlua::Result<Self> {
        let (mut state, mut references) = (std::ptr::null_mut(), [0; 2]);
        // SAFETY: this runs in a protected call, and both values are on the stack.
        unsafe {
            lua.exec_raw::<()>((globals, handler), |running| {
                references[1] = ffi::luaL_ref(running, ffi::LUA_REGISTRYINDEX);
                references[0] = ffi::luaL_ref(running, ffi::LUA_REGISTRYINDEX);
                state = running;
            })?;
        }
        // SAFETY: no limit of memory is set yet, and without one nothing here raises. What is
        // pushed stays below all that comes later.
        let first = unsafe {
            let first = ffi::lua_gettop(state) + 1;
            ffi::lua_checkstack(state, RESULT + ROOM);
            for name in NAMES {
                push_text(state, name);
            }
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, references[1]);
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, references[0]);
            push_text(state, b"KEYS");
            push_text(state, b"ARGV");
            ffi::lua_pushcclosure(state, enter, 3);
            first
        };
        Ok(Self { state, first, freed: Freed::default() })
    }

    /// Keeps a function to be run.
    pub(crate) fn keep(&self, lua: &Lua, function: Function) -> mlua::Result<Callable> {
        let freed = std::mem::take(&mut *self.freed.lock().unwrap_or_else(PoisonError::into_inner));
        let mut id = 0;
        // SAFETY: this runs in a protected call, and the function is on the stack. The vector belongs
        // to a frame outside of it.
        unsafe {
            lua.exec_raw::<()>(function, |state| {
                id = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                for id in &freed {
                    ffi::luaL_unref(state, ffi::LUA_REGISTRYINDEX, *id);
                }
            })?;
        }
        Ok(Callable(Arc::new(Reference { id, freed: Arc::clone(&self.freed) })))
    }

    /// Runs a function, and leaves what it returned or failed with on the stack.
    pub(crate) fn run(
        &mut self,
        callable: &Callable,
        passing: Passing,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Status {
        let entry = Entry { id: callable.0.id, passing, keys, arguments };
        let (state, first) = (self.state, self.first);
        // SAFETY: the room is reserved, pushing what exists does not allocate, and `entry` outlives
        // the call.
        let status = unsafe {
            ffi::lua_pushvalue(state, first + ENTER);
            ffi::lua_pushlightuserdata(state, (&raw const entry).cast_mut().cast());
            ffi::lua_pcall(state, 1, 1, first + HANDLER)
        };
        if status == ffi::LUA_OK { Status::Returned } else { Status::Failed }
    }

    /// Forgets what the last run left.
    pub(crate) fn clear(&mut self) {
        // SAFETY: what is below stays.
        unsafe { ffi::lua_settop(self.state, self.first + RESULT - 1) };
    }

    /// The error that the last run left.
    pub(crate) fn error(&mut self) -> Parts {
        let (state, at) = (self.state, self.first + RESULT);
        let mut parts = Parts::default();
        // SAFETY: there is room for two values more, and nothing here converts or allocates in Lua.
        unsafe {
            match ffi::lua_type(state, at) {
                ffi::LUA_TTABLE => {}
                ffi::LUA_TSTRING => {
                    parts.plain = Some(text_at(state, at).to_vec());
                    return parts;
                }
                _ => return parts,
            }
            let field = |name| {
                self.field(at, name);
                let found = match ffi::lua_type(state, -1) {
                    ffi::LUA_TSTRING => Some(text_at(state, -1).to_vec()),
                    ffi::LUA_TNUMBER => {
                        let number = ffi::lua_tonumber(state, -1);
                        Some(format!("{number}").into_bytes())
                    }
                    _ => None,
                };
                ffi::lua_settop(state, at);
                found
            };
            parts.text = Some(field(ERR).unwrap_or_else(|| b"ERR unknown error".to_vec()));
            parts.place = field(SOURCE).zip(field(LINE));
            self.field(at, COUNTED);
            parts.counted = parts.place.is_some() && ffi::lua_toboolean(state, -1) != 0;
            ffi::lua_settop(state, at);
        }
        parts
    }

    /// Pushes a field of the table at `at`, without its metatable.
    ///
    /// # Safety
    /// There is a table at `at` and room for one value.
    unsafe fn field(&self, at: c_int, name: c_int) -> c_int {
        // SAFETY: the caller's part; looking up a text that exists allocates nothing.
        unsafe {
            ffi::lua_pushvalue(self.state, self.first + name);
            ffi::lua_rawget_(self.state, at);
            ffi::lua_type(self.state, -1)
        }
    }
}

/// Builds the two tables and calls the function, in a protected call.
unsafe extern "C-unwind" fn enter(state: *mut lua_State) -> c_int {
    // SAFETY: `Runner::run` passes an `Entry` that outlives this call, which holds nothing with a
    // destructor. The upvalues are those of `Runner::new`.
    unsafe {
        let entry = &*ffi::lua_touserdata(state, 1).cast::<Entry<'_>>();
        let arguments = match entry.passing {
            Passing::Globals => {
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
                push_list(state, entry.keys);
                ffi::lua_rawset(state, ffi::lua_upvalueindex(1));
                ffi::lua_pushvalue(state, ffi::lua_upvalueindex(3));
                push_list(state, entry.arguments);
                ffi::lua_rawset(state, ffi::lua_upvalueindex(1));
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, entry.id);
                0
            }
            Passing::Arguments => {
                ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, entry.id);
                push_list(state, entry.keys);
                push_list(state, entry.arguments);
                2
            }
        };
        ffi::lua_call(state, arguments, 1);
        1
    }
}

/// # Safety
/// `state` is in a protected call, or has no limit of memory.
unsafe fn push_text(state: *mut lua_State, text: &[u8]) {
    // SAFETY: Lua copies the bytes.
    unsafe { ffi::lua_pushlstring_(state, text.as_ptr().cast::<c_char>(), text.len()) };
}

/// # Safety
/// `state` is in a protected call.
unsafe fn push_list(state: *mut lua_State, texts: &[&[u8]]) {
    // SAFETY: the caller's part; a request has fewer words than a `c_int` can count.
    unsafe {
        ffi::lua_createtable(state, c_int::try_from(texts.len()).unwrap_or(0), 0);
        for (index, text) in texts.iter().enumerate() {
            push_text(state, text);
            ffi::lua_rawseti_(state, -2, index as c_int + 1);
        }
    }
}

/// The bytes of the text at a place of the stack.
///
/// # Safety
/// There is a text, and it stays there while its bytes are used.
unsafe fn text_at<'a>(state: *mut lua_State, at: c_int) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: the caller's part; a text is not converted, so nothing is allocated.
    unsafe {
        let start = ffi::lua_tolstring(state, at, &raw mut length);
        slice::from_raw_parts(start.cast::<u8>(), length)
    }
}
