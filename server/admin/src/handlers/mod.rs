//! The handlers, a file for each kind of object, and the one table of all routes.

mod actions;
pub mod alerts;
mod bdbs;
mod bootstrap;
pub mod certificates;
pub mod cluster;
mod databases;
mod joining;
mod license;
mod logs;
mod nodes;
mod roles;
pub mod shards;
mod stats;
mod transfers;
mod users;

use crate::routes::Route;

/// Every route there is.
pub fn routes() -> impl Iterator<Item = Route> {
    let tables: [&'static [Route]; 17] = [
        bootstrap::ROUTES,
        joining::ROUTES,
        cluster::ROUTES,
        certificates::ROUTES,
        bdbs::ROUTES,
        databases::ROUTES,
        transfers::ROUTES,
        nodes::ROUTES,
        shards::ROUTES,
        actions::ROUTES,
        users::ROUTES,
        roles::ROUTES,
        license::ROUTES,
        logs::ROUTES,
        alerts::ROUTES,
        stats::ROUTES,
        crate::openapi::ROUTES,
    ];
    tables.into_iter().flatten().copied()
}
