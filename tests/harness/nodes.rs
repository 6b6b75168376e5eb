//! Nodes of one cluster: servers with certificates of an authority that the first of them has made.

use std::path::Path;
use std::process::{Command, Output};

use crate::client::Client;
use crate::server::{Server, Signal, free_port, program};

/// A server that is a node.
pub struct Node {
    pub server: Server,
    pub uid: u32,
    /// Where other nodes connect: TLS, and what needs a ticket.
    pub port: u16,
    pub plain_port: u16,
}

/// A cluster. The first node has its authority.
pub struct Nodes {
    pub nodes: Vec<Node>,
    pub cluster: String,
}

/// Runs `carnelian-server cluster ...` with these words.
pub fn cluster_tool(words: &[&str]) -> String {
    let Output { status, stdout, stderr } =
        Command::new(program()).arg("cluster").args(words).output().expect("the program starts");
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "cluster {words:?}: {said}");
    String::from_utf8_lossy(&stdout).into_owned()
}

impl Nodes {
    /// Starts so many, each with these arguments besides.
    pub fn start(count: u32, args: &[&str]) -> Self {
        let mut nodes = Self { nodes: Vec::new(), cluster: String::new() };
        for uid in 1..=count {
            nodes.add(Node::start(uid, args));
        }
        nodes
    }

    /// Makes a server one of the cluster, as it runs.
    pub fn add(&mut self, node: Node) {
        let folder = node.server.folder().display().to_string();
        if self.nodes.is_empty() {
            let made = cluster_tool(&["init", "--dir", &folder]);
            let cluster = made.lines().find_map(|line| line.strip_prefix("cluster "));
            self.cluster = cluster.expect("the cluster's id").to_owned();
            self.nodes.push(node);
            self.nodes[0].reload();
        } else {
            self.nodes.push(node);
            self.renew(self.nodes.len() - 1);
        }
    }

    /// Gives a node new certificates, and tells it.
    pub fn renew(&self, place: usize) {
        let node = &self.nodes[place];
        issue(&self.cluster, self.nodes[0].server.folder(), node.server.folder(), node.uid);
        node.reload();
    }

    /// Has one follow the other's database.
    pub fn follow(&self, replica: usize, primary: usize) -> Client {
        let mut client = self.nodes[replica].server.connect();
        let target = self.nodes[primary].target();
        let set = client.call_words(&["CONFIG", "SET", "replicaof-node", &target]);
        assert_eq!(set.to_string(), "+OK");
        client
    }
}

impl Node {
    pub fn start(uid: u32, args: &[&str]) -> Self {
        let (port, plain_port) = (free_port(), free_port());
        let (text, plain_text) = (port.to_string(), plain_port.to_string());
        let own = ["--internode-port", &text, "--internode-plain-port", &plain_text];
        let server = Server::starter().args(&own).args(args).start();
        Self { server, uid, port, plain_port }
    }

    /// As `replicaof-node` has it.
    pub fn target(&self) -> String {
        format!("{} 127.0.0.1 {}", self.uid, self.port)
    }

    /// Has it read its certificates, and waits until it has.
    pub fn reload(&self) {
        let file = std::fs::read_to_string(self.server.folder().join("internode/data.pem"));
        self.server.signal(Signal::HUP);
        let serial = serial(&file.expect("the node's certificate"));
        let mut client = self.server.connect();
        for _ in 0..2000 {
            let info = client.call("INFO internode").text().to_lowercase();
            if info.contains(&format!("internode_data_cert_serial:{serial}\r\n")) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("the certificate {serial} is not taken:\n{}", self.server.log());
    }
}

/// New certificates for a node, signed by the authority in another folder.
pub fn issue(cluster: &str, authority: &Path, folder: &Path, uid: u32) {
    let (authority, folder) = (authority.display().to_string(), folder.display().to_string());
    let uid = uid.to_string();
    let asked = cluster_tool(&["request", "--cluster", cluster, "--node", &uid, "--dir", &folder]);
    let request = asked.trim_end().strip_prefix("request ").expect("the request's file").to_owned();
    cluster_tool(&["sign", &request, "--dir", &authority]);
    cluster_tool(&["accept", &request.replace(".csr", ".crt"), "--dir", &folder]);
}

/// The serial number of a certificate in PEM, in lower-case hexadecimal.
fn serial(pem: &str) -> String {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;

    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    // Certificate, its body, the version in brackets, then the number: all lengths of ours are known forms.
    let mut rest = &der[..];
    for _ in 0..2 {
        rest = &rest[header(rest)..];
    }
    rest = &rest[5..];
    let length = usize::from(rest[1]);
    let digits = rest[2..2 + length].iter().skip_while(|byte| **byte == 0);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

/// The length of what is in front of a value in DER.
fn header(der: &[u8]) -> usize {
    match der[1] {
        long @ 0x80.. => 2 + usize::from(long & 0x7f),
        _ => 2,
    }
}
