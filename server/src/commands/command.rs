//! COMMAND: the command table as clients see it.

mod docs;
mod usage;

use carnelian_commands::{
    Begin, Categories, CommandError, Effect, Find, Flags, KeyFlags, KeySpec, args,
};
use carnelian_resp::Writer;
use carnelian_structs::glob;

use crate::commands::{Context, help};
use crate::keys;
use crate::registry::{Entry, Registry, ServerCommand, ServerRun};

use docs::docs;

const FLAGS: Flags = Flags::LOADING.union(Flags::STALE);
const UNORDERED: &[&str] = &["nondeterministic_output_order"];

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        complexity: "O(N) in the number of commands",
        categories: Categories::CONNECTION,
        ..super::command(name, summary, since, arity, FLAGS, run)
    }
}

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    tips: UNORDERED,
    subcommands: &[
        command("count", "Counts the commands.", "2.8.13", 2, count),
        ServerCommand {
            tips: UNORDERED,
            ..command("docs", "Describes commands.", "7.0.0", -2, docs)
        },
        command("getkeys", "Finds the keys of a request.", "2.8.13", -3, getkeys),
        command(
            "getkeysandflags",
            "Finds the keys of a request and what it does to them.",
            "7.0.0",
            -3,
            getkeysandflags,
        ),
        command("help", "Lists the subcommands.", "5.0.0", 2, help),
        ServerCommand {
            tips: UNORDERED,
            ..command("info", "Gives the facts of commands.", "2.8.13", -2, info)
        },
        ServerCommand {
            tips: UNORDERED,
            ..command("list", "Lists command names.", "7.0.0", -2, list)
        },
    ],
    ..command("command", "Gives the facts of all commands.", "2.8.13", -1, all)
}];

/// `COMMAND`
fn all(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let registry = context.registry;
    context.reply.array(registry.visible().count());
    for entry in registry.visible() {
        write_facts(&mut context.reply, registry, entry);
    }
    Ok(Effect::None)
}

/// `COMMAND COUNT`
fn count(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.integer(context.registry.visible().count() as i64);
    Ok(Effect::None)
}

/// `COMMAND INFO [name ...]`
fn info(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let names = &context.args[2..];
    if names.is_empty() {
        return all(context);
    }
    context.reply.array(names.len());
    for name in names {
        match context.registry.find_full(name) {
            Some(entry) => write_facts(&mut context.reply, context.registry, entry),
            None => context.reply.null_array(),
        }
    }
    Ok(Effect::None)
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
fn list(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let registry = context.registry;
    let chosen: Box<dyn Fn(&Entry) -> bool> = match &context.args[2..] {
        [] => Box::new(|_| true),
        [word, kind, value] if args::is(word, "FILTERBY") => {
            if args::is(kind, "MODULE") {
                Box::new(|_| false)
            } else if args::is(kind, "ACLCAT") {
                let category = Categories::by_name(value);
                Box::new(move |entry| category.is_some_and(|bit| entry.categories().contains(bit)))
            } else if args::is(kind, "PATTERN") {
                let pattern = value.to_vec();
                Box::new(move |entry| glob::matches(&pattern, entry.full_name.as_bytes(), true))
            } else {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    let all = registry.entries().iter().filter(|entry| match entry.container {
        Some(container) => registry.is_visible(registry.entry(container)),
        None => registry.is_visible(entry),
    });
    let names: Vec<&str> =
        all.filter(|entry| chosen(entry)).map(|entry| entry.full_name.as_str()).collect();
    context.reply.array(names.len());
    for name in names {
        context.reply.bulk(name.as_bytes());
    }
    Ok(Effect::None)
}

/// `COMMAND GETKEYS command [argument ...]`
fn getkeys(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let keys = keys_of(context)?;
    context.reply.array(keys.len());
    for (key, _) in keys {
        context.reply.bulk(key);
    }
    Ok(Effect::None)
}

/// `COMMAND GETKEYSANDFLAGS command [argument ...]`
fn getkeysandflags(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let keys = keys_of(context)?;
    context.reply.array(keys.len());
    for (key, flags) in keys {
        context.reply.array(2);
        context.reply.bulk(key);
        write_words(&mut context.reply, flags.names());
    }
    Ok(Effect::None)
}

fn keys_of<'c>(context: &Context<'c>) -> Result<Vec<(&'c [u8], KeyFlags)>, CommandError> {
    let request = &context.args[2..];
    let mut entry = context
        .registry
        .find(request[0])
        .ok_or_else(|| CommandError::text("ERR Invalid command specified"))?;
    if let Some(word) = request.get(1)
        && !entry.subcommands.is_empty()
    {
        entry = context
            .registry
            .find_sub(entry, word)
            .ok_or_else(|| CommandError::text("ERR Invalid command specified"))?;
    }
    if entry.keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    if !entry.accepts(request.len()) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    let found = keys::for_each(entry, request, |index, flags| keys.push((request[index], flags)));
    // A count of zero is no count, and then the other keys are not told either.
    let counted = |spec: &KeySpec| matches!(spec.find, Find::Count { .. });
    if found.is_err() || (entry.keys.iter().any(counted) && keys.len() < entry.keys.len()) {
        keys.clear();
    }
    if keys.is_empty() && !entry.flags.contains(Flags::NO_MANDATORY_KEYS) {
        return Err(CommandError::text("ERR Invalid arguments specified for command"));
    }
    Ok(keys)
}

fn write_facts(reply: &mut Writer<'_>, registry: &Registry, entry: &Entry) {
    reply.array(10);
    reply.bulk(entry.full_name.as_bytes());
    reply.integer(i64::from(entry.arity));
    write_words(reply, entry.flags.names());
    let (first, last, step) = entry.legacy_keys();
    for position in [first, last, step] {
        reply.integer(position);
    }
    let categories: Vec<&str> = entry.categories().names().collect();
    reply.set(categories.len());
    for category in categories {
        reply.simple(&format!("@{category}"));
    }
    reply.set(entry.tips().len());
    for tip in entry.tips() {
        reply.bulk(tip.as_bytes());
    }
    reply.set(entry.keys.len());
    for spec in entry.keys {
        write_spec(reply, spec);
    }
    reply.set(entry.subcommands.len());
    for &(_, id) in &entry.subcommands {
        write_facts(reply, registry, registry.entry(id));
    }
}

fn write_words<'w>(reply: &mut Writer<'_>, words: impl Iterator<Item = &'w str>) {
    let words: Vec<&str> = words.collect();
    reply.set(words.len());
    for word in words {
        reply.simple(word);
    }
}

fn write_spec(reply: &mut Writer<'_>, spec: &KeySpec) {
    reply.map(3);
    reply.bulk(b"flags");
    write_words(reply, spec.flags.names());
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => write_step(reply, "index", &[("index", index as i64)]),
        Begin::Unknown => write_step(reply, "unknown", &[]),
        Begin::Keyword { keyword, from } => {
            write_kind(reply, "keyword");
            reply.map(2);
            reply.bulk(b"keyword");
            reply.bulk(keyword.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(i64::from(from));
        }
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => write_step(
            reply,
            "range",
            &[("lastkey", i64::from(last)), ("keystep", step as i64), ("limit", limit as i64)],
        ),
        Find::Count { count, first, step } => write_step(
            reply,
            "keynum",
            &[("keynumidx", count as i64), ("firstkey", first as i64), ("keystep", step as i64)],
        ),
        Find::Unknown => write_step(reply, "unknown", &[]),
    }
}

fn write_kind(reply: &mut Writer<'_>, kind: &str) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
}

fn write_step(reply: &mut Writer<'_>, kind: &str, numbers: &[(&str, i64)]) {
    write_kind(reply, kind);
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}
