//! From replies of commands to what scripts see of them.

use carnelian_resp::number::parse_i64;
use mlua::{Lua, Table, Value};

use crate::error::Raised;

/// How deep replies of our own commands may nest; they are far from it.
const DEPTH_MAX: usize = 128;

/// The text of a reply that is an error.
pub(crate) fn error_text(reply: &[u8]) -> Option<&[u8]> {
    let text = reply.strip_prefix(b"-")?;
    Some(text.strip_suffix(b"\r\n").unwrap_or(text))
}

/// An error's text as `err` holds it: with a code in front, `ERR` if it has none.
pub(crate) fn with_code(text: &[u8]) -> Vec<u8> {
    let (code, rest) = match text.strip_prefix(b"-") {
        None => (&b"ERR"[..], text),
        Some(text) => match text.iter().position(|byte| *byte == b' ') {
            None => (&b"ERR"[..], text),
            Some(space) => (&text[..space], &text[space + 1..]),
        },
    };
    let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = rest.iter().position(|byte| !line_end(byte)).unwrap_or(rest.len());
    let end = rest.iter().rposition(|byte| !line_end(byte)).map_or(start, |at| at + 1);
    [code, b" ", &rest[start..end]].concat()
}

/// `{err = text}`, as `redis.pcall` answers.
pub(crate) fn error_table(lua: &Lua, text: &[u8], counted: bool) -> mlua::Result<Table> {
    let table = lua.create_table_with_capacity(0, if counted { 2 } else { 1 })?;
    table.raw_set("err", lua.create_string(text)?)?;
    if counted {
        table.raw_set("ignore_error_stats_update", true)?;
    }
    Ok(table)
}

/// One whole reply.
pub(crate) fn from_reply(lua: &Lua, mut reply: &[u8]) -> mlua::Result<Value> {
    value(lua, &mut reply, DEPTH_MAX)
}

fn value(lua: &Lua, rest: &mut &[u8], depth: usize) -> mlua::Result<Value> {
    let Some(depth) = depth.checked_sub(1) else { return Err(broken()) };
    let (kind, line) = header(rest).ok_or_else(broken)?;
    Ok(match kind {
        b'$' => match length(line)? {
            None => Value::Boolean(false),
            Some(length) => Value::String(lua.create_string(take(rest, length)?)?),
        },
        b':' => Value::Integer(parse_i64(line).ok_or_else(broken)?),
        b'+' => match str::from_utf8(line) {
            // A `str` goes to Lua without a reference to it in between.
            Ok(text) => Value::Table(lua.create_table_from([("ok", text)])?),
            Err(_) => field(lua, "ok", Value::String(lua.create_string(line)?))?,
        },
        b'-' => Value::Table(error_table(lua, &with_code_of_line(line), true)?),
        b'*' | b'>' => match length(line)? {
            None => Value::Boolean(false),
            Some(count) => array(lua, rest, count, depth)?,
        },
        b'%' => {
            let count = length(line)?.unwrap_or(0);
            let table = lua.create_table_with_capacity(0, count.min(rest.len()))?;
            for _ in 0..count {
                let key = value(lua, rest, depth)?;
                let item = value(lua, rest, depth)?;
                table.raw_set(key, item)?;
            }
            field(lua, "map", Value::Table(table))?
        }
        b'~' => {
            let count = length(line)?.unwrap_or(0);
            let table = lua.create_table_with_capacity(0, count.min(rest.len()))?;
            for _ in 0..count {
                table.raw_set(value(lua, rest, depth)?, true)?;
            }
            field(lua, "set", Value::Table(table))?
        }
        b'_' => Value::Nil,
        b'#' => Value::Boolean(line == b"t"),
        b',' => field(lua, "double", Value::Number(double(line)))?,
        b'(' => field(lua, "big_number", Value::String(lua.create_string(line)?))?,
        b'=' => {
            let length = length(line)?.unwrap_or(0);
            let text = take(rest, length)?;
            let (format, text) = text.split_at_checked(4).ok_or_else(broken)?;
            let table = lua.create_table_with_capacity(0, 2)?;
            table.raw_set("string", lua.create_string(text)?)?;
            table.raw_set("format", lua.create_string(&format[..3])?)?;
            field(lua, "verbatim_string", Value::Table(table))?
        }
        // Attributes are not shown to scripts.
        b'|' => {
            for _ in 0..length(line)?.unwrap_or(0) {
                value(lua, rest, depth)?;
                value(lua, rest, depth)?;
            }
            value(lua, rest, depth)?
        }
        _ => return Err(broken()),
    })
}

fn array(lua: &Lua, rest: &mut &[u8], count: usize, depth: usize) -> mlua::Result<Value> {
    // Each element has 3 bytes at least.
    let table = lua.create_table_with_capacity(count.min(rest.len()), 0)?;
    for index in 1..=count {
        let item = value(lua, rest, depth)?;
        if !item.is_nil() {
            table.raw_seti(index, item)?;
        }
    }
    Ok(Value::Table(table))
}

fn with_code_of_line(line: &[u8]) -> Vec<u8> {
    with_code(&[b"-", line].concat())
}

fn field(lua: &Lua, name: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

fn double(line: &[u8]) -> f64 {
    match line {
        b"inf" => f64::INFINITY,
        b"-inf" => f64::NEG_INFINITY,
        _ => str::from_utf8(line).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN),
    }
}

/// The type of a reply and the rest of its first line.
fn header<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (kind, text) = rest.split_first()?;
    let end = text.iter().position(|byte| *byte == b'\r')?;
    *rest = text.get(end + 2..)?;
    Some((*kind, &text[..end]))
}

/// None for -1, which is null.
fn length(line: &[u8]) -> mlua::Result<Option<usize>> {
    let count = parse_i64(line).ok_or_else(broken)?;
    Ok(usize::try_from(count).ok())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> mlua::Result<&'a [u8]> {
    let end = length.checked_add(2).ok_or_else(broken)?;
    if rest.len() < end {
        return Err(broken());
    }
    let (text, after) = rest.split_at(end);
    *rest = after;
    Ok(&text[..length])
}

/// Replies come from our own commands: this is a bug of theirs, but no reason to stop.
fn broken() -> mlua::Error {
    Raised::table("ERR a command's reply could not be read")
}
