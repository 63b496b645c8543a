//! One signature as cosign makes them: a JSON payload (simple signing), and beside it, in Base64, what a key made of it.

use airlock_oci::{Descriptor, Digest, Reference};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::identity::Identity;
use super::json::Object;
use super::key::PublicKey;

/// The media type of a layer that is a payload.
pub(super) const PAYLOAD_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation of the layer that has the signature.
pub(super) const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";

/// What a payload must call itself.
const PAYLOAD_KIND: &str = "cosign container image signature";

/// What a signature is checked against.
pub(super) struct Expected<'a> {
    pub keys: &'a [PublicKey],
    pub identity: &'a Identity,
    /// The image, as the configuration names it.
    pub name: &'a Reference,
    /// Of its manifest.
    pub digest: &'a Digest,
}

/// What is signed. Nothing may stand beside the fields that are known: what is not understood could change what they mean.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    critical: Object<Critical>,
    #[serde(default, rename = "optional")]
    _optional: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Object<Image>,
    identity: Object<Named>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Named {
    docker_reference: String,
}

impl Expected<'_> {
    /// Whether the signature holds for the image; if not, why.
    pub(super) fn check(&self, layer: &Descriptor, payload: &[u8]) -> Result<(), String> {
        let signature = layer
            .annotations
            .get(SIGNATURE_ANNOTATION)
            .ok_or_else(|| format!("the annotation `{SIGNATURE_ANNOTATION}` is missing"))?;
        let signature = STANDARD.decode(signature).map_err(|e| format!("the signature is not Base64: {e}"))?;
        // Before the key has been found in it, nothing of the payload is believed, not even that it is JSON.
        if !self.keys.iter().any(|key| key.has_signed(payload, &signature)) {
            return Err(
                "cryptographic signature verification failed: it was made by another key, or of other bytes".into()
            );
        }
        let Object(Payload { critical: Object(Critical { kind, image, identity }), .. }) =
            serde_json::from_slice(payload).map_err(|e| format!("the payload is not a simple signing payload: {e}"))?;
        if kind != PAYLOAD_KIND {
            return Err(format!("the payload is of the type `{kind}`, not `{PAYLOAD_KIND}`"));
        }
        let signed = &identity.0.docker_reference;
        if !self.identity.accepts(self.name, signed) {
            let mut text = format!("Signature for identity `{signed}` is not accepted");
            let repository_only = signed.parse::<Reference>().is_ok_and(|s| s.tag().is_none() && s.digest().is_none());
            if repository_only && Identity::MatchRepository.accepts(self.name, signed) {
                // The mistake that everybody makes once: cosign signs repositories, not tags.
                text.push_str(": it names no tag, as cosign's do; the policy needs `\"signedIdentity\": {\"type\": \"matchRepository\"}`");
            }
            return Err(text);
        }
        if image.0.docker_manifest_digest != *self.digest {
            return Err(format!("Signature for digest `{}` does not match", image.0.docker_manifest_digest));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    use super::*;

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Self {
            Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
        }

        fn public(&self) -> PublicKey {
            let der = self.0.public_key().as_der().unwrap();
            let body = STANDARD.encode(der.as_ref());
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
            PublicKey::parse(pem.as_bytes(), "test").unwrap()
        }

        fn layer(&self, payload: &str) -> Descriptor {
            let signature = self.0.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
            let mut layer = Descriptor::new(PAYLOAD_TYPE, Digest::of(payload.as_bytes()), payload.len() as u64);
            layer.annotations.insert(SIGNATURE_ANNOTATION.into(), STANDARD.encode(signature));
            layer
        }
    }

    fn payload(name: &str, digest: &Digest) -> String {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"{PAYLOAD_KIND}"}},"optional":null}}"#
        )
    }

    #[test]
    fn a_signature_holds_for_its_key_name_and_digest_only() {
        let (signer, other) = (Signer::new(), Signer::new());
        let keys = [other.public(), signer.public()];
        let name: Reference = "quay.io/a/b:1".parse().unwrap();
        let (digest, wrong) = (Digest::of(b"image"), Digest::of(b"another"));
        let identity = Identity::MatchRepository;
        let expected = Expected { keys: &keys, identity: &identity, name: &name, digest: &digest };
        let good = payload("quay.io/a/b", &digest);
        assert_eq!(expected.check(&signer.layer(&good), good.as_bytes()), Ok(()));
        // Any key of the list suffices; none of the list does not.
        assert_eq!(expected.check(&other.layer(&good), good.as_bytes()), Ok(()));
        let stranger = Signer::new();
        for (signer, signed, bytes, says) in [
            (&stranger, good.clone(), good.clone(), "another key"),
            (&signer, good.clone(), good.replace("quay.io/a/b", "quay.io/a/c"), "other bytes"),
            (&signer, good.clone(), format!("{good} "), "other bytes"),
            (&signer, payload("quay.io/a/b", &wrong), payload("quay.io/a/b", &wrong), "does not match"),
            (
                &signer,
                payload("quay.io/a/c", &digest),
                payload("quay.io/a/c", &digest),
                "`quay.io/a/c` is not accepted",
            ),
        ] {
            let error = expected.check(&signer.layer(&signed), bytes.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn payloads_of_another_form_are_refused_though_they_are_signed() {
        let signer = Signer::new();
        let (keys, identity, name) = ([signer.public()], Identity::MatchRepository, "q.io/a:1".parse().unwrap());
        let digest = Digest::of(b"image");
        let expected = Expected { keys: &keys, identity: &identity, name: &name, digest: &digest };
        let good = payload("q.io/a", &digest);
        for (changed, says) in [
            (good.replace(PAYLOAD_KIND, "atomic container signature"), "of the type"),
            (good.replace("\"optional\":null", "\"extra\":1"), "unknown field"),
            (good.replace("\"type\":", "\"more\":{},\"type\":"), "unknown field"),
            (good.replace("\"type\":", "\"type\":\"x\",\"type\":"), "duplicate field"),
            (good.replace("\"optional\":null", "\"critical\":{}"), "duplicate field"),
            (good.replace("docker-manifest-digest", "digest"), "unknown field"),
            (good.replace("sha256:", "md5:"), "not a simple signing payload"),
            (format!(r#"[["{PAYLOAD_KIND}",["{digest}"],["q.io/a"]],null]"#), "not a simple signing payload"),
            ("[]".into(), "not a simple signing payload"),
        ] {
            let error = expected.check(&signer.layer(&changed), changed.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{changed}: {error}");
        }
        let with = good.replace("\"optional\":null", r#""optional":{"creator":"x","timestamp":1,"git":"abc"}"#);
        assert_eq!(expected.check(&signer.layer(&with), with.as_bytes()), Ok(()));
    }

    #[test]
    fn an_annotation_that_is_missing_or_damaged_is_said() {
        let signer = Signer::new();
        let (keys, name, digest) = ([signer.public()], "q.io/a:1".parse().unwrap(), Digest::of(b"image"));
        let expected = Expected { keys: &keys, identity: &Identity::MatchExact, name: &name, digest: &digest };
        let good = payload("q.io/a", &digest);
        let mut layer = signer.layer(&good);
        // Signed by the right key, for the right repository, under the default identity: the message says what to write.
        let error = expected.check(&layer, good.as_bytes()).unwrap_err();
        assert!(error.contains("matchRepository"), "{error}");
        layer.annotations.insert(SIGNATURE_ANNOTATION.into(), "%".into());
        assert!(expected.check(&layer, good.as_bytes()).unwrap_err().contains("Base64"));
        layer.annotations.clear();
        assert!(expected.check(&layer, good.as_bytes()).unwrap_err().contains("is missing"));
    }
}
