//! DEBUG's looks at clients and lists.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use carnelian_commands::{CommandError, Effect};

use crate::clients::bits;
use crate::commands::Context;
use crate::commands::debug::with_key;
use crate::log;

/// Clients are shown by the power of two below their size, from this one on.
const FIRST_POWER: u32 = 15;
const LAST_POWER: u32 = 33;

/// `DEBUG CLIENT-EVICTION`
pub(super) fn client_eviction(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    if context.session.settings.clients_memory_max == 0 {
        return Err(CommandError::text("ERR maxmemory-clients is disabled."));
    }
    let mut buckets = [(0, 0); (LAST_POWER - FIRST_POWER + 1) as usize];
    for client in context.session.database.clients.list() {
        if !client.has(bits::NO_EVICT) {
            let bytes = client.memory.load(Ordering::Relaxed);
            let power = bytes.checked_ilog2().unwrap_or(0).clamp(FIRST_POWER - 1, LAST_POWER - 1);
            let (sum, count) = &mut buckets[(power + 1 - FIRST_POWER) as usize];
            (*sum, *count) = (*sum + bytes, *count + 1);
        }
    }
    let mut text = String::new();
    for (place, (sum, count)) in buckets.iter().enumerate() {
        let power = FIRST_POWER + place as u32;
        let from = if place == 0 { 0 } else { 1_u64 << (power - 1) };
        let to = match power {
            LAST_POWER => format!("+{:12}", ""),
            _ => format!(" - {:10}", (1_u64 << power) - 1),
        };
        // Writing to a string does not fail.
        let _ = writeln!(text, "bucket {from:10}{to}: tot-mem: {sum:10}, clients: {count}");
    }
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

/// `DEBUG QUICKLIST key [0|1]`
pub(super) fn quicklist(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let key = context.args[2];
    let found = with_key(context, key, |db| {
        let entry = db.peek(key)?;
        Some((entry.encoding(), entry.heap_bytes()))
    });
    let (encoding, bytes) = found.ok_or(CommandError::NoSuchKey)?;
    if encoding != "quicklist" {
        return Err(CommandError::text("ERR Not a quicklist encoded object."));
    }
    log::notice!("Quicklist {}: {bytes} bytes", String::from_utf8_lossy(key));
    context.reply.simple("Quicklist structure printed on stdout");
    Ok(Effect::None)
}

/// `DEBUG REPLICATE word ...`: tells replicas, whatever it is.
pub(super) fn replicate(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = &context.session.database;
    if database.log.is_followed() {
        database.log.append_aside(&context.args[2..]);
    }
    context.reply.ok();
    Ok(Effect::None)
}
