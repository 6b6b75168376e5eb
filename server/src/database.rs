//! A database: an endpoint with its own settings, clients and figures.
//!
//! All that belongs to a database hangs off one value and nothing of it is global, so that several
//! may live in one process, and come and go while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use carnelian_commands::CommandError;
use carnelian_config::Config;
use carnelian_keyspace::Keyspace;
use parking_lot::{Mutex, RwLock};

use crate::acl::Acl;
use crate::aof::Aof;
use crate::clients::{ClientIds, Clients};
use crate::commands::Sockets;
use crate::databases::{DatabaseSpec, FIRST, StageCell};
use crate::dispatch::UNSAVED;
use crate::effects::EffectLog;
use crate::encryption::Encryption;
use crate::endpoint::DatabaseEndpoint;
use crate::eviction::Room;
use crate::histogram::Histogram;
use crate::internode::DatabaseChannel;
use crate::latency::Latency;
use crate::listener::Listeners;
use crate::load::Loading;
use crate::log;
use crate::monitor::Monitors;
use crate::pause::Pause;
use crate::pubsub::PubSub;
use crate::rates::Rates;
use crate::replication::Replication;
use crate::scripting::Scripting;
use crate::settings::Settings;
use crate::slowlog::SlowLog;
use crate::snapshot::Snapshots;
use crate::tracking::Tracking;
use crate::waiters::Waiters;

pub struct Database {
    pub uid: u32,
    /// As it stands; `configure` puts another into effect.
    config: RwLock<Arc<Config>>,
    /// What it was made from, or changed to; none if only configuration files and CONFIG SET made it.
    pub spec: ArcSwapOption<DatabaseSpec>,
    /// Whether it is being made, is there, or is gone.
    pub stage: StageCell,
    /// Swapped whole when the configuration changes: readers see one state or the other.
    pub settings: ArcSwap<Settings>,
    /// Grows with every change of `settings`, so that who keeps a copy can tell cheaply.
    generation: AtomicU64,
    pub acl: Acl,
    pub clients: Clients,
    pub stats: Stats,
    pub keyspace: Keyspace,
    pub loading: Loading,
    /// What its writes did, for those who follow.
    pub log: EffectLog,
    pub snapshots: Snapshots,
    pub aof: Aof,
    pub pubsub: PubSub,
    pub tls: Encryption,
    pub listeners: Mutex<Listeners>,
    /// Connections that wait to be told that they are turned away.
    pub refused: AtomicUsize,
    pub rates: Mutex<Rates>,
    pub slow_log: Mutex<SlowLog>,
    /// How much it may take, and whether it has taken more.
    pub room: Room,
    pub large_requests: Mutex<SlowLog>,
    pub large_replies: Mutex<SlowLog>,
    pub latency: Latency,
    /// Bits of `pause::attention`: what each batch has to look out for.
    pub attention: AtomicU32,
    pub pause: Pause,
    pub monitors: Monitors,
    pub tracking: Tracking,
    pub scripting: Scripting,
    /// Who waits for which key.
    pub waiters: Waiters,
    /// Whether keys and fields that have expired are looked for; off only for tests.
    pub active_expiry: AtomicBool,
    /// Whom it follows and who follows it.
    pub replication: Replication,
    /// Its links with other nodes.
    pub internode: DatabaseChannel,
    /// Its connections to servers that keys were moved to.
    pub sockets: Sockets,
    /// Where its clients are served, and who has come through other nodes.
    pub endpoint: DatabaseEndpoint,
}

impl Database {
    pub fn new(
        uid: u32,
        config: Arc<Config>,
        acl: Acl,
        tls: Encryption,
        stats: Stats,
        client_ids: ClientIds,
    ) -> Self {
        let settings = Settings::new(&config);
        let keyspace = Keyspace::new(config.databases as usize);
        let room = Room::default();
        room.set_limit(&settings.eviction);
        Self {
            uid,
            config: RwLock::new(config),
            spec: ArcSwapOption::empty(),
            stage: StageCell::default(),
            settings: ArcSwap::from_pointee(settings),
            generation: AtomicU64::new(0),
            acl,
            clients: Clients::new(client_ids),
            stats,
            keyspace,
            loading: Loading::default(),
            log: EffectLog::default(),
            snapshots: Snapshots::default(),
            aof: Aof::default(),
            pubsub: PubSub::default(),
            tls,
            listeners: Mutex::new(Listeners::new(uid)),
            refused: AtomicUsize::new(0),
            rates: Mutex::default(),
            slow_log: Mutex::default(),
            room,
            large_requests: Mutex::default(),
            large_replies: Mutex::default(),
            latency: Latency::default(),
            attention: AtomicU32::new(0),
            pause: Pause::default(),
            monitors: Monitors::default(),
            tracking: Tracking::default(),
            scripting: Scripting::default(),
            waiters: Waiters::default(),
            active_expiry: AtomicBool::new(true),
            replication: Replication::default(),
            internode: DatabaseChannel::default(),
            sockets: Sockets::default(),
            endpoint: DatabaseEndpoint::default(),
        }
    }

    /// Whether it is the one that the process was started with, through which the process is configured.
    pub fn is_first(&self) -> bool {
        self.uid == FIRST
    }

    /// The configuration as it stands.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read())
    }

    pub(crate) fn set_config(&self, config: Arc<Config>) {
        *self.config.write() = config;
    }

    /// Puts other settings into effect.
    pub fn set_settings(&self, settings: Settings) {
        self.room.set_limit(&settings.eviction);
        self.snapshots.heed(&settings);
        self.settings.store(Arc::new(settings));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The reply to writes while they cannot be brought to the disk.
    pub fn write_refusal(&self) -> Option<CommandError> {
        if self.snapshots.refuses_writes() {
            return Some(CommandError::text(UNSAVED));
        }
        self.aof.refuses_writes().then(|| CommandError::text(self.aof.misconf()))
    }

    /// Has sessions take notice of changes to users.
    pub fn announce_users(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The settings, and the generation they are at least of.
    pub fn settings(&self) -> (u64, Arc<Settings>) {
        let generation = self.generation();
        (generation, self.settings.load_full())
    }

    #[inline]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// The figures of a database. Each reactor counts in its own cache lines; readers add up.
pub struct Stats {
    reactors: Box<[Counters]>,
    known: Arc<ErrorCodes>,
}

/// What one reactor has counted. Only that reactor writes, so `Counter::add` is a plain store.
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
    pub evicted_clients: Counter,
    pub query_limit_disconnections: Counter,
    pub handshakes: Counter,
    pub handshakes_failed: Counter,
    pub keyspace_hits: Counter,
    pub keyspace_misses: Counter,
    pub expired_keys: Counter,
    pub expired_fields: Counter,
    pub evicted_keys: Counter,
    /// Keys that the sweeps for expiry looked at.
    pub sweep_seen: Counter,
    /// Keys that they removed.
    pub sweep_removed: Counter,
    pub sweep_nanoseconds: Counter,
    /// Sweeps that ended with their slice of time.
    pub sweeps_cut: Counter,
    pub denied_passwords: Counter,
    pub denied_commands: Counter,
    pub denied_keys: Counter,
    pub denied_channels: Counter,
    pub denied_certificates: Counter,
    pub denied_databases: Counter,
    pub error_replies: Counter,
    /// Of commands that had worked elsewhere.
    pub unexpected_errors: Counter,
    /// Changes to the data, as `rdb_changes_since_last_save` counts them.
    pub dirty: Counter,
    /// By the command's place in the registry.
    pub commands: Box<[CommandFigures]>,
    /// Error replies by their code. Behind a lock, since errors are rare and their codes unbounded.
    errors: Mutex<BTreeMap<String, u64>>,
    known: Arc<ErrorCodes>,
}

/// The codes of errors that are counted one by one, on whichever reactor.
#[derive(Default)]
struct ErrorCodes {
    codes: Mutex<BTreeSet<String>>,
    /// Clients have made up too many: none is counted by itself until CONFIG RESETSTAT.
    disabled: AtomicBool,
}

/// What one reactor has counted of one command.
#[derive(Default)]
pub struct CommandFigures {
    pub calls: Counter,
    pub nanoseconds: Counter,
    /// Refused before it ran.
    pub rejected: Counter,
    /// Ran and answered with an error.
    pub failed: Counter,
    /// How long the runs took.
    pub histogram: Histogram,
}

/// Error codes that are counted one by one; a client that makes up more is not followed.
const ERROR_CODES_MAX: usize = 128;
/// A longer first word is no code.
const ERROR_CODE_BYTES: usize = 30;
/// The one code that INFO tells of once there were too many.
const ERRORS_DISABLED: &str = "ERRORSTATS_DISABLED";

impl Counters {
    fn new(commands: usize, known: &Arc<ErrorCodes>) -> Self {
        Self {
            connections_received: Counter::default(),
            connections_rejected: Counter::default(),
            net_input_bytes: Counter::default(),
            net_output_bytes: Counter::default(),
            reads_processed: Counter::default(),
            writes_processed: Counter::default(),
            commands_processed: Counter::default(),
            output_limit_disconnections: Counter::default(),
            evicted_clients: Counter::default(),
            query_limit_disconnections: Counter::default(),
            handshakes: Counter::default(),
            handshakes_failed: Counter::default(),
            keyspace_hits: Counter::default(),
            keyspace_misses: Counter::default(),
            expired_keys: Counter::default(),
            expired_fields: Counter::default(),
            evicted_keys: Counter::default(),
            sweep_seen: Counter::default(),
            sweep_removed: Counter::default(),
            sweep_nanoseconds: Counter::default(),
            sweeps_cut: Counter::default(),
            denied_passwords: Counter::default(),
            denied_commands: Counter::default(),
            denied_keys: Counter::default(),
            denied_channels: Counter::default(),
            denied_certificates: Counter::default(),
            denied_databases: Counter::default(),
            error_replies: Counter::default(),
            unexpected_errors: Counter::default(),
            dirty: Counter::default(),
            commands: (0..commands).map(|_| CommandFigures::default()).collect(),
            errors: Mutex::default(),
            known: Arc::clone(known),
        }
    }

    /// Counts an error reply, given without its leading `-`.
    pub fn count_error(&self, text: &str) {
        self.error_replies.add(1);
        if self.known.disabled.load(Ordering::Relaxed) {
            return;
        }
        let code = error_code(text);
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if self.known.admit(code) {
            errors.insert(code.to_owned(), 1);
        }
    }
}

/// The first word of an error, if it can be one; else Redis counts the error as one without a code.
fn error_code(text: &str) -> &str {
    match text.split_once(' ') {
        Some((code, _)) if code.len() <= ERROR_CODE_BYTES => code,
        _ => "ERR",
    }
}

impl ErrorCodes {
    /// Whether this code may be counted by itself. The first that may not ends all counting by codes, as in Redis.
    #[cold]
    fn admit(&self, code: &str) -> bool {
        let mut codes = self.codes.lock();
        if self.disabled.load(Ordering::Relaxed) {
            return false;
        }
        if codes.len() < ERROR_CODES_MAX || codes.contains(code) {
            codes.insert(code.to_owned());
            return true;
        }
        self.disabled.store(true, Ordering::Relaxed);
        let list: Vec<&str> = codes.iter().map(String::as_str).collect();
        log::warning!(
            "Errorstats stopped adding new errors: there are {ERROR_CODES_MAX} codes already, which \
             may come of scripts that make up codes. See INFO ERRORSTATS; CONFIG RESETSTAT begins \
             anew."
        );
        // Clients have made them up.
        let list = list.join(", ").replace(char::is_control, "?");
        log::warning!("Current errors code list: {list}");
        false
    }
}

impl Stats {
    /// Figures for so many reactors and commands. There are those of one more: a script that is debugged
    /// runs on no reactor.
    pub fn new(reactors: usize, commands: usize) -> Self {
        let known = Arc::new(ErrorCodes::default());
        Self { reactors: (0..=reactors).map(|_| Counters::new(commands, &known)).collect(), known }
    }

    /// The sum of one figure of one command over the reactors.
    pub fn sum_of(&self, command: usize, figure: impl Fn(&CommandFigures) -> &Counter) -> u64 {
        self.sum(|counters| figure(&counters.commands[command]))
    }

    /// Error replies by their code.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        if self.known.disabled.load(Ordering::Relaxed) {
            return BTreeMap::from([(ERRORS_DISABLED.to_owned(), 1)]);
        }
        let mut all = BTreeMap::new();
        for counters in &self.reactors {
            for (code, count) in &*counters.errors.lock() {
                *all.entry(code.clone()).or_default() += count;
            }
        }
        all
    }

    pub fn all(&self) -> &[Counters] {
        &self.reactors
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
            // `dirty` is no statistic: it tells what has not been saved.
            for counter in [
                &counters.connections_received,
                &counters.connections_rejected,
                &counters.net_input_bytes,
                &counters.net_output_bytes,
                &counters.reads_processed,
                &counters.writes_processed,
                &counters.commands_processed,
                &counters.output_limit_disconnections,
                &counters.evicted_clients,
                &counters.query_limit_disconnections,
                &counters.handshakes,
                &counters.handshakes_failed,
                &counters.keyspace_hits,
                &counters.keyspace_misses,
                &counters.expired_keys,
                &counters.expired_fields,
                &counters.evicted_keys,
                &counters.sweep_seen,
                &counters.sweep_removed,
                &counters.sweep_nanoseconds,
                &counters.sweeps_cut,
                &counters.denied_passwords,
                &counters.denied_commands,
                &counters.denied_keys,
                &counters.denied_channels,
                &counters.denied_certificates,
                &counters.denied_databases,
                &counters.error_replies,
                &counters.unexpected_errors,
            ] {
                counter.reset();
            }
            for figures in &counters.commands {
                let CommandFigures { calls, nanoseconds, rejected, failed, histogram } = figures;
                histogram.reset();
                for counter in [calls, nanoseconds, rejected, failed] {
                    counter.reset();
                }
            }
            counters.errors.lock().clear();
        }
        let mut codes = self.known.codes.lock();
        codes.clear();
        self.known.disabled.store(false, Ordering::Relaxed);
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

    /// For a figure that is the largest of its kind.
    #[inline]
    pub fn raise(&self, to: u64) {
        if self.value() < to {
            self.0.store(to, Ordering::Relaxed);
        }
    }

    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
