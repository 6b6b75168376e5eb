//! From thousands of commands before a difference to the few that are needed for it.

use anyhow::Result;

use super::command::Command;
use super::pair::Pair;
use crate::reply::{Protocol, Reply};

/// Tries no more replays than this.
const TRIALS: usize = 300;

/// A short history and the differing replies after it.
pub struct Reproduction {
    pub history: Vec<Command>,
    pub replies: (Reply, Reply),
}

/// The shortest history found after which `last` still makes the servers differ.
///
/// None when it does not happen again even with the whole history: chance or time had a hand in it.
pub fn shrink(
    pair: &mut Pair,
    protocol: Protocol,
    history: &[Command],
    last: &Command,
) -> Result<Option<Reproduction>> {
    let mut kept = related(history, last);
    let mut found = replay(pair, protocol, &kept, last)?;
    if found.is_none() {
        kept = history.to_vec();
        found = replay(pair, protocol, &kept, last)?;
    }
    let Some(mut replies) = found else { return Ok(None) };
    let mut piece = kept.len().div_ceil(2);
    let mut trials = 0;
    while piece > 0 {
        let mut start = 0;
        while start < kept.len() && trials < TRIALS {
            let end = kept.len().min(start + piece);
            let without = [&kept[..start], &kept[end..]].concat();
            trials += 1;
            match replay(pair, protocol, &without, last)? {
                Some(found) => (kept, replies) = (without, found),
                None => start = end,
            }
        }
        piece = if piece == 1 || trials >= TRIALS { 0 } else { piece.div_ceil(2) };
    }
    Ok(Some(Reproduction { history: kept, replies }))
}

/// The commands that share a word with `last`, or with a command that does; and those without a key.
fn related(history: &[Command], last: &Command) -> Vec<Command> {
    let mut words: Vec<&[u8]> = keys_of(last);
    for command in history.iter().rev() {
        if keys_of(command).iter().any(|word| words.contains(word)) {
            for word in keys_of(command) {
                if !words.contains(&word) {
                    words.push(word);
                }
            }
        }
    }
    let is_related = |command: &&Command| {
        let keys = keys_of(command);
        keys.is_empty() || keys.iter().any(|word| words.contains(word))
    };
    history.iter().filter(is_related).cloned().collect()
}

/// Words that look like the generator's keys: a kind and one digit.
pub fn keys_of(command: &Command) -> Vec<&[u8]> {
    let is_key = |word: &&[u8]| match word {
        [kind, digit] => b"sbhltzxqygpe".contains(kind) && digit.is_ascii_digit(),
        _ => word.starts_with(b"none") || word.starts_with(b"w_"),
    };
    command.words.iter().skip(1).map(Vec::as_slice).filter(is_key).collect()
}

fn replay(
    pair: &mut Pair,
    protocol: Protocol,
    history: &[Command],
    last: &Command,
) -> Result<Option<(Reply, Reply)>> {
    pair.reset(protocol)?;
    for batch in history.chunks(256) {
        if pair.run(batch).map_or(true, |exchanges| exchanges.len() < batch.len()) {
            // It was not the last command that did it.
            return Ok(None);
        }
    }
    match pair.run(std::slice::from_ref(last)) {
        Ok(mut exchanges) => {
            let exchange = exchanges.remove(0);
            Ok((!pair.agree(&exchange)).then_some(exchange.replies))
        }
        Err(error) => Ok(Some(broken(&error))),
    }
}

/// What stands for the replies where a server closes the connection, or is silent.
pub fn broken(error: &anyhow::Error) -> (Reply, Reply) {
    (Reply::Status(b"(see b)".to_vec()), Reply::Error(format!("{error:#}").into_bytes()))
}
