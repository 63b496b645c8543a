//! Why a signature does not hold.

use airlock_oci::{Digest, Error, ErrorKind};

/// Why a signature, or every signature of a payload, does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature at all.
    #[error("there is no signature in {place}")]
    Missing {
        /// Where was looked.
        place: String,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// Not an OpenPGP message, or a broken one.
    #[error("it is no OpenPGP message: {reason}")]
    Malformed {
        /// What is wrong.
        reason: String,
    },
    /// A message that is encrypted instead of signed.
    #[error("the message is encrypted, not signed")]
    Encrypted,
    /// A message without a signature.
    #[error("the message is not signed")]
    Unsigned,
    /// Signed by a key that is not trusted.
    #[error("it is signed by key {}, which is not among the trusted keys", keys.join(", "))]
    UnknownKey {
        /// The identifiers that the message names.
        keys: Vec<String>,
    },
    /// Signed by a key that its owner has revoked.
    #[error("it is signed by key {key}, which its owner has revoked")]
    RevokedKey {
        /// Its fingerprint.
        key: String,
    },
    /// The signature is not that of this content.
    #[error("the content is not what key {key} signed: {reason}")]
    Bad {
        /// Its fingerprint.
        key: String,
        /// What the check says.
        reason: String,
    },
    /// Made with a hash that can be forged.
    #[error("it uses {hash}, which can be forged")]
    WeakHash {
        /// Such as SHA1.
        hash: String,
    },
    /// Its own lifetime has passed.
    #[error("it expired {ago_seconds} s ago (lifetime {lifetime_seconds} s)")]
    Expired {
        /// How long it was valid.
        lifetime_seconds: u64,
        /// Since when it is not.
        ago_seconds: u64,
    },
    /// The signed content is not about an image.
    #[error("what was signed does not name an image: {reason}")]
    Content {
        /// What is wrong.
        reason: String,
    },
    /// A proper signature, of another payload.
    #[error("it is for {identity} with digest {signed}")]
    OtherDigest {
        /// The digest that was signed.
        signed: Digest,
        /// The name that was signed.
        identity: String,
    },
    /// There are several, and none holds.
    #[error("none of the signatures in {place} holds: {}", list(refused))]
    NoneHolds {
        /// Where they are.
        place: String,
        /// Each with its number.
        refused: Vec<(u32, SignatureError)>,
    },
}

fn list(refused: &[(u32, SignatureError)]) -> String {
    let lines: Vec<String> = refused.iter().map(|(number, error)| format!("signature-{number}: {error}")).collect();
    lines.join("; ")
}

impl SignatureError {
    /// The verdict over all signatures of a payload. A single one speaks for itself.
    pub(super) fn none_holds(place: &str, mut refused: Vec<(u32, Self)>) -> Self {
        match refused.len() {
            0 => Self::Missing { place: place.to_owned() },
            1 => refused.remove(0).1,
            _ => Self::NoneHolds { place: place.to_owned(), refused },
        }
    }

    /// A stable word for reports and JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "signature-missing",
            Self::Empty | Self::Malformed { .. } => "signature-malformed",
            Self::Encrypted | Self::Unsigned => "signature-unsigned",
            Self::UnknownKey { .. } => "signature-unknown-key",
            Self::RevokedKey { .. } => "signature-revoked-key",
            Self::Bad { .. } => "signature-bad",
            Self::WeakHash { .. } => "signature-weak",
            Self::Expired { .. } => "signature-expired",
            Self::Content { .. } => "signature-content",
            Self::OtherDigest { .. } => "signature-other-digest",
            Self::NoneHolds { .. } => "signature-none-holds",
        }
    }

    /// What helps.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "nightly and CI builds are not signed there: name another store with OCP_SIGNATURE_URL, or mirror one release \
                 with platform.release and --ignore-release-signature"
            }
            Self::UnknownKey { .. } => {
                "for builds of OKD or CI name their key file with OCP_SIGNATURE_VERIFICATION_PK; otherwise do not trust this payload"
            }
            Self::Empty | Self::Malformed { .. } | Self::Unsigned | Self::Encrypted | Self::Content { .. } => {
                "check the store that OCP_SIGNATURE_URL names"
            }
            Self::Expired { .. } => "check this machine's clock; otherwise the release must be signed anew",
            _ => "do not trust this payload; tell the owner of the store of signatures",
        }
    }

    /// As the error of verifying the payload with this digest.
    pub fn into_error(self, digest: &Digest) -> Error {
        let hint = self.hint();
        Error::new(ErrorKind::Content, format!("verify the signature of release `{digest}`"), self).hint(hint)
    }
}
