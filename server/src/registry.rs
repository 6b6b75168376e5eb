//! All commands by name, with what dispatch needs of them worked out once.

use carnelian_commands::{
    Begin, Command, CommandError, DataCommand, Effect, Find, Flags, KeyFlags, KeySpec, Scope,
    TABLES, key_positions,
};

use crate::commands::{self, Context};

/// A handler that needs the client or the server, not only the data.
pub type ServerRun = fn(&mut Context<'_>) -> Result<Effect, CommandError>;

/// A command of the server's own.
pub type ServerCommand = Command<ServerRun>;

#[derive(Clone, Copy)]
pub enum Handler {
    Data(&'static DataCommand),
    Server(&'static ServerCommand),
}

macro_rules! fact {
    ($self:expr, $field:ident) => {
        match $self {
            Handler::Data(command) => command.$field,
            Handler::Server(command) => command.$field,
        }
    };
}

/// Where the keys are, for the shapes that need no search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyShape {
    None,
    /// The first argument alone.
    First,
    /// From a word to the one `last` says (from the end if negative), every `step`.
    Range {
        first: usize,
        last: i32,
        step: usize,
    },
    /// By the specifications.
    Specs,
}

/// A command or subcommand, ready for dispatch.
pub struct Entry {
    /// Its place in the registry.
    pub id: usize,
    /// `get`, or `config|get` for a subcommand.
    pub full_name: String,
    /// What a client calls it: `full_name` unless `rename-command` says otherwise.
    pub handler: Handler,
    pub arity: i32,
    pub flags: Flags,
    pub scope: Scope,
    pub shape: KeyShape,
    pub keys: &'static [KeySpec],
    /// Works on the data of its keys alone and never waits: runs together with its neighbours.
    pub is_plain: bool,
    /// Runs at once between MULTI and EXEC.
    pub bypasses_queue: bool,
    /// Whether its run time is worth a clock read of its own.
    pub timed: bool,
    /// Whether it may have to be told to replicas though it is no write.
    pub may_replicate: bool,
    /// Whether it is a script or a function of Lua.
    pub runs_scripts: bool,
    /// Ids of its subcommands, by name.
    pub subcommands: Vec<(&'static str, usize)>,
    pub container: Option<usize>,
}

impl Entry {
    pub fn name(&self) -> &'static str {
        fact!(self.handler, name)
    }

    pub fn summary(&self) -> &'static str {
        fact!(self.handler, summary)
    }

    pub fn since(&self) -> &'static str {
        fact!(self.handler, since)
    }

    pub fn complexity(&self) -> &'static str {
        fact!(self.handler, complexity)
    }

    pub fn group(&self) -> carnelian_commands::Group {
        fact!(self.handler, group)
    }

    pub fn tips(&self) -> &'static [&'static str] {
        fact!(self.handler, tips)
    }

    pub fn categories(&self) -> carnelian_commands::Categories {
        match self.handler {
            Handler::Data(command) => command.all_categories(),
            Handler::Server(command) => command.all_categories(),
        }
    }

    /// Whether a request of `words` words may run.
    pub fn accepts(&self, words: usize) -> bool {
        if self.arity < 0 {
            self.arity.unsigned_abs() as usize <= words
        } else {
            self.arity as usize == words
        }
    }

    /// First key, last key and step, as COMMAND gives them for clients older than key
    /// specifications: those of the first ranges, as long as they follow on each other.
    pub fn legacy_keys(&self) -> (i64, i64, i64) {
        let ranges: Vec<(usize, i32, usize)> = self
            .keys
            .iter()
            .map_while(|spec| match (spec.begin, spec.find) {
                (Begin::Index(first), Find::Range { last, step, limit: _ }) => {
                    Some((first, last, step))
                }
                _ => None,
            })
            .collect();
        let Some(&(first, last, step)) = ranges.first() else { return (0, 0, 0) };
        let absolute = |first: usize, last: i32| {
            if last < 0 { i64::from(last) } else { first as i64 + i64::from(last) }
        };
        let mut end = absolute(first, last);
        if step == 1 {
            for &(next_first, next_last, next_step) in &ranges[1..] {
                if next_step != 1 || end < 0 || next_first as i64 != end + 1 {
                    break;
                }
                end = absolute(next_first, next_last);
            }
        }
        (first as i64, end, step as i64)
    }

    /// Calls `found` with each key of a request. `None` if the request does not say which they are.
    #[inline]
    pub fn for_each_key<'w>(
        &self,
        words: &'w [&'w [u8]],
        mut found: impl FnMut(&'w [u8]),
    ) -> Option<()> {
        match self.shape {
            KeyShape::None => {}
            KeyShape::First => found(words[1]),
            KeyShape::Range { first, last, step } => {
                let end = match usize::try_from(last) {
                    Ok(offset) => first + offset,
                    Err(_) => words.len().checked_add_signed(last as isize)?,
                };
                words.get(first..=end)?.iter().step_by(step).for_each(|key| found(key));
            }
            KeyShape::Specs => {
                key_positions(self.keys, words, |index, _| found(words[index])).ok()?;
            }
        }
        Some(())
    }
}

/// The slots of the name table: a power of two, several times the number of commands.
const SLOTS: usize = 2048;

/// Names of commands as clients send them, in any case, to entries.
pub struct Registry {
    entries: Vec<Entry>,
    /// `id + 1` by a hash of the name; 0 is free.
    slots: Box<[u16; SLOTS]>,
    /// Beside each slot, its name as words that ignore case.
    folded: Box<[Folded; SLOTS]>,
    /// The name under which an entry is found.
    names: Vec<Option<Box<[u8]>>>,
}

impl Registry {
    /// `renames`: the pairs of `rename-command`; an empty new name removes the command.
    pub fn new(renames: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut registry = Self {
            entries: Vec::new(),
            slots: Box::new([0; SLOTS]),
            folded: Box::new([Folded::default(); SLOTS]),
            names: Vec::new(),
        };
        for command in TABLES.iter().chain(commands::DATA_TABLES).flat_map(|table| table.iter()) {
            registry.add(Handler::Data(command), renames);
        }
        for command in commands::TABLES.iter().flat_map(|table| table.iter()) {
            registry.add(Handler::Server(command), renames);
        }
        registry
    }

    fn add(&mut self, handler: Handler, renames: &[(Vec<u8>, Vec<u8>)]) {
        let id = self.push(handler, None);
        let name = fact!(handler, name);
        let subcommands: Vec<Handler> = match handler {
            Handler::Data(command) => command.subcommands.iter().map(Handler::Data).collect(),
            Handler::Server(command) => command.subcommands.iter().map(Handler::Server).collect(),
        };
        for subcommand in subcommands {
            let sub_id = self.push(subcommand, Some(id));
            let word = fact!(subcommand, name);
            self.entries[id].subcommands.push((word, sub_id));
        }
        let renamed =
            renames.iter().rev().find(|(old, _)| old.eq_ignore_ascii_case(name.as_bytes()));
        let visible: &[u8] = renamed.map_or(name.as_bytes(), |(_, new)| new);
        if !visible.is_empty() {
            self.enter(visible, id);
        }
    }

    fn push(&mut self, handler: Handler, container: Option<usize>) -> usize {
        let id = self.entries.len();
        let name = fact!(handler, name);
        let full_name = match container {
            Some(container) => format!("{}|{name}", self.entries[container].full_name),
            None => name.to_owned(),
        };
        let (flags, keys) = (fact!(handler, flags), fact!(handler, keys));
        // Cheap though not flagged fast: their time is taken from the batch's.
        let cheap = ["set", "setex", "psetex", "getset", "mset"].contains(&name);
        self.entries.push(Entry {
            id,
            full_name,
            handler,
            arity: fact!(handler, arity),
            flags,
            scope: fact!(handler, scope),
            shape: shape_of(keys),
            keys,
            is_plain: matches!(handler, Handler::Data(_))
                && fact!(handler, scope) == Scope::Keys
                && !flags.contains(Flags::BLOCKING),
            bypasses_queue: ["multi", "exec", "discard", "watch", "quit", "reset"].contains(&name)
                && container.is_none(),
            timed: !flags.contains(Flags::FAST) && !cheap,
            runs_scripts: ["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"]
                .contains(&name),
            may_replicate: ["pfcount", "publish", "spublish"].contains(&name),
            subcommands: Vec::new(),
            container,
        });
        self.names.push(None);
        id
    }

    fn enter(&mut self, name: &[u8], id: usize) {
        let folded = Folded::new(name);
        let mut slot = folded.slot();
        while self.slots[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        self.slots[slot] = id as u16 + 1;
        let is_exact = name.len() <= 16 && name.iter().all(u8::is_ascii_alphabetic);
        self.folded[slot] = Folded { is_exact, ..folded };
        self.names[id] = Some(name.into());
    }

    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn entry(&self, id: usize) -> &Entry {
        &self.entries[id]
    }

    /// Whether a client can name the command.
    pub fn is_visible(&self, entry: &Entry) -> bool {
        self.names[entry.id].is_some()
    }

    /// Commands that a client can name, subcommands not counted.
    pub fn visible(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| self.names[entry.id].is_some())
    }

    /// The command of this name, in any case.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        let folded = Folded::new(name);
        let mut slot = folded.slot();
        loop {
            let id = usize::from(self.slots[slot]).checked_sub(1)?;
            let known = &self.folded[slot];
            if *known == folded && (known.is_exact || self.is_named(id, name)) {
                return Some(&self.entries[id]);
            }
            slot = (slot + 1) % SLOTS;
        }
    }

    fn is_named(&self, id: usize, name: &[u8]) -> bool {
        self.names[id].as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name))
    }

    /// The subcommand of a container that a request names.
    pub fn find_sub(&self, container: &Entry, word: &[u8]) -> Option<&Entry> {
        let known = |(name, _): &&(&str, usize)| name.as_bytes().eq_ignore_ascii_case(word);
        container.subcommands.iter().find(known).map(|&(_, id)| &self.entries[id])
    }

    /// A command by `name`, `container|sub` or, as COMMAND INFO takes it, either in any case.
    pub fn find_full(&self, name: &[u8]) -> Option<&Entry> {
        let mut parts = name.splitn(2, |&byte| byte == b'|');
        let entry = self.find(parts.next()?)?;
        match parts.next() {
            Some(sub) => self.find_sub(entry, sub),
            None => Some(entry),
        }
    }
}

/// A name's length and its first and last bytes, with the bit set in which the cases of a letter
/// differ.
///
/// A byte with that bit set is a letter only if it was one before, in either case. So of names made
/// of letters, and so short that the words hold all of them, equal ones are the same name.
#[derive(Clone, Copy, Default)]
struct Folded {
    words: [u64; 2],
    length: usize,
    /// Whether a name that looks the same is the same; known of registered names only.
    is_exact: bool,
}

impl PartialEq for Folded {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words && self.length == other.length
    }
}

impl Folded {
    #[inline]
    fn new(name: &[u8]) -> Self {
        const CASE: u64 = 0x2020_2020_2020_2020;
        // Loads of fixed sizes that may overlap: to copy a few bytes by a call takes longer.
        let words = if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            [u64::from_le_bytes(*first) | CASE, u64::from_le_bytes(*last) | CASE]
        } else if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            let halves = [u32::from_le_bytes(*first), u32::from_le_bytes(*last)];
            [u64::from(halves[0]) | CASE, u64::from(halves[1]) | CASE]
        } else {
            [name.iter().fold(0, |word, byte| word << 8 | u64::from(byte | 0x20)), 0]
        };
        Self { words, length: name.len(), is_exact: false }
    }

    #[inline]
    fn slot(&self) -> usize {
        let word = self.words[0] ^ self.words[1].rotate_left(29) ^ self.length as u64;
        (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 53) as usize
    }
}

fn shape_of(keys: &[KeySpec]) -> KeyShape {
    match keys {
        [] => KeyShape::None,
        [spec] if !spec.flags.contains(KeyFlags::NOT_KEY) => match (spec.begin, spec.find) {
            (Begin::Index(1), Find::Range { last: 0, limit: 0, .. }) => KeyShape::First,
            (Begin::Index(first), Find::Range { last, step, limit: 0 }) => {
                KeyShape::Range { first, last, step: step.max(1) }
            }
            _ => KeyShape::Specs,
        },
        _ => KeyShape::Specs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case_and_nothing_else_is() {
        let registry = Registry::new(&[]);
        for entry in registry.entries().iter().filter(|entry| entry.container.is_none()) {
            let upper = entry.full_name.to_uppercase();
            for name in [entry.full_name.as_bytes(), upper.as_bytes()] {
                assert_eq!(registry.find(name).expect("it is registered").id, entry.id);
            }
        }
        for name in [
            "",
            "g",
            "gett",
            "restore\rasking",
            "gET\0",
            "set\0",
            "a-name-that-is-longer-than-any-command",
        ] {
            assert!(registry.find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let registry = Registry::new(&[]);
        let mut names: Vec<&str> =
            registry.entries().iter().map(|entry| entry.full_name.as_str()).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_renamed_command_answers_only_to_its_new_name() {
        let rename = |new: &str| Registry::new(&[(b"GET".to_vec(), new.as_bytes().to_vec())]);
        assert!(rename("fetch").find(b"get").is_none());
        assert_eq!(rename("fetch").find(b"FETCH").expect("renamed").full_name, "get");
        assert!(rename("").find(b"get").is_none());
    }
}
