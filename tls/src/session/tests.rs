//! Sessions against a client in memory: whole, in pieces, damaged, and closed.

use std::io::Write;

use rustls::{SupportedProtocolVersion, version};

use super::*;
use crate::acceptor::Acceptor;
use crate::error::Fault;
use crate::testing::{BOTH, ClientOptions, Pair, accept, self_made};

/// An acceptor, and a client that trusts it and speaks these versions.
fn setup(versions: &[&'static SupportedProtocolVersion]) -> (Acceptor, Arc<rustls::ClientConfig>) {
    let folder = tempfile::tempdir().unwrap();
    let acceptor = accept(&self_made(folder.path()));
    let ca = crate::store::certificates(&folder.path().join("client-ca.pem")).unwrap();
    let options = ClientOptions { versions, ..ClientOptions::default() };
    (acceptor, options.config(&ca[0]))
}

#[test]
fn both_versions_shake_hands_and_pass_data() {
    for (version, name) in [(&version::TLS13, "TLSv1.3"), (&version::TLS12, "TLSv1.2")] {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        assert!(pair.server.is_handshaking());
        assert_eq!((pair.server.protocol(), pair.server.cipher()), ("", ""));
        pair.ping();
        assert!(!pair.server.is_handshaking() && !pair.server.is_resumed());
        assert_eq!(pair.server.protocol(), name);
        assert!(pair.server.cipher().contains("AES"));
        assert_eq!(
            pair.server.group(),
            ["X25519", "X25519MLKEM768"][usize::from(name == "TLSv1.3")]
        );
        assert_eq!(pair.events.iter().filter(|event| event.handshake_finished).count(), 1);
        assert_eq!(pair.server.held_bytes(), 0);
    }
}

#[test]
fn one_byte_at_a_time_is_enough() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.chunk = 1;
        pair.ping();
        pair.client.writer().write_all(&[7; 40_000]).unwrap();
        pair.received.clear();
        pair.run().unwrap();
        assert_eq!(pair.received, [7; 40_000]);
        assert_eq!(pair.server.held_bytes(), 0);
        assert_eq!(pair.events.iter().filter(|event| event.handshake_finished).count(), 1);
    }
}

#[test]
fn pieces_of_any_size_will_do() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        for chunk in [2, 3, 4, 5, 6, 21, 22, 100, 1_000, 16_384, 16_406] {
            let mut pair = Pair::new(&acceptor, &client);
            pair.chunk = chunk;
            pair.ping();
            pair.received.clear();
            for length in 1..40 {
                pair.client.writer().write_all(&vec![length; usize::from(length)]).unwrap();
            }
            pair.run().unwrap();
            assert_eq!(pair.received.len(), (1..40).sum::<usize>());
            assert_eq!(pair.server.held_bytes(), 0);
        }
    }
}

#[test]
fn damage_to_any_byte_of_the_last_flight_never_panics() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        for place in 0.. {
            let mut pair = Pair::new(&acceptor, &client);
            let hello = pair.client_bytes();
            pair.give_server(&hello).unwrap();
            pair.give_client().unwrap();
            let mut last = pair.client_bytes();
            let Some(byte) = last.get_mut(place) else { break };
            *byte ^= 0x41;
            // Otherwise it waits for more, or it was a byte that TLS 1.2 does not protect.
            if let Err(error) = pair.give_server(&last) {
                assert_eq!(error.fault(), Fault::Peer, "{error}");
            }
        }
    }
}

#[test]
fn the_first_flight_may_be_cut_anywhere() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let length = Pair::new(&acceptor, &client).client_bytes().len();
        for cut in 1..length {
            let mut pair = Pair::new(&acceptor, &client);
            let hello = pair.client_bytes();
            pair.give_server(&hello[..cut]).unwrap();
            assert!(pair.to_client.is_empty(), "answered before byte {cut} of {length}");
            pair.give_server(&hello[cut..]).unwrap();
            assert!(!pair.to_client.is_empty());
            assert!(pair.server.is_handshaking());
        }
    }
}

#[test]
fn a_hello_in_many_records_and_pieces_is_put_together() {
    let (acceptor, client) = setup(BOTH);
    for (fragment, chunk) in [(1, 1), (1, 7), (3, 4096), (100, 5), (100, 64), (500, 1 << 20)] {
        let mut pair = Pair::new(&acceptor, &client);
        let hello = pair.client_bytes();
        let mut records = Vec::new();
        for part in hello[HEADER_BYTES..].chunks(fragment) {
            records.extend([0x16, 3, 1]);
            records.extend((part.len() as u16).to_be_bytes());
            records.extend(part);
        }
        pair.chunk = chunk;
        pair.give_server(&records).unwrap();
        pair.chunk = usize::MAX;
        pair.ping();
    }
}

#[test]
fn data_in_one_piece_with_the_end_of_the_handshake_is_not_lost() {
    let (acceptor, client) = setup(&[&version::TLS13]);
    let mut pair = Pair::new(&acceptor, &client);
    pair.client.writer().write_all(b"first").unwrap();
    pair.run().unwrap();
    assert_eq!(pair.received, b"first");
    let finished: Vec<_> = pair.events.iter().filter(|event| event.handshake_finished).collect();
    assert_eq!(finished, [&Received { handshake_finished: true, closed: false }]);
}

#[test]
fn large_amounts_pass_both_ways() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        let data: Vec<u8> = (0..300_000_u32).map(|place| (place % 251) as u8).collect();
        pair.received.clear();
        pair.client.set_buffer_limit(None);
        pair.client.writer().write_all(&data).unwrap();
        pair.chunk = 65_536;
        pair.run().unwrap();
        assert!(pair.received == data);

        pair.server.send(&data, &mut pair.to_client).unwrap();
        let records = data.len().div_ceil(RECORD_PLAINTEXT_BYTES);
        assert!(pair.to_client.len() <= data.len() + records * RECORD_OVERHEAD_BYTES);
        let mut back = Vec::new();
        let sent = std::mem::take(&mut pair.to_client);
        let mut rest = &sent[..];
        while !rest.is_empty() {
            pair.client.read_tls(&mut rest).unwrap();
            pair.client.process_new_packets().unwrap();
            let mut part = vec![0; 1 << 17];
            while let Ok(length @ 1..) = std::io::Read::read(&mut pair.client.reader(), &mut part) {
                back.extend_from_slice(&part[..length]);
            }
        }
        assert!(back == data);
    }
}

#[test]
fn sending_works_while_half_a_record_waits() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        pair.received.clear();
        pair.client.writer().write_all(b"ECHO 12\r\n").unwrap();
        let bytes = pair.client_bytes();
        pair.give_server(&bytes[..9]).unwrap();
        assert!(pair.received.is_empty() && 9 <= pair.server.held_bytes());
        pair.server.send(b"+unasked\r\n", &mut pair.to_client).unwrap();
        pair.give_client().unwrap();
        pair.give_server(&bytes[9..]).unwrap();
        assert_eq!(pair.received, b"ECHO 12\r\n");
        assert_eq!(pair.server.held_bytes(), 0);
    }
}

#[test]
fn nothing_is_appended_for_nothing() {
    let (acceptor, client) = setup(BOTH);
    let mut pair = Pair::new(&acceptor, &client);
    assert!(matches!(pair.server.send(b"x", &mut pair.to_client), Err(TlsError::NotReady)));
    pair.server.close_notify(&mut pair.to_client);
    assert!(pair.to_client.is_empty());
    pair.ping();
    pair.give_server(b"").unwrap();
    pair.server.send(b"", &mut pair.to_client).unwrap();
    assert!(pair.to_client.is_empty());
}

#[test]
fn keys_are_updated_when_the_peer_asks() {
    let (acceptor, client) = setup(&[&version::TLS13]);
    let mut pair = Pair::new(&acceptor, &client);
    pair.ping();
    for _ in 0..3 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.ping();
    }
}

#[test]
fn closing_is_announced_by_both_sides() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        pair.server.close_notify(&mut pair.to_client);
        let length = pair.to_client.len();
        pair.server.close_notify(&mut pair.to_client);
        assert!(0 < length && pair.to_client.len() == length);
        assert!(matches!(pair.server.send(b"x", &mut Vec::new()), Err(TlsError::Closed)));
        pair.give_client().unwrap();
        assert!(std::io::Read::read(&mut pair.client.reader(), &mut [0]).unwrap() == 0);

        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        pair.client.writer().write_all(b"QUIT\r\n").unwrap();
        pair.client.send_close_notify();
        let mut bytes = pair.client_bytes();
        bytes.extend(b"what comes after is ignored");
        pair.received.clear();
        pair.give_server(&bytes).unwrap();
        assert_eq!(pair.received, b"QUIT\r\n");
        assert!(pair.events.last().unwrap().closed);
        pair.give_server(b"still ignored").unwrap();
        assert_eq!(pair.received, b"QUIT\r\n");
        // The answer to QUIT can still be sent.
        pair.server.send(b"+OK\r\n", &mut pair.to_client).unwrap();
        pair.server.close_notify(&mut pair.to_client);
        pair.give_client().unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut pair.client.reader(), &mut answer).unwrap();
        assert_eq!(answer, "+OK\r\n");
    }
}

/// What a fresh session makes of these bytes: the error, and the description in its alert.
fn refused(acceptor: &Acceptor, bytes: &[u8]) -> (TlsError, Option<u8>) {
    let mut session = acceptor.start().unwrap();
    let (mut plaintext, mut outgoing) = (Vec::new(), Vec::new());
    let error = session.receive(&mut bytes.to_vec(), &mut plaintext, &mut outgoing).unwrap_err();
    assert_eq!((error.fault(), plaintext.len()), (Fault::Peer, 0));
    let alert = match outgoing[..] {
        [] => None,
        [0x15, 3, _, 0, 2, 2, description] => Some(description),
        _ => panic!("not an alert: {outgoing:?}"),
    };
    let again = session.receive(&mut [0x16], &mut plaintext, &mut outgoing).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!((session.held_bytes(), outgoing.len()), (0, alert.map_or(0, |_| 7)));
    session.close_notify(&mut outgoing);
    (error, alert)
}

#[test]
fn bad_beginnings_get_an_alert_and_an_error() {
    const DECODE_ERROR: Option<u8> = Some(50);
    let (acceptor, client) = setup(BOTH);
    let hello = Pair::new(&acceptor, &client).client_bytes();

    for garbage in [
        &b"\x16GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x16\x16\x16\x16\x16",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x00",
        b"\x99\x03\x01\x00\x01\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",
    ] {
        let (error, alert) = refused(&acceptor, garbage);
        assert!(matches!(error, TlsError::Malformed(_)), "{error}");
        assert_eq!(alert, DECODE_ERROR, "{garbage:?}");
    }

    // A hello cut short, with lengths that fit the cut.
    for length in 4..hello.len() - HEADER_BYTES {
        let mut cut = hello[..HEADER_BYTES + length].to_vec();
        cut[3..5].copy_from_slice(&(length as u16).to_be_bytes());
        cut[6..9].copy_from_slice(&(length as u32 - 4).to_be_bytes()[1..]);
        let (error, alert) = refused(&acceptor, &cut);
        assert!(alert.is_some(), "{error}");
    }

    // TLS 1.0 and 1.1: such a hello has no extensions.
    for (minor, name) in [(0, "SSLv3"), (1, "TLSv1"), (2, "TLSv1.1")] {
        let mut old = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, minor];
        old.extend([7; 32]);
        old.extend([0, 0, 2, 0xc0, 0x14, 1, 0]);
        let (error, alert) = refused(&acceptor, &old);
        assert_eq!(
            error.to_string(),
            format!("peer offers {name} at best, which is no longer supported")
        );
        assert!(matches!(alert, Some(40 | 70)), "{alert:?}");
    }

    // Application data and an alert before any handshake.
    refused(&acceptor, b"\x17\x03\x03\x00\x01x");
    let (error, _) = refused(&acceptor, b"\x15\x03\x01\x00\x02\x02\x28");
    assert!(matches!(error, TlsError::Alert(rustls::AlertDescription::HandshakeFailure)));
}

#[test]
fn damage_to_any_byte_of_a_hello_never_panics() {
    let (acceptor, client) = setup(BOTH);
    let hello = Pair::new(&acceptor, &client).client_bytes();
    for place in 0..hello.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut damaged = hello.clone();
            damaged[place] ^= mask;
            let mut session = acceptor.start().unwrap();
            let mut outgoing = Vec::new();
            let result = session.receive(&mut damaged, &mut Vec::new(), &mut outgoing);
            if let Err(error) = result {
                assert_eq!(error.fault(), Fault::Peer, "{error}");
            }
        }
    }
}

#[test]
fn records_that_fail_to_decrypt_end_the_connection() {
    for version in BOTH {
        let (acceptor, client) = setup(&[version]);
        let mut pair = Pair::new(&acceptor, &client);
        pair.ping();
        pair.received.clear();
        pair.client.writer().write_all(b"SET k v\r\n").unwrap();
        let mut bytes = pair.client_bytes();
        *bytes.last_mut().unwrap() ^= 1;
        let error = pair.give_server(&bytes).unwrap_err();
        assert!(matches!(error, TlsError::Misbehaved(_)), "{error}");
        assert!(pair.received.is_empty());
        // The alert is encrypted and reaches the client.
        let error = pair.give_client().unwrap_err();
        let bad_mac = rustls::AlertDescription::BadRecordMac;
        assert_eq!(error, rustls::Error::AlertReceived(bad_mac));
    }
}

#[test]
fn records_of_too_great_a_length_are_refused_at_their_header() {
    let (acceptor, client) = setup(BOTH);
    let mut pair = Pair::new(&acceptor, &client);
    pair.ping();
    let error = pair.give_server(b"\x17\x03\x03\xff\xff").unwrap_err();
    assert!(matches!(error, TlsError::Malformed(_)), "{error}");

    let mut pair = Pair::new(&acceptor, &client);
    pair.chunk = 1;
    let error = pair.give_server(b"\x16\x03\x03\xff\xff").unwrap_err();
    assert!(matches!(error, TlsError::Malformed(_)), "{error}");
}

#[test]
fn an_endless_hello_is_cut_off() {
    let (acceptor, _) = setup(BOTH);
    let mut session = acceptor.start().unwrap();
    let mut outgoing = Vec::new();
    // A message that says it has 65,535 bytes, in records of one.
    let mut sent = 0;
    let mut first = vec![0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff];
    let mut result = session.receive(&mut first, &mut Vec::new(), &mut outgoing);
    while result.is_ok() {
        sent += 6;
        assert!(sent < 1 << 20);
        let mut record = [0x16, 3, 1, 0, 1, 0];
        result = session.receive(&mut record, &mut Vec::new(), &mut outgoing);
    }
    assert!(matches!(result, Err(TlsError::HandshakeTooLarge { .. })));
    assert_eq!(session.held_bytes(), 0);

    let mut huge = vec![0x16, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff];
    assert!(acceptor.start().unwrap().receive(&mut huge, &mut Vec::new(), &mut outgoing).is_err());
}

#[test]
fn renegotiation_is_not_offered() {
    let (acceptor, client) = setup(&[&version::TLS12]);
    let mut pair = Pair::new(&acceptor, &client);
    pair.ping();
    // A handshake record in the clear where only encrypted ones belong.
    let hello = Pair::new(&acceptor, &client).client_bytes();
    assert!(pair.give_server(&hello).is_err());
}

#[test]
fn any_name_may_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let acceptor = accept(&self_made(folder.path()));
    let ca = crate::store::certificates(&folder.path().join("client-ca.pem")).unwrap();
    let client = ClientOptions::default().config(&ca[0]);
    for covered in ["localhost", "a.cache.example", "127.0.0.1", "::1"] {
        Pair::named(&acceptor, &client, covered).ping();
    }
    // The server goes along with the others too: it is the client that gives up.
    for unknown in ["db.example", "redis_1", "10.9.8.7"] {
        let mut pair = Pair::named(&acceptor, &client, unknown);
        let hello = pair.client_bytes();
        pair.give_server(&hello).unwrap();
        let error = pair.give_client().unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<TlsSession>() <= 1_400, "{}", size_of::<TlsSession>());
}
