//! A replica that is attached: what it is, how far it has come, and what it is sent next.
//!
//! Its connection stays on its reactor, which feeds it at the end of a turn for as long as little of what it
//! has been given waits for the socket. So what a slow replica has yet to get lies in the log, once for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use carnelian_replication::Id;
use carnelian_replication::beside::Offers;
use parking_lot::Mutex;

use super::full_sync::{Taken, Transfer};
use crate::clients::ClientShared;
use crate::clock;
use crate::database::Database;
use crate::log;

/// What a replica has said of itself by REPLCONF.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    pub port: u16,
    /// Where it wants to be reached, if not where it comes from.
    pub address: Option<Box<str>>,
    /// It finds the end of a snapshot by a mark.
    pub finds_end: bool,
    /// It understands `+CONTINUE` with a name.
    pub knows_names: bool,
    /// It wants the snapshot and nothing after it.
    pub snapshot_only: bool,
    pub parts: Parts,
    /// How else it can take a snapshot than over the connection that asks for one.
    pub offers: Offers,
    /// The snapshot that comes over this connection is for a replica whose stream goes over another.
    pub is_channel: bool,
    /// That other connection, where this one names it.
    pub stream: Option<u64>,
    /// The connection of the snapshot, where this is the one for the stream and names it.
    pub snapshot: Option<u64>,
}

/// What a snapshot has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    pub data: bool,
    pub functions: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self { data: true, functions: true }
    }
}

/// An attached replica, as all threads see it.
pub struct Replica {
    pub client: Arc<ClientShared>,
    pub introduction: Introduction,
    /// It came by SYNC: it acknowledges nothing.
    pub is_old: bool,
    pub attached_ms: u64,
    stage: Mutex<Stage>,
    /// It has the data and gets the stream.
    is_online: AtomicBool,
    /// It wants to see a line, so that it knows we are here.
    wants_newline: AtomicBool,
    /// What it has, and has on disk.
    acknowledged: AtomicU64,
    on_disk: AtomicU64,
    /// When it was last heard of, or took something.
    heard_ms: AtomicU64,
    /// Its snapshot or its stream goes over the connection of this client; 0: there is only this one.
    pub(super) counterpart: AtomicU64,
}

/// Where a replica stands.
enum Stage {
    /// Until a snapshot begins.
    Waiting,
    /// It gets a snapshot, after this line.
    Sending {
        transfer: Arc<Transfer>,
        greeting: Option<Bytes>,
        /// It has said that it has all of it: it may see the mark before we see that it was the last.
        is_confirmed: bool,
    },
    /// It has got a snapshot that ends with a mark, and is to say so first: it would take what follows
    /// for a part of the snapshot.
    Confirming,
    /// It is to get the log once a snapshot has begun over another connection.
    Beside,
    /// It gets the log, while a snapshot comes to it over another connection.
    Streaming,
    /// It gets the log.
    Online,
    /// It has all that it wanted.
    Done,
}

/// How a replica begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It is to get a snapshot.
    Waiting,
    /// It goes on with the log.
    Online,
    /// Its snapshot will come over another connection.
    Beside,
    /// It is coming over another connection.
    Streaming,
}

/// What came of feeding a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// There may be more.
    More,
    /// There is nothing more now; somebody will tell.
    All,
    /// It cannot go on, or need not.
    Over,
}

impl Replica {
    pub fn new(
        client: Arc<ClientShared>,
        introduction: Introduction,
        is_old: bool,
        start: Start,
    ) -> Self {
        let now_ms = clock::wall_ms();
        let counterpart = introduction.stream.or(introduction.snapshot).unwrap_or(0);
        let stage = match start {
            Start::Waiting => Stage::Waiting,
            Start::Online => Stage::Online,
            Start::Beside => Stage::Beside,
            Start::Streaming => Stage::Streaming,
        };
        Self {
            client,
            introduction,
            is_old,
            attached_ms: now_ms,
            stage: Mutex::new(stage),
            is_online: AtomicBool::new(start == Start::Online),
            wants_newline: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            on_disk: AtomicU64::new(0),
            heard_ms: AtomicU64::new(now_ms),
            counterpart: AtomicU64::new(counterpart),
        }
    }

    pub fn id(&self) -> u64 {
        self.client.id
    }

    /// The host it can be reached at: what it has said, or where it comes from.
    pub fn host(&self) -> &str {
        match &self.introduction.address {
            Some(address) => address,
            None => {
                let host = self.client.address.rsplit_once(':').map_or("", |(host, _)| host);
                host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host)
            }
        }
    }

    /// What the log calls it.
    pub fn name(&self) -> String {
        match self.introduction.port {
            0 => format!("client id #{}", self.client.id),
            port => format!("{}:{port}", self.host()),
        }
    }

    pub fn is_online(&self) -> bool {
        self.is_online.load(Ordering::Acquire)
    }

    pub fn is_waiting(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Waiting)
    }

    /// Whether the connection for its snapshot has yet to come.
    pub fn awaits_channel(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Beside)
    }

    /// Whether it takes its snapshot over another connection, or has yet to.
    pub fn is_beside(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Beside | Stage::Streaming)
    }

    /// Whether it has got all that it wanted.
    pub fn is_done(&self) -> bool {
        matches!(*self.stage.lock(), Stage::Done)
    }

    /// Its snapshot has begun over another connection: it gets the log from there on.
    pub(super) fn begin_stream(&self, channel: u64) {
        self.counterpart.store(channel, Ordering::Relaxed);
        *self.stage.lock() = Stage::Streaming;
    }

    /// It has got its snapshot over another connection.
    pub(super) fn put_online(&self) {
        let mut stage = self.stage.lock();
        if matches!(*stage, Stage::Streaming) {
            *stage = Stage::Online;
            self.heard_ms.store(clock::wall_ms(), Ordering::Relaxed);
            self.is_online.store(true, Ordering::Release);
            log::notice!("Synchronization with replica {} succeeded", self.name());
        }
    }

    /// Something came from it that says nothing but that it is there.
    pub fn hear(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether it is being sent a snapshot, and others may have to wait for it to take what there is.
    pub fn is_behind(&self) -> bool {
        match &*self.stage.lock() {
            Stage::Sending { transfer, .. } => transfer.has_for(self.id()),
            _ => false,
        }
    }

    /// Under Redis's names.
    pub fn state(&self) -> &'static str {
        match *self.stage.lock() {
            Stage::Waiting => "wait_bgsave",
            // As Redis says of what a child makes at this time.
            Stage::Sending { ref transfer, .. } if !transfer.is_made() => "wait_bgsave",
            Stage::Sending { .. } => "send_bulk",
            Stage::Beside => "wait_bgsave",
            Stage::Streaming => "send_bulk_and_stream",
            Stage::Confirming | Stage::Online => "online",
            Stage::Done => "rdb_transmitted",
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    pub fn on_disk(&self) -> u64 {
        self.on_disk.load(Ordering::Acquire)
    }

    /// Seconds since it was heard of.
    pub fn lag_seconds(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed)) / 1000
    }

    /// It has said how far it has come.
    pub fn acknowledge(&self, offset: u64, on_disk: Option<u64>, now_ms: u64) {
        self.acknowledged.fetch_max(offset, Ordering::AcqRel);
        if let Some(on_disk) = on_disk {
            self.on_disk.fetch_max(on_disk, Ordering::AcqRel);
        }
        self.heard_ms.store(now_ms, Ordering::Relaxed);
        let mut stage = self.stage.lock();
        match &mut *stage {
            Stage::Sending { is_confirmed, .. } => *is_confirmed = true,
            Stage::Confirming => *stage = Stage::Online,
            Stage::Streaming => {
                // It may say so before we see that the snapshot has gone.
                drop(stage);
                self.put_online();
            }
            Stage::Waiting | Stage::Beside | Stage::Online | Stage::Done => {}
        }
    }

    /// A snapshot has begun at `offset` of the history `id`, with the logical database `db` selected. Runs at the
    /// cut.
    pub fn begin(&self, transfer: Arc<Transfer>, id: Id, offset: u64, db: usize) {
        let greeting = match () {
            () if self.is_named() => Some(format!("$ENDOFF:{offset} {id} {db} {}\r\n", self.id())),
            () if self.is_old => None,
            () => Some(format!("+FULLRESYNC {id} {offset}\r\n")),
        };
        let greeting = greeting.map(|text| Bytes::from(text.into_bytes()));
        *self.stage.lock() = Stage::Sending { transfer, greeting, is_confirmed: false };
    }

    /// Whether it is for a snapshot alone, and the connection for the stream will name it.
    pub fn is_named(&self) -> bool {
        let introduction = &self.introduction;
        introduction.is_channel && introduction.snapshot_only && introduction.stream.is_none()
    }

    /// Has it see that we are here, while it waits for what takes long.
    pub fn send_newline(&self) {
        self.wants_newline.store(true, Ordering::Relaxed);
    }

    /// Takes it out of a transfer.
    pub fn leave(&self) {
        if let Stage::Sending { transfer, .. } = &*self.stage.lock() {
            transfer.leave(self.id());
        }
    }
}

/// A replica's connection, as its reactor sees it.
pub struct Attached {
    pub replica: Arc<Replica>,
    /// What it is told before anything else.
    pub greeting: Option<Bytes>,
    /// Its reactor knows that it is to be fed.
    pub is_listed: bool,
    /// Replies to what it sent before it became a replica may still leave.
    pub is_fresh: bool,
    /// How much of the log it has yet to be given.
    pub lag: u64,
}

impl Attached {
    pub fn new(replica: Arc<Replica>, greeting: Option<Bytes>) -> Self {
        Self { replica, greeting, is_listed: false, is_fresh: true, lag: 0 }
    }

    /// Puts what it is to be sent next into `pieces`: about `most` bytes.
    pub fn next(
        &mut self,
        database: &Database,
        most: usize,
        reactor: usize,
        pieces: &mut Vec<Bytes>,
    ) -> Fed {
        pieces.extend(self.greeting.take());
        let replica = &*self.replica;
        let mut stage = replica.stage.lock();
        match &mut *stage {
            Stage::Waiting => {
                if replica.wants_newline.swap(false, Ordering::Relaxed) {
                    pieces.push(Bytes::from_static(b"\n"));
                }
                Fed::All
            }
            Stage::Sending { transfer, greeting, is_confirmed } => {
                if let Some(greeting) = greeting.take() {
                    pieces.push(greeting);
                    return Fed::More;
                }
                if replica.wants_newline.swap(false, Ordering::Relaxed) && !transfer.has_begun() {
                    pieces.push(Bytes::from_static(b"\n"));
                }
                self.lag = database.log.lag(replica.id());
                match transfer.take(replica.id(), reactor) {
                    Taken::Chunk(chunk) => {
                        replica.heard_ms.store(clock::wall_ms(), Ordering::Relaxed);
                        pieces.push(chunk);
                        Fed::More
                    }
                    Taken::Nothing => Fed::All,
                    Taken::Failed => Fed::Over,
                    Taken::End { has_mark } => {
                        *stage = match has_mark {
                            _ if replica.introduction.snapshot_only => Stage::Done,
                            true if !*is_confirmed => Stage::Confirming,
                            _ => Stage::Online,
                        };
                        drop(stage);
                        self.finish_snapshot(database);
                        Fed::More
                    }
                }
            }
            Stage::Confirming => {
                self.lag = database.log.lag(replica.id());
                Fed::All
            }
            Stage::Beside => Fed::All,
            Stage::Online | Stage::Streaming => {
                let Ok(left) = database.log.feed(replica.id(), most, reactor, pieces) else {
                    log::warning!("Replica {} needs what is kept no longer.", replica.name());
                    return Fed::Over;
                };
                self.lag = left;
                if left == 0 { Fed::All } else { Fed::More }
            }
            Stage::Done => Fed::Over,
        }
    }

    fn finish_snapshot(&self, database: &Database) {
        let replica = &*self.replica;
        replica.heard_ms.store(clock::wall_ms(), Ordering::Relaxed);
        if replica.introduction.snapshot_only {
            log::notice!(
                "RDB transfer completed, rdb only replica ({}) should be disconnected asap",
                replica.name()
            );
            if let Some(stream) = replica.introduction.stream {
                database.replication.primary.put_online(stream);
            }
            return;
        }
        replica.is_online.store(true, Ordering::Release);
        log::notice!("Synchronization with replica {} succeeded", replica.name());
    }
}
