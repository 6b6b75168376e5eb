//! DEBUG RELOAD and LOADAOF: all data written out, forgotten and read back.
//!
//! RELOAD goes through the file of snapshots. For LOADAOF what is written stays in memory, and goes through
//! the codec of files: encodings, expiries and values come back as they would from one.

use std::sync::Arc;

use carnelian_commands::{Call, CommandError};
use carnelian_keyspace::Present;
use carnelian_persistence::rdb::Loaded;
use carnelian_persistence::rdb::dump::{Checksum, dump, restore};
use carnelian_scripting::Loading;

use crate::commands::dump::put;
use crate::commands::{Context, Reach};
use crate::load;
use crate::log;
use crate::snapshot;

const FAILED: CommandError = CommandError::Other(std::borrow::Cow::Borrowed(
    "ERR Error trying to load the RDB dump, check server logs.",
));

/// Saves the data if asked to, forgets it if asked to, and loads the file of the last snapshot, as one:
/// nobody sees the time between.
pub(super) fn through_file(
    context: &mut Context<'_>,
    saves: bool,
    flushes: bool,
    present: Present,
) -> Result<(), CommandError> {
    let database = Arc::clone(context.database);
    context.with_data(Reach::Everything, |call| {
        if saves && snapshot::save_held(&database, call.db.access()).is_err() {
            return Err(CommandError::text("ERR"));
        }
        if flushes {
            for db in 0..call.db.databases() {
                call.db.flush(db);
            }
            database.scripting.engine(&database)?.flush_libraries();
            database.scripting.figures();
        }
        let libraries = match present {
            Present::Replaced => Loading::Replace,
            _ => Loading::New,
        };
        match load::reload(&database, call.db.access(), present, libraries) {
            true => Ok(()),
            false => Err(FAILED),
        }
    })
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
pub(super) fn round_trip(context: &mut Context<'_>) -> Result<(), CommandError> {
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
        load(call, loaded);
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

fn load(call: &mut Call<'_>, loaded: Vec<(&Written, Loaded<'_>)>) {
    let chosen = call.db.index();
    // What comes back is not new.
    let listening = std::mem::take(&mut call.db.changes.listening);
    for db in 0..call.db.databases() {
        call.db.flush(db);
    }
    for (line, value) in loaded {
        call.db.select(line.db);
        put(&mut call.db, &line.key, value, line.expiry);
        call.db.set_access_bits(&line.key, line.access);
    }
    call.db.changes.listening = listening;
    call.db.select(chosen);
}
