//! OCI layouts for clients to push.

use std::path::Path;

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, Manifest, Repository, Sink, Tag, media_type};
use airlock_store::oci_layout::Writer;
use bytes::Bytes;

use super::{OCI_INDEX, OCI_MANIFEST};

struct InMemory(Bytes);

#[async_trait::async_trait]
impl Content for InMemory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let rest = self.0.slice(offset as usize..);
        Ok(Box::pin(futures_util::stream::iter([Ok(rest)])))
    }
}

/// A tar with one file, so that clients which unpack layers can.
fn layer(seed: u8, len: usize) -> Bytes {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend((0..len).map(|i| seed ^ (i * 7 % 251) as u8));
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    Bytes::from(tar)
}

/// Writes an image; its manifest.
async fn write_image(writer: &Writer, name: &Repository, seed: u8, architecture: &str, tag: Option<&Tag>) -> Manifest {
    let json = |d: &Descriptor| serde_json::to_string(d).unwrap();
    let layer = layer(seed, 300_000);
    let config = Bytes::from(format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    ));
    let config_descriptor = Descriptor::new(media_type::OCI_CONFIG, Digest::of(&config), config.len() as u64);
    let layer_type = "application/vnd.oci.image.layer.v1.tar";
    let layer_descriptor = Descriptor::new(layer_type, Digest::of(&layer), layer.len() as u64);
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{},"layers":[{}]}}"#,
        json(&config_descriptor),
        json(&layer_descriptor)
    );
    writer.write_blob(name, &config_descriptor, &InMemory(config)).await.unwrap();
    writer.write_blob(name, &layer_descriptor, &InMemory(layer)).await.unwrap();
    let manifest = Manifest::parse(Bytes::from(text), None).unwrap();
    writer.put_manifest(name, &manifest, tag).await.unwrap();
    manifest
}

/// An OCI layout with one image, tagged `v1`; its digest.
pub(crate) async fn image(root: &Path, seed: u8) -> Digest {
    let (writer, name) = (Writer::open(root).unwrap(), Repository::new("x").unwrap());
    write_image(&writer, &name, seed, "amd64", Some(&Tag::new("v1").unwrap())).await.digest().clone()
}

/// An OCI layout with an index of two images, tagged `v1`; the index's bytes.
pub(crate) async fn index(root: &Path) -> Bytes {
    let (writer, name) = (Writer::open(root).unwrap(), Repository::new("x").unwrap());
    let mut children = Vec::new();
    for (seed, architecture) in [(1, "amd64"), (2, "arm64")] {
        let manifest = write_image(&writer, &name, seed, architecture, None).await;
        children.push(format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
            manifest.digest(),
            manifest.bytes().len()
        ));
    }
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{}]}}"#, children.join(","));
    let index = Manifest::parse(Bytes::from(text), None).unwrap();
    writer.put_manifest(&name, &index, Some(&Tag::new("v1").unwrap())).await.unwrap();
    index.bytes().clone()
}
