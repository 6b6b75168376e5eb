//! A script under the debugger: the hook that Lua calls at each line, and looks at Lua's stack.
//!
//! What is done for the debugger's client (looking up variables, running its code) is done in protected calls
//! ([`errand`]), so that nothing raises through the frames here but what [`on_event`] raises itself.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi::{self, lua_Debug, lua_State};
use mlua::{Function, Lua};

use super::command::{Panic, answer, push_error};
use super::{Runner, push_text, text_at};
use crate::debugger::{Debugger, Event, Order, write_number, write_quoted};
use crate::error::PRELUDE;
use crate::host::{Asked, Slot, Tick, current};
use crate::interpreter::{INSTRUCTIONS_A_TICK, KILLED};

/// The name of the chunks that scripts are, and how Lua shows it.
pub(crate) const SCRIPT: &str = "@user_script";
/// The name of what `eval` runs.
const EVALUATED: &CStr = c"@ldb_eval";
/// Stack that looking at values takes, however deep they are.
const ROOM: c_int = 64;
/// Tables in tables that are shown.
const DEPTH: usize = 10;
/// What C's printf writes where Redis meets no Lua frame of a name.
const TOP_LEVEL: &[u8] = b"top level";

impl Runner {
    /// Has the debugger of the run see each line from here on.
    pub(crate) fn hook(&mut self) {
        // SAFETY: nobody runs anything in this state meanwhile; setting a hook raises nothing.
        unsafe { set_hook(self.state, ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT, INSTRUCTIONS_A_TICK) }
    }
}

/// # Safety
/// `state` is one of Lua's that runs nothing else meanwhile.
unsafe fn set_hook(state: *mut lua_State, mask: c_int, count: u32) {
    // SAFETY: the caller's part.
    unsafe { ffi::lua_sethook(state, Some(on_event), mask, count as c_int) };
}

/// How the hook returns to the script.
enum End {
    GoOn,
    Raise(&'static str),
    /// The run is over, whatever the script catches.
    Over,
}

/// Coroutines inherit this hook from whoever makes them.
unsafe extern "C-unwind" fn on_event(state: *mut lua_State, event: *mut lua_Debug) {
    // SAFETY: Lua calls this with its own state and event. What can raise here (room on the stack, and
    // the error itself) is outside of all frames that have something to drop.
    unsafe {
        if ffi::lua_checkstack(state, ROOM) == 0 {
            return;
        }
        let text = match pause(state, event) {
            End::GoOn => return,
            End::Raise(text) => text,
            End::Over => {
                // From here on every instruction of this coroutine fails.
                set_hook(state, ffi::LUA_MASKCOUNT, 1);
                KILLED
            }
        };
        push_text(state, text.as_bytes());
        push_error(state, false);
        ffi::lua_error(state);
    }
}

/// What the hook has found to do.
enum Found {
    Nothing,
    Stop { is_late: bool },
    End(End),
}

/// Stops the script where it is to, and does what is asked for until it is to go on.
///
/// # Safety
/// As for [`on_event`], with room on the stack.
unsafe fn pause(state: *mut lua_State, event: *mut lua_Debug) -> End {
    // SAFETY: `event` is that of the running function; what it points to lives as long as that runs.
    let (kind, line, source) = unsafe {
        ffi::lua_getinfo(state, c"Sl".as_ptr(), event);
        let kind = if (*event).event == ffi::LUA_HOOKCOUNT { Event::Count } else { Event::Line };
        (kind, (*event).currentline, CStr::from_ptr((*event).source).to_bytes())
    };
    let is_late = match guarded(|slot| look(slot, kind, line, source)) {
        None | Some(Found::Nothing) => return End::GoOn,
        Some(Found::End(end)) => return end,
        Some(Found::Stop { is_late }) => is_late,
    };
    loop {
        match guarded(|slot| converse(slot, is_late, source, line)) {
            None => return End::GoOn,
            Some(Next::End(end)) => return end,
            // SAFETY: the caller's part.
            Some(Next::Order(order)) => unsafe { carry_out(state, order) },
        }
    }
}

fn look(slot: Slot<'_>, kind: Event, line: c_int, source: &[u8]) -> Found {
    let Slot { host, run } = slot;
    let Some(debugger) = &mut run.debugger else { return Found::Nothing };
    if !run.killed && kind == Event::Count {
        run.killed = host.tick() == Tick::Kill;
    }
    if run.killed {
        note_end(&mut run.killed_at, source, line);
        return Found::End(End::Over);
    }
    if debugger.is_evaluating {
        if kind == Event::Count && debugger.is_overdue() {
            return Found::End(End::Raise("ERR the code has run for too long"));
        }
        return Found::Nothing;
    }
    if source == PRELUDE.as_bytes() {
        return Found::Nothing;
    }
    debugger.line = line.into();
    if source != SCRIPT.as_bytes() {
        return Found::Nothing;
    }
    debugger.stop(kind).map_or(Found::Nothing, |stop| Found::Stop { is_late: stop.is_late })
}

/// What comes of talking to the client.
enum Next {
    Order(Order),
    End(End),
}

/// Tells what there is to tell and asks what to do, until that needs Lua.
fn converse(slot: Slot<'_>, is_late: bool, source: &[u8], line: c_int) -> Next {
    let Slot { host, run } = slot;
    let (Some(debugger), Some(console)) = (&mut run.debugger, host.console()) else {
        return Next::End(End::GoOn);
    };
    loop {
        if !run.killed {
            console.show(debugger.take_pending());
            match console.ask() {
                Asked::Command(words) => match debugger.obey(words) {
                    None => continue,
                    Some(Order::Resume) => {}
                    Some(Order::Raise(text)) => return Next::End(End::Raise(text)),
                    Some(order) => {
                        debugger.resume();
                        return Next::Order(order);
                    }
                },
                Asked::Broken(text) => return Next::End(End::Raise(text)),
                // Nobody would ever stop it.
                Asked::Gone if is_late => run.killed = true,
                Asked::Gone => debugger.abandon(),
                Asked::Killed => run.killed = true,
            }
        }
        debugger.resume();
        if !run.killed {
            return Next::End(End::GoOn);
        }
        note_end(&mut run.killed_at, source, line);
        return Next::End(End::Over);
    }
}

fn note_end(place: &mut Option<(Vec<u8>, Vec<u8>)>, source: &[u8], line: c_int) {
    if place.is_none() && source != PRELUDE.as_bytes() {
        *place = Some((source.to_vec(), line.to_string().into_bytes()));
    }
}

/// Has the host do something from inside of Lua: a panic of it waits until Lua has been left.
fn guarded<R>(work: impl FnOnce(Slot<'_>) -> R) -> Option<R> {
    current(|Slot { host, run }| {
        let done =
            catch_unwind(AssertUnwindSafe(|| work(Slot { host: &mut *host, run: &mut *run })));
        done.map_err(|payload| {
            run.panic = Some(Panic(payload));
            run.killed = true;
        })
        .ok()
    })?
}

fn tell(work: impl FnOnce(&mut Debugger)) {
    current(|slot| slot.run.debugger.as_deref_mut().map(work));
}

// --- Orders ---

/// What [`errand`] is given.
struct Errand {
    order: Order,
    /// The text of `eval` as an expression.
    expression: Vec<u8>,
}

/// # Safety
/// `state` runs a hook, with room on its stack.
unsafe fn carry_out(state: *mut lua_State, order: Order) {
    let expression = match &order {
        Order::Evaluate(code) => [b"return ", code.as_slice()].concat(),
        _ => Vec::new(),
    };
    let mut errand = Errand { order, expression };
    // SAFETY: a protected call, and `errand` outlives it.
    let failed = unsafe {
        let top = ffi::lua_gettop(state);
        let status = ffi::lua_cpcall(state, run_errand, (&raw mut errand).cast::<c_void>());
        ffi::lua_settop(state, top);
        status != ffi::LUA_OK
    };
    tell(|debugger| {
        debugger.is_evaluating = false;
        debugger.steps = false;
        if failed {
            debugger.log(b"<error> not enough memory");
        }
    });
}

unsafe extern "C-unwind" fn run_errand(state: *mut lua_State) -> c_int {
    // SAFETY: `carry_out` passes an `Errand` that outlives this call. Frames that have something to drop
    // call nothing that raises.
    unsafe {
        let errand = &*ffi::lua_touserdata(state, 1).cast::<Errand>();
        ffi::luaL_checkstack_(state, ROOM, c"the debugger".as_ptr());
        match &errand.order {
            Order::Print(Some(name)) => print(state, name),
            Order::Print(None) => print_all(state),
            Order::Trace => trace(state),
            Order::Evaluate(code) => evaluate(state, code, &errand.expression),
            Order::Call(words) => call(state, words),
            Order::Resume | Order::Raise(_) => {}
        }
        0
    }
}

/// A level of the stack; this function's own is 0, that of the script where it stands is 1.
///
/// # Safety
/// `state` runs a C function.
unsafe fn level(state: *mut lua_State, level: c_int) -> Option<lua_Debug> {
    let mut found = MaybeUninit::<lua_Debug>::zeroed();
    // SAFETY: all of it may be zero, and Lua fills in what it is asked for.
    unsafe {
        if ffi::lua_getstack(state, level, found.as_mut_ptr()) == 0 {
            return None;
        }
        ffi::lua_getinfo(state, c"Snl".as_ptr(), found.as_mut_ptr());
        Some(found.assume_init())
    }
}

/// # Safety
/// The function that `frame` is of runs.
unsafe fn source_of(frame: &lua_Debug) -> &[u8] {
    // SAFETY: the caller's part.
    unsafe { CStr::from_ptr(frame.source).to_bytes() }
}

/// Shows the first variable of this name, from the innermost function outwards.
///
/// # Safety
/// `state` runs a C function that the hook has called, with room on its stack.
unsafe fn print(state: *mut lua_State, name: &[u8]) {
    // SAFETY: the caller's part.
    unsafe {
        let mut at = 1;
        while let Some(frame) = level(state, at) {
            at += 1;
            if source_of(&frame) == PRELUDE.as_bytes() {
                continue;
            }
            let mut number = 1;
            loop {
                let found = ffi::lua_getlocal(state, &raw const frame, number);
                if found.is_null() {
                    break;
                }
                number += 1;
                if CStr::from_ptr(found).to_bytes() == name {
                    show(state, b"<value> ");
                    return;
                }
                ffi::lua_settop(state, -2);
            }
        }
        if name == b"KEYS" || name == b"ARGV" {
            push_text(state, name);
            ffi::lua_gettable(state, ffi::LUA_GLOBALSINDEX);
            show(state, b"<value> ");
        } else {
            tell(|debugger| debugger.log(b"No such variable."));
        }
    }
}

/// Shows all variables of the function that the script is in.
///
/// # Safety
/// As for [`print`].
unsafe fn print_all(state: *mut lua_State) {
    let mut has_any = false;
    // SAFETY: the caller's part.
    unsafe {
        if let Some(frame) = level(state, 1) {
            let mut number = 1;
            loop {
                let found = ffi::lua_getlocal(state, &raw const frame, number);
                if found.is_null() {
                    break;
                }
                number += 1;
                let name = CStr::from_ptr(found).to_bytes();
                if name != b"(*temporary)" {
                    has_any = true;
                    show(state, &[b"<value> ", name, b" = "].concat());
                }
                ffi::lua_settop(state, -2);
            }
        }
    }
    if !has_any {
        tell(|debugger| debugger.log(b"No local variables in the current context."));
    }
}

/// # Safety
/// As for [`print`].
unsafe fn trace(state: *mut lua_State) {
    // SAFETY: the caller's part; names live as long as the functions run.
    unsafe {
        let mut at = 1;
        while let Some(frame) = level(state, at) {
            if source_of(&frame) == SCRIPT.as_bytes() {
                let name = match frame.name.is_null() {
                    true => TOP_LEVEL,
                    false => CStr::from_ptr(frame.name).to_bytes(),
                };
                let how: &[u8] = if at == 1 { b"In " } else { b"From " };
                tell(|debugger| {
                    debugger.log(&[how, name, b":"].concat());
                    debugger.log_source(frame.currentline.into());
                });
            }
            at += 1;
        }
    }
}

/// Runs code of the client's in a coroutine, which the hook watches; where the script stands it does not.
///
/// # Safety
/// As for [`print`]. `expression` is the code behind a `return`.
unsafe fn evaluate(state: *mut lua_State, code: &[u8], expression: &[u8]) {
    // SAFETY: loading and running return what went wrong. What can raise has no frame around it that has
    // something to drop.
    unsafe {
        let thread = ffi::lua_newthread(state);
        let load = |text: &[u8]| {
            let start = text.as_ptr().cast::<c_char>();
            ffi::luaL_loadbuffer(thread, start, text.len(), EVALUATED.as_ptr()) == ffi::LUA_OK
        };
        if !load(expression) {
            ffi::lua_settop(thread, 0);
            if code.first() == Some(&0x1B) {
                let text = b"<error> ldb_eval:1: unexpected symbol near 'char(27)'";
                return tell(|debugger| debugger.log(text));
            }
            if !load(code) {
                ffi::lua_xmove(thread, state, 1);
                return show_error(state);
            }
        }
        set_hook(thread, ffi::LUA_MASKCOUNT, INSTRUCTIONS_A_TICK);
        tell(|debugger| debugger.is_evaluating = true);
        let status = ffi::lua_resume_(thread, 0);
        tell(|debugger| debugger.is_evaluating = false);
        match status {
            ffi::LUA_OK => {
                ffi::lua_settop(thread, 1);
                ffi::lua_xmove(thread, state, 1);
                show(state, b"<retval> ");
            }
            ffi::LUA_YIELD => tell(|debugger| {
                debugger.log(b"<error> attempt to yield across metamethod/C-call boundary");
            }),
            _ => {
                ffi::lua_xmove(thread, state, 1);
                show_error(state);
            }
        }
    }
}

/// Shows the error on top.
///
/// # Safety
/// As for [`print`], with an error on top.
unsafe fn show_error(state: *mut lua_State) {
    // SAFETY: the caller's part. A text is read where it lies.
    unsafe {
        if ffi::lua_type(state, -1) == ffi::LUA_TUSERDATA {
            // An error of ours: the prelude knows what it says.
            push_text(state, b"__redis__err__handler");
            ffi::lua_gettable(state, ffi::LUA_GLOBALSINDEX);
            ffi::lua_pushvalue(state, -2);
            ffi::lua_pcall(state, 1, 1, 0);
        }
        let mut is_coded = false;
        if ffi::lua_type(state, -1) == ffi::LUA_TTABLE {
            push_text(state, b"err");
            ffi::lua_rawget_(state, -2);
            is_coded = true;
        }
        match ffi::lua_type(state, -1) {
            ffi::LUA_TSTRING => {
                let text = text_at(state, -1);
                let text = if is_coded { text.strip_prefix(b"ERR ").unwrap_or(text) } else { text };
                tell(|debugger| debugger.log(&[b"<error> ", text].concat()));
            }
            _ => show(state, b"<error> "),
        }
    }
}

/// Runs a command as the script would; that and the reply are told as while it steps.
///
/// # Safety
/// As for [`print`].
unsafe fn call(state: *mut lua_State, words: &[Vec<u8>]) {
    // SAFETY: the caller's part; there are no more words than a request has.
    unsafe {
        ffi::lua_settop(state, 0);
        ffi::luaL_checkstack_(state, words.len() as c_int + ROOM, c"the debugger".as_ptr());
        for word in words {
            push_text(state, word);
        }
        tell(|debugger| debugger.steps = true);
        answer(state, false);
    }
}

// --- Values ---

/// Tells of the value on top, which stays there.
///
/// # Safety
/// There is a value on top of the stack, and room.
unsafe fn show(state: *mut lua_State, prefix: &[u8]) {
    let most = current(|slot| slot.run.debugger.as_ref().map_or(0, |it| it.wanted_bytes()));
    let mut line = prefix.to_vec();
    // SAFETY: the caller's part.
    unsafe {
        describe(state, ffi::lua_gettop(state), &mut line, most.unwrap_or(0) + prefix.len(), DEPTH);
    }
    tell(|debugger| debugger.log_some(&line));
}

/// Puts a value into words; ends when there are more than `most` bytes of them.
///
/// Nothing in here raises: values are read as they are, and tables without their metatables.
///
/// # Safety
/// There is a value at `at`, counted from the bottom, and room for three at each depth.
unsafe fn describe(state: *mut lua_State, at: c_int, out: &mut Vec<u8>, most: usize, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else {
        return out.extend_from_slice(b"<max recursion level reached! Nested table?>");
    };
    // SAFETY: the caller's part.
    unsafe {
        let name: &[u8] = match ffi::lua_type(state, at) {
            ffi::LUA_TNIL => return out.extend_from_slice(b"nil"),
            ffi::LUA_TBOOLEAN => {
                let is_true = ffi::lua_toboolean(state, at) != 0;
                return out.extend_from_slice(if is_true { b"true" } else { b"false" });
            }
            ffi::LUA_TNUMBER => return write_number(ffi::lua_tonumber(state, at), out),
            ffi::LUA_TSTRING => {
                let text = text_at(state, at);
                return write_quoted(&text[..text.len().min(most)], out);
            }
            ffi::LUA_TTABLE => return describe_table(state, at, out, most, depth),
            ffi::LUA_TFUNCTION => b"function",
            ffi::LUA_TUSERDATA => b"userdata",
            ffi::LUA_TTHREAD => b"thread",
            _ => b"light-userdata",
        };
        let address = ffi::lua_topointer(state, at);
        out.extend_from_slice(&[b"\"", name, format!("@{address:p}\"").as_bytes()].concat());
    }
}

/// # Safety
/// As for [`describe`], of a table.
unsafe fn describe_table(
    state: *mut lua_State,
    at: c_int,
    out: &mut Vec<u8>,
    most: usize,
    depth: usize,
) {
    // SAFETY: the caller's part; nothing changes the table meanwhile.
    unsafe {
        let mut is_list = true;
        let mut next = 1.0;
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, at) != 0 {
            let is_next = ffi::lua_type(state, -2) == ffi::LUA_TNUMBER
                && ffi::lua_tonumber(state, -2) == next;
            ffi::lua_settop(state, -2);
            if !is_next {
                is_list = false;
                ffi::lua_settop(state, -2);
                break;
            }
            next += 1.0;
        }
        out.push(b'{');
        let mut is_first = true;
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, at) != 0 {
            if most < out.len() {
                ffi::lua_settop(state, -3);
                break;
            }
            if !std::mem::replace(&mut is_first, false) {
                out.extend_from_slice(b"; ");
            }
            let value = ffi::lua_gettop(state);
            if !is_list {
                out.push(b'[');
                describe(state, value - 1, out, most, depth);
                out.extend_from_slice(b"]=");
            }
            describe(state, value, out, most, depth);
            ffi::lua_settop(state, -2);
        }
        out.push(b'}');
    }
}

// --- What scripts call ---

/// `redis.breakpoint` for Lua: whether there is a debugger.
pub(crate) fn breakpoint(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps to what Lua asks of its C functions.
    unsafe { lua.create_c_function(call_breakpoint) }
}

/// `redis.debug` for Lua: tells of its arguments.
pub(crate) fn debug(lua: &Lua) -> mlua::Result<Function> {
    // SAFETY: the function keeps to what Lua asks of its C functions.
    unsafe { lua.create_c_function(call_debug) }
}

unsafe extern "C-unwind" fn call_breakpoint(state: *mut lua_State) -> c_int {
    let is_debugged = current(|slot| match &mut slot.run.debugger {
        Some(debugger) => {
            debugger.is_called = true;
            true
        }
        None => false,
    });
    // SAFETY: Lua calls this with its own state.
    unsafe { ffi::lua_pushboolean(state, c_int::from(is_debugged == Some(true))) };
    1
}

unsafe extern "C-unwind" fn call_debug(state: *mut lua_State) -> c_int {
    let line = current(|slot| slot.run.debugger.as_ref().map(|debugger| debugger.line)).flatten();
    let Some(line) = line else { return 0 };
    // SAFETY: Lua calls this with its own state. What can raise comes before the frame that has
    // something to drop.
    unsafe {
        ffi::luaL_checkstack_(state, ROOM, c"redis.debug".as_ptr());
        describe_arguments(state, line);
    }
    0
}

/// # Safety
/// `state` runs a C function, with room on its stack.
unsafe fn describe_arguments(state: *mut lua_State, line: i64) {
    /// As much as a value may take that is printed.
    const MOST: usize = 1 << 20;

    let mut text = format!("<debug> line {line}: ").into_bytes();
    // SAFETY: the caller's part.
    unsafe {
        for at in 1..=ffi::lua_gettop(state) {
            if 1 < at {
                text.extend_from_slice(b", ");
            }
            describe(state, at, &mut text, MOST, DEPTH);
        }
    }
    tell(|debugger| debugger.log(&text));
}
