//! Other people's TLS as a second opinion: `openssl s_client` and `redis-cli` against a session of
//! ours on a real socket. Where one is not installed its test passes, unless
//! `CARNELIAN_REQUIRE_PEERS` is set.

#![allow(clippy::unwrap_used)] // all of this is a test, helpers included

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use carnelian_tls::{Acceptor, Identity, Settings, SubjectAltNames, TlsError, TlsSession};

/// A server that answers every `PING` with what was negotiated.
struct Server {
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = SubjectAltNames::for_listening::<&str>(&[], []).unwrap();
        let identity = Identity::SelfMade { folder: folder.path().to_owned(), names };
        let mut settings = Settings::new(identity);
        change(&mut settings);
        let acceptor = Arc::new(Acceptor::new(&settings, SystemTime::now()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, session) = (socket.unwrap(), acceptor.start().unwrap());
                thread::spawn(move || serve(socket, session));
            }
        });
        Self { port, folder }
    }

    fn ca(&self) -> &Path {
        self.folder.path()
    }

    /// Output of `openssl s_client` with these arguments after sending one PING, and whether the
    /// answer came.
    fn openssl(&self, arguments: &str) -> (bool, String) {
        let mut child = Command::new("openssl")
            .args(["s_client", "-connect", &format!("127.0.0.1:{}", self.port)])
            .args(["-CAfile", "client-ca.pem", "-verify_return_error", "-verify_hostname"])
            .args(["localhost", "-ign_eof"])
            .args(arguments.split_whitespace())
            .current_dir(self.ca())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The client may be gone already, when the handshake fails.
        let _ = child.stdin.take().unwrap().write_all(b"PING\r\n");
        let output = child.wait_with_output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (text.contains("+PONG"), text)
    }
}

fn serve(mut socket: TcpStream, mut session: TlsSession) -> Result<(), TlsError> {
    let mut buffer = vec![0; 16 * 1024];
    let (mut plaintext, mut outgoing) = (Vec::new(), Vec::new());
    loop {
        let length = match socket.read(&mut buffer) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => length,
        };
        let result = session.receive(&mut buffer[..length], &mut plaintext, &mut outgoing);
        if result.is_ok() && plaintext.windows(4).any(|word| word.eq_ignore_ascii_case(b"PING")) {
            let answer = format!(
                "+PONG {} {} {} {}\r\n",
                session.protocol(),
                session.cipher(),
                session.group(),
                if session.is_resumed() { "resumed" } else { "full" }
            );
            session.send(answer.as_bytes(), &mut outgoing)?;
            session.close_notify(&mut outgoing);
        }
        let written = socket.write_all(&outgoing);
        outgoing.clear();
        result?;
        if written.is_err() {
            return Ok(());
        }
    }
}

fn is_installed(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok();
    let required = std::env::var_os("CARNELIAN_REQUIRE_PEERS").is_some();
    assert!(found || !required, "{program} is not installed");
    found
}

#[test]
fn openssl_gets_the_version_the_suite_and_the_leaf_it_can_use() {
    if !is_installed("openssl", "version") {
        return;
    }
    const EC: &str = "PKEY: id-ecPublicKey";
    const RSA: &str = "PKEY: rsaEncryption";
    let server = Server::start(|_| {});
    for (arguments, answer, shown) in [
        ("-tls1_3", "+PONG TLSv1.3 TLS_AES_256_GCM_SHA384 X", EC),
        ("-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20", EC),
        ("-tls1_3 -groups P-384", "secp384r1 full", EC),
        ("-tls1_2", "+PONG TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384", EC),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "TLSv1.2 ECDHE-RSA-AES256", RSA),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2 ECDHE-RSA-AES128", RSA),
        ("-tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305", "TLSv1.2 ECDHE-RSA-CHACHA", RSA),
        ("-tls1_3 -sigalgs RSA-PSS+SHA256", "TLSv1.3", RSA),
    ] {
        let (answered, output) = server.openssl(arguments);
        assert!(answered && output.contains(answer), "{arguments}: {output}");
        assert!(output.contains("Verify return code: 0 (ok)"), "{arguments}: {output}");
        assert!(output.contains(shown), "{arguments}: {output}");
    }
    for refused in [
        "-tls1_1 -cipher ALL:@SECLEVEL=0",
        "-tls1_2 -cipher AES256-GCM-SHA384",
        "-tls1_2 -cipher ECDHE-RSA-AES256-SHA384",
    ] {
        let (answered, output) = server.openssl(refused);
        assert!(!answered && output.contains("alert"), "{refused}: {output}");
    }
}

#[test]
fn openssl_resumes_by_ticket_and_by_session_id() {
    if !is_installed("openssl", "version") {
        return;
    }
    let server = Server::start(|_| {});
    for arguments in ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"] {
        let (_, first) = server.openssl(&format!("{arguments} -sess_out session"));
        assert!(first.contains("full"), "{arguments}: {first}");
        let (_, second) = server.openssl(&format!("{arguments} -sess_in session"));
        assert!(second.contains("resumed"), "{arguments}: {second}");
    }
    let without = Server::start(|settings| settings.session_caching.enabled = false);
    for arguments in ["-tls1_3", "-tls1_2", "-tls1_2 -no_ticket"] {
        let (_, first) = without.openssl(&format!("{arguments} -sess_out session"));
        assert!(first.contains("full"), "{arguments}: {first}");
        if without.ca().join("session").exists() {
            let (_, second) = without.openssl(&format!("{arguments} -sess_in session"));
            assert!(second.contains("full"), "{arguments}: {second}");
        }
    }
}

#[test]
fn names_asked_for_do_not_matter() {
    if !is_installed("openssl", "version") {
        return;
    }
    let server = Server::start(|_| {});
    for name in
        ["localhost", "LOCALHOST", "other.example", "redis_1", "127.0.0.1", "xn--bcher-kva.example"]
    {
        let (answered, output) = server.openssl(&format!("-servername {name}"));
        assert!(answered, "{name}: {output}");
    }
}

#[test]
fn redis_cli_talks_to_a_session_of_ours() {
    if !is_installed("redis-cli", "--version") {
        return;
    }
    let server = Server::start(|_| {});
    for options in ["", "--sni localhost", "--tls-ciphersuites TLS_AES_128_GCM_SHA256"] {
        let output = Command::new("redis-cli")
            .args(["-p", &server.port.to_string(), "--tls", "--cacert", "client-ca.pem"])
            .args(options.split_whitespace())
            .arg("PING")
            .current_dir(server.ca())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("PONG TLSv1.3"), "{options}: {text}");
    }
}
