//! Digests of the data, as DEBUG DIGEST and DEBUG DIGEST-VALUE show them.
//!
//! They depend on the data alone, not on encodings or the order of unordered things, and are those
//! Redis computes for the same data: test suites compare servers, and a server before and after a
//! restart, by them.

use carnelian_keyspace::{Db, Kind, Value};
use carnelian_structs::entry::EntryRef;
use carnelian_structs::listpack::Element;
use carnelian_structs::stream::{Stream, StreamId};
use sha1::{Digest as _, Sha1};

/// The digest of some data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 20]);

impl Digest {
    /// 40 hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> String {
        self.0.iter().fold(String::with_capacity(40), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from_digit(nibble.into(), 16).expect("a nibble is a digit"));
            }
            hex
        })
    }

    /// Adds something whose order does not matter.
    fn add(&mut self, data: &[u8]) {
        for (byte, hashed) in self.0.iter_mut().zip(Sha1::digest(data)) {
            *byte ^= hashed;
        }
    }

    /// Adds something after what is there.
    fn mix(&mut self, data: &[u8]) {
        self.add(data);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Adds a value: its type, its content, and whether it expires (not when).
    fn mix_value(&mut self, entry: EntryRef<'_, Value>) {
        self.mix(&type_number(entry.value_kind()).to_be_bytes());
        if let Some(text) = entry.text() {
            text.with_bytes(|bytes| self.mix(bytes));
        } else if let Some(value) = entry.object() {
            self.mix_elements(&value);
        }
        if entry.expiry().is_some() {
            self.add(b"!!expire!!");
        }
    }

    fn mix_elements(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.mix(text),
            Value::List(list) => {
                let (mut elements, mut bytes) = (list.iter(), Vec::new());
                while let Some(element) = elements.next() {
                    self.mix(bytes_of(&element, &mut bytes));
                }
            }
            Value::Set(set) => {
                let mut bytes = Vec::new();
                set.iter().for_each(|member| self.add(bytes_of(&member, &mut bytes)));
            }
            Value::Stream(stream) => self.mix_stream(stream),
            Value::SortedSet(_) => {}
            Value::Hash(hash) => {
                let mut bytes = Vec::new();
                for field in hash.iter() {
                    let mut digest = Self::default();
                    digest.mix(bytes_of(&field.name, &mut bytes));
                    digest.mix(bytes_of(&field.value, &mut bytes));
                    if field.expiry.is_some() {
                        digest.add(b"!!hexpire!!");
                    }
                    self.add(&digest.0);
                }
            }
        }
    }

    fn mix_stream(&mut self, stream: &Stream) {
        for entry in stream.range(StreamId::MIN, StreamId::MAX) {
            self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
            for (field, value) in entry.fields() {
                field.with(|bytes| self.mix(bytes));
                value.with(|bytes| self.mix(bytes));
            }
        }
    }
}

/// The text of an element, written to `bytes`.
fn bytes_of<'b>(element: &Element<'_>, bytes: &'b mut Vec<u8>) -> &'b [u8] {
    bytes.clear();
    element.write_to(bytes);
    bytes
}

/// The number Redis gives a type; 5 is for types of modules.
const fn type_number(kind: Kind) -> u32 {
    match kind {
        Kind::String => 0,
        Kind::List => 1,
        Kind::Set => 2,
        Kind::SortedSet => 3,
        Kind::Hash => 4,
        Kind::Stream => 6,
    }
}

/// The digest of the value at a key; all zeros if there is none. Leaves no trace.
#[must_use]
pub fn of_value(db: &mut Db<'_>, key: &[u8]) -> Digest {
    let mut digest = Digest::default();
    if let Some(entry) = db.look(key) {
        digest.mix_value(entry);
    }
    digest
}

/// The digest of all logical databases. Needs all locks.
#[must_use]
pub fn of_everything(db: &mut Db<'_>) -> Digest {
    let home = db.index();
    let mut total = Digest::default();
    for index in 0..db.databases() {
        db.select(index);
        let mut any = false;
        db.for_each(|entry| {
            if !any {
                any = true;
                total.mix(&(index as u32).to_be_bytes());
            }
            let mut digest = Digest::default();
            digest.mix(entry.key());
            digest.mix_value(entry);
            total.add(&digest.0);
        });
    }
    db.select(home);
    total
}

#[cfg(test)]
mod tests {
    use carnelian_structs::list::{End, List, ListLimits};
    use carnelian_structs::set::{Set, SetLimits};

    use super::*;
    use crate::bench::Bench;
    use crate::call::Call;
    use crate::effect::Effect;
    use crate::error::CommandError;

    #[expect(clippy::unnecessary_wraps, reason = "it is run as a handler")]
    fn show(call: &mut Call<'_>) -> Result<Effect, CommandError> {
        let digest = match call.args.get(1) {
            Some(key) => of_value(&mut call.db, key),
            None => of_everything(&mut call.db),
        };
        call.reply.simple(&digest.to_hex());
        Ok(Effect::None)
    }

    #[test]
    fn digests_are_those_of_redis() {
        let mut bench = Bench::new();
        assert_eq!(bench.run(show, "D").1, format!("+{}\r\n", "0".repeat(40)));
        assert_eq!(bench.run(show, "D missing").1, format!("+{}\r\n", "0".repeat(40)));
        bench.expect("SET a 5 EX 100", "+OK");
        let of_a = "+1e47b7737b7537b3113b09ca0319a5fd0e2bf48d\r\n";
        assert_eq!(bench.run(show, "D a").1, of_a);
        assert_eq!(bench.run(fill, "FILL l s").0, Effect::Verbatim);
        bench.expect("HSET h f v n 1", ":2");
        for (request, digest) in [
            ("D l", "09eb1fc9381ee92790d59930ab462945f8cd948b"),
            ("D s", "e8f32bbb1ad9bf537c8867de4f19fec9e001296d"),
            ("D h", "ad9a818d75d51dd3c55d5905f22259a91bbc4b14"),
        ] {
            assert_eq!(bench.run(show, request).1, format!("+{digest}\r\n"), "{request}");
        }
        bench.expect("HPEXPIRE h 1000000 FIELDS 1 f", "*1 :1");
        let of_volatile = "+49e57ec09a895dbae0a95d9a1e5315e61ebfc2a1\r\n";
        assert_eq!(bench.run(show, "D h").1, of_volatile);
    }

    /// Makes a list and a set of a, b and a number.
    fn fill(call: &mut Call<'_>) -> Result<Effect, CommandError> {
        let mut list = List::new();
        list.push(End::Back, &[b"a", b"b", b"3"], ListLimits::default());
        call.db.put(call.args[1], list, None);
        let limits = SetLimits { intset_entries: 9, listpack_entries: 9, listpack_value: 9 };
        let mut set = Set::for_member(b"1", 1, limits);
        for member in [b"1", b"a", b"b"] {
            set.insert(member, limits);
        }
        call.db.put(call.args[2], set, None);
        Ok(Effect::Verbatim)
    }

    #[test]
    fn the_digest_of_everything_knows_the_database() {
        let mut bench = Bench::new();
        bench.expect("SET a 5", "+OK");
        let before = bench.run(show, "D").1;
        bench.expect("MOVE a 2", ":1");
        assert_ne!(bench.run(show, "D").1, before);
    }
}
