//! Which clients CLIENT LIST and CLIENT KILL mean: Redis's filters, and Valkey's beside them.

use std::sync::atomic::Ordering;

use carnelian_commands::{CommandError, args};
use carnelian_resp::number::parse_i64;

use super::list::letters;
use crate::clients::{ClientShared, bits};
use crate::database::Database;
use crate::session::ClientClass;

/// All letters that flags of clients may have.
const LETTERS: &[u8] = b"OSMPxbtRBducAUreTNEi";

/// What kind of client is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Primary,
    Client(ClientClass),
}

impl Kind {
    pub(super) fn parse(word: &[u8]) -> Result<Self, CommandError> {
        let known = [
            ("normal", Self::Client(ClientClass::Normal)),
            ("master", Self::Primary),
            ("primary", Self::Primary),
            ("replica", Self::Client(ClientClass::Replica)),
            ("slave", Self::Client(ClientClass::Replica)),
            ("pubsub", Self::Client(ClientClass::PubSub)),
        ];
        let found = known.into_iter().find(|(name, _)| args::is(word, name)).map(|(_, kind)| kind);
        found.ok_or_else(|| CommandError::quoting("ERR Unknown client type '", word, "'"))
    }

    fn matches(self, client: &ClientShared) -> bool {
        let is_primary = client.has(bits::PRIMARY);
        let class = match () {
            () if client.has(bits::REPLICA) => ClientClass::Replica,
            () if client.is_subscriber() => ClientClass::PubSub,
            () => ClientClass::Normal,
        };
        if is_primary { self == Self::Primary } else { self == Self::Client(class) }
    }
}

/// One thing that must hold of a client.
#[derive(Debug, PartialEq)]
enum Test {
    Ids(Vec<u64>),
    Kind(Kind),
    User(Box<[u8]>),
    Address(Box<[u8]>),
    LocalAddress(Box<[u8]>),
    Ip(Box<[u8]>),
    /// At least so many seconds old.
    Age(u64),
    /// Idle for at least so many seconds.
    Idle(u64),
    Flags(Box<[u8]>),
    Name(Box<[u8]>),
    LibraryName(Box<[u8]>),
    LibraryVersion(Box<[u8]>),
    Db(u32),
    Capabilities(Box<[u8]>),
}

impl Test {
    fn holds(&self, client: &ClientShared, now_ms: u64) -> bool {
        let seconds = |since_ms: u64| now_ms.saturating_sub(since_ms) / 1000;
        match self {
            Self::Ids(ids) => ids.contains(&client.id),
            Self::Kind(kind) => kind.matches(client),
            Self::User(user) => {
                let names = client.names.lock();
                let own: &[u8] = if names.user.is_empty() { b"default" } else { &names.user };
                own == &**user
            }
            Self::Address(address) => **address == *client.address.as_bytes(),
            Self::LocalAddress(address) => **address == *client.local_address.as_bytes(),
            Self::Ip(ip) => {
                let host = client.address.rsplit_once(':').map_or("", |(host, _)| host);
                let host =
                    host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
                **ip == *host.as_bytes()
            }
            Self::Age(min) => *min <= seconds(client.created_ms),
            Self::Idle(min) => *min <= seconds(client.last_interaction_ms.load(Ordering::Relaxed)),
            Self::Flags(wanted) => {
                let letters = letters(client);
                wanted.iter().all(|letter| letters.as_bytes().contains(letter))
            }
            Self::Name(name) => client.names.lock().name == *name,
            Self::LibraryName(name) => client.names.lock().library_name == *name,
            Self::LibraryVersion(version) => client.names.lock().library_version == *version,
            Self::Db(db) => client.db.load(Ordering::Relaxed) == *db,
            Self::Capabilities(_) => client.has(bits::CAPA_REDIRECT),
        }
    }
}

/// Which clients are meant: every test must have the result beside it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Filter {
    tests: Vec<(Test, bool)>,
    pub(super) skips_me: Option<bool>,
}

impl Filter {
    pub(super) fn of_ids(ids: Vec<u64>) -> Self {
        Self { tests: vec![(Test::Ids(ids), true)], skips_me: None }
    }

    pub(super) fn parse(words: &[&[u8]], database: &Database) -> Result<Self, CommandError> {
        let mut filter = Self::default();
        let mut words = words.iter().copied().peekable();
        while let Some(option) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if args::is(option, "SKIPME") {
                filter.skips_me = match () {
                    () if args::is(value, "YES") => Some(true),
                    () if args::is(value, "NO") => Some(false),
                    () => return Err(CommandError::Syntax),
                };
                continue;
            }
            let (name, wanted) = match option.split_at_checked(4) {
                Some((not, name)) if args::is(not, "NOT-") => (name, false),
                _ => (option, true),
            };
            if args::is(name, "ID") {
                let mut ids = vec![id(value)?];
                // More of them may follow, up to the first word that is none.
                while let Some(more) = words.next_if(|word| parse_i64(word).is_some()) {
                    ids.push(id(more)?);
                }
                filter.put(Test::Ids(ids), wanted);
                continue;
            }
            let test = test(name, value, database)?.ok_or(CommandError::Syntax)?;
            if !wanted && matches!(test, Test::Age(_) | Test::Idle(_)) {
                return Err(CommandError::Syntax);
            }
            filter.put(test, wanted);
        }
        Ok(filter)
    }

    /// Of one kind of test the last holds.
    fn put(&mut self, test: Test, wanted: bool) {
        let kind = std::mem::discriminant(&test);
        self.tests.retain(|(known, as_wanted)| {
            std::mem::discriminant(known) != kind || *as_wanted != wanted
        });
        self.tests.push((test, wanted));
    }

    pub(super) fn matches(&self, client: &ClientShared, now_ms: u64) -> bool {
        self.tests.iter().all(|(test, wanted)| test.holds(client, now_ms) == *wanted)
    }
}

fn test(name: &[u8], value: &[u8], database: &Database) -> Result<Option<Test>, CommandError> {
    let test = match name.to_ascii_uppercase().as_slice() {
        b"TYPE" => Test::Kind(Kind::parse(value)?),
        b"ADDR" => Test::Address(value.into()),
        b"LADDR" => Test::LocalAddress(value.into()),
        b"IP" => Test::Ip(value.into()),
        b"USER" => Test::User(known_user(value, database)?),
        b"MAXAGE" => Test::Age(positive(value, "maxage")?),
        b"IDLE" => Test::Idle(positive(value, "idle")?),
        b"FLAGS" => Test::Flags(letters_of(value, LETTERS, "flags")?),
        b"NAME" => Test::Name(value.into()),
        b"LIB-NAME" => Test::LibraryName(value.into()),
        b"LIB-VER" => Test::LibraryVersion(value.into()),
        b"CAPA" => Test::Capabilities(letters_of(value, b"r", "capa")?),
        b"DB" => {
            let db = parse_i64(value)
                .and_then(|db| i32::try_from(db).ok())
                .ok_or_else(|| CommandError::text("ERR DB is not an integer or out of range"))?;
            let databases = database.keyspace.databases();
            match u32::try_from(db) {
                Ok(db) if (db as usize) < databases => Test::Db(db),
                _ => {
                    return Err(CommandError::text(format!(
                        "ERR DB number should be between 0 and {}",
                        databases.saturating_sub(1)
                    )));
                }
            }
        }
        _ => return Ok(None),
    };
    Ok(Some(test))
}

fn known_user(name: &[u8], database: &Database) -> Result<Box<[u8]>, CommandError> {
    match database.acl.find(name) {
        Some(_) => Ok(name.into()),
        None => Err(CommandError::quoting("ERR No such user '", name, "'")),
    }
}

fn id(word: &[u8]) -> Result<u64, CommandError> {
    let id = parse_i64(word).and_then(|id| u64::try_from(id).ok()).filter(|&id| id != 0);
    id.ok_or_else(|| CommandError::text("ERR client-id should be greater than 0"))
}

fn positive(word: &[u8], name: &str) -> Result<u64, CommandError> {
    let number = parse_i64(word).ok_or_else(|| {
        CommandError::text(format!("ERR {name} is not an integer or out of range"))
    })?;
    u64::try_from(number)
        .ok()
        .filter(|&number| number != 0)
        .ok_or_else(|| CommandError::text(format!("ERR {name} should be greater than 0")))
}

fn letters_of(word: &[u8], known: &[u8], name: &str) -> Result<Box<[u8]>, CommandError> {
    if word.iter().all(|letter| known.contains(letter)) {
        return Ok(word.into());
    }
    let before = format!("ERR Unknown {name} found in the provided filter: ");
    Err(CommandError::quoting(&before, word, ""))
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use super::*;
    use crate::testing::Bench;

    #[test]
    fn filters_are_read_as_redis_and_valkey_do() {
        let bench = Bench::start(Config::default());
        let parse = |text: &str| {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            Filter::parse(&words, &bench.database)
        };
        let ids = parse("id 1 2 type normal").unwrap();
        assert_eq!(ids.tests[0], (Test::Ids(vec![1, 2]), true));
        assert_eq!(ids.tests.len(), 2);
        assert_eq!(parse("NOT-ID 7").unwrap().tests, [(Test::Ids(vec![7]), false)]);
        assert_eq!(parse("name a name b").unwrap().tests, [(Test::Name((*b"b").into()), true)]);
        for bad in ["id 1 x", "id", "not-maxage 1", "not-skipme yes", "foo 1", "skipme maybe"] {
            assert_eq!(parse(bad), Err(CommandError::Syntax), "{bad}");
        }
        for (bad, text) in [
            ("id 0", "ERR client-id should be greater than 0"),
            ("maxage x", "ERR maxage is not an integer or out of range"),
            ("idle 0", "ERR idle should be greater than 0"),
            ("flags zz", "ERR Unknown flags found in the provided filter: zz"),
            ("db 99", "ERR DB number should be between 0 and 15"),
            ("user nobody", "ERR No such user 'nobody'"),
            ("type foo", "ERR Unknown client type 'foo'"),
        ] {
            assert_eq!(parse(bad).unwrap_err().to_string(), text);
        }
    }
}
