//! The differential test in short: a fixed seed against an installed redis-server.
//!
//! `cargo run -p carnelian-tests --bin differential` is the long form.
#![forbid(unsafe_code)]

use carnelian_tests::differential::{Settings, run};
use carnelian_tests::{Server, require_or_skip};

/// What Redis 7.0 answers in a way that later ones corrected or extended.
const CHANGED_SINCE_7_0: &str = "XSETID ZRANK ZREVRANK HSCAN BITCOUNT BITPOS LREM LPOS ZCOUNT \
     ZRANGE ZREMRANGEBYSCORE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGESTORE ZRANGEBYLEX \
     ZREVRANGEBYLEX SORT SORT_RO XREAD";

/// What older servers can be compared on; what is told of users, scripts and events differs too much,
/// and scenes of several clients take their time.
const DATA_GROUPS: &str = "string bitmap hash list set sorted-set generic stream hyperloglog geo";

#[test]
fn replies_are_those_of_redis() {
    let Some(program) = require_or_skip("redis-server") else { return };
    let redis = Server::starter_of(&program).start();
    let ours = Server::start(&[]);
    let version = redis.connect().info("redis_version");
    let same_generation = version.starts_with("8.");
    let settings = Settings {
        a: format!("127.0.0.1:{}", redis.port()),
        b: format!("127.0.0.1:{}", ours.port()),
        commands: 60_000,
        seed: 2025,
        groups: match same_generation {
            true => Vec::new(),
            false => DATA_GROUPS.split_whitespace().map(str::to_owned).collect(),
        },
        differences_max: 20,
        encodings: same_generation,
        common_only: !same_generation,
        loosely: !same_generation,
        without: match same_generation {
            true => Vec::new(),
            false => CHANGED_SINCE_7_0.split_whitespace().map(str::to_owned).collect(),
        },
    };
    let summary = run(&settings).expect("both servers keep answering");
    let share = summary.errors * 100 / summary.commands;
    assert!((5..50).contains(&share), "{share} percent of the replies are errors");
    let reports = summary.reports.join("\n");
    assert!(summary.differences == 0, "a is Redis {version}, b is ours:\n{reports}");
}
