//! The append-only file: what was acknowledged is there after a crash, files cross to other servers, and
//! trouble with the disk is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Reply, Server, is_carnelian, require_or_skip};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const ON: [&str; 2] = ["--appendonly", "yes"];

fn start(more: &[&str]) -> Server {
    Server::starter().args(&ON).args(more).start()
}

fn text(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => other.to_string(),
    }
}

fn info(client: &mut Client, field: &str) -> String {
    let page = text(&client.call("INFO persistence"));
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field} in {page}")).trim().to_owned()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn rewrite(client: &mut Client) {
    client.expect("BGREWRITEAOF", "+Background append only file rewriting started");
    wait_for_rewrite(client);
}

fn wait_for_rewrite(client: &mut Client) {
    wait_until("the end of the rewrite", || {
        info(client, "aof_rewrite_in_progress") == "0"
            && info(client, "aof_rewrite_scheduled") == "0"
    });
    assert_eq!(info(client, "aof_last_bgrewrite_status"), "ok");
}

fn digest(client: &mut Client) -> String {
    client.call("DEBUG DIGEST").to_string()
}

fn parts(server: &Server) -> PathBuf {
    server.folder().join("appendonlydir")
}

fn manifest(server: &Server) -> String {
    fs::read_to_string(parts(server).join("appendonly.aof.manifest")).expect("a manifest")
}

/// Values of every type, in small and large encodings, functions included.
fn fill(client: &mut Client) {
    client.script(
        "SET text hello => +OK
        SET number 12345 => +OK
        SET expiring x PX 100000000 => +OK
        APPEND text world => :10
        RPUSH list a b c d => :4
        SADD ints 1 2 3 => :3
        SADD words a b c => :3
        ZADD sorted 1 a 2.5 b inf c => :3
        HSET hash f v g w => :2
        XADD stream 5-5 field value => 5-5
        XGROUP CREATE stream group 0 => +OK
        PFADD counter a b c => :1
        SETBIT bits 1000 1 => :0
        SELECT 3 => +OK
        SET elsewhere 1 => +OK
        SELECT 0 => +OK",
    );
    client.call("SPOP words");
    client.call("XREADGROUP GROUP group me COUNT 1 STREAMS stream >");
    client.call(
        "EVAL \"for i=1,300 do redis.call('rpush','long',i) redis.call('hset','wide',i,i) end\" 0",
    );
    client.call_words(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('one', function() return 1 end)",
    ]);
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    const CLIENTS: usize = 4;

    let mut server = start(&["--appendfsync", "always"]);
    let mut counts = [0u64; CLIENTS];
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        let is_enough = AtomicBool::new(false);
        scope(|scope| {
            let write = |(number, client, count): (usize, &mut Client, &mut u64)| {
                let request = format!("*2\r\n$4\r\nINCR\r\n$1\r\n{number}\r\n");
                while client.try_send(request.as_bytes()).is_ok() {
                    let Ok(reply) = client.try_read() else { break };
                    *count = reply.to_string().trim_start_matches(':').parse().expect("a number");
                    if 200 <= *count {
                        is_enough.store(true, Ordering::Relaxed);
                    }
                }
            };
            for (number, (client, count)) in clients.iter_mut().zip(&mut counts).enumerate() {
                scope.spawn(move || write((number, client, count)));
            }
            wait_until("writes", || is_enough.load(Ordering::Relaxed));
            server.kill();
        });
        server.start_again().expect("a start");
        let mut client = server.connect();
        for (number, count) in counts.iter_mut().enumerate() {
            let kept: u64 = text(&client.call(&format!("GET {number}"))).parse().expect("a number");
            // One more may have been written and not answered.
            assert!(*count <= kept && kept <= *count + 1, "{count} {kept}");
            *count = kept;
        }
    }
}

#[test]
fn a_rewrite_under_writes_gives_the_same_data() {
    let mut server = start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        for number in 0..3 {
            let mut writer = server.connect();
            let is_over = &is_over;
            scope.spawn(move || {
                for round in 0u64.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    writer.call(&format!("RPUSH list{number} {round}"));
                    writer.call(&format!("HINCRBY hash{} {round} 1", round % 7));
                    writer.call(&format!("SET key{} {round}", round % 1000));
                    writer.call("LMOVE list0 list1 LEFT RIGHT");
                }
            });
        }
        for _ in 0..4 {
            rewrite(&mut client);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let before = digest(&mut client);
    client.expect("DEBUG LOADAOF", "+OK");
    assert_eq!(digest(&mut client), before);
    server.restart();
    let mut client = server.connect();
    assert_eq!(digest(&mut client), before);
    client.expect("FCALL one 0", ":1");
    rewrite(&mut client);
    server.restart();
    assert_eq!(digest(&mut server.connect()), before);
    let entries = manifest(&server);
    assert_eq!(entries.lines().count(), 2, "{entries}");
}

#[test]
fn a_base_of_commands_holds_the_same_data() {
    let mut server = start(&["--aof-use-rdb-preamble", "no", "--aof-timestamp-enabled", "yes"]);
    let mut client = server.connect();
    fill(&mut client);
    rewrite(&mut client);
    client.call("SET after 1");
    let before = digest(&mut client);
    server.restart();
    assert_eq!(digest(&mut server.connect()), before);
    assert!(manifest(&server).contains("appendonly.aof.2.base.aof seq 2 type b"));
    let base = fs::read(parts(&server).join("appendonly.aof.2.base.aof")).expect("a base");
    assert!(base.starts_with(b"#TS:"));
    server.connect().expect("FCALL one 0", ":1");
}

/// Ends `from`, starts `program` on its files, and returns the digest and how many keys there are.
fn taken_over_by(program: &Path, from: &mut Server) -> (String, String) {
    from.kill();
    let folder = from.folder().to_string_lossy().into_owned();
    let to = Server::starter_of(program).args(&ON).args(&["--dir", &folder]).start();
    let mut client = to.connect();
    (digest(&mut client), client.call("DBSIZE").to_string())
}

#[test]
fn files_cross_to_other_servers_and_back() {
    let Some(peer) = require_or_skip("redis-server") else { return };
    let ours = carnelian_tests::server::program();
    for (from, to) in [(ours, &*peer), (&*peer, ours)] {
        // Debian's server reads no newer one.
        let version: &[&str] = if from == ours { &["--rdb-version", "10"] } else { &[] };
        let mut server = Server::starter_of(from).args(&ON).args(version).start();
        let mut client = server.connect();
        fill(&mut client);
        rewrite(&mut client);
        client.call("LPOP long 5");
        client.call("HDEL wide 1 2 3");
        client.call("DEL ints");
        let before = (digest(&mut client), client.call("DBSIZE").to_string());
        client.call("DEBUG AOF-FLUSH-SLEEP 0");
        client.call("CONFIG SET appendfsync always");
        client.call("SET last 1");
        client.call("DEL last");
        assert_eq!(taken_over_by(to, &mut server), before, "{}", to.display());
        if let Some(check) = carnelian_tests::peers::find("redis-check-aof") {
            let path = parts(&server).join("appendonly.aof.manifest");
            let output = Command::new(check).arg(path).output().expect("a program");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{said}");
            assert!(said.ends_with("All AOF files and manifest are valid\n"), "{said}");
        }
    }
}

#[test]
fn it_is_turned_on_and_off_while_the_server_runs() {
    let mut server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    assert_eq!(info(&mut client, "aof_enabled"), "0");
    client.expect("CONFIG SET appendonly yes", "+OK");
    assert_eq!(info(&mut client, "aof_enabled"), "1");
    wait_for_rewrite(&mut client);
    client.expect("SET a 1", "+OK");
    client.expect("CONFIG SET appendonly no", "+OK");
    client.expect("SET lost 1", "+OK");
    assert_eq!(info(&mut client, "aof_enabled"), "0");
    client.script(
        "MULTI => +OK
        CONFIG SET appendonly yes => +QUEUED
        SET b 1 => +QUEUED
        EXEC => [+OK +OK]",
    );
    wait_for_rewrite(&mut client);
    wait_until("the file to be whole", || manifest(&server).contains("type i"));
    client.expect("SET c 1", "+OK");
    let before = digest(&mut client);
    client.expect("DEBUG LOADAOF", "+OK");
    assert_eq!(digest(&mut client), before);
    client.expect("CONFIG REWRITE", "-ERR The server is running without a config file");
    server.signal(carnelian_tests::server::Signal::TERM);
    server.wait();
    let folder = server.folder().to_string_lossy().into_owned();
    let again = start(&["--dir", &folder]);
    assert_eq!(digest(&mut again.connect()), before);
}

#[test]
fn a_transaction_that_configures_waits_for_a_change_that_needs_its_keys() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut first = server.connect();
    // One of them is not on the same reactor.
    let mut others = [server.connect(), server.connect()];
    first.expect("DEBUG SET-DISABLE-DENY-SCRIPTS 1", "+OK");
    let script = "redis.call('set', 'k', 'v') \
                  return redis.call('config', 'set', 'maxmemory-samples', '7')";
    for round in 0..2 {
        first.expect("CONFIG SET appendonly yes", "+OK");
        wait_for_rewrite(&mut first);
        // The end of the file takes so long that the others come while it is under way.
        first.expect("DEBUG AOF-FLUSH-SLEEP 300000", "+OK");
        first.expect("SET a 1", "+OK");
        first.send(b"CONFIG SET appendonly no\r\n");
        for client in &mut others {
            if round == 0 {
                client.send(b"MULTI\r\nSET k v\r\nCONFIG SET maxmemory-samples 6\r\n");
                client.send(b"CONFIG REWRITE\r\nEXEC\r\n");
            } else {
                client.send_words(&["EVAL", script, "0"]);
            }
        }
        first.expect_next("+OK");
        for client in &mut others {
            if round == 0 {
                for reply in ["+OK", "+QUEUED", "+QUEUED", "+QUEUED"] {
                    client.expect_next(reply);
                }
                // There is no file to rewrite.
                assert_eq!(client.read().elements().len(), 3);
            } else {
                client.expect_next("+OK");
            }
        }
    }
}

#[test]
fn a_rewrite_waits_for_a_snapshot() {
    let server = start(&["--rdb-key-save-delay", "10000000"]);
    let mut client = server.connect();
    client.expect("SET a 1", "+OK");
    client.expect("BGSAVE", "+Background saving started");
    client.expect("BGREWRITEAOF", "+Background append only file rewriting scheduled");
    assert_eq!(info(&mut client, "aof_rewrite_scheduled"), "1");
    client.expect("CONFIG SET rdb-key-save-delay 0", "+OK");
    wait_for_rewrite(&mut client);
    client.expect("MULTI", "+OK");
    client.expect("BGREWRITEAOF", "+QUEUED");
    client.expect("EXEC", "[?]");
    wait_for_rewrite(&mut client);
}

#[test]
fn it_is_rewritten_when_it_has_grown() {
    let server =
        start(&["--auto-aof-rewrite-min-size", "10kb", "--auto-aof-rewrite-percentage", "100"]);
    let mut client = server.connect();
    let value = "x".repeat(1000);
    for _ in 0..30 {
        client.expect(&format!("SET a {value}"), "+OK");
    }
    wait_until("a rewrite", || manifest(&server).contains("2.base.rdb"));
    assert!(server.log().contains("Starting automatic rewriting of AOF on "));
}

#[test]
fn a_torn_end_is_cut_off_and_damage_is_refused() {
    let mut server = start(&[]);
    let mut client = server.connect();
    client.expect("SET a 1", "+OK");
    client.expect("MULTI", "+OK");
    client.expect("SET b 1", "+QUEUED");
    client.expect("SET c 1", "+QUEUED");
    client.expect("EXEC", "[+OK +OK]");
    server.signal(carnelian_tests::server::Signal::TERM);
    server.wait();
    let path = parts(&server).join("appendonly.aof.1.incr.aof");
    let whole = fs::read(&path).expect("a file");
    fs::write(&path, &whole[..whole.len() - 20]).expect("a file");
    server.start_again().expect("a start");
    let mut client = server.connect();
    client.expect("MGET a b c", "[1 nil nil]");
    client.expect("SET d 1", "+OK");
    let log = server.log();
    assert!(log.contains("short read while loading the AOF file appendonly.aof.1.incr.aof!!!"));
    assert!(log.contains("loaded anyway because aof-load-truncated is enabled"), "{log}");
    server.restart();
    server.connect().expect("MGET a b d", "[1 nil 1]");

    server.kill();
    let mut damaged = fs::read(&path).expect("a file");
    damaged[0] = b'?';
    fs::write(&path, &damaged).expect("a file");
    let failure = server.start_again().expect_err("damage");
    assert_eq!(failure.status.and_then(|status| status.code()), Some(1));
    let expected = "Bad file format reading the append only file appendonly.aof.1.incr.aof";
    assert!(failure.output.contains(expected), "{}", failure.output);
    assert_eq!(fs::read(&path).expect("a file"), damaged);
}

#[test]
fn an_old_file_of_a_single_part_is_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("appendonly.aof");
    fs::write(&path, "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").expect("a file");
    let server = start(&["--dir", &folder.path().to_string_lossy()]);
    server.connect().expect("GET a", "1");
    assert!(!path.exists() && folder.path().join("appendonlydir/appendonly.aof").exists());
}

#[test]
fn what_had_expired_meanwhile_does_not_come_back() {
    let mut server = start(&["--appendfsync", "always"]);
    let mut client = server.connect();
    client.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    client.expect("SET a 1 PX 300", "+OK");
    client.expect("APPEND a 2", ":2");
    client.expect("HSET h f v", ":1");
    client.expect("PEXPIRE h 300", ":1");
    client.expect("HSET h g w", ":1");
    server.kill();
    sleep(Duration::from_millis(400));
    server.start_again().expect("a start");
    server.connect().expect("EXISTS a h", ":0");
}

/// The commands of the files that commands are appended to, each on a line.
fn appended(server: &Server) -> String {
    let files =
        fs::read_dir(parts(server)).expect("a folder").map(|file| file.expect("one").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).collect();
    files.sort();
    let mut lines = String::new();
    for file in files {
        let bytes = fs::read(file).expect("a file");
        let mut rest = bytes.as_slice();
        while let Some((reply, length)) = Reply::parse(rest).expect("whole commands") {
            let words: Vec<String> = reply.elements().iter().map(|word| word.text()).collect();
            lines += &(words.join(" ") + "\n");
            rest = &rest[length..];
        }
    }
    lines
}

#[test]
fn fields_that_expire_are_told_one_by_one() {
    let server = start(&["--appendfsync", "always"]);
    let mut client = server.connect();
    client.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    for key in ["found", "swept"] {
        client.expect(&format!("HSET {key} a 1 b 2 c 3"), ":3");
        client.expect(&format!("HPEXPIRE {key} 1 FIELDS 2 a b"), "[:1 :1]");
    }
    client.eventually("HRANDFIELD found 3", "[c]");
    client.expect("DEBUG SET-ACTIVE-EXPIRE 1", "+OK");
    client.eventually("HLEN swept", ":1");
    client.expect("SET end 1", "+OK");
    let told = appended(&server);
    // They went at the same time, in whichever order.
    let told = told.replace(" b\n", " a\n");
    let expected =
        "MULTI\nHDEL found a\nHDEL found a\nEXEC\nHDEL swept a\nHDEL swept a\nSET end 1\n";
    assert!(told.ends_with(expected), "{told}");
}

/// `propagation-error-behavior`: what the file says fails.
#[test]
fn a_command_of_the_file_that_fails_is_told_and_may_end_the_process() {
    let mut server = start(&["--appendfsync", "always"]);
    let mut client = server.connect();
    client.expect("SET k v", "+OK");
    server.kill();
    let file = parts(&server).join("appendonly.aof.1.incr.aof");
    let mut text = fs::read(&file).expect("a file");
    text.extend_from_slice(b"*3\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n$1\r\nx\r\n");
    fs::write(&file, &text).expect("it can be written");
    server.start_again().expect("it goes on");
    let mut client = server.connect();
    client.expect("GET k", "v");
    assert_eq!(client.info("unexpected_error_replies"), "1");
    let error = "This AOF-loading-client is sending an error to its server: 'WRONGTYPE";
    assert!(server.log().contains(error), "{}", server.log());
    client.expect("CONFIG RESETSTAT", "+OK");
    assert_eq!(client.info("unexpected_error_replies"), "0");
    drop(client);
    server.kill();
    let folder = server.folder().to_string_lossy().into_owned();
    let strict = Server::starter()
        .args(&ON)
        .args(&["--dir", &folder, "--propagation-error-behavior", "panic"])
        .try_start();
    assert!(strict.is_err());
}

/// Lets the files of a process grow so far only.
fn limit_files(server: &Server, bytes: Option<u64>) {
    let pid = Pid::from_raw(server.pid().try_into().expect("a pid"));
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("a limit");
}

#[test]
fn writes_are_refused_while_the_disk_is_full_and_taken_when_it_is_not() {
    if !is_carnelian() {
        return; // Redis may not lower its own limits, and ends with `always`.
    }
    for fsync in ["everysec", "always"] {
        // The signal that comes with the limit is ignored, as it is with a full disk.
        let mut server = Server::starter()
            .through(&["bash", "-c", "trap '' XFSZ; exec \"$@\"", "-"])
            .args(&ON)
            .args(&["--appendfsync", fsync, "--logfile", ""])
            .start();
        let mut client = server.connect();
        client.expect("SET a 1", "+OK");
        limit_files(&server, Some(64 << 10));
        let mut writer = server.connect();
        let value = "x".repeat(4000);
        for number in 0..40 {
            writer.send(format!("SET key{number} {value}\r\n").as_bytes());
        }
        wait_until("the trouble", || info(&mut client, "aof_last_write_status") == "err");
        let expected = "-MISCONF Errors writing to the AOF file: File too large";
        client.expect("SET b 1", expected);
        client.expect("GET a", "1");
        client.expect("PING", expected);
        limit_files(&server, None);
        wait_until("room", || info(&mut client, "aof_last_write_status") == "ok");
        client.expect("SET b 1", "+OK");
        let before = digest(&mut client);
        server.signal(carnelian_tests::server::Signal::TERM);
        server.wait();
        assert!(server.log().contains("AOF write error looks solved, Redis can write again."));
        server.start_again().expect("a start");
        assert_eq!(digest(&mut server.connect()), before);
    }
}

#[test]
fn who_waits_for_a_disk_that_stays_full_is_disconnected() {
    if !is_carnelian() {
        return; // Redis ends with `always`.
    }
    let mut server = Server::starter()
        .through(&["bash", "-c", "trap '' XFSZ; exec \"$@\"", "-"])
        .args(&ON)
        .args(&["--appendfsync", "always", "--logfile", ""])
        .start();
    let mut reader = server.connect();
    reader.expect("SET a 1", "+OK");
    limit_files(&server, Some(64 << 10));
    let mut writer = server.connect();
    let value = "x".repeat(70_000);
    writer.send_words(&["SET", "big", &value]);
    writer.send(b"GET a\r\n");
    wait_until("the trouble", || info(&mut reader, "aof_last_write_status") == "err");
    assert_eq!(writer.read_to_close(), b"", "neither the write nor what follows it is answered");
    let line = "closing the connections of clients that wait for their writes to be on disk";
    assert!(server.log().contains(line), "{}", server.log());
    // Who has written nothing since goes on, and nobody new can begin to wait.
    reader.expect("GET a", "1");
    let refused = "-MISCONF Errors writing to the AOF file: File too large";
    server.connect().expect("SET b 1", refused);
    limit_files(&server, None);
    wait_until("room", || info(&mut reader, "aof_last_write_status") == "ok");
    reader.expect("SET b 1", "+OK");
    let before = digest(&mut reader);
    server.kill();
    server.start_again().expect("a start");
    let mut reader = server.connect();
    assert_eq!(digest(&mut reader), before);
    reader.expect("STRLEN big", ":70000");
}
