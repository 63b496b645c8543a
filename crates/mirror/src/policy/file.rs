//! The text of a policy file, read as strictly as containers/image reads it: a field that is not understood is an error, because it may
//! be the one that was meant to protect something.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use airlock_oci::{Error, ErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::identity::Identity;
use super::json::{Object, Unique, object_as};
use super::key::PublicKey;
use super::{Policy, read_at_most};

/// The largest file with a public key that is read (bytes).
const MAX_KEY_BYTES: u64 = 1024 * 1024;

/// What an image must fulfil.
#[derive(Debug)]
pub(super) enum Requirement {
    /// `insecureAcceptAnything`.
    Accept,
    /// `reject`.
    Reject,
    /// `sigstoreSigned` by a key.
    Signed(Signed),
    /// A kind of signature that this version cannot check, by its name.
    Unsupported(String),
}

/// `sigstoreSigned`.
#[derive(Debug)]
pub(super) struct Signed {
    sources: Vec<KeySource>,
    /// How the name in the signature must relate to the image's.
    pub identity: Identity,
    /// The keys, read when the first image needs them.
    keys: OnceLock<Result<Vec<PublicKey>, Error>>,
}

#[derive(Debug)]
enum KeySource {
    Path(PathBuf),
    Data(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyWire {
    default: Requirements,
    #[serde(default)]
    transports: Unique<Unique<Requirements>>,
}

#[derive(Deserialize)]
#[serde(try_from = "Vec<Requirement>")]
struct Requirements(Vec<Requirement>);

/// All fields of all types of requirements; which of them a type has is looked at afterwards, so that errors can say more than that
/// no form fits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RequirementWire {
    #[serde(rename = "type")]
    kind: String,
    key_type: Option<String>,
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<IgnoredAny>,
    pki: Option<IgnoredAny>,
    rekor_public_key_path: Option<IgnoredAny>,
    rekor_public_key_paths: Option<IgnoredAny>,
    rekor_public_key_data: Option<IgnoredAny>,
    rekor_public_key_datas: Option<IgnoredAny>,
    signed_identity: Option<Identity>,
    base_layer_identity: Option<Identity>,
}

/// Reads the text of a policy file.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Policy, Error> {
    let Object(wire): Object<PolicyWire> = serde_json::from_slice(bytes).map_err(|e| {
        Error::new(ErrorKind::Invalid, format!("read the policy {}", file.display()), e)
            .hint("the form is described in containers-policy.json(5)")
    })?;
    let mut transports = wire.transports.0;
    let mut table = |name: &str| -> BTreeMap<String, Vec<Requirement>> {
        let scopes = transports.remove(name).map(|t| t.0).unwrap_or_default();
        scopes.into_iter().map(|(scope, requirements)| (scope, requirements.0)).collect()
    };
    let (docker, oci) = (table("docker"), table("oci"));
    // What is left are transports that nothing is mirrored from (docker-daemon, containers-storage, …); they had to be well-formed.
    if let Some(scope) = oci.keys().find(|scope| !is_directory_scope(scope)) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("read the policy {}", file.display()),
            format!("scope `{scope}` of the transport `oci` is no absolute path"),
        )
        .hint("name the directory from the root, or use the scope \"\" for all layouts"));
    }
    Ok(Policy { file: file.to_owned(), default: wire.default.0, docker, oci })
}

/// containers/image takes absolute paths without `.` and `..`; the root itself is written as "".
fn is_directory_scope(scope: &str) -> bool {
    let components_are_plain = || scope[1..].split('/').all(|c| !matches!(c, "" | "." | ".."));
    scope.is_empty() || (scope.starts_with('/') && components_are_plain())
}

impl TryFrom<Vec<Requirement>> for Requirements {
    type Error = String;

    fn try_from(list: Vec<Requirement>) -> Result<Self, Self::Error> {
        if list.is_empty() {
            return Err("a list of requirements must not be empty (`insecureAcceptAnything` requires nothing)".into());
        }
        Ok(Self(list))
    }
}

impl RequirementWire {
    /// The fields beside `type` that are there.
    fn fields(&self) -> Vec<&'static str> {
        [
            ("keyType", self.key_type.is_some()),
            ("keyPath", self.key_path.is_some()),
            ("keyPaths", self.key_paths.is_some()),
            ("keyData", self.key_data.is_some()),
            ("keyDatas", self.key_datas.is_some()),
            ("fulcio", self.fulcio.is_some()),
            ("pki", self.pki.is_some()),
            ("rekorPublicKeyPath", self.rekor_public_key_path.is_some()),
            ("rekorPublicKeyPaths", self.rekor_public_key_paths.is_some()),
            ("rekorPublicKeyData", self.rekor_public_key_data.is_some()),
            ("rekorPublicKeyDatas", self.rekor_public_key_datas.is_some()),
            ("signedIdentity", self.signed_identity.is_some()),
            ("baseLayerIdentity", self.base_layer_identity.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }

    /// Refuses fields that this type does not have.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.fields().into_iter().find(|field| !known.contains(field)) {
            Some(field) => Err(format!("`{field}` does not belong to a requirement of the type `{}`", self.kind)),
            None => Ok(()),
        }
    }

    /// The one of these fields that is there.
    fn one_of(&self, choices: &[&str]) -> Result<&'static str, String> {
        let there: Vec<_> = self.fields().into_iter().filter(|field| choices.contains(field)).collect();
        match there[..] {
            [one] => Ok(one),
            _ => Err(format!("a requirement of the type `{}` needs exactly one of {}", self.kind, quoted(choices))),
        }
    }

    fn signed_by(&self) -> Result<Requirement, String> {
        self.only(&["keyType", "keyPath", "keyPaths", "keyData", "signedIdentity"])?;
        self.one_of(&["keyPath", "keyPaths", "keyData"])?;
        const KEY_TYPES: [&str; 4] = ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"];
        match self.key_type.as_deref() {
            Some(kind) if KEY_TYPES.contains(&kind) => Ok(Requirement::Unsupported("signedBy".into())),
            Some(kind) => Err(format!("unknown `keyType` `{kind}`; known are {}", quoted(&KEY_TYPES))),
            None => Err("missing field `keyType` of a requirement of the type `signedBy`".into()),
        }
    }

    fn sigstore_signed(self) -> Result<Requirement, String> {
        const REKOR: [&str; 4] =
            ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];
        const KEYS: [&str; 6] = ["keyPath", "keyPaths", "keyData", "keyDatas", "fulcio", "pki"];
        self.only(&[&KEYS[..], &REKOR, &["signedIdentity"]].concat())?;
        let by = self.one_of(&KEYS)?;
        if let Some(rekor) = self.fields().into_iter().find(|field| REKOR.contains(field)) {
            self.one_of(&REKOR)?;
            let what = if matches!(by, "fulcio" | "pki") { by } else { rekor };
            return Ok(Requirement::Unsupported(what.into()));
        }
        if matches!(by, "fulcio" | "pki") {
            return Ok(Requirement::Unsupported(by.into()));
        }
        let paths = self.key_path.into_iter().chain(self.key_paths.into_iter().flatten()).map(KeySource::Path);
        let mut sources: Vec<KeySource> = paths.collect();
        for data in self.key_data.into_iter().chain(self.key_datas.into_iter().flatten()) {
            // As Go does, from whose tools these files come: line ends within are no part of it.
            let text: String = data.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            let pem = STANDARD.decode(text).map_err(|e| format!("`{by}` is not Base64 (of a whole PEM file): {e}"))?;
            sources.push(KeySource::Data(pem));
        }
        if sources.is_empty() {
            return Err(format!("`{by}` must not be empty"));
        }
        let identity = self.signed_identity.unwrap_or(Identity::MatchRepoDigestOrExact);
        Ok(Requirement::Signed(Signed { sources, identity, keys: OnceLock::new() }))
    }
}

impl<'de> Deserialize<'de> for Requirement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object_as::<RequirementWire, Self, D>(deserializer)
    }
}

impl TryFrom<RequirementWire> for Requirement {
    type Error = String;

    fn try_from(wire: RequirementWire) -> Result<Self, String> {
        match wire.kind.as_str() {
            "insecureAcceptAnything" => wire.only(&[]).map(|()| Self::Accept),
            "reject" => wire.only(&[]).map(|()| Self::Reject),
            "signedBy" => wire.signed_by(),
            "signedBaseLayer" => {
                wire.only(&["baseLayerIdentity"])?;
                wire.one_of(&["baseLayerIdentity"])?;
                Ok(Self::Unsupported("signedBaseLayer".into()))
            }
            "sigstoreSigned" => wire.sigstore_signed(),
            other => Err(format!("unknown type `{other}` of a requirement")),
        }
    }
}

impl Signed {
    /// The keys. Read once; what goes wrong goes wrong for each image that needs them.
    pub(super) fn keys(&self) -> Result<&[PublicKey], Error> {
        let keys = self.keys.get_or_init(|| self.sources.iter().map(KeySource::read).collect());
        keys.as_deref().map_err(Error::clone)
    }
}

impl KeySource {
    fn read(&self) -> Result<PublicKey, Error> {
        match self {
            Self::Data(pem) => PublicKey::parse(pem, "in the policy"),
            Self::Path(path) => {
                let place = path.display().to_string();
                let pem = read_at_most(path, MAX_KEY_BYTES).map_err(|cause| {
                    Error::new(ErrorKind::Invalid, format!("read the public key {place}"), cause)
                        .hint("the policy names this file; a relative path begins at the current directory")
                })?;
                PublicKey::parse(&pem, &place)
            }
        }
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy, Error> {
        parse(Path::new("/etc/x/policy.json"), text.as_bytes())
    }

    fn with(requirement: &str) -> Result<Policy, Error> {
        read(&format!(r#"{{"default":[{requirement}]}}"#))
    }

    #[test]
    fn a_policy_of_a_distribution_is_read_and_keys_are_not_looked_for() {
        let policy = read(
            r#"{
                "default": [{"type": "insecureAcceptAnything"}],
                "transports": {
                    "docker": {
                        "registry.access.redhat.com": [
                            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"}
                        ],
                        "quay.io/a": [
                            {"type": "sigstoreSigned", "keyPaths": ["/nowhere/a.pub", "/nowhere/b.pub"],
                             "signedIdentity": {"type": "matchRepository"}},
                            {"type": "sigstoreSigned", "fulcio": {"caPath": "/x", "oidcIssuer": "i", "subjectEmail": "e"},
                             "rekorPublicKeyPath": "/nowhere"}
                        ]
                    },
                    "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]},
                    "oci": {"": [{"type": "reject"}], "/srv/images": [{"type": "insecureAcceptAnything"}]}
                }
            }"#,
        )
        .unwrap();
        assert_eq!((policy.docker.len(), policy.oci.len()), (2, 2));
        let [Requirement::Unsupported(what)] = &policy.docker["registry.access.redhat.com"][..] else { panic!() };
        assert_eq!(what, "signedBy");
        let [Requirement::Signed(signed), Requirement::Unsupported(what)] = &policy.docker["quay.io/a"][..] else {
            panic!("{:?}", policy.docker)
        };
        assert_eq!((what.as_str(), &signed.identity), ("fulcio", &Identity::MatchRepository));
        let error = signed.keys().unwrap_err();
        assert!(error.to_string().contains("/nowhere/a.pub"), "{error}");
    }

    #[test]
    fn every_mistake_is_named_with_file_and_line() {
        for (bad, says) in [
            ("{}", "missing field `default`"),
            ("", "EOF"),
            ("[]", "invalid type"),
            (r#"{"default":[]}"#, "must not be empty"),
            (r#"{"default":null}"#, "invalid type: null"),
            (r#"{"default":[{"type":"reject"}],"defualt":[]}"#, "unknown field `defualt`"),
            (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, "duplicate field `default`"),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#, "must not be empty"),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":{"type":"reject"}}}}"#, "invalid type: map"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"reject"}]}}}"#,
                "`a` occurs twice",
            ),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#, "`docker` occurs twice"),
            // A transport that is not used is checked all the same.
            (r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[{"type":"x"}]}}}"#, "unknown type `x`"),
            (r#"{"default":[{"type":"reject"}],"transports":{"oci":{"a/b":[{"type":"reject"}]}}}"#, "no absolute path"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"oci":{"/a/../b":[{"type":"reject"}]}}}"#,
                "no absolute path",
            ),
            (r#"{"default":[{"type":"reject"}]} {}"#, "trailing characters"),
        ] {
            let error = read(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("/etc/x/policy.json"), "{bad}: {text}");
        }
        let error = read(r#"{"default":[{"type":"reject"}],"transports":{"docker":{"quay.io":[{"type":"x"}]}}}"#);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("`docker`: `quay.io`: unknown type `x` of a requirement at line 1 column"), "{error}");
        let error = read("{\n \"default\": [\n  {\"type\": \"rejcet\"}\n ]\n}").unwrap_err().to_string();
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn requirements_have_the_fields_of_their_type_and_no_others() {
        for good in [
            r#"{"type":"sigstoreSigned","keyPath":"/k"}"#,
            r#"{"type":"sigstoreSigned","keyData":"LS0t\nLS0t"}"#,
            r#"{"type":"sigstoreSigned","keyDatas":["LS0t","LS0t"],"signedIdentity":{"type":"matchExact"}}"#,
            r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"x"}"#,
            r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#,
        ] {
            with(good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
        for (bad, says) in [
            (r"{}", "missing field `type`"),
            (r#"["insecureAcceptAnything"]"#, "expected an object"),
            (r#"{"type":"acceptAnything"}"#, "unknown type `acceptAnything`"),
            (r#"{"type":"insecureAcceptAnything","keyPath":"/k"}"#, "`keyPath` does not belong"),
            (r#"{"type":"reject","reason":"x"}"#, "unknown field `reason`"),
            (r#"{"type":"reject","type":"insecureAcceptAnything"}"#, "duplicate field `type`"),
            (r#"{"type":"sigstoreSigned"}"#, "exactly one of `keyPath`"),
            (r#"{"type":"sigstoreSigned","keyPath":"/a","keyData":"LS0t"}"#, "exactly one of"),
            (r#"{"type":"sigstoreSigned","keyPath":"/a","keyType":"GPGKeys"}"#, "`keyType` does not belong"),
            (r#"{"type":"sigstoreSigned","keyPaths":[]}"#, "`keyPaths` must not be empty"),
            (r#"{"type":"sigstoreSigned","keyData":"-----BEGIN"}"#, "not Base64"),
            (r#"{"type":"sigstoreSigned","keypath":"/a"}"#, "unknown field `keypath`"),
            (r#"{"type":"sigstoreSigned","keyPath":"/a","signedIdentity":{"type":"x"}}"#, "unknown type `x`"),
            (r#"{"type":"signedBy","keyPath":"/a"}"#, "missing field `keyType`"),
            (r#"{"type":"signedBy","keyType":"PGP","keyPath":"/a"}"#, "unknown `keyType` `PGP`"),
            (r#"{"type":"signedBy","keyType":"GPGKeys"}"#, "exactly one of"),
        ] {
            let error = with(bad).unwrap_err().to_string();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }
}
