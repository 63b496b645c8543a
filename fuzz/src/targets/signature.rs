//! Signatures of releases, and the files of keys that judge them.

use std::sync::OnceLock;

use airlock_content::signature::{KeyRing, SignatureError, Verifier};
use airlock_oci::Digest;
use bytes::Bytes;

use super::magnitude;
use crate::{Features, Target};

/// The public half of a throw-away key; the messages of the corpus were signed with the other half, which is gone.
const KEY: &[u8] = include_bytes!("signature.asc");
/// What those messages are about.
const SIGNED: &str = "quay.io/openshift-release-dev/ocp-release:4.18.1-x86_64";

pub(super) const TARGET: Target = Target {
    name: "signature",
    run,
    words: &[
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n",
        b"-----END PGP PUBLIC KEY BLOCK-----\n",
        b"Version: x\n",
        b"=AbCd\n",
        b"\xa3\x01",
        b"\xa3\x02",
        b"\x90\x0d\x03",
        b"\xcb",
        b"\xc2\xc0\x73\x04\x00\x01\x08",
        b"\x89\x01\x33",
        b"\xff\xff\xff\xff",
        b"\x83\x00\x00\x00\x01",
    ],
};

fn judge() -> Option<&'static (Verifier, Digest)> {
    static JUDGE: OnceLock<Option<(Verifier, Digest)>> = OnceLock::new();
    let made = JUDGE.get_or_init(|| {
        let digest = format!("sha256:{}", "a".repeat(64)).parse().ok()?;
        Some((Verifier::new(KeyRing::read(KEY, "the target").ok()?, 0), digest))
    });
    made.as_ref()
}

fn run(input: &[u8], features: &mut Features) {
    let judge = judge();
    assert!(judge.is_some(), "the key of the target is read");
    let Some((verifier, digest)) = judge else { return };
    match verifier.verify(digest, Bytes::copy_from_slice(input)) {
        // Whatever was done to the packets: what the key's owner did not say is never believed.
        Ok(signed) => {
            assert_eq!(signed.reference.to_string(), SIGNED);
            assert_eq!(signed.digest, *digest);
            features.note("good");
        }
        Err(error) => {
            assert!(!error.to_string().is_empty() && !error.hint().is_empty());
            features.note(error.code());
            if let SignatureError::Malformed { reason } = &error {
                features.note(reason.replace(char::is_numeric, ""));
            }
        }
    }
    match KeyRing::read(input, "the input") {
        Ok(ring) => {
            assert!(!ring.fingerprints().is_empty());
            features.note(("keys", magnitude(ring.fingerprints().len())));
        }
        Err(error) => features.note(error.cause().split(['`', '"']).next().map(|t| t.replace(char::is_numeric, ""))),
    }
}
