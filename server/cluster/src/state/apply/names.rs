//! What names, addresses of users and ports may look like.

use std::collections::BTreeSet;

use crate::state::{Refused, State};

/// Ports that databases do not get.
pub const SYSTEM_RESERVED_PORTS: &[u16] = &[
    1968, 3333, 3334, 3335, 3336, 3339, 3340, 3341, 3342, 3343, 3344, 3345, 3346, 3348, 3349, 3350,
    3351, 3352, 3353, 3354, 3355, 8000, 8001, 8002, 8004, 8006, 8070, 8071, 8080, 8443, 8444, 9080,
    9081, 9091, 9125, 9443, 10050, 36379,
];

/// A fully qualified name by RFC 1123.
pub fn cluster_name(name: &str) -> Result<(), Refused> {
    let good = !name.is_empty() && name.len() <= 64 && name.split('.').all(label);
    if good {
        return Ok(());
    }
    Err(Refused::bad(
        "config_error",
        "the cluster's name has to be a host name of up to 64 characters",
    ))
}

pub fn database_name(name: &str) -> Result<(), Refused> {
    if name.is_empty() {
        return Err(Refused::invalid("missing_db_name", "a database needs a name"));
    }
    if !label(name) {
        let description = "a name has 1 to 63 letters, digits and hyphens, no hyphen first or last";
        return Err(Refused::invalid("invalid_db_name", description));
    }
    Ok(())
}

fn label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

pub fn email(email: &str) -> Result<(), Refused> {
    if email.is_empty() {
        return Err(Refused::bad("missing_field", "email is missing"));
    }
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "&<>\"".contains(c);
    let parts = email.split_once('@');
    let good = parts.is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty());
    if !good || email.len() > 255 || email.contains(forbidden) {
        return Err(Refused::bad("invalid_email", "that is not an e-mail address"));
    }
    Ok(())
}

/// What is shown to people: bounded, and without control characters.
pub fn label_of(kind: &str, name: &str) -> Result<(), Refused> {
    if name.is_empty() {
        return Err(Refused::bad("missing_field", format!("{kind} needs a name")));
    }
    if name.len() > 255 || name.contains(char::is_control) {
        return Err(Refused::bad("invalid_name", format!("that is no name for {kind}")));
    }
    Ok(())
}

/// `13000` or `13000-13010`
pub fn port_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && first > 0).then_some((first, last))
}

impl State {
    fn reserved(&self, port: u16) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let settings = &cluster.settings;
        let own = [settings.cm_port, settings.cnm_http_port, settings.cnm_https_port];
        SYSTEM_RESERVED_PORTS.contains(&port)
            || own.contains(&port)
            || settings.internode_port == port
            || self.nodes.values().any(|node| {
                [node.settings.internode_port, node.settings.admin_port].contains(&port)
            })
            || settings
                .reserved_ports
                .iter()
                .filter_map(|range| port_range(range))
                .any(|(first, last)| (first..=last).contains(&port))
    }

    fn taken(&self) -> BTreeSet<u16> {
        self.databases.values().map(|database| database.port).collect()
    }

    pub(super) fn check_port(&self, port: u16) -> Result<(), Refused> {
        if port < 1024 || self.reserved(port) {
            let description = format!("port {port} is reserved");
            return Err(Refused::invalid("port_unavailable", description));
        }
        if self.taken().contains(&port) {
            let description = format!("another database is on port {port}");
            return Err(Refused::invalid("port_unavailable", description));
        }
        Ok(())
    }

    pub(super) fn free_port(&self) -> Result<u16, Refused> {
        let taken = self.taken();
        (10_000..=19_999)
            .find(|port| !taken.contains(port) && !self.reserved(*port))
            .ok_or_else(|| Refused::invalid("port_unavailable", "no port is free"))
    }
}
