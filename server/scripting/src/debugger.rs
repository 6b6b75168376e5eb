//! A debugging session of a script: where it stops, what it is asked there, and what it tells.
//!
//! Knows nothing of Lua's stack: what has to be looked up there is an [`Order`] for `raw::debug`.

use std::time::{Duration, Instant};

use carnelian_resp::number::parse_i64;

use crate::values::{DEPTH_MAX, header, length, take};

/// Breakpoints that can be set.
const BREAKPOINTS_MAX: usize = 64;
/// How many bytes of a value or a reply are shown, unless `maxlen` says otherwise.
const SHOWN_BYTES: usize = 256;
/// `maxlen` takes no less.
const SHOWN_BYTES_MIN: usize = 60;
/// No value is shown at greater length, whatever `maxlen` says: tables may hold themselves many times.
const SHOWN_BYTES_MAX: usize = 1 << 20;
/// What a script may tell between two stops.
const PENDING_BYTES_MAX: usize = 16 << 20;
/// Words of a command that are shown.
const WORDS_SHOWN: usize = 10;
/// Lines around the current one that `list` shows.
const CONTEXT: i64 = 5;

/// Redis's words: `redis-cli --ldb` shows them, and people know them.
const HELP: &[&str] = &[
    "Redis Lua debugger help:",
    "[h]elp               Show this help.",
    "[s]tep               Run current line and stop again.",
    "[n]ext               Alias for step.",
    "[c]ontinue           Run till next breakpoint.",
    "[l]ist               List source code around current line.",
    "[l]ist [line]        List source code around [line].",
    "                     line = 0 means: current position.",
    "[l]ist [line] [ctx]  In this form [ctx] specifies how many lines",
    "                     to show before/after [line].",
    "[w]hole              List all source code. Alias for 'list 1 1000000'.",
    "[p]rint              Show all the local variables.",
    "[p]rint <var>        Show the value of the specified variable.",
    "                     Can also show global vars KEYS and ARGV.",
    "[b]reak              Show all breakpoints.",
    "[b]reak <line>       Add a breakpoint to the specified line.",
    "[b]reak -<line>      Remove breakpoint from the specified line.",
    "[b]reak 0            Remove all breakpoints.",
    "[t]race              Show a backtrace.",
    "[e]val <code>        Execute some Lua code (in a different callframe).",
    "[r]edis <cmd>        Execute a Redis command.",
    "[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.",
    "                     Specifying zero as <len> means unlimited.",
    "[a]bort              Stop the execution of the script. In sync",
    "                     mode dataset changes will be retained.",
    "",
    "Debugger functions you can call from Lua scripts:",
    "redis.debug()        Produce logs in the debugger console.",
    "redis.breakpoint()   Stop execution like if there was a breakpoint in the",
    "                     next line of code.",
];

/// What is to be done on Lua's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The script goes on.
    Resume,
    /// The script gets this error.
    Raise(&'static str),
    /// One variable, or all of the current function.
    Print(Option<Vec<u8>>),
    Trace,
    Evaluate(Vec<u8>),
    Call(Vec<Vec<u8>>),
}

/// An event of Lua's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Line,
    /// So many instructions have run.
    Count,
}

/// A stop of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// It was not asked for: the script has run for long.
    pub(crate) is_late: bool,
}

pub(crate) struct Debugger {
    source: Vec<Vec<u8>>,
    breakpoints: Vec<i64>,
    /// The next line is a stop, and commands of the script are told of until then.
    pub(crate) steps: bool,
    /// `redis.breakpoint()` was called.
    pub(crate) is_called: bool,
    pub(crate) line: i64,
    /// 0: no limit.
    shown_bytes: usize,
    has_hinted: bool,
    /// Lines to be sent, as they go over the wire.
    pending: Vec<u8>,
    pending_lines: usize,
    /// Code of the debugger's client runs, and not the script.
    pub(crate) is_evaluating: bool,
    resumed: Instant,
    patience: Duration,
}

impl Debugger {
    /// A script that runs for longer than `patience` without a stop is stopped.
    pub(crate) fn new(source: &[u8], patience: Duration) -> Self {
        let end = source.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n'));
        let source = &source[..end.map_or(0, |end| end + 1)];
        Self {
            source: source.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect(),
            breakpoints: Vec::new(),
            steps: true,
            is_called: false,
            line: 0,
            shown_bytes: SHOWN_BYTES,
            has_hinted: false,
            pending: Vec::new(),
            pending_lines: 0,
            is_evaluating: false,
            resumed: Instant::now(),
            patience,
        }
    }

    // --- Stops ---

    /// Whether the script stops at the current line; if so that is told.
    pub(crate) fn stop(&mut self, event: Event) -> Option<Stop> {
        let is_break = self.is_called || self.breakpoints.contains(&self.line);
        let is_late = event == Event::Count && !self.steps && !is_break && self.is_overdue();
        if !self.steps && !is_break && !is_late {
            return None;
        }
        let reason = match (is_break, is_late) {
            (true, _) if self.is_called => "redis.breakpoint() called",
            (true, _) => "break point",
            (_, true) => "timeout reached, infinite loop?",
            _ => "step over",
        };
        self.steps = false;
        self.is_called = false;
        self.log(format!("* Stopped at {}, stop reason = {reason}", self.line).as_bytes());
        self.log_source(self.line);
        Some(Stop { is_late })
    }

    /// Whether it has run for too long since the last stop.
    pub(crate) fn is_overdue(&self) -> bool {
        self.patience <= self.resumed.elapsed()
    }

    /// It runs from here on.
    pub(crate) fn resume(&mut self) {
        self.resumed = Instant::now();
    }

    /// Nobody is there to be asked any more: the script runs to its end.
    pub(crate) fn abandon(&mut self) {
        self.steps = false;
        self.breakpoints.clear();
    }

    /// Does what the client asks for, as far as that needs no look at Lua's stack.
    pub(crate) fn obey(&mut self, mut words: Vec<Vec<u8>>) -> Option<Order> {
        let name = words[0].to_ascii_lowercase();
        let arguments = &words[1..];
        match name.as_slice() {
            b"h" | b"help" => HELP.iter().for_each(|line| self.log(line.as_bytes())),
            b"s" | b"step" | b"n" | b"next" => {
                self.steps = true;
                return Some(Order::Resume);
            }
            b"c" | b"continue" => return Some(Order::Resume),
            b"t" | b"trace" => return Some(Order::Trace),
            b"m" | b"maxlen" => self.set_shown_bytes(arguments),
            b"b" | b"break" => self.set_breakpoints(arguments),
            b"e" | b"eval" => return Some(Order::Evaluate(arguments.join(&b' '))),
            b"a" | b"abort" => return Some(Order::Raise("ERR script aborted for user request")),
            b"r" | b"redis" if !arguments.is_empty() => {
                return Some(Order::Call(words.split_off(1)));
            }
            b"p" | b"print" => {
                return Some(Order::Print(match arguments {
                    [name] => Some(name.clone()),
                    _ => None,
                }));
            }
            b"l" | b"list" => {
                let around = arguments.first().map_or(0, |word| leading_number(word));
                let context = arguments.get(1).map_or(CONTEXT, |word| leading_number(word));
                self.list(if 0 < around { around } else { self.line }, context);
            }
            b"w" | b"whole" => self.list(1, 1_000_000),
            _ => self
                .log(b"<error> Unknown Redis Lua debugger command or wrong number of arguments."),
        }
        None
    }

    fn set_shown_bytes(&mut self, arguments: &[Vec<u8>]) {
        if let [word] = arguments {
            // Who says this knows of it.
            self.has_hinted = true;
            self.shown_bytes = match usize::try_from(leading_number(word)) {
                Ok(0) => 0,
                Ok(bytes) => bytes.max(SHOWN_BYTES_MIN),
                Err(_) => SHOWN_BYTES_MIN,
            };
        }
        match self.shown_bytes {
            0 => self.log(b"<value> replies are unlimited."),
            bytes => {
                self.log(format!("<value> replies are truncated at {bytes} bytes.").as_bytes())
            }
        }
    }

    fn set_breakpoints(&mut self, arguments: &[Vec<u8>]) {
        if arguments.is_empty() {
            if self.breakpoints.is_empty() {
                return self.log(b"No breakpoints set. Use 'b <line>' to add one.");
            }
            self.log(format!("{} breakpoints set:", self.breakpoints.len()).as_bytes());
            for line in self.breakpoints.clone() {
                self.log_source(line);
            }
        }
        for word in arguments {
            match parse_i64(word) {
                None => self.log(&[b"Invalid argument:'", word.as_slice(), b"'"].concat()),
                Some(0) => {
                    self.breakpoints.clear();
                    self.log(b"All breakpoints removed.");
                }
                Some(line) if 0 < line => self.add_breakpoint(line),
                Some(line) => {
                    let place =
                        self.breakpoints.iter().position(|it| line.checked_neg() == Some(*it));
                    if let Some(place) = place {
                        self.breakpoints.remove(place);
                        self.log(b"Breakpoint removed.");
                    } else {
                        self.log(b"No breakpoint in the specified line.");
                    }
                }
            }
        }
    }

    fn add_breakpoint(&mut self, line: i64) {
        if self.breakpoints.len() == BREAKPOINTS_MAX {
            return self.log(b"Too many breakpoints set.");
        }
        if (self.source.len() as i64) < line || self.breakpoints.contains(&line) {
            return self.log(b"Wrong line number.");
        }
        self.breakpoints.push(line);
        self.list(line, 1);
    }

    /// Shows so many lines before and after one.
    fn list(&mut self, around: i64, context: i64) {
        for line in 1..=self.source.len() as i64 {
            if around == 0 || (line - around).abs() <= context {
                self.log_source(line);
            }
        }
    }

    /// Shows a line of the source, with what there is to say of it in front.
    pub(crate) fn log_source(&mut self, line: i64) {
        let prefix = match (line == self.line, self.breakpoints.contains(&line)) {
            (true, true) => "->#",
            (true, false) => "-> ",
            (false, true) => "  #",
            (false, false) => "   ",
        };
        let mut shown = format!("{prefix}{line:<3} ").into_bytes();
        let text = usize::try_from(line - 1).ok().and_then(|index| self.source.get(index));
        match text {
            Some(text) => shown.extend_from_slice(text),
            None => shown.extend_from_slice(b"<out of range source code line>"),
        }
        self.log(&shown);
    }

    // --- What is told ---

    pub(crate) fn log(&mut self, line: &[u8]) {
        if PENDING_BYTES_MAX < self.pending.len() {
            return;
        }
        let line: &[u8] = match PENDING_BYTES_MAX < self.pending.len() + line.len() {
            true => b"<hint> The script has told more than is kept: the rest is left out.",
            false => line,
        };
        self.pending.push(b'+');
        let start = self.pending.len();
        self.pending.extend_from_slice(line);
        crate::reply::spaces_for_line_ends(&mut self.pending[start..]);
        self.pending.extend_from_slice(b"\r\n");
        self.pending_lines += 1;
    }

    /// The same of what may be long.
    pub(crate) fn log_some(&mut self, line: &[u8]) {
        if self.shown_bytes == 0 || line.len() <= self.shown_bytes {
            return self.log(line);
        }
        self.log(&[&line[..self.shown_bytes], b" ..."].concat());
        if !std::mem::replace(&mut self.has_hinted, true) {
            self.log(b"<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.");
        }
    }

    /// More of a value need not be put into words.
    pub(crate) fn wanted_bytes(&self) -> usize {
        match self.shown_bytes {
            0 => SHOWN_BYTES_MAX,
            bytes => bytes.min(SHOWN_BYTES_MAX),
        }
    }

    /// A command of the script that is about to run.
    pub(crate) fn log_command(&mut self, words: &[&[u8]]) {
        let mut line = b"<redis>".to_vec();
        for word in words.iter().take(WORDS_SHOWN) {
            line.push(b' ');
            line.extend_from_slice(word);
        }
        if WORDS_SHOWN < words.len() {
            let more = words.len() - WORDS_SHOWN - 1;
            line.extend_from_slice(format!(" ... ({more} more)").as_bytes());
        }
        self.log(&line);
    }

    /// An error that was raised while the script steps, its code in front.
    pub(crate) fn log_error(&mut self, text: &[u8]) {
        // Redis adds the code later, where it is this one.
        match text.strip_prefix(b"ERR ") {
            Some(text) => self.log(&[b"<error> ", text].concat()),
            None => self.log(&[b"<error> -", text].concat()),
        }
    }

    /// The reply of a command.
    pub(crate) fn log_reply(&mut self, reply: &[u8]) {
        let mut line = b"<reply> ".to_vec();
        if reply.first() == Some(&b'-') {
            let text = reply.strip_suffix(b"\r\n").unwrap_or(reply);
            self.log(&[b"<error> ", text].concat());
        }
        write_reply(&mut { reply }, &mut line, self.wanted_bytes(), DEPTH_MAX);
        self.log_some(&line);
    }

    /// All that is to be sent, as one reply.
    pub(crate) fn take_pending(&mut self) -> Vec<u8> {
        let mut whole = format!("*{}\r\n", std::mem::take(&mut self.pending_lines)).into_bytes();
        whole.append(&mut self.pending);
        whole
    }
}

/// As C reads numbers: the digits in front count, and what is none is 0.
fn leading_number(word: &[u8]) -> i64 {
    let (is_negative, digits) = match word {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, word),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0_i32, |number, byte| {
        number.saturating_mul(10).saturating_add(i32::from(byte - b'0'))
    });
    i64::from(if is_negative { -number } else { number })
}

/// Puts a reply into words; false if it is none.
fn write_reply(rest: &mut &[u8], out: &mut Vec<u8>, most: usize, depth: usize) -> bool {
    if most < out.len() {
        return false;
    }
    let whole = *rest;
    let Some((kind, line)) = header(rest) else { return false };
    match kind {
        b':' | b'(' => out.extend_from_slice(line),
        b'+' | b'-' => write_quoted(&whole[..=line.len()], out),
        b'_' => out.extend_from_slice(b"(null)"),
        b'#' => out.extend_from_slice(if line == b"t" { b"#true" } else { b"#false" }),
        b',' => {
            out.extend_from_slice(b"(double) ");
            out.extend_from_slice(line);
        }
        b'$' | b'=' => match length(line) {
            Some(Some(length)) => match take(rest, length) {
                Some(text) => write_quoted(text, out),
                None => return false,
            },
            _ => out.extend_from_slice(b"NULL"),
        },
        b'*' => return write_elements(rest, line, (b"[", b"]"), false, out, most, depth),
        b'~' => return write_elements(rest, line, (b"~(", b")"), false, out, most, depth),
        b'%' => return write_elements(rest, line, (b"{", b"}"), true, out, most, depth),
        _ => return false,
    }
    true
}

fn write_elements(
    rest: &mut &[u8],
    line: &[u8],
    (open, close): (&[u8], &[u8]),
    has_values: bool,
    out: &mut Vec<u8>,
    most: usize,
    depth: usize,
) -> bool {
    let (Some(count), Some(depth)) = (length(line), depth.checked_sub(1)) else { return false };
    let Some(count) = count else {
        out.extend_from_slice(b"NULL");
        return true;
    };
    out.extend_from_slice(open);
    for index in 0..count {
        if index != 0 {
            out.push(b',');
        }
        if !write_reply(rest, out, most, depth) {
            return false;
        }
        if has_values {
            out.extend_from_slice(b" => ");
            if !write_reply(rest, out, most, depth) {
                return false;
            }
        }
    }
    out.extend_from_slice(close);
    true
}

/// A text in quotes, on one line, as Redis shows texts.
pub(crate) fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            b' '..=b'~' => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

/// A number as C's `%g` writes it.
pub(crate) fn write_number(number: f64, out: &mut Vec<u8>) {
    const DIGITS: i32 = 6;

    if !number.is_finite() {
        let sign = if number.is_sign_negative() { "-" } else { "" };
        let name = if number.is_nan() { "nan" } else { "inf" };
        return out.extend_from_slice(format!("{sign}{name}").as_bytes());
    }
    let scientific = format!("{number:.*e}", DIGITS as usize - 1);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let text = if (-4..DIGITS).contains(&exponent) {
        trim(&format!("{number:.*}", (DIGITS - 1 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debugger() -> Debugger {
        Debugger::new(b"local a = 1\nlocal b = 2\n\nreturn a\r\n\n", Duration::from_secs(60))
    }

    /// What is told after a command; `resumed` where the script goes on.
    fn ask(debugger: &mut Debugger, command: &str) -> String {
        let words = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        let order = debugger.obey(words);
        assert!(order.is_none(), "{order:?}");
        String::from_utf8(debugger.take_pending()).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn it_stops_at_each_line_while_it_steps_and_then_at_breakpoints() {
        let mut debugger = debugger();
        debugger.line = 1;
        assert_eq!(debugger.stop(Event::Line), Some(Stop { is_late: false }));
        assert_eq!(
            debugger.take_pending(),
            b"*2\r\n+* Stopped at 1, stop reason = step over\r\n+-> 1   local a = 1\r\n"
        );
        assert_eq!(debugger.stop(Event::Line), None);
        assert_eq!(debugger.obey(vec![b"STEP".to_vec()]), Some(Order::Resume));
        debugger.line = 2;
        assert!(debugger.stop(Event::Line).is_some());
        assert_eq!(debugger.obey(vec![b"c".to_vec()]), Some(Order::Resume));
        debugger.take_pending();
        assert_eq!(ask(&mut debugger, "b 4"), "*2|+   3   |+  #4   return a|");
        assert_eq!(debugger.stop(Event::Line), None);
        debugger.line = 4;
        assert!(debugger.stop(Event::Line).is_some());
        debugger.is_called = true;
        debugger.line = 2;
        assert!(debugger.stop(Event::Line).is_some());
        let told = String::from_utf8(debugger.take_pending()).unwrap();
        assert!(
            told.contains("reason = break point\r\n+->#4") && told.contains("breakpoint() called")
        );
        debugger.abandon();
        debugger.line = 4;
        assert_eq!(debugger.stop(Event::Line), None);
    }

    #[test]
    fn a_script_that_runs_for_long_is_stopped() {
        let mut debugger = Debugger::new(b"return 1", Duration::ZERO);
        debugger.steps = false;
        assert_eq!(debugger.stop(Event::Line), None);
        assert_eq!(debugger.stop(Event::Count), Some(Stop { is_late: true }));
    }

    #[test]
    fn breakpoints_are_listed_and_taken_back() {
        let mut debugger = debugger();
        let mut told = |command| ask(&mut debugger, command);
        assert_eq!(told("b"), "*1|+No breakpoints set. Use 'b <line>' to add one.|");
        assert_eq!(told("b 9 x"), "*2|+Wrong line number.|+Invalid argument:'x'|");
        assert_eq!(told("break 1"), "*2|+  #1   local a = 1|+   2   local b = 2|");
        assert_eq!(told("b"), "*2|+1 breakpoints set:|+  #1   local a = 1|");
        assert_eq!(
            told("b -1 -1"),
            "*2|+Breakpoint removed.|+No breakpoint in the specified line.|"
        );
        assert_eq!(told("b -9223372036854775808"), "*1|+No breakpoint in the specified line.|");
        assert_eq!(told("b 0"), "*1|+All breakpoints removed.|");
    }

    #[test]
    fn lines_are_shown_as_far_as_asked_for() {
        let mut debugger = debugger();
        debugger.line = 2;
        let mut told = |command| ask(&mut debugger, command);
        assert_eq!(told("l 4 1"), "*2|+   3   |+   4   return a|");
        assert_eq!(told("l x 0"), "*1|+-> 2   local b = 2|");
        assert_eq!(told("l 1 -1"), "*0|");
        assert!(told("w").starts_with("*4|"));
        assert_eq!(told("m 7"), "*1|+<value> replies are truncated at 60 bytes.|");
        assert_eq!(told("m 0"), "*1|+<value> replies are unlimited.|");
        assert!(told("bogus").starts_with("*1|+<error> Unknown Redis Lua debugger command"));
        assert!(told("r").starts_with("*1|+<error> Unknown"));
    }

    #[test]
    fn long_values_are_cut_and_the_first_with_a_hint() {
        let mut debugger = debugger();
        for _ in 0..2 {
            debugger.log_some(&[b'x'; 300]);
        }
        let told = String::from_utf8(debugger.take_pending()).unwrap();
        assert_eq!(told.matches(&format!("+{} ...\r\n", "x".repeat(256))).count(), 2);
        assert_eq!(told.matches("+<hint>").count(), 1);
        // What a script tells without end is left out at some point.
        for _ in 0..40 {
            debugger.log(&vec![b'\n'; 1 << 20]);
        }
        assert!(debugger.take_pending().len() < PENDING_BYTES_MAX + (2 << 20));
    }

    #[test]
    fn commands_and_replies_are_put_into_words() {
        let mut debugger = debugger();
        let words: Vec<&[u8]> = vec![b"w"; 12];
        debugger.log_command(&words);
        for reply in [
            "+OK\r\n",
            ":7\r\n",
            "$-1\r\n",
            "$3\r\na\"\n\r\n",
            "*2\r\n$1\r\na\r\n*0\r\n",
            "%1\r\n+k\r\n,1.5\r\n",
            "~2\r\n#t\r\n_\r\n",
            "-WRONGTYPE no\r\n",
        ] {
            debugger.log_reply(reply.as_bytes());
        }
        debugger.log_error(b"ERR Unknown");
        let told = String::from_utf8(debugger.take_pending()).unwrap();
        let lines: Vec<_> = told.split_terminator("\r\n").skip(1).collect();
        assert_eq!(
            lines,
            [
                "+<redis> w w w w w w w w w w ... (1 more)",
                "+<reply> \"+OK\"",
                "+<reply> 7",
                "+<reply> NULL",
                "+<reply> \"a\\\"\\n\"",
                "+<reply> [\"a\",[]]",
                "+<reply> {\"+k\" => (double) 1.5}",
                "+<reply> ~(#true,(null))",
                "+<error> -WRONGTYPE no",
                "+<reply> \"-WRONGTYPE no\"",
                "+<error> Unknown",
            ]
        );
    }

    #[test]
    fn numbers_are_written_as_c_writes_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1e20, "1e+20"),
            (-5.0, "-5"),
            (1e-7, "1e-07"),
            (123_456_789.0, "1.23457e+08"),
            (999_999.5, "1e+06"),
            (100_000.0, "100000"),
            (0.000_123_456_78, "0.000123457"),
            (f64::INFINITY, "inf"),
            (f64::NAN.copysign(-1.0), "-nan"),
            (9_007_199_254_740_992.0, "9.0072e+15"),
        ] {
            let mut out = Vec::new();
            write_number(number, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
