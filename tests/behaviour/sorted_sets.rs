//! Sorted sets.

use carnelian_tests::{Protocol, each_way, each_way_with};

#[test]
fn adding_and_scores() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 1 a 2 b 3 c => :3
            ZADD z 1.5 a 4 d => :1
            ZSCORE z a => ,1.5
            ZSCORE z x => nil
            ZMSCORE z a x => [,1.5 nil]
            ZADD z NX 9 a 5 e => :1
            ZADD z XX CH 2 a 9 x => :1
            ZADD z GT CH 1 a 6 e => :1
            ZADD z LT CH 1 a 7 e => :1
            ZADD z INCR 2 a => ,3
            ZADD z NX INCR 2 a => nil
            ZADD z NX GT 1 a => -ERR GT, LT, and/or NX options at the same time are not compatible
            ZADD z NX XX 1 a => -ERR XX and NX options at the same time are not compatible
            ZADD z INCR 1 a 2 b => -ERR INCR option supports a single increment-element pair
            ZADD z x a => -ERR value is not a valid float
            ZADD z nan a => -ERR value is not a valid float
            ZADD z 1 => -ERR wrong number of arguments for 'zadd' command
            ZADD z 1 a 2 => -ERR syntax error
            ZINCRBY z 0.25 a => ,3.25
            ZADD z inf i -inf j => :2
            ZINCRBY z -inf i => -ERR resulting score is not a number (NaN)
            ZSCORE z i => ,inf
            ZCARD z => :7
            ZREM z i j x => :2
            ZCARD missing => :0
            "#,
        );
    });
}

#[test]
fn scores_are_written_shortest() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 0.1 a 1e21 b 123456789012345680 c -0 d 1e-7 e 3 f => :6
            ZSCORE z a => ,0.1
            ZSCORE z b => ,1e+21
            ZSCORE z c => ,123456789012345680
            ZSCORE z d => ,0
            ZSCORE z e => ,1e-7
            ZSCORE z f => ,3
            "#,
        );
    });
}

#[test]
fn ranges() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 1 a 2 b 3 c 4 d => :4
            ZRANGE z 0 -1 => [a b c d]
            ZRANGE z 0 0 REV => [d]
            ZREVRANGE z 0 1 => [d c]
            ZRANGEBYSCORE z 2 3 => [b c]
            ZRANGEBYSCORE z (2 +inf => [c d]
            ZRANGEBYSCORE z -inf +inf LIMIT 1 2 => [b c]
            ZREVRANGEBYSCORE z 3 1 => [c b a]
            ZRANGE z 2 3 BYSCORE => [b c]
            ZRANGE z 3 2 BYSCORE REV => [c b]
            ZRANGE z 0 10 BYSCORE LIMIT 1 1 => [b]
            ZRANGE z 0 -1 LIMIT 0 1 => -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
            ZRANGE z [b [c BYLEX WITHSCORES => -ERR syntax error, WITHSCORES not supported in combination with BYLEX
            ZRANGEBYSCORE z a b => -ERR min or max is not a float
            ZRANGE z a b => -ERR value is not an integer or out of range
            ZCOUNT z 2 +inf => :3
            ZCOUNT z (2 3 => :1
            ZRANGESTORE out z 1 2 => :2
            ZRANGE out 0 -1 => [b c]
            ZRANGESTORE out missing 0 -1 => :0
            EXISTS out => :0
            "#,
        );
        let scores = client.call("ZRANGE z 0 1 WITHSCORES").to_string();
        match client.protocol() {
            Protocol::Resp2 => assert_eq!(scores, "[a 1 b 2]"),
            Protocol::Resp3 => assert_eq!(scores, "[[a ,1] [b ,2]]"),
        }
    });
}

#[test]
fn names_in_order() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 0 a 0 b 0 c 0 d => :4
            ZRANGEBYLEX z - + => [a b c d]
            ZRANGEBYLEX z [b (d => [b c]
            ZRANGE z (a [c BYLEX => [b c]
            ZREVRANGEBYLEX z + [b LIMIT 0 2 => [d c]
            ZLEXCOUNT z (a + => :3
            ZREMRANGEBYLEX z [b [c => :2
            ZRANGEBYLEX z b c => -ERR min or max not valid string range item
            "#,
        );
    });
}

#[test]
fn ranks() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 1 a 2 b 3 c => :3
            ZRANK z a => :0
            ZREVRANK z a => :2
            ZRANK z x => nil
            ZRANK z b WITHSCORE => [:1 ,2]
            ZREVRANK z b WITHSCORE => [:1 ,2]
            ZRANK z x WITHSCORE => nil
            ZRANK z b WHAT => -ERR syntax error
            ZREMRANGEBYRANK z 0 0 => :1
            ZREMRANGEBYSCORE z 3 3 => :1
            ZRANGE z 0 -1 => [b]
            "#,
        );
    });
}

#[test]
fn popping() {
    each_way(|client| {
        client.script(
            r#"
            ZADD z 1 a 2 b 3 c 4 d => :4
            ZPOPMIN z => [a ,1]
            ZPOPMAX z => [d ,4]
            ZPOPMIN missing => []
            ZPOPMIN z 0 => []
            ZPOPMIN z -1 => -ERR value is out of range, must be positive
            ZMPOP 2 missing z MIN COUNT 1 => [z [[b ,2]]]
            ZMPOP 1 missing MAX => nil
            ZMPOP 0 z MIN => -ERR numkeys should be greater than 0
            ZMPOP 1 z MIDDLE => -ERR syntax error
            ZMPOP 1 z MAX => [z [[c ,3]]]
            EXISTS z => :0
            "#,
        );
    });
}

#[test]
fn algebra() {
    each_way(|client| {
        client.script(
            r#"
            ZADD a 1 x 2 y => :2
            ZADD b 10 y 20 z => :2
            SADD s x z => :2
            ZUNIONSTORE u 2 a b => :3
            ZRANGE u 0 -1 => [x y z]
            ZSCORE u y => ,12
            ZUNIONSTORE u 2 a b WEIGHTS 2 1 AGGREGATE MAX => :3
            ZSCORE u y => ,10
            ZINTERSTORE u 2 a b AGGREGATE MIN => :1
            ZSCORE u y => ,2
            ZUNION 2 a s => [z x y]
            ZINTER 2 a s => [x]
            ZDIFF 2 a b => [x]
            ZDIFFSTORE u 2 a b => :1
            ZINTERCARD 2 a b => :1
            ZINTERCARD 2 a b LIMIT 0 => :1
            ZUNIONSTORE u 0 a => -ERR at least 1 input key is needed for 'zunionstore' command
            ZUNIONSTORE u 3 a b => -ERR syntax error
            ZUNIONSTORE u 2 a b WEIGHTS 1 => -ERR syntax error
            ZUNIONSTORE u 2 a b WEIGHTS 1 x => -ERR weight value is not a float
            ZUNION 1 a AGGREGATE AVG => -ERR syntax error
            "#,
        );
    });
}

#[test]
fn encodings_and_order_of_large_sets() {
    each_way_with(&["--zset-max-listpack-entries", "4"], |client| {
        client.script(
            r#"
            ZADD z 1 a 2 b 3 c 4 d => :4
            OBJECT ENCODING z => listpack
            ZADD z 5 e => :1
            OBJECT ENCODING z => skiplist
            "#,
        );
        let mut random = fastrand::Rng::with_seed(5);
        let mut model = Vec::new();
        for number in 0..3000 {
            let score = random.i32(-500..500);
            model.push((score, format!("m{number}")));
            client.send(format!("ZADD big {score} m{number}\r\n").as_bytes());
        }
        for _ in 0..3000 {
            client.expect_next(":1");
        }
        model.sort();
        let names = |from: usize, to: usize| -> Vec<String> {
            model[from..to].iter().map(|(_, name)| name.clone()).collect()
        };
        let ask = |client: &mut carnelian_tests::Client, command: &str| -> Vec<String> {
            client.call(command).elements().iter().map(|element| element.text()).collect()
        };
        assert_eq!(ask(client, "ZRANGE big 0 -1"), names(0, 3000));
        assert_eq!(ask(client, "ZRANGE big 1000 1099"), names(1000, 1100));
        for place in [0, 1, 1499, 2999] {
            client.expect(&format!("ZRANK big {}", model[place].1), &format!(":{place}"));
        }
        let below = model.iter().filter(|(score, _)| *score < 100).count();
        client.expect("ZCOUNT big -inf (100", &format!(":{below}"));
        client.expect("ZREMRANGEBYSCORE big -inf (100", &format!(":{below}"));
        assert_eq!(ask(client, "ZRANGE big 0 -1"), names(below, 3000));
    });
}

#[test]
fn random_members_and_scans() {
    each_way(|client| {
        client.script(
            r#"
            ZRANDMEMBER missing => nil
            ZRANDMEMBER missing 2 => []
            ZADD z 1 a => :1
            ZRANDMEMBER z => a
            ZRANDMEMBER z 5 => [a]
            ZRANDMEMBER z -2 => [a a]
            ZSCAN z 0 => [0 [a 1]]
            ZSCAN z 0 MATCH x => [0 []]
            "#,
        );
    });
}
