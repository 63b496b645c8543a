//! An audit as data for `-o json` (mirror-rules 8.5), written out piece by piece: the users of an image are put together only
//! while they are written, because there may be a hundred thousand of them.

use std::collections::BTreeMap;

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::{Audit, Check, Class, Endpoint, Finding, Suggestion, Verdict};
use crate::usage::{Image, Images};

/// How many of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Distinct images.
    pub images: usize,
    /// Places in which they are used.
    pub uses: usize,
    /// Images that do not come from where they should.
    pub gaps: usize,
    /// Images that no rule covers.
    pub uncovered: usize,
    /// Images by class.
    pub by_class: BTreeMap<&'static str, usize>,
    /// Images by verdict.
    pub by_verdict: BTreeMap<Verdict, usize>,
}

/// One image.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// As written where it is used.
    pub reference: &'a str,
    /// The full name that is pulled.
    pub normalized: Option<String>,
    /// `tag` or `digest`.
    pub kind: &'static str,
    /// What the rules make of it.
    pub class: Class,
    /// The same in an administrator's words, and after asking the mirror.
    pub verdict: Verdict,
    /// Whether it is a gap.
    pub gap: bool,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub detail: &'a str,
    /// The prefix of the table that applies.
    pub matched_prefix: Option<&'a str>,
    /// In the order of attempts.
    pub endpoints: &'a [Endpoint],
    /// Mirrors that the name would have by tag.
    pub via_tag: &'a [String],
    /// Mirrors that the name would have by digest.
    pub via_digest: &'a [String],
    /// Digests that run under this name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<Running<'a>>,
    /// What policy.json says.
    pub policy: &'static str,
    /// What the mirror said, with --check-mirror.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_check: Option<&'a Check>,
    /// Codes of the catalogue.
    pub findings: &'a [&'static str],
    /// A rule that would cover it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<&'a Suggestion>,
    /// Who uses it.
    pub users: Users<'a>,
}

/// A digest that runs.
#[derive(Debug, Serialize)]
pub struct Running<'a> {
    repository: &'a str,
    digest: String,
    containers: u64,
}

/// Who uses an image.
#[derive(Debug)]
pub struct Users<'a> {
    images: &'a Images,
    image: &'a Image,
}

/// The lines, made while they are written.
struct Lines<'a> {
    audit: &'a Audit,
    images: &'a Images,
    gaps_only: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    api_version: &'static str,
    kind: &'static str,
    summary: Summary,
    images: Lines<'a>,
    #[serde(rename = "unused_rules")]
    unused: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a crate::node::Report>,
}

impl Serialize for Users<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.images.users(self.image))
    }
}

impl Serialize for Lines<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        for finding in self.audit.findings.iter().filter(|f| !self.gaps_only || f.verdict().is_gap()) {
            seq.serialize_element(&Line::of(finding, self.images))?;
        }
        seq.end()
    }
}

impl<'a> Line<'a> {
    /// One image of an audit.
    pub fn of(finding: &'a Finding, images: &'a Images) -> Self {
        let image = &images.images()[finding.image];
        let digest = finding.normalized.as_ref().is_some_and(|r| r.digest().is_some());
        Self {
            reference: image.text(),
            normalized: finding.normalized.as_ref().map(ToString::to_string),
            kind: if digest { "digest" } else { "tag" },
            class: finding.class,
            verdict: finding.verdict(),
            gap: finding.verdict().is_gap(),
            detail: &finding.detail,
            matched_prefix: finding.matched_prefix.as_deref(),
            endpoints: &finding.endpoints,
            via_tag: &finding.via.tag,
            via_digest: &finding.via.digest,
            running: image
                .running()
                .iter()
                .map(|r| Running { repository: &r.repository, digest: r.digest.to_string(), containers: r.containers })
                .collect(),
            policy: if finding.class == Class::Rejected { "reject" } else { "accept" },
            mirror_check: finding.check.as_ref(),
            findings: &finding.codes,
            suggestion: finding.suggestion.as_ref(),
            users: Users { images, image },
        }
    }
}

impl Audit {
    /// How many of what.
    pub fn summary(&self, images: &Images) -> Summary {
        let (mut by_class, mut by_verdict) = (BTreeMap::new(), BTreeMap::new());
        for finding in &self.findings {
            *by_class.entry(finding.class.as_str()).or_default() += 1;
            *by_verdict.entry(finding.verdict()).or_default() += 1;
        }
        Summary {
            images: self.findings.len(),
            uses: images.uses(),
            gaps: self.findings.iter().filter(|f| f.verdict().is_gap()).count(),
            uncovered: self.findings.iter().filter(|f| f.class == Class::Uncovered).count(),
            by_class,
            by_verdict,
        }
    }

    /// Everything as a document, or of the images only the gaps.
    pub fn document<'a>(
        &'a self,
        images: &'a Images,
        node: Option<&'a crate::node::Report>,
        gaps_only: bool,
    ) -> impl Serialize + 'a {
        Document {
            api_version: "airlock/v1",
            kind: "Audit",
            summary: self.summary(images),
            images: Lines { audit: self, images, gaps_only },
            unused: &self.unused,
            node,
        }
    }
}
