//! `/v1/cluster/certificates`: what the nodes show, replacing it, and new certificates between nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use carnelian_cluster::state::{
    AUTHORITY_NAME, ActionStatus, CLIENT_AUTHORITY_NAME, Certificate, CertificateName, Change,
    ManagedBy, NodeStatus, Outcome, SharedCertificate, State, Time,
};
use carnelian_tls::CertificateInfo;
use carnelian_tls::certificates::{CertificateError, Kind, Provided, Shared};
use carnelian_tls::internode::RotationHealth;
use carnelian_tls::rustls::pki_types::CertificateDer;
use carnelian_tls::rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::admin::{Admin, action_id};
use crate::answer::{Answer, Refusal, Reply};
use crate::auth::Right;
use crate::bootstrap::{flag, text};
use crate::request::Request;
use crate::routes::{Route, Run, delete, get, later, post, put};
use crate::time;

pub const ROUTES: &[Route] = &[
    get("/v1/cluster/certificates", Right::See, Run::Now(show), "Certificates, as PEM"),
    put("/v1/cluster/certificates", Right::Cluster, later!(replace), "Replace certificates"),
    put("/v1/cluster/update_cert", Right::Cluster, later!(replace), "Replace one certificate"),
    put(
        "/v1/cluster/certificates/rotate",
        Right::Cluster,
        later!(rotate),
        "New certificates between nodes: all of them, or those of a name",
    ),
    post(
        "/v1/cluster/certificates/rotate",
        Right::Cluster,
        later!(rotate),
        "New certificates between nodes: all of them, or those of a name",
    ),
    get(
        "/v1/cluster/certificates/status",
        Right::See,
        Run::Now(status),
        "What each node uses, without the certificates themselves",
    ),
    get(
        "/v1/cluster/certificates/client_ca",
        Right::See,
        Run::Now(client_authorities),
        "The authorities that clients know the nodes by",
    ),
    delete(
        "/v1/cluster/certificates/{name}",
        Right::Cluster,
        later!(remove),
        "Remove an optional certificate",
    ),
];

/// What clients see, with keys for those who may see them. What nodes have made for use between each other is not
/// here, of what was provided for that the certificate alone is, and the authority that signs is nowhere.
fn show(admin: &Admin, request: &Request) -> Reply {
    let table = admin.live.certificates();
    let mut wire = Map::new();
    let state = admin.state();
    for name in CertificateName::ALL {
        if let Some(provided) = state.provided_between_nodes(name) {
            wire.insert(format!("{name}_cert"), json!(provided.certificate));
        }
        let Some(certificate) = table.get(name).filter(|_| name.kind() != Kind::Internal) else {
            continue;
        };
        wire.insert(format!("{name}_cert"), json!(certificate.certificate_pem()));
        if request.caller.may(Right::Keys)
            && let Some(key) = certificate.key_pem()
        {
            wire.insert(format!("{name}_key"), json!(key));
        }
    }
    Ok(Value::Object(wire).into())
}

async fn replace(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let items = match body.get("certificates") {
        Some(Value::Array(items)) => items.clone(),
        Some(_) => return Err(Refusal::schema("certificates: a list is expected")),
        // One client sends the one certificate as it is.
        None => vec![Value::Object(body)],
    };
    if items.is_empty() {
        return Err(Refusal::schema("certificates: at least one is needed"));
    }
    let provided: Vec<Provided> = items.iter().map(provided).collect::<Result<_, _>>()?;
    // All of them are judged before anything is changed.
    let checked = admin
        .live
        .certificates()
        .check(&provided, SystemTime::now())
        .map_err(|error| refusal(&error))?;
    let mut changes = BTreeMap::new();
    for shared in checked {
        changes.insert(shared.name.to_string(), sealed(&admin, &shared)?);
    }
    admin.change(Change::SetCertificates(changes.clone())).await?;
    in_use(&admin, &changes).await?;
    Ok(Answer::empty())
}

/// Waits until what the cluster has agreed on is shown: by this node or, between nodes, by all that are there.
async fn in_use(
    admin: &Admin,
    changes: &BTreeMap<String, SharedCertificate>,
) -> Result<(), Refusal> {
    let table = admin.live.certificates();
    let is_for_all =
        changes.keys().any(|name| name.parse().is_ok_and(CertificateName::is_internal));
    let attempts = if is_for_all { ATTEMPTS_OF_ALL } else { ATTEMPTS };
    for _ in 0..attempts {
        let state = admin.state();
        let shows = |(name, shared): (&String, &SharedCertificate)| {
            if let Ok(name) = name.parse::<CertificateName>()
                && name.is_internal()
            {
                return are_shown_between_nodes(&state, name, shared);
            }
            let entry = name.parse().ok().and_then(|name| table.get(name));
            entry.is_some_and(|entry| entry.certificate_pem() == shared.certificate)
        };
        if changes.iter().all(shows) {
            return Ok(());
        }
        tokio::time::sleep(GLANCE).await;
    }
    let why = "Not all nodes have taken the certificates up in time";
    Err(Refusal::new(409, "not_all_nodes_updated", why))
}

fn are_shown_between_nodes(
    state: &State,
    name: CertificateName,
    shared: &SharedCertificate,
) -> bool {
    let leaf = CertificateDer::from_pem_slice(shared.certificate.as_bytes()).ok();
    let Some(info) = leaf.and_then(|leaf| CertificateInfo::of(&leaf).ok()) else { return false };
    let wanted = info.sha256_hex();
    let mut present = state.nodes.values().filter(|node| node.status == NodeStatus::Active);
    present.all(|node| {
        let mut rows = state.certificates.iter();
        rows.any(|it| it.node_uid == node.uid && it.name == name && it.sha256 == wanted)
    })
}

const GLANCE: Duration = Duration::from_millis(20);
const ATTEMPTS: u32 = 250;

fn provided(item: &Value) -> Result<Provided, Refusal> {
    let Value::Object(item) = item else {
        return Err(Refusal::schema("certificates: a list of objects is expected"));
    };
    let needed =
        |name: &str| text(item, name)?.ok_or_else(|| Refusal::schema(format!("{name} is needed")));
    Ok(Provided {
        name: needed("name")?,
        certificate: needed("certificate")?,
        key: text(item, "key")?.map(Zeroizing::new),
    })
}

/// As it goes into the state, where keys are sealed.
fn sealed(admin: &Admin, shared: &Shared) -> Result<SharedCertificate, Refusal> {
    let key = match &shared.key {
        Some(key) => Some(admin.live.seal(key)?),
        None => None,
    };
    let seconds = |at: i64| Time(u64::try_from(at).unwrap_or(0).saturating_mul(1000));
    Ok(SharedCertificate {
        certificate: shared.certificate.clone(),
        key,
        managed_by: ManagedBy::Customer,
        not_after: seconds(end_of(&shared.certificate).unwrap_or(0)),
        changed: seconds(time::now_s()),
    })
}

fn refusal(error: &CertificateError) -> Refusal {
    let status = match error {
        CertificateError::Invalid { .. } | CertificateError::Twice(_) => 400,
        CertificateError::Expired { .. } => 406,
        CertificateError::NotSet(_) => 404,
        CertificateError::Unknown(_)
        | CertificateError::Internal(_)
        | CertificateError::Required(_) => 403,
        CertificateError::Store(_) => 500,
    };
    Refusal::new(status, error.code(), error.to_string())
}

/// When a certificate ends, in seconds since 1970.
pub fn end_of(pem: &str) -> Option<i64> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(CertificateInfo::of(&certificate).ok()?.not_after)
}

/// Answers when every node has its new certificates, or one has failed.
async fn rotate(admin: Arc<Admin>, request: Request) -> Reply {
    let body = request.object()?;
    let name = text(&body, "name")?;
    if name.as_deref() == Some(CLIENT_AUTHORITY_NAME) {
        return replace_client_authority(admin, flag(&body, "complete")?.unwrap_or(false)).await;
    }
    let action = action_id()?;
    let change = match name.as_deref() {
        // Without a name it is the leaves alone.
        Some(AUTHORITY_NAME) => {
            let authority = Box::new(admin.live.new_authority().await?);
            Change::ReplaceAuthority { authority, action: action.clone() }
        }
        _ => Change::RotateCertificates { name, action: action.clone() },
    };
    let action = match admin.change(change).await? {
        Outcome::Action(begun) => begun,
        _ => action,
    };
    match admin.finished(&action).await? {
        Some(done) if done.status == ActionStatus::Failed => {
            let why = done.error.unwrap_or_else(|| "a node could not be updated".into());
            let mut refusal = Refusal::new(400, "not_all_nodes_updated", why);
            refusal.more.insert("action_uid".into(), json!(action));
            Err(refusal)
        }
        _ => Ok(json!({ "action_uid": action }).into()),
    }
}

/// Adds a successor, which clients are told of; or, with `complete`, has that sign, and answers when the one before it
/// is trusted no longer.
async fn replace_client_authority(admin: Arc<Admin>, complete: bool) -> Reply {
    if !complete {
        admin.live.add_client_authority().await?;
        return listed(&admin.state());
    }
    let from = admin.state().client_authorities.listed.first().map(|it| it.fingerprint.clone());
    let from = from.unwrap_or_default();
    admin.change(Change::SwitchClientAuthority { from: from.clone(), complete }).await?;
    for _ in 0..ATTEMPTS_OF_ALL {
        let state = admin.state();
        if !state.client_authorities.listed.iter().any(|it| it.fingerprint == from) {
            return listed(&state);
        }
        tokio::time::sleep(GLANCE).await;
    }
    let why = "The successor signs; the first goes when no node shows anything of it";
    Err(Refusal::new(409, "not_all_nodes_updated", why))
}

const ATTEMPTS_OF_ALL: u32 = 1_000;

fn client_authorities(admin: &Admin, _: &Request) -> Reply {
    listed(&admin.state())
}

fn listed(state: &State) -> Reply {
    let none = || Refusal::new(503, "client_ca_not_ready", "The cluster has no client CA yet");
    let broken =
        |error: &dyn std::fmt::Display| Refusal::new(500, "internal_error", error.to_string());
    let trust = state.client_authorities.trust().ok_or_else(none)?;
    let trust = trust.map_err(|error| broken(&error))?;
    let rows = trust.infos().into_iter().zip(trust.server_ca_certs()).map(|(info, text)| {
        json!({
            "serialNumber": info.serial,
            "cert": text,
            "createTime": time::format(info.not_before),
            "expireTime": time::format(info.not_after),
            "sha1Fingerprint": info.sha1_hex(),
        })
    });
    let rows: Vec<_> = rows.collect();
    Ok(json!({ "serverCaCerts": rows, "signer": trust.signer().serial }).into())
}

async fn remove(admin: Arc<Admin>, request: Request) -> Reply {
    let name = request.parameter("name");
    if name == AUTHORITY_NAME {
        admin.change(Change::KeepAuthority).await?;
        return Ok(Answer::empty());
    }
    let name: CertificateName = name.parse().map_err(|_| {
        Refusal::not_found("unknown_certificate", format!("There is no certificate {name:?}"))
    })?;
    admin.change(Change::DropCertificate(name)).await?;
    Ok(Answer::empty())
}

fn status(admin: &Admin, _: &Request) -> Reply {
    let state = admin.state();
    let now_s = time::now_s();
    let rows: Vec<_> = state.certificates.iter().map(|it| row(&state, it, now_s)).collect();
    Ok(Value::Array(rows).into())
}

fn row(state: &State, certificate: &Certificate, now_s: i64) -> Value {
    let rotation = Rotation::of(state, certificate, now_s);
    let mut row = json!({
        "name": certificate.name.as_str(),
        "node_uid": certificate.node_uid.0,
        "plane": certificate.name.plane(),
        "managed_by": certificate.managed_by,
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "serial": certificate.serial,
        "sha256": certificate.sha256,
        "key_type": certificate.key_type,
        "not_before": certificate.not_before.to_string(),
        "not_after": certificate.not_after.to_string(),
        "days_left": rotation.days_left(),
        "rotation_on_track": rotation.is_on_track(),
    });
    if let Some(at) = rotation.next_s {
        row["next_rotation"] = json!(time::format(at));
    }
    if let Some(failure) = &certificate.failure {
        row["failure"] = json!(failure);
    }
    row
}

/// When a certificate is due, and whether that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    now_s: i64,
    not_after_s: i64,
    /// None for what is not rotated by itself.
    pub next_s: Option<i64>,
    health: RotationHealth,
}

const DAY_S: i64 = 86_400;

impl Rotation {
    pub fn of(state: &State, certificate: &Certificate, now_s: i64) -> Self {
        let not_after_s = i64::try_from(certificate.not_after.seconds()).unwrap_or(i64::MAX);
        let life_days =
            certificate.not_after.since(certificate.not_before).as_secs() / DAY_S as u64;
        let is_rotated =
            certificate.name.is_internal() && certificate.managed_by == ManagedBy::Cluster;
        let life_days = u32::try_from(life_days).unwrap_or(u32::MAX);
        // What clients see is not up to the job: its nodes have it signed anew by themselves.
        let is_for_clients = certificate.managed_by == ManagedBy::ClientCa;
        let next_s = match is_for_clients {
            true => Some(carnelian_tls::certificates::renewal_of(not_after_s)),
            false => state.jobs.renews_at(not_after_s, life_days).filter(|_| is_rotated),
        };
        Self {
            now_s,
            not_after_s,
            next_s,
            health: RotationHealth {
                job_enabled: is_for_clients || state.jobs.cert_rotation_job_settings.enabled,
                last_attempt_failed: certificate.failure.is_some(),
            },
        }
    }

    pub fn days_left(&self) -> f64 {
        let days = (self.not_after_s - self.now_s) as f64 / DAY_S as f64;
        (days * 100.0).round() / 100.0
    }

    /// Whether it will be replaced in time without anybody doing anything.
    pub fn is_on_track(&self) -> bool {
        let in_time = self.next_s.filter(|next_s| *next_s < self.not_after_s);
        in_time.is_some_and(|next_s| self.health.is_on_track(next_s, self.now_s))
    }

    /// Whether an alert about it is due, at so many days.
    pub fn is_alarming(&self, threshold_days: f64) -> bool {
        self.is_short(threshold_days) && !self.is_on_track()
    }

    /// The same without regard to rotation.
    pub fn is_short(&self, threshold_days: f64) -> bool {
        ((self.not_after_s - self.now_s) as f64) < threshold_days * DAY_S as f64
    }
}

#[cfg(test)]
mod tests {
    use carnelian_cluster::state::NodeUid;

    use super::*;

    fn at_day(life: i64, day: f64, job_runs: bool, failure: Option<&str>) -> Rotation {
        let mut state = State::default();
        state.jobs.cert_rotation_job_settings.enabled = job_runs;
        Rotation::of(&state, &certificate(life, failure), (day * DAY_S as f64) as i64)
    }

    fn certificate(life: i64, failure: Option<&str>) -> Certificate {
        Certificate {
            name: CertificateName::DataInternodeEncryption,
            node_uid: NodeUid(1),
            managed_by: ManagedBy::Cluster,
            subject: String::new(),
            issuer: String::new(),
            serial: String::new(),
            sha256: String::new(),
            key_type: String::new(),
            not_before: Time(0),
            not_after: Time((life * DAY_S * 1000) as u64),
            failure: failure.map(str::to_owned),
        }
    }

    #[test]
    fn with_the_job_running_there_is_no_alert() {
        for day in [0.0, 15.0, 30.0, 30.9] {
            assert!(!at_day(45, day, true, None).is_alarming(45.0), "{day}");
        }
        // Due for a day and still there: something is wrong.
        assert!(at_day(45, 31.1, true, None).is_alarming(45.0));
        assert_eq!(at_day(45, 0.0, true, None).next_s, Some(30 * DAY_S));
        assert_eq!(at_day(90, 0.0, true, None).next_s, Some(30 * DAY_S));
    }

    #[test]
    fn without_the_job_or_after_a_failure_there_is_one() {
        assert!(at_day(45, 0.1, false, None).is_alarming(45.0));
        assert!(at_day(45, 30.0, true, Some("disk full")).is_alarming(45.0));
        assert!(!at_day(90, 44.9, false, None).is_alarming(45.0));
        assert!(at_day(90, 45.1, false, None).is_alarming(45.0));
    }

    #[test]
    fn a_job_that_runs_too_late_is_no_comfort() {
        let mut state = State::default();
        state.jobs.cert_rotation_job_settings.cron_expression = "0 0 1 3 *".into();
        let certificate = certificate(45, None);
        let rotation = Rotation::of(&state, &certificate, DAY_S);
        assert_eq!(rotation.next_s, Some(59 * DAY_S), "the 1st of March, after its end");
        assert!(rotation.is_alarming(45.0));
    }

    #[test]
    fn the_letter_of_the_rule_can_be_asked_for() {
        assert!(at_day(45, 0.1, true, None).is_short(45.0));
        assert!(!at_day(90, 44.9, true, None).is_short(45.0));
    }
}
