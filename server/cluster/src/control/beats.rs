//! Beats: this node lets the leader hear of it, and the leader grants leases.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Control, Engine, Member};
use crate::lease::{BEAT, Beat, Granted, Said};
use crate::rpc::{Request, Response};
use crate::state::{Change, NodeStatus};

/// Several beats fit into a lease.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// How often this is looked at.
pub const TICK: Duration = Duration::from_millis(50);

impl Control {
    /// Each [`BEAT`], and more often while a primary here waits for its lease.
    pub(super) async fn beat_in_time(self) {
        let last = *self.0.last_beat.lock();
        let is_eager = self.0.is_eager.swap(false, Ordering::Relaxed);
        if is_eager || last.is_none_or(|last| last + BEAT <= self.steady() + TICK / 2) {
            *self.0.last_beat.lock() = Some(self.steady());
            self.beat().await;
        }
    }

    async fn beat(self) {
        let Some(member) = self.member() else { return };
        let (leader, address) = match member.leader() {
            Ok(Some(leader)) => leader,
            Ok(None) => return,
            Err(_) => return self.open_again(&member).await,
        };
        self.tell_facts(&member);
        // Before the reports, which are then at least as new.
        let (returned, as_of) = self.0.leases.settled().into_parts();
        let beat = Beat {
            node: member.node,
            process: self.0.process,
            reports: self.0.reports.lock().values().cloned().collect(),
            returned,
            as_of,
        };
        let sent = self.steady();
        let granted = if leader == member.node {
            tokio::time::timeout(ANSWER_TIME, self.hear(&beat)).await.ok().flatten()
        } else {
            match self.0.peers.call(leader, &address, &Request::Beat(beat), ANSWER_TIME).await {
                Ok(Response::Beat(granted)) => Some(granted),
                _ => None,
            }
        };
        if let Some(granted) = granted {
            self.0.leases.take(&granted, sent);
        }
    }

    /// A beat has come to this node; an answer if it leads.
    pub(super) async fn hear(&self, beat: &Beat) -> Option<Granted> {
        let (member, term) = self.leading()?;
        let asked = self.steady();
        let known = self.0.ledger.lock().confirmed(term, asked);
        let confirmed = match known {
            Some(confirmed) => confirmed,
            None => {
                // Only who has asked a majority can be sure that nobody else leads; and from here on the state
                // has all that was decided before.
                member.answered(member.raft.ensure_linearizable()).await?.ok()?;
                let (_, now_term) = self.leading()?;
                if now_term != term {
                    return None;
                }
                self.0.ledger.lock().of_term(term, self.steady()).confirm(asked);
                asked
            }
        };
        let (state, now) = (self.state(), self.steady());
        if !state.is_member(beat.node) {
            return None;
        }
        let mut ledger = self.0.ledger.lock();
        let ledger = ledger.of_term(term, now);
        ledger.note(beat, now);
        let mut granted = Granted { said: Some(Said::now(term, now)), ..Granted::default() };
        for database in state.databases.values() {
            let placement = &database.placement;
            if placement.primary != beat.node {
                continue;
            }
            // Another process of that node may have lost the data: it is found out who has them.
            if !placement.replicas.is_empty() && placement.holder != Some(beat.process) {
                continue;
            }
            granted.grants.extend(ledger.grant(database.uid, placement.epoch, confirmed, now));
            let revoked = ledger.revoked(database.uid);
            granted.revoked.extend(revoked.filter(|it| it.epoch == placement.epoch));
        }
        Some(granted)
    }

    /// Has the state say of this node what it says of itself.
    fn tell_facts(&self, member: &Member) {
        let facts = self.0.facts.lock().clone();
        let state = self.state();
        let (Some(facts), Some(node)) = (facts, state.nodes.get(&member.node)) else { return };
        if node.facts == facts {
            return;
        }
        // Not waited for: beats go on.
        let (control, node) = (self.clone(), member.node);
        let facts = Some(Box::new(facts));
        tokio::spawn(async move {
            let change = Change::ReportNode { node, status: NodeStatus::Active, facts };
            if let Err(error) = control.change(change).await {
                tracing::debug!("what this node says of itself was not taken: {error}");
            }
        });
    }

    /// Raft has ended, as the store failed it. When that can be opened again, this node is what it was.
    async fn open_again(&self, member: &Member) {
        let node = member.node;
        tracing::warn!("the control plane's store failed; opening it again");
        let store = {
            let mut engine = self.0.engine.write();
            engine.member = None;
            engine.store.take()
        };
        member.end().await;
        drop(store);
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Until it can be, the node is in its cluster but cannot take part: a member of nothing.
        loop {
            if self.0.closed.now() {
                return;
            }
            match (self.0.opener)() {
                Ok(store) => {
                    *self.0.engine.write() =
                        Engine { store: Some(Arc::clone(&store)), member: None };
                    match self.take_part(&store, node).await {
                        Ok(_) => return,
                        Err(error) => tracing::warn!("the control plane cannot go on: {error}"),
                    }
                    self.0.engine.write().store = None;
                }
                Err(error) => tracing::warn!("the control plane's store: {error}"),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::AtomicBool;

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::peers::{Dialing, Environment};
    use crate::raft::Store;
    use crate::state::{CreateCluster, NodeUid, Severity, Time};

    /// What stays when it is closed, and can be full.
    #[derive(Clone, Debug, Default)]
    struct Disk(Arc<(InMemoryBackend, AtomicBool)>);

    impl Disk {
        fn set_full(&self, is_full: bool) {
            self.0.1.store(is_full, Ordering::SeqCst);
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.0.0.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.0.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.0.0.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.0.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            match self.0.1.load(Ordering::SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.0.0.write(offset, data),
            }
        }
    }

    /// A world with nobody else in it.
    struct Alone(tokio::time::Instant);

    impl Environment for Alone {
        fn now(&self) -> Time {
            Time(1_800_000_000_000)
        }

        fn steady(&self) -> Duration {
            self.0.elapsed()
        }

        fn dial(&self, _: NodeUid, _: &str) -> Dialing {
            Box::pin(async { Err(io::ErrorKind::NotConnected.into()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_whose_store_fails_has_not_left_its_cluster() {
        let disk = Disk::default();
        let own = disk.clone();
        let opener = Box::new(move || Store::on(own.clone()));
        let alone = Arc::new(Alone(tokio::time::Instant::now()));
        let control = Control::start(opener, alone).await.expect("it is empty");
        assert_eq!(control.node(), None);
        let create = Change::CreateCluster(Box::new(CreateCluster::for_tests()));
        control.change(create).await.expect("it can be made");
        let node = Some(NodeUid(1));
        assert_eq!(control.node(), node);

        let note = || Change::Note {
            kind: "tried".to_owned(),
            severity: Severity::Info,
            fields: serde_json::Map::new(),
        };
        disk.set_full(true);
        let asker = control.clone();
        let asked = tokio::spawn(async move { asker.change(note()).await });
        while control.member().is_some() {
            assert_eq!(control.node(), node);
            tokio::time::sleep(TICK).await;
        }
        assert_eq!(control.node(), node, "it takes part in nothing, but is nobody else");
        assert!(control.join(NodeUid(7)).await.is_err());
        disk.set_full(false);
        // Whether the change was made is not known to who asked; another one is made.
        let _ = asked.await;
        while control.change(note()).await.is_err() {
            assert_eq!(control.node(), node);
        }
        control.close().await;
        assert_eq!(control.node(), node, "and at the end it is no node on its own");
    }
}
