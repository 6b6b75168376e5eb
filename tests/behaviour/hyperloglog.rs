//! HyperLogLogs.

use carnelian_tests::{Server, each_way};

#[test]
fn elements_are_counted() {
    each_way(|client| {
        client.script(
            r#"
            PFADD h => :1
            PFADD h => :0
            PFADD h a b c d e f g => :1
            PFADD h a b => :0
            PFCOUNT h => :7
            PFADD i f g h i => :1
            PFCOUNT h i missing => :9
            PFMERGE j h i => +OK
            PFCOUNT j => :9
            PFMERGE j => +OK
            TYPE h => +string
            PFDEBUG ENCODING h => +sparse
            PFDEBUG TODENSE h => :1
            PFDEBUG ENCODING h => +dense
            STRLEN h => :12304
            PFCOUNT h => :7
            COPY h k => :1
            PFCOUNT k => :7
            PFCOUNT missing => :0
            PFCOUNT => -ERR wrong number of arguments for 'pfcount' command
            PFSELFTEST => +OK
            "#,
        );
    });
}

#[test]
fn bytes_are_those_of_redis() {
    each_way(|client| {
        client.script(
            r#"
            PFADD h a b c => :1
            GET h => "HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80`\xf3\x80P\xb1\x84K\xfb\x80BZ"
            "#,
        );
    });
}

#[test]
fn other_strings_are_refused() {
    each_way(|client| {
        client.script(
            r#"
            SET s hello => +OK
            PFADD s a => -WRONGTYPE Key is not a valid HyperLogLog string value.
            PFCOUNT s => -WRONGTYPE Key is not a valid HyperLogLog string value.
            PFMERGE d s => -WRONGTYPE Key is not a valid HyperLogLog string value.
            RPUSH l a => :1
            PFADD l a => -WRONGTYPE Operation against a key holding the wrong kind of value
            PFADD h a => :1
            APPEND h x => :22
            PFCOUNT h => -INVALIDOBJ Corrupted HLL object detected
            PFMERGE d h => -INVALIDOBJ Corrupted HLL object detected
            EXISTS d => :0
            "#,
        );
    });
}

#[test]
fn the_size_of_sparse_strings_is_a_setting() {
    let server = Server::start(&["--hll-sparse-max-bytes", "30"]);
    let mut client = server.connect();
    for element in 0..20 {
        client.call_words(&["PFADD", "h", &element.to_string()]);
    }
    client.expect("PFDEBUG ENCODING h", "+dense");
    client.expect("CONFIG SET hll-sparse-max-bytes 3000", "+OK");
    for element in 0..20 {
        client.call_words(&["PFADD", "i", &element.to_string()]);
    }
    client.expect("PFDEBUG ENCODING i", "+sparse");
}

#[test]
fn what_is_only_stored_in_another_way_is_no_change_to_who_watches() {
    let server = Server::start(&[]);
    let (mut client, mut watcher) = (server.connect(), server.connect());
    for question in ["GETREG", "TODENSE"] {
        client.script(
            "
            DEL h => ?
            PFADD h a => :1
        ",
        );
        watcher.expect("WATCH h", "+OK");
        assert!(!client.call(&format!("PFDEBUG {question} h")).is_error());
        client.expect("PFDEBUG ENCODING h", "+dense");
        watcher.script(
            "
            MULTI => +OK
            PING => +QUEUED
            EXEC => [+PONG]
        ",
        );
    }
}
