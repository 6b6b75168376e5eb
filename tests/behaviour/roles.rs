//! Users of the cluster who may use a database by their role, as its clients see it.

use carnelian_tests::cluster::Member;
use carnelian_tests::server::free_port;
use carnelian_tests::{Client, is_carnelian};
use serde_json::{Value, json};

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

/// Until a user gets in with this password, on a connection of its own; or does not.
#[track_caller]
fn eventually_in(member: &Member, port: u16, user: &str, password: &str, reply: &str) -> Client {
    for _ in 0..3000 {
        let mut client = member.client(port);
        let got = client.call_words(&["AUTH", user, password]).to_string();
        if got == reply {
            return client;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{user} still does not get {reply}:\n{}", member.server.log());
}

fn make_user(member: &Member, name: &str, password: &str, role: &Value) -> String {
    let user = json!({
        "email": format!("{name}@cluster.test"), "name": name, "password": password,
        "role_uids": [role],
    });
    let uid = member.change("POST", "/v1/users", &user)["uid"].clone();
    format!("/v1/users/{uid}")
}

#[test]
fn a_role_lets_its_users_in_with_its_rules_and_changes_count_at_once() {
    if !is_carnelian() {
        return;
    }
    let mut member = Member::create(1);
    let role = |name: &str| {
        let body = json!({"name": name, "management": "none"});
        member.change("POST", "/v1/roles", &body)["uid"].clone()
    };
    let (readers, writers) = (role("readers"), role("writers"));
    let body = json!({"name": "writing", "acl": "+@write +@connection ~w:*"});
    let writing = member.change("POST", "/v1/redis_acls", &body)["uid"].clone();
    let unknown = json!({"name": "unknown", "acl": "+nosuchcommand ~*"});
    let (status, answer) = member.ask("POST", "/v1/redis_acls", &unknown);
    assert_eq!((status, &answer["error_code"]), (400, &json!("invalid_param")), "{answer}");
    let (status, answer) = member.ask("POST", "/v1/redis_acls/validate", &unknown);
    assert_eq!(status, 400, "{answer}");
    let ann = make_user(&member, "ann", "kR7!kpqz-ann", &readers);

    let port = free_port();
    let spec = json!({
        "name": "shared", "memory_size": 50 << 20, "port": port,
        "authentication_redis_pass": "default-password",
        "roles_permissions": [{"role_uid": readers, "redis_acl_uid": 2}],
    });
    let uid = member.change("POST", "/v1/bdbs", &spec)["uid"].clone();
    let path = format!("/v1/bdbs/{uid}");
    member.eventually(&path, |database| database["status"] == "active");
    let mut default = member.client(port);
    default.expect("AUTH default-password", "+OK");
    default.expect("SET k v", "+OK");
    let mut reader = eventually_in(&member, port, "ann", "kR7!kpqz-ann", "+OK");
    reader.expect("GET k", "v");
    reader.expect("SET k w", "-NOPERM User ann has no permissions to run the 'set' command");
    member.client(port).expect("AUTH ann wrong", WRONG);

    // A user that comes later, with two roles: what either allows.
    let bob = make_user(&member, "bob", "kR7!kpqz-bob", &readers);
    let mut writer = eventually_in(&member, port, "bob", "kR7!kpqz-bob", "+OK");
    writer.expect("SET w:1 x", "-NOPERM User bob has no permissions to run the 'set' command");
    member.change("PUT", &bob, &json!({"role_uids": [readers, writers]}));
    let both = json!([
        {"role_uid": readers, "redis_acl_uid": 2}, {"role_uid": writers, "redis_acl_uid": writing},
    ]);
    member.change("PUT", &path, &json!({"roles_permissions": both}));
    member.eventually(&path, |database| database["status"] == "active");
    writer.eventually("SET w:1 x", "+OK");
    writer.expect("GET k", "v");
    writer.expect("SET k w", "-NOPERM No permissions to access a key");
    // Rules, passwords and permissions are changed while clients are there.
    let rules = json!({"acl": "+@write +@connection ~w:* ~k"});
    member.change("PUT", &format!("/v1/redis_acls/{writing}"), &rules);
    writer.eventually("SET k w", "+OK");
    member.change("PUT", &ann, &json!({"password": "kR7!kpqz-new"}));
    eventually_in(&member, port, "ann", "kR7!kpqz-new", "+OK");
    member.client(port).expect("AUTH ann kR7!kpqz-ann", WRONG);
    let with_another = json!({"username": "ann@cluster.test", "new_password": "kR7!kpqz-two"});
    member.change("POST", "/v1/users/password", &with_another);
    eventually_in(&member, port, "ann", "kR7!kpqz-two", "+OK");
    member.client(port).expect("AUTH ann kR7!kpqz-new", "+OK");

    // After a restart as before.
    member.server.restart();
    member.eventually(&path, |database| database["status"] == "active");
    let mut writer = eventually_in(&member, port, "bob", "kR7!kpqz-bob", "+OK");
    writer.expect("SET w:1 y", "+OK");
    let mut reader = eventually_in(&member, port, "ann", "kR7!kpqz-two", "+OK");

    // Who may not any more is put out, and nobody else is.
    let mut default = member.client(port);
    default.expect("AUTH default-password", "+OK");
    member.change("DELETE", &bob, &Value::Null);
    writer.expect_closed();
    reader.expect("PING", "-NOPERM User ann has no permissions to run the 'ping' command");
    member.change("PUT", &path, &json!({"roles_permissions": []}));
    reader.expect_closed();
    eventually_in(&member, port, "ann", "kR7!kpqz-two", WRONG);
    default.expect("ACL USERS", "[default]");

    // What is kept of passwords is not told anywhere.
    let shown = member.get("/v1/users").to_string() + &member.get("/v1/logs").to_string();
    let audit = std::fs::read_to_string(member.server.folder().join("audit.log")).expect("a log");
    for text in [shown, audit, member.server.log()] {
        assert!(!text.contains("kpqz") && !text.contains("argon2"), "{text}");
    }
}

#[test]
fn the_database_of_the_configuration_file_keeps_its_own_users_beside_those_of_roles() {
    if !is_carnelian() {
        return;
    }
    let args = [
        "--cluster-create",
        "test.local",
        "--requirepass",
        "own-password",
        "--user",
        "cid",
        "on",
        ">cid-password",
        "+ping",
    ];
    let member = Member::start(1, carnelian_tests::cluster::PASSWORD, &args);
    member.eventually("/v1/cluster", |cluster| cluster["name"] == "test.local");
    member.eventually("/v1/bdbs/1", |database| database["status"] == "active");
    make_user(&member, "dan", "kR7!kpqz-dan", &json!(5));
    let permissions = json!([{"role_uid": 5, "redis_acl_uid": 1}]);
    member.change("PUT", "/v1/bdbs/1", &json!({"roles_permissions": permissions}));
    let port = member.server.port();
    let mut dan = eventually_in(&member, port, "dan", "kR7!kpqz-dan", "+OK");
    dan.expect("SET k v", "+OK");
    member.client(port).expect("AUTH own-password", "+OK");
    member.client(port).expect("AUTH wrong", WRONG);
    let mut cid = member.client(port);
    cid.expect("AUTH cid cid-password", "+OK");
    cid.expect("PING", "+PONG");
    member.change("PUT", "/v1/bdbs/1", &json!({"roles_permissions": []}));
    dan.expect_closed();
    cid.expect("PING", "+PONG");
    member.client(port).expect("AUTH own-password", "+OK");
}
