//! Commands on several keys are atomic, whatever reactor runs them: all locks before the first look.

use std::thread::scope;

use carnelian_tests::{Client, Reply, Server};

const ROUNDS: usize = 3000;
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[test]
fn a_reader_never_sees_half_of_an_mset() {
    let server = Server::start(&["--io-threads", "4"]);
    server.connect().expect("MSET a 0 b 0 c 0 d 0 e 0 f 0", "+OK");
    scope(|threads| {
        for writer in 0..3 {
            let mut client = server.connect();
            threads.spawn(move || {
                for round in 0..ROUNDS {
                    let value = format!("{writer}:{round}");
                    let mut words = vec!["MSET"];
                    // Each writer names the keys in another order: the locks' order is the server's.
                    for place in 0..KEYS.len() {
                        words.extend([KEYS[(place + 2 * writer) % KEYS.len()], value.as_str()]);
                    }
                    client.call_words(&words);
                }
            });
        }
        for _ in 0..3 {
            let mut client = server.connect();
            threads.spawn(move || {
                for _ in 0..ROUNDS {
                    assert_all_equal(&mut client);
                }
            });
        }
    });
}

fn assert_all_equal(client: &mut Client) {
    let reply = client.call("MGET a b c d e f");
    let Reply::Array(values) = &reply else { panic!("{reply:?}") };
    assert!(values.iter().all(|value| *value == values[0]), "half of a change: {reply:?}");
}

#[test]
fn what_moves_between_keys_is_in_one_of_them() {
    let server = Server::start(&["--io-threads", "4"]);
    server.connect().expect("SADD x token", ":1");
    scope(|threads| {
        for (from, to) in [("x", "y"), ("y", "x")] {
            let mut client = server.connect();
            threads.spawn(move || {
                for _ in 0..ROUNDS {
                    client.call_words(&["SMOVE", from, to, "token"]);
                }
            });
        }
        let mut client = server.connect();
        threads.spawn(move || {
            for _ in 0..ROUNDS {
                client.expect("SUNION x y", "~[token]");
            }
        });
    });
}
