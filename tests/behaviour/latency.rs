//! SLOWLOG, COMMANDLOG and LATENCY: what is kept of commands that took long or were large.

use carnelian_tests::{Client, Server, is_carnelian};

fn first_words(client: &mut Client, command: &str) -> Vec<String> {
    let records = client.call(command).elements();
    let words = |record: &carnelian_tests::Reply| {
        let words = record.elements()[3].elements();
        words.iter().map(carnelian_tests::Reply::text).collect::<Vec<_>>().join(" ")
    };
    records.iter().map(words).collect()
}

#[test]
fn slow_commands_are_kept_and_forgotten() {
    let server = Server::start(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "3"]);
    let mut client = server.connect();
    client.script(
        "SLOWLOG RESET => +OK
         CLIENT SETNAME me => +OK
         SET k v => +OK
         GET k => v
         SLOWLOG LEN => :3
         SLOWLOG GET -2 => -ERR count should be greater than or equal to -1
         CONFIG SET slowlog-log-slower-than -1 => +OK",
    );
    assert_eq!(first_words(&mut client, "SLOWLOG GET 1"), ["SLOWLOG GET -2"]);
    let record = client.call("SLOWLOG GET -1").elements()[0].elements();
    assert_eq!(record.len(), 6);
    assert_eq!(record[5].text(), "me");
}

#[test]
fn large_requests_and_replies_are_kept() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[
        "--commandlog-request-larger-than",
        "500",
        "--commandlog-reply-larger-than",
        "500",
    ]);
    let mut client = server.connect();
    let value = "v".repeat(600);
    client.script(
        "COMMANDLOG LEN nothing => -ERR type should be one of the following: slow, large-request, large-reply
         COMMANDLOG GET x slow => -ERR count should be greater than or equal to -1
         COMMANDLOG GET 10 large-request => []",
    );
    client.call_words(&["SET", "k", &value]);
    client.call("GET k");
    client.call("PING");
    let cut = format!("{}... (472 more bytes)", "v".repeat(128));
    let large = first_words(&mut client, "COMMANDLOG GET -1 large-request");
    assert_eq!(large, [format!("SET k {cut}")]);
    let size = client.call("COMMANDLOG GET 1 large-request").elements()[0].elements()[2].integer();
    assert_eq!(size, 4 + 9 + 7 + 6 + 602);
    // The log that was asked for is long itself.
    assert!(
        first_words(&mut client, "COMMANDLOG GET -1 large-reply").contains(&"GET k".to_owned())
    );
    client.expect("COMMANDLOG RESET large-request", "+OK");
    client.expect("COMMANDLOG LEN large-request", ":0");
}

#[test]
fn long_events_are_kept_by_their_kind() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.expect("LATENCY LATEST", "[]");
    client.expect("CONFIG SET latency-monitor-threshold 20", "+OK");
    client.expect("DEBUG SLEEP 0.03", "+OK");
    client.expect("PING", "+PONG");
    let latest = client.call("LATENCY LATEST").elements();
    let event = latest[0].elements();
    assert_eq!((latest.len(), event[0].text().as_str()), (1, "command"));
    assert!((30..5000).contains(&event[2].integer()) && event[2].integer() <= event[3].integer());
    assert_eq!(client.call("LATENCY HISTORY command").elements().len(), 1);
    client.expect("LATENCY HISTORY other", "[]");
    client.expect("LATENCY GRAPH other", "-ERR No samples available for event 'other'");
    assert!(client.call("LATENCY GRAPH command").text().starts_with("command - high "));
    assert!(client.call("LATENCY DOCTOR").text().contains("command: 1 latency spikes"));
    client.expect("LATENCY RESET other", ":0");
    client.expect("LATENCY RESET", ":1");
    client.expect("LATENCY LATEST", "[]");
}

#[test]
fn every_command_that_ran_has_a_histogram() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.expect("CONFIG RESETSTAT", "+OK");
    for _ in 0..50 {
        client.expect("SET k v", "+OK");
    }
    client.call("CONFIG GET port");
    let reply = client.call("LATENCY HISTOGRAM set nosuch get").elements();
    assert_eq!((reply.len(), reply[0].text().as_str()), (2, "set"));
    let facts = reply[1].elements();
    assert_eq!((facts[0].text().as_str(), facts[1].integer()), ("calls", 50));
    let counts = facts[3].elements();
    assert_eq!(counts.last().expect("there are some").integer(), 50);
    let of_config = client.call("LATENCY HISTOGRAM config").elements();
    assert!(of_config.iter().any(|word| word.to_string().contains("config|get")));
    let stats = client.call("INFO latencystats").text();
    assert!(stats.contains("latency_percentiles_usec_set:p50="), "{stats}");
    client.expect("CONFIG SET latency-tracking no", "+OK");
    assert!(!client.call("INFO latencystats").text().contains("usec_set"));
}

#[test]
fn a_command_that_waited_is_kept_once_when_it_is_served() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let (mut waiting, mut other) = (server.connect(), server.connect());
    waiting.expect("CLIENT SETNAME waiting", "+OK");
    waiting.send(b"BLPOP list 0\r\n");
    while other.info("blocked_clients") != "1" {}
    other.expect("SLOWLOG RESET", "+OK");
    other.expect("RPUSH list x", ":1");
    waiting.expect_next("[list x]");
    let words = first_words(&mut other, "SLOWLOG GET -1");
    assert_eq!(words.iter().filter(|words| *words == "BLPOP list 0").count(), 1, "{words:?}");
    let records = other.call("SLOWLOG GET -1").elements();
    let name = |record: &carnelian_tests::Reply| record.elements()[5].text();
    assert!(records.iter().any(|record| name(record) == "waiting"));
}

#[test]
fn an_eviction_that_takes_long_is_noted() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-random"]);
    let mut client = server.connect();
    let fill = "for i = 1, 300 do local t = {} for j = 1, 1000 do t[j] = i * 1000 + j .. 'x' end \
                redis.call('SADD', KEYS[1], unpack(t)) end";
    client.expect(&format!("EVAL \"{fill}\" 1 large"), "nil");
    client.expect("CONFIG SET latency-monitor-threshold 1", "+OK");
    client.expect("CONFIG SET maxmemory 2mb", "+OK");
    while client.call("EXISTS large").integer() == 1 {}
    let latest = client.call("LATENCY LATEST").to_string();
    for event in ["eviction-cycle", "eviction-del"] {
        assert!(latest.contains(event), "{latest}");
    }
}

#[test]
fn turns_of_the_event_loop_are_counted() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let number = |client: &mut Client, name: &str| -> u64 {
        client.info(name).parse().unwrap_or_else(|_| panic!("{name} is a number"))
    };
    let fields = ["eventloop_cycles", "eventloop_duration_sum", "eventloop_duration_cmd_sum"];
    let before = fields.map(|name| number(&mut client, name));
    client.expect("PING", "+PONG");
    for (name, before) in fields.iter().zip(before) {
        assert!(before < number(&mut client, name), "{name}");
    }
    assert!(!client.call("INFO all").text().contains("eventloop_duration_max"));
    let text = client.call("INFO debug").text();
    for name in ["aof_sum:0", "cron_sum:", "max:"] {
        assert!(text.contains(&format!("eventloop_duration_{name}")), "{text}");
    }
    assert!(text.contains("eventloop_cmd_per_cycle_max:"), "{text}");
}

#[test]
fn commands_of_transactions_and_scripts_are_kept_with_their_words() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.script("CONFIG SET slowlog-log-slower-than 0 => +OK\nSLOWLOG RESET => +OK");
    client.script(
        "MULTI => +OK\nSET a 1 => +QUEUED\nGET a => +QUEUED\nPING => +QUEUED\nLLEN l => +QUEUED",
    );
    client.expect("EXEC", "[+OK 1 +PONG :0]");
    client.expect("EVAL \"return redis.call('set', 'z', '2')\" 0", "+OK");
    let kept = first_words(&mut client, "SLOWLOG GET -1");
    for words in ["SET a 1", "GET a", "LLEN l", "SET z 2"] {
        let is_kept = kept.iter().any(|it| it.eq_ignore_ascii_case(words));
        assert!(is_kept, "{words} is not among {kept:?}");
    }
}
