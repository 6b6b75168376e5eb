//! Work under way: beginning it, parts that are done, its end.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::state::{
    Action, ActionId, ActionKind, ActionStatus, DatabaseStatus, Detail, NodeStatus, NodeUid,
    Object, Outcome, Refused, State, Time,
};

/// How long actions that are over can be looked at, and how many more than a few are kept.
const KEPT: Duration = Duration::from_secs(3600);
const KEPT_LEAST: Duration = Duration::from_secs(600);
const KEPT_MAX: usize = 500;

/// Work that is over when all nodes that were asked have done their part.
const AWAITED: [ActionKind; 4] = [
    ActionKind::CreateDatabase,
    ActionKind::UpdateDatabase,
    ActionKind::DeleteDatabase,
    ActionKind::RotateCertificates,
];

impl State {
    /// Begins work on an object, of which there is one at a time.
    pub(super) fn begin(
        &mut self,
        id: ActionId,
        kind: ActionKind,
        object: Object,
        awaits: BTreeSet<NodeUid>,
        detail: Detail,
        at: Time,
    ) -> Result<(), Refused> {
        if id.0.is_empty() || id.0.len() > 64 || self.actions.contains_key(&id) {
            return Err(Refused::conflict("action_exists", "there is an action of this name"));
        }
        if let Some(running) = self.running(object) {
            let code =
                if matches!(object, Object::Database(_)) { "busy" } else { "action_running" };
            let description = format!("{object}: {} is under way", running.kind.name());
            return Err(Refused::conflict(code, description));
        }
        self.tidy(at);
        let action = Action {
            id: id.clone(),
            kind,
            object,
            status: ActionStatus::Active,
            progress: 0.0,
            step: "running".to_owned(),
            created: at,
            heartbeat: at,
            finished: None,
            error: None,
            awaits,
            detail,
        };
        if let Object::Database(uid) = object
            && let Some(database) = self.databases.get_mut(&uid)
        {
            database.action = Some(id.clone());
        }
        self.actions.insert(id, action);
        Ok(())
    }

    /// The nodes that can do their part of something now.
    pub(super) fn present(&self) -> BTreeSet<NodeUid> {
        let here = self.nodes.values().filter(|node| node.status != NodeStatus::Down);
        here.map(|node| node.uid).collect()
    }

    pub(super) fn confirm_action(
        &mut self,
        id: &ActionId,
        node: NodeUid,
        error: Option<String>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let action = self.action_mut(id)?;
        if action.status.is_over() || !action.awaits.remove(&node) {
            return Ok(Outcome::Unchanged);
        }
        action.heartbeat = at;
        match error {
            Some(error) => self.end(id, Some(format!("node {node}: {error}")), at),
            None if action.awaits.is_empty() => self.end(id, None, at),
            None => Ok(Outcome::Done),
        }
    }

    /// A node does no more of its part: it is gone.
    pub(super) fn excuse(&mut self, node: NodeUid, at: Time) -> Result<(), Refused> {
        let waiting: Vec<ActionId> = self.awaiting(node).map(|action| action.id.clone()).collect();
        for id in waiting {
            let action = self.action_mut(&id)?;
            // Certificates are replaced everywhere or the call has failed; and a database that was to be
            // made on this node is nowhere.
            let decisive = match (action.kind, action.object) {
                (ActionKind::RotateCertificates, _) => true,
                (ActionKind::CreateDatabase, Object::Database(uid)) => {
                    self.databases.get(&uid).is_some_and(|it| it.placement.primary == node)
                }
                _ => false,
            };
            let error = decisive.then(|| "it went down".to_owned());
            self.confirm_action(&id, node, error, at)?;
        }
        Ok(())
    }

    /// Ends what nobody is to do his part of: all nodes were down when it began, or have gone since.
    pub(super) fn end_unawaited(&mut self, at: Time) -> Result<(), Refused> {
        let is_idle = |action: &&Action| {
            !action.status.is_over() && action.awaits.is_empty() && AWAITED.contains(&action.kind)
        };
        let Some(action) = self.actions.values().find(is_idle) else { return Ok(()) };
        let is_whole = action.kind == ActionKind::RotateCertificates;
        let (id, error) = (action.id.clone(), is_whole.then(|| "no node is up".to_owned()));
        self.end(&id, error, at)?;
        self.end_unawaited(at)
    }

    pub(super) fn advance_action(
        &mut self,
        id: &ActionId,
        progress: f64,
        step: String,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let action = self.action_mut(id)?;
        if action.status.is_over() {
            return Ok(Outcome::Unchanged);
        }
        // Whatever comes in, it stays a percentage; and whole, as texts of others do not always read back
        // as the same number.
        let percent = if progress.is_finite() { progress.clamp(0.0, 100.0) } else { 0.0 };
        action.progress = percent.round();
        action.step = step;
        action.heartbeat = at;
        Ok(Outcome::Done)
    }

    pub(super) fn finish_action(
        &mut self,
        id: &ActionId,
        error: Option<String>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        if self.action_mut(id)?.status.is_over() {
            return Ok(Outcome::Unchanged);
        }
        self.end(id, error, at)
    }

    /// The end of an action, and what that means for its object.
    fn end(&mut self, id: &ActionId, error: Option<String>, at: Time) -> Result<Outcome, Refused> {
        let failed = error.is_some();
        let action = self.action_mut(id)?;
        action.status = if failed { ActionStatus::Failed } else { ActionStatus::Completed };
        if !failed {
            action.progress = 100.0;
        }
        action.step = if failed { "failed" } else { "completed" }.to_owned();
        action.error = error;
        action.heartbeat = at;
        action.finished = Some(at);
        action.awaits.clear();
        let (kind, object) = (action.kind, action.object);
        let detail = std::mem::replace(&mut action.detail, Detail::None);
        match object {
            Object::Database(uid) => self.end_for_database(uid, kind, detail, failed, at),
            Object::Node(uid) => self.end_for_node(uid, kind, failed, at)?,
            Object::Cluster if kind == ActionKind::RotateCertificates && !failed => {
                self.tell(at, "internal_certs_rotated", []);
            }
            Object::Cluster | Object::Authority => {}
        }
        Ok(Outcome::Done)
    }

    fn end_for_database(
        &mut self,
        uid: crate::state::DatabaseUid,
        kind: ActionKind,
        detail: Detail,
        failed: bool,
        at: Time,
    ) {
        let Some(database) = self.databases.get_mut(&uid) else { return };
        database.action = None;
        database.revision += 1;
        let name = database.settings.name.clone();
        match (kind, failed) {
            (ActionKind::CreateDatabase, true) => database.status = DatabaseStatus::CreationFailed,
            (ActionKind::DeleteDatabase, false) => {
                self.databases.remove(&uid);
                let fields = [("bdb_uid", uid.0.into()), ("bdb_name", name.into())];
                self.tell(at, "bdb_deleted", fields);
            }
            (_, true) => {
                // What there was holds again, for all nodes.
                if let Detail::Update { previous, .. } = detail {
                    database.settings = *previous;
                }
                database.status = database.status_at_rest();
                database.last_changed = at;
            }
            (_, false) => database.status = database.status_at_rest(),
        }
    }

    fn action_mut(&mut self, id: &ActionId) -> Result<&mut Action, Refused> {
        let unknown = || Refused::unknown("action_not_exist", "there is no such action");
        self.actions.get_mut(id).ok_or_else(unknown)
    }

    /// Forgets what was over long ago.
    pub(super) fn tidy(&mut self, at: Time) -> Outcome {
        let before = self.actions.len();
        let many = before > KEPT_MAX;
        let kept = if many { KEPT_LEAST } else { KEPT };
        self.actions.retain(|_, action| action.finished.is_none_or(|end| at.since(end) < kept));
        if self.actions.len() == before { Outcome::Unchanged } else { Outcome::Done }
    }
}
