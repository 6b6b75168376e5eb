//! Starting and ending, in the order that programs which launch servers rely on.
//!
//! Listeners are bound before `Server initialized` is written, data is loaded before `Ready to accept`. The
//! main thread then only waits to be told to end; the reactors do the work.

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{IsTerminal, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use carnelian_config::{
    ClientCertificates, Config, DirectiveId, Line, ShutdownFlags, Start, StartError, Supervised,
    Task,
};
use carnelian_structs::collation::Collation;

use crate::acl;
use crate::aof;
use crate::blocking::Waiter;
use crate::configure::level;
use crate::control::{self, ControlPlane};
use crate::database::{Database, Stats};
use crate::databases::{self, Stage};
use crate::encryption::Encryption;
use crate::halt::Halt;
use crate::internode::{self, AskedFor, OpenError};
use crate::listener::Change;
use crate::load;
use crate::log::{self, Role};
use crate::mailbox::{Mailbox, Message};
use crate::process::{self, PidFile};
use crate::reactor::{Reactor, Seat};
use crate::reclaim::Reclaimer;
use crate::registry::Registry;
use crate::replication::replica::{self, Rules};
use crate::server::{Identity, Making, Request, Server};
use crate::settings::{self, given};
use crate::snapshot::{self, Purpose};
use crate::standing;
use crate::tasks::{self, CARNELIAN_VERSION, REDIS_VERSION};
use crate::{allocator, clock, signals};

/// Where a server that was started without arguments keeps its data.
pub(crate) const DATA_FOLDER: &str = "carnelian-data";

/// More reactors than this are not started unless asked for.
const REACTORS_MAX: usize = 8;

pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = tasks::run_as_check(&program_name(), &arguments) {
        return code;
    }
    match Task::of(&arguments) {
        Task::Version => tasks::print_version(),
        Task::Help => tasks::print_usage(&program_name()),
        Task::TestMemory(megabytes) => tasks::test_memory(megabytes),
        Task::CheckSystem => tasks::check_system(),
        Task::Serve => match serve(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                match error.downcast_ref::<StartError>() {
                    Some(StartError::Unreadable { .. }) => log::warning!("{error}"),
                    Some(error) => eprint!("{}", error.report(REDIS_VERSION)),
                    None if error.is::<aof::load::Told>() => {}
                    None => log::warning!("{error:#}"),
                }
                ExitCode::FAILURE
            }
        },
    }
}

fn serve(arguments: &[OsString]) -> Result<()> {
    let input = read_standard_input(arguments)?;
    let mut start = carnelian_config::load(arguments, &mut &input[..])?;
    let is_bare = arguments.is_empty();
    complete(&mut start, is_bare)?;
    let config = &start.config;
    std::env::set_current_dir(&config.dir)
        .with_context(|| format!("Can't chdir to '{}'", config.dir.display()))?;
    open_log(config)?;
    check_locale(config)?;

    let supervised = supervision(config);
    let in_background = process::is_in_background();
    if config.daemonize && !supervised && !in_background {
        return process::start_in_background(arguments, &input)
            .context("Could not start in the background");
    }
    log_panics();
    announce(&start, is_bare);
    allocator::purge_in_background(true);

    start.config.maxclients = limit_clients(start.config.maxclients)?;
    let running = Running::start(start, supervised, in_background, is_bare)?;
    running.wait_for_the_end();
    Ok(())
}

/// What the configuration leaves open.
fn complete(start: &mut Start, is_bare: bool) -> Result<()> {
    let config = &mut start.config;
    if is_bare {
        config.dir = config.dir.join(DATA_FOLDER);
        config.bind = vec!["127.0.0.1".into(), "-::1".into()];
        make_folder(&config.dir)?;
    }
    // Redis asks TLS clients for a certificate unless told not to, but it also refuses to start without
    // the authorities that those would come from. Without them we ask for none.
    let has_authorities =
        given(&config.tls_ca_cert_file).is_some() || given(&config.tls_ca_cert_dir).is_some();
    if !has_authorities && !start.given.contains(&DirectiveId::tls_auth_clients) {
        config.tls_auth_clients = ClientCertificates::No;
    }
    if config.daemonize && given(&config.pidfile).is_none() {
        config.pidfile = "/var/run/redis.pid".into();
    }
    Ok(())
}

fn make_folder(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("Can't make the data folder '{}'", folder.display()))
}

/// All of standard input, if it is to be read as configuration.
fn read_standard_input(arguments: &[OsString]) -> Result<Vec<u8>> {
    /// No configuration is as long as this.
    const BYTES_MAX: u64 = 16 << 20;

    let mut input = Vec::new();
    if arguments.iter().any(|argument| argument == "-") {
        let stdin = std::io::stdin().lock();
        stdin.take(BYTES_MAX).read_to_end(&mut input).context("Can't read standard input")?;
    }
    Ok(input)
}

fn open_log(config: &Config) -> Result<(), StartError> {
    log::set_threshold(level(config.loglevel));
    let Some(path) = given(&config.logfile) else { return Ok(()) };
    let path = config.dir.join(path);
    // Found out now, where there is somebody to tell.
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(|error| StartError::whole(format!("Can't open the log file: {error}")))?;
    log::write_to(Some(path));
    Ok(())
}

fn check_locale(config: &Config) -> Result<(), StartError> {
    match (Collation::named(&config.locale_collate), config.locale_collate.as_str()) {
        (Ok(_), _) => {}
        (Err(_), "") => {
            log::warning!(
                "The locale of the environment is not installed: SORT orders texts by bytes"
            );
        }
        (Err(_), name) => {
            let text = format!("Failed to configure LOCALE for invalid locale name '{name}'.");
            return Err(StartError::whole(text));
        }
    }
    Ok(())
}

fn supervision(config: &Config) -> bool {
    match config.supervised {
        Supervised::Systemd | Supervised::Auto => process::is_supervised_by_systemd(),
        // Told all the same if there is somebody to tell, but it does not keep us in the foreground.
        Supervised::Upstart | Supervised::No => false,
    }
}

/// Panics go to the log, like everything else that operators have to know.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        log::warning!("BUG: thread {}: {info}", thread.name().unwrap_or("?"));
    }));
}

fn announce(start: &Start, is_bare: bool) {
    log::notice!("oO0OoO0OoO0Oo Carnelian is starting oO0OoO0OoO0Oo");
    log::notice!(
        "Carnelian version={CARNELIAN_VERSION}, redis version={REDIS_VERSION}, bits={}, pid={}, \
         just started",
        usize::BITS,
        std::process::id()
    );
    if is_bare {
        log::warning!(
            "Warning: no config file specified, using the default config. In order to specify a \
             config file use {} /path/to/redis.conf",
            program_name()
        );
    } else {
        log::notice!("Configuration loaded");
    }
    for warning in &start.warnings {
        log::warning!("{warning}");
    }
    if !start.later.is_empty() {
        log::warning!("Accepted, but without effect in this version: {}", start.later.join(", "));
    }
}

/// Raises the limit on open files, or lowers the number of clients to what it allows.
fn limit_clients(wanted: u32) -> Result<u32> {
    let possible = process::raise_descriptor_limit(wanted);
    if possible == 0 {
        anyhow::bail!(
            "Your current 'ulimit -n' is not enough for the server to start. Please increase your \
             open file limit. Exiting."
        );
    }
    if possible < wanted {
        log::warning!(
            "You requested maxclients of {wanted}, which the limit on open files does not allow. \
             maxclients has been reduced to {possible} to compensate for low ulimit. If you need \
             higher maxclients increase 'ulimit -n'."
        );
    }
    Ok(possible)
}

/// A server that has been started.
struct Running {
    server: Arc<Server>,
    reactors: Vec<JoinHandle<()>>,
    requests: Receiver<Request>,
    pid_file: Option<PidFile>,
    /// Ends before the databases do.
    control: Option<ControlPlane>,
    /// The server was told to end before all data was there: none of it may be saved.
    is_half_loaded: bool,
}

impl Running {
    fn start(start: Start, supervised: bool, in_background: bool, is_bare: bool) -> Result<Self> {
        let Start { config, config_file, renames, users, given: named, .. } = start;
        let asked_for = AskedFor {
            port: named.contains(&DirectiveId::internode_port),
            plain_port: named.contains(&DirectiveId::internode_plain_port),
        };
        let is_admin_port_given = named.contains(&DirectiveId::admin_port);
        let has_control = is_bare || named.iter().any(|id| control::DIRECTIVES.contains(id));
        let seats = seats(config.io_threads as usize)?;
        let (sender, requests) = channel();
        signals::watch(sender.clone()).context("Can't watch signals")?;

        log::set_role(Role::Primary);
        let registry = registry(&renames)?;
        let reclaimer = Reclaimer::start().context("Can't start the reclaiming thread")?;
        let acl = acl::file::at_start(&config, &users, &registry)?;
        let encryption = Encryption::new(&config).context("Failed to configure TLS")?;
        let mailboxes: Box<[Arc<Mailbox>]> =
            seats.iter().map(|seat| Arc::clone(seat.mailbox())).collect();
        let identity = identity(config_file, supervised);
        let config = Arc::new(config);
        let server = Server::new(
            Arc::clone(&config),
            registry,
            reclaimer,
            renames,
            mailboxes,
            identity,
            sender,
        );
        let server = Arc::new(server);
        let database = Arc::new(Database::new(
            databases::FIRST,
            Arc::clone(&config),
            acl,
            encryption,
            Stats::new(seats.len(), server.registry.entries().len()),
            Arc::clone(&server.client_ids),
        ));
        database.internode.begin(config.data_internode_encryption);
        if has_control && control::was_member(&config) {
            // Another node may have become the primary meanwhile.
            server.is_clustered.store(true, Ordering::SeqCst);
            database.replication.close();
        }
        server.databases.write().push(Arc::clone(&database));

        let pid_file = match given(&config.pidfile) {
            Some(path) => PidFile::create(config.dir.join(path)),
            None => None,
        };
        standing::heed_huge_pages(&config);
        server.oom_score.heed(&config, config.replicaof.is_some());
        if config.set_proc_title {
            standing::set_title(&config, &server.identity.naming());
        }
        show_banner(&config, in_background);
        process::warn_of_small_backlog(config.tcp_backlog);
        let change = listen(&config, &database)?;
        if has_control && control::is_first_elsewhere(&server) {
            control::hold_first(&server, &database);
        }
        match internode::open(&server, asked_for) {
            // They end by themselves some day, and clients are to be served all the same.
            Err(OpenError::Certificates(error)) => {
                log::warning!("Not listening for other nodes: {error}");
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        log::notice!("Server initialized");

        let mut reactors = Vec::with_capacity(seats.len());
        for (index, seat) in seats.into_iter().enumerate() {
            reactors.push(spawn(seat, index, Arc::clone(&server))?);
        }
        let open_doors = || server.pass_on(&database, change);
        let start = load::at_start(&server, &database, &requests, open_doors)?;
        let is_half_loaded = start == load::Start::Ended;
        if is_half_loaded {
            return Ok(Self {
                server,
                reactors,
                requests,
                pid_file,
                control: None,
                is_half_loaded,
            });
        }
        let target = internode::configured(&config)
            .map_err(|reason| anyhow::anyhow!("replicaof-node: {reason}"))?;
        if let Some(target) = target {
            let rules = Rules { is_start: true, ..Rules::of(&database) };
            let following = {
                let _all = database.keyspace.lock_all();
                replica::follow_node(&database, target, rules)
            };
            replica::begin(&server, &database, &following);
        } else if let Some(primary) = &config.replicaof {
            let rules = Rules { is_start: true, ..Rules::of(&database) };
            let following = {
                let _all = database.keyspace.lock_all();
                replica::follow(&database, primary.host.clone(), primary.port, rules)
            };
            replica::begin(&server, &database, &following);
        }
        let control = match has_control {
            true => control::start(&server, is_admin_port_given)?,
            false => None,
        };
        for kind in database.listeners.lock().kinds() {
            log::notice!("Ready to accept connections {}", kind.name());
        }
        process::notify_supervisor("STATUS=Ready to accept connections\nREADY=1\n");
        if is_bare {
            show_first_steps(&config, &database);
        }
        Ok(Self { server, reactors, requests, pid_file, control, is_half_loaded })
    }

    /// Returns when the server has ended in order.
    fn wait_for_the_end(self) {
        if self.is_half_loaded {
            log::notice!("User requested shutdown...");
            self.server.mailboxes.iter().for_each(|mailbox| mailbox.post(Message::Shutdown));
            return self.end();
        }
        // The server holds a sender, so there is always somebody who may still ask.
        while let Ok(request) = self.requests.recv() {
            let config = self.server.config();
            let (flags, waiter) = match request {
                Request::Shutdown(flags, waiter) => (flags, Some(waiter)),
                Request::Signal("SIGINT") => (config.shutdown_on_sigint, None),
                Request::Signal(_) => (config.shutdown_on_sigterm, None),
                Request::Loaded => continue,
                Request::Reload => {
                    reload(&self.server);
                    continue;
                }
            };
            log::notice!("User requested shutdown...");
            process::notify_supervisor("STOPPING=1\n");
            if self.stop(flags) {
                break;
            }
            for database in &*self.server.databases.read() {
                database.replication.primary.go_on(&self.server, database);
            }
            log::warning!(
                "Errors trying to shut down the server. Check the logs for more information."
            );
            self.disappoint(waiter.as_ref());
        }
        self.end();
    }

    /// Tells those who asked for the end, the first of them and who has asked since, that it does not come.
    fn disappoint(&self, first: Option<&Arc<Waiter>>) {
        let refuse = |waiter: &Arc<Waiter>| {
            waiter.finish(b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n".to_vec())
        };
        // Whoever is told may ask again at once, and that is another matter.
        let since: Vec<_> = self.requests.try_iter().collect();
        first.into_iter().for_each(refuse);
        for request in since {
            match request {
                Request::Shutdown(flags, waiter) if flags.now => {
                    self.server.request_shutdown(flags, waiter);
                }
                Request::Shutdown(_, waiter) => refuse(&waiter),
                Request::Signal(_) | Request::Loaded | Request::Reload => {}
            }
        }
    }

    /// Returns when the reactors have ended.
    fn end(self) {
        drop(self.control);
        for reactor in self.reactors {
            let _ = reactor.join();
        }
        if let Some(file) = self.pid_file {
            file.remove();
        }
        for database in &*self.server.databases.read() {
            database.listeners.lock().close();
            if database.aof.is_written() {
                log::notice!("Calling fsync() on the AOF file.");
                aof::disable(&self.server, database, false);
            }
        }
        log::warning!("Carnelian is now ready to exit, bye bye...");
    }

    /// Has the reactors end, with all data saved where it is to be. False if that did not work out, and
    /// then all goes on.
    fn stop(&self, flags: ShutdownFlags) -> bool {
        // None comes, goes or changes from here on.
        *self.server.making.lock() = Making::Over;
        let stopped = self.stop_all(flags);
        if !stopped {
            *self.server.making.lock() = Making::Open;
        }
        stopped
    }

    fn stop_all(&self, flags: ShutdownFlags) -> bool {
        let mut databases = self.server.databases.read().clone();
        databases.retain(|database| {
            let is_whole = database.stage.get() == Stage::Here;
            if !is_whole {
                database.loading.progress().stop.store(true, Ordering::Relaxed);
            }
            is_whole
        });
        let patience = Duration::from_secs(self.server.config().shutdown_timeout.into());
        for database in databases.iter().filter(|_| !flags.now) {
            if !database.replication.primary.part(database, patience) {
                return false;
            }
        }
        for database in &databases {
            let running = database.snapshots.running();
            if database.aof.is_unfinished() {
                if !flags.force {
                    log::warning!("Writing initial AOF, can't exit.");
                    return false;
                }
                log::warning!("Writing initial AOF. Exit anyway.");
            }
            if database.snapshots.cancel() {
                match running {
                    Some(Purpose::Rewrite) => {
                        log::warning!("There is a child rewriting the AOF. Killing it!");
                    }
                    _ => log::warning!("There is a child saving an .rdb. Killing it!"),
                }
                database.snapshots.wait_until_idle();
            }
        }
        for database in &databases {
            // They may hold what is to be saved, and wait for somebody.
            database.scripting.debuggers.end();
        }
        let mut saved = databases.clone();
        saved.retain(|database| is_saved(database, flags));
        if saved.is_empty() {
            leave(&databases);
            for mailbox in &self.server.mailboxes {
                mailbox.post(Message::Shutdown);
            }
            return true;
        }
        // What a client is told from here on would not be saved.
        let halt = Halt::begin(&self.server);
        log::notice!("Saving the final RDB snapshot before exiting.");
        process::notify_supervisor("STATUS=Saving the final RDB snapshot\n");
        for database in &saved {
            if snapshot::save(database).is_ok() {
                continue;
            }
            if !flags.force {
                log::warning!("Error trying to save the DB, can't exit.");
                process::notify_supervisor("STATUS=Error trying to save the DB, can't exit.\n");
                return false;
            }
            log::warning!("Error trying to save the DB. Exit anyway.");
        }
        leave(&databases);
        halt.end();
        true
    }
}

/// Puts into effect what may have changed in files, and makes links anew where that asks for it.
fn reload(server: &Arc<Server>) {
    log::notice!("Received SIGHUP: reading certificates again");
    if let Err(error) = internode::reload(server) {
        log::warning!("Going on with the certificates of before: {error}");
        return;
    }
    let server = Arc::clone(server);
    let renew = move || {
        internode::renew_links(&server);
    };
    if let Err(error) = std::thread::Builder::new().name("renew".into()).spawn(renew) {
        log::warning!("Could not make links anew: {error}");
    }
}

/// Whether a last snapshot of a database is taken: if it has save points, and SHUTDOWN SAVE asks for one of the
/// database that the process was started with even so.
fn is_saved(database: &Database, flags: ShutdownFlags) -> bool {
    let has_points = !database.config().save.is_empty();
    !flags.nosave && (has_points || flags.save && database.is_first())
}

/// The reactors are about to close all connections: nobody is to come again, and the threads of links to
/// primaries are not to make them again.
fn leave(databases: &[Arc<Database>]) {
    for database in databases {
        database.replication.is_ending.store(true, Ordering::SeqCst);
        database.listeners.lock().close();
    }
}

fn seats(asked_for: usize) -> Result<Vec<Seat>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = match asked_for {
        0 => cores.min(REACTORS_MAX),
        count => count,
    };
    (0..count).map(|_| Seat::new().context("Can't make an event loop")).collect()
}

/// The commands, under the names that `rename-command` gives them.
fn registry(renames: &[Line]) -> Result<Registry, StartError> {
    let known = Registry::new(&[]);
    let mut pairs = Vec::with_capacity(renames.len());
    for line in renames {
        let [_, old, new] = line.words.as_slice() else {
            return Err(line.error("wrong number of arguments"));
        };
        if known.find(old).is_none() {
            return Err(line.error("No such command in rename-command"));
        }
        pairs.push((old.clone(), new.clone()));
    }
    Ok(Registry::new(&pairs))
}

fn identity(config_file: Option<PathBuf>, supervised: bool) -> Identity {
    Identity {
        process_id: std::process::id(),
        run_id: process::new_run_id(),
        started_ms: clock::wall_ms(),
        program: program_name(),
        executable: std::env::current_exe().unwrap_or_default(),
        config_file,
        supervised,
    }
}

fn listen(config: &Config, database: &Database) -> Result<Change> {
    let mut listeners = database.listeners.lock();
    let (change, result) = listeners.change(&settings::endpoints(config));
    if let Err(error) = result {
        anyhow::bail!(
            "Failed listening on port {} ({}), aborting.",
            error.port(),
            error.kind().name()
        );
    }
    if listeners.is_empty() {
        anyhow::bail!("Configured to not listen anywhere, exiting.");
    }
    Ok(change)
}

fn spawn(seat: Seat, index: usize, server: Arc<Server>) -> Result<JoinHandle<()>> {
    let run = move || {
        let reactor = Reactor::new(seat, index, server);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reactor.run()));
        if ran.is_err() {
            // Its clients would hang for ever, and a supervisor would not notice.
            log::warning!("Reactor {index} ended by a bug; exiting.");
            std::process::exit(1);
        }
    };
    std::thread::Builder::new()
        .name(format!("reactor-{index}"))
        .spawn(run)
        .context("Can't start a thread")
}

fn show_banner(config: &Config, in_background: bool) {
    let to_terminal = given(&config.logfile).is_none() && std::io::stdout().is_terminal();
    let port = if config.port != 0 { config.port } else { config.tls_port };
    if !config.always_show_logo && (in_background || !to_terminal) {
        log::notice!("Running mode=standalone, port={port}.");
        return;
    }
    log::write_raw(&format!(
        "
      ____
    /\\__/\\     Carnelian {CARNELIAN_VERSION} (commands of Redis {REDIS_VERSION}) {} bit
   /_/  \\_\\
   \\ \\  / /    Running in standalone mode
    \\ \\/ /     Port: {port}
     \\__/      PID: {}

",
        usize::BITS,
        std::process::id()
    ));
}

/// The two commands that a newcomer needs, as they work here.
fn show_first_steps(config: &Config, database: &Database) {
    let configuration = database.tls.configuration();
    let authority = configuration.and_then(|configuration| configuration.client_ca_file.clone());
    let mut text = format!("\n    redis-cli -p {}\n", config.port);
    if let Some(path) = authority {
        let path = quote_for_shell(&path.display().to_string());
        text += &format!("    redis-cli -p {} --tls --cacert {path}\n", config.port);
    }
    log::write_raw(&format!("{text}\n"));
}

fn quote_for_shell(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    match text.bytes().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

fn program_name() -> String {
    let name = std::env::args_os().next().unwrap_or_else(|| "carnelian-server".into());
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use carnelian_config::{AppendFsync, SavePoint};

    use super::*;
    use crate::databases::{DatabaseError, DatabaseSpec, Persistence};
    use crate::testing::Bench;

    #[test]
    fn the_end_saves_every_database_that_keeps_data() {
        let points = vec![SavePoint { seconds: 3600, changes: 1 }];
        let mut bench = Bench::start(Config { save: points.clone(), ..Config::default() });
        let spec = |uid, persistence| DatabaseSpec {
            bind: vec!["127.0.0.1".into()],
            persistence,
            ..DatabaseSpec::new(uid, "d", Bench::free_port())
        };
        let specs = [
            spec(2, Persistence::Snapshot(points)),
            spec(3, Persistence::Aof(AppendFsync::No)),
            spec(4, Persistence::Disabled),
        ];
        let mut streams = vec![bench.connect()];
        for spec in specs {
            let port = spec.port;
            bench.server.create_database(spec).unwrap();
            streams.push(Bench::connect_to(port));
        }
        for stream in &mut streams {
            bench.exchange(stream, "SET key value\r\n", "+OK\r\n");
        }
        streams[2].write_all(b"SHUTDOWN\r\n").unwrap();
        let (_, none) = channel();
        let running = Running {
            server: Arc::clone(&bench.server),
            reactors: std::mem::take(&mut bench.reactors),
            requests: std::mem::replace(bench.requests.get_mut(), none),
            pid_file: None,
            control: None,
            is_half_loaded: false,
        };
        running.wait_for_the_end();

        let folder = |uid| bench.server.folder_of(uid);
        let has_key = |path: PathBuf| {
            std::fs::read(path).unwrap().windows(8).any(|bytes| bytes.ends_with(b"value"))
        };
        assert!(has_key(folder(1).join("dump.rdb")) && has_key(folder(2).join("dump.rdb")));
        assert!(has_key(folder(3).join("appendonlydir/appendonly.aof.1.incr.aof")));
        assert!(!folder(3).join("dump.rdb").exists() && !folder(4).join("dump.rdb").exists());
        let late = bench.server.create_database(DatabaseSpec::new(5, "late", 1));
        assert!(matches!(late, Err(DatabaseError::Ending)));
    }

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(quote_for_shell("/home/me/x-1.pem"), "/home/me/x-1.pem");
        assert_eq!(quote_for_shell("/it's here"), r"'/it'\''s here'");
    }
}
