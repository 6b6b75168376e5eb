//! The command line of `compare`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

pub struct Options {
    pub ours: PathBuf,
    pub peers: Vec<(String, PathBuf)>,
    pub client: PathBuf,
    pub rounds: usize,
    /// How long one run of one workload should last.
    pub seconds: f64,
    /// Parts of row names, of which one has to occur for a row to run; all rows when empty.
    pub only: Vec<String>,
    pub keys: Vec<u64>,
    pub markdown: Option<PathBuf>,
    pub quick: bool,
}

impl Options {
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            ours: PathBuf::from("target/release/carnelian-server"),
            peers: Vec::new(),
            client: PathBuf::from("valkey-benchmark"),
            rounds: 0,
            seconds: 0.0,
            only: Vec::new(),
            keys: Vec::new(),
            markdown: None,
            quick: false,
        };
        while let Some(name) = args.next() {
            let mut value = || args.next().with_context(|| format!("{name} needs a value"));
            match name.as_str() {
                "--ours" => options.ours = value()?.into(),
                "--peer" => {
                    let text = value()?;
                    let (peer, path) = text.split_once('=').context("--peer wants NAME=PATH")?;
                    options.peers.push((peer.to_owned(), path.into()));
                }
                "--client" => options.client = value()?.into(),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--only" => options.only = split(&value()?, '|'),
                "--keys" => {
                    let counts = split(&value()?, ',').into_iter().map(|text| text.parse());
                    options.keys = counts.collect::<Result<_, _>>()?;
                }
                "--markdown" => options.markdown = Some(value()?.into()),
                "--quick" => options.quick = true,
                _ => bail!("unknown option {name}"),
            }
        }
        options.fill_in_defaults();
        Ok(options)
    }

    fn fill_in_defaults(&mut self) {
        if self.rounds == 0 {
            self.rounds = if self.quick { 3 } else { 5 };
        }
        if self.seconds == 0.0 {
            self.seconds = if self.quick { 0.5 } else { 1.0 };
        }
        if self.keys.is_empty() {
            self.keys = if self.quick { vec![100_000] } else { vec![100_000, 5_000_000] };
        }
    }

    /// Whether the row of this name is to run.
    pub fn wants(&self, row: &str) -> bool {
        let row = row.to_lowercase();
        self.only.is_empty() || self.only.iter().any(|part| row.contains(&part.to_lowercase()))
    }
}

fn split(text: &str, by: char) -> Vec<String> {
    text.split(by).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// `100k`, `5M`: counts as row names have them.
pub fn short(count: u64) -> String {
    match count {
        _ if count.is_multiple_of(1_000_000) => format!("{}M", count / 1_000_000),
        _ if count.is_multiple_of(1000) => format!("{}k", count / 1000),
        _ => count.to_string(),
    }
}
