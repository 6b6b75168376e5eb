//! What dispatch and the reactor do for MONITOR, CLIENT PAUSE and CLIENT TRACKING: one call each, so
//! that those know nothing of the features themselves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_keyspace::Changes;

use crate::clients::bits;
use crate::connection::Connection;
use crate::database::Database;
use crate::monitor::Source;
use crate::pause::attention;
use crate::registry::Entry;
use crate::session::{Session, Worker};

/// After a command that ran by itself, with its reply in `out`, and no lock held.
#[inline]
pub fn after_command(
    worker: &mut Worker,
    session: &mut Session,
    entry: &Entry,
    words: &[&[u8]],
    attention: u32,
    out: &mut Vec<u8>,
) {
    if attention & attention::MONITORED != 0 {
        let source = Source::Client(&session.shared);
        session.database.monitors.feed(worker, &source, session.db, entry, words);
    }
    if session.tracks {
        after_tracked(worker, session, entry, out);
    }
}

#[cold]
fn after_tracked(worker: &mut Worker, session: &mut Session, entry: &Entry, out: &mut Vec<u8>) {
    let database = Arc::clone(&session.database);
    let most = session.settings.tracked_keys_max;
    database.tracking.shrink_to(most, worker, &database, Some((session, out)));
    if session.caching && !["client|caching", "multi"].contains(&entry.full_name.as_str()) {
        session.caching = false;
        session.shared.set_flag(bits::CACHING, false);
    }
}

/// Tells those who track keys of changes. `by`: who made them, and where its replies go.
#[inline]
pub fn after_changes(
    worker: &mut Worker,
    database: &Arc<Database>,
    changes: &mut Changes,
    by: Option<(&Session, &mut Vec<u8>)>,
) {
    if !database.tracking.is_awake() {
        return;
    }
    if changes.flushed {
        database.tracking.flushed(worker, database, by);
    } else if !changes.touched.is_empty() {
        database.tracking.changed(worker, database, &changes.touched, by);
    }
}

/// A connection waits for the end of a pause, or no longer does.
pub fn set_postponed(session: &Session, is_postponed: bool) {
    session.shared.set_flag(bits::POSTPONED, is_postponed);
    let postponed = &session.database.pause.postponed;
    if is_postponed {
        postponed.fetch_add(1, Ordering::Relaxed);
    } else {
        postponed.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Forgets a client whose connection has ended.
pub fn forget(connection: &Connection) {
    let session = &connection.session;
    let (shared, database) = (&session.shared, &session.database);
    if connection.flags.postponed {
        set_postponed(session, false);
    }
    if shared.has(bits::MONITOR) {
        database.monitors.remove(shared.id, &database.attention);
    }
    if shared.has(bits::TRACKING) {
        database.tracking.turn_off(database, shared);
    }
}
