//! What other threads, and this reactor itself, have posted to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::Token;

use super::{Missed, Reactor};
use crate::blocking::Waiter;
use crate::connection::Connection;
use crate::halt::Verdict;
use crate::mailbox::Message;
use crate::pubsub::{Part, Row};
use crate::service::Service;

/// How often a turn looks again for what it has posted to itself.
const OWN_MAIL_ROUNDS: usize = 16;

impl Reactor {
    pub(super) fn read_mail(&mut self) {
        let mut messages = std::mem::take(&mut self.core.messages);
        self.core.mailbox.take(&mut messages);
        self.take_messages(&mut messages);
        self.core.messages = messages;
    }

    /// Takes what this reactor has posted to itself, and what comes of that, within reason: the rest
    /// is left to the next turn.
    pub(super) fn read_own_mail(&mut self) {
        for _ in 0..OWN_MAIL_ROUNDS {
            let mut messages = self.service.worker.take_posted();
            if messages.is_empty() {
                return;
            }
            self.take_messages(&mut messages);
            self.service.worker.recycle_posted(messages);
            self.flush();
        }
    }

    pub(super) fn take_messages(&mut self, messages: &mut Vec<Message>) {
        let mut messages = messages.drain(..).peekable();
        while let Some(message) = messages.next() {
            let Message::Publish(first) = message else {
                self.take_message(message);
                continue;
            };
            // What was published to one channel in a row goes to each subscriber in one piece.
            let mut row = Row::new(&first);
            while let Some(Message::Publish(next)) = messages.peek()
                && row.join(&first, next)
            {
                messages.next();
            }
            match row.into_parts() {
                Some(parts) => self.pass_on(&parts, None),
                None => self.pass_on(&first.parts, first.publisher),
            }
        }
    }

    pub(super) fn take_message(&mut self, message: Message) {
        let client = match &message {
            Message::Kill(client)
            | Message::Recheck(client)
            | Message::Deliver(client, _)
            | Message::Invalidate(client, _, _)
            | Message::Dismiss(client, _, _) => Some(client),
            Message::Resume(waiter, _) => Some(&waiter.client),
            _ => None,
        };
        if client.is_some_and(|it| self.is_lent(Token(it.place.load(Ordering::Relaxed) as usize))) {
            self.core.missed.push(Missed::Message(message));
            return;
        }
        match message {
            Message::Accept(accepted) => self.welcome(*accepted),
            Message::Kill(client) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if self.core.connections.get_mut(token).is_some() {
                    self.close(token);
                }
            }
            Message::Recheck(client) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    connection.session.refresh_settings();
                    if connection.session.close_after_reply {
                        self.close(token);
                    }
                }
            }
            Message::Deliver(client, bytes) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    self.service.deliver(connection, &bytes);
                    self.touch(token);
                }
            }
            Message::Invalidate(client, bytes, on_the_way) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    self.service.deliver(connection, &bytes);
                    self.touch(token);
                    self.service.worker.to_flush.push(on_the_way);
                }
            }
            Message::Dismiss(client, bytes, logged) => {
                let token = Token(client.place.load(Ordering::Relaxed) as usize);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    connection.session.logged = connection.session.logged.max(logged);
                    self.service.deliver(connection, &bytes);
                    connection.close_when_flushed(self.service.worker.clock.monotonic_ms());
                    self.touch(token);
                }
            }
            Message::Publish(publication) => {
                self.pass_on(&publication.parts, publication.publisher);
            }
            Message::Resume(waiter, reply) => self.resume(&waiter, &reply),
            // The turn looks at those who wait, now that it has begun.
            Message::PauseOver => {}
            // So it does with its replicas.
            Message::Logged => {}
            Message::Feed => self.core.is_feed_urgent = true,
            Message::Synced => {
                for token in std::mem::take(&mut self.core.held) {
                    self.touch(token);
                }
            }
            Message::Listen(listeners) => {
                for listener in listeners {
                    self.core.doors.open(self.core.poll.registry(), listener);
                }
            }
            Message::Unlisten(ids) => self.core.doors.shut(self.core.poll.registry(), &ids),
            Message::Run(work) => work(&mut self.service.worker),
            Message::Sleep(end) => {
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
            }
            // Not from inside a command, which holds locks: after it.
            Message::Halt(gate) if self.spare.is_none() => {
                self.core.missed.push(Missed::Message(Message::Halt(gate)));
            }
            Message::Halt(gate) => {
                if gate.pass() == Verdict::End {
                    self.begin_farewell();
                }
            }
            Message::Shutdown => self.begin_farewell(),
        }
    }

    /// Gives each of this reactor's subscribers its copy.
    pub(super) fn pass_on(&mut self, parts: &[Part], publisher: Option<(usize, usize)>) {
        let mut tokens = std::mem::take(&mut self.core.subscribers);
        for part in parts {
            part.receivers(self.service.worker.reactor, &mut tokens);
            for token in tokens.drain(..) {
                if publisher == Some((self.service.worker.reactor, token)) {
                    continue;
                }
                let token = Token(token);
                if let Some(connection) = self.core.connections.get_mut(token) {
                    let bytes = part.bytes(connection.session.protocol);
                    self.service.deliver(connection, bytes);
                    self.touch(token);
                } else if let Some((lent, protocol)) = self.core.lent
                    && lent == token
                {
                    let bytes = Arc::clone(part.bytes(protocol));
                    self.core.missed.push(Missed::Bytes(token, bytes));
                }
            }
        }
        self.core.subscribers = tokens;
    }

    /// A client has waited long enough: it gets its reply, and what it has sent since runs.
    pub(super) fn resume(&mut self, waiter: &Arc<Waiter>, reply: &[u8]) {
        let token = Token(waiter.client.place.load(Ordering::Relaxed) as usize);
        let Some(connection) = self.core.connections.get_mut(token) else { return };
        if connection.session.waiter.as_ref().is_none_or(|own| !Arc::ptr_eq(own, waiter)) {
            return;
        }
        connection.session.waiter = None;
        if let Some(deadline_ms) = connection.wait_deadline_ms.take() {
            self.core.wait_deadlines.remove(&(deadline_ms, token));
        }
        let serve = |service: &mut Service, connection: &mut Connection| {
            service.end_wait(connection, reply)
        };
        if let Some(after) = self.serve(token, serve) {
            self.follow(token, after);
        }
    }
}
