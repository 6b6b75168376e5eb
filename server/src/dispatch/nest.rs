//! Commands inside of commands: those of a transaction, and those that a script calls.

use std::sync::Arc;

use carnelian_commands::Scope;
use carnelian_keyspace::{Hold, Segments};
use carnelian_resp::Writer;

use super::{Run, Vectors, call, hear, log_slow_of, run_server, settle};
use crate::acl::{self, Origin};
use crate::features;
use crate::registry::{Entry, Handler, Registry};
use crate::session::{Session, Worker};

/// Commands that run inside another: under its locks, for its client.
pub struct Nest<'n> {
    pub worker: &'n mut Worker,
    pub session: &'n mut Session,
    pub held: &'n mut (dyn Segments + 'n),
    pub nesting: Nesting,
}

/// What a command runs inside of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nesting {
    #[default]
    Nothing,
    Transaction,
    Script,
}

impl Nest<'_> {
    /// Runs queued commands: the entry of each, and how many words there are up to its end.
    pub fn run_queue(&mut self, queue: &[(usize, usize)], words: &[&[u8]], out: &mut Vec<u8>) {
        let (mut next, mut first, floor) = (0, 0, out.len());
        while let Some(&(id, end)) = queue.get(next) {
            let server = Arc::clone(&self.worker.server);
            let entry = server.registry.entry(id);
            let mut together = queue.len();
            if !self.session.may_do_all() {
                // It may have been allowed when it was queued.
                if self.is_denied(entry, &words[first..end], out) {
                    (next, first) = (next + 1, end);
                    continue;
                }
                together = next + 1;
            }
            match entry.handler {
                Handler::Data(_) => {
                    let some = &queue[next..together];
                    next += self.run_data(&server.registry, some, first, words, out, floor);
                    first = queue[next - 1].1;
                }
                Handler::Server(_) => {
                    self.run(&server.registry, entry, &words[first..end], out);
                    (next, first) = (next + 1, end);
                }
            }
        }
    }

    /// Replies that the user may not run a command of a transaction, if so.
    fn is_denied(&mut self, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) -> bool {
        let session = &*self.session;
        let counters = self.worker.counters(&session.database);
        let error = match acl::check(&session.user, entry, words, session.db) {
            Ok(()) => match acl::check_sort(&session.user, entry, words, session.db) {
                Ok(()) => return false,
                Err(error) => error,
            },
            Err(denied) => {
                acl::report(self.worker, session, entry, words, denied, Origin::Multi);
                counters.commands[entry.id].rejected.add(1);
                denied.exec_error()
            }
        };
        counters.count_error(&error.to_string());
        error.write_to(&mut Writer::new(out, session.protocol));
        true
    }

    /// Runs one command, and appends its reply.
    pub fn run(&mut self, registry: &Registry, entry: &Entry, words: &[&[u8]], out: &mut Vec<u8>) {
        match entry.handler {
            Handler::Data(_) => {
                let floor = out.len();
                self.run_data(registry, &[(entry.id, words.len())], 0, words, out, floor);
            }
            Handler::Server(command) => {
                let held = Some((&mut *self.held as &mut dyn Segments, self.nesting));
                let (worker, session) = (&mut *self.worker, &mut *self.session);
                run_server(worker, session, registry, entry, command.run, words, out, held);
                features::after_nested(worker, session, entry, words, self.nesting);
            }
        }
    }

    /// Runs the commands on data that come first in a queue. Returns how many. `floor`: where the
    /// replies of the whole queue begin.
    fn run_data(
        &mut self,
        registry: &Registry,
        queue: &[(usize, usize)],
        start: usize,
        words: &[&[u8]],
        out: &mut Vec<u8>,
        floor: usize,
    ) -> usize {
        let (worker, session) = (&mut *self.worker, &mut *self.session);
        let database = &*session.database;
        let mut scratch = std::mem::take(&mut worker.scratch);
        let Vectors { aftermath, runs, ready, unit, .. } = &mut *scratch;
        let mut call = call(worker, session, Hold::Lent(&mut *self.held), aftermath, out);
        let mut run = Run::begin(worker, database, runs, unit, &[], true, &session.settings);
        if self.nesting == Nesting::Script {
            call.output_max = usize::MAX;
        }
        let (mut first, mut ran) = (start, 0);
        for &(id, end) in queue {
            let entry = registry.entry(id);
            let Handler::Data(command) = entry.handler else { break };
            if entry.scope == Scope::Everything {
                call.db.access().lock_rest();
            }
            let words = &words[first..end];
            run.command(&mut call, entry, command, words, &(0..0));
            if call.output_max <= call.reply.len().saturating_sub(floor) {
                // It will not be sent. What is left is run for what it changes.
                worker.overflowed.set(true);
                call.reply.truncate(floor + call.output_max);
            }
            hear(database, call.db.changes, ready);
            features::after_nested(worker, session, entry, words, self.nesting);
            first = end;
            ran += 1;
        }
        let slow = run.end();
        drop(call);
        settle(worker, database, Some(session), &mut scratch.aftermath);
        worker.scratch = scratch;
        for (place, noted) in slow {
            let (id, end) = queue[place];
            let start = place.checked_sub(1).map_or(start, |before| queue[before].1);
            log_slow_of(worker, session, registry.entry(id), &words[start..end], noted);
        }
        ran
    }
}
