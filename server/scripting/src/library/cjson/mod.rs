//! `cjson`: JSON to and from Lua's values, with lua-cjson's rules and settings.

mod decode;
mod encode;

use std::sync::{Arc, Mutex, PoisonError};

use mlua::{Function, LightUserData, Lua, Table, Value, Variadic};

use super::int_argument;
use crate::error::{bad_argument, wrong_type};

/// How deep texts may nest, whatever a script sets.
const DEPTH_CEILING: i32 = 1000;

/// What scripts can set, in each `cjson` table for itself.
#[derive(Clone, Copy, Debug)]
struct Settings {
    sparse_convert: bool,
    sparse_ratio: i32,
    sparse_safe: i32,
    encode_max_depth: i32,
    decode_max_depth: i32,
    encode_invalid: Invalid,
    decode_invalid: bool,
    precision: i32,
    keep_buffer: bool,
}

/// What becomes of infinities and NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Invalid {
    Refuse,
    Write,
    Null,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sparse_convert: false,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            encode_invalid: Invalid::Refuse,
            decode_invalid: true,
            precision: 14,
            keep_buffer: true,
        }
    }
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Settings>>);

impl Shared {
    fn read(&self) -> Settings {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Settings) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    let settings = Shared::default();
    let add = |name: &str, function: fn(&Lua, &[Value], &Shared) -> mlua::Result<Value>| {
        let settings = settings.clone();
        let function = lua.create_function(move |lua, arguments: Variadic<Value>| {
            function(lua, &arguments, &settings)
        })?;
        table.raw_set(name, function)
    };
    let (shared, next) = (settings.clone(), lua.globals().raw_get::<Function>("next")?);
    let encode = lua.create_function(move |lua, arguments: Variadic<Value>| {
        let [value] = &arguments[..] else {
            return Err(bad_argument(lua, 1, "expected 1 argument"));
        };
        encode::encode(lua, value, &shared.read(), &next)
    })?;
    table.raw_set("encode", encode)?;
    add("decode", |lua, arguments, settings| {
        if arguments.len() != 1 {
            return Err(bad_argument(lua, 1, "expected 1 argument"));
        }
        let text = super::text_argument(lua, arguments, 1)?;
        decode::decode(lua, &text.as_bytes(), &settings.read())
    })?;
    add("encode_max_depth", |lua, arguments, settings| {
        integer(lua, arguments, settings, 1, i32::MAX, |all| &mut all.encode_max_depth)
    })?;
    add("decode_max_depth", |lua, arguments, settings| {
        integer(lua, arguments, settings, 1, i32::MAX, |all| &mut all.decode_max_depth)
    })?;
    add("encode_number_precision", |lua, arguments, settings| {
        integer(lua, arguments, settings, 1, 14, |all| &mut all.precision)
    })?;
    add("encode_keep_buffer", |lua, arguments, settings| {
        at_most(lua, arguments, 1)?;
        let given = switch(lua, arguments)?;
        Ok(Value::Boolean(settings.change(|all| {
            all.keep_buffer = given.unwrap_or(all.keep_buffer);
            all.keep_buffer
        })))
    })?;
    add("decode_invalid_numbers", |lua, arguments, settings| {
        at_most(lua, arguments, 1)?;
        let given = switch(lua, arguments)?;
        Ok(Value::Boolean(settings.change(|all| {
            all.decode_invalid = given.unwrap_or(all.decode_invalid);
            all.decode_invalid
        })))
    })?;
    add("encode_invalid_numbers", encode_invalid)?;
    let sparse = settings.clone();
    let sparse = lua.create_function(move |lua, arguments: Variadic<Value>| {
        encode_sparse(lua, &arguments, &sparse)
    })?;
    table.raw_set("encode_sparse_array", sparse)?;
    table.raw_set("new", lua.create_function(|lua, ()| self::table(lua))?)?;
    table.raw_set("null", Value::LightUserData(LightUserData(std::ptr::null_mut())))?;
    table.raw_set("_NAME", "cjson")?;
    table.raw_set("_VERSION", "2.1.0")?;
    Ok(table)
}

fn encode_invalid(lua: &Lua, arguments: &[Value], settings: &Shared) -> mlua::Result<Value> {
    at_most(lua, arguments, 1)?;
    let given = match arguments.first() {
        None | Some(Value::Nil) => None,
        Some(Value::Boolean(true)) => Some(Invalid::Write),
        Some(Value::Boolean(false)) => Some(Invalid::Refuse),
        _ => Some(match option(lua, arguments, &["off", "on", "null"])? {
            0 => Invalid::Refuse,
            1 => Invalid::Write,
            _ => Invalid::Null,
        }),
    };
    let now = settings.change(|all| {
        all.encode_invalid = given.unwrap_or(all.encode_invalid);
        all.encode_invalid
    });
    Ok(match now {
        Invalid::Refuse => Value::Boolean(false),
        Invalid::Write => Value::Boolean(true),
        Invalid::Null => Value::String(lua.create_string("null")?),
    })
}

fn encode_sparse(
    lua: &Lua,
    arguments: &[Value],
    settings: &Shared,
) -> mlua::Result<(bool, i32, i32)> {
    at_most(lua, arguments, 3)?;
    if let Some(convert) = switch(lua, arguments)? {
        settings.change(|all| all.sparse_convert = convert);
    }
    if let Some(ratio) = ranged(lua, arguments, 2, 0, i32::MAX)? {
        settings.change(|all| all.sparse_ratio = ratio);
    }
    if let Some(safe) = ranged(lua, arguments, 3, 0, i32::MAX)? {
        settings.change(|all| all.sparse_safe = safe);
    }
    let all = settings.read();
    Ok((all.sparse_convert, all.sparse_ratio, all.sparse_safe))
}

fn integer(
    lua: &Lua,
    arguments: &[Value],
    settings: &Shared,
    min: i32,
    max: i32,
    field: fn(&mut Settings) -> &mut i32,
) -> mlua::Result<Value> {
    at_most(lua, arguments, 1)?;
    let given = ranged(lua, arguments, 1, min, max)?;
    Ok(Value::Integer(i64::from(settings.change(|all| {
        let field = field(all);
        *field = given.unwrap_or(*field);
        *field
    }))))
}

fn at_most(lua: &Lua, arguments: &[Value], count: usize) -> mlua::Result<()> {
    if arguments.len() <= count {
        return Ok(());
    }
    Err(bad_argument(lua, count + 1, "found too many arguments"))
}

/// An integer that is given, within bounds. An error names the first argument whichever it is about.
fn ranged(
    lua: &Lua,
    arguments: &[Value],
    number: usize,
    min: i32,
    max: i32,
) -> mlua::Result<Option<i32>> {
    if matches!(arguments.get(number - 1), None | Some(Value::Nil)) {
        return Ok(None);
    }
    let value = int_argument(lua, arguments, number)?;
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    Err(bad_argument(lua, 1, &format!("expected integer between {min} and {max}")))
}

/// `true`, `false`, `"on"` or `"off"`, if given.
fn switch(lua: &Lua, arguments: &[Value]) -> mlua::Result<Option<bool>> {
    Ok(match arguments.first() {
        None | Some(Value::Nil) => None,
        Some(Value::Boolean(on)) => Some(*on),
        _ => Some(option(lua, arguments, &["off", "on"])? == 1),
    })
}

/// Which of the names the first argument is.
fn option(lua: &Lua, arguments: &[Value], names: &[&str]) -> mlua::Result<usize> {
    let Some(Value::String(text)) = arguments.first() else {
        return Err(wrong_type(lua, 1, "string", arguments.first()));
    };
    let text = text.as_bytes();
    names.iter().position(|name| name.as_bytes() == &*text).ok_or_else(|| {
        let text = String::from_utf8_lossy(&text);
        bad_argument(lua, 1, &format!("invalid option '{text}'"))
    })
}
