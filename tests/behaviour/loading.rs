//! Loading the snapshot at the start: while it goes on, what a damaged file does, and files that cross
//! to other servers and back.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use carnelian_tests::server::{Ready, Signal, program};
use carnelian_tests::{Client, Server, is_carnelian, peers};

/// Keys of every type and of nearly every encoding, in two logical databases.
const DATA: &str = "
    SET int 12345
    SET embstr hello
    SETRANGE raw 3000 compressible
    SET temporary soon PXAT 1900000000000
    RPUSH list a 1 -5000 ''
    RPUSH longlist aaaaaaaaaaaaaaaaaaaa b c d e f 7 88888 -1
    SADD intset 1 -70000 99999999999
    SADD set a b 5
    ZADD sorted 1 a 2.5 b -inf c inf d 0.125 e
    HSET hash a 1 b two
    XADD stream 1-1 a 1 b 2
    XADD stream 1-2 a 3 b 4
    XADD stream 5-0 other field
    XGROUP CREATE stream group 1-1
    XREADGROUP GROUP group ann COUNT 1 STREAMS stream >
    PFADD counter a b c d e f
    CONFIG SET list-max-listpack-size 3 list-compress-depth 1 set-max-listpack-entries 2
    CONFIG SET zset-max-listpack-entries 2 hash-max-listpack-entries 2 set-max-intset-entries 2
    RPUSH quicklist a b c d e f g h i j k l m n o p q r s t u v w x y z
    SADD hashtable a b 5
    SADD integers 1 2 3 400000
    ZADD skiplist 1 a 2.5 b -inf c 40000000000 d
    HSET bighash a 1 b two c 3
    SELECT 9
    SET other 1
    SELECT 0
";

const LIBRARY: &str = "#!lua name=mine\nredis.register_function('one', function() return 1 end)";

fn fill(client: &mut Client) {
    for line in DATA.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let reply = client.call(line);
        assert!(!reply.to_string().starts_with('-'), "{line}: {reply}");
    }
    client.call_words(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
}

/// What is in the server, as commands show it.
const LOOKS: &[&str] = &[
    "DBSIZE",
    "GET int",
    "GET embstr",
    "GET raw",
    "GET temporary",
    "PEXPIRETIME temporary",
    "LRANGE list 0 -1",
    "LRANGE longlist 0 -1",
    "LRANGE quicklist 0 -1",
    "SORT intset",
    "SORT set ALPHA",
    "SORT hashtable ALPHA",
    "SORT integers",
    "ZRANGE sorted 0 -1 WITHSCORES",
    "ZRANGE skiplist 0 -1 WITHSCORES",
    "HMGET hash a b",
    "HMGET bighash a b c",
    "HLEN bighash",
    "XRANGE stream - +",
    "XINFO GROUPS stream",
    "XPENDING stream group",
    "PFCOUNT counter",
    "SELECT 9",
    "DBSIZE",
    "GET other",
    "SELECT 0",
];

fn content(client: &mut Client) -> String {
    let replies = LOOKS.iter().map(|look| format!("{look}: {}\n", client.call(look)));
    replies.collect()
}

/// A folder with a file of this name in it.
fn folder_with(file: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("dump.rdb"), file).expect("a writable folder");
    folder
}

fn saved(server: &Server, client: &mut Client) -> Vec<u8> {
    client.expect("SAVE", "+OK");
    fs::read(server.folder().join("dump.rdb")).expect("a snapshot")
}

/// Starts a server on a snapshot.
fn started(program: &Path, file: &[u8], args: &[&str]) -> (Server, tempfile::TempDir) {
    let folder = folder_with(file);
    let path = folder.path().to_string_lossy().into_owned();
    let server = Server::starter_of(program).args(&["--dir", &path]).args(args).start();
    server.connect().eventually("PING", "+PONG");
    (server, folder)
}

#[test]
fn data_survives_a_restart() {
    let mut server = Server::start(&["--save", "''"]);
    let mut client = server.connect();
    fill(&mut client);
    let expected = content(&mut client);
    saved(&server, &mut client);
    server.restart();
    let mut client = server.connect();
    client.eventually("PING", "+PONG");
    assert_eq!(content(&mut client), expected);
    client.expect("FCALL one 0", ":1");
    client.expect("OBJECT ENCODING intset", "intset");
    assert_eq!(client.info("rdb_last_load_keys_loaded"), "18");
    let log = server.log();
    for line in ["Loading RDB produced by version", "Done loading RDB", "DB loaded from disk"] {
        assert!(log.contains(line), "{line} in:\n{log}");
    }
}

#[test]
fn files_cross_to_other_servers_and_back() {
    if !is_carnelian() {
        return;
    }
    let ours = Server::start(&["--save", "''"]);
    let mut client = ours.connect();
    fill(&mut client);
    let expected = content(&mut client);
    for name in ["redis-server", "valkey-server"] {
        let Some(peer) = peers::find(name) else { continue };
        // 7.0 reads no version above 10.
        let is_old =
            Server::starter_of(&peer).start().connect().info("redis_version").starts_with("7.0");
        client.expect(&format!("CONFIG SET rdb-version {}", if is_old { 10 } else { 11 }), "+OK");
        let file = saved(&ours, &mut client);
        let (theirs, folder) = started(&peer, &file, &["--save", "''"]);
        let mut client = theirs.connect();
        let version = client.info("redis_version");
        assert_eq!(content(&mut client), expected, "{name} {version}");
        client.expect("FCALL one 0", ":1");
        if client.call("COMMAND INFO hexpire").elements()[0].is_null() {
            continue;
        }
        client.call("HPEXPIREAT hash 1900000000000 FIELDS 1 a");
        client.call("HPEXPIREAT bighash 1900000000000 FIELDS 1 a");
        client.call("CONFIG SET maxmemory-policy allkeys-lru");
        client.expect("SAVE", "+OK");
        let back = fs::read(folder.path().join("dump.rdb")).expect("a snapshot");
        let (again, _folder) = started(program(), &back, &["--save", "''"]);
        let mut here = again.connect();
        assert_eq!(content(&mut here), content(&mut client), "{name} {version}");
        here.expect("HPEXPIRETIME hash FIELDS 2 a b", "[:1900000000000 :-1]");
        here.expect("FCALL one 0", ":1");
    }
}

#[test]
fn old_versions_are_written_for_old_servers() {
    if !is_carnelian() {
        return;
    }
    // Debian's own, beside which a newer one may be installed.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let old = std::env::split_paths(&paths).map(|path| path.join("redis-server"));
    let Some(old) = old.into_iter().find(|path| path.is_file()) else { return };
    let ours = Server::start(&["--save", "''", "--rdb-version", "10"]);
    let mut client = ours.connect();
    fill(&mut client);
    let file = saved(&ours, &mut client);
    assert_eq!(&file[..9], b"REDIS0010");
    let (theirs, _folder) = started(&old, &file, &["--save", "''"]);
    assert_eq!(content(&mut theirs.connect()), content(&mut client));
}

/// It takes long, and clients are let in meanwhile.
const LOADING: Ready = Ready::Log("RDB memory usage when created");

#[test]
fn clients_are_told_to_wait_while_it_loads() {
    let server = Server::start(&["--save", "''", "--rdbcompression", "no"]);
    let mut client = server.connect();
    client.expect("DEBUG POPULATE 20000 key 500", "+OK");
    let file = saved(&server, &mut client);
    let folder = folder_with(&file);
    let path = folder.path().to_string_lossy().into_owned();
    let slow = ["--dir", &path, "--save", "''", "--key-load-delay", "5000"];
    let server = Server::starter().args(&slow).ready_when(LOADING).start();
    let mut client = server.connect();
    client.expect("GET key:1", "-LOADING Redis is loading the dataset in memory");
    client.expect("SET key:1 a", "-LOADING Redis is loading the dataset in memory");
    client.expect("MULTI", "+OK");
    client.expect("GET key:1", "-LOADING Redis is loading the dataset in memory");
    client.expect("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(client.info("loading"), "1");
    let total: u64 = client.info("loading_total_bytes").parse().expect("a number");
    assert_eq!(total, file.len() as u64);
    for field in ["loading_start_time", "loading_loaded_perc", "loading_eta_seconds"] {
        assert!(!client.info(field).is_empty(), "{field}");
    }
    client.expect("CONFIG SET dir /tmp", "-LOADING Redis is loading the dataset in memory");
    client.expect("CONFIG SET loglevel debug", "+OK");
    assert!(!server.log().contains("Ready to accept"));
    client.expect("CONFIG SET key-load-delay 0", "+OK");
    client.eventually("DBSIZE", ":20000");
    assert_eq!(client.info("loading"), "0");
    client.expect("STRLEN key:19999", ":500");
}

#[test]
fn a_signal_ends_it_while_it_loads() {
    let server = Server::start(&["--save", "''"]);
    let mut client = server.connect();
    client.expect("DEBUG POPULATE 20000", "+OK");
    let file = saved(&server, &mut client);
    let folder = folder_with(&file);
    let path = folder.path().to_string_lossy().into_owned();
    // With save points, what is half there must not take the place of what is whole.
    let slow = ["--dir", &path, "--save", "1 1", "--key-load-delay", "5000"];
    let mut server = Server::starter().args(&slow).ready_when(LOADING).start();
    server.connect().expect("GET key:1", "-LOADING Redis is loading the dataset in memory");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(fs::read(folder.path().join("dump.rdb")).expect("it is there"), file);
}

#[test]
fn a_damaged_file_ends_the_start() {
    let server = Server::start(&["--save", "''"]);
    let mut client = server.connect();
    fill(&mut client);
    let file = saved(&server, &mut client);
    let refused = |file: &[u8]| {
        let folder = folder_with(file);
        let path = folder.path().to_string_lossy().into_owned();
        // It may be up for a moment, to tell clients to wait.
        let (status, log) = match Server::starter().args(&["--dir", &path]).try_start() {
            Ok(mut server) => (server.wait(), server.log()),
            Err(failure) => (failure.status.expect("it has ended"), failure.output),
        };
        assert_eq!(status.code(), Some(1), "{log}");
        log
    };
    let mut changed = file.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let log = refused(&changed);
    assert!(log.contains("Wrong RDB checksum expected") && log.contains("CRC error"), "{log}");
    assert!(log.contains("Terminating server after rdb file reading failure."), "{log}");
    let log = refused(&file[..file.len() / 2]);
    assert!(log.contains("Short read or OOM loading DB"), "{log}");
    assert!(log.contains("Internal error in RDB reading offset"), "{log}");
    let log = refused(b"RUBBISH001");
    assert!(log.contains("Wrong signature trying to load DB from file"), "{log}");
    assert!(log.contains("Fatal error loading the DB, check server logs. Exiting."), "{log}");
    let log = refused(b"REDIS9999");
    assert!(log.contains("Can't handle RDB format version 9999"), "{log}");
}

#[test]
fn keys_without_elements_are_passed_over() {
    let file = b"REDIS0009\x02\x05empty\x00\x00\x01k\x01v\xFF\0\0\0\0\0\0\0\0";
    let (server, _folder) = started(program(), file, &[]);
    let mut client = server.connect();
    client.expect("DBSIZE", ":1");
    let log = server.log();
    assert!(log.contains("skipping empty key: empty"), "{log}");
    assert!(log.contains("empty keys skipped: 1"), "{log}");
    assert!(log.contains("RDB file was saved with checksum disabled"), "{log}");
}

/// Runs a program on a snapshot.
fn checked(program: &Path, file: &[u8]) -> (Output, String) {
    let folder = folder_with(file);
    let path = folder.path().join("dump.rdb");
    let output = Command::new(program).arg(&path).output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout).replace(&*path.to_string_lossy(), "FILE");
    (output, text)
}

#[test]
fn it_checks_files_under_the_name_of_the_tool() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--save", "''", "--rdb-version", "10"]);
    let mut client = server.connect();
    fill(&mut client);
    let file = saved(&server, &mut client);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tool: PathBuf = folder.path().join("redis-check-rdb");
    symlink(program(), &tool).expect("a link");
    let (output, ours) = checked(&tool, &file);
    assert_eq!(output.status.code(), Some(0));
    assert!(ours.contains("\\o/ RDB looks OK! \\o/"), "{ours}");
    let (output, broken) = checked(&tool, &file[..100]);
    assert_eq!(output.status.code(), Some(1));
    assert!(broken.contains("--- RDB ERROR DETECTED ---"), "{broken}");
    // The real one says the same of our files.
    if let Some(theirs) = peers::find("redis-check-rdb") {
        let (output, theirs) = checked(&theirs, &file);
        assert_eq!(output.status.code(), Some(0), "{theirs}");
        let comparable = |text: &str| {
            let lines: Vec<_> = text.lines().filter(|line| !line.contains("subexpires")).collect();
            lines.join("\n")
        };
        assert_eq!(comparable(&ours), comparable(&theirs));
    }
}
