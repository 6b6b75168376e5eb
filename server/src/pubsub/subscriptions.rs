//! What one client is subscribed to.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::CommandError;
use carnelian_resp::Protocol;

use super::Kind;
use super::channels::{Channel, Named, Place};
use crate::registry::Entry;
use crate::session::{ClientClass, Session};

/// The channels and patterns of a client. Most clients have none, and none of this.
#[derive(Default)]
pub struct Subscriptions {
    sets: [Named; Kind::COUNT],
}

impl Subscriptions {
    pub fn contains(&self, kind: Kind, name: &[u8]) -> bool {
        self.sets[kind as usize].contains_key(name)
    }

    fn len(&self, kind: Kind) -> usize {
        self.sets[kind as usize].len()
    }

    fn is_empty(&self) -> bool {
        self.sets.iter().all(Named::is_empty)
    }
}

impl Session {
    /// Whether the client listens to anything.
    #[inline]
    pub const fn is_subscribed(&self) -> bool {
        self.subscriptions.is_some()
    }

    /// Listens to `name` from now on.
    pub fn subscribe(&mut self, kind: Kind, name: &[u8]) {
        let place = self.place();
        let database = Arc::clone(&self.database);
        let subscriptions = self.subscriptions.get_or_insert_default();
        if subscriptions.contains(kind, name) {
            return;
        }
        let channel = database.pubsub.of(kind).join(name, place);
        subscriptions.sets[kind as usize].insert(Arc::clone(&channel.name), channel);
        self.publish_subscriptions();
    }

    /// Listens to `name` no longer.
    pub fn unsubscribe(&mut self, kind: Kind, name: &[u8]) {
        let place = self.place();
        let Some(subscriptions) = &mut self.subscriptions else { return };
        if let Some(channel) = subscriptions.sets[kind as usize].remove(name) {
            self.database.pubsub.of(kind).leave(&channel, place);
            self.publish_subscriptions();
        }
    }

    /// Gives up all subscriptions of a kind, one after the other; `left` hears of each, and of how
    /// many channels and patterns (or shard channels) are left.
    pub fn unsubscribe_all(&mut self, kind: Kind, mut left: impl FnMut(&[u8], usize)) {
        let place = self.place();
        let Some(subscriptions) = &mut self.subscriptions else { return };
        let set = std::mem::take(&mut subscriptions.sets[kind as usize]);
        let mut count = set.len() + subscriptions.counted_with(kind);
        let channels = self.database.pubsub.of(kind);
        for channel in set.into_values() {
            channels.leave(&channel, place);
            count -= 1;
            left(&channel.name, count);
        }
        self.publish_subscriptions();
    }

    /// Gives up every subscription without a word: for RESET and for the end of the connection.
    pub fn drop_subscriptions(&mut self) {
        if self.is_subscribed() {
            for kind in Kind::ALL {
                self.unsubscribe_all(kind, |_, _| {});
            }
        }
    }

    /// Whether the client is subscribed to one of those that `is_meant` says; it is told the name, and
    /// whether that is a pattern.
    pub fn hears_any(&self, is_meant: impl Fn(&[u8], bool) -> bool) -> bool {
        let Some(subscriptions) = self.subscriptions.as_deref() else { return false };
        Kind::ALL.into_iter().any(|kind| {
            let is_pattern = kind == Kind::Pattern;
            subscriptions.sets[kind as usize].keys().any(|name| is_meant(name, is_pattern))
        })
    }

    /// How many subscriptions replies to commands of this kind tell of: those to channels and
    /// patterns are counted together, those to shard channels by themselves.
    pub fn subscription_count(&self, kind: Kind) -> usize {
        let count = |subscriptions: &Subscriptions| {
            subscriptions.len(kind) + subscriptions.counted_with(kind)
        };
        self.subscriptions.as_deref().map_or(0, count)
    }

    pub(super) fn place(&self) -> Place {
        let token = self.shared.place.load(Ordering::Relaxed) as usize;
        Place { reactor: self.shared.reactor, token }
    }

    /// Whether what is published to `channel` goes to this client.
    pub(super) fn hears(&self, kind: Kind, channel: &Channel) -> bool {
        let hears = |subscriptions: &Subscriptions| subscriptions.contains(kind, &channel.name);
        self.subscriptions.as_deref().is_some_and(hears)
    }

    /// Brings up to date what depends on the subscriptions there are.
    fn publish_subscriptions(&mut self) {
        let Some(subscriptions) = &self.subscriptions else { return };
        let was_subscribed = self.shared.is_subscriber();
        for (count, kind) in [
            (&self.shared.channels, Kind::Channel),
            (&self.shared.patterns, Kind::Pattern),
            (&self.shared.sharded_channels, Kind::Shard),
        ] {
            count.store(subscriptions.len(kind), Ordering::Relaxed);
        }
        let is_subscribed = !subscriptions.is_empty();
        if !is_subscribed {
            self.subscriptions = None;
        }
        if was_subscribed == is_subscribed {
            return;
        }
        let clients = &self.database.pubsub.clients;
        if is_subscribed {
            clients.fetch_add(1, Ordering::Relaxed);
        } else {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
        self.class = match (self.class, is_subscribed) {
            (ClientClass::Normal, true) => ClientClass::PubSub,
            (ClientClass::PubSub, false) => ClientClass::Normal,
            (class, _) => class,
        };
    }
}

impl Subscriptions {
    fn counted_with(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel => self.len(Kind::Pattern),
            Kind::Pattern => self.len(Kind::Channel),
            Kind::Shard => 0,
        }
    }
}

/// What a subscribed client may run where messages cannot be told from replies.
const ALLOWED: [&str; 9] = [
    "ping",
    "subscribe",
    "unsubscribe",
    "psubscribe",
    "punsubscribe",
    "ssubscribe",
    "sunsubscribe",
    "quit",
    "reset",
];

impl Session {
    /// Whether a subscribed client may run this command.
    pub fn may_run(&self, entry: &Entry) -> bool {
        self.protocol == Protocol::Resp3
            || entry.container.is_none() && ALLOWED.contains(&entry.name())
    }
}

/// The answer to a command that a subscribed client may not run.
pub fn not_now(entry: &Entry) -> CommandError {
    CommandError::text(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
         allowed in this context",
        entry.full_name
    ))
}
