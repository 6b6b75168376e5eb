//! Databases: their settings, with names and defaults as on the wire, and where they are placed.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use super::cluster::AlertSetting;
use super::cron::Cron;
use super::jobs::Jobs;
use super::settings::settings;
use super::{ActionId, DatabaseUid, Location, NodeUid, Refused, ShardUid, Time, Transfers};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Database {
    pub uid: DatabaseUid,
    pub status: DatabaseStatus,
    pub created: Time,
    pub last_changed: Time,
    pub settings: DatabaseSettings,
    /// The port it is served on; `settings.port` stays 0 where this was chosen by the cluster.
    pub port: u16,
    pub placement: Placement,
    /// One for the primary and one for each replica, in the order of the placement.
    pub shards: Vec<ShardUid>,
    /// The default user's passwords; any of them admits, none means that none is asked for.
    pub passwords: Vec<String>,
    pub alert_settings: BTreeMap<String, AlertSetting>,
    /// Each time this grows, every node closes this database's client connections.
    pub disconnects: u64,
    /// Grows when roles or endpoints change.
    pub topology_epoch: u64,
    /// Traffic was stopped by an operator.
    pub stopped: bool,
    /// Grows with every change.
    pub revision: u64,
    pub action: Option<ActionId>,
    /// When a replica was moved by itself as its node was down, and which node that was.
    #[serde(default)]
    pub replica_moved: Option<(Time, NodeUid)>,
    #[serde(default)]
    pub transfers: Transfers,
}

impl Database {
    /// When the next backup is to begin, if any: with the first run of the job from the end of an interval on. The first
    /// one does not wait for that.
    pub fn next_backup_s(&self, jobs: &Jobs) -> Option<u64> {
        let settings = &self.settings;
        let job = &jobs.backup_job_settings;
        if !settings.backup || !job.enabled || settings.backup_interval == 0 {
            return None;
        }
        let from_s = match self.transfers.backup.begun {
            None => self.last_changed.seconds() + 1,
            Some(begun) => {
                let (every, offset) = (settings.backup_interval, settings.backup_interval_offset);
                let intervals = begun.seconds().saturating_sub(offset) / every + 1;
                intervals.saturating_mul(every).saturating_add(offset)
            }
        };
        Cron::parse(&job.cron_expression)?.next(from_s)
    }

    pub fn is_on(&self, node: NodeUid) -> bool {
        self.placement.nodes().any(|one| one == node)
    }

    /// What it is while no action changes it.
    pub fn status_at_rest(&self) -> DatabaseStatus {
        match self.transfers.import.is_under_way() {
            true => DatabaseStatus::ImportPending,
            false => DatabaseStatus::Active,
        }
    }

    /// Whether clients have to present a certificate: only if that was asked for, or there are some.
    pub fn enforces_client_certificates(&self) -> bool {
        match self.settings.enforce_client_authentication {
            Some(enforce) => enforce == Enforce::Enabled,
            None => !self.settings.authentication_ssl_client_certs.is_empty(),
        }
    }

    /// The version in full, as clients see it.
    pub const VERSION: &str = "8.0.6";

    /// The object of `GET /v1/bdbs/{uid}`, but for `endpoints`, which need to know of the nodes' addresses.
    pub fn to_wire(&self) -> Value {
        let mut wire = serde_json::to_value(&self.settings).unwrap_or_default();
        let enforce = if self.enforces_client_certificates() { "enabled" } else { "disabled" };
        let shards: Vec<u32> = self.shards.iter().map(|uid| uid.0).collect();
        let more = serde_json::json!({
            "uid": self.uid.0,
            "status": self.status,
            "created_time": self.created.to_string(),
            "last_changed_time": self.last_changed.to_string(),
            "version": Self::VERSION,
            "shard_list": shards,
            "ssl": self.settings.tls_mode != TlsMode::Disabled,
            "enforce_client_authentication": enforce,
            "authentication_redis_pass": self.passwords.first().map_or("", String::as_str),
            "topology_epoch": self.topology_epoch,
            "background_op": [{"status": "idle"}],
            "syncer_mode": "centralized",
        });
        if let (Value::Object(wire), Value::Object(more)) = (&mut wire, more) {
            wire.extend(more);
            wire.extend(self.transfers.to_wire());
            wire.retain(|name, value| name != "backup_location" || !value.is_null());
            if let Some(action) = &self.action {
                wire.insert("action_uid".to_owned(), action.0.clone().into());
            }
        }
        wire
    }
}

/// Where a database is. Each change has a new epoch, which every link and lease names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    pub epoch: u64,
    /// It holds the lease of this epoch while it can reach a leader; without lease it takes no writes.
    pub primary: NodeUid,
    pub replicas: Vec<NodeUid>,
    /// Which process of the primary's node may hold it, where there are replicas: one that was started later may
    /// have lost the data. None: whichever asks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<u64>,
}

impl Placement {
    pub fn nodes(&self) -> impl Iterator<Item = NodeUid> {
        std::iter::once(self.primary).chain(self.replicas.iter().copied())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseStatus {
    Pending,
    Active,
    ActiveChangePending,
    DeletePending,
    ImportPending,
    CreationFailed,
    Recovery,
}

settings! {
    DatabaseSettings, DatabasePatch {
        name: String = String::new(),
        #[serde(rename = "type")]
        kind: DatabaseKind = DatabaseKind::Redis,
        memory_size: u64 = 0,
        port: u16 = 0,
        redis_version: String = "8.0".to_owned(),
        sharding: bool = false,
        shards_count: u32 = 1,
        shards_placement: ShardsPlacement = ShardsPlacement::Dense,
        shard_key_regex: Vec<ShardKeyRule> = Vec::new(),
        hash_slots_policy: HashSlots = HashSlots::Sixteen,
        implicit_shard_key: bool = false,
        shard_block_crossslot_keys: bool = false,
        shard_block_foreign_keys: bool = true,
        replication: bool = false,
        oss_cluster: bool = false,
        oss_cluster_api_preferred_ip_type: IpType = IpType::Internal,
        oss_cluster_api_preferred_endpoint_type: EndpointType = EndpointType::Ip,
        proxy_policy: ProxyPolicy = ProxyPolicy::Single,
        data_internode_encryption: bool = false,
        tls_mode: TlsMode = TlsMode::Disabled,
        enforce_client_authentication: Option<Enforce> = None,
        authentication_ssl_client_certs: Vec<ClientCertificate> = Vec::new(),
        authentication_ssl_crdt_certs: Vec<ClientCertificate> = Vec::new(),
        client_cert_subject_validation_type: SubjectValidation = SubjectValidation::Disabled,
        authorized_subjects: Vec<SubjectRule> = Vec::new(),
        mtls_allow_outdated_certs: bool = false,
        mtls_allow_weak_hashing: bool = false,
        authentication_admin_pass: String = String::new(),
        default_user: bool = true,
        roles_permissions: Vec<RolePermission> = Vec::new(),
        disconnect_clients_on_password_removal: bool = false,
        eviction_policy: EvictionPolicy = EvictionPolicy::VolatileLru,
        data_persistence: Persistence = Persistence::Disabled,
        aof_policy: AofPolicy = AofPolicy::EverySecond,
        snapshot_policy: Vec<SnapshotRule> = Vec::new(),
        master_persistence: bool = false,
        max_aof_file_size: u64 = 322_122_547_200,
        max_aof_load_time: u64 = 3600,
        maxclients: u32 = 10_000,
        max_connections: u32 = 0,
        conns: u32 = 5,
        conns_type: ConnsType = ConnsType::PerThread,
        max_client_pipeline: u32 = 200,
        max_pipelined: u32 = 2000,
        sched_policy: SchedPolicy = SchedPolicy::Cmp,
        repl_backlog_size: Size = Size::Text("auto".to_owned()),
        slave_buffer: Size = Size::Text("auto".to_owned()),
        slave_ha: bool = true,
        slave_ha_priority: i32 = 0,
        activedefrag: YesNo = YesNo::No,
        disabled_commands: String = String::new(),
        resp3: bool = true,
        mkms: bool = true,
        wait_command: bool = true,
        tracking_table_max_keys: u64 = 1_000_000,
        recovery_wait_time: i64 = -1,
        rack_aware: bool = false,
        auto_upgrade: bool = false,
        internal: bool = false,
        crdt: bool = false,
        bigstore: bool = false,
        email_alerts: bool = false,
        backup: bool = false,
        backup_interval: u64 = 0,
        backup_interval_offset: u64 = 0,
        backup_location: Option<Location> = None,
        db_conns_auditing: bool = false,
        metrics_export_all: bool = false,
        replica_sync: ReplicaSync = ReplicaSync::Disabled,
        replica_sources: Vec<Value> = Vec::new(),
        tags: Vec<Tag> = Vec::new(),
        use_nodes: Vec<String> = Vec::new(),
        avoid_nodes: Vec<String> = Vec::new(),
        module_list: Vec<Value> = Vec::new(),
    }
}

impl DatabaseSettings {
    /// What is kept and returned for those who expect it, and changes nothing here.
    pub const WITHOUT_EFFECT: &[&str] = &[
        "activedefrag",
        "authentication_admin_pass",
        "authentication_ssl_crdt_certs",
        "auto_upgrade",
        "conns",
        "conns_type",
        "db_conns_auditing",
        "hash_slots_policy",
        "implicit_shard_key",
        "master_persistence",
        "max_aof_load_time",
        "max_client_pipeline",
        "max_pipelined",
        "metrics_export_all",
        "mkms",
        "mtls_allow_outdated_certs",
        "mtls_allow_weak_hashing",
        "redis_version",
        "sched_policy",
        "shard_block_crossslot_keys",
        "shard_block_foreign_keys",
        "shard_key_regex",
        "sharding",
        "tags",
        "wait_command",
    ];
}

macro_rules! words {
    ($( $(#[$meta:meta])* $name:ident { $( $variant:ident = $word:literal, )* } )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
        pub enum $name { $( #[serde(rename = $word)] $variant, )* }

        impl $name {
            pub const WORDS: &[&str] = &[$( $word ),*];

            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }
    )* };
}

words! {
    DatabaseKind { Redis = "redis", }
    ShardsPlacement { Dense = "dense", Sparse = "sparse", }
    HashSlots { Legacy = "legacy", Sixteen = "16k", }
    IpType { Internal = "internal", External = "external", }
    EndpointType { Ip = "ip", Hostname = "hostname", }
    ProxyPolicy { Single = "single", AllMasterShards = "all-master-shards", AllNodes = "all-nodes", }
    /// Whether clients must, or only links between databases, use TLS.
    TlsMode { Enabled = "enabled", Disabled = "disabled", ReplicaSsl = "replica_ssl", }
    Enforce { Enabled = "enabled", Disabled = "disabled", }
    SubjectValidation { Disabled = "disabled", SanCn = "san_cn", FullSubject = "full_subject", }
    EvictionPolicy {
        VolatileLru = "volatile-lru",
        VolatileLfu = "volatile-lfu",
        VolatileTtl = "volatile-ttl",
        VolatileRandom = "volatile-random",
        AllkeysLru = "allkeys-lru",
        AllkeysLfu = "allkeys-lfu",
        AllkeysRandom = "allkeys-random",
        Noeviction = "noeviction",
    }
    Persistence { Disabled = "disabled", Snapshot = "snapshot", Aof = "aof", }
    AofPolicy { EverySecond = "appendfsync-every-sec", Always = "appendfsync-always", }
    ConnsType { PerThread = "per-thread", PerShard = "per-shard", }
    SchedPolicy { Cmp = "cmp", Mru = "mru", Spread = "spread", Mnp = "mnp", }
    YesNo { Yes = "yes", No = "no", }
    ReplicaSync {
        Enabled = "enabled",
        Disabled = "disabled",
        Paused = "paused",
        Stopped = "stopped",
    }
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ShardKeyRule {
    pub regex: String,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientCertificate {
    pub client_cert: String,
}

#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct SubjectRule {
    #[serde(rename = "CN")]
    pub cn: String,
    #[serde(rename = "O", default, skip_serializing_if = "Option::is_none")]
    pub o: Option<String>,
    #[serde(rename = "OU", default, skip_serializing_if = "Vec::is_empty")]
    pub ou: Vec<String>,
    #[serde(rename = "L", default, skip_serializing_if = "Option::is_none")]
    pub l: Option<String>,
    #[serde(rename = "ST", default, skip_serializing_if = "Option::is_none")]
    pub st: Option<String>,
    #[serde(rename = "C", default, skip_serializing_if = "Option::is_none")]
    pub c: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RolePermission {
    pub role_uid: u32,
    pub redis_acl_uid: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRule {
    pub secs: u64,
    pub writes: u64,
}

#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    pub value: String,
}

/// `auto`, or a number of bytes, which comes as a number or as a text.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Size {
    Text(String),
    Bytes(u64),
}

/// How much a replica may leave unread before it has to come again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplicaBuffer {
    pub hard_bytes: u64,
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}

impl ReplicaBuffer {
    const SOFT_SECONDS: u64 = 60;

    /// What `slave_buffer` says: megabytes, or `hard:soft:seconds` with the first two in megabytes; none for `auto`.
    pub fn of(size: &Size) -> Result<Option<Self>, &'static str> {
        const WRONG: &str = "slave_buffer: auto, megabytes, or hard:soft:seconds";
        let bytes = |megabytes: u64| megabytes.checked_mul(1 << 20).ok_or(WRONG);
        let both = |megabytes| {
            let bytes = bytes(megabytes)?;
            let soft_seconds = Self::SOFT_SECONDS;
            Ok(Some(Self { hard_bytes: bytes, soft_bytes: bytes, soft_seconds }))
        };
        let text = match size {
            Size::Bytes(megabytes) => return both(*megabytes),
            Size::Text(text) if text == "auto" => return Ok(None),
            Size::Text(text) => text,
        };
        let numbers: Vec<u64> = text
            .split(':')
            .map(|word| word.parse().map_err(|_| WRONG))
            .collect::<Result<_, _>>()?;
        match numbers[..] {
            [megabytes] => both(megabytes),
            [hard, soft, soft_seconds] => {
                Ok(Some(Self { hard_bytes: bytes(hard)?, soft_bytes: bytes(soft)?, soft_seconds }))
            }
            _ => Err(WRONG),
        }
    }
}

impl DatabasePatch {
    /// Reads what came on the wire for creating or changing a database: aliases are resolved, what is
    /// read-only is left out, and words that are none get the status and code of their field.
    pub fn from_wire(value: &Value, strict: bool) -> Result<WirePatch, Refused> {
        let Value::Object(fields) = value else {
            return Self::parse(value, strict).map(Into::into);
        };
        let mut fields = fields.clone();
        for name in READ_ONLY {
            fields.remove(*name);
        }
        if let Some(persistence) = fields.remove("persistence") {
            fields.entry("data_persistence").or_insert(persistence);
        }
        let ssl = fields.remove("ssl");
        if let Some(Value::Bool(ssl)) = ssl {
            let mode = if ssl { TlsMode::Enabled } else { TlsMode::Disabled };
            fields.entry("tls_mode").or_insert_with(|| mode.word().into());
        }
        if let Some(location) = fields.get("backup_location").filter(|it| !it.is_null()) {
            Location::from_wire("backup_location", location)?;
        }
        let uid = number(&mut fields, "uid")?;
        let password = text(&mut fields, "authentication_redis_pass")?;
        let graceful = match fields.remove("graceful") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(graceful)) => graceful,
            Some(_) => return Err(Refused::schema("graceful: a boolean is expected")),
        };
        let known = [
            ("data_persistence", Persistence::WORDS, "invalid_data_persistence"),
            ("eviction_policy", EvictionPolicy::WORDS, "eviction_policy_violation"),
            ("proxy_policy", ProxyPolicy::WORDS, "invalid_proxy_policy"),
            ("type", DatabaseKind::WORDS, "unsupported_database_type"),
        ];
        for (name, words, code) in known {
            if let Some(Value::String(word)) = fields.get(name)
                && !words.contains(&word.as_str())
            {
                let description = format!("{name}: {word} is not one of {}", words.join(", "));
                return Err(Refused::invalid(code, description));
            }
        }
        let patch = Self::parse(&Value::Object(fields), strict)?;
        Ok(WirePatch { patch, uid: uid.map(DatabaseUid), password, graceful })
    }
}

/// A patch with what is on the wire beside the settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WirePatch {
    pub patch: DatabasePatch,
    /// The uid to create it under.
    pub uid: Option<DatabaseUid>,
    /// The default user's only password; empty for none.
    pub password: Option<String>,
    pub graceful: bool,
}

impl From<DatabasePatch> for WirePatch {
    fn from(patch: DatabasePatch) -> Self {
        Self { patch, ..Self::default() }
    }
}

/// What interfaces show and nobody sets.
const READ_ONLY: &[&str] = &[
    "action_uid",
    "background_op",
    "backup_failure_reason",
    "backup_progress",
    "backup_status",
    "created_time",
    "endpoints",
    "export_failure_reason",
    "export_progress",
    "export_status",
    "import_failure_reason",
    "import_progress",
    "import_status",
    "last_backup_time",
    "last_changed_time",
    "last_export_time",
    "shard_list",
    "status",
    "syncer_mode",
    "topology_epoch",
    "version",
];

fn number(fields: &mut serde_json::Map<String, Value>, name: &str) -> Result<Option<u32>, Refused> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(Refused::schema(format!("{name}: a small number is expected"))),
        },
    }
}

fn text(
    fields: &mut serde_json::Map<String, Value>,
    name: &str,
) -> Result<Option<String>, Refused> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refused::schema(format!("{name}: a string is expected"))),
    }
}
