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
    // In two pipelines, not key by key: the way there and back would take longer than all the rest.
    let keys = exchange.replies.0.elements();
    let keys: Vec<&[u8]> = keys.iter().map(Reply::bytes).collect();
    let mut checks = Vec::new();
    for key in &keys {
        checks.push(check(&["TYPE"], key, &[], Rule::Exact));
        if encodings {
            checks.push(check(&["OBJECT", "ENCODING"], key, &[], Rule::Exact));
        }
        checks.push(check(&["PEXPIRETIME"], key, &[], Rule::Near(2000)));
    }
    let kinds = pair.run(&checks)?;
    if let Some(mismatch) = first_mismatch(pair, &checks, &kinds) {
        return Ok(Some(mismatch));
    }
    let each = checks.len() / keys.len().max(1);
    let kind_of = |at: usize| kinds[at * each].replies.0.text();
    let reads =
        keys.iter().enumerate().filter_map(|(at, key)| reading(&kind_of(at), key, encodings));
    let reads: Vec<Command> = reads.collect();
    let contents = pair.run(&reads)?;
    Ok(first_mismatch(pair, &reads, &contents))
}

/// What shows all that a key of this type holds.
fn reading(kind: &str, key: &[u8], encodings: bool) -> Option<Command> {
    let command = match kind {
        "string" => check(&["GET"], key, &[], Rule::Exact),
        "list" => check(&["LRANGE"], key, &["0", "-1"], Rule::Exact),
        "set" => check(&["SMEMBERS"], key, &[], Rule::Unordered),
        "zset" => check(&["ZRANGE"], key, &["0", "-1", "WITHSCORES"], Rule::Exact),
        "stream" if encodings => {
            check(&["XINFO", "STREAM"], key, &["FULL", "COUNT", "0"], Rule::Timed)
        }
        "stream" => check(&["XRANGE"], key, &["-", "+"], Rule::Exact),
        "hash" => check(&["HGETALL"], key, &[], Rule::Pairs),
        _ => return None,
    };
    Some(command)
}

fn check(before: &[&str], key: &[u8], after: &[&str], rule: Rule) -> Command {
    let bytes = |word: &&str| word.as_bytes().to_vec();
    let mut words: Vec<Vec<u8>> = before.iter().map(bytes).collect();
    words.push(key.to_vec());
    words.extend(after.iter().map(bytes));
    Command::new(words, rule)
}

fn first_mismatch(pair: &Pair, commands: &[Command], exchanges: &[Exchange]) -> Option<Mismatch> {
    commands.iter().zip(exchanges).find(|(_, exchange)| !pair.agree(exchange)).map(
        |(command, exchange)| Mismatch {
            command: command.clone(),
            replies: exchange.replies.clone(),
        },
    )
}
