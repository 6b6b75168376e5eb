//! The `redis` table: commands, logging, replies, and what a library registers its functions with.
#![allow(clippy::needless_pass_by_value)] // Functions that Lua calls own what they are given.

use std::ops::Range;

use carnelian_resp::Protocol;
use carnelian_resp::number::{TEXT_BYTES_MAX, format_double};
use mlua::{BorrowedBytes, Lua, Table, Value, Variadic};
use sha1::{Digest, Sha1};
use smallvec::SmallVec;

use crate::error::{self, Raised};
use crate::functions;
use crate::host::{LogLevel, Slot, current};
use crate::interpreter::Kind;
use crate::raw::{command, debug};
use crate::values::{error_table, with_code};

/// The version scripts are told, as they are of the server they were written for.
const VERSION: &str = "8.0.6";
const VERSION_NUMBER: i64 = 0x0008_0006;

/// What `redis` is to scripts and functions.
pub(crate) fn redis(lua: &Lua, kind: Kind) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    constants(&table)?;
    table.raw_set("call", command::function(lua, true)?)?;
    table.raw_set("pcall", command::function(lua, false)?)?;
    table.raw_set("log", lua.create_function(log)?)?;
    table.raw_set("setresp", lua.create_function(set_protocol)?)?;
    table.raw_set("sha1hex", lua.create_function(sha1hex)?)?;
    table.raw_set("error_reply", lua.create_function(error_reply)?)?;
    table.raw_set("status_reply", lua.create_function(status_reply)?)?;
    table.raw_set("set_repl", lua.create_function(set_targets)?)?;
    table.raw_set("acl_check_cmd", lua.create_function(acl_check)?)?;
    let names = [
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_SLAVE", 2),
        ("REPL_REPLICA", 2),
        ("REPL_ALL", 3),
    ];
    for (name, bits) in names {
        table.raw_set(name, bits)?;
    }
    if kind == Kind::Scripts {
        table.raw_set("breakpoint", debug::breakpoint(lua)?)?;
        table.raw_set("debug", debug::debug(lua)?)?;
        table.raw_set("replicate_commands", lua.create_function(|_, ()| Ok(true))?)?;
    }
    Ok(table)
}

/// What `redis` is while a library is loaded.
pub(crate) fn library(lua: &Lua) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    constants(&table)?;
    table.raw_set("log", lua.create_function(log)?)?;
    table.raw_set("register_function", lua.create_function(functions::register)?)?;
    Ok(table)
}

fn constants(table: &Table) -> mlua::Result<()> {
    for (level, name) in
        ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"].iter().enumerate()
    {
        table.raw_set(*name, level)?;
    }
    table.raw_set("REDIS_VERSION", VERSION)?;
    table.raw_set("REDIS_VERSION_NUM", VERSION_NUMBER)
}

/// The words of a command: texts where Lua has them, numbers in a buffer of ours.
struct Words(SmallVec<[Word; 8]>);

enum Word {
    Text(BorrowedBytes),
    Number(Range<usize>),
}

impl Words {
    fn read(values: &[Value], numbers: &mut Vec<u8>) -> Result<Self, &'static str> {
        if values.is_empty() {
            return Err("ERR Please specify at least one argument for this redis lib call");
        }
        numbers.clear();
        let mut words = SmallVec::with_capacity(values.len());
        for value in values {
            words.push(match value {
                Value::String(text) => Word::Text(text.as_bytes()),
                Value::Integer(number) => {
                    let start = numbers.len();
                    numbers.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
                    Word::Number(start..numbers.len())
                }
                Value::Number(number) => {
                    let start = numbers.len();
                    let mut text = [0; TEXT_BYTES_MAX];
                    numbers.extend_from_slice(number_text(*number, &mut text));
                    Word::Number(start..numbers.len())
                }
                _ => {
                    return Err("ERR Lua redis lib command arguments must be strings or integers");
                }
            });
        }
        Ok(Self(words))
    }

    fn slices<'a>(&'a self, numbers: &'a [u8]) -> SmallVec<[&'a [u8]; 8]> {
        let words = self.0.iter().map(|word| match word {
            Word::Text(text) => &**text,
            Word::Number(range) => &numbers[range.clone()],
        });
        words.collect()
    }
}

pub(crate) fn number_text(number: f64, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    // Redis turns -0 into the integer that it equals.
    if number == 0.0 { b"0" } else { format_double(number, text) }
}

/// The bytes of what Lua's C API takes for a text: a text, or a number in its own notation.
fn text_of(lua: &Lua, value: &Value) -> mlua::Result<Option<Vec<u8>>> {
    Ok(match value {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Integer(_) | Value::Number(_) => {
            lua.coerce_string(value.clone())?.map(|text| text.as_bytes().to_vec())
        }
        _ => None,
    })
}

fn number_of(lua: &Lua, value: &Value) -> mlua::Result<Option<f64>> {
    match value {
        Value::Integer(_) | Value::Number(_) | Value::String(_) => lua.coerce_number(value.clone()),
        _ => Ok(None),
    }
}

fn log(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<()> {
    if arguments.len() < 2 {
        return Err(Raised::table("ERR redis.log() requires two arguments or more."));
    }
    let Some(level) = number_of(lua, &arguments[0])? else {
        return Err(Raised::table("ERR First argument must be a number (log level)."));
    };
    let level = match level as i32 {
        0 => LogLevel::Debug,
        1 => LogLevel::Verbose,
        2 => LogLevel::Notice,
        3 => LogLevel::Warning,
        _ => return Err(Raised::table("ERR Invalid log level.")),
    };
    let mut text = Vec::new();
    for (place, argument) in arguments[1..].iter().enumerate() {
        if let Some(part) = text_of(lua, argument)? {
            if place != 0 {
                text.push(b' ');
            }
            text.extend_from_slice(&part);
        }
    }
    current(|slot| slot.host.log(level, &text));
    Ok(())
}

fn set_protocol(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<()> {
    let [version] = arguments.as_slice() else {
        return Err(Raised::table("ERR redis.setresp() requires one argument."));
    };
    let version = number_of(lua, version)?.unwrap_or(0.0) as i64;
    let Some(protocol) = Protocol::from_version(version) else {
        return Err(Raised::table("ERR RESP version must be 2 or 3."));
    };
    current(|slot| slot.run.protocol = protocol);
    Ok(())
}

fn sha1hex(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Value> {
    let [text] = arguments.as_slice() else {
        return Err(Raised::table("ERR wrong number of arguments"));
    };
    let text = text_of(lua, text)?.unwrap_or_default();
    Ok(Value::String(lua.create_string(hex_digest(&text))?))
}

/// The SHA-1 of a text in lower-case hexadecimal digits.
pub(crate) fn hex_digest(text: &[u8]) -> [u8; 40] {
    let mut digits = [0; 40];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(Sha1::digest(text)) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
    digits
}

const fn hex_digit(value: u8) -> u8 {
    b"0123456789abcdef"[value as usize]
}

const WRONG_REPLY_ARGUMENTS: &str = "ERR wrong number or type of arguments";

fn error_reply(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Table> {
    let [Value::String(text)] = arguments.as_slice() else {
        error::note(WRONG_REPLY_ARGUMENTS.as_bytes());
        return error_table(lua, WRONG_REPLY_ARGUMENTS.as_bytes(), false);
    };
    let text = text.as_bytes();
    // Redis takes it for a C string.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = if text.starts_with(b"-") { text.to_vec() } else { [b"-", text].concat() };
    let text = with_code(&text);
    error::note(&text);
    error_table(lua, &text, false)
}

fn status_reply(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<Table> {
    let [Value::String(text)] = arguments.as_slice() else {
        error::note(WRONG_REPLY_ARGUMENTS.as_bytes());
        return error_table(lua, WRONG_REPLY_ARGUMENTS.as_bytes(), false);
    };
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set("ok", text)?;
    Ok(table)
}

fn set_targets(lua: &Lua, arguments: Variadic<Value>) -> mlua::Result<()> {
    let [targets] = arguments.as_slice() else {
        return Err(Raised::table("ERR redis.set_repl() requires one argument."));
    };
    let targets = number_of(lua, targets)?.unwrap_or(0.0) as i32;
    match u8::try_from(targets) {
        Ok(targets @ 0..=3) => {
            current(|slot| slot.host.set_repl(targets));
            Ok(())
        }
        _ => Err(Raised::table(
            "ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.",
        )),
    }
}

fn acl_check(_: &Lua, words: Variadic<Value>) -> mlua::Result<bool> {
    let allowed = current(|Slot { host, run }| {
        let words = Words::read(&words, &mut run.numbers).map_err(Raised::table)?;
        host.acl_check(&words.slices(&run.numbers))
            .ok_or_else(|| Raised::table("ERR Invalid command passed to redis.acl_check_cmd()"))
    });
    allowed.unwrap_or(Ok(false))
}
