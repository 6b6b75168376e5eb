//! Sections about memory and keys: Memory, Keyspace.

use std::sync::atomic::Ordering;

use super::{Human, Page, View};
use crate::allocator;
use crate::eviction;
use crate::memory::Excess;

pub(super) fn memory(view: &View<'_>, page: &mut Page) {
    let figures = view.figures();
    let config = &view.config;
    page.bytes("used_memory", figures.used);
    page.bytes("used_memory_rss", figures.resident);
    page.bytes("used_memory_peak", figures.peak);
    page.field("used_memory_peak_perc", format_args!("{:.2}%", figures.peak_percentage()));
    page.field("used_memory_overhead", figures.overhead());
    page.field("used_memory_startup", figures.startup);
    page.field("used_memory_dataset", figures.dataset());
    page.field("used_memory_dataset_perc", format_args!("{:.2}%", figures.dataset_percentage()));
    page.field("allocator_allocated", figures.allocator.allocated);
    page.field("allocator_active", figures.allocator.active);
    page.field("allocator_resident", figures.allocator.resident);
    page.field("allocator_muzzy", figures.allocator.muzzy);
    let system = rustix::system::sysinfo();
    let total = (system.totalram as usize).saturating_mul(system.mem_unit as usize);
    page.bytes("total_system_memory", total);
    scripts(view, page);
    page.field("maxmemory", config.maxmemory);
    page.field("maxmemory_human", Human(usize::try_from(config.maxmemory).unwrap_or(usize::MAX)));
    page.field("maxmemory_policy", config.maxmemory_policy.word());
    excess(page, "allocator_frag", figures.allocator_fragmentation());
    excess(page, "allocator_rss", figures.allocator_resident());
    excess(page, "rss_overhead", figures.process_resident());
    excess(page, "mem_fragmentation", figures.fragmentation());
    replication(view, page);
    page.field("mem_clients_normal", figures.clients);
    page.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    page.field("mem_allocator", allocator::name());
    page.zeros(&["mem_overhead_db_hashtable_rehashing", "active_defrag_running"]);
    let reclaimer = &view.server.reclaimer;
    page.field("lazyfree_pending_objects", reclaimer.pending());
    page.field("lazyfreed_objects", reclaimer.freed());
}

/// What is kept for replicas, of which they have not read all that is beyond the backlog.
fn replication(view: &View<'_>, page: &mut Page) {
    let log = &view.database.log;
    let (is_kept, start, end) = log.range();
    let beyond = log.beyond_backlog() as u64;
    let (backlog, unread) = if is_kept { (end - start, beyond) } else { (0, 0) };
    let replicas = view.database.replication.primary.list();
    let unread = if replicas.is_empty() { 0 } else { unread };
    let clients: usize = replicas.iter().map(|replica| replica.client.memory()).sum();
    page.field("mem_not_counted_for_evict", eviction::uncounted(view.database));
    page.field("mem_replication_backlog", backlog.saturating_sub(unread));
    let following = view.database.replication.following.load();
    let kept = following.as_ref().map_or(0, |it| it.transfer.kept_bytes.load(Ordering::Relaxed));
    page.field("mem_total_replication_buffers", backlog + kept);
    page.field("mem_replica_full_sync_buffer", kept);
    page.field("mem_clients_slaves", clients as u64 + unread);
}

fn scripts(view: &View<'_>, page: &mut Page) {
    let figures = view.database.scripting.figures();
    page.bytes("used_memory_lua", figures.scripts_heap);
    page.field("used_memory_vm_eval", figures.scripts_heap);
    page.field("used_memory_scripts_eval", figures.scripts_bytes);
    page.field("number_of_cached_scripts", figures.scripts);
    page.field("number_of_functions", figures.functions);
    page.field("number_of_libraries", figures.libraries);
    page.field("used_memory_vm_functions", figures.functions_heap);
    page.bytes("used_memory_vm_total", figures.scripts_heap + figures.functions_heap);
    page.zeros(&["used_memory_functions"]);
    page.bytes("used_memory_scripts", figures.scripts_bytes);
}

fn excess(page: &mut Page, name: &str, excess: Excess) {
    page.field(format_args!("{name}_ratio"), format_args!("{:.2}", excess.ratio));
    page.field(format_args!("{name}_bytes"), excess.bytes);
}

pub(super) fn keyspace(view: &View<'_>, page: &mut Page) {
    for (db, count) in view.counts().iter().enumerate().filter(|(_, count)| count.keys != 0) {
        page.field(
            format_args!("db{db}"),
            format_args!(
                "keys={},expires={},avg_ttl={},subexpiry={}",
                count.keys, count.expires, count.mean_ttl_ms, count.expiring_hashes
            ),
        );
    }
}
