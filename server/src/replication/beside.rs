//! A full synchronisation with a primary that sends the snapshot over a connection of its own: meanwhile a thread here
//! keeps what comes of the stream, so that it does not pile up there.
//!
//! What is kept is bounded (`replica-full-sync-buffer-limit`); what comes beyond that waits at the primary. A stream
//! that breaks off is no loss as long as the snapshot comes: what was kept of it is applied, and the link made again goes
//! on from there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use carnelian_config::Config;
use carnelian_replication::beside::{Begun, Beside, Handshake, Step, follow, name};
use carnelian_replication::handshake::text;

use super::link::{Link, unanswered};
use super::replica::{Following, Stage};
use super::wire::Wire;
use crate::log;

/// What is read of the stream at once.
const READ_BYTES: usize = 64 << 10;
/// How often the one who keeps looks whether that is wanted any longer.
const LOOK: Duration = Duration::from_millis(50);

impl Link {
    /// Takes a snapshot in over a second connection. The stream's connection, its number in the log, and what has come
    /// of it.
    pub(super) fn full_sync_beside(
        &self,
        mut stream: Wire,
        beside: Beside,
    ) -> Result<(Wire, u64, Vec<u8>), String> {
        log::notice!("PSYNC is not possible, initialize RDB channel.");
        let result = self.sync_beside(&mut stream, beside).and_then(|(mut channel, begun)| {
            self.following.set_stage(Stage::Sync);
            let kept = Keeping::start(stream, &self.following, most(&self.database.config()))?;
            let synced = self.full_sync(&mut channel, begun.id, begun.offset);
            let (stream, bytes) = kept.end()?;
            let (source, behind) = synced?;
            if !behind.is_empty() {
                log::warning!("MASTER sent {} bytes behind the snapshot", behind.len());
            }
            Ok((stream, source, bytes))
        });
        self.following.keep_beside(None);
        if let Ok((_, _, bytes)) = &result {
            log::notice!(
                "MASTER <-> REPLICA sync: Starting to stream replication buffer into the db ({} \
                 bytes).",
                bytes.len()
            );
        }
        result
    }

    /// Comes to the beginning of a snapshot on a connection of its own, and of the stream on the other.
    fn sync_beside(&self, stream: &mut Wire, beside: Beside) -> Result<(Wire, Begun), String> {
        let connector = self.connector()?;
        let mut channel = self.open(connector.as_ref(), true)?;
        let silent = |error| unanswered("rdb channel", &error);
        let (mut handshake, first) = Handshake::begin(beside, &self.visitor());
        channel.send(&first).map_err(silent)?;
        let begun = loop {
            let line = channel.line().map_err(silent)?;
            match handshake.take(&line).map_err(|refused| refused.to_string())? {
                Step::Listen => {}
                Step::Say(bytes) => channel.send(&bytes).map_err(silent)?,
                Step::Begin(begun) => break begun,
            }
        };
        if let Some(snapshot) = begun.named {
            for (said, answer) in [(name(snapshot), "+OK"), (follow(&begun), "+CONTINUE")] {
                stream.send(&said).map_err(silent)?;
                let line = answer_of(stream).map_err(silent)?;
                if !line.starts_with(answer.as_bytes()) {
                    let line = text(&line);
                    return Err(format!("Main channel was not let in beside rdb channel: {line}"));
                }
            }
        }
        log::notice!("Starting to receive RDB and replication stream in parallel.");
        Ok((channel, begun))
    }
}

/// The next line that says something.
fn answer_of(wire: &mut Wire) -> io::Result<Vec<u8>> {
    loop {
        let line = wire.line()?;
        if !line.is_empty() {
            return Ok(line);
        }
    }
}

/// How much of a stream is kept; none: all of it.
fn most(config: &Config) -> Option<u64> {
    let own = config.replica_full_sync_buffer_limit;
    let most = if own == 0 { config.client_output_buffer_limit.replica.hard_bytes } else { own };
    (most != 0).then_some(most)
}

/// A thread that keeps what comes of a stream until the snapshot is in place.
struct Keeping {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<(Wire, Vec<u8>)>,
}

impl Keeping {
    fn start(
        mut wire: Wire,
        following: &Arc<Following>,
        most: Option<u64>,
    ) -> Result<Self, String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, following) = (Arc::clone(&is_over), Arc::clone(following));
        let thread = std::thread::Builder::new().name("replica-keep".into()).spawn(move || {
            let mut kept = Vec::new();
            wire.beat_from_now();
            if let Err(error) = keep(&mut wire, &following, &told, most, &mut kept) {
                log::warning!("Main channel error while reading from master: {error}");
            }
            wire.end_payload();
            following.transfer.kept_bytes.store(0, Ordering::Relaxed);
            (wire, kept)
        });
        let thread =
            thread.map_err(|error| format!("Could not keep the stream of MASTER: {error}"))?;
        Ok(Self { is_over, thread })
    }

    /// The stream, and what has come of it.
    fn end(self) -> Result<(Wire, Vec<u8>), String> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| "The stream of MASTER was not kept: a bug".into())
    }
}

fn keep(
    wire: &mut Wire,
    following: &Following,
    is_over: &AtomicBool,
    most: Option<u64>,
    kept: &mut Vec<u8>,
) -> io::Result<()> {
    let transfer = &following.transfer;
    transfer.kept_bytes_max.store(0, Ordering::Relaxed);
    let mut piece = vec![0; READ_BYTES];
    let mut is_full = false;
    while !is_over.load(Ordering::SeqCst) {
        if most.is_some_and(|most| most <= kept.len() as u64) {
            if !std::mem::replace(&mut is_full, true) {
                log::notice!(
                    "Replication buffer limit has been reached ({} bytes), stopped buffering \
                     replication stream. Further accumulation may occur on master side.",
                    kept.len()
                );
            }
            wire.beat()?;
            std::thread::sleep(LOOK);
            continue;
        }
        if let Some(count) = wire.collect(&mut piece, LOOK)? {
            kept.extend_from_slice(&piece[..count]);
            let bytes = kept.len() as u64;
            transfer.kept_bytes.store(bytes, Ordering::Relaxed);
            transfer.kept_bytes_max.fetch_max(bytes, Ordering::Relaxed);
        }
    }
    Ok(())
}
