//! Clusters that make themselves: joining, databases on several nodes, certificates, and a primary that is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::cluster::{Member, PASSWORD, PATIENCE, USER, ask};
use carnelian_tests::server::{Signal, free_port};
use carnelian_tests::writer::Writer;
use carnelian_tests::{Client, is_carnelian};
use serde_json::{Value, json};

/// What a server at 127.0.0.`place` is asked for, and with which error it ends.
fn join(joiner: &Member, body: &Value) -> Value {
    let (status, answer) = joiner.ask("POST", "/v1/bootstrap/join_cluster", body);
    assert_eq!(status, 200, "{answer}");
    let answer = joiner.eventually("/v1/bootstrap", |answer| {
        let state = answer["bootstrap_status"]["state"].as_str().unwrap_or_default();
        ["error", "completed"].contains(&state)
    });
    answer["bootstrap_status"].clone()
}

fn request(node: &str, user: &str, password: &str) -> Value {
    json!({
        "cluster": {"nodes": [node]},
        "credentials": {"username": user, "password": password},
    })
}

#[test]
fn a_node_joins_by_an_admins_credentials_alone_and_can_try_again() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let joiner = Member::start(2, PASSWORD, &["--cluster-bootstrap", "manual"]);
    let viewer = json!({
        "email": "viewer@cluster.test", "password": PASSWORD, "name": "viewer", "role": "db_viewer",
    });
    first.change("POST", "/v1/users", &viewer);
    let ca = |member: &Member| {
        read_to_string(member.server.folder().join("client-ca.pem")).expect("an authority")
    };
    let place = first.place();
    let mut wrong_authority = request(&place, USER, PASSWORD);
    wrong_authority["cluster"]["trusted_ca"] = json!(ca(&joiner));
    let nobody = format!("127.0.0.1:{}", free_port());
    let cases = [
        (request(&place, USER, "wrong-password"), "access_denied"),
        (request(&place, "viewer@cluster.test", PASSWORD), "access_denied"),
        (request(&nobody, USER, PASSWORD), "connect_error"),
        (wrong_authority, "connect_error"),
    ];
    for (body, code) in cases {
        let status = join(&joiner, &body);
        assert_eq!((&status["state"], &status["error_code"]), (&json!("error"), &json!(code)));
        assert!(!joiner.server.folder().join("internode/seal.key").exists());
    }
    assert_eq!(first.get("/v1/nodes").as_array().map(Vec::len), Some(1));

    let mut right = request(&place, USER, PASSWORD);
    right["cluster"]["trusted_ca"] = json!(ca(&first));
    let status = join(&joiner, &right);
    assert_eq!(status["state"], "completed", "{status}\n{}", joiner.server.log());
    first.eventually_sees(2);
    joiner.eventually_sees(2);
    let (status, answer) = joiner.ask("POST", "/v1/bootstrap/join_cluster", &right);
    assert_eq!((status, &answer["error_code"]), (409, &json!("bootstrap_in_progress")));

    // What it was given is in no log.
    let secret = |member: &Member| {
        read_to_string(member.server.folder().join("internode/seal.key")).expect("a key")
    };
    assert_eq!(secret(&first), secret(&joiner));
    let audit = read_to_string(first.server.folder().join("audit.log")).expect("a log");
    assert!(audit.contains("/v1/cluster/admit/2/sign"), "{audit}");
    for log in [audit, first.server.log(), joiner.server.log()] {
        assert!(!log.contains(secret(&first).trim()) && !log.contains(PASSWORD));
    }
}

/// Three nodes, two of which have joined by directive.
pub fn three() -> [Member; 3] {
    let first = Member::create(1);
    let place = first.place();
    let join = ["--cluster-join", &place];
    let nodes = [Member::start(2, PASSWORD, &join), Member::start(3, PASSWORD, &join)];
    let [second, third] = nodes;
    let nodes = [first, second, third];
    for node in &nodes {
        node.eventually_sees(3);
    }
    nodes
}

/// Makes a database with a replica, and tells which nodes have it: the primary's place first.
pub fn make_database(nodes: &[Member], port: u16) -> (u64, [usize; 2]) {
    let spec = json!({
        "name": "replicated", "port": port, "memory_size": 100 << 20, "replication": true,
        "data_internode_encryption": true,
    });
    let uid = nodes[0].change("POST", "/v1/bdbs", &spec)["uid"].as_u64().expect("its uid");
    nodes[0].eventually(&format!("/v1/bdbs/{uid}"), |database| database["status"] == "active");
    let shards = nodes[0].get(&format!("/v1/bdbs/{uid}/shards"));
    let place = |role: &str| {
        let all = shards.as_array().expect("a list");
        let shard = all.iter().find(|shard| shard["role"] == role).expect("one of this role");
        let node = shard["node_uid"].as_str().and_then(|node| node.parse::<usize>().ok());
        node.expect("a node") - 1
    };
    (uid, [place("master"), place("slave")])
}

/// Until a client gets this reply.
#[track_caller]
pub fn eventually(client: &mut Client, command: &str, reply: &str) {
    let ends = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < ends {
        last = client.call(command).to_string();
        if last == reply {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{command} is still {last}");
}

/// The same over as many connections as it takes: clients are sent away when the primary changes.
#[track_caller]
fn eventually_over(client: &mut Client, connect: impl Fn() -> Client, command: &str, reply: &str) {
    let ends = Instant::now() + PATIENCE;
    while Instant::now() < ends {
        let words = carnelian_tests::words(command).expect("a command");
        let mut frame = Vec::new();
        carnelian_tests::encode(&words, &mut frame);
        match client.try_send(&frame).ok().and_then(|()| client.try_read().ok()) {
            Some(got) if got.to_string() == reply => return,
            Some(_) => {}
            None => *client = connect(),
        }
        sleep(Duration::from_millis(10));
    }
    panic!("{command} does not come to {reply}");
}

/// Until the replica is linked this way.
#[track_caller]
pub fn eventually_linked(nodes: &[Member], uid: u64, how: &str) {
    let ends = Instant::now() + PATIENCE;
    while Instant::now() < ends {
        let is_up = nodes[0].shards(uid, "master_link_status")[1].1 == "up";
        if is_up && nodes[0].shards(uid, "internode_primary")[1].1.ends_with(how) {
            return;
        }
        sleep(Duration::from_millis(10));
    }
    panic!("the link is not {how}");
}

fn serials(nodes: &[Member], uid: u64) -> Vec<String> {
    ["internode_control_cert_serial", "internode_data_cert_serial"]
        .iter()
        .flat_map(|name| nodes[0].shards(uid, name))
        .map(|(_, serial)| serial)
        .collect()
}

#[test]
fn a_database_on_two_nodes_is_switched_and_its_certificates_replaced_while_it_is_used() {
    if !is_carnelian() {
        return;
    }
    let nodes = three();
    let port = free_port();
    let (uid, [primary, replica]) = make_database(&nodes, port);
    let (mut there, mut here) = (nodes[primary].client(port), nodes[replica].client(port));
    eventually(&mut there, "SET before 1", "+OK");
    there.expect("WAIT 1 60000", ":1");
    here.expect("GET before", "1");
    eventually_linked(&nodes, uid, "link=tls");
    let full = there.info("sync_full");

    let path = format!("/v1/bdbs/{uid}");
    for (setting, how) in [(false, "link=plain"), (true, "link=tls")] {
        nodes[0].change("PUT", &path, &json!({"data_internode_encryption": setting}));
        nodes[0].eventually(&path, |database| database["status"] == "active");
        // Connections of clients were closed.
        (there, here) = (nodes[primary].client(port), nodes[replica].client(port));
        eventually_linked(&nodes, uid, how);
        there.expect(&format!("SET {how} 1"), "+OK");
        there.expect("WAIT 1 60000", ":1");
        here.expect(&format!("GET {how}"), "1");
    }
    assert_eq!(there.info("sync_full"), full, "{}", nodes[primary].server.log());

    let before = serials(&nodes, uid);
    nodes[1].change("PUT", "/v1/cluster/certificates/rotate", &json!({}));
    let after = serials(&nodes, uid);
    assert!(before.iter().all(|serial| !after.contains(serial)), "{before:?} {after:?}");
    let of_nodes = nodes[2].get("/v1/cluster/certificates/status");
    for serial in &after {
        assert!(of_nodes.to_string().to_lowercase().contains(&serial.to_lowercase()), "{serial}");
    }
    there.expect("SET after 1", "+OK");
    there.expect("WAIT 1 60000", ":1");
    here.expect("GET after", "1");
    assert_eq!(there.info("sync_full"), full);
}

#[test]
fn a_primary_that_is_lost_is_replaced_and_one_that_is_cut_off_takes_no_writes() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, [primary, _]) = make_database(&nodes, port);
    let mut there = nodes[primary].client(port);
    eventually(&mut there, "SET kept 1", "+OK");
    there.expect("WAIT 1 60000", ":1");

    // Most of the nodes are silent.
    let others: Vec<usize> = (0..3).filter(|place| *place != primary).collect();
    for place in &others {
        nodes[*place].server.signal(Signal::STOP);
    }
    let fenced = "-READONLY This node is cut off from its cluster; another may be primary.";
    eventually(&mut there, "SET lost 1", fenced);
    there.expect("GET kept", "1");
    for place in &others {
        nodes[*place].server.signal(Signal::CONT);
    }
    nodes[0].eventually_sees(3);

    // Whoever is primary by now goes for good.
    let ends = Instant::now() + PATIENCE;
    let (old, new) = loop {
        match nodes[0].shards(uid, "role").as_slice() {
            [(old, one), (new, other)] if one == "master" && other == "slave" => {
                break (old - 1, new - 1);
            }
            _ => assert!(Instant::now() < ends, "there is no one primary"),
        }
        sleep(Duration::from_millis(20));
    };
    let mut there = nodes[old].client(port);
    eventually(&mut there, "SET kept 3", "+OK");
    eventually(&mut there, "WAIT 1 1000", ":1");
    nodes[old].server.kill();
    let mut here = nodes[new].client(port);
    eventually_over(&mut here, || nodes[new].client(port), "SET now 1", "+OK");
    here.expect("GET kept", "3");

    // It comes back as a replica.
    nodes[old].server.start_again().expect("it starts again");
    nodes[new].eventually_sees(3);
    let mut back = nodes[old].client(port);
    eventually_over(&mut back, || nodes[old].client(port), "GET now", "1");
    let is_back = |shards: &Value| {
        let shards = shards.as_array().map(Vec::as_slice).unwrap_or_default();
        shards.iter().any(|it| it["role"] == "slave" && it["sync"]["status"] == "link_up")
    };
    nodes[new].eventually(&format!("/v1/bdbs/{uid}/shards"), is_back);
    assert_eq!(nodes[new].shards(uid, "role")[1], (old + 1, "slave".to_owned()));
}

/// The issuers of what is shown between nodes, as one of them tells it.
fn issuers(node: &Member) -> BTreeSet<String> {
    let all = node.get("/v1/cluster/certificates/status");
    let internal = all.as_array().expect("a list").iter().filter(|it| {
        it["name"].as_str().is_some_and(|name| name.ends_with("_internode_encryption"))
    });
    let issuers: Vec<_> = internal.map(|it| it["issuer"].to_string()).collect();
    assert_eq!(issuers.len(), 6, "two for each of three nodes: {all}");
    issuers.into_iter().collect()
}

/// Nodes tell of their certificates after they have put them in force.
#[track_caller]
fn eventually_one_issuer(node: &Member, before: &BTreeSet<String>) -> BTreeSet<String> {
    let ends = Instant::now() + PATIENCE;
    loop {
        let now = issuers(node);
        if now.len() == 1 && now.is_disjoint(before) {
            return now;
        }
        assert!(Instant::now() < ends, "{before:?} {now:?}");
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_authority_between_nodes_is_replaced_under_writes_with_a_node_away_in_the_middle() {
    if !is_carnelian() {
        return;
    }
    // The third has no database and does not lead: nobody misses it.
    let first = Member::create(1);
    let place = first.place();
    let join = ["--cluster-join", &*place];
    let mut nodes = vec![first, Member::start(2, PASSWORD, &join)];
    nodes[0].eventually_sees(2);
    let port = free_port();
    let (uid, [primary, replica]) = make_database(&nodes, port);
    nodes.push(Member::start(3, PASSWORD, &join));
    nodes.iter().for_each(|node| node.eventually_sees(3));
    let third = 2;
    eventually(&mut nodes[primary].client(port), "SET begun 1", "+OK");
    eventually_linked(&nodes, uid, "link=tls");
    let full = nodes[primary].client(port).info("sync_full");
    let writer = Writer::start_at((&*nodes[primary].address, port), "w");
    let trusted = |node: &Member| {
        let file = read_to_string(node.server.folder().join("internode/trust.pem"));
        file.expect("the authorities it trusts").matches("BEGIN CERTIFICATE").count()
    };
    let rotate = json!({"name": "internode_ca"});

    let before = issuers(&nodes[0]);
    assert_eq!(before.len(), 1);
    nodes[third].change("PUT", "/v1/cluster/certificates/rotate", &rotate);
    let after = eventually_one_issuer(&nodes[primary], &before);
    assert!(nodes.iter().all(|node| trusted(node) == 1));
    assert!(!nodes[0].server.folder().join("internode/authority.sealed").exists());
    writer.go_on();

    // One that is away holds it up, and nobody else.
    nodes[third].server.kill();
    nodes[primary].eventually("/v1/nodes", |all| {
        all.as_array().is_some_and(|all| all.iter().any(|node| node["status"] == "down"))
    });
    let (status, answer) = nodes[primary].ask("PUT", "/v1/cluster/certificates/rotate", &rotate);
    assert_eq!((status, &answer["error_code"]), (400, &json!("not_all_nodes_updated")));
    nodes[third].server.start_again().expect("it starts again");
    nodes[primary].eventually_sees(3);
    let asking = {
        let folder = nodes[primary].server.folder().to_owned();
        std::thread::spawn(move || ask(&folder, "PUT", "/v1/cluster/certificates/rotate", &rotate))
    };
    let is_begun = |node: &Member| {
        let all = node.get("/v2/actions");
        let all = all.as_array().expect("a list");
        all.iter().any(|it| it["name"] == "rotate_internode_ca" && it["status"] == "running")
    };
    while !is_begun(&nodes[primary]) && !asking.is_finished() {
        sleep(Duration::from_millis(1));
    }
    nodes[third].server.kill();
    writer.go_on();
    nodes[third].server.start_again().expect("it starts again");
    let (status, answer) = asking.join().expect("an answer");
    assert_eq!(status, 200, "{answer}");
    eventually_one_issuer(&nodes[replica], &after);
    nodes[primary].eventually_sees(3);

    writer.go_on();
    let written = writer.stop();
    assert_eq!(written.closed, 0, "no client of the primary was disturbed");
    let mut there = nodes[primary].client(port);
    eventually(&mut there, "WAIT 1 1000", ":1");
    written.check(&mut nodes[replica].client(port)).expect("all is on the replica");
    assert_eq!(there.info("sync_full"), full, "{}", nodes[primary].server.log());
    for client in clients_of_each(&nodes).values_mut() {
        eventually_on_new_certificates(client, &nodes[0]);
    }
}

/// A client that each node serves itself: every port leads to a primary, so each node is made the primary of
/// something. By their numbers.
fn clients_of_each(nodes: &[Member]) -> BTreeMap<String, Client> {
    let mut clients = BTreeMap::new();
    for _ in 0..4 * nodes.len() {
        if clients.len() == nodes.len() {
            return clients;
        }
        let port = free_port();
        let spec = json!({"name": format!("own{port}"), "port": port, "memory_size": 10 << 20});
        let made = nodes[0].change("POST", "/v1/bdbs", &spec);
        nodes[0].eventually(&format!("/v1/bdbs/{}", made["uid"]), |it| it["status"] == "active");
        let mut client = nodes[0].client(port);
        clients.insert(client.info("internode_node"), client);
    }
    panic!("some nodes get no database: {:?}", clients.keys());
}

/// Until a node shows on all of its links what it would show on a new one.
#[track_caller]
fn eventually_on_new_certificates(client: &mut Client, node: &Member) {
    let ends = Instant::now() + PATIENCE;
    loop {
        let info = client.call("INFO internode").text();
        let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        let links = info
            .lines()
            .filter(|line| line.starts_with("internode_link") && line.contains("plane="));
        let mut outdated = links.filter(|line| {
            let plane = if line.contains("plane=control") { "control" } else { "data" };
            let serial = value(&format!("internode_{plane}_cert_serial:"));
            !line.contains(&format!("own_serial={serial},"))
        });
        match outdated.next() {
            None => return,
            Some(link) => assert!(Instant::now() < ends, "{link}:\n{}", node.server.log()),
        }
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_replica_whose_node_stays_away_is_made_anew_elsewhere() {
    if !is_carnelian() {
        return;
    }
    let mut nodes = three();
    let port = free_port();
    let (uid, [primary, replica]) = make_database(&nodes, port);
    let spare = 3 - primary - replica;
    let mut client = nodes[primary].client(port);
    eventually(&mut client, "SET k v", "+OK");
    eventually(&mut client, "WAIT 1 1000", ":1");
    nodes[spare].change("PUT", "/v1/cluster/policy", &json!({"slave_ha_grace_period": 1}));
    nodes[replica].server.kill();
    let path = format!("/v1/bdbs/{uid}/shards");
    nodes[spare].eventually(&path, |shards| {
        let shards = shards.as_array().map(Vec::as_slice).unwrap_or_default();
        let node = (spare + 1).to_string();
        let is_there = |it: &Value| it["role"] == "slave" && it["node_uid"] == node.as_str();
        // What is lost is given up when the new one has everything.
        shards.len() == 2 && shards.iter().any(is_there)
    });
    let mut client = nodes[primary].client(port);
    eventually(&mut client, "SET k w", "+OK");
    eventually(&mut client, "WAIT 1 1000", ":1");
    // It is one that can take over.
    nodes[replica].server.start_again().expect("it starts again");
    for node in &nodes {
        node.eventually_sees(3);
    }
    nodes[primary].server.kill();
    let mut client = nodes[spare].client(port);
    let again = || nodes[spare].client(port);
    eventually_over(&mut client, again, "SET more 1", "+OK");
    eventually_over(&mut client, again, "GET k", "w");
}

#[test]
fn shards_are_moved_to_where_there_are_fewer_without_losing_a_write() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let place = first.place();
    let join = ["--cluster-join", &*place];
    let second = Member::start(2, PASSWORD, &join);
    first.eventually_sees(2);
    let port = free_port();
    let mut uids = Vec::new();
    for (number, port) in [port, free_port(), free_port()].into_iter().enumerate() {
        let spec = json!({
            "name": format!("db-{number}"), "port": port, "memory_size": 100 << 20,
            "replication": true,
        });
        let uid = first.change("POST", "/v1/bdbs", &spec)["uid"].as_u64().expect("its uid");
        first.eventually(&format!("/v1/bdbs/{uid}"), |database| database["status"] == "active");
        uids.push(uid);
    }
    let third = Member::start(3, PASSWORD, &join);
    for node in [&first, &second, &third] {
        node.eventually_sees(3);
    }
    let path = format!("/v1/bdbs/{}/actions/rebalance", uids[0]);
    let shards = || -> Vec<u64> {
        let shards = first.get(&format!("/v1/bdbs/{}/shards", uids[0]));
        let mut all = shards.as_array().cloned().unwrap_or_default();
        all.sort_by_key(|shard| shard["role"] != "master");
        let node = |it: &Value| it["node_uid"].as_str().and_then(|uid| uid.parse().ok());
        all.iter().map(|it| node(it).expect("a node")).collect()
    };
    let is_over = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&first, port, &is_over));
        rebalance(&first, &path, &shards, &uids);
        is_over.store(true, Ordering::SeqCst);
        writer.join().expect("the writer is in order")
    });
    let mut client = first.client(port);
    assert!(!acknowledged.is_empty());
    for number in acknowledged {
        client.expect(&format!("GET w:{number}"), &number.to_string());
    }
}

/// The numbers whose writes were acknowledged, on whatever connection.
fn write_until(node: &Member, port: u16, is_over: &AtomicBool) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    let mut client = node.client(port);
    for number in 0.. {
        if is_over.load(Ordering::SeqCst) {
            break;
        }
        let sent = client.try_send(format!("SET w:{number} {number}\r\n").as_bytes());
        match sent.map_err(anyhow::Error::from).and_then(|()| client.try_read()) {
            Ok(reply) if reply.to_string() == "+OK" => acknowledged.push(number),
            // Its primary is another now, or about to be.
            _ => {
                sleep(Duration::from_millis(10));
                client = node.client(port);
            }
        }
    }
    acknowledged
}

fn rebalance(first: &Member, path: &str, shards: &impl Fn() -> Vec<u64>, uids: &[u64]) {
    let nodes_of = |blueprint: &Value| -> Vec<u64> {
        let nodes = blueprint[0]["nodes"].as_array().cloned().unwrap_or_default();
        let node = |it: &Value| it["node_uid"].as_str().and_then(|uid| uid.parse().ok());
        nodes.iter().map(|it| node(it).expect("a node")).collect()
    };
    let finish = |answer: &Value| {
        let action = answer["action_uid"].as_str().expect("its uid").to_owned();
        let path = format!("/v1/actions/{action}");
        let ended = first.eventually(&path, |it| {
            ["completed", "failed"].contains(&it["status"].as_str().unwrap_or(""))
        });
        assert_eq!(ended["status"], "completed", "{ended}");
    };
    let before = shards();
    // No step at all.
    let plan = first.change("PUT", &format!("{path}?dry_run=true&max_operations=0"), &Value::Null);
    assert_eq!(nodes_of(&plan), before);
    let plan = first.change("PUT", &format!("{path}?dry_run=true"), &Value::Null);
    assert_eq!(plan[0]["slot_range"], "0-16383");
    let wanted = nodes_of(&plan);
    assert!(wanted != before && wanted.contains(&3), "{before:?} {plan}");
    assert_eq!(shards(), before, "a rehearsal moves nothing");
    finish(&first.change("PUT", path, &Value::Null));
    assert_eq!(shards(), wanted);
    let plan = first.change("PUT", &format!("{path}?dry_run=true"), &Value::Null);
    assert_eq!(nodes_of(&plan), wanted, "it is even now");
    finish(&first.change("PUT", path, &Value::Null));
    assert_eq!(shards(), wanted);

    // Roles alone: all primaries are brought to one node, and one goes away again.
    let primary = first.get(&format!("/v1/bdbs/{}/shards", uids[1]));
    assert!(primary.as_array().is_some_and(|all| all.len() == 2));
    let plan = first.change("PUT", &format!("{path}?dry_run&only_failovers=true"), &Value::Null);
    let mut sorted = (nodes_of(&plan), wanted);
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1, "no shard is moved");
    finish(&first.change("PUT", &format!("{path}?only_failovers=true"), &Value::Null));
    assert_eq!(shards(), nodes_of(&plan));
}
