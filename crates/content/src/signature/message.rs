//! An OpenPGP signed message (RFC 9580, 10.3), packet by packet: with and without compression, with signatures of versions 3 and 4.
//!
//! Red Hat signed for years with version 3 signatures behind version 3 one-pass packets, which readers of whole messages refuse.

use std::io::Read;

use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{CompressedData, Packet, PacketParser, Signature, SignatureType};
use pgp::types::KeyId;

use super::error::SignatureError;
use super::keys::KeyRing;

/// The largest content of a message that is read (bytes). Real ones have about 330.
const MAX_CONTENT_BYTES: u64 = 1024 * 1024;
/// Compression within compression is followed this deep.
const MAX_DEPTH: usize = 3;
/// Most packets of a message.
const MAX_PACKETS: usize = 64;

/// A message: what was signed, and by whom it says it was.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) content: Vec<u8>,
    signatures: Vec<Signature>,
    literal: bool,
}

impl Message {
    /// Reads the packets to their end. Nothing is verified yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, SignatureError> {
        let mut message = Self::default();
        message.packets(bytes, 0)?;
        if !message.literal {
            return Err(malformed("it has no content"));
        }
        if message.signatures.is_empty() {
            return Err(SignatureError::Unsigned);
        }
        Ok(message)
    }

    fn packets(&mut self, bytes: &[u8], depth: usize) -> Result<(), SignatureError> {
        for (number, packet) in PacketParser::new(bytes).enumerate() {
            if number >= MAX_PACKETS {
                return Err(malformed("it has too many packets"));
            }
            match packet.map_err(|error| malformed(error.to_string()))? {
                Packet::CompressedData(compressed) => {
                    if depth >= MAX_DEPTH {
                        return Err(malformed("it is compressed over and over"));
                    }
                    self.packets(&inflate(&compressed)?, depth + 1)?;
                }
                Packet::LiteralData(literal) => {
                    // With two contents nobody could say which of them was signed.
                    if std::mem::replace(&mut self.literal, true) {
                        return Err(malformed("it has two contents"));
                    }
                    self.content = literal.data().to_vec();
                }
                Packet::Signature(signature) => self.signatures.push(signature),
                // Announces a signature that follows; nothing in it counts.
                Packet::OnePassSignature(_) | Packet::Marker(_) | Packet::Padding(_) => {}
                Packet::PublicKeyEncryptedSessionKey(_)
                | Packet::SymKeyEncryptedSessionKey(_)
                | Packet::SymEncryptedData(_)
                | Packet::SymEncryptedProtectedData(_)
                | Packet::GnupgAeadData(_) => return Err(SignatureError::Encrypted),
                _ => return Err(malformed("it is a key or something else, not a message")),
            }
        }
        Ok(())
    }

    /// The fingerprint of the trusted key whose signature holds now. Of several failures the one is told that came furthest.
    pub(super) fn signer(&self, keys: &KeyRing, now: u64) -> Result<String, SignatureError> {
        let mut unknown = Vec::new();
        let mut refused = None;
        for signature in &self.signatures {
            let named: Vec<KeyId> = signature.issuer_key_id().into_iter().copied().collect();
            let candidates = keys.candidates(&named);
            if candidates.is_empty() {
                unknown.extend(named.iter().map(|id| id.to_string().to_uppercase()));
                continue;
            }
            for candidate in candidates {
                let key = candidate.fingerprint();
                let verdict = check_form(signature)
                    .and_then(|()| {
                        candidate
                            .verify(signature, &self.content)
                            .map_err(|reason| SignatureError::Bad { key: key.clone(), reason })
                    })
                    .and_then(|()| {
                        if candidate.is_revoked() {
                            return Err(SignatureError::RevokedKey { key: key.clone() });
                        }
                        check_lifetime(signature, now)
                    });
                match verdict {
                    Ok(()) => return Ok(key),
                    Err(error) => refused = Some(error),
                }
            }
        }
        Err(refused.unwrap_or(SignatureError::UnknownKey { keys: unknown }))
    }
}

fn malformed(reason: impl Into<String>) -> SignatureError {
    SignatureError::Malformed { reason: reason.into() }
}

fn inflate(compressed: &CompressedData) -> Result<Vec<u8>, SignatureError> {
    let reader = compressed.decompress().map_err(|error| malformed(error.to_string()))?;
    let mut bytes = Vec::new();
    let read = reader.take(MAX_CONTENT_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| malformed(format!("it cannot be decompressed: {error}")))?;
    if bytes.len() as u64 > MAX_CONTENT_BYTES {
        return Err(malformed(format!("its content has more than {MAX_CONTENT_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Only signatures of content, by hashes that nobody can forge.
fn check_form(signature: &Signature) -> Result<(), SignatureError> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err(malformed("its signature is not one of content"));
    }
    match signature.hash_alg() {
        Some(
            HashAlgorithm::Sha224
            | HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => Ok(()),
        Some(weak) => Err(SignatureError::WeakHash { hash: weak.to_string().to_uppercase() }),
        None => Err(malformed("its signature names no hash")),
    }
}

/// A signature may say how long it is good for. That of the key does not matter here: releases outlive the keys of their time.
fn check_lifetime(signature: &Signature, now: u64) -> Result<(), SignatureError> {
    let (Some(created), Some(lifetime)) = (signature.created(), signature.signature_expiration_time()) else {
        return Ok(());
    };
    let lifetime = u64::from(lifetime.as_secs());
    let end = u64::from(created.as_secs()) + lifetime;
    if lifetime == 0 || now < end {
        return Ok(());
    }
    Err(SignatureError::Expired { lifetime_seconds: lifetime, ago_seconds: now - end })
}
