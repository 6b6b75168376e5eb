//! A reactor over real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_config::{Config, Permission};

use crate::clients::ClientShared;
use crate::configure;
use crate::testing::Bench;

/// The one client there is, once it has been accepted.
fn only_client(bench: &Bench) -> Arc<ClientShared> {
    let clients = bench.database.clients.list();
    assert_eq!(clients.len(), 1);
    Arc::clone(&clients[0])
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "{what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_client_is_killed_from_another_thread() {
    let bench = Bench::start(Config::default());
    let mut stream = bench.connect();
    bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
    only_client(&bench).kill();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    wait_until("the client is gone", || bench.database.clients.is_empty());
}

#[test]
fn what_others_deliver_comes_after_the_replies() {
    let bench = Bench::start(Config::default());
    let mut stream = bench.connect();
    bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
    let client = only_client(&bench);
    let long: Arc<[u8]> = format!("+{}\r\n", "x".repeat(1000)).into_bytes().into();
    let mut expected = String::new();
    for i in 0..100 {
        client.deliver(format!("+{i}\r\n").into_bytes().into());
        client.deliver(Arc::clone(&long));
        expected += &format!("+{i}\r\n{}", std::str::from_utf8(&long).unwrap());
    }
    bench.exchange(&mut stream, "", &expected);
    bench.exchange(&mut stream, "PING\r\n", "+PONG\r\n");
}

#[test]
fn all_reactors_get_clients_and_count_for_them() {
    let bench = Bench::start(Config::default());
    let mut streams: Vec<_> = (0..8).map(|_| bench.connect()).collect();
    for stream in &mut streams {
        bench.exchange(stream, "PING\r\nPING\r\n", "+PONG\r\n+PONG\r\n");
    }
    let stats = &bench.database.stats;
    for reactor in 0..Bench::REACTORS {
        assert_eq!(stats.of(reactor).commands_processed.value(), 8);
    }
    assert_eq!(stats.sum(|counters| &counters.connections_received), 8);
    assert_eq!(stats.sum(|counters| &counters.net_input_bytes), 96);
    stats.reset();
    assert_eq!(stats.sum(|counters| &counters.net_input_bytes), 0);
}

#[test]
fn a_pipeline_of_any_depth_is_answered_in_order() {
    let bench = Bench::start(Config::default());
    let mut stream = bench.connect();
    let mut requests = String::new();
    let mut replies = String::new();
    for i in 0..20_000 {
        match i % 3 {
            0 => requests += &format!("*2\r\n$4\r\nECHO\r\n$5\r\n{i:05}\r\n"),
            1 => requests += &format!("ECHO {i:05}\r\n"),
            _ => requests += &format!("ECHO \"\\x30{:04}\"\r\n\r\n", i % 10_000),
        }
        let shown = if i % 3 == 2 { i % 10_000 } else { i };
        replies += &format!("$5\r\n{shown:05}\r\n");
    }
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(requests.as_bytes()).unwrap());
        bench.exchange(&mut stream, "", &replies);
    });
}

#[test]
fn many_large_replies_leave_while_the_batch_goes_on() {
    let bench = Bench::start(Config::default());
    let mut stream = bench.connect();
    let value = "v".repeat(100_000);
    let request = format!("*2\r\n$4\r\nECHO\r\n$100000\r\n{value}\r\n").repeat(40);
    let reply = format!("$100000\r\n{value}\r\n").repeat(40);
    let mut writer = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(request.as_bytes()).unwrap());
        bench.exchange(&mut stream, "", &reply);
    });
}

#[test]
fn the_port_moves_and_stays_where_the_new_one_is_taken() {
    let bench = Bench::start(Config::default());
    let set = |name: &str, value: String| {
        configure::change(&bench.server, &bench.database, false, |config| {
            config.set(&[(name.as_bytes(), value.as_bytes())], Permission::Ordinary)
        })
        .map_err(|error| error.to_string())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let error = set("port", taken_port.to_string()).unwrap_err();
    assert!(error.ends_with(" - Unable to listen on this port. Check server logs."), "{error}");
    // An address of documentation, which no machine has.
    let error = set("bind", "192.0.2.1".to_owned()).unwrap_err();
    assert!(error.ends_with(" - Failed to bind to specified addresses."), "{error}");
    bench.exchange(&mut bench.connect(), "PING\r\n", "+PONG\r\n");

    drop(taken);
    set("port", taken_port.to_string()).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", bench.port)).is_err());
    let mut moved = std::net::TcpStream::connect(("127.0.0.1", taken_port)).unwrap();
    bench.exchange(&mut moved, "PING\r\n", "+PONG\r\n");
    assert_eq!(bench.server.config().port, taken_port);
}

#[test]
fn the_encryption_mode_changes_for_new_connections() {
    let bench = Bench::start(Config::default());
    let mut old = bench.connect();
    bench.exchange(&mut old, "PING\r\n", "+PONG\r\n");
    configure::change(&bench.server, &bench.database, false, |config| {
        config.set(&[(b"transit-encryption-mode", b"required")], Permission::Ordinary)
    })
    .unwrap();
    bench.exchange(&mut old, "PING\r\n", "+PONG\r\n");
    let mut new = bench.connect();
    new.write_all(b"PING\r\n").unwrap();
    let mut said = String::new();
    new.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("-ERR ") && said.contains("TLS"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_read_is_refused_and_the_old_one_stays() {
    let bench = Bench::start(Config::default());
    let before = bench.database.tls.configuration().unwrap().certificates.len();
    let error = configure::change(&bench.server, &bench.database, false, |config| {
        config.set(&[(b"tls-cert-file", b"/no/such.pem")], Permission::Ordinary)
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("/no/such.pem"), "{error}");
    assert_eq!(bench.database.tls.configuration().unwrap().certificates.len(), before);
    assert!(bench.server.config().tls_cert_file.as_os_str().is_empty());
}

/// Clients whose requests have all come when their reactors look for the first time.
fn at_once(bench: &Bench, clients: &mut [TcpStream], request: impl Fn(usize) -> String) {
    let keyspace = &bench.database.keyspace;
    let mut others: Vec<_> = (0..Bench::REACTORS).map(|_| bench.connect()).collect();
    let held = keyspace.lock_all();
    // A reactor that waits for a key looks at nobody else.
    for other in &mut others {
        other.write_all(b"GET key\r\n").unwrap();
    }
    sleep(Duration::from_millis(50));
    for (index, client) in clients.iter_mut().enumerate() {
        client.write_all(request(index).as_bytes()).unwrap();
    }
    drop(held);
}

/// What clients send one after the other, so that they are known to send little.
fn warm_up(bench: &Bench, clients: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..clients).map(|_| bench.connect()).collect();
    clients.iter_mut().for_each(|client| bench.exchange(client, "PING\r\n", "+PONG\r\n"));
    clients
}

#[test]
fn requests_that_come_at_once_are_answered_each_to_its_client() {
    let bench = Bench::start(Config::default());
    let mut clients = warm_up(&bench, 50);
    for round in 0..3 {
        // Some are whole, some come in two pieces, some are longer than what is read ahead.
        let value = |index: usize| "v".repeat([10, 300, 900, 5000][index % 4]);
        let request = |index: usize| {
            let value = value(index);
            let length = value.len();
            format!(
                "*3\r\n$3\r\nSET\r\n$4\r\nk{index:03}\r\n${length}\r\n{value}\r\n\
                 *2\r\n$3\r\nGET\r\n$4\r\nk{index:03}\r\n"
            )
        };
        at_once(&bench, &mut clients, |index| {
            let request = request(index);
            request[..request.len() - if index % 3 == 0 { 7 } else { 0 }].to_owned()
        });
        for (index, client) in clients.iter_mut().enumerate() {
            let whole = request(index);
            let rest = if index % 3 == 0 { &whole[whole.len() - 7..] } else { "" };
            let value = value(index);
            bench.exchange(client, rest, &format!("+OK\r\n${}\r\n{value}\r\n", value.len()));
        }
        clients.rotate_left(round + 1);
    }
}

#[test]
fn a_client_that_is_killed_has_nothing_run_that_was_read_ahead() {
    let bench = Bench::start(Config::default());
    let mut clients = warm_up(&bench, 40);
    let shared = bench.database.clients.list();
    let ids: Vec<u64> = shared.iter().map(|client| client.id).collect();
    let addresses: Vec<_> = clients.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    // Each even one kills its neighbour, who adds to a list at the same moment.
    let id_of = |index: usize| {
        let at = shared.iter().position(|client| client.address == addresses[index]);
        ids[at.unwrap()]
    };
    at_once(&bench, &mut clients, |index| match index % 2 {
        0 => format!("CLIENT KILL ID {}\r\n", id_of(index + 1)),
        _ => format!("RPUSH list {index}\r\n"),
    });
    let mut pushed = 0;
    for (index, client) in clients.iter_mut().enumerate() {
        let mut said = [0; 64];
        match (index % 2, client.read(&mut said)) {
            (0, Ok(count)) => assert_eq!(&said[..count], b":1\r\n"),
            // Its request ran before it was killed, and it may have been told so.
            (_, Ok(count)) => pushed += usize::from(count != 0),
            (_, Err(_)) => {}
        }
    }
    let mut observer = bench.connect();
    observer.write_all(b"LLEN list\r\nPING\r\n").unwrap();
    let mut said = [0; 64];
    let mut length = 0;
    while !said[..length].ends_with(b"+PONG\r\n") {
        length += observer.read(&mut said[length..]).unwrap();
    }
    let text = String::from_utf8_lossy(&said[1..length]).into_owned();
    let listed: usize = text.split("\r\n").next().unwrap().parse().unwrap();
    assert!(pushed <= listed && listed <= 20, "{pushed} {listed}");
    wait_until("those who killed are left", || bench.database.clients.len() == 20 + 1);
}
