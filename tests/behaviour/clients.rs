//! CLIENT LIST, KILL and what clients say of themselves.

use carnelian_tests::{Client, Server, is_carnelian};

fn field(line: &str, name: &str) -> String {
    let value = line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {line}")).to_owned()
}

fn named(server: &Server, name: &str) -> Client {
    let mut client = server.connect();
    client.expect(&format!("CLIENT SETNAME {name}"), "+OK");
    client
}

#[test]
fn a_line_tells_what_the_client_does() {
    let server = Server::start(&[]);
    let mut client = named(&server, "me");
    client.script(
        "CLIENT SETINFO LIB-NAME lib => +OK
         CLIENT SETINFO LIB-VER 1.2 => +OK
         CLIENT NO-EVICT ON => +OK
         CLIENT NO-TOUCH ON => +OK
         SELECT 3 => +OK
         WATCH a b => +OK
         CLIENT TRACKING ON => +OK",
    );
    let line = client.call("CLIENT INFO").text();
    for (name, value) in [
        ("name", "me"),
        ("flags", "teT"),
        ("db", "3"),
        ("multi", "-1"),
        ("watch", "2"),
        ("sub", "0"),
        ("argv-mem", "10"),
        ("cmd", "client|info"),
        ("user", "default"),
        ("redir", "0"),
        ("resp", "2"),
        ("lib-name", "lib"),
        ("lib-ver", "1.2"),
        ("events", "r"),
        ("omem", "0"),
    ] {
        assert_eq!(field(&line, name), value, "{name} in {line}");
    }
    client.expect("MULTI", "+OK");
    client.expect("SET k v", "+QUEUED");
    let mut other = server.connect();
    let line = other.call("CLIENT LIST TYPE normal").text();
    let line = line.lines().find(|line| line.contains(" name=me ")).expect("it is there");
    assert_eq!((field(line, "multi"), field(line, "flags")), ("1".into(), "xteT".into()));
    assert!(field(line, "multi-mem").parse::<usize>().expect("a number") > 0);
    client.expect("RESET", "+RESET");
    let line = client.call("CLIENT INFO").text();
    for (name, value) in
        [("name", ""), ("flags", "N"), ("db", "0"), ("watch", "0"), ("redir", "-1")]
    {
        assert_eq!(field(&line, name), value, "{name} in {line}");
    }
}

#[test]
fn the_last_command_is_what_was_asked_for() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (named(&server, "me"), server.connect());
    for (request, command) in [
        ("GET k", "get"),
        ("SET", "set"),
        ("NOSUCH", "NULL"),
        ("CONFIG NOSUCH", "NULL"),
        ("MULTI", "multi"),
        ("GET k", "get"),
        ("NOSUCH", "NULL"),
        ("SET k v", "set"),
        ("EXEC", "exec"),
        ("AUTH nobody x", "auth"),
    ] {
        client.call(request);
        let list = other.call("CLIENT LIST").text();
        let line = list.lines().find(|line| line.contains(" name=me ")).expect("it is there");
        assert_eq!(field(line, "cmd"), command, "{request}");
    }
}

#[test]
fn clients_are_killed_by_what_they_are() {
    let server = Server::start(&[]);
    let mut control = named(&server, "control");
    let mut one = named(&server, "one");
    let id = one.call("CLIENT ID").integer();
    control.expect(&format!("CLIENT KILL ID {id} ADDR 1.2.3.4:5"), ":0");
    control.expect(&format!("CLIENT KILL ID {id}"), ":1");
    one.expect_closed();
    control.expect(&format!("CLIENT KILL ID {id}"), ":0");

    let mut one = named(&server, "one");
    let line = one.call("CLIENT INFO").text();
    control.expect(&format!("CLIENT KILL {}", field(&line, "addr")), "+OK");
    one.expect_closed();
    control.expect("CLIENT KILL 1.2.3.4:5", "-ERR No such client");

    let mut all: Vec<Client> = (0..5).map(|_| named(&server, "many")).collect();
    control.expect("CLIENT KILL TYPE pubsub", ":0");
    control.expect("CLIENT KILL TYPE normal MAXAGE 1000", ":0");
    control.expect("CLIENT KILL TYPE normal", ":5");
    all.iter_mut().for_each(Client::expect_closed);
    control.expect("CLIENT KILL TYPE normal SKIPME no", ":1");
    control.expect_closed();
}

#[test]
fn a_user_without_clients_is_a_user() {
    let server = Server::start(&[]);
    let mut control = server.connect();
    control.expect("CLIENT KILL USER alice", "-ERR No such user 'alice'");
    control.expect("ACL SETUSER alice", "+OK");
    control.expect("CLIENT KILL USER alice", ":0");
    if is_carnelian() {
        assert_eq!(control.call("CLIENT LIST USER alice").text(), "");
        control.expect("CLIENT LIST USER bob", "-ERR No such user 'bob'");
    }
}

#[test]
fn filters_of_valkey() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let mut control = named(&server, "control");
    let mut a = named(&server, "a");
    let mut b = named(&server, "b");
    a.expect("SELECT 2", "+OK");
    b.expect("CLIENT SETINFO LIB-NAME lib", "+OK");
    b.expect("CLIENT CAPA nothing redirect", "+OK");
    b.expect("CLIENT NO-EVICT ON", "+OK");
    let (a_id, b_id) = (a.call("CLIENT ID").integer(), b.call("CLIENT ID").integer());
    let mut names = |filter: &str| {
        let text = control.call(&format!("CLIENT LIST {filter}")).text();
        text.lines().map(|line| field(line, "name")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("DB 2"), "a");
    assert_eq!(names("NOT-DB 2"), "control b");
    assert_eq!(names("FLAGS e"), "b");
    assert_eq!(names("NOT-FLAGS e SKIPME yes"), "a");
    assert_eq!(names("LIB-NAME lib"), "b");
    assert_eq!(names("NOT-LIB-NAME lib"), "control a");
    assert_eq!(names("CAPA r"), "b");
    assert_eq!(names("NAME a"), "a");
    assert_eq!(names("IP 127.0.0.1 NOT-NAME a"), "control b");
    assert_eq!(names("NOT-IP 127.0.0.1"), "");
    assert_eq!(names(&format!("ID {a_id} {b_id} NOT-NAME a")), "b");
    assert_eq!(names(&format!("NOT-ID {a_id} {b_id}")), "control");
    assert_eq!(names("TYPE normal USER default MAXAGE 1000"), "");
    assert_eq!(names("IDLE 1000"), "");
    control.expect("CLIENT KILL NOT-NAME control", ":2");
    a.expect_closed();
    b.expect_closed();
}

#[test]
fn the_largest_clients_go_when_all_take_too_much() {
    let server = Server::start(&["--maxmemory-clients", "3mb"]);
    let mut control = named(&server, "control");
    control.expect("CLIENT NO-EVICT ON", "+OK");
    let mut small = named(&server, "small");
    let mut large = named(&server, "large");
    small.send(format!("*1\r\n$1000000\r\n{}", "x".repeat(500_000)).as_bytes());
    // It may be gone before all is sent.
    let _ = large.try_send(format!("*1\r\n$9000000\r\n{}", "x".repeat(4_000_000)).as_bytes());
    large.expect_closed();
    let list = control.call("CLIENT LIST").text();
    assert!(list.contains(" name=small ") && !list.contains(" name=large "), "{list}");
    assert_eq!(control.info("evicted_clients"), "1");

    // Who is spared stays, whatever it takes.
    let mut spared = named(&server, "spared");
    spared.expect("CLIENT NO-EVICT ON", "+OK");
    spared
        .send(format!("*2\r\n$4\r\nECHO\r\n$4000000\r\n{}\r\n", "x".repeat(4_000_000)).as_bytes());
    assert_eq!(spared.read().bytes().len(), 4_000_000);
}

/// What a transaction has taken is given back at its end, whichever it is.
#[test]
fn queued_commands_count_only_until_they_have_run() {
    let server = Server::start(&[]);
    let (mut control, mut client) = (server.connect(), named(&server, "queues"));
    let mut queued = || {
        let list = control.call("CLIENT LIST").text();
        let line = list.lines().find(|line| line.contains(" name=queues ")).expect("it is there");
        field(line, "multi-mem").parse::<usize>().expect("a number")
    };
    for end in ["EXEC", "DISCARD"] {
        client.expect("MULTI", "+OK");
        client.call_words(&["SET", "k", &"v".repeat(100_000)]);
        assert!(100_000 < queued());
        client.call(end);
        assert_eq!(queued(), 0, "{end}");
    }
}

#[test]
fn a_lower_limit_holds_at_once_and_a_request_counts_before_it_runs() {
    let server = Server::start(&["--maxmemory-clients", "8mb"]);
    let mut control = named(&server, "control");
    control.expect("CLIENT NO-EVICT ON", "+OK");
    let mut half = named(&server, "half");
    half.send(format!("*1\r\n$4000000\r\n{}", "x".repeat(2_000_000)).as_bytes());
    let qbuf = |control: &mut Client| {
        let list = control.call("CLIENT LIST").text();
        let line = list.lines().find(|line| line.contains(" name=half "))?;
        let number = |name| field(line, name).parse::<usize>().expect("a number");
        assert!(number("qbuf") + number("qbuf-free") <= number("tot-mem"), "{line}");
        Some(number("qbuf"))
    };
    while qbuf(&mut control).expect("it is there") < 2_000_000 {}
    control.expect("CONFIG SET maxmemory-clients 1mb", "+OK");
    assert_eq!(qbuf(&mut control), None);
    half.expect_closed();

    let mut large = named(&server, "large");
    let value = "x".repeat(1_100_000);
    let _ =
        large.try_send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1100000\r\n{value}\r\n").as_bytes());
    large.expect_closed();
    control.expect("EXISTS k", ":0");
    assert_eq!(control.info("evicted_clients"), "2");
}

#[test]
fn who_was_told_nothing_in_one_turn_is_told_much_in_another() {
    let server = Server::start(&["--io-threads", "1"]);
    let (mut quiet, mut loud, mut other) = (server.connect(), server.connect(), server.connect());
    quiet.hello3();
    quiet.call("SUBSCRIBE news");
    quiet.send(b"CLIENT REPLY OFF\r\n");
    let long = "y".repeat(20_000);
    for _ in 0..20 {
        // Both are read in one turn, the one that gets a reply first.
        other.send(b"DEBUG SLEEP 0.02\r\n");
        loud.send(b"ECHO something\r\n");
        quiet.send(b"SET k v\r\n");
        other.expect_next("+OK");
        loud.expect_next("something");
        other.expect(&format!("PUBLISH news {long}"), ":1");
        quiet.expect_next(&format!(">[message news {long}]"));
    }
}
