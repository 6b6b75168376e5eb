//! What is counted of the channel, and how INFO tells of it.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use carnelian_tls::internode::{Direction, Plane};

use super::tickets::BadTicket;
use crate::database::Database;
use crate::endpoint::Totals;
use crate::server::Server;

/// Why a link that has been made is not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotLetIn {
    #[error("more than {0} links have yet to say what they are for")]
    Busy(usize),
    #[error("it did not say in time what it is for")]
    Slow,
    #[error("it ended before it said what it is for")]
    Lost,
    #[error("it does not speak as a node does")]
    Garbage,
    #[error("it is node {proven} and says that it is node {claimed}")]
    NotItself { proven: u32, claimed: u32 },
    #[error("there is no database {0} here")]
    NoDatabase(u32),
    #[error("this process is not the primary of database {0}, or has no replica on that node")]
    NotPrimary(u32),
    #[error("the database {0} is encrypted between nodes")]
    Encrypted(u32),
    #[error("it showed no ticket")]
    NoTicket,
    #[error(transparent)]
    BadTicket(#[from] BadTicket),
    #[error("the pass it showed was never handed out, or has been used, or is another's")]
    BadPass,
    #[error("the database {0} has too many links")]
    TooMany(u32),
    #[error("nobody here speaks '{0}'")]
    UnknownPlane(String),
}

const REASONS: [&str; 16] = [
    "busy",
    "slow",
    "lost",
    "garbage",
    "not_itself",
    "no_database",
    "encrypted",
    "no_ticket",
    "ticket_unknown",
    "ticket_used",
    "ticket_expired",
    "ticket_foreign",
    "too_many",
    "unknown_plane",
    "not_primary",
    "bad_pass",
];

impl NotLetIn {
    /// Its place among [`REASONS`].
    fn place(&self) -> usize {
        match self {
            Self::Busy(_) => 0,
            Self::Slow => 1,
            Self::Lost => 2,
            Self::Garbage => 3,
            Self::NotItself { .. } => 4,
            Self::NoDatabase(_) => 5,
            Self::Encrypted(_) => 6,
            Self::NoTicket => 7,
            Self::BadTicket(BadTicket::Unknown) => 8,
            Self::BadTicket(BadTicket::Used) => 9,
            Self::BadTicket(BadTicket::Expired) => 10,
            Self::BadTicket(BadTicket::Foreign) => 11,
            Self::TooMany(_) => 12,
            Self::UnknownPlane(_) => 13,
            Self::NotPrimary(_) => 14,
            Self::BadPass => 15,
        }
    }
}

/// Figures since the start, beside those of the library.
#[derive(Default)]
pub struct Figures {
    plain: AtomicU64,
    not_let_in: [[AtomicU64; REASONS.len()]; 2],
    pub switches: AtomicU64,
    pub renewed: AtomicU64,
    pub clients_dropped: AtomicU64,
}

/// Which port a link came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    Tls,
    Plain,
}

impl Figures {
    pub fn count(&self, door: Door, reason: &NotLetIn) {
        self.not_let_in[door as usize][reason.place()].fetch_add(1, Relaxed);
    }

    pub fn count_plain(&self) {
        self.plain.fetch_add(1, Relaxed);
    }
}

/// The fields of the section Internode.
pub fn write(server: &Server, database: &Arc<Database>, mut field: impl FnMut(&str, &dyn Display)) {
    let internode = &server.internode;
    let Figures { plain, not_let_in, switches, renewed, clients_dropped } = &internode.figures;
    let channel = internode.channel();
    field("internode_enabled", &u8::from(channel.is_some()));
    let yes_no = |is_yes| if is_yes { "yes" } else { "no" };
    field("data_internode_encryption", &yes_no(database.internode.is_encrypted()));
    field("internode_encryption_switches", &switches.load(Relaxed));
    field("internode_clients_dropped", &clients_dropped.load(Relaxed));
    field("internode_links_renewed", &renewed.load(Relaxed));
    let Some(channel) = channel else { return };
    let node = &channel.node;
    field("internode_node", &node.uid());
    field("internode_cluster", &node.cluster());
    field("internode_placement_epoch", &database.replication.tenure.epoch());
    let port = |addresses: &[std::net::SocketAddr]| addresses.first().map_or(0, |it| it.port());
    field("internode_port", &port(channel.addresses()));
    field("internode_plain_port", &port(channel.plain_addresses()));
    for plane in Plane::ALL {
        let credential = node.credential(plane);
        field(&format!("internode_{plane}_cert_serial"), credential.serial());
        field(&format!("internode_{plane}_cert_not_after"), &credential.not_after());
    }
    let links = node.links().all();
    field("internode_links", &links.len());
    for (place, link) in links.iter().enumerate() {
        let text = format!(
            "plane={},direction={},node={},address={},own_serial={},peer_serial={}",
            link.plane,
            link.direction.name(),
            link.peer.identity.node,
            link.address,
            link.own_serial,
            link.peer.serial
        );
        field(&format!("internode_link{place}"), &text);
    }
    for (place, (node, is_encrypted)) in database.internode.peers().into_iter().enumerate() {
        let how = if is_encrypted { "tls" } else { "plain" };
        field(&format!("internode_peer{place}"), &format!("node={node},link={how}"));
    }
    if let Some(following) = database.replication.following.load_full()
        && let Some(target) = &following.target
    {
        let how = match following.is_encrypted() {
            Some(true) => "tls",
            Some(false) => "plain",
            None => "none",
        };
        let text =
            format!("node={},host={},port={},link={how}", target.node, target.host, target.port);
        field("internode_primary", &text);
    }
    for (place, (node, (clients, tls))) in database.endpoint.hosted().into_iter().enumerate() {
        let text = format!("node={node},clients={clients},tls={tls}");
        field(&format!("endpoint_from{place}"), &text);
    }
    if let Some(entrance) = server.endpoints.entrance(database.uid) {
        let to = entrance.route().map_or_else(|| "none".into(), |it| it.target.node.to_string());
        field("endpoint_to", &format!("node={to},clients={}", entrance.inside()));
    }
    let Totals { sent_on, moved, unreached } = server.endpoints.totals();
    field("endpoint_clients_sent_on", &sent_on);
    field("endpoint_clients_unreached", &unreached);
    field("endpoint_links_moved", &moved);
    field("internode_tickets", &internode.tickets.count());
    field("internode_incoming_plain", &plain.load(Relaxed));
    for (door, counts) in ["tls", "plain"].into_iter().zip(not_let_in) {
        for (reason, count) in REASONS.into_iter().zip(counts) {
            field(&format!("internode_{door}_refused_{reason}"), &count.load(Relaxed));
        }
    }
    field("internode_incoming_refused", &node.counters().refused_in_all(Direction::Incoming));
    for (name, count) in node.counters().rows() {
        field(&name, &count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_figure_of_its_own() {
        let all = [
            NotLetIn::Busy(1),
            NotLetIn::Slow,
            NotLetIn::Lost,
            NotLetIn::Garbage,
            NotLetIn::NotItself { proven: 1, claimed: 2 },
            NotLetIn::NoDatabase(1),
            NotLetIn::Encrypted(1),
            NotLetIn::NoTicket,
            BadTicket::Unknown.into(),
            BadTicket::Used.into(),
            BadTicket::Expired.into(),
            BadTicket::Foreign.into(),
            NotLetIn::TooMany(1),
            NotLetIn::UnknownPlane("x".into()),
            NotLetIn::NotPrimary(1),
            NotLetIn::BadPass,
        ];
        let figures = Figures::default();
        for reason in &all {
            figures.count(Door::Plain, reason);
        }
        assert!(figures.not_let_in[Door::Plain as usize].iter().all(|it| it.load(Relaxed) == 1));
        assert!(figures.not_let_in[Door::Tls as usize].iter().all(|it| it.load(Relaxed) == 0));
    }
}
