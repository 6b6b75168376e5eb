//! How the machine sees the process: when the kernel ends it to get memory back, whether it gets huge
//! pages, and under which name `ps` shows it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use carnelian_config::{Config, OomScoreMode, expand_title};
use parking_lot::Mutex;

use crate::settings::given;
use crate::{huge_pages, log};

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// The kernel takes none beyond.
const OOM_SCORE_MAX: i32 = 1000;

/// `oom-score-adj`. There are no children here that the third of `oom-score-adj-values` could be for.
#[derive(Default)]
pub struct OomScore {
    /// What the process had before it was changed first: what relative values count from, and what it
    /// gets back.
    before: Mutex<Option<i32>>,
}

impl OomScore {
    /// Puts the directives into effect.
    pub fn apply(&self, config: &Config, is_replica: bool) -> io::Result<()> {
        let mut before = self.before.lock();
        if config.oom_score_adj == OomScoreMode::No {
            return match before.take() {
                Some(score) => write_score(score),
                None => Ok(()),
            };
        }
        let base = match *before {
            Some(score) => score,
            None => *before.insert(read_score()?),
        };
        let values = config.oom_score_adj_values;
        let value = if is_replica { values.replica } else { values.primary };
        write_score(match config.oom_score_adj {
            OomScoreMode::Relative => base + value,
            _ => value,
        })
    }

    /// The same where nobody can be told but the log.
    pub fn heed(&self, config: &Config, is_replica: bool) {
        if let Err(error) = self.apply(config, is_replica) {
            log::warning!("Unable to write oom_score_adj: {error}");
        }
    }
}

fn read_score() -> io::Result<i32> {
    fs::read_to_string(OOM_SCORE)?.trim().parse().map_err(io::Error::other)
}

fn write_score(score: i32) -> io::Result<()> {
    fs::write(OOM_SCORE, format!("{}\n", score.clamp(-OOM_SCORE_MAX, OOM_SCORE_MAX)))
}

/// `disable-thp`: whether memory may come to lie in huge pages.
pub fn heed_huge_pages(config: &Config) {
    if !config.disable_thp {
        huge_pages::start();
    } else if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        log::warning!("Could not turn transparent huge pages off: {error}");
    }
}

/// What the process is called by, as it stands in `proc-title-template`.
pub struct Naming<'a> {
    /// As the program was called.
    pub program: &'a str,
    pub config_file: String,
}

/// `set-proc-title`: what `ps` shows from now on.
///
/// That is what lies where the arguments were when the program began, so nobody can ask for them from here
/// on, and there is room for as much as they took: what is longer is cut off.
pub fn set_title(config: &Config, naming: &Naming<'_>) {
    let Some(title) = title(config, naming) else { return };
    let written = arguments_place().and_then(|(start, room)| {
        // The last byte stays zero: were it another, the environment would be shown too.
        let mut bytes = title.into_bytes();
        bytes.truncate(room.saturating_sub(1));
        bytes.resize(room, 0);
        File::options().write(true).open("/proc/self/mem")?.write_all_at(&bytes, start)
    });
    if let Err(error) = written {
        log::verbose!("Could not set the title of the process: {error}");
    }
}

/// Where the arguments lie, and how many bytes they take.
fn arguments_place() -> io::Result<(u64, usize)> {
    let text = fs::read_to_string("/proc/self/stat")?;
    place_in(&text).ok_or_else(|| io::Error::other("/proc/self/stat does not tell"))
}

fn place_in(stat: &str) -> Option<(u64, usize)> {
    // The second field, in brackets, is a name that may hold anything. proc(5) counts from 1.
    let (_, fields) = stat.rsplit_once(") ")?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3)?.parse().ok();
    let (start, end): (u64, u64) = (field(48)?, field(49)?);
    let room = usize::try_from(end.checked_sub(start)?).ok()?;
    (start != 0).then_some((start, room))
}

fn title(config: &Config, naming: &Naming<'_>) -> Option<String> {
    let socket = || given(&config.unixsocket).map_or(String::new(), |it| it.display().to_string());
    let address = || {
        let port = if config.port != 0 { config.port } else { config.tls_port };
        match port {
            0 => socket(),
            _ => format!("{}:{port}", config.bind.first().map_or("*", String::as_str)),
        }
    };
    let title = expand_title(&config.proc_title_template, |name| {
        Some(match name {
            "title" => naming.program.to_owned(),
            "listen-addr" => address(),
            "server-mode" => if config.cluster_enabled { "[cluster]" } else { "" }.to_owned(),
            "port" => config.port.to_string(),
            "tls-port" => config.tls_port.to_string(),
            "unixsocket" => socket(),
            "config-file" => naming.config_file.clone(),
            _ => return None,
        })
    })?;
    Some(title.trim_matches(' ').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_filled_in() {
        let naming = Naming { program: "redis-server", config_file: "/a.conf".into() };
        let mut config = Config { port: 7000, ..Config::default() };
        assert_eq!(title(&config, &naming).unwrap(), "redis-server *:7000");
        config.bind = vec!["127.0.0.1".into(), "::1".into()];
        (config.port, config.tls_port) = (0, 7001);
        config.proc_title_template = "{listen-addr} {port}/{tls-port} {config-file} ".into();
        assert_eq!(title(&config, &naming).unwrap(), "127.0.0.1:7001 0/7001 /a.conf");
        (config.tls_port, config.unixsocket) = (0, "/s".into());
        config.proc_title_template = "{listen-addr} {unixsocket}".into();
        assert_eq!(title(&config, &naming).unwrap(), "/s /s");
    }

    #[test]
    fn the_kernel_tells_where_the_arguments_are() {
        let (start, room) = arguments_place().unwrap();
        let shown = fs::read("/proc/self/cmdline").unwrap();
        assert!(start != 0 && room == shown.len());
        assert_eq!(place_in("7 (x) S 1 2 3"), None);
    }
}
