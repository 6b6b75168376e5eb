//! When a job runs: minute, hour, day of the month, month and day of the week, as crontab has them, in UTC.

use super::time::date;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3600;
const DAY_S: u64 = 86_400;

/// A leap day is at most eight years after the one before.
const DAYS_MAX: u64 = 8 * 366;

const LONGEST: usize = 100;

/// The year 10000.
const LATEST_S: u64 = 253_402_300_800;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// An expression that comes true some time. Each field is a set of bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Where both kinds of day are restricted, either is enough.
    either_day: bool,
}

impl Cron {
    /// None for what is no expression, or never comes true.
    pub fn parse(text: &str) -> Option<Self> {
        if LONGEST < text.len() {
            return None;
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        let weekday_bits = set(weekdays, 0, 7, &WEEKDAYS)?;
        let cron = Self {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            days: set(days, 1, 31, &[])?,
            months: set(months, 1, 12, &MONTHS)?,
            // Sunday is 0 and 7.
            weekdays: weekday_bits & 0x7f | weekday_bits >> 7,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        cron.next(0).map(|_| cron)
    }

    /// The first minute that is not before this second, in seconds since 1970.
    pub fn next(&self, from_s: u64) -> Option<u64> {
        if LATEST_S < from_s {
            return None;
        }
        let from_s = from_s.next_multiple_of(MINUTE_S);
        let (today, in_day_s) = (from_s / DAY_S, from_s % DAY_S);
        for day in today..=today + DAYS_MAX {
            if !self.is_on(day) {
                continue;
            }
            let earliest_s = if day == today { in_day_s } else { 0 };
            for hour in (earliest_s / HOUR_S..24).filter(|hour| has(self.hours, *hour)) {
                let rest_s = earliest_s.saturating_sub(hour * HOUR_S);
                let first = rest_s / MINUTE_S;
                if let Some(minute) = (first..60).find(|minute| has(self.minutes, *minute)) {
                    return Some(day * DAY_S + hour * HOUR_S + minute * MINUTE_S);
                }
            }
        }
        None
    }

    /// Whether it comes true after one moment and not after the other.
    pub fn is_between(&self, after_s: u64, until_s: u64) -> bool {
        self.next(after_s.saturating_add(1)).is_some_and(|at_s| at_s <= until_s)
    }

    fn is_on(&self, day: u64) -> bool {
        let (_, month, of_month) = date(day);
        // 1970 began with a Thursday.
        let by_month = has(self.days, of_month);
        let by_week = has(self.weekdays, (day + 4) % 7);
        has(self.months, month)
            && if self.either_day { by_month || by_week } else { by_month && by_week }
    }
}

fn has(bits: u64, place: u64) -> bool {
    bits >> place & 1 == 1
}

/// `*`, `5`, `1-5`, `*/10`, `1-30/2`, names, and several of these behind commas.
fn set(field: &str, least: u64, most: u64, names: &[&str]) -> Option<u64> {
    let mut bits = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, number(step)?),
            None => (part, 1),
        };
        let value = |text: &str| {
            let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
            let value = match named {
                Some(place) => place as u64 + least,
                None => number(text)?,
            };
            (least..=most).contains(&value).then_some(value)
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((first, last)) => (value(first)?, value(last)?),
            // A step without an end goes on to the last.
            None if part.contains('/') => (value(range)?, most),
            None => (value(range)?, value(range)?),
        };
        if last < first || step == 0 {
            return None;
        }
        let step = usize::try_from(step).ok()?;
        bits |= (first..=last).step_by(step).fold(0, |bits, place| bits | 1 << place);
    }
    Some(bits)
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::Time;
    use super::*;

    /// 2026-11-22T07:47:49Z, a Sunday.
    const NOW_S: u64 = 1_795_333_669;

    fn next(text: &str) -> String {
        let cron = Cron::parse(text).unwrap_or_else(|| panic!("{text}"));
        Time(cron.next(NOW_S).unwrap() * 1000).to_string()
    }

    #[test]
    fn the_next_time_is_found() {
        for (text, at) in [
            ("* * * * *", "2026-11-22T07:48:00Z"),
            ("0 * * * *", "2026-11-22T08:00:00Z"),
            ("*/5 * * * *", "2026-11-22T07:50:00Z"),
            ("47 7 * * *", "2026-11-23T07:47:00Z"),
            ("30 3 * * mon", "2026-11-23T03:30:00Z"),
            ("30 3 * * 7", "2026-11-29T03:30:00Z"),
            ("0 0 1 * *", "2026-12-01T00:00:00Z"),
            ("0 0 1 jan *", "2027-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("15,45 9-17/4 * * 1-5", "2026-11-23T09:15:00Z"),
            // Either kind of day.
            ("0 0 1 * 2", "2026-11-24T00:00:00Z"),
            // Both, as one of them is any.
            ("0 0 */31 * *", "2026-12-01T00:00:00Z"),
            ("10/20 7 * * *", "2026-11-22T07:50:00Z"),
        ] {
            assert_eq!(next(text), at, "{text}");
        }
    }

    #[test]
    fn what_is_none_or_never_comes_is_refused() {
        for text in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "1,,2 * * * *",
            "+5 * * * *",
            "-5 * * * *",
            "0 0 30 feb *",
            "@hourly",
            "99999999999999999999 * * * *",
        ] {
            assert_eq!(Cron::parse(text), None, "{text}");
        }
        assert_eq!(Cron::parse(&format!("{}* * * * *", "0,".repeat(60))), None);
    }

    #[test]
    fn the_end_of_time_is_no_trouble() {
        let cron = Cron::parse("0 * * * *").unwrap();
        assert_eq!(cron.next(u64::MAX), None);
        assert_eq!(cron.next(u64::MAX - 100), None);
        assert!(cron.is_between(0, 3600));
        assert!(!cron.is_between(3600, 7199));
        assert!(!cron.is_between(u64::MAX, u64::MAX));
    }
}
