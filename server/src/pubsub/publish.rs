//! Messages on their way from a publisher to the subscribers of each reactor.

use std::sync::{Arc, OnceLock};

use carnelian_resp::{Protocol, Writer};
use carnelian_structs::glob;
use smallvec::SmallVec;

use super::Kind;
use super::channels::{Channel, Reactors, Sent};
use crate::database::Database;
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
    /// It is for those who came after message `from` and before message `number`.
    from: u64,
    number: u64,
    bytes: Encoded,
}

impl Part {
    /// Appends the tokens of its readers on `reactor`.
    pub fn receivers(&self, reactor: usize, tokens: &mut Vec<usize>) {
        self.channel.receivers(reactor, self.from, self.number, tokens);
    }

    pub fn bytes(&self, protocol: Protocol) -> &Arc<[u8]> {
        self.bytes.of(protocol)
    }
}

/// A message on the wire. Both protocols differ only in the first byte, `*` or `>`.
#[derive(Clone)]
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
            Protocol::Resp3 => self.push.get_or_init(|| pushed(&self.array).into()),
        }
    }
}

fn pushed(array: &[u8]) -> Vec<u8> {
    let mut bytes = array.to_vec();
    bytes[0] = b'>';
    bytes
}

/// Messages that were published to one channel, one after the other.
///
/// Who was there before the first gets all of them in one piece; who came between them gets each
/// that is for it.
pub struct Row {
    rest: Vec<Arc<Publication>>,
    bytes: usize,
}

/// A row ends with the message that brings it to so many bytes.
const ROW_BYTES: usize = 16 << 10;

impl Row {
    pub fn new(first: &Publication) -> Self {
        let bytes = first.parts.iter().map(|part| part.bytes.array.len()).sum();
        Self { rest: Vec::new(), bytes }
    }

    /// Takes `next` in, if it went to the same readers as `first`.
    pub fn join(&mut self, first: &Arc<Publication>, next: &Arc<Publication>) -> bool {
        let ([a], [b]) = (&*first.parts, &*next.parts) else { return false };
        let is_same = Arc::ptr_eq(&a.channel, &b.channel);
        let is_own = first.publisher.is_some() || next.publisher.is_some();
        if !is_same || is_own || ROW_BYTES <= self.bytes || b.number <= a.number {
            return false;
        }
        if self.rest.is_empty() {
            self.rest.push(Arc::clone(first));
        }
        self.bytes += b.bytes.array.len();
        self.rest.push(Arc::clone(next));
        true
    }

    /// The row in the pieces in which it is sent. None where there is only one message.
    pub fn into_parts(self) -> Option<Vec<Part>> {
        let parts = || self.rest.iter().flat_map(|publication| &publication.parts);
        let first = parts().next()?;
        let mut array = Vec::with_capacity(self.bytes);
        let mut push = Vec::with_capacity(self.bytes);
        for part in parts() {
            let start = push.len();
            array.extend_from_slice(&part.bytes.array);
            push.extend_from_slice(&part.bytes.array);
            push[start] = b'>';
        }
        let bytes = Encoded { array: array.into(), push: OnceLock::from(Arc::from(push)) };
        let all = Part { bytes, ..first.same(0, first.number) };
        let later = parts().skip(1).map(|part| part.same(first.number, part.number));
        Some(std::iter::once(all).chain(later).collect())
    }
}

impl Part {
    fn same(&self, from: u64, number: u64) -> Self {
        Self {
            kind: self.kind,
            channel: Arc::clone(&self.channel),
            from,
            number,
            bytes: self.bytes.clone(),
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
            parts.push(Part { kind, channel: Arc::clone(channel), from: 0, number, bytes });
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
        worker.publish(reactor, &publication);
    }
    receivers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::channels::{Channels, Place};

    #[test]
    fn a_message_is_an_array_or_a_push() {
        let encoded = Encoded::new(&[b"message", b"c", b""]);
        assert_eq!(&**encoded.of(Protocol::Resp2), b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n");
        assert_eq!(&**encoded.of(Protocol::Resp3), b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n");
        let once = encoded.of(Protocol::Resp3).as_ptr();
        assert_eq!(encoded.of(Protocol::Resp3).as_ptr(), once);
    }

    #[test]
    fn a_row_goes_out_in_one_piece_but_to_those_who_came_between() {
        let channels = Channels::new(1);
        let place = |token| Place { reactor: 0, token };
        let channel = channels.join(b"c", place(1));
        let message = |text: &[u8]| {
            let number = channel.publish(&mut Reactors::default()).unwrap().number;
            let bytes = Encoded::new(&[b"message", b"c", text]);
            let part =
                Part { kind: Kind::Channel, channel: Arc::clone(&channel), from: 0, number, bytes };
            Arc::new(Publication { parts: [part].into(), publisher: None })
        };
        let first = message(b"1");
        channels.join(b"c", place(2));
        let second = message(b"2");
        let third = message(b"3");
        let mut row = Row::new(&first);
        assert!(row.join(&first, &second) && row.join(&first, &third));
        channels.join(b"c", place(3));

        let mut got = [(); 4].map(|()| String::new());
        for part in row.into_parts().unwrap() {
            let mut tokens = Vec::new();
            part.receivers(0, &mut tokens);
            for token in tokens {
                got[token].push_str(str::from_utf8(part.bytes(Protocol::Resp3)).unwrap());
            }
        }
        let text = |number: &u32| format!(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n{number}\r\n");
        let texts = |numbers: &[u32]| numbers.iter().map(text).collect::<String>();
        assert_eq!(got, [texts(&[]), texts(&[1, 2, 3]), texts(&[2, 3]), texts(&[])]);
        assert!(Row::new(&first).into_parts().is_none());
    }
}
