//! The commands, a file for each kind, and finding the right one.

mod audit;
mod cluster;
mod info;
mod node;
mod shards;
mod status;
mod tune;
mod wait;

use anyhow::bail;

use crate::connection::Connection;
use crate::grammar;
use crate::words::Words;

/// Runs one command.
pub fn run(connection: &Connection, command: Vec<String>) -> anyhow::Result<()> {
    let mut words = Words::new(command);
    let Some(name) = words.next() else { return Ok(()) };
    match name.to_ascii_lowercase().as_str() {
        "help" | "?" => {
            print!("{}", grammar::help(words.next().as_deref()));
            Ok(())
        }
        "version" => {
            println!("rladmin (Carnelian) {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        "cluster" => cluster::run(connection, words),
        "audit" => audit::run(connection, words),
        "tune" => tune::run(&connection.client()?, words),
        "info" => info::run(&connection.client()?, words),
        "status" => status::run(&connection.client()?, words),
        "node" => node::run(&connection.client()?, words),
        "migrate" => shards::migrate(&connection.client()?, words),
        "failover" => shards::fail_over(&connection.client()?, words),
        "recover" => shards::recover(&connection.client()?, words),
        "bind" => shards::bind(&connection.client()?, words),
        "placement" => shards::place(&connection.client()?, words),
        "verify" => shards::verify(&connection.client()?, words),
        _ => bail!("there is no command {name:?}; try help"),
    }
}
