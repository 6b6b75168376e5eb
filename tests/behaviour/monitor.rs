//! MONITOR: every command as it runs, without secrets.

use carnelian_tests::{Client, Server, is_carnelian};

/// The words of the next line, without time and address.
fn line(monitor: &mut Client) -> (String, String) {
    let line = monitor.read().text();
    let (_, rest) = line.split_once(" [").expect(&line);
    let (place, words) = rest.split_once("] ").expect(&line);
    let (db, source) = place.split_once(' ').expect(&line);
    let source = if source.contains(':') { "client" } else { source };
    (format!("{db} {source}"), words.to_owned())
}

fn expect(monitor: &mut Client, place: &str, words: &str) {
    assert_eq!(line(monitor), (place.to_owned(), words.to_owned()));
}

#[test]
fn commands_are_shown_in_their_order_to_all_who_watch() {
    let server = Server::starter().tls().start();
    let mut watchers = [server.connect(), server.connect_tls(), server.connect()];
    for watcher in &mut watchers {
        watcher.expect("MONITOR", "+OK");
    }
    let mut client = server.connect();
    client.expect("SET k \"v\\x00\"", "+OK");
    client.expect("SELECT 3", "+OK");
    client.expect("GET k", "nil");
    client.send(b"GET nope\r\nPING\r\nNOSUCH\r\nGET\r\nCONFIG GET port\r\nECHO end\r\n");
    for _ in 0..6 {
        client.read();
    }
    for watcher in &mut watchers {
        expect(watcher, "0 client", "\"SET\" \"k\" \"v\\x00\"");
        expect(watcher, "3 client", "\"SELECT\" \"3\"");
        expect(watcher, "3 client", "\"GET\" \"k\"");
        expect(watcher, "3 client", "\"GET\" \"nope\"");
        expect(watcher, "3 client", "\"PING\"");
        // Neither what is refused nor what administrates.
        expect(watcher, "3 client", "\"ECHO\" \"end\"");
    }
}

#[test]
fn secrets_are_not_shown() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut watcher = server.connect();
    watcher.expect("AUTH secret", "+OK");
    watcher.expect("MONITOR", "+OK");
    let mut client = server.connect();
    client.expect("AUTH default secret", "+OK");
    client.call("HELLO 3 AUTH default secret SETNAME me");
    client.expect("PING", "+PONG");
    expect(&mut watcher, "0 client", "\"AUTH\" \"(redacted)\" \"(redacted)\"");
    let (_, hello) = line(&mut watcher);
    assert_eq!(hello, "\"HELLO\" \"3\" \"AUTH\" \"(redacted)\" \"(redacted)\" \"SETNAME\" \"me\"");
    expect(&mut watcher, "0 client", "\"PING\"");
}

#[test]
fn what_runs_in_a_transaction_is_shown_as_it_runs() {
    let server = Server::start(&[]);
    let mut watcher = server.connect();
    watcher.expect("MONITOR", "+OK");
    let mut client = server.connect();
    client.expect("MULTI", "+OK");
    client.expect("SET k 1", "+QUEUED");
    client.expect("INCR k", "+QUEUED");
    client.expect("EXEC", "[+OK :2]");
    for words in ["\"MULTI\"", "\"SET\" \"k\" \"1\"", "\"INCR\" \"k\"", "\"EXEC\""] {
        expect(&mut watcher, "0 client", words);
    }
}

#[test]
fn a_watcher_is_a_client_like_others_and_stops_with_reset() {
    let server = Server::start(&[]);
    let mut watcher = server.connect();
    watcher.expect("MONITOR", "+OK");
    let mut client = server.connect();
    assert!(client.call("CLIENT LIST TYPE normal").text().contains(" flags=O "));
    if is_carnelian() {
        client.expect("CLIENT LIST NOT-FLAGS N TYPE replica", r#""""#);
    }
    watcher.expect("RESET", "+RESET");
    client.expect("PING", "+PONG");
    watcher.expect("ECHO me", "me");
    assert!(!client.call("CLIENT LIST").text().contains(" flags=O "));
}
