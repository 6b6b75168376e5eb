//! What the process takes of the machine: processor time and memory, as the kernel counts them.

use std::fs;
use std::path::{Path, PathBuf};

/// Of a process or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub user_s: f64,
    pub system_s: f64,
    /// Of children that have ended.
    pub children_user_s: f64,
    pub children_system_s: f64,
    pub resident_bytes: usize,
}

impl Usage {
    pub fn of_process() -> Self {
        Self::read(Path::new("/proc/self/stat"))
    }

    /// Of a thread, by the path that `this_thread` gave.
    pub fn of_thread(path: &Path) -> Self {
        Self::read(path)
    }

    /// Nothing where there is no `/proc`.
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
        Self::parse(&text, ticks, rustix::param::page_size()).unwrap_or_default()
    }

    fn parse(text: &str, ticks_per_second: f64, page_size: usize) -> Option<Self> {
        // The second field, in brackets, is a name that may hold anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // proc(5) counts from 1, and the first one here is the third.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let seconds = |field| Some(number(field)? as f64 / ticks_per_second);
        Some(Self {
            user_s: seconds(14)?,
            system_s: seconds(15)?,
            children_user_s: seconds(16)?,
            children_system_s: seconds(17)?,
            resident_bytes: usize::try_from(number(24)?).ok()?.saturating_mul(page_size),
        })
    }
}

/// Where the kernel tells about the calling thread.
pub fn this_thread() -> PathBuf {
    let thread = fs::read_link("/proc/thread-self").unwrap_or_default();
    Path::new("/proc").join(thread).join("stat")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_understood() {
        let line = "7 (a ) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 3 4 20 0 9 0 1 4096 12 1 0\n";
        let usage = Usage::parse(line, 100.0, 4096).unwrap();
        assert_eq!((usage.user_s, usage.system_s), (2.5, 0.5));
        assert_eq!((usage.children_user_s, usage.children_system_s), (0.03, 0.04));
        assert_eq!(usage.resident_bytes, 12 * 4096);
        assert_eq!(Usage::parse("7 (x) S 1", 100.0, 4096), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(100_000 < Usage::of_process().resident_bytes);
        assert!(fs::exists(this_thread()).unwrap());
    }
}
