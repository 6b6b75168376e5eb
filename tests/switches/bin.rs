//! `cargo run -p carnelian-tests --bin switches -- [--switches N] [--seconds S] [--rotate-seconds S]
//! [--writers N] [--seed S]`
//!
//! Three nodes under write load: encryption between them is switched on and off, and their certificates are
//! replaced, again and again. Says whether anything was lost, and who was disconnected.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail};
use carnelian_tests::switches::{Settings, run};

fn main() -> Result<()> {
    let mut settings = Settings::default();
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--switches" => settings.switches = value.parse()?,
            "--seconds" => settings.seconds = value.parse()?,
            "--rotate-seconds" => settings.rotate_seconds = value.parse()?,
            "--writers" => settings.writers = value.parse()?,
            "--seed" => settings.seed = value.parse()?,
            _ => bail!("unknown option {name}"),
        }
    }
    eprintln!("{settings:?}");
    println!("{}", run(&settings)?);
    Ok(())
}
