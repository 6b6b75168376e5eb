//! LCS: the longest common subsequence of two strings.

use std::borrow::Cow;

use carnelian_keyspace::{Db, Text};
use carnelian_resp::Writer;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Text,
    Length,
    Matches { length_min: usize, with_length: bool },
}

impl Want {
    fn parse(words: &[&[u8]]) -> Result<Self, CommandError> {
        let (mut length, mut indexes, mut with_length, mut length_min) = (false, false, false, 0);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if args::is(word, "IDX") {
                indexes = true;
            } else if args::is(word, "LEN") {
                length = true;
            } else if args::is(word, "WITHMATCHLEN") {
                with_length = true;
            } else if args::is(word, "MINMATCHLEN") {
                let number = args::integer(words.next().ok_or(CommandError::Syntax)?)?;
                length_min = usize::try_from(number).unwrap_or(0);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        match (length, indexes) {
            (true, true) => Err(CommandError::text(
                "ERR If you want both the length and indexes, please just use IDX.",
            )),
            (true, false) => Ok(Self::Length),
            (false, true) => Ok(Self::Matches { length_min, with_length }),
            (false, false) => Ok(Self::Text),
        }
    }
}

pub(super) const LCS: DataCommand = DataCommand {
    name: "lcs",
    summary: "Returns the longest common subsequence of two strings.",
    since: "7.0.0",
    group: Group::String,
    complexity: "O(N*M) in their lengths",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::STRING,
    keys: &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 1, 1)],
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: lcs,
};

/// `LCS key1 key2 [LEN] [IDX] [MINMATCHLEN length] [WITHMATCHLEN]`
fn lcs(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let (first, second) = (call.args[1], call.args[2]);
    call.db.settle(first);
    call.db.settle(second);
    let (a, b) = (text(&call.db, first)?, text(&call.db, second)?);
    let want = Want::parse(&call.args[3..])?;
    check_size(a.len(), b.len(), call.limits().max_string)?;
    let reply = &mut call.reply;
    match want {
        Want::Length => reply.integer(i64::from(length(&a, &b))),
        Want::Text => reply.bulk(&Lengths::new(&a, &b).subsequence()),
        Want::Matches { length_min, with_length } => {
            reply_matches(&Lengths::new(&a, &b), length_min, with_length, reply);
        }
    }
    Ok(Effect::None)
}

/// The string at a key, empty if there is none.
fn text<'d>(db: &'d Db<'_>, key: &[u8]) -> Result<Cow<'d, [u8]>, CommandError> {
    let Some(entry) = db.peek(key) else { return Ok(Cow::Borrowed(b"")) };
    match entry.text() {
        Some(Text::Bytes(bytes)) => Ok(Cow::Borrowed(bytes)),
        Some(integer) => Ok(Cow::Owned(integer.to_vec())),
        None => Err(CommandError::text("ERR The specified keys must contain string values")),
    }
}

/// Refuses strings whose table would be larger than a string may be, even where none is made: what
/// is refused must not depend on the options.
fn check_size(a: usize, b: usize, max: usize) -> Result<(), CommandError> {
    const TOO_LONG: usize = u32::MAX as usize - 1;
    if TOO_LONG <= a || TOO_LONG <= b {
        return Err(CommandError::text("ERR String too long for LCS"));
    }
    let bytes = (a as u128 + 1) * (b as u128 + 1) * size_of::<u32>() as u128;
    if bytes > max as u128 {
        return Err(CommandError::text(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    Ok(())
}

/// The length alone, from one row of the table at a time.
fn length(a: &[u8], b: &[u8]) -> u32 {
    let mut row = vec![0; b.len() + 1];
    for &byte in a {
        let mut diagonal = 0;
        let mut left = 0;
        for (cell, &other) in row[1..].iter_mut().zip(b) {
            let above = *cell;
            left = if byte == other { diagonal + 1 } else { above.max(left) };
            diagonal = above;
            *cell = left;
        }
    }
    row[b.len()]
}

/// The lengths for all pairs of beginnings of two strings.
struct Lengths<'a> {
    a: &'a [u8],
    b: &'a [u8],
    /// Row by row, `b.len() + 1` to each of `a.len() + 1` rows.
    cells: Vec<u32>,
}

/// Equal stretches of both strings, by their first indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: usize,
    b: usize,
    length: usize,
}

impl<'a> Lengths<'a> {
    fn new(a: &'a [u8], b: &'a [u8]) -> Self {
        let width = b.len() + 1;
        let mut cells = vec![0; width * (a.len() + 1)];
        for (i, &byte) in a.iter().enumerate() {
            let (above, row) = cells[i * width..][..2 * width].split_at_mut(width);
            let mut left = 0;
            for (j, &other) in b.iter().enumerate() {
                left = if byte == other { above[j] + 1 } else { above[j + 1].max(left) };
                row[j + 1] = left;
            }
        }
        Self { a, b, cells }
    }

    /// For the first `i` bytes of `a` and the first `j` of `b`.
    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * (self.b.len() + 1) + j]
    }

    fn whole(&self) -> u32 {
        self.at(self.a.len(), self.b.len())
    }

    /// Goes back through the table and calls `found` with each pair of equal bytes on the way.
    fn walk(&self, mut found: impl FnMut(usize, usize)) {
        let (mut i, mut j) = (self.a.len(), self.b.len());
        while 0 < i && 0 < j {
            if self.a[i - 1] == self.b[j - 1] {
                i -= 1;
                j -= 1;
                found(i, j);
            } else if self.at(i, j - 1) < self.at(i - 1, j) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
    }

    fn subsequence(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.whole() as usize);
        self.walk(|i, _| bytes.push(self.a[i]));
        bytes.reverse();
        bytes
    }

    /// Calls `found` with each stretch, the last one first.
    fn matches(&self, mut found: impl FnMut(Match)) {
        let mut current: Option<Match> = None;
        self.walk(|i, j| match &mut current {
            Some(stretch) if stretch.a == i + 1 && stretch.b == j + 1 => {
                *stretch = Match { a: i, b: j, length: stretch.length + 1 };
            }
            _ => {
                current.take().into_iter().for_each(&mut found);
                current = Some(Match { a: i, b: j, length: 1 });
            }
        });
        current.into_iter().for_each(found);
    }
}

fn reply_matches(
    lengths: &Lengths<'_>,
    length_min: usize,
    with_length: bool,
    reply: &mut Writer<'_>,
) {
    reply.map(2);
    reply.bulk(b"matches");
    let mark = reply.defer();
    let mut count = 0;
    lengths.matches(|stretch| {
        if stretch.length < length_min {
            return;
        }
        count += 1;
        reply.array(2 + usize::from(with_length));
        for first in [stretch.a, stretch.b] {
            reply.array(2);
            reply.integer(first as i64);
            reply.integer((first + stretch.length - 1) as i64);
        }
        if with_length {
            reply.integer(stretch.length as i64);
        }
    });
    reply.finish_array(mark, count);
    reply.bulk(b"len");
    reply.integer(i64::from(lengths.whole()));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn the_documented_example_holds() {
        let mut bench = Bench::new();
        bench.expect("MSET key1 ohmytext key2 mynewtext", "+OK");
        bench.expect("LCS key1 key2", "$6 mytext");
        bench.expect("LCS key1 key2 LEN", ":6");
        bench.expect("LCS key1 missing", "$0");
        let matches = "*2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1";
        bench.expect("LCS key1 key2 IDX", &format!("*4 $7 matches *2 {matches} $3 len :6"));
        bench.expect(
            "LCS key1 key2 IDX MINMATCHLEN 4 WITHMATCHLEN",
            "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6",
        );
    }

    #[test]
    fn contradictions_and_memory_are_bounded() {
        let mut bench = Bench::new();
        bench.expect("MSET a 12345 b 12345", "+OK");
        bench.expect(
            "LCS a b LEN IDX",
            "-ERR If you want both the length and indexes, please just use IDX.",
        );
        bench.expect("LCS a b MINMATCHLEN", "-ERR syntax error");
        bench.environment.limits.max_string = 4 * 36 - 1;
        bench.expect(
            "LCS a b LEN",
            "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        );
        bench.environment.limits.max_string += 1;
        bench.expect("LCS a b", "$5 12345");
    }

    fn is_subsequence(part: &[u8], mut whole: &[u8]) -> bool {
        part.iter().all(|byte| {
            let place = whole.iter().position(|other| other == byte);
            whole = place.map_or(b"", |place| &whole[place + 1..]);
            place.is_some()
        })
    }

    proptest! {
        #[test]
        fn text_length_and_matches_agree(a in "[ab]{0,12}", b in "[abc]{0,12}") {
            let (a, b) = (a.as_bytes(), b.as_bytes());
            let lengths = Lengths::new(a, b);
            let text = lengths.subsequence();
            prop_assert_eq!(text.len(), length(a, b) as usize);
            prop_assert!(is_subsequence(&text, a) && is_subsequence(&text, b));
            let mut total = 0;
            lengths.matches(|it| {
                assert_eq!(a[it.a..it.a + it.length], b[it.b..it.b + it.length]);
                total += it.length;
            });
            prop_assert_eq!(total, text.len());
        }
    }
}
