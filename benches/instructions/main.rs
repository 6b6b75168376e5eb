//! What a request costs in instructions: of the reactor's thread, from the event to the reply.
//!
//! Seconds are noise on a shared machine, and instructions are not: a change of one in a hundred shows.
//! What they leave out is what the kernel does and what memory costs; for that there is `compare`.
//!
//!     instructions --count                  counts everything under valgrind, and prints the table
//!     instructions --check FILE             the same, beside the figures of an earlier table
//!     instructions COMMAND BATCH ROUNDS     runs one workload, to be looked at by a profiler
//!
//! Figures belong to a release build, and hold for one kind of machine: the C library and the
//! libraries for text choose other instructions where the processor has others.

#![forbid(unsafe_code)]

mod count;
mod server;
mod table;
mod workload;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use count::count_all;
use table::Table;

const USAGE: &str = "usage: instructions --count | --check FILE | COMMAND BATCH ROUNDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<()> {
    match *arguments {
        ["--count"] => print!("{}", count_all()?),
        ["--check", file] => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("Can't read {file}"))?;
            let before = Table::parse(&text).with_context(|| format!("Can't make out {file}"))?;
            print!("{}", count_all()?.beside(&before));
        }
        [command, batch, rounds] => {
            let workload = workload::find(command).context("There is no such workload")?;
            let batch = batch.parse().context(USAGE)?;
            let rounds = rounds.parse().context(USAGE)?;
            server::serve(|stream| workload.run(stream, batch, rounds))?;
        }
        _ => bail!(USAGE),
    }
    Ok(())
}
