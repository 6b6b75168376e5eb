//! Certificates, versions, sessions and closing.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use carnelian_tests::certificates::{Authority, Identity};
use carnelian_tests::server::{Ready, Signal};
use carnelian_tests::{Client, Server, TlsOptions, Transport, is_carnelian, require_or_skip};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, StreamOwned};

use super::replication_replica::eventually_logged;

#[test]
fn the_first_start_makes_certificates_and_the_next_keeps_them() {
    if !is_carnelian() {
        return;
    }
    let mut server = Server::start(&[]);
    let ca = fs::read_to_string(server.ca()).expect("client-ca.pem in the data folder");
    assert_eq!(ca.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(!ca.contains("PRIVATE KEY"));
    let keys = files_with(server.folder(), "PRIVATE KEY");
    assert!(keys.len() >= 2, "the authority's key and the server's: {keys:?}");
    for key in &keys {
        let mode = fs::metadata(key).expect("a file just read").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", key.display());
    }
    let before = presented(&server, &server.tls_options());
    server.restart();
    assert_eq!(fs::read_to_string(server.ca()).expect("still there"), ca);
    assert_eq!(presented(&server, &server.tls_options()), before);
}

#[test]
fn names_in_the_certificate() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--tls-san", "redis.example.org"]);
    for name in ["127.0.0.1", "localhost", "redis.example.org"] {
        let options = server.tls_options().server_name(name);
        let client = server.try_connect_tls(&options);
        client.unwrap_or_else(|error| panic!("{name}: {error:#}")).expect("PING", "+PONG");
    }
    assert!(server.try_connect_tls(&server.tls_options().server_name("other.example")).is_err());
}

#[test]
fn versions() {
    let server = Server::starter().tls().start();
    for version in rustls::ALL_VERSIONS {
        let options = server.tls_options().version(version);
        server.try_connect_tls(&options).expect("both versions").expect("PING", "+PONG");
    }
    let mut control = server.connect();
    control.expect("CONFIG SET tls-protocols TLSv1.3", "+OK");
    assert!(pings(&server, &server.tls_options().version(&rustls::version::TLS13)));
    assert!(!pings(&server, &server.tls_options().version(&rustls::version::TLS12)));
    control.expect("CONFIG SET tls-protocols TLSv1.2", "+OK");
    assert!(!pings(&server, &server.tls_options().version(&rustls::version::TLS13)));
    assert!(pings(&server, &server.tls_options().version(&rustls::version::TLS12)));
    control.expect("CONFIG SET tls-protocols SSLv9", "-ERR...");
    assert!(pings(&server, &server.tls_options().version(&rustls::version::TLS12)));
}

#[test]
fn key_exchange_withstands_quantum_computers() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&[]);
    let client = server.connect_tls();
    let session = client.transport().session().expect("a TLS client");
    let group = session.negotiated_key_exchange_group().expect("a finished handshake");
    assert_eq!(group.name(), NamedGroup::X25519MLKEM768);
}

#[test]
fn sessions_are_resumed() {
    let server = Server::starter().tls().start();
    for version in rustls::ALL_VERSIONS {
        let config =
            Arc::new(server.tls_options().version(version).config().expect("a configuration"));
        assert_eq!(handshake_kind(&server, &config), HandshakeKind::Full);
        assert_eq!(handshake_kind(&server, &config), HandshakeKind::Resumed, "{version:?}");
    }
}

#[test]
fn client_certificates() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "clients");
    let stranger = Authority::new(folder.path(), "strangers");
    let (known, unknown) = (authority.client("known"), stranger.client("unknown"));
    let server = Server::starter().tls().start();
    let mut control = server.connect();
    let with =
        |identity: &Identity| server.tls_options().identity(&identity.certificate, &identity.key);
    let trust = format!("CONFIG SET tls-ca-cert-file {}", authority.certificate.display());
    control.expect(&trust, "+OK");

    control.expect("CONFIG SET tls-auth-clients yes", "+OK");
    assert!(pings(&server, &with(&known)));
    assert!(!pings(&server, &with(&unknown)));
    assert!(!pings(&server, &server.tls_options()));

    control.expect("CONFIG SET tls-auth-clients optional", "+OK");
    assert!(pings(&server, &with(&known)));
    assert!(!pings(&server, &with(&unknown)));
    assert!(pings(&server, &server.tls_options()));

    control.expect("CONFIG SET tls-auth-clients no", "+OK");
    assert!(pings(&server, &server.tls_options()));
    control.expect("CONFIG SET tls-auth-clients perhaps", "-ERR...");
    // A client whose certificate is checked can still speak plainly on a port for that.
    server.connect().expect("PING", "+PONG");
}

#[test]
fn certificates_are_swapped_while_running() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "other");
    let (new, other) = (authority.server("new"), authority.server("unrelated"));
    let server = Server::starter().tls().start();
    let mut established = server.connect_tls();
    let mut control = server.connect();
    let old = presented(&server, &server.tls_options());
    let trusting_new = TlsOptions::trusting(&authority.certificate);
    let set = |certificate: &Path, key: &Path| {
        format!("CONFIG SET tls-cert-file {} tls-key-file {}", certificate.display(), key.display())
    };

    // What cannot work is refused, and the old certificate stays.
    let nothing = folder.path().join("nothing.crt");
    let garbage = folder.path().join("garbage.crt");
    fs::write(&garbage, "not a certificate").expect("a writable folder");
    for (certificate, key) in [
        (&nothing, &new.key),
        (&garbage, &new.key),
        (&new.certificate, &nothing),
        (&new.certificate, &garbage),
        (&new.certificate, &other.key),
    ] {
        control.expect(&set(certificate, key), "-ERR CONFIG SET failed...");
        assert_eq!(presented(&server, &server.tls_options()), old);
    }

    control.expect(&set(&new.certificate, &new.key), "+OK");
    assert_ne!(presented(&server, &trusting_new), old);
    assert!(!pings(&server, &server.tls_options()));
    established.expect("PING", "+PONG");
    let shown = control.call("CONFIG GET tls-cert-file").elements()[1].text();
    assert_eq!(Path::new(&shown), new.certificate);
}

/// `tls-auto-reload-interval`: what is put into the files is shown without a word to the server.
#[test]
fn changed_files_are_noticed() {
    if !is_carnelian() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "files");
    let (old, new) = (authority.server("old"), authority.server("new"));
    let (certificate, key) = (folder.path().join("shown.crt"), folder.path().join("shown.key"));
    let put = |identity: &Identity| {
        for (from, to) in [(&identity.certificate, &certificate), (&identity.key, &key)] {
            // As tools do that replace a file: it is never half there.
            fs::copy(from, to.with_extension("new")).expect("a writable folder");
            fs::rename(to.with_extension("new"), to).expect("a writable folder");
        }
    };
    put(&old);
    let server = Server::starter()
        .args(&["--tls-cert-file", &certificate.display().to_string()])
        .args(&["--tls-key-file", &key.display().to_string()])
        .start();
    let options = TlsOptions::trusting(&authority.certificate);
    let before = presented(&server, &options);
    let mut established = Client::over(Transport::tls(server.port(), &options).expect("TLS"));
    let mut control = server.connect();
    put(&new);
    control.expect("CONFIG SET tls-auto-reload-interval 1", "+OK");
    eventually_logged(&server, "TLS materials reloaded successfully");
    let after = presented(&server, &options);
    assert_ne!(after, before);
    established.expect("PING", "+PONG");
    // What will not do changes nothing, and is told once.
    fs::write(&certificate, "not a certificate").expect("a writable folder");
    eventually_logged(&server, "Failed to configure TLS");
    assert_eq!(presented(&server, &options), after);
    put(&old);
    let deadline = Instant::now() + Duration::from_secs(30);
    while presented(&server, &options) != before {
        assert!(Instant::now() < deadline, "{}", server.log());
        sleep(Duration::from_millis(50));
    }
    established.expect("PING", "+PONG");
}

#[test]
fn a_key_may_be_locked_with_a_password() {
    let Some(openssl) = require_or_skip("openssl") else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "locked-ca");
    let identity = authority.server("locked");
    let locked = folder.path().join("locked.pem");
    let status = Command::new(openssl)
        .args(["pkcs8", "-topk8", "-v2", "aes-256-cbc", "-passout", "pass:sesame", "-in"])
        .arg(&identity.key)
        .arg("-out")
        .arg(&locked)
        .status();
    assert!(status.expect("openssl runs").success());
    let server = Server::starter().tls().start();
    let mut control = server.connect();
    let set = |password: &str| {
        format!(
            "CONFIG SET tls-cert-file {} tls-key-file {} tls-key-file-pass {password}",
            identity.certificate.display(),
            locked.display()
        )
    };
    control.expect(&set("wrong"), "-ERR CONFIG SET failed...");
    control.expect(&set("sesame"), "+OK");
    assert!(pings(&server, &TlsOptions::trusting(&authority.certificate)));
}

#[test]
fn a_handshake_that_does_not_come_forward_is_given_up() {
    if !is_carnelian() {
        return;
    }
    let server = Server::start(&["--tls-handshake-timeout", "500"]);
    let mut hello = Vec::new();
    let mut connection = server.tls_options().connection().expect("a client configuration");
    connection.write_tls(&mut hello).expect("writing to memory");
    for sent in [1, 5, hello.len() / 2, hello.len()] {
        let mut client = server.connect();
        client.send(&hello[..sent]);
        let start = Instant::now();
        client.read_to_close();
        assert!(start.elapsed() < Duration::from_secs(5), "{sent} bytes sent");
    }
    // Who has said nothing may still become a plain client.
    let mut silent = server.connect();
    sleep(Duration::from_millis(1500));
    silent.expect("PING", "+PONG");
}

#[test]
fn every_close_is_announced() {
    let mut server = Server::starter().tls().start();
    let mut control = server.connect();

    let mut quitting = tls_stream(&server);
    quitting.write_all(b"QUIT\r\n").expect("an open stream");
    assert!(ends_with_close_notify(&mut quitting));

    let mut malformed = tls_stream(&server);
    malformed.write_all(b"*1\r\n!\r\n").expect("an open stream");
    assert!(ends_with_close_notify(&mut malformed));

    let mut killed = tls_stream(&server);
    killed.write_all(b"CLIENT ID\r\n").expect("an open stream");
    let mut reply = [0; 64];
    let length = killed.read(&mut reply).expect("an id");
    let id = String::from_utf8_lossy(&reply[1..length]).trim().to_owned();
    control.expect(&format!("CLIENT KILL ID {id}"), ":1");
    assert!(ends_with_close_notify(&mut killed));

    if is_carnelian() {
        let mut leaving = tls_stream(&server);
        leaving.conn.send_close_notify();
        leaving.flush().expect("an open stream");
        assert!(ends_with_close_notify(&mut leaving));

        // A reply shows that the server has seen the end of the handshake too.
        let mut last = tls_stream(&server);
        last.write_all(b"PING\r\n").expect("an open stream");
        last.read_exact(&mut [0; 7]).expect("a reply");
        server.signal(Signal::TERM);
        assert!(ends_with_close_notify(&mut last));
        assert!(server.wait().success());
    }
}

#[test]
fn tls_port_and_port_keep_their_meaning() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = Authority::new(folder.path(), "ca");
    let identity = authority.server("server");
    let tls_port = carnelian_tests::server::free_port();
    let server = Server::starter()
        .args(&["--port", "0", "--tls-port", &tls_port.to_string(), "--tls-auth-clients", "no"])
        .args(&["--tls-cert-file", &identity.certificate.to_string_lossy()])
        .args(&["--tls-key-file", &identity.key.to_string_lossy()])
        .args(&["--tls-ca-cert-file", &authority.certificate.to_string_lossy()])
        .ready_when(Ready::Log("Ready to accept connections"))
        .start();
    let options = TlsOptions::trusting(&authority.certificate);
    let mut client = Client::over(Transport::tls(tls_port, &options).expect("a TLS port"));
    client.expect("PING", "+PONG");
    assert!(Transport::tcp(server.port()).is_err(), "port 0 closes the other");
    // Redis's TLS port speaks nothing else.
    let mut plain = Client::over(Transport::tcp(tls_port).expect("an open port"));
    let _ = plain.try_send(b"PING\r\n");
    let rest = plain.read_to_close();
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

fn tls_stream(server: &Server) -> StreamOwned<ClientConnection, TcpStream> {
    let mut connection = server.tls_options().connection().expect("a client configuration");
    let mut socket = TcpStream::connect(("127.0.0.1", server.tls_port())).expect("an open port");
    socket.set_read_timeout(Some(carnelian_tests::transport::PATIENCE)).expect("a socket option");
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).expect("a handshake");
    }
    StreamOwned::new(connection, socket)
}

/// Reads to the end: true when it was announced, false when the stream was only cut off.
fn ends_with_close_notify(stream: &mut StreamOwned<ClientConnection, TcpStream>) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => false,
        Err(error) => panic!("neither closed nor announced: {error}"),
    }
}

/// The certificate a server presents.
fn presented(server: &Server, options: &TlsOptions) -> Vec<u8> {
    let client = server.try_connect_tls(options).expect("a handshake");
    let session = client.transport().session().expect("a TLS client");
    session.peer_certificates().expect("a finished handshake")[0].to_vec()
}

/// Whether a client with these options gets an answer. With TLS 1.3 a refusal of the client's
/// certificate arrives only after its side of the handshake.
fn pings(server: &Server, options: &TlsOptions) -> bool {
    let Ok(mut client) = server.try_connect_tls(options) else { return false };
    client.try_send(b"PING\r\n").is_ok() && client.try_read().is_ok()
}

fn handshake_kind(server: &Server, config: &Arc<ClientConfig>) -> HandshakeKind {
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    let socket = TcpStream::connect(("127.0.0.1", server.tls_port())).expect("an open port");
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(b"PING\r\n").expect("a handshake");
    // The session's ticket comes before or with the first reply.
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).expect("a reply");
    stream.conn.handshake_kind().expect("a finished handshake")
}

/// The files below a folder that contain a text.
fn files_with(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a folder").path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if String::from_utf8_lossy(&fs::read(&path).expect("a file")).contains(text) {
            found.push(path);
        }
    }
    found
}
