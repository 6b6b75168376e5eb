//! `cargo run -p carnelian-tests --bin faults -- [--seconds S] [--rounds N] [--seed S] [--connections N]
//! [--pause-ms MS] [--patience S] [--primary PROGRAM] [--replica PROGRAM]`
//!
//! Has links and processes fail at random under load, and says whether all had the same data after each round.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use carnelian_tests::faults::{Settings, run};
use carnelian_tests::server::program;

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    eprintln!("seed {}", settings.seed);
    let summary = run(&settings)?;
    println!(
        "{} rounds, the data were the same after each: {} writes, {} full and {} partial synchronisations",
        summary.rounds, summary.writes, summary.full, summary.partial
    );
    for (name, count) in summary.faults {
        println!("{count:>6} {name}");
    }
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings::new(Default::default());
    while let Some(name) = args.next() {
        let mut value = || args.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--seconds" => settings.seconds = value()?.parse()?,
            "--rounds" => settings.rounds = value()?.parse()?,
            "--seed" => settings.seed = value()?.parse()?,
            "--connections" => settings.connections = value()?.parse()?,
            "--pause-ms" => settings.pause_ms_max = value()?.parse()?,
            "--patience" => settings.patience_s = value()?.parse()?,
            "--primary" => settings.primary = value()?.into(),
            "--replica" => settings.replica = value()?.into(),
            _ => bail!("unknown option {name}"),
        }
    }
    for program_of in [&mut settings.primary, &mut settings.replica] {
        if program_of.as_os_str().is_empty() {
            *program_of = program().to_owned();
        }
    }
    Ok(settings)
}
