//! Whether an element is in a listpack twice: asked of every set, hash and sorted set that is loaded.

use std::collections::HashSet;

use ahash::RandomState;
use smallvec::SmallVec;

use super::{Element, Listpack, parse_integer};

/// Listpacks are rarely longer.
const USUAL: usize = 128;

impl Listpack {
    /// Whether two of the elements at 0, `step`, twice that and so on are the same.
    ///
    /// Hashes are compared, and elements only where two hashes are alike: nothing is allocated for
    /// what is as it should be.
    #[must_use]
    pub fn has_repeats(&self, step: usize) -> bool {
        let elements = || self.iter().step_by(step.max(1)).map(plain);
        let hasher = RandomState::with_seeds(1, 2, 3, 4);
        let mut hashes: SmallVec<[u64; USUAL]> =
            elements().map(|element| hasher.hash_one(element)).collect();
        hashes.sort_unstable();
        if hashes.array_windows().all(|[one, next]| one != next) {
            return false;
        }
        let mut seen: HashSet<Element<'_>> = HashSet::with_capacity(hashes.len());
        !elements().all(|element| seen.insert(element))
    }
}

/// Sound listpacks keep numbers as numbers, but others are let in.
fn plain(element: Element<'_>) -> Element<'_> {
    match element {
        Element::String(text) => parse_integer(text).map_or(element, Element::Integer),
        Element::Integer(_) => element,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_found_among_those_that_count() {
        let pack = |elements: &[&str]| {
            let elements = elements.iter().map(|element| Element::String(element.as_bytes()));
            Listpack::from_elements(elements)
        };
        assert!(!pack(&[]).has_repeats(1));
        assert!(!pack(&["a", "b", "5", "-5"]).has_repeats(1));
        assert!(pack(&["a", "b", "5", "a"]).has_repeats(1));
        assert!(pack(&["17", "a", "17"]).has_repeats(1));
        assert!(!pack(&["a", "x", "b", "x"]).has_repeats(2));
        assert!(pack(&["a", "x", "b", "y", "a", "z"]).has_repeats(2));
        let many: Vec<String> = (0..2000).map(|at| at.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(!pack(&many).has_repeats(1));
        assert!(pack(&[&many[..], &["1999"]].concat()).has_repeats(1));
    }

    #[test]
    fn a_number_kept_as_text_is_the_number() {
        // `5` as text, and as a number.
        let bytes = b"\x0C\0\0\0\x02\0\x81\x35\x02\x05\x01\xFF";
        let pack = Listpack::from_bytes(bytes).expect("it is sound");
        assert!(pack.has_repeats(1));
    }
}
