//! What came of an import, as data.

use airlock_oci::{Digest, Tag};
use airlock_transfer::Outcome;
use serde::Serialize;

use super::origin::Origin;
use super::plan::Planned;
use crate::clock::Time;
use crate::report::{ErrorReport, Status, exit_code_of};

/// An import, as data.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportReport {
    /// Version of this form.
    pub api_version: String,
    /// Always `ImportReport`.
    pub kind: String,
    /// How it ended; of a dry run, whether everything can be looked up.
    pub status: Status,
    /// Nothing was moved on purpose.
    pub dry_run: bool,
    /// Where everything came from.
    pub source: String,
    /// Where it went.
    pub destination: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339.
    pub ended: String,
    /// The generation that it is in the storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Bytes.
    pub bytes: ImportBytes,
    /// Tags of the storage that pointed elsewhere before.
    pub retagged: Vec<String>,
    /// Every image, sorted by name.
    pub images: Vec<Imported>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Bytes of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImportBytes {
    /// Blobs and manifests of everything that is imported, each once.
    pub planned: u64,
    /// Of its blobs, those that the destination had.
    pub present: u64,
    /// Of the others, what an interrupted import has left.
    pub resumed: u64,
    /// What remained to be fetched or linked.
    pub needed: u64,
    /// Blobs that were written, with what was left of them, and linked.
    pub moved: u64,
    /// Of these, blobs that were linked and not copied.
    pub linked: u64,
    /// Blobs that were found at the destination.
    pub reused: u64,
}

/// One image.
#[derive(Clone, Debug, Serialize)]
pub struct Imported {
    /// At the source: `repository:tag`, or `repository@digest` where no tag leads to it.
    pub name: String,
    /// Its repository at the destination; absent when it could not be looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// All its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// `complete`, `failed` or `interrupted`.
    pub status: Status,
    /// Why it is not there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ErrorReport>,
}

impl ImportReport {
    pub(super) fn begun(origin: &Origin, place: String, planned: &Planned, bytes: ImportBytes, started: Time) -> Self {
        let images = planned.images.iter().map(|image| Imported {
            name: image.job.name.clone(),
            repository: Some(image.job.repository.to_string()),
            tags: image.tags.clone(),
            digest: Some(image.digest.clone()),
            status: Status::Complete,
            errors: Vec::new(),
        });
        let failures = planned.failures.iter().map(|(name, error)| Imported {
            name: name.clone(),
            repository: None,
            tags: Vec::new(),
            digest: None,
            status: Status::Failed,
            errors: vec![error.into()],
        });
        Self {
            api_version: "airlock/v1".into(),
            kind: "ImportReport".into(),
            status: Status::Complete,
            dry_run: false,
            source: origin.name.clone(),
            destination: place,
            started: started.rfc3339(),
            ended: String::new(),
            generation: None,
            bytes,
            retagged: Vec::new(),
            images: images.chain(failures).collect(),
            warnings: Vec::new(),
        }
    }

    /// `outcomes` are those of the images that could be looked up, in their order.
    pub(super) fn end(&mut self, outcomes: Option<&[Outcome]>, now: Time) {
        for (image, outcome) in self.images.iter_mut().zip(outcomes.unwrap_or_default()) {
            (image.status, image.errors) = match outcome {
                Outcome::Done => (Status::Complete, Vec::new()),
                Outcome::Failed(errors) => (Status::Failed, errors.iter().map(ErrorReport::from).collect()),
                Outcome::Withheld => (Status::Failed, vec![ErrorReport::withheld()]),
                Outcome::Stopped => (Status::Interrupted, Vec::new()),
            };
        }
        let count = |status: Status| self.images.iter().filter(|image| image.status == status).count();
        self.status = if count(Status::Interrupted) > 0 {
            Status::Interrupted
        } else if count(Status::Failed) == 0 {
            Status::Complete
        } else if count(Status::Complete) == 0 {
            Status::Failed
        } else {
            Status::Partial
        };
        self.images.sort_by(|a, b| a.name.cmp(&b.name));
        self.ended = now.rfc3339();
    }

    /// Images that are not there.
    pub fn failures(&self) -> impl Iterator<Item = &Imported> {
        self.images.iter().filter(|image| image.status != Status::Complete)
    }

    /// The exit code (ux.md 3.2).
    pub fn exit_code(&self) -> u8 {
        match self.status {
            Status::Complete => 0,
            Status::Partial => 3,
            Status::Interrupted => 130,
            Status::Failed => {
                let errors = self.failures().flat_map(|image| &image.errors);
                let mut codes: Vec<u8> = errors.map(|error| exit_code_of(&error.code)).collect();
                // Content that cannot be carried is a failure of the image, not of what the user typed.
                codes.iter_mut().filter(|code| **code == 2).for_each(|code| *code = 1);
                codes.dedup();
                // One cause for everything has a code of its own; different ones are just a failure.
                if let [code] = codes[..] { code } else { 1 }
            }
        }
    }
}
