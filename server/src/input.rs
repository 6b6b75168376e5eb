//! The bytes of a request that has not come whole: all that a connection keeps of what it received.
//!
//! An idle connection keeps none and owns no memory. Reads normally go to the reactor's shared buffer;
//! only a large argument is received straight into this one.

/// Memory is added in steps of at least this much.
const STEP_BYTES: usize = 64 << 10;

/// `bytes[start..end]` is what was received; the rest is room, zeroed once so that no read needs `unsafe`.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Copies everything to the start of `buffer` and forgets it; returns how much it was.
    pub fn move_to(&mut self, buffer: &mut [u8]) -> usize {
        let len = self.len();
        buffer[..len].copy_from_slice(&self.bytes[self.start..self.end]);
        self.clear();
        len
    }

    /// Drops the first `count` bytes, and the memory when none are left.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.clear();
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes bytes over as they are, where there are none yet.
    pub fn adopt(&mut self, bytes: Vec<u8>) {
        if self.is_empty() {
            *self = Self { start: 0, end: bytes.len(), bytes };
        } else {
            self.append(&bytes);
        }
    }

    pub fn append(&mut self, bytes: &[u8]) {
        if self.start == self.end {
            self.clear();
            self.bytes = bytes.to_vec();
            self.end = bytes.len();
            return;
        }
        self.make_room(bytes.len());
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Room to read into when at least `wanted` bytes are to be held in the end. What the peer
    /// announces is believed only as far as it has sent: the room doubles what is there.
    pub fn room(&mut self, wanted: usize) -> &mut [u8] {
        let missing = wanted.saturating_sub(self.len()).max(1);
        if self.bytes.len() - self.end < missing.min(STEP_BYTES) {
            self.make_room(missing.min(self.len().max(STEP_BYTES)));
        }
        let end = self.bytes.len().min(self.end + missing.max(STEP_BYTES));
        &mut self.bytes[self.end..end]
    }

    /// Says that `count` bytes of the room were filled.
    pub fn filled(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    fn make_room(&mut self, count: usize) {
        if count <= self.bytes.len() - self.end {
            return;
        }
        if 0 < self.start {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.len() < self.end + count {
            self.bytes.reserve_exact(self.end + count - self.bytes.len());
            self.bytes.resize(self.end + count, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let mut input = Input::default();
        input.append(b"hello ");
        input.append(b"world");
        input.consume(2);
        assert_eq!(input.data_mut(), b"llo world");
        let mut buffer = [0; 16];
        assert_eq!(input.move_to(&mut buffer), 9);
        assert_eq!(&buffer[..9], b"llo world");
        assert_eq!((input.len(), input.capacity()), (0, 0));
    }

    #[test]
    fn room_grows_with_what_arrives_not_with_what_is_announced() {
        let mut input = Input::default();
        input.append(b"$536870912\r\n");
        let mut total = input.len();
        let mut reads = 0;
        while total < 10 << 20 {
            let room = input.room(512 << 20);
            let count = room.len();
            room.fill(7);
            input.filled(count);
            total += count;
            reads += 1;
            assert!(input.capacity() <= 2 * total + STEP_BYTES);
        }
        assert!(reads < 60, "{reads}");
        assert_eq!(input.len(), total);
        assert_eq!(&input.data_mut()[..4], b"$536");
    }

    #[test]
    fn room_is_used_up_before_there_is_more() {
        let mut input = Input::default();
        input.append(&[1; 1 << 20]);
        let mut sizes = Vec::new();
        while input.len() < 16 << 20 {
            input.room(64 << 20);
            input.filled(10_000);
            sizes.push(input.capacity());
        }
        sizes.dedup();
        assert!(sizes.len() <= 5, "{sizes:?}");
    }

    #[test]
    fn room_beyond_what_is_wanted_is_a_step() {
        let mut input = Input::default();
        input.append(&[1; 100]);
        assert_eq!(input.room(150).len(), 50);
        assert!(!input.room(0).is_empty());
    }
}
