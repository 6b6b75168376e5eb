//! The same bytes to a real Redis: what it accepts, refuses and prints is what `carnelian-resp` does.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use carnelian_resp::number::{parse_double, write_double};
use carnelian_resp::{Decoder, Limits, Parser, Progress, Protocol, Reply, Writer};
use carnelian_tests::{Server, require_or_skip};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 5000;

/// None where no Redis is installed.
fn redis(args: &[&str]) -> Option<Server> {
    require_or_skip("redis-server").map(|program| Server::starter_of(&program).args(args).start())
}

fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(("127.0.0.1", server.port())).expect("the server answers")
}

/// Whether doubles are written with as many digits as they need. Older servers write 17.
fn writes_shortest(server: &Server) -> bool {
    let version = server.connect().info("redis_version");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().ok());
    (Some(7), Some(2)) <= (parts.next().flatten(), parts.next().flatten())
}

/// Whether a reply is the one expected, or the same number in more digits where that is all to be had.
fn is_alike(expected: &Reply, reply: &Reply, shortest: bool) -> bool {
    match (expected, reply) {
        (Reply::Bulk(a), Reply::Bulk(b)) if !shortest => parse_double(a) == parse_double(b),
        _ => expected == reply,
    }
}

/// Sends commands in one go and reads a reply to each.
fn call(mut stream: &TcpStream, commands: &[Vec<&[u8]>]) -> Vec<Reply> {
    let mut request = Vec::new();
    let mut writer = Writer::new(&mut request, Protocol::Resp2);
    for command in commands {
        writer.array(command.len());
        command.iter().for_each(|word| writer.bulk(word));
    }
    stream.write_all(&request).expect("sent");
    let (mut decoder, mut replies) = (Decoder::default(), Vec::new());
    let (mut buffer, mut chunk) = (Vec::new(), [0; 65536]);
    while replies.len() < commands.len() {
        let read = stream.read(&mut chunk).expect("received");
        assert_ne!(read, 0, "the server closed the connection");
        buffer.extend_from_slice(&chunk[..read]);
        let mut rest = &buffer[..];
        while let Some(reply) = decoder.decode(&mut rest).expect("valid replies") {
            replies.push(reply);
        }
        let left = rest.len();
        buffer.drain(..buffer.len() - left);
    }
    replies
}

fn text(value: f64) -> Vec<u8> {
    let mut text = Vec::new();
    write_double(value, &mut text);
    text
}

/// Finite doubles of every kind that sorted sets, coordinates and counters meet.
fn doubles() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        (0..1_u64 << 52).prop_map(f64::from_bits),
        (any::<i32>(), 0..12).prop_map(|(digits, places)| f64::from(digits) / 10_f64.powi(places)),
        (-330..310).prop_map(|power| format!("1e{power}").parse().expect("a number")),
        (1..1000, -330..310)
            .prop_map(|(digits, power)| format!("{digits}e{power}").parse().expect("a number")),
        (-1100..1024).prop_map(|power| 2_f64.powi(power)),
        (0..66_u32, -4..4_i64)
            .prop_map(|(power, offset)| ((1_u128 << power) as f64) + offset as f64),
        (-1000..1000_i64).prop_map(|offset| ((1_i64 << 53) + offset) as f64),
        any::<i64>().prop_map(|integer| integer as f64),
        any::<f32>().prop_map(f64::from),
        0.0..1.0,
    ]
    .prop_filter("finite, not zero", |value| value.is_finite() && *value != 0.0)
}

#[test]
fn doubles_are_printed_alike() {
    let Some(server) = redis(&[]) else { return };
    let stream = connect(&server);
    let shortest = writes_shortest(&server);
    for protocol in ["2", "3"] {
        call(&stream, &[vec![b"HELLO", protocol.as_bytes()]]);
        let mut runner = TestRunner::new(Config::with_cases(CASES / 20));
        runner
            .run(&vec(doubles(), 1..1000), |values| {
                let texts: Vec<_> = values.iter().map(|value| format!("{value:e}")).collect();
                let mut commands = vec![vec![b"DEL".as_slice(), b"resp:z"]];
                for text in &texts {
                    commands.push(vec![b"ZADD", b"resp:z", text.as_bytes(), b"m"]);
                    commands.push(vec![b"ZSCORE", b"resp:z", b"m"]);
                }
                let replies = call(&stream, &commands);
                for (value, reply) in values.iter().zip(replies[2..].iter().step_by(2)) {
                    let expected = match (protocol, reply) {
                        ("3", Reply::Double(_)) => Reply::Double(*value),
                        _ => Reply::Bulk(text(*value)),
                    };
                    prop_assert!(
                        is_alike(&expected, reply, shortest),
                        "{value:e}: {expected:?} {reply:?}"
                    );
                }
                Ok(())
            })
            .expect("the same");
    }
}

/// In RESP3 the decoder has turned text into a number: compare the text itself there.
#[test]
fn doubles_are_printed_alike_in_resp3() {
    let Some(server) = redis(&[]) else { return };
    if !writes_shortest(&server) {
        eprintln!("skipped: this Redis writes 17 digits");
        return;
    }
    let stream = connect(&server);
    call(&stream, &[vec![b"HELLO", b"3"]]);
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    runner
        .run(&doubles(), |value| {
            let score = format!("{value:e}");
            call(
                &stream,
                &[vec![b"DEL", b"resp:z3"], vec![b"ZADD", b"resp:z3", score.as_bytes(), b"m"]],
            );
            let mut expected = Vec::new();
            Writer::new(&mut expected, Protocol::Resp3).double(value);
            (&stream).write_all(b"ZSCORE resp:z3 m\r\n").expect("sent");
            let mut reply = vec![0; expected.len()];
            (&stream).read_exact(&mut reply).expect("received");
            prop_assert_eq!(reply, expected);
            Ok(())
        })
        .expect("the same");
}

#[test]
fn doubles_are_read_alike() {
    let Some(server) = redis(&[]) else { return };
    let stream = connect(&server);
    let shortest = writes_shortest(&server);
    let number = prop_oneof![
        "[-+]?[0-9]{0,4}[.]?[0-9]{0,3}([eE][-+]?[0-9]{0,3})?",
        "[-+]?0[xX][0-9a-fA-F]{0,18}[.]?[0-9a-fA-F]{0,18}([pP][-+]?[0-9]{0,4})?",
        "[-+]?[0-9]{1,400}(e-?[0-9]{1,3})?",
        "[-+]?(inf|INF|Infinity|nan|infinit)",
        "[-+0-9.eExXpPinfa ]{0,8}",
    ];
    let mut runner = TestRunner::new(Config::with_cases(CASES / 10));
    runner
        .run(&vec(number, 1..500), |numbers| {
            let mut commands = Vec::new();
            for number in &numbers {
                commands.push(vec![b"DEL".as_slice(), b"resp:zr"]);
                commands.push(vec![b"ZADD", b"resp:zr", number.as_bytes(), b"m"]);
                commands.push(vec![b"ZSCORE", b"resp:zr", b"m"]);
            }
            let replies = call(&stream, &commands);
            for (number, reply) in numbers.iter().zip(replies[2..].iter().step_by(3)) {
                let expected = match parse_double(number.as_bytes()) {
                    None => Reply::NullBulk,
                    // A sorted set in a listpack forgets the sign of zero.
                    Some(0.0) => Reply::Bulk(b"0".to_vec()),
                    Some(value) => Reply::Bulk(text(value)),
                };
                prop_assert!(
                    is_alike(&expected, reply, shortest),
                    "{number}: {expected:?} {reply:?}"
                );
            }
            Ok(())
        })
        .expect("the same");
}

/// What a server answers to a command, as far as parsing decides it.
#[derive(Debug, PartialEq)]
enum Answer {
    Reply(Reply),
    SomeError,
}

/// What Redis should answer to a stream, by this crate's parser.
fn predict(input: &[u8], limits: &Limits) -> Vec<Answer> {
    let (mut parser, mut buffer) = (Parser::default(), input.to_vec());
    let (mut answers, mut spans, mut start) = (Vec::new(), Vec::new(), 0);
    loop {
        spans.clear();
        let command = &mut buffer[start..];
        match parser.next(command, limits, &mut spans) {
            Ok(Progress::Incomplete { .. }) => return answers,
            Ok(Progress::Complete { consumed, arguments }) => {
                let words: Vec<&[u8]> = spans.iter().map(|span| span.of(command)).collect();
                let name = words.first().map(|word| word.to_ascii_lowercase());
                let reply = match (name.as_deref(), &words[..]) {
                    (Some(b"echo"), [_, word]) | (Some(b"ping"), [_, word]) => {
                        Answer::Reply(Reply::Bulk(word.to_vec()))
                    }
                    (Some(b"ping"), [_]) => Answer::Reply(Reply::Simple(b"PONG".to_vec())),
                    _ => Answer::SomeError,
                };
                if arguments > 0 {
                    let known = limits.authenticated;
                    answers.push(if known { reply } else { Answer::SomeError });
                }
                start += consumed;
            }
            Err(error) => {
                let mut text = b"ERR ".to_vec();
                error.write_text(&mut text);
                answers.push(Answer::Reply(Reply::Error(text)));
                return answers;
            }
        }
    }
}

/// What a server does answer. It is told that no more will come, so that it ends the connection.
/// None if it did so before it had read everything, which can cost us its last words.
fn ask(server: &Server, input: &[u8]) -> Option<Vec<Reply>> {
    let mut stream = connect(server);
    stream.write_all(input).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let (mut decoder, mut rest, mut replies) = (Decoder::default(), &bytes[..], Vec::new());
    while let Some(reply) = decoder.decode(&mut rest).expect("valid replies") {
        replies.push(reply);
    }
    assert!(rest.is_empty(), "all replies are whole");
    Some(replies)
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        3 => Just(b"ECHO".to_vec()),
        3 => Just(b"ping".to_vec()),
        3 => vec(any::<u8>(), 0..20),
        1 => vec(any::<u8>(), 16380..16390),
    ];
    let bulk = word.prop_map(|word| {
        [format!("${}\r\n", word.len()).into_bytes(), word, b"\r\n".to_vec()].concat()
    });
    let quoted = "(ECHO|PING|x)? ?[a \t\x0b\x0c\"'\\\\xX41nrtba]{0,14}\r?\n";
    let piece = prop_oneof![
        4 => vec(bulk, 1..4)
            .prop_map(|words| [format!("*{}\r\n", words.len()).into_bytes(), words.concat()].concat()),
        3 => quoted.prop_map(String::into_bytes),
        1 => "[*][-+ ]?[0-9]{0,2}[\r]?[\n]?".prop_map(String::into_bytes),
        1 => "[*]1\r\n[$]?[-+ ]?[0-9]{0,2}[\r]?[\n]?".prop_map(String::into_bytes),
        1 => Just(b"*1\r\n$4\r\nPINGxx".to_vec()),
        1 => vec(any::<u8>(), 0..3),
        1 => "[*][0-9]{9,20}\r\n".prop_map(String::into_bytes),
        1 => "[*]1\r\n[$][0-9]{9,20}\r\n".prop_map(String::into_bytes),
    ];
    vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn requests_are_read_alike(server: &Server, limits: &Limits) {
    let mut runner = TestRunner::new(Config::with_cases(CASES));
    runner
        .run(&requests(), |input| {
            let expected = predict(&input, limits);
            let replies = ask(server, &input);
            prop_assume!(replies.is_some(), "reset");
            let replies = replies.unwrap_or_default();
            prop_assert_eq!(expected.len(), replies.len(), "{:?} {:?}", expected, replies);
            for (expected, reply) in expected.into_iter().zip(replies) {
                match expected {
                    Answer::Reply(expected) => prop_assert_eq!(expected, reply),
                    Answer::SomeError => prop_assert!(reply.error().is_some(), "{:?}", reply),
                }
            }
            Ok(())
        })
        .expect("the same");
}

#[test]
fn requests_of_a_client() {
    let Some(server) = redis(&[]) else { return };
    requests_are_read_alike(&server, &Limits::default());
}

#[test]
fn requests_of_a_client_not_authenticated() {
    let Some(server) = redis(&["--requirepass", "secret"]) else { return };
    let limits = Limits { authenticated: false, ..Limits::default() };
    requests_are_read_alike(&server, &limits);
}
