//! From Lua's values to JSON.

use std::vec;

use mlua::{Lua, Value};

use super::{DEPTH_CEILING, Invalid, Settings};
use crate::error::{located, type_name};
use crate::library::entries;
use crate::library::number::write_general;

/// The largest text that is made: an array may be told to hold its gaps.
const TEXT_MAX: usize = 512 << 20;
/// The longest array that is mostly gaps.
const GAPS_MAX: i64 = 1_000_000;

pub(super) fn encode(lua: &Lua, value: &Value, settings: &Settings) -> mlua::Result<Value> {
    let mut encoder = Encoder { lua, settings, out: Vec::with_capacity(128) };
    encoder.value(value)?;
    Ok(Value::String(lua.create_string(&encoder.out)?))
}

struct Encoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    out: Vec<u8>,
}

/// A table that is being written. Nothing recurses: scripts may nest tables at will.
enum Open {
    Array(vec::IntoIter<Value>),
    Object(vec::IntoIter<(Value, Value)>),
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value) -> mlua::Result<()> {
        let mut open = Vec::new();
        self.single(value, &mut open)?;
        let mut is_first = true;
        while let Some(last) = open.last_mut() {
            let value = match last {
                Open::Array(values) => values.next(),
                Open::Object(entries) => match entries.next() {
                    None => None,
                    Some((key, value)) => {
                        self.comma(!is_first)?;
                        is_first = true;
                        self.key(&key)?;
                        Some(value)
                    }
                },
            };
            let Some(value) = value else {
                self.out.push(if matches!(last, Open::Array(_)) { b']' } else { b'}' });
                open.pop();
                is_first = false;
                continue;
            };
            self.comma(!is_first)?;
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
                open.push(self.begin(table)?);
            }
            other => return Err(self.refused(other, "type not supported")),
        }
        Ok(())
    }

    fn begin(&mut self, table: &mlua::Table) -> mlua::Result<Open> {
        let entries = entries(table)?;
        let Some(length) = self.array_length(&entries)? else {
            self.out.push(b'{');
            return Ok(Open::Object(entries.into_iter()));
        };
        self.out.push(b'[');
        let in_order = entries.len() == length
            && entries.iter().zip(1_i64..).all(|((key, _), index)| *key == Value::Integer(index));
        if in_order {
            let values: Vec<Value> = entries.into_iter().map(|(_, value)| value).collect();
            return Ok(Open::Array(values.into_iter()));
        }
        let mut values = vec![Value::Nil; length];
        for (key, value) in entries {
            if let Value::Integer(index) = key {
                values[index as usize - 1] = value;
            }
        }
        Ok(Open::Array(values.into_iter()))
    }

    /// None if the table is written as an object.
    fn array_length(&self, entries: &[(Value, Value)]) -> mlua::Result<Option<usize>> {
        let mut max = 0_i64;
        for (key, _) in entries {
            match key {
                Value::Integer(index) if 1 <= *index => max = max.max(*index),
                Value::Number(index) if 1.0 <= *index && index.fract() == 0.0 => max = i64::MAX,
                _ => return Ok(None),
            }
        }
        let settings = self.settings;
        let dense = (entries.len() as i64).saturating_mul(i64::from(settings.sparse_ratio));
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
        if entries.len() as i64 * 2 < max && GAPS_MAX < max {
            return Err(located(self.lua, "not enough memory"));
        }
        Ok(Some(max as usize))
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
