//! The state as Raft's machine: committed entries are applied in order, and readers see the result at once.

use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::store::StoreError;
use super::{
    Entry, LogId, Recent, Reply, Snapshot, SnapshotMeta, StorageError, Store, StoredMembership,
    Types,
};
use crate::signal::Signal;
use crate::state::State;

/// How many replies are remembered, for changes that are asked for again.
const RECENT_MAX: usize = 256;

pub struct Machine {
    store: Arc<Store>,
    /// As of `applied`.
    state: Arc<State>,
    /// What readers see. It never goes back: after the store was opened again, entries that they know are
    /// applied once more.
    states: watch::Sender<Arc<State>>,
    recent: Recent,
    applied: Option<LogId>,
    /// Tells how far it is, once readers see what has come of it.
    told: Arc<Signal<u64>>,
    membership: StoredMembership,
}

/// What a snapshot holds, as JSON.
#[derive(Default, Serialize, Deserialize)]
struct Body {
    state: State,
    recent: Recent,
}

impl Machine {
    /// As of the last snapshot; Raft applies again what is committed beyond it.
    pub fn open(
        store: Arc<Store>,
        states: watch::Sender<Arc<State>>,
        told: Arc<Signal<u64>>,
    ) -> Result<Self, StoreError> {
        let mut machine = Self {
            store,
            state: Arc::default(),
            states,
            recent: Recent::new(),
            applied: None,
            told,
            membership: StoredMembership::default(),
        };
        if let Some(meta) = machine.store.read::<SnapshotMeta>("snapshot")?
            && let Some(body) = machine.store.read_sealed("snapshot.body")?
        {
            machine.replace(&meta, serde_json::from_slice(&body)?);
        }
        Ok(machine)
    }

    fn replace(&mut self, meta: &SnapshotMeta, body: Body) {
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.recent = body.recent;
        self.state = Arc::new(body.state);
        self.show();
    }

    fn show(&self) {
        self.states.send_if_modified(|shown| {
            let newer = shown.revision < self.state.revision;
            if newer {
                *shown = Arc::clone(&self.state);
            }
            newer
        });
        self.told.set(self.applied.map_or(0, |id| id.index));
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            replies.push(Reply(match entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    None
                }
                EntryPayload::Normal(proposal) => {
                    let known = self.recent.iter().find(|(id, _)| *id == proposal.id);
                    Some(match known {
                        Some((_, reply)) => reply.clone(),
                        None => {
                            let reply =
                                Arc::make_mut(&mut self.state).apply(proposal.change, proposal.at);
                            self.recent.push_back((proposal.id, reply.clone()));
                            if self.recent.len() > RECENT_MAX {
                                self.recent.pop_front();
                            }
                            reply
                        }
                    })
                }
            }));
        }
        self.show();
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let body = Body { state: State::clone(&self.state), recent: self.recent.clone() };
        let index = self.applied.map_or(0, |id| id.index);
        let meta = SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: format!("{index}"),
        };
        Builder { store: Arc::clone(&self.store), meta, body }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Vec<u8>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Vec<u8>>,
    ) -> Result<(), StorageError> {
        let mut install = || -> Result<_, StoreError> {
            let body = serde_json::from_slice(&snapshot)?;
            save(&self.store, meta, &snapshot)?;
            self.replace(meta, body);
            Ok(())
        };
        install().map_err(|error| {
            StorageIOError::write_snapshot(Some(meta.signature()), self.store.fault(&error)).into()
        })
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let read = || -> Result<_, StoreError> {
            let Some(meta) = self.store.read("snapshot")? else { return Ok(None) };
            let body = self.store.read_sealed("snapshot.body")?;
            Ok(body.map(|body| Snapshot { meta, snapshot: Box::new(body) }))
        };
        read().map_err(|error| StorageIOError::read_snapshot(None, self.store.fault(&error)).into())
    }
}

/// Writes the snapshot of one moment.
pub struct Builder {
    store: Arc<Store>,
    meta: SnapshotMeta,
    body: Body,
}

impl RaftSnapshotBuilder<Types> for Builder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let build = || -> Result<_, StoreError> {
            let bytes = serde_json::to_vec(&self.body)?;
            save(&self.store, &self.meta, &bytes)?;
            Ok(Snapshot { meta: self.meta.clone(), snapshot: Box::new(bytes) })
        };
        build().map_err(|error| {
            StorageIOError::write_snapshot(Some(self.meta.signature()), self.store.fault(&error))
                .into()
        })
    }
}

fn save(store: &Store, meta: &SnapshotMeta, body: &[u8]) -> Result<(), StoreError> {
    store.write_sealed(("snapshot", serde_json::to_vec(meta)?), ("snapshot.body", body))
}
