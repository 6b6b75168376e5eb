//! What happened in a run, in its order: a sum of all of it, by which two runs are compared, and its text for
//! whoever looks for where they part.

use std::cell::RefCell;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufWriter, Write};

use tokio::time::Instant;

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

struct Trace {
    began: Instant,
    sum: DefaultHasher,
    file: Option<BufWriter<File>>,
    /// What must never happen, where no one waits for it: in tasks.
    violations: Vec<String>,
}

/// Begins with this thread's next run.
pub fn begin(file: Option<File>) {
    let (began, file) = (Instant::now(), file.map(BufWriter::new));
    let sum = DefaultHasher::new();
    TRACE.set(Some(Trace { began, sum, file, violations: Vec::new() }));
}

/// Something happened.
pub fn note(what: std::fmt::Arguments<'_>) {
    with(|trace| {
        let line = format!("{} {what}\n", trace.began.elapsed().as_micros());
        trace.sum.write(line.as_bytes());
        if let Some(file) = &mut trace.file {
            file.write_all(line.as_bytes()).expect("there is room for it");
        }
    });
}

/// The sum of what happened until now.
pub fn sum() -> u64 {
    with(|trace| trace.sum.finish()).unwrap_or(0)
}

pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

pub fn violation(what: String) {
    with(|trace| trace.violations.push(what));
}

pub fn take_violation() -> Option<String> {
    with(|trace| trace.violations.pop()).flatten()
}

fn with<T>(work: impl FnOnce(&mut Trace) -> T) -> Option<T> {
    TRACE.with(|trace| trace.try_borrow_mut().ok()?.as_mut().map(work))
}
