//! Properties of the whole crate: cutting changes nothing, no bytes cause a panic, and what is
//! written reads back.

use carnelian_resp::{
    Decoder, Limits, Parser, Progress, Protocol, ProtocolError, Reply, ReplyLimits, Span, Writer,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// All commands in a stream, then what ended it.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    commands: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
    left: usize,
}

/// Parses a stream that arrives in these pieces.
fn parse<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut parser, mut spans): (_, Vec<Span>) = (Parser::default(), Vec::new());
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut start = 0;
        loop {
            spans.clear();
            let command = &mut buffer[start..];
            match parser.next(command, limits, &mut spans) {
                Ok(Progress::Complete { consumed, arguments }) => {
                    assert_eq!(arguments, spans.len());
                    assert!((1..=command.len()).contains(&consumed));
                    let words = spans.iter().map(|span| span.of(command).to_vec()).collect();
                    outcome.commands.push(words);
                    start += consumed;
                }
                Ok(Progress::Incomplete { wanted }) => {
                    assert!(wanted > command.len() && spans.is_empty());
                    break;
                }
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        buffer.drain(..start);
    }
    outcome.left = buffer.len();
    outcome
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out, Protocol::Resp2);
    writer.array(command.len());
    command.iter().for_each(|word| writer.bulk(word));
    out
}

fn words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let lengths = prop_oneof![8 => 0_usize..12, 1 => 95_usize..130, 1 => 990_usize..1010];
    let word = lengths.prop_flat_map(|length| vec(any::<u8>(), length));
    prop_oneof![9 => vec(word.clone(), 1..5), 1 => vec(word, 95..130)]
}

/// Bytes that often are nearly a request.
fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[*$][0-9]{1,3}\r\n".prop_map(String::into_bytes),
        4 => words().prop_map(|words| encode(&words)),
        2 => "[*$+-]?[-+0-9 ]{0,3}[\r\n]{0,2}".prop_map(String::into_bytes),
        2 => "[a-z \t\"'\\\\x41\r]{0,12}\r?\n".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn commands_read_back(commands in vec(words(), 1..4)) {
        let input: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        let outcome = parse([&input[..]], &Limits::default());
        prop_assert_eq!(outcome, Outcome { commands, error: None, left: 0 });
    }

    #[test]
    fn a_cut_anywhere_changes_nothing(input in nearly_requests()) {
        let limits = Limits { max_bulk: 2000, ..Limits::default() };
        let whole = parse([&input[..]], &limits);
        for cut in 0..=input.len() {
            let (head, tail) = input.split_at(cut);
            prop_assert_eq!(&parse([head, tail], &limits), &whole);
        }
        prop_assert_eq!(&parse(input.chunks(1), &limits), &whole);
        prop_assert_eq!(&parse(input.chunks(7), &limits), &whole);
    }

    #[test]
    fn any_bytes_are_parsed(input in vec(any::<u8>(), 0..300), authenticated: bool) {
        for first in [b"".as_slice(), b"*", b"*2\r\n$", b"\"", b"'"] {
            let limits = Limits { authenticated, ..Limits::default() };
            let input = [first, &input].concat();
            let whole = parse([&input[..]], &limits);
            prop_assert_eq!(&parse(input.chunks(3), &limits), &whole);
        }
    }

    #[test]
    fn any_bytes_are_decoded(input in vec(
        prop_oneof![3 => prop::sample::select(b"+-:$*_#,(!=%~>|.;0123?\r\n".to_vec()), 1 => any::<u8>()],
        0..200,
    )) {
        let mut decoder = Decoder::new(ReplyLimits { max_depth: 4, ..ReplyLimits::default() });
        let mut rest = &input[..];
        while let Ok(Some(_)) = decoder.decode(&mut rest) {}
    }
}

fn replies() -> impl Strategy<Value = Reply> {
    let line = "[ -~]{0,20}".prop_map(String::into_bytes);
    let leaf = prop_oneof![
        line.clone().prop_map(Reply::Simple),
        line.prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        (0_i64..200).prop_map(Reply::Integer),
        vec(any::<u8>(), 0..120).prop_map(Reply::Bulk),
        Just(Reply::Null),
        any::<bool>().prop_map(Reply::Boolean),
        any::<f64>().prop_filter("equals itself", |value| !value.is_nan()).prop_map(Reply::Double),
        "-?[1-9][0-9]{0,40}".prop_map(|digits| Reply::BigNumber(digits.into_bytes())),
        "[ -~]{0,20}".prop_map(|text| Reply::BulkError(text.into_bytes())),
        ("[a-z]{3}", vec(any::<u8>(), 0..50)).prop_map(|(format, text)| Reply::Verbatim {
            format: format.into_bytes().try_into().expect("three letters"),
            text,
        }),
    ];
    leaf.prop_recursive(4, 60, 12, |inner| {
        let pairs = vec((inner.clone(), inner.clone()), 0..12);
        prop_oneof![
            vec(inner.clone(), 0..12).prop_map(Reply::Array),
            vec(inner.clone(), 0..12).prop_map(Reply::Set),
            vec(inner.clone(), 0..12).prop_map(Reply::Push),
            pairs.clone().prop_map(Reply::Map),
            (pairs, inner)
                .prop_map(|(pairs, reply)| Reply::Attribute { pairs, reply: Box::new(reply) }),
        ]
    })
}

/// The reply as a RESP2 client gets to see it.
fn as_resp2(reply: Reply) -> Reply {
    let double = |value| {
        let mut text = Vec::new();
        carnelian_resp::number::write_double(value, &mut text);
        text
    };
    let all = |items: Vec<Reply>| Reply::Array(items.into_iter().map(as_resp2).collect());
    match reply {
        Reply::Null => Reply::NullBulk,
        Reply::Boolean(value) => Reply::Integer(value.into()),
        Reply::Double(value) => Reply::Bulk(double(value)),
        Reply::BigNumber(text) | Reply::Verbatim { text, .. } => Reply::Bulk(text),
        Reply::BulkError(text) => Reply::Error(text),
        Reply::Map(pairs) => all(pairs.into_iter().flat_map(<[Reply; 2]>::from).collect()),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => all(items),
        Reply::Attribute { reply, .. } => as_resp2(*reply),
        other => other,
    }
}

proptest! {
    #[test]
    fn replies_read_back(reply in replies(), cut: prop::sample::Index) {
        for (protocol, expected) in
            [(Protocol::Resp3, reply.clone()), (Protocol::Resp2, as_resp2(reply))]
        {
            let mut wire = Vec::new();
            expected.write(&mut Writer::new(&mut wire, protocol));
            let whole = Reply::decode(&wire);
            prop_assert_eq!(whole, Ok(Some((expected.clone(), wire.len()))));

            // In two pieces, of which the decoder takes what it can.
            let mut decoder = Decoder::default();
            let cut = cut.index(wire.len());
            let mut head = &wire[..cut];
            prop_assert_eq!(decoder.decode(&mut head), Ok(None));
            let mut rest = &wire[cut - head.len()..];
            prop_assert_eq!(decoder.decode(&mut rest), Ok(Some(expected)));
            prop_assert!(rest.is_empty() && !decoder.is_partial());
        }
    }

    #[test]
    fn resp2_says_the_same(reply in replies()) {
        let mut wire = Vec::new();
        reply.write(&mut Writer::new(&mut wire, Protocol::Resp2));
        prop_assert_eq!(Reply::decode(&wire), Ok(Some((as_resp2(reply), wire.len()))));
    }
}
