//! The guard for changing a string in place.

use carnelian_structs::table::EntryMut;
use carnelian_structs::value::{EMBSTR_MAX, Text, Value};

use crate::changes::Changes;

/// Write access to one string.
///
/// It does not tell watchers by itself: opening a string may change its encoding alone, which is
/// no change to them. Whoever changes its bytes calls [`StringMut::touch`].
pub struct StringMut<'a> {
    pub(crate) entry: EntryMut<'a, Value>,
    pub(crate) changes: &'a mut Changes,
    pub(crate) db: usize,
}

impl StringMut<'_> {
    #[must_use]
    pub fn text(&self) -> Text<'_> {
        self.entry.as_ref().text().expect("the guard was made for a string")
    }

    /// Gives the string a length (new bytes are zero) and lets `change` write its bytes. The
    /// encoding becomes raw.
    pub fn resize<R>(&mut self, length: usize, change: impl FnOnce(&mut [u8]) -> R) -> R {
        self.entry.change_text(|_| length, change).expect("the guard was made for a string")
    }

    /// Gives a short string the encoding that changing it would.
    pub fn make_raw(&mut self) {
        if let Text::Bytes(bytes) = self.text()
            && bytes.len() <= EMBSTR_MAX
        {
            let length = bytes.len();
            self.resize(length, |_| ());
        }
    }

    /// Tells those who watch the key.
    pub fn touch(&mut self) {
        if self.changes.watching {
            self.changes.touch(self.db, self.entry.as_ref().key());
        }
    }
}
