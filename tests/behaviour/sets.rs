//! Sets.

use std::collections::BTreeSet;

use carnelian_tests::{each_way, each_way_with};

#[test]
fn members() {
    each_way(|client| {
        client.script(
            r#"
            SADD s a b c => :3
            SADD s a d => :1
            SCARD s => :4
            SMEMBERS s => ~[a b c d]
            SMEMBERS missing => ~[]
            SISMEMBER s a => :1
            SISMEMBER s x => :0
            SMISMEMBER s a x b => [:1 :0 :1]
            SMISMEMBER missing a => [:0]
            SREM s a x => :1
            SMOVE s t b => :1
            SMOVE s t x => :0
            SMEMBERS t => ~[b]
            SREM s c d => :2
            EXISTS s => :0
            SCARD missing => :0
            "#,
        );
    });
}

#[test]
fn algebra() {
    each_way(|client| {
        client.script(
            r#"
            SADD a 1 2 3 4 => :4
            SADD b 3 4 5 => :3
            SADD c 4 6 => :2
            SINTER a b => ~[3 4]
            SINTER a b c => ~[4]
            SINTER a missing => ~[]
            SUNION a b c => ~[1 2 3 4 5 6]
            SDIFF a b => ~[1 2]
            SDIFF a missing => ~[1 2 3 4]
            SDIFF missing a => ~[]
            SINTERSTORE d a b => :2
            SUNIONSTORE d a b => :5
            SDIFFSTORE d a b c => :2
            SMEMBERS d => ~[1 2]
            SINTERSTORE d a missing => :0
            EXISTS d => :0
            SINTERCARD 2 a b => :2
            SINTERCARD 2 a b LIMIT 1 => :1
            SINTERCARD 0 a => -ERR numkeys should be greater than 0
            SINTERCARD 3 a b => -ERR Number of keys can't be greater than number of args
            SINTERCARD 2 a b LIMIT -1 => -ERR LIMIT can't be negative
            SET s x => +OK
            SINTER a s => -WRONGTYPE Operation against a key holding the wrong kind of value
            SUNIONSTORE s a b => :5
            TYPE s => +set
            "#,
        );
    });
}

#[test]
fn random_members() {
    each_way(|client| {
        client.script(
            r#"
            SADD s a b c => :3
            SRANDMEMBER missing => nil
            SRANDMEMBER missing 2 => []
            SRANDMEMBER s 10 => %[a b c]
            SRANDMEMBER s 0 => []
            SPOP missing => nil
            SPOP missing 2 => ~[]
            SPOP s 0 => ~[]
            SPOP s -1 => -ERR value is out of range, must be positive
            "#,
        );
        assert_eq!(client.call("SRANDMEMBER s -20").elements().len(), 20);
        let mut popped = BTreeSet::new();
        popped.insert(client.call("SPOP s").text());
        for member in client.call("SPOP s 5").elements() {
            popped.insert(member.text());
        }
        assert_eq!(popped.len(), 3);
        client.expect("EXISTS s", ":0");
    });
}

#[test]
fn encodings() {
    let args = ["--set-max-intset-entries", "4", "--set-max-listpack-entries", "6"];
    each_way_with(&args, |client| {
        client.script(
            r#"
            SADD s 1 2 3 4 => :4
            OBJECT ENCODING s => intset
            SADD s 5 => :1
            OBJECT ENCODING s => hashtable
            SADD t 1 x => :2
            OBJECT ENCODING t => listpack
            SADD t 2 3 4 5 => :4
            OBJECT ENCODING t => listpack
            SADD t 6 => :1
            OBJECT ENCODING t => hashtable
            SADD u 9223372036854775807 -9223372036854775808 => :2
            OBJECT ENCODING u => intset
            SADD u 9223372036854775808 => :1
            OBJECT ENCODING u => listpack
            "#,
        );
    });
}

#[test]
fn scanning_a_large_set_while_it_changes() {
    each_way(|client| {
        let mut words = vec!["SADD".to_owned(), "s".to_owned()];
        words.extend((0..2000).map(|number| format!("stays:{number}")));
        assert_eq!(client.call_words(&words).integer(), 2000);
        let mut seen = BTreeSet::new();
        let mut cursor = "0".to_owned();
        let mut round = 0;
        loop {
            let reply = client.call(&format!("SSCAN s {cursor} COUNT 50 MATCH stays:*")).elements();
            seen.extend(reply[1].elements().iter().map(|member| member.text()));
            cursor = reply[0].text();
            let words: Vec<String> = ["SADD".to_owned(), "s".to_owned()]
                .into_iter()
                .chain((0..200).map(|number| format!("extra:{round}:{number}")))
                .collect();
            if round < 20 {
                client.call_words(&words);
            }
            round += 1;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 2000);
    });
}

#[test]
fn keys_behind_one_of_the_wrong_type_are_not_read() {
    let server = carnelian_tests::Server::start(&[]);
    let mut client = server.connect();
    client.script("SET string x => +OK\nCONFIG RESETSTAT => +OK\n");
    for command in [
        "ZUNION 3 a string b",
        "SUNION a string b",
        "SINTERCARD 3 a string b",
        "SDIFFSTORE d a string b",
    ] {
        let reply = client.call(command);
        assert!(reply.to_string().contains("WRONGTYPE"), "{command}: {reply}");
    }
    assert_eq!(client.info("keyspace_misses"), "4");
}
