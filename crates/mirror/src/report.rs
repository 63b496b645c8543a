//! What came of a run: `report.json`, and oc-mirror's list of errors.

use airlock_oci::{Digest, Error};
use serde::{Deserialize, Serialize};

use crate::plan::{Image, Kind, Missing, Plan, Reason};
use crate::run::Retry;

/// The code of an image that was not begun because of another.
const WITHHELD: &str = "withheld";

/// A run, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this form.
    pub api_version: String,
    /// Always `Report`.
    pub kind: String,
    /// Version of the program.
    pub version: String,
    /// `mirrorToDisk`, `diskToMirror`, `mirrorToMirror`.
    pub workflow: String,
    /// How it ended.
    pub status: Status,
    /// Whether nothing was moved on purpose.
    pub dry_run: bool,
    /// The configuration's path.
    pub config: String,
    /// Where the images came from.
    pub source: String,
    /// Where they went.
    pub destination: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// Every image that was asked for, sorted by destination.
    pub images: Vec<ImageReport>,
    /// Bytes.
    pub bytes: BytesReport,
    /// The archive that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveReport>,
    /// Releases that are at the target, each with the line that updates a cluster to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub releases: Vec<ReleaseReport>,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Files that were written.
    pub files: Vec<String>,
    /// What `airlock mirror --retry` needs to finish the run.
    pub retry: Retry,
}

/// How a run, or an image of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything is there.
    Complete,
    /// Some of it is there, and usable.
    Partial,
    /// Nothing usable came of it.
    Failed,
    /// Stopped on request; the next run goes on.
    Interrupted,
}

/// One image of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageReport {
    /// As the user wrote it.
    pub name: String,
    /// What kind of content.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Where it is now; absent when it is nowhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// What it stands for; absent when it could not be found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// `complete`, `failed` or `interrupted`.
    pub status: Status,
    /// Who asked for it.
    pub reasons: Vec<Reason>,
    /// Why it is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorReport>,
}

/// A release at the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseReport {
    /// Such as `4.18.3`.
    pub version: String,
    /// The command that updates a cluster to it without an update service.
    pub update: String,
}

/// A failure.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorReport {
    /// Stable word.
    pub code: String,
    /// What failed and why, with every endpoint that was tried.
    pub cause: String,
    /// What helps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// Bytes of a run.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BytesReport {
    /// Unique bytes of the plan.
    pub planned: u64,
    /// Bytes of blobs that were moved.
    pub moved: u64,
    /// Bytes of blobs that were there already.
    pub reused: u64,
}

/// The archive of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveReport {
    /// Its identity.
    pub identity: Digest,
    /// Its number.
    pub sequence: u32,
    /// Its date.
    pub created: String,
    /// File names and bytes of its parts.
    pub parts: Vec<(String, u64)>,
    /// Blobs and manifests that it lacks.
    pub voids: Vec<Digest>,
}

impl From<&Error> for ErrorReport {
    fn from(error: &Error) -> Self {
        Self { code: error.kind().code().into(), cause: error.to_string(), hint: error.hint_text().map(str::to_owned) }
    }
}

impl ErrorReport {
    /// Of an image that was not begun because something of a release cannot be had.
    pub fn withheld() -> Self {
        Self {
            code: WITHHELD.into(),
            cause: "not begun: something of a release cannot be had, and without it the rest is of no use".into(),
            hint: Some(
                "mend the cause and run again; --keep-going carries what belongs to no release meanwhile".into(),
            ),
        }
    }

    /// Whether it is only the consequence of another.
    pub fn is_withheld(&self) -> bool {
        self.code == WITHHELD
    }
}

impl ImageReport {
    /// Of an image that the plan could not find.
    pub fn missing(missing: &Missing) -> Self {
        Self {
            name: missing.name.clone(),
            kind: missing.kind,
            destination: None,
            digest: None,
            status: Status::Failed,
            reasons: missing.reasons.clone(),
            errors: vec![ErrorReport {
                code: missing.code.clone(),
                cause: missing.cause.clone(),
                hint: missing.hint.clone(),
            }],
        }
    }

    /// Of an image that was moved, or not.
    pub fn moved(image: &Image, destination: String, status: Status, errors: &[Error]) -> Self {
        Self {
            name: image.name.clone(),
            kind: image.kind,
            destination: Some(destination),
            digest: Some(image.digest.clone()),
            status,
            reasons: image.reasons.clone(),
            errors: errors.iter().map(ErrorReport::from).collect(),
        }
    }
}

impl Report {
    /// Images that are not there.
    pub fn failures(&self) -> impl Iterator<Item = &ImageReport> + Clone {
        self.images.iter().filter(|i| i.status != Status::Complete)
    }

    /// The exit code of the run (ux.md 3.2).
    pub fn exit_code(&self) -> u8 {
        match self.status {
            Status::Complete => 0,
            Status::Partial => 3,
            Status::Interrupted => 130,
            Status::Failed => failed_code(self.failures()),
        }
    }

    /// oc-mirror's exit mask (oc-mirror 2.8): 2 for releases, 4 for operators, 8 for additional images.
    pub fn exit_mask(&self) -> u8 {
        match self.status {
            Status::Complete => 0,
            Status::Interrupted => 130,
            Status::Partial | Status::Failed => self.failures().fold(0, |mask, image| {
                mask | match image.kind {
                    Kind::Release | Kind::ReleaseContent | Kind::Graph => 2,
                    Kind::Catalog | Kind::Bundle | Kind::Related => 4,
                    Kind::Additional => 8,
                }
            }),
        }
    }

    /// The lines of oc-mirror's `mirroring_errors_<time>.txt` (oc-mirror 8.3).
    pub fn error_lines(&self) -> String {
        let mut lines = String::new();
        for image in self.failures() {
            for error in &image.errors {
                lines.push_str(&format!(
                    "error mirroring image {} error: {}\n",
                    image.name,
                    error.cause.replace('\n', " ")
                ));
            }
        }
        lines
    }

    /// Deterministic JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// The exit code that one cause has.
pub fn exit_code_of(code: &str) -> u8 {
    match code {
        "unauthorized" | "denied" => 5,
        "full" => 6,
        "network" => 7,
        "content" | "damaged" => 4,
        "invalid" | "unsupported" => 2,
        "interrupted" => 130,
        "locked" => 9,
        _ => 1,
    }
}

/// The exit code of a run of which nothing usable comes because of these.
pub fn failed_code<'a>(failures: impl Iterator<Item = &'a ImageReport> + Clone) -> u8 {
    if failures.clone().any(|i| i.kind.is_release()) {
        return 1;
    }
    let mut codes: Vec<u8> = failures.flat_map(|i| &i.errors).map(|e| exit_code_of(&e.code)).collect();
    // An image of a kind that cannot be carried is a failure of the image, not of what the user typed.
    codes.iter_mut().filter(|c| **c == 2).for_each(|c| *c = 1);
    codes.sort_unstable();
    codes.dedup();
    // One cause for everything has a code of its own; different ones are just a failure.
    if let [code] = codes[..] { code } else { 1 }
}

/// The exit code of a run that an error ended before it had a report.
pub fn exit_code(error: &Error) -> u8 {
    exit_code_of(error.kind().code())
}

/// The types and counts of oc-mirror's results block.
pub fn counts(plan: &Plan, report: &Report) -> (usize, usize) {
    let done = report.images.iter().filter(|i| i.status == Status::Complete).count();
    (done, plan.images.len() + plan.missing.len())
}
