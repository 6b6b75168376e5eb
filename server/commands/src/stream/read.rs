//! Reading several streams from IDs on, and waiting for more: XREAD, XREADGROUP.

use carnelian_keyspace::{EventClass, Kind};
use carnelian_resp::{Mark, Writer};
use carnelian_structs::stream::{
    ConsumerId, Entries, Group as ConsumerGroup, Pending, Stream, StreamId,
};
use smallvec::SmallVec;

use super::range::{write_entries, write_entry, write_id};
use super::replay::Replay;
use super::{close, id, no_group};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::{Effect, OnTimeout, Rewrite, Wait};
use crate::error::CommandError;
use crate::key_spec::{Begin, Find, KeyFlags, KeySpec};

pub(super) const XREAD: DataCommand = DataCommand {
    name: "xread",
    summary: "Returns the entries of streams above given IDs, and can wait for some.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries returned, for each stream",
    arity: -4,
    flags: Flags::BLOCKING.union(Flags::MOVABLEKEYS).union(Flags::READONLY),
    categories: Categories::STREAM,
    keys: &[after_streams(1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xread,
};

pub(super) const XREADGROUP: DataCommand = DataCommand {
    name: "xreadgroup",
    summary: "Delivers entries of streams to a consumer of a group, and can wait for some.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries returned, for each stream",
    arity: -7,
    flags: Flags::BLOCKING.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: &[after_streams(4)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xreadgroup,
};

/// The first half of the words after STREAMS.
const fn after_streams(from: i32) -> KeySpec {
    KeySpec {
        flags: KeyFlags::RO.union(KeyFlags::ACCESS),
        begin: Begin::Keyword { keyword: "STREAMS", from },
        find: Find::Range { last: -1, step: 1, limit: 2 },
    }
}

/// A request of either command.
struct Request<'a> {
    /// The names of the group and the consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    /// Whether what is delivered needs no acknowledgement.
    noack: bool,
    count: usize,
    /// How long to wait at most; 0 for ever.
    block_ms: Option<u64>,
    keys: &'a [&'a [u8]],
    ids: &'a [&'a [u8]],
}

/// From where on a stream is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum From {
    Above(StreamId),
    /// From what the group has not been delivered yet.
    New,
}

impl<'a> Request<'a> {
    fn parse(call: &Call<'a>, for_group: bool) -> Result<Self, CommandError> {
        let words = call.args;
        let name = if for_group { "xreadgroup" } else { "xread" };
        let (mut group, mut noack, mut count, mut block_ms) = (None, false, usize::MAX, None);
        let mut index = 1;
        let streams = loop {
            let word = words.get(index).ok_or(CommandError::Syntax)?;
            let more = words.len() - 1 - index;
            if args::is(word, "BLOCK") && 0 < more {
                index += 1;
                block_ms = Some(timeout(words[index], call.now_ms())?);
            } else if args::is(word, "COUNT") && 0 < more {
                index += 1;
                count = match args::integer(words[index])? {
                    ..=0 => usize::MAX,
                    some => some as usize,
                };
            } else if args::is(word, "STREAMS") && 0 < more {
                break &words[index + 1..];
            } else if args::is(word, "GROUP") && 2 <= more {
                only_for_group(for_group, "GROUP")?;
                group = Some((words[index + 1], words[index + 2]));
                index += 2;
            } else if args::is(word, "NOACK") {
                only_for_group(for_group, "NOACK")?;
                noack = true;
            } else {
                return Err(CommandError::Syntax);
            }
            index += 1;
        };
        if !streams.len().is_multiple_of(2) {
            let ids = if for_group { "ID or '>'" } else { "ID, '+', or '$'" };
            return Err(CommandError::text(format!(
                "ERR Unbalanced '{name}' list of streams: for each stream key an {ids} must be \
                 specified."
            )));
        }
        if for_group && group.is_none() {
            return Err(CommandError::text("ERR Missing GROUP option for XREADGROUP"));
        }
        let (keys, ids) = streams.split_at(streams.len() / 2);
        Ok(Self { group, noack, count, block_ms, keys, ids })
    }

    /// From where on to read each of the streams.
    fn starts(&self, call: &mut Call<'_>) -> Result<SmallVec<[From; 8]>, CommandError> {
        let mut starts = SmallVec::with_capacity(self.keys.len());
        for (&key, &word) in self.keys.iter().zip(self.ids) {
            let stream = call.db.read_as::<Stream>(key)?;
            let stream = stream.as_deref();
            starts.push(match self.group {
                Some((group, _)) => {
                    if stream.and_then(|stream| stream.group(group)).is_none() {
                        return Err(no_group(
                            "NOGROUP No such key '",
                            key,
                            "' or consumer group '",
                            group,
                            "' in XREADGROUP with GROUP option",
                        ));
                    }
                    group_start(word)?
                }
                None => From::Above(start(word, stream)?),
            });
        }
        Ok(starts)
    }

    /// Waits, if the client wants that and may; else there is no reply but null.
    ///
    /// `$` becomes the ID that it stands for now: what comes later is above it.
    fn wait(&self, call: &mut Call<'_>, starts: &[From], rewrite: Rewrite) -> Effect {
        let Some(block_ms) = self.block_ms.filter(|_| call.may_block) else {
            call.reply.null_array();
            return Effect::None;
        };
        let words = self.ids.contains(&&b"$"[..]).then(|| {
            let before = &call.args[..call.args.len() - self.ids.len()];
            let ids = self.ids.iter().zip(starts).map(|(&word, start)| match start {
                From::Above(id) if word == b"$" => id.to_string().into_bytes().into(),
                _ => word.into(),
            });
            before.iter().map(|&word| word.into()).chain(ids).collect()
        });
        Effect::Wait(Box::new(Wait {
            keys: self.keys.iter().map(|&key| key.into()).collect(),
            kind: Some(Kind::Stream),
            // A reader in a group is told that the group has gone.
            heeds_loss: self.group.is_some(),
            deadline_ms: (block_ms != 0).then(|| call.now_ms().saturating_add(block_ms)),
            on_timeout: OnTimeout::NullArray,
            words,
            rewrite,
        }))
    }
}

fn only_for_group(for_group: bool, option: &str) -> Result<(), CommandError> {
    if for_group {
        return Ok(());
    }
    Err(CommandError::text(format!(
        "ERR The {option} option is only supported by XREADGROUP. You called XREAD instead."
    )))
}

/// How long to wait, which must end at a time that can be told.
fn timeout(word: &[u8], now_ms: u64) -> Result<u64, CommandError> {
    let wrong = |what| CommandError::text(format!("ERR timeout is {what}"));
    let timeout = args::integer(word).map_err(|_| wrong("not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| wrong("negative"))?;
    let end = timeout.checked_add(now_ms).filter(|&end| end <= i64::MAX as u64);
    end.map(|_| timeout).ok_or_else(|| wrong("out of range"))
}

/// Of XREAD: `$` is what comes from now on, `+` the last entry there is.
fn start(word: &[u8], stream: Option<&Stream>) -> Result<StreamId, CommandError> {
    match word {
        b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.last_id())),
        b"+" => {
            let last = stream.and_then(|stream| stream.last_entry_id());
            Ok(last.and_then(StreamId::previous).unwrap_or_default())
        }
        b">" => Err(CommandError::text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
             <consumer> option.",
        )),
        _ => id(word),
    }
}

fn group_start(word: &[u8]) -> Result<From, CommandError> {
    match word {
        b"$" | b"+" => {
            let word = char::from(word[0]);
            Err(CommandError::text(format!(
                "ERR The {word} ID is meaningless in the context of XREADGROUP: you want to read \
                 the history of this consumer by specifying a proper ID, or use the > ID to get \
                 new messages. The {word} ID would just return an empty result set."
            )))
        }
        b">" => Ok(From::New),
        _ => match id(word)? {
            // Above the last possible ID there is nothing: Redis means what is new by it.
            StreamId::MAX => Ok(From::New),
            id => Ok(From::Above(id)),
        },
    }
}

/// What a stream is answered with: its name, and then come its entries.
fn write_head(reply: &mut Writer<'_>, resp3: bool, key: &[u8]) {
    if !resp3 {
        reply.array(2);
    }
    reply.bulk(key);
}

fn finish(reply: &mut Writer<'_>, resp3: bool, mark: Mark, served: usize) {
    if resp3 {
        reply.finish_map(mark, served);
    } else {
        reply.finish_array(mark, served);
    }
}

/// `XREAD [COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]`
fn xread(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = Request::parse(call, false)?;
    let starts = request.starts(call)?;
    let resp3 = call.resp3();
    let mark = call.reply.defer();
    let mut served = 0;
    for (&key, &start) in request.keys.iter().zip(&starts) {
        let Some(stream) = call.db.read_as::<Stream>(key)? else { continue };
        let From::Above(above) = start else { continue };
        let Some(first) = above.next() else { continue };
        if stream.last_entry_id().is_none_or(|last| last < first) {
            continue;
        }
        served += 1;
        write_head(&mut call.reply, resp3, key);
        let entries = stream.range(first, StreamId::MAX).take(request.count);
        write_entries(&mut call.reply, entries);
    }
    if served == 0 {
        call.reply.abandon(mark);
        let nothing = call.rewrite();
        return Ok(request.wait(call, &starts, nothing));
    }
    finish(&mut call.reply, resp3, mark, served);
    Ok(Effect::None)
}

/// `XREADGROUP GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key
/// ...] id [id ...]`
///
/// Replicas are told what became pending and how far the group has read.
fn xreadgroup(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = Request::parse(call, true)?;
    let starts = request.starts(call)?;
    let (group_name, name) = request.group.ok_or(CommandError::Syntax)?;
    let (resp3, now_ms) = (call.resp3(), call.now_ms());
    let mut rewrite = call.rewrite();
    let mark = call.reply.defer();
    let (mut served, mut dirty) = (0, 0);
    for (&key, &start) in request.keys.iter().zip(&starts) {
        let replay = Replay::new(call, key, group_name);
        let Some(mut stream) = call.db.read_to_write::<Stream>(key)? else { continue };
        let Some((entries, mut group)) = stream.group_mut(group_name) else { continue };
        let found = group.find_consumer(name);
        let made = if found.is_none() { group.add_consumer(name, now_ms) } else { None };
        let Some(consumer) = found.or(made) else { continue };
        group.consumer_mut(consumer).seen_ms = now_ms;
        if made.is_some() {
            dirty += 1;
            if request.noack {
                replay.consumer_made(&mut rewrite, name);
            }
        }
        let reply = &mut call.reply;
        match start {
            From::Above(above) => {
                served += 1;
                write_head(reply, resp3, key);
                write_history(reply, entries, &mut group, consumer, above, request.count, now_ms);
            }
            From::New if entries.last_entry_id().is_some_and(|last| group.last_id < last) => {
                served += 1;
                write_head(reply, resp3, key);
                let delivery = Delivery { request: &request, consumer, now_ms, replay };
                delivery.write_new(reply, entries, &mut group, &mut rewrite);
                dirty += 1;
            }
            From::New => {}
        }
        drop(group);
        close(stream);
        if made.is_some() {
            call.notify(EventClass::Stream, "xgroup-createconsumer", key);
        }
    }
    call.dirty(dirty);
    if served == 0 {
        call.reply.abandon(mark);
        if request.block_ms.is_some() && call.may_block {
            return Ok(request.wait(call, &starts, rewrite));
        }
        call.reply.null_array();
    } else {
        finish(&mut call.reply, resp3, mark, served);
    }
    Ok(if dirty == 0 { Effect::None } else { Effect::Rewrite(rewrite) })
}

/// What is pending for the consumer. Each time that it is read counts as a delivery, though not
/// one that others are told of.
fn write_history(
    reply: &mut Writer<'_>,
    entries: &Entries,
    group: &mut ConsumerGroup,
    consumer: ConsumerId,
    above: StreamId,
    count: usize,
    now_ms: u64,
) {
    let mark = reply.defer();
    let mut written = 0;
    let mut from = above.next();
    while written < count
        && let Some(start) = from
        && let Some(pending) = group.next_pending_of(consumer, start)
    {
        match entries.get(pending.id) {
            Some(entry) => {
                write_entry(reply, &entry);
                let deliveries = pending.deliveries.wrapping_add(1);
                group.set_pending(Pending { delivered_ms: now_ms, deliveries, ..pending });
            }
            None => {
                reply.array(2);
                write_id(reply, pending.id);
                reply.null_array();
            }
        }
        written += 1;
        from = pending.id.next();
    }
    reply.finish_array(mark, written);
}

/// A delivery of new entries to one consumer.
struct Delivery<'d> {
    request: &'d Request<'d>,
    consumer: ConsumerId,
    now_ms: u64,
    replay: Replay<'d>,
}

impl Delivery<'_> {
    fn write_new(
        &self,
        reply: &mut Writer<'_>,
        entries: &Entries,
        group: &mut ConsumerGroup,
        rewrite: &mut Rewrite,
    ) {
        let mark = reply.defer();
        let mut written = 0;
        let first = group.last_id.next().unwrap_or(StreamId::MAX);
        for entry in entries.range(first, StreamId::MAX).take(self.request.count) {
            written += 1;
            write_entry(reply, &entry);
            group.advance(entries, entry.id);
            if self.request.noack {
                continue;
            }
            let pending = Pending {
                id: entry.id,
                delivered_ms: self.now_ms,
                deliveries: 1,
                consumer: self.consumer,
            };
            group.set_pending(pending);
            group.consumer_mut(self.consumer).active_ms = Some(self.now_ms);
            self.replay.pending(rewrite, group, &pending);
        }
        self.replay.last_id(rewrite, group);
        reply.finish_array(mark, written);
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use super::*;
    use crate::bench::Bench;

    const NOW: &str = "1700000000000";

    fn bench() -> Bench {
        let mut bench = Bench::new();
        for ms in 1..=3 {
            bench.reply(&format!("XADD s {ms}-0 f {ms}"));
        }
        bench.reply("XGROUP CREATE s g 0");
        bench.effects.clear();
        bench.events.clear();
        bench
    }

    /// The commands that others are told of, each with its words separated by blanks.
    fn effects(bench: &mut Bench) -> Vec<String> {
        let effects = String::from_utf8(std::mem::take(&mut bench.effects)).expect("text");
        let mut commands: Vec<String> = Vec::new();
        for line in effects.split("\r\n") {
            match line.as_bytes().first() {
                Some(b'*') => commands.push(String::new()),
                Some(b'$') | None => {}
                Some(_) => {
                    let command = commands.last_mut().expect("a command has begun");
                    command.push_str(if command.is_empty() { "" } else { " " });
                    command.push_str(line);
                }
            }
        }
        commands
    }

    #[test]
    fn reading_is_from_after_an_id() {
        let mut bench = bench();
        let (two, three) = ("*2 $3 2-0 *2 $1 f $1 2", "*2 $3 3-0 *2 $1 f $1 3");
        bench.expect("XREAD STREAMS s 1", &format!("*1 *2 $1 s *2 {two} {three}"));
        bench.expect("XREAD COUNT 1 STREAMS s 1-0", &format!("*1 *2 $1 s *1 {two}"));
        bench.expect("XREAD STREAMS s none 2 0", &format!("*1 *2 $1 s *1 {three}"));
        bench.expect("XREAD STREAMS s +", &format!("*1 *2 $1 s *1 {three}"));
        bench.expect("XREAD STREAMS s $", "*-1");
        bench.expect("XREAD STREAMS s 3-0", "*-1");
        bench.expect("XREAD STREAMS none +", "*-1");
        bench.expect("XREAD COUNT 0 BLOCK 10 STREAMS none 0", "*-1");
        bench.reply("XDEL s 3-0");
        bench.expect("XREAD STREAMS s +", &format!("*1 *2 $1 s *1 {two}"));
        bench.expect("XREAD STREAMS s 2", "*-1");
        bench.protocol = Protocol::Resp3;
        bench.expect("XREAD STREAMS s s 1 1", &format!("%2 $1 s *1 {two} $1 s *1 {two}"));
        bench.expect("XREAD STREAMS s $", "_");
    }

    #[test]
    fn a_group_delivers_each_entry_once() {
        let mut bench = bench();
        let one = "*2 $3 1-0 *2 $1 f $1 1";
        let read = |consumer: &str| format!("XREADGROUP GROUP g {consumer} COUNT 1 STREAMS s >");
        bench.expect(&read("ann"), &format!("*1 *2 $1 s *1 {one}"));
        assert_eq!((bench.dirty, bench.touched), (2, 0));
        assert_eq!(bench.events, ["xgroup-createconsumer s"]);
        let claim = |consumer: &str, id: &str| {
            format!("XCLAIM s g {consumer} 0 {id} TIME {NOW} RETRYCOUNT 1 FORCE JUSTID LASTID {id}")
        };
        let setid = |id: &str, read| format!("XGROUP SETID s g {id} ENTRIESREAD {read}");
        assert_eq!(effects(&mut bench), [claim("ann", "1-0"), setid("1-0", 1)]);
        bench.expect(&read("bob"), "*1 *2 $1 s *1 *2 $3 2-0 *2 $1 f $1 2");
        assert_eq!(effects(&mut bench), [claim("bob", "2-0"), setid("2-0", 2)]);
        bench.expect(
            "XREADGROUP GROUP g eve NOACK STREAMS s >",
            "*1 *2 $1 s *1 *2 $3 3-0 *2 $1 f $1 3",
        );
        assert_eq!(
            effects(&mut bench),
            ["XGROUP CREATECONSUMER s g eve".to_owned(), setid("3-0", 3)]
        );
        bench.expect(&read("ann"), "*-1");
        assert_eq!(bench.dirty, 0);
        bench.expect("XPENDING s g", "*4 :2 $3 1-0 $3 2-0 *2 *2 $3 ann $1 1 *2 $3 bob $1 1");
    }

    #[test]
    fn history_is_what_is_pending() {
        let mut bench = bench();
        bench.reply("XREADGROUP GROUP g ann COUNT 2 STREAMS s >");
        bench.reply("XDEL s 1-0");
        bench.effects.clear();
        bench.now_ms += 5;
        let (one, two) = ("*2 $3 1-0 *-1", "*2 $3 2-0 *2 $1 f $1 2");
        bench.expect("XREADGROUP GROUP g ann STREAMS s 0", &format!("*1 *2 $1 s *2 {one} {two}"));
        bench.expect("XREADGROUP GROUP g ann STREAMS s 1-0", &format!("*1 *2 $1 s *1 {two}"));
        bench.expect("XREADGROUP GROUP g ann COUNT 1 STREAMS s 0", &format!("*1 *2 $1 s *1 {one}"));
        assert_eq!((bench.dirty, bench.effects.len()), (0, 0));
        bench.expect("XREADGROUP GROUP g bob STREAMS s 0", "*1 *2 $1 s *0");
        assert_eq!(bench.dirty, 1);
        bench.expect("XPENDING s g - + 9", "*2 *4 $3 1-0 $3 ann :5 :1 *4 $3 2-0 $3 ann :0 :3");
        let new = "18446744073709551615-18446744073709551615";
        bench.expect(
            &format!("XREADGROUP GROUP g bob STREAMS s {new}"),
            "*1 *2 $1 s *1 *2 $3 3-0 *2 $1 f $1 3",
        );
    }

    #[test]
    fn what_cannot_be_served_waits() {
        let mut bench = bench();
        bench.may_block = true;
        let wait = |bench: &mut Bench, run: crate::Run, request: &str| {
            let (effect, reply) = bench.run(run, request);
            assert_eq!(reply, "");
            let Effect::Wait(wait) = effect else { panic!("{effect:?} for {request}") };
            wait
        };
        let alone = wait(&mut bench, xread, "XREAD BLOCK 0 STREAMS s t $ $");
        assert_eq!((alone.keys.len(), alone.deadline_ms, alone.heeds_loss), (2, None, false));
        let words = alone.words.expect("the IDs are settled").concat();
        assert_eq!(words, b"XREADBLOCK0STREAMSst3-00-0");
        let plain = wait(&mut bench, xread, "XREAD BLOCK 7 STREAMS s 3-0");
        assert_eq!((plain.deadline_ms, plain.words), (Some(bench.now_ms + 7), None));
        bench.reply("XGROUP SETID s g $");
        let grouped = wait(&mut bench, xreadgroup, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        assert!(grouped.heeds_loss);
        assert_eq!(bench.dirty, 1);
        let (effect, reply) = bench.run(xread, "XREAD BLOCK 0 STREAMS s 2-0");
        assert!(effect == Effect::None && reply.starts_with("*1"));
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let mut bench = bench();
        let invalid = "-ERR Invalid stream ID specified as stream command argument";
        let missing = "-NOGROUP No such key 's' or consumer group 'x' in XREADGROUP with GROUP \
                       option";
        for (request, error) in [
            ("XREAD STREAMS s -", invalid),
            ("XREAD COUNT 1 STREAMS", "-ERR syntax error"),
            ("XREAD BLOCK -1 STREAMS s 0", "-ERR timeout is negative"),
            ("XREAD BLOCK x STREAMS s 0", "-ERR timeout is not an integer or out of range"),
            ("XREAD BLOCK 9223372036854775807 STREAMS s 0", "-ERR timeout is out of range"),
            (
                "XREAD STREAMS s t 0",
                "-ERR Unbalanced 'xread' list of streams: for each stream key an ID, '+', or '$' \
                 must be specified.",
            ),
            (
                "XREAD NOACK STREAMS s 0",
                "-ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
            ),
            ("XREADGROUP COUNT 1 NOACK STREAMS s >", "-ERR Missing GROUP option for XREADGROUP"),
            ("XREADGROUP GROUP x c STREAMS s >", missing),
            ("XREADGROUP GROUP g c STREAMS s -", invalid),
            (
                "XREADGROUP GROUP g c STREAMS t >",
                "-NOGROUP No such key 't' or consumer group 'g' in XREADGROUP with GROUP option",
            ),
        ] {
            bench.expect(request, error);
        }
        bench.expect("SET string x", "+OK");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("XREAD STREAMS s string 0 0", wrong);
        // Nobody reads before all is known to be right.
        bench.expect("XREADGROUP GROUP g c STREAMS s string > >", wrong);
        bench.expect("XINFO CONSUMERS s g", "*0");
    }
}
