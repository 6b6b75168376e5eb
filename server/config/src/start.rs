//! What a start was asked for, and why it cannot be.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::directive::DirectiveId;
use crate::kind::Reason;
use crate::table::Config;

/// What the arguments ask the program to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Start the server; the arguments go to [`crate::load`].
    Serve,
    /// Print the version and exit with 0.
    Version,
    /// Print the usage on standard error and exit with 1.
    Help,
    /// Test so many megabytes of memory; without a number, explain and exit with 1.
    TestMemory(Option<u64>),
    CheckSystem,
}

impl Task {
    /// Reads the arguments, without the program's name. Only the first decides.
    pub fn of(arguments: &[OsString]) -> Self {
        let Some(first) = arguments.first() else { return Self::Serve };
        match first.as_bytes() {
            b"-v" | b"--version" => Self::Version,
            b"-h" | b"--help" => Self::Help,
            b"--test-memory" => Self::TestMemory(match arguments {
                [_, size] => size.to_str().and_then(|size| size.parse().ok()),
                _ => None,
            }),
            b"--check-system" => Self::CheckSystem,
            _ => Self::Serve,
        }
    }
}

/// Everything that was read for a start.
#[derive(Debug, Default)]
pub struct Start {
    /// Its `dir` is absolute, and the folder that `dir` lines led to in the order of reading; it
    /// has yet to be made the process's working folder.
    pub config: Config,
    /// The absolute path of the main file.
    pub config_file: Option<PathBuf>,
    /// Directives that were set, to their default or not.
    pub given: BTreeSet<DirectiveId>,
    /// Names of what was set to another value than the default and has no effect yet.
    pub later: Vec<String>,
    /// For the log.
    pub warnings: Vec<String>,
    /// `rename-command OLD NEW`; NEW may be empty.
    pub renames: Vec<Line>,
    /// `user NAME rule ...`; no name is there twice.
    pub users: Vec<Line>,
    /// `loadmodule PATH argument ...`.
    pub modules: Vec<Line>,
    /// `module.name value ...`.
    pub module_settings: Vec<Line>,
}

/// A line whose meaning others know: commands to rename, rules of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub number: usize,
    pub text: String,
    /// The name in lower case, then what follows.
    pub words: Vec<Vec<u8>>,
}

impl Line {
    /// The end of the start because of this line.
    pub fn error(&self, reason: impl Into<Reason>) -> StartError {
        StartError::Line { number: self.number, text: self.text.clone(), reason: reason.into() }
    }
}

/// Why a start fails. [`StartError::report`] is what to print; the exit status is 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Belongs in the log, at level warning.
    #[error("Fatal error, can't open config file '{}': {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("line {number}: {reason}")]
    Line { number: usize, text: String, reason: Reason },
    /// The lines do not go together.
    #[error("{reason}")]
    Whole { reason: Reason },
}

impl StartError {
    pub(crate) fn unreadable(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Unreadable { path: path.as_ref().to_owned(), reason: reason.into() }
    }

    /// For what the server finds wrong after reading, such as a log file it cannot open.
    pub fn whole(reason: impl Into<Reason>) -> Self {
        Self::Whole { reason: reason.into() }
    }

    /// The block that Redis prints on standard error, or the line of an unreadable file.
    pub fn report<'a>(&'a self, version: &'a str) -> impl fmt::Display + 'a {
        Report { error: self, version }
    }
}

struct Report<'a> {
    error: &'a StartError,
    version: &'a str,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = format!("\n*** FATAL CONFIG FILE ERROR (Redis {}) ***", self.version);
        match self.error {
            StartError::Unreadable { .. } => writeln!(out, "{}", self.error),
            StartError::Line { number, text, reason } => {
                writeln!(out, "{heading}")?;
                writeln!(out, "Reading the configuration file, at line {number}")?;
                writeln!(out, ">>> '{text}'\n{reason}")
            }
            StartError::Whole { reason } => writeln!(out, "{heading}\n{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_argument_decides_the_task() {
        let task = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            Task::of(&arguments)
        };
        assert_eq!(task(&[]), Task::Serve);
        assert_eq!(task(&["x.conf", "--version"]), Task::Serve);
        assert_eq!(task(&["-v"]), Task::Version);
        assert_eq!(task(&["--help"]), Task::Help);
        assert_eq!(task(&["--test-memory", "64"]), Task::TestMemory(Some(64)));
        assert_eq!(task(&["--test-memory"]), Task::TestMemory(None));
        assert_eq!(task(&["--check-system"]), Task::CheckSystem);
    }
}
