//! GEOSEARCH and its older relatives: the members in a circle, a box or a polygon.

use std::ops::ControlFlow;

use carnelian_keyspace::EventClass;
use carnelian_resp::Writer;
use carnelian_structs::geohash::Point;
use carnelian_structs::sorted_set::{Builder, Name, ScoreBound, ScoreRange, SortedSet};
use smallvec::SmallVec;

use super::cells::covering;
use super::options::{Form, Options, Order};
use super::position::{write_distance, write_point};
use super::reading;
use super::shape::Shape;
use crate::call::Call;
use crate::command::{DataCommand, Flags};
use crate::effect::Effect;
use crate::element;
use crate::error::CommandError;
use crate::key_spec::{Begin, Find, KeyFlags, KeySpec};
use crate::sorted_set::limits;

const STORE: KeyFlags = KeyFlags::OW.union(KeyFlags::UPDATE);
const COMPLEXITY: &str =
    "O(N+log(M)), with N members around the area and M members in the sorted set";

/// A key after a keyword, from a word on.
const fn stored(keyword: &'static str, from: i32) -> KeySpec {
    KeySpec {
        flags: STORE,
        begin: Begin::Keyword { keyword, from },
        find: Find::Range { last: 0, step: 1, limit: 0 },
    }
}

pub(super) const GEORADIUS: DataCommand = DataCommand {
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    keys: &[
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1),
        stored("STORE", 6),
        stored("STOREDIST", 6),
    ],
    ..reading(
        "georadius",
        "Returns or stores the members around a point (GEOSEARCH replaces it).",
        "3.2.0",
        COMPLEXITY,
        -6,
        georadius,
    )
};

/// `GEORADIUS key longitude latitude radius M | KM | FT | MI [WITHCOORD] [WITHDIST] [WITHHASH]
/// [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]`
fn georadius(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::Radius { stores: true })
}

pub(super) const GEORADIUS_RO: DataCommand = reading(
    "georadius_ro",
    "Returns the members around a point (GEOSEARCH replaces it).",
    "3.2.10",
    COMPLEXITY,
    -6,
    georadius_ro,
);

/// `GEORADIUS_RO`: GEORADIUS that cannot store.
fn georadius_ro(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::Radius { stores: false })
}

pub(super) const GEORADIUSBYMEMBER: DataCommand = DataCommand {
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    keys: &[
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1),
        stored("STORE", 5),
        stored("STOREDIST", 5),
    ],
    ..reading(
        "georadiusbymember",
        "Returns or stores the members around a member (GEOSEARCH replaces it).",
        "3.2.0",
        COMPLEXITY,
        -5,
        georadiusbymember,
    )
};

/// `GEORADIUSBYMEMBER key member radius unit ...`, with GEORADIUS's options.
fn georadiusbymember(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::RadiusByMember { stores: true })
}

pub(super) const GEORADIUSBYMEMBER_RO: DataCommand = reading(
    "georadiusbymember_ro",
    "Returns the members around a member (GEOSEARCH replaces it).",
    "3.2.10",
    COMPLEXITY,
    -5,
    georadiusbymember_ro,
);

/// `GEORADIUSBYMEMBER_RO`: GEORADIUSBYMEMBER that cannot store.
fn georadiusbymember_ro(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::RadiusByMember { stores: false })
}

pub(super) const GEOSEARCH: DataCommand = reading(
    "geosearch",
    "Returns the members in a circle, a box or a polygon.",
    "6.2.0",
    COMPLEXITY,
    -7,
    geosearch,
);

/// `GEOSEARCH key FROMMEMBER member | FROMLONLAT longitude latitude BYRADIUS radius unit | BYBOX
/// width height unit [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]`, or with
/// `BYPOLYGON count longitude latitude [longitude latitude ...]` instead of center and area.
fn geosearch(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::Search)
}

pub(super) const GEOSEARCHSTORE: DataCommand = DataCommand {
    flags: Flags::DENYOOM.union(Flags::WRITE),
    keys: &[
        KeySpec::range(STORE, 1, 0, 1),
        KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 2, 0, 1),
    ],
    ..reading(
        "geosearchstore",
        "Stores the members in a circle, a box or a polygon.",
        "6.2.0",
        COMPLEXITY,
        -8,
        geosearchstore,
    )
};

/// `GEOSEARCHSTORE destination source ... [STOREDIST]`, with GEOSEARCH's areas and orders.
fn geosearchstore(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    search(call, Form::SearchStore)
}

fn search(call: &mut Call<'_>, form: Form) -> Result<Effect, CommandError> {
    let request = call.args;
    let limits = limits(call);
    let set = call.db.read_as::<SortedSet>(request[form.source()])?;
    let options = Options::parse(form, request, set.as_deref())?;
    let mut found = Found::new();
    let mut unit = 1.0;
    if let (Some(set), Some(shape)) = (set.as_deref(), &options.shape) {
        unit = shape.unit;
        found = members_in(set, shape, &options);
        put_in_order(&mut found, &options);
    }
    let Some(destination) = options.store else {
        write(&mut call.reply, &found, unit, &options);
        return Ok(Effect::None);
    };
    let mut result = Builder::default();
    let mut buffer = itoa::Buffer::new();
    for place in &found {
        let score = if options.store_distance { place.meters / unit } else { place.score };
        result.update(place.name.element().as_bytes(&mut buffer), |_| score);
    }
    let result = result.finish(limits);
    drop(found);
    call.reply.integer(result.len() as i64);
    if !result.is_empty() {
        let event = if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" };
        call.dirty(result.len());
        call.db.put(destination, result, None);
        call.notify(EventClass::SortedSet, event, destination);
    } else if call.db.remove(destination) {
        call.notify(EventClass::Generic, "del", destination);
    } else {
        return Ok(Effect::None);
    }
    Ok(Effect::Verbatim)
}

/// A member inside.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// From the center, if it is of interest.
    meters: f64,
    score: f64,
    name: Name<'a>,
}

type Found<'a> = SmallVec<[Place<'a>; 16]>;

fn members_in<'a>(set: &'a SortedSet, shape: &Shape, options: &Options<'_>) -> Found<'a> {
    let judge = shape.judge();
    let distances = options.order != Order::None || options.with_distance || options.store_distance;
    let most = if options.any { options.count } else { usize::MAX };
    let mut found = Found::new();
    for cell in covering(shape) {
        let (from, to) = cell.scores();
        let range = ScoreRange {
            min: ScoreBound { score: from, exclusive: false },
            max: ScoreBound { score: to, exclusive: true },
        };
        set.visit_scores(&range, |score, name| {
            if let Some(meters) = judge.inside(Point::of_score(score), distances) {
                name.prefetch();
                found.push(Place { meters, score, name });
            }
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if most <= found.len() {
            break;
        }
    }
    found
}

/// Sorts as asked, and leaves as many as asked.
fn put_in_order(found: &mut Found<'_>, options: &Options<'_>) {
    let kept = match options.count {
        0 => found.len(),
        count => count.min(found.len()),
    };
    // Those at the same distance stay as they were found.
    let by_distance = |a: &Place<'_>, b: &Place<'_>| match options.order {
        Order::None => std::cmp::Ordering::Equal,
        Order::Ascending => a.meters.total_cmp(&b.meters),
        Order::Descending => b.meters.total_cmp(&a.meters),
    };
    if options.order != Order::None {
        if 0 < kept && kept < found.len() / 4 {
            found.select_nth_unstable_by(kept - 1, by_distance);
            found.truncate(kept);
        }
        found.sort_by(by_distance);
    }
    found.truncate(kept);
}

fn write(reply: &mut Writer<'_>, found: &[Place<'_>], unit: f64, options: &Options<'_>) {
    let parts = [options.with_distance, options.with_hash, options.with_coordinates];
    let parts = parts.into_iter().filter(|&wanted| wanted).count();
    reply.array(found.len());
    for place in found {
        if parts != 0 {
            reply.array(1 + parts);
        }
        element::bulk(reply, place.name.element());
        if options.with_distance {
            write_distance(reply, place.meters / unit);
        }
        if options.with_hash {
            reply.integer(place.score as i64);
        }
        if options.with_coordinates {
            write_point(reply, Point::of_score(place.score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::sicily;
    use super::*;

    #[test]
    fn circles_find_what_is_in_them() {
        let mut bench = sicily();
        bench.expect("GEORADIUS s 15 37 200 km", "*2 $7 Palermo $7 Catania");
        bench.expect("GEORADIUS_RO s 15 37 200 km ASC", "*2 $7 Catania $7 Palermo");
        bench.expect("GEORADIUS s 15 37 100 km WITHDIST", "*1 *2 $7 Catania $7 56.4413");
        bench.expect(
            "GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km ASC COUNT 1 WITHDIST WITHHASH WITHCOORD",
            "*1 *4 $7 Catania $7 56.4413 :3479447370796909 \
             *2 $18 15.087267458438873 $17 37.50266842333162",
        );
        bench.expect(
            "GEOSEARCH s FROMMEMBER Palermo BYRADIUS 200 km DESC",
            "*2 $7 Catania $7 Palermo",
        );
        bench.expect("GEORADIUSBYMEMBER s Palermo 100 km", "*1 $7 Palermo");
        bench.expect("GEORADIUSBYMEMBER_RO s Palermo 1 m COUNT 5", "*1 $7 Palermo");
        bench.expect("GEOSEARCH s FROMLONLAT 0 0 BYRADIUS 1 km", "*0");
    }

    #[test]
    fn boxes_and_polygons_find_what_is_in_them() {
        let mut bench = sicily();
        bench.expect("GEOADD s 12.758489 38.788135 edge1 17.241510 38.788135 edge2", ":2");
        bench.expect(
            "GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km ASC",
            "*4 $7 Catania $7 Palermo $5 edge2 $5 edge1",
        );
        bench.expect("GEOSEARCH s FROMLONLAT 15 37 BYBOX 100 400 km", "*1 $7 Catania");
        bench.expect(
            "GEOSEARCH s BYPOLYGON 3 12 37 16 37 14 39 ASC WITHDIST",
            "*2 *2 $7 Palermo $10 74231.3029 *2 $7 Catania $10 97789.7329",
        );
    }

    #[test]
    fn results_are_stored() {
        let mut bench = sicily();
        bench.events.clear();
        bench.expect("GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km", ":2");
        assert_eq!(bench.dirty, 2);
        bench.expect("ZSCORE d Palermo", "$16 3479099956230698");
        bench.expect("GEORADIUS s 15 37 200 km STOREDIST d", ":2");
        bench.expect("ZSCORE d Catania", "$16 56.4412578701582");
        bench.expect("GEORADIUSBYMEMBER s Palermo 1 km STORE d", ":1");
        bench.expect("GEOSEARCHSTORE d none FROMMEMBER x BYRADIUS 1 m STOREDIST", ":0");
        bench.expect("EXISTS d", ":0");
        bench.expect("GEORADIUS none 1 1 1 m STORE d", ":0");
        assert_eq!(
            bench.events,
            ["new d", "geosearchstore d", "georadiusstore d", "georadiusstore d", "del d"]
        );
    }

    #[test]
    fn words_that_do_not_fit_are_refused() {
        let mut bench = sicily();
        for (request, error) in [
            (
                "GEOSEARCH s FROMLONLAT 1 1 COUNT 3 ASC",
                "exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH",
            ),
            (
                "geosearch s BYRADIUS 1 m COUNT 3 ASC",
                "exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch",
            ),
            ("GEOSEARCH s FROMLONLAT 1 1 FROMMEMBER a BYRADIUS 1 m", "syntax error"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYBOX 1 1 m BYRADIUS 1 m", "syntax error"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m STORE x", "syntax error"),
            ("GEOSEARCH s FROMMEMBER Roma BYRADIUS 1 m", "could not decode requested zset member"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS x m", "need numeric radius"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS -1 m", "radius cannot be negative"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYBOX x 1 m", "need numeric width"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYBOX 1 x m", "need numeric height"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYBOX 1 -1 m", "height or width cannot be negative"),
            (
                "GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m ANY",
                "the ANY argument requires COUNT argument",
            ),
            ("GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m COUNT 0", "COUNT must be > 0"),
            (
                "GEOSEARCH s FROMLONLAT 1 1 BYRADIUS 1 m COUNT x",
                "value is not an integer or out of range",
            ),
            (
                "GEORADIUS s 1 1 1 m STORE d WITHDIST",
                "STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            ),
            (
                "GEOSEARCHSTORE d s FROMLONLAT 1 1 BYRADIUS 1 m WITHHASH",
                "GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            ),
            ("GEORADIUS_RO s 1 1 1 m STORE d", "syntax error"),
            ("GEORADIUS s 1 1 1 m STORE d STORE e", "syntax error"),
            ("GEORADIUSBYMEMBER none x 1 m FOO", "syntax error"),
            (
                "GEOSEARCH s BYPOLYGON 2 1 1 2 2",
                "GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ),
            ("GEOSEARCH s BYPOLYGON 99999999999 1 1 2 2", "invalid number of vertices"),
            (
                "GEOSEARCH s BYPOLYGON 2147483647 1 1 2 2 3 3",
                "GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ),
            ("GEOSEARCH s BYPOLYGON 3 1 1 2 2 3 3 FROMLONLAT 1 1", "syntax error"),
            ("GEOSEARCH s FROMLONLAT 1 1 BYPOLYGON 3 1 1 2 2 3 3", "syntax error"),
        ] {
            bench.expect(request, &format!("-ERR {error}"));
        }
        bench.expect("GEORADIUSBYMEMBER none x y z", "*0");
        assert_eq!(
            bench.run(geosearch, "GEOSEARCH none FROMMEMBER x BYRADIUS 1 m").0,
            Effect::None
        );
    }
}
