//! What is wrong with rules: seventy checks with stable codes, each finding with its place, its reason and what helps.
//!
//! Input: [`Input`]. Output: [`Finding`]s, by place. A finding that can be fixed without a doubt brings [`Edit`]s of the
//! user's own text; [`fixed`] applies them.

pub mod catalogue;
mod conf;
mod form;
mod image;
mod images;
mod kinds;
mod mirror;
mod names;
mod overlap;
mod project;
pub mod report;

use std::collections::HashSet;

use serde::Serialize;

pub use catalogue::{CATALOGUE, Check};

use crate::convert::images::Listed;
use crate::edit::{Edit, apply};
use crate::objects::{Objects, Origin, Pull, Text};
use crate::problem::{Problem, Severity};
use crate::render::merge::{Merged, merged};
use crate::render::{Base, Payload};
use crate::scope::matches;
use crate::yaml::Mark;

/// Annotation of an object: codes (separated by commas) that are not wanted for it.
pub const ALLOW_ANNOTATION: &str = "airlock.lint/allow";
/// Annotation of an object: sources (separated by commas) that hold the same content, so that they may share a mirror.
pub const SAME_CONTENT_ANNOTATION: &str = "airlock.lint/same-content";

/// Everything that checks may look at. Only the objects must be there.
#[derive(Debug, Default)]
pub struct Input {
    /// The rules, read with [`crate::Others::Keep`].
    pub objects: Objects,
    /// What reading them found; see [`Input::unreadable`].
    pub problems: Vec<Problem>,
    /// What rendering starts from; `None` for the base of every built-in pool.
    pub base: Option<Base>,
    /// The release payload.
    pub payload: Option<Payload>,
    /// Images in use, and the name of their list.
    pub images: Option<(String, Vec<Listed>)>,
    /// Main file (name, text) and drop-ins of a node.
    pub registries_conf: Option<Files>,
    /// Keys of `auths` of the pull secret.
    pub pull_secret: Option<Vec<String>>,
    /// Keys of the ConfigMap of additional CAs.
    pub trusted_ca: Option<Vec<String>>,
    /// The rules as they are in the cluster.
    pub current: Option<Objects>,
    /// Values of a chart: name and text.
    pub values: Option<(String, String)>,
    /// What the mirror answered.
    pub observed: Vec<Observed>,
    /// Most path components by host, besides the hosts known here.
    pub nested_paths: Vec<(String, usize)>,
    /// The cluster reaches the internet: nothing that only matters without it is reported.
    pub connected: bool,
}

/// A main file and its drop-ins, as (name, text).
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The main file.
    pub main: (String, String),
    /// The drop-ins.
    pub dropins: Vec<(String, String)>,
}

/// What a mirror answered for an image of the list.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The image as the list has it.
    pub written: String,
    /// The mirror that was asked.
    pub mirror: String,
    /// Whether it has the image's digest; `None` where the image names none.
    pub has_digest: Option<bool>,
    /// Digest behind the image's tag at the mirror, and whether it is an index.
    pub tag: Option<(String, bool)>,
    /// Digest behind the tag at the source.
    pub source_tag: Option<String>,
}

/// One finding.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// `MR001`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with names.
    pub message: String,
    /// The file; empty where a finding is about everything.
    pub file: String,
    /// Position of the document in the file, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<usize>,
    /// The path in the document, such as `spec.imageDigestMirrors[2]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Counted from 1; 0 where the whole file is meant.
    pub column: u32,
    /// `ImageDigestMirrorSet/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Position in the object's list, counted from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<usize>,
    /// The source of the entry, or the name that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why it matters.
    pub why: &'static str,
    /// What helps.
    pub fix: String,
    /// Whether `--fix` does it.
    pub fixable: bool,
    /// The changes, by position in [`Objects::files`].
    #[serde(skip)]
    pub edits: Vec<(usize, Edit)>,
}

/// The findings so far, and what all checks share.
pub(crate) struct Lint<'a> {
    pub(crate) input: &'a Input,
    pub(crate) objects: &'a Objects,
    /// Merged sources by kind of pull.
    pub(crate) digest: Vec<Merged>,
    pub(crate) tag: Vec<Merged>,
    /// The images' names (`host/path`), in the order of the list.
    pub(crate) names: Vec<String>,
    /// Sources that have mirrors for any kind of pull; wildcards apart, since they cannot be looked up.
    plain: HashSet<String>,
    wildcards: Vec<String>,
    findings: Vec<Finding>,
}

impl Input {
    /// The problems for which there is no finding: the input cannot be linted at all.
    pub fn unreadable(&self) -> Vec<Problem> {
        self.problems.iter().filter(|p| form::code_of(p).is_none()).cloned().collect()
    }
}

/// All findings, by file, place and code; see [`without_allowed`] for those that an object itself allows.
pub fn lint(input: &Input) -> Vec<Finding> {
    let objects = &input.objects;
    let (digest, tag) = (merged(objects, Pull::Digest), merged(objects, Pull::Tag));
    let sources = digest.iter().chain(&tag).map(|set| set.source.clone());
    let (wildcards, plain): (Vec<String>, Vec<String>) = sources.partition(|source| source.starts_with("*."));
    let names = input.images.iter().flat_map(|(_, images)| images).map(|image| image.reference.name());
    let mut lint = Lint {
        input,
        objects,
        digest,
        tag,
        names: names.collect(),
        plain: plain.into_iter().collect(),
        wildcards,
        findings: Vec::new(),
    };
    form::check(&mut lint);
    names::check(&mut lint);
    overlap::check(&mut lint);
    kinds::check(&mut lint);
    mirror::check(&mut lint);
    project::check(&mut lint);
    image::check(&mut lint);
    images::check(&mut lint);
    conf::check(&mut lint);
    let mut findings = lint.findings;
    findings.sort_by(|a, b| {
        (&a.file, a.line, a.column, a.id, &a.message).cmp(&(&b.file, b.line, b.column, b.id, &b.message))
    });
    findings.dedup_by(|a, b| (a.id, &a.file, a.line, &a.message) == (b.id, &b.file, b.line, &b.message));
    findings
}

/// The texts of all files that fixes change, by position in [`Objects::files`].
pub fn fixed(objects: &Objects, findings: &[Finding]) -> Vec<(usize, String)> {
    let changed = objects.files.iter().enumerate().filter_map(|(at, file)| {
        let edits: Vec<Edit> =
            findings.iter().flat_map(|f| &f.edits).filter(|(of, _)| *of == at).map(|(_, edit)| edit.clone()).collect();
        (!edits.is_empty()).then(|| (at, apply(&file.text, &edits)))
    });
    changed.collect()
}

impl<'a> Lint<'a> {
    /// The merged sources of a kind.
    pub(crate) fn merged(&self, pull: Pull) -> &[Merged] {
        match pull {
            Pull::Digest => &self.digest,
            Pull::Tag => &self.tag,
        }
    }

    /// The merged source of a kind with exactly this name.
    pub(crate) fn merged_of(&self, pull: Pull, source: &str) -> Option<&Merged> {
        self.merged(pull).iter().find(|set| set.source == source)
    }

    /// The source that covers a name: the longest of either kind, of equally long ones the wildcard.
    pub(crate) fn longest(&self, name: &str) -> Option<&str> {
        let ends = name.char_indices().rev().filter(|(_, c)| matches!(c, '/' | ':')).map(|(at, _)| at);
        let plain = std::iter::once(name.len()).chain(ends).find_map(|end| self.plain.get(&name[..end]));
        let wildcard = self.wildcards.iter().filter(|w| matches(name, w)).max_by_key(|w| w.len());
        let found = match (plain, wildcard) {
            (Some(plain), Some(wildcard)) if wildcard.len() >= plain.len() => wildcard,
            (plain, wildcard) => plain.or(wildcard)?,
        };
        Some(found)
    }

    /// A finding about everything.
    pub(crate) fn overall(&mut self, id: &'static str, message: String) -> &mut Finding {
        self.push(id, "", Mark::default(), message)
    }

    /// A finding in a file that is none of the objects'.
    pub(crate) fn at_file(&mut self, id: &'static str, file: &str, line: u32, message: String) -> &mut Finding {
        self.push(id, file, Mark { line, column: u32::from(line > 0), ..Mark::default() }, message)
    }

    /// A finding at a text of the objects' image configuration.
    pub(crate) fn at_image(&mut self, id: &'static str, text: &Text, message: String) -> &mut Finding {
        let file = self.objects.image.as_ref().map(|image| self.objects.files[image.file].name.clone());
        let finding = self.push(id, file.as_deref().unwrap_or_default(), text.mark, message);
        finding.source = Some(text.value.clone());
        finding
    }

    /// A finding about an object.
    pub(crate) fn at_set(&mut self, id: &'static str, set: usize, mark: Mark, message: String) -> &mut Finding {
        let of = &self.objects.sets[set];
        let file = self.objects.files[of.file].name.clone();
        let finding = self.push(id, &file, mark, message);
        finding.document = Some(of.document);
        finding.object = Some(of.title());
        finding.path = Some(of.path.clone()).filter(|path| !path.is_empty());
        finding
    }

    /// A finding at an entry, or at a text inside it.
    pub(crate) fn at(
        &mut self,
        id: &'static str,
        origin: Origin,
        text: Option<&Text>,
        message: String,
    ) -> &mut Finding {
        let entry = self.objects.entry(origin);
        let mark = text.map_or(entry.source.mark, |text| text.mark);
        let path = self.objects.sets[origin.set].entry_path(origin.entry);
        let source = entry.source.value.clone();
        let finding = self.at_set(id, origin.set, mark, message);
        finding.path = Some(path);
        finding.entry = Some(origin.entry);
        finding.source = Some(source);
        finding
    }

    fn push(&mut self, id: &'static str, file: &str, mark: Mark, message: String) -> &mut Finding {
        let check = catalogue::find(id).unwrap_or(&CATALOGUE[0]);
        self.findings.push(Finding {
            id,
            severity: check.severity,
            message,
            file: file.to_owned(),
            document: None,
            path: None,
            line: mark.line,
            column: mark.column,
            object: None,
            entry: None,
            source: None,
            why: check.why,
            fix: check.fix.to_owned(),
            fixable: false,
            edits: Vec::new(),
        });
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }

    /// The image list; empty where none was given.
    pub(crate) fn images(&self) -> &'a [Listed] {
        self.input.images.as_ref().map_or(&[], |(_, images)| images)
    }

    /// All entries that have a mirror other than the source.
    pub(crate) fn real_entries(&self) -> Vec<Origin> {
        self.objects.entries().filter(|(_, _, entry)| entry.has_real_mirror()).map(|(origin, ..)| origin).collect()
    }
}

impl Finding {
    /// What helps, in the words of the case.
    pub(crate) fn help(&mut self, fix: impl Into<String>) -> &mut Self {
        self.fix = fix.into();
        self
    }

    /// How bad this case is.
    pub(crate) fn severity(&mut self, severity: Severity) -> &mut Self {
        self.severity = severity;
        self
    }

    /// What it is about, where that is no entry.
    pub(crate) fn about(&mut self, name: &str) -> &mut Self {
        self.source = Some(name.to_owned());
        self
    }

    /// A change of a file that puts it right.
    pub(crate) fn edit(&mut self, file: usize, edit: Edit) -> &mut Self {
        self.edits.push((file, edit));
        self.fixable = true;
        self
    }
}

/// The findings without those that the objects' own annotations allow, and how many those were.
pub fn without_allowed(objects: &Objects, findings: Vec<Finding>) -> (Vec<Finding>, usize) {
    let before = findings.len();
    let kept: Vec<Finding> = findings
        .into_iter()
        .filter(|finding| {
            let set = finding.object.as_ref().and_then(|title| objects.sets.iter().find(|set| set.title() == *title));
            let allowed = set.and_then(|set| set.annotations.iter().find(|(key, _)| key == ALLOW_ANNOTATION));
            !allowed.is_some_and(|(_, codes)| codes.split(',').any(|code| code.trim().eq_ignore_ascii_case(finding.id)))
        })
        .collect();
    let left_out = before - kept.len();
    (kept, left_out)
}
