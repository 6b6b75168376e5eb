//! Making a cluster of a fresh node.

use serde_json::json;

use crate::harness::{PASSWORD, Rig, USER};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_node_answers_only_about_itself_and_becomes_a_cluster() {
    let rig = Rig::fresh().await;
    let answer = rig.nobody("GET", "/v1/bootstrap", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["bootstrap_status"], json!({"state": "idle"}));
    let node = &answer.body["local_node_info"];
    assert_eq!(node["available_addrs"], node["available_addresses"]);
    assert_eq!(node["available_addrs"][0]["format"], json!("ipv4"));
    rig.nobody("GET", "/v1/cluster", "").await.refuses(503, "not_bootstrapped");
    rig.nobody("GET", "/v1/bdbs", "").await.refuses(503, "not_bootstrapped");

    rig.create().await;
    let again = json!({"cluster": {"name": "d.local"},
        "credentials": {"username": USER, "password": PASSWORD}});
    let answer = rig.post("/v1/bootstrap/create_cluster", &again).await;
    answer.refuses(409, "bootstrap_in_progress");
    let answer = rig.nobody("GET", "/v1/cluster", "").await;
    answer.refuses(401, "unauthorized");
    assert_eq!(answer.headers["www-authenticate"], "Basic realm=\"carnelian\"");
    rig.nobody("GET", "/v1/bootstrap", "").await.refuses(401, "unauthorized");
    let answer = rig.get("/v1/cluster").await;
    assert_eq!((answer.status, &answer.body["name"]), (200, &json!("c.local")));
    assert_eq!(answer.body["status"], json!("active"));
    assert_eq!(answer.body["ccs_internode_encryption"], json!(true));
    assert_eq!(answer.body["data_cipher_suites_tls_1_3"], json!([]));
    let answer = rig.get("/v1/bootstrap").await;
    assert_eq!(answer.body["local_node_info"]["uid"], json!("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_join_is_told_of_and_can_be_followed_by_a_cluster_of_ones_own() {
    let rig = Rig::fresh().await;
    let body = json!({"cluster": {"nodes": ["192.0.2.1"]},
        "credentials": {"username": USER, "password": PASSWORD}});
    let answer = rig.nobody("POST", "/v1/bootstrap/join", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let status = loop {
        let answer = rig.nobody("GET", "/v1/bootstrap", "").await;
        let status = answer.body["bootstrap_status"].clone();
        if status["state"] == json!("error") {
            break status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(status["error_code"], json!("connect_error"));
    assert!(status["error_details"]["message"].as_str().unwrap().contains("192.0.2.1"));
    rig.create().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_checked_without_doing_anything() {
    let rig = Rig::fresh().await;
    let good = json!({"cluster": {"name": "c.local"},
        "credentials": {"username": USER, "password": PASSWORD}});
    let path = "/v1/bootstrap/validate/create_cluster";
    let answer = rig.nobody("POST", path, &good.to_string()).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "{}"));
    let answer = rig.nobody("POST", path, "{}").await;
    assert_eq!(answer.status, 406);
    assert_eq!(answer.body["state"], json!("error"));
    assert_eq!(answer.body["error_code"], json!("config_error"));
    let body = json!({"action": "join_cluster", "name": "c.local"}).to_string();
    rig.nobody("POST", "/v1/bootstrap/create_cluster", &body).await.refuses(400, "invalid_schema");
    rig.nobody("POST", "/v1/bootstrap", "{}").await.refuses(400, "invalid_schema");
    assert!(rig.control.state().cluster.is_none());
}
