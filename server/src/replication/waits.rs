//! WAIT and WAITAOF: clients that wait until replicas have, or disks have, what they wrote.

use std::sync::Arc;

use carnelian_resp::{Protocol, Writer};
use parking_lot::Mutex;

use crate::blocking::Waiter;
use crate::database::Database;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Behind its last write in the log.
    pub offset: u64,
    pub replicas: u64,
    /// None for WAIT; for WAITAOF whether this server's own file counts too.
    pub local: Option<bool>,
}

/// How much of it has come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    local: bool,
    replicas: u64,
}

impl Awaited {
    pub fn reached(&self, database: &Database) -> Reached {
        let is_on_disk = self.local.is_some();
        let synced = synced(database);
        let replicas = database.replication.primary.replicas.lock();
        let has = |replica: &&Arc<super::feed::Replica>| {
            let offset = if is_on_disk { replica.on_disk() } else { replica.acknowledged() };
            replica.is_online() && self.offset <= offset
        };
        Reached {
            local: synced.is_some_and(|synced| self.offset <= synced),
            replicas: replicas.values().filter(has).count() as u64,
        }
    }

    pub fn is_met_by(&self, reached: Reached) -> bool {
        self.replicas <= reached.replicas && (self.local != Some(true) || reached.local)
    }

    /// The reply: to one who has got what it wanted, or has waited in vain.
    pub fn reply(&self, reached: Reached, reply: &mut Writer<'_>) {
        if self.local.is_some() {
            reply.array(2);
            reply.integer(reached.local.into());
        }
        reply.integer(reached.replicas as i64);
    }

    /// The same as bytes, for one whose wait ends elsewhere.
    pub fn reply_now(&self, database: &Database, protocol: Protocol) -> Vec<u8> {
        let mut out = Vec::new();
        self.reply(self.reached(database), &mut Writer::new(&mut out, protocol));
        out
    }
}

/// Up to where the log is on disk in an append-only file from which all data can be had.
pub fn synced(database: &Database) -> Option<u64> {
    database.aof.is_complete().then(|| database.log.synced())
}

/// The reply to who waits for a file that there is not.
pub const NO_FILE: &str =
    "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

/// Those who wait now.
#[derive(Default)]
pub struct Waits {
    waiting: Mutex<Vec<Arc<Waiter>>>,
}

impl Waits {
    pub fn enter(&self, waiter: &Arc<Waiter>) {
        self.waiting.lock().push(Arc::clone(waiter));
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Ends the waits that have come true or never can, and forgets those that have ended otherwise.
    pub fn settle(&self, database: &Database) {
        let is_in_vain = |awaited: &Awaited| awaited.local == Some(true) && !database.aof.is_on();
        let over: Vec<_> = {
            let mut waiting = self.waiting.lock();
            waiting.retain(|waiter| waiter.is_waiting());
            let is_over = |waiter: &mut Arc<Waiter>| {
                waiter
                    .awaited
                    .is_some_and(|it| is_in_vain(&it) || it.is_met_by(it.reached(database)))
            };
            waiting.extract_if(.., is_over).collect()
        };
        for waiter in over {
            let Some(awaited) = waiter.awaited else { continue };
            waiter.finish(match is_in_vain(&awaited) {
                true => format!("-{NO_FILE}\r\n").into_bytes(),
                false => awaited.reply_now(database, waiter.protocol),
            });
        }
    }
}
