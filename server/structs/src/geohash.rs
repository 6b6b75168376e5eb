//! Places on Earth as integers: cells of a grid, numbered so that neighbours often have near numbers.
//!
//! Longitude and latitude are cut in halves in turn; each cut gives a bit, longitude's first. With
//! 26 cuts of each, a cell is less than a metre wide and its number of 52 bits fits the score of a
//! sorted set. The poles are left out: latitude ends where a square Mercator map does.

/// The most cuts of either coordinate.
pub const CUTS_MAX: u32 = 26;

pub const LONGITUDE_MAX: f64 = 180.0;
pub const LATITUDE_MAX: f64 = 85.051_128_78;

/// The coordinates of a point, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    pub longitude: f64,
    pub latitude: f64,
}

impl Point {
    /// Whether the grid covers it.
    #[must_use]
    pub fn is_on_grid(self) -> bool {
        (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&self.longitude)
            && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&self.latitude)
    }

    /// The number of its finest cell, as a score.
    #[must_use]
    pub fn score(self) -> f64 {
        Cell::of(self, CUTS_MAX, LATITUDE_MAX).number as f64
    }

    /// The middle of the finest cell with this number. Any score gives some point.
    #[inline]
    #[must_use]
    pub fn of_score(score: f64) -> Self {
        let area = Cell { number: number_of(score), cuts: CUTS_MAX }.area();
        let middle = |low: f64, high: f64, most: f64| ((low + high) / 2.0).clamp(-most, most);
        Self {
            longitude: middle(area.west, area.east, LONGITUDE_MAX),
            latitude: middle(area.south, area.north, LATITUDE_MAX),
        }
    }

    /// The geohash of 11 letters that others use: their grid reaches to the poles. Ten letters
    /// hold 50 bits; the last is always 0, as in Redis.
    #[must_use]
    pub fn geohash(self) -> [u8; 11] {
        const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let number = Cell::of(self, CUTS_MAX, 90.0).number;
        std::array::from_fn(|at| match at {
            10 => b'0',
            _ => LETTERS[(number >> (47 - 5 * at) & 31) as usize],
        })
    }
}

/// The integer of a score, where out of range as x86 converts doubles: members of a sorted set that
/// no GEOADD made still have a place.
fn number_of(score: f64) -> u64 {
    const END: f64 = 18_446_744_073_709_551_616.0;
    if score < 0.0 {
        score as i64 as u64
    } else if score < END {
        score as u64
    } else {
        0
    }
}

/// A cell of the grid that `cuts` cuts of either coordinate make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    pub number: u64,
    pub cuts: u32,
}

/// The edges of a cell, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    pub west: f64,
    pub east: f64,
    pub south: f64,
    pub north: f64,
}

const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;
const LONGITUDE_BITS: u64 = !LATITUDE_BITS;

impl Cell {
    /// The cell of a point on the grid, after 1 to 26 cuts.
    #[must_use]
    pub fn containing(point: Point, cuts: u32) -> Self {
        Self::of(point, cuts, LATITUDE_MAX)
    }

    fn of(point: Point, cuts: u32, latitude_max: f64) -> Self {
        let places = (1_u64 << cuts) as f64;
        let place = |degrees: f64, most: f64| {
            let share = (degrees + most) / (most + most);
            (share * places) as u32
        };
        let latitude = place(point.latitude, latitude_max);
        let longitude = place(point.longitude, LONGITUDE_MAX);
        Self { number: spread(latitude) | spread(longitude) << 1, cuts }
    }

    #[inline]
    #[must_use]
    pub fn area(self) -> Area {
        // Powers of two divide and multiply without loss.
        let share = 1.0 / (1_u64 << self.cuts) as f64;
        let edge = |place: u32, most: f64| -most + f64::from(place) * share * (most + most);
        let latitude = gather(self.number);
        let longitude = gather(self.number >> 1);
        Area {
            west: edge(longitude, LONGITUDE_MAX),
            east: edge(longitude.wrapping_add(1), LONGITUDE_MAX),
            south: edge(latitude, LATITUDE_MAX),
            north: edge(latitude.wrapping_add(1), LATITUDE_MAX),
        }
    }

    /// The scores of the finest cells within: from the first up to, not including, the second.
    #[must_use]
    pub fn scores(self) -> (f64, f64) {
        let shift = 2 * (CUTS_MAX - self.cuts);
        ((self.number << shift) as f64, ((self.number + 1) << shift) as f64)
    }

    /// The cell so many columns to the east and rows to the north (-1, 0 or 1 of each), around the
    /// globe in either direction.
    #[must_use]
    pub fn neighbour(self, east: i32, north: i32) -> Self {
        let moved = |bits: u64, gaps: u64, by: i32| {
            // With the gaps between its bits filled, a carry runs through to the next of them.
            let (gaps, bits_all) = (gaps >> (64 - 2 * self.cuts), !gaps >> (64 - 2 * self.cuts));
            let moved = match by {
                0 => return bits,
                1.. => bits.wrapping_add(gaps + 1),
                _ => (bits | gaps).wrapping_sub(gaps + 1),
            };
            moved & bits_all
        };
        let longitude = moved(self.number & LONGITUDE_BITS, LATITUDE_BITS, east);
        let latitude = moved(self.number & LATITUDE_BITS, LONGITUDE_BITS, north);
        Self { number: longitude | latitude, cuts: self.cuts }
    }
}

/// Moves bit `n` to bit `2n`.
const fn spread(place: u32) -> u64 {
    let mut bits = place as u64;
    bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits << 2) & 0x3333_3333_3333_3333;
    (bits | bits << 1) & LATITUDE_BITS
}

/// Moves bit `2n` to bit `n`, without the bits between.
#[inline]
const fn gather(number: u64) -> u32 {
    let mut bits = number & LATITUDE_BITS;
    bits = (bits | bits >> 1) & 0x3333_3333_3333_3333;
    bits = (bits | bits >> 2) & 0x0f0f_0f0f_0f0f_0f0f;
    bits = (bits | bits >> 4) & 0x00ff_00ff_00ff_00ff;
    bits = (bits | bits >> 8) & 0x0000_ffff_0000_ffff;
    (bits | bits >> 16) as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PALERMO: Point = Point { longitude: 13.361_389, latitude: 38.115_556 };

    #[test]
    fn numbers_are_those_of_redis() {
        assert_eq!(PALERMO.score(), 3_479_099_956_230_698.0);
        let back = Point::of_score(3_479_099_956_230_698.0);
        assert_eq!((back.longitude, back.latitude), (13.361_389_338_970_184, 38.115_556_395_496_3));
        assert_eq!(&back.geohash(), b"sqc8b49rny0");
    }

    #[test]
    fn any_score_is_some_place() {
        for score in [0.0, -5.0, 1e300, f64::INFINITY, f64::NEG_INFINITY, 1e19, 4.6e15, -1e300] {
            assert!(Point::of_score(score).is_on_grid(), "{score}");
        }
        let corner = Point { longitude: LONGITUDE_MAX, latitude: LATITUDE_MAX };
        assert_eq!(Point::of_score(-5.0), corner);
        assert_eq!(Point::of_score(1e300), Point::of_score(0.0));
    }

    fn on_grid() -> impl Strategy<Value = Point> {
        (-LONGITUDE_MAX..LONGITUDE_MAX, -LATITUDE_MAX..LATITUDE_MAX)
            .prop_map(|(longitude, latitude)| Point { longitude, latitude })
    }

    proptest! {
        #![proptest_config(crate::test_config())]

        #[test]
        fn a_point_lies_in_its_cell(point in on_grid(), cuts in 1..=CUTS_MAX) {
            let area = Cell::containing(point, cuts).area();
            let slack = 1e-9;
            prop_assert!(area.west - slack <= point.longitude && point.longitude <= area.east + slack);
            prop_assert!(area.south - slack <= point.latitude && point.latitude <= area.north + slack);
        }

        #[test]
        fn a_score_leads_back(point in on_grid()) {
            let back = Point::of_score(point.score());
            prop_assert!((back.longitude - point.longitude).abs() < 360.0 / (1 << CUTS_MAX) as f64);
            prop_assert!((back.latitude - point.latitude).abs() < 171.0 / (1 << CUTS_MAX) as f64);
            prop_assert_eq!(back.score(), point.score());
        }

        #[test]
        fn cells_hold_the_scores_of_their_points(point in on_grid(), cuts in 1..=CUTS_MAX) {
            let (from, to) = Cell::containing(point, cuts).scores();
            prop_assert!((from..to).contains(&point.score()));
        }

        #[test]
        fn neighbours_lead_back(point in on_grid(), cuts in 1..=CUTS_MAX, east in -1..=1, north in -1..=1) {
            let cell = Cell::containing(point, cuts);
            prop_assert_eq!(cell.neighbour(east, north).neighbour(-east, -north), cell);
            let (here, there) = (cell.area(), cell.neighbour(1, 0).area());
            prop_assert!(here.east == there.west || there.west == -LONGITUDE_MAX);
        }
    }
}
