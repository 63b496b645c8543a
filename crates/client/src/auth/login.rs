//! Keeping credentials: `login` verifies and writes them, `logout` takes them out.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind, Registry};
use base64::Engine as _;
use http::Method;
use serde_json::{Map, Value, json};

use super::credentials::login_file;
use super::file::{AuthFile, canonical_host, normal_key};
use super::{Scope, helper};
use crate::client::{Call, Client, Target};
use crate::surroundings::Surroundings;
use crate::{HostCredentials, Options, Secret};

/// Where a credential was put or taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The credential file.
    pub path: PathBuf,
    /// The key within.
    pub key: String,
    /// The program that keeps the secret instead of the file.
    pub helper: Option<String>,
}

/// Shows the registry these credentials and, if it accepts them, writes them into the credential file: `options.authfile`, else
/// REGISTRY_AUTH_FILE, else podman's. `name` is `host[:port]`, or `host[:port]/path` for credentials that count only below a path.
pub async fn login(options: Options, name: &str, username: &str, password: &Secret) -> Result<Kept, Error> {
    login_with(options, name, username, password, &Surroundings::process()).await
}

/// Takes the credentials of a name out of the credential file. `None`: there were none.
pub async fn logout(authfile: Option<PathBuf>, name: &str) -> Result<Option<Kept>, Error> {
    logout_with(authfile, name, &Surroundings::process()).await
}

async fn login_with(
    mut options: Options,
    name: &str,
    username: &str,
    password: &Secret,
    env: &Surroundings,
) -> Result<Kept, Error> {
    let key = key_of(name)?;
    let path = file_of(options.authfile.take(), env, &key)?;
    let what = format!("log in to `{key}`");
    if username.is_empty() || username.contains(':') {
        return Err(Error::new(ErrorKind::Invalid, what, "a user name is not empty and has no colon"));
    }
    let host = key.split('/').next().unwrap_or_default();
    options.anonymous = false;
    options.credentials =
        vec![HostCredentials { host: host.to_owned(), username: username.to_owned(), password: password.clone() }];
    let client = Client::with_surroundings(options, env)?;
    let registry = Registry::new(host).map_err(|e| Error::new(ErrorKind::Invalid, what.clone(), e))?;
    let insecure = client.endpoints().insecure_for_push(&registry, None)?;
    let host = client.host(host, insecure)?;
    let mut call = Call::new(Method::GET, Target::Path("/v2/".into()), Scope::none());
    call.what = Some(what.clone());
    client.send(&host, &call).await.map_err(|mut failure| {
        if failure.kind == ErrorKind::Unauthorized {
            failure.hint = Some("check user name and password; nothing was written".into());
        }
        failure.into_error(what.clone())
    })?;
    let existing = AuthFile::read(&path, false)?;
    if let Some((program, server)) = existing.as_ref().and_then(|file| file.helper_of(&key)) {
        let program = program.to_owned();
        helper::store(env, &program, &server, username, password)
            .await
            .map_err(|cause| Error::new(ErrorKind::Io, what, cause))?;
        return Ok(Kept { path, key, helper: Some(program) });
    }
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{}", password.reveal()));
    change(&path, |file| {
        let auths = section(file, "auths");
        auths.insert(key.clone(), json!({ "auth": auth }));
        true
    })?;
    Ok(Kept { path, key, helper: None })
}

async fn logout_with(authfile: Option<PathBuf>, name: &str, env: &Surroundings) -> Result<Option<Kept>, Error> {
    let key = key_of(name)?;
    let path = file_of(authfile, env, &key)?;
    let Some(file) = AuthFile::read(&path, false)? else { return Ok(None) };
    let mut used_helper = None;
    if let Some((program, server)) = file.helper_of(&key) {
        // A helper that knows nothing of the server says so by failing.
        if helper::get(env, program, &server).await.ok().flatten().is_some() {
            helper::erase(env, program, &server)
                .await
                .map_err(|cause| Error::new(ErrorKind::Io, format!("log out of `{key}`"), cause))?;
            used_helper = Some(program.to_owned());
        }
    }
    let mut found = false;
    change(&path, |file| {
        let auths = section(file, "auths");
        let before = auths.len();
        auths.retain(|k, _| normal_key(k) != normal_key(&key));
        found = auths.len() < before;
        found
    })?;
    Ok((found || used_helper.is_some()).then_some(Kept { path, key, helper: used_helper }))
}

/// `host[:port][/path]` from what a user may write: with a transport or scheme, with slashes at the end.
fn key_of(name: &str) -> Result<String, Error> {
    let bare = ["docker://", "https://", "http://"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
    let bare = bare.trim_end_matches('/');
    let (host, path) = bare.split_once('/').map_or((bare, None), |(host, path)| (host, Some(path)));
    let host = canonical_host(host);
    let wrong = |e| Error::new(ErrorKind::Invalid, format!("log in to or out of `{name}`"), e);
    Registry::new(host)
        .map_err(|_| wrong("that is not the name of a registry: expected host, host:port or host/path"))?;
    match path {
        None => Ok(host.to_owned()),
        Some(path) => {
            airlock_oci::Repository::new(path)
                .map_err(|_| wrong("what follows the host is not a path of repositories"))?;
            Ok(format!("{host}/{path}"))
        }
    }
}

fn file_of(authfile: Option<PathBuf>, env: &Surroundings, key: &str) -> Result<PathBuf, Error> {
    login_file(authfile, env).ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            format!("find the credential file for `{key}`"),
            "neither HOME nor XDG_RUNTIME_DIR is set",
        )
        .hint("name the file with --authfile")
    })
}

fn section<'a>(file: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let value = file.entry(name).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object just now"),
    }
}

/// Rewrites a credential file in one step; what it holds besides stays. Only the owner may read it.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>) -> bool) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::io(format!("write credential file `{}`", path.display()), &e);
    // A link stays a link: what it leads to is replaced.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut file: Map<String, Value> = match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => serde_json::from_str(&text).map_err(|e| {
            let cause = format!("invalid JSON at line {} column {}", e.line(), e.column());
            Error::new(ErrorKind::Invalid, format!("read credential file `{}`", path.display()), cause)
        })?,
        Ok(_) => Map::new(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Map::new(),
        Err(e) => return Err(failed(e)),
    };
    if !edit(&mut file) {
        return Ok(());
    }
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(failed)?;
    // A temporary file of this crate has mode 0600 from the beginning.
    let mut temporary = tempfile::Builder::new().prefix(".auth-").tempfile_in(dir).map_err(failed)?;
    let text = serde_json::to_string_pretty(&file).map_err(|e| failed(e.into()))?;
    temporary.write_all(text.as_bytes()).and_then(|()| temporary.write_all(b"\n")).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_users_write_them() {
        for (name, key) in [
            ("docker://quay.io/", "quay.io"),
            ("https://registry-1.docker.io", "docker.io"),
            ("localhost:5000/team", "localhost:5000/team"),
        ] {
            assert_eq!(key_of(name).unwrap(), key);
        }
        for bad in ["", "quay.io/Team", "http://", "a b"] {
            assert!(key_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_keeps_the_rest_and_only_the_owner_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/auth.json");
        change(&path, |file| section(file, "auths").insert("a".into(), json!({})).is_none()).unwrap();
        let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        text["credsStore"] = json!("pass");
        std::fs::write(&path, text.to_string()).unwrap();
        change(&path, |file| section(file, "auths").remove("a").is_some()).unwrap();
        let text: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(text, json!({"auths": {}, "credsStore": "pass"}));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
