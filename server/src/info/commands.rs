//! Sections by command and by error: Commandstats, Errorstats.

use super::{Page, View};

pub(super) fn calls(view: &View<'_>, page: &mut Page) {
    let stats = &view.database.stats;
    for entry in view.server.registry.entries() {
        let calls = stats.sum_of(entry.id, |figures| &figures.calls);
        let rejected = stats.sum_of(entry.id, |figures| &figures.rejected);
        let failed = stats.sum_of(entry.id, |figures| &figures.failed);
        if calls == 0 && rejected == 0 && failed == 0 {
            continue;
        }
        let nanoseconds = stats.sum_of(entry.id, |figures| &figures.nanoseconds);
        let each_us = nanoseconds as f64 / 1000.0 / calls.max(1) as f64;
        page.field(
            format_args!("cmdstat_{}", entry.full_name),
            format_args!(
                "calls={calls},usec={},usec_per_call={each_us:.2},rejected_calls={rejected},\
                 failed_calls={failed}",
                nanoseconds / 1000
            ),
        );
    }
}

pub(super) fn errors(view: &View<'_>, page: &mut Page) {
    for (code, count) in view.database.stats.errors() {
        // Codes come out of error texts, which clients can have a part in.
        let code = code.replace([':', '#', '\r', '\n'], "_");
        page.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}
