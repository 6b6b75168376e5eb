//! The parser on requests as clients send them, and the writer.

use std::hint::black_box;

use carnelian_resp::{Limits, Parser, Progress, Protocol, Span, Writer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const KEY: &[u8] = b"key:000000012345";
const VALUE: &[u8; 64] = &[b'v'; 64];

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    let mut mset: Vec<&[u8]> = vec![b"MSET"];
    mset.extend([KEY, VALUE].repeat(100));
    let requests = [
        ("GET", request(&[b"GET", KEY])),
        ("SET of 64 bytes", request(&[b"SET", KEY, VALUE])),
        ("GET, inline", [b"GET ", KEY, b"\r\n"].concat()),
        ("MSET of 100", request(&mset)),
        ("16 GETs", request(&[b"GET", KEY]).repeat(16)),
    ];
    for (name, mut bytes) in requests {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let (mut parser, mut spans) = (Parser::default(), Vec::new());
        group.bench_function(name, |bencher| {
            bencher.iter(|| parse(&mut parser, black_box(&mut bytes), &mut spans));
        });
    }

    // What arrives in pieces costs a search that is taken up again at each.
    let whole = request(&mset);
    for pieces in [2, 16] {
        group.throughput(Throughput::Bytes(whole.len() as u64));
        let (mut parser, mut spans) = (Parser::default(), Vec::new());
        let mut buffer = Vec::with_capacity(whole.len());
        group.bench_function(BenchmarkId::new("MSET of 100 in pieces", pieces), |bencher| {
            bencher.iter(|| {
                buffer.clear();
                for piece in whole.chunks(whole.len().div_ceil(pieces)) {
                    buffer.extend_from_slice(black_box(piece));
                    parse(&mut parser, &mut buffer, &mut spans);
                }
                assert_eq!(spans.len(), 201);
            });
        });
    }
    group.finish();
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Finds all whole commands in `bytes`.
fn parse(parser: &mut Parser, bytes: &mut [u8], spans: &mut Vec<Span>) {
    let limits = Limits::default();
    let mut position = 0;
    spans.clear();
    while position < bytes.len() {
        match parser.next(&mut bytes[position..], &limits, spans) {
            Ok(Progress::Complete { consumed, .. }) => position += consumed,
            Ok(Progress::Incomplete { .. }) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

type Reply = fn(&mut Writer<'_>);

fn writer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    let replies: [(&str, Reply); 6] = [
        ("OK", |writer| writer.ok()),
        ("integer", |writer| writer.integer(black_box(1_234_567))),
        ("bulk of 64 bytes", |writer| writer.bulk(black_box(VALUE))),
        ("double", |writer| writer.double(black_box(3.25e17))),
        ("array of 100 bulks", |writer| {
            writer.array(100);
            (0..100).for_each(|_| writer.bulk(black_box(VALUE)));
        }),
        ("map of 100, length told last", |writer| {
            let mark = writer.defer();
            for number in 0..100 {
                writer.bulk(black_box(KEY));
                writer.integer(number);
            }
            writer.finish_map(mark, 100);
        }),
    ];
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        for (name, reply) in replies {
            let mut out = Vec::with_capacity(64 << 10);
            let id = BenchmarkId::new(name, format!("RESP{}", protocol.version()));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    out.clear();
                    reply(&mut Writer::new(black_box(&mut out), protocol));
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, parser, writer);
criterion_main!(benches);
