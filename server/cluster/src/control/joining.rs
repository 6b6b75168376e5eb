//! Admitting nodes, and certificates for those there are.

use std::sync::Arc;
use std::time::Duration;

use carnelian_tls::LeafRequest;
use serde::{Deserialize, Serialize};

use super::{Control, ControlError};
use crate::keys::{Admission, Keys, KeysError};
use crate::state::{AddNode, Change, NodeStatus, NodeUid, Outcome, Refused, State, Time};

/// What a node asks the leader for that needs certificates for its clients.
const SIGN_FOR_CLIENTS: &str = "sign for clients";

/// How long the leader may take to sign.
const SIGN_TIME: Duration = Duration::from_secs(5);

#[derive(Serialize, Deserialize)]
struct ToSign {
    node: NodeUid,
    requests: String,
}

impl Control {
    /// From here on this node signs while it leads, with the keys it keeps.
    pub(super) fn use_keys(&self, keys: Arc<Keys>) {
        *self.0.keys.lock() = Some(keys);
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
                    let signed = control.sign_with(peer, move |keys, state, now| {
                        keys.sign_for_clients(state, &requests, now)
                    });
                    serde_json::to_vec(&signed.await?).map_err(|error| error.to_string())
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
        self.sign_with(to_sign.node, move |keys, state, now| {
            keys.sign(state, to_sign.node, to_sign.requests.as_bytes(), now)
        })
        .await
    }

    /// Signs for a node, if this one leads and that one is a member still.
    async fn sign_with(
        &self,
        node: NodeUid,
        sign: impl FnOnce(&Keys, &State, Time) -> Result<Vec<String>, KeysError> + Send + 'static,
    ) -> Result<Vec<String>, String> {
        if !self.is_leader() {
            return Err("this node does not lead".to_owned());
        }
        let state = self.state();
        if !state.is_member(node) {
            return Err(format!("node {node} is no member"));
        }
        let (keys, now) = (self.keys().map_err(|error| error.to_string())?, self.now());
        let signed = tokio::task::spawn_blocking(move || sign(&keys, &state, now));
        signed.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn keys(&self) -> Result<Arc<Keys>, ControlError> {
        let none = || ControlError::Store("this node has no keys".to_owned());
        self.0.keys.lock().clone().ok_or_else(none)
    }
}

fn no_cluster() -> Refused {
    Refused::new(503, "not_bootstrapped", "there is no cluster yet")
}

fn broken(error: &dyn std::fmt::Display) -> ControlError {
    ControlError::Store(error.to_string())
}
