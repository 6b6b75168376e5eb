//! Parsing what was received and running it, a batch of commands at a time.

use std::sync::atomic::Ordering;

use carnelian_resp::{Limits, Progress};

use super::{After, Service};
use crate::connection::Connection;
use crate::dispatch;
use crate::features;
use crate::log;
use crate::session::{BATCH_COMMANDS, BATCH_REPLY_BYTES, Batch, Next, Raw, recycle};

/// After so many commands in one turn the others are served first.
const TURN_COMMANDS: usize = 1024;

/// The clock is read again after so many commands.
pub(super) const CLOCK_COMMANDS: usize = 256;

/// No argument is longer, whoever sends it.
const BULK_BYTES_OF_PRIMARY: usize = 1 << 40;

/// How far the parser came for one batch.
struct Parsed {
    position: usize,
    end: End,
}

enum End {
    /// The batch is full; there may be more.
    Batch,
    Incomplete {
        wanted: usize,
    },
    Error,
}

/// Why the commands in a buffer were not all run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stop {
    /// They were; the rest is the beginning of one.
    Incomplete { wanted: usize },
    /// Others are to be served.
    Quota,
    /// The client is to read first, or waits.
    Paused,
    /// The next command is held back by CLIENT PAUSE.
    Postponed,
    /// Nothing more is to be run for this client.
    Close,
}

impl Service {
    /// Runs what is in the connection's own buffer.
    pub(super) fn run_input(&mut self, connection: &mut Connection) -> After {
        // What has come counts, though the request be whole with it.
        if self.holds_too_much(connection) {
            return After::Close;
        }
        let mut input = std::mem::take(&mut connection.input);
        let (consumed, stop) = self.run(connection, input.data_mut());
        input.consume(consumed);
        if !connection.input.is_empty() {
            // What was written anew comes before what has yet to be parsed.
            std::mem::swap(&mut connection.input, &mut input);
            connection.input.append(input.data_mut());
            input = std::mem::take(&mut connection.input);
        }
        connection.input = input;
        self.settle(connection, &[], stop)
    }

    /// Runs what is in a shared buffer; what is left of it becomes the connection's own.
    pub(super) fn run_received(&mut self, connection: &mut Connection, data: &mut [u8]) -> After {
        let (consumed, stop) = self.run(connection, data);
        self.settle(connection, &data[consumed..], stop)
    }

    pub(super) fn settle(&mut self, connection: &mut Connection, rest: &[u8], stop: Stop) -> After {
        if stop == Stop::Close {
            connection.input.clear();
            return self.end_of_stream(connection);
        }
        if !rest.is_empty() {
            connection.input.append(rest);
        }
        let shared = &connection.session.shared;
        let unread = unread(connection);
        shared.query_bytes.store(unread, Ordering::Relaxed);
        let room = connection.input.capacity() - unread;
        shared.query_room.store(room, Ordering::Relaxed);
        features::account(&self.worker, &connection.session);
        if self.holds_too_much(connection) {
            return After::Close;
        }
        match stop {
            Stop::Incomplete { wanted } => {
                connection.wanted = wanted;
                if connection.flags.readable { After::Again } else { After::Wait }
            }
            Stop::Quota | Stop::Paused | Stop::Postponed => {
                connection.wanted = 0;
                connection.flags.unparsed = true;
                match stop {
                    Stop::Quota => After::Again,
                    Stop::Postponed => After::Postpone,
                    _ => After::Wait,
                }
            }
            Stop::Close => After::Close,
        }
    }

    /// Whether what waits in a client's requests is more than `client-query-buffer-limit`: it is to be closed.
    fn holds_too_much(&self, connection: &Connection) -> bool {
        let session = &connection.session;
        // Redis looks at the argument that is being read alone, so that there is no bound on those before it.
        let len = connection.input.len();
        let in_front = (len - unread(connection)).min(SHORT_BYTES);
        let held = len - in_front + session.queued_bytes();
        if held <= session.settings.query_bytes_max || session.primary.is_some() {
            return false;
        }
        log::warning!(
            "Closing client that reached max query buffer length: {}",
            connection.describe()
        );
        self.worker.counters(&session.database).query_limit_disconnections.add(1);
        true
    }

    /// Runs the commands in `data`, a batch at a time; returns the bytes they took and why it ended.
    fn run(&mut self, connection: &mut Connection, data: &mut [u8]) -> (usize, Stop) {
        connection.session.refresh_settings();
        if connection.session.close_after_reply {
            // Its user is gone.
            return (0, Stop::Close);
        }
        let bulk_bytes_max = connection.session.settings.bulk_bytes_max;
        let mut position = 0;
        let mut quota = TURN_COMMANDS;
        loop {
            let is_primary = connection.session.primary.is_some();
            let limits = Limits {
                // The primary has let it pass.
                max_bulk: if is_primary { BULK_BYTES_OF_PRIMARY } else { bulk_bytes_max },
                // Nothing that a node may say is long.
                authenticated: connection.session.authenticated
                    && connection.session.peer.is_none(),
                ..Limits::default()
            };
            let parsed = self.parse(connection, data, position, &limits);
            let start = position;
            if !self.commands.is_empty() {
                if features::is_too_large(&self.worker, &connection.session, data.len()) {
                    return (position, Stop::Close);
                }
                let (ran, next) = self.run_batch(connection, data, start);
                quota = quota.saturating_sub(ran);
                let is_whole = ran == self.commands.len();
                position = match ran {
                    _ if is_whole => parsed.position,
                    0 => self.commands[0].0,
                    ran => self.commands[ran - 1].1,
                };
                if next == Next::Postpone {
                    connection.parser.reset();
                    position = self.keep_held(connection, data, position, parsed.position);
                    return (position, Stop::Postponed);
                }
                if next == Next::Close || connection.session.close_after_reply {
                    return (position, Stop::Close);
                }
                if next == Next::Wait && is_whole {
                    return (position, Stop::Paused);
                }
                if !is_whole {
                    // The parser has been further; the rest is parsed anew.
                    connection.parser.reset();
                    return (position, Stop::Paused);
                }
            } else {
                position = parsed.position;
                if start < position {
                    self.hear(connection);
                }
            }
            if let Some(link) = &mut connection.session.primary {
                // Empty lines behind the last command.
                let last = self.commands.last().map_or(start, |last| last.1);
                link.skip(&data[last..position]);
            }
            match parsed.end {
                End::Batch => {}
                End::Incomplete { wanted } => return (position, Stop::Incomplete { wanted }),
                End::Error => {
                    self.replies.append(&mut self.last_words);
                    return (position, Stop::Close);
                }
            }
            if connection.flags.paused {
                return (position, Stop::Paused);
            }
            if quota == 0 {
                return (position, Stop::Quota);
            }
        }
    }

    /// Empty lines have come, and nothing else: so a replica shows that it is there while it loads.
    #[cold]
    fn hear(&self, connection: &Connection) {
        if let Some(attached) = &connection.session.attached {
            attached.replica.hear(self.worker.clock.now_ms());
        }
    }

    /// Keeps the command at `start` for later, if that cannot be parsed again: its quotes are gone, so
    /// it is written anew. Returns where to go on.
    #[cold]
    fn keep_held(
        &mut self,
        connection: &mut Connection,
        data: &[u8],
        start: usize,
        end: usize,
    ) -> usize {
        if data[start] == b'*' || self.commands.len() != 1 {
            return start;
        }
        let command = &data[start..];
        let mut anew = format!("*{}\r\n", self.spans.len()).into_bytes();
        for span in &self.spans {
            let word = span.of(command);
            anew.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            anew.extend_from_slice(word);
            anew.extend_from_slice(b"\r\n");
        }
        connection.input.append(&anew);
        end
    }

    /// Finds the next commands from `position` on.
    fn parse(
        &mut self,
        connection: &mut Connection,
        data: &mut [u8],
        mut position: usize,
        limits: &Limits,
    ) -> Parsed {
        self.spans.clear();
        self.commands.clear();
        self.ends.clear();
        // What comes after AUTH is judged by other limits.
        let commands_max = if limits.authenticated { BATCH_COMMANDS } else { 1 };
        while self.commands.len() < commands_max {
            if position == data.len() {
                return Parsed { position, end: End::Incomplete { wanted: 0 } };
            }
            // One that came in pieces is not searched for quotes again at each piece.
            let is_quoted = data[position] != b'*'
                && (connection.parser.is_partial() || has_quotes(&data[position..]));
            if is_quoted && !self.commands.is_empty() {
                // Unescaping changes the bytes, so such a command cannot be parsed a second time: it
                // gets a batch of its own, which always runs.
                break;
            }
            match connection.parser.next(&mut data[position..], limits, &mut self.spans) {
                Ok(Progress::Complete { consumed, arguments }) => {
                    if arguments != 0 {
                        self.commands.push((position, position + consumed));
                        self.ends.push(self.spans.len());
                    }
                    position += consumed;
                    if is_quoted && arguments != 0 {
                        break;
                    }
                }
                Ok(Progress::Incomplete { wanted }) => {
                    return Parsed { position, end: End::Incomplete { wanted } };
                }
                Err(error) => {
                    log::verbose!(
                        "Protocol error ({}) from client: {}",
                        error.log_reason(),
                        connection.describe()
                    );
                    self.last_words.extend_from_slice(b"-ERR ");
                    error.write_text(&mut self.last_words);
                    self.last_words.extend_from_slice(b"\r\n");
                    return Parsed { position, end: End::Error };
                }
            }
        }
        Parsed { position, end: End::Batch }
    }

    /// Runs the parsed commands; returns how many, fewer only where the client has to read first.
    fn run_batch(
        &mut self,
        connection: &mut Connection,
        data: &[u8],
        start: usize,
    ) -> (usize, Next) {
        let mut arguments = recycle(std::mem::take(&mut self.arguments));
        let mut first = 0;
        for (&(start, _), &end) in self.commands.iter().zip(&self.ends) {
            let command = &data[start..];
            arguments.extend(self.spans[first..end].iter().map(|span| span.of(command)));
            first = end;
        }

        let large = connection.session.settings.large_request.bytes_min;
        let batch_bytes = self.commands.last().map_or(0, |last| last.1) - self.commands[0].0;
        let large_ends = (large <= batch_bytes).then(|| self.ends.clone());
        let mut ran = 0;
        let mut skip = 0;
        let next = loop {
            let count = self.ends.len() - ran;
            self.commands_until_clock = match self.commands_until_clock.checked_sub(count) {
                Some(left) => left,
                None => {
                    self.worker.clock.refresh();
                    CLOCK_COMMANDS
                }
            };
            let raw = Raw {
                data,
                start: if ran == 0 { start } else { self.commands[ran - 1].1 },
                commands: &self.commands[ran..],
            };
            let batch = Batch { arguments: &arguments[skip..], ends: &self.ends[ran..], raw };
            let session = &mut connection.session;
            let outcome = dispatch::run_batch(&mut self.worker, session, &batch, &mut self.replies);
            if outcome.next == Next::Postpone && outcome.ran == 0 {
                break Next::Postpone;
            }
            let done = outcome.ran.clamp(1, count);
            let taken = self.ends[ran + done - 1];
            ran += done;
            if BATCH_REPLY_BYTES <= self.replies.len() - connection.staged.start {
                self.flush_early(connection);
            }
            if outcome.next != Next::Continue || ran == self.ends.len() {
                break outcome.next;
            }
            if connection.flags.paused || connection.session.close_after_reply {
                break Next::Continue;
            }
            skip += taken;
            for end in &mut self.ends[ran..] {
                *end -= taken;
            }
        };
        if let Some(ends) = &large_ends {
            self.log_large(connection, &arguments, &ends[..ran]);
        }
        self.arguments = recycle(arguments);

        let session = &connection.session;
        let shared = &session.shared;
        shared.db.store(u32::from(session.db), Ordering::Relaxed);
        shared.protocol.store(session.protocol.version(), Ordering::Relaxed);
        shared.last_command.store(session.last_command, Ordering::Relaxed);
        let commands = shared.commands.load(Ordering::Relaxed) + ran as u64;
        shared.commands.store(commands, Ordering::Relaxed);
        self.worker.counters(&connection.session.database).commands_processed.add(ran as u64);
        self.worker.turn_commands += ran as u64;
        (ran, next)
    }

    /// Logs those of the requests that ran that are large. `ends`: where the words of each end.
    #[cold]
    fn log_large(&self, connection: &Connection, arguments: &[&[u8]], ends: &[usize]) {
        let large = connection.session.settings.large_request.bytes_min;
        let mut first = 0;
        for (&(start, end), &words_end) in self.commands.iter().zip(ends) {
            let words = &arguments[first..words_end];
            first = words_end;
            if large <= end - start {
                dispatch::log_large(&self.worker, &connection.session, words, end - start);
            }
        }
    }

    /// Sends replies in the middle of a turn, since there are many.
    fn flush_early(&mut self, connection: &mut Connection) {
        let start = connection.staged.start;
        connection.staged.end = self.replies.len();
        if self.flush(connection) == After::Close {
            connection.session.close_after_reply = true;
        }
        self.replies.truncate(start);
        connection.staged = start..start;
        // More is run now.
        self.moment = None;
    }
}

/// What is in front of a long argument and no longer than this is not counted against `client-query-buffer-limit`.
const SHORT_BYTES: usize = 1 << 10;

/// Bytes of requests that wait, as Redis counts them: what comes before a long argument is through.
fn unread(connection: &Connection) -> usize {
    let len = connection.input.len();
    len - connection.parser.long_argument_start().min(len)
}

/// Whether there are quotes in the first line.
fn has_quotes(data: &[u8]) -> bool {
    data.iter().take_while(|byte| **byte != b'\n').any(|byte| matches!(byte, b'"' | b'\''))
}
