//! Looking into a stream: XINFO.

use carnelian_resp::Writer;
use carnelian_structs::stream::{ConsumerId, Group as ConsumerGroup, Pending, Stream, StreamId};

use super::range::{write_entries, write_entry, write_id};
use super::{no_group_at_key, unknown_subcommand, wrong_subcommand};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const XINFO: DataCommand = DataCommand {
    name: "xinfo",
    summary: "Groups the commands that look into streams.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "Depends on the subcommand",
    arity: -2,
    flags: Flags::empty(),
    categories: Categories::empty(),
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[
        DataCommand {
            summary: "Tells of the consumers of a group.",
            tips: &["nondeterministic_output"],
            ..about("consumers", 4, consumers)
        },
        DataCommand { summary: "Tells of the groups of a stream.", ..about("groups", 3, groups) },
        DataCommand {
            summary: "Explains the subcommands.",
            flags: Flags::LOADING.union(Flags::STALE),
            keys: &[],
            ..about("help", 2, help)
        },
        DataCommand {
            complexity: "O(N) for N blocks of entries; with FULL also for N entries shown",
            ..about("stream", -3, stream)
        },
    ],
    run: unknown,
};

const LOOK: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 2, 0, 1)];

/// A subcommand, as most are.
const fn about(name: &'static str, arity: i32, run: Run) -> DataCommand {
    DataCommand {
        name,
        summary: "Tells of a stream.",
        since: "5.0.0",
        group: Group::Stream,
        complexity: "O(1)",
        arity,
        flags: Flags::READONLY,
        categories: Categories::STREAM,
        keys: LOOK,
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

const HINT: &str = "'. Try XINFO HELP.";

fn unknown(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    Err(unknown_subcommand(call.args[1], HINT))
}

/// `XINFO CONSUMERS key group`
fn consumers(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, now_ms) = (call.args[2], call.args[3], call.now_ms());
    let stream = call.db.read_as::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    let group = stream.group(name).ok_or_else(|| no_group_at_key(key, name))?;
    let reply = &mut call.reply;
    reply.array(group.consumers_len());
    for (_, consumer) in group.consumers() {
        let inactive = consumer.active_ms.map_or(-1, |at| now_ms.wrapping_sub(at).cast_signed());
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(consumer.name());
        write_count(reply, "pending", consumer.pending_len() as u64);
        write_count(reply, "idle", now_ms.saturating_sub(consumer.seen_ms));
        reply.bulk(b"inactive");
        reply.integer(inactive);
    }
    Ok(Effect::None)
}

/// `XINFO GROUPS key`
fn groups(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let stream = call.db.read_as::<Stream>(call.args[2])?.ok_or(CommandError::NoSuchKey)?;
    let reply = &mut call.reply;
    reply.array(stream.groups_len());
    for group in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(group.name());
        write_count(reply, "consumers", group.consumers_len() as u64);
        write_count(reply, "pending", group.pending_len() as u64);
        write_progress(reply, &stream, group);
    }
    Ok(Effect::None)
}

/// How far a group has read: three pairs.
fn write_progress(reply: &mut Writer<'_>, stream: &Stream, group: &ConsumerGroup) {
    reply.bulk(b"last-delivered-id");
    write_id(reply, group.last_id);
    write_known(reply, "entries-read", group.entries_read);
    write_known(reply, "lag", stream.lag(group));
}

fn write_known(reply: &mut Writer<'_>, name: &str, number: Option<u64>) {
    reply.bulk(name.as_bytes());
    match number {
        Some(number) => reply.integer(number.cast_signed()),
        None => reply.null(),
    }
}

fn write_count(reply: &mut Writer<'_>, name: &str, number: u64) {
    reply.bulk(name.as_bytes());
    reply.integer(number.cast_signed());
}

/// `XINFO STREAM key [FULL [COUNT count]]`
fn stream(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let words = call.args;
    let stream = call.db.read_as::<Stream>(words[2])?.ok_or(CommandError::NoSuchKey)?;
    let count = match words[3..] {
        [] => None,
        [full] if args::is(full, "FULL") => Some(10),
        [full, count, value] if args::is(full, "FULL") && args::is(count, "COUNT") => {
            Some(match args::integer(value)? {
                0 => usize::MAX,
                some => usize::try_from(some).unwrap_or(10),
            })
        }
        _ => return Err(wrong_subcommand(words[1], HINT)),
    };
    let reply = &mut call.reply;
    reply.map(if count.is_some() { 9 } else { 10 });
    write_count(reply, "length", stream.len());
    write_count(reply, "radix-tree-keys", stream.blocks() as u64);
    write_count(reply, "radix-tree-nodes", stream.radix_tree_nodes() as u64);
    reply.bulk(b"last-generated-id");
    write_id(reply, stream.last_id());
    reply.bulk(b"max-deleted-entry-id");
    write_id(reply, stream.max_deleted_id());
    write_count(reply, "entries-added", stream.entries_added());
    reply.bulk(b"recorded-first-entry-id");
    write_id(reply, stream.first_id());
    let Some(count) = count else {
        write_count(reply, "groups", stream.groups_len() as u64);
        let ends = [
            ("first-entry", stream.range(StreamId::MIN, StreamId::MAX).next()),
            ("last-entry", stream.range_reversed(StreamId::MIN, StreamId::MAX).next()),
        ];
        for (name, entry) in ends {
            reply.bulk(name.as_bytes());
            match entry {
                Some(entry) => write_entry(reply, &entry),
                None => reply.null(),
            }
        }
        return Ok(Effect::None);
    };
    reply.bulk(b"entries");
    write_entries(reply, stream.range(StreamId::MIN, StreamId::MAX).take(count));
    reply.bulk(b"groups");
    reply.array(stream.groups_len());
    for group in stream.groups() {
        write_group(reply, &stream, group, count);
    }
    Ok(Effect::None)
}

/// All there is to know of a group, with so many pending entries of it and of each consumer.
fn write_group(reply: &mut Writer<'_>, stream: &Stream, group: &ConsumerGroup, count: usize) {
    reply.map(7);
    reply.bulk(b"name");
    reply.bulk(group.name());
    write_progress(reply, stream, group);
    write_count(reply, "pel-count", group.pending_len() as u64);
    reply.bulk(b"pending");
    reply.array(group.pending_len().min(count));
    for pending in group.pending_from(StreamId::MIN).take(count) {
        reply.array(4);
        write_id(reply, pending.id);
        reply.bulk(group.consumer(pending.consumer).name());
        write_delivery(reply, pending);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers_len());
    for (id, _) in group.consumers() {
        write_consumer(reply, group, id, count);
    }
}

fn write_consumer(reply: &mut Writer<'_>, group: &ConsumerGroup, id: ConsumerId, count: usize) {
    let consumer = group.consumer(id);
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(consumer.name());
    write_count(reply, "seen-time", consumer.seen_ms);
    reply.bulk(b"active-time");
    reply.integer(consumer.active_ms.map_or(-1, u64::cast_signed));
    write_count(reply, "pel-count", consumer.pending_len() as u64);
    reply.bulk(b"pending");
    reply.array(consumer.pending_len().min(count));
    for pending in group.pending_of(id, StreamId::MIN).take(count) {
        reply.array(3);
        write_id(reply, pending.id);
        write_delivery(reply, pending);
    }
}

fn write_delivery(reply: &mut Writer<'_>, pending: &Pending) {
    reply.integer(pending.delivered_ms.cast_signed());
    reply.integer(pending.deliveries.cast_signed());
}

/// `XINFO HELP`
fn help(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    const LINES: &[&str] = &[
        "XINFO <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CONSUMERS <key> <groupname>",
        "    Tells of the consumers of a group.",
        "GROUPS <key>",
        "    Tells of the groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]",
        "    Tells of a stream; FULL adds entries, groups and what is pending.",
        "HELP",
        "    These lines.",
    ];
    call.reply.array(LINES.len());
    for line in LINES {
        call.reply.simple(line);
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn a_stream_and_its_groups_are_described() {
        let mut bench = Bench::new();
        bench.expect("XINFO STREAM s", "-ERR no such key");
        bench.reply("XADD s 1-0 a 1");
        bench.reply("XADD s 2-0 a 2");
        bench.reply("XGROUP CREATE s g 0");
        bench.reply("XGROUP CREATE s h $");
        bench.reply("XREADGROUP GROUP g ann COUNT 1 STREAMS s >");
        bench.now_ms += 7;
        bench.reply("XGROUP CREATECONSUMER s g bob");
        bench.protocol = Protocol::Resp3;
        let head = "$6 length :2 $15 radix-tree-keys :1 $16 radix-tree-nodes :2 \
                    $17 last-generated-id $3 2-0 $20 max-deleted-entry-id $3 0-0 \
                    $13 entries-added :2 $23 recorded-first-entry-id $3 1-0";
        let (one, two) = ("*2 $3 1-0 *2 $1 a $1 1", "*2 $3 2-0 *2 $1 a $1 2");
        bench.expect(
            "XINFO STREAM s",
            &format!("%10 {head} $6 groups :2 $11 first-entry {one} $10 last-entry {two}"),
        );
        bench.expect(
            "XINFO GROUPS s",
            "*2 %6 $4 name $1 g $9 consumers :2 $7 pending :1 $17 last-delivered-id $3 1-0 \
             $12 entries-read :1 $3 lag :1 \
             %6 $4 name $1 h $9 consumers :0 $7 pending :0 $17 last-delivered-id $3 2-0 \
             $12 entries-read _ $3 lag :0",
        );
        bench.expect(
            "XINFO CONSUMERS s g",
            "*2 %4 $4 name $3 ann $7 pending :1 $4 idle :7 $8 inactive :7 \
             %4 $4 name $3 bob $7 pending :0 $4 idle :0 $8 inactive :-1",
        );
        let ann = "%5 $4 name $3 ann $9 seen-time :1700000000000 $11 active-time :1700000000000 \
                   $9 pel-count :1 $7 pending *1 *3 $3 1-0 :1700000000000 :1";
        let bob = "%5 $4 name $3 bob $9 seen-time :1700000000007 $11 active-time :-1 \
                   $9 pel-count :0 $7 pending *0";
        let group = format!(
            "%7 $4 name $1 g $17 last-delivered-id $3 1-0 $12 entries-read :1 $3 lag :1 \
             $9 pel-count :1 $7 pending *1 *4 $3 1-0 $3 ann :1700000000000 :1 \
             $9 consumers *2 {ann} {bob}"
        );
        bench.expect("XGROUP DESTROY s h", ":1");
        bench.expect(
            "XINFO STREAM s FULL COUNT 1",
            &format!("%9 {head} $7 entries *1 {one} $6 groups *1 {group}"),
        );
    }

    #[test]
    fn lag_is_told_where_it_is_known() {
        let mut bench = Bench::new();
        for ms in 1..=5 {
            bench.reply(&format!("XADD s {ms}-0 a 1"));
        }
        bench.reply("XGROUP CREATE s g 2-0");
        let mut lag = |request: &str| {
            bench.reply(request);
            let reply = bench.reply("XINFO GROUPS s").replace("\r\n", " ");
            let (_, lag) = reply.split_once("entries-read ").expect("the field is there");
            lag.trim_end().to_owned()
        };
        assert_eq!(lag("XLEN s"), "$-1 $3 lag $-1");
        assert_eq!(lag("XGROUP SETID s g 0"), "$-1 $3 lag :5");
        assert_eq!(lag("XREADGROUP GROUP g c COUNT 2 STREAMS s >"), ":2 $3 lag :3");
        assert_eq!(lag("XDEL s 1-0"), ":2 $3 lag :3");
        assert_eq!(lag("XDEL s 4-0"), ":2 $3 lag $-1");
        assert_eq!(lag("XREADGROUP GROUP g c STREAMS s >"), ":5 $3 lag :0");
        assert_eq!(lag("XTRIM s MAXLEN 0"), ":5 $3 lag :0");
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let mut bench = Bench::new();
        bench.reply("XADD s 1-0 a 1");
        let wrong = "-ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO \
                     HELP.";
        bench.expect("XINFO STREAM s FOO", wrong);
        bench.expect("XINFO STREAM s FULL COUNT", wrong);
        bench.expect("XINFO STREAM s FULL COUNT x", "-ERR value is not an integer or out of range");
        bench.expect("XINFO CONSUMERS s x", "-NOGROUP No such consumer group 'x' for key name 's'");
        bench.expect("XINFO GROUPS none", "-ERR no such key");
        bench.expect("XINFO FOO s", "-ERR unknown subcommand 'FOO'. Try XINFO HELP.");
    }
}
