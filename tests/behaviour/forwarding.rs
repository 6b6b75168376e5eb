//! Every node's port of a database is its endpoint: wherever clients come in, the primary serves them.

use std::io::Read;
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::certificates::Authority;
use carnelian_tests::cluster::{Member, PASSWORD, PATIENCE};
use carnelian_tests::server::free_port;
use carnelian_tests::{Client, Transport, encode, is_carnelian, words};
use serde_json::{Value, json};

/// Three nodes of one cluster.
fn three() -> [Member; 3] {
    let first = Member::create(1);
    let place = first.place();
    let join = ["--cluster-join", &place];
    let others = [Member::start(2, PASSWORD, &join), Member::start(3, PASSWORD, &join)];
    let [second, third] = others;
    let nodes = [first, second, third];
    for node in &nodes {
        node.eventually_sees(3);
        node.eventually_shows_the_authority_of(&nodes[0]);
    }
    nodes
}

struct Database {
    uid: u64,
    port: u16,
    path: String,
    /// The places of the nodes: of the primary, of the replica if there is one, and of others.
    places: Vec<usize>,
}

/// Makes a database, with what is said here besides.
fn make(nodes: &[Member], more: &Value) -> Database {
    let port = free_port();
    let mut spec = json!({"name": format!("db-{port}"), "memory_size": 200 << 20, "port": port});
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let uid = nodes[0].change("POST", "/v1/bdbs", &spec)["uid"].as_u64().expect("its uid");
    let path = format!("/v1/bdbs/{uid}");
    nodes[0].eventually(&path, |database| database["status"] == "active");
    let mut places: Vec<usize> =
        nodes[0].shards(uid, "role").iter().map(|(node, _)| node - 1).collect();
    places.extend((0..nodes.len()).filter(|place| !places.contains(place)).collect::<Vec<_>>());
    Database { uid, port, path, places }
}

impl Database {
    fn change(&self, nodes: &[Member], change: &Value) {
        nodes[0].change("PUT", &self.path, change);
        nodes[0].eventually(&self.path, |database| database["status"] == "active");
    }

    /// A client at each node: at the primary's first, then at the others.
    fn clients(&self, nodes: &[Member]) -> Vec<Client> {
        self.places.iter().map(|place| nodes[*place].client(self.port)).collect()
    }
}

/// Where a client's own end is.
fn own_address(client: &Client) -> String {
    let Transport::Tcp(socket) = client.transport() else { panic!("over TCP") };
    socket.local_addr().expect("it is connected").to_string()
}

/// All that clients do to a database, from all nodes.
fn use_it(nodes: &[Member], database: &Database, tag: &str) {
    let mut clients = database.clients(nodes);
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect(&format!("SET {tag}{place} {place}"), "+OK");
        assert_eq!(client.info("role"), "master");
        let info = client.call("CLIENT INFO").text();
        let address = own_address(client);
        assert!(info.contains(&format!(" addr={address} ")), "{info} {address}");
        assert!(info.contains(" flags=N "), "{info}");
    }
    for client in &mut clients {
        for place in 0..3 {
            client.expect(&format!("GET {tag}{place}"), &place.to_string());
        }
    }

    // Transactions are each client's own.
    clients[1].script("MULTI => +OK\nINCR n => +QUEUED\nEXEC => [:1]");
    clients[2].script("MULTI => +OK\nINCR n => +QUEUED\nEXEC => [:2]\nDEL n => :1");

    // Who waits at one node is served by what comes in at another.
    clients[1].send_words(&["BLPOP", "line", "0"]);
    while clients[2].info("blocked_clients") != "1" {
        sleep(Duration::from_millis(5));
    }
    clients[2].expect("RPUSH line x", ":1");
    clients[1].expect_next("[line x]");
    clients[2].expect("SUBSCRIBE news", "[subscribe news :1]");
    clients[1].expect("PUBLISH news good", ":1");
    clients[2].expect_next("[message news good]");
    clients[2].expect("UNSUBSCRIBE news", "[unsubscribe news :0]");

    // Much at once, and large.
    for client in &mut clients[1..] {
        let mut frames = Vec::new();
        for _ in 0..10_000 {
            encode(&["INCR", "counter"], &mut frames);
        }
        client.send(&frames);
        for count in 1..=10_000 {
            client.expect_next(&format!(":{count}"));
        }
        let large = "x".repeat(3 << 20);
        assert_eq!(client.call_words(&["SET", "large", &large]).to_string(), "+OK");
        assert_eq!(client.call("GET large").text(), large);
        client.expect("DEL counter large", ":2");
    }

    // Who has said all is still answered.
    let mut last = nodes[database.places[2]].client(database.port);
    last.send(b"PING\r\nECHO last\r\n");
    last.finish_writing();
    assert_eq!(last.read_to_close(), b"+PONG\r\n$4\r\nlast\r\n");
}

#[test]
fn a_database_is_used_through_every_node_with_encryption_and_without_and_switched() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let database = make(&nodes, &json!({"replication": true, "data_internode_encryption": true}));
    let other = make(&nodes, &json!({}));
    use_it(&nodes, &database, "a");
    use_it(&nodes, &other, "b");
    for node in &nodes {
        node.get(&format!("/v1/local/bdbs/{}/endpoint/availability", database.uid));
    }

    // The documented way: each client of this database, and no other.
    let mut others = other.clients(&nodes);
    for on in [false, true] {
        let mut clients = database.clients(&nodes);
        clients.iter_mut().for_each(|client| drop(client.expect("PING", "+PONG")));
        clients[2].send_words(&["BLPOP", "nothing", "0"]);
        database.change(&nodes, &json!({"data_internode_encryption": on}));
        for client in &mut clients {
            client.expect_closed();
        }
        // Whoever comes after that stays.
        let mut again = database.clients(&nodes);
        again.iter_mut().for_each(|client| drop(client.expect("PING", "+PONG")));
        let how = if on { 1 } else { 0 };
        let ends = Instant::now() + PATIENCE;
        while !again[0].info("endpoint_from0").ends_with(&format!(",clients=1,tls={how}")) {
            assert!(Instant::now() < ends, "{}", again[0].info("endpoint_from0"));
            sleep(Duration::from_millis(10));
        }
        use_it(&nodes, &database, "c");
        sleep(Duration::from_secs(4));
        again.iter_mut().for_each(|client| drop(client.expect("GET c0", "0")));
    }
    others.iter_mut().for_each(|client| drop(client.expect("GET b0", "0")));

    // Gracefully: nobody notices, and yet nothing goes on unencrypted.
    database.change(&nodes, &json!({"data_internode_encryption": false}));
    let mut clients = database.clients(&nodes);
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect(&format!("CLIENT SETNAME at{place}"), "+OK");
    }
    clients[1].send_words(&["BLPOP", "awaited", "0"]);
    let busy = nodes[database.places[2]].client(database.port);
    let work = std::thread::spawn(move || {
        let mut busy = busy;
        let ends = Instant::now() + Duration::from_secs(2);
        let mut count = 0;
        while Instant::now() < ends {
            let mut frames = Vec::new();
            (0..100).for_each(|_| encode(&["INCR", "busy"], &mut frames));
            busy.send(&frames);
            for _ in 0..100 {
                count += 1;
                busy.expect_next(&format!(":{count}"));
            }
        }
    });
    let change = json!({"data_internode_encryption": true, "graceful": true});
    database.change(&nodes, &change);
    let ends = Instant::now() + PATIENCE;
    loop {
        let froms = ["endpoint_from0", "endpoint_from1"].map(|field| clients[0].info(field));
        let is_moved = |from: &String| {
            let figure = |name: &str| {
                let rest = from.split(&format!("{name}=")).nth(1).unwrap();
                rest.split(',').next().unwrap().to_owned()
            };
            figure("clients") == figure("tls")
        };
        if froms.iter().all(is_moved) {
            break;
        }
        assert!(Instant::now() < ends, "{froms:?}");
        sleep(Duration::from_millis(20));
    }
    work.join().unwrap();
    clients[0].expect("RPUSH awaited x", ":1");
    clients[1].expect_next("[awaited x]");
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect("CLIENT GETNAME", &format!("at{place}"));
    }

    // Certificates are replaced on both sides, and clients stay where they are.
    let links = |client: &mut Client| -> Vec<String> {
        let info = client.call("INFO internode").text();
        let lines = info.lines().filter(|line| line.contains("plane=data,direction=incoming"));
        lines.map(|line| line.split("own_serial=").nth(1).unwrap().to_owned()).collect()
    };
    let before: Vec<String> = links(&mut clients[0])
        .iter()
        .flat_map(|it| it.split(",peer_serial=").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(4 <= before.len(), "{before:?}");
    nodes[1].change("PUT", "/v1/cluster/certificates/rotate", &json!({}));
    let ends = Instant::now() + PATIENCE;
    loop {
        let now = links(&mut clients[0]);
        if now.iter().all(|link| before.iter().all(|serial| !link.contains(serial))) {
            break;
        }
        assert!(Instant::now() < ends, "{before:?} {now:?}");
        clients.iter_mut().for_each(|client| drop(client.expect("INCR kept", "?")));
        sleep(Duration::from_millis(20));
    }
    for (place, client) in clients.iter_mut().enumerate() {
        client.expect("CLIENT GETNAME", &format!("at{place}"));
    }

    // What is deleted is gone everywhere, and nothing else is.
    nodes[0].change("DELETE", &database.path, &Value::Null);
    clients.iter_mut().for_each(Client::expect_closed);
    nodes[0].eventually("/v1/bdbs", |all| all.as_array().is_some_and(|all| all.len() == 2));
    let is_closed =
        |node: &Member| TcpStream::connect((node.address.as_str(), database.port)).is_err();
    assert!(nodes.iter().all(is_closed));
    others.iter_mut().for_each(|client| drop(client.expect("GET b0", "0")));
}

#[test]
fn clients_are_met_by_the_databases_rules_at_every_node() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "clients");
    let identity = authority.client("somebody");
    let pem = std::fs::read_to_string(&authority.certificate).unwrap();
    for encrypted in [false, true] {
        let database = make(
            &nodes,
            &json!({
                "tls_mode": "enabled", "data_internode_encryption": encrypted,
                "authentication_redis_pass": "secret", "maxclients": 20,
            }),
        );
        for place in &database.places {
            let node = &nodes[*place];
            let mut plain = node.client(database.port);
            plain.expect_refusal(
                b"PING\r\n",
                "-ERR this port requires TLS (transit-encryption-mode is 'required'): connect \
                 with TLS",
            );
            let mut client = node.tls_client(database.port, None).unwrap();
            client.expect("GET k", "-NOAUTH Authentication required.");
            client.expect(
                "AUTH wrong",
                "-WRONGPASS invalid username-password pair or user is disabled.",
            );
            client.expect("AUTH secret", "+OK");
            client.expect("SET k v", "+OK");
            client.expect("GET k", "v");
            let large = "x".repeat(1 << 20);
            assert_eq!(client.call_words(&["ECHO", &large]).text(), large);
        }
        // As many as the database takes, wherever they come in.
        let mut all = Vec::new();
        let refused = loop {
            let node = &nodes[database.places[all.len() % 3]];
            let mut client = node.tls_client(database.port, None).unwrap();
            match client.call("AUTH secret").to_string().as_str() {
                "+OK" => all.push(client),
                other => break other.to_owned(),
            }
            assert!(all.len() <= 20);
        };
        assert_eq!(refused, "-ERR max number of clients reached");
        drop(all);

        database.change(
            &nodes,
            &json!({
                "enforce_client_authentication": "enabled",
                "authentication_ssl_client_certs": [{"client_cert": pem}],
            }),
        );
        for place in &database.places {
            let node = &nodes[*place];
            let refused = node.tls_client(database.port, None).map(|mut client| {
                let mut frame = Vec::new();
                encode(&words("PING").unwrap(), &mut frame);
                client.try_send(&frame).is_err() || client.try_read().is_err()
            });
            assert!(refused.unwrap_or(true));
            let mut client = node.tls_client(database.port, Some(&identity)).unwrap();
            client.eventually("AUTH secret", "+OK");
            client.expect("GET k", "v");
        }
    }
}

#[test]
fn a_surviving_nodes_port_leads_to_the_new_primary() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let spec = json!({"replication": true, "data_internode_encryption": true});
    let database = make(&nodes, &spec);
    let [old, new, third] = database.places[..] else { panic!("three nodes") };
    let mut at_third = nodes[third].client(database.port);
    let mut at_replica = nodes[new].client(database.port);
    at_third.expect("SET k v", "+OK");
    at_third.expect("WAIT 1 60000", ":1");
    at_replica.expect("GET k", "v");

    // By intent: both are sent away, and find the other primary where they were.
    let shard = nodes[0].get(&format!("{}/shards", database.path))[0]["uid"].clone();
    let shard = shard.as_str().expect("its uid").to_owned();
    let path = format!("/v1/shards/{shard}/actions/failover");
    let mut at_primary = nodes[old].client(database.port);
    at_primary.expect("GET k", "v");
    nodes[0].change("POST", &path, &json!({}));
    at_third.expect_closed();
    at_replica.expect_closed();
    at_primary.expect_closed();
    for place in [old, new, third] {
        eventually(&nodes[place], database.port, "SET k w");
    }
    assert_eq!(nodes[0].shards(database.uid, "role")[0], (new + 1, "master".to_owned()));
    let mut at_third = nodes[third].client(database.port);
    at_third.eventually("WAIT 1 1000", ":1");

    // The primary's node is gone.
    nodes[new].server.kill();
    let since = Instant::now();
    at_third.expect_closed();
    eventually(&nodes[third], database.port, "SET k x");
    assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
    nodes[third].client(database.port).expect("GET k", "x");
    nodes[old].client(database.port).expect("GET k", "x");

    // Nobody is primary: a clear word, and the end.
    nodes[old].server.kill();
    let mut lost = nodes[third].client(database.port);
    lost.expect_refusal(
        b"PING\r\n",
        "-MASTERDOWN The primary of this database cannot be reached. Try again later.",
    );
}

/// Until a command is done on some connection.
#[track_caller]
fn eventually(node: &Member, port: u16, command: &str) {
    let ends = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < ends {
        let mut client = node.client(port);
        let mut frame = Vec::new();
        encode(&words(command).expect("a command"), &mut frame);
        match client.try_send(&frame).map_err(Into::into).and_then(|()| client.try_read()) {
            Ok(reply) if reply.to_string() == "+OK" => return,
            Ok(reply) => last = reply.to_string(),
            Err(error) => last = error.to_string(),
        }
        sleep(Duration::from_millis(20));
    }
    panic!("{command} at {}: {last}", node.address);
}

/// In KiB.
fn resident(node: &Member) -> u64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn who_reads_slowly_costs_the_node_between_nothing() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    for encrypted in [true, false] {
        let database = make(&nodes, &json!({"data_internode_encryption": encrypted}));
        let between = &nodes[database.places[2]];
        let mut client = between.client(database.port);
        let value = "x".repeat(1 << 20);
        assert_eq!(client.call_words(&["SET", "k", &value]).to_string(), "+OK");
        let before = resident(between);
        const REPLIES: usize = 400;
        let mut frames = Vec::new();
        (0..REPLIES).for_each(|_| encode(&["GET", "k"], &mut frames));
        client.send(&frames);
        // Nothing is read until nothing moves any more.
        let mut watch = between.client(database.port);
        let ends = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < ends {
            sleep(Duration::from_millis(300));
            let now = watch.info("total_net_output_bytes");
            let (a, b) = (last.parse::<u64>().unwrap_or(0), now.parse::<u64>().unwrap());
            last = now;
            if b - a < 100_000 {
                break;
            }
        }
        let grown = resident(between).saturating_sub(before);
        assert!(grown < 20 << 10, "{grown} KiB more for {REPLIES} MiB of replies");
        let Transport::Tcp(socket) = client.transport() else { panic!("over TCP") };
        let mut socket = socket.try_clone().unwrap();
        let mut left = REPLIES * ("$1048576\r\n".len() + value.len() + 2);
        let mut piece = vec![0; 1 << 16];
        while 0 < left {
            left -= socket.read(&mut piece).unwrap();
        }
        client.expect("PING", "+PONG");
    }
}

#[test]
fn database_1_of_a_node_that_joined_leads_to_that_of_the_cluster() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let place = first.place();
    let mut second = Member::start(2, PASSWORD, &["--cluster-join", &place]);
    second.eventually_sees(2);
    first.client(first.server.port()).expect("SET k first", "+OK");
    // At the port that the cluster names, and at its own.
    for port in [first.server.port(), second.server.port()] {
        let mut client = second.client(port);
        client.eventually("GET k", "first");
        client.expect("INCR n", if port == first.server.port() { ":1" } else { ":2" });
    }
    // From the first moment of a start on.
    second.server.kill();
    second.server.start_again().expect("it starts again");
    for _ in 0..50 {
        second.client(second.server.port()).expect("GET k", "first");
    }
    first.client(first.server.port()).expect("GET n", "2");
}
