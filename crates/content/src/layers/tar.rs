//! Reads a layer's tar as a stream: one header after another, forward only, with nothing kept but the current entry.
//!
//! Understands what Go, GNU tar, bsdtar and Python write: ustar with prefix, PAX records, GNU long names, base-256 numbers. Where tools differ
//! about what a doubtful tar means (two names for one entry, a lone zero block, global records that rename), the tar is refused: a
//! layer in which two readers see two different files is not one that a signature can stand for.

use std::io::{self, Read};

/// Tar's unit: headers are one block, data is padded to blocks.
const BLOCK: usize = 512;
/// The largest extension header (PAX records, GNU long name) that is read, in bytes; what Go's reader takes.
pub const MAX_EXTENSION_BYTES: u64 = 1024 * 1024;
/// The longest path or link that is read, in bytes.
pub const MAX_PATH_BYTES: usize = 4096;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file stored with holes, which this reader does not put together.
    Sparse,
    /// Another name of a file that came earlier.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A directory.
    Directory,
    /// A device, a pipe, or something unknown.
    Other,
}

/// The header of an entry, extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As written, not normalised.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Bytes of data that follow.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970; 0 where the field makes no sense.
    pub modified: i64,
    /// What a link points to, as written; empty for anything else.
    pub link: Vec<u8>,
}

/// What is wrong with a tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The checksum of the header does not match: damage, or no tar at all.
    #[error("the tar header at offset {0} is damaged (checksum)")]
    Checksum(u64),
    /// A field makes no sense.
    #[error("the tar header at offset {0} is malformed ({1})")]
    Malformed(u64, &'static str),
    /// It ends within an entry.
    #[error("the tar ends inside the entry at offset {0}")]
    Truncated(u64),
    /// The stream below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A tar being read.
///
/// * `left` bytes of the current entry's data, then `padding` bytes, come next.
pub struct Reader<R> {
    inner: R,
    /// Bytes taken from `inner`.
    offset: u64,
    left: u64,
    padding: u64,
    /// Where the current entry's first header is.
    start: u64,
    ended: bool,
}

/// The data of the current entry; what is not read of it is skipped.
pub struct Content<'a, R> {
    reader: &'a mut Reader<R>,
}

/// What extension headers say about the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    modified: Option<i64>,
    sparse: bool,
    pax: bool,
    gnu: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from the beginning of a tar.
    pub fn new(inner: R) -> Self {
        Self { inner, offset: 0, left: 0, padding: 0, start: 0, ended: false }
    }

    /// The next entry; `None` at the end. After an error there is no next entry.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let result = self.advance();
        if !matches!(result, Ok(Some(_))) {
            self.ended = true;
        }
        result
    }

    /// The data of the entry that [`Self::next_entry`] gave last.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { reader: self }
    }

    fn advance(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip(self.left.saturating_add(self.padding))?;
        (self.left, self.padding) = (0, 0);
        self.start = self.offset;
        let mut extension = Extension::default();
        loop {
            let at = self.offset;
            let bad = |what| TarError::Malformed(at, what);
            let Some(header) = self.block()? else {
                // A tar that ends at an entry's boundary without end blocks is common, and the blob's digest tells of cuts.
                return if at == self.start { Ok(None) } else { Err(TarError::Truncated(self.start)) };
            };
            if header.iter().all(|b| *b == 0) {
                if at != self.start {
                    return Err(bad("an extension header without its entry"));
                }
                return match self.block()? {
                    Some(second) if second.iter().any(|b| *b != 0) => Err(bad("a lone zero block inside")),
                    _ => Ok(None),
                };
            }
            check(&header).ok_or(TarError::Checksum(at))?;
            let size = number(&header[124..136]).and_then(|n| u64::try_from(n).ok()).ok_or(bad("size"))?;
            match header[156] {
                kind @ (b'x' | b'g' | b'L' | b'K') => {
                    let bytes = self.extension(size, at)?;
                    match kind {
                        b'x' if extension.pax => return Err(bad("two PAX headers for one entry")),
                        b'x' => extension.pax(&bytes).map_err(bad)?,
                        b'g' => global(&bytes).map_err(bad)?,
                        b'L' if extension.gnu && extension.path.is_some() => return Err(bad("two long names")),
                        b'K' if extension.gnu && extension.link.is_some() => return Err(bad("two long links")),
                        b'L' => extension.gnu_name(&bytes, false).map_err(bad)?,
                        _ => extension.gnu_name(&bytes, true).map_err(bad)?,
                    }
                }
                b'S' => {
                    // Old GNU sparse files: more blocks of the map may follow the header.
                    let mut more = header[482] != 0;
                    while more {
                        let map = self.block()?.ok_or(TarError::Truncated(self.start))?;
                        more = map[504] != 0;
                    }
                    extension.sparse = true;
                    return self.entry(&header, size, extension, at).map(Some);
                }
                _ => return self.entry(&header, size, extension, at).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &[u8; BLOCK], size: u64, extension: Extension, at: u64) -> Result<Entry, TarError> {
        let bad = |what| TarError::Malformed(at, what);
        let path = match extension.path {
            Some(path) => path,
            None => name(header),
        };
        let kind = match header[156] {
            // Before POSIX a directory was a file whose name ends with a slash.
            0 if path.last() == Some(&b'/') => Kind::Directory,
            _ if extension.sparse => Kind::Sparse,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'5' => Kind::Directory,
            _ => Kind::Other,
        };
        let link = match kind {
            Kind::HardLink | Kind::Symlink => extension.link.unwrap_or_else(|| text(&header[157..257]).to_vec()),
            _ => Vec::new(),
        };
        if path.is_empty() {
            return Err(bad("an empty name"));
        }
        if path.len() > MAX_PATH_BYTES || link.len() > MAX_PATH_BYTES {
            return Err(bad("a name that is too long"));
        }
        // Links, directories and devices have no data, whatever their size field says: so Go, GNU tar and Python read it.
        let header_only = matches!(header[156], b'1'..=b'6') || kind == Kind::Directory;
        let size = if header_only { 0 } else { extension.size.unwrap_or(size) };
        self.left = size;
        self.padding = padding(size).ok_or(bad("size"))?;
        let mode = number(&header[100..108]).map_or(0, |n| (n & 0o7777) as u32);
        let modified = extension.modified.or_else(|| number(&header[136..148])).unwrap_or(0);
        Ok(Entry { path, kind, size, mode, modified, link })
    }

    /// The data of an extension header.
    fn extension(&mut self, size: u64, at: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION_BYTES {
            return Err(TarError::Malformed(at, "an extension header that is too large"));
        }
        // Grows with what comes, so that a size that lies takes no memory.
        let mut bytes = Vec::new();
        let read = (&mut self.inner).take(size).read_to_end(&mut bytes)?;
        self.offset += read as u64;
        if (read as u64) < size {
            return Err(TarError::Truncated(self.start));
        }
        self.skip(padding(size).unwrap_or(0))?;
        Ok(bytes)
    }

    /// The next block; `None` when the stream ends before it.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let (mut block, mut filled) = ([0; BLOCK], 0);
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated(self.start)),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn skip(&mut self, bytes: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.inner).take(bytes), &mut io::sink())?;
        self.offset += skipped;
        if skipped < bytes { Err(TarError::Truncated(self.start)) } else { Ok(()) }
    }
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = &mut *self.reader;
        let most = buffer.len().min(usize::try_from(reader.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let read = reader.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Truncated(reader.start)));
        }
        reader.offset += read as u64;
        reader.left -= read as u64;
        Ok(read)
    }
}

impl Extension {
    fn pax(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.pax = true;
        let both = |gnu: bool, what: &Option<Vec<u8>>| gnu && what.is_some();
        let mut sparse_name = None;
        for record in records(bytes) {
            let (key, value) = record?;
            match key {
                b"path" | b"linkpath" | b"GNU.sparse.name" if value.contains(&0) => return Err("a NUL in a PAX name"),
                b"path" if both(self.gnu, &self.path) => return Err("a GNU and a PAX name for one entry"),
                b"linkpath" if both(self.gnu, &self.link) => return Err("a GNU and a PAX link for one entry"),
                // An empty value takes the record back.
                b"path" => self.path = Some(value.to_vec()).filter(|v| !v.is_empty()),
                b"linkpath" => self.link = Some(value.to_vec()).filter(|v| !v.is_empty()),
                b"size" if value.is_empty() => self.size = None,
                b"size" => self.size = Some(decimal(value).ok_or("a PAX size")?),
                b"mtime" => self.modified = seconds(value),
                _ if key.starts_with(b"GNU.sparse.") => {
                    self.sparse = true;
                    if key == b"GNU.sparse.name" {
                        sparse_name = Some(value.to_vec());
                    }
                }
                _ => {}
            }
        }
        // The name in the header of such an entry is made up; this is the file's.
        self.path = sparse_name.or(self.path.take());
        Ok(())
    }

    fn gnu_name(&mut self, bytes: &[u8], link: bool) -> Result<(), &'static str> {
        let name = Some(text(bytes).to_vec());
        let place = if link { &mut self.link } else { &mut self.path };
        if self.pax && place.is_some() {
            return Err("a PAX and a GNU name for one entry");
        }
        *place = name;
        self.gnu = true;
        Ok(())
    }
}

/// Global PAX records apply to every entry that follows. Those about names and sizes are read differently by different tools.
fn global(bytes: &[u8]) -> Result<(), &'static str> {
    for record in records(bytes) {
        let (key, _) = record?;
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err("a global PAX record that renames or resizes");
        }
    }
    Ok(())
}

/// `<length> <key>=<value>\n`, where the length counts all of it.
fn records(mut bytes: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8]), &'static str>> {
    const BAD: &str = "PAX record";
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let taken = (|| {
            let space = bytes.iter().take(21).position(|b| *b == b' ')?;
            let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
            if len <= space + 1 || len > bytes.len() || bytes[len - 1] != b'\n' {
                return None;
            }
            let pair = &bytes[space + 1..len - 1];
            let equals = pair.iter().position(|b| *b == b'=').filter(|at| *at > 0)?;
            Some((&pair[..equals], &pair[equals + 1..], &bytes[len..]))
        })();
        match taken {
            Some((key, value, rest)) => {
                bytes = rest;
                Some(Ok((key, value)))
            }
            None => {
                bytes = &[];
                Some(Err(BAD))
            }
        }
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The whole seconds of a PAX time, rounded down.
fn seconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let below = whole.starts_with('-') && fraction.bytes().any(|b| b != b'0');
    Some(if below { seconds.checked_sub(1)? } else { seconds })
}

fn padding(size: u64) -> Option<u64> {
    let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    size.checked_add(padding).map(|_| padding)
}

/// Whether the checksum is right. Some old tools summed signed bytes.
fn check(header: &[u8; BLOCK]) -> Option<()> {
    let stored = octal(&header[148..156])?;
    let bytes = || header.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    (stored == unsigned || stored == signed).then_some(())
}

fn octal(field: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == '\0' || c == ' ');
    if text.is_empty() {
        return Some(0);
    }
    // `from_str_radix` takes a sign, a header does not.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    i64::from_str_radix(text, 8).ok()
}

/// Octal text, or base 256 where the first bit says so.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    // Two's complement over all bits but the marker. Only what fits 64 bits makes sense.
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = i128::from(field[0] & 0x7f) - if negative { 0x80 } else { 0 };
    for byte in &field[1..] {
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    i64::try_from(value).ok()
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
    &field[..end]
}

fn name(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    let prefix = if &header[257..263] == b"ustar\0" { text(&header[345..500]) } else { &[] };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}
