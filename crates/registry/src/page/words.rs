//! Numbers, times and digests as people read them.

use std::cmp::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_oci::Digest;
use maud::{Markup, html};

/// Hex digits by which a digest is told apart at a glance.
const SHORT_HEX: usize = 12;
/// Times after this are no times (the end of the year 9999, in seconds).
const LAST_SECOND: u64 = 253_402_300_799;

/// Bytes in binary units: `1.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A number with its thousands apart: `12 345`.
pub(super) fn number(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            // A narrow space that does not break.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// `1 image`, `2 images`.
pub(super) fn count(count: usize, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Year, month, day, second of the day (Howard Hinnant's algorithm).
fn civil(time: SystemTime) -> Option<(u64, u64, u64, u64)> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    if seconds > LAST_SECOND {
        return None;
    }
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    Some((year, month, day_of_year - (153 * shifted + 2) / 5 + 1, seconds % 86_400))
}

/// `2026-11-21T06:00:00Z`.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let (year, month, day, second) = civil(time)?;
    Some(format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60))
}

/// A time for the page; a dash where it is not known.
pub(super) fn moment(time: Option<SystemTime>) -> Markup {
    let Some((time, (year, month, day, second))) = time.and_then(|t| Some((t, civil(t)?))) else {
        return html! { span.quiet { "–" } };
    };
    html! {
        time datetime=[rfc3339(time)] {
            (format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", second / 3600, second / 60 % 60)) span.quiet { " UTC" }
        }
    }
}

/// How long ago something was, roughly.
pub(super) fn ago(time: SystemTime, now: SystemTime) -> String {
    let Ok(age) = now.duration_since(time) else { return "just now".to_owned() };
    let (day, hour, minute) = (Duration::from_secs(86_400), Duration::from_secs(3600), Duration::from_secs(60));
    let (amount, one, many) = if age >= day {
        (age.as_secs() / day.as_secs(), "day", "days")
    } else if age >= hour {
        (age.as_secs() / hour.as_secs(), "hour", "hours")
    } else if age >= minute {
        (age.as_secs() / minute.as_secs(), "minute", "minutes")
    } else {
        return "just now".to_owned();
    };
    format!("{} ago", count(amount as usize, one, many))
}

/// The beginning of a digest, with the whole of it as the title.
pub(super) fn short(digest: &Digest) -> Markup {
    html! { code title=(digest) { (short_text(digest)) } }
}

/// The beginning of a digest.
pub(super) fn short_text(digest: &Digest) -> String {
    format!("{}:{}…", digest.algorithm(), digest.hex().get(..SHORT_HEX).unwrap_or_default())
}

/// At most so many characters of a text; line breaks and other control characters become spaces.
pub(super) fn clip(text: &str, most: usize) -> String {
    let mut clipped: String = text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        clipped.push('…');
    }
    clipped
}

/// The order in which people count: `4.9.2` before `4.10.0`.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let mut parts = (parts(a), parts(b));
    loop {
        let order = match (parts.0.next(), parts.1.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => {
                let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
                if digits(a) && digits(b) {
                    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
                } else {
                    a.cmp(b)
                }
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Runs of digits, and what is between them.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_digit = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_that_people_write() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (1_610_612_736, "1.5 GiB"),
            (u64::MAX, "16384.0 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(number(7), "7");
        assert_eq!(number(1234), "1\u{202f}234");
        assert_eq!(number(123_456), "123\u{202f}456");
        assert_eq!(count(1, "image", "images"), "1 image");
        assert_eq!(count(0, "image", "images"), "0 images");
    }

    #[test]
    fn times_are_those_of_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(951_782_400)).unwrap(), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(1_795_240_800)).unwrap(), "2026-11-21T06:00:00Z");
        assert_eq!(rfc3339(at(LAST_SECOND + 1)), None);
        assert_eq!(ago(at(0), at(59)), "just now");
        assert_eq!(ago(at(0), at(3600)), "1 hour ago");
        assert_eq!(ago(at(0), at(86_400 * 3)), "3 days ago");
        assert_eq!(ago(at(9), at(0)), "just now");
    }

    #[test]
    fn versions_are_in_the_order_of_counting() {
        let mut versions = ["4.10.0", "4.9.12", "4.9.2", "5", "4.9.2-rc.1", "v4", "4.09.2", ""];
        versions.sort_by(|a, b| natural(a, b));
        assert_eq!(versions, ["", "4.09.2", "4.9.2", "4.9.2-rc.1", "4.9.12", "4.10.0", "5", "v4"]);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(clip("äöü", 2), "äö…");
        assert_eq!(clip("a\nb", 9), "a b");
    }
}
