//! Tickets: what stands for a certificate on a link that is not encrypted.
//!
//! A replica gets one over the control plane, where it has proved which node it is, and shows it once. It is
//! good for that node and one database, for a few minutes. What is kept of it is a hash, so that neither
//! a look at the memory nor the time that a comparison takes gives one away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carnelian_tls::internode::NodeUid;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

pub const TICKET_BYTES: usize = 32;

pub type Ticket = [u8; TICKET_BYTES];

/// For how long one is good.
pub const LIFE: Duration = Duration::from_secs(120);

/// Tickets that are remembered, used ones among them. Beyond that the oldest are forgotten.
const TICKETS_MAX: usize = 1024;

/// Of one node for one database: more than it can be about to use.
const OF_NODE_MAX: usize = 16;

/// Why a ticket lets nobody in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTicket {
    #[error("its ticket was never handed out, or long ago")]
    Unknown,
    #[error("its ticket has been used")]
    Used,
    #[error("its ticket has expired")]
    Expired,
    #[error("its ticket is another node's, or for another database")]
    Foreign,
}

struct Handed {
    hash: [u8; 32],
    database: u32,
    node: NodeUid,
    until: Instant,
    is_used: bool,
}

/// Those that have been handed out, oldest first.
#[derive(Default)]
pub struct Tickets {
    handed: Mutex<Vec<Handed>>,
    count: AtomicU64,
}

impl Tickets {
    /// A new one; none if there are no random numbers to be had.
    pub fn hand_out(&self, database: u32, node: NodeUid, now: Instant) -> Option<Ticket> {
        let ticket = random()?;
        let mut handed = self.handed.lock();
        // For as long again it is known why one is refused.
        handed.retain(|one| now < one.until + LIFE);
        let is_alike = |one: &Handed| one.database == database && one.node == node;
        if OF_NODE_MAX <= handed.iter().filter(|one| is_alike(one)).count()
            && let Some(oldest) = handed.iter().position(is_alike)
        {
            handed.remove(oldest);
        }
        if TICKETS_MAX <= handed.len() {
            handed.remove(0);
        }
        let until = now + LIFE;
        handed.push(Handed { hash: hash(&ticket), database, node, until, is_used: false });
        self.count.fetch_add(1, Ordering::Relaxed);
        Some(ticket)
    }

    /// Takes one in. Whatever comes of it, it is used then.
    pub fn redeem(
        &self,
        ticket: &Ticket,
        database: u32,
        node: NodeUid,
        now: Instant,
    ) -> Result<(), BadTicket> {
        let shown = hash(ticket);
        let mut handed = self.handed.lock();
        let mut found = None;
        // All of them, and each to its end.
        for (place, one) in handed.iter().enumerate() {
            let differ = one.hash.iter().zip(&shown).fold(0, |bits, (a, b)| bits | (a ^ b));
            if std::hint::black_box(differ) == 0 {
                found = Some(place);
            }
        }
        let one = found.map(|place| &mut handed[place]).ok_or(BadTicket::Unknown)?;
        if std::mem::replace(&mut one.is_used, true) {
            return Err(BadTicket::Used);
        }
        if one.until <= now {
            return Err(BadTicket::Expired);
        }
        match one.database == database && one.node == node {
            true => Ok(()),
            false => Err(BadTicket::Foreign),
        }
    }

    /// Those for a database let nobody in any more.
    pub fn void(&self, database: u32) {
        let mut handed = self.handed.lock();
        handed.iter_mut().filter(|one| one.database == database).for_each(|one| one.is_used = true);
    }

    /// How many have been handed out.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Nobody can guess it. None if there are no random numbers to be had.
pub fn random() -> Option<Ticket> {
    let mut ticket = [0; TICKET_BYTES];
    carnelian_tls::provider().secure_random.fill(&mut ticket).ok()?;
    Some(ticket)
}

/// What is kept of one.
pub fn hash(ticket: &Ticket) -> [u8; 32] {
    Sha256::digest(ticket).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_for_its_node_and_database() {
        let tickets = Tickets::default();
        let (one, two) = (NodeUid::new(1).unwrap(), NodeUid::new(2).unwrap());
        let now = Instant::now();
        let ticket = tickets.hand_out(1, two, now).unwrap();
        assert_eq!(tickets.redeem(&[0; 32], 1, two, now), Err(BadTicket::Unknown));
        assert_eq!(tickets.redeem(&ticket, 1, two, now), Ok(()));
        assert_eq!(tickets.redeem(&ticket, 1, two, now), Err(BadTicket::Used));

        for (database, node) in [(2, two), (1, one)] {
            let ticket = tickets.hand_out(1, two, now).unwrap();
            assert_eq!(tickets.redeem(&ticket, database, node, now), Err(BadTicket::Foreign));
            // Whoever has shown it may have taken it from somebody.
            assert_eq!(tickets.redeem(&ticket, 1, two, now), Err(BadTicket::Used));
        }
        let ticket = tickets.hand_out(1, two, now).unwrap();
        assert_eq!(tickets.redeem(&ticket, 1, two, now + LIFE), Err(BadTicket::Expired));
        let ticket = tickets.hand_out(1, two, now).unwrap();
        let other = tickets.hand_out(2, two, now).unwrap();
        tickets.void(1);
        assert_eq!(tickets.redeem(&ticket, 1, two, now), Err(BadTicket::Used));
        assert_eq!(tickets.redeem(&other, 2, two, now), Ok(()));
        assert_eq!(tickets.count(), 6);
    }

    #[test]
    fn there_are_never_too_many() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let node = |uid| NodeUid::new(uid).unwrap();
        let first = tickets.hand_out(1, node(1), now).unwrap();
        let kept = tickets.hand_out(1, node(2), now).unwrap();
        for _ in 0..OF_NODE_MAX {
            tickets.hand_out(1, node(1), now).unwrap();
        }
        assert_eq!(tickets.redeem(&first, 1, node(1), now), Err(BadTicket::Unknown));
        assert_eq!(tickets.redeem(&kept, 1, node(2), now), Ok(()));
        for uid in 1..=2 * TICKETS_MAX as u32 {
            tickets.hand_out(1, node(uid), now).unwrap();
        }
        assert_eq!(tickets.handed.lock().len(), TICKETS_MAX);
        tickets.hand_out(1, node(1), now + 2 * LIFE).unwrap();
        assert_eq!(tickets.handed.lock().len(), 1);
    }
}
