//! Where an import comes from: another registry, registry storage, archives, OCI layouts. Each says which repositories it has, and
//! is read as a [`Source`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_client::{Client, RegistrySource};
use airlock_oci::{Digest, Error, ErrorKind, Forward, Reference, Registry, Repository, Source, Tag};
use airlock_store::archive::reader::parts_in;
use airlock_store::distribution::Directory;
use airlock_store::oci_layout::{Layout, REF_NAME};
use airlock_store::{Storage, StorageSource};
use futures_util::StreamExt;

use super::pattern::Filter;
use crate::archives::{ArchiveSource, Archives};
use crate::plan::{Attachments, Cache};
use crate::sources::Cached;

/// What stands for places on disk where a reference has a host.
const DISK: &str = "import.localhost";
/// Repositories whose tags are asked for at once.
const PARALLEL_LISTS: usize = 8;
/// How deep below a folder layouts are looked for: as many components as a name may have.
const MAX_DEPTH: usize = 128;

/// Says where a file with a blob's bytes may lie.
pub type Files = Arc<dyn Fn(&Digest) -> Option<PathBuf> + Send + Sync>;

/// Where an import comes from.
pub struct Origin {
    pub(super) name: String,
    pub(super) source: Arc<dyn Source>,
    /// The same without what is at hand from other repositories: an index may be sparse in one and whole in another.
    pub(super) place: Arc<dyn Source>,
    pub(super) cache: Arc<Cache>,
    pub(super) repositories: Vec<Listed>,
    /// What an image has attached that does not come by itself.
    pub(super) attachments: Attachments,
    /// Repositories that could not be looked into.
    pub(super) failures: Vec<(String, Error)>,
    files: Option<Files>,
}

/// A repository, as far as its place tells at once.
pub(super) struct Listed {
    pub repository: Repository,
    pub name: Reference,
    /// Tags, with what they point at where that is known.
    pub tags: BTreeMap<Tag, Option<Digest>>,
    /// Manifests that are known by digest, tagged or not.
    pub manifests: Vec<Digest>,
}

/// Layouts, each as the repository that its folder is named for.
struct Layouts(BTreeMap<Repository, Arc<Layout>>);

impl Forward for Layouts {
    fn describe(&self) -> String {
        "OCI layouts".into()
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        match self.0.get(name.repository()) {
            Some(layout) => Ok((layout.clone(), name.clone())),
            None => Err(Error::new(ErrorKind::NotFound, format!("read `{name}`"), "there is no such layout")),
        }
    }
}

impl Origin {
    /// For messages and records.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Files of blobs that can be linked, if there are any.
    pub fn files(&self) -> Option<Files> {
        self.files.clone()
    }

    /// Another registry, or what lies below a path there. Its catalog tells which repositories it has; where it has none, those are taken
    /// that `filter` or `below` name.
    pub async fn registry(
        client: &Client,
        registry: &Registry,
        below: Option<&Repository>,
        filter: &Filter,
        cache: Arc<Cache>,
    ) -> Result<Self, Error> {
        let place: Arc<dyn Source> = Arc::new(RegistrySource::new(client.clone()));
        let source: Arc<dyn Source> = Arc::new(Cached { cache: Arc::clone(&cache), source: Arc::clone(&place) });
        let name = below.map_or_else(|| format!("docker://{registry}"), |path| format!("docker://{registry}/{path}"));
        let is_below = |repository: &Repository| {
            below.is_none_or(|path| {
                let rest = repository.as_str().strip_prefix(path.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let catalog = client.catalog(registry).await;
        let mut wanted: Vec<Repository> = filter.names();
        wanted.extend(below.filter(|path| filter.takes(path)).cloned());
        let wanted = wanted.into_iter().filter(|r| is_below(r));
        let (names, certain) = match catalog {
            Ok(all) => {
                let all: Vec<Repository> = all.into_iter().filter(|r| is_below(r) && filter.takes(r)).collect();
                // Some registries list only a part of what they have, or nothing.
                if all.is_empty() { (wanted.collect(), false) } else { (all, true) }
            }
            Err(error) => {
                let names: Vec<Repository> = wanted.collect();
                if names.is_empty() {
                    return Err(error.hint(
                        "this registry does not tell which repositories it has: name them, each with an --include, or one behind \
                         docker://HOST/",
                    ));
                }
                (names, false)
            }
        };
        let mut names: Vec<Repository> = names;
        names.sort();
        names.dedup();
        let listed = futures_util::stream::iter(names)
            .map(|repository| {
                let source = Arc::clone(&source);
                async move {
                    let name = Reference::new(registry.clone(), repository.clone(), None, None);
                    (repository, source.tags(&name).await, name)
                }
            })
            .buffered(PARALLEL_LISTS)
            .collect::<Vec<_>>()
            .await;
        let (mut repositories, mut failures) = (Vec::new(), Vec::new());
        for (repository, tags, name) in listed {
            match tags {
                Ok(tags) => {
                    let tags = tags.into_iter().map(|tag| (tag, None)).collect();
                    repositories.push(Listed { repository, name, tags, manifests: Vec::new() });
                }
                // A catalog keeps the names of repositories from which everything was deleted.
                Err(error) if certain && error.kind() == ErrorKind::NotFound => {}
                Err(error) => failures.push((repository.to_string(), error)),
            }
        }
        let attachments = Attachments::Referrers;
        Ok(Self { name, source, place, cache, repositories, attachments, failures, files: None })
    }

    /// What lies in a folder, or in several folders with archives. `name` is the repository of a layout that has no name of its own.
    /// Blocks.
    pub fn disk(paths: &[PathBuf], name: Option<&Repository>, filter: &Filter) -> Result<Self, Error> {
        let mut origin = match paths {
            [path] if path.join("docker/registry/v2").is_dir() => Self::storage(path)?,
            [path] if !has_parts(path) => Self::layouts(path, name)?,
            _ => Self::archives(paths)?,
        };
        origin.repositories.retain(|listed| filter.takes(&listed.repository));
        Ok(origin)
    }

    fn on_disk(name: String, source: Arc<dyn Source>, repositories: Vec<Listed>) -> Self {
        let (cache, attachments) = (Arc::new(Cache::none()), Attachments::None);
        let place = Arc::clone(&source);
        Self { name, source, place, cache, repositories, attachments, failures: Vec::new(), files: None }
    }

    /// docker-distribution's storage, whoever wrote it.
    fn storage(path: &Path) -> Result<Self, Error> {
        let directory = Arc::new(Directory::open(path)?);
        let mut repositories = Vec::new();
        for repository in directory.repositories()? {
            let name = reference(&repository)?;
            let tags = directory.targets(&repository)?.into_iter().map(|(tag, digest)| (tag, Some(digest))).collect();
            let manifests = directory.manifests(&repository)?.unwrap_or_default();
            repositories.push(Listed { repository, name, tags, manifests });
        }
        let source = Arc::new(StorageSource::new(Arc::clone(&directory)));
        let mut origin = Self::on_disk(path.display().to_string(), source, repositories);
        origin.files = Some(Arc::new(move |digest| directory.file(digest)));
        Ok(origin)
    }

    /// Archives, ours or oc-mirror's.
    fn archives(paths: &[PathBuf]) -> Result<Self, Error> {
        let archives = Arc::new(Archives::open(paths)?);
        let mut repositories = Vec::new();
        for (repository, contents) in archives.contents()? {
            let name = reference(&repository)?;
            let tags = contents.tags.into_iter().map(|(tag, digest)| (tag, Some(digest))).collect();
            repositories.push(Listed { repository, name, tags, manifests: contents.manifests.into_iter().collect() });
        }
        let name = Storage::describe(archives.as_ref());
        Ok(Self::on_disk(name, Arc::new(ArchiveSource(archives)), repositories))
    }

    /// One layout, or folders of layouts as zot keeps them.
    fn layouts(path: &Path, name: Option<&Repository>) -> Result<Self, Error> {
        let mut found = BTreeMap::new();
        if path.join("oci-layout").is_file() {
            let layout = Layout::open(path)?;
            let own = match name {
                Some(name) => Some(name.clone()),
                None => layout.repositories()?.into_iter().next(),
            };
            found.extend(own.map(|own| (own, Arc::new(layout))));
        } else {
            find_layouts(path, "", 0, &mut found)?;
        }
        if found.is_empty() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("import from `{}`", path.display()),
                "it holds neither registry storage (docker/registry/v2), nor archives (mirror_000001.tar), nor OCI layouts",
            )
            .hint("for a registry write docker://HOST; its storage is what it is configured with as `rootdirectory`"));
        }
        let mut repositories: BTreeMap<Repository, Listed> = BTreeMap::new();
        let mut layouts = BTreeMap::new();
        let mut roots = Vec::new();
        for (folder, layout) in found {
            roots.push(layout.root().to_owned());
            for descriptor in layout.manifests() {
                // A name may be a tag, or the whole reference that it was copied from.
                let written = descriptor.annotations.get(REF_NAME);
                let tag = written.and_then(|text| Tag::new(text).ok());
                // A tag alone would read as an image of Docker Hub.
                let whole = written.filter(|_| tag.is_none()).and_then(|text| text.parse::<Reference>().ok());
                let (repository, tag) = match whole {
                    Some(whole) if name.is_none() => (whole.repository().clone(), whole.tag().cloned()),
                    Some(whole) => (folder.clone(), whole.tag().cloned()),
                    None => (folder.clone(), tag),
                };
                let listed = match repositories.entry(repository.clone()) {
                    std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Listed {
                        name: reference(&repository)?,
                        repository: repository.clone(),
                        tags: BTreeMap::new(),
                        manifests: Vec::new(),
                    }),
                };
                listed.tags.extend(tag.map(|tag| (tag, Some(descriptor.digest.clone()))));
                listed.manifests.push(descriptor.digest.clone());
                layouts.entry(repository).or_insert_with(|| Arc::clone(&layout));
            }
        }
        let repositories = repositories.into_values().collect();
        let mut origin = Self::on_disk(path.display().to_string(), Arc::new(Layouts(layouts)), repositories);
        origin.attachments = Attachments::Referrers;
        origin.files = Some(Arc::new(move |digest| {
            let below = format!("blobs/{}/{}", digest.algorithm(), digest.hex());
            roots.iter().map(|root| root.join(&below)).find(|path| path.is_file())
        }));
        Ok(origin)
    }
}

fn has_parts(path: &Path) -> bool {
    parts_in(path).is_ok()
}

fn reference(repository: &Repository) -> Result<Reference, Error> {
    let registry =
        Registry::new(DISK).map_err(|e| Error::new(ErrorKind::Invalid, format!("name `{repository}`"), e))?;
    Ok(Reference::new(registry, repository.clone(), None, None))
}

/// The layouts below a folder, by their paths; what is no name of a repository is passed over.
fn find_layouts(
    path: &Path,
    name: &str,
    depth: usize,
    found: &mut BTreeMap<Repository, Arc<Layout>>,
) -> Result<(), Error> {
    let failed = |e: &std::io::Error| {
        Error::io(format!("read directory `{}`", path.display()), e)
            .hint("a source is docker://HOST, or a directory that exists and may be read")
    };
    for entry in std::fs::read_dir(path).map_err(|e| failed(&e))? {
        let entry = entry.map_err(|e| failed(&e))?;
        let Ok(component) = entry.file_name().into_string() else { continue };
        // Links to folders are not followed: none leads outside, none in a circle.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth >= MAX_DEPTH {
            continue;
        }
        let below = if name.is_empty() { component } else { format!("{name}/{component}") };
        let Ok(repository) = Repository::new(&below) else { continue };
        let folder = entry.path();
        if folder.join("oci-layout").is_file() {
            found.insert(repository, Arc::new(Layout::open(&folder)?));
        }
        // In zot a repository may lie within another's folder.
        find_layouts(&folder, &below, depth + 1, found)?;
    }
    Ok(())
}
