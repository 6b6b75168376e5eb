//! Measures this server beside others: the same workload on each in turn, several rounds, one table.
//!
//! ```text
//! cargo run --release -p carnelian-benches --bin compare -- --ours target/release/carnelian-server \
//!     --peer redis=PATH --peer valkey=PATH --client PATH/valkey-benchmark [--quick] [--rounds 5] \
//!     [--seconds 1] [--only 'GET|memory'] [--keys 100000,5000000] [--markdown OUT]
//! ```
//!
//! What is compared is the server's processor time per operation: on a busy or virtual machine it says
//! more than throughput, which is printed beside it. Server and client have a core each.
#![forbid(unsafe_code)]

mod cpu;
mod exchanges;
mod load;
mod memory;
mod options;
mod replication;
mod servers;
mod stall;
mod table;
mod throughput;
mod tls;

use anyhow::Result;

use crate::options::Options;
use crate::servers::Bench;
use crate::table::Report;

fn main() -> Result<()> {
    let options = Options::from_args(std::env::args().skip(1))?;
    cpu::allow_many_files();
    let bench = Bench::new(&options)?;
    let mut report = Report::new(bench.heading());
    throughput::run(&bench, &mut report)?;
    exchanges::run(&bench, &mut report)?;
    tls::handshakes(&bench, &mut report)?;
    throughput::two_reactors(&bench, &mut report)?;
    memory::run(&bench, &mut report)?;
    tls::idle_connections(&bench, &mut report)?;
    stall::run(&bench, &mut report)?;
    replication::run(&bench, &mut report)?;
    let markdown = report.markdown();
    match &options.markdown {
        Some(path) => std::fs::write(path, &markdown)?,
        None => println!("{markdown}"),
    }
    Ok(())
}
