//! The manifest: which files, in which order, make up the append-only file.
//!
//! One line a file, `file NAME seq N type T`: at most one base (`b`, the data at one moment), then
//! what was written since (`i`, incremental), and files of the past that only wait to be deleted
//! (`h`). Pairs of words that are not known are skipped, as Redis skips them.

use std::fmt;

use super::quote;

/// The longest line, in bytes.
const LINE_BYTES_MAX: usize = 1024;

/// What the names of incremental files end with.
const INCR_SUFFIX: &[u8] = b".incr.aof";

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Base,
    History,
    Incr,
}

impl Kind {
    const fn letter(self) -> char {
        match self {
            Self::Base => 'b',
            Self::History => 'h',
            Self::Incr => 'i',
        }
    }
}

/// In which form a base is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaseFormat {
    /// `aof-use-rdb-preamble yes`
    Rdb,
    /// Commands.
    Aof,
}

/// A file of the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// A name in the folder, never a path.
    pub name: Vec<u8>,
    pub sequence: i64,
    pub kind: Kind,
}

impl Entry {
    /// The name for people.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(b"file ");
        out.extend(quote::quoted(&self.name));
        out.extend(format!(" seq {} type {}\n", self.sequence, self.kind.letter()).bytes());
    }
}

/// The files, and the numbers given so far. Numbers of incremental files only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    base: Option<Entry>,
    history: Vec<Entry>,
    incr: Vec<Entry>,
    base_sequence: i64,
    incr_sequence: i64,
}

impl Manifest {
    pub fn base(&self) -> Option<&Entry> {
        self.base.as_ref()
    }

    pub fn history(&self) -> &[Entry] {
        &self.history
    }

    /// In the order in which they were written.
    pub fn incr(&self) -> &[Entry] {
        &self.incr
    }

    /// Whether there is nothing to load.
    pub fn is_empty(&self) -> bool {
        self.base.is_none() && self.incr.is_empty()
    }

    /// The files that hold data, in the order of loading.
    pub fn live(&self) -> impl Iterator<Item = &Entry> {
        self.base.iter().chain(&self.incr)
    }

    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        if text.is_empty() {
            return Err(ManifestError::whole("Found an empty AOF manifest"));
        }
        let mut manifest = Self::default();
        for (number, line) in Lines(text).enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            // Text ends where C would end it.
            let text = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let Some(text) = text.strip_suffix(b"\n") else {
                return Err(ManifestError::whole("The AOF manifest file contains too long line"));
            };
            let text = text.trim_ascii();
            manifest.read_line(text).map_err(|reason| ManifestError {
                line: Some((number + 1, String::from_utf8_lossy(text).into_owned())),
                reason,
            })?;
        }
        manifest.check_past()?;
        Ok(manifest)
    }

    /// Incremental files become history when a base does, all those up to some number. Anything else is damage
    /// that would have a file left out in silence, and deleted.
    fn check_past(&self) -> Result<(), ManifestError> {
        let (incr, bases): (Vec<_>, Vec<_>) =
            self.history.iter().partition(|entry| entry.name.ends_with(INCR_SUFFIX));
        if self.base.is_some() && bases.is_empty() && !incr.is_empty() {
            return Err(ManifestError::whole(
                "Found a file of the past without the base it followed",
            ));
        }
        let first = self.incr.first().map_or(i64::MAX, |first| first.sequence);
        if incr.iter().any(|entry| first <= entry.sequence) {
            return Err(ManifestError::whole("Found a file of the past after one of the present"));
        }
        Ok(())
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        const INVALID: &str = "Invalid AOF manifest file format";
        let words = quote::split(line).ok_or(INVALID)?;
        if words.len() < 6 || !words.len().is_multiple_of(2) {
            return Err(INVALID);
        }
        let (mut name, mut sequence, mut letter) = (None, 0, None);
        for pair in words.chunks_exact(2) {
            let value = &pair[1];
            if pair[0].eq_ignore_ascii_case(b"file") {
                if name.is_some() {
                    // Two lines have become one.
                    return Err(INVALID);
                }
                if value.iter().any(|byte| matches!(byte, b'/' | b'\\')) {
                    return Err("File can't be a path, just a filename");
                }
                name = Some(value.clone());
            } else if pair[0].eq_ignore_ascii_case(b"seq") {
                sequence = leading_number(value);
            } else if pair[0].eq_ignore_ascii_case(b"type") {
                letter = value.first().copied();
            }
        }
        let (Some(name), Some(letter)) = (name, letter) else { return Err(INVALID) };
        if sequence == 0 || name.is_empty() || name == b"." || name == b".." {
            return Err(INVALID);
        }
        let entry = |kind| Entry { name, sequence, kind };
        match letter {
            b'b' if self.base.is_some() => return Err("Found duplicate base file information"),
            b'b' => {
                self.base_sequence = self.base_sequence.max(sequence);
                self.base = Some(entry(Kind::Base));
            }
            b'h' => {
                let entry = entry(Kind::History);
                self.skip_number_of(&entry);
                self.history.push(entry);
            }
            b'i' if sequence <= self.incr.last().map_or(0, |last| last.sequence) => {
                return Err("Found a non-monotonic sequence number");
            }
            b'i' => {
                self.incr_sequence = self.incr_sequence.max(sequence);
                self.incr.push(entry(Kind::Incr));
            }
            _ => return Err("Unknown AOF file type"),
        }
        Ok(())
    }

    /// Sees to it that no new file gets the name of one that waits to be deleted.
    fn skip_number_of(&mut self, old: &Entry) {
        let used = if old.name.ends_with(INCR_SUFFIX) {
            &mut self.incr_sequence
        } else {
            &mut self.base_sequence
        };
        *used = (*used).max(old.sequence);
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for entry in self.base.iter().chain(&self.history).chain(&self.incr) {
            entry.write(&mut out);
        }
        out
    }

    /// Enters the next incremental file of an append-only file called `stem`.
    pub fn add_incr(&mut self, stem: &str) -> &Entry {
        self.incr_sequence = self.incr_sequence.saturating_add(1);
        self.incr.push(Entry {
            name: format!("{stem}.{}.incr.aof", self.incr_sequence).into_bytes(),
            sequence: self.incr_sequence,
            kind: Kind::Incr,
        });
        self.incr.last().expect("one was just added")
    }

    /// Enters the next base; the one before becomes history.
    pub fn add_base(&mut self, stem: &str, format: BaseFormat) -> &Entry {
        self.base_sequence = self.base_sequence.saturating_add(1);
        let suffix = if format == BaseFormat::Rdb { "rdb" } else { "aof" };
        let name = format!("{stem}.{}.base.{suffix}", self.base_sequence).into_bytes();
        let new = Entry { name, sequence: self.base_sequence, kind: Kind::Base };
        if let Some(old) = self.base.replace(new) {
            self.history.insert(0, Entry { kind: Kind::History, ..old });
        }
        self.base.as_ref().expect("one was just entered")
    }

    /// Enters an old file of a single part as the base, and as the only file.
    pub fn adopt(stem: &str) -> Self {
        let base = Entry { name: stem.as_bytes().to_vec(), sequence: 1, kind: Kind::Base };
        Self { base: Some(base), base_sequence: 1, ..Self::default() }
    }

    /// Makes history of the incremental files with numbers below `first`.
    pub fn retire_incr_before(&mut self, first: i64) {
        let kept = self.incr.iter().position(|entry| first <= entry.sequence);
        let old = self.incr.drain(..kept.unwrap_or(self.incr.len()));
        let old: Vec<_> = old.map(|entry| Entry { kind: Kind::History, ..entry }).collect();
        self.history.splice(0..0, old);
    }

    /// Takes out what waits to be deleted.
    pub fn take_history(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.history)
    }
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ManifestError {
    /// The number and text of the line that is wrong, if it is one.
    pub line: Option<(usize, String)>,
    pub reason: &'static str,
}

impl ManifestError {
    pub(super) const fn whole(reason: &'static str) -> Self {
        Self { line: None, reason }
    }

    /// What Redis writes to its log, line by line.
    pub fn report(&self) -> Vec<String> {
        let mut lines = vec!["\n*** FATAL AOF MANIFEST FILE ERROR ***\n".to_owned()];
        if let Some((number, text)) = &self.line {
            lines.push(format!("Reading the manifest file, at line {number}\n"));
            lines.push(format!(">>> '{text}'\n"));
        }
        lines.push(format!("{}\n", self.reason));
        lines
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)?;
        match &self.line {
            Some((number, text)) => write!(f, " at line {number}: '{text}'"),
            None => Ok(()),
        }
    }
}

/// Lines with their ends; one that is too long comes in parts, of which the first has no end.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let most = &self.0[..self.0.len().min(LINE_BYTES_MAX)];
        let end = most.iter().position(|byte| *byte == b'\n').map_or(most.len(), |at| at + 1);
        let (line, rest) = self.0.split_at(end);
        self.0 = rest;
        (!line.is_empty()).then_some(line)
    }
}

/// As C reads a number: as many digits as there are, else 0.
fn leading_number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0i64, |number, digit| {
        number.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    if is_negative { -number } else { number }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> &'static str {
        Manifest::parse(text.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn a_manifest_of_redis_is_read_and_written_back() {
        let text = "file appendonly.aof.2.base.rdb seq 2 type b\n\
                    file appendonly.aof.1.incr.aof seq 1 type h\n\
                    file appendonly.aof.1.base.rdb seq 1 type h\n\
                    file appendonly.aof.4.incr.aof seq 4 type i\n\
                    file appendonly.aof.5.incr.aof seq 5 type i\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.to_bytes(), text.as_bytes());
        assert_eq!(manifest.live().count(), 3);
    }

    #[test]
    fn comments_and_unknown_pairs_are_skipped() {
        let text = "#a comment\nfile \"a b\" seq 1 type i startoffset 12 endoffset 80\n";
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.incr()[0].name, b"a b");
        assert_eq!(manifest.to_bytes(), b"file \"a b\" seq 1 type i\n");
    }

    #[test]
    fn errors_have_the_words_of_redis() {
        assert_eq!(refused(""), "Found an empty AOF manifest");
        assert_eq!(refused("\n"), "Invalid AOF manifest file format");
        assert_eq!(refused("file a seq 1 type\n"), "Invalid AOF manifest file format");
        assert_eq!(refused("file a seq 0 type b\n"), "Invalid AOF manifest file format");
        assert_eq!(refused("file a seq 1 type b"), "The AOF manifest file contains too long line");
        let long = format!("file {} seq 1 type b\n", "a".repeat(1024));
        assert_eq!(refused(&long), "The AOF manifest file contains too long line");
        assert_eq!(refused("file a/b seq 1 type b\n"), "File can't be a path, just a filename");
        assert_eq!(refused("file a seq 1 type x\n"), "Unknown AOF file type");
        let twice = "file a seq 1 type b\nfile b seq 2 type b\n";
        assert_eq!(refused(twice), "Found duplicate base file information");
        let back = "file a seq 2 type i\nfile b seq 2 type i\n";
        assert_eq!(refused(back), "Found a non-monotonic sequence number");
    }

    #[test]
    fn a_file_that_cannot_be_of_the_past_is_not_taken_for_one() {
        let base = "file a.1.base.rdb seq 1 type b\n";
        let only = "file a.1.incr.aof seq 1 type h\n";
        let alone = "Found a file of the past without the base it followed";
        assert_eq!(refused(&format!("{base}{only}")), alone);
        let next = "file a.2.base.rdb seq 2 type b\nfile a.1.base.rdb seq 1 type h\n";
        assert!(Manifest::parse(format!("{next}{only}").as_bytes()).is_ok());
        let last = "file a.2.incr.aof seq 2 type h\nfile a.1.incr.aof seq 1 type i\n";
        let after = "Found a file of the past after one of the present";
        assert_eq!(refused(&format!("{next}{last}")), after);
    }

    #[test]
    fn an_error_names_its_line() {
        let error = Manifest::parse(b"# x\nfile a  seq 1 type q\n").unwrap_err();
        assert_eq!(error.line, Some((2, "file a  seq 1 type q".into())));
        assert_eq!(error.report()[2], ">>> 'file a  seq 1 type q'\n");
    }

    #[test]
    fn a_rewrite_moves_the_past_to_history() {
        let mut manifest = Manifest::default();
        manifest.add_base("a", BaseFormat::Rdb);
        manifest.add_incr("a");
        let kept = manifest.add_incr("a").sequence;
        manifest.add_base("a", BaseFormat::Aof);
        manifest.retire_incr_before(kept);
        assert_eq!(
            String::from_utf8(manifest.to_bytes()).unwrap(),
            "file a.2.base.aof seq 2 type b\nfile a.1.incr.aof seq 1 type h\n\
             file a.1.base.rdb seq 1 type h\nfile a.2.incr.aof seq 2 type i\n"
        );
    }

    #[test]
    fn no_new_file_gets_the_name_of_an_old_one() {
        let text = b"file a.7.incr.aof seq 7 type h\nfile a.3.base.rdb seq 3 type h\n";
        let mut manifest = Manifest::parse(text).unwrap();
        assert_eq!(manifest.add_incr("a").name, b"a.8.incr.aof");
        assert_eq!(manifest.add_base("a", BaseFormat::Rdb).name, b"a.4.base.rdb");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text: Vec<u8>) {
            let _ = Manifest::parse(&text);
        }

        #[test]
        fn a_manifest_survives_the_round_trip(
            stem in "[^/\\\\\0]{1,40}",
            steps in proptest::collection::vec(0u8..3, 0..20),
        ) {
            let mut manifest = Manifest::default();
            manifest.add_base(&stem, BaseFormat::Rdb);
            for step in steps {
                match step {
                    0 => drop(manifest.add_base(&stem, BaseFormat::Aof).shown()),
                    1 => drop(manifest.add_incr(&stem).shown()),
                    _ => {
                        manifest.add_base(&stem, BaseFormat::Rdb);
                        manifest.retire_incr_before(manifest.incr_sequence);
                    }
                }
            }
            prop_assert_eq!(Manifest::parse(&manifest.to_bytes()).unwrap(), manifest);
        }
    }
}
