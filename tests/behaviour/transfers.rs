//! Exports, imports and backups of databases, asked for over the REST interface: what is in the files, who has the data
//! afterwards, and how it ends where it cannot be done.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use carnelian_tests::cluster::{Member, PASSWORD};
use carnelian_tests::server::{Server, Signal, free_port};
use carnelian_tests::{Client, is_carnelian, peers};
use serde_json::{Value, json};

/// A database of a node, and its path.
fn make(member: &Member, name: &str, more: &Value) -> (String, u16) {
    let port = free_port();
    let mut spec = json!({"name": name, "memory_size": 100 << 20, "port": port});
    for (field, value) in more.as_object().expect("an object") {
        spec[field] = value.clone();
    }
    let uid = member.change("POST", "/v1/bdbs", &spec)["uid"].clone();
    let path = format!("/v1/bdbs/{uid}");
    member.eventually(&path, |database| database["status"] == "active");
    (path, port)
}

fn start(member: &Member, path: &str, what: &str, body: &Value) {
    assert_eq!(member.change("POST", &format!("{path}/actions/{what}"), body), json!({}));
}

/// Until it is over: the database as it is then.
#[track_caller]
fn ended(member: &Member, path: &str, what: &str) -> Value {
    let field = format!("{what}_status");
    member.eventually(path, |database| {
        ["succeeded", "failed"].contains(&database[&field].as_str().unwrap_or_default())
    })
}

#[track_caller]
fn succeeds(member: &Member, path: &str, what: &str, body: &Value) -> Value {
    start(member, path, what, body);
    let database = ended(member, path, what);
    let said = [&database[format!("{what}_status")], &database[format!("{what}_failure_reason")]];
    assert_eq!(said, [&json!("succeeded"), &json!("")], "{}", member.server.log());
    assert_eq!(database[format!("{what}_progress")], json!(100.0));
    assert_eq!(database["status"], "active");
    database
}

#[track_caller]
fn fails(member: &Member, path: &str, what: &str, body: &Value) -> String {
    start(member, path, what, body);
    let database = ended(member, path, what);
    assert_eq!(database[format!("{what}_status")], "failed");
    assert_eq!(database["status"], "active");
    database[format!("{what}_failure_reason")].as_str().unwrap_or_default().to_owned()
}

fn export_to(folder: &Path) -> Value {
    json!({"export_location": {"type": "mount_point", "path": folder}})
}

fn import_of(files: &[PathBuf]) -> Value {
    let source = |path: &PathBuf| json!({"type": "mount_point", "path": path});
    json!({"dataset_import_sources": files.iter().map(source).collect::<Vec<_>>()})
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("a folder").map(|it| it.expect("an entry").path()).collect();
    files.sort();
    files
}

/// Values of all sorts.
fn fill(client: &mut Client) {
    let lines = "
        SET text value => +OK
        SET soon value EX 100000 => +OK
        RPUSH list a b c => :3
        SADD set 1 2 three => :3
        ZADD ranked 1 a 2.5 b => :2
        HSET map field value => :1
        SELECT 3 => +OK
        SET other value => +OK
        SELECT 0 => +OK
    ";
    client.script(lines);
    client.call("XADD stream 1-1 field value");
    client.call_words(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=mine\nredis.register_function('f', function() return 7 end)",
    ]);
    for number in 0..300 {
        client.call_words(&["SET", &format!("key:{number}"), &"x".repeat(number)]);
    }
}

fn digest(client: &mut Client) -> String {
    client.call("DEBUG DIGEST").text()
}

#[test]
fn what_is_exported_is_redis_own_format_and_can_be_imported_elsewhere() {
    if !is_carnelian() {
        return;
    }
    let member = Member::create(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (from, port) = make(&member, "from-here", &json!({}));
    let mut client = member.client(port);
    fill(&mut client);
    let expected = digest(&mut client);
    // So that older ones read it too.
    client.expect("CONFIG SET rdb-version 10", "+OK");
    let shown = member.get(&from);
    assert_eq!((&shown["export_status"], &shown["last_export_time"]), (&json!(""), &json!("")));

    let shown = succeeds(&member, &from, "export", &export_to(folder.path()));
    assert!(shown["last_export_time"].as_str().is_some_and(|at| at.ends_with('Z')), "{shown}");
    let files = files_in(folder.path());
    let [file] = &files[..] else { panic!("{files:?}") };
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.starts_with("from-here-") && name.ends_with(".rdb"), "{name}");
    // Another one leaves the first alone.
    succeeds(&member, &from, "export", &export_to(folder.path()));
    let both = files_in(folder.path());
    assert!(both.len() == 2 && both.contains(file), "{both:?}");

    // Redis reads it.
    if let Some(redis) = peers::require_or_skip("redis-server") {
        let server = Server::starter_of(&redis)
            .args(&["--dir", &folder.path().display().to_string(), "--dbfilename", &name])
            .start();
        assert_eq!(digest(&mut server.connect()), expected);
    }

    // What was there is replaced; clients stay, and hear of it.
    let (to, port) = make(&member, "to-there", &json!({}));
    let mut client = member.client(port);
    client.expect("SET mine value", "+OK");
    client.expect("WATCH mine", "+OK");
    let mut waiting = member.client(port);
    waiting.send_words(&["BLPOP", "list", "0"]);
    while client.info("blocked_clients") != "1" {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    succeeds(&member, &to, "import", &import_of(std::slice::from_ref(file)));
    assert_eq!(waiting.read().to_string(), "[list a]");
    client.expect("LPUSH list a", ":3");
    client.expect("MULTI", "+OK");
    client.expect("PING", "+QUEUED");
    client.expect("EXEC", "nil");
    client.expect("EXISTS mine", ":0");
    client.expect("FCALL f 0", ":7");
    assert_eq!(digest(&mut client), expected);

    // Several files: what they have in common is as the last one has it.
    let mut source = member.client(port_of(&member, &from));
    source.expect("FLUSHALL", "+OK");
    source.expect("SET text newer", "+OK");
    source.expect("SET single one", "+OK");
    succeeds(&member, &from, "export", &export_to(folder.path()));
    let new: Vec<_> = files_in(folder.path()).into_iter().filter(|it| !both.contains(it)).collect();
    succeeds(&member, &to, "import", &import_of(&[file.clone(), new[0].clone()]));
    client.script(
        "
        GET text => newer
        GET single => one
        LLEN list => :3
        ",
    );
    succeeds(&member, &to, "import", &import_of(&[new[0].clone()]));
    client.expect("DBSIZE", ":2");

    // Forgotten when that is asked for, but not when it was.
    let reset = |what: &str| {
        let path = format!("{to}/actions/{what}_reset_status");
        assert_eq!(member.change("PUT", &path, &Value::Null), json!({}));
        let shown = member.get(&to);
        assert_eq!(shown[format!("{what}_status")], "");
        assert_eq!(shown[format!("{what}_progress")], json!(0.0));
    };
    ["export", "import", "backup"].into_iter().for_each(reset);
    let path = format!("{from}/actions/export_reset_status");
    member.change("PUT", &path, &Value::Null);
    let shown = member.get(&from);
    assert!(shown["export_status"] == "" && shown["last_export_time"] != "", "{shown}");

    let logs = member.get("/v1/logs").to_string();
    for kind in ["export_started", "export_succeeded", "import_started", "import_succeeded"] {
        assert!(logs.contains(kind), "{kind}: {logs}");
    }
    let audit = fs::read_to_string(member.server.folder().join("audit.log")).expect("a log");
    assert!(audit.contains("/actions/export") && audit.contains("/actions/import"), "{audit}");
}

/// The port of a database.
fn port_of(member: &Member, path: &str) -> u16 {
    let port = member.get(path)["endpoints"][0]["port"].as_u64().expect("a port");
    u16::try_from(port).expect("a port")
}

#[test]
fn what_cannot_be_exported_or_imported_changes_nothing_and_says_why() {
    if !is_carnelian() {
        return;
    }
    let member = Member::create(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (path, port) = make(&member, "db", &json!({"memory_size": 8 << 20}));
    let mut client = member.client(port);
    fill(&mut client);
    let expected = digest(&mut client);
    succeeds(&member, &path, "export", &export_to(folder.path()));
    let good = files_in(folder.path()).remove(0);
    let bytes = fs::read(&good).expect("the export");
    let before = member.get(&path)["last_export_time"].clone();

    let missing = folder.path().join("missing");
    assert_eq!(fails(&member, &path, "export", &export_to(&missing)), "wrong-file-path");
    assert_eq!(fails(&member, &path, "export", &export_to(&good)), "wrong-file-path");
    let shown = member.get(&path);
    assert_eq!(shown["last_export_time"], before, "the last one that succeeded");
    // Who runs tests as root may write anywhere.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).expect("a mode");
    if fs::write(closed.join("try"), "").is_err() {
        assert_eq!(fails(&member, &path, "export", &export_to(&closed)), "no-permission");
    }

    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let torn = write("torn", &bytes[..bytes.len() / 2]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 0x40;
    let damaged = write("damaged", &flipped);
    let foreign = write("foreign", b"PK\x03\x04 not what is expected here at all");
    let empty = write("empty", b"");
    let cases = [
        (vec![missing], "wrong-file-path"),
        (vec![folder.path().to_owned()], "wrong-file-path"),
        (vec![PathBuf::from("/dev/zero")], "wrong-file-path"),
        (vec![torn], "file-corrupted"),
        (vec![damaged.clone()], "file-corrupted"),
        (vec![foreign], "file-corrupted"),
        (vec![empty], "file-corrupted"),
        (vec![good.clone(), damaged], "file-corrupted"),
    ];
    for (files, reason) in cases {
        let got = fails(&member, &path, "import", &import_of(&files));
        assert_eq!(got, reason, "{files:?}");
        assert_eq!(digest(&mut client), expected, "{files:?}");
    }
    // More than the database may hold.
    let (large, port) = make(&member, "large", &json!({}));
    let mut other = member.client(port);
    for number in 0..40 {
        other.call_words(&["SETRANGE", &format!("k{number}"), "499999", "x"]);
    }
    let of_large = folder.path().join("of-large");
    fs::create_dir(&of_large).expect("a folder");
    succeeds(&member, &large, "export", &export_to(&of_large));
    let got = fails(&member, &path, "import", &import_of(&files_in(&of_large)));
    assert!(got.starts_with("file-larger-than-mem-limit:") && got.ends_with(":8388608"), "{got}");
    assert_eq!(digest(&mut client), expected);
    // And it still can.
    succeeds(&member, &path, "import", &import_of(&[good]));
    assert_eq!(digest(&mut client), expected);
}

#[test]
fn one_at_a_time_and_one_that_its_process_did_not_end_has_failed() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (path, port) = make(&member, "slow", &json!({}));
    let mut client = member.client(port);
    fill(&mut client);
    client.expect("CONFIG SET rdb-key-save-delay 1000000", "+OK");
    start(&member, &path, "export", &export_to(folder.path()));
    member.eventually(&path, |database| database["export_status"] == "exporting");
    for what in ["export", "import"] {
        let body =
            if what == "export" { export_to(folder.path()) } else { import_of(&["/x".into()]) };
        let (status, answer) = member.ask("POST", &format!("{path}/actions/{what}"), &body);
        assert_eq!((status, &answer["error_code"]), (409, &json!("busy")), "{answer}");
    }
    let reset = format!("{path}/actions/export_reset_status");
    let (status, answer) = member.ask("PUT", &reset, &Value::Null);
    assert_eq!((status, &answer["error_code"]), (409, &json!("busy")), "{answer}");
    // The database can be changed meanwhile, and saved behind it.
    member.change("PUT", &path, &json!({"maxclients": 77}));
    client.eventually("CONFIG GET maxclients", "[maxclients 77]");
    let hidden = |folder: &Path| files_in(folder).len();
    member.eventually(&path, |database| database["export_progress"].as_f64() > Some(0.0));
    client.expect("BGSAVE SCHEDULE", "+Background saving scheduled");
    assert_eq!(hidden(folder.path()), 1);

    member.server.signal(Signal::KILL);
    member.server.wait();
    member.server.start_again().expect("it starts again");
    let shown = ended(&member, &path, "export");
    assert_eq!(shown["export_status"], "failed", "{shown}");
    assert_eq!(shown["export_failure_reason"], "general-error");
    assert_eq!(files_in(folder.path()), Vec::<PathBuf>::new(), "what was half done is removed");
    succeeds(&member, &path, "export", &export_to(folder.path()));

    // A database goes with what is being made of it.
    let mut client = member.client(port);
    fill(&mut client);
    client.expect("CONFIG SET rdb-key-save-delay 1000000", "+OK");
    start(&member, &path, "export", &export_to(folder.path()));
    member.eventually(&path, |database| database["export_status"] == "exporting");
    member.change("DELETE", &path, &Value::Null);
    member.eventually("/v1/bdbs", |all| all.as_array().is_some_and(|all| all.len() == 1));
    while hidden(folder.path()) != 1 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn replicas_and_files_have_what_was_imported_when_it_has_succeeded() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let second = Member::start(2, PASSWORD, &["--cluster-join", &first.place()]);
    first.eventually_sees(2);
    second.eventually_sees(2);
    let mut nodes = [first, second];
    let folder = tempfile::tempdir().expect("a folder");
    let (from, port) = make(&nodes[0], "from", &json!({}));
    let mut client = nodes[0].client(port);
    fill(&mut client);
    let expected = digest(&mut client);
    succeeds(&nodes[0], &from, "export", &export_to(folder.path()));
    let files = files_in(folder.path());

    let more = json!({
        "replication": true, "data_persistence": "aof", "data_internode_encryption": true,
    });
    let (to, port) = make(&nodes[0], "to", &more);
    let mut client = nodes[0].client(port);
    client.expect("SET old value", "+OK");
    client.expect("WAIT 1 0", ":1");
    succeeds(&nodes[0], &to, "import", &import_of(&files));
    assert_eq!(digest(&mut client), expected);
    client.expect("SET new value", "+OK");
    client.expect("WAIT 1 0", ":1");
    client.expect("DEL new", ":1");
    client.expect("WAITAOF 1 1 0", "[:1 :1]");

    // Both shards end without a word; from the files it is the same.
    for node in &mut nodes {
        node.server.signal(Signal::KILL);
        node.server.wait();
    }
    for node in &mut nodes {
        node.server.start_again().expect("it starts again");
    }
    nodes[0].eventually_sees(2);
    eventually_has(&nodes[0], port, &expected);

    // The replica's data, as the primary.
    let shards = nodes[0].get(&format!("{to}/shards"));
    let primary = shards.as_array().and_then(|all| all.iter().find(|it| it["role"] == "master"));
    let shard = primary.expect("a primary")["uid"].as_str().expect("its uid").to_owned();
    // Not before the primary has found out that it goes on, and its replica has come back.
    let failover = format!("/v1/shards/{shard}/actions/failover");
    let ends = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let (status, answer) = nodes[0].ask("POST", &failover, &Value::Null);
        if status == 200 {
            break;
        }
        let is_early = ["replica_not_ready", "stale_epoch"].map(Value::from);
        assert!(is_early.contains(&answer["error_code"]), "{status} {answer}");
        assert!(std::time::Instant::now() < ends, "{status} {answer}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    nodes[0].eventually(&format!("{to}/shards"), |shards| {
        let all = shards.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().any(|it| it["role"] == "master" && it["uid"] != shard.as_str())
    });
    eventually_has(&nodes[0], port, &expected);
}

/// Until the data are these, on a connection of its own: roles change.
#[track_caller]
fn eventually_has(member: &Member, port: u16, expected: &str) {
    let mut last = String::new();
    for _ in 0..3000 {
        let mut client = member.client(port);
        if client.try_send(b"DEBUG DIGEST\r\n").is_ok()
            && let Ok(reply) = client.try_read()
        {
            last = reply.to_string();
            if last.trim_start_matches('+') == expected {
                return;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("the data are {last}, not {expected}:\n{}", member.server.log());
}

#[test]
fn backups_are_made_by_the_clock_and_late_ones_are_told_of() {
    if !is_carnelian() {
        return;
    }
    let member = Member::create(1);
    let folder = tempfile::tempdir().expect("a folder");
    let place = json!({"type": "mount_point", "path": folder.path()});
    let (path, port) = make(&member, "kept", &json!({}));
    let mut client = member.client(port);
    fill(&mut client);
    let alert = json!({"bdb_backup_delayed": {"enabled": true, "threshold": "1"}});
    let uid = path.rsplit('/').next().expect("a uid").to_owned();
    member.change("POST", &format!("/v1/bdbs/alerts/{uid}"), &alert);
    let state = || {
        let path = format!("/v1/bdbs/alerts/{uid}/bdb_backup_delayed");
        member.get(&path)["state"].clone()
    };
    let job = json!({"backup_job_settings": {"cron_expression": "* * * * *"}});
    member.change("PUT", "/v1/job_scheduler", &job);
    let patch = json!({"backup": true, "backup_interval": 3600, "backup_location": place});
    member.change("PUT", &path, &patch);
    let shown = member.eventually(&path, |database| database["status"] == "active");
    assert_eq!(shown["backup_location"], place);
    assert_eq!(state(), json!(false));
    // With the next run of the job, which comes each minute.
    for _ in 0..600 {
        if member.get(&path)["backup_status"] == "succeeded" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let shown = member.get(&path);
    assert_eq!(shown["backup_status"], "succeeded", "{shown}");
    assert_ne!(shown["last_backup_time"], "");
    let files = files_in(folder.path());
    assert!(files.len() == 1 && files[0].to_string_lossy().contains("backup-kept-"), "{files:?}");
    let expected = digest(&mut client);
    client.expect("FLUSHALL", "+OK");
    succeeds(&member, &path, "import", &import_of(&files));
    assert_eq!(digest(&mut client), expected);
    assert_eq!(
        member.change("PUT", &format!("{path}/actions/backup_reset_status"), &json!({})),
        json!({})
    );
    assert_eq!(member.get(&path)["backup_status"], "");
}
