//! A few rounds of the fault test of replication (`tests/faults`); the program of that name does as many as it
//! is told to.

use carnelian_tests::faults::{Settings, run};
use carnelian_tests::is_carnelian;
use carnelian_tests::server::program;

#[test]
fn replicas_have_the_same_data_whatever_happened_to_links_and_processes() {
    if !is_carnelian() {
        return;
    }
    let mut settings = Settings::new(program().to_owned());
    settings.rounds = 4;
    settings.seconds = 600;
    settings.pause_ms_max = 200;
    let summary = run(&settings).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(summary.rounds == 4 && summary.writes != 0);
}
