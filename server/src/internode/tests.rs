//! Servers of one cluster in one process.

use std::ffi::OsString;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use carnelian_config::Config;
use carnelian_tls::internode::{ControlPlane, Frames};

use super::tickets::BadTicket;
use super::{AskedFor, Channel, NodeTarget, open};
use crate::cluster_tool;
use crate::testing::Bench;

fn tool(line: &str) -> String {
    let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
    cluster_tool::run(&words).unwrap_or_else(|error| panic!("{line}: {error:#}"))
}

fn start(prepare: impl FnOnce(&str)) -> (Bench, Arc<Channel>) {
    let config =
        Config { internode_port: free_port(), internode_plain_port: 0, ..Config::default() };
    let bench = Bench::start(config);
    assert!(!open(&bench.server, AskedFor::default()).unwrap(), "there are no certificates");
    prepare(&bench.server.config().dir.display().to_string());
    assert!(open(&bench.server, AskedFor { port: true, plain_port: true }).unwrap());
    assert!(open(&bench.server, AskedFor::default()).unwrap(), "it stays open");
    let channel = bench.server.internode.channel().unwrap();
    (bench, channel)
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Says what it is told, and who told it.
struct Echo;

impl ControlPlane for Echo {
    fn serve(self: Arc<Self>, mut link: Frames) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let node = link.stream().peer().identity.node;
            while let Ok(Some(message)) = link.receive().await {
                let answer = format!("{} from {node}", String::from_utf8_lossy(&message));
                link.send(answer.as_bytes()).await.unwrap();
            }
        })
    }
}

#[test]
fn links_of_the_control_plane_go_to_who_has_registered() {
    let mut first = String::new();
    let (one, here) = start(|folder| {
        tool(&format!("init --dir {folder}"));
        first = folder.to_owned();
    });
    let cluster = here.node.cluster();
    let (_two, there) = start(|folder| {
        let asked = tool(&format!("request --dir {folder} --cluster {cluster} --node 2"));
        let request = asked.trim_end().strip_prefix("request ").unwrap().to_owned();
        tool(&format!("sign {request} --dir {first}"));
        tool(&format!("accept {} --dir {folder}", request.replace(".csr", ".crt")));
    });
    one.server.internode.register("echo/1", Arc::new(Echo));
    let address = here.addresses()[0];
    let target =
        NodeTarget { node: here.node.uid(), host: address.ip().to_string(), port: address.port() };
    there.handle().block_on(async {
        let mut link = there.connect(&target, "echo/1").await.unwrap();
        link.send(b"hello").await.unwrap();
        assert_eq!(link.receive().await.unwrap().unwrap(), b"hello from 2");
        let refused = there.connect(&target, "raft/7").await.unwrap_err();
        assert!(refused.contains("does not speak 'raft/7'"), "{refused}");
        let mut tickets = there.connect(&target, "tickets/1").await.unwrap();
        for (request, answer) in [
            ("database 7", "no there is no database 7 here"),
            ("database 1", "no port for links that are not encrypted"),
        ] {
            tickets.send(request.as_bytes()).await.unwrap();
            let told = tickets.receive().await.unwrap().unwrap();
            assert_eq!(String::from_utf8_lossy(&told), answer);
        }
        tickets.send(b"what?").await.unwrap();
        assert_eq!(tickets.receive().await.unwrap_or(None), None);
    });
    let internode = &one.server.internode;
    let redeemed = internode.tickets.redeem(&[0; 32], 1, there.node.uid(), Instant::now());
    assert_eq!(redeemed, Err(BadTicket::Unknown));
}
