//! The text of INFO, taken apart.

use std::collections::BTreeMap;

/// `name:value` lines; headlines are left out.
pub fn fields(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.trim_end().split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// One field as a number; 0 where there is none.
pub fn number(fields: &BTreeMap<String, String>, name: &str) -> f64 {
    fields.get(name).and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// A part of a value such as `keys=3,expires=1`, summed over all fields whose name begins so.
pub fn sum_of_parts(fields: &BTreeMap<String, String>, prefix: &str, part: &str) -> f64 {
    let of_prefix = fields.iter().filter(|(name, _)| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    });
    let values = of_prefix.flat_map(|(_, value)| value.split(','));
    values
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| *name == part)
        .filter_map(|(_, value)| value.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_taken_apart() {
        let text = "# Server\r\nredis_version:8.0.6\r\nused_memory:10\r\n\r\n# Keyspace\r\n\
            db0:keys=3,expires=1,avg_ttl=0\r\ndb11:keys=4,expires=0\r\ndbsize:keys=9\r\n";
        let fields = fields(text);
        assert_eq!(fields["redis_version"], "8.0.6");
        assert_eq!(number(&fields, "used_memory"), 10.0);
        assert_eq!(number(&fields, "nothing"), 0.0);
        assert_eq!(sum_of_parts(&fields, "db", "keys"), 7.0);
        assert_eq!(sum_of_parts(&fields, "db", "expires"), 1.0);
    }
}
