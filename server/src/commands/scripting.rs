//! EVAL and its kin, FCALL, and SCRIPT.

use carnelian_commands::{Categories, CommandError, Effect, Flags, Group, KeyFlags, KeySpec};
use carnelian_resp::number::parse_i64;
use carnelian_scripting::{Flags as ScriptFlags, Outcome, Run};

use crate::commands::{Context, help};
use crate::database::Database;
use crate::debugger::{self, Debugging, Mode};
use crate::dispatch::{FENCED, MASTERDOWN, NOREPLICAS, Nesting, UNCONFIRMED};
use crate::registry::{ServerCommand, ServerRun};
use crate::replication::gate;
use crate::scripting::ScriptHost;
use crate::session::Session;

const RUNS: Flags = Flags::MOVABLEKEYS
    .union(Flags::NO_MANDATORY_KEYS)
    .union(Flags::NOSCRIPT)
    .union(Flags::SKIP_MONITOR)
    .union(Flags::STALE);

const WRITES: &[KeySpec] =
    &[KeySpec::counted(KeyFlags::RW.union(KeyFlags::ACCESS).union(KeyFlags::UPDATE), 2)];
const READS: &[KeySpec] = &[KeySpec::counted(KeyFlags::RO.union(KeyFlags::ACCESS), 2)];

const COMPLEXITY: &str = "That of what the script does";

pub(super) const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    flags: Flags,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand {
        group: Group::Scripting,
        categories: Categories::SCRIPTING,
        ..super::command(name, summary, since, arity, flags, run)
    }
}

pub const TABLE: &[ServerCommand] = &[
    ServerCommand {
        keys: WRITES,
        complexity: COMPLEXITY,
        ..command("eval", "Runs a script of Lua.", "2.6.0", -3, RUNS, eval)
    },
    ServerCommand {
        keys: READS,
        complexity: COMPLEXITY,
        ..command(
            "eval_ro",
            "Runs a script of Lua that only reads.",
            "7.0.0",
            -3,
            RUNS.union(Flags::READONLY),
            eval_ro,
        )
    },
    ServerCommand {
        keys: WRITES,
        complexity: COMPLEXITY,
        ..command("evalsha", "Runs a script by its digest.", "2.6.0", -3, RUNS, evalsha)
    },
    ServerCommand {
        keys: READS,
        complexity: COMPLEXITY,
        ..command(
            "evalsha_ro",
            "Runs a script that only reads by its digest.",
            "7.0.0",
            -3,
            RUNS.union(Flags::READONLY),
            evalsha_ro,
        )
    },
    ServerCommand {
        keys: WRITES,
        complexity: COMPLEXITY,
        ..command("fcall", "Calls a function.", "7.0.0", -3, RUNS, fcall)
    },
    ServerCommand {
        keys: READS,
        complexity: COMPLEXITY,
        ..command(
            "fcall_ro",
            "Calls a function that only reads.",
            "7.0.0",
            -3,
            RUNS.union(Flags::READONLY),
            fcall_ro,
        )
    },
    ServerCommand {
        categories: Categories::empty(),
        complexity: "Depends on the subcommand",
        subcommands: SCRIPT,
        ..command("script", "Commands about scripts.", "2.6.0", -2, Flags::empty(), help)
    },
];

const SCRIPT: &[ServerCommand] = &[
    command("debug", "Sets how scripts are debugged.", "3.2.0", 3, Flags::NOSCRIPT, debug),
    ServerCommand {
        complexity: "O(N) for N digests",
        tips: &["request_policy:all_shards", "response_policy:agg_logical_and"],
        ..command("exists", "Tells which scripts are kept.", "2.6.0", -3, Flags::NOSCRIPT, exists)
    },
    ServerCommand {
        complexity: "O(N) for N scripts",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..command("flush", "Forgets all scripts.", "2.6.0", -2, Flags::NOSCRIPT, flush)
    },
    command(
        "help",
        "Describes the subcommands.",
        "5.0.0",
        2,
        Flags::LOADING.union(Flags::STALE),
        help,
    ),
    ServerCommand {
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..command(
            "kill",
            "Ends the running script.",
            "2.6.0",
            2,
            Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            kill,
        )
    },
    ServerCommand {
        complexity: "O(N) for N bytes of source",
        tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
        ..command("load", "Keeps a script.", "2.6.0", 3, Flags::NOSCRIPT.union(Flags::STALE), load)
    },
    command(
        "show",
        "Shows a script by its digest.",
        "8.0.0",
        3,
        Flags::NOSCRIPT.union(Flags::STALE),
        show,
    ),
];

/// Whether a script may write: what its caller asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Any,
    ReadOnly,
}

/// `EVAL script numkeys [key ...] [arg ...]`
fn eval(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    evaluate(context, Access::Any)
}

fn eval_ro(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    evaluate(context, Access::ReadOnly)
}

fn evaluate(context: &mut Context<'_>, access: Access) -> Result<Effect, CommandError> {
    match context.session.debugging {
        Some(Debugging::Asked(mode)) => debugger::start(context, mode, access),
        _ => run(context, Source::Body, access),
    }
}

/// `EVALSHA sha1 numkeys [key ...] [arg ...]`
fn evalsha(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    run(context, Source::Digest, Access::Any)
}

fn evalsha_ro(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    run(context, Source::Digest, Access::ReadOnly)
}

/// `FCALL function numkeys [key ...] [arg ...]`
fn fcall(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    run(context, Source::Function, Access::Any)
}

fn fcall_ro(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    run(context, Source::Function, Access::ReadOnly)
}

/// What the first argument names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Body,
    Digest,
    Function,
}

fn run(context: &mut Context<'_>, source: Source, access: Access) -> Result<Effect, CommandError> {
    let words = context.args;
    let no_script = || CommandError::text("NOSCRIPT No matching script. Please use EVAL.");
    let no_function = || CommandError::text("ERR Function not found");
    if source == Source::Digest && words[1].len() != 40 {
        return Err(no_script());
    }
    if source == Source::Digest && context.session.debugging.is_some() {
        return Err(CommandError::text("ERR Please use EVAL instead of EVALSHA for debugging"));
    }
    let database = context.database;
    let count = match (count_keys(words, source), source) {
        // That there is no such function is said first.
        (count, Source::Function) => count,
        (count, _) => Ok(count?),
    };
    let protocol = context.session.protocol;
    let (registry, id) = (context.registry, context.entry.id);
    let mut reply = std::mem::take(&mut context.worker.script_reply);
    reply.clear();
    let out = &mut reply;
    let ran = context.with_nest(Nesting::Script, |nest, staged| {
        let mut engine = database.scripting.engine(database)?;
        let place = (registry, &**database);
        let db = nest.session.db;
        let outcome = if source == Source::Function {
            let handle = engine.function(words[1]).ok_or_else(no_function)?;
            let (flags, name) = (handle.flags(), Some(handle.name()));
            let (keys, arguments) = words[3..].split_at(count?);
            check_state(flags, nest.session, database)?;
            let is_read_only = read_only(flags, access)?;
            let mut host = ScriptHost::new(nest, place, words, name, flags, is_read_only, staged);
            let run = Run { keys, arguments, host: &mut host, protocol, out };
            engine.call_function(&handle, run)
        } else {
            let handle = match source {
                Source::Body => engine.script(words[1]).map_err(error)?,
                _ => engine.script_by_sha(words[1]).ok_or_else(no_script)?,
            };
            let (keys, arguments) = words[3..].split_at(count?);
            check_state(handle.flags, nest.session, database)?;
            let is_read_only = read_only(handle.flags, access)?;
            let mut host =
                ScriptHost::new(nest, place, words, None, handle.flags, is_read_only, staged);
            let run = Run { keys, arguments, host: &mut host, protocol, out };
            engine.run_script(&handle, run)
        };
        // What the script has selected is its own.
        nest.session.db = db;
        staged.extend_from_slice(out);
        match outcome {
            Outcome::Error { counted: false } if out.first() == Some(&b'-') => {
                let text = out[1..].strip_suffix(b"\r\n").unwrap_or_default().to_vec();
                Err(CommandError::Quoting(text.into()))
            }
            Outcome::Error { .. } => {
                // The command in it has been counted as an error, but the script has failed as well.
                nest.worker.counters(database).commands[id].failed.add(1);
                Ok(Effect::None)
            }
            _ => Ok(Effect::None),
        }
    });
    // Kept for the next script, unless it is large.
    reply.shrink_to(REPLY_KEPT);
    context.worker.script_reply = reply;
    ran?
}

/// How many of the words behind the third are keys, of EVAL.
pub(crate) fn count_script_keys(words: &[&[u8]]) -> Result<usize, CommandError> {
    count_keys(words, Source::Body)
}

/// How many of the words behind the third are keys.
fn count_keys(words: &[&[u8]], source: Source) -> Result<usize, CommandError> {
    let count = parse_i64(words[2]).ok_or_else(|| {
        CommandError::text(match source {
            Source::Function => "ERR Bad number of keys provided",
            _ => "ERR value is not an integer or out of range",
        })
    })?;
    if (words.len() as i64 - 3) < count {
        return Err(CommandError::text("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| CommandError::text("ERR Number of keys can't be negative"))
}

/// How much of the buffer for scripts' replies is kept.
const REPLY_KEPT: usize = 64 << 10;

/// Whether a script with these flags may not write.
pub(crate) fn read_only(flags: ScriptFlags, access: Access) -> Result<bool, CommandError> {
    let says_so = flags.contains(ScriptFlags::NO_WRITES);
    if access == Access::ReadOnly && !says_so && !flags.contains(ScriptFlags::COMPAT) {
        return Err(CommandError::text(
            "ERR Can not execute a script with write flag using *_ro command.",
        ));
    }
    Ok(says_so || access == Access::ReadOnly)
}

/// A script that says what it does is refused before it runs where it could need memory, or write what
/// cannot be saved. What replication refuses has been refused on arrival, but for EXEC it may have
/// changed since.
pub(crate) fn check_state(
    flags: ScriptFlags,
    session: &Session,
    database: &Database,
) -> Result<(), CommandError> {
    let gate = match session.primary {
        Some(_) => 0,
        None => database.replication.gate(),
    };
    if gate & gate::STALE != 0 && !flags.contains(ScriptFlags::ALLOW_STALE) {
        return Err(CommandError::text(match flags.contains(ScriptFlags::COMPAT) {
            true => MASTERDOWN,
            false => {
                "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and \
                 'allow-stale' flag is not set on the script."
            }
        }));
    }
    if gate & gate::UNCONFIRMED != 0 && !flags.contains(ScriptFlags::ALLOW_STALE) {
        return Err(CommandError::text(UNCONFIRMED));
    }
    if !flags.may_write() {
        return Ok(());
    }
    if gate & gate::READ_ONLY != 0 {
        let text = "READONLY Can not run script with write flag on readonly replica";
        return Err(CommandError::text(text));
    }
    if gate & gate::FENCED != 0 {
        return Err(CommandError::text(FENCED));
    }
    if gate & gate::LACKING != 0 {
        return Err(CommandError::text(NOREPLICAS));
    }
    if database.snapshots.refuses_writes() {
        return Err(CommandError::text(
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to \
             disk. Writable scripts are blocked. Use 'no-writes' flag for read only scripts.",
        ));
    }
    if database.aof.refuses_writes() {
        return Err(CommandError::text(format!(
            "MISCONF Redis is configured to persist data to AOF, but it's currently unable to persist to \
             disk. Writable scripts are blocked. Use 'no-writes' flag for read only scripts. AOF \
             error: {}",
            database.aof.trouble()
        )));
    }
    if session.is_out_of_memory && !flags.contains(ScriptFlags::ALLOW_OOM) {
        return Err(CommandError::text(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > \
             'maxmemory'",
        ));
    }
    Ok(())
}

/// An error of the engine, which leaves the code out.
pub(super) fn error(text: impl AsRef<[u8]>) -> CommandError {
    CommandError::Quoting([b"ERR ", text.as_ref()].concat().into())
}

/// `SCRIPT LOAD script`
fn load(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let sha = database.scripting.engine(database)?.load_script(context.args[2]).map_err(error)?;
    context.reply.bulk(&sha);
    Ok(Effect::None)
}

/// `SCRIPT EXISTS sha1 [sha1 ...]`
fn exists(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let engine = database.scripting.engine(database)?;
    let digests = &context.args[2..];
    context.reply.array(digests.len());
    for sha in digests {
        context.reply.integer(engine.script_exists(sha).into());
    }
    Ok(Effect::None)
}

/// `SCRIPT SHOW sha1`
fn show(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let engine = database.scripting.engine(database)?;
    match engine.script_body(context.args[2]) {
        Some(body) => context.reply.bulk(body),
        None => return Err(CommandError::text("NOSCRIPT No matching script. Please use EVAL.")),
    }
    Ok(Effect::None)
}

/// `SCRIPT FLUSH [ASYNC | SYNC]`
fn flush(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    check_flush(context, "ERR SCRIPT FLUSH only support SYNC|ASYNC option")?;
    let database = context.database;
    database.scripting.engine(database)?.flush_scripts();
    context.reply.ok();
    Ok(Effect::None)
}

/// The option of a FLUSH: both are done at once.
pub(super) fn check_flush(
    context: &Context<'_>,
    refusal: &'static str,
) -> Result<(), CommandError> {
    let is_option =
        |word: &&[u8]| word.eq_ignore_ascii_case(b"sync") || word.eq_ignore_ascii_case(b"async");
    match &context.args[2..] {
        [] => Ok(()),
        [word] if is_option(word) => Ok(()),
        _ => Err(CommandError::text(refusal)),
    }
}

/// `SCRIPT KILL`
fn kill(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.database.scripting.kill(false)?;
    context.reply.ok();
    Ok(Effect::None)
}

/// `SCRIPT DEBUG YES | SYNC | NO`
fn debug(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.debugging = match context.args[2].to_ascii_lowercase().as_slice() {
        b"no" => None,
        b"yes" => Some(Debugging::Asked(Mode::Apart)),
        b"sync" => Some(Debugging::Asked(Mode::InPlace)),
        _ => return Err(CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    };
    context.reply.ok();
    Ok(Effect::None)
}
