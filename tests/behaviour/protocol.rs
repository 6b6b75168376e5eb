//! RESP2, RESP3 and inline requests, whole, in pieces, and malformed.

use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::{Client, Protocol, Reply, Server, each_way, each_way_with};

#[test]
fn hello_switches_the_protocol() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.script(
        r#"
        HELLO 4 => -NOPROTO unsupported protocol version
        HELLO 1 => -NOPROTO unsupported protocol version
        HELLO three => -ERR Protocol version is not an integer or out of range
        HELLO 3 AUTH default => -ERR Syntax error in HELLO option 'AUTH'
        HELLO 3 WHAT => -ERR Syntax error in HELLO option 'WHAT'
        HELLO 3 AUTH nobody wrong => -WRONGPASS invalid username-password pair or user is disabled.
        HELLO 3 SETNAME "with space" => -ERR Client names cannot contain spaces, newlines or special characters.
        "#,
    );
    let hello = client.call("HELLO 3 SETNAME me");
    client.assume(Protocol::Resp3);
    let fields = hello.elements();
    let field = |name: &str| {
        let place = fields.iter().position(|field| field.to_string() == name);
        fields[place.unwrap_or_else(|| panic!("HELLO has no {name}")) + 1].clone()
    };
    assert_eq!(field("server").text(), "redis");
    assert_eq!(field("proto").integer(), 3);
    assert_eq!(field("mode").text(), "standalone");
    assert_eq!(field("role").text(), "master");
    assert!(matches!(field("modules"), Reply::Array(_)));
    assert!(field("version").text().split('.').count() == 3);
    client.expect("CLIENT GETNAME", "me");
    client.expect("GET missing", "nil");
    let hello = client.call("HELLO 2");
    client.assume(Protocol::Resp2);
    assert_eq!(hello.elements().len(), 14);
    client.expect("GET missing", "nil");
}

#[test]
fn every_resp3_type() {
    let server = Server::start(&[]);
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut client = server.connect().speaking(protocol);
        client.script(
            r#"
            DEBUG PROTOCOL string => "Hello World"
            DEBUG PROTOCOL integer => :12345
            DEBUG PROTOCOL double => ,3.141
            DEBUG PROTOCOL null => nil
            DEBUG PROTOCOL array => [:0 :1 :2]
            DEBUG PROTOCOL set => ~[:0 :1 :2]
            DEBUG PROTOCOL bignum => (1234567999999999999999999999999999999
            DEBUG PROTOCOL true => #t
            DEBUG PROTOCOL false => #f
            "#,
        );
        let verbatim = client.call("DEBUG PROTOCOL verbatim");
        assert_eq!(matches!(verbatim, Reply::Verbatim(_)), protocol == Protocol::Resp3);
        assert_eq!(verbatim.text(), "This is a verbatim\nstring");
        let map = client.call("DEBUG PROTOCOL map");
        let attribute = client.call("DEBUG PROTOCOL attrib");
        if protocol == Protocol::Resp3 {
            assert_eq!(map.to_string(), "{:0 #f :1 #t :2 #f}");
            assert_eq!(attribute.to_string(), "|{key-popularity [key:123 :90]}");
            client.expect_next("\"Some real reply following the attribute\"");
        } else {
            assert_eq!(map.to_string(), "[:0 :0 :1 :1 :2 :0]");
        }
        client.expect("PING", "+PONG");
    }
}

/// Frames Redis refuses before it knows who speaks, with its words; it closes after each.
const MALFORMED: &[(&[u8], &str)] = &[
    (b"*1\r\n+PING\r\n", "-ERR Protocol error: expected '$', got '+'"),
    (b"*2\r\n$3\r\nGET\r\n:1\r\n", "-ERR Protocol error: expected '$', got ':'"),
    (b"*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'"),
    (b"*1\r\n\r\nPING\r\n", "-ERR Protocol error: expected '$', got ' '"),
    (b"*x\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*1x\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"* 1\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*+1\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*01\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*9223372036854775808\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*99999999999999999999\r\n", "-ERR Protocol error: invalid multibulk length"),
    (b"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$4x\r\nPING\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$ 4\r\nPING\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$9223372036854775807\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"*1\r\n$18446744073709551616\r\n", "-ERR Protocol error: invalid bulk length"),
    (b"SET a \"unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    (b"SET a 'unbalanced\r\n", "-ERR Protocol error: unbalanced quotes in request"),
    (b"SET a \"closed\"too\r\n", "-ERR Protocol error: unbalanced quotes in request"),
];

#[test]
fn a_malformed_frame_gets_its_error_and_the_close() {
    let server = Server::starter().tls().start();
    let mut bystander = server.connect();
    bystander.expect("SET mine untouched", "+OK");
    for (frame, error) in MALFORMED {
        server.connect().expect_refusal(frame, error);
        server.connect_tls().expect_refusal(frame, error);
        // What comes before the bad frame is answered, what comes after is not.
        let mut client = server.connect();
        client.send(&[b"PING\r\n", *frame, b"SET mine touched\r\n"].concat());
        client.expect_next("+PONG");
        client.expect_next(error);
        client.expect_closed();
    }
    bystander.expect("GET mine", "untouched");
}

#[test]
fn headers_without_an_end_are_refused() {
    let server = Server::start(&[]);
    let long = vec![b'1'; 70_000];
    for (start, error) in [
        (&b"*"[..], "-ERR Protocol error: too big mbulk count string"),
        (b"*1\r\n$", "-ERR Protocol error: too big bulk count string"),
        (b"", "-ERR Protocol error: too big inline request"),
    ] {
        let mut client = server.connect();
        client.expect_refusal(&[start, &long].concat(), error);
    }
}

#[test]
fn requests_without_words_are_passed_over() {
    each_way(|client| {
        client.send(b"\r\n\r\n*0\r\n*-1\r\n*-100\r\n   \r\nPING\r\n");
        client.expect_next("+PONG");
    });
}

#[test]
fn inline_requests() {
    each_way(|client| {
        client.send(b"SET key \"a \\x41\\n\\\"b\\\"\"\r\nGET key\r\n");
        client.expect_next("+OK");
        client.expect_next(r#""a A\n\"b\"""#);
        client.send(b"set key 'it\\'s \\n'\nget key\n");
        client.expect_next("+OK");
        client.expect_next(r#""it's \\n""#);
        client.send(b"SET key \"\"\r\nGET key\r\n  PING   x  \r\n");
        client.expect_next("+OK");
        client.expect_next("\"\"");
        client.expect_next("x");
        // A null byte ends a line for C; here it is a byte of the word or an error, never a hang.
        client.send(b"ECHO hi\r\n");
        client.expect_next("hi");
    });
}

#[test]
fn a_request_may_arrive_in_any_pieces() {
    each_way(|client| {
        let frame = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$11\r\n0\r\n23456\r\n9\r\n";
        for cut in 1..frame.len() {
            client.send(&frame[..cut]);
            sleep(Duration::from_micros(500));
            client.send(&frame[cut..]);
            client.expect_next("+OK");
        }
        client.expect("GET key", r#""0\r\n23456\r\n9""#);
        for byte in frame {
            client.send(&[*byte]);
        }
        client.expect_next("+OK");
        let inline = b"SET key 'a b'\r\n";
        for cut in 1..inline.len() {
            client.send(&inline[..cut]);
            sleep(Duration::from_micros(500));
            client.send(&inline[cut..]);
            client.expect_next("+OK");
        }
    });
}

#[test]
fn pipelines_of_any_depth_answer_in_order() {
    each_way(|client| {
        let count = 20_000;
        let mut frames = Vec::new();
        for number in 0..count {
            let number = number.to_string();
            carnelian_tests::client::encode(&["ECHO", &number], &mut frames);
        }
        // Replies stay below what the sockets hold, so that sending all before reading cannot lock up.
        client.send(&frames);
        for number in 0..count {
            client.expect_next(&number.to_string());
        }
    });
}

#[test]
fn large_values_pass_both_ways() {
    each_way(|client| {
        for length in [16 * 1024 - 1, 64 * 1024, 1024 * 1024 + 3, 20 * 1024 * 1024] {
            let value: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let reply = client.call_words(&[b"SET", &b"big"[..], &value]);
            assert_eq!(reply.to_string(), "+OK");
            assert_eq!(client.call("GET big").bytes(), value);
        }
    });
}

#[test]
fn proto_max_bulk_len_bounds_a_word() {
    let server = Server::start(&["--proto-max-bulk-len", "2mb"]);
    let mut client = server.connect();
    let value = vec![b'x'; 2 * 1024 * 1024];
    assert_eq!(client.call_words(&[b"SET", &b"k"[..], &value]).to_string(), "+OK");
    client.expect("APPEND k y", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    client.expect_refusal(
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2097153\r\n",
        "-ERR Protocol error: invalid bulk length",
    );
}

#[test]
fn strangers_may_not_send_large_requests() {
    let server = Server::start(&["--requirepass", "secret"]);
    let stranger = || server.connect();
    stranger().expect_refusal(b"*11\r\n", "-ERR Protocol error: unauthenticated multibulk length");
    stranger()
        .expect_refusal(b"*1\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length");
    let mut client = stranger();
    client.script(
        r#"
        GET a => -NOAUTH Authentication required.
        PING => -NOAUTH Authentication required.
        HELLO 3 => -NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time
        AUTH wrong => -WRONGPASS invalid username-password pair or user is disabled.
        AUTH nobody secret => -WRONGPASS invalid username-password pair or user is disabled.
        AUTH a b c => -ERR syntax error
        AUTH secret => +OK
        PING => +PONG
        RESET => +RESET
        PING => -NOAUTH Authentication required.
        AUTH default secret => +OK
        PING => +PONG
        "#,
    );
}

#[test]
fn http_is_told_nothing() {
    let server = Server::start(&[]);
    for request in
        [&b"POST / HTTP/1.1\r\nHost: x\r\n\r\nSET k v\r\n"[..], b"Host: x\r\nSET k v\r\n"]
    {
        let mut client = server.connect();
        client.send(request);
        client.expect_closed();
    }
    server.connect().expect("EXISTS k", ":0");
}

#[test]
fn unknown_commands_and_wrong_counts() {
    each_way(|client| {
        let unknown = "-ERR unknown command 'NOSUCH', with args beginning with: ";
        client.expect("NOSUCH", unknown);
        client.expect("NOSUCH a 'b c'", &format!("{unknown}'a' 'b c' "));
        client.script(
            r#"
            GET => -ERR wrong number of arguments for 'get' command
            GET a b => -ERR wrong number of arguments for 'get' command
            CONFIG => -ERR wrong number of arguments for 'config' command
            CONFIG NOSUCH => -ERR unknown subcommand 'NOSUCH'. Try CONFIG HELP.
            CONFIG GET => -ERR wrong number of arguments for 'config|get' command
            SET => -ERR wrong number of arguments for 'set' command
            PING a b => -ERR wrong number of arguments for 'ping' command
            PING => +PONG
            "#,
        );
        // A name that breaks lines must not break the reply.
        client.call_words(&["a\r\n+b", "c\nd"]);
        client.expect("PING", "+PONG");
    });
}

#[test]
fn clients_see_the_request_that_asks_in_its_buffer() {
    each_way(|client| {
        let words = |text: &str, field: &str| {
            let field = format!("{field}=");
            text.split_whitespace().find_map(|word| word.strip_prefix(&field).map(str::to_owned))
        };
        let info = client.call("CLIENT INFO").text();
        assert_eq!(words(&info, "qbuf").as_deref(), Some("26"), "{info}");
        assert_eq!(words(&info, "cmd").as_deref(), Some("client|info"), "{info}");
    });
}

#[test]
fn clients_see_what_others_did_last() {
    let server = Server::start(&[]);
    let mut other = server.connect();
    other.expect("SELECT 3", "+OK");
    other.expect("CLIENT SETNAME other", "+OK");
    other.expect("SET k v", "+OK");
    let listed = server.connect().call("CLIENT LIST").text();
    let line = listed.lines().find(|line| line.contains(" name=other ")).expect(&listed);
    assert!(line.contains(" db=3 ") && line.contains(" cmd=set "), "{line}");
}

#[test]
fn commands_tell_their_names_and_what_they_do_to_keys() {
    each_way(|client| {
        client.script(
            r#"
            COMMAND GETKEYSANDFLAGS SET k v => [[k ~[+OW +update]]]
            COMMAND GETKEYSANDFLAGS SET k v EX 1 get => [[k ~[+RW +access +update]]]
            COMMAND GETKEYSANDFLAGS BITFIELD k => [[k ~[+RO +access]]]
            COMMAND GETKEYSANDFLAGS BITFIELD k GET u8 0 OVERFLOW SAT => [[k ~[+RO +access]]]
            COMMAND GETKEYSANDFLAGS BITFIELD k GET u8 0 SET u8 0 1 => [[k ~[+RW +access +update]]]
            COMMAND GETKEYSANDFLAGS BITFIELD k GET u8 => [[k ~[+RW +access +update]]]
            COMMAND GETKEYSANDFLAGS CLIENT -5 => -ERR Invalid command specified
            COMMAND GETKEYS EVAL x 0 => []
            COMMAND GETKEYS ZDIFFSTORE a 2 b c => [a b c]
            COMMAND GETKEYS ZDIFFSTORE a 0 b => -ERR Invalid arguments specified for command
            COMMAND GETKEYS EVAL x y => []
            COMMAND GETKEYS XREADGROUP a b c d e f => -ERR Invalid arguments specified for command
            CLIENT UNBLOCK -9223372036854775809 x => -ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR
            CLIENT unblock 1 x y => -ERR unknown subcommand or wrong number of arguments for 'unblock'. Try CLIENT HELP.
            CLIENT SETINFO Lib-Name "a b" => -ERR Lib-Name cannot contain spaces, newlines or special characters.
            RESTORE k 9223372036854775807 x => -ERR DUMP payload version or checksum are wrong
            "#,
        );
        let names = client.call("COMMAND LIST").elements();
        let names: Vec<String> = names.iter().map(|name| name.text()).collect();
        for name in ["get", "client|list", "config|set"] {
            assert!(names.iter().any(|known| known == name), "{name}");
        }
    });
}

#[test]
fn a_stream_that_ends_early_does_no_harm() {
    let server = Server::starter().tls().start();
    let frame = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
    for cut in 0..frame.len() {
        let mut client = server.connect();
        client.send(&frame[..cut]);
        client.finish_writing();
        client.expect_closed();
        drop(server.connect_tls());
    }
    server.connect().expect("EXISTS k", ":0");
    // Half-closing after whole requests still gets their replies.
    let mut client = server.connect();
    client.send(b"SET k 1\r\nGET k\r\n");
    client.finish_writing();
    client.expect_next("+OK");
    client.expect_next("1");
    client.expect_closed();
}

#[test]
fn quit_and_reset() {
    each_way(|client| {
        client.expect("SELECT 3", "+OK");
        client.expect("CLIENT SETNAME me", "+OK");
        client.expect("RESET", "+RESET");
        let protocol = client.protocol();
        client.assume(Protocol::Resp2);
        client.expect("CLIENT GETNAME", "nil");
        if protocol == Protocol::Resp3 {
            client.hello3();
        }
        client.send(b"QUIT\r\nPING\r\n");
        client.expect_next("+OK");
        client.expect_closed();
    });
}

#[test]
fn replies_can_be_switched_off() {
    each_way(|client| {
        client.send(b"CLIENT REPLY OFF\r\nPING\r\nPING\r\nCLIENT REPLY ON\r\nECHO a\r\n");
        client.expect_next("+OK");
        client.expect_next("a");
        client.send(b"CLIENT REPLY SKIP\r\nPING\r\nECHO b\r\n");
        client.expect_next("b");
    });
}

#[test]
fn garbage_never_takes_the_server_down() {
    let server = Server::starter().tls().start();
    let mut random = fastrand::Rng::with_seed(7);
    let pieces: &[&[u8]] = &[
        b"*",
        b"$",
        b"3",
        b"-1",
        b"\r\n",
        b"\n",
        b"\r",
        b"SET",
        b"GET",
        b"k",
        b"\"",
        b"'",
        b"\0",
        b"\xff",
        b"9999999999",
        b" ",
        b"%2",
        b"~",
        b">",
        b"_",
        b"#t",
        b"(",
        b"HELLO 3\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
    ];
    for round in 0..2000 {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..40) {
            bytes.extend_from_slice(pieces[random.usize(..pieces.len())]);
        }
        let mut client = if round % 8 == 0 { server.connect_tls() } else { server.connect() };
        let _ = client.try_send(&bytes);
    }
    server.connect().expect("PING", "+PONG");
}

#[test]
fn a_request_may_have_very_many_words() {
    each_way_with(&["--client-query-buffer-limit", "1gb"], |client| {
        let mut words: Vec<String> = vec!["DEL".into()];
        words.extend((0..200_000).map(|number| number.to_string()));
        assert_eq!(client.call_words(&words).to_string(), ":0");
        ping(client);
    });
}

#[test]
fn the_memory_of_a_long_request_is_given_back() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let used = |client: &mut Client| client.info("used_memory").parse::<usize>().expect("a number");
    let before = used(&mut client);
    let mut words: Vec<String> = vec!["EXISTS".into()];
    words.extend((0..200_000).map(|number| number.to_string()));
    assert_eq!(client.call_words(&words).to_string(), ":0");
    sleep(Duration::from_millis(300));
    let after = used(&mut client);
    assert!(after < before + 1_500_000, "{before} bytes before, {after} after");
}

fn ping(client: &mut Client) {
    client.expect("PING", "+PONG");
}
