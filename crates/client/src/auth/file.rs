//! One credential file: `auth.json` of podman, `config.json` of docker, or docker's old flat `.dockercfg`.

use std::collections::BTreeMap;
use std::path::Path;

use airlock_oci::{Error, ErrorKind};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::Secret;

/// The largest credential file that is read (bytes); real ones have a few kilobytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What a credential file says.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    auth: Option<Secret64>,
    username: Option<String>,
    password: Option<Secret64>,
    identitytoken: Option<Secret64>,
}

/// A secret as it stands in the file; never printed.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Secret64(String);

/// What a file knows of a name.
#[derive(Debug)]
pub(crate) enum Hit {
    /// The credential itself, under this key.
    Entry { key: String, username: String, password: Secret, identity_token: Option<Secret> },
    /// A program has it.
    Helper { key: String, program: String, server: String },
}

impl std::fmt::Debug for Secret64 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Docker Hub has several names; keys under any of them mean the same.
pub(crate) fn canonical_host(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    }
}

impl AuthFile {
    /// Reads a file; `None` when there is none.
    pub(crate) fn read(path: &Path, flat: bool) -> Result<Option<Self>, Error> {
        let what = || format!("read credential file `{}`", path.display());
        match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE_BYTES => {
                return Err(Error::new(ErrorKind::Invalid, what(), "it is larger than 4 MiB"));
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(e) => return Err(Error::io(what(), &e)),
        }
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(what(), &e))?;
        Self::parse(&text, flat).map(Some).map_err(|cause| {
            Error::new(ErrorKind::Invalid, what(), cause)
                .hint("correct the file at this place, or write it anew with `airlock login` or `podman login`")
        })
    }

    /// Reads the text of a file. `flat`: the entries stand at the top (`.dockercfg`).
    pub(crate) fn parse(text: &str, flat: bool) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        // serde_json quotes the offending text only for types, never a string's content longer than the type's name, but a
        // wrongly typed secret would be quoted: keep the position and our own words.
        let position = |e: serde_json::Error| {
            let kind = match e.classify() {
                serde_json::error::Category::Eof => "the JSON ends too early",
                serde_json::error::Category::Syntax => "invalid JSON",
                serde_json::error::Category::Data => "a value has the wrong type",
                serde_json::error::Category::Io => "unreadable",
            };
            format!("{kind} at line {} column {}", e.line(), e.column())
        };
        if flat {
            let auths = serde_json::from_str(text).map_err(position)?;
            return Ok(Self { auths, ..Self::default() });
        }
        serde_json::from_str(text).map_err(position)
    }

    /// The most specific knowledge of `host[:port]/path`: a helper for the host, then the longest key that has something, then
    /// keys in docker's old form, then the store of everything.
    pub(crate) fn find(&self, host: &str, path: &str) -> Result<Option<Hit>, String> {
        let host = canonical_host(host);
        if let Some((key, program)) = self.cred_helpers.iter().find(|(key, _)| canonical_host(key) == host) {
            return Ok(Some(Hit::Helper { key: key.clone(), program: program.clone(), server: key.clone() }));
        }
        let full = if path.is_empty() { host.to_owned() } else { format!("{host}/{path}") };
        let mut name = full.as_str();
        loop {
            for (key, entry) in &self.auths {
                if normal_key(key) == name
                    && let Some(hit) = entry.hit(key)?
                {
                    return Ok(Some(hit));
                }
            }
            match name.rfind('/') {
                Some(slash) => name = &name[..slash],
                None => break,
            }
        }
        Ok(self.creds_store.as_ref().filter(|program| !program.is_empty()).map(|program| Hit::Helper {
            key: "credsStore".into(),
            program: program.clone(),
            server: if host == "docker.io" { "https://index.docker.io/v1/".into() } else { host.to_owned() },
        }))
    }

    /// The helper that keeps the credential of a host, if it is not kept in the file itself.
    pub(crate) fn helper_of(&self, host: &str) -> Option<(&str, String)> {
        let host = canonical_host(host);
        if let Some((key, program)) = self.cred_helpers.iter().find(|(key, _)| canonical_host(key) == host) {
            return Some((program, key.clone()));
        }
        let server = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
        self.creds_store.as_deref().filter(|p| !p.is_empty()).map(|p| (p, server.to_owned()))
    }
}

/// A key as `host[:port][/path]`: without scheme, `/v1/` and trailing slashes, Docker Hub under one name.
pub(crate) fn normal_key(key: &str) -> String {
    let (key, had_scheme) = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(rest) => (rest, true),
        None => (key, false),
    };
    let key = key.trim_end_matches('/');
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let host = canonical_host(host);
    // With a scheme the key is an address of docker's old form: its path says nothing about repositories.
    if path.is_empty() || had_scheme || matches!(path, "v1" | "v2") {
        return host.to_owned();
    }
    format!("{host}/{path}")
}

impl Entry {
    fn hit(&self, key: &str) -> Result<Option<Hit>, String> {
        let mut username = self.username.clone().unwrap_or_default();
        let mut password = self.password.as_ref().map(|p| p.0.clone()).unwrap_or_default();
        if let Some(auth) = self.auth.as_ref().filter(|a| !a.0.trim().is_empty()) {
            let wrong = || format!("the `auth` of `{key}` is not base64 of `user:password`");
            let lenient = GeneralPurpose::new(
                &base64::alphabet::STANDARD,
                GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
            );
            let bytes = lenient.decode(auth.0.trim()).map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (user, secret) = text.split_once(':').ok_or_else(wrong)?;
            username = user.to_owned();
            // Docker pads with NUL bytes.
            password = secret.trim_matches('\0').to_owned();
        }
        let identity_token = self.identitytoken.as_ref().filter(|t| !t.0.is_empty()).map(|t| Secret::new(t.0.clone()));
        if username.is_empty() && password.is_empty() && identity_token.is_none() {
            return Ok(None);
        }
        Ok(Some(Hit::Entry { key: key.to_owned(), username, password: password.into(), identity_token }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(text)
    }

    fn key_for(file: &AuthFile, host: &str, path: &str) -> Option<String> {
        match file.find(host, path).unwrap()? {
            Hit::Entry { key, .. } => Some(key),
            Hit::Helper { key, program, .. } => Some(format!("{program}({key})")),
        }
    }

    #[test]
    fn the_longest_key_wins_and_a_prefix_ends_at_a_slash() {
        let a = auth("u:p");
        let text = format!(
            r#"{{"auths":{{"r:5000":{{"auth":"{a}"}},"r:5000/ns":{{"auth":"{a}"}},"r:5000/ns/repo":{{"auth":"{a}"}},"r":{{"auth":"{a}"}}}}}}"#
        );
        let file = AuthFile::parse(&text, false).unwrap();
        assert_eq!(key_for(&file, "r:5000", "ns/repo").unwrap(), "r:5000/ns/repo");
        assert_eq!(key_for(&file, "r:5000", "ns/other").unwrap(), "r:5000/ns");
        assert_eq!(key_for(&file, "r:5000", "nsx/other").unwrap(), "r:5000");
        assert_eq!(key_for(&file, "r", "ns/repo").unwrap(), "r");
        assert_eq!(key_for(&file, "s", "ns/repo"), None);
    }

    #[test]
    fn docker_hub_has_aliases_and_old_keys_have_paths() {
        let a = auth("u:p");
        for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "index.docker.io/v1/"] {
            let file = AuthFile::parse(&format!(r#"{{"auths":{{"{key}":{{"auth":"{a}"}}}}}}"#), false).unwrap();
            assert_eq!(key_for(&file, "docker.io", "library/busybox").as_deref(), Some(key));
            assert_eq!(key_for(&file, "registry-1.docker.io", "library/busybox").as_deref(), Some(key));
        }
        let old = AuthFile::parse(&format!(r#"{{"https://quay.io/v2/":{{"auth":"{a}"}}}}"#), true).unwrap();
        assert!(key_for(&old, "quay.io", "a/b").is_some());
    }

    #[test]
    fn helpers_come_first_for_their_host_and_the_store_last() {
        let a = auth("u:p");
        let text = format!(
            r#"{{"auths":{{"quay.io":{{"auth":"{a}"}},"empty.io":{{}}}},"credHelpers":{{"ecr.aws":"ecr-login"}},"credsStore":"pass"}}"#
        );
        let file = AuthFile::parse(&text, false).unwrap();
        assert_eq!(key_for(&file, "ecr.aws", "x").unwrap(), "ecr-login(ecr.aws)");
        assert_eq!(key_for(&file, "quay.io", "x").unwrap(), "quay.io");
        assert_eq!(key_for(&file, "empty.io", "x").unwrap(), "pass(credsStore)");
    }

    #[test]
    fn a_malformed_file_is_named_by_line_and_column_without_its_secrets() {
        let error = AuthFile::parse("{\n \"auths\": {\n  \"a\": {\"auth\": \"hunter2\"\n }", false).unwrap_err();
        assert!(error.contains("line 4 column 2"), "{error}");
        let error =
            AuthFile::parse(r#"{"auths":{"a":{"auth":"!hunter2"}}}"#, false).unwrap().find("a", "").unwrap_err();
        assert!(error.contains("`a`") && !error.contains("hunter2"), "{error}");
        let error = AuthFile::parse("{\"auths\": \"hunter2\"}", false).unwrap_err();
        assert!(error.contains("wrong type at line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn passwords_may_hold_colons_and_padding_may_lack() {
        let text = format!(r#"{{"auths":{{"a":{{"auth":"{}"}}}}}}"#, auth("u:p:q").trim_end_matches('='));
        let Some(Hit::Entry { username, password, .. }) = AuthFile::parse(&text, false).unwrap().find("a", "").unwrap()
        else {
            panic!("no entry")
        };
        assert_eq!((username.as_str(), password.reveal()), ("u", "p:q"));
    }
}
