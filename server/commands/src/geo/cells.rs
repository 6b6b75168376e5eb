//! Which cells of the grid a search visits: the one of its center and those around it, of a size that
//! nine of them cover the shape.

use carnelian_structs::geohash::{CUTS_MAX, Cell};

use super::shape::Shape;

/// Half the width of a Mercator map, in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;

/// Columns to the east and rows to the north, in the order in which cells are visited: it shows in
/// replies without an order of their own.
const AROUND: [(i32, i32); 9] =
    [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

/// The cells to visit, in order.
pub(super) fn covering(shape: &Shape) -> impl Iterator<Item = Cell> {
    let [west, south, east, north] = shape.bounds();
    let mut cuts = cuts_for(shape.reach_meters(), shape.center.latitude);
    let mut center = Cell::containing(shape.center, cuts);
    let covered = north <= center.neighbour(0, 1).area().north
        && center.neighbour(0, -1).area().south <= south
        && east <= center.neighbour(1, 0).area().east
        && center.neighbour(-1, 0).area().west <= west;
    if !covered && 1 < cuts {
        cuts -= 1;
        center = Cell::containing(shape.center, cuts);
    }
    // What the middle cell covers to one side is not searched for beyond it. With one cut the
    // globe is four cells, each of which has the others on every side.
    let area = center.area();
    let (no_south, no_north) = (area.south < south, north < area.north);
    let (no_west, no_east) = (area.west < west, east < area.east);
    let needed = move |columns: i32, rows: i32| {
        let spared = (rows < 0 && no_south)
            || (0 < rows && no_north)
            || (columns < 0 && no_west)
            || (0 < columns && no_east);
        cuts < 2 || !spared
    };
    // Cells of a huge search can be the same. One that is like the last is visited once, but the
    // one after the first: that is Redis's way, too.
    let mut last = None;
    let cells = AROUND.into_iter().enumerate();
    cells.filter_map(move |(index, (columns, rows))| {
        let cell = center.neighbour(columns, rows);
        let again = last == Some(cell);
        if !needed(columns, rows) || again {
            return None;
        }
        last = (index != 0).then_some(cell);
        Some(cell)
    })
}

/// How many cuts give cells about as wide as the search.
fn cuts_for(meters: f64, latitude: f64) -> u32 {
    if meters == 0.0 {
        return CUTS_MAX;
    }
    let (mut meters, mut cuts) = (meters, 1);
    while meters < MERCATOR_MAX {
        meters *= 2.0;
        cuts += 1;
    }
    // Cells are narrower towards the poles.
    cuts -= match latitude.abs() {
        80.0.. if 80.0 < latitude.abs() => 4,
        66.0.. if 66.0 < latitude.abs() => 3,
        _ => 2,
    };
    cuts.clamp(1, CUTS_MAX as i32) as u32
}

#[cfg(test)]
mod tests {
    use carnelian_structs::geohash::Point;
    use proptest::prelude::*;

    use super::*;
    use crate::geo::shape::{Outline, distance};

    proptest! {
        #[test]
        fn circles_are_covered(
            longitude in -150.0..150.0_f64,
            latitude in -60.0..60.0_f64,
            east in -1.0..1.0_f64,
            north in -1.0..1.0_f64,
            scale in 0.001..10.0_f64,
        ) {
            let center = Point { longitude, latitude };
            let other =
                Point { longitude: longitude + east * scale, latitude: latitude + north * scale };
            let radius = distance(center, other) * 1.000_001 + 0.1;
            let shape = Shape { center, unit: 1.0, outline: Outline::Circle { radius } };
            let score = other.score();
            let found = covering(&shape).filter(|cell| {
                let (from, to) = cell.scores();
                (from..to).contains(&score)
            });
            prop_assert_eq!(found.count(), 1);
        }
    }
}
