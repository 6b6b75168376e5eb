//! Putting a changed configuration into effect while the server runs: all of it, or nothing.

use std::sync::Arc;

use carnelian_config::{Config, DirectiveId, LogLevel, SetError};

use crate::aof;
use crate::database::Database;
use crate::listener::{Endpoints, Kind};
use crate::log::{self, Level};
use crate::process;
use crate::replication::replica;
use crate::server::Server;
use crate::settings::{self, Settings};
use crate::standing;

/// Makes `next` the configuration of the server. `changed` is what `Config::set` returned.
///
/// `alter` makes the next configuration out of the present one, while no other change is going on.
/// `is_nested`: locks of the keyspace are held.
pub fn change(
    server: &Arc<Server>,
    database: &Arc<Database>,
    is_nested: bool,
    alter: impl FnOnce(&mut Config) -> Result<Vec<DirectiveId>, SetError>,
) -> Result<(), SetError> {
    let _one_at_a_time = server.changing.lock();
    let before = server.config();
    let mut next = Config::clone(&before);
    let changed = alter(&mut next)?;

    let has = |ids: &[DirectiveId]| changed.iter().find(|id| ids.contains(id)).copied();
    if let Some(id) = has(&[DirectiveId::maxclients]) {
        let possible = process::raise_descriptor_limit(next.maxclients);
        if possible < next.maxclients {
            let reason = format!(
                "The operating system is not able to handle the specified number of clients, try \
                 with {possible}"
            );
            return Err(SetError::refused(id, reason));
        }
    }
    let tls_changed = has(TLS).or(has(&[DirectiveId::bind]));
    if let Some(id) = tls_changed {
        reload_tls(database, &next).map_err(|reason| SetError::refused(id, reason))?;
    }
    if let Some(id) = has(&[DirectiveId::port, DirectiveId::tls_port, DirectiveId::bind]) {
        let relisten = relisten(server, database, &settings::endpoints(&next));
        if let Err(kind) = relisten {
            if tls_changed.is_some()
                && let Err(reason) = reload_tls(database, &before)
            {
                log::warning!("Could not go back to the TLS settings of before: {reason}");
            }
            let reason = match (id, kind) {
                (DirectiveId::bind, _) => "Failed to bind to specified addresses.",
                (_, Kind::Tcp | Kind::Tls) => "Unable to listen on this port. Check server logs.",
                (_, Kind::Unix) => "Unable to listen on this socket. Check server logs.",
            };
            return Err(SetError::refused(id, reason));
        }
    }
    if changed.contains(&DirectiveId::dir)
        && let Err(error) = std::env::set_current_dir(&next.dir)
    {
        return Err(SetError::refused(DirectiveId::dir, error.to_string()));
    }
    let is_replica = database.replication.is_replica();
    let oom_score = has(&[DirectiveId::oom_score_adj, DirectiveId::oom_score_adj_values]);
    if let Some(id) = oom_score
        && let Err(error) = server.oom_score.apply(&next, is_replica)
    {
        log::warning!("Unable to write oom_score_adj: {error}");
        server.oom_score.heed(&before, is_replica);
        let reason = "Failed to set current oom_score_adj. Check server logs.";
        return Err(SetError::refused(id, reason));
    }
    if changed.contains(&DirectiveId::appendonly) {
        if !next.appendonly {
            aof::disable(server, database, is_nested);
        } else if aof::enable(server, database, is_nested).is_err() {
            server.oom_score.heed(&before, is_replica);
            let reason = "Unable to turn on AOF. Check server logs.";
            return Err(SetError::refused(DirectiveId::appendonly, reason));
        }
    }

    if next.set_proc_title && changed.contains(&DirectiveId::proc_title_template) {
        standing::set_title(&next, &server.identity.naming());
    }
    log::set_threshold(level(next.loglevel));
    let mut settings = Settings::new(&next);
    // Set by DEBUG, and not by a directive.
    let environment = database.settings.load().environment;
    settings.environment.limits.list_packed_threshold = environment.limits.list_packed_threshold;
    settings.environment.ignores_checksums = environment.ignores_checksums;
    if changed.contains(&DirectiveId::requirepass) {
        database.acl.set_default_password(settings::password(&next));
    }
    database.loading.set_key_delay(next.key_load_delay);
    database.set_settings(settings);
    database.replication.primary.set_needs(database, &next);
    aof::heed(server, database, &next);
    *server.config.write() = Arc::new(next);
    server.adapt_hz();
    replica::apply_rules(database, replica::Rules::of(server));
    Ok(())
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
    database.tls.reload(config).map_err(|error| {
        log::warning!("Failed to configure TLS: {error}");
        format!("Unable to update TLS configuration: {error}")
    })
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
