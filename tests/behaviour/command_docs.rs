//! COMMAND DOCS: how commands are used, as `redis-cli` hints at it and manuals are made of it.

use carnelian_tests::{Client, Protocol, Reply, Server, each_way, require_or_skip};

/// Commands that can do more here, as Valkey's can, than Redis 8.0 knows of.
const BEYOND: &[&str] = &[
    "acl|getuser",
    "acl|setuser",
    "bgsave",
    "client|kill",
    "client|list",
    "geosearch",
    "geosearchstore",
    "set",
];

#[test]
fn arguments_are_told() {
    each_way(|client| {
        let docs = client.call("COMMAND DOCS BITFIELD_RO missing object|freq").elements();
        assert_eq!(docs.len(), 4);
        let in_map = client.protocol() == Protocol::Resp3;
        let (open, close, set) = if in_map { ("{", "}", "~") } else { ("[", "]", "") };
        let expected = "[(name key type key display_text key key_spec_index :0) \
             (name get-block type block token GET flags #[+optional +multiple +multiple_token] \
             arguments [(name encoding type string display_text encoding) \
             (name offset type integer display_text offset)])]"
            .replace('(', open)
            .replace(')', close)
            .replace('#', set);
        assert_eq!(field(&docs[1], "arguments").expect("it has some").to_string(), expected);
        assert_eq!(docs[2].text(), "object|freq");
        let docs = client.call("COMMAND DOCS quit").elements();
        let flags = field(&docs[1], "doc_flags").expect("it has some").elements();
        assert_eq!(flags[0].to_string(), "+deprecated");
        assert!(field(&docs[1], "replaced_by").is_some());
        assert_eq!(field(&docs[1], "arguments"), None);
    });
}

#[test]
fn redis_tells_the_same() {
    let Some(redis) = require_or_skip("redis-server") else { return };
    let (ours, theirs) = (Server::start(&[]), Server::starter_of(&redis).start());
    let version = theirs.connect().info("redis_version");
    if !version.starts_with("8.0.") {
        eprintln!("skipped: Redis {version} knows other commands");
        return;
    }
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let all = |server: &Server| commands(&mut server.connect().speaking(protocol));
        let (ours, theirs) = (all(&ours), all(&theirs));
        let mut compared = 0;
        for (name, expected) in &theirs {
            let Some((_, told)) = ours.iter().find(|(known, _)| known == name) else { continue };
            compared += 1;
            for said in ["since", "group", "doc_flags", "deprecated_since", "arguments"] {
                assert_eq!(field(told, said), field(expected, said), "{name}: {said}");
            }
            let mut history = versions(told);
            if BEYOND.contains(&&**name) {
                history.retain(|version| versions(expected).contains(version));
            }
            assert_eq!(history, versions(expected), "{name}");
            // What is put in words is in our own.
            for said in ["summary", "complexity", "replaced_by"] {
                if field(expected, said).is_some() {
                    assert!(field(told, said).is_some(), "{name}: {said}");
                }
            }
        }
        assert!(300 < compared, "{compared}");
    }
}

/// All commands and subcommands with what is told of each.
fn commands(client: &mut Client) -> Vec<(String, Reply)> {
    let mut found = Vec::new();
    let mut left = vec![client.call("COMMAND DOCS")];
    while let Some(docs) = left.pop() {
        for pair in docs.elements().chunks_exact(2) {
            left.extend(field(&pair[1], "subcommands"));
            found.push((pair[0].text(), pair[1].clone()));
        }
    }
    found
}

fn field(docs: &Reply, name: &str) -> Option<Reply> {
    let docs = docs.elements();
    let mut pairs = docs.chunks_exact(2);
    pairs.find(|pair| pair[0].text() == name).map(|pair| pair[1].clone())
}

/// The versions of which a command's history tells.
fn versions(docs: &Reply) -> Vec<String> {
    let history = field(docs, "history").map(|history| history.elements()).unwrap_or_default();
    history.iter().map(|news| news.elements()[0].text()).collect()
}
