//! What is damaged or missing, who needs it, and what a repair made of it: the words of a scrub, on a disk and in a bucket.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use serde::{Deserialize, Serialize};

/// Images named for one damaged file at most.
const MAX_NAMED: usize = 20;

/// What is wrong with content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The bytes have another digest; the file is in quarantine now.
    Altered,
    /// A manifest names it, and it is not there.
    Missing,
    /// A manifest gives it another length.
    Length,
    /// An object store has it and does not give it, again and again; it stays where it is.
    Unreadable,
}

/// One damaged or missing file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its name.
    pub digest: Digest,
    /// What is wrong.
    pub fault: Fault,
    /// Images that need it (`repository@digest`), the first twenty.
    pub images: Vec<String>,
    /// How many there are.
    pub affected: usize,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrubbed {
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests whose content was looked for.
    pub manifests: u64,
    /// What is damaged or missing, by digest.
    pub damage: Vec<Damage>,
}

/// What a repair did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// What was damaged or missing and is whole again.
    pub restored: Vec<Digest>,
    /// What nobody could give.
    pub left: Vec<Damage>,
}

/// Who needs what.
#[derive(Default)]
pub(crate) struct Needs {
    pub(crate) manifests: u64,
    /// Content that is not there as it should be: the fault, and the images, each with its repository.
    faults: BTreeMap<Digest, (Fault, BTreeSet<(Repository, Digest)>)>,
}

impl Needs {
    pub(crate) fn add(&mut self, digest: Digest, fault: Fault, image: (Repository, Digest)) {
        self.faults.entry(digest).or_insert_with(|| (fault, BTreeSet::new())).1.insert(image);
    }

    /// What a repair looks for: everything that is not as it should be, and has not been restored before. A manifest that gives a wrong length
    /// is not helped by the right bytes.
    pub(crate) fn wanted(&self, found: &BTreeMap<Digest, Fault>, restored: &[Digest]) -> BTreeSet<Digest> {
        let all = self.faults.keys().chain(found.keys());
        all.filter(|digest| !restored.contains(digest)).cloned().collect()
    }

    /// The repositories that must link to the digest; whether as to a manifest.
    pub(crate) fn owners(&self, digest: &Digest) -> BTreeSet<(Repository, bool)> {
        let images = self.faults.get(digest).map(|(_, images)| images);
        images.into_iter().flatten().map(|(repository, image)| (repository.clone(), image == digest)).collect()
    }

    /// For people; `found` is what reading every byte has found, which knows better what the fault is.
    pub(crate) fn damage(self, found: &BTreeMap<Digest, Fault>) -> Vec<Damage> {
        let alone = |(digest, fault): (&Digest, &Fault)| {
            (digest.clone(), Damage { digest: digest.clone(), fault: *fault, images: Vec::new(), affected: 0 })
        };
        let mut damage: BTreeMap<Digest, Damage> = found.iter().map(alone).collect();
        for (digest, (fault, images)) in self.faults {
            let named =
                images.iter().take(MAX_NAMED).map(|(repository, image)| format!("{repository}@{image}")).collect();
            let fault = found.get(&digest).copied().unwrap_or(fault);
            damage.insert(digest.clone(), Damage { digest, fault, images: named, affected: images.len() });
        }
        damage.into_values().collect()
    }
}

/// Whether anything is wrong, as an error for those who only want to know that.
impl Scrubbed {
    /// [`ErrorKind::Damaged`] when something is damaged or missing.
    pub fn verdict(&self, place: &str) -> Result<(), Error> {
        if self.damage.is_empty() {
            return Ok(());
        }
        let cause = format!("damaged or missing files: {}", self.damage.len());
        Err(Error::new(ErrorKind::Damaged, format!("scrub `{place}`"), cause)
            .hint("bring them back with `airlock registry repair --from ARCHIVE`, or push or mirror the images again"))
    }
}
