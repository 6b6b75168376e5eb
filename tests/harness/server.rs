//! Starting and ending one server process: own folder, own port, own log.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tempfile::TempDir;

use crate::certificates::{Authority, Identity};
use crate::client::Client;
use crate::transport::{TlsOptions, Transport};

/// A running server. Dropping it ends the process and removes its folder.
pub struct Server {
    child: Child,
    plan: Plan,
}

/// Everything needed to start the same server again.
struct Plan {
    wrapper: Vec<String>,
    program: PathBuf,
    args: Vec<String>,
    config: Option<PathBuf>,
    port: u16,
    tls_port: u16,
    folder: TempDir,
    /// Certificates given to the server; without them Carnelian makes its own.
    tls: Option<Certificates>,
    ready: Ready,
    patience: Duration,
}

/// How a start is known to have succeeded.
#[derive(Clone, Copy, Debug)]
pub enum Ready {
    /// The port answers, be it with an error: a server that asks for a password is up too. One that
    /// loads its data is not.
    Answer,
    /// The log has this text, for servers whose port is closed.
    Log(&'static str),
}

/// What a server presents, and the authority that signed it.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub authority: PathBuf,
    pub server: Identity,
}

/// What to start and how.
pub struct Starter {
    wrapper: Vec<String>,
    program: PathBuf,
    args: Vec<String>,
    config: Option<String>,
    tls: bool,
    certificates: Option<Certificates>,
    ready: Ready,
    patience: Duration,
}

/// A start that failed: what the process said and how it ended.
#[derive(Debug)]
pub struct StartFailure {
    pub status: Option<ExitStatus>,
    pub output: String,
}

/// Whether the server under test is ours. Scripts about what only Carnelian does end early otherwise.
pub fn is_carnelian() -> bool {
    program_is_carnelian(program())
}

pub(crate) fn program_is_carnelian(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    !name.contains("redis") && !name.contains("valkey")
}

/// The server under test: `CARNELIAN_SERVER`, or the workspace's binary, built if it is not up to date.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match env::var_os("CARNELIAN_SERVER") {
        Some(path) => path.into(),
        None => built_server(),
    })
}

fn built_server() -> PathBuf {
    let test = env::current_exe().expect("the path of the running test");
    let target = test
        .ancestors()
        .find(|folder| folder.join("deps").is_dir())
        .expect("a cargo target folder");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The features of the whole workspace, as `cargo test --workspace` has built them already.
    cargo.args(["build", "--quiet", "--workspace", "--bin", "carnelian-server"]);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if target.file_name().is_some_and(|name| name == "release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo can be started");
    assert!(status.success(), "building carnelian-server failed");
    target.join("carnelian-server")
}

impl Server {
    /// Starts the server under test with further arguments.
    pub fn start(args: &[&str]) -> Self {
        Self::starter().args(args).start()
    }

    pub fn starter() -> Starter {
        Self::starter_of(program())
    }

    /// Starts another program that takes redis-server's arguments.
    pub fn starter_of(program: &Path) -> Starter {
        Starter {
            wrapper: Vec::new(),
            program: program.to_owned(),
            args: Vec::new(),
            config: None,
            tls: false,
            certificates: None,
            ready: Ready::Answer,
            patience: Duration::from_secs(20),
        }
    }

    pub fn port(&self) -> u16 {
        self.plan.port
    }

    /// The port that speaks TLS: the same one on Carnelian.
    pub fn tls_port(&self) -> u16 {
        self.plan.tls_port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        self.plan.folder.path()
    }

    pub fn config_file(&self) -> Option<&Path> {
        self.plan.config.as_deref()
    }

    /// What TLS clients should trust.
    pub fn ca(&self) -> PathBuf {
        match &self.plan.tls {
            Some(tls) => tls.authority.clone(),
            None => self.folder().join("client-ca.pem"),
        }
    }

    pub fn connect(&self) -> Client {
        Client::over(Transport::tcp(self.port()).expect("the port answers"))
    }

    pub fn connect_tls(&self) -> Client {
        self.try_connect_tls(&self.tls_options()).expect("a TLS handshake")
    }

    pub fn try_connect_tls(&self, options: &TlsOptions) -> anyhow::Result<Client> {
        Ok(Client::over(Transport::tls(self.tls_port(), options)?))
    }

    pub fn tls_options(&self) -> TlsOptions {
        TlsOptions::trusting(self.ca())
    }

    /// Everything the process wrote so far.
    pub fn log(&self) -> String {
        read_log(self.folder())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).expect("a running process");
    }

    /// After SIGSTOP: until none of its threads runs.
    #[track_caller]
    pub fn wait_until_stopped(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_stopped = |status: String| status.lines().any(|line| line.starts_with("State:\tT"));
        while Instant::now() < deadline {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("its threads");
            let mut states = threads.map(|thread| {
                let file = thread.expect("a thread").path().join("status");
                is_stopped(fs::read_to_string(file).unwrap_or_default())
            });
            if states.all(|is_stopped| is_stopped) {
                return;
            }
            sleep(Duration::from_millis(1));
        }
        panic!("the server does not stop");
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end:\n{}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// Ends the server in good order and starts it again on the same folder and port.
    pub fn restart(&mut self) {
        self.signal(Signal::TERM);
        self.wait();
        self.start_again().expect("it starts again");
    }

    /// The same without giving it time for anything.
    pub fn crash(&mut self) {
        self.kill();
        self.start_again().expect("it starts again");
    }

    /// Ends the process as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts an ended server again on the same folder and port.
    pub fn start_again(&mut self) -> Result<(), StartFailure> {
        let (child, outcome) = self.plan.launch();
        self.child = child;
        outcome
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Starter {
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Starts from a configuration file with this text; the arguments still follow it.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_owned());
        self
    }

    /// TLS is wanted. Carnelian has it anyhow; other servers get certificates and a second port.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Presents these certificates instead of made-up ones.
    pub fn certificates(mut self, certificates: &Certificates) -> Self {
        self.certificates = Some(certificates.clone());
        self.tls = true;
        self
    }

    /// Starts through another program that becomes the server, such as `taskset -c 0`.
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn ready_when(mut self, ready: Ready) -> Self {
        self.ready = ready;
        self
    }

    /// How long a start may take, with all that is to be loaded.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    #[track_caller]
    pub fn start(self) -> Server {
        match self.try_start() {
            Ok(server) => server,
            Err(failure) => panic!("the server did not start: {failure:?}"),
        }
    }

    pub fn try_start(self) -> Result<Server, StartFailure> {
        let (ready, patience) = (self.ready, self.patience);
        let folder = TempDir::with_prefix("carnelian-test-").expect("a temporary folder");
        let port = free_port();
        let mut tls_port = port;
        let args = self.args;
        let mut tls = self.certificates;
        if self.tls && !program_is_carnelian(&self.program) {
            tls_port = free_port();
            tls = tls.or_else(|| Some(Certificates::made_in(folder.path())));
        }
        let config = self.config.map(|text| {
            let path = folder.path().join("server.conf");
            fs::write(&path, text).expect("a writable folder");
            path
        });
        let mut plan = Plan {
            wrapper: self.wrapper,
            program: self.program,
            args,
            config,
            port,
            tls_port,
            folder,
            tls,
            ready,
            patience,
        };
        plan.args = plan.arguments();
        let (child, outcome) = plan.launch();
        let server = Server { child, plan };
        outcome.map(|()| server)
    }
}

impl Certificates {
    /// An authority of its own and one server certificate.
    pub fn made_in(folder: &Path) -> Self {
        let authority = Authority::new(folder, "test-ca");
        let server = authority.server("test-server");
        Self { authority: authority.certificate, server }
    }
}

impl Plan {
    /// The arguments in full: ours first, so that the test's own win.
    fn arguments(&self) -> Vec<String> {
        let mut args = vec![
            format!("--port {}", self.port),
            "--bind 127.0.0.1".into(),
            format!("--dir {}", self.folder.path().display()),
            "--daemonize no".into(),
            "--enable-debug-command yes".into(),
        ];
        if let Some(tls) = &self.tls {
            if self.tls_port != self.port {
                args.push(format!("--tls-port {}", self.tls_port));
            }
            args.push(format!("--tls-cert-file {}", tls.server.certificate.display()));
            args.push(format!("--tls-key-file {}", tls.server.key.display()));
            args.push(format!("--tls-ca-cert-file {}", tls.authority.display()));
            args.push("--tls-auth-clients no".into());
        }
        let mut words: Vec<String> =
            args.iter().flat_map(|arg| arg.split(' ').map(str::to_owned)).collect();
        words.extend(["--save".into(), String::new()]);
        words.extend(self.args.iter().cloned());
        words
    }

    fn launch(&self) -> (Child, Result<(), StartFailure>) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("output.log"))
            .expect("a writable folder");
        let mut words = self.wrapper.iter().map(OsString::from).collect::<Vec<_>>();
        words.push(self.program.clone().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.config).args(&self.args);
        // SORT ALPHA follows the locale.
        command.env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut child = command.spawn().expect("the server's program can be started");
        let outcome = self.wait_for_answer(&mut child);
        if outcome.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        (child, outcome)
    }

    fn wait_for_answer(&self, child: &mut Child) -> Result<(), StartFailure> {
        let deadline = Instant::now() + self.patience;
        loop {
            let failure = |status| StartFailure { status, output: read_log(self.folder.path()) };
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return Err(failure(Some(status)));
            }
            if self.answers() {
                return Ok(());
            }
            if deadline < Instant::now() {
                return Err(failure(None));
            }
            sleep(Duration::from_millis(5));
        }
    }

    fn answers(&self) -> bool {
        if let Ready::Log(text) = self.ready {
            return read_log(self.folder.path()).contains(text);
        }
        let Ok(transport) = Transport::tcp(self.port) else { return false };
        let mut client = Client::over(transport);
        let reply = client.try_send(b"PING\r\n").ok().and_then(|()| client.try_read().ok());
        reply.is_some_and(|reply| !reply.to_string().starts_with("-LOADING"))
    }
}

fn read_log(folder: &Path) -> String {
    let bytes = fs::read(folder.join("output.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A port nothing listens on, below the range the kernel gives to outgoing connections. Tests of one
/// process never get the same one; processes start at different places.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = match env::var("CARNELIAN_TEST_PORTS").map(|text| text.parse::<u16>()) {
        Ok(Ok(base)) => base,
        _ => 17000 + (std::process::id() % 120) as u16 * 125,
    };
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
