//! Active expiry: removing what nobody asks for any more, a little at a time.
//!
//! Slots carry a bit "expires", so a sweep reads only bucket lines until it meets a key that can
//! expire; a table without such keys is skipped whole.

use carnelian_structs::table::Cursor;

use crate::changes::Changes;
use crate::scan::remove_expired;
use crate::segment::{Parts, SEGMENTS, Segment};
use crate::snapshot::preserve;
use crate::space::{Dropped, Keyspace};

/// What one call removed.
#[derive(Default)]
pub struct ExpireReport {
    /// Keys looked at.
    pub sampled: usize,
    /// Keys removed.
    pub expired: usize,
    pub changes: Changes,
    pub dropped: Dropped,
}

impl std::fmt::Debug for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dropped({})", self.len())
    }
}

impl Keyspace {
    /// Sweeps some buckets of each table of one segment, going on from `cursors` (one for each
    /// logical database in use), and removes keys that expired at or before `now_ms`; then up to `hashes`
    /// hashes' expired fields. `hear` is told of the changes while the segment is locked.
    #[allow(clippy::too_many_arguments)] // Each is another's to choose.
    pub fn expire_some(
        &self,
        segment: usize,
        cursors: &mut Vec<Cursor>,
        buckets: usize,
        hashes: usize,
        now_ms: u64,
        report: &mut ExpireReport,
        hear: impl FnOnce(&mut Changes),
    ) {
        // Who holds it may hold it for long, and there is no hurry.
        let Some(mut segment) = self.segment(segment % SEGMENTS).try_lock() else { return };
        cursors.resize(segment.databases(), Cursor(0));
        for (db, cursor) in cursors.iter_mut().enumerate() {
            *cursor = expire_keys(&mut segment, db, *cursor, buckets, now_ms, report);
        }
        for _ in 0..hashes {
            match segment.field_expiries.first() {
                Some(line) if line.0 <= now_ms => {}
                _ => break,
            }
            let Some((_, db, key)) = segment.field_expiries.pop_first() else { break };
            expire_hash(&mut segment, db, &key, now_ms, report);
        }
        hear(&mut report.changes);
    }
}

fn expire_keys(
    segment: &mut Segment,
    db: usize,
    mut cursor: Cursor,
    buckets: usize,
    now_ms: u64,
    report: &mut ExpireReport,
) -> Cursor {
    let Some(table) = segment.table(db).filter(|table| table.expiring() != 0) else {
        return Cursor(0);
    };
    let mut due: Vec<Vec<u8>> = Vec::new();
    for _ in 0..buckets {
        cursor = table.scan_expiring(cursor, |entry| {
            report.sampled += 1;
            if entry.expiry().is_some_and(|at| at <= now_ms) {
                due.push(entry.key().to_vec());
            }
        });
        if cursor == Cursor(0) {
            break;
        }
    }
    for key in due {
        report.expired += 1;
        remove_expired(segment, db, &key, &mut report.changes, &mut report.dropped);
    }
    cursor
}

fn expire_hash(
    segment: &mut Segment,
    db: usize,
    key: &[u8],
    now_ms: u64,
    report: &mut ExpireReport,
) {
    use carnelian_structs::value::Value;

    let Parts { table, field_expiries, cut } = segment.parts(db);
    let hash = table.hash(key);
    let Some(mut entry) = table.find_mut(hash, key) else { return };
    preserve(cut, db, &mut entry);
    let Some(mut object) = entry.into_object_mut() else { return };
    let Value::Hash(fields) = &mut *object else { return };
    let gone = fields.expire(now_ms);
    if let Some(at) = fields.next_expiry() {
        field_expiries.insert((at, db, key.into()));
    }
    let spent = fields.is_empty();
    if spent {
        drop(object.remove());
    } else {
        drop(object);
    }
    report.changes.fields_expired(db, key, gone, spent);
}
