//! Sections of counted figures: Clients, Persistence, Threads, Stats, Replication, Cluster.
//!
//! Where programs expect a figure of something that this version has not got, it is the one of a
//! server that does not use it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{Page, View, replica};
use crate::database::{Counter, Counters};
use crate::pause::Held;
use crate::pubsub::Kind;
use crate::rates::Turns;
use crate::snapshot::Progress;

pub(super) fn clients(view: &View<'_>, page: &mut Page) {
    let totals = view.database.clients.totals();
    let replicas = view.database.replication.primary.list().len();
    page.field("connected_clients", view.database.clients.len().saturating_sub(replicas));
    page.field("cluster_connections", 0);
    page.field("maxclients", view.config.maxclients);
    page.field("client_recent_max_input_buffer", totals.query_bytes_max);
    page.field("client_recent_max_output_buffer", totals.output_bytes_max);
    let database = view.database;
    let waiters = &database.waiters;
    let load = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
    page.field("blocked_clients", load(&waiters.blocked) + load(&database.pause.postponed));
    page.field("tracking_clients", database.tracking.clients());
    page.field("pubsub_clients", load(&database.pubsub.clients));
    page.field("watching_clients", load(&waiters.watching));
    page.zeros(&["clients_in_timeout_table"]);
    page.field("total_watched_keys", load(&waiters.watched_keys));
    page.field("total_blocking_keys", load(&waiters.blocking_keys));
    page.field("total_blocking_keys_on_nokey", load(&waiters.blocking_keys_on_loss));
    let now_ms = view.now_ms();
    if let Some((held, until_ms)) = database.pause.now(now_ms, &database.attention) {
        page.field("paused_reason", "client_pause");
        let actions = if held == Held::Everything { "all" } else { "write" };
        page.field("paused_actions", actions);
        page.field("paused_timeout_milliseconds", until_ms.saturating_sub(now_ms));
    }
}

pub(super) fn persistence(view: &View<'_>, page: &mut Page) {
    let database = view.database;
    let following = database.replication.following.load();
    let transfer = following.as_ref().map(|it| &it.transfer);
    let transfer = transfer.filter(|it| it.is_loading.load(Ordering::Relaxed));
    let is_beside = transfer.is_some_and(|it| it.is_beside.load(Ordering::Relaxed));
    let is_loading = database.loading.is_on() || transfer.is_some() && !is_beside;
    page.field("loading", u8::from(is_loading));
    page.field("async_loading", u8::from(is_beside));
    let dirty = database.stats.sum(|counters| &counters.dirty);
    let figures = database.snapshots.figures(dirty);
    let of_current = |figure: fn(&Progress) -> &AtomicU64| {
        let current = figures.current.as_ref();
        current.map_or(0, |current| figure(&current.progress).load(Ordering::Relaxed))
    };
    let (keys, keys_done) = (of_current(|it| &it.keys), of_current(|it| &it.keys_done));
    // What writers have to keep of the old state is all that a snapshot costs beside its buffers.
    page.field("current_cow_peak", of_current(|it| &it.kept_bytes_max));
    page.field("current_cow_size", of_current(|it| &it.kept_bytes));
    page.zeros(&["current_cow_size_age"]);
    let share = keys_done as f64 * 100.0 / keys.max(1) as f64;
    page.field("current_fork_perc", format_args!("{share:.2}"));
    page.field("current_save_keys_processed", keys_done);
    page.field("current_save_keys_total", keys);
    page.field("rdb_changes_since_last_save", figures.changes);
    let since_s = figures.current.iter().find(|current| current.is_background).map(|it| it.since_s);
    let is_syncing = database.replication.primary.is_syncing.load(Ordering::Relaxed);
    page.field("rdb_bgsave_in_progress", u8::from(since_s.is_some() || is_syncing));
    page.field("rdb_last_save_time", figures.last_save_s);
    page.field("rdb_last_bgsave_status", if figures.has_failed { "err" } else { "ok" });
    let seconds = |time: Option<u64>| time.map_or(-1, |time| time as i64);
    page.field("rdb_last_bgsave_time_sec", seconds(figures.last_duration_s));
    let now_s = view.now_ms() / 1000;
    let current_s = since_s.map(|since_s| now_s.saturating_sub(since_s));
    page.field("rdb_current_bgsave_time_sec", seconds(current_s));
    page.field("rdb_saves", figures.saves);
    page.field("rdb_last_cow_size", figures.last_kept_bytes);
    let loaded = database.loading.progress();
    page.field("rdb_last_load_keys_expired", loaded.expired.load(Ordering::Relaxed));
    page.field("rdb_last_load_keys_loaded", loaded.keys.load(Ordering::Relaxed));
    append_only(view, page);
    if database.loading.is_on() {
        let figures = database.loading.figures(view.now_ms());
        page.field("loading_start_time", figures.started);
        page.field("loading_total_bytes", figures.total_bytes);
        page.field("loading_rdb_used_mem", figures.memory_bytes);
        page.field("loading_loaded_bytes", figures.loaded_bytes);
        page.field("loading_loaded_perc", format_args!("{:.2}", figures.percent));
        page.field("loading_eta_seconds", figures.eta);
    }
}

fn append_only(view: &View<'_>, page: &mut Page) {
    let figures = view.database.aof.figures(view.database);
    let seconds = |time: Option<u64>| time.map_or(-1, |time| time as i64);
    let status = |is_bad| if is_bad { "err" } else { "ok" };
    page.field("aof_enabled", u8::from(figures.is_enabled));
    page.field("aof_rewrite_in_progress", u8::from(figures.is_rewriting));
    page.field("aof_rewrite_scheduled", u8::from(figures.is_scheduled));
    page.field("aof_last_rewrite_time_sec", seconds(figures.last_rewrite_s));
    page.field("aof_current_rewrite_time_sec", seconds(figures.current_rewrite_s));
    page.field("aof_last_bgrewrite_status", status(figures.last_rewrite_failed));
    page.field("aof_rewrites", figures.rewrites);
    page.field("aof_rewrites_consecutive_failures", figures.failures);
    page.field("aof_last_write_status", status(figures.is_in_trouble));
    page.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    if figures.is_enabled {
        page.field("aof_current_size", figures.bytes);
        page.field("aof_base_size", figures.base_bytes);
        page.field("aof_pending_rewrite", u8::from(figures.is_scheduled));
        page.field("aof_buffer_length", figures.buffered_bytes);
        page.field("aof_pending_bio_fsync", u8::from(figures.is_syncing));
        page.field("aof_delayed_fsync", figures.delayed_syncs);
    }
}

/// Reactors under the name of Redis's threads.
pub(super) fn threads(view: &View<'_>, page: &mut Page) {
    let totals = view.database.clients.totals();
    for reactor in 0..view.server.mailboxes.len() {
        let counters = view.database.stats.of(reactor);
        page.field(
            format_args!("io_thread_{reactor}"),
            format_args!(
                "clients={},reads={},writes={}",
                totals.by_reactor.get(reactor).copied().unwrap_or(0),
                counters.reads_processed.value(),
                counters.writes_processed.value()
            ),
        );
    }
}

pub(super) fn stats(view: &View<'_>, page: &mut Page) {
    let stats = &view.database.stats;
    let sum = |figure: fn(&Counters) -> &Counter| stats.sum(figure);
    let (commands, input, output, stale, turns, turn_us) = {
        let rates = view.database.rates.lock();
        (
            rates.commands_per_second(),
            rates.input_bytes_per_second(),
            rates.output_bytes_per_second(),
            rates.stale_share(),
            rates.turns_per_second(),
            rates.turn_us(),
        )
    };
    page.field("total_connections_received", sum(|it| &it.connections_received));
    page.field("total_commands_processed", sum(|it| &it.commands_processed));
    page.field("instantaneous_ops_per_sec", commands as u64);
    page.field("total_net_input_bytes", sum(|it| &it.net_input_bytes));
    page.field("total_net_output_bytes", sum(|it| &it.net_output_bytes));
    page.zeros(&["total_net_repl_input_bytes", "total_net_repl_output_bytes"]);
    page.field("instantaneous_input_kbps", format_args!("{:.2}", input / 1024.0));
    page.field("instantaneous_output_kbps", format_args!("{:.2}", output / 1024.0));
    page.field("instantaneous_input_repl_kbps", "0.00");
    page.field("instantaneous_output_repl_kbps", "0.00");
    page.field("rejected_connections", sum(|it| &it.connections_rejected));
    let primary = &view.database.replication.primary;
    page.field("sync_full", primary.full.load(Ordering::Relaxed));
    page.field("sync_partial_ok", primary.partial.load(Ordering::Relaxed));
    page.field("sync_partial_err", primary.partial_refused.load(Ordering::Relaxed));
    page.field("expired_subkeys", sum(|it| &it.expired_fields));
    page.field("expired_keys", sum(|it| &it.expired_keys));
    page.field("expired_stale_perc", format_args!("{:.2}", stale * 100.0));
    page.field("expired_time_cap_reached_count", sum(|it| &it.sweeps_cut));
    page.field("expire_cycle_cpu_milliseconds", sum(|it| &it.sweep_nanoseconds) / 1_000_000);
    page.field("evicted_keys", sum(|it| &it.evicted_keys));
    page.field("evicted_clients", sum(|it| &it.evicted_clients));
    page.field("evicted_scripts", view.database.scripting.figures().evicted);
    let (exceeded_ms, exceeded_now_ms) = view.database.room.exceeded_ms(view.now_us);
    page.field("total_eviction_exceeded_time", exceeded_ms);
    page.field("current_eviction_exceeded_time", exceeded_now_ms);
    page.field("keyspace_hits", sum(|it| &it.keyspace_hits));
    page.field("keyspace_misses", sum(|it| &it.keyspace_misses));
    let pubsub = &view.database.pubsub;
    page.field("pubsub_channels", pubsub.of(Kind::Channel).len());
    page.field("pubsub_patterns", pubsub.of(Kind::Pattern).len());
    page.field("pubsubshard_channels", pubsub.of(Kind::Shard).len());
    page.zeros(&["latest_fork_usec", "total_forks"]);
    page.field("migrate_cached_sockets", view.database.sockets.count());
    page.field("slave_expires_tracked_keys", view.database.replication.own_keys.count());
    page.zeros(&[
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ]);
    let tracking = &view.database.tracking;
    page.field("tracking_total_keys", tracking.keys());
    page.field("tracking_total_items", tracking.items());
    page.field("tracking_total_prefixes", tracking.prefixes());
    page.field("unexpected_error_replies", sum(|it| &it.unexpected_errors));
    page.field("total_error_replies", sum(|it| &it.error_replies));
    page.field("dump_payload_sanitizations", 0);
    let (reads, writes) = (sum(|it| &it.reads_processed), sum(|it| &it.writes_processed));
    page.field("total_reads_processed", reads);
    page.field("total_writes_processed", writes);
    // Redis means those of other threads than the one that runs commands, of which there are none.
    page.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    let query_limit = sum(|it| &it.query_limit_disconnections);
    page.field("client_query_buffer_limit_disconnections", query_limit);
    let output_limit = sum(|it| &it.output_limit_disconnections);
    page.field("client_output_buffer_limit_disconnections", output_limit);
    page.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    page.field("eventloop_cycles", turns_sum(view, |it| &it.count));
    page.field("eventloop_duration_sum", turns_sum(view, |it| &it.nanoseconds) / 1000);
    let commands_ns: u64 = (0..view.server.registry.entries().len())
        .map(|id| stats.sum_of(id, |figures| &figures.nanoseconds))
        .sum();
    page.field("eventloop_duration_cmd_sum", commands_ns / 1000);
    page.field("instantaneous_eventloop_cycles_per_sec", turns as u64);
    page.field("instantaneous_eventloop_duration_usec", turn_us as u64);
    page.field("acl_access_denied_auth", sum(|it| &it.denied_passwords));
    page.field("acl_access_denied_cmd", sum(|it| &it.denied_commands));
    page.field("acl_access_denied_key", sum(|it| &it.denied_keys));
    page.field("acl_access_denied_channel", sum(|it| &it.denied_channels));
    page.field("acl_access_denied_tls_cert", sum(|it| &it.denied_certificates));
    page.field("acl_access_denied_db", sum(|it| &it.denied_databases));
}

fn turns_sum(view: &View<'_>, figure: fn(&Turns) -> &Counter) -> u64 {
    view.server.turns.iter().map(|turns| figure(turns).value()).sum()
}

/// What only those ask for who look into the server.
pub(super) fn debug(view: &View<'_>, page: &mut Page) {
    let most = |figure: fn(&Turns) -> &Counter| {
        view.server.turns.iter().map(|turns| figure(turns).value()).max().unwrap_or(0)
    };
    page.zeros(&["eventloop_duration_aof_sum"]);
    let ticks = turns_sum(view, |it| &it.tick_nanoseconds);
    page.field("eventloop_duration_cron_sum", ticks / 1000);
    page.field("eventloop_duration_max", most(|it| &it.nanoseconds_max) / 1000);
    page.field("eventloop_cmd_per_cycle_max", most(|it| &it.commands_max));
}

pub(super) fn replication(view: &View<'_>, page: &mut Page) {
    let replication = &view.database.replication;
    let primary = &replication.primary;
    match replication.following.load_full() {
        None => page.field("role", "master"),
        Some(following) => replica::fields(view, &following, page),
    }
    let replicas = primary.listed();
    page.field("connected_slaves", replicas.len());
    page.field("replicas_waiting_psync", primary.waiting_streams());
    let config = &view.config;
    if config.min_replicas_to_write != 0 && config.min_replicas_max_lag != 0 {
        page.field("min_slaves_good_slaves", primary.good.load(Ordering::Relaxed));
    }
    for (place, replica) in replicas.iter().enumerate() {
        let lag = match replica.is_online() {
            true => replica.lag_seconds(view.now_ms()),
            false => 0,
        };
        let (host, port) = (replica.host(), replica.introduction.port);
        let (state, offset) = (replica.state(), replica.acknowledged());
        page.field(
            format_args!("slave{place}"),
            format_args!("ip={host},port={port},state={state},offset={offset},lag={lag}"),
        );
    }
    let history = *replication.history.lock();
    let previous = history.previous();
    page.field("master_failover_state", primary.failover.lock().state());
    page.field("master_replid", history.id());
    match previous {
        Some((id, _)) => page.field("master_replid2", id),
        None => page.field("master_replid2", "0".repeat(40)),
    }
    let (is_kept, start, end) = view.database.log.range();
    page.field("master_repl_offset", end);
    match previous {
        Some((_, end)) => page.field("second_repl_offset", end + 1),
        None => page.field("second_repl_offset", -1),
    }
    page.field("repl_backlog_active", u8::from(is_kept));
    page.field("repl_backlog_size", config.repl_backlog_size);
    page.field("repl_backlog_first_byte_offset", if is_kept { start + 1 } else { 0 });
    page.field("repl_backlog_histlen", if is_kept { end - start } else { 0 });
}

pub(super) fn cluster(_: &View<'_>, page: &mut Page) {
    page.field("cluster_enabled", 0);
}
