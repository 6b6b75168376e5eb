//! Certificates and authorities.

use super::*;

#[test]
fn certificates_are_rotated_thirty_days_after_they_were_made() {
    let mut state = cluster(1);
    assert_eq!(state.jobs.days_before_rotation(45), 15);
    assert_eq!(state.jobs.days_before_rotation(90), 60);
    let jobs = |value| Change::SetJobs(JobsPatch(value));
    let rotation =
        |days: u32| json!({"cert_rotation_job_settings": {"expiry_days_before_rotation": days}});
    refused(&state, jobs(rotation(0)), 400, "invalid_param");
    refused(&state, jobs(rotation(91)), 400, "invalid_param");
    refused(&state, jobs(rotation(45)), 406, "invalid_param");
    refused(&state, jobs(json!({"none": {}})), 400, "invalid_param");
    refused(&state, jobs(json!({"backup_job_settings": 1})), 400, "invalid_schema");
    refused(&state, jobs(json!([])), 400, "invalid_schema");
    let cron = json!({"backup_job_settings": {"cron_expression": "every day"}});
    refused(&state, jobs(cron), 400, "invalid_param");
    let wrong = json!({"backup_job_settings": {"enabled": "yes"}});
    refused(&state, jobs(wrong), 400, "invalid_schema");
    state.apply(jobs(rotation(20)), AT).unwrap();
    assert!(state.jobs.cert_rotation_job_settings.enabled);
    assert_eq!(state.jobs.days_before_rotation(45), 20);
    let patch = ClusterPatch { internal_cert_validity_days: Some(20), ..ClusterPatch::default() };
    let change = Change::SetCluster { patch: Box::new(patch), alerts: BTreeMap::new() };
    refused(&state, change, 406, "invalid_param");
}

#[test]
fn certificates_are_rotated_on_all_nodes_or_not_at_all() {
    let mut state = cluster(2);
    let rotate = |name: Option<&str>, id: &str| Change::RotateCertificates {
        name: name.map(str::to_owned),
        action: action(id),
    };
    refused(&state, rotate(Some("proxy"), "r"), 403, "unsupported_rotation");
    refused(&state, rotate(Some("none"), "r"), 403, "unsupported_rotation");
    state.apply(rotate(Some("data_internode_encryption"), "r"), AT).unwrap();
    refused(&state, rotate(None, "s"), 409, "action_running");
    state.apply(report(2, NodeStatus::Down), AT).unwrap();
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Failed);
    refused(&state, rotate(None, "s"), 400, "not_all_nodes_updated");
    state.apply(report(2, NodeStatus::Active), AT).unwrap();
    state.apply(rotate(None, "s"), AT).unwrap();
    confirm(&mut state, "s");
    assert_eq!(state.actions[&action("s")].status, ActionStatus::Completed);
}

#[test]
fn shared_certificates_are_replaced_all_or_none() {
    let mut state = cluster(1);
    let set = |list: &[(&str, SharedCertificate)]| {
        let list = list.iter().map(|(name, one)| ((*name).to_owned(), one.clone()));
        Change::SetCertificates(list.collect())
    };
    let expired = SharedCertificate { not_after: AT, ..certificate() };
    let text = SharedCertificate { certificate: "text".into(), ..certificate() };
    refused(&state, set(&[]), 400, "missing_field");
    refused(&state, set(&[("none", certificate())]), 403, "unknown_certificate");
    refused(&state, set(&[("api", certificate()), ("cm", text)]), 400, "invalid_certificate");
    refused(&state, set(&[("api", certificate()), ("cm", expired)]), 406, "certificate_expired");
    let drop = Change::DropCertificate;
    refused(&state, drop(CertificateName::Proxy), 403, "required_certificate");
    refused(&state, drop(CertificateName::MtlsTrustedCa), 404, "certificate_not_exist");
    state.apply(set(&[("mtls_trusted_ca", certificate())]), AT).unwrap();
    let on =
        ClusterPatch { mtls_certificate_authentication: Some(true), ..ClusterPatch::default() };
    let change = Change::SetCluster { patch: Box::new(on), alerts: BTreeMap::new() };
    state.apply(change, AT).unwrap();
    refused(&state, drop(CertificateName::MtlsTrustedCa), 403, "required_certificate");
    state.apply(set(&[("data_internode_encryption", certificate())]), AT).unwrap();
    let named = Some("data_internode_encryption".to_owned());
    let rotate = Change::RotateCertificates { name: named, action: action("r") };
    refused(&state, rotate, 403, "unsupported_rotation");
}

#[test]
fn authorities_overlap_two_at_a_time() {
    let mut state = cluster(1);
    refused(&state, Change::DropOldAuthority, 409, "no_rotation_running");
    state.apply(Change::AddAuthority(authority("second")), AT).unwrap();
    refused(&state, Change::AddAuthority(authority("third")), 409, "rotation_running");
    state.apply(Change::DropOldAuthority, AT).unwrap();
    assert_eq!(state.authorities, [authority("second")]);
}

#[test]
fn nodes_report_only_their_own_certificates() {
    let state = cluster(1);
    let one = Certificate {
        name: CertificateName::DataInternodeEncryption,
        node_uid: NodeUid(2),
        managed_by: ManagedBy::Cluster,
        subject: String::new(),
        issuer: String::new(),
        serial: String::new(),
        sha256: String::new(),
        key_type: String::new(),
        not_before: AT,
        not_after: AT,
        failure: None,
    };
    let report = |node| Change::ReportCertificates { node, certificates: vec![one.clone()] };
    refused(&state, report(NodeUid(1)), 400, "invalid_schema");
    refused(&state, report(NodeUid(2)), 404, "node_not_exist");
}
