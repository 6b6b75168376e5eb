//! ACL LOG: what was refused lately, for whoever has to find out why a client does not get on.

use std::collections::VecDeque;

use super::check::Reason;

/// Refusals alike that come within this time count as one.
const ALIKE_MS: u64 = 60_000;

/// Records that are looked at for one alike.
const ALIKE_LOOKED_AT: usize = 10;

/// Where a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    TopLevel,
    Multi,
    Lua,
}

impl Origin {
    pub fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

impl Reason {
    /// The word ACL LOG has for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Database => "database",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
            Self::Certificate => "tls-cert",
        }
    }
}

/// Refusals of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: u64,
    pub count: u64,
    pub reason: Reason,
    pub origin: Origin,
    pub object: Box<[u8]>,
    pub user: Box<[u8]>,
    /// The latest client, as CLIENT LIST describes it.
    pub client: Vec<u8>,
    pub created_ms: u64,
    pub updated_ms: u64,
}

/// What is new about a refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reason: Reason,
    pub origin: Origin,
    pub object: Box<[u8]>,
    pub user: Box<[u8]>,
    pub client: Vec<u8>,
    pub now_ms: u64,
}

/// The records of one database, the latest first.
#[derive(Debug, Default)]
pub struct Log {
    next_id: u64,
    records: VecDeque<Record>,
}

impl Log {
    /// Takes a refusal in; beyond `most` records the oldest go.
    pub fn push(&mut self, refusal: Refusal, most: usize) {
        let Refusal { reason, origin, object, user, client, now_ms } = refusal;
        if most == 0 {
            self.records.clear();
            return;
        }
        let is_alike = |record: &Record| {
            record.reason == reason
                && record.origin == origin
                && record.updated_ms.abs_diff(now_ms) <= ALIKE_MS
                && record.object == object
                && record.user == user
        };
        let alike = self.records.iter().take(ALIKE_LOOKED_AT).position(is_alike);
        let record = match alike.and_then(|index| self.records.remove(index)) {
            Some(alike) => Record { count: alike.count + 1, client, updated_ms: now_ms, ..alike },
            None => {
                let id = self.next_id;
                self.next_id += 1;
                let (created_ms, updated_ms) = (now_ms, now_ms);
                Record {
                    id,
                    count: 1,
                    reason,
                    origin,
                    object,
                    user,
                    client,
                    created_ms,
                    updated_ms,
                }
            }
        };
        self.records.push_front(record);
        self.records.truncate(most);
    }

    pub fn reset(&mut self) {
        self.records.clear();
    }

    /// The latest first.
    pub fn latest(&self) -> impl ExactSizeIterator<Item = &Record> {
        self.records.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(object: &str, now_ms: u64) -> Refusal {
        Refusal {
            reason: Reason::Key,
            origin: Origin::TopLevel,
            object: object.as_bytes().into(),
            user: b"bob".as_slice().into(),
            client: now_ms.to_string().into_bytes(),
            now_ms,
        }
    }

    fn counts(log: &Log) -> Vec<(u64, u64)> {
        log.latest().map(|record| (record.id, record.count)).collect()
    }

    #[test]
    fn refusals_alike_are_one_record_for_a_minute() {
        let mut log = Log::default();
        log.push(refusal("a", 1), 10);
        log.push(refusal("b", 2), 10);
        log.push(refusal("a", 60_001), 10);
        assert_eq!(counts(&log), [(0, 2), (1, 1)]);
        assert_eq!(log.latest().next().map(|it| (it.created_ms, it.updated_ms)), Some((1, 60_001)));
        assert_eq!(log.latest().next().map(|it| it.client.clone()), Some(b"60001".to_vec()));
        log.push(refusal("b", 60_003), 10);
        assert_eq!(counts(&log), [(2, 1), (0, 2), (1, 1)]);
        log.push(Refusal { origin: Origin::Lua, ..refusal("b", 60_004) }, 10);
        log.push(Refusal { reason: Reason::Auth, ..refusal("b", 60_004) }, 10);
        log.push(Refusal { user: b"al".as_slice().into(), ..refusal("b", 60_004) }, 10);
        assert_eq!(log.latest().len(), 6);
    }

    #[test]
    fn only_the_latest_ten_are_looked_at_and_only_so_many_kept() {
        let mut log = Log::default();
        for object in 0..11 {
            log.push(refusal(&object.to_string(), 1), 100);
        }
        log.push(refusal("0", 1), 100);
        assert_eq!(log.latest().len(), 12);
        log.push(refusal("x", 1), 3);
        assert_eq!(counts(&log), [(12, 1), (11, 1), (10, 1)]);
        log.push(refusal("y", 1), 0);
        assert_eq!(log.latest().len(), 0);
    }
}
