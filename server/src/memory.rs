//! Where the memory is: the figures behind INFO, MEMORY STATS and MEMORY DOCTOR.

use crate::allocator;
use crate::census::Count;
use crate::clients::ClientShared;
use crate::connection::Connection;
use crate::database::Database;
use crate::server::Server;
use crate::usage::Usage;

/// Below this, ratios say nothing.
const SMALL: usize = 5 << 20;
/// A difference that is worth a word.
const NOTABLE: i64 = 10 << 20;

/// All in bytes.
pub struct Figures {
    pub used: usize,
    pub peak: usize,
    pub startup: usize,
    pub clients: usize,
    pub client_count: usize,
    pub allocator: allocator::Figures,
    /// Physical memory of the whole process.
    pub resident: usize,
    pub databases: Vec<Count>,
}

impl Figures {
    /// `used`: as `eviction::in_use` gave it before anything was made ready for the answer;
    /// `databases`: the census of its keys.
    pub fn take(
        server: &Server,
        database: &Database,
        process: &Usage,
        used: usize,
        databases: Vec<Count>,
    ) -> Self {
        let allocator = allocator::figures();
        let clients = database.clients.totals();
        // What the C library holds for TLS is not the allocator's.
        let foreign = database.room.foreign();
        let client_count = database.clients.len();
        let is_shared = database.room.is_shared();
        let fixed = size_of::<ClientShared>() + size_of::<Connection>();
        Self {
            used,
            // What the process needs for itself is no database's.
            peak: match is_shared {
                true => database.room.raise_peak(used),
                false => server.watch.raise_peak(used),
            },
            startup: if is_shared { 0 } else { server.watch.startup_bytes() },
            clients: clients.query_bytes + clients.output_bytes + client_count * fixed + foreign,
            client_count,
            allocator,
            resident: process.resident_bytes,
            databases,
        }
    }

    pub fn keys(&self) -> usize {
        self.databases.iter().map(|count| count.keys).sum()
    }

    pub fn tables(&self) -> usize {
        self.databases.iter().map(|count| count.table_bytes).sum()
    }

    /// What is not data.
    pub fn overhead(&self) -> usize {
        self.startup + self.clients + self.tables()
    }

    pub fn dataset(&self) -> usize {
        self.used.saturating_sub(self.overhead())
    }

    /// What has come since the start.
    pub fn since_startup(&self) -> usize {
        self.used.saturating_sub(self.startup).max(1)
    }

    pub fn dataset_percentage(&self) -> f64 {
        percentage(self.dataset(), self.since_startup())
    }

    pub fn peak_percentage(&self) -> f64 {
        percentage(self.used, self.peak)
    }

    pub fn allocator_fragmentation(&self) -> Excess {
        Excess::of(self.allocator.active, self.allocator.allocated)
    }

    pub fn allocator_resident(&self) -> Excess {
        Excess::of(self.allocator.resident, self.allocator.active)
    }

    pub fn process_resident(&self) -> Excess {
        Excess::of(self.resident, self.allocator.resident)
    }

    pub fn fragmentation(&self) -> Excess {
        Excess::of(self.resident, self.used)
    }

    /// Advice in prose, as MEMORY DOCTOR gives it.
    pub fn advice(&self) -> String {
        if self.used < SMALL {
            return "Hardly any memory is in use: there is nothing to diagnose until there is \
                    data.\n"
                .to_owned();
        }
        let mut findings = Vec::new();
        if 1.5 < self.peak as f64 / self.used as f64 {
            findings.push(
                "Peak memory: at some time more than 150% of what is in use now was needed. \
                 Physical memory may still be as large as then, and will be used again as data \
                 comes in. MEMORY PURGE returns what it can.",
            );
        }
        if self.fragmentation().is_notable(1.4) {
            findings.push(
                "Physical memory: the process takes more than 1.4 times what is in use. After a \
                 peak this is normal; otherwise the workload fragments memory.",
            );
        }
        if self.allocator_fragmentation().is_notable(1.1) {
            findings.push(
                "Fragmentation: the allocator's pages hold more than 1.1 times what is in use. \
                 Values of changing sizes, or many deletions, leave such gaps.",
            );
        }
        if self.allocator_resident().is_notable(1.1) {
            findings.push(
                "Unused pages: the allocator keeps more than 1.1 times the pages it needs. MEMORY \
                 PURGE returns them.",
            );
        }
        if self.process_resident().is_notable(1.1) {
            findings.push(
                "Other memory: the process takes more than 1.1 times the memory of its allocator.",
            );
        }
        if 200 << 10 < self.clients / self.client_count.max(1) {
            findings.push(
                "Client buffers: clients take more than 200 KiB each on average. Some may read \
                 their replies too slowly, or send very large requests; CLIENT LIST tells which.",
            );
        }
        if findings.is_empty() {
            return "No memory issue was found.\n".to_owned();
        }
        let mut text = "There are a few findings about the memory of this server:\n\n".to_owned();
        for finding in findings {
            text += &format!(" * {finding}\n\n");
        }
        text
    }
}

fn percentage(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// By how much one figure is more than another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Excess {
    pub ratio: f64,
    pub bytes: i64,
}

impl Excess {
    fn of(whole: usize, part: usize) -> Self {
        let ratio = if part == 0 { 0.0 } else { whole as f64 / part as f64 };
        Self { ratio, bytes: whole as i64 - part as i64 }
    }

    fn is_notable(self, ratio: f64) -> bool {
        ratio < self.ratio && NOTABLE < self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(used: usize) -> Figures {
        Figures {
            used,
            peak: used,
            startup: 1 << 20,
            clients: 1000,
            client_count: 1,
            allocator: allocator::Figures {
                allocated: used,
                active: used,
                resident: used,
                muzzy: 0,
            },
            resident: used,
            databases: vec![Count { keys: 10, table_bytes: 640, ..Count::default() }],
        }
    }

    #[test]
    fn what_is_not_overhead_is_data() {
        let figures = figures(2 << 20);
        assert_eq!(figures.overhead(), (1 << 20) + 1000 + 640);
        assert_eq!(figures.dataset(), (1 << 20) - 1640);
        assert!(99.0 < figures.dataset_percentage() && figures.dataset_percentage() < 100.0);
        let small = Figures { used: 1 << 19, ..figures };
        assert_eq!((small.dataset(), small.since_startup()), (0, 1), "never below zero");
    }

    #[test]
    fn advice_names_what_stands_out() {
        assert!(figures(1 << 20).advice().starts_with("Hardly any"));
        assert!(figures(100 << 20).advice().starts_with("No memory issue"));
        let mut swollen = figures(100 << 20);
        swollen.peak = 200 << 20;
        swollen.resident = 190 << 20;
        swollen.clients = 1 << 20;
        let advice = swollen.advice();
        for word in ["Peak memory", "Physical memory", "Other memory", "Client buffers"] {
            assert!(advice.contains(word), "{word}: {advice}");
        }
        assert!(!advice.contains("Unused pages"));
    }
}
