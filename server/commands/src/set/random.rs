//! Members picked at random: SPOP, SRANDMEMBER.

use std::ops::ControlFlow;

use carnelian_keyspace::EventClass;
use carnelian_structs::listpack::Element;
use carnelian_structs::set::Set;

use super::{READ, TAKE, limits};
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::{Effect, Rewrite};
use crate::element;
use crate::error::CommandError;
use crate::lengthy::Lengthy;

pub(super) const SPOP: DataCommand = DataCommand {
    name: "spop",
    summary: "Removes random members of a set and returns them.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members removed",
    arity: -2,
    flags: Flags::FAST.union(Flags::WRITE),
    categories: Categories::SET,
    keys: TAKE,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: spop,
};

pub(super) const SRANDMEMBER: DataCommand = DataCommand {
    name: "srandmember",
    summary: "Returns random members of a set.",
    since: "1.0.0",
    group: Group::Set,
    complexity: "O(N) for N members returned",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::SET,
    keys: READ,
    tips: &["nondeterministic_output"],
    scope: Scope::Keys,
    subcommands: &[],
    run: srandmember,
};

/// Members in one SREM of an effect.
const BATCH: usize = 1024;

/// `SPOP key [count]`
///
/// Replicas are told what was picked.
fn spop(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    match call.args {
        [_, key] => pop_one(call, key),
        [_, key, count] => {
            let count = args::positive(count)?;
            pop_many(call, key, usize::try_from(count).unwrap_or(usize::MAX))
        }
        _ => Err(CommandError::Syntax),
    }
}

fn pop_one(call: &mut Call<'_>, key: &[u8]) -> Result<Effect, CommandError> {
    let mut removals = Removals::new(key, call.rewrite(), call.db.changes.following);
    let Some(mut set) = call.db.write_as::<Set>(key)? else {
        call.reply.null();
        return Ok(Effect::None);
    };
    set.pop_random(random, |member| {
        element::bulk(&mut call.reply, member);
        removals.add(member);
    });
    let emptied = set.is_empty();
    drop(set);
    call.notify(EventClass::Set, "spop", key);
    if emptied {
        call.notify(EventClass::Generic, "del", key);
    }
    Ok(removals.finish())
}

fn pop_many(call: &mut Call<'_>, key: &[u8], count: usize) -> Result<Effect, CommandError> {
    let limits = limits(call);
    let mut removals = Removals::new(key, call.rewrite(), call.db.changes.following);
    let Some(mut set) = call.db.write_as::<Set>(key)? else {
        call.reply.set(0);
        return Ok(Effect::None);
    };
    if count == 0 {
        set.unchanged();
        call.reply.set(0);
        return Ok(Effect::None);
    }
    let size = set.len();
    if size <= count {
        call.reply.set(size);
        set.iter().for_each(|member| element::bulk(&mut call.reply, member));
        set.unchanged();
        call.db.remove(key);
        call.notify(EventClass::Set, "spop", key);
        call.notify(EventClass::Generic, "del", key);
        call.dirty(size);
        let command: &[u8] = if call.limits().lazy_server_del { b"UNLINK" } else { b"DEL" };
        return Ok(call.rewritten(&[command, key]));
    }
    call.reply.set(count);
    set.pop_sample(count, limits, random, |member| {
        element::bulk(&mut call.reply, member);
        removals.add(member);
    });
    drop(set);
    call.notify(EventClass::Set, "spop", key);
    call.dirty(count);
    Ok(removals.finish())
}

/// The effect of members removed: as many SREM as it takes.
struct Removals<'k> {
    key: &'k [u8],
    rewrite: Rewrite,
    following: bool,
    batch: Vec<Vec<u8>>,
}

impl<'k> Removals<'k> {
    fn new(key: &'k [u8], rewrite: Rewrite, following: bool) -> Self {
        Self { key, rewrite, following, batch: Vec::new() }
    }

    fn add(&mut self, member: Element<'_>) {
        if self.following {
            self.batch.push(member.to_vec());
            if self.batch.len() == BATCH {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let members = self.batch.iter().map(Vec::as_slice);
        let words = [b"SREM", self.key].into_iter().chain(members);
        self.rewrite.command_of(2 + self.batch.len(), words);
        self.batch.clear();
    }

    fn finish(mut self) -> Effect {
        if !self.batch.is_empty() {
            self.flush();
        }
        Effect::Rewrite(self.rewrite)
    }
}

fn random() -> u64 {
    fastrand::u64(..)
}

/// `SRANDMEMBER key [count]`
fn srandmember(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let key = call.args[1];
    let count = match call.args {
        [_, _] => None,
        [_, _, count] => match args::integer(count)? {
            i64::MIN => return Err(CommandError::BelowMinusMax),
            count => Some(count),
        },
        _ => return Err(CommandError::Syntax),
    };
    let asked = usize::try_from(count.unwrap_or(1).unsigned_abs()).unwrap_or(usize::MAX);
    let mut lengthy = Lengthy::new(call, asked);
    let set = call.db.read_as::<Set>(key)?;
    let reply = &mut call.reply;
    let (Some(set), Some(count)) = (&set, count) else {
        match (set.as_ref().and_then(|set| set.random(random)), count) {
            (Some(member), None) => element::bulk(reply, member),
            (_, Some(_)) => reply.array(0),
            (None, None) => reply.null(),
        }
        return Ok(Effect::None);
    };
    if 0 <= count {
        reply.array(asked.min(set.len()));
        match asked {
            1 => set.random(random).into_iter().for_each(|member| element::bulk(reply, member)),
            _ => set.sample(asked, random, |member| element::bulk(reply, member)),
        }
        return Ok(Effect::None);
    }
    reply.array(asked);
    // It breaks off where `lengthy` says so, which knows why.
    let _ = set.sample_repeating(asked, random, |member| {
        element::bulk(reply, member);
        if lengthy.goes_on(reply.len()) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    lengthy.finish()?;
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use carnelian_resp::Protocol;

    use crate::bench::Bench;

    fn members(reply: &str) -> Vec<&str> {
        reply.split("\r\n").skip(1).filter(|line| line.starts_with('m')).collect()
    }

    #[test]
    fn a_popped_member_is_named_to_replicas() {
        let mut bench = Bench::new();
        bench.expect("SPOP k", "$-1");
        bench.expect("SPOP k 2", "*0");
        bench.expect("SADD k 12", ":1");
        bench.events.clear();
        bench.expect("SPOP k 0", "*0");
        bench.expect("SPOP k", "$2 12");
        assert_eq!(bench.effects, b"*3\r\n$4\r\nSREM\r\n$1\r\nk\r\n$2\r\n12\r\n");
        assert_eq!(bench.events, ["spop k", "del k"]);
        bench.expect("SPOP k -1", "-ERR value is out of range, must be positive");
        bench.expect("SPOP k 1 2", "-ERR syntax error");
        bench.protocol = Protocol::Resp3;
        bench.expect("SPOP k", "_");
        bench.expect("SPOP k 2", "~0");
    }

    #[test]
    fn a_count_pops_different_members() {
        let mut bench = Bench::new();
        for member in 0..3000 {
            bench.reply(&format!("SADD k m{member}"));
        }
        bench.events.clear();
        let reply = bench.reply("SPOP k 1500");
        let popped: BTreeSet<&str> = members(&reply).into_iter().collect();
        assert_eq!((popped.len(), bench.dirty), (1500, 1500));
        let effects = String::from_utf8(bench.effects.clone()).expect("text");
        assert!(effects.starts_with("*1026\r\n$4\r\nSREM"), "the first batch is full");
        assert_eq!(effects.matches("SREM").count(), 2);
        assert_eq!(members(&effects).into_iter().collect::<BTreeSet<_>>(), popped);
        bench.expect("SCARD k", ":1500");
        bench.reply("SPOP k 1400");
        bench.expect("SCARD k", ":100");
        bench.effects.clear();
        bench.reply("SPOP k 100");
        assert_eq!(bench.effects, b"*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n");
        assert_eq!(bench.events, ["spop k", "spop k", "spop k", "del k"]);
        bench.expect("SCARD k", ":0");
    }

    #[test]
    fn srandmember_repeats_only_for_negative_counts() {
        let mut bench = Bench::new();
        bench.expect("SRANDMEMBER k", "$-1");
        bench.expect("SRANDMEMBER k 5", "*0");
        bench.expect("SADD k m1", ":1");
        bench.expect("SRANDMEMBER k", "$2 m1");
        bench.expect("SRANDMEMBER k 1", "*1 $2 m1");
        bench.expect("SRANDMEMBER k 5", "*1 $2 m1");
        bench.expect("SRANDMEMBER k 0", "*0");
        bench.expect("SRANDMEMBER k -3", "*3 $2 m1 $2 m1 $2 m1");
        bench.expect("SRANDMEMBER k x", "-ERR value is not an integer or out of range");
        bench.expect(
            "SRANDMEMBER k -9223372036854775808",
            "-ERR value is out of range, value must between -9223372036854775807 and \
             9223372036854775807",
        );
        bench.expect(
            "SRANDMEMBER k -9223372036854775807",
            "-ERR the reply would be longer than proto-max-bulk-len",
        );
        bench.expect("SRANDMEMBER k 1 2", "-ERR syntax error");
    }
}
