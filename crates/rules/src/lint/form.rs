//! Texts, fields and names: MR001 to MR009, MR012, MR013, MR038, MR042, MR067 to MR069.

use std::collections::HashMap;

use super::Lint;
use crate::convert::icsp::{owns_lines, requote};
use crate::edit::{Edit, is_own_item, is_written_plainly};
use crate::objects::{Kind, Origin, Policy, Text};
use crate::problem::{Problem, Severity, code};
use crate::render::refuse::proposed;
use crate::scope::{host, host_name, is_mirror, is_source, path};

/// What examples are made of.
const PLACEHOLDERS: [&str; 14] = [
    "<",
    ">",
    "$",
    "{{",
    "}}",
    "example.com",
    "example.org",
    "example.net",
    "replace_me",
    "replace-me",
    "changeme",
    "change-me",
    "your-registry",
    "your_registry",
];

/// Longest name of an object (RFC 1123 subdomain).
const MAX_NAME: usize = 253;

/// The finding that a problem of reading becomes; `None` where it makes the input unreadable.
pub(super) fn code_of(problem: &Problem) -> Option<&'static str> {
    match problem.code {
        code::MISSING if problem.message.contains("metadata.name") => Some("MR067"),
        code::UNKNOWN_FIELD | code::TYPE | code::MISSING | code::VALUE | code::NAMESPACE => {
            // An object that is no mapping has nothing to lint.
            (!problem.message.starts_with("an object must be")).then_some("MR069")
        }
        code::KIND if problem.message.contains("belongs to") || problem.message.contains("apiVersion") => Some("MR069"),
        _ => None,
    }
}

pub(super) fn check(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    for problem in &lint.input.problems {
        if let Some(id) = code_of(problem) {
            let finding = lint.at_file(id, &problem.file, problem.line, problem.message.clone());
            finding.column = problem.column;
            if let Some(hint) = &problem.hint {
                finding.help(hint.clone());
            }
        }
    }
    for (origin, set, entry) in objects.entries() {
        source_form(lint, origin);
        for mirror in &entry.mirrors {
            mirror_form(lint, origin, mirror);
        }
        own_mirrors(lint, origin);
        duplicates(lint, origin, set.kind);
    }
    placeholders(lint);
    policies(lint);
    objects_themselves(lint);
}

fn source_form(lint: &mut Lint<'_>, origin: Origin) {
    let objects = lint.objects;
    let text = &objects.entry(origin).source;
    let source = text.value.as_str();
    if !is_source(source) && source.contains('*') {
        lint.at(
            "MR003",
            origin,
            Some(text),
            format!("`{source}`: a wildcard is `*.` and a domain, without port and path"),
        );
    } else if !is_source(source) {
        refused_text(lint, "MR001", origin, text, proposed(source, true));
    } else if host(source).chars().any(|c| c.is_ascii_uppercase()) {
        let message = format!("`{source}` covers only references that write the host in the same capitals");
        lint.at("MR038", origin, Some(text), message);
    }
}

fn mirror_form(lint: &mut Lint<'_>, origin: Origin, text: &Text) {
    let mirror = text.value.as_str();
    if mirror.contains('*') {
        lint.at("MR003", origin, Some(text), format!("`{mirror}`: a mirror cannot be a wildcard"));
    } else if !is_mirror(mirror) {
        refused_text(lint, "MR002", origin, text, proposed(mirror, false));
    } else if !host(mirror).contains(['.', ':']) && host(mirror) != "localhost" {
        let message = format!("`{}` has neither dot nor port: every pull through this rule fails", host(mirror));
        lint.at("MR012", origin, Some(text), message);
    } else if host(mirror) == "index.docker.io" || (host(mirror) == "docker.io" && path(mirror).is_empty()) {
        let message = format!("`{mirror}` as a mirror makes names that are not canonical");
        lint.at("MR013", origin, Some(text), message);
    }
}

fn refused_text(lint: &mut Lint<'_>, id: &'static str, origin: Origin, text: &Text, better: Option<String>) {
    let objects = lint.objects;
    let file = objects.sets[origin.set].file;
    let what = if id == "MR001" { "source" } else { "mirror" };
    let finding = lint.at(id, origin, Some(text), format!("`{}` cannot be a {what}", text.value));
    if let Some(better) = better {
        finding.help(format!("write `{better}`"));
        let (whole, range) = (&objects.files[file].text, text.mark.range());
        if is_written_plainly(whole, &range, &text.value) {
            finding.edit(file, Edit::replace(range.clone(), requote(&whole[range], &better)));
        }
    }
}

/// MR042, once for each host of each file: an example is copied as a whole.
fn placeholders(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let mut found: Vec<(usize, &str, &'static str, Origin, &Text, usize)> = Vec::new();
    for (origin, set, entry) in objects.entries() {
        for text in std::iter::once(&entry.source).chain(&entry.mirrors) {
            let lower = text.value.to_lowercase();
            let Some(sign) = PLACEHOLDERS.into_iter().find(|p| lower.contains(p)) else { continue };
            let host = host(&text.value);
            match found.iter_mut().find(|(file, known, ..)| *file == set.file && *known == host) {
                Some((.., count)) => *count += 1,
                None => found.push((set.file, host, sign, origin, text, 1)),
            }
        }
    }
    for (_, host, sign, origin, text, count) in found {
        let times = if count > 1 { format!(", as {} more of this file", count - 1) } else { String::new() };
        let message = format!("`{}` looks like an example (`{sign}`){times}", text.value);
        lint.at("MR042", origin, Some(text), message).about(host);
    }
}

/// MR005 to MR008: mirrors and the source itself.
fn own_mirrors(lint: &mut Lint<'_>, origin: Origin) {
    let objects = lint.objects;
    let entry = objects.entry(origin);
    let source = entry.source.value.as_str();
    let never = entry.policy == Policy::NeverContactSource;
    if !entry.has_real_mirror() {
        let why = if entry.mirrors.is_empty() { "has no mirrors" } else { "has only itself as a mirror" };
        lint.at("MR006", origin, None, format!("`{source}` {why}: the entry has no effect"));
        if never {
            lint.at("MR007", origin, None, format!("`{source}` {why}: it is NOT blocked"));
        }
    }
    let file = objects.sets[origin.set].file;
    let text = &objects.files[file].text;
    for mirror in entry.mirrors.iter().filter(|mirror| mirror.value == source) {
        let id = match (never, entry.has_real_mirror()) {
            (true, _) => "MR005",
            (false, true) => "MR008",
            (false, false) => continue,
        };
        let finding = lint.at(id, origin, Some(mirror), format!("`{source}` is among its own mirrors"));
        if entry.has_real_mirror() && is_own_item(text, &mirror.mark.range()) {
            finding.edit(file, Edit::delete_lines(text, &mirror.mark.range()));
        }
    }
}

fn duplicates(lint: &mut Lint<'_>, origin: Origin, kind: Kind) {
    let objects = lint.objects;
    let file = objects.sets[origin.set].file;
    let text = &objects.files[file].text;
    let mirrors = &objects.entry(origin).mirrors;
    for (at, mirror) in mirrors.iter().enumerate() {
        if !mirrors[..at].iter().any(|earlier| earlier.value == mirror.value) {
            continue;
        }
        let finding = lint.at("MR009", origin, Some(mirror), format!("`{}` is listed twice", mirror.value));
        if kind == Kind::Icsp {
            finding.severity(Severity::Warning);
        }
        if is_own_item(text, &mirror.mark.range()) {
            finding.edit(file, Edit::delete_lines(text, &mirror.mark.range()));
        }
    }
}

/// MR004: one policy for a source.
fn policies(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let mut first: HashMap<&str, Origin> = HashMap::new();
    for (origin, _, entry) in objects.entries() {
        let known = *first.entry(&entry.source.value).or_insert(origin);
        let other = objects.entry(known).policy;
        if other != entry.policy {
            let message = format!(
                "`{}` has {} here and {} in {}",
                entry.source.value,
                entry.policy.as_str(),
                other.as_str(),
                objects.place(known)
            );
            lint.at("MR004", origin, None, message);
        }
    }
}

/// MR067, MR068: names and metadata.
fn objects_themselves(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let mut names: HashMap<(Kind, &str), usize> = HashMap::new();
    for (at, set) in objects.sets.iter().enumerate() {
        let name = set.name.value.as_str();
        if !name.is_empty() && !is_object_name(name) {
            let message = format!("`{name}` is no legal name: small letters, digits, dots and hyphens");
            lint.at_set("MR067", at, set.name.mark, message);
        }
        if let Some(other) = names.insert((set.kind, name), at).filter(|_| !name.is_empty()) {
            let (kind, file, line) =
                (set.kind.as_str(), &objects.files[objects.sets[other].file].name, objects.sets[other].mark.line);
            let message =
                format!("a second {kind} `{name}`: the first is in {file}:{line}, and only one of them stays");
            lint.at_set("MR067", at, set.name.mark, message);
        }
        let text = &objects.files[set.file].text;
        for (field, mark, (start, end)) in &set.server_side {
            let finding = lint.at_set("MR068", at, *mark, format!("`metadata.{field}` must not be applied again"));
            if owns_lines(text, *start) {
                finding.edit(set.file, Edit::delete_lines(text, &(*start..*end)));
            }
        }
    }
}

fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !bytes.is_empty()
            && bytes.iter().all(|b| word(*b) || *b == b'-')
            && word(bytes[0])
            && word(bytes[bytes.len() - 1])
    };
    name.len() <= MAX_NAME && name.split('.').all(label)
}

/// Whether two hosts are the same but for a port.
pub(super) fn same_host_name(a: &str, b: &str) -> bool {
    host_name(a) == host_name(b) && host(a) != host(b)
}
