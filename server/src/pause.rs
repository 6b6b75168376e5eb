//! CLIENT PAUSE: commands that wait until a time, or until CLIENT UNPAUSE.
//!
//! A connection whose next command is held is suspended with its input unparsed; nothing of it is
//! run or read until the pause is over. Reactors learn of a pause by one relaxed load a batch.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use carnelian_commands::Flags;
use parking_lot::Mutex;

use crate::database::Database;
use crate::registry::Entry;

/// What a batch has to look out for, besides its own work: bits of `Database::attention`.
pub mod attention {
    /// Somebody runs MONITOR.
    pub const MONITORED: u32 = 1;
    /// Commands are held back.
    pub const PAUSED: u32 = 1 << 1;
}

/// What is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// What may write, and what may have to be told to replicas.
    Writes,
    Everything,
}

/// The pause of one database.
#[derive(Default)]
pub struct Pause {
    state: Mutex<Option<(Held, u64)>>,
    /// When it ends, in milliseconds since 1970; 0 if there is none.
    until_ms: AtomicU64,
    /// Connections that are suspended.
    pub postponed: AtomicUsize,
}

impl Pause {
    /// Begins a pause, or changes the one there is: of two ends the later one holds, and everything
    /// stays held where everything was.
    pub fn begin(&self, held: Held, until_ms: u64, now_ms: u64, attention: &AtomicU32) {
        let mut state = self.state.lock();
        let (mut held, mut until_ms) = (held, until_ms);
        if let Some((earlier, end_ms)) = state.filter(|(_, end_ms)| now_ms < *end_ms) {
            until_ms = until_ms.max(end_ms);
            if earlier == Held::Everything {
                held = Held::Everything;
            }
        }
        if until_ms <= now_ms {
            return;
        }
        *state = Some((held, until_ms));
        self.until_ms.store(until_ms, Ordering::Relaxed);
        attention.fetch_or(attention::PAUSED, Ordering::Relaxed);
    }

    pub fn end(&self, attention: &AtomicU32) {
        let mut state = self.state.lock();
        *state = None;
        self.until_ms.store(0, Ordering::Relaxed);
        attention.fetch_and(!attention::PAUSED, Ordering::Relaxed);
    }

    /// What is held now, and until when. A pause whose time is over ends here.
    pub fn now(&self, now_ms: u64, attention: &AtomicU32) -> Option<(Held, u64)> {
        let state = *self.state.lock();
        if state.is_some_and(|(_, until_ms)| until_ms <= now_ms) {
            self.end(attention);
            return None;
        }
        state
    }

    /// The end of the pause, without a lock: 0 if there is none.
    pub fn until_ms(&self) -> u64 {
        self.until_ms.load(Ordering::Relaxed)
    }
}

/// Whether a pause of writes holds a command back, by its own facts or by what its script says of
/// itself. EXEC is held by what it would run, which its caller knows.
pub fn may_write(database: &Database, entry: &Entry, words: &[&[u8]]) -> bool {
    entry.flags.contains(Flags::WRITE)
        || entry.may_replicate
        || (entry.runs_scripts && database.scripting.may_write(database, &entry.full_name, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_end_and_the_stricter_mode_stay() {
        let (pause, bits) = (Pause::default(), AtomicU32::new(0));
        pause.begin(Held::Everything, 200, 100, &bits);
        pause.begin(Held::Writes, 120, 110, &bits);
        assert_eq!(pause.now(150, &bits), Some((Held::Everything, 200)));
        assert_eq!(bits.load(Ordering::Relaxed), attention::PAUSED);
        assert_eq!(pause.now(200, &bits), None);
        assert_eq!((pause.until_ms(), bits.load(Ordering::Relaxed)), (0, 0));

        pause.begin(Held::Writes, 300, 250, &bits);
        assert_eq!(pause.now(260, &bits), Some((Held::Writes, 300)));
        pause.begin(Held::Everything, 260, 255, &bits);
        assert_eq!(pause.now(260, &bits), Some((Held::Everything, 300)));
        pause.end(&bits);
        assert_eq!(pause.now(260, &bits), None);
        pause.begin(Held::Writes, 260, 260, &bits);
        assert_eq!(pause.until_ms(), 0, "a pause of no time is none");
    }
}
