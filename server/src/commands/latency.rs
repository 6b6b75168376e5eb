//! LATENCY: what took long, and how long each command takes.

use carnelian_commands::{CommandError, Effect, Flags};

use crate::commands::{Context, command, help};
use crate::histogram::Distribution;
use crate::latency;
use crate::registry::{Entry, ServerCommand, ServerRun};

const ADMIN: Flags = Flags::ADMIN.union(Flags::LOADING).union(Flags::NOSCRIPT).union(Flags::STALE);
const EVERYWHERE: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

pub const TABLE: &[ServerCommand] = &[ServerCommand {
    subcommands: &[
        shown("doctor", "Reports what was seen, with advice.", "2.8.13", 2, doctor),
        shown("graph", "Draws the times of a kind of event.", "2.8.13", 3, graph),
        command(
            "help",
            "Lists the subcommands.",
            "2.8.13",
            2,
            Flags::LOADING.union(Flags::STALE),
            help,
        ),
        ServerCommand {
            complexity: "O(N) in the number of commands",
            ..shown("histogram", "Tells how long commands take.", "7.0.0", -2, histogram)
        },
        shown("history", "Returns the times of a kind of event.", "2.8.13", 3, history),
        shown("latest", "Returns the latest time of each kind of event.", "2.8.13", 2, latest),
        ServerCommand {
            tips: &["request_policy:all_nodes", "response_policy:agg_sum"],
            ..command("reset", "Forgets events.", "2.8.13", -2, ADMIN, reset)
        },
    ],
    ..command("latency", "Commands about what took long.", "2.8.13", -2, Flags::empty(), help)
}];

const fn shown(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    arity: i32,
    run: ServerRun,
) -> ServerCommand {
    ServerCommand { tips: EVERYWHERE, ..command(name, summary, since, arity, ADMIN, run) }
}

/// `LATENCY DOCTOR`
fn doctor(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let config = context.database.config();
    let (threshold_ms, slow_us) =
        (config.latency_monitor_threshold, config.slowlog_log_slower_than);
    let now_ms = context.worker.clock.now_ms();
    let report = context.session.database.latency.report(threshold_ms, slow_us, now_ms);
    context.reply.verbatim(b"txt", report.as_bytes());
    Ok(Effect::None)
}

/// `LATENCY GRAPH event`
fn graph(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let event = context.args[2];
    let Some((name, series)) = context.session.database.latency.series(event) else {
        return Err(CommandError::quoting("ERR No samples available for event '", event, "'"));
    };
    let drawn = latency::graph(name, &series, context.worker.clock.now_ms());
    context.reply.verbatim(b"txt", drawn.as_bytes());
    Ok(Effect::None)
}

/// `LATENCY HISTORY event`
fn history(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let found = context.session.database.latency.series(context.args[2]);
    let series = found.map(|(_, series)| series).unwrap_or_default();
    context.reply.array(series.samples().len());
    for sample in series.samples() {
        context.reply.array(2);
        context.reply.integer(sample.time_s as i64);
        context.reply.integer(sample.latency_ms as i64);
    }
    Ok(Effect::None)
}

/// `LATENCY LATEST`
fn latest(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let all = context.session.database.latency.all();
    context.reply.array(all.len());
    for (event, series) in all {
        let (time_s, latency_ms) = series.latest().map_or((0, 0), |it| (it.time_s, it.latency_ms));
        context.reply.array(4);
        context.reply.bulk(event.as_bytes());
        for number in [time_s, latency_ms, series.worst_ms] {
            context.reply.integer(number as i64);
        }
    }
    Ok(Effect::None)
}

/// `LATENCY RESET [event ...]`
fn reset(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let count = context.session.database.latency.reset(&context.args[2..]);
    context.reply.integer(count as i64);
    Ok(Effect::None)
}

/// `LATENCY HISTOGRAM [command ...]`
///
/// Calls are counted; how they are spread over the durations is an estimate for commands that are
/// never slow, of which one in sixteen is timed.
fn histogram(context: &mut Context<'_>) -> Result<Effect, CommandError> {
    let registry = context.registry;
    let names = &context.args[2..];
    let mut entries: Vec<&Entry> = Vec::new();
    if names.is_empty() {
        entries.extend(registry.entries());
    }
    for entry in names.iter().filter_map(|name| registry.find_full(name)) {
        entries.push(entry);
        entries.extend(entry.subcommands.iter().map(|&(_, id)| registry.entry(id)));
    }
    let stats = &context.session.database.stats;
    let distribution = |entry: &Entry| {
        let histograms = stats.all().iter().map(|it| &it.commands[entry.id].histogram);
        Distribution::of(histograms)
    };
    let found: Vec<(&Entry, Distribution)> = entries
        .into_iter()
        .map(|entry| (entry, distribution(entry)))
        .filter(|(_, distribution)| !distribution.is_empty())
        .collect();
    let reply = &mut context.reply;
    reply.map(found.len());
    for (entry, distribution) in found {
        let calls = stats.sum_of(entry.id, |figures| &figures.calls);
        let sums = distribution.cumulative(calls);
        reply.bulk(entry.full_name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(calls as i64);
        reply.bulk(b"histogram_usec");
        reply.map(sums.len());
        for (us, count) in sums {
            reply.integer(us as i64);
            reply.integer(count as i64);
        }
    }
    Ok(Effect::None)
}
