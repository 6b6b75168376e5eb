//! Who a node is, as its certificate says it: cluster, node and plane in one name,
//! `carnelian://<cluster id>/node/<uid>/<plane>`.
//!
//! The cluster's id is 32 lower-case hexadecimal digits, the uid a decimal number from 1 on without
//! leading zeros, the plane `control` or `data`. Each identity has exactly one spelling, so two texts
//! are the same node if and only if they are the same bytes: there is no case to fold, nothing to
//! decode and no wildcard.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::describe::{hex, unhex};

const SCHEME: &str = "carnelian://";

/// What all names of nodes end in when a peer says, in plain sight, whom it wants to speak with.
/// `.internal` is reserved for private use, so no such name means anything elsewhere.
const NAME_SUFFIX: &str = ".carnelian.internal";

/// A cluster, for all its life: 16 random bytes.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// A new one, which no other cluster has. `None` if there are no random numbers to be had.
    pub fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Self(bytes))
    }

    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The name of the cluster's authorities.
    pub(super) fn uri(self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({self})")
    }
}

impl FromStr for ClusterId {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        if text.len() != 32 {
            return Err(NotAnIdentity("the cluster id is not of 32 digits"));
        }
        unhex(text)
            .filter(|_| !text.bytes().any(|digit| digit.is_ascii_uppercase()))
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(NotAnIdentity("the cluster id is not in lower-case hexadecimal"))
    }
}

/// A node's number within its cluster, from 1 on.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeUid(u32);

impl NodeUid {
    /// `None` for 0, which is no node's.
    pub const fn new(uid: u32) -> Option<Self> {
        match uid {
            0 => None,
            uid => Some(Self(uid)),
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NodeUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeUid {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        const BAD: NotAnIdentity = NotAnIdentity("the node's uid is not a number from 1 on");
        // `parse` would take a plus sign and leading zeros, and so more than one spelling.
        let is_canonical = text.bytes().all(|digit| digit.is_ascii_digit())
            && text.bytes().next().is_some_and(|first| first != b'0');
        text.parse().ok().filter(|_| is_canonical).and_then(Self::new).ok_or(BAD)
    }
}

/// What a link carries. A certificate is good for one of them only.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Plane {
    /// The cluster's management.
    Control,
    /// Keys and values.
    Data,
}

impl Plane {
    pub const ALL: [Self; 2] = [Self::Control, Self::Data];

    /// The word for it in names, files and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Data => "data",
        }
    }

    /// The protocol by which a handshake asks for it.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Control => b"carnelian-control/1",
            Self::Data => b"carnelian-data/1",
        }
    }

    /// The plane of a protocol.
    pub(super) fn of_alpn(protocol: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|plane| plane.alpn() == protocol)
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Plane {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        Self::ALL
            .into_iter()
            .find(|plane| plane.name() == text)
            .ok_or(NotAnIdentity("the plane is neither 'control' nor 'data'"))
    }
}

/// A node on one plane: what a certificate vouches for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeUid,
    pub plane: Plane,
}

impl Identity {
    /// The name by which a peer asks for this node before anything is encrypted, so that one that
    /// has reached the wrong node is told so.
    pub fn server_name(&self) -> String {
        format!("node-{}.{}{NAME_SUFFIX}", self.node, self.cluster)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/node/{}/{}", self.cluster, self.node, self.plane)
    }
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or(NotAnIdentity("it does not begin with 'carnelian://'"))?;
        let mut parts = rest.split('/');
        let mut part = || parts.next().ok_or(NotAnIdentity("parts of it are missing"));
        let cluster = part()?.parse()?;
        if part()? != "node" {
            return Err(NotAnIdentity("it is not a node's"));
        }
        let (node, plane) = (part()?.parse()?, part()?.parse()?);
        match parts.next() {
            None => Ok(Self { cluster, node, plane }),
            Some(_) => Err(NotAnIdentity("there is more to it than a plane")),
        }
    }
}

/// A text that names no node.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct NotAnIdentity(pub(super) &'static str);

/// The number of a certificate, unique within its cluster.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Serial(Box<[u8]>);

impl Serial {
    /// RFC 5280 allows 20 bytes.
    const BYTES_MAX: usize = 20;

    /// From the number's bytes; zeros before it do not count.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Self(bytes[zeros..].into())
    }

    /// One for two certificates that are shown together.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self([&*self.0, &*other.0].concat().into())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = NotAnIdentity;

    /// Hexadecimal, as `openssl x509 -serial` prints it and as [`Display`](fmt::Display) does.
    fn from_str(text: &str) -> Result<Self, NotAnIdentity> {
        const BAD: NotAnIdentity = NotAnIdentity("the serial number is not in hexadecimal");
        let bytes = unhex(text).filter(|bytes| (1..=Self::BYTES_MAX).contains(&bytes.len()));
        bytes.map(|bytes| Self::from_bytes(&bytes)).ok_or(BAD)
    }
}

/// The other end of a link, as its certificate has proved it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    pub identity: Identity,
    pub serial: Serial,
    /// Seconds since 1970; the last second of its certificate.
    pub not_after: i64,
    /// SHA-256 of the certificate of the authority that signed.
    pub authority: [u8; 32],
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = "000102030405060708090a0b0c0d0eff";

    #[test]
    fn identities_read_back_what_they_print() {
        for plane in Plane::ALL {
            for node in [1, 7, u32::MAX] {
                let node = NodeUid::new(node).unwrap();
                let identity = Identity { cluster: CLUSTER.parse().unwrap(), node, plane };
                assert_eq!(identity.to_string().parse(), Ok(identity));
            }
        }
        let cluster = ClusterId::random().unwrap();
        assert_eq!(cluster.to_string().parse(), Ok(cluster));
        assert_ne!(Some(cluster), ClusterId::random());
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let good = format!("carnelian://{CLUSTER}/node/7/data");
        assert!(good.parse::<Identity>().is_ok());
        for (from, to) in [
            ("carnelian:", "CARNELIAN:"),
            ("carnelian:", "spiffe:"),
            ("0eff", "0EFF"),
            ("0eff", "0ef"),
            ("0eff", "0eff0"),
            ("0eff", "0e\u{0444}"),
            ("00010203", "%3030102"),
            ("node", "Node"),
            ("node/", "node//"),
            ("/7/", "/07/"),
            ("/7/", "/+7/"),
            ("/7/", "/0/"),
            ("/7/", "/-7/"),
            ("/7/", "/4294967296/"),
            ("/7/", "/*/"),
            ("/7/", "/7\0/"),
            ("/7/", "/\u{0667}/"),
            ("/7/", "//"),
            ("data", "data/"),
            ("data", "data\0"),
            ("data", "data?x"),
            ("data", "Data"),
            ("data", ""),
            ("data", "\u{0434}ata"),
            ("/data", ""),
            ("carnelian", " carnelian"),
            ("//0001", "//x@0001"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            assert!(bad.parse::<Identity>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn serials_are_numbers() {
        let serial = Serial::from_bytes(&[0, 0, 0x0a, 0xbc]);
        assert_eq!(serial.to_string(), "0abc");
        assert_eq!("000ABC".parse(), Ok(serial));
        for bad in ["", "a", "zz", "0x0a", &"00".repeat(21), "\u{0444}\u{0444}"] {
            assert!(bad.parse::<Serial>().is_err(), "{bad}");
        }
    }
}
