//! Deleting entries and setting the last ID: XDEL, XSETID.

use carnelian_keyspace::EventClass;
use carnelian_structs::stream::{Stream, StreamId};
use smallvec::SmallVec;

use super::{DELETE, UPDATE, id};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XDEL: DataCommand = DataCommand {
    name: "xdel",
    summary: "Deletes entries of a stream.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(1) for each entry",
    arity: -3,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: DELETE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xdel,
};

pub(super) const XSETID: DataCommand = DataCommand {
    name: "xsetid",
    summary: "Sets the last ID of a stream.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(1)",
    arity: -3,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: UPDATE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: xsetid,
};

/// `XDEL key id [id ...]`
fn xdel(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let Some(mut stream) = call.db.write_as::<Stream>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    // All are read before any is deleted: a request is refused whole.
    let ids: Result<SmallVec<[StreamId; 8]>, _> =
        call.args[2..].iter().map(|word| id(word)).collect();
    let ids = match ids {
        Ok(ids) => ids,
        Err(error) => {
            stream.unchanged();
            return Err(error);
        }
    };
    let deleted = ids.into_iter().filter(|&id| stream.delete(id)).count();
    call.reply.integer(deleted as i64);
    if deleted == 0 {
        stream.unchanged();
        return Ok(Effect::None);
    }
    drop(stream);
    call.notify(EventClass::Stream, "xdel", key);
    call.dirty(deleted);
    Ok(Effect::Verbatim)
}

/// What XSETID sets beside the last ID.
#[derive(Default)]
struct Counters {
    entries_added: Option<u64>,
    max_deleted_id: Option<StreamId>,
}

impl Counters {
    fn parse(words: &[&[u8]], last: StreamId) -> Result<Self, CommandError> {
        let mut counters = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if args::is(word, "ENTRIESADDED") {
                let negative = |_| CommandError::text("ERR entries_added must be positive");
                let added = u64::try_from(args::integer(value)?).map_err(negative)?;
                counters.entries_added = Some(added);
            } else if args::is(word, "MAXDELETEDID") {
                let id = id(value)?;
                if last < id {
                    return Err(CommandError::text(
                        "ERR The ID specified in XSETID is smaller than the provided \
                         max_deleted_entry_id",
                    ));
                }
                counters.max_deleted_id = Some(id);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(counters)
    }
}

/// `XSETID key id [ENTRIESADDED count] [MAXDELETEDID id]`
fn xsetid(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let last = id(call.args[2])?;
    let counters = Counters::parse(&call.args[3..], last)?;
    let mut stream = call.db.write_as::<Stream>(key)?.ok_or(CommandError::NoSuchKey)?;
    if let Err(error) = stream.set_id(last, counters.entries_added, counters.max_deleted_id) {
        stream.unchanged();
        return Err(CommandError::text(format!("ERR {error}")));
    }
    // Redis tells neither those who watch the key nor those who keep a copy of it.
    stream.unchanged();
    call.notify(EventClass::Stream, "xsetid", key);
    call.reply.ok();
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use carnelian_structs::stream::Stream;

    use crate::bench::Bench;

    #[test]
    fn entries_are_deleted_by_id() {
        let mut bench = Bench::new();
        bench.expect("XDEL k foo", ":0");
        bench.reply("XADD k 1-1 a 1");
        bench.reply("XADD k 2-1 a 1");
        let invalid = "-ERR Invalid stream ID specified as stream command argument";
        bench.expect("XDEL k 1-1 foo", invalid);
        bench.expect("XDEL k -", invalid);
        bench.expect("XDEL k 5-5", ":0");
        assert_eq!(bench.touched, 0);
        bench.expect("XDEL k 1-1 1-1 2-1", ":2");
        assert_eq!(bench.dirty, 2);
        bench.expect("XLEN k", ":0");
        assert_eq!(bench.look("k", |stream: &Stream| stream.max_deleted_id().to_string()), "2-1");
        bench.expect(
            "XADD k 1-1 a 1",
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
        );
    }

    #[test]
    fn the_last_id_may_not_go_below_what_is_there() {
        let mut bench = Bench::new();
        bench.expect("XSETID k 1-1", "-ERR no such key");
        bench.expect("XSETID k foo", "-ERR Invalid stream ID specified as stream command argument");
        bench.reply("XADD k 5-5 a 1");
        bench.expect(
            "XSETID k 1-1",
            "-ERR The ID specified in XSETID is smaller than the target stream top item",
        );
        bench.expect(
            "XSETID k 9-9 ENTRIESADDED 0",
            "-ERR The entries_added specified in XSETID is smaller than the target stream length",
        );
        bench.expect("XSETID k 9-9 ENTRIESADDED -1", "-ERR entries_added must be positive");
        bench.expect("XSETID k 9-9 ENTRIESADDED", "-ERR syntax error");
        bench.expect("XSETID k 9-9 FOO 1", "-ERR syntax error");
        bench.expect(
            "XSETID k 1-1 MAXDELETEDID 2-0",
            "-ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
        );
        assert_eq!(bench.touched, 0);
        bench.expect("XSETID k 9-9 ENTRIESADDED 7 MAXDELETEDID 8-0", "+OK");
        assert_eq!(bench.events.last().map(String::as_str), Some("xsetid k"));
        let seen = bench.look("k", |stream: &Stream| {
            format!("{} {} {}", stream.last_id(), stream.entries_added(), stream.max_deleted_id())
        });
        assert_eq!(seen, "9-9 7 8-0");
        bench.expect(
            "XSETID k 7-0",
            "-ERR The ID specified in XSETID is smaller than current max_deleted_entry_id",
        );
    }
}
