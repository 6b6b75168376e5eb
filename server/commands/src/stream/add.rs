//! Adding to a stream: XADD.

use carnelian_keyspace::EventClass;
use carnelian_structs::stream::{AppendError, NewId, Stream, StreamId};

use super::options::{For, Options};
use super::{UPDATE, limits};
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const XADD: DataCommand = DataCommand {
    name: "xadd",
    summary: "Adds an entry to a stream, which is made if missing.",
    since: "5.0.0",
    group: Group::Stream,
    complexity: "O(1), and O(N) for N entries trimmed",
    arity: -5,
    flags: Flags::DENYOOM.union(Flags::FAST).union(Flags::WRITE),
    categories: Categories::STREAM,
    keys: UPDATE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: xadd,
};

/// `XADD key [NOMKSTREAM] [MAXLEN | MINID [= | ~] threshold [LIMIT count]] * | id field value ...`
///
/// Replicas are told the ID that was given out, and to what the stream was trimmed.
fn xadd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (args, limits, now_ms) = (call.args, limits(call), call.now_ms());
    let (key, following) = (args[1], call.db.changes.following);
    let options = Options::parse(args, For::Add, limits)?;
    let found = options.id.filter(|&(_, next)| next < args.len());
    let (id, pairs) = match found {
        Some((id, next)) if (args.len() - next).is_multiple_of(2) => (id, &args[next..]),
        _ => return Err(CommandError::Arity("xadd".into())),
    };
    if id == NewId::Exact(StreamId::MIN) {
        return Err(refused(AppendError::ZeroId));
    }
    let mut made = false;
    let mut stream = if options.make {
        let make = || {
            made = true;
            Stream::new()
        };
        call.db.write_or_insert(key, make)?
    } else if let Some(stream) = call.db.write_as::<Stream>(key)? {
        stream
    } else {
        call.reply.null();
        return Ok(Effect::None);
    };
    let added = match stream.append(id, now_ms, pairs, limits) {
        Ok(added) => added,
        Err(error) => {
            stream.unchanged();
            if made {
                call.db.remove(key);
            }
            return Err(refused(error));
        }
    };
    let trimmed = options.trim.map_or(0, |trim| trim.apply(&mut stream));
    let replayed = options.trim.filter(|_| following).map(|trim| trim.replayed(&stream));
    drop(stream);

    let mut buffer = [0; StreamId::TEXT_BYTES_MAX];
    let text = added.format(&mut buffer);
    call.reply.bulk(text);
    call.notify(EventClass::Stream, "xadd", key);
    if trimmed != 0 {
        call.notify(EventClass::Stream, "xtrim", key);
    }
    let is_settled = options.trim.is_none_or(|trim| !trim.is_approximate());
    if is_settled && matches!(id, NewId::Exact(_)) {
        return Ok(Effect::Verbatim);
    }
    let mut rewrite = call.rewrite();
    if following {
        let mut words: Vec<&[u8]> = vec![b"XADD", key];
        if !options.make {
            words.push(b"NOMKSTREAM");
        }
        words.extend(replayed.iter().flatten().map(Vec::as_slice));
        words.push(text);
        words.extend(pairs);
        rewrite.command(&words);
    }
    Ok(Effect::Rewrite(rewrite))
}

fn refused(error: AppendError) -> CommandError {
    CommandError::text(format!("ERR {error}"))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    fn effect(bench: &mut Bench) -> String {
        let effect = String::from_utf8(std::mem::take(&mut bench.effects)).expect("text");
        let words = effect.split("\r\n").filter(|word| !word.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
    }

    #[test]
    fn ids_are_given_out_or_taken() {
        let mut bench = Bench::new();
        bench.expect("XADD k 1-1 a 1", "$3 1-1");
        bench.expect("XADD k 1-* a 1", "$3 1-2");
        bench.expect("XADD k 5 a 1", "$3 5-0");
        assert_eq!(effect(&mut bench), "XADD k 1-2 a 1");
        bench.expect("XADD k * a 1 b 2", "$15 1700000000000-0");
        bench.expect("XADD k * a 1", "$15 1700000000000-1");
        assert_eq!(effect(&mut bench), "XADD k 1700000000000-0 a 1 b 2 XADD k 1700000000000-1 a 1");
        bench.expect("XLEN k", ":5");
        assert_eq!(bench.events[..2], ["new k", "xadd k"]);
        assert_eq!(bench.events.len(), 6);
    }

    #[test]
    fn a_refused_entry_makes_no_key() {
        let mut bench = Bench::new();
        let zero = "-ERR The ID specified in XADD must be greater than 0-0";
        let below =
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item";
        let arity = "-ERR wrong number of arguments for 'xadd' command";
        bench.expect("XADD k 0-0 a 1", zero);
        bench.expect("XADD k 1-1 a", arity);
        bench.expect("XADD k MAXLEN 1 1-1", arity);
        bench.expect("XADD k NOMKSTREAM * a 1", "$-1");
        assert_eq!((bench.events.len(), bench.touched), (0, 0));
        bench.expect("XADD k 0-* a 1", "$3 0-1");
        bench.expect("XADD k 0-1 a 1", below);
        assert_eq!(bench.touched, 0);
        bench.expect("XADD k NOMKSTREAM 3-3 a 1", "$3 3-3");
        bench.expect("XADD k 2-* a 1", below);
        let last = "18446744073709551615-18446744073709551615";
        bench.expect(&format!("XADD k {last} a 1"), &format!("$41 {last}"));
        bench.expect(
            "XADD k * a 1",
            "-ERR The stream has exhausted the last possible ID, unable to add more items",
        );
        bench.expect("SET s x", "+OK");
        bench.expect("XADD s 0-0 a 1", zero);
        bench.expect(
            "XADD s 1-1 a 1",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        );
    }

    #[test]
    fn replicas_trim_to_what_is_left() {
        let mut bench = Bench::new();
        bench.environment.limits.stream_node_max_entries = 2;
        for ms in 1..=5 {
            bench.reply(&format!("XADD k {ms}-0 a 1"));
        }
        bench.events.clear();
        bench.expect("XADD k MAXLEN ~ 3 LIMIT 10 6-0 a 1", "$3 6-0");
        assert_eq!(effect(&mut bench), "XADD k MAXLEN = 4 6-0 a 1");
        assert_eq!(bench.events, ["xadd k", "xtrim k"]);
        bench.expect("XADD k MINID ~ 6 NOMKSTREAM 7-0 a 1", "$3 7-0");
        assert_eq!(effect(&mut bench), "XADD k NOMKSTREAM MINID = 5-0 7-0 a 1");
        bench.expect("XADD k MAXLEN 1 8-* a 1", "$3 8-0");
        assert_eq!(effect(&mut bench), "XADD k MAXLEN = 1 8-0 a 1");
        bench.expect("XADD k MAXLEN 1 9-0 a 1", "$3 9-0");
        assert_eq!(effect(&mut bench), "");
        bench.expect("XADD k MINID ~ 100 10-0 a 1", "$4 10-0");
        let max = "18446744073709551615-18446744073709551615";
        assert_eq!(effect(&mut bench), format!("XADD k MINID = {max} 10-0 a 1"));
        bench.expect("XLEN k", ":0");
    }
}
