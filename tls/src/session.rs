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
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
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
    /// About what an open session takes of the C library's memory, where no Rust allocator sees it:
    /// the contexts of its two ciphers, measured.
    pub const FOREIGN_BYTES: usize = 1_536;

    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let engine = UnbufferedServerConnection::new(config).map_err(TlsError::Engine)?;
        Ok(Self { engine, held: Vec::new(), whole: 0, stage: Stage::Handshake })
    }

    /// Takes all of `ciphertext`, which is overwritten in the course of it. Appends what it
    /// completes to `plaintext` (at most as many bytes, and those of one record begun earlier) and
    /// what must be sent in answer to `outgoing`.
    ///
    /// On an error `plaintext` has what came undamaged before it, and `outgoing` the alert that tells
    /// the peer, to be written before closing; every later call returns the same error.
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

    /// Calls `write` with the engine's writer and at least `room` bytes at the end of `outgoing`. An
    /// error is final.
    fn with_writer(
        &mut self,
        outgoing: &mut Vec<u8>,
        room: usize,
        write: impl FnMut(&mut Writer<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        let result = self.try_writer(outgoing, room, write);
        if let Err(error) = &result {
            flush_alerts(&mut self.engine, outgoing);
            self.stage = Stage::Failed(error.clone());
            self.let_go();
        }
        result
    }

    fn try_writer(
        &mut self,
        outgoing: &mut Vec<u8>,
        mut room: usize,
        mut write: impl FnMut(&mut Writer<'_>, &mut [u8]) -> Result<usize, EncryptError>,
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

type Writer<'a> = WriteTraffic<'a, ServerConnectionData>;

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
mod tests;
