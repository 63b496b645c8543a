//! What was signed: a JSON document that names an image (containers/image, "atomic container signature").

use airlock_oci::{Digest, Reference};
use serde::Deserialize;

use super::error::SignatureError;

/// The one kind of document that is about an image.
const KIND: &str = "atomic container signature";

/// What the signer says.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) digest: Digest,
    pub(super) reference: Reference,
}

#[derive(Deserialize)]
struct Document {
    critical: Critical,
}

/// What is critical must be understood whole: a field that is not known may change the meaning of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

impl Claim {
    pub(super) fn read(content: &[u8]) -> Result<Self, SignatureError> {
        let bad = |reason: String| SignatureError::Content { reason };
        let document: Document = serde_json::from_slice(content).map_err(|error| bad(error.to_string()))?;
        let Critical { kind, image, identity } = document.critical;
        if kind != KIND {
            return Err(bad(format!("its type is `{kind}`, not `{KIND}`")));
        }
        let digest = image.digest.parse().map_err(|error| bad(format!("digest `{}`: {error}", image.digest)))?;
        let reference =
            identity.reference.parse().map_err(|error| bad(format!("name `{}`: {error}", identity.reference)))?;
        Ok(Self { digest, reference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(critical: &str) -> Result<Claim, SignatureError> {
        Claim::read(format!("{{\"critical\":{{{critical}}},\"optional\":{{\"new\":1}}}}").as_bytes())
    }

    #[test]
    fn a_claim_is_taken_only_when_all_of_it_is_understood() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let kind = format!("\"type\":\"{KIND}\"");
        let image = format!("\"image\":{{\"docker-manifest-digest\":\"{digest}\"}}");
        let identity = "\"identity\":{\"docker-reference\":\"quay.io/a/b:1\"}";
        let claim = document(&format!("{kind},{image},{identity}")).unwrap();
        assert_eq!((claim.digest.to_string(), claim.reference.to_string()), (digest, "quay.io/a/b:1".to_owned()));
        for wrong in [
            format!("{image},{identity}"),
            format!("{kind},{identity}"),
            format!("{kind},{image}"),
            format!("\"type\":\"other\",{image},{identity}"),
            format!("{kind},{image},{identity},\"new\":1"),
            format!("{kind},{image},\"identity\":{{\"docker-reference\":\"\"}}"),
            format!("{kind},\"image\":{{\"docker-manifest-digest\":\"sha256:1\"}},{identity}"),
        ] {
            assert!(matches!(document(&wrong), Err(SignatureError::Content { .. })), "{wrong}");
        }
        assert!(Claim::read(b"This is not JSON").is_err());
    }
}
