//! Putting a changed configuration into effect while the server runs: all of it, or nothing.

use std::sync::Arc;

use carnelian_config::{Config, DirectiveId, LogLevel, SetError};
use carnelian_structs::collation::Collation;

use crate::aof;
use crate::database::Database;
use crate::databases::Stage;
use crate::internode;
use crate::listener::{Endpoints, Kind};
use crate::log::{self, Level};
use crate::process;
use crate::replication::replica;
use crate::server::Server;
use crate::settings::{self, Settings};
use crate::standing;

/// CONFIG SET of a client of this database.
///
/// `alter` makes the next configuration out of the present one, while no other change is going on, and returns what
/// `Config::set` does. `is_nested`: locks of the keyspace are held.
pub fn change(
    server: &Arc<Server>,
    database: &Arc<Database>,
    is_nested: bool,
    alter: impl FnOnce(&mut Config) -> Result<Vec<DirectiveId>, SetError>,
) -> Result<(), SetError> {
    put(server, database, is_nested, |next| {
        let changed = alter(next)?;
        if !database.is_first() {
            refuse_foreign(&changed)?;
        }
        Ok(changed)
    })
}

/// A change of the database itself, and not by one of its clients.
pub fn change_all<E: From<SetError>>(
    server: &Arc<Server>,
    database: &Arc<Database>,
    alter: impl FnOnce(&mut Config) -> Result<Vec<DirectiveId>, E>,
) -> Result<(), E> {
    put(server, database, false, alter)
}

fn put<E: From<SetError>>(
    server: &Arc<Server>,
    database: &Arc<Database>,
    is_nested: bool,
    alter: impl FnOnce(&mut Config) -> Result<Vec<DirectiveId>, E>,
) -> Result<(), E> {
    let _one_at_a_time = server.changing.lock();
    let before = database.config();
    let mut next = Config::clone(&before);
    let changed = alter(&mut next)?;
    if changed.contains(&DirectiveId::replicaof_node) {
        match internode::configured(&next) {
            Err(reason) => {
                return Err(SetError::refused(DirectiveId::replicaof_node, reason).into());
            }
            Ok(Some(_)) => next.replicaof = None,
            Ok(None) => {}
        }
    }
    prepare(server, database, is_nested, (&before, &next), &changed)?;

    let next = Arc::new(next);
    if changed.contains(&DirectiveId::requirepass) {
        database.acl.set_default_password(settings::password(&next));
    }
    obey(server, database, &next);
    internode::heed(server, database, &next, &changed);
    if database.is_first() {
        log::set_threshold(level(next.loglevel));
        share(server, &next, &changed);
        if next.set_proc_title && changed.contains(&DirectiveId::proc_title_template) {
            standing::set_title(&next, &server.identity.naming());
        }
        server.set_config(next);
        server.adapt_hz();
    }
    Ok(())
}

/// Does what may fail. Where something does, what was done before is undone.
fn prepare(
    server: &Arc<Server>,
    database: &Arc<Database>,
    is_nested: bool,
    (before, next): (&Config, &Config),
    changed: &[DirectiveId],
) -> Result<(), SetError> {
    let has = |ids: &[DirectiveId]| changed.iter().find(|id| ids.contains(id)).copied();
    if database.stage.get() == Stage::Gone {
        let id = changed.first().copied().unwrap_or(DirectiveId::port);
        return Err(SetError::refused(id, "The database is being dropped."));
    }
    if let Some(id) = has(&[DirectiveId::maxclients]) {
        let others = server.clients_of_others(database.uid);
        let possible = process::raise_descriptor_limit(next.maxclients.saturating_add(others));
        if possible < next.maxclients {
            let reason = format!(
                "The operating system is not able to handle the specified number of clients, try \
                 with {possible}"
            );
            return Err(SetError::refused(id, reason));
        }
    }
    if let Some(id) = has(&[DirectiveId::locale_collate])
        && Collation::named(&next.locale_collate).is_err()
    {
        return Err(SetError::refused(id, "Invalid locale name"));
    }
    let tls_changed = has(TLS).or(has(&[DirectiveId::bind]));
    if let Some(id) = tls_changed {
        reload_tls(database, next).map_err(|reason| SetError::refused(id, reason))?;
    }
    let undo_tls = || {
        if tls_changed.is_some()
            && let Err(reason) = reload_tls(database, before)
        {
            log::warning!("Could not go back to the TLS settings of before: {reason}");
        }
    };
    let ports_changed = has(&[DirectiveId::port, DirectiveId::tls_port, DirectiveId::bind]);
    if let Some(id) = ports_changed
        && let Err(kind) = relisten(server, database, &settings::endpoints(next))
    {
        undo_tls();
        let reason = match (id, kind) {
            (DirectiveId::bind, _) => "Failed to bind to specified addresses.",
            (_, Kind::Tcp | Kind::Tls) => "Unable to listen on this port. Check server logs.",
            (_, Kind::Unix) => "Unable to listen on this socket. Check server logs.",
        };
        return Err(SetError::refused(id, reason));
    }
    let undo = || {
        if ports_changed.is_some()
            && relisten(server, database, &settings::endpoints(before)).is_err()
        {
            log::warning!("Could not listen where it was listened before");
        }
        undo_tls();
    };
    if changed.contains(&DirectiveId::dir)
        && let Err(error) = std::env::set_current_dir(&next.dir)
    {
        undo();
        return Err(SetError::refused(DirectiveId::dir, error.to_string()));
    }
    let is_replica = database.replication.is_replica();
    let oom_score = has(&[DirectiveId::oom_score_adj, DirectiveId::oom_score_adj_values]);
    if let Some(id) = oom_score
        && let Err(error) = server.oom_score.apply(next, is_replica)
    {
        log::warning!("Unable to write oom_score_adj: {error}");
        undo();
        server.oom_score.heed(before, is_replica);
        let reason = "Failed to set current oom_score_adj. Check server logs.";
        return Err(SetError::refused(id, reason));
    }
    if changed.contains(&DirectiveId::appendonly) {
        if !next.appendonly {
            aof::disable(server, database, is_nested);
        } else if aof::enable(server, database, is_nested).is_err() {
            undo();
            server.oom_score.heed(before, is_replica);
            let reason = "Unable to turn on AOF. Check server logs.";
            return Err(SetError::refused(DirectiveId::appendonly, reason));
        }
    }
    Ok(())
}

/// Puts a configuration into effect that nothing stands against.
fn obey(server: &Arc<Server>, database: &Arc<Database>, next: &Arc<Config>) {
    let mut settings = Settings::new(next);
    // Set by DEBUG, and not by a directive.
    let environment = database.settings.load().environment.clone();
    settings.environment.limits.list_packed_threshold = environment.limits.list_packed_threshold;
    settings.environment.ignores_checksums = environment.ignores_checksums;
    database.loading.set_key_delay(next.key_load_delay);
    database.set_settings(settings);
    database.replication.primary.set_needs(database, next);
    aof::heed(server, database, next);
    database.set_config(Arc::clone(next));
    if database.is_first() {
        internode::set_source(server, next);
    }
    replica::apply_rules(database, replica::Rules::of(database));
}

/// What belongs to the process, with how it is brought from the first database's configuration into another.
macro_rules! process_wide {
    ($($field:ident)*) => {
        const PROCESS_WIDE: &[DirectiveId] = &[$(DirectiveId::$field),*];

        fn copy_process_wide(from: &Config, into: &mut Config) {
            $(into.$field = from.$field.clone();)*
        }
    };
}

process_wide! {
    hz dynamic_hz loglevel log_format log_timestamp_format hide_user_data_from_log
    crash_log_enabled crash_memcheck_enabled proc_title_template locale_collate
    shutdown_on_sigint shutdown_on_sigterm shutdown_timeout oom_score_adj oom_score_adj_values
    jemalloc_bg_thread prefetch_batch_max_size io_threads_always_active activedefrag
    use_exit_on_panic watchdog_period
}

/// What says where a database is, and so belongs to who made it.
const MAKERS: &[DirectiveId] =
    &[DirectiveId::port, DirectiveId::bind, DirectiveId::tls_port, DirectiveId::dir];

/// What a client of a database other than the first cannot change.
fn refuse_foreign(changed: &[DirectiveId]) -> Result<(), SetError> {
    if let Some(id) = changed.iter().find(|id| PROCESS_WIDE.contains(id)) {
        let reason = "it holds for the whole process, and is set through database 1";
        return Err(SetError::refused(*id, reason));
    }
    match changed.iter().find(|id| MAKERS.contains(id)) {
        Some(id) => Err(SetError::refused(*id, "it is set where the database is defined")),
        None => Ok(()),
    }
}

/// Lets the other databases know what has changed for the whole process.
fn share(server: &Arc<Server>, first: &Config, changed: &[DirectiveId]) {
    if !changed.iter().any(|id| PROCESS_WIDE.contains(id)) {
        return;
    }
    let databases = server.databases.read().clone();
    for database in databases.iter().filter(|database| !database.is_first()) {
        let mut next = Config::clone(&database.config());
        copy_process_wide(first, &mut next);
        obey(server, database, &Arc::new(next));
    }
}

/// What the TLS settings are made of. A change of `bind` adds names to a certificate of our own.
const TLS: &[DirectiveId] = &[
    DirectiveId::tls_cert_file,
    DirectiveId::tls_key_file,
    DirectiveId::tls_key_file_pass,
    DirectiveId::tls_ca_cert_file,
    DirectiveId::tls_ca_cert_dir,
    DirectiveId::tls_auth_clients,
    DirectiveId::tls_protocols,
    DirectiveId::tls_ciphers,
    DirectiveId::tls_ciphersuites,
    DirectiveId::tls_prefer_server_ciphers,
    DirectiveId::tls_session_caching,
    DirectiveId::tls_session_cache_size,
    DirectiveId::tls_session_cache_timeout,
    DirectiveId::tls_san,
];

fn reload_tls(database: &Database, config: &Config) -> Result<(), String> {
    database.sockets.clear();
    database.tls.reload(config).map_err(|error| {
        log::warning!("Failed to configure TLS: {error}");
        format!("Unable to update TLS configuration: {error}")
    })
}

/// Takes the operator's certificates as they are now, with the settings as they are. Those that will not do change nothing.
/// Whether they are in force.
pub fn reload_certificates(server: &Server, database: &Database) -> bool {
    let _one_at_a_time = server.changing.lock();
    if database.stage.get() == Stage::Gone {
        return false;
    }
    log::notice!("TLS materials changed, reloading in background");
    let is_reloaded = reload_tls(database, &database.config()).is_ok();
    if is_reloaded {
        log::notice!("TLS materials reloaded successfully");
    }
    is_reloaded
}

/// Listens on other addresses, or on those of before; then tells what could not be opened.
fn relisten(server: &Server, database: &Arc<Database>, endpoints: &Endpoints) -> Result<(), Kind> {
    let (change, result) = database.listeners.lock().change(endpoints);
    server.pass_on(database, change);
    result.map_err(|error| {
        log::warning!("Failed listening on port {} ({})", error.port(), error.kind().name());
        error.kind()
    })
}

/// The log's level of a directive.
pub fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Debug => Level::Debug,
        LogLevel::Verbose => Level::Verbose,
        LogLevel::Notice => Level::Notice,
        LogLevel::Warning => Level::Warning,
        LogLevel::Nothing => Level::Nothing,
    }
}
