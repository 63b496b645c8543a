//! A graph image as a source: what was built from where it was written, the base's layers from where the base lies.

use std::sync::Arc;

use airlock_oci::{BlobStream, Descriptor, Digest, Error, Forward, Place, Reference, Source};
use async_trait::async_trait;

use super::GraphImage;

/// Answers for one graph image, so that it is copied like any other image and no layer of its base is ever kept in between.
pub struct GraphImageSource {
    built: Arc<dyn Source>,
    base: Arc<dyn Source>,
    base_name: Reference,
    base_place: Place,
    base_layers: Vec<Digest>,
}

impl GraphImageSource {
    /// `built` reads what [`super::build`] wrote, `base` the source that it read.
    pub fn new(image: &GraphImage, built: Arc<dyn Source>, base: Arc<dyn Source>) -> Self {
        Self {
            built,
            base,
            base_name: image.base.clone(),
            base_place: image.place.clone(),
            base_layers: image.base_layers.iter().map(|l| l.digest.clone()).collect(),
        }
    }

    fn is_base(&self, blob: &Descriptor) -> bool {
        self.base_layers.contains(&blob.digest)
    }
}

#[async_trait]
impl Forward for GraphImageSource {
    fn describe(&self) -> String {
        self.built.describe()
    }

    fn behind(&self, name: &Reference) -> Result<(Arc<dyn Source>, Reference), Error> {
        Ok((Arc::clone(&self.built), name.clone()))
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        if self.is_base(blob) {
            return self.base.blob(&self.base_name, blob, offset, Some(&self.base_place)).await;
        }
        self.built.blob(name, blob, offset, near).await
    }

    async fn has_blob(&self, name: &Reference, blob: &Descriptor, near: Option<&Place>) -> Result<bool, Error> {
        if self.is_base(blob) {
            return self.base.has_blob(&self.base_name, blob, Some(&self.base_place)).await;
        }
        self.built.has_blob(name, blob, near).await
    }
}
