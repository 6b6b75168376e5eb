//! Plaintext and TLS on one port, told apart by the first byte.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{scope, sleep};
use std::time::Duration;

use carnelian_tests::{Client, Server, TlsOptions, Transport, is_carnelian};
use rustls::ClientConnection;

#[test]
fn both_are_served_side_by_side() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let mut plain = server.connect();
    let mut tls = server.connect_tls();
    assert_eq!(server.port(), server.tls_port());
    plain.expect("SET from plain", "+OK");
    tls.expect("GET from", "plain");
    tls.expect("SET from tls", "+OK");
    plain.expect("GET from", "tls");
    let listed = plain.call("CLIENT LIST").text();
    assert_eq!(listed.lines().count(), 2);
}

#[test]
fn a_client_hello_may_be_split_anywhere() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let options = server.tls_options();
    let length = client_hello(&options).1.len();
    let workers = 8;
    scope(|threads| {
        for worker in 0..workers {
            let (server, options) = (&server, &options);
            threads.spawn(move || {
                for cut in (1..length).skip(worker).step_by(workers) {
                    let (connection, hello) = client_hello(options);
                    let cut = cut.min(hello.len() - 1);
                    ping_after_hello(server, connection, &[&hello[..cut], &hello[cut..]]);
                }
            });
        }
    });
}

#[test]
fn a_client_hello_may_come_byte_by_byte() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    for version in rustls::ALL_VERSIONS {
        let (connection, hello) = client_hello(&server.tls_options().version(version));
        let bytes: Vec<&[u8]> = hello.chunks(1).collect();
        ping_after_hello(&server, connection, &bytes);
    }
}

/// A TLS session that has not sent anything yet, and the ClientHello it wants to send.
fn client_hello(options: &TlsOptions) -> (ClientConnection, Vec<u8>) {
    let mut connection = options.connection().expect("a client configuration");
    let mut hello = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut hello).expect("writing to memory");
    }
    (connection, hello)
}

/// Sends the pieces with pauses, finishes the handshake, and has a PING answered.
fn ping_after_hello(server: &Server, mut connection: ClientConnection, pieces: &[&[u8]]) {
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("the port answers");
    socket.set_nodelay(true).expect("a socket option");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    for (index, piece) in pieces.iter().enumerate() {
        if index != 0 {
            sleep(Duration::from_micros(if pieces.len() == 2 { 1000 } else { 200 }));
        }
        socket.write_all(piece).expect("an open socket");
    }
    let cut = pieces[0].len();
    let finished = loop {
        if !connection.is_handshaking() {
            break Ok(());
        }
        if let Err(error) = connection.complete_io(&mut socket) {
            break Err(error);
        }
    };
    finished.unwrap_or_else(|error| panic!("hello cut at {cut}: {error}"));
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.write_all(b"PING\r\n").expect("an open session");
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).unwrap_or_else(|error| panic!("hello cut at {cut}: {error}"));
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn early_data_behind_the_handshake_is_not_lost() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    // The Finished message and the first request travel in one segment.
    let (mut connection, hello) = client_hello(&server.tls_options());
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("the port answers");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket option");
    socket.write_all(&hello).expect("an open socket");
    connection.writer().write_all(b"SET a 1\r\nGET a\r\n").expect("buffered");
    while connection.is_handshaking() {
        connection.read_tls(&mut socket).expect("the server's flight");
        connection.process_new_packets().expect("a good flight");
    }
    let mut flight = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut flight).expect("writing to memory");
    }
    socket.write_all(&flight).expect("an open socket");
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).expect("two replies");
    assert_eq!(&reply, b"+OK\r\n$1\r\n1\r\n");
}

#[test]
fn the_mode_can_be_changed_while_running() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let mut tls = server.connect_tls();
    let mut plain = server.connect();
    tls.expect("CONFIG GET transit-encryption-mode", "{transit-encryption-mode preferred}");

    tls.expect("CONFIG SET transit-encryption-mode required", "+OK");
    let mut refused = server.connect();
    refused.expect_refusal(b"PING\r\n", "-ERR...");
    server.connect_tls().expect("PING", "+PONG");
    tls.expect("PING", "+PONG");

    tls.expect("CONFIG SET transit-encryption-mode disabled", "+OK");
    server.connect().expect("PING", "+PONG");
    assert!(server.try_connect_tls(&server.tls_options()).is_err());

    server.connect().expect("CONFIG SET transit-encryption-mode preferred", "+OK");
    server.connect().expect("PING", "+PONG");
    server.connect_tls().expect("PING", "+PONG");
    server.connect().expect(
        "CONFIG SET transit-encryption-mode sometimes",
        "-ERR CONFIG SET failed (possibly related to argument 'transit-encryption-mode') - argument(s) must be one of the following: ...",
    );
    drop(plain.try_send(b"PING\r\n"));
}

#[test]
fn a_required_port_refuses_plaintext_in_words() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--transit-encryption-mode", "required"]);
    for request in [&b"PING\r\n"[..], b"*1\r\n$4\r\nPING\r\n", b"\r\n", b"GET / HTTP/1.0\r\n\r\n"] {
        let mut client = server.connect();
        client.send(request);
        let text = String::from_utf8(client.read_to_close()).expect("text");
        assert!(text.starts_with("-ERR ") && text.ends_with("\r\n"), "{text:?}");
        assert!(text.contains("TLS"), "the refusal should say what is needed: {text:?}");
    }
    server.connect_tls().expect("PING", "+PONG");
}

#[test]
fn garbage_that_looks_like_tls_is_closed() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let mut bytes = vec![0x16];
        bytes.extend((0..random.usize(..600)).map(|_| random.u8(..)));
        let mut client = server.connect();
        let _ = client.try_send(&bytes);
    }
    // A record of another kind or a wrong version is answered with an alert and the close.
    for bytes in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x09\x09\xff\xff\x00\x00"] {
        let mut client = server.connect();
        client.send(bytes);
        let rest = client.read_to_close();
        assert!(rest.is_empty() || rest[0] == 0x15, "{}", rest.escape_ascii());
    }
    server.connect().expect("PING", "+PONG");
}

#[test]
fn garbage_after_the_handshake_ends_only_that_connection() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let mut bystander = server.connect_tls();
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("the port answers");
    let mut connection = server.tls_options().connection().expect("a client configuration");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).expect("a handshake");
    }
    socket.write_all(b"PING\r\nPING\r\nPING\r\n").expect("an open socket");
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!(!rest.windows(5).any(|window| window == b"+PONG"));
    bystander.expect("PING", "+PONG");
}

#[test]
fn many_handshakes_do_not_stop_an_established_client() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--io-threads", "1"]);
    let options = server.tls_options();
    let mut established = server.connect();
    scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..50 {
                    let transport = Transport::tls(server.port(), &options).expect("a handshake");
                    Client::over(transport).expect("PING", "+PONG");
                }
            });
        }
        for _ in 0..500 {
            established.expect("PING", "+PONG");
        }
    });
}
