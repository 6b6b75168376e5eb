//! RESP2, RESP3 and inline commands: reading requests in place, writing replies, decoding replies.
//!
//! - [`Parser`] finds the arguments of a command inside the connection's own buffer.
//! - [`Writer`] appends replies to the connection's output buffer in the client's protocol.
//! - [`number`] converts between numbers and their texts as strictly, and as exactly, as Redis.
//! - [`Reply`] decodes what a server sent: for tests, tools and replication.
//!
//! The crate knows nothing of commands, sockets or keys.

#![forbid(unsafe_code)]

mod double;
mod inline;
pub mod number;
pub mod parser;
pub mod reply;
pub mod writer;

pub use inline::words_of;
pub use parser::{Limits, Parser, Progress, ProtocolError, Span, second_word};
pub use reply::{Decoder, Reply, ReplyError, ReplyLimits};
pub use writer::{Mark, Protocol, Writer};
