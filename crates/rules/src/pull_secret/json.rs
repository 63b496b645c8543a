//! JSON with the place of every value, read on after a mistake so that all of them are told at once.
//!
//! Credential files are written by hand and by shell one-liners: a colon forgotten, a brace too many, a base64 text broken over
//! two lines. serde_json names the first place and stops; here each of these is understood for what was meant.

/// Deepest nesting: a credential file has three levels.
const MAX_DEPTH: usize = 32;

/// Most mistakes that are told.
const MAX_FAULTS: usize = 20;

/// A place in the text. Lines and columns (in characters) count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u32,
    pub(super) column: u32,
    /// In characters, at least 1.
    pub(super) length: u32,
}

/// A value with its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A value. Texts may be secrets: there is no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `null`, `true`, `false` or a number, as written.
    Literal(String),
    Text(String),
    List(Vec<Node>),
    Object(Vec<(Key, Node)>),
}

/// A key of an object.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) place: Place,
    pub(super) text: String,
}

/// A mistake. The message quotes nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) hint: Option<&'static str>,
}

impl PartialEq for Node {
    /// Where it stands does not matter.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Eq for Node {}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl Node {
    pub(super) fn new(value: Value) -> Self {
        Self { place: Place::default(), value }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| k.text == key).map(|(_, v)| v)
    }

    pub(super) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Object(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl Key {
    pub(super) fn new(text: &str) -> Self {
        Self { place: Place::default(), text: text.to_owned() }
    }
}

/// The root, where there is one, and every mistake.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Fault>) {
    let mut parser = Parser { rest: text, line: 1, column: 1, faults: Vec::new(), stopped: false };
    let root = parser.root();
    let mut faults = parser.faults;
    faults.truncate(MAX_FAULTS);
    (root, faults)
}

struct Parser<'t> {
    rest: &'t str,
    line: u32,
    column: u32,
    faults: Vec<Fault>,
    /// What follows cannot be understood any more.
    stopped: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_whitespace() || c == '\u{a0}') {
            self.bump();
        }
    }

    fn here(&self) -> Place {
        Place { line: self.line, column: self.column, length: 1 }
    }

    /// From a place to here.
    fn since(&self, start: Place) -> Place {
        let length = if self.line == start.line { self.column.saturating_sub(start.column).max(1) } else { 1 };
        Place { length, ..start }
    }

    fn fault(&mut self, place: Place, message: &str, hint: &'static str) {
        let hint = (!hint.is_empty()).then_some(hint);
        self.faults.push(Fault { place, message: message.to_owned(), hint });
        self.stopped |= self.faults.len() > MAX_FAULTS;
    }

    fn root(&mut self) -> Option<Node> {
        self.blanks();
        if self.peek().is_some_and(|c| c != '{') {
            let start = self.here();
            self.fault(start, "the file must begin with `{`", "a shell prompt or other text before it must go");
            while self.peek().is_some_and(|c| c != '{') {
                self.bump();
            }
        }
        if self.peek().is_none() {
            self.fault(
                self.here(),
                "there is nothing in the file",
                "expected `{\"auths\": {\"HOST\": {\"auth\": \"…\"}}}`",
            );
            return None;
        }
        let root = self.value(0);
        self.blanks();
        if !self.stopped && self.peek().is_some() {
            let more = match self.peek() {
                Some('}' | ']') => "there is a closing bracket too many",
                _ => "the JSON ended before this: there is a closing bracket too many in front of it",
            };
            self.fault(self.here(), more, "count the brackets: what closes here was opened only once");
        }
        root
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        self.blanks();
        let start = self.here();
        let value = match self.peek() {
            _ if depth > MAX_DEPTH => {
                self.fault(start, "nested too deep for a credential file", "");
                self.stopped = true;
                return None;
            }
            Some('{') => self.object(depth),
            Some('[') => self.list(depth),
            Some('"' | '\'' | '“' | '”' | '„') => Value::Text(self.string()?),
            Some(c) if !",:}]".contains(c) => self.word(),
            _ => {
                self.fault(start, "a value is missing here", "");
                return None;
            }
        };
        Some(Node { place: self.since(start), value })
    }

    fn object(&mut self, depth: usize) -> Value {
        let opened = self.here();
        self.bump();
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut first = true;
        loop {
            self.blanks();
            match self.peek() {
                _ if self.stopped => break,
                None => {
                    self.fault(self.here(), "the file ends within an object", "a closing `}` is missing");
                    self.faults.push(Fault { place: opened, message: "it was opened here".into(), hint: None });
                    self.stopped = true;
                    break;
                }
                Some('}') => {
                    self.bump();
                    break;
                }
                Some(',') if first => {
                    self.fault(self.here(), "a comma with nothing before it", "");
                    self.bump();
                    continue;
                }
                Some(',') => {
                    let comma = self.here();
                    self.bump();
                    self.blanks();
                    if matches!(self.peek(), Some('}')) {
                        self.fault(comma, "a comma after the last entry", "JSON has none there: remove it");
                        continue;
                    }
                }
                Some(_) if !first => {
                    self.fault(self.here(), "a comma is missing before this", "entries are separated by `,`");
                }
                Some(_) => {}
            }
            first = false;
            if !self.entry(&mut entries, depth) {
                break;
            }
        }
        Value::Object(entries)
    }

    /// A key and its value. `false`: what follows cannot be understood.
    fn entry(&mut self, entries: &mut Vec<(Key, Node)>, depth: usize) -> bool {
        let start = self.here();
        let text = match self.peek() {
            Some('"' | '\'' | '“' | '”' | '„') => match self.string() {
                Some(text) => text,
                None => return false,
            },
            Some('{' | '[' | ':' | ',' | ']') | None => {
                self.fault(start, "expected a key in double quotes", "an entry is `\"HOST\": {\"auth\": \"…\"}`");
                self.stopped = true;
                return false;
            }
            Some(_) => {
                let Value::Literal(text) = self.word() else { return false };
                text
            }
        };
        let key = Key { place: self.since(start), text };
        self.blanks();
        match self.peek() {
            Some(':') => {
                self.bump();
            }
            Some('}' | ',') => {
                self.fault(
                    key.place,
                    "this has no value",
                    "an entry is `\"auth\": \"BASE64\"`: the name or the value is missing",
                );
                return true;
            }
            Some(_) => {
                self.fault(self.here(), "a colon is missing before this", "put `:` between the key and its value");
            }
            None => return true,
        }
        if let Some(value) = self.value(depth + 1) {
            if let Some((known, _)) = entries.iter().find(|(known, _)| *known == key) {
                let message = format!("the key occurs twice: it is already set in line {}", known.place.line);
                self.faults.push(Fault { place: key.place, message, hint: Some("keep one of the two") });
            } else {
                entries.push((key, value));
            }
        }
        !self.stopped
    }

    fn list(&mut self, depth: usize) -> Value {
        self.bump();
        let mut items = Vec::new();
        loop {
            self.blanks();
            match self.peek() {
                Some(']') => {
                    self.bump();
                    break;
                }
                Some(',') => {
                    self.bump();
                }
                None | Some('}' | ':') => {
                    self.fault(self.here(), "a list is not closed", "a closing `]` is missing");
                    self.stopped = true;
                    break;
                }
                Some(_) => match self.value(depth + 1) {
                    Some(item) => items.push(item),
                    None => self.stopped = true,
                },
            }
            if self.stopped {
                break;
            }
        }
        Value::List(items)
    }

    /// A text in quotes of any kind; only double ones are right.
    fn string(&mut self) -> Option<String> {
        let start = self.here();
        let open = self.bump()?;
        if open != '"' {
            self.fault(start, "texts stand in double quotes", "replace the quotes by `\"`");
        }
        let ends = |c: char| if open == '"' || open == '\'' { c == open } else { matches!(c, '“' | '”' | '"') };
        let mut out = String::new();
        let mut broken = false;
        loop {
            let here = self.here();
            match self.bump() {
                Some(c) if ends(c) => return Some(out),
                Some('\\') => self.escape(&mut out),
                Some('\r') => {}
                Some('\n') if !broken => {
                    broken = true;
                    self.fault(here, "a line break within a text", "write base64 on one line: `base64 -w0`");
                }
                Some('\n') => {}
                Some(c) if c.is_control() => self.fault(here, "a control character within a text", "remove it"),
                Some(c) => out.push(c),
                None => {
                    self.fault(start, "the text that begins here is not closed", "a closing `\"` is missing");
                    self.stopped = true;
                    return None;
                }
            }
        }
    }

    fn escape(&mut self, out: &mut String) {
        let here = self.here();
        match self.bump() {
            Some(c @ ('"' | '\\' | '/')) => out.push(c),
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let first = self.unit();
                let code = match first {
                    Some(high @ 0xD800..=0xDBFF) if self.rest.starts_with("\\u") => {
                        self.bump();
                        self.bump();
                        self.unit().map(|low| 0x1_0000 + ((high - 0xD800) << 10) + (low.wrapping_sub(0xDC00) & 0x3FF))
                    }
                    other => other,
                };
                match code.and_then(char::from_u32) {
                    Some(c) => out.push(c),
                    None => self.fault(here, "`\\u` needs four hexadecimal digits of a character", ""),
                }
            }
            _ => self.fault(here, "no such escape", "a backslash itself is written `\\\\`"),
        }
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.rest.get(..4)?;
        let unit = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?;
        for _ in 0..4 {
            self.bump();
        }
        Some(unit)
    }

    /// A literal, or something that should stand in quotes.
    fn word(&mut self) -> Value {
        let start = self.here();
        let mut word = String::new();
        while let Some(c) = self.peek() {
            if c.is_whitespace() || ",:{}[]\"".contains(c) {
                break;
            }
            word.push(c);
            self.bump();
        }
        let number = serde_json::from_str::<serde_json::Number>(&word).is_ok();
        if !number && !matches!(word.as_str(), "null" | "true" | "false") {
            let place = self.since(start);
            self.fault(place, "this must stand in double quotes", "write `\"…\"`");
            return Value::Text(word);
        }
        Value::Literal(word)
    }
}

/// Writes a value as people read it: two blanks a level, order kept.
pub(super) fn write(node: &Node) -> String {
    let mut out = String::new();
    put(node, 0, &mut out);
    out.push('\n');
    out
}

fn put(node: &Node, depth: usize, out: &mut String) {
    let line = |depth: usize, out: &mut String| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    match &node.value {
        Value::Literal(word) => out.push_str(word),
        Value::Text(text) => out.push_str(&quoted(text)),
        Value::List(items) if items.is_empty() => out.push_str("[]"),
        Value::Object(entries) if entries.is_empty() => out.push_str("{}"),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                line(depth + 1, out);
                put(item, depth + 1, out);
            }
            line(depth, out);
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                line(depth + 1, out);
                out.push_str(&quoted(&key.text));
                out.push_str(": ");
                put(value, depth + 1, out);
            }
            line(depth, out);
            out.push('}');
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
