//! Files that only the holder of a key can read, and that nobody can change unnoticed.
//!
//! A sealed file is a header and frames. Nothing in it depends on what is sealed: a snapshot or a
//! piece of the append-only file goes in as bytes and comes out as the same bytes, or not at all.
//!
//! ```text
//! header   0  "CARNSEAL"
//!          8  version (1), form (1 whole, 2 growing), two zeros
//!         12  id of the key that wraps the data key (8 bytes)
//!         20  salt (16 random bytes)
//!         36  nonce of the wrapping (12 random bytes)
//!         48  the data key, wrapped (32 bytes and a tag of 16)
//! frame    0  length of its text, and its kind in the highest byte (4 bytes, little endian)
//!          4  checksum of these and of the frame's number
//!          8  text, encrypted (no longer than 1 MiB), and a tag of 16 bytes
//! ```
//!
//! Everything is AES-256-GCM. A file has a *data key* of its own, made at random and wrapped by the
//! current key of the key file ([`Keys`]). Frames are sealed with keys derived from it.
//!
//! # What is detected
//! A frame's tag covers its number, length and kind, and the tag of the frame before (the header's,
//! for the first). So frames that change, move, appear twice, go missing or come from another file, or
//! from another history of this file, do not authenticate; [`SealError`] names the frame and its
//! place. The checksum of the head tells a damaged length from a frame that was cut off. A whole
//! file ends with a frame that says so. A growing one may end after any frame, or inside of one
//! that was being written when the power went, also with zeros in place of the rest: [`Ending`]
//! says which, and a reader treats it as the short file that it is.
//!
//! # What is not
//! Who can replace files can put back an older one, or cut a growing one after a frame: that takes a
//! memory outside of the files. The sizes of files and frames are not hidden.
//!
//! # Why no nonce is used twice
//! A nonce is the number of the frame; it counts up under one key and is never set back. A *run* is what
//! one opening of the file writes. Each has its own key, derived from the data key and 16 fresh random
//! bytes: the header's salt, or those of the *run frame* that a continued file goes on with. That is
//! what makes it safe to cut off a torn frame and give its number to another: the second is sealed
//! with another key ([`Appender::rewind`] starts a run for the same reason). Wrapping takes a random
//! nonce of 96 bits under the key of the key file, once a file: 2^32 files share one key before the odds
//! of a repetition reach 2^-32.
//!
//! # Rotation
//! The first key of the key file wraps the data keys of new files; the others open what they have
//! wrapped. A key is spent once its last file is gone: after a snapshot and a rewrite.

mod append;
mod error;
mod frame;
mod header;
mod input;
mod keys;
mod policy;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use append::{Appender, Mark, Resumed};
pub use error::{Damage, SealError};
pub use header::Form;
pub use input::Input;
pub use keys::{KeyFileError, KeyId, Keys};
pub use policy::{KEY_FILE_OPTION, Output, Policy, is_sealed_file, unopened};
pub use reader::{Ending, SealedReader};
pub use writer::SealedWriter;

/// Whether a file that begins with these bytes is a sealed one. Fewer than eight are enough to say no.
pub fn is_sealed(beginning: &[u8]) -> bool {
    let known = beginning.len().min(header::MAGIC.len());
    0 < known && beginning[..known] == header::MAGIC[..known]
}
