//! Lists.

use carnelian_tests::{each_way, each_way_with};

#[test]
fn pushing_and_popping() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH l a b c => :3
            LPUSH l x y => :5
            LRANGE l 0 -1 => [y x a b c]
            LPUSHX missing a => :0
            RPUSHX l d => :6
            LLEN l => :6
            LPOP l => y
            RPOP l => d
            LPOP l 2 => [x a]
            RPOP l 0 => []
            RPOP l 10 => [c b]
            EXISTS l => :0
            LPOP l => nil
            LPOP l 2 => nil
            LPOP l -1 => -ERR value is out of range, must be positive
            LPOP l x => -ERR value is out of range, must be positive
            LLEN missing => :0
            "#,
        );
    });
}

#[test]
fn ranges_and_indexes() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH l a b c d e => :5
            LRANGE l 1 3 => [b c d]
            LRANGE l -2 -1 => [d e]
            LRANGE l 3 1 => []
            LRANGE l 0 100 => [a b c d e]
            LRANGE l x 1 => -ERR value is not an integer or out of range
            LRANGE missing 0 -1 => []
            LINDEX l 0 => a
            LINDEX l -1 => e
            LINDEX l 5 => nil
            LSET l 1 B => +OK
            LSET l -1 E => +OK
            LSET l 5 x => -ERR index out of range
            LSET missing 0 x => -ERR no such key
            LINSERT l BEFORE B A2 => :6
            LINSERT l AFTER E F => :7
            LINSERT l BEFORE missing x => :-1
            LINSERT missing BEFORE a x => :0
            LINSERT l BESIDE a x => -ERR syntax error
            LRANGE l 0 -1 => [a A2 B c d E F]
            LTRIM l 1 -2 => +OK
            LRANGE l 0 -1 => [A2 B c d E]
            LTRIM l 5 10 => +OK
            EXISTS l => :0
            "#,
        );
    });
}

#[test]
fn removing_and_finding() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH l a b a c a => :5
            LPOS l a => :0
            LPOS l a RANK 2 => :2
            LPOS l a RANK -1 => :4
            LPOS l a COUNT 2 => [:0 :2]
            LPOS l a COUNT 0 => [:0 :2 :4]
            LPOS l a RANK -1 COUNT 0 => [:4 :2 :0]
            LPOS l a COUNT 0 MAXLEN 3 => [:0 :2]
            LPOS l x => nil
            LPOS l x COUNT 1 => []
            LPOS l a RANK 0 => -ERR RANK can't be zero...
            LPOS l a COUNT -1 => -ERR COUNT can't be negative
            LPOS l a MAXLEN -1 => -ERR MAXLEN can't be negative
            LREM l 1 a => :1
            LREM l -1 a => :1
            LRANGE l 0 -1 => [b a c]
            LREM l 0 a => :1
            LREM l 0 x => :0
            LREM missing 0 x => :0
            "#,
        );
    });
}

#[test]
fn moving() {
    each_way(|client| {
        client.script(
            r#"
            RPUSH a 1 2 3 => :3
            LMOVE a b LEFT RIGHT => 1
            LMOVE a b RIGHT LEFT => 3
            LRANGE b 0 -1 => [3 1]
            RPOPLPUSH a b => 2
            EXISTS a => :0
            LMOVE a b LEFT LEFT => nil
            RPOPLPUSH b b => 1
            LRANGE b 0 -1 => [1 2 3]
            LMOVE b b UP LEFT => -ERR syntax error
            SET s x => +OK
            LMOVE b s LEFT LEFT => -WRONGTYPE Operation against a key holding the wrong kind of value
            LRANGE b 0 -1 => [1 2 3]
            LMPOP 2 none b LEFT COUNT 2 => [b [1 2]]
            LMPOP 1 none LEFT => nil
            LMPOP 0 b LEFT => -ERR numkeys should be greater than 0
            LMPOP 1 b LEFT COUNT 0 => -ERR count should be greater than 0
            LMPOP 1 b MIDDLE => -ERR syntax error
            "#,
        );
    });
}

#[test]
fn encodings() {
    each_way_with(&["--list-max-listpack-size", "4"], |client| {
        client.script(
            r#"
            RPUSH l 1 2 3 4 => :4
            OBJECT ENCODING l => listpack
            RPUSH l 5 => :5
            OBJECT ENCODING l => quicklist
            RPOP l 4 => [5 4 3 2]
            OBJECT ENCODING l => listpack
            "#,
        );
    });
}

#[test]
fn long_lists_keep_their_order() {
    each_way(|client| {
        let elements: Vec<String> = (0..20_000).map(|number| format!("element:{number}")).collect();
        for chunk in elements.chunks(1000) {
            let mut words = vec!["RPUSH".to_owned(), "l".to_owned()];
            words.extend_from_slice(chunk);
            client.call_words(&words);
        }
        let all = client.call("LRANGE l 0 -1").elements();
        assert!(all.iter().map(|element| element.text()).eq(elements.iter().cloned()));
        for index in [0, 1, 9_999, 19_999] {
            client.expect(&format!("LINDEX l {index}"), &elements[index]);
            client.expect(&format!("LINDEX l {}", index as i64 - 20_000), &elements[index]);
        }
        client.expect("LINSERT l AFTER element:9999 between", ":20001");
        client.expect("LRANGE l 9999 10001", "[element:9999 between element:10000]");
        client.expect("LREM l 1 between", ":1");
        client.expect("LTRIM l 5000 14999", "+OK");
        client.expect("LLEN l", ":10000");
        client.expect("LINDEX l 0", "element:5000");
    });
}
