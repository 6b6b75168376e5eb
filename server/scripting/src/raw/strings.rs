//! `string.find`, `match`, `gmatch`, `gsub` and `rep`, as Lua's own but for how long they may take.
//!
//! They are C functions on Lua's stack like those around them, and sound for the same reasons: no frame
//! that an error could jump over holds anything with a destructor.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use memchr::memmem;
use mlua::ffi::{self, lua_State, luaL_Buffer};
use mlua::{Lua, Table};

use super::command::{Panic, push_error};
use super::{push_text, text_at};
use crate::host::{Tick, current};
use crate::interpreter::KILLED;
use crate::pattern::{Capture, Fault, Matcher, Work, is_plain};

/// Those functions of the `string` library.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let functions: [(&str, ffi::lua_CFunction); 6] = [
        ("find", find),
        ("match", r#match),
        ("gmatch", gmatch),
        ("gfind", gmatch),
        ("gsub", gsub),
        ("rep", rep),
    ];
    let table = lua.create_table()?;
    for (name, function) in functions {
        // SAFETY: each keeps to what Lua asks of its C functions.
        table.raw_set(name, unsafe { lua.create_c_function(function)? })?;
    }
    Ok(table)
}

unsafe extern "C-unwind" fn find(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state.
    unsafe { search(state, true) }
}

unsafe extern "C-unwind" fn r#match(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state.
    unsafe { search(state, false) }
}

/// # Safety
/// `state` is one that runs a C function.
unsafe fn search(state: *mut lua_State, is_find: bool) -> c_int {
    // SAFETY: both texts stay on the stack while they are read, and nothing here has a destructor.
    unsafe {
        let (text, pattern) = (check_text(state, 1), check_text(state, 2));
        let from = ffi::luaL_optinteger(state, 3, 1);
        let from = if from < 0 { from.saturating_add(text.len() as i64) } else { from - 1 };
        let from = usize::try_from(from).unwrap_or(0).min(text.len());
        let mut work = work();
        if is_find && (ffi::lua_toboolean(state, 4) != 0 || is_plain(pattern)) {
            let found = memmem::find(&text[from..], pattern);
            settle(state, work.add(text.len() - from), work.steps);
            let Some(found) = found else {
                ffi::lua_pushnil(state);
                return 1;
            };
            ffi::lua_pushinteger(state, (from + found + 1) as i64);
            ffi::lua_pushinteger(state, (from + found + pattern.len()) as i64);
            return 2;
        }
        let mut matcher = Matcher::new(text, pattern, work);
        let is_anchored = matcher.is_anchored();
        let mut found = Ok(None);
        let mut start = from;
        while start <= text.len() {
            found = matcher.at(start, usize::from(is_anchored));
            if found != Ok(None) || is_anchored {
                break;
            }
            start += 1;
        }
        match settle(state, found, matcher.steps()) {
            None => {
                ffi::lua_pushnil(state);
                1
            }
            Some(end) if is_find => {
                ffi::lua_pushinteger(state, start as i64 + 1);
                ffi::lua_pushinteger(state, end as i64);
                2 + push_captures(state, &matcher, text, None)
            }
            Some(end) => push_captures(state, &matcher, text, Some((start, end))),
        }
    }
}

unsafe extern "C-unwind" fn gmatch(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state.
    unsafe {
        check_text(state, 1);
        check_text(state, 2);
        ffi::lua_settop(state, 2);
        ffi::lua_pushinteger(state, 0);
        ffi::lua_pushcclosure(state, gmatch_next, 3);
    }
    1
}

unsafe extern "C-unwind" fn gmatch_next(state: *mut lua_State) -> c_int {
    // SAFETY: the upvalues are those of `gmatch`, and stay while the texts are read.
    unsafe {
        let text = text_at(state, ffi::lua_upvalueindex(1));
        let pattern = text_at(state, ffi::lua_upvalueindex(2));
        let mut start = ffi::lua_tointeger(state, ffi::lua_upvalueindex(3)) as usize;
        let mut matcher = Matcher::new(text, pattern, work());
        let mut found = Ok(None);
        while start <= text.len() {
            found = matcher.at(start, 0);
            if found != Ok(None) {
                break;
            }
            start += 1;
        }
        let Some(end) = settle(state, found, matcher.steps()) else { return 0 };
        // After an empty match the next begins one further.
        let next = if end == start { end + 1 } else { end };
        ffi::lua_pushinteger(state, next as i64);
        ffi::lua_replace(state, ffi::lua_upvalueindex(3));
        push_captures(state, &matcher, text, Some((start, end)))
    }
}

unsafe extern "C-unwind" fn gsub(state: *mut lua_State) -> c_int {
    // SAFETY: the texts stay on the stack while they are read; the buffer is used as Lua asks, with
    // what it has put on the stack left where it is.
    unsafe {
        let (text, pattern) = (check_text(state, 1), check_text(state, 2));
        let kind = ffi::lua_type(state, 3);
        let most = ffi::luaL_optinteger(state, 4, text.len() as i64 + 1) as c_int;
        if ![ffi::LUA_TNUMBER, ffi::LUA_TSTRING, ffi::LUA_TFUNCTION, ffi::LUA_TTABLE]
            .contains(&kind)
        {
            ffi::luaL_argerror(state, 3, c"string/function/table expected".as_ptr());
        }
        let mut buffer = MaybeUninit::<luaL_Buffer>::uninit();
        let buffer = buffer.as_mut_ptr();
        ffi::luaL_buffinit(state, buffer);
        let mut matcher = Matcher::new(text, pattern, work());
        let is_anchored = matcher.is_anchored();
        // What lies between matches is added in one piece, from `kept` on.
        let (mut at, mut kept, mut count) = (0, 0, 0);
        while count < most {
            let found = matcher.at(at, usize::from(is_anchored));
            let found = settle(state, found, matcher.steps());
            if let Some(end) = found {
                count += 1;
                add(buffer, &text[kept..at]);
                kept = end;
                add_value(state, buffer, &matcher, text, (at, end), kind);
            }
            match found {
                Some(end) if at < end => at = end,
                _ if at < text.len() => at += 1,
                _ => break,
            }
            if is_anchored {
                break;
            }
        }
        settle(state, matcher.spend(text.len() - kept), matcher.steps());
        add(buffer, &text[kept..]);
        ffi::luaL_pushresult(buffer);
        ffi::lua_pushinteger(state, count as i64);
        2
    }
}

/// Adds what takes the place of a match.
///
/// # Safety
/// `buffer` is in use on `state`, with nothing above what it has put there.
unsafe fn add_value(
    state: *mut lua_State,
    buffer: *mut luaL_Buffer,
    matcher: &Matcher<'_>,
    text: &[u8],
    whole: (usize, usize),
    kind: c_int,
) {
    // SAFETY: the caller's part; each value is pushed and taken by the buffer.
    unsafe {
        match kind {
            ffi::LUA_TFUNCTION => {
                ffi::lua_pushvalue(state, 3);
                let count = push_captures(state, matcher, text, Some(whole));
                ffi::lua_call(state, count, 1);
            }
            ffi::LUA_TTABLE => {
                push_capture(state, matcher, text, 0, Some(whole));
                ffi::lua_gettable(state, 3);
            }
            _ => return add_text(state, buffer, matcher, text, whole),
        }
        if ffi::lua_toboolean(state, -1) == 0 {
            ffi::lua_settop(state, -2);
            push_text(state, &text[whole.0..whole.1]);
        } else if ffi::lua_isstring(state, -1) == 0 {
            let name = ffi::luaL_typename(state, -1);
            ffi::luaL_error(state, c"invalid replacement value (a %s)".as_ptr(), name);
        }
        ffi::luaL_addvalue(buffer);
    }
}

/// Adds the text in which `%1` stands for what was captured.
///
/// # Safety
/// As for [`add_value`], with a text or a number at 3.
unsafe fn add_text(
    state: *mut lua_State,
    buffer: *mut luaL_Buffer,
    matcher: &Matcher<'_>,
    text: &[u8],
    whole: (usize, usize),
) {
    // SAFETY: the caller's part; a number at 3 becomes a text once and stays one.
    unsafe {
        let mut rest = text_at(state, 3);
        while let Some(plain) = rest.iter().position(|byte| *byte == b'%') {
            add(buffer, &rest[..plain]);
            // At the end Lua finds the zero behind every text.
            let byte = rest.get(plain + 1).copied().unwrap_or(0);
            rest = rest.get(plain + 2..).unwrap_or_default();
            match byte {
                b'0' => add(buffer, &text[whole.0..whole.1]),
                b'1'..=b'9' => {
                    push_capture(state, matcher, text, usize::from(byte - b'1'), Some(whole));
                    ffi::luaL_addvalue(buffer);
                }
                _ => add(buffer, &[byte]),
            }
        }
        add(buffer, rest);
    }
}

unsafe extern "C-unwind" fn rep(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its own state, and the text stays on the stack.
    unsafe {
        let text = check_text(state, 1);
        let count = ffi::luaL_checkinteger(state, 2) as c_int;
        let count = if text.is_empty() { 0 } else { usize::try_from(count).unwrap_or(0) };
        let mut work = work();
        settle(state, work.add(count.saturating_mul(text.len())), work.steps);
        let mut buffer = MaybeUninit::<luaL_Buffer>::uninit();
        let buffer = buffer.as_mut_ptr();
        ffi::luaL_buffinit(state, buffer);
        for _ in 0..count {
            add(buffer, text);
        }
        ffi::luaL_pushresult(buffer);
        1
    }
}

/// Pushes what was captured, or `whole` where there are no captures. Returns how many.
///
/// # Safety
/// `state` runs a C function.
unsafe fn push_captures(
    state: *mut lua_State,
    matcher: &Matcher<'_>,
    text: &[u8],
    whole: Option<(usize, usize)>,
) -> c_int {
    let count = match matcher.captures().len() {
        0 => usize::from(whole.is_some()),
        count => count,
    };
    // SAFETY: the caller's part, with room for what is pushed.
    unsafe {
        ffi::luaL_checkstack_(state, count as c_int, c"too many captures".as_ptr());
        for place in 0..count {
            push_capture(state, matcher, text, place, whole);
        }
    }
    count as c_int
}

/// # Safety
/// `state` runs a C function and has room for a value.
unsafe fn push_capture(
    state: *mut lua_State,
    matcher: &Matcher<'_>,
    text: &[u8],
    place: usize,
    whole: Option<(usize, usize)>,
) {
    // SAFETY: the caller's part.
    unsafe {
        match (matcher.captures().get(place), whole) {
            (Some(&Capture::Text { start, end }), _) => push_text(state, &text[start..end]),
            (Some(&Capture::Position(at)), _) => ffi::lua_pushinteger(state, at as i64 + 1),
            (Some(Capture::Open { .. }), _) => {
                ffi::luaL_error(state, c"unfinished capture".as_ptr());
            }
            (None, Some((start, end))) if place == 0 => push_text(state, &text[start..end]),
            (None, _) => {
                ffi::luaL_error(state, c"invalid capture index".as_ptr());
            }
        }
    }
}

/// Adds bytes to what a function puts together.
///
/// # Safety
/// `buffer` is in use, with nothing above what it has put on the stack.
unsafe fn add(buffer: *mut luaL_Buffer, bytes: &[u8]) {
    // SAFETY: the caller's part; Lua copies the bytes.
    unsafe { ffi::luaL_addlstring(buffer, bytes.as_ptr().cast::<c_char>(), bytes.len()) };
}

/// An argument that is a text, or a number, which becomes one.
///
/// # Safety
/// `state` runs a C function, which leaves the argument where it is while the bytes are used.
unsafe fn check_text<'a>(state: *mut lua_State, number: c_int) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: the caller's part.
    unsafe {
        let start = ffi::luaL_checklstring(state, number, &raw mut length);
        slice::from_raw_parts(start.cast::<u8>(), length)
    }
}

/// The work of this run that the host has yet to be asked for.
fn work() -> Work {
    Work { steps: current(|slot| slot.run.steps).unwrap_or(0), beat }
}

/// Keeps the count of steps, and raises what went wrong.
///
/// # Safety
/// `state` runs a C function, in whose frames nothing has a destructor.
unsafe fn settle<T>(state: *mut lua_State, result: Result<T, Fault>, steps: usize) -> T {
    current(|slot| slot.run.steps = steps);
    match result {
        Ok(value) => value,
        // SAFETY: the caller's part.
        Err(fault) => unsafe {
            match fault {
                Fault::Malformed(text) => {
                    ffi::luaL_error(state, c"%s".as_ptr(), text.as_ptr());
                }
                Fault::Over => {
                    push_text(state, KILLED.as_bytes());
                    push_error(state, false);
                    ffi::lua_error(state);
                }
            }
            unreachable!("Lua has jumped")
        },
    }
}

/// Asks the host whether to go on; where no script runs there is none.
fn beat() -> bool {
    let goes_on = current(|slot| {
        if slot.run.killed {
            return false;
        }
        let host = slot.host;
        match catch_unwind(AssertUnwindSafe(|| host.tick())) {
            Ok(tick) => slot.run.killed = tick == Tick::Kill,
            Err(payload) => {
                slot.run.panic = Some(Panic(payload));
                slot.run.killed = true;
            }
        }
        !slot.run.killed
    });
    goes_on.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use mlua::{Function, LuaString};
    use proptest::prelude::*;

    use super::*;

    /// Calls one function of Lua's and the one of ours of the same name, and says where they differ.
    const COMPARE: &str = "
        local ours = ...
        local function all(...) return select('#', ...), {...} end
        local function every(gmatch, ...)
          local found = {}
          for a, b in gmatch(...) do
            found[#found + 1] = tostring(a) .. ':' .. tostring(b)
            if #found == 50 then break end
          end
          return table.concat(found, ',')
        end
        local replacements = {
          '', '<%0>', '%1%2', '%1-%%-%x', 'a%', 7, { a = 'x', b = false, ab = 3 },
          function(a, b) if a == 'a' then return nil end return b or a end,
          function() return {} end,
        }
        return function(text, pattern, init)
          local function compare(name, one, other, ...)
            local count, first = all(pcall(one, ...))
            local again, second = all(pcall(other, ...))
            local same = count == again
            for place = 1, count do
              same = same and first[place] == second[place]
            end
            if not same then
              return name .. ': ' .. tostring(first[1]) .. ' ' .. tostring(first[2]) .. ' '
                .. tostring(first[3]) .. ' / ' .. tostring(second[1]) .. ' ' .. tostring(second[2])
                .. ' ' .. tostring(second[3])
            end
          end
          local problem = compare('find', string.find, ours.find, text, pattern, init)
            or compare('plain', string.find, ours.find, text, pattern, init, true)
            or compare('match', string.match, ours.match, text, pattern, init)
            or compare('gmatch', function(...) return every(string.gmatch, ...) end,
              function(...) return every(ours.gmatch, ...) end, text, pattern)
            or compare('rep', string.rep, ours.rep, text, init)
          for _, by in ipairs(replacements) do
            problem = problem or compare('gsub', string.gsub, ours.gsub, text, pattern, by)
              or compare('gsub', string.gsub, ours.gsub, text, pattern, by, init)
          end
          return problem
        end";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn they_do_what_those_of_lua_do(
            cases in prop::collection::vec((text(), pattern(), -6_i32..12), 200),
        ) {
            let lua = Lua::new();
            let compare: Function =
                lua.load(COMPARE).call(table(&lua).unwrap()).expect("it loads");
            for (text, pattern, init) in cases {
                let pair = (lua.create_string(&text).unwrap(), lua.create_string(&pattern).unwrap());
                let differing: Option<LuaString> = compare.call((pair.0, pair.1, init)).unwrap();
                let differing = differing.map(|text| text.to_string_lossy());
                prop_assert_eq!(
                    differing, None, "{} {}", text.escape_ascii(), pattern.escape_ascii()
                );
            }
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![8 => prop::sample::select(&b"aabb1 (]%-Z"[..]), 1 => any::<u8>()];
        prop::collection::vec(byte, 0..12)
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            8 => prop::sample::select(vec![
                "a", "b", "ab", ".", "%a", "%d", "%S", "%u", "%z", "[ab]", "[^a]", "[a-z%]]", "[]a]",
                "[^]]", "%W", "%x", "%p", "%c", "%l", "[%w_]", "[a-]", "%%",
            ]),
            6 => prop::sample::select(vec!["*", "+", "-", "?", "(", ")", "()", "(a", "b)", "%1", "%2"]),
            2 => prop::sample::select(vec![
                "^", "$", "%b()", "%f[a]", "%f[%W]", "%b", "%f", "[", "]", "%", "\0", "[a", "%0",
            ]),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat().into_bytes())
    }

    #[test]
    fn arguments_are_read_as_lua_reads_them() {
        let lua = Lua::new();
        lua.globals().set("ours", table(&lua).unwrap()).unwrap();
        lua.load(
            "assert(ours.find(12345, 34) == 3)
             assert(ours.gsub(1221, 2, 3) == '1331')
             assert(ours.rep('ab', '3') == 'ababab' and ours.rep('', 2147483647) == '')
             assert(ours.rep('x', -1) == '')
             local function refused(text, ...)
               local ok, problem = pcall(...)
               assert(not ok and problem == text, problem)
             end
             refused(\"bad argument #1 to '?' (string expected, got no value)\", ours.find)
             refused(\"bad argument #2 to '?' (string expected, got nil)\", ours.match, 'a', nil)
             refused(\"bad argument #3 to '?' (string/function/table expected)\", ours.gsub, 'a', 'a')
             refused(\"bad argument #4 to '?' (number expected, got string)\",
               ours.gsub, 'a', 'a', 'a', 'x')
             refused('invalid replacement value (a table)', ours.gsub, 'a', 'a', { a = {} })
             refused('pattern too complex', ours.find, ('a'):rep(5000), ('a?'):rep(5000))",
        )
        .exec()
        .unwrap();
    }
}
