//! The server from outside, by behaviour. Scripts run over RESP2 and RESP3, TCP and TLS alike.
//!
//! With `CARNELIAN_SERVER=redis-server` the same scripts run against Redis, all but those about what
//! only Carnelian does: so it is known that what they expect is right.
#![forbid(unsafe_code)]

mod acceptance;
mod acl;
mod append_only;
mod at_rest;
mod atomicity;
mod bad_input;
mod blocking;
mod blocking_many;
mod busy;
mod capture;
mod clients;
mod cluster;
mod cluster_leases;
mod cluster_refusals;
mod command_docs;
mod config;
mod control_plane;
mod crash;
mod database_fields;
mod debug;
mod dump;
mod eviction;
mod forwarding;
mod frozen_time;
mod geo;
mod hashes;
mod hyperloglog;
mod internode;
mod internode_hostile;
mod internode_refusals;
mod keys;
mod latency;
mod lifecycle;
mod limits;
mod lists;
mod loading;
mod monitor;
mod notifications;
mod pause;
mod protocol;
mod pubsub;
mod replication_beside;
mod replication_faults;
mod replication_primary;
mod replication_replica;
mod replication_rules;
mod replication_sentinel;
mod replication_targets;
mod replication_tls;
mod roles;
mod same_port;
mod script_debug;
mod scripts;
mod sets;
mod snapshots;
mod sorted_sets;
mod standing;
mod streams;
mod strings;
mod tls;
mod tracking;
mod transactions;
