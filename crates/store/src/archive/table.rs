//! The text of `airlock/table`: to write it, and to read it back line by line. The table of 100 GB has 20 MB; it is never in memory as a whole.

use std::fmt::Write as _;

use airlock_oci::{Algorithm, Digest, Error, ErrorKind, Hasher, Repository};

use super::layout::{Absent, Contents, Item, Kind, Slot};

/// Longest part that is believed (bytes): what sixteen digits could say is more than any disk has.
const MAX_PART_BYTES: u64 = 1 << 53;
/// Longest line that is believed (bytes): several times the longest path that is read, and the fields before it.
const MAX_LINE_BYTES: usize = 4 * super::tar::MAX_PATH_BYTES;
/// How much of a line is shown that is not understood.
const SHOWN_CHARS: usize = 120;
/// Digits of a part's number, at least.
const PART_DIGITS: usize = 6;
/// Digits of an offset or size, at least.
const OFFSET_DIGITS: usize = 16;
/// The first words of the first lines.
const HEAD: [&str; 4] = ["airlock-table", "sequence", "created", "previous"];

/// What a table says, besides its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The archive's number.
    pub sequence: u32,
    /// The archive's date.
    pub created: String,
    /// Identity of the archive before it.
    pub previous: Option<Digest>,
    /// Length of each part before its end blocks or seal.
    pub lengths: Vec<u64>,
    /// How many entries there are.
    pub entries: usize,
}

/// A line of a table, as whoever reads it is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An entry with its number, in layout order.
    Entry(usize, Slot),
    /// A blob that lies in an earlier archive.
    Absent(Absent),
}

/// Why a table cannot be read.
#[derive(Debug)]
pub enum Unreadable {
    /// It is not UTF-8; the words are those of the standard library about the whole text.
    NotText(String),
    /// A line is not understood, or whoever was told of it refused it.
    Refused(Error),
}

/// Takes a table in piece by piece, so that it is never in memory as a whole, and hashes it on the way.
///
/// Every line must be understood and slots must follow one another. What it tells is to be believed only once [`Reader::finish`] has given the
/// digest that was expected: lines are told of before the last byte is seen.
pub struct Reader<'a> {
    told: &'a mut dyn FnMut(Line) -> Result<(), Error>,
    hasher: Hasher,
    /// Bytes before the line that is being taken in.
    offset: u64,
    /// The beginning of a line that goes on in the next piece.
    line: Vec<u8>,
    /// The line is longer than any that is believed; the rest of it is passed over.
    too_long: bool,
    lines: Lines,
    not_text: Option<String>,
    refused: Option<Error>,
}

/// Where in the table we are.
#[derive(Default)]
struct Lines {
    /// What the first lines say.
    head: Vec<String>,
    summary: Summary,
    /// Part and end of the last entry.
    last: Option<(usize, u64)>,
}

pub(super) fn head(contents: &Contents) -> String {
    let previous = contents.previous.as_ref().map_or_else(|| "-".to_owned(), Digest::to_string);
    format!("airlock-table 1\nsequence {:06}\ncreated {}\nprevious {previous}\n", contents.sequence, contents.created)
}

pub(super) fn part_line(part: usize, length: u64) -> String {
    format!("part {:06} {length:016}\n", part + 1)
}

/// Appends the line of an entry.
pub(super) fn entry(out: &mut String, slot: &Slot) {
    out.push_str("entry ");
    push_number(out, slot.part as u64 + 1, PART_DIGITS);
    out.push(' ');
    push_number(out, slot.offset, OFFSET_DIGITS);
    out.push(' ');
    push_number(out, slot.size, OFFSET_DIGITS);
    out.push(' ');
    let _ = match &slot.kind {
        Kind::Derived => out.write_str("self"),
        Kind::File(digest) => write!(out, "{digest}"),
        Kind::Blob(_) => out.write_str("-"),
        Kind::Link(digest) => write!(out, "={digest}"),
    };
    out.push(' ');
    out.push_str(&slot.path);
    out.push('\n');
}

/// Bytes of the line of an entry with a path of so many bytes, wherever it will lie.
pub(super) fn entry_len(kind: &Kind, path: usize) -> usize {
    let content = match kind {
        Kind::Derived => "self".len(),
        Kind::File(digest) => digest.text_len(),
        Kind::Blob(_) => "-".len(),
        Kind::Link(digest) => "=".len() + digest.text_len(),
    };
    let numbers = PART_DIGITS + OFFSET_DIGITS + OFFSET_DIGITS;
    "entry".len() + numbers + content + path + " ".len() * 5 + "\n".len()
}

/// Appends a number, with zeros before it until it has so many digits. An archive may have millions of lines; `format!` takes longer for
/// their numbers than for all else.
fn push_number(out: &mut String, mut number: u64, digits: usize) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 || at > text.len() - digits {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.push_str(std::str::from_utf8(&text[at..]).unwrap_or_default());
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
        entry(&mut out, slot);
    }
    for absent in &contents.absent {
        out.push_str(&absent_line(absent));
    }
    out
}

fn bad(line: &str) -> Error {
    let shown: String = line.chars().take(SHOWN_CHARS).collect();
    Error::new(ErrorKind::Damaged, "read the archive's table", format!("unexpected line `{shown}`"))
}

impl<'a> Reader<'a> {
    /// Begins a table; `told` hears of every entry and absent blob. Its first error ends that; the rest is only hashed.
    pub fn new(told: &'a mut dyn FnMut(Line) -> Result<(), Error>) -> Self {
        Self {
            told,
            hasher: Hasher::new(Algorithm::Sha256),
            offset: 0,
            line: Vec::new(),
            too_long: false,
            lines: Lines::default(),
            not_text: None,
            refused: None,
        }
    }

    /// Takes in the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let ends = piece.last() == Some(&b'\n');
            if self.line.len() + piece.len() > MAX_LINE_BYTES {
                if !self.too_long {
                    let begins = [&self.line, &piece[..piece.len().min(MAX_LINE_BYTES)]].concat();
                    self.refused.get_or_insert_with(|| bad(&String::from_utf8_lossy(&begins)));
                }
                self.offset += (self.line.len() + piece.len()) as u64;
                self.line.clear();
                self.too_long = !ends;
            } else if self.too_long {
                self.offset += piece.len() as u64;
                self.too_long = !ends;
            } else if !ends {
                self.line.extend_from_slice(piece);
            } else if self.line.is_empty() {
                self.take(piece);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(piece);
                self.take(&line);
                line.clear();
                self.line = line;
            }
        }
    }

    /// A whole line, with its end if it has one.
    fn take(&mut self, line: &[u8]) {
        match std::str::from_utf8(line) {
            _ if self.not_text.is_some() => {}
            Ok(text) if self.refused.is_none() => {
                // As `str::lines` has it.
                let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
                let told = match self.lines.take(text) {
                    Ok(Some(line)) => (self.told)(line),
                    Ok(None) => Ok(()),
                    Err(error) => Err(error),
                };
                self.refused = told.err();
            }
            Ok(_) => {}
            Err(e) => {
                let at = self.offset + e.valid_up_to() as u64;
                self.not_text = Some(match e.error_len() {
                    Some(len) => format!("invalid utf-8 sequence of {len} bytes from index {at}"),
                    None => format!("incomplete utf-8 byte sequence from index {at}"),
                });
            }
        }
        self.offset += line.len() as u64;
    }

    /// The digest of everything that was taken in, and what it says.
    pub fn finish(mut self) -> (Digest, Result<Summary, Unreadable>) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take(&line);
        }
        let digest = self.hasher.finish();
        let said = match (self.not_text, self.refused) {
            (Some(cause), _) => Err(Unreadable::NotText(cause)),
            (None, Some(error)) => Err(Unreadable::Refused(error)),
            (None, None) => self.lines.finish().map_err(Unreadable::Refused),
        };
        (digest, said)
    }
}

impl Lines {
    fn take(&mut self, line: &str) -> Result<Option<Line>, Error> {
        if let Some(key) = HEAD.get(self.head.len()) {
            let value = line.strip_prefix(key).and_then(|l| l.strip_prefix(' ')).ok_or_else(|| bad(line))?;
            self.head.push(value.to_owned());
            return self.head_line().map(|()| None);
        }
        self.body_line(line).ok_or_else(|| bad(line))
    }

    /// Looks at the head as far as it has come.
    fn head_line(&mut self) -> Result<(), Error> {
        match &self.head[..] {
            [version] if version != "1" => Err(Error::new(
                ErrorKind::Unsupported,
                "read the archive's table",
                format!("format version {version} is newer than this program"),
            )
            .hint("use the version of airlock that wrote the archive, or a later one")),
            [_, sequence, created, previous] => {
                self.summary.sequence = sequence.parse().map_err(|_| bad(sequence))?;
                self.summary.created.clone_from(created);
                if previous != "-" {
                    self.summary.previous = Some(previous.parse().map_err(|_| bad(previous))?);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A line after the head; `None` when it is not understood.
    fn body_line(&mut self, line: &str) -> Option<Option<Line>> {
        let mut fields = line.splitn(7, ' ');
        let mut next = || fields.next();
        let fields = [next(), next(), next(), next(), next(), next(), next()];
        let lengths = &mut self.summary.lengths;
        match fields {
            [Some("part"), Some(number), Some(length), None, ..] => {
                (number.parse::<usize>().ok()? == lengths.len() + 1).then_some(())?;
                lengths.push(length.parse().ok().filter(|l| *l <= MAX_PART_BYTES)?);
                Some(None)
            }
            [Some("entry"), Some(part), Some(offset), Some(size), Some(content), Some(path), None] => {
                let part = part.parse::<usize>().ok()?.checked_sub(1).filter(|p| *p < lengths.len())?;
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
                let follows = match self.last {
                    Some((last, end)) if last == slot.part => slot.offset == end,
                    // Parts come one after the other, each begins at its beginning.
                    last => slot.offset == 0 && last.is_none_or(|(last, _)| slot.part > last),
                };
                (follows && slot.end() <= lengths[slot.part]).then_some(())?;
                self.last = Some((slot.part, slot.end()));
                let number = self.summary.entries;
                self.summary.entries += 1;
                Some(Some(Line::Entry(number, slot)))
            }
            [
                Some("absent"),
                Some(digest),
                Some(size),
                Some(identity),
                Some(sequence),
                Some(created),
                Some(repository),
            ] => Some(Some(Line::Absent(Absent {
                item: Item { digest: digest.parse().ok()?, size: size.parse().ok()? },
                identity: identity.parse().ok()?,
                sequence: sequence.parse().ok()?,
                created: created.to_owned(),
                repository: Repository::new(repository).ok()?,
            }))),
            _ => None,
        }
    }

    fn finish(self) -> Result<Summary, Error> {
        if self.head.len() < HEAD.len() {
            return Err(bad(""));
        }
        if self.summary.lengths.is_empty() || self.summary.entries == 0 {
            return Err(bad("(end of the table)"));
        }
        Ok(self.summary)
    }
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

#[cfg(test)]
mod tests {
    use super::super::layout::{blob_path, layer_link};
    use super::*;

    /// A sound table of two parts: six entries and an absent blob.
    fn sound() -> String {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let repository = Repository::new("a/b").unwrap();
        let file = |path: &str| (path.to_owned(), Kind::File(digest(path)));
        let parts = [
            vec![
                ("airlock/part".to_owned(), Kind::Derived),
                ("airlock/table".to_owned(), Kind::Derived),
                file("airlock/plan.json"),
                (blob_path(&digest("1")), Kind::Blob(digest("1"))),
            ],
            vec![
                ("airlock/part".to_owned(), Kind::Derived),
                (layer_link(&repository, &digest("1")), Kind::Link(digest("1"))),
            ],
        ];
        let (mut slots, mut lengths) = (Vec::new(), Vec::new());
        for (part, entries) in parts.into_iter().enumerate() {
            let mut offset = 0;
            for (path, kind) in entries {
                let slot = Slot { part, offset, size: 700, path, kind };
                offset = slot.end();
                slots.push(slot);
            }
            lengths.push(offset);
        }
        let absent = Absent {
            item: Item { digest: digest("2"), size: 5 },
            identity: digest("before"),
            sequence: 1,
            created: "2026-11-20T06:00:00Z".into(),
            repository,
        };
        let contents = Contents {
            absent: vec![absent],
            sequence: 2,
            created: "2026-11-21T06:00:00Z".into(),
            previous: Some(digest("before")),
            ..Contents::default()
        };
        write(&contents, &slots, &lengths)
    }

    /// What a table says when it comes in pieces of so many bytes, and the lines that were told of.
    fn read(text: &[u8], piece: usize) -> (Result<Summary, String>, Vec<Line>) {
        let mut lines = Vec::new();
        let mut told = |line| {
            lines.push(line);
            Ok(())
        };
        let mut reader = Reader::new(&mut told);
        text.chunks(piece).for_each(|piece| reader.feed(piece));
        let (digest, said) = reader.finish();
        assert_eq!(digest, Digest::of(text), "every byte is hashed, whatever they say");
        let said = said.map_err(|unreadable| match unreadable {
            Unreadable::NotText(cause) => cause,
            Unreadable::Refused(error) => error.to_string(),
        });
        (said, lines)
    }

    #[track_caller]
    fn refused(text: &[u8], words: &str) {
        for piece in [1, 7, 64, 100_000] {
            let said = read(text, piece).0.unwrap_err();
            assert!(said.contains(words), "`{words}` is not in `{said}`");
        }
    }

    #[test]
    fn the_length_of_a_line_is_known_before_its_place() {
        let kinds =
            [Kind::Derived, Kind::File(Digest::of(b"f")), Kind::Blob(Digest::of(b"b")), Kind::Link(Digest::of(b"l"))];
        for kind in kinds {
            let slot = Slot { part: 41, offset: 9_876_543_210, size: 1 << 50, path: "some/path".into(), kind };
            let mut line = String::new();
            entry(&mut line, &slot);
            assert_eq!(line.len(), entry_len(&slot.kind, slot.path.len()), "{line}");
            assert!(line.starts_with("entry 000042 0000009876543210 1125899906842624 "), "{line}");
        }
        let mut most = String::new();
        push_number(&mut most, u64::MAX, 6);
        push_number(&mut most, 0, 3);
        assert_eq!(most, format!("{}000", u64::MAX));
    }

    #[test]
    fn a_sound_table_reads_the_same_in_pieces_of_any_size() {
        let text = sound();
        let (summary, lines) = read(text.as_bytes(), text.len());
        let said = summary.unwrap();
        assert_eq!((said.sequence, said.lengths.len(), said.entries, lines.len()), (2, 2, 6, 7));
        for piece in 1..200 {
            assert_eq!(read(text.as_bytes(), piece), (Ok(said.clone()), lines.clone()), "pieces of {piece}");
        }
        // As `str::lines` has it.
        assert_eq!(read(text.replace('\n', "\r\n").as_bytes(), 9).0.as_ref(), Ok(&said));
        assert_eq!(read(text.trim_end().as_bytes(), 9).0, Ok(said));
    }

    #[test]
    fn a_cut_is_refused() {
        let text = sound();
        for cut in 0..text.find("entry").unwrap() {
            assert!(read(&text.as_bytes()[..cut], 50).0.is_err(), "{cut}");
        }
        // Later cuts that fall into a name or on the end of a line leave a table that only its digest tells from a whole one.
        for cut in text.match_indices(' ').map(|(at, _)| at).filter(|at| *at > text.find("entry").unwrap()) {
            assert!(read(&text.as_bytes()[..cut], 50).0.is_err(), "{cut}");
        }
        refused(b"", "unexpected line ``");
        refused(b"airlock-table 1\nsequence 000001\n", "unexpected line ``");
        refused(&text.as_bytes()[..text.find("entry").unwrap()], "(end of the table)");
    }

    #[test]
    fn entries_twice_out_of_order_or_elsewhere_are_refused() {
        let text = sound();
        let lines: Vec<&str> = text.lines().collect();
        let with = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines: Vec<String> = lines.iter().map(|l| (*l).to_owned()).collect();
            change(&mut lines);
            (lines.join("\n") + "\n").into_bytes()
        };
        let first = lines.iter().position(|l| l.starts_with("entry")).unwrap();
        refused(&with(&|l| l.insert(first + 3, l[first + 2].clone())), "unexpected line `entry 000001");
        refused(&with(&|l| l.swap(first + 2, first + 3)), "unexpected line `entry 000001");
        refused(&with(&|l| drop(l.remove(first + 1))), "unexpected line `entry 000001");
        refused(&with(&|l| l[first..first + 6].rotate_left(4)), "unexpected line `entry 000001");
        refused(&with(&|l| l.swap(0, 1)), "unexpected line `sequence 000002`");
        refused(&with(&|l| l.swap(4, 5)), "unexpected line `part 000002");
        refused(&with(&|l| l.insert(5, l[4].clone())), "unexpected line `part 000001");
        refused(&with(&|l| l.push(String::new())), "unexpected line ``");
        refused(&with(&|l| l.push("seal".into())), "unexpected line `seal`");
        refused(&with(&|l| l[0] = "airlock-table 2".into()), "format version 2 is newer than this program");
        refused(&with(&|l| l[1] = "sequence 99999999999".into()), "unexpected line `99999999999`");
        refused(&with(&|l| l[3] = "previous nothing".into()), "unexpected line `nothing`");
        // What is wrong in the first lines is told when all four are there.
        refused(&with(&|l| (l[1], l[3]) = ("sequence x".into(), "nothing".into())), "unexpected line `nothing`");
    }

    #[test]
    fn absurd_sizes_numbers_and_names_are_refused() {
        let text = sound();
        let entry = text.lines().find(|l| l.contains("/blobs/")).unwrap();
        let fields: Vec<&str> = entry.split(' ').collect();
        let instead = |at: usize, value: &str| {
            let mut fields = fields.clone();
            fields[at] = value;
            text.replace(entry, &fields.join(" ")).into_bytes()
        };
        let most = u64::MAX.to_string();
        let too_much = (airlock_oci::manifest::MAX_BLOB_BYTES + 1).to_string();
        for (at, value) in [
            (1, "000000"),
            (1, "000003"),
            (1, most.as_str()),
            (1, "-1"),
            (2, most.as_str()),
            (2, "18446744073709551616"),
            (2, "0000000000000000"),
            (3, most.as_str()),
            (3, too_much.as_str()),
            (3, "0000000000009000"),
            (4, "=sha256:0"),
            (4, "sha256:AB"),
            (4, "me"),
            (5, "docker/registry/v2/blobs/sha256/00/00/data"),
            (5, "docker/registry/v2/blobs/../../etc/passwd"),
            (5, "a b"),
        ] {
            refused(&instead(at, value), "unexpected line `entry ");
        }
        refused(text.replace("part 000002 ", "part 000002 9").as_bytes(), "unexpected line `part 000002 9");
        refused(text.replace(" a/b\n", " A/B\n").as_bytes(), "unexpected line `absent ");
        refused(text.replace(" a/b\n", &format!(" {}a\n", "a/".repeat(200))).as_bytes(), "unexpected line `absent ");
    }

    #[test]
    fn what_is_no_text_is_told_as_of_the_whole_text_and_before_lines_that_are_wrong() {
        let text = sound().into_bytes();
        for (at, bytes) in [(3, &b"\xff"[..]), (200, b"\xe2\x82"), (text.len() - 2, b"\xe2\x82"), (400, b"\xc0\xaf")] {
            let mut text = text.clone();
            text[at..at + bytes.len()].copy_from_slice(bytes);
            let whole = String::from_utf8(text.clone()).unwrap_err().to_string();
            refused(&text, &whole);
            text.splice(..0, *b"wrong\n");
            refused(&text, &String::from_utf8(text.clone()).unwrap_err().to_string());
        }
        let cut = [&text[..], "€".as_bytes().split_at(2).0].concat();
        refused(&cut, &String::from_utf8(cut.clone()).unwrap_err().to_string());
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut told = |_| Ok(());
        let mut reader = Reader::new(&mut told);
        for _ in 0..1000 {
            reader.feed(&[b'x'; 9999]);
            assert!(reader.line.capacity() <= 2 * MAX_LINE_BYTES, "{}", reader.line.capacity());
        }
        let Err(Unreadable::Refused(error)) = reader.finish().1 else { panic!("it was believed") };
        assert!(error.to_string().contains(&format!("unexpected line `{}`", "x".repeat(SHOWN_CHARS))), "{error}");
        // Also in the middle, and what follows is not told of.
        let text = sound();
        let long = text.replace("entry 000002", &format!("entry {} 000002", "y".repeat(MAX_LINE_BYTES)));
        let (said, lines) = read(long.as_bytes(), 1000);
        assert!(said.unwrap_err().contains("unexpected line `entry yyy"));
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn who_refuses_a_line_is_told_of_no_further_one() {
        let text = sound();
        let mut count = 0;
        let mut told = |_| {
            count += 1;
            if count == 3 { Err(Error::new(ErrorKind::Io, "look", "no")) } else { Ok(()) }
        };
        let mut reader = Reader::new(&mut told);
        reader.feed(text.as_bytes());
        let (digest, said) = reader.finish();
        assert!(matches!(said, Err(Unreadable::Refused(e)) if e.kind() == ErrorKind::Io));
        assert_eq!((digest, count), (Digest::of(text.as_bytes()), 3));
    }
}
