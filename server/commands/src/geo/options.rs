//! The words of a search: what is searched for, and what is said of what is found.

use carnelian_structs::geohash::Point;
use carnelian_structs::sorted_set::SortedSet;

use super::shape::{Outline, Shape};
use super::{point, unit};
use crate::args;
use crate::error::CommandError;

/// Which command searches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `GEORADIUS key longitude latitude radius unit`
    Radius { stores: bool },
    /// `GEORADIUSBYMEMBER key member radius unit`
    RadiusByMember { stores: bool },
    /// `GEOSEARCH key`
    Search,
    /// `GEOSEARCHSTORE destination source`
    SearchStore,
}

impl Form {
    pub(super) const fn source(self) -> usize {
        if let Self::SearchStore = self { 2 } else { 1 }
    }

    const fn searches(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }

    const fn stores(self) -> bool {
        matches!(self, Self::Radius { stores: true } | Self::RadiusByMember { stores: true })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    None,
    Ascending,
    Descending,
}

pub(super) struct Options<'w> {
    /// `None` only if there is no key to search, and its member would be the center.
    pub(super) shape: Option<Shape>,
    pub(super) order: Order,
    /// Any number if 0.
    pub(super) count: usize,
    /// Stop when there are `count`, not the nearest.
    pub(super) any: bool,
    pub(super) with_distance: bool,
    pub(super) with_hash: bool,
    pub(super) with_coordinates: bool,
    /// Where the result goes, instead of into the reply.
    pub(super) store: Option<&'w [u8]>,
    /// Distances are stored, not places.
    pub(super) store_distance: bool,
}

/// The shape in the making: each of its parts may be given again, but not in another form.
#[derive(Default)]
struct Draft {
    center: Option<Center>,
    area: Option<Measure>,
}

#[derive(Clone, Copy)]
enum Center {
    Point(Point),
    /// `None` if there is no key to look in.
    Member(Option<Point>),
}

enum Measure {
    Circle { radius: f64, unit: f64 },
    Box { width: f64, height: f64, unit: f64 },
    Polygon(Vec<Point>),
}

impl<'w> Options<'w> {
    /// Reads a request. `set` is the sorted set it searches, for the place of a member.
    pub(super) fn parse(
        form: Form,
        request: &'w [&'w [u8]],
        set: Option<&SortedSet>,
    ) -> Result<Self, CommandError> {
        let mut options = Options {
            shape: None,
            order: Order::None,
            count: 0,
            any: false,
            with_distance: false,
            with_hash: false,
            with_coordinates: false,
            store: (form == Form::SearchStore).then_some(request[1]),
            store_distance: false,
        };
        let mut draft = Draft::default();
        let mut rest = draft.fixed(form, request, set)?;
        while let [word, tail @ ..] = rest {
            rest = if options.take_flag(word) {
                tail
            } else if let Some(rest) = options.take_option(form, word, tail)? {
                rest
            } else if form.searches()
                && let Some(rest) = draft.take(word, tail, set)?
            {
                rest
            } else {
                return Err(CommandError::Syntax);
            };
        }
        options.check(form, request[0], &draft)?;
        if options.count != 0 && options.order == Order::None && !options.any {
            options.order = Order::Ascending;
        }
        options.shape = draft.shape();
        Ok(options)
    }

    fn take_flag(&mut self, word: &[u8]) -> bool {
        if args::is(word, "WITHDIST") {
            self.with_distance = true;
        } else if args::is(word, "WITHHASH") {
            self.with_hash = true;
        } else if args::is(word, "WITHCOORD") {
            self.with_coordinates = true;
        } else if args::is(word, "ANY") {
            self.any = true;
        } else if args::is(word, "ASC") {
            self.order = Order::Ascending;
        } else if args::is(word, "DESC") {
            self.order = Order::Descending;
        } else {
            return false;
        }
        true
    }

    /// An option of several words; what comes after it, if it is one.
    fn take_option(
        &mut self,
        form: Form,
        word: &[u8],
        tail: &'w [&'w [u8]],
    ) -> Result<Option<&'w [&'w [u8]]>, CommandError> {
        if form == Form::SearchStore && args::is(word, "STOREDIST") {
            self.store_distance = true;
            return Ok(Some(tail));
        }
        let [value, rest @ ..] = tail else { return Ok(None) };
        if args::is(word, "COUNT") {
            let count = args::integer(value)?;
            if count <= 0 {
                return Err(CommandError::text("ERR COUNT must be > 0"));
            }
            self.count = count as usize;
        } else if form.stores() && (args::is(word, "STORE") || args::is(word, "STOREDIST")) {
            // Only the first of several is among the command's keys.
            if self.store.is_some_and(|store| store != *value) {
                return Err(CommandError::Syntax);
            }
            self.store = Some(value);
            self.store_distance = args::is(word, "STOREDIST");
        } else {
            return Ok(None);
        }
        Ok(Some(rest))
    }

    fn check(&self, form: Form, name: &[u8], draft: &Draft) -> Result<(), CommandError> {
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_coordinates) {
            return Err(CommandError::text(if form == Form::SearchStore {
                "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            } else {
                "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and \
                 WITHCOORD options"
            }));
        }
        if form.searches() && draft.center.is_none() && !draft.is_polygon() {
            return Err(CommandError::quoting(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for ",
                name,
                "",
            ));
        }
        if form.searches() && draft.area.is_none() {
            return Err(CommandError::quoting(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for ",
                name,
                "",
            ));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }
}

impl Draft {
    /// Reads what a form has at fixed places, and returns the options after it.
    fn fixed<'w>(
        &mut self,
        form: Form,
        request: &'w [&'w [u8]],
        set: Option<&SortedSet>,
    ) -> Result<&'w [&'w [u8]], CommandError> {
        match (form, request) {
            (Form::Radius { .. }, [_, _, longitude, latitude, radius, unit, rest @ ..]) => {
                self.center = Some(Center::Point(point(longitude, latitude)?));
                self.area = Some(circle(radius, unit)?);
                Ok(rest)
            }
            (Form::RadiusByMember { .. }, [_, _, member, radius, unit, rest @ ..]) => {
                // Without a key only the options are checked.
                if set.is_some() {
                    self.center = Some(center_of(set, member)?);
                    self.area = Some(circle(radius, unit)?);
                }
                Ok(rest)
            }
            (form, request) => Ok(&request[form.source() + 1..]),
        }
    }

    const fn is_polygon(&self) -> bool {
        matches!(self.area, Some(Measure::Polygon(_)))
    }

    /// Reads a center or an area. What comes after it, if it is one that may stand here.
    fn take<'w>(
        &mut self,
        word: &[u8],
        tail: &'w [&'w [u8]],
        set: Option<&SortedSet>,
    ) -> Result<Option<&'w [&'w [u8]]>, CommandError> {
        use {Center::Member, Measure::Box, Measure::Circle, Measure::Polygon};
        match (tail, &self.center, &self.area) {
            (_, _, Some(Polygon(_))) if !args::is(word, "BYPOLYGON") => Ok(None),
            ([member, rest @ ..], None | Some(Member(_)), _) if args::is(word, "FROMMEMBER") => {
                self.center = Some(center_of(set, member)?);
                Ok(Some(rest))
            }
            ([longitude, latitude, rest @ ..], None | Some(Center::Point(_)), _)
                if args::is(word, "FROMLONLAT") =>
            {
                self.center = Some(Center::Point(point(longitude, latitude)?));
                Ok(Some(rest))
            }
            ([radius, unit, rest @ ..], _, None | Some(Circle { .. }))
                if args::is(word, "BYRADIUS") =>
            {
                self.area = Some(circle(radius, unit)?);
                Ok(Some(rest))
            }
            ([width, height, unit, rest @ ..], _, None | Some(Box { .. }))
                if args::is(word, "BYBOX") =>
            {
                self.area = Some(rectangle(width, height, unit)?);
                Ok(Some(rest))
            }
            ([count, rest @ ..], None, None | Some(Polygon(_)))
                if !rest.is_empty() && args::is(word, "BYPOLYGON") =>
            {
                let (corners, rest) = polygon(count, rest)?;
                self.area = Some(Polygon(corners));
                Ok(Some(rest))
            }
            _ => Ok(None),
        }
    }

    fn shape(self) -> Option<Shape> {
        let (outline, unit) = match self.area? {
            Measure::Polygon(corners) => return Some(Shape::polygon(corners)),
            Measure::Circle { radius, unit } => (Outline::Circle { radius }, unit),
            Measure::Box { width, height, unit } => (Outline::Box { width, height }, unit),
        };
        let (Center::Point(center) | Center::Member(Some(center))) = self.center? else {
            return None;
        };
        Some(Shape { center, unit, outline })
    }
}

fn center_of(set: Option<&SortedSet>, member: &[u8]) -> Result<Center, CommandError> {
    let Some(set) = set else { return Ok(Center::Member(None)) };
    let Some(score) = set.score(member) else {
        return Err(CommandError::text("ERR could not decode requested zset member"));
    };
    Ok(Center::Member(Some(Point::of_score(score))))
}

fn circle(radius: &[u8], word: &[u8]) -> Result<Measure, CommandError> {
    let radius = args::float(radius).map_err(|_| CommandError::text("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(CommandError::text("ERR radius cannot be negative"));
    }
    Ok(Measure::Circle { radius, unit: unit(word)? })
}

fn rectangle(width: &[u8], height: &[u8], word: &[u8]) -> Result<Measure, CommandError> {
    let width = args::float(width).map_err(|_| CommandError::text("ERR need numeric width"))?;
    let height = args::float(height).map_err(|_| CommandError::text("ERR need numeric height"))?;
    if height < 0.0 || width < 0.0 {
        return Err(CommandError::text("ERR height or width cannot be negative"));
    }
    Ok(Measure::Box { width, height, unit: unit(word)? })
}

/// So many corners, and what comes after them.
fn polygon<'w>(
    count: &[u8],
    words: &'w [&'w [u8]],
) -> Result<(Vec<Point>, &'w [&'w [u8]]), CommandError> {
    let count =
        args::int(count).map_err(|_| CommandError::text("ERR invalid number of vertices"))?;
    let count = usize::try_from(count).unwrap_or(0);
    if count < 3 || words.len() / 2 < count {
        return Err(CommandError::text("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices"));
    }
    let (corners, rest) = words.split_at(2 * count);
    let corners = corners.as_chunks().0.iter();
    let corners = corners.map(|[longitude, latitude]| point(longitude, latitude));
    Ok((corners.collect::<Result<_, _>>()?, rest))
}
