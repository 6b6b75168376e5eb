//! `redis.call` and `redis.pcall`: a command's words as Lua has them, and what a script sees of the reply.
#![allow(unsafe_code)]

use std::any::Any;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use carnelian_resp::number::{TEXT_BYTES_MAX, parse_i64};
use mlua::ffi::{self, lua_State};
use mlua::{Function, Lua};
use smallvec::SmallVec;

use super::{push_text, text_at};
use crate::api::number_text;
use crate::host::{RunState, Slot, current};
use crate::interpreter::KILLED;
use crate::values::{DEPTH_MAX, double, error_text, header, length, take, with_code_into};

/// Numbers beyond this are written with an exponent, as Redis does.
const INTEGER_MAX: f64 = (1_u64 << 62) as f64;

/// `redis.call` for Lua, or `redis.pcall`.
pub(crate) fn function(lua: &Lua, raise: bool) -> mlua::Result<Function> {
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
pub(super) unsafe fn answer(state: *mut lua_State, raise: bool) -> c_int {
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
    let RunState { reply, numbers, panic, protocol, killed, debugger, .. } = run;
    if *killed {
        return Answer::Over;
    }
    let mut debugger = debugger.as_deref_mut().filter(|debugger| debugger.steps);
    let mut problem = |text: &'static str| {
        if let Some(debugger) = &mut debugger {
            debugger.log_error(text.as_bytes());
        }
        Answer::Problem(text)
    };
    if count == 0 {
        return problem("ERR Please specify at least one argument for this redis lib call");
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
                    return problem(
                        "ERR Lua redis lib command arguments must be strings or integers",
                    );
                }
            }
        });
    }
    reply.clear();
    // Not for the next command, if it was large.
    reply.shrink_to(REPLY_KEPT);
    if let Some(debugger) = &mut debugger {
        debugger.log_command(&words);
    }
    let ran = catch_unwind(AssertUnwindSafe(|| host.call(&words, *protocol, reply)));
    drop(words);
    if let Err(payload) = ran {
        *panic = Some(Panic(payload));
        *killed = true;
        return Answer::Over;
    }
    if let Some(debugger) = debugger {
        match error_text(reply) {
            Some(text) if host.was_refused() => debugger.log_error(text),
            _ => debugger.log_reply(reply),
        }
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
pub(super) unsafe fn push_error(state: *mut lua_State, counted: bool) {
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
