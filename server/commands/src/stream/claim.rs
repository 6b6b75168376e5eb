//! Taking over what is pending for others: XCLAIM, XAUTOCLAIM.

use carnelian_keyspace::EventClass;
use carnelian_structs::stream::{ConsumerId, Group as ConsumerGroup, Pending, Stream, StreamId};
use smallvec::SmallVec;

use super::range::{write_entry, write_id};
use super::replay::Replay;
use super::{DELETE, UPDATE, close, id, no_key_or_group, refused_id};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XCLAIM: DataCommand = DataCommand {
    name: "xclaim",
    summary: "Makes pending entries those of another consumer.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(log N) for each entry, with N pending",
    arity: -6,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: UPDATE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: xclaim,
};

pub(super) const XAUTOCLAIM: DataCommand = DataCommand {
    name: "xautoclaim",
    summary: "Makes entries that have been pending for long those of another consumer.",
    since: "6.2.0",
    group: Group::Stream,
    complexity: "O(1) for a small count",
    arity: -6,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: DELETE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: xautoclaim,
};

/// An integer that has an error of its own.
fn integer(word: &[u8], what: &str, command: &str) -> Result<i64, CommandError> {
    args::integer(word)
        .map_err(|_| CommandError::text(format!("ERR Invalid {what} argument for {command}")))
}

/// What XCLAIM is to do.
struct Claim {
    min_idle_ms: u64,
    ids: SmallVec<[StreamId; 8]>,
    /// When the entries are to have been delivered.
    delivered_ms: u64,
    deliveries: Option<u64>,
    force: bool,
    just_ids: bool,
    last_id: StreamId,
}

impl Claim {
    /// Reads the words from the idle time on.
    fn parse(words: &[&[u8]], now_ms: u64) -> Result<Self, CommandError> {
        let min_idle_ms = integer(words[0], "min-idle-time", "XCLAIM")?;
        // What is no ID is an option.
        let ids: SmallVec<_> = words[1..].iter().map_while(|word| id(word).ok()).collect();
        let mut claim = Self {
            min_idle_ms: u64::try_from(min_idle_ms).unwrap_or(0),
            delivered_ms: now_ms,
            deliveries: None,
            force: false,
            just_ids: false,
            last_id: StreamId::MIN,
            ids,
        };
        let mut rest = words[1 + claim.ids.len()..].iter();
        while let Some(word) = rest.next() {
            let mut value = |option| if args::is(word, option) { rest.next() } else { None };
            if args::is(word, "FORCE") {
                claim.force = true;
            } else if args::is(word, "JUSTID") {
                claim.just_ids = true;
            } else if let Some(value) = value("IDLE") {
                let idle = integer(value, "IDLE option", "XCLAIM")?;
                claim.deliver_at(now_ms.cast_signed().wrapping_sub(idle), now_ms);
            } else if let Some(value) = value("TIME") {
                claim.deliver_at(integer(value, "TIME option", "XCLAIM")?, now_ms);
            } else if let Some(value) = value("RETRYCOUNT") {
                let count = integer(value, "RETRYCOUNT option", "XCLAIM")?;
                claim.deliveries = u64::try_from(count).ok();
            } else if let Some(value) = value("LASTID") {
                claim.last_id = id(value)?;
            } else {
                return Err(CommandError::quoting("ERR Unrecognized XCLAIM option '", word, "'"));
            }
        }
        Ok(claim)
    }

    /// A time that makes no sense is taken for now.
    fn deliver_at(&mut self, ms: i64, now_ms: u64) {
        self.delivered_ms = u64::try_from(ms).ok().filter(|ms| *ms <= now_ms).unwrap_or(now_ms);
    }
}

/// The consumer of this name, made if there is none, and whether it was.
fn consumer_named(group: &mut ConsumerGroup, name: &[u8], now_ms: u64) -> (ConsumerId, bool) {
    let made = group.add_consumer(name, now_ms);
    let consumer = made.or_else(|| group.find_consumer(name)).expect("it is there or was made");
    group.consumer_mut(consumer).seen_ms = now_ms;
    (consumer, made.is_some())
}

/// `XCLAIM key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-ms] [RETRYCOUNT count]
/// [FORCE] [JUSTID] [LASTID id]`
///
/// Replicas are told the new state of each entry. One that is no longer in the stream is forgotten.
fn xclaim(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, consumer_name) = (call.args[1], call.args[2], call.args[3]);
    let now_ms = call.now_ms();
    let replay = Replay::new(call, key, name);
    let mut rewrite = call.rewrite();
    let no_group = || no_key_or_group(key, name);
    let mut stream = call.db.read_to_write::<Stream>(key)?.ok_or_else(no_group)?;
    let claim = match stream.group(name) {
        Some(_) => Claim::parse(&call.args[4..], now_ms),
        None => Err(no_group()),
    };
    let claim = match claim {
        Ok(claim) => claim,
        Err(error) => {
            close(stream);
            return Err(error);
        }
    };
    let (entries, mut group) = stream.group_mut(name).ok_or_else(no_group)?;
    let mut told_last_id = true;
    if group.last_id < claim.last_id {
        group.last_id = claim.last_id;
        told_last_id = false;
    }
    let (consumer, made) = consumer_named(&mut group, consumer_name, now_ms);
    let mut dirty = usize::from(made);
    let reply = &mut call.reply;
    let mark = reply.defer();
    let mut claimed = 0;
    for &id in &claim.ids {
        let known = group.pending(id).copied();
        let Some(entry) = entries.get(id) else {
            if let Some(gone) = known {
                replay.pending(&mut rewrite, &group, &gone);
                told_last_id = true;
                group.acknowledge(id);
                dirty += 1;
            }
            continue;
        };
        let old = match known {
            Some(old) if old.idle_ms(now_ms) < claim.min_idle_ms => continue,
            Some(old) => old,
            None if claim.force => Pending { id, delivered_ms: 0, deliveries: 1, consumer },
            None => continue,
        };
        let increment = u64::from(!claim.just_ids);
        let new = Pending {
            id,
            delivered_ms: claim.delivered_ms,
            deliveries: claim.deliveries.unwrap_or(old.deliveries.wrapping_add(increment)),
            consumer,
        };
        group.set_pending(new);
        group.consumer_mut(consumer).active_ms = Some(now_ms);
        claimed += 1;
        if claim.just_ids {
            write_id(reply, id);
        } else {
            write_entry(reply, &entry);
        }
        replay.pending(&mut rewrite, &group, &new);
        told_last_id = true;
        dirty += 1;
    }
    reply.finish_array(mark, claimed);
    if !told_last_id {
        replay.last_id(&mut rewrite, &group);
        dirty += 1;
    }
    drop(group);
    close(stream);
    if made {
        call.notify(EventClass::Stream, "xgroup-createconsumer", key);
    }
    call.dirty(dirty);
    Ok(if dirty == 0 { Effect::None } else { Effect::Rewrite(rewrite) })
}

/// What XAUTOCLAIM is to do.
struct Sweep {
    min_idle_ms: u64,
    start: StreamId,
    count: usize,
    just_ids: bool,
}

impl Sweep {
    const COUNT: usize = 100;
    /// So many entries may be looked at for each that is asked for.
    const ATTEMPTS: usize = 10;
    const COUNT_MAX: i64 = i64::MAX / 16;

    /// Reads the words from the idle time on.
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let min_idle_ms = integer(words[0], "min-idle-time", "XAUTOCLAIM")?;
        let start = StreamId::parse_range_start(words[1]).map_err(refused_id)?;
        let mut sweep = Self {
            min_idle_ms: u64::try_from(min_idle_ms).unwrap_or(0),
            start,
            count: Self::COUNT,
            just_ids: false,
        };
        let mut rest = words[2..].iter();
        while let Some(word) = rest.next() {
            if args::is(word, "JUSTID") {
                sweep.just_ids = true;
                continue;
            }
            let value = rest.next().filter(|_| args::is(word, "COUNT"));
            let count = args::integer(value.ok_or(CommandError::Syntax)?).ok();
            let count = count.filter(|count| (1..=Self::COUNT_MAX).contains(count));
            let refused = || CommandError::text("ERR COUNT must be > 0");
            sweep.count = count.ok_or_else(refused)? as usize;
        }
        Ok(sweep)
    }
}

/// `XAUTOCLAIM key group consumer min-idle-time start [COUNT count] [JUSTID]`
///
/// Replicas are told the new state of each entry. One that is no longer in the stream is forgotten.
fn xautoclaim(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, consumer_name) = (call.args[1], call.args[2], call.args[3]);
    let now_ms = call.now_ms();
    let replay = Replay::new(call, key, name);
    let mut rewrite = call.rewrite();
    let sweep = match Sweep::parse(&call.args[4..]) {
        Ok(sweep) => sweep,
        Err(error) => {
            call.db.settle(key);
            return Err(error);
        }
    };
    let no_group = || no_key_or_group(key, name);
    let mut stream = call.db.read_to_write::<Stream>(key)?.ok_or_else(no_group)?;
    if stream.group(name).is_none() {
        close(stream);
        return Err(no_group());
    }
    let (entries, mut group) = stream.group_mut(name).ok_or_else(no_group)?;
    let (consumer, made) = consumer_named(&mut group, consumer_name, now_ms);
    let mut claimed: SmallVec<[StreamId; 16]> = SmallVec::new();
    let mut gone: SmallVec<[StreamId; 4]> = SmallVec::new();
    let mut attempts = sweep.count.saturating_mul(Sweep::ATTEMPTS);
    let mut from = Some(sweep.start);
    while 0 < attempts
        && claimed.len() + gone.len() < sweep.count
        && let Some(old) = from.and_then(|from| group.next_pending(from))
    {
        attempts -= 1;
        from = old.id.next();
        if entries.get(old.id).is_none() {
            replay.pending(&mut rewrite, &group, &old);
            group.acknowledge(old.id);
            gone.push(old.id);
            continue;
        }
        if old.idle_ms(now_ms) < sweep.min_idle_ms {
            continue;
        }
        let deliveries = old.deliveries.wrapping_add(u64::from(!sweep.just_ids));
        let new = Pending { id: old.id, delivered_ms: now_ms, deliveries, consumer };
        group.set_pending(new);
        group.consumer_mut(consumer).active_ms = Some(now_ms);
        replay.pending(&mut rewrite, &group, &new);
        claimed.push(old.id);
    }
    let next = from.and_then(|from| group.next_pending(from));

    let reply = &mut call.reply;
    reply.array(3);
    write_id(reply, next.map_or(StreamId::MIN, |next| next.id));
    reply.array(claimed.len());
    for &id in &claimed {
        match entries.get(id) {
            Some(entry) if !sweep.just_ids => write_entry(reply, &entry),
            _ => write_id(reply, id),
        }
    }
    reply.array(gone.len());
    gone.iter().for_each(|&id| write_id(reply, id));
    drop(group);
    close(stream);
    if made {
        call.notify(EventClass::Stream, "xgroup-createconsumer", key);
    }
    let dirty = usize::from(made) + claimed.len() + gone.len();
    call.dirty(dirty);
    Ok(if dirty == 0 { Effect::None } else { Effect::Rewrite(rewrite) })
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    /// Four entries, of which `ann` was given three, a second ago.
    fn bench() -> Bench {
        let mut bench = Bench::new();
        for ms in 1..=4 {
            bench.reply(&format!("XADD s {ms}-0 f {ms}"));
        }
        bench.reply("XGROUP CREATE s g 0");
        bench.reply("XREADGROUP GROUP g ann COUNT 3 STREAMS s >");
        bench.now_ms += 1000;
        bench.effects.clear();
        bench.events.clear();
        bench
    }

    fn effects(bench: &mut Bench) -> usize {
        let effects = String::from_utf8(std::mem::take(&mut bench.effects)).expect("text");
        effects.matches("XCLAIM").count() + 10 * effects.matches("SETID").count()
    }

    #[test]
    fn entries_are_taken_over() {
        let mut bench = bench();
        bench.expect("XCLAIM s g bob 1001 1-0", "*0");
        assert_eq!((bench.dirty, effects(&mut bench)), (1, 0));
        assert_eq!(bench.events, ["xgroup-createconsumer s"]);
        bench.expect("XCLAIM s g bob 1000 1-0 4-0 9-9", "*1 *2 $3 1-0 *2 $1 f $1 1");
        assert_eq!((bench.dirty, effects(&mut bench), bench.touched), (1, 1, 0));
        bench.expect("XCLAIM s g bob 0 2 JUSTID IDLE 300", "*1 $3 2-0");
        bench.expect("XCLAIM s g bob 0 4-0 FORCE RETRYCOUNT 7 TIME 5 JUSTID", "*1 $3 4-0");
        effects(&mut bench);
        bench.expect(
            "XPENDING s g - + 9",
            "*4 *4 $3 1-0 $3 bob :0 :2 *4 $3 2-0 $3 bob :300 :1 *4 $3 3-0 $3 ann :1000 :1 \
             *4 $3 4-0 $3 bob :1700000000995 :7",
        );
        bench.reply("XDEL s 1-0");
        bench.expect("XCLAIM s g ann 0 1-0", "*0");
        assert_eq!((bench.dirty, effects(&mut bench)), (1, 1));
        bench.expect("XCLAIM s g ann 9999 2-0 LASTID 8-8", "*0");
        assert_eq!((bench.dirty, effects(&mut bench)), (1, 10));
        bench.expect("XCLAIM s g ann 9999 2-0 LASTID 8-7", "*0");
        assert_eq!((bench.dirty, effects(&mut bench)), (0, 0));
    }

    #[test]
    fn what_is_idle_is_swept_up() {
        let mut bench = bench();
        bench.reply("XDEL s 1-0");
        bench.expect("XAUTOCLAIM s g bob 1001 -", "*3 $3 0-0 *0 *1 $3 1-0");
        assert_eq!((bench.dirty, effects(&mut bench)), (2, 1));
        bench.expect("XAUTOCLAIM s g bob 1000 0 COUNT 1", "*3 $3 3-0 *1 *2 $3 2-0 *2 $1 f $1 2 *0");
        assert_eq!((bench.dirty, effects(&mut bench)), (1, 1));
        bench.expect("XAUTOCLAIM s g bob 1000 (2-0 JUSTID", "*3 $3 0-0 *1 $3 3-0 *0");
        bench.expect("XAUTOCLAIM s g bob 1000 3-0", "*3 $3 0-0 *0 *0");
        assert_eq!(bench.dirty, 0);
        bench.expect("XPENDING s g - + 9", "*2 *4 $3 2-0 $3 bob :0 :2 *4 $3 3-0 $3 bob :0 :1");
    }

    #[test]
    fn no_more_than_ten_are_looked_at_for_each_wanted() {
        let mut bench = Bench::new();
        for ms in 1..=30 {
            bench.reply(&format!("XADD s {ms}-0 f v"));
        }
        bench.reply("XGROUP CREATE s g 0");
        bench.reply("XREADGROUP GROUP g ann STREAMS s >");
        bench.expect("XAUTOCLAIM s g bob 99 0 COUNT 2", "*3 $4 21-0 *0 *0");
        bench.expect("XAUTOCLAIM s g bob 99 21-0 COUNT 1", "*3 $3 0-0 *0 *0");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let mut bench = bench();
        let no_group = "-NOGROUP No such key 's' or consumer group 'x'";
        for (request, error) in [
            ("XCLAIM s x c x 1-0", no_group),
            ("XCLAIM s g c x 1-0", "-ERR Invalid min-idle-time argument for XCLAIM"),
            ("XCLAIM s g c 0 1-0 x", "-ERR Unrecognized XCLAIM option 'x'"),
            ("XCLAIM s g c 0 1-0 IDLE", "-ERR Unrecognized XCLAIM option 'IDLE'"),
            ("XCLAIM s g c 0 1-0 TIME x", "-ERR Invalid TIME option argument for XCLAIM"),
            ("XAUTOCLAIM s x c 0 0", no_group),
            ("XAUTOCLAIM s x c x 0", "-ERR Invalid min-idle-time argument for XAUTOCLAIM"),
            ("XAUTOCLAIM s g c 0 0 COUNT 0", "-ERR COUNT must be > 0"),
            ("XAUTOCLAIM s g c 0 0 COUNT 9223372036854775807", "-ERR COUNT must be > 0"),
            ("XAUTOCLAIM s g c 0 0 FOO 1", "-ERR syntax error"),
        ] {
            bench.expect(request, error);
        }
        assert!(bench.events.is_empty());
    }
}
