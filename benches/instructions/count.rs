//! Counting under callgrind.
//!
//! Each workload runs twice in a process of its own, for few and for many rounds: the difference is
//! what the further rounds cost, and all that happens once cancels out. The reactor is on the main
//! thread, whose instructions callgrind writes to a file of their own.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::table::Table;
use crate::workload::{WORKLOADS, Workload};

/// Commands that are sent together.
pub const BATCHES: [usize; 2] = [1, 16];

/// Commands in the shorter and the longer run.
const FEW: usize = 1600;
const MANY: usize = 17_600;

/// Counts every workload; one that the server refuses gets no figure, and the reason is printed.
pub fn count_all() -> Result<Table> {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .context("Can't run valgrind")?;
    let mut table = Table::default();
    for workload in WORKLOADS {
        let mut figures = [None; BATCHES.len()];
        for (figure, batch) in figures.iter_mut().zip(BATCHES) {
            match per_command(workload, batch) {
                Ok(count) => *figure = Some(count),
                Err(error) => {
                    eprintln!("{}: {error:#}", workload.name);
                    break;
                }
            }
        }
        table.rows.push((workload.name.to_owned(), figures));
    }
    Ok(table)
}

fn per_command(workload: &Workload, batch: usize) -> Result<f64> {
    let few = instructions(workload, batch, FEW / batch)?;
    let many = instructions(workload, batch, MANY / batch)?;
    Ok((many as f64 - few as f64) / (MANY - FEW) as f64)
}

/// Instructions of the main thread in one run.
fn instructions(workload: &Workload, batch: usize, rounds: usize) -> Result<u64> {
    let folder = std::env::temp_dir().join(format!("carnelian-callgrind-{}", std::process::id()));
    fs::create_dir_all(&folder).context("Can't make a folder")?;
    let counted = run(workload, batch, rounds, &folder.join("out"));
    let total = counted.and_then(|()| {
        let text = fs::read_to_string(folder.join("out-01")).context("No figures")?;
        let line = text.lines().find_map(|line| line.strip_prefix("totals: "));
        line.context("No totals")?.trim().parse().context("Totals that are no number")
    });
    // What stays behind is in the way of nobody.
    let _ = fs::remove_dir_all(&folder);
    total
}

fn run(workload: &Workload, batch: usize, rounds: usize, out: &std::path::Path) -> Result<()> {
    let program = std::env::current_exe().context("Can't find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args([workload.name, &batch.to_string(), &rounds.to_string()])
        .output()
        .context("Can't run valgrind")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
