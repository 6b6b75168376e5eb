//! Errors that functions written in Rust raise in scripts, and where in a script they happened.

use mlua::{Lua, Value};

use crate::host::current;

/// The name of the chunk that is ours; its frames are left out when a place is looked for.
pub(crate) const PRELUDE: &str = "=prelude";

/// An error on its way through Lua. Scripts see it as a text or a table: see [`repair`].
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Raised {
    /// A table with `err`, as commands and the `redis` API raise it.
    #[error("{}", String::from_utf8_lossy(text))]
    Table {
        text: Vec<u8>,
        /// Whether the statistics of errors have it already.
        counted: bool,
    },
    #[error("{}", String::from_utf8_lossy(.0))]
    Text(Vec<u8>),
}

impl Raised {
    pub(crate) fn table(text: impl Into<Vec<u8>>) -> mlua::Error {
        let text = text.into();
        note(&text);
        mlua::Error::external(Self::Table { text, counted: false })
    }
}

/// A debugger that steps tells of each error.
pub(crate) fn note(text: &[u8]) {
    current(|slot| {
        if let Some(debugger) = &mut slot.run.debugger
            && debugger.steps
        {
            debugger.log_error(text);
        }
    });
}

/// An error with the script's file and line in front, as `luaL_error` makes it.
pub(crate) fn located(lua: &Lua, text: impl AsRef<[u8]>) -> mlua::Error {
    let mut whole = position(lua, 1);
    whole.extend_from_slice(text.as_ref());
    mlua::Error::external(Raised::Text(whole))
}

/// `bad argument #1 to 'encode' (…)`, by the name under which the script called the function.
pub(crate) fn bad_argument(lua: &Lua, number: usize, problem: &str) -> mlua::Error {
    let name = lua.inspect_stack(0, |frame| frame.names().name.map(|name| name.into_owned()));
    let name = name.flatten().unwrap_or_else(|| "?".to_owned());
    located(lua, format!("bad argument #{number} to '{name}' ({problem})"))
}

/// The same where the type is what is wrong.
pub(crate) fn wrong_type(
    lua: &Lua,
    number: usize,
    expected: &str,
    given: Option<&Value>,
) -> mlua::Error {
    let given = given.map_or("no value", type_name);
    bad_argument(lua, number, &format!("{expected} expected, got {given}"))
}

/// What `type` calls it.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Boolean(_) => "boolean",
        Value::Integer(_) | Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Table(_) => "table",
        Value::Function(_) => "function",
        Value::Thread(_) => "thread",
        _ => "userdata",
    }
}

/// `user_script:3: `, or nothing if that frame is not Lua's.
fn position(lua: &Lua, level: usize) -> Vec<u8> {
    let found = lua.inspect_stack(level, |frame| {
        let line = frame.current_line()?;
        Some(format!("{}:{line}: ", frame.source().short_src?))
    });
    found.flatten().unwrap_or_default().into_bytes()
}

/// Where an error comes from that reached the handler of the prelude: its chunk and line.
pub(crate) fn place(lua: &Lua) -> Option<(String, i64)> {
    // 0 is the function that asks, 1 the handler.
    let mut level = 2;
    loop {
        let found = lua.inspect_stack(level, |frame| {
            let source = frame.source();
            let text = source.source.as_deref().unwrap_or_default();
            let ours = text == PRELUDE || matches!(source.what, "C" | "tail");
            (!ours).then(|| {
                let line = frame.current_line();
                (text.to_owned(), line.map_or(-1, |line| line as i64))
            })
        })?;
        if found.is_some() {
            return found;
        }
        level += 1;
    }
}

/// What a script sees of an error that came from Rust: a table or a text.
pub(crate) fn repair(lua: &Lua, value: Value) -> mlua::Result<Value> {
    let Value::Error(error) = value else { return Ok(value) };
    let text = match error.downcast_ref::<Raised>() {
        Some(Raised::Table { text, counted }) => {
            let table = lua.create_table()?;
            table.raw_set("err", lua.create_string(text)?)?;
            if *counted {
                table.raw_set("ignore_error_stats_update", true)?;
            }
            return Ok(Value::Table(table));
        }
        Some(Raised::Text(text)) => text.clone(),
        None => innermost(&error).into_bytes(),
    };
    Ok(Value::String(lua.create_string(text)?))
}

fn innermost(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { cause, .. }
        | mlua::Error::WithContext { cause, .. }
        | mlua::Error::BadArgument { cause, .. } => innermost(cause),
        mlua::Error::MemoryError(_) => "not enough memory".to_owned(),
        mlua::Error::RuntimeError(text) | mlua::Error::SyntaxError { message: text, .. } => {
            text.clone()
        }
        other => other.to_string(),
    }
}

/// The text of an error that ended a run outside of the script's own code.
pub(crate) fn describe(error: &mlua::Error) -> Vec<u8> {
    match error.downcast_ref::<Raised>() {
        Some(Raised::Table { text, .. } | Raised::Text(text)) => text.clone(),
        None => innermost(error).into_bytes(),
    }
}
