//! Crash test: a server is killed at random moments while it is written to, and started again.
//!
//! Each connection makes operations of which every one follows from its number, so what a
//! server has after a start says how far it came, and must be exactly what the operations up to there
//! leave: nothing lost before, nothing from after, nothing from a past that was given up. How much may be
//! missing depends on [`Mode`]. Across connections the state must be one that was there at some instant:
//! whatever was acknowledged before another surviving operation was sent survives too.
//!
//! `cargo run -p carnelian-tests --bin crash -- --mode always --rounds 500`

mod disk;
mod load;
mod model;
mod process;
mod verdict;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;

use disk::Disk;
use load::Load;
use model::State;
use process::Process;
use verdict::{Moment, Snapshot, Verdict};

/// What the server promises to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `appendfsync always`: every write that was acknowledged.
    Always,
    /// `appendfsync everysec`: those of all but the last moment.
    EverySecond,
    /// Snapshots only: the last complete one.
    Snapshot,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub program: PathBuf,
    /// More arguments for the server.
    pub arguments: Vec<String>,
    pub mode: Mode,
    pub rounds: u32,
    pub seed: u64,
    pub connections: usize,
    /// Cut the last bytes of the newest append-only file after each kill.
    pub torn: bool,
    /// Keep the files on a small disk of their own, and fill it in each round. Needs root.
    pub full_disk: bool,
    /// What `everysec` may lose, in milliseconds before the kill.
    pub allowed_ms: u64,
    /// Longest time from the first writes to the kill, in milliseconds.
    pub load_ms_max: u64,
}

impl Settings {
    pub fn new(program: PathBuf, mode: Mode) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            mode,
            rounds: 20,
            seed: fastrand::u64(..),
            connections: 12,
            torn: false,
            full_disk: false,
            allowed_ms: 1000,
            load_ms_max: 400,
        }
    }
}

/// What came of a series that found nothing wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub rounds: u32,
    pub acknowledged: u64,
    pub refused: u64,
    /// Acknowledged operations that did not survive, where the mode allows it,
    pub lost: u64,
    /// and how long before the kill the oldest of them was acknowledged.
    pub oldest_lost: Duration,
    /// Snapshots that were complete, rewrites that were begun.
    pub jobs: u32,
    pub exits: u32,
}

/// Runs the rounds. The folder of a series that failed is kept, and named in the error.
pub fn run(settings: &Settings) -> Result<Summary> {
    let disk = Disk::new(settings.full_disk)?;
    let mut series = Series {
        settings,
        rng: Rng::with_seed(settings.seed),
        summary: Summary::default(),
        states: vec![State::default(); settings.connections],
    };
    match series.run(&disk) {
        Ok(()) => Ok(series.summary),
        Err(error) => {
            let (folder, seed) = (disk.keep(), settings.seed);
            Err(error.context(format!("seed {seed}, files in {}", folder.display())))
        }
    }
}

struct Series<'a> {
    settings: &'a Settings,
    rng: Rng,
    summary: Summary,
    /// What each connection's operations have left, as the last start has found it.
    states: Vec<State>,
}

impl Series<'_> {
    fn run(&mut self, disk: &Disk) -> Result<()> {
        let mut process = Process::start(self.settings, disk.folder())?;
        for round in 1..=self.settings.rounds {
            process = self
                .round(round, process, disk)
                .with_context(|| format!("round {round} of {}", self.settings.rounds))?;
            self.summary.rounds = round;
        }
        process.kill()
    }

    /// Writes, kills, starts again, and looks at what is there.
    fn round(&mut self, round: u32, mut process: Process, disk: &Disk) -> Result<Process> {
        let firsts = self.states.iter().map(|state| state.latest() + 1);
        let load = Load::new(round, process.port(), firsts, &mut self.rng);
        let snapshots = thread::scope(|scope| {
            let threads = load.spawn(scope);
            let disturbed = self.disturb(&load, &mut process, disk);
            // Whatever has happened: without a server the threads end.
            let moment = Moment { killed: Instant::now() };
            let killed = process.kill();
            for thread in threads {
                thread.join().expect("a thread that does not panic")?;
            }
            killed.and(disturbed).map(|snapshots| (snapshots, moment))
        });
        let (snapshots, moment) = snapshots?;
        let cut = match self.settings.torn {
            true => disk.tear_newest(self.rng.u64(1..=64))?,
            false => 0,
        };
        if !process::is_carnelian(&self.settings.program) {
            disk.remove_leftovers()?;
        }

        let process = Process::start(self.settings, disk.folder())?;
        let found = model::read(process.port(), self.settings.connections)?;
        let verdict = Verdict {
            settings: self.settings,
            before: &self.states,
            journals: load.journals(),
            snapshots,
            moment,
            cut,
        };
        verdict.check(&found, &mut self.summary)?;
        self.states = found;
        Ok(process)
    }

    /// Lets the load go on for a while, with what the mode asks for beside it.
    fn disturb(
        &mut self,
        load: &Load,
        process: &mut Process,
        disk: &Disk,
    ) -> Result<Vec<Snapshot>> {
        load.wait_for_acknowledged(4 * self.settings.connections as u64, process)?;
        let wait = Duration::from_millis(self.rng.u64(1..=self.settings.load_ms_max));
        let end = Instant::now() + wait;
        let mut snapshots = Vec::new();
        match self.settings.mode {
            Mode::Snapshot => {
                snapshots = load::save_until(end, load, process, &mut self.rng)?;
                let complete = snapshots.iter().filter(|snapshot| snapshot.is_complete);
                self.summary.jobs += complete.count() as u32;
            }
            Mode::Always | Mode::EverySecond if self.rng.u8(..) < 100 => {
                thread::sleep(wait.mul_f64(self.rng.f64()));
                let reply = process.call("BGREWRITEAOF")?;
                self.summary.jobs += u32::from(!reply.is_error());
            }
            _ => {}
        }
        if self.settings.full_disk && !self.fill(load, process, disk)? {
            self.summary.exits += 1;
            return Ok(snapshots);
        }
        thread::sleep(end.saturating_duration_since(Instant::now()));
        ensure!(process.is_running(), "the server has ended by itself:\n{}", process.log());
        Ok(snapshots)
    }

    /// Fills the disk and makes room again: writes are refused meanwhile, and only meanwhile. `false` if
    /// the server ends instead, as others do.
    fn fill(&mut self, load: &Load, process: &mut Process, disk: &Disk) -> Result<bool> {
        disk.fill()?;
        let full = process.wait_for_refusal().and_then(|()| {
            let reply = process.call("DBSIZE")?;
            ensure!(!reply.is_error(), "a read is refused on a full disk: {reply}");
            // Sometimes the end comes while there is no room.
            Ok(self.rng.u8(..) < 64)
        });
        match full {
            Ok(true) => {
                disk.make_room()?;
                Ok(true)
            }
            Ok(false) => {
                disk.make_room()?;
                load.wait_for_acknowledged(4 * self.settings.connections as u64, process)?;
                Ok(true)
            }
            Err(_) if !process.is_running() && !process::is_carnelian(&self.settings.program) => {
                disk.make_room()?;
                Ok(false)
            }
            Err(error) => bail!(error.context(process.log())),
        }
    }
}
