//! A database: an endpoint with its own settings, clients and figures.
//!
//! All that belongs to a database hangs off one value and nothing of it is global, so that several
//! may live in one process, and come and go while it runs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::clients::Clients;
use crate::encryption::Encryption;
use crate::listener::Listeners;
use crate::settings::Settings;

pub struct Database {
    pub uid: u32,
    /// Swapped whole when the configuration changes: readers see one state or the other.
    pub settings: ArcSwap<Settings>,
    pub clients: Clients,
    pub stats: Stats,
    pub tls: Encryption,
    pub listeners: Mutex<Listeners>,
    /// Connections that wait to be told that they are turned away.
    pub refused: AtomicUsize,
}

impl Database {
    pub fn new(uid: u32, settings: Settings, tls: Encryption, reactors: usize) -> Self {
        Self {
            uid,
            settings: ArcSwap::from_pointee(settings),
            clients: Clients::default(),
            stats: Stats::new(reactors),
            tls,
            listeners: Mutex::default(),
            refused: AtomicUsize::new(0),
        }
    }
}

/// The figures of a database. Each reactor counts in its own cache lines; readers add up.
pub struct Stats {
    reactors: Box<[Counters]>,
}

/// What one reactor has counted. Only that reactor writes, so `Counter::add` is a plain store.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    pub connections_received: Counter,
    pub connections_rejected: Counter,
    pub net_input_bytes: Counter,
    pub net_output_bytes: Counter,
    pub reads_processed: Counter,
    pub writes_processed: Counter,
    pub commands_processed: Counter,
    pub output_limit_disconnections: Counter,
    pub query_limit_disconnections: Counter,
    pub handshakes: Counter,
    pub handshakes_failed: Counter,
}

impl Stats {
    fn new(reactors: usize) -> Self {
        Self { reactors: (0..reactors).map(|_| Counters::default()).collect() }
    }

    #[inline]
    pub fn of(&self, reactor: usize) -> &Counters {
        &self.reactors[reactor]
    }

    /// The sum of one figure over the reactors: `stats.sum(|counters| &counters.commands_processed)`.
    pub fn sum(&self, figure: impl Fn(&Counters) -> &Counter) -> u64 {
        self.reactors.iter().map(|counters| figure(counters).value()).fold(0, u64::wrapping_add)
    }

    /// CONFIG RESETSTAT. An increment on its way may survive it.
    pub fn reset(&self) {
        for counters in &self.reactors {
            let Counters {
                connections_received,
                connections_rejected,
                net_input_bytes,
                net_output_bytes,
                reads_processed,
                writes_processed,
                commands_processed,
                output_limit_disconnections,
                query_limit_disconnections,
                handshakes,
                handshakes_failed,
            } = counters;
            for counter in [
                connections_received,
                connections_rejected,
                net_input_bytes,
                net_output_bytes,
                reads_processed,
                writes_processed,
                commands_processed,
                output_limit_disconnections,
                query_limit_disconnections,
                handshakes,
                handshakes_failed,
            ] {
                counter.0.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// A number with one writer and any number of readers.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.value().wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
