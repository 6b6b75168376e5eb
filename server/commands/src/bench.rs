//! A keyspace for unit tests: runs one handler at a time and returns its reply as text.

use carnelian_keyspace::{Aftermath, Aggregate, Db, EventClass, Keyspace};
use carnelian_resp::{Protocol, Writer};

use crate::{Call, Effect, Environment, Run, TABLES};

pub struct Bench {
    keyspace: Keyspace,
    pub environment: Environment,
    pub now_ms: u64,
    pub protocol: Protocol,
    pub may_block: bool,
    pub output_max: usize,
    /// Effects as a follower would receive them, in RESP.
    pub effects: Vec<u8>,
    /// Keyspace events but misses, as `event key`.
    pub events: Vec<String>,
    /// Of the last request: changes counted, and keys that watchers were told of.
    pub dirty: u64,
    pub touched: usize,
}

impl Bench {
    pub fn new() -> Self {
        Self {
            keyspace: Keyspace::new(16),
            environment: Environment::default(),
            now_ms: 1_700_000_000_000,
            protocol: Protocol::Resp2,
            may_block: false,
            output_max: usize::MAX,
            effects: Vec::new(),
            events: Vec::new(),
            dirty: 0,
            touched: 0,
        }
    }

    /// Runs a request written with single spaces, and returns the effect and the reply.
    pub fn run(&mut self, run: Run, request: &str) -> (Effect, String) {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        self.run_words(run, &words)
    }

    pub fn run_words(&mut self, run: Run, words: &[&[u8]]) -> (Effect, String) {
        let mut out = Vec::new();
        let environment = self.environment.clone();
        let mut aftermath = Aftermath::default();
        let access = self.keyspace.lock_all();
        aftermath.changes.following = true;
        aftermath.changes.listening = !(EventClass::KeyMiss as u32);
        aftermath.changes.watching = true;
        let db = Db::new(access, 0, self.now_ms, self.environment.policy, &mut aftermath);
        let result = {
            let reply = Writer::new(&mut out, self.protocol);
            run(&mut Call {
                args: words,
                db,
                reply,
                environment: &environment,
                may_block: self.may_block,
                output_max: self.output_max,
            })
        };
        let changes = &aftermath.changes;
        let (effect, error) = match result {
            Ok(effect) => (effect, None),
            Err(error) => (Effect::None, Some(error)),
        };
        self.dirty = changes.dirty;
        self.touched = changes.touched.len();
        self.events.extend(
            changes
                .events
                .iter()
                .map(|event| format!("{} {}", event.name, String::from_utf8_lossy(&event.key))),
        );
        if let Effect::Rewrite(rewrite) = &effect {
            self.effects.extend_from_slice(rewrite.as_bytes());
        }
        let reply = error.map_or_else(
            || String::from_utf8_lossy(&out).into_owned(),
            |error| format!("-{error}\r\n"),
        );
        (effect, reply)
    }

    /// What `look` sees in the list, set or other aggregate at a key.
    pub fn look<T: Aggregate, R>(&mut self, key: &str, look: impl FnOnce(&T) -> R) -> R {
        let mut aftermath = Aftermath::default();
        let access = self.keyspace.lock_all();
        let policy = self.environment.policy;
        let mut db = Db::new(access, 0, self.now_ms, policy, &mut aftermath);
        let found = db.read_as::<T>(key.as_bytes()).expect("a value of this type");
        look(&found.expect("the key is there"))
    }

    /// Runs a request by the name of its command; only the reply.
    pub fn reply(&mut self, request: &str) -> String {
        let mut words = request.split(' ').map(str::to_lowercase);
        let name = words.next().expect("a request has a name");
        let mut command = TABLES
            .iter()
            .flat_map(|table| table.iter())
            .find(|command| command.name == name)
            .unwrap_or_else(|| panic!("no command {name}"));
        if let Some(word) = words.next() {
            let mut subcommands = command.subcommands.iter();
            command = subcommands.find(|subcommand| subcommand.name == word).unwrap_or(command);
        }
        self.run(command.run, request).1
    }

    /// Asserts one reply, with `\r\n` between lines left out: `"$1 a"` for `$1\r\na\r\n`.
    #[track_caller]
    pub fn expect(&mut self, request: &str, reply: &str) {
        let got = self.reply(request);
        assert_eq!(got.trim_end().replace("\r\n", " "), reply, "for {request}");
    }
}
