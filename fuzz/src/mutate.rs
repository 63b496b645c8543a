//! Mutations: what parsers trip over, applied a few at a time to inputs that got somewhere.

use crate::MAX_INPUT_BYTES;

/// Numbers at the edges of types and fields.
const EDGES: [&[u8]; 12] = [
    b"0",
    b"-1",
    b"1",
    b"00000000000",
    b"77777777777",
    b"2147483648",
    b"4294967296",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1e309",
    b"0x7fffffffffffffff",
];

/// A repeatable source of mutated inputs.
pub(crate) struct Mutator {
    state: u64,
    words: &'static [&'static [u8]],
}

impl Mutator {
    pub(crate) fn new(seed: u64, words: &'static [&'static [u8]]) -> Self {
        // xorshift must not start at zero.
        Self { state: seed ^ 0x9E37_79B9_7F4A_7C15 | 1, words }
    }

    fn random(&mut self, below: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % below.max(1)
    }

    /// A mutation of one of the inputs; new ones are preferred, they are the frontier.
    pub(crate) fn next(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let recent = pool.len() / 4 + 1;
        let at = if self.random(2) == 0 { self.random(pool.len()) } else { pool.len() - 1 - self.random(recent) };
        let mut input = pool[at].clone();
        for _ in 0..=self.random(4) {
            self.mutate(&mut input, pool);
        }
        input.truncate(MAX_INPUT_BYTES);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let (from, to) = self.range(input.len());
        match self.random(10) {
            0 if from < input.len() => input[from] ^= 1 << self.random(8),
            1 if from < input.len() => input[from] = self.random(256) as u8,
            2 => drop(input.drain(from..to)),
            3 => {
                let piece = input[from..to].to_vec();
                let at = self.random(input.len() + 1);
                input.splice(at..at, piece);
            }
            4 => input.truncate(from),
            5 => {
                let edge = EDGES[self.random(EDGES.len())];
                let end = from + input[from..].iter().take_while(|b| b.is_ascii_digit()).count();
                input.splice(from..end, edge.iter().copied());
            }
            6 => {
                let other = &pool[self.random(pool.len())];
                let start = self.random(other.len());
                let end = start + self.random(other.len() - start.min(other.len()) + 1);
                let piece = other.get(start..end).unwrap_or_default().to_vec();
                input.splice(from..to, piece);
            }
            7 => {
                let byte = self.random(256) as u8;
                let most = if self.random(16) == 0 { 2048 } else { 16 };
                let many = self.random(most);
                input.splice(from..from, std::iter::repeat_n(byte, many));
            }
            _ if !self.words.is_empty() => {
                let word = self.words[self.random(self.words.len())];
                let end = if self.random(2) == 0 { from } else { to };
                input.splice(from..end, word.iter().copied());
            }
            _ => {}
        }
    }

    /// A mostly short piece of the input, never past its end.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.random(len + 1).min(len);
        let longest = if self.random(8) == 0 { len - from } else { (len - from).min(32) };
        (from, from + self.random(longest + 1))
    }
}
