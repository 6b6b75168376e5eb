//! Requests in pieces of any size give what they give in one, and no bytes cause a panic, neither
//! as requests nor as replies.

#![no_main]

use carnelian_resp::{Decoder, Limits, Parser, Progress, ProtocolError};
use libfuzzer_sys::fuzz_target;

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fuzz_target!(|data: &[u8]| {
    let [flags, piece, input @ ..] = data else { return };
    let limits = Limits { max_bulk: 4096, authenticated: flags & 1 == 0, ..Limits::default() };
    let whole = parse(&[input], &limits);
    let pieces: Vec<&[u8]> = input.chunks(usize::from(*piece).max(1)).collect();
    assert_eq!(parse(&pieces, &limits), whole);

    let (mut decoder, mut rest) = (Decoder::default(), input);
    while let Ok(Some(_)) = decoder.decode(&mut rest) {}
});

fn parse(pieces: &[&[u8]], limits: &Limits) -> Outcome {
    let (mut parser, mut spans) = (Parser::default(), Vec::new());
    let (mut buffer, mut commands) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut start = 0;
        loop {
            spans.clear();
            let command = &mut buffer[start..];
            match parser.next(command, limits, &mut spans) {
                Ok(Progress::Complete { consumed, arguments }) => {
                    assert_eq!(arguments, spans.len());
                    commands.push(spans.iter().map(|span| span.of(command).to_vec()).collect());
                    start += consumed;
                }
                Ok(Progress::Incomplete { wanted }) => {
                    assert!(wanted > command.len());
                    break;
                }
                Err(error) => return (commands, Some(error)),
            }
        }
        buffer.drain(..start);
    }
    (commands, None)
}
