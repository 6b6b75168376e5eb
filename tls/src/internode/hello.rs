//! What a connection opens with: the ClientHello, read before the TLS engine sees it.
//!
//! The engine would refuse most of what is refused here, but in fewer words, and it lets go by what
//! no node of ours ever sends: a session to resume, early data, a renegotiation. Nothing here is
//! trusted: whatever passes is read by the engine again.
//!
//! Bounds: a greeting of at most [`HELLO_BYTES_MAX`] in records that come to no more than twice as
//! much, so that a connection without a certificate costs no more memory than that.

use rustls::{CipherSuite, ProtocolVersion};

use super::peer::{Identity, Plane};
use super::policy::{self, Versions};
use super::refusal::{Quoted, Refusal};

/// Ours have less than 2 KiB, most of which is the key share of the hybrid group.
pub(super) const HELLO_BYTES_MAX: usize = 16 * 1024;

const RECORD_HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 16 * 1024;
const HANDSHAKE_HEADER_BYTES: usize = 4;

const HANDSHAKE: u8 = 0x16;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
const RENEGOTIATION_INFO: u16 = 0xff01;

/// What there is of a greeting so far.
pub(super) enum Progress {
    /// So far so good; there is more to come.
    Unfinished,
    /// The whole greeting and nothing after it.
    Whole(Hello),
}

/// The parts that decide.
#[derive(Debug, Default)]
pub(super) struct Hello {
    legacy_version: u16,
    /// `None` from those who know nothing newer than TLS 1.2.
    versions: Option<Vec<u16>>,
    suites: Vec<u16>,
    protocols: Vec<Vec<u8>>,
    server_name: Option<Vec<u8>>,
    has_session_id: bool,
    has_ticket: bool,
    has_pre_shared_key: bool,
    has_early_data: bool,
    renegotiates: bool,
}

/// Looks at all that a connection has sent.
pub(super) fn read(sent: &[u8]) -> Result<Progress, Refusal> {
    let Some(&first) = sent.first() else { return Ok(Progress::Unfinished) };
    if first != HANDSHAKE {
        return Err(not_tls(sent));
    }
    let Some(message) = message(sent)? else { return Ok(Progress::Unfinished) };
    Hello::parse(&message)
        .map(Progress::Whole)
        .ok_or_else(|| Refusal::Malformed("a greeting that ends where it should not".into()))
}

/// Tells what it looks like, since that is how the mistake will be found.
fn not_tls(sent: &[u8]) -> Refusal {
    const METHODS: [&[u8]; 9] =
        [b"GET ", b"PUT ", b"POST", b"HEAD", b"OPTI", b"DELE", b"PATC", b"CONN", b"PRI "];
    if let [length, _, CLIENT_HELLO, 0 | 2 | 3, ..] = sent
        && 0x80 <= *length
    {
        return Refusal::OldVersion("SSLv2");
    }
    Refusal::NotTls(match sent {
        _ if METHODS.iter().any(|method| sent.starts_with(method)) => "an HTTP request",
        [b'*' | b'$' | b'+' | b'-' | b':' | b'%' | b'>', ..] => "RESP",
        [0x14 | 0x15 | 0x17, 3, ..] => "a TLS record that begins no handshake",
        [b' '..=b'~' | b'\r' | b'\n' | b'\t', ..] => "text",
        _ => "something unknown",
    })
}

/// The body of the first handshake message, once it is whole.
fn message(sent: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let mut message = Vec::new();
    let mut rest = sent;
    loop {
        if let Some(header) = rest.get(..rest.len().min(3))
            && let [_, major, ..] = header
            && *major != 3
        {
            return Err(Refusal::NotTls("something unknown"));
        }
        let Some((header, after)) = rest.split_at_checked(RECORD_HEADER_BYTES) else {
            return bounded(sent, &message).map(|()| None);
        };
        if header[0] != HANDSHAKE {
            return Err(Refusal::Malformed("another record within the greeting".into()));
        }
        let bytes = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if RECORD_BYTES_MAX < bytes {
            return Err(Refusal::OversizeRecord { bytes });
        }
        if bytes == 0 {
            return Err(Refusal::Malformed("an empty record".into()));
        }
        let (fragment, after) = after.split_at(after.len().min(bytes));
        message.extend_from_slice(fragment);
        bounded(sent, &message)?;
        if let Some(length) = length(&message)?
            && HANDSHAKE_HEADER_BYTES + length <= message.len()
        {
            let is_exact = HANDSHAKE_HEADER_BYTES + length == message.len();
            if !is_exact || !after.is_empty() || fragment.len() < bytes {
                return Err(Refusal::Misbehaved("it sends more before it is answered".into()));
            }
            return Ok(Some(message.split_off(HANDSHAKE_HEADER_BYTES)));
        }
        if fragment.len() < bytes {
            return Ok(None);
        }
        rest = after;
    }
}

fn bounded(sent: &[u8], message: &[u8]) -> Result<(), Refusal> {
    let most = HANDSHAKE_HEADER_BYTES + HELLO_BYTES_MAX;
    match message.len() <= most && sent.len() <= 2 * most {
        true => Ok(()),
        false => Err(Refusal::OversizeHello { limit: HELLO_BYTES_MAX }),
    }
}

/// The length that the message claims, as soon as it does.
fn length(message: &[u8]) -> Result<Option<usize>, Refusal> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Refusal::Malformed("a handshake that does not begin with a greeting".into()));
    }
    let [_, high, middle, low, ..] = *message else { return Ok(None) };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    match length <= HELLO_BYTES_MAX {
        true => Ok(Some(length)),
        false => Err(Refusal::OversizeHello { limit: HELLO_BYTES_MAX }),
    }
}

impl Hello {
    /// `None` if it is damaged.
    fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let mut hello = Self { legacy_version: reader.u16()?, ..Self::default() };
        reader.take(32)?; // random
        hello.has_session_id = !reader.short_vector()?.0.is_empty();
        hello.suites = reader.vector()?.all_u16()?;
        reader.short_vector()?; // compression, which nobody uses
        if reader.0.is_empty() {
            return Some(hello); // no extensions: an old one
        }
        let mut extensions = reader.vector()?;
        while !extensions.0.is_empty() {
            let (kind, mut body) = (extensions.u16()?, extensions.vector()?);
            match kind {
                SERVER_NAME => hello.server_name = Some(server_name(body)?),
                ALPN => {
                    let mut names = body.vector()?;
                    while !names.0.is_empty() {
                        hello.protocols.push(names.short_vector()?.0.to_vec());
                    }
                }
                SUPPORTED_VERSIONS => hello.versions = Some(body.short_vector()?.all_u16()?),
                SESSION_TICKET => hello.has_ticket = !body.0.is_empty(),
                PRE_SHARED_KEY => hello.has_pre_shared_key = true,
                EARLY_DATA => hello.has_early_data = true,
                RENEGOTIATION_INFO => hello.renegotiates = !body.short_vector()?.0.is_empty(),
                _ => {}
            }
        }
        reader.0.is_empty().then_some(hello)
    }

    /// Which plane is asked for, if this may go on.
    pub(super) fn admit(&self, here: &Here) -> Result<Plane, Refusal> {
        let version = self.version(here.versions)?;
        let has_suite = policy::suites()
            .any(|suite| suite.version().version == version && self.offers(suite.suite()));
        if !has_suite {
            return Err(Refusal::NoCommonSuite);
        }
        if self.renegotiates {
            return Err(Refusal::Renegotiation);
        }
        if self.has_early_data {
            return Err(Refusal::EarlyData);
        }
        // In TLS 1.3 a session id means nothing; without it, it is a session's.
        let resumes_by_id = self.has_session_id && !self.knows(ProtocolVersion::TLSv1_3);
        if self.has_pre_shared_key || self.has_ticket || resumes_by_id {
            return Err(Refusal::Resumption);
        }
        let plane = match &self.protocols[..] {
            [] => return Err(Refusal::NoPlane),
            [one] => match Plane::of_alpn(one) {
                Some(plane) => plane,
                None => return Err(Refusal::UnknownPlane(Quoted::bytes(one))),
            },
            _ => return Err(Refusal::SeveralPlanes),
        };
        let Some(wanted) = &self.server_name else { return Err(Refusal::NoServerName) };
        let identity = here.identity;
        if !wanted.eq_ignore_ascii_case(identity.server_name().as_bytes()) {
            let wanted = Quoted::bytes(wanted);
            return Err(Refusal::MeantForAnother { wanted, here: identity.node });
        }
        Ok(plane)
    }

    /// The version that comes of it.
    fn version(&self, in_use: Versions) -> Result<ProtocolVersion, Refusal> {
        let both = [ProtocolVersion::TLSv1_3, ProtocolVersion::TLSv1_2];
        if let Some(version) = both.into_iter().find(|v| in_use.has(*v) && self.knows(*v)) {
            return Ok(version);
        }
        if both.into_iter().any(|version| self.knows(version)) {
            return Err(Refusal::VersionNotInUse);
        }
        let offered = self.versions.iter().flatten().copied();
        let best = offered.filter(|version| *version <= 0x0302).max();
        Err(match best.unwrap_or(self.legacy_version) {
            0x0302 => Refusal::OldVersion("TLS 1.1"),
            0x0301 => Refusal::OldVersion("TLS 1.0"),
            0x0300 => Refusal::OldVersion("SSL 3"),
            _ => Refusal::OldVersion("no known version"),
        })
    }

    fn knows(&self, version: ProtocolVersion) -> bool {
        match &self.versions {
            Some(all) => all.contains(&u16::from(version)),
            None => version == ProtocolVersion::TLSv1_2 && 0x0303 <= self.legacy_version,
        }
    }

    fn offers(&self, suite: CipherSuite) -> bool {
        self.suites.contains(&u16::from(suite))
    }
}

/// What a greeting is held against.
pub(super) struct Here {
    /// This node's; the plane does not matter.
    pub(super) identity: Identity,
    pub(super) versions: Versions,
}

/// The host name of a list of one. A second would be a second wish.
fn server_name(mut body: Reader<'_>) -> Option<Vec<u8>> {
    let mut names = body.vector()?;
    let (kind, name) = (names.take(1)?[0], names.vector()?);
    (kind == 0 && names.0.is_empty() && body.0.is_empty()).then(|| name.0.to_vec())
}

/// Takes values off the front; `None` where there are too few bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes after a length of one byte.
    fn short_vector(&mut self) -> Option<Self> {
        let count = self.take(1)?[0];
        self.take(count.into()).map(Self)
    }

    /// Bytes after a length of two bytes.
    fn vector(&mut self) -> Option<Self> {
        let count = self.u16()?;
        self.take(count.into()).map(Self)
    }

    fn all_u16(mut self) -> Option<Vec<u16>> {
        let mut all = Vec::with_capacity(self.0.len() / 2);
        while !self.0.is_empty() {
            all.push(self.u16()?);
        }
        Some(all)
    }
}
