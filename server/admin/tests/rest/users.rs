//! Who may do what, and how it is recorded.

use serde_json::json;

use crate::harness::{PASSWORD, Rig, USER};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused_and_recorded() {
    let rig = Rig::created().await;
    rig.call_as((USER, "wrong"), "GET", "/v1/cluster", "").await.refuses(401, "unauthorized");
    rig.call_as(("who@example.com", PASSWORD), "GET", "/v1/cluster", "")
        .await
        .refuses(401, "unauthorized");
    for header in
        ["Basic", "Basic !!!", "Basic YWJj", "Digest abc", "JWT", "JWT abc", "Bearer a.b.c"]
    {
        rig.with(header, "GET", "/v1/cluster", "").await.refuses(401, "unauthorized");
    }
    // E-mail addresses are the same in any case.
    assert_eq!(
        rig.call_as(("ADMIN@example.com", PASSWORD), "GET", "/v1/cluster", "").await.status,
        200
    );
    let log = rig.audit_log();
    assert!(log.contains("who@example.com") && !log.contains("wrong"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_failures_lock_an_account_until_it_is_unlocked() {
    let rig = Rig::created().await;
    let policy = json!({"login_lockout_threshold": 3});
    assert_eq!(rig.put("/v1/cluster/policy", &policy).await.status, 200);
    let uid = rig.user("b@example.com", "db_viewer").await;
    let user = ("b@example.com", PASSWORD);
    assert_eq!(rig.call_as(user, "GET", "/v1/bdbs", "").await.status, 200);
    for _ in 0..3 {
        let answer = rig.call_as(("b@example.com", "guess"), "GET", "/v1/bdbs", "").await;
        answer.refuses(401, "unauthorized");
    }
    rig.call_as(user, "GET", "/v1/bdbs", "").await.refuses(401, "unauthorized");
    let path = format!("/v1/users/{uid}");
    assert_eq!(rig.get(&path).await.body["status"], json!("locked"));
    assert_eq!(rig.put(&path, &json!({"status": "active"})).await.body["status"], json!("active"));
    assert_eq!(rig.call_as(user, "GET", "/v1/bdbs", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_stand_for_a_password() {
    let rig = Rig::created().await;
    let answer = rig.post("/v1/users/authorize", &json!({"ttl": 60})).await;
    let token = answer.body["access_token"].as_str().unwrap().to_owned();
    for scheme in ["JWT", "Bearer", "jwt"] {
        let answer = rig.with(&format!("{scheme} {token}"), "GET", "/v1/cluster", "").await;
        assert_eq!(answer.status, 200);
    }
    let answer = rig.with(&format!("JWT {token}"), "POST", "/v1/users/refresh_jwt", "").await;
    assert!(answer.body["access_token"].is_string());
    rig.post("/v1/users/authorize", &json!({"ttl": 0})).await.refuses(400, "invalid_schema");
    rig.post("/v1/users/authorize", &json!({"ttl": 86_401})).await.refuses(400, "invalid_schema");
    let forged = format!("{}x", &token[..token.len() - 1]);
    rig.with(&format!("JWT {forged}"), "GET", "/v1/cluster", "").await.refuses(401, "unauthorized");
    // A new password ends the tokens of the old one. Issue dates are seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let body = json!({"new_password": "zL9?another-one"});
    assert_eq!(rig.put("/v1/users/password", &body).await.status, 200);
    rig.with(&format!("JWT {token}"), "GET", "/v1/cluster", "").await.refuses(401, "unauthorized");
    rig.get("/v1/cluster").await.refuses(401, "unauthorized");
    let answer = rig.call_as((USER, "zL9?another-one"), "GET", "/v1/cluster", "").await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_have_several_passwords_for_a_while() {
    let rig = Rig::created().await;
    let path = "/v1/users/password";
    rig.post(path, &json!({"new_password": PASSWORD}))
        .await
        .refuses(400, "new_password_same_as_current");
    assert_eq!(rig.post(path, &json!({"new_password": "second"})).await.status, 200);
    assert_eq!(rig.call_as((USER, "second"), "GET", "/v1/cluster", "").await.status, 200);
    let remove = json!({ "old_password": PASSWORD }).to_string();
    assert_eq!(rig.call("DELETE", path, &remove).await.status, 200);
    rig.get("/v1/cluster").await.refuses(401, "unauthorized");
    let last = json!({"old_password": "second"}).to_string();
    let answer = rig.call_as((USER, "second"), "DELETE", path, &last).await;
    answer.refuses(400, "cannot_delete_last_password");
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_say_what_may_be_asked() {
    let rig = Rig::created().await;
    rig.database("one").await;
    rig.user_manager().await;
    let cases = [
        // role, see databases, change one, see users, make users, rotate
        ("cluster_member", true, true, true, false, false),
        ("cluster_viewer", true, false, true, false, false),
        ("db_member", true, true, false, false, false),
        ("db_viewer", true, false, false, false, false),
        ("user_manager", true, false, true, true, false),
        ("none", false, false, false, false, false),
    ];
    for (role, sees, changes, sees_users, makes_users, rotates) in cases {
        let email = format!("{role}@example.com");
        rig.user(&email, role).await;
        let user = (email.as_str(), PASSWORD);
        let allowed = |answer: crate::harness::Answer| answer.status == 200;
        assert_eq!(allowed(rig.call_as(user, "GET", "/v1/bdbs", "").await), sees, "{role}");
        let body = r#"{"maxclients": 10000}"#;
        assert_eq!(allowed(rig.call_as(user, "PUT", "/v1/bdbs/1", body).await), changes, "{role}");
        assert_eq!(allowed(rig.call_as(user, "GET", "/v1/users", "").await), sees_users, "{role}");
        let body = json!({"email": format!("x{role}@example.com"), "password": "p", "role": "none",
            "name": role})
        .to_string();
        let made = rig.call_as(user, "POST", "/v1/users", &body).await;
        assert_eq!(allowed(made), makes_users, "{role}");
        let rotate = rig.call_as(user, "POST", "/v1/cluster/certificates/rotate", "").await;
        assert_eq!(allowed(rotate), rotates, "{role}");
        let answer = rig.call_as(user, "PUT", "/v1/cluster/policy", "{}").await;
        answer.refuses(403, "insufficient_permissions");
    }
    // Passwords of databases are for those who could set them.
    rig.put("/v1/bdbs/1", &json!({"authentication_redis_pass": "hunter2"})).await;
    rig.is_active(1).await;
    let viewer = ("db_viewer@example.com", PASSWORD);
    let seen = rig.call_as(viewer, "GET", "/v1/bdbs/1", "").await;
    assert_eq!(seen.body["authentication_redis_pass"], json!(""));
    assert_eq!(seen.body["authentication_admin_pass"], json!(""));
    assert_eq!(rig.get("/v1/bdbs/1").await.body["authentication_redis_pass"], json!("hunter2"));
    rig.put("/v1/cluster", &json!({"mask_bdb_credentials": true})).await;
    assert_eq!(rig.get("/v1/bdbs/1").await.body["authentication_redis_pass"], json!(""));
    assert!(!rig.audit_log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_manages_users_makes_no_admins() {
    let rig = Rig::created().await;
    rig.user_manager().await;
    rig.user("m@example.com", "user_manager").await;
    let manager = ("m@example.com", PASSWORD);
    let admin = json!({"email": "x@example.com", "password": "p", "role": "admin", "name": "x"});
    let answer = rig.call_as(manager, "POST", "/v1/users", &admin.to_string()).await;
    answer.refuses(403, "insufficient_permissions");
    let by_uid = json!({"email": "x@example.com", "password": "p", "role_uids": [1], "name": "x"});
    let answer = rig.call_as(manager, "POST", "/v1/users", &by_uid.to_string()).await;
    answer.refuses(403, "insufficient_permissions");
    let body = r#"{"password": "taken-over"}"#;
    let answer = rig.call_as(manager, "PUT", "/v1/users/1", body).await;
    answer.refuses(403, "insufficient_permissions");
    let body = json!({"username": USER, "new_password": "taken-over"}).to_string();
    let answer = rig.call_as(manager, "PUT", "/v1/users/password", &body).await;
    answer.refuses(403, "insufficient_permissions");
    let role = r#"{"management": "admin"}"#;
    let answer = rig.call_as(manager, "PUT", "/v1/roles/6", role).await;
    answer.refuses(403, "insufficient_permissions");
    let answer = rig.call_as(manager, "DELETE", "/v1/users/1", "").await;
    answer.refuses(403, "insufficient_permissions");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_roles_and_rules_come_and_go() {
    let rig = Rig::created().await;
    let uid = rig.user("a@example.com", "db_member").await;
    let shown = rig.get(&format!("/v1/users/{uid}")).await.body;
    assert_eq!((&shown["role"], &shown["role_uids"]), (&json!("db_member"), &json!([4])));
    assert_eq!(shown["auth_method"], json!("regular"));
    assert!(shown.get("password").is_none() && shown.get("passwords").is_none());
    let twice = json!({"email": "A@example.com", "password": "p", "role": "none", "name": "b"});
    rig.post("/v1/users", &twice).await.refuses(409, "email_already_exists");
    let answer = rig.post("/v1/users", &json!({"email": "c@example.com", "role": "none"})).await;
    answer.refuses(400, "missing_field");
    assert_eq!(rig.delete("/v1/users/1").await.status, 406, "oneself");
    assert_eq!(rig.delete(&format!("/v1/users/{uid}")).await.text, "{}");
    rig.get(&format!("/v1/users/{uid}")).await.refuses(404, "user_not_exist");

    let complex = json!({"password_complexity": true});
    assert_eq!(rig.put("/v1/cluster", &complex).await.status, 200);
    let simple =
        json!({"email": "d@example.com", "password": "simple", "role": "none", "name": "d"});
    rig.post("/v1/users", &simple).await.refuses(400, "password_not_complex");

    let answer = rig.post("/v1/roles", &json!({"name": "Ops", "management": "db_member"})).await;
    assert_eq!((answer.status, &answer.body["uid"]), (200, &json!(17)));
    let answer = rig.put("/v1/roles/17", &json!({"management": "db_viewer"})).await;
    assert_eq!(answer.body["management"], json!("db_viewer"));
    assert_eq!(rig.get("/v1/roles").await.body.as_array().unwrap().len(), 7);
    assert_eq!(rig.delete("/v1/roles/17").await.text, "{}");

    let answer = rig.post("/v1/redis_acls", &json!({"name": "Get", "acl": "+get ~*"})).await;
    assert_eq!(answer.body["uid"], json!(17));
    let body = json!({"name": "Bad", "acl": "on >secret"});
    rig.post("/v1/redis_acls", &body).await.refuses(400, "invalid_param");
    assert_eq!(rig.put("/v1/redis_acls/1", &json!({"acl": "+get"})).await.status, 409);
    let answer = rig.post("/v1/redis_acls/validate", &json!({"acl": "+@all ~*"})).await;
    assert_eq!(answer.text, "{}");
    assert_eq!(rig.delete("/v1/redis_acls/17").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_and_refusals_are_in_the_audit_log_and_the_chain_holds() {
    let rig = Rig::created().await;
    rig.put("/v1/cluster/policy", &json!({"slow_log_max_len": 7})).await;
    rig.put("/v1/cluster/policy", &json!({"slow_log_max_len": "x"})).await;
    rig.delete("/v1/bdbs/9").await;
    rig.get("/v1/bdbs").await;
    let entries = rig.get("/v1/audit").await.body["entries"].clone();
    let shown: Vec<_> = entries
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["method"].as_str().unwrap(), it["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(shown, [("POST", 200), ("PUT", 200), ("PUT", 400), ("DELETE", 404)]);
    assert_eq!(entries[1]["user"], json!(USER));
    assert_eq!(entries[1]["address"], json!("127.0.0.1"));
    assert_eq!(entries[1]["request"], json!({"slow_log_max_len": 7}));
    assert_eq!(entries[2]["error_code"], json!("invalid_schema"));
    assert!(!rig.audit_log().contains(PASSWORD));
    let verdict = rig.get("/v1/audit/verify").await.body;
    assert_eq!((&verdict["intact"], &verdict["entries"]), (&json!(true), &json!(4)));
    let path = rig.folder.path().join("audit.log");
    std::fs::write(&path, rig.audit_log().replace("slow_log_max_len\":7", "slow_log_max_len\":8"))
        .unwrap();
    let verdict = rig.get("/v1/audit/verify").await.body;
    assert_eq!((&verdict["intact"], &verdict["broken_line"]), (&json!(false), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_socket_asks_nobody_for_a_password() {
    let rig = Rig::created().await;
    assert_eq!(rig.local("GET", "/v1/cluster").await.status, 200);
    let answer = rig.local("PUT", "/v1/cluster/certificates/rotate").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(rig.audit_log().contains("\"user\":\"local\""));
}
