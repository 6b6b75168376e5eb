//! Counts of the keys of a database, by logical database.
//!
//! Segments know their sizes, so a census visits each segment once, under its lock for a moment,
//! and no key but a few whose remaining time stands for all others'.

use carnelian_keyspace::{Hold, Keyspace, SEGMENTS, SegmentSet};
use carnelian_structs::table::Cursor;

/// Keys with an expiry that are looked at in one census.
const SAMPLES: usize = 64;
/// Buckets that are searched for such keys in one segment.
const BUCKETS: usize = 32;
/// Bytes of a bucket of a table.
const BUCKET_BYTES: usize = 64;

/// One logical database.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub keys: usize,
    /// Keys with an expiry.
    pub expires: usize,
    /// Hashes with fields that have one.
    pub expiring_hashes: usize,
    /// Mean of the time that some keys with an expiry have left.
    pub mean_ttl_ms: u64,
    /// Of the tables themselves, without the keys and values.
    pub table_bytes: usize,
    /// All keys' and values'.
    pub data_bytes: usize,
}

/// Counts all logical databases that have ever had a key.
pub fn take(keyspace: &Keyspace, now_ms: u64) -> Vec<Count> {
    take_held(&mut keyspace.lock(SegmentSet::default()).into(), now_ms)
}

/// The same where locks may be held.
pub fn take_held(hold: &mut Hold<'_>, now_ms: u64) -> Vec<Count> {
    let mut counts: Vec<Count> = Vec::new();
    let mut times: Vec<(u64, usize)> = Vec::new();
    for segment in 0..SEGMENTS {
        hold.visit(segment, |segment| {
            let databases = segment.databases();
            if counts.len() < databases {
                counts.resize_with(databases, Count::default);
                times.resize(databases, (0, 0));
            }
            for db in 0..databases {
                let Some(table) = segment.table(db) else { continue };
                let count = &mut counts[db];
                count.keys += table.len();
                count.expires += table.expiring();
                count.table_bytes += table.buckets() * BUCKET_BYTES;
                count.data_bytes += table.heap_bytes();
                count.expiring_hashes += segment.expiring_hashes(db);
                let (sum_ms, samples) = &mut times[db];
                let mut cursor = Cursor(0);
                for _ in 0..BUCKETS {
                    if table.expiring() == 0 || SAMPLES <= *samples {
                        break;
                    }
                    cursor = table.scan_expiring(cursor, |entry| {
                        let left_ms = entry.expiry().map_or(0, |at| at.saturating_sub(now_ms));
                        *sum_ms = sum_ms.saturating_add(left_ms);
                        *samples += 1;
                    });
                    if cursor == Cursor(0) {
                        break;
                    }
                }
            }
        });
    }
    for (count, (sum_ms, samples)) in counts.iter_mut().zip(times) {
        count.mean_ttl_ms = sum_ms / samples.max(1) as u64;
    }
    counts
}

#[cfg(test)]
mod tests {
    use carnelian_keyspace::{AccessPolicy, Aftermath, Db, Expiry};

    use super::*;

    #[test]
    fn keys_and_their_remaining_time_are_counted_by_database() {
        let keyspace = Keyspace::new(16);
        let mut aftermath = Aftermath::default();
        let access = keyspace.lock_all();
        let mut db = Db::new(access, 0, 1000, AccessPolicy::Lru, &mut aftermath);
        for key in 0..1000 {
            let expiry = if key % 2 == 0 { Expiry::At(6000) } else { Expiry::Clear };
            db.set_string(format!("k{key}").as_bytes(), b"v", expiry);
        }
        db.select(3);
        db.set_string(b"k", b"v", Expiry::Clear);
        drop(db);

        let counts = take(&keyspace, 1000);
        assert_eq!((counts[0].keys, counts[0].expires, counts[0].mean_ttl_ms), (1000, 500, 5000));
        assert_eq!((counts[3].keys, counts[3].expires, counts[3].mean_ttl_ms), (1, 0, 0));
        assert_eq!(counts[1], Count::default());
        assert_eq!(counts.len(), 4);
        assert!(counts[0].table_bytes < counts[0].data_bytes);
    }
}
