//! `cmsgpack`: MessagePack to and from Lua's values.
#![allow(clippy::needless_pass_by_value)] // Functions that Lua calls own what they are given.

use mlua::{Lua, Table, Value, Variadic};

use super::{number_argument, text_argument};
use crate::error::{bad_argument, located};

/// Tables nested deeper than this are packed as nil, as lua-cmsgpack does.
const PACK_DEPTH_MAX: usize = 16;
/// How deep a message may nest; our own stack is bounded.
const UNPACK_DEPTH_MAX: usize = 256;
/// How many values come back at once; Lua's stack is bounded.
const RESULTS_MAX: usize = 7000;
const TOO_MANY: &str = "stack overflow (too many return values at once; \
                        use unpack_one or unpack_limit instead.)";

pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set("unpack", lua.create_function(|lua, all| unpack(lua, &all, 0, 0))?)?;
    table.raw_set("unpack_one", lua.create_function(unpack_one)?)?;
    table.raw_set("unpack_limit", lua.create_function(unpack_limit)?)?;
    table.raw_set("_NAME", "cmsgpack")?;
    table.raw_set("_VERSION", "lua-cmsgpack 0.4.0")?;
    table.raw_set("_COPYRIGHT", "Copyright (C) 2012, Salvatore Sanfilippo")?;
    table.raw_set("_DESCRIPTION", "MessagePack C implementation for Lua")?;
    Ok(table)
}

fn pack(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Value> {
    if arguments.is_empty() {
        return Err(bad_argument(lua, 0, "MessagePack pack needs input."));
    }
    let mut out = Vec::with_capacity(64);
    for value in arguments.iter() {
        pack_value(value, 0, &mut out)?;
    }
    Ok(Value::String(lua.create_string(&out)?))
}

fn pack_value(value: &Value, depth: usize, out: &mut Vec<u8>) -> mlua::Result<()> {
    match value {
        Value::String(text) => {
            let text = text.as_bytes();
            let length = text.len();
            match length {
                0..32 => out.push(0xA0 | length as u8),
                32..=0xFF => out.extend_from_slice(&[0xD9, length as u8]),
                _ => sized(0xDA, length, out),
            }
            out.extend_from_slice(&text);
        }
        Value::Boolean(truth) => out.push(if *truth { 0xC3 } else { 0xC2 }),
        Value::Integer(number) => pack_integer(*number, out),
        Value::Number(number) => pack_double(*number, out),
        // One pass to count, one to write: Lua has no room for all values of a large table at once.
        Value::Table(table) if depth < PACK_DEPTH_MAX => match count(table)? {
            (count, true) => {
                header(0x90, 0xDC, count, out);
                for index in 1..=count {
                    pack_value(&table.raw_get(index)?, depth + 1, out)?;
                }
            }
            (count, false) => {
                header(0x80, 0xDE, count, out);
                for pair in table.pairs() {
                    let (key, value) = pair?;
                    pack_value(&key, depth + 1, out)?;
                    pack_value(&value, depth + 1, out)?;
                }
            }
        },
        _ => out.push(0xC0),
    }
    Ok(())
}

/// How many entries there are, and whether their keys are 1 to that number.
fn count(table: &Table) -> mlua::Result<(usize, bool)> {
    let (mut count, mut max) = (0_i64, Some(0));
    for pair in table.pairs::<Value, Value>() {
        max = match pair?.0 {
            Value::Integer(index @ 1..=0x7FFF_FFFF) => max.map(|max| index.max(max)),
            _ => None,
        };
        count += 1;
    }
    Ok((count as usize, max == Some(count)))
}

/// The header of an aggregate: in the first byte, or with a length of 2 or 4 bytes.
fn header(small: u8, large: u8, count: usize, out: &mut Vec<u8>) {
    if count < 16 {
        out.push(small | count as u8);
    } else {
        sized(large, count, out);
    }
}

/// A type that has 16-bit lengths, and the next one that has 32-bit lengths.
fn sized(kind: u8, length: usize, out: &mut Vec<u8>) {
    match u16::try_from(length) {
        Ok(length) => {
            out.push(kind);
            out.extend_from_slice(&length.to_be_bytes());
        }
        Err(_) => {
            out.push(kind + 1);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

fn pack_integer(number: i64, out: &mut Vec<u8>) {
    let bytes = number.to_be_bytes();
    let (kind, width) = match number {
        -32..=0x7F => {
            out.push(number as u8);
            return;
        }
        0x80..=0xFF => (0xCC, 1),
        0x100..=0xFFFF => (0xCD, 2),
        0x1_0000..=0xFFFF_FFFF => (0xCE, 4),
        0x1_0000_0000.. => (0xCF, 8),
        -0x80..-32 => (0xD0, 1),
        -0x8000..-0x80 => (0xD1, 2),
        -0x8000_0000..-0x8000 => (0xD2, 4),
        _ => (0xD3, 8),
    };
    out.push(kind);
    out.extend_from_slice(&bytes[8 - width..]);
}

fn pack_double(number: f64, out: &mut Vec<u8>) {
    const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&number) {
        pack_integer(number as i64, out);
        return;
    }
    let single = number as f32;
    if f64::from(single) == number {
        out.push(0xCA);
        out.extend_from_slice(&single.to_be_bytes());
    } else {
        out.push(0xCB);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn unpack_one(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Variadic<Value>> {
    let offset = optional(lua, &arguments, 2)?;
    unpack(lua, &arguments, 1, offset)
}

fn unpack_limit(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Variadic<Value>> {
    let limit = number_argument(lua, &arguments, 2)? as i64;
    let offset = optional(lua, &arguments, 3)?;
    unpack(lua, &arguments, limit, offset)
}

fn optional(lua: &Lua, arguments: &[Value], number: usize) -> mlua::Result<i64> {
    match arguments.get(number - 1) {
        None | Some(Value::Nil) => Ok(0),
        Some(_) => Ok(number_argument(lua, arguments, number)? as i64),
    }
}

fn unpack(
    lua: &Lua,
    arguments: &Variadic<Value>,
    limit: i64,
    offset: i64,
) -> mlua::Result<Variadic<Value>> {
    let text = text_argument(lua, arguments, 1)?;
    let bytes = text.as_bytes();
    let length = bytes.len();
    let (Ok(start), Ok(mut limit)) = (usize::try_from(offset), usize::try_from(limit)) else {
        let (offset, length) = (offset as i32, length as i32);
        return Err(located(
            lua,
            format!("Invalid request to unpack with offset of {offset} and limit of {length}."),
        ));
    };
    if length < start {
        let (offset, length) = (offset as i32, length as i32);
        return Err(located(
            lua,
            format!("Start offset {offset} greater than input length {length}."),
        ));
    }
    let all = limit == 0 && start == 0;
    if all {
        limit = i32::MAX as usize;
    }
    let mut reader = Reader { lua, rest: &bytes[start..] };
    let mut values = Vec::new();
    while !reader.rest.is_empty() && values.len() < limit {
        if RESULTS_MAX <= values.len() {
            return Err(located(lua, TOO_MANY));
        }
        values.push(reader.value(UNPACK_DEPTH_MAX)?);
    }
    if !all {
        let next = if reader.rest.is_empty() { -1 } else { (length - reader.rest.len()) as i64 };
        values.insert(0, Value::Integer(next));
    }
    Ok(values.into())
}

struct Reader<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        let Some(depth) = depth.checked_sub(1) else { return Err(located(self.lua, TOO_MANY)) };
        let [kind] = self.take()?;
        Ok(match kind {
            0x00..=0x7F => Value::Integer(i64::from(kind)),
            0xE0.. => Value::Integer(i64::from(kind as i8)),
            0xA0..=0xBF => self.text(usize::from(kind & 0x1F))?,
            0x90..=0x9F => self.array(usize::from(kind & 0x0F), depth)?,
            0x80..=0x8F => self.map(usize::from(kind & 0x0F), depth)?,
            0xC0 => Value::Nil,
            0xC2 => Value::Boolean(false),
            0xC3 => Value::Boolean(true),
            0xCA => Value::Number(f64::from(f32::from_be_bytes(self.take()?))),
            0xCB => Value::Number(f64::from_be_bytes(self.take()?)),
            0xCC => Value::Integer(i64::from(u8::from_be_bytes(self.take()?))),
            0xCD => Value::Integer(i64::from(u16::from_be_bytes(self.take()?))),
            0xCE => Value::Integer(i64::from(u32::from_be_bytes(self.take()?))),
            // Lua-cmsgpack has no other place for the highest bit either.
            0xCF | 0xD3 => Value::Integer(i64::from_be_bytes(self.take()?)),
            0xD0 => Value::Integer(i64::from(i8::from_be_bytes(self.take()?))),
            0xD1 => Value::Integer(i64::from(i16::from_be_bytes(self.take()?))),
            0xD2 => Value::Integer(i64::from(i32::from_be_bytes(self.take()?))),
            0xD9 => {
                let length = u8::from_be_bytes(self.take()?);
                self.text(usize::from(length))?
            }
            0xDA => {
                let length = self.length_16()?;
                self.text(length)?
            }
            0xDB => {
                let length = self.length_32()?;
                self.text(length)?
            }
            0xDC => {
                let count = self.length_16()?;
                self.array(count, depth)?
            }
            0xDD => {
                let count = self.length_32()?;
                self.array(count, depth)?
            }
            0xDE => {
                let count = self.length_16()?;
                self.map(count, depth)?
            }
            0xDF => {
                let count = self.length_32()?;
                self.map(count, depth)?
            }
            _ => return Err(located(self.lua, "Bad data format in input.")),
        })
    }

    fn text(&mut self, length: usize) -> mlua::Result<Value> {
        let (text, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.missing())?;
        self.rest = rest;
        Ok(Value::String(self.lua.create_string(text)?))
    }

    fn array(&mut self, count: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(count.min(self.rest.len()), 0)?;
        for index in 1..=count {
            let value = self.value(depth)?;
            if !value.is_nil() {
                table.raw_seti(index, value)?;
            }
        }
        Ok(Value::Table(table))
    }

    fn map(&mut self, count: usize, depth: usize) -> mlua::Result<Value> {
        let table = self.lua.create_table_with_capacity(0, count.min(self.rest.len() / 2))?;
        for _ in 0..count {
            let key = self.value(depth)?;
            let value = self.value(depth)?;
            match key {
                Value::Nil => return Err(located(self.lua, "table index is nil")),
                Value::Number(number) if number.is_nan() => {
                    return Err(located(self.lua, "table index is NaN"));
                }
                _ => table.raw_set(key, value)?,
            }
        }
        Ok(Value::Table(table))
    }

    fn length_16(&mut self) -> mlua::Result<usize> {
        Ok(usize::from(u16::from_be_bytes(self.take()?)))
    }

    fn length_32(&mut self) -> mlua::Result<usize> {
        Ok(u32::from_be_bytes(self.take()?) as usize)
    }

    fn take<const N: usize>(&mut self) -> mlua::Result<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| self.missing())?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn missing(&self) -> mlua::Error {
        located(self.lua, "Missing bytes in input.")
    }
}
