//! Running commands: until the registry is there, the three that show that a connection works.

use carnelian_resp::Writer;

use crate::session::{Batch, Next, Outcome, Session, Worker};

/// Runs a batch in order and appends the replies.
pub fn run_batch(
    _worker: &mut Worker,
    session: &mut Session,
    batch: &Batch<'_>,
    out: &mut Vec<u8>,
) -> Outcome {
    for (index, arguments) in batch.commands().enumerate() {
        let mut writer = Writer::new(out, session.protocol);
        let name = arguments[0];
        if name.eq_ignore_ascii_case(b"PING") {
            writer.simple("PONG");
        } else if name.eq_ignore_ascii_case(b"ECHO") && arguments.len() == 2 {
            writer.bulk(arguments[1]);
        } else if name.eq_ignore_ascii_case(b"QUIT") {
            writer.simple("OK");
            return Outcome { ran: index + 1, next: Next::Close };
        } else {
            writer.error("ERR unknown command");
        }
    }
    Outcome { ran: batch.len(), next: Next::Continue }
}

/// What is due by time, on every reactor, `hz` times a second.
pub fn tick(_worker: &mut Worker) {}
