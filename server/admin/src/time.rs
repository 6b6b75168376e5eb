//! Times as this interface writes them: `YYYY-MM-DDThh:mm:ssZ`, UTC, no fraction.

use std::time::{SystemTime, UNIX_EPOCH};

use carnelian_cluster::state::Time;

const DAY_S: i64 = 86_400;

/// Seconds since 1970 of the system's clock.
pub fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// `2026-11-22T04:13:00Z`
pub fn format(unix_s: i64) -> String {
    Time(u64::try_from(unix_s).unwrap_or(0).saturating_mul(1000)).to_string()
}

/// What [`format`] writes. A fraction of the second is ignored.
pub fn parse(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..=9999).contains(&year)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..=60).contains(&second);
    valid.then(|| days_from_civil(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    });
    let found = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(found)
}

/// Years begin in March, so that the leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_back() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_320_780, "2026-11-22T04:13:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(format(unix_s), text);
            assert_eq!(parse(text), Some(unix_s));
        }
        assert_eq!(parse("2026-11-22T04:13:00.123Z"), Some(1_795_320_780));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let wrong =
            ["", "Z", "T", "2026-11-22", "2026-13-01T00:00:00Z", "2026-1-+1T00:00:00Z", "x-y-zTZ"];
        for text in wrong {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
