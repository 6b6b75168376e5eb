//! Memory in huge pages, by a thread of its own.
//!
//! With millions of keys nearly every look-up misses the TLB otherwise. But whoever touches memory that is advised
//! to be huge waits until the kernel has found a huge page, for which it may have to move others. So memory
//! begins as small pages, and those that are all in use are exchanged for a huge one here, while nobody waits.
//! Nothing becomes larger by that. Redis advises against huge pages because a snapshot's `fork` would copy
//! whole ones; there is no fork here.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::allocator::{self, Collapse};
use crate::log;

const SETTINGS: &str = "/sys/kernel/mm/transparent_hugepage";

/// Between two looks while memory grows, and else.
const PAUSE_GROWING: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_secs(1);

/// An exchange keeps the process from getting new pages for as long as it takes. So while it gets many there is
/// none, for so long at the most,
const GROWTH_MAX: Duration = Duration::from_secs(10);
/// and others come in between.
const PAUSE_BETWEEN: Duration = Duration::from_millis(1);

/// After this time all is looked at again: what was given back and taken anew is in small pages.
const LIFE: Duration = Duration::from_secs(60);

/// Starts the thread, unless the machine has no huge pages, or is set to have none.
pub fn start() {
    let Some(bytes) = huge_bytes() else { return };
    let run = move || {
        if let Err(error) = Keeper::new(bytes).and_then(Keeper::run) {
            log::verbose!("Memory stays in small pages: {error}");
        }
    };
    if let Err(error) = std::thread::Builder::new().name("huge-pages".into()).spawn(run) {
        log::warning!("Memory stays in small pages: {error}");
    }
}

fn huge_bytes() -> Option<usize> {
    let mode = fs::read_to_string(format!("{SETTINGS}/enabled")).ok()?;
    let bytes = fs::read_to_string(format!("{SETTINGS}/hpage_pmd_size")).ok()?;
    if mode.contains("[never]") { None } else { bytes.trim().parse().ok() }
}

struct Keeper {
    /// Of a huge page, and of a small one.
    huge: usize,
    page: usize,
    page_map: File,
    entries: Vec<u8>,
    /// Addresses of what needs no other look before `forget_at`.
    done: HashSet<usize>,
    forget_at: Instant,
}

impl Keeper {
    fn new(huge: usize) -> io::Result<Self> {
        let page = rustix::param::page_size();
        Ok(Self {
            huge,
            page,
            page_map: File::open("/proc/self/pagemap")?,
            entries: vec![0; huge / page * ENTRY_BYTES],
            done: HashSet::new(),
            forget_at: Instant::now() + LIFE,
        })
    }

    fn run(mut self) -> io::Result<()> {
        // What there was when it was all looked at, what there was a moment ago, and since when more has come.
        let (mut seen, mut before, mut growing_since) = (0, 0, None);
        loop {
            let (now, resident) = (Instant::now(), self.resident()?);
            let has_grown = seen + self.huge <= resident;
            let since = *growing_since.get_or_insert(now);
            let is_at_rest = resident < before + self.huge || since + GROWTH_MAX <= now;
            before = resident;
            if self.forget_at <= now {
                self.done.clear();
                self.forget_at = now + LIFE;
                self.exchange()?;
            } else if has_grown && is_at_rest {
                self.exchange()?;
                seen = resident;
            }
            if seen == resident || !has_grown {
                growing_since = None;
            }
            // What it shrinks by may come again.
            seen = seen.min(resident);
            sleep(if has_grown { PAUSE_GROWING } else { PAUSE });
        }
    }

    /// Bytes of memory that the process has.
    fn resident(&self) -> io::Result<usize> {
        let text = fs::read_to_string("/proc/self/statm")?;
        let pages: Option<usize> = text.split(' ').nth(1).and_then(|it| it.parse().ok());
        Ok(pages.ok_or_else(|| io::Error::other("/proc/self/statm does not tell"))? * self.page)
    }

    /// Makes huge pages of what is all in use.
    fn exchange(&mut self) -> io::Result<()> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        for (start, end) in maps.lines().filter_map(anonymous) {
            let mut at = start.next_multiple_of(self.huge);
            while at + self.huge <= end {
                if !self.done.contains(&at) && self.is_in_use(at)? {
                    let begun = Instant::now();
                    match allocator::collapse(at, self.huge) {
                        Collapse::Done => _ = self.done.insert(at),
                        Collapse::Later => return Ok(()),
                        Collapse::Impossible(error) => return Err(error),
                    }
                    // One that was huge takes no time.
                    if PAUSE_BETWEEN / 10 < begun.elapsed() {
                        sleep(PAUSE_BETWEEN);
                    }
                }
                at += self.huge;
            }
        }
        Ok(())
    }

    /// Whether each small page from there has been touched.
    fn is_in_use(&mut self, at: usize) -> io::Result<bool> {
        let place = (at / self.page * ENTRY_BYTES) as u64;
        self.page_map.read_exact_at(&mut self.entries, place)?;
        Ok(self.entries.chunks_exact(ENTRY_BYTES).all(is_present))
    }
}

/// Of a page's entry in `/proc/self/pagemap`.
const ENTRY_BYTES: usize = 8;

fn is_present(entry: &[u8]) -> bool {
    entry.try_into().is_ok_and(|entry| u64::from_ne_bytes(entry) >> 63 == 1)
}

/// Where the memory of a line of `/proc/self/maps` lies, if it is private, to be written to, and of no file.
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    // Then come the offset, the device, the inode, and the name.
    if words.next() != Some("rw-p") || words.nth(2) != Some("0") || words.next().is_some() {
        return None;
    }
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_of_no_file_that_can_be_written_to_is_looked_at() {
        let line = "7f2a00000000-7f2a40000000 rw-p 00000000 00:00 0 ";
        assert_eq!(anonymous(line), Some((0x7f2a_0000_0000, 0x7f2a_4000_0000)));
        for line in [
            "7f2a00000000-7f2a40000000 r--p 00000000 00:00 0 ",
            "7f2a00000000-7f2a40000000 rw-s 00000000 00:00 0 ",
            "7f2a00000000-7f2a40000000 rw-p 00000000 fe:00 1234  /usr/lib/libc.so.6",
            "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0  [stack]",
            "nonsense",
            "",
        ] {
            assert_eq!(anonymous(line), None, "{line}");
        }
    }

    #[test]
    fn what_was_not_touched_whole_is_not_in_use() {
        let Some(huge) = huge_bytes() else { return };
        let mut keeper = Keeper::new(huge).unwrap();
        const COUNT: usize = 64;
        let mut memory: Vec<u8> = Vec::with_capacity((COUNT + 1) * huge);
        let at = (memory.as_ptr() as usize).next_multiple_of(huge);
        let from = at - memory.as_ptr() as usize;
        memory.resize(from + huge, 1);
        assert!(keeper.is_in_use(at).unwrap());
        assert!((1..COUNT).any(|count| !keeper.is_in_use(at + count * huge).unwrap()));
        keeper.exchange().unwrap();
        assert!(memory[from..].iter().all(|byte| *byte == 1));
    }
}
