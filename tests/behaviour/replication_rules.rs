//! What replication asks of commands, of waits and of the end of a server, and what INFO says of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::server::Signal;
use carnelian_tests::{Client, Server, is_carnelian};

use super::replication_replica::{Waiting, catch_up, eventually_logged, replica_of};

const PRIMARY: [&str; 4] =
    ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "3600"];

const LIBRARY: &str = "#!lua name=l
redis.register_function{function_name='writes', callback=function(k) return redis.call('incr', k[1]) end}
redis.register_function{function_name='reads', callback=function(k) return redis.call('get', k[1]) end, \
    flags={'no-writes'}}
redis.register_function{function_name='old', callback=function() return 1 end, \
    flags={'no-writes', 'allow-stale'}}";

#[test]
fn a_replica_that_is_restarted_comes_back_once() {
    if !is_carnelian() {
        return;
    }
    let primary = Server::start(&PRIMARY);
    let mut there = primary.connect();
    let mut replica = replica_of(&primary, &["--save", "100 100"]);
    there.expect("SET a 1", "+OK");
    catch_up(&mut there, &mut replica.connect());
    for restarts in 1..4 {
        replica.restart();
        catch_up(&mut there, &mut replica.connect());
        assert_eq!(there.info("sync_partial_ok"), restarts.to_string());
        assert_eq!(there.info("sync_full"), "1");
    }
}

#[test]
fn scripts_are_refused_as_a_whole_where_replication_keeps_them_from_running() {
    let primary = Server::start(&PRIMARY);
    let mut there = primary.connect();
    there.call_words(&["FUNCTION", "LOAD", LIBRARY]);
    let replica = replica_of(&primary, &[]);
    let mut here = replica.connect();
    there.expect("SET k 5", "+OK");
    catch_up(&mut there, &mut here);
    let refusal = "-READONLY You can't write against a read only replica.";
    here.expect("FCALL writes 1 k", refusal);
    here.expect("EVAL \"#!lua\\nreturn 1\" 0", refusal);
    here.expect("EVAL \"return 1\" 0", ":1");
    here.expect("FCALL reads 1 k", "5");

    there.expect("CONFIG SET min-replicas-to-write 2", "+OK");
    there.eventually("SET k 6", "-NOREPLICAS Not enough good replicas to write.");
    there.expect("FCALL writes 1 k", "-NOREPLICAS Not enough good replicas to write.");
    there.expect("EVAL \"#!lua\\nreturn 1\" 0", "-NOREPLICAS Not enough good replicas to write.");
    there.expect("EVAL \"return redis.call('GET', 'k')\" 0", "5");
    there.expect("FCALL reads 1 k", "5");

    drop(primary);
    here.expect("CONFIG SET replica-serve-stale-data no", "+OK");
    here.eventually_info("master_link_status", "down");
    let down = "-MASTERDOWN Link with MASTER is down";
    let whole = "and replica-serve-stale-data is set to 'no'.";
    here.expect("EVAL \"return 1\" 0", &format!("{down} {whole}"));
    here.expect("FCALL reads 1 k", &format!("{down} {whole}"));
    here.expect("FCALL old 0", ":1");
}

#[test]
fn hello_tells_the_role_and_the_zone() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let field = |client: &mut Client, name: &str| {
        let fields = client.call("HELLO").elements();
        let found = fields.chunks_exact(2).find(|pair| pair[0].text() == name);
        found.map(|pair| pair[1].text())
    };
    let (mut there, mut here) = (primary.connect(), replica.connect());
    assert_eq!(field(&mut there, "role").as_deref(), Some("master"));
    assert_eq!(field(&mut here, "role").as_deref(), Some("replica"));
    if !is_carnelian() {
        return;
    }
    assert_eq!(field(&mut there, "availability_zone"), None);
    there.expect("CONFIG SET availability-zone north-1", "+OK");
    assert_eq!(field(&mut there, "availability_zone").as_deref(), Some("north-1"));
    assert_eq!(there.info("availability_zone"), "north-1");
}

#[test]
fn the_file_that_a_snapshot_came_in_is_deleted_where_nothing_is_saved() {
    let primary = Server::start(&PRIMARY);
    primary.connect().expect("SET k v", "+OK");
    for (args, remains) in [
        (["--save", "", "--rdb-del-sync-files", "yes"], false),
        (["--save", "", "--rdb-del-sync-files", "no"], true),
        (["--save", "3600 1", "--rdb-del-sync-files", "yes"], true),
    ] {
        let more = ["--repl-diskless-load", "disabled", "--repl-disable-tcp-nodelay", "yes"];
        let replica = replica_of(&primary, &[&args[..], &more].concat());
        replica.connect().expect("GET k", "v");
        assert_eq!(replica.folder().join("dump.rdb").exists(), remains, "{args:?}");
    }
}

#[test]
fn what_is_written_to_a_replica_expires_there() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &["--replica-read-only", "no"]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    there.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
    there.expect("SET theirs 1 PX 50", "+OK");
    catch_up(&mut there, &mut here);
    here.expect("SET a 1 PX 100", "+OK");
    here.expect("MULTI", "+OK");
    here.expect("SET b 1 PX 100", "+QUEUED");
    here.expect("EXEC", "[+OK]");
    here.expect("EVAL \"return redis.call('SET', KEYS[1], 1, 'PX', 100)\" 1 c", "+OK");
    here.expect("SET kept 1 PX 100", "+OK");
    here.expect("PERSIST kept", ":1");
    here.expect("SET later 1 PX 100", "+OK");
    here.expect("EXPIRE later 1000", ":1");
    assert_eq!(here.info("slave_expires_tracked_keys"), "5");
    // The primary's own is the primary's to remove; until then it looks as if it were gone.
    here.eventually("DBSIZE", ":3");
    here.expect("GET theirs", "nil");
    here.expect("GET kept", "1");
    here.expect("GET later", "1");
    here.eventually_info("slave_expires_tracked_keys", "1");
    assert!(here.call("DEBUG OBJECT theirs").text().contains("encoding:int"));
    here.expect("REPLICAOF NO ONE", "+OK");
    assert_eq!(here.info("slave_expires_tracked_keys"), "0");
    here.eventually("DBSIZE", ":2");
}

#[test]
fn waitaof_knows_what_is_on_disk_here_and_there() {
    let primary = Server::starter().args(&PRIMARY).args(&["--appendfsync", "no"]).start();
    let replica = replica_of(&primary, &["--appendonly", "yes"]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    here.eventually_info("aof_rewrite_in_progress", "0");
    let disabled = "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";
    there.expect("INCR n", ":1");
    there.expect("WAITAOF 1 0 0", disabled);
    there.expect("WAITAOF 0 1 0", "[:0 :1]");
    there.expect("CONFIG SET appendonly yes", "+OK");
    there.eventually_info("aof_rewrite_in_progress", "0");
    there.eventually_info("aof_rewrite_scheduled", "0");
    // What was there before is in the file's base.
    there.expect("WAITAOF 1 0 0", "[:1 :1]");
    there.expect("INCR n", ":2");
    let waited = there.call("WAITAOF 1 0 50");
    assert_eq!(waited.elements()[0].integer(), 0, "nothing is brought to the disk here");
    there.send(b"WAITAOF 1 0 0\r\n");
    let mut other = primary.connect();
    other.eventually_info("blocked_clients", "1");
    other.expect("CONFIG SET appendonly no", "+OK");
    there.expect_next(disabled);
    // A replica without a file has nothing on disk.
    here.expect("CONFIG SET appendonly no", "+OK");
    there.expect("INCR n", ":3");
    there.expect("WAIT 1 0", ":1");
    there.expect("WAITAOF 0 1 50", "[:0 :0]");
}

#[test]
fn a_client_does_not_wait_for_the_disk_for_what_it_wrote_in_another_history() {
    let primary = Server::start(&PRIMARY);
    let strict = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = Server::starter().args(&PRIMARY).args(&strict).start();
    let (mut client, mut control) = (server.connect(), server.connect());
    for _ in 0..100 {
        client.call("INCR n");
    }
    control.expect(&format!("REPLICAOF 127.0.0.1 {}", primary.port()), "+OK");
    control.eventually_up();
    control.eventually_info("aof_rewrite_in_progress", "0");
    control.eventually_info("aof_rewrite_scheduled", "0");
    client.expect("GET n", "nil");
    control.expect("REPLICAOF NO ONE", "+OK");
    client.expect("WAITAOF 1 0 0", "[:1 :0]");
    client.expect("INCR n", ":1");
}

#[test]
fn waits_for_replicas_can_be_called_off_and_end_with_the_role() {
    let other = Server::start(&PRIMARY);
    let server = Server::start(&PRIMARY);
    let (mut client, mut control) = (server.connect(), server.connect());
    client.expect("INCR n", ":1");
    let id = client.call("CLIENT ID").integer();
    client.send(b"WAIT 1 0\r\n");
    control.eventually_info("blocked_clients", "1");
    control.expect(&format!("CLIENT UNBLOCK {id}"), ":1");
    client.expect_next(":0");
    client.send(b"WAIT 1 0\r\n");
    let mut popping = server.connect();
    popping.send(b"BLPOP l 0\r\n");
    control.eventually_info("blocked_clients", "2");
    control.expect(&format!("REPLICAOF 127.0.0.1 {}", other.port()), "+OK");
    for client in [&mut client, &mut popping] {
        assert!(
            client.read().text().starts_with("UNBLOCKED force unblock from blocking operation")
        );
    }
    let figures = control.info("cmdstat_blpop");
    assert!(figures.starts_with("calls=1,") && figures.contains("failed_calls=1"), "{figures}");
}

#[test]
fn info_tells_of_a_full_synchronisation_on_both_sides() {
    if !is_carnelian() {
        // Others show less of it while they load.
        return;
    }
    let primary = Server::start(&PRIMARY);
    let mut there = primary.connect();
    // Over one connection: see `replication_beside` for two.
    let args = ["--repl-diskless-load", "swapdb", "--repl-rdb-channel", "no"];
    let replica = Server::start(&args);
    let mut here = replica.connect();
    here.expect("SET old 1", "+OK");
    there.expect("DEBUG POPULATE 1000 k 100", "+OK");
    assert_eq!(there.info("rdb_bgsave_in_progress"), "0");
    there.expect("CONFIG SET rdb-key-save-delay 1000000", "+OK");
    here.expect(&format!("REPLICAOF 127.0.0.1 {}", primary.port()), "+OK");
    here.eventually_info("loading", "1");
    assert_eq!(here.info("async_loading"), "0");
    assert_eq!(there.info("rdb_bgsave_in_progress"), "1");
    // Of another history: old data are not shown.
    here.expect("GET old", "-LOADING Redis is loading the dataset in memory");
    // It comes again, and waits.
    there.expect("CONFIG SET repl-diskless-sync-delay 100", "+OK");
    there.expect("CLIENT KILL TYPE replica", ":1");
    here.eventually_info("loading", "0");
    here.eventually("GET old", "1");
    there.eventually_info("rdb_bgsave_in_progress", "0");
}

#[test]
fn old_data_of_the_same_history_are_shown_while_new_ones_come() {
    if !is_carnelian() {
        return;
    }
    let primary = Server::start(&PRIMARY);
    let mut there = primary.connect();
    there.expect("SET old 1", "+OK");
    let args = ["--repl-diskless-load", "swapdb", "--repl-rdb-channel", "no"];
    let replica = replica_of(&primary, &args);
    let mut here = replica.connect();
    catch_up(&mut there, &mut here);
    there.expect("DEBUG POPULATE 1000 k 100", "+OK");
    there.expect("CONFIG SET rdb-key-save-delay 1000000", "+OK");
    let large = "v".repeat(64 << 10);
    there.expect("MULTI", "+OK");
    there.expect("CLIENT KILL TYPE replica", "+QUEUED");
    there.expect("CONFIG SET repl-backlog-size 16384", "+QUEUED");
    there.expect(&format!("SET large {large}"), "+QUEUED");
    there.call("EXEC");
    here.eventually_info("async_loading", "1");
    assert_eq!(here.info("loading"), "0");
    assert!(there.info("slave0").contains("state=wait_bgsave"));
    here.expect("GET old", "1");
    let loading = "-LOADING Redis is loading the dataset in memory";
    here.expect("REPLICAOF NO ONE", loading);
    here.expect("CONFIG SET appendonly no", loading);
    there.expect("CONFIG SET repl-diskless-sync-delay 100", "+OK");
    there.expect("CLIENT KILL TYPE replica", ":1");
    here.eventually_info("async_loading", "0");
    here.expect("CONFIG SET appendonly no", "+OK");
    here.expect("GET old", "1");
    here.expect("REPLICAOF NO ONE", "+OK");
}

#[test]
fn a_replica_that_takes_nothing_is_given_up_and_others_are_not() {
    if !is_carnelian() {
        return;
    }
    let timed = ["--repl-timeout", "2", "--repl-diskless-sync-delay", "20"];
    let together = ["--repl-diskless-sync-max-replicas", "2", "--rdbcompression", "no"];
    let primary = Server::starter().args(&timed).args(&together).start();
    let mut there = primary.connect();
    there.expect("DEBUG POPULATE 64 k 1000000", "+OK");
    let mut stalled = TcpStream::connect(("127.0.0.1", primary.port())).expect("the port answers");
    stalled.write_all(b"REPLCONF capa eof\r\nPSYNC ? -1\r\n").expect("it listens");
    let replica = Server::start(&["--repl-diskless-load", "swapdb"]);
    let mut here = replica.connect();
    here.expect(&format!("REPLICAOF 127.0.0.1 {}", primary.port()), "+OK");
    here.eventually_up();
    assert!(primary.log().contains("Disconnecting timedout replica (full sync)"));
    assert!(primary.log().contains("done reading from pipe, 1 replicas still up"));
    assert_eq!(there.info("sync_full"), "2");
    catch_up(&mut there, &mut here);
    here.expect("DBSIZE", ":64");
}

#[test]
fn a_replica_that_asks_for_data_is_sent_away() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&PRIMARY);
    let mut client = server.connect();
    client.expect("SET k 1", "+OK");
    for (command, name, error) in [
        ("GET k", "get", "Replica can't interact with the keyspace"),
        ("SET k 2", "set", "Replica can't interact with the keyspace"),
        ("SLOWLOG GET", "slowlog|get", ""),
    ] {
        let mut replica = server.connect();
        replica.send(b"PSYNC ? -1\r\n");
        assert!(replica.read().text().starts_with("FULLRESYNC "));
        replica.send(format!("{command}\r\n").as_bytes());
        replica.read_to_close();
        eventually_logged(&server, &format!("Replica generated a reply to command '{name}'"));
        eventually_logged(&server, error);
    }
    assert_eq!(server.log().matches("This master is sending an error to its replica").count(), 2);
    client.expect("GET k", "1");
}

#[test]
fn a_smaller_backlog_counts_at_once_for_who_comes_back() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    catch_up(&mut there, &mut here);
    let large = "v".repeat(16 << 10);
    there.expect("MULTI", "+OK");
    there.expect("CLIENT KILL TYPE replica", "+QUEUED");
    there.expect("CONFIG SET repl-backlog-size 16384", "+QUEUED");
    for n in 0..10 {
        there.expect(&format!("SET k{n} {large}"), "+QUEUED");
    }
    there.call("EXEC");
    there.eventually_info("sync_full", "2");
    catch_up(&mut there, &mut here);
    here.expect("STRLEN k9", ":16384");
}

#[test]
fn a_shorter_time_out_counts_for_a_link_that_is_being_made() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = Server::start(&[]);
    let mut client = server.connect();
    let port = silent.local_addr().expect("it is bound").port();
    client.expect(&format!("REPLICAOF 127.0.0.1 {port}"), "+OK");
    let (mut stream, _) = silent.accept().expect("a replica");
    let mut ping = [0; 14];
    stream.read_exact(&mut ping).expect("a PING");
    client.expect("CONFIG SET repl-timeout 1", "+OK");
    eventually_logged(&server, "Timeout connecting to the MASTER");
}

#[test]
fn a_server_that_waits_for_replicas_says_for_how_long_and_can_be_told_to_stay() {
    if !is_carnelian() {
        return;
    }
    let primary = Server::starter().args(&PRIMARY).args(&["--shutdown-timeout", "300"]).start();
    let replica = replica_of(&primary, &[]);
    let mut there = primary.connect();
    catch_up(&mut there, &mut replica.connect());
    replica.signal(Signal::STOP);
    there.expect("SET a 1", "+OK");
    let mut asking: Vec<Client> = (0..2).map(|_| primary.connect()).collect();
    for client in &mut asking {
        client.send(b"SHUTDOWN\r\n");
    }
    there.eventually_info("blocked_clients", "2");
    while !primary.log().contains("Waiting for replicas before shutting down") {
        sleep(Duration::from_millis(10));
    }
    let left: u64 = there.info("shutdown_in_milliseconds").parse().expect("a number");
    assert!((1..=300_000).contains(&left), "{left}");
    there.expect("SHUTDOWN ABORT", "+OK");
    for client in &mut asking {
        client.expect_next("-ERR Errors trying to SHUTDOWN. Check logs.");
    }
    assert!(!there.call("INFO server").text().contains("shutdown_in_milliseconds"));
    replica.signal(Signal::CONT);
    there.expect("SET a 2", "+OK");
    there.expect("WAIT 1 0", ":1");
}

#[test]
fn what_a_pause_holds_back_has_been_read() {
    let primary = Server::start(&PRIMARY);
    let replica = replica_of(&primary, &[]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    there.expect("SET k 1", "+OK");
    catch_up(&mut there, &mut here);
    let before = here.info("slave_repl_offset");
    here.expect("CLIENT PAUSE 1000000 WRITE", "+OK");
    there.expect("SET k 2", "+OK");
    let end = there.info("master_repl_offset");
    here.eventually_info("slave_read_repl_offset", &end);
    assert_eq!(here.info("slave_repl_offset"), before);
    here.expect("GET k", "1");
    here.expect("CLIENT UNPAUSE", "+OK");
    here.eventually_info("slave_repl_offset", &end);
    assert_eq!(here.info("slave_read_repl_offset"), end);
}

#[test]
fn a_slow_replica_costs_no_keys() {
    let primary = Server::starter()
        .args(&PRIMARY)
        .args(&["--maxmemory-policy", "allkeys-random", "--repl-backlog-size", "16kb"])
        .args(&["--client-output-buffer-limit", "replica 0 0 0"])
        .start();
    let replica = replica_of(&primary, &[]);
    let mut there = primary.connect();
    for n in 0..100 {
        there.expect(&format!("SETRANGE k{n} 9999 x"), ":10000");
    }
    catch_up(&mut there, &mut replica.connect());
    let figure = |client: &mut Client, name| client.info(name).parse::<u64>().expect("a number");
    let room = figure(&mut there, "used_memory") + (8 << 20);
    there.expect(&format!("CONFIG SET maxmemory {room}"), "+OK");
    replica.signal(Signal::STOP);
    // Sockets take some of it.
    let change = format!("SETRANGE k0 0 {}", "x".repeat(100_000));
    while figure(&mut there, "mem_clients_slaves") < 24 << 20 {
        there.expect(&change, ":100000");
    }
    assert!(16 << 20 < figure(&mut there, "mem_not_counted_for_evict"));
    there.expect("DBSIZE", ":100");
    assert_eq!(there.info("evicted_keys"), "0");
    replica.signal(Signal::CONT);
    catch_up(&mut there, &mut replica.connect());
}

#[test]
fn reload_forgets_functions_that_are_not_in_the_file() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("SAVE", "+OK");
    client.call_words(&["FUNCTION", "LOAD", LIBRARY]);
    client.expect("DEBUG RELOAD NOSAVE", "+OK");
    client.expect("FUNCTION LIST", "[]");
}

/// `propagation-error-behavior`: a replica that has other data goes on, or ends.
#[test]
fn a_command_of_the_primarys_that_fails_is_told_and_may_end_the_replica() {
    if !is_carnelian() {
        return;
    }
    let primary = Server::start(&PRIMARY);
    let mut replica = replica_of(&primary, &["--replica-read-only", "no"]);
    let (mut there, mut here) = (primary.connect(), replica.connect());
    here.eventually_up();
    here.expect("SET k v", "+OK");
    there.expect("SET other 1", "+OK");
    there.expect("LPUSH k a", ":1");
    catch_up(&mut there, &mut here);
    assert_eq!(here.info("unexpected_error_replies"), "1");
    eventually_logged(
        &replica,
        "This replica is sending an error to its master: 'WRONGTYPE Operation against a key holding \
         the wrong kind of value' after processing the command 'LPUSH'",
    );
    // Whoever lets clients write to a replica has it go on.
    here.expect("CONFIG SET propagation-error-behavior panic", "+OK");
    there.script("MULTI => +OK\nSET other 2 => +QUEUED\nLPUSH k b => +QUEUED\nEXEC => [+OK :2]");
    catch_up(&mut there, &mut here);
    assert_eq!(here.info("unexpected_error_replies"), "2");
    here.expect(
        "CONFIG SET replica-read-only yes propagation-error-behavior panic-on-replicas",
        "+OK",
    );
    there.expect("LPUSH k c", ":3");
    assert!(!replica.wait().success());
    assert!(replica.log().contains("This replica panicked sending an error to its master"));
}
