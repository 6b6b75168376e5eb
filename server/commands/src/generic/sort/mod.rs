//! SORT and SORT_RO.

mod elements;
mod options;
mod pattern;

use std::cmp::Ordering;

use carnelian_keyspace::{Db, EventClass};
use carnelian_structs::collation::Collation;

use crate::call::Call;
use crate::command::{Categories, DataCommand, Flags, Group, Scope};
use crate::effect::Effect;
use crate::error::CommandError;
use crate::key_spec::{Begin, Find, KeyFlags, KeySpec};
use elements::{Elements, Order};
use options::{By, Options};
use pattern::Lookup;

const SORTED: KeySpec = KeySpec::range(KeyFlags::RO.union(KeyFlags::ACCESS), 1, 0, 1);
/// The keys that BY and GET lead to: known only when the elements are.
const LOOKED_UP: KeySpec = KeySpec {
    flags: KeyFlags::RO.union(KeyFlags::ACCESS),
    begin: Begin::Unknown,
    find: Find::Unknown,
};
/// The key after STORE, which may be given anywhere and more than once.
const STORED: KeySpec = KeySpec {
    flags: KeyFlags::OW.union(KeyFlags::UPDATE),
    begin: Begin::Unknown,
    find: Find::Unknown,
};

const CATEGORIES: Categories = Categories::DANGEROUS
    .union(Categories::LIST)
    .union(Categories::SET)
    .union(Categories::SORTEDSET);
const COMPLEXITY: &str = "O(N+M*log(M)) for N elements, M of them returned";

pub(super) const SORT: DataCommand = DataCommand {
    name: "sort",
    summary: "Sorts the elements of a list, set or sorted set, and may store the result.",
    since: "1.0.0",
    group: Group::Generic,
    complexity: COMPLEXITY,
    arity: -2,
    flags: Flags::DENYOOM.union(Flags::MOVABLEKEYS).union(Flags::WRITE),
    categories: CATEGORIES,
    keys: &[SORTED, LOOKED_UP, STORED],
    tips: &[],
    scope: Scope::Everything,
    subcommands: &[],
    run: sort,
};

pub(super) const SORT_RO: DataCommand = DataCommand {
    name: "sort_ro",
    summary: "Sorts the elements of a list, set or sorted set.",
    since: "7.0.0",
    group: Group::Generic,
    complexity: COMPLEXITY,
    arity: -2,
    flags: Flags::MOVABLEKEYS.union(Flags::READONLY),
    categories: CATEGORIES,
    keys: &[SORTED, LOOKED_UP],
    tips: &[],
    scope: Scope::Everything,
    subcommands: &[],
    run: sort_ro,
};

/// `SORT key [BY pattern] [LIMIT offset count] [GET pattern ...] [ASC | DESC] [ALPHA] [STORE to]`
fn sort(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let options = Options::parse(&call.args[2..], true)?;
    run(call, &options)
}

/// `SORT_RO`: the same without STORE.
fn sort_ro(call: &mut Call<'_>) -> Result<Effect, CommandError> {
    let options = Options::parse(&call.args[2..], false)?;
    run(call, &options)
}

fn run(call: &mut Call<'_>, options: &Options<'_>) -> Result<Effect, CommandError> {
    let (elements, order) = elements::load(&mut call.db, call.args[1], options)?;
    // What is stored has to be the same everywhere.
    let collation = match options.store {
        Some(_) => None,
        None => call.environment.collation.as_deref(),
    };
    let chosen = choose(&mut call.db, &elements, order, options, collation)?;
    if let Some(key) = options.store {
        return Ok(store(call, key, &elements, &chosen, options));
    }
    reply(call, &elements, &chosen, options);
    Ok(Effect::None)
}

/// Indices of the elements to return, in order.
fn choose(
    db: &mut Db<'_>,
    elements: &Elements,
    order: Order,
    options: &Options<'_>,
    collation: Option<&Collation>,
) -> Result<Vec<usize>, CommandError> {
    let all = 0..elements.len();
    let range = options.range(elements.len());
    let down = options.descending;
    Ok(match (order, &options.by) {
        (Order::Settled, _) => all.collect(),
        (Order::Open, By::Lookup(by)) if options.alpha => {
            // What is missing comes first, and what is equal stays as it was.
            let weights = weights(db, elements, by);
            let Some(collation) = collation else {
                let compare = |a: &usize, b: &usize| weights[*a].cmp(&weights[*b]);
                return Ok(in_order(all.collect(), range, down, compare));
            };
            let weights: Vec<_> =
                weights.iter().map(|it| it.as_deref().map(Collation::text)).collect();
            let compare = |a: &usize, b: &usize| match (&weights[*a], &weights[*b]) {
                (Some(a), Some(b)) => collation.compare(a, b),
                (a, b) => a.is_some().cmp(&b.is_some()),
            };
            in_order(all.collect(), range, down, compare)
        }
        (Order::Open, by) if !options.alpha => {
            let compare = |a: &Scored, b: &Scored| {
                let by_score = a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal);
                by_score.then_with(|| elements.get(a.index).cmp(elements.get(b.index)))
            };
            let sorted = in_order(scores(db, elements, by)?, range, down, compare);
            sorted.into_iter().map(|scored| scored.index).collect()
        }
        (Order::Open | Order::Text, _) => {
            if let (Order::Open, Some(collation)) = (order, collation) {
                let text = |index| Collation::text(elements.get(index));
                let texts: Vec<_> = all.clone().map(text).collect();
                let compare = |a: &usize, b: &usize| collation.compare(&texts[*a], &texts[*b]);
                return Ok(in_order(all.collect(), range, down, compare));
            }
            let compare = |a: &usize, b: &usize| elements.get(*a).cmp(elements.get(*b));
            in_order(all.collect(), range, down, compare)
        }
    })
}

/// An element and what it is sorted by.
#[derive(Clone, Copy)]
struct Scored {
    score: f64,
    index: usize,
}

trait Indexed {
    fn index(&self) -> usize;
}

impl Indexed for usize {
    fn index(&self) -> usize {
        *self
    }
}

impl Indexed for Scored {
    fn index(&self) -> usize {
        self.index
    }
}

/// The items at `range` of the sorted order. Only what is before its end gets sorted.
fn in_order<T: Indexed>(
    mut items: Vec<T>,
    range: std::ops::Range<usize>,
    descending: bool,
    compare: impl Fn(&T, &T) -> Ordering,
) -> Vec<T> {
    // Indices last, so that the order is total and the result does not depend on the algorithm.
    let compare = |a: &T, b: &T| {
        let order = compare(a, b);
        let order = if descending { order.reverse() } else { order };
        order.then_with(|| a.index().cmp(&b.index()))
    };
    if range.is_empty() {
        return Vec::new();
    }
    if range.end < items.len() {
        items.select_nth_unstable_by(range.end, compare);
        items.truncate(range.end);
    }
    items.sort_unstable_by(compare);
    items.drain(..range.start);
    items
}

/// What BY leads to, for each element.
fn weights(db: &mut Db<'_>, elements: &Elements, by: &Lookup<'_>) -> Vec<Option<Vec<u8>>> {
    let mut key = Vec::new();
    let mut weight =
        |index| by.fetch(db, elements.get(index), &mut key, |found| found.map(<[u8]>::to_vec));
    (0..elements.len()).map(&mut weight).collect()
}

/// The numbers to sort by: the elements themselves, or what BY leads to (0 where there is none).
fn scores(db: &mut Db<'_>, elements: &Elements, by: &By<'_>) -> Result<Vec<Scored>, CommandError> {
    let mut key = Vec::new();
    let mut scored = Vec::with_capacity(elements.len());
    for index in 0..elements.len() {
        let element = elements.get(index);
        let score = match by {
            By::Lookup(by) => {
                by.fetch(db, element, &mut key, |found| found.map_or(Some(0.0), score))
            }
            By::Element | By::Nothing => score(element),
        };
        let score = score.ok_or(CommandError::Other(
            "ERR One or more scores can't be converted into double".into(),
        ))?;
        scored.push(Scored { score, index });
    }
    Ok(scored)
}

/// A number as SORT reads it: empty is 0, what is too large is infinite, and a zero byte ends it.
fn score(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!number.is_nan()).then_some(number)
}

fn reply(call: &mut Call<'_>, elements: &Elements, chosen: &[usize], options: &Options<'_>) {
    call.reply.array(chosen.len() * options.get.len().max(1));
    let mut key = Vec::new();
    for index in chosen {
        let element = elements.get(*index);
        if options.get.is_empty() {
            call.reply.bulk(element);
        }
        for get in &options.get {
            get.fetch(&mut call.db, element, &mut key, |found| match found {
                Some(value) => call.reply.bulk(value),
                None => call.reply.null(),
            });
        }
    }
}

/// Makes `to` a list of what a reply would have held; what is missing becomes an empty element.
fn store(
    call: &mut Call<'_>,
    to: &[u8],
    elements: &Elements,
    chosen: &[usize],
    options: &Options<'_>,
) -> Effect {
    let mut result = Elements::default();
    let mut key = Vec::new();
    for index in chosen {
        let element = elements.get(*index);
        if options.get.is_empty() {
            result.push(element);
        }
        for get in &options.get {
            get.fetch(&mut call.db, element, &mut key, |found| {
                result.push(found.unwrap_or_default());
            });
        }
    }
    call.reply.integer(result.len() as i64);
    if result.is_empty() {
        if !call.db.remove(to) {
            return Effect::None;
        }
        call.notify(EventClass::Generic, "del", to);
        return Effect::Verbatim;
    }
    let limits = call.limits();
    call.db.put(to, result.to_list(limits), None);
    call.notify(EventClass::List, "sortstore", to);
    call.dirty(result.len());
    Effect::Verbatim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Bench;

    /// Makes `k` a list of the words.
    fn list(bench: &mut Bench, words: &str) {
        fn put(call: &mut Call<'_>) -> Result<Effect, CommandError> {
            let mut elements = Elements::default();
            call.args[2..].iter().for_each(|word| elements.push(word));
            call.db.put(call.args[1], elements.to_list(call.limits()), None);
            Ok(Effect::Verbatim)
        }
        assert_eq!(bench.run(put, &format!("PUT k {words}")).0, Effect::Verbatim);
    }

    /// What SORT returns, without the headers.
    #[track_caller]
    fn expect(bench: &mut Bench, request: &str, expected: &str) {
        let reply = bench.reply(request);
        let shown =
            |line: &&str| !line.starts_with('*') && (*line == "$-1" || !line.starts_with('$'));
        let lines: Vec<&str> = reply.trim_end().split("\r\n").filter(shown).collect();
        assert_eq!(lines.join(" "), expected, "for {request}");
    }

    const NO_NUMBER: &str = "-ERR One or more scores can't be converted into double";

    #[test]
    fn numbers_and_texts_have_their_own_order() {
        let mut bench = Bench::new();
        list(&mut bench, "10 9 -1 2.5 inf 1e3");
        expect(&mut bench, "SORT k", "-1 2.5 9 10 1e3 inf");
        expect(&mut bench, "SORT k DESC", "inf 1e3 10 9 2.5 -1");
        expect(&mut bench, "SORT k ALPHA", "-1 10 1e3 2.5 9 inf");
        expect(&mut bench, "SORT_RO k ALPHA DESC LIMIT 1 2", "9 2.5");
        expect(&mut bench, "SORT k LIMIT 0 2", "-1 2.5");
        expect(&mut bench, "SORT k LIMIT 4 100", "1e3 inf");
        expect(&mut bench, "SORT k LIMIT 100 1", "");
        expect(&mut bench, "SORT missing", "");
        list(&mut bench, "b a");
        expect(&mut bench, "SORT k", NO_NUMBER);
        expect(&mut bench, "SORT k LIMIT 0 0", NO_NUMBER);
        bench.expect("SET s v", "+OK");
        bench
            .expect("SORT s", "-WRONGTYPE Operation against a key holding the wrong kind of value");
        bench.expect("SORT_RO k STORE d", "-ERR syntax error");
    }

    #[test]
    fn a_constant_pattern_keeps_the_order() {
        let mut bench = Bench::new();
        list(&mut bench, "b a c B");
        expect(&mut bench, "SORT k BY nosort", "b a c B");
        expect(&mut bench, "SORT k BY nosort DESC", "B c a b");
        expect(&mut bench, "SORT k BY nosort DESC LIMIT 1 2", "c a");
        expect(&mut bench, "SORT k BY nosort LIMIT -5 2", "b a");
        expect(&mut bench, "SORT k BY nosort LIMIT 1 -5", "a c B");
        expect(&mut bench, "SORT k BY nosort LIMIT 10 5", "");
        expect(&mut bench, "SORT k BY nosort LIMIT 0 0 BY w_*", "");
    }

    #[test]
    fn a_sorted_set_keeps_the_order_of_its_scores() {
        let mut bench = Bench::new();
        bench.expect("ZADD k 3 10 1 30 2 20", ":3");
        expect(&mut bench, "SORT k", "10 20 30");
        expect(&mut bench, "SORT k BY nosort", "30 20 10");
        expect(&mut bench, "SORT k BY nosort DESC", "10 20 30");
        expect(&mut bench, "SORT k BY nosort LIMIT 1 5", "20 10");
        expect(&mut bench, "SORT k BY nosort DESC LIMIT 1 1", "20");
        expect(&mut bench, "SORT k BY nosort DESC LIMIT 5 1", "");
        expect(&mut bench, "SORT k BY nosort DESC LIMIT 1 0", "");
    }

    #[test]
    fn weights_and_results_come_from_other_keys() {
        let mut bench = Bench::new();
        list(&mut bench, "1 2 3");
        for pair in ["w_1 30", "w_2 20", "o_1 one", "o_3 three"] {
            bench.expect(&format!("SET {pair}"), "+OK");
        }
        expect(&mut bench, "SORT k BY w_*", "3 2 1");
        expect(&mut bench, "SORT k BY w_* GET # GET o_*", "3 three 2 $-1 1 one");
        expect(&mut bench, "SORT k BY w_* ALPHA DESC", "1 2 3");
        expect(&mut bench, "SORT k GET fixed", "$-1 $-1 $-1");
        expect(&mut bench, "SORT k BY o_*", NO_NUMBER);
        expect(&mut bench, "SORT k BY o_* ALPHA", "2 1 3");
        bench.expect("HSET h_1 f 2 name one", ":2");
        bench.expect("HSET h_3 f 1", ":1");
        bench.expect("SET h_2 v", "+OK");
        expect(&mut bench, "SORT k BY h_*->f GET # GET h_*->name", "2 $-1 3 $-1 1 one");
        expect(&mut bench, "SORT k GET h_*-> GET h_*", "$-1 $-1 $-1 v $-1 $-1");
    }

    #[test]
    fn a_stored_result_replaces_the_key() {
        let mut bench = Bench::new();
        list(&mut bench, "3 1 2");
        bench.expect("SET d v EX 100", "+OK");
        bench.expect("SORT k STORE d", ":3");
        bench.expect("TTL d", ":-1");
        expect(&mut bench, "SORT d BY nosort", "1 2 3");
        bench.expect("SORT k GET o_* STORE d", ":3");
        assert_eq!(bench.reply("SORT d BY nosort"), "*3\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n");
        bench.expect("SORT k DESC STORE k", ":3");
        expect(&mut bench, "SORT k BY nosort", "3 2 1");
        assert_eq!(bench.run(sort, "SORT missing STORE d").0, Effect::Verbatim);
        bench.expect("EXISTS d", ":0");
        assert_eq!(bench.run(sort, "SORT missing STORE d").0, Effect::None);
    }

    #[test]
    fn a_limit_returns_a_part_of_the_whole_order() {
        let mut random = fastrand::Rng::with_seed(7);
        let items: Vec<usize> = (0..200).collect();
        let weights: Vec<u8> = items.iter().map(|_| random.u8(0..20)).collect();
        let compare = |a: &usize, b: &usize| weights[*a].cmp(&weights[*b]);
        for descending in [false, true] {
            let mut whole = items.clone();
            whole.sort_by(|a, b| if descending { compare(b, a) } else { compare(a, b) });
            for _ in 0..200 {
                let start = random.usize(0..=200);
                let range = start..random.usize(start..=200);
                let part = in_order(items.clone(), range.clone(), descending, compare);
                assert_eq!(part, whole[range]);
            }
        }
    }

    #[test]
    fn numbers_are_read_as_redis_reads_them() {
        for (text, number) in [
            ("", 0.0),
            ("+1", 1.0),
            ("5.", 5.0),
            ("-.5", -0.5),
            ("1E5", 1e5),
            ("Infinity", f64::INFINITY),
            ("-1e400", f64::NEG_INFINITY),
            ("1e-400", 0.0),
            ("1\0x", 1.0),
        ] {
            assert_eq!(score(text.as_bytes()), Some(number), "{text}");
        }
        for text in [" 1", "1 ", "0x10", "nan", "-nan", ".", "-", "1e", "1_0", "++1", "INFI"] {
            assert_eq!(score(text.as_bytes()), None, "{text}");
        }
    }
}
