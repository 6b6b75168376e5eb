//! From a database's settings in the state to what this process makes of it.
//!
//! Database 1 is the one that `redis.conf` describes: what the state says counts there only so far as it has been
//! changed through the control plane. The settings it began with are kept in a file beside the state.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use carnelian_cluster::state::{
    AofPolicy, Database as Described, DatabasePatch, DatabaseSettings, DatabaseUser,
    EvictionPolicy, Persistence as Kept, ReplicaBuffer, Size, SnapshotRule, SubjectRule,
    SubjectValidation, TlsMode as Tls,
};
use carnelian_config::{AppendFsync, Config, EvictionPolicy as Policy, OutputLimit, SavePoint};
use carnelian_tls::Subject;

use crate::database::Database;
use crate::databases::{Access, ClientSubjects, ClientTrust, DatabaseSpec, Persistence, TlsMode};

/// The settings that database 1 had when it became one of the cluster's.
const BASE: &str = "control-plane/database-1.json";

/// How database 1 is described to the cluster, from its configuration.
pub fn of_first(database: &Database, process: &Config) -> DatabasePatch {
    let config = database.config();
    DatabasePatch {
        name: Some("db1".to_owned()),
        memory_size: Some(config.maxmemory),
        port: Some(config.port),
        eviction_policy: Some(eviction_in_state(config.maxmemory_policy)),
        data_persistence: Some(match (config.appendonly, config.save.is_empty()) {
            (true, _) => Kept::Aof,
            (false, false) => Kept::Snapshot,
            (false, true) => Kept::Disabled,
        }),
        aof_policy: Some(match config.appendfsync {
            AppendFsync::Always => AofPolicy::Always,
            AppendFsync::EverySecond | AppendFsync::No => AofPolicy::EverySecond,
        }),
        snapshot_policy: Some(
            config
                .save
                .iter()
                .map(|point| SnapshotRule { secs: point.seconds, writes: point.changes })
                .collect(),
        ),
        maxclients: Some(config.maxclients),
        tracking_table_max_keys: Some(config.tracking_table_max_keys),
        data_internode_encryption: Some(process.data_internode_encryption),
        ..DatabasePatch::default()
    }
}

pub fn save_base(folder: &Path, settings: &DatabaseSettings) -> Result<()> {
    let path = base_file(folder);
    let new = path.with_extension("new");
    // The one secret in it: nothing is compared with that.
    let settings =
        DatabaseSettings { authentication_admin_pass: String::new(), ..settings.clone() };
    std::fs::write(&new, serde_json::to_vec_pretty(&settings)?)
        .and_then(|()| std::fs::rename(&new, &path))
        .with_context(|| format!("Can't write {}", path.display()))
}

pub fn base(folder: &Path) -> Option<DatabaseSettings> {
    serde_json::from_slice(&std::fs::read(base_file(folder)).ok()?).ok()
}

fn base_file(folder: &Path) -> PathBuf {
    folder.join(BASE)
}

/// What this process is to make of a database that came with the control plane.
pub fn of(described: &Described, users: &[DatabaseUser], process: &Config) -> DatabaseSpec {
    let mut spec = DatabaseSpec::new(described.uid.0, &described.settings.name, described.port);
    spec.bind.clone_from(&process.bind);
    spec.replica_buffer = process.client_output_buffer_limit.replica;
    let nothing = DatabaseSettings::default();
    change(&mut spec, described, &nothing, true);
    spec.users = in_bytes(users);
    spec
}

/// Database 1, with what has been changed since `base`.
pub fn of_first_again(
    database: &Database,
    described: &Described,
    users: &[DatabaseUser],
    base: &DatabaseSettings,
) -> DatabaseSpec {
    let mut spec = DatabaseSpec::of(database);
    spec.name.clone_from(&described.settings.name);
    change(&mut spec, described, base, false);
    spec.users = in_bytes(users);
    spec
}

/// Brings into `spec` what differs from `base`; all of it if that is asked for.
fn change(spec: &mut DatabaseSpec, described: &Described, base: &DatabaseSettings, all: bool) {
    let settings = &described.settings;
    if all || settings.memory_size != base.memory_size {
        spec.memory_limit = settings.memory_size;
    }
    if all || settings.eviction_policy != base.eviction_policy {
        spec.eviction = eviction(settings.eviction_policy);
    }
    let persistence = |settings: &DatabaseSettings| {
        (settings.data_persistence, settings.aof_policy, settings.snapshot_policy.clone())
    };
    if all || persistence(settings) != persistence(base) {
        spec.persistence = match settings.data_persistence {
            Kept::Disabled => Persistence::Disabled,
            Kept::Aof => Persistence::Aof(match settings.aof_policy {
                AofPolicy::EverySecond => AppendFsync::EverySecond,
                AofPolicy::Always => AppendFsync::Always,
            }),
            Kept::Snapshot => Persistence::Snapshot(
                settings
                    .snapshot_policy
                    .iter()
                    .map(|rule| SavePoint { seconds: rule.secs, changes: rule.writes })
                    .collect(),
            ),
        };
    }
    if all || settings.tls_mode != base.tls_mode {
        spec.tls = match settings.tls_mode {
            Tls::Enabled => TlsMode::Enabled,
            Tls::Disabled | Tls::ReplicaSsl => TlsMode::Disabled,
        };
    }
    let trust = |settings: &DatabaseSettings| {
        (settings.enforce_client_authentication, settings.authentication_ssl_client_certs.clone())
    };
    if all || trust(settings) != trust(base) {
        spec.client_certificates = match described.enforces_client_certificates() {
            false => ClientTrust::NotAsked,
            true => ClientTrust::Required(
                settings
                    .authentication_ssl_client_certs
                    .iter()
                    .map(|one| one.client_cert.clone())
                    .collect(),
            ),
        };
    }
    spec.client_subjects = subjects(settings);
    // The lesser of the two counts; 0 connections are any number.
    let most = |settings: &DatabaseSettings| match settings.max_connections {
        0 => settings.maxclients,
        most => settings.maxclients.min(most),
    };
    if all || most(settings) != most(base) {
        spec.maxclients = most(settings);
    }
    spec.resp3 = settings.resp3;
    spec.aof_bytes_max = settings.max_aof_file_size;
    if all || settings.tracking_table_max_keys != base.tracking_table_max_keys {
        spec.tracking_table_max_keys = settings.tracking_table_max_keys;
    }
    if settings.repl_backlog_size != base.repl_backlog_size
        && let Some(bytes) = bytes(&settings.repl_backlog_size)
    {
        spec.repl_backlog_size = bytes;
    }
    if settings.slave_buffer != base.slave_buffer {
        // What it says was judged when it was asked for.
        if let Ok(Some(buffer)) = ReplicaBuffer::of(&settings.slave_buffer) {
            let ReplicaBuffer { hard_bytes, soft_bytes, soft_seconds } = buffer;
            spec.replica_buffer = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
        }
    }
    // No passwords in the state: database 1 is as its configuration says.
    if all || !described.passwords.is_empty() || settings.default_user != base.default_user {
        spec.access = Some(Access {
            passwords: described.passwords.iter().map(|it| it.clone().into_bytes()).collect(),
            default_user: settings.default_user,
        });
    }
    spec.data_internode_encryption = settings.data_internode_encryption;
}

/// Whom certificates of clients may be for.
fn subjects(settings: &DatabaseSettings) -> ClientSubjects {
    let rules = &settings.authorized_subjects;
    match settings.client_cert_subject_validation_type {
        SubjectValidation::Disabled => ClientSubjects::Anybody,
        SubjectValidation::SanCn => {
            ClientSubjects::Named(rules.iter().map(|rule| rule.cn.clone()).collect())
        }
        SubjectValidation::FullSubject => {
            let subject = |rule: &SubjectRule| Subject {
                common_name: Some(rule.cn.clone()),
                organization: rule.o.clone(),
                units: rule.ou.clone(),
                locality: rule.l.clone(),
                state: rule.st.clone(),
                country: rule.c.clone(),
                alternatives: Vec::new(),
            };
            ClientSubjects::Subjects(rules.iter().map(subject).collect())
        }
    }
}

fn in_bytes(users: &[DatabaseUser]) -> Vec<(String, Vec<Vec<u8>>)> {
    let words = |words: &[String]| words.iter().map(|word| word.clone().into_bytes()).collect();
    users.iter().map(|(name, it)| (name.clone(), words(it))).collect()
}

/// A number of bytes; none for `auto`.
fn bytes(size: &Size) -> Option<u64> {
    match size {
        Size::Bytes(bytes) => Some(*bytes),
        Size::Text(text) => text.parse().ok(),
    }
}

fn eviction(policy: EvictionPolicy) -> Policy {
    match policy {
        EvictionPolicy::VolatileLru => Policy::VolatileLru,
        EvictionPolicy::VolatileLfu => Policy::VolatileLfu,
        EvictionPolicy::VolatileTtl => Policy::VolatileTtl,
        EvictionPolicy::VolatileRandom => Policy::VolatileRandom,
        EvictionPolicy::AllkeysLru => Policy::AllkeysLru,
        EvictionPolicy::AllkeysLfu => Policy::AllkeysLfu,
        EvictionPolicy::AllkeysRandom => Policy::AllkeysRandom,
        EvictionPolicy::Noeviction => Policy::NoEviction,
    }
}

fn eviction_in_state(policy: Policy) -> EvictionPolicy {
    match policy {
        Policy::VolatileLru => EvictionPolicy::VolatileLru,
        Policy::VolatileLfu => EvictionPolicy::VolatileLfu,
        Policy::VolatileTtl => EvictionPolicy::VolatileTtl,
        Policy::VolatileRandom => EvictionPolicy::VolatileRandom,
        Policy::AllkeysLru => EvictionPolicy::AllkeysLru,
        Policy::AllkeysLfu => EvictionPolicy::AllkeysLfu,
        Policy::AllkeysRandom => EvictionPolicy::AllkeysRandom,
        Policy::NoEviction => EvictionPolicy::Noeviction,
    }
}
