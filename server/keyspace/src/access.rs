//! Which segments a batch holds.
//!
//! Invariant 1 of the design: a command locks the segments of all its keys, in ascending order,
//! before it sees any of them. A batch of commands locks the union of theirs, once. What may touch
//! anything takes every lock, in the same order: while it runs, nobody else is inside.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::segment::{SEGMENTS, Segment};
use crate::space::Keyspace;

/// A set of segments, iterated in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet {
    words: [u64; SEGMENTS / 64],
}

impl SegmentSet {
    #[must_use]
    pub const fn all() -> Self {
        Self { words: [u64::MAX; SEGMENTS / 64] }
    }

    #[inline]
    pub fn insert(&mut self, segment: usize) {
        self.words[segment / 64] |= 1 << (segment % 64);
    }

    #[must_use]
    pub fn contains(&self, segment: usize) -> bool {
        self.words[segment / 64] & 1 << (segment % 64) != 0
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == [0; SEGMENTS / 64]
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                Some(64 * index + bit)
            })
        })
    }
}

/// How long a batch waits for one more lock before it gives back those it has.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long a wait goes on before it looks whether the keyspace is busy.
pub(crate) const BUSY_CHECK: Duration = Duration::from_millis(1);

/// How often a lock that somebody has is tried for before the thread rests: for a few microseconds,
/// more than most hold one.
const TRIES: u32 = 40;

/// How long a thread rests that a walk is about to let in.
const REST: Duration = Duration::from_micros(20);

/// The segments a batch has locked, until it is dropped.
///
/// Kept small, since a batch of one command makes one too.
///
/// Deadlock is ruled out by two rules. Who knows what it will touch takes its locks in ascending
/// order before it looks at anything, and gives them back when one of them is long in coming. Who
/// does not know (a script) holds the keyspace's one token and takes each lock when it first needs
/// it; as nobody else waits with a lock in hand for long, it always gets it.
pub struct Access<'k> {
    keyspace: &'k Keyspace,
    /// Ascending, as are the segments they lock.
    guards: SmallVec<[MutexGuard<'k, Segment>; 8]>,
    segments: SmallVec<[u8; 16]>,
    token: Option<MutexGuard<'k, ()>>,
}

/// The keyspace is held by a script that has been running for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl<'k> Access<'k> {
    #[inline]
    pub(crate) fn lock(keyspace: &'k Keyspace, wanted: SegmentSet) -> Self {
        Self::take(keyspace, wanted, false).expect("only a wait that may be broken off is")
    }

    /// The same, unless the wait is for a script that has run for too long.
    #[inline]
    pub(crate) fn lock_unless_busy(
        keyspace: &'k Keyspace,
        wanted: SegmentSet,
    ) -> Result<Self, Busy> {
        Self::take(keyspace, wanted, true)
    }

    /// Takes the token: every segment is locked when it is first asked for.
    pub(crate) fn lock_lazily(keyspace: &'k Keyspace, heeds_busy: bool) -> Result<Self, Busy> {
        let token = loop {
            if let Some(token) = keyspace.token().try_lock_for(BUSY_CHECK) {
                break token;
            }
            if heeds_busy && keyspace.is_busy() {
                return Err(Busy);
            }
        };
        let token = Some(token);
        Ok(Self { keyspace, guards: SmallVec::new(), segments: SmallVec::new(), token })
    }

    #[inline]
    fn take(keyspace: &'k Keyspace, wanted: SegmentSet, heeds_busy: bool) -> Result<Self, Busy> {
        let mut access =
            Self { keyspace, guards: SmallVec::new(), segments: SmallVec::new(), token: None };
        for segment in wanted.iter() {
            access.segments.push(segment as u8);
            match keyspace.segment(segment).try_lock() {
                Some(guard) => access.guards.push(guard),
                None => return Self::take_slowly(access, wanted, heeds_busy),
            }
        }
        Ok(access)
    }

    /// Goes on where a lock is held by somebody else.
    #[cold]
    fn take_slowly(mut access: Self, wanted: SegmentSet, heeds_busy: bool) -> Result<Self, Busy> {
        let keyspace = access.keyspace;
        if wanted == SegmentSet::all() {
            // So many locks are hard to come by for who gives them back.
            access.guards.clear();
            access.segments.clear();
            let mut all = Self::lock_lazily(keyspace, heeds_busy)?;
            all.lock_rest();
            return Ok(all);
        }
        let _asks = keyspace.ask();
        loop {
            for segment in wanted.iter().skip(access.guards.len()) {
                let patience = if access.guards.is_empty() { BUSY_CHECK } else { PATIENCE };
                let Some(guard) = claim(keyspace, segment, patience) else { break };
                access.guards.push(guard);
            }
            if access.guards.len() == wanted.iter().count() {
                access.segments = wanted.iter().map(|segment| segment as u8).collect();
                return Ok(access);
            }
            access.guards.clear();
            if heeds_busy && keyspace.is_busy() {
                return Err(Busy);
            }
        }
    }

    #[must_use]
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    /// Where the guard of a segment is, if this batch has locked it.
    #[inline]
    fn place(&self, segment: usize) -> Option<usize> {
        match *self.segments.as_slice() {
            [only] => (usize::from(only) == segment).then_some(0),
            ref all => all.binary_search(&(segment as u8)).ok(),
        }
    }

    /// Locks one more segment. To ask for one without having declared it, and without the token, is
    /// a defect in a command's key positions, and must not go unnoticed: order and atomicity hang
    /// on it.
    #[cold]
    fn add(&mut self, segment: usize) -> usize {
        assert!(self.token.is_some(), "a command touches only the keys it declares");
        let place = self.segments.partition_point(|&held| usize::from(held) < segment);
        self.guards.insert(place, lock_one(self.keyspace, segment));
        self.segments.insert(place, segment as u8);
        place
    }

    /// A segment this batch has locked, or may lock.
    #[inline]
    pub fn segment_mut(&mut self, segment: usize) -> &mut Segment {
        let place = match self.place(segment) {
            Some(place) => place,
            None => self.add(segment),
        };
        &mut self.guards[place]
    }

    /// A segment this batch has locked.
    #[inline]
    #[must_use]
    pub fn segment(&self, segment: usize) -> &Segment {
        let place = self.place(segment).expect("a command touches only the keys it declares");
        &self.guards[place]
    }

    /// One segment after another, each under its lock: held ones as they are, others locked for
    /// the visit. For walks that need no atomicity across segments.
    pub fn visit<R>(&mut self, segment: usize, visit: impl FnOnce(&mut Segment) -> R) -> R {
        if self.token.is_some() || self.place(segment).is_some() {
            return visit(self.segment_mut(segment));
        }
        assert!(self.guards.is_empty(), "a walk starts with no lock held, or with all");
        visit(&mut lock_one(self.keyspace, segment))
    }

    /// Locks what is left, for what may touch anything. Needs the token, unless all is held.
    pub fn lock_rest(&mut self) {
        for segment in 0..SEGMENTS {
            self.segment_mut(segment);
        }
    }

    #[must_use]
    pub fn holds_all(&self) -> bool {
        self.guards.len() == SEGMENTS
    }
}

fn lock_one(keyspace: &Keyspace, segment: usize) -> MutexGuard<'_, Segment> {
    keyspace.segment(segment).try_lock().unwrap_or_else(|| {
        let _asks = keyspace.ask();
        loop {
            if let Some(guard) = claim(keyspace, segment, BUSY_CHECK) {
                break guard;
            }
        }
    })
}

/// Takes a lock that somebody has, if that can be had within this time. To be called by who asks for it.
///
/// The lock's own way to wait yields the processor a few times first. A thread that yields loses its
/// turn to all who compute, for milliseconds if one of them is the walk of a snapshot. So it is not
/// asked to wait for that.
#[cold]
fn claim(
    keyspace: &Keyspace,
    segment: usize,
    patience: Duration,
) -> Option<MutexGuard<'_, Segment>> {
    let lock = keyspace.segment(segment);
    for _ in 0..TRIES {
        if let Some(guard) = lock.try_lock() {
            return Some(guard);
        }
        (0..8).for_each(|_| spin_loop());
    }
    let begin = Instant::now();
    while keyspace.is_cut_open() {
        // Who has it, most likely the walk, has to be given the processor.
        std::thread::sleep(REST);
        if let Some(guard) = lock.try_lock() {
            return Some(guard);
        }
        if patience <= begin.elapsed() {
            return None;
        }
    }
    lock.try_lock_for(patience)
}

/// What holds segments for a [`crate::Db`]: its own [`Access`], or one that outlives it.
pub enum Hold<'k> {
    Own(Access<'k>),
    /// That of a transaction or script. A trait object, so that its lifetime can be the shorter one of the
    /// command that runs.
    Lent(&'k mut (dyn Segments + 'k)),
}

/// [`Access`] without its lifetime.
pub trait Segments {
    fn of_keyspace(&self) -> &Keyspace;
    fn held(&self, segment: usize) -> &Segment;
    fn held_mut(&mut self, segment: usize) -> &mut Segment;
    fn is_all(&self) -> bool;
    /// See [`Access::lock_rest`].
    fn take_rest(&mut self);
}

impl Segments for Access<'_> {
    fn of_keyspace(&self) -> &Keyspace {
        self.keyspace
    }

    fn held(&self, segment: usize) -> &Segment {
        self.segment(segment)
    }

    fn held_mut(&mut self, segment: usize) -> &mut Segment {
        self.segment_mut(segment)
    }

    fn is_all(&self) -> bool {
        self.holds_all()
    }

    fn take_rest(&mut self) {
        self.lock_rest();
    }
}

impl Segments for Hold<'_> {
    fn of_keyspace(&self) -> &Keyspace {
        self.keyspace()
    }

    fn held(&self, segment: usize) -> &Segment {
        self.segment(segment)
    }

    fn held_mut(&mut self, segment: usize) -> &mut Segment {
        self.segment_mut(segment)
    }

    fn is_all(&self) -> bool {
        self.holds_all()
    }

    fn take_rest(&mut self) {
        self.lock_rest();
    }
}

impl Hold<'_> {
    #[inline]
    #[must_use]
    pub fn keyspace(&self) -> &Keyspace {
        match self {
            Self::Own(access) => access.keyspace,
            Self::Lent(access) => access.of_keyspace(),
        }
    }

    #[inline]
    #[must_use]
    pub fn segment(&self, segment: usize) -> &Segment {
        match self {
            Self::Own(access) => access.segment(segment),
            Self::Lent(access) => access.held(segment),
        }
    }

    #[inline]
    pub fn segment_mut(&mut self, segment: usize) -> &mut Segment {
        match self {
            Self::Own(access) => access.segment_mut(segment),
            Self::Lent(access) => access.held_mut(segment),
        }
    }

    /// See [`Access::lock_rest`].
    pub fn lock_rest(&mut self) {
        match self {
            Self::Own(access) => access.lock_rest(),
            Self::Lent(access) => access.take_rest(),
        }
    }

    /// See [`Access::visit`]. Lent locks are kept.
    pub fn visit<R>(&mut self, segment: usize, visit: impl FnOnce(&mut Segment) -> R) -> R {
        match self {
            Self::Own(access) => access.visit(segment, visit),
            Self::Lent(access) => visit(access.held_mut(segment)),
        }
    }

    #[must_use]
    pub fn holds_all(&self) -> bool {
        match self {
            Self::Own(access) => access.holds_all(),
            Self::Lent(access) => access.is_all(),
        }
    }
}

impl<'k> From<Access<'k>> for Hold<'k> {
    fn from(access: Access<'k>) -> Self {
        Self::Own(access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_iterates_in_ascending_order() {
        let mut set = SegmentSet::default();
        for segment in [255, 0, 64, 63, 128, 64] {
            set.insert(segment);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 128, 255]);
        assert_eq!(SegmentSet::all().iter().count(), SEGMENTS);
    }

    #[test]
    #[should_panic(expected = "a command touches only the keys it declares")]
    fn an_undeclared_segment_is_refused() {
        let keyspace = Keyspace::new(1);
        let mut set = SegmentSet::default();
        set.insert(3);
        Access::lock(&keyspace, set).segment_mut(4);
    }

    #[test]
    fn who_holds_the_token_locks_what_it_touches_and_keeps_it() {
        let keyspace = Keyspace::new(1);
        let mut access = keyspace.lock_lazily();
        assert!(access.guards.is_empty());
        for segment in [9, 3, 9, 200] {
            access.segment_mut(segment);
        }
        assert_eq!(access.segments.as_slice(), [3, 9, 200]);
        assert!(keyspace.segment(9).try_lock().is_none());
        access.lock_rest();
        assert!(access.holds_all());
        drop(access);
        assert!(keyspace.segment(9).try_lock().is_some());
    }

    #[test]
    fn two_that_lock_in_any_order_both_finish() {
        let keyspace = Keyspace::new(1);
        let set = |segments: &[usize]| {
            let mut set = SegmentSet::default();
            segments.iter().for_each(|&segment| set.insert(segment));
            set
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    let mut lazy = keyspace.lock_lazily();
                    lazy.segment_mut(5);
                    std::thread::yield_now();
                    lazy.segment_mut(3);
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _ = keyspace.lock(set(&[3, 5])).segment_mut(5);
                        let _ = keyspace.lock_all().holds_all();
                    }
                });
            }
        });
    }

    #[test]
    fn a_wait_for_a_busy_keyspace_is_broken_off() {
        let keyspace = Keyspace::new(1);
        let mut held = keyspace.lock_lazily();
        held.segment_mut(7);
        keyspace.set_busy(true);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut wanted = SegmentSet::default();
                wanted.insert(7);
                assert!(keyspace.lock_unless_busy(wanted).is_err());
                assert!(keyspace.lock_lazily_unless_busy().is_err());
                assert!(keyspace.lock_unless_busy(SegmentSet::default()).is_ok());
            });
        });
        keyspace.set_busy(false);
    }
}
