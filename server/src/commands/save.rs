//! SAVE, BGSAVE and LASTSAVE.

use std::sync::Arc;

use carnelian_commands::{Categories, CommandError, Effect, Flags, Wait, args};

use crate::blocking::Waiter;
use crate::commands::{Context, command};
use crate::dispatch::Nesting;
use crate::log;
use crate::registry::ServerCommand;
use crate::snapshot::{self, Claim, Purpose, Unbegun};

pub const TABLE: &[ServerCommand] = &[
    ServerCommand {
        complexity: "O(N) where N is the number of all keys",
        ..command(
            "save",
            "Writes all data into the file of snapshots, and answers then.",
            "1.0.0",
            1,
            Flags::ADMIN
                .union(Flags::NO_ASYNC_LOADING)
                .union(Flags::NO_MULTI)
                .union(Flags::NOSCRIPT),
            save,
        )
    },
    command(
        "bgsave",
        "Begins to write all data into the file of snapshots.",
        "1.0.0",
        -1,
        Flags::ADMIN.union(Flags::NO_ASYNC_LOADING).union(Flags::NOSCRIPT),
        bgsave,
    ),
    ServerCommand {
        categories: Categories::ADMIN.union(Categories::DANGEROUS),
        tips: &["nondeterministic_output"],
        ..command(
            "lastsave",
            "Tells when the last snapshot was written whole.",
            "1.0.0",
            1,
            Flags::FAST.union(Flags::LOADING).union(Flags::STALE),
            lastsave,
        )
    },
];

const IN_PROGRESS: CommandError =
    CommandError::Other(std::borrow::Cow::Borrowed("ERR Background save already in progress"));

/// What Redis answers where a snapshot could not be written; the log says why.
const FAILED: CommandError = CommandError::Other(std::borrow::Cow::Borrowed("ERR"));

/// `SAVE`
///
/// The client waits; others do not. If the append-only file is being rewritten, it waits for that too.
fn save(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.database.snapshots.running().is_some_and(Purpose::is_save) {
        return Err(IN_PROGRESS);
    }
    let session = &mut *context.session;
    let waiter = Waiter::enter(session, context.entry.id, context.args, Wait::default());
    let then = {
        let waiter = Arc::clone(&waiter);
        move |result: Result<(), _>| {
            let reply: &[u8] = if result.is_ok() { b"+OK\r\n" } else { b"-ERR\r\n" };
            waiter.finish(reply.to_vec());
        }
    };
    match snapshot::save_apart(context.database, then) {
        Ok(()) => {
            session.waiter = Some(waiter);
            Ok(Effect::None)
        }
        Err(error) => {
            log::warning!("Can't save: {error}");
            waiter.call_off();
            Err(FAILED)
        }
    }
}

/// `BGSAVE [SCHEDULE | CANCEL]`
fn bgsave(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let is_scheduled = match &context.args[1..] {
        [] => false,
        [word] if args::is(word, "SCHEDULE") => true,
        [word] if args::is(word, "CANCEL") => return cancel(context),
        _ => return Err(CommandError::Syntax),
    };
    let database = Arc::clone(&context.session.database);
    let running = database.snapshots.running();
    if running.is_some_and(Purpose::is_save) {
        return Err(IN_PROGRESS);
    }
    // A transaction holds locks: the cut comes after it.
    let is_queued = context.nesting == Nesting::Transaction;
    if is_queued || running.is_some() || database.keyspace.is_cut_open() {
        if !is_scheduled && !is_queued {
            return Err(refusal(context, &Unbegun::Taken));
        }
        database.snapshots.schedule();
        context.reply.simple("Background saving scheduled");
        return Ok(Effect::None);
    }
    let claim = claim(context)?;
    snapshot::start(claim).map_err(|unbegun| refusal(context, &unbegun))?;
    context.reply.simple("Background saving started");
    Ok(Effect::None)
}

/// `BGSAVE CANCEL`
fn cancel(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let snapshots = &context.session.database.snapshots;
    if snapshots.running() == Some(Purpose::Background) && snapshots.cancel() {
        log::notice!("Background saving will be aborted due to user request");
        context.reply.simple("Background saving cancelled");
    } else if snapshots.unschedule() {
        log::notice!("Scheduled background saving will be cancelled due to user request");
        context.reply.simple("Scheduled background saving cancelled");
    } else {
        let text = "ERR Background saving is currently not in progress or scheduled";
        return Err(CommandError::text(text));
    }
    Ok(Effect::None)
}

/// `LASTSAVE`: before the first snapshot, when the server started.
fn lastsave(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let last_s = context.session.database.snapshots.last_save_s();
    context.reply.integer(last_s as i64);
    Ok(Effect::None)
}

fn claim(context: &Context<'_>) -> Result<Claim, CommandError> {
    let database = &context.session.database;
    database.snapshots.claim(database, Purpose::Background).map_err(|running| match running {
        running if running.is_save() => IN_PROGRESS,
        _ => refusal(context, &Unbegun::Taken),
    })
}

fn refusal(context: &Context<'_>, unbegun: &Unbegun) -> CommandError {
    match unbegun {
        Unbegun::Busy(_) => CommandError::text(context.session.database.scripting.busy_text()),
        Unbegun::Taken => CommandError::text(
            "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE \
             in order to schedule a BGSAVE whenever possible.",
        ),
        Unbegun::NoThread => FAILED,
    }
}
