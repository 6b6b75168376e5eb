//! From JSON to Lua's values.

use mlua::{LightUserData, Lua, LuaString, Table, Value};

use super::{DEPTH_CEILING, Settings};
use crate::error::located;

pub(super) fn decode(lua: &Lua, text: &[u8], settings: &Settings) -> mlua::Result<Value> {
    if 2 <= text.len() && text[..2].contains(&0) {
        return Err(located(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder { lua, settings, text, at: 0, buffer: Vec::new() };
    let first = decoder.next();
    let value = decoder.value(first)?;
    let last = decoder.next();
    if last.kind != Kind::End {
        return Err(decoder.unexpected("the end", &last));
    }
    Ok(value)
}

struct Decoder<'a> {
    lua: &'a Lua,
    settings: &'a Settings,
    text: &'a [u8],
    at: usize,
    /// The last text that was read.
    buffer: Vec<u8>,
}

struct Token {
    kind: Kind,
    /// Where it is, or where it went wrong.
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Wrong(&'static str),
}

impl Kind {
    /// What lua-cjson calls it in errors.
    const fn name(self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Text => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::End => "T_END",
            Self::Wrong(problem) => problem,
        }
    }
}

/// What is being read: nothing recurses.
enum Open {
    Array { table: Table, next: usize },
    Object { table: Table, key: LuaString },
}

impl Decoder<'_> {
    fn value(&mut self, mut token: Token) -> mlua::Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        'value: loop {
            let mut value = match token.kind {
                Kind::Text => Value::String(self.lua.create_string(&self.buffer)?),
                Kind::Number(number) => Value::Number(number),
                Kind::Boolean(truth) => Value::Boolean(truth),
                Kind::Null => Value::LightUserData(LightUserData(std::ptr::null_mut())),
                Kind::ObjectBegin => {
                    self.descend(open.len())?;
                    let table = self.lua.create_table()?;
                    token = self.next();
                    if token.kind != Kind::ObjectEnd {
                        let key = self.key(&token)?;
                        open.push(Open::Object { table, key });
                        token = self.next();
                        continue 'value;
                    }
                    Value::Table(table)
                }
                Kind::ArrayBegin => {
                    self.descend(open.len())?;
                    let table = self.lua.create_table()?;
                    token = self.next();
                    if token.kind != Kind::ArrayEnd {
                        open.push(Open::Array { table, next: 1 });
                        continue 'value;
                    }
                    Value::Table(table)
                }
                _ => return Err(self.unexpected("value", &token)),
            };
            // Puts it where it belongs, and that too if it ends there.
            loop {
                let Some(last) = open.last_mut() else { return Ok(value) };
                match last {
                    Open::Array { table, next } => {
                        table.raw_seti(*next, value)?;
                        *next += 1;
                        token = self.next();
                        match token.kind {
                            Kind::ArrayEnd => {}
                            Kind::Comma => {
                                token = self.next();
                                continue 'value;
                            }
                            _ => return Err(self.unexpected("comma or array end", &token)),
                        }
                    }
                    Open::Object { table, key } => {
                        table.raw_set(&*key, value)?;
                        token = self.next();
                        match token.kind {
                            Kind::ObjectEnd => {}
                            Kind::Comma => {
                                token = self.next();
                                *key = self.key(&token)?;
                                token = self.next();
                                continue 'value;
                            }
                            _ => return Err(self.unexpected("comma or object end", &token)),
                        }
                    }
                }
                match open.pop() {
                    Some(Open::Array { table, .. } | Open::Object { table, .. }) => {
                        value = Value::Table(table);
                    }
                    None => return Ok(Value::Nil),
                }
            }
        }
    }

    /// A key and the colon behind it.
    fn key(&mut self, token: &Token) -> mlua::Result<LuaString> {
        if token.kind != Kind::Text {
            return Err(self.unexpected("object key string", token));
        }
        let key = self.lua.create_string(&self.buffer)?;
        let token = self.next();
        if token.kind != Kind::Colon {
            return Err(self.unexpected("colon", &token));
        }
        Ok(key)
    }

    fn descend(&self, depth: usize) -> mlua::Result<()> {
        let (depth, at) = (depth as i32 + 1, self.at);
        if depth <= self.settings.decode_max_depth.min(DEPTH_CEILING) {
            return Ok(());
        }
        let text = format!("Found too many nested data structures ({depth}) at character {at}");
        Err(located(self.lua, text))
    }

    /// The byte there; 0 behind the end, as the end of a C string has it.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn next(&mut self) -> Token {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let start = self.at;
        let single = match self.byte(start) {
            b'{' => Kind::ObjectBegin,
            b'}' => Kind::ObjectEnd,
            b'[' => Kind::ArrayBegin,
            b']' => Kind::ArrayEnd,
            b',' => Kind::Comma,
            b':' => Kind::Colon,
            0 => return Token { kind: Kind::End, at: start },
            b'"' => {
                return match self.string() {
                    Ok(()) => Token { kind: Kind::Text, at: start },
                    Err(problem) => Token { kind: Kind::Wrong(problem), at: self.at },
                };
            }
            b'-' | b'0'..=b'9' => {
                if !self.settings.decode_invalid && self.looks_invalid() {
                    return Token { kind: Kind::Wrong("invalid number"), at: start };
                }
                return self.number();
            }
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+' => return self.word(),
            _ => return Token { kind: Kind::Wrong("invalid token"), at: start },
        };
        self.at += 1;
        Token { kind: single, at: start }
    }

    fn word(&mut self) -> Token {
        let (start, rest) = (self.at, &self.text[self.at..]);
        let words: [(&[u8], Kind); 3] = [
            (b"true", Kind::Boolean(true)),
            (b"false", Kind::Boolean(false)),
            (b"null", Kind::Null),
        ];
        for (word, kind) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return Token { kind, at: start };
            }
        }
        if self.settings.decode_invalid && self.looks_invalid() {
            return self.number();
        }
        Token { kind: Kind::Wrong("invalid token"), at: start }
    }

    /// Whether what comes is a number that JSON does not know.
    fn looks_invalid(&self) -> bool {
        let rest = &self.text[self.at..];
        if rest.starts_with(b"+") {
            return true;
        }
        let rest = rest.strip_prefix(b"-").unwrap_or(rest);
        match rest.first() {
            Some(b'0') => {
                matches!(rest.get(1), Some(b'x' | b'X' | b'0'..=b'9'))
            }
            Some(byte) if b'9' < *byte => {
                let word = rest.get(..3).unwrap_or_default();
                word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
            }
            _ => false,
        }
    }

    fn number(&mut self) -> Token {
        let start = self.at;
        match read_double(&self.text[start..]) {
            None => Token { kind: Kind::Wrong("invalid number"), at: start },
            Some((number, length)) => {
                self.at += length;
                Token { kind: Kind::Number(number), at: start }
            }
        }
    }

    fn string(&mut self) -> Result<(), &'static str> {
        self.buffer.clear();
        self.at += 1;
        loop {
            // What needs no look is copied at once.
            let rest = &self.text[self.at.min(self.text.len())..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0));
            let plain = plain.unwrap_or(rest.len());
            self.buffer.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.byte(self.at) {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    let escaped = match self.byte(self.at + 1) {
                        b'u' => {
                            self.unicode_escape().ok_or("invalid unicode escape code")?;
                            continue;
                        }
                        byte @ (b'"' | b'\\' | b'/') => byte,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        _ => return Err("invalid escape code"),
                    };
                    self.buffer.push(escaped);
                    self.at += 2;
                }
                _ => return Err("unexpected end of string"),
            }
        }
    }

    fn unicode_escape(&mut self) -> Option<()> {
        let first = self.hex(self.at + 2)?;
        let mut length = 6;
        let mut point = first;
        if first & 0xF800 == 0xD800 {
            let is_low = first & 0x400 != 0;
            let follows = (self.byte(self.at + 6), self.byte(self.at + 7)) == (b'\\', b'u');
            if is_low || !follows {
                return None;
            }
            let second = self.hex(self.at + 8)?;
            if second & 0xFC00 != 0xDC00 {
                return None;
            }
            point = ((first & 0x3FF) << 10 | second & 0x3FF) + 0x1_0000;
            length = 12;
        }
        let mut bytes = [0; 4];
        let text = char::from_u32(point)?.encode_utf8(&mut bytes);
        self.buffer.extend_from_slice(text.as_bytes());
        self.at += length;
        Some(())
    }

    fn hex(&self, at: usize) -> Option<u32> {
        (at..at + 4)
            .try_fold(0, |value, at| Some(value << 4 | char::from(self.byte(at)).to_digit(16)?))
    }

    fn unexpected(&self, expected: &str, token: &Token) -> mlua::Error {
        let (found, at) = (token.kind.name(), token.at + 1);
        located(self.lua, format!("Expected {expected} but found {found} at character {at}"))
    }
}

/// A number as C's `strtod` reads it, and its length: decimal, hexadecimal, `inf` and `nan`.
fn read_double(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let negative = text.first() == Some(&b'-');
    let rest = &text[sign..];
    let starts =
        |word: &[u8]| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let signed = |value: f64| if negative { -value } else { value };
    if starts(b"infinity") {
        return Some((signed(f64::INFINITY), sign + 8));
    }
    if starts(b"inf") {
        return Some((signed(f64::INFINITY), sign + 3));
    }
    if starts(b"nan") {
        return Some((signed(f64::NAN), sign + 3));
    }
    if starts(b"0x")
        && let Some((value, length)) = read_hexadecimal(&rest[2..])
    {
        return Some((signed(value), sign + 2 + length));
    }
    let digits = |from: usize| rest[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(0);
    let mut end = whole;
    let mut fraction = 0;
    if rest.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction != 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(end + 1), Some(b'-' | b'+')));
        let exponent = digits((end + 1 + sign).min(rest.len()));
        if exponent != 0 {
            end += 1 + sign + exponent;
        }
    }
    let value: f64 = str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some((signed(value), sign + end))
}

/// What follows `0x`.
fn read_hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let (mut value, mut scale, mut digits, mut at) = (0.0_f64, 0_i32, 0, 0);
    let mut in_fraction = false;
    while let Some(byte) = text.get(at) {
        if *byte == b'.' && !in_fraction {
            in_fraction = true;
        } else if let Some(digit) = char::from(*byte).to_digit(16) {
            value = value * 16.0 + f64::from(digit);
            scale -= if in_fraction { 4 } else { 0 };
            digits += 1;
        } else {
            break;
        }
        at += 1;
    }
    if digits == 0 {
        return None;
    }
    if matches!(text.get(at), Some(b'p' | b'P')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'-' | b'+')));
        let start = (at + 1 + sign).min(text.len());
        let count = text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count != 0 {
            let exponent = str::from_utf8(&text[start..start + count]).ok()?;
            let exponent: i32 = exponent.parse().unwrap_or(i32::MAX / 2);
            let negative = text.get(at + 1) == Some(&b'-');
            scale = scale.saturating_add(if negative { -exponent } else { exponent });
            at = start + count;
        }
    }
    Some((value * f64::powi(2.0, scale), at))
}
