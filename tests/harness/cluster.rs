//! Nodes of a cluster that their control planes have made: each has an address of its own, and is
//! administered over the socket in its folder.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::certificates::Identity;
use crate::client::Client;
use crate::server::{Ready, Server, free_port};
use crate::transport::{TlsOptions, Transport};

pub const USER: &str = "boss@cluster.test";
pub const PASSWORD: &str = "kR7!kpqz-w";

/// Making keys takes seconds in builds that are not optimized, and machines have other work.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server that is a node, or can become one.
pub struct Member {
    pub server: Server,
    pub address: String,
    pub admin_port: u16,
    /// Where other nodes connect: TLS, and what needs a ticket.
    pub internode_port: u16,
    pub plain_port: u16,
}

/// Asks the server that has its data in a folder, over its local socket: for who asks beside others.
#[track_caller]
pub fn ask(folder: &Path, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let ends = Instant::now() + PATIENCE;
    // A server takes commands a moment before it listens there.
    while UnixStream::connect(folder.join("admin.sock")).is_err() && Instant::now() < ends {
        sleep(Duration::from_millis(20));
    }
    try_ask(folder, method, path, body).expect("an answer of the admin socket")
}

fn try_ask(folder: &Path, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
    let mut socket = UnixStream::connect(folder.join("admin.sock")).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

impl Member {
    /// Starts a server at 127.0.0.`place`, with an admin's name and password in its environment.
    pub fn start(place: u8, password: &str, args: &[&str]) -> Self {
        Self::start_through(&[], place, password, args)
    }

    /// The same through another program that becomes the server.
    pub fn start_through(wrapper: &[&str], place: u8, password: &str, args: &[&str]) -> Self {
        Self::start_at(&format!("127.0.0.{place}"), wrapper, password, args)
    }

    /// The same at any address of this machine, or of a part of it that the wrapper leads into.
    pub fn start_at(address: &str, wrapper: &[&str], password: &str, args: &[&str]) -> Self {
        let address = address.to_owned();
        let (admin_port, port, plain) = (free_port(), free_port(), free_port());
        let user = format!("CARNELIAN_ADMIN_USER={USER}");
        let password = format!("CARNELIAN_ADMIN_PASSWORD={password}");
        let environment = ["env", user.as_str(), password.as_str()];
        let ports = [admin_port, port, plain].map(|port| port.to_string());
        let own = [
            "--bind",
            &address,
            "--admin-port",
            &ports[0],
            "--internode-port",
            &ports[1],
            "--internode-plain-port",
            &ports[2],
        ];
        let server = Server::starter()
            .through(&[&environment[..], wrapper].concat())
            .args(&own)
            .args(args)
            .ready_when(Ready::Log("Ready to accept requests of operators"))
            .start();
        Self { server, address, admin_port, internode_port: port, plain_port: plain }
    }

    /// The first of a cluster.
    pub fn create(place: u8) -> Self {
        let member = Self::start(place, PASSWORD, &["--cluster-create", "test.local"]);
        member.eventually("/v1/cluster", |cluster| cluster["name"] == "test.local");
        member
    }

    /// Where its REST interface is.
    pub fn place(&self) -> String {
        format!("{}:{}", self.address, self.admin_port)
    }

    /// Asks over the local socket. Status, and the document of the answer.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        ask(self.server.folder(), method, path, body)
    }

    /// The same of one that may not be there.
    pub fn try_ask(&self, method: &str, path: &str, body: &Value) -> Option<(u16, Value)> {
        try_ask(self.server.folder(), method, path, body)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, &Value::Null);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Asks for a change, which has to be made; behind the one that is being made, if there is one.
    #[track_caller]
    pub fn change(&self, method: &str, path: &str, body: &Value) -> Value {
        let ends = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.ask(method, path, body);
            if status == 200 {
                return answer;
            }
            let is_busy = answer["error_code"] == "busy" && Instant::now() < ends;
            assert!(is_busy, "{method} {path}: {status} {answer}\n{}", self.server.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// Asks until the answer is as wanted.
    #[track_caller]
    pub fn eventually(&self, path: &str, is_right: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let ends = Instant::now() + PATIENCE;
        while Instant::now() < ends {
            match self.try_ask("GET", path, &Value::Null) {
                Some((200, answer)) if is_right(&answer) => return answer,
                answer => last = answer,
            }
            sleep(Duration::from_millis(20));
        }
        panic!("{path} is still {last:?}:\n{}", self.server.log());
    }

    /// All of so many nodes are there, as this one sees it.
    #[track_caller]
    pub fn eventually_sees(&self, nodes: usize) {
        self.eventually("/v1/nodes", |answer| {
            let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            all.len() == nodes && all.iter().all(|node| node["status"] == "active")
        });
    }

    /// All nodes but the one at this place, counted from 0, are there again.
    #[track_caller]
    pub fn eventually_sees_other_than(&self, place: usize) {
        self.eventually("/v1/nodes", |answer| {
            let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_away = |node: &Value| node["uid"] == place + 1;
            !all.is_empty() && all.iter().all(|it| is_away(it) || it["status"] == "active")
        });
    }

    /// A client of a database here, as soon as there is one.
    #[track_caller]
    pub fn client(&self, port: u16) -> Client {
        Client::over(Transport::Tcp(self.socket(port)))
    }

    /// Waits until this node shows clients what the authorities of another one have signed.
    #[track_caller]
    pub fn eventually_shows_the_authority_of(&self, other: &Self) {
        let list = |node: &Self| std::fs::read(node.server.folder().join("client-ca.pem")).ok();
        let ends = Instant::now() + PATIENCE;
        while list(self) != list(other) || self.tls_client(self.server.port(), None).is_err() {
            assert!(Instant::now() < ends, "{}", self.server.log());
            sleep(Duration::from_millis(20));
        }
    }

    /// The same over TLS; the error where that is refused.
    #[track_caller]
    pub fn tls_client(&self, port: u16, identity: Option<&Identity>) -> anyhow::Result<Client> {
        let mut options = TlsOptions::trusting(self.server.folder().join("client-ca.pem"))
            .server_name("localhost");
        if let Some(Identity { certificate, key }) = identity {
            options = options.identity(certificate, key);
        }
        Ok(Client::over(Transport::tls_over(self.socket(port), &options)?))
    }

    /// A client of a port here that believes whom it is told to, and nobody else; the error where that fails.
    #[track_caller]
    pub fn verified_client(&self, port: u16, options: &TlsOptions) -> anyhow::Result<Client> {
        Ok(Client::over(Transport::tls_over(self.socket(port), options)?))
    }

    /// What the shards of a database say in a field of INFO, the primary first: where they are, and what.
    #[track_caller]
    pub fn shards(&self, database: u64, field: &str) -> Vec<(usize, String)> {
        let shards = self.get(&format!("/v1/bdbs/{database}/shards?extra_info_keys={field}"));
        let mut shards: Vec<_> = shards.as_array().cloned().unwrap_or_default();
        shards.sort_by_key(|shard| shard["role"] != "master");
        let said = |shard: &Value| {
            let node = shard["node_uid"].as_str().and_then(|node| node.parse().ok());
            let text = shard["redis_info"][field].as_str().unwrap_or_default();
            (node.expect("a node's number"), text.to_owned())
        };
        shards.iter().map(said).collect()
    }

    #[track_caller]
    fn socket(&self, port: u16) -> TcpStream {
        let ends = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect((self.address.as_str(), port)) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
                    return stream;
                }
                Err(error) => assert!(Instant::now() < ends, "{}:{port}: {error}", self.address),
            }
            sleep(Duration::from_millis(20));
        }
    }
}
