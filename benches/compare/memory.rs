//! Bytes per key or element, by shape of the data.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use carnelian_tests::Server;
use carnelian_tests::client::encode;

use crate::cpu;
use crate::load;
use crate::options::short;
use crate::servers::{Bench, Setup, used_memory};
use crate::table::{Report, Verdict, columns};

/// A way to fill a server and what to divide its memory by.
struct Shape {
    name: &'static str,
    count: u64,
    target: f64,
    /// How many lines a reply to one command has.
    lines: usize,
    command: fn(u64, &mut Vec<u8>),
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "string, 16 B key, 32 B value",
        count: 5_000_000,
        target: 0.90,
        lines: 1,
        command: |number, frames| encode(&["SET", &key(number), &value(number)], frames),
    },
    Shape {
        name: "integer",
        count: 2_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| {
            encode(&["SET", &key(number), &(1_000_000 + number).to_string()], frames);
        },
    },
    Shape {
        name: "string with TTL",
        count: 2_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| {
            encode(&["SET", &key(number), &value(number), "EX", "100000"], frames);
        },
    },
    Shape {
        name: "small hash of 5 pairs, per hash",
        count: 300_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| {
            let pair = |field: u64| (format!("field:{field}"), format!("{:012}", number * field));
            let pairs = [1, 2, 3, 4, 5].map(pair);
            let mut words = vec!["HSET".to_owned(), key(number)];
            words.extend(pairs.into_iter().flat_map(|(field, value)| [field, value]));
            encode(&words, frames);
        },
    },
    Shape {
        name: "large hash, per field",
        count: 1_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| encode(&["HSET", "h", &key(number), &value(number)], frames),
    },
    Shape {
        name: "set, per member",
        count: 1_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| encode(&["SADD", "s", &key(number)], frames),
    },
    Shape {
        name: "sorted set, per member",
        count: 1_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| {
            let score = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            encode(&["ZADD", "z", &score.to_string(), &key(number)], frames);
        },
    },
    Shape {
        name: "list, per element",
        count: 1_000_000,
        target: 1.0,
        lines: 1,
        command: |number, frames| encode(&["RPUSH", "l", &value(number)], frames),
    },
    Shape {
        name: "stream, per entry",
        count: 1_000_000,
        target: 1.0,
        lines: 2,
        command: |number, frames| {
            let id = format!("{}-{}", 1_700_000_000_000 + number, number % 3);
            encode(&["XADD", "x", &id, "a", &key(number), "b", "12345678"], frames);
        },
    },
];

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    report.table(
        "Bytes per key or element: resident (used_memory)",
        columns(&["memory by shape", "ours"], bench.peer_names(), &["ratio", "target", "met"]),
    );
    for shape in SHAPES {
        let quick = bench.options.quick;
        let name = format!("memory, {}", shape.name);
        let left_out = quick && !shape.name.starts_with("string,");
        if left_out || !bench.options.wants(&name) {
            continue;
        }
        let count = if quick { shape.count / 5 } else { shape.count };
        report.row_or_reason(&name, cells(bench, shape, &name, count));
    }
    Ok(())
}

fn cells(bench: &Bench, shape: &Shape, name: &str, count: u64) -> Result<Vec<String>> {
    let mut measured = Vec::new();
    for candidate in &bench.candidates {
        let server = bench.start(candidate, Setup::USUAL);
        measured.push(fill_and_weigh(&server, shape, count)?);
    }
    // Both the kernel's count and the server's own have to meet the target: the worse decides.
    let ratio = |field: usize| {
        let best = measured[1..].iter().map(|bytes| bytes[field]).fold(f64::NAN, f64::min);
        measured[0][field] / best
    };
    let verdict = Verdict { ratio: ratio(0).max(ratio(1)), target: Some(shape.target) };
    let mut cells = vec![format!("{name} ({})", short(count))];
    cells.extend(measured.iter().map(|[rss, used]| format!("{rss:.1} ({used:.1})")));
    cells.extend(verdict.cells());
    Ok(cells)
}

/// Bytes per item by the kernel's count and by the server's.
fn fill_and_weigh(server: &Server, shape: &Shape, count: u64) -> Result<[f64; 2]> {
    let mut control = server.connect();
    // What a connection and a first batch need once does not belong to the data.
    load::fill(server, 1000, 1, |number, frames| {
        encode(&["SET", "warm", &number.to_string()], frames);
    })?;
    let resident = cpu::resident_bytes(server.pid())?;
    let used = used_memory(&mut control)?;
    load::fill(server, count, shape.lines, shape.command)?;
    // Tables that are still being moved hold two copies.
    sleep(Duration::from_secs(2));
    let per_item = |after: u64, before: u64| after.saturating_sub(before) as f64 / count as f64;
    let resident = per_item(cpu::resident_bytes(server.pid())?, resident);
    Ok([resident, per_item(used_memory(&mut control)?, used)])
}

/// 16 bytes.
fn key(number: u64) -> String {
    format!("key:{number:012}")
}

/// 32 bytes.
fn value(number: u64) -> String {
    format!("value:{number:026}")
}
