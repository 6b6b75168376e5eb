//! How often links came about and how often they were refused, by reason.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::links::DropReason;
use super::peer::Plane;
use super::refusal::{Refusal, RefusalKind};

/// Which end a node is of a link.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// The other end connected.
    Incoming,
    /// This end connected.
    Outgoing,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Incoming, Self::Outgoing];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

/// Figures since the start. Any thread may add and read.
#[derive(Debug, Default)]
pub struct Counters {
    established: [[AtomicU64; Plane::ALL.len()]; Direction::ALL.len()],
    refused: [[AtomicU64; RefusalKind::ALL.len()]; Direction::ALL.len()],
    dropped: [AtomicU64; DropReason::ALL.len()],
}

impl Counters {
    pub fn established(&self, direction: Direction, plane: Plane) -> u64 {
        self.established[direction as usize][plane as usize].load(Relaxed)
    }

    pub fn refused(&self, direction: Direction, kind: RefusalKind) -> u64 {
        self.refused[direction as usize][kind as usize].load(Relaxed)
    }

    pub fn refused_in_all(&self, direction: Direction) -> u64 {
        self.refused[direction as usize].iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }

    /// Every figure under a name of its own, for INFO and metrics: always the same names in the
    /// same order.
    pub fn rows(&self) -> impl Iterator<Item = (String, u64)> {
        let established = Direction::ALL.into_iter().flat_map(move |direction| {
            Plane::ALL.into_iter().map(move |plane| {
                let name = format!("internode_{}_{}", direction.name(), plane.name());
                (name, self.established(direction, plane))
            })
        });
        let refused = Direction::ALL.into_iter().flat_map(move |direction| {
            RefusalKind::ALL.into_iter().map(move |kind| {
                let name = format!("internode_{}_refused_{}", direction.name(), kind.name());
                (name, self.refused(direction, kind))
            })
        });
        let dropped = DropReason::ALL
            .into_iter()
            .map(|reason| (format!("internode_dropped_{}", reason.name()), self.dropped(reason)));
        established.chain(refused).chain(dropped)
    }

    pub(super) fn count<T>(
        &self,
        direction: Direction,
        plane: impl FnOnce(&T) -> Plane,
        result: &Result<T, Refusal>,
    ) {
        let counter = match result {
            Ok(link) => &self.established[direction as usize][plane(link) as usize],
            Err(refusal) => &self.refused[direction as usize][refusal.kind() as usize],
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn count_drop(&self, reason: DropReason) {
        self.dropped[reason as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn figures_are_found_under_names_of_their_own() {
        let counters = Counters::default();
        counters.count(Direction::Incoming, |_: &()| Plane::Data, &Ok(()));
        counters.count(Direction::Outgoing, |_: &()| Plane::Data, &Err(Refusal::NoPlane));
        counters.count_drop(DropReason::Revoked);
        let rows: Vec<_> = counters.rows().collect();
        let counted: Vec<_> =
            rows.iter().filter(|row| row.1 == 1).map(|row| row.0.as_str()).collect();
        assert_eq!(
            counted,
            [
                "internode_incoming_data",
                "internode_outgoing_refused_greeting",
                "internode_dropped_revoked"
            ]
        );
        let names: BTreeSet<_> = rows.iter().map(|row| &row.0).collect();
        assert_eq!(names.len(), rows.len());
        for (place, kind) in RefusalKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }
}
