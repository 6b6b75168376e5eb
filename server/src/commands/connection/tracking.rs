//! CLIENT TRACKING and what belongs to it: invalidations for clients that cache what they read.

use carnelian_commands::{CommandError, Effect, args};

use crate::clients::bits;
use crate::commands::Context;
use crate::tracking::{Mode, check_prefixes};

/// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix ...] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub(super) fn turn(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let mode = parse(context)?;
    let session = &mut *context.session;
    let (shared, database) = (&session.shared, &session.database);
    if mode.is_on {
        check(&mode, shared.flags.load(std::sync::atomic::Ordering::Relaxed))?;
        if mode.flags & bits::BCAST != 0 {
            check_prefixes(shared, &mode.prefixes)?;
        }
        database.tracking.turn_on(database, shared, &mode);
    } else {
        database.tracking.turn_off(database, shared);
        session.caching = false;
    }
    session.tracks = mode.is_on && mode.flags & bits::BCAST == 0;
    context.reply.ok();
    Ok(Effect::None)
}

fn parse(context: &Context<'_>) -> Result<Mode, CommandError> {
    let mut mode = Mode::default();
    let mut words = context.args[3..].iter();
    while let Some(word) = words.next() {
        if args::is(word, "REDIRECT")
            && let Some(id) = words.next()
        {
            if mode.redirect != 0 {
                return Err(CommandError::text(
                    "ERR A client can only redirect to a single other client",
                ));
            }
            let id = args::integer(id)?;
            let target =
                u64::try_from(id).ok().and_then(|id| context.session.database.clients.find(id));
            mode.redirect = target.map(|target| target.id).ok_or_else(|| {
                CommandError::text("ERR The client ID you want redirect to does not exist")
            })?;
        } else if args::is(word, "BCAST") {
            mode.flags |= bits::BCAST;
        } else if args::is(word, "OPTIN") {
            mode.flags |= bits::OPTIN;
        } else if args::is(word, "OPTOUT") {
            mode.flags |= bits::OPTOUT;
        } else if args::is(word, "NOLOOP") {
            mode.flags |= bits::NOLOOP;
        } else if args::is(word, "PREFIX")
            && let Some(prefix) = words.next()
        {
            mode.prefixes.push((*prefix).into());
        } else {
            return Err(CommandError::Syntax);
        }
    }
    mode.is_on = match context.args[2] {
        word if args::is(word, "ON") => true,
        word if args::is(word, "OFF") => false,
        _ => return Err(CommandError::Syntax),
    };
    Ok(mode)
}

/// Whether a mode is sound in itself, and can follow the one the client is in.
fn check(mode: &Mode, current: u32) -> Result<(), CommandError> {
    let wants = |flag: u32| mode.flags & flag != 0;
    let has = |flag: u32| current & flag != 0;
    let refuse = |text: &'static str| Err(CommandError::text(text));
    if !wants(bits::BCAST) && !mode.prefixes.is_empty() {
        return refuse("ERR PREFIX option requires BCAST mode to be enabled");
    }
    if has(bits::TRACKING) && has(bits::BCAST) != wants(bits::BCAST) {
        return refuse(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and \
             then re-enabling it with a different mode.",
        );
    }
    if wants(bits::BCAST) && wants(bits::OPTIN | bits::OPTOUT) {
        return refuse("ERR OPTIN and OPTOUT are not compatible with BCAST");
    }
    if wants(bits::OPTIN) && wants(bits::OPTOUT) {
        return refuse("ERR You can't specify both OPTIN mode and OPTOUT mode");
    }
    if wants(bits::OPTIN) && has(bits::OPTOUT) || wants(bits::OPTOUT) && has(bits::OPTIN) {
        return refuse(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and \
             then re-enabling it with a different mode.",
        );
    }
    Ok(())
}

/// `CLIENT CACHING YES | NO`
pub(super) fn caching(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let session = &mut *context.session;
    if !session.shared.has(bits::TRACKING) {
        return Err(CommandError::text(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN \
             or OPTOUT mode enabled",
        ));
    }
    let (needed, text) = match context.args[2] {
        word if args::is(word, "YES") => (
            bits::OPTIN,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ),
        word if args::is(word, "NO") => (
            bits::OPTOUT,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ),
        _ => return Err(CommandError::Syntax),
    };
    if !session.shared.has(needed) {
        return Err(CommandError::text(text));
    }
    session.caching = true;
    session.shared.set_flag(bits::CACHING, true);
    context.reply.ok();
    Ok(Effect::None)
}

/// `CLIENT GETREDIR`
pub(super) fn getredir(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.integer(context.session.shared.redirect());
    Ok(Effect::None)
}

/// `CLIENT TRACKINGINFO`
pub(super) fn trackinginfo(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let shared = &context.session.shared;
    let mut words = vec![if shared.has(bits::TRACKING) { "on" } else { "off" }];
    for (needed, word) in [
        (bits::BCAST, "bcast"),
        (bits::OPTIN, "optin"),
        (bits::OPTIN | bits::CACHING, "caching-yes"),
        (bits::OPTOUT, "optout"),
        (bits::OPTOUT | bits::CACHING, "caching-no"),
        (bits::NOLOOP, "noloop"),
        (bits::BROKEN_REDIRECT, "broken_redirect"),
    ] {
        if shared.has(needed) {
            words.push(word);
        }
    }
    let reply = &mut context.reply;
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(words.len());
    words.iter().for_each(|word| reply.bulk(word.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(shared.redirect());
    reply.bulk(b"prefixes");
    let prefixes = shared.prefixes.lock();
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(Effect::None)
}
