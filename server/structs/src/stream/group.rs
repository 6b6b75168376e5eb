//! A consumer group: how far it has read, who reads, and what was delivered but not acknowledged.
//!
//! What is pending is kept once for the whole group, in the order of IDs and with all there is to
//! know of it, and for each consumer as a list of IDs.
//!
//! Invariants: every pending entry has a consumer, whose list has its ID, and no list has others;
//! `consumer_bytes` is the sum of what consumers take.

use std::cmp::Ordering;

use super::StreamId;
use super::entries::Entries;
use super::pages::Pages;
use crate::size::size_class;

#[derive(Debug)]
pub struct Group {
    name: Box<[u8]>,
    /// The last entry that was delivered.
    pub last_id: StreamId,
    /// How many entries of the stream were read, deleted ones included, if that is known.
    pub entries_read: Option<u64>,
    pending: Pages<Pending>,
    /// Places of consumers, which do not change; those in `vacant` are empty.
    consumers: Vec<Consumer>,
    vacant: Vec<ConsumerId>,
    /// In the order of their names.
    by_name: Pages<ConsumerId>,
    consumer_bytes: usize,
}

/// The place of a consumer in its group, for as long as there is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConsumerId(u32);

#[derive(Clone, Debug, Default)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last asked for something.
    pub seen_ms: u64,
    /// When it last got something.
    pub active_ms: Option<u64>,
    pending: Pages<StreamId>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pending {
    pub id: StreamId,
    pub delivered_ms: u64,
    pub deliveries: u64,
    pub consumer: ConsumerId,
}

impl Pending {
    /// For how long it has been pending.
    #[must_use]
    pub fn idle_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.delivered_ms)
    }
}

impl Consumer {
    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// How many entries it has not acknowledged.
    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    fn heap_bytes(&self) -> usize {
        size_class(self.name.len()) + self.pending.heap_bytes()
    }
}

impl Clone for Group {
    /// A copy of its own size: nothing is reserved in it.
    fn clone(&self) -> Self {
        let consumers = self.consumers.clone();
        Self {
            name: self.name.clone(),
            last_id: self.last_id,
            entries_read: self.entries_read,
            pending: self.pending.clone(),
            consumer_bytes: consumers.iter().map(Consumer::heap_bytes).sum(),
            consumers,
            vacant: self.vacant.clone(),
            by_name: self.by_name.clone(),
        }
    }
}

impl Group {
    pub(super) fn new(name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self {
            name: name.into(),
            last_id,
            entries_read,
            pending: Pages::default(),
            consumers: Vec::new(),
            vacant: Vec::new(),
            by_name: Pages::default(),
            consumer_bytes: 0,
        }
    }

    #[must_use]
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_class(self.name.len())
            + self.pending.heap_bytes()
            + size_class(self.consumers.capacity() * size_of::<Consumer>())
            + size_class(self.vacant.capacity() * size_of::<ConsumerId>())
            + self.by_name.heap_bytes()
            + self.consumer_bytes
    }

    /// Takes note that the entry `id` goes out, if it is the furthest yet. Whether it is.
    pub fn advance(&mut self, entries: &Entries, id: StreamId) -> bool {
        if id <= self.last_id {
            return false;
        }
        self.entries_read = match self.entries_read {
            Some(read) if entries.is_whole_from(self.last_id) => Some(read.wrapping_add(1)),
            known if entries.entries_added() == 0 => known,
            _ => entries.count_up_to(id),
        };
        self.last_id = id;
        true
    }

    // --- consumers ---

    #[must_use]
    pub fn consumers_len(&self) -> usize {
        self.by_name.len()
    }

    /// In the order of their names.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.by_name.iter().map(|&id| (id, self.consumer(id)))
    }

    #[must_use]
    pub fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        let spot = self.by_name.find(|&id| self.compare_name(id, name)).ok()?;
        Some(*self.by_name.at(spot))
    }

    fn compare_name(&self, id: ConsumerId, name: &[u8]) -> Ordering {
        self.consumer(id).name().cmp(name)
    }

    #[must_use]
    pub fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.0 as usize]
    }

    pub fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        &mut self.consumers[id.0 as usize]
    }

    /// A new consumer, who is seen now; `None` if there is one of this name.
    pub fn add_consumer(&mut self, name: &[u8], now_ms: u64) -> Option<ConsumerId> {
        let spot = self.by_name.find(|&id| self.compare_name(id, name)).err()?;
        let consumer = Consumer { name: name.into(), seen_ms: now_ms, ..Consumer::default() };
        self.consumer_bytes += consumer.heap_bytes();
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.consumer_mut(id) = consumer;
                id
            }
            None => {
                if self.consumers.len() == self.consumers.capacity() {
                    self.consumers.reserve_exact(self.consumers.len().max(1));
                }
                self.consumers.push(consumer);
                ConsumerId((self.consumers.len() - 1) as u32)
            }
        };
        self.by_name.insert(spot, id);
        Some(id)
    }

    /// Removes a consumer and all that is pending for it. How much that was; `None` without one.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let spot = self.by_name.find(|&id| self.compare_name(id, name)).ok()?;
        let id = self.by_name.remove(spot);
        let consumer = std::mem::take(self.consumer_mut(id));
        self.consumer_bytes -= consumer.heap_bytes();
        for &pending in consumer.pending.iter() {
            if let Ok(spot) = self.pending.find(|other| other.id.cmp(&pending)) {
                self.pending.remove(spot);
            }
        }
        if self.by_name.len() == 0 {
            (self.consumers, self.vacant) = (Vec::new(), Vec::new());
        } else {
            self.vacant.push(id);
        }
        Some(consumer.pending.len())
    }

    // --- what is pending ---

    #[must_use]
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    #[must_use]
    pub fn first_pending(&self) -> Option<&Pending> {
        self.pending.first()
    }

    #[must_use]
    pub fn last_pending(&self) -> Option<&Pending> {
        self.pending.last()
    }

    #[must_use]
    pub fn pending(&self, id: StreamId) -> Option<&Pending> {
        Some(self.pending.at(self.pending.find(|other| other.id.cmp(&id)).ok()?))
    }

    /// What is pending from `start` on, for anybody.
    pub fn pending_from(&self, start: StreamId) -> impl Iterator<Item = &Pending> {
        let (Ok(spot) | Err(spot)) = self.pending.find(|other| other.id.cmp(&start));
        self.pending.iter_from(spot)
    }

    /// What is pending from `start` on for one consumer.
    pub fn pending_of(
        &self,
        consumer: ConsumerId,
        start: StreamId,
    ) -> impl Iterator<Item = &Pending> {
        let ids = &self.consumer(consumer).pending;
        let (Ok(spot) | Err(spot)) = ids.find(|other| other.cmp(&start));
        ids.iter_from(spot).filter_map(|&id| self.pending(id))
    }

    /// The first that is pending from `start` on, for anybody.
    #[must_use]
    pub fn next_pending(&self, start: StreamId) -> Option<Pending> {
        self.pending_from(start).next().copied()
    }

    /// The first that is pending from `start` on for one consumer.
    #[must_use]
    pub fn next_pending_of(&self, consumer: ConsumerId, start: StreamId) -> Option<Pending> {
        self.pending_of(consumer, start).next().copied()
    }

    /// Makes an entry pending, or changes all that is known of one that is.
    pub fn set_pending(&mut self, new: Pending) {
        match self.pending.find(|other| other.id.cmp(&new.id)) {
            Err(spot) => self.pending.insert(spot, new),
            Ok(spot) => {
                let old = std::mem::replace(self.pending.at_mut(spot), new);
                if old.consumer == new.consumer {
                    return;
                }
                self.leave(old);
            }
        }
        self.change(new.consumer, |ids| {
            if let Err(spot) = ids.find(|other| other.cmp(&new.id)) {
                ids.insert(spot, new.id);
            }
        });
    }

    /// Makes an entry not pending any more. What was known of it.
    pub fn acknowledge(&mut self, id: StreamId) -> Option<Pending> {
        let spot = self.pending.find(|other| other.id.cmp(&id)).ok()?;
        let pending = self.pending.remove(spot);
        self.leave(pending);
        Some(pending)
    }

    /// Takes an entry off its consumer's list.
    fn leave(&mut self, pending: Pending) {
        self.change(pending.consumer, |ids| {
            if let Ok(spot) = ids.find(|other| other.cmp(&pending.id)) {
                ids.remove(spot);
            }
        });
    }

    fn change(&mut self, consumer: ConsumerId, change: impl FnOnce(&mut Pages<StreamId>)) {
        let ids = &mut self.consumers[consumer.0 as usize].pending;
        let before = ids.heap_bytes();
        change(ids);
        self.consumer_bytes = self.consumer_bytes - before + ids.heap_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn id(ms: u64) -> StreamId {
        StreamId::new(ms, 0)
    }

    fn check(group: &Group) {
        let bytes: usize = group.consumers.iter().map(Consumer::heap_bytes).sum();
        assert_eq!(bytes, group.consumer_bytes);
        let consumers = || group.consumers();
        assert!(consumers().is_sorted_by(|(_, a), (_, b)| a.name() < b.name()));
        let listed: usize = consumers().map(|(_, consumer)| consumer.pending_len()).sum();
        assert_eq!(listed, group.pending_len());
        for (consumer, _) in consumers() {
            for pending in group.pending_of(consumer, StreamId::MIN) {
                assert_eq!(pending.consumer, consumer);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Give(u64, usize),
        Acknowledge(u64),
        Remove(usize),
    }

    const NAMES: [&[u8]; 4] = [b"ann", b"bob", b"", b"carol, whose name is long"];

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            20 => (0_u64..300, 0..NAMES.len()).prop_map(|(id, consumer)| Op::Give(id, consumer)),
            10 => (0_u64..300).prop_map(Op::Acknowledge),
            1 => (0..NAMES.len()).prop_map(Op::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 100, ..ProptestConfig::default() })]

        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec(op(), 1..600)) {
            let mut group = Group::new(b"group", StreamId::MIN, None);
            let mut model: BTreeMap<u64, usize> = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Give(ms, name) => {
                        let found = group.find_consumer(NAMES[name]);
                        let consumer = found.or_else(|| group.add_consumer(NAMES[name], 0)).unwrap();
                        let new = Pending { id: id(ms), delivered_ms: ms, deliveries: 1, consumer };
                        group.set_pending(new);
                        model.insert(ms, name);
                    }
                    Op::Acknowledge(ms) => {
                        let gone = group.acknowledge(id(ms));
                        prop_assert_eq!(gone.is_some(), model.remove(&ms).is_some());
                    }
                    Op::Remove(name) => {
                        let expected = model.values().filter(|owner| **owner == name).count();
                        let found = group.find_consumer(NAMES[name]);
                        let removed = group.remove_consumer(NAMES[name]);
                        prop_assert_eq!(removed, found.map(|_| expected));
                        model.retain(|_, owner| *owner != name);
                    }
                }
            }
            check(&group);
            check(&group.clone());
            let owned = group.pending_from(StreamId::MIN).map(|pending| {
                (pending.id.ms, group.consumer(pending.consumer).name())
            });
            prop_assert!(owned.eq(model.into_iter().map(|(ms, name)| (ms, NAMES[name]))));
        }
    }

    #[test]
    fn a_group_without_consumers_holds_nothing() {
        let mut group = Group::new(b"", StreamId::MIN, None);
        let ann = group.add_consumer(b"ann", 7).unwrap();
        assert_eq!(group.add_consumer(b"ann", 7), None);
        for ms in 1..1000 {
            group.set_pending(Pending {
                id: id(ms),
                delivered_ms: 0,
                deliveries: 1,
                consumer: ann,
            });
        }
        assert!(50_000 < group.heap_bytes());
        assert_eq!(group.remove_consumer(b"ann"), Some(999));
        assert_eq!(group.remove_consumer(b"ann"), None);
        assert_eq!(group.heap_bytes(), 0);
    }
}
