//! MEMORY USAGE.

use crate::args;
use crate::call::Call;
use crate::effect::Effect;
use crate::error::CommandError;

/// What a key takes in its table beside its own block.
const SLOT_BYTES: usize = 8;

/// `MEMORY USAGE key [SAMPLES count]`
///
/// Memory is accounted as it changes, so the answer is exact and SAMPLES has no effect.
pub fn memory_usage(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    for option in call.args[3..].chunks(2) {
        let [word, count] = option else { return Err(CommandError::Syntax) };
        if !args::is(word, "SAMPLES") || args::integer(count)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    match call.db.look(call.args[2]) {
        Some(entry) => call.reply.integer((entry.heap_bytes() + SLOT_BYTES) as i64),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    #[test]
    fn usage_counts_the_value_and_its_key() {
        let mut bench = Bench::new();
        let ask = |request: &str, bench: &mut Bench| {
            bench.run(memory_usage, request).1.trim_end().replace("\r\n", " ")
        };
        assert_eq!(ask("MEMORY USAGE k", &mut bench), "$-1");
        bench.expect("SET k 1", "+OK");
        assert_eq!(ask("MEMORY USAGE k", &mut bench), ":32");
        assert_eq!(ask("MEMORY USAGE k SAMPLES 5 samples 0", &mut bench), ":32");
        let syntax = "-ERR syntax error";
        assert_eq!(ask("MEMORY USAGE k SAMPLES", &mut bench), syntax);
        assert_eq!(ask("MEMORY USAGE k SAMPLES -1", &mut bench), syntax);
        assert_eq!(ask("MEMORY USAGE k FOO 1", &mut bench), syntax);
        let integer = "-ERR value is not an integer or out of range";
        assert_eq!(ask("MEMORY USAGE k SAMPLES x", &mut bench), integer);
    }
}
