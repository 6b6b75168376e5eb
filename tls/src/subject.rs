//! Whom a client's certificate is for, in the parts that rules about clients name.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::AttributeTypeAndValue;

use crate::describe::{NotACertificate, parse};

/// The subject of a certificate, and what other names it has. Case counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Subject {
    /// `CN`; a certificate with several of these, or of most others, is for nobody in particular.
    pub common_name: Option<String>,
    /// `O`
    pub organization: Option<String>,
    /// `OU`, in their order.
    pub units: Vec<String>,
    /// `L`
    pub locality: Option<String>,
    /// `ST`
    pub state: Option<String>,
    /// `C`
    pub country: Option<String>,
    /// Names of hosts and addresses of mail beside the subject.
    pub alternatives: Vec<String>,
}

impl Subject {
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, NotACertificate> {
        let parsed = parse(certificate)?;
        let subject = parsed.subject();
        let mut alternatives = Vec::new();
        let extension = parsed
            .subject_alternative_name()
            .map_err(|error| NotACertificate(format!("subject alternative names: {error}")))?;
        for name in extension.iter().flat_map(|extension| &extension.value.general_names) {
            if let GeneralName::DNSName(name) | GeneralName::RFC822Name(name) = name {
                alternatives.push((*name).to_owned());
            }
        }
        // What reads a name up to a NUL would see another one than was signed.
        alternatives.retain(|name| is_whole(name));
        Ok(Self {
            common_name: single(subject.iter_common_name()),
            organization: single(subject.iter_organization()),
            units: subject.iter_organizational_unit().filter_map(text).collect(),
            locality: single(subject.iter_locality()),
            state: single(subject.iter_state_or_province()),
            country: single(subject.iter_country()),
            alternatives,
        })
    }

    /// Whether this is its common name or another of its names.
    pub fn is_named(&self, name: &str) -> bool {
        let names = self.common_name.iter().chain(&self.alternatives);
        names.into_iter().any(|one| one == name)
    }

    /// Whether all parts of the subject are the same.
    pub fn is(&self, other: &Self) -> bool {
        let without = |one: &Self| Self { alternatives: Vec::new(), ..one.clone() };
        self.common_name.is_some() && without(self) == without(other)
    }
}

fn single<'a>(mut all: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<String> {
    let first = all.next().and_then(text);
    first.filter(|_| all.next().is_none())
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().map(str::to_owned).filter(|name| is_whole(name))
}

fn is_whole(name: &str) -> bool {
    !name.contains('\0')
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn made(parts: &[(DnType, &str)], names: &[&str]) -> Subject {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Subject::of(certificate.der()).unwrap()
    }

    #[test]
    fn subjects_are_read_and_compared_part_by_part() {
        let parts = [
            (DnType::CommonName, "app-1"),
            (DnType::OrganizationName, "Example"),
            (DnType::OrganizationalUnitName, "billing"),
            (DnType::LocalityName, "Bern"),
            (DnType::StateOrProvinceName, "BE"),
            (DnType::CountryName, "CH"),
        ];
        let subject = made(&parts, &["one.example.com"]);
        let expected = Subject {
            common_name: Some("app-1".into()),
            organization: Some("Example".into()),
            units: vec!["billing".into()],
            locality: Some("Bern".into()),
            state: Some("BE".into()),
            country: Some("CH".into()),
            alternatives: Vec::new(),
        };
        assert!(subject.is(&expected));
        assert!(subject.is_named("app-1") && subject.is_named("one.example.com"));
        assert!(!subject.is_named("App-1") && !subject.is_named(""));
        assert!(!subject.is(&Subject { units: Vec::new(), ..expected.clone() }));
        assert!(!subject.is(&Subject { country: None, ..expected.clone() }));
        assert!(!made(&parts[..2], &[]).is(&expected));
        // Without a name it is nobody, and not everybody without one.
        assert!(!made(&[], &[]).is(&Subject::default()));
    }
}
