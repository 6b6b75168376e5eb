//! TLS without sockets: whole handshakes, and records either way.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

// For its allocator.
use carnelian_server as _;
use carnelian_tls::{
    Acceptor, ClientAuthority, Identity, KeyKind, Settings, SubjectAltNames, TlsSession,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustls::client::Resumption;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// An authority in a folder of its own, which goes with it.
struct Authority {
    folder: PathBuf,
    ca: ClientAuthority,
}

impl Authority {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("carnelian-bench-{}", std::process::id()));
        let ca = ClientAuthority::open_or_create(&folder, SystemTime::now());
        Self { ca: ca.expect("a folder can be made"), folder }
    }

    fn acceptor(&self, kind: KeyKind) -> Acceptor {
        let now = SystemTime::now();
        let names = SubjectAltNames::of(["localhost"]).expect("it is a name");
        let issued = self.ca.issue_server(&names, kind, now).expect("it can be signed");
        let (certificate, key) = (self.folder.join("server.pem"), self.folder.join("server.key"));
        fs::write(&certificate, issued.certificate_pem).expect("the folder is ours");
        fs::write(&key, issued.key_pem).expect("the folder is ours");
        let identity = Identity::Files { certificate, key, key_password: None };
        Acceptor::new(&Settings::new(identity), now).expect("certificate and key fit")
    }

    fn client(&self, group: &'static dyn SupportedKxGroup) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.certificate().clone()).expect("it is an authority's");
        let mut provider = default_provider();
        provider.kx_groups = vec![group];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client and a session of ours, joined by buffers.
struct Pair {
    client: ClientConnection,
    server: TlsSession,
    to_client: Vec<u8>,
}

impl Pair {
    /// After a whole handshake; also the time that the server's side of it took.
    fn connect(acceptor: &Acceptor, config: &Arc<ClientConfig>) -> (Self, Duration) {
        let name = ServerName::try_from("localhost").expect("it is a name");
        let client =
            ClientConnection::new(Arc::clone(config), name).expect("the settings are ours");
        let start = Instant::now();
        let server = acceptor.start().expect("the settings are ours");
        let mut elapsed = start.elapsed();
        let mut pair = Self { client, server, to_client: Vec::new() };
        while pair.client.is_handshaking() || pair.server.is_handshaking() {
            let mut bytes = pair.client_bytes();
            let start = Instant::now();
            pair.receive(&mut bytes);
            elapsed += start.elapsed();
            let mut rest = pair.to_client.as_slice();
            while !rest.is_empty() {
                pair.client.read_tls(&mut rest).expect("a slice can be read");
                pair.client.process_new_packets().expect("the server is ours");
            }
            pair.to_client.clear();
        }
        (pair, elapsed)
    }

    fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).expect("a vector can be written");
        }
        bytes
    }

    fn receive(&mut self, bytes: &mut [u8]) -> usize {
        let mut received = Vec::with_capacity(bytes.len());
        self.server.receive(bytes, &mut received, &mut self.to_client).expect("the client is ours");
        received.len()
    }
}

fn handshakes(criterion: &mut Criterion) {
    let authority = Authority::new();
    let mut group = criterion.benchmark_group("TLS 1.3 handshake, server's side");
    for (kind, kind_name) in [(KeyKind::EcdsaP256, "P-256"), (KeyKind::Rsa2048, "RSA-2048")] {
        let acceptor = authority.acceptor(kind);
        for (exchange, name) in
            [(kx_group::X25519, "X25519"), (kx_group::X25519MLKEM768, "X25519MLKEM768")]
        {
            let config = authority.client(exchange);
            group.bench_function(BenchmarkId::new(kind_name, name), |bencher| {
                bencher.iter_custom(|count| {
                    (0..count).map(|_| Pair::connect(&acceptor, &config).1).sum()
                });
            });
        }
    }
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let authority = Authority::new();
    let acceptor = authority.acceptor(KeyKind::EcdsaP256);
    let config = authority.client(kx_group::X25519);
    let mut group = criterion.benchmark_group("TLS 1.3 record");
    // A key may encrypt some millions of records: few enough that it lasts.
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for bytes in [64, 16 << 10] {
        let plaintext = vec![b'x'; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        let (mut pair, _) = Pair::connect(&acceptor, &config);
        let mut out = Vec::with_capacity(2 * bytes);
        group.bench_function(BenchmarkId::new("seal", bytes), |bencher| {
            bencher.iter(|| {
                out.clear();
                pair.server.send(&plaintext, &mut out).expect("the session is open");
            });
        });
        let (mut pair, _) = Pair::connect(&acceptor, &config);
        group.bench_function(BenchmarkId::new("open", bytes), |bencher| {
            bencher.iter_custom(|count| open(&mut pair, &plaintext, count));
        });
    }
    group.finish();
}

/// The time to open so many records, which the client has sealed before, some at a time.
fn open(pair: &mut Pair, plaintext: &[u8], count: u64) -> Duration {
    const AT_ONCE: u64 = 64;

    let mut elapsed = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let seal = |_| {
            pair.client.writer().write_all(plaintext).expect("there is room for one record");
            pair.client_bytes()
        };
        let mut records: Vec<Vec<u8>> = (0..now).map(seal).collect();
        let start = Instant::now();
        for record in &mut records {
            assert_eq!(pair.receive(record), plaintext.len());
        }
        elapsed += start.elapsed();
        left -= now;
    }
    elapsed
}

criterion_group!(benches, handshakes, records);
criterion_main!(benches);
