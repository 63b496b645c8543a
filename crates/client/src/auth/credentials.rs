//! Which credential a host gets: the lookup order of podman and docker (ux.md 1.3).

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::{Error, ErrorKind};

use super::file::{AuthFile, Hit, canonical_host};
use super::helper;
use crate::surroundings::Surroundings;
use crate::{HostCredentials, Options, Secret};

/// A user name and a secret, and where they came from.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The user; empty with an identity token.
    pub username: String,
    /// The password; empty with an identity token.
    pub password: Secret,
    /// A refresh token that stands for the user (OAuth2), as `docker login` stores it for some registries.
    pub identity_token: Option<Secret>,
    /// File and key.
    pub origin: Origin,
}

/// Where a credential came from; printing it is safe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The command line.
    Explicit {
        /// The host it was given for.
        host: String,
    },
    /// A credential file.
    File {
        /// The file.
        path: PathBuf,
        /// The key within.
        key: String,
    },
    /// A helper program that a credential file names.
    Helper {
        /// `docker-credential-…`.
        program: String,
        /// The file.
        path: PathBuf,
        /// The key within.
        key: String,
    },
}

/// Finds credentials by the name of the endpoint that is contacted.
pub(crate) struct Credentials {
    explicit: Vec<HostCredentials>,
    anonymous: bool,
    files: Vec<Place>,
    deprecated: Option<&'static str>,
    env: Surroundings,
    found: Mutex<HashMap<String, Found>>,
}

/// The outcome of a lookup.
#[derive(Clone)]
pub(crate) struct Found {
    /// The credential, if there is one.
    pub(crate) credential: Option<Arc<Credential>>,
    /// What went wrong on the way: a helper that failed.
    pub(crate) notes: Arc<[String]>,
}

struct Place {
    path: PathBuf,
    /// `.dockercfg`.
    flat: bool,
    /// Was named by the user: its absence is an error.
    named: bool,
}

impl Credentials {
    pub(crate) fn new(options: &Options, env: &Surroundings) -> Self {
        let (files, deprecated) = places(options.authfile.clone(), env);
        Self {
            explicit: options.credentials.clone(),
            anonymous: options.anonymous,
            files,
            deprecated,
            env: env.clone(),
            found: Mutex::default(),
        }
    }

    /// Looks up `host[:port]/path`; remembered until [`Self::forget`].
    pub(crate) async fn find(&self, host: &str, path: &str) -> Result<Found, Error> {
        let name = format!("{host}/{path}");
        if let Some(found) = self.found.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(found.clone());
        }
        let found = self.look_up(host, path).await?;
        self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(name, found.clone());
        Ok(found)
    }

    /// Lets the next lookup ask again: a helper's credential may have expired.
    pub(crate) fn forget(&self, host: &str, path: &str) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("{host}/{path}"));
    }

    /// For messages: where credentials were looked for.
    pub(crate) fn places(&self) -> String {
        if self.anonymous {
            return "credentials are switched off".into();
        }
        let existing: Vec<String> =
            self.files.iter().filter(|f| f.path.exists()).map(|f| format!("`{}`", f.path.display())).collect();
        if existing.is_empty() {
            "there is no credential file".into()
        } else {
            format!("looked in {}", existing.join(", "))
        }
    }

    /// A variable that still works but should not be used.
    pub(crate) fn deprecated(&self) -> Option<&'static str> {
        self.deprecated
    }

    async fn look_up(&self, host: &str, path: &str) -> Result<Found, Error> {
        let mut notes = Vec::new();
        if self.anonymous {
            return Ok(Found { credential: None, notes: Arc::new([]) });
        }
        if let Some(explicit) = self.explicit.iter().find(|c| canonical_host(&c.host) == canonical_host(host)) {
            let credential = Credential {
                username: explicit.username.clone(),
                password: explicit.password.clone(),
                identity_token: None,
                origin: Origin::Explicit { host: explicit.host.clone() },
            };
            return Ok(Found { credential: Some(Arc::new(credential)), notes: Arc::new([]) });
        }
        for place in &self.files {
            let Some(file) = AuthFile::read(&place.path, place.flat)? else {
                if place.named {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("read credential file `{}`", place.path.display()),
                        "no such file",
                    )
                    .hint("correct `--authfile` or REGISTRY_AUTH_FILE, or write the file with `airlock login`"));
                }
                continue;
            };
            let hit = file.find(host, path).map_err(|cause| {
                Error::new(ErrorKind::Invalid, format!("read credential file `{}`", place.path.display()), cause)
            })?;
            let credential = match hit {
                None => continue,
                Some(Hit::Entry { key, username, password, identity_token }) => Credential {
                    username,
                    password,
                    identity_token,
                    origin: Origin::File { path: place.path.clone(), key },
                },
                Some(Hit::Helper { key, program, server }) => match helper::get(&self.env, &program, &server).await {
                    Ok(None) => continue,
                    Err(text) => {
                        notes.push(text);
                        continue;
                    }
                    Ok(Some((username, secret))) => {
                        let origin = Origin::Helper { program, path: place.path.clone(), key };
                        // The helpers' convention for an identity token.
                        if username == "<token>" {
                            let (username, password) = (String::new(), Secret::default());
                            Credential { username, password, identity_token: Some(secret), origin }
                        } else {
                            Credential { username, password: secret, identity_token: None, origin }
                        }
                    }
                },
            };
            return Ok(Found { credential: Some(Arc::new(credential)), notes: notes.into() });
        }
        Ok(Found { credential: None, notes: notes.into() })
    }
}

fn places(authfile: Option<PathBuf>, env: &Surroundings) -> (Vec<Place>, Option<&'static str>) {
    if let Some(path) = authfile.or_else(|| env.path("REGISTRY_AUTH_FILE")) {
        return (vec![Place { path, flat: false, named: true }], None);
    }
    let place = |path: PathBuf, flat| Place { path, flat, named: false };
    let mut podman = Vec::new();
    if let Some(dir) = env.path("XDG_RUNTIME_DIR") {
        podman.push(place(dir.join("containers/auth.json"), false));
    }
    if let Some(uid) = own_uid() {
        podman.push(place(PathBuf::from(format!("/run/containers/{uid}/auth.json")), false));
    }
    if let Some(dir) = env.config_home() {
        podman.push(place(dir.join("containers/auth.json"), false));
    }
    let mut docker = Vec::new();
    if let Some(dir) = env.path("DOCKER_CONFIG").or_else(|| env.home().map(|home| home.join(".docker"))) {
        docker.push(place(dir.join("config.json"), false));
    }
    if let Some(home) = env.home() {
        docker.push(place(home.join(".dockercfg"), true));
    }
    if env.var("REGISTRY_AUTH_PREFERENCE").is_some_and(|v| v.eq_ignore_ascii_case("docker")) {
        docker.extend(podman);
        let text = "REGISTRY_AUTH_PREFERENCE=docker is deprecated; name the file with --authfile instead";
        return (docker, Some(text));
    }
    podman.extend(docker);
    (podman, None)
}

/// Where `login` writes: the first file of the lookup order that lasts as long as the user would expect.
pub(crate) fn login_file(authfile: Option<PathBuf>, env: &Surroundings) -> Option<PathBuf> {
    authfile
        .or_else(|| env.path("REGISTRY_AUTH_FILE"))
        .or_else(|| env.path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")))
        .or_else(|| env.config_home().map(|dir| dir.join("containers/auth.json")))
}

#[cfg(unix)]
fn own_uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").ok().map(|meta| meta.uid())
}

#[cfg(not(unix))]
fn own_uid() -> Option<u32> {
    None
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit { host } => write!(f, "the credentials given on the command line for `{host}`"),
            Self::File { path, key } => write!(f, "credential `{key}` of `{}`", path.display()),
            Self::Helper { program, path, key } => {
                write!(f, "docker-credential-{program} (`{key}` of `{}`)", path.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &std::path::Path, name: &str, host: &str, user: &str) {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = serde_json::json!({ host: {"username": user, "password": "p"} });
        let text = if name.ends_with("cfg") { text } else { serde_json::json!({ "auths": text }) };
        std::fs::write(path, text.to_string()).unwrap();
    }

    async fn user(env: &[(&str, &str)], options: &Options, host: &str) -> Option<String> {
        let credentials = Credentials::new(options, &Surroundings::of(env));
        credentials.find(host, "a/b").await.unwrap().credential.map(|c| c.username.clone())
    }

    #[tokio::test]
    async fn files_are_asked_in_order_and_the_first_hit_for_a_name_counts() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let run = format!("{home}/run");
        write(dir.path(), "run/containers/auth.json", "one.io", "runtime");
        write(dir.path(), ".config/containers/auth.json", "two.io", "config");
        write(dir.path(), ".docker/config.json", "two.io", "docker");
        write(dir.path(), ".dockercfg", "three.io", "flat");
        let env = [("HOME", home), ("XDG_RUNTIME_DIR", run.as_str())];
        let options = Options::default();
        assert_eq!(user(&env, &options, "one.io").await.as_deref(), Some("runtime"));
        assert_eq!(user(&env, &options, "two.io").await.as_deref(), Some("config"));
        assert_eq!(user(&env, &options, "three.io").await.as_deref(), Some("flat"));
        assert_eq!(user(&env, &options, "four.io").await, None);
        let swapped = [env[0], env[1], ("REGISTRY_AUTH_PREFERENCE", "docker")];
        assert_eq!(user(&swapped, &options, "two.io").await.as_deref(), Some("docker"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn helpers_are_asked_by_their_protocol() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let script = r#"#!/bin/sh
[ "$1" = get ] || exit 3
case $(cat) in
one.io) echo '{"ServerURL":"one.io","Username":"me","Secret":"s"}' ;;
two.io) echo '{"Username":"<token>","Secret":"refresh"}' ;;
three.io) echo 'credentials not found in native keychain'; exit 1 ;;
*) echo 'the vault is locked' >&2; exit 1 ;;
esac
"#;
        let program = dir.path().join("docker-credential-test");
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.path().join("auth.json");
        std::fs::write(&file, r#"{"credsStore":"test","credHelpers":{"bad.io":"../evil"}}"#).unwrap();
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let options = Options { authfile: Some(file), ..Options::default() };
        let credentials = Credentials::new(&options, &Surroundings::of(&[("PATH", &path)]));
        let one = credentials.find("one.io", "a").await.unwrap().credential.unwrap();
        assert_eq!((one.username.as_str(), one.password.reveal()), ("me", "s"));
        assert!(one.origin.to_string().contains("docker-credential-test"), "{}", one.origin);
        let two = credentials.find("two.io", "a").await.unwrap().credential.unwrap();
        assert_eq!(two.identity_token.as_ref().map(Secret::reveal), Some("refresh"));
        let three = credentials.find("three.io", "a").await.unwrap();
        assert!(three.credential.is_none() && three.notes.is_empty());
        let four = credentials.find("four.io", "a").await.unwrap();
        assert!(four.credential.is_none() && four.notes[0].contains("the vault is locked"), "{:?}", four.notes);
        let bad = credentials.find("bad.io", "a").await.unwrap();
        assert!(bad.notes[0].contains("not the name of a credential helper"), "{:?}", bad.notes);
    }

    #[tokio::test]
    async fn a_named_file_is_the_only_one_and_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        write(dir.path(), ".docker/config.json", "two.io", "docker");
        write(dir.path(), "mine.json", "one.io", "mine");
        let options = Options { authfile: Some(dir.path().join("mine.json")), ..Options::default() };
        assert_eq!(user(&[("HOME", home)], &options, "one.io").await.as_deref(), Some("mine"));
        assert_eq!(user(&[("HOME", home)], &options, "two.io").await, None);
        let missing = Options { authfile: Some(dir.path().join("gone.json")), ..Options::default() };
        let credentials = Credentials::new(&missing, &Surroundings::of(&[]));
        let error = credentials.find("one.io", "a").await.err().unwrap();
        assert!(error.to_string().contains("gone.json"), "{error}");
    }

    #[tokio::test]
    async fn explicit_credentials_are_for_their_host_only() {
        let explicit = HostCredentials { host: "one.io".into(), username: "me".into(), password: Secret::new("x") };
        let options = Options { credentials: vec![explicit], ..Options::default() };
        assert_eq!(user(&[], &options, "one.io").await.as_deref(), Some("me"));
        assert_eq!(user(&[], &options, "one.io:5000").await, None);
    }
}
