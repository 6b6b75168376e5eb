//! What a script or function says of itself.

/// The flags of a shebang line or of `register_function`, under Redis's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    pub const NO_WRITES: Self = Self(1);
    pub const ALLOW_OOM: Self = Self(2);
    pub const ALLOW_STALE: Self = Self(4);
    pub const NO_CLUSTER: Self = Self(8);
    pub const ALLOW_CROSS_SLOT_KEYS: Self = Self(16);
    /// An EVAL script without a shebang line: the older rules are for it.
    pub const COMPAT: Self = Self(128);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::NO_WRITES, "no-writes"),
        (Self::ALLOW_OOM, "allow-oom"),
        (Self::ALLOW_STALE, "allow-stale"),
        (Self::NO_CLUSTER, "no-cluster"),
        (Self::ALLOW_CROSS_SLOT_KEYS, "allow-cross-slot-keys"),
    ];

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it said what it does, and writes.
    pub const fn may_write(self) -> bool {
        !self.contains(Self::COMPAT) && !self.contains(Self::NO_WRITES)
    }

    pub(crate) const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The flag of this name, to the letter.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, known)| known.as_bytes() == name).map(|(flag, _)| flag)
    }

    /// In the order in which Redis lists them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }
}
