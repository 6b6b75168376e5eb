//! One set of permissions: commands, keys, channels and databases. A user has one of its own and as
//! many more as selectors are attached to it; a request has to be within one of them.

use carnelian_commands::{Categories, Flags, KeyFlags};
use carnelian_structs::glob;

use super::catalog::{Bits, Catalog};
use super::check::{Denied, Reason, Request};
use super::rule::{RuleError, has_spaces};

/// What rules go by.
#[derive(Clone, Copy)]
pub struct Rules<'c> {
    pub catalog: &'c Catalog,
    /// `acl-pubsub-default allchannels`: new users may use all channels.
    pub all_channels: bool,
}

#[derive(Clone, Debug)]
pub struct Selector {
    /// Nothing has been taken away since `+@all`.
    all_commands: bool,
    /// Began with `+@all`, so that commands of later versions are allowed as well.
    later_commands: bool,
    commands: Bits,
    /// Commands that are allowed with these first arguments only.
    first_arguments: Vec<(usize, Vec<Box<[u8]>>)>,
    /// The rules on commands in their order, as they are described.
    rules: Vec<CommandRule>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Box<[u8]>>,
    /// Ascending; none: all.
    databases: Option<Vec<i32>>,
}

#[derive(Clone, Debug)]
struct CommandRule {
    allows: bool,
    /// In lower case.
    name: Vec<u8>,
}

#[derive(Clone, Debug)]
struct KeyPattern {
    pattern: Box<[u8]>,
    read: bool,
    write: bool,
}

/// What a command does to a key, as far as patterns ask.
#[derive(Clone, Copy)]
struct KeyUse {
    reads: bool,
    writes: bool,
}

impl From<KeyFlags> for KeyUse {
    fn from(flags: KeyFlags) -> Self {
        const WRITES: KeyFlags = KeyFlags::UPDATE.union(KeyFlags::INSERT).union(KeyFlags::DELETE);
        Self { reads: flags.contains(KeyFlags::ACCESS), writes: flags.intersects(WRITES) }
    }
}

impl KeyPattern {
    fn covers(&self, what: KeyUse) -> bool {
        (self.read || !what.reads) && (self.write || !what.writes)
    }
}

impl Selector {
    pub fn new(rules: Rules<'_>) -> Self {
        Self {
            all_commands: false,
            later_commands: false,
            commands: Bits::default(),
            first_arguments: Vec::new(),
            rules: Vec::new(),
            all_keys: false,
            keys: Vec::new(),
            all_channels: rules.all_channels,
            channels: Vec::new(),
            databases: None,
        }
    }

    /// What stands between the parentheses of a selector.
    pub fn parse(rules: Rules<'_>, text: &[u8]) -> Result<Self, RuleError> {
        let mut selector = Self::new(rules);
        for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
            if word.ends_with(b")") {
                // What describes it would be read as its end.
                return Err(RuleError::Syntax);
            }
            selector.apply(rules, word)?;
        }
        Ok(selector)
    }

    /// Whether nothing is forbidden.
    pub fn is_unrestricted(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels && self.databases.is_none()
    }

    pub fn apply(&mut self, rules: Rules<'_>, word: &[u8]) -> Result<(), RuleError> {
        let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
        if is("allkeys") || is("~*") {
            self.all_keys = true;
            self.keys.clear();
        } else if is("resetkeys") {
            self.all_keys = false;
            self.keys.clear();
        } else if is("allchannels") || is("&*") {
            self.all_channels = true;
            self.channels.clear();
        } else if is("resetchannels") {
            self.all_channels = false;
            self.channels.clear();
        } else if is("allcommands") || is("+@all") {
            self.reset_commands(true);
        } else if is("nocommands") || is("-@all") {
            self.reset_commands(false);
        } else if is("alldbs") {
            self.databases = None;
        } else if is("resetdbs") {
            self.databases = Some(Vec::new());
        } else {
            return match word {
                [b'd' | b'D', b'b' | b'B', b'=', list @ ..] => self.set_databases(list),
                [b'~', pattern @ ..] => self.add_keys(pattern, true, true),
                [b'%', rest @ ..] => self.add_keys_by_use(rest),
                [b'&', pattern @ ..] => self.add_channels(pattern),
                [b'+', b'@', name @ ..] => self.set_category(rules.catalog, name, true),
                [b'-', b'@', name @ ..] => self.set_category(rules.catalog, name, false),
                [b'+', name @ ..] => self.allow(rules.catalog, name),
                [b'-', name @ ..] => {
                    let id = rules.catalog.find(name).ok_or(RuleError::Unknown)?;
                    self.set_command(rules.catalog, id, false);
                    self.note(rules.catalog.name(id).as_bytes(), false);
                    Ok(())
                }
                _ => Err(RuleError::Syntax),
            };
        }
        Ok(())
    }

    fn reset_commands(&mut self, all: bool) {
        self.all_commands = all;
        self.later_commands = all;
        self.commands = if all { Bits::ALL } else { Bits::default() };
        self.first_arguments.clear();
        self.rules.clear();
    }

    fn set_databases(&mut self, list: &[u8]) -> Result<(), RuleError> {
        let mut databases = Vec::new();
        for word in list.split(|byte| *byte == b',') {
            let text = word.trim_ascii_start();
            let digits = text.strip_prefix(b"+").or(text.strip_prefix(b"-")).unwrap_or(text);
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(RuleError::Syntax);
            }
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse::<i32>().ok());
            let number = number.filter(|number| 0 <= *number);
            databases.push(number.ok_or(RuleError::DatabaseOutOfRange)?);
        }
        databases.sort_unstable();
        databases.dedup();
        self.databases = Some(databases);
        Ok(())
    }

    fn add_keys_by_use(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AllKeys);
        }
        let (mut read, mut write) = (false, false);
        for (index, byte) in rest.iter().enumerate() {
            match byte {
                b'r' | b'R' if !read => read = true,
                b'w' | b'W' if !write => write = true,
                b'~' if read || write => return self.add_keys(&rest[index + 1..], read, write),
                _ => return Err(RuleError::Syntax),
            }
        }
        // Without an end to the letters there is nothing that the permission is for; Redis takes
        // it for the empty pattern.
        if read || write { self.add_keys(b"", read, write) } else { Err(RuleError::Syntax) }
    }

    fn add_keys(&mut self, pattern: &[u8], read: bool, write: bool) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::AllKeys);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => {
                known.read |= read;
                known.write |= write;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.into(), read, write }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::AllChannels);
        }
        if has_spaces(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|known| **known == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    /// `+command`, `+container|sub` or `+command|first-argument`.
    fn allow(&mut self, catalog: &Catalog, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let id = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.set_command(catalog, id, true);
            self.note(catalog.name(id).as_bytes(), true);
            return Ok(());
        };
        let (command, argument) = (&name[..bar], &name[bar + 1..]);
        let id = catalog.find(command).ok_or(RuleError::Unknown)?;
        if catalog.is_sub(id) {
            return Err(RuleError::FirstOfSub);
        }
        if argument.is_empty() || has_spaces(argument) {
            return Err(RuleError::Syntax);
        }
        if catalog.subcommands(id).is_empty() {
            self.allow_first_argument(id, argument);
        } else {
            let sub = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.set_command(catalog, sub, true);
        }
        self.note(name, true);
        Ok(())
    }

    fn allow_first_argument(&mut self, id: usize, argument: &[u8]) {
        let arguments = match self.first_arguments.iter_mut().find(|(known, _)| *known == id) {
            Some((_, arguments)) => arguments,
            None => {
                self.first_arguments.push((id, Vec::new()));
                &mut self.first_arguments.last_mut().expect("one was pushed").1
            }
        };
        if !arguments.iter().any(|known| known.eq_ignore_ascii_case(argument)) {
            arguments.push(argument.into());
        }
    }

    /// A command, with its subcommands.
    fn set_command(&mut self, catalog: &Catalog, id: usize, allows: bool) {
        self.commands.set(id, allows);
        for &sub in catalog.subcommands(id) {
            self.commands.set(sub, allows);
        }
        self.all_commands &= allows;
        self.first_arguments.retain(|(known, _)| *known != id);
    }

    fn set_category(
        &mut self,
        catalog: &Catalog,
        name: &[u8],
        allows: bool,
    ) -> Result<(), RuleError> {
        let category = Categories::by_name(name).ok_or(RuleError::Unknown)?;
        self.note(&[b"@", name].concat(), allows);
        for id in catalog.members(category) {
            self.set_command(catalog, id, allows);
        }
        Ok(())
    }

    /// Keeps a rule for the description. It takes the place of those it makes void: the same one,
    /// and those on parts of the same command.
    fn note(&mut self, name: &[u8], allows: bool) {
        let name = name.to_ascii_lowercase();
        self.rules.retain(|rule| match rule.name.strip_prefix(name.as_slice()) {
            Some(rest) => !rest.is_empty() && rest[0] != b'|',
            None => true,
        });
        self.rules.push(CommandRule { allows, name });
    }

    /// `+@all` or `-@all`, and what came after it.
    pub fn describe_commands(&self) -> Vec<u8> {
        let mut text = if self.later_commands { b"+@all".to_vec() } else { b"-@all".to_vec() };
        for rule in &self.rules {
            text.extend_from_slice(if rule.allows { b" +" } else { b" -" });
            text.extend_from_slice(&rule.name);
        }
        text
    }

    /// `~*`, or the patterns.
    pub fn describe_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let show = |key: &KeyPattern| {
            let sign: &[u8] = match (key.read, key.write) {
                // `~*` would be read as all keys, after which no pattern may come.
                (true, true) if *key.pattern == *b"*" => b"%RW~",
                (true, true) => b"~",
                (true, false) => b"%R~",
                _ => b"%W~",
            };
            [sign, &key.pattern].concat()
        };
        self.keys.iter().map(show).collect::<Vec<_>>().join(&b' ')
    }

    /// `&*`, or the patterns.
    pub fn describe_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let shown = self.channels.iter().map(|channel| [b"&", &**channel].concat());
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// `db=...` or `resetdbs`; none where all databases are allowed.
    pub fn describe_databases(&self) -> Option<String> {
        let databases = self.databases.as_ref()?;
        if databases.is_empty() {
            return Some("resetdbs".to_owned());
        }
        let numbers: Vec<String> = databases.iter().map(i32::to_string).collect();
        Some(format!("db={}", numbers.join(",")))
    }

    /// Everything, as rules that make the same selector.
    pub fn describe(&self) -> Vec<u8> {
        let mut parts = Vec::new();
        let mut put = |part: Vec<u8>| {
            if !part.is_empty() {
                parts.push(part);
            }
        };
        put(self.describe_keys());
        if !self.all_channels {
            put(b"resetchannels".to_vec());
        }
        put(self.describe_channels());
        put(self.describe_databases().unwrap_or_default().into_bytes());
        put(self.describe_commands());
        parts.join(&b' ')
    }

    /// Whether a request is within these permissions.
    pub(super) fn check(&self, request: &Request<'_>) -> Result<(), Denied> {
        if !self.may_run(request) {
            return Err(Denied { reason: Reason::Command, word: 0 });
        }
        if self.databases.is_some() {
            self.check_databases(request)?;
        }
        if !self.all_keys {
            for &(index, flags) in request.keys() {
                if !self.may_use(request.words[index], flags.into()) {
                    return Err(Denied { reason: Reason::Key, word: index });
                }
            }
        }
        if !self.all_channels
            && let Some((first, end, is_pattern)) = request.channels()
        {
            for index in first..end {
                if !self.may_hear(request.words[index], is_pattern) {
                    return Err(Denied { reason: Reason::Channel, word: index });
                }
            }
        }
        Ok(())
    }

    fn may_run(&self, request: &Request<'_>) -> bool {
        let entry = request.entry;
        if self.all_commands
            || self.commands.contains(entry.id)
            || entry.flags.contains(Flags::NO_AUTH)
        {
            return true;
        }
        let Some(word) = request.words.get(1) else { return false };
        self.first_arguments.iter().any(|(id, arguments)| {
            *id == entry.id && arguments.iter().any(|known| known.eq_ignore_ascii_case(word))
        })
    }

    fn check_databases(&self, request: &Request<'_>) -> Result<(), Denied> {
        let Some(allowed) = &self.databases else { return Ok(()) };
        let denied = |word| Err(Denied { reason: Reason::Database, word });
        for index in request.database_words() {
            let word = request.words.get(index).copied().unwrap_or_default();
            let number = carnelian_resp::number::parse_i64(word);
            let number = number.and_then(|number| i32::try_from(number).ok());
            if number.is_some_and(|number| allowed.binary_search(&number).is_err()) {
                return denied(index);
            }
        }
        if request.touches_all_databases() {
            return denied(0);
        }
        let is_here = allowed.binary_search(&i32::from(request.db)).is_ok();
        if request.touches_its_database() && !is_here { denied(0) } else { Ok(()) }
    }

    fn may_use(&self, key: &[u8], what: KeyUse) -> bool {
        let mut covering = self.keys.iter().filter(|pattern| pattern.covers(what));
        covering.any(|pattern| glob::matches(&pattern.pattern, key, false))
    }

    /// Whether a key may be used as `flags` say, whatever the command.
    pub(super) fn may_use_key(&self, key: &[u8], flags: KeyFlags) -> bool {
        self.all_keys || self.may_use(key, flags.into())
    }

    /// Whether every key there is may be used so.
    pub(super) fn may_use_every_key(&self, flags: KeyFlags) -> bool {
        let is_all = |key: &KeyPattern| *key.pattern == *b"*" && key.covers(flags.into());
        self.all_keys || self.keys.iter().any(is_all)
    }

    /// Whether a channel may be used; a pattern only where a rule has it letter by letter.
    pub(super) fn may_hear(&self, channel: &[u8], is_pattern: bool) -> bool {
        let mut allowed = self.channels.iter();
        self.all_channels
            || allowed.any(|known| match is_pattern {
                true => **known == *channel,
                false => glob::matches(known, channel, false),
            })
    }

    pub(super) fn hears_all(&self) -> bool {
        self.all_channels
    }

    pub(super) fn channels(&self) -> &[Box<[u8]>] {
        &self.channels
    }
}
