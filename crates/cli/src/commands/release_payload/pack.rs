//! One program as an archive: tar with gzip, or zip for Windows. Written in one go, hashed on the way, the same input always the same bytes.

use std::io::{self, Write};

use airlock_content::layers::File;
use airlock_oci::{Algorithm, Digest, Hasher};
use flate2::write::{DeflateEncoder, GzEncoder};
use flate2::{Compression, Crc, GzBuilder};

/// As `oc` packs: quick, since programs are large.
const LEVEL: Compression = Compression::new(3);
const BLOCK: usize = 512;
const README: &str = "# OpenShift\n\nA program of an OpenShift release, taken out of it by `airlock release extract --tools`. Put it into a folder of your PATH.\n\
    `release.txt` beside this archive describes the release, `sha256sum.txt` has the checksums.\n\n\
    Documentation: https://docs.openshift.com\n";

/// How archives are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// For Linux and macOS.
    TarGz,
    /// For Windows.
    Zip,
}

impl Kind {
    /// What the names of such archives end with.
    pub(super) fn extension(self) -> &'static str {
        match self {
            Self::TarGz => "tar.gz",
            Self::Zip => "zip",
        }
    }
}

/// Hashes and counts what goes through.
struct Summed<W> {
    inner: W,
    hasher: Hasher,
    len: u64,
}

impl<W: Write> Write for Summed<W> {
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

/// Writes an archive with a short text and the program; `fill` writes the program's bytes, as many as `file` says. A client of a tar can be
/// called by its other name too. Answers the checksum and what `fill` did.
pub(super) fn pack<T>(
    kind: Kind,
    out: impl Write,
    name: &str,
    file: &File<'_>,
    client: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(Digest, T)> {
    let out = Summed { inner: out, hasher: Hasher::new(Algorithm::Sha256), len: 0 };
    let (mut out, filled) = match kind {
        Kind::TarGz => tar(out, name, file, client, fill)?,
        Kind::Zip => zip(out, name, file, fill)?,
    };
    out.flush()?;
    Ok((out.hasher.finish(), filled))
}

fn tar<W: Write, T>(
    out: Summed<W>,
    name: &str,
    file: &File<'_>,
    client: bool,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(Summed<W>, T)> {
    let mut packed: GzEncoder<_> = GzBuilder::new().mtime(0).operating_system(255).write(out, LEVEL);
    let seconds = u64::try_from(file.modified).unwrap_or(0);
    packed.write_all(&header("README.md", 0o644, README.len() as u64, seconds, None))?;
    packed.write_all(README.as_bytes())?;
    packed.write_all(&padding(README.len() as u64))?;
    packed.write_all(&header(name, 0o755, file.size, seconds, None))?;
    let filled = fill(&mut packed)?;
    packed.write_all(&padding(file.size))?;
    if client {
        packed.write_all(&header("kubectl", 0o755, 0, seconds, Some(name)))?;
    }
    packed.write_all(&[0; 2 * BLOCK])?;
    Ok((packed.finish()?, filled))
}

fn padding(size: u64) -> Vec<u8> {
    vec![0; (size.next_multiple_of(BLOCK as u64) - size) as usize]
}

/// A header of a tar's file, or of a hard link to another of its files. Names are ours, and short.
fn header(name: &str, mode: u32, size: u64, seconds: u64, link: Option<&str>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}").as_bytes());
    put(108, b"0000000");
    put(116, b"0000000");
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{seconds:011o}").as_bytes());
    put(148, b"        ");
    put(156, if link.is_some() { b"1" } else { b"0" });
    put(157, link.unwrap_or_default().as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// An entry of a zip, as its directory names it.
struct Entry {
    name: String,
    mode: u32,
    crc: u32,
    packed: u32,
    size: u32,
    offset: u32,
}

/// Counts and sums what goes into an entry.
struct Checked<'w, W: Write> {
    inner: DeflateEncoder<&'w mut Summed<W>>,
    crc: Crc,
    len: u64,
}

impl<W: Write> Write for Checked<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.crc.update(&buffer[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Sizes and sums follow each entry (bit 3), since they are known only then.
const FLAGS: u16 = 1 << 3;
const DEFLATED: u16 = 8;
/// The oldest version of the format that has both.
const VERSION: u16 = 20;
const UNIX: u16 = 3 << 8;

fn zip<W: Write, T>(
    mut out: Summed<W>,
    name: &str,
    file: &File<'_>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(Summed<W>, T)> {
    let stamp = dos(file.modified);
    let (readme, ()) = entry(&mut out, "README.md", 0o644, stamp, |out| out.write_all(README.as_bytes()))?;
    let (program, filled) = entry(&mut out, name, 0o755, stamp, fill)?;
    let start = out.len;
    let entries = [readme, program];
    for entry in &entries {
        let mut record = Vec::new();
        record.extend(0x0201_4b50_u32.to_le_bytes());
        for short in [UNIX | VERSION, VERSION, FLAGS, DEFLATED, stamp.1, stamp.0] {
            record.extend(short.to_le_bytes());
        }
        for long in [entry.crc, entry.packed, entry.size] {
            record.extend(long.to_le_bytes());
        }
        // No further field, no comment, the first disk, no inner attributes.
        for short in [entry.name.len() as u16, 0, 0, 0, 0] {
            record.extend(short.to_le_bytes());
        }
        record.extend(((0o100_000 | entry.mode) << 16).to_le_bytes());
        record.extend(entry.offset.to_le_bytes());
        record.extend(entry.name.as_bytes());
        out.write_all(&record)?;
    }
    let length = small(out.len - start)?;
    let mut end = Vec::new();
    end.extend(0x0605_4b50_u32.to_le_bytes());
    for short in [0, 0, entries.len() as u16, entries.len() as u16] {
        end.extend(short.to_le_bytes());
    }
    end.extend(length.to_le_bytes());
    end.extend(small(start)?.to_le_bytes());
    end.extend(0_u16.to_le_bytes());
    out.write_all(&end)?;
    Ok((out, filled))
}

fn entry<W: Write, T>(
    out: &mut Summed<W>,
    name: &str,
    mode: u32,
    stamp: (u16, u16),
    fill: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<(Entry, T)> {
    let offset = small(out.len)?;
    let mut head = Vec::new();
    head.extend(0x0403_4b50_u32.to_le_bytes());
    for short in [VERSION, FLAGS, DEFLATED, stamp.1, stamp.0] {
        head.extend(short.to_le_bytes());
    }
    head.extend([0; 12]);
    head.extend((name.len() as u16).to_le_bytes());
    head.extend(0_u16.to_le_bytes());
    head.extend(name.as_bytes());
    out.write_all(&head)?;
    let before = out.len;
    let mut checked = Checked { inner: DeflateEncoder::new(&mut *out, LEVEL), crc: Crc::new(), len: 0 };
    let filled = fill(&mut checked)?;
    let Checked { inner, crc, len } = checked;
    let (out, crc, size) = (inner.finish()?, crc.sum(), small(len)?);
    let packed = small(out.len - before)?;
    for long in [0x0807_4b50, crc, packed, size] {
        out.write_all(&long.to_le_bytes())?;
    }
    Ok((Entry { name: name.to_owned(), mode, crc, packed, size, offset }, filled))
}

fn small(len: u64) -> io::Result<u32> {
    u32::try_from(len)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "a zip of this kind holds less than 4 GiB"))
}

/// Date and time as zip has them: years from 1980, steps of two seconds.
fn dos(seconds: i64) -> (u16, u16) {
    const DAY: i64 = 86_400;
    // Days from 1980 on; earlier times become its first day.
    let (mut days, second) = ((seconds / DAY - 3_652).max(0), if seconds / DAY < 3_652 { 0 } else { seconds % DAY });
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1980;
    while days >= 365 + i64::from(leap(year)) && year < 2107 {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + i64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    // Seven bits for the year, four for the month, five for the day; five for the hour, six for the minute, five for the second.
    let date = (year - 1980) * 512 + month * 32 + days.min(30) + 1;
    let time = second / 3600 * 2048 + second / 60 % 60 * 32 + second % 60 / 2;
    (date as u16, time as u16)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn packed(kind: Kind, name: &str) -> Vec<u8> {
        let bytes = b"program".repeat(1_000);
        let file = File { path: "usr/bin/oc", size: bytes.len() as u64, mode: 0o755, modified: 1_700_000_000 };
        let mut out = Vec::new();
        let (sum, filled) = pack(kind, &mut out, name, &file, true, |w| w.write_all(&bytes)).unwrap();
        assert_eq!((sum, filled), (Digest::of(&out), ()));
        out
    }

    #[test]
    fn tar_takes_it_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        std::fs::write(&path, packed(Kind::TarGz, "oc")).unwrap();
        let done = Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        for name in ["oc", "kubectl"] {
            assert_eq!(std::fs::read(folder.path().join(name)).unwrap(), b"program".repeat(1_000));
        }
        use std::os::unix::fs::MetadataExt;
        let oc = std::fs::metadata(folder.path().join("oc")).unwrap();
        assert_eq!((oc.mode() & 0o777, oc.nlink(), oc.mtime()), (0o755, 2, 1_700_000_000));
        assert_eq!(packed(Kind::TarGz, "oc"), packed(Kind::TarGz, "oc"));
    }

    #[test]
    fn zip_is_read_by_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.zip");
        std::fs::write(&path, packed(Kind::Zip, "oc.exe")).unwrap();
        let script = "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1])\nassert z.testzip() is None\n\
            assert z.read('oc.exe')==b'program'*1000\ni=z.getinfo('oc.exe')\nprint(z.namelist(),i.date_time,oct(i.external_attr>>16))";
        let Ok(done) = Command::new("python3").arg("-c").arg(script).arg(&path).output() else { return };
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8(done.stdout).unwrap();
        assert_eq!(said.trim(), "['README.md', 'oc.exe'] (2023, 11, 14, 22, 13, 20) 0o100755");
    }

    #[test]
    fn times_of_zips_begin_in_1980() {
        assert_eq!(dos(0), (33, 0));
        assert_eq!(dos(315_532_800), (33, 0));
        // The 29th of February 2024, noon.
        assert_eq!(dos(1_709_208_000), (44 * 512 + 2 * 32 + 29, 12 * 2048));
    }
}
