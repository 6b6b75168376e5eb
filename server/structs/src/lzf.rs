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

use std::cell::RefCell;

const LITERAL_MAX: usize = 1 << 5;
const DISTANCE_MAX: usize = 1 << 13;
const COPY_MAX: usize = (1 << 8) + (1 << 3);
/// No instruction yields more than this for each of its bytes.
const EXPANSION_MAX: usize = COPY_MAX / 3;

/// The compressed form of `input` if it takes at most `bytes_max` bytes.
#[must_use]
pub fn compress(input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    SEEN.with_borrow_mut(|seen| {
        let base = seen.begin(input.len());
        // What is short does not fill a large table, and a small one stays in the cache.
        match input.len() {
            0 => None,
            1..0x400 => compress_with(&mut seen.places[..1 << 10], base, input, bytes_max),
            0x400..0x4000 => compress_with(&mut seen.places[..1 << 12], base, input, bytes_max),
            _ => compress_with(&mut seen.places, base, input, bytes_max),
        }
    })
}

const PLACES: usize = 1 << 14;

thread_local! {
    static SEEN: RefCell<Seen> = const { RefCell::new(Seen { places: Vec::new(), next: 0 }) };
}

/// The places behind the last occurrence of three bytes, by their hash.
///
/// To clear them would take longer than to compress a short input. So they are kept from one input
/// to the next, and counted on: what earlier inputs have left is below those of the present one.
struct Seen {
    places: Vec<u32>,
    next: u32,
}

impl Seen {
    /// Sets places aside for an input so long. They lie above what is returned.
    fn begin(&mut self, bytes: usize) -> u32 {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.places.is_empty() || self.next.checked_add(bytes).is_none() {
            self.places.clear();
            self.places.resize(PLACES, 0);
            self.next = 0;
        }
        let base = self.next;
        self.next = base.saturating_add(bytes);
        base
    }
}

/// The length of `places` is a power of two.
fn compress_with(places: &mut [u32], base: u32, input: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let shift = 32 - places.len().ilog2();
    let slot = |at: usize| {
        let three = u32::from_be_bytes([0, input[at], input[at + 1], input[at + 2]]);
        (three.wrapping_mul(0x9E37_79B1) >> shift) as usize
    };
    // Inputs beyond 4 GiB are compressed as if the rest were unlike.
    let behind = |at: usize| base.saturating_add(u32::try_from(at + 1).unwrap_or(0));
    let mut out = Vec::with_capacity(bytes_max.min(input.len()));
    let (mut at, mut literals_from) = (0, 0);

    while at + 2 < input.len() {
        let place = &mut places[slot(at)];
        let candidate = place.checked_sub(base + 1).map(|from| from as usize);
        *place = behind(at);
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
                places[slot(inner)] = behind(inner);
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

    #[test]
    fn places_start_anew_when_they_run_out() {
        let mut seen = Seen { places: Vec::new(), next: 0 };
        assert_eq!(seen.begin(10), 0);
        assert_eq!((seen.places.len(), seen.begin(5)), (PLACES, 10));
        seen.places[7] = 15;
        seen.next = u32::MAX - 3;
        assert_eq!(seen.begin(3), u32::MAX - 3);
        assert_eq!((seen.begin(1), seen.places[7]), (0, 0));
        assert_eq!(seen.begin(usize::MAX), 0);
        assert_eq!((seen.next, seen.begin(1)), (u32::MAX, 0));
    }

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
