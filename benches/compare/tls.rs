//! What TLS costs beyond records: new connections, and idle ones.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use carnelian_tests::Server;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::cpu;
use crate::servers::{Bench, Candidate, Setup, used_memory};
use crate::table::{
    Report, Verdict, columns, median, ratio_where_less_is_better, ratio_where_more_is_better,
};

/// New TLS 1.3 connections, each with one PING, without resumption.
pub fn handshakes(bench: &Bench, report: &mut Report) -> Result<()> {
    report.table(
        "Server CPU µs per new TLS 1.3 connection with one PING",
        columns(
            &["certificate, key exchange", "ours"],
            bench.peer_names(),
            &["CPU ratio", "target", "met", "throughput ratio", "p99 ratio"],
        ),
    );
    let rows = [
        ("handshake, P-256, X25519", false, false, Some(0.50)),
        ("handshake, RSA-2048, X25519", true, false, Some(0.75)),
        ("handshake, P-256, X25519MLKEM768", false, true, None),
    ];
    for (name, rsa, post_quantum, target) in rows {
        let left_out = bench.options.quick && post_quantum;
        if left_out || !bench.options.wants(name) {
            continue;
        }
        cpu::stay_on(cpu::CLIENT_CORE);
        report.row_or_reason(name, handshake_cells(bench, name, rsa, post_quantum, target));
    }
    Ok(())
}

fn handshake_cells(
    bench: &Bench,
    name: &str,
    rsa: bool,
    post_quantum: bool,
    target: Option<f64>,
) -> Result<Vec<String>> {
    let servers = bench.start_all(Setup { rsa, ..Setup::USUAL });
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..=bench.options.rounds {
        for turn in 0..servers.len() {
            let index = (turn + round) % servers.len();
            let sample = connect_for(&servers[index], post_quantum, bench.options.seconds)?;
            // The first round warms up.
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    let each = |field: usize| -> Vec<Vec<f64>> {
        samples.iter().map(|rounds| rounds.iter().map(|sample| sample[field]).collect()).collect()
    };
    let cpu = each(0);
    let verdict = Verdict { ratio: ratio_where_less_is_better(&cpu), target };
    let mut cells = vec![name.to_owned()];
    cells.extend(cpu.iter().map(|rounds| format!("{:.0}", median(rounds.iter().copied()))));
    cells.extend(verdict.cells());
    cells.push(format!("{:.2}", ratio_where_more_is_better(&each(1))));
    cells.push(format!("{:.2}", ratio_where_less_is_better(&each(2))));
    Ok(cells)
}

/// CPU µs per connection, connections per second, and p99 of a connection in ms.
fn connect_for(server: &Server, post_quantum: bool, seconds: f64) -> Result<[f64; 3]> {
    let config = client_config(server, post_quantum)?;
    let before = cpu::time_ns(server.pid())?;
    let start = Instant::now();
    let mut times_ms = Vec::new();
    while start.elapsed().as_secs_f64() < seconds {
        let one = Instant::now();
        let mut stream = connect(server, &config)?;
        stream.conn.send_close_notify();
        stream.flush()?;
        times_ms.push(one.elapsed().as_secs_f64() * 1000.0);
    }
    let elapsed = start.elapsed().as_secs_f64();
    sleep(Duration::from_millis(20));
    let spent_us = (cpu::time_ns(server.pid())? - before) as f64 / 1000.0;
    let count = times_ms.len() as f64;
    times_ms.sort_by(f64::total_cmp);
    let p99 = times_ms[times_ms.len() * 99 / 100];
    Ok([spent_us / count, count / elapsed, p99])
}

fn client_config(server: &Server, post_quantum: bool) -> Result<Arc<ClientConfig>> {
    let mut provider: CryptoProvider = aws_lc_rs::default_provider();
    provider.kx_groups = match post_quantum {
        true => vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        false => vec![aws_lc_rs::kx_group::X25519],
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(server.ca())? {
        roots.add(certificate?)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection on which a PING was answered.
fn connect(server: &Server, config: &Arc<ClientConfig>) -> Result<Stream> {
    let socket = TcpStream::connect(("127.0.0.1", server.tls_port()))?;
    socket.set_nodelay(true)?;
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("127.0.0.1")?)?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"PING\r\n")?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply)?;
    ensure!(&reply == b"+PONG\r\n", "PING answered {}", reply.escape_ascii());
    Ok(stream)
}

const IDLE_KIB_MAX: f64 = 12.0;

/// Memory that a TLS connection holds while nothing happens on it.
pub fn idle_connections(bench: &Bench, report: &mut Report) -> Result<()> {
    let count = if bench.options.quick { 500 } else { 2000 };
    report.table(
        &format!("KiB per idle TLS connection, {count} of them after a PING"),
        ["server", "resident", "in used_memory", "target", "met"].map(str::to_owned).to_vec(),
    );
    if !bench.options.wants("idle TLS connections") {
        return Ok(());
    }
    for candidate in &bench.candidates {
        report.row_or_reason(&candidate.name, idle_cells(bench, candidate, count));
    }
    Ok(())
}

fn idle_cells(bench: &Bench, candidate: &Candidate, count: u32) -> Result<Vec<String>> {
    let server = bench.start(candidate, Setup::USUAL);
    let config = client_config(&server, false)?;
    let mut control = server.connect();
    // The first connections pay for what is set up once.
    let first: Vec<Stream> = (0..50).map(|_| connect(&server, &config)).collect::<Result<_>>()?;
    drop(first);
    sleep(Duration::from_millis(1500));
    let resident = cpu::resident_bytes(server.pid())?;
    let used = used_memory(&mut control)?;
    let streams: Vec<Stream> =
        (0..count).map(|_| connect(&server, &config)).collect::<Result<_>>()?;
    // Peers give back the buffers of idle clients in their own time.
    sleep(Duration::from_secs(4));
    let kib =
        |after: u64, before: u64| after.saturating_sub(before) as f64 / 1024.0 / f64::from(count);
    let resident = kib(cpu::resident_bytes(server.pid())?, resident);
    let used = kib(used_memory(&mut control)?, used);
    drop(streams);
    let mut cells = vec![candidate.name.clone(), format!("{resident:.1}"), format!("{used:.1}")];
    if candidate.name == "ours" {
        // All that is resident has to be counted; a tenth may be the allocator's rounding.
        let met = resident <= IDLE_KIB_MAX && resident * 0.9 <= used;
        let target = format!("≤ {IDLE_KIB_MAX:.0}, all in used_memory");
        cells.extend([target, if met { "yes".into() } else { "**no**".into() }]);
    } else {
        cells.extend(["–".into(), "–".into()]);
    }
    Ok(cells)
}
