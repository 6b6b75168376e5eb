//! Commands to publish and to subscribe.

use carnelian_commands::{CommandError, Effect, Flags, Group, KeyFlags, KeySpec};
use carnelian_structs::glob;

use crate::commands::{Context, help};
use crate::dispatch;
use crate::pubsub::{Kind, publish};
use crate::registry::{ServerCommand, ServerRun};

const USUAL: Flags = Flags::LOADING.union(Flags::PUBSUB).union(Flags::STALE);
const SUBSCRIBING: Flags = USUAL.union(Flags::NOSCRIPT);
const PUBLISHING: Flags = USUAL.union(Flags::FAST);
const HELP: Flags = Flags::LOADING.union(Flags::STALE);

const SHARD_CHANNELS: &[KeySpec] = &[KeySpec::range(KeyFlags::NOT_KEY, 1, -1, 1)];
const SHARD_CHANNEL: &[KeySpec] = &[KeySpec::range(KeyFlags::NOT_KEY, 1, 0, 1)];

pub const TABLE: &[ServerCommand] = &[
    ServerCommand {
        complexity: "O(N) in the number of patterns",
        ..command(
            "psubscribe",
            "Listens to the channels whose names match patterns.",
            "2.0.0",
            -2,
            SUBSCRIBING,
            |context| subscribe(context, Kind::Pattern),
        )
    },
    ServerCommand {
        complexity: "O(N+M) in the channel's subscribers and the patterns of all clients",
        ..command(
            "publish",
            "Sends a message to whoever listens to a channel.",
            "2.0.0",
            3,
            PUBLISHING,
            |context| send(context, Kind::Channel),
        )
    },
    ServerCommand {
        complexity: "Depends on the subcommand",
        subcommands: &[
            ServerCommand {
                complexity: "O(N) in the number of channels",
                ..command(
                    "channels",
                    "Returns the channels that have subscribers.",
                    "2.8.0",
                    -2,
                    USUAL,
                    |context| channels(context, Kind::Channel),
                )
            },
            command("help", "Lists the subcommands.", "6.2.0", 2, HELP, help),
            command(
                "numpat",
                "Returns how many patterns have subscribers.",
                "2.8.0",
                2,
                USUAL,
                numpat,
            ),
            ServerCommand {
                complexity: "O(N) in the number of channels asked for",
                ..command(
                    "numsub",
                    "Returns how many subscribers channels have, patterns left aside.",
                    "2.8.0",
                    -2,
                    USUAL,
                    |context| numsub(context, Kind::Channel),
                )
            },
            ServerCommand {
                complexity: "O(N) in the number of shard channels",
                ..command(
                    "shardchannels",
                    "Returns the shard channels that have subscribers.",
                    "7.0.0",
                    -2,
                    USUAL,
                    |context| channels(context, Kind::Shard),
                )
            },
            ServerCommand {
                complexity: "O(N) in the number of shard channels asked for",
                ..command(
                    "shardnumsub",
                    "Returns how many subscribers shard channels have.",
                    "7.0.0",
                    -2,
                    USUAL,
                    |context| numsub(context, Kind::Shard),
                )
            },
        ],
        ..command("pubsub", "Commands about channels.", "2.8.0", -2, Flags::empty(), help)
    },
    ServerCommand {
        complexity: "O(N) in the number of patterns",
        ..command(
            "punsubscribe",
            "Ends subscriptions to patterns, or all of them.",
            "2.0.0",
            -1,
            SUBSCRIBING,
            |context| unsubscribe(context, Kind::Pattern),
        )
    },
    ServerCommand {
        complexity: "O(N) in the shard channel's subscribers",
        keys: SHARD_CHANNEL,
        ..command(
            "spublish",
            "Sends a message to whoever listens to a shard channel.",
            "7.0.0",
            3,
            PUBLISHING,
            |context| send(context, Kind::Shard),
        )
    },
    ServerCommand {
        complexity: "O(N) in the number of shard channels",
        keys: SHARD_CHANNELS,
        ..command("ssubscribe", "Listens to shard channels.", "7.0.0", -2, SUBSCRIBING, |context| {
            subscribe(context, Kind::Shard)
        })
    },
    ServerCommand {
        complexity: "O(N) in the number of channels",
        ..command("subscribe", "Listens to channels.", "2.0.0", -2, SUBSCRIBING, |context| {
            subscribe(context, Kind::Channel)
        })
    },
    ServerCommand {
        complexity: "O(N) in the number of shard channels",
        keys: SHARD_CHANNELS,
        ..command(
            "sunsubscribe",
            "Ends subscriptions to shard channels, or all of them.",
            "7.0.0",
            -1,
            SUBSCRIBING,
            |context| unsubscribe(context, Kind::Shard),
        )
    },
    ServerCommand {
        complexity: "O(N) in the number of channels",
        ..command(
            "unsubscribe",
            "Ends subscriptions to channels, or all of them.",
            "2.0.0",
            -1,
            SUBSCRIBING,
            |context| unsubscribe(context, Kind::Channel),
        )
    },
];

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        group: Group::PubSub,
        ..super::command(name, summary, since, arity, flags, run)
    }
}

const fn confirmations(kind: Kind) -> (&'static [u8], &'static [u8]) {
    match kind {
        Kind::Channel => (b"subscribe", b"unsubscribe"),
        Kind::Pattern => (b"psubscribe", b"punsubscribe"),
        Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
    }
}

/// `SUBSCRIBE channel [channel ...]` and its like: one confirmation for each.
fn subscribe(context: &mut Context<'_>, kind: Kind) -> Result<Effect, CommandError> {
    let names = &context.args[1..];
    for name in names {
        context.session.subscribe(kind, name);
        let count = context.session.subscription_count(kind);
        confirm(context, confirmations(kind).0, Some(name), count);
    }
    Ok(Effect::None)
}

/// `UNSUBSCRIBE [channel ...]` and its like: one confirmation for each, and one if there was nothing
/// to end.
fn unsubscribe(context: &mut Context<'_>, kind: Kind) -> Result<Effect, CommandError> {
    let word = confirmations(kind).1;
    for name in &context.args[1..] {
        context.session.unsubscribe(kind, name);
        let count = context.session.subscription_count(kind);
        confirm(context, word, Some(name), count);
    }
    if context.args.len() == 1 {
        let before = context.reply.len();
        let reply = &mut context.reply;
        context.session.unsubscribe_all(kind, |name, count| {
            reply.push(3);
            reply.bulk(word);
            reply.bulk(name);
            reply.integer(count as i64);
        });
        context.session.keeps_reply = true;
        if context.reply.len() == before {
            let count = context.session.subscription_count(kind);
            confirm(context, word, None, count);
        }
    }
    Ok(Effect::None)
}

/// Tells the client what it is subscribed to now. CLIENT REPLY does not silence that.
fn confirm(context: &mut Context<'_>, word: &[u8], name: Option<&[u8]>, count: usize) {
    let reply = &mut context.reply;
    reply.push(3);
    reply.bulk(word);
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.integer(count as i64);
    context.session.keeps_reply = true;
}

/// `PUBLISH channel message` and `SPUBLISH`
fn send(context: &mut Context<'_>, kind: Kind) -> Result<Effect, CommandError> {
    let [_, name, message] = context.args else {
        return Err(CommandError::Arity(context.entry.full_name.clone().into()));
    };
    let session = &*context.session;
    let database = &session.database;
    let receivers = publish(context.worker, database, Some(session), kind, name, message);
    context.reply.integer(receivers as i64);
    if database.replication.primary.is_attended() && database.log.is_followed() {
        let unit = &mut context.worker.scratch.unit;
        // It is not for the file, and one version of a unit costs less than two.
        if database.aof.is_on() {
            unit.for_replicas(session.db.into(), context.args);
        } else {
            unit.verbatim(session.db.into(), context.args);
        }
        if context.held.is_none() {
            dispatch::log_nested(context.worker, context.session);
        }
    }
    Ok(Effect::None)
}

/// `PUBSUB CHANNELS [pattern]` and `PUBSUB SHARDCHANNELS [pattern]`
fn channels(context: &mut Context<'_>, kind: Kind) -> Result<Effect, CommandError> {
    let pattern = match context.args {
        [_, _] => None,
        [_, _, pattern] => Some(*pattern),
        _ => return Err(wrong_subcommand(context.args[1])),
    };
    let reply = &mut context.reply;
    let mark = reply.defer();
    let mut count = 0;
    context.session.database.pubsub.of(kind).for_each(|channel| {
        if pattern.is_none_or(|pattern| glob::matches(pattern, &channel.name, false)) {
            reply.bulk(&channel.name);
            count += 1;
        }
    });
    reply.finish_array(mark, count);
    Ok(Effect::None)
}

/// `PUBSUB NUMSUB [channel ...]` and `PUBSUB SHARDNUMSUB [channel ...]`
fn numsub(context: &mut Context<'_>, kind: Kind) -> Result<Effect, CommandError> {
    let names = &context.args[2..];
    context.reply.array(names.len() * 2);
    for name in names {
        let channel = context.session.database.pubsub.of(kind).find(name);
        context.reply.bulk(name);
        context.reply.integer(channel.map_or(0, |channel| channel.subscribers()) as i64);
    }
    Ok(Effect::None)
}

/// `PUBSUB NUMPAT`
fn numpat(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let patterns = context.session.database.pubsub.of(Kind::Pattern).len();
    context.reply.integer(patterns as i64);
    Ok(Effect::None)
}

fn wrong_subcommand(word: &[u8]) -> CommandError {
    let word = &word[..word.len().min(128)];
    let start = "ERR unknown subcommand or wrong number of arguments for '";
    CommandError::quoting(start, word, "'. Try PUBSUB HELP.")
}
