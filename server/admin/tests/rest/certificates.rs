//! Certificates: shown, replaced, rotated.

use std::sync::atomic::Ordering;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use serde_json::{Value, json};

use crate::harness::{CA_SECRET, PASSWORD, Rig};

fn pair(change: impl Fn(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["own.example.com".into()]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

async fn serials(rig: &Rig) -> Vec<Value> {
    let answer = rig.get("/v1/cluster/certificates/status").await;
    answer.body.as_array().unwrap().iter().map(|row| row["serial"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_takes_both_verbs_and_names_only_what_is_internal() {
    let rig = Rig::created().await;
    let mut seen = serials(&rig).await;
    assert_eq!(seen.len(), 2);
    for (verb, body) in [
        ("PUT", ""),
        ("POST", ""),
        ("put", "{}"),
        ("POST", "null"),
        ("POST", r#"{"name": "data_internode_encryption"}"#),
    ] {
        let answer = rig.call(verb, "/v1/cluster/certificates/rotate", body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.body["action_uid"].is_string());
        let now = serials(&rig).await;
        assert_ne!(now[1], seen[1], "{verb} {body}");
        seen = now;
    }
    for name in ["proxy", "api", "nothing"] {
        let answer = rig.post("/v1/cluster/certificates/rotate", &json!({ "name": name })).await;
        answer.refuses(403, "unsupported_rotation");
    }
    assert_eq!(serials(&rig).await, seen);
    let events = rig.get("/v1/logs?order=desc&limit=50").await.body;
    assert!(
        events.as_array().unwrap().iter().any(|it| it["type"] == json!("internal_certs_rotated"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_is_replaced_by_its_name_alone_and_answered_for_when_that_is_done() {
    let rig = Rig::created().await;
    let answer =
        rig.post("/v1/cluster/certificates/rotate", &json!({"name": "internode_ca"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let uid = answer.body["action_uid"].as_str().unwrap();
    let action = rig.get(&format!("/v2/actions/{uid}")).await.body;
    assert_eq!(action["status"], "completed", "{action}");
    assert_eq!(action["additional_info"]["object_type"], "internode_ca", "{action}");
    let events = rig.get("/v1/logs?order=desc&limit=50").await.body;
    let is_told =
        |kind: &str| events.as_array().unwrap().iter().any(|it| it["type"] == json!(kind));
    assert!(is_told("internode_ca_rotation_started") && is_told("internode_ca_rotated"));
    // It is what there is now.
    let answer =
        rig.post("/v1/cluster/certificates/rotate", &json!({"name": "internode_ca"})).await;
    answer.refuses(409, "authority_exists");
    let answer = rig.call("DELETE", "/v1/cluster/certificates/internode_ca", "").await;
    answer.refuses(409, "no_rotation_running");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_fails_is_not_reported_as_done() {
    let rig = Rig::created().await;
    let before = serials(&rig).await;
    rig.live.fails.store(true, Ordering::Relaxed);
    let answer = rig.call("PUT", "/v1/cluster/certificates/rotate", "").await;
    answer.refuses(400, "not_all_nodes_updated");
    assert!(answer.body["description"].as_str().unwrap().contains("disk full"), "{answer:?}");
    assert_eq!(serials(&rig).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_and_internal_keys_are_never_shown() {
    let rig = Rig::created().await;
    let answer = rig.get("/v1/cluster/certificates").await;
    assert!(answer.body["proxy_cert"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    assert!(answer.body["proxy_key"].as_str().unwrap().contains("PRIVATE KEY"));
    for name in ["ccs_internode_encryption", "data_internode_encryption"] {
        assert!(answer.body.get(format!("{name}_cert")).is_none());
        assert!(answer.body.get(format!("{name}_key")).is_none());
    }
    rig.user("viewer@example.com", "cluster_viewer").await;
    let viewer = ("viewer@example.com", PASSWORD);
    let answer = rig.call_as(viewer, "GET", "/v1/cluster/certificates", "").await;
    assert_eq!(answer.status, 200);
    assert!(!answer.text.contains("PRIVATE KEY"));
    let paths = [
        "/v1/cluster",
        "/v1/cluster/certificates",
        "/v1/cluster/certificates/status",
        "/v1/nodes",
        "/v1/bootstrap",
        "/v1/logs",
        "/v1/audit",
        "/v1/users",
        "/v1/cluster/policy",
        "/v1/cluster/debuginfo",
        "/v1/nodes/1/debuginfo",
    ];
    for path in paths {
        let answer = rig.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text.contains(CA_SECRET), "{path}");
        assert!(!answer.text.contains("argon2"), "{path}");
        assert!(!answer.text.contains(PASSWORD), "{path}");
    }
    let status = rig.get("/v1/cluster/certificates/status").await;
    assert!(!status.text.contains("BEGIN"));
    let row = &status.body[0];
    assert_eq!(row["plane"], json!("control"));
    assert_eq!(row["managed_by"], json!("cluster"));
    assert_eq!(row["rotation_on_track"], json!(true));
    assert!(row["next_rotation"].is_string());
    assert!(44.9 < row["days_left"].as_f64().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_all_or_none() {
    let rig = Rig::created().await;
    let path = "/v1/cluster/certificates";
    let (good, key) = pair(|_| ());
    let (_, other) = pair(|_| ());
    let item = |name: &str, certificate: &str, key: &str| json!({"name": name, "certificate": certificate, "key": key});
    let list = |items: &[Value]| json!({ "certificates": items });
    let before = rig.get(path).await.body;
    let wrong_key = list(&[item("api", &good, &key), item("proxy", &good, &other)]);
    rig.put(path, &wrong_key).await.refuses(400, "invalid_certificate");
    let (expired, expired_key) = pair(|params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let answer = rig.put(path, &item("proxy", &expired, &expired_key)).await;
    answer.refuses(406, "certificate_expired");
    rig.put(path, &item("nothing", &good, &key)).await.refuses(403, "unknown_certificate");
    let (server, server_key) = pair(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let answer = rig.put(path, &item("proxy", &server, &server_key)).await;
    answer.refuses(400, "invalid_certificate");
    let answer = rig.put(path, &item("data_internode_encryption", &good, &key)).await;
    answer.refuses(403, "unknown_certificate");
    rig.put(path, &json!({"certificates": []})).await.refuses(400, "invalid_schema");
    rig.put(path, &json!({"name": "api"})).await.refuses(400, "invalid_schema");
    assert_eq!(rig.get(path).await.body, before, "none of these changed anything");

    let answer =
        rig.put(path, &list(&[item("api", &good, &key), item("proxy", &good, &key)])).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    assert_eq!(rig.get(path).await.body["api_cert"], json!(good));
    assert_eq!(rig.get("/v1/cluster").await.body["proxy_certificate"], json!(good));
    let (newer, newer_key) = pair(|_| ());
    let answer = rig.put("/v1/cluster/update_cert", &item("proxy", &newer, &newer_key)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(rig.get(path).await.body["proxy_cert"], json!(newer));
    assert!(!rig.audit_log().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_certificates_can_be_removed() {
    let rig = Rig::created().await;
    let (leaf, _) = pair(|_| ());
    let body = json!({"name": "mtls_trusted_ca", "certificate": leaf});
    rig.put("/v1/cluster/certificates", &body).await.refuses(400, "invalid_certificate");
    let (certificate, _) = pair(|params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let body = json!({"name": "mtls_trusted_ca", "certificate": certificate});
    assert_eq!(rig.put("/v1/cluster/certificates", &body).await.status, 200);
    let answer = rig.get("/v1/cluster/certificates").await;
    assert_eq!(answer.body["mtls_trusted_ca_cert"], json!(certificate));
    assert!(answer.body.get("mtls_trusted_ca_key").is_none());
    assert_eq!(rig.delete("/v1/cluster/certificates/mtls_trusted_ca").await.status, 200);
    assert_eq!(rig.delete("/v1/cluster/certificates/mtls_trusted_ca").await.status, 404);
    rig.delete("/v1/cluster/certificates/proxy").await.refuses(403, "required_certificate");
    rig.delete("/v1/cluster/certificates/nothing").await.refuses(404, "unknown_certificate");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rotation_job_can_be_set() {
    let rig = Rig::created().await;
    let answer = rig.get("/v1/job_scheduler").await;
    let job = &answer.body["cert_rotation_job_settings"];
    let expected =
        json!({"cron_expression": "0 * * * *", "enabled": true, "expiry_days_before_rotation": 15});
    assert_eq!(job, &expected);
    let path = "/v1/nodes/alerts/1/node_internal_certs_about_to_expire";
    assert_eq!(rig.get(path).await.body["state"], json!(false));
    // By the letter, 45 days are fewer than 45 as soon as a second has gone.
    let raw = format!("{path}?ignore_settings=true&raw=true");
    while rig.get(&raw).await.body["state"] == json!(false) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let off = json!({"cert_rotation_job_settings": {"enabled": false}});
    let answer = rig.put("/v1/job_scheduler", &off).await;
    let job = &answer.body["cert_rotation_job_settings"];
    assert_eq!((&job["enabled"], &job["cron_expression"]), (&json!(false), &json!("0 * * * *")));
    let alert = rig.get(path).await.body;
    assert_eq!(alert["state"], json!(true), "{alert}");
    assert_eq!(alert["severity"], json!("WARNING"));
    assert_eq!(alert["threshold"], json!("45"));
    assert_eq!(alert["change_value"]["rotation_on_track"], json!(false));
    assert_eq!(alert["change_value"]["certs_about_to_expire"].as_array().unwrap().len(), 2);
    let body = json!({"cert_rotation_job_settings": {"expiry_days_before_rotation": 45}});
    assert_eq!(rig.put("/v1/job_scheduler", &body).await.status, 406);
    let body = json!({"cert_rotation_job_settings": {"expiry_days_before_rotation": "x"}});
    rig.put("/v1/job_scheduler", &body).await.refuses(400, "invalid_schema");
}
