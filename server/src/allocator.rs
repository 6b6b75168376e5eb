//! The process's memory: jemalloc, with alignments passed in full.
//!
//! Our jemalloc is built with 8-byte steps between small size classes (`.cargo/config.toml`), so
//! that a 56-byte entry takes 56 bytes. A plain `malloc` then promises 8-byte alignment and no more,
//! while the usual Rust binding takes 16 for granted and leaves the alignment out of the call up to
//! there. So this crate has its own few lines, which name every alignment above 8.
//!
//! The only module of this crate with `unsafe` in it.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::c_int;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use jemalloc_ctl::thread::ThreadLocal;
use jemalloc_sys::{MALLOCX_ZERO, calloc, malloc, mallocx, rallocx, realloc, sdallocx};

/// The alignment that jemalloc gives without being asked, as `LG_QUANTUM` says.
const ALIGNMENT_OF_MALLOC: usize = 8;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

struct Jemalloc;

/// Bytes that the program holds: what Redis calls `used_memory`.
///
/// The sum of what all threads last published, with the caller's own balance as it is now: a few
/// loads, so that every command may ask when memory is short.
pub fn used_memory() -> usize {
    publish();
    let threads = ACCOUNTS_OPENED.load(Ordering::Relaxed).min(ACCOUNTS_MAX);
    let open: i64 = ACCOUNTS[..threads].iter().map(|it| it.0.load(Ordering::Relaxed)).sum();
    usize::try_from(open + CLOSED.load(Ordering::Relaxed)).unwrap_or(0)
}

/// Bytes that threads have taken for buffers of the moment, by their own account: they are in use, and give way by
/// themselves.
pub fn passing_memory() -> usize {
    PASSING.load(Ordering::Relaxed)
}

/// The calling thread's such buffers have grown or shrunk.
pub fn note_passing(before: usize, now: usize) {
    // Wrapping, so that a difference of either sign is added.
    PASSING.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
}

/// Bytes that the calling thread has allocated so far, less those that it has freed: jemalloc counts
/// both for each thread anyway. Less than 0 for a thread that frees what others have made.
#[inline]
pub fn balance() -> i64 {
    ACCOUNT.try_with(Account::balance).unwrap_or(0)
}

/// Bytes that the calling thread has allocated so far, and those that it has freed. Neither ever shrinks.
#[inline]
pub fn turnover() -> (u64, u64) {
    ACCOUNT.try_with(Account::turnover).unwrap_or_default()
}

/// Lets others see the balance of the calling thread. Threads that allocate or free much do this
/// regularly; reactors once a turn.
#[inline]
pub fn publish() {
    let _ = ACCOUNT.try_with(|account| {
        let balance = account.balance();
        match account.place {
            Some(place) => ACCOUNTS[place].0.store(balance, Ordering::Relaxed),
            None => {
                let before = account.published.replace(balance);
                CLOSED.fetch_add(balance - before, Ordering::Relaxed);
            }
        }
    });
}

static PASSING: AtomicUsize = AtomicUsize::new(0);

/// Threads with a cell of their own in `ACCOUNTS`. Further ones share `CLOSED`.
const ACCOUNTS_MAX: usize = 64;

/// A thread's published balance, on cache lines of its own.
#[repr(align(128))]
struct Balance(AtomicI64);

static ACCOUNTS: [Balance; ACCOUNTS_MAX] = [const { Balance(AtomicI64::new(0)) }; ACCOUNTS_MAX];
/// Threads that have taken a cell, or would have.
static ACCOUNTS_OPENED: AtomicUsize = AtomicUsize::new(0);
/// The balances of threads that have ended, and of those without a cell.
static CLOSED: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static ACCOUNT: Account = Account::open();
}

/// jemalloc's two counters of a thread, and where their difference is published.
struct Account {
    counters: Option<(ThreadLocal<u64>, ThreadLocal<u64>)>,
    place: Option<usize>,
    published: Cell<i64>,
}

impl Account {
    fn open() -> Self {
        let allocated = jemalloc_ctl::thread::allocatedp::read();
        let freed = jemalloc_ctl::thread::deallocatedp::read();
        let place = ACCOUNTS_OPENED.fetch_add(1, Ordering::Relaxed);
        Self {
            counters: allocated.ok().zip(freed.ok()),
            place: (place < ACCOUNTS_MAX).then_some(place),
            published: Cell::new(0),
        }
    }

    #[inline]
    fn turnover(&self) -> (u64, u64) {
        self.counters.map_or((0, 0), |(allocated, freed)| (allocated.get(), freed.get()))
    }

    #[inline]
    fn balance(&self) -> i64 {
        let (allocated, freed) = self.turnover();
        allocated.wrapping_sub(freed) as i64
    }
}

impl Drop for Account {
    /// What the thread leaves behind still counts.
    fn drop(&mut self) {
        let balance = self.balance();
        match self.place {
            Some(place) => {
                ACCOUNTS[place].0.store(0, Ordering::Relaxed);
                CLOSED.fetch_add(balance, Ordering::Relaxed);
            }
            None => {
                CLOSED.fetch_add(balance - self.published.get(), Ordering::Relaxed);
            }
        }
    }
}

/// Bytes of physical memory that the allocator's pages take.
pub fn resident() -> usize {
    advance();
    jemalloc_ctl::stats::resident::read().unwrap_or(0)
}

/// Bytes in pages that hold at least one live allocation.
pub fn active() -> usize {
    advance();
    jemalloc_ctl::stats::active::read().unwrap_or(0)
}

/// All figures of one moment, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// What the program holds.
    pub allocated: usize,
    /// Pages that hold at least one live allocation.
    pub active: usize,
    /// Pages that take physical memory.
    pub resident: usize,
    /// Unused pages that the kernel may take back when it needs them.
    pub muzzy: usize,
}

pub fn figures() -> Figures {
    advance();
    Figures {
        allocated: jemalloc_ctl::stats::allocated::read().unwrap_or(0),
        active: jemalloc_ctl::stats::active::read().unwrap_or(0),
        resident: jemalloc_ctl::stats::resident::read().unwrap_or(0),
        muzzy: size(b"stats.arenas.4096.pmuzzy\0").saturating_mul(size(b"arenas.page\0")),
    }
}

/// Gives unused pages back to the system now.
pub fn purge() {
    // SAFETY: the name ends in a zero byte and the call takes no argument.
    unsafe {
        jemalloc_sys::mallctl(c"arena.4096.purge".as_ptr(), null_mut(), null_mut(), null_mut(), 0)
    };
}

/// What became of small pages that were to be a huge one.
pub enum Collapse {
    Done,
    /// There is no huge page to be had now, or these pages are needed where they are.
    Later,
    Impossible(io::Error),
}

/// Exchanges the small pages of so many bytes for huge ones; what is in them stays. A kernel before 6.1 is asked to
/// do that when it finds the time.
pub fn collapse(at: usize, bytes: usize) -> Collapse {
    let place = std::ptr::with_exposed_provenance_mut(at);
    // SAFETY: this advice changes neither what memory holds nor what may be done with it, and where nothing is
    // mapped (any longer) it is refused.
    let advise = |advice| match unsafe { libc::madvise(place, bytes, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let Err(error) = advise(libc::MADV_COLLAPSE) else { return Collapse::Done };
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Collapse::Later;
    }
    advise(libc::MADV_HUGEPAGE).map_or_else(Collapse::Impossible, |()| Collapse::Done)
}

/// jemalloc's own report.
pub fn report() -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to a vector does not fail.
    let _ = jemalloc_ctl::stats_print::stats_print(&mut text, Default::default());
    text
}

/// `jemalloc-` and its version.
pub fn name() -> String {
    let version = jemalloc_ctl::version::read().unwrap_or_default();
    format!("jemalloc-{}", version.split('-').next().unwrap_or_default())
}

/// Lets jemalloc return unused pages from a thread of its own instead of during an allocation.
pub fn purge_in_background(enabled: bool) {
    // A build of jemalloc without such threads refuses: it then purges as it goes.
    let _ = jemalloc_ctl::background_thread::write(enabled);
}

/// One of jemalloc's figures that are of type `size_t`; 4096 stands for all arenas.
fn size(name: &'static [u8]) -> usize {
    // SAFETY: both names asked for here give a `size_t`.
    unsafe { jemalloc_ctl::raw::read(name) }.unwrap_or(0)
}

/// jemalloc's figures are those of the last epoch.
fn advance() {
    let _ = jemalloc_ctl::epoch::advance();
}

/// The `MALLOCX_ALIGN` part of a call's flags; none where `malloc` aligns well enough.
#[inline(always)]
const fn flags(layout: Layout) -> c_int {
    if layout.align() <= ALIGNMENT_OF_MALLOC { 0 } else { layout.align().trailing_zeros() as c_int }
}

// SAFETY: every block comes from jemalloc with at least the asked size and alignment, a failed
// allocation is a null pointer, and a block is given back to the allocator it came from. jemalloc does not
// unwind.
unsafe impl GlobalAlloc for Jemalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let flags = flags(layout);
        if flags == 0 {
            // SAFETY: any size is allowed; the caller checks for null.
            return unsafe { malloc(layout.size()).cast() };
        }
        // SAFETY: the size is not zero, as `GlobalAlloc` asks of its caller.
        unsafe { mallocx(layout.size(), flags).cast() }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let flags = flags(layout);
        if flags == 0 {
            // SAFETY: as in `alloc`.
            return unsafe { calloc(1, layout.size()).cast() };
        }
        // SAFETY: as in `alloc`.
        unsafe { mallocx(layout.size(), flags | MALLOCX_ZERO).cast() }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives the block and the layout it was allocated with; the flags follow from the
        // layout, so they are the same as then.
        unsafe { sdallocx(block.cast(), layout.size(), flags(layout)) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let flags = flags(layout);
        if flags == 0 {
            // SAFETY: the block is live and `size` is not zero, by the contract of `GlobalAlloc`.
            return unsafe { realloc(block.cast(), size).cast() };
        }
        // SAFETY: as above; the flags ask for the same alignment as before.
        unsafe { rallocx(block.cast(), size, flags).cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_is_kept_through_growing_and_shrinking() {
        for shift in 0..=12 {
            let align = 1 << shift;
            for size in [1, 7, 8, 9, 24, 40, 56, 100, 4096, 5000, 100_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: sizes are not zero, and each block is used with the layout it has.
                unsafe {
                    let block = ALLOCATOR.alloc(layout);
                    assert_eq!(block as usize % align, 0, "alloc {size} at {align}");
                    block.write_bytes(7, size);

                    let grown = ALLOCATOR.realloc(block, layout, 3 * size + 1);
                    assert_eq!(grown as usize % align, 0, "realloc {size} at {align}");
                    assert!((0..size).all(|i| *grown.add(i) == 7));
                    let layout = Layout::from_size_align(3 * size + 1, align).unwrap();

                    let shrunk = ALLOCATOR.realloc(grown, layout, size);
                    assert_eq!(shrunk as usize % align, 0, "shrink {size} at {align}");
                    ALLOCATOR.dealloc(shrunk, Layout::from_size_align(size, align).unwrap());

                    let layout = Layout::from_size_align(size, align).unwrap();
                    let zeroed = ALLOCATOR.alloc_zeroed(layout);
                    assert_eq!(zeroed as usize % align, 0, "zeroed {size} at {align}");
                    assert!((0..size).all(|i| *zeroed.add(i) == 0));
                    ALLOCATOR.dealloc(zeroed, layout);
                }
            }
        }
    }

    #[test]
    fn many_small_blocks_of_sixteen_byte_alignment_are_aligned() {
        #[repr(align(16))]
        struct Wide([u8; 24]);

        let blocks: Vec<Box<Wide>> = (0..1000).map(|i| Box::new(Wide([i as u8; 24]))).collect();
        assert!(blocks.iter().all(|block| (&raw const **block as usize).is_multiple_of(16)));
        assert!(blocks.iter().enumerate().all(|(i, block)| block.0[23] == i as u8));
    }

    #[test]
    fn small_blocks_come_in_steps_of_eight_bytes() {
        // SAFETY: asks for a size class; allocates nothing.
        assert_eq!(unsafe { jemalloc_sys::nallocx(56, 0) }, 56);
    }

    #[test]
    fn figures_are_those_of_jemalloc() {
        let figures = figures();
        assert!(0 < figures.allocated && figures.allocated <= figures.active);
        assert!(figures.active <= figures.resident);
        assert!(name().starts_with("jemalloc-5."));
        assert!(String::from_utf8_lossy(&report()).contains("jemalloc statistics"));
        purge();
    }

    #[test]
    fn used_memory_follows_what_is_held() {
        let before = used_memory();
        let held = vec![1u8; 64 << 20];
        assert!(before + (60 << 20) < used_memory());
        assert!(used_memory() <= resident() + held.len());
        drop(held);
    }

    #[test]
    fn a_balance_is_exact_to_the_byte() {
        let before = balance();
        let held = vec![0_u8; 56];
        assert_eq!(balance() - before, 56);
        drop(held);
        assert_eq!(balance(), before);
    }

    #[test]
    fn what_a_thread_made_counts_after_its_end() {
        // Others allocate and free meanwhile, but not as much.
        const HELD: usize = 256 << 20;
        used_memory();
        let made = std::thread::spawn(|| {
            publish();
            vec![1_u8; HELD]
        });
        let held = made.join().unwrap();
        let with = used_memory();
        drop(held);
        let without = used_memory();
        assert!(without + HELD / 2 < with, "{without} and {with}");
    }
}
