//! The libraries that scripts find beside Lua's own.

pub(crate) mod bit;
pub(crate) mod cjson;
pub(crate) mod cmsgpack;
pub(crate) mod math;
mod number;
pub(crate) mod packing;

use mlua::{Lua, Value};

use crate::error::wrong_type;

/// A number, as `luaL_checknumber` takes one: a number or a text that reads as one.
pub(crate) fn number_argument(lua: &Lua, arguments: &[Value], number: usize) -> mlua::Result<f64> {
    let given = arguments.get(number - 1);
    let read = match given {
        Some(Value::Integer(number)) => Some(*number as f64),
        Some(Value::Number(number)) => Some(*number),
        Some(text @ Value::String(_)) => lua.coerce_number(text.clone())?,
        _ => None,
    };
    read.ok_or_else(|| wrong_type(lua, number, "number", given))
}

/// A C `int`, as `luaL_checkint` takes one.
pub(crate) fn int_argument(lua: &Lua, arguments: &[Value], number: usize) -> mlua::Result<i32> {
    Ok(number_argument(lua, arguments, number)? as i64 as i32)
}

/// Bytes, as `luaL_checklstring` takes them: a text, or a number in Lua's notation.
pub(crate) fn text_argument(
    lua: &Lua,
    arguments: &[Value],
    number: usize,
) -> mlua::Result<mlua::LuaString> {
    let given = arguments.get(number - 1);
    match given {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Integer(_) | Value::Number(_))) => lua
            .coerce_string(value.clone())?
            .ok_or_else(|| wrong_type(lua, number, "string", given)),
        _ => Err(wrong_type(lua, number, "string", given)),
    }
}

/// What a table holds, without its metatable, in the order in which `next` gives it.
pub(crate) fn entries(table: &mlua::Table) -> mlua::Result<Vec<(Value, Value)>> {
    let mut entries = Vec::with_capacity(table.raw_len());
    table.for_each(|key: Value, value: Value| {
        entries.push((key, value));
        Ok(())
    })?;
    Ok(entries)
}
