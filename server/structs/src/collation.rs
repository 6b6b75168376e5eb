//! The order of texts in a language, as the C library knows it: what `strcoll` says, without the process's own locale.
//!
//! Opts in to `unsafe`, since there is no other way to that knowledge.

#![allow(unsafe_code)]

use std::cmp::Ordering;
use std::ffi::{CStr, CString};

use libc::locale_t;

/// A locale that orders otherwise than byte by byte.
pub struct Collation(locale_t);

// SAFETY: a `locale_t` is never changed after it is made, and belongs to no thread.
unsafe impl Send for Collation {}
// SAFETY: the same; `strcoll_l` only reads it.
unsafe impl Sync for Collation {}

unsafe extern "C" {
    fn strcoll_l(
        left: *const libc::c_char,
        right: *const libc::c_char,
        locale: locale_t,
    ) -> libc::c_int;
}

/// There is no such locale on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownLocale;

impl Collation {
    /// The locale of this name; none where its order is that of bytes. With an empty name the environment says
    /// which.
    pub fn named(name: &str) -> Result<Option<Self>, UnknownLocale> {
        let from_environment = || {
            let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            set("LC_ALL").or_else(|| set("LC_COLLATE")).or_else(|| set("LANG"))
        };
        let name = match name {
            "" => from_environment().unwrap_or_else(|| "C".into()),
            name => name.to_owned(),
        };
        if ["C", "POSIX", "C.UTF-8", "C.utf8"].contains(&name.as_str()) {
            return Ok(None);
        }
        let name = CString::new(name).map_err(|_| UnknownLocale)?;
        // SAFETY: the name ends with a zero, and no locale is given to be changed.
        let locale =
            unsafe { libc::newlocale(libc::LC_COLLATE_MASK, name.as_ptr(), std::ptr::null_mut()) };
        if locale.is_null() { Err(UnknownLocale) } else { Ok(Some(Self(locale))) }
    }

    pub fn compare(&self, left: &CStr, right: &CStr) -> Ordering {
        // SAFETY: both end with a zero, and the locale lives as long as `self`.
        unsafe { strcoll_l(left.as_ptr(), right.as_ptr(), self.0) }.cmp(&0)
    }

    /// A text as it is compared: up to its first zero byte, as in C.
    pub fn text(bytes: &[u8]) -> CString {
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        CString::new(text).unwrap_or_default()
    }
}

impl Drop for Collation {
    fn drop(&mut self) {
        // SAFETY: it was made by `newlocale`, and nobody has it any more.
        unsafe { libc::freelocale(self.0) };
    }
}

impl std::fmt::Debug for Collation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Collation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_locales_are_the_order_of_bytes_and_unknown_ones_none() {
        for name in ["C", "POSIX", "C.UTF-8"] {
            assert!(Collation::named(name).unwrap().is_none(), "{name}");
        }
        for name in ["no_SUCH.locale", "a\0b"] {
            assert_eq!(Collation::named(name).err(), Some(UnknownLocale), "{name:?}");
        }
    }

    /// Of the locales that machines tend to have, some are made differently in letters and capitals than bytes are.
    #[test]
    fn a_language_has_an_order_of_its_own_where_it_is_installed() {
        let Some(Some(german)) = Collation::named("de_DE.UTF-8").ok() else { return };
        let compare = |a: &str, b: &str| {
            german.compare(&Collation::text(a.as_bytes()), &Collation::text(b.as_bytes()))
        };
        assert_eq!(compare("a", "B"), Ordering::Less);
        assert_eq!(compare("ä", "b"), Ordering::Less);
        assert_eq!(compare("a", "a\0b"), Ordering::Equal);
    }
}
