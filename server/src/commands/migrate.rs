//! MIGRATE: keys go to another server.
//!
//! A thread of its own speaks to that server, while the client waits and everybody else goes on. So a key
//! may change meanwhile: it is removed here only if it is still what the other server has been given;
//! else it is sent once more.

mod sockets;

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnelian_commands::{
    Begin, Categories, CommandError, Effect, Find, Flags, Group, KeyFlags, KeySpec, Wait, args,
};
use carnelian_keyspace::{Db, EventClass, Hold, Limits, SegmentSet, segment_of};
use carnelian_persistence::rdb::dump::dump;

use crate::blocking::{self, Waiter};
use crate::commands::{Context, Reach, command};
use crate::database::Database;
use crate::dispatch::{self, Nesting, Vectors};
use crate::mailbox::Message;
use crate::registry::ServerCommand;
use crate::server::Server;
use crate::session::{ReplyMode, Worker};

pub use sockets::Sockets;
use sockets::{Channel, Target};

const KEY: KeyFlags = KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::DELETE);

/// How long a script that has run for too long is given until the keys are looked at again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// No reply that belongs here is longer.
const REPLY_BYTES_MAX: u64 = 64 << 10;

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    group: Group::Generic,
    complexity: "That of DUMP and DEL here and of RESTORE there, for each key",
    categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
    keys: &[
        KeySpec::range(KEY, 3, 0, 1),
        KeySpec {
            flags: KEY.union(KeyFlags::INCOMPLETE),
            begin: Begin::Keyword { keyword: "KEYS", from: -2 },
            find: Find::Range { last: -1, step: 1, limit: 0 },
        },
    ],
    tips: &["nondeterministic_output"],
    ..command(
        "migrate",
        "Moves keys to another server.",
        "2.6.0",
        -6,
        Flags::MOVABLEKEYS.union(Flags::WRITE),
        migrate,
    )
}];

/// What is asked for.
struct Plan {
    target: Target,
    db: i64,
    timeout: Duration,
    copies: bool,
    replaces: bool,
}

/// A key as it is sent; without a value, it is to be removed there.
struct Packed {
    key: Box<[u8]>,
    value: Option<(Vec<u8>, Option<u64>)>,
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password]
/// [KEYS key ...]`
fn migrate(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (mut plan, keys) = read(context.args)?;
    // Says how servers are spoken to that keys are moved to, as in Redis.
    plan.target.is_secured = context.database.config().tls_cluster;
    let limits = context.session.settings.environment.limits;
    let now_ms = context.worker.clock.now_ms();
    let packed: Vec<Packed> = context.with_data(Reach::Keys(&keys), |call| {
        let pack = |key: &&[u8]| pack(&mut call.db, key, &limits);
        keys.iter().map(pack).filter(|packed| packed.value.is_some()).collect()
    });
    if packed.is_empty() {
        context.reply.simple("NOKEY");
        return Ok(Effect::None);
    }
    let is_alone = context.nesting == Nesting::Nothing;
    if !is_alone || context.session.reply != ReplyMode::On {
        let (moved, result) = send(context.database, &plan, &packed, now_ms);
        if !plan.copies {
            context.with_data(Reach::Keys(&keys), |call| {
                for place in moved {
                    remove(&mut call.db, &packed[place].key);
                }
            });
        }
        result.map_err(CommandError::text)?;
        context.reply.ok();
        return Ok(Effect::Verbatim);
    }
    let session = &mut *context.session;
    let waiter = Waiter::enter(session, context.entry.id, context.args, Wait::default());
    session.waiter = Some(Arc::clone(&waiter));
    let server = Arc::clone(&context.worker.server);
    let end = Instant::now() + plan.timeout;
    Move { plan, limits, server, waiter, end, result: Ok(()) }.start(packed, now_ms);
    Ok(Effect::None)
}

fn read<'c>(words: &[&'c [u8]]) -> Result<(Plan, Vec<&'c [u8]>), CommandError> {
    let mut keys = vec![words[3]];
    let (mut copies, mut replaces, mut auth) = (false, false, Vec::new());
    let mut at = 6;
    while let Some(word) = words.get(at) {
        let left = words.len() - at - 1;
        if args::is(word, "COPY") {
            copies = true;
        } else if args::is(word, "REPLACE") {
            replaces = true;
        } else if args::is(word, "AUTH") && 1 <= left {
            auth = vec![b"AUTH".to_vec(), words[at + 1].to_vec()];
            at += 1;
        } else if args::is(word, "AUTH2") && 2 <= left {
            auth = vec![b"AUTH".to_vec(), words[at + 1].to_vec(), words[at + 2].to_vec()];
            at += 2;
        } else if args::is(word, "KEYS") {
            if !words[3].is_empty() {
                return Err(CommandError::text(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the \
                     empty string",
                ));
            }
            keys = words[at + 1..].to_vec();
            break;
        } else {
            return Err(CommandError::Syntax);
        }
        at += 1;
    }
    let timeout_ms = args::integer(words[5])?;
    let timeout_ms = u64::try_from(timeout_ms).ok().filter(|&ms| ms != 0).unwrap_or(1000);
    let db = args::integer(words[4])?;
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    // A wait for a day is as good as one for ever.
    let timeout = Duration::from_millis(timeout_ms.min(86_400_000));
    let (host, port) = (text(words[1]), text(words[2]));
    let target = Target { host, port, is_secured: false, auth };
    Ok((Plan { target, db, timeout, copies, replaces }, keys))
}

fn pack(db: &mut Db<'_>, key: &[u8], limits: &Limits) -> Packed {
    let value = db.look(key).map(|entry| (dump(entry, limits), entry.expiry()));
    Packed { key: key.into(), value }
}

fn remove(db: &mut Db<'_>, key: &[u8]) {
    if db.remove(key) {
        db.changes.dirty += 1;
        let index = db.index();
        db.changes.notify(EventClass::Generic, "del", index, key);
        if db.changes.following {
            db.changes.departed.push((index, key.into()));
        }
    }
}

/// A move on its way.
struct Move {
    plan: Plan,
    limits: Limits,
    server: Arc<Server>,
    waiter: Arc<Waiter>,
    end: Instant,
    result: Result<(), String>,
}

impl Move {
    /// Sends keys from a thread of their own.
    fn start(mut self, packed: Vec<Packed>, now_ms: u64) {
        let waiter = Arc::clone(&self.waiter);
        let work = move || {
            let (moved, result) = send(&self.waiter.database, &self.plan, &packed, now_ms);
            if self.result.is_ok() {
                self.result = result;
            }
            if self.plan.copies || moved.is_empty() {
                return self.finish();
            }
            let mut packed: Vec<_> = packed.into_iter().map(Some).collect();
            let moved = moved.into_iter().filter_map(|place| packed[place].take()).collect();
            self.settle_later(moved);
        };
        if std::thread::Builder::new().name("migrate".into()).spawn(work).is_err() {
            waiter.finish(b"-IOERR error or timeout connecting to the client\r\n".to_vec());
        }
    }

    fn settle_later(self, moved: Vec<Packed>) {
        let server = Arc::clone(&self.server);
        let reactor = self.waiter.client.reactor;
        let work = Box::new(move |worker: &mut Worker| self.settle(worker, moved));
        server.mailboxes[reactor].post(Message::Run(work));
    }

    /// Removes here what is there, unless it has changed.
    fn settle(mut self, worker: &mut Worker, moved: Vec<Packed>) {
        let database: Arc<Database> = Arc::clone(&self.waiter.database);
        let keyspace = &database.keyspace;
        let mut wanted = SegmentSet::default();
        moved.iter().for_each(|it| wanted.insert(segment_of(keyspace.hash(&it.key))));
        let Ok(mut access) = keyspace.lock_unless_busy(wanted) else {
            let again = move || {
                std::thread::sleep(BUSY_PAUSE);
                self.settle_later(moved);
            };
            std::thread::spawn(again);
            return;
        };
        let (_, settings) = database.settings();
        let mut scratch = std::mem::take(&mut worker.scratch);
        let Vectors { aftermath, ready, .. } = &mut *scratch;
        let (index, now_ms) = (self.waiter.db.into(), worker.clock.now_ms());
        let held = Hold::Lent(&mut access);
        let mut db = dispatch::open(worker, &database, &settings, index, held, aftermath);
        let mut changed = Vec::new();
        for sent in moved {
            let now = pack(&mut db, &sent.key, &self.limits);
            if now.value == sent.value {
                remove(&mut db, &sent.key);
            } else {
                changed.push(now);
            }
        }
        dispatch::hear(&database, db.changes, ready);
        dispatch::log_departures(&database, db.changes, false);
        worker.counters(&database).dirty.add(db.changes.dirty);
        drop(db);
        dispatch::settle(worker, &database, None, &mut scratch.aftermath);
        worker.scratch = scratch;
        if !worker.scratch.ready.is_empty() {
            blocking::serve(worker, &database);
        }
        if changed.is_empty() {
            self.finish();
        } else if self.end <= Instant::now() {
            let text = "IOERR error or timeout writing to target instance";
            self.result = self.result.and(Err(text.into()));
            self.finish();
        } else {
            // It is there already, as it was before.
            self.plan.replaces = true;
            self.start(changed, now_ms);
        }
    }

    fn finish(self) {
        self.waiter.finish(match &self.result {
            Ok(()) => b"+OK\r\n".to_vec(),
            Err(text) => format!("-{text}\r\n").into_bytes(),
        });
    }
}

/// Sends keys to the other server. Which of them it has taken, and what went wrong.
fn send(
    database: &Database,
    plan: &Plan,
    packed: &[Packed],
    now_ms: u64,
) -> (Vec<usize>, Result<(), String>) {
    let mut moved = Vec::new();
    let result = talk(database, plan, packed, now_ms, &mut moved);
    (moved, result.map_err(|failure| failure.text()))
}

/// Why keys could not be sent.
enum Failure {
    Unreachable,
    /// Also says whether nothing was heard at all, as of a connection that the other server has closed.
    Broken {
        what: &'static str,
        is_stale: bool,
    },
    Refused(String),
}

impl Failure {
    fn text(self) -> String {
        match self {
            Self::Unreachable => "IOERR error or timeout connecting to the client".into(),
            Self::Broken { what, .. } => format!("IOERR error or timeout {what} target instance"),
            Self::Refused(error) => format!("ERR Target instance replied with error: {error}"),
        }
    }
}

/// Uses a connection that was kept, or else a new one, and keeps it.
fn talk(
    database: &Database,
    plan: &Plan,
    packed: &[Packed],
    now_ms: u64,
    moved: &mut Vec<usize>,
) -> Result<(), Failure> {
    if let Some(mut channel) = database.sockets.take(&plan.target)
        && channel.set_timeout(plan.timeout).is_ok()
    {
        match converse(channel, database, plan, packed, now_ms, moved) {
            // It was closed since: a new one will do.
            Err(Failure::Broken { is_stale: true, .. }) => {}
            result => return result,
        }
    }
    let channel = Channel::open(&plan.target, database, plan.timeout);
    let channel = channel.ok_or(Failure::Unreachable)?;
    converse(channel, database, plan, packed, now_ms, moved)
}

fn converse(
    channel: Channel,
    database: &Database,
    plan: &Plan,
    packed: &[Packed],
    now_ms: u64,
    moved: &mut Vec<usize>,
) -> Result<(), Failure> {
    let mut exchange = Exchange { channel: BufReader::new(channel), has_heard: false };
    let mut requests = Vec::new();
    let mut preludes = 0;
    let channel = exchange.channel.get_ref();
    if !plan.target.auth.is_empty() && !channel.is_trusted {
        let words: Vec<&[u8]> = plan.target.auth.iter().map(Vec::as_slice).collect();
        request(&words, &mut requests);
        preludes += 1;
    }
    if channel.selected != Some(plan.db) {
        request(&[b"SELECT", plan.db.to_string().as_bytes()], &mut requests);
        preludes += 1;
    }
    if preludes != 0 {
        // Waited for: if one is refused, what follows would go where it is not meant to.
        exchange.send(&requests)?;
        (0..preludes).try_for_each(|_| exchange.reply()?)?;
        requests.clear();
    }
    for Packed { key, value } in packed {
        let Some((payload, expiry)) = value else {
            request(&[b"DEL", key], &mut requests);
            continue;
        };
        let ttl = expiry.map_or(0, |at| at.saturating_sub(now_ms).max(1)).to_string();
        let words: [&[u8]; 5] = [b"RESTORE", key, ttl.as_bytes(), payload, b"REPLACE"];
        request(&words[..if plan.replaces { 5 } else { 4 }], &mut requests);
    }
    exchange.send(&requests)?;
    let mut result = Ok(());
    for place in 0..packed.len() {
        match exchange.reply()? {
            Ok(()) => moved.push(place),
            refused => result = result.and(refused),
        }
    }
    if exchange.channel.buffer().is_empty() {
        let mut channel = exchange.channel.into_inner();
        channel.is_trusted = true;
        channel.selected = result.is_ok().then_some(plan.db);
        database.sockets.keep(&plan.target, channel);
    }
    result
}

/// Requests that go to the other server, and what comes back.
struct Exchange {
    channel: BufReader<Channel>,
    /// Whether it has said anything to these.
    has_heard: bool,
}

impl Exchange {
    fn send(&mut self, requests: &[u8]) -> Result<(), Failure> {
        let sent = self.channel.get_mut().write_all(requests);
        sent.map_err(|error| self.broken("writing to", Some(&error)))
    }

    /// The next reply, if there is one: that all is well, or an error.
    fn reply(&mut self) -> Result<Result<(), Failure>, Failure> {
        let mut line = Vec::new();
        let read = self.channel.by_ref().take(REPLY_BYTES_MAX).read_until(b'\n', &mut line);
        if line.last() != Some(&b'\n') {
            return Err(self.broken("reading from", read.err().as_ref()));
        }
        self.has_heard = true;
        Ok(match line.trim_ascii_end().strip_prefix(b"-") {
            None => Ok(()),
            Some(error) => Err(Failure::Refused(String::from_utf8_lossy(error).replace('\r', " "))),
        })
    }

    fn broken(&self, what: &'static str, error: Option<&io::Error>) -> Failure {
        let is_late = error.is_some_and(|error| {
            matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
        });
        Failure::Broken { what, is_stale: !is_late && !self.has_heard }
    }
}

fn request(words: &[&[u8]], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(words: &str) -> Result<(Plan, Vec<&[u8]>), String> {
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let words: Vec<&[u8]> =
            words.iter().map(|&word| if word == b"-" { &b""[..] } else { word }).collect();
        read(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read() {
        let (plan, keys) =
            read_of("MIGRATE host 1 - 2 0 COPY REPLACE AUTH2 me it KEYS a b").unwrap();
        assert!(plan.copies && plan.replaces && keys == [b"a", b"b"]);
        assert_eq!((plan.target.auth.len(), plan.db, plan.timeout), (3, 2, Duration::from_secs(1)));
        assert_eq!(read_of("MIGRATE host 1 k 2 0 AUTH").err().unwrap(), "ERR syntax error");
        assert!(read_of("MIGRATE host 1 k 2 0 KEYS a").err().unwrap().contains("empty string"));
    }

    #[test]
    fn requests_are_arrays_of_bulks() {
        let mut out = Vec::new();
        request(&[b"DEL", b"key"], &mut out);
        assert_eq!(out, b"*2\r\n$3\r\nDEL\r\n$3\r\nkey\r\n");
    }
}
