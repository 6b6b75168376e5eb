//! Values made of several parts: save points, output limits, event classes and the like.

use crate::kind::{self, Kind, Reason};
use crate::value::{Lines, Source, Value, utf8};
use crate::words;

/// Save after so many seconds if there were at least so many changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavePoint {
    pub seconds: u64,
    pub changes: u64,
}

impl Value for Vec<SavePoint> {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        if let [b""] = words {
            return Ok(Self::new());
        }
        let (pairs, []) = words.as_chunks::<2>() else {
            return Err("Invalid save parameters".into());
        };
        let number = |word: &[u8], least: u64| {
            let number = kind::loose_integer(word).and_then(|number| u64::try_from(number).ok());
            number.filter(|number| *number >= least).ok_or("Invalid save parameters")
        };
        let point = |[seconds, changes]: &[&[u8]; 2]| {
            Ok(SavePoint { seconds: number(seconds, 1)?, changes: number(changes, 0)? })
        };
        pairs.iter().map(point).collect()
    }

    fn assign(&mut self, kind: &Kind, words: &[&[u8]], source: Source) -> Result<(), Reason> {
        let points = Self::read(kind, words)?;
        if source != Source::LaterLine || matches!(words, [b""]) {
            self.clear();
        }
        self.extend(points);
        Ok(())
    }

    fn shown(&self, kind: &Kind) -> Vec<u8> {
        if self.is_empty() {
            Vec::new()
        } else {
            Value::lines(self, kind, Lines::OverDefaults).join(&b' ')
        }
    }

    fn lines(&self, _: &Kind, which: Lines) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        if self.is_empty() || which == Lines::OverAnything {
            lines.push(b"\"\"".to_vec());
        }
        let line = |point: &SavePoint| format!("{} {}", point.seconds, point.changes).into_bytes();
        lines.extend(self.iter().map(line));
        lines
    }
}

/// How much output one client may leave unread. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Beyond this the client is closed at once.
    pub hard_bytes: u64,
    /// Beyond this for `soft_seconds` without a break it is closed too.
    pub soft_bytes: u64,
    pub soft_seconds: u64,
}

/// `client-output-buffer-limit`: one limit per class of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    pub normal: OutputLimit,
    pub replica: OutputLimit,
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    const DEFAULT: Self = Self {
        normal: OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_seconds: 0 },
        replica: OutputLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_seconds: 60 },
        pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_seconds: 60 },
    };
}

impl Value for OutputLimits {
    fn read(kind: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let mut limits = Self::DEFAULT;
        Value::assign(&mut limits, kind, words, Source::Command)?;
        Ok(limits)
    }

    /// Only the classes that are named change.
    fn assign(&mut self, _: &Kind, words: &[&[u8]], _: Source) -> Result<(), Reason> {
        let (groups, []) = words.as_chunks::<4>() else {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        };
        let mut limits = *self;
        for [class, hard, soft, seconds] in groups {
            let limit = match class.to_ascii_lowercase().as_slice() {
                b"normal" => &mut limits.normal,
                b"slave" | b"replica" => &mut limits.replica,
                b"pubsub" => &mut limits.pubsub,
                _ => {
                    return Err(
                        "Invalid client class specified in buffer limit configuration.".into()
                    );
                }
            };
            *limit = output_limit(hard, soft, seconds).ok_or(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            )?;
        }
        *self = limits;
        Ok(())
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        let show = |name: &str, limit: &OutputLimit| {
            format!("{name} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
        };
        let classes = [
            show("normal", &self.normal),
            show("slave", &self.replica),
            show("pubsub", &self.pubsub),
        ];
        classes.join(" ").into_bytes()
    }

    fn lines(&self, _: &Kind, which: Lines) -> Vec<Vec<u8>> {
        let classes = [
            ("normal", self.normal, Self::DEFAULT.normal),
            ("replica", self.replica, Self::DEFAULT.replica),
            ("pubsub", self.pubsub, Self::DEFAULT.pubsub),
        ];
        let needed = classes
            .iter()
            .filter(|(_, limit, default)| which == Lines::OverAnything || limit != default);
        let line = |(name, limit, _): &(&str, OutputLimit, OutputLimit)| {
            let hard = kind::write_memory(limit.hard_bytes.into());
            let soft = kind::write_memory(limit.soft_bytes.into());
            let seconds = limit.soft_seconds.to_string().into_bytes();
            [name.as_bytes(), &hard, &soft, &seconds].join(&b' ')
        };
        needed.map(line).collect()
    }
}

fn output_limit(hard: &[u8], soft: &[u8], seconds: &[u8]) -> Option<OutputLimit> {
    Some(OutputLimit {
        hard_bytes: kind::memory(hard)?.try_into().ok()?,
        soft_bytes: kind::memory(soft)?.try_into().ok()?,
        soft_seconds: kind::loose_integer(seconds)?.try_into().ok()?,
    })
}

/// `notify-keyspace-events`: the classes of events that are published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceEvents(u16);

impl KeyspaceEvents {
    /// Letters in the order in which they are shown; a letter's place is its bit.
    const LETTERS: &[u8] = b"g$lshzxetdnKEm";
    /// What `A` stands for: the first ten.
    const ALL: u16 = (1 << 10) - 1;

    /// Whether the class with this letter (`K`, `E`, `g`, `$` ...) is on.
    pub fn contains(self, letter: char) -> bool {
        let place = Self::LETTERS.iter().position(|known| char::from(*known) == letter);
        place.is_some_and(|place| self.0 & (1 << place) != 0)
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn letters(self, from: usize) -> impl Iterator<Item = u8> {
        let places = Self::LETTERS.iter().enumerate().skip(from);
        places.filter(move |(place, _)| self.0 & (1 << place) != 0).map(|(_, letter)| *letter)
    }
}

impl Value for KeyspaceEvents {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let mut events = 0;
        for letter in kind::only(words)? {
            events |= match Self::LETTERS.iter().position(|known| known == letter) {
                Some(place) => 1 << place,
                None if *letter == b'A' => Self::ALL,
                None => {
                    return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into());
                }
            };
        }
        Ok(Self(events))
    }

    /// Redis leaves `n` out beside `A`, although it is not part of it.
    fn shown(&self, _: &Kind) -> Vec<u8> {
        if self.0 & Self::ALL != Self::ALL {
            return self.letters(0).collect();
        }
        std::iter::once(b'A').chain(self.letters(11)).collect()
    }

    fn lines(&self, _: &Kind, _: Lines) -> Vec<Vec<u8>> {
        let letters: Vec<u8> = if self.0 & Self::ALL == Self::ALL {
            std::iter::once(b'A').chain(self.letters(10)).collect()
        } else {
            self.letters(0).collect()
        };
        vec![words::quote(&letters)]
    }
}

/// `oom-score-adj-values`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OomScores {
    pub primary: i32,
    pub replica: i32,
    pub child: i32,
}

impl Value for OomScores {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let [primary, replica, child] = words else { return Err(kind::WRONG_COUNT.into()) };
        let score = |word: &[u8]| {
            let number = kind::loose_integer(word).and_then(|number| i32::try_from(number).ok());
            number
                .filter(|number| (-2000..=2000).contains(number))
                .ok_or("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
        };
        Ok(Self { primary: score(primary)?, replica: score(replica)?, child: score(child)? })
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        format!("{} {} {}", self.primary, self.replica, self.child).into_bytes()
    }
}

/// `latency-tracking-info-percentiles`.
impl Value for Vec<f64> {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        if let [b""] = words {
            return Ok(Self::new());
        }
        let percentile = |word: &&[u8]| {
            let number = std::str::from_utf8(word).ok().and_then(|text| text.parse().ok());
            match number.filter(|number: &f64| !number.is_nan()) {
                None => Err("Invalid latency-tracking-info-percentiles parameters".into()),
                Some(number) if !(0.0..=100.0).contains(&number) => Err(
                    "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"
                        .into(),
                ),
                // Six decimals are what is shown and written, so that is what is kept.
                Some(number) => Ok((number * 1e6).round() / 1e6),
            }
        };
        words.iter().map(percentile).collect()
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        let show = |number: &f64| {
            let text = format!("{number:.6}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        self.iter().map(show).collect::<Vec<_>>().join(" ").into_bytes()
    }

    fn lines(&self, kind: &Kind, _: Lines) -> Vec<Vec<u8>> {
        vec![if self.is_empty() { b"\"\"".to_vec() } else { Value::shown(self, kind) }]
    }
}

/// The server a replica follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    pub host: String,
    pub port: u16,
}

impl Value for Option<Primary> {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        // The default.
        if words.is_empty() {
            return Ok(None);
        }
        let [host, port] = words else { return Err(kind::WRONG_COUNT.into()) };
        if host.eq_ignore_ascii_case(b"no") && port.eq_ignore_ascii_case(b"one") {
            return Ok(None);
        }
        let port = kind::loose_integer(port).and_then(|port| port.try_into().ok());
        Ok(Some(Primary { host: utf8(host)?.to_owned(), port: port.ok_or("Invalid master port")? }))
    }

    fn assign(&mut self, kind: &Kind, words: &[&[u8]], _: Source) -> Result<(), Reason> {
        if words.is_empty() {
            return Err(kind::WRONG_COUNT.into());
        }
        *self = Self::read(kind, words)?;
        Ok(())
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        let show = |primary: &Primary| format!("{} {}", primary.host, primary.port);
        self.as_ref().map(show).unwrap_or_default().into_bytes()
    }

    fn lines(&self, _: &Kind, which: Lines) -> Vec<Vec<u8>> {
        match self {
            Some(primary) => {
                let mut line = words::quote_if_needed(primary.host.as_bytes());
                line.extend(format!(" {}", primary.port).bytes());
                vec![line]
            }
            None if which == Lines::OverAnything => vec![b"no one".to_vec()],
            None => Vec::new(),
        }
    }
}

/// `maxmemory-clients`: how much all clients' buffers together may take. 0 bytes is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    Bytes(u64),
    /// Percent of `maxmemory`.
    Percent(u8),
}

impl Value for MemoryLimit {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let word = kind::only(words)?;
        if let Some(bytes) = kind::memory(word) {
            let bytes = u64::try_from(bytes).ok().filter(|bytes| *bytes <= i64::MAX as u64);
            let error = "argument must be between 0 and 9223372036854775807 inclusive";
            return bytes.map(Self::Bytes).ok_or(error.into());
        }
        let percent = word.strip_suffix(b"%").and_then(kind::strict_integer);
        match percent {
            Some(0) => Ok(Self::Bytes(0)),
            Some(number @ 1..=100) => Ok(Self::Percent(number as u8)),
            Some(101..) => Err("percentage argument must be less or equal to 100".into()),
            _ => Err("argument must be a memory or percent value".into()),
        }
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.to_string(),
            Self::Percent(percent) => format!("{percent}%"),
        }
        .into_bytes()
    }

    fn lines(&self, kind: &Kind, _: Lines) -> Vec<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => vec![kind::write_memory((*bytes).into())],
            Self::Percent(_) => vec![Value::shown(self, kind)],
        }
    }
}

/// `shutdown-on-sigint` and `shutdown-on-sigterm`: what SHUTDOWN's options of these names do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownFlags {
    pub save: bool,
    pub nosave: bool,
    pub now: bool,
    pub force: bool,
}

impl ShutdownFlags {
    pub(crate) const WORDS: &[&str] = &["default", "save", "nosave", "now", "force"];
}

impl Value for ShutdownFlags {
    fn read(_: &Kind, words: &[&[u8]]) -> Result<Self, Reason> {
        let refused = || kind::none_of(Self::WORDS.iter().copied());
        let mut flags = Self::default();
        if words.is_empty() {
            return Err(refused());
        }
        for word in words {
            match word.to_ascii_lowercase().as_slice() {
                b"default" => {}
                b"save" => flags.save = true,
                b"nosave" => flags.nosave = true,
                b"now" => flags.now = true,
                b"force" => flags.force = true,
                _ => return Err(refused()),
            }
        }
        if flags.save && flags.nosave {
            return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".into());
        }
        Ok(flags)
    }

    fn shown(&self, _: &Kind) -> Vec<u8> {
        let set = [self.save, self.nosave, self.now, self.force];
        let names = set.iter().zip(&Self::WORDS[1..]).filter(|(set, _)| **set);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        if names.is_empty() { b"default".to_vec() } else { names.join(" ").into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Value>(line: &str) -> Result<T, Reason> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        T::read(&Kind::Bool, &words)
    }

    fn shown<T: Value>(line: &str) -> String {
        let value: T = read(line).unwrap();
        String::from_utf8(value.shown(&Kind::Bool)).unwrap()
    }

    #[test]
    fn save_points_add_up_line_by_line() {
        let mut points: Vec<SavePoint> = read("3600 1").unwrap();
        let mut assign = |words: &[&[u8]], source| {
            Value::assign(&mut points, &Kind::SavePoints, words, source).unwrap();
            String::from_utf8(points.shown(&Kind::SavePoints)).unwrap()
        };
        assert_eq!(assign(&[b"1", b"2"], Source::FirstLine), "1 2");
        assert_eq!(assign(&[b"3", b"4"], Source::LaterLine), "1 2 3 4");
        assert_eq!(assign(&[b""], Source::LaterLine), "");
        assert_eq!(assign(&[b"5", b"6", b"7", b"8"], Source::LaterLine), "5 6 7 8");
        assert_eq!(assign(&[], Source::Command), "");
        for line in ["1", "0 1", "1 -1", "a b", "1 1 "] {
            assert_eq!(read::<Vec<SavePoint>>(line).unwrap_err(), "Invalid save parameters");
        }
    }

    #[test]
    fn output_limits_change_only_the_classes_named() {
        assert_eq!(
            shown::<OutputLimits>("REPLICA 1k 1kb 5 normal 7 8 9"),
            "normal 7 8 9 slave 1000 1024 5 pubsub 33554432 8388608 60"
        );
        for (line, error) in [
            ("normal 1 2", "Wrong number of arguments in buffer limit configuration."),
            ("master 1 2 3", "Invalid client class specified in buffer limit configuration."),
            (
                "normal 1 2 -3",
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ),
        ] {
            assert_eq!(read::<OutputLimits>(line).unwrap_err(), error);
        }
    }

    #[test]
    fn event_classes_are_shown_in_canonical_order() {
        assert_eq!(shown::<KeyspaceEvents>("mEKg$lshzxetd"), "AKEm");
        assert_eq!(shown::<KeyspaceEvents>("nmEKxg"), "gxnKEm");
        assert_eq!(shown::<KeyspaceEvents>("AnK"), "AK");
        let events: KeyspaceEvents = read("AnK").unwrap();
        assert_eq!(events.lines(&Kind::KeyspaceEvents, Lines::OverDefaults), [b"\"AnK\""]);
        assert!(events.contains('z') && events.contains('n') && !events.contains('m'));
        assert!(read::<KeyspaceEvents>("Q").is_err());
    }

    #[test]
    fn percentiles_are_shown_without_trailing_zeros() {
        assert_eq!(shown::<Vec<f64>>("50.10 99.0 0.000001 100"), "50.1 99 0.000001 100");
        assert!(read::<Vec<f64>>("101").unwrap_err().contains("should sit between"));
        assert!(read::<Vec<f64>>("nan").unwrap_err().starts_with("Invalid"));
    }

    #[test]
    fn a_primary_is_a_host_and_a_port() {
        assert_eq!(shown::<Option<Primary>>("host 6379"), "host 6379");
        assert_eq!(read::<Option<Primary>>("NO ONE"), Ok(None));
        assert_eq!(read::<Option<Primary>>("h 99999").unwrap_err(), "Invalid master port");
    }

    #[test]
    fn client_memory_may_be_a_percentage() {
        assert_eq!(read("10%"), Ok(MemoryLimit::Percent(10)));
        assert_eq!(read("1kb"), Ok(MemoryLimit::Bytes(1024)));
        let refused = |word| read::<MemoryLimit>(word).unwrap_err();
        assert_eq!(refused("101%"), "percentage argument must be less or equal to 100");
        assert_eq!(refused("1.5%"), "argument must be a memory or percent value");
        assert!(refused("99999999999999gb").starts_with("argument must be between"));
    }

    #[test]
    fn shutdown_flags_exclude_save_with_nosave() {
        assert_eq!(shown::<ShutdownFlags>("force nosave now"), "nosave now force");
        assert_eq!(shown::<ShutdownFlags>("default"), "default");
        assert!(read::<ShutdownFlags>("save nosave").is_err());
        assert!(ShutdownFlags::read(&Kind::Bool, &[]).is_err());
    }
}
