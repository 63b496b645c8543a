//! A running digest that can be put down in one process and taken up in another.
//!
//! The rest of the program hashes with aws-lc, which does not let go of its state; an upload in a bucket is continued by whichever
//! replica gets the next request, and reading its bytes again each time would double the traffic.

use airlock_oci::{Algorithm, Digest, Error, ErrorKind};
use sha2::digest::Digest as _;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Sha256, Sha384, Sha512};

/// What has been hashed so far.
#[derive(Clone)]
pub(super) enum Running {
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Running {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha384 => Self::Sha384(Sha384::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha384(_) => Algorithm::Sha384,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha384(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Result<Digest, Error> {
        let (name, hex) = match self {
            Self::Sha256(state) => ("sha256", hex(&state.finalize())),
            Self::Sha384(state) => ("sha384", hex(&state.finalize())),
            Self::Sha512(state) => ("sha512", hex(&state.finalize())),
        };
        format!("{name}:{hex}").parse().map_err(|e| Error::new(ErrorKind::Invalid, "hash an upload", e))
    }

    /// The state, in hex.
    pub(super) fn put_down(&self) -> String {
        match self {
            Self::Sha256(state) => hex(&state.serialize()),
            Self::Sha384(state) => hex(&state.serialize()),
            Self::Sha512(state) => hex(&state.serialize()),
        }
    }

    /// Goes on from a state; `None` when it is none.
    pub(super) fn take_up(algorithm: Algorithm, state: &str) -> Option<Self> {
        fn of<T: SerializableState>(state: &[u8]) -> Option<T> {
            T::deserialize(&SerializedState::<T>::try_from(state).ok()?).ok()
        }
        let state = unhex(state)?;
        Some(match algorithm {
            Algorithm::Sha256 => Self::Sha256(of(&state)?),
            Algorithm::Sha384 => Self::Sha384(of(&state)?),
            Algorithm::Sha512 => Self::Sha512(of(&state)?),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_goes_on_where_it_was_put_down() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha384, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 65, 127, 128, 99_999] {
                let mut first = Running::new(algorithm);
                first.update(&bytes[..cut]);
                let mut second = Running::take_up(algorithm, &first.put_down()).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.finish().unwrap(), Digest::of_with(algorithm, &bytes));
            }
            assert!(Running::take_up(algorithm, "00").is_none());
            assert!(Running::take_up(algorithm, "no hex").is_none());
        }
    }
}
