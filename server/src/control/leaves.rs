//! This node's certificates between nodes: replacing them when that is asked for or due, and telling of them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use carnelian_cluster::state::{
    ActionId, Authority, Certificate, CertificateName, Change, Detail, Jobs, ManagedBy, NodeUid,
    State, Time,
};
use carnelian_tls::CertificateInfo;
use carnelian_tls::internode::{
    Credential, Lifetime, NodeKey, Plane, RenewalPolicy, Request, SigningAuthority,
};

use super::Member;
use crate::internode;
use crate::log;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(60);

/// Does this node's part of each rotation, and renews what is about to end.
pub async fn watch(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut looks = tokio::time::interval(LOOK);
    let mut is_told = false;
    // The run of the job that was tried last, so that one that fails is not tried before the next.
    let mut tried_s = 0;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        if let Some(node) = member.control.node() {
            if !is_told {
                is_told = tell(&member, node, None).await.is_ok();
            }
            let asked = state.awaiting(node).find_map(|action| match &action.detail {
                Detail::Rotate { name } => Some((action.id.clone(), name.clone())),
                _ => None,
            });
            if let Some((action, name)) = asked {
                take_part(&member, node, action, name).await;
                continue;
            }
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            _ = looks.tick() => renew_what_is_due(&member, &mut tried_s).await,
        }
    }
}

async fn take_part(member: &Arc<Member>, node: NodeUid, action: ActionId, name: Option<String>) {
    let planes: Vec<Plane> = Plane::ALL
        .into_iter()
        .filter(|plane| name.as_deref().is_none_or(|name| name == name_of(*plane).name()))
        .collect();
    let error = renew(member, node, planes).await.err().map(|error| format!("{error:#}"));
    if let Some(error) = &error {
        log::warning!("Certificates between nodes were not replaced: {error}");
    }
    let confirm = Change::ConfirmAction { action, node, error };
    if let Err(error) = member.control.change(confirm).await {
        log::warning!("The rotation of certificates could not be confirmed: {error}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn renew_what_is_due(member: &Arc<Member>, tried_s: &mut i64) {
    let state = member.control.state();
    let Some(node) = member.control.node() else { return };
    let now_s = seconds(SystemTime::now());
    let days = state.cluster.as_ref().map(|it| it.settings.internal_cert_validity_days);
    let due: Vec<Plane> = Plane::ALL
        .into_iter()
        .filter(|plane| {
            let leaf = member.store.credential(*plane);
            let ends = leaf.ok().map(|leaf| leaf.not_after());
            ends.zip(days)
                .is_some_and(|(ends, days)| is_due(&state.jobs, ends, days, *tried_s, now_s))
        })
        .collect();
    if due.is_empty() {
        return;
    }
    *tried_s = now_s;
    log::notice!("Certificates between nodes are to be renewed");
    if let Err(error) = renew(member, node, due).await {
        log::warning!("Certificates between nodes were not renewed: {error:#}");
        let _ = tell(member, node, Some(format!("{error:#}"))).await;
    }
}

/// Whether the job has run, or should have, since a certificate has been due and since it was tried last. Certificates
/// live so many `days`.
fn is_due(jobs: &Jobs, not_after_s: i64, days: u32, tried_s: i64, now_s: i64) -> bool {
    let has_run = jobs.rotation_runs().is_some_and(|runs| {
        let unsigned = |seconds: i64| u64::try_from(seconds).unwrap_or(0);
        runs.is_between(unsigned(tried_s), unsigned(now_s))
    });
    let at_s = jobs.renews_at(not_after_s, days);
    jobs.cert_rotation_job_settings.enabled && has_run && at_s.is_some_and(|at_s| at_s <= now_s)
}

/// How long leaves live, and how long before their end they are replaced.
pub fn policy(state: &State) -> Option<RenewalPolicy> {
    let life = Lifetime::days(state.cluster.as_ref()?.settings.internal_cert_validity_days).ok()?;
    let before = state.jobs.cert_rotation_job_settings.expiry_days_before_rotation;
    RenewalPolicy::new(life, before).ok()
}

/// New keys and certificates for these planes, in use at once for new links; then the links that there are
/// come to use them too, one after the other.
async fn renew(member: &Arc<Member>, node: NodeUid, planes: Vec<Plane>) -> Result<()> {
    let work = Arc::clone(member);
    tokio::task::spawn_blocking(move || {
        issue(&work, &planes)?;
        internode::reload(&work.server)?;
        internode::renew_links(&work.server);
        Ok::<_, anyhow::Error>(())
    })
    .await
    .context("The work ended before it was done")??;
    tell(member, node, None).await
}

fn issue(member: &Member, planes: &[Plane]) -> Result<()> {
    let state = member.control.state();
    let policy = policy(&state).context("there is no cluster")?;
    let authority = signer(member, &state)?;
    let mut renewed = Vec::new();
    for &plane in planes {
        let identity = member.store.credential(plane)?.identity();
        let key = NodeKey::generate()?;
        let request = Request::from_pem(key.request(identity)?.as_bytes())?;
        let issued = authority.sign(&request, identity, policy.life(), SystemTime::now())?;
        renewed.push(key.certified(issued.certificate)?);
    }
    // All of them are made before the first takes its place.
    for credential in &renewed {
        member.store.save_credential(credential)?;
    }
    Ok(())
}

/// The authority that signs: the youngest.
fn signer(member: &Member, state: &State) -> Result<SigningAuthority> {
    let Authority { key, .. } = state.authorities.last().context("there is no authority")?;
    let seal = member.key().context("this node has no key of the cluster")?;
    Ok(SigningAuthority::unseal(&key.0, &seal, Path::new("the cluster's authority"))?)
}

/// Tells the cluster which certificates this node uses.
async fn tell(member: &Arc<Member>, node: NodeUid, failure: Option<String>) -> Result<()> {
    let mut certificates = Vec::new();
    for plane in Plane::ALL {
        certificates.push(described(&member.store.credential(plane)?, node, failure.clone())?);
    }
    for status in member.table.statuses(SystemTime::now()) {
        let Some(name) = CertificateName::parse(status.name.as_str()) else { continue };
        certificates.push(Certificate {
            name,
            node_uid: node,
            managed_by: match status.managed_by {
                carnelian_tls::certificates::ManagedBy::Cluster => ManagedBy::Cluster,
                carnelian_tls::certificates::ManagedBy::Customer => ManagedBy::Customer,
                carnelian_tls::certificates::ManagedBy::ClientCa => ManagedBy::ClientCa,
            },
            subject: status.subject,
            issuer: status.issuer,
            serial: status.serial,
            sha256: status.sha256,
            key_type: status.key_type,
            not_before: time(status.not_before),
            not_after: time(status.not_after),
            failure: None,
        });
    }
    member.control.change(Change::ReportCertificates { node, certificates }).await?;
    Ok(())
}

fn described(
    credential: &Credential,
    node: NodeUid,
    failure: Option<String>,
) -> Result<Certificate> {
    let info = CertificateInfo::of(credential.certificate()).context("a certificate")?;
    Ok(Certificate {
        name: name_of(credential.identity().plane),
        node_uid: node,
        managed_by: ManagedBy::Cluster,
        sha256: info.sha256_hex(),
        subject: info.subject,
        issuer: info.issuer,
        serial: info.serial,
        key_type: info.key_type,
        not_before: time(info.not_before),
        not_after: time(info.not_after),
        failure,
    })
}

fn name_of(plane: Plane) -> CertificateName {
    match plane {
        Plane::Control => CertificateName::CcsInternodeEncryption,
        Plane::Data => CertificateName::DataInternodeEncryption,
    }
}

fn time(seconds: i64) -> Time {
    Time(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn seconds(now: SystemTime) -> i64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_renewed_on_its_thirtieth_day_by_a_run_of_the_job() {
        const DAY_S: i64 = 86_400;
        let made_s = 1_795_333_669; // 07:47:49
        let run_s = made_s + 30 * DAY_S + 731; // 08:00:00
        for days in [45, 90] {
            let ends = made_s + i64::from(days) * DAY_S;
            let mut jobs = Jobs::default();
            let due = |jobs: &Jobs, tried_s, now_s| is_due(jobs, ends, days, tried_s, now_s);
            assert!(!due(&jobs, 0, made_s + 29 * DAY_S));
            // It is due, and the job has yet to run.
            assert!(!due(&jobs, 0, run_s - 1));
            assert!(due(&jobs, 0, run_s));
            // A run that has failed is followed by the next one.
            assert!(!due(&jobs, run_s, run_s + 3599));
            assert!(due(&jobs, run_s, run_s + 3600));
            // A node that was off comes back after it.
            assert!(due(&jobs, 0, run_s + 5 * DAY_S));
            jobs.cert_rotation_job_settings.enabled = false;
            assert!(!due(&jobs, 0, run_s + 5 * DAY_S));
        }
    }
}
