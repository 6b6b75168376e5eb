//! Random commands from templates and pools, the same for the same seed.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::command::Command;
use super::compare::Rule;
use super::further;
use super::scenes::{SCENES, Scene};
use super::templates::{GROUPS, TEMPLATES, Template};

pub struct Generator {
    pub(super) random: Rng,
    templates: Vec<(&'static Template, Vec<Node>)>,
    /// An index into `templates` for each unit of weight, by group.
    picks: Vec<Vec<usize>>,
    /// What takes several commands that belong together.
    scenes: Vec<&'static Scene>,
    /// How many keys of a kind there are: few where commands are to meet.
    pub(super) keys: u32,
}

/// How many keys of a kind there are mostly.
pub(super) const KEYS: u32 = 6;

/// A parsed template.
enum Node {
    Word(String),
    /// Literal text around one placeholder, as in `#{bit}` or `{k}_*`.
    Fill(String, String, String),
    Optional(Vec<Vec<Self>>),
    OneOf(Vec<Vec<Self>>),
    Repeat(Vec<Self>),
}

impl Generator {
    /// Commands of these groups, leaving out the names `unknown` says no server knows.
    pub fn new(seed: u64, groups: &[String], unknown: &[String]) -> Result<Self> {
        let is_scene = |group: &str| SCENES.iter().any(|scene| scene.group == group);
        for group in groups {
            ensure!(GROUPS.contains(&group.as_str()), "no such group: {group}");
        }
        let is_wanted =
            |group: &str| groups.is_empty() || groups.iter().any(|other| other == group);
        let is_unknown = |name: &str| unknown.iter().any(|other| other == name);
        let mut templates = Vec::new();
        let mut picks: HashMap<&str, Vec<usize>> = HashMap::new();
        // Scenes need something to happen in them, whatever else is wanted.
        let only_scenes = !groups.is_empty() && groups.iter().all(|group| is_scene(group));
        for template in TEMPLATES.iter().chain(further::TEMPLATES) {
            if !(is_wanted(template.group) || only_scenes) || is_unknown(template.name()) {
                continue;
            }
            let nodes = Parser { rest: template.text }.sequence(None)?;
            for _ in 0..template.weight {
                picks.entry(template.group).or_default().push(templates.len());
            }
            templates.push((template, nodes));
        }
        let mut picks: Vec<_> = picks.into_iter().collect();
        picks.sort_unstable();
        let picks = picks.into_iter().map(|(_, indexes)| indexes).collect();
        let scenes =
            SCENES.iter().filter(|scene| is_wanted(scene.group) && !is_unknown(scene.needs));
        let scenes = scenes.collect();
        Ok(Self { random: Rng::with_seed(seed), templates, picks, scenes, keys: KEYS })
    }

    /// The names of all commands that may be generated.
    pub fn names() -> Vec<String> {
        let templates = TEMPLATES.iter().chain(further::TEMPLATES).map(Template::name);
        let needed = SCENES.iter().map(|scene| scene.needs);
        let mut names: Vec<String> = templates.chain(needed).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    /// About `size` commands; those of a scene stay together.
    pub fn batch(&mut self, size: usize) -> Vec<Command> {
        let mut commands = Vec::with_capacity(size + 50);
        while commands.len() < size {
            // Scenes take many commands, and those take their time, one after the other.
            if self.picks.is_empty() || (!self.scenes.is_empty() && self.random.u32(..20) == 0) {
                let scene = self.scenes[self.random.usize(..self.scenes.len())];
                (scene.play)(self, &mut commands);
            } else {
                let command = self.command();
                commands.push(command);
            }
        }
        commands
    }

    /// A command on the first connection that never waits.
    pub fn command(&mut self) -> Command {
        let group = self.random.usize(..self.picks.len());
        let pick = self.random.usize(..self.picks[group].len());
        let index = self.picks[group][pick];
        let mut words = Vec::new();
        let nodes = std::mem::take(&mut self.templates[index].1);
        if nodes.is_empty() {
            // A command within a command of the same template.
            return Command::plain("PING");
        }
        self.expand(&nodes, &mut words);
        self.templates[index].1 = nodes;
        let template = self.templates[index].0;
        if !template.text.starts_with("SPOP") && !template.text.contains(" 0.001") {
            self.spoil(&mut words, is_fragile(template));
        }
        if template.text.starts_with("LSET") {
            spare_a_defect(&mut words);
        }
        let text = template.text;
        let waits_until_answered = text.contains("BLOCK") || text.contains(" 0.001");
        Command { waits_until_answered, ..Command::new(words, template.rule) }
    }

    /// A command from a template that is not in the table.
    pub(super) fn made_of(&mut self, text: &str, rule: Rule) -> Command {
        let nodes =
            Parser { rest: text }.sequence(None).expect("a template that a test has parsed");
        let mut words = Vec::new();
        self.expand(&nodes, &mut words);
        Command::new(words, rule)
    }

    fn expand(&mut self, nodes: &[Node], words: &mut Vec<Vec<u8>>) {
        for node in nodes {
            match node {
                Node::Word(text) => words.push(self.recased(text)),
                Node::Fill(before, name, after) => {
                    let start = words.len();
                    self.fill(name, words);
                    if let Some(word) = words.get_mut(start)
                        && (!before.is_empty() || !after.is_empty())
                    {
                        *word = [before.as_bytes(), word, after.as_bytes()].concat();
                    }
                }
                Node::Optional(choices) => {
                    if self.random.u32(..100) < 40 {
                        let choice = self.random.usize(..choices.len());
                        self.expand(&choices[choice], words);
                    }
                }
                Node::OneOf(choices) => {
                    let choice = self.random.usize(..choices.len());
                    self.expand(&choices[choice], words);
                }
                Node::Repeat(nodes) => {
                    for _ in 0..self.repetitions() {
                        self.expand(nodes, words);
                    }
                }
            }
        }
    }

    fn repetitions(&mut self) -> usize {
        match self.random.u32(..1000) {
            0..3 => self.random.usize(200..700),
            3..30 => self.random.usize(20..150),
            _ => self.random.usize(1..5),
        }
    }

    fn recased(&mut self, text: &str) -> Vec<u8> {
        match self.random.u32(..20) {
            0 => text.to_lowercase().into_bytes(),
            _ => text.as_bytes().to_vec(),
        }
    }

    /// Makes a command wrong now and then: a word too few, too many, or another one.
    ///
    /// Fragile ones only lose or gain words: another number in them could make the servers differ
    /// rightly, by chance or by time.
    fn spoil(&mut self, words: &mut Vec<Vec<u8>>, fragile: bool) {
        match self.random.u32(..200) {
            0..3 if words.len() > 1 => {
                words.pop();
            }
            3..5 => words.push(b"extra".to_vec()),
            5..7 if !fragile && words.len() > 1 => {
                let at = self.random.usize(1..words.len());
                words[at] = self.value();
            }
            7 if !fragile && words.len() > 2 => {
                let at = self.random.usize(2..words.len());
                words.swap(at, at - 1);
            }
            8 => {
                let at = self.random.usize(1..=words.len());
                words.insert(at, self.pick(&["NX", "XX", "GT", "COUNT", "WITHSCORES", "GET", ""]));
            }
            _ => {}
        }
    }

    fn fill(&mut self, name: &str, words: &mut Vec<Vec<u8>>) {
        let word = match name {
            "s" | "b" | "h" | "l" | "t" | "z" | "x" | "q" => self.key(name),
            "p" | "e" => self.key(name),
            "em" => format!("m{}", self.random.u32(..300)).into_bytes(),
            "lon" => self.coordinate(180.0, 10.0),
            "lat" => self.coordinate(85.0, 45.0),
            "len" => {
                words.push(self.length());
                self.pick(&["m", "km", "km", "km", "KM", "mi", "ft", "x"])
            }
            "k" => self.any_key(),
            "y" => format!("y{}", self.random.u32(..self.keys.min(4))).into_bytes(),
            "v" => self.value(),
            "f" => self.field(),
            "m" => self.member(),
            "i" => self.integer(),
            "d" => self.float(),
            "n" => self.index(),
            "c" => self.count(),
            "ttl" => self.time_to_live(1),
            "pttl" => self.time_to_live(1000),
            "at" => self.time(1),
            "pat" => self.time(1000),
            "score" => self.score(),
            "range" => self.range(),
            "lex" => self.lex(),
            "glob" => self.glob(),
            "id" => self.id(),
            "g" => self.key("g"),
            "gid" => self.low_id(),
            "gn" => self.pick(&["a", "b", "a", "b", "a", "b", "c", ""]),
            "gc" => format!("c{}", self.random.u32(..4)).into_bytes(),
            "new" => self.reading_start(),
            "idle" => self.pick(&["0", "0", "0", "-1", "3600000", "3600000", "x"]),
            "xid" => self.range_id(),
            "bit" => self.pick(&["0", "1", "0", "1", "0", "1", "2", "-1"]),
            "boff" => self.offset(3000, 4_294_967_296),
            "soff" => self.offset(300, 536_870_912),
            "bft" => self.bit_field_type(),
            "gt" => b">".to_vec(),
            "lua" => self.pick(&["return 1", "return (", "return KEYS[1]", "return {1}", ""]),
            "who" => self.pick(&["c1", "c2", "c3"]),
            "user" => self.pick(&["u0", "u1", "u2", "u3", "u0", "nobody"]),
            "acl" => self.acl_rule(),
            "chan" => self.pick(&["c1", "c2", "c3", "news.a", "news.b", "other", ""]),
            "cglob" => self.pick(&["c*", "news.*", "*", "c[12]", "?1", "n*.b", "x"]),
            "long" => self.pick(&["0", "0", "100", "1e2", "0.0"]),
            "short" => self.pick(&["0.01", "0.02", "0.001"]),
            "bad" => self.pick(&["-1", "x", "", "1e400", "nan", "9223372036854775807", "inf"]),
            "#f" => return self.counted(words, |this| vec![this.field()]),
            "#fv" => return self.counted(words, |this| vec![this.field(), this.value()]),
            "#m" => return self.counted(words, |this| vec![this.member()]),
            "#t" => return self.counted(words, |this| vec![this.key("t")]),
            "#z" => return self.counted(words, |this| vec![this.key("z")]),
            "#l" => return self.counted(words, |this| vec![this.key("l")]),
            "any" => return words.extend(self.command().words),
            _ => unreachable!("templates use only these names: {name}"),
        };
        words.push(word);
    }

    /// A count, mostly right, and the items it counts.
    fn counted(&mut self, words: &mut Vec<Vec<u8>>, item: fn(&mut Self) -> Vec<Vec<u8>>) {
        let count = self.random.usize(1..4);
        let said = match self.random.u32(..50) {
            0 => self.pick(&["0", "-1", "x", "100", "9223372036854775807"]),
            1 => (count + 1).to_string().into_bytes(),
            _ => count.to_string().into_bytes(),
        };
        words.push(said);
        for _ in 0..count {
            words.extend(item(self));
        }
    }

    pub(super) fn key(&mut self, kind: &str) -> Vec<u8> {
        match self.random.u32(..40) {
            0 => self.any_key(),
            _ => format!("{kind}{}", self.random.u32(..self.keys)).into_bytes(),
        }
    }

    fn any_key(&mut self) -> Vec<u8> {
        let kinds = ["s", "b", "h", "l", "t", "z", "x", "q", "g", "p", "e", "none"];
        let kind = kinds[self.random.usize(..kinds.len())];
        format!("{kind}{}", self.random.u32(..self.keys)).into_bytes()
    }

    /// Degrees all over the globe, or near one place, hardly ever the same twice.
    fn coordinate(&mut self, most: f64, place: f64) -> Vec<u8> {
        let degrees = match self.random.u32(..60) {
            0 => return self.pick(&["181", "-90.5", "x", "nan", "1e400", ""]),
            1..30 => (self.random.f64() * 2.0 - 1.0) * most,
            _ => self.random.f64() * 4.0 - 2.0 + place,
        };
        format!("{degrees}").into_bytes()
    }

    fn length(&mut self) -> Vec<u8> {
        match self.random.u32(..60) {
            0 => self.pick(&["-1", "x", "nan", "inf", "0", ""]),
            1..20 => format!("{}", self.random.f64() * 10_000.0).into_bytes(),
            _ => format!("{}", 10_f64.powf(self.random.f64() * 4.0)).into_bytes(),
        }
    }

    pub(super) fn value(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..30 => self.random.i32(-5..20).to_string().into_bytes(),
            30..45 => self.integer(),
            45..55 => self.float(),
            55..60 => Vec::new(),
            60..65 => self.binary(),
            65..72 => {
                let length = [10, 44, 45, 63, 64, 65, 127, 128][self.random.usize(..8)];
                self.text(length)
            }
            72..74 => self.text(1000),
            74..75 if self.random.u32(..10) == 0 => self.text(9000),
            _ => {
                let length = self.random.usize(1..12);
                self.text(length)
            }
        }
    }

    fn text(&mut self, length: usize) -> Vec<u8> {
        let letters = self.random.u8(1..5);
        (0..length).map(|_| b'a' + self.random.u8(..letters)).collect()
    }

    fn binary(&mut self) -> Vec<u8> {
        let length = self.random.usize(1..20);
        (0..length).map(|_| self.random.u8(..)).collect()
    }

    fn field(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..70 => format!("f{}", self.random.u32(..10)).into_bytes(),
            70..92 => format!("f{}", self.random.u32(..700)).into_bytes(),
            92..95 => self.random.i32(-5..200).to_string().into_bytes(),
            _ => self.value(),
        }
    }

    fn member(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..40 => format!("m{}", self.random.u32(..15)).into_bytes(),
            40..60 => self.random.i32(-5..30).to_string().into_bytes(),
            60..75 => format!("m{}", self.random.u32(..700)).into_bytes(),
            75..88 => self.random.u32(..1000).to_string().into_bytes(),
            _ => self.value(),
        }
    }

    /// Numbers that may become lengths or offsets are small or too large: none asks for much memory.
    fn integer(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..60 => self.random.i32(-20..100).to_string().into_bytes(),
            60..70 => self.random.i64(..).to_string().into_bytes(),
            70..80 => self.random.i32(-70_000..70_000).to_string().into_bytes(),
            _ => self.pick(&[
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775808",
                "-9223372036854775809",
                "18446744073709551615",
                "99999999999999999999999",
                "8589934592",
                "-8589934592",
                "32767",
                "32768",
                "-32769",
                "127",
                "128",
                "-129",
                "8388607",
                "-8388608",
                "+1",
                "01",
                "-0",
                " 1",
                "1 ",
                "1x",
                "0x10",
                "1e3",
                "",
                "one",
            ]),
        }
    }

    fn float(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..25 => self.random.i32(-20..100).to_string().into_bytes(),
            25..50 => {
                format!("{}.{}", self.random.i32(-50..50), self.random.u32(..1000)).into_bytes()
            }
            50..60 => format!("{:e}", self.random.f64() * 1e6).into_bytes(),
            60..70 => format!("{}", self.random.f64()).into_bytes(),
            70..75 => format!("{}", f64::from_bits(self.random.u64(..) >> 2)).into_bytes(),
            _ => self.pick(&[
                "0.1",
                "0.5",
                "-0.25",
                "3.0",
                "1e10",
                "1e17",
                "1.5e-7",
                "-0",
                "0",
                "1e308",
                "1e-308",
                "1e400",
                "inf",
                "-inf",
                "+inf",
                "nan",
                "Infinity",
                ".5",
                "5.",
                "1e",
                "0x1p3",
                " 1",
                "1 ",
                "",
                "abc",
                "3.14159265358979312",
                "1234567890123456789",
                "0.30000000000000004",
                "+1",
                "1,5",
            ]),
        }
    }

    fn index(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..60 => self.random.i32(-6..8).to_string().into_bytes(),
            60..75 => self.pick(&["0", "-1"]),
            75..90 => self.random.i32(-200..200).to_string().into_bytes(),
            90..96 => self.pick(&["9223372036854775807", "-9223372036854775808", "8589934592"]),
            _ => self.pick(&["x", "", "1.5", "9223372036854775808", "+1"]),
        }
    }

    fn count(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..75 => self.random.u32(..12).to_string().into_bytes(),
            75..85 => self.random.i32(-10..0).to_string().into_bytes(),
            85..94 => self.random.u32(..600).to_string().into_bytes(),
            _ => self.pick(&["x", "", "9223372036854775808", "1.0", "-9223372036854775808"]),
        }
    }

    /// Far from now, so that both servers agree on what has expired.
    fn time_to_live(&mut self, scale: i64) -> Vec<u8> {
        match self.random.u32(..100) {
            0..80 => (self.random.i64(10_000..10_000_000) * scale).to_string().into_bytes(),
            80..90 => self.pick(&["0", "-1", "-100000"]),
            _ => self.pick(&[
                "x",
                "",
                "1.5",
                "9223372036854775807",
                "9223372036854775",
                "-9223372036854775808",
                "9223372036854775808",
                "99999999999999999",
            ]),
        }
    }

    fn time(&mut self, scale: i64) -> Vec<u8> {
        match self.random.u32(..100) {
            0..80 => {
                (self.random.i64(4_000_000_000..9_000_000_000) * scale).to_string().into_bytes()
            }
            80..90 => self.pick(&["0", "1", "1000000", "-1"]),
            _ => self.pick(&[
                "x",
                "",
                "9223372036854775807",
                "-9223372036854775808",
                "9223372036854775",
            ]),
        }
    }

    fn score(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..60 => self.random.i32(-5..10).to_string().into_bytes(),
            60..75 => self.random.i32(-1000..1000).to_string().into_bytes(),
            _ => self.float(),
        }
    }

    fn range(&mut self) -> Vec<u8> {
        let border = match self.random.u32(..100) {
            0..30 => return self.pick(&["-inf", "+inf", "inf"]),
            30..97 => self.score(),
            _ => self.value(),
        };
        if self.random.u32(..4) == 0 { [b"(", &border[..]].concat() } else { border }
    }

    fn lex(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..20 => b"-".to_vec(),
            20..40 => b"+".to_vec(),
            40..70 => [b"[", &self.member()[..]].concat(),
            70..96 => [b"(", &self.member()[..]].concat(),
            _ => self.member(),
        }
    }

    fn glob(&mut self) -> Vec<u8> {
        self.pick(&[
            "*", "*1*", "?1", "[sh]*", "[^s]*", "[a-m]?", "s\\1", "*[13]", "m1?", "f*", "", "m",
            "[", "[a-", "\\", "**", "?", "[^]*", "*\\", "[]-z]*",
        ])
    }

    fn id(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..70 => {
                format!("{}-{}", self.random.u32(1..100_000), self.random.u32(..5)).into_bytes()
            }
            70..85 => format!("{}-*", self.random.u32(1..100_000)).into_bytes(),
            85..93 => self.random.u32(1..100_000).to_string().into_bytes(),
            _ => self.pick(&[
                "0-0",
                "0-1",
                "0",
                "-",
                "1-",
                "x",
                "1-x",
                "1-2-3",
                "18446744073709551615-1",
                "18446744073709551616-0",
                "1-18446744073709551615",
                "",
                "-1",
                "0-*",
                "1-**",
            ]),
        }
    }

    fn acl_rule(&mut self) -> Vec<u8> {
        self.pick(&[
            "on",
            "off",
            "nopass",
            "resetpass",
            ">secret",
            ">two",
            "allkeys",
            "~s*",
            "~h1",
            "%R~l*",
            "%W~t*",
            "%RW~z?",
            "%X~a",
            "%~a",
            "resetkeys",
            "allchannels",
            "&c*",
            "&news.*",
            "resetchannels",
            "+@all",
            "-@all",
            "allcommands",
            "nocommands",
            "+get",
            "-get",
            "+set",
            "+config|get",
            "-config|set",
            "+config",
            "+client|id",
            "+@read",
            "-@read",
            "+@write",
            "-@dangerous",
            "+@hash",
            "-@list",
            "+@nothing",
            "+nosuch",
            "+get|x",
            "(+get ~a*)",
            "(-@all +@set %R~t*)",
            "(+nosuch)",
            "(~s* +@string &c*)",
            "clearselectors",
            "reset",
            "sanitize-payload",
            "skip-sanitize-payload",
            "~*",
            "&*",
            "",
            "nonsense",
            "~a b",
            "+SET",
            "-@ALL",
            "+object|encoding",
            "-select|1",
            "+select|0",
            "#5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8",
            "#12",
            "+@scripting",
        ])
    }

    /// Of few there are, so that many refer to entries that exist.
    fn low_id(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..90 => format!("{}-{}", self.random.u32(1..8), self.random.u32(..8)).into_bytes(),
            90..97 => self.random.u32(..8).to_string().into_bytes(),
            _ => self.id(),
        }
    }

    fn reading_start(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..75 => b">".to_vec(),
            75..85 => b"0".to_vec(),
            85..95 => self.low_id(),
            _ => self.pick(&["$", "+", "-", "18446744073709551615-18446744073709551615"]),
        }
    }

    fn range_id(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..25 => b"-".to_vec(),
            25..50 => b"+".to_vec(),
            50..60 => [b"(", &self.id()[..]].concat(),
            _ => self.id(),
        }
    }

    fn offset(&mut self, usual: u32, too_large: u64) -> Vec<u8> {
        match self.random.u32(..100) {
            0..70 => self.random.u32(..100).to_string().into_bytes(),
            70..92 => self.random.u32(..usual).to_string().into_bytes(),
            92..96 => too_large.to_string().into_bytes(),
            _ => self.pick(&["-1", "x", "", "9223372036854775807", "1.5", "#", "#x"]),
        }
    }

    fn bit_field_type(&mut self) -> Vec<u8> {
        match self.random.u32(..100) {
            0..90 => {
                let sign = self.pick(&["i", "u"]);
                let width = self.random.u32(1..64).to_string();
                [&sign[..], width.as_bytes()].concat()
            }
            90..94 => b"i64".to_vec(),
            _ => self.pick(&["u64", "i65", "u0", "i", "8", "x8", "", "I8", "u08"]),
        }
    }

    pub(super) fn pick(&mut self, words: &[&str]) -> Vec<u8> {
        words[self.random.usize(..words.len())].as_bytes().to_vec()
    }
}

/// Whether another number in the command could make two right servers differ.
fn is_fragile(template: &Template) -> bool {
    let random = matches!(template.rule, Rule::Shape);
    let timed =
        ["{ttl}", "{pttl}", "{at}", "{pat}"].iter().any(|name| template.text.contains(name));
    // A huge offset or width asks for half a gigabyte.
    let large = ["{boff}", "{soff}", "{bft}"].iter().any(|name| template.text.contains(name));
    let scan = template.text.contains("COUNT 100000");
    // Ranges by name mean nothing where scores differ.
    let lexical = template.text.contains("{y}");
    let unsorted = template.text.contains("nosort");
    // Waiting must not last.
    let blocking = template.text.contains("BLOCK") || template.text.starts_with("WAIT");
    // A plain HELLO lists the modules of a server.
    let greeting = template.text.starts_with("HELLO");
    // Nothing may wait where nobody expects it, or carry a payload of bytes at random.
    let special = ["{short}", "@dum", "{any}"].iter().any(|part| template.text.contains(part));
    // A number may be that of a connection of ours, or an age that all have reached.
    let ending = template.text.starts_with("CLIENT KILL");
    let numbered = ending || greeting;
    random || timed || large || scan || lexical || unsorted || blocking || numbered || special
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// Nodes up to the closing character, or the next `|`.
    fn sequence(&mut self, close: Option<char>) -> Result<Vec<Node>> {
        let mut nodes = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            let Some(first) = self.rest.chars().next() else {
                ensure!(close.is_none(), "a bracket is not closed");
                return Ok(nodes);
            };
            if Some(first) == close || (close.is_some() && first == '|') {
                return Ok(nodes);
            }
            nodes.push(match first {
                '[' => Node::Optional(self.choices(']')?),
                '(' => Node::OneOf(self.choices(')')?),
                '<' => {
                    self.rest = &self.rest[1..];
                    let repeated = self.sequence(Some('>'))?;
                    self.rest = &self.rest[1..];
                    Node::Repeat(repeated)
                }
                _ => self.word()?,
            });
        }
    }

    fn choices(&mut self, close: char) -> Result<Vec<Vec<Node>>> {
        self.rest = &self.rest[1..];
        let mut choices = Vec::new();
        loop {
            choices.push(self.sequence(Some(close))?);
            let closed = self.rest.starts_with(close);
            self.rest = &self.rest[1..];
            if closed {
                return Ok(choices);
            }
        }
    }

    fn word(&mut self) -> Result<Node> {
        // `->` is part of a word, `>` alone closes a repetition.
        let arrow = self.rest.find("->").map(|at| at + 1);
        let end = self
            .rest
            .char_indices()
            .find(|(at, c)| " |])>".contains(*c) && Some(*at) != arrow)
            .map_or(self.rest.len(), |(at, _)| at);
        ensure!(end > 0, "a word is empty before {}", self.rest);
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let Some((before, after)) = word.split_once('{') else {
            return Ok(Node::Word(word.to_owned()));
        };
        let (name, after) = after.split_once('}').context("a placeholder is not closed")?;
        Ok(Node::Fill(before.to_owned(), name.to_owned(), after.replace("{f}", "f1")))
    }
}

/// Redis cuts the index of LSET to 32 bits, and changes another element than was meant: nothing to
/// follow. Numbers that long stay out of it.
fn spare_a_defect(words: &mut [Vec<u8>]) {
    let Some(index) = words.get_mut(2) else { return };
    let number = std::str::from_utf8(index).ok().and_then(|text| text.parse::<i64>().ok());
    if number.is_some_and(|number| i32::try_from(number).is_err()) {
        *index = b"1000000".to_vec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_commands() {
        let mut first = Generator::new(1, &[], &[]).unwrap();
        let mut second = Generator::new(1, &[], &[]).unwrap();
        for _ in 0..20_000 {
            assert_eq!(first.command().words, second.command().words);
        }
        for _ in 0..20 {
            let lines = |commands: Vec<Command>| -> Vec<String> {
                commands.iter().map(Command::line).collect()
            };
            assert_eq!(lines(first.batch(200)), lines(second.batch(200)));
        }
    }

    #[test]
    fn groups_and_unknown_commands_are_left_out() {
        let mut generator = Generator::new(1, &["list".to_owned()], &["LPUSH".to_owned()]).unwrap();
        for _ in 0..1000 {
            let command = generator.command();
            assert!(!command.words[0].eq_ignore_ascii_case(b"LPUSH"));
        }
        assert!(Generator::new(1, &["nothing".to_owned()], &[]).is_err());
    }
}
