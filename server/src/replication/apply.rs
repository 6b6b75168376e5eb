//! What the server that this database follows sends: its commands run as those of any client, without
//! replies and without what keeps clients from running commands.
//!
//! Its bytes go into the log as they came, so that offsets are the same everywhere along a chain. What a run
//! of commands has read is appended under the locks of that run, and a transaction with its EXEC; what touches no data is
//! appended behind it. A link that has been cut off (by REPLICAOF) runs nothing more: that is decided under the
//! locks too, see `EffectLog::is_source`.

use std::sync::Arc;

use super::gate;
use super::link;
use super::replica::Following;
use crate::dispatch;
use crate::propagation::{self, Sender};
use crate::session::{Batch, Next, Outcome, Session, Worker};

/// What a session has if its peer is the server that the database follows.
pub struct PrimaryLink {
    pub following: Arc<Following>,
    /// Its number in the log: see `EffectLog::set_foreign`.
    pub source: u64,
    /// The bytes of a transaction that has not ended, and of nothing in front of a command.
    pending: Vec<u8>,
    /// It wants to know how far we are.
    pub wants_ack: bool,
}

impl PrimaryLink {
    pub fn new(following: Arc<Following>, source: u64) -> Self {
        Self { following, source, pending: Vec::new(), wants_ack: false }
    }

    /// Something came that is no command.
    #[inline]
    pub fn skip(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The connection has ended.
    pub fn end(self) {
        self.following.lose_link();
    }
}

/// Runs a batch of the primary's commands.
#[cold]
pub fn run_batch(
    worker: &mut Worker,
    session: &mut Session,
    batch: &Batch<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    let start = out.len();
    let source = session.primary.as_ref().map_or(0, |link| link.source);
    if let Some(link) = &mut session.primary {
        let pending = std::mem::take(&mut link.pending);
        if !pending.is_empty() {
            worker.scratch.unit.relay(source, session.db.into(), &pending);
        }
    }
    let errors = worker.counters(&session.database).error_replies.value();
    let outcome = dispatch::run_commands(worker, session, batch, out);
    if errors != worker.counters(&session.database).error_replies.value() {
        complain(worker, session, batch, &outcome, &out[start..]);
    }
    out.truncate(start);

    let unit = &mut worker.scratch.unit;
    if !unit.is_empty() {
        if session.transaction.is_some() {
            let pending = unit.take_relayed();
            if let Some(link) = &mut session.primary {
                link.pending = pending;
            }
        } else {
            unit.note_selected(session.db.into());
            let logged = dispatch::log_unit(&session.database, unit);
            session.note_logged(logged);
        }
    }
    if is_cut_off(session) {
        session.close_after_reply = true;
        return Outcome { next: Next::Close, ..outcome };
    }
    if let Some(link) = &mut session.primary
        && std::mem::take(&mut link.wants_ack)
    {
        link::acknowledge(&session.database, out);
    }
    outcome
}

/// Takes what came of some commands over into the log, with what they change or behind it.
#[cold]
pub fn relay(
    worker: &mut Worker,
    session: &Session,
    batch: &Batch<'_>,
    index: usize,
    count: usize,
) {
    if let Some(link) = &session.primary {
        let bytes = batch.raw.of(index, count);
        worker.scratch.unit.relay(link.source, session.db.into(), bytes);
    }
}

/// Whether the peer was the server that the database followed, and no longer is. Certain while a segment
/// is locked.
#[inline]
pub fn is_cut_off(session: &Session) -> bool {
    session.primary.as_ref().is_some_and(|link| !session.database.log.is_source(link.source))
}

/// Whether the database has begun to follow another, or was fenced, since the command was let in. Certain while a segment
/// is locked.
#[inline]
pub fn is_shut_out(session: &Session) -> bool {
    session.database.replication.gate() & gate::CLOSED != 0 && session.primary.is_none()
}

/// An error is no reply that a primary should get: its data and ours differ now.
#[cold]
fn complain(
    worker: &Worker,
    session: &Session,
    batch: &Batch<'_>,
    outcome: &Outcome,
    replies: &[u8],
) {
    let names = (0..outcome.ran).map(|index| batch.command(index)[0]);
    // Has no reply, or one that is meant for the primary.
    let names = names.filter(|name| !name.eq_ignore_ascii_case(b"REPLCONF"));
    let config = session.database.config();
    let counters = worker.counters(&session.database);
    propagation::report(Sender::Primary, &config, counters, names, replies);
}
