//! Texts of numbers in arguments: which are accepted, and what they mean, exactly as in Redis.

pub use crate::double::{TEXT_BYTES_MAX, format_double, write_double};

/// A canonical decimal integer: digits, perhaps behind one `-`, and nothing else. No `+`, no
/// leading zeros, no `-0`, no space.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match (digits, negative) {
        (b"0", false) => return Some(0),
        ([b'1'..=b'9', ..], _) if digits.len() <= 19 => {}
        _ => return None,
    }
    // 19 digits stay below 2^64.
    let mut magnitude = 0_u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative { 0_i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

/// A canonical decimal integer from 0 to 2^64 - 1.
#[inline]
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    match text {
        b"0" => Some(0),
        [b'1'..=b'9', ..] => decimal_u64(text),
        _ => None,
    }
}

/// An unsigned integer where Redis is lenient (cursors, stream IDs): what C's `strtoull` takes is
/// taken too. Leading spaces, a sign and leading zeros are allowed, and a negative number of that
/// kind wraps around; a canonical negative number is refused.
pub fn parse_u64_lenient(text: &[u8]) -> Option<u64> {
    if let Some(value) = parse_i64(text) {
        return u64::try_from(value).ok();
    }
    let spaces = text.iter().take_while(|&&byte| is_space(byte)).count();
    let digits = &text[spaces..];
    match digits {
        [b'-', digits @ ..] => decimal_u64(digits).map(u64::wrapping_neg),
        [b'+', digits @ ..] => decimal_u64(digits),
        digits => decimal_u64(digits),
    }
}

fn decimal_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 { None } else { value.checked_mul(10)?.checked_add(u64::from(digit)) }
    })
}

/// What C counts as a space.
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// A floating-point number in any form of C's `strtod`: decimal, hexadecimal (`0x1.8p3`), `inf` or
/// `infinity` in any case. Refused are `nan`, spaces, anything left over, and numbers too large to
/// be finite or too small not to be zero.
pub fn parse_double(text: &[u8]) -> Option<f64> {
    // Most scores are small integers; 15 digits are exact.
    if text.len() <= 15
        && let Some(integer) = parse_i64(text)
    {
        return Some(integer as f64);
    }
    let (negative, unsigned) = match text {
        [b'-', unsigned @ ..] => (true, unsigned),
        [b'+', unsigned @ ..] => (false, unsigned),
        unsigned => (false, unsigned),
    };
    let magnitude = match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => parse_hexadecimal(digits)?,
        [b'0'..=b'9' | b'.', ..] => parse_decimal(unsigned)?,
        word if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") => {
            f64::INFINITY
        }
        _ => return None,
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn parse_decimal(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let underflowed = value == 0.0
        && text
            .iter()
            .take_while(|byte| !matches!(byte, b'e' | b'E'))
            .any(|byte| matches!(byte, b'1'..=b'9'));
    (value.is_finite() && !underflowed).then_some(value)
}

/// `DIGITS[.DIGITS][pEXPONENT]`, rounded to the nearest double, to the even one of two.
fn parse_hexadecimal(text: &[u8]) -> Option<f64> {
    // The value is significand x 2^exponent, with `sticky` for bits lost below it.
    let (mut significand, mut sticky, mut exponent) = (0_u64, false, 0_i64);
    let (mut any, mut after_point) = (false, false);
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if let Some(digit) = char::from(*byte).to_digit(16) {
            any = true;
            if significand >> 60 == 0 {
                significand = significand << 4 | u64::from(digit);
                exponent -= if after_point { 4 } else { 0 };
            } else {
                sticky |= digit != 0;
                exponent += if after_point { 0 } else { 4 };
            }
        } else if *byte == b'.' && !after_point {
            after_point = true;
        } else {
            break;
        }
        rest = tail;
    }
    if !any {
        return None;
    }
    match rest {
        [] => {}
        [b'p' | b'P', rest @ ..] => {
            let (negative, digits) = match rest {
                [b'-', digits @ ..] => (true, digits),
                [b'+', digits @ ..] => (false, digits),
                digits => (false, digits),
            };
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return None;
            }
            // Beyond any text's length times four: no fraction can make up for it.
            let written = decimal_u64(digits).map_or(1 << 60, |value| value.min(1 << 60)) as i64;
            exponent += if negative { -written } else { written };
        }
        _ => return None,
    }
    if significand == 0 {
        return Some(0.0);
    }
    let shift = significand.leading_zeros();
    significand <<= shift;
    // Now 1.xxx x 2^top.
    let top = exponent - i64::from(shift) + 63;
    if !(-1075..=1023).contains(&top) {
        return None;
    }
    // A double keeps 53 bits, fewer below its smallest normal exponent.
    let dropped = if top >= -1022 { 11 } else { (11 + (-1022 - top)) as u32 };
    let (kept, lost, half) = match dropped {
        64 => (0, significand, 1 << 63),
        _ => (significand >> dropped, significand & ((1 << dropped) - 1), 1_u64 << (dropped - 1)),
    };
    let up = lost > half || (lost == half && (sticky || kept & 1 == 1));
    let rounded = kept + u64::from(up);
    // As bits: a mantissa that overflowed carries into the exponent, which is what it should do.
    let bits = if top >= -1022 { (((top + 1022) as u64) << 52) + rounded } else { rounded };
    let value = f64::from_bits(bits);
    (value.is_finite() && value != 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_are_canonical() {
        let accepted: &[(&str, i64)] = &[
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ];
        for &(text, value) in accepted {
            assert_eq!(parse_i64(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "01",
            "-0",
            "-01",
            "00",
            " 1",
            "1 ",
            "1a",
            "1.0",
            "0x1",
            "1e3",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "10000000000000000000",
            "99999999999999999999",
            "1\0",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn unsigned_integers() {
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        for text in ["18446744073709551616", "-1", "+1", "01", "", " 1", "1 "] {
            assert_eq!(parse_u64(text.as_bytes()), None, "{text:?}");
        }
        let lenient: &[(&str, Option<u64>)] = &[
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("007", Some(7)),
            (" \t\x0b+7", Some(7)),
            ("-1", None),
            ("-01", Some(u64::MAX)),
            ("-0", Some(0)),
            ("", None),
            ("+", None),
            ("- 1", None),
            ("1 ", None),
        ];
        for &(text, value) in lenient {
            assert_eq!(parse_u64_lenient(text.as_bytes()), value, "{text:?}");
        }
    }

    /// Each line as `ZADD key TEXT member` of Redis 8.0.6 takes it.
    #[test]
    fn doubles_are_those_of_strtod() {
        let accepted: &[(&str, f64)] = &[
            ("1", 1.0),
            ("+1", 1.0),
            ("01", 1.0),
            ("1.", 1.0),
            ("-.5", -0.5),
            ("1E+5", 1e5),
            ("1e0005", 1e5),
            ("-0", -0.0),
            ("INF", f64::INFINITY),
            ("+Infinity", f64::INFINITY),
            ("-inf", f64::NEG_INFINITY),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("1e-320", 1e-320),
            ("2.5e-324", 5e-324),
            ("0e400", 0.0),
            ("0e-400", 0.0),
            ("1.7976931348623158e308", f64::MAX),
            ("0x10", 16.0),
            ("0X1p4", 16.0),
            ("-0x1.8p1", -3.0),
            ("+0x1", 1.0),
            ("0x.8", 0.5),
            ("0x1.p3", 8.0),
            ("0xA.Bp2", 42.75),
            ("0x1P-5", 0.03125),
            ("0x0p99999999999999999999", 0.0),
            ("0x1p-1074", 5e-324),
            ("0x1.8p-1075", 5e-324),
            ("0x.fffffffffffff8p-1022", f64::MIN_POSITIVE),
            ("0x1.fffffffffffff7p1023", f64::MAX),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000081p0", 1.000_000_000_000_000_2),
            ("0x1.00000000000018p0", 1.000_000_000_000_000_4),
            ("0x00000000000000000000000000000001.00000000000000000000000000000001", 1.0),
            ("0x1000000000000000000000p-84", 1.0),
        ];
        for &(text, value) in accepted {
            let parsed = parse_double(text.as_bytes()).expect(text);
            assert_eq!(parsed.to_bits(), value.to_bits(), "{text}");
        }
        for text in [
            "",
            ".",
            "-",
            "+",
            "--1",
            "+-1",
            "1e",
            "1e+",
            "e5",
            " 1",
            "1 ",
            "\t1",
            "1\0",
            "1_0",
            "1,5",
            "1f",
            "nan",
            "NaN",
            "-nan",
            "nan(1)",
            "infinit",
            "infx",
            "+ inf",
            "1e400",
            "-1e400",
            "1.8e308",
            "1.7976931348623159e308",
            "1e-400",
            "2e-324",
            "1.5.2",
            "1e5.2",
            "0x",
            "0x1p",
            "0x1p+",
            "0xg",
            "0x.p3",
            "0x1p3 ",
            "0x1.2.3",
            "0x1p1024",
            "0x1p-1075",
            "0x1p-1076",
            "0x1.fffffffffffff8p1023",
            "0x1p99999999999999999999",
            "0x1p-99999999999999999999",
            "1e99999999999999999999",
            "0b1",
            "1\u{e9}",
        ] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn integers_agree_with_the_library(value: i64) {
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn any_bytes_are_answered(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = (parse_i64(&text), parse_u64_lenient(&text), parse_double(&text));
            if let Some(value) = parse_u64(&text) {
                prop_assert_eq!(value.to_string().into_bytes(), text);
            }
        }

        #[test]
        fn hexadecimal_is_exact(bits: u64, digits in "[0-9a-fA-F]{1,20}", exponent in -1200..1200) {
            // A double's own bits, written out, must come back.
            let value = f64::from_bits(bits & !(1 << 63));
            prop_assume!(value.is_finite() && value != 0.0);
            let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52) & 0x7ff);
            let text = match biased {
                0 => format!("0x0.{fraction:013x}p-1022"),
                _ => format!("0x1.{fraction:013x}p{}", biased as i64 - 1023),
            };
            prop_assert_eq!(parse_double(text.as_bytes()), Some(value));
            let _ = parse_double(format!("0x{digits}p{exponent}").as_bytes());
        }
    }
}
