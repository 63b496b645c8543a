//! That a release is what its publisher built, judged before anything is copied, and how a cluster is told.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use airlock_client::Client;
use airlock_content::signature::{KeyRing, MAX_SIGNATURE_BYTES, MAX_SIGNATURES, Signed, Store, Verifier};
use airlock_mirror::clock;
use airlock_oci::{Digest, Error};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

use crate::environment;

/// By which a cluster finds signatures.
const LABEL: &str = "release.openshift.io/verification-signatures";
const NAMESPACE: &str = "openshift-config-managed";
/// Hex digits of a digest in the name of a signature's file.
const SHORT: usize = 16;
/// The largest file of signatures that is read (bytes): as many as there may be, in base64, and the rest of the object.
const MAX_FILE_BYTES: u64 = MAX_SIGNATURES as u64 * MAX_SIGNATURE_BYTES * 2;

/// Judges signatures: of a file tree, and of the store that the environment names.
pub(super) struct Judge {
    verifier: Verifier,
    stores: Vec<Store>,
    /// The folder of signatures of the file tree that the release is read from.
    kept: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    #[serde(default)]
    binary_data: BTreeMap<String, String>,
}

/// The name of a digest within Kubernetes.
fn key(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

fn stem(digest: &Digest) -> String {
    format!("signature-{}-{}", digest.algorithm(), &digest.hex()[..SHORT])
}

impl Judge {
    /// With the keys and the store of the environment.
    pub(super) fn new(client: Client, kept: Option<PathBuf>) -> Result<Self, Error> {
        let services = environment::services();
        let keys = match &services.signature_keys {
            Some(path) => KeyRing::file(path)?,
            None => KeyRing::red_hat()?,
        };
        let stores = Store::chosen(&client, services.signature_url.as_deref())?;
        Ok(Self { verifier: Verifier::new(keys, clock::now().0), stores, kept })
    }

    /// A signature of the release that holds. What lies in the file tree is judged like anything else, and asked first: behind an air gap
    /// there is nothing else to ask.
    pub(super) async fn find(&self, digest: &Digest) -> Result<Signed, Error> {
        let kept = self.kept.as_deref().map(|folder| read(folder, digest)).transpose()?.unwrap_or_default();
        if !kept.is_empty() {
            let place = self.kept.as_deref().unwrap_or(Path::new("")).display().to_string();
            return self.verifier.verify_any(digest, kept, &place).map_err(|e| e.into_error(digest));
        }
        self.verifier.find(digest, &self.stores).await
    }
}

/// The signatures that a file tree has for a release.
fn read(folder: &Path, digest: &Digest) -> Result<Vec<Bytes>, Error> {
    let path = folder.join(format!("{}.json", stem(digest)));
    let what = || format!("read the signature `{}`", path.display());
    let len = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(what(), &e)),
    };
    let bad = |cause: String| Error::new(airlock_oci::ErrorKind::Content, what(), cause);
    if len > MAX_FILE_BYTES {
        return Err(bad(format!("it has {len} bytes; at most {MAX_FILE_BYTES} are expected")));
    }
    let bytes = fs::read(&path).map_err(|e| Error::io(what(), &e))?;
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
    let own = kept.binary_data.iter().filter(|(name, _)| name.starts_with(&key(digest)));
    own.take(MAX_SIGNATURES as usize)
        .map(|(_, text)| BASE64.decode(text).map(Bytes::from).map_err(|e| bad(e.to_string())))
        .collect()
}

/// Writes the ConfigMap of a signature as JSON in one line, and the same as YAML; gives the paths.
pub(super) fn write(folder: &Path, signed: &Signed) -> Result<[PathBuf; 2], Error> {
    let what = || format!("write the signature to `{}`", folder.display());
    let failed = |e: std::io::Error| Error::io(what(), &e);
    fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(failed)?;
    let (name, data) = (key(&signed.digest), BASE64.encode(&signed.bytes));
    let object = json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: ""}},
        "binaryData": {format!("{name}-1"): data},
    });
    let yaml = format!(
        "apiVersion: v1\nbinaryData:\n  {name}-1: {data}\nkind: ConfigMap\nmetadata:\n  labels:\n    {LABEL}: \"\"\n  \
         name: {name}\n  namespace: {NAMESPACE}\n"
    );
    let one = |extension: &str, text: &str| {
        let path = folder.join(format!("{}.{extension}", stem(&signed.digest)));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o640)).map_err(failed)?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok::<_, Error>(path)
    };
    Ok([one("json", &format!("{object}\n"))?, one("yaml", &yaml)?])
}
