//! A [`Source`] over any [`Storage`]: logical references in, the storage's repositories asked on blocking threads.

use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Reference, Repository, Source, Tag,
};
use async_trait::async_trait;

use crate::Storage;

type Names = dyn Fn(&Reference) -> Repository + Send + Sync;

/// Content on a local disk, asked by logical reference.
pub struct StorageSource<S: ?Sized> {
    storage: Arc<S>,
    names: Arc<Names>,
}

/// Runs disk work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(Error::new(ErrorKind::Interrupted, "read from disk", "the program is stopping")),
    }
}

impl<S: Storage + ?Sized + 'static> StorageSource<S> {
    /// Looks references up under their path, whatever their registry.
    pub fn new(storage: Arc<S>) -> Self {
        Self::with_names(storage, |reference| reference.repository().clone())
    }

    /// Looks references up under the repository that `names` gives.
    pub fn with_names(storage: Arc<S>, names: impl Fn(&Reference) -> Repository + Send + Sync + 'static) -> Self {
        Self { storage, names: Arc::new(names) }
    }

    /// What is read from.
    pub fn storage(&self) -> &Arc<S> {
        &self.storage
    }

    fn found<T>(&self, value: T) -> Found<T> {
        Found { value, place: Place(self.storage.describe()) }
    }
}

#[async_trait]
impl<S: Storage + ?Sized + 'static> Source for StorageSource<S> {
    fn describe(&self) -> String {
        self.storage.describe()
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let found = self.manifest(name).await?;
        Ok(Found { value: found.value.digest().clone(), place: found.place })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let (storage, repository, wanted) = (self.storage.clone(), (self.names)(name), name.clone());
        let manifest = blocking(move || {
            let at = match (wanted.digest(), wanted.tag()) {
                (Some(digest), _) => ManifestName::Digest(digest.clone()),
                (None, Some(tag)) => ManifestName::Tag(tag.clone()),
                (None, None) => {
                    return Err(Error::new(
                        ErrorKind::NotFound,
                        format!("read `{wanted}` from `{}`", storage.describe()),
                        "the reference has neither a tag nor a digest",
                    )
                    .hint("add a tag, such as `:latest`, or a digest"));
                }
            };
            storage.manifest(&repository, &at)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("read `{wanted}` from `{}`", storage.describe()),
                    format!("the repository `{repository}` there has no manifest `{at}`"),
                )
            })
        })
        .await?;
        Ok(self.found(manifest))
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        _near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let (storage, repository) = (self.storage.clone(), (self.names)(name));
        let (digest, what) = (blob.digest.clone(), format!("read blob `{}` of `{}`", blob.digest, name.name()));
        let (place, missing) = (storage.describe(), what.clone());
        let region = blocking(move || storage.blob(&repository, &digest))
            .await?
            .ok_or_else(|| Error::new(ErrorKind::NotFound, missing, format!("`{place}` does not have it")))?;
        if region.len != blob.size {
            return Err(Error::new(
                ErrorKind::Content,
                what,
                format!("it has {} bytes, the manifest says {}", region.len, blob.size),
            ));
        }
        let end = region.len;
        Ok(region.stream(offset, end, what))
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, _near: Option<&Place>) -> Result<bool, Error> {
        let (storage, repository, blob) = (self.storage.clone(), (self.names)(name), blob.clone());
        blocking(move || Ok(storage.blob(&repository, &blob.digest)?.is_some_and(|region| region.len == blob.size)))
            .await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        _near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        let (storage, repository, subject) = (self.storage.clone(), (self.names)(name), subject.clone());
        blocking(move || storage.referrers(&repository, &subject)).await
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        let (storage, repository, name) = (self.storage.clone(), (self.names)(name), name.name());
        blocking(move || {
            storage.tags(&repository)?.ok_or_else(|| {
                Error::new(
                    ErrorKind::NotFound,
                    format!("list the tags of `{name}` in `{}`", storage.describe()),
                    format!("there is no repository `{repository}`"),
                )
            })
        })
        .await
    }
}
