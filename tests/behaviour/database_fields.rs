//! Settings of a database, changed over the REST interface while it serves: what its clients see of each.

use carnelian_tests::certificates::Authority;
use carnelian_tests::cluster::Member;
use carnelian_tests::server::free_port;
use carnelian_tests::transport::{TlsOptions, Transport};
use carnelian_tests::{Client, is_carnelian};
use serde_json::{Value, json};

struct Database {
    member: Member,
    path: String,
    port: u16,
}

impl Database {
    fn new() -> Self {
        let (member, port) = (Member::create(1), free_port());
        let spec = json!({"name": "fields", "memory_size": 50 << 20, "port": port});
        let uid = member.change("POST", "/v1/bdbs", &spec)["uid"].clone();
        let database = Self { member, path: format!("/v1/bdbs/{uid}"), port };
        database.settle();
        database
    }

    fn settle(&self) {
        self.member.eventually(&self.path, |database| database["status"] == "active");
    }

    #[track_caller]
    fn set(&self, patch: &Value) {
        self.member.change("PUT", &self.path, patch);
        self.settle();
        let now = self.member.get(&self.path);
        for (name, value) in patch.as_object().expect("an object") {
            assert_eq!(&now[name], value, "{name}");
        }
    }

    fn client(&self) -> Client {
        self.member.client(self.port)
    }

    fn tls(&self, options: &TlsOptions) -> anyhow::Result<Client> {
        Ok(Client::over(Transport::tls(self.port, options)?))
    }
}

#[test]
fn what_is_changed_is_in_force_at_once() {
    if !is_carnelian() {
        return;
    }
    let database = Database::new();
    let mut client = database.client();
    client.expect("SET k v", "+OK");
    let cases = [
        (json!({"memory_size": 64 << 20}), "maxmemory", "67108864"),
        (json!({"memory_size": 0}), "maxmemory", "0"),
        (json!({"eviction_policy": "volatile-lfu"}), "maxmemory-policy", "volatile-lfu"),
        (json!({"eviction_policy": "volatile-ttl"}), "maxmemory-policy", "volatile-ttl"),
        (json!({"eviction_policy": "volatile-random"}), "maxmemory-policy", "volatile-random"),
        (json!({"eviction_policy": "allkeys-lru"}), "maxmemory-policy", "allkeys-lru"),
        (json!({"eviction_policy": "allkeys-lfu"}), "maxmemory-policy", "allkeys-lfu"),
        (json!({"eviction_policy": "allkeys-random"}), "maxmemory-policy", "allkeys-random"),
        (json!({"eviction_policy": "noeviction"}), "maxmemory-policy", "noeviction"),
        (json!({"eviction_policy": "volatile-lru"}), "maxmemory-policy", "volatile-lru"),
        (json!({"data_persistence": "aof"}), "appendonly", "yes"),
        (json!({"aof_policy": "appendfsync-always"}), "appendfsync", "always"),
        (json!({"aof_policy": "appendfsync-every-sec"}), "appendfsync", "everysec"),
        (
            json!({"data_persistence": "snapshot", "snapshot_policy": [{"secs": 60, "writes": 9}]}),
            "save",
            "60 9",
        ),
        (
            json!({"snapshot_policy": [{"secs": 60, "writes": 9}, {"secs": 5, "writes": 1000}]}),
            "save",
            "60 9 5 1000",
        ),
        (json!({"data_persistence": "disabled"}), "save", ""),
        (json!({"maxclients": 500}), "maxclients", "500"),
        (json!({"max_connections": 20}), "maxclients", "20"),
        (json!({"max_connections": 0}), "maxclients", "500"),
        (json!({"tracking_table_max_keys": 5}), "tracking-table-max-keys", "5"),
        (json!({"repl_backlog_size": "2097152"}), "repl-backlog-size", "2097152"),
        (json!({"repl_backlog_size": "auto"}), "repl-backlog-size", "1048576"),
        (
            json!({"slave_buffer": "32"}),
            "client-output-buffer-limit",
            "normal 0 0 0 slave 33554432 33554432 60 pubsub 33554432 8388608 60",
        ),
        (
            json!({"slave_buffer": "64:16:20"}),
            "client-output-buffer-limit",
            "normal 0 0 0 slave 67108864 16777216 20 pubsub 33554432 8388608 60",
        ),
        (
            json!({"slave_buffer": "auto"}),
            "client-output-buffer-limit",
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        ),
    ];
    for (patch, directive, value) in cases {
        database.set(&patch);
        let got = client.call(&format!("CONFIG GET {directive}")).to_string();
        let value = if value.is_empty() || value.contains(' ') {
            format!("{value:?}")
        } else {
            value.to_owned()
        };
        assert_eq!(got, format!("[{directive} {value}]"), "{patch}");
    }
    client.expect("CONFIG GET appendonly", "[appendonly no]");
    client.expect("GET k", "v");

    // One client more than may be there.
    database.set(&json!({"max_connections": 2}));
    let mut second = database.client();
    second.expect("PING", "+PONG");
    let refused = database.client().try_read().expect("a word").to_string();
    assert_eq!(refused, "-ERR max number of clients reached");
    database.set(&json!({"memory_size": 20 << 20, "eviction_policy": "noeviction"}));
    let value = "x".repeat(1 << 20);
    let full = (0..40).map(|key| client.call(&format!("SET big{key} {value}")).to_string());
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    assert!(full.collect::<Vec<_>>().iter().any(|reply| reply == oom));
    database.set(&json!({"eviction_policy": "allkeys-lru"}));
    for key in 0..10 {
        client.expect(&format!("SET more{key} {value}"), "+OK");
    }
}

#[test]
fn an_append_only_file_is_rewritten_when_it_is_longer_than_it_may_be() {
    if !is_carnelian() {
        return;
    }
    let database = Database::new();
    database.set(&json!({"data_persistence": "aof", "max_aof_file_size": 4 << 20}));
    let mut client = database.client();
    let value = "x".repeat(100 << 10);
    let write = |client: &mut Client, count: usize| {
        for _ in 0..count {
            client.expect(&format!("SET k {value}"), "+OK");
        }
    };
    // By itself a file of less than 64 MB is not rewritten.
    write(&mut client, 20);
    client.expect("CONFIG GET auto-aof-rewrite-min-size", "[auto-aof-rewrite-min-size 67108864]");
    assert_eq!(client.info("aof_rewrite_in_progress"), "0");
    let is_long = |client: &mut Client| {
        client.info("aof_current_size").parse::<u64>().expect("a number") > 2_000_000
    };
    assert!(is_long(&mut client));
    write(&mut client, 30);
    for _ in 0..3000 {
        if !is_long(&mut client) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!is_long(&mut client), "{}", database.member.server.log());
    assert!(database.member.server.log().contains("Starting automatic rewriting of AOF"));
    client.expect("STRLEN k", ":102400");
}

#[test]
fn who_may_come_in_and_what_they_may_speak_is_changed_for_those_who_come() {
    if !is_carnelian() {
        return;
    }
    let database = Database::new();
    let mut there = database.client();
    there.expect("SET k v", "+OK");
    database.set(&json!({"resp3": false}));
    database.client().expect("HELLO 3", "-NOPROTO unsupported protocol version");
    database.set(&json!({"resp3": true}));
    assert!(!database.client().call("HELLO 3").to_string().starts_with('-'));

    database.set(&json!({"authentication_redis_pass": "one"}));
    database.client().expect("GET k", "-NOAUTH Authentication required.");
    let mut known = database.client();
    known.expect("AUTH one", "+OK");
    database.set(&json!({"authentication_redis_pass": "two"}));
    known.expect("GET k", "v");
    database.set(&json!({"disconnect_clients_on_password_removal": true}));
    known.expect("GET k", "v");
    database.set(&json!({"authentication_redis_pass": "three"}));
    known.expect_closed();
    database.set(&json!({"default_user": false}));
    let off = "-WRONGPASS invalid username-password pair or user is disabled.";
    database.client().expect("AUTH three", off);
    database.set(&json!({"default_user": true, "authentication_redis_pass": ""}));

    // It is new connections that have to speak TLS.
    let mut there = database.client();
    there.expect("GET k", "v");
    database.set(&json!({"tls_mode": "enabled"}));
    there.expect("GET k", "v");
    let plain = database.client().call("GET k").to_string();
    assert!(plain.starts_with('-'), "{plain}");
    let trusting = TlsOptions::trusting(database.member.server.ca());
    database.tls(&trusting).expect("TLS").expect("GET k", "v");

    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "clients");
    let pem = std::fs::read_to_string(&authority.certificate).expect("a file");
    let shown = |name: &str| {
        let identity = authority.client_with(name, name, &[]);
        trusting.clone().identity(identity.certificate, identity.key)
    };
    let gets = |options: &TlsOptions| {
        let client = database.tls(options);
        // The refusal of TLS 1.3 comes after the handshake.
        client.is_ok_and(|mut client| {
            client.try_send(b"GET k\r\n").is_ok()
                && client.try_read().is_ok_and(|reply| reply.to_string() == "v")
        })
    };
    let older = trusting.clone().version(&rustls::version::TLS12);
    assert!(database.tls(&older).is_ok());
    database.member.change("PUT", "/v1/cluster", &json!({"min_data_TLS_version": "1.3"}));
    let ends = std::time::Instant::now() + carnelian_tests::cluster::PATIENCE;
    while database.tls(&older).is_ok() {
        assert!(std::time::Instant::now() < ends, "{}", database.member.server.log());
    }
    database.tls(&trusting).expect("TLS 1.3").expect("GET k", "v");
    database.set(&json!({"authentication_ssl_client_certs": [{"client_cert": pem}]}));
    assert!(gets(&shown("alpha")) && !gets(&trusting));
    assert_eq!(database.member.get(&database.path)["enforce_client_authentication"], "enabled");
    let rule = json!({
        "client_cert_subject_validation_type": "san_cn", "authorized_subjects": [{"CN": "alpha"}],
    });
    database.set(&rule);
    assert!(gets(&shown("alpha")) && !gets(&shown("beta")));
    let beta = authority.client_with("beta", "beta", &[]);
    let options = trusting.clone().identity(beta.certificate, beta.key);
    let mut refused = database.tls(&options).expect("the handshake is made");
    let why = "-NOPERM this certificate's subject may not use this database";
    assert_eq!(refused.try_read().map(|reply| reply.to_string()).expect("a word"), why);
    refused.expect_closed();
    let rule = json!({
        "client_cert_subject_validation_type": "full_subject",
        "authorized_subjects": [{"CN": "alpha", "O": "Example"}, {"CN": "beta"}],
    });
    database.set(&rule);
    assert!(!gets(&shown("alpha")) && gets(&shown("beta")));
    database.set(&json!({"client_cert_subject_validation_type": "disabled"}));
    assert!(gets(&shown("alpha")));
    database.set(&json!({"enforce_client_authentication": "disabled"}));
    assert!(gets(&trusting));
    let garbled = json!({"authentication_ssl_client_certs": [{"client_cert":
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}]});
    let (status, answer) = database.member.ask("PUT", &database.path, &garbled);
    assert_eq!((status, &answer["error_code"]), (406, &json!("invalid_certificate")));
    database.set(&json!({"tls_mode": "disabled"}));
    database.client().expect("GET k", "v");
}

#[test]
fn what_is_provided_for_clients_and_operators_is_what_they_are_shown_next() {
    if !is_carnelian() {
        return;
    }
    let mut database = Database::new();
    database.set(&json!({"tls_mode": "enabled"}));
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new(folder.path(), "own");
    let item = |name: &str, file: &str| {
        let identity = authority.both(file);
        let read = |path| std::fs::read_to_string(path).expect("a file");
        json!({
            "name": name, "certificate": read(identity.certificate), "key": read(identity.key),
        })
    };
    let path = "/v1/cluster/certificates";
    let mixed = json!({"certificates": [item("proxy", "a"), {"name": "api", "certificate": "x"}]});
    let (status, answer) = database.member.ask("PUT", path, &mixed);
    assert_eq!((status, &answer["error_code"]), (400, &json!("invalid_certificate")), "{answer}");
    let before = TlsOptions::trusting(database.member.server.ca());
    let own = TlsOptions::trusting(&authority.certificate);
    let mut there = database.tls(&before).expect("nothing has changed");
    assert!(database.tls(&own).is_err());

    let both = json!({"certificates": [item("proxy", "b"), item("api", "c")]});
    assert_eq!(database.member.change("PUT", path, &both), json!({}));
    let is_shown = |database: &Database| {
        // The answer comes when this node shows it to operators; databases follow at once.
        let ends = std::time::Instant::now() + carnelian_tests::cluster::PATIENCE;
        while database.tls(&own).is_err() {
            assert!(std::time::Instant::now() < ends, "{}", database.member.server.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(database.tls(&before).is_err());
        assert!(Transport::tls(database.member.admin_port, &own).is_ok());
        assert!(Transport::tls(database.member.admin_port, &before).is_err());
    };
    is_shown(&database);
    there.expect("PING", "+PONG");
    // A database that comes later, and a start.
    let port = free_port();
    let spec = json!({"name": "later", "memory_size": 0, "port": port, "tls_mode": "enabled"});
    let uid = database.member.change("POST", "/v1/bdbs", &spec)["uid"].clone();
    database.member.eventually(&format!("/v1/bdbs/{uid}"), |it| it["status"] == "active");
    assert!(Transport::tls(port, &own).is_ok());
    database.member.server.restart();
    database.settle();
    is_shown(&database);
}
