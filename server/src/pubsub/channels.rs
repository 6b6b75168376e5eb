//! Which clients listen to which channel: a registry that every reactor reads and writes.
//!
//! A publisher never sees a list of clients. It learns from the channel which reactors have
//! subscribers and how many, and takes the message's number; each of those reactors then finds its
//! own subscribers when the message arrives. So a client that has left by then gets nothing, and one
//! that came after the message was published is told apart by the number at which it joined.
//!
//! Locks: a shard's before a channel's; nothing else is locked while one of them is held.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

/// Where a subscriber is: its reactor, and its connection's token there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub reactor: usize,
    pub token: usize,
}

/// A channel or pattern that has subscribers, or had some a moment ago.
pub struct Channel {
    pub name: Arc<[u8]>,
    audience: Mutex<Audience>,
}

#[derive(Default)]
struct Audience {
    /// Messages published so far.
    published: u64,
    /// Those of each reactor that has some, in no order.
    reactors: SmallVec<[Share; 1]>,
}

/// One reactor's subscribers: never empty.
struct Share {
    reactor: usize,
    /// By ascending token.
    subscribers: SmallVec<[Subscriber; 1]>,
}

struct Subscriber {
    token: usize,
    /// Messages published before it came.
    since: u64,
}

/// What publishing to a channel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message's number in its channel, from 1.
    pub number: u64,
    pub receivers: usize,
}

impl Channel {
    fn new(name: &[u8]) -> Self {
        Self { name: name.into(), audience: Mutex::default() }
    }

    /// Takes the next message's number and notes in `reactors` who has to hear of it. None where
    /// nobody listens.
    pub fn publish(&self, reactors: &mut Reactors) -> Option<Sent> {
        let mut audience = self.audience.lock();
        if audience.reactors.is_empty() {
            return None;
        }
        audience.published += 1;
        let mut receivers = 0;
        for share in &audience.reactors {
            receivers += share.subscribers.len();
            reactors.add(share.reactor);
        }
        Some(Sent { number: audience.published, receivers })
    }

    /// Appends the tokens of those on `reactor` who came after message `from` was published (0: at
    /// any time) and before message `number` was.
    pub fn receivers(&self, reactor: usize, from: u64, number: u64, tokens: &mut Vec<usize>) {
        let audience = self.audience.lock();
        let Some(share) = audience.reactors.iter().find(|share| share.reactor == reactor) else {
            return;
        };
        let meant = share
            .subscribers
            .iter()
            .filter(|subscriber| (from..number).contains(&subscriber.since));
        tokens.extend(meant.map(|subscriber| subscriber.token));
    }

    pub fn subscribers(&self) -> usize {
        self.audience.lock().reactors.iter().map(|share| share.subscribers.len()).sum()
    }

    fn add(&self, place: Place) {
        let mut audience = self.audience.lock();
        let since = audience.published;
        let reactors = &mut audience.reactors;
        let at = reactors.iter().position(|share| share.reactor == place.reactor);
        let at = at.unwrap_or_else(|| {
            reactors.push(Share { reactor: place.reactor, subscribers: SmallVec::new() });
            reactors.len() - 1
        });
        let subscribers = &mut reactors[at].subscribers;
        if let Err(gap) = subscribers.binary_search_by_key(&place.token, |other| other.token) {
            subscribers.insert(gap, Subscriber { token: place.token, since });
        }
    }

    /// Whether the last one has left with this.
    fn remove(&self, place: Place) -> bool {
        let reactors = &mut self.audience.lock().reactors;
        let Some(at) = reactors.iter().position(|share| share.reactor == place.reactor) else {
            return false;
        };
        let subscribers = &mut reactors[at].subscribers;
        if let Ok(found) = subscribers.binary_search_by_key(&place.token, |other| other.token) {
            subscribers.remove(found);
        }
        if subscribers.is_empty() {
            reactors.swap_remove(at);
        }
        reactors.is_empty()
    }
}

/// Reactors, each once.
#[derive(Debug, Default)]
pub struct Reactors(SmallVec<[usize; 8]>);

impl Reactors {
    fn add(&mut self, reactor: usize) {
        if !self.0.contains(&reactor) {
            self.0.push(reactor);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }
}

/// Channels by their names.
pub type Named = HashMap<Arc<[u8]>, Arc<Channel>>;

/// All channels of one kind that have subscribers.
pub struct Channels {
    /// How many there are, so that who finds none takes no lock.
    count: AtomicUsize,
    shards: Box<[RwLock<Named>]>,
}

impl Channels {
    pub fn new(shards: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            shards: (0..shards.max(1)).map(|_| RwLock::default()).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&self, name: &[u8]) -> Option<Arc<Channel>> {
        if self.is_empty() {
            return None;
        }
        self.shard(name).read().get(name).cloned()
    }

    /// Makes the client at `place` a subscriber.
    pub fn join(&self, name: &[u8], place: Place) -> Arc<Channel> {
        let mut shard = self.shard(name).write();
        let channel = match shard.get(name) {
            Some(channel) => Arc::clone(channel),
            None => {
                let channel = Arc::new(Channel::new(name));
                shard.insert(Arc::clone(&channel.name), Arc::clone(&channel));
                self.count.fetch_add(1, Ordering::Relaxed);
                channel
            }
        };
        // With the shard locked, or the channel might go meanwhile with its last subscriber.
        channel.add(place);
        channel
    }

    /// The client at `place` is one no longer.
    pub fn leave(&self, channel: &Channel, place: Place) {
        let mut shard = self.shard(&channel.name).write();
        if channel.remove(place) && shard.remove(&channel.name).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Shows every channel to `look`, which must not come back here.
    pub fn for_each(&self, mut look: impl FnMut(&Arc<Channel>)) {
        if self.is_empty() {
            return;
        }
        for shard in &self.shards {
            shard.read().values().for_each(&mut look);
        }
    }

    /// By the end of the name, since names that are used together often begin alike.
    fn shard(&self, name: &[u8]) -> &RwLock<Named> {
        let tail = &name[name.len().saturating_sub(8)..];
        let sum = tail
            .iter()
            .fold(name.len(), |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
        &self.shards[sum % self.shards.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn place(reactor: usize, token: usize) -> Place {
        Place { reactor, token }
    }

    fn publish(channel: &Channel) -> Option<(Sent, Vec<usize>)> {
        let mut reactors = Reactors::default();
        let sent = channel.publish(&mut reactors)?;
        let mut reactors: Vec<_> = reactors.iter().collect();
        reactors.sort_unstable();
        Some((sent, reactors))
    }

    fn receivers(channel: &Channel, reactor: usize, number: u64) -> Vec<usize> {
        let mut tokens = Vec::new();
        channel.receivers(reactor, 0, number, &mut tokens);
        tokens
    }

    #[test]
    fn a_channel_lives_as_long_as_it_has_subscribers() {
        let channels = Channels::new(4);
        assert!(channels.find(b"news").is_none());
        let channel = channels.join(b"news", place(0, 5));
        assert!(Arc::ptr_eq(&channel, &channels.join(b"news", place(1, 5))));
        channels.join(b"weather", place(0, 5));
        assert_eq!(channels.len(), 2);
        assert_eq!(channel.subscribers(), 2);
        channels.leave(&channel, place(0, 5));
        channels.leave(&channel, place(0, 5));
        assert_eq!((channels.len(), channel.subscribers()), (2, 1));
        channels.leave(&channel, place(1, 5));
        assert_eq!(channels.len(), 1);
        assert!(channels.find(b"news").is_none());
        assert_eq!(publish(&channel), None);

        let again = channels.join(b"news", place(0, 1));
        assert!(!Arc::ptr_eq(&channel, &again));
        channels.leave(&channel, place(0, 1));
        assert_eq!(channels.find(b"news").map(|found| found.subscribers()), Some(1));
    }

    #[test]
    fn a_message_is_for_those_who_came_before_it() {
        let channels = Channels::new(1);
        let channel = channels.join(b"c", place(0, 9));
        channels.join(b"c", place(0, 3));
        let first = publish(&channel).unwrap();
        assert_eq!(first, (Sent { number: 1, receivers: 2 }, vec![0]));
        channels.join(b"c", place(0, 6));
        channels.join(b"c", place(2, 1));
        let second = publish(&channel).unwrap();
        assert_eq!(second, (Sent { number: 2, receivers: 4 }, vec![0, 2]));
        channels.leave(&channel, place(0, 3));
        assert_eq!(receivers(&channel, 0, 1), [9]);
        assert_eq!(receivers(&channel, 0, 2), [6, 9]);
        assert_eq!(receivers(&channel, 2, 1), [0_usize; 0]);
        assert_eq!(receivers(&channel, 2, 2), [1]);
        assert_eq!(receivers(&channel, 1, 2), [0_usize; 0]);
    }

    #[test]
    fn joining_and_leaving_from_many_threads_loses_nobody() {
        let channels = Channels::new(2);
        std::thread::scope(|scope| {
            for reactor in 0..4 {
                let channels = &channels;
                scope.spawn(move || {
                    for round in 0..500 {
                        let name = [b'a' + (round % 3) as u8];
                        let channel = channels.join(&name, place(reactor, round));
                        let (sent, reactors) = publish(&channel).unwrap();
                        assert!(reactors.contains(&reactor));
                        assert_eq!(receivers(&channel, reactor, sent.number), [round]);
                        channels.leave(&channel, place(reactor, round));
                    }
                });
            }
        });
        assert!(channels.is_empty());
        let mut seen = 0;
        channels.for_each(|_| seen += 1);
        assert_eq!(seen, 0);
    }
}
