//! Where things lie in an archive, by digest, in little memory: lists that are made once, sorted, and looked through by halves.

use std::collections::HashMap;

use airlock_oci::{Digest, Repository};

use super::layout::{Absent, Item};

/// Where the content of a digest lies.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    /// The content.
    pub digest: Digest,
    /// Offset of its data.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Part, from 0.
    pub part: u32,
    /// Number of the entry, from 0.
    pub number: u32,
}

/// Where each content lies.
#[derive(Default)]
pub(super) struct Places(Box<[Placed]>);

/// Blobs that lie in earlier archives. There may be hundreds of thousands, in few archives and repositories.
#[derive(Default)]
pub(super) struct Absences {
    blobs: Box<[Missed]>,
    archives: Vec<Earlier>,
    repositories: Vec<Repository>,
}

/// One of them; archive and repository by their places in the lists.
struct Missed {
    item: Item,
    archive: u32,
    repository: u32,
}

/// An earlier archive.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Earlier {
    identity: Digest,
    sequence: u32,
    created: String,
}

/// Gathers [`Absences`].
#[derive(Default)]
pub(super) struct AbsenceList {
    blobs: Vec<Missed>,
    archives: HashMap<Earlier, u32>,
    repositories: HashMap<Repository, u32>,
}

/// The number of a thing, which is its place in the order of their coming.
pub(super) fn number_of<T: Eq + std::hash::Hash>(known: &mut HashMap<T, u32>, thing: T) -> u32 {
    let next = known.len() as u32;
    *known.entry(thing).or_insert(next)
}

/// The things in the order of their numbers.
pub(super) fn in_order<T>(known: HashMap<T, u32>) -> Vec<T> {
    let mut list: Vec<(T, u32)> = known.into_iter().collect();
    list.sort_unstable_by_key(|(_, number)| *number);
    list.into_iter().map(|(thing, _)| thing).collect()
}

impl Places {
    /// Of several places of one content the last counts.
    pub(super) fn new(mut list: Vec<Placed>) -> Self {
        list.sort_unstable_by(|a, b| a.digest.cmp(&b.digest).then(b.number.cmp(&a.number)));
        list.dedup_by(|next, kept| next.digest == kept.digest);
        Self(list.into_boxed_slice())
    }

    /// Where a content lies.
    pub(super) fn get(&self, digest: &Digest) -> Option<&Placed> {
        self.0.binary_search_by(|placed| placed.digest.cmp(digest)).ok().map(|at| &self.0[at])
    }

    /// All of them, by digest.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Placed> {
        self.0.iter()
    }
}

impl AbsenceList {
    /// Notes one.
    pub(super) fn add(&mut self, absent: Absent) {
        let Absent { item, identity, sequence, created, repository } = absent;
        let archive = number_of(&mut self.archives, Earlier { identity, sequence, created });
        let repository = number_of(&mut self.repositories, repository);
        self.blobs.push(Missed { item, archive, repository });
    }

    /// What the table says first of a blob counts.
    pub(super) fn finish(mut self) -> Absences {
        self.blobs.sort_by(|a, b| a.item.digest.cmp(&b.item.digest));
        Absences {
            blobs: self.blobs.into_boxed_slice(),
            archives: in_order(self.archives),
            repositories: in_order(self.repositories),
        }
    }
}

impl Absences {
    /// How many the table names.
    pub(super) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// Their digests, sorted.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.blobs.iter().map(|missed| &missed.item.digest)
    }

    /// What is said of a blob.
    pub(super) fn get(&self, digest: &Digest) -> Option<Absent> {
        let at = self.blobs.partition_point(|missed| missed.item.digest < *digest);
        let missed = self.blobs.get(at).filter(|missed| missed.item.digest == *digest)?;
        let archive = self.archives.get(missed.archive as usize)?;
        Some(Absent {
            item: missed.item.clone(),
            identity: archive.identity.clone(),
            sequence: archive.sequence,
            created: archive.created.clone(),
            repository: self.repositories.get(missed.repository as usize)?.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn the_last_place_of_a_content_counts_and_others_are_not_found() {
        let at = |content: u64, number: u32| Placed {
            digest: digest(content),
            offset: u64::from(number) * 512,
            len: 7,
            part: 0,
            number,
        };
        let places = Places::new(vec![at(1, 0), at(2, 1), at(1, 2), at(3, 3), at(1, 4)]);
        assert_eq!(places.iter().count(), 3);
        assert_eq!(places.get(&digest(1)).map(|p| (p.number, p.offset)), Some((4, 2048)));
        assert_eq!(places.get(&digest(2)).map(|p| p.number), Some(1));
        assert!(places.get(&digest(4)).is_none());
        assert!(Places::default().get(&digest(1)).is_none());
    }

    #[test]
    fn what_is_absent_reads_back_and_the_first_line_counts() {
        let absent = |content: u64, sequence: u32, name: &str| Absent {
            item: Item { digest: digest(content), size: content },
            identity: digest(u64::from(sequence) + 1000),
            sequence,
            created: format!("2026-11-{sequence:02}T06:00:00Z"),
            repository: Repository::new(name).unwrap(),
        };
        let all = [absent(1, 1, "a/b"), absent(2, 2, "a/b"), absent(3, 1, "c"), absent(2, 1, "c")];
        let mut list = AbsenceList::default();
        all.iter().cloned().for_each(|a| list.add(a));
        let absences = list.finish();
        assert_eq!((absences.len(), absences.archives.len(), absences.repositories.len()), (4, 2, 2));
        for expected in &all[..3] {
            assert_eq!(absences.get(&expected.item.digest).as_ref(), Some(expected));
        }
        assert!(absences.get(&digest(9)).is_none());
        assert!(absences.digests().is_sorted());
    }
}
