//! Which of the images in use are served by which rules (mirror-rules 8.3).
//!
//! Input: [`Images`](crate::usage::Images) and [`Rules`]. Output: [`Audit`], one [`Finding`] for each distinct text of an image,
//! the worst first. The rules are rendered and resolved by the same code as `rules render` and `rules resolve`, so that what is
//! said here is what a node does. Whether a mirror really has an image is for the caller to find out, who gives the answer
//! back with [`Audit::set_check`]; nothing here touches a network.

mod classify;
mod report;
mod rules;
mod suggest;

use serde::Serialize;

pub use report::{Line, Summary};
pub use rules::{Endpoint, Rules};
pub use suggest::{Suggestion, objects as suggested_objects};

use crate::usage::Images;

/// Hosts that belong to the cluster itself: nothing of theirs is mirrored.
pub const INTERNAL_REGISTRY: &str = "image-registry.openshift-image-registry.svc";

/// What a rule makes of an image. The order is that of a report: the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Class {
    /// Not a reference, or the rules make something of it that is none: every pull fails.
    Invalid,
    /// policy.json refuses the name, whatever mirrors there are.
    Rejected,
    /// No endpoint may be contacted.
    Blocked,
    /// A rule covers the name, but serves only tags where a digest is asked for, or the reverse.
    WrongKind,
    /// A shorter rule would serve it; the longest alone counts, and does not.
    Shadowed,
    /// No rule: it is pulled from where it says.
    Uncovered,
    /// A mirror serves it, and the source is tried where the mirror fails.
    Mirrored,
    /// A mirror serves it, and nothing else may.
    MirroredStrict,
    /// The name is that of a mirror.
    DirectMirror,
    /// It comes from the cluster's own registry.
    Internal,
}

/// The same in the words of an administrator, and after asking the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The pull fails before anything is contacted.
    Invalid,
    /// Nothing may be contacted, or policy.json refuses the name.
    Blocked,
    /// A tag under a rule for digests, or the reverse.
    WrongKind,
    /// It is pulled from the internet.
    FallsThrough,
    /// The rules are right, and no mirror has it.
    NotInMirror,
    /// The mirror has something else under this tag than what runs.
    DifferentDigest,
    /// The mirror could not be asked, or refused.
    Unknown,
    /// It comes from a mirror, or from the cluster itself.
    Covered,
}

/// What a mirror said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What came of it.
    pub status: Status,
    /// The endpoint that answered last.
    pub endpoint: String,
    /// What it has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What runs instead, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// Why, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// What came of asking a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Status {
    /// It has it.
    Present,
    /// It has something else under the tag than what runs.
    TagDiffers,
    /// It does not have it.
    Absent,
    /// It does not let us look.
    Denied,
    /// It asks to be left alone.
    Limited,
    /// It cannot be spoken to.
    Unreachable,
}

/// What is said of one image.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Position in [`Images::images`].
    pub image: usize,
    /// The full name that is pulled; nothing where there is none.
    pub normalized: Option<airlock_oci::Reference>,
    /// What the rules make of it.
    pub class: Class,
    /// The prefix of the table that applies.
    pub matched_prefix: Option<String>,
    /// In the order of attempts.
    pub endpoints: Vec<Endpoint>,
    /// The mirrors that the same name would have by tag, and by digest.
    pub via: Via,
    /// Codes of the catalogue (mirror-rules 7) and of [`PROJECT_SECRET`].
    pub codes: Vec<&'static str>,
    /// Why, in words.
    pub detail: String,
    /// A rule that would cover it.
    pub suggestion: Option<Suggestion>,
    /// What a mirror said, once it was asked.
    pub check: Option<Check>,
}

/// The mirrors of a name for both kinds of pull.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// By tag.
    pub tag: Vec<String>,
    /// By digest.
    pub digest: Vec<String>,
}

/// A workload brings a pull secret of its own project, which is never shown to a mirror.
pub const PROJECT_SECRET: &str = "project-pull-secret";

/// What counts besides the rules.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Hosts that are mirrors although no rule names them.
    pub mirror_hosts: Vec<String>,
    /// Hosts that belong to the cluster.
    pub internal_hosts: Vec<String>,
}

/// The whole.
#[derive(Debug)]
pub struct Audit {
    findings: Vec<Finding>,
    unused: Vec<String>,
}

impl Class {
    /// Whether the image does not come from a mirror.
    pub fn is_gap(self) -> bool {
        self < Self::Mirrored
    }

    /// As in `-o json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::Rejected => "REJECTED",
            Self::Blocked => "BLOCKED",
            Self::WrongKind => "WRONG-KIND",
            Self::Shadowed => "SHADOWED",
            Self::Uncovered => "UNCOVERED",
            Self::Mirrored => "MIRRORED",
            Self::MirroredStrict => "MIRRORED-STRICT",
            Self::DirectMirror => "DIRECT-MIRROR",
            Self::Internal => "INTERNAL",
        }
    }
}

impl Verdict {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Blocked => "blocked",
            Self::WrongKind => "wrong kind",
            Self::FallsThrough => "falls through",
            Self::NotInMirror => "not in mirror",
            Self::DifferentDigest => "different digest",
            Self::Unknown => "unknown",
            Self::Covered => "covered",
        }
    }

    /// Whether a pull may fail, or go where it should not.
    pub fn is_gap(self) -> bool {
        !matches!(self, Self::Covered | Self::Unknown)
    }
}

impl Finding {
    /// In the words of an administrator.
    pub fn verdict(&self) -> Verdict {
        match self.class {
            Class::Invalid => Verdict::Invalid,
            Class::Rejected | Class::Blocked => Verdict::Blocked,
            Class::WrongKind => Verdict::WrongKind,
            Class::Shadowed | Class::Uncovered => Verdict::FallsThrough,
            Class::Internal => Verdict::Covered,
            Class::Mirrored | Class::MirroredStrict | Class::DirectMirror => {
                match self.check.as_ref().map(|c| c.status) {
                    None | Some(Status::Present) => Verdict::Covered,
                    Some(Status::TagDiffers) => Verdict::DifferentDigest,
                    Some(Status::Absent) => Verdict::NotInMirror,
                    Some(Status::Denied | Status::Limited | Status::Unreachable) => Verdict::Unknown,
                }
            }
        }
    }

    /// The endpoints from which the image is meant to come, in order: what [`Check`] is about.
    pub fn mirrors(&self) -> impl Iterator<Item = &Endpoint> {
        let direct = self.class == Class::DirectMirror;
        let served = matches!(self.class, Class::Mirrored | Class::MirroredStrict | Class::DirectMirror);
        self.endpoints.iter().filter(move |e| served && !e.blocked && (direct || !e.is_source))
    }
}

impl Audit {
    /// Judges every image.
    pub fn of(images: &Images, rules: &Rules, options: &Options) -> Self {
        let judge = classify::Judge::new(rules, options);
        let mut used = rules.usage();
        let mut findings: Vec<Finding> = images
            .images()
            .iter()
            .enumerate()
            .map(|(at, image)| {
                let mut finding = judge.judge(at, image);
                used.note(&finding);
                let mirrored = matches!(finding.class, Class::Mirrored | Class::MirroredStrict);
                if mirrored && images.users(image).any(|user| !user.pull_secret.is_empty()) {
                    finding.codes.push(PROJECT_SECRET);
                }
                finding
            })
            .collect();
        suggest::complete(&mut findings, rules);
        findings.sort_by(|a, b| {
            let text = |f: &Finding| images.images()[f.image].text();
            (a.class, text(a)).cmp(&(b.class, text(b)))
        });
        Self { findings, unused: used.unused() }
    }

    /// The worst first.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Rules that serve none of the images, for people.
    pub fn unused(&self) -> &[String] {
        &self.unused
    }

    /// Adds what a mirror said about the image at a position of [`Audit::findings`].
    pub fn set_check(&mut self, at: usize, check: Check) {
        let finding = &mut self.findings[at];
        let digest = finding.normalized.as_ref().is_some_and(|r| r.digest().is_some());
        match check.status {
            Status::Absent if digest => finding.codes.push("MR062"),
            Status::TagDiffers => finding.codes.push("MR064"),
            _ => {}
        }
        if check.status == Status::Absent {
            let source = finding.endpoints.iter().find(|e| e.is_source && !e.blocked);
            finding.detail = match (finding.class, source) {
                (Class::Mirrored, Some(source)) => {
                    format!("no mirror has it: the pull falls through to `{}`", source.reference)
                }
                _ => "no mirror has it: the pull fails".to_owned(),
            };
        }
        finding.check = Some(check);
    }

    /// Whether anything does not come from where it should.
    pub fn has_gap(&self) -> bool {
        self.findings.iter().any(|finding| finding.verdict().is_gap())
    }
}

#[cfg(test)]
mod tests;
