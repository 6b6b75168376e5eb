//! The little language in which scripts say what they expect.
//!
//! It is written in RESP3 terms and means the same over RESP2, where maps and sets arrive as arrays,
//! doubles as strings and booleans as integers, so that one script serves both.
//!
//! ```text
//! +OK   -ERR text   -ERR text...  (begins with)   :1   word   "two words\r\n"   nil   ?  (anything)
//! [a b :3]   {key value}  (any order)   ~[a b]  (a set, any order)   >[a b]  (a push)
//! ,1.5   #t   (123   =txt:text   %[a b]  (an array in any order, in both protocols)
//! ```

use anyhow::{Context, Result, bail};

use crate::reply::{Protocol, Reply};

/// What a reply has to look like.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Expected {
    Anything,
    Null,
    Starts(u8, Vec<u8>),
    Exactly(Reply),
    Array(Vec<Self>),
    Unordered(Vec<Self>),
    Set(Vec<Self>),
    Push(Vec<Self>),
    Map(Vec<(Self, Self)>),
}

/// Whether `reply` is what `text` describes, over `protocol`.
pub fn matches(text: &str, reply: &Reply, protocol: Protocol) -> Result<bool> {
    let expected = parse(text).with_context(|| format!("in the expectation {text:?}"))?;
    Ok(expected.matches(reply, protocol))
}

impl Expected {
    fn matches(&self, reply: &Reply, protocol: Protocol) -> bool {
        match self {
            Self::Anything => true,
            Self::Null => match protocol {
                Protocol::Resp2 => matches!(reply, Reply::NullBulk | Reply::NullArray),
                Protocol::Resp3 => *reply == Reply::Null,
            },
            Self::Starts(kind, prefix) => match (kind, reply) {
                (b'+', Reply::Status(text)) | (b'-', Reply::Error(text)) => {
                    text.starts_with(prefix)
                }
                _ => false,
            },
            Self::Exactly(wanted) => exactly(wanted, reply, protocol),
            Self::Array(items) => match reply {
                Reply::Array(found) => in_order(items, found, protocol),
                _ => false,
            },
            Self::Push(items) => match (reply, protocol) {
                (Reply::Push(found), Protocol::Resp3) => in_order(items, found, protocol),
                (Reply::Array(found), Protocol::Resp2) => in_order(items, found, protocol),
                _ => false,
            },
            Self::Unordered(items) => match reply {
                Reply::Array(found) => any_order(items, found, protocol),
                _ => false,
            },
            Self::Set(items) => match (reply, protocol) {
                (Reply::Set(found), Protocol::Resp3) => any_order(items, found, protocol),
                (Reply::Array(found), Protocol::Resp2) => any_order(items, found, protocol),
                _ => false,
            },
            Self::Map(pairs) => match (reply, protocol) {
                (Reply::Map(found), Protocol::Resp3) => pairs_match(
                    pairs,
                    &found.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(),
                    protocol,
                ),
                (Reply::Array(found), Protocol::Resp2) if found.len() % 2 == 0 => {
                    let found = found.chunks(2).map(|pair| (&pair[0], &pair[1]));
                    pairs_match(pairs, &found.collect::<Vec<_>>(), protocol)
                }
                _ => false,
            },
        }
    }
}

fn exactly(wanted: &Reply, reply: &Reply, protocol: Protocol) -> bool {
    if protocol == Protocol::Resp3 {
        return wanted == reply;
    }
    match (wanted, reply) {
        (Reply::Double(text) | Reply::BigNumber(text), Reply::Bulk(found)) => text == found,
        (Reply::Boolean(value), Reply::Integer(found)) => i64::from(*value) == *found,
        (Reply::Verbatim(text), Reply::Bulk(found)) => text.get(4..) == Some(found),
        _ => wanted == reply,
    }
}

fn in_order(items: &[Expected], found: &[Reply], protocol: Protocol) -> bool {
    items.len() == found.len()
        && items.iter().zip(found).all(|(item, reply)| item.matches(reply, protocol))
}

fn any_order(items: &[Expected], found: &[Reply], protocol: Protocol) -> bool {
    let mut left: Vec<&Reply> = found.iter().collect();
    items.len() == found.len()
        && items.iter().all(|item| {
            let place = left.iter().position(|reply| item.matches(reply, protocol));
            place.map(|place| left.swap_remove(place)).is_some()
        })
}

fn pairs_match(
    pairs: &[(Expected, Expected)],
    found: &[(&Reply, &Reply)],
    protocol: Protocol,
) -> bool {
    let mut left = found.to_vec();
    pairs.len() == found.len()
        && pairs.iter().all(|(key, value)| {
            let place = left
                .iter()
                .position(|(k, v)| key.matches(k, protocol) && value.matches(v, protocol));
            place.map(|place| left.swap_remove(place)).is_some()
        })
}

fn parse(text: &str) -> Result<Expected> {
    let text = text.trim_start();
    // A status or error on its own runs to the end of the line: their texts have spaces.
    if let Some(&kind @ (b'+' | b'-')) = text.as_bytes().first()
        && !text[1..].starts_with(|c: char| c.is_ascii_digit())
    {
        return Ok(line(kind, &text[1..]));
    }
    let mut parser = Parser { rest: text };
    let expected = parser.item()?;
    if !parser.rest.trim().is_empty() {
        bail!("more than one reply: {:?}", parser.rest);
    }
    Ok(expected)
}

fn line(kind: u8, text: &str) -> Expected {
    match text.strip_suffix("...") {
        Some(prefix) => Expected::Starts(kind, prefix.as_bytes().to_vec()),
        None if kind == b'+' => Expected::Exactly(Reply::Status(text.as_bytes().to_vec())),
        None => Expected::Exactly(Reply::Error(text.as_bytes().to_vec())),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn item(&mut self) -> Result<Expected> {
        self.rest = self.rest.trim_start();
        let rest = self.rest;
        if let Some(after) = rest.strip_prefix("~[") {
            self.rest = after;
            return Ok(Expected::Set(self.until(']')?));
        }
        if let Some(after) = rest.strip_prefix(">[") {
            self.rest = after;
            return Ok(Expected::Push(self.until(']')?));
        }
        if let Some(after) = rest.strip_prefix("%[") {
            self.rest = after;
            return Ok(Expected::Unordered(self.until(']')?));
        }
        if let Some(after) = rest.strip_prefix('[') {
            self.rest = after;
            return Ok(Expected::Array(self.until(']')?));
        }
        if let Some(after) = rest.strip_prefix('{') {
            self.rest = after;
            let mut pairs = Vec::new();
            let mut items = self.until('}')?.into_iter();
            while let Some(key) = items.next() {
                pairs.push((key, items.next().context("a map key without a value")?));
            }
            return Ok(Expected::Map(pairs));
        }
        if rest.starts_with('"') {
            return Ok(Expected::Exactly(Reply::Bulk(self.quoted()?)));
        }
        let end = rest.find([' ', ']', '}']).unwrap_or(rest.len());
        let word = &rest[..end];
        self.rest = &rest[end..];
        let bytes = |text: &str| text.as_bytes().to_vec();
        Ok(match word.as_bytes().first() {
            None => bail!("an item is missing"),
            Some(b':') => Expected::Exactly(Reply::Integer(word[1..].parse()?)),
            Some(b',') => Expected::Exactly(Reply::Double(bytes(&word[1..]))),
            Some(b'(') => Expected::Exactly(Reply::BigNumber(bytes(&word[1..]))),
            Some(b'=') => Expected::Exactly(Reply::Verbatim(bytes(&word[1..]))),
            Some(b'#') => Expected::Exactly(Reply::Boolean(&word[1..] == "t")),
            Some(b'+') => line(b'+', &word[1..]),
            Some(b'-') if !word[1..].starts_with(|c: char| c.is_ascii_digit() || c == 'i') => {
                line(b'-', &word[1..])
            }
            _ if word == "nil" => Expected::Null,
            _ if word == "?" => Expected::Anything,
            _ => Expected::Exactly(Reply::Bulk(bytes(word))),
        })
    }

    fn until(&mut self, close: char) -> Result<Vec<Expected>> {
        let mut items = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(after) = self.rest.strip_prefix(close) {
                self.rest = after;
                return Ok(items);
            }
            items.push(self.item()?);
        }
    }

    fn quoted(&mut self) -> Result<Vec<u8>> {
        let (content, length) = crate::client::quoted(self.rest.as_bytes())?;
        self.rest = &self.rest[length..];
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> Reply {
        Reply::parse(bytes.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn one_expectation_serves_both_protocols() {
        let text = "{a ,1.5 b #t}";
        let resp3 = read("%2\r\n$1\r\nb\r\n#t\r\n$1\r\na\r\n,1.5\r\n");
        let resp2 = read("*4\r\n$1\r\na\r\n$3\r\n1.5\r\n$1\r\nb\r\n:1\r\n");
        assert!(matches(text, &resp3, Protocol::Resp3).unwrap());
        assert!(matches(text, &resp2, Protocol::Resp2).unwrap());
        assert!(!matches(text, &resp2, Protocol::Resp3).unwrap());
    }

    #[test]
    fn errors_match_whole_or_by_their_beginning() {
        let reply = read("-ERR no such key\r\n");
        assert!(matches("-ERR no such key", &reply, Protocol::Resp2).unwrap());
        assert!(matches("-ERR no...", &reply, Protocol::Resp2).unwrap());
        assert!(!matches("-ERR no", &reply, Protocol::Resp2).unwrap());
    }

    #[test]
    fn sets_match_in_any_order_and_nothing_else_does() {
        let reply = read("*2\r\n$1\r\na\r\n$1\r\nb\r\n");
        assert!(matches("~[b a]", &reply, Protocol::Resp2).unwrap());
        assert!(matches("%[b a]", &reply, Protocol::Resp2).unwrap());
        assert!(!matches("[b a]", &reply, Protocol::Resp2).unwrap());
    }
}
