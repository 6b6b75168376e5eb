//! The servers that are compared, and how each is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use carnelian_tests::certificates::Authority;
use carnelian_tests::server::Certificates;
use carnelian_tests::{Client, Server};
use tempfile::TempDir;

use crate::cpu;
use crate::options::Options;

/// All that the measurements share.
pub struct Bench<'a> {
    pub options: &'a Options,
    /// Ours first, then the peers.
    pub candidates: Vec<Candidate>,
    pub client: PathBuf,
    p256: Certificates,
    rsa: Certificates,
    _folder: TempDir,
}

/// A server program.
pub struct Candidate {
    pub name: String,
    pub version: String,
    program: PathBuf,
}

/// What a server is started with.
#[derive(Clone, Copy)]
pub struct Setup {
    pub threads: usize,
    /// On the server's core alone, or wherever the kernel likes.
    pub pinned: bool,
    pub rsa: bool,
}

impl Setup {
    pub const USUAL: Self = Self { threads: 1, pinned: true, rsa: false };
}

impl<'a> Bench<'a> {
    pub fn new(options: &'a Options) -> Result<Self> {
        let folder = TempDir::with_prefix("carnelian-compare-")?;
        let authority = Authority::new(folder.path(), "bench-ca");
        let certificates =
            |server| Certificates { authority: authority.certificate.clone(), server };
        let p256 = certificates(authority.server("p256"));
        let rsa = certificates(authority.rsa_server("rsa"));
        let mut candidates = vec![Candidate::new("ours", &options.ours)?];
        for (name, program) in &options.peers {
            candidates.push(Candidate::new(name, program)?);
        }
        let client = options.client.clone();
        Ok(Self { options, candidates, client, p256, rsa, _folder: folder })
    }

    /// One server of each candidate.
    pub fn start_all(&self, setup: Setup) -> Vec<Server> {
        self.candidates.iter().map(|candidate| self.start(candidate, setup)).collect()
    }

    pub fn start(&self, candidate: &Candidate, setup: Setup) -> Server {
        self.start_with(candidate, setup, &[])
    }

    /// The same with further arguments.
    pub fn start_with(&self, candidate: &Candidate, setup: Setup, args: &[&str]) -> Server {
        let cores = if setup.pinned { cpu::SERVER_CORE } else { "0,1" };
        let threads = setup.threads.to_string();
        Server::starter_of(&candidate.program)
            .through(&["taskset", "-c", cores])
            .certificates(if setup.rsa { &self.rsa } else { &self.p256 })
            .args(&["--io-threads", &threads, "--appendonly", "no", "--loglevel", "warning"])
            .args(args)
            .start()
    }

    pub fn heading(&self) -> String {
        let mut text = format!("{}; ", cpu::machine());
        let versions: Vec<String> = self
            .candidates
            .iter()
            .map(|candidate| format!("{} = {}", candidate.name, candidate.version))
            .collect();
        text.push_str(&versions.join(", "));
        let client = self.client.file_name().unwrap_or_default().to_string_lossy();
        text.push_str(&format!(
            ".\nServer on one core with one thread, {client} with 50 connections on another; each \
             workload ran on the servers in turn, {} rounds of {} s, medians. Ratios are ours ÷ the \
             better peer.",
            self.options.rounds, self.options.seconds
        ));
        text
    }

    pub fn peer_names(&self) -> impl Iterator<Item = &str> {
        self.candidates.iter().skip(1).map(|candidate| candidate.name.as_str())
    }
}

impl Candidate {
    fn new(name: &str, program: &Path) -> Result<Self> {
        let output = Command::new(program)
            .arg("--version")
            .output()
            .with_context(|| format!("starting {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
        let product = text.split_whitespace().next().unwrap_or("unknown");
        let version = format!("{product} {}", number.unwrap_or("?"));
        Ok(Self { name: name.to_owned(), version, program: program.to_owned() })
    }
}

/// `used_memory` as the server counts it.
pub fn used_memory(client: &mut Client) -> Result<u64> {
    let info = client.call("INFO memory").text();
    let value = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(value.context("INFO has no used_memory")?.parse()?)
}
