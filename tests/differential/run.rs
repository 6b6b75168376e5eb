//! The main loop: batches, comparisons, reports.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::Result;

use super::command::Command;
use super::generate::Generator;
use super::pair::{Exchange, Pair};
use super::shrink::{broken, keys_of, shrink};
use super::snapshot;
use crate::reply::{Protocol, Reply};

pub struct Settings {
    pub a: String,
    pub b: String,
    pub commands: u64,
    pub seed: u64,
    /// Empty for all.
    pub groups: Vec<String>,
    /// Stop after so many different differences.
    pub differences_max: usize,
    /// Compare OBJECT ENCODING, which servers of different generations answer differently.
    pub encodings: bool,
    /// Leave out commands that one of the servers does not have.
    pub common_only: bool,
    /// Overlook how errors and numbers are worded, for servers of different generations.
    pub loosely: bool,
    /// Command names to leave out.
    pub without: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Summary {
    pub commands: u64,
    /// How many replies were errors: too few or too many would make the run say little.
    pub errors: u64,
    /// All differences met, also those of a kind already reported.
    pub differences: u64,
    /// Differences that say nothing; the servers are emptied behind each.
    pub overlooked: u64,
    /// One text for each kind of difference.
    pub reports: Vec<String>,
}

/// Commands in one pipeline.
const BATCH: usize = 200;
/// Batches between two emptyings, each time with the other protocol.
const EPOCH: u64 = 100;
/// Batches between two comparisons of all data.
const SNAPSHOT: u64 = 10;

pub fn run(settings: &Settings) -> Result<Summary> {
    let mut pair = Pair::connect(&settings.a, &settings.b, settings.loosely)?;
    let mut left_out = settings.without.clone();
    if settings.common_only {
        left_out.extend(unknown_commands(&mut pair)?);
    }
    if !settings.encodings {
        left_out.push("OBJECT".to_owned());
    }
    let mut state = State {
        generator: Generator::new(settings.seed, &settings.groups, &left_out)?,
        pair,
        settings,
        protocol: Protocol::Resp2,
        history: Vec::new(),
        seen: HashSet::new(),
        summary: Summary::default(),
    };
    let start = Instant::now();
    let batches = settings.commands.div_ceil(BATCH as u64);
    for batch in 0..batches {
        if batch.is_multiple_of(EPOCH) {
            state.begin_epoch(batch / EPOCH)?;
        }
        state.run_batch()?;
        if (batch + 1).is_multiple_of(SNAPSHOT) {
            state.compare_all()?;
        }
        if state.summary.reports.len() >= settings.differences_max {
            break;
        }
        if (batch + 1).is_multiple_of(500) {
            eprintln!(
                "{} commands in {:.0} s, {} differences",
                state.summary.commands,
                start.elapsed().as_secs_f64(),
                state.summary.differences
            );
        }
    }
    Ok(state.summary)
}

/// The commands we could generate that one of the servers does not know.
fn unknown_commands(pair: &mut Pair) -> Result<Vec<String>> {
    let mut unknown = Vec::new();
    for name in Generator::names() {
        let (a, b) = pair.both(&format!("COMMAND INFO {name}"))?;
        let is_unknown = |reply: &Reply| reply.is_error() || reply.elements()[0].is_null();
        if is_unknown(&a) || is_unknown(&b) {
            unknown.push(name);
        }
    }
    Ok(unknown)
}

struct State<'a> {
    settings: &'a Settings,
    generator: Generator,
    pair: Pair,
    protocol: Protocol,
    /// Everything sent since the servers were last emptied.
    history: Vec<Command>,
    seen: HashSet<String>,
    summary: Summary,
}

impl State<'_> {
    fn begin_epoch(&mut self, epoch: u64) -> Result<()> {
        self.protocol = if epoch.is_multiple_of(2) { Protocol::Resp2 } else { Protocol::Resp3 };
        self.start_over()
    }

    fn start_over(&mut self) -> Result<()> {
        self.history.clear();
        self.pair.reset(self.protocol)
    }

    fn run_batch(&mut self) -> Result<()> {
        let commands = self.generator.batch(BATCH);
        let exchanges = match self.pair.run(&commands) {
            Ok(exchanges) => exchanges,
            Err(error) => return self.find_breaking(commands, &error),
        };
        self.summary.commands += exchanges.len() as u64;
        let is_error = |exchange: &&Exchange| exchange.replies.0.is_error();
        self.summary.errors += exchanges.iter().filter(is_error).count() as u64;
        let differing = exchanges.iter().position(|exchange| !self.pair.agree(exchange));
        let Some(at) = differing else {
            self.history.extend(commands);
            // A first connection that waits says nothing any more.
            return if self.pair.is_waiting(0) { self.start_over() } else { Ok(()) };
        };
        // What came behind the first difference may only follow from it.
        self.history.extend_from_slice(&commands[..at]);
        let Exchange { terms, replies: (a, b) } = &exchanges[at];
        if terms.is_left_to_chance(a, b) {
            self.summary.overlooked += 1;
        } else {
            self.report(&commands[at], &exchanges[at].replies)?;
        }
        self.start_over()
    }

    /// Finds the command of a batch after which a server closed the connection or fell silent.
    fn find_breaking(&mut self, commands: Vec<Command>, error: &anyhow::Error) -> Result<()> {
        let history = self.history.clone();
        self.start_over()?;
        self.pair.run(&history)?;
        self.history = history;
        for command in commands {
            if let Err(error) = self.pair.run(std::slice::from_ref(&command)) {
                self.report(&command, &broken(&error))?;
                return self.start_over();
            }
            self.history.push(command);
        }
        self.summary.differences += 1;
        let text = format!(
            "seed {} after {} commands, does not happen again: {error:#}",
            self.settings.seed, self.summary.commands
        );
        eprintln!("{text}");
        self.summary.reports.push(text);
        self.start_over()
    }

    fn compare_all(&mut self) -> Result<()> {
        let Some(mismatch) = snapshot::compare(&mut self.pair, self.settings.encodings)? else {
            return Ok(());
        };
        self.report(&mismatch.command, &mismatch.replies)?;
        self.start_over()
    }

    fn report(&mut self, command: &Command, replies: &(Reply, Reply)) -> Result<()> {
        self.summary.differences += 1;
        let signature = signature(command, replies);
        if !self.seen.insert(signature) {
            return Ok(());
        }
        let mut text = format!(
            "difference with seed {} after {} commands, {:?}\n",
            self.settings.seed, self.summary.commands, self.protocol
        );
        let history = std::mem::take(&mut self.history);
        match shrink(&mut self.pair, self.protocol, &history, command)? {
            Some(found) => {
                for command in &found.history {
                    text.push_str(&format!("    {}\n", command.line()));
                }
                text.push_str(&outcome(command, &found.replies));
            }
            None => {
                text.push_str(
                    "  does not happen again on a replay; the last commands on its keys:\n",
                );
                let keys = keys_of(command);
                let touching: Vec<&Command> = history
                    .iter()
                    .filter(|other| keys_of(other).iter().any(|key| keys.contains(key)))
                    .collect();
                for command in touching.iter().rev().take(30).rev() {
                    text.push_str(&format!("    {}\n", command.line()));
                }
                text.push_str(&outcome(command, replies));
            }
        }
        eprintln!("{text}");
        self.summary.reports.push(text);
        Ok(())
    }
}

/// Differences of one signature are taken to have one cause.
fn signature(command: &Command, (a, b): &(Reply, Reply)) -> String {
    let name = String::from_utf8_lossy(&command.words[0]).to_uppercase();
    let kind = |reply: &Reply| match reply {
        Reply::Error(text) => String::from_utf8_lossy(text).chars().take(30).collect(),
        other => format!("{:?}", std::mem::discriminant(other)),
    };
    format!("{name} {} {}", kind(a), kind(b))
}

fn outcome(command: &Command, (a, b): &(Reply, Reply)) -> String {
    let short = |reply: &Reply| -> String {
        let text = reply.to_string();
        match text.char_indices().nth(1500) {
            None => text,
            Some((cut, _)) => format!("{}… ({} bytes)", &text[..cut], text.len()),
        }
    };
    format!("  {}\n    a: {}\n    b: {}\n", command.line(), short(a), short(b))
}
