//! `math.random`, over a generator of our own.

use mlua::{Lua, Value};

use super::int_argument;
use crate::error::{bad_argument, located};

/// What `math.random` answers for a fraction that was drawn.
pub(crate) fn random(lua: &Lua, arguments: &[Value], fraction: f64) -> mlua::Result<f64> {
    match arguments {
        [] => Ok(fraction),
        [_] => {
            let upper = int_argument(lua, arguments, 1)?;
            if upper < 1 {
                return Err(bad_argument(lua, 1, "interval is empty"));
            }
            Ok((fraction * f64::from(upper)).floor() + 1.0)
        }
        [_, _] => {
            let lower = int_argument(lua, arguments, 1)?;
            let upper = int_argument(lua, arguments, 2)?;
            if upper < lower {
                return Err(bad_argument(lua, 2, "interval is empty"));
            }
            // As a C `int` would.
            let count = upper.wrapping_sub(lower).wrapping_add(1);
            Ok((fraction * f64::from(count)).floor() + f64::from(lower))
        }
        _ => Err(located(lua, "wrong number of arguments")),
    }
}
