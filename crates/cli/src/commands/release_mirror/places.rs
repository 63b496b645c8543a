//! Where a release is read, and where each of its images goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_content::release::Component;
use airlock_oci::{Error, ErrorKind, Reference, Source, Tag};

use crate::args::release::MirrorArgs;
use crate::commands::places::{Destination, Origin, Spot, TREE, is_in_tree};
use crate::commands::release_payload;
use crate::exit::Failure;

/// Where `--to-dir` puts a release.
const DEFAULT_TO: &str = "file://openshift/release";
/// What the release image is called where a component is named.
const RELEASE: &str = "release";
const COMPONENT: &str = "${component}";
const VERSION: &str = "${version}";

/// What `--to` and `--to-release-image` say.
#[derive(Debug)]
pub(super) struct Targets {
    to: String,
    /// `--to` is a pattern.
    pattern: bool,
    release_image: Option<String>,
    /// `4.16.0`, as it may stand in a tag.
    version: String,
    /// `x86_64`, `multi`, …
    machine: String,
}

/// The release's name. Of a file tree it has a host that no registry has.
pub(super) fn release(args: &MirrorArgs) -> Result<Reference, Failure> {
    let text = args.release.as_deref().or(args.from.as_deref()).ok_or_else(|| {
        Failure::usage(
            "no release",
            "name one, such as quay.io/openshift-release-dev/ocp-release:4.16.0-x86_64, or file://openshift/release:4.16.0-x86_64 with --from-dir",
        )
    })?;
    let Some(name) = text.strip_prefix("file://") else {
        let name: Reference = text.strip_prefix("docker://").unwrap_or(text).parse().map_err(|e| {
            Failure::usage(
                format!("`{text}`: {e}"),
                "write HOST/NAME:TAG, HOST/NAME@sha256:… or, with --from-dir, file://NAME:TAG",
            )
        })?;
        let versions = text.split_once('.').is_some_and(|(major, _)| major.bytes().all(|b| b.is_ascii_digit()));
        if name.tag().is_none() && name.digest().is_none() {
            let hint = if versions && !text.contains('/') {
                format!("name its image: quay.io/openshift-release-dev/ocp-release:{text}-x86_64")
            } else {
                "add a tag or a digest".to_owned()
            };
            return Err(Failure::usage(format!("`{text}` names no single image"), hint));
        }
        return Ok(name);
    };
    if args.from_dir.is_none() {
        return Err(Failure::usage(
            format!("`{text}` lies in a file tree"),
            "say in which: --from-dir DIR (what was --to-dir when it was written)",
        ));
    }
    let name = name.strip_prefix('/').unwrap_or(name);
    format!("{TREE}/{name}").parse().map_err(|e| Failure::usage(format!("`{text}`: {e}"), "write file://NAME:TAG"))
}

/// The name under which a component is read: of a release in a file tree or a mirror there, if that has it, so that nothing is asked of
/// the network in vain; else where the release says.
pub(super) async fn component(origin: &Origin, release: &Reference, component: &Component) -> Result<Reference, Error> {
    let image = &component.image;
    let Some(digest) = image.digest() else { return Ok(image.clone()) };
    if let (true, Some(tree)) = (is_in_tree(release), &origin.tree) {
        let (tree, first, wanted) = (Arc::clone(tree.storage()), release.repository().clone(), digest.clone());
        let found = tokio::task::spawn_blocking(move || tree.find(&wanted, &first)).await;
        let found = found.map_err(|e| Error::new(ErrorKind::Io, "look into the file tree", e))??;
        let name = |repository| Reference::new(release.registry().clone(), repository, None, Some(digest.clone()));
        return Ok(found.map_or_else(|| image.clone(), name));
    }
    for name in release_payload::beside(release, image) {
        // What a mirror answers to a name that it does not have is not always "not found".
        if Source::resolve(origin, &name).await.is_ok() {
            return Ok(name);
        }
    }
    Ok(image.clone())
}

/// Reads `HOST/NAME[:TAG]` or `file://NAME[:TAG]`.
fn place(text: &str, flag: &str) -> Result<(Spot, Option<Tag>), Failure> {
    let bad = |why: String| {
        Failure::usage(format!("{flag} `{text}`: {why}"), "write HOST/NAME, or file://NAME together with --to-dir DIR")
    };
    if text.starts_with("s3://") {
        return Err(bad("object stores are not written to".to_owned()));
    }
    let (file, name) = match text.strip_prefix("file://") {
        Some(name) => (true, format!("{TREE}/{}", name.strip_prefix('/').unwrap_or(name))),
        None => (false, text.strip_prefix("docker://").unwrap_or(text).to_owned()),
    };
    let name: Reference = name.parse().map_err(|e: airlock_oci::reference::ParseError| bad(e.to_string()))?;
    if name.digest().is_some() {
        return Err(bad("a destination has no digest".to_owned()));
    }
    let registry = (!file).then(|| name.registry().clone());
    Ok((Spot { registry, repository: name.repository().clone() }, name.tag().cloned()))
}

impl Targets {
    /// Reads the flags. The version and the architecture of the release are known only later; see [`Targets::of`].
    pub(super) fn read(args: &MirrorArgs) -> Result<Self, Failure> {
        let to = args.to.clone().or_else(|| args.to_dir.is_some().then(|| DEFAULT_TO.to_owned())).ok_or_else(|| {
            Failure::usage("no destination", "add --to HOST/NAME for a registry, or --to-dir DIR for a file tree")
        })?;
        let pattern = to.contains(COMPONENT);
        if pattern {
            let name_end = to.rfind('/').and_then(|slash| to[slash..].find(':').map(|colon| slash + colon));
            if name_end.is_none_or(|end| to[..end].contains(COMPONENT)) {
                return Err(Failure::usage(
                    format!("--to `{to}`: {COMPONENT} must stand in the tag only"),
                    format!(
                        "a cluster finds components by digest in one repository; write HOST/NAME:{VERSION}-{COMPONENT}, \
                         or build a release of your own with `oc adm release new --mirror`"
                    ),
                ));
            }
        }
        // What is wrong with the flags is said before anything is asked of anybody, by way of some release.
        let (version, machine) = ("4.0.0".to_owned(), "x86_64".to_owned());
        let targets = Self { to, pattern, release_image: args.to_release_image.clone(), version, machine };
        let spots = [targets.component("cli")?.spot, targets.release()?.spot];
        if args.to_dir.is_none() && spots.iter().any(|s| s.registry.is_none()) {
            return Err(Failure::usage("a file:// destination lies in a file tree", "say where: --to-dir DIR"));
        }
        Ok(targets)
    }

    /// For this release.
    pub(super) fn of(self, version: &str, machine: &str) -> Self {
        // Build metadata has a `+`, a tag cannot.
        Self { version: version.replace('+', "-"), machine: machine.to_owned(), ..self }
    }

    /// Where a component goes.
    pub(super) fn component(&self, name: &str) -> Result<Destination, Failure> {
        self.image(name, &format!("{}-{}-{name}", self.version, self.machine))
    }

    /// Where the release image goes.
    pub(super) fn release(&self) -> Result<Destination, Failure> {
        let usual = format!("{}-{}", self.version, self.machine);
        let Some(text) = &self.release_image else { return self.image(RELEASE, &usual) };
        let (spot, given) = place(text, "--to-release-image")?;
        Ok(Destination { spot, tag: given.map_or_else(|| tag(&usual), Ok)? })
    }

    /// What stands in `Mirror prefix`: the repository, or the pattern as it was given.
    pub(super) fn prefix(&self) -> Result<(bool, String), Failure> {
        if self.pattern {
            return Ok((true, format!("{}-{}", self.to.replace(VERSION, &self.version), self.machine)));
        }
        Ok((false, self.component("cli")?.spot.name()))
    }

    fn image(&self, component: &str, usual: &str) -> Result<Destination, Failure> {
        let mut text = self.to.replace(VERSION, &self.version);
        if self.pattern {
            text = format!("{}-{}", text.replace(COMPONENT, component), self.machine);
        }
        let (spot, given) = place(&text, "--to")?;
        if given.is_some() && !self.pattern {
            return Err(Failure::usage(
                format!("--to `{}` has a tag", self.to),
                format!(
                    "tags are made of version, architecture and component; leave it out, or write a pattern with {COMPONENT}"
                ),
            ));
        }
        Ok(Destination { spot, tag: given.map_or_else(|| tag(usual), Ok)? })
    }
}

fn tag(text: &str) -> Result<Tag, Failure> {
    Tag::new(text).map_err(|e| Failure::from(Error::new(ErrorKind::Refused, format!("make the tag `{text}`"), e)))
}

/// The folder of signatures of a file tree.
pub(super) fn signatures(tree: &Path) -> PathBuf {
    tree.join("config")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: MirrorArgs,
    }

    fn targets(flags: &[&str]) -> Result<Targets, String> {
        let args = Line::try_parse_from(["x"].iter().chain(flags)).unwrap().args;
        Targets::read(&args).map(|t| t.of("4.16.0", "x86_64")).map_err(|f| match f {
            Failure::Usage { message, .. } => message,
            other => format!("{other:?}"),
        })
    }

    fn both(flags: &[&str]) -> (String, String) {
        let targets = targets(flags).unwrap();
        (targets.component("etcd").unwrap().to_string(), targets.release().unwrap().to_string())
    }

    #[test]
    fn images_are_named_as_oc_names_them() {
        let plain = |c: &str, r: &str| (c.to_owned(), r.to_owned());
        assert_eq!(both(&["--to", "h.io/ocp4"]), plain("h.io/ocp4:4.16.0-x86_64-etcd", "h.io/ocp4:4.16.0-x86_64"));
        assert_eq!(
            both(&["--to-dir", "d"]),
            plain("file://openshift/release:4.16.0-x86_64-etcd", "file://openshift/release:4.16.0-x86_64")
        );
        assert_eq!(
            both(&["--to", "h.io/ocp4:v${version}-${component}"]),
            plain("h.io/ocp4:v4.16.0-etcd-x86_64", "h.io/ocp4:v4.16.0-release-x86_64")
        );
        assert_eq!(
            both(&["--to", "h.io/ocp-${version}", "--to-release-image", "other:5000/r:mine"]),
            plain("h.io/ocp-4.16.0:4.16.0-x86_64-etcd", "other:5000/r:mine")
        );
        assert_eq!(both(&["--to", "h.io/a", "--to-release-image", "h.io/b"]).1, "h.io/b:4.16.0-x86_64");
        let prefix = |to: &str| targets(&["--to", to]).unwrap().prefix().unwrap();
        assert_eq!(prefix("h.io/a"), (false, "h.io/a".into()));
        assert_eq!(prefix("h.io/a:${component}"), (true, "h.io/a:${component}-x86_64".into()));
    }

    #[test]
    fn destinations_that_a_cluster_could_not_use_are_refused() {
        for (flags, says) in [
            (&["--to", "h.io/ocp4:tag"][..], "has a tag"),
            (&["--to", "h.io/${component}"], "in the tag only"),
            (&["--to", "h.io/${component}:${component}"], "in the tag only"),
            (&["--to", "file://a"], "file tree"),
            (&["--to", "s3://h/r/b/p"], "object stores"),
            (&["--to", "h.io/a", "--to-release-image", "file://b"], "file tree"),
            (&[], "no destination"),
        ] {
            let said = targets(flags).unwrap_err();
            assert!(said.contains(says), "{flags:?}: {said}");
        }
    }
}
