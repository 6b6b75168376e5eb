//! Certificates: those of nodes, and those all nodes share.

use std::collections::BTreeMap;

use carnelian_tls::certificates::Kind;

use crate::state::{
    ActionId, ActionKind, Certificate, CertificateName, Detail, ManagedBy, NodeStatus, NodeUid,
    Object, Outcome, Refused, SharedCertificate, State, Time,
};

impl State {
    /// What a customer has provided for links between nodes.
    pub fn provided_between_nodes(&self, name: CertificateName) -> Option<&SharedCertificate> {
        let found = self.shared_certificates.get(name.as_str()).filter(|_| name.is_internal());
        found.filter(|it| it.managed_by == ManagedBy::Customer)
    }

    pub(super) fn rotate_certificates(
        &mut self,
        name: Option<String>,
        action: ActionId,
        at: Time,
    ) -> Result<Outcome, Refused> {
        if let Some(name) = &name {
            let internal = name.parse().is_ok_and(CertificateName::is_internal);
            if !internal || self.shared_certificates.contains_key(name) {
                let description = format!("{name} is not made by the cluster for its nodes");
                return Err(Refused::new(403, "unsupported_rotation", description));
            }
        }
        if let Some(node) = self.nodes.values().find(|node| node.status == NodeStatus::Down) {
            let description = format!("node {} is down; nothing was rotated", node.uid);
            return Err(Refused::bad("not_all_nodes_updated", description));
        }
        let awaits = self.present();
        let kind = ActionKind::RotateCertificates;
        self.begin(action.clone(), kind, Object::Cluster, awaits, Detail::Rotate { name }, at)?;
        if let Some(cluster) = &mut self.cluster {
            cluster.rotations += 1;
        }
        Ok(Outcome::Action(action))
    }

    pub(super) fn report_certificates(
        &mut self,
        node: NodeUid,
        certificates: Vec<Certificate>,
    ) -> Result<Outcome, Refused> {
        self.node(node)?;
        if certificates.len() > CertificateName::ALL.len()
            || certificates.iter().any(|certificate| certificate.node_uid != node)
        {
            return Err(Refused::schema("a node reports its own certificates, one of each name"));
        }
        let before = self.certificates.clone();
        for new in certificates {
            let place = self
                .certificates
                .iter_mut()
                .find(|old| old.node_uid == node && old.name == new.name);
            match place {
                Some(old) => *old = new,
                None => self.certificates.push(new),
            }
        }
        self.certificates.sort_by_key(|certificate| (certificate.node_uid, certificate.name));
        Ok(if before == self.certificates { Outcome::Unchanged } else { Outcome::Done })
    }

    pub(super) fn set_certificates(
        &mut self,
        certificates: BTreeMap<String, SharedCertificate>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        if certificates.is_empty() {
            return Err(Refused::bad("missing_field", "certificates is empty"));
        }
        for (name, new) in &certificates {
            if name.parse::<CertificateName>().is_err() {
                let description = format!("there is no certificate {name}");
                return Err(Refused::new(403, "unknown_certificate", description));
            }
            if !new.certificate.contains("-----BEGIN CERTIFICATE-----") {
                let description = format!("{name}: not a certificate in PEM");
                return Err(Refused::bad("invalid_certificate", description));
            }
            if new.not_after <= at {
                let description = format!("{name}: it expired at {}", new.not_after);
                return Err(Refused::invalid("certificate_expired", description));
            }
        }
        for (name, new) in certificates {
            let fields = [("name", name.clone().into())];
            self.shared_certificates.insert(name, new);
            self.tell(at, "certificate_updated", fields);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn drop_certificate(
        &mut self,
        name: CertificateName,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let found = self.shared_certificates.remove(name.as_str());
        // A customer's pair between nodes gives way to the cluster's own.
        let own = found.as_ref().is_some_and(|it| it.managed_by == ManagedBy::Customer);
        let may_go = name.kind() == Kind::Optional || name.is_internal() && own;
        if !may_go {
            let description = format!("{} has to be there", name.as_str());
            return Err(Refused::new(403, "required_certificate", description));
        }
        if found.is_none() {
            let description = format!("there is no {}", name.as_str());
            return Err(Refused::unknown("certificate_not_exist", description));
        }
        let wants_ca =
            self.cluster.as_ref().is_some_and(|it| it.settings.mtls_certificate_authentication);
        if name == CertificateName::MtlsTrustedCa && wants_ca {
            let description = "authentication by certificate is on";
            return Err(Refused::new(403, "required_certificate", description));
        }
        self.tell(at, "certificate_updated", [("name", name.as_str().into())]);
        Ok(Outcome::Done)
    }
}
