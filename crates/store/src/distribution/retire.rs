//! The names that go with old generations.
//!
//! A record says what an import brought; the storage says what has become of it. A tag goes only where it still points at what the import
//! brought. A manifest stays where somebody pushed it, where a tag that stays points at it, where an index that stays names it, and where
//! its subject stays: what is attached to an image lives as long as the image. What stays for such a reason belongs to the oldest generation
//! that is kept from then on, and may go with it.
//!
//! Pushes and imports go on meanwhile. What goes is therefore found anew for each repository while its names and the records stand still:
//! an import that has recorded what it counts on either keeps it, or does not find it any more and brings it.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Digest, Error, ErrorKind, Repository, Tag};

use super::gc::Collected;
use super::generations::{Members, only_in, outdated};
use super::paths::Link;
use super::walk::Revision;
use super::{Directory, Writer};
use crate::disk::{self, DirectorySyncs};

/// What cosign appends to the tag that stands for a digest.
const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

/// What goes, or went.
#[derive(Debug, Default)]
pub(super) struct Retired {
    numbers: Vec<u64>,
    repositories: BTreeMap<Repository, Members>,
    /// All that only the old generations have, and who gets what of it stays.
    outdated: BTreeMap<Repository, Members>,
    heir: Option<u64>,
    /// How often the records had changed when they were read.
    seen: u64,
}

impl Retired {
    pub(super) fn has_manifest(&self, repository: &Repository, digest: &Digest) -> bool {
        self.repositories.get(repository).is_some_and(|members| members.manifests.contains(digest))
    }

    /// Adds itself to what is told of a collection.
    pub(super) fn tell(self, collected: &mut Collected) {
        collected.generations = self.numbers;
        for (name, members) in self.repositories {
            collected.retired_tags.extend(members.tags.keys().map(|tag| format!("{name}:{tag}")));
            collected.retired_manifests.extend(members.manifests.iter().map(|digest| format!("{name}@{digest}")));
        }
    }
}

impl Directory {
    /// Of what only old generations have in a repository, the part that can go. `own` is what somebody pushed.
    fn retirable(&self, repository: &Repository, of: &Members, own: &Members) -> Result<Members, Error> {
        let (mut going_tags, mut staying) = (BTreeMap::new(), BTreeSet::new());
        for (tag, digest) in self.targets(repository)? {
            if of.tags.get(&tag) == Some(&digest) && own.tags.get(&tag) != Some(&digest) {
                going_tags.insert(tag, digest);
            } else {
                staying.insert(digest);
            }
        }
        let (mut going, mut queue) = (BTreeSet::new(), Vec::new());
        for digest in self.linked_manifests(repository)? {
            let goes = of.manifests.contains(&digest) && !own.manifests.contains(&digest) && !staying.contains(&digest);
            if goes {
                going.insert(digest);
            } else {
                queue.push(digest);
            }
        }
        if going.is_empty() {
            return Ok(Members { tags: going_tags, manifests: going });
        }
        let mut attached: BTreeMap<Digest, Vec<Digest>> = BTreeMap::new();
        for digest in &going {
            if let Revision::Whole(manifest) = self.revision(repository, digest)?
                && let Some(subject) = manifest.subject()
            {
                attached.entry(subject.digest.clone()).or_default().push(digest.clone());
            }
        }
        // From what stays to all that it needs.
        while let Some(digest) = queue.pop() {
            let mut needed = attached.remove(&digest).unwrap_or_default();
            match self.revision(repository, &digest)? {
                Revision::Whole(manifest) => needed.extend(manifest.children().iter().map(|c| c.digest.clone())),
                Revision::Foreign(digests) => needed.extend(digests),
                Revision::Missing => {}
                Revision::Damaged => {
                    return Err(Error::new(
                        ErrorKind::Damaged,
                        format!("find what only old generations have in `{repository}`"),
                        format!("the manifest `{digest}` is damaged, so that nobody knows what it names"),
                    )
                    .hint("repair it (`airlock registry repair`), import or push the image again, or delete it"));
                }
            }
            let stem = digest.fallback_tag();
            for suffix in COSIGN.into_iter().chain([""]) {
                let tag = Tag::new(&format!("{stem}{suffix}")).ok();
                needed.extend(tag.and_then(|tag| going_tags.remove(&tag)));
            }
            for digest in needed {
                if going.remove(&digest) {
                    queue.push(digest);
                }
            }
        }
        Ok(Members { tags: going_tags, manifests: going })
    }
}

impl Writer {
    /// What can go when the last `keep` generations are kept.
    pub(super) fn retiring(&self, keep: usize) -> Result<Retired, Error> {
        let seen = self.generations().hold().changes();
        let outdated = outdated(&self.generations().read()?, keep);
        let mut retired = Retired { numbers: outdated.numbers, heir: outdated.heir, seen, ..Retired::default() };
        for (name, members) in &outdated.repositories {
            let own = self.generations().pushed_of(name, members)?;
            let going = self.directory().retirable(name, members, &own)?;
            if going != Members::default() {
                retired.repositories.insert(name.clone(), going);
            }
        }
        retired.outdated = outdated.repositories;
        Ok(retired)
    }

    /// Takes the names away, except what has come to be somebody's own meanwhile; answers what went. A crash in the middle leaves the
    /// records, so that the next time goes on.
    pub(super) fn retire(&self, retired: Retired) -> Result<Retired, Error> {
        let mut retired = retired;
        let mut gone = Retired { numbers: retired.numbers.clone(), ..Retired::default() };
        for name in std::mem::take(&mut retired.repositories).into_keys() {
            let members = self.retire_in(&name, &mut retired)?;
            gone.repositories.insert(name, members);
        }
        let mut left = BTreeMap::new();
        for (name, members) in &retired.outdated {
            let mut present = self.directory().present_of(name, members)?;
            let own = self.generations().pushed_of(name, members)?;
            present.manifests.retain(|digest| !own.manifests.contains(digest));
            present.tags.retain(|tag, _| !own.tags.contains_key(tag));
            if present != Members::default() {
                left.insert(name.clone(), present);
            }
        }
        if let Some(heir) = retired.heir {
            self.generations().inherit(heir, left)?;
        }
        self.generations().forget(&gone.numbers)?;
        Ok(gone)
    }

    /// Takes the names away that can go from one repository now.
    fn retire_in(&self, repository: &Repository, retired: &mut Retired) -> Result<Members, Error> {
        let directory = self.directory();
        let _names = self.lock_repository(repository);
        let mut records = self.generations().hold();
        if records.changes() != retired.seen {
            retired.outdated = only_in(&self.generations().read()?, &retired.numbers);
            retired.seen = records.changes();
        }
        let Some(of) = retired.outdated.get(repository) else { return Ok(Members::default()) };
        let own = records.pushed_of(repository, of)?;
        let members = directory.retirable(repository, of, &own)?;
        let mut syncs = DirectorySyncs::default();
        let mut aside = self.aside()?;
        for tag in members.tags.keys() {
            self.remove_tag(repository, tag, &mut aside, &mut syncs)?;
        }
        syncs.sync()?;
        for digest in &members.manifests {
            let link = directory.paths.link(repository, Link::Revision, digest);
            disk::remove_file(&link)?;
            if let Some(folder) = link.parent()
                && disk::remove_tree(folder)?
            {
                syncs.changed(folder);
            }
        }
        syncs.sync()?;
        for digest in &members.manifests {
            self.removed_manifest(repository, digest)?;
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use airlock_oci::{Manifest, media_type};

    use super::*;
    use crate::distribution::generations::{Generation, State};
    use crate::distribution::{Change, Durability, Keeper};

    /// An index of these, different from others of the same by its name.
    fn index(name: &str, children: &[&Manifest]) -> Manifest {
        let children: Vec<String> = children.iter().map(|c| serde_json::to_string(&c.descriptor()).unwrap()).collect();
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}],"annotations":{{"name":"{name}"}}}}"#,
            media_type::OCI_INDEX,
            children.join(",")
        );
        Manifest::parse(text.into(), None).unwrap()
    }

    fn record(writer: &Writer, name: &Repository, number: u64, state: State, manifests: &[&Manifest]) -> u64 {
        let manifests = manifests.iter().map(|m| m.digest().clone()).collect();
        let of = [(name.clone(), Members { tags: BTreeMap::new(), manifests })].into();
        let begun = Generation::begun("there".into(), "then".into(), 0, of);
        let generation = Generation { number, state, ..begun };
        writer.change(&Change::Record(Box::new(generation))).unwrap().number
    }

    fn imported(writer: &Writer, name: &Repository, manifests: &[&Manifest]) {
        let number = record(writer, name, 0, State::Unfinished, manifests);
        for manifest in manifests {
            writer.import_manifest(name, manifest, &[]).unwrap();
        }
        record(writer, name, number, State::Complete, manifests);
    }

    #[test]
    fn what_comes_to_be_needed_while_old_generations_go_stays() {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path(), Durability::Image).unwrap();
        let name = Repository::new("app").unwrap();
        let [counted_on, leaf, nobodys, new] = ["counted", "leaf", "nobody", "new"].map(|n| index(n, &[]));
        let middle = index("middle", &[&leaf]);
        imported(&writer, &name, &[&counted_on, &leaf, &middle, &nobodys]);
        imported(&writer, &name, &[&new]);
        let retired = writer.retiring(1).unwrap();
        assert_eq!(retired.repositories[&name].manifests.len(), 4);
        // Now an import begins that finds something there and does not bring it again, and somebody pushes an index of an index.
        record(&writer, &name, 0, State::Unfinished, &[&counted_on]);
        writer.put_manifest(&name, &index("pushed", &[&middle]), &[]).unwrap();
        let gone = writer.retire(retired).unwrap();
        assert_eq!(gone.repositories[&name].manifests, [nobodys.digest().clone()].into());
        let left = writer.directory().linked_manifests(&name).unwrap();
        assert!([&counted_on, &leaf, &middle, &new].iter().all(|m| left.contains(m.digest())));
        assert_eq!(writer.directory().generations().unwrap().iter().map(|g| g.number).collect::<Vec<_>>(), [2, 3]);
    }
}
