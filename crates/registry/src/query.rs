//! The query of a URL, and percent-encoding.

/// The decoded pairs of a query, in their order. A name may occur more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// The text has an incomplete `%` escape or decodes to something that is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid percent-encoding")]
pub struct DecodeError;

/// Undoes percent-encoding, once. A `+` stays a plus sign: media types hold them, and nothing here holds spaces.
pub fn decode(text: &str) -> Result<String, DecodeError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(DecodeError) };
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).map_err(|_| DecodeError)
}

impl Query {
    /// Takes a query apart (what follows the `?`).
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_once_and_may_repeat() {
        let query = Query::parse("tag=a&tag=b&digest=sha256%3Aab&x&artifactType=a/b+json&y=%2525").unwrap();
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(query.get("digest"), Some("sha256:ab"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("artifactType"), Some("a/b+json"));
        assert_eq!(query.get("y"), Some("%25"));
        assert_eq!(query.get("z"), None);
        for bad in ["a=%", "a=%2", "a=%zz", "a=%ff", "%+1=2"] {
            assert_eq!(Query::parse(bad), Err(DecodeError), "{bad}");
        }
    }
}
