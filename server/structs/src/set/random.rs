//! Members picked at random (SPOP, SRANDMEMBER). Everywhere `random` gives uniform 64-bit numbers.

use std::collections::HashSet;
use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::{Listpack, Set, SetLimits};
use crate::listpack::Element;

/// With fewer than one in so many members to pick, picks that come up twice are rare enough to be
/// thrown away.
const SPARSE: usize = 3;

/// With fewer than one in so many members to keep, what is kept is moved rather than the rest
/// removed.
const MOVE: usize = 5;

impl Set {
    /// A uniformly random member of a set that is not empty.
    #[must_use]
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<Element<'_>> {
        match self {
            Self::Intset(intset) => intset.get(below(intset.len(), random())).map(Element::Integer),
            Self::Listpack(listpack) => {
                let position = listpack.seek(below(listpack.len(), random()) as i64)?;
                Some(listpack.get(position))
            }
            Self::Table(members) => Some(Element::String(members.0.random(random)?.key())),
        }
    }

    /// Shows `f` up to `count` different members, each choice of them as likely as any other. Their
    /// order is not random.
    pub fn sample(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut f: impl FnMut(Element<'_>),
    ) {
        if matches!(self, Self::Table(_)) && count < self.len() / SPARSE {
            let mut seen = HashSet::with_capacity(count);
            while seen.len() < count {
                let Some(member) = self.random(&mut random) else { return };
                if seen.insert(member) {
                    f(member);
                }
            }
            return;
        }
        let mut lot = Lot { candidates: self.len(), wanted: count };
        self.iter().filter(|_| lot.draw(random())).for_each(f);
    }

    /// Shows `f` a random member `count` times, unless it breaks off; members may repeat.
    pub fn sample_repeating(
        &self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut f: impl FnMut(Element<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match self {
            // Seeking is a walk: worth it only for a few.
            Self::Listpack(listpack) if SPARSE < count => {
                let members: Vec<Element<'_>> = listpack.iter().collect();
                (0..count).try_for_each(|_| f(members[below(members.len(), random())]))
            }
            _ => (0..count).try_for_each(|_| match self.random(&mut random) {
                Some(member) => f(member),
                None => ControlFlow::Break(()),
            }),
        }
    }

    /// Removes a random member after showing it to `f`; `None` if there is none.
    pub fn pop_random<R>(
        &mut self,
        mut random: impl FnMut() -> u64,
        f: impl FnOnce(Element<'_>) -> R,
    ) -> Option<R> {
        match self {
            Self::Intset(intset) => {
                let number = intset.remove_at(below(intset.len(), random()))?;
                Some(f(Element::Integer(number)))
            }
            Self::Listpack(listpack) => {
                let position = listpack.seek(below(listpack.len(), random()) as i64)?;
                let result = f(listpack.get(position));
                listpack.remove(position);
                Some(result)
            }
            Self::Table(members) => {
                let member = SmallVec::<[u8; 64]>::from_slice(members.0.random(random)?.key());
                members.0.remove(members.0.hash(&member), &member);
                Some(f(Element::String(&member)))
            }
        }
    }

    /// Removes `count` random members after showing them to `f`, which is fewer than there are. A
    /// set left with few of many may take a smaller encoding.
    pub fn pop_sample(
        &mut self,
        count: usize,
        limits: SetLimits,
        mut random: impl FnMut() -> u64,
        mut f: impl FnMut(Element<'_>),
    ) {
        let size = self.len();
        debug_assert!(count < size, "a set of which all is taken goes with its key");
        let mut lot = Lot { candidates: size, wanted: count };
        match self {
            Self::Intset(intset) => intset.retain(|number| {
                let drawn = lot.draw(random());
                if drawn {
                    f(Element::Integer(number));
                }
                !drawn
            }),
            Self::Listpack(listpack) => {
                let drawn: Vec<usize> = (0..size).filter(|_| lot.draw(random())).collect();
                let mut positions = Vec::with_capacity(drawn.len());
                listpack.pick_sorted(&drawn, |_, position| {
                    f(listpack.get(position));
                    positions.push(position);
                });
                listpack.remove_many(&positions);
            }
            Self::Table(_) if count < (size - count).saturating_mul(MOVE) => {
                for _ in 0..count {
                    self.pop_random(&mut random, &mut f);
                }
            }
            Self::Table(_) => {
                let mut kept = Self::Listpack(Listpack::new());
                for _ in count..size {
                    self.pop_random(&mut random, |member| kept.insert_element(member, limits));
                }
                self.iter().for_each(f);
                *self = kept;
            }
        }
    }
}

/// A number below `len` from a uniform 64-bit one.
fn below(len: usize, random: u64) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

/// Draws exactly `wanted` of the candidates that come by, each choice as likely as any other.
struct Lot {
    candidates: usize,
    wanted: usize,
}

impl Lot {
    fn draw(&mut self, random: u64) -> bool {
        let drawn = below(self.candidates, random) < self.wanted;
        self.candidates = self.candidates.saturating_sub(1);
        self.wanted -= usize::from(drawn);
        drawn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const LIMITS: SetLimits =
        SetLimits { intset_entries: 64, listpack_entries: 64, listpack_value: 12 };

    fn numbers() -> impl FnMut() -> u64 {
        let mut state = 88_172_645_463_325_252_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    fn sets(len: usize) -> Vec<Set> {
        let mut sets = vec![Set::for_member(b"1", 1, LIMITS), Set::for_member(b"a", 1, LIMITS)];
        sets.push(Set::large());
        for set in &mut sets {
            (0..len).for_each(|n| assert!(set.insert(n.to_string().as_bytes(), LIMITS)));
        }
        sets
    }

    #[test]
    fn samples_are_fair_and_without_repeats() {
        let mut random = numbers();
        for set in sets(20) {
            for count in [0, 1, 3, 10, 19, 20, 30] {
                let mut times = BTreeMap::<Vec<u8>, usize>::new();
                for _ in 0..2000 {
                    let mut seen = BTreeSet::new();
                    set.sample(count, &mut random, |member| {
                        assert!(seen.insert(member.to_vec()));
                    });
                    assert_eq!(seen.len(), count.min(20));
                    seen.into_iter().for_each(|member| *times.entry(member).or_default() += 1);
                }
                let fair = 2000 * count.min(20) / 20;
                let near = |&n: &usize| fair / 2 <= n && n <= fair + fair / 2;
                assert!(times.values().all(near), "{} {count} {times:?}", set.encoding());
            }
        }
    }

    #[test]
    fn repeating_samples_reach_all_and_may_break_off() {
        let mut random = numbers();
        for set in sets(10) {
            let mut seen = BTreeSet::new();
            let flow = set.sample_repeating(500, &mut random, |member| {
                seen.insert(member.to_vec());
                ControlFlow::Continue(())
            });
            assert_eq!((seen.len(), flow), (10, ControlFlow::Continue(())));
            let mut left = 7;
            let flow = set.sample_repeating(500, &mut random, |_| {
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!((left, flow), (0, ControlFlow::Break(())));
        }
    }

    #[test]
    fn what_is_popped_is_gone() {
        let mut random = numbers();
        for count in [1, 5, 15, 19] {
            for mut set in sets(20) {
                let mut popped = BTreeSet::new();
                set.pop_sample(count, LIMITS, &mut random, |member| {
                    assert!(popped.insert(member.to_vec()));
                });
                assert_eq!((popped.len(), set.len()), (count, 20 - count));
                assert!(popped.iter().all(|member| !set.contains(member)));
                while let Some(member) = set.pop_random(&mut random, |member| member.to_vec()) {
                    assert!(popped.insert(member));
                }
                assert_eq!((popped.len(), set.len()), (20, 0));
            }
        }
    }

    #[test]
    fn a_table_of_which_little_is_left_gets_small() {
        let mut set = sets(100).pop().expect("the table is last");
        set.pop_sample(40, LIMITS, numbers(), |_| {});
        assert_eq!(set.encoding(), "hashtable");
        set.pop_sample(55, LIMITS, numbers(), |_| {});
        assert_eq!((set.encoding(), set.len()), ("listpack", 5));
    }
}
