//! The entries of a stream in the order of their IDs, kept in blocks.
//!
//! Blocks are in a queue of pages of up to 32. Entries are only added at the end and mostly
//! removed at the front, so that pages hardly ever have to be split or joined, and nothing is
//! copied when a stream grows but a queue of one word or two for each 3200 entries.
//!
//! Invariants: no page is empty; blocks and the entries in them are in ascending order; `len` is
//! the sum of the live entries; no entry has an ID above `last_id`. A block may be without a live
//! entry (as in Redis, after MINID came upon deleted entries), until it is trimmed away.

use std::collections::VecDeque;

use super::block::{Block, Entry, Found};
use super::{AppendError, NewId, SetIdError, StreamId};
use crate::size::size_class;

/// Blocks in a page.
const PAGE_MAX: usize = 32;

/// Neither a block, nor the fields and values of a single entry, may take more than this.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Entries of one key, and what is known of those that were.
#[derive(Debug, Default)]
pub struct Entries {
    pub(super) pages: VecDeque<Vec<Block>>,
    len: u64,
    first_id: StreamId,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    /// Of pages and blocks; the queue excluded.
    heap_bytes: usize,
}

/// When a block is full: `stream-node-max-bytes` and `stream-node-max-entries`, 0 for no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockLimits {
    pub bytes: usize,
    pub entries: usize,
}

impl Default for BlockLimits {
    fn default() -> Self {
        Self { bytes: 4096, entries: 100 }
    }
}

impl BlockLimits {
    /// The `LIMIT` of approximate trimming where none is given.
    #[must_use]
    pub fn default_trim_limit(self) -> u64 {
        match self.entries {
            0 => 10_000,
            entries => (entries as u64).saturating_mul(100).min(1_000_000),
        }
    }
}

/// What to keep when trimming.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// At most so many entries, the newest ones.
    Newest(u64),
    /// Entries from this ID on.
    From(StreamId),
}

/// How closely to trim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Precision {
    Exact,
    /// Whole blocks only, and no more than `limit` entries unless that is 0.
    Approximate {
        limit: u64,
    },
}

/// The place of a block: its page, and its index there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) page: usize,
    pub(super) index: usize,
}

impl Clone for Entries {
    /// A copy of its own size: nothing is reserved in it.
    fn clone(&self) -> Self {
        let pages = self.pages.clone();
        let heap_bytes = pages.iter().flatten().map(Block::heap_bytes).sum::<usize>()
            + pages.iter().map(page_bytes).sum::<usize>();
        Self { pages, heap_bytes, ..*self }
    }
}

impl Entries {
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The ID of the first entry, 0-0 if there is none.
    #[must_use]
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The highest ID ever given out, or the one set since.
    #[must_use]
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The highest ID that was deleted other than by trimming.
    #[must_use]
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// How many entries were ever added.
    #[must_use]
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// The bytes of everything the stream points to, as the allocator counts them.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes + size_class(self.pages.capacity() * size_of::<Vec<Block>>())
    }

    /// How many blocks there are.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.pages.iter().map(Vec::len).sum()
    }

    /// Adds an entry. `pairs` has fields and values in turn, at least one pair.
    pub fn append(
        &mut self,
        id: NewId,
        now_ms: u64,
        pairs: &[&[u8]],
        limits: BlockLimits,
    ) -> Result<StreamId, AppendError> {
        let id = self.new_id(id, now_ms)?;
        let text_bytes: usize = pairs.iter().map(|text| text.len()).sum();
        if BLOCK_BYTES_MAX < text_bytes {
            return Err(AppendError::TooLarge);
        }

        let mut tail = self.pages.back_mut().and_then(|page| page.last_mut());
        if let Some(block) = &mut tail
            && is_full(block, text_bytes, limits)
        {
            self.heap_bytes -= block.heap_bytes();
            block.seal();
            self.heap_bytes += block.heap_bytes();
            tail = None;
        }
        let block = match tail {
            Some(block) => block,
            None => self.push_block(Block::new(id, pairs)),
        };
        let before = block.heap_bytes();
        block.append(id, pairs);
        let after = block.heap_bytes();
        self.heap_bytes = self.heap_bytes - before + after;

        self.len += 1;
        self.entries_added = self.entries_added.saturating_add(1);
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(id)
    }

    fn new_id(&self, id: NewId, now_ms: u64) -> Result<StreamId, AppendError> {
        if id == NewId::Exact(StreamId::MIN) {
            return Err(AppendError::ZeroId);
        }
        let last = self.last_id;
        let above_last = last.next().ok_or(AppendError::Exhausted)?;
        let id = match id {
            // Never backward, whatever the clock does.
            NewId::Auto if last.ms < now_ms => StreamId::new(now_ms, 0),
            NewId::Auto => above_last,
            NewId::AutoSequence(ms) if ms == last.ms => match above_last {
                next if next.ms == ms => next,
                _ => return Err(AppendError::NotAboveLast),
            },
            NewId::AutoSequence(ms) => StreamId::new(ms, 0),
            NewId::Exact(id) => id,
        };
        if last < id { Ok(id) } else { Err(AppendError::NotAboveLast) }
    }

    fn push_block(&mut self, block: Block) -> &mut Block {
        self.heap_bytes += block.heap_bytes();
        if self.pages.back().is_none_or(|page| page.len() == PAGE_MAX) {
            self.pages.push_back(Vec::new());
        }
        let page = self.pages.back_mut().expect("there is a page, if only the one just added");
        if page.len() == page.capacity() {
            // Small streams are many: their page starts with a single place.
            self.heap_bytes -= page_bytes(page);
            page.reserve_exact(page.len().max(1));
            self.heap_bytes += page_bytes(page);
        }
        page.push_mut(block)
    }

    fn drop_block(&mut self, place: Place) {
        let page = &mut self.pages[place.page];
        let block = page.remove(place.index);
        self.heap_bytes -= block.heap_bytes();
        if page.is_empty() {
            self.heap_bytes -= page_bytes(page);
            self.pages.remove(place.page);
        }
        if self.pages.is_empty() {
            self.pages = VecDeque::new();
        }
    }

    /// The entry with this ID.
    #[must_use]
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    /// The ID of the last entry there is, which may be below `last_id`.
    #[must_use]
    pub fn last_entry_id(&self) -> Option<StreamId> {
        self.range_reversed(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id)
    }

    /// Deletes an entry. Returns whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some(place) = self.place_of(id) else { return false };
        let block = &mut self.pages[place.page][place.index];
        let mut at = block.start();
        let start = loop {
            let Some(found) = block.entry_from(at).filter(|found| found.entry.id <= id) else {
                return false;
            };
            if found.entry.id == id {
                if found.is_deleted {
                    return false;
                }
                break found.start;
            }
            at = found.end;
        };
        block.delete(start);
        if block.live == 0 {
            self.drop_block(place);
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if self.len == 0 || id == self.first_id {
            self.find_first_id();
        }
        true
    }

    /// Removes entries from the front. Returns how many.
    pub fn trim(&mut self, keep: Keep, precision: Precision) -> u64 {
        let mut removed = 0;
        let front = Place { page: 0, index: 0 };
        while let Some(block) = self.block(front) {
            let live = block.live as u64;
            if matches!(keep, Keep::Newest(count) if self.len <= count) {
                break;
            }
            if let Precision::Approximate { limit } = precision
                && limit != 0
                && limit < removed + live
            {
                break;
            }
            let is_whole = match keep {
                Keep::Newest(count) => count <= self.len - live,
                Keep::From(id) => block.last < id,
            };
            if !is_whole {
                if precision == Precision::Exact {
                    removed += self.trim_front_block(keep);
                }
                break;
            }
            self.drop_block(front);
            self.len -= live;
            removed += live;
        }
        if removed != 0 {
            self.find_first_id();
        }
        removed
    }

    /// Deletes entries of the first block, which holds some to keep.
    fn trim_front_block(&mut self, keep: Keep) -> u64 {
        let mut removed = 0;
        let block = &mut self.pages[0][0];
        let mut at = block.start();
        while let Some(Found { entry, is_deleted, start, end }) = block.entry_from(at) {
            let is_kept = match keep {
                Keep::Newest(count) => self.len <= count,
                Keep::From(id) => id <= entry.id,
            };
            if is_kept {
                break;
            }
            if !is_deleted {
                block.delete(start);
                self.len -= 1;
                removed += 1;
            }
            at = end;
        }
        removed
    }

    fn find_first_id(&mut self) {
        let first = self.range(StreamId::MIN, StreamId::MAX).next();
        self.first_id = first.map_or(StreamId::MIN, |entry| entry.id);
    }

    /// Sets the last ID as XSETID does, and the other counters where they are given.
    pub fn set_id(
        &mut self,
        id: StreamId,
        entries_added: Option<u64>,
        max_deleted_id: Option<StreamId>,
    ) -> Result<(), SetIdError> {
        if id < self.max_deleted_id {
            return Err(SetIdError::BelowMaxDeleted);
        }
        if self.last_entry_id().is_some_and(|last| id < last) {
            return Err(SetIdError::BelowTopItem);
        }
        if !self.is_empty() && entries_added.is_some_and(|added| added < self.len) {
            return Err(SetIdError::AddedBelowLength);
        }
        self.last_id = id;
        self.entries_added = entries_added.unwrap_or(self.entries_added);
        if let Some(id) = max_deleted_id.filter(|&id| id != StreamId::MIN) {
            self.max_deleted_id = id;
        }
        Ok(())
    }

    pub(super) fn block(&self, place: Place) -> Option<&Block> {
        self.pages.get(place.page)?.get(place.index)
    }

    /// The last block that starts at or before `id`.
    pub(super) fn place_of(&self, id: StreamId) -> Option<Place> {
        let page = self.pages.partition_point(|page| page[0].first <= id).checked_sub(1)?;
        let index = self.pages[page].partition_point(|block| block.first <= id) - 1;
        Some(Place { page, index })
    }
}

fn page_bytes(page: &Vec<Block>) -> usize {
    size_class(page.capacity() * size_of::<Block>())
}

/// Whether an entry of `text_bytes` should start a new block.
fn is_full(block: &Block, text_bytes: usize, limits: BlockLimits) -> bool {
    let bytes_max = match limits.bytes {
        0 => BLOCK_BYTES_MAX,
        bytes => bytes.min(BLOCK_BYTES_MAX),
    };
    bytes_max <= block.listpack_bytes() + text_bytes
        || (limits.entries != 0 && limits.entries <= block.live + block.deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const LIMITS: BlockLimits = BlockLimits { bytes: 4096, entries: 100 };

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId::new(ms, seq)
    }

    fn add(stream: &mut Entries, ms: u64) {
        let value = ms.to_string();
        let pairs: [&[u8]; 2] = [b"field", value.as_bytes()];
        stream.append(NewId::Exact(id(ms, 1)), 0, &pairs, LIMITS).unwrap();
    }

    fn filled(entries: u64) -> Entries {
        let mut stream = Entries::default();
        (1..=entries).for_each(|ms| add(&mut stream, ms));
        stream
    }

    fn times<'a>(entries: impl Iterator<Item = Entry<'a>>) -> Vec<u64> {
        entries.map(|entry| entry.id.ms).collect()
    }

    fn owned(entry: &Entry<'_>) -> (StreamId, Vec<Vec<u8>>) {
        let pieces = entry.fields().flat_map(|(field, value)| [field.to_vec(), value.to_vec()]);
        (entry.id, pieces.collect())
    }

    fn check(stream: &Entries) {
        let blocks = || stream.pages.iter().flatten();
        let heap: usize = stream.pages.iter().map(page_bytes).sum::<usize>()
            + blocks().map(Block::heap_bytes).sum::<usize>();
        assert_eq!(heap, stream.heap_bytes);
        assert!(stream.pages.iter().all(|page| !page.is_empty() && page.len() <= PAGE_MAX));
        assert_eq!(blocks().map(|block| block.live as u64).sum::<u64>(), stream.len());
        assert!(blocks().is_sorted_by(|a, b| a.last < b.first));
        let all: Vec<_> = stream.range(StreamId::MIN, StreamId::MAX).collect();
        assert_eq!(all.len() as u64, stream.len());
        assert_eq!(all.first().map_or(StreamId::MIN, |entry| entry.id), stream.first_id());
    }

    #[test]
    fn ids_are_given_out_in_order() {
        let mut stream = Entries::default();
        let mut append = |id, now_ms| stream.append(id, now_ms, &[b"a", b"b"], LIMITS);
        assert_eq!(append(NewId::Exact(id(0, 0)), 0), Err(AppendError::ZeroId));
        assert_eq!(append(NewId::AutoSequence(0), 0), Ok(id(0, 1)));
        assert_eq!(append(NewId::Auto, 50), Ok(id(50, 0)));
        assert_eq!(append(NewId::Auto, 40), Ok(id(50, 1)));
        assert_eq!(append(NewId::Exact(id(50, 1)), 0), Err(AppendError::NotAboveLast));
        assert_eq!(append(NewId::AutoSequence(49), 0), Err(AppendError::NotAboveLast));
        assert_eq!(append(NewId::AutoSequence(50), 0), Ok(id(50, 2)));
        assert_eq!(append(NewId::AutoSequence(51), 0), Ok(id(51, 0)));
        assert_eq!(append(NewId::Exact(id(51, u64::MAX)), 0), Ok(id(51, u64::MAX)));
        assert_eq!(append(NewId::AutoSequence(51), 0), Err(AppendError::NotAboveLast));
        assert_eq!(append(NewId::Auto, 0), Ok(id(52, 0)));
        assert_eq!(append(NewId::Exact(StreamId::MAX), 0), Ok(StreamId::MAX));
        assert_eq!(append(NewId::Auto, 0), Err(AppendError::Exhausted));
        assert_eq!(stream.entries_added(), 8);
        check(&stream);
    }

    #[test]
    fn ranges_in_both_directions_with_bounds_and_counts() {
        let stream = filled(1000);
        check(&stream);
        let (min, max) = (StreamId::MIN, StreamId::MAX);
        assert_eq!(times(stream.range(min, max)), (1..=1000).collect::<Vec<_>>());
        assert_eq!(times(stream.range_reversed(min, max)), (1..=1000).rev().collect::<Vec<_>>());
        assert_eq!(times(stream.range(id(250, 1), id(253, 0))), [250, 251, 252]);
        assert_eq!(times(stream.range(id(250, 2), id(253, 9))), [251, 252, 253]);
        assert_eq!(times(stream.range_reversed(id(250, 2), id(253, 0))), [252, 251]);
        assert_eq!(times(stream.range_reversed(min, max).take(3)), [1000, 999, 998]);
        assert_eq!(times(stream.range(id(2000, 0), max)), []);
        assert_eq!(times(stream.range_reversed(min, id(0, 5))), []);
        assert_eq!(times(stream.range(id(5, 0), id(4, 0))), []);
        assert_eq!(times(stream.range_reversed(id(5, 0), id(4, 0))), []);
        assert_eq!(stream.get(id(77, 1)).map(|entry| owned(&entry)), {
            Some((id(77, 1), vec![b"field".to_vec(), b"77".to_vec()]))
        });
        assert!(stream.get(id(77, 0)).is_none());
        assert_eq!(stream.blocks(), 10);
    }

    #[test]
    fn deleting_keeps_the_counters_of_redis() {
        let mut stream = filled(250);
        assert!(stream.delete(id(100, 1)));
        assert!(!stream.delete(id(100, 1)));
        assert!(!stream.delete(id(100, 0)));
        assert!(!stream.delete(id(0, 0)));
        assert_eq!((stream.len(), stream.max_deleted_id()), (249, id(100, 1)));
        assert!(stream.delete(id(1, 1)));
        assert_eq!((stream.first_id(), stream.max_deleted_id()), (id(2, 1), id(100, 1)));
        for ms in 101..=200 {
            assert!(stream.delete(id(ms, 1)));
        }
        assert_eq!(stream.blocks(), 2);
        check(&stream);
        for ms in (2..100).chain(201..=250) {
            assert!(stream.delete(id(ms, 1)));
        }
        assert_eq!((stream.len(), stream.first_id(), stream.last_id()), (0, id(0, 0), id(250, 1)));
        assert_eq!((stream.heap_bytes(), stream.entries_added()), (0, 250));
        assert_eq!(stream.last_entry_id(), None);
        add(&mut stream, 251);
        check(&stream);
    }

    #[test]
    fn exact_trimming_stops_in_the_middle_of_a_block() {
        let mut stream = filled(250);
        assert_eq!(stream.trim(Keep::Newest(105), Precision::Exact), 145);
        assert_eq!((stream.len(), stream.first_id(), stream.blocks()), (105, id(146, 1), 2));
        assert_eq!(stream.max_deleted_id(), StreamId::MIN);
        check(&stream);
        check(&stream.clone());
        assert_eq!(stream.trim(Keep::From(id(170, 2)), Precision::Exact), 25);
        assert_eq!(stream.first_id(), id(171, 1));
        assert_eq!(stream.trim(Keep::From(id(170, 2)), Precision::Exact), 0);
        assert_eq!(stream.trim(Keep::Newest(0), Precision::Exact), 80);
        assert_eq!((stream.len(), stream.first_id(), stream.heap_bytes()), (0, id(0, 0), 0));
    }

    #[test]
    fn approximate_trimming_removes_whole_blocks_within_its_limit() {
        let trim = |keep, limit| {
            let mut stream = filled(1000);
            let removed = stream.trim(keep, Precision::Approximate { limit });
            check(&stream);
            removed
        };
        assert_eq!(trim(Keep::Newest(555), 0), 400);
        assert_eq!(trim(Keep::Newest(555), 250), 200);
        assert_eq!(trim(Keep::Newest(555), 99), 0);
        assert_eq!(trim(Keep::From(id(301, 1)), 0), 300);
        assert_eq!(trim(Keep::From(id(300, 1)), 0), 200);
        assert_eq!(trim(Keep::From(StreamId::MAX), 10_000), 1000);
        assert_eq!(BlockLimits::default().default_trim_limit(), 10_000);
    }

    #[test]
    fn a_minimal_id_between_deleted_entries_leaves_an_empty_block() {
        let mut stream = filled(3);
        stream.delete(id(3, 1));
        assert_eq!(stream.trim(Keep::From(id(3, 0)), Precision::Exact), 2);
        assert_eq!((stream.len(), stream.blocks(), stream.first_id()), (0, 1, StreamId::MIN));
        check(&stream);
        add(&mut stream, 4);
        check(&stream);
        assert_eq!(times(stream.range_reversed(StreamId::MIN, StreamId::MAX)), [4]);
    }

    #[test]
    fn blocks_end_where_those_of_redis_end() {
        // 6 bytes of header, 2 counts, the master entry of `f`, its end, and the end mark.
        let mut stream = Entries::default();
        let limits = BlockLimits { bytes: 0, entries: 0 };
        for ms in 1..=200 {
            stream.append(NewId::Exact(id(ms, 0)), 0, &[b"f", b"0123456789"], limits).unwrap();
        }
        // An entry: flags, two differences, a text of ten bytes, the number of its pieces.
        let small = 2 + 2 + 2 + 12 + 2;
        let large = small + 1; // differences from 128 on
        let expected = 7 + (3 + 2) + 2 + 3 + 2 + 128 * small + 72 * large;
        assert_eq!(stream.pages[0][0].listpack_bytes(), expected);
        assert_eq!(stream.blocks(), 1);
    }

    #[test]
    fn memory_is_below_that_of_a_listpack() {
        let mut stream = Entries::default();
        for n in 0..100_000_u64 {
            let (a, b) = (n.to_string(), format!("value:{n}"));
            let pairs: [&[u8]; 4] = [b"sensor", a.as_bytes(), b"name", b.as_bytes()];
            stream.append(NewId::Auto, 1_700_000_000_000 + 3 * n, &pairs, LIMITS).unwrap();
        }
        let blocks = stream.pages.iter().flatten();
        let listpacks: usize = blocks.map(|block| size_class(block.listpack_bytes())).sum();
        assert!(10 * stream.heap_bytes() < 9 * listpacks, "{} {listpacks}", stream.heap_bytes());
    }

    #[test]
    fn last_id_cannot_be_set_below_what_is_there() {
        let mut stream = filled(10);
        assert_eq!(stream.set_id(id(10, 0), None, None), Err(SetIdError::BelowTopItem));
        assert_eq!(stream.set_id(id(10, 1), Some(9), None), Err(SetIdError::AddedBelowLength));
        assert_eq!(stream.set_id(id(20, 0), Some(30), Some(id(15, 0))), Ok(()));
        assert_eq!((stream.last_id(), stream.entries_added()), (id(20, 0), 30));
        assert_eq!(stream.set_id(id(14, 0), None, None), Err(SetIdError::BelowMaxDeleted));
        assert_eq!(stream.set_id(id(20, 0), None, Some(StreamId::MIN)), Ok(()));
        assert_eq!(stream.max_deleted_id(), id(15, 0));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Append { ms: u64, seq: u64, pieces: Vec<Vec<u8>> },
        Delete(usize),
        Trim(usize, bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        let piece = prop_oneof![
            "[ab]".prop_map(String::into_bytes),
            any::<i16>().prop_map(|value| value.to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..100),
        ];
        let pieces = prop::collection::vec((piece.clone(), piece), 1..4)
            .prop_map(|pairs| pairs.into_iter().flat_map(|(a, b)| [a, b]).collect());
        prop_oneof![
            8 => (0_u64..3, any::<u64>(), pieces)
                .prop_map(|(ms, seq, pieces)| Op::Append { ms, seq, pieces }),
            3 => any::<usize>().prop_map(Op::Delete),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(at, by_id)| Op::Trim(at, by_id)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn agrees_with_a_map(
            ops in prop::collection::vec(op(), 1..200),
            entries in 0_usize..12,
            bytes in 0_usize..600,
        ) {
            let limits = BlockLimits { bytes, entries };
            let mut stream = Entries::default();
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Append { ms, seq, pieces } => {
                        let last = stream.last_id();
                        let seq = if ms == 0 { last.seq.saturating_add(seq >> 59) } else { seq };
                        let id = StreamId::new(last.ms + ms, seq);
                        let pairs: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                        let added = stream.append(NewId::Exact(id), 0, &pairs, limits);
                        prop_assert_eq!(added.is_ok(), last < id);
                        if added.is_ok() {
                            model.insert(id, pieces);
                        }
                    }
                    Op::Delete(at) if !model.is_empty() => {
                        let id = *model.keys().nth(at % model.len()).unwrap();
                        model.remove(&id);
                        prop_assert!(stream.delete(id));
                        prop_assert!(!stream.delete(id));
                    }
                    Op::Trim(at, by_id) if !model.is_empty() => {
                        let at = at % model.len();
                        let id = *model.keys().nth(at).unwrap();
                        let kept = model.split_off(&id);
                        let removed = model.len() as u64;
                        model = kept;
                        let keep = match by_id {
                            true => Keep::From(id),
                            false => Keep::Newest(model.len() as u64),
                        };
                        prop_assert_eq!(stream.trim(keep, Precision::Exact), removed);
                    }
                    _ => {}
                }
            }
            check(&stream);
            let all = stream.range(StreamId::MIN, StreamId::MAX);
            prop_assert!(all.map(|entry| owned(&entry)).eq(model.clone()));
            let all = stream.range_reversed(StreamId::MIN, StreamId::MAX);
            prop_assert!(all.map(|entry| owned(&entry)).eq(model.into_iter().rev()));
        }
    }
}
