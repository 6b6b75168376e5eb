//! What is common to the replies that scripts return: see `raw` for how values become replies.

use carnelian_resp::Writer;

/// The version of the protocol that `redis.setresp` chose decides how booleans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Booleans {
    AsNumbers,
    AsBooleans,
}

/// What Redis sees of a text that a script gives for a status or an error: it ends with a NUL.
pub(crate) fn up_to_nul(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A status of any bytes.
pub(crate) fn status(text: &[u8], writer: &mut Writer<'_>) {
    writer.raw(b"+");
    let start = writer.len();
    writer.raw(up_to_nul(text));
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

/// A number without its fraction. What no integer can hold is the least one, as x86 converts it and
/// Redis's clients see it.
pub(crate) fn whole(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}
