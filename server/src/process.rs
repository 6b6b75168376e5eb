//! What the process asks of the system: descriptors, a pid file, a place in the background, and the word to
//! the supervisor that it is ready.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::listener::reason;
use crate::log;

/// Descriptors for all that is not a client: listeners, files, polls, and connections that wait to be
/// turned away.
const RESERVED_DESCRIPTORS: u64 = 128;

/// In the environment of the process that `daemonize` started in the background.
const DAEMON_MARK: &str = "CARNELIAN_DAEMON";

/// Raises the limit on open files for so many clients. Returns for how many it is enough.
pub fn raise_descriptor_limit(clients: u32) -> u32 {
    let wanted = u64::from(clients) + RESERVED_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if wanted <= current {
        return clients;
    }
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let set = |current: u64, maximum: u64| {
        let maximum = (maximum != u64::MAX).then_some(maximum);
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum })
    };
    // Only a privileged process may go beyond the hard limit.
    let reached = if set(wanted, hard.max(wanted)).is_ok() {
        wanted
    } else if current < hard && set(hard, hard).is_ok() {
        hard
    } else {
        current
    };
    if reached != current {
        log::notice!(
            "Increased maximum number of open files to {reached} (it was originally set to \
             {current})."
        );
    }
    u32::try_from(reached.saturating_sub(RESERVED_DESCRIPTORS)).unwrap_or(u32::MAX).min(clients)
}

/// Starts this program again in the background and leaves the rest to it. `input` is what came over
/// standard input, which the new process reads in its turn.
///
/// A process that has threads cannot be forked safely, and forking takes unsafe code: starting anew takes neither.
pub fn start_in_background(arguments: &[OsString], input: &[u8]) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    let mut child = command
        .args(arguments)
        .env(DAEMON_MARK, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input)?;
    }
    Ok(())
}

/// Whether this is the process in the background. It leaves its terminal then.
pub fn is_in_background() -> bool {
    let is_daemon = std::env::var_os(DAEMON_MARK).is_some();
    if is_daemon {
        // Fails only where it is the leader of a session already.
        let _ = rustix::process::setsid();
    }
    is_daemon
}

/// A file with the pid in it, for as long as the server runs.
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// A path that cannot be written is no reason not to start.
    pub fn create(path: PathBuf) -> Option<Self> {
        match fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Self { path }),
            Err(error) => {
                log::warning!("Failed to write PID file: {}", reason(&error));
                None
            }
        }
    }

    pub fn remove(self) {
        log::notice!("Removing the pid file.");
        let _ = fs::remove_file(self.path);
    }
}

/// Whether a supervisor waits for word through `NOTIFY_SOCKET`.
pub fn is_supervised_by_systemd() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// Sends the supervisor lines such as `READY=1`.
pub fn notify_supervisor(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_datagram(&path, state) {
        log::warning!("Could not notify the supervisor: {error}");
    }
}

fn send_datagram(path: &OsString, text: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(path))?,
    };
    socket.send_to_addr(text.as_bytes(), &address).map(|_| ())
}

/// The length of the kernel's queue of new connections may be less than asked for.
pub fn warn_of_small_backlog(backlog: u32) {
    let Ok(text) = fs::read_to_string("/proc/sys/net/core/somaxconn") else { return };
    if let Ok(most) = text.trim().parse::<u32>()
        && most < backlog
    {
        log::warning!(
            "WARNING: The TCP backlog setting of {backlog} cannot be enforced because \
             /proc/sys/net/core/somaxconn is set to the lower value of {most}."
        );
    }
}

/// 40 hexadecimal digits that no other start has.
pub fn new_run_id() -> String {
    let mut random = fastrand::Rng::new();
    (0..40).map(|_| char::from_digit(random.u32(..16), 16).expect("below 16")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_holds_the_pid_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = PidFile::create(path.clone()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        file.remove();
        assert!(!path.exists());
        assert!(PidFile::create(folder.path().join("no/such/folder")).is_none());
    }

    #[test]
    fn a_run_id_is_40_digits_and_new_each_time() {
        let id = new_run_id();
        assert_eq!(id.len(), 40);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(id, new_run_id());
    }

    #[test]
    fn the_supervisor_gets_its_word() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send_datagram(&path.into_os_string(), "READY=1\n").unwrap();
        let mut buffer = [0; 32];
        let count = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1\n");
    }
}
