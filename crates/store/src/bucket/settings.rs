//! Which bucket, where, and with whose credentials.
//!
//! Credentials are looked for as the AWS tools do: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (and `AWS_SESSION_TOKEN`), then the
//! profile of the shared file (`~/.aws/credentials`) that `AWS_PROFILE` names, then a web identity or a container's address in the environment, and at last the
//! instance metadata of a cloud machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsCredential};
use object_store::{BackoffConfig, ClientOptions, RetryConfig, StaticCredentialProvider};

use super::MAX_RECEIVING;
use super::keys::Keys;

/// How long connecting to the store may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// How long one request may take, except those that carry a whole blob.
const REQUEST_TIME: Duration = Duration::from_secs(60);
/// How often a request that failed is tried again, with growing pauses, and how long all trials together may take.
const RETRIES: usize = 6;
const RETRY_TIME: Duration = Duration::from_secs(20);
/// The longest pause between two trials.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a file of credentials at most.
const MAX_CREDENTIALS_BYTES: u64 = 1024 * 1024;
/// Bytes that S3 copies in one request; it refuses more.
pub const MAX_COPIED_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// How old a blob, or a lease on it, must be to be collected.
pub const COLLECTED_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How often whoever collects garbage writes its lock again; far more often than a lock counts as that of a process which died.
const LOCK_RENEWAL: Duration = Duration::from_secs(60);
/// How often a request that holds an upload for long says so in the bucket; far more often than uploads expire.
const HELD_RENEWAL: Duration = Duration::from_secs(5 * 60);

/// Where the content of a registry lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The bucket's name.
    pub bucket: String,
    /// Where in the bucket; empty for all of it.
    pub prefix: String,
    /// The store's URL, when it is not AWS's own.
    pub endpoint: Option<String>,
    /// The region, when it is not `AWS_REGION`'s.
    pub region: Option<String>,
    /// What the store copies by itself in one request (bytes); larger blobs pass through this process.
    pub copied_bytes: u64,
    /// How old a blob must be that garbage collection removes, by the store's clock. A push must not take longer than half of it, and all
    /// processes at one bucket must agree.
    pub collected_age: Duration,
    /// Uploads whose bytes are received at once.
    pub receiving: usize,
    /// How often whoever collects garbage says that it still does.
    pub lock_renewal: Duration,
    /// How often a request that holds an upload says that it still does.
    pub held_renewal: Duration,
    /// A key and its secret, instead of those of the environment.
    pub key: Option<AccessKey>,
}

/// A key with its secret. Cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    id: String,
    secret: String,
    token: Option<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessKey({})", self.id)
    }
}

impl AccessKey {
    /// A key.
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { id: id.into(), secret: secret.into(), token: None }
    }
}

impl Settings {
    /// Of `s3://BUCKET[/PREFIX]`.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |cause: &str| {
            Error::new(ErrorKind::Invalid, format!("read the bucket's address `{url}`"), cause)
                .hint("write it as `s3://BUCKET/PREFIX`; the store's own URL is given with `--s3-endpoint`")
        };
        let rest = url.strip_prefix("s3://").ok_or_else(|| invalid("it does not begin with `s3://`"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if bucket.is_empty() || !bucket.bytes().all(allowed) {
            return Err(invalid("there is no bucket's name in it"));
        }
        Keys::new(prefix)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.trim_matches('/').to_owned(),
            endpoint: None,
            region: None,
            copied_bytes: MAX_COPIED_BYTES,
            collected_age: COLLECTED_AGE,
            receiving: MAX_RECEIVING,
            lock_renewal: LOCK_RENEWAL,
            held_renewal: HELD_RENEWAL,
            key: None,
        })
    }

    /// For messages.
    pub(super) fn place(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// A client of the store. `carries_blobs`: its requests may take as long as their bytes keep coming.
    pub(super) fn client(&self, carries_blobs: bool) -> Result<AmazonS3, Error> {
        let mut options = ClientOptions::new().with_connect_timeout(CONNECT_TIME);
        options = if carries_blobs { options.with_timeout_disabled() } else { options.with_timeout(REQUEST_TIME) };
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: LONGEST_PAUSE, ..BackoffConfig::default() },
            max_retries: RETRIES,
            retry_timeout: RETRY_TIME,
        };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket).with_retry(retry);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        let http = self.endpoint.clone().or_else(|| std::env::var("AWS_ENDPOINT_URL").ok());
        options = options.with_allow_http(http.is_some_and(|url| url.starts_with("http://")));
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        let key = match &self.key {
            Some(key) => Some(key.clone()),
            None => shared_key(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))?,
        };
        if let Some(AccessKey { id, secret, token }) = key {
            // As a whole: a token of the environment belongs to another key.
            let credential = AwsCredential { key_id: id, secret_key: secret, token };
            builder = builder.with_credentials(Arc::new(StaticCredentialProvider::new(credential)));
        }
        builder.with_client_options(options).build().map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("open the bucket `{}`", self.place()), e)
                .hint("check `--s3-endpoint`, `--s3-region` and the AWS_ variables of the environment")
        })
    }
}

/// The key of the profile in the shared file, unless the environment says something else. `given`: what the environment says.
fn shared_key(given: impl Fn(&str) -> Option<String>) -> Result<Option<AccessKey>, Error> {
    let others =
        ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    let profile = given("AWS_PROFILE");
    // A key in the environment comes before a profile that is named there, a profile before everything else.
    let is_other = given("AWS_ACCESS_KEY_ID").is_some()
        || (profile.is_none() && others.into_iter().any(|name| given(name).is_some()));
    if is_other {
        return Ok(None);
    }
    let file = given("AWS_SHARED_CREDENTIALS_FILE")
        .map(PathBuf::from)
        .or_else(|| given("HOME").map(|home| Path::new(&home).join(".aws/credentials")));
    let Some(file) = file else { return Ok(None) };
    let what = || format!("read the credentials in `{}`", file.display());
    let text = match std::fs::metadata(&file) {
        Ok(metadata) if metadata.len() <= MAX_CREDENTIALS_BYTES => {
            std::fs::read_to_string(&file).map_err(|e| Error::io(what(), &e))?
        }
        Ok(_) => return Err(Error::new(ErrorKind::Invalid, what(), "it is too large to be such a file")),
        Err(_) if profile.is_none() => return Ok(None),
        Err(e) => return Err(Error::io(what(), &e).hint("`AWS_PROFILE` names a profile of this file")),
    };
    let name = profile.as_deref().unwrap_or("default");
    match profile_key(&text, name) {
        Some(key) => Ok(Some(key)),
        None if profile.is_none() => Ok(None),
        None => Err(Error::new(ErrorKind::Invalid, what(), format!("it has no key for the profile `{name}`"))
            .hint("`AWS_PROFILE` names the profile; it needs `aws_access_key_id` and `aws_secret_access_key`")),
    }
}

fn profile_key(text: &str, profile: &str) -> Option<AccessKey> {
    let (mut here, mut id, mut secret, mut token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            here = section.trim_end_matches(']').trim() == profile;
        } else if here && let Some((name, value)) = line.split_once('=') {
            let value = Some(value.trim().to_owned());
            match name.trim() {
                "aws_access_key_id" => id = value,
                "aws_secret_access_key" => secret = value,
                "aws_session_token" => token = value,
                _ => {}
            }
        }
    }
    Some(AccessKey { id: id?, secret: secret?, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_a_place_in_it() {
        for (url, bucket, prefix, place) in [
            ("s3://b", "b", "", "s3://b"),
            ("s3://b/", "b", "", "s3://b"),
            ("s3://my-b.x/a/b/", "my-b.x", "a/b", "s3://my-b.x/a/b"),
        ] {
            let settings = Settings::parse(url).unwrap();
            assert_eq!((settings.bucket.as_str(), settings.prefix.as_str()), (bucket, prefix));
            assert_eq!(settings.place(), place);
        }
        for url in ["b/p", "s3://", "s3:///p", "s3://b c", "s3://b/x//y", "https://s3.example/b"] {
            assert!(Settings::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_key_of_the_environment_comes_before_a_profile_and_a_profile_before_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=D\naws_secret_access_key=s\n[p]\naws_access_key_id=P\naws_secret_access_key=s\n")
            .unwrap();
        let key = |names: &[&str]| {
            let given = |name: &str| match name {
                "AWS_SHARED_CREDENTIALS_FILE" => Some(file.display().to_string()),
                "AWS_PROFILE" if names.contains(&name) => Some("p".into()),
                _ => names.contains(&name).then(|| "x".into()),
            };
            shared_key(given).unwrap().map(|key| (key.id, key.token))
        };
        assert_eq!(key(&[]), Some(("D".into(), None)));
        // The token belongs to no key of the file.
        assert_eq!(key(&["AWS_PROFILE", "AWS_SESSION_TOKEN"]), Some(("P".into(), None)));
        assert_eq!(key(&["AWS_PROFILE", "AWS_ACCESS_KEY_ID"]), None);
        assert_eq!(key(&["AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"]), Some(("P".into(), None)));
        assert_eq!(key(&["AWS_WEB_IDENTITY_TOKEN_FILE"]), None);
    }

    #[test]
    fn a_profile_gives_a_key_that_cannot_be_printed() {
        let text = "[default]\naws_access_key_id = A\n[other]\naws_access_key_id=B\n aws_secret_access_key = s=1\n";
        assert_eq!(profile_key(text, "default"), None, "half a key is none");
        let key = profile_key(text, "other").unwrap();
        assert_eq!((key.id.as_str(), key.secret.as_str()), ("B", "s=1"));
        assert!(!format!("{key:?}").contains("s=1"));
    }
}
