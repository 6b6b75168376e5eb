//! `rladmin`: the cluster's command line. One command, or without one a shell with the same grammar.
//!
//! It is a client of the REST interface and nothing else: over the socket in the data folder on a node, or
//! over TLS from anywhere.

#![forbid(unsafe_code)]

mod commands;
mod connection;
mod editor;
mod grammar;
mod http;
mod shell;
mod table;
mod terminal;
mod words;

use std::process::ExitCode;

use crate::connection::Connection;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> anyhow::Result<()> {
    let (connection, command) = Connection::parse(arguments)?;
    if command.is_empty() {
        return shell::run(&connection);
    }
    commands::run(&connection, command)
}
