//! Local time for the log, from the system's zone files: the standard library knows only UTC, and
//! asking libc would take unsafe code.
//!
//! A zone is a TZif file (RFC 9636): a list of moments at which the offset changed, and a rule in the
//! form of POSIX's `TZ` variable for all the time after the last of them. A zone that cannot be read is UTC.

use std::sync::OnceLock;

/// Seconds to add to UTC for local time at `now_ms`.
pub fn offset_s(now_ms: u64) -> i64 {
    static ZONE: OnceLock<Zone> = OnceLock::new();
    ZONE.get_or_init(Zone::of_this_machine).offset_s((now_ms / 1000) as i64)
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    // Years are taken to begin in March: the leap day is then the last of its year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = i64::from(if month <= 2 { month + 9 } else { month - 3 });
    let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[derive(Debug, Default, PartialEq)]
struct Zone {
    /// From when (seconds since 1970) which offset holds, ascending.
    changes: Vec<(i64, i64)>,
    /// The offset before the first change.
    first: i64,
    /// What holds after the last change.
    rule: Option<Rule>,
}

#[derive(Debug, PartialEq)]
struct Rule {
    standard_s: i64,
    summer: Option<Summer>,
}

#[derive(Debug, PartialEq)]
struct Summer {
    offset_s: i64,
    start: Turn,
    end: Turn,
}

/// A day of the year and the local second of it at which the clocks are put forward or back.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Turn {
    day: Day,
    second: i64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Day {
    /// `Mm.w.d`: weekday `d` of week `w` (5: the last) of month `m`.
    Weekday { month: u32, week: u32, weekday: u32 },
    /// `Jn`: day 1 to 365; 29 February does not count.
    Julian(u32),
    /// `n`: day 0 to 365; 29 February counts.
    Zero(u32),
}

impl Zone {
    fn of_this_machine() -> Self {
        let named = std::env::var("TZ").ok();
        let name = named.as_deref().map(|name| name.strip_prefix(':').unwrap_or(name));
        let path = match name {
            None => "/etc/localtime".into(),
            Some("") => return Self::default(),
            Some(name) if name.starts_with('/') => name.to_owned(),
            Some(name) => format!("/usr/share/zoneinfo/{name}"),
        };
        if let Ok(file) = std::fs::read(path) {
            return Self::parse(&file).unwrap_or_default();
        }
        let rule = name.and_then(|text| Rule::parse(text.as_bytes()));
        Self { rule, ..Self::default() }
    }

    fn parse(file: &[u8]) -> Option<Self> {
        let first = Counts::parse(file)?;
        if first.version == 0 {
            return Self::parse_block(file.get(44..)?, &first, 4).map(|(zone, _)| zone);
        }
        // The first block repeats the second for readers of 32-bit times.
        let second = file.get(44 + first.size(4)..)?;
        let counts = Counts::parse(second)?;
        let (mut zone, rest) = Self::parse_block(second.get(44..)?, &counts, 8)?;
        let footer = rest.strip_prefix(b"\n")?;
        let end = footer.iter().position(|byte| *byte == b'\n')?;
        zone.rule = Rule::parse(&footer[..end]);
        Some(zone)
    }

    fn parse_block<'a>(
        block: &'a [u8],
        counts: &Counts,
        time_size: usize,
    ) -> Option<(Self, &'a [u8])> {
        let (times, rest) = block.split_at_checked(counts.times * time_size)?;
        let (kinds, rest) = rest.split_at_checked(counts.times)?;
        let (types, _) = rest.split_at_checked(counts.types * 6)?;
        let offset = |kind: usize| {
            let bytes = types.get(kind * 6..kind * 6 + 4)?;
            Some(i64::from(i32::from_be_bytes(bytes.try_into().ok()?)))
        };
        let mut changes = Vec::with_capacity(counts.times);
        for (time, kind) in times.chunks_exact(time_size).zip(kinds) {
            let at = match time_size {
                8 => i64::from_be_bytes(time.try_into().ok()?),
                _ => i64::from(i32::from_be_bytes(time.try_into().ok()?)),
            };
            changes.push((at, offset(usize::from(*kind))?));
        }
        let zone = Self { changes, first: offset(0)?, rule: None };
        Some((zone, block.get(counts.size(time_size)..)?))
    }

    fn offset_s(&self, now_s: i64) -> i64 {
        let after = self.changes.partition_point(|(at, _)| *at <= now_s);
        match &self.rule {
            Some(rule) if after == self.changes.len() => rule.offset_s(now_s),
            _ if after == 0 => self.first,
            _ => self.changes[after - 1].1,
        }
    }
}

struct Counts {
    version: u8,
    utc: usize,
    standard: usize,
    leaps: usize,
    times: usize,
    types: usize,
    characters: usize,
}

impl Counts {
    fn parse(header: &[u8]) -> Option<Self> {
        let header = header.get(..44)?.strip_prefix(b"TZif")?;
        let count = |i: usize| {
            let bytes = header[16 + 4 * i..20 + 4 * i].try_into().ok()?;
            // No zone has this many of anything: what is larger is not a zone file.
            usize::try_from(u32::from_be_bytes(bytes)).ok().filter(|count| *count < 1 << 20)
        };
        Some(Self {
            version: header[0],
            utc: count(0)?,
            standard: count(1)?,
            leaps: count(2)?,
            times: count(3)?,
            types: count(4)?,
            characters: count(5)?,
        })
    }

    fn size(&self, time_size: usize) -> usize {
        self.times * (time_size + 1)
            + self.types * 6
            + self.characters
            + self.leaps * (time_size + 4)
            + self.standard
            + self.utc
    }
}

impl Rule {
    /// Parses POSIX's form, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut reader = Reader { text };
        reader.name()?;
        let standard_s = -reader.time()?;
        if reader.text.is_empty() {
            return Some(Self { standard_s, summer: None });
        }
        reader.name()?;
        let offset_s = match reader.text.first() {
            Some(b',') => standard_s + 3600,
            _ => -reader.time()?,
        };
        let start = reader.turn()?;
        let end = reader.turn()?;
        Some(Self { standard_s, summer: Some(Summer { offset_s, start, end }) })
    }

    fn offset_s(&self, now_s: i64) -> i64 {
        let Some(summer) = &self.summer else { return self.standard_s };
        let (year, ..) = civil_from_days((now_s + self.standard_s).div_euclid(86_400));
        let start = summer.start.in_year(year) - self.standard_s;
        let end = summer.end.in_year(year) - summer.offset_s;
        let is_summer = match start < end {
            true => start <= now_s && now_s < end,
            // South of the equator: summer lies around the turn of the year.
            false => now_s < end || start <= now_s,
        };
        if is_summer { summer.offset_s } else { self.standard_s }
    }
}

impl Turn {
    /// Local seconds since 1970.
    fn in_year(self, year: i64) -> i64 {
        let first = days_from_civil(year, 1, 1);
        let is_leap = days_from_civil(year + 1, 1, 1) - first == 366;
        let day = match self.day {
            Day::Zero(day) => first + i64::from(day),
            Day::Julian(day) => first + i64::from(day) - 1 + i64::from(is_leap && 60 <= day),
            Day::Weekday { month, week, weekday } => {
                let first = days_from_civil(year, month, 1);
                let next = match month {
                    12 => days_from_civil(year + 1, 1, 1),
                    _ => days_from_civil(year, month + 1, 1),
                };
                // 1970-01-01 was a Thursday, weekday 4.
                let skip = (i64::from(weekday) - (first + 4)).rem_euclid(7);
                let day = first + skip + 7 * (i64::from(week) - 1);
                if next <= day { day - 7 } else { day }
            }
        };
        day * 86_400 + self.second
    }
}

struct Reader<'a> {
    text: &'a [u8],
}

impl Reader<'_> {
    /// Skips the name of a zone: letters, or anything in `<>`.
    fn name(&mut self) -> Option<()> {
        let end = match self.text.first()? {
            b'<' => self.text.iter().position(|byte| *byte == b'>')? + 1,
            _ => self
                .text
                .iter()
                .position(|byte| !byte.is_ascii_alphabetic())
                .unwrap_or(self.text.len()),
        };
        self.text = &self.text[end..];
        (0 < end).then_some(())
    }

    fn skip(&mut self, byte: u8) -> bool {
        let found = self.text.first() == Some(&byte);
        self.text = &self.text[usize::from(found)..];
        found
    }

    fn number(&mut self) -> Option<u32> {
        let end =
            self.text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.text.len());
        let digits = std::str::from_utf8(&self.text[..end]).ok()?;
        self.text = &self.text[end..];
        digits.parse().ok().filter(|number| *number < 1000)
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    fn time(&mut self) -> Option<i64> {
        let negative = self.skip(b'-');
        if !negative {
            self.skip(b'+');
        }
        let mut seconds = 3600 * i64::from(self.number()?);
        if self.skip(b':') {
            seconds += 60 * i64::from(self.number()?);
            if self.skip(b':') {
                seconds += i64::from(self.number()?);
            }
        }
        Some(if negative { -seconds } else { seconds })
    }

    fn turn(&mut self) -> Option<Turn> {
        if !self.skip(b',') {
            return None;
        }
        let day = if self.skip(b'M') {
            let month = self.number().filter(|month| (1..=12).contains(month))?;
            let week = self.skip(b'.').then(|| self.number()).flatten()?;
            let weekday = self.skip(b'.').then(|| self.number()).flatten()?;
            Day::Weekday { month, week, weekday }
        } else if self.skip(b'J') {
            Day::Julian(self.number()?)
        } else {
            Day::Zero(self.number()?)
        };
        let second = if self.skip(b'/') { self.time()? } else { 2 * 3600 };
        Some(Turn { day, second })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_days_agree() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(11_016), (2000, 2, 29));
        assert_eq!(civil_from_days(-1), (1969, 12, 31));
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn a_rule_knows_summer_on_both_halves_of_the_globe() {
        let berlin = Rule::parse(b"CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        assert_eq!(berlin.offset_s(1_795_286_542), 3600); // November 2026
        assert_eq!(berlin.offset_s(1_782_000_000), 7200); // June 2026
        assert_eq!(berlin.offset_s(1_774_745_999), 3600); // 29 March 2026 00:59:59 UTC
        assert_eq!(berlin.offset_s(1_774_746_000), 7200);
        assert_eq!(berlin.offset_s(1_792_889_999), 7200); // 25 October 2026 00:59:59 UTC
        assert_eq!(berlin.offset_s(1_792_890_000), 3600);
        let sydney = Rule::parse(b"AEST-10AEDT,M10.1.0,M4.1.0/3").unwrap();
        assert_eq!(sydney.offset_s(1_795_286_542), 39_600);
        assert_eq!(sydney.offset_s(1_782_000_000), 36_000);
        assert_eq!(Rule::parse(b"<+0530>-5:30").unwrap().offset_s(0), 19_800);
    }

    #[test]
    fn a_zone_file_is_read_and_damage_is_not_believed() {
        let mut file = b"TZif2".to_vec();
        file.resize(44, 0);
        file.extend_from_slice(b"TZif2");
        file.resize(44 + 20, 0);
        for count in [0u32, 0, 0, 1, 2, 4] {
            file.extend_from_slice(&count.to_be_bytes());
        }
        file.extend_from_slice(&1000i64.to_be_bytes());
        file.push(1);
        file.extend_from_slice(&[0, 0, 0, 60, 0, 0]);
        file.extend_from_slice(&[0, 0, 0, 120, 0, 0]);
        file.extend_from_slice(b"ABC\0\nABC-1\n");
        let zone = Zone::parse(&file).unwrap();
        assert_eq!(zone.offset_s(999), 60);
        assert_eq!(zone.offset_s(1000), 3600, "the rule holds after the last change");
        let without_rule = Zone { rule: None, ..zone };
        assert_eq!(without_rule.offset_s(1000), 120);
        for end in 0..file.len() {
            assert_eq!(Zone::parse(&file[..end]), None, "cut at {end}");
        }
    }
}
