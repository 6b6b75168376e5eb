//! Removing old entries: XTRIM.

use carnelian_keyspace::EventClass;
use carnelian_structs::stream::Stream;

use super::options::{For, Options};
use super::{DELETE, limits};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XTRIM: DataCommand = DataCommand {
    name: "xtrim",
    summary: "Removes the oldest entries of a stream.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(N) for N entries removed",
    arity: -4,
    flags: Flags::WRITE,
    categories: Categories::STREAM,
    keys: DELETE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: xtrim,
};

/// `XTRIM key MAXLEN | MINID [= | ~] threshold [LIMIT count]`
///
/// Replicas are told to what the stream was trimmed.
fn xtrim(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, following) = (call.args[1], call.db.changes.following);
    let options = Options::parse(call.args, For::Trim, limits(call))?;
    let trim = options.trim.ok_or(CommandError::Syntax)?;
    let Some(mut stream) = call.db.write_as::<Stream>(key)? else {
        call.reply.integer(0);
        return Ok(Effect::None);
    };
    let removed = trim.apply(&mut stream);
    call.reply.integer(removed as i64);
    if removed == 0 {
        stream.unchanged();
        return Ok(Effect::None);
    }
    let replayed = following.then(|| trim.replayed(&stream));
    drop(stream);
    call.notify(EventClass::Stream, "xtrim", key);
    call.dirty(usize::try_from(removed).unwrap_or(usize::MAX));
    if !trim.is_approximate() {
        return Ok(Effect::Verbatim);
    }
    let mut rewrite = call.rewrite();
    if let Some([strategy, sign, threshold]) = &replayed {
        rewrite.command(&[b"XTRIM", key, strategy, sign, threshold]);
    }
    Ok(Effect::Rewrite(rewrite))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    #[test]
    fn the_oldest_entries_go() {
        let mut bench = Bench::new();
        bench.expect("XTRIM k MAXLEN 1", ":0");
        bench.environment.limits.stream_node_max_entries = 2;
        for ms in 1..=9 {
            bench.reply(&format!("XADD k {ms}-0 a 1"));
        }
        bench.events.clear();
        bench.expect("XTRIM k MAXLEN 8", ":1");
        bench.expect("XTRIM k MINID 3", ":1");
        assert!(bench.effects.is_empty());
        bench.expect("XTRIM k MAXLEN ~ 4", ":2");
        assert_eq!(bench.dirty, 2);
        assert_eq!(
            bench.effects,
            b"*5\r\n$5\r\nXTRIM\r\n$1\r\nk\r\n$6\r\nMAXLEN\r\n$1\r\n=\r\n$1\r\n5\r\n"
        );
        bench.expect("XTRIM k MAXLEN ~ 4", ":0");
        assert_eq!((bench.dirty, bench.touched), (0, 0));
        bench.expect("XTRIM k MINID = 9-0", ":4");
        bench.expect("XTRIM k MAXLEN 0", ":1");
        bench.expect("XLEN k", ":0");
        assert_eq!(bench.events, ["xtrim k"; 5]);
    }
}
