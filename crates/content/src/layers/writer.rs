//! Writes a layer: the same files give the same bytes, on every machine.
//!
//! Owner and group are root, times are one fixed time, the gzip header names neither a time nor a file. The caller gives entries in an order
//! that it can repeat.

use std::io::{self, Read, Write};

use airlock_oci::{Algorithm, Descriptor, Digest, Error, ErrorKind, Hasher, media_type};
use flate2::{Compression, GzBuilder, write::GzEncoder};

use super::tar::MAX_PATH_BYTES;

const BLOCK: usize = 512;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The largest size that fits a header's octal field.
const MAX_OCTAL: u64 = 0o777_7777_7777;
/// The name of the entries that carry a longer one. Nobody sees it.
const PAX_NAME: &str = "airlock/pax";
/// Compressed a little better than fast: layers are written once and carried often.
const LEVEL: Compression = Compression::new(6);

/// A layer in the making, compressed with gzip into `W`.
pub struct Writer<W: Write> {
    packed: GzEncoder<Hashed<W>>,
    plain: Hasher,
    modified: u64,
}

/// A finished layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Of the compressed bytes, as a manifest names it; with OCI's media type.
    pub descriptor: Descriptor,
    /// Of the tar, as a configuration names it.
    pub diff_id: Digest,
}

struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    len: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn failed(error: io::Error) -> Error {
    super::broken(error, "write a layer")
}

impl<W: Write> Writer<W> {
    /// An empty layer in which everything was changed `modified` seconds after 1970.
    pub fn new(inner: W, modified: u64) -> Self {
        let hashed = Hashed { inner, hasher: Hasher::new(Algorithm::Sha256), len: 0 };
        // No time, no name, and "unknown" for the system, whatever system this is.
        let packed = GzBuilder::new().mtime(0).operating_system(255).write(hashed, LEVEL);
        Self { packed, plain: Hasher::new(Algorithm::Sha256), modified }
    }

    /// A directory, mode 0755.
    pub fn directory(&mut self, path: &str) -> Result<(), Error> {
        self.header(&format!("{}/", path.trim_end_matches('/')), b'5', 0o755, 0)
    }

    /// A file, mode 0644, of exactly `size` bytes.
    pub fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        self.header(path, b'0', 0o644, size)?;
        let mut buffer = [0; 16 * 1024];
        let mut left = size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = match content.read(&mut buffer[..most]) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(failed(e)),
            };
            if read == 0 {
                let cause = format!("`{path}` ends {left} bytes before its size");
                return Err(Error::new(ErrorKind::Content, "write a layer", cause));
            }
            self.put(&buffer[..read])?;
            left -= read as u64;
        }
        self.pad(size)
    }

    /// Ends the layer.
    pub fn finish(mut self) -> Result<(W, Layer), Error> {
        self.put(&[0; 2 * BLOCK])?;
        let hashed = self.packed.finish().map_err(failed)?;
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, hashed.hasher.finish(), hashed.len);
        Ok((hashed.inner, Layer { descriptor, diff_id: self.plain.finish() }))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.plain.update(bytes);
        self.packed.write_all(bytes).map_err(failed)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = (size % BLOCK as u64) as usize;
        if over == 0 { Ok(()) } else { self.put(&[0; BLOCK][over..]) }
    }

    fn header(&mut self, path: &str, kind: u8, mode: u32, size: u64) -> Result<(), Error> {
        let refuse = |cause: &str| {
            let cause = format!("`{path}` {cause}");
            Err(Error::new(ErrorKind::Invalid, "write a layer", cause))
        };
        if path.is_empty() || path.len() > MAX_PATH_BYTES || path.contains('\0') {
            return refuse("is no path");
        }
        if size > MAX_OCTAL {
            return refuse("is larger than 8 GiB");
        }
        let (prefix, name) = match split(path) {
            Some(parts) => parts,
            None => {
                let record = pax_record(path);
                self.block("", PAX_NAME, b'x', 0o644, record.len() as u64)?;
                self.put(record.as_bytes())?;
                self.pad(record.len() as u64)?;
                // For readers that know no PAX: the beginning of the name, cut between characters.
                ("", &path[..path.floor_char_boundary(NAME_BYTES)])
            }
        };
        self.block(prefix, name, kind, mode, size)
    }

    fn block(&mut self, prefix: &str, name: &str, kind: u8, mode: u32, size: u64) -> Result<(), Error> {
        let mut header = [0_u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(format!("{:011o}\0", self.modified.min(MAX_OCTAL)).as_bytes());
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.put(&header)
    }
}

/// Prefix and name of a ustar header; `None` when the path does not fit one.
fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_BYTES {
        return Some(("", path));
    }
    path.rmatch_indices('/').map(|(at, _)| (&path[..at], &path[at + 1..])).find(|(prefix, name)| {
        prefix.len() <= PREFIX_BYTES && (1..=NAME_BYTES).contains(&name.len()) && !prefix.is_empty()
    })
}

/// `<length> path=<path>\n`, where the length counts its own digits.
fn pax_record(path: &str) -> String {
    let rest = format!(" path={path}\n");
    let mut len = rest.len() + 1;
    while len != rest.len() + len.to_string().len() {
        len = rest.len() + len.to_string().len();
    }
    format!("{len}{rest}")
}

#[cfg(test)]
mod tests {
    use flate2::read::MultiGzDecoder;
    use proptest::prelude::*;

    use super::super::tar::{Kind, Reader};
    use super::*;

    fn layer(files: &[(String, Vec<u8>)]) -> (Vec<u8>, Layer) {
        let mut writer = Writer::new(Vec::new(), 7);
        for (path, data) in files {
            writer.file(path, data.len() as u64, &mut &data[..]).unwrap();
        }
        writer.finish().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            files in prop::collection::vec(("[a-zé/]{1,300}", prop::collection::vec(any::<u8>(), 0..1500)), 0..6)
        ) {
            let (bytes, made) = layer(&files);
            prop_assert_eq!(&Digest::of(&bytes), &made.descriptor.digest);
            prop_assert_eq!(layer(&files).0, bytes.clone());
            let mut plain = Vec::new();
            MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
            prop_assert_eq!(Digest::of(&plain), made.diff_id);
            let mut reader = Reader::new(&plain[..]);
            for (path, data) in &files {
                let entry = reader.next_entry().unwrap().unwrap();
                prop_assert_eq!(&entry.path, path.as_bytes());
                prop_assert_eq!((entry.kind, entry.mode, entry.modified), (Kind::File, 0o644, 7));
                let mut content = Vec::new();
                reader.content().read_to_end(&mut content).unwrap();
                prop_assert_eq!(&content, data);
            }
            prop_assert!(reader.next_entry().unwrap().is_none());
        }
    }

    #[test]
    fn content_that_is_shorter_than_said_is_an_error() {
        let mut writer = Writer::new(Vec::new(), 0);
        assert!(writer.file("a", 4, &mut &b"abc"[..]).unwrap_err().to_string().contains("1 bytes before"));
        assert!(Writer::new(Vec::new(), 0).directory("a\0b").is_err());
    }
}
