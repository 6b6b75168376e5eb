//! A node without a server: the real control plane in a folder, the real interface over TLS, and a process
//! around it that does its part of each action at once.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use carnelian_admin::{
    Address, Admin, Bootstrap, BootstrapFailure, Figures, Front, Limits, Live, LocalNode, Plane,
    Waiting, hash_password, serve, serve_local,
};
use carnelian_cluster::state::{
    ActionKind, AddNode, Authority, Certificate, CertificateName, Change, CreateCluster,
    CreateUser, Database, ManagedBy, Management, NodeFacts, NodeSettings, NodeUid, PolicyPatch,
    Refused, Replacement, SealedKey, SharedCertificate, State, Time,
};
use carnelian_cluster::{Admission, Control, Dialing, Environment};
use carnelian_tls::certificates::{CertificateTable, Names, Shared};
use carnelian_tls::internode::{Plane as NodePlane, Report};
use carnelian_tls::rustls::pki_types::pem::PemObject;
use carnelian_tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use carnelian_tls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use carnelian_tls::{AuthorityPem as ClientAuthorityPem, ClientAuthority};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

pub const USER: &str = "admin@example.com";
pub const PASSWORD: &str = "kR7!kpqz-w";

/// A cluster of one calls nobody.
struct Alone;

impl Environment for Alone {
    fn now(&self) -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Time(since.as_millis().try_into().unwrap())
    }

    fn steady(&self) -> std::time::Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
    }

    fn dial(&self, _: NodeUid, _: &str) -> Dialing {
        Box::pin(async { Err(std::io::ErrorKind::NotConnected.into()) })
    }
}

/// In the authority's key, which nothing may ever show.
pub const CA_SECRET: &str = "SEALED-CA-KEY";

pub struct Rig {
    pub address: SocketAddr,
    pub control: Control,
    pub live: Arc<Process>,
    pub folder: tempfile::TempDir,
    pub ca: String,
    connector: TlsConnector,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Rig {
    /// A node as it is shipped: in no cluster.
    pub async fn fresh() -> Self {
        Self::fresh_with(Limits::default()).await
    }

    pub async fn fresh_with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::open(folder.path(), Arc::new(Alone), None).await.unwrap();
        let live = Arc::new(Process::new(control.clone(), folder.path()));
        let plane: Arc<dyn Plane> = Arc::new(control.clone());
        let admin = Admin::new(plane, live.clone(), folder.path()).unwrap();
        let front = Arc::new(Front::with_limits(Arc::clone(&admin), limits));
        let (ca, server, client) = certificates();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source: carnelian_admin::TlsSource = Arc::new(move || Arc::clone(&server));
        let socket = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        let tasks = vec![
            tokio::spawn(serve(listener, source, Arc::clone(&front))),
            tokio::spawn(serve_local(socket, front)),
            tokio::spawn(admin.watch()),
            tokio::spawn(Arc::clone(&live).work()),
        ];
        let connector = TlsConnector::from(client);
        Self { address, control, live, folder, ca, connector, tasks }
    }

    /// With a cluster of one, made over the interface.
    pub async fn created() -> Self {
        let rig = Self::fresh().await;
        rig.create().await;
        rig
    }

    pub async fn create(&self) {
        let body = json!({"action": "create_cluster", "cluster": {"name": "c.local"},
            "credentials": {"username": USER, "password": PASSWORD}});
        let answer = self.nobody("POST", "/v1/bootstrap/create_cluster", &body.to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        for _ in 0..500 {
            if self.control.state().cluster.is_some() {
                let answer = self.get("/v1/bootstrap").await;
                if answer.body["bootstrap_status"]["state"] == json!("completed") {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no cluster after ten seconds");
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call("PUT", path, &body.to_string()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "").await
    }

    /// As the administrator.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as((USER, PASSWORD), method, path, body).await
    }

    pub async fn call_as(
        &self,
        (user, password): (&str, &str),
        method: &str,
        path: &str,
        body: &str,
    ) -> Answer {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        self.with(&format!("Basic {credentials}"), method, path, body).await
    }

    /// With some `Authorization`.
    pub async fn with(&self, credentials: &str, method: &str, path: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {credentials}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.raw(&format!("{head}{body}")).await
    }

    pub async fn nobody(&self, method: &str, path: &str, body: &str) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        self.raw(&format!("{head}{body}")).await
    }

    /// Whatever bytes, over TLS. Every answer has to be as promised.
    pub async fn raw(&self, request: &str) -> Answer {
        let mut stream = self.stream().await;
        // Who is refused early may not get all of it through.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        Answer::parse(&bytes)
    }

    pub async fn stream(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let socket = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.connector.connect(name, socket).await.unwrap()
    }

    /// Over the socket in the folder, without credentials.
    pub async fn local(&self, method: &str, path: &str) -> Answer {
        let mut stream = UnixStream::connect(self.folder.path().join("admin.sock")).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Answer::parse(&bytes)
    }

    /// A database that is active. Returns its uid.
    pub async fn database(&self, name: &str) -> u64 {
        let body = json!({"name": name, "memory_size": 1_000_000_000});
        let answer = self.post("/v1/bdbs", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let uid = answer.body["uid"].as_u64().unwrap();
        self.is_active(uid).await;
        uid
    }

    pub async fn is_active(&self, uid: u64) {
        for _ in 0..500 {
            let answer = self.get(&format!("/v1/bdbs/{uid}")).await;
            if answer.body["status"] == json!("active") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("database {uid} is not active after ten seconds");
    }

    /// A user of a role. Returns its uid.
    pub async fn user(&self, email: &str, role: &str) -> u64 {
        let body = json!({"email": email, "password": PASSWORD, "role": role, "name": email});
        let answer = self.post("/v1/users", &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["uid"].as_u64().unwrap()
    }

    /// The role that manages users, which no cluster has from the start.
    pub async fn user_manager(&self) {
        let body = json!({"name": "User Manager", "management": "user_manager"});
        assert_eq!(self.post("/v1/roles", &body).await.status, 200);
    }

    pub fn audit_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("audit.log")).unwrap()
    }
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
    pub text: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let split = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let split =
            split.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
        let text = String::from_utf8_lossy(&bytes[split + 4..]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<_, _> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        let answer = Self { status, headers, body, text };
        answer.is_as_promised();
        answer
    }

    /// Every answer is JSON; every refusal says why in the three usual members.
    fn is_as_promised(&self) {
        if self.headers.get("content-type").is_some_and(|kind| kind != "application/json") {
            return;
        }
        assert!(self.status < 200 || !self.body.is_null(), "no JSON: {self:?}");
        if 400 <= self.status && self.body.get("state").is_none() {
            for member in ["error_code", "description", "message"] {
                assert!(self.body[member].is_string(), "{member} is missing: {self:?}");
            }
        }
    }

    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str) {
        assert_eq!(
            (self.status, self.body["error_code"].as_str()),
            (status, Some(code)),
            "{self:?}"
        );
    }
}

/// The process around the interface.
pub struct Process {
    control: Control,
    table: Arc<CertificateTable>,
    authority: ClientAuthority,
    serial: AtomicU64,
    /// While this is so, actions stay open.
    pub is_busy: AtomicBool,
    /// While this is so, the node says that it cannot do its part.
    pub fails: AtomicBool,
}

impl Process {
    fn new(control: Control, folder: &Path) -> Self {
        Self {
            control,
            table: Arc::new(CertificateTable::open(folder).unwrap()),
            authority: ClientAuthority::open_or_create(folder, SystemTime::now()).unwrap(),
            serial: AtomicU64::new(1),
            is_busy: AtomicBool::default(),
            fails: AtomicBool::default(),
        }
    }

    /// Uses the certificates that the cluster has agreed on.
    fn adopt(&self, state: &State) {
        let shared = state.shared_certificates.iter().map(|(name, shared)| Shared {
            name: name.parse().unwrap(),
            managed_by: ManagedBy::Customer,
            certificate: shared.certificate.clone(),
            key: shared.key.as_ref().map(|key| String::from_utf8(key.0.clone()).unwrap().into()),
        });
        // It fails when the test is over and its folder gone.
        let _ = self.table.adopt(&shared.collect::<Vec<_>>());
    }

    /// Does the node's part of every action.
    async fn work(self: Arc<Self>) {
        let mut states = self.control.subscribe();
        let mut adopted = BTreeMap::new();
        loop {
            let state = Arc::clone(&states.borrow_and_update());
            if state.cluster.is_some() && state.shared_certificates != adopted {
                self.adopt(&state);
                adopted.clone_from(&state.shared_certificates);
            }
            if let Some(node) = self.control.node()
                && !self.is_busy.load(Ordering::Relaxed)
            {
                if let Some(Replacement { succession, .. }) = &state.replacement {
                    let report = Report {
                        trusts: succession.trusted(),
                        can_sign: [&succession.old, &succession.new].map(String::clone).into(),
                        leaves: NodePlane::ALL
                            .map(|it| (it, succession.signer().to_owned()))
                            .into(),
                        old_links: 0,
                    };
                    let _ = self.control.change(Change::ReportTrust { node, report }).await;
                }
                let error = self.fails.load(Ordering::Relaxed).then(|| "disk full".to_owned());
                for action in state.awaiting(node) {
                    if action.kind == ActionKind::RotateCertificates && error.is_none() {
                        let certificates = self.leaves(node);
                        let report = Change::ReportCertificates { node, certificates };
                        let _ = self.control.change(report).await;
                    }
                    let error = error.clone();
                    let done = Change::ConfirmAction { action: action.id.clone(), node, error };
                    let _ = self.control.change(done).await;
                }
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), states.changed()).await;
        }
    }

    fn leaves(&self, node: NodeUid) -> Vec<Certificate> {
        let names =
            [CertificateName::CcsInternodeEncryption, CertificateName::DataInternodeEncryption];
        let leaf = |name| Certificate {
            name,
            node_uid: node,
            managed_by: ManagedBy::Cluster,
            subject: "CN=node:1.c.local".into(),
            issuer: "CN=c.local".into(),
            serial: format!("{:x}", self.serial.fetch_add(1, Ordering::Relaxed)),
            sha256: String::new(),
            key_type: "RSA-2048".into(),
            not_before: now(),
            not_after: now().plus(Duration::from_secs(45 * 86_400)),
            failure: None,
        };
        names.map(leaf).into()
    }

    async fn create(&self, request: Bootstrap) -> Result<(), BootstrapFailure> {
        let wrong = |error: String| BootstrapFailure { code: "config_error", message: error };
        let names = Names::new(&request.name, &["127.0.0.1".parse().unwrap()]).unwrap();
        let now_s = SystemTime::now();
        self.table.ensure(&self.authority, &names, now_s).unwrap();
        let certificates = self.table.share().into_iter().map(|shared| {
            let sealed = SharedCertificate {
                certificate: shared.certificate.clone(),
                key: shared.key.map(|key| SealedKey(key.as_bytes().to_vec())),
                managed_by: ManagedBy::ClientCa,
                not_after: now().plus(Duration::from_secs(365 * 86_400)),
                changed: now(),
            };
            (shared.name.to_string(), sealed)
        });
        let certificates = certificates.collect();
        let certificate = self.authority.certificate_pem().to_owned();
        let create = CreateCluster {
            id: "0".repeat(32),
            name: request.name,
            node: NodeSettings { addr: "127.0.0.1".into(), ..NodeSettings::default() },
            facts: facts(),
            admin: CreateUser {
                email: request.username,
                name: "admin".into(),
                password: hash_password(&request.password.0).unwrap(),
                role_uids: Vec::new(),
                role: Some(Management::Admin),
                email_alerts: true,
            },
            authority: Authority { certificate, ..authority("first") },
            certificates,
            policy: PolicyPatch::parse(&Value::Object(request.policy), false)
                .map_err(|refused| wrong(refused.description))?,
        };
        let change = Change::CreateCluster(Box::new(create));
        self.control.change(change).await.map_err(|error| wrong(error.to_string()))?;
        let node = NodeUid(1);
        let report = Change::ReportCertificates { node, certificates: self.leaves(node) };
        self.control.change(report).await.map_err(|error| wrong(error.to_string()))?;
        Ok(())
    }
}

fn authority(fingerprint: &str) -> Authority {
    Authority {
        fingerprint: fingerprint.to_owned(),
        certificate: CA_SECRET.to_owned(),
        key: SealedKey(CA_SECRET.into()),
        created: now(),
    }
}

impl Live for Process {
    fn local(&self) -> LocalNode {
        let address = Address { address: "127.0.0.1".parse().unwrap(), interface: "lo".into() };
        LocalNode { facts: facts(), addresses: vec![address], uptime_s: 12 }
    }

    fn create_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>> {
        Box::pin(self.create(request))
    }

    fn join_cluster(&self, request: Bootstrap) -> Waiting<'_, Result<(), BootstrapFailure>> {
        let message = format!("{} cannot be reached", request.nodes.join(", "));
        Box::pin(async { Err(BootstrapFailure { code: "connect_error", message }) })
    }

    fn admit(&self, new: AddNode) -> Waiting<'_, Result<Admission, Refused>> {
        let admitted = self.control.admit(new);
        Box::pin(async move { admitted.await.map_err(|error| error.refusal()) })
    }

    fn sign(&self, node: NodeUid, requests: String) -> Waiting<'_, Result<Vec<String>, Refused>> {
        Box::pin(async move {
            self.control.sign(node, &requests).await.map_err(|error| error.refusal())
        })
    }

    fn new_authority(&self) -> Waiting<'_, Result<Authority, Refused>> {
        Box::pin(async { Ok(authority("second")) })
    }

    fn add_client_authority(&self) -> Waiting<'_, Result<(), Refused>> {
        let made = ClientAuthorityPem::create(SystemTime::now(), Duration::from_secs(86_400));
        let certificate = made.unwrap().certificate;
        let after = self.control.state().client_authorities.listed.last().cloned();
        let fingerprint = format!("{certificate:.300}");
        let authority = Authority { certificate, ..authority(&fingerprint) };
        let change = Change::AddClientAuthority {
            authority: Box::new(authority),
            after: after.map(|it| it.fingerprint),
        };
        Box::pin(async move {
            self.control.change(change).await.map(drop).map_err(|error| error.refusal())
        })
    }

    fn figures(&self, _: NodeUid) -> Waiting<'_, Option<Figures>> {
        let state = self.control.state();
        let text = "# Stats\r\ntotal_commands_processed:7\r\nused_memory:950000000\r\n\
            connected_clients:3\r\nredis_version:8.0.6\r\ninstantaneous_ops_per_sec:5\r\n";
        let info = state.databases.keys().map(|uid| (uid.0, text.to_owned())).collect();
        let figures = Figures {
            uptime_s: 12,
            total_memory: 8 << 30,
            free_memory: 1 << 30,
            available_memory: 2 << 30,
            info,
            ..Figures::default()
        };
        Box::pin(async { Some(figures) })
    }

    fn command(&self, _: u32, words: Vec<String>) -> Waiting<'_, Result<Value, Refused>> {
        Box::pin(async move {
            match words[0].as_str() {
                "PING" | "FLUSHALL" => Ok(json!(true)),
                other => Err(Refused::bad("command_failed", format!("unknown command {other}"))),
            }
        })
    }

    fn serves(&self, database: u32) -> bool {
        self.control
            .state()
            .databases
            .get(&database.into())
            .is_some_and(|it: &Database| !it.stopped)
    }

    fn certificates(&self) -> Arc<CertificateTable> {
        Arc::clone(&self.table)
    }

    fn check_rules(&self, rules: &str) -> Result<(), String> {
        // There is one command that is unknown.
        match rules.contains("+explode") {
            true => Err("Unknown command".into()),
            false => Ok(()),
        }
    }

    fn seal(&self, key_pem: &str) -> Result<SealedKey, Refused> {
        Ok(SealedKey(key_pem.as_bytes().to_vec()))
    }

    fn token_secret(&self) -> Option<[u8; 32]> {
        Some([7; 32])
    }

    fn debug_files(&self) -> Vec<(String, Vec<u8>)> {
        vec![("version.txt".into(), b"test".to_vec())]
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        hostname: "test".into(),
        cores: 2,
        total_memory: 8 << 30,
        software_version: "8.0.6".into(),
        ..NodeFacts::default()
    }
}

pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Time(since.as_millis() as u64)
}

/// An authority, a server that it vouches for, and a client that trusts it.
fn certificates() -> (String, Arc<ServerConfig>, Arc<ClientConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::clone(carnelian_tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    server.alpn_protocols = carnelian_tls::ADMIN_ALPN.map(<[u8]>::to_vec).into();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::clone(carnelian_tls::provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (ca, Arc::new(server), Arc::new(client))
}

/// Whether the other end has closed.
pub async fn is_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut byte = [0; 1];
    match tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte)).await {
        Ok(Ok(read)) => read == 0,
        Ok(Err(error)) => error.kind() != io::ErrorKind::WouldBlock,
        Err(_) => false,
    }
}
