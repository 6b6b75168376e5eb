//! The 80-bit long double in which Redis computes INCRBYFLOAT and HINCRBYFLOAT.
//!
//! Clients see the 64 bits of precision: with an `f64`, `10.5 + 0.1` would print as
//! `10.59999999999999964`. Parsing, adding and printing are those of Redis on x86-64, bit for bit.

use std::ops::Add;

use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round};

/// Redis parses from, and prints into, a buffer of this size.
const TEXT_BYTES_MAX: usize = 5 * 1024;

/// Digits after the point, before trailing zeros are dropped.
const DIGITS: u32 = 17;

/// A number of the x87: sign, 15 bits of exponent, 64 bits of significand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    pub const ZERO: Self = Self(X87DoubleExtended::ZERO);

    /// Reads a whole text as C's `strtold` does: decimal or hexadecimal, or an infinity.
    /// `None` for anything else, for NaN, and for what is too large or too small to represent.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if TEXT_BYTES_MAX <= text.len() {
            return None;
        }
        let (negative, digits) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let magnitude = match digits {
            [b'0', b'x' | b'X', rest @ ..] => parse_hexadecimal(rest)?,
            [b'i' | b'I', ..] => {
                let infinite =
                    digits.eq_ignore_ascii_case(b"inf") || digits.eq_ignore_ascii_case(b"infinity");
                infinite.then_some(X87DoubleExtended::INFINITY)?
            }
            _ => parse_decimal(digits)?,
        };
        Some(Self(if negative { -magnitude } else { magnitude }))
    }

    #[must_use]
    pub fn from_i64(value: i64) -> Self {
        // 64 bits of significand hold every 64-bit integer.
        Self(X87DoubleExtended::from_i128(i128::from(value)).value)
    }

    /// Neither an infinity nor NaN.
    #[must_use]
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    #[must_use]
    pub fn is_nan(self) -> bool {
        self.0.is_nan()
    }

    /// Appends the number as `%.17Lf` prints it, without trailing zeros.
    pub fn write_to(self, out: &mut Vec<u8>) {
        if self.is_nan() {
            return out.extend_from_slice(b"nan");
        }
        let start = out.len();
        if self.0.is_negative() {
            out.push(b'-');
        }
        if !self.is_finite() {
            return out.extend_from_slice(b"inf");
        }
        let bits = self.0.to_bits();
        let significand = bits as u64;
        let exponent = ((bits >> 64) & 0x7fff) as i32;
        // The value is `significand × 2^power`; subnormals share the exponent of the smallest normals.
        let power = exponent.max(1) - 16_383 - 63;
        if 0 <= power {
            write_integer(significand, power.unsigned_abs(), out);
        } else {
            write_fraction(significand, power.unsigned_abs(), out);
        }
        if out[start..] == *b"-0" {
            out.remove(start);
        }
    }

    /// The number as `write_to` prints it.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        self.write_to(&mut out);
        out
    }
}

impl Add for LongDouble {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self((self.0 + other.0).value)
    }
}

/// `ddd.ddd[e[+-]ddd]`, with at least one digit and any point.
fn parse_decimal(text: &[u8]) -> Option<X87DoubleExtended> {
    let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let nonzero = mantissa_is_nonzero(mantissa, u8::is_ascii_digit)?;
    if let Some((_, exponent)) = exponent.split_first() {
        exponent_value(exponent)?;
    }
    let text = str::from_utf8(text).ok()?;
    let value = X87DoubleExtended::from_str_r(text, Round::NearestTiesToEven).ok()?.value;
    in_range(value, nonzero)
}

/// What follows `0x`: `hhh.hhh[p[+-]ddd]`.
fn parse_hexadecimal(text: &[u8]) -> Option<X87DoubleExtended> {
    let end = text.iter().position(|byte| matches!(byte, b'p' | b'P')).unwrap_or(text.len());
    let (mantissa, exponent) = text.split_at(end);
    let nonzero = mantissa_is_nonzero(mantissa, u8::is_ascii_hexdigit)?;
    let exponent = match exponent.split_first() {
        Some((_, exponent)) => exponent_value(exponent)?,
        None => 0,
    };
    // Written anew because the library demands an exponent, and computes with it unchecked.
    let text = format!("0x{}p{exponent}", str::from_utf8(mantissa).ok()?);
    let value = X87DoubleExtended::from_str_r(&text, Round::NearestTiesToEven).ok()?.value;
    in_range(value, nonzero)
}

/// Whether any digit differs from zero; `None` if this is no sequence of digits with one point.
fn mantissa_is_nonzero(mantissa: &[u8], is_digit: impl Fn(&u8) -> bool) -> Option<bool> {
    let points = mantissa.iter().filter(|&&byte| byte == b'.').count();
    let digits = mantissa.iter().filter(|byte| is_digit(byte)).count();
    if 1 < points || digits == 0 || points + digits != mantissa.len() {
        return None;
    }
    Some(mantissa.iter().any(|&byte| !matches!(byte, b'0' | b'.')))
}

/// A decimal exponent, cut off far outside of what any mantissa of bounded length can balance.
fn exponent_value(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_i32, |value, digit| (10 * value + i32::from(digit - b'0')).min(1_000_000));
    Some(if negative { -value } else { value })
}

/// Refuses what overflowed to infinity or vanished to zero.
fn in_range(value: X87DoubleExtended, nonzero: bool) -> Option<X87DoubleExtended> {
    (value.is_finite() && value.is_zero() != nonzero).then_some(value)
}

/// Writes `significand << power` in decimal.
fn write_integer(significand: u64, power: u32, out: &mut Vec<u8>) {
    if u128::from(significand).leading_zeros() >= power {
        return write_decimal(u128::from(significand) << power, out);
    }
    // Limbs of 32 bits, the lowest first; at most 16384 bits, so 512 of them.
    let mut limbs = vec![0_u32; (power / 32) as usize];
    let mut shifted = u128::from(significand) << (power % 32);
    while shifted != 0 {
        limbs.push(shifted as u32);
        shifted >>= 32;
    }
    // Nine digits at a time, the last ones first.
    let mut groups = Vec::new();
    while !limbs.is_empty() {
        let mut rest = 0_u64;
        for limb in limbs.iter_mut().rev() {
            let value = rest << 32 | u64::from(*limb);
            *limb = (value / 1_000_000_000) as u32;
            rest = value % 1_000_000_000;
        }
        groups.push(rest);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut groups = groups.into_iter().rev();
    write_decimal(u128::from(groups.next().unwrap_or(0)), out);
    for group in groups {
        write_padded(u128::from(group), 9, out);
    }
}

/// Writes `significand / 2^power`, rounded to 17 digits after the point, ties to even.
fn write_fraction(significand: u64, power: u32, out: &mut Vec<u8>) {
    let scale = 10_u128.pow(DIGITS);
    let (mut whole, part) = match power < 64 {
        true => (significand >> power, significand & ((1 << power) - 1)),
        false => (0, significand),
    };
    // Less than 2^64 × 10^17, so less than 2^121.
    let scaled = u128::from(part) * scale;
    let mut digits = 0;
    if power < 128 {
        digits = scaled >> power;
        let rest = scaled & ((1 << power) - 1);
        let half = 1_u128 << (power - 1);
        if half < rest || (rest == half && digits % 2 == 1) {
            digits += 1;
        }
    }
    if digits == scale {
        digits = 0;
        whole += 1; // a fraction at all means `whole` is far from its maximum
    }
    write_decimal(u128::from(whole), out);
    if digits == 0 {
        return;
    }
    out.push(b'.');
    write_padded(digits, DIGITS as usize, out);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

fn write_decimal(value: u128, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_padded(value: u128, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.resize(out.len() + width.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(digits.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> LongDouble {
        LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"))
    }

    fn print(value: LongDouble) -> String {
        String::from_utf8(value.to_bytes()).unwrap()
    }

    #[test]
    fn sums_print_as_people_expect() {
        for (a, b, sum) in [
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("10.6", "-5", "5.6"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("0", "-0.0", "0"),
            ("1", "-1", "0"),
            ("-1e-30", "0", "0"),
            ("0.00000000000000001", "0", "0.00000000000000001"),
            ("17179869184", "1.5", "17179869185.5"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("1e20", "1", "100000000000000000000"),
            ("1e27", "0", "1000000000000000000000000000"),
            ("0x1.8p1", "1", "4"),
            ("inf", "1", "inf"),
            ("-INFINITY", "1", "-inf"),
        ] {
            assert_eq!(print(parse(a) + parse(b)), sum, "{a} + {b}");
        }
    }

    #[test]
    fn what_strtold_would_not_read_whole_is_refused() {
        for text in [
            "",
            " 1",
            "1 ",
            "1x",
            "abc",
            ".",
            "e5",
            "1e",
            "1e+",
            "+-1",
            "0x",
            "0x.",
            "0x1p",
            "nan",
            "-nan",
            "nan(1)",
            "infi",
            "infinityx",
            "1.2.3",
            "1\0",
            "1_0",
            "0x1.g",
            "--1",
            "١",
        ] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["1e5000", "-1e5000", "1e-5000", "1e99999999999", "0x1p99999999999"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "out of range: {text:?}");
        }
        assert_eq!(LongDouble::parse(&[b'1'; 5120]), None);
        for text in ["0e99999999999", "0x0p99999999999", "-0", "1.", ".5", "1E5", "00001"] {
            parse(text);
        }
        parse("1e-4940"); // subnormal
    }

    #[test]
    fn infinities_and_nan_are_told_apart_from_numbers() {
        assert!(!parse("inf").is_finite());
        let nan = parse("inf") + parse("-inf");
        assert!(nan.is_nan() && !nan.is_finite());
        assert_eq!(nan.to_bytes(), b"nan");
        let overflown = parse("1.1e4932") + parse("1.1e4932");
        assert!(!overflown.is_finite() && !overflown.is_nan());
    }

    #[test]
    fn the_largest_number_prints_in_full() {
        let text = print(parse("1e4932"));
        assert_eq!(text.len(), 4933);
        assert!(text.starts_with("10000000000000000000060189"), "{}", &text[..40]);
        assert_eq!(parse(&text), parse("1e4932"));
    }

    #[test]
    fn rounding_is_to_even_on_exact_ties_and_carries() {
        // 2^-18 ends in a 5 as its eighteenth digit: exactly half of the last printed one.
        assert_eq!(print(parse("0x1p-18")), "0.00000381469726562");
        assert_eq!(print(parse("0x3p-18")), "0.00001144409179688");
        assert_eq!(print(parse("0.999999999999999999")), "1");
    }

    proptest! {
        #[test]
        fn every_i64_survives(value: i64) {
            prop_assert_eq!(print(LongDouble::from_i64(value)), value.to_string());
            prop_assert_eq!(parse(&value.to_string()), LongDouble::from_i64(value));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[-+0-9a-fxpein.]{0,24}") {
            if let Some(value) = LongDouble::parse(text.as_bytes()) {
                let _ = value.to_bytes();
            }
        }

        #[test]
        fn up_to_seventeen_digits_print_as_written(whole in 0_u32..64, part in 1_u32..1_000_000) {
            let text = format!("{whole}.{part:06}");
            prop_assert_eq!(print(parse(&text)), text.trim_end_matches('0'));
        }
    }
}
