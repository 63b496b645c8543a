//! What a run has on stable storage already, so that a killed one continues.
//!
//! Text, appended to; a line that is cut or does not parse ends it. `done` and `chunk` lines are written only after
//! the data they speak of has been synced; an `at` line is a hint whose prefix is hashed again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use airlock_oci::Digest;
use blake3::Hash;

/// The journal's name beside the parts.
pub const JOURNAL_NAME: &str = ".airlock-journal";

/// What a journal says.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// Digest of the plan that the run is about.
    pub plan: Option<Digest>,
    /// Digest of the table.
    pub set: Option<Digest>,
    /// Number and date that the run gave its archive.
    pub created: Option<(u32, String)>,
    /// Entries that are complete.
    pub done: Vec<usize>,
    /// Bytes of the data of incomplete entries.
    pub at: HashMap<usize, u64>,
    /// Digests of final chunks by part and number.
    pub chunks: Vec<(usize, usize, Hash)>,
    /// Everything was written and synced; only the parts' names were not all changed yet.
    pub sealed: bool,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Recorded {
    /// Reads a journal; `None` when there is none.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(directory.join(JOURNAL_NAME)) {
            Ok(bytes) => Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes)))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Takes every whole, sensible line up to the first that is not.
    pub fn parse(text: &str) -> Self {
        let mut recorded = Self::default();
        let Some(text) = text.rfind('\n').map(|end| &text[..end]) else { return recorded };
        for (number, line) in text.lines().enumerate() {
            if recorded.take(number, line).is_none() {
                break;
            }
        }
        recorded
    }

    fn take(&mut self, number: usize, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split(' ').collect();
        match fields[..] {
            ["airlock-journal", "1"] if number == 0 => {}
            ["plan", digest] if number == 1 => self.plan = Some(digest.parse().ok()?),
            ["set", digest] if number == 2 => self.set = Some(digest.parse().ok()?),
            ["created", sequence, date] if number == 3 => {
                self.created = Some((sequence.parse().ok()?, date.to_owned()));
            }
            ["done", entry] => self.done.push(entry.parse().ok()?),
            ["at", entry, bytes] => {
                self.at.insert(entry.parse().ok()?, bytes.parse().ok()?);
            }
            ["chunk", part, chunk, hex] => {
                let part: usize = part.parse().ok()?;
                self.chunks.push((part.checked_sub(1)?, chunk.parse().ok()?, Hash::from_hex(hex).ok()?));
            }
            ["sealed"] => self.sealed = true,
            _ => return None,
        }
        Some(())
    }
}

impl Journal {
    /// Begins a new journal in place of an old one.
    pub fn begin(directory: &Path, plan: &Digest, set: &Digest, sequence: u32, created: &str) -> io::Result<Self> {
        let path = directory.join(JOURNAL_NAME);
        let beside = directory.join(format!("{JOURNAL_NAME}.new"));
        let mut file = File::create(&beside)?;
        write!(file, "airlock-journal 1\nplan {plan}\nset {set}\ncreated {sequence:06} {created}\n")?;
        file.sync_data()?;
        std::fs::rename(&beside, &path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(&path)?, path })
    }

    /// Goes on with the one that is there, after `kept` was rewritten without what follows a damaged line.
    pub fn go_on(directory: &Path, recorded: &Recorded) -> io::Result<Self> {
        let (Some(plan), Some(set), Some((sequence, created))) = (&recorded.plan, &recorded.set, &recorded.created)
        else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the journal has lost its first lines"));
        };
        let mut journal = Self::begin(directory, plan, set, *sequence, created)?;
        let mut lines = String::new();
        for entry in &recorded.done {
            lines.push_str(&format!("done {entry}\n"));
        }
        let mut at: Vec<_> = recorded.at.iter().collect();
        at.sort();
        for (entry, bytes) in at {
            lines.push_str(&format!("at {entry} {bytes}\n"));
        }
        for (part, chunk, digest) in &recorded.chunks {
            lines.push_str(&format!("chunk {} {chunk} {}\n", part + 1, digest.to_hex()));
        }
        journal.append(&lines, true)?;
        Ok(journal)
    }

    /// Appends lines (each with its newline).
    pub fn append(&mut self, lines: &str, sync: bool) -> io::Result<()> {
        self.file.write_all(lines.as_bytes())?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    /// Deletes it.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_or_damaged_line_ends_it() {
        let plan = Digest::of(b"plan");
        let head = format!("airlock-journal 1\nplan {plan}\nset {plan}\ncreated 000001 2026-11-21T06:00:00Z\n");
        let recorded = Recorded::parse(&format!("{head}done 4\nat 5 16777216\ndone 12"));
        assert_eq!(recorded.done, [4], "`done 12` may have been `done 123`");
        assert_eq!(recorded.at[&5], 16_777_216);
        let recorded = Recorded::parse(&format!("{head}done 4\nd\0ne 5\ndone 6\n"));
        assert_eq!(recorded.done, [4]);
        assert!(Recorded::parse("garbage").plan.is_none());
    }

    #[test]
    fn it_reads_back_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let plan = Digest::of(b"plan");
        let mut journal = Journal::begin(directory.path(), &plan, &plan, 3, "2026-11-21T06:00:00Z").unwrap();
        journal.append(&format!("done 1\nchunk 1 0 {}\n", blake3::hash(b"chunk").to_hex()), true).unwrap();
        let recorded = Recorded::read(directory.path()).unwrap().unwrap();
        assert_eq!((recorded.created.as_ref().unwrap().0, recorded.done.len()), (3, 1));
        assert_eq!(recorded.chunks, [(0, 0, blake3::hash(b"chunk"))]);
        drop(Journal::go_on(directory.path(), &recorded).unwrap());
        assert_eq!(Recorded::read(directory.path()).unwrap().unwrap().done, [1]);
        journal.remove().unwrap();
        assert!(Recorded::read(directory.path()).unwrap().is_none());
    }
}
