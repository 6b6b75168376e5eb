//! LZF, the compression of RDB strings and of the inner nodes of quicklists.
//!
//! Compressed data is a series of
//!
//! ```text
//! 000LLLLL                    L+1 bytes follow as they are
//! LLLooooo oooooooo           copy L+2 bytes from o+1 bytes back (L from 1 to 6)
//! 111ooooo LLLLLLLL oooooooo  copy L+9 bytes from o+1 bytes back
//! ```
//!
//! What `compress` gives is valid LZF, though not the same bytes that another implementation finds.

const LITERAL_MAX: usize = 1 << 5;
const DISTANCE_MAX: usize = 1 << 13;
const COPY_MAX: usize = (1 << 8) + (1 << 3);
/// No instruction yields more than this for each of its bytes.
const EXPANSION_MAX: usize = COPY_MAX / 3;

/// The compressed form of `input` if it takes at most `bytes_max` bytes.
#[must_use]
pub fn compress(input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    // Short inputs do not pay for clearing a large table.
    match input.len() {
        0 => None,
        1..0x400 => compress_with::<10>(input, bytes_max),
        0x400..0x4000 => compress_with::<12>(input, bytes_max),
        _ => compress_with::<14>(input, bytes_max),
    }
}

fn compress_with<const BITS: u32>(input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    // The place behind the last occurrence of three bytes, by their hash; 0 is none.
    let mut table = vec![0_u32; 1 << BITS];
    let slot = |at: usize| {
        let three = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]);
        (three.wrapping_mul(0x9E37_79B1) >> (32 - BITS)) as usize
    };
    let mut out = Vec::with_capacity(bytes_max.min(input.len()));
    let (mut at, mut literals_from) = (0, 0);

    while at + 2 < input.len() {
        let place = &mut table[slot(at)];
        let candidate = (*place as usize).checked_sub(1);
        // Inputs beyond 4 GiB are compressed as if the rest were unlike.
        *place = u32::try_from(at + 1).unwrap_or(0);
        let from = candidate.filter(|&from| {
            at - from <= DISTANCE_MAX && input[from..from + 3] == input[at..at + 3]
        });
        let Some(from) = from else {
            at += 1;
            continue;
        };

        let longest = COPY_MAX.min(input.len() - at);
        let length = 3 + input[at + 3..at + longest]
            .iter()
            .zip(&input[from + 3..])
            .take_while(|(a, b)| a == b)
            .count();
        put_literals(&mut out, &input[literals_from..at]);
        let [low, high, ..] = (at - from - 1).to_le_bytes();
        match length - 2 {
            short @ 0..7 => out.push((short as u8) << 5 | high),
            long => out.extend_from_slice(&[7 << 5 | high, (long - 7) as u8]),
        }
        out.push(low);
        if bytes_max < out.len() {
            return None;
        }
        // The end of a match is where the next one is likely to begin.
        let end = at + length;
        for inner in (at + 1).max(end - 2)..end {
            if inner + 2 < input.len() {
                table[slot(inner)] = u32::try_from(inner + 1).unwrap_or(0);
            }
        }
        (at, literals_from) = (end, end);
    }

    put_literals(&mut out, &input[literals_from..]);
    (out.len() <= bytes_max).then_some(out)
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(LITERAL_MAX) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

/// What `input` expands to, if that is exactly `raw_bytes` long. A claimed length that no input of
/// this size can have is refused before memory is reserved for it.
#[must_use]
pub fn decompress(input: &[u8], raw_bytes: usize) -> Option<Vec<u8>> {
    if input.len().saturating_mul(EXPANSION_MAX) < raw_bytes {
        return None;
    }
    let mut out = Vec::with_capacity(raw_bytes);
    let mut rest = input;
    while let Some((&control, behind)) = rest.split_first() {
        let control = usize::from(control);
        if control < LITERAL_MAX {
            let (run, behind) = behind.split_at_checked(control + 1)?;
            if raw_bytes - out.len() < run.len() {
                return None;
            }
            out.extend_from_slice(run);
            rest = behind;
            continue;
        }
        let (length, behind) = match control >> 5 {
            7 => {
                let (&more, behind) = behind.split_first()?;
                (usize::from(more) + 9, behind)
            }
            short => (short + 2, behind),
        };
        let (&low, behind) = behind.split_first()?;
        let distance = ((control & 0x1F) << 8 | usize::from(low)) + 1;
        let from = out.len().checked_sub(distance)?;
        if raw_bytes - out.len() < length {
            return None;
        }
        copy_back(&mut out, from, length);
        rest = behind;
    }
    (out.len() == raw_bytes).then_some(out)
}

/// Appends `length` bytes from `from` on. Where the source reaches into what is being appended, it
/// repeats itself.
fn copy_back(out: &mut Vec<u8>, from: usize, length: usize) {
    let mut left = length;
    while 0 < left {
        let run = left.min(out.len() - from);
        out.extend_from_within(from..from + run);
        left -= run;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(input: &[u8]) -> usize {
        let packed = compress(input, usize::MAX).expect("no limit");
        assert_eq!(decompress(&packed, input.len()).as_deref(), Some(input));
        assert_eq!(decompress(&packed, input.len() + 1), None);
        assert_eq!(decompress(&packed, input.len() - 1), None);
        assert_eq!(compress(input, packed.len()), Some(packed.clone()));
        assert_eq!(compress(input, packed.len() - 1), None);
        packed.len()
    }

    #[test]
    fn repetition_shrinks() {
        assert!(round_trip(&[b'a'; 10_000]) < 130);
        assert!(round_trip(&b"0123456789".repeat(1000)) < 140);
        assert_eq!(compress(b"", 100), None);
    }

    #[test]
    fn reads_what_redis_writes() {
        // DUMP of 200 times "a" by Redis: literal "a", then copies from one byte back.
        let packed = [1, b'a', b'a', 0xE0, 189, 0];
        assert_eq!(decompress(&packed, 200), Some(vec![b'a'; 200]));
        assert_eq!(decompress(&[2, b'a', b'b', b'c', 0x20, 2], 6), Some(b"abcabc".to_vec()));
    }

    #[test]
    fn malformed_input_is_refused() {
        for input in [&[0][..], &[5, 1], &[0x20], &[0x20, 0], &[0, b'a', 0x20, 1], &[0xE0, 1]] {
            for raw_bytes in 0..20 {
                assert_eq!(decompress(input, raw_bytes), None);
            }
        }
        assert_eq!(decompress(&[0, b'a'], usize::MAX), None, "no memory for impossible lengths");
    }

    proptest! {
        #![proptest_config(crate::test_config())]

        #[test]
        fn round_trips(
            words in prop::collection::vec(prop::collection::vec(0_u8..4, 1..9), 1..400),
            noise in prop::collection::vec(any::<u8>(), 1..100),
        ) {
            round_trip(&noise);
            let mut input = words.concat();
            round_trip(&input);
            input.extend(noise);
            round_trip(&input);
            round_trip(&input.repeat(9));
        }

        #[test]
        fn random_bytes_never_panic(input: Vec<u8>, raw_bytes in 0_usize..1000) {
            if let Some(raw) = decompress(&input, raw_bytes) {
                prop_assert_eq!(raw.len(), raw_bytes);
            }
        }
    }
}
