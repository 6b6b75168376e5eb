//! Which node a database is to follow.

use std::fmt;

use carnelian_config::Config;
use carnelian_tls::internode::{INTERNODE_PORT, NodeUid};

/// A node of this cluster, and where it is said to be. Whoever answers there has to prove that it is this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeTarget {
    pub node: NodeUid,
    pub host: String,
    /// Of the TLS listener; where the plain one is, the node says itself.
    pub port: u16,
}

impl fmt::Display for NodeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} at {}:{}", self.node, self.host, self.port)
    }
}

/// What `replicaof-node` says: the node to follow, or none.
pub fn configured(config: &Config) -> Result<Option<NodeTarget>, &'static str> {
    parse(&config.replicaof_node)
}

fn parse(words: &[String]) -> Result<Option<NodeTarget>, &'static str> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (node, host, port) = match words[..] {
        [] | [""] => return Ok(None),
        [no, one] if no.eq_ignore_ascii_case("no") && one.eq_ignore_ascii_case("one") => {
            return Ok(None);
        }
        [node, host] => (node, host, None),
        [node, host, port] => (node, host, Some(port)),
        _ => return Err("a node's number, its host and perhaps its port, or 'no one'"),
    };
    let node = node.parse().map_err(|_| "a node's number begins at 1")?;
    let port = port.map_or(Some(INTERNODE_PORT), |port| port.parse().ok());
    let port = port.filter(|&port| port != 0).ok_or("invalid port")?;
    Ok(Some(NodeTarget { node, host: host.to_owned(), port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_number_a_host_and_perhaps_a_port() {
        let parse = |text: &str| {
            let words: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
            parse(&words).map(|target| target.map(|target| target.to_string()))
        };
        assert_eq!(parse("2 127.0.0.2"), Ok(Some("node 2 at 127.0.0.2:3342".into())));
        assert_eq!(parse("2 host 77"), Ok(Some("node 2 at host:77".into())));
        for none in ["", "no one", "NO ONE"] {
            assert_eq!(parse(none), Ok(None));
        }
        for bad in ["0 host", "x host", "1", "1 host 0", "1 host 65536"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
