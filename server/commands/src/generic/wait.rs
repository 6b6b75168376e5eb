//! WAIT and WAITAOF on a server that nobody replicates and that keeps no append-only file.

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const WAIT: DataCommand = DataCommand {
    name: "wait",
    summary: "Waits until some replicas have what this connection wrote.",
    since: "3.0.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::BLOCKING,
    categories: Categories::CONNECTION,
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    scope: Scope::Keys,
    subcommands: &[],
    run: wait,
};

pub(super) const WAITAOF: DataCommand = DataCommand {
    name: "waitaof",
    summary: "Waits until what this connection wrote is on disk, here and on some replicas.",
    since: "7.2.0",
    group: Group::Generic,
    complexity: "O(1)",
    arity: 4,
    flags: Flags::BLOCKING,
    categories: Categories::CONNECTION,
    keys: &[],
    tips: &["request_policy:all_shards", "response_policy:agg_min"],
    scope: Scope::Keys,
    subcommands: &[],
    run: waitaof,
};

/// Milliseconds to wait, 0 for ever.
fn check_timeout(word: &[u8], now_ms: u64) -> Result<(), CommandError> {
    let timeout = args::integer(word)
        .map_err(|_| CommandError::text("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    match timeout.checked_add_unsigned(now_ms) {
        Some(_) => Ok(()),
        None => Err(CommandError::text("ERR timeout is out of range")),
    }
}

/// `WAIT numreplicas timeout`: no replica will come, so the answer is given at once.
fn wait(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    args::integer(call.args[1])?;
    check_timeout(call.args[2], call.now_ms())?;
    call.reply.integer(0);
    Ok(Effect::None)
}

/// `WAITAOF numlocal numreplicas timeout`
fn waitaof(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let local = args::integer(call.args[1])?;
    if !(0..=1).contains(&local) {
        return Err(CommandError::text("ERR value is out of range, value must between 0 and 1"));
    }
    args::positive(call.args[2])?;
    check_timeout(call.args[3], call.now_ms())?;
    if local == 1 {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    call.reply.array(2);
    call.reply.integer(0);
    call.reply.integer(0);
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn without_replicas_nobody_is_waited_for() {
        let mut bench = Bench::new();
        bench.expect("WAIT 0 0", ":0");
        bench.expect("WAIT 3 1000", ":0");
        bench.expect("WAIT -1 0", ":0");
        bench.expect("WAITAOF 0 2 0", "*2 :0 :0");
    }

    #[test]
    fn refusals_come_in_the_order_of_redis() {
        let mut bench = Bench::new();
        bench.expect("WAIT x -1", "-ERR value is not an integer or out of range");
        bench.expect("WAIT 0 -1", "-ERR timeout is negative");
        bench.expect("WAIT 0 x", "-ERR timeout is not an integer or out of range");
        bench.expect("WAIT 0 9223372036854775807", "-ERR timeout is out of range");
        bench.expect("WAITAOF 2 0 0", "-ERR value is out of range, value must between 0 and 1");
        bench.expect("WAITAOF 1 -1 x", "-ERR value is out of range, must be positive");
        bench.expect("WAITAOF 1 0 x", "-ERR timeout is not an integer or out of range");
        bench.expect(
            "WAITAOF 1 0 0",
            "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        );
    }
}
