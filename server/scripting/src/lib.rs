//! Lua 5.1 as Redis has it: EVAL's script cache, libraries of functions, the `redis` API, and the
//! sandbox that all of it runs in.
//!
//! Nothing here knows sockets, sessions or locks. A script reaches the server through a [`Host`],
//! which runs one command and appends its reply; the host lives no longer than the call it is for.
#![deny(unsafe_code)] // But in `raw`.

mod api;
mod debugger;
mod engine;
mod error;
mod flags;
mod functions;
mod host;
mod interpreter;
mod library;
mod pattern;
mod payload;
mod random;
mod raw;
mod reply;
mod scripts;
mod shebang;
#[cfg(test)]
mod tests;
mod values;

pub use engine::{Engine, Limits, Outcome, Run};
pub use flags::Flags;
pub use functions::{FunctionHandle, FunctionInfo, LibraryInfo, Loading, Restore};
pub use host::{Asked, Console, Host, LogLevel, Tick};
pub use payload::decode as decode_payload;
pub use scripts::{ScriptHandle, Sha};
pub use shebang::script_flags;
