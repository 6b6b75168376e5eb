//! Admitting nodes, and certificates for those there are.

use std::sync::Arc;
use std::time::Duration;

use carnelian_tls::LeafRequest;
use openraft::{BasicNode, RaftMetrics};
use serde::{Deserialize, Serialize};

use super::quorum::leads;
use super::{Control, ControlError};
use crate::keys::{Admission, Keys, KeysError};
use crate::state::{AddNode, Change, NodeStatus, NodeUid, Outcome, Refused, State, Time};

/// What a node asks the leader for that needs certificates for its clients.
const SIGN_FOR_CLIENTS: &str = "sign for clients";

const NO_KEYS: &str = "this node has no keys";

/// How long the leader may take to sign.
const SIGN_TIME: Duration = Duration::from_secs(5);

/// Certificates for what a node asks for, or why not.
type Simulated = fn(&State, NodeUid, &str, Time) -> Result<Vec<String>, String>;

/// What a node that leads signs with.
#[derive(Clone)]
pub enum Signer {
    Keys(Arc<Keys>),
    /// Without keys, and without a thread to compute in.
    #[cfg_attr(not(test), expect(dead_code))]
    Simulated(Simulated),
}

#[derive(Serialize, Deserialize)]
struct ToSign {
    node: NodeUid,
    requests: String,
}

impl Control {
    /// From here on this node signs while it leads.
    pub(crate) fn sign_with(&self, signer: Signer) {
        *self.0.signer.lock() = Some(signer);
        let control = self.clone().weak();
        self.answer(
            "sign",
            Arc::new(move |peer, body| {
                let control = control.upgrade();
                Box::pin(async move {
                    let control = control.ok_or("it is being closed")?;
                    let to_sign: ToSign =
                        serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                    // A node asks for itself, or for one that is just being admitted through it.
                    let state = control.state();
                    let status = state.nodes.get(&to_sign.node).map(|node| node.status);
                    if peer != to_sign.node && status != Some(NodeStatus::Provisioning) {
                        return Err(format!("node {} asks for itself", to_sign.node));
                    }
                    let signed = control.sign_here(to_sign).await?;
                    serde_json::to_vec(&signed).map_err(|error| error.to_string())
                })
            }),
        );
        let control = self.clone().weak();
        self.answer(
            SIGN_FOR_CLIENTS,
            Arc::new(move |peer, body| {
                let control = control.upgrade();
                Box::pin(async move {
                    let control = control.ok_or("it is being closed")?;
                    let requests: Vec<LeafRequest> =
                        serde_json::from_slice(&body).map_err(|error| error.to_string())?;
                    let state = control.state_to_sign_by(peer)?;
                    let keys = control.keys().map_err(|error| error.to_string())?;
                    let now = control.now();
                    let signed =
                        signed(move || keys.sign_for_clients(&state, &requests, now)).await?;
                    serde_json::to_vec(&signed).map_err(|error| error.to_string())
                })
            }),
        );
    }

    /// Makes a node a member, on behalf of an admin who has authenticated, and says what it has to know.
    pub async fn admit(&self, new: AddNode) -> Result<Admission, ControlError> {
        let keys = self.keys()?;
        let outcome = self.change(Change::AddNode(Box::new(new))).await?;
        let Outcome::Node(node) = outcome else {
            return Err(Refused::new(500, "internal_error", "no uid was given").into());
        };
        let state = self.state();
        let cluster = state.cluster.as_ref().ok_or_else(no_cluster)?;
        Ok(Admission {
            node,
            cluster: cluster.id.clone(),
            name: cluster.name.clone(),
            authorities: state
                .trusted_authorities()
                .into_iter()
                .map(|it| it.certificate.clone())
                .collect(),
            revision: state.revision,
            cluster_key: keys.cluster_key().map_err(|error| broken(&error))?,
        })
    }

    /// Certificates for a node's requests, in their order; the leader signs.
    pub async fn sign(&self, node: NodeUid, requests: &str) -> Result<Vec<String>, ControlError> {
        let leader = self.leader().ok_or(ControlError::NoQuorum)?;
        let to_sign = ToSign { node, requests: requests.to_owned() };
        let bad = |reason: String| Refused::bad("invalid_request", reason);
        if Some(leader) == self.node() {
            return Ok(self.sign_here(to_sign).await.map_err(bad)?);
        }
        let body = serde_json::to_vec(&to_sign).map_err(|error| broken(&error))?;
        let answer = self.ask(leader, "sign", body, SIGN_TIME).await.map_err(bad)?;
        serde_json::from_slice(&answer).map_err(|error| broken(&error))
    }

    /// The same for what this node shows to clients.
    pub async fn sign_for_clients(
        &self,
        requests: &[LeafRequest],
    ) -> Result<Vec<String>, ControlError> {
        let leader = self.leader().ok_or(ControlError::NoQuorum)?;
        let bad = |reason: String| Refused::bad("invalid_request", reason);
        let body = serde_json::to_vec(requests).map_err(|error| broken(&error))?;
        let answer = self.ask(leader, SIGN_FOR_CLIENTS, body, SIGN_TIME).await.map_err(bad)?;
        serde_json::from_slice(&answer).map_err(|error| broken(&error))
    }

    async fn sign_here(&self, to_sign: ToSign) -> Result<Vec<String>, String> {
        let state = self.state_to_sign_by(to_sign.node)?;
        let (signer, now) = (self.0.signer.lock().clone(), self.now());
        match signer {
            Some(Signer::Keys(keys)) => {
                let ToSign { node, requests } = to_sign;
                signed(move || keys.sign(&state, node, requests.as_bytes(), now)).await
            }
            Some(Signer::Simulated(sign)) => sign(&state, to_sign.node, &to_sign.requests, now),
            None => Err(NO_KEYS.to_owned()),
        }
    }

    /// By what to sign for a node, if this one leads and that one is a member still.
    fn state_to_sign_by(&self, node: NodeUid) -> Result<Arc<State>, String> {
        let member = self.member().ok_or("this node is in no cluster")?;
        if !leads_and_knows_all(&member.raft.metrics().borrow()) {
            return Err("this node does not lead".to_owned());
        }
        let state = self.state();
        if !state.is_member(node) {
            return Err(format!("node {node} is no member"));
        }
        Ok(state)
    }

    fn keys(&self) -> Result<Arc<Keys>, ControlError> {
        match self.0.signer.lock().clone() {
            Some(Signer::Keys(keys)) => Ok(keys),
            _ => Err(ControlError::Store(NO_KEYS.to_owned())),
        }
    }
}

/// Computes apart from what else goes on here: signatures take a while.
async fn signed(
    sign: impl FnOnce() -> Result<Vec<String>, KeysError> + Send + 'static,
) -> Result<Vec<String>, String> {
    let signed = tokio::task::spawn_blocking(sign);
    signed.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Whether a node leads and has applied an entry of its own, and so all that was committed before. One that was just
/// elected might sign by an authority that is on its way out for a node that has told already that it shows a
/// certificate of the next, and nobody would believe that node again.
fn leads_and_knows_all(metrics: &RaftMetrics<u64, BasicNode>) -> bool {
    leads(metrics)
        && metrics.last_applied.is_some_and(|it| it.leader_id.term == metrics.current_term)
}

fn no_cluster() -> Refused {
    Refused::new(503, "not_bootstrapped", "there is no cluster yet")
}

fn broken(error: &dyn std::fmt::Display) -> ControlError {
    ControlError::Store(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use openraft::{CommittedLeaderId, Membership, RaftMetrics};

    use super::leads_and_knows_all;
    use crate::raft::{LogId, StoredMembership};

    #[test]
    fn who_was_just_elected_signs_nothing_before_it_has_caught_up() {
        let applied = |term| Some(LogId::new(CommittedLeaderId::new(term, 2), 9));
        let mut metrics = RaftMetrics::new_initial(1);
        let voters = Membership::new(vec![BTreeSet::from([1, 2])], ());
        metrics.membership_config = Arc::new(StoredMembership::new(applied(1), voters));
        (metrics.current_term, metrics.current_leader) = (4, Some(1));
        assert!(!leads_and_knows_all(&metrics));
        metrics.last_applied = applied(3);
        assert!(!leads_and_knows_all(&metrics));
        metrics.last_applied = applied(4);
        assert!(leads_and_knows_all(&metrics));
        metrics.current_leader = Some(2);
        assert!(!leads_and_knows_all(&metrics));
    }
}
