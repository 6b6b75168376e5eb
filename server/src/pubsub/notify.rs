//! Keyspace notifications: events of keys, published on channels that are named after the key and
//! after the event.

use carnelian_config::KeyspaceEvents;
use carnelian_keyspace::{Event, EventClass};

use super::{Kind, publish};
use crate::database::Database;
use crate::session::{Session, Worker};
use crate::settings::Settings;

/// `notify-keyspace-events`, as it is gone by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// The classes that are published; none where both kinds of channels are off.
    classes: u32,
    by_key: bool,
    by_event: bool,
}

impl Notifications {
    pub fn new(events: KeyspaceEvents) -> Self {
        let (by_key, by_event) = (events.contains('K'), events.contains('E'));
        let mut classes = 0;
        if by_key || by_event {
            for (letter, class) in LETTERS {
                if events.contains(letter) {
                    classes |= class as u32;
                }
            }
        }
        Self { classes, by_key, by_event }
    }
}

const LETTERS: [(char, EventClass); 11] = [
    ('g', EventClass::Generic),
    ('$', EventClass::String),
    ('l', EventClass::List),
    ('s', EventClass::Set),
    ('h', EventClass::Hash),
    ('z', EventClass::SortedSet),
    ('x', EventClass::Expired),
    ('e', EventClass::Evicted),
    ('t', EventClass::Stream),
    ('m', EventClass::KeyMiss),
    ('n', EventClass::New),
];

/// The classes of events to be collected, for `Changes::listening`: none while nobody is subscribed
/// to anything.
#[inline]
pub fn listening(database: &Database, settings: &Settings) -> u32 {
    let classes = settings.notifications.classes;
    let pubsub = &database.pubsub;
    if classes == 0 || pubsub.of(Kind::Channel).is_empty() && pubsub.of(Kind::Pattern).is_empty() {
        return 0;
    }
    classes
}

/// Publishes events in the order in which they happened. `client` is the one that caused them, if
/// one did. Called with no lock held.
pub fn notify(worker: &Worker, database: &Database, client: Option<&Session>, events: &[Event]) {
    if events.is_empty() {
        return;
    }
    let Notifications { by_key, by_event, .. } = database.settings.load().notifications;
    let send = |channel: &[u8], message: &[u8]| {
        publish(worker, database, client, Kind::Channel, channel, message);
    };
    let mut channel = Vec::with_capacity(64);
    for Event { name, db, key, .. } in events {
        if by_key {
            channel.clear();
            channel.extend_from_slice(format!("__keyspace@{db}__:").as_bytes());
            channel.extend_from_slice(key);
            send(&channel, name.as_bytes());
        }
        if by_event {
            send(format!("__keyevent@{db}__:{name}").as_bytes(), key);
        }
    }
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use super::*;

    fn notifications(letters: &[u8]) -> Notifications {
        let mut config = Config::default();
        let change = [(&b"notify-keyspace-events"[..], letters)];
        config.set(&change, carnelian_config::Permission::Ordinary).unwrap();
        Notifications::new(config.notify_keyspace_events)
    }

    #[test]
    fn without_a_kind_of_channel_nothing_is_published() {
        assert_eq!(notifications(b"A"), Notifications::default());
        let all = notifications(b"AKEmn");
        assert_eq!(all.classes, LETTERS.iter().fold(0, |all, (_, class)| all | *class as u32));
        let some = notifications(b"Ex");
        assert!(some.by_event && !some.by_key);
        assert_eq!(some.classes, EventClass::Expired as u32);
    }
}
