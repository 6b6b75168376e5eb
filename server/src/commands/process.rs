//! SHUTDOWN and ROLE: the process as a whole, and its part in replication.

use carnelian_commands::{Categories, CommandError, Effect, Flags, args};

use crate::commands::{Context, command};
use crate::log;
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[
    ServerCommand {
        categories: Categories::ADMIN.union(Categories::DANGEROUS),
        ..command(
            "role",
            "Tells the server's part in replication.",
            "2.8.12",
            1,
            Flags::FAST.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE),
            role,
        )
    },
    command(
        "shutdown",
        "Ends the server in order.",
        "1.0.0",
        -1,
        Flags::ADMIN
            .union(Flags::ALLOW_BUSY)
            .union(Flags::LOADING)
            .union(Flags::NO_MULTI)
            .union(Flags::NOSCRIPT)
            .union(Flags::STALE),
        shutdown,
    ),
];

/// `ROLE`: a primary, its offset, its replicas.
fn role(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.array(3);
    context.reply.bulk(b"master");
    context.reply.integer(0);
    context.reply.array(0);
    Ok(Effect::None)
}

/// What SHUTDOWN is to do.
#[derive(Debug, PartialEq)]
enum Shutdown {
    End {
        save: bool,
        /// Even where not all can be done that should be done before.
        force: bool,
    },
    Abort,
}

impl Shutdown {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let (mut save, mut nosave, mut now, mut force, mut abort) =
            (false, false, false, false, false);
        for word in words {
            let flag = match () {
                () if args::is(word, "NOSAVE") => &mut nosave,
                () if args::is(word, "SAVE") => &mut save,
                () if args::is(word, "NOW") => &mut now,
                () if args::is(word, "FORCE") => &mut force,
                () if args::is(word, "ABORT") => &mut abort,
                () => return Err(CommandError::Syntax),
            };
            *flag = true;
        }
        if abort && (save || nosave || now || force) || save && nosave {
            return Err(CommandError::Syntax);
        }
        Ok(if abort { Self::Abort } else { Self::End { save, force } })
    }
}

/// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]`
///
/// Nothing is answered: the end of the connection is the answer. There are no snapshots yet, so a
/// client that insists on one is refused rather than left without its data.
fn shutdown(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let words = &context.args[1..];
    let parsed = Shutdown::parse(words)?;
    let database = &context.session.database;
    let is_nosave = words.iter().any(|word| word.eq_ignore_ascii_case(b"nosave"));
    // What a script has done by half must not be saved.
    if parsed != Shutdown::Abort && !is_nosave && database.keyspace.is_busy() {
        return Err(CommandError::text(database.scripting.busy_text()));
    }
    match parsed {
        Shutdown::Abort => Err(CommandError::text("ERR No shutdown in progress.")),
        Shutdown::End { save: true, force: false } => {
            log::warning!(
                "Error trying to save the DB, can't exit: this version has no snapshots."
            );
            Err(CommandError::text("ERR Errors trying to SHUTDOWN. Check logs."))
        }
        Shutdown::End { .. } => {
            context.worker.server.request_shutdown();
            Ok(Effect::None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Shutdown, CommandError> {
        let words: Vec<&[u8]> = text.split_ascii_whitespace().map(str::as_bytes).collect();
        Shutdown::parse(&words)
    }

    #[test]
    fn shutdown_takes_the_combinations_of_redis() {
        assert_eq!(parse(""), Ok(Shutdown::End { save: false, force: false }));
        assert_eq!(parse("nosave now FORCE"), Ok(Shutdown::End { save: false, force: true }));
        assert_eq!(parse("save"), Ok(Shutdown::End { save: true, force: false }));
        assert_eq!(parse("abort"), Ok(Shutdown::Abort));
        for bad in ["foo", "save nosave", "abort now", "abort nosave"] {
            assert_eq!(parse(bad), Err(CommandError::Syntax), "{bad}");
        }
    }
}
