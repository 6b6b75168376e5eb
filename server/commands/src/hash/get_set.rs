//! Reading or setting fields and, with it, when they expire or that they go.

use carnelian_keyspace::EventClass;
use carnelian_structs::hash::{FieldExpiry, Hash};
use smallvec::SmallVec;

use super::field_expiry::{Clock, removed, set_at};
use super::{
    ACCESS_DELETE, ACCESS_UPDATE, NOT_POSITIVE, STORE, UPDATE, WRITE, after_type, bulk, change,
    change_existing, change_live, command, limits, named_fields, notify_removed,
};
use crate::args;
use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const HGETDEL: DataCommand = DataCommand {
    summary: "Returns the values of fields and removes them.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: ACCESS_DELETE,
    ..command("hgetdel", "8.0.0", -5, hgetdel)
};

pub(super) const HGETEX: DataCommand = DataCommand {
    summary: "Returns the values of fields and changes when they expire.",
    complexity: "O(N) where N is the number of fields named.",
    flags: WRITE,
    keys: ACCESS_UPDATE,
    ..command("hgetex", "8.0.0", -5, hgetex)
};

pub(super) const HSETEX: DataCommand = DataCommand {
    summary: "Sets fields to values and when they expire.",
    complexity: "O(N) where N is the number of fields set.",
    flags: STORE,
    keys: UPDATE,
    ..command("hsetex", "8.0.0", -6, hsetex)
};

/// The clock of an option EX, PX, EXAT or PXAT.
fn clock_of(word: &[u8]) -> Option<Clock> {
    [
        ("EX", Clock::Seconds),
        ("PX", Clock::Milliseconds),
        ("EXAT", Clock::AtSeconds),
        ("PXAT", Clock::AtMilliseconds),
    ]
    .into_iter()
    .find(|(name, _)| args::is(word, name))
    .map(|(_, clock)| clock)
}

/// `HGETDEL key FIELDS count field [field ...]`
fn hgetdel(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, now_ms) = (call.args[1], call.due_ms());
    let fields = after_type(call, key, named_fields(call.args, 2, NOT_POSITIVE))?;
    let reply = &mut call.reply;
    reply.array(fields.len());
    let done = change_existing(&mut call.db, key, fields.iter().copied(), |hash| {
        let mut removed = 0;
        for field in fields {
            match hash.get(field, now_ms) {
                None => reply.null(),
                Some(value) => {
                    bulk(reply, value);
                    hash.remove(field);
                    removed += 1;
                }
            }
        }
        (removed != 0, (removed, hash.is_empty()))
    })?;
    let Some((removed, spent)) = done else {
        fields.iter().for_each(|_| call.reply.null());
        return Ok(Effect::None);
    };
    if removed == 0 {
        return Ok(Effect::None);
    }
    notify_removed(call, key, spent);
    call.dirty(removed);
    let mut rewrite = call.rewrite();
    let words = [b"HDEL".as_slice(), key].into_iter().chain(fields.iter().copied());
    rewrite.command_of(2 + fields.len(), words);
    Ok(Effect::Rewrite(rewrite))
}

/// What HGETEX does to the expiry of what it returns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refresh {
    Keep,
    Persist,
    At(u64),
}

impl Refresh {
    fn parse<'w>(
        words: &'w [&'w [u8]],
        now_ms: u64,
    ) -> Result<(Self, &'w [&'w [u8]]), CommandError> {
        let (refresh, at) = if args::is(words[2], "PERSIST") {
            (Self::Persist, 3)
        } else if let Some(clock) = clock_of(words[2]) {
            let at_ms = clock.moment(words[3], now_ms, "hgetex")?;
            if words.len() < 6 {
                return Err(CommandError::Arity("hgetex".into()));
            }
            (Self::At(at_ms), 4)
        } else {
            (Self::Keep, 2)
        };
        Ok((refresh, named_fields(words, at, NOT_POSITIVE)?))
    }
}

/// `HGETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST] FIELDS count field [field ...]`
///
/// Replicas are sent what happened to the fields, with the absolute time.
fn hgetex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, words, now_ms) = (call.args[1], call.args, call.due_ms());
    let (refresh, fields) = after_type(call, key, Refresh::parse(words, now_ms))?;
    let past = matches!(refresh, Refresh::At(at) if at <= now_ms);

    let reply = &mut call.reply;
    reply.array(fields.len());
    let done = change_existing(&mut call.db, key, fields.iter().copied(), |hash| {
        // PERSIST as well: the form is that of Redis, even if no field has an expiry then.
        if refresh != Refresh::Keep {
            hash.make_expirable();
        }
        let mut changed: SmallVec<[&[u8]; 16]> = SmallVec::new();
        for &field in fields {
            let Some(value) = hash.get(field, now_ms) else {
                reply.null();
                continue;
            };
            bulk(reply, value);
            let change = match refresh {
                Refresh::Keep => false,
                Refresh::Persist => {
                    hash.expiry(field, now_ms).flatten().is_some() && hash.set_expiry(field, None)
                }
                Refresh::At(_) if past => hash.remove(field),
                Refresh::At(at) => hash.set_expiry(field, Some(at)),
            };
            if change {
                changed.push(field);
            }
        }
        (!changed.is_empty(), (changed, hash.is_empty()))
    })?;
    let Some((changed, spent)) = done else {
        fields.iter().for_each(|_| call.reply.null());
        return Ok(Effect::None);
    };
    if changed.is_empty() {
        return Ok(Effect::None);
    }
    if past {
        return Ok(removed(call, key, &changed, spent));
    }
    call.dirty(changed.len());
    if let Refresh::At(at) = refresh {
        call.notify(EventClass::Hash, "hexpire", key);
        return Ok(set_at(call, key, at, None, fields));
    }
    call.notify(EventClass::Hash, "hpersist", key);
    let mut rewrite = call.rewrite();
    let words = [b"HPERSIST".as_slice(), key].into_iter().chain(words[3..].iter().copied());
    rewrite.command_of(call.args.len() - 1, words);
    Ok(Effect::Rewrite(rewrite))
}

/// When HSETEX sets anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Any,
    /// FNX: if none of the fields exists.
    None,
    /// FXX: if all of them exist.
    All,
}

struct SetRequest<'w> {
    presence: Presence,
    expiry: FieldExpiry,
    /// Where the option with the expiry is, if there is one.
    timed_at: Option<usize>,
    /// Field, value.
    pairs: &'w [&'w [u8]],
}

impl<'w> SetRequest<'w> {
    fn parse(words: &'w [&'w [u8]], now_ms: u64) -> Result<Self, CommandError> {
        let arity = || CommandError::Arity("hsetex".into());
        let mut presence = Presence::Any;
        let mut expiry = FieldExpiry::Clear;
        let mut timed_at = None;
        let mut at = 2;
        loop {
            let word = *words.get(at).ok_or_else(arity)?;
            if args::is(word, "FNX") || args::is(word, "FXX") {
                if presence != Presence::Any {
                    return Err(CommandError::text(
                        "ERR Only one of FXX or FNX arguments can be specified",
                    ));
                }
                presence = if args::is(word, "FNX") { Presence::None } else { Presence::All };
            } else if args::is(word, "FIELDS") {
                let pairs = Self::pairs(words, at)?;
                return Ok(Self { presence, expiry, timed_at, pairs });
            } else if args::is(word, "KEEPTTL") || clock_of(word).is_some() {
                if expiry != FieldExpiry::Clear {
                    return Err(CommandError::text(
                        "ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified",
                    ));
                }
                expiry = FieldExpiry::Keep;
                if let Some(clock) = clock_of(word) {
                    timed_at = Some(at);
                    at += 1;
                    let amount = words.get(at).ok_or_else(arity)?;
                    expiry = FieldExpiry::At(clock.moment(amount, now_ms, "hsetex")?);
                }
            } else {
                return Err(CommandError::quoting("ERR unknown argument: ", word, ""));
            }
            at += 1;
        }
    }

    /// What follows `FIELDS count` at `words[at]`.
    fn pairs(words: &'w [&'w [u8]], at: usize) -> Result<&'w [&'w [u8]], CommandError> {
        let arity = || CommandError::Arity("hsetex".into());
        if words.len() < at + 4 {
            return Err(arity());
        }
        let count = args::integer(words[at + 1])
            .ok()
            .filter(|count| (1..=i64::from(i32::MAX)).contains(count))
            .ok_or(CommandError::text("ERR invalid number of fields"))?;
        let pairs = &words[at + 2..];
        if pairs.len() as i64 == 2 * count { Ok(pairs) } else { Err(arity()) }
    }

    fn fields(&self) -> impl Iterator<Item = &'w [u8]> {
        self.pairs.iter().step_by(2).copied()
    }

    fn allowed(&self, hash: &Hash, now_ms: u64) -> bool {
        let mut fields = self.fields();
        match self.presence {
            Presence::Any => true,
            Presence::None => fields.all(|field| !hash.contains(field, now_ms)),
            Presence::All => fields.all(|field| hash.contains(field, now_ms)),
        }
    }
}

/// `HSETEX key [FNX | FXX] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
/// FIELDS count field value [field value ...]`
///
/// Replicas are sent the absolute time. With one that is past the fields are as good as set and
/// removed.
fn hsetex(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (key, words, now_ms) = (call.args[1], call.args, call.due_ms());
    let request = SetRequest::parse(words, now_ms)?;
    let past = matches!(request.expiry, FieldExpiry::At(at) if at <= now_ms);
    let set = match (past, request.presence) {
        (true, _) => return hsetex_past(call, &request),
        // A key that is missing must not be made for nothing.
        (false, Presence::All) => {
            let limits = limits(call);
            change_existing(&mut call.db, key, request.fields(), |hash| {
                let set = request.allowed(hash, now_ms) && set_all(hash, &request, limits);
                (set, set)
            })?
            .unwrap_or(false)
        }
        (false, Presence::None) => {
            let limits = limits(call);
            change_live(&mut call.db, key, request.fields(), |hash| {
                let set = request.allowed(hash, now_ms) && set_all(hash, &request, limits);
                (set, set)
            })?
        }
        (false, Presence::Any) if request.expiry == FieldExpiry::Keep => {
            let limits = limits(call);
            change_live(&mut call.db, key, request.fields(), |hash| {
                (true, set_all(hash, &request, limits))
            })?
        }
        (false, Presence::Any) => {
            let limits = limits(call);
            change(&mut call.db, key, |hash| set_all(hash, &request, limits))?
        }
    };
    call.reply.integer(i64::from(set));
    if !set {
        return Ok(Effect::None);
    }
    call.dirty(request.pairs.len() / 2);
    call.notify(EventClass::Hash, "hset", key);
    let (FieldExpiry::At(at_ms), Some(timed_at)) = (request.expiry, request.timed_at) else {
        return Ok(Effect::Verbatim);
    };
    call.notify(EventClass::Hash, "hexpire", key);
    let mut rewrite = call.rewrite();
    if call.db.changes.following {
        let at = at_ms.to_string();
        let words = words.iter().enumerate().map(|(index, &word)| match index {
            index if index == timed_at => b"PXAT".as_slice(),
            index if index == timed_at + 1 => at.as_bytes(),
            _ => word,
        });
        rewrite.command_of(call.args.len(), words);
    }
    Ok(Effect::Rewrite(rewrite))
}

fn set_all(
    hash: &mut Hash,
    request: &SetRequest<'_>,
    limits: carnelian_structs::hash::HashLimits,
) -> bool {
    hash.prepare(request.pairs.len() / 2, limits);
    for pair in request.pairs.chunks_exact(2) {
        hash.set(pair[0], pair[1], request.expiry, limits);
    }
    true
}

fn hsetex_past(call: &mut Call<'_>, request: &SetRequest<'_>) -> Result<Effect, CommandError> {
    let (key, now_ms, limits) = (call.args[1], call.due_ms(), limits(call));
    let done = change_existing(&mut call.db, key, request.fields(), |hash| {
        let allowed = request.allowed(hash, now_ms);
        if allowed {
            // Set and removed, because what does not fit leaves the hash in another form.
            hash.prepare(request.pairs.len() / 2, limits);
            for pair in request.pairs.chunks_exact(2) {
                hash.set(pair[0], pair[1], request.expiry, limits);
                hash.remove(pair[0]);
            }
        }
        (allowed, (allowed, hash.is_empty()))
    })?;
    let (allowed, spent) = done.unwrap_or((request.presence != Presence::All, true));
    call.reply.integer(i64::from(allowed));
    if !allowed {
        return Ok(Effect::None);
    }
    if done.is_none() {
        // It was made, if only for a moment.
        call.notify(EventClass::New, "new", key);
    }
    call.notify(EventClass::Hash, "hset", key);
    let fields: SmallVec<[&[u8]; 16]> = request.pairs.iter().step_by(2).copied().collect();
    Ok(removed(call, key, &fields, spent))
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    fn effects(bench: &mut Bench) -> String {
        let effects = String::from_utf8_lossy(&bench.effects).replace("\r\n", " ");
        bench.effects.clear();
        effects.trim_end().to_owned()
    }

    const MISSING: &str = "-ERR Mandatory argument FIELDS is missing or not at the right position";
    const MISMATCH: &str = "-ERR The `numfields` parameter must match the number of arguments";
    const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    const NOT_POSITIVE: &str = "-ERR Number of fields must be a positive integer";

    #[test]
    fn hgetdel_returns_and_removes() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2 c 3", ":3");
        bench.expect("HGETDEL h FIELDS 3 a zz a", "*3 $1 1 $-1 $-1");
        assert_eq!(effects(&mut bench), "*5 $4 HDEL $1 h $1 a $2 zz $1 a");
        bench.expect("HGETDEL h FIELDS 1 zz", "*1 $-1");
        bench.expect("HGETDEL nokey FIELDS 2 a b", "*2 $-1 $-1");
        assert_eq!(effects(&mut bench), "");
        bench.expect("HGETDEL h FIELDS 2 b c", "*2 $1 2 $1 3");
        bench.expect("HLEN h", ":0");
        bench.expect("SET s x", "+OK");
        bench.expect("HGETDEL s FIELD 1 a", WRONG);
        bench.expect("HGETDEL h FIELD 1 a", MISSING);
        bench.expect("HGETDEL h FIELDS 0 a", NOT_POSITIVE);
        bench.expect("HGETDEL h FIELDS 2 a", MISMATCH);
    }

    #[test]
    fn hgetex_returns_and_refreshes() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HGETEX h FIELDS 2 a zz", "*2 $1 1 $-1");
        assert_eq!(effects(&mut bench), "");
        bench.expect("HGETEX h EX 100 FIELDS 2 a zz", "*2 $1 1 $-1");
        assert_eq!(
            effects(&mut bench),
            "*7 $10 HPEXPIREAT $1 h $13 1700000100000 $6 FIELDS $1 2 $1 a $2 zz"
        );
        bench.expect("HTTL h FIELDS 2 a b", "*2 :100 :-1");
        bench.expect("HGETEX h PERSIST FIELDS 2 a b", "*2 $1 1 $1 2");
        assert_eq!(effects(&mut bench), "*6 $8 HPERSIST $1 h $6 FIELDS $1 2 $1 a $1 b");
        bench.expect("HGETEX h PERSIST FIELDS 2 a b", "*2 $1 1 $1 2");
        assert_eq!(effects(&mut bench), "");
        bench.expect("HGETEX h PXAT 1 FIELDS 3 a a b", "*3 $1 1 $-1 $1 2");
        assert_eq!(effects(&mut bench), "*3 $4 HDEL $1 h $1 a *3 $4 HDEL $1 h $1 b");
        bench.expect("HLEN h", ":0");
        bench.expect("HGETEX nokey EX 1 FIELDS 2 a b", "*2 $-1 $-1");
    }

    #[test]
    fn hgetex_refuses_malformed_requests() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1", ":1");
        bench.expect("SET s x", "+OK");
        for (request, reply) in [
            ("HGETEX s EX x FIELDS 1 a", WRONG),
            ("HGETEX h EX x FIELDS 1 a", "-ERR value is not an integer or out of range"),
            ("HGETEX h EX FIELDS 1 a", "-ERR value is not an integer or out of range"),
            ("HGETEX h EX -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0"),
            (
                "HGETEX h EX 9223372036854775807 FIELDS 1 a",
                "-ERR invalid expire time in 'hgetex' command",
            ),
            ("HGETEX h EX 10 FIELDS", "-ERR wrong number of arguments for 'hgetex' command"),
            ("HGETEX h EX 10 foo x", MISSING),
            ("HGETEX h EX 10 PX 10 FIELDS 1 a", MISSING),
            ("HGETEX h PERSIST FIELDS 1", MISMATCH),
            ("HGETEX h FIELDS 2 a", MISMATCH),
            ("HGETEX h FIELDS 1 a EX 10", MISMATCH),
            ("HGETEX h FIELDS 0 a", NOT_POSITIVE),
        ] {
            bench.expect(request, reply);
        }
    }

    #[test]
    fn hsetex_sets_values_and_expiry() {
        let mut bench = Bench::new();
        bench.expect("HSETEX h EX 100 FIELDS 2 a 1 b 2", ":1");
        assert_eq!(
            effects(&mut bench),
            "*10 $6 HSETEX $1 h $4 PXAT $13 1700000100000 $6 FIELDS $1 2 $1 a $1 1 $1 b $1 2"
        );
        bench.expect("HTTL h FIELDS 2 a b", "*2 :100 :100");
        bench.expect("HSETEX h KEEPTTL FIELDS 1 a 3", ":1");
        bench.expect("HSETEX h FIELDS 1 b 4", ":1");
        bench.expect("HTTL h FIELDS 2 a b", "*2 :100 :-1");
        bench.expect("HMGET h a b", "*2 $1 3 $1 4");
        assert_eq!(effects(&mut bench), "");
        bench.expect("HSETEX h EX 9 FNX FIELDS 2 a 5 zz 6", ":0");
        bench.expect("HSETEX h FXX EX 9 FIELDS 2 a 5 zz 6", ":0");
        bench.expect("HSETEX nokey FXX FIELDS 1 a 5", ":0");
        bench.expect("HSETEX h EX 9 fxx FIELDS 1 a 5", ":1");
        assert_eq!(
            effects(&mut bench),
            "*9 $6 HSETEX $1 h $4 PXAT $13 1700000009000 $3 fxx $6 FIELDS $1 1 $1 a $1 5"
        );
        bench.expect("HSETEX h FNX FIELDS 2 n 1 n 2", ":1");
        bench.expect("HGET h n", "$1 2");
    }

    #[test]
    fn hsetex_with_a_past_time_removes() {
        let mut bench = Bench::new();
        bench.expect("HSET h a 1 b 2", ":2");
        bench.expect("HSETEX h PXAT 1 FIELDS 2 a 9 zz 9", ":1");
        assert_eq!(effects(&mut bench), "*3 $4 HDEL $1 h $1 a *3 $4 HDEL $1 h $2 zz");
        bench.expect("HGETALL h", "*2 $1 b $1 2");
        bench.expect("HSETEX h EX 0 FNX FIELDS 1 b 9", ":0");
        bench.expect("HSETEX h EX 0 FXX FIELDS 1 b 9", ":1");
        bench.expect("HSETEX h EX 0 FXX FIELDS 1 b 9", ":0");
        bench.expect("HSETEX h EX 0 FIELDS 1 b 9", ":1");
        bench.expect("HLEN h", ":0");
    }

    #[test]
    fn expired_fields_do_not_count_as_present() {
        let mut bench = Bench::new();
        bench.expect("HSETEX h PX 5 FIELDS 2 a 1 b 2", ":1");
        bench.expect("HSET h c 3", ":1");
        bench.now_ms += 5;
        bench.expect("HSETEX h FXX FIELDS 1 a 9", ":0");
        bench.expect("HSETEX h FNX PX 5 FIELDS 1 a 9", ":1");
        bench.now_ms += 5;
        bench.expect("HGETEX h EX 10 FIELDS 1 a", "*1 $-1");
        bench.expect("HSETEX h PX 5 FIELDS 1 a 9", ":1");
        bench.now_ms += 5;
        bench.expect("HGETDEL h FIELDS 1 a", "*1 $-1");
        bench.expect("HSETEX h PX 5 FIELDS 1 a 9", ":1");
        bench.now_ms += 5;
        bench.expect("HSETEX h KEEPTTL FIELDS 1 a 9", ":1");
        bench.expect("HGETALL h", "*4 $1 c $1 3 $1 a $1 9");
    }

    #[test]
    fn hsetex_refuses_malformed_requests() {
        let mut bench = Bench::new();
        bench.expect("SET s x", "+OK");
        let arity = "-ERR wrong number of arguments for 'hsetex' command";
        let number = "-ERR invalid number of fields";
        let presence = "-ERR Only one of FXX or FNX arguments can be specified";
        let time = "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified";
        for (request, reply) in [
            ("HSETEX s FIELDS 1 a 1", WRONG),
            ("HSETEX s BAR FIELDS 1 a 1", "-ERR unknown argument: BAR"),
            ("HSETEX s EX -1 FIELDS 1 a 1", "-ERR invalid expire time, must be >= 0"),
            ("HSETEX h EX x FIELDS 1 a 1", "-ERR value is not an integer or out of range"),
            (
                "HSETEX h PXAT 70368744177664 FIELDS 1 a 1",
                "-ERR invalid expire time in 'hsetex' command",
            ),
            ("HSETEX h FIELDS 1 a 1 b 2", arity),
            ("HSETEX h FIELDS 2 a 1 b", arity),
            ("HSETEX h FIELDS 1 a 1 EX 10", arity),
            ("HSETEX h EX 10 FXX FIELDS", arity),
            ("HSETEX h KEEPTTL FXX FIELDS 1", arity),
            ("HSETEX h KEEPTTL FIELDS 0 a", arity),
            ("HSETEX h FIELDS 0 a 1", number),
            ("HSETEX h FIELDS -1 a 1", number),
            ("HSETEX h FIELDS 2147483648 a 1", number),
            ("HSETEX h FIELDS 2147483647 a 1", arity),
            ("HSETEX h FNX FNX FIELDS 1 a 1", presence),
            ("HSETEX h FXX FNX FIELDS 1 a 1", presence),
            ("HSETEX h EX 10 KEEPTTL FIELDS 1 a 1", time),
            ("HSETEX h KEEPTTL KEEPTTL FIELDS 1 a 1", time),
            ("HSETEX h EX 10 PX 10 FIELDS 1 a 1", time),
        ] {
            bench.expect(request, reply);
        }
    }
}
