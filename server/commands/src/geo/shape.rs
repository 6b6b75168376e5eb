//! What a search covers: a circle, a box or a polygon on the globe.
//!
//! The answers are those of Redis to the last bit, where it matters whether a point is inside: its
//! formulas decide, in its order of operations. But most points are far from any edge, and what
//! decides about those is cheaper.

use std::f64::consts::{FRAC_PI_2, PI};

use carnelian_structs::geohash::Point;

const RADIUS_METERS: f64 = 6_372_797.560_856;

/// Degrees to radians.
#[inline]
fn radians(degrees: f64) -> f64 {
    degrees * (PI / 180.0)
}

fn degrees(radians: f64) -> f64 {
    radians / (PI / 180.0)
}

/// The distance between two points in metres.
pub(super) fn distance(from: Point, to: Point) -> f64 {
    let from = Origin::new(from);
    let to = Angles::of(to);
    match from.half_chord(to) {
        Some(half_chord) => arc(half_chord),
        None => along_meridian(from.angles.latitude, to.latitude),
    }
}

/// Points on one meridian have no need of more.
fn along_meridian(a: f64, b: f64) -> f64 {
    RADIUS_METERS * (b - a).abs()
}

/// The distance that belongs to a squared half chord of the unit sphere.
fn arc(half_chord: f64) -> f64 {
    2.0 * RADIUS_METERS * half_chord.sqrt().asin()
}

/// A point in radians.
#[derive(Clone, Copy)]
struct Angles {
    longitude: f64,
    latitude: f64,
}

impl Angles {
    #[inline]
    fn of(point: Point) -> Self {
        Self { longitude: radians(point.longitude), latitude: radians(point.latitude) }
    }
}

/// Where distances are measured from.
#[derive(Clone, Copy)]
struct Origin {
    angles: Angles,
    cosine: f64,
}

impl Origin {
    fn new(point: Point) -> Self {
        let angles = Angles::of(point);
        Self { angles, cosine: angles.latitude.cos() }
    }

    /// The squared half chord to a point (the haversine formula), or `None` if the longitudes are
    /// the same.
    #[inline]
    fn half_chord(&self, to: Angles) -> Option<f64> {
        let v = ((to.longitude - self.angles.longitude) / 2.0).sin();
        if v == 0.0 {
            return None;
        }
        let u = ((to.latitude - self.angles.latitude) / 2.0).sin();
        Some(u * u + self.cosine * to.latitude.cos() * v * v)
    }
}

/// Distances up to so many metres, told by the chord where that is certain.
struct Reach {
    meters: f64,
    /// Half chords below this are within for certain.
    within: f64,
    /// Half chords above this are beyond for certain.
    beyond: f64,
}

/// Wider than all roundings.
const MARGIN: f64 = 1e-9;

impl Reach {
    fn new(meters: f64) -> Self {
        let half_angle = meters / RADIUS_METERS / 2.0;
        // Near the antipodes, angles say little about chords.
        if half_angle.is_nan() || 1.0 <= half_angle {
            return Self { meters, within: 0.0, beyond: f64::INFINITY };
        }
        let half_chord = half_angle.sin().powi(2);
        let (within, beyond) = (half_chord * (1.0 - MARGIN), half_chord * (1.0 + MARGIN));
        Self { meters, within, beyond }
    }

    /// A distance that is no number, as of antipodes, is not too long.
    fn excludes(&self, distance: f64) -> bool {
        self.meters < distance
    }

    #[inline]
    fn covers(&self, half_chord: f64) -> bool {
        half_chord < self.within || (half_chord <= self.beyond && !self.excludes(arc(half_chord)))
    }
}

/// A shape around an origin, ready to judge points.
pub(super) struct Shape {
    pub(super) center: Point,
    /// Metres in the unit of the request.
    pub(super) unit: f64,
    pub(super) outline: Outline,
}

pub(super) enum Outline {
    /// In the unit of the request, as the other lengths.
    Circle {
        radius: f64,
    },
    Box {
        width: f64,
        height: f64,
    },
    /// The corners, in order.
    Polygon(Vec<Point>),
}

impl Shape {
    /// A polygon around the middle of its corners, as they lie on the sphere.
    pub(super) fn polygon(corners: Vec<Point>) -> Self {
        let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
        for corner in &corners {
            let at = Angles::of(*corner);
            x += at.latitude.cos() * at.longitude.cos();
            y += at.latitude.cos() * at.longitude.sin();
            z += at.latitude.sin();
        }
        let longitude = degrees(y.atan2(x));
        let latitude = degrees(z.atan2(x.hypot(y)));
        let center = Point { longitude, latitude };
        Self { center, unit: 1.0, outline: Outline::Polygon(corners) }
    }

    /// West, south, east and north ends: not exact for circles and boxes near the poles, but those
    /// that decide which cells are searched.
    pub(super) fn bounds(&self) -> [f64; 4] {
        let Point { longitude, latitude } = self.center;
        let (height, width) = match &self.outline {
            Outline::Circle { radius } => (self.unit * radius, self.unit * radius),
            Outline::Box { width, height } => {
                (self.unit * (height / 2.0), self.unit * (width / 2.0))
            }
            Outline::Polygon(corners) => return bounds_of(corners),
        };
        let north = degrees(height / RADIUS_METERS);
        let nearer_pole = if latitude < 0.0 { latitude - north } else { latitude + north };
        let east = degrees(width / RADIUS_METERS / radians(nearer_pole).cos());
        [longitude - east, latitude - north, longitude + east, latitude + north]
    }

    /// How far from the center the shape reaches, in metres.
    pub(super) fn reach_meters(&self) -> f64 {
        match &self.outline {
            Outline::Circle { radius } => radius * self.unit,
            Outline::Box { width, height } => {
                let (x, y) = (width / 2.0, height / 2.0);
                (x * x + y * y).sqrt() * self.unit
            }
            Outline::Polygon(corners) => {
                corners.iter().map(|&corner| distance(self.center, corner)).fold(0.0, f64::max)
            }
        }
    }

    pub(super) fn judge(&self) -> Judge<'_> {
        let meters = |length: f64| length * self.unit;
        let rule = match &self.outline {
            Outline::Circle { radius } => Rule::Circle {
                sieve: Sieve::new(self.center, meters(*radius)),
                reach: Reach::new(meters(*radius)),
            },
            Outline::Box { width, height } => Rule::Box {
                half_height: meters(*height) / 2.0,
                half_width: Reach::new(meters(*width) / 2.0),
            },
            Outline::Polygon(corners) => Rule::Polygon(corners),
        };
        Judge { origin: Origin::new(self.center), rule }
    }
}

fn bounds_of(corners: &[Point]) -> [f64; 4] {
    let ends = |coordinate: fn(&Point) -> f64| {
        let of = corners.iter().map(coordinate);
        (of.clone().fold(f64::INFINITY, f64::min), of.fold(f64::NEG_INFINITY, f64::max))
    };
    let (west, east) = ends(|corner| corner.longitude);
    let (south, north) = ends(|corner| corner.latitude);
    [west, south, east, north]
}

/// Says of points whether they are inside.
pub(super) struct Judge<'s> {
    origin: Origin,
    rule: Rule<'s>,
}

enum Rule<'s> {
    Circle { sieve: Sieve, reach: Reach },
    Box { half_height: f64, half_width: Reach },
    Polygon(&'s [Point]),
}

impl Judge<'_> {
    /// Whether a point is inside; `Some` with its distance from the center in metres, which is
    /// only computed if it is `wanted`.
    #[inline]
    pub(super) fn inside(&self, point: Point, wanted: bool) -> Option<f64> {
        let at = Angles::of(point);
        match &self.rule {
            Rule::Circle { sieve, reach } => {
                if sieve.holds_back(&self.origin, at) {
                    return None;
                }
                let Some(half_chord) = self.origin.half_chord(at) else {
                    let distance = along_meridian(self.origin.angles.latitude, at.latitude);
                    return (!reach.excludes(distance)).then_some(distance);
                };
                if !wanted {
                    return reach.covers(half_chord).then_some(0.0);
                }
                if reach.beyond < half_chord {
                    return None;
                }
                let distance = arc(half_chord);
                return (!reach.excludes(distance)).then_some(distance);
            }
            Rule::Box { half_height, half_width } => {
                if *half_height < along_meridian(at.latitude, self.origin.angles.latitude) {
                    return None;
                }
                // The distance along the point's parallel, as the way over the sphere goes.
                let v = ((self.origin.angles.longitude - at.longitude) / 2.0).sin();
                let cosine = at.latitude.cos();
                if v != 0.0 && !half_width.covers(cosine * cosine * v * v) {
                    return None;
                }
                if v == 0.0 && half_width.meters < 0.0 {
                    return None;
                }
            }
            Rule::Polygon(corners) => {
                if !surrounds(corners, point) {
                    return None;
                }
            }
        }
        if !wanted {
            return Some(0.0);
        }
        Some(match self.origin.half_chord(at) {
            Some(half_chord) => arc(half_chord),
            None => along_meridian(self.origin.angles.latitude, at.latitude),
        })
    }
}

/// Holds back points that are too far north, south, east or west of a circle, by additions alone.
struct Sieve {
    /// In radians.
    latitude: f64,
    /// Longitudes this far apart, the shorter way around, are too far.
    longitude: f64,
}

impl Sieve {
    fn new(center: Point, meters: f64) -> Self {
        let angle = meters / RADIUS_METERS;
        let latitude = angle * (1.0 + MARGIN);
        let center = radians(center.latitude);
        // A circle around a pole has all longitudes.
        let longitude = if center.abs() + angle < FRAC_PI_2 - 0.01 {
            (angle.sin() / center.cos()).asin() * (1.0 + MARGIN)
        } else {
            f64::INFINITY
        };
        Self { latitude, longitude }
    }

    #[inline]
    fn holds_back(&self, origin: &Origin, at: Angles) -> bool {
        let east = (at.longitude - origin.angles.longitude).abs();
        self.latitude < (at.latitude - origin.angles.latitude).abs()
            || (self.longitude < east && east < 2.0 * PI - self.longitude)
    }
}

/// Whether a ray from the point eastwards leaves the polygon one time more often than it enters.
fn surrounds(corners: &[Point], point: Point) -> bool {
    let mut inside = false;
    let mut before = corners[corners.len() - 1];
    for &corner in corners {
        if (point.latitude < corner.latitude) != (point.latitude < before.latitude) {
            let slope = (before.longitude - corner.longitude) / (before.latitude - corner.latitude);
            let crossing = slope * (point.latitude - corner.latitude) + corner.longitude;
            inside ^= point.longitude < crossing;
        }
        before = corner;
    }
    inside
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn point() -> impl Strategy<Value = Point> {
        (-180.0..180.0_f64, -85.0..85.0_f64)
            .prop_map(|(longitude, latitude)| Point { longitude, latitude })
    }

    proptest! {
        #[test]
        fn shortcuts_say_what_the_formula_says(
            center in point(),
            near in (-1.0..1.0_f64, -1.0..1.0_f64),
            scale in 0.0001..180.0_f64,
            share in prop::sample::select(vec![0.0, 0.3, 0.999_999_999_999, 1.0, 1.000_000_000_001, 2.0]),
        ) {
            let other = Point {
                longitude: (center.longitude + near.0 * scale).clamp(-180.0, 180.0),
                latitude: (center.latitude + near.1 * scale).clamp(-85.0, 85.0),
            };
            let exact = distance(center, other);
            let radius = exact * share;
            let shape = Shape { center, unit: 1.0, outline: Outline::Circle { radius } };
            let expected = exact <= radius;
            prop_assert_eq!(shape.judge().inside(other, false).is_some(), expected);
            prop_assert_eq!(shape.judge().inside(other, true), expected.then_some(exact));
            let shape = Shape {
                center,
                unit: 1.0,
                outline: Outline::Box { width: radius, height: 2.0 * radius },
            };
            let aside = distance(other, Point { longitude: center.longitude, ..other });
            let ahead = along_meridian(radians(center.latitude), radians(other.latitude));
            let expected = ahead <= radius && aside <= radius / 2.0;
            prop_assert_eq!(shape.judge().inside(other, false).is_some(), expected);
            prop_assert_eq!(shape.judge().inside(other, true), expected.then_some(exact));
        }
    }

    #[test]
    fn polygons_surround_points() {
        let corner = |longitude, latitude| Point { longitude, latitude };
        let corners = [
            corner(0.0, 0.0),
            corner(4.0, 0.0),
            corner(4.0, 4.0),
            corner(2.0, 1.0),
            corner(0.0, 4.0),
        ];
        for (longitude, latitude, inside) in [
            (1.0, 1.0, true),
            (2.0, 2.0, false),
            (3.5, 2.0, true),
            (5.0, 1.0, false),
            (-1.0, 0.5, false),
        ] {
            assert_eq!(surrounds(&corners, corner(longitude, latitude)), inside);
        }
    }
}
