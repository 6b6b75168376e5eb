//! The hot path of a script, on Lua's own stack: the call of a compiled function with its keys and
//! arguments, `redis.call`, and the two ways of replies.
//!
//! The safe binding takes a lock, a reference and an allocation for each value that crosses it,
//! several times what a small script costs by itself. Here values stay where Lua has them.
//!
//! Why this is sound:
//! * Lua raises an error by a jump over the frames in between. What can raise therefore holds nothing
//!   with a destructor: buffers live in `RunState`, and the host is called from [`ask`] alone, which
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

pub(crate) mod strings;

use std::any::Any;
use std::ffi::{c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use carnelian_resp::number::{TEXT_BYTES_MAX, parse_i64};
use carnelian_resp::{Mark, Writer};
use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua, Table};
use smallvec::SmallVec;

use crate::api::number_text;
use crate::host::{RunState, Slot, current};
use crate::interpreter::KILLED;
use crate::reply::{Booleans, spaces_for_line_ends, status, whole};
use crate::values::{DEPTH_MAX, double, error_text, header, length, take, with_code_into};

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

/// Room on the main stack for replies of ordinary depth, and for the deepest: two places a level.
const ROOM: c_int = 64;
const SHALLOW: usize = 16;
const DEEP_ROOM: c_int = 2 * WRITTEN_DEPTH_MAX as c_int + 2 * ROOM;
/// How deep a reply may nest; where Redis's stack ends too.
const WRITTEN_DEPTH_MAX: usize = 2600;
/// Numbers beyond this are written with an exponent, as Redis does.
const INTEGER_MAX: f64 = (1_u64 << 62) as f64;

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

// --- Commands ---

/// `redis.call` for Lua, or `redis.pcall`.
pub(crate) fn command(lua: &Lua, raise: bool) -> mlua::Result<Function> {
    let function = if raise { call } else { pcall };
    // SAFETY: both functions keep to what Lua asks of its C functions.
    unsafe { lua.create_c_function(function) }
}

unsafe extern "C-unwind" fn call(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state.
    unsafe { answer(state, true) }
}

unsafe extern "C-unwind" fn pcall(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state.
    unsafe { answer(state, false) }
}

/// What a command came to. It points into buffers of the `RunState`, which stay as they are until the
/// next command.
#[derive(Clone, Copy)]
enum Answer {
    Reply(*const u8, usize),
    /// An error's text, that of the command's reply.
    Error(*const u8, usize),
    /// There was no command to run.
    Problem(&'static str),
    /// The run is over, whatever the script catches.
    Over,
}

/// # Safety
/// `state` is one that runs a C function; its arguments are a command's words.
unsafe fn answer(state: *mut lua_State, raise: bool) -> c_int {
    // SAFETY: nothing in this frame has a destructor when something raises: the answer is plain data,
    // and points to what outlives the run.
    unsafe {
        let count = ffi::lua_gettop(state);
        let answer = current(|slot| ask(state, count, slot))
            .unwrap_or(Answer::Problem("ERR redis.call can only be called by a script"));
        ffi::lua_settop(state, 0);
        let counted = match answer {
            Answer::Reply(start, size) => {
                let mut rest = slice::from_raw_parts(start, size);
                if push_reply(state, &mut rest, DEPTH_MAX) {
                    return 1;
                }
                // Replies come from our own commands: this is a bug of theirs, but no reason to stop.
                ffi::lua_settop(state, 0);
                push_text(state, b"ERR a command's reply could not be read");
                false
            }
            Answer::Error(start, size) => {
                push_text(state, slice::from_raw_parts(start, size));
                true
            }
            Answer::Problem(text) => {
                push_text(state, text.as_bytes());
                false
            }
            Answer::Over => {
                push_text(state, KILLED.as_bytes());
                push_error(state, false);
                ffi::lua_error(state);
            }
        };
        push_error(state, counted);
        if raise {
            ffi::lua_error(state);
        }
        1
    }
}

/// Reads the words, and has the host run the command.
///
/// # Safety
/// The words are the first `count` values of the stack and stay there.
unsafe fn ask(state: *mut lua_State, count: c_int, slot: Slot<'_>) -> Answer {
    let Slot { host, run } = slot;
    let RunState { reply, numbers, panic, protocol, killed, .. } = run;
    if *killed {
        return Answer::Over;
    }
    if count == 0 {
        return Answer::Problem("ERR Please specify at least one argument for this redis lib call");
    }
    numbers.clear();
    let mut words: SmallVec<[&[u8]; 8]> = SmallVec::new();
    for at in 1..=count {
        // SAFETY: reading a text, or a number as one, raises nothing. The buffer of numbers does not
        // grow while words point into it, as it has room for all of them at the first.
        words.push(unsafe {
            match ffi::lua_type(state, at) {
                ffi::LUA_TSTRING => text_at(state, at),
                ffi::LUA_TNUMBER => {
                    if numbers.is_empty() {
                        numbers.reserve(count as usize * TEXT_BYTES_MAX);
                    }
                    let start = numbers.len();
                    write_number(ffi::lua_tonumber(state, at), numbers);
                    let end = numbers.len();
                    slice::from_raw_parts(numbers.as_ptr().add(start), end - start)
                }
                _ => {
                    return Answer::Problem(
                        "ERR Lua redis lib command arguments must be strings or integers",
                    );
                }
            }
        });
    }
    reply.clear();
    // Not for the next command, if it was large.
    reply.shrink_to(REPLY_KEPT);
    let ran = catch_unwind(AssertUnwindSafe(|| host.call(&words, *protocol, reply)));
    drop(words);
    if let Err(payload) = ran {
        *panic = Some(Panic(payload));
        *killed = true;
        return Answer::Over;
    }
    match error_text(reply) {
        None => Answer::Reply(reply.as_ptr(), reply.len()),
        Some(text) => {
            numbers.clear();
            with_code_into(text, numbers);
            Answer::Error(numbers.as_ptr(), numbers.len())
        }
    }
}

/// How much of the buffer for replies is kept between commands.
const REPLY_KEPT: usize = 64 << 10;

/// A panic of the host, on its way around Lua.
pub(crate) struct Panic(pub(crate) Box<dyn Any + Send>);

fn write_number(number: f64, out: &mut Vec<u8>) {
    let whole = number as i64;
    if number.abs() <= INTEGER_MAX && whole as f64 == number {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else {
        out.extend_from_slice(number_text(number, &mut [0; TEXT_BYTES_MAX]));
    }
}

/// Makes `{err = text}` of the text on top.
///
/// # Safety
/// `state` is in a protected call and has a text on top.
unsafe fn push_error(state: *mut lua_State, counted: bool) {
    // SAFETY: the caller's part; nothing here has a destructor.
    unsafe {
        ffi::lua_createtable(state, 0, if counted { 2 } else { 1 });
        push_text(state, b"err");
        ffi::lua_pushvalue(state, -3);
        ffi::lua_rawset(state, -3);
        if counted {
            push_text(state, b"ignore_error_stats_update");
            ffi::lua_pushboolean(state, 1);
            ffi::lua_rawset(state, -3);
        }
    }
}

// --- From replies to values ---

/// Pushes what a script sees of a reply; false if it is none.
///
/// # Safety
/// `state` is in a protected call.
unsafe fn push_reply(state: *mut lua_State, rest: &mut &[u8], depth: usize) -> bool {
    let Some((kind, line)) = header(rest) else { return false };
    // SAFETY: the caller's part; slices and numbers have no destructors. Each level makes room for
    // what it pushes.
    unsafe {
        match kind {
            b'$' => match length(line) {
                Some(Some(length)) => match take(rest, length) {
                    Some(text) => push_text(state, text),
                    None => return false,
                },
                Some(None) => ffi::lua_pushboolean(state, 0),
                None => return false,
            },
            b':' => match parse_i64(line) {
                Some(number) => ffi::lua_pushnumber(state, number as f64),
                None => return false,
            },
            b'_' => ffi::lua_pushnil(state),
            b'#' => ffi::lua_pushboolean(state, c_int::from(line == b"t")),
            b'+' => {
                ffi::lua_createtable(state, 0, 1);
                push_field(state, b"ok", line);
            }
            _ => return push_compound(state, kind, line, rest, depth),
        }
    }
    true
}

/// The kinds that need room for more than one value.
///
/// # Safety
/// As for [`push_reply`].
unsafe fn push_compound(
    state: *mut lua_State,
    kind: u8,
    line: &[u8],
    rest: &mut &[u8],
    depth: usize,
) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return false };
    // SAFETY: as for `push_reply`.
    unsafe {
        ffi::luaL_checkstack_(state, 8, c"a command's reply".as_ptr());
        // Each element has 3 bytes at least, so that no number from outside is believed.
        let room = |count: usize, rest: &[u8]| {
            c_int::try_from(count.min(rest.len() / 3 + 1)).unwrap_or(c_int::MAX)
        };
        match kind {
            b'*' | b'>' => match length(line) {
                Some(Some(count)) => {
                    ffi::lua_createtable(state, room(count, rest), 0);
                    for index in 1..=count {
                        if !push_reply(state, rest, depth) {
                            return false;
                        }
                        let Ok(index) = c_int::try_from(index) else { return false };
                        ffi::lua_rawseti_(state, -2, index);
                    }
                }
                Some(None) => ffi::lua_pushboolean(state, 0),
                None => return false,
            },
            b'%' | b'~' => {
                let Some(count) = length(line) else { return false };
                let name = if kind == b'%' { &b"map"[..] } else { b"set" };
                ffi::lua_createtable(state, 0, 1);
                push_text(state, name);
                let count = count.unwrap_or(0);
                ffi::lua_createtable(state, 0, room(count, rest));
                for _ in 0..count {
                    if !push_reply(state, rest, depth) {
                        return false;
                    }
                    if kind == b'~' {
                        ffi::lua_pushboolean(state, 1);
                    } else if !push_reply(state, rest, depth) {
                        return false;
                    }
                    let is_key = match ffi::lua_type(state, -2) {
                        ffi::LUA_TNIL => false,
                        ffi::LUA_TNUMBER => !ffi::lua_tonumber(state, -2).is_nan(),
                        _ => true,
                    };
                    if !is_key {
                        return false;
                    }
                    ffi::lua_rawset(state, -3);
                }
                ffi::lua_rawset(state, -3);
            }
            b',' => {
                ffi::lua_createtable(state, 0, 1);
                push_text(state, b"double");
                ffi::lua_pushnumber(state, double(line));
                ffi::lua_rawset(state, -3);
            }
            b'(' => {
                ffi::lua_createtable(state, 0, 1);
                push_field(state, b"big_number", line);
            }
            b'=' => {
                let Some(Some(length)) = length(line) else { return false };
                let parts = take(rest, length).and_then(|text| text.split_at_checked(4));
                let Some((format, text)) = parts else { return false };
                ffi::lua_createtable(state, 0, 1);
                push_text(state, b"verbatim_string");
                ffi::lua_createtable(state, 0, 2);
                push_field(state, b"string", text);
                push_field(state, b"format", &format[..3]);
                ffi::lua_rawset(state, -3);
            }
            b'-' => {
                ffi::lua_createtable(state, 0, 2);
                push_text(state, b"err");
                if !line.contains(&b' ') {
                    push_text(state, b"ERR ");
                    push_text(state, line);
                    ffi::lua_concat(state, 2);
                } else {
                    push_text(state, line);
                }
                ffi::lua_rawset(state, -3);
                push_text(state, b"ignore_error_stats_update");
                ffi::lua_pushboolean(state, 1);
                ffi::lua_rawset(state, -3);
            }
            // Attributes are not shown to scripts.
            b'|' => {
                let Some(count) = length(line) else { return false };
                for _ in 0..count.unwrap_or(0).saturating_mul(2) {
                    if !push_reply(state, rest, depth) {
                        return false;
                    }
                    ffi::lua_settop(state, -2);
                }
                return push_reply(state, rest, depth);
            }
            _ => return false,
        }
    }
    true
}

/// Sets a text field of the table on top.
///
/// # Safety
/// `state` is in a protected call, with a table on top.
unsafe fn push_field(state: *mut lua_State, name: &[u8], text: &[u8]) {
    // SAFETY: the caller's part.
    unsafe {
        push_text(state, name);
        push_text(state, text);
        ffi::lua_rawset(state, -3);
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

// --- From values to replies ---

/// An aggregate that is being written, whose table is the next on the stack. Nothing recurses:
/// scripts can nest tables at will.
enum Open {
    Array {
        next: c_int,
        mark: Mark,
    },
    /// Above its table is the key that was written last.
    Pairs {
        count: usize,
        mark: Mark,
        is_set: bool,
        half: bool,
    },
}

impl Runner {
    /// Writes the value that the last run returned; true if it is an error whose statistics are still
    /// to be booked.
    pub(crate) fn write(&mut self, booleans: Booleans, writer: &mut Writer<'_>) -> bool {
        let state = self.state;
        let mut open: SmallVec<[Open; 4]> = SmallVec::new();
        let mut uncounted_error = false;
        // SAFETY: each level holds at most two values and looks at three more; `SHALLOW` levels
        // have room from the start, and more is asked for before there are more. Tables do not
        // change while they are walked.
        unsafe {
            loop {
                // The value on top is to be written.
                if ffi::lua_type(state, -1) == ffi::LUA_TTABLE {
                    if WRITTEN_DEPTH_MAX <= open.len() || !self.has_room(open.len()) {
                        writer.error("ERR reached lua stack limit");
                        ffi::lua_settop(state, -2);
                    } else {
                        match self.begin(writer) {
                            Begun::Written { uncounted } => {
                                uncounted_error |= uncounted;
                                ffi::lua_settop(state, -2);
                            }
                            Begun::Open(aggregate) => open.push(aggregate),
                        }
                    }
                } else {
                    scalar(state, booleans, writer);
                    ffi::lua_settop(state, -2);
                }
                // Finds the next value, and closes what has none left.
                loop {
                    match open.last_mut() {
                        None => return uncounted_error,
                        Some(Open::Array { next, .. }) => {
                            ffi::lua_rawgeti_(state, -1, *next);
                            if ffi::lua_type(state, -1) != ffi::LUA_TNIL {
                                *next += 1;
                                break;
                            }
                            ffi::lua_settop(state, -2);
                        }
                        Some(Open::Pairs { half: half @ true, .. }) => {
                            // The key is known; its value was put below it.
                            *half = false;
                            ffi::lua_pushvalue(state, -1);
                            ffi::lua_rawget_(state, -3);
                            break;
                        }
                        Some(Open::Pairs { count, is_set, half, .. }) => {
                            if ffi::lua_next(state, -2) != 0 {
                                *count += 1;
                                *half = !*is_set;
                                ffi::lua_settop(state, -2);
                                ffi::lua_pushvalue(state, -1);
                                break;
                            }
                        }
                    }
                    match open.pop() {
                        Some(Open::Array { next, mark }) => {
                            writer.finish_array(mark, next as usize - 1);
                        }
                        Some(Open::Pairs { count, mark, is_set: true, .. }) => {
                            writer.finish_set(mark, count);
                        }
                        Some(Open::Pairs { count, mark, .. }) => writer.finish_map(mark, count),
                        None => {}
                    }
                    ffi::lua_settop(state, -2);
                }
            }
        }
    }

    /// Whether another level may be opened.
    fn has_room(&self, depth: usize) -> bool {
        if depth < SHALLOW {
            return true;
        }
        // SAFETY: the stack grows in a protected call, as that can fail; then there is room for what is
        // asked for outside of it.
        unsafe {
            if depth == SHALLOW
                && ffi::lua_cpcall(self.state, grow, std::ptr::null_mut()) != ffi::LUA_OK
            {
                ffi::lua_settop(self.state, -2);
                return false;
            }
            ffi::lua_checkstack(self.state, 8) != 0
        }
    }

    /// Writes the table on top if it stands for a scalar, or opens the aggregate that it is.
    ///
    /// # Safety
    /// There is a table on top and room for three values.
    unsafe fn begin(&self, writer: &mut Writer<'_>) -> Begun {
        let state = self.state;
        // SAFETY: the caller's part; fields are looked up by names that exist.
        unsafe {
            let table = ffi::lua_gettop(state);
            let done = |uncounted| {
                ffi::lua_settop(state, table);
                Begun::Written { uncounted }
            };
            if self.field(table, ERR) == ffi::LUA_TSTRING {
                writer.error(text_at(state, -1));
                let is_known = self.field(table, COUNTED) == ffi::LUA_TBOOLEAN
                    && ffi::lua_toboolean(state, -1) != 0;
                return done(!is_known);
            }
            ffi::lua_settop(state, table);
            if self.field(table, OK) == ffi::LUA_TSTRING {
                status(text_at(state, -1), writer);
                return done(false);
            }
            ffi::lua_settop(state, table);
            if self.field(table, DOUBLE) == ffi::LUA_TNUMBER {
                writer.double(ffi::lua_tonumber(state, -1));
                return done(false);
            }
            ffi::lua_settop(state, table);
            if self.field(table, BIG_NUMBER) == ffi::LUA_TSTRING {
                let mut digits = text_at(state, -1).to_vec();
                spaces_for_line_ends(&mut digits);
                writer.big_number(&digits);
                return done(false);
            }
            ffi::lua_settop(state, table);
            if self.field(table, VERBATIM) == ffi::LUA_TTABLE
                && self.field(table + 1, FORMAT) == ffi::LUA_TSTRING
                && self.field(table + 1, STRING) == ffi::LUA_TSTRING
            {
                let mut three = [b' '; 3];
                for (place, byte) in three.iter_mut().zip(text_at(state, -2)) {
                    *place = *byte;
                }
                writer.verbatim(&three, text_at(state, -1));
                return done(false);
            }
            ffi::lua_settop(state, table);
            for (name, is_set) in [(MAP, false), (SET, true)] {
                if self.field(table, name) == ffi::LUA_TTABLE {
                    ffi::lua_replace(state, table);
                    ffi::lua_pushnil(state);
                    let mark = writer.defer();
                    return Begun::Open(Open::Pairs { count: 0, mark, is_set, half: false });
                }
                ffi::lua_settop(state, table);
            }
            let mark = writer.defer_about(ffi::lua_objlen(state, table));
            Begun::Open(Open::Array { next: 1, mark })
        }
    }
}

/// Makes the stack as large as the deepest reply needs it.
unsafe extern "C-unwind" fn grow(state: *mut lua_State) -> c_int {
    // SAFETY: this is a protected call, and nothing here has a destructor.
    unsafe { ffi::luaL_checkstack_(state, DEEP_ROOM, c"a reply".as_ptr()) };
    0
}

enum Begun {
    Written { uncounted: bool },
    Open(Open),
}

/// Writes the value on top, which is no table.
///
/// # Safety
/// There is a value.
unsafe fn scalar(state: *mut lua_State, booleans: Booleans, writer: &mut Writer<'_>) {
    // SAFETY: the caller's part; nothing is converted.
    unsafe {
        match ffi::lua_type(state, -1) {
            ffi::LUA_TSTRING => writer.bulk(text_at(state, -1)),
            ffi::LUA_TNUMBER => writer.integer(whole(ffi::lua_tonumber(state, -1))),
            ffi::LUA_TBOOLEAN => {
                let truth = ffi::lua_toboolean(state, -1) != 0;
                match (booleans, truth) {
                    (Booleans::AsBooleans, truth) => writer.boolean(truth),
                    (Booleans::AsNumbers, true) => writer.integer(1),
                    (Booleans::AsNumbers, false) => writer.null(),
                }
            }
            _ => writer.null(),
        }
    }
}
