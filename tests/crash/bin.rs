//! `cargo run -p carnelian-tests --bin crash -- [--mode always|everysec|snapshot] [--rounds N]
//! [--seed S] [--connections N] [--torn] [--full-disk] [--allow-ms MS] [--load-ms MS] [--server PROGRAM]
//! [-- ARGUMENT OF THE SERVER ...]`
//!
//! Kills the server again and again, and says whether it kept what it had to.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use carnelian_tests::crash::{Mode, Settings, run};
use carnelian_tests::server::program;

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    eprintln!("{:?}, {} rounds, seed {}", settings.mode, settings.rounds, settings.seed);
    let summary = run(&settings)?;
    println!(
        "{} rounds: {} writes acknowledged, {} refused, {} lost as it may be (the oldest {} ms before \
        the kill), {} snapshots or rewrites, {} exits",
        summary.rounds,
        summary.acknowledged,
        summary.refused,
        summary.lost,
        summary.oldest_lost.as_millis(),
        summary.jobs,
        summary.exits,
    );
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings::new(Default::default(), Mode::Always);
    while let Some(name) = args.next() {
        let mut value = || args.next().with_context(|| format!("{name} needs a value"));
        match name.as_str() {
            "--mode" => {
                settings.mode = match value()?.as_str() {
                    "always" => Mode::Always,
                    "everysec" => Mode::EverySecond,
                    "snapshot" => Mode::Snapshot,
                    other => bail!("unknown mode {other}: always, everysec or snapshot"),
                }
            }
            "--rounds" => settings.rounds = value()?.parse()?,
            "--seed" => settings.seed = value()?.parse()?,
            "--connections" => settings.connections = value()?.parse()?,
            "--allow-ms" => settings.allowed_ms = value()?.parse()?,
            "--load-ms" => settings.load_ms_max = value()?.parse()?,
            "--torn" => settings.torn = true,
            "--full-disk" => settings.full_disk = true,
            "--server" => settings.program = value()?.into(),
            "--" => settings.arguments = args.by_ref().collect(),
            _ => bail!("unknown option {name}"),
        }
    }
    if settings.torn && settings.mode == Mode::Snapshot {
        bail!("--torn is about append-only files");
    }
    if settings.program.as_os_str().is_empty() {
        settings.program = program().to_owned();
    }
    Ok(settings)
}
