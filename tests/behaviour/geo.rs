//! Geo: places, distances and searches.

use carnelian_tests::{each_way, is_carnelian};

const SICILY: &str = "GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania";

#[test]
fn members_have_places() {
    each_way(|client| {
        client.expect(SICILY, ":2");
        client.script(
            r#"
            ZSCORE s Palermo => ,3479099956230698
            GEODIST s Palermo Catania => 166274.1516
            GEODIST s Palermo Catania mi => 103.3182
            GEODIST s Palermo Roma => nil
            GEOHASH s Palermo Roma => [sqc8b49rny0 nil]
            GEOPOS s Palermo Roma => [[,13.361389338970184 ,38.1155563954963] nil]
            GEOADD s XX CH 1 1 Palermo 1 1 Roma => :1
            GEOADD s NX 2 2 Palermo => :0
            GEOADD s 1 86 x => -ERR invalid longitude,latitude pair 1.000000,86.000000
            GEOADD s 1 1 => -ERR wrong number of arguments for 'geoadd' command
            "#,
        );
    });
}

#[test]
fn searches_find_members() {
    each_way(|client| {
        client.expect(SICILY, ":2");
        client.script(
            r#"
            GEOADD s 12.758489 38.788135 edge1 17.241510 38.788135 edge2 => :2
            GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km ASC => [Catania Palermo edge2 edge1]
            GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km DESC => [Palermo Catania]
            GEOSEARCH s FROMMEMBER Palermo BYRADIUS 100 km ASC WITHDIST => [[Palermo 0.0000] [edge1 91.4007]]
            GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 WITHHASH WITHCOORD => [[Catania :3479447370796909 [,15.087267458438873 ,37.50266842333162]]]
            GEORADIUS s 15 37 200 km ASC => [Catania Palermo]
            GEORADIUS_RO s 15 37 100 km => [Catania]
            GEORADIUSBYMEMBER s Palermo 10 km => [Palermo]
            GEOSEARCH missing FROMMEMBER x BYRADIUS 1 m => []
            GEOSEARCH s FROMMEMBER x BYRADIUS 1 m => -ERR could not decode requested zset member
            GEOSEARCH s FROMLONLAT 1 1 COUNT 1 ASC => -ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH
            "#,
        );
        let found = client.call("GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km COUNT 2 ANY");
        assert_eq!(found.elements().len(), 2);
    });
}

#[test]
fn results_are_stored() {
    each_way(|client| {
        client.expect(SICILY, ":2");
        client.script(
            r#"
            GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km => :2
            ZRANGE d 0 -1 => [Palermo Catania]
            GEORADIUS s 15 37 200 km STOREDIST d => :2
            ZRANGE d 0 -1 => [Catania Palermo]
            GEORADIUSBYMEMBER s Palermo 1 km STORE d => :1
            GEOSEARCHSTORE d s FROMLONLAT 0 0 BYRADIUS 1 km => :0
            EXISTS d => :0
            GEORADIUS s 15 37 200 km WITHDIST STORE d => -ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options
            "#,
        );
    });
}

#[test]
fn polygons_are_searched() {
    if !is_carnelian() {
        return;
    }
    each_way(|client| {
        client.expect(SICILY, ":2");
        client.script(
            r#"
            GEOSEARCH s BYPOLYGON 3 12 37 16 37 14 39 ASC WITHDIST => [[Palermo 74231.3029] [Catania 97789.7329]]
            GEOSEARCH s BYPOLYGON 4 13 38 14 38 14 39 13 39 => [Palermo]
            GEOSEARCH s BYPOLYGON 2 12 37 16 37 ASC => -ERR GEOSEARCH BYPOLYGON must have at least 3 vertices
            GEOSEARCHSTORE d s BYPOLYGON 3 12 37 16 37 14 39 => :2
            "#,
        );
    });
}
