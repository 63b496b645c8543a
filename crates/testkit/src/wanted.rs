//! What must lie in a target when an image set was mirrored, worked out from the world's own inventory and not by any code of
//! ours, and the comparison with what does lie there.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::contents::{Contents, Held};
use crate::world::{Expected, World};

/// The content that an image set stands for, by repository below the destination.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    repositories: BTreeMap<String, Held>,
    /// By repository and subject: what refers to it.
    referrers: BTreeMap<(String, String), BTreeSet<String>>,
}

/// Walks the manifests of one repository of the world.
struct Walk<'a> {
    world: &'a World,
    source: &'a str,
    /// Keeps of an index only children of these `os/arch` pairs; everything when empty.
    platforms: &'a [&'a str],
    held: Held,
}

impl Wanted {
    /// Everything that `expected` stands for: manifests, their children and blobs, cosign signatures, and what refers to them.
    pub fn of(world: &World, expected: &Expected) -> Self {
        Self::of_platforms(world, expected, &[])
    }

    /// As [`Wanted::of`], with of every index only the children of `platforms` (`linux/amd64`).
    ///
    /// # Panics
    /// When the world contradicts itself.
    pub fn of_platforms(world: &World, expected: &Expected, platforms: &[&str]) -> Self {
        let mut wanted = Self::default();
        for image in &expected.images {
            let source = source(&image.reference);
            let repo = world.inventory().repos.get(source).unwrap_or_else(|| panic!("the world has no {source}"));
            let mut walk = Walk { world, source, platforms, held: Held::default() };
            walk.manifest(&image.digest);
            let carried: Vec<_> = walk.held.manifests.iter().cloned().collect();
            let mut signatures = BTreeMap::new();
            let mut referrers = Vec::new();
            for digest in &carried {
                let tag = format!("{}.sig", digest.replace(':', "-"));
                if let Some(signature) = repo.tags.get(&tag) {
                    walk.manifest(signature);
                    signatures.insert(tag, signature.clone());
                }
                for candidate in repo.manifests.keys() {
                    if subject(&world.manifest(candidate)).as_ref() == Some(digest) {
                        walk.manifest(candidate);
                        referrers.push((digest.clone(), candidate.clone()));
                    }
                }
            }
            for dest in &image.dest {
                let (repository, tag) = dest.rsplit_once(':').expect("a destination has a tag");
                let held = wanted.repositories.entry(repository.to_owned()).or_default();
                held.manifests.extend(walk.held.manifests.iter().cloned());
                held.layers.extend(walk.held.layers.iter().cloned());
                held.tags.extend(signatures.clone());
                held.tags.insert(tag.to_owned(), image.digest.clone());
                for (subject, referrer) in &referrers {
                    let key = (repository.to_owned(), subject.clone());
                    wanted.referrers.entry(key).or_default().insert(referrer.clone());
                }
            }
        }
        wanted
    }

    /// Takes an image in that no upstream has: `digest` under `tag` in `repository`, with all that its manifests name, as `manifest` reads them.
    ///
    /// # Panics
    /// When something is no manifest.
    pub fn include(&mut self, repository: &str, tag: &str, digest: &str, manifest: impl Fn(&str) -> Vec<u8>) {
        let held = self.repositories.entry(repository.to_owned()).or_default();
        held.tags.insert(tag.to_owned(), digest.to_owned());
        let mut open = vec![digest.to_owned()];
        while let Some(digest) = open.pop() {
            let value: Value = serde_json::from_slice(&manifest(&digest)).expect("it is a manifest");
            let named = |field: &str| -> Vec<String> {
                let list = value[field].as_array().into_iter().flatten();
                list.filter_map(|d| d["digest"].as_str()).map(str::to_owned).collect()
            };
            open.extend(named("manifests"));
            held.layers.extend(named("layers"));
            held.layers.extend(value["config"]["digest"].as_str().map(str::to_owned));
            held.manifests.insert(digest);
        }
    }

    /// Every wanted manifest.
    pub fn manifests(&self) -> BTreeSet<String> {
        self.repositories.values().flat_map(|held| &held.manifests).cloned().collect()
    }

    /// Whether anything wanted refers to something else by its subject.
    pub fn has_referrers(&self) -> bool {
        !self.referrers.is_empty()
    }

    /// Whether any wanted tag is a cosign signature.
    pub fn has_signatures(&self) -> bool {
        self.repositories.values().any(|held| held.tags.keys().any(|tag| tag.ends_with(".sig")))
    }

    /// Every difference to what lies below `prefix` (empty, or `a/b`) and beside it, one sentence each; none when all is there and nothing else.
    ///
    /// `fallback_tags` says that the target has no referrers API: then each subject must have its fallback tag, on an index that names
    /// all that refers to it, which is the only content allowed that the world does not know.
    pub fn differences(
        &self,
        contents: &Contents,
        manifest: impl Fn(&str) -> Vec<u8>,
        prefix: &str,
        fallback_tags: bool,
    ) -> Vec<String> {
        let mut wanted = self.placed(prefix);
        let mut found = Vec::new();
        if fallback_tags {
            self.expect_fallbacks(&mut wanted, contents, &manifest, prefix, &mut found);
        }
        let nothing = Held::default();
        let mut blobs = BTreeSet::new();
        for name in wanted.keys().chain(contents.repositories.keys()).collect::<BTreeSet<_>>() {
            let (want, have) =
                (wanted.get(name).unwrap_or(&nothing), contents.repositories.get(name).unwrap_or(&nothing));
            sets(&mut found, &format!("{name}: manifest"), &want.manifests, &have.manifests);
            sets(&mut found, &format!("{name}: blob"), &want.layers, &have.layers);
            let tags = |held: &Held| held.tags.iter().map(|(tag, digest)| format!("{tag} -> {digest}")).collect();
            sets(&mut found, &format!("{name}: tag"), &tags(want), &tags(have));
            blobs.extend(want.manifests.iter().chain(&want.layers).cloned());
        }
        sets(&mut found, "stored bytes", &blobs, &contents.blobs.keys().cloned().collect());
        found.extend(contents.uploads.iter().map(|path| format!("an unfinished upload is left: {}", path.display())));
        found
    }

    /// Every wanted manifest whose bytes at the target are not upstream's.
    pub fn altered(&self, world: &World, manifest: impl Fn(&str) -> Vec<u8>) -> Vec<String> {
        let all: BTreeSet<_> = self.repositories.values().flat_map(|held| &held.manifests).collect();
        all.into_iter().filter(|digest| manifest(digest) != world.manifest(digest)).cloned().collect()
    }

    fn placed(&self, prefix: &str) -> BTreeMap<String, Held> {
        self.repositories.iter().map(|(name, held)| (join(prefix, name), held.clone())).collect()
    }

    fn expect_fallbacks(
        &self,
        wanted: &mut BTreeMap<String, Held>,
        contents: &Contents,
        manifest: &impl Fn(&str) -> Vec<u8>,
        prefix: &str,
        found: &mut Vec<String>,
    ) {
        for ((repository, subject), referrers) in &self.referrers {
            let name = join(prefix, repository);
            let tag = subject.replace(':', "-");
            let Some(digest) = contents.repositories.get(&name).and_then(|held| held.tags.get(&tag)) else {
                found.push(format!("{name}: the fallback tag {tag} is absent"));
                continue;
            };
            let index: Value = serde_json::from_slice(&manifest(digest)).expect("a fallback index is JSON");
            let listed: BTreeSet<_> = entries(&index).map(str::to_owned).collect();
            sets(found, &format!("{name}:{tag}: referrer"), referrers, &listed);
            let held = wanted.get_mut(&name).expect("a referrer lies in a wanted repository");
            held.tags.insert(tag, digest.clone());
            held.manifests.insert(digest.clone());
            // Referrers that come one by one leave the shorter indexes that the tag has moved on from; a registry's garbage collection
            // takes them.
            let there = &contents.repositories[&name].manifests;
            let moved_on = |digest: &&String| is_shorter(&manifest(digest), referrers);
            held.manifests.extend(there.iter().filter(moved_on).cloned());
        }
    }
}

impl Walk<'_> {
    fn manifest(&mut self, digest: &str) {
        if !self.held.manifests.insert(digest.to_owned()) {
            return;
        }
        let repo = &self.world.inventory().repos[self.source];
        let value: Value = serde_json::from_slice(&self.world.manifest(digest)).expect("a manifest is JSON");
        for child in value["manifests"].as_array().into_iter().flatten() {
            if self.keeps(&child["platform"]) {
                self.manifest(child["digest"].as_str().expect("a child has a digest"));
            }
        }
        let layers = value["layers"].as_array().into_iter().flatten();
        for blob in layers.chain(value.get("config")) {
            let digest = blob["digest"].as_str().expect("a blob has a digest").to_owned();
            // Foreign layers are not served by the repository; only the manifest names them.
            if repo.blobs.contains(&digest) {
                self.held.layers.insert(digest);
            }
        }
    }

    fn keeps(&self, platform: &Value) -> bool {
        let text = |field: &str| platform[field].as_str().unwrap_or_default();
        self.platforms.is_empty()
            || self.platforms.contains(&format!("{}/{}", text("os"), text("architecture")).as_str())
    }
}

/// `host/path` of a reference that names its host.
fn source(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

fn subject(manifest: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(manifest).ok()?;
    Some(value["subject"]["digest"].as_str()?.to_owned())
}

/// Whether these bytes are an index of some of `referrers` and of nothing else.
fn is_shorter(bytes: &[u8], referrers: &BTreeSet<String>) -> bool {
    let Ok(index) = serde_json::from_slice::<Value>(bytes) else { return false };
    let mut listed = entries(&index).peekable();
    listed.peek().is_some() && listed.all(|digest| referrers.contains(digest))
}

fn entries(index: &Value) -> impl Iterator<Item = &str> {
    index["manifests"].as_array().into_iter().flatten().filter_map(|entry| entry["digest"].as_str())
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

fn sets(found: &mut Vec<String>, what: &str, want: &BTreeSet<String>, have: &BTreeSet<String>) {
    found.extend(want.difference(have).map(|one| format!("{what} {one} is absent")));
    found.extend(have.difference(want).map(|one| format!("{what} {one} is there and nothing asked for it")));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_loses_tag_and_digest_but_no_port() {
        assert_eq!(source("quay.io/a/b:v1"), "quay.io/a/b");
        assert_eq!(source("quay.io/a/b:v1@sha256:00"), "quay.io/a/b");
        assert_eq!(source("host:5000/a/b@sha256:00"), "host:5000/a/b");
        assert_eq!(source("host:5000/a/b"), "host:5000/a/b");
    }

    #[test]
    fn what_is_absent_and_what_is_extra_is_named() {
        let held = Held { manifests: ["sha256:a".to_owned()].into(), ..Held::default() };
        let wanted = Wanted { repositories: [("x/y".to_owned(), held.clone())].into(), ..Wanted::default() };
        let mut contents = Contents { repositories: [("p/x/y".to_owned(), held)].into(), ..Contents::default() };
        contents.blobs.insert("sha256:a".to_owned(), 1);
        assert_eq!(wanted.differences(&contents, |_| Vec::new(), "p", true), Vec::<String>::new());
        contents.blobs.insert("sha256:b".to_owned(), 1);
        let found = wanted.differences(&contents, |_| Vec::new(), "p", true);
        assert_eq!(found, ["stored bytes sha256:b is there and nothing asked for it"]);
        assert_eq!(wanted.differences(&Contents::default(), |_| Vec::new(), "p", true).len(), 2);
    }
}
