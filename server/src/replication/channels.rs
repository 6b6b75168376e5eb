//! Replicas that take their snapshot over a connection of its own, as their primary sees them: which two connections
//! belong together, and what is kept of the log until both are there.
//!
//! One of the two is of no use without the other. In the way of Redis the stream's connection comes first, and gets the
//! log from the moment at which the snapshot begins. In that of Valkey it comes when the snapshot has begun; until then
//! the log is held for it, for a minute at most after the snapshot's connection has gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_config::Config;
use parking_lot::Mutex;

use super::feed::Replica;
use super::primary::Primary;
use crate::clock;
use crate::database::Database;
use crate::log;
use crate::mailbox::{Mailbox, Message};

/// How long a stream may be asked for after the connection of its snapshot has ended.
const GRACE_MS: u64 = 60_000;

/// What is kept of the log for streams that have yet to be asked for, by the connection of their snapshot.
#[derive(Default)]
pub(super) struct Holds(Mutex<BTreeMap<u64, Hold>>);

#[derive(Default)]
struct Hold {
    /// When the connection of the snapshot ended; none: it is there.
    alone_since_ms: Option<u64>,
}

impl Holds {
    /// The connection of a snapshot has ended. Whether the log is held all the same.
    pub fn outlives(&self, channel: u64) -> bool {
        let mut holds = self.0.lock();
        let hold = holds.get_mut(&channel);
        hold.map(|hold| hold.alone_since_ms = Some(clock::wall_ms())).is_some()
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Primary {
    /// The replicas as others are to see them: those with two connections once.
    pub fn listed(&self) -> Vec<Arc<Replica>> {
        let replicas = self.replicas.lock();
        let is_listed = |replica: &&Arc<Replica>| {
            let stream = replica.counterpart.load(Ordering::Relaxed);
            !(replica.introduction.is_channel && replicas.contains_key(&stream))
        };
        replicas.values().filter(is_listed).cloned().collect()
    }

    /// Whether this client is a replica that is to fetch its snapshot over another connection.
    pub fn awaits_channel(&self, stream: u64) -> bool {
        self.replicas.lock().get(&stream).is_some_and(|replica| replica.awaits_channel())
    }

    /// Whether a stream may be asked for that belongs to this connection's snapshot.
    pub fn holds_for(&self, channel: u64) -> bool {
        self.holds.0.lock().contains_key(&channel)
    }

    /// How many streams have yet to be asked for.
    pub fn waiting_streams(&self) -> usize {
        self.holds.len()
    }

    /// A snapshot begins over a connection of its own. Runs at the cut.
    pub(super) fn begin_channel(
        &self,
        database: &Database,
        channel: &Replica,
        offset: u64,
        mailboxes: &[Arc<Mailbox>],
    ) {
        let attach = |reader: u64| {
            let attached = database.log.attach(reader, offset, mailboxes);
            debug_assert!(attached.is_ok(), "the log has its own end");
        };
        if channel.is_named() {
            attach(channel.id());
            self.holds.0.lock().insert(channel.id(), Hold::default());
            return;
        }
        let stream = channel.introduction.stream;
        let stream = stream.and_then(|stream| self.replicas.lock().get(&stream).cloned());
        let Some(stream) = stream.filter(|stream| stream.awaits_channel()) else {
            log::warning!(
                "Starting to deliver RDB to replica {} but it has no associated main channel",
                channel.name()
            );
            return;
        };
        log::notice!(
            "Starting to deliver RDB and replication stream to replica: {}",
            stream.name()
        );
        // In this order: its reactor may look at any time.
        attach(stream.id());
        stream.begin_stream(channel.id());
        mailboxes[stream.client.reactor].post(Message::Feed);
        if !self.is_attached(&stream) {
            // It has gone meanwhile.
            database.log.detach(stream.id());
        }
    }

    /// Whether the connection for a replica's snapshot is there.
    pub(super) fn has_channel(&self, stream: &Replica) -> bool {
        let replicas = self.replicas.lock();
        let is_its = |it: &Arc<Replica>| it.introduction.stream == Some(stream.id());
        replicas.contains_key(&stream.counterpart.load(Ordering::Relaxed))
            || replicas.values().any(is_its)
    }

    /// The stream that belongs to a snapshot has begun. Whether there is such a snapshot.
    pub fn take_hold(&self, database: &Database, channel: u64, stream: u64) -> bool {
        if self.holds.0.lock().remove(&channel).is_none() {
            return false;
        }
        database.log.detach(channel);
        if let Some(channel) = self.replicas.lock().get(&channel) {
            channel.counterpart.store(stream, Ordering::Relaxed);
        }
        true
    }

    /// A replica has got its snapshot over another connection.
    pub(super) fn put_online(&self, stream: u64) {
        let stream = self.replicas.lock().get(&stream).cloned();
        if let Some(stream) = stream {
            stream.put_online();
        }
    }

    /// A replica's stream has ended: the connection for its snapshot is of no use any more. The other way round it
    /// may be that the replica has all of it, and has closed that connection before we see so.
    pub(super) fn end_channel_of(&self, stream: &Replica) {
        let channel = stream.counterpart.load(Ordering::Relaxed);
        let channel = self.replicas.lock().get(&channel).cloned();
        if let Some(channel) = channel.filter(|it| it.introduction.is_channel && !it.is_done()) {
            channel.client.kill();
        }
    }

    /// Gives up streams that nobody asks for, or that are too far behind.
    pub(super) fn let_go_of_holds(&self, database: &Database, config: &Config, now_ms: u64) {
        let most = config.client_output_buffer_limit.replica.hard_bytes;
        let mut over = Vec::new();
        self.holds.0.lock().retain(|&channel, hold| {
            let is_late =
                hold.alone_since_ms.is_some_and(|since| since + GRACE_MS < now_ms.max(since));
            let is_behind = most != 0 && most < database.log.lag(channel);
            if is_late || is_behind {
                over.push((channel, is_late));
            }
            !(is_late || is_behind)
        });
        for (channel, is_late) in over {
            let reason = if is_late { "nobody has asked for it" } else { "it is too far behind" };
            log::warning!("What was kept for the stream of client id #{channel} goes: {reason}.");
            database.log.detach(channel);
            let replica = self.replicas.lock().get(&channel).cloned();
            if let Some(replica) = replica {
                replica.client.kill();
            }
        }
    }
}
