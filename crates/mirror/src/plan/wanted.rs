//! What a configuration asks for, image by image, before any of it has been looked at.

use airlock_oci::{Digest, Error, ErrorKind, Platform, Reference, Registry, Repository, Tag};

use super::model::{Kind, Reason};
use super::naming::{LAYOUT_REGISTRY, repository_of};
use crate::config::{ImageLocation, Loaded};

/// An image that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As written.
    pub name: String,
    /// What the source is asked by.
    pub source: Reference,
    pub kind: Kind,
    pub reasons: Vec<Reason>,
    pub repository: Repository,
    /// The tag at the destination, where the configuration or the name gives one.
    pub tag: Option<Tag>,
    pub platforms: Vec<Platform>,
    /// Images without which it is of no use.
    pub needs: Vec<Reference>,
    /// A catalog as published, for an archive only.
    pub original: bool,
    /// What the name stood for when its content was read: it is that which is carried.
    pub pinned: Option<Digest>,
}

impl Wanted {
    /// An image without anything special about it.
    pub(crate) fn new(
        name: String,
        source: Reference,
        kind: Kind,
        reasons: Vec<Reason>,
        repository: Repository,
    ) -> Self {
        Self {
            tag: source.tag().cloned(),
            name,
            source,
            kind,
            reasons,
            repository,
            platforms: Vec::new(),
            needs: Vec::new(),
            original: false,
            pinned: None,
        }
    }
}

/// The file name of a configuration, for reasons.
pub(super) fn file_name(loaded: &Loaded) -> String {
    loaded.path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// `additionalImages`, in their order. Sections that this version does not carry are refused by name.
pub(super) fn wanted(loaded: &Loaded) -> Result<Vec<Wanted>, Error> {
    let content = &loaded.config.mirror;
    let file = file_name(loaded);
    let first_chart = content.helm.repositories.first().map(|r| r.line).or(content.helm.local.first().map(|c| c.line));
    for (section, line) in [("mirror.helm", first_chart)] {
        if let Some(line) = line {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("plan {}:{line}", loaded.path.display()),
                format!("`{section}` is not yet supported by this version; `mirror.platform`, `mirror.operators` and `mirror.additionalImages` are"),
            )
            .hint(format!(
                "take `{section}` out of this configuration, or mirror it with another tool until a later version"
            )));
        }
    }
    let mut all = Vec::new();
    for image in &content.additional_images {
        let repository = match &image.target_repo {
            Some(repository) => repository.clone(),
            None => repository_of(&image.name)?,
        };
        let source = match &image.name.location {
            ImageLocation::Registry(reference) => reference.clone(),
            ImageLocation::Layout(_) => layout_reference(&image.name.text)?,
        };
        let reasons = vec![Reason { file: file.clone(), line: image.line, what: "additionalImages".into() }];
        let mut wanted = Wanted::new(image.name.text.clone(), source, Kind::Additional, reasons, repository);
        wanted.tag = image.target_tag.clone().or(wanted.tag);
        wanted.platforms.clone_from(&image.platforms);
        all.push(wanted);
    }
    Ok(all)
}

/// A layout on disk has no registry; inside a plan it is known as `oci-layout.localhost/layout-<digest of the path>:latest`, or with
/// the tag that stands behind the path.
pub(crate) fn layout_reference(text: &str) -> Result<Reference, Error> {
    let registry =
        Registry::new(LAYOUT_REGISTRY).map_err(|e| Error::new(ErrorKind::Invalid, format!("name `{text}`"), e))?;
    // A path may hold what no repository's name can, so the key is a digest of it: two paths are never one.
    let key = format!("layout-{}", &Digest::of(text.as_bytes()).hex()[..32]);
    let repository = Repository::new(&key).map_err(|e| Error::new(ErrorKind::Invalid, format!("name `{text}`"), e))?;
    let named = text.strip_prefix("oci://").and_then(crate::config::layout_tag).map(|(_, tag)| tag);
    Ok(Reference::new(registry, repository, named.or(Tag::new("latest").ok()), None))
}
