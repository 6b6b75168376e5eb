//! Sections by command and by error: Commandstats, Errorstats.

use super::{Page, View};
use crate::histogram::Distribution;

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

pub(super) fn latencies(view: &View<'_>, page: &mut Page) {
    if !view.config.latency_tracking {
        return;
    }
    for entry in view.server.registry.entries() {
        let reactors = view.database.stats.all().iter();
        let all = Distribution::of(reactors.map(|it| &it.commands[entry.id].histogram));
        if all.is_empty() {
            continue;
        }
        let percentiles = view.config.latency_tracking_info_percentiles.iter().map(|percent| {
            format!("p{percent}={:.3}", all.percentile_ns(*percent) as f64 / 1000.0)
        });
        let percentiles: Vec<String> = percentiles.collect();
        let name = format_args!("latency_percentiles_usec_{}", entry.full_name);
        page.field(name, percentiles.join(","));
    }
}

pub(super) fn errors(view: &View<'_>, page: &mut Page) {
    for (code, count) in view.database.stats.errors() {
        // Codes come out of error texts, which clients can have a part in.
        let code = code.replace([':', '#', '\r', '\n'], "_");
        page.field(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}
