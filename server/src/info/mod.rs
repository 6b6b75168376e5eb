//! INFO: what there is to know of the server and of one database, as text in sections.
//!
//! Names and order are Redis's, since programs read them. Every figure is either kept up to date
//! where it arises or found by a look at a bounded number of places: INFO may be asked for often.

mod commands;
mod figures;
mod host;
mod memory;
mod replica;

use std::cell::{OnceCell, RefCell};
use std::fmt::{Display, Write as _};
use std::sync::Arc;

use carnelian_config::Config;

use crate::census::{self, Count};
use crate::clock;
use crate::database::Database;
use crate::eviction;
use crate::memory::Figures;
use crate::server::Server;
use crate::usage::Usage;

/// Who asks for a section.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// INFO without arguments.
    Always,
    /// `all`, or the section's name.
    WhenAsked,
    ByName,
}

struct Section {
    name: &'static str,
    title: &'static str,
    shown: Shown,
    write: fn(&View<'_>, &mut Page),
}

const SECTIONS: &[Section] = &[
    always("server", "Server", host::server),
    always("tls", "TLS", host::tls),
    always("clients", "Clients", figures::clients),
    always("memory", "Memory", memory::memory),
    always("persistence", "Persistence", figures::persistence),
    always("threads", "Threads", figures::threads),
    always("stats", "Stats", figures::stats),
    always("replication", "Replication", figures::replication),
    when_asked("internode", "Internode", host::internode),
    always("cpu", "CPU", host::cpu),
    always("modules", "Modules", nothing),
    when_asked("commandstats", "Commandstats", commands::calls),
    always("errorstats", "Errorstats", commands::errors),
    when_asked("latencystats", "Latencystats", commands::latencies),
    always("cluster", "Cluster", figures::cluster),
    always("keyspace", "Keyspace", memory::keyspace),
    Section { name: "debug", title: "Debug", shown: Shown::ByName, write: figures::debug },
];

const fn always(
    name: &'static str,
    title: &'static str,
    write: fn(&View<'_>, &mut Page),
) -> Section {
    Section { name, title, shown: Shown::Always, write }
}

const fn when_asked(
    name: &'static str,
    title: &'static str,
    write: fn(&View<'_>, &mut Page),
) -> Section {
    Section { name, title, shown: Shown::WhenAsked, write }
}

/// A section whose subject there is none of.
fn nothing(_: &View<'_>, _: &mut Page) {}

/// What sections are written from.
struct View<'v> {
    server: &'v Server,
    database: &'v Arc<Database>,
    config: Arc<Config>,
    now_us: u64,
    usage: Usage,
    used: usize,
    figures: OnceCell<Figures>,
    /// A census that was taken before; locks are held that cannot be taken again.
    counts: RefCell<Option<Vec<Count>>>,
}

impl View<'_> {
    fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// Taken once, and only if a section needs them.
    fn figures(&self) -> &Figures {
        let take = || {
            let counts = self.counts.borrow_mut().take();
            let counts =
                counts.unwrap_or_else(|| census::take(&self.database.keyspace, self.now_ms()));
            Figures::take(self.server, self.database, &self.usage, self.used, counts)
        };
        self.figures.get_or_init(take)
    }

    fn counts(&self) -> &[Count] {
        &self.figures().databases
    }
}

/// The text as it grows.
struct Page(String);

impl Page {
    fn field(&mut self, name: impl Display, value: impl Display) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    /// Figures of what does not exist here.
    fn zeros(&mut self, names: &[&str]) {
        for name in names {
            self.field(name, 0);
        }
    }

    /// A number of bytes, and again for people.
    fn bytes(&mut self, name: &str, count: usize) {
        self.field(name, count);
        self.field(format_args!("{name}_human"), Human(count));
    }
}

/// The sections of these names. `counts` is given where the keyspace's locks are held.
pub fn render(
    server: &Server,
    database: &Arc<Database>,
    names: &[&[u8]],
    counts: Option<Vec<Count>>,
) -> String {
    let view = View {
        server,
        database,
        config: database.config(),
        now_us: clock::wall_us(),
        used: eviction::in_use(&server.reclaimer, database),
        usage: Usage::of_process(),
        figures: OnceCell::new(),
        counts: RefCell::new(counts),
    };
    let mut page = Page(String::with_capacity(8 << 10));
    for section in SECTIONS.iter().filter(|section| is_wanted(section, names)) {
        if !page.0.is_empty() {
            page.0.push_str("\r\n");
        }
        // Writing to a string does not fail.
        let _ = write!(page.0, "# {}\r\n", section.title);
        (section.write)(&view, &mut page);
    }
    page.0
}

fn is_wanted(section: &Section, names: &[&[u8]]) -> bool {
    let by_name = |name: &&[u8]| match name.to_ascii_lowercase().as_slice() {
        b"all" | b"everything" => section.shown != Shown::ByName,
        b"default" => section.shown == Shown::Always,
        name => name == section.name.as_bytes(),
    };
    names.is_empty() && section.shown == Shown::Always || names.iter().any(by_name)
}

/// A number of bytes with a unit.
struct Human(usize);

impl Display for Human {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [char; 5] = ['K', 'M', 'G', 'T', 'P'];

        let mut value = self.0 as f64;
        let mut unit = None;
        for next in UNITS {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = Some(next);
        }
        match unit {
            None => write!(f, "{}B", self.0),
            Some(unit) => write!(f, "{value:.2}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use carnelian_config::Config;

    use super::*;
    use crate::testing::Bench;

    fn titles(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# ")).collect()
    }

    fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
        text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    }

    #[test]
    fn sizes_are_shown_as_redis_does() {
        for (bytes, shown) in
            [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (1 << 20, "1.00M"), (3 << 29, "1.50G")]
        {
            assert_eq!(Human(bytes).to_string(), shown);
        }
    }

    #[test]
    fn sections_come_in_order_once_and_as_asked() {
        let bench = Bench::start(Config::default());
        let render = |names: &[&[u8]]| render(&bench.server, &bench.database, names, None);
        assert_eq!(titles(&render(&[b"CPU", b"server", b"cpu", b"foo"])), ["Server", "CPU"]);
        assert_eq!(render(&[b"foo"]), "");
        let all = render(&[b"all"]);
        assert_eq!(titles(&all).len(), SECTIONS.len() - 1);
        assert_eq!(titles(&render(&[])), titles(&render(&[b"default"])));
        assert!(!render(&[]).contains("Commandstats"));
        assert!(all.contains("\r\n\r\n# Clients\r\n"), "a blank line between sections");
    }

    #[test]
    fn every_line_is_a_title_or_a_field_and_no_field_comes_twice() {
        let bench = Bench::start(Config::default());
        let mut stream = bench.connect();
        bench.exchange(&mut stream, "SET k v\r\nGET k\r\nGET\r\n", "+OK\r\n$1\r\nv\r\n-ERR");
        let text = render(&bench.server, &bench.database, &[b"everything"], None);
        let mut names = std::collections::BTreeSet::new();
        for line in text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with("# ")) {
            let (name, _) = line.split_once(':').expect(line);
            assert!(names.insert(name), "{name} is there twice");
        }
        assert_eq!(value(&text, "connected_clients"), Some("1"));
        assert_eq!(value(&text, "keyspace_hits"), Some("1"));
        assert_eq!(value(&text, "rdb_changes_since_last_save"), Some("1"));
        assert_eq!(value(&text, "errorstat_ERR"), Some("count=1"));
        assert_eq!(value(&text, "total_error_replies"), Some("1"));
        assert_eq!(value(&text, "db0"), Some("keys=1,expires=0,avg_ttl=0,subexpiry=0"));
        let get = value(&text, "cmdstat_get").unwrap();
        assert!(get.starts_with("calls=1,") && get.ends_with("rejected_calls=1,failed_calls=0"));
        assert_eq!(value(&text, "server_name"), Some("carnelian"));
        let used: usize = value(&text, "used_memory").unwrap().parse().unwrap();
        let overhead: usize = value(&text, "used_memory_overhead").unwrap().parse().unwrap();
        assert!(100_000 < used && 0 < overhead);
        let serial = value(&text, "tls_server_cert_serial").unwrap();
        assert!(serial.len() == 32 && serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
