//! What this node shows to clients, at the ports of databases and of the REST interface: keys of its own, certified
//! by the authority that the whole cluster has for clients, so that whoever knows that verifies every node.
//!
//! Whoever leads has the authority's key, from the state, and signs. It also sees to it that there is one, that
//! another follows it, and which of them signs; that is decided once, and each node brings itself to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use carnelian_cluster::state::{Change, ClientAuthorities, NodeUid, State, Time};
use carnelian_tls::certificates::Names;
use carnelian_tls::{
    AuthorityPem, ClientCaPolicy, ClientCaStep, ClientTrust, NodeLeaves, PendingLeaves,
    own_authorities,
};
use tokio::time::Instant;

use super::{Member, blocking, leaves};
use crate::clock;
use crate::log;

/// Between two looks whether other names are wanted, or the authority has to change.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the certificates themselves.
const LOOK_CLOSELY: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(86_400);

/// What certificates have to be like: as long as that does not change they only age.
#[derive(PartialEq)]
struct Wanted {
    authorities: ClientAuthorities,
    cluster: String,
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

/// Goes on until the process ends.
pub async fn follow(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut done: Option<(Wanted, Instant)> = None;
    let mut failure = None;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        if let (Some(node), Some(wanted)) = (member.control.node(), wanted(&member, &state)) {
            let mut result = Ok(());
            if member.control.is_leader() {
                result = guide(&member, &state).await;
            }
            let is_done = done
                .as_ref()
                .is_some_and(|(before, at)| *before == wanted && at.elapsed() < LOOK_CLOSELY);
            if !is_done && !wanted.authorities.listed.is_empty() {
                match put_into_effect(&member, node, &wanted).await {
                    Ok(()) => done = Some((wanted, Instant::now())),
                    error => result = error,
                }
            }
            let before = failure.take();
            failure = result.err().map(|error| format!("{error:#}"));
            if let Some(failure) = failure.as_ref().filter(|now| Some(*now) != before.as_ref()) {
                log::warning!("Certificates for clients are not as they should be: {failure}");
            }
        }
        if let Ok(Err(_)) = tokio::time::timeout(LOOK, states.changed()).await {
            return;
        }
    }
}

/// Has this node show what the cluster's authority signs, as soon as it is in a cluster. [`follow`] tries again what
/// fails.
pub async fn settle(member: &Arc<Member>, node: NodeUid) {
    let state = member.control.state();
    let Some(wanted) = wanted(member, &state).filter(|it| !it.authorities.listed.is_empty()) else {
        return;
    };
    if let Err(error) = put_into_effect(member, node, &wanted).await {
        log::warning!("Certificates for clients were not signed yet: {error:#}");
    }
}

fn wanted(member: &Member, state: &State) -> Option<Wanted> {
    let cluster = state.cluster.as_ref()?.name.clone();
    let own = &state.nodes.get(&member.control.node()?)?.settings;
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for name in std::iter::once(&own.addr).chain(&own.external_addr) {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    for database in &*member.server.databases.read() {
        let config = database.config();
        let bound = config.bind.iter().map(|word| word.trim_start_matches('-'));
        addresses.extend(bound.filter_map(|word| word.parse::<IpAddr>().ok()));
        names.extend(config.tls_san.iter().cloned());
    }
    addresses.sort();
    addresses.dedup();
    names.sort();
    names.dedup();
    Some(Wanted { authorities: state.client_authorities.clone(), cluster, addresses, names })
}

async fn put_into_effect(member: &Arc<Member>, node: NodeUid, wanted: &Wanted) -> Result<()> {
    // Who is told to join does this beside the task that always does.
    let _one = member.renewing.lock().await;
    let trust = wanted.authorities.trust().context("there is no client CA")??;
    let names = Names::new(&wanted.cluster, &wanted.addresses)?.and(&wanted.names)?;
    let (work, known) = (Arc::clone(member), trust.clone());
    let pending = blocking(move || {
        let slots = leaves_of(&work).lacking(&known, &names, SystemTime::now());
        Ok(match slots.is_empty() {
            true => None,
            false => Some(PendingLeaves::new(&slots, &names)?),
        })
    })
    .await?;
    let signed = match &pending {
        None => Vec::new(),
        Some(pending) => member.control.sign_for_clients(&pending.requests).await?,
    };
    let work = Arc::clone(member);
    let is_new = blocking(move || {
        let _showing = work.showing.lock();
        let leaves = leaves_of(&work);
        if let Some(pending) = &pending {
            leaves.install(pending, &signed, &trust, SystemTime::now())?;
        }
        let is_new = leaves.leave_to_cluster(&trust)? | pending.is_some();
        if is_new {
            log::notice!(
                "Certificates for clients: {} of {}",
                signed.len(),
                trust.signer().subject
            );
            renew_tls(&work)?;
        }
        Ok(is_new)
    })
    .await?;
    if is_new {
        leaves::tell(member, node, None).await?;
    }
    Ok(())
}

fn leaves_of(member: &Member) -> NodeLeaves<'_> {
    NodeLeaves { folder: &member.folder, table: &member.table }
}

/// Has new connections be shown what is in the folder now.
fn renew_tls(member: &Member) -> Result<()> {
    let databases = member.server.databases.read().clone();
    for database in &databases {
        let renewed = database.tls.renew(&database.config());
        renewed.with_context(|| format!("TLS of database {}", database.uid))?;
    }
    member.server.endpoints.renew_tls().context("TLS of databases of other nodes")
}

/// What whoever leads does about the authority itself, one step at a time.
pub async fn guide(member: &Arc<Member>, state: &State) -> Result<()> {
    let now = SystemTime::now();
    let all = &state.client_authorities;
    let Some(trust) = all.trust() else { return give_own(member, now).await };
    match next(&policy_of(state), &trust?, state, now) {
        Some(Next::Add) => add_successor(member).await,
        Some(Next::Switch) => {
            let from = first(all);
            let change = Change::SwitchClientAuthority { from, complete: false };
            log::notice!("The client CA's successor signs from now on");
            Ok(member.control.change(change).await.map(drop)?)
        }
        Some(Next::Drop) => {
            let change = Change::DropClientAuthority { fingerprint: first(all) };
            log::notice!("The client CA's successor is the only one from now on");
            Ok(member.control.change(change).await.map(drop)?)
        }
        None => Ok(()),
    }
}

/// How long authorities live and when they change, as the cluster has set it.
fn policy_of(state: &State) -> ClientCaPolicy {
    let Some(cluster) = &state.cluster else { return ClientCaPolicy::default() };
    let days = |days: u32| DAY * days;
    let settings = &cluster.settings;
    ClientCaPolicy {
        validity: days(settings.client_ca_validity_days),
        successor_after: days(settings.client_ca_successor_after_days),
        switch_before_expiry: days(settings.client_ca_switch_before_expiry_days),
    }
}

#[derive(Debug, PartialEq)]
enum Next {
    Add,
    Switch,
    Drop,
}

fn next(
    policy: &ClientCaPolicy,
    trust: &ClientTrust,
    state: &State,
    now: SystemTime,
) -> Option<Next> {
    let all = &state.client_authorities;
    let (infos, now_s) = (trust.infos(), leaves::seconds(now));
    if !all.is_switched && policy.signer(&infos, now_s) == 1 {
        return Some(Next::Switch);
    }
    match policy.step(&infos, now_s) {
        Some(ClientCaStep::AddSuccessor) => Some(Next::Add),
        Some(ClientCaStep::DropOld) => Some(Next::Drop),
        None if all.is_completing && state.is_first_client_authority_unused() => Some(Next::Drop),
        None => None,
    }
}

fn first(all: &ClientAuthorities) -> String {
    all.listed.first().map_or_else(String::new, |it| it.fingerprint.clone())
}

/// The authority that this server has had by itself becomes the cluster's, so that clients go on knowing it.
async fn give_own(member: &Arc<Member>, now: SystemTime) -> Result<()> {
    let folder = member.folder.clone();
    let own =
        blocking(move || Ok(own_authorities(&folder, ClientCaPolicy::default(), now)?)).await?;
    let mut after = None;
    for pem in own {
        after = Some(add(member, pem, after).await?);
    }
    Ok(())
}

/// Lists another authority behind the one there is.
pub async fn add_successor(member: &Arc<Member>) -> Result<()> {
    let state = member.control.state();
    let after = state.client_authorities.listed.last().map(|it| it.fingerprint.clone());
    let life = policy_of(&state).validity;
    let made = blocking(move || Ok(AuthorityPem::create(SystemTime::now(), life)?)).await?;
    add(member, made, after).await?;
    log::notice!("The client CA has a successor, which clients are to be told of");
    Ok(())
}

async fn add(member: &Arc<Member>, pem: AuthorityPem, after: Option<String>) -> Result<String> {
    let work = Arc::clone(member);
    let sealed =
        blocking(move || Ok(work.keys.client_authority(&pem, Time(clock::wall_ms()))?)).await?;
    let fingerprint = sealed.fingerprint.clone();
    let change = Change::AddClientAuthority { authority: Box::new(sealed), after };
    member.control.change(change).await?;
    Ok(fingerprint)
}

#[cfg(test)]
mod tests {
    use carnelian_cluster::state::{Authority, SealedKey};

    use super::*;

    fn authority(pem: &AuthorityPem) -> Authority {
        Authority {
            fingerprint: pem.certificate.clone(),
            certificate: pem.certificate.clone(),
            key: SealedKey(Vec::new()),
            created: Time(0),
        }
    }

    #[test]
    fn a_cluster_that_has_set_nothing_goes_by_the_usual_policy() {
        assert_eq!(policy_of(&State::default()), ClientCaPolicy::default());
        let settings = carnelian_cluster::state::ClusterSettings::default();
        let days = [settings.client_ca_validity_days, settings.client_ca_successor_after_days];
        let policy = ClientCaPolicy::default();
        assert_eq!(days.map(|days| DAY * days), [policy.validity, policy.successor_after]);
        let days = settings.client_ca_switch_before_expiry_days;
        assert_eq!(DAY * days, policy.switch_before_expiry);
    }

    #[test]
    fn the_authority_is_followed_by_another_as_its_age_says() {
        let policy = ClientCaPolicy::default();
        let start = SystemTime::now();
        let make = |days: u32| {
            AuthorityPem::create(start + days * DAY, policy.validity).expect("it can be made")
        };
        let mut state = State::default();
        state.client_authorities.listed.push(authority(&make(0)));
        let at = |state: &State, days: u32| {
            let trust = state.client_authorities.trust().expect("it is there").expect("it is one");
            next(&policy, &trust, state, start + days * DAY)
        };
        assert_eq!(at(&state, 1_825), None);
        assert_eq!(at(&state, 1_827), Some(Next::Add));
        state.client_authorities.listed.push(authority(&make(1_827)));
        assert_eq!(at(&state, 3_620), None);
        assert_eq!(at(&state, 3_623), Some(Next::Switch));
        // It has to have been switched before the first goes, however late that is.
        assert_eq!(at(&state, 3_660), Some(Next::Switch));
        state.client_authorities.is_switched = true;
        assert_eq!(at(&state, 3_623), None);
        assert_eq!(at(&state, 3_653), Some(Next::Drop));
        // An operator does not wait for that.
        state.client_authorities.is_completing = true;
        assert_eq!(at(&state, 2_000), Some(Next::Drop));
        state.client_authorities.listed.remove(0);
        state.client_authorities.is_switched = false;
        state.client_authorities.is_completing = false;
        assert_eq!(at(&state, 3_652), None);
        assert_eq!(at(&state, 3_654), Some(Next::Add));
    }
}
