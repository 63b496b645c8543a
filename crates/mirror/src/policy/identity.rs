//! Whether the name in a signature is one that the policy takes for the image that is being mirrored.

use airlock_oci::{Reference, Registry, Repository};
use serde::{Deserialize, Deserializer};

use super::json::object_as;

/// How the name in a signature must relate to the image's (containers-policy.json(5), `signedIdentity`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// The same repository and the same tag or digest.
    MatchExact,
    /// As [`Identity::MatchExact`], but for an image that is asked for by digest the repository suffices.
    MatchRepoDigestOrExact,
    /// The same repository.
    MatchRepository,
    /// Exactly this name, whatever the image is called.
    ExactReference(Reference),
    /// This repository, whatever the image is called.
    ExactRepository(Reference),
    /// As [`Identity::MatchRepoDigestOrExact`] after `prefix` in the image's name has been replaced by `signed`.
    Remap {
        /// Of the image's name.
        prefix: String,
        /// Of the signature's.
        signed: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Wire {
    #[serde(rename = "type")]
    kind: String,
    docker_reference: Option<String>,
    docker_repository: Option<String>,
    prefix: Option<String>,
    signed_prefix: Option<String>,
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object_as::<Wire, Self, D>(deserializer)
    }
}

impl TryFrom<Wire> for Identity {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let Wire { kind, docker_reference, docker_repository, prefix, signed_prefix } = wire;
        let parse = |text: &str| text.parse::<Reference>().map_err(|e| format!("`{text}`: {e}"));
        match (kind.as_str(), docker_reference, docker_repository, prefix, signed_prefix) {
            ("matchExact", None, None, None, None) => Ok(Self::MatchExact),
            ("matchRepoDigestOrExact", None, None, None, None) => Ok(Self::MatchRepoDigestOrExact),
            ("matchRepository", None, None, None, None) => Ok(Self::MatchRepository),
            ("exactReference", Some(text), None, None, None) => {
                let reference = parse(&text)?;
                if reference.tag().is_none() && reference.digest().is_none() {
                    return Err(format!("`dockerReference` `{text}` has neither tag nor digest"));
                }
                Ok(Self::ExactReference(reference))
            }
            ("exactRepository", None, Some(text), None, None) => Ok(Self::ExactRepository(parse(&text)?)),
            ("remapIdentity", None, None, Some(prefix), Some(signed)) => {
                for text in [&prefix, &signed] {
                    if !is_prefix(text) {
                        return Err(format!("`{text}` is no prefix of a name: it must be a host, or host/path"));
                    }
                }
                Ok(Self::Remap { prefix, signed })
            }
            ("matchExact" | "matchRepoDigestOrExact" | "matchRepository", ..) => {
                Err(format!("`signedIdentity` of type `{kind}` has no other fields"))
            }
            ("exactReference", ..) => Err("`exactReference` needs `dockerReference`, and nothing else".into()),
            ("exactRepository", ..) => Err("`exactRepository` needs `dockerRepository`, and nothing else".into()),
            ("remapIdentity", ..) => Err("`remapIdentity` needs `prefix` and `signedPrefix`, and nothing else".into()),
            _ => Err(format!("unknown type `{kind}` of `signedIdentity`")),
        }
    }
}

/// A host, or a host and a path, without tag and digest.
fn is_prefix(text: &str) -> bool {
    match text.split_once('/') {
        None => Registry::new(text).is_ok(),
        Some((host, path)) => Registry::new(host).is_ok() && Repository::new(path).is_ok(),
    }
}

impl Identity {
    /// Whether a signature for `signed` holds for the image `name`.
    pub(super) fn accepts(&self, name: &Reference, signed: &str) -> bool {
        let Ok(signed) = signed.parse::<Reference>() else { return false };
        let name = name.clone().pulled();
        match self {
            Self::MatchExact => same(&name, &signed),
            Self::MatchRepoDigestOrExact => repo_digest_or_exact(&name, &signed),
            Self::MatchRepository => name.name() == signed.name(),
            Self::ExactReference(expected) => same(expected, &signed),
            Self::ExactRepository(expected) => expected.name() == signed.name(),
            Self::Remap { prefix, signed: replacement } => match remapped(&name, prefix, replacement) {
                Some(name) => repo_digest_or_exact(&name, &signed),
                None => false,
            },
        }
    }
}

/// Names without tag and digest are the same as nothing: a signature must say what it is for.
fn same(name: &Reference, signed: &Reference) -> bool {
    (signed.tag().is_some() || signed.digest().is_some()) && name == signed
}

fn repo_digest_or_exact(name: &Reference, signed: &Reference) -> bool {
    // That the digest is the signed one is checked against the payload's own digest, whatever its name says.
    if name.digest().is_some() { name.name() == signed.name() } else { same(name, signed) }
}

/// The name with its prefix replaced; unchanged where the prefix is another's.
fn remapped(name: &Reference, prefix: &str, replacement: &str) -> Option<Reference> {
    match name.name().strip_prefix(prefix) {
        // A prefix ends where a component does: `quay.io/a` is none of `quay.io/ab`, a host none of one with a port.
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let text = name.to_string();
            format!("{replacement}{}", &text[prefix.len()..]).parse().ok()
        }
        _ => Some(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(text: &str) -> Identity {
        serde_json::from_str(text).unwrap()
    }

    fn accepts(identity: &Identity, name: &str, signed: &str) -> bool {
        identity.accepts(&name.parse().unwrap(), signed)
    }

    #[test]
    fn the_table_of_identities() {
        let one = format!("sha256:{}", "1".repeat(64));
        let two = format!("sha256:{}", "2".repeat(64));
        let (by_one, by_two) = (format!("quay.io/a/b@{one}"), format!("quay.io/a/b@{two}"));
        let (by_one, by_two) = (by_one.as_str(), by_two.as_str());
        let remap = |prefix: &str, signed: &str| Identity::Remap { prefix: prefix.into(), signed: signed.into() };
        let exact = Identity::ExactReference("docker.io/library/x:1".parse().unwrap());
        let repository = Identity::ExactRepository("quay.io/z/y".parse().unwrap());
        for (identity, name, signed, expected) in [
            (&Identity::MatchExact, "quay.io/a/b:1", "quay.io/a/b:1", true),
            (&Identity::MatchExact, "quay.io/a/b:1", "quay.io/a/b:2", false),
            (&Identity::MatchExact, "quay.io/a/b:1", "quay.io/a/b", false),
            (&Identity::MatchExact, "quay.io/a/b", "quay.io/a/b:latest", true),
            (&Identity::MatchExact, by_one, by_one, true),
            (&Identity::MatchExact, by_one, by_two, false),
            (&Identity::MatchExact, by_one, "quay.io/a/b:1", false),
            (&Identity::MatchExact, "busybox:1", "docker.io/library/busybox:1", true),
            (&Identity::MatchExact, "docker.io/library/busybox:1", "busybox:1", true),
            (&Identity::MatchRepoDigestOrExact, "quay.io/a/b:1", "quay.io/a/b:1", true),
            (&Identity::MatchRepoDigestOrExact, "quay.io/a/b:1", "quay.io/a/b:2", false),
            (&Identity::MatchRepoDigestOrExact, "quay.io/a/b:1", "quay.io/a/b", false),
            (&Identity::MatchRepoDigestOrExact, by_one, "quay.io/a/b", true),
            (&Identity::MatchRepoDigestOrExact, by_one, "quay.io/a/b:9", true),
            (&Identity::MatchRepoDigestOrExact, by_one, "quay.io/a/c:9", false),
            (&Identity::MatchRepository, "quay.io/a/b:1", "quay.io/a/b", true),
            (&Identity::MatchRepository, "quay.io/a/b:1", "quay.io/a/b:2", true),
            (&Identity::MatchRepository, "quay.io/a/b:1", "quay.io/a", false),
            (&Identity::MatchRepository, "quay.io/a/b:1", "evil.example/a/b:1", false),
            (&Identity::MatchRepository, "quay.io/a/b:1", "", false),
            (&Identity::MatchRepository, "quay.io/a/b:1", "quay.io/A/b", false),
            (&exact, "quay.io/a/b:1", "docker.io/library/x:1", true),
            (&exact, "quay.io/a/b:1", "x:1", true),
            (&exact, "quay.io/a/b:1", "quay.io/a/b:1", false),
            (&exact, "quay.io/a/b:1", "docker.io/library/x", false),
            (&repository, "quay.io/a/b:1", "quay.io/z/y:7", true),
            (&repository, "quay.io/z/y:1", "quay.io/z/y", true),
            (&repository, "quay.io/z/y:1", "quay.io/z/yy", false),
            (&remap("quay.io/a", "vendor.example/p"), "quay.io/a/b:1", "vendor.example/p/b:1", true),
            (&remap("quay.io/a", "vendor.example/p"), "quay.io/a/b:1", "quay.io/a/b:1", false),
            (&remap("quay.io/a", "vendor.example"), by_one, "vendor.example/b", true),
            // Another's prefix: the name stays as it is.
            (&remap("quay.io/a", "vendor.example/p"), "quay.io/ab/c:1", "quay.io/ab/c:1", true),
            (&remap("quay.io/a", "vendor.example/p"), "quay.io/ab/c:1", "vendor.example/pb/c:1", false),
            (&remap("host", "other"), "host:5000/a:1", "other:5000/a:1", false),
        ] {
            assert_eq!(accepts(identity, name, signed), expected, "{identity:?}: {name} signed as {signed}");
        }
    }

    #[test]
    fn every_form_is_read_and_no_other() {
        assert_eq!(identity(r#"{"type":"matchExact"}"#), Identity::MatchExact);
        assert_eq!(identity(r#"{"type":"matchRepoDigestOrExact"}"#), Identity::MatchRepoDigestOrExact);
        assert_eq!(identity(r#"{"type":"matchRepository"}"#), Identity::MatchRepository);
        let exact = identity(r#"{"type":"exactReference","dockerReference":"busybox:1"}"#);
        assert_eq!(exact, Identity::ExactReference("docker.io/library/busybox:1".parse().unwrap()));
        identity(r#"{"type":"exactRepository","dockerRepository":"quay.io/a/b"}"#);
        identity(r#"{"type":"remapIdentity","prefix":"localhost:5000/a","signedPrefix":"quay.io"}"#);
        for (bad, says) in [
            (r#"["matchExact",null,null,null,null]"#, "expected an object"),
            (r#"{"type":"matchAnything"}"#, "unknown type `matchAnything`"),
            (r#"{"type":"matchExact","prefix":"a"}"#, "no other fields"),
            (r#"{"type":"matchExact","type":"matchRepository"}"#, "duplicate field"),
            (r#"{"type":"matchExact","Prefix":"a"}"#, "unknown field `Prefix`"),
            (r#"{"dockerReference":"a:1"}"#, "missing field `type`"),
            (r#"{"type":"exactReference","dockerReference":"quay.io/a"}"#, "neither tag nor digest"),
            (r#"{"type":"exactReference","dockerReference":"quay.io/A:1"}"#, "lowercase"),
            (r#"{"type":"exactReference"}"#, "needs `dockerReference`"),
            (r#"{"type":"exactRepository","dockerReference":"quay.io/a:1"}"#, "needs `dockerRepository`"),
            (r#"{"type":"remapIdentity","prefix":"quay.io/a"}"#, "`signedPrefix`"),
            (r#"{"type":"remapIdentity","prefix":"quay.io/a/","signedPrefix":"b"}"#, "no prefix"),
            (r#"{"type":"remapIdentity","prefix":"quay.io/a:1","signedPrefix":"b"}"#, "no prefix"),
        ] {
            let error = serde_json::from_str::<Identity>(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
