//! All data of both servers, key by key.

use anyhow::Result;

use super::command::Command;
use super::compare::Rule;
use super::pair::{Exchange, Pair};
use crate::reply::Reply;

/// A key (or the set of keys) on which the servers differ.
pub struct Mismatch {
    pub command: Command,
    pub replies: (Reply, Reply),
}

/// Compares the keys of the selected database with type, encoding, expiry and content.
pub fn compare(pair: &mut Pair, encodings: bool) -> Result<Option<Mismatch>> {
    let all = Command::new(vec![b"KEYS".to_vec(), b"*".to_vec()], Rule::Unordered);
    let exchange = pair.run(std::slice::from_ref(&all))?.remove(0);
    if !pair.agree(&exchange) {
        return Ok(Some(Mismatch { command: all, replies: exchange.replies }));
    }
    for key in exchange.replies.0.elements() {
        let key = key.bytes();
        let mut checks = vec![check(&["TYPE"], key, &[], Rule::Exact)];
        if encodings {
            checks.push(check(&["OBJECT", "ENCODING"], key, &[], Rule::Exact));
        }
        checks.push(check(&["PEXPIRETIME"], key, &[], Rule::Near(2000)));
        let kind = pair.run(&checks)?;
        if let Some(mismatch) = first_mismatch(pair, checks, &kind) {
            return Ok(Some(mismatch));
        }
        let content = match kind[0].replies.0.text().as_str() {
            "string" => vec![check(&["GET"], key, &[], Rule::Exact)],
            "list" => vec![check(&["LRANGE"], key, &["0", "-1"], Rule::Exact)],
            "set" => vec![check(&["SMEMBERS"], key, &[], Rule::Unordered)],
            "zset" => vec![check(&["ZRANGE"], key, &["0", "-1", "WITHSCORES"], Rule::Exact)],
            "stream" if encodings => {
                vec![check(&["XINFO", "STREAM"], key, &["FULL", "COUNT", "0"], Rule::Timed)]
            }
            "stream" => vec![check(&["XRANGE"], key, &["-", "+"], Rule::Exact)],
            "hash" => vec![check(&["HGETALL"], key, &[], Rule::Pairs)],
            _ => Vec::new(),
        };
        let replies = pair.run(&content)?;
        if let Some(mismatch) = first_mismatch(pair, content, &replies) {
            return Ok(Some(mismatch));
        }
    }
    Ok(None)
}

fn check(before: &[&str], key: &[u8], after: &[&str], rule: Rule) -> Command {
    let bytes = |word: &&str| word.as_bytes().to_vec();
    let mut words: Vec<Vec<u8>> = before.iter().map(bytes).collect();
    words.push(key.to_vec());
    words.extend(after.iter().map(bytes));
    Command::new(words, rule)
}

fn first_mismatch(pair: &Pair, commands: Vec<Command>, exchanges: &[Exchange]) -> Option<Mismatch> {
    commands
        .into_iter()
        .zip(exchanges)
        .find(|(_, exchange)| !pair.agree(exchange))
        .map(|(command, exchange)| Mismatch { command, replies: exchange.replies.clone() })
}
