//! Where signatures lie: `<store>/sha256=<hex>/signature-<N>`, on a web server or in a folder (updates-and-releases 6.2).

use std::io::Read;
use std::path::PathBuf;

use airlock_client::{Client, Get, Url};
use airlock_oci::{Digest, Error, ErrorKind};
use bytes::Bytes;

/// Where the signatures of OpenShift's releases are.
pub const PUBLIC_STORE_URL: &str = "https://mirror.openshift.com/pub/openshift-v4/signatures/openshift/release/";
/// Where they are too; clusters ask both.
pub const SECOND_PUBLIC_STORE_URL: &str =
    "https://storage.googleapis.com/openshift-release/official/signatures/openshift/release/";
/// The largest signature (bytes). Real ones have about 900.
pub const MAX_SIGNATURE_BYTES: u64 = 50 * 1024;
/// Most signatures of one digest that are looked at.
pub const MAX_SIGNATURES: u32 = 9;

/// A store of signatures.
#[derive(Clone, Debug)]
pub enum Store {
    /// On a web server.
    Web {
        /// Connections, certificates, proxies and retries.
        client: Client,
        /// The address below which digests are; its path ends with a slash.
        base: Url,
    },
    /// In a folder.
    Folder(PathBuf),
}

impl Store {
    /// The store that `OCP_SIGNATURE_URL` names, and no other; without it the public ones, in the order in which they are asked.
    pub fn chosen(client: &Client, url: Option<&str>) -> Result<Vec<Self>, Error> {
        match url.map(str::trim).filter(|text| !text.is_empty()) {
            Some(url) => Ok(vec![Self::new(client.clone(), url)?]),
            None => [PUBLIC_STORE_URL, SECOND_PUBLIC_STORE_URL]
                .map(|url| Self::new(client.clone(), url))
                .into_iter()
                .collect(),
        }
    }

    /// The store at an address: `https`, `http` or `file`.
    pub fn new(client: Client, text: &str) -> Result<Self, Error> {
        if let Some(path) = text.strip_prefix("file://") {
            return Ok(Self::Folder(PathBuf::from(path)));
        }
        let bad = |cause: String| {
            Error::new(ErrorKind::Invalid, format!("use the store of signatures `{text}`"), cause)
                .hint("OCP_SIGNATURE_URL must be such as https://HOST/signatures/openshift/release/")
        };
        let mut base = Url::parse(text).map_err(|error| bad(format!("it is no address: {error}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none_or(str::is_empty) {
            return Err(bad("it must begin with https://, http:// or file://".to_owned()));
        }
        // Without the slash the last part of the path would be replaced.
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        Ok(Self::Web { client, base })
    }

    /// For messages.
    pub fn describe(&self) -> String {
        match self {
            // The address may carry a password.
            Self::Web { base, .. } => {
                let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
                format!("{}://{}{port}{}", base.scheme(), base.host_str().unwrap_or_default(), base.path())
            }
            Self::Folder(path) => path.display().to_string(),
        }
    }

    /// The signature with this number; `None` when there is none, which also means that none follows.
    pub async fn read(&self, digest: &Digest, number: u32) -> Result<Option<Bytes>, Error> {
        let name = format!("{}={}/signature-{number}", digest.algorithm(), digest.hex());
        let what = format!("read signature-{number} of release `{digest}`");
        let read = match self {
            Self::Web { client, base } => {
                let mut url = base.clone();
                url.set_path(&format!("{}{name}", base.path()));
                client.get(&Get { url, accept: None, what, limit: MAX_SIGNATURE_BYTES }).await
            }
            Self::Folder(path) => read_file(path.join(name), &what),
        };
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_file(path: PathBuf, what: &str) -> Result<Bytes, Error> {
    let file = std::fs::File::open(&path).map_err(|e| Error::io(what, &e))?;
    let mut bytes = Vec::new();
    file.take(MAX_SIGNATURE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(what, &e))?;
    if bytes.len() as u64 > MAX_SIGNATURE_BYTES {
        let cause = format!("`{}` has more than {MAX_SIGNATURE_BYTES} bytes", path.display());
        return Err(Error::new(ErrorKind::Unsupported, what, cause));
    }
    Ok(bytes.into())
}
