//! PFDEBUG and PFSELFTEST: a look inside, for tests.

use std::fmt::Write;

use carnelian_structs::hyperloglog::{self, DENSE_BYTES, Encoding, Mark, REGISTERS, Run};

use super::{InPlace, corrupt};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

pub(super) const PFDEBUG: DataCommand = DataCommand {
    name: "pfdebug",
    summary: "Shows how a HyperLogLog is stored.",
    since: "2.8.9",
    group: Group::HyperLogLog,
    complexity: "O(1)",
    arity: 3,
    flags: Flags::ADMIN.union(Flags::DENYOOM).union(Flags::WRITE),
    categories: Categories::HYPERLOGLOG,
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::ACCESS), 2, 0, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: pfdebug,
};

enum Question {
    Registers,
    Runs,
    Encoding,
    MakeDense,
}

/// `PFDEBUG GETREG | DECODE | ENCODING | TODENSE key`, `PFDEBUG SIMD ON | OFF`
fn pfdebug(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (word, key) = (call.args[1], call.args[2]);
    if args::is(word, "SIMD") {
        return simd(call);
    }
    let Some(string) = call.db.string_mut(key)? else {
        return Err(CommandError::text("ERR The specified key does not exist"));
    };
    let mut place = InPlace::checked(string)?;
    let question = match word {
        word if args::is(word, "GETREG") => Question::Registers,
        word if args::is(word, "DECODE") => Question::Runs,
        word if args::is(word, "ENCODING") => Question::Encoding,
        word if args::is(word, "TODENSE") => Question::MakeDense,
        word => return Err(CommandError::quoting("ERR Unknown PFDEBUG subcommand '", word, "'")),
    };
    let changed = match question {
        Question::Registers | Question::MakeDense => {
            hyperloglog::make_dense(&mut place).map_err(corrupt)?
        }
        Question::Runs | Question::Encoding => false,
    };
    // To those who watch the key this is no change.
    let bytes = hyperloglog::Place::bytes(&place);
    let encoding = hyperloglog::encoding(bytes);
    match question {
        Question::Registers => {
            call.reply.array(REGISTERS);
            for at in 0..REGISTERS {
                call.reply.integer(hyperloglog::register(bytes, at).into());
            }
        }
        Question::Runs if encoding == Some(Encoding::Dense) => {
            return Err(CommandError::text("ERR HLL encoding is not sparse"));
        }
        Question::Runs => call.reply.bulk(described(bytes).as_bytes()),
        Question::Encoding => {
            call.reply.simple(if encoding == Some(Encoding::Dense) { "dense" } else { "sparse" });
        }
        Question::MakeDense => call.reply.integer(changed.into()),
    }
    Ok(if changed { Effect::Verbatim } else { Effect::None })
}

/// There is one way of counting here, whatever the processor has: the switch is only accepted.
fn simd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    match call.args[2] {
        word if args::is(word, "ON") => call.reply.simple("enabled"),
        word if args::is(word, "OFF") => call.reply.simple("disabled"),
        _ => return Err(CommandError::text("ERR Argument must be ON or OFF")),
    }
    Ok(Effect::None)
}

/// The runs of a sparse string.
fn described(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in hyperloglog::runs(bytes) {
        let space = if text.is_empty() { "" } else { " " };
        let written = match run {
            Run::Zeros(count) => write!(text, "{space}z:{count}"),
            Run::ManyZeros(count) => write!(text, "{space}Z:{count}"),
            Run::Values { value, count } => write!(text, "{space}v:{value},{count}"),
        };
        written.expect("a String takes all");
    }
    text
}

pub(super) const PFSELFTEST: DataCommand = DataCommand {
    name: "pfselftest",
    summary: "Tests the registers and the estimates of HyperLogLogs.",
    since: "2.8.9",
    group: Group::HyperLogLog,
    complexity: "O(1), but slow",
    arity: 1,
    flags: Flags::ADMIN,
    categories: Categories::HYPERLOGLOG,
    keys: &[],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: pfselftest,
};

/// The most elements the self-test adds; other clients wait meanwhile.
const ELEMENTS: u64 = 1_000_000;

/// `PFSELFTEST`
fn pfselftest(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    test_registers()?;
    test_estimates(call.limits().hll_sparse_max_bytes)?;
    call.reply.ok();
    Ok(Effect::None)
}

/// Registers keep what they are given, and leave their neighbours alone.
fn test_registers() -> Result<(), CommandError> {
    let mut bytes = vec![0; DENSE_BYTES];
    for round in 0..100_u64 {
        let value =
            |at: usize| Mark::of(&(round << 32 | at as u64).to_le_bytes()).register as u8 & 63;
        (0..REGISTERS).for_each(|at| hyperloglog::set_register(&mut bytes, at, value(at)));
        for at in 0..REGISTERS {
            let (is, should) = (hyperloglog::register(&bytes, at), value(at));
            if is != should {
                return Err(failed(&format!("Register {at} should be {should} but is {is}")));
            }
        }
    }
    Ok(())
}

/// Sparse and dense strings agree, and are about right.
fn test_estimates(sparse_max: usize) -> Result<(), CommandError> {
    let (mut either, mut dense) = (hyperloglog::empty(), hyperloglog::empty());
    hyperloglog::make_dense(&mut dense).map_err(corrupt)?;
    let marks = |from: u64, to: u64| (from..to).map(|at| Mark::of(&at.to_le_bytes()));
    let mut total = 0;
    for next in [1, 10, 100, 1000, 10_000, 100_000, ELEMENTS] {
        hyperloglog::raise(&mut either, marks(total, next), sparse_max).map_err(corrupt)?;
        hyperloglog::raise(&mut dense, marks(total, next), sparse_max).map_err(corrupt)?;
        total = next;
        let estimate = hyperloglog::estimate(&dense).map_err(corrupt)?;
        if next < sparse_max as u64 / 2 && hyperloglog::encoding(&either) != Some(Encoding::Sparse)
        {
            return Err(failed("sparse encoding not used"));
        }
        if hyperloglog::estimate(&either) != Ok(estimate) {
            return Err(failed("dense/sparse disagree"));
        }
        // Six times the standard error.
        let most = (6.0 * 1.04 / (REGISTERS as f64).sqrt() * total as f64).ceil() as u64;
        let error = estimate.abs_diff(total);
        if most < error {
            return Err(failed(&format!("Too big error. card:{total} abserr:{error}")));
        }
    }
    Ok(())
}

fn failed(what: &str) -> CommandError {
    CommandError::text(format!("TESTFAILED {what}"))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn the_inside_is_shown() {
        let mut bench = Bench::new();
        bench.expect("PFADD k a", ":1");
        bench.expect("PFDEBUG ENCODING k", "+sparse");
        bench.expect("PFDEBUG decode k", "$20 Z:12711 v:2,1 Z:3672");
        bench.expect("PFDEBUG TODENSE k", ":1");
        bench.expect("PFDEBUG TODENSE k", ":0");
        bench.expect("PFDEBUG DECODE k", "-ERR HLL encoding is not sparse");
        let registers = bench.reply("PFDEBUG GETREG k");
        assert_eq!(registers.matches(":2\r\n").count(), 1);
        assert_eq!(registers.matches(":0\r\n").count(), 16383);
        bench.expect("PFDEBUG X k", "-ERR Unknown PFDEBUG subcommand 'X'");
        bench.expect("PFDEBUG GETREG x", "-ERR The specified key does not exist");
        bench.expect("PFDEBUG SIMD on", "+enabled");
        bench.expect("PFDEBUG SIMD x", "-ERR Argument must be ON or OFF");
    }

    #[test]
    fn the_self_test_passes() {
        Bench::new().expect("PFSELFTEST", "+OK");
    }
}
