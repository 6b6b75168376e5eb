//! Fields that expire: setting, asking and taking back when.

use carnelian_keyspace::EventClass;
use carnelian_structs::hash::Hash;
use smallvec::SmallVec;

use super::{
    ACCESS, NOT_POSITIVE, READ, UPDATE, WRITE, after_type, change_existing, command, named_fields,
    notify_removed,
};
use crate::args;
use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HEXPIRE: DataCommand = DataCommand {
    summary: "Makes fields expire after some seconds.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: UPDATE,
    ..command("hexpire", "7.4.0", -6, hexpire)
};

pub(super) const HPEXPIRE: DataCommand = DataCommand {
    summary: "Makes fields expire after some milliseconds.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: UPDATE,
    ..command("hpexpire", "7.4.0", -6, hpexpire)
};

pub(super) const HEXPIREAT: DataCommand = DataCommand {
    summary: "Makes fields expire at a Unix time in seconds.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: UPDATE,
    ..command("hexpireat", "7.4.0", -6, hexpireat)
};

pub(super) const HPEXPIREAT: DataCommand = DataCommand {
    summary: "Makes fields expire at a Unix time in milliseconds.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: UPDATE,
    ..command("hpexpireat", "7.4.0", -6, hpexpireat)
};

pub(super) const HTTL: DataCommand = DataCommand {
    summary: "Returns how many seconds fields have left.",
    complexity: "O(N) where N is the number of fields named.",
    flags: READ,
    keys: ACCESS,
    tips: &["nondeterministic_output"],
    ..command("httl", "7.4.0", -5, httl)
};

pub(super) const HPTTL: DataCommand = DataCommand {
    summary: "Returns how many milliseconds fields have left.",
    complexity: "O(N) where N is the number of fields named.",
    flags: READ,
    keys: ACCESS,
    tips: &["nondeterministic_output"],
    ..command("hpttl", "7.4.0", -5, hpttl)
};

pub(super) const HEXPIRETIME: DataCommand = DataCommand {
    summary: "Returns the Unix time in seconds at which fields expire.",
    complexity: "O(N) where N is the number of fields named.",
    flags: READ,
    keys: ACCESS,
    ..command("hexpiretime", "7.4.0", -5, hexpiretime)
};

pub(super) const HPEXPIRETIME: DataCommand = DataCommand {
    summary: "Returns the Unix time in milliseconds at which fields expire.",
    complexity: "O(N) where N is the number of fields named.",
    flags: READ,
    keys: ACCESS,
    ..command("hpexpiretime", "7.4.0", -5, hpexpiretime)
};

pub(super) const HPERSIST: DataCommand = DataCommand {
    summary: "Takes the expiry from fields.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: UPDATE,
    ..command("hpersist", "7.4.0", -5, hpersist)
};

/// The last moment that commands take, as in Redis.
const LATEST_MS: u64 = (1 << 46) - 1;

/// The replies of the commands here for each field.
const NO_FIELD: i64 = -2;
const NO_EXPIRY: i64 = -1;
const NOT_MET: i64 = 0;
const DONE: i64 = 1;
const REMOVED: i64 = 2;

/// How a time is given or asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Seconds,
    Milliseconds,
    AtSeconds,
    AtMilliseconds,
}

impl Clock {
    const fn seconds(self) -> bool {
        matches!(self, Self::Seconds | Self::AtSeconds)
    }

    /// What a time of this kind counts from.
    const fn base(self, now_ms: u64) -> u64 {
        match self {
            Self::Seconds | Self::Milliseconds => now_ms,
            Self::AtSeconds | Self::AtMilliseconds => 0,
        }
    }

    /// The moment a word names, in milliseconds.
    pub(super) fn moment(
        self,
        word: &[u8],
        now_ms: u64,
        command: &'static str,
    ) -> Result<u64, CommandError> {
        let amount = u64::try_from(args::integer(word)?)
            .map_err(|_| CommandError::text("ERR invalid expire time, must be >= 0"))?;
        let ms = if self.seconds() { amount.checked_mul(1000) } else { Some(amount) };
        ms.and_then(|ms| ms.checked_add(self.base(now_ms)))
            .filter(|&at| at <= LATEST_MS)
            .ok_or(CommandError::InvalidExpire(command))
    }

    /// A moment as this clock tells it; seconds are rounded up.
    const fn tell(self, at_ms: u64, now_ms: u64) -> i64 {
        let ms = at_ms.saturating_sub(self.base(now_ms));
        (if self.seconds() { ms.div_ceil(1000) } else { ms }) as i64
    }
}

/// When HEXPIRE changes a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfLasting,
    IfExpiring,
    IfLater,
    IfSooner,
}

impl Condition {
    fn of(word: &[u8]) -> Option<Self> {
        [
            ("NX", Self::IfLasting),
            ("XX", Self::IfExpiring),
            ("GT", Self::IfLater),
            ("LT", Self::IfSooner),
        ]
        .into_iter()
        .find(|(name, _)| args::is(word, name))
        .map(|(_, condition)| condition)
    }

    /// A field without expiry lasts for ever: longer than any time.
    fn allows(self, old: Option<u64>, new: u64) -> bool {
        match self {
            Self::Always => true,
            Self::IfLasting => old.is_none(),
            Self::IfExpiring => old.is_some(),
            Self::IfLater => old.is_some_and(|old| old < new),
            Self::IfSooner => old.is_none_or(|old| new < old),
        }
    }
}

/// `HEXPIRE key seconds [NX | XX | GT | LT] FIELDS count field [field ...]`
fn hexpire(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    expire(call, Clock::Seconds, "hexpire")
}

/// `HPEXPIRE key milliseconds [NX | XX | GT | LT] FIELDS count field [field ...]`
fn hpexpire(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    expire(call, Clock::Milliseconds, "hpexpire")
}

/// `HEXPIREAT key unix-time-seconds [NX | XX | GT | LT] FIELDS count field [field ...]`
fn hexpireat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    expire(call, Clock::AtSeconds, "hexpireat")
}

/// `HPEXPIREAT key unix-time-milliseconds [NX | XX | GT | LT] FIELDS count field [field ...]`
fn hpexpireat(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    expire(call, Clock::AtMilliseconds, "hpexpireat")
}

struct ExpireRequest<'w> {
    at_ms: u64,
    condition: Condition,
    fields: &'w [&'w [u8]],
}

impl<'w> ExpireRequest<'w> {
    fn parse(
        words: &'w [&'w [u8]],
        clock: Clock,
        now_ms: u64,
        command: &'static str,
    ) -> Result<Self, CommandError> {
        let at_ms = clock.moment(words[2], now_ms, command)?;
        let condition = Condition::of(words[3]);
        let fields = named_fields(
            words,
            3 + usize::from(condition.is_some()),
            "ERR Parameter `numFields` should be greater than 0",
        )?;
        Ok(Self { at_ms, condition: condition.unwrap_or(Condition::Always), fields })
    }
}

/// Replicas run on their own clock, so they are sent the absolute time, and only the fields it was
/// set for. A time that is past removes fields, and is sent as that.
fn expire(
    call: &mut Call<'_>,
    clock: Clock,
    command: &'static str,
) -> Result<Effect, CommandError> {
    let (key, words, now_ms) = (call.args[1], call.args, call.due_ms());
    let parsed = ExpireRequest::parse(words, clock, now_ms, command);
    let request = after_type(call, key, parsed)?;
    let past = request.at_ms <= now_ms;

    let reply = &mut call.reply;
    reply.array(request.fields.len());
    let changed = change_existing(&mut call.db, key, request.fields.iter().copied(), |hash| {
        hash.make_expirable();
        let mut changed: SmallVec<[&[u8]; 16]> = SmallVec::new();
        for &field in request.fields {
            reply.integer(match hash.expiry(field, now_ms) {
                None => NO_FIELD,
                Some(old) if !request.condition.allows(old, request.at_ms) => NOT_MET,
                Some(_) => {
                    changed.push(field);
                    if past {
                        hash.remove(field);
                        REMOVED
                    } else {
                        hash.set_expiry(field, Some(request.at_ms));
                        DONE
                    }
                }
            });
        }
        (!changed.is_empty(), (changed, hash.is_empty()))
    })?;
    let Some((changed, spent)) = changed else {
        request.fields.iter().for_each(|_| call.reply.integer(NO_FIELD));
        return Ok(Effect::None);
    };
    if changed.is_empty() {
        return Ok(Effect::None);
    }
    if past {
        return Ok(removed(call, key, &changed, spent));
    }
    call.notify(EventClass::Hash, "hexpire", key);
    call.dirty(changed.len());
    let condition = (request.condition != Condition::Always).then_some(words[3]);
    Ok(set_at(call, key, request.at_ms, condition, &changed))
}

/// The effect of setting the expiry of fields.
pub(super) fn set_at(
    call: &Call<'_>,
    key: &[u8],
    at_ms: u64,
    condition: Option<&[u8]>,
    fields: &[&[u8]],
) -> Effect {
    let mut rewrite = call.rewrite();
    if call.db.changes.following {
        let (at, count) = (at_ms.to_string(), fields.len().to_string());
        let head = [b"HPEXPIREAT".as_slice(), key, at.as_bytes()];
        let named = [b"FIELDS".as_slice(), count.as_bytes()];
        let words = head.into_iter().chain(condition).chain(named).chain(fields.iter().copied());
        rewrite.command_of(5 + usize::from(condition.is_some()) + fields.len(), words);
    }
    Effect::Rewrite(rewrite)
}

/// Tells of fields that were removed because their new expiry is past, and returns the effect.
pub(super) fn removed(call: &mut Call<'_>, key: &[u8], fields: &[&[u8]], spent: bool) -> Effect {
    notify_removed(call, key, spent);
    call.dirty(fields.len());
    call.db.changes.expired_fields += fields.len() as u64;
    let mut rewrite = call.rewrite();
    for field in fields {
        rewrite.command(&[b"HDEL", key, field]);
    }
    Effect::Rewrite(rewrite)
}

/// `HTTL key FIELDS count field [field ...]`
fn httl(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    tell(call, Clock::Seconds)
}

/// `HPTTL key FIELDS count field [field ...]`
fn hpttl(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    tell(call, Clock::Milliseconds)
}

/// `HEXPIRETIME key FIELDS count field [field ...]`
fn hexpiretime(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    tell(call, Clock::AtSeconds)
}

/// `HPEXPIRETIME key FIELDS count field [field ...]`
fn hpexpiretime(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    tell(call, Clock::AtMilliseconds)
}

fn tell(call: &mut Call<'_>, clock: Clock) -> Result<Effect, CommandError> {
    let (key, now_ms) = (call.args[1], call.due_ms());
    let hash = call.db.read_as::<Hash>(key)?;
    let fields = named_fields(call.args, 2, NOT_POSITIVE)?;
    call.reply.array(fields.len());
    for field in fields {
        call.reply.integer(match hash.as_ref().and_then(|hash| hash.expiry(field, now_ms)) {
            None => NO_FIELD,
            Some(None) => NO_EXPIRY,
            Some(Some(at)) => clock.tell(at, now_ms),
        });
    }
    Ok(Effect::None)
}

/// `HPERSIST key FIELDS count field [field ...]`
fn hpersist(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, now_ms) = (call.args[1], call.due_ms());
    let fields = after_type(call, key, named_fields(call.args, 2, NOT_POSITIVE))?;
    let reply = &mut call.reply;
    reply.array(fields.len());
    let changed = change_existing(&mut call.db, key, fields.iter().copied(), |hash| {
        let mut changed = false;
        for field in fields {
            reply.integer(match hash.expiry(field, now_ms) {
                None => NO_FIELD,
                Some(None) => NO_EXPIRY,
                Some(Some(_)) => {
                    hash.set_expiry(field, None);
                    changed = true;
                    DONE
                }
            });
        }
        (changed, changed)
    })?;
    match changed {
        None => {
            fields.iter().for_each(|_| call.reply.integer(NO_FIELD));
            Ok(Effect::None)
        }
        Some(false) => Ok(Effect::None),
        Some(true) => {
            call.notify(EventClass::Hash, "hpersist", key);
            Ok(Effect::Verbatim)
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    fn effects(bench: &mut Bench) -> String {
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        bench.effects.clear();
        effects.trim_end().to_owned()
    }

    #[test]
    fn an_expiry_is_set_told_and_taken_back() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HEXPIRE h 10 FIELDS 2 a zz", "*2 :1 :-2");
        let at = "$13 1700000010000";
        assert_eq!(effects(&mut bench), format!("*6 $10 HPEXPIREAT $1 h {at} $6 FIELDS $1 1 $1 a"));
        bench.now_ms += 1;
        bench.expect("HTTL h FIELDS 3 a b zz", "*3 :10 :-1 :-2");
        bench.expect("HPTTL h FIELDS 1 a", "*1 :9999");
        bench.expect("HEXPIRETIME h FIELDS 1 a", "*1 :1700000010");
        bench.expect("HPEXPIRETIME h FIELDS 1 a", "*1 :1700000010000");
        bench.expect("HPERSIST h FIELDS 3 a b zz", "*3 :1 :-1 :-2");
        bench.expect("HTTL h FIELDS 1 a", "*1 :-1");
        bench.expect("HPERSIST nokey FIELDS 2 a b", "*2 :-2 :-2");
        bench.expect("HTTL nokey FIELDS 2 a b", "*2 :-2 :-2");
        bench.expect("HEXPIRE nokey 10 FIELDS 2 a b", "*2 :-2 :-2");
    }

    #[test]
    fn conditions_decide_field_by_field() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HEXPIRE h 10 NX FIELDS 1 a", "*1 :1");
        bench.effects.clear();
        bench.expect("HEXPIRE h 20 nx FIELDS 2 a b", "*2 :0 :1");
        let at = "$13 1700000020000";
        assert_eq!(
            effects(&mut bench),
            format!("*7 $10 HPEXPIREAT $1 h {at} $2 nx $6 FIELDS $1 1 $1 b")
        );
        bench.expect("HEXPIRE h 15 GT FIELDS 2 a b", "*2 :1 :0");
        bench.expect("HEXPIRE h 18 LT FIELDS 2 a b", "*2 :0 :1");
        bench.expect("HPERSIST h FIELDS 1 a", "*1 :1");
        bench.expect("HEXPIRE h 18 XX FIELDS 2 a b", "*2 :0 :1");
        bench.expect("HEXPIRE h 18 GT FIELDS 1 a", "*1 :0");
        bench.expect("HEXPIRE h 18 LT FIELDS 1 a", "*1 :1");
    }

    #[test]
    fn a_time_that_is_past_removes_fields() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2 c 3", ":3");
        bench.expect("HEXPIRE h 0 FIELDS 3 a zz b", "*3 :2 :-2 :2");
        assert_eq!(effects(&mut bench), "*3 $4 HDEL $1 h $1 a *3 $4 HDEL $1 h $1 b");
        bench.expect("HPEXPIREAT h 1 LT FIELDS 1 c", "*1 :2");
        bench.expect("HLEN h", ":0");
    }

    #[test]
    fn an_expired_field_is_gone_for_good() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HPEXPIRE h 10 FIELDS 1 a", "*1 :1");
        bench.now_ms += 10;
        bench.expect("HTTL h FIELDS 1 a", "*1 :-2");
        bench.expect("HPERSIST h FIELDS 1 a", "*1 :-2");
        bench.expect("HEXPIRE h 10 FIELDS 1 a", "*1 :-2");
        bench.expect("HLEN h", ":1");
    }

    #[test]
    fn malformed_requests_are_refused() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1", ":1");
        bench.expect("SET s x", "+OK");
        let missing = "-ERR Mandatory argument FIELDS is missing or not at the right position";
        let mismatch = "-ERR The `numfields` parameter must match the number of arguments";
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        let few = "-ERR Parameter `numFields` should be greater than 0";
        for (request, reply) in [
            ("HEXPIRE s x FIELDS 1 a", wrong),
            ("HEXPIRE h x FIELDS 1 a", "-ERR value is not an integer or out of range"),
            ("HEXPIRE h -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0"),
            ("HEXPIRE h 10 NX XX FIELDS 1 a", missing),
            ("HEXPIRE h 10 FIELD 1 a", missing),
            ("HEXPIRE h 10 FIELDS 2 a", mismatch),
            ("HEXPIRE h 10 NX FIELDS 1", mismatch),
            ("HEXPIRE h 10 FIELDS 9223372036854775807 a", mismatch),
            ("HEXPIRE h 10 FIELDS 0 a", few),
            ("HEXPIRE h 10 FIELDS x a", few),
            ("HTTL s FIELD 1 a", wrong),
            ("HTTL h FIELD 1 a", missing),
            ("HTTL h FIELDS 2 a", mismatch),
            ("HTTL h FIELDS 0 a", "-ERR Number of fields must be a positive integer"),
            ("HPERSIST s FIELD 1 a", wrong),
            ("HPERSIST h FIELD 1 a", missing),
            ("HPERSIST h FIELDS -1 a", "-ERR Number of fields must be a positive integer"),
        ] {
            bench.expect(request, reply);
        }
        for (request, command) in [
            ("HEXPIRE h 9223372036854775807 FIELDS 1 a", "hexpire"),
            ("HPEXPIRE h 70368744177663 FIELDS 1 a", "hpexpire"),
            ("HPEXPIREAT h 70368744177664 FIELDS 1 a", "hpexpireat"),
            ("HEXPIREAT h 70368744178 FIELDS 1 a", "hexpireat"),
        ] {
            bench.expect(request, &format!("-ERR invalid expire time in '{command}' command"));
        }
        bench.expect("HPEXPIREAT h 70368744177663 FIELDS 1 a", "*1 :1");
    }
}
