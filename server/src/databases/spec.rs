//! What is asked for of a database: a description that its configuration follows from.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use carnelian_config::{
    AppendFsync, ClientCertificates, Config, DirectiveId, EvictionPolicy, KeyspaceEvents,
    MemoryLimit, OutputLimit, Permission, SavePoint, SetError, TransitEncryption,
};
use carnelian_tls::Subject;
use rustls::pki_types::CertificateDer;

use super::DatabaseError;
use crate::acl::{DEFAULT, Replacement, has_spaces};
use crate::database::Database;

/// A database as its maker wants it. The process's own configuration says the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSpec {
    /// 1 for the one that the process was started with; it names the folder of all others.
    pub uid: u32,
    pub name: String,
    pub port: u16,
    /// As in the `bind` directive.
    pub bind: Vec<String>,
    /// In bytes; 0: any amount.
    pub memory_limit: u64,
    pub eviction: EvictionPolicy,
    pub persistence: Persistence,
    /// Who may come in as the default user; none: as it is.
    pub access: Option<Access>,
    /// Further users, each with its rules in the words of ACL SETUSER. Those who were here before and are not
    /// any more are deleted; users that clients made stay.
    pub users: Vec<(String, Vec<Vec<u8>>)>,
    pub tls: TlsMode,
    pub client_certificates: ClientTrust,
    /// Whom certificates that clients show have to be for.
    pub client_subjects: ClientSubjects,
    /// What is shown to clients; none: what the process shows.
    pub certificate: Option<CertificateFiles>,
    pub maxclients: u32,
    /// Whether clients may choose RESP3.
    pub resp3: bool,
    /// An append-only file that is longer is rewritten as soon as that may make it shorter; 0: any length.
    pub aof_bytes_max: u64,
    pub repl_backlog_size: u64,
    /// How much a replica may leave unread.
    pub replica_buffer: OutputLimit,
    pub tracking_table_max_keys: u64,
    pub notify_keyspace_events: String,
    /// What passes between nodes for this database is encrypted.
    pub data_internode_encryption: bool,
}

/// Where the data of a database is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Persistence {
    Disabled,
    Snapshot(Vec<SavePoint>),
    Aof(AppendFsync),
}

/// The default user of a database.
#[derive(Clone, PartialEq)]
pub struct Access {
    /// None at all: it needs none.
    pub passwords: Vec<Vec<u8>>,
    /// Whether there is a default user.
    pub default_user: bool,
}

/// What clients may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disabled,
    /// TLS and nothing else.
    Enabled,
    /// Whatever they like.
    Preferred,
}

/// Which certificates clients have to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTrust {
    /// As the configuration has it.
    Unchanged,
    /// None is asked for.
    NotAsked,
    /// One that these lead to: certificates in PEM.
    Required(Vec<String>),
}

/// Whom a client's certificate may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientSubjects {
    Anybody,
    /// The common name, or another name, is one of these.
    Named(Vec<String>),
    /// The subject is one of these in all its parts.
    Subjects(Vec<Subject>),
}

impl ClientSubjects {
    pub fn admit(&self, certificate: &CertificateDer<'_>) -> bool {
        if *self == Self::Anybody {
            return true;
        }
        let Ok(subject) = Subject::of(certificate) else { return false };
        match self {
            Self::Anybody => true,
            Self::Named(names) => names.iter().any(|name| subject.is_named(name)),
            Self::Subjects(subjects) => subjects.iter().any(|one| subject.is(one)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Without anything secret.
impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("passwords", &self.passwords.len())
            .field("default_user", &self.default_user)
            .finish()
    }
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self { passwords: Vec::new(), default_user: true }
    }

    /// What makes the default user, from nothing.
    fn words(&self) -> Vec<Vec<u8>> {
        let mut words: Vec<Vec<u8>> = ["~*", "&*", "+@all"].map(Into::into).into();
        words.push(if self.default_user { "on" } else { "off" }.into());
        if self.passwords.is_empty() {
            words.push("nopass".into());
        }
        words.extend(self.passwords.iter().map(|password| [b">", password.as_slice()].concat()));
        words
    }
}

impl DatabaseSpec {
    /// One that anybody may use, with nothing kept on disk.
    pub fn new(uid: u32, name: impl Into<String>, port: u16) -> Self {
        let built_in = Config::default();
        Self {
            uid,
            name: name.into(),
            port,
            bind: built_in.bind,
            memory_limit: 0,
            eviction: EvictionPolicy::VolatileLru,
            persistence: Persistence::Disabled,
            access: Some(Access::open()),
            users: Vec::new(),
            tls: TlsMode::Disabled,
            client_certificates: ClientTrust::NotAsked,
            client_subjects: ClientSubjects::Anybody,
            certificate: None,
            maxclients: built_in.maxclients,
            resp3: true,
            aof_bytes_max: 0,
            repl_backlog_size: built_in.repl_backlog_size,
            replica_buffer: built_in.client_output_buffer_limit.replica,
            tracking_table_max_keys: built_in.tracking_table_max_keys,
            notify_keyspace_events: String::new(),
            data_internode_encryption: false,
        }
    }

    /// What a database is now: what it was made from, with what CONFIG SET has changed since.
    pub fn of(database: &Database) -> Self {
        let config = database.config();
        let kept = database.spec.load_full();
        let kept = kept.as_deref();
        Self {
            uid: database.uid,
            name: kept.map_or_else(|| format!("db{}", database.uid), |spec| spec.name.clone()),
            port: config.port,
            bind: config.bind.clone(),
            memory_limit: config.maxmemory,
            eviction: config.maxmemory_policy,
            persistence: match config.appendonly {
                true => Persistence::Aof(config.appendfsync),
                false if config.save.is_empty() => Persistence::Disabled,
                false => Persistence::Snapshot(config.save.clone()),
            },
            access: kept.and_then(|spec| spec.access.clone()),
            users: kept.map(|spec| spec.users.clone()).unwrap_or_default(),
            tls: match config.transit_encryption_mode {
                TransitEncryption::Preferred => TlsMode::Preferred,
                TransitEncryption::Required => TlsMode::Enabled,
                TransitEncryption::Disabled => TlsMode::Disabled,
            },
            client_certificates: kept
                .map_or(ClientTrust::Unchanged, |spec| spec.client_certificates.clone()),
            client_subjects: kept
                .map_or(ClientSubjects::Anybody, |spec| spec.client_subjects.clone()),
            certificate: kept.and_then(|spec| spec.certificate.clone()),
            maxclients: config.maxclients,
            resp3: kept.is_none_or(|spec| spec.resp3),
            aof_bytes_max: kept.map_or(0, |spec| spec.aof_bytes_max),
            repl_backlog_size: config.repl_backlog_size,
            replica_buffer: config.client_output_buffer_limit.replica,
            tracking_table_max_keys: config.tracking_table_max_keys,
            notify_keyspace_events: shown(&config, DirectiveId::notify_keyspace_events),
            data_internode_encryption: kept.is_some_and(|spec| spec.data_internode_encryption),
        }
    }

    /// What is wrong with it, whatever else there is.
    pub fn check(&self) -> Result<(), DatabaseError> {
        // Half of the bits of a listener's id are the uid's, but for one.
        if self.uid == 0 || self.uid > u32::MAX >> 1 {
            return Err(DatabaseError::BadUid(self.uid));
        }
        for (name, _) in &self.users {
            if name.is_empty() || has_spaces(name.as_bytes()) || name.as_bytes() == DEFAULT {
                let reason = "this name cannot be given".to_owned();
                return Err(DatabaseError::User { name: name.clone(), reason });
            }
        }
        Ok(())
    }

    /// What makes its users, each from nothing; those that are to go have no words. `before` is what was asked
    /// for last.
    pub fn user_changes(&self, before: Option<&Self>) -> Vec<Replacement> {
        let default = self.access.iter().map(|it| (DEFAULT.to_vec(), Some(it.words())));
        let users =
            self.users.iter().map(|(name, words)| (name.clone().into_bytes(), Some(words.clone())));
        let is_asked_for = |name: &String| self.users.iter().any(|(other, _)| other == name);
        let gone = before.into_iter().flat_map(|before| &before.users);
        let gone = gone.filter(|(name, _)| !is_asked_for(name));
        let gone = gone.map(|(name, _)| (name.clone().into_bytes(), None));
        default.chain(users).chain(gone).collect()
    }

    /// Writes it into a configuration, together with the file of the authorities of clients. Returns which
    /// directives have a new value.
    pub fn write_into(
        &self,
        config: &mut Config,
        authorities: Option<&Path>,
    ) -> Result<Vec<DirectiveId>, SetError> {
        let mut save = String::new();
        if let Persistence::Snapshot(points) = &self.persistence {
            for SavePoint { seconds, changes } in points {
                // Writing to a string does not fail.
                let _ =
                    write!(save, "{}{seconds} {changes}", if save.is_empty() { "" } else { " " });
            }
        }
        let text = |text: &dyn ToString| text.to_string().into_bytes();
        let mut pairs: Vec<(&str, Vec<u8>)> = vec![
            ("port", text(&self.port)),
            ("bind", self.bind.join(" ").into_bytes()),
            ("maxmemory", text(&self.memory_limit)),
            ("maxmemory-policy", text(&self.eviction.word())),
            ("save", save.into_bytes()),
            ("transit-encryption-mode", text(&self.tls.word())),
            ("maxclients", text(&self.maxclients)),
            ("repl-backlog-size", text(&self.repl_backlog_size)),
            ("tracking-table-max-keys", text(&self.tracking_table_max_keys)),
            ("notify-keyspace-events", self.notify_keyspace_events.clone().into_bytes()),
        ];
        let OutputLimit { hard_bytes, soft_bytes, soft_seconds } = self.replica_buffer;
        let limit = format!("replica {hard_bytes} {soft_bytes} {soft_seconds}");
        pairs.push(("client-output-buffer-limit", limit.into_bytes()));
        let is_aof = matches!(self.persistence, Persistence::Aof(_));
        pairs.push(("appendonly", text(&if is_aof { "yes" } else { "no" })));
        if let Persistence::Aof(policy) = self.persistence {
            pairs.push(("appendfsync", text(&policy.word())));
        }
        if let Some(access) = &self.access {
            pairs.push(("requirepass", access.passwords.first().cloned().unwrap_or_default()));
        }
        let mut paths: Vec<(DirectiveId, &Path)> = Vec::new();
        if let Some(files) = &self.certificate {
            paths.push((DirectiveId::tls_cert_file, &files.certificate));
            paths.push((DirectiveId::tls_key_file, &files.key));
        }
        let nowhere = Path::new("");
        let asked = match &self.client_certificates {
            ClientTrust::Unchanged => None,
            ClientTrust::NotAsked => Some((nowhere, ClientCertificates::No)),
            ClientTrust::Required(_) => {
                Some((authorities.unwrap_or(nowhere), ClientCertificates::Required))
            }
        };
        if let Some((file, asked)) = asked {
            paths.push((DirectiveId::tls_ca_cert_file, file));
            paths.push((DirectiveId::tls_ca_cert_dir, nowhere));
            pairs.push(("tls-auth-clients", text(&asked.word())));
        }
        for (id, path) in paths {
            let path = path.as_os_str().as_encoded_bytes();
            // Directives that name files count as changed whenever they are set.
            if config.shown(id) != path {
                pairs.push((id.name(), path.to_vec()));
            }
        }
        let pairs: Vec<(&[u8], &[u8])> =
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())).collect();
        config.set(&pairs, Permission::Protected)
    }
}

impl TlsMode {
    fn word(self) -> &'static str {
        match self {
            Self::Disabled => TransitEncryption::Disabled,
            Self::Enabled => TransitEncryption::Required,
            Self::Preferred => TransitEncryption::Preferred,
        }
        .word()
    }
}

fn shown(config: &Config, id: DirectiveId) -> String {
    String::from_utf8_lossy(&config.shown(id)).into_owned()
}

/// What a database that is made while the process runs begins with: the process's configuration, without
/// what is the first database's own.
pub fn template(process: &Config, base: &Path, folder: PathBuf) -> Config {
    let built_in = Config::default();
    let absolute = |path: &Path| match path.as_os_str().is_empty() {
        true => PathBuf::new(),
        false => base.join(path),
    };
    Config {
        dir: folder,
        tls_port: 0,
        unixsocket: PathBuf::new(),
        // Who may come in is said in so many words.
        protected_mode: false,
        requirepass: Vec::new(),
        aclfile: PathBuf::new(),
        replicaof: None,
        masterauth: Vec::new(),
        masteruser: Vec::new(),
        min_replicas_to_write: 0,
        replica_announce_ip: String::new(),
        replica_announce_port: 0,
        maxmemory_clients: MemoryLimit::Bytes(0),
        notify_keyspace_events: KeyspaceEvents::default(),
        dbfilename: built_in.dbfilename,
        appendfilename: built_in.appendfilename,
        appenddirname: built_in.appenddirname,
        appendonly: false,
        appendfsync: built_in.appendfsync,
        save: Vec::new(),
        key_load_delay: 0,
        rdb_key_save_delay: 0,
        tls_cert_file: absolute(&process.tls_cert_file),
        tls_key_file: absolute(&process.tls_key_file),
        tls_client_cert_file: absolute(&process.tls_client_cert_file),
        tls_client_key_file: absolute(&process.tls_client_key_file),
        tls_ca_cert_file: absolute(&process.tls_ca_cert_file),
        tls_ca_cert_dir: absolute(&process.tls_ca_cert_dir),
        data_at_rest_key_file: absolute(&process.data_at_rest_key_file),
        included: Default::default(),
        ..process.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_what_its_configuration_says() {
        let base = Config { tls_cert_file: "a.pem".into(), ..Config::default() };
        let mut config = template(&base, Path::new("/data"), "/data/db-7".into());
        assert_eq!(config.tls_cert_file, Path::new("/data/a.pem"));
        assert!(config.tls_key_file.as_os_str().is_empty());
        let points =
            vec![SavePoint { seconds: 60, changes: 1 }, SavePoint { seconds: 5, changes: 9 }];
        let spec = DatabaseSpec {
            memory_limit: 1 << 20,
            persistence: Persistence::Snapshot(points.clone()),
            tls: TlsMode::Enabled,
            access: Some(Access { passwords: vec![b"a b".to_vec()], ..Access::open() }),
            bind: vec!["127.0.0.1".into(), "-::1".into()],
            ..DatabaseSpec::new(7, "seven", 7777)
        };
        let changed = spec.write_into(&mut config, None).unwrap();
        assert!(changed.contains(&DirectiveId::maxmemory) && changed.contains(&DirectiveId::port));
        assert_eq!((config.maxmemory, config.port, config.save.clone()), (1 << 20, 7777, points));
        assert_eq!(config.transit_encryption_mode, TransitEncryption::Required);
        assert_eq!(
            (config.requirepass.as_slice(), config.bind.clone()),
            (&b"a b"[..], spec.bind.clone())
        );
        assert_eq!(spec.write_into(&mut config, None).unwrap(), [], "nothing is new");

        let aof = DatabaseSpec { persistence: Persistence::Aof(AppendFsync::Always), ..spec };
        aof.write_into(&mut config, None).unwrap();
        assert!(config.appendonly && config.save.is_empty());
        assert_eq!(config.appendfsync, AppendFsync::Always);
    }

    #[test]
    fn users_that_are_not_asked_for_any_more_go() {
        let user = |name: &str| (name.to_owned(), vec![b"on".to_vec()]);
        let before =
            DatabaseSpec { users: vec![user("a"), user("b")], ..DatabaseSpec::new(2, "", 0) };
        let after = DatabaseSpec { users: vec![user("b")], ..before.clone() };
        let shown = |changes: Vec<Replacement>| {
            let shown = changes
                .into_iter()
                .map(|(name, words)| (String::from_utf8(name).unwrap(), words.is_some()));
            shown.collect::<Vec<_>>()
        };
        let owned = |name: &str, stays| (name.to_owned(), stays);
        let (default, b, a) = (owned("default", true), owned("b", true), owned("a", false));
        assert_eq!(shown(after.user_changes(Some(&before))), [default, b.clone(), a]);
        // As it is: nothing is said of the default user.
        let unsaid = DatabaseSpec { access: None, ..after };
        assert_eq!(shown(unsaid.user_changes(None)), [b]);
    }
}
