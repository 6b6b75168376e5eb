//! `struct`: binary records by a format, as Roberto Ierusalimschy's library packs them.
#![allow(clippy::needless_pass_by_value)] // Functions that Lua calls own what they are given.

use mlua::{Lua, Table, Value, Variadic};

use super::{number_argument, text_argument};
use crate::error::{bad_argument, located};
use crate::reply::whole;

/// The widest integer.
const INTEGER_MAX: i32 = 32;
/// The alignment that `!` stands for.
const ALIGNMENT_MAX: i32 = 8;
/// How many values come back at once; Lua's stack is bounded.
const RESULTS_MAX: usize = 7000;

pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("pack", lua.create_function(pack)?)?;
    table.raw_set("unpack", lua.create_function(unpack)?)?;
    table.raw_set("size", lua.create_function(size)?)?;
    Ok(table)
}

/// A format that is being read, and what it has set.
struct Format<'a> {
    lua: &'a Lua,
    rest: &'a [u8],
    big_endian: bool,
    alignment: usize,
}

impl<'a> Format<'a> {
    fn new(lua: &'a Lua, text: &'a [u8]) -> Self {
        // It is a C string.
        let rest = text.split(|byte| *byte == 0).next().unwrap_or_default();
        Self { lua, rest, big_endian: false, alignment: 1 }
    }

    /// The next option and its size.
    fn next(&mut self) -> mlua::Result<Option<(u8, usize)>> {
        let Some((&option, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let size = match option {
            b'B' | b'b' | b'x' => 1,
            b'H' | b'h' => 2,
            b'L' | b'l' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.number(1)? as usize,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if INTEGER_MAX < size {
                    let text =
                        format!("integral size {size} is larger than limit of {INTEGER_MAX}");
                    return Err(located(self.lua, text));
                }
                size as usize
            }
            _ => 0,
        };
        Ok(Some((option, size)))
    }

    fn number(&mut self, default: i32) -> mlua::Result<i32> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return Ok(default);
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let value = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        value.ok_or_else(|| located(self.lua, "integral size overflow"))
    }

    /// The bytes to leave out before an option at this place.
    const fn padding(&self, at: usize, option: u8, size: usize) -> usize {
        if size == 0 || option == b'c' {
            return 0;
        }
        let size = if self.alignment < size { self.alignment } else { size };
        size.wrapping_sub(at & (size - 1)) & (size - 1)
    }

    /// What is no value: byte order and alignment.
    fn control(&mut self, option: u8) -> mlua::Result<()> {
        match option {
            b' ' => {}
            b'>' => self.big_endian = true,
            b'<' => self.big_endian = false,
            b'!' => {
                let alignment = self.number(ALIGNMENT_MAX)?;
                if !u32::try_from(alignment).is_ok_and(u32::is_power_of_two) {
                    let text = format!("alignment {alignment} is not a power of 2");
                    return Err(located(self.lua, text));
                }
                self.alignment = alignment as usize;
            }
            _ => {
                let text = format!("invalid format option '{}'", char::from(option));
                return Err(bad_argument(self.lua, 1, &text));
            }
        }
        Ok(())
    }

    fn ordered<const N: usize>(&self, mut little: [u8; N]) -> [u8; N] {
        if self.big_endian {
            little.reverse();
        }
        little
    }
}

fn pack(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Value> {
    let format = text_argument(lua, &arguments, 1)?;
    let format = format.as_bytes();
    let mut format = Format::new(lua, &format);
    let mut out = Vec::new();
    let mut next = 2;
    while let Some((option, size)) = format.next()? {
        let padding = format.padding(out.len(), option, size);
        out.resize(out.len() + padding, 0);
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = number_argument(lua, &arguments, next)?;
                let value = unsigned(number);
                let mut bytes = [0; INTEGER_MAX as usize];
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                let bytes = &mut bytes[..size];
                if format.big_endian {
                    bytes.reverse();
                }
                out.extend_from_slice(bytes);
                next += 1;
            }
            b'x' => out.push(0),
            b'f' => {
                let number = number_argument(lua, &arguments, next)? as f32;
                out.extend_from_slice(&format.ordered(number.to_le_bytes()));
                next += 1;
            }
            b'd' => {
                let number = number_argument(lua, &arguments, next)?;
                out.extend_from_slice(&format.ordered(number.to_le_bytes()));
                next += 1;
            }
            b'c' | b's' => {
                let text = text_argument(lua, &arguments, next)?;
                let text = text.as_bytes();
                next += 1;
                let size = if size == 0 { text.len() } else { size };
                let Some(text) = text.get(..size) else {
                    return Err(bad_argument(lua, next, "string too short"));
                };
                out.extend_from_slice(text);
                if option == b's' {
                    out.push(0);
                }
            }
            _ => format.control(option)?,
        }
    }
    Ok(Value::String(lua.create_string(&out)?))
}

fn unpack(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Variadic<Value>> {
    let format = text_argument(lua, &arguments, 1)?;
    let format = format.as_bytes();
    let mut format = Format::new(lua, &format);
    let data = text_argument(lua, &arguments, 2)?;
    let data = data.as_bytes();
    let start = match arguments.get(2) {
        None | Some(Value::Nil) => 1,
        Some(_) => number_argument(lua, &arguments, 3)? as i64,
    };
    if start == 0 {
        return Err(bad_argument(lua, 3, "offset must be 1 or greater"));
    }
    // A negative place is far behind the end.
    let mut at = (start as u64 - 1) as usize;
    let mut values: Vec<Value> = Vec::new();
    let too_short = || bad_argument(lua, 2, "data string too short");
    while let Some((option, mut size)) = format.next()? {
        at = at.wrapping_add(format.padding(at, option, size));
        let end = at.checked_add(size).filter(|end| *end <= data.len());
        let bytes = end.map(|end| &data[at..end]).ok_or_else(too_short)?;
        if RESULTS_MAX <= values.len() {
            return Err(located(lua, "stack overflow (too many results)"));
        }
        match option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                values.push(Value::Number(integer(bytes, format.big_endian, option)));
            }
            b'x' => {}
            b'f' => {
                let bytes = bytes.try_into().map_err(|_| too_short())?;
                let number = f32::from_le_bytes(format.ordered(bytes));
                values.push(Value::Number(f64::from(number)));
            }
            b'd' => {
                let bytes = bytes.try_into().map_err(|_| too_short())?;
                values.push(Value::Number(f64::from_le_bytes(format.ordered(bytes))));
            }
            b'c' => {
                if size == 0 {
                    let given = values.pop().and_then(|value| number_value(lua, value));
                    let Some(given) = given else {
                        return Err(located(lua, "format 'c0' needs a previous size"));
                    };
                    size = given as i64 as u64 as usize;
                }
                let end = at.checked_add(size).filter(|end| *end <= data.len());
                let text = end.map(|end| &data[at..end]).ok_or_else(too_short)?;
                values.push(Value::String(lua.create_string(text)?));
            }
            b's' => {
                let Some(length) = data[at..].iter().position(|byte| *byte == 0) else {
                    return Err(located(lua, "unfinished string in data"));
                };
                values.push(Value::String(lua.create_string(&data[at..at + length])?));
                size = length + 1;
            }
            _ => format.control(option)?,
        }
        at += size;
    }
    values.push(Value::Integer((at as i64).wrapping_add(1)));
    Ok(values.into())
}

fn number_value(lua: &Lua, value: Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(number as f64),
        Value::Number(number) => Some(number),
        text @ Value::String(_) => lua.coerce_number(text).ok().flatten(),
        _ => None,
    }
}

fn integer(bytes: &[u8], big_endian: bool, option: u8) -> f64 {
    let shift_in = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    let mut value = if big_endian {
        bytes.iter().fold(0, shift_in)
    } else {
        bytes.iter().rev().fold(0, shift_in)
    };
    if option.is_ascii_uppercase() {
        return value as f64;
    }
    let mask = u64::MAX.wrapping_shl((bytes.len() as u32 * 8).wrapping_sub(1));
    if value & mask != 0 {
        value |= mask;
    }
    value as i64 as f64
}

fn size(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<i64> {
    let format = text_argument(lua, &arguments, 1)?;
    let format = format.as_bytes();
    let mut format = Format::new(lua, &format);
    let mut at = 0_usize;
    while let Some((option, size)) = format.next()? {
        at = at.wrapping_add(format.padding(at, option, size));
        if option == b's' {
            return Err(bad_argument(lua, 1, "option 's' has no fixed size"));
        }
        if option == b'c' && size == 0 {
            return Err(bad_argument(lua, 1, "option 'c0' has no fixed size"));
        }
        if !option.is_ascii_alphanumeric() {
            format.control(option)?;
        }
        at = at.wrapping_add(size);
    }
    Ok(at as i64)
}
/// A number in 64 bits, two's complement. What they cannot hold is what x86 makes of it in C.
fn unsigned(number: f64) -> u64 {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    match number {
        _ if number < LIMIT / 2.0 || number.is_nan() => whole(number) as u64,
        _ if number < LIMIT => number as u64,
        _ => 0,
    }
}
