//! A double as text, digit for digit as Redis prints it.
//!
//! Redis prints with Grisu2 (Florian Loitsch, "Printing Floating-Point Numbers Quickly and
//! Accurately with Integers", 2010), which always reads back as the same number but in about one
//! case of 400 is not the shortest or nearest such text. A shortest-digits routine would differ
//! there, so this is Grisu2, with the scaling powers that Redis's choice rule picks.

/// The longest text has 25 bytes: sign, 17 digits, point, `e-308`; or sign and 24 digits.
pub const TEXT_BYTES_MAX: usize = 32;

/// Appends the text of `value`: `3`, `0.1`, `1e+30`, `inf`, `-inf`, `nan`, `-0`.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    let mut text = [0; TEXT_BYTES_MAX];
    out.extend_from_slice(format_double(value, &mut text));
}

/// The text of `value`, in a buffer of the caller's.
pub fn format_double(value: f64, text: &mut [u8; TEXT_BYTES_MAX]) -> &[u8] {
    if value.is_nan() {
        return b"nan";
    }
    if value.is_infinite() {
        return if value > 0.0 { b"inf" } else { b"-inf" };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { b"-0" } else { b"0" };
    }
    // Whole numbers up to 2^62 are printed exactly, as integers.
    if value.abs() <= (1_i64 << 62) as f64 && value.trunc() == value {
        let mut integer = itoa::Buffer::new();
        let digits = integer.format(value as i64).as_bytes();
        text[..digits.len()].copy_from_slice(digits);
        return &text[..digits.len()];
    }
    let mut layout = Layout { text, len: 0 };
    if value < 0.0 {
        layout.put(b"-");
    }
    let digits = Digits::of(value);
    layout.number(&digits.digits[..digits.count], digits.power);
    let len = layout.len;
    &text[..len]
}

struct Layout<'a> {
    text: &'a mut [u8; TEXT_BYTES_MAX],
    len: usize,
}

impl Layout<'_> {
    /// Lays out digits x 10^power: plainly while that stays readable, else in powers of ten.
    fn number(&mut self, digits: &[u8], power: i32) {
        let count = digits.len() as i32;
        let exponent = power + count - 1;
        if power >= 0 && exponent < count + 7 {
            self.put(digits);
            self.zeros(power);
        } else if power < 0 && (power > -7 || exponent.abs() < 4) {
            let whole = count + power;
            if whole <= 0 {
                self.put(b"0.");
                self.zeros(-whole);
                self.put(digits);
            } else {
                let (whole, fraction) = digits.split_at(whole as usize);
                self.put(whole);
                self.put(b".");
                self.put(fraction);
            }
        } else {
            self.put(&digits[..1]);
            if count > 1 {
                self.put(b".");
                self.put(&digits[1..]);
            }
            self.put(if exponent < 0 { b"e-" } else { b"e+" });
            self.put(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        self.text[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn zeros(&mut self, count: i32) {
        self.put(&b"0000000000000000"[..count as usize]);
    }
}

/// Decimal digits (as ASCII) and the power of ten they are to be multiplied by.
struct Digits {
    digits: [u8; 20],
    count: usize,
    power: i32,
}

impl Digits {
    /// Grisu2: scale the number and the ends of the interval that reads back as it by a power of
    /// ten that brings them where 64-bit integers can hold them; then produce digits of the upper
    /// end until what is left lies inside the interval, and move the last digit towards the number.
    fn of(value: f64) -> Self {
        const HIDDEN_BIT: u64 = 1 << 52;
        let bits = value.to_bits();
        let fraction = bits & (HIDDEN_BIT - 1);
        let (mantissa, exponent) = match (bits >> 52) & 0x7ff {
            0 => (fraction, -1074),
            biased => (fraction + HIDDEN_BIT, biased as i32 - 1075),
        };
        let shift = mantissa.leading_zeros();
        let exponent = exponent - shift as i32;
        let middle = mantissa << shift;
        let half_step = 1 << (shift - 1);
        let upper = middle + half_step;
        // Below a power of two, numbers are twice as dense.
        let lower = middle - if mantissa == HIDDEN_BIT { half_step / 2 } else { half_step };

        let scale = Power::scaling(exponent);
        let binary_exponent = exponent + scale.exponent + 64;
        let middle = multiply(middle, scale.significand);
        // The products are off by less than one: stay on the safe side.
        let upper = multiply(upper, scale.significand) - 1;
        let lower = multiply(lower, scale.significand) + 1;

        let mut digits = Self { digits: [0; 20], count: 0, power: -scale.decimal };
        digits.generate(upper, upper - lower, upper - middle, -binary_exponent as u32);
        digits
    }

    /// Digits of `upper`, a fixed-point number with `point` binary places (32 to 60).
    fn generate(&mut self, upper: u64, mut width: u64, mut distance: u64, point: u32) {
        let one = 1_u64 << point;
        let mut whole = (upper >> point) as u32;
        let mut fraction = upper & (one - 1);

        let mut left = whole.checked_ilog10().map_or(0, |log| log + 1);
        while left > 0 {
            left -= 1;
            let unit = TENS[left as usize];
            self.push((whole / unit) as u8);
            whole %= unit;
            let rest = (u64::from(whole) << point) + fraction;
            if rest <= width {
                self.power += left as i32;
                self.round(width, rest, u64::from(unit) << point, distance);
                return;
            }
        }
        // Ends before the buffer does: each turn widens the interval tenfold, the rest never grows.
        while self.count < self.digits.len() {
            fraction *= 10;
            width = width.wrapping_mul(10);
            distance = distance.wrapping_mul(10);
            self.power -= 1;
            let digit = (fraction >> point) as u8;
            fraction &= one - 1;
            if digit != 0 || self.count != 0 {
                self.push(digit);
            }
            if fraction < width {
                self.round(width, fraction, one, distance);
                return;
            }
        }
    }

    fn push(&mut self, digit: u8) {
        self.digits[self.count] = b'0' + digit;
        self.count += 1;
    }

    /// Lowers the last digit while that comes nearer to the number and stays in the interval.
    fn round(&mut self, width: u64, mut rest: u64, unit: u64, distance: u64) {
        while rest < distance
            && width - rest >= unit
            && (rest + unit < distance || distance - rest > rest + unit - distance)
        {
            self.digits[self.count - 1] -= 1;
            rest += unit;
        }
    }
}

const TENS: [u32; 10] =
    [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// The upper half of the product, rounded.
fn multiply(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b) + (1 << 63)) >> 64) as u64
}

/// 10^decimal, as significand x 2^exponent.
struct Power {
    significand: u64,
    exponent: i32,
    decimal: i32,
}

impl Power {
    const FIRST: i32 = -348;
    const STEP: i32 = 8;

    /// The power that leaves a 64-bit number of this exponent with 32 to 60 binary places.
    ///
    /// Often two would do, and the digits may depend on which it is: this starts from the same
    /// estimate as Redis and moves on as it does.
    fn scaling(exponent: i32) -> Self {
        let estimate = (f64::from(-(exponent + 87)) * 0.301_029_995_663_981_14) as i32;
        let mut index = ((estimate - Self::FIRST) / Self::STEP).clamp(0, 86);
        loop {
            let power = Self::at(index);
            let result = exponent + power.exponent + 64;
            if result < -60 && index < 86 {
                index += 1;
            } else if result > -32 && index > 0 {
                index -= 1;
            } else {
                return power;
            }
        }
    }

    fn at(index: i32) -> Self {
        let decimal = Self::FIRST + index * Self::STEP;
        Self {
            significand: SIGNIFICANDS[index as usize],
            // 217706 / 2^16 is the binary logarithm of ten, near enough for this range.
            exponent: ((decimal * 217_706) >> 16) - 63,
            decimal,
        }
    }
}

/// The upper 64 bits, rounded, of every eighth power of ten from 10^-348 to 10^340.
#[rustfmt::skip]
const SIGNIFICANDS: [u64; 87] = [
    0xfa8fd5a0081c0288, 0xbaaee17fa23ebf76, 0x8b16fb203055ac76, 0xcf42894a5dce35ea,
    0x9a6bb0aa55653b2d, 0xe61acf033d1a45df, 0xab70fe17c79ac6ca, 0xff77b1fcbebcdc4f,
    0xbe5691ef416bd60c, 0x8dd01fad907ffc3c, 0xd3515c2831559a83, 0x9d71ac8fada6c9b5,
    0xea9c227723ee8bcb, 0xaecc49914078536d, 0x823c12795db6ce57, 0xc21094364dfb5637,
    0x9096ea6f3848984f, 0xd77485cb25823ac7, 0xa086cfcd97bf97f4, 0xef340a98172aace5,
    0xb23867fb2a35b28e, 0x84c8d4dfd2c63f3b, 0xc5dd44271ad3cdba, 0x936b9fcebb25c996,
    0xdbac6c247d62a584, 0xa3ab66580d5fdaf6, 0xf3e2f893dec3f126, 0xb5b5ada8aaff80b8,
    0x87625f056c7c4a8b, 0xc9bcff6034c13053, 0x964e858c91ba2655, 0xdff9772470297ebd,
    0xa6dfbd9fb8e5b88f, 0xf8a95fcf88747d94, 0xb94470938fa89bcf, 0x8a08f0f8bf0f156b,
    0xcdb02555653131b6, 0x993fe2c6d07b7fac, 0xe45c10c42a2b3b06, 0xaa242499697392d3,
    0xfd87b5f28300ca0e, 0xbce5086492111aeb, 0x8cbccc096f5088cc, 0xd1b71758e219652c,
    0x9c40000000000000, 0xe8d4a51000000000, 0xad78ebc5ac620000, 0x813f3978f8940984,
    0xc097ce7bc90715b3, 0x8f7e32ce7bea5c70, 0xd5d238a4abe98068, 0x9f4f2726179a2245,
    0xed63a231d4c4fb27, 0xb0de65388cc8ada8, 0x83c7088e1aab65db, 0xc45d1df942711d9a,
    0x924d692ca61be758, 0xda01ee641a708dea, 0xa26da3999aef774a, 0xf209787bb47d6b85,
    0xb454e4a179dd1877, 0x865b86925b9bc5c2, 0xc83553c5c8965d3d, 0x952ab45cfa97a0b3,
    0xde469fbd99a05fe3, 0xa59bc234db398c25, 0xf6c69a72a3989f5c, 0xb7dcbf5354e9bece,
    0x88fcf317f22241e2, 0xcc20ce9bd35c78a5, 0x98165af37b2153df, 0xe2a0b5dc971f303a,
    0xa8d9d1535ce3b396, 0xfb9b7cd9a4a7443c, 0xbb764c4ca7a44410, 0x8bab8eefb6409c1a,
    0xd01fef10a657842c, 0x9b10a4e5e9913129, 0xe7109bfba19c0c9d, 0xac2820d9623bf429,
    0x80444b5e7aa7cf85, 0xbf21e44003acdd2d, 0x8e679c2f5e44ff8f, 0xd433179d9c8cb841,
    0x9e19db92b4e31ba9, 0xeb96bf6ebadf77d9, 0xaf87023b9bf0ee6b,
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write_double(value, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn layout_is_that_of_redis() {
        let cases: &[(f64, &str)] = &[
            (0.0, "0"),
            (-0.0, "-0"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (3.0, "3"),
            (-17.0, "-17"),
            (0.1, "0.1"),
            (2.34159, "2.34159"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (123456.789e-8, "0.00123456789"),
            (123456.789e-9, "1.23456789e-4"),
            (1e18, "1000000000000000000"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (4.62e18, "4.62e+18"),
            (4.612345678912e18, "4612345678912000000"),
            (1e19, "1e+19"),
            (1.25e30, "1.25e+30"),
            (-1.25e-300, "-1.25e-300"),
            (9_007_199_254_740_993.0, "9007199254740992"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (1.0 / 3.0, "0.3333333333333333"),
            (-1.0e-2 / 3.0, "-0.0033333333333333335"),
            (-1.0e-3 / 3.0, "-3.333333333333333e-4"),
        ];
        for &(value, expected) in cases {
            assert_eq!(text(value), expected, "{value:e}");
        }
    }

    /// Where Redis's digits are not the nearest or the shortest, as its 8.0.6 printed them.
    #[test]
    fn digits_are_those_of_grisu2() {
        assert_eq!(text(-1039514241563211.8), "-1039514241563211.7");
        assert_eq!(text(-3.1316709716158577e78), "-3.1316709716158578e+78");
    }

    proptest! {
        #[test]
        fn every_text_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = text(value);
            prop_assert!(text.len() <= 25);
            prop_assert_eq!(text.parse::<f64>().expect("a number").to_bits(), bits);
        }

        #[test]
        fn short_decimals_stay_short(cents in 1_i64..1_000_000_000) {
            let value = cents as f64 / 100.0;
            prop_assert_eq!(text(value), value.to_string());
        }
    }
}
