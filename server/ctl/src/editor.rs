//! A line being typed: a state that keys change. It knows no terminal, so that it can be tested.

/// What is typed, and the lines from before.
#[derive(Default)]
pub struct Editor {
    line: Vec<char>,
    /// Characters in front of the cursor.
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history is shown; the length of the history is the new one.
    place: usize,
    /// What was typed before going back in the history.
    draft: Vec<char>,
    pending: Vec<u8>,
}

/// What to do after a byte.
#[derive(Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing but showing the line.
    Show,
    /// The line is finished.
    Enter(String),
    /// Show these choices, then the line.
    Choices(Vec<String>),
    /// Give this line up.
    Cancel,
    /// There is nothing more to come.
    End,
}

impl Editor {
    pub fn line(&self) -> String {
        self.line.iter().collect()
    }

    /// How far the cursor is from the end of the line.
    pub fn behind_cursor(&self) -> usize {
        self.line.len() - self.cursor
    }

    /// Takes one byte from the keyboard. `complete` says what a word may become, after those before it.
    pub fn byte(&mut self, byte: u8, complete: impl Fn(&[&str], &str) -> Vec<String>) -> Step {
        if !self.pending.is_empty() {
            self.pending.push(byte);
            return self.sequence();
        }
        match byte {
            b'\r' | b'\n' => return self.enter(),
            b'\t' => return self.tab(complete),
            3 => {
                self.clear();
                return Step::Cancel;
            }
            4 if self.line.is_empty() => return Step::End,
            4 => self.delete(),
            1 => self.cursor = 0,
            5 => self.cursor = self.line.len(),
            8 | 127 if 0 < self.cursor => {
                self.cursor -= 1;
                self.delete();
            }
            11 => self.line.truncate(self.cursor),
            21 => drop(self.line.drain(..std::mem::take(&mut self.cursor))),
            23 => self.delete_word(),
            16 => self.go(-1),
            14 => self.go(1),
            27 | 0xc0.. => self.pending.push(byte),
            b' '..=b'~' => self.insert(char::from(byte)),
            _ => {}
        }
        Step::Show
    }

    /// Goes on with an escape sequence or a character of several bytes.
    fn sequence(&mut self) -> Step {
        if self.pending[0] != 27 {
            let wanted = match self.pending[0] {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if self.pending.len() == wanted {
                let bytes = std::mem::take(&mut self.pending);
                if let Ok(text) = std::str::from_utf8(&bytes) {
                    text.chars().for_each(|character| self.insert(character));
                }
            }
            return Step::Show;
        }
        match self.pending.as_slice() {
            [27, b'[' | b'O'] => return Step::Show,
            // Parameters, up to the letter that ends them.
            [27, b'[', .., b' '..=b'?'] if self.pending.len() < 16 => return Step::Show,
            [27, _, b'A'] => self.go(-1),
            [27, _, b'B'] => self.go(1),
            [27, _, b'C'] => self.cursor = self.line.len().min(self.cursor + 1),
            [27, _, b'D'] => self.cursor = self.cursor.saturating_sub(1),
            [27, _, b'H'] | [27, b'[', b'1' | b'7', b'~'] => self.cursor = 0,
            [27, _, b'F'] | [27, b'[', b'4' | b'8', b'~'] => self.cursor = self.line.len(),
            [27, b'[', b'3', b'~'] => self.delete(),
            _ => {}
        }
        self.pending.clear();
        Step::Show
    }

    fn enter(&mut self) -> Step {
        let line = self.line();
        if !line.trim().is_empty() && self.history.last() != Some(&line) {
            self.history.push(line.clone());
        }
        self.clear();
        Step::Enter(line)
    }

    fn clear(&mut self) {
        self.line.clear();
        self.draft.clear();
        self.cursor = 0;
        self.place = self.history.len();
    }

    fn insert(&mut self, character: char) {
        self.line.insert(self.cursor, character);
        self.cursor += 1;
    }

    fn delete(&mut self) {
        if self.cursor < self.line.len() {
            self.line.remove(self.cursor);
        }
    }

    fn delete_word(&mut self) {
        let end = self.cursor;
        while 0 < self.cursor && self.line[self.cursor - 1] == ' ' {
            self.cursor -= 1;
        }
        while 0 < self.cursor && self.line[self.cursor - 1] != ' ' {
            self.cursor -= 1;
        }
        self.line.drain(self.cursor..end);
    }

    /// Back or forth in the history.
    fn go(&mut self, by: isize) {
        let Some(place) = self.place.checked_add_signed(by) else { return };
        if self.history.len() < place {
            return;
        }
        if self.place == self.history.len() {
            self.draft.clone_from(&self.line);
        }
        self.place = place;
        self.line = match self.history.get(place) {
            Some(line) => line.chars().collect(),
            None => self.draft.clone(),
        };
        self.cursor = self.line.len();
    }

    /// Completes the word in front of the cursor as far as it is clear.
    fn tab(&mut self, complete: impl Fn(&[&str], &str) -> Vec<String>) -> Step {
        let front: String = self.line[..self.cursor].iter().collect();
        let start = front.rfind(' ').map_or(0, |at| at + 1);
        let (before, typed) = front.split_at(start);
        let before: Vec<_> = before.split_whitespace().collect();
        let found = complete(&before, typed);
        let Some(first) = found.first() else { return Step::Show };
        let common = found.iter().fold(first.as_str(), |common, word| {
            let same = common.chars().zip(word.chars()).take_while(|(a, b)| a == b);
            &common[..same.map(|(a, _)| a.len_utf8()).sum::<usize>()]
        });
        let more = common.strip_prefix(typed).unwrap_or_default().to_owned();
        more.chars().for_each(|character| self.insert(character));
        match found.len() {
            1 => self.insert(' '),
            _ if more.is_empty() => return Step::Choices(found),
            _ => {}
        }
        Step::Show
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar;

    fn typed(editor: &mut Editor, keys: &[u8]) -> Vec<Step> {
        let steps = keys.iter().map(|key| editor.byte(*key, grammar::complete));
        steps.filter(|step| *step != Step::Show).collect()
    }

    fn line(keys: &[u8]) -> String {
        let mut editor = Editor::default();
        typed(&mut editor, keys);
        editor.line()
    }

    #[test]
    fn lines_are_edited() {
        assert_eq!(line(b"abc\x7f"), "ab");
        assert_eq!(line(b"abc\x1b[D\x1b[DX"), "aXbc");
        assert_eq!(line(b"abc\x01X\x05Y"), "XabcY");
        assert_eq!(line(b"one two\x17"), "one ");
        assert_eq!(line(b"one two\x15"), "");
        assert_eq!(line(b"abc\x01\x1b[3~"), "bc");
        assert_eq!(line("nö\x7f".as_bytes()), "n");
        assert_eq!(line(b"a\x1b[1;5Xb\x00\x1f"), "ab", "what is unknown does no harm");
        assert_eq!(line(b"\x7f\x1b[D\x1b[A\x17\x04"), "");
    }

    #[test]
    fn tab_completes_as_far_as_it_is_clear() {
        assert_eq!(line(b"tu\tdb 1 data\tena\t"), "tune db 1 data_internode_encryption enabled ");
        let mut editor = Editor::default();
        let steps = typed(&mut editor, b"cluster certificate \t");
        let choices = ["rotate", "set", "status"].map(str::to_owned).to_vec();
        assert_eq!(steps, [Step::Choices(choices)]);
    }

    #[test]
    fn the_history_is_gone_through() {
        let mut editor = Editor::default();
        let steps = typed(&mut editor, b"one\rtwo\rdra\x1b[A\x1b[A\x1b[A");
        assert_eq!(steps, [Step::Enter("one".into()), Step::Enter("two".into())]);
        assert_eq!(editor.line(), "one");
        typed(&mut editor, b"\x1b[B\x1b[B\x1b[B");
        assert_eq!(editor.line(), "dra");
        assert_eq!(typed(&mut editor, b"\x03\x04"), [Step::Cancel, Step::End]);
    }
}
