//! What a connection's operations are, and what they leave.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};

use crate::client::Client;
use crate::reply::Reply;
use crate::transport::Transport;

/// Keys that a connection sets in turn.
const SLOTS: usize = 200;
/// Elements that its list keeps.
const LIST: usize = 50;
/// Logical databases that the connections share.
pub const DATABASES: usize = 4;

/// One operation of one connection. Its number tells what it is; the round tells it from those of the
/// same number that a crash has undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub round: u32,
    pub number: u64,
}

enum Kind {
    Set,
    SetWithExpiry,
    /// Two writes of a script.
    Script,
    /// Two equal writes of a transaction.
    Pair,
    /// An element is added, and those above the limit go.
    Push,
    /// Removes a key, and notes that.
    Remove,
}

impl Stamp {
    fn kind(self) -> Kind {
        match self.number % 8 {
            0..=2 => Kind::Set,
            3 => Kind::SetWithExpiry,
            4 => Kind::Script,
            5 => Kind::Pair,
            6 => Kind::Push,
            _ => Kind::Remove,
        }
    }

    fn slot(self) -> usize {
        let turn = match self.kind() {
            Kind::Remove => self.number.wrapping_mul(7),
            _ => self.number,
        };
        (turn % SLOTS as u64) as usize
    }

    /// Some are long, so that writes are torn.
    fn padding(self) -> usize {
        match self.number % 97 {
            0 => 30_000,
            rest => rest as usize,
        }
    }

    fn text(self) -> Vec<u8> {
        let mut text = format!("{}:{}:", self.round, self.number).into_bytes();
        text.resize(text.len() + self.padding(), b'x');
        text
    }

    fn read(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.splitn(3, ':');
        let round = words.next()?.parse().ok()?;
        let stamp = Self { round, number: words.next()?.parse().ok()? };
        (stamp.text() == text).then_some(stamp)
    }

    /// The requests of the operation; its outcome is the last one's reply.
    pub fn requests(self, connection: usize) -> Vec<Vec<Vec<u8>>> {
        let value = || self.text();
        let slot = || slot_key(connection, self.slot());
        let key = |name: char| format!("{name}:{connection}").into_bytes();
        let word = |word: &str| word.as_bytes().to_vec();
        let transaction =
            |first, second| vec![vec![word("MULTI")], first, second, vec![word("EXEC")]];
        match self.kind() {
            Kind::Set => vec![vec![word("SET"), slot(), value()]],
            Kind::SetWithExpiry => {
                vec![vec![word("SET"), slot(), value(), word("EX"), word("1000000")]]
            }
            Kind::Script => {
                let script = "redis.call('SET', KEYS[1], ARGV[1]) \
                    return redis.call('INCR', KEYS[2])";
                vec![vec![word("EVAL"), word(script), word("2"), key('s'), key('i'), value()]]
            }
            Kind::Pair => transaction(
                vec![word("SET"), key('a'), value()],
                vec![word("SET"), key('b'), value()],
            ),
            Kind::Push => transaction(
                vec![word("RPUSH"), key('l'), value()],
                vec![word("LTRIM"), key('l'), format!("-{LIST}").into_bytes(), word("-1")],
            ),
            Kind::Remove => {
                transaction(vec![word("DEL"), slot()], vec![word("SET"), key('d'), value()])
            }
        }
    }

    /// About how many bytes it is in an append-only file, at the least.
    pub fn bytes(self) -> u64 {
        let values = if matches!(self.kind(), Kind::Pair | Kind::Script) { 2 } else { 1 };
        20 + values * self.padding() as u64
    }
}

fn slot_key(connection: usize, slot: usize) -> Vec<u8> {
    format!("k:{connection}:{slot}").into_bytes()
}

/// What a connection's operations have left.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    slots: Vec<Option<Stamp>>,
    script: Option<Stamp>,
    scripts: u64,
    pair: Option<Stamp>,
    list: VecDeque<Stamp>,
    removal: Option<Stamp>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            slots: vec![None; SLOTS],
            script: None,
            scripts: 0,
            pair: None,
            list: VecDeque::new(),
            removal: None,
        }
    }
}

impl State {
    pub fn apply(&mut self, operation: Stamp) {
        match operation.kind() {
            Kind::Set | Kind::SetWithExpiry => self.slots[operation.slot()] = Some(operation),
            Kind::Script => {
                self.script = Some(operation);
                self.scripts += 1;
            }
            Kind::Pair => self.pair = Some(operation),
            Kind::Push => {
                self.list.push_back(operation);
                if LIST < self.list.len() {
                    self.list.pop_front();
                }
            }
            Kind::Remove => {
                self.slots[operation.slot()] = None;
                self.removal = Some(operation);
            }
        }
    }

    /// The number of the last operation; 0 if there was none.
    pub fn latest(&self) -> u64 {
        let slots = self.slots.iter().flatten();
        let others = [self.script, self.pair, self.removal, self.list.back().copied()];
        let stamps = slots.copied().chain(others.into_iter().flatten());
        stamps.map(|stamp| stamp.number).max().unwrap_or(0)
    }

    fn keys(&self) -> usize {
        self.slots.iter().flatten().count()
            + 2 * usize::from(self.script.is_some())
            + 2 * usize::from(self.pair.is_some())
            + usize::from(!self.list.is_empty())
            + usize::from(self.removal.is_some())
    }

    fn read(client: &mut Client, connection: usize) -> Result<Self> {
        let stamps = |reply: &Reply| reply.elements().iter().map(stamp).collect::<Result<Vec<_>>>();
        let mut words = vec![b"MGET".to_vec()];
        words.extend((0..SLOTS).map(|slot| slot_key(connection, slot)));
        let slots = stamps(&client.call_words(&words))?;
        let values = client.call(&format!("MGET s:{connection} a:{connection} d:{connection}"));
        let [script, pair, removal] = stamps(&values)?[..] else { bail!("MGET gives {values}") };
        let twin = stamp(&client.call(&format!("GET b:{connection}")))?;
        ensure!(pair == twin, "half of a transaction is there: {pair:?} and {twin:?}");
        let scripts = match client.call(&format!("GET i:{connection}")) {
            reply if reply.is_null() => 0,
            reply => reply.text().parse()?,
        };
        let list = stamps(&client.call(&format!("LRANGE l:{connection} 0 -1")))?;
        let list = list.into_iter().flatten().collect();
        Ok(Self { slots, script, scripts, pair, list, removal })
    }

    /// What there is in one and not in the other, for a report.
    pub fn difference(&self, expected: &Self) -> String {
        let mut lines = Vec::new();
        let mut differ = |name: String, found: String, expected: String| {
            if found != expected {
                lines.push(format!("  {name}: found {found}, expected {expected}"));
            }
        };
        for (slot, (found, expected)) in self.slots.iter().zip(&expected.slots).enumerate() {
            differ(format!("k:{slot}"), format!("{found:?}"), format!("{expected:?}"));
        }
        differ("script".into(), format!("{:?}", self.script), format!("{:?}", expected.script));
        differ("scripts".into(), self.scripts.to_string(), expected.scripts.to_string());
        differ("pair".into(), format!("{:?}", self.pair), format!("{:?}", expected.pair));
        differ("list".into(), format!("{:?}", self.list), format!("{:?}", expected.list));
        differ("removal".into(), format!("{:?}", self.removal), format!("{:?}", expected.removal));
        lines.join("\n")
    }
}

fn stamp(reply: &Reply) -> Result<Option<Stamp>> {
    if reply.is_null() {
        return Ok(None);
    }
    let text = reply.text();
    let start: String = text.chars().take(60).collect();
    let stamp = Stamp::read(text.as_bytes());
    stamp.map(Some).with_context(|| format!("nobody has written {start}.. ({})", text.len()))
}

/// What a server has of each connection, and that it has nothing else.
pub fn read(port: u16, connections: usize) -> Result<Vec<State>> {
    let mut client = Client::over(Transport::tcp(port)?);
    let mut states = Vec::new();
    let mut keys = [0; DATABASES];
    for connection in 0..connections {
        let database = connection % DATABASES;
        client.expect(&format!("SELECT {database}"), "+OK");
        let state = State::read(&mut client, connection)
            .with_context(|| format!("connection {connection}"))?;
        keys[database] += state.keys();
        states.push(state);
    }
    for (database, keys) in keys.into_iter().enumerate() {
        client.expect(&format!("SELECT {database}"), "+OK");
        let found = client.call("DBSIZE").integer();
        ensure!(found == keys as i64, "database {database} has {found} keys, not {keys}");
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_their_operation() {
        for number in [1, 96, 97, 98, u64::MAX] {
            let stamp = Stamp { round: 3, number };
            assert_eq!(Stamp::read(&stamp.text()), Some(stamp));
            assert_eq!(Stamp::read(&[&stamp.text()[..], b"x"].concat()), None);
        }
        assert_eq!(Stamp::read(b"1:2"), None);
        assert_eq!(Stamp::read(b"\xff"), None);
    }

    #[test]
    fn the_latest_operation_is_always_visible() {
        let mut state = State::default();
        assert_eq!((state.latest(), state.keys()), (0, 0));
        for number in 1..2000 {
            state.apply(Stamp { round: 1, number });
            assert_eq!(state.latest(), number);
        }
        assert_eq!(state.list.len(), LIST);
        assert_eq!(state.scripts, 250);
    }
}
