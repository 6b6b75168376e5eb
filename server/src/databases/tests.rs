//! Several databases in one process, with real clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carnelian_config::{AppendFsync, Config, EvictionPolicy, SavePoint};

use super::*;
use crate::replication::secure::Secured;
use crate::testing::Bench;

/// A process whose first database keeps nothing.
fn bench() -> Bench {
    Bench::start(Config { save: Vec::new(), ..Config::default() })
}

fn spec(uid: u32) -> DatabaseSpec {
    DatabaseSpec {
        bind: vec!["127.0.0.1".into()],
        ..DatabaseSpec::new(uid, format!("d{uid}"), Bench::free_port())
    }
}

fn with_password(uid: u32, password: &str) -> DatabaseSpec {
    let access = Access { passwords: vec![password.into()], ..Access::open() };
    DatabaseSpec { access: Some(access), ..spec(uid) }
}

fn points() -> Persistence {
    Persistence::Snapshot(vec![SavePoint { seconds: 3600, changes: 1 }])
}

/// Sends commands and returns their replies. Another command behind them shows the end, by its reply or because it is
/// not allowed.
fn ask(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(format!("{request}\r\nECHO the-end\r\n").as_bytes()).unwrap();
    const ENDS: [&str; 2] = ["$7\r\nthe-end\r\n", "-NOAUTH Authentication required.\r\n"];
    let mut reply = Vec::new();
    let mut byte = [0; 1];
    loop {
        stream.read_exact(&mut byte).expect("the server replies");
        reply.push(byte[0]);
        if let Some(end) = ENDS.iter().find(|end| reply.ends_with(end.as_bytes())) {
            reply.truncate(reply.len() - end.len());
            return String::from_utf8(reply).unwrap();
        }
    }
}

/// Whether the server closes this connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn databases_know_nothing_of_each_other() {
    let bench = bench();
    let second = with_password(2, "two");
    let third = with_password(3, "three");
    let (second_port, third_port) = (second.port, third.port);
    bench.server.create_database(second).unwrap();
    bench.server.create_database(third).unwrap();

    let mut first = bench.connect();
    let mut two = Bench::connect_to(second_port);
    let mut three = Bench::connect_to(third_port);
    assert_eq!(ask(&mut two, "AUTH two\r\nSET k second"), "+OK\r\n+OK\r\n");
    assert!(ask(&mut three, "AUTH two").starts_with("-WRONGPASS"));
    assert_eq!(ask(&mut three, "AUTH three\r\nGET k\r\nDBSIZE"), "+OK\r\n$-1\r\n:0\r\n");
    assert_eq!(ask(&mut first, "GET k\r\nACL WHOAMI"), "$-1\r\n$7\r\ndefault\r\n");

    // Each has its own directives, log, functions and clients; those of the process are the first's.
    assert_eq!(ask(&mut two, "CONFIG SET maxmemory 100mb slowlog-max-len 7"), "+OK\r\n");
    assert!(ask(&mut three, "CONFIG GET maxmemory").contains("$1\r\n0\r\n"));
    assert!(ask(&mut first, "CONFIG GET slowlog-max-len").contains("128"));
    for directive in ["hz 20", "loglevel debug", "port 1", "dir /"] {
        let reply = ask(&mut two, &format!("CONFIG SET {directive}"));
        assert!(reply.starts_with("-ERR CONFIG SET failed"), "{reply}");
    }
    assert_eq!(ask(&mut first, "CONFIG SET hz 20"), "+OK\r\n");
    assert!(ask(&mut two, "CONFIG GET hz").contains("20"));
    assert!(ask(&mut two, "CONFIG REWRITE").starts_with("-ERR This database has no config file"));
    let folder = bench.folder.path().canonicalize().unwrap().join("db-2");
    assert!(ask(&mut two, "CONFIG GET dir").contains(folder.to_str().unwrap()));

    let ids = |stream: &mut TcpStream| {
        let list = ask(stream, "CLIENT LIST");
        assert_eq!(list.matches("id=").count(), 1, "{list}");
        list.split("id=").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    let (of_first, of_two) = (ids(&mut first), ids(&mut two));
    assert_ne!(of_first, of_two, "an id is unique in the process");
    assert!(ask(&mut two, &format!("CLIENT KILL ID {of_first}")).starts_with(":0"));
    first.write_all(b"SUBSCRIBE c\r\n").unwrap();
    wait_until("it is subscribed", || ask(&mut bench.connect(), "PUBSUB NUMSUB c").contains(":1"));
    assert_eq!(ask(&mut two, "PUBLISH c m"), ":0\r\n");
    assert!(ask(&mut two, "INFO keyspace").contains("db0:keys=1"));
    assert!(!ask(&mut three, "INFO keyspace").contains("db0"));
    assert!(ask(&mut two, "INFO clients").contains("connected_clients:1\r\n"));
}

#[test]
fn a_port_that_is_taken_leaves_nothing_behind() {
    let bench = bench();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for port in [port, bench.port] {
        let refused = bench.server.create_database(DatabaseSpec { port, ..spec(2) });
        let Err(DatabaseError::Port { port: told, reason }) = refused else { panic!("refused") };
        assert_eq!(told, port);
        assert!(reason.contains("in use"), "{reason}");
    }
    let taken = bench.server.create_database(spec(1));
    assert!(matches!(taken, Err(DatabaseError::UidTaken(1))));
    let users = vec![("a".into(), vec![b"+nothing".to_vec()])];
    let bad = DatabaseSpec { users, ..spec(2) };
    assert!(matches!(bench.server.create_database(bad), Err(DatabaseError::User { .. })));
    let bad = DatabaseSpec { notify_keyspace_events: "Q".into(), ..spec(2) };
    assert!(matches!(bench.server.create_database(bad), Err(DatabaseError::Setting(_))));

    assert_eq!(bench.server.databases.read().len(), 1);
    assert!(!bench.server.folder_of(2).exists());
    bench.server.create_database(spec(2)).unwrap();
}

#[test]
fn clients_of_one_database_are_disconnected_and_no_others() {
    let bench = bench();
    let second = spec(2);
    let port = second.port;
    bench.server.create_database(second).unwrap();
    let mut first = bench.connect();
    ask(&mut first, "SET k v");
    let mut clients: Vec<_> = (0..20).map(|_| Bench::connect_to(port)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        ask(client, &format!("SET k{index} v"));
    }
    clients[0].write_all(b"BLPOP list 0\r\n").unwrap();
    clients[1].write_all(b"SUBSCRIBE c\r\n").unwrap();
    assert_eq!(bench.server.disconnect_clients(2).unwrap(), 20);
    assert!(clients.iter_mut().all(is_closed));
    assert_eq!(ask(&mut first, "GET k"), "$1\r\nv\r\n");
    assert_eq!(ask(&mut Bench::connect_to(port), "DBSIZE"), ":20\r\n", "nothing is lost");
    bench.server.flush_database(2).unwrap();
    assert_eq!(ask(&mut Bench::connect_to(port), "DBSIZE"), ":0\r\n");
    assert_eq!(ask(&mut first, "DBSIZE"), ":1\r\n");
    assert!(matches!(bench.server.disconnect_clients(9), Err(DatabaseError::Unknown(9))));
}

#[test]
fn a_database_is_dropped_under_load() {
    let bench = bench();
    let second = DatabaseSpec { persistence: Persistence::Aof(AppendFsync::Always), ..spec(2) };
    let port = second.port;
    let database = bench.server.create_database(second).unwrap();
    let is_kept = Arc::downgrade(&database);
    drop(database);
    let load: Vec<_> = (0..4)
        .map(|client| {
            let mut stream = Bench::connect_to(port);
            std::thread::spawn(move || {
                for round in 0.. {
                    let request = format!("SET k{client}-{round} {:0>500}\r\n", "");
                    let mut reply = [0; 5];
                    let sent = stream.write_all(request.as_bytes());
                    if sent.and_then(|()| stream.read_exact(&mut reply)).is_err() {
                        return round;
                    }
                    assert_eq!(&reply, b"+OK\r\n");
                }
                0
            })
        })
        .collect();
    let mut first = bench.connect();
    wait_until("there is load", || {
        let database = bench.server.database(2).unwrap();
        1000 < database.stats.sum(|counters| &counters.commands_processed)
    });
    bench.server.drop_database(2, Files::Remove).unwrap();
    for client in load {
        assert!(0 < client.join().unwrap());
    }
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is free");
    assert!(!bench.server.folder_of(2).exists());
    assert_eq!(ask(&mut first, "SET a b"), "+OK\r\n");
    wait_until("all of it is freed", || is_kept.upgrade().is_none());
    assert!(matches!(bench.server.drop_database(2, Files::Keep), Err(DatabaseError::Unknown(2))));
}

#[test]
fn files_lie_in_a_folder_of_their_own_and_are_loaded_again() {
    let bench = bench();
    let snapshot = DatabaseSpec { persistence: points(), ..spec(2) };
    let aof = DatabaseSpec { persistence: Persistence::Aof(AppendFsync::EverySecond), ..spec(3) };
    let nothing = spec(4);
    for spec in [&snapshot, &aof, &nothing] {
        bench.server.create_database(spec.clone()).unwrap();
        let mut stream = Bench::connect_to(spec.port);
        ask(&mut stream, &format!("SET k {0}\r\nRPUSH l {0} b", spec.uid));
    }
    for uid in [2, 3, 4] {
        bench.server.drop_database(uid, Files::Keep).unwrap();
    }
    assert!(bench.server.folder_of(2).join("dump.rdb").exists());
    assert!(bench.server.folder_of(3).join("appendonlydir").is_dir());
    assert!(!bench.server.folder_of(3).join("dump.rdb").exists());
    assert!(std::fs::read_dir(bench.server.folder_of(4)).unwrap().next().is_none());

    for spec in [&snapshot, &aof, &nothing] {
        bench.server.create_database(spec.clone()).unwrap();
        let reply = ask(&mut Bench::connect_to(spec.port), "GET k\r\nLLEN l");
        match spec.uid {
            4 => assert_eq!(reply, "$-1\r\n:0\r\n"),
            uid => assert_eq!(reply, format!("$1\r\n{uid}\r\n:2\r\n")),
        }
        bench.server.drop_database(spec.uid, Files::Remove).unwrap();
        assert!(!bench.server.folder_of(spec.uid).exists());
    }
}

#[test]
fn what_cannot_be_loaded_is_left_as_it_is() {
    let bench = bench();
    let folder = bench.server.folder_of(2);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("dump.rdb"), b"REDIS0011 but no more").unwrap();
    let second = DatabaseSpec { persistence: points(), ..spec(2) };
    let port = second.port;
    let refused = bench.server.create_database(second);
    assert!(matches!(refused, Err(DatabaseError::Data { uid: 2, .. })));
    assert_eq!(std::fs::read(folder.join("dump.rdb")).unwrap(), b"REDIS0011 but no more");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert_eq!(bench.server.databases.read().len(), 1);
}

#[test]
fn clients_are_told_to_wait_for_the_data() {
    let bench = bench();
    let second = DatabaseSpec { persistence: points(), ..spec(2) };
    let port = second.port;
    let database = bench.server.create_database(second.clone()).unwrap();
    let mut stream = Bench::connect_to(port);
    ask(&mut stream, "DEBUG POPULATE 5000");
    let sets: Vec<String> = (0..5000).map(|key| format!("SET k{key} v")).collect();
    ask(&mut stream, &sets.join("\r\n"));
    drop((database, stream));
    bench.server.drop_database(2, Files::Keep).unwrap();

    // Each key takes a while, so that it can be seen.
    let server = Arc::clone(&bench.server);
    let made = std::thread::spawn(move || server.create_database(second));
    wait_until("it is there", || bench.server.database(2).is_ok());
    bench.server.database(2).unwrap().loading.set_key_delay(1000);
    let mut told = String::new();
    while !made.is_finished() && !told.starts_with("-LOADING") {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            bench.server.database(2).unwrap().loading.set_key_delay(1000);
            told = ask(&mut stream, "GET k1");
        }
    }
    bench.server.database(2).unwrap().loading.set_key_delay(0);
    made.join().unwrap().unwrap();
    assert_eq!(ask(&mut Bench::connect_to(port), "DBSIZE"), ":5000\r\n");
    assert!(told.starts_with("-LOADING"), "{told}");
}

#[test]
fn a_database_is_changed_while_it_serves() {
    let bench = bench();
    let before = with_password(2, "old");
    let port = before.port;
    bench.server.create_database(before.clone()).unwrap();
    let mut stream = Bench::connect_to(port);
    ask(&mut stream, "AUTH old\r\nSET k v");
    let user = (
        "reader".to_owned(),
        vec![b"on".to_vec(), b">r".to_vec(), b"+get".to_vec(), b"+echo".to_vec(), b"~*".to_vec()],
    );
    let after = DatabaseSpec {
        memory_limit: 50 << 20,
        eviction: EvictionPolicy::AllkeysLfu,
        persistence: Persistence::Aof(AppendFsync::EverySecond),
        access: Some(Access {
            passwords: vec![b"new".to_vec(), b"other".to_vec()],
            default_user: true,
        }),
        users: vec![user],
        maxclients: 2,
        data_internode_encryption: true,
        ..before
    };
    bench.server.change_database(after.clone()).unwrap();
    assert_eq!(DatabaseSpec::of(&bench.server.database(2).unwrap()).access, after.access);

    let told = ask(&mut stream, "CONFIG GET maxmemory\r\nCONFIG GET maxmemory-policy\r\nGET k");
    assert!(told.contains("52428800") && told.contains("allkeys-lfu") && told.ends_with("v\r\n"));
    let mut other = Bench::connect_to(port);
    assert!(ask(&mut other, "AUTH old").starts_with("-WRONGPASS"));
    assert_eq!(
        ask(&mut other, "AUTH new\r\nAUTH other\r\nAUTH reader r\r\nGET k"),
        "+OK\r\n+OK\r\n+OK\r\n$1\r\nv\r\n"
    );
    let mut third = Bench::connect_to(port);
    let mut refusal = String::new();
    third.read_to_string(&mut refusal).unwrap();
    assert!(refusal.contains("max number of clients"), "{refusal}");
    wait_until("the file is begun", || {
        ask(&mut stream, "INFO persistence").contains("aof_enabled:1")
            && bench
                .server
                .folder_of(2)
                .join("appendonlydir")
                .join("appendonly.aof.manifest")
                .exists()
    });

    // A port that is taken: nothing of all that changes.
    let refused = DatabaseSpec {
        port: bench.port,
        memory_limit: 1 << 20,
        persistence: Persistence::Disabled,
        ..after.clone()
    };
    assert!(matches!(bench.server.change_database(refused), Err(DatabaseError::Port { .. })));
    assert!(ask(&mut stream, "CONFIG GET maxmemory").contains("52428800"));
    assert!(ask(&mut stream, "INFO persistence").contains("aof_enabled:1"));

    // TLS alone from now on: who is there stays, and who comes without is told so.
    let tls = DatabaseSpec {
        tls: TlsMode::Enabled,
        maxclients: 100,
        access: Some(Access::open()),
        ..after
    };
    bench.server.change_database(tls).unwrap();
    assert_eq!(ask(&mut stream, "GET k"), "$1\r\nv\r\n");
    let mut plain = Bench::connect_to(port);
    plain.write_all(b"PING\r\n").unwrap();
    let mut told = String::new();
    let _ = plain.read_to_string(&mut told);
    assert!(told.starts_with("-"), "{told}");
}

#[test]
fn the_port_of_a_database_changes_while_clients_are_served() {
    let bench = bench();
    let before = spec(2);
    bench.server.create_database(before.clone()).unwrap();
    let mut stream = Bench::connect_to(before.port);
    assert_eq!(ask(&mut stream, "PING"), "+PONG\r\n");
    let after = DatabaseSpec { port: Bench::free_port(), ..before.clone() };
    bench.server.change_database(after.clone()).unwrap();
    assert_eq!(ask(&mut stream, "SET k v"), "+OK\r\n");
    assert_eq!(ask(&mut Bench::connect_to(after.port), "GET k"), "$1\r\nv\r\n");
    assert!(TcpStream::connect(("127.0.0.1", before.port)).is_err());
}

/// Runs in a process of its own: what other tests allocate and open does not count.
#[test]
fn databases_come_and_go_without_a_trace() {
    const ALONE: &str = "CARNELIAN_TEST_ALONE";

    if std::env::var_os(ALONE).is_none() {
        let name = std::thread::current().name().unwrap().to_owned();
        let mut alone = Command::new(std::env::current_exe().unwrap());
        let alone = alone.args(["--exact", &name]).env(ALONE, "1").output().unwrap();
        assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stdout));
        assert!(String::from_utf8_lossy(&alone.stdout).contains("1 passed"));
        return;
    }
    let bench = bench();
    let round = |bench: &Bench, uid: u32| {
        let persistence = match uid % 3 {
            0 => Persistence::Disabled,
            1 => points(),
            _ => Persistence::Aof(AppendFsync::EverySecond),
        };
        let spec = DatabaseSpec { persistence, ..spec(2) };
        let port = spec.port;
        let database = bench.server.create_database(spec).unwrap();
        let gone = Arc::downgrade(&database);
        drop(database);
        let mut stream = Bench::connect_to(port);
        ask(&mut stream, "SET k v\r\nEVAL 'return 1' 0\r\nSADD s a b c");
        bench.server.drop_database(2, Files::Remove).unwrap();
        assert!(is_closed(&mut stream));
        wait_until("it is freed", || gone.upgrade().is_none());
    };
    (0..10).for_each(|uid| round(&bench, uid));
    let settled = || (threads(), descriptors(), crate::allocator::used_memory());
    let before = settled();
    (0..90).for_each(|uid| round(&bench, uid));
    wait_until("threads and descriptors are given back", || {
        let (threads, descriptors, _) = settled();
        threads <= before.0 + 2 && descriptors <= before.1 + 4
    });
    let grown = settled().2.saturating_sub(before.2);
    assert!(grown < 90 * 4096, "{grown} bytes are left behind");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The same through TLS, without a certificate.
fn ask_by_tls(database: &Database, port: u16, request: &str) -> io::Result<String> {
    let connector = database.tls.connector(&database.config()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let socket = Bench::connect_to(port);
    let mut secured = Secured::shake_hands(&connector, &socket, deadline)?;
    secured.write(&socket, format!("{request}\r\n").as_bytes())?;
    let mut reply = [0; 1024];
    let count = secured.read(&socket, deadline, &mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..count]).into_owned())
}

#[test]
fn each_database_has_a_way_of_its_own_to_be_spoken_to() {
    let bench = bench();
    let modes = [TlsMode::Disabled, TlsMode::Enabled, TlsMode::Preferred];
    for (uid, tls) in (2..).zip(modes) {
        let spec = DatabaseSpec { tls, ..spec(uid) };
        let port = spec.port;
        let database = bench.server.create_database(spec).unwrap();
        let by_tls = ask_by_tls(&database, port, "PING");
        assert_eq!(by_tls.is_ok_and(|reply| reply == "+PONG\r\n"), tls.allows(true), "{tls:?}");
        let mut plain = Bench::connect_to(port);
        plain.write_all(b"PING\r\n").unwrap();
        let mut reply = [0; 5];
        plain.read_exact(&mut reply).unwrap();
        assert_eq!(&reply == b"+PONG", tls.allows(false), "{tls:?}");
    }

    // Nobody has a certificate of this authority.
    let authority = bench.database.tls.configuration().unwrap().client_ca_file.clone().unwrap();
    let authority = std::fs::read_to_string(authority).unwrap();
    let before = DatabaseSpec::of(&bench.server.database(3).unwrap());
    let trust = ClientTrust::Required(vec![authority]);
    let after = DatabaseSpec { client_certificates: trust, ..before.clone() };
    bench.server.change_database(after).unwrap();
    let database = bench.server.database(3).unwrap();
    assert!(!ask_by_tls(&database, before.port, "PING").is_ok_and(|reply| reply.contains("PONG")));
    let trust = ClientTrust::Required(vec!["no certificate".into()]);
    let bad = DatabaseSpec { client_certificates: trust, ..before.clone() };
    assert!(matches!(bench.server.change_database(bad), Err(DatabaseError::Setting(_))));
    let files = || std::fs::read_dir(bench.server.folder_of(3)).unwrap().count();
    assert_eq!(files(), 1, "the authority that is in force");
    bench.server.change_database(before.clone()).unwrap();
    assert_eq!(ask_by_tls(&database, before.port, "PING").unwrap(), "+PONG\r\n");
    assert_eq!(files(), 0);
}

#[test]
fn a_limit_is_about_what_the_database_holds_itself() {
    const LIMIT: u64 = 4 << 20;

    let bench = bench();
    let evicting =
        DatabaseSpec { memory_limit: LIMIT, eviction: EvictionPolicy::AllkeysLru, ..spec(2) };
    let full =
        DatabaseSpec { memory_limit: LIMIT, eviction: EvictionPolicy::NoEviction, ..spec(3) };
    let ports = [evicting.port, full.port];
    bench.server.create_database(evicting).unwrap();
    bench.server.create_database(full).unwrap();
    let mut first = bench.connect();
    let value = "v".repeat(1000);
    let fill = |stream: &mut TcpStream, from: usize, to: usize| -> String {
        let sets: Vec<_> = (from..to).map(|key| format!("SET k{key} {value}")).collect();
        sets.chunks(100).map(|sets| ask(stream, &sets.join("\r\n"))).collect()
    };
    // Far more than the others may have, to begin with.
    assert_eq!(fill(&mut first, 0, 12_000), "+OK\r\n".repeat(12_000));
    let used = |stream: &mut TcpStream| {
        let info = ask(stream, "INFO memory");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        line.parse::<u64>().unwrap()
    };
    assert!(11 << 20 < used(&mut first));

    let mut two = Bench::connect_to(ports[0]);
    assert!(used(&mut two) < 1 << 20);
    assert_eq!(fill(&mut two, 0, 12_000), "+OK\r\n".repeat(12_000));
    let left = used(&mut two);
    assert!((LIMIT * 9 / 10..LIMIT + (256 << 10)).contains(&left), "{left}");
    assert!(ask(&mut two, "GET k11999").contains(&value), "the last is there");

    let mut three = Bench::connect_to(ports[1]);
    let replies = fill(&mut three, 0, 6000);
    let stored = replies.matches("+OK").count();
    assert!((3000..4100).contains(&stored), "{stored}");
    assert!(replies.ends_with("-OOM command not allowed when used memory > 'maxmemory'.\r\n"));
    assert!(used(&mut three) < LIMIT + (256 << 10));
    let keys: Vec<_> = (0..1000).map(|key| format!("k{key}")).collect();
    assert_eq!(ask(&mut three, &format!("DEL {}", keys.join(" "))), ":1000\r\n");
    assert_eq!(ask(&mut three, "SET again 1"), "+OK\r\n", "room is seen as soon as it is made");
    assert_eq!(ask(&mut first, "DBSIZE"), ":12000\r\n");

    // The first obeys a limit of its own too, whatever the others hold.
    assert_eq!(ask(&mut first, "CONFIG SET maxmemory 16mb"), "+OK\r\n");
    assert_eq!(fill(&mut first, 0, 100), "+OK\r\n".repeat(100));
}
