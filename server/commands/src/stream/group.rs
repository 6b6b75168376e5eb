//! Making, changing and removing consumer groups and consumers: XGROUP.

use carnelian_keyspace::{EventClass, Mut};
use carnelian_structs::stream::{Stream, StreamId};

use super::{close, id, no_group_at_key, refused_id, unknown_subcommand, wrong_subcommand};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const XGROUP: DataCommand = DataCommand {
    name: "xgroup",
    summary: "Groups the commands on consumer groups.",
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
        DataCommand { since: "5.0.0", flags: MAKING, ..about("create", -5, INSERT, create) },
        DataCommand {
            summary: "Makes a consumer of a group.",
            since: "6.2.0",
            flags: MAKING,
            ..about("createconsumer", 5, INSERT, createconsumer)
        },
        DataCommand {
            summary: "Removes a consumer and what is pending for it.",
            ..about("delconsumer", 5, DELETE, delconsumer)
        },
        DataCommand {
            summary: "Removes a group.",
            complexity: "O(N) for N pending entries",
            ..about("destroy", 4, DELETE, destroy)
        },
        DataCommand {
            summary: "Explains the subcommands.",
            flags: Flags::LOADING.union(Flags::STALE),
            ..about("help", 2, &[], help)
        },
        DataCommand {
            summary: "Sets from where on a group reads.",
            ..about("setid", -5, UPDATE, setid)
        },
    ],
    run: unknown,
};

const MAKING: Flags = Flags::DENYOOM.union(Flags::WRITE);
const INSERT: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::INSERT), 2, 0, 1)];
const UPDATE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 2, 0, 1)];
const DELETE: &[KeySpec] = &[KeySpec::range(KeyFlags::RW.union(KeyFlags::DELETE), 2, 0, 1)];

/// A subcommand, as most are.
const fn about(name: &'static str, arity: i32, keys: &'static [KeySpec], run: Run) -> DataCommand {
    DataCommand {
        name,
        summary: "Makes a group.",
        since: "5.0.0",
        group: Group::Stream,
        complexity: "O(1)",
        arity,
        flags: Flags::WRITE,
        categories: Categories::STREAM,
        keys,
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

const HINT: &str = "'. Try XGROUP HELP.";

fn unknown(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    Err(unknown_subcommand(call.args[1], HINT))
}

fn no_stream() -> CommandError {
    CommandError::text(
        "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want \
         to use the MKSTREAM option to create an empty stream automatically.",
    )
}

/// What may follow the ID.
#[derive(Default)]
struct Options {
    make: bool,
    entries_read: Option<u64>,
}

impl Options {
    fn parse(words: &[&[u8]], may_make: bool) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut rest = words.iter().skip(5);
        while let Some(word) = rest.next() {
            if may_make && args::is(word, "MKSTREAM") {
                options.make = true;
                continue;
            }
            let value = rest.next().filter(|_| args::is(word, "ENTRIESREAD"));
            let value = value.ok_or_else(|| wrong_subcommand(words[1], HINT))?;
            options.entries_read = match args::integer(value)? {
                -1 => None,
                read => Some(u64::try_from(read).map_err(|_| {
                    CommandError::text("ERR value for ENTRIESREAD must be positive or -1")
                })?),
            };
        }
        Ok(options)
    }
}

/// `XGROUP CREATE key group id | $ [MKSTREAM] [ENTRIESREAD entries-read]`
fn create(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let words = call.args;
    let (key, name) = (words[2], words[3]);
    let options = Options::parse(words, true)?;
    // The key decides which of several errors is told.
    let last_id = match call.db.write_as::<Stream>(key)? {
        Some(stream) => {
            let last_id = stream.last_id();
            close(stream);
            Some(last_id)
        }
        None if options.make => None,
        None => return Err(no_stream()),
    };
    let start = match words[4] {
        _ if 8 < words.len() => return Err(wrong_subcommand(words[1], HINT)),
        b"$" => last_id.unwrap_or(StreamId::MIN),
        word => id(word)?,
    };
    let mut stream = call.db.write_or_insert(key, Stream::new)?;
    let is_new = stream.add_group(name, start, options.entries_read).is_some();
    if last_id.is_some() {
        close(stream);
    } else {
        drop(stream);
    }
    if !is_new {
        return Err(CommandError::text("BUSYGROUP Consumer Group name already exists"));
    }
    call.reply.ok();
    call.notify(EventClass::Stream, "xgroup-create", key);
    Ok(Effect::Verbatim)
}

/// The stream at the key of a subcommand that needs one.
fn stream_at<'c>(call: &'c mut Call<'_>) -> Result<Mut<'c, Stream>, CommandError> {
    call.db.write_as::<Stream>(call.args[2])?.ok_or_else(no_stream)
}

/// `XGROUP SETID key group id | $ [ENTRIESREAD entries-read]`
fn setid(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let words = call.args;
    let (key, name) = (words[2], words[3]);
    let options = Options::parse(words, false)?;
    let mut stream = stream_at(call)?;
    let id = match words[4] {
        _ if stream.group(name).is_none() => Err(no_group_at_key(key, name)),
        _ if !matches!(words.len(), 5 | 7) => Err(wrong_subcommand(words[1], HINT)),
        b"$" => Ok(stream.last_id()),
        word => StreamId::parse(word, 0).map_err(refused_id),
    };
    if let (Ok(id), Some((_, mut group))) = (&id, stream.group_mut(name)) {
        group.last_id = *id;
        group.entries_read = options.entries_read;
    }
    close(stream);
    id?;
    call.reply.ok();
    call.notify(EventClass::Stream, "xgroup-setid", key);
    Ok(Effect::Verbatim)
}

/// `XGROUP DESTROY key group`
fn destroy(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name) = (call.args[2], call.args[3]);
    let mut stream = stream_at(call)?;
    if !stream.remove_group(name) {
        close(stream);
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    // Those who wait for entries as members of the group are told; who watches the key is not.
    stream.rouse();
    call.reply.integer(1);
    call.notify(EventClass::Stream, "xgroup-destroy", key);
    Ok(Effect::Verbatim)
}

/// `XGROUP CREATECONSUMER key group consumer`
fn createconsumer(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, consumer, now_ms) = (call.args[2], call.args[3], call.args[4], call.now_ms());
    let mut stream = stream_at(call)?;
    let found = stream.group_mut(name);
    let made = found.map(|(_, mut group)| group.add_consumer(consumer, now_ms).is_some());
    close(stream);
    let made = made.ok_or_else(|| no_group_at_key(key, name))?;
    call.reply.integer(made.into());
    if !made {
        return Ok(Effect::None);
    }
    call.notify(EventClass::Stream, "xgroup-createconsumer", key);
    Ok(Effect::Verbatim)
}

/// `XGROUP DELCONSUMER key group consumer`
fn delconsumer(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, name, consumer) = (call.args[2], call.args[3], call.args[4]);
    let mut stream = stream_at(call)?;
    let removed = stream.group_mut(name).map(|(_, mut group)| group.remove_consumer(consumer));
    close(stream);
    let removed = removed.ok_or_else(|| no_group_at_key(key, name))?;
    call.reply.integer(removed.unwrap_or(0) as i64);
    if removed.is_none() {
        return Ok(Effect::None);
    }
    call.notify(EventClass::Stream, "xgroup-delconsumer", key);
    Ok(Effect::Verbatim)
}

/// `XGROUP HELP`
fn help(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    const LINES: &[&str] = &[
        "XGROUP <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        "CREATE <key> <groupname> <id|$> [option]",
        "    Makes a group that reads what is above the ID ($: what is yet to come). Options:",
        "    * MKSTREAM",
        "      Makes the stream if there is none.",
        "    * ENTRIESREAD entries_read",
        "      Sets the group's count of entries read.",
        "CREATECONSUMER <key> <groupname> <consumer>",
        "    Makes a consumer.",
        "DELCONSUMER <key> <groupname> <consumer>",
        "    Removes a consumer and what is pending for it.",
        "DESTROY <key> <groupname>",
        "    Removes a group.",
        "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
        "    Sets from where on a group reads, and its count of entries read.",
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
    use crate::bench::Bench;

    #[test]
    fn groups_and_consumers_come_and_go() {
        let mut bench = Bench::new();
        let needs_key = "-ERR The XGROUP subcommand requires the key to exist. Note that for \
                         CREATE you may want to use the MKSTREAM option to create an empty stream \
                         automatically.";
        bench.expect("XGROUP CREATE s g $", needs_key);
        let invalid = "-ERR Invalid stream ID specified as stream command argument";
        bench.expect("XGROUP CREATE s g x MKSTREAM", invalid);
        assert_eq!((bench.dirty, bench.touched), (0, 0));
        bench.expect("XGROUP CREATE s g $ MKSTREAM", "+OK");
        assert_eq!(bench.touched, 1);
        bench.expect("XGROUP CREATE s g 0", "-BUSYGROUP Consumer Group name already exists");
        bench.expect("XGROUP CREATE s h 0 ENTRIESREAD 7", "+OK");
        bench.expect("XGROUP CREATECONSUMER s g ann", ":1");
        bench.expect("XGROUP CREATECONSUMER s g ann", ":0");
        bench.expect("XGROUP DELCONSUMER s g bob", ":0");
        bench.expect("XGROUP SETID s g + ENTRIESREAD 3", "+OK");
        bench.expect("XGROUP DELCONSUMER s g ann", ":0");
        // Those who watch the key are not told of changes to groups.
        assert_eq!(bench.touched, 0);
        bench.expect("XGROUP DESTROY s g", ":1");
        bench.expect("XGROUP DESTROY s g", ":0");
        assert_eq!(
            bench.events,
            [
                "new s",
                "xgroup-create s",
                "xgroup-create s",
                "xgroup-createconsumer s",
                "xgroup-setid s",
                "xgroup-delconsumer s",
                "xgroup-destroy s"
            ]
        );
    }

    #[test]
    fn requests_that_make_no_sense_are_refused() {
        let mut bench = Bench::new();
        bench.reply("XGROUP CREATE s g $ MKSTREAM");
        let no_group = "-NOGROUP No such consumer group 'x' for key name 's'";
        let wrong = |word| {
            format!(
                "-ERR unknown subcommand or wrong number of arguments for '{word}'. Try XGROUP \
                 HELP."
            )
        };
        bench.expect("XGROUP SETID s x 0", no_group);
        bench.expect("XGROUP CREATECONSUMER s x c", no_group);
        bench.expect("XGROUP DELCONSUMER s x c", no_group);
        bench.expect("XGROUP create s h 0 FOO", &wrong("create"));
        bench.expect("XGROUP SETID s g 0 MKSTREAM", &wrong("SETID"));
        bench.expect("XGROUP SETID s g 0 ENTRIESREAD", &wrong("SETID"));
        bench.expect("XGROUP SETID s g 0 ENTRIESREAD 1 ENTRIESREAD 1", &wrong("SETID"));
        bench.expect(
            "XGROUP CREATE s h 0 ENTRIESREAD -2",
            "-ERR value for ENTRIESREAD must be positive or -1",
        );
        bench.expect("XGROUP FOO s", "-ERR unknown subcommand 'FOO'. Try XGROUP HELP.");
    }
}
