//! Tar headers: exactly one form to write, every form in use to read.
//!
//! Writing follows `docs/archive-format.md`: the header of a path and size is a pure function, so that the place and the bytes of every
//! entry are known before its content is. Reading takes what Go, GNU tar, bsdtar and Python write: ustar with prefix, PAX `path` and
//! `size`, GNU long names, base-256 numbers.

/// Tar's unit: headers are one block, data is padded to blocks.
pub const BLOCK: u64 = 512;
/// Two zero blocks end a tar file.
pub const END_BYTES: u64 = 2 * BLOCK;
/// The longest path that is read (bytes). Longer ones are an attack or damage.
pub const MAX_PATH_BYTES: usize = 4096;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
/// The largest size that fits the octal field (11 digits).
const MAX_OCTAL: u64 = 0o777_7777_7777;
const PAX_NAME: &str = "airlock/pax";

/// One block.
pub type Block = [u8; BLOCK as usize];

/// An entry as found in a tar file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Full path, as written (not normalised).
    pub path: String,
    /// Offset of the first header that belongs to the entry (a PAX or long-name header, or its own).
    pub start: u64,
    /// Offset of its data.
    pub data: u64,
    /// Bytes of data.
    pub size: u64,
    /// Whether it is a regular file.
    pub is_file: bool,
}

/// What is wrong with a tar file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The checksum of the header does not match.
    #[error("the header at offset {0} is damaged (checksum)")]
    Checksum(u64),
    /// A number or name in the header makes no sense.
    #[error("the header at offset {0} is damaged ({1})")]
    Malformed(u64, &'static str),
    /// The file ends within an entry.
    #[error("the file ends at {len} bytes, inside the entry at offset {start}")]
    Truncated {
        /// Where the entry begins.
        start: u64,
        /// Length of the file.
        len: u64,
    },
    /// The file ends without the two zero blocks.
    #[error("the file ends at {0} bytes without the end-of-archive blocks")]
    NoEnd(u64),
    /// Reading failed.
    #[error("cannot read at offset {0}: {1}")]
    Io(u64, String),
}

/// Reads entries of a tar file by offset; the data is skipped, not read.
pub struct Walk<R> {
    read_at: R,
    len: u64,
    offset: u64,
    /// Whether end blocks are missing is reported only once.
    finished: bool,
}

/// `len` rounded up to whole blocks.
pub const fn padded(len: u64) -> u64 {
    len.div_ceil(BLOCK) * BLOCK
}

/// How many bytes of headers come before the data of an entry with this path.
pub fn header_len(path: &str) -> u64 {
    match split(path) {
        Some(_) => BLOCK,
        None => BLOCK + padded(pax_len(path)) + BLOCK,
    }
}

/// How many bytes the entry takes in all.
pub fn slot_len(path: &str, size: u64) -> u64 {
    header_len(path) + padded(size)
}

/// The headers of an entry: one block, or three and more where the path needs a PAX record.
pub fn headers(path: &str, size: u64) -> Vec<u8> {
    if let Some((prefix, name)) = split(path) {
        return block(prefix.as_bytes(), name.as_bytes(), size, b'0').to_vec();
    }
    let record = pax_record(path);
    let mut out = block(b"", PAX_NAME.as_bytes(), record.len() as u64, b'x').to_vec();
    out.extend_from_slice(record.as_bytes());
    out.resize(out.len() + (padded(record.len() as u64) as usize - record.len()), 0);
    let cut = path.as_bytes();
    out.extend_from_slice(&block(b"", &cut[..cut.len().min(NAME_BYTES)], size, b'0'));
    out
}

/// The single block that makes the whole slot of `path` and `size` one file called `void`, whatever lies in it.
pub fn void_header(void: &str, path: &str, size: u64) -> Block {
    let name = void.as_bytes();
    block(b"", &name[..name.len().min(NAME_BYTES)], slot_len(path, size) - BLOCK, b'0')
}

fn split(path: &str) -> Option<(&str, &str)> {
    if path.len() <= NAME_BYTES {
        return Some(("", path));
    }
    path.rmatch_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| prefix.len() <= PREFIX_BYTES && name.len() <= NAME_BYTES && !name.is_empty())
}

/// `<length> path=<path>\n`, where the length counts its own digits.
fn pax_record(path: &str) -> String {
    format!("{} path={path}\n", pax_len(path))
}

/// Bytes of that record.
fn pax_len(path: &str) -> u64 {
    let rest = (" path=\n".len() + path.len()) as u64;
    let mut len = rest + 1;
    loop {
        let with_digits = rest + u64::from(len.ilog10()) + 1;
        if with_digits == len {
            return len;
        }
        len = with_digits;
    }
}

fn block(prefix: &[u8], name: &[u8], size: u64, typeflag: u8) -> Block {
    let mut header = [0u8; BLOCK as usize];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    if size <= MAX_OCTAL {
        put_octal(&mut header[124..135], size);
    } else {
        header[124] = 0x80;
        header[128..136].copy_from_slice(&size.to_be_bytes());
    }
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = typeflag;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[345..345 + prefix.len()].copy_from_slice(prefix);
    let sum = checksum(&header);
    put_octal(&mut header[148..154], sum.into());
    header[154..156].copy_from_slice(b"\0 ");
    header
}

/// Fills a field with a number's octal digits; what stands after it stays zero.
fn put_octal(field: &mut [u8], mut number: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (number & 7) as u8;
        number >>= 3;
    }
}

fn checksum(header: &Block) -> u32 {
    // The sum's own field counts as eight spaces.
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(header) - sum(&header[148..156]) + 8 * 32
}

impl<R: FnMut(u64, &mut [u8]) -> std::io::Result<()>> Walk<R> {
    /// Walks a file of `len` bytes; `read_at` fills a buffer from an offset.
    pub fn new(len: u64, read_at: R) -> Self {
        Self { read_at, len, offset: 0, finished: false }
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), TarError> {
        (self.read_at)(offset, buffer).map_err(|e| TarError::Io(offset, e.to_string()))
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let start = self.offset;
        let mut long_path: Option<String> = None;
        let mut long_size: Option<u64> = None;
        loop {
            let at = self.offset;
            if at + BLOCK > self.len {
                return Err(if long_path.is_some() || at > start {
                    TarError::Truncated { start, len: self.len }
                } else {
                    TarError::NoEnd(self.len)
                });
            }
            let mut header = [0u8; BLOCK as usize];
            self.read(at, &mut header)?;
            if header.iter().all(|b| *b == 0) {
                // One zero block is enough for GNU tar; the second is checked by whoever checks lengths.
                return Ok(None);
            }
            let stored = octal(&header[148..156]).ok_or(TarError::Malformed(at, "checksum field"))?;
            if stored != u64::from(checksum(&header)) {
                return Err(TarError::Checksum(at));
            }
            let size = number(&header[124..136]).ok_or(TarError::Malformed(at, "size field"))?;
            let typeflag = header[156];
            let data = at + BLOCK;
            let next = padded_checked(size).and_then(|p| data.checked_add(p));
            match typeflag {
                b'x' | b'g' | b'L' | b'K' => {
                    let next = next.filter(|n| *n <= self.len).ok_or(TarError::Truncated { start, len: self.len })?;
                    if size > MAX_PATH_BYTES as u64 * 2 {
                        return Err(TarError::Malformed(at, "extension header too large"));
                    }
                    let mut record = vec![0u8; size as usize];
                    self.read(data, &mut record)?;
                    match typeflag {
                        b'x' => {
                            let (path, size) = pax(&record).ok_or(TarError::Malformed(at, "PAX record"))?;
                            long_path = path.or(long_path);
                            long_size = size.or(long_size);
                        }
                        b'L' => {
                            let end = record.iter().position(|b| *b == 0).unwrap_or(record.len());
                            let text = std::str::from_utf8(&record[..end]);
                            long_path = Some(text.map_err(|_| TarError::Malformed(at, "long name"))?.to_owned());
                        }
                        _ => {}
                    }
                    self.offset = next;
                }
                _ => {
                    let size = long_size.unwrap_or(size);
                    let path = match long_path.take() {
                        Some(path) => path,
                        None => name_of(&header).ok_or(TarError::Malformed(at, "name"))?,
                    };
                    if path.len() > MAX_PATH_BYTES {
                        return Err(TarError::Malformed(at, "path too long"));
                    }
                    let is_file = matches!(typeflag, b'0' | 0 | b'7');
                    // Links and directories have no data whatever their size field says.
                    let size = if is_file { size } else { 0 };
                    let end = padded_checked(size)
                        .and_then(|p| data.checked_add(p))
                        .filter(|end| *end <= self.len)
                        .ok_or(TarError::Truncated { start, len: self.len })?;
                    self.offset = end;
                    return Ok(Some(Entry { path, start, data, size, is_file }));
                }
            }
        }
    }
}

impl<R: FnMut(u64, &mut [u8]) -> std::io::Result<()>> Iterator for Walk<R> {
    type Item = Result<Entry, TarError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let item = self.next_entry().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.finished = true;
        }
        item
    }
}

fn padded_checked(size: u64) -> Option<u64> {
    size.checked_add(BLOCK - 1).map(|n| n / BLOCK * BLOCK)
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == '\0' || c == ' ');
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    // Base 256: only non-negative numbers of up to 64 bits make sense as sizes.
    let (head, tail) = field.split_at(field.len() - 8);
    if head[0] != 0x80 || head[1..].iter().any(|b| *b != 0) {
        return None;
    }
    Some(u64::from_be_bytes(tail.try_into().ok()?))
}

fn name_of(header: &Block) -> Option<String> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        std::str::from_utf8(&field[..end]).ok().map(str::to_owned)
    };
    let name = text(&header[..100])?;
    let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500])? } else { String::new() };
    Some(if prefix.is_empty() { name } else { format!("{prefix}/{name}") })
}

fn pax(mut record: &[u8]) -> Option<(Option<String>, Option<u64>)> {
    let (mut path, mut size) = (None, None);
    while !record.is_empty() {
        if record.iter().all(|b| *b == 0) {
            break;
        }
        let space = record.iter().position(|b| *b == b' ')?;
        let len: usize = std::str::from_utf8(&record[..space]).ok()?.parse().ok()?;
        if len <= space + 1 || len > record.len() || record[len - 1] != b'\n' {
            return None;
        }
        let pair = &record[space + 1..len - 1];
        let equals = pair.iter().position(|b| *b == b'=')?;
        let value = &pair[equals + 1..];
        match &pair[..equals] {
            b"path" => path = Some(std::str::from_utf8(value).ok()?.to_owned()),
            b"size" => size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            _ => {}
        }
        record = &record[len..];
    }
    Some((path, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Vec<Result<Entry, TarError>> {
        Walk::new(bytes.len() as u64, |offset, buffer: &mut [u8]| {
            let offset = offset as usize;
            buffer.copy_from_slice(&bytes[offset..offset + buffer.len()]);
            Ok(())
        })
        .collect()
    }

    fn tar_of(paths: &[(&str, u64)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (path, size) in paths {
            let start = out.len() as u64;
            out.extend(headers(path, *size));
            out.resize((start + slot_len(path, *size)) as usize, 7);
        }
        out.resize(out.len() + END_BYTES as usize, 0);
        out
    }

    #[test]
    fn every_length_of_path_reads_back() {
        for len in [1_usize, 99, 100, 101, 155, 156, 256, 257, 300, 470, 520, 1000] {
            for slash in [None, Some(2), Some(len / 2), Some(len.saturating_sub(30))] {
                let mut path = "a".repeat(len);
                if let Some(at) = slash.filter(|at| *at > 0 && *at + 1 < len) {
                    path.replace_range(at..=at, "/");
                }
                let bytes = tar_of(&[(&path, 700), ("after", 1)]);
                let entries: Vec<Entry> = walk(&bytes).into_iter().map(Result::unwrap).collect();
                assert_eq!(entries[0].path, path);
                assert_eq!((entries[0].data, entries[0].size), (header_len(&path), 700));
                assert_eq!(entries[1].path, "after");
                assert_eq!(entries[1].start, slot_len(&path, 700));
            }
        }
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        for len in 1..1200 {
            let record = pax_record(&"p".repeat(len));
            assert!(record.starts_with(&format!("{} path=p", record.len())), "{record}");
        }
    }

    #[test]
    fn sizes_above_eight_gib_read_back() {
        let size = 9 * 1024 * 1024 * 1024_u64;
        let header = headers("big", size);
        assert_eq!(number(&header[124..136]), Some(size));
        let read = |offset: u64, buffer: &mut [u8]| {
            if offset == 0 {
                buffer.copy_from_slice(&header);
            } else {
                buffer.fill(0);
            }
            Ok(())
        };
        let entries: Vec<_> = Walk::new(512 + padded(size) + 1024, read).collect();
        assert_eq!(entries[0].as_ref().unwrap().size, size);
        assert_eq!(entries.len(), 1);
    }

    #[test]
    fn a_void_covers_the_whole_slot_also_of_a_pax_entry() {
        for path in ["docker/x", &"p".repeat(300)] {
            let mut bytes = tar_of(&[(path, 1000), ("after", 1)]);
            let void = void_header("airlock/void/sha256:00", path, 1000);
            bytes[..512].copy_from_slice(&void);
            let entries: Vec<Entry> = walk(&bytes).into_iter().map(Result::unwrap).collect();
            assert_eq!(entries[0].path, "airlock/void/sha256:00");
            assert_eq!(entries[1].path, "after");
        }
    }

    #[test]
    fn damage_is_named() {
        let good = tar_of(&[("a", 10)]);
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        assert_eq!(walk(&flipped), [Err(TarError::Checksum(0))]);
        assert!(matches!(walk(&good[..600])[0], Err(TarError::Truncated { start: 0, len: 600 })));
        assert_eq!(walk(&good[..1024])[1], Err(TarError::NoEnd(1024)));
    }
}
