//! Ends an archive: links of what is complete, voids for what is not, chunk digests, the seal, the parts' names.

use std::io;
use std::sync::atomic::Ordering;

use airlock_oci::{Digest, Error, ErrorKind};
use bytes::Bytes;

use super::super::layout::{Kind, SEAL_PATH, part_name};
use super::super::recovery::finish_names;
use super::super::seal::{Seal, SealedPart};
use super::super::tar::{END_BYTES, headers, padded, void_header};
use super::{COMPLETE, ENABLED, READ_BYTES, Sealed, Writer, lock};

impl Writer {
    /// Writes the links of everything that is complete, the chunk digests and the seal, and gives the parts their names.
    ///
    /// With `partial` false an archive with voids is not sealed: the error is [`ErrorKind::Invalid`], and the journal stays for
    /// the next run. Blocks.
    pub fn seal(&self, partial: bool) -> Result<Sealed, Error> {
        let failed = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {}", self.volume.path().display()), e);
        self.wait_for_claims();
        if let Some(waiting) = &self.waiting {
            for (number, bytes) in std::mem::take(&mut *lock(waiting)) {
                self.write_whole(number, &bytes)?;
            }
        }
        self.write_links()?;
        self.flush()?;

        let voids: Vec<usize> = (0..self.states.len()).filter(|n| self.state(*n) != COMPLETE).collect();
        let missing: Vec<Digest> = voids
            .iter()
            .filter_map(|n| match &self.layout.slots[*n].kind {
                Kind::Blob(digest) => Some(digest.clone()),
                _ => None,
            })
            .collect();
        if !voids.is_empty() && !partial {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("seal the archive in {}", self.volume.path().display()),
                format!("{} of its blobs and manifests are missing", missing.len()),
            )
            .hint("run the same command again: it fetches only what is missing"));
        }
        for number in &voids {
            let slot = &self.layout.slots[*number];
            let void = void_header(&slot.void_name(*number), &slot.path, slot.size);
            self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("void", *number, &e))?;
        }

        for (part, file) in self.files.iter().enumerate() {
            let length = self.layout.lengths[part];
            file.set_len(length).map_err(|e| failed("end a part", &e))?;
        }
        for number in &voids {
            let slot = &self.layout.slots[*number];
            lock(&self.chunks[slot.part]).postpone(slot.offset..slot.end(), &self.budget);
        }
        let mut parts = Vec::new();
        for (part, file) in self.files.iter().enumerate() {
            let mut chunks = lock(&self.chunks[part]);
            let mut digests = Vec::with_capacity(chunks.count());
            let mut buffer = Vec::new();
            for chunk in 0..chunks.count() {
                if let Some(digest) = chunks.get(chunk) {
                    digests.push(digest);
                    continue;
                }
                let range = chunks.range(chunk);
                buffer.resize((range.end - range.start) as usize, 0);
                file.read_at(&mut buffer, range.start).map_err(|e| failed("read back a part", &e))?;
                let digest = blake3::hash(&buffer);
                chunks.set(chunk, digest);
                digests.push(digest);
            }
            parts.push(SealedPart { length: self.layout.lengths[part], chunks: digests });
        }
        let seal = Seal {
            set: self.layout.set.clone(),
            sequence: self.layout.sequence,
            created: self.layout.created.clone(),
            voids,
            parts,
        };
        let (text, identity) = seal.write();
        let last = self.files.len() - 1;
        let mut ends: Vec<Vec<u8>> = vec![vec![0; END_BYTES as usize]; self.files.len()];
        let mut entry = headers(SEAL_PATH, text.len() as u64);
        entry.extend_from_slice(text.as_bytes());
        entry.resize(padded(entry.len() as u64) as usize, 0);
        entry.extend_from_slice(&ends[last]);
        ends[last] = entry;
        let mut named = Vec::new();
        for (part, file) in self.files.iter().enumerate() {
            file.write_at(&ends[part], self.layout.lengths[part]).map_err(|e| failed("end a part", &e))?;
            file.sync().map_err(|e| failed("sync a part", &e))?;
            let bytes = self.layout.lengths[part] + ends[part].len() as u64;
            named.push((self.volume.path().join(part_name(part)), bytes));
        }
        let mut log = lock(&self.journal);
        if let Some(mut journal) = log.journal.take() {
            journal.append("sealed\n", true).map_err(|e| failed("write the journal", &e))?;
        }
        finish_names(self.volume.as_ref()).map_err(|e| failed("name the parts", &e))?;
        Ok(Sealed { identity, voids: missing, parts: named })
    }

    fn write_links(&self) -> Result<(), Error> {
        let mut run: Vec<u8> = Vec::new();
        let mut run_at = (0, 0);
        let mut written = Vec::new();
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let Kind::Link(digest) = &slot.kind else { continue };
            if self.state(number) != ENABLED {
                continue;
            }
            let follows = run_at.0 == slot.part && run_at.1 + run.len() as u64 == slot.offset;
            if !run.is_empty() && (!follows || run.len() >= READ_BYTES) {
                self.write_run(run_at, &mut run, number)?;
            }
            if run.is_empty() {
                run_at = (slot.part, slot.offset);
            }
            run.extend_from_slice(&headers(&slot.path, slot.size));
            run.extend_from_slice(digest.to_string().as_bytes());
            run.resize((slot.end() - run_at.1) as usize, 0);
            written.push(number);
        }
        if let Some(last) = written.last() {
            self.write_run(run_at, &mut run, *last)?;
        }
        for number in written {
            self.states[number].store(COMPLETE, Ordering::Release);
        }
        Ok(())
    }

    fn write_run(&self, at: (usize, u64), run: &mut Vec<u8>, number: usize) -> Result<(), Error> {
        let bytes = Bytes::from(std::mem::take(run));
        self.files[at.0].write_at(&bytes, at.1).map_err(|e| self.fail("write", number, &e))?;
        self.feed(at.0, at.1, bytes);
        Ok(())
    }
}
