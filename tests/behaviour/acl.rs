//! Users, their permissions, and the files they are kept in.

use std::fs;

use carnelian_tests::certificates::{Authority, Identity};
use carnelian_tests::{Client, Protocol, Server, TlsOptions, each_way, is_carnelian};

#[test]
fn users_are_made_changed_and_described() {
    each_way(|client| {
        client.script(
            r#"
            ACL WHOAMI => default
            ACL SETUSER bob => +OK
            ACL LIST => ["user bob off sanitize-payload resetchannels -@all" "user default on nopass sanitize-payload ~* &* +@all"]
            ACL SETUSER bob on >secret ~a* %R~r* %W~w* &chan +@all -select +select|0 (+get ~other) => +OK
            ACL USERS => [bob default]
            ACL GETUSER bob => {flags ~[on sanitize-payload] passwords [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b] commands "+@all -select +select|0" keys "~a* %R~r* %W~w*" channels &chan selectors [{commands "-@all +get" keys ~other channels ""}]}
            ACL SETUSER bob +nosuch => -ERR Error in ACL SETUSER modifier '+nosuch': Unknown command or category name in ACL
            ACL SETUSER bob ~new ( => -ERR Unmatched parenthesis in acl selector starting at '('.
            ACL SETUSER bob ~new "~a b" => -ERR Error in ACL SETUSER modifier '~a b': Syntax error
            ACL SETUSER "a b" => -ERR Usernames can't contain spaces or null characters
            ACL GETUSER nobody => nil
            ACL SETUSER bob reset => +OK
            ACL GETUSER bob => {flags ~[off sanitize-payload] passwords [] commands "-@all" keys "" channels "" selectors []}
            ACL DELUSER nobody bob => :1
            ACL DELUSER default => -ERR The 'default' user cannot be removed
            ACL USERS => [default]
            ACL CAT nosuch => -ERR Unknown category 'nosuch'
            ACL CAT a b => -ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.
            ACL GENPASS 0 => -ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096
            ACL LOAD => -ERR This Redis instance is not configured to use an ACL file....
            ACL NOSUCH => -ERR unknown subcommand 'NOSUCH'. Try ACL HELP.
            "#,
        );
        assert_eq!(client.call("ACL CAT").elements().len(), 21);
        assert!(client.call("ACL CAT string").to_string().contains("getrange"));
        assert_eq!(client.call("ACL GENPASS").text().len(), 64);
        assert_eq!(client.call("ACL GENPASS 5").text().len(), 2);
        assert_ne!(client.call("ACL GENPASS").text(), client.call("ACL GENPASS").text());
    });
}

#[test]
fn what_is_not_allowed_is_refused_counted_and_logged() {
    each_way(|client| {
        client.script(
            r#"
            CONFIG RESETSTAT => +OK
            ACL LOG RESET => +OK
            ACL SETUSER bob reset on >secret ~a* %R~r* %W~w* +@all -select => +OK
            AUTH bob wrong => -WRONGPASS invalid username-password pair or user is disabled.
            AUTH nobody secret => -WRONGPASS invalid username-password pair or user is disabled.
            AUTH secret => -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
            AUTH bob secret => +OK
            ACL WHOAMI => bob
            SET a 1 => +OK
            GET b => -NOPERM No permissions to access a key
            GET r => nil
            SET r 1 => -NOPERM No permissions to access a key
            SET w 1 => +OK
            SET w 1 GET => -NOPERM No permissions to access a key
            MSET a 1 b 2 => -NOPERM No permissions to access a key
            COPY r w => :0
            SELECT 0 => -NOPERM User bob has no permissions to run the 'select' command
            SELECT 0 => -NOPERM User bob has no permissions to run the 'select' command
            GET => -ERR wrong number of arguments for 'get' command
            ACL DRYRUN bob GET b => "User bob has no permissions to access the 'b' key"
            ACL DRYRUN bob GET a => +OK
            ACL DRYRUN bob SELECT 1 => "User bob has no permissions to run the 'select' command"
            ACL DRYRUN bob NOSUCH => -ERR Command 'NOSUCH' not found
            ACL DRYRUN bob GET => -ERR wrong number of arguments for 'get' command
            ACL DRYRUN nobody GET a => -ERR User 'nobody' not found
            "#,
        );
        assert_eq!(client.info("acl_access_denied_auth"), "2");
        assert_eq!(client.info("acl_access_denied_cmd"), "2");
        assert_eq!(client.info("acl_access_denied_key"), "4");
        let log = client.call("ACL LOG 1");
        let text = log.to_string();
        for part in ["select", "toplevel", "command", "user=bob", "cmd=select"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(client.call("ACL LOG").elements().len(), 6);
        client.expect("ACL LOG RESET", "+OK");
        client.expect("ACL LOG", "[]");
    });
}

#[test]
fn the_log_tells_what_the_client_asked_for() {
    each_way(|client| {
        client.script(
            r#"
            ACL SETUSER bob reset on nopass -@all +ping +acl => +OK
            AUTH bob any => +OK
            PING => +PONG
            GET k => -NOPERM User bob has no permissions to run the 'get' command
            "#,
        );
        let log = client.call("ACL LOG 1").to_string();
        assert!(log.contains(" cmd=get "), "{log}");
    });
}

#[test]
fn sort_follows_patterns_only_for_who_may_read_every_key() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH a 2 1 => :2
            ACL SETUSER bob reset on nopass ~a* +@all => +OK
            AUTH bob x => +OK
            SORT a => [1 2]
            SORT a LIMIT 0 1 DESC => [2]
            SORT a BY constant => [2 1]
            SORT a BY w* => -ERR BY option of SORT denied due to insufficient ACL permissions.
            SORT a ALPHA GET # => -ERR GET option of SORT denied due to insufficient ACL permissions.
            SORT_RO a LIMIT 0 1 BY w* => -ERR BY option of SORT denied due to insufficient ACL permissions.
            SORT a STORE BY => -NOPERM No permissions to access a key
            MULTI => +OK
            SORT a BY w* => +QUEUED
            SORT a => +QUEUED
            EXEC => [? [1 2]]
            ACL SETUSER bob %R~* => +OK
            SORT a BY w* => [1 2]
            ACL SETUSER bob resetkeys %R~* => +OK
            SORT a GET # => [1 2]
            "#,
        );
    });
}

#[test]
fn subscribers_go_when_their_channels_are_taken_away() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut admin = server.connect();
    admin.expect("ACL SETUSER bob on nopass +@all &a* &p*", "+OK");
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for (client, command) in clients.iter_mut().zip([
        "SUBSCRIBE abc",
        "PSUBSCRIBE p*",
        "SSUBSCRIBE abc",
        "SUBSCRIBE pqr",
    ]) {
        client.expect("AUTH bob x", "+OK");
        client.expect(command, "?");
    }
    let mut idle = server.connect();
    idle.expect("AUTH bob x", "+OK");
    idle.expect("SUBSCRIBE abc x", "-NOPERM No permissions to access a channel");
    idle.expect("PUBLISH x 1", "-NOPERM No permissions to access a channel");
    idle.expect("PSUBSCRIBE ab*", "-NOPERM No permissions to access a channel");
    assert_eq!(admin.info("acl_access_denied_channel"), "3");

    admin.expect("ACL SETUSER bob &b", "+OK");
    admin.expect("PUBLISH abc 1", ":1");
    clients[0].expect_next(">[message abc 1]");
    admin.expect("ACL SETUSER bob resetchannels &p*", "+OK");
    for gone in [0, 2] {
        clients[gone].expect_closed();
    }
    admin.expect("PUBLISH pqr 1", ":2");
    clients[1].expect_next(">[pmessage p* pqr 1]");
    clients[3].expect_next(">[message pqr 1]");
    admin.expect("ACL SETUSER bob allchannels", "+OK");
    admin.expect("ACL SETUSER bob resetchannels", "+OK");
    for gone in [1, 3] {
        clients[gone].expect_closed();
    }
    idle.expect("PING", "+PONG");
}

#[test]
fn transactions_are_checked_when_they_are_queued_and_when_they_run() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    admin.expect("ACL SETUSER bob on nopass +@all ~a*", "+OK");
    let mut client = server.connect();
    client.script(
        r#"
        AUTH bob x => +OK
        MULTI => +OK
        SET b 1 => -NOPERM No permissions to access a key
        EXEC => -EXECABORT Transaction discarded because of previous errors.
        MULTI => +OK
        SET a 1 => +QUEUED
        INCR a => +QUEUED
        GET a => +QUEUED
        "#,
    );
    admin.expect("ACL SETUSER bob -incr", "+OK");
    let replies: Vec<String> =
        client.call("EXEC").elements().iter().map(ToString::to_string).collect();
    let refusal = "-NOPERM ACLs rules changed between the moment the transaction was accumulated \
                   and the EXEC call. This command is no longer allowed for the following reason: \
                   no permission to execute the command or subcommand";
    assert_eq!(replies, ["+OK", refusal, "1"]);
    let log = admin.call("ACL LOG").to_string();
    assert!(log.contains("multi"), "{log}");
}

#[test]
fn clients_go_with_their_user_and_follow_its_changes() {
    let server = Server::start(&["--io-threads", "2"]);
    let mut admin = server.connect();
    admin.expect("ACL SETUSER bob on nopass +@all ~*", "+OK");
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.expect("AUTH bob x", "+OK");
        client.expect("SET k v", "+OK");
    }
    admin.expect("ACL SETUSER bob -set", "+OK");
    for client in &mut clients {
        client.expect("SET k v", "-NOPERM User bob has no permissions to run the 'set' command");
    }
    // Whoever is in already stays, but nobody else comes in.
    admin.expect("ACL SETUSER bob off", "+OK");
    clients[0].expect("GET k", "v");
    clients[0].expect("AUTH bob x", "-WRONGPASS...");
    admin.expect("ACL DELUSER bob", ":1");
    for client in &mut clients {
        client.expect_closed();
    }
    // One that removes itself is answered first.
    admin.expect("ACL SETUSER bob on nopass +@all", "+OK");
    admin.expect("AUTH bob x", "+OK");
    admin.expect("ACL DELUSER bob", ":1");
    admin.expect_closed();
    assert_eq!(server.connect().info("connected_clients"), "1");
}

#[test]
fn the_default_user_is_what_new_connections_are() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    admin.expect("ACL SETUSER default -set", "+OK");
    server.connect().expect("SET a 1", "-NOPERM User default has no permissions...");
    admin.expect("CONFIG SET requirepass secret", "+OK");
    server.connect().expect("PING", "-NOAUTH Authentication required.");
    admin.expect("PING", "+PONG");
    let mut client = server.connect();
    client.expect("AUTH secret", "+OK");
    client.expect("SET a 1", "-NOPERM User default has no permissions...");
    client.expect("RESET", "+RESET");
    client.expect("PING", "-NOAUTH Authentication required.");
    client.expect("HELLO 3 AUTH default secret", "?");
    client.assume(Protocol::Resp3);
    client.expect("PING", "+PONG");
    admin.expect("ACL SETUSER default off", "+OK");
    server.connect().expect("AUTH secret", "-WRONGPASS...");
    admin.expect("CONFIG SET requirepass ''", "+OK");
    admin.expect("ACL SETUSER default on +@all", "+OK");
    server.connect().expect("SET a 1", "+OK");
}

#[test]
fn databases_are_allowed_one_by_one() {
    if !is_carnelian() {
        return;
    }
    each_way(|client| {
        client.script(
            r#"
            ACL SETUSER bob reset on nopass ~* +@all db=1,2 => +OK
            ACL GETUSER bob => {flags ~[on nopass sanitize-payload] passwords [] commands "+@all" keys ~* channels "" databases db=1,2 selectors []}
            CONFIG RESETSTAT => +OK
            AUTH bob x => +OK
            GET a => -NOPERM No permissions to access database
            SELECT 3 => -NOPERM No permissions to access database
            SELECT 1 => +OK
            SET a 1 => +OK
            MOVE a 0 => -NOPERM No permissions to access database
            MOVE a 2 => :1
            SWAPDB 1 2 => +OK
            GET a => 1
            FLUSHALL => -NOPERM No permissions to access database
            FLUSHDB => +OK
            ACL SETUSER bob alldbs => +OK
            SELECT 3 => +OK
            SELECT 0 => +OK
            "#,
        );
        assert_eq!(client.info("acl_access_denied_db"), "4");
        client.expect("FLUSHALL", "+OK");
    });
}

#[test]
fn secrets_are_not_in_the_slow_log() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let mut client = server.connect();
    client.expect("ACL SETUSER bob on >hush-hush", "+OK");
    client.expect("AUTH bob hush-hush", "+OK");
    let mut admin = server.connect();
    let log = admin.call("SLOWLOG GET").to_string();
    assert!(log.contains("SETUSER") && log.contains("(redacted)"), "{log}");
    assert!(!log.contains("hush-hush"), "{log}");
    assert!(!admin.call("ACL LIST").to_string().contains("hush-hush"));
    assert!(!server.log().contains("hush-hush"));
}

#[test]
fn users_of_the_configuration_are_written_back_to_it() {
    let text = "requirepass secret\nuser alice on >password ~a* +get (~b +set)\n# a comment\n";
    let mut server = Server::starter().config(text).start();
    let mut client = server.connect();
    client.expect("AUTH alice password", "+OK");
    client.expect("GET a", "nil");
    client.expect("AUTH secret", "+OK");
    client.expect("ACL SETUSER bob on nopass +@read ~'quoted\\\"'", "+OK");
    client.expect("ACL SETUSER alice +set", "+OK");
    client.expect("CONFIG REWRITE", "+OK");
    let path = server.config_file().expect("started from a file").to_owned();
    let written = fs::read_to_string(&path).expect("a file");
    assert_eq!(written.lines().filter(|line| line.starts_with("user ")).count(), 3, "{written}");
    assert!(written.contains("# a comment") && !written.contains("password"), "{written}");
    let before = client.call("ACL LIST");
    server.restart();
    let mut client = server.connect();
    client.expect("AUTH secret", "+OK");
    assert_eq!(client.call("ACL LIST"), before);
    client.expect("AUTH alice password", "+OK");
}

#[test]
fn a_start_with_wrong_rules_fails() {
    for (config, reason) in [
        ("user alice on +nosuch\n", "Unknown command or category name in ACL"),
        ("user alice on ~a\nuser alice off\n", "Duplicate user found"),
        ("user alice on (+get\n", ""),
        ("aclfile users.acl\n", "Aborting Redis startup because of ACL errors"),
        ("aclfile users.acl\nuser alice on\n", "either an ACL file or declare users"),
    ] {
        let Err(failure) = Server::starter().config(config).try_start() else {
            panic!("{config}: it started");
        };
        assert!(format!("{failure:?}").contains(reason), "{config}: {failure:?}");
    }
}

#[test]
fn a_file_of_users_is_saved_and_loaded_whole() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("users.acl");
    fs::write(&file, "user alice on nopass ~a* +@all\nuser default on nopass ~* &* +@all\n")
        .expect("a writable folder");
    let server = Server::start(&["--aclfile", &file.to_string_lossy()]);
    let mut admin = server.connect();
    let mut alice = server.connect();
    alice.expect("AUTH alice x", "+OK");
    admin.expect("ACL SETUSER bob on nopass +@all ~* (~x +get)", "+OK");
    admin.expect("ACL SAVE", "+OK");
    let before = admin.call("ACL LIST");
    admin.expect("ACL DELUSER bob", ":1");
    admin.expect("ACL LOAD", "+OK");
    assert_eq!(admin.call("ACL LIST"), before);

    // A bad file changes nothing.
    let good = fs::read_to_string(&file).expect("it was saved");
    fs::write(&file, format!("{good}user carol +nosuch\nuser bob on\n")).expect("our own file");
    let error = admin.call("ACL LOAD").to_string();
    for part in
        [":4: Error in applying operation '+nosuch'", "Duplicate user 'bob' found on line 5"]
    {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(admin.call("ACL LIST"), before);
    alice.expect("SET a 1", "+OK");

    // Clients go on as what the file makes of their user, and go if it has none.
    let mut bob = server.connect();
    bob.expect("AUTH bob x", "+OK");
    fs::write(&file, "user alice on nopass ~b* +@all\n").expect("our own file");
    admin.expect("ACL LOAD", "+OK");
    alice.expect("SET a 1", "-NOPERM No permissions to access a key");
    alice.expect("SET b 1", "+OK");
    bob.expect_closed();
    admin.expect("ACL USERS", "[alice default]");
}

#[test]
fn a_certificate_names_the_user() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "clients");
    let alice = authority.client_with("a", "alice", &["urn:x:nobody", "urn:x:bob"]);
    let nobody = authority.client_with("n", "nobody", &[]);
    let nul = authority.client_with("z", "alice\0.example", &[]);
    let server = Server::starter().tls().start();
    let mut admin = server.connect();
    let trust = format!("CONFIG SET tls-ca-cert-file {}", authority.certificate.display());
    admin.expect(&trust, "+OK");
    admin.expect("CONFIG SET tls-auth-clients optional tls-auth-clients-user CN", "+OK");
    admin.expect("ACL SETUSER alice on certonly nopass +@all", "+OK");
    admin.expect("ACL SETUSER urn:x:bob on +@all", "+OK");
    let whoami = |identity: Option<&Identity>| {
        let options = server.tls_options();
        let options = match identity {
            Some(it) => TlsOptions::identity(options, &it.certificate, &it.key),
            None => options,
        };
        server.try_connect_tls(&options).expect("a handshake").call("ACL WHOAMI").text()
    };
    assert_eq!(whoami(Some(&alice)), "alice");
    assert_eq!(whoami(None), "default");
    for stranger in [&nobody, &nul] {
        assert_eq!(whoami(Some(stranger)), "default");
    }
    assert_eq!(admin.info("acl_access_denied_tls_cert"), "1");
    let log = admin.call("ACL LOG").to_string();
    assert!(log.contains("tls-cert") && log.contains("nobody"), "{log}");
    // Nobody is it by a password.
    admin.expect("AUTH alice x", "-WRONGPASS...");
    admin.expect("ACL SETUSER alice off", "+OK");
    assert_eq!(whoami(Some(&alice)), "default");
    admin.expect("CONFIG SET tls-auth-clients-user URI", "+OK");
    assert_eq!(whoami(Some(&alice)), "urn:x:bob");
    admin.expect("CONFIG SET tls-auth-clients-user off", "+OK");
    assert_eq!(whoami(Some(&alice)), "default");
}
