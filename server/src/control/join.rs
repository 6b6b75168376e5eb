//! Joining the cluster of other nodes, from the first request to the state that comes from them.
//!
//! A member is asked over HTTPS with an admin's credentials. It says under which number this node is a member, gives
//! it the cluster's key and signs its certificates; after that everything goes over the channel between
//! nodes, where both ends know one another by the cluster's authorities. Which certificate the member should show
//! over HTTPS this node cannot know by itself: unless `trusted_ca` says it, whoever answers is believed, once, and
//! has to be reached over a network that is trusted so far. Who was not a member does not get further than that: the
//! work is done only when a node with a certificate of the authorities that were named has sent the state.
//!
//! A node that could not join is as it was before, and the cluster forgets it again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use carnelian_admin::{Bootstrap, BootstrapFailure, Secret};
use carnelian_cluster::Admission;
use carnelian_cluster::state::{AddNode, NodeUid};
use carnelian_tls::internode::SealKey;
use serde_json::{Value, json};

use super::https::{Failure, Remote};
use super::{Member, blocking, clients, found, host, live};
use crate::internode;
use crate::log;

/// For the state to come, after everything else is done.
const STATE_TIME: Duration = Duration::from_secs(15);
/// For the port to be free again.
const PORT_TIME: Duration = Duration::from_millis(200);
/// Before a member that cannot be reached is tried again.
const PAUSE: Duration = Duration::from_secs(2);

/// As `cluster-join` asks for it: until a member can be reached.
pub async fn by_directive(member: Arc<Member>) {
    let place = member.server.config().cluster_join.clone();
    let Some((username, password)) = credentials() else {
        log::warning!("cluster-join: {USER} and {PASSWORD} have to say who asks for it");
        return;
    };
    let request = Bootstrap {
        nodes: vec![place.clone()],
        username,
        password,
        accept_servers: true,
        ..Bootstrap::default()
    };
    let mut is_told = false;
    while !is_member(&member) {
        match join(&member, request.clone()).await {
            Ok(()) => return,
            Err(failure) if failure.code == CONNECT_ERROR => {
                if !is_told {
                    log::warning!("cluster-join: {}; trying again", failure.message);
                }
                is_told = true;
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => {
                log::warning!("cluster-join {place}: {} ({})", failure.message, failure.code);
                return;
            }
        }
    }
}

/// Who administers the cluster, for directives. Command lines can be read by others.
const USER: &str = "CARNELIAN_ADMIN_USER";
const PASSWORD: &str = "CARNELIAN_ADMIN_PASSWORD";

pub fn credentials() -> Option<(String, Secret)> {
    let value = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    Some((value(USER)?, Secret(value(PASSWORD)?)))
}

/// Whether this node is in a cluster, or about to hear from the one that has taken it in.
pub fn is_member(member: &Member) -> bool {
    member.control.node().is_some()
}

const CONNECT_ERROR: &str = "connect_error";

impl From<Failure> for BootstrapFailure {
    fn from(failure: Failure) -> Self {
        let (code, message) = match failure {
            Failure::Unreachable(message) => (CONNECT_ERROR, message),
            Failure::Denied(message) => ("access_denied", message),
            Failure::Refused(message) => ("config_error", message),
        };
        Self { code, message }
    }
}

fn config_error(error: &anyhow::Error) -> BootstrapFailure {
    BootstrapFailure { code: "config_error", message: format!("{error:#}") }
}

/// Makes this node a member, through the first of the members named that answers.
pub async fn join(member: &Arc<Member>, request: Bootstrap) -> Result<(), BootstrapFailure> {
    let _one = member.joining.lock().await;
    if member.control.state().cluster.is_some() {
        let message = "this node is in a cluster".to_owned();
        return Err(BootstrapFailure { code: "config_error", message });
    }
    start_anew(member).await.map_err(|error| config_error(&error))?;
    let mut settings = host::node_settings(member);
    live::settle(&mut settings, &request);
    let replace = request.replace_node.map(NodeUid);
    let new = AddNode { settings, facts: host::facts(member), replace };
    let mut last = None;
    for place in &request.nodes {
        let authorities = request.trusted_ca.as_deref();
        let remote = Remote::new(place, &request.username, &request.password, authorities)?;
        let body = serde_json::to_value(&new).map_err(|error| config_error(&error.into()))?;
        match remote.post("/v1/cluster/admit".to_owned(), body).await {
            Ok(answer) => return admitted(member, &remote, answer).await,
            Err(failure @ Failure::Unreachable(_)) => last = Some(failure),
            Err(failure) => return Err(failure.into()),
        }
    }
    let nobody = || Failure::Refused("no member is named".to_owned());
    Err(last.unwrap_or_else(nobody).into())
}

async fn admitted(
    member: &Arc<Member>,
    remote: &Remote,
    answer: Value,
) -> Result<(), BootstrapFailure> {
    let admission: Admission = serde_json::from_value(answer)
        .map_err(|_| Failure::Refused(format!("{remote} answers as no member does")))?;
    let node = admission.node;
    let result = take_part(member, remote, &admission).await;
    match &result {
        Ok(()) => {
            log::notice!("This node is number {node} of the cluster {}", admission.name);
        }
        Err(failure) => {
            log::warning!("This node did not join {}: {}", admission.name, failure.message);
            if let Err(error) = start_anew(member).await {
                log::warning!("What is left of that could not be removed: {error:#}");
            }
            // It is a member for the others until they are told.
            let _ = remote.delete(format!("/v1/nodes/{node}")).await;
        }
    }
    result
}

async fn take_part(
    member: &Arc<Member>,
    remote: &Remote,
    admission: &Admission,
) -> Result<(), BootstrapFailure> {
    let node = admission.node;
    let (work, of) = (Arc::clone(member), admission.clone());
    let pending = blocking(move || {
        work.keys.take_cluster_key(&of.cluster_key)?;
        Ok(work.keys.request(&of.cluster, of.node)?)
    })
    .await
    .map_err(|error| config_error(&error))?;

    let body = json!({ "requests": pending.requests });
    let answer = remote.post(format!("/v1/cluster/admit/{node}/sign"), body).await?;
    let certificates: Vec<String> = serde_json::from_value(answer["certificates"].clone())
        .map_err(|_| Failure::Refused(format!("{remote} has signed nothing")))?;

    let (work, of) = (Arc::clone(member), admission.clone());
    blocking(move || {
        work.keys.accept(&pending, &certificates, &of.authorities, of.revision)?;
        work.key.store(Some(Arc::new(SealKey::open(&work.store.seal_key_file())?)));
        Ok(())
    })
    .await
    .map_err(|error| config_error(&error))?;
    found::open_channel(member).await.map_err(|error| config_error(&error))?;
    member.control.join(node).await.map_err(|error| config_error(&error.into()))?;

    let mut states = member.control.subscribe();
    let is_here = states.wait_for(|state| {
        state.cluster.as_ref().is_some_and(|cluster| cluster.id == admission.cluster)
            && state.nodes.contains_key(&node)
    });
    if !matches!(tokio::time::timeout(STATE_TIME, is_here).await, Ok(Ok(_))) {
        let own = host::node_settings(member);
        let message = format!(
            "the other nodes do not reach this one at {}:{}, or are not who they said",
            own.addr, own.internode_port
        );
        return Err(BootstrapFailure { code: CONNECT_ERROR, message });
    }
    // Who asks next is shown what the whole cluster's clients believe.
    clients::settle(member, node).await;
    Ok(())
}

/// Removes what an attempt that came to nothing has left behind: keys, certificates, a place in Raft.
async fn start_anew(member: &Arc<Member>) -> Result<()> {
    if is_member(member) {
        member.control.leave().await?;
    }
    if internode::close(&member.server) {
        tokio::time::sleep(PORT_TIME).await;
    }
    member.key.store(None);
    let folder = member.store.folder().to_owned();
    blocking(move || empty(&folder)).await
}

fn empty(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
