//! Thresholds between the compact and the large encodings, under Redis's directive names.

/// All zero-cost to copy: a batch takes one and keeps it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `hash-max-listpack-entries`
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`
    pub hash_max_listpack_value: usize,
    /// `list-max-listpack-size`: entries if positive, a size class from -1 to -5 if negative
    pub list_max_listpack_size: i32,
    /// `list-compress-depth`
    pub list_compress_depth: u16,
    /// `DEBUG QUICKLIST-PACKED-THRESHOLD`: larger elements get a node of their own; with 0, those
    /// that are larger than a node may be
    pub list_packed_threshold: usize,
    /// `set-max-intset-entries`
    pub set_max_intset_entries: usize,
    /// `set-max-listpack-entries`
    pub set_max_listpack_entries: usize,
    /// `set-max-listpack-value`
    pub set_max_listpack_value: usize,
    /// `zset-max-listpack-entries`
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`
    pub zset_max_listpack_value: usize,
    /// `hll-sparse-max-bytes`: longer `HyperLogLog` strings are dense
    pub hll_sparse_max_bytes: usize,
    /// `stream-node-max-bytes`
    pub stream_node_max_bytes: usize,
    /// `stream-node-max-entries`
    pub stream_node_max_entries: usize,
    /// `proto-max-bulk-len`: also the longest string a command may make
    pub max_string: usize,
    /// `lazyfree-lazy-user-del`: DEL frees in the background, as UNLINK does
    pub lazy_user_del: bool,
    /// `lazyfree-lazy-user-flush`: FLUSHDB and FLUSHALL without ASYNC or SYNC free in the background
    pub lazy_user_flush: bool,
    /// `lazyfree-lazy-server-del`: values replaced or moved over are freed in the background
    pub lazy_server_del: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            list_max_listpack_size: -2,
            list_compress_depth: 0,
            list_packed_threshold: 0,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            hll_sparse_max_bytes: 3000,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
            max_string: 512 << 20,
            lazy_user_del: false,
            lazy_user_flush: false,
            lazy_server_del: false,
        }
    }
}
