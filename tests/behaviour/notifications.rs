//! Keyspace notifications: their setting, their channels, and that every command's events are those
//! of Redis, in the same order.

use std::thread::sleep;
use std::time::Duration;

use carnelian_tests::matrix::WAYS;
use carnelian_tests::{Client, Protocol, Reply, Server, require_or_skip};

#[test]
fn the_setting_is_shown_as_redis_shows_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (set, shown) in [
        ("KEA", "AKE"),
        ("", "\"\""),
        ("Kx", "xK"),
        ("mEKg$lshzxetd", "AKEm"),
        ("nmEKxg", "gxnKEm"),
        ("g$lshzxetdn", "A"),
    ] {
        client.expect(&format!("CONFIG SET notify-keyspace-events \"{set}\""), "+OK");
        let expected = format!("{{notify-keyspace-events {shown}}}");
        client.expect("CONFIG GET notify-keyspace-events", &expected);
    }
    client.expect(
        "CONFIG SET notify-keyspace-events KQ",
        "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid \
         event class character. Use 'Ag$lshzxeKEtmdn'.",
    );
}

#[test]
fn events_come_on_both_kinds_of_channels() {
    let server = Server::starter().tls().start();
    let mut writer = server.connect();
    for way in WAYS {
        let client = if way.tls { server.connect_tls() } else { server.connect() };
        let mut client = client.speaking(way.protocol);
        writer.expect("FLUSHALL", "+OK");
        writer.expect("CONFIG SET notify-keyspace-events KEA", "+OK");
        client.expect("PSUBSCRIBE __key*__:*", ">[psubscribe __key*__:* :1]");
        writer.expect("SET k v", "+OK");
        client.expect_next(">[pmessage __key*__:* __keyspace@0__:k set]");
        client.expect_next(">[pmessage __key*__:* __keyevent@0__:set k]");
        writer.expect("SELECT 3", "+OK");
        writer.expect("CONFIG SET notify-keyspace-events E$", "+OK");
        writer.expect("RPUSH l a", ":1");
        writer.expect("APPEND k v", ":1");
        client.expect_next(">[pmessage __key*__:* __keyevent@3__:append k]");
        writer.expect("CONFIG SET notify-keyspace-events Kl", "+OK");
        writer.expect("APPEND k v", ":2");
        writer.expect("RPOP l", "a");
        client.expect_next(">[pmessage __key*__:* __keyspace@3__:l rpop]");
        writer.expect("CONFIG SET notify-keyspace-events A", "+OK");
        writer.expect("DEL k", ":1");
        writer.expect("SELECT 0", "+OK");
        writer.expect("PUBLISH __keyend__:x x", ":1");
        client.expect_next(">[pmessage __key*__:* __keyend__:x x]");
    }
}

#[test]
fn a_client_hears_of_its_own_commands_behind_their_replies() {
    let server = Server::start(&["--notify-keyspace-events", "EA"]);
    let mut client = server.connect().speaking(Protocol::Resp3);
    client.expect("SUBSCRIBE __keyevent@0__:set", ">[subscribe __keyevent@0__:set :1]");
    client.expect("SUBSCRIBE __keyevent@0__:del", ">[subscribe __keyevent@0__:del :2]");
    client.send(b"SET a 1\r\nGET a\r\nMSET b 1 c 1\r\nDEL a b\r\n");
    for expected in [
        "+OK",
        ">[message __keyevent@0__:set a]",
        "1",
        "+OK",
        ">[message __keyevent@0__:set b]",
        ">[message __keyevent@0__:set c]",
        ":2",
        ">[message __keyevent@0__:del a]",
        ">[message __keyevent@0__:del b]",
    ] {
        client.expect_next(expected);
    }
}

#[test]
fn keys_and_fields_that_nobody_asks_for_expire_with_an_event() {
    let server = Server::start(&["--notify-keyspace-events", "Exhg"]);
    let mut client = server.connect();
    let mut listener = server.connect();
    listener.expect("PSUBSCRIBE *:*expired *:del", ">[psubscribe *:*expired :1]");
    listener.expect_next(">[psubscribe *:del :2]");
    client.expect("SET k v PX 1", "+OK");
    listener.expect_next(">[pmessage *:*expired __keyevent@0__:expired k]");
    client.expect("HSET h f v", ":1");
    client.expect("HPEXPIRE h 1 FIELDS 1 f", "[:1]");
    listener.expect_next(">[pmessage *:*expired __keyevent@0__:hexpired h]");
    listener.expect_next(">[pmessage *:del __keyevent@0__:del h]");
}

/// A server, a client that changes keys, and one that listens.
struct Observed {
    writer: Client,
    listener: Client,
    _server: Server,
}

impl Observed {
    fn new(server: Server) -> Self {
        let mut writer = server.connect();
        let mut listener = server.connect();
        writer.expect("CONFIG SET notify-keyspace-events KEAmn", "+OK");
        writer.expect("DEBUG SET-ACTIVE-EXPIRE 0", "+OK");
        listener.expect("PSUBSCRIBE __key*__:* end", "[psubscribe __key*__:* :1]");
        listener.expect_next("[psubscribe end :2]");
        Self { writer, listener, _server: server }
    }

    /// Runs commands; the last one's reply, and the events that came of all.
    fn run(&mut self, commands: &str) -> (Reply, Vec<String>) {
        let replies = commands.split(" ; ").map(|command| self.writer.call(command));
        let reply = replies.last().expect("a command");
        self.writer.expect("PUBLISH end x", ":1");
        let mut events = Vec::new();
        loop {
            let Reply::Array(words) = self.listener.read() else { panic!("no message") };
            let words: Vec<String> = words.iter().map(Reply::text).collect();
            if words[1] == "end" {
                return (reply, events);
            }
            events.push(words[2..].join(" "));
        }
    }
}

/// Commands whose events are compared, one after the other. `sleep` lets short expiries pass; after
/// `!` events are not looked at, because either server may not have known the command before.
const COMMANDS: &str = include_str!("notifications.txt");

#[test]
fn the_events_of_every_command_are_those_of_redis() {
    let Some(peer) = require_or_skip("redis-server") else { return };
    let args = ["--enable-debug-command", "yes", "--save", ""];
    let mut ours = Observed::new(Server::start(&args));
    let mut theirs = Observed::new(Server::starter_of(&peer).args(&args).start());
    let version = theirs.writer.info("redis_version");
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()) < Some(8) {
        eprintln!("skipped: Redis {version} publishes other events than Redis 8");
        return;
    }
    let mut different = Vec::new();
    let mut compared = 0;
    for command in COMMANDS.lines().map(str::trim) {
        if command.is_empty() || command.starts_with('#') {
            continue;
        }
        if command == "sleep" {
            sleep(Duration::from_millis(20));
            continue;
        }
        if let Some(command) = command.strip_prefix("! ") {
            theirs.run(command);
            ours.run(command);
            continue;
        }
        let (theirs, expected) = theirs.run(command);
        // What an older Redis does not know must not change our data alone.
        if theirs.to_string().contains("unknown ") {
            continue;
        }
        let (ours, events) = ours.run(command);
        compared += 1;
        if events != expected {
            different.push(format!(
                "{command}\n  theirs {theirs} {expected:?}\n  ours   {ours} {events:?}"
            ));
        }
    }
    assert!(different.is_empty(), "of {compared}:\n{}", different.join("\n"));
}
