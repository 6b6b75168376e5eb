//! What is common to the replies that scripts return: see `raw` for how values become replies.

use carnelian_resp::Writer;

/// The version of the protocol that `redis.setresp` chose decides how booleans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Booleans {
    AsNumbers,
    AsBooleans,
}

/// A status of any bytes.
pub(crate) fn status(text: &[u8], writer: &mut Writer<'_>) {
    writer.raw(b"+");
    let start = writer.len();
    writer.raw(text);
    spaces_for_line_ends(&mut writer.buffer()[start..]);
    writer.raw(b"\r\n");
}

/// What stands on one line must not end it.
pub(crate) fn spaces_for_line_ends(text: &mut [u8]) {
    for byte in text {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}
