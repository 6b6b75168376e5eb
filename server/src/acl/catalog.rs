//! The commands as rules name them: by their own names, whatever `rename-command` calls them.

use std::collections::HashMap;

use carnelian_commands::Categories;

use crate::registry::Registry;

/// More commands than this cannot be told apart by a `Bits`.
const COMMANDS_MAX: usize = 1024;

/// A set of commands, by their places in the registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; COMMANDS_MAX / 64]);

impl Bits {
    pub(super) const ALL: Self = Self([u64::MAX; COMMANDS_MAX / 64]);

    #[inline]
    pub(super) fn contains(&self, id: usize) -> bool {
        self.0.get(id / 64).is_some_and(|word| word >> (id % 64) & 1 != 0)
    }

    pub(super) fn set(&mut self, id: usize, is_in: bool) {
        let Some(word) = self.0.get_mut(id / 64) else { return };
        let bit = 1 << (id % 64);
        if is_in { *word |= bit } else { *word &= !bit }
    }
}

/// What rules have to know of the commands.
pub struct Catalog {
    by_name: HashMap<Box<str>, usize>,
    commands: Vec<Facts>,
}

struct Facts {
    name: Box<str>,
    categories: Categories,
    is_sub: bool,
    subcommands: Vec<usize>,
}

impl Catalog {
    pub fn new(registry: &Registry) -> Self {
        let entries = registry.entries();
        assert!(entries.len() <= COMMANDS_MAX, "more commands than a user has bits");
        let facts = |entry: &crate::registry::Entry| Facts {
            name: entry.full_name.as_str().into(),
            categories: entry.categories(),
            is_sub: entry.container.is_some(),
            subcommands: entry.subcommands.iter().map(|&(_, id)| id).collect(),
        };
        let commands: Vec<Facts> = entries.iter().map(facts).collect();
        let by_name = commands.iter().enumerate().map(|(id, it)| (it.name.clone(), id)).collect();
        Self { by_name, commands }
    }

    /// A command, or a subcommand as `container|sub`, in any case.
    pub(super) fn find(&self, name: &[u8]) -> Option<usize> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        self.by_name.get(name.as_str()).copied()
    }

    pub(super) fn name(&self, id: usize) -> &str {
        &self.commands[id].name
    }

    pub(super) fn is_sub(&self, id: usize) -> bool {
        self.commands[id].is_sub
    }

    pub(super) fn subcommands(&self, id: usize) -> &[usize] {
        &self.commands[id].subcommands
    }

    /// The commands of a category, subcommands among them.
    pub(super) fn members(&self, category: Categories) -> impl Iterator<Item = usize> {
        let all = self.commands.iter().enumerate();
        all.filter(move |(_, it)| it.categories.intersects(category)).map(|(id, _)| id)
    }

    /// Names of the commands of a category.
    pub fn names_of(&self, category: Categories) -> impl Iterator<Item = &str> {
        self.members(category).map(|id| self.name(id))
    }
}
