//! What can be read on the wire between two nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use carnelian_tests::cluster::{Member, PASSWORD};
use carnelian_tests::is_carnelian;
use carnelian_tests::server::free_port;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with};
use serde_json::json;

use crate::cluster::{eventually, eventually_linked};

/// A piece of a TCP stream, as it passed.
struct Piece {
    ports: [u16; 2],
    /// The number of its first byte in the stream.
    sequence: u32,
    bytes: Vec<u8>,
}

/// Keeps all TCP of this machine while it is there.
struct Capture {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Piece>>,
}

impl Capture {
    /// None where that is not allowed.
    fn begin() -> Option<Self> {
        let (family, kind) = (AddressFamily::PACKET, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(eth::ALL)).ok()?;
        let wait = Some(Duration::from_millis(20));
        set_socket_timeout(&socket, Timeout::Recv, wait).expect("a socket of our own");
        let _ = set_socket_recv_buffer_size(&socket, 64 << 20);
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let (mut frame, mut pieces) = (vec![0; 1 << 18], Vec::new());
            loop {
                match recv(&socket, &mut frame[..], RecvFlags::empty()) {
                    Ok((length, _)) => pieces.extend(piece(&frame[..length])),
                    Err(_) if ends.load(Ordering::Relaxed) => return pieces,
                    Err(_) => {}
                }
            }
        });
        Some(Self { is_over, thread })
    }

    fn end(self) -> Vec<Piece> {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("it only reads")
    }
}

/// Ethernet, IPv4, TCP.
fn piece(frame: &[u8]) -> Option<Piece> {
    let packet = frame.get(12..).and_then(|rest| rest.strip_prefix(&[8, 0]))?;
    let segment = packet.get(usize::from(packet.first()? & 15) * 4..)?;
    if *packet.get(9)? != 6 {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?]));
    let bytes = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?.to_vec();
    let sequence = u32::from_be_bytes(segment.get(4..8)?.try_into().ok()?);
    Some(Piece { ports: [port(0)?, port(2)?], sequence, bytes })
}

/// What went in each direction of each connection, as far as it was seen without a gap. Pieces are seen twice, when
/// they leave and when they arrive.
fn streams(pieces: &[Piece]) -> BTreeMap<[u16; 2], Vec<u8>> {
    let mut streams: BTreeMap<[u16; 2], (u32, Vec<u8>)> = BTreeMap::new();
    for piece in pieces.iter().filter(|it| !it.bytes.is_empty()) {
        let (next, bytes) =
            streams.entry(piece.ports).or_insert_with(|| (piece.sequence, Vec::new()));
        let known = next.wrapping_sub(piece.sequence) as usize;
        if let Some(new) = piece.bytes.get(known..) {
            bytes.extend(new);
            *next = next.wrapping_add(new.len() as u32);
        }
    }
    streams.into_iter().map(|(ports, (_, bytes))| (ports, bytes)).collect()
}

/// Where records of TLS stop being records.
fn first_foreign(stream: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some([kind, major, _, high, low]) = stream.get(at..at + 5) {
        if !(20..=23).contains(kind) || *major != 3 {
            return Some(at);
        }
        at += 5 + usize::from(u16::from_be_bytes([*high, *low]));
    }
    None
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn values_are_readable_between_nodes_only_while_encryption_is_off() {
    if !is_carnelian() {
        return;
    }
    let first = Member::create(1);
    let second = Member::start(2, PASSWORD, &["--cluster-join", &first.place()]);
    first.eventually_sees(2);
    let nodes = [first, second];
    let port = free_port();
    let spec = json!({
        "name": "wire", "port": port, "memory_size": 0, "replication": true,
        "data_internode_encryption": false,
    });
    let uid = nodes[0].change("POST", "/v1/bdbs", &spec)["uid"].as_u64().expect("its uid");
    let path = format!("/v1/bdbs/{uid}");
    nodes[0].eventually(&path, |database| database["status"] == "active");
    let places: Vec<_> = nodes[0].shards(uid, "role").iter().map(|(node, _)| node - 1).collect();
    let (primary, replica) = (&nodes[places[0]], &nodes[places[1]]);
    let own: Vec<u16> =
        nodes.iter().flat_map(|node| [node.internode_port, node.plain_port]).collect();
    let between = |pieces: Vec<Piece>| -> Vec<Piece> {
        let is_between = |it: &Piece| it.ports.iter().any(|port| own.contains(port));
        pieces.into_iter().filter(is_between).collect()
    };
    for (encrypted, how, value) in
        [(false, "link=plain", "seen-by-everybody"), (true, "link=tls", "seen-by-nobody-else")]
    {
        nodes[0].change("PUT", &path, &json!({"data_internode_encryption": encrypted}));
        nodes[0].eventually(&path, |database| database["status"] == "active");
        let (mut there, mut here) = (primary.client(port), replica.client(port));
        eventually_linked(&nodes, uid, how);
        let Some(capture) = Capture::begin() else { return };
        for round in 0..20 {
            eventually(&mut there, &format!("SET key-{value}-{round} {value}"), "+OK");
        }
        there.expect("WAIT 1 60000", ":1");
        here.expect(&format!("GET key-{value}-19"), value);
        let all = capture.end();
        // Clients speak plainly here: so it is known that the capture works.
        assert!(all.iter().any(|it| it.ports.contains(&port) && has(&it.bytes, value)));
        let pieces = between(all);
        assert!(pieces.iter().any(|it| !it.bytes.is_empty()), "{how}");
        let readable = pieces.iter().filter(|it| has(&it.bytes, value)).count();
        assert_eq!(0 < readable, !encrypted, "{how}: {readable} of {} pieces", pieces.len());
        if encrypted {
            let is_plain = |it: &&Piece| {
                it.ports.iter().any(|port| nodes.iter().any(|node| node.plain_port == *port))
            };
            assert_eq!(pieces.iter().filter(is_plain).count(), 0);
            for (ports, stream) in streams(&pieces) {
                if let Some(at) = first_foreign(&stream) {
                    let text = stream[at..stream.len().min(at + 64)].escape_ascii();
                    panic!("only TLS between nodes, but {ports:?} at {at}: {text}");
                }
            }
        }
    }
}
