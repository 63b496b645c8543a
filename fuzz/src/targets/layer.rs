//! The tar of a layer as a stream, raw and with the checksums put right: what is read does not depend on the pieces it comes in.

use std::io::{self, Read};

use airlock_content::graph_image::GraphData;
use airlock_content::layers::tar::{Entry, Kind, MAX_PATH_BYTES, Reader, TarError};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "layer",
    run,
    words: &[
        b"ustar\x0000",
        b"ustar  \0",
        b"00000001000\0",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"21 linkpath=version\n",
        b"18 path=channels/a\n",
        b"20 size=99999999999\n",
        b"22 GNU.sparse.major=1\n",
        b"25 GNU.sparse.name=/a/b\n",
        b"21 mtime=-1.500000000\n",
        b"0 path=a\n",
        b"version",
        b"channels/",
        b".wh..wh..opq",
        b"../",
        b"x",
        b"L",
        b"K",
        b"g",
        b"S",
        b"1",
        b"2",
        b"5",
        &[0; 512],
    ],
};

/// Gives its bytes in pieces of at most this size.
struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.1).min(self.0.len());
        buffer[..most].copy_from_slice(&self.0[..most]);
        self.0 = &self.0[most..];
        Ok(most)
    }
}

/// Every entry with its data; the last word is how it ended.
fn walk(input: impl Read, every: usize) -> (Vec<(Entry, Option<Vec<u8>>)>, Result<(), String>) {
    let (mut reader, mut found) = (Reader::new(input), Vec::new());
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return (found, Ok(())),
            Err(error) => {
                assert!(matches!(reader.next_entry(), Ok(None)), "an error is the last word");
                let class = match error {
                    TarError::Malformed(_, what) => what.to_owned(),
                    TarError::Checksum(_) => "checksum".to_owned(),
                    TarError::Truncated(_) => "truncated".to_owned(),
                    TarError::Io(error) => panic!("a slice does not fail: {error}"),
                };
                return (found, Err(class));
            }
        };
        assert!(entry.path.len() <= MAX_PATH_BYTES && entry.link.len() <= MAX_PATH_BYTES && !entry.path.is_empty());
        assert!(entry.size == 0 || matches!(entry.kind, Kind::File | Kind::Sparse | Kind::Other), "{:?}", entry.kind);
        // What is skipped and what is read come to the same.
        let data = (found.len() % every == 0).then(|| {
            let mut data = Vec::new();
            let read = reader.content().read_to_end(&mut data);
            assert_eq!(read.is_ok(), data.len() as u64 == entry.size, "all of it, or an error");
            data
        });
        found.push((entry, data));
    }
}

fn check(bytes: &[u8], features: &mut Features) {
    let (whole, ended) = walk(bytes, 1);
    let (pieces, same) = walk(Pieces(bytes, 7), 1);
    assert!(whole == pieces && ended == same, "the pieces make no difference");
    let (skipped, same) = walk(Pieces(bytes, 513), 2);
    assert_eq!(ended, same, "skipping makes no difference");
    let headers = |found: &[(Entry, Option<Vec<u8>>)]| found.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>();
    assert_eq!(headers(&whole), headers(&skipped));
    features.note((&ended, magnitude(whole.len())));
    for (entry, _) in &whole {
        features.note((
            entry.kind,
            magnitude(entry.size as usize),
            magnitude(entry.path.len()),
            entry.link.len().min(2),
        ));
    }
    let data = GraphData::read(bytes, "fuzz");
    assert!(data.is_err() || ended.is_ok(), "graph data are a whole tar");
    features.note(("graph data", data.is_ok()));
}

/// Checksums of everything that says it is a header.
fn repaired(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for header in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

fn run(input: &[u8], features: &mut Features) {
    check(input, features);
    check(&repaired(input), features);
}
