//! The RDB codec: values to bytes and back, in all forms that Redis 2.4 to 8.0 write.
//!
//! A value is a type byte and a body; [`save`] writes what Redis 7.2 can read unless fields of a
//! hash expire, and [`load`] reads everything. [`dump`] adds the version and the checksum.

pub mod crc64;
pub mod dump;
pub mod file;
mod groups;
mod load;
mod pieces;
mod reader;
mod save;
mod skip;
mod stream;
#[cfg(test)]
mod tests;
mod writer;
mod ziplist;

use carnelian_keyspace::Limits;
use carnelian_structs::hash::{Hash, HashLimits};
use carnelian_structs::list::{List, ListLimits};
use carnelian_structs::malformed::Malformed;
use carnelian_structs::set::{Set, SetLimits};
use carnelian_structs::sorted_set::{SortedSet, SortedSetLimits};
use carnelian_structs::stream::{BlockLimits, Stream};
use std::borrow::Cow;

pub use load::load;
pub use pieces::{Pieces, is_long};
pub use reader::Reader;
pub use save::{save, type_of};
pub use writer::{write_length, write_string};

/// The newest version that is read: that of Redis 8.0.
pub const VERSION_MAX: u16 = 12;

/// The version that Redis 7.2 reads, in which files are written unless fields of a hash expire.
pub const VERSION_USUAL: u16 = 11;
/// The first version, that of Redis 7.4, with hashes whose fields expire.
pub const VERSION_EXPIRING_FIELDS: u16 = 12;
/// The oldest version that can be written: that of Redis 5.0 to 6.2.
pub const VERSION_MIN: u16 = 9;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Who reads them: forms that came later are not used, except for what has no other.
    pub version: u16,
    /// `rdbcompression`
    pub compress: bool,
}

impl Form {
    /// That of payloads of DUMP.
    pub const DUMP: Self = Self { version: VERSION_MAX, compress: true };
}

/// The byte that says in what form a value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    String = 0,
    List = 1,
    Set = 2,
    /// Scores as text.
    SortedSet = 3,
    Hash = 4,
    /// Scores as doubles.
    SortedSet2 = 5,
    HashZipmap = 9,
    ListZiplist = 10,
    SetIntset = 11,
    SortedSetZiplist = 12,
    HashZiplist = 13,
    /// Nodes are ziplists.
    ListQuicklist = 14,
    Stream = 15,
    HashListpack = 16,
    SortedSetListpack = 17,
    /// Nodes are listpacks or single elements.
    ListQuicklist2 = 18,
    /// With the first ID, the highest deleted one, and how many were added.
    Stream2 = 19,
    SetListpack = 20,
    /// With the active times of consumers.
    Stream3 = 21,
    /// Of the release candidates of Redis 7.4: absolute times, no smallest one in front.
    HashExpiriesPreview = 22,
    HashListpackExpiriesPreview = 23,
    HashExpiries = 24,
    HashListpackExpiries = 25,
    /// Of Valkey 9: an absolute time behind each field. It has the number 22 there; this one stands
    /// for nothing in a file.
    HashValkey = 0xF0,
}

/// Whose file it is: both projects have given out numbers since they parted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    Redis,
    Valkey,
}

impl Lineage {
    /// The number of [`Type::HashValkey`] in files.
    const VALKEY_HASH: u8 = 22;
}

impl Type {
    /// The type a byte stands for; modules and what files have between values are none.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        const KNOWN: [Type; 23] = [
            Type::String,
            Type::List,
            Type::Set,
            Type::SortedSet,
            Type::Hash,
            Type::SortedSet2,
            Type::HashZipmap,
            Type::ListZiplist,
            Type::SetIntset,
            Type::SortedSetZiplist,
            Type::HashZiplist,
            Type::ListQuicklist,
            Type::Stream,
            Type::HashListpack,
            Type::SortedSetListpack,
            Type::ListQuicklist2,
            Type::Stream2,
            Type::SetListpack,
            Type::Stream3,
            Type::HashExpiriesPreview,
            Type::HashListpackExpiriesPreview,
            Type::HashExpiries,
            Type::HashListpackExpiries,
        ];
        KNOWN.into_iter().find(|&known| known as u8 == byte)
    }

    /// The type a byte stands for in a file.
    #[must_use]
    pub fn of(byte: u8, lineage: Lineage) -> Option<Self> {
        match (lineage, byte) {
            (Lineage::Valkey, Lineage::VALKEY_HASH) => Some(Self::HashValkey),
            (Lineage::Valkey, 23..) => None,
            _ => Self::from_byte(byte),
        }
    }
}

/// A value that was read, in the encoding that the limits ask for.
pub enum Loaded<'a> {
    String(Cow<'a, [u8]>),
    List(List),
    Set(Set),
    SortedSet(SortedSet),
    Hash(Hash),
    Stream(Box<Stream>),
}

/// Why a value was refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// More bytes might make it whole.
    #[error("the data ends before the value does")]
    Truncated,
    #[error("unknown type {0}")]
    UnknownType(u8),
    #[error("{0}")]
    Malformed(&'static str),
    /// No key holds a value without elements.
    #[error("a value without elements")]
    Empty,
}

impl Type {
    /// What a value of this form is packed in, in the words of Redis's log.
    #[must_use]
    pub const fn packing(self) -> &'static str {
        match self {
            Self::HashZipmap => "Zipmap",
            Self::ListZiplist | Self::ListQuicklist => "Ziplist",
            Self::HashZiplist => "Hash ziplist",
            Self::SortedSetZiplist => "Zset ziplist",
            Self::SetIntset => "Intset",
            Self::ListQuicklist2 => "Listpack",
            Self::SetListpack => "Set listpack",
            Self::SortedSetListpack => "Zset listpack",
            Self::HashListpack | Self::HashListpackExpiries | Self::HashListpackExpiriesPreview => {
                "Hash listpack"
            }
            Self::Stream | Self::Stream2 | Self::Stream3 => "Stream listpack",
            _ => "Value",
        }
    }
}

impl From<Malformed> for LoadError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed.what)
    }
}

/// The longest listpack that anything makes, whatever `proto-max-bulk-len` says of strings.
const LISTPACK_BYTES_MAX: usize = 1 << 30;

/// [`Limits`] as each type takes them.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    list: ListLimits,
    set: SetLimits,
    sorted_set: SortedSetLimits,
    hash: HashLimits,
    stream: BlockLimits,
    /// What a compressed string may expand to.
    expanded_bytes_max: usize,
}

impl Bounds {
    fn new(limits: &Limits) -> Self {
        Self {
            list: ListLimits {
                fill: limits.list_max_listpack_size,
                compress: limits.list_compress_depth,
                packed_threshold: limits.list_packed_threshold,
            },
            set: SetLimits {
                intset_entries: limits.set_max_intset_entries,
                listpack_entries: limits.set_max_listpack_entries,
                listpack_value: limits.set_max_listpack_value,
            },
            sorted_set: SortedSetLimits {
                listpack_entries: limits.zset_max_listpack_entries,
                listpack_value: limits.zset_max_listpack_value,
            },
            hash: HashLimits {
                entries: limits.hash_max_listpack_entries,
                value: limits.hash_max_listpack_value,
            },
            stream: BlockLimits {
                bytes: limits.stream_node_max_bytes,
                entries: limits.stream_node_max_entries,
            },
            expanded_bytes_max: limits.max_string.max(LISTPACK_BYTES_MAX),
        }
    }
}
