//! Channels: who gets what, in which order, and what becomes of a subscriber that does not read.

use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::matrix::WAYS;
use carnelian_tests::{Client, Protocol, Reply, Server, Way, is_carnelian};

fn server() -> Server {
    Server::starter().args(&["--loglevel", "verbose"]).tls().start()
}

fn connect(server: &Server, way: Way) -> Client {
    let client = if way.tls { server.connect_tls() } else { server.connect() };
    client.speaking(way.protocol)
}

#[test]
fn subscribing_and_publishing() {
    let server = server();
    let mut publisher = server.connect();
    for way in WAYS {
        let mut client = connect(&server, way);
        client.expect("UNSUBSCRIBE", ">[unsubscribe nil :0]");
        client.expect("PUNSUBSCRIBE", ">[punsubscribe nil :0]");
        client.expect("SUNSUBSCRIBE", ">[sunsubscribe nil :0]");
        client.expect("UNSUBSCRIBE a b", ">[unsubscribe a :0]");
        client.expect_next(">[unsubscribe b :0]");
        client.expect("SUBSCRIBE a b a", ">[subscribe a :1]");
        client.expect_next(">[subscribe b :2]");
        client.expect_next(">[subscribe a :2]");
        client.expect("PSUBSCRIBE a* ?", ">[psubscribe a* :3]");
        client.expect_next(">[psubscribe ? :4]");
        client.expect("SSUBSCRIBE a s", ">[ssubscribe a :1]");
        client.expect_next(">[ssubscribe s :2]");

        publisher.expect("PUBLISH nobody x", ":0");
        publisher.expect("PUBLISH b hello", ":2");
        client.expect_next(">[message b hello]");
        client.expect_next(">[pmessage ? b hello]");
        publisher.expect("PUBLISH abc \"\"", ":1");
        client.expect_next(">[pmessage a* abc \"\"]");
        publisher.expect("PUBLISH a x", ":3");
        client.expect_next(">[message a x]");
        // Patterns come in no order that anybody promises.
        let patterns = [client.read(), client.read()].map(|reply| reply.to_string());
        assert_ne!(patterns[0], patterns[1]);
        assert!(patterns.iter().all(|reply| reply.contains("pmessage")), "{patterns:?}");
        publisher.expect("SPUBLISH a shard", ":1");
        client.expect_next(">[smessage a shard]");
        publisher.expect("SPUBLISH b shard", ":0");

        publisher.expect("PUBSUB CHANNELS", "%[a b]");
        publisher.expect("PUBSUB CHANNELS a*", "[a]");
        publisher.expect("PUBSUB CHANNELS x*", "[]");
        publisher.expect("PUBSUB NUMSUB", "[]");
        publisher.expect("PUBSUB NUMSUB a b c", "[a :1 b :1 c :0]");
        publisher.expect("PUBSUB NUMPAT", ":2");
        publisher.expect("PUBSUB SHARDCHANNELS", "%[a s]");
        publisher.expect("PUBSUB SHARDCHANNELS s", "[s]");
        publisher.expect("PUBSUB SHARDNUMSUB s x", "[s :1 x :0]");
        let info = ["pubsub_channels", "pubsub_patterns", "pubsubshard_channels", "pubsub_clients"];
        assert_eq!(info.map(|field| publisher.info(field)), ["2", "2", "2", "1"]);
        let list = publisher.call("CLIENT LIST TYPE pubsub").text();
        assert!(list.contains(" sub=2 psub=2 ssub=2 "), "{list}");
        assert!(list.contains(" flags=P "), "{list}");
        assert_eq!(list.lines().count(), 1);

        client.expect("UNSUBSCRIBE b x", ">[unsubscribe b :3]");
        client.expect_next(">[unsubscribe x :3]");
        client.expect("UNSUBSCRIBE", ">[unsubscribe a :2]");
        client.expect("SUNSUBSCRIBE s", ">[sunsubscribe s :1]");
        client.expect("SUNSUBSCRIBE", ">[sunsubscribe a :0]");
        client.expect("PUNSUBSCRIBE ?", ">[punsubscribe ? :1]");
        client.expect("PUNSUBSCRIBE", ">[punsubscribe a* :0]");
        client.expect("GET x", "nil");
        publisher.expect("PUBLISH a x", ":0");
        assert_eq!(info.map(|field| publisher.info(field)), ["0", "0", "0", "0"]);
    }
}

#[test]
fn bad_requests() {
    let server = server();
    let mut client = server.connect();
    client.script(
        r#"
        SUBSCRIBE => -ERR wrong number of arguments for 'subscribe' command
        PSUBSCRIBE => -ERR wrong number of arguments for 'psubscribe' command
        SSUBSCRIBE => -ERR wrong number of arguments for 'ssubscribe' command
        PUBLISH a => -ERR wrong number of arguments for 'publish' command
        SPUBLISH a => -ERR wrong number of arguments for 'spublish' command
        PUBSUB => -ERR wrong number of arguments for 'pubsub' command
        PUBSUB WHAT => -ERR unknown subcommand 'WHAT'. Try PUBSUB HELP.
        PUBSUB NUMPAT x => -ERR wrong number of arguments for 'pubsub|numpat' command
        PUBSUB CHANNELS a b => -ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB HELP.
        PUBSUB shardchannels a b => -ERR unknown subcommand or wrong number of arguments for 'shardchannels'. Try PUBSUB HELP.
        "#,
    );
}

#[test]
fn a_subscriber_may_run_only_some_commands_in_resp2() {
    let server = server();
    for way in WAYS {
        let mut client = connect(&server, way);
        client.expect("PING", "+PONG");
        client.expect("SUBSCRIBE c", ">[subscribe c :1]");
        if way.protocol == Protocol::Resp3 {
            client.expect("PING", "+PONG");
            client.expect("PING x", "x");
            client.expect("GET k", "nil");
            client.expect("PUBLISH d x", ":0");
        } else {
            client.expect("PING", "[pong \"\"]");
            client.expect("PING x", "[pong x]");
            client.expect("PING x y", "-ERR wrong number of arguments for 'ping' command");
            for (command, name) in [
                ("GET k", "get"),
                ("PUBLISH c x", "publish"),
                ("HELLO 3", "hello"),
                ("CLIENT ID", "client|id"),
                ("SLOWLOG RESET", "slowlog|reset"),
            ] {
                let error = format!(
                    "-ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / \
                     QUIT / RESET are allowed in this context"
                );
                client.expect(command, &error);
            }
            client.expect("GET", "-ERR wrong number of arguments for 'get' command");
            client.expect("NOSUCH", "-ERR unknown command...");
        }
        client.expect("UNSUBSCRIBE c", ">[unsubscribe c :0]");
        client.expect("PING", "+PONG");
        client.expect("SSUBSCRIBE c", ">[ssubscribe c :1]");
        client.expect("QUIT", "+OK");
        client.expect_closed();
    }
}

#[test]
fn reset_and_the_end_of_a_connection_drop_everything() {
    let server = server();
    let mut other = server.connect();
    for way in WAYS {
        let mut client = connect(&server, way);
        client.expect("SUBSCRIBE a", ">[subscribe a :1]");
        client.expect("PSUBSCRIBE b", ">[psubscribe b :2]");
        client.expect("SSUBSCRIBE c", ">[ssubscribe c :1]");
        client.expect("RESET", "+RESET");
        client.assume(Protocol::Resp2);
        client.expect("GET x", "nil");
        other.expect("PUBSUB NUMSUB a", "[a :0]");
        other.expect("PUBSUB NUMPAT", ":0");
        assert_eq!(other.info("pubsub_clients"), "0");

        let mut client = connect(&server, way);
        client.expect("SUBSCRIBE a", ">[subscribe a :1]");
        client.expect("PSUBSCRIBE b", ">[psubscribe b :2]");
        client.expect("SSUBSCRIBE c", ">[ssubscribe c :1]");
        drop(client);
        other.eventually("PUBSUB CHANNELS", "[]");
        other.eventually("PUBSUB NUMPAT", ":0");
        other.eventually("PUBSUB SHARDCHANNELS", "[]");
        assert_eq!(other.info("pubsub_clients"), "0");
    }
}

#[test]
fn who_publishes_to_itself_reads_the_reply_first() {
    for tls in [false, true] {
        // A server each: the client before might still be there, and counted.
        let server = server();
        let mut client = connect(&server, Way { protocol: Protocol::Resp3, tls });
        client.expect("SUBSCRIBE c", ">[subscribe c :1]");
        client.expect("PSUBSCRIBE c*", ">[psubscribe c* :2]");
        client.send(b"PUBLISH c 1\r\nPING\r\nPUBLISH c 2\r\nSET k v\r\nUNSUBSCRIBE c\r\nPING\r\n");
        for expected in [
            ":2",
            ">[message c 1]",
            ">[pmessage c* c 1]",
            "+PONG",
            ":2",
            ">[message c 2]",
            ">[pmessage c* c 2]",
            "+OK",
            ">[unsubscribe c :1]",
            "+PONG",
        ] {
            client.expect_next(expected);
        }
    }
}

#[test]
fn messages_keep_their_order_whatever_the_reactors() {
    let server = Server::starter().args(&threads()).tls().start();
    let mut subscribers: Vec<Client> = (0..12).map(|i| connect(&server, WAYS[i % 4])).collect();
    for client in &mut subscribers {
        client.expect("SUBSCRIBE c", ">[subscribe c :1]");
        client.expect("PSUBSCRIBE ?", ">[psubscribe ? :2]");
    }
    let mut publisher = server.connect();
    let big = "x".repeat(40_000);
    let mut pipeline = Vec::new();
    for i in 0..300 {
        let message = if i % 50 == 7 { format!("{i}{big}") } else { i.to_string() };
        pipeline.extend_from_slice(format!("PUBLISH c {message}\r\n").as_bytes());
    }
    publisher.send(&pipeline);
    for _ in 0..300 {
        publisher.expect_next(":24");
    }
    for client in &mut subscribers {
        for i in 0..300 {
            let message = if i % 50 == 7 { format!("{i}{big}") } else { i.to_string() };
            client.expect_next(&format!(">[message c {message}]"));
            client.expect_next(&format!(">[pmessage ? c {message}]"));
        }
    }
}

/// Several reactors, whatever the machine has.
fn threads() -> Vec<&'static str> {
    if is_carnelian() { vec!["--io-threads", "4"] } else { Vec::new() }
}

#[test]
fn what_was_published_before_a_subscription_is_not_for_it() {
    let server = Server::starter().args(&threads()).start();
    let mut publisher = server.connect();
    let mut others: Vec<Client> = (0..8).map(|_| server.connect()).collect();
    for client in &mut others {
        client.expect("SUBSCRIBE c", ">[subscribe c :1]");
    }
    for round in 0..50 {
        publisher.expect(&format!("PUBLISH c {round}"), ":8");
        let mut late = server.connect();
        late.expect("SUBSCRIBE c", ">[subscribe c :1]");
        publisher.expect("PUBLISH c last", ":9");
        late.expect_next(">[message c last]");
        late.expect("UNSUBSCRIBE", ">[unsubscribe c :0]");
        late.expect("PING", "+PONG");
        publisher.eventually("PUBSUB NUMSUB c", "[c :8]");
    }
}

#[test]
fn client_reply_does_not_silence_messages() {
    let server = server();
    let mut publisher = server.connect();
    let mut client = server.connect().speaking(Protocol::Resp3);
    client.send(b"CLIENT REPLY OFF\r\nPING\r\nSUBSCRIBE c\r\nPING\r\n");
    client.expect_next(">[subscribe c :1]");
    publisher.expect("PUBLISH c x", ":1");
    client.expect_next(">[message c x]");
    client.send(b"UNSUBSCRIBE\r\nCLIENT REPLY ON\r\n");
    client.expect_next(">[unsubscribe c :0]");
    client.expect_next("+OK");
    client.send(b"CLIENT REPLY SKIP\r\nSUBSCRIBE d\r\nPING\r\n");
    client.expect_next(">[subscribe d :1]");
    client.expect_next("+PONG");
}

#[test]
fn who_does_not_read_is_closed_at_the_limits_of_its_class() {
    let limits = "client-output-buffer-limit pubsub 2mb 0 0\n";
    let server = Server::starter().config(limits).tls().start();
    let mut publisher = server.connect();
    let message = "x".repeat(50_000);
    for way in [WAYS[0], WAYS[3]] {
        let mut lazy = connect(&server, way);
        let mut keen = connect(&server, way);
        lazy.expect("SUBSCRIBE c", ">[subscribe c :1]");
        keen.expect("SUBSCRIBE c", ">[subscribe c :1]");
        let mut published = 0;
        let receivers = loop {
            let receivers = publisher.call(&format!("PUBLISH c {message}")).integer();
            keen.expect_next(&format!(">[message c {message}]"));
            published += 1;
            if receivers != 2 || 4000 < published {
                break receivers;
            }
        };
        assert_eq!(receivers, 1, "the lazy one goes and the keen one stays");
        drop(keen);
        publisher.eventually("PUBSUB NUMSUB c", "[c :0]");
    }
    let log = server.log();
    assert!(log.contains("overcoming of output buffer limits"), "{log}");
    assert_eq!(publisher.info("client_output_buffer_limit_disconnections"), "2");
}

#[test]
fn the_soft_limit_of_subscribers_takes_its_time() {
    let limits = "client-output-buffer-limit pubsub 0 100kb 1\n";
    let server = Server::starter().config(limits).start();
    let mut publisher = server.connect();
    let mut lazy = server.connect();
    lazy.expect("SUBSCRIBE c", ">[subscribe c :1]");
    let message = "x".repeat(500_000);
    for _ in 0..40 {
        publisher.expect(&format!("PUBLISH c {message}"), ":1");
    }
    let start = Instant::now();
    while publisher.call("PUBSUB NUMSUB c").to_string() != "[c :0]" {
        assert!(start.elapsed() < Duration::from_secs(30), "still there");
        sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() > Duration::from_millis(500), "closed at once");
}

#[test]
fn very_many_subscriptions_of_one_client() {
    const COUNT: usize = 100_000;

    let server = server();
    let mut other = server.connect();
    let mut client = server.connect();
    let mut request = Vec::new();
    for i in 0..COUNT / 100 {
        request.extend_from_slice(b"SUBSCRIBE");
        for j in 0..100 {
            request.extend_from_slice(format!(" c{}", i * 100 + j).as_bytes());
        }
        request.extend_from_slice(b"\r\n");
    }
    // It reads none of the confirmations.
    client.send(&request);
    let start = Instant::now();
    while other.info("pubsub_channels") != COUNT.to_string() {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(20));
    }
    other.expect("PUBLISH c99999 x", ":1");
    drop(client);
    let start = Instant::now();
    while other.info("pubsub_channels") != "0" {
        assert!(start.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(20));
    }
    let reply: Reply = other.call("PUBSUB CHANNELS");
    assert_eq!(reply.to_string(), "[]");
}
