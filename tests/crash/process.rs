//! The server that is killed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Mode, Settings};
use crate::client::Client;
use crate::reply::Reply;
use crate::server::free_port;
use crate::server::program_is_carnelian;
use crate::transport::Transport;

/// Whether a program is ours, and so must not end by itself, nor leave anything behind.
pub fn is_carnelian(program: &Path) -> bool {
    program_is_carnelian(program)
}

pub struct Process {
    child: Child,
    port: u16,
    log: PathBuf,
    /// For what is asked beside the load.
    client: Option<Client>,
}

impl Process {
    /// Starts a server on what a folder has, and waits until it has loaded it.
    pub fn start(settings: &Settings, folder: &Path) -> Result<Self> {
        let port = free_port();
        let path = folder.join("server.log");
        let log = File::create(&path)?;
        let mut command = Command::new(&settings.program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
        command.args(["--daemonize", "no", "--save", ""]);
        match settings.mode {
            Mode::Snapshot => command.args(["--appendonly", "no"]),
            Mode::Always => command.args(["--appendonly", "yes", "--appendfsync", "always"]),
            Mode::EverySecond => command.args(["--appendonly", "yes", "--appendfsync", "everysec"]),
        };
        command.args(["--auto-aof-rewrite-min-size", "2mb"]).args(&settings.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().context("the server's program cannot be started")?;
        let mut process = Self { child, port, log: path, client: None };
        process.wait_until_loaded().with_context(|| format!("no start:\n{}", process.log()))?;
        Ok(process)
    }

    fn wait_until_loaded(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server has ended: {status}");
            }
            if let Ok(transport) = Transport::tcp(self.port) {
                let mut client = Client::over(transport);
                client.try_send(b"PING\r\n")?;
                if client.try_read().is_ok_and(|reply| reply == Reply::Status(b"PONG".to_vec())) {
                    self.client = Some(client);
                    return Ok(());
                }
            }
            if deadline < Instant::now() {
                bail!("the server is not ready in time");
            }
            sleep(Duration::from_millis(2));
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn call(&mut self, command: &str) -> Result<Reply> {
        let client = self.client.as_mut().expect("connected at the start");
        client.try_send(format!("{command}\r\n").as_bytes())?;
        client.try_read()
    }

    /// Waits until a write is refused. Those of the load may all be waiting for a disk that has room.
    pub fn wait_for_refusal(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut client = Client::over(Transport::tcp(self.port)?);
            client.try_send(b"DEL no-such-key\r\n")?;
            let reply = client.read_within(Duration::from_millis(500));
            if reply.is_some_and(|reply| reply.is_error() && reply.text().starts_with("MISCONF ")) {
                return Ok(());
            }
            if deadline < Instant::now() || !self.is_running() {
                bail!("no write is refused");
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The end of what it said.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = bytes.len().saturating_sub(3000);
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
