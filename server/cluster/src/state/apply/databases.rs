//! Databases: creating, changing and deleting them, and where their shards are.

use std::collections::{BTreeMap, BTreeSet};

use carnelian_tls::CertificateInfo;
use carnelian_tls::rustls::pki_types::CertificateDer;
use carnelian_tls::rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::names;
use super::settings::merge_alerts;
use crate::state::{
    ActionId, ActionKind, AlertPatch, AlertSetting, Database, DatabasePatch, DatabaseSettings,
    DatabaseStatus, DatabaseUid, Detail, Enforce, NodeUid, Object, Outcome, PasswordChange,
    Persistence, Placement, ProxyPolicy, Refused, ReplicaBuffer, ReplicaSync, ShardUid,
    ShardsPlacement, State, SubjectRule, Time, Transfers, WirePatch,
};

/// The alerts that each database has, all off at first.
const ALERTS: [&str; 15] = [
    "bdb_size",
    "bdb_high_throughput",
    "bdb_low_throughput",
    "bdb_high_latency",
    "bdb_backup_delayed",
    "bdb_long_running_action",
    "bdb_replica_src_high_syncer_lag",
    "bdb_replica_src_syncer_connection_error",
    "bdb_replica_src_syncer_general_error",
    "bdb_ram_dataset_overhead",
    "bdb_ram_values",
    "bdb_shard_num_ram_values",
    "bdb_crdt_src_high_syncer_lag",
    "bdb_crdt_src_syncer_connection_error",
    "bdb_crdt_src_syncer_general_error",
];

impl State {
    pub(super) fn create_database(
        &mut self,
        spec: WirePatch,
        on: Option<NodeUid>,
        admin_password: String,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let WirePatch { patch, uid, password, .. } = spec;
        names::database_name(patch.name.as_deref().unwrap_or_default())?;
        if patch.memory_size.is_none() {
            let description = "memory_size is missing; 0 sets no limit";
            return Err(Refused::invalid("missing_memory_size", description));
        }
        let uid = self.new_uid(uid)?;
        let mut settings = self.defaults_for(&patch);
        settings.merge(&patch);
        if settings.authentication_admin_pass.is_empty() {
            settings.authentication_admin_pass = admin_password;
        }
        if settings.oss_cluster {
            adapt_to_oss_cluster(&mut settings, &patch)?;
        }
        if self.database_named(&settings.name).is_some() {
            let description = format!("there is a database {}", settings.name);
            return Err(Refused::conflict("name_violation", description));
        }
        self.check(&settings)?;
        if settings.data_internode_encryption {
            self.check_versions()?;
        }
        let port = match settings.port {
            0 => self.free_port()?,
            port => {
                self.check_port(port)?;
                port
            }
        };
        let placement = self.place(&settings, on)?;
        let shards = placement.nodes().map(|_| self.new_shard()).collect();
        let name = settings.name.clone();
        let mut awaits = self.present();
        awaits.insert(placement.primary);
        let database = Database {
            uid,
            status: DatabaseStatus::Pending,
            created: at,
            last_changed: at,
            settings,
            port,
            placement,
            shards,
            passwords: password.into_iter().filter(|password| !password.is_empty()).collect(),
            alert_settings: alerts(),
            disconnects: 0,
            topology_epoch: 1,
            stopped: false,
            revision: 1,
            action: None,
            replica_moved: None,
            transfers: Transfers::default(),
        };
        self.databases.insert(uid, database);
        let (kind, object) = (ActionKind::CreateDatabase, Object::Database(uid));
        self.begin(action.clone(), kind, object, awaits, Detail::None, at)?;
        self.tell(
            at,
            "cluster_bdb_created",
            [("bdb_uid", uid.0.into()), ("bdb_name", name.into())],
        );
        Ok(Outcome::Database { uid, action: Some(action) })
    }

    fn new_uid(&mut self, wanted: Option<DatabaseUid>) -> Result<DatabaseUid, Refused> {
        let uid = match wanted {
            None => DatabaseUid(self.next.database),
            Some(DatabaseUid(0)) => return Err(Refused::schema("uid: it begins with 1")),
            // It may have been given before, but only what is there now can be mistaken for it.
            Some(uid) if self.databases.contains_key(&uid) => {
                let description = format!("there is a database {uid}");
                return Err(Refused::conflict("uid_exists", description));
            }
            Some(uid) => uid,
        };
        let after = uid.0.checked_add(1).ok_or_else(|| Refused::schema("uid: too large"))?;
        self.next.database = self.next.database.max(after);
        Ok(uid)
    }

    fn new_shard(&mut self) -> ShardUid {
        let uid = ShardUid(self.next.shard);
        self.next.shard += 1;
        uid
    }

    /// The policy's word on what a new database does not say itself.
    fn defaults_for(&self, patch: &DatabasePatch) -> DatabaseSettings {
        let policy = &self.policy;
        let sharded = patch.sharding.unwrap_or_default();
        DatabaseSettings {
            data_internode_encryption: policy.data_internode_encryption,
            proxy_policy: match sharded {
                true => policy.default_sharded_proxy_policy,
                false => policy.default_non_sharded_proxy_policy,
            },
            shards_placement: policy.default_shards_placement,
            oss_cluster: policy.default_oss_cluster,
            redis_version: policy.default_provisioned_redis_version.clone(),
            resp3: policy.resp3_default,
            tracking_table_max_keys: policy.default_tracking_table_max_keys_policy,
            recovery_wait_time: policy.default_recovery_wait_time,
            slave_ha: policy.slave_ha,
            db_conns_auditing: policy.db_conns_auditing,
            ..DatabaseSettings::default()
        }
    }

    pub(super) fn update_database(
        &mut self,
        uid: DatabaseUid,
        change: WirePatch,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let WirePatch { mut patch, password, graceful, .. } = change;
        let database = self.database(uid)?;
        if database.status != DatabaseStatus::Active || database.action.is_some() {
            return Err(Refused::conflict("busy", format!("database {uid} is being changed")));
        }
        if let Some(port) = patch.port.take()
            && ![0, database.settings.port, database.port].contains(&port)
        {
            let description = "the port is chosen when a database is created";
            return Err(Refused::invalid("port_change_not_allowed", description));
        }
        let before = database.clone();
        let mut settings = before.settings.clone();
        settings.merge(&patch);
        if settings.oss_cluster && !before.settings.oss_cluster {
            adapt_to_oss_cluster(&mut settings, &patch)?;
        }
        let passwords = match password {
            None => before.passwords.clone(),
            Some(password) if password.is_empty() => Vec::new(),
            Some(password) => vec![password],
        };
        if settings == before.settings && passwords == before.passwords {
            return Ok(Outcome::Unchanged);
        }
        if settings.name != before.settings.name {
            names::database_name(&settings.name)?;
            if self.database_named(&settings.name).is_some() {
                let description = format!("there is a database {}", settings.name);
                return Err(Refused::invalid("name_violation", description));
            }
        }
        self.check(&settings)?;
        let encryption = settings.data_internode_encryption;
        let switched = encryption != before.settings.data_internode_encryption;
        if switched && encryption {
            self.check_versions()?;
        }

        let mut placement = before.placement.clone();
        let mut shards = before.shards.clone();
        if settings.replication != before.settings.replication {
            placement.epoch += 1;
            if settings.replication {
                placement.replicas = vec![self.replica_for(&settings, &placement)?];
                shards.push(self.new_shard());
            } else {
                placement.replicas.clear();
                shards.truncate(1);
            }
        }
        let awaits = self.present();
        let detail = Detail::Update { graceful, previous: Box::new(before.settings.clone()) };
        let (kind, object) = (ActionKind::UpdateDatabase, Object::Database(uid));
        self.begin(action.clone(), kind, object, awaits, detail, at)?;

        let removed = before.passwords.iter().any(|password| !passwords.contains(password));
        let ends_sessions = removed && settings.disconnect_clients_on_password_removal;
        let name = settings.name.clone();
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        if placement != before.placement {
            database.topology_epoch += 1;
        }
        if switched && !graceful || ends_sessions {
            database.disconnects += 1;
        }
        database.settings = settings;
        database.passwords = passwords;
        database.placement = placement;
        database.shards = shards;
        database.status = DatabaseStatus::ActiveChangePending;
        database.last_changed = at;
        database.revision += 1;

        let id = ("bdb_uid", Value::from(uid.0));
        if name != before.settings.name {
            let old = before.settings.name;
            let fields = [id.clone(), ("old_val", old.into()), ("new_val", name.clone().into())];
            self.tell(at, "bdb_name_updated", fields);
        }
        if switched {
            let fields =
                [id.clone(), ("bdb_name", name.clone().into()), ("enabled", encryption.into())];
            self.tell(at, "data_internode_encryption_changed", fields);
        }
        self.tell(at, "bdb_updated", [id, ("bdb_name", name.into())]);
        Ok(Outcome::Database { uid, action: Some(action) })
    }

    pub(super) fn delete_database(
        &mut self,
        uid: DatabaseUid,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.database(uid)?;
        if database.settings.internal {
            let description = "the cluster needs this database";
            return Err(Refused::new(403, "internal_db", description));
        }
        let awaits = self.present();
        let (kind, object) = (ActionKind::DeleteDatabase, Object::Database(uid));
        self.begin(action.clone(), kind, object, awaits, Detail::None, at)?;
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        database.status = DatabaseStatus::DeletePending;
        database.disconnects += 1;
        database.revision += 1;
        Ok(Outcome::Database { uid, action: Some(action) })
    }

    pub(super) fn change_passwords(
        &mut self,
        uid: DatabaseUid,
        change: PasswordChange,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        let before = database.passwords.clone();
        match change {
            PasswordChange::Replace(password) => database.passwords = vec![password],
            PasswordChange::Add(password) if before.contains(&password) => {
                let description = "that is a password already";
                return Err(Refused::invalid("password_exists", description));
            }
            PasswordChange::Add(password) => database.passwords.push(password),
            PasswordChange::Remove(password) => {
                if !before.contains(&password) {
                    let description = "that is not one of the passwords";
                    return Err(Refused::invalid("password_not_exist", description));
                }
                if before.len() == 1 {
                    let description = "the last password cannot be deleted";
                    return Err(Refused::invalid("cannot_delete_last_password", description));
                }
                database.passwords.retain(|one| *one != password);
            }
        }
        if database.passwords.iter().any(|password| password.is_empty() || password.len() > 4096) {
            return Err(Refused::invalid(
                "invalid_password",
                "a password has 1 to 4096 characters",
            ));
        }
        if database.passwords.len() > 100 {
            return Err(Refused::invalid("too_many_passwords", "100 passwords are enough"));
        }
        if before == database.passwords {
            return Ok(Outcome::Unchanged);
        }
        let removed = before.iter().any(|password| !database.passwords.contains(password));
        if removed && database.settings.disconnect_clients_on_password_removal {
            database.disconnects += 1;
        }
        database.last_changed = at;
        database.revision += 1;
        Ok(Outcome::Database { uid, action: None })
    }

    pub(super) fn set_database_alerts(
        &mut self,
        uid: DatabaseUid,
        patches: &BTreeMap<String, AlertPatch>,
    ) -> Result<Outcome, Refused> {
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        let before = database.alert_settings.clone();
        merge_alerts(&mut database.alert_settings, patches, "a database has no such alert")?;
        Ok(if before == database.alert_settings { Outcome::Unchanged } else { Outcome::Done })
    }

    pub(super) fn set_traffic(
        &mut self,
        uid: DatabaseUid,
        stopped: bool,
    ) -> Result<Outcome, Refused> {
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        if database.action.is_some() {
            return Err(Refused::conflict("busy", format!("database {uid} is being changed")));
        }
        if database.stopped == stopped {
            return Ok(Outcome::Unchanged);
        }
        database.stopped = stopped;
        database.disconnects += u64::from(stopped);
        database.revision += 1;
        Ok(Outcome::Database { uid, action: None })
    }

    pub(super) fn promote(
        &mut self,
        uid: DatabaseUid,
        (node, holder): (NodeUid, Option<u64>),
        epoch: u64,
        action: Option<ActionId>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.database(uid)?;
        check_epoch(database, epoch)?;
        let Some(place) = database.placement.replicas.iter().position(|it| *it == node) else {
            let description = format!("node {node} has no replica of database {uid}");
            return Err(Refused::bad("shard_not_replica", description));
        };
        let old = database.placement.primary;
        if let Some(action) = &action {
            let mut awaits = self.present();
            awaits.retain(|it| [node, old].contains(it));
            let (kind, object) = (ActionKind::Failover, Object::Database(uid));
            self.begin(action.clone(), kind, object, awaits, Detail::None, at)?;
        }
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        let placement = &mut database.placement;
        placement.primary = node;
        placement.replicas[place] = old;
        placement.epoch += 1;
        placement.holder = holder;
        // A shard stays the shard of its node.
        database.shards.swap(0, place + 1);
        database.topology_epoch += 1;
        database.revision += 1;
        let fields = [
            ("bdb_uid", uid.0.into()),
            ("node_uid", node.0.into()),
            ("old_node_uid", old.0.into()),
        ];
        self.tell(at, "bdb_failed_over", fields);
        Ok(action.map_or(Outcome::Done, Outcome::Action))
    }

    pub(super) fn hold(
        &mut self,
        uid: DatabaseUid,
        epoch: u64,
        holder: u64,
    ) -> Result<Outcome, Refused> {
        check_epoch(self.database(uid)?, epoch)?;
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        match database.placement.holder.replace(holder) {
            Some(before) if before == holder => return Ok(Outcome::Unchanged),
            // What the process before it was granted is not for this one.
            Some(_) => database.placement.epoch += 1,
            None => {}
        }
        database.revision += 1;
        Ok(Outcome::Done)
    }

    pub(super) fn recover(
        &mut self,
        uid: DatabaseUid,
        epoch: u64,
        at: Time,
    ) -> Result<Outcome, Refused> {
        check_epoch(self.database(uid)?, epoch)?;
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        let placement = &mut database.placement;
        if placement.replicas.is_empty() {
            let description = format!("database {uid} waits for nobody");
            return Err(Refused::invalid("db_not_in_recovery", description));
        }
        // Whichever process is there next has it, as the first one had.
        placement.holder = None;
        placement.epoch += 1;
        database.revision += 1;
        let node = database.placement.primary;
        let fields = [("bdb_uid", uid.0.into()), ("node_uid", node.0.into())];
        self.tell(at, "bdb_recovered", fields);
        Ok(Outcome::Done)
    }

    pub(super) fn move_replica(
        &mut self,
        uid: DatabaseUid,
        (from, to): (NodeUid, NodeUid),
        epoch: u64,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let mut replicas = self.database(uid)?.placement.replicas.clone();
        let Some(place) = replicas.iter().position(|it| *it == from) else {
            let description = format!("node {from} has no replica of database {uid}");
            return Err(Refused::bad("shard_not_replica", description));
        };
        replicas.insert(place, to);
        let outcome = self.set_replicas(uid, replicas, epoch, None, at)?;
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        database.replica_moved = Some((at, from));
        let fields =
            [("bdb_uid", uid.0.into()), ("node_uid", to.0.into()), ("old_node_uid", from.0.into())];
        self.tell(at, "bdb_replica_moved", fields);
        Ok(outcome)
    }

    pub(super) fn set_replicas(
        &mut self,
        uid: DatabaseUid,
        replicas: Vec<NodeUid>,
        epoch: u64,
        action: Option<ActionId>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.database(uid)?;
        check_epoch(database, epoch)?;
        let before = database.placement.clone();
        if replicas == before.replicas {
            return Ok(Outcome::Unchanged);
        }
        let distinct: BTreeSet<_> = replicas.iter().copied().collect();
        if distinct.len() != replicas.len() || distinct.contains(&before.primary) {
            let description = "a node has one shard of a database";
            return Err(Refused::invalid("replication_node_violation", description));
        }
        for node in &replicas {
            if !before.replicas.contains(node) && !self.node(*node)?.takes_shards() {
                let description = format!("node {node} takes no shards");
                return Err(Refused::invalid("replication_node_violation", description));
            }
        }
        let mut shards = vec![database.shards[0]];
        let old_shards = database.shards.clone();
        if let Some(action) = &action {
            let mut awaits = self.present();
            awaits.retain(|it| replicas.contains(it) || before.replicas.contains(it));
            let (kind, object) = (ActionKind::Migrate, Object::Database(uid));
            self.begin(action.clone(), kind, object, awaits, Detail::None, at)?;
        }
        for node in &replicas {
            let kept = before.replicas.iter().position(|it| it == node);
            let kept = kept.and_then(|place| old_shards.get(place + 1).copied());
            shards.push(kept.unwrap_or_else(|| self.new_shard()));
        }
        let database = self.databases.get_mut(&uid).ok_or_else(unknown)?;
        database.shards = shards;
        if replicas.is_empty() || before.replicas.is_empty() {
            // While it is alone, whatever its process has is what there is.
            database.placement.holder = None;
        }
        database.placement.replicas = replicas;
        database.placement.epoch += 1;
        database.topology_epoch += 1;
        database.last_changed = at;
        database.revision += 1;
        Ok(action.map_or(Outcome::Done, Outcome::Action))
    }

    pub(super) fn rebalance(
        &mut self,
        uid: DatabaseUid,
        (primary, replicas): (NodeUid, Vec<NodeUid>),
        epoch: u64,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.database(uid)?;
        check_epoch(database, epoch)?;
        if database.status != DatabaseStatus::Active {
            return Err(Refused::conflict("busy", format!("database {uid} is being changed")));
        }
        let wanted: BTreeSet<_> = replicas.iter().copied().chain([primary]).collect();
        if wanted.len() != replicas.len() + 1 || replicas.len() != database.placement.replicas.len()
        {
            let description = "a database keeps its shards, each on a node of its own";
            return Err(Refused::invalid("replication_node_violation", description));
        }
        for node in &wanted {
            if !database.is_on(*node) && !self.node(*node)?.takes_shards() {
                let description = format!("node {node} takes no shards");
                return Err(Refused::invalid("replication_node_violation", description));
            }
        }
        let (kind, object) = (ActionKind::Rebalance, Object::Database(uid));
        let detail = Detail::Rebalance { primary, replicas };
        self.begin(action.clone(), kind, object, BTreeSet::new(), detail, at)?;
        Ok(Outcome::Action(action))
    }

    /// What a database can be, whoever asks.
    fn check(&self, settings: &DatabaseSettings) -> Result<(), Refused> {
        let invalid = |code, description: &str| Err(Refused::invalid(code, description));
        if settings.shards_count != 1 {
            let description = "a database has one shard, which owns all slots";
            return invalid("invalid_sharding", description);
        }
        if settings.shard_key_regex.iter().any(|rule| rule.regex.is_empty()) {
            return invalid("invalid_sharding", "shard_key_regex: a rule is empty");
        }
        if settings.rack_aware && !self.policy.rack_aware {
            return invalid("not_rack_aware", "the cluster is not rack-aware");
        }
        if !known_version(&settings.redis_version) {
            return invalid("invalid_version", "redis_version: there is 8.0");
        }
        if settings.data_persistence == Persistence::Snapshot && settings.snapshot_policy.is_empty()
        {
            return invalid("invalid_data_persistence", "snapshots need a snapshot_policy");
        }
        if settings.snapshot_policy.iter().any(|rule| rule.secs == 0) {
            return invalid("invalid_data_persistence", "snapshot_policy: secs is at least 1");
        }
        if settings.oss_cluster && settings.proxy_policy == ProxyPolicy::Single {
            let description = "oss_cluster needs an endpoint on each primary's node";
            return invalid("invalid_oss_cluster_configuration", description);
        }
        if let Err(why) = ReplicaBuffer::of(&settings.slave_buffer) {
            return invalid("invalid_param", why);
        }
        if settings.backup && settings.backup_interval == 0 {
            return invalid("missing_backup_interval", "backups need a backup_interval");
        }
        match &settings.backup_location {
            Some(location) => location.check("backup_location")?,
            None if settings.backup => {
                return invalid("missing_backup_location", "backups need a backup_location");
            }
            None => {}
        }
        if settings.backup && settings.backup_interval <= settings.backup_interval_offset {
            let description = "backup_interval_offset has to be less than backup_interval";
            return invalid("invalid_param", description);
        }
        for (is_asked_for, what) in [
            (settings.email_alerts, "email_alerts: no mail is sent"),
            (
                !settings.disabled_commands.is_empty(),
                "disabled_commands: what users may run is said by redis_acls",
            ),
            (
                settings.replica_sync != ReplicaSync::Disabled
                    || !settings.replica_sources.is_empty(),
                "replica_sync: the server is told whom to follow with REPLICAOF",
            ),
        ] {
            // Who asks for protection that is not there has to hear of it.
            if is_asked_for {
                return invalid("not_supported", what);
            }
        }
        let tags = settings.tags.iter().map(|tag| tag.key.as_str()).collect::<BTreeSet<_>>();
        if tags.len() != settings.tags.len()
            || tags.iter().any(|key| key.is_empty() || key.len() > 64)
        {
            return invalid("invalid_bdb_tags", "each tag has a key of its own");
        }
        if !settings.module_list.is_empty() {
            return invalid("unsupported_module", "there are no modules");
        }
        if settings.crdt || settings.bigstore {
            return invalid("unsupported_database_type", "neither crdt nor bigstore is offered");
        }
        for permission in &settings.roles_permissions {
            let role = self.roles.keys().any(|uid| uid.0 == permission.role_uid);
            let acl = self.redis_acls.keys().any(|uid| uid.0 == permission.redis_acl_uid);
            if !role || !acl {
                let description = "roles_permissions: there is no such role or redis_acl";
                return invalid("redis_acl_unsupported", description);
            }
        }
        if settings.max_client_pipeline > 2047 || settings.max_client_pipeline == 0 {
            return Err(Refused::schema("max_client_pipeline: 1 to 2047"));
        }
        check_client_certificates(settings)?;
        self.check_room(settings)
    }

    /// With `shards_overbooking` off, what is promised has to be there.
    fn check_room(&self, settings: &DatabaseSettings) -> Result<(), Refused> {
        if self.policy.shards_overbooking {
            return Ok(());
        }
        let size =
            |one: &DatabaseSettings| one.memory_size.saturating_mul(1 + u64::from(one.replication));
        let others = self.databases.values().filter(|it| it.settings.name != settings.name);
        let promised =
            others.map(|it| size(&it.settings)).fold(size(settings), u64::saturating_add);
        let memory =
            self.nodes.values().map(|it| it.facts.total_memory).fold(0, u64::saturating_add);
        match promised <= memory {
            true => Ok(()),
            false => Err(Refused::invalid("insufficient_resources", "the nodes have less memory")),
        }
    }

    /// Where a new database goes.
    fn place(
        &self,
        settings: &DatabaseSettings,
        on: Option<NodeUid>,
    ) -> Result<Placement, Refused> {
        let free = self.candidates(settings);
        let wanted = on.filter(|node| free.contains(node));
        let Some(primary) = wanted.or_else(|| free.first().copied()) else {
            let description = "no node takes shards";
            return Err(Refused::invalid("insufficient_resources", description));
        };
        let mut placement = Placement { epoch: 1, primary, replicas: Vec::new(), holder: None };
        if settings.replication {
            let replica = self.replica_for(settings, &placement);
            placement.replicas.push(
                replica
                    .map_err(|refused| Refused { code: "invalid_replication".into(), ..refused })?,
            );
        }
        Ok(placement)
    }

    fn replica_for(
        &self,
        settings: &DatabaseSettings,
        placement: &Placement,
    ) -> Result<NodeUid, Refused> {
        let rack_of = |node| self.nodes.get(&node).map(|it| it.settings.rack_id.as_str());
        let used = |node: &NodeUid| placement.nodes().any(|it| it == *node);
        let free = self.candidates(settings).into_iter().filter(|node| !used(node));
        let mut apart = free
            .filter(|node| !settings.rack_aware || rack_of(*node) != rack_of(placement.primary));
        let description = "replication needs two nodes that take shards";
        apart.next().ok_or_else(|| Refused::invalid("replication_node_violation", description))
    }

    /// The nodes that may have a shard of such a database, the emptiest first.
    fn candidates(&self, settings: &DatabaseSettings) -> Vec<NodeUid> {
        let names = |list: &[String], node: NodeUid| {
            let uid = node.to_string();
            list.iter().any(|name| name.strip_prefix("node:").unwrap_or(name) == uid)
        };
        let shards = |node| self.databases.values().filter(|it| it.is_on(node)).count();
        let mut free: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.takes_shards())
            .map(|node| node.uid)
            .filter(|node| !names(&settings.avoid_nodes, *node))
            .filter(|node| settings.use_nodes.is_empty() || names(&settings.use_nodes, *node))
            .filter(|node| {
                let most = self.nodes[node].settings.max_redis_servers;
                shards(*node) < most as usize
            })
            .collect();
        free.sort_by_key(|node| (shards(*node), *node));
        free
    }

    /// The same for a database that there is, whose own shards take no place.
    pub(crate) fn candidates_but(&self, database: &Database) -> Vec<NodeUid> {
        let mut others = self.clone();
        others.databases.remove(&database.uid);
        others.candidates(&database.settings)
    }

    pub(super) fn database(&self, uid: DatabaseUid) -> Result<&Database, Refused> {
        self.databases.get(&uid).ok_or_else(unknown)
    }
}

/// Whether we offer that version: `8.0`, or in full.
pub(super) fn known_version(version: &str) -> bool {
    version == "8.0" || version.starts_with("8.0.") || version == "8"
}

/// Each primary's node has to have an endpoint, so that clients can go there.
fn adapt_to_oss_cluster(
    settings: &mut DatabaseSettings,
    patch: &DatabasePatch,
) -> Result<(), Refused> {
    if patch.proxy_policy == Some(ProxyPolicy::Single) {
        let description = "oss_cluster needs an endpoint on each primary's node";
        return Err(Refused::invalid("invalid_oss_cluster_configuration", description));
    }
    settings.shards_placement = ShardsPlacement::Sparse;
    if patch.proxy_policy.is_none() {
        settings.proxy_policy = ProxyPolicy::AllMasterShards;
    }
    Ok(())
}

fn check_client_certificates(settings: &DatabaseSettings) -> Result<(), Refused> {
    let lists =
        [&settings.authentication_ssl_client_certs, &settings.authentication_ssl_crdt_certs];
    for certificates in lists {
        let pems = certificates.iter().map(|it| it.client_cert.trim());
        if pems.clone().any(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
            let description = "a client certificate is not in PEM";
            return Err(Refused::invalid("invalid_certificate", description));
        }
        let distinct: BTreeSet<_> = pems.collect();
        if distinct.len() != certificates.len() {
            return Err(Refused::invalid("duplicated_certs", "a certificate is there twice"));
        }
    }
    let texts = lists.into_iter().flatten().map(|it| it.client_cert.as_bytes());
    if !texts.clone().all(holds_certificates) {
        let description = "a client certificate is not one that can be read";
        return Err(Refused::invalid("invalid_certificate", description));
    }
    let enforced = settings.enforce_client_authentication == Some(Enforce::Enabled);
    if enforced && settings.authentication_ssl_client_certs.is_empty() {
        let description = "authentication of clients needs certificates to trust";
        return Err(Refused::invalid("invalid_certificate", description));
    }
    let nameless = |subject: &SubjectRule| subject.cn.is_empty();
    if settings.authorized_subjects.iter().any(nameless) {
        return Err(Refused::schema("authorized_subjects: CN is missing"));
    }
    Ok(())
}

/// One certificate or several, in PEM, and nothing that is none.
fn holds_certificates(pem: &[u8]) -> bool {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.is_ok_and(|all| !all.is_empty() && all.iter().all(|it| CertificateInfo::of(it).is_ok()))
}

fn check_epoch(database: &Database, epoch: u64) -> Result<(), Refused> {
    match database.placement.epoch == epoch {
        true => Ok(()),
        false => {
            let now = database.placement.epoch;
            let description = format!("the placement has changed: epoch {now}, not {epoch}");
            Err(Refused::conflict("stale_epoch", description))
        }
    }
}

fn alerts() -> BTreeMap<String, AlertSetting> {
    let off = || AlertSetting::Level { enabled: false, threshold: String::new() };
    ALERTS.iter().map(|name| ((*name).to_owned(), off())).collect()
}

fn unknown() -> Refused {
    Refused::unknown("db_not_exist", "there is no such database")
}
