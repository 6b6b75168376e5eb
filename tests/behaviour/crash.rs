//! A few rounds of the crash test (`tests/crash`); the program of that name does as many as it is told to.

use carnelian_tests::crash::{Mode, Settings, run};
use carnelian_tests::server::{is_carnelian, program};

#[track_caller]
fn survives(mode: Mode, change: impl Fn(&mut Settings)) {
    let mut settings = Settings::new(program().to_owned(), mode);
    settings.rounds = 3;
    settings.connections = 6;
    settings.load_ms_max = 100;
    // Many tests run beside this one: nothing is said about how long a second takes.
    settings.allowed_ms = 10_000;
    change(&mut settings);
    let summary = run(&settings).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(summary.rounds == 3 && summary.acknowledged != 0);
}

#[test]
fn no_acknowledged_write_is_lost_with_appendfsync_always() {
    survives(Mode::Always, |_| {});
}

#[test]
fn what_is_there_after_a_crash_was_there_at_one_instant_with_everysec() {
    survives(Mode::EverySecond, |_| {});
}

#[test]
fn the_last_complete_snapshot_is_there_after_a_crash() {
    survives(Mode::Snapshot, |_| {});
}

#[test]
fn a_torn_end_is_cut_off() {
    // Redis leaves half of a torn transaction in the file, and loses what comes later.
    if is_carnelian() {
        survives(Mode::Always, |settings| settings.torn = true);
    }
}

#[test]
fn sealed_files_outlive_crashes_as_plain_ones_do() {
    if !is_carnelian() {
        return;
    }
    let seals = ["--data-at-rest-encryption", "yes"].map(String::from).to_vec();
    survives(Mode::Always, |settings| {
        settings.arguments.clone_from(&seals);
        settings.torn = true;
    });
    survives(Mode::Snapshot, |settings| settings.arguments.clone_from(&seals));
}
