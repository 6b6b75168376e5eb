//! The log of effects: what the writes of a database did, in one sequence.
//!
//! A reactor collects the effects of a unit of work (a command, a transaction, a script) in its own
//! [`Unit`] and appends them while the locks of the unit are held. So the order of effects on a key is the
//! order of its changes, and the effects of a unit lie together. While nobody follows, a write pays one load per
//! run of commands.
//!
//! The log is RESP, as replicas and the append-only file of Redis have it: `SELECT` where the logical database
//! changes, and `MULTI` and `EXEC` around what one unit made more than one command of.

mod asides;
mod unit;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use carnelian_commands::write_command;
use carnelian_persistence::aof::Doorbell;
use carnelian_replication::{Backlog, Trimmed};
use parking_lot::{Mutex, MutexGuard};

use crate::mailbox::{Mailbox, Message};

use asides::Asides;
pub use unit::{Audience, Unit};
use unit::{LARGE_BYTES, UNKNOWN, write_select};

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

/// What the log takes before it looks whether some of it can go.
const TRIM_BYTES: u64 = 64 << 10;

/// The sequence of a database's effects.
pub struct EffectLog {
    /// Somebody follows it, and what is done here is what is logged.
    is_followed: AtomicBool,
    /// Replies to writes wait until their effects are on disk: `appendfsync always`.
    is_strict: AtomicBool,
    /// Where the log comes from: the link to the server that this one follows, by its number, or 0: what
    /// is done here.
    source: AtomicU64,
    /// Up to where the log is on disk.
    synced: AtomicU64,
    /// Reactors with replies that wait for that, as bits.
    held: AtomicU64,
    /// Of the reactors; known once a replica has come.
    mailboxes: OnceLock<Box<[Arc<Mailbox>]>>,
    /// Wakes the writer of the append-only file.
    pub bell: Arc<Doorbell>,
    sequence: Mutex<Sequence>,
}

struct Sequence {
    backlog: Backlog,
    /// The logical database of the last effect; none where the next has to name its own.
    selected: Option<usize>,
    keepers: Keepers,
    /// What the append-only file reads differently.
    asides: Asides,
    /// Where the end of the log will be when it is worth looking for something to forget.
    trim_at: u64,
    /// Reactors that are to be told of what comes next, as bits.
    waiting: u64,
    /// How often the log has begun to come from elsewhere: names the present source.
    sources: u64,
    crowd: Crowd,
}

/// How many append: who flushes the file for all of them does so when they are all there.
#[derive(Default)]
struct Crowd {
    /// How often something was appended since the file took what there was, and before that.
    appended: u32,
    taken: u32,
    /// After how many appends the writer of the file wants to be called; 0: it does not.
    awaited: u32,
}

impl Crowd {
    /// Counts an append. Whether it is the last that is awaited.
    #[inline]
    fn is_complete_with_one_more(&mut self) -> bool {
        self.appended = self.appended.saturating_add(1);
        self.appended == self.awaited
    }
}

/// Who needs what of the log.
#[derive(Default)]
struct Keepers {
    /// How often [`EffectLog::follow`] was called: by the append-only file.
    files: u32,
    /// From where on the file still needs it.
    file: u64,
    /// What it has to begin with.
    prologue: Vec<u8>,
    /// How much is kept for replicas that may come back; none if none has ever come.
    backlog_bytes: Option<u64>,
    /// From where on each replica still needs it, by its client's id.
    replicas: Vec<(u64, u64)>,
    /// The same of nodes of the cluster, by what they have said that they have.
    nodes: Vec<(u32, u64)>,
}

/// No more is kept for a node that is behind, or away.
const OF_NODE_BYTES_MAX: u64 = 64 << 20;

impl Default for EffectLog {
    fn default() -> Self {
        let sequence = Sequence {
            backlog: Backlog::new(0),
            selected: None,
            keepers: Keepers::default(),
            asides: Asides::default(),
            trim_at: TRIM_BYTES,
            waiting: 0,
            sources: 0,
            crowd: Crowd::default(),
        };
        Self {
            is_followed: AtomicBool::new(false),
            mailboxes: OnceLock::new(),
            is_strict: AtomicBool::new(false),
            source: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            held: AtomicU64::new(0),
            bell: Arc::default(),
            sequence: Mutex::new(sequence),
        }
    }
}

impl EffectLog {
    /// Whether effects are to be collected: somebody reads them, and they do not come from the server
    /// that this one follows. Changes only while all segments are locked.
    #[inline]
    pub fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Relaxed)
    }

    /// The append-only file follows from here on, and says by [`EffectLog::trim`] what it is through
    /// with. All segments are locked, so that no effect is cut in two.
    pub fn follow(&self) -> u64 {
        let mut sequence = self.sequence.lock();
        if self.is_source(0) {
            sequence.selected = None;
        }
        let end = sequence.backlog.end();
        if sequence.keepers.files == 0 {
            sequence.keepers.file = end;
        }
        sequence.keepers.prologue = self.prologue_of(&sequence);
        sequence.keepers.files += 1;
        self.settle(&sequence);
        end
    }

    /// It follows no longer.
    pub fn unfollow(&self) {
        let mut sequence = self.sequence.lock();
        sequence.keepers.files = sequence.keepers.files.saturating_sub(1);
        if sequence.keepers.files == 0 {
            sequence.asides = Asides::default();
        }
        self.settle(&sequence);
        sequence.trim();
    }

    /// Keeps so much for replicas that may come back; none: nothing, as there are no replicas. All
    /// segments are locked unless something was kept before and still is.
    pub fn keep_backlog(&self, bytes: Option<u64>) {
        let mut sequence = self.sequence.lock();
        sequence.keepers.backlog_bytes = bytes;
        self.settle(&sequence);
        sequence.trim();
    }

    /// Whether anything is kept for replicas that may come back.
    pub fn keeps_backlog(&self) -> bool {
        self.sequence.lock().keepers.backlog_bytes.is_some()
    }

    /// From now on the log is what another server sends, word by word ([`Unit::relay`]), or is no
    /// longer. What earlier sources still bring is dropped. All segments are locked. The source's number.
    pub fn set_foreign(&self, is_foreign: bool) -> u64 {
        let mut sequence = self.sequence.lock();
        sequence.sources += 1;
        let source = if is_foreign { sequence.sources } else { 0 };
        let before = self.source.swap(source, Ordering::SeqCst);
        if before == 0 || source == 0 {
            sequence.selected = None;
        }
        self.settle(&sequence);
        source
    }

    /// Whether this source is the present one; does not change while a segment is locked.
    #[inline]
    pub fn is_source(&self, source: u64) -> bool {
        self.source.load(Ordering::SeqCst) == source
    }

    /// Forgets everything and goes on at another offset, as the data are others. All segments are
    /// locked, and no replica is attached.
    pub fn restart(&self, offset: u64, selected: Option<usize>) {
        let mut sequence = self.sequence.lock();
        sequence.backlog.restart(offset);
        sequence.selected = selected;
        sequence.keepers.file = offset;
        sequence.keepers.replicas.clear();
        sequence.keepers.nodes.clear();
        sequence.asides = Asides::default();
        sequence.trim_at = offset + TRIM_BYTES;
        self.synced.store(offset, Ordering::SeqCst);
    }

    /// Whether anybody follows, and the offsets of the first byte that is kept and of the next one.
    pub fn range(&self) -> (bool, u64, u64) {
        let sequence = self.sequence.lock();
        let Sequence { backlog, keepers, .. } = &*sequence;
        (keepers.backlog_bytes.is_some(), backlog.start(), backlog.end())
    }

    /// Bytes that are kept beyond what is kept for replicas that may come back: until those that are
    /// attached have read them, or the file has.
    pub fn beyond_backlog(&self) -> usize {
        let sequence = self.sequence.lock();
        let Sequence { backlog, keepers, .. } = &*sequence;
        backlog.len().saturating_sub(keepers.backlog_bytes.unwrap_or(0)) as usize
    }

    /// The memory that takes.
    pub fn beyond_backlog_memory(&self) -> usize {
        // Asked for each key that is evicted.
        if !self.is_followed() && self.is_source(0) {
            return 0;
        }
        let sequence = self.sequence.lock();
        let Sequence { backlog, keepers, .. } = &*sequence;
        match backlog.len().saturating_sub(keepers.backlog_bytes.unwrap_or(0)) {
            0 => 0,
            beyond => beyond as usize + backlog.overhead(),
        }
    }

    fn settle(&self, sequence: &Sequence) {
        let Keepers { files, backlog_bytes, .. } = sequence.keepers;
        let is_followed = (files != 0 || backlog_bytes.is_some()) && self.is_source(0);
        self.is_followed.store(is_followed, Ordering::SeqCst);
    }

    #[inline]
    pub fn is_strict(&self) -> bool {
        self.is_strict.load(Ordering::Relaxed)
    }

    pub fn set_strict(&self, is_strict: bool) {
        self.is_strict.store(is_strict, Ordering::SeqCst);
    }

    /// Up to where the log is on disk.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::SeqCst)
    }

    /// Whether a reply that is to follow the effects before `end` has to wait. If so, the reactor gets
    /// [`Message::Synced`] when it is worth looking again.
    #[inline]
    pub fn holds(&self, end: u64, reactor: usize) -> bool {
        end != 0 && self.is_strict() && self.holds_strictly(end, reactor)
    }

    #[cold]
    fn holds_strictly(&self, end: u64, reactor: usize) -> bool {
        if end <= self.synced() || self.end() < end {
            // Of data that have given way to others, whose history is shorter.
            return false;
        }
        self.held.fetch_or(bit(reactor), Ordering::SeqCst);
        // What was synced until then found no bit.
        self.synced() < end && self.is_strict.load(Ordering::SeqCst)
    }

    /// The log is on disk up to `end`, or will not wait for it any longer: lets go of those who do.
    pub fn release(&self, end: u64, mailboxes: &[Arc<Mailbox>]) {
        self.synced.fetch_max(end, Ordering::SeqCst);
        let held = self.held.swap(0, Ordering::SeqCst);
        for (reactor, mailbox) in mailboxes.iter().enumerate() {
            if held & bit(reactor) != 0 {
                mailbox.post(Message::Synced);
            }
        }
    }

    /// The offset of what comes next, for one who will know nothing of what was before: the next effect
    /// names its logical database.
    pub fn cut(&self) -> u64 {
        let mut sequence = self.sequence.lock();
        if self.is_source(0) {
            sequence.selected = None;
        }
        let end = sequence.backlog.end();
        sequence.asides.part(end);
        end
    }

    /// The logical database that is selected at the end, if what comes next goes by it.
    pub fn selected(&self) -> Option<usize> {
        self.sequence.lock().selected
    }

    /// Says what is selected at the end.
    pub fn select(&self, selected: Option<usize>) {
        self.sequence.lock().selected = selected;
    }

    /// What whoever begins to follow at a cut has to know first: on a replica the effects do not name
    /// their logical database anew. Empty elsewhere.
    pub fn prologue(&self) -> Vec<u8> {
        self.prologue_of(&self.sequence.lock())
    }

    /// The same as of the last [`EffectLog::follow`].
    pub fn take_prologue(&self) -> Vec<u8> {
        std::mem::take(&mut self.sequence.lock().keepers.prologue)
    }

    fn prologue_of(&self, sequence: &Sequence) -> Vec<u8> {
        let mut prologue = Vec::new();
        if !self.is_source(0)
            && let Some(db) = sequence.selected
        {
            write_select(&mut prologue, db);
        }
        prologue
    }

    /// The offset behind the last effect.
    pub fn end(&self) -> u64 {
        self.sequence.lock().backlog.end()
    }

    /// Appends what a unit did. Called with the unit's locks held. The offset behind it.
    pub fn append(&self, unit: &mut Unit) -> u64 {
        self.append_of(unit, &[])
    }

    /// The same of what may still be among the bytes of a batch.
    pub fn append_of(&self, unit: &mut Unit, batch: &[u8]) -> u64 {
        let mut sequence = self.sequence.lock();
        if !self.is_source(unit.source) {
            unit.clear();
            return sequence.backlog.end();
        }
        if unit.source != 0 {
            sequence.selected = Some(unit.relayed_db);
        }
        if !unit.divided.is_empty() {
            return self.append_divided(sequence, unit);
        }
        let mut begin = 0;
        if let Some((first, last)) = unit.databases.take() {
            if sequence.selected != Some(first) {
                let mut head = Vec::with_capacity(40);
                // Redis puts it inside of a unit.
                if unit.bytes.starts_with(MULTI) {
                    head.extend_from_slice(MULTI);
                    begin = MULTI.len();
                }
                write_select(&mut head, first);
                sequence.append(&head);
            }
            sequence.selected = Some(last);
        }
        let end = match unit.bytes.len() {
            0 => sequence.append(&batch[unit.sent.clone()]),
            // Given away rather than copied.
            LARGE_BYTES.. => {
                let bytes = Bytes::from(std::mem::take(&mut unit.bytes));
                sequence.append_piece(bytes.slice(begin..))
            }
            _ => sequence.append(&unit.bytes[begin..]),
        };
        self.announce(sequence);
        unit.clear();
        end
    }

    /// The same of units of which the file gets another version.
    #[cold]
    fn append_divided(&self, mut sequence: MutexGuard<'_, Sequence>, unit: &mut Unit) -> u64 {
        let mut select = Vec::new();
        if let Some((first, last)) = unit.databases {
            if sequence.selected != Some(first) {
                write_select(&mut select, first);
            }
            sequence.selected = (last != UNKNOWN).then_some(last);
        }
        let mut at = 0;
        for mut part in std::mem::take(&mut unit.divided) {
            let mut for_replicas = unit.bytes[part.place.clone()].to_vec();
            if part.place.start == 0 && !part.is_filler && !part.for_file.is_empty() {
                for version in [&mut for_replicas, &mut part.for_file] {
                    let inside = if version.starts_with(MULTI) { MULTI.len() } else { 0 };
                    version.splice(inside..inside, select.iter().copied());
                }
                select.clear();
            }
            sequence.append(&std::mem::take(&mut select));
            sequence.append(&unit.bytes[at..part.place.start]);
            at = part.place.end;
            sequence.append_twofold(&for_replicas, part.is_filler, part.for_file);
        }
        let end = sequence.append(&unit.bytes[at..]);
        self.announce(sequence);
        unit.clear();
        end
    }

    /// Lets go of the log, and tells those who read it that there is more.
    #[inline]
    fn announce(&self, mut sequence: MutexGuard<'_, Sequence>) {
        let waiting = std::mem::take(&mut sequence.waiting);
        let is_complete = sequence.crowd.is_complete_with_one_more();
        drop(sequence);
        self.bell.ring();
        if is_complete {
            self.bell.call();
        }
        if waiting != 0 {
            self.wake(waiting);
        }
    }

    /// Reads what is kept from an offset on: see [`Backlog::read`].
    pub fn read(&self, offset: u64, most: usize, into: &mut Vec<Bytes>) -> Result<u64, Trimmed> {
        self.sequence.lock().backlog.read(offset, most, into)
    }

    /// Appends a command that is about no data, between the units of others. The offset behind it.
    pub fn append_aside(&self, words: &[&[u8]]) -> u64 {
        let mut bytes = Vec::with_capacity(64);
        write_command(&mut bytes, words.len(), words.iter().copied());
        let mut sequence = self.sequence.lock();
        if !self.is_source(0) {
            return sequence.backlog.end();
        }
        let end = sequence.append(&bytes);
        self.announce(sequence);
        end
    }

    /// A replica reads from an offset on; what it has yet to read stays. How much that is.
    pub fn attach(
        &self,
        replica: u64,
        offset: u64,
        mailboxes: &[Arc<Mailbox>],
    ) -> Result<u64, Trimmed> {
        self.mailboxes.get_or_init(|| mailboxes.into());
        let mut sequence = self.sequence.lock();
        let (start, end) = (sequence.backlog.start(), sequence.backlog.end());
        if offset < start || end < offset || sequence.keepers.backlog_bytes.is_none() {
            return Err(Trimmed);
        }
        sequence.keepers.replicas.push((replica, offset));
        Ok(end - offset)
    }

    pub fn detach(&self, replica: u64) {
        let mut sequence = self.sequence.lock();
        sequence.keepers.replicas.retain(|(other, _)| *other != replica);
        sequence.trim();
    }

    /// A node of the cluster has everything up to an offset. What follows is kept for it, so that its link can be
    /// cut at any time and be made again from there; what a replica has been sent may not have come.
    pub fn keep_for(&self, node: u32, offset: u64) {
        let nodes = &mut self.sequence.lock().keepers.nodes;
        match nodes.iter_mut().find(|(other, _)| *other == node) {
            Some((_, kept)) => *kept = offset,
            None => nodes.push((node, offset)),
        }
    }

    /// Nothing more is kept for a node.
    pub fn forget(&self, node: u32) {
        let mut sequence = self.sequence.lock();
        sequence.keepers.nodes.retain(|(other, _)| *other != node);
        sequence.trim();
    }

    /// Gives a replica what comes next, up to about `most` bytes. How much there is after that; if it is
    /// nothing, `reactor` is told of what comes.
    pub fn feed(
        &self,
        replica: u64,
        most: usize,
        reactor: usize,
        into: &mut Vec<Bytes>,
    ) -> Result<u64, Trimmed> {
        let Sequence { backlog, keepers, waiting, .. } = &mut *self.sequence.lock();
        let keeper = keepers.replicas.iter_mut().find(|(other, _)| *other == replica);
        let (_, position) = keeper.ok_or(Trimmed)?;
        *position = backlog.read(*position, most, into)?;
        let left = backlog.end() - *position;
        if left == 0 {
            *waiting |= bit(reactor);
        }
        Ok(left)
    }

    /// How much a replica has yet to read.
    pub fn lag(&self, replica: u64) -> u64 {
        let sequence = self.sequence.lock();
        let keeper = sequence.keepers.replicas.iter().find(|(other, _)| *other == replica);
        keeper.map_or(0, |(_, position)| sequence.backlog.end() - position)
    }

    /// A reactor will look by itself: it need not be told.
    pub fn hush(&self, reactor: usize) {
        self.sequence.lock().waiting &= !bit(reactor);
    }

    /// Gives the append-only file what comes next, up to about `most` bytes; it needs nothing before that
    /// any more. What others need stays.
    pub fn take_for_file(
        &self,
        offset: u64,
        most: usize,
        into: &mut Vec<Bytes>,
    ) -> Result<u64, Trimmed> {
        let mut sequence = self.sequence.lock();
        let Sequence { backlog, asides, .. } = &mut *sequence;
        let end = match asides.is_empty() {
            true => backlog.read(offset, most, into)?,
            false => asides.read(backlog, offset, most, into)?,
        };
        if end != offset {
            let taken = std::mem::take(&mut sequence.crowd).appended;
            sequence.crowd.taken = taken;
            // The pieces live on in what was taken.
            sequence.keepers.file = end;
            sequence.trim();
        }
        Ok(end)
    }

    /// Whether those whose effects the file took last have yet to append again, if they do. Who asks is
    /// called through the bell when they have.
    pub fn expects_more(&self) -> bool {
        let crowd = &mut self.sequence.lock().crowd;
        if crowd.awaited == 0 {
            crowd.awaited = crowd.taken.saturating_add(crowd.appended);
        }
        crowd.appended < crowd.awaited
    }

    /// Tells the reactors of these bits that there is something to read.
    #[cold]
    fn wake(&self, waiting: u64) {
        let Some(mailboxes) = self.mailboxes.get() else { return };
        for (reactor, mailbox) in mailboxes.iter().enumerate() {
            if waiting & bit(reactor) != 0 {
                mailbox.post(Message::Logged);
            }
        }
    }
}

impl Sequence {
    #[inline]
    fn append(&mut self, bytes: &[u8]) -> u64 {
        let end = self.backlog.append(bytes);
        self.trim_if_due(end);
        end
    }

    #[cold]
    fn append_piece(&mut self, bytes: Bytes) -> u64 {
        let end = self.backlog.append_piece(bytes);
        self.trim_if_due(end);
        end
    }

    /// Appends what is for replicas, in the place of which the file gets something else.
    fn append_twofold(&mut self, for_replicas: &[u8], is_filler: bool, for_file: Vec<u8>) {
        let has_file = self.keepers.files != 0;
        if has_file || !is_filler {
            let begin = self.backlog.end();
            let end = self.append(for_replicas);
            if has_file {
                self.asides.push(begin..end, for_file);
            }
        }
    }

    #[inline]
    fn trim_if_due(&mut self, end: u64) {
        if self.trim_at <= end {
            self.trim();
        }
    }

    /// Forgets what nobody needs.
    fn trim(&mut self) {
        let Keepers { files, file, backlog_bytes, replicas, nodes, .. } = &self.keepers;
        let end = self.backlog.end();
        let mut needed = end.saturating_sub(backlog_bytes.unwrap_or(0));
        if *files != 0 {
            needed = needed.min(*file);
        }
        let needed = replicas.iter().fold(needed, |needed, (_, position)| needed.min(*position));
        let least = end.saturating_sub(OF_NODE_BYTES_MAX);
        let needed = nodes.iter().fold(needed, |needed, (_, kept)| needed.min((*kept).max(least)));
        self.backlog.trim(needed);
        self.trim_at = end + TRIM_BYTES;
    }
}

/// Reactors beyond 64 share bits: some look in vain.
fn bit(reactor: usize) -> u64 {
    1 << (reactor % 64)
}

#[cfg(test)]
mod tests {
    use carnelian_commands::Rewrite;

    use super::*;

    fn text(log: &EffectLog, from: u64) -> String {
        let mut pieces = Vec::new();
        log.read(from, usize::MAX, &mut pieces).unwrap();
        words(&pieces)
    }

    fn words(pieces: &[Bytes]) -> String {
        let words = String::from_utf8(pieces.concat()).unwrap();
        words
            .split("\r\n")
            .filter(|word| !word.starts_with(['*', '$']))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn each_unit_is_whole_and_names_its_database_where_it_changes() {
        let log = EffectLog::default();
        let mut unit = Unit::default();
        unit.verbatim(0, &[b"SET", b"a", b"1"]);
        unit.close();
        log.append(&mut unit);
        unit.verbatim(0, &[b"SET", b"b", b"1"]);
        unit.close();
        unit.verbatim(0, &[b"INCR", b"b"]);
        unit.verbatim(3, &[b"INCR", b"c"]);
        unit.close();
        let end = log.append(&mut unit);
        assert_eq!(
            text(&log, 0).trim(),
            "SELECT 0 SET a 1 SET b 1 MULTI INCR b SELECT 3 INCR c EXEC"
        );
        assert_eq!(log.cut(), end);
        let mut rewrite = Rewrite::new(true);
        rewrite.command(&[b"DEL", b"x"]);
        unit.rewritten(3, &rewrite);
        unit.close();
        let end = {
            log.append(&mut unit);
            assert_eq!(text(&log, end).trim(), "SELECT 3 DEL x");
            log.cut()
        };
        unit.verbatim(0, &[b"INCR", b"a"]);
        unit.verbatim(0, &[b"INCR", b"b"]);
        unit.close();
        log.append(&mut unit);
        assert_eq!(text(&log, end).trim(), "MULTI SELECT 0 INCR a INCR b EXEC");
    }

    #[test]
    fn what_was_sent_is_logged_in_one_way() {
        let value = "v".repeat(120);
        let words: [&[u8]; 4] = [b"SET", b"k", value.as_bytes(), b""];
        let usual = format!("*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$120\r\n{value}\r\n$0\r\n\r\n");
        let log = EffectLog::default();
        log.keep_backlog(Some(1 << 20));
        let mut unit = Unit::default();
        for sent in [&usual.replace("*4", "*04"), &usual, ""] {
            unit.as_sent(0, &words, sent.as_bytes());
            unit.close();
            log.append(&mut unit);
        }
        let expected = format!("SELECT 0{}", format!(" SET k {value} ").repeat(3));
        assert_eq!(text(&log, 0).trim(), expected.trim());
    }

    #[test]
    fn what_lies_in_the_batch_in_a_row_is_one_piece_until_something_else_comes() {
        let batch =
            b"\r\n*1\r\n$1\r\na\r\n*1\r\n$1\r\nb\r\n\r\n*1\r\n$1\r\nc\r\n*1\r\n$01\r\nd\r\n";
        let [a, b, c, d] = [2..13, 13..24, 26..37, 37..49];
        let log = EffectLog::default();
        log.keep_backlog(Some(1 << 20));
        let mut unit = Unit::default();
        for (name, place, db, is_piece) in [
            (b"a", &a, 0, true),
            (b"b", &b, 0, true),
            (b"b", &b, 0, false),
            (b"c", &c, 0, false),
            (b"d", &d, 0, false),
            (b"a", &a, 1, false),
        ] {
            if !unit.unit_as_sent(db, &[name], batch, place) {
                assert!(!is_piece);
                unit.gather(batch);
                unit.as_sent(db, &[name], &batch[place.clone()]);
                unit.close();
            }
            assert!(!unit.is_empty());
        }
        let end = log.append_of(&mut unit, batch);
        assert!(unit.is_empty());
        assert_eq!(text(&log, 0).trim(), "SELECT 0 a b b c d SELECT 1 a");
        assert!(unit.unit_as_sent(0, &[b"c"], batch, &c));
        log.append_of(&mut unit, batch);
        assert_eq!(text(&log, end).trim(), "SELECT 0 c");
    }

    #[test]
    fn what_went_of_keys_that_nobody_named_is_no_transaction() {
        let log = EffectLog::default();
        let mut unit = Unit::default();
        unit.verbatim(0, &[b"DEL", b"a"]);
        unit.verbatim(0, &[b"DEL", b"b"]);
        unit.close_apart();
        unit.verbatim(0, &[b"INCR", b"c"]);
        unit.close();
        log.append(&mut unit);
        assert_eq!(text(&log, 0).trim(), "SELECT 0 DEL a DEL b INCR c");
    }

    #[test]
    fn the_file_waits_for_as_many_as_appended_lately() {
        let log = EffectLog::default();
        log.follow();
        let append = || log.append_aside(&[b"PING"]);
        let mut pieces = Vec::new();
        assert!(!log.expects_more(), "nobody has come yet");
        append();
        append();
        let taken = log.take_for_file(0, usize::MAX, &mut pieces).unwrap();
        assert_eq!(taken, log.end());
        // One more while those two were flushed: three in all.
        append();
        assert!(log.expects_more());
        append();
        assert!(log.expects_more());
        append();
        assert!(!log.expects_more());
        let taken = log.take_for_file(taken, usize::MAX, &mut pieces).unwrap();
        assert!(log.expects_more());
        // Nothing is taken, and so nobody less is waited for.
        assert_eq!(log.take_for_file(taken, usize::MAX, &mut pieces), Ok(taken));
        (0..3).for_each(|_| assert!(log.expects_more() && append() != 0));
        assert!(!log.expects_more());
        assert_eq!(log.range().1, taken, "what was taken is not kept");
    }

    #[test]
    fn what_a_slow_replica_has_yet_to_read_is_beyond_the_backlog() {
        let log = EffectLog::default();
        log.keep_backlog(Some(100));
        log.attach(7, 0, &[]).unwrap();
        let value = vec![b'x'; 1000];
        for _ in 0..1000 {
            log.append_aside(&[b"SET", b"k", &value]);
        }
        assert_eq!(log.beyond_backlog() as u64, log.end() - 100);
        let memory = log.beyond_backlog_memory() as u64;
        assert!(log.end() < memory && memory < log.end() + log.end() / 10, "{memory}");
        log.feed(7, usize::MAX, 0, &mut Vec::new()).unwrap();
        assert_eq!(log.lag(7), 0);
        log.detach(7);
        assert!(log.beyond_backlog() < 64 << 10, "{}", log.beyond_backlog());
    }

    #[test]
    fn a_large_unit_lies_between_small_ones() {
        let log = EffectLog::default();
        log.keep_backlog(Some(1 << 20));
        let mut unit = Unit::default();
        let large = vec![b'v'; LARGE_BYTES];
        for (key, value) in [(b"a", &b"1"[..]), (b"b", &large), (b"c", b"3")] {
            unit.verbatim(0, &[b"SET", key, value]);
            unit.close();
            log.append(&mut unit);
            assert!(unit.is_empty());
        }
        let large = String::from_utf8(large).unwrap();
        let expected = format!("SELECT 0 SET a 1 SET b {large} SET c 3");
        assert_eq!(text(&log, 0).trim(), expected);
    }

    #[test]
    fn the_file_gets_another_version_of_a_unit_that_is_not_the_same_for_all() {
        use Audience::{All, File, Nobody, Replicas};

        let units: [&[(Audience, usize, &[u8])]; 6] = [
            &[(All, 0, b"a"), (File, 0, b"f"), (Nobody, 0, b"n"), (Replicas, 1, b"r")],
            &[(All, 1, b"b")],
            &[(File, 1, b"f")],
            &[(Replicas, 1, b"r"), (Replicas, 2, b"s")],
            &[(All, 2, b"c")],
            &[(All, 2, b"d"), (Nobody, 3, b"n")],
        ];
        let expected = [
            "MULTI SELECT 0 INCR a SELECT 1 INCR r EXEC INCR b PING \
             MULTI INCR r SELECT 2 INCR s EXEC SELECT 2 INCR c INCR d",
            "MULTI SELECT 0 INCR a INCR f SELECT 1 EXEC INCR b INCR f SELECT 2 INCR c INCR d",
        ];
        let log = EffectLog::default();
        log.keep_backlog(Some(1 << 20));
        let from = log.follow();
        let mut unit = Unit::default();
        for commands in units {
            for (audience, db, key) in commands {
                unit.audience = *audience;
                unit.verbatim(*db, &[b"INCR", key]);
            }
            unit.close();
            log.append(&mut unit);
        }
        let mut pieces = Vec::new();
        assert_eq!(log.take_for_file(from, usize::MAX, &mut pieces), Ok(log.end()));
        assert_eq!([text(&log, from), words(&pieces)].map(|text| text.trim().to_owned()), expected);
        log.unfollow();
        let end = log.end();
        unit.audience = File;
        unit.verbatim(2, &[b"INCR", b"f"]);
        unit.close();
        assert_eq!(log.append(&mut unit), end, "there is no file");
    }

    #[test]
    fn commands_transactions_scripts_and_waits_are_logged_as_what_they_did() {
        use std::fmt::Write as _;

        use carnelian_config::Config;

        use crate::testing::Bench;

        let bench = Bench::start(Config::default());
        let database = &bench.database;
        let from = {
            let _all = database.keyspace.lock_all();
            database.log.follow()
        };
        let mut stream = bench.connect();
        for (request, reply) in [
            ("SET a 1\r\nGET a\r\nINCRBYFLOAT a 0.5\r\n", "+OK\r\n$1\r\n1\r\n$3\r\n1.5\r\n"),
            ("SADD s x\r\nSPOP s\r\nDEL nothing\r\n", ":1\r\n$1\r\nx\r\n:0\r\n"),
            ("MULTI\r\nINCR n\r\nGET n\r\nSELECT 2\r\nINCR m\r\nEXEC\r\n", "+OK\r\n"),
            (
                "",
                "+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n:1\r\n$1\r\n1\r\n+OK\r\n:1\r\n",
            ),
            ("MULTI\r\nGET m\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"),
            ("EVAL \"redis.call('set','p','1') redis.call('incr','p') return 1\" 0\r\n", ":1\r\n"),
            ("PSETEX short 1 v\r\n", "+OK\r\n"),
        ] {
            bench.exchange(&mut stream, request, reply);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        bench.exchange(&mut stream, "GET short\r\n", "$-1\r\n");
        let mut waiting = bench.connect();
        bench.exchange(&mut waiting, "SELECT 2\r\n", "+OK\r\n");
        std::io::Write::write_all(&mut waiting, b"BLPOP l 0\r\n").unwrap();
        while database.waiters.blocked.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        bench.exchange(&mut stream, "RPUSH l e f\r\n", ":2\r\n");
        bench.exchange(&mut waiting, "", "*2\r\n$1\r\nl\r\n$1\r\ne\r\n");
        bench.exchange(
            &mut stream,
            "EVAL \"redis.set_repl(redis.REPL_NONE) redis.call('set','q','1') \
             redis.set_repl(redis.REPL_ALL) return redis.call('incr','q')\" 0\r\n",
            ":2\r\n",
        );
        let logged = text(&database.log, from);
        let mut expected = String::from("SELECT 0 SET a 1 SET a 1.5 KEEPTTL SADD s x SREM s x ");
        expected += "MULTI INCR n SELECT 2 INCR m EXEC MULTI set p 1 incr p EXEC ";
        write!(expected, "SET short v PXAT T DEL short RPUSH l e f LPOP l incr q").unwrap();
        let time = logged.split(' ').skip_while(|word| *word != "PXAT").nth(1).unwrap();
        assert_eq!(logged.trim().replace(time, "T"), expected);
    }
}
