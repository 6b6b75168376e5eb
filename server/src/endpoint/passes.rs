//! Passes: what a client is let in by over a link that is not encrypted.
//!
//! A node asks for one over the control plane, where it says who the client is, and has it shown once. What is kept
//! of a pass is a hash, as of tickets; it is good for seconds, as whoever asks for it uses it at once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use carnelian_tls::internode::NodeUid;
use parking_lot::Mutex;

use super::visitor::{Ask, Visitor};
use crate::internode::{Ticket, tickets};

pub const LIFE: Duration = Duration::from_secs(20);

/// That have not been used, of one node: more than it may be about to use.
const OF_NODE_MAX: usize = 256;

struct Pass {
    ask: Ask,
    visitor: Visitor,
    until: Instant,
}

#[derive(Default)]
pub struct Passes(Mutex<HashMap<[u8; 32], Pass>>);

impl Passes {
    /// A new one; none if the node has too many, or there are no random numbers to be had.
    pub fn hand_out(&self, ask: Ask, visitor: Visitor, now: Instant) -> Option<Ticket> {
        let ticket = tickets::random()?;
        let mut passes = self.0.lock();
        passes.retain(|_, pass| now < pass.until);
        if OF_NODE_MAX <= passes.values().filter(|pass| pass.ask.node == ask.node).count() {
            return None;
        }
        passes.insert(tickets::hash(&ticket), Pass { ask, visitor, until: now + LIFE });
        Some(ticket)
    }

    /// Takes one in. Whatever comes of it, it is gone then.
    pub fn redeem(
        &self,
        ticket: &Ticket,
        database: u32,
        node: NodeUid,
        now: Instant,
    ) -> Option<(Ask, Visitor)> {
        // Who does not have the pass knows nothing of its hash, so the time this takes tells nothing.
        let pass = self.0.lock().remove(&tickets::hash(ticket))?;
        let is_good = pass.ask.database == database && pass.ask.node == node && now < pass.until;
        is_good.then_some((pass.ask, pass.visitor))
    }

    /// Those for a database let nobody in any more.
    pub fn void(&self, database: u32) {
        self.0.lock().retain(|_, pass| pass.ask.database != database);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(database: u32, node: u32) -> Ask {
        Ask { database, node: NodeUid::new(node).unwrap(), epoch: 1 }
    }

    fn visitor() -> Visitor {
        Visitor {
            address: "1.2.3.4:5".into(),
            local_address: "1.2.3.5:6".into(),
            is_tls: false,
            is_local: false,
            certificate: None,
        }
    }

    #[test]
    fn a_pass_is_good_once_for_its_node_and_database_and_not_for_long() {
        let passes = Passes::default();
        let (now, one, two) = (Instant::now(), ask(1, 1), ask(2, 2));
        let hand_out = |ask| passes.hand_out(ask, visitor(), now).unwrap();
        let pass = hand_out(one);
        assert_eq!(passes.redeem(&[0; 32], 1, one.node, now), None);
        assert_eq!(passes.redeem(&pass, 1, one.node, now), Some((one, visitor())));
        assert_eq!(passes.redeem(&pass, 1, one.node, now), None);
        for (database, node) in [(2, one.node), (1, two.node)] {
            let pass = hand_out(one);
            assert_eq!(passes.redeem(&pass, database, node, now), None);
            assert_eq!(passes.redeem(&pass, 1, one.node, now), None, "it is gone");
        }
        let pass = hand_out(one);
        assert_eq!(passes.redeem(&pass, 1, one.node, now + LIFE), None);
        let (pass, other) = (hand_out(one), hand_out(two));
        passes.void(1);
        assert_eq!(passes.redeem(&pass, 1, one.node, now), None);
        assert!(passes.redeem(&other, 2, two.node, now).is_some());
    }

    #[test]
    fn a_node_has_only_so_many() {
        let (passes, now) = (Passes::default(), Instant::now());
        for _ in 0..OF_NODE_MAX {
            assert!(passes.hand_out(ask(1, 1), visitor(), now).is_some());
        }
        assert_eq!(passes.hand_out(ask(3, 1), visitor(), now), None);
        assert!(passes.hand_out(ask(1, 2), visitor(), now).is_some());
        assert!(passes.hand_out(ask(1, 1), visitor(), now + LIFE).is_some());
    }
}
