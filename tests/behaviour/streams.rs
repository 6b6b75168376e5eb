//! The part of streams that there is: XADD, XLEN, XRANGE.

use carnelian_tests::each_way;

#[test]
fn adding_and_reading() {
    each_way(|client| {
        client.script(
            r#"
            XADD x 1-1 a 1 b 2 => 1-1
            XADD x 1-* c 3 => 1-2
            XADD x 2 d 4 => 2-0
            XADD x 1-5 e 5 => -ERR The ID specified in XADD is equal or smaller than the target stream top item
            XADD x 0-0 e 5 => -ERR The ID specified in XADD must be greater than 0-0
            XADD x nope e 5 => -ERR Invalid stream ID specified as stream command argument
            XADD x 3-1 odd => -ERR wrong number of arguments for 'xadd' command
            XLEN x => :3
            XLEN missing => :0
            XRANGE x - + => [[1-1 [a 1 b 2]] [1-2 [c 3]] [2-0 [d 4]]]
            XRANGE x (1-1 + COUNT 1 => [[1-2 [c 3]]]
            XRANGE x 1 1 => [[1-1 [a 1 b 2]] [1-2 [c 3]]]
            XRANGE x - + COUNT 0 => nil
            XRANGE missing - + => []
            XADD y NOMKSTREAM 1-1 a 1 => nil
            EXISTS y => :0
            XADD x MAXLEN 2 5-0 z 9 => 5-0
            XLEN x => :2
            XADD x MINID = 5 6-0 z 9 => 6-0
            XLEN x => :2
            XADD x MAXLEN -1 7-0 a b => -ERR The MAXLEN argument must be >= 0.
            "#,
        );
        let id = client.call("XADD t * a 1").text();
        let milliseconds: u64 = id.split('-').next().and_then(|part| part.parse().ok()).expect(&id);
        assert!(milliseconds > 1_600_000_000_000);
    });
}

#[test]
fn long_streams_keep_their_order() {
    each_way(|client| {
        for number in 1..=5000 {
            client.send(format!("XADD x {number}-1 n {number} t text\r\n").as_bytes());
        }
        for number in 1..=5000 {
            client.expect_next(&format!("{number}-1"));
        }
        let all = client.call("XRANGE x - +").elements();
        assert_eq!(all.len(), 5000);
        assert_eq!(all[4321].to_string(), "[4322-1 [n 4322 t text]]");
        client.expect("XRANGE x 2500 2501", "[[2500-1 [n 2500 t text]] [2501-1 [n 2501 t text]]]");
        client.expect("XADD x MAXLEN = 10 6000-1 n last", "6000-1");
        client.expect("XLEN x", ":10");
    });
}
