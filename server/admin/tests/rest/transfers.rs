//! Exports, imports and rebalancing, as they are asked for: what is refused, who may ask, what is noted.

use serde_json::{Value, json};

use crate::harness::{PASSWORD, Rig};

const MOUNT: fn() -> Value = || json!({"type": "mount_point", "path": "/there"});

#[tokio::test(flavor = "multi_thread")]
async fn wrong_transfers_are_refused() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let export = async |body: Value| rig.post("/v1/bdbs/1/actions/export", &body).await;
    let import = async |body: Value| rig.post("/v1/bdbs/1/actions/import", &body).await;
    export(json!({})).await.refuses(400, "invalid_schema");
    export(json!([])).await.refuses(400, "invalid_schema");
    export(json!({"export_location": "/there"})).await.refuses(400, "invalid_schema");
    export(json!({"export_location": {"type": "tape"}})).await.refuses(400, "invalid_schema");
    export(json!({"export_location": {"type": "mount_point"}}))
        .await
        .refuses(400, "invalid_schema");
    let extra = json!({"export_location": MOUNT(), "surprise": 1});
    export(extra).await.refuses(400, "invalid_schema");
    let mail = json!({"export_location": MOUNT(), "email_notification": "yes"});
    export(mail).await.refuses(400, "invalid_schema");
    let mail = json!({"export_location": MOUNT(), "email_notification": true});
    export(mail).await.refuses(406, "not_supported");
    for kind in ["url", "sftp", "s3", "gs", "abs"] {
        let location = json!({"type": kind, "bucket_name": "b"});
        export(json!({"export_location": location})).await.refuses(406, "not_supported");
        import(json!({"dataset_import_sources": [location]})).await.refuses(406, "not_supported");
    }
    for path in ["relative", "/a/../etc", ""] {
        let location = json!({"type": "mount_point", "path": path});
        export(json!({"export_location": location})).await.refuses(400, "invalid_param");
        import(json!({"dataset_import_sources": [location]})).await.refuses(400, "invalid_param");
    }
    import(json!({})).await.refuses(400, "invalid_schema");
    import(json!({"dataset_import_sources": MOUNT()})).await.refuses(400, "invalid_schema");
    import(json!({"dataset_import_sources": []})).await.refuses(400, "invalid_schema");
    let many = json!({"dataset_import_sources": vec![MOUNT(); 65]});
    import(many).await.refuses(400, "invalid_schema");
    let body = json!({"export_location": MOUNT()});
    rig.post("/v1/bdbs/9/actions/export", &body).await.refuses(404, "db_not_exist");
    rig.post("/v1/bdbs/x/actions/export", &body).await.refuses(404, "db_not_exist");
    let patch = json!({"backup_location": {"type": "s3"}});
    rig.put("/v1/bdbs/1", &patch).await.refuses(406, "not_supported");
    let path = "/v1/bdbs/1/actions/import_reset_status";
    rig.put("/v1/bdbs/9/actions/import_reset_status", &json!({}))
        .await
        .refuses(404, "db_not_exist");
    assert_eq!(rig.put(path, &json!(null)).await.body, json!({}));
    assert_eq!(rig.get("/v1/bdbs/1").await.body["export_status"], json!(""));

    // A rehearsal begins nothing, the real one does, and a second has to wait for it.
    assert_eq!(rig.post("/v1/bdbs/1/actions/export?dry_run", &body).await.body, json!({}));
    assert_eq!(rig.get("/v1/bdbs/1").await.body["export_status"], json!(""));
    assert_eq!(export(body.clone()).await.body, json!({}));
    assert_eq!(rig.get("/v1/bdbs/1").await.body["export_status"], json!("exporting"));
    export(body.clone()).await.refuses(409, "busy");
    import(json!({"dataset_import_sources": [MOUNT()]})).await.refuses(409, "busy");
    let path = "/v1/bdbs/1/actions/export_reset_status";
    rig.put(path, &json!({})).await.refuses(409, "busy");
    rig.put("/v1/bdbs/1/actions/rebalance", &json!({})).await;
    let log = rig.audit_log();
    assert!(log.contains("/v1/bdbs/1/actions/export") && log.contains("not_supported"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_change_databases_may_not_move_their_data() {
    let rig = Rig::created().await;
    rig.database("one").await;
    rig.user_manager().await;
    let body = json!({"export_location": MOUNT()}).to_string();
    let sources = json!({"dataset_import_sources": [MOUNT()]}).to_string();
    let calls = [
        ("POST", "export", body.as_str()),
        ("POST", "import", sources.as_str()),
        ("PUT", "export_reset_status", ""),
        ("PUT", "import_reset_status", ""),
        ("PUT", "backup_reset_status", ""),
        ("PUT", "rebalance", ""),
    ];
    for role in ["cluster_viewer", "db_viewer", "user_manager", "none"] {
        let email = format!("{role}@example.com");
        rig.user(&email, role).await;
        for (method, action, body) in calls {
            let path = format!("/v1/bdbs/1/actions/{action}");
            let answer = rig.call_as((&email, PASSWORD), method, &path, body).await;
            answer.refuses(403, "insufficient_permissions");
        }
    }
    for role in ["cluster_member", "db_member"] {
        let email = format!("{role}@example.com");
        rig.user(&email, role).await;
        let path = "/v1/bdbs/1/actions/export?dry_run";
        let answer = rig.call_as((&email, PASSWORD), "POST", path, &body).await;
        assert_eq!(answer.status, 200, "{role}: {answer:?}");
    }
    for (method, action, _) in calls {
        let path = format!("/v1/bdbs/1/actions/{action}");
        rig.nobody(method, &path, "").await.refuses(401, "unauthorized");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blueprint_is_told_and_wrong_words_are_refused() {
    let rig = Rig::created().await;
    rig.database("one").await;
    let path = "/v1/bdbs/1/actions/rebalance";
    let answer = rig.put(&format!("{path}?dry_run=true"), &json!(null)).await;
    let nodes = json!([{"node_uid": "1", "role": "master"}]);
    assert_eq!(answer.body, json!([{"nodes": nodes, "slot_range": "0-16383"}]), "{answer:?}");
    for query in ["dry_run=perhaps", "only_failovers=2", "max_operations=-1", "max_operations=x"] {
        rig.put(&format!("{path}?{query}"), &json!(null)).await.refuses(400, "invalid_param");
    }
    rig.put("/v1/bdbs/9/actions/rebalance", &json!(null)).await.refuses(404, "db_not_exist");
    let answer = rig.put(&format!("{path}?only_failovers=1&max_operations=1"), &json!({})).await;
    let action = answer.body["action_uid"].as_str().expect("its uid").to_owned();
    let shown = rig.get(&format!("/v1/actions/{action}")).await;
    assert_eq!(shown.body["name"], json!("rebalance"), "{shown:?}");
}
