//! `cargo run -p carnelian-tests --bin differential -- --a HOST:PORT --b HOST:PORT [--commands N]
//! [--seed S] [--groups string,hash,...] [--differences N] [--without NAMES]
//! [--no-encodings] [--common-only] [--loosely]`
//!
//! Both servers are emptied again and again: give it none with data of value.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use carnelian_tests::differential::{GROUPS, Settings, run};

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let summary = run(&settings)?;
    println!(
        "{} commands with seed {}: {} error replies, {} differences of {} kinds, {} overlooked",
        summary.commands,
        settings.seed,
        summary.errors,
        summary.differences,
        summary.reports.len(),
        summary.overlooked
    );
    if summary.differences > 0 {
        std::process::exit(1);
    }
    Ok(())
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings {
        a: String::new(),
        b: String::new(),
        commands: 100_000,
        seed: fastrand::u64(..),
        groups: Vec::new(),
        differences_max: 20,
        encodings: true,
        common_only: false,
        loosely: false,
        without: Vec::new(),
    };
    while let Some(name) = args.next() {
        let mut value = || args.next().with_context(|| format!("{name} needs a value"));
        let list = |text: String| text.split(',').map(str::to_owned).collect();
        match name.as_str() {
            "--a" => settings.a = value()?,
            "--b" => settings.b = value()?,
            "--commands" => settings.commands = value()?.parse()?,
            "--seed" => settings.seed = value()?.parse()?,
            "--groups" => settings.groups = list(value()?),
            "--differences" => settings.differences_max = value()?.parse()?,
            "--without" => settings.without = list(value()?.to_uppercase()),
            "--loosely" => settings.loosely = true,
            "--no-encodings" => settings.encodings = false,
            "--common-only" => settings.common_only = true,
            _ => bail!("unknown option {name}; groups are {}", GROUPS.join(", ")),
        }
    }
    if settings.a.is_empty() || settings.b.is_empty() {
        bail!("--a HOST:PORT and --b HOST:PORT are needed");
    }
    Ok(settings)
}
