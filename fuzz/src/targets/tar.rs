//! Tar headers, raw and with the checksums put right, so that the fields behind them are reached.

use airlock_store::archive::tar::{
    BLOCK, Entry, MAX_PATH_BYTES, TarError, Walk, header_len, headers, slot_len, void_header,
};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "tar",
    run,
    words: &[
        b"ustar\x0000",
        b"ustar  \0",
        b"00000001000\0",
        b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"19 path=docker/link\n",
        b"20 size=99999999999\n",
        b"0 path=a\n",
        b"9999 path=a\n",
        b"airlock/void/",
        b"airlock/pax",
        b"docker/registry/v2/blobs/",
        b"../",
        b"x",
        b"L",
        b"g",
        b"5",
        &[0; 512],
    ],
};

fn walk(bytes: &[u8]) -> Vec<Result<Entry, TarError>> {
    Walk::new(bytes.len() as u64, |offset, buffer: &mut [u8]| {
        let offset = offset as usize;
        buffer.copy_from_slice(&bytes[offset..offset + buffer.len()]);
        Ok(())
    })
    .collect()
}

fn check(bytes: &[u8], features: &mut Features) {
    let len = bytes.len() as u64;
    let found = walk(bytes);
    let mut end = 0;
    for entry in found.iter().flatten() {
        assert!(entry.start >= end && entry.data >= entry.start + BLOCK, "entries do not overlap");
        assert!(entry.data % BLOCK == 0 && entry.start % BLOCK == 0, "entries begin at blocks");
        end = entry.data + entry.size;
        assert!(end <= len && entry.path.len() <= MAX_PATH_BYTES);
    }
    let entries = found.iter().flatten().count();
    assert!(found.iter().rev().skip(1).all(Result::is_ok), "an error is the last word");
    let error = found.last().and_then(|last| last.as_ref().err()).map(|error| match error {
        TarError::Malformed(_, what) => what,
        TarError::Checksum(_) => "checksum",
        TarError::Truncated { .. } => "truncated",
        TarError::NoEnd(_) => "no end",
        TarError::Io(..) => "io",
    });
    let long = found.iter().flatten().filter(|e| e.path.len() > 100).count();
    let files = found.iter().flatten().filter(|e| e.is_file).count();
    features.note((error, magnitude(entries)));
    features.note(("long", magnitude(long), "files", magnitude(files)));
    for entry in found.iter().flatten() {
        let headers = magnitude(((entry.data - entry.start) / BLOCK) as usize);
        features.note((headers, entry.is_file, magnitude(entry.size as usize), magnitude(entry.path.len())));
    }
}

/// Checksums of everything that says it is a header.
fn repaired(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for header in bytes.chunks_exact_mut(BLOCK as usize).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// What is written is read back, whatever the name. Names in archives are relative and have no zero bytes.
fn written(input: &[u8]) {
    let text: String = String::from_utf8_lossy(input).chars().filter(|c| *c != '\0').collect();
    let path: String = text.trim_start_matches('/').chars().take(MAX_PATH_BYTES / 4).collect();
    if path.is_empty() {
        return;
    }
    let size = (input.len() as u64 * 37) % 2_000;
    let header = headers(&path, size);
    assert_eq!(header.len() as u64, header_len(&path));
    let mut file = header;
    file.resize(slot_len(&path, size) as usize, 0);
    file.resize(file.len() + 1024, 0);
    let entry = Entry { path: path.clone(), start: 0, data: header_len(&path), size, is_file: true };
    assert_eq!(walk(&file), [Ok(entry)], "written and read");
    let void = void_header("airlock/void/x", &path, size);
    file[..void.len()].copy_from_slice(&void);
    let whole = slot_len(&path, size) - BLOCK;
    let entry = Entry { path: "airlock/void/x".to_owned(), start: 0, data: BLOCK, size: whole, is_file: true };
    assert_eq!(walk(&file), [Ok(entry)], "a void hides its slot");
}

fn run(input: &[u8], features: &mut Features) {
    written(input);
    check(input, features);
    check(&repaired(input), features);
}
