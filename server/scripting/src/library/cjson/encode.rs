//! From Lua's values to JSON.

use mlua::{Function, Lua, Table, Value};

use super::{DEPTH_CEILING, Invalid, Settings};
use crate::error::{located, type_name};
use crate::library::number::write_general;

/// The largest text that is made: an array may be told to hold its gaps.
const TEXT_MAX: usize = 512 << 20;
/// The longest array that is mostly gaps.
const GAPS_MAX: i64 = 1_000_000;

/// `next`: Lua's own.
pub(super) fn encode(
    lua: &Lua,
    value: &Value,
    settings: &Settings,
    next: &Function,
) -> mlua::Result<Value> {
    let mut encoder = Encoder { lua, settings, next, out: Vec::with_capacity(128) };
    encoder.value(value)?;
    Ok(Value::String(lua.create_string(&encoder.out)?))
}

struct Encoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    next: &'a Function,
    out: Vec<u8>,
}

/// A table that is being written. Nothing recurses: scripts may nest tables at will. Nor are a table's
/// values held beforehand: Lua has room for no more than some thousands.
enum Open {
    Array { table: Table, written: i64, length: i64 },
    Object { table: Table, last: Value },
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value) -> mlua::Result<()> {
        let mut open = Vec::new();
        self.single(value, &mut open)?;
        let mut is_first = true;
        while let Some(innermost) = open.last_mut() {
            let (value, end) = match innermost {
                Open::Array { written, length, .. } if written == length => (None, b']'),
                Open::Array { table, written, .. } => {
                    *written += 1;
                    self.comma(!is_first)?;
                    (Some(table.raw_get(*written)?), b']')
                }
                Open::Object { table, last } => {
                    let (key, value): (Value, Value) = self.next.call((&*table, &*last))?;
                    if key.is_nil() {
                        (None, b'}')
                    } else {
                        self.comma(!is_first)?;
                        self.key(&key)?;
                        *last = key;
                        (Some(value), b'}')
                    }
                }
            };
            let Some(value) = value else {
                self.out.push(end);
                open.pop();
                is_first = false;
                continue;
            };
            let depth = open.len();
            self.single(&value, &mut open)?;
            is_first = depth < open.len();
        }
        Ok(())
    }

    /// Writes what holds nothing else, or the beginning of what does.
    fn single(&mut self, value: &Value, open: &mut Vec<Open>) -> mlua::Result<()> {
        match value {
            Value::String(text) => self.text(&text.as_bytes()),
            Value::Integer(number) => self.number(*number as f64, value)?,
            Value::Number(number) => self.number(*number, value)?,
            Value::Boolean(true) => self.out.extend_from_slice(b"true"),
            Value::Boolean(false) => self.out.extend_from_slice(b"false"),
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::LightUserData(pointer) if pointer.0.is_null() => {
                self.out.extend_from_slice(b"null");
            }
            Value::Table(table) => {
                let depth = open.len() as i32 + 1;
                if self.settings.encode_max_depth.min(DEPTH_CEILING) < depth {
                    let text = format!("Cannot serialise, excessive nesting ({depth})");
                    return Err(located(self.lua, text));
                }
                let table = table.clone();
                open.push(match self.array_length(&table)? {
                    Some(length) => {
                        self.out.push(b'[');
                        Open::Array { table, written: 0, length }
                    }
                    None => {
                        self.out.push(b'{');
                        Open::Object { table, last: Value::Nil }
                    }
                });
            }
            other => return Err(self.refused(other, "type not supported")),
        }
        Ok(())
    }

    /// None if the table is written as an object.
    fn array_length(&self, table: &Table) -> mlua::Result<Option<i64>> {
        let (mut count, mut max) = (0_i64, 0_i64);
        for pair in table.pairs::<Value, Value>() {
            match pair?.0 {
                Value::Integer(index) if 1 <= index => max = max.max(index),
                Value::Number(index) if 1.0 <= index && index.fract() == 0.0 => max = i64::MAX,
                _ => return Ok(None),
            }
            count += 1;
        }
        let settings = self.settings;
        let dense = count.saturating_mul(i64::from(settings.sparse_ratio));
        if 0 < settings.sparse_ratio && dense < max && i64::from(settings.sparse_safe) < max {
            if settings.sparse_convert {
                return Ok(None);
            }
            let text = "Cannot serialise table: excessively sparse array";
            return Err(located(self.lua, text));
        }
        if max == 0 {
            return Ok(None);
        }
        if count * 2 < max && GAPS_MAX < max {
            return Err(located(self.lua, "not enough memory"));
        }
        Ok(Some(max))
    }

    fn key(&mut self, key: &Value) -> mlua::Result<()> {
        match key {
            Value::String(text) => self.text(&text.as_bytes()),
            Value::Integer(number) => self.number_key(*number as f64, key)?,
            Value::Number(number) => self.number_key(*number, key)?,
            other => return Err(self.refused(other, "table key must be a number or string")),
        }
        self.out.push(b':');
        Ok(())
    }

    fn number_key(&mut self, number: f64, key: &Value) -> mlua::Result<()> {
        self.out.push(b'"');
        self.number(number, key)?;
        self.out.push(b'"');
        Ok(())
    }

    fn comma(&mut self, wanted: bool) -> mlua::Result<()> {
        if TEXT_MAX < self.out.len() {
            return Err(located(self.lua, "not enough memory"));
        }
        if wanted {
            self.out.push(b',');
        }
        Ok(())
    }

    fn number(&mut self, number: f64, value: &Value) -> mlua::Result<()> {
        if number.is_finite() {
            write_general(number, self.settings.precision as usize, &mut self.out);
            return Ok(());
        }
        match self.settings.encode_invalid {
            Invalid::Refuse => return Err(self.refused(value, "must not be NaN or Inf")),
            Invalid::Null => self.out.extend_from_slice(b"null"),
            Invalid::Write if number.is_nan() => self.out.extend_from_slice(b"nan"),
            Invalid::Write if number < 0.0 => self.out.extend_from_slice(b"-inf"),
            Invalid::Write => self.out.extend_from_slice(b"inf"),
        }
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        let mut plain = 0;
        for (place, byte) in text.iter().enumerate() {
            let escape: &[u8] = match byte {
                b'"' => b"\\\"",
                b'\\' => b"\\\\",
                b'/' => b"\\/",
                8 => b"\\b",
                b'\t' => b"\\t",
                b'\n' => b"\\n",
                12 => b"\\f",
                b'\r' => b"\\r",
                0..32 | 127 => &[],
                _ => continue,
            };
            self.out.extend_from_slice(&text[plain..place]);
            plain = place + 1;
            if escape.is_empty() {
                self.out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
            } else {
                self.out.extend_from_slice(escape);
            }
        }
        self.out.extend_from_slice(&text[plain..]);
        self.out.push(b'"');
    }

    fn refused(&self, value: &Value, reason: &str) -> mlua::Error {
        located(self.lua, format!("Cannot serialise {}: {reason}", type_name(value)))
    }
}
