//! Numbers as C's `printf("%.14g")` writes them.

use std::io::Write as _;

/// Appends a finite number with this many significant digits at most.
pub(crate) fn write_general(value: f64, precision: usize, out: &mut Vec<u8>) {
    // Within 14 digits an integer's digits are what `%.14g` prints.
    if precision == 14 && value.fract() == 0.0 && value.abs() < 1e14 && value != 0.0 {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        return;
    }
    if value == 0.0 {
        out.extend_from_slice(if value.is_sign_negative() { b"-0" } else { b"0" });
        return;
    }
    let precision = precision.max(1);
    // `d.ddddde-7`: the digits, rounded, and the exponent they have after rounding.
    let text = format!("{:.*e}", precision - 1, value);
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let digits: String = digits.chars().filter(|digit| *digit != '.').collect();
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    out.extend_from_slice(sign.as_bytes());
    if exponent < -4 || precision as i32 <= exponent {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first.as_bytes());
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest.as_bytes());
        }
        let mark = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "e{mark}{:02}", exponent.unsigned_abs());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend_from_slice(digits.as_bytes());
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            out.extend_from_slice(digits.as_bytes());
            out.extend(std::iter::repeat_n(b'0', whole - digits.len()));
        } else {
            out.extend_from_slice(&digits.as_bytes()[..whole]);
            out.push(b'.');
            out.extend_from_slice(&digits.as_bytes()[whole..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_look_as_c_prints_them() {
        let written = |value, precision| {
            let mut out = Vec::new();
            write_general(value, precision, &mut out);
            String::from_utf8(out).expect("digits")
        };
        assert_eq!(written(0.1, 14), "0.1");
        assert_eq!(written(3.0, 14), "3");
        assert_eq!(written(1e14, 14), "1e+14");
        assert_eq!(written(99_999_999_999_999.0, 14), "99999999999999");
        assert_eq!(written(-1.5e-7, 14), "-1.5e-07");
        assert_eq!(written(0.0001, 14), "0.0001");
        assert_eq!(written(2.345_678_901, 3), "2.35");
        assert_eq!(written(123_456.0, 3), "1.23e+05");
        assert_eq!(written(1e300, 14), "1e+300");
        assert_eq!(written(9.999_999, 3), "10");
    }
}
