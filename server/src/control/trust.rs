//! Whom this node believes between nodes: what the state says, kept by the store, in force on live links at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use carnelian_cluster::state::{Change, NodeUid, State};
use carnelian_tls::internode::{Authority, LinkInfo, NodeUid as NodeName, Report};

use super::{Member, blocking};
use crate::internode::Channel;
use crate::log;

/// Before what could not be done is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Goes on until the process ends.
pub async fn follow(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut failure = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let before = failure.take();
        if let (Some(node), Some(_)) = (member.control.node(), &state.cluster) {
            failure = step(&member, node, &state).await.err().map(|error| format!("{error:#}"));
        }
        if let Some(failure) = failure.as_ref().filter(|now| Some(*now) != before.as_ref()) {
            log::warning!("Whom to trust between nodes is not as the cluster says: {failure}");
        }
        let changed = states.changed();
        match failure {
            None => match changed.await {
                Ok(()) => {}
                Err(_) => return,
            },
            Some(_) => drop(tokio::time::timeout(PAUSE, changed).await),
        }
    }
}

async fn step(member: &Arc<Member>, node: NodeUid, state: &Arc<State>) -> Result<()> {
    let (work, of) = (Arc::clone(member), Arc::clone(state));
    blocking(move || believe(&work, &of)).await?;
    tell(member, node).await
}

fn believe(member: &Member, state: &State) -> Result<()> {
    // The state has it.
    member.store.forget_authority()?;
    let Some(channel) = member.server.internode.channel() else { return Ok(()) };
    let Channel { node, .. } = &*channel;
    let _one = member.trusting.lock();
    let before = node.trust();
    let mut ended = Vec::new();
    let removed = state.removed_nodes.iter().filter_map(|uid| NodeName::new(uid.0));
    for uid in removed.filter(|uid| !before.revocations.nodes.contains(uid)) {
        log::notice!("Node {uid} is not believed any more: it has left the cluster");
        ended.extend(node.revoke_node(uid));
    }
    let now: Vec<String> = before.authorities().iter().map(Authority::fingerprint).collect();
    let wanted = state.trusted_since(before.revision()).unwrap_or_default();
    let wanted: Vec<&str> = wanted.into_iter().map(|it| it.fingerprint.as_str()).collect();
    if !wanted.is_empty() && now != wanted {
        ended.extend(node.trust_only(member.keys.authorities(state)?, state.revision)?);
        log::notice!("Authorities between nodes: {}", wanted.join(", "));
    }
    for LinkInfo { peer, address, .. } in ended {
        log::notice!("Ended a link with {}: {address}", peer.identity);
    }
    if !Arc::ptr_eq(&before, &node.trust()) {
        member.store.save_trust(&node.trust())?;
    }
    Ok(())
}

/// What this node trusts, can sign for and shows. None where it makes no links.
pub fn own_report(member: &Member, state: &State) -> Option<Report> {
    let channel = member.server.internode.channel()?;
    // What is reported is on the disk.
    let _one = member.trusting.lock();
    Some(channel.node.report(member.keys.can_sign(state)))
}

/// Tells the cluster, while that waits for it.
pub async fn tell(member: &Member, node: NodeUid) -> Result<()> {
    let state = member.control.state();
    let Some(replacement) = &state.replacement else { return Ok(()) };
    let Some(report) = own_report(member, &state) else { return Ok(()) };
    if replacement.reports.get(&node) != Some(&report) {
        member.control.change(Change::ReportTrust { node, report }).await?;
    }
    Ok(())
}
