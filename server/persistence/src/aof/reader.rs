//! Reading one file back: a snapshot at its beginning, if it has one, then commands.
//!
//! A transaction is given out only when its end was seen: one that a crash cut off did not happen.
//! Where a file just ends too early, the offset of the last whole command is reported, so that the
//! rest may be cut off; everything else that is wrong is damage, and is never skipped.

use std::io;

use super::input::Input;
use super::parse::{Found, Span, parse};

/// Takes back what was appended.
pub trait Replay {
    /// Reads the snapshot that begins here, and may read further. Where it ends.
    fn snapshot(&mut self, input: &mut Input) -> Result<u64, String>;

    /// Runs commands, in order. An error ends the loading, and is logged; the number is that of the command.
    fn commands(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)>;

    /// Looks at commands that are not to be run, as the end of their transaction is missing: whether it could
    /// be that one of them is that end, with a damaged name. As for [`Replay::commands`] otherwise.
    fn judge(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)>;

    /// That many bytes more were read. Called from time to time.
    fn progress(&mut self, bytes: u64);
}

/// Commands where they lie.
#[derive(Clone, Copy)]
pub struct Commands<'a> {
    /// They are in here,
    pub bytes: &'a [u8],
    /// with all their words in these places,
    pub words: &'a [Span],
    /// of which there are so many up to the end of each.
    pub ends: &'a [usize],
}

impl<'a> Commands<'a> {
    /// The words of each.
    pub fn iter(self) -> impl Iterator<Item = Vec<&'a [u8]>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let words = &self.words[std::mem::replace(&mut start, end)..end];
            words.iter().map(|word| word.of(self.bytes)).collect()
        })
    }
}

/// Why the reading of a file ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// The file ends within a command or a transaction; `valid` bytes of it are whole.
    Short {
        valid: u64,
        within_transaction: bool,
    },
    /// What is at that offset is nothing that belongs into such a file.
    Damage {
        at: u64,
        reason: String,
    },
    Unreadable(io::Error),
    /// The snapshot at the beginning, which says why.
    Snapshot(String),
    /// The command at that offset.
    Refused {
        at: u64,
        reason: String,
    },
}

/// Commands that are given out at once, but for those of a transaction.
const COMMANDS_MAX: usize = 64;

/// Bytes between two reports of progress.
const BYTES_PER_REPORT: u64 = 256 * 1024;

/// How far is looked for commands behind one that seems to be torn.
const LOOK_AHEAD_BYTES: usize = 16 * 1024 * 1024;

/// So many whole commands after a torn one are not chance: it is not the end that is torn.
const COMMANDS_THAT_PROVE_DAMAGE: usize = 3;

/// What begins a snapshot.
pub(super) const SNAPSHOT_MARK: &[u8] = b"REDIS";

/// Reads a file to its end. `began` is called when a snapshot comes first, before it is read, and
/// after it.
pub fn read(
    input: &mut Input,
    replay: &mut dyn Replay,
    mut began: impl FnMut(Preamble),
) -> Result<(), Stop> {
    input.fill(SNAPSHOT_MARK.len()).map_err(Stop::Unreadable)?;
    if input.buffered().starts_with(SNAPSHOT_MARK) {
        began(Preamble::Begins);
        let end = replay.snapshot(input).map_err(Stop::Snapshot)?;
        input.go_to(end).map_err(Stop::Unreadable)?;
        began(Preamble::Ended);
    }
    let valid = input.offset();
    Reading { input, valid, reported: 0, held: Held::default(), in_transaction: false }.run(replay)
}

/// A snapshot at the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    Begins,
    Ended,
}

struct Reading<'a> {
    input: &'a mut Input,
    /// Up to where the file is whole: behind the last command that was given out.
    valid: u64,
    reported: u64,
    held: Held,
    in_transaction: bool,
}

/// Commands that were found and are still to be given out. Their bytes stay in the buffer.
#[derive(Default)]
struct Held {
    words: Vec<Span>,
    /// Where in the buffer each command begins, and how many words there are up to its end.
    starts: Vec<usize>,
    ends: Vec<usize>,
    /// Bytes up to the last command's end, and all that were looked at.
    whole: usize,
    length: usize,
}

impl Held {
    fn commands<'a>(&'a self, bytes: &'a [u8]) -> Commands<'a> {
        Commands { bytes, words: &self.words, ends: &self.ends }
    }
}

impl Reading<'_> {
    fn run(mut self, replay: &mut dyn Replay) -> Result<(), Stop> {
        loop {
            let from = self.held.length;
            if self.input.buffered().len() == from {
                if !self.in_transaction && from != 0 {
                    self.give(replay)?;
                    continue;
                }
                self.input.fill(from + 1).map_err(Stop::Unreadable)?;
                if self.input.buffered().len() == from {
                    break;
                }
            }
            let known = self.held.words.len();
            let found = parse(&self.input.buffered()[from..], &mut self.held.words);
            match found {
                Found::Command(length) => {
                    for word in &mut self.held.words[known..] {
                        *word = Span { start: word.start + from, end: word.end + from };
                    }
                    self.take(known, length, replay)?;
                }
                Found::Annotation(length) => self.held.length += length,
                other => {
                    self.held.words.truncate(known);
                    if !self.in_transaction && from != 0 {
                        self.give(replay)?;
                        continue;
                    }
                    match other {
                        Found::Part(wanted) => self.read_on(from, wanted, replay)?,
                        Found::Damage(at, reason) => {
                            return Err(self.damage(from + at, reason, replay));
                        }
                        Found::Command(_) | Found::Annotation(_) => {}
                    }
                }
            }
        }
        replay.progress(self.input.offset() - self.reported);
        if self.in_transaction {
            return Err(self.short(replay));
        }
        Ok(())
    }

    /// The file ends too early; but not if that just seems so, as the end of a transaction is damaged.
    fn short(&self, replay: &mut dyn Replay) -> Stop {
        if self.in_transaction
            && let Err((place, reason)) = replay.judge(self.held.commands(self.input.buffered()))
        {
            return self.refusal(place, reason);
        }
        Stop::Short { valid: self.valid, within_transaction: self.in_transaction }
    }

    fn refusal(&self, place: usize, reason: String) -> Stop {
        let start = self.held.starts.get(place).copied().unwrap_or_default();
        Stop::Refused { at: self.input.offset() + start as u64, reason }
    }

    /// Takes in a command whose words are the last ones from `known` on.
    fn take(&mut self, known: usize, length: usize, replay: &mut dyn Replay) -> Result<(), Stop> {
        let start = self.held.length;
        let first = self.held.words[known].of(self.input.buffered());
        let is_begin = is_word(first, b"multi");
        if is_begin || is_word(first, b"exec") {
            self.held.words.truncate(known);
            if is_begin && !self.in_transaction {
                // What came before does not belong to it, and is whole.
                self.give(replay)?;
                self.in_transaction = true;
                self.held.length = length;
                return Ok(());
            }
            // A MULTI within another means nothing, nor does an EXEC without one, as in Redis.
            self.held.length = start + length;
            if !is_begin {
                self.held.whole = self.held.length;
                if std::mem::take(&mut self.in_transaction) {
                    self.give(replay)?;
                }
            }
            return Ok(());
        }
        self.held.starts.push(start);
        self.held.ends.push(self.held.words.len());
        self.held.length = start + length;
        self.held.whole = self.held.length;
        if !self.in_transaction && COMMANDS_MAX <= self.held.ends.len() {
            self.give(replay)?;
        }
        Ok(())
    }

    /// Gives out what is held.
    fn give(&mut self, replay: &mut dyn Replay) -> Result<(), Stop> {
        let held = &self.held;
        if !held.ends.is_empty() {
            let given = replay.commands(held.commands(&self.input.buffered()[..held.whole]));
            given.map_err(|(place, reason)| self.refusal(place, reason))?;
        }
        let held = &mut self.held;
        if held.whole != 0 {
            self.valid = self.input.offset() + held.whole as u64;
        }
        self.input.consume(held.length);
        (held.whole, held.length) = (0, 0);
        held.words.clear();
        held.starts.clear();
        held.ends.clear();
        if BYTES_PER_REPORT <= self.input.offset() - self.reported {
            replay.progress(self.input.offset() - self.reported);
            self.reported = self.input.offset();
        }
        Ok(())
    }

    /// Fetches the rest of a command that begins at `from`, or says that there is none.
    fn read_on(&mut self, from: usize, wanted: usize, replay: &mut dyn Replay) -> Result<(), Stop> {
        let wanted = from.saturating_add(wanted);
        // Not for what cannot be there: a damaged length would have all the rest read at once.
        if self.input.offset().saturating_add(wanted as u64) <= self.input.length() {
            self.input.fill(wanted).map_err(Stop::Unreadable)?;
            if wanted <= self.input.buffered().len() {
                return Ok(());
            }
        }
        self.input.fill(from.saturating_add(LOOK_AHEAD_BYTES)).map_err(Stop::Unreadable)?;
        if self.goes_on_later(from) {
            let reason = "a length beyond the end of the file, but whole commands follow";
            let at = self.input.offset() + from as u64;
            return Err(Stop::Damage { at, reason: reason.into() });
        }
        Err(self.short(replay))
    }

    fn damage(&mut self, at: usize, reason: String, replay: &mut dyn Replay) -> Stop {
        let place = self.input.offset() + at as u64;
        // While what it looks at is in the buffer.
        let short = self.short(replay);
        // A power cut may leave a file long enough, but with zeros where nothing had been written.
        let mut at = at;
        loop {
            if self.input.buffered()[at..].iter().any(|byte| *byte != 0) {
                return Stop::Damage { at: place, reason };
            }
            self.input.consume(self.input.buffered().len());
            at = 0;
            if let Err(error) = self.input.fill(1) {
                return Stop::Unreadable(error);
            }
            if self.input.buffered().is_empty() {
                return short;
            }
        }
    }

    /// Whether whole commands begin within what would be the torn command at `from`.
    fn goes_on_later(&self, from: usize) -> bool {
        let rest = &self.input.buffered()[from..];
        memchr::memmem::find_iter(rest, b"\r\n*").any(|at| {
            let mut rest = &rest[at + 2..];
            for _ in 0..COMMANDS_THAT_PROVE_DAMAGE {
                match rest.first().map(|_| parse(rest, &mut Vec::new())) {
                    Some(Found::Command(length)) => rest = &rest[length..],
                    _ => return false,
                }
            }
            true
        })
    }
}

fn is_word(word: &[u8], lowercase: &[u8]) -> bool {
    word.eq_ignore_ascii_case(lowercase)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    /// Notes what it is given.
    #[derive(Default)]
    pub struct Notes {
        pub commands: Vec<String>,
        pub bytes: u64,
        pub refuses: Option<&'static str>,
    }

    impl Replay for Notes {
        fn snapshot(&mut self, input: &mut Input) -> Result<u64, String> {
            input.fill(9).unwrap();
            input.consume(input.buffered().len().min(20));
            self.commands.push("snapshot".into());
            Ok(9)
        }

        fn commands(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
            for (place, words) in commands.iter().enumerate() {
                let command = String::from_utf8_lossy(&words.join(&b' ')).into_owned();
                if self.refuses == Some(&command) {
                    return Err((place, "refused".into()));
                }
                self.commands.push(command);
            }
            Ok(())
        }

        fn judge(&mut self, commands: Commands<'_>) -> Result<(), (usize, String)> {
            // In these tests a command of one word is one without a key, which does not exist.
            match commands.iter().position(|words| words.len() == 1) {
                Some(place) => Err((place, "unknown".into())),
                None => Ok(()),
            }
        }

        fn progress(&mut self, bytes: u64) {
            self.bytes += bytes;
        }
    }

    pub fn resp(commands: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            out.extend(format!("*{}\r\n", words.len()).bytes());
            for word in words {
                out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
            }
        }
        out
    }

    fn read_bytes(bytes: &[u8]) -> (Notes, Result<(), Stop>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let mut notes = Notes::default();
        let result = read(&mut Input::open(file.path()).unwrap(), &mut notes, |_| {});
        (notes, result)
    }

    #[test]
    fn commands_come_back_in_order() {
        let text = resp(&["SELECT 0", "MULTI", "set a 1", "incr b", "exec", "del a"]);
        let (notes, result) = read_bytes(&text);
        assert!(result.is_ok());
        assert_eq!(notes.commands, ["SELECT 0", "set a 1", "incr b", "del a"]);
        assert_eq!(notes.bytes, text.len() as u64);
    }

    #[test]
    fn a_snapshot_at_the_beginning_is_read_first() {
        let text = [b"REDIS0011".as_slice(), &resp(&["incr b"])].concat();
        assert_eq!(read_bytes(&text).0.commands, ["snapshot", "incr b"]);
    }

    #[test]
    fn annotations_are_skipped() {
        let text = [b"#TS:1\r\n".as_slice(), &resp(&["incr b"]), b"#TS:2\r\n"].concat();
        assert_eq!(read_bytes(&text).0.commands, ["incr b"]);
    }

    #[test]
    fn a_torn_tail_at_any_byte_leaves_the_whole_commands() {
        let first = resp(&["set a 1"]);
        let group = resp(&["MULTI", "set b 2", "set c 3", "EXEC"]);
        let last = resp(&["set d a-longer-value"]);
        let text = [&first[..], &group, &last].concat();
        let ends = [0, first.len(), first.len() + group.len(), text.len()];
        for cut in 0..=text.len() {
            let (notes, result) = read_bytes(&text[..cut]);
            let whole = *ends.iter().rfind(|end| **end <= cut).unwrap();
            match result {
                Ok(()) => assert_eq!(cut, whole),
                Err(Stop::Short { valid, .. }) => assert_eq!(valid, whole as u64, "{cut}"),
                Err(other) => panic!("{cut}: {other:?}"),
            }
            let expected = ends.iter().position(|end| *end == whole).unwrap();
            assert_eq!(notes.commands.len(), [0, 1, 3, 4][expected]);
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_torn_tail_too() {
        let text = resp(&["set a 1"]);
        for keep in [0, 1, 5, 12] {
            let torn = [&text[..], &text[..keep], &[0; 700]].concat();
            let stop = read_bytes(&torn).1.unwrap_err();
            assert!(matches!(stop, Stop::Short { valid: 27, .. }), "{keep}: {stop:?}");
        }
    }

    #[test]
    fn a_damaged_length_in_the_middle_is_no_torn_tail() {
        let text = resp(&["set a 1", "set b 2", "set c 3", "set d 4", "set e 5"]);
        let mut damaged = text;
        let length = 27 + 5;
        assert_eq!(damaged[length], b'3');
        damaged.splice(length..length + 1, *b"999");
        let stop = read_bytes(&damaged).1.unwrap_err();
        assert!(matches!(stop, Stop::Damage { at: 27, .. }), "{stop:?}");
    }

    #[test]
    fn a_refused_command_is_named_with_its_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), resp(&["incr a", "MULTI", "incr b", "EXEC"])).unwrap();
        let mut notes = Notes { refuses: Some("incr b"), ..Notes::default() };
        let stop = read(&mut Input::open(file.path()).unwrap(), &mut notes, |_| {}).unwrap_err();
        let at = resp(&["incr a", "MULTI"]).len() as u64;
        assert!(matches!(stop, Stop::Refused { at: place, .. } if place == at), "{stop:?}");
    }

    #[test]
    fn a_transaction_with_a_damaged_end_is_no_torn_tail() {
        let mut text = resp(&["set a 1", "MULTI", "set b 2", "EXEC", "set c 3"]);
        let at = text.len() - resp(&["set c 3"]).len() - 3;
        assert_eq!(text[at], b'C');
        text[at] ^= 1;
        let exec = (at + 3 - resp(&["EXEC"]).len()) as u64;
        for cut in [text.len(), text.len() - 5] {
            for zeros in [0, 700] {
                let stop = read_bytes(&[&text[..cut], &vec![0; zeros]].concat()).1.unwrap_err();
                assert!(matches!(stop, Stop::Refused { at, .. } if at == exec), "{stop:?}");
            }
        }
    }

    #[test]
    fn words_longer_than_the_buffer_are_read() {
        let long = "x".repeat(3_000_000);
        let text = resp(&["set a 1", &format!("set b {long}"), "set c 1"]);
        let (notes, result) = read_bytes(&text);
        assert!(result.is_ok());
        assert_eq!(notes.commands[1].len(), long.len() + 6);
        assert_eq!(notes.commands[2], "set c 1");
        for cut in [100, 1_000_000, 2_999_999] {
            let stop = read_bytes(&text[..cut]).1.unwrap_err();
            assert!(matches!(stop, Stop::Short { valid: 27, .. }));
        }
    }

    proptest! {
        #[test]
        fn a_flipped_byte_never_panics(at in 0usize..120, byte: u8) {
            let mut text =
                resp(&["set a 1", "MULTI", "set b 2", "EXEC", "set c 3", "rpush l 1 2 3"]);
            let at = at.min(text.len() - 1);
            text[at] = byte;
            let _ = read_bytes(&text);
        }
    }
}
