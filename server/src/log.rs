//! The log, line for line in Redis's form: `PID:ROLE DD Mon YYYY HH:MM:SS.mmm LEVEL text`.
//!
//! Programs that launch servers read these lines and write marks of their own between them, so each
//! line leaves in one unbuffered write, to standard output or to the end of `logfile`. The file is
//! opened for each line: it may be moved away by a log rotation at any time.
//!
//! The logger and the allocator are the only state that belongs to the process as a whole.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use crate::{clock, timezone};

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Level {
    Debug,
    Verbose,
    Notice,
    Warning,
    /// Only as a threshold: nothing is logged.
    Nothing,
}

/// What the process is, in the letter after its pid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    Starting = b'C' as isize,
    Primary = b'M' as isize,
    Replica = b'S' as isize,
}

static THRESHOLD: AtomicU8 = AtomicU8::new(Level::Notice as u8);
static ROLE: AtomicU8 = AtomicU8::new(b'C');
static FILE: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Sends lines to `file`, or to standard output for `None`.
pub fn write_to(file: Option<PathBuf>) {
    *FILE.lock() = file;
}

pub fn set_threshold(level: Level) {
    THRESHOLD.store(level as u8, Ordering::Relaxed);
}

pub fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

pub fn enabled(level: Level) -> bool {
    THRESHOLD.load(Ordering::Relaxed) <= level as u8
}

/// Writes one line; the macros `debug`, `verbose`, `notice` and `warning` call it.
pub fn write(level: Level, text: std::fmt::Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let now_ms = clock::wall_ms();
    let role = ROLE.load(Ordering::Relaxed);
    let line =
        format_line(std::process::id(), role, now_ms, timezone::offset_s(now_ms), level, text);
    write_raw(&line);
}

/// Writes text that has no header, such as the banner.
pub fn write_raw(text: &str) {
    // A log that cannot be written is no reason to stop serving.
    let file = FILE.lock();
    let _ = match &*file {
        Some(path) => OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes())),
        None => {
            let mut output = std::io::stdout().lock();
            output.write_all(text.as_bytes()).and_then(|()| output.flush())
        }
    };
}

fn format_line(
    pid: u32,
    role: u8,
    now_ms: u64,
    offset_s: i64,
    level: Level,
    text: std::fmt::Arguments<'_>,
) -> String {
    let local_s = (now_ms / 1000) as i64 + offset_s;
    let (year, month, day) = timezone::civil_from_days(local_s.div_euclid(86_400));
    let second = local_s.rem_euclid(86_400);
    let mark = match level {
        Level::Debug => '.',
        Level::Verbose => '-',
        Level::Notice => '*',
        Level::Warning | Level::Nothing => '#',
    };
    let mut line = String::with_capacity(160);
    let _ = writeln!(
        line,
        "{pid}:{} {day:02} {} {year} {:02}:{:02}:{:02}.{:03} {mark} {text}",
        role as char,
        MONTHS[month as usize - 1],
        second / 3600,
        second / 60 % 60,
        second % 60,
        now_ms % 1000,
    );
    line
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The text is not made where nobody will read it.
macro_rules! at {
    ($level:ident, $($text:tt)*) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::write($crate::log::Level::$level, format_args!($($text)*));
        }
    };
}
macro_rules! debug {
    ($($text:tt)*) => { $crate::log::at!(Debug, $($text)*) };
}
macro_rules! verbose {
    ($($text:tt)*) => { $crate::log::at!(Verbose, $($text)*) };
}
macro_rules! notice {
    ($($text:tt)*) => { $crate::log::at!(Notice, $($text)*) };
}
macro_rules! warning {
    ($($text:tt)*) => { $crate::log::at!(Warning, $($text)*) };
}
pub(crate) use {at, debug, notice, verbose, warning};

#[cfg(test)]
mod tests {
    use super::*;

    fn line(now_ms: u64, offset_s: i64, level: Level) -> String {
        format_line(4711, b'M', now_ms, offset_s, level, format_args!("hello {}", 1))
    }

    #[test]
    fn a_line_has_redis_form() {
        assert_eq!(
            line(1_795_286_542_042, 0, Level::Notice),
            "4711:M 21 Nov 2026 18:42:22.042 * hello 1\n"
        );
        assert_eq!(line(0, 0, Level::Debug), "4711:M 01 Jan 1970 00:00:00.000 . hello 1\n");
        assert_eq!(
            line(951_782_400_000, 0, Level::Warning),
            "4711:M 29 Feb 2000 00:00:00.000 # hello 1\n"
        );
    }

    #[test]
    fn a_line_tells_local_time() {
        assert_eq!(
            line(1_795_286_542_042, 19_800, Level::Verbose),
            "4711:M 22 Nov 2026 00:12:22.042 - hello 1\n"
        );
        assert_eq!(line(0, -1, Level::Notice), "4711:M 31 Dec 1969 23:59:59.000 * hello 1\n");
    }

    #[test]
    fn levels_are_ordered_as_in_the_loglevel_directive() {
        assert!(Level::Debug < Level::Verbose);
        assert!(Level::Notice < Level::Warning);
        assert!(Level::Warning < Level::Nothing);
    }
}
