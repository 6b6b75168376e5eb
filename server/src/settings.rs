//! What the configuration means for a database's connections, in types.
//!
//! Made anew from the directives whenever one changes, and read by the reactors without a lock.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carnelian_commands::Environment;
use carnelian_config::{self as config, ClientCertificates, Config, MemoryLimit, SavePoint};
use carnelian_keyspace::{AccessPolicy, Limits};
use carnelian_structs::collation::Collation;
use carnelian_tls::{
    AuthClients, ConfigError, Identity, Secret, SessionCaching, SubjectAltNames, TransitEncryption,
};

use crate::eviction::{self, Eviction};
use crate::expire::Effort;
use crate::listener::Endpoints;
use crate::pubsub::Notifications;
use crate::session::ClientClass;

#[derive(Clone, Debug)]
pub struct Settings {
    pub clients_max: usize,
    /// `timeout`; none: idle clients stay.
    pub idle_timeout: Option<Duration>,
    /// None: the system's keepalive stays off.
    pub tcp_keepalive: Option<Duration>,
    /// `proto-max-bulk-len`.
    pub bulk_bytes_max: usize,
    /// `client-query-buffer-limit`.
    pub query_bytes_max: usize,
    pub output_limits: OutputLimits,
    pub protected_mode: bool,
    /// `acllog-max-len`.
    pub acl_log_len: usize,
    /// `acl-pubsub-default allchannels`.
    pub acl_all_channels: bool,
    /// `tls-auth-clients-user`.
    pub certificate_user: CertificateUser,
    pub transit_encryption: TransitEncryption,
    /// `tls-auto-reload-interval`: how often files are looked at, if they are.
    pub certificates_ms: Option<u64>,
    /// None: a handshake may take for ever.
    pub handshake_timeout: Option<Duration>,
    /// `slowlog-log-slower-than`: commands that take as long or longer are logged.
    pub slow_ns: u64,
    /// `busy-reply-threshold`: others are told of a script that runs for longer.
    pub busy_ns: u64,
    /// From this duration on an event is noted for LATENCY.
    pub latency_ns: u64,
    /// `latency-tracking`.
    pub has_histograms: bool,
    /// `commandlog-request-larger-than`, and how many such requests are kept.
    pub large_request: LargeLog,
    /// `commandlog-reply-larger-than`, and how many such requests are kept.
    pub large_reply: LargeLog,
    /// `slowlog-max-len`.
    pub slow_log_len: usize,
    pub eviction: Eviction,
    /// `replica-ignore-maxmemory`: the primary evicts.
    pub replica_ignores_maxmemory: bool,
    /// `lazyfree-lazy-expire`: what has expired is unlinked on replicas too.
    pub lazy_expire: bool,
    /// `active-expire-effort`.
    pub expire_effort: Effort,
    /// `maxmemory-clients` in bytes; 0: any amount.
    pub clients_memory_max: usize,
    /// `tracking-table-max-keys`; 0: any number.
    pub tracked_keys_max: usize,
    /// `notify-keyspace-events`.
    pub notifications: Notifications,
    /// `save`: after how long and how many changes a snapshot is taken.
    pub save_points: Vec<SavePoint>,
    /// `stop-writes-on-bgsave-error`.
    pub stops_writes: bool,
    /// `rdb-key-save-delay`, in microseconds.
    pub save_delay_us: i32,
    /// What commands on data go by.
    pub environment: Environment,
}

impl Settings {
    pub fn new(config: &Config) -> Self {
        let seconds = |count: u32| (count != 0).then(|| Duration::from_secs(count.into()));
        Self {
            clients_max: config.maxclients as usize,
            idle_timeout: seconds(config.timeout),
            tcp_keepalive: seconds(config.tcp_keepalive),
            bulk_bytes_max: bytes(config.proto_max_bulk_len),
            query_bytes_max: bytes(config.client_query_buffer_limit),
            output_limits: OutputLimits::new(&config.client_output_buffer_limit)
                .for_backlog(bytes(config.repl_backlog_size)),
            protected_mode: config.protected_mode,
            acl_log_len: bytes(config.acllog_max_len),
            acl_all_channels: config.acl_pubsub_default == "allchannels",
            certificate_user: match config.tls_auth_clients_user {
                "CN" => CertificateUser::CommonName,
                "URI" => CertificateUser::Uri,
                _ => CertificateUser::Off,
            },
            transit_encryption: match config.transit_encryption_mode {
                config::TransitEncryption::Preferred => TransitEncryption::Preferred,
                config::TransitEncryption::Required => TransitEncryption::Required,
                config::TransitEncryption::Disabled => TransitEncryption::Disabled,
            },
            certificates_ms: match config.tls_auto_reload_interval {
                0 => None,
                seconds => Some(u64::from(seconds) * 1000),
            },
            handshake_timeout: (config.tls_handshake_timeout != 0)
                .then(|| Duration::from_millis(config.tls_handshake_timeout.into())),
            slow_ns: slow_ns(config),
            busy_ns: match config.busy_reply_threshold {
                0 => u64::MAX,
                ms => ms.saturating_mul(1_000_000),
            },
            latency_ns: match config.latency_monitor_threshold {
                0 => u64::MAX,
                ms => ms.saturating_mul(1_000_000),
            },
            has_histograms: config.latency_tracking,
            large_request: LargeLog::new(
                config.commandlog_request_larger_than,
                config.commandlog_large_request_max_len,
            ),
            large_reply: LargeLog::new(
                config.commandlog_reply_larger_than,
                config.commandlog_large_reply_max_len,
            ),
            replica_ignores_maxmemory: config.replica_ignore_maxmemory,
            lazy_expire: config.lazyfree_lazy_expire,
            slow_log_len: bytes(config.slowlog_max_len),
            eviction: Eviction {
                bytes_max: bytes(config.maxmemory),
                policy: eviction::policy(config.maxmemory_policy, config.lfu_decay_time),
                samples: config.maxmemory_samples as usize,
                slice_ns: eviction::slice_ns(config.maxmemory_eviction_tenacity),
                is_lazy: config.lazyfree_lazy_eviction,
            },
            expire_effort: Effort::new(config.active_expire_effort),
            clients_memory_max: match config.maxmemory_clients {
                MemoryLimit::Bytes(limit) => bytes(limit),
                MemoryLimit::Percent(percent) => {
                    let part = u128::from(config.maxmemory) * u128::from(percent) / 100;
                    usize::try_from(part).unwrap_or(usize::MAX)
                }
            },
            tracked_keys_max: bytes(config.tracking_table_max_keys),
            notifications: Notifications::new(config.notify_keyspace_events),
            save_points: config.save.clone(),
            stops_writes: config.stop_writes_on_bgsave_error,
            save_delay_us: config.rdb_key_save_delay,
            environment: environment(config),
        }
    }
}

/// From which size on requests are logged, and how many of them are kept.
#[derive(Clone, Copy, Debug)]
pub struct LargeLog {
    /// `usize::MAX`: none are.
    pub bytes_min: usize,
    pub len: usize,
}

impl LargeLog {
    fn new(larger_than: i64, len: u64) -> Self {
        let bytes_min = match usize::try_from(larger_than) {
            Ok(bytes) if len != 0 => bytes,
            _ => usize::MAX,
        };
        Self { bytes_min, len: bytes(len) }
    }
}

/// Never, if commands are not to be logged.
fn slow_ns(config: &Config) -> u64 {
    match u64::try_from(config.slowlog_log_slower_than) {
        Ok(us) if config.slowlog_max_len != 0 => us.saturating_mul(1000),
        _ => u64::MAX,
    }
}

fn environment(config: &Config) -> Environment {
    use carnelian_config::EvictionPolicy;

    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let built_in = Limits::default();
    Environment {
        limits: Limits {
            hash_max_listpack_entries: size(config.hash_max_listpack_entries),
            hash_max_listpack_value: size(config.hash_max_listpack_value),
            list_max_listpack_size: config.list_max_listpack_size,
            list_compress_depth: config.list_compress_depth.try_into().unwrap_or(u16::MAX),
            set_max_intset_entries: size(config.set_max_intset_entries),
            set_max_listpack_entries: size(config.set_max_listpack_entries),
            set_max_listpack_value: size(config.set_max_listpack_value),
            zset_max_listpack_entries: size(config.zset_max_listpack_entries),
            zset_max_listpack_value: size(config.zset_max_listpack_value),
            hll_sparse_max_bytes: size(config.hll_sparse_max_bytes),
            stream_node_max_bytes: size(config.stream_node_max_bytes),
            stream_node_max_entries: size(config.stream_node_max_entries),
            max_string: bytes(config.proto_max_bulk_len),
            lazy_user_del: config.lazyfree_lazy_user_del,
            lazy_user_flush: config.lazyfree_lazy_user_flush,
            lazy_server_del: config.lazyfree_lazy_server_del,
            ..built_in
        },
        policy: match config.maxmemory_policy {
            EvictionPolicy::AllkeysLfu | EvictionPolicy::VolatileLfu => AccessPolicy::Lfu {
                log_factor: config.lfu_log_factor,
                decay_minutes: config.lfu_decay_time,
            },
            _ => AccessPolicy::Lru,
        },
        lfu_decay_minutes: config.lfu_decay_time,
        shares_integers: config.maxmemory == 0
            || !matches!(
                config.maxmemory_policy,
                EvictionPolicy::AllkeysLru
                    | EvictionPolicy::VolatileLru
                    | EvictionPolicy::AllkeysLfu
                    | EvictionPolicy::VolatileLfu
            ),
        ignores_checksums: false,
        collation: Collation::named(&config.locale_collate).unwrap_or_default().map(Arc::new),
    }
}

/// Where a configuration has its database listen.
pub fn endpoints(config: &Config) -> Endpoints {
    Endpoints {
        bind: config.bind.clone(),
        port: config.port,
        tls_port: config.tls_port,
        unix_socket: given(&config.unixsocket).map(|path| config.dir.join(path)),
        unix_permissions: config.unixsocketperm,
        backlog: config.tcp_backlog,
    }
}

/// What a configuration says about TLS. Without a certificate of the operator's, one of our own making is
/// used, which lies in `folder`.
pub fn tls(config: &Config, folder: &Path) -> Result<carnelian_tls::Settings, ConfigError> {
    let in_dir = |path: &PathBuf| given(path).map(|path| config.dir.join(path));
    let given_identity = identity(
        in_dir(&config.tls_cert_file),
        in_dir(&config.tls_key_file),
        &config.tls_key_file_pass,
    );
    let identity = match given_identity {
        Some(identity) => identity,
        None => {
            let bound: Vec<IpAddr> = config
                .bind
                .iter()
                .filter_map(|text| text.strip_prefix('-').unwrap_or(text).parse().ok())
                .collect();
            Identity::SelfMade {
                folder: folder.to_owned(),
                names: SubjectAltNames::for_listening(&bound, &config.tls_san)?,
            }
        }
    };
    Ok(carnelian_tls::Settings {
        auth_clients: match config.tls_auth_clients {
            ClientCertificates::No => AuthClients::No,
            ClientCertificates::Required => AuthClients::Yes,
            ClientCertificates::Optional => AuthClients::Optional,
        },
        ca_cert_file: in_dir(&config.tls_ca_cert_file),
        ca_cert_dir: in_dir(&config.tls_ca_cert_dir),
        protocols: config.tls_protocols.clone(),
        ciphers: config.tls_ciphers.clone(),
        ciphersuites: config.tls_ciphersuites.clone(),
        prefer_server_ciphers: config.tls_prefer_server_ciphers,
        session_caching: SessionCaching {
            enabled: config.tls_session_caching,
            size: config.tls_session_cache_size as usize,
            timeout: Duration::from_secs(config.tls_session_cache_timeout.into()),
        },
        ..carnelian_tls::Settings::new(identity)
    })
}

/// The certificate that is shown where this server is the client, if it is another than where it is the server.
pub fn client_identity(config: &Config) -> Option<Identity> {
    let in_dir = |path: &PathBuf| given(path).map(|path| config.dir.join(path));
    identity(
        in_dir(&config.tls_client_cert_file),
        in_dir(&config.tls_client_key_file),
        &config.tls_client_key_file_pass,
    )
}

fn identity(
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    password: &[u8],
) -> Option<Identity> {
    let certificate = certificate?;
    // One file may hold both.
    let key = key.unwrap_or_else(|| certificate.clone());
    let key_password =
        (!password.is_empty()).then(|| Secret::new(String::from_utf8_lossy(password).into_owned()));
    Some(Identity::Files { certificate, key, key_password })
}

/// `requirepass`, if it was set.
pub fn password(config: &Config) -> Option<&[u8]> {
    (!config.requirepass.is_empty()).then_some(&config.requirepass)
}

/// A path that was set.
pub fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}

fn bytes(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// What of a client's certificate names the user that the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertificateUser {
    #[default]
    Off,
    CommonName,
    /// The first of its URIs that names one.
    Uri,
}

/// `client-output-buffer-limit` of each class.
#[derive(Clone, Copy, Debug)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    fn new(limits: &config::OutputLimits) -> Self {
        let limit = |limit: &config::OutputLimit| OutputLimit {
            hard_bytes: bytes(limit.hard_bytes),
            soft_bytes: bytes(limit.soft_bytes),
            soft_seconds: limit.soft_seconds,
        };
        Self {
            normal: limit(&limits.normal),
            replica: limit(&limits.replica),
            pubsub: limit(&limits.pubsub),
        }
    }

    /// A replica that may go on by a backlog of so many bytes may also have so much waiting.
    fn for_backlog(mut self, backlog_bytes: usize) -> Self {
        if self.replica.hard_bytes != 0 {
            self.replica.hard_bytes = self.replica.hard_bytes.max(backlog_bytes);
        }
        self
    }

    pub fn of(&self, class: ClientClass) -> &OutputLimit {
        match class {
            ClientClass::Normal | ClientClass::Primary => &self.normal,
            ClientClass::Replica => &self.replica,
            ClientClass::PubSub => &self.pubsub,
        }
    }
}

/// A size that ends a connection at once, and one that does after a while. 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OutputLimit {
    pub hard_bytes: usize,
    pub soft_bytes: usize,
    pub soft_seconds: u64,
}

impl OutputLimit {
    pub fn is_over_hard(&self, bytes: usize) -> bool {
        self.hard_max() <= bytes
    }

    /// From how many bytes on it is over the hard limit.
    pub fn hard_max(&self) -> usize {
        if self.hard_bytes == 0 { usize::MAX } else { self.hard_bytes }
    }

    pub fn is_over_soft(&self, bytes: usize) -> bool {
        self.soft_bytes != 0 && self.soft_bytes <= bytes
    }
}
