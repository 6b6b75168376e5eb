//! DUMP and RESTORE: values as bytes that other servers read. They are commands on data, and live
//! here so that `carnelian-commands` need not know the RDB format.

use carnelian_commands::{
    Call, Categories, CommandError, DataCommand, Effect, Flags, Group, KeyFlags, KeySpec, Scope,
    args,
};
use carnelian_keyspace::{AccessPolicy, EventClass, Expiry};
use carnelian_persistence::rdb::dump::{Checksum, RestoreError, restore as read_payload};
use carnelian_persistence::rdb::{LoadError, Loaded, dump as rdb_dump};

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
    CommandError::Other(std::borrow::Cow::Borrowed("BUSYKEY Target key name already exists."));

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
    let expiry = expiry_of(call, &options)?;
    let environment = call.environment;
    let checksum = match environment.ignores_checksums {
        true => Checksum::Ignored,
        false => Checksum::Verified,
    };
    let loaded = read_payload(payload, &environment.limits, checksum).map_err(refusal)?;

    let replaced = options.replace && call.db.remove(key);
    if expiry.is_some_and(|at| at <= call.now_ms()) {
        call.reply.ok();
        return Ok(only_removed(call, replaced));
    }
    put(call, loaded, expiry);
    set_access(call, options.access);
    call.notify(EventClass::Generic, "restore", key);
    call.reply.ok();
    Ok(match expiry {
        Some(at) if !options.absolute => absolute(call, at),
        _ => Effect::Verbatim,
    })
}

/// When the key expires: `ttl` from now on or as it is, never for 0.
fn expiry_of(call: &Call<'_>, options: &Options) -> Result<Option<u64>, CommandError> {
    let ttl = args::integer(call.args[2])?;
    let start = if options.absolute { 0 } else { call.now_ms() };
    match u64::try_from(ttl) {
        Ok(0) => Ok(None),
        Ok(ttl) if ttl <= i64::MAX as u64 - start => Ok(Some(start + ttl)),
        _ => Err(CommandError::text("ERR Invalid TTL value, must be >= 0")),
    }
}

/// What is not supported is said; for the rest there is one text, Redis's.
fn refusal(error: RestoreError) -> CommandError {
    match error {
        RestoreError::Load(LoadError::Unsupported(what)) => {
            CommandError::text(format!("ERR Bad data format: {what}"))
        }
        RestoreError::Load(_) => CommandError::text("ERR Bad data format"),
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

fn put(call: &mut Call<'_>, loaded: Loaded<'_>, expiry: Option<u64>) {
    let (db, key) = (&mut call.db, call.args[1]);
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
            (now_seconds / 60 & 0xFFFF) << 8 | u64::from(frequency)
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
