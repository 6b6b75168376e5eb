//! Publish and subscribe.
//!
//! A message is encoded once, whatever the number of its readers, and posted once to each reactor
//! that has some (`Publication`). The reactor appends it to what its subscribers are owed, and it
//! leaves with the rest at the end of the turn. Only the publisher itself is served at once, since
//! its own messages come right behind the reply to its command.

mod channels;
mod notify;
mod publish;
mod subscriptions;

use std::sync::atomic::AtomicUsize;

pub use channels::Channels;
pub use notify::{Notifications, listening, notify};
pub use publish::{Part, Publication, Row, publish};
pub use subscriptions::{Subscriptions, not_now};

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    /// SSUBSCRIBE: in a cluster, a channel that belongs to a slot.
    Shard,
}

impl Kind {
    pub const COUNT: usize = 3;
    pub const ALL: [Self; Self::COUNT] = [Self::Channel, Self::Pattern, Self::Shard];
}

/// One database's channels.
pub struct PubSub {
    by_kind: [Channels; Kind::COUNT],
    /// Clients that are subscribed to something.
    pub clients: AtomicUsize,
}

/// Locks that channels are spread over, so that publishers seldom meet.
const SHARDS: usize = 16;

impl Default for PubSub {
    fn default() -> Self {
        let shards = |kind| match kind {
            Kind::Channel | Kind::Shard => SHARDS,
            // Each message goes past all of them.
            Kind::Pattern => 1,
        };
        Self {
            by_kind: Kind::ALL.map(|kind| Channels::new(shards(kind))),
            clients: AtomicUsize::new(0),
        }
    }
}

impl PubSub {
    pub fn of(&self, kind: Kind) -> &Channels {
        &self.by_kind[kind as usize]
    }
}
