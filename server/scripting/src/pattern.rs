//! Lua 5.1's patterns, oddities included.
//!
//! Lua's own matcher backtracks without end and recurses as deep as the pattern is long: a short script
//! could hold the server for years, or end it. Here the host is asked from time to time whether to
//! go on, and the depth is bounded.

use std::ffi::CStr;

/// As many as Lua has.
pub(crate) const CAPTURES_MAX: usize = 32;

/// How many parts of a pattern may be undecided at once. Later versions of Lua have 200.
const DEPTH_MAX: usize = 1000;

/// Steps between two looks at the host.
const STEPS_A_TICK: usize = 1 << 20;

const ESCAPE: u8 = b'%';

/// Why a match is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Malformed(&'static CStr),
    /// The script has been ended.
    Over,
}

/// What a pair of parentheses has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// The second parenthesis is yet to come.
    Open {
        start: usize,
    },
    Position(usize),
    Text {
        start: usize,
        end: usize,
    },
}

/// A text and a pattern. It has nothing to be dropped, so that Lua may jump over it.
pub(crate) struct Matcher<'a> {
    text: &'a [u8],
    pattern: &'a [u8],
    captures: [Capture; CAPTURES_MAX],
    level: usize,
    depth: usize,
    work: Work,
}

/// Steps since the host was last asked.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) steps: usize,
    /// Asks the host; false if the script is to end.
    pub(crate) beat: fn() -> bool,
}

impl Work {
    pub(crate) fn add(&mut self, steps: usize) -> Result<(), Fault> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps < STEPS_A_TICK {
            return Ok(());
        }
        self.steps = 0;
        if (self.beat)() { Ok(()) } else { Err(Fault::Over) }
    }
}

impl<'a> Matcher<'a> {
    pub(crate) fn new(text: &'a [u8], pattern: &'a [u8], work: Work) -> Self {
        let pattern = c_string(pattern);
        let captures = [Capture::Position(0); CAPTURES_MAX];
        Self { text, pattern, captures, level: 0, depth: 0, work }
    }

    /// Whether the pattern begins with `^`; then it is to be matched from its second byte on.
    pub(crate) fn is_anchored(&self) -> bool {
        self.pattern.first() == Some(&b'^')
    }

    /// Where a match ends that begins at `start`, of the pattern from `from` on.
    pub(crate) fn at(&mut self, start: usize, from: usize) -> Result<Option<usize>, Fault> {
        self.level = 0;
        self.depth = 0;
        self.run(start, from)
    }

    /// What the last match has captured.
    pub(crate) fn captures(&self) -> &[Capture] {
        &self.captures[..self.level]
    }

    /// Counts work that is done with the text beside matching.
    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), Fault> {
        self.work.add(steps)
    }

    /// Steps that the host has not been asked for yet.
    pub(crate) fn steps(&self) -> usize {
        self.work.steps
    }

    fn run(&mut self, mut at: usize, mut part: usize) -> Result<Option<usize>, Fault> {
        if self.depth == DEPTH_MAX {
            return Err(Fault::Malformed(c"pattern too complex"));
        }
        self.depth += 1;
        let found = loop {
            self.work.add(1)?;
            let Some(&first) = self.pattern.get(part) else { break Some(at) };
            let second = self.pattern.get(part + 1).copied();
            match (first, second) {
                (b'(', Some(b')')) => break self.open(Capture::Position(at), at, part + 2)?,
                (b'(', _) => break self.open(Capture::Open { start: at }, at, part + 1)?,
                (b')', _) => break self.close(at, part + 1)?,
                (ESCAPE, Some(b'b')) => match self.balanced(at, part + 2)? {
                    Some(end) => (at, part) = (end, part + 4),
                    None => break None,
                },
                (ESCAPE, Some(b'f')) => match self.frontier(at, part + 2)? {
                    Some(next) => part = next,
                    None => break None,
                },
                (ESCAPE, Some(digit @ b'0'..=b'9')) => match self.same_again(at, digit)? {
                    Some(end) => (at, part) = (end, part + 2),
                    None => break None,
                },
                (b'$', None) => break (at == self.text.len()).then_some(at),
                _ => {
                    let end = self.class_end(part)?;
                    let fits = self.fits(at, part, end);
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if fits && let found @ Some(_) = self.run(at + 1, end + 1)? {
                                break found;
                            }
                            part = end + 1;
                        }
                        Some(b'*') => break self.longest(at, part, end)?,
                        Some(b'+') if fits => break self.longest(at + 1, part, end)?,
                        Some(b'+') => break None,
                        Some(b'-') => break self.shortest(at, part, end)?,
                        _ if fits => (at, part) = (at + 1, end),
                        _ => break None,
                    }
                }
            }
        };
        self.depth -= 1;
        Ok(found)
    }

    /// As many of the class as there are, or fewer if the rest wants it.
    fn longest(&mut self, at: usize, part: usize, end: usize) -> Result<Option<usize>, Fault> {
        let mut count = 0;
        while self.fits(at + count, part, end) {
            count += 1;
        }
        self.work.add(count)?;
        for count in (0..=count).rev() {
            if let found @ Some(_) = self.run(at + count, end + 1)? {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// As few of the class as the rest allows.
    fn shortest(&mut self, mut at: usize, part: usize, end: usize) -> Result<Option<usize>, Fault> {
        loop {
            if let found @ Some(_) = self.run(at, end + 1)? {
                return Ok(found);
            }
            if !self.fits(at, part, end) {
                return Ok(None);
            }
            at += 1;
        }
    }

    fn open(&mut self, capture: Capture, at: usize, part: usize) -> Result<Option<usize>, Fault> {
        let Some(place) = self.captures.get_mut(self.level) else {
            return Err(Fault::Malformed(c"too many captures"));
        };
        *place = capture;
        self.level += 1;
        let found = self.run(at, part)?;
        if found.is_none() {
            self.level -= 1;
        }
        Ok(found)
    }

    fn close(&mut self, at: usize, part: usize) -> Result<Option<usize>, Fault> {
        let open =
            self.captures[..self.level].iter().rposition(|it| matches!(it, Capture::Open { .. }));
        let Some(place) = open else {
            return Err(Fault::Malformed(c"invalid pattern capture"));
        };
        let before = self.captures[place];
        if let Capture::Open { start } = before {
            self.captures[place] = Capture::Text { start, end: at };
        }
        let found = self.run(at, part)?;
        if found.is_none() {
            self.captures[place] = before;
        }
        Ok(found)
    }

    /// `%1`: what a capture has found comes once more.
    fn same_again(&mut self, at: usize, digit: u8) -> Result<Option<usize>, Fault> {
        let captured = usize::from(digit).checked_sub(usize::from(b'1'));
        match captured.and_then(|place| self.captures().get(place)) {
            None | Some(Capture::Open { .. }) => Err(Fault::Malformed(c"invalid capture index")),
            Some(Capture::Position(_)) => Ok(None),
            Some(&Capture::Text { start, end }) => {
                self.work.add(end - start)?;
                let same = self.text[at..].starts_with(&self.text[start..end]);
                Ok(same.then_some(at + end - start))
            }
        }
    }

    /// `%bxy`: from an `x` to the `y` that belongs to it.
    fn balanced(&mut self, at: usize, part: usize) -> Result<Option<usize>, Fault> {
        let &[open, close, ..] = &self.pattern[part..] else {
            return Err(Fault::Malformed(c"unbalanced pattern"));
        };
        if self.text.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1_usize;
        for (place, &byte) in self.text.iter().enumerate().skip(at + 1) {
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    self.work.add(place - at)?;
                    return Ok(Some(place + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        self.work.add(self.text.len() - at)?;
        Ok(None)
    }

    /// `%f[set]`: here the set begins. Where the pattern goes on.
    fn frontier(&mut self, at: usize, part: usize) -> Result<Option<usize>, Fault> {
        if self.pattern.get(part) != Some(&b'[') {
            return Err(Fault::Malformed(c"missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(part)?;
        let set = &self.pattern[part..end];
        let before = at.checked_sub(1).map_or(0, |before| self.text[before]);
        let here = self.text.get(at).copied().unwrap_or(0);
        Ok((!in_set(before, set) && in_set(here, set)).then_some(end))
    }

    /// Where a single class ends that begins at `part`.
    fn class_end(&mut self, part: usize) -> Result<usize, Fault> {
        match self.pattern[part] {
            ESCAPE if self.pattern.len() <= part + 1 => {
                Err(Fault::Malformed(c"malformed pattern (ends with '%')"))
            }
            ESCAPE => Ok(part + 2),
            b'[' => {
                let mut next = part + 1;
                if self.pattern.get(next) == Some(&b'^') {
                    next += 1;
                }
                // The first byte belongs to the set, be it a bracket.
                loop {
                    let Some(&byte) = self.pattern.get(next) else {
                        return Err(Fault::Malformed(c"malformed pattern (missing ']')"));
                    };
                    next += 1;
                    if byte == ESCAPE && next < self.pattern.len() {
                        next += 1;
                    }
                    if self.pattern.get(next) == Some(&b']') {
                        self.work.add((next - part) / 8)?;
                        return Ok(next + 1);
                    }
                }
            }
            _ => Ok(part + 1),
        }
    }

    /// Whether there is a byte at `at`, and it is of the class.
    fn fits(&self, at: usize, part: usize, end: usize) -> bool {
        let Some(&byte) = self.text.get(at) else { return false };
        match self.pattern[part] {
            b'.' => true,
            ESCAPE => in_class(byte, self.pattern[part + 1]),
            b'[' => in_set(byte, &self.pattern[part..end]),
            literal => literal == byte,
        }
    }
}

/// A pattern is a C string to Lua 5.1.
pub(crate) fn c_string(pattern: &[u8]) -> &[u8] {
    pattern.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Whether there is nothing in the pattern that means anything but itself.
pub(crate) fn is_plain(pattern: &[u8]) -> bool {
    !c_string(pattern).iter().any(|byte| b"^$*+?.([%-".contains(byte))
}

/// Whether a byte is in a set, given with its brackets.
fn in_set(byte: u8, set: &[u8]) -> bool {
    let inside = &set[1..set.len() - 1];
    let (mut rest, expected) = match inside {
        [b'^', rest @ ..] => (rest, false),
        rest => (rest, true),
    };
    loop {
        let (found, next) = match rest {
            [] => return !expected,
            [ESCAPE, class, next @ ..] => (in_class(byte, *class), next),
            [low, b'-', high, next @ ..] => ((*low..=*high).contains(&byte), next),
            [literal, next @ ..] => (*literal == byte, next),
        };
        if found {
            return expected;
        }
        rest = next;
    }
}

/// Whether a byte is of the class `%x`; capitals are the opposite.
fn in_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => matches!(byte, b' ' | b'\t'..=b'\r'),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}
