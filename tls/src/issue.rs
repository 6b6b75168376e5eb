//! Making keys and certificates: what a leaf or an authority of ours contains.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, RsaKeySize, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, DnsName, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::ConfigError;

/// Some clients refuse leaves that live longer than 825 days.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(820 * 86_400);

/// What a server of ours shows to clients is made anew at this age.
pub(crate) const LEAF_AGE: Duration = Duration::from_secs(180 * 86_400);

/// Other leaves of the client CA are made anew this long before they end.
pub(crate) const LEAF_RENEWAL: Duration = Duration::from_secs(60 * 86_400);

/// How long an authority lives unless somebody says otherwise.
pub(crate) const AUTHORITY_LIFE: Duration = Duration::from_secs(3_652 * 86_400);

/// Clocks of clients may be behind.
pub(crate) const BACKDATED: Duration = Duration::from_secs(10 * 60);

/// The end of what fits into a certificate: 9999-12-31T23:59:59Z.
const YEAR_9999_S: u64 = 253_402_300_799;

/// The kind of key of a leaf.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyKind {
    /// For everyone who can.
    EcdsaP256,
    /// For TLS 1.2 clients limited to ECDHE-RSA suites. Making one takes up to 0.1 s.
    Rsa2048,
}

/// The names and addresses under which clients reach a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SubjectAltNames {
    pub(crate) dns: Vec<String>,
    pub(crate) ips: Vec<IpAddr>,
}

impl SubjectAltNames {
    /// From texts, each an address or a host name (`*.example` included), repeats left out.
    pub fn of<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let mut all = Self::default();
        for name in names {
            all.add(name.as_ref())?;
        }
        Ok(all)
    }

    /// `localhost`, both loopback addresses, the addresses listened on (`0.0.0.0` and `::` stand
    /// for none in particular and are left out), and the names of `tls-san`.
    pub fn for_listening<T: AsRef<str>>(
        bound: &[IpAddr],
        extra: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let mut all = Self::of(["localhost", "127.0.0.1", "::1"])?;
        bound.iter().filter(|ip| !ip.is_unspecified()).for_each(|ip| all.add_ip(*ip));
        for name in extra {
            all.add(name.as_ref())?;
        }
        Ok(all)
    }

    /// What the nodes of a cluster are reached by: its name and those below it, the same for its
    /// internal network, `localhost`, and the nodes' addresses.
    pub fn for_cluster(cluster: &str, nodes: &[IpAddr]) -> Result<Self, ConfigError> {
        let below = [
            cluster.to_owned(),
            format!("*.{cluster}"),
            format!("internal.{cluster}"),
            format!("*.internal.{cluster}"),
        ];
        let mut all = Self::of(below)?;
        for name in ["localhost", "127.0.0.1", "::1"] {
            all.add(name)?;
        }
        nodes.iter().filter(|ip| !ip.is_unspecified()).for_each(|ip| all.add_ip(*ip));
        Ok(all)
    }

    /// Adds one name or address.
    pub fn add(&mut self, name: &str) -> Result<(), ConfigError> {
        if let Ok(ip) = name.parse() {
            self.add_ip(ip);
            return Ok(());
        }
        // The wildcard label is no host name's; the rest must be one.
        DnsName::try_from(name.strip_prefix("*.").unwrap_or(name))
            .map_err(|_| ConfigError::BadName(name.to_owned()))?;
        if !self.dns.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            self.dns.push(name.to_owned());
        }
        Ok(())
    }

    fn add_ip(&mut self, ip: IpAddr) {
        if !self.ips.contains(&ip) {
            self.ips.push(ip);
        }
    }
}

/// A certificate with the key made for it.
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key: PrivateKeyDer<'static>,
    pub key_pem: String,
}

/// What a leaf of the client CA says beside its key, its number and its date of birth.
pub(crate) struct Profile<'a> {
    pub(crate) purpose: Purpose,
    pub(crate) subject: DistinguishedName,
    pub(crate) names: &'a SubjectAltNames,
    pub(crate) kind: KeyKind,
    pub(crate) life: Duration,
}

/// What leaves are used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Both ways: a node of a cluster is a client of the others.
    Server,
    Client,
}

/// A new authority for clients.
pub(crate) fn authority(now: SystemTime, life: Duration) -> Result<Issued, ConfigError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let serial = serial()?;
    // Two authorities of the same name would be taken for one another in lists and trust stores.
    let name = format!("Carnelian client CA {}", crate::describe::hex(&serial[8..12]));
    let certificate = authority_params(&name, &serial, now, life).self_signed(&key)?;
    Ok(issued(certificate, &key))
}

/// What the certificate of an authority says that signs leaves and nothing else.
pub(crate) fn authority_params(
    common_name: &str,
    serial: &[u8],
    now: SystemTime,
    life: Duration,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(common_name);
    params.serial_number = Some(SerialNumber::from_slice(serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, backdated(now), now + life);
    params
}

/// A leaf of `issuer`, ending no later than it, with a key made for it.
pub(crate) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    issuer_ends: SystemTime,
    profile: Profile<'_>,
    now: SystemTime,
) -> Result<Issued, ConfigError> {
    let key = new_key(profile.kind)?;
    let certificate = leaf_params(profile, issuer_ends, now)?.signed_by(&key, issuer)?;
    Ok(issued(certificate, &key))
}

pub(crate) fn new_key(kind: KeyKind) -> Result<KeyPair, ConfigError> {
    Ok(match kind {
        KeyKind::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    })
}

/// What a leaf says, whoever has made its key.
pub(crate) fn leaf_params(
    profile: Profile<'_>,
    issuer_ends: SystemTime,
    now: SystemTime,
) -> Result<CertificateParams, ConfigError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = profile.subject;
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.subject_alt_names = alternatives(profile.names)?;
    params.key_usages = match profile.kind {
        KeyKind::EcdsaP256 => vec![KeyUsagePurpose::DigitalSignature],
        KeyKind::Rsa2048 => {
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
        }
    };
    params.extended_key_usages = match profile.purpose {
        Purpose::Server => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Purpose::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, backdated(now), (now + profile.life).min(issuer_ends));
    Ok(params)
}

fn issued(certificate: rcgen::Certificate, key: &KeyPair) -> Issued {
    Issued {
        certificate_pem: certificate.pem(),
        certificate: certificate.into(),
        key_pem: key.serialize_pem(),
        key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
    }
}

pub(crate) fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Carnelian");
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn alternatives(names: &SubjectAltNames) -> Result<Vec<SanType>, ConfigError> {
    let dns = names.dns.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
    let ips = names.ips.iter().map(|ip| Ok(SanType::IpAddress(*ip)));
    dns.chain(ips).collect()
}

/// 16 random bytes that make a positive number of always the same length.
pub(crate) fn serial() -> Result<[u8; 16], ConfigError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ConfigError::NoRandomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(bytes)
}

fn backdated(now: SystemTime) -> SystemTime {
    now.checked_sub(BACKDATED).unwrap_or(now)
}

/// Sets both dates, in whole seconds as certificates have them. A clock outside 1970 to 9999 is
/// taken for the nearest date a certificate can hold.
pub(crate) fn set_validity(params: &mut CertificateParams, from: SystemTime, to: SystemTime) {
    let date = |at: SystemTime| {
        let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seconds = since_1970.as_secs().min(YEAR_9999_S);
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = date(from);
    params.not_after = date(to);
}

/// Since 1970.
pub(crate) fn seconds(at: SystemTime) -> i64 {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_secs()).unwrap_or(i64::MAX)
}

/// Whether a leaf with the names of `present` serves for `wanted`.
pub(crate) fn covers(
    present_dns: &[String],
    present_ips: &[IpAddr],
    wanted: &SubjectAltNames,
) -> bool {
    let present: BTreeSet<String> =
        present_dns.iter().map(|name| name.to_ascii_lowercase()).collect();
    wanted.dns.iter().all(|name| present.contains(&name.to_ascii_lowercase()))
        && wanted.ips.iter().all(|ip| present_ips.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_kept_once() {
        let names = SubjectAltNames::of(["a.example", "A.example", "*.a.example", "::1", "0:0::1"])
            .unwrap();
        assert_eq!(names.dns, ["a.example", "*.a.example"]);
        assert_eq!(names.ips.len(), 1);
        for bad in ["", "a b", "*", "*.", "a.*.b", "x\0y", "1.2.3.4.5/8", "-"] {
            assert!(SubjectAltNames::of([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_listened_on_are_names_but_not_the_wildcard_ones() {
        let bound = ["0.0.0.0", "::", "10.1.2.3", "127.0.0.1"].map(|ip| ip.parse().unwrap());
        let names = SubjectAltNames::for_listening(&bound, ["db.example"]).unwrap();
        assert_eq!(names.dns, ["localhost", "db.example"]);
        assert_eq!(
            names.ips,
            ["127.0.0.1", "::1", "10.1.2.3"].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
    }

    #[test]
    fn serials_are_positive_and_differ() {
        let all: BTreeSet<_> = (0..100).map(|_| serial().unwrap()).collect();
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|serial| 0x40 == serial[0] & 0xc0));
    }
}
