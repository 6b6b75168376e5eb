//! Patterns of BY and GET: from an element to a string or to the field of a hash.

use carnelian_keyspace::Db;

/// Where a pattern leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<'w> {
    /// `#`: the element itself.
    Element,
    /// A pattern without a star leads to the same for every element: nowhere.
    Nowhere,
    /// The key made by putting the element in place of the first star.
    Key { before: &'w [u8], after: &'w [u8], field: Option<&'w [u8]> },
}

impl<'w> Lookup<'w> {
    pub(super) fn parse(pattern: &'w [u8]) -> Self {
        if pattern == b"#" {
            return Self::Element;
        }
        let Some(star) = pattern.iter().position(|byte| *byte == b'*') else {
            return Self::Nowhere;
        };
        let (before, after) = (&pattern[..star], &pattern[star + 1..]);
        let arrow = after.windows(2).position(|two| two == b"->");
        match arrow.filter(|arrow| arrow + 2 < after.len()) {
            Some(arrow) => {
                Self::Key { before, after: &after[..arrow], field: Some(&after[arrow + 2..]) }
            }
            None => Self::Key { before, after, field: None },
        }
    }

    /// Shows `with` what the pattern leads to from `element`. `key` is a buffer to build keys in.
    pub(super) fn fetch<R>(
        &self,
        db: &mut Db<'_>,
        element: &[u8],
        key: &mut Vec<u8>,
        with: impl FnOnce(Option<&[u8]>) -> R,
    ) -> R {
        let (before, after, field) = match self {
            Self::Element => return with(Some(element)),
            Self::Nowhere => return with(None),
            Self::Key { before, after, field } => (before, after, field),
        };
        key.clear();
        key.extend_from_slice(before);
        key.extend_from_slice(element);
        key.extend_from_slice(after);
        match field {
            Some(field) => super::elements::field(db, key, field, with),
            // A key of another type counts as missing.
            None => match db.get(key).and_then(|entry| entry.text()) {
                Some(text) => text.with_bytes(|bytes| with(Some(bytes))),
                None => with(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_taken_apart_at_the_star_and_the_arrow() {
        let key = |before: &'static str, after: &'static str, field: Option<&'static str>| {
            let field = field.map(str::as_bytes);
            Lookup::Key { before: before.as_bytes(), after: after.as_bytes(), field }
        };
        assert_eq!(Lookup::parse(b"#"), Lookup::Element);
        assert_eq!(Lookup::parse(b"##"), Lookup::Nowhere);
        assert_eq!(Lookup::parse(b""), Lookup::Nowhere);
        assert_eq!(Lookup::parse(b"w_*"), key("w_", "", None));
        assert_eq!(Lookup::parse(b"*"), key("", "", None));
        assert_eq!(Lookup::parse(b"a*b*c"), key("a", "b*c", None));
        assert_eq!(Lookup::parse(b"h_*->f"), key("h_", "", Some("f")));
        assert_eq!(Lookup::parse(b"h_*x->f->g"), key("h_", "x", Some("f->g")));
        assert_eq!(Lookup::parse(b"h_*->"), key("h_", "->", None));
        assert_eq!(Lookup::parse(b"a->b_*"), key("a->b_", "", None));
    }
}
