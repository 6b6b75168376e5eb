//! Which differences between two replies count.

use super::payload;
use crate::reply::Reply;

/// How the replies to a command are compared. Errors always have to be equal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rule {
    Exact,
    /// What SORT answers. Redis compares texts up to a NUL, and leaves equal ones in no certain
    /// order.
    Sort,
    /// Elements come in any order.
    Unordered,
    /// Pairs come in any order, as a map or flat.
    Pairs,
    /// A cursor that has to be the same, and elements in any order, perhaps more than once.
    Scan,
    /// The same with pairs.
    ScanPairs,
    /// Chance decides what is answered, but not how much of it.
    Shape,
    /// Numbers may lie apart this much: time passes between the servers.
    Near(i64),
    /// Elements come in any order, and so do those of every element.
    Deep,
    /// What streams tell of their consumers: idle times and clock times may lie apart.
    Timed,
    /// Messages that end subscriptions, which come in any order, only the numbers left do not.
    Farewells,
    /// A payload of DUMP. That of a hash table has no certain order.
    Payload,
    /// The second server has served somebody whom Redis lets wait: it tells nobody of a list or sorted
    /// set that a STORE puts in the place of a value of another type.
    Sooner,
}

/// What two replies are held to: one rule, or one for each element, as EXEC needs it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Terms {
    Whole(Rule),
    Each(Vec<Self>),
}

impl From<Rule> for Terms {
    fn from(rule: Rule) -> Self {
        Self::Whole(rule)
    }
}

impl Terms {
    /// Whether `a` and `b` say the same.
    pub fn agree(&self, a: &Reply, b: &Reply) -> bool {
        self.hold(a, b, agree)
    }

    /// The same for servers of different generations.
    pub fn agree_loosely(&self, a: &Reply, b: &Reply) -> bool {
        (a.is_error() && b.is_error()) || self.hold(a, b, agree_loosely)
    }

    fn hold(&self, a: &Reply, b: &Reply, agree: fn(Rule, &Reply, &Reply) -> bool) -> bool {
        match (self, a, b) {
            (Self::Whole(rule), a, b) => agree(*rule, a, b),
            (Self::Each(terms), Reply::Array(a), Reply::Array(b)) => {
                let rest = std::iter::repeat(&Self::Whole(Rule::Exact));
                a.len() == b.len()
                    && a.iter()
                        .zip(b)
                        .zip(terms.iter().chain(rest))
                        .all(|((a, b), terms)| terms.hold(a, b, agree))
            }
            (Self::Each(_), a, b) => agree(Rule::Exact, a, b),
        }
    }

    /// Whether the replies differ only by what is left to chance.
    pub fn is_left_to_chance(&self, a: &Reply, b: &Reply) -> bool {
        match (self, a, b) {
            (Self::Whole(rule), a, b) => is_left_to_chance(*rule, a, b),
            (Self::Each(terms), Reply::Array(a), Reply::Array(b)) => {
                let mut all = a.iter().zip(b).zip(terms);
                all.any(|((a, b), terms)| terms.is_left_to_chance(a, b))
            }
            (Self::Each(_), _, _) => false,
        }
    }
}

/// Whether `a` and `b` say the same when servers of different generations may word things their way:
/// one error is as good as another, and a number is its value, not its digits.
fn agree_loosely(rule: Rule, a: &Reply, b: &Reply) -> bool {
    (a.is_error() && b.is_error()) || agree(rule, &by_value(a), &by_value(b))
}

fn by_value(reply: &Reply) -> Reply {
    let all = |items: &[Reply]| items.iter().map(by_value).collect();
    match reply {
        Reply::Bulk(text) | Reply::Double(text) => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<f64>().ok());
            Reply::Bulk(number.map_or_else(|| text.clone(), |number| number.to_string().into()))
        }
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Set(items) => Reply::Set(all(items)),
        Reply::Map(pairs) => {
            Reply::Map(pairs.iter().map(|(key, value)| (by_value(key), by_value(value))).collect())
        }
        other => other.clone(),
    }
}

/// Whether `a` and `b` say the same.
fn agree(rule: Rule, a: &Reply, b: &Reply) -> bool {
    if a == b {
        return true;
    }
    if rule == Rule::Sort {
        return is_same_order(a, b);
    }
    if a.is_error() || b.is_error() {
        return false;
    }
    match rule {
        Rule::Exact | Rule::Sort | Rule::Sooner => false,
        Rule::Unordered => sorted(a) == sorted(b),
        Rule::Pairs => sorted_pairs(a) == sorted_pairs(b),
        Rule::Scan => scan(a, b, |reply| {
            let mut reply = sorted(reply);
            if let Reply::Array(items) = &mut reply {
                items.dedup();
            }
            reply
        }),
        Rule::ScanPairs => scan(a, b, |reply| {
            let mut reply = sorted_pairs(reply);
            if let Reply::Map(pairs) = &mut reply.1 {
                pairs.dedup();
            }
            reply
        }),
        Rule::Shape => same_shape(a, b),
        Rule::Near(distance) => near(a, b, distance),
        Rule::Deep => sorted_deeply(a) == sorted_deeply(b),
        Rule::Timed => timed(a, b),
        Rule::Farewells => farewells(a) == farewells(b),
        Rule::Payload => are_alike_as_payloads(a, b),
    }
}

/// Whether only one server refused: to sort, which Redis does, whatever the numbers, for an `errno`
/// that an earlier command left behind; or Redis forgot somebody who waits. What is stored differs from
/// there on.
fn is_left_to_chance(rule: Rule, a: &Reply, b: &Reply) -> bool {
    const REFUSAL: &[u8] = b"ERR One or more scores can't be converted into double";
    let refuses = |reply: &Reply| matches!(reply, Reply::Error(text) if text == REFUSAL);
    rule == Rule::Sooner
        || (rule == Rule::Sort && refuses(a) != refuses(b) && a.is_error() != b.is_error())
}

fn is_same_order(a: &Reply, b: &Reply) -> bool {
    fn shown(reply: &Reply) -> Option<&[u8]> {
        match reply {
            Reply::Bulk(text) => text.split(|&byte| byte == 0).next(),
            _ => None,
        }
    }
    match (a, b) {
        (Reply::Array(a), Reply::Array(b)) => {
            let same = |(a, b): (&Reply, &Reply)| shown(a) == shown(b);
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        _ => false,
    }
}

fn sorted(reply: &Reply) -> Reply {
    let mut reply = reply.clone();
    if let Reply::Array(items) | Reply::Set(items) = &mut reply {
        items.sort();
    }
    reply
}

/// Both forms of a map as a sorted map; the form itself still has to be the same.
fn sorted_pairs(reply: &Reply) -> (bool, Reply) {
    let (flat, mut pairs) = match reply {
        Reply::Map(pairs) => (false, pairs.clone()),
        Reply::Array(items) => {
            let pairs = items.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            (true, pairs.collect())
        }
        other => return (false, other.clone()),
    };
    pairs.sort();
    (flat, Reply::Map(pairs))
}

fn scan<T: PartialEq>(a: &Reply, b: &Reply, normal: impl Fn(&Reply) -> T) -> bool {
    match (a, b) {
        (Reply::Array(a), Reply::Array(b)) if a.len() == 2 && b.len() == 2 => {
            a[0] == b[0] && normal(&a[1]) == normal(&b[1])
        }
        _ => false,
    }
}

fn same_shape(a: &Reply, b: &Reply) -> bool {
    match (a, b) {
        (Reply::Array(a), Reply::Array(b)) | (Reply::Set(a), Reply::Set(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_shape(a, b))
        }
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

fn near(a: &Reply, b: &Reply, distance: i64) -> bool {
    match (a, b) {
        // Negative numbers are codes, not times.
        (Reply::Integer(a), Reply::Integer(b)) => {
            a == b || (0 <= *a && 0 <= *b && a.abs_diff(*b) <= distance.unsigned_abs())
        }
        (Reply::Array(a), Reply::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b, distance))
        }
        (Reply::Map(a), Reply::Map(b)) => {
            let near = |(a, b): (&(Reply, Reply), &(Reply, Reply))| {
                a.0 == b.0 && near(&a.1, &b.1, distance)
            };
            a.len() == b.len() && a.iter().zip(b).all(near)
        }
        _ => a == b,
    }
}

fn sorted_deeply(reply: &Reply) -> Reply {
    let all = |items: &[Reply]| {
        let mut items: Vec<Reply> = items.iter().map(sorted_deeply).collect();
        items.sort();
        items
    };
    match reply {
        Reply::Array(items) => Reply::Array(all(items)),
        Reply::Set(items) => Reply::Set(all(items)),
        Reply::Map(pairs) => {
            let pair = |(key, value): &(Reply, Reply)| (sorted_deeply(key), sorted_deeply(value));
            let mut pairs: Vec<_> = pairs.iter().map(pair).collect();
            pairs.sort();
            Reply::Map(pairs)
        }
        other => other.clone(),
    }
}

/// What has ended, in order, and how many were left each time.
fn farewells(reply: &Reply) -> (Vec<Reply>, Vec<Reply>) {
    let messages: Vec<&[Reply]> = match reply {
        Reply::Array(messages) => messages.iter().filter_map(message).collect(),
        _ => Vec::new(),
    };
    let mut ended: Vec<Reply> =
        messages.iter().map(|parts| Reply::Array(parts[..2].to_vec())).collect();
    ended.sort();
    (ended, messages.iter().map(|parts| parts[2].clone()).collect())
}

fn message(reply: &Reply) -> Option<&[Reply]> {
    match reply {
        Reply::Array(parts) | Reply::Push(parts) if parts.len() == 3 => Some(parts),
        _ => None,
    }
}

/// How far apart times may lie, in milliseconds.
const TIME_PASSED: u64 = 100_000;

fn timed(a: &Reply, b: &Reply) -> bool {
    match (a, b) {
        // A time of the clock, in milliseconds.
        (Reply::Integer(a), Reply::Integer(b)) => {
            a == b || (1_000_000_000_000 < *a.min(b) && a.abs_diff(*b) < TIME_PASSED)
        }
        (Reply::Array(a), Reply::Array(b)) if a.len() == b.len() => {
            let pending = matches!(
                a[..],
                [Reply::Bulk(_), Reply::Bulk(_), Reply::Integer(_), Reply::Integer(_)]
            );
            (0..a.len()).all(|at| {
                let idle = (pending && at == 2) || (0 < at && names_idle_time(&a[at - 1]));
                is_looked_over(at.checked_sub(1).map(|at| &a[at]))
                    || (idle && is_near(&a[at], &b[at]))
                    || timed(&a[at], &b[at])
            })
        }
        (Reply::Map(a), Reply::Map(b)) if a.len() == b.len() => {
            a.iter().zip(b).all(|((name, a), (other, b))| {
                name == other
                    && (is_looked_over(Some(name))
                        || (names_idle_time(name) && is_near(a, b))
                        || timed(a, b))
            })
        }
        _ => a == b,
    }
}

fn names_idle_time(name: &Reply) -> bool {
    matches!(name, Reply::Bulk(name) if name == b"idle" || name == b"inactive")
}

/// How a stream is built inside is nobody's business.
fn is_looked_over(name: Option<&Reply>) -> bool {
    matches!(name, Some(Reply::Bulk(name)) if name.starts_with(b"radix-tree-"))
}

fn is_near(a: &Reply, b: &Reply) -> bool {
    match (a, b) {
        (Reply::Integer(a), Reply::Integer(b)) => a.abs_diff(*b) < TIME_PASSED,
        _ => false,
    }
}

/// Payloads whose bytes rightly differ: a hash table's elements come in no certain order, times are in
/// those of hashes whose fields expire and of streams with consumers, and strings may be compressed in
/// more than one way. What the others hold is read and compared.
fn are_alike_as_payloads(a: &Reply, b: &Reply) -> bool {
    /// The version of the format, which depends on what the oldest server is that should read it, and
    /// the checksum.
    const FOOTER: usize = 10;
    let (Reply::Bulk(a), Reply::Bulk(b)) = (a, b) else { return false };
    let (Some(a), Some(b)) = (a.split_last_chunk::<FOOTER>(), b.split_last_chunk::<FOOTER>())
    else {
        return false;
    };
    let (a, b) = (a.0, b.0);
    if a == b {
        return true;
    }
    match (a.first(), b.first()) {
        // Removed entries stay in a node or do not.
        (Some(21), Some(21)) => true,
        (Some(24), Some(24)) | (Some(25), Some(25)) => true,
        (Some(one), Some(other)) if one == other => {
            let a = payload::contents(*one, &a[1..]);
            a.is_some() && a == payload::contents(*one, &b[1..])
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &str) -> Reply {
        Reply::parse(bytes.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn order_counts_only_where_it_is_promised() {
        let (a, b) = (read("*2\r\n:1\r\n:2\r\n"), read("*2\r\n:2\r\n:1\r\n"));
        assert!(!agree(Rule::Exact, &a, &b));
        assert!(agree(Rule::Unordered, &a, &b));
        assert!(!agree(Rule::Pairs, &a, &b));
        assert!(agree(Rule::Shape, &a, &b));
    }

    #[test]
    fn sorting_overlooks_what_is_left_to_chance() {
        let read = |words: &[&str]| {
            Reply::Array(words.iter().map(|word| Reply::Bulk(word.as_bytes().to_vec())).collect())
        };
        assert!(agree(Rule::Sort, &read(&["", "\0b", "c"]), &read(&["\0b", "", "c"])));
        assert!(!agree(Rule::Sort, &read(&["a", "b"]), &read(&["b", "a"])));
        assert!(!agree(Rule::Sort, &read(&["a"]), &Reply::Error(b"ERR syntax error".to_vec())));
    }

    #[test]
    fn each_element_has_its_own_rule() {
        let terms = Terms::Each(vec![Rule::Exact.into(), Rule::Unordered.into()]);
        let a = read("*3\r\n:1\r\n*2\r\n:1\r\n:2\r\n+x\r\n");
        let b = read("*3\r\n:1\r\n*2\r\n:2\r\n:1\r\n+x\r\n");
        assert!(terms.agree(&a, &b));
        let swapped = Terms::Each(vec![Rule::Unordered.into(), Rule::Exact.into()]);
        assert!(!swapped.agree(&a, &b));
        assert!(!terms.agree(&a, &read("*-1\r\n")));
    }

    #[test]
    fn idle_times_may_lie_apart_and_counts_not() {
        let pending = |idle: i64, count: i64| {
            Reply::Array(vec![
                Reply::Bulk(b"1-1".to_vec()),
                Reply::Bulk(b"c".to_vec()),
                Reply::Integer(idle),
                Reply::Integer(count),
            ])
        };
        assert!(agree(Rule::Timed, &pending(5, 1), &pending(9, 1)));
        assert!(!agree(Rule::Timed, &pending(5, 1), &pending(5, 2)));
    }

    #[test]
    fn near_forgives_time_but_not_codes() {
        let read = |number: i64| Reply::Integer(number);
        assert!(agree(Rule::Near(2), &read(100), &read(99)));
        assert!(!agree(Rule::Near(2), &read(0), &read(-1)));
        assert!(!agree(Rule::Near(2), &read(-1), &read(-2)));
    }
}
