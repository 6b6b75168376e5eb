//! MEMORY: what takes memory, and what can be done about it.

use carnelian_commands::generic::memory_usage;
use carnelian_commands::{CommandError, Effect, Flags, KeyFlags, KeySpec};
use carnelian_resp::Writer;

use crate::allocator;
use crate::census;
use crate::commands::{Context, Reach, help};
use crate::eviction;
use crate::memory::Figures;
use crate::registry::{ServerCommand, ServerRun};
use crate::usage::Usage;

const PER_SHARD: &[&str] =
    &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        ServerCommand {
            tips: PER_SHARD,
            ..command("doctor", "Gives advice about memory.", "4.0.0", 2, doctor)
        },
        ServerCommand {
            flags: Flags::LOADING.union(Flags::STALE),
            ..command("help", "Lists the subcommands.", "4.0.0", 2, help)
        },
        ServerCommand {
            tips: PER_SHARD,
            ..command("malloc-stats", "Returns the allocator's report.", "4.0.0", 2, malloc_stats)
        },
        ServerCommand {
            tips: &["request_policy:all_shards", "response_policy:all_succeeded"],
            ..command("purge", "Returns unused memory to the system.", "4.0.0", 2, purge)
        },
        ServerCommand {
            tips: PER_SHARD,
            ..command("stats", "Tells where the memory is.", "4.0.0", 2, stats)
        },
        ServerCommand {
            flags: Flags::READONLY,
            keys: &[KeySpec::range(KeyFlags::RO, 2, 0, 1)],
            ..command("usage", "Returns the bytes a key and its value take.", "4.0.0", -3, usage)
        },
    ],
    ..command("memory", "Commands about memory.", "4.0.0", -2, help)
}];

const fn command(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    run: ServerRun,
) -> ServerCommand {
    super::command(name, summary, since, arity, Flags::empty(), run)
}

/// `MEMORY USAGE key [SAMPLES count]`
fn usage(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let key = context.args[2];
    context.with_data(Reach::Keys(&[key]), memory_usage)
}

/// `MEMORY STATS`
fn stats(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let figures = figures(context);
    let map = context.reply.defer_about(64);
    let mut pairs = Pairs { reply: &mut context.reply, count: 0 };
    pairs.bytes("peak.allocated", figures.peak);
    pairs.bytes("total.allocated", figures.used);
    pairs.bytes("startup.allocated", figures.startup);
    pairs.bytes("replication.backlog", 0);
    pairs.bytes("replica.fullsync.buffer", 0);
    pairs.bytes("clients.slaves", 0);
    pairs.bytes("clients.normal", figures.clients);
    pairs.bytes("cluster.links", 0);
    pairs.bytes("aof.buffer", 0);
    pairs.bytes("lua.caches", 0);
    pairs.bytes("functions.caches", 0);
    pairs.bytes("script.VMs", 0);
    for (db, counted) in figures.databases.iter().enumerate().filter(|(_, it)| it.keys != 0) {
        pairs.name(&format!("db.{db}")).map(2);
        let mut inner = Pairs { reply: pairs.reply, count: 0 };
        inner.bytes("overhead.hashtable.main", counted.table_bytes);
        // Expiries are in the entries.
        inner.bytes("overhead.hashtable.expires", 0);
    }
    let keys = figures.keys();
    pairs.bytes("overhead.db.hashtable.lut", figures.tables());
    pairs.bytes("overhead.db.hashtable.rehashing", 0);
    pairs.bytes("overhead.total", figures.overhead());
    pairs.bytes("db.dict.rehashing.count", 0);
    pairs.bytes("keys.count", keys);
    pairs.bytes("keys.bytes-per-key", figures.since_startup().checked_div(keys).unwrap_or(0));
    pairs.bytes("dataset.bytes", figures.dataset());
    pairs.ratio("dataset.percentage", figures.dataset_percentage());
    pairs.ratio("peak.percentage", figures.peak_percentage());
    pairs.bytes("allocator.allocated", figures.allocator.allocated);
    pairs.bytes("allocator.active", figures.allocator.active);
    pairs.bytes("allocator.resident", figures.allocator.resident);
    pairs.bytes("allocator.muzzy", figures.allocator.muzzy);
    for (name, of_name, excess) in [
        (
            "allocator-fragmentation.ratio",
            "allocator-fragmentation",
            figures.allocator_fragmentation(),
        ),
        ("allocator-rss.ratio", "allocator-rss", figures.allocator_resident()),
        ("rss-overhead.ratio", "rss-overhead", figures.process_resident()),
        ("fragmentation", "fragmentation", figures.fragmentation()),
    ] {
        pairs.ratio(name, excess.ratio);
        pairs.name(&format!("{of_name}.bytes")).integer(excess.bytes);
    }
    let count = pairs.count;
    context.reply.finish_map(map, count);
    Ok(Effect::None)
}

/// Writes the pairs of a map and counts them.
struct Pairs<'p, 'w> {
    reply: &'p mut Writer<'w>,
    count: usize,
}

impl<'w> Pairs<'_, 'w> {
    fn name(&mut self, name: &str) -> &mut Writer<'w> {
        self.count += 1;
        self.reply.bulk(name.as_bytes());
        self.reply
    }

    fn bytes(&mut self, name: &str, bytes: usize) {
        self.name(name).integer(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn ratio(&mut self, name: &str, ratio: f64) {
        self.name(name).double(ratio);
    }
}

/// `MEMORY DOCTOR`
fn doctor(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let advice = figures(context).advice();
    context.reply.verbatim(b"txt", advice.as_bytes());
    Ok(Effect::None)
}

/// `MEMORY PURGE`
fn purge(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    allocator::purge();
    context.reply.ok();
    Ok(Effect::None)
}

/// `MEMORY MALLOC-STATS`
fn malloc_stats(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    context.reply.verbatim(b"txt", &allocator::report());
    Ok(Effect::None)
}

fn figures(context: &mut Context<'_>) -> Figures {
    let used = eviction::in_use(&context.worker.server.reclaimer, &context.session.database);
    let now_ms = context.worker.clock.now_ms();
    let counts = context.with_data(Reach::Walk, |call| census::take_held(call.db.access(), now_ms));
    let database = &context.session.database;
    Figures::take(&context.worker.server, database, &Usage::of_process(), used, counts)
}
