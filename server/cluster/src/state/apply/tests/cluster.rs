//! The cluster itself: its beginning, its settings, work that ends.

use super::*;

#[test]
fn a_cluster_is_created_once_and_from_sound_words() {
    let empty = State::default();
    let with = |change: fn(&mut CreateCluster)| {
        let mut new = new_cluster();
        change(&mut new);
        Change::CreateCluster(Box::new(new))
    };
    refused(&empty, add_node("10.0.0.2"), 503, "not_bootstrapped");
    refused(&empty, with(|new| new.name = "-bad".into()), 400, "config_error");
    refused(&empty, with(|new| new.name = "x".repeat(65)), 400, "config_error");
    refused(&empty, with(|new| new.id = "short".into()), 400, "config_error");
    refused(&empty, with(|new| new.admin.email = "nobody".into()), 400, "invalid_email");
    refused(&empty, with(|new| new.admin.email = "a<b@c".into()), 400, "invalid_email");
    refused(&empty, with(|new| new.admin.password.clear()), 400, "missing_field");
    refused(&cluster(1), with(|_| ()), 409, "cluster_exists");

    let state = cluster(1);
    assert_eq!(state.roles.len(), 6);
    assert_eq!(state.redis_acls.len(), 3);
    let admin = &state.users[&UserUid(1)];
    assert_eq!(state.management(admin), Management::Admin);
    assert_eq!(state.nodes[&NodeUid(1)].status, NodeStatus::Active);
}

#[test]
fn settings_of_the_cluster_stay_in_their_bounds() {
    let state = cluster(1);
    let set = |patch| Change::SetCluster { patch: Box::new(patch), alerts: BTreeMap::new() };
    let case = |json: serde_json::Value, code: &str| {
        refused(&state, set(ClusterPatch::parse(&json, true).unwrap()), 400, code);
    };
    case(json!({"cm_port": 80}), "bad_nginx_conf");
    case(json!({"cm_port": 9443}), "bad_nginx_conf");
    case(json!({"internal_cert_validity_days": 1}), "invalid_param");
    case(json!({"internal_cert_validity_days": 366}), "invalid_param");
    case(json!({"password_min_length": 7}), "invalid_param");
    case(json!({"cm_session_timeout_minutes": 0}), "invalid_param");
    case(json!({"reserved_ports": ["2-1"]}), "invalid_param");
    case(json!({"mtls_authorized_subjects": [{"CN": ""}]}), "invalid_param");
    case(json!({"mtls_certificate_authentication": true}), "missing_certificate");
    case(json!({"debuginfo_path": "a\u{0}"}), "bad_debuginfo_path");
    case(json!({"control_cipher_suites": "AES128-SHA"}), "invalid_param");
    case(json!({"data_cipher_list": "HIGH:NO-SUCH-SUITE"}), "invalid_param");
    case(json!({"data_cipher_suites_tls_1_3": "A:B"}), "invalid_param");
    assert!(ClusterPatch::parse(&json!({"cm_port": "x"}), false).is_err());
    let both = json!({"data_cipher_suites_tls_1_3": "A:B"});
    let patch = ClusterPatch::parse(&both, true).unwrap();
    assert_eq!(patch.data_cipher_suites_tls_1_3.unwrap(), ["A", "B"]);

    let alert = |name: &str, patch: serde_json::Value| Change::SetCluster {
        patch: Box::default(),
        alerts: BTreeMap::from([(name.to_owned(), serde_json::from_value(patch).unwrap())]),
    };
    refused(&state, alert("none", json!(true)), 404, "alert_not_exist");
    refused(&state, alert("node_memory", json!({"threshold": "x"})), 406, "invalid_threshold");
    let mut state = state.clone();
    state.apply(alert("node_memory", json!({"threshold": 80})), AT).unwrap();
    let setting = &state.cluster.as_ref().unwrap().alert_settings["node_memory"];
    assert_eq!((setting.enabled(), setting.threshold()), (false, Some("80")));

    let policy = |patch| Change::SetPolicy(Box::new(patch));
    let percent =
        PolicyPatch { redis_migrate_node_threshold_p: Some(101), ..PolicyPatch::default() };
    refused(&state, policy(percent), 400, "invalid_param");
    let version = Some("5.0".to_owned());
    let version =
        PolicyPatch { default_provisioned_redis_version: version, ..PolicyPatch::default() };
    refused(&state, policy(version), 400, "invalid_version");
}

#[test]
fn actions_end_once_and_are_forgotten_in_time() {
    let mut state = with_database(1, json!({}));
    let unknown = Change::FinishAction { action: action("none"), error: None };
    refused(&state, unknown, 404, "action_not_exist");
    let again = Change::FinishAction { action: action("create"), error: Some("late".into()) };
    assert_eq!(state.apply(again, AT), Ok(Outcome::Unchanged));
    let later = Time(AT.0 + 3_599_000);
    assert_eq!(state.apply(Change::Tidy, later), Ok(Outcome::Unchanged));
    assert_eq!(state.apply(Change::Tidy, Time(AT.0 + 3_600_000)), Ok(Outcome::Done));
    assert!(state.actions.is_empty());
}
