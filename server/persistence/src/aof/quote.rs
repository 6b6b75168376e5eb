//! Words of a line of the manifest: quoting names with unusual bytes, and splitting lines again.
//!
//! The rules are those of redis.conf and of inline requests, which other readers of a manifest use, too.

pub(super) use carnelian_resp::words_of as split;

/// The name as it stands in a line: bare, or in double quotes if it needs them.
pub(super) fn quoted(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'\'');
    if name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut out = vec![b'"'];
    for &byte in name {
        match byte {
            b'\\' | b'"' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            b'\x07' => out.extend(b"\\a"),
            b'\x08' => out.extend(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_quoted_only_where_needed() {
        assert_eq!(quoted(b"appendonly.aof.1.incr.aof"), b"appendonly.aof.1.incr.aof");
        assert_eq!(quoted(b"a b"), b"\"a b\"");
        assert_eq!(quoted(b"\"\\\n\xff"), br#""\"\\\n\xff""#);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        assert_eq!(split(b"file \"a"), None);
        assert_eq!(split(b"file 'a'b"), None);
        assert_eq!(split(b"'a\\'b' c"), Some(vec![b"a'b".to_vec(), b"c".to_vec()]));
    }

    proptest! {
        #[test]
        fn what_is_quoted_splits_back(name in proptest::collection::vec(1u8.., 1..40)) {
            prop_assert_eq!(split(&quoted(&name)), Some(vec![name]));
        }
    }
}
