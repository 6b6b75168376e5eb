//! One node of a quicklist: a listpack, or one large element; each as it is or compressed.

use crate::listpack::Listpack;
use crate::lzf;
use crate::size::size_class;

/// Smaller nodes are not worth an attempt.
const COMPRESS_BYTES_MIN: usize = 48;
/// What compressing has to save at least.
const SAVED_BYTES_MIN: usize = 8;

#[derive(Clone, Debug)]
pub(super) enum Node {
    /// The count is beside the listpack so that walking over nodes does not touch them.
    Packed {
        listpack: Listpack,
        count: u32,
    },
    Plain(Box<[u8]>),
    PackedLzf(Lzf),
    PlainLzf(Lzf),
}

/// Compressed bytes behind what a walk has to know of them.
///
/// Invariant: they expand to `raw_bytes` bytes, for nobody but `Node::compress` makes them.
#[derive(Clone, Debug)]
pub(super) struct Lzf(Box<[u8]>);

/// What a node holds, readable.
pub(super) enum View<'a> {
    Packed(&'a Listpack),
    Plain(&'a [u8]),
    Unpacked(Listpack),
    UnpackedPlain(Vec<u8>),
}

/// A node as it is stored, for writing it out.
#[derive(Clone, Copy, Debug)]
pub enum StoredNode<'a> {
    /// A listpack in serialized form.
    Packed(&'a [u8]),
    /// One element.
    Plain(&'a [u8]),
    /// One of these, compressed.
    Compressed { packed: bool, raw_bytes: usize, lzf: &'a [u8] },
}

impl Node {
    pub(super) fn packed(listpack: Listpack) -> Self {
        let count = u32::try_from(listpack.len()).expect("a listpack is below 4 GiB");
        Self::Packed { listpack, count }
    }

    pub(super) fn plain(element: &[u8]) -> Self {
        Self::Plain(element.into())
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Packed { count, .. } => *count as usize,
            Self::PackedLzf(lzf) => lzf.count(),
            Self::Plain(_) | Self::PlainLzf(_) => 1,
        }
    }

    /// The size of what it holds, before compression.
    pub(super) fn raw_bytes(&self) -> usize {
        match self {
            Self::Packed { listpack, .. } => listpack.total_bytes(),
            Self::Plain(element) => element.len(),
            Self::PackedLzf(lzf) | Self::PlainLzf(lzf) => lzf.raw_bytes(),
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Packed { listpack, .. } => listpack.heap_bytes(),
            Self::Plain(element) => size_class(element.len()),
            Self::PackedLzf(lzf) | Self::PlainLzf(lzf) => size_class(lzf.0.len()),
        }
    }

    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_) | Self::PlainLzf(_))
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Self::PackedLzf(_) | Self::PlainLzf(_))
    }

    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Packed { listpack, .. } => View::Packed(listpack),
            Self::Plain(element) => View::Plain(element),
            Self::PackedLzf(lzf) => View::Unpacked(Listpack::from_checked(&lzf.expand())),
            Self::PlainLzf(lzf) => View::UnpackedPlain(lzf.expand()),
        }
    }

    pub(super) fn stored(&self) -> StoredNode<'_> {
        match self {
            Self::Packed { listpack, .. } => StoredNode::Packed(listpack.as_bytes()),
            Self::Plain(element) => StoredNode::Plain(element),
            Self::PackedLzf(lzf) | Self::PlainLzf(lzf) => StoredNode::Compressed {
                packed: !self.is_plain(),
                raw_bytes: lzf.raw_bytes(),
                lzf: lzf.compressed(),
            },
        }
    }

    /// Compresses it if that is worth it.
    pub(super) fn compress(&mut self) {
        match self {
            Self::Packed { listpack, count } => {
                if let Some(lzf) = Lzf::new(listpack.as_bytes(), *count) {
                    *self = Self::PackedLzf(lzf);
                }
            }
            Self::Plain(element) => {
                if let Some(lzf) = Lzf::new(element, 1) {
                    *self = Self::PlainLzf(lzf);
                }
            }
            Self::PackedLzf(_) | Self::PlainLzf(_) => {}
        }
    }

    pub(super) fn decompress(&mut self) {
        match self {
            Self::PackedLzf(lzf) => {
                let count = lzf.count() as u32;
                *self = Self::Packed { listpack: Listpack::from_checked(&lzf.expand()), count };
            }
            Self::PlainLzf(lzf) => *self = Self::Plain(lzf.expand().into()),
            Self::Packed { .. } | Self::Plain(_) => {}
        }
    }
}

impl Lzf {
    const HEADER: usize = 8;

    fn new(raw: &[u8], count: u32) -> Option<Self> {
        let raw_bytes = u32::try_from(raw.len()).ok()?;
        if raw.len() < COMPRESS_BYTES_MIN {
            return None;
        }
        let compressed = lzf::compress(raw, raw.len() - SAVED_BYTES_MIN - 1)?;
        Some(Self(
            [&raw_bytes.to_le_bytes(), &count.to_le_bytes(), &compressed[..]].concat().into(),
        ))
    }

    fn field(&self, at: usize) -> usize {
        let bytes = self.0[at..].first_chunk().expect("a header of eight bytes");
        u32::from_le_bytes(*bytes) as usize
    }

    fn raw_bytes(&self) -> usize {
        self.field(0)
    }

    fn count(&self) -> usize {
        self.field(4)
    }

    fn compressed(&self) -> &[u8] {
        &self.0[Self::HEADER..]
    }

    fn expand(&self) -> Vec<u8> {
        lzf::decompress(self.compressed(), self.raw_bytes()).expect("compressed by `new`")
    }
}

impl View<'_> {
    /// The listpack, or the bytes of the one element.
    pub(super) fn content(&self) -> Result<&Listpack, &[u8]> {
        match self {
            Self::Packed(listpack) => Ok(listpack),
            Self::Unpacked(listpack) => Ok(listpack),
            Self::Plain(element) => Err(element),
            Self::UnpackedPlain(element) => Err(element),
        }
    }
}
