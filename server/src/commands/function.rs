//! FUNCTION: libraries of functions.

use carnelian_commands::{Categories, CommandError, Effect, Flags};
use carnelian_scripting::{LibraryInfo, Loading, Restore};
use carnelian_structs::glob;

use super::scripting::{check_flush, command, error};
use crate::commands::{Context, help};
use crate::registry::ServerCommand;
use crate::scripting::{Figures, LoadHost};

const SHARDS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];
const CHANGES: Flags = Flags::NOSCRIPT.union(Flags::WRITE);
const GROWS: Flags = CHANGES.union(Flags::DENYOOM);

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    categories: Categories::empty(),
    complexity: "Depends on the subcommand",
    subcommands: SUBCOMMANDS,
    ..command("function", "Commands about functions.", "7.0.0", -2, Flags::empty(), help)
}];

const SUBCOMMANDS: &[ServerCommand] = &[
    ServerCommand {
        tips: SHARDS,
        ..command("delete", "Deletes a library.", "7.0.0", 3, CHANGES, delete)
    },
    ServerCommand {
        complexity: "O(N) for N functions",
        ..command("dump", "Gives all libraries as a payload.", "7.0.0", 2, Flags::NOSCRIPT, dump)
    },
    ServerCommand {
        complexity: "O(N) for N functions",
        tips: SHARDS,
        ..command("flush", "Deletes all libraries.", "7.0.0", -2, CHANGES, flush)
    },
    command(
        "help",
        "Describes the subcommands.",
        "7.0.0",
        2,
        Flags::LOADING.union(Flags::STALE),
        help,
    ),
    ServerCommand {
        tips: &["request_policy:all_shards", "response_policy:one_succeeded"],
        ..command(
            "kill",
            "Ends the running function.",
            "7.0.0",
            2,
            Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            kill,
        )
    },
    ServerCommand {
        complexity: "O(N) for N functions",
        tips: &["nondeterministic_output_order"],
        ..command("list", "Describes the libraries.", "7.0.0", -2, Flags::NOSCRIPT, list)
    },
    ServerCommand {
        complexity: "That of what the library does",
        tips: SHARDS,
        ..command("load", "Makes a library.", "7.0.0", -3, GROWS, load)
    },
    ServerCommand {
        complexity: "O(N) for N functions",
        tips: SHARDS,
        ..command("restore", "Makes the libraries of a payload.", "7.0.0", -3, GROWS, restore)
    },
    ServerCommand {
        tips: &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"],
        ..command(
            "stats",
            "Describes the running function and the engines.",
            "7.0.0",
            2,
            Flags::ALLOW_BUSY.union(Flags::NOSCRIPT),
            stats,
        )
    },
];

/// `FUNCTION LOAD [REPLACE] code`
fn load(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let mut loading = Loading::New;
    let (options, code) = match &context.args[2..] {
        [options @ .., code] => (options, *code),
        [] => return Err(CommandError::text("ERR Function code is missing")),
    };
    for option in options {
        if !option.eq_ignore_ascii_case(b"replace") {
            return Err(CommandError::quoting("ERR Unknown option given: ", option, ""));
        }
        loading = Loading::Replace;
    }
    context.with_log(|context, database| {
        let mut engine = database.scripting.engine(database)?;
        let mut host = LoadHost::new(&context.worker.clock);
        let name = engine.load_library(code, loading, &mut host).map_err(error)?;
        drop(engine);
        database.scripting.figures();
        context.reply.bulk(&name);
        Ok(())
    })
}

/// `FUNCTION DELETE name`
fn delete(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.with_log(|context, database| {
        if !database.scripting.engine(database)?.delete_library(context.args[2]) {
            return Err(CommandError::text("ERR Library not found"));
        }
        database.scripting.figures();
        context.reply.ok();
        Ok(())
    })
}

/// `FUNCTION FLUSH [ASYNC | SYNC]`
fn flush(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if 3 < context.args.len() {
        return Err(CommandError::text(
            "ERR unknown subcommand or wrong number of arguments for 'flush'. Try FUNCTION HELP.",
        ));
    }
    check_flush(context, "ERR FUNCTION FLUSH only supports SYNC|ASYNC option")?;
    context.with_log(|context, database| {
        database.scripting.engine(database)?.flush_libraries();
        database.scripting.figures();
        context.reply.ok();
        Ok(())
    })
}

/// `FUNCTION DUMP`
fn dump(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let payload = database.scripting.engine(database)?.dump_libraries();
    context.reply.bulk(&payload);
    Ok(Effect::None)
}

/// `FUNCTION RESTORE payload [FLUSH | APPEND | REPLACE]`
fn restore(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let policy = match &context.args[3..] {
        [] => Restore::Append,
        [word] if word.eq_ignore_ascii_case(b"append") => Restore::Append,
        [word] if word.eq_ignore_ascii_case(b"replace") => Restore::Replace,
        [word] if word.eq_ignore_ascii_case(b"flush") => Restore::Flush,
        [_] => {
            return Err(CommandError::text(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
        _ => {
            return Err(CommandError::text(
                "ERR unknown subcommand or wrong number of arguments for 'restore'. Try FUNCTION \
                 HELP.",
            ));
        }
    };
    context.with_log(|context, database| {
        let mut engine = database.scripting.engine(database)?;
        let mut host = LoadHost::new(&context.worker.clock);
        engine.restore_libraries(context.args[2], policy, &mut host).map_err(error)?;
        drop(engine);
        database.scripting.figures();
        context.reply.ok();
        Ok(())
    })
}

/// `FUNCTION KILL`
fn kill(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.session.database.scripting.kill(true)?;
    context.reply.ok();
    Ok(Effect::None)
}

/// `FUNCTION LIST [LIBRARYNAME pattern] [WITHCODE]`
fn list(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (mut with_code, mut pattern) = (false, None);
    let mut words = context.args[2..].iter();
    while let Some(word) = words.next() {
        if !with_code && word.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && word.eq_ignore_ascii_case(b"libraryname") {
            let given = words.next();
            pattern =
                Some(*given.ok_or_else(|| {
                    CommandError::text("ERR library name argument was not given")
                })?);
        } else {
            return Err(CommandError::quoting("ERR Unknown argument ", word, ""));
        }
    }
    let database = context.database;
    let engine = database.scripting.engine(database)?;
    let wanted = |library: &LibraryInfo<'_>| {
        pattern.is_none_or(|pattern| glob::matches(pattern, library.name, true))
    };
    let libraries: Vec<_> = engine.libraries().filter(wanted).collect();
    let reply = &mut context.reply;
    reply.array(libraries.len());
    for library in libraries {
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(library.name);
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(library.functions.len());
        for function in &library.functions {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(function.name);
            reply.bulk(b"description");
            match function.description {
                Some(description) => reply.bulk(description),
                None => reply.null(),
            }
            reply.bulk(b"flags");
            reply.set(function.flags.names().count());
            for flag in function.flags.names() {
                reply.simple(flag);
            }
        }
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(library.code);
        }
    }
    Ok(Effect::None)
}

/// `FUNCTION STATS`
fn stats(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = context.database;
    let running = database.scripting.running();
    if running.as_ref().is_some_and(|running| !running.is_function) {
        return Err(CommandError::text(crate::dispatch::BUSY));
    }
    // While a function runs the engine is its own: the figures are those of the last look.
    let Figures { libraries, functions, .. } = database.scripting.figures();
    let elapsed_us = context.worker.clock.elapsed_us();
    let reply = &mut context.reply;
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&running.name);
            reply.bulk(b"command");
            reply.array(running.command.len());
            for word in &running.command {
                reply.bulk(word);
            }
            reply.bulk(b"duration_ms");
            reply.integer((elapsed_us.saturating_sub(running.start_us) / 1000) as i64);
        }
    }
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.integer(libraries as i64);
    reply.bulk(b"functions_count");
    reply.integer(functions as i64);
    Ok(Effect::None)
}
