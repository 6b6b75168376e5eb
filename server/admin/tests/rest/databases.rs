//! Databases, and what belongs to them.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn databases_come_change_and_go() {
    let rig = Rig::created().await;
    assert_eq!(rig.get("/v1/bdbs").await.body, json!([]));
    let answer = rig.post("/v1/bdbs", &json!({"name": "cache", "memory_size": 1 << 30})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["port"], json!(0), "it was allocated");
    assert_eq!(answer.body["data_internode_encryption"], json!(false));
    assert_eq!(answer.body["eviction_policy"], json!("volatile-lru"));
    assert_eq!(answer.body["authentication_admin_pass"].as_str().unwrap().len(), 48);
    assert_eq!(answer.body["hash_slots_policy"], json!("16k"));
    assert!(answer.body["action_uid"].is_string());
    rig.is_active(1).await;
    let shown = rig.get("/v1/bdbs/1").await.body;
    assert!(shown.get("action_uid").is_none(), "only while one runs");
    let endpoint = &shown["endpoints"][0];
    let port = endpoint["port"].as_u64().unwrap();
    assert!((10_000..20_000).contains(&port));
    assert_eq!(endpoint["dns_name"], json!(format!("redis-{port}.c.local")));
    assert_eq!(endpoint["uid"], json!("1:1"));

    let answer = rig.put("/v1/bdbs/1", &json!({"memory_size": 2u64 << 30, "uid": 1})).await;
    assert_eq!(answer.body["memory_size"], json!(2u64 << 30), "{answer:?}");
    rig.is_active(1).await;
    let answer = rig.get("/v1/bdbs?fields=uid,name").await;
    assert_eq!(answer.body, json!([{"name": "cache", "uid": 1}]));

    let answer = rig.delete("/v1/bdbs/1").await;
    assert!(answer.body["action_uid"].is_string());
    for _ in 0..500 {
        if rig.get("/v1/bdbs/1").await.status == 404 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the database is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_databases_are_refused() {
    let rig = Rig::created().await;
    let create = |body| async {
        let body: serde_json::Value = body;
        rig.post("/v1/bdbs", &body).await
    };
    create(json!({"memory_size": 1})).await.refuses(406, "missing_db_name");
    create(json!({"name": "a"})).await.refuses(406, "missing_memory_size");
    create(json!({"name": "a", "memory_size": "big"})).await.refuses(400, "invalid_schema");
    let refused = |member: &str, value: serde_json::Value| {
        let mut body = json!({"name": "a", "memory_size": 1 << 30});
        body[member] = value;
        create(body)
    };
    refused("name", json!("-a")).await.refuses(406, "invalid_db_name");
    refused("data_persistence", json!("tape")).await.refuses(406, "invalid_data_persistence");
    refused("proxy_policy", json!("none")).await.refuses(406, "invalid_proxy_policy");
    refused("replication", json!(true)).await.refuses(406, "invalid_replication");
    refused("shards_count", json!(3)).await.refuses(406, "invalid_sharding");
    refused("port", json!(9443)).await.refuses(406, "port_unavailable");
    let certificate = "authentication_ssl_client_certs";
    assert_eq!(refused("enforce_client_authentication", json!("enabled")).await.status, 406);
    assert_eq!(refused(certificate, json!("x")).await.status, 400);
    assert_eq!(rig.get("/v1/bdbs").await.body, json!([]));
    rig.database("a").await;
    assert_eq!(refused("uid", json!(1)).await.status, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_changes_nothing() {
    let rig = Rig::created().await;
    let body = json!({"name": "a", "memory_size": 1 << 30});
    let answer = rig.post("/v1/bdbs?dry_run=true", &body).await;
    assert_eq!((answer.status, &answer.body["name"]), (200, &json!("a")));
    assert_eq!(rig.get("/v1/bdbs").await.body, json!([]));
    rig.database("a").await;
    let answer = rig.put("/v1/bdbs/1?dry_run", &json!({"maxclients": 5})).await;
    assert_eq!(answer.body["maxclients"], json!(5));
    assert_eq!(rig.get("/v1/bdbs/1").await.body["maxclients"], json!(10_000));
    let answer = rig.put("/v1/cluster/policy?dry_run=1", &json!({"slow_log_max_len": 5})).await;
    assert_eq!(answer.body["slow_log_max_len"], json!(5));
    assert_eq!(rig.get("/v1/cluster/policy").await.body["slow_log_max_len"], json!(1024));
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_between_nodes_is_switched_per_database() {
    let rig = Rig::created().await;
    rig.database("one").await;
    rig.database("two").await;
    let drops = |uid: u32| rig.control.state().databases[&uid.into()].disconnects;
    let answer = rig.put("/v1/bdbs/1", &json!({"data_internode_encryption": true})).await;
    assert_eq!(answer.body["data_internode_encryption"], json!(true));
    rig.is_active(1).await;
    assert_eq!((drops(1), drops(2)), (1, 0), "its clients, and nobody else's");
    rig.put("/v1/bdbs/1", &json!({"data_internode_encryption": true})).await;
    assert_eq!(drops(1), 1, "it was so already");
    let body = json!({"data_internode_encryption": false, "graceful": true});
    let answer = rig.put("/v1/bdbs/1", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    rig.is_active(1).await;
    assert_eq!(drops(1), 1, "nobody is disconnected");
    assert_eq!(rig.get("/v1/bdbs/1").await.body["data_internode_encryption"], json!(false));
    let log = rig.get("/v1/logs").await;
    let switched =
        |event: &&serde_json::Value| event["type"] == json!("data_internode_encryption_changed");
    assert_eq!(log.body.as_array().unwrap().iter().filter(switched).count(), 2, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_for_new_databases_only() {
    let rig = Rig::created().await;
    rig.database("old").await;
    let answer = rig.put("/v1/cluster/policy", &json!({"data_internode_encryption": true})).await;
    assert_eq!(answer.body["data_internode_encryption"], json!(true));
    rig.database("new").await;
    assert_eq!(rig.get("/v1/bdbs/1").await.body["data_internode_encryption"], json!(false));
    assert_eq!(rig.get("/v1/bdbs/2").await.body["data_internode_encryption"], json!(true));
    let body = json!({"name": "own", "memory_size": 0, "data_internode_encryption": false});
    let answer = rig.post("/v1/bdbs", &body).await;
    assert_eq!(answer.body["data_internode_encryption"], json!(false), "who says so is heard");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_change_at_a_time() {
    let rig = Rig::created().await;
    rig.database("one").await;
    rig.live.is_busy.store(true, Ordering::Relaxed);
    let answer = rig.put("/v1/bdbs/1", &json!({"maxclients": 5})).await;
    assert_eq!(answer.body["status"], json!("active-change-pending"));
    let action = answer.body["action_uid"].as_str().unwrap().to_owned();
    assert_eq!(rig.put("/v1/bdbs/1", &json!({"maxclients": 6})).await.status, 409);
    let shown = rig.get(&format!("/v1/actions/{action}")).await.body;
    assert_eq!(shown["name"], json!("SMUpdateBDB"));
    assert_eq!(shown["object_name"], json!("bdb:1"));
    assert_eq!(shown["status"], json!("active"));
    let all = rig.get("/v1/actions").await.body;
    assert!(all["actions"].is_array() && all["state-machines"].is_array());
    let shown = rig.get(&format!("/v2/actions/{action}")).await.body;
    assert_eq!(shown["status"], json!("running"));
    assert_eq!(shown["additional_info"]["object_uid"], json!("1"));
    assert!(!rig.get("/v1/actions/bdb/1").await.body.as_array().unwrap().is_empty());
    rig.get("/v1/actions/bdb/9").await.refuses(404, "db_not_exist");
    rig.get("/v1/actions/nothing").await.refuses(404, "action_not_found");
    rig.live.is_busy.store(false, Ordering::Relaxed);
    rig.is_active(1).await;
    let shown = rig.get(&format!("/v1/actions/{action}")).await.body;
    assert_eq!(shown["status"], json!("completed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_replaced_added_and_removed() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let path = "/v1/bdbs/1/passwords";
    let passwords = || rig.control.state().databases[&1.into()].passwords.clone();
    assert_eq!(rig.put(path, &json!({"password": "a"})).await.text, "{}");
    assert_eq!(rig.post(path, &json!({"password": "b"})).await.status, 200);
    assert_eq!(passwords(), ["a", "b"]);
    assert_eq!(rig.post(path, &json!({"password": "b"})).await.status, 406);
    let remove = |password: &str| {
        let body = json!({ "password": password }).to_string();
        let rig = &rig;
        async move { rig.call("DELETE", path, &body).await.status }
    };
    assert_eq!(remove("x").await, 406);
    assert_eq!(remove("a").await, 200);
    assert_eq!(remove("b").await, 406, "the last one stays");
    rig.put(path, &json!({})).await.refuses(400, "invalid_schema");
    rig.put("/v1/bdbs/9/passwords", &json!({"password": "a"})).await.refuses(404, "db_not_exist");
    assert!(!rig.audit_log().contains("\"a\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn availability_flush_and_commands() {
    let rig = Rig::created().await;
    rig.database("one").await;
    assert_eq!(rig.get("/v1/bdbs/1/availability").await.text, "{}");
    assert_eq!(rig.get("/v1/local/bdbs/1/endpoint/availability").await.status, 200);
    rig.get("/v1/bdbs/9/availability").await.refuses(404, "db_not_found");
    assert_eq!(rig.call("PUT", "/v1/bdbs/1/flush", "null").await.status, 200);
    let before = rig.get("/v1/bdbs/1").await.body["authentication_admin_pass"].clone();
    let answer = rig.call("PUT", "/v1/bdbs/1/reset_admin_pass", "null").await;
    assert_ne!(answer.body["authentication_admin_pass"], before);
    rig.is_active(1).await;
    rig.call("PUT", "/v1/bdbs/1/explode", "null").await.refuses(404, "not_found");
    let answer = rig.post("/v1/bdbs/1/command", &json!({"command": "PING"})).await;
    assert_eq!(answer.body, json!({"response": true}));
    rig.post("/v1/bdbs/1/command", &json!({"command": 5})).await.refuses(400, "invalid_schema");
    rig.post("/v1/bdbs/1/command", &json!({"command": "X"})).await.refuses(400, "command_failed");
    assert!(rig.post("/v1/bdbs/1/actions/stop_traffic", &json!({})).await.status == 200);
    let answer = rig.get("/v1/bdbs/1/availability").await;
    answer.refuses(503, "bdb_unavailable_shard_unreachable");
    let answer = rig.get("/v1/local/bdbs/1/endpoint/availability").await;
    answer.refuses(503, "bdb_endpoint_unavailable");
    assert!(rig.post("/v1/bdbs/1/actions/resume_traffic", &json!({})).await.status == 200);
    assert_eq!(rig.get("/v1/bdbs/1/availability").await.status, 200);
}
