//! One script, four ways: both protocols over both transports.

use crate::client::Client;
use crate::reply::Protocol;
use crate::server::Server;

/// How a script reaches the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Way {
    pub protocol: Protocol,
    pub tls: bool,
}

pub const WAYS: [Way; 4] = [
    Way { protocol: Protocol::Resp2, tls: false },
    Way { protocol: Protocol::Resp3, tls: false },
    Way { protocol: Protocol::Resp2, tls: true },
    Way { protocol: Protocol::Resp3, tls: true },
];

/// Runs `script` every way, each time on an empty database.
pub fn each_way(script: impl Fn(&mut Client)) {
    each_way_with(&[], script);
}

/// The same with arguments for the server.
pub fn each_way_with(args: &[&str], script: impl Fn(&mut Client)) {
    let server = Server::starter().args(args).tls().start();
    for way in WAYS {
        let client = if way.tls { server.connect_tls() } else { server.connect() };
        let mut client = client.speaking(way.protocol);
        client.expect("FLUSHALL", "+OK");
        script(&mut client);
    }
}
