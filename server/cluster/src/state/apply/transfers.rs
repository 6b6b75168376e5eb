//! Exports, imports and backups: beginning them, what the node tells that does one, and how they end.

use serde_json::Value;

use crate::state::{
    ActionId, DatabaseStatus, DatabaseUid, Location, NodeStatus, NodeUid, Outcome, Refused,
    Severity, State, Time, TransferKind, TransferReport, TransferStage,
};

/// Sources of one import.
const SOURCES_MAX: usize = 64;

/// Why one has failed whose node tells nothing any more.
const INTERRUPTED: &str = "general-error";

impl State {
    pub(super) fn start_transfer(
        &mut self,
        uid: DatabaseUid,
        kind: TransferKind,
        locations: Vec<Location>,
        id: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let database = self.database(uid)?;
        if locations.is_empty() || SOURCES_MAX < locations.len() {
            return Err(Refused::schema(format!("1 to {SOURCES_MAX} locations are expected")));
        }
        for location in &locations {
            location.check(kind.name())?;
        }
        let busy = |what: &str| Err(Refused::conflict("busy", format!("database {uid}: {what}")));
        if let Some((running, _)) = database.transfers.current() {
            return busy(&format!("{} is under way", running.name()));
        }
        if database.status != DatabaseStatus::Active || database.action.is_some() {
            return busy("it is being changed");
        }
        let node = database.placement.primary;
        if self.node(node)?.status == NodeStatus::Down {
            let description = format!("the node of its primary, {node}, is down");
            return Err(Refused::new(503, "bdb_unavailable", description));
        }
        let Some(database) = self.databases.get_mut(&uid) else { return Ok(Outcome::Unchanged) };
        let transfer = database.transfers.of_mut(kind);
        transfer.stage = TransferStage::Asked;
        transfer.id = Some(id);
        transfer.node = Some(node);
        transfer.locations = locations;
        transfer.progress = 0;
        transfer.failure.clear();
        transfer.begun = Some(at);
        if kind == TransferKind::Import {
            database.status = DatabaseStatus::ImportPending;
        }
        database.revision += 1;
        self.tell_of_transfer(uid, kind, "started", Severity::Info, at);
        Ok(Outcome::Database { uid, action: None })
    }

    pub(super) fn report_transfer(
        &mut self,
        uid: DatabaseUid,
        kind: TransferKind,
        id: &ActionId,
        report: TransferReport,
        at: Time,
    ) -> Result<Outcome, Refused> {
        self.database(uid)?;
        let Some(database) = self.databases.get_mut(&uid) else { return Ok(Outcome::Unchanged) };
        let transfer = database.transfers.of_mut(kind);
        if transfer.id.as_ref() != Some(id) || !transfer.is_under_way() {
            let description = format!("{} is not under way any more", kind.name());
            return Err(Refused::conflict("transfer_over", description));
        }
        match report {
            TransferReport::Begun if transfer.stage == TransferStage::Asked => {
                transfer.stage = TransferStage::Running;
            }
            // Somebody has begun it before.
            TransferReport::Begun => {
                let description = format!("{} was begun already", kind.name());
                return Err(Refused::conflict("transfer_begun", description));
            }
            TransferReport::Progress(percent) => {
                let percent = percent.min(100);
                if transfer.progress == percent {
                    return Ok(Outcome::Unchanged);
                }
                transfer.progress = percent;
            }
            TransferReport::Succeeded => self.end_transfer(uid, kind, None, at),
            TransferReport::Failed(why) => self.end_transfer(uid, kind, Some(why), at),
        }
        Ok(Outcome::Done)
    }

    pub(super) fn reset_transfer(
        &mut self,
        uid: DatabaseUid,
        kind: TransferKind,
    ) -> Result<Outcome, Refused> {
        self.database(uid)?;
        let Some(database) = self.databases.get_mut(&uid) else { return Ok(Outcome::Unchanged) };
        let transfer = database.transfers.of_mut(kind);
        if transfer.is_under_way() {
            let description = format!("database {uid}: {} is under way", kind.name());
            return Err(Refused::conflict("busy", description));
        }
        if transfer.stage == TransferStage::Idle {
            return Ok(Outcome::Unchanged);
        }
        transfer.stage = TransferStage::Idle;
        transfer.progress = 0;
        transfer.failure.clear();
        database.revision += 1;
        Ok(Outcome::Done)
    }

    /// A node has gone: it tells nothing any more of what it did.
    pub(super) fn fail_transfers_of(&mut self, node: NodeUid, at: Time) {
        let mut lost = Vec::new();
        for database in self.databases.values() {
            if let Some((kind, transfer)) = database.transfers.current()
                && transfer.node == Some(node)
            {
                lost.push((database.uid, kind));
            }
        }
        for (uid, kind) in lost {
            self.end_transfer(uid, kind, Some(INTERRUPTED.to_owned()), at);
        }
    }

    fn end_transfer(
        &mut self,
        uid: DatabaseUid,
        kind: TransferKind,
        failure: Option<String>,
        at: Time,
    ) {
        let Some(database) = self.databases.get_mut(&uid) else { return };
        let transfer = database.transfers.of_mut(kind);
        let failed = failure.is_some();
        transfer.stage = match failed {
            true => TransferStage::Failed,
            false => TransferStage::Succeeded,
        };
        transfer.failure = failure.map(|why| why.chars().take(200).collect()).unwrap_or_default();
        if !failed {
            transfer.progress = 100;
            transfer.succeeded = Some(at);
        }
        if database.status == DatabaseStatus::ImportPending {
            database.status = DatabaseStatus::Active;
        }
        database.revision += 1;
        let (end, severity) = match failed {
            true => ("failed", Severity::Error),
            false => ("succeeded", Severity::Info),
        };
        self.tell_of_transfer(uid, kind, end, severity, at);
    }

    fn tell_of_transfer(
        &mut self,
        uid: DatabaseUid,
        kind: TransferKind,
        what: &str,
        severity: Severity,
        at: Time,
    ) {
        let Some(database) = self.databases.get(&uid) else { return };
        let name = database.settings.name.clone();
        let failure = database.transfers.of(kind).failure.clone();
        let mut fields = serde_json::Map::new();
        fields.insert("bdb_uid".to_owned(), uid.0.into());
        fields.insert("bdb_name".to_owned(), name.into());
        if !failure.is_empty() {
            fields.insert("reason".to_owned(), Value::from(failure));
        }
        self.note(at, &format!("{}_{what}", kind.name()), severity, fields);
    }
}
