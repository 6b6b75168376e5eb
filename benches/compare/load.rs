//! Load: the given benchmark client for operations per second, a fast loader of our own for data.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use carnelian_tests::Server;
use carnelian_tests::client::encode;

use crate::cpu;

/// What the benchmark client is asked to do.
#[derive(Clone)]
pub struct Workload {
    /// `-t get`, or the words of a command.
    pub command: Vec<String>,
    pub pipeline: usize,
    /// How many different keys (or members) are used.
    pub keys: u64,
    pub tls: bool,
    /// On its own core, or wherever the kernel likes with two threads.
    pub pinned: bool,
}

/// One run of one workload on one server.
#[derive(Clone, Copy)]
pub struct Sample {
    pub cpu_us: f64,
    pub per_second: f64,
    pub p99_ms: f64,
}

/// Runs a workload for a number of requests.
pub fn run(client: &Path, server: &Server, workload: &Workload, requests: u64) -> Result<Sample> {
    let mut command = Command::new("taskset");
    command.args(["-c", if workload.pinned { cpu::CLIENT_CORE } else { "0,1" }]).arg(client);
    let port = if workload.tls { server.tls_port() } else { server.port() };
    command.args(["-c", "50", "-d", "64", "--csv", "--precision", "3"]);
    command.args(["-p", &port.to_string(), "-n", &requests.to_string()]);
    command.args(["-r", &workload.keys.to_string(), "-P", &workload.pipeline.to_string()]);
    if workload.tls {
        command.arg("--tls").arg("--cacert").arg(server.ca());
    }
    if !workload.pinned {
        command.args(["--threads", "2"]);
    }
    command.args(&workload.command);
    let before = cpu::time_ns(server.pid())?;
    let output = command.output().context("starting the benchmark client")?;
    let spent = cpu::time_ns(server.pid())? - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    let fields: Vec<&str> = line.split("\",\"").map(|field| field.trim_matches('"')).collect();
    ensure!(
        output.status.success() && fields.len() == 8,
        "the benchmark client failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(Sample {
        cpu_us: spent as f64 / 1000.0 / requests as f64,
        per_second: fields[1].parse()?,
        p99_ms: fields[6].parse()?,
    })
}

/// Sends `count` commands in batches as fast as the server takes them. A reply has `lines` lines.
pub fn fill(
    server: &Server,
    count: u64,
    lines: usize,
    mut command: impl FnMut(u64, &mut Vec<u8>),
) -> Result<()> {
    const BATCH: u64 = 256;
    let mut socket = TcpStream::connect(("127.0.0.1", server.port()))?;
    socket.set_nodelay(true)?;
    let mut frames = Vec::new();
    let mut received = 0;
    let mut sent = 0;
    while sent < count {
        frames.clear();
        let end = count.min(sent + BATCH);
        for number in sent..end {
            command(number, &mut frames);
        }
        socket.write_all(&frames)?;
        // One batch is under way while the next is put together.
        receive(&mut socket, &mut received, lines * sent as usize)?;
        sent = end;
    }
    receive(&mut socket, &mut received, lines * sent as usize)
}

/// Reads until so many lines have come in all.
fn receive(socket: &mut TcpStream, received: &mut usize, until: usize) -> Result<()> {
    let mut chunk = [0; 16 * 1024];
    while *received < until {
        let length = socket.read(&mut chunk)?;
        ensure!(length > 0, "the server closed while it was filled");
        let bytes = &chunk[..length];
        let end = bytes.iter().position(|byte| *byte == b'\r').unwrap_or(length);
        ensure!(bytes[0] != b'-', "refused: {}", bytes[..end].escape_ascii());
        *received += bytes.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(())
}

/// Keys as the benchmark client names them, with values of 64 bytes.
pub fn fill_benchmark_keys(server: &Server, count: u64) -> Result<()> {
    let value = "x".repeat(64);
    fill(server, count, 1, |number, frames| {
        encode(&["SET", &format!("key:{number:012}"), &value], frames);
    })
}
