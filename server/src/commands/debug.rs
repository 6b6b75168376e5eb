//! DEBUG: looks into the server, and makes it misbehave for tests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carnelian_commands::generic::digest;
use carnelian_commands::{CommandError, Effect, Flags, args};
use carnelian_config::Extent;
use carnelian_keyspace::{Db, Expiry, Hold, Limits, Present, Text, Value, idle_seconds};
use carnelian_persistence::rdb::dump::dump;
use carnelian_resp::{Protocol, number};
use carnelian_structs::glob;
use carnelian_structs::list::List;

use crate::aof;
use crate::census;
use crate::commands::config::rewrite_file;
use crate::commands::inspection;
use crate::commands::reload::{round_trip, through_file};
use crate::commands::{Context, Reach, command};
use crate::dispatch::Nesting;
use crate::log;
use crate::mailbox::Message;
use crate::registry::{ServerCommand, ServerRun};
use crate::replication;
use crate::settings::Settings;

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE);

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    complexity: "Depends on the subcommand.",
    ..command("debug", "Looks into the server, for tests.", "1.0.0", -2, ADMIN, debug)
}];

/// A subcommand. They are none to COMMAND and ACL, so they have a table of their own.
struct Sub {
    name: &'static str,
    /// Arguments after its name: at least, at most.
    arguments: (usize, usize),
    usage: &'static str,
    summary: &'static str,
    run: ServerRun,
}

const SUBCOMMANDS: &[Sub] = &[
    sub("aof-flush-sleep", (1, 1), "<microseconds>", "Delays each write of the file.", flush_sleep),
    sub("change-repl-id", (0, 0), "", "Gives the data's history another id.", change_repl_id),
    sub(
        "client-eviction",
        (0, 0),
        "",
        "Tells how much clients of which size take.",
        inspection::client_eviction,
    ),
    sub(
        "config-rewrite-force-all",
        (0, 0),
        "",
        "Does CONFIG REWRITE with every directive written.",
        rewrite_all,
    ),
    sub("dict-resizing", (1, 1), "<0|1>", "Has no effect here.", no_effect),
    sub("digest", (0, 0), "", "Returns a digest of all data.", digest_all),
    sub(
        "digest-value",
        (0, usize::MAX),
        "[<key> ...]",
        "Returns digests of the values of keys.",
        digest_value,
    ),
    sub("error", (1, 1), "<text>", "Answers with this error.", error),
    sub("htstats", (1, 2), "<db> [FULL]", "Tells the size of a logical database's table.", htstats),
    sub("htstats-key", (1, 2), "<key> [FULL]", "Tells the size of a value's table.", htstats_key),
    sub("listpack", (1, 1), "<key>", "Writes the size of a listpack to the log.", listpack),
    sub("loadaof", (0, 0), "", "Writes out all data, forgets it and reads it back.", loadaof),
    sub("log", (1, 1), "<text>", "Writes a line to the log.", log_text),
    sub("object", (1, 1), "<key>", "Tells how the value of a key is stored.", object),
    sub("pause-cron", (1, 1), "<0|1>", "Stops or resumes what is done by time.", pause_cron),
    sub(
        "populate",
        (1, 3),
        "<count> [<prefix>] [<size>]",
        "Makes keys named key:0, key:1 and so on.",
        populate,
    ),
    sub("protocol", (1, 1), "<type>", "Answers with an example of a type of reply.", protocol),
    sub(
        "quicklist",
        (1, 2),
        "<key> [<0|1>]",
        "Writes the size of a quicklist to the log.",
        inspection::quicklist,
    ),
    sub(
        "quicklist-packed-threshold",
        (1, 1),
        "<size>",
        "Sets the size from which list elements have nodes of their own (0: 1gb).",
        quicklist_packed_threshold,
    ),
    sub(
        "reload",
        (0, 3),
        "[<option> ...]",
        "Writes out all data, forgets it (unless NOFLUSH) and reads it back (MERGE: over it).",
        reload,
    ),
    sub(
        "replicate",
        (1, usize::MAX),
        "<word> [...]",
        "Tells replicas something.",
        inspection::replicate,
    ),
    sub("replybuffer", (2, 2), "<setting> <value>", "Has no effect here.", replybuffer),
    sub("sdslen", (1, 1), "<key>", "Tells the lengths of a key and its string.", sdslen),
    sub(
        "set-active-expire",
        (1, 1),
        "<0|1>",
        "Stops or resumes the search for keys that have expired.",
        set_active_expire,
    ),
    sub(
        "set-disable-deny-scripts",
        (1, 1),
        "<0|1>",
        "Lets scripts run commands that they may not run.",
        set_disable_deny_scripts,
    ),
    sub(
        "set-skip-checksum-validation",
        (1, 1),
        "<0|1>",
        "Makes RESTORE take payloads whose checksum is wrong.",
        set_skip_checksum_validation,
    ),
    sub("stringmatch-test", (0, 0), "", "Matches random patterns.", stringmatch_test),
    sub("sleep", (1, 1), "<seconds>", "Stops the whole server for a while.", sleep),
    sub("help", (0, 0), "", "Lists the subcommands.", help),
];

const fn sub(
    name: &'static str,
    arguments: (usize, usize),
    usage: &'static str,
    summary: &'static str,
    run: ServerRun,
) -> Sub {
    Sub { name, arguments, usage, summary, run }
}

/// `DEBUG subcommand [argument ...]`
fn debug(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let allow = context.worker.server.config().enable_debug_command;
    if !allow.permits(context.session.loopback) {
        return Err(CommandError::text(
            "ERR DEBUG command not allowed. If the enable-debug-command option is set to \
             \"local\", you can run it from a local connection, otherwise you need to set this \
             option in the configuration file, and then restart the server.",
        ));
    }
    let word = context.args[1];
    let count = context.args.len() - 2;
    let found = SUBCOMMANDS.iter().find(|sub| {
        args::is(word, sub.name) && (sub.arguments.0..=sub.arguments.1).contains(&count)
    });
    let Some(sub) = found else {
        return Err(CommandError::quoting(
            "ERR unknown subcommand or wrong number of arguments for '",
            &word[..word.len().min(128)],
            "'. Try DEBUG HELP.",
        ));
    };
    (sub.run)(context)
}

/// `DEBUG HELP`
fn help(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.array(1 + 2 * SUBCOMMANDS.len());
    context.reply.simple("DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    for sub in SUBCOMMANDS {
        let line = format!("{} {}", sub.name.to_uppercase(), sub.usage);
        context.reply.simple(line.trim_end());
        context.reply.simple(&format!("    {}", sub.summary));
    }
    Ok(Effect::None)
}

/// `DEBUG SLEEP seconds`
///
/// Every reactor sleeps until the same moment, and nobody gets at the data meanwhile.
fn sleep(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    // What is no number is none, as for Redis.
    let seconds = number::parse_double(context.args[2]).unwrap_or(0.0);
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let Some(end) = Instant::now().checked_add(duration) else {
        return Err(CommandError::OutOfRange);
    };
    let server = Arc::clone(&context.worker.server);
    for (reactor, mailbox) in server.mailboxes.iter().enumerate() {
        if reactor != context.worker.reactor {
            mailbox.post(Message::Sleep(end));
        }
    }
    {
        let databases = server.databases.read();
        let others = databases.iter().filter(|it| it.uid != context.session.database.uid);
        let _locks: Vec<_> = others.map(|it| it.keyspace.lock_all()).collect();
        context.with_data(Reach::Everything, |_| {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        });
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG SET-ACTIVE-EXPIRE 0|1`
fn set_active_expire(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let on = is_on(context.args[2]);
    context.session.database.active_expiry.store(on, Ordering::Relaxed);
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG SET-DISABLE-DENY-SCRIPTS 0|1`
fn set_disable_deny_scripts(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let on = is_on(context.args[2]);
    context.session.database.scripting.denies_nothing.store(on, Ordering::Relaxed);
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG SET-SKIP-CHECKSUM-VALIDATION 0|1`
fn set_skip_checksum_validation(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let _one_at_a_time = context.worker.server.changing.lock();
    let database = &context.session.database;
    let mut next = Settings::clone(&database.settings.load());
    next.environment.ignores_checksums = is_on(context.args[2]);
    database.set_settings(next);
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG PAUSE-CRON 0|1`
fn pause_cron(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.worker.server.watch.paused.store(is_on(context.args[2]), Ordering::Relaxed);
    context.reply.ok();
    Ok(Effect::None)
}

/// A number other than 0; what is no number is 0.
fn is_on(word: &[u8]) -> bool {
    number::parse_i64(word).is_some_and(|number| number != 0)
}

/// `DEBUG CHANGE-REPL-ID`
fn change_repl_id(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    log::notice!("Changing replication IDs after receiving change-repl-id");
    context.session.database.replication.history.lock().renew(replication::new_id());
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG CONFIG-REWRITE-FORCE-ALL`
fn rewrite_all(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    rewrite_file(&context.worker.server, &context.session.database, Extent::All)?;
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG DIGEST`
///
/// One segment after another is looked at, so that others need not wait: it is the digest of one
/// moment only while nobody writes.
fn digest_all(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let digest = context.with_data(Reach::Walk, |call| digest::of_everything(&mut call.db));
    let digest = digest.to_hex();
    context.reply.simple(&digest);
    Ok(Effect::None)
}

/// `DEBUG DIGEST-VALUE [key ...]`
fn digest_value(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let keys = &context.args[2..];
    context.reply.array(keys.len());
    for key in keys {
        let digest = with_key(context, key, |db| digest::of_value(db, key));
        context.reply.simple(&digest.to_hex());
    }
    Ok(Effect::None)
}

/// `DEBUG ERROR text`
fn error(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.error(context.args[2]);
    Ok(Effect::None)
}

/// `DEBUG LOG text`
fn log_text(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    log::warning!("DEBUG LOG: {}", String::from_utf8_lossy(context.args[2]));
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG RELOAD [NOSAVE] [NOFLUSH] [MERGE]`
fn reload(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (mut saves, mut flushes, mut present) = (true, true, Present::Refused);
    for word in &context.args[2..] {
        if args::is(word, "NOFLUSH") {
            flushes = false;
        } else if args::is(word, "MERGE") {
            present = Present::Replaced;
        } else if args::is(word, "NOSAVE") {
            saves = false;
        } else {
            return Err(CommandError::text(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    through_file(context, saves, flushes, present)?;
    log::warning!("DB reloaded by DEBUG RELOAD");
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG LOADAOF`
fn loadaof(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let database = Arc::clone(&context.session.database);
    if database.aof.has_files(&context.worker.server.config()) {
        let reloaded = context.with_nest(Nesting::Transaction, |nest, _| {
            Hold::Lent(&mut *nest.held).lock_rest();
            aof::load::reload(nest)
        })?;
        reloaded.map_err(CommandError::text)?;
    } else {
        round_trip(context)?;
    }
    log::warning!("Append Only File loaded by DEBUG LOADAOF");
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG AOF-FLUSH-SLEEP microseconds`
fn flush_sleep(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let micros = u64::try_from(args::integer(context.args[2])?).unwrap_or(0);
    context.session.database.aof.set_delay(Duration::from_micros(micros));
    context.reply.ok();
    Ok(Effect::None)
}

/// For switches of what this server does not have: there is nothing to switch.
fn no_effect(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG HTSTATS db [FULL]`
fn htstats(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let index = usize::try_from(args::integer(context.args[2])?).ok();
    let database = context.database;
    let Some(index) = index.filter(|index| *index < database.keyspace.databases()) else {
        return Err(CommandError::text("ERR Out of range database"));
    };
    let now_ms = context.worker.clock.now_ms();
    let counts = context.with_data(Reach::Walk, |call| census::take_held(call.db.access(), now_ms));
    let count = counts.get(index).copied().unwrap_or_default();
    let text = format!(
        "[Dictionary HT]\n{}[Expires HT]\n{}",
        table_text(count.table_bytes / 8, count.keys),
        // Expiries are in the same table.
        table_text(count.table_bytes / 8, count.expires)
    );
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

/// `DEBUG HTSTATS-KEY key [FULL]`
fn htstats_key(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let key = context.args[2];
    let found = with_key(context, key, |db| {
        let entry = db.peek(key)?;
        let object = entry.object();
        let length = match object.as_deref() {
            Some(Value::Set(set)) => set.len(),
            Some(Value::Hash(hash)) => hash.len(),
            Some(Value::SortedSet(sorted)) => sorted.len(),
            _ => 0,
        };
        Some((entry.encoding(), length))
    });
    let (encoding, length) = found.ok_or(CommandError::NoSuchKey)?;
    if !["hashtable", "skiplist"].contains(&encoding) {
        return Err(CommandError::text(
            "ERR The value stored at the specified key is not represented using an hash table",
        ));
    }
    // Its slots, as the table splits its buckets when they hold six of eight.
    let text = table_text(length.div_ceil(6) * 8, length);
    context.reply.verbatim(b"txt", text.as_bytes());
    Ok(Effect::None)
}

fn table_text(slots: usize, elements: usize) -> String {
    if elements == 0 {
        return "Hash table 0 stats (main hash table):\nNo stats available for empty dictionaries\n"
            .to_owned();
    }
    format!(
        "Hash table 0 stats (main hash table):\n table size: {slots}\n number of elements: \
         {elements}\n"
    )
}

/// `DEBUG SDSLEN key`
///
/// Keys and strings are kept with no room to spare, but for long strings.
fn sdslen(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let key = context.args[2];
    let found = with_key(context, key, |db| {
        let entry = db.peek(key)?;
        let text = match entry.text() {
            Some(Text::Bytes(bytes)) => Some(bytes.len()),
            _ => None,
        };
        Some((text, entry.heap_bytes()))
    });
    let (text, bytes) = found.ok_or(CommandError::NoSuchKey)?;
    let text = text.ok_or_else(|| CommandError::text("ERR Not an sds encoded string."))?;
    let spare = bytes.saturating_sub(key.len() + text);
    context.reply.simple(&format!(
        "key_sds_len:{key}, key_sds_avail:0, key_zmalloc: {key}, val_sds_len:{text}, \
         val_sds_avail:{spare}, val_zmalloc: {bytes}",
        key = key.len()
    ));
    Ok(Effect::None)
}

/// `DEBUG REPLYBUFFER PEAK-RESET-TIME time|NEVER|RESET` or `RESIZING 0|1`
fn replybuffer(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let (word, value) = (context.args[2], context.args[3]);
    if args::is(word, "PEAK-RESET-TIME") {
        if !args::is(value, "NEVER") && !args::is(value, "RESET") {
            args::integer(value)?;
        }
    } else if !args::is(word, "RESIZING") {
        return Err(CommandError::Syntax);
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG STRINGMATCH-TEST`
///
/// Matches random patterns against random words of a few characters. The answer says that it ended.
fn stringmatch_test(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    const ROUNDS: usize = 10_000;
    const ALPHABET: &[u8] = b"ab*?[]^-\\";

    let random = &mut context.worker.random;
    for _ in 0..ROUNDS {
        let mut word = |most: usize| -> Vec<u8> {
            let length = random.usize(..most);
            (0..length).map(|_| ALPHABET[random.usize(..ALPHABET.len())]).collect()
        };
        let (pattern, text) = (word(32), word(32));
        let _ = glob::matches(&pattern, &text, false);
    }
    context.reply.simple("Apparently Redis did not crash: test passed");
    Ok(Effect::None)
}

/// Runs `look` on the keys of the client's database, with the lock of `key` held.
pub(super) fn with_key<R>(
    context: &mut Context<'_>,
    key: &[u8],
    look: impl FnOnce(&mut Db<'_>) -> R,
) -> R {
    context.with_data(Reach::Keys(&[key]), |call| {
        call.db.reach(key);
        look(&mut call.db)
    })
}

/// `DEBUG OBJECT key`
///
/// `serializedlength` is what the value takes in a snapshot: it is written to see.
fn object(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    /// The type, the version and the checksum of a DUMP payload.
    const DUMP_FRAME: usize = 1 + 2 + 8;

    let key = context.args[2];
    let now_ms = context.worker.clock.now_ms();
    let limits = context.session.database.settings.load().environment.limits;
    let line = with_key(context, key, |db| {
        // What is there is shown, though it may have expired.
        db.set_timeless();
        let entry = db.peek(key)?;
        let bits = entry.access();
        let length = dump(entry, &limits).len() - DUMP_FRAME;
        let mut line = format!(
            "Value at:{:p} refcount:1 encoding:{} serializedlength:{length} lru:{bits} \
             lru_seconds_idle:{}",
            entry.key().as_ptr(),
            entry.encoding(),
            idle_seconds(bits, now_ms)
        );
        if let Some(Value::List(List::Quicklist(list))) = entry.object().as_deref() {
            line += &format!(
                " ql_nodes:{} ql_avg_node:{:.2} ql_listpack_max:{} ql_compressed:{} \
                 ql_uncompressed_size:{}",
                list.node_count(),
                list.len() as f64 / list.node_count().max(1) as f64,
                limits.list_max_listpack_size,
                u8::from(limits.list_compress_depth != 0),
                list.raw_bytes()
            );
        }
        Some(line)
    });
    context.reply.simple(&line.ok_or(CommandError::NoSuchKey)?);
    Ok(Effect::None)
}

/// `DEBUG LISTPACK key`
fn listpack(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let key = context.args[2];
    let found = with_key(context, key, |db| {
        db.peek(key).map(|entry| (entry.encoding(), entry.heap_bytes()))
    });
    match found {
        None => return Err(CommandError::NoSuchKey),
        Some(("listpack" | "listpackex", bytes)) => {
            log::notice!("DEBUG LISTPACK: {} takes {bytes} bytes", String::from_utf8_lossy(key));
        }
        Some(_) => return Err(CommandError::text("ERR Not a listpack encoded object.")),
    }
    context.reply.simple("Listpack structure printed to the log");
    Ok(Effect::None)
}

/// `DEBUG POPULATE count [prefix] [size]`
fn populate(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    /// More keys than fit in memory.
    const KEYS_MAX: u64 = 1 << 32;

    let count = args::positive(context.args[2])?;
    if KEYS_MAX < count {
        return Err(CommandError::text("ERR OOM in dictTryExpand"));
    }
    let prefix = context.args.get(3).copied().unwrap_or(b"key");
    let size = context.args.get(4).map_or(Ok(0), |size| args::positive(size))?;
    let most = context.session.database.settings.load().environment.limits.max_string;
    let size = usize::try_from(size).ok().filter(|size| *size <= most);
    let size = size.ok_or(CommandError::StringTooLong)?;
    for index in 0..count {
        let key = [prefix, format!(":{index}").as_bytes()].concat();
        let mut value = format!("value:{index}").into_bytes();
        if size != 0 {
            value.resize(size, 0);
        }
        with_key(context, &key, |db| {
            if !db.exists(&key) {
                db.set_string(&key, &value, Expiry::Clear);
            }
        });
    }
    context.reply.ok();
    Ok(Effect::None)
}

/// `DEBUG QUICKLIST-PACKED-THRESHOLD size`
fn quicklist_packed_threshold(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    /// Nodes count their bytes in 32 bits.
    const MOST: u64 = (1 << 32) - (1 << 20);

    let size = memory(context.args[2]).filter(|size| *size <= MOST).ok_or_else(|| {
        let text = "ERR argument must be a memory value bigger than 1 and smaller than 4gb";
        CommandError::text(text)
    })?;
    let threshold = if size == 0 { Limits::default().list_packed_threshold } else { size as usize };
    let _one_at_a_time = context.worker.server.changing.lock();
    let database = &context.session.database;
    let mut next = Settings::clone(&database.settings.load());
    next.environment.limits.list_packed_threshold = threshold;
    database.set_settings(next);
    context.reply.ok();
    Ok(Effect::None)
}

/// A size with a unit.
fn memory(word: &[u8]) -> Option<u64> {
    let digits = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, unit) = word.split_at(digits);
    let factor = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1_000_000,
        b"mb" => 1 << 20,
        b"g" => 1_000_000_000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    number::parse_u64(number)?.checked_mul(factor)
}

/// `DEBUG PROTOCOL type`
fn protocol(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let reply = &mut context.reply;
    match context.args[2].to_ascii_lowercase().as_slice() {
        b"string" => reply.bulk(b"Hello World"),
        b"integer" => reply.integer(12345),
        b"double" => reply.double_text(b"3.141"),
        b"bignum" => reply.big_number(b"1234567999999999999999999999999999999"),
        b"null" => reply.null(),
        b"array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        b"map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        b"attrib" => {
            if reply.attribute(1) {
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if context.session.protocol != Protocol::Resp3 {
                let text = "ERR RESP2 is not supported by this command";
                return Err(CommandError::text(text));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => reply.verbatim(b"txt", b"This is a verbatim\nstring"),
        b"true" => reply.boolean(true),
        b"false" => reply.boolean(false),
        _ => {
            return Err(CommandError::text(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_config::{Allow, Config};

    use super::*;
    use crate::testing::Bench;

    #[test]
    fn debug_is_for_those_who_may() {
        let bench = Bench::start(Config::default());
        bench.exchange(
            &mut bench.connect(),
            "DEBUG SLEEP 0\r\n",
            "-ERR DEBUG command not allowed.",
        );
        let bench =
            Bench::start(Config { enable_debug_command: Allow::Local, ..Config::default() });
        bench.exchange(&mut bench.connect(), "DEBUG SLEEP 0\r\n", "+OK\r\n");
    }

    #[test]
    fn everybody_sleeps_with_the_sleeper() {
        let bench = Bench::start(Config { enable_debug_command: Allow::Yes, ..Config::default() });
        let mut clients: Vec<_> = (0..4).map(|_| bench.connect()).collect();
        for client in &mut clients {
            bench.exchange(client, "PING\r\n", "+PONG\r\n");
        }
        let mut sleeper = bench.connect();
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| bench.exchange(&mut sleeper, "DEBUG SLEEP 0.5\r\n", "+OK\r\n"));
            std::thread::sleep(Duration::from_millis(100));
            for client in &mut clients {
                bench.exchange(client, "PING\r\n", "+PONG\r\n");
                assert!(Duration::from_millis(500) <= start.elapsed());
            }
        });
    }

    #[test]
    fn the_packed_threshold_outlives_changes_of_the_configuration() {
        let bench = Bench::start(Config { enable_debug_command: Allow::Yes, ..Config::default() });
        bench.exchange(
            &mut bench.connect(),
            "DEBUG QUICKLIST-PACKED-THRESHOLD 10b\r\nCONFIG SET hash-max-listpack-entries 3\r\n",
            "+OK\r\n+OK\r\n",
        );
        let limits = bench.database.settings.load().environment.limits;
        assert_eq!((limits.list_packed_threshold, limits.hash_max_listpack_entries), (10, 3));
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        for (word, bytes) in
            [("10b", 10), ("1K", 1000), ("1kb", 1024), ("4gb", 4 << 30), ("0", 0), ("7", 7)]
        {
            assert_eq!(memory(word.as_bytes()), Some(bytes), "{word}");
        }
        for word in ["", "abc", "1zb", "99999999999999999999", "18446744073709551615kb", "-1"] {
            assert_eq!(memory(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn subcommands_are_named_once() {
        let mut names: Vec<&str> = SUBCOMMANDS.iter().map(|sub| sub.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUBCOMMANDS.len());
    }
}
