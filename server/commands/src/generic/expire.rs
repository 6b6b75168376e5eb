//! Giving keys an expiry and taking it away: EXPIRE in its four forms, PERSIST.

use std::cmp::Ordering;

use carnelian_keyspace::{EventClass, Expiry};

use super::UPDATE_ONE;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const EXPIRE: DataCommand =
    entry("expire", "Makes a key expire after some seconds.", "1.0.0", -3, expire);
pub(super) const PEXPIRE: DataCommand =
    entry("pexpire", "Makes a key expire after some milliseconds.", "2.6.0", -3, pexpire);
pub(super) const EXPIREAT: DataCommand =
    entry("expireat", "Makes a key expire at a Unix time in seconds.", "1.2.0", -3, expireat);
pub(super) const PEXPIREAT: DataCommand = entry(
    "pexpireat",
    "Makes a key expire at a Unix time in milliseconds.",
    "2.6.0",
    -3,
    pexpireat,
);
pub(super) const PERSIST: DataCommand =
    entry("persist", "Makes a key last that had an expiry.", "2.2.0", 2, persist);

const fn entry(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    run: Run,
) -> DataCommand {
    DataCommand {
        name,
        summary,
        since,
        group: Group::Generic,
        complexity: "O(1)",
        arity,
        flags: Flags::FAST.union(Flags::WRITE),
        categories: Categories::KEYSPACE,
        keys: UPDATE_ONE,
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
fn expire(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    change(call, &Time { command: "expire", unit_ms: 1000, relative: true })
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
fn pexpire(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    change(call, &Time { command: "pexpire", unit_ms: 1, relative: true })
}

/// `EXPIREAT key unix-time-seconds [NX | XX | GT | LT]`
fn expireat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    change(call, &Time { command: "expireat", unit_ms: 1000, relative: false })
}

/// `PEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT]`
fn pexpireat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    change(call, &Time { command: "pexpireat", unit_ms: 1, relative: false })
}

/// How a command gives its moment.
struct Time {
    /// For the refusal.
    command: &'static str,
    unit_ms: i64,
    relative: bool,
}

impl Time {
    /// Milliseconds of the Unix epoch; negative ones are in the past like others. Refused only if
    /// they do not fit.
    fn absolute(&self, word: &[u8], now_ms: u64) -> Result<i64, CommandError> {
        let base = if self.relative { now_ms as i64 } else { 0 };
        let ms = args::integer(word)?.checked_mul(self.unit_ms);
        let at = ms.and_then(|ms| ms.checked_add(base));
        at.ok_or(CommandError::InvalidExpire(self.command))
    }
}

/// NX, XX, GT and LT.
#[derive(Default)]
struct Conditions {
    /// Whether the key must have an expiry already.
    volatile: Option<bool>,
    /// How the new expiry must compare to the old; a lasting key's is infinite.
    order: Option<Ordering>,
}

impl Conditions {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let (mut nx, mut xx, mut gt, mut lt) = (false, false, false, false);
        for word in words {
            let known = [("NX", &mut nx), ("XX", &mut xx), ("GT", &mut gt), ("LT", &mut lt)];
            match known.into_iter().find(|(name, _)| args::is(word, name)) {
                Some((_, given)) => *given = true,
                None => {
                    return Err(CommandError::quoting("ERR Unsupported option ", word, ""));
                }
            }
        }
        if nx && (xx || gt || lt) {
            return Err(CommandError::text(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if gt && lt {
            return Err(CommandError::text(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(Self {
            volatile: if nx || xx { Some(xx) } else { None },
            order: match (gt, lt) {
                (true, _) => Some(Ordering::Greater),
                (_, true) => Some(Ordering::Less),
                _ => None,
            },
        })
    }

    fn allow(&self, old: Option<u64>, new: i64) -> bool {
        let old_ms = old.map_or(i64::MAX, |at| i64::try_from(at).unwrap_or(i64::MAX));
        let order = match old {
            Some(_) => new.cmp(&old_ms),
            // Nothing is later than never, and all else is earlier.
            None => Ordering::Less,
        };
        self.volatile.is_none_or(|wanted| wanted == old.is_some())
            && self.order.is_none_or(|wanted| wanted == order)
    }
}

/// Replicas run on their own clock, so they are sent the absolute time: a slow link must not make
/// a key live longer there. Conditions were settled here and are not sent.
fn change(call: &mut Call<'_>, time: &Time) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let conditions = Conditions::parse(&call.args[3..])?;
    let at = time.absolute(call.args[2], call.now_ms())?;
    let future = u64::try_from(at).ok().filter(|at| call.due_ms() < *at);
    let Some(future) = future else { return expire_now(call, &conditions, at) };

    let changed = call.db.update_expiry(key, |old| match conditions.allow(old, at) {
        true => Expiry::At(future),
        false => Expiry::Keep,
    });
    if changed != Some(true) {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    call.notify(EventClass::Generic, "expire", key);
    call.reply.integer(1);
    if !time.relative && time.unit_ms == 1 && call.args.len() == 3 {
        return Ok(Effect::Verbatim);
    }
    if !call.db.changes.following {
        return Ok(Effect::Rewrite(call.rewrite()));
    }
    Ok(call.rewritten(&[b"PEXPIREAT", key, at.to_string().as_bytes()]))
}

/// A moment that has passed: the key goes at once.
fn expire_now(
    call: &mut Call<'_>,
    conditions: &Conditions,
    at: i64,
) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let allowed = call.db.expiry(key).is_some_and(|old| conditions.allow(old, at));
    if !allowed {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    call.db.remove(key);
    call.notify(EventClass::Generic, "del", key);
    call.reply.integer(1);
    Ok(call.rewritten(&[b"DEL", key]))
}

/// `PERSIST key`
fn persist(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let lasting = |old: Option<u64>| if old.is_some() { Expiry::Clear } else { Expiry::Keep };
    if call.db.update_expiry(key, lasting) != Some(true) {
        call.reply.integer(0);
        return Ok(Effect::None);
    }
    call.notify(EventClass::Generic, "persist", key);
    call.reply.integer(1);
    Ok(Effect::Verbatim)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn every_form_sets_the_same_moment() {
        let mut bench = Bench::new();
        for request in [
            "EXPIRE k 100",
            "PEXPIRE k 100000",
            "EXPIREAT k 1700000100",
            "PEXPIREAT k 1700000100000",
        ] {
            bench.expect("SET k v", "+OK");
            bench.expect(request, ":1");
            bench.expect("PEXPIRETIME k", ":1700000100000");
            bench.expect("PTTL k", ":100000");
            bench.expect("PERSIST k", ":1");
            bench.expect("PERSIST k", ":0");
            bench.expect("TTL k", ":-1");
        }
        bench.expect("EXPIRE missing 100", ":0");
        bench.expect("PERSIST missing", ":0");
    }

    #[test]
    fn followers_are_sent_the_absolute_time_and_no_condition() {
        let mut bench = Bench::new();
        bench.expect("SET k v", "+OK");
        bench.expect("EXPIRE k 100 NX", ":1");
        let sent = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert_eq!(sent, "*3 $9 PEXPIREAT $1 k $13 1700000100000 ");
        bench.effects.clear();
        bench.expect("EXPIRE k -1", ":1");
        let sent = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        assert_eq!(sent, "*2 $3 DEL $1 k ");
    }

    #[test]
    fn a_moment_that_has_passed_deletes() {
        let mut bench = Bench::new();
        for request in ["EXPIRE k 0", "PEXPIRE k -1", "EXPIREAT k 1", "PEXPIREAT k -5 LT"] {
            bench.expect("SET k v", "+OK");
            bench.expect(request, ":1");
            bench.expect("EXISTS k", ":0");
        }
        bench.expect("SET k v", "+OK");
        bench.expect("EXPIRE k -1 XX", ":0");
        bench.expect("EXPIRE k -1 GT", ":0");
        bench.expect("EXISTS k", ":1");
    }

    #[test]
    fn times_that_do_not_fit_are_refused() {
        let mut bench = Bench::new();
        bench.expect("SET k v", "+OK");
        for (request, command) in [
            ("EXPIRE k 9223372036854775807", "expire"),
            ("EXPIRE k 9223372036854775", "expire"),
            ("EXPIRE k -9223372036854775808", "expire"),
            ("PEXPIRE k 9223372036854775807", "pexpire"),
            ("EXPIREAT k 9223372036854775807", "expireat"),
        ] {
            bench.expect(request, &format!("-ERR invalid expire time in '{command}' command"));
        }
        bench.expect("PEXPIREAT k 9223372036854775807", ":1");
        bench.expect("PEXPIRETIME k", ":9223372036854775807");
        bench.expect("EXPIRETIME k", ":9223372036854776");
        bench.expect("EXPIRE k x", "-ERR value is not an integer or out of range");
    }

    #[test]
    fn conditions_hold_the_change_back() {
        let mut bench = Bench::new();
        bench.expect("SET k v", "+OK");
        bench.expect("EXPIRE k 100 XX", ":0");
        bench.expect("EXPIRE k 100 GT", ":0");
        bench.expect("EXPIRE k 100 NX", ":1");
        bench.expect("EXPIRE k 200 NX", ":0");
        bench.expect("EXPIRE k 100 GT", ":0");
        bench.expect("EXPIRE k 200 XX GT", ":1");
        bench.expect("EXPIRE k 200 LT", ":0");
        bench.expect("EXPIRE k 50 lt", ":1");
        bench.expect("TTL k", ":50");
        bench.expect("PERSIST k", ":1");
        bench.expect("EXPIRE k 50 LT", ":1");
        bench.expect("EXPIRE k 50 ABC", "-ERR Unsupported option ABC");
        let together = "options at the same time are not compatible";
        bench.expect("EXPIRE k 50 GT LT", &format!("-ERR GT and LT {together}"));
        bench.expect("EXPIRE k x XX NX", &format!("-ERR NX and XX, GT or LT {together}"));
    }
}
