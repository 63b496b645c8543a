//! Public keys in PEM, and what they have signed.

use airlock_oci::{Error, ErrorKind};
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

/// The schemes of an elliptic or Edwards curve. cosign signs with SHA-256 whatever the curve, its later versions with the curve's own hash.
const CURVES: [&[&'static dyn VerificationAlgorithm]; 3] =
    [&[&ECDSA_P256_SHA256_ASN1], &[&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1], &[&ED25519]];

/// A key that signatures are checked against.
///
/// * ECDSA on P-256 or P-384, Ed25519, or RSA of 2048 to 8192 bits.
#[derive(Debug)]
pub(super) struct PublicKey {
    /// The key, once for each scheme in which it may have been used.
    schemes: Vec<ParsedPublicKey>,
}

impl PublicKey {
    /// Reads the first public key of a PEM text. `place` says where it comes from.
    pub(super) fn parse(pem: &[u8], place: &str) -> Result<Self, Error> {
        let wrong = |cause: String| {
            Error::new(ErrorKind::Invalid, format!("read the public key {place}"), cause).hint(
                "a key begins with `-----BEGIN PUBLIC KEY-----` and is ECDSA (P-256, P-384), Ed25519 or RSA; cosign writes it as cosign.pub",
            )
        };
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
            .map_err(|e| wrong(format!("there is no PEM public key in it: {e}")))?;
        for curve in CURVES {
            let keys: Result<Vec<_>, _> = curve.iter().map(|scheme| ParsedPublicKey::new(*scheme, &der)).collect();
            if let Ok(schemes) = keys {
                return Ok(Self { schemes });
            }
        }
        let Ok(rsa) = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &der) else {
            return Err(wrong("it is of a kind that is not supported".into()));
        };
        // The size is otherwise looked at only when the key is used, and then looks like a wrong signature.
        if PublicEncryptingKey::from_der(&der).is_err() {
            return Err(wrong("it is an RSA key of less than 2048 or more than 8192 bits".into()));
        }
        Ok(Self { schemes: vec![rsa] })
    }

    /// Whether this key has signed the message.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.schemes.iter().any(|key| key.verify_sig(message, signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use airlock_testkit::tools;
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const MESSAGE: &[u8] = b"what has been signed";

    fn openssl(folder: &Path, arguments: &str) {
        let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    #[test]
    fn signatures_that_openssl_made_are_accepted_and_no_others() {
        if tools::need("openssl").is_none() {
            return;
        }
        for (kind, sign) in [
            ("EC -pkeyopt ec_paramgen_curve:P-256", "dgst -sha256 -sign key -out signature message"),
            ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha256 -sign key -out signature message"),
            ("EC -pkeyopt ec_paramgen_curve:P-384", "dgst -sha384 -sign key -out signature message"),
            ("RSA -pkeyopt rsa_keygen_bits:2048", "dgst -sha256 -sign key -out signature message"),
            ("RSA -pkeyopt rsa_keygen_bits:4096", "dgst -sha256 -sign key -out signature message"),
            ("ED25519", "pkeyutl -sign -rawin -inkey key -in message -out signature"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path();
            std::fs::write(path.join("message"), MESSAGE).unwrap();
            openssl(path, &format!("genpkey -algorithm {kind} -out key"));
            openssl(path, "pkey -in key -pubout -out public");
            openssl(path, sign);
            let read = |name: &str| std::fs::read(path.join(name)).unwrap();
            let key = PublicKey::parse(&read("public"), "public").unwrap();
            let signature = read("signature");
            assert!(key.has_signed(MESSAGE, &signature), "{kind}: {sign}");
            assert!(!key.has_signed(b"what has been signeD", &signature), "{kind}");
            let mut flipped = signature.clone();
            *flipped.last_mut().unwrap() ^= 1;
            assert!(!key.has_signed(MESSAGE, &flipped), "{kind}");
            assert!(!key.has_signed(MESSAGE, &[]), "{kind}");
            openssl(path, &format!("genpkey -algorithm {kind} -out other"));
            openssl(path, "pkey -in other -pubout -out other.public");
            let other = PublicKey::parse(&read("other.public"), "other").unwrap();
            assert!(!other.has_signed(MESSAGE, &signature), "{kind}");
        }
    }

    #[test]
    fn weak_and_unknown_keys_are_refused_by_name() {
        if tools::need("openssl").is_none() {
            return;
        }
        for (kind, says) in [
            ("RSA -pkeyopt rsa_keygen_bits:1024", "less than 2048"),
            ("EC -pkeyopt ec_paramgen_curve:P-521", "not supported"),
            ("ED448", "not supported"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            openssl(folder.path(), &format!("genpkey -algorithm {kind} -out key"));
            openssl(folder.path(), "pkey -in key -pubout -out public");
            let error = PublicKey::parse(&std::fs::read(folder.path().join("public")).unwrap(), "k.pub").unwrap_err();
            assert!(error.to_string().contains(says), "{kind}: {error}");
            assert!(error.to_string().contains("k.pub"), "{error}");
            // A private key is no public key, even where it holds one.
            let error = PublicKey::parse(&std::fs::read(folder.path().join("key")).unwrap(), "k").unwrap_err();
            assert!(error.to_string().contains("no PEM public key"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_an_error() {
        let der = {
            let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
            key.sign(&SystemRandom::new(), MESSAGE).unwrap();
            key.public_key().as_der().unwrap().as_ref().to_vec()
        };
        let pem =
            |body: &[u8]| format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(body));
        PublicKey::parse(pem(&der).as_bytes(), "").unwrap();
        PublicKey::parse(pem(&der[..der.len() - 1]).as_bytes(), "").unwrap_err();
        for bad in ["", "key", "-----BEGIN PUBLIC KEY-----\n", &pem(b""), &pem(b"nonsense")] {
            assert_eq!(PublicKey::parse(bad.as_bytes(), "").unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
    }
}
