//! The server from outside, by behaviour. Scripts run over RESP2 and RESP3, TCP and TLS alike.
#![forbid(unsafe_code)]

mod protocol;
mod same_port;
mod strings;
