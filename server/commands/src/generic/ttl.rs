//! How long keys have: TTL, PTTL, EXPIRETIME, PEXPIRETIME.

use super::READ_ONE;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const TTL: DataCommand =
    entry("ttl", "Returns how many seconds a key has to live.", "1.0.0", VARYING, ttl);
pub(super) const PTTL: DataCommand =
    entry("pttl", "Returns how many milliseconds a key has to live.", "2.6.0", VARYING, pttl);
pub(super) const EXPIRETIME: DataCommand =
    entry("expiretime", "Returns the Unix time at which a key expires.", "7.0.0", &[], expiretime);
pub(super) const PEXPIRETIME: DataCommand = entry(
    "pexpiretime",
    "Returns the Unix time in milliseconds at which a key expires.",
    "7.0.0",
    &[],
    pexpiretime,
);

const VARYING: &[&str] = &["nondeterministic_output"];

const fn entry(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    tips: &'static [&'static str],
    run: Run,
) -> DataCommand {
    DataCommand {
        name,
        summary,
        since,
        group: Group::Generic,
        complexity: "O(1)",
        arity: 2,
        flags: Flags::FAST.union(Flags::READONLY),
        categories: Categories::KEYSPACE,
        keys: READ_ONE,
        tips,
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

/// `TTL key`
fn ttl(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.now_ms();
    answer(call, |at| seconds(at.saturating_sub(now_ms)))
}

/// `PTTL key`
fn pttl(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let now_ms = call.now_ms();
    answer(call, |at| at.saturating_sub(now_ms))
}

/// `EXPIRETIME key`
fn expiretime(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    answer(call, seconds)
}

/// `PEXPIRETIME key`
fn pexpiretime(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    answer(call, |at| at)
}

/// Rounded to the nearest.
const fn seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}

/// -2 for a missing key, -1 for a lasting one.
fn answer(call: &mut Call<'_>, of: impl FnOnce(u64) -> u64) -> Result<Effect, CommandError> {
    let answer = match call.db.glance(call.args[1]).map(|entry| entry.expiry()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => i64::try_from(of(at)).unwrap_or(i64::MAX),
    };
    call.reply.integer(answer);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn seconds_are_rounded_to_the_nearest() {
        let mut bench = Bench::new();
        bench.expect("SET k v PX 1500", "+OK");
        bench.expect("TTL k", ":2");
        bench.expect("PTTL k", ":1500");
        bench.now_ms += 1;
        bench.expect("TTL k", ":1");
        bench.now_ms += 1000;
        bench.expect("TTL k", ":0");
        bench.expect("EXPIRETIME k", ":1700000002");
        bench.now_ms += 499;
        bench.expect("TTL k", ":-2");
        bench.expect("PEXPIRETIME k", ":-2");
    }

    #[test]
    fn a_lasting_key_answers_minus_one() {
        let mut bench = Bench::new();
        bench.expect("SET k v", "+OK");
        for command in ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"] {
            bench.expect(&format!("{command} k"), ":-1");
        }
    }
}
