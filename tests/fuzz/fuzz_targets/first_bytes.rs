//! Whatever a connection begins with, and in whatever pieces: it comes in or is refused, nothing panics,
//! and nobody gets a word in over TLS without a handshake.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use carnelian_resp::{Limits, Parser, Progress};
use carnelian_tls::{
    Acceptor, Admission, AuthClients, HANDSHAKE_RECORD, Identity, Settings, SubjectAltNames,
    TransitEncryption,
};
use libfuzzer_sys::fuzz_target;

/// One that takes anybody, and one that asks for a certificate.
static ACCEPTORS: LazyLock<[Acceptor; 2]> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("carnelian-fuzz-{}", std::process::id()));
    let names = SubjectAltNames::of(["localhost"]).expect("it is a name");
    let mut settings = Settings::new(Identity::SelfMade { folder: folder.clone(), names });
    let now = SystemTime::now();
    let open = Acceptor::new(&settings, now).expect("a folder can be made");
    settings.auth_clients = AuthClients::Yes;
    settings.ca_cert_file = Some(folder.join(carnelian_tls::CA_CERTIFICATE));
    let strict = Acceptor::new(&settings, now).expect("the authority has just been made");
    let _ = std::fs::remove_dir_all(folder);
    [open, strict]
});

fuzz_target!(|data: &[u8]| {
    let [flags, piece, input @ ..] = data else { return };
    let [first, ..] = input else { return };
    let mode = match flags & 3 {
        0 | 1 => TransitEncryption::Preferred,
        2 => TransitEncryption::Required,
        _ => TransitEncryption::Disabled,
    };
    let pieces: Vec<&[u8]> = input.chunks(usize::from(*piece).max(1)).collect();
    match mode.admit(*first) {
        Admission::Tls => {
            assert!(*first == HANDSHAKE_RECORD && mode != TransitEncryption::Disabled);
            let acceptor = &ACCEPTORS[usize::from(flags >> 2 & 1)];
            // Not the other way: a record that has yet to end may be known to be bad, or not.
            let whole = shake(acceptor, &[input]);
            assert!(shake(acceptor, &pieces).is_none_or(|error| whole == Some(error)));
        }
        Admission::Plain => {
            assert!(*first != HANDSHAKE_RECORD && mode != TransitEncryption::Required);
            parse(&pieces);
        }
        Admission::Refuse(text) => assert!(!text.is_empty()),
    }
});

/// Gives a new session these bytes; returns the error it ended with, if it did.
fn shake(acceptor: &Acceptor, pieces: &[&[u8]]) -> Option<String> {
    let mut session = acceptor.start().expect("the settings are ours");
    let (mut received, mut answer) = (Vec::new(), Vec::new());
    let mut failed: Option<String> = None;
    for piece in pieces {
        let result = session.receive(&mut piece.to_vec(), &mut received, &mut answer);
        // Keys that nobody can guess are needed for both.
        assert!(received.is_empty());
        assert!(result.as_ref().map_or(true, |received| !received.handshake_finished));
        // The largest record, and a message of a handshake.
        assert!(session.held_bytes() <= 2 * (0xffff + (18 << 10)));
        let error = result.err().map(|error| error.to_string());
        assert!(failed.is_none() || failed == error, "an error is the last word");
        failed = error;
    }
    assert!(session.send(b"+PONG\r\n", &mut answer).is_err());
    failed
}

/// What comes in plain, from a client that has not authenticated.
fn parse(pieces: &[&[u8]]) {
    let limits = Limits { authenticated: false, ..Limits::default() };
    let (mut parser, mut spans) = (Parser::default(), Vec::new());
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut start = 0;
        while start < buffer.len() {
            spans.clear();
            let command = &mut buffer[start..];
            match parser.next(command, &limits, &mut spans) {
                Ok(Progress::Complete { consumed, arguments }) => {
                    assert!(0 < consumed && consumed <= command.len());
                    assert_eq!(arguments, spans.len());
                    start += consumed;
                }
                Ok(Progress::Incomplete { wanted }) => {
                    assert!(command.len() < wanted && wanted <= 1 << 20);
                    // Nobody who has not said who they are may make us keep much.
                    assert!(parser.heap_bytes() <= 4096);
                    break;
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return;
                }
            }
        }
        buffer.drain(..start);
    }
}
