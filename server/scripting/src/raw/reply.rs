//! What a script returned, written as a reply.
#![allow(unsafe_code)]

use std::ffi::c_int;

use carnelian_resp::{Mark, Writer};
use mlua::ffi::{self, lua_State};
use smallvec::SmallVec;

use super::{
    BIG_NUMBER, COUNTED, DOUBLE, ERR, FORMAT, MAP, OK, ROOM, Runner, SET, STRING, VERBATIM, text_at,
};
use crate::reply::{Booleans, spaces_for_line_ends, status, up_to_nul, whole};

/// How many levels have room from the start, and the room for the deepest: two places a level.
const SHALLOW: usize = 16;
const DEEP_ROOM: c_int = 2 * DEPTH_MAX as c_int + 2 * ROOM;
/// How deep a reply may nest; where Redis's stack ends too.
const DEPTH_MAX: usize = 2600;

/// An aggregate that is being written, whose table is the next on the stack. Nothing recurses:
/// scripts can nest tables at will.
enum Open {
    Array { next: c_int, mark: Mark },
    //// Above its table is the key that was written last.
    Pairs { count: usize, mark: Mark, is_set: bool, half: bool },
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
                    if DEPTH_MAX <= open.len() || !self.has_room(open.len()) {
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
                            // The key has been written; it stays for `lua_next`.
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
                writer.error(up_to_nul(text_at(state, -1)));
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
