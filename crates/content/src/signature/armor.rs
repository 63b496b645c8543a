//! Keys as text: takes the binary out of ASCII armor (RFC 9580, 6), as forgivingly as gpg.
//!
//! Red Hat publishes a key file that lacks the empty line after the armor's header, which strict readers refuse.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Padding may be missing where lines were cut by hand.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The binary of every block of public keys in the text, each for itself. A file without armor is one block.
pub(super) fn blocks(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let Some(text) = std::str::from_utf8(bytes).ok().filter(|text| text.contains("-----BEGIN ")) else {
        return Ok(vec![bytes.to_vec()]);
    };
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let inner = &rest[begin + BEGIN.len()..];
        let end = inner.find(END).ok_or("a block has no end line")?;
        blocks.push(decode(&inner[..end])?);
        rest = &inner[end + END.len()..];
    }
    if blocks.is_empty() {
        return Err("it holds no block of public keys (`-----BEGIN PGP PUBLIC KEY BLOCK-----`)".to_owned());
    }
    Ok(blocks)
}

fn decode(inner: &str) -> Result<Vec<u8>, String> {
    let mut data = String::with_capacity(inner.len());
    for line in inner.lines().map(str::trim) {
        // Headers are `Name: value`; the last line before the end is a checksum that RFC 9580 tells to ignore.
        if line.is_empty() || line.contains(": ") || line.ends_with(':') || (line.len() == 5 && line.starts_with('=')) {
            continue;
        }
        data.push_str(line);
    }
    BASE64.decode(&data).map_err(|error| format!("its text is not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armored(headers: &str, body: &str) -> String {
        format!("{BEGIN}\n{headers}{body}\n=AbCd\n{END}\n")
    }

    #[test]
    fn armor_is_taken_off_with_and_without_headers_and_empty_line() {
        for headers in ["\n", "Version: GnuPG v1\nComment: x\n\n", "", "Version: x\n"] {
            assert_eq!(blocks(armored(headers, "aGVs\nbG8=").as_bytes()), Ok(vec![b"hello".to_vec()]), "{headers:?}");
        }
        let two = format!("some text\n{}between\n{}", armored("\n", "YQ=="), armored("\n", "Yg"));
        assert_eq!(blocks(two.as_bytes()), Ok(vec![b"a".to_vec(), b"b".to_vec()]));
        assert_eq!(blocks(&[0x99, 0x01]), Ok(vec![vec![0x99, 0x01]]));
    }

    #[test]
    fn broken_armor_says_what_is_wrong() {
        assert!(blocks(format!("{BEGIN}\n\nYQ==\n").as_bytes()).unwrap_err().contains("no end line"));
        assert!(blocks(armored("\n", "Y*Q=").as_bytes()).unwrap_err().contains("not base64"));
        assert!(blocks(b"-----BEGIN CERTIFICATE-----\n").unwrap_err().contains("no block of public keys"));
    }
}
