//! The table of an archive, as a stream in pieces, against reading its whole text at once: the same lines, the same refusal, the same words.

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use airlock_store::archive::layout::{Kind, Slot};
use airlock_store::archive::table::{Line, Reader, Summary, Unreadable, digest_of_path};
use airlock_store::archive::{Absent, Item};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "table",
    run,
    words: &[
        b"airlock-table 1\n",
        b"\nsequence 000001",
        b"\ncreated ",
        b"\nprevious -",
        b"\npart 000002 0000000000001536\n",
        b"\nentry 000001 ",
        b"0000000000001024 ",
        b"18446744073709551615",
        b"9007199254740992",
        b" self airlock/part",
        b" - docker/registry/v2/blobs/sha256/",
        b"=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        b"/data\n",
        b"\nabsent sha256:",
        b"\r\n",
        b"\xE2\x82\xAC",
    ],
};

/// What is told and what comes of it.
type Told = (Vec<Line>, Result<Summary, String>);

fn bad(line: &str) -> Error {
    let shown: String = line.chars().take(120).collect();
    Error::new(ErrorKind::Damaged, "read the archive's table", format!("unexpected line `{shown}`"))
}

/// The table as its text says it, all of it at hand.
fn at_once(text: &str, told: &mut Vec<Line>) -> Result<Summary, Error> {
    let mut lines = text.lines();
    let mut expect = |key: &str| {
        let line = lines.next().unwrap_or("");
        line.strip_prefix(key).and_then(|l| l.strip_prefix(' ')).map(str::to_owned).ok_or_else(|| bad(line))
    };
    let version = expect("airlock-table")?;
    if version != "1" {
        let cause = format!("format version {version} is newer than this program");
        return Err(Error::new(ErrorKind::Unsupported, "read the archive's table", cause)
            .hint("use the version of airlock that wrote the archive, or a later one"));
    }
    let (sequence, created, previous) = (expect("sequence")?, expect("created")?, expect("previous")?);
    let mut summary = Summary {
        sequence: sequence.parse().map_err(|_| bad(&sequence))?,
        created,
        previous: if previous == "-" { None } else { Some(previous.parse().map_err(|_| bad(&previous))?) },
        ..Summary::default()
    };
    let mut slots: Vec<Slot> = Vec::new();
    for line in lines {
        let fields: Vec<&str> = line.splitn(7, ' ').collect();
        one(&fields, &mut summary.lengths, &mut slots, told).ok_or_else(|| bad(line))?;
    }
    summary.entries = slots.len();
    if summary.lengths.is_empty() || slots.is_empty() { Err(bad("(end of the table)")) } else { Ok(summary) }
}

fn one(fields: &[&str], lengths: &mut Vec<u64>, slots: &mut Vec<Slot>, told: &mut Vec<Line>) -> Option<()> {
    match *fields {
        ["part", number, length] => {
            (number.parse::<usize>().ok()? == lengths.len() + 1).then_some(())?;
            lengths.push(length.parse().ok().filter(|l| *l <= 1 << 53)?);
        }
        ["entry", part, offset, size, content, path] => {
            let kind = match content {
                "self" => Kind::Derived,
                "-" => Kind::Blob(digest_of_path(path)?),
                link if link.starts_with('=') => Kind::Link(link[1..].parse().ok()?),
                digest => Kind::File(digest.parse().ok()?),
            };
            let slot = Slot {
                part: part.parse::<usize>().ok()?.checked_sub(1).filter(|p| *p < lengths.len())?,
                offset: offset.parse().ok()?,
                size: size.parse().ok().filter(|s| *s <= 1 << 50)?,
                path: path.to_owned(),
                kind,
            };
            let follows = match slots.last() {
                Some(last) if last.part == slot.part => slot.offset == last.end(),
                last => slot.offset == 0 && last.is_none_or(|l| slot.part > l.part),
            };
            (follows && slot.end() <= lengths[slot.part]).then_some(())?;
            told.push(Line::Entry(slots.len(), slot.clone()));
            slots.push(slot);
        }
        ["absent", digest, size, identity, sequence, created, repository] => told.push(Line::Absent(Absent {
            item: Item { digest: digest.parse().ok()?, size: size.parse().ok()? },
            identity: identity.parse().ok()?,
            sequence: sequence.parse().ok()?,
            created: created.to_owned(),
            repository: Repository::new(repository).ok()?,
        })),
        _ => return None,
    }
    Some(())
}

fn whole(input: &[u8]) -> Told {
    let mut told = Vec::new();
    let said = match std::str::from_utf8(input) {
        Ok(text) => at_once(text, &mut told).map_err(|e| format!("{e:?}")),
        Err(e) => Err(e.to_string()),
    };
    (told, said)
}

fn in_pieces(input: &[u8], piece: usize) -> Told {
    let mut lines = Vec::new();
    let mut told = |line| {
        lines.push(line);
        Ok(())
    };
    let mut reader = Reader::new(&mut told);
    input.chunks(piece).for_each(|piece| reader.feed(piece));
    let (digest, said) = reader.finish();
    assert_eq!(digest, Digest::of(input), "every byte is hashed");
    let said = said.map_err(|unreadable| match unreadable {
        Unreadable::NotText(cause) => cause,
        Unreadable::Refused(error) => format!("{error:?}"),
    });
    (lines, said)
}

fn run(input: &[u8], features: &mut Features) {
    let expected = whole(input);
    let text = std::str::from_utf8(input).is_ok();
    for piece in [1 + input.len() % 61, 64, 4096] {
        let (lines, said) = in_pieces(input, piece);
        assert_eq!(said, expected.1, "in pieces of {piece}");
        // Of what is no text, lines before that may have been told of; whoever hears them must not believe them yet.
        assert!(!text || lines == expected.0, "in pieces of {piece}");
    }
    let (lines, said) = expected;
    features.note((text, said.is_ok(), magnitude(lines.len())));
    for line in lines {
        match line {
            Line::Entry(_, slot) => {
                features.note((slot.part, std::mem::discriminant(&slot.kind), magnitude(slot.size as usize)));
            }
            Line::Absent(absent) => features.note(("absent", magnitude(absent.item.size as usize))),
        }
    }
    match said {
        Ok(summary) => features.note((summary.lengths.len(), summary.previous.is_some())),
        Err(said) => {
            // The first word of a refused line, or what else is said.
            let shown = said.split_once('`').map_or(&said[..], |(_, line)| line);
            features.note(shown.split(' ').next().map(str::to_owned));
        }
    }
}
