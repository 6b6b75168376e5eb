//! Certificates and authorities.

use carnelian_tls::internode::{Plane, Report};

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
    let never = json!({"cert_rotation_job_settings": {"cron_expression": "0 0 31 2 *"}});
    refused(&state, jobs(never), 400, "invalid_param");
    let report = json!({"bdb_usage_report_job_settings": {"enabled": true}});
    refused(&state, jobs(report), 406, "not_supported");
    let sundays = json!({"node_checks_job_settings": {"cron_expression": "0 3 * * sun"}});
    state.apply(jobs(sundays), AT).unwrap();
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

fn replace_authority(name: &str, id: &str) -> Change {
    Change::ReplaceAuthority { authority: Box::new(authority(name)), action: action(id) }
}

/// A node that trusts these and shows certificates of that one.
fn trust(node: u32, trusts: &[&str], shows: &str) -> Change {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let report = Report {
        trusts: names(trusts),
        can_sign: names(&["first", "second"]),
        leaves: Plane::ALL.map(|plane| (plane, shows.to_owned())).into(),
        old_links: 0,
    };
    Change::ReportTrust { node: NodeUid(node), report }
}

fn trusted(state: &State) -> Vec<&str> {
    state.trusted_authorities().into_iter().map(|it| it.fingerprint.as_str()).collect()
}

#[test]
fn another_authority_takes_over_as_nodes_report_and_who_leaves_holds_nobody_up() {
    let mut state = cluster(3);
    refused(&state, Change::KeepAuthority, 409, "no_rotation_running");
    refused(&state, replace_authority("first", "r"), 409, "authority_exists");
    state.apply(report(3, NodeStatus::Down), AT).unwrap();
    refused(&state, replace_authority("second", "r"), 400, "not_all_nodes_updated");
    state.apply(report(3, NodeStatus::Active), AT).unwrap();
    state.apply(replace_authority("second", "r"), AT).unwrap();
    refused(&state, replace_authority("third", "s"), 409, "action_running");
    // Certificates are rotated as ever.
    let rotate = Change::RotateCertificates { name: None, action: action("leaves") };
    state.apply(rotate, AT).unwrap();

    let both = ["first", "second"];
    let signer = |state: &State| state.signing_authority().unwrap().fingerprint.clone();
    let step = |state: &State| state.actions[&action("r")].step.clone();
    for node in 1..=3 {
        assert_eq!((trusted(&state), &*signer(&state)), (both.to_vec(), "first"));
        state.apply(trust(node, &both, "first"), AT).unwrap();
    }
    assert_eq!((&*signer(&state), &*step(&state)), ("second", "new_signs"));
    refused(&state, Change::KeepAuthority, 409, "rotation_too_far");
    state.apply(trust(1, &both, "second"), AT).unwrap();
    state.apply(trust(2, &both, "second"), AT).unwrap();
    // The third is away. What it shows is trusted for as long as it is a member.
    state.apply(report(3, NodeStatus::Down), AT).unwrap();
    assert_eq!((trusted(&state), &*step(&state)), (both.to_vec(), "new_signs"));
    state.apply(Change::RemoveNode { node: NodeUid(3), action: action("x") }, AT).unwrap();
    state.apply(Change::FinishAction { action: action("x"), error: None }, AT).unwrap();
    assert_eq!((trusted(&state), &*step(&state)), (vec!["second"], "leaves_renewed"));
    // Who joins in between reports too.
    state.apply(add_node("10.0.0.4"), AT).unwrap();
    state.apply(trust(1, &["second"], "second"), AT).unwrap();
    state.apply(trust(2, &["second"], "second"), AT).unwrap();
    assert_eq!(state.authorities.len(), 2);
    state.apply(trust(4, &["second"], "second"), AT).unwrap();
    assert_eq!(state.authorities, [authority("second")]);
    assert!(state.replacement.is_none());
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Completed);
    assert_eq!(state.apply(trust(1, &both, "first"), AT), Ok(Outcome::Unchanged));
}

#[test]
fn an_earlier_state_says_nothing_of_whom_to_trust_and_a_later_one_does_even_if_that_is_fewer() {
    let before = cluster(2);
    let mut state = before.clone();
    state.apply(replace_authority("second", "r"), AT).unwrap();
    let known = state.revision;
    assert_eq!(before.trusted_since(known), None);
    assert_eq!(state.trusted_since(known).unwrap().len(), 2);
    state.apply(Change::KeepAuthority, AT).unwrap();
    let after = state.trusted_since(known).unwrap();
    assert_eq!(after.iter().map(|it| &*it.fingerprint).collect::<Vec<_>>(), ["first"]);
}

#[test]
fn another_authority_can_be_given_up_until_it_signs() {
    let mut state = cluster(2);
    state.apply(replace_authority("second", "r"), AT).unwrap();
    state.apply(trust(1, &["first", "second"], "first"), AT).unwrap();
    state.apply(Change::KeepAuthority, AT).unwrap();
    assert_eq!(state.apply(Change::KeepAuthority, AT), Ok(Outcome::Unchanged));
    assert_eq!(state.actions[&action("r")].status, ActionStatus::Failed);
    assert_eq!(trusted(&state), ["first"]);
    refused(&state, replace_authority("third", "s"), 409, "action_running");
    for node in [1, 2] {
        state.apply(trust(node, &["first"], "first"), AT).unwrap();
    }
    assert_eq!(state.authorities, [authority("first")]);
    state.apply(replace_authority("third", "s"), AT).unwrap();
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
