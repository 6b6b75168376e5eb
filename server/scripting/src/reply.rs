//! From what a script returns to a reply.

use carnelian_resp::{Mark, Writer};
use mlua::{Table, Value};

use crate::interpreter::Shape;

/// How deep a reply may nest; where Redis's stack ends too.
const DEPTH_MAX: usize = 2600;

/// The version of the protocol that `redis.setresp` chose decides how booleans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Booleans {
    AsNumbers,
    AsBooleans,
}

/// An aggregate that is being written. Nothing recurses: scripts can nest tables at will.
enum Open {
    Array { table: Table, next: usize, mark: Mark },
    Pairs { items: std::vec::IntoIter<Value>, count: usize, mark: Mark, set: bool },
}

/// Appends a value; true if it is an error whose statistics are still to be booked.
pub(crate) fn write(
    value: Value,
    shape: Shape,
    booleans: Booleans,
    writer: &mut Writer<'_>,
) -> mlua::Result<bool> {
    let mut open: Vec<Open> = Vec::new();
    let mut uncounted_error = false;
    let mut next = None;
    match (shape, value) {
        (Shape::Status, Value::String(text)) => {
            status(&text.as_bytes(), writer);
            return Ok(false);
        }
        (Shape::Array, Value::Table(table)) => open.push(array(table, writer)),
        (_, value) if !matches!(value, Value::Table(_)) => {
            scalar(&value, booleans, writer);
            return Ok(false);
        }
        (_, value) => next = Some(value),
    }
    loop {
        if let Some(value) = next.take() {
            if let Value::Table(table) = value {
                if DEPTH_MAX <= open.len() {
                    writer.error("ERR reached lua stack limit");
                } else {
                    uncounted_error |= begin(table, &mut open, writer)?;
                }
            } else {
                scalar(&value, booleans, writer);
            }
        }
        match open.last_mut() {
            None => return Ok(uncounted_error),
            Some(Open::Array { table, next: index, .. }) => {
                let value: Value = table.raw_get(*index)?;
                if !value.is_nil() {
                    *index += 1;
                    next = Some(value);
                    continue;
                }
            }
            Some(Open::Pairs { items, .. }) => {
                next = items.next();
                if next.is_some() {
                    continue;
                }
            }
        }
        match open.pop() {
            Some(Open::Array { next, mark, .. }) => writer.finish_array(mark, next - 1),
            Some(Open::Pairs { count, mark, set: true, .. }) => writer.finish_set(mark, count),
            Some(Open::Pairs { count, mark, set: false, .. }) => writer.finish_map(mark, count),
            None => {}
        }
    }
}

fn scalar(value: &Value, booleans: Booleans, writer: &mut Writer<'_>) {
    match value {
        Value::String(text) => writer.bulk(&text.as_bytes()),
        Value::Integer(number) => writer.integer(*number),
        Value::Number(number) => writer.integer(whole(*number)),
        Value::Boolean(truth) if booleans == Booleans::AsBooleans => writer.boolean(*truth),
        Value::Boolean(true) => writer.integer(1),
        _ => writer.null(),
    }
}

/// A number without its fraction. What no integer can hold is the least one, as x86 converts it and
/// Redis's clients see it.
fn whole(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

/// Writes a table that stands for a scalar, or opens the aggregate that it is.
fn begin(table: Table, open: &mut Vec<Open>, writer: &mut Writer<'_>) -> mlua::Result<bool> {
    // Most tables are arrays and have a first element; those with names hardly ever have one.
    if let Some(text) = text_field(&table, "err")? {
        writer.error(&text);
        let counted: Value = table.raw_get("ignore_error_stats_update")?;
        return Ok(!matches!(counted, Value::Boolean(true)));
    }
    if let Some(text) = text_field(&table, "ok")? {
        status(&text, writer);
        return Ok(false);
    }
    match table.raw_get::<Value>("double")? {
        Value::Integer(number) => {
            writer.double(number as f64);
            return Ok(false);
        }
        Value::Number(number) => {
            writer.double(number);
            return Ok(false);
        }
        _ => {}
    }
    if let Some(mut digits) = text_field(&table, "big_number")? {
        spaces_for_line_ends(&mut digits);
        writer.big_number(&digits);
        return Ok(false);
    }
    if let Value::Table(verbatim) = table.raw_get("verbatim_string")?
        && let Some(format) = text_field(&verbatim, "format")?
        && let Some(text) = text_field(&verbatim, "string")?
    {
        let mut three = [b' '; 3];
        for (place, byte) in three.iter_mut().zip(&format) {
            *place = *byte;
        }
        writer.verbatim(&three, &text);
        return Ok(false);
    }
    if let Value::Table(map) = table.raw_get("map")? {
        let items = items(&map, false)?;
        let count = items.len() / 2;
        open.push(Open::Pairs {
            items: items.into_iter(),
            count,
            mark: writer.defer(),
            set: false,
        });
        return Ok(false);
    }
    if let Value::Table(set) = table.raw_get("set")? {
        let items = items(&set, true)?;
        let count = items.len();
        open.push(Open::Pairs { items: items.into_iter(), count, mark: writer.defer(), set: true });
        return Ok(false);
    }
    open.push(array(table, writer));
    Ok(false)
}

fn array(table: Table, writer: &mut Writer<'_>) -> Open {
    let mark = writer.defer_about(table.raw_len());
    Open::Array { table, next: 1, mark }
}

fn status(text: &[u8], writer: &mut Writer<'_>) {
    writer.raw(b"+");
    let start = writer.len();
    writer.raw(text);
    spaces_for_line_ends(&mut writer.buffer()[start..]);
    writer.raw(b"\r\n");
}

fn text_field(table: &Table, name: &str) -> mlua::Result<Option<Vec<u8>>> {
    Ok(match table.raw_get(name)? {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        _ => None,
    })
}

fn items(table: &Table, keys_only: bool) -> mlua::Result<Vec<Value>> {
    let mut items = Vec::new();
    table.for_each(|key: Value, value: Value| {
        items.push(key);
        if !keys_only {
            items.push(value);
        }
        Ok(())
    })?;
    Ok(items)
}

fn spaces_for_line_ends(text: &mut [u8]) {
    for byte in text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}
