//! A stream of bytes that is looked at before it is read, and that knows its line.

use std::io::{self, BufRead, Read};

/// How much of the beginning is looked at to tell what a source is, in bytes.
const HEAD_BYTES: u64 = 64 * 1024;

/// A reader that knows the line it is in, shows its beginning without taking it, and drops a byte order mark.
pub(super) struct Lines<R> {
    head: Vec<u8>,
    at: usize,
    input: R,
    line: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { head: Vec::new(), at: 0, input, line: 1 }
    }

    /// The beginning, which stays in the stream, and whether it is everything. Must come before anything is taken.
    pub(super) fn head(&mut self) -> io::Result<(&[u8], bool)> {
        self.input.by_ref().take(HEAD_BYTES).read_to_end(&mut self.head)?;
        let whole = (self.head.len() as u64) < HEAD_BYTES;
        if let Some(rest) = self.head.strip_prefix("\u{feff}".as_bytes()) {
            self.head = rest.to_vec();
        }
        Ok((&self.head, whole))
    }

    /// Puts what was taken last back; `line` is the one in which it begins.
    pub(super) fn give_back(&mut self, taken: &[u8], line: u64) {
        let mut head = taken.to_vec();
        head.extend_from_slice(&self.head[self.at..]);
        (self.head, self.at, self.line) = (head, 0, line);
    }

    /// The line of the next byte.
    pub(super) fn line(&self) -> u64 {
        self.line
    }
}

/// Line breaks in a piece of text.
fn breaks(bytes: &[u8]) -> u64 {
    bytes.iter().map(|b| u64::from(*b == b'\n')).sum()
}

impl<R: BufRead> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = {
            let mut have = self.fill_buf()?;
            have.read(buffer)?
        };
        self.consume(got);
        Ok(got)
    }
}

impl<R: BufRead> BufRead for Lines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.head.len() {
            return Ok(&self.head[self.at..]);
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if self.at < self.head.len() {
            self.line += breaks(&self.head[self.at..self.at + amount]);
            self.at += amount;
            if self.at == self.head.len() {
                (self.head, self.at) = (Vec::new(), 0);
            }
            return;
        }
        // The buffer is the one that was just filled, so asking for it again costs nothing and cannot fail.
        if let Ok(buffer) = self.input.fill_buf() {
            self.line += breaks(&buffer[..amount]);
        }
        self.input.consume(amount);
    }
}
