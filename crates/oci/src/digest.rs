//! Content addresses: `algorithm:hex`.

use std::fmt;
use std::ops::Deref;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A registered hash algorithm (OCI image-spec, descriptor.md "Registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, what everybody uses.
    Sha256,
    /// SHA-384: legal in a reference, no content is addressed by it in practice.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A content address. Forty bytes: a plan holds a million of them.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Sum);

/// The sums in the order of [`Algorithm`]. Those that nearly nobody uses do not make the others larger.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Sum {
    Sha256([u8; 32]),
    Sha384(Box<[u8; 48]>),
    Sha512(Box<[u8; 64]>),
}

/// Hex digits of a digest, as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex {
    digits: [u8; MAX_HEX],
    len: usize,
}

/// Hex digits of the longest sum.
const MAX_HEX: usize = 128;

/// Why a text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not `algorithm:hex`, wrong length or upper-case hex.
    #[error("invalid digest: expected `sha256:` and 64 lower-case hex digits")]
    Format,
    /// The algorithm is not registered.
    #[error("unsupported digest algorithm (sha256, sha384 and sha512 are known)")]
    Algorithm,
}

/// Hashes bytes as they pass by; cheap to clone in the middle (the clone goes on from the same state).
#[derive(Clone)]
pub struct Hasher {
    algorithm: Algorithm,
    context: aws_lc_rs::digest::Context,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hex digits of a digest of this algorithm.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    fn implementation(self) -> &'static aws_lc_rs::digest::Algorithm {
        match self {
            Self::Sha256 => &aws_lc_rs::digest::SHA256,
            Self::Sha384 => &aws_lc_rs::digest::SHA384,
            Self::Sha512 => &aws_lc_rs::digest::SHA512,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        match s {
            "sha256" => Ok(Self::Sha256),
            "sha384" => Ok(Self::Sha384),
            "sha512" => Ok(Self::Sha512),
            _ => Err(ParseError::Algorithm),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by `algorithm`.
    pub fn of_with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Sum::Sha256(_) => Algorithm::Sha256,
            Sum::Sha384(_) => Algorithm::Sha384,
            Sum::Sha512(_) => Algorithm::Sha512,
        }
    }

    fn sum(&self) -> &[u8] {
        match &self.0 {
            Sum::Sha256(sum) => sum,
            Sum::Sha384(sum) => &sum[..],
            Sum::Sha512(sum) => &sum[..],
        }
    }

    /// Bytes of its text, `algorithm:hex`.
    pub fn text_len(&self) -> usize {
        self.algorithm().name().len() + 1 + self.algorithm().hex_len()
    }

    /// The hex digits after the colon.
    pub fn hex(&self) -> Hex {
        self.digits(MAX_HEX)
    }

    fn digits(&self, most: usize) -> Hex {
        let mut digits = [0; MAX_HEX];
        let sum = self.sum();
        put_hex(sum, &mut digits);
        Hex { digits, len: (sum.len() * 2).min(most) }
    }

    /// The tag under which clients keep things that refer to this digest: `sha256-<hex>`, at most 32 characters of
    /// algorithm and 64 of hex (distribution-spec, "Referrers tag schema").
    pub fn fallback_tag(&self) -> String {
        format!("{}-{}", self.algorithm(), self.digits(64))
    }

    /// The first twelve hex digits, for people.
    pub fn short(&self) -> Hex {
        self.digits(12)
    }
}

impl Deref for Hex {
    type Target = str;

    fn deref(&self) -> &str {
        // It is ASCII by construction.
        std::str::from_utf8(&self.digits[..self.len]).unwrap_or_default()
    }
}

impl AsRef<str> for Hex {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<Path> for Hex {
    fn as_ref(&self) -> &Path {
        Path::new(&**self)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Writes two digits for each byte. Without branches, so that the compiler does many at once: a plan is mostly digests.
fn put_hex(sum: &[u8], out: &mut [u8]) {
    let digit = |value: u8| value + b'0' + u8::from(value > 9) * (b'a' - b'0' - 10);
    for (byte, pair) in sum.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
}

/// Exactly as many bytes as the digits say, or `None`.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    /// What is no lower-case hex digit.
    const NONE: u8 = 0xff;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value as usize] as usize] = value;
            value += 1;
        }
        values
    };
    if hex.len() != N * 2 {
        return None;
    }
    let (mut sum, mut seen) = ([0; N], 0);
    for (byte, pair) in sum.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let (high, low) = (VALUES[usize::from(pair[0])], VALUES[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(sum)
}

impl FromStr for Digest {
    type Err = ParseError;

    fn from_str(s: &str) -> Result<Self, ParseError> {
        let (algorithm, hex) = s.split_once(':').ok_or(ParseError::Format)?;
        let sum = match algorithm.parse()? {
            Algorithm::Sha256 => bytes(hex).map(Sum::Sha256),
            Algorithm::Sha384 => bytes(hex).map(|sum| Sum::Sha384(Box::new(sum))),
            Algorithm::Sha512 => bytes(hex).map(|sum| Sum::Sha512(Box::new(sum))),
        };
        sum.map(Self).ok_or(ParseError::Format)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece, so that a text that grows by it grows once.
        let mut text = [0; "sha256:".len() + MAX_HEX];
        let (name, sum) = (self.algorithm().name(), self.sum());
        let len = name.len() + 1 + sum.len() * 2;
        text[..name.len()].copy_from_slice(name.as_bytes());
        text[name.len()] = b':';
        put_hex(sum, &mut text[name.len() + 1..]);
        // It is ASCII by construction.
        f.write_str(std::str::from_utf8(&text[..len]).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|e| serde::de::Error::custom(format!("`{text}`: {e}")))
    }
}

impl Hasher {
    /// A hasher that has seen nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, context: aws_lc_rs::digest::Context::new(algorithm.implementation()) }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        let sum = self.context.finish();
        Digest(match self.algorithm {
            Algorithm::Sha256 => Sum::Sha256(sized(sum.as_ref())),
            Algorithm::Sha384 => Sum::Sha384(Box::new(sized(sum.as_ref()))),
            Algorithm::Sha512 => Sum::Sha512(Box::new(sized(sum.as_ref()))),
        })
    }
}

/// The implementation gives as many bytes as the algorithm has.
fn sized<const N: usize>(sum: &[u8]) -> [u8; N] {
    let mut sized = [0; N];
    sized.iter_mut().zip(sum).for_each(|(to, from)| *to = *from);
    sized
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({})", self.algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(
            Digest::of(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(Digest::of_with(Algorithm::Sha512, b"abc").hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn text_and_sum_are_the_same_in_every_algorithm() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
            let digest = Digest::of_with(algorithm, b"abc");
            assert_eq!(digest.to_string().parse::<Digest>().as_ref(), Ok(&digest));
            assert_eq!((digest.algorithm(), digest.hex().len()), (algorithm, algorithm.hex_len()));
            assert_eq!(&*digest.short(), &digest.hex()[..12]);
            assert_eq!(digest.to_string(), format!("{}:{}", digest.algorithm(), digest.hex()));
            assert_eq!(digest.to_string().len(), digest.text_len());
        }
        let mut all: Vec<Digest> = (0..50_u8).map(|n| Digest::of(&[n])).collect();
        all.sort();
        assert!(all.is_sorted_by_key(ToString::to_string), "the order is that of the text");
        assert_eq!(size_of::<Digest>(), 40);
    }

    #[test]
    fn malformed_digests_are_refused() {
        for bad in ["", "sha256", "sha256:", "sha256:AB", "md5:0", "sha256:../../etc"] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        let long = format!("{}0", Digest::of(b""));
        assert_eq!(long.parse::<Digest>(), Err(ParseError::Format));
        assert_eq!(long[..70].parse::<Digest>(), Err(ParseError::Format));
        // Every byte that is no digit, at every place of a pair.
        let good = Digest::of(b"").to_string();
        for wrong in (0..128_u8).filter(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            for at in [7, 8, 38, 69, 70] {
                let mut text = good.clone().into_bytes();
                text[at] = wrong;
                let text = String::from_utf8(text).unwrap();
                assert!(text.parse::<Digest>().is_err(), "{text:?}");
            }
        }
        assert!(good.replace(&good[7..9], "é").parse::<Digest>().is_err());
        let upper = Digest::of(b"").to_string().to_uppercase().replace("SHA256", "sha256");
        assert_eq!(upper.parse::<Digest>(), Err(ParseError::Format));
    }
}
