//! SHUTDOWN: the process as a whole.

use std::sync::Arc;

use carnelian_commands::{CommandError, Effect, Flags, Wait, args};
use carnelian_config::ShutdownFlags;

use crate::blocking::Waiter;
use crate::commands::{Context, command};
use crate::registry::ServerCommand;

pub const TABLE: &[ServerCommand] = &[command(
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
)];

/// What SHUTDOWN is to do.
#[derive(Debug, PartialEq)]
enum Shutdown {
    End(ShutdownFlags),
    Abort,
}

impl Shutdown {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut flags = ShutdownFlags::default();
        let mut abort = false;
        for word in words {
            let flag = match () {
                () if args::is(word, "NOSAVE") => &mut flags.nosave,
                () if args::is(word, "SAVE") => &mut flags.save,
                () if args::is(word, "NOW") => &mut flags.now,
                () if args::is(word, "FORCE") => &mut flags.force,
                () if args::is(word, "ABORT") => &mut abort,
                () => return Err(CommandError::Syntax),
            };
            *flag = true;
        }
        if abort && flags != ShutdownFlags::default() || flags.save && flags.nosave {
            return Err(CommandError::Syntax);
        }
        Ok(if abort { Self::Abort } else { Self::End(flags) })
    }
}

/// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]`
///
/// The end of the connection is the answer, unless it turns out that the server cannot end.
fn shutdown(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let flags = match Shutdown::parse(&context.args[1..])? {
        Shutdown::Abort if context.session.database.replication.primary.stay() => {
            context.reply.ok();
            return Ok(Effect::None);
        }
        Shutdown::Abort => return Err(CommandError::text("ERR No shutdown in progress.")),
        Shutdown::End(flags) => flags,
    };
    let session = &mut *context.session;
    let database = &session.database;
    // What a script has done by half must not be saved.
    if !flags.nosave && database.keyspace.is_busy() {
        return Err(CommandError::text(database.scripting.busy_text()));
    }
    let waiter = Waiter::enter(session, context.entry.id, context.args, Wait::default());
    session.waiter = Some(Arc::clone(&waiter));
    context.worker.server.request_shutdown(flags, waiter);
    Ok(Effect::None)
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
        let none = ShutdownFlags::default();
        assert_eq!(parse(""), Ok(Shutdown::End(none)));
        let all = ShutdownFlags { nosave: true, now: true, force: true, ..none };
        assert_eq!(parse("nosave now FORCE"), Ok(Shutdown::End(all)));
        assert_eq!(parse("save"), Ok(Shutdown::End(ShutdownFlags { save: true, ..none })));
        assert_eq!(parse("abort"), Ok(Shutdown::Abort));
        for bad in ["foo", "save nosave", "abort now", "abort nosave"] {
            assert_eq!(parse(bad), Err(CommandError::Syntax), "{bad}");
        }
    }
}
