//! The text of `airlock/seal`: chunk digests of every part, and the identity over them.

use airlock_oci::{Digest, Error, ErrorKind};
use blake3::Hash;

use super::chunks::CHUNK_BYTES;

/// How the chunks are hashed, as the seal says it: algorithm and bytes.
const CHUNKS: &str = "blake3 4194304";
const _: () = assert!(CHUNK_BYTES == 4_194_304);

/// A seal, written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// Digest of the table.
    pub set: Digest,
    /// The archive's number.
    pub sequence: u32,
    /// The archive's date.
    pub created: String,
    /// Numbers of the entries that are void. Empty: the archive is whole.
    pub voids: Vec<usize>,
    /// Length and chunk digests of each part.
    pub parts: Vec<SealedPart>,
}

/// What the seal says of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedPart {
    /// Bytes that the chunks cover.
    pub length: u64,
    /// BLAKE3 of each chunk.
    pub chunks: Vec<Hash>,
}

impl Seal {
    /// The text, and the identity in its last line.
    pub fn write(&self) -> (String, Digest) {
        let mut out = format!(
            "airlock-seal 1\nset {}\nsequence {:06}\ncreated {}\nchunks {CHUNKS}\n",
            self.set, self.sequence, self.created
        );
        if !self.voids.is_empty() {
            let numbers: Vec<String> = self.voids.iter().map(usize::to_string).collect();
            out.push_str(&format!("void {}\n", numbers.join(" ")));
        }
        for (number, part) in self.parts.iter().enumerate() {
            out.push_str(&super::table::part_line(number, part.length));
            for chunk in &part.chunks {
                out.push_str(&chunk.to_hex());
                out.push('\n');
            }
        }
        let identity = Digest::of(out.as_bytes());
        out.push_str(&format!("identity {identity}\n"));
        (out, identity)
    }

    /// Reads a seal and checks its identity.
    pub fn parse(text: &str) -> Result<(Self, Digest), Error> {
        let bad = |why: &str| {
            Error::new(ErrorKind::Damaged, "read the archive's seal", why)
                .hint("the seal is damaged: fetch the last part of the archive again from where it was written")
        };
        let body_len = text.trim_end_matches('\n').rfind('\n').ok_or_else(|| bad("it is empty"))? + 1;
        let identity: Digest = text[body_len..]
            .strip_prefix("identity ")
            .and_then(|i| i.strip_suffix('\n'))
            .and_then(|i| i.parse().ok())
            .ok_or_else(|| bad("it does not end with an identity"))?;
        if Digest::of(&text.as_bytes()[..body_len]) != identity {
            return Err(bad("its identity does not match its content"));
        }
        let mut lines = text[..body_len].lines().peekable();
        let mut expect = |key: &str| {
            lines
                .next()
                .and_then(|l| l.strip_prefix(key)?.strip_prefix(' ').map(str::to_owned))
                .ok_or_else(|| bad(&format!("no `{key}` line")))
        };
        if expect("airlock-seal")? != "1" {
            return Err(Error::new(ErrorKind::Unsupported, "read the archive's seal", "unknown version")
                .hint("use the version of airlock that wrote the archive, or a later one"));
        }
        let set = expect("set")?.parse().map_err(|_| bad("bad `set`"))?;
        let sequence = expect("sequence")?.parse().map_err(|_| bad("bad `sequence`"))?;
        let created = expect("created")?;
        if expect("chunks")? != CHUNKS {
            return Err(bad("chunks of an unknown kind"));
        }
        let mut seal = Self { set, sequence, created, voids: Vec::new(), parts: Vec::new() };
        for line in lines {
            if let Some(numbers) = line.strip_prefix("void ") {
                let numbers: Result<Vec<usize>, _> = numbers.split(' ').map(str::parse).collect();
                seal.voids = numbers.map_err(|_| bad("bad `void`"))?;
            } else if let Some(rest) = line.strip_prefix("part ") {
                let (_, length) = rest.split_once(' ').ok_or_else(|| bad("bad `part`"))?;
                let length = length.parse().map_err(|_| bad("bad `part`"))?;
                seal.parts.push(SealedPart { length, chunks: Vec::new() });
            } else {
                let chunk = Hash::from_hex(line).map_err(|_| bad("unexpected line"))?;
                seal.parts.last_mut().ok_or_else(|| bad("chunk before part"))?.chunks.push(chunk);
            }
        }
        if seal.parts.iter().any(|p| p.chunks.len() as u64 != p.length.div_ceil(CHUNK_BYTES)) {
            return Err(bad("wrong number of chunks"));
        }
        Ok((seal, identity))
    }
}
