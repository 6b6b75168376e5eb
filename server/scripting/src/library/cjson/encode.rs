//! From Lua's values to JSON.

use mlua::{Lua, Value};

use super::{DEPTH_CEILING, Invalid, Settings};
use crate::error::{located, type_name};
use crate::library::entries;
use crate::library::number::write_general;

/// The largest text that is made: an array may be told to hold its gaps.
const TEXT_MAX: usize = 512 << 20;

pub(super) fn encode(lua: &Lua, value: &Value, settings: &Settings) -> mlua::Result<Value> {
    let mut encoder = Encoder { lua, settings, out: Vec::with_capacity(128) };
    encoder.value(value, 0)?;
    Ok(Value::String(lua.create_string(&encoder.out)?))
}

struct Encoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    out: Vec<u8>,
}

/// How a table is written.
enum Shape {
    Array(usize),
    Object,
}

impl Encoder<'_> {
    fn value(&mut self, value: &Value, depth: i32) -> mlua::Result<()> {
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
            Value::Table(table) => self.table(table, depth + 1)?,
            other => return Err(self.refused(other, "type not supported")),
        }
        Ok(())
    }

    fn table(&mut self, table: &mlua::Table, depth: i32) -> mlua::Result<()> {
        if self.settings.encode_max_depth.min(DEPTH_CEILING) < depth {
            let text = format!("Cannot serialise, excessive nesting ({depth})");
            return Err(located(self.lua, text));
        }
        let entries = entries(table)?;
        match self.shape(&entries)? {
            Shape::Array(length) => self.array(&entries, length, depth),
            Shape::Object => self.object(&entries, depth),
        }
    }

    fn shape(&self, entries: &[(Value, Value)]) -> mlua::Result<Shape> {
        let mut max = 0_i64;
        for (key, _) in entries {
            match key {
                Value::Integer(index) if 1 <= *index => max = max.max(*index),
                Value::Number(index) if 1.0 <= *index && index.fract() == 0.0 => max = i64::MAX,
                _ => return Ok(Shape::Object),
            }
        }
        let settings = self.settings;
        let dense = (entries.len() as i64).saturating_mul(i64::from(settings.sparse_ratio));
        if 0 < settings.sparse_ratio && dense < max && i64::from(settings.sparse_safe) < max {
            if settings.sparse_convert {
                return Ok(Shape::Object);
            }
            let text = "Cannot serialise table: excessively sparse array";
            return Err(located(self.lua, text));
        }
        if max == 0 {
            return Ok(Shape::Object);
        }
        if TEXT_MAX as i64 / 5 < max {
            return Err(located(self.lua, "not enough memory"));
        }
        Ok(Shape::Array(max as usize))
    }

    fn array(
        &mut self,
        entries: &[(Value, Value)],
        length: usize,
        depth: i32,
    ) -> mlua::Result<()> {
        let in_order = entries.len() == length
            && entries.iter().zip(1_i64..).all(|((key, _), index)| *key == Value::Integer(index));
        self.out.push(b'[');
        if in_order {
            for (place, (_, value)) in entries.iter().enumerate() {
                self.comma(place != 0)?;
                self.value(value, depth)?;
            }
        } else {
            let mut places: Vec<Option<&Value>> = vec![None; length];
            for (key, value) in entries {
                if let Value::Integer(index) = key {
                    places[*index as usize - 1] = Some(value);
                }
            }
            for (place, value) in places.into_iter().enumerate() {
                self.comma(place != 0)?;
                self.value(value.unwrap_or(&Value::Nil), depth)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, entries: &[(Value, Value)], depth: i32) -> mlua::Result<()> {
        self.out.push(b'{');
        for (place, (key, value)) in entries.iter().enumerate() {
            self.comma(place != 0)?;
            match key {
                Value::String(text) => self.text(&text.as_bytes()),
                Value::Integer(_) | Value::Number(_) => {
                    self.out.push(b'"');
                    self.value(key, depth)?;
                    self.out.push(b'"');
                }
                other => return Err(self.refused(other, "table key must be a number or string")),
            }
            self.out.push(b':');
            self.value(value, depth)?;
        }
        self.out.push(b'}');
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
