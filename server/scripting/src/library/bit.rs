//! `bit`: operations on 32-bit integers, as LuaBitOp has them.
#![allow(clippy::needless_pass_by_value)] // Functions that Lua calls own what they are given.

use mlua::{Lua, Table, Value, Variadic};

use super::number_argument;

pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let one = |name: &str, operation: fn(i32) -> i32| {
        let function = lua.create_function(move |lua, arguments: Variadic<Value>| {
            Ok(operation(bits(lua, &arguments, 1)?))
        })?;
        table.raw_set(name, function)
    };
    one("tobit", |value| value)?;
    one("bnot", |value| !value)?;
    one("bswap", i32::swap_bytes)?;
    let many = |name: &str, operation: fn(i32, i32) -> i32| {
        let function = lua.create_function(move |lua, arguments: Variadic<Value>| {
            let mut result = bits(lua, &arguments, 1)?;
            // Redis takes them from the last to the first; an error names that one.
            for number in (2..=arguments.len()).rev() {
                result = operation(result, bits(lua, &arguments, number)?);
            }
            Ok(result)
        })?;
        table.raw_set(name, function)
    };
    many("band", |one, other| one & other)?;
    many("bor", |one, other| one | other)?;
    many("bxor", |one, other| one ^ other)?;
    let shift = |name: &str, operation: fn(i32, u32) -> i32| {
        let function = lua.create_function(move |lua, arguments: Variadic<Value>| {
            let value = bits(lua, &arguments, 1)?;
            Ok(operation(value, bits(lua, &arguments, 2)? as u32 & 31))
        })?;
        table.raw_set(name, function)
    };
    shift("lshift", |value, by| value.wrapping_shl(by))?;
    shift("rshift", |value, by| ((value as u32) >> by) as i32)?;
    shift("arshift", |value, by| value >> by)?;
    shift("rol", i32::rotate_left)?;
    shift("ror", i32::rotate_right)?;
    table.raw_set("tohex", lua.create_function(to_hex)?)?;
    Ok(table)
}

/// Digits of a number; a negative count asks for capitals.
fn to_hex(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<String> {
    let value = bits(lua, &arguments, 1)?;
    let count = match arguments.get(1) {
        None => 8,
        Some(_) => bits(lua, &arguments, 2)?,
    };
    let digits = count.unsigned_abs().min(8) as usize;
    let text = if count < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    Ok(text[8 - digits..].to_owned())
}

/// The 32 low bits of a number, rounded to even: adding 1.5 * 2^52 leaves them at the end of a double.
fn bits(lua: &Lua, arguments: &[Value], number: usize) -> mlua::Result<i32> {
    let value = number_argument(lua, arguments, number)?;
    Ok((value + 6_755_399_441_055_744.0).to_bits() as u32 as i32)
}
