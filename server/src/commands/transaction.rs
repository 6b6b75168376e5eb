//! MULTI, EXEC, DISCARD, WATCH and UNWATCH.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, KeyFlags, KeySpec};

use crate::commands::{Context, Reach};
use crate::registry::{ServerCommand, ServerRun};
use crate::transaction::{self, Watched};
use crate::waiters::Watch;

const CONTROL: Flags = Flags::ALLOW_BUSY
    .union(Flags::FAST)
    .union(Flags::LOADING)
    .union(Flags::NOSCRIPT)
    .union(Flags::STALE);

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    complexity: &'static str,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        group: Group::Transactions,
        complexity,
        categories: Categories::TRANSACTION,
        ..super::command(name, summary, since, 1, CONTROL, run)
    }
}

pub const TABLE: &[ServerCommand] = &[
    command(
        "multi",
        "Begins a transaction: commands are queued until EXEC.",
        "1.2.0",
        "O(1)",
        multi,
    ),
    ServerCommand {
        flags: Flags::LOADING.union(Flags::NOSCRIPT).union(Flags::SKIP_SLOWLOG).union(Flags::STALE),
        ..command(
            "exec",
            "Runs the queued commands as one.",
            "1.2.0",
            "That of the commands",
            transaction::execute,
        )
    },
    command("discard", "Forgets the queued commands.", "2.0.0", "O(N) for N commands", discard),
    ServerCommand {
        arity: -2,
        keys: &[KeySpec::range(KeyFlags::RO, 1, -1, 1)],
        ..command(
            "watch",
            "Has EXEC run nothing if one of the keys changes before it.",
            "2.2.0",
            "O(1) for each key",
            watch,
        )
    },
    command("unwatch", "Forgets the watched keys.", "2.2.0", "O(N) for N keys", unwatch),
];

/// `MULTI`
fn multi(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.transaction.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    context.session.transaction = Some(Box::default());
    context.session.shared.queued.store(0, Ordering::Relaxed);
    context.reply.ok();
    Ok(Effect::None)
}

/// `DISCARD`
fn discard(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.transaction.is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    context.session.discard();
    context.reply.ok();
    Ok(Effect::None)
}

/// `WATCH key [key ...]`
fn watch(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.transaction.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let keys = &context.args[1..];
    let database = context.database;
    let client = context.session.shared.id;
    let index = usize::from(context.session.db);
    let mut watched = context.session.watched.take().unwrap_or_else(|| {
        database.waiters.watching.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch::of(&context.session.shared));
        Box::new(Watched { keys: Vec::new(), watch })
    });
    if database.keyspace.is_busy() {
        // The locks may be this thread's own, under a script. EXEC will find what has expired by now.
        for key in keys {
            if database.waiters.watch(index, key, client, &watched.watch) {
                watched.keys.push((index, (*key).into()));
            }
        }
    } else if !watched.watch.is_broken() {
        // (Once a watch is broken EXEC will run nothing, so more keys change nothing.)
        context.with_data(Reach::Keys(keys), |call| {
            for key in keys {
                // What has expired by now goes first, so that its end breaks no watch.
                call.db.exists(key);
                if database.waiters.watch(index, key, client, &watched.watch) {
                    watched.keys.push((index, (*key).into()));
                }
            }
        });
    }
    context.session.shared.watched.store(watched.keys.len(), Ordering::Relaxed);
    context.session.watched = Some(watched);
    context.reply.ok();
    Ok(Effect::None)
}

/// `UNWATCH`
fn unwatch(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.unwatch();
    context.reply.ok();
    Ok(Effect::None)
}
