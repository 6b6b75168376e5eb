//! Geo: sorted sets whose scores are places on Earth.

mod cells;
mod options;
mod position;
mod search;
mod shape;

use carnelian_structs::geohash::Point;
use smallvec::SmallVec;

use crate::args;
use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Run, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{KeyFlags, KeySpec};
use crate::sorted_set::add::{Options, add_scored};

const READ_ONE: &[KeySpec] = &[KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1)];

pub const TABLE: &[DataCommand] = &[
    GEOADD,
    position::GEODIST,
    position::GEOHASH,
    position::GEOPOS,
    search::GEORADIUS,
    search::GEORADIUS_RO,
    search::GEORADIUSBYMEMBER,
    search::GEORADIUSBYMEMBER_RO,
    search::GEOSEARCH,
    search::GEOSEARCHSTORE,
];

const GEOADD: DataCommand = DataCommand {
    flags: Flags::DENYOOM.union(Flags::WRITE),
    keys: &[KeySpec::range(KeyFlags::RW.union(KeyFlags::UPDATE), 1, 0, 1)],
    ..reading(
        "geoadd",
        "Adds members with their places, or moves them.",
        "3.2.0",
        "O(log(N)) for each member, with N members in the sorted set",
        -5,
        geoadd,
    )
};

/// What the commands of this family have in common, as those that read one key have it.
const fn reading(
    name: &'static str,
    summary: &'static str,
    since: &'static str,
    complexity: &'static str,
    arity: i32,
    run: Run,
) -> DataCommand {
    DataCommand {
        name,
        summary,
        since,
        group: Group::Geo,
        complexity,
        arity,
        flags: Flags::READONLY,
        categories: Categories::GEO,
        keys: READ_ONE,
        tips: &[],
        scope: Scope::Keys,
        subcommands: &[],
        run,
    }
}

/// `GEOADD key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]`: a ZADD
/// in other words, and followers are sent that one.
fn geoadd(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let request = call.args;
    let mut options = Options::default();
    let mut rest = &request[2..];
    while let [word, tail @ ..] = rest {
        if args::is(word, "NX") {
            options.only_new = true;
        } else if args::is(word, "XX") {
            options.only_present = true;
        } else if args::is(word, "CH") {
            options.count_changed = true;
        } else {
            break;
        }
        rest = tail;
    }
    let (places, odd) = rest.as_chunks::<3>();
    if places.is_empty() || !odd.is_empty() || (options.only_new && options.only_present) {
        return Err(CommandError::Syntax);
    }
    let mut scores: SmallVec<[f64; 8]> = SmallVec::with_capacity(places.len());
    let mut pairs: SmallVec<[[&[u8]; 2]; 8]> = SmallVec::with_capacity(places.len());
    for [longitude, latitude, member] in places {
        scores.push(point(longitude, latitude)?.score());
        pairs.push([b"", member]);
    }
    let effect = add_scored(call, &pairs, &scores, options)?;
    if effect == Effect::None || !call.db.changes.following {
        return Ok(effect);
    }
    let texts: Vec<String> = scores.iter().map(|&score| (score as u64).to_string()).collect();
    let added = texts.iter().zip(&pairs).flat_map(|(text, [_, member])| [text.as_bytes(), *member]);
    let mut words: Vec<&[u8]> = vec![b"ZADD"];
    words.extend_from_slice(&request[1..request.len() - rest.len()]);
    words.extend(added);
    Ok(call.rewritten(&words))
}

/// A point as requests have it; it has to be on the grid.
fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point, CommandError> {
    let point = Point { longitude: args::float(longitude)?, latitude: args::float(latitude)? };
    if !point.is_on_grid() {
        return Err(CommandError::text(format!(
            "ERR invalid longitude,latitude pair {:.6},{:.6}",
            point.longitude, point.latitude
        )));
    }
    Ok(point)
}

/// Metres in a unit.
fn unit(word: &[u8]) -> Result<f64, CommandError> {
    match word {
        word if args::is(word, "m") => Ok(1.0),
        word if args::is(word, "km") => Ok(1000.0),
        word if args::is(word, "ft") => Ok(0.3048),
        word if args::is(word, "mi") => Ok(1609.34),
        _ => Err(CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::Bench;

    pub(super) fn sicily() -> Bench {
        let mut bench = Bench::new();
        let request = "GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania";
        bench.expect(request, ":2");
        bench
    }

    #[test]
    fn places_are_scores() {
        let mut bench = sicily();
        bench.expect(
            "ZRANGE s 0 -1 WITHSCORES",
            "*4 $7 Palermo $16 3479099956230698 $7 Catania $16 3479447370796909",
        );
        assert_eq!(bench.events, ["new s", "zadd s"]);
        let effect =
            "*6 $4 ZADD $1 s $16 3479099956230698 $7 Palermo $16 3479447370796909 $7 Catania ";
        assert_eq!(String::from_utf8_lossy(&bench.effects).replace("\r\n", " "), effect);
        bench.expect("GEOADD s 13.361389 38.115556 Palermo", ":0");
        bench.expect("GEOADD s NX 1 1 Palermo", ":0");
        bench.expect("GEOADD s XX CH 1 1 Palermo 2 2 Roma", ":1");
        bench.expect("ZCARD s", ":2");
        bench.expect("GEOADD none XX 1 1 a", ":0");
    }

    #[test]
    fn bad_places_add_nothing() {
        let mut bench = Bench::new();
        bench.expect("GEOADD s NX XX 1 1 a", "-ERR syntax error");
        bench.expect("GEOADD s 1 1 a 2", "-ERR syntax error");
        bench.expect("GEOADD s XX CH CH", "-ERR syntax error");
        bench.expect("GEOADD s 1 x a", "-ERR value is not a valid float");
        let error = "-ERR invalid longitude,latitude pair 1.000000,85.060000";
        bench.expect("GEOADD s 1 1 a 1 85.06 b", error);
        let error = "-ERR invalid longitude,latitude pair inf,1.000000";
        bench.expect("GEOADD s inf 1 a", error);
        bench.expect("EXISTS s", ":0");
        bench.expect("SET k x", "+OK");
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        bench.expect("GEOADD k 1 1 a", wrong);
    }
}
