//! This node's certificates between nodes: replacing them when that is asked for or due, and telling of them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use carnelian_cluster::state::{
    ActionId, Certificate, CertificateName, Change, Detail, ManagedBy, NodeUid, State, Time,
};
use carnelian_tls::CertificateInfo;
use carnelian_tls::internode::{Credential, LinkInfo, Plane, Step};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::time::{Instant, sleep};

use super::{Member, blocking, found, trust};
use crate::internode::{self, Channel};
use crate::log;

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(60);
/// The same while the authority is replaced: links end without anybody telling.
const LOOK_SOON: Duration = Duration::from_millis(500);
/// For a certificate to be signed, whoever leads by then.
const SIGN_TIME: Duration = Duration::from_secs(8);
const PAUSE: Duration = Duration::from_millis(200);

/// Does this node's part of each rotation, and renews what is about to end.
pub async fn watch(member: Arc<Member>) {
    let mut states = member.control.subscribe();
    let mut look_at = Instant::now();
    let mut is_told = false;
    // The run of the job that was tried last, so that one that fails is not tried before the next.
    let mut tried_s = 0;
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        let mut pause = LOOK;
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
            if state.replacement.is_some() {
                pause = LOOK_SOON;
                if let Err(error) = change_authority(&member, node, &state).await {
                    log::warning!("The authority between nodes is not replaced yet: {error:#}");
                }
            }
        }
        if look_at <= Instant::now() {
            look_at = Instant::now() + LOOK;
            renew_what_is_due(&member, &mut tried_s).await;
            end_expired(&member);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = sleep(pause) => {}
        }
    }
}

async fn take_part(member: &Arc<Member>, node: NodeUid, action: ActionId, name: Option<String>) {
    let planes: Vec<Plane> = Plane::ALL
        .into_iter()
        .filter(|plane| name.as_deref().is_none_or(|name| name == name_of(*plane).as_str()))
        .collect();
    let error = renew(member, node, &planes).await.err().map(|error| format!("{error:#}"));
    if let Some(error) = &error {
        log::warning!("Certificates between nodes were not replaced: {error}");
    }
    let confirm = Change::ConfirmAction { action, node, error };
    if let Err(error) = member.control.change(confirm).await {
        log::warning!("The rotation of certificates could not be confirmed: {error}");
        sleep(Duration::from_secs(1)).await;
    }
}

/// This node's part in the change from one authority to another, but for whom it trusts. It says how far it is.
async fn change_authority(member: &Arc<Member>, node: NodeUid, state: &State) -> Result<()> {
    let Some(replacement) = &state.replacement else { return Ok(()) };
    let Some(report) = trust::own_report(member, state) else { return Ok(()) };
    match replacement.succession.step(&report) {
        Some(Step::Renew(planes)) => renew(member, node, &planes).await?,
        Some(Step::RemakeLinks) => renew_links(member).await?,
        None => {}
    }
    trust::tell(member, node).await
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
                .is_some_and(|(ends, days)| state.jobs.is_due(ends, days, *tried_s, now_s))
        })
        .collect();
    if due.is_empty() {
        return;
    }
    *tried_s = now_s;
    log::notice!("Certificates between nodes are to be renewed");
    if let Err(error) = renew(member, node, &due).await {
        log::warning!("Certificates between nodes were not renewed: {error:#}");
        let _ = tell(member, node, Some(format!("{error:#}"))).await;
    }
}

/// Links of others whose certificates have expired end, although they were in order when the links began.
fn end_expired(member: &Member) {
    let Some(channel) = member.server.internode.channel() else { return };
    for LinkInfo { peer, address, .. } in channel.node.end_expired() {
        log::warning!(
            "Ended a link with {}, whose certificate has expired: {address}",
            peer.identity
        );
    }
}

/// New keys and certificates for these planes, in use at once for new links; then the links that there are
/// come to use them too, one after the other.
async fn renew(member: &Arc<Member>, node: NodeUid, planes: &[Plane]) -> Result<()> {
    let Some(channel) = member.server.internode.channel() else {
        return begin_anew(member, node).await;
    };
    let (work, own, planes) = (Arc::clone(member), Arc::clone(&channel), planes.to_vec());
    let asked = planes.clone();
    let requests = blocking(move || {
        let begun = asked.iter().map(|plane| own.node.begin_renewal(&work.store, *plane));
        Ok(begun.collect::<Result<Vec<_>, _>>()?)
    })
    .await?;
    let certificates = signed(member, node, &requests.concat()).await?;
    anyhow::ensure!(certificates.len() == planes.len(), "not all that was asked for was signed");
    let work = Arc::clone(member);
    blocking(move || install(&work, &channel, &planes, &certificates)).await?;
    renew_links(member).await?;
    tell(member, node, None).await
}

fn install(
    member: &Member,
    channel: &Channel,
    planes: &[Plane],
    certificates: &[String],
) -> Result<()> {
    for (plane, pem) in planes.iter().zip(certificates) {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .ok()
            .context("what was signed is no certificate")?;
        channel.node.finish_renewal(&member.store, *plane, certificate)?;
        let serial = channel.node.credential(*plane).serial().clone();
        log::notice!("New certificate for the {plane} plane: serial {serial}");
    }
    Ok(())
}

/// A node whose certificates ended while it was away makes no links with them. Where it leads, alone, it needs
/// nobody for new ones.
async fn begin_anew(member: &Arc<Member>, node: NodeUid) -> Result<()> {
    let state = member.control.state();
    let cluster = state.cluster.as_ref().context("there is no cluster")?.id.clone();
    let work = Arc::clone(member);
    let pending = blocking(move || Ok(work.keys.request(&cluster, node)?)).await?;
    let certificates = signed(member, node, &pending.requests).await?;
    let authorities: Vec<String> =
        state.trusted_authorities().into_iter().map(|it| it.certificate.clone()).collect();
    member.keys.accept(&pending, &certificates, &authorities, state.revision)?;
    found::open_channel(member).await?;
    tell(member, node, None).await
}

/// Whoever leads signs.
async fn signed(member: &Member, node: NodeUid, requests: &str) -> Result<Vec<String>> {
    let ends = Instant::now() + SIGN_TIME;
    loop {
        match member.control.sign(node, requests).await {
            Ok(certificates) => return Ok(certificates),
            Err(error) if ends < Instant::now() => return Err(error.into()),
            // Somebody else may be about to lead.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Has the links that there are show the certificates of now.
async fn renew_links(member: &Arc<Member>) -> Result<()> {
    member.control.renew_links().await;
    let server = Arc::clone(&member.server);
    blocking(move || {
        internode::renew_links(&server);
        Ok(())
    })
    .await
}

/// Tells the cluster which certificates this node uses.
async fn tell(member: &Arc<Member>, node: NodeUid, failure: Option<String>) -> Result<()> {
    let mut certificates = Vec::new();
    for plane in Plane::ALL {
        certificates.push(described(&member.store.credential(plane)?, node, failure.clone())?);
    }
    for status in member.table.statuses(SystemTime::now()) {
        certificates.push(Certificate {
            name: status.name,
            node_uid: node,
            managed_by: status.managed_by,
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
