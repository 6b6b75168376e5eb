//! How other threads reach a reactor: a queue of messages and a waker.
//!
//! Invariant: a queue that is not empty has had a wake-up since it was last emptied. So only the
//! message that finds the queue empty pays for the system call.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use mio::{Registry, Token, Waker};
use parking_lot::Mutex;

use crate::blocking::Waiter;
use crate::clients::ClientShared;
use crate::connection::Accepted;
use crate::eviction::OnTheWay;
use crate::halt::Gate;
use crate::listener::Listener;
use crate::pubsub::Publication;
use crate::session::Worker;

pub enum Message {
    /// A connection for this reactor to keep, from the one that accepts.
    Accept(Box<Accepted>),
    /// Close this client's connection now.
    Kill(Arc<ClientShared>),
    /// The client's user has changed: close the connection if it may not stay.
    Recheck(Arc<ClientShared>),
    /// Append these bytes, complete replies, to what the client is owed.
    Deliver(Arc<ClientShared>, Arc<[u8]>),
    /// The same, for keys that the client tracks.
    Invalidate(Arc<ClientShared>, Arc<[u8]>, OnTheWay),
    /// The same, and they are the last: close the connection when it has them. Up to there the log
    /// is to be on disk before, where replies wait for that.
    Dismiss(Arc<ClientShared>, Arc<[u8]>, u64),
    /// Pass these messages on to those of this reactor's clients that are subscribed to them.
    Publish(Arc<Publication>),
    /// The client's wait has ended: this is the reply, and what it has sent since may run.
    Resume(Arc<Waiter>, Vec<u8>),
    /// Take connections from these listeners too.
    Listen(Vec<Listener>),
    /// Stop taking connections from the listeners of these ids.
    Unlisten(Vec<u64>),
    /// A pause is over: look at those who wait for that.
    PauseOver,
    /// More of the log is on disk: look at those whose replies wait for that.
    Synced,
    /// There is more in the log for the replicas of this reactor.
    Logged,
    /// Give its replicas at once what there is for them.
    Feed,
    /// Do this.
    Run(Box<dyn FnOnce(&mut Worker) + Send>),
    /// Do nothing until then.
    Sleep(Instant),
    /// Stop, until it is known how to go on.
    Halt(Arc<Gate>),
    /// Stop accepting, flush, close every connection and end the thread.
    Shutdown,
}

pub struct Mailbox {
    queue: Mutex<Vec<Message>>,
    /// Whether `queue` holds something. Written with the lock held.
    has_mail: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// A mailbox whose messages show as events of `token`.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            has_mail: AtomicBool::new(false),
            waker: Waker::new(registry, token)?,
        })
    }

    pub fn post(&self, message: Message) {
        let was_empty = {
            let mut queue = self.queue.lock();
            queue.push(message);
            self.has_mail.store(true, Ordering::Release);
            queue.len() == 1
        };
        if was_empty {
            // Fails only where the kernel is out of memory; the reactor also looks at each tick.
            let _ = self.waker.wake();
        }
    }

    /// Posts these messages in their order, and leaves the vector empty.
    pub fn post_all(&self, messages: &mut Vec<Message>) {
        let was_empty = {
            let mut queue = self.queue.lock();
            let was_empty = queue.is_empty();
            queue.append(messages);
            self.has_mail.store(!queue.is_empty(), Ordering::Release);
            was_empty && !queue.is_empty()
        };
        if was_empty {
            let _ = self.waker.wake();
        }
    }

    /// Whether nothing waits; without a lock, for whoever asks often.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.has_mail.load(Ordering::Acquire)
    }

    /// Moves all waiting messages to the end of `into`, oldest first.
    pub fn take(&self, into: &mut Vec<Message>) {
        let mut queue = self.queue.lock();
        self.has_mail.store(false, Ordering::Release);
        if into.is_empty() {
            std::mem::swap(&mut *queue, into);
        } else {
            into.append(&mut queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    #[test]
    fn messages_arrive_in_order_with_one_wake_up_for_many() {
        let mut poll = Poll::new().unwrap();
        let mailbox = Mailbox::new(poll.registry(), Token(9)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100).for_each(|id| mailbox.post(Message::Unlisten(vec![id]))));
        });
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(9)]);

        let mut messages = Vec::new();
        mailbox.take(&mut messages);
        let ids: Vec<u64> = messages
            .iter()
            .map(|message| match message {
                Message::Unlisten(ids) => ids[0],
                _ => unreachable!("only these were sent"),
            })
            .collect();
        assert_eq!(ids, (0..100).collect::<Vec<_>>());

        messages.clear();
        assert!(mailbox.is_empty());
        mailbox.take(&mut messages);
        assert!(messages.is_empty());
        mailbox.post(Message::Shutdown);
        assert!(!mailbox.is_empty());
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert!(!events.is_empty(), "the first message after emptying wakes again");
        mailbox.take(&mut messages);

        events.clear();
        let mut several = vec![Message::PauseOver, Message::Shutdown];
        mailbox.post_all(&mut several);
        mailbox.post_all(&mut Vec::new());
        poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
        assert!(!events.is_empty() && several.is_empty());
        messages.clear();
        mailbox.take(&mut messages);
        assert!(matches!(*messages, [Message::PauseOver, Message::Shutdown]));
    }
}
