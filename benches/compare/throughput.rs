//! Processor time per operation, throughput and p99 of commands, and what a second reactor costs.

use anyhow::{Result, ensure};
use carnelian_tests::Server;
use carnelian_tests::client::encode;

use crate::load::{self, Sample, Workload};
use crate::options::short;
use crate::servers::{Bench, Setup};
use crate::table::{
    Report, Verdict, columns, median, ratio_where_less_is_better, ratio_where_more_is_better,
};

/// One line of the table.
struct Row {
    name: String,
    workload: Workload,
    target: Option<f64>,
    /// A key that would grow from run to run, removed before each.
    grows: Option<&'static str>,
    /// Fills what the workload reads, beside the usual keys.
    prepare: Option<fn(&Server) -> Result<()>>,
}

pub fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    report.table(
        "Server CPU µs per operation",
        columns(
            &["workload", "ours"],
            bench.peer_names(),
            &["CPU ratio", "target", "met", "throughput ratio", "p99 ratio"],
        ),
    );
    for (index, &keys) in bench.options.keys.iter().enumerate() {
        let mut rows = get_and_set(bench, keys);
        if index == 0 {
            rows.extend(other_commands(bench));
        }
        rows.retain(|row| bench.options.wants(&row.name));
        if rows.is_empty() {
            continue;
        }
        let servers = bench.start_all(Setup::USUAL);
        for server in &servers {
            load::fill_benchmark_keys(server, keys)?;
        }
        for row in &rows {
            let samples = measure(bench, &servers, row);
            report.row_or_reason(&row.name, samples.map(|samples| cells(row, &samples)));
        }
    }
    Ok(())
}

fn get_and_set(bench: &Bench, keys: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    for tls in [false, true] {
        for (pipeline, plain_target, tls_target) in
            [(1, 0.85, 0.75), (16, 0.60, 0.58), (64, 0.50, 0.50)]
        {
            if bench.options.quick && tls && pipeline == 64 {
                continue;
            }
            for command in ["GET", "SET"] {
                let suffix = if tls { ", TLS" } else { "" };
                rows.push(Row {
                    name: format!("{command} P={pipeline}, {} keys{suffix}", short(keys)),
                    workload: Workload {
                        command: vec!["-t".into(), command.to_lowercase()],
                        pipeline,
                        keys,
                        tls,
                        pinned: true,
                    },
                    target: Some(if tls { tls_target } else { plain_target }),
                    grows: None,
                    prepare: None,
                });
            }
        }
    }
    rows
}

fn other_commands(bench: &Bench) -> Vec<Row> {
    let workload = |command: &[&str], pipeline| Workload {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        pipeline,
        keys: 100_000,
        tls: false,
        pinned: true,
    };
    let mut rows = Vec::new();
    for (name, grows) in
        [("LPUSH", Some("mylist")), ("HSET", None), ("ZADD", None), ("SADD", None), ("INCR", None)]
    {
        rows.push(Row {
            name: format!("{name} P=16"),
            workload: workload(&["-t", &name.to_lowercase()], 16),
            target: Some(0.70),
            grows,
            prepare: None,
        });
    }
    for pipeline in if bench.options.quick { vec![16] } else { vec![1, 16] } {
        for (name, command, grows, prepare) in NEWER {
            rows.push(Row {
                name: format!("{name} P={pipeline}"),
                workload: workload(command, pipeline),
                target: Some(0.90),
                grows: *grows,
                prepare: *prepare,
            });
        }
    }
    for pipeline in if bench.options.quick { vec![16] } else { vec![1, 16] } {
        rows.push(Row {
            name: format!("MSET of 10 P={pipeline}"),
            workload: workload(&["-t", "mset"], pipeline),
            target: Some(0.80),
            grows: None,
            prepare: None,
        });
        rows.push(Row {
            name: format!("LRANGE_100 P={pipeline}"),
            workload: workload(&["LRANGE", LIST, "0", "99"], pipeline),
            target: Some(0.80),
            grows: None,
            prepare: Some(fill_list),
        });
    }
    rows
}

type Prepare = fn(&Server) -> Result<()>;

/// Further commands: name, words, the key that grows, what has to be there.
type Newer = (&'static str, &'static [&'static str], Option<&'static str>, Option<Prepare>);

const NEWER: &[Newer] = &[
    ("EVAL of a SET", &["EVAL", SCRIPT, "1", "key:__rand_int__", "value"], None, None),
    (
        "EVALSHA of a SET",
        &["EVALSHA", DIGEST, "1", "key:__rand_int__", "value"],
        None,
        Some(load_script),
    ),
    ("XADD", &["XADD", "bench:stream", "*", "field", "value"], Some("bench:stream"), None),
    (
        "GEOSEARCH of 100 in 10k",
        &["GEOSEARCH", PLACES, "FROMLONLAT", "10", "50", "BYRADIUS", "51", "km", "ASC"],
        None,
        Some(fill_places),
    ),
];

const SCRIPT: &str = "return redis.call('SET', KEYS[1], ARGV[1])";
const DIGEST: &str = "d8f2fad9f8e86a53d2a6ebd960b33c4972cacc37";

fn load_script(server: &Server) -> Result<()> {
    let digest = server.connect().call(&format!("SCRIPT LOAD \"{SCRIPT}\""));
    ensure!(!digest.is_error() && digest.text() == DIGEST, "SCRIPT LOAD answered {digest}");
    Ok(())
}

/// The places that GEOSEARCH looks at: a grid of 100 by 100, one in ten degrees each way.
const PLACES: &str = "bench:places";

fn fill_places(server: &Server) -> Result<()> {
    load::fill(server, 10_000, 1, |number, frames| {
        let (column, row) = (number % 100, number / 100);
        let (longitude, latitude) = (5.0 + column as f64 / 10.0, 45.0 + row as f64 / 10.0);
        let member = format!("place:{number:06}");
        let (longitude, latitude) = (format!("{longitude:.3}"), format!("{latitude:.3}"));
        encode(&["GEOADD", PLACES, &longitude, &latitude, &member], frames);
    })
}

/// The list that LRANGE reads.
const LIST: &str = "bench:list";

fn fill_list(server: &Server) -> Result<()> {
    let element = "x".repeat(64);
    server.connect().call(&format!("DEL {LIST}"));
    load::fill(server, 1000, 1, |_, frames| encode(&["RPUSH", LIST, &element], frames))
}

/// The samples of a row, `[candidate][round]`. The order of the servers turns from round to round.
fn measure(bench: &Bench, servers: &[Server], row: &Row) -> Result<Vec<Vec<Sample>>> {
    let mut requests = Vec::new();
    for server in servers {
        if let Some(prepare) = row.prepare {
            prepare(server)?;
        }
        // A first run warms up and tells how many requests take the wanted time.
        let first = if row.workload.pipeline == 1 { 20_000 } else { 100_000 };
        let sample = load::run(&bench.client, server, &row.workload, first)?;
        let wanted = (sample.per_second * bench.options.seconds) as u64;
        requests.push(wanted.clamp(5_000, 20_000_000));
    }
    let mut samples = vec![Vec::new(); servers.len()];
    for round in 0..bench.options.rounds {
        for turn in 0..servers.len() {
            let index = (turn + round) % servers.len();
            let server = &servers[index];
            if let Some(key) = row.grows {
                server.connect().call(&format!("DEL {key}"));
            }
            samples[index].push(load::run(&bench.client, server, &row.workload, requests[index])?);
        }
    }
    Ok(samples)
}

fn cells(row: &Row, samples: &[Vec<Sample>]) -> Vec<String> {
    let cpu = each(samples, |sample| sample.cpu_us);
    let throughput = ratio_where_more_is_better(&each(samples, |sample| sample.per_second));
    let p99 = ratio_where_less_is_better(&each(samples, |sample| sample.p99_ms));
    let verdict = Verdict { ratio: ratio_where_less_is_better(&cpu), target: row.target };
    let mut cells = vec![row.name.clone()];
    cells.extend(cpu.iter().map(|rounds| format!("{:.2}", median(rounds.iter().copied()))));
    cells.extend(verdict.cells());
    cells.push(format!("{throughput:.2}"));
    cells.push(format!("{p99:.2}"));
    cells
}

fn each(samples: &[Vec<Sample>], field: impl Fn(&Sample) -> f64) -> Vec<Vec<f64>> {
    samples.iter().map(|rounds| rounds.iter().map(&field).collect()).collect()
}

/// Two reactors against one of ours, the client on the same two cores.
pub fn two_reactors(bench: &Bench, report: &mut Report) -> Result<()> {
    let columns = [
        "workload",
        "one, CPU µs",
        "two, CPU µs",
        "CPU ratio",
        "target",
        "met",
        "throughput ratio",
    ];
    report.table("Two reactors against one, nothing pinned", columns.map(str::to_owned).to_vec());
    let mut rows = get_and_set(bench, bench.options.keys[0]);
    rows.retain(|row| row.workload.pipeline > 1 && !row.workload.tls);
    for row in &mut rows {
        row.name = format!("two reactors, {}", row.name);
        row.target = Some(1.2);
        row.workload.pinned = false;
    }
    rows.retain(|row| bench.options.wants(&row.name));
    if rows.is_empty() {
        return Ok(());
    }
    let mut servers = Vec::new();
    for threads in [2, 1] {
        let server =
            bench.start(&bench.candidates[0], Setup { threads, pinned: false, rsa: false });
        load::fill_benchmark_keys(&server, bench.options.keys[0])?;
        servers.push(server);
    }
    for row in &rows {
        let samples = measure(bench, &servers, row);
        report.row_or_reason(&row.name, samples.map(|samples| reactor_cells(row, &samples)));
    }
    Ok(())
}

fn reactor_cells(row: &Row, samples: &[Vec<Sample>]) -> Vec<String> {
    let cpu = each(samples, |sample| sample.cpu_us);
    let throughput = ratio_where_more_is_better(&each(samples, |sample| sample.per_second));
    let verdict = Verdict { ratio: ratio_where_less_is_better(&cpu), target: row.target };
    let mut cells = vec![row.name.clone()];
    cells.extend(cpu.iter().rev().map(|rounds| format!("{:.2}", median(rounds.iter().copied()))));
    cells.extend(verdict.cells());
    cells.push(format!("{throughput:.2}"));
    cells
}
