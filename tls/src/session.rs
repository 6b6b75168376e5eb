//! One TLS connection seen from a reactor: bytes in, bytes out, no sockets and no waiting.
//!
//! The caller owns all buffers. What came from the socket is decrypted where it lies (in the
//! reactor's own read buffer), the plaintext is appended to the connection's query buffer, and
//! everything that has to go to the peer, handshake, alerts and data alike, is appended in its
//! order to one outgoing buffer. So an idle session holds its keys and nothing else; only the part
//! of a record whose rest has not come yet is kept here, and given back once it has.
//!
//! This stands on the engine's unbuffered interface: its buffered one keeps 4 KiB per connection and
//! copies each byte received twice more.

use std::mem;
use std::sync::Arc;

use rustls::HandshakeKind;
use rustls::ProtocolVersion;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

use crate::ciphers;
use crate::error::TlsError;

/// The header of a record: type, version, length.
const HEADER_BYTES: usize = 5;

/// The most plaintext in one record.
const RECORD_PLAINTEXT_BYTES: usize = 16_384;

/// The most that header, nonce, tag and content type add to one (TLS 1.2 with AES-GCM).
const RECORD_OVERHEAD_BYTES: usize = 29;

/// How much of an unfinished handshake is kept: the largest record, and one message of the
/// largest size the engine takes.
const HELD_BYTES_MAX: usize = 0xffff + 18 * 1024;

/// One connection's TLS.
///
/// Invariants: `held` begins at a record that the engine has not let go of, `whole <= held.len()`
/// is where the last complete record in it ends, and between calls only an unfinished handshake
/// message or record is in it.
pub struct TlsSession {
    engine: UnbufferedServerConnection,
    held: Vec<u8>,
    whole: usize,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Handshake,
    Open,
    /// The peer will send no more; we may.
    PeerClosed,
    /// We have said that we will send no more.
    Closed,
    Failed(TlsError),
}

/// What a call of [`TlsSession::receive`] brought, besides the bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Received {
    /// The handshake ended with these bytes: from now on there is something to know about the peer,
    /// and data can be sent.
    pub handshake_finished: bool,
    /// The peer closed its direction properly; nothing comes after.
    pub closed: bool,
}

impl TlsSession {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let engine = UnbufferedServerConnection::new(config).map_err(TlsError::Engine)?;
        Ok(Self { engine, held: Vec::new(), whole: 0, stage: Stage::Handshake })
    }

    /// Takes all of `ciphertext`, which is overwritten in the course of it. Appends what it
    /// contained to `plaintext` (never more bytes than came in) and what must be sent in answer to
    /// `outgoing`; on an error this is the alert that tells the peer, to be written before closing.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        plaintext: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
    ) -> Result<Received, TlsError> {
        match &self.stage {
            Stage::Failed(error) => return Err(error.clone()),
            // Whatever comes after the close is to be ignored (RFC 8446, 6.1).
            Stage::PeerClosed => return Ok(Received { closed: true, ..Received::default() }),
            Stage::Handshake | Stage::Open | Stage::Closed => {}
        }
        let was_open = !matches!(self.stage, Stage::Handshake);
        let mut buffers = Buffers { plaintext, outgoing };
        if let Err(error) = self.take(ciphertext, &mut buffers) {
            flush_alerts(&mut self.engine, buffers.outgoing);
            self.stage = Stage::Failed(error.clone());
            self.let_go();
            return Err(error);
        }
        if matches!(self.stage, Stage::Handshake) && !self.engine.is_handshaking() {
            self.stage = Stage::Open;
        }
        let closed = matches!(self.stage, Stage::PeerClosed);
        if closed {
            self.let_go();
        }
        Ok(Received { handshake_finished: !was_open && !self.engine.is_handshaking(), closed })
    }

    /// Encrypts `plaintext` to the end of `outgoing`, in records of up to 16 KiB. Possible once the
    /// handshake has finished.
    pub fn send(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), TlsError> {
        match &self.stage {
            Stage::Handshake => return Err(TlsError::NotReady),
            Stage::Open | Stage::PeerClosed => {}
            Stage::Closed => return Err(TlsError::Closed),
            Stage::Failed(error) => return Err(error.clone()),
        }
        let records = plaintext.len().div_ceil(RECORD_PLAINTEXT_BYTES);
        let room = plaintext.len().saturating_add(records * RECORD_OVERHEAD_BYTES);
        self.with_writer(outgoing, room, |writer, room| writer.encrypt(plaintext, room))
    }

    /// Tells the peer that nothing more will be sent. Does nothing where there is nobody to tell:
    /// before the handshake has finished, after an error, or the second time.
    pub fn close_notify(&mut self, outgoing: &mut Vec<u8>) {
        if !matches!(self.stage, Stage::Open | Stage::PeerClosed) {
            return;
        }
        let room = 2 + RECORD_OVERHEAD_BYTES;
        // The keys cannot be used up for an alert, which is the only thing that could go wrong.
        let _ = self.with_writer(outgoing, room, |writer, room| writer.queue_close_notify(room));
        self.stage = Stage::Closed;
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.stage, Stage::Handshake)
    }

    /// The peer's certificates, its own first, if it came with any.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.engine.peer_certificates()
    }

    /// `TLSv1.2` or `TLSv1.3`, as OpenSSL writes it; empty before it is known.
    pub fn protocol(&self) -> &'static str {
        match self.engine.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        }
    }

    /// The cipher suite under OpenSSL's name; empty before it is known.
    pub fn cipher(&self) -> &'static str {
        self.engine.negotiated_cipher_suite().map_or("", |suite| ciphers::name(suite.suite()))
    }

    /// The key exchange group (`X25519MLKEM768`); empty before it is known, and where a resumed
    /// session did without.
    pub fn group(&self) -> &'static str {
        let group = self.engine.negotiated_key_exchange_group();
        group.and_then(|group| group.name().as_str()).unwrap_or("")
    }

    /// Whether this connection went on with an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.engine.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Bytes kept by this value beyond its own size and the engine's keys: part of a record whose
    /// rest has not come yet.
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Gives all of `input` to the engine, by way of `held` only where a record is cut.
    fn take(&mut self, mut input: &mut [u8], buffers: &mut Buffers<'_>) -> Result<(), TlsError> {
        while !self.held.is_empty() {
            let wanted = missing(&self.held[self.whole..]).min(input.len());
            if wanted == 0 {
                return Ok(()); // all of the input is in `held`
            }
            let (now, later) = mem::take(&mut input).split_at_mut(wanted);
            input = later;
            self.held.extend_from_slice(now);
            if missing(&self.held[self.whole..]) == 0 {
                self.whole = self.held.len();
            } else if self.held.len() - self.whole != HEADER_BYTES {
                continue; // neither a header nor a record is complete: the engine could say nothing
            }
            let used = drive(&mut self.engine, &mut self.stage, &mut self.held, buffers)
                .map_err(|error| explain(error, &self.held))?;
            self.held.drain(..used);
            self.whole = self.whole.saturating_sub(used);
            self.check_held()?;
        }
        self.held = Vec::new();
        if input.is_empty() {
            return Ok(());
        }
        let whole = last_boundary(input);
        let used = drive(&mut self.engine, &mut self.stage, input, buffers)
            .map_err(|error| explain(error, input))?;
        self.held.extend_from_slice(&input[used..]);
        self.whole = whole.saturating_sub(used);
        self.check_held()
    }

    fn check_held(&self) -> Result<(), TlsError> {
        match self.held.len() <= HELD_BYTES_MAX {
            true => Ok(()),
            false => Err(TlsError::HandshakeTooLarge { limit_bytes: HELD_BYTES_MAX }),
        }
    }

    fn let_go(&mut self) {
        self.held = Vec::new();
        self.whole = 0;
    }

    /// Calls `write` with the engine's writer and at least `room` bytes at the end of `outgoing`.
    fn with_writer(
        &mut self,
        outgoing: &mut Vec<u8>,
        mut room: usize,
        mut write: impl FnMut(
            &mut rustls::unbuffered::WriteTraffic<'_, rustls::server::ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        loop {
            // The engine wants to see what it has not let go of, or its notes about it are wrong.
            match self.engine.process_tls_records(&mut self.held).state? {
                ConnectionState::WriteTraffic(mut writer) => {
                    let start = outgoing.len();
                    outgoing.resize(start + room, 0);
                    match write(&mut writer, &mut outgoing[start..]) {
                        Ok(written) => {
                            outgoing.truncate(start + written);
                            return Ok(());
                        }
                        Err(EncryptError::InsufficientSize(InsufficientSizeError {
                            required_size,
                        })) if room < required_size => {
                            outgoing.truncate(start);
                            room = required_size;
                        }
                        Err(_) => {
                            outgoing.truncate(start);
                            return Err(TlsError::KeysExhausted);
                        }
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => encode(&mut data, outgoing),
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => {}
                ConnectionState::Closed => return Err(TlsError::Closed),
                _ => return Err(TlsError::NotReady),
            }
        }
    }
}

/// Where results go.
struct Buffers<'a> {
    plaintext: &'a mut Vec<u8>,
    outgoing: &'a mut Vec<u8>,
}

/// Lets the engine do all it can with `input`; says how many bytes at its front are done with.
fn drive(
    engine: &mut UnbufferedServerConnection,
    stage: &mut Stage,
    input: &mut [u8],
    buffers: &mut Buffers<'_>,
) -> Result<usize, TlsError> {
    let mut used = 0;
    loop {
        let UnbufferedStatus { mut discard, state, .. } =
            engine.process_tls_records(&mut input[used..]);
        let is_done = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    buffers.plaintext.extend_from_slice(record.payload);
                }
                false
            }
            ConnectionState::ReadEarlyData(mut traffic) => {
                // None is asked for, so none can come; if it did, it would not be believed.
                while let Some(record) = traffic.next_record() {
                    discard += record?.discard;
                }
                false
            }
            ConnectionState::EncodeTlsData(mut data) => {
                encode(&mut data, buffers.outgoing);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::PeerClosed => {
                *stage = Stage::PeerClosed;
                false
            }
            ConnectionState::BlockedHandshake
            | ConnectionState::WriteTraffic(_)
            | ConnectionState::Closed => true,
            _ => true,
        };
        used += discard;
        if is_done {
            return Ok(used);
        }
    }
}

/// Finds clearer words for what the engine says of hellos from before TLS 1.2: whichever of the
/// extensions they lack it missed first.
fn explain(error: TlsError, input: &[u8]) -> TlsError {
    const CLIENT_HELLO: u8 = 1;
    match (error, input) {
        (
            TlsError::Incompatible(_),
            [0x16, _, _, _, _, CLIENT_HELLO, _, _, _, 3, minor @ 0..=2, ..],
        ) => TlsError::OldProtocol(["SSLv3", "TLSv1", "TLSv1.1"][usize::from(*minor)]),
        (error, _) => error,
    }
}

/// Moves what the engine still wants the peer to know to `outgoing`.
///
/// Asks first whether there is anything: after an error the engine must not be let near its input.
fn flush_alerts(engine: &mut UnbufferedServerConnection, outgoing: &mut Vec<u8>) {
    while engine.wants_write() {
        match engine.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, outgoing),
            _ => return,
        }
    }
}

fn encode<Data>(data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    // Without room, it says how much it needs.
    let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) else { return };
    outgoing.resize(start + needed.required_size, 0);
    let written = data.encode(&mut outgoing[start..]).unwrap_or(0);
    outgoing.truncate(start + written);
}

/// How many bytes a record that has begun lacks, as far as can be told: of its header, then of its
/// body. Zero if it is complete.
fn missing(record: &[u8]) -> usize {
    match *record {
        [_, _, _, high, low, ref body @ ..] => {
            usize::from(u16::from_be_bytes([high, low])).saturating_sub(body.len())
        }
        _ => HEADER_BYTES - record.len(),
    }
}

/// Where the last complete record of `input` ends.
fn last_boundary(input: &[u8]) -> usize {
    let mut end = 0;
    while let [_, _, _, high, low, body @ ..] = &input[end..] {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if body.len() < length {
            break;
        }
        end += HEADER_BYTES + length;
    }
    end
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustls::{SupportedProtocolVersion, version};

    use super::*;
    use crate::acceptor::Acceptor;
    use crate::error::Fault;
    use crate::testing::{BOTH, ClientOptions, Pair, accept, self_made};

    /// An acceptor, and a client that trusts it and speaks these versions.
    fn setup(
        versions: &[&'static SupportedProtocolVersion],
    ) -> (Acceptor, Arc<rustls::ClientConfig>) {
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
        let finished: Vec<_> =
            pair.events.iter().filter(|event| event.handshake_finished).collect();
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
                while let Ok(length @ 1..) =
                    std::io::Read::read(&mut pair.client.reader(), &mut part)
                {
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
        let error =
            session.receive(&mut bytes.to_vec(), &mut plaintext, &mut outgoing).unwrap_err();
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
        assert!(
            acceptor.start().unwrap().receive(&mut huge, &mut Vec::new(), &mut outgoing).is_err()
        );
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
}
