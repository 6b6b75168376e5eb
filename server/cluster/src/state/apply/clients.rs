//! The authorities that clients know the nodes by: one, later its successor beside it, then that alone. Each step is
//! decided once, by whoever leads or an operator, and all nodes follow.

use crate::state::{Authority, ClientAuthorities, Outcome, Refused, State, Time};

/// As many as clients are ever told of.
const LISTED_MAX: usize = 2;

impl State {
    pub(super) fn add_client_authority(
        &mut self,
        authority: Authority,
        after: Option<&str>,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let listed = &mut self.client_authorities.listed;
        if listed.iter().any(|it| it.fingerprint == authority.fingerprint) {
            return Ok(Outcome::Unchanged);
        }
        if listed.len() >= LISTED_MAX {
            let description = "the client CA has a successor already";
            return Err(Refused::conflict("successor_exists", description));
        }
        if listed.last().map(|it| it.fingerprint.as_str()) != after {
            return Err(changed_meanwhile());
        }
        listed.push(authority);
        if after.is_some() {
            self.tell(at, "client_ca_successor_added", []);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn switch_client_authority(
        &mut self,
        from: &str,
        complete: bool,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let ClientAuthorities { listed, is_switched, is_completing } = &mut self.client_authorities;
        let [first, _] = &listed[..] else {
            let description = "the client CA has no successor yet: add one first";
            return Err(Refused::conflict("no_successor", description));
        };
        if first.fingerprint != from {
            return Err(changed_meanwhile());
        }
        if *is_switched && (*is_completing || !complete) {
            return Ok(Outcome::Unchanged);
        }
        let signs_already = std::mem::replace(is_switched, true);
        *is_completing |= complete;
        if !signs_already {
            self.tell(at, "client_ca_switched", []);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn drop_client_authority(
        &mut self,
        fingerprint: &str,
        at: Time,
    ) -> Result<Outcome, Refused> {
        let ClientAuthorities { listed, is_switched, is_completing } = &mut self.client_authorities;
        let is_first = listed.len() == LISTED_MAX && listed[0].fingerprint == fingerprint;
        if !is_first {
            return Err(changed_meanwhile());
        }
        if !*is_switched {
            let description = "the client CA that is to go signs still";
            return Err(Refused::conflict("client_ca_in_use", description));
        }
        listed.remove(0);
        (*is_switched, *is_completing) = (false, false);
        self.tell(at, "client_ca_rotated", []);
        Ok(Outcome::Done)
    }
}

fn changed_meanwhile() -> Refused {
    Refused::conflict("client_ca_changed", "the client CA is another one by now")
}
