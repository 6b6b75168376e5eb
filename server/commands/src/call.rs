//! One command's world: its words, the keys it may reach, where its reply goes.

use std::sync::Arc;

use carnelian_keyspace::{AccessPolicy, Db, EventClass, Limits};
use carnelian_resp::{Protocol, Writer};
use carnelian_structs::collation::Collation;

use crate::effect::{Effect, Rewrite};

/// What a batch takes from its surroundings.
#[derive(Clone, Debug)]
pub struct Environment {
    pub limits: Limits,
    pub policy: AccessPolicy,
    /// `lfu-decay-time`, for OBJECT FREQ.
    pub lfu_decay_minutes: u32,
    /// Whether small integers are told to be shared, as Redis does while keys need no access bits of
    /// their own.
    pub shares_integers: bool,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION: RESTORE takes payloads whose checksum is wrong.
    pub ignores_checksums: bool,
    /// `locale-collate`: how SORT orders texts; by their bytes, if there is none.
    pub collation: Option<Arc<Collation>>,
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            policy: AccessPolicy::Lru,
            lfu_decay_minutes: 1,
            shares_integers: true,
            ignores_checksums: false,
            collation: None,
        }
    }
}

/// A running command. One value serves a whole batch: the dispatcher sets `args` and looks at
/// `db.changes` between commands.
pub struct Call<'c> {
    /// The request, the command's name first. Borrows the connection's buffer.
    pub args: &'c [&'c [u8]],
    pub db: Db<'c>,
    pub reply: Writer<'c>,
    pub environment: &'c Environment,
    /// Whether the command may return [`Effect::Wait`]; not inside a transaction or script.
    pub may_block: bool,
    /// A reply of so many bytes is not sent, since the client is closed for it: what has come so far
    /// may as well end there. Not inside a script, which reads its replies itself.
    pub output_max: usize,
}

impl<'c> Call<'c> {
    /// Thresholds of the encodings and other bounds.
    #[must_use]
    pub fn limits(&self) -> &'c Limits {
        &self.environment.limits
    }

    /// The time of this batch, in milliseconds of the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.db.now_ms()
    }

    /// What expires at this time or before has expired. Not the present time on a replica, where the
    /// primary decides.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.db.due_ms()
    }

    #[must_use]
    pub fn resp3(&self) -> bool {
        self.reply.protocol() == Protocol::Resp3
    }

    /// Tells of a keyspace event (see `notify-keyspace-events`).
    #[inline]
    pub fn notify(&mut self, class: EventClass, event: &'static str, key: &[u8]) {
        let index = self.db.index();
        self.db.changes.notify(class, event, index, key);
    }

    /// Counts `n` changes for `rdb_changes_since_last_save`; the dispatcher counts one for an
    /// effect without any.
    pub fn dirty(&mut self, n: usize) {
        self.db.changes.dirty += n as u64;
    }

    /// An effect to replay instead of the request, empty as yet.
    #[must_use]
    pub fn rewrite(&self) -> Rewrite {
        Rewrite::new(self.db.changes.following)
    }

    /// An effect of one command.
    pub fn rewritten(&self, words: &[&[u8]]) -> Effect {
        let mut rewrite = self.rewrite();
        rewrite.command(words);
        Effect::Rewrite(rewrite)
    }
}
