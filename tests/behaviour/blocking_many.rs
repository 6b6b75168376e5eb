//! Many clients that wait for the same keys, over several reactors.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use carnelian_tests::{Client, Reply, Server};

const REACTORS: &[&str] = &["--io-threads", "4"];

/// Waits until so many clients are blocked.
fn until_blocked(observer: &mut Client, clients: usize) {
    for _ in 0..4000 {
        if observer.info("blocked_clients") == clients.to_string() {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{} clients are blocked, not {clients}", observer.info("blocked_clients"));
}

/// The elements named in a reply: whatever begins with `e`, however deep.
fn elements(reply: &Reply, found: &mut Vec<String>) {
    match reply {
        Reply::Array(replies) => replies.iter().for_each(|reply| elements(reply, found)),
        reply => {
            let text = reply.to_string();
            let text = text.trim_matches('"');
            if text.starts_with('e') {
                found.push(text.to_owned());
            }
        }
    }
}

/// Sends a command again and again until it gets `end`. What it got before.
fn work(mut client: Client, command: &str) -> Vec<String> {
    let mut got = Vec::new();
    loop {
        let reply = client.call(command);
        assert!(!reply.is_error(), "{command}: {reply}");
        elements(&reply, &mut got);
        if got.last().is_some_and(|last| last.starts_with("end")) {
            got.pop();
            return got;
        }
    }
}

/// Adds elements to the lists and sorted sets in many ways. Their names.
fn produce(mut client: Client, producer: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut name = || {
        names.push(format!("e{producer}-{}", names.len()));
        names.last().cloned().expect("it was just put there")
    };
    for round in 0..60 {
        let list = round % 3;
        for command in [
            format!("RPUSH l{list} {}", name()),
            format!("LPUSH l{list} {} {} {}", name(), name(), name()),
            format!("EVAL \"return redis.call('rpush', KEYS[1], ARGV[1])\" 1 l0 {}", name()),
            "MULTI".to_owned(),
            format!("RPUSH l1 {}", name()),
            format!("RPUSH l2 {}", name()),
            format!("ZADD z0 {round} {}", name()),
            "EXEC".to_owned(),
            format!("ZADD z1 1 {} 2 {}", name(), name()),
        ] {
            let reply = client.call(&command);
            assert!(!reply.is_error(), "{command}: {reply}");
        }
    }
    names
}

#[test]
fn nothing_is_lost_or_served_twice() {
    let server = Server::start(REACTORS);
    let mut observer = server.connect();
    let lists = [
        "BLPOP l0 l1 l2 0",
        "BRPOP l2 l1 l0 0",
        "BLMPOP 0 3 l1 l0 l2 LEFT COUNT 2",
        "BLMOVE l0 moved LEFT RIGHT 0",
        "BRPOPLPUSH l0 moved 0",
    ];
    let sets = ["BZPOPMIN z0 z1 0", "BZPOPMAX z1 z0 0", "BZMPOP 0 2 z1 z0 MIN COUNT 2"];
    let commands: Vec<&str> = lists.into_iter().chain(sets).cycle().take(32).collect();
    let is_mover = |command: &str| command.contains("moved");
    let workers: Vec<_> = commands
        .iter()
        .map(|&command| {
            let client = server.connect();
            (command, thread::spawn(move || work(client, command)))
        })
        .collect();
    let producers: Vec<_> = (0..5)
        .map(|producer| {
            let client = server.connect();
            thread::spawn(move || produce(client, producer))
        })
        .collect();
    let mut expected: Vec<String> =
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
    observer.eventually("EXISTS l0 l1 l2 z0 z1", ":0");
    until_blocked(&mut observer, commands.len());
    // One at a time, since some take two at once.
    let mut left = commands.len();
    for (kind, push) in [(&lists[..], "RPUSH l0 end"), (&sets[..], "ZADD z0 1 end")] {
        for _ in commands.iter().filter(|command| kind.contains(command)) {
            observer.expect(push, ":1");
            left -= 1;
            until_blocked(&mut observer, left);
        }
    }
    let (mut got, mut moved) = (Vec::new(), Vec::new());
    for (command, worker) in workers {
        let elements = worker.join().unwrap();
        if is_mover(command) {
            moved.extend(elements.iter().cloned());
        }
        got.extend(elements);
    }
    let mut in_target = Vec::new();
    elements(&observer.call("LRANGE moved 0 -1"), &mut in_target);
    in_target.retain(|element| element != "end");
    for list in [&mut expected, &mut got, &mut moved, &mut in_target] {
        list.sort();
    }
    let mut times: BTreeMap<&str, i32> = BTreeMap::new();
    expected.iter().for_each(|element| *times.entry(element).or_default() += 1);
    got.iter().for_each(|element| *times.entry(element).or_default() -= 1);
    times.retain(|_, times| *times != 0);
    assert!(times.is_empty(), "lost (1) or served twice (-1): {times:?}");
    assert_eq!(moved, in_target);
    for field in ["blocked_clients", "total_blocking_keys"] {
        assert_eq!(observer.info(field), "0", "{field}");
    }
}

#[test]
fn what_ends_in_vain_takes_nothing() {
    let server = Server::start(REACTORS);
    let mut observer = server.connect();
    let workers: Vec<_> = (0..16)
        .map(|worker| {
            let mut client = server.connect();
            let id = client.call("CLIENT ID").to_string().trim_start_matches(':').to_owned();
            // Some wait for so short that time limits and elements meet; others are woken in vain.
            let command = match worker % 4 {
                0 => "BLPOP l m 0.001",
                1 => "BLMPOP 0.002 2 m l RIGHT",
                2 => "BRPOP m l 0.003",
                _ => "BLPOP l m 0",
            };
            (id, thread::spawn(move || work(client, command)))
        })
        .collect();
    let ids: Vec<String> = workers.iter().map(|(id, _)| id.clone()).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let disturber = {
        let (mut client, is_over) = (server.connect(), Arc::clone(&is_over));
        thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for id in &ids {
                    client.call(&format!("CLIENT UNBLOCK {id}"));
                }
            }
        })
    };
    let mut expected = Vec::new();
    for number in 0..2000 {
        let list = if number % 3 == 0 { "m" } else { "l" };
        expected.push(format!("e{number}"));
        let reply = observer.call(&format!("RPUSH {list} e{number}"));
        assert!(!reply.is_error(), "{reply}");
    }
    observer.eventually("EXISTS l m", ":0");
    for _ in &workers {
        observer.expect("RPUSH l end", "?");
        observer.eventually("EXISTS l", ":0");
    }
    let mut got: Vec<String> =
        workers.into_iter().flat_map(|(_, worker)| worker.join().unwrap()).collect();
    is_over.store(true, Ordering::Relaxed);
    disturber.join().unwrap();
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    assert_eq!(observer.info("blocked_clients"), "0");
}

#[test]
fn each_entry_goes_to_one_member_of_a_group() {
    let server = Server::start(REACTORS);
    let mut observer = server.connect();
    observer.expect("XGROUP CREATE s g $ MKSTREAM", "+OK");
    let workers: Vec<_> = (0..12)
        .map(|member| {
            let client = server.connect();
            thread::spawn(move || {
                let command = format!("XREADGROUP GROUP g c{member} COUNT 1 BLOCK 0 STREAMS s >");
                work(client, &command)
            })
        })
        .collect();
    until_blocked(&mut observer, workers.len());
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let mut client = server.connect();
            thread::spawn(move || {
                let names = (0..150).map(|number| format!("e{producer}-{number}"));
                let names: Vec<String> = names.collect();
                for name in &names {
                    client.call(&format!("XADD s * {name} v"));
                }
                names
            })
        })
        .collect();
    let mut expected: Vec<String> =
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect();
    for left in (0..workers.len()).rev() {
        until_blocked(&mut observer, left + 1);
        observer.expect("XADD s * end v", "?");
    }
    let mut got: Vec<String> =
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
    until_blocked(&mut observer, 0);
}

#[test]
fn a_long_line_is_served_from_its_head() {
    let server = Server::start(REACTORS);
    let mut observer = server.connect();
    let mut waiting: Vec<Client> = (0..64).map(|_| server.connect()).collect();
    for (place, client) in waiting.iter_mut().enumerate() {
        client.send(b"BLPOP other k 0\r\n");
        until_blocked(&mut observer, place + 1);
    }
    // One command, a pipeline and a transaction.
    let numbers = |range: std::ops::Range<usize>| {
        range.map(|number| number.to_string()).collect::<Vec<_>>().join(" ")
    };
    observer.expect(&format!("RPUSH k {}", numbers(0..20)), ":20");
    let single: String = (20..40).map(|number| format!("LPUSH k {number}\r\n")).collect();
    observer.send(single.as_bytes());
    for _ in 20..40 {
        observer.expect_next(":1");
    }
    let transaction = format!("MULTI\r\nRPUSH k {}\r\nEXEC\r\n", numbers(40..64));
    observer.send(transaction.as_bytes());
    observer.expect_next("+OK");
    observer.expect_next("+QUEUED");
    observer.expect_next("[:24]");
    for (place, client) in waiting.iter_mut().enumerate() {
        client.expect_next(&format!("[k {place}]"));
    }
    until_blocked(&mut observer, 0);
    observer.expect("EXISTS k", ":0");
}

#[test]
fn processes_that_are_killed_leave_their_places() {
    let server = Server::start(REACTORS);
    let mut observer = server.connect();
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{} && printf 'BLPOP k 0\\r\\n' >&3 && read -r -u 3",
        server.port()
    );
    let mut children: Vec<_> = (0..8)
        .map(|_| {
            let mut bash = Command::new("bash");
            bash.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
            bash.spawn().expect("bash runs")
        })
        .collect();
    until_blocked(&mut observer, children.len());
    let mut last = server.connect();
    last.send(b"BLPOP k 0\r\n");
    until_blocked(&mut observer, children.len() + 1);
    for child in &mut children {
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
    }
    until_blocked(&mut observer, 1);
    observer.expect("RPUSH k a", ":1");
    last.expect_next("[k a]");
    observer.expect("EXISTS k", ":0");
    assert_eq!(observer.info("connected_clients"), "2");
}

/// How many more files a process may open, with some to spare.
fn files_left() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse::<usize>().ok()).unwrap_or(0).saturating_sub(300)
}

/// Has so many clients wait for a key, as far as there are files. They come in order up to the second.
fn idle(server: &Server, observer: &mut Client, clients: usize) -> Vec<Client> {
    let clients = clients.min(files_left());
    let mut idle = Vec::with_capacity(clients);
    for place in 0..clients {
        let mut client = server.connect();
        client.send(b"BLPOP k 0\r\n");
        if place == 0 {
            until_blocked(observer, 1);
        }
        idle.push(client);
    }
    until_blocked(observer, clients);
    idle
}

#[test]
fn one_of_a_thousand_is_woken() {
    let server = Server::start(&["--io-threads", "4", "--maxclients", "1100"]);
    let mut observer = server.connect();
    let mut idle = idle(&server, &mut observer, 1000);
    let left = idle.len() - 1;
    observer.expect("RPUSH k a", ":1");
    idle[0].expect_next("[k a]");
    assert_eq!(observer.info("blocked_clients"), left.to_string());
    drop(idle);
    until_blocked(&mut observer, 0);
}

/// How often reactors have woken up.
fn turns(observer: &mut Client) -> u64 {
    observer.info("eventloop_cycles").parse().expect("a number")
}

#[test]
fn clients_that_wait_wake_nobody() {
    const REACTORS: u64 = 2;
    let server = Server::start(&["--io-threads", "2", "--hz", "10", "--maxclients", "3000"]);
    let mut observer = server.connect();
    let mut idle = idle(&server, &mut observer, 2000);
    let (before, start) = (turns(&mut observer), Instant::now());
    thread::sleep(Duration::from_millis(1500));
    let spent = turns(&mut observer) - before;
    // Each reactor's ticks, and the observer's two requests. A slow machine has fewer of them, not more.
    let ticks = REACTORS * (start.elapsed().as_millis() as u64 / 100 + 2);
    assert!(spent <= ticks + 4, "{spent} turns in {:?}", start.elapsed());
    observer.expect("RPUSH k a", ":1");
    idle[0].expect_next("[k a]");
}
