//! Typed reading of the tree: fields by name without regard to case, scalars by type. Whatever does not fit becomes a
//! problem with its place, and reading goes on with a default, so that all problems come out together.

use airlock_document::nearest;

use super::problem::{Problem, Severity, code};
use super::sections::CONTENT_FIELDS;
use super::yaml::{Key, Looks, Mark, Node, Value, looks};

/// Most errors, and most warnings, that are kept. A warning never takes the place of an error.
const MAX_PROBLEMS: usize = 500;
/// Most characters of a message or a hint; a value in it may be as long as the file.
const MAX_MESSAGE: usize = 500;

/// Collects what is wrong while a tree is read.
pub(super) struct Reader<'t> {
    file: &'t str,
    lines: Vec<&'t str>,
    errors: Kept,
    warnings: Kept,
}

/// The first problems of one severity, and how many came after.
#[derive(Default)]
struct Kept {
    problems: Vec<Problem>,
    /// Takes what is written to the problem that came last but is not kept.
    overflow: Option<Problem>,
    dropped: usize,
}

/// A mapping whose fields are known.
pub(super) struct Section<'n> {
    /// Where it begins.
    pub(super) mark: Mark,
    /// What it is called in messages, such as `mirror.additionalImages[3]`.
    pub(super) path: String,
    fields: Vec<(&'static str, Mark, &'n Node)>,
    /// Something else than a mapping stands there, which was reported: its fields are not missing on top of that.
    broken: bool,
}

/// A field of an older version of the format.
pub(super) struct Former {
    pub(super) name: &'static str,
    pub(super) under_v1: UnderV1,
    /// What to do about it in a file of today's version.
    pub(super) hint: &'static str,
}

/// What happens to a former field in a file that says it is of the older version.
pub(super) enum UnderV1 {
    /// It is read, with a warning that says how.
    Read(&'static str),
    /// It is ignored, with a warning that says why that is right.
    Ignored(&'static str),
    /// Ignoring it would mirror something else than was asked for.
    Refused(&'static str),
}

impl Kept {
    fn count(&self) -> usize {
        self.problems.len() + self.dropped
    }
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, lines: text.lines().collect(), errors: Kept::default(), warnings: Kept::default() }
    }

    /// Everything found, in the order of lines.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rests = Vec::new();
        for (severity, word, kept) in
            [(Severity::Error, "error", self.errors), (Severity::Warning, "warning", self.warnings)]
        {
            if let (dropped @ 1.., Some(last)) = (kept.dropped, kept.problems.last()) {
                let message = format!("there are {dropped} {word}s more; only the first {MAX_PROBLEMS} are shown");
                rests.push(Problem { severity, ..Problem::of_file(last.code, self.file, message) });
            }
            problems.extend(kept.problems.into_iter().map(|problem| Problem {
                message: clip(problem.message),
                hint: problem.hint.map(clip),
                ..problem
            }));
        }
        problems.sort_by_key(|p| (p.line, p.column));
        problems.extend(rests);
        problems
    }

    pub(super) fn error(&mut self, code: &'static str, mark: Mark, message: impl Into<String>) -> &mut Problem {
        self.report(Severity::Error, code, mark, message.into())
    }

    pub(super) fn warning(&mut self, code: &'static str, mark: Mark, message: impl Into<String>) -> &mut Problem {
        self.report(Severity::Warning, code, mark, message.into())
    }

    fn report(&mut self, severity: Severity, code: &'static str, mark: Mark, message: String) -> &mut Problem {
        let line = self.lines.get((mark.line as usize).saturating_sub(1)).copied().unwrap_or_default();
        let problem = Problem { severity, ..Problem::in_line(code, self.file, line, mark, message) };
        let kept = if severity == Severity::Error { &mut self.errors } else { &mut self.warnings };
        if kept.problems.len() == MAX_PROBLEMS {
            kept.dropped += 1;
            return kept.overflow.insert(problem);
        }
        kept.problems.push(problem);
        let last = kept.problems.len() - 1;
        &mut kept.problems[last]
    }

    /// The fields of a mapping. Nothing written (`mirror:` with nothing behind it) is an empty mapping, as for oc-mirror.
    pub(super) fn section<'n>(
        &mut self,
        node: &'n Node,
        path: impl Into<String>,
        known: &[&'static str],
        former: &[Former],
        v1: bool,
    ) -> Section<'n> {
        let mut section = Section { mark: node.mark, path: path.into(), fields: Vec::new(), broken: false };
        let entries = match &node.value {
            Value::Map(entries) => entries,
            _ if node.is_null() => return section,
            _ => {
                section.broken = true;
                let hint = match (&node.value, known.first()) {
                    (Value::Scalar { text, .. }, Some(first)) => Some(format!("write `{first}: {text}`")),
                    _ => None,
                };
                self.wrong_type(node, &section.path, "a mapping (`field: value`)").hint = hint;
                return section;
            }
        };
        for (key, value) in entries {
            let same = |name: &&&'static str| name.eq_ignore_ascii_case(&key.text);
            let name = if let Some(name) = known.iter().find(same) {
                *name
            } else if let Some(former) = former.iter().find(|f| f.name.eq_ignore_ascii_case(&key.text)) {
                self.former_field(former, key, &section.path, v1);
                former.name
            } else {
                self.unknown_field(key, &section.path, known);
                continue;
            };
            if section.fields.iter().any(|(other, ..)| *other == name) {
                self.error(
                    code::DUPLICATE_KEY,
                    key.mark,
                    format!("duplicate key `{}`: it is `{name}` again", key.text),
                );
                continue;
            }
            section.fields.push((name, key.mark, value));
        }
        section
    }

    fn former_field(&mut self, former: &Former, key: &Key, path: &str, v1: bool) {
        if !v1 {
            let problem = self.unknown_field(key, path, &[]);
            problem.hint = Some(former.hint.to_owned());
            return;
        }
        let name = former.name;
        match former.under_v1 {
            UnderV1::Read(how) => {
                self.warning(code::DEPRECATED, key.mark, format!("`{name}` is a field of v1alpha2: {how}")).hint =
                    Some(former.hint.to_owned());
            }
            UnderV1::Ignored(why) => {
                self.warning(code::IGNORED, key.mark, format!("`{name}` is ignored: {why}"));
            }
            UnderV1::Refused(why) => {
                self.error(code::UNSUPPORTED, key.mark, format!("`{name}` is not supported: {why}")).hint =
                    Some(former.hint.to_owned());
            }
        }
    }

    fn unknown_field(&mut self, key: &Key, path: &str, known: &[&'static str]) -> &mut Problem {
        let place = if path.is_empty() { "at the top".to_owned() } else { format!("in `{path}`") };
        let hint = match nearest(&key.text, known.iter().copied()) {
            Some(near) => Some(format!("did you mean `{near}`?")),
            None if known.is_empty() => None,
            None if path.is_empty() && CONTENT_FIELDS.contains(&key.text.as_str()) => {
                let root = known.last().copied().unwrap_or("mirror");
                Some(format!("`{}` belongs below `{root}`: indent it", key.text))
            }
            None => Some(format!("the fields here are {}", quoted(known))),
        };
        let problem = self.error(code::UNKNOWN_FIELD, key.mark, format!("unknown field \"{}\" {place}", key.text));
        problem.hint = hint;
        problem
    }

    fn wrong_type(&mut self, node: &Node, path: &str, expected: &str) -> &mut Problem {
        self.error(code::TYPE, node.mark, format!("`{path}` must be {expected}, found {}", node.kind()))
    }

    /// The items of a list field; nothing where it is missing or empty.
    pub(super) fn list<'n>(&mut self, section: &Section<'n>, field: &str) -> &'n [Node] {
        let Some(node) = section.get(field) else { return &[] };
        match &node.value {
            Value::List(items) => items,
            _ if node.is_null() => &[],
            _ => {
                self.wrong_type(node, &section.at(field), "a list (`- …`)");
                &[]
            }
        }
    }

    /// A string; empty ones count as missing, as for oc-mirror.
    pub(super) fn text<'n>(&mut self, section: &Section<'n>, field: &str) -> Option<(&'n str, Mark)> {
        let node = section.get(field)?;
        self.text_of(node, &section.at(field))
    }

    pub(super) fn text_of<'n>(&mut self, node: &'n Node, path: &str) -> Option<(&'n str, Mark)> {
        match &node.value {
            Value::Scalar { text, plain } => match looks(text) {
                Looks::Null if *plain => None,
                Looks::Boolean(_) | Looks::Integer | Looks::Float if *plain => {
                    let hint = format!("quote it: \"{text}\"");
                    self.wrong_type(node, path, "a string").hint = Some(hint);
                    None
                }
                _ if text.is_empty() => None,
                _ => Some((text, node.mark)),
            },
            _ => {
                self.wrong_type(node, path, "a string");
                None
            }
        }
    }

    /// A string that must be there.
    pub(super) fn required<'n>(&mut self, section: &Section<'n>, field: &str) -> Option<(&'n str, Mark)> {
        let errors = self.errors.count();
        let text = self.text(section, field);
        if text.is_none() && self.errors.count() == errors && !section.broken {
            let mark = section.field_mark(field).unwrap_or(section.mark);
            self.error(code::MISSING, mark, format!("`{}` is missing or empty", section.at(field)));
        }
        text
    }

    pub(super) fn boolean(&mut self, section: &Section<'_>, field: &str) -> bool {
        let Some(node) = section.get(field) else { return false };
        match &node.value {
            Value::Scalar { text, plain: true } => match looks(text) {
                Looks::Boolean(value) => return value,
                Looks::Null => return false,
                _ => {}
            },
            Value::Scalar { text, plain: false } if matches!(looks(text), Looks::Boolean(_)) => {
                let hint = format!("write it without quotes: {text}");
                self.wrong_type(node, &section.at(field), "true or false").hint = Some(hint);
                return false;
            }
            _ => {}
        }
        self.wrong_type(node, &section.at(field), "true or false");
        false
    }

    pub(super) fn integer(&mut self, section: &Section<'_>, field: &str) -> Option<(i64, Mark)> {
        let node = section.get(field)?;
        let parsed = match &node.value {
            Value::Scalar { text, plain: true } if looks(text) == Looks::Null => return None,
            Value::Scalar { text, plain: true } if looks(text) == Looks::Integer => parse_integer(text),
            _ => None,
        };
        if parsed.is_none() {
            let quoted = matches!(&node.value, Value::Scalar { text, plain: false } if looks(text) == Looks::Integer);
            let problem = self.wrong_type(node, &section.at(field), "a whole number");
            problem.hint = quoted.then(|| "write it without quotes".to_owned());
        }
        parsed.map(|value| (value, node.mark))
    }
}

fn clip(text: String) -> String {
    if text.chars().nth(MAX_MESSAGE).is_none() {
        return text;
    }
    text.chars().take(MAX_MESSAGE).chain(['…']).collect()
}

fn parse_integer(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let (radix, digits) = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find_map(|(prefix, radix)| Some((radix, digits.strip_prefix(prefix)?)))
        .unwrap_or((10, digits));
    i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
}

impl<'n> Section<'n> {
    pub(super) fn get(&self, field: &str) -> Option<&'n Node> {
        self.fields.iter().find(|(name, ..)| *name == field).map(|(.., node)| *node)
    }

    /// Where the field's name stands.
    pub(super) fn field_mark(&self, field: &str) -> Option<Mark> {
        self.fields.iter().find(|(name, ..)| *name == field).map(|(_, mark, _)| *mark)
    }

    pub(super) fn at(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ")
}
