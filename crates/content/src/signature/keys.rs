//! The keys that may sign releases.

use std::io::Read;
use std::path::Path;

use airlock_oci::{Error, ErrorKind};
use pgp::composed::{Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, KeyId};

use super::armor;

/// Red Hat's release key 2 and beta key 2.
const RED_HAT: &[u8] = include_bytes!("red-hat.asc");
/// The largest key file that is read (bytes).
const MAX_KEY_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Public keys, any of which suffices.
#[derive(Clone, Debug)]
pub struct KeyRing {
    keys: Vec<SignedPublicKey>,
}

/// A key, or a part of one, that a signature may be from.
pub(super) enum Candidate<'k> {
    /// The key itself.
    Primary(&'k SignedPublicKey),
    /// One of its subkeys.
    Sub(&'k SignedPublicKey, &'k SignedPublicSubKey),
}

impl KeyRing {
    /// Red Hat's keys, which come with this program.
    pub fn red_hat() -> Result<Self, Error> {
        Self::read(RED_HAT, "the keys that come with this program")
    }

    /// The keys of a file, armored or binary (`OCP_SIGNATURE_VERIFICATION_PK`). A file that cannot be used is an error: other keys than those
    /// that were asked for must not be trusted in their place.
    pub fn file(path: &Path) -> Result<Self, Error> {
        let what = format!("read the keys in `{}`", path.display());
        let file = std::fs::File::open(path).map_err(|e| {
            Error::io(what.as_str(), &e).hint("OCP_SIGNATURE_VERIFICATION_PK must name a file of public keys")
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(what.as_str(), &e))?;
        if bytes.len() as u64 > MAX_KEY_FILE_BYTES {
            let cause = format!("it has more than {MAX_KEY_FILE_BYTES} bytes");
            return Err(Error::new(ErrorKind::Invalid, what, cause));
        }
        Self::read(&bytes, &format!("`{}`", path.display()))
    }

    /// The keys in a text or binary; `from` says where it is from.
    pub fn read(bytes: &[u8], from: &str) -> Result<Self, Error> {
        let bad = |cause: String| {
            Error::new(ErrorKind::Invalid, format!("read the keys in {from}"), cause)
                .hint("it must hold OpenPGP public keys, armored or binary, as `gpg --export` writes them")
        };
        let mut keys = Vec::new();
        for block in armor::blocks(bytes).map_err(bad)? {
            for key in SignedPublicKey::from_bytes_many(block.as_slice()).map_err(|e| bad(e.to_string()))? {
                keys.push(key.map_err(|e| bad(e.to_string()))?);
            }
        }
        if keys.is_empty() {
            return Err(bad("it holds no public key".to_owned()));
        }
        Ok(Self { keys })
    }

    /// The fingerprints of the keys, upper-case hex.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys.iter().map(|key| fingerprint(&key.primary_key)).collect()
    }

    /// What a signature that names these identifiers may be from; with none, everything.
    pub(super) fn candidates(&self, named: &[KeyId]) -> Vec<Candidate<'_>> {
        let fits = |key: &dyn KeyDetails| named.is_empty() || named.contains(&key.legacy_key_id());
        let mut found = Vec::new();
        for key in &self.keys {
            if fits(&key.primary_key) {
                found.push(Candidate::Primary(key));
            }
            found.extend(key.public_subkeys.iter().filter(|sub| fits(&sub.key)).map(|sub| Candidate::Sub(key, sub)));
        }
        found
    }
}

impl Candidate<'_> {
    /// The fingerprint, upper-case hex.
    pub(super) fn fingerprint(&self) -> String {
        match self {
            Self::Primary(key) => fingerprint(&key.primary_key),
            Self::Sub(_, sub) => fingerprint(&sub.key),
        }
    }

    /// Whether the owner has revoked it: the key as a whole, or this subkey.
    pub(super) fn is_revoked(&self) -> bool {
        let key = match self {
            Self::Primary(key) | Self::Sub(key, _) => key,
        };
        let whole = key.details.revocation_signatures.iter().any(|s| s.verify_key(&key.primary_key).is_ok());
        let part = match self {
            Self::Primary(_) => false,
            Self::Sub(key, sub) => sub.signatures.iter().any(|s| {
                s.typ() == Some(SignatureType::SubkeyRevocation)
                    && s.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
            }),
        };
        whole || part
    }

    /// Whether this may sign at all: a subkey must be bound to its key, and agree to that.
    fn may_sign(&self) -> bool {
        let Self::Sub(key, sub) = self else { return true };
        sub.signatures.iter().any(|binding| {
            binding.typ() == Some(SignatureType::SubkeyBinding)
                && binding.verify_subkey_binding(&key.primary_key, &sub.key).is_ok()
                && binding.key_flags().sign()
                && binding
                    .embedded_signature()
                    .is_some_and(|back| back.verify_primary_key_binding(&sub.key, &key.primary_key).is_ok())
        })
    }

    /// Whether `signature` over `content` is of this key.
    pub(super) fn verify(&self, signature: &Signature, content: &[u8]) -> Result<(), String> {
        if !self.may_sign() {
            return Err("the subkey is not bound to its key for signing".to_owned());
        }
        let verified = match self {
            Self::Primary(key) => signature.verify(&key.primary_key, content),
            Self::Sub(_, sub) => signature.verify(&sub.key, content),
        };
        verified.map_err(|error| error.to_string())
    }
}

fn fingerprint(key: &impl KeyDetails) -> String {
    format!("{:X}", key.fingerprint())
}
