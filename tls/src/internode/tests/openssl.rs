//! OpenSSL as a second opinion: `s_client` against a node that accepts, `verify` on what the
//! authority signs, and certificates that only OpenSSL makes. Without the program these tests pass,
//! unless `CARNELIAN_REQUIRE_PEERS` is set.

use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::forge::{Client, Server, Shown, world};
use super::*;
use crate::pem;
use crate::testing::Openssl;

/// A folder with all that node 2 has.
fn identity(openssl: &Openssl) {
    let write = |name: &str, text: &str| fs::write(openssl.folder().join(name), text).unwrap();
    write("ca.pem", &pem::certificate(world().authority.public().certificate()));
    write("ca.key", world().authority.to_pem().split_once("-----END CERTIFICATE-----").unwrap().1);
    write("node.key", &world().keys[0].to_pem());
    for plane in Plane::ALL {
        let certificate = pem::certificate(world().credential(2, plane).certificate());
        write(&format!("{plane}.pem"), &certificate);
    }
}

/// `openssl s_client`, which stays until its input ends or the connection does.
struct Dialled {
    child: Child,
    stdin: ChildStdin,
}

impl Dialled {
    fn start(openssl: &Openssl, address: SocketAddr, arguments: &str) -> Self {
        let name = world().identity(1, Plane::Data).server_name();
        // With -CAfile it would send the authority's certificate along with its own.
        let arguments = format!("s_client -connect {address} -verifyCAfile ca.pem {arguments}")
            .replace("NAME", &format!("-servername {name}"))
            .replace("DATA", "-alpn carnelian-data/1")
            .replace("OWN", "-cert data.pem -key node.key");
        let mut child = Command::new("timeout")
            .args(["60", "openssl"])
            .args(arguments.split_whitespace())
            .current_dir(openssl.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        Self { child, stdin }
    }

    /// All that it prints, once its input has ended.
    async fn hang_up(self) -> String {
        drop(self.stdin);
        printed(self.child).await
    }

    /// All that it prints until the other end has had enough.
    async fn hold(self) -> String {
        let printed = printed(self.child).await;
        drop(self.stdin);
        printed
    }
}

async fn printed(child: Child) -> String {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = waiting.await.unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_negotiates_the_four_suites_and_is_refused_all_else() {
    let Some(openssl) = Openssl::new() else { return };
    identity(&openssl);
    let mut listening = Listening::start(world().node(1)).await;
    let verified = "Verify return code: 0 (ok)";
    for (arguments, suite) in [
        ("-tls1_3 -ciphersuites TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        ("-tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
        ("-tls1_2 -cipher ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
        ("-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
        ("", "TLS_AES_256_GCM_SHA384"),
    ] {
        let all = format!("NAME DATA OWN {arguments}");
        let dialled = Dialled::start(&openssl, listening.address, &all);
        let link = listening.result().await.expect(arguments);
        let output = dialled.hang_up().await;
        assert_eq!(link.peer().identity, world().identity(2, Plane::Data));
        assert!(output.contains(&format!("Cipher is {suite}")), "{arguments}: {output}");
        assert!(output.contains(verified), "{arguments}: {output}");
        assert!(output.contains("Server public key is 2048 bit"), "{arguments}: {output}");
        assert!(output.contains("ALPN protocol: carnelian-data/1"), "{arguments}: {output}");
    }
    for (arguments, expected) in [
        ("NAME DATA -tls1_2", "showed no certificate"),
        ("NAME DATA -tls1_3", "showed no certificate"),
        ("NAME DATA OWN -tls1_1 -cipher ALL:@SECLEVEL=0", "offers TLS 1.1 at best"),
        ("NAME DATA OWN -tls1 -cipher ALL:@SECLEVEL=0", "offers TLS 1.0 at best"),
        ("NAME DATA OWN -tls1_2 -cipher ECDHE-RSA-CHACHA20-POLY1305", "none of the cipher suites"),
        ("NAME DATA OWN -tls1_2 -cipher AES256-GCM-SHA384", "none of the cipher suites"),
        ("NAME DATA OWN -tls1_2 -cipher ECDHE-RSA-AES256-SHA384", "none of the cipher suites"),
        ("NAME DATA OWN -tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256", "none of the cipher"),
        ("NAME OWN", "no ALPN"),
        ("NAME OWN -alpn h2,http/1.1", "several protocols"),
        ("DATA OWN -servername localhost", "has reached node 1"),
        ("DATA OWN", "no server name"),
        ("NAME OWN -alpn carnelian-control/1", "for the data plane, not for the control plane"),
        ("NAME DATA -cert ca.pem -key ca.key", "an authority's, not a node's"),
    ] {
        let dialled = Dialled::start(&openssl, listening.address, arguments);
        let refusal = listening.result().await.expect_err(arguments).to_string();
        assert!(refusal.contains(expected), "{arguments}: {refusal}");
        let output = dialled.hold().await;
        assert!(output.contains("alert"), "{arguments}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_can_neither_renegotiate_nor_resume() {
    let Some(openssl) = Openssl::new() else { return };
    identity(&openssl);
    let mut listening = Listening::start(world().node(1)).await;
    let mut dialled = Dialled::start(&openssl, listening.address, "NAME DATA OWN -tls1_2");
    let mut link = listening.result().await.unwrap();
    dialled.stdin.write_all(b"R\n").unwrap();
    // The request is answered by whoever reads, with what is written next.
    let reading = async {
        loop {
            tokio::select! {
                _ = link.read_u8() => return,
                () = tokio::time::sleep(Duration::from_millis(20)) => drop(link.flush().await),
            }
        }
    };
    let (output, ()) = tokio::join!(dialled.hold(), reading);
    assert!(output.contains("RENEGOTIATING") && output.contains("no renegotiation"), "{output}");

    for version in ["-tls1_2", "-tls1_2 -no_ticket", "-tls1_3"] {
        let save = format!("NAME DATA OWN {version} -sess_out session");
        let dialled = Dialled::start(&openssl, listening.address, &save);
        listening.result().await.unwrap();
        let output = dialled.hang_up().await;
        assert!(!output.contains("TLS session ticket:"), "{output}");
        if openssl.folder().join("session").exists() {
            let again = format!("NAME DATA OWN {version} -sess_in session");
            let dialled = Dialled::start(&openssl, listening.address, &again);
            // Let in as anybody else, or refused for trying.
            if let Err(refusal) = listening.result().await {
                assert_eq!(refusal, Refusal::Resumption);
            }
            assert!(!dialled.hang_up().await.contains("Reused, TLS"));
            fs::remove_file(openssl.folder().join("session")).unwrap();
        }
    }
}

#[test]
fn openssl_finds_our_certificates_in_order() {
    let Some(openssl) = Openssl::new() else { return };
    identity(&openssl);
    for purpose in ["sslserver", "sslclient"] {
        for plane in Plane::ALL {
            openssl
                .run(&format!("verify -x509_strict -CAfile ca.pem -purpose {purpose} {plane}.pem"));
        }
    }
    let output = Command::new("openssl")
        .args(["x509", "-in", "data.pem", "-noout", "-text"])
        .current_dir(openssl.folder())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let identity = world().identity(2, Plane::Data);
    assert!(text.contains(&format!("URI:{identity}\n")), "{text}");
    assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"));
    assert!(text.contains("sha256WithRSAEncryption") && text.contains("(2048 bit)"));
}

/// SHA-1, X.509 version 1 and a weak key, each signed by the true authority.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_openssl_signs_is_refused_as_well() {
    let Some(openssl) = Openssl::new() else { return };
    identity(&openssl);
    let good = world().identity(2, Plane::Data);
    let extensions = format!(
        "keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth, clientAuth\n\
         subjectAltName = URI:{good}\n"
    );
    fs::write(openssl.folder().join("leaf.cnf"), extensions).unwrap();
    openssl.run("req -new -key node.key -subj /CN=x -out node.csr");
    openssl.run("genrsa -out weak.key 1024");
    openssl.run("req -new -key weak.key -subj /CN=x -out weak.csr");
    let mut listening = Listening::start(world().node(1)).await;
    for (request, key, arguments, expected) in [
        ("node.csr", "node.key", "-sha256 -extfile leaf.cnf", ""),
        ("node.csr", "node.key", "-sha1 -extfile leaf.cnf", "signed with SHA-1"),
        ("node.csr", "node.key", "-sha256 -extfile leaf.cnf -days -1", "expired"),
        ("weak.csr", "weak.key", "-sha256 -extfile leaf.cnf", "1024 bits"),
        ("node.csr", "node.key", "-sha256", "of X.509 version 1"),
    ] {
        openssl.run(&format!(
            "x509 -req -in {request} -CA ca.pem -CAkey ca.key -set_serial 77 {arguments} -out x.pem"
        ));
        // Newer versions of OpenSSL make version 3 in any case.
        let certificate = fs::read(openssl.folder().join("x.pem")).unwrap();
        let certificate = CertificateDer::from_pem_slice(&certificate).unwrap();
        let version = crate::CertificateInfo::of(&certificate).unwrap().version;
        let expected = match (expected, version) {
            ("of X.509 version 1", 3) => "(key usage)",
            (expected, _) => expected,
        };
        let shown = Shown::new(vec![certificate]);
        let client = Client { shown: Some(shown.clone()), ..Client::of_node(2, Plane::Data) };
        let welcomed = client.connect(listening.address).await;
        let by_acceptor = listening.result().await.map(|_| ());
        let connector = Connector::new(world().node(1));
        let address = Server::showing(shown).start().await;
        let by_connector =
            connector.connect(address, world().uid(2), Plane::Data).await.map(|_| ());
        if expected.is_empty() {
            assert!(welcomed, "{key}");
            by_acceptor.unwrap();
            by_connector.unwrap();
            continue;
        }
        assert!(!welcomed, "{arguments}");
        for result in [by_acceptor, by_connector] {
            let refusal = result.unwrap_err().to_string();
            assert!(refusal.contains(expected), "{request} {arguments}: {refusal}");
        }
    }
}
