//! What the repositories of an archive offer, as far as the links inside say: one answer for our archives and for oc-mirror's.
//!
//! An archive may have hundreds of thousands of links. Each digest is kept once; a repository has the places of its digests in that list.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, Repository, Tag};

use super::index::{in_order, number_of};
use super::layout::STORAGE_ROOT;
use crate::storage::{ReferrerIndex, Storage, referrer_index};

/// Nobody offers it as a manifest.
const NOWHERE: u32 = u32::MAX;

/// Repositories with their manifests, blobs and tags.
#[derive(Default)]
pub struct Offers {
    /// Every digest that a link names, sorted.
    digests: Box<[Digest]>,
    /// For each of them the first repository that offers it as a manifest.
    manifest_in: Box<[u32]>,
    /// By name.
    repositories: Box<[Held]>,
    /// Made when it is asked for first, once, while others wait: it takes reading every manifest.
    referrers: Mutex<Option<Arc<ReferrerIndex>>>,
}

/// A repository; digests by their places in the list, sorted, which is their own order.
struct Held {
    name: Repository,
    layers: Box<[u32]>,
    manifests: Box<[u32]>,
    tags: Box<[(Tag, u32)]>,
}

/// What one repository offers.
#[derive(Clone, Copy)]
pub struct Offered<'a> {
    held: &'a Held,
    digests: &'a [Digest],
}

/// Gathers [`Offers`] from links in whichever order they come.
#[derive(Default)]
pub(super) struct Links {
    digests: HashMap<Digest, u32>,
    names: HashMap<Repository, u32>,
    /// By the number of the name.
    gathered: Vec<Gathered>,
    /// The repository of the last link: most follow another of the same.
    last: Option<(String, u32)>,
}

#[derive(Default)]
struct Gathered {
    layers: Vec<u32>,
    manifests: Vec<u32>,
    tags: Vec<(Tag, u32)>,
}

impl Links {
    /// Takes in a link by its path in docker-distribution storage; other paths are passed over.
    pub(super) fn add(&mut self, path: &str, digest: &Digest) {
        let Some(rest) = path.strip_prefix(STORAGE_ROOT).and_then(|p| p.strip_prefix("/repositories/")) else { return };
        if let Some((name, _)) = rest.split_once("/_layers/") {
            self.in_repository(name, digest, |gathered, digest| gathered.layers.push(digest));
        } else if let Some((name, _)) = rest.split_once("/_manifests/revisions/") {
            self.in_repository(name, digest, |gathered, digest| gathered.manifests.push(digest));
        } else if let Some((name, tag)) = rest.split_once("/_manifests/tags/")
            && let Some(tag) = tag.strip_suffix("/current/link")
            && let Ok(tag) = Tag::new(tag)
        {
            self.in_repository(name, digest, |gathered, digest| gathered.tags.push((tag, digest)));
        }
    }

    fn in_repository(&mut self, name: &str, digest: &Digest, add: impl FnOnce(&mut Gathered, u32)) {
        let number = match &self.last {
            Some((last, number)) if last == name => *number,
            _ => {
                let Ok(repository) = Repository::new(name) else { return };
                let number = number_of(&mut self.names, repository);
                self.last = Some((name.to_owned(), number));
                number
            }
        } as usize;
        if number == self.gathered.len() {
            self.gathered.push(Gathered::default());
        }
        let digest = match self.digests.get(digest) {
            Some(known) => *known,
            None => number_of(&mut self.digests, digest.clone()),
        };
        add(&mut self.gathered[number], digest);
    }

    /// Whether no link said anything.
    pub(super) fn is_empty(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Puts everything in order.
    pub(super) fn finish(self) -> Offers {
        let mut digests: Vec<(Digest, u32)> = self.digests.into_iter().collect();
        digests.sort_unstable();
        let mut place_of = vec![0u32; digests.len()];
        for (place, (_, number)) in digests.iter().enumerate() {
            place_of[*number as usize] = place as u32;
        }
        let placed = |list: Vec<u32>| {
            let mut list: Vec<u32> = list.into_iter().map(|number| place_of[number as usize]).collect();
            list.sort_unstable();
            list.dedup();
            list.into_boxed_slice()
        };
        let mut repositories: Vec<Held> = in_order(self.names)
            .into_iter()
            .zip(self.gathered)
            .map(|(name, gathered)| Held {
                name,
                layers: placed(gathered.layers),
                manifests: placed(gathered.manifests),
                tags: tags(gathered.tags, &place_of),
            })
            .collect();
        repositories.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut manifest_in = vec![NOWHERE; digests.len()].into_boxed_slice();
        for (number, held) in repositories.iter().enumerate().rev() {
            for digest in &held.manifests {
                manifest_in[*digest as usize] = number as u32;
            }
        }
        Offers {
            digests: digests.into_iter().map(|(digest, _)| digest).collect(),
            manifest_in,
            repositories: repositories.into_boxed_slice(),
            referrers: Mutex::default(),
        }
    }
}

/// Sorted; the last link of a tag counts.
fn tags(mut list: Vec<(Tag, u32)>, place_of: &[u32]) -> Box<[(Tag, u32)]> {
    list.reverse();
    list.sort_by(|a, b| a.0.cmp(&b.0));
    list.dedup_by(|next, kept| next.0 == kept.0);
    for (_, digest) in &mut list {
        *digest = place_of[*digest as usize];
    }
    list.into_boxed_slice()
}

impl Offers {
    fn place(&self, digest: &Digest) -> Option<u32> {
        self.digests.binary_search(digest).ok().map(|place| place as u32)
    }

    /// What each repository offers, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Offered<'_>> {
        self.repositories.iter().map(|held| Offered { held, digests: &self.digests })
    }

    /// What a repository offers; `None` when there is no such repository.
    pub fn get(&self, repository: &Repository) -> Option<Offered<'_>> {
        let at = self.repositories.binary_search_by(|held| held.name.cmp(repository)).ok()?;
        Some(Offered { held: &self.repositories[at], digests: &self.digests })
    }

    /// The first repository that offers a manifest.
    pub fn repository_of_manifest(&self, digest: &Digest) -> Option<&Repository> {
        let number = self.manifest_in[self.place(digest)? as usize];
        self.repositories.get(number as usize).map(|held| &held.name)
    }

    /// As [`Storage::repositories`].
    pub(super) fn repositories(&self) -> Vec<Repository> {
        self.repositories.iter().filter(|held| !held.manifests.is_empty()).map(|held| held.name.clone()).collect()
    }

    /// As [`Storage::tags`].
    pub(super) fn tags(&self, repository: &Repository) -> Option<Vec<Tag>> {
        Some(self.get(repository)?.tags().map(|(tag, _)| tag.clone()).collect())
    }

    /// As [`Storage::manifests`].
    pub(super) fn manifests(&self, repository: &Repository) -> Option<Vec<Digest>> {
        Some(self.get(repository)?.manifests().cloned().collect())
    }

    /// The manifest that a repository has under a name.
    pub(super) fn manifest(&self, repository: &Repository, at: &ManifestName) -> Option<&Digest> {
        let held = self.get(repository)?.held;
        let place = match at {
            ManifestName::Digest(digest) => {
                let place = self.place(digest)?;
                held.manifests.binary_search(&place).ok().map(|_| place)?
            }
            ManifestName::Tag(tag) => held.tags[held.tags.binary_search_by(|(t, _)| t.cmp(tag)).ok()?].1,
        };
        self.digests.get(place as usize)
    }

    /// Whether a repository serves this content, a manifest or another blob.
    pub fn has(&self, repository: &Repository, digest: &Digest) -> bool {
        let Some((offered, place)) = self.get(repository).zip(self.place(digest)) else { return false };
        [&offered.held.layers, &offered.held.manifests].iter().any(|list| list.binary_search(&place).is_ok())
    }

    /// As [`Storage::referrers`]; the manifests are read from `storage`.
    pub(super) fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        storage: &dyn Storage,
    ) -> Result<Vec<Descriptor>, Error> {
        let index = {
            let mut made = self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
            match &*made {
                Some(index) => Arc::clone(index),
                None => {
                    let manifests = self.iter().map(|offered| (&offered.held.name, offered.manifests()));
                    let index = Arc::new(referrer_index(manifests, storage)?);
                    *made = Some(Arc::clone(&index));
                    index
                }
            }
        };
        Ok(index.get(&(repository.clone(), subject.clone())).cloned().unwrap_or_default())
    }
}

impl<'a> Offered<'a> {
    /// Whose it is.
    pub fn name(&self) -> &'a Repository {
        &self.held.name
    }

    /// Configs, layers, artifact blobs, sorted.
    pub fn layers(&self) -> impl Iterator<Item = &'a Digest> + use<'a> {
        let digests = self.digests;
        self.held.layers.iter().map(move |place| &digests[*place as usize])
    }

    /// Manifests, sorted by digest.
    pub fn manifests(&self) -> impl Iterator<Item = &'a Digest> + use<'a> {
        let digests = self.digests;
        self.held.manifests.iter().map(move |place| &digests[*place as usize])
    }

    /// Tags and what they point at, sorted by name.
    pub fn tags(&self) -> impl Iterator<Item = (&'a Tag, &'a Digest)> + use<'a> {
        let digests = self.digests;
        self.held.tags.iter().map(move |(tag, place)| (tag, &digests[*place as usize]))
    }

    /// Whether a tag is there.
    pub fn has_tag(&self, tag: &Tag) -> bool {
        self.held.tags.binary_search_by(|(t, _)| t.cmp(tag)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::layout::{layer_link, revision_link, tag_index_link, tag_link};
    use super::*;

    type Expected = BTreeMap<Repository, (BTreeSet<Digest>, BTreeSet<Digest>, BTreeMap<Tag, Digest>)>;

    /// Links in an order of their own, some twice, some that say nothing.
    fn links() -> (Links, Expected) {
        let (mut links, mut expected) = (Links::default(), Expected::new());
        let mut state = 7_u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..3000 {
            let repository = Repository::new(&format!("team{}/product{}", next(5), next(9))).unwrap();
            let digest = Digest::of(&next(200).to_le_bytes());
            let tag = Tag::new(&format!("v{}", next(4))).unwrap();
            let entry = expected.entry(repository.clone()).or_default();
            match next(4) {
                0 => {
                    links.add(&layer_link(&repository, &digest), &digest);
                    entry.0.insert(digest);
                }
                1 => {
                    links.add(&revision_link(&repository, &digest), &digest);
                    entry.1.insert(digest);
                }
                2 => {
                    links.add(&tag_link(&repository, &tag), &digest);
                    entry.2.insert(tag, digest);
                }
                _ => {
                    links.add(&tag_index_link(&repository, &tag, &digest), &digest);
                    links.add(&layer_link(&repository, &digest).replace("/team", "/Team"), &digest);
                    links.add("docker/registry/v2/blobs/link", &digest);
                }
            }
        }
        expected.retain(|_, (layers, manifests, tags)| !(layers.is_empty() && manifests.is_empty() && tags.is_empty()));
        (links, expected)
    }

    #[test]
    fn offers_are_what_sorted_sets_of_the_links_are() {
        let (links, expected) = links();
        let offers = links.finish();
        assert_eq!(offers.iter().len(), expected.len());
        for (offered, (name, (layers, manifests, tags))) in offers.iter().zip(&expected) {
            assert_eq!(offered.name(), name);
            assert!(offered.layers().eq(layers) && offered.manifests().eq(manifests) && offered.tags().eq(tags));
            for number in 0..210_u64 {
                let digest = Digest::of(&number.to_le_bytes());
                assert_eq!(offers.has(name, &digest), layers.contains(&digest) || manifests.contains(&digest));
                let at = ManifestName::Digest(digest.clone());
                assert_eq!(offers.manifest(name, &at), manifests.get(&digest));
                let first = expected.iter().find(|(_, e)| e.1.contains(&digest)).map(|(name, _)| name);
                assert_eq!(offers.repository_of_manifest(&digest), first);
            }
            for tag in ["v0", "v1", "v2", "v3", "v4"].map(|tag| Tag::new(tag).unwrap()) {
                assert_eq!(offers.manifest(name, &ManifestName::Tag(tag.clone())), tags.get(&tag));
                assert_eq!(offered.has_tag(&tag), tags.contains_key(&tag));
            }
        }
        let nobody = Repository::new("nobody").unwrap();
        assert!(offers.get(&nobody).is_none() && offers.tags(&nobody).is_none() && offers.manifests(&nobody).is_none());
        assert!(!offers.has(&nobody, &Digest::of(b"")));
    }
}
