//! DEBUG RELOAD and LOADAOF: all data written out, forgotten and read back.
//!
//! There are no files yet, so what is written stays in memory. It goes through the codec that files
//! will have, so what tests look for shows: encodings, expiries and values as they come back.

use carnelian_commands::{Call, CommandError};
use carnelian_persistence::rdb::Loaded;
use carnelian_persistence::rdb::dump::{Checksum, dump, restore};

use crate::commands::dump::put;
use crate::commands::{Context, Reach};
use crate::log;

const FAILED: CommandError = CommandError::Other(std::borrow::Cow::Borrowed(
    "ERR Error trying to load the RDB dump, check server logs.",
));

/// What happens to the data that is there when the written data comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Flushed,
    /// Kept; a key that is in both is an error.
    Kept,
    /// Kept; a key that is in both is replaced.
    Merged,
}

/// A key as it is written.
struct Written {
    db: usize,
    key: Box<[u8]>,
    expiry: Option<u64>,
    access: u32,
    payload: Vec<u8>,
}

/// Writes all data and reads it back, as one: nobody sees the time between. What cannot be read
/// back is an error, and then nothing has changed.
pub(super) fn round_trip(context: &mut Context<'_>, present: Present) -> Result<(), CommandError> {
    context.with_data(Reach::Everything, |call| {
        let written = write(call);
        let mut loaded = Vec::with_capacity(written.len());
        for line in &written {
            match restore(&line.payload, call.limits(), Checksum::Verified) {
                Ok(value) => loaded.push((line, value)),
                Err(error) => {
                    let key = String::from_utf8_lossy(&line.key);
                    log::warning!("Key '{key}' could not be read back: {error}");
                    return Err(FAILED);
                }
            }
        }
        if present == Present::Kept && !loaded.is_empty() {
            return Err(FAILED);
        }
        load(call, loaded, present);
        Ok(())
    })
}

/// Every live key of all logical databases.
fn write(call: &mut Call<'_>) -> Vec<Written> {
    let chosen = call.db.index();
    let limits = call.limits();
    let mut written = Vec::new();
    for db in 0..call.db.databases() {
        call.db.select(db);
        call.db.for_each(|entry| {
            written.push(Written {
                db,
                key: entry.key().into(),
                expiry: entry.expiry(),
                access: entry.access(),
                payload: dump(entry, limits),
            });
        });
    }
    call.db.select(chosen);
    written
}

fn load(call: &mut Call<'_>, loaded: Vec<(&Written, Loaded<'_>)>, present: Present) {
    let chosen = call.db.index();
    // What comes back is not new.
    let listening = std::mem::take(&mut call.db.changes.listening);
    if present == Present::Flushed {
        for db in 0..call.db.databases() {
            call.db.flush(db);
        }
    }
    for (line, value) in loaded {
        call.db.select(line.db);
        put(&mut call.db, &line.key, value, line.expiry);
        call.db.set_access_bits(&line.key, line.access);
    }
    call.db.changes.listening = listening;
    call.db.select(chosen);
}
