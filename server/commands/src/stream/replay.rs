//! What a change to a group looks like to those who follow.

use carnelian_structs::stream::{Group, Pending, StreamId};

use crate::call::Call;
use crate::effect::Rewrite;

/// The group whose changes are followed, and the commands so far.
pub(super) struct Replay<'r> {
    /// Whether anybody follows: if not, nothing is written.
    following: bool,
    key: &'r [u8],
    group: &'r [u8],
}

impl<'r> Replay<'r> {
    pub(super) fn new(call: &Call<'_>, key: &'r [u8], group: &'r [u8]) -> Self {
        Self { following: call.db.changes.following, key, group }
    }

    pub(super) fn consumer_made(&self, rewrite: &mut Rewrite, consumer: &[u8]) {
        rewrite.command(&[b"XGROUP", b"CREATECONSUMER", self.key, self.group, consumer]);
    }

    /// What is known of a pending entry, and how far the group has read.
    pub(super) fn pending(&self, rewrite: &mut Rewrite, group: &Group, pending: &Pending) {
        if !self.following {
            return;
        }
        let mut buffers = [[0; StreamId::TEXT_BYTES_MAX]; 2];
        let [id, last_id] = &mut buffers;
        rewrite.command(&[
            b"XCLAIM",
            self.key,
            self.group,
            group.consumer(pending.consumer).name(),
            b"0",
            pending.id.format(id),
            b"TIME",
            itoa::Buffer::new().format(pending.delivered_ms.cast_signed()).as_bytes(),
            b"RETRYCOUNT",
            itoa::Buffer::new().format(pending.deliveries.cast_signed()).as_bytes(),
            b"FORCE",
            b"JUSTID",
            b"LASTID",
            group.last_id.format(last_id),
        ]);
    }

    /// How far the group has read.
    pub(super) fn last_id(&self, rewrite: &mut Rewrite, group: &Group) {
        if !self.following {
            return;
        }
        let read = group.entries_read.map_or(-1, u64::cast_signed);
        rewrite.command(&[
            b"XGROUP",
            b"SETID",
            self.key,
            self.group,
            group.last_id.format(&mut [0; StreamId::TEXT_BYTES_MAX]),
            b"ENTRIESREAD",
            itoa::Buffer::new().format(read).as_bytes(),
        ]);
    }
}
