//! The append-only file with encryption at rest.

use super::super::super::load::{Loaded, load};
use super::super::super::reader::tests::{Notes, resp};
use super::*;
use crate::seal::{Policy, is_sealed_file};

fn folder(parent: &Path, seals: bool) -> Arc<Folder> {
    let policy = Policy::new(parent.join("key"), seals);
    let folder = Folder::open(parent, "d", "a", &|_, _| {}).unwrap().with_policy(policy);
    folder.create().unwrap();
    Arc::new(folder)
}

/// One run of the server: appends, and perhaps changes files.
fn run(parent: &Path, seals: bool, commands: &[&str], rotates: bool) {
    let log = Arc::new(Log::default());
    let folder = folder(parent, seals);
    let incr = folder.continue_incr(&|_, _| {}).unwrap();
    let writer = start(&log, &folder, incr, Fsync::Always);
    for command in commands {
        let end = log.append(&resp(&[command]));
        log.wait_released(end);
    }
    if rotates {
        writer.rotate(log.end()).wait(Duration::from_secs(60)).unwrap().unwrap();
    }
    writer.stop().unwrap();
}

fn found(parent: &Path, may_truncate: bool) -> Result<(Loaded, Vec<String>), Vec<String>> {
    let lines = Mutex::new(Vec::new());
    let tell = |_, text: &str| lines.lock().unwrap().push(text.to_owned());
    let mut notes = Notes::default();
    match load(&folder(parent, false), may_truncate, &mut notes, &mut |_| {}, &tell) {
        Ok(loaded) => Ok((loaded, notes.commands)),
        Err(error) => {
            let mut lines = lines.into_inner().unwrap();
            lines.push(error.to_string());
            Err(lines)
        }
    }
}

#[test]
fn sealed_files_go_on_over_restarts_and_changes_of_files() {
    let parent = tempfile::tempdir().unwrap();
    run(parent.path(), true, &["set a 1", "set b 2"], false);
    run(parent.path(), true, &["set c 3"], true);
    run(parent.path(), true, &["set d 4"], false);
    let commands = ["set a 1", "set b 2", "set c 3", "set d 4"].map(String::from).to_vec();
    assert_eq!(found(parent.path(), false).unwrap(), (Loaded::Whole, commands));
    for name in ["a.1.incr.aof", "a.2.incr.aof"] {
        let path = parent.path().join("d").join(name);
        assert!(is_sealed_file(&path).unwrap());
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(3).any(|part| part == b"set"));
    }
    assert!(!parent.path().join("d/a.3.incr.aof").exists());
}

#[test]
fn files_of_either_sort_follow_one_another() {
    let parent = tempfile::tempdir().unwrap();
    let mut commands = Vec::new();
    for (number, seals) in [false, true, true, false, true, false, false].into_iter().enumerate() {
        let command = format!("set a {number}");
        run(parent.path(), seals, &[&command], false);
        commands.push(command);
        let (loaded, found) = found(parent.path(), false).unwrap();
        assert_eq!((loaded, &found), (Loaded::Whole, &commands));
    }
    let sealed =
        |number| is_sealed_file(&parent.path().join(format!("d/a.{number}.incr.aof"))).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(sealed), [false, true, false, true, false]);
}

#[test]
fn every_torn_end_is_cut_off_and_every_flipped_byte_is_named() {
    let parent = tempfile::tempdir().unwrap();
    run(parent.path(), true, &["set a 1", "set b 2"], false);
    let path = parent.path().join("d/a.1.incr.aof");
    let whole = fs::read(&path).unwrap();
    for length in 1..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let before = found(parent.path(), false);
        let is_clean = before.is_ok();
        let (loaded, commands) = found(parent.path(), true).unwrap();
        assert!(["set a 1", "set b 2"].map(String::from).starts_with(&commands));
        let expected = if is_clean { Loaded::Whole } else { Loaded::Truncated };
        assert_eq!(loaded, expected, "{length}");
        // And then it is whole, and goes on.
        run(parent.path(), true, &["set c 3"], false);
        let (loaded, again) = found(parent.path(), false).unwrap();
        assert_eq!(loaded, Loaded::Whole);
        assert_eq!(again, [&commands[..], &["set c 3".into()]].concat());
    }
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 1;
        fs::write(&path, flipped).unwrap();
        let lines = found(parent.path(), true).unwrap_err().concat();
        assert!(lines.contains("a.1.incr.aof"), "{place}: {lines}");
        if 96 <= place {
            assert!(lines.contains("frame 0, at byte 96, is") || lines.contains("frame 1, "));
        }
    }
}

#[test]
fn an_earlier_file_that_lost_its_end_is_noticed() {
    let parent = tempfile::tempdir().unwrap();
    run(parent.path(), true, &["set a 1"], true);
    let path = parent.path().join("d/a.1.incr.aof");
    let whole = fs::read(&path).unwrap();
    // Its last frame has no text: a head and a tag.
    fs::write(&path, &whole[..whole.len() - 24]).unwrap();
    let lines = found(parent.path(), true).unwrap_err();
    assert!(lines[0].contains("its end is missing"), "{lines:?}");
}

#[test]
fn a_change_of_files_that_fails_leaves_a_sealed_file_in_use() {
    let parent = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::default());
    let folder = folder(parent.path(), true);
    let incr = folder.continue_incr(&|_, _| {}).unwrap();
    let writer = start(&log, &folder, incr, Fsync::Always);
    log.append(&resp(&["set a 1"]));
    fs::create_dir(parent.path().join("d/a.2.incr.aof")).unwrap();
    writer.rotate(log.end()).wait(Duration::from_secs(60)).unwrap().unwrap_err();
    log.append(&resp(&["set b 2"]));
    writer.stop().unwrap();
    let commands = ["set a 1", "set b 2"].map(String::from).to_vec();
    assert_eq!(found(parent.path(), false).unwrap(), (Loaded::Whole, commands));
}
