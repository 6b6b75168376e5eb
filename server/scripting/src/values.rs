//! From replies of commands to what scripts see of them.

use carnelian_resp::number::parse_i64;
use mlua::{Lua, Table};

/// How deep replies of our own commands may nest; they are far from it.
pub(crate) const DEPTH_MAX: usize = 128;

/// The text of a reply that is an error.
pub(crate) fn error_text(reply: &[u8]) -> Option<&[u8]> {
    let text = reply.strip_prefix(b"-")?;
    Some(text.strip_suffix(b"\r\n").unwrap_or(text))
}

/// An error's text as `err` holds it: with a code in front, `ERR` if it has none.
pub(crate) fn with_code(text: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    match text.strip_prefix(b"-") {
        Some(text) => with_code_into(text, &mut whole),
        None => join(b"ERR", text, &mut whole),
    }
    whole
}

/// The same of an error's text after its `-`.
pub(crate) fn with_code_into(text: &[u8], whole: &mut Vec<u8>) {
    match text.iter().position(|byte| *byte == b' ') {
        None => join(b"ERR", text, whole),
        Some(space) => join(&text[..space], &text[space + 1..], whole),
    }
}

fn join(code: &[u8], rest: &[u8], whole: &mut Vec<u8>) {
    let line_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
    let start = rest.iter().position(|byte| !line_end(byte)).unwrap_or(rest.len());
    let end = rest.iter().rposition(|byte| !line_end(byte)).map_or(start, |at| at + 1);
    for part in [code, b" ", &rest[start..end]] {
        whole.extend_from_slice(part);
    }
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

/// A number as replies of RESP3 write it.
pub(crate) fn double(line: &[u8]) -> f64 {
    match line {
        b"inf" => f64::INFINITY,
        b"-inf" => f64::NEG_INFINITY,
        _ => str::from_utf8(line).ok().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN),
    }
}

/// The type of a reply and the rest of its first line.
pub(crate) fn header<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (kind, text) = rest.split_first()?;
    let end = text.iter().position(|byte| *byte == b'\r')?;
    *rest = text.get(end + 2..)?;
    Some((*kind, &text[..end]))
}

/// How many follow; none of it for -1, which is null.
pub(crate) fn length(line: &[u8]) -> Option<Option<usize>> {
    let count = parse_i64(line)?;
    Some(usize::try_from(count).ok())
}

/// The text of a bulk reply.
pub(crate) fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (text, after) = rest.split_at_checked(length.checked_add(2)?)?;
    *rest = after;
    text.get(..length)
}
