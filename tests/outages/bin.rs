//! `cargo run -p carnelian-tests --bin outages -- [--faults N] [--seed S] [--writers N] [--port P] [--longest-ms MS]`
//!
//! Kills, stops and isolates nodes of a cluster in network namespaces under load (as root), and says how long no
//! write was confirmed.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use carnelian_tests::outages::{Settings, run};

fn main() -> Result<()> {
    let mut settings = Settings::default();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--faults" => settings.faults = value.parse()?,
            "--seed" => settings.seed = value.parse()?,
            "--writers" => settings.writers = value.parse()?,
            "--port" => settings.port = value.parse()?,
            "--longest-ms" => settings.longest_ms = value.parse()?,
            _ => bail!("unknown option {name}"),
        }
    }
    print!("{}", run(&settings)?);
    Ok(())
}
