//! The two kinds of ranges: `Range` of a blob that is read, `Content-Range` of a chunk that is sent.

/// What a `Range` header comes to for a blob of a known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of it: there is no range, or one of a kind that a server may ignore (another unit, several ranges).
    Whole,
    /// From the first byte up to, not including, the second.
    Part(u64, u64),
    /// Nothing of the blob lies in it (416).
    Unsatisfiable,
}

/// Reads a `Range` header (RFC 9110, 14.2).
pub fn wanted(header: Option<&str>, len: u64) -> Wanted {
    let Some((unit, spec)) = header.and_then(|h| h.trim().split_once('=')) else { return Wanted::Whole };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    if spec.contains(',') {
        return Wanted::Whole;
    }
    let Some((first, last)) = spec.trim().split_once('-') else { return Wanted::Whole };
    match (position(first), position(last)) {
        (Some(first), Some(last)) if last < first => Wanted::Unsatisfiable,
        (Some(first), _) if first >= len => Wanted::Unsatisfiable,
        (Some(first), Some(last)) => Wanted::Part(first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.trim().is_empty() => Wanted::Part(first, len),
        (None, Some(0)) if first.trim().is_empty() => Wanted::Unsatisfiable,
        (None, Some(_)) if first.trim().is_empty() && len == 0 => Wanted::Unsatisfiable,
        (None, Some(count)) if first.trim().is_empty() => Wanted::Part(len.saturating_sub(count), len),
        _ => Wanted::Whole,
    }
}

/// Reads the `Content-Range` of a chunk: `first-last`, both included (distribution-spec, "Pushing a blob in chunks").
/// RFC 9110's form, `bytes first-last/length`, is taken too. `None`: it is neither.
pub fn chunk(header: &str) -> Option<(u64, u64)> {
    let spec = header.trim();
    let spec = spec.strip_prefix("bytes").map_or(spec, |rest| rest.trim_start_matches(['=', ' ']));
    let spec = spec.split_once('/').map_or(spec, |(range, _)| range);
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

/// A position in a blob; one that is too large for a number lies behind the end of every blob.
fn position(text: &str) -> Option<u64> {
    let digits = text.trim();
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    // `parse` alone would take a sign.
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_clipped_refused_or_ignored() {
        use Wanted::{Part, Unsatisfiable, Whole};
        for (header, expected) in [
            ("bytes=0-0", Part(0, 1)),
            ("bytes=2-5", Part(2, 6)),
            ("bytes=2-", Part(2, 10)),
            ("bytes=-3", Part(7, 10)),
            ("bytes=-30", Part(0, 10)),
            ("bytes=5-99999999999999999999", Part(5, 10)),
            ("bytes=-99999999999999999999", Part(0, 10)),
            ("bytes=99999999999999999999-", Unsatisfiable),
            ("bytes=99999999999999999999-99999999999999999999", Unsatisfiable),
            ("Bytes=2-5", Part(2, 6)),
            ("bytes=5-18446744073709551615", Part(5, 10)),
            ("bytes=9-9", Part(9, 10)),
            ("bytes=10-10", Unsatisfiable),
            ("bytes=10-", Unsatisfiable),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-1,3-4", Whole),
            ("bytes=", Whole),
            ("bytes=-", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("lines=0-1", Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Whole);
        assert_eq!(wanted(Some("bytes=0-0"), 0), Unsatisfiable);
        assert_eq!(wanted(Some("bytes=-1"), 0), Unsatisfiable);
    }

    #[test]
    fn chunks_have_both_ends() {
        for (header, expected) in [
            ("0-9", Some((0, 9))),
            ("10-10", Some((10, 10))),
            ("bytes 0-9/10", Some((0, 9))),
            ("bytes=3-9", Some((3, 9))),
            ("9-0", None),
            ("0-", None),
            ("-9", None),
            ("0-18446744073709551615", None),
            ("-1-3", None),
            ("", None),
        ] {
            assert_eq!(chunk(header), expected, "{header}");
        }
    }
}
