//! Which differences between two replies count.

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
    /// So may those that are times of these days, but no others.
    Timed,
}

/// Whether `a` and `b` say the same when servers of different generations may word things their way:
/// one error is as good as another, and a number is its value, not its digits.
pub fn agree_loosely(rule: Rule, a: &Reply, b: &Reply) -> bool {
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
pub fn agree(rule: Rule, a: &Reply, b: &Reply) -> bool {
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
        Rule::Exact | Rule::Sort => false,
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
        Rule::Timed => is_same_but_times(a, b),
    }
}

/// Whether only one server refused to sort: Redis does so, whatever the numbers, for an `errno` that
/// an earlier command left behind. What is stored differs from there on.
pub fn is_left_to_chance(rule: Rule, a: &Reply, b: &Reply) -> bool {
    const REFUSAL: &[u8] = b"ERR One or more scores can't be converted into double";
    let refuses = |reply: &Reply| matches!(reply, Reply::Error(text) if text == REFUSAL);
    rule == Rule::Sort && refuses(a) != refuses(b) && a.is_error() != b.is_error()
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

fn is_same_but_times(a: &Reply, b: &Reply) -> bool {
    const THESE_DAYS_MS: i64 = 1_600_000_000_000;
    let all = |a: &[Reply], b: &[Reply]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same_but_times(a, b))
    };
    match (a, b) {
        (Reply::Integer(a), Reply::Integer(b)) => {
            a == b || (THESE_DAYS_MS < *a.min(b) && a.abs_diff(*b) < 100_000)
        }
        (Reply::Array(a), Reply::Array(b)) => all(a, b),
        (Reply::Map(a), Reply::Map(b)) => {
            let is_same = |(a, b): (&(Reply, Reply), &(Reply, Reply))| {
                a.0 == b.0 && is_same_but_times(&a.1, &b.1)
            };
            a.len() == b.len() && a.iter().zip(b).all(is_same)
        }
        _ => a == b,
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
    fn near_forgives_time_but_not_codes() {
        let read = |number: i64| Reply::Integer(number);
        assert!(agree(Rule::Near(2), &read(100), &read(99)));
        assert!(!agree(Rule::Near(2), &read(0), &read(-1)));
        assert!(!agree(Rule::Near(2), &read(-1), &read(-2)));
    }
}
