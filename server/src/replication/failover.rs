//! FAILOVER: a primary that changes places with one of its replicas.
//!
//! Writes are held back until a replica has all that there is; then that replica is told to take over, and
//! the primary follows it.

use std::sync::Arc;

use super::feed::Replica;
use super::primary::Primary;
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::pause::Held;
use crate::server::Server;

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    #[default]
    None,
    /// Until a replica has everything.
    WaitForSync,
    /// The replica has been asked to take over.
    InProgress,
}

#[derive(Debug, Default)]
pub struct Failover {
    pub step: Step,
    /// Which replica, by where it can be reached; none: the first that has everything.
    pub target: Option<(String, u16)>,
    /// When it is given up, or, if `force`, done in any case.
    pub until_ms: Option<u64>,
    pub force: bool,
}

impl Failover {
    pub fn is_on(&self) -> bool {
        self.step != Step::None
    }

    /// Under Redis's names.
    pub fn state(&self) -> &'static str {
        match self.step {
            Step::None => "no-failover",
            Step::WaitForSync => "waiting-for-sync",
            Step::InProgress => "failover-in-progress",
        }
    }
}

impl Primary {
    /// The replica that can be reached there.
    pub fn find(&self, host: &str, port: u16) -> Option<Arc<Replica>> {
        let replicas = self.replicas.lock();
        let is_it = |replica: &&Arc<Replica>| {
            replica.introduction.port == port && replica.host().eq_ignore_ascii_case(host)
        };
        replicas.values().find(is_it).cloned()
    }

    /// Holds writes back and waits for a replica.
    pub fn begin_failover(&self, database: &Database, failover: Failover) {
        *self.failover.lock() = Failover { step: Step::WaitForSync, ..failover };
        let now_ms = clock::wall_ms();
        // Until it ends, whenever that is.
        database.pause.begin(Held::Writes, u64::MAX / 2, now_ms, &database.attention);
        self.ask(database);
    }

    /// Ends it in vain, or because it is done.
    pub fn end_failover(&self, server: &Server, database: &Database) {
        *self.failover.lock() = Failover::default();
        database.pause.end(&database.attention);
        for mailbox in &server.mailboxes {
            mailbox.post(crate::mailbox::Message::PauseOver);
        }
    }

    pub fn abort_failover(&self, server: &Arc<Server>, database: &Arc<Database>, reason: &str) {
        let (step, target) = {
            let failover = self.failover.lock();
            (failover.step, failover.target.clone())
        };
        if step == Step::None {
            return;
        }
        match target {
            Some((host, port)) => log::notice!("FAILOVER to {host}:{port} aborted: {reason}"),
            None => log::notice!("FAILOVER to any replica aborted: {reason}"),
        }
        if step == Step::InProgress {
            super::follow_nobody(database);
        }
        self.end_failover(server, database);
    }

    /// Looks whether it can go on.
    pub(super) fn advance_failover(&self, server: &Arc<Server>, database: &Arc<Database>) {
        let (target, until_ms, force) = {
            let failover = self.failover.lock();
            if failover.step != Step::WaitForSync {
                return;
            }
            (failover.target.clone(), failover.until_ms, failover.force)
        };
        if until_ms.is_some_and(|until_ms| until_ms <= clock::wall_ms()) {
            match target {
                Some((host, port)) if force => {
                    log::notice!("FAILOVER to {host}:{port} time out exceeded, failing over.");
                    self.hand_over(server, database, &host, port);
                }
                _ => {
                    let reason = "Replica never caught up before timeout";
                    self.abort_failover(server, database, reason);
                }
            }
            return;
        }
        let end = database.log.end();
        let synced = match &target {
            Some((host, port)) => self.find(host, *port),
            None => self.list().into_iter().find(|replica| replica.acknowledged() == end),
        };
        if let Some(replica) = synced.filter(|it| it.is_online() && it.acknowledged() == end) {
            let (host, port) = (replica.host().to_owned(), replica.introduction.port);
            log::notice!("Failover target {host}:{port} is synced, failing over.");
            self.hand_over(server, database, &host, port);
        }
    }

    fn hand_over(&self, server: &Arc<Server>, database: &Arc<Database>, host: &str, port: u16) {
        {
            let mut failover = self.failover.lock();
            failover.step = Step::InProgress;
            failover.target = Some((host.to_owned(), port));
        }
        super::follow(server, database, host, port);
    }
}
