//! BITCOUNT and BITPOS: how many bits are set, and where the first of a kind is.

use super::READ_ONE;
use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::string::range::clamped;

/// What the indexes of a range count.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Byte,
    Bit,
}

impl Unit {
    fn parse(word: Option<&&[u8]>) -> Result<Self, CommandError> {
        match word {
            None => Ok(Self::Byte),
            Some(word) if args::is(word, "BYTE") => Ok(Self::Byte),
            Some(word) if args::is(word, "BIT") => Ok(Self::Bit),
            Some(_) => Err(CommandError::Syntax),
        }
    }

    /// How many there are in a string of this length.
    fn of(self, bytes: usize) -> usize {
        match self {
            Self::Byte => bytes,
            Self::Bit => bytes * 8,
        }
    }

    /// The bits of a range.
    fn bits(self, (first, last): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Byte => (first * 8, last * 8 + 7),
            Self::Bit => (first, last),
        }
    }
}

pub(super) const BITCOUNT: DataCommand = DataCommand {
    name: "bitcount",
    summary: "Counts the bits set in the string at a key.",
    since: "2.6.0",
    group: Group::Bitmap,
    complexity: "O(N) in the length of the range",
    arity: -2,
    flags: Flags::READONLY,
    categories: Categories::BITMAP,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bitcount,
};

/// `BITCOUNT key [start end [BYTE | BIT]]`
fn bitcount(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let range = match &call.args[2..] {
        [] => None,
        [start, end, unit @ ..] if unit.len() <= 1 => {
            Some((args::integer(start)?, args::integer(end)?, Unit::parse(unit.first())?))
        }
        _ => return Err(CommandError::Syntax),
    };
    let count = call.db.string(call.args[1])?.map_or(0, |text| {
        text.with_bytes(|bytes| match range {
            None => ones(bytes),
            Some((start, end, unit)) => clamped(start, end, unit.of(bytes.len()))
                .map_or(0, |range| ones_between(bytes, unit.bits(range))),
        })
    });
    call.reply.integer(count as i64);
    Ok(Effect::None)
}

/// Bits set from `first` to `last`, both of which are there.
fn ones_between(bytes: &[u8], (first, last): (usize, usize)) -> u64 {
    let bytes = &bytes[first / 8..=last / 8];
    let before = bytes[0] & !(0xff >> (first % 8));
    let after = bytes[bytes.len() - 1] & !(0xff << (7 - last % 8));
    ones(bytes) - u64::from(before.count_ones()) - u64::from(after.count_ones())
}

/// Four words side by side: the compiler makes wide instructions of them.
type Lanes = [u64; 4];

/// All bits set.
///
/// Without the instruction for it, which not every x86-64 has, counting a word is slow. So eight
/// words are added up at each of their places first, and only what carries over from there is
/// counted: `one`, `two` and `four` are the digits of 64 small sums per lane.
fn ones(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<{ 8 * size_of::<Lanes>() }>();
    let (mut one, mut two, mut four, mut eights) = ([0; 4], [0; 4], [0; 4], 0);
    for block in blocks {
        let (words, _) = block.as_chunks();
        let lanes =
            |at: usize| std::array::from_fn(|lane| u64::from_ne_bytes(words[4 * at + lane]));
        let (sum, carry_0) = add(one, lanes(0), lanes(1));
        let (sum, carry_1) = add(sum, lanes(2), lanes(3));
        let (sum, carry_2) = add(sum, lanes(4), lanes(5));
        let (sum, carry_3) = add(sum, lanes(6), lanes(7));
        one = sum;
        let (sum, carry_0) = add(two, carry_0, carry_1);
        let (sum, carry_1) = add(sum, carry_2, carry_3);
        two = sum;
        let (sum, carry) = add(four, carry_0, carry_1);
        four = sum;
        eights += ones_of(carry);
    }
    let sums = 8 * eights + 4 * ones_of(four) + 2 * ones_of(two) + ones_of(one);
    sums + rest.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

/// The sum and the carry of three bits, at every place.
fn add(a: Lanes, b: Lanes, c: Lanes) -> (Lanes, Lanes) {
    let sum = std::array::from_fn(|lane| a[lane] ^ b[lane] ^ c[lane]);
    let carry = |lane| (a[lane] & b[lane]) | ((a[lane] ^ b[lane]) & c[lane]);
    (sum, std::array::from_fn(carry))
}

fn ones_of(lanes: Lanes) -> u64 {
    lanes.iter().map(|word| u64::from(word.count_ones())).sum()
}

pub(super) const BITPOS: DataCommand = DataCommand {
    name: "bitpos",
    summary: "Finds the first bit set or cleared in the string at a key.",
    since: "2.8.7",
    group: Group::Bitmap,
    complexity: "O(N) in the length of the range",
    arity: -3,
    flags: Flags::READONLY,
    categories: Categories::BITMAP,
    keys: READ_ONE,
    tips: &[],
    scope: Scope::Keys,
    subcommands: &[],
    run: bitpos,
};

/// `BITPOS key bit [start [end [BYTE | BIT]]]`
///
/// A string is followed by cleared bits without end, unless the end of the range was said.
fn bitpos(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let bit = match args::integer(call.args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CommandError::text("ERR The bit argument must be 1 or 0.")),
    };
    let (start, end, unit) = match &call.args[3..] {
        [] => (0, None, Unit::Byte),
        [start] => (args::integer(start)?, None, Unit::Byte),
        [start, end, unit @ ..] if unit.len() <= 1 => {
            let (start, unit) = (args::integer(start)?, Unit::parse(unit.first())?);
            (start, Some(args::integer(end)?), unit)
        }
        _ => return Err(CommandError::Syntax),
    };
    let position = match call.db.string(call.args[1])? {
        None if bit => None,
        None => Some(0),
        Some(text) => text.with_bytes(|bytes| {
            let (first, last) = unit.bits(places(start, end, unit.of(bytes.len()))?);
            let beyond = (!bit && end.is_none()).then_some(last + 1);
            find(bytes, first, last, bit).or(beyond)
        }),
    };
    call.reply.integer(position.map_or(-1, |position| position as i64));
    Ok(Effect::None)
}

/// The range of BITPOS: as [`clamped`], but an end before the start is looked at only in the end.
fn places(start: i64, end: Option<i64>, len: usize) -> Option<(usize, usize)> {
    let len = i64::try_from(len).ok()?;
    let place = |index: i64| if index < 0 { (len + index).max(0) } else { index };
    let (first, last) = (place(start), end.map_or(len, place).min(len - 1));
    if last < first { None } else { Some((first as usize, last as usize)) }
}

/// The first bit like `bit` from `first` to `last`, both of which are there.
fn find(bytes: &[u8], first: usize, last: usize, bit: bool) -> Option<usize> {
    /// Bytes looked at together: the compiler makes wide instructions of it.
    const BLOCK: usize = 64;
    let skip = if bit { 0 } else { 0xff };
    // The wanted bits are the ones of a byte compared with `skip`.
    let position = |at: usize, wanted: u8| {
        let position = at * 8 + wanted.leading_zeros() as usize;
        (position <= last).then_some(position)
    };
    let start = first / 8;
    let wanted = (bytes[start] ^ skip) & (0xff >> (first % 8));
    if wanted != 0 {
        return position(start, wanted);
    }
    let rest = &bytes[start + 1..=last / 8];
    let differences = |block: &[u8; BLOCK]| block.iter().fold(0, |all, byte| all | (byte ^ skip));
    let (blocks, _) = rest.as_chunks();
    let skipped = BLOCK * blocks.iter().take_while(|block| differences(block) == 0).count();
    let at = skipped + rest[skipped..].iter().position(|&byte| byte != skip)?;
    position(start + 1 + at, rest[at] ^ skip)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bench::Bench;

    #[test]
    fn bits_are_counted_in_ranges() {
        let mut bench = Bench::new();
        bench.expect("SET k foobar", "+OK");
        bench.expect("BITCOUNT k", ":26");
        bench.expect("BITCOUNT k 0 0", ":4");
        bench.expect("BITCOUNT k 1 1 byte", ":6");
        bench.expect("BITCOUNT k 5 30 BIT", ":17");
        bench.expect("BITCOUNT k 0 -100", ":4");
        bench.expect("BITCOUNT k -1 -2", ":0");
        bench.expect("BITCOUNT missing", ":0");
        bench.expect("SET n 123", "+OK");
        bench.expect("BITCOUNT n", ":10");
        bench.expect("BITCOUNT k 0", "-ERR syntax error");
        bench.expect("BITCOUNT k 0 1 BITS", "-ERR syntax error");
        bench.expect("BITCOUNT k 0 x BITS", "-ERR value is not an integer or out of range");
    }

    #[test]
    fn the_first_bit_is_found() {
        let mut bench = Bench::new();
        let _ = bench.run_words(setup, &[b"SET", b"k", b"\xff\xf0\x00"]);
        let _ = bench.run_words(setup, &[b"SET", b"full", b"\xff\xff\xff"]);
        bench.expect("BITPOS k 0", ":12");
        bench.expect("BITPOS k 1 2", ":-1");
        bench.expect("BITPOS k 1 0 -1 BYTE", ":0");
        bench.expect("BITPOS k 0 2", ":16");
        bench.expect("BITPOS k 0 7 15 BIT", ":12");
        bench.expect("BITPOS k 0 7 11 BIT", ":-1");
        bench.expect("BITPOS k 1 -100 -200", ":0");
        bench.expect("BITPOS full 0", ":24");
        bench.expect("BITPOS full 0 1", ":24");
        bench.expect("BITPOS full 0 0 -1", ":-1");
        bench.expect("BITPOS full 0 5", ":-1");
        bench.expect("BITPOS missing 0", ":0");
        bench.expect("BITPOS missing 1", ":-1");
        bench.expect("BITPOS k 2", "-ERR The bit argument must be 1 or 0.");
        bench.expect("BITPOS k x", "-ERR value is not an integer or out of range");
        bench.expect("BITPOS k 1 0 0 NIBBLE", "-ERR syntax error");
    }

    /// SET, for values that are no text.
    fn setup(call: &mut Call<'_>) -> Result<Effect, CommandError> {
        call.db.put_string(call.args[1], call.args[2].to_vec());
        Ok(Effect::Verbatim)
    }

    proptest! {
        #[test]
        fn counting_and_finding_agree_with_bit_by_bit(
            sparse in proptest::collection::vec((0_usize..400, any::<u8>()), 0..6),
            fill in prop_oneof![Just(0_u8), Just(0xff)],
            first in 0_usize..3200,
            last in 0_usize..3200,
            bit: bool,
        ) {
            let (first, last) = (first.min(last), first.max(last));
            let mut bytes = vec![fill; 400];
            for (at, value) in sparse {
                bytes[at] = value;
            }
            let is_set = |at: usize| bytes[at / 8] & 0x80 >> (at % 8) != 0;
            let count = (first..=last).filter(|&at| is_set(at)).count() as u64;
            prop_assert_eq!(ones_between(&bytes, (first, last)), count);
            let position = (first..=last).find(|&at| is_set(at) == bit);
            prop_assert_eq!(find(&bytes, first, last, bit), position);
        }

        #[test]
        fn blocks_are_counted_whole(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
            let expected: u64 = bytes.iter().map(|byte| u64::from(byte.count_ones())).sum();
            prop_assert_eq!(ones(&bytes), expected);
        }
    }
}
