//! Reading a stream: XLEN, XRANGE, XREVRANGE.

use carnelian_resp::Writer;
use carnelian_structs::stream::{Entry, Piece, Stream, StreamId};

use super::{LOOK, READ, refused_id};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XLEN: DataCommand = DataCommand {
    name: "xlen",
    summary: "Counts the entries of a stream.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(1)",
    arity: 2,
    flags: Flags::FAST.union(Flags::READONLY),
    categories: Categories::STREAM,
    keys: LOOK,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xlen,
};

pub(super) const XRANGE: DataCommand = DataCommand {
    name: "xrange",
    summary: "Returns the entries of a stream between two IDs.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::STREAM,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xrange,
};

pub(super) const XREVRANGE: DataCommand = DataCommand {
    name: "xrevrange",
    summary: "Returns the entries of a stream between two IDs, the newest first.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries returned",
    arity: -4,
    flags: Flags::READONLY,
    categories: Categories::STREAM,
    keys: READ,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xrevrange,
};

/// `XLEN key`
fn xlen(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let len = call.db.read_as::<Stream>(call.args[1])?.map_or(0, |stream| stream.len());
    call.reply.integer(len as i64);
    Ok(Effect::None)
}

/// `XRANGE key start end [COUNT count]`
fn xrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    range(call, call.args[2], call.args[3], |stream, start, end, count, reply| {
        write_entries(reply, stream.range(start, end).take(count))
    })
}

/// `XREVRANGE key end start [COUNT count]`
fn xrevrange(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    range(call, call.args[3], call.args[2], |stream, start, end, count, reply| {
        write_entries(reply, stream.range_reversed(start, end).take(count))
    })
}

fn range(
    call: &mut Call<'_>,
    start: &[u8],
    end: &[u8],
    write: impl FnOnce(&Stream, StreamId, StreamId, usize, &mut Writer<'_>),
) -> Result<Effect, CommandError> {
    let start = StreamId::parse_range_start(start).map_err(refused_id)?;
    let end = StreamId::parse_range_end(end).map_err(refused_id)?;
    let count = count(&call.args[4..])?;
    let reply = &mut call.reply;
    match call.db.read_as::<Stream>(call.args[1])? {
        None => reply.array(0),
        // Not an empty array, which would be the answer of an empty range.
        Some(_) if count == 0 => reply.null_array(),
        Some(stream) => write(&stream, start, end, count, reply),
    }
    Ok(Effect::None)
}

/// How many entries may be returned.
fn count(words: &[&[u8]]) -> Result<usize, CommandError> {
    let mut count = usize::MAX;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().filter(|_| args::is(word, "COUNT"));
        let value = args::integer(value.ok_or(CommandError::Syntax)?)?;
        count = usize::try_from(value.max(0)).unwrap_or(usize::MAX);
    }
    Ok(count)
}

/// Entries as arrays of an ID and an array of fields and values.
pub(super) fn write_entries<'s>(reply: &mut Writer<'_>, entries: impl Iterator<Item = Entry<'s>>) {
    let mark = reply.defer();
    let mut count = 0;
    for entry in entries {
        count += 1;
        write_entry(reply, &entry);
    }
    reply.finish_array(mark, count);
}

pub(super) fn write_entry(reply: &mut Writer<'_>, entry: &Entry<'_>) {
    reply.array(2);
    write_id(reply, entry.id);
    let fields = entry.fields();
    reply.array(2 * fields.len());
    for (field, value) in fields {
        write_piece(reply, field);
        write_piece(reply, value);
    }
}

pub(super) fn write_id(reply: &mut Writer<'_>, id: StreamId) {
    reply.bulk(id.format(&mut [0; StreamId::TEXT_BYTES_MAX]));
}

fn write_piece(reply: &mut Writer<'_>, piece: Piece<'_>) {
    match piece {
        Piece::Text(text) => reply.bulk(text),
        Piece::Integer(number) => reply.bulk_integer(number),
    }
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    #[test]
    fn ranges_go_both_ways() {
        let mut bench = Bench::new();
        bench.expect("XRANGE k - + COUNT 0", "*0");
        bench.expect("XADD k 1-1 a 1", "$3 1-1");
        bench.expect("XADD k 1-2 b x c -7", "$3 1-2");
        bench.expect("XADD k 3-0 a 2", "$3 3-0");
        let (first, second, third) = (
            "*2 $3 1-1 *2 $1 a $1 1",
            "*2 $3 1-2 *4 $1 b $1 x $1 c $2 -7",
            "*2 $3 3-0 *2 $1 a $1 2",
        );
        bench.expect("XRANGE k - +", &format!("*3 {first} {second} {third}"));
        bench.expect("XREVRANGE k + -", &format!("*3 {third} {second} {first}"));
        bench.expect("XRANGE k 1 1", &format!("*2 {first} {second}"));
        bench.expect("XRANGE k (1-1 (3-0", &format!("*1 {second}"));
        bench.expect("XRANGE k - + COUNT 1", &format!("*1 {first}"));
        bench.expect("XREVRANGE k + - COUNT 1", &format!("*1 {third}"));
        bench.expect("XRANGE k + -", "*0");
        bench.expect("XREVRANGE k - +", "*0");
        bench.expect("XRANGE k - + COUNT -1", "*-1");
        bench.protocol = Protocol::Resp3;
        bench.expect("XRANGE k - + COUNT 0", "_");
    }

    #[test]
    fn ranges_that_make_no_sense_are_refused() {
        let mut bench = Bench::new();
        let invalid = "-ERR Invalid stream ID specified as stream command argument";
        bench.expect("XRANGE k foo +", invalid);
        bench.expect("XRANGE k (- +", invalid);
        bench.expect("XREVRANGE k foo -", invalid);
        bench.expect("XRANGE k - (0-0", "-ERR invalid end ID for the interval");
        bench.expect(
            "XRANGE k (18446744073709551615-18446744073709551615 +",
            "-ERR invalid start ID for the interval",
        );
        bench.expect("XRANGE k - + COUNT", "-ERR syntax error");
        bench.expect("XRANGE k - + FOO 1", "-ERR syntax error");
        bench.expect("XRANGE k - + COUNT x", "-ERR value is not an integer or out of range");
    }
}
