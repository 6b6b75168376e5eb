//! What is only looked at: nodes, shards, figures, alerts, logs, licence, the description.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_shards_are_shown() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let node = rig.get("/v1/nodes/1").await.body;
    assert_eq!(node["uid"], json!(1));
    assert_eq!(node["status"], json!("active"));
    assert_eq!(node["shard_list"], json!([1]));
    assert_eq!(node["max_redis_servers"], json!(100));
    assert_eq!(rig.get("/v1/nodes?fields=uid").await.body, json!([{"uid": 1}]));
    let status = rig.get("/v1/nodes/1/status").await.body;
    assert_eq!((&status["role"], &status["master_shards"]), (&json!("master"), &json!(1)));
    assert_eq!(status["free_ram"], json!(1u64 << 30));
    assert!(rig.get("/v1/nodes/status").await.body["1"].is_object());
    rig.get("/v1/nodes/9").await.refuses(404, "node_not_found");
    let answer = rig.put("/v1/nodes/1", &json!({"rack_id": "r1"})).await;
    assert_eq!(answer.body["rack_id"], json!("r1"), "{answer:?}");
    let shard =
        rig.get("/v1/shards/1?extra_info_keys=redis_version&extra_info_keys=none").await.body;
    assert_eq!((&shard["uid"], &shard["bdb_uid"]), (&json!("1"), &json!(1)));
    assert_eq!((&shard["node_uid"], &shard["role"]), (&json!("1"), &json!("master")));
    assert_eq!(shard["redis_info"], json!({"redis_version": "8.0.6"}));
    assert_eq!(rig.get("/v1/bdbs/1/shards").await.body.as_array().unwrap().len(), 1);
    assert_eq!(rig.get("/v1/bdbs/1/endpoints").await.body[0]["uid"], json!("1:1"));
    rig.get("/v1/shards/9").await.refuses(404, "shard_not_exist");
    let failover = |body| async {
        let body: Value = body;
        rig.post("/v1/shards/actions/failover", &body).await
    };
    failover(json!({})).await.refuses(404, "shard_uids_required");
    failover(json!({"shard_uids": ["9"]})).await.refuses(404, "shard_not_exist");
    failover(json!({"shard_uids": "1"})).await.refuses(400, "invalid_schema");
    failover(json!({"shard_uids": ["1"]})).await.refuses(400, "no_replica");
    let check = rig.get("/v1/cluster/check").await.body;
    assert_eq!(
        check,
        json!({"cluster_test_result": true, "nodes": [{"node_uid": 1, "result": true}]})
    );
    assert_eq!(rig.get("/v1/nodes/check/1").await.body["result"], json!(true));
    assert_eq!(rig.get("/v1/nodes/actions").await.body, json!({"actions": []}));
    assert_eq!(rig.get("/v1/proxies/1").await.body["uid"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_have_their_shapes_and_are_measured() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let empty = rig.get("/v1/cluster/stats").await.body;
    assert!(empty["intervals"].is_array());
    for _ in 0..100 {
        if rig.get("/v1/bdbs/stats/last/1").await.body["1"]["conns"].is_number() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let last = rig.get("/v1/bdbs/stats/last/1?interval=1sec").await.body;
    assert_eq!(last["1"]["conns"], json!(3.0), "{last}");
    assert_eq!(last["1"]["used_memory"], json!(950_000_000.0));
    assert_eq!(last["1"]["interval"], json!("1sec"));
    let all = rig.get("/v1/bdbs/stats?metrics=conns").await.body;
    assert_eq!(all[0]["uid"], json!("1"));
    assert!(all[0]["intervals"][0].get("used_memory").is_none());
    assert_eq!(rig.get("/v1/nodes/stats/1").await.body["uid"], json!("1"));
    assert!(rig.get("/v1/shards/stats/last").await.body["1"].is_object());
    let cluster = rig.get("/v1/cluster/stats/last").await.body;
    assert_eq!(cluster["free_memory"], json!((1u64 << 30) as f64));
    rig.get("/v1/bdbs/stats/9").await.refuses(404, "db_not_exist");
    rig.get("/v1/bdbs/stats?interval=2sec").await.refuses(400, "invalid_schema");
    rig.get("/v1/bdbs/stats?stime=yesterday").await.refuses(400, "invalid_schema");
    let early = rig.get("/v1/bdbs/stats/1?etime=2020-01-01T00:00:00Z").await.body;
    assert_eq!(early["intervals"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_have_their_shapes_and_are_set() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let cluster = rig.get("/v1/cluster/alerts").await.body;
    assert!(15 < cluster.as_object().unwrap().len());
    for (name, alert) in cluster.as_object().unwrap() {
        assert!(alert["state"].is_boolean() && alert["enabled"].is_boolean(), "{name}");
        assert!(alert["severity"].is_string() && alert["change_time"].is_string(), "{name}");
        assert!(alert["change_value"]["state"].is_boolean(), "{name}");
    }
    rig.get("/v1/cluster/alerts/nothing").await.refuses(404, "alert_not_exist");
    rig.get("/v1/nodes/alerts/9").await.refuses(404, "node_not_found");
    assert_eq!(rig.get("/v1/nodes/alerts/1/node_failed").await.body["state"], json!(false));
    let body = json!({"bdb_size": {"enabled": true, "threshold": "80"}});
    let answer = rig.post("/v1/bdbs/alerts/1", &body).await;
    assert_eq!(answer.body["bdb_size"]["state"], json!(true), "{answer:?}");
    assert_eq!(answer.body["bdb_size"]["threshold"], json!("80"));
    assert_eq!(answer.body["bdb_size"]["change_value"]["memory_util"], json!(95.0));
    let on = rig.get("/v1/alerts").await.body;
    assert!(on.as_array().unwrap().iter().any(|it| it["uid"] == json!("bdb:1:bdb_size")), "{on}");
    let answer = rig.post("/v1/bdbs/alerts/1", &json!({"no_such_alert": true})).await;
    assert!([400, 404, 406].contains(&answer.status), "{answer:?}");
    rig.post("/v1/bdbs/alerts/1", &json!({"bdb_size": "on"})).await.refuses(400, "invalid_schema");
    let settings = json!({"alert_settings": {"node_memory": {"enabled": true, "threshold": "50"}}});
    let answer = rig.put("/v1/cluster", &settings).await;
    assert_eq!(answer.body["alert_settings"]["node_memory"]["enabled"], json!(true), "{answer:?}");
    assert_eq!(rig.get("/v1/nodes/alerts/1/node_memory").await.body["state"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_can_be_changed_within_what_is_true() {
    let rig = Rig::created().await;
    let answer =
        rig.put("/v1/cluster", &json!({"cm_session_timeout_minutes": 5, "name": "x"})).await;
    assert_eq!(answer.body["cm_session_timeout_minutes"], json!(5), "{answer:?}");
    assert_eq!(answer.body["name"], json!("c.local"), "read-only");
    for (name, value) in [("http_support", json!(true)), ("email_alerts", json!(true))] {
        let answer = rig.put("/v1/cluster", &json!({ name: value })).await;
        answer.refuses(406, "not_supported");
    }
    rig.put("/v1/cluster", &json!({"cm_port": "x"})).await.refuses(400, "invalid_schema");
    let answer = rig.put("/v1/cluster?strict=true", &json!({"nothing": 1})).await;
    answer.refuses(400, "invalid_schema");
    // What was read can be sent back.
    let read = rig.get("/v1/cluster").await.body;
    let answer = rig.put("/v1/cluster", &read).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = rig.put("/v1/cluster", &json!({"smtp_password": "hunter2"})).await;
    assert_eq!(answer.body["smtp_password"], json!(""));
    assert!(!rig.audit_log().contains("hunter2"));
    let answer = rig.put("/v1/cluster/policy", &json!({"redis_upgrade_policy": "never"})).await;
    answer.refuses(400, "invalid_schema");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_licence_and_description() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let log = rig.get("/v1/logs").await.body;
    let types: Vec<_> = log.as_array().unwrap().iter().map(|it| it["type"].clone()).collect();
    assert!(types.contains(&json!("cluster_bdb_created")), "{types:?}");
    let newest = rig.get("/v1/logs?order=desc&limit=1").await.body;
    assert_eq!(newest[0]["type"], types[types.len() - 1]);
    assert_eq!(rig.get("/v1/logs?etime=2020-01-01T00:00:00Z").await.body, json!([]));
    rig.get("/v1/logs?order=up").await.refuses(400, "invalid_schema");
    assert_eq!(rig.get("/v1/license").await.body["expired"], json!(false));
    rig.put("/v1/license", &json!({"license": "x"})).await.refuses(406, "license_not_needed");
    let description = rig.nobody("GET", "/v1/openapi.json", "").await.body;
    assert_eq!(description["openapi"], json!("3.1.0"));
    assert!(description["paths"]["/v1/cluster/certificates/rotate"]["put"].is_object());
    assert_eq!(rig.get("/v1/jsonschema?object=bdb").await.body["type"], json!("object"));
    rig.get("/v1/jsonschema?object=x").await.refuses(406, "unknown_object");
    for path in ["/v1/cluster/debuginfo", "/v1/nodes/1/debuginfo", "/v1/debuginfo/node"] {
        let download = rig.get(path).await;
        assert_eq!(download.headers["content-type"], "application/x-gzip");
        let disposition = "attachment; filename=debuginfo.tar.gz";
        assert_eq!(download.headers["content-disposition"], disposition);
    }
    // They are packed but not compressed.
    let download = rig.get("/v1/nodes/1/debuginfo").await;
    assert!(download.text.contains("database-1/info.txt"), "{download:?}");
    assert!(download.text.contains("total_commands_processed:7"), "{download:?}");
    rig.get("/v1/nodes/9/debuginfo").await.refuses(404, "node_not_found");
}
