//! Sources that stand on other sources.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{BlobStream, Descriptor, Digest, Error, Found, Manifest, Place, Reference, Source, Tag};

/// A source that asks others: whoever implements it says who is behind a name, and writes only those methods that do more than pass
/// the question on. It is then a [`Source`].
#[async_trait]
pub trait Forward: Send + Sync {
    /// As [`Source::describe`].
    fn describe(&self) -> String;

    /// Who answers for a name, and by which name it knows the image.
    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error>;

    /// As [`Source::resolve`].
    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let (source, name) = self.behind(name)?;
        source.resolve(&name).await
    }

    /// As [`Source::manifest`].
    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let (source, name) = self.behind(name)?;
        source.manifest(&name).await
    }

    /// As [`Source::manifest_at`].
    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        let (source, name) = self.behind(name)?;
        source.manifest_at(&name, place).await
    }

    /// As [`Source::blob`].
    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let (source, name) = self.behind(name)?;
        source.blob(&name, blob, offset, near).await
    }

    /// As [`Source::is_proved`].
    fn is_proved(&self, name: &Reference, blob: &Descriptor) -> bool {
        self.behind(name).is_ok_and(|(source, name)| source.is_proved(&name, blob))
    }

    /// As [`Source::has_blob`].
    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        let (source, name) = self.behind(name)?;
        source.has_blob(&name, blob, near).await
    }

    /// As [`Source::referrers`].
    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        let (source, name) = self.behind(name)?;
        source.referrers(&name, subject, near).await
    }

    /// As [`Source::tags`].
    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        let (source, name) = self.behind(name)?;
        source.tags(&name).await
    }
}

#[async_trait]
impl<F: Forward> Source for F {
    fn describe(&self) -> String {
        Forward::describe(self)
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        Forward::resolve(self, name).await
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        Forward::manifest(self, name).await
    }

    async fn manifest_at(&self, name: &Reference, place: &Place) -> Result<Option<Manifest>, Error> {
        Forward::manifest_at(self, name, place).await
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        Forward::blob(self, name, blob, offset, near).await
    }

    fn is_proved(&self, name: &Reference, blob: &Descriptor) -> bool {
        Forward::is_proved(self, name, blob)
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        Forward::has_blob(self, name, blob, near).await
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        Forward::referrers(self, name, subject, near).await
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        Forward::tags(self, name).await
    }
}
