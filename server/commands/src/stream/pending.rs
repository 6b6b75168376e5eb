//! What was delivered and not acknowledged: XACK, XPENDING.

use carnelian_structs::stream::{Group as ConsumerGroup, Pending, Stream, StreamId};
use smallvec::SmallVec;

use super::range::write_id;
use super::{READ, UPDATE, close, id, no_key_or_group, refused_id};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XACK: DataCommand = DataCommand {
    name: "xack",
    summary: "Acknowledges entries that were delivered to a group.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(1) for each entry",
    arity: -4,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: UPDATE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xack,
};

pub(super) const XPENDING: DataCommand = DataCommand {
    name: "xpending",
    summary: "Tells which entries were delivered to a group and not acknowledged.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries returned, or for N consumers",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::STREAM,
    keys: READ,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: xpending,
};

/// `XACK key group id [id ...]`
fn xack(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let Some(mut stream) = call.db.read_to_write::<Stream>(call.args[1])? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    // All are read before any is acknowledged: a request is refused whole.
    let mut acknowledge = || {
        let Some((_, mut group)) = stream.group_mut(call.args[2]) else { return Ok(0) };
        let ids: Result<SmallVec<[StreamId; 8]>, CommandError> =
            call.args[3..].iter().map(|word| id(word)).collect();
        Ok(ids?.into_iter().filter(|&id| group.acknowledge(id).is_some()).count())
    };
    let acknowledged: Result<usize, CommandError> = acknowledge();
    close(stream);
    let acknowledged = acknowledged?;
    call.reply.integer(acknowledged as i64);
    if acknowledged == 0 {
        return Ok(Effect::None);
    }
    call.dirty(acknowledged);
    Ok(Effect::Verbatim)
}

/// Which pending entries to show.
struct Selection<'a> {
    min_idle_ms: u64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

impl<'a> Selection<'a> {
    /// Reads the words after the group's name; `None` if there are none.
    fn parse(words: &[&'a [u8]]) -> Result<Option<Self>, CommandError> {
        if words.is_empty() {
            return Ok(None);
        }
        if !matches!(words.len(), 3..=6) {
            return Err(CommandError::Syntax);
        }
        let (mut min_idle_ms, mut rest) = (0, words);
        if args::is(words[0], "IDLE") {
            min_idle_ms = u64::try_from(args::integer(words[1])?).unwrap_or(0);
            rest = &words[2..];
            if rest.len() < 3 {
                return Err(CommandError::Syntax);
            }
        }
        let count = args::integer(rest[2])?;
        let start = StreamId::parse_range_start(rest[0]).map_err(refused_id)?;
        let end = StreamId::parse_range_end(rest[1]).map_err(refused_id)?;
        let consumer = rest.get(3).copied();
        Ok(Some(Self { min_idle_ms, start, end, count: count.max(0) as usize, consumer }))
    }
}

/// `XPENDING key group [[IDLE min-idle-time] start end count [consumer]]`
fn xpending(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, now_ms) = (call.args[1], call.args[2], call.now_ms());
    let selection = Selection::parse(&call.args[3..])?;
    let stream = call.db.read_as::<Stream>(key)?;
    let group = stream.as_ref().and_then(|stream| stream.group(name));
    let group = group.ok_or_else(|| no_key_or_group(key, name))?;
    let reply = &mut call.reply;
    let Some(selection) = selection else {
        write_summary(reply, group);
        return Ok(Effect::None);
    };
    let mark = reply.defer();
    let mut written = 0;
    let mut write = |pending: &Pending| {
        let idle_ms = pending.idle_ms(now_ms);
        if selection.min_idle_ms <= idle_ms {
            written += 1;
            reply.array(4);
            write_id(reply, pending.id);
            reply.bulk(group.consumer(pending.consumer).name());
            reply.integer(idle_ms.cast_signed());
            reply.integer(pending.deliveries.cast_signed());
        }
        written < selection.count
    };
    let is_in_range = |pending: &&Pending| pending.id <= selection.end;
    match selection.consumer.map(|name| group.find_consumer(name)) {
        _ if selection.count == 0 => {}
        Some(None) => {}
        Some(Some(consumer)) => {
            let mut all = group.pending_of(consumer, selection.start).take_while(is_in_range);
            while all.next().is_some_and(&mut write) {}
        }
        None => {
            let mut all = group.pending_from(selection.start).take_while(is_in_range);
            while all.next().is_some_and(&mut write) {}
        }
    }
    reply.finish_array(mark, written);
    Ok(Effect::None)
}

fn write_summary(reply: &mut carnelian_resp::Writer<'_>, group: &ConsumerGroup) {
    reply.array(4);
    reply.integer(group.pending_len() as i64);
    let (Some(first), Some(last)) = (group.first_pending(), group.last_pending()) else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    write_id(reply, first.id);
    write_id(reply, last.id);
    let mark = reply.defer();
    let mut written = 0;
    for (_, consumer) in group.consumers() {
        if consumer.pending_len() != 0 {
            written += 1;
            reply.array(2);
            reply.bulk(consumer.name());
            reply.bulk_integer(consumer.pending_len() as i64);
        }
    }
    reply.finish_array(mark, written);
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        for ms in 1..=4 {
            bench.reply(&format!("XADD s {ms}-0 f v"));
        }
        bench.reply("XGROUP CREATE s g 0");
        bench.reply("XREADGROUP GROUP g ann COUNT 2 STREAMS s >");
        bench.now_ms += 100;
        bench.reply("XREADGROUP GROUP g bob COUNT 1 STREAMS s >");
        bench
    }

    #[test]
    fn what_is_acknowledged_is_not_pending() {
        let mut bench = bench();
        bench.expect("XACK s g 1-0 9-9 1-0 3", ":2");
        assert_eq!((bench.dirty, bench.touched), (2, 0));
        bench.expect("XACK s g 1-0", ":0");
        assert_eq!(bench.dirty, 0);
        bench.expect("XPENDING s g", "*4 :1 $3 2-0 $3 2-0 *1 *2 $3 ann $1 1");
        let invalid = "-ERR Invalid stream ID specified as stream command argument";
        bench.expect("XACK s g 2-0 x", invalid);
        bench.expect("XACK s x x", ":0");
        bench.expect("XACK none g x", ":0");
        bench.expect("XACK s g 2-0", ":1");
        bench.expect("XPENDING s g", "*4 :0 $-1 $-1 *-1");
    }

    #[test]
    fn pending_entries_are_selected() {
        let mut bench = bench();
        let (one, two) = ("*4 $3 1-0 $3 ann :100 :1", "*4 $3 2-0 $3 ann :100 :1");
        let three = "*4 $3 3-0 $3 bob :0 :1";
        bench.expect("XPENDING s g - + 10", &format!("*3 {one} {two} {three}"));
        bench.expect("XPENDING s g - + 1", &format!("*1 {one}"));
        bench.expect("XPENDING s g - + 0", "*0");
        bench.expect("XPENDING s g - + -1", "*0");
        bench.expect("XPENDING s g (1 + 1", &format!("*1 {two}"));
        bench.expect("XPENDING s g - 1 9", &format!("*1 {one}"));
        bench.expect("XPENDING s g - + 9 bob", &format!("*1 {three}"));
        bench.expect("XPENDING s g - + 9 eve", "*0");
        bench.expect("XPENDING s g IDLE 100 - + 9", &format!("*2 {one} {two}"));
        bench.expect("XPENDING s g IDLE 101 - + 9 ann", "*0");
        for request in ["XPENDING s g -", "XPENDING s g - +", "XPENDING s g IDLE 1 - +"] {
            bench.expect(request, "-ERR syntax error");
        }
        bench.expect("XPENDING s g - + x", "-ERR value is not an integer or out of range");
        bench.expect("XPENDING s x", "-NOGROUP No such key 's' or consumer group 'x'");
        bench.expect("XPENDING t g", "-NOGROUP No such key 't' or consumer group 'g'");
    }
}
