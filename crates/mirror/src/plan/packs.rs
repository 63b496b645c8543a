//! Small entries by topic and key, many to a file: a file for each would cost more than asking the registry does.
//!
//! Every run appends to a pack of its own, so runs at the same time do not disturb each other; opening reads the heads of all packs.
//! An entry is a line `<topic> <key> <seconds since 1970> <length> <hash of what follows>`, the bytes, and a line feed. A pack whose last
//! entry was cut short ends before it. Several packs are written together as one when a run ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::locked;

/// So many packs are left side by side; more become one.
const MANY_PACKS: usize = 8;
/// The longest head of an entry (bytes); what is longer is no entry of ours.
const MAX_HEAD_BYTES: u64 = 4096;
/// The end of a pack's name.
const ENDING: &str = "pack";

/// All packs of a folder.
pub(super) struct Packs {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// The packs that were there, with their sizes in bytes.
    packs: Vec<(PathBuf, u64)>,
    /// The pack of this run, from its first entry on, and its length.
    own: Option<(Arc<File>, u64)>,
    /// Nothing can be written here.
    broken: bool,
}

#[derive(Clone)]
struct Entry {
    pack: Arc<File>,
    /// Where the bytes begin in the pack.
    at: u64,
    length: u64,
    seconds: u64,
    hash: String,
}

impl Packs {
    /// Reads what lies in `folder`; what cannot be read is as if it were absent.
    pub(super) fn open(folder: &Path) -> Self {
        let mut state = State::default();
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let mut paths: Vec<_> = names.filter(|p| p.extension().is_some_and(|e| e == ENDING)).collect();
        // Names begin with the time of their making: of two entries of one second the later pack's wins.
        paths.sort();
        for path in paths {
            let Ok(file) = File::open(&path) else { continue };
            let size = file.metadata().map_or(0, |m| m.len());
            let file = Arc::new(file);
            read_heads(&file, size, &mut state.entries);
            state.packs.push((path, size));
        }
        Self { folder: folder.to_owned(), state: Mutex::new(state) }
    }

    /// Whether there is an entry; its bytes are not looked at.
    pub(super) fn contains(&self, topic: &str, key: &str) -> bool {
        locked(&self.state).entries.contains_key(&name(topic, key))
    }

    /// The bytes of an entry and when it was written.
    pub(super) fn get(&self, topic: &str, key: &str) -> Option<(Vec<u8>, SystemTime)> {
        let entry = locked(&self.state).entries.get(&name(topic, key)).cloned()?;
        let bytes = entry.read()?;
        Some((bytes, UNIX_EPOCH + Duration::from_secs(entry.seconds)))
    }

    /// Appends an entry; it replaces the one before.
    pub(super) fn put(&self, topic: &str, key: &str, bytes: &[u8]) {
        let mut state = locked(&self.state);
        if state.broken {
            return;
        }
        if self.append(&mut state, topic, key, bytes).is_none() {
            // A full disk, or a folder of somebody else's: this run keeps nothing more.
            state.broken = true;
        }
    }

    fn append(&self, state: &mut State, topic: &str, key: &str, bytes: &[u8]) -> Option<()> {
        if state.own.is_none() {
            std::fs::create_dir_all(&self.folder).ok()?;
            let path = self.folder.join(new_name());
            let file = File::options().read(true).append(true).create_new(true).open(&path).ok()?;
            state.packs.push((path, 0));
            state.own = Some((Arc::new(file), 0));
        }
        let (pack, end) = state.own.as_mut()?;
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let name = name(topic, key);
        let (hash, length) = (hash(bytes), bytes.len() as u64);
        let mut record = head(&name, seconds, length, &hash).into_bytes();
        let at = *end + record.len() as u64;
        record.extend_from_slice(bytes);
        record.push(b'\n');
        (&**pack).write_all(&record).ok()?;
        *end += record.len() as u64;
        let entry = Entry { pack: Arc::clone(pack), at, length, seconds, hash };
        state.entries.insert(name, entry);
        Some(())
    }

    /// Writes many packs together as one, and as many of the newest entries as `limit` bytes hold.
    pub(super) fn tidy(&self, limit: u64) {
        let mut state = locked(&self.state);
        let own = state.own.as_ref().map_or(0, |(_, end)| *end);
        let total = own + state.packs.iter().map(|(_, size)| size).sum::<u64>();
        if state.packs.len() <= MANY_PACKS && total <= limit {
            return;
        }
        let mut entries: Vec<_> = state.entries.iter().collect();
        entries.sort_by(|a, b| b.1.seconds.cmp(&a.1.seconds).then_with(|| a.0.cmp(b.0)));
        // Half of the limit: the next run shall not have to do it again.
        let mut left = if total > limit { limit / 2 } else { limit };
        let written = (|| {
            let mut file = tempfile(&self.folder)?;
            for (name, entry) in entries {
                let Some(bytes) = entry.read() else { continue };
                let head = head(name, entry.seconds, entry.length, &entry.hash);
                let Some(rest) = left.checked_sub(head.len() as u64 + entry.length + 1) else { break };
                left = rest;
                file.1.write_all(head.as_bytes())?;
                file.1.write_all(&bytes)?;
                file.1.write_all(b"\n")?;
            }
            file.1.flush()?;
            std::fs::rename(&file.0, self.folder.join(new_name()))
        })();
        if written.is_ok() {
            // Runs that are reading them have them open.
            for (path, _) in state.packs.drain(..) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Entry {
    /// The bytes, if they are as they were written.
    fn read(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.length).ok()?];
        self.pack.read_exact_at(&mut bytes, self.at).ok()?;
        (hash(&bytes) == self.hash).then_some(bytes)
    }
}

/// A file beside the packs, for the time of writing.
fn tempfile(folder: &Path) -> std::io::Result<(PathBuf, std::io::BufWriter<File>)> {
    let path = folder.join(format!(".{}.partial", new_name()));
    let file = File::create_new(&path)?;
    Ok((path, std::io::BufWriter::new(file)))
}

/// A name that sorts after those given before it, and that no other process gives.
fn new_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{now:020}-{}.{ENDING}", std::process::id())
}

fn name(topic: &str, key: &str) -> String {
    format!("{topic} {key}")
}

fn head(name: &str, seconds: u64, length: u64, hash: &str) -> String {
    format!("{name} {seconds} {length} {hash}\n")
}

/// Against damage, not against malice: who may write here may do anything.
fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..16].to_owned()
}

fn read_heads(pack: &Arc<File>, size: u64, entries: &mut HashMap<String, Entry>) {
    let mut reader = BufReader::with_capacity(256 * 1024, &**pack);
    let mut at = 0;
    let mut line = String::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_HEAD_BYTES).read_line(&mut line) {
            Ok(1..) if line.ends_with('\n') => at += line.len() as u64,
            _ => return,
        }
        let Some((name, seconds, length, hash)) = parse(line.trim_end_matches('\n')) else { return };
        let Some(end) = length.checked_add(1).and_then(|l| l.checked_add(at)).filter(|end| *end <= size) else {
            return;
        };
        let entry = Entry { pack: Arc::clone(pack), at, length, seconds, hash: hash.to_owned() };
        if entries.get(name).is_none_or(|before| before.seconds <= seconds) {
            entries.insert(name.to_owned(), entry);
        }
        let Ok(skip) = i64::try_from(length + 1) else { return };
        if reader.seek_relative(skip).is_err() {
            return;
        }
        at = end;
    }
}

fn parse(line: &str) -> Option<(&str, u64, u64, &str)> {
    let mut words = line.rsplitn(4, ' ');
    let hash = words.next()?;
    let length = words.next()?.parse().ok()?;
    let seconds = words.next()?.parse().ok()?;
    Some((words.next()?, seconds, length, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(packs: &Packs, key: &str) -> Option<Vec<u8>> {
        packs.get("t", key).map(|(bytes, _)| bytes)
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn the_last_entry_of_a_key_holds_across_runs() {
        let folder = tempfile::tempdir().unwrap();
        let first = Packs::open(folder.path());
        first.put("t", "a", b"one\ntwo");
        first.put("t", "a", b"three");
        first.put("t", "b", b"");
        let second = Packs::open(folder.path());
        assert_eq!(get(&second, "a").unwrap(), b"three");
        second.put("t", "a", b"four");
        assert_eq!(get(&first, "a").unwrap(), b"three", "another run is not disturbed");
        let third = Packs::open(folder.path());
        assert_eq!((get(&third, "a").unwrap(), get(&third, "b").unwrap()), (b"four".to_vec(), vec![]));
        assert!(third.contains("t", "b") && !third.contains("other", "b"));
    }

    #[test]
    fn what_was_cut_short_or_altered_is_absent() {
        let folder = tempfile::tempdir().unwrap();
        let packs = Packs::open(folder.path());
        packs.put("t", "a", b"12345");
        packs.put("t", "b", b"67890");
        let path = files(folder.path()).remove(0);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let cut = Packs::open(folder.path());
            assert!(get(&cut, "b").is_none(), "{length} bytes of {}", whole.len());
            assert!(get(&cut, "a").is_none_or(|bytes| bytes == b"12345"));
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let altered = Packs::open(folder.path());
            assert!(get(&altered, "a").is_none_or(|bytes| bytes == b"12345"), "byte {at}");
            assert!(get(&altered, "b").is_none_or(|bytes| bytes == b"67890"), "byte {at}");
        }
    }

    #[test]
    fn many_packs_become_one_and_the_limit_holds() {
        let folder = tempfile::tempdir().unwrap();
        for run in 0..=MANY_PACKS {
            let packs = Packs::open(folder.path());
            packs.put("t", &run.to_string(), &[b'x'; 100]);
            packs.put("t", "same", &[b'0' + u8::try_from(run).unwrap()]);
            packs.tidy(1 << 20);
        }
        assert_eq!(files(folder.path()).len(), 1);
        let packs = Packs::open(folder.path());
        assert_eq!(get(&packs, "same").unwrap(), b"8");
        assert!((0..=MANY_PACKS).all(|run| get(&packs, &run.to_string()).is_some()));
        packs.tidy(600);
        let left = Packs::open(folder.path());
        assert!((1..=2).contains(&locked(&left.state).entries.len()));
        assert!(std::fs::metadata(&files(folder.path())[0]).unwrap().len() <= 300);
    }
}
