//! DUMP and RESTORE: values as bytes that other servers read. They are commands on data, and live
//! here so that `carnelian-commands` need not know the RDB format.

use std::borrow::Cow;

use carnelian_commands::{
    Call, Categories, CommandError, DataCommand, Effect, Flags, Group, KeyFlags, KeySpec, Scope,
    args,
};
use carnelian_keyspace::{AccessPolicy, Db, EventClass, Expiry};
use carnelian_persistence::rdb::dump::{Checksum, RestoreError, restore as read_payload};
use carnelian_persistence::rdb::{Loaded, Type, dump as rdb_dump};

use crate::log;

pub const TABLE: &[DataCommand] = &[
    DataCommand {
        name: "dump",
        summary: "Returns the value of a key as bytes for RESTORE.",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(N) for a value of N bytes",
        arity: 2,
        flags: Flags::READONLY,
        categories: Categories::KEYSPACE,
        keys: &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)],
        tips: &["nondeterministic_output"],
        scope: Scope::Keys,
        subcommands: &[],
        run: dump,
    },
    DataCommand {
        name: "restore",
        summary: "Makes a key of the bytes that DUMP returned.",
        since: "2.6.0",
        group: Group::Generic,
        complexity: "O(N) for a value of N bytes, O(N log(N)) for a sorted set",
        arity: -4,
        flags: Flags::DENYOOM.union(Flags::WRITE),
        categories: Categories::DANGEROUS.union(Categories::KEYSPACE),
        keys: &[KeySpec::range(KeyFlags::OW.union(KeyFlags::UPDATE), 1, 0, 1)],
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run: restore,
    },
];

/// The widest the access clock shows: its 24 bits of seconds.
const IDLE_SECONDS_MAX: u64 = (1 << 24) - 1;

const BUSY_KEY: CommandError =
    CommandError::Other(Cow::Borrowed("BUSYKEY Target key name already exists."));

const INVALID_TTL: CommandError =
    CommandError::Other(Cow::Borrowed("ERR Invalid TTL value, must be >= 0"));

/// `DUMP key`
fn dump(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let limits = &call.environment.limits;
    match call.db.get(call.args[1]) {
        Some(entry) => call.reply.bulk(&rdb_dump::dump(entry, limits)),
        None => call.reply.null(),
    }
    Ok(Effect::None)
}

/// What RESTORE says of the last use of the key.
#[derive(Clone, Copy)]
enum Access {
    Now,
    IdleSeconds(u64),
    Frequency(u32),
}

struct Options {
    replace: bool,
    absolute: bool,
    access: Access,
}

impl Options {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self { replace: false, absolute: false, access: Access::Now };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if args::is(word, "REPLACE") {
                options.replace = true;
            } else if args::is(word, "ABSTTL") {
                options.absolute = true;
            } else if args::is(word, "IDLETIME") && !matches!(options.access, Access::Frequency(_))
            {
                let seconds = args::integer(words.next().ok_or(CommandError::Syntax)?)?;
                let seconds = u64::try_from(seconds)
                    .map_err(|_| CommandError::text("ERR Invalid IDLETIME value, must be >= 0"))?;
                options.access = Access::IdleSeconds(seconds);
            } else if args::is(word, "FREQ") && !matches!(options.access, Access::IdleSeconds(_)) {
                let frequency = args::integer(words.next().ok_or(CommandError::Syntax)?)?;
                let frequency = u8::try_from(frequency).map_err(|_| {
                    CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255")
                })?;
                options.access = Access::Frequency(frequency.into());
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// `RESTORE key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]`
///
/// The payload is read before the key that is there goes: a bad one loses nothing. Followers get
/// the time to live as an absolute time.
fn restore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let words = call.args;
    let (key, payload) = (words[1], words[3]);
    let options = Options::parse(&words[4..])?;
    if !options.replace && call.db.exists(key) {
        return Err(BUSY_KEY);
    }
    let ttl = args::integer(words[2])?;
    let ttl = u64::try_from(ttl).map_err(|_| INVALID_TTL)?;
    let environment = call.environment;
    let checksum = match environment.ignores_checksums {
        true => Checksum::Ignored,
        false => Checksum::Verified,
    };
    let loaded = read_payload(payload, &environment.limits, checksum)
        .map_err(|error| refusal(payload, error))?;
    let expiry = expiry_of(call, ttl, &options);

    let replaced = options.replace && call.db.remove(key);
    if expiry.is_some_and(|at| at <= call.due_ms()) {
        call.reply.ok();
        return Ok(only_removed(call, replaced));
    }
    put(&mut call.db, call.args[1], loaded, expiry);
    set_access(call, options.access);
    call.notify(EventClass::Generic, "restore", key);
    call.reply.ok();
    Ok(match expiry {
        Some(at) if !options.absolute => absolute(call, at),
        _ => Effect::Verbatim,
    })
}

/// When the key expires: `ttl` from now on or as it is, never for 0. Redis lets a sum that is too large
/// overflow to a time before all time, which never comes either; here it is the last there is.
fn expiry_of(call: &Call<'_>, ttl: u64, options: &Options) -> Option<u64> {
    let start = if options.absolute { 0 } else { call.now_ms() };
    (ttl != 0).then(|| start.saturating_add(ttl).min(i64::MAX as u64))
}

/// Whatever is wrong with the value, there is one text, Redis's. The log has more.
fn refusal(payload: &[u8], error: RestoreError) -> CommandError {
    match error {
        RestoreError::Load(error) => {
            let kind = payload.first().and_then(|byte| Type::from_byte(*byte));
            let packing = kind.map_or("Value", Type::packing);
            log::warning!("Bad payload: {packing} integrity check failed: {error}");
            CommandError::text("ERR Bad data format")
        }
        RestoreError::Footer => CommandError::text(format!("ERR {error}")),
    }
}

/// The value came too late to be there: only the old one is gone.
fn only_removed(call: &mut Call<'_>, removed: bool) -> Effect {
    if !removed {
        return Effect::None;
    }
    let key = call.args[1];
    call.notify(EventClass::Generic, "del", key);
    let name: &[u8] = if call.limits().lazy_server_del { b"UNLINK" } else { b"DEL" };
    call.rewritten(&[name, key])
}

/// Makes `key` what was loaded.
pub(super) fn put(db: &mut Db<'_>, key: &[u8], loaded: Loaded<'_>, expiry: Option<u64>) {
    match loaded {
        Loaded::String(text) => {
            db.set_string(key, &text, expiry.map_or(Expiry::Clear, Expiry::At));
        }
        Loaded::List(list) => db.put(key, list, expiry),
        Loaded::Set(set) => db.put(key, set, expiry),
        Loaded::SortedSet(sorted) => db.put(key, sorted, expiry),
        Loaded::Hash(hash) => db.put(key, hash, expiry),
        Loaded::Stream(stream) => db.put(key, *stream, expiry),
    }
}

/// Each policy takes its own option and passes over the other.
fn set_access(call: &mut Call<'_>, access: Access) {
    let key = call.args[1];
    let now_seconds = call.now_ms() / 1000;
    let bits = match (access, call.environment.policy) {
        (Access::IdleSeconds(idle), AccessPolicy::Lru) => {
            now_seconds.wrapping_sub(idle.min(IDLE_SECONDS_MAX)) & IDLE_SECONDS_MAX
        }
        (Access::Frequency(frequency), AccessPolicy::Lfu { .. }) => {
            ((now_seconds / 60) & 0xFFFF) << 8 | u64::from(frequency)
        }
        _ => return,
    };
    call.db.set_access_bits(key, bits as u32);
}

/// The same request with the expiry as an absolute time.
fn absolute(call: &Call<'_>, at_ms: u64) -> Effect {
    let mut rewrite = call.rewrite();
    let at_ms = at_ms.to_string();
    let (words, at_ms): (_, &[u8]) = (call.args, at_ms.as_bytes());
    let changed = words.iter().enumerate().map(|(at, &word)| if at == 2 { at_ms } else { word });
    rewrite.command_of(words.len() + 1, changed.chain([&b"ABSTTL"[..]]));
    Effect::Rewrite(rewrite)
}

#[cfg(test)]
mod tests {
    use carnelian_commands::Environment;
    use carnelian_keyspace::{Aftermath, Keyspace};
    use carnelian_resp::{Protocol, Writer};

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;

    struct Bench {
        keyspace: Keyspace,
        environment: Environment,
        aftermath: Aftermath,
    }

    impl Bench {
        fn new() -> Self {
            let mut aftermath = Aftermath::default();
            aftermath.changes.following = true;
            aftermath.changes.listening = u32::MAX;
            Self { keyspace: Keyspace::new(1), environment: Environment::default(), aftermath }
        }

        fn with<R>(&mut self, words: &[&[u8]], act: impl FnOnce(&mut Call<'_>) -> R) -> R {
            let mut out = Vec::new();
            let access = self.keyspace.lock_all();
            let db = Db::new(access, 0, NOW_MS, self.environment.policy, &mut self.aftermath);
            let reply = Writer::new(&mut out, Protocol::Resp2);
            act(&mut Call {
                args: words,
                db,
                reply,
                environment: &self.environment,
                may_block: false,
                output_max: usize::MAX,
            })
        }

        /// Runs RESTORE; what followers get, in words.
        fn restore(&mut self, words: &[&[u8]]) -> Option<String> {
            self.aftermath.changes.events.clear();
            let words = [&[&b"RESTORE"[..]], words].concat();
            match self.with(&words, restore).unwrap() {
                Effect::None | Effect::Wait(_) => None,
                Effect::Verbatim => Some("verbatim".into()),
                Effect::Rewrite(rewrite) => {
                    let text = String::from_utf8_lossy(rewrite.as_bytes()).into_owned();
                    let words = text.split("\r\n").filter(|it| !it.starts_with(['*', '$']));
                    Some(words.collect::<Vec<_>>().join(" ").trim_end().to_owned())
                }
            }
        }

        fn events(&self) -> Vec<&'static str> {
            self.aftermath.changes.events.iter().map(|event| event.name).collect()
        }

        fn payload(&mut self) -> Vec<u8> {
            self.with(&[], |call| {
                call.db.set_string(b"source", b"v", Expiry::Clear);
                let entry = call.db.look(b"source").unwrap();
                rdb_dump::dump(entry, &call.environment.limits)
            })
        }
    }

    #[test]
    fn followers_get_absolute_times() {
        let mut bench = Bench::new();
        let payload = bench.payload();
        assert_eq!(bench.restore(&[b"a", b"0", &payload]).as_deref(), Some("verbatim"));
        assert_eq!(bench.events(), ["new", "restore"]);
        let effect = bench.restore(&[b"b", b"5000", &payload, b"IDLETIME", b"9"]).unwrap();
        assert!(effect.starts_with("RESTORE b 1700000005000 "), "{effect}");
        assert!(effect.ends_with(" IDLETIME 9 ABSTTL"), "{effect}");
        let later = (NOW_MS + 7).to_string();
        let words = [b"c", later.as_bytes(), &payload, b"ABSTTL"];
        assert_eq!(bench.restore(&words).as_deref(), Some("verbatim"));
        assert_eq!(bench.with(&[], |call| call.db.expiry(b"c")), Some(Some(NOW_MS + 7)));
    }

    #[test]
    fn a_value_that_comes_too_late_only_removes_the_old_one() {
        let mut bench = Bench::new();
        let payload = bench.payload();
        let now = NOW_MS.to_string();
        let words = [b"a", now.as_bytes(), &payload, b"ABSTTL", b"REPLACE"];
        assert_eq!(bench.restore(&words), None);
        bench.restore(&[b"a", b"0", &payload]);
        assert_eq!(bench.restore(&words).as_deref(), Some("DEL a"));
        assert_eq!(bench.events(), ["del"]);
        bench.environment.limits.lazy_server_del = true;
        bench.restore(&[b"a", b"0", &payload]);
        assert_eq!(bench.restore(&words).as_deref(), Some("UNLINK a"));
        assert!(!bench.with(&[], |call| call.db.exists(b"a")));
    }

    #[test]
    fn times_to_live_have_bounds() {
        let mut bench = Bench::new();
        let payload = bench.payload();
        let words = [b"RESTORE", &b"a"[..], b"-1", &payload];
        let error = bench.with(&words, restore).unwrap_err().to_string();
        assert_eq!(error, "ERR Invalid TTL value, must be >= 0");
        bench.restore(&[b"a", b"9223372036854775807", &payload]);
        let expiry = bench.with(&[], |call| call.db.expiry(b"a"));
        assert_eq!(expiry, Some(Some(i64::MAX as u64)));
        let words: [&[u8]; 4] = [b"RESTORE", b"source", b"x", b""];
        let error = bench.with(&words, restore).unwrap_err().to_string();
        assert_eq!(error, "BUSYKEY Target key name already exists.");
    }

    #[test]
    fn the_policy_decides_what_is_kept_of_the_last_use() {
        let mut bench = Bench::new();
        let payload = bench.payload();
        let access = |bench: &mut Bench| bench.with(&[], |it| it.db.look(b"a").unwrap().access());
        bench.restore(&[b"a", b"0", &payload, b"IDLETIME", b"100"]);
        assert_eq!(carnelian_keyspace::idle_seconds(access(&mut bench), NOW_MS), 100);
        bench.environment.policy = AccessPolicy::Lfu { log_factor: 10, decay_minutes: 1 };
        bench.restore(&[b"a", b"0", &payload, b"REPLACE", b"FREQ", b"77"]);
        assert_eq!(carnelian_keyspace::frequency(access(&mut bench), NOW_MS, 1), 77);
    }
}
