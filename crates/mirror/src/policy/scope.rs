//! From an image's name to the requirements that apply to it: the most specific scope wins, and only that one counts.

use std::path::{Path, PathBuf};

use airlock_oci::Reference;

use super::Policy;
use super::file::Requirement;

/// The requirements that apply, and where in the file they stand.
#[derive(Debug)]
pub(super) struct Applicable<'a> {
    pub requirements: &'a [Requirement],
    /// `default`, or ``transports.docker["quay.io/a"]``.
    pub place: String,
}

impl Policy {
    /// What applies to an image of a registry.
    pub(super) fn for_image(&self, name: &Reference) -> Applicable<'_> {
        self.first("docker", &self.docker, scopes(name))
    }

    /// What applies to an OCI layout in a directory.
    pub(super) fn for_layout(&self, directory: &Path) -> Applicable<'_> {
        self.first("oci", &self.oci, directory_scopes(directory))
    }

    fn first<'a>(
        &'a self,
        transport: &str,
        table: &'a std::collections::BTreeMap<String, Vec<Requirement>>,
        scopes: Vec<String>,
    ) -> Applicable<'a> {
        for scope in scopes.into_iter().chain([String::new()]) {
            if let Some(requirements) = table.get(&scope) {
                return Applicable { requirements, place: format!("transports.{transport}[\"{scope}\"]") };
            }
        }
        Applicable { requirements: &self.default, place: "default".into() }
    }
}

/// The scopes of a name, most specific first: the image, its repository, each folder above, the host with its port, and then wildcards
/// of the host's domains (which know no port).
fn scopes(name: &Reference) -> Vec<String> {
    let pulled = name.clone().pulled();
    let mut scopes = vec![pulled.to_string()];
    let mut prefix = pulled.name();
    loop {
        scopes.push(prefix.clone());
        match prefix.rfind('/') {
            Some(slash) => prefix.truncate(slash),
            None => break,
        }
    }
    if !prefix.starts_with('[') {
        let mut host = prefix.split(':').next().unwrap_or_default();
        while let Some((_, parent)) = host.split_once('.') {
            scopes.push(format!("*.{parent}"));
            host = parent;
        }
    }
    scopes
}

/// The directory without symbolic links, and each above it. The root is none: the transport's default stands for it.
fn directory_scopes(directory: &Path) -> Vec<String> {
    let real: PathBuf =
        directory.canonicalize().or_else(|_| std::path::absolute(directory)).unwrap_or_else(|_| directory.to_owned());
    real.ancestors().filter(|p| p.parent().is_some()).map(|p| p.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::parse;
    use super::*;

    /// Which scope of a policy with these scopes a name falls under.
    fn place(scopes: &[&str], name: &str) -> String {
        let table: Vec<String> = scopes.iter().map(|s| format!("\"{s}\":[{{\"type\":\"reject\"}}]")).collect();
        let text = format!(
            r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"docker":{{{}}}}}}}"#,
            table.join(",")
        );
        let policy = parse(Path::new("policy.json"), text.as_bytes()).unwrap();
        let place = policy.for_image(&name.parse().unwrap()).place;
        place.trim_start_matches("transports.docker[\"").trim_end_matches("\"]").to_owned()
    }

    #[test]
    fn the_most_specific_scope_wins() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let by_digest = format!("quay.io/a/b@{digest}");
        let all = [
            "",
            "quay.io",
            "quay.io/a",
            "quay.io/a/b",
            "quay.io/a/b:1",
            &by_digest,
            "*.io",
            "h:5000",
            "*.corp.example",
        ];
        for (name, expected) in [
            ("quay.io/a/b:1", "quay.io/a/b:1"),
            ("quay.io/a/b:2", "quay.io/a/b"),
            (&by_digest, &by_digest),
            // With a digest the tag means nothing.
            (&format!("quay.io/a/b:1@{digest}"), &by_digest),
            (&format!("quay.io/a/b:1@sha256:{}", "b".repeat(64)), "quay.io/a/b"),
            ("quay.io/a/bc:1", "quay.io/a"),
            ("quay.io/a/b/c:1", "quay.io/a/b"),
            ("quay.io/ab/c:1", "quay.io"),
            ("ghcr.io/x/y:1", "*.io"),
            ("h:5000/x:1", "h:5000"),
            ("h:5001/x:1", ""),
            ("a.b.corp.example:8443/x:1", "*.corp.example"),
            // A wildcard stands for at least one label.
            ("corp.example/x:1", ""),
            ("busybox", "*.io"),
        ] {
            assert_eq!(place(&all, name), expected, "{name}");
        }
    }

    #[test]
    fn names_are_looked_up_in_their_expanded_form() {
        assert_eq!(place(&["docker.io/library/busybox:latest"], "busybox"), "docker.io/library/busybox:latest");
        assert_eq!(place(&["busybox", "docker.io/busybox"], "busybox"), "default");
        assert_eq!(place(&["[::1]:5000", "*.1"], "[::1]:5000/a:1"), "[::1]:5000");
    }

    #[test]
    fn without_a_scope_the_default_holds() {
        assert_eq!(place(&["quay.io"], "ghcr.io/a/b:1"), "default");
    }

    #[test]
    fn layouts_go_by_their_directory_and_those_above() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        let (layout, link) = (real.join("layout"), real.join("link"));
        std::fs::create_dir(&layout).unwrap();
        std::os::unix::fs::symlink(&layout, &link).unwrap();
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"oci":{{"{}":[{{"type":"insecureAcceptAnything"}}]}}}}}}"#,
            real.display()
        );
        let policy = parse(Path::new("policy.json"), text.as_bytes()).unwrap();
        let expected = format!("transports.oci[\"{}\"]", real.display());
        assert_eq!(policy.for_layout(&link).place, expected);
        assert_eq!(policy.for_layout(Path::new("/nowhere")).place, "default");
    }
}
