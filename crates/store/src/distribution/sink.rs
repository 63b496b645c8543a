//! The storage as a place that the transfer engine writes to.

use airlock_oci::sink::ManifestName;
use airlock_oci::{Abilities, Content, Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Sink, Tag};
use async_trait::async_trait;
use futures_util::StreamExt;

use super::Writer;
use crate::source::blocking;
use crate::storage::Storage;

#[async_trait]
impl Sink for Writer {
    fn describe(&self) -> String {
        Storage::describe(self)
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: true, sparse_index: Some(true), referrers: true, delete: true }
    }

    async fn head_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Digest>, Error> {
        let (writer, repository, at) = (self.clone(), repository.clone(), at.clone());
        blocking(move || match writer.claim_manifest(&repository, &at) {
            Ok(manifest) => Ok(manifest.map(|m| m.digest().clone())),
            // A damaged copy is as good as none: it will be written again.
            Err(e) if e.kind() == ErrorKind::Content => Ok(None),
            Err(e) => Err(e),
        })
        .await
    }

    async fn has_blob(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let (writer, repository, blob) = (self.clone(), repository.clone(), blob.clone());
        blocking(move || {
            Ok(writer.claim_blob(&repository, &blob.digest)?.is_some_and(|region| region.len == blob.size))
        })
        .await
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, from: &Repository) -> Result<bool, Error> {
        let (writer, repository, from, blob) = (self.clone(), repository.clone(), from.clone(), blob.clone());
        blocking(move || {
            // A copy of the wrong length is damaged and must be written again, not linked once more.
            if writer.blob(&from, &blob.digest)?.is_none_or(|region| region.len != blob.size) {
                return Ok(false);
            }
            Writer::mount_blob(&writer, &repository, &blob.digest, Some(&from))
        })
        .await
    }

    async fn write_blob(&self, repository: &Repository, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let mut upload = self.private_upload(repository, blob.digest.algorithm())?;
        let (digest, size, mut received) = (blob.digest.clone(), blob.size, 0);
        let wrong_size = move |found: String| {
            Error::new(
                ErrorKind::Content,
                format!("write blob `{digest}`"),
                format!("{found} bytes came, the manifest says {size}"),
            )
        };
        let too_long = wrong_size.clone();
        let body = content.open(0).await?.map(move |chunk| {
            let chunk = chunk?;
            received += chunk.len() as u64;
            if received > size { Err(too_long("more".into())) } else { Ok(chunk) }
        });
        upload.append(body).await?;
        if upload.offset() != size {
            return Err(wrong_size(format!("only {}", upload.offset())));
        }
        upload.finish(&blob.digest).await.map(|_| ())
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let (writer, repository, manifest) = (self.clone(), repository.clone(), manifest.clone());
        let tags: Vec<Tag> = tag.cloned().into_iter().collect();
        blocking(move || Writer::put_manifest(&writer, &repository, &manifest, &tags)).await
    }

    async fn delete_manifest(&self, repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        let (writer, repository, at) = (self.clone(), repository.clone(), at.clone());
        blocking(move || {
            let there = match &at {
                ManifestName::Tag(tag) => writer.delete_tag(&repository, tag)?,
                ManifestName::Digest(digest) => Writer::delete_manifest(&writer, &repository, digest)?,
            };
            if there {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::NotFound,
                format!("delete `{at}` of `{repository}` in `{}`", Storage::describe(&writer)),
                "it is not there",
            ))
        })
        .await
    }
}
