//! What the program does instead of serving: its version, its usage, and checks of the machine.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::process::ExitCode;

use carnelian_persistence::aof::check as aof_check;
use carnelian_persistence::rdb::file::check as rdb_check;

/// The level of the commands on offer, by which clients switch features on.
pub const REDIS_VERSION: &str = "8.0.6";
pub const CARNELIAN_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Does the work of `redis-check-rdb` or `redis-check-aof` if that is the name of the program.
pub fn run_as_check(program: &str, arguments: &[OsString]) -> Option<ExitCode> {
    let out = &mut io::stdout().lock();
    if rdb_check::is_called(program) {
        let code = rdb_check::run(program, REDIS_VERSION, arguments, out);
        return Some(ExitCode::from(code));
    }
    if aof_check::is_called(program) {
        let input = &mut io::stdin().lock();
        let world = aof_check::World { out, input, check_snapshot: &mut rdb_check::check };
        return Some(ExitCode::from(aof_check::run(program, arguments, world)));
    }
    None
}

pub fn print_version() -> ExitCode {
    println!(
        "Carnelian server v={REDIS_VERSION} sha=00000000:0 malloc=jemalloc-5.3.1 bits={} \
         build={CARNELIAN_VERSION}",
        usize::BITS
    );
    ExitCode::SUCCESS
}

pub fn print_usage(program: &str) -> ExitCode {
    eprintln!(
        "Usage: {program} [/path/to/redis.conf] [options] [-]
       {program} - (read config from stdin)
       {program} -v or --version
       {program} -h or --help
       {program} --test-memory <megabytes>
       {program} --check-system

Examples:
       {program}                       a data folder of its own, on 127.0.0.1 and ::1
       {program} /etc/redis/6379.conf
       {program} --port 7777 --transit-encryption-mode required
       {program} /etc/redis.conf --loglevel verbose -"
    );
    ExitCode::FAILURE
}

/// Writes patterns to so much memory and reads them back.
pub fn test_memory(megabytes: Option<u64>) -> ExitCode {
    let Some(megabytes) = megabytes else {
        eprintln!("Please specify the amount of memory to test in megabytes.");
        eprintln!("Example: carnelian-server --test-memory 4096");
        return ExitCode::FAILURE;
    };
    let words = usize::try_from(megabytes).unwrap_or(usize::MAX).saturating_mul((1 << 20) / 8);
    let mut memory: Vec<u64> = Vec::new();
    if memory.try_reserve_exact(words).is_err() {
        eprintln!("Unable to allocate {megabytes} megabytes.");
        return ExitCode::FAILURE;
    }
    memory.resize(words, 0);
    for round in 0..4u64 {
        // Each word's own, so that an address line that is stuck shows too.
        let pattern = |index: usize| {
            let word = (index as u64 ^ round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if round % 2 == 0 { word } else { !word }
        };
        memory.iter_mut().enumerate().for_each(|(index, word)| *word = pattern(index));
        let memory = std::hint::black_box(&memory);
        if let Some(bad) = memory.iter().enumerate().find(|(index, word)| **word != pattern(*index))
        {
            println!("*** MEMORY ERROR at word {}: {:#x}", bad.0, bad.1);
            return ExitCode::FAILURE;
        }
        println!("Round {} of 4 passed.", round + 1);
    }
    println!("Your memory passed this test.");
    ExitCode::SUCCESS
}

/// One line a check; fails if one of them warns.
pub fn check_system() -> ExitCode {
    let mut all_good = true;
    for (name, check) in CHECKS {
        match check() {
            Finding::Good => println!("[{name}]...OK"),
            Finding::Unknown => println!("[{name}]...skipped"),
            Finding::Warning(text) => {
                println!("[{name}]...WARNING:\n{text}");
                all_good = false;
            }
        }
    }
    if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Finding {
    Good,
    Unknown,
    Warning(&'static str),
}

type Check = (&'static str, fn() -> Finding);

const CHECKS: [Check; 3] = [
    ("slow-clocksource", || {
        judge("/sys/devices/system/clocksource/clocksource0/current_clocksource", |text| {
            (text.trim() == "xen").then_some(
                "The clock source is 'xen', whose readings are slow system calls. 'tsc' may be \
                 available: see /sys/devices/system/clocksource/clocksource0.",
            )
        })
    }),
    ("overcommit", || {
        judge("/proc/sys/vm/overcommit_memory", |text| {
            (text.trim() == "2").then_some(
                "Memory overcommit is off: an allocation may fail although memory is free. \
                 Consider 'sysctl vm.overcommit_memory=1'.",
            )
        })
    }),
    ("THP", || {
        judge("/sys/kernel/mm/transparent_hugepage/enabled", |text| {
            text.contains("[always]").then_some(
                "Transparent huge pages are set to 'always', which costs latency and memory. \
                 Consider 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled'.",
            )
        })
    }),
];

fn judge(path: &str, problem: impl Fn(&str) -> Option<&'static str>) -> Finding {
    match fs::read_to_string(path) {
        Ok(text) => problem(&text).map_or(Finding::Good, Finding::Warning),
        Err(_) => Finding::Unknown,
    }
}
