//! The two servers: the same commands to both, their replies side by side.
//!
//! The first connection takes commands in pipelines. As soon as another one has a part in it (it waits,
//! listens, or changes what is watched) commands go one by one, and what the servers do with them is
//! awaited: a client waits, or is served, on both before the next command goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::command::Command;
use super::compare::{Rule, Terms};
use super::peer::{CONNECTIONS, Peer};
use crate::reply::{Protocol, Reply};

/// How long the servers may take to get to the same state before they are said to differ.
const PATIENCE: Duration = Duration::from_millis(1500);

pub struct Pair {
    a: Peer,
    b: Peer,
    /// Whether differences of wording are overlooked.
    loosely: bool,
    /// How the replies to the commands queued on each connection are to be compared.
    queues: Vec<Vec<Terms>>,
    /// Connections that wait for something, and how what they wait for is to be compared.
    waiting: BTreeMap<usize, Terms>,
    /// Connections to which messages may come, and to how many channels and shard channels they listen.
    listening: BTreeMap<usize, [i64; 2]>,
    /// Makes the texts that tell when all messages have come.
    marks: u64,
}

/// What both servers answered, and how that is to be compared.
pub struct Exchange {
    pub terms: Terms,
    pub replies: (Reply, Reply),
}

/// What came of a step on one server.
#[derive(Default)]
struct Outcome {
    /// Replies and messages that came, by connection.
    news: Vec<Vec<Reply>>,
    waiting: BTreeSet<usize>,
}

impl Outcome {
    /// Whether another server's outcome is of the same form; if not yet, more may be under way.
    fn resembles(&self, other: &Self) -> bool {
        self.waiting == other.waiting
            && self.news.iter().zip(&other.news).all(|(a, b)| a.len() == b.len())
    }
}

impl Pair {
    /// Connects to two `HOST:PORT` addresses.
    pub fn connect(a: &str, b: &str, loosely: bool) -> Result<Self> {
        Ok(Self {
            a: Peer::connect("a", a)?,
            b: Peer::connect("b", b)?,
            loosely,
            queues: vec![Vec::new(); CONNECTIONS],
            waiting: BTreeMap::new(),
            listening: BTreeMap::new(),
            marks: 0,
        })
    }

    /// Whether the replies to a command say the same.
    pub fn agree(&self, Exchange { terms, replies: (a, b) }: &Exchange) -> bool {
        if self.loosely { terms.agree_loosely(a, b) } else { terms.agree(a, b) }
    }

    /// Sends commands to both, those in a row on the first connection before reading from either. Ends
    /// early where they differ in more than a reply.
    pub fn run(&mut self, commands: &[Command]) -> Result<Vec<Exchange>> {
        let mut exchanges = Vec::with_capacity(commands.len());
        let mut rest = commands;
        while let Some(first) = rest.first() {
            let alone = !self.waiting.is_empty() || !self.listening.is_empty();
            let is_plain =
                |command: &&Command| !alone && command.on == 0 && !command.has_stand_ins();
            let count = rest.iter().take_while(is_plain).count();
            if count == 0 {
                let exchange = self.step(first)?;
                let agrees = self.agree(&exchange);
                exchanges.push(exchange);
                if !agrees {
                    // Whoever waits on one server alone would be waited for in vain from here on.
                    return Ok(exchanges);
                }
                rest = &rest[1..];
            } else {
                self.pipeline(&rest[..count], &mut exchanges)?;
                rest = &rest[count..];
            }
        }
        Ok(exchanges)
    }

    fn pipeline(&mut self, commands: &[Command], exchanges: &mut Vec<Exchange>) -> Result<()> {
        for peer in [&mut self.a, &mut self.b] {
            peer.send_all(0, commands.iter().map(|command| &command.words))?;
        }
        let a = self.a.replies(0, commands.len())?;
        let b = self.b.replies(0, commands.len())?;
        for (command, replies) in commands.iter().zip(a.into_iter().zip(b)) {
            let terms = self.terms(command, &replies.0, &replies.1);
            exchanges.push(Exchange { terms, replies });
        }
        Ok(())
    }

    /// Whether a connection waits on the first server, for all that is known.
    pub fn is_waiting(&self, connection: usize) -> bool {
        self.waiting.contains_key(&connection)
    }

    /// What holds for the reply to a command: its own rule, or those of all that EXEC runs.
    fn terms(&mut self, command: &Command, a: &Reply, b: &Reply) -> Terms {
        let queue = &mut self.queues[command.on];
        let queued = Reply::Status(b"QUEUED".to_vec());
        if *a == queued && *b == queued {
            queue.push(command.terms.clone());
            return Rule::Exact.into();
        }
        match command.words[0].to_ascii_uppercase().as_slice() {
            b"EXEC" if command.words.len() == 1 => Terms::Each(std::mem::take(queue)),
            b"DISCARD" | b"MULTI" if command.words.len() == 1 && !a.is_error() => {
                queue.clear();
                Rule::Exact.into()
            }
            _ => command.terms.clone(),
        }
    }

    /// One command alone, and all that follows from it.
    fn step(&mut self, command: &Command) -> Result<Exchange> {
        if self.waiting.contains_key(&command.on) {
            // Shorter histories may leave out what would have served the connection.
            let waits = Reply::Status(b"(still waits)".to_vec());
            return Ok(Exchange { terms: Rule::Exact.into(), replies: (waits.clone(), waits) });
        }
        let payloads = self.payloads(command)?;
        self.a.send_all(command.on, [&self.a.filled_in(&command.words, &payloads)])?;
        self.b.send_all(command.on, [&self.b.filled_in(&command.words, &payloads)])?;
        if command.subscribes() {
            self.listening.entry(command.on).or_default();
        }
        if self.waiting.is_empty() && self.listening.is_empty() && !command.may_wait() {
            let a = self.a.replies(command.on, 1)?.remove(0);
            let b = self.b.replies(command.on, 1)?.remove(0);
            return Ok(Exchange { terms: self.terms(command, &a, &b), replies: (a, b) });
        }
        let deadline = Instant::now() + PATIENCE;
        let mut a = Outcome { news: vec![Vec::new(); CONNECTIONS], ..Outcome::default() };
        let mut b = Outcome { news: vec![Vec::new(); CONNECTIONS], ..Outcome::default() };
        loop {
            self.await_effects(command, true, &mut a)?;
            self.await_effects(command, false, &mut b)?;
            if a.resembles(&b) || Instant::now() > deadline {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(self.judge(command, a, b))
    }

    /// The payloads that one server makes of the keys that the command's words name.
    fn payloads(&mut self, command: &Command) -> Result<Vec<Vec<u8>>> {
        let mut payloads = Vec::new();
        for word in command.words.iter().filter(|word| word.starts_with(b"@dum")) {
            let Some((from, key)) = word.split_at_checked(6) else { continue };
            let dump = vec![b"DUMP".to_vec(), key.to_vec()];
            self.a.send_all(command.on, [&dump])?;
            self.b.send_all(command.on, [&dump])?;
            let (a, b) = (self.a.replies(command.on, 1)?, self.b.replies(command.on, 1)?);
            payloads.push(match if from == b"@dump:" { &a[0] } else { &b[0] } {
                Reply::Bulk(payload) => payload.clone(),
                _ => b"nothing".to_vec(),
            });
        }
        Ok(payloads)
    }

    /// Waits until one server has answered the command or lets the connection wait, until whoever waits
    /// no more has a reply, and until all messages have come.
    fn await_effects(
        &mut self,
        command: &Command,
        first: bool,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let peer = if first { &mut self.a } else { &mut self.b };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            for (connection, news) in outcome.news.iter_mut().enumerate() {
                peer.receive(connection, news)?;
            }
            let answered = !outcome.news[command.on].is_empty();
            let may_wait = !self.waiting.is_empty() || !(answered || command.waits_until_answered);
            outcome.waiting = if may_wait { peer.waiting()? } else { BTreeSet::new() };
            // What arrived between the reading and the question shows in the next round.
            let settled = |connection: &usize| {
                outcome.waiting.contains(connection) || !outcome.news[*connection].is_empty()
            };
            let own = answered
                || (outcome.waiting.contains(&command.on) && !command.waits_until_answered);
            if own && self.waiting.keys().all(settled) {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "server {} does not answer {}",
                peer.name,
                command.line()
            );
            std::thread::yield_now();
        }
        for &connection in self.listening.keys() {
            if !outcome.waiting.contains(&connection) {
                self.marks += 1;
                peer.flush_messages(connection, self.marks, &mut outcome.news[connection])?;
            }
        }
        Ok(())
    }

    /// All that the command brought about, side by side; remembers who waits.
    fn judge(&mut self, command: &Command, mut a: Outcome, mut b: Outcome) -> Exchange {
        for (connection, channels) in &mut self.listening {
            a.news[*connection].iter().for_each(|message| count_channels(message, channels));
        }
        self.listening.retain(|_, channels| *channels != [0, 0]);
        let own = (a.own_reply(command.on), b.own_reply(command.on));
        let terms = self.terms(command, &own.0, &own.1);
        let has_news = |at: usize| !a.news[at].is_empty() || !b.news[at].is_empty();
        let others: Vec<usize> = (0..CONNECTIONS).filter(|at| has_news(*at)).collect();
        if others.is_empty()
            && self.waiting.is_empty()
            && a.waiting.is_empty()
            && b.waiting.is_empty()
        {
            return Exchange { terms, replies: own };
        }
        let sooner = b.waiting.len() < a.waiting.len()
            && b.waiting.is_subset(&a.waiting)
            && command.may_replace_values();
        let mut all = vec![terms];
        for &connection in &others {
            let served = self.waiting.get(&connection).cloned();
            all.push(match self.listening.get(&connection) {
                // Patterns that match the same channel get it in any order.
                Some(channels) if channels[0] + channels[1] > 1 => Rule::Unordered.into(),
                _ => Terms::Each(vec![Rule::Exact.into(), served.unwrap_or(Rule::Exact.into())]),
            });
        }
        let replies = (a.summary(own.0, &others), b.summary(own.1, &others));
        self.waiting.retain(|connection, _| a.waiting.contains(connection));
        for &connection in &a.waiting {
            self.waiting.entry(connection).or_insert_with(|| command.terms.clone());
        }
        let terms = if sooner { Rule::Sooner.into() } else { Terms::Each(all) };
        Exchange { terms, replies }
    }

    /// One command given as text, to both.
    pub fn both(&mut self, command: &str) -> Result<(Reply, Reply)> {
        Ok((self.a.call(command)?, self.b.call(command)?))
    }

    /// Empties both servers, ends all waiting, and goes back to database 0.
    pub fn reset(&mut self, protocol: Protocol) -> Result<()> {
        self.waiting.clear();
        self.listening.clear();
        self.queues.iter_mut().for_each(Vec::clear);
        for peer in [&mut self.a, &mut self.b] {
            peer.reset(protocol)?;
        }
        Ok(())
    }
}

/// Learns from a message how many channels are listened to.
fn count_channels(message: &Reply, channels: &mut [i64; 2]) {
    let (Reply::Array(items) | Reply::Push(items)) = message else { return };
    if let [Reply::Bulk(kind), _, Reply::Integer(count)] = &items[..]
        && kind.ends_with(b"subscribe")
    {
        let is_shard = kind.starts_with(b"ss") || kind.starts_with(b"su");
        channels[usize::from(is_shard && kind != b"subscribe")] = *count;
    }
}

impl Outcome {
    /// The reply to the command itself, or several, taken out of the news.
    fn own_reply(&mut self, connection: usize) -> Reply {
        let mut own = std::mem::take(&mut self.news[connection]);
        match own.len() {
            0 => Reply::Status(b"(waits)".to_vec()),
            1 => own.remove(0),
            _ => Reply::Array(own),
        }
    }

    /// One reply made of all that came: the command's own, then those of other connections.
    fn summary(&mut self, own: Reply, others: &[usize]) -> Reply {
        let mut all = vec![own];
        for &connection in others {
            let label = Reply::Status(format!("connection-{connection}:").into_bytes());
            let news = std::mem::take(&mut self.news[connection]);
            all.push(Reply::Array(std::iter::once(label).chain(news).collect()));
        }
        let waiting: Vec<String> = self.waiting.iter().map(usize::to_string).collect();
        all.push(Reply::Status(format!("waiting:{}", waiting.join(",")).into_bytes()));
        Reply::Array(all)
    }
}
