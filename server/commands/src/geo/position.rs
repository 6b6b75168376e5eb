//! GEODIST, GEOHASH and GEOPOS: where single members are.

use carnelian_keyspace::Ref;
use carnelian_resp::Writer;
use carnelian_structs::geohash::Point;
use carnelian_structs::sorted_set::SortedSet;

use super::{reading, shape, unit};
use crate::call::Call;
use crate::command::DataCommand;
use crate::effect::Effect;
use crate::error::CommandError;

pub(super) const GEODIST: DataCommand =
    reading("geodist", "Returns the distance between two members.", "3.2.0", "O(1)", -4, geodist);

/// `GEODIST key member1 member2 [M | KM | FT | MI]`
fn geodist(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let unit = match call.args {
        [_, _, _, _] => 1.0,
        [_, _, _, _, word] => unit(word)?,
        _ => return Err(CommandError::Syntax),
    };
    let set = call.db.read_as::<SortedSet>(call.args[1])?;
    let place = |member: &[u8]| Some(Point::of_score(set.as_ref()?.score(member)?));
    match (place(call.args[2]), place(call.args[3])) {
        (Some(from), Some(to)) => {
            write_distance(&mut call.reply, shape::distance(from, to) / unit);
        }
        _ => call.reply.null(),
    }
    Ok(Effect::None)
}

/// A distance with four digits after the point.
pub(super) fn write_distance(reply: &mut Writer<'_>, distance: f64) {
    let scaled = (distance * 10_000.0).round_ties_even();
    // What is no number becomes what x86 makes of it.
    let scaled = if scaled < i64::MAX as f64 { scaled as i64 } else { i64::MIN };
    let scaled = if distance.is_nan() { i64::MIN } else { scaled };
    let magnitude = scaled.unsigned_abs();
    let mut text = [0; 32];
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        text[length..length + bytes.len()].copy_from_slice(bytes);
        length += bytes.len();
    };
    if scaled < 0 {
        put(b"-");
    }
    put(itoa::Buffer::new().format(magnitude / 10_000).as_bytes());
    let fraction = magnitude % 10_000;
    let digit = |unit: u64| b'0' + (fraction / unit % 10) as u8;
    put(&[b'.', digit(1000), digit(100), digit(10), digit(1)]);
    reply.bulk(&text[..length]);
}

pub(super) const GEOHASH: DataCommand = reading(
    "geohash",
    "Returns the geohashes of members.",
    "3.2.0",
    "O(1) for each member",
    -2,
    geohash,
);

/// `GEOHASH key [member [member ...]]`
fn geohash(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    each_member(call, |reply, place| match place {
        Some(place) => reply.bulk(&place.geohash()),
        None => reply.null(),
    })
}

pub(super) const GEOPOS: DataCommand = reading(
    "geopos",
    "Returns the longitudes and latitudes of members.",
    "3.2.0",
    "O(1) for each member",
    -2,
    geopos,
);

/// `GEOPOS key [member [member ...]]`
fn geopos(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    each_member(call, |reply, place| match place {
        Some(place) => write_point(reply, place),
        None => reply.null_array(),
    })
}

pub(super) fn write_point(reply: &mut Writer<'_>, point: Point) {
    reply.array(2);
    reply.double(point.longitude);
    reply.double(point.latitude);
}

/// An array of what `write` makes of each member's place.
fn each_member(
    call: &mut Call<'_>,
    write: impl Fn(&mut Writer<'_>, Option<Point>),
) -> Result<Effect, CommandError> {
    let members = &call.args[2..];
    let set: Option<Ref<'_, SortedSet>> = call.db.read_as(call.args[1])?;
    call.reply.array(members.len());
    for member in members {
        let score = set.as_ref().and_then(|set| set.score(member));
        write(&mut call.reply, score.map(Point::of_score));
    }
    Ok(Effect::None)
}

#[cfg(test)]
mod tests {
    use carnelian_resp::Protocol;

    use super::super::tests::sicily;

    #[test]
    fn members_have_places() {
        let mut bench = sicily();
        bench.expect("GEODIST s Palermo Catania", "$11 166274.1516");
        bench.expect("GEODIST s Palermo Catania km", "$8 166.2742");
        bench.expect("GEODIST s Palermo Catania MI", "$8 103.3182");
        bench.expect("GEODIST s Palermo Palermo", "$6 0.0000");
        bench.expect("GEODIST s Palermo Roma", "$-1");
        bench.expect("GEODIST none a b", "$-1");
        bench.expect("GEODIST s a b m x", "-ERR syntax error");
        let error = "-ERR unsupported unit provided. please use M, KM, FT, MI";
        bench.expect("GEODIST none a b mm", error);
        bench.expect("GEOHASH s Palermo x Catania", "*3 $11 sqc8b49rny0 $-1 $11 sqdtr74hyu0");
        bench.expect("GEOPOS s Palermo x", "*2 *2 $18 13.361389338970184 $16 38.1155563954963 *-1");
        bench.expect("GEOPOS s", "*0");
        bench.expect("GEOPOS none a", "*1 *-1");
        bench.protocol = Protocol::Resp3;
        bench.expect("GEOPOS s Palermo x", "*2 *2 ,13.361389338970184 ,38.1155563954963 _");
        bench.expect("GEODIST s Palermo Catania km", "$8 166.2742");
    }

    #[test]
    fn any_score_is_some_place() {
        let mut bench = sicily();
        bench.expect("ZADD s 1e300 big -5 neg inf infinite", ":3");
        bench.expect(
            "GEOHASH s big neg infinite",
            "*3 $11 00bh0hbj200 $11 bp05b5048p0 $11 00bh0hbj200",
        );
        bench.expect("GEODIST s big neg", "$13 18919844.5891");
    }
}
