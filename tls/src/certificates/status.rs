//! What is told of a certificate: no PEM, no keys.

use super::{Certificate, CertificateName, ManagedBy};
use crate::describe::{CertificateInfo, hex};
use crate::internode::{Credential, Plane, RenewalPolicy, RotationHealth};

/// One line of the list of certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    pub name: CertificateName,
    pub managed_by: ManagedBy,
    pub subject: String,
    pub issuer: String,
    /// Lower-case hexadecimal, as is `sha256`.
    pub serial: String,
    pub sha256: String,
    pub key_type: String,
    /// Seconds since 1970, as are the following.
    pub not_before: i64,
    pub not_after: i64,
    /// When it will be replaced by itself, if it will.
    pub next_rotation: Option<i64>,
    pub rotation_on_track: bool,
    /// Whole days until its end, negative afterwards.
    pub days_left: i64,
}

impl Status {
    /// Of a certificate of the table. Nobody replaces those of customers.
    pub fn of(certificate: &Certificate, now_s: i64) -> Self {
        let managed_by = certificate.managed_by();
        let next_rotation = match managed_by {
            ManagedBy::Customer => None,
            ManagedBy::Cluster | ManagedBy::ClientCa => Some(super::table::renewal_s(certificate)),
        };
        let info = certificate.info();
        Self {
            next_rotation,
            rotation_on_track: next_rotation.is_some_and(|due_s| now_s < due_s + 86_400),
            ..Self::new(certificate.name(), managed_by, info, now_s)
        }
    }

    /// Of a node's own certificate for a plane.
    pub fn of_internal(
        credential: &Credential,
        policy: RenewalPolicy,
        health: RotationHealth,
        now_s: i64,
    ) -> Self {
        let name = match credential.identity().plane {
            Plane::Control => CertificateName::CcsInternodeEncryption,
            Plane::Data => CertificateName::DataInternodeEncryption,
        };
        let info = CertificateInfo::of(credential.certificate())
            .expect("a credential was parsed when it was made");
        let next_s = policy.next_rotation_s(credential.not_after());
        Self {
            next_rotation: Some(next_s),
            rotation_on_track: health.is_on_track(next_s, now_s),
            ..Self::new(name, ManagedBy::Cluster, &info, now_s)
        }
    }

    fn new(
        name: CertificateName,
        managed_by: ManagedBy,
        info: &CertificateInfo,
        now_s: i64,
    ) -> Self {
        Self {
            name,
            managed_by,
            subject: info.subject.clone(),
            issuer: info.issuer.clone(),
            serial: info.serial.clone(),
            sha256: hex(&info.sha256),
            key_type: info.key_type.clone(),
            not_before: info.not_before,
            not_after: info.not_after,
            next_rotation: None,
            rotation_on_track: false,
            days_left: info.days_left(now_s),
        }
    }
}
