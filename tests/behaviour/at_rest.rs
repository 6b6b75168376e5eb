//! Encryption at rest: files that nobody can read or change without the key.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::Server;
use carnelian_tests::server::is_carnelian;

const SECRET: &str = "a-word-that-nobody-must-read";

/// Every file of a server's folder, but its logs.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a folder").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.retain(|path| path.extension().is_none_or(|extension| extension != "log"));
    found
}

fn has_secret(path: &Path) -> bool {
    let bytes = fs::read(path).expect("a file");
    bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes())
}

fn is_sealed(path: &Path) -> bool {
    fs::read(path).expect("a file").starts_with(b"CARNSEAL")
}

#[test]
fn a_sealed_snapshot_is_loaded_and_shows_nothing() {
    if !is_carnelian() {
        return;
    }
    let arguments = ["--data-at-rest-encryption", "yes", "--rdbcompression", "no"];
    let mut server = Server::start(&arguments);
    let mut client = server.connect();
    client.expect(&format!("SET key {SECRET}"), "+OK");
    client.expect("SAVE", "+OK");
    let dump = server.folder().join("dump.rdb");
    assert!(is_sealed(&dump));
    assert!(!files(server.folder()).iter().any(|path| has_secret(path)));
    let key_file = server.folder().join("at-rest.key");
    assert_eq!(fs::metadata(&key_file).unwrap().permissions().mode() & 0o777, 0o600);

    server.restart();
    let mut client = server.connect();
    client.eventually("GET key", &format!("{SECRET:?}"));

    client.expect("DEBUG RELOAD", "+OK");
    client.expect("GET key", &format!("{SECRET:?}"));

    // Files are sealed, or not, as it is set when they are begun.
    client.expect("CONFIG SET data-at-rest-encryption no", "+OK");
    client.expect("SAVE", "+OK");
    assert!(!is_sealed(&dump) && has_secret(&dump));
    client.expect("CONFIG SET data-at-rest-encryption yes", "+OK");
    client.expect("SAVE", "+OK");
    assert!(is_sealed(&dump));
}

#[test]
fn a_sealed_append_only_file_is_loaded_and_shows_nothing() {
    if !is_carnelian() {
        return;
    }
    let arguments = ["--data-at-rest-encryption", "yes", "--appendonly", "yes"];
    let mut server = Server::start(&arguments);
    for round in 0..3 {
        let mut client = server.connect();
        client.eventually("LLEN list", &format!(":{round}"));
        client.expect(&format!("RPUSH list {SECRET}"), &format!(":{}", round + 1));
        if round == 1 {
            client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
            while client.info("aof_rewrite_in_progress") != "0" {
                sleep(Duration::from_millis(5));
            }
        }
        server.restart();
    }
    let folder = server.folder().join("appendonlydir");
    for path in files(&folder) {
        assert!(!has_secret(&path), "{}", path.display());
        assert_eq!(is_sealed(&path), !path.to_string_lossy().ends_with(".manifest"));
    }
}

/// What a server says that is started on the files of another, changed in some way.
fn refusal(server: &mut Server, change: impl FnOnce(&Path)) -> String {
    server.signal(carnelian_tests::server::Signal::KILL);
    server.wait();
    change(server.folder());
    let folder = server.folder().display().to_string();
    match Server::starter().args(&["--dir", &folder]).try_start() {
        Err(failure) => failure.output,
        // It answered that it was loading.
        Ok(mut started) => {
            started.wait();
            started.log()
        }
    }
}

#[test]
fn damage_and_wrong_keys_are_named() {
    if !is_carnelian() {
        return;
    }
    let saved = || {
        let server = Server::start(&["--data-at-rest-encryption", "yes"]);
        let mut client = server.connect();
        client.expect("SET key value", "+OK");
        client.expect("SAVE", "+OK");
        server
    };
    let text = refusal(&mut saved(), |folder| {
        let path = folder.join("dump.rdb");
        let mut bytes = fs::read(&path).unwrap();
        bytes[120] ^= 1;
        fs::write(path, bytes).unwrap();
    });
    assert!(text.contains("frame 0, at byte 96, is damaged"), "{text}");
    let text = refusal(&mut saved(), |folder| {
        fs::remove_file(folder.join("at-rest.key")).unwrap();
    });
    assert!(text.contains("at-rest.key cannot be opened: No such file"), "{text}");
    let text = refusal(&mut saved(), |folder| {
        let open = fs::Permissions::from_mode(0o644);
        fs::set_permissions(folder.join("at-rest.key"), open).unwrap();
    });
    assert!(text.contains("at-rest.key is open to others (mode 0644)"), "{text}");
    let text = refusal(&mut saved(), |folder| {
        fs::write(folder.join("at-rest.key"), format!("key {}\n", "7".repeat(64))).unwrap();
    });
    assert!(text.contains("which the key file does not have"), "{text}");
}

#[test]
fn a_full_synchronisation_leaves_nothing_readable_on_either_side() {
    if !is_carnelian() {
        return;
    }
    let arguments = ["--data-at-rest-encryption", "yes", "--rdbcompression", "no"];
    // From a file, and into one.
    let by_file = ["--repl-diskless-sync", "no", "--repl-diskless-load", "disabled"];
    let start = || Server::start(&[&arguments[..], &by_file].concat());
    let (primary, mut replica) = (start(), start());
    let mut there = primary.connect();
    for number in 0..2000 {
        there.expect(&format!("SET key{number} {SECRET}"), "+OK");
    }
    // It takes its time, so that the file can be looked at while it grows.
    there.expect("CONFIG SET rdb-key-save-delay 1000", "+OK");
    let mut here = replica.connect();
    here.expect(&format!("REPLICAOF 127.0.0.1 {}", primary.port()), "+OK");
    let temporary = |server: &Server| {
        let is_one = |path: &PathBuf| path.to_string_lossy().contains("/temp-");
        let mut all = files(server.folder());
        all.retain(is_one);
        all.into_iter().filter_map(|path| fs::read(path).ok()).find(|bytes| !bytes.is_empty())
    };
    let mut grown = None;
    while grown.is_none() {
        grown = temporary(&primary);
        assert_ne!(here.info("master_link_status"), "up", "no file was seen");
    }
    assert!(grown.is_some_and(|bytes| bytes.starts_with(b"CARNSEAL")));
    there.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    here.eventually("GET key1999", &format!("{SECRET:?}"));
    for server in [&primary, &replica] {
        assert!(!files(server.folder()).iter().any(|path| has_secret(path)));
    }
    // What was received is what a restart loads.
    assert!(is_sealed(&replica.folder().join("dump.rdb")));
    replica.restart();
    replica.connect().eventually("GET key1999", &format!("{SECRET:?}"));
}
