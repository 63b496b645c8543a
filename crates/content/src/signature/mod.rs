//! Signatures of releases: that a payload is what Red Hat (or whoever the user trusts) built (updates-and-releases 6).
//!
//! A signature is an OpenPGP *signed message*: packets in [`message`], the keys that may sign in [`keys`]. What was signed is a small JSON
//! document ([`payload`]) that names the payload's digest and where it was published. Signatures lie in a store by digest ([`store`]).
//!
//! oc-mirror looks at the first signature only, checks it before its end was read, and never compares the digest. Here every signature is tried
//! until one holds, and one holds only if the key is known, the bytes are what was signed, its lifetime has not passed, and the digest is the
//! payload's.

mod armor;
mod error;
mod keys;
mod message;
mod payload;
mod store;

use airlock_oci::{Digest, Error, Reference};
use bytes::Bytes;

pub use error::SignatureError;
pub use keys::KeyRing;
pub use store::{MAX_SIGNATURE_BYTES, MAX_SIGNATURES, PUBLIC_STORE_URL, SECOND_PUBLIC_STORE_URL, Store};

/// Judges signatures. Pure: no network, no clock of its own.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: KeyRing,
    /// Seconds since 1970 in UTC.
    now: u64,
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The payload's digest, as asked for and as signed.
    pub digest: Digest,
    /// Where the payload was published, by tag; only to find a name for it, never to pull by.
    pub reference: Reference,
    /// The fingerprint of the key, upper-case hex.
    pub signer: String,
    /// The file as it is, for the ConfigMap that a cluster reads.
    pub bytes: Bytes,
}

impl Verifier {
    /// `now` is in seconds since 1970; lifetimes of signatures end by it.
    pub fn new(keys: KeyRing, now: u64) -> Self {
        Self { keys, now }
    }

    /// Judges one signature for the payload with this digest.
    pub fn verify(&self, digest: &Digest, signature: Bytes) -> Result<Signed, SignatureError> {
        let message = message::Message::read(&signature)?;
        let signer = message.signer(&self.keys, self.now)?;
        let claim = payload::Claim::read(&message.content)?;
        if claim.digest != *digest {
            return Err(SignatureError::OtherDigest { signed: claim.digest, identity: claim.reference.to_string() });
        }
        Ok(Signed { digest: digest.clone(), reference: claim.reference, signer, bytes: signature })
    }

    /// The first of the signatures that holds; `place` says where they were found. Used with signatures that an archive or a folder kept.
    pub fn verify_any(
        &self,
        digest: &Digest,
        signatures: impl IntoIterator<Item = Bytes>,
        place: &str,
    ) -> Result<Signed, SignatureError> {
        let mut refused = Vec::new();
        for (number, signature) in (1..).zip(signatures) {
            match self.verify(digest, signature) {
                Ok(signed) => return Ok(signed),
                Err(error) => refused.push((number, error)),
            }
        }
        Err(SignatureError::none_holds(place, refused))
    }

    /// Fetches signatures from one store after the other until one holds.
    pub async fn find(&self, digest: &Digest, stores: &[Store]) -> Result<Signed, Error> {
        let mut refused = Vec::new();
        let mut unread = None;
        for store in stores {
            for number in 1..=MAX_SIGNATURES {
                match store.read(digest, number).await {
                    Ok(Some(bytes)) if bytes.is_empty() => refused.push((number, SignatureError::Empty)),
                    Ok(Some(bytes)) => match self.verify(digest, bytes) {
                        Ok(signed) => return Ok(signed),
                        Err(error) => refused.push((number, error)),
                    },
                    Ok(None) => break,
                    Err(error) => {
                        let unreachable = error.kind() == airlock_oci::ErrorKind::Network;
                        unread.get_or_insert(error);
                        // A store that is not there has no second signature either.
                        if unreachable {
                            break;
                        }
                    }
                }
            }
        }
        match unread {
            // What could not be read might have held.
            Some(error) if refused.is_empty() => Err(error),
            _ => {
                let places: Vec<String> = stores.iter().map(Store::describe).collect();
                Err(SignatureError::none_holds(&places.join(" and "), refused).into_error(digest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_come_along_are_those_of_red_hat() {
        let mut fingerprints = KeyRing::red_hat().unwrap().fingerprints();
        fingerprints.sort();
        assert_eq!(
            fingerprints,
            ["567E347AD0044ADE55BA8A5F199E2F91FD431D51", "B08B659EE86AF623BC90E8DB938A80CAF21541EB"]
        );
    }
}
