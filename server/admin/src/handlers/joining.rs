//! `/v1/cluster/admit`: what a node that joins asks of a member, as the admin whose credentials it was given.

use std::sync::Arc;

use carnelian_cluster::state::{AddNode, NodeUid};
use serde_json::{Value, json};

use crate::admin::Admin;
use crate::answer::{Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::text;
use crate::request::Request;
use crate::routes::{Route, later, post};

pub const ROUTES: &[Route] = &[
    post("/v1/cluster/admit", Right::Cluster, later!(admit), "Take a node in that joins"),
    post("/v1/cluster/admit/{uid}/sign", Right::Cluster, later!(sign), "Certify its keys"),
];

/// The answer holds the cluster's key: it goes to the node that joins and nowhere else.
async fn admit(admin: Arc<Admin>, request: Request) -> Reply {
    let new: AddNode = serde_json::from_value(Value::Object(request.object()?))
        .map_err(|error| Refusal::schema(format!("The node: {error}")))?;
    let admission = admin.live.admit(new).await?;
    let wire = serde_json::to_value(&admission);
    let fault = |_| Refusal::new(500, "internal_error", "The answer could not be written");
    Ok(wire.map_err(fault)?.into())
}

async fn sign(admin: Arc<Admin>, request: Request) -> Reply {
    let node = NodeUid(request.uid("node_not_found")?);
    if !admin.state().nodes.contains_key(&node) {
        return Err(Refusal::not_found("node_not_found", format!("There is no node {node}")));
    }
    let requests = text(&request.object()?, "requests")?
        .ok_or_else(|| Refusal::schema("requests is needed: what to sign, as PEM"))?;
    let certificates = admin.live.sign(node, requests).await?;
    Ok(json!({ "certificates": certificates }).into())
}
