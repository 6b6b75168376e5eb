//! Every directive, declared once.
//!
//! A row gives the field of [`Config`] (the name with `_` for `-`), its type, what is built in, the
//! kind with its limits, when it may change, whether the server acts on it yet, and further names.
//! What each is for stands in `redis.conf.example`; a test holds the two together. Limits, defaults
//! and names are those of Redis 8.0 and, for what only it has, Valkey 9.1.

use std::path::PathBuf;

use crate::check;
use crate::choice::{
    Allow, AppendFsync, ClientCertificates, ClusterBootstrap, EvictionPolicy, LogLevel,
    OomScoreMode, Supervised, TransitEncryption,
};
use crate::directive::{HIDDEN, PROTECTED, SENSITIVE, VOLATILE, directives};
use crate::kind::Kind;
use crate::lists::{
    KeyspaceEvents, MemoryLimit, OomScores, OutputLimits, Primary, SavePoint, ShutdownFlags,
};

const I32_MIN: i64 = i32::MIN as i64;
const I32_MAX: i64 = i32::MAX as i64;
const U32_MAX: i64 = u32::MAX as i64;
const I64_MAX: i64 = i64::MAX;
/// Sizes that Redis keeps in a signed number.
const SIZE_MAX: u64 = i64::MAX as u64;

const TEXT: Kind = Kind::Text(check::any);
const BIND: Kind =
    Kind::Words { most: 16, too_many: "Too many bind addresses specified.", check: check::any };
const SAN: Kind =
    Kind::Words { most: 100, too_many: "Too many names.", check: check::certificate_name };
const NODE: Kind = Kind::Words {
    most: 3,
    too_many: "A node's number, its host and perhaps its port.",
    check: check::any,
};
const SYSLOG_FACILITIES: &[&str] =
    &["user", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"];

const fn int(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const fn memory(min: i64, max: u64) -> Kind {
    Kind::Memory { min, max }
}

directives! {
    // Network.
    port: u16 = "6379", int(0, 65535), AnyTime, Obeyed;
    bind: Vec<String> = "* -::*", BIND, AnyTime, Obeyed;
    bind_source_addr: String = "", TEXT, AnyTime, Obeyed;
    protected_mode: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    unixsocket: PathBuf = "", Kind::Path, StartOnly, Obeyed;
    unixsocketperm: u32 = "0", Kind::Octal { max: 0o777 }, StartOnly, Obeyed;
    unixsocketgroup: String = "", TEXT, StartOnly, Later;
    tcp_backlog: u32 = "511", int(0, I32_MAX), StartOnly, Obeyed;
    tcp_keepalive: u32 = "300", int(0, I32_MAX), AnyTime, Obeyed;
    timeout: u32 = "0", int(0, I32_MAX), AnyTime, Obeyed;
    maxclients: u32 = "10000", int(1, U32_MAX), AnyTime, Obeyed;
    max_new_connections_per_cycle: u32 = "10", int(1, 1000), AnyTime, Later;
    max_new_tls_connections_per_cycle: u32 = "1", int(1, 1000), AnyTime, Later;
    socket_mark_id: u32 = "0", int(0, U32_MAX), StartOnly, Later;
    mptcp: bool = "no", Kind::Bool, StartOnly, Later;
    repl_mptcp: bool = "no", Kind::Bool, StartOnly, Later;
    rdma_port: u16 = "0", int(0, 65535), AnyTime, Later;
    rdma_bind: String = "", TEXT, StartOnly, Later;
    rdma_rx_size: u32 = "1048576", int(65536, 16777216), StartOnly, Later;
    rdma_completion_vector: i32 = "-1", int(-1, 1024), StartOnly, Later;

    // TLS.
    transit_encryption_mode: TransitEncryption = "preferred",
        Kind::Word(TransitEncryption::WORDS), AnyTime, Obeyed;
    tls_san: Vec<String> = "", SAN, AnyTime, Obeyed;
    tls_handshake_timeout: u32 = "10000", int(1, I32_MAX), AnyTime, Obeyed;
    tls_port: u16 = "0", int(0, 65535), AnyTime, Obeyed;
    tls_cert_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_key_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_key_file_pass: Vec<u8> = "", Kind::Secret, AnyTime + SENSITIVE, Obeyed;
    tls_client_cert_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_client_key_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_client_key_file_pass: Vec<u8> = "", Kind::Secret, AnyTime + SENSITIVE, Obeyed;
    tls_dh_params_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Later;
    tls_ca_cert_file: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_ca_cert_dir: PathBuf = "", Kind::Path, AnyTime + VOLATILE, Obeyed;
    tls_auth_clients: ClientCertificates = "yes",
        Kind::Word(ClientCertificates::WORDS), AnyTime, Obeyed;
    tls_auth_clients_user: &'static str = "off", Kind::Word(&["CN", "URI", "off"]), AnyTime, Obeyed;
    tls_auto_reload_interval: u32 = "0", int(0, I32_MAX), AnyTime, Obeyed;
    tls_protocols: String = "", TEXT, AnyTime, Obeyed;
    tls_ciphers: String = "", TEXT, AnyTime, Obeyed;
    tls_ciphersuites: String = "", TEXT, AnyTime, Obeyed;
    tls_prefer_server_ciphers: bool = "no", Kind::Bool, AnyTime, Obeyed;
    tls_session_caching: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    tls_session_cache_size: u32 = "20480", int(0, I32_MAX), AnyTime, Obeyed;
    tls_session_cache_timeout: u32 = "300", int(0, I32_MAX), AnyTime, Obeyed;
    tls_replication: bool = "no", Kind::Bool, AnyTime, Obeyed;
    tls_cluster: bool = "no", Kind::Bool, AnyTime, Obeyed;

    // General.
    daemonize: bool = "no", Kind::Bool, StartOnly, Obeyed;
    supervised: Supervised = "no", Kind::Word(Supervised::WORDS), StartOnly, Obeyed;
    pidfile: PathBuf = "", Kind::Path, StartOnly, Obeyed;
    dir: PathBuf = "./", Kind::Folder, AnyTime + PROTECTED, Obeyed;
    loglevel: LogLevel = "notice", Kind::Word(LogLevel::WORDS), AnyTime, Obeyed;
    logfile: PathBuf = "", Kind::Path, StartOnly, Obeyed;
    log_format: &'static str = "legacy", Kind::Word(&["legacy", "logfmt", "json"]), AnyTime, Later;
    log_timestamp_format: &'static str = "legacy",
        Kind::Word(&["legacy", "iso8601", "milliseconds"]), AnyTime, Later;
    hide_user_data_from_log: bool = "no", Kind::Bool, AnyTime, Later;
    syslog_enabled: bool = "no", Kind::Bool, StartOnly, Later;
    syslog_ident: String = "redis", TEXT, StartOnly, Later;
    syslog_facility: &'static str = "local0",
        Kind::Word(SYSLOG_FACILITIES), StartOnly, Later;
    crash_log_enabled: bool = "yes", Kind::Bool, AnyTime, Later;
    crash_memcheck_enabled: bool = "yes", Kind::Bool, AnyTime, Later;
    always_show_logo: bool = "no", Kind::Bool, StartOnly, Obeyed;
    set_proc_title: bool = "yes", Kind::Bool, StartOnly, Obeyed;
    proc_title_template: String = "{title} {listen-addr} {server-mode}",
        Kind::Text(check::title_template), AnyTime, Obeyed;
    locale_collate: String = "", TEXT, AnyTime, Obeyed;
    databases: u32 = "16", int(1, I32_MAX), StartOnly, Obeyed;
    io_threads: u32 = "0", int(0, 128), StartOnly, Obeyed;
    prefetch_batch_max_size: u32 = "16", int(0, 128), AnyTime, Later;
    hz: u32 = "10", int(0, I32_MAX), AnyTime, Obeyed;
    dynamic_hz: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    busy_reply_threshold: u64 = "5000", int(0, I64_MAX), AnyTime, Obeyed, "lua-time-limit";
    enable_protected_configs: Allow = "no", Kind::Word(Allow::WORDS), StartOnly, Obeyed;
    enable_debug_command: Allow = "no", Kind::Word(Allow::WORDS), StartOnly, Obeyed;
    enable_module_command: Allow = "no", Kind::Word(Allow::WORDS), StartOnly, Later;
    shutdown_on_sigint: ShutdownFlags = "default",
        Kind::Flags(ShutdownFlags::WORDS), AnyTime, Obeyed;
    shutdown_on_sigterm: ShutdownFlags = "default",
        Kind::Flags(ShutdownFlags::WORDS), AnyTime, Obeyed;
    shutdown_timeout: u32 = "10", int(0, I32_MAX), AnyTime, Obeyed;
    extended_redis_compatibility: bool = "no", Kind::Bool, AnyTime, Later;
    availability_zone: String = "", TEXT, AnyTime, Obeyed;
    ignore_warnings: String = "", TEXT, AnyTime, Later;
    disable_thp: bool = "no", Kind::Bool, StartOnly, Obeyed;
    server_cpulist: String = "", TEXT, StartOnly, Later, "server_cpulist";
    bio_cpulist: String = "", TEXT, StartOnly, Later, "bio_cpulist";
    aof_rewrite_cpulist: String = "", TEXT, StartOnly, Later, "aof_rewrite_cpulist";
    bgsave_cpulist: String = "", TEXT, StartOnly, Later, "bgsave_cpulist";
    oom_score_adj: OomScoreMode = "no", Kind::Word(OomScoreMode::WORDS), AnyTime, Obeyed;
    oom_score_adj_values: OomScores = "0 200 800", Kind::OomScores, AnyTime, Obeyed;
    hash_seed: String = "", TEXT, StartOnly, Later;

    // Security.
    requirepass: Vec<u8> = "", Kind::Secret, AnyTime + SENSITIVE, Obeyed;
    aclfile: PathBuf = "", Kind::Path, StartOnly, Obeyed;
    acl_pubsub_default: &'static str = "resetchannels",
        Kind::Word(&["allchannels", "resetchannels"]), AnyTime, Obeyed;
    acllog_max_len: u64 = "128", int(0, I64_MAX), AnyTime, Obeyed;

    // Limits on clients.
    client_query_buffer_limit: u64 = "1gb", memory(1 << 20, SIZE_MAX), AnyTime, Obeyed;
    client_output_buffer_limit: OutputLimits =
        "normal 0 0 0 replica 256mb 64mb 60 pubsub 32mb 8mb 60",
        Kind::OutputLimits, AnyTime, Obeyed;
    proto_max_bulk_len: u64 = "512mb", memory(1 << 20, SIZE_MAX), AnyTime, Obeyed;
    maxmemory_clients: MemoryLimit = "0", Kind::MemoryOrPercent, AnyTime, Obeyed;
    tracking_table_max_keys: u64 = "1000000", int(0, I64_MAX), AnyTime, Obeyed;

    // Memory.
    maxmemory: u64 = "0", memory(0, u64::MAX), AnyTime, Obeyed;
    maxmemory_policy: EvictionPolicy = "noeviction",
        Kind::Word(EvictionPolicy::WORDS), AnyTime, Obeyed;
    maxmemory_samples: u32 = "5", int(1, 64), AnyTime, Obeyed;
    maxmemory_eviction_tenacity: u32 = "10", int(0, 100), AnyTime, Obeyed;
    lfu_log_factor: u32 = "10", int(0, I32_MAX), AnyTime, Obeyed;
    lfu_decay_time: u32 = "1", int(0, I32_MAX), AnyTime, Obeyed;
    active_expire_effort: u32 = "1", int(1, 10), AnyTime, Obeyed;
    lazyfree_lazy_eviction: bool = "no", Kind::Bool, AnyTime, Obeyed;
    lazyfree_lazy_expire: bool = "no", Kind::Bool, AnyTime, Obeyed;
    lazyfree_lazy_server_del: bool = "no", Kind::Bool, AnyTime, Obeyed;
    lazyfree_lazy_user_del: bool = "no", Kind::Bool, AnyTime, Obeyed;
    lazyfree_lazy_user_flush: bool = "no", Kind::Bool, AnyTime, Obeyed;
    activerehashing: bool = "yes", Kind::Bool, AnyTime, Later;
    activedefrag: bool = "no", Kind::Bool, AnyTime, Later;
    active_defrag_ignore_bytes: u64 = "100mb", memory(1, SIZE_MAX), AnyTime, Later;
    active_defrag_threshold_lower: u32 = "10", int(0, 1000), AnyTime, Later;
    active_defrag_threshold_upper: u32 = "100", int(0, 1000), AnyTime, Later;
    active_defrag_cycle_min: u32 = "1", int(1, 99), AnyTime, Later;
    active_defrag_cycle_max: u32 = "25", int(1, 99), AnyTime, Later;
    active_defrag_cycle_us: u32 = "500", int(0, 100000), AnyTime, Later;
    active_defrag_max_scan_fields: u64 = "1000", int(1, I64_MAX), AnyTime, Later;
    jemalloc_bg_thread: bool = "yes", Kind::Bool, AnyTime, Later;

    // Compact encodings.
    hash_max_listpack_entries: u64 = "512",
        int(0, I64_MAX), AnyTime, Obeyed, "hash-max-ziplist-entries";
    hash_max_listpack_value: u64 = "64",
        memory(0, SIZE_MAX), AnyTime, Obeyed, "hash-max-ziplist-value";
    list_max_listpack_size: i32 = "-2",
        int(I32_MIN, I32_MAX), AnyTime, Obeyed, "list-max-ziplist-size";
    list_compress_depth: u32 = "0", int(0, I32_MAX), AnyTime, Obeyed;
    set_max_intset_entries: u64 = "512", int(0, I64_MAX), AnyTime, Obeyed;
    set_max_listpack_entries: u64 = "128", int(0, I64_MAX), AnyTime, Obeyed;
    set_max_listpack_value: u64 = "64", int(0, I64_MAX), AnyTime, Obeyed;
    zset_max_listpack_entries: u64 = "128",
        int(0, I64_MAX), AnyTime, Obeyed, "zset-max-ziplist-entries";
    zset_max_listpack_value: u64 = "64",
        memory(0, SIZE_MAX), AnyTime, Obeyed, "zset-max-ziplist-value";
    hll_sparse_max_bytes: u64 = "3000", memory(0, SIZE_MAX), AnyTime, Obeyed;
    stream_node_max_bytes: u64 = "4kb", memory(0, SIZE_MAX), AnyTime, Obeyed;
    stream_node_max_entries: u64 = "100", int(0, I64_MAX), AnyTime, Obeyed;

    // Observing.
    slowlog_log_slower_than: i64 = "10000",
        int(-1, I64_MAX), AnyTime, Obeyed, "commandlog-execution-slower-than";
    slowlog_max_len: u64 = "128",
        int(0, I64_MAX), AnyTime, Obeyed, "commandlog-slow-execution-max-len";
    commandlog_large_request_max_len: u64 = "128", int(0, I64_MAX), AnyTime, Obeyed;
    commandlog_request_larger_than: i64 = "1048576", int(-1, I64_MAX), AnyTime, Obeyed;
    commandlog_large_reply_max_len: u64 = "128", int(0, I64_MAX), AnyTime, Obeyed;
    commandlog_reply_larger_than: i64 = "1048576", int(-1, I64_MAX), AnyTime, Obeyed;
    latency_tracking: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    latency_tracking_info_percentiles: Vec<f64> = "50 99 99.9", Kind::Percentiles, AnyTime, Obeyed;
    latency_monitor_threshold: u64 = "0", int(0, I64_MAX), AnyTime, Obeyed;
    notify_keyspace_events: KeyspaceEvents = "", Kind::KeyspaceEvents, AnyTime, Obeyed;

    // Snapshots.
    save: Vec<SavePoint> = "3600 1 300 100 60 10000", Kind::SavePoints, AnyTime, Obeyed;
    dbfilename: String = "dump.rdb", Kind::Text(check::dump_name), AnyTime + PROTECTED, Obeyed;
    rdbcompression: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    rdbchecksum: bool = "yes", Kind::Bool, StartOnly, Obeyed;
    rdb_del_sync_files: bool = "no", Kind::Bool, AnyTime, Obeyed;
    rdb_save_incremental_fsync: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    rdb_version: u16 = "11", int(9, 12), AnyTime, Obeyed;
    rdb_version_check: &'static str = "strict", Kind::Word(&["strict", "relaxed"]), AnyTime, Obeyed;
    stop_writes_on_bgsave_error: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    sanitize_dump_payload: &'static str = "no",
        Kind::Word(&["no", "yes", "clients"]), AnyTime, Obeyed;

    // Append-only file.
    appendonly: bool = "no", Kind::Bool, AnyTime, Obeyed;
    appendfilename: String = "appendonly.aof", Kind::Text(check::append_name), StartOnly, Obeyed;
    appenddirname: String = "appendonlydir", Kind::Text(check::append_folder), StartOnly, Obeyed;
    appendfsync: AppendFsync = "everysec", Kind::Word(AppendFsync::WORDS), AnyTime, Obeyed;
    no_appendfsync_on_rewrite: bool = "no", Kind::Bool, AnyTime, Obeyed;
    auto_aof_rewrite_percentage: u32 = "100", int(0, I32_MAX), AnyTime, Obeyed;
    auto_aof_rewrite_min_size: u64 = "64mb", memory(0, SIZE_MAX), AnyTime, Obeyed;
    aof_load_truncated: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    aof_use_rdb_preamble: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    aof_rewrite_incremental_fsync: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    aof_timestamp_enabled: bool = "no", Kind::Bool, AnyTime, Obeyed;

    // Encryption at rest.
    data_at_rest_encryption: bool = "no", Kind::Bool, AnyTime, Obeyed;
    data_at_rest_key_file: PathBuf = "at-rest.key", Kind::Path, StartOnly, Obeyed;

    // Replication.
    replicaof: Option<Primary> = "", Kind::ReplicaOf, StartOnly, Obeyed, "slaveof";
    masterauth: Vec<u8> = "", Kind::Secret, AnyTime + SENSITIVE, Obeyed, "primaryauth";
    masteruser: Vec<u8> = "", Kind::Secret, AnyTime + SENSITIVE, Obeyed, "primaryuser";
    replica_serve_stale_data: bool = "yes", Kind::Bool, AnyTime, Obeyed, "slave-serve-stale-data";
    replica_read_only: bool = "yes", Kind::Bool, AnyTime, Obeyed, "slave-read-only";
    replica_ignore_maxmemory: bool = "yes", Kind::Bool, AnyTime, Obeyed, "slave-ignore-maxmemory";
    replica_ignore_disk_write_errors: bool = "no", Kind::Bool, AnyTime, Later;
    replica_lazy_flush: bool = "no", Kind::Bool, AnyTime, Later, "slave-lazy-flush";
    replica_priority: u32 = "100", int(0, I32_MAX), AnyTime, Obeyed, "slave-priority";
    replica_announced: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    replica_announce_ip: String = "", TEXT, AnyTime, Obeyed, "slave-announce-ip";
    replica_announce_port: u16 = "0", int(0, 65535), AnyTime, Obeyed, "slave-announce-port";
    replica_full_sync_buffer_limit: u64 = "0", memory(0, SIZE_MAX), AnyTime, Obeyed;
    repl_diskless_sync: bool = "yes", Kind::Bool, AnyTime, Obeyed;
    repl_diskless_sync_delay: u32 = "5", int(0, I32_MAX), AnyTime, Obeyed;
    repl_diskless_sync_max_replicas: u32 = "0", int(0, I32_MAX), AnyTime, Obeyed;
    repl_diskless_load: &'static str = "disabled",
        Kind::Word(&["disabled", "on-empty-db", "swapdb"]), AnyTime, Obeyed;
    dual_channel_replication_enabled: bool = "no", Kind::Bool, AnyTime, Obeyed;
    repl_ping_replica_period: u32 = "10",
        int(1, I32_MAX), AnyTime, Obeyed, "repl-ping-slave-period";
    repl_timeout: u32 = "60", int(1, I32_MAX), AnyTime, Obeyed;
    repl_disable_tcp_nodelay: bool = "no", Kind::Bool, AnyTime, Obeyed;
    repl_backlog_size: u64 = "1mb", memory(1, SIZE_MAX), AnyTime, Obeyed;
    repl_backlog_ttl: u64 = "3600", int(0, I64_MAX), AnyTime, Obeyed;
    min_replicas_to_write: u32 = "0", int(0, I32_MAX), AnyTime, Obeyed, "min-slaves-to-write";
    min_replicas_max_lag: u32 = "10", int(0, I32_MAX), AnyTime, Obeyed, "min-slaves-max-lag";
    propagation_error_behavior: &'static str = "ignore",
        Kind::Word(&["ignore", "panic", "panic-on-replicas"]), AnyTime, Obeyed;

    // The control plane, and the channel between the nodes of a cluster.
    admin_port: u16 = "9443", int(0, 65535), StartOnly, Obeyed;
    cluster_bootstrap: ClusterBootstrap = "auto",
        Kind::Word(ClusterBootstrap::WORDS), StartOnly, Obeyed;
    cluster_create: String = "", TEXT, StartOnly, Obeyed;
    cluster_join: String = "", TEXT, StartOnly, Obeyed;
    internode_port: u16 = "3342", int(0, 65535), StartOnly, Obeyed;
    internode_plain_port: u16 = "3343", int(0, 65535), StartOnly, Obeyed;
    internode_bind: Vec<String> = "", BIND, StartOnly, Obeyed;
    data_internode_encryption: bool = "no", Kind::Bool, AnyTime, Obeyed;
    data_internode_encryption_graceful: bool = "no", Kind::Bool, AnyTime, Obeyed;
    replicaof_node: Vec<String> = "", NODE, AnyTime, Obeyed;

    // Cluster.
    cluster_enabled: bool = "no", Kind::Bool, StartOnly, Later;
    cluster_config_file: PathBuf = "nodes.conf", Kind::Path, StartOnly, Later;
    cluster_config_save_behavior: &'static str = "sync",
        Kind::Word(&["sync", "best-effort"]), AnyTime, Later;
    cluster_node_timeout: u64 = "15000", int(0, I64_MAX), AnyTime, Later;
    cluster_port: u16 = "0", int(0, 65535), StartOnly, Later;
    cluster_databases: u32 = "1", int(1, I32_MAX), StartOnly, Later;
    cluster_replica_validity_factor: u32 = "10",
        int(0, I32_MAX), AnyTime, Later, "cluster-slave-validity-factor";
    cluster_replica_no_failover: bool = "no",
        Kind::Bool, AnyTime, Later, "cluster-slave-no-failover";
    cluster_manual_failover_timeout: u32 = "5000", int(1, I32_MAX), AnyTime, Later;
    cluster_migration_barrier: u32 = "1", int(0, I32_MAX), AnyTime, Later;
    cluster_allow_replica_migration: bool = "yes", Kind::Bool, AnyTime, Later;
    cluster_require_full_coverage: bool = "yes", Kind::Bool, AnyTime, Later;
    cluster_allow_reads_when_down: bool = "no", Kind::Bool, AnyTime, Later;
    cluster_allow_pubsubshard_when_down: bool = "yes", Kind::Bool, AnyTime, Later;
    cluster_link_sendbuf_limit: u64 = "0", memory(0, u64::MAX), AnyTime, Later;
    cluster_blacklist_ttl: i64 = "60", int(i64::MIN, I64_MAX), AnyTime, Later;
    cluster_announce_ip: String = "", TEXT, AnyTime, Later;
    cluster_announce_client_ipv4: String = "", Kind::Text(check::ipv4), AnyTime, Later;
    cluster_announce_client_ipv6: String = "", Kind::Text(check::ipv6), AnyTime, Later;
    cluster_announce_client_port: u16 = "0", int(0, 65535), AnyTime, Later;
    cluster_announce_client_tls_port: u16 = "0", int(0, 65535), AnyTime, Later;
    cluster_announce_port: u16 = "0", int(0, 65535), AnyTime, Later;
    cluster_announce_tls_port: u16 = "0", int(0, 65535), AnyTime, Later;
    cluster_announce_bus_port: u16 = "0", int(0, 65535), AnyTime, Later;
    cluster_announce_hostname: String = "", Kind::Text(check::announced_hostname), AnyTime, Later;
    cluster_announce_human_nodename: String = "",
        Kind::Text(check::announced_nodename), AnyTime, Later;
    cluster_preferred_endpoint_type: &'static str = "ip",
        Kind::Word(&["ip", "hostname", "unknown-endpoint"]), AnyTime, Later;
    cluster_compatibility_sample_ratio: u32 = "0", int(0, 100), AnyTime, Later;
    cluster_slot_stats_enabled: bool = "no", Kind::Bool, AnyTime, Later;
    cluster_slot_migration_log_max_len: u64 = "1000", int(0, I64_MAX), AnyTime, Later;
    slot_migration_max_failover_repl_bytes: i64 = "0", memory(-1, SIZE_MAX), AnyTime, Later;
    import_mode: bool = "no", Kind::Bool, AnyTime, Later;

    // Hidden: for tests and debugging.
    aof_disable_auto_gc: bool = "no", Kind::Bool, AnyTime + HIDDEN, Obeyed;
    cluster_message_gossip_perc: u32 = "10", int(1, 100), AnyTime + HIDDEN, Later;
    cluster_ping_interval: u64 = "0", int(0, I64_MAX), AnyTime + HIDDEN, Later;
    enable_debug_assert: bool = "no", Kind::Bool, StartOnly + HIDDEN, Later;
    io_threads_always_active: bool = "no", Kind::Bool, AnyTime + HIDDEN, Later;
    key_load_delay: i32 = "0", int(I32_MIN, I32_MAX), AnyTime + HIDDEN, Obeyed;
    loading_process_events_interval_bytes: u32 = "524288",
        int(1024, I32_MAX), AnyTime + HIDDEN, Later;
    lua_enable_deprecated_api: bool = "no", Kind::Bool, StartOnly + HIDDEN, Later;
    lua_enable_insecure_api: bool = "no", Kind::Bool, AnyTime + PROTECTED + HIDDEN, Later;
    min_io_threads_avoid_copy_reply: u32 = "7", int(0, I32_MAX), AnyTime + HIDDEN, Later;
    min_string_size_avoid_copy_reply: u32 = "16384", int(0, I32_MAX), AnyTime + HIDDEN, Later;
    min_string_size_avoid_copy_reply_threaded: u32 = "65536",
        int(0, I32_MAX), AnyTime + HIDDEN, Later;
    rdb_key_save_delay: i32 = "0", int(I32_MIN, I32_MAX), AnyTime + HIDDEN, Obeyed;
    repl_rdb_channel: bool = "yes", Kind::Bool, AnyTime + HIDDEN, Obeyed;
    use_exit_on_panic: bool = "no", Kind::Bool, AnyTime + HIDDEN, Later;
    watchdog_period: u32 = "0", int(0, I32_MAX), AnyTime + HIDDEN, Later;
}
