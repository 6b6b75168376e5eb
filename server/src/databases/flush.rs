//! Emptying a database, as its maker wants it and not one of its clients.

use std::sync::Arc;
use std::sync::mpsc::channel;

use super::DatabaseError;
use crate::clients::Origin;
use crate::clock;
use crate::database::Database;
use crate::dispatch;
use crate::mailbox::Message;
use crate::server::Server;
use crate::session::{Batch, Raw, Session, Worker};

impl Server {
    /// Removes all keys of a database, as FLUSHALL does: those who follow it and its files hear of it. The memory is
    /// freed in the background.
    pub fn flush_database(self: &Arc<Self>, uid: u32) -> Result<(), DatabaseError> {
        let database = self.database(uid)?;
        let name = self.visible_name("flushall");
        let (sender, receiver) = channel();
        // A reactor has all that a command needs.
        self.mailboxes[0].post(Message::Run(Box::new(move |worker| {
            let reply = run(worker, &database, &[&name, b"ASYNC"]);
            // Who waited may have lost patience.
            let _ = sender.send(reply);
        })));
        let reply = receiver.recv().map_err(|_| DatabaseError::Ending)?;
        if reply == b"+OK\r\n" {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&reply).trim_start_matches('-').trim_end().to_owned();
        Err(DatabaseError::Refused { uid, reason })
    }

    /// What `rename-command` calls a command.
    fn visible_name(&self, name: &str) -> Vec<u8> {
        let mut renames = self.renames.iter().rev();
        let renamed = renames.find_map(|line| match line.words.as_slice() {
            [_, old, new] if old.eq_ignore_ascii_case(name.as_bytes()) => Some(new.clone()),
            _ => None,
        });
        renamed.unwrap_or_else(|| name.into())
    }
}

/// Runs a command of nobody's, who may do anything. Its reply.
fn run(worker: &mut Worker, database: &Arc<Database>, words: &[&[u8]]) -> Vec<u8> {
    let origin = Origin {
        address: String::new(),
        local_address: String::new(),
        file_descriptor: -1,
        reactor: worker.reactor,
        mailbox: Arc::clone(&worker.server.mailboxes[worker.reactor]),
        now_ms: clock::wall_ms(),
    };
    let shared = database.clients.unlisted(origin);
    let mut session = Session::new(shared, Arc::clone(database), true);
    session.trust();
    let mut data = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        data.extend(format!("${}\r\n", word.len()).into_bytes());
        data.extend_from_slice(word);
        data.extend(b"\r\n");
    }
    let commands = [(0, data.len())];
    let raw = Raw { data: &data, start: 0, commands: &commands };
    let ends = [words.len()];
    let batch = Batch { arguments: words, ends: &ends, raw };
    let mut reply = Vec::new();
    dispatch::run_batch(worker, &mut session, &batch, &mut reply);
    if let Some(waiter) = session.waiter.take() {
        // The data is gone; what is still being done, nobody here waits for.
        waiter.call_off();
        return b"+OK\r\n".to_vec();
    }
    reply
}
