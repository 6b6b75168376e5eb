//! Whether a server has kept what it had to.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::load::{Entry, Outcome};
use super::model::State;
use super::{Mode, Settings, Summary};

/// One round: what was done, and what happened to it.
pub struct Verdict<'a> {
    pub settings: &'a Settings,
    /// What the connections' operations had left before.
    pub before: &'a [State],
    pub journals: Vec<Vec<Entry>>,
    pub snapshots: Vec<Snapshot>,
    pub moment: Moment,
    /// Bytes that were cut off.
    pub cut: u64,
}

/// When the server was killed.
#[derive(Clone, Copy)]
pub struct Moment {
    pub killed: Instant,
}

/// A snapshot shows an instant between these two, on the clock of [`Entry`].
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    pub begun: u64,
    pub answered: u64,
    pub is_complete: bool,
}

impl Verdict<'_> {
    pub fn check(&self, found: &[State], summary: &mut Summary) -> Result<()> {
        let mut kept = Vec::new();
        for (connection, found) in found.iter().enumerate() {
            kept.push(self.kept(connection, found)?);
        }
        self.check_instant(&kept)?;
        match self.settings.mode {
            Mode::Snapshot => self.check_snapshots(&kept)?,
            Mode::Always | Mode::EverySecond => self.check_losses(&kept)?,
        }

        summary.refused += self.refused();
        for (journal, kept) in self.journals.iter().zip(kept) {
            summary.acknowledged += acknowledged(journal).count() as u64;
            for (_, at) in acknowledged(&journal[kept..]) {
                summary.lost += 1;
                let age = self.moment.killed.saturating_duration_since(at);
                summary.oldest_lost = summary.oldest_lost.max(age);
            }
        }
        Ok(())
    }

    fn refused(&self) -> u64 {
        let entries = self.journals.iter().flatten();
        entries.filter(|entry| matches!(entry.outcome, Outcome::Refused)).count() as u64
    }

    /// How many of a connection's operations there are; those must have left exactly what was found.
    fn kept(&self, connection: usize, found: &State) -> Result<usize> {
        let (before, journal) = (&self.before[connection], &self.journals[connection]);
        let latest = found.latest();
        ensure!(
            before.latest() <= latest,
            "connection {connection} is back at operation {latest}, \
            and {} was there when the server started before",
            before.latest()
        );
        let kept = journal.partition_point(|entry| entry.stamp.number <= latest);
        let known = journal[..kept].partition_point(|entry| !is_unknown(entry));
        let mut expected = before.clone();
        for entry in journal[..known].iter().filter(|entry| !is_refused(entry)) {
            expected.apply(entry.stamp);
        }
        let unknown = &journal[known..kept];
        if self.settings.full_disk && some_leave(&expected, unknown, found) {
            return Ok(kept);
        }
        unknown.iter().for_each(|entry| expected.apply(entry.stamp));
        ensure!(
            *found == expected,
            "after operation {latest} of connection {connection} there should be something else:\n{}",
            found.difference(&expected)
        );
        Ok(kept)
    }

    /// What was known to be done before something that survived was sent has to be there too.
    fn check_instant(&self, kept: &[usize]) -> Result<()> {
        let Some(last_sent) = self.last_sent(kept) else { return Ok(()) };
        self.check_has_all(kept, |known, _| known < last_sent, "though something later survived")
    }

    /// When the last surviving operation was sent.
    fn last_sent(&self, kept: &[usize]) -> Option<u64> {
        let last = |(journal, kept): (&Vec<Entry>, &usize)| {
            Some(journal[..*kept].iter().rfind(|entry| !is_refused(entry))?.sent)
        };
        self.journals.iter().zip(kept).filter_map(last).max()
    }

    fn check_has_all(
        &self,
        kept: &[usize],
        needed: impl Fn(u64, Instant) -> bool,
        why: &str,
    ) -> Result<()> {
        for (connection, (journal, kept)) in self.journals.iter().zip(kept).enumerate() {
            for entry in &journal[*kept..] {
                let Some((known, at)) = entry.acknowledged() else { continue };
                if needed(known, at) {
                    let age = self.moment.killed.saturating_duration_since(at);
                    bail!(
                        "connection {connection} has lost operation {}, which was acknowledged \
                        {age:?} before the kill, {why}",
                        entry.stamp.number
                    );
                }
            }
        }
        Ok(())
    }

    fn check_losses(&self, kept: &[usize]) -> Result<()> {
        if self.settings.torn {
            return self.check_torn(kept);
        }
        let allowed = match self.settings.mode {
            Mode::EverySecond => Duration::from_millis(self.settings.allowed_ms),
            _ => Duration::ZERO,
        };
        let needed = |_, at: Instant| match allowed {
            Duration::ZERO => true,
            allowed => at + allowed < self.moment.killed,
        };
        self.check_has_all(kept, needed, "and had to keep it")
    }

    /// No more may be missing than was in the bytes that were cut off, and in the command that these were
    /// a part of. A sealed file loses a whole frame.
    fn check_torn(&self, kept: &[usize]) -> Result<()> {
        if self.settings.mode != Mode::Always || self.settings.is_sealed() {
            return Ok(());
        }
        let lost = self.journals.iter().zip(kept).flat_map(|(journal, kept)| &journal[*kept..]);
        let lost = lost.filter(|entry| entry.acknowledged().is_some());
        let sizes: Vec<u64> = lost.map(|entry| entry.stamp.bytes()).collect();
        let longest = sizes.iter().max().copied().unwrap_or(0);
        let needed = sizes.iter().sum::<u64>() - longest;
        ensure!(
            needed <= self.cut,
            "{} operations are lost, and only {} bytes were cut off",
            sizes.len(),
            self.cut
        );
        Ok(())
    }

    /// The last complete snapshot it is, or the one that was being written.
    fn check_snapshots(&self, kept: &[usize]) -> Result<()> {
        let complete = self.snapshots.iter().rev().find(|snapshot| snapshot.is_complete);
        let unfinished = self.snapshots.last().filter(|snapshot| !snapshot.is_complete);
        let unfinished = unfinished.map(|snapshot| self.check_snapshot(kept, snapshot));
        if matches!(unfinished, Some(Ok(()))) {
            return Ok(());
        }
        match complete {
            Some(snapshot) => self.check_snapshot(kept, snapshot),
            None => {
                ensure!(
                    kept.iter().all(|kept| *kept == 0),
                    "nothing was saved, and yet it is there"
                );
                Ok(())
            }
        }
    }

    fn check_snapshot(&self, kept: &[usize], snapshot: &Snapshot) -> Result<()> {
        if let Some(last_sent) = self.last_sent(kept) {
            ensure!(
                last_sent < snapshot.answered,
                "there is something from {last_sent}, after the last complete snapshot: {snapshot:?}"
            );
        }
        let needed = |known, _| known < snapshot.begun;
        self.check_has_all(kept, needed, &format!("and was there at {snapshot:?}"))
    }
}

impl Settings {
    fn is_sealed(&self) -> bool {
        self.arguments.iter().any(|argument| argument.contains("data-at-rest-encryption"))
    }
}

/// Whether `found` is what some of these operations leave. The answers to them did not come, so the
/// others may have been refused.
fn some_leave(before: &State, unknown: &[Entry], found: &State) -> bool {
    let Some((first, rest)) = unknown.split_first() else { return before == found };
    let mut with = before.clone();
    with.apply(first.stamp);
    some_leave(&with, rest, found) || some_leave(before, rest, found)
}

fn is_unknown(entry: &Entry) -> bool {
    matches!(entry.outcome, Outcome::Unknown)
}

fn is_refused(entry: &Entry) -> bool {
    matches!(entry.outcome, Outcome::Refused)
}

fn acknowledged(journal: &[Entry]) -> impl Iterator<Item = (u64, Instant)> {
    journal.iter().filter_map(Entry::acknowledged)
}
