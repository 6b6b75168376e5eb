//! What the kernel says about a process: processor time, memory, and where it may run.

use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The core of the server, and that of the client.
pub const SERVER_CORE: &str = "0";
pub const CLIENT_CORE: &str = "1";

/// Processor time of all threads of a process so far.
pub fn time_ns(pid: u32) -> Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += first_number(&text, 0)?;
    }
    Ok(total)
}

/// Memory of a process that is in RAM now.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss line")?;
    Ok(1024 * first_number(line, 0)?)
}

/// How long the threads of a process stood in the queue for a core, without getting one.
///
/// A stall seen from outside minus this is the server's own doing.
pub struct QueueTime {
    tasks: Vec<fs::File>,
}

impl QueueTime {
    pub fn of_process(pid: u32) -> Result<Self> {
        let mut tasks = Vec::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            tasks.push(fs::File::open(task?.path().join("schedstat"))?);
        }
        Ok(Self { tasks })
    }

    pub fn of_this_thread() -> Result<Self> {
        Ok(Self { tasks: vec![fs::File::open("/proc/thread-self/schedstat")?] })
    }

    /// The time each thread has waited so far.
    pub fn waited_ns(&self) -> Result<Vec<u64>> {
        let mut text = [0; 64];
        self.tasks
            .iter()
            .map(|task| {
                let length = task.read_at(&mut text, 0)?;
                first_number(std::str::from_utf8(&text[..length])?, 1)
            })
            .collect()
    }
}

fn first_number(text: &str, position: usize) -> Result<u64> {
    let word = text.split_whitespace().nth(position).context("too few numbers")?;
    Ok(word.parse()?)
}

/// Keeps this thread, and what it starts, on one core.
pub fn stay_on(core: &str) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core.parse().expect("a core number"));
    // On a machine with one core there is nothing to choose.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// Keeps all threads of a process on one core, and those that they start.
pub fn confine(pid: u32, core: &str) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core.parse().context("a core number")?);
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok());
        let thread = thread.and_then(rustix::process::Pid::from_raw);
        // On a machine with one core there is nothing to choose, and a thread may have ended.
        let _ = rustix::thread::sched_setaffinity(thread, &set);
    }
    Ok(())
}

/// Raises the limit of open files to what the system allows: thousands of connections are held.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// `Intel Xeon, 2 cores, Linux 6.1`.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}
