//! The text of `airlock/table`: to write it, and to read it back.

use std::fmt::Write as _;

use airlock_oci::{Digest, Error, ErrorKind, Repository};

use super::layout::{Absent, Contents, Item, Kind, Slot};

/// Longest part that is believed (bytes): what sixteen digits could say is more than any disk has.
const MAX_PART_BYTES: u64 = 1 << 53;

/// A table as read.
#[derive(Clone, Debug)]
pub struct Table {
    /// The archive's number.
    pub sequence: u32,
    /// The archive's date.
    pub created: String,
    /// Identity of the archive before it.
    pub previous: Option<Digest>,
    /// Length of each part before its end blocks or seal.
    pub lengths: Vec<u64>,
    /// Entries in layout order.
    pub slots: Vec<Slot>,
    /// Blobs that lie in earlier archives.
    pub absent: Vec<Absent>,
}

pub(super) fn head(contents: &Contents) -> String {
    let previous = contents.previous.as_ref().map_or_else(|| "-".to_owned(), Digest::to_string);
    format!("airlock-table 1\nsequence {:06}\ncreated {}\nprevious {previous}\n", contents.sequence, contents.created)
}

pub(super) fn part_line(part: usize, length: u64) -> String {
    format!("part {:06} {length:016}\n", part + 1)
}

pub(super) fn entry_line(slot: &Slot) -> String {
    let content = match &slot.kind {
        Kind::Derived => "self".to_owned(),
        Kind::File(digest) => digest.to_string(),
        Kind::Blob(_) => "-".to_owned(),
        Kind::Link(digest) => format!("={digest}"),
    };
    format!("entry {:06} {:016} {:016} {content} {}\n", slot.part + 1, slot.offset, slot.size, slot.path)
}

pub(super) fn absent_line(absent: &Absent) -> String {
    let Absent { item, identity, sequence, created, repository } = absent;
    format!("absent {} {:016} {identity} {sequence:06} {created} {repository}\n", item.digest, item.size)
}

pub(super) fn write(contents: &Contents, slots: &[Slot], lengths: &[u64]) -> String {
    let mut out = head(contents);
    for (part, length) in lengths.iter().enumerate() {
        out.push_str(&part_line(part, *length));
    }
    for slot in slots {
        let _ = out.write_str(&entry_line(slot));
    }
    for absent in &contents.absent {
        out.push_str(&absent_line(absent));
    }
    out
}

/// Reads a table. Every line must be understood and slots must follow one another.
pub fn parse(text: &str) -> Result<Table, Error> {
    let bad = |line: &str| {
        let shown: String = line.chars().take(120).collect();
        Error::new(ErrorKind::Damaged, "read the archive's table", format!("unexpected line `{shown}`"))
    };
    let mut lines = text.lines();
    let mut expect = |key: &str| {
        let line = lines.next().unwrap_or("");
        line.strip_prefix(key).and_then(|l| l.strip_prefix(' ')).map(str::to_owned).ok_or_else(|| bad(line))
    };
    let version = expect("airlock-table")?;
    if version != "1" {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "read the archive's table",
            format!("format version {version} is newer than this program"),
        )
        .hint("use the version of airlock that wrote the archive, or a later one"));
    }
    let sequence = expect("sequence")?;
    let created = expect("created")?;
    let previous = expect("previous")?;
    let mut table = Table {
        sequence: sequence.parse().map_err(|_| bad(&sequence))?,
        created,
        previous: if previous == "-" { None } else { Some(previous.parse().map_err(|_| bad(&previous))?) },
        lengths: Vec::new(),
        slots: Vec::new(),
        absent: Vec::new(),
    };
    for line in lines {
        let fields: Vec<&str> = line.splitn(7, ' ').collect();
        let parsed = match fields[..] {
            ["part", number, length] => (|| {
                (number.parse::<usize>().ok()? == table.lengths.len() + 1).then_some(())?;
                table.lengths.push(length.parse().ok().filter(|l| *l <= MAX_PART_BYTES)?);
                Some(())
            })(),
            ["entry", part, offset, size, content, path] => (|| {
                let part = part.parse::<usize>().ok()?.checked_sub(1).filter(|p| *p < table.lengths.len())?;
                let kind = match content {
                    "self" => Kind::Derived,
                    "-" => Kind::Blob(digest_of_path(path)?),
                    link if link.starts_with('=') => Kind::Link(link[1..].parse().ok()?),
                    digest => Kind::File(digest.parse().ok()?),
                };
                let slot = Slot {
                    part,
                    offset: offset.parse().ok()?,
                    size: size.parse().ok().filter(|s| *s <= airlock_oci::manifest::MAX_BLOB_BYTES)?,
                    path: path.to_owned(),
                    kind,
                };
                let follows = match table.slots.last() {
                    Some(last) if last.part == slot.part => slot.offset == last.end(),
                    // Parts come one after the other, each begins at its beginning.
                    last => slot.offset == 0 && last.is_none_or(|l| slot.part > l.part),
                };
                (follows && slot.end() <= table.lengths[slot.part]).then_some(())?;
                table.slots.push(slot);
                Some(())
            })(),
            ["absent", digest, size, identity, sequence, created, repository] => (|| {
                table.absent.push(Absent {
                    item: Item { digest: digest.parse().ok()?, size: size.parse().ok()? },
                    identity: identity.parse().ok()?,
                    sequence: sequence.parse().ok()?,
                    created: created.to_owned(),
                    repository: Repository::new(repository).ok()?,
                });
                Some(())
            })(),
            _ => None,
        };
        parsed.ok_or_else(|| bad(line))?;
    }
    if table.lengths.is_empty() || table.slots.is_empty() {
        return Err(bad("(end of the table)"));
    }
    Ok(table)
}

/// The digest that the path of a blob names.
pub fn digest_of_path(path: &str) -> Option<Digest> {
    let rest = path.strip_prefix(super::layout::STORAGE_ROOT)?.strip_prefix("/blobs/")?.strip_suffix("/data")?;
    let mut fields = rest.split('/');
    let (algorithm, two, hex) = (fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() || !hex.starts_with(two) || two.len() != 2 {
        return None;
    }
    format!("{algorithm}:{hex}").parse().ok()
}
