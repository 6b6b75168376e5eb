//! Messages on their way from a publisher to the subscribers of each reactor.

use std::sync::{Arc, OnceLock};

use carnelian_resp::{Protocol, Writer};
use carnelian_structs::glob;
use smallvec::SmallVec;

use super::Kind;
use super::channels::{Channel, Reactors, Sent};
use crate::database::Database;
use crate::mailbox::Message;
use crate::session::{Session, Worker};

/// What was published by one command, as it is posted to each reactor that has readers of it.
pub struct Publication {
    /// To the channel first, then to the patterns it matches.
    pub parts: SmallVec<[Part; 1]>,
    /// The publisher's reactor and token there, if it has got its copy already.
    pub publisher: Option<(usize, usize)>,
}

/// A message in the form in which the subscribers of one channel or one pattern get it.
pub struct Part {
    kind: Kind,
    channel: Arc<Channel>,
    number: u64,
    bytes: Encoded,
}

impl Part {
    /// Appends the tokens of its readers on `reactor`.
    pub fn receivers(&self, reactor: usize, tokens: &mut Vec<usize>) {
        self.channel.receivers(reactor, self.number, tokens);
    }

    pub fn bytes(&self, protocol: Protocol) -> &Arc<[u8]> {
        self.bytes.of(protocol)
    }
}

/// A message on the wire. Both protocols differ only in the first byte, `*` or `>`.
struct Encoded {
    array: Arc<[u8]>,
    push: OnceLock<Arc<[u8]>>,
}

impl Encoded {
    fn new(words: &[&[u8]]) -> Self {
        let length: usize = words.iter().map(|word| word.len() + 16).sum();
        let mut bytes = Vec::with_capacity(length + 8);
        let mut writer = Writer::new(&mut bytes, Protocol::Resp2);
        writer.array(words.len());
        words.iter().for_each(|word| writer.bulk(word));
        Self { array: bytes.into(), push: OnceLock::new() }
    }

    fn of(&self, protocol: Protocol) -> &Arc<[u8]> {
        match protocol {
            Protocol::Resp2 => &self.array,
            Protocol::Resp3 => self.push.get_or_init(|| {
                let mut bytes = self.array.to_vec();
                bytes[0] = b'>';
                bytes.into()
            }),
        }
    }
}

/// Publishes a message to a channel (or a shard channel) and returns how many get it.
///
/// `publisher` is the client whose command this is, if there is one: a copy for itself is kept in
/// `Worker::echo` until its command has been replied to. Called with no lock held.
pub fn publish(
    worker: &Worker,
    database: &Database,
    publisher: Option<&Session>,
    kind: Kind,
    name: &[u8],
    message: &[u8],
) -> usize {
    let pubsub = &database.pubsub;
    let mut parts = SmallVec::<[Part; 1]>::new();
    let mut reactors = Reactors::default();
    let mut receivers = 0;
    let mut add = |kind, channel: &Arc<Channel>, words: &[&[u8]]| {
        if let Some(Sent { number, receivers: more }) = channel.publish(&mut reactors) {
            receivers += more;
            let bytes = Encoded::new(words);
            parts.push(Part { kind, channel: Arc::clone(channel), number, bytes });
        }
    };
    if let Some(channel) = pubsub.of(kind).find(name) {
        let word: &[u8] = if kind == Kind::Shard { b"smessage" } else { b"message" };
        add(kind, &channel, &[word, name, message]);
    }
    if kind != Kind::Shard {
        pubsub.of(Kind::Pattern).for_each(|pattern| {
            if glob::matches(&pattern.name, name, false) {
                add(Kind::Pattern, pattern, &[b"pmessage", &pattern.name, name, message]);
            }
        });
    }
    if parts.is_empty() {
        return 0;
    }
    let mut own_place = None;
    if let Some(session) = publisher.filter(|session| session.is_subscribed()) {
        own_place = Some((worker.reactor, session.place().token));
        let mut echo = worker.echo.borrow_mut();
        for part in parts.iter().filter(|part| session.hears(part.kind, &part.channel)) {
            echo.extend_from_slice(part.bytes(session.protocol));
        }
    }
    let publication = Arc::new(Publication { parts, publisher: own_place });
    for reactor in reactors.iter() {
        worker.post(reactor, Message::Publish(Arc::clone(&publication)));
    }
    receivers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_array_or_a_push() {
        let encoded = Encoded::new(&[b"message", b"c", b""]);
        assert_eq!(&**encoded.of(Protocol::Resp2), b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n");
        assert_eq!(&**encoded.of(Protocol::Resp3), b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n");
        let once = encoded.of(Protocol::Resp3).as_ptr();
        assert_eq!(encoded.of(Protocol::Resp3).as_ptr(), once);
    }
}
