//! Running a command on a database of this process for an operator: a connection of its own, within the process,
//! whose session may do anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use carnelian_resp::Reply;
use serde_json::{Value, json};

use crate::clients::Origin;
use crate::clock;
use crate::connection::{Accepted, Stream, Whose};
use crate::database::Database;
use crate::listener::Kind;
use crate::mailbox::Message;
use crate::server::Server;

/// For the whole of a command.
const PATIENCE: Duration = Duration::from_secs(30);
/// A longer reply is none for an operator.
const REPLY_BYTES_MAX: usize = 16 << 20;

pub fn run(server: &Server, database: &Arc<Database>, words: &[Vec<u8>]) -> Result<Reply> {
    let (mut near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(PATIENCE))?;
    near.set_write_timeout(Some(PATIENCE))?;
    far.set_nonblocking(true)?;
    let stream = Stream::Unix(mio::net::UnixStream::from_std(far));
    let reactor = database.clients.len() % server.mailboxes.len();
    let shared = database.clients.add(Origin {
        address: "operator".to_owned(),
        local_address: String::new(),
        file_descriptor: stream.descriptor(),
        reactor,
        mailbox: Arc::clone(&server.mailboxes[reactor]),
        now_ms: clock::wall_ms(),
    });
    server.mailboxes[reactor].post(Message::Accept(Box::new(Accepted {
        stream,
        kind: Kind::Unix,
        database: Arc::clone(database),
        shared,
        loopback: true,
        refusal: None,
        whose: Whose::Operator,
    })));
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    near.write_all(&request)?;
    let (mut received, mut piece) = (Vec::new(), [0; 16 << 10]);
    loop {
        let count = near.read(&mut piece).context("the database did not answer in time")?;
        if count == 0 {
            bail!("the database closed the connection");
        }
        received.extend_from_slice(&piece[..count]);
        if let Some((reply, _)) = Reply::decode(&received).context("the reply")? {
            return Ok(reply);
        }
        if REPLY_BYTES_MAX < received.len() {
            bail!("the reply is too long");
        }
    }
}

/// A reply as JSON. Texts that are not UTF-8 come with replacement characters.
pub fn to_json(reply: &Reply) -> Value {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let all = |elements: &[Reply]| Value::from(elements.iter().map(to_json).collect::<Vec<_>>());
    match reply {
        Reply::Simple(bytes) if bytes.as_slice() == b"PONG" || bytes.as_slice() == b"OK" => {
            json!(true)
        }
        reply => match (reply.error(), reply.bytes(), reply.elements()) {
            (Some(error), _, _) => json!({ "error": text(error) }),
            (_, Some(bytes), _) => text(bytes),
            (_, _, Some(elements)) => all(elements),
            _ => match reply {
                Reply::Integer(number) => json!(number),
                Reply::Boolean(yes) => json!(yes),
                Reply::Double(number) => json!(number),
                _ => Value::Null,
            },
        },
    }
}
