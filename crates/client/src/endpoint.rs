//! Which physical places a pull of a logical reference may be served from, in order: `registries.conf` decides.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::registries_conf::{self, Config, LoadError, Lookup};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Registry, Repository};

use crate::RegistriesConf;
use crate::surroundings::Surroundings;

/// One place that a pull is tried at.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The host.
    pub(crate) registry: Registry,
    /// The repository there.
    pub(crate) repository: Repository,
    /// Skip certificate checks; plain HTTP is a way out.
    pub(crate) insecure: bool,
    /// Must not be contacted, because of this table of registries.conf.
    pub(crate) blocked_by: Option<String>,
}

/// What is asked for; mirrors may serve digests only or tags only.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted<'a> {
    /// The reference as it stands.
    Reference,
    /// Content that belongs to a manifest, whichever way that was pulled.
    Content(&'a Digest),
    /// A list; mirrors serve no lists.
    List,
}

/// What decides the endpoints of a reference: its name, which of tag and digest it has, and what is wanted of it.
type Question = (Registry, Repository, bool, bool, Kind);

/// [`Wanted`] without the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Reference,
    Content,
    List,
}

/// The loaded configuration.
pub(crate) struct Endpoints {
    config: Config,
    /// For messages.
    file: String,
    /// A run asks the same repositories again and again.
    known: Mutex<HashMap<Question, Arc<[Endpoint]>>>,
}

/// Answers that are remembered; beyond, all are forgotten.
const MAX_KNOWN: usize = 4096;

impl Endpoints {
    /// Reads the files that count.
    pub(crate) fn load(from: &RegistriesConf, env: &Surroundings) -> Result<Self, Error> {
        let mut lookup = Lookup {
            main: env.path("CONTAINERS_REGISTRIES_CONF").or_else(|| env.path("REGISTRIES_CONFIG_PATH")),
            dropin_dir: env.path("CONTAINERS_REGISTRIES_CONF_DIR"),
            home: env.home(),
        };
        let (mut from, mut over) = (from, Vec::new());
        while let RegistriesConf::Over { below, name, text } = from {
            over.insert(0, (format!("{name}{ABOVE}"), text.clone()));
            from = below;
        }
        let without_files = |over: &[(String, String)]| {
            let config = Config::parse(None, over).map_err(|error| unusable(&error))?;
            let file = over.last().map(|(name, _)| given_name(name).to_owned());
            Ok(Self::new(config, file.unwrap_or_default()))
        };
        match from {
            RegistriesConf::Ignore => return without_files(&over),
            RegistriesConf::Lookup | RegistriesConf::Over { .. } => {}
            RegistriesConf::File { path, dropins } => {
                lookup.main = Some(path.clone());
                lookup.dropin_dir = dropins.clone().or(lookup.dropin_dir);
            }
        }
        let order = lookup.order();
        for (at, files) in order.iter().enumerate() {
            let text = read(&files.main)?;
            if text.is_none() && at + 1 < order.len() {
                continue;
            }
            let file = files.main.display().to_string();
            if text.is_none() && files.required {
                return Err(unusable(&LoadError::missing(file)));
            }
            let mut dropins = Vec::new();
            for dir in &files.dropin_dirs {
                dropins.extend(read_dropins(dir)?);
            }
            dropins.extend(over);
            let config = Config::parse(text.as_deref(), &dropins).map_err(|mut error| {
                // The resolver knows the main file by a fixed name; the user knows it by its path.
                if error.file == registries_conf::MAIN_FILE {
                    error.file.clone_from(&file);
                }
                unusable(&error)
            })?;
            return Ok(Self::new(config, file));
        }
        without_files(&over)
    }

    fn new(config: Config, file: String) -> Self {
        Self { config, file, known: Mutex::default() }
    }

    /// The places for a reference, at least one; the source itself is the last.
    pub(crate) fn of(&self, reference: &Reference, wanted: Wanted<'_>) -> Result<Arc<[Endpoint]>, Error> {
        let kind = match wanted {
            Wanted::Reference => Kind::Reference,
            Wanted::Content(_) => Kind::Content,
            Wanted::List => Kind::List,
        };
        let (registry, repository) = (reference.registry().clone(), reference.repository().clone());
        let question = (registry, repository, reference.tag().is_some(), reference.digest().is_some(), kind);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&question) {
            return Ok(Arc::clone(found));
        }
        let found: Arc<[Endpoint]> = self.resolve(reference, wanted)?.into();
        let mut known = known();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(question, Arc::clone(&found));
        Ok(found)
    }

    fn resolve(&self, reference: &Reference, wanted: Wanted<'_>) -> Result<Vec<Endpoint>, Error> {
        let resolve = |reference: &Reference| {
            self.config.endpoints(reference).map_err(|e| {
                Error::new(ErrorKind::Invalid, format!("find the endpoints of `{reference}` by `{}`", self.file), e.cause)
                    .hint("correct the `location` or `prefix` that does this in registries.conf; every pull of this name fails so")
            })
        };
        let mut found = resolve(reference)?;
        match wanted {
            Wanted::Reference => {}
            Wanted::List => found.retain(|e| e.is_source),
            Wanted::Content(digest) => {
                // A mirror for digests and one for tags may both have served the manifest; both may have its content.
                for other in resolve(&reference.with_digest(digest.clone()))? {
                    if !found.iter().any(|e| e.reference.name() == other.reference.name()) {
                        found.insert(found.len().saturating_sub(1), other);
                    }
                }
            }
        }
        let endpoint = |e: registries_conf::Endpoint| Endpoint {
            registry: e.reference.registry().clone(),
            repository: e.reference.repository().clone(),
            insecure: e.insecure,
            blocked_by: e.blocked.then(|| e.blocked_by.unwrap_or_else(|| self.file.clone())),
        };
        Ok(found.into_iter().map(endpoint).collect())
    }

    /// Whether a registry that is written to may be spoken to without certificate checks. Pushes are never rewritten, but they are blocked
    /// like pulls.
    pub(crate) fn insecure_for_push(&self, registry: &Registry, namespace: Option<&Repository>) -> Result<bool, Error> {
        let name = namespace.map_or_else(|| registry.to_string(), |namespace| format!("{registry}/{namespace}"));
        let Some(table) = self.config.table(&name) else { return Ok(false) };
        if table.blocked {
            let cause = format!("registry `{}` is blocked in `{}`", table.prefix, self.file);
            return Err(Error::new(ErrorKind::Refused, format!("push to `{name}`"), cause)
                .hint("remove `blocked = true` there if this registry may be contacted"));
        }
        Ok(table.insecure)
    }
}

/// Drop-ins count by the order of their directories, and only with this ending; a text above them is a file of a directory after all others.
const ABOVE: &str = "/above.conf";

/// The name of a text above the files, as it was given.
fn given_name(file: &str) -> &str {
    file.strip_suffix(ABOVE).unwrap_or(file)
}

fn unusable(error: &LoadError) -> Error {
    let place = match error.line {
        0 => String::new(),
        line => format!(":{line}:{}", error.column),
    };
    let what = format!("read `{}{place}`", given_name(&error.file));
    Error::new(ErrorKind::Invalid, what, format!("{} ({})", error.cause, error.code)).hint(
        "with a wrong registries.conf nothing can be pulled, here and on every node that has it; correct it first",
    )
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io(format!("read `{}`", path.display()), &e)),
    }
}

fn read_dropins(dir: &Path) -> Result<Vec<(String, String)>, Error> {
    let what = |e: &std::io::Error| Error::io(format!("read the directory `{}`", dir.display()), e);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(what(&e)),
    };
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|e| what(&e))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "conf") && !path.is_dir());
    paths.sort();
    let mut texts = Vec::with_capacity(paths.len());
    for path in paths {
        // A file that vanished since the listing is skipped, as containers/image does.
        if let Some(text) = read(&path)? {
            texts.push((path.display().to_string(), text));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Endpoints, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, text).unwrap();
        let from = RegistriesConf::File { path, dropins: Some(dir.path().join("none")) };
        Endpoints::load(&from, &Surroundings::of(&[]))
    }

    fn names(endpoints: &Endpoints, reference: &str, wanted: Wanted<'_>) -> Vec<String> {
        let reference = reference.parse().unwrap();
        // Asked twice, since the second answer comes from memory.
        let first = endpoints.of(&reference, wanted).unwrap();
        assert!(Arc::ptr_eq(&first, &endpoints.of(&reference, wanted).unwrap()));
        first.iter().map(|e| format!("{}/{}", e.registry, e.repository)).collect()
    }

    #[test]
    fn a_text_above_the_files_has_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(
            &path,
            "[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation = \"below.lab/a\"\n\
             [[registry]]\nlocation = \"b.io\"\n[[registry.mirror]]\nlocation = \"below.lab/b\"\n",
        )
        .unwrap();
        let text = "[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]\nlocation = \"above.lab/a\"\n".to_owned();
        let over =
            |below| RegistriesConf::Over { below: Box::new(below), name: "rules.yaml".to_owned(), text: text.clone() };
        let file = RegistriesConf::File { path, dropins: Some(dir.path().join("none")) };
        let first = |from: &RegistriesConf, name: &str| {
            let endpoints = Endpoints::load(from, &Surroundings::of(&[])).unwrap();
            let endpoint = &endpoints.of(&name.parse().unwrap(), Wanted::Reference).unwrap()[0];
            format!("{}/{}", endpoint.registry, endpoint.repository)
        };
        assert_eq!(first(&over(file.clone()), "a.io/x:1"), "above.lab/a/x");
        assert_eq!(first(&over(file), "b.io/x:1"), "below.lab/b/x");
        assert_eq!(first(&over(RegistriesConf::Ignore), "a.io/x:1"), "above.lab/a/x");
        let wrong = over(RegistriesConf::Ignore);
        let RegistriesConf::Over { below, name, .. } = wrong else { unreachable!() };
        let wrong = RegistriesConf::Over { below, name, text: "[[registry]".to_owned() };
        let error = Endpoints::load(&wrong, &Surroundings::of(&[])).err().unwrap();
        assert!(error.to_string().contains("rules.yaml"), "{error}");
    }

    #[test]
    fn content_may_come_from_mirrors_of_both_kinds_and_lists_only_from_the_source() {
        let endpoints = load(
            "[[registry]]\nprefix = \"quay.io/a\"\nlocation = \"quay.io/a\"\n\
             [[registry.mirror]]\nlocation = \"one.lab/a\"\npull-from-mirror = \"digest-only\"\n\
             [[registry.mirror]]\nlocation = \"two.lab/a\"\npull-from-mirror = \"tag-only\"\n",
        )
        .unwrap();
        let digest = Digest::of(b"x");
        assert_eq!(names(&endpoints, "quay.io/a/b:1", Wanted::Reference), ["two.lab/a/b", "quay.io/a/b"]);
        assert_eq!(
            names(&endpoints, "quay.io/a/b:1", Wanted::Content(&digest)),
            ["two.lab/a/b", "one.lab/a/b", "quay.io/a/b"]
        );
        assert_eq!(names(&endpoints, "quay.io/a/b:1", Wanted::List), ["quay.io/a/b"]);
    }

    #[test]
    fn a_wrong_file_is_named_with_its_place() {
        let error = load("[[registry]]\nlocation = 1\n").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.what().contains("registries.conf:2:"), "{error}");
        let from = RegistriesConf::File { path: "/nonexistent/r.conf".into(), dropins: None };
        let error = Endpoints::load(&from, &Surroundings::of(&[])).err().unwrap();
        assert!(error.to_string().contains("/nonexistent/r.conf"), "{error}");
    }

    #[test]
    fn the_environment_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        std::fs::write(&path, "[[registry]]\nlocation = \"a.lab\"\nblocked = true\n").unwrap();
        let none = dir.path().join("none");
        let env = Surroundings::of(&[
            ("CONTAINERS_REGISTRIES_CONF", path.to_str().unwrap()),
            ("CONTAINERS_REGISTRIES_CONF_DIR", none.to_str().unwrap()),
        ]);
        let endpoints = Endpoints::load(&RegistriesConf::Lookup, &env).unwrap();
        let found = endpoints.of(&"a.lab/x:1".parse().unwrap(), Wanted::Reference).unwrap();
        assert!(found[0].blocked_by.is_some());
        let error = endpoints.insecure_for_push(&Registry::new("a.lab").unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("blocked"), "{error}");
    }
}
