//! The section Replication of a server that follows another.

use std::sync::atomic::Ordering;

use super::{Page, View};
use crate::replication::replica::{Following, Stage};

/// What a replica knows of its primary and the link to it.
pub(super) fn fields(view: &View<'_>, following: &Following, page: &mut Page) {
    let (stage, transfer) = (following.stage(), &following.transfer);
    let since = |ms: u64| view.now_ms().saturating_sub(ms) / 1000;
    page.field("role", "slave");
    page.field("master_host", &following.host);
    page.field("master_port", following.port);
    page.field("master_link_status", if following.is_up() { "up" } else { "down" });
    match following.client() {
        Some(_) => page.field("master_last_io_seconds_ago", since(following.last_io_ms())),
        None => page.field("master_last_io_seconds_ago", -1),
    }
    let kept = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    page.field("replica_full_sync_buffer_size", kept(&transfer.kept_bytes));
    page.field("replica_full_sync_buffer_peak", kept(&transfer.kept_bytes_max));
    page.field("master_sync_in_progress", u8::from(stage == Stage::Sync));
    let end = view.database.log.end();
    // A pause holds back what has come.
    let unread = following.client().map_or(0, |it| it.query_bytes.load(Ordering::Relaxed) as u64);
    page.field("slave_read_repl_offset", end + unread);
    page.field("slave_repl_offset", end);
    if stage == Stage::Sync {
        let total = transfer.total_bytes.load(Ordering::Relaxed);
        let read = transfer.read_bytes.load(Ordering::Relaxed);
        let left = if total < 0 { -1 } else { total.saturating_sub_unsigned(read) };
        let part = if total <= 0 { 0.0 } else { 100.0 * read as f64 / total as f64 };
        page.field("master_sync_total_bytes", total);
        page.field("master_sync_read_bytes", read);
        page.field("master_sync_left_bytes", left);
        page.field("master_sync_perc", format_args!("{part:.2}"));
        page.field("master_sync_last_io_seconds_ago", since(following.last_io_ms()));
    }
    if !following.is_up() {
        let down = following.down_seconds(view.now_ms());
        page.field("master_link_down_since_seconds", down);
    }
    page.field("master_link_failures", kept(&view.database.replication.failed_links));
    page.field("slave_priority", view.config.replica_priority);
    page.field("slave_read_only", u8::from(view.config.replica_read_only));
    page.field("replica_announced", u8::from(view.config.replica_announced));
}
