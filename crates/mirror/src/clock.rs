//! The one clock: UTC seconds, pinned by `SOURCE_DATE_EPOCH`.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// Now, or what `SOURCE_DATE_EPOCH` says.
pub fn now() -> Time {
    let pinned = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    Time(pinned.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())))
}

impl Time {
    /// Year, month, day (Howard Hinnant's algorithm for the proleptic Gregorian calendar).
    fn date(self) -> (u64, u64, u64) {
        let days = self.0 / 86_400 + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        (year_of_era + era * 400 + u64::from(month <= 2), month, day)
    }

    /// `2026-11-21T06:00:00Z`.
    pub fn rfc3339(self) -> String {
        let (year, month, day) = self.date();
        let second = self.0 % 86_400;
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }

    /// `20261121_060000`, for file names.
    pub fn compact(self) -> String {
        self.rfc3339().replace(['-', ':', 'Z'], "").replace('T', "_")
    }
}

/// Whether the text is a date of the form `2026-11-21`.
pub fn is_date(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let number = |field: &str, len: usize, most: u32| {
        field.len() == len && field.parse::<u32>().is_ok_and(|n| n >= 1 && n <= most)
    };
    let [y, m, d] = fields[..] else { return false };
    if !number(y, 4, 9999) || !number(m, 2, 12) {
        return false;
    }
    let (year, month): (u32, u32) = (y.parse().unwrap_or_default(), m.parse().unwrap_or_default());
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    number(d, 2, days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_that_there_are() {
        for date in ["2026-11-21", "2024-02-29", "2000-02-29", "2026-12-31"] {
            assert!(is_date(date), "{date}");
        }
        for date in ["2026-02-30", "2026-02-29", "1900-02-29", "2026-04-31", "2026-13-01", "2026-1-01", "26-01-01", ""]
        {
            assert!(!is_date(date), "{date}");
        }
    }

    #[test]
    fn times_are_those_of_date() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_240_800, "2026-11-21T06:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Time(seconds).rfc3339(), text);
        }
        assert_eq!(Time(1_795_240_800).compact(), "20261121_060000");
        assert!(is_date("2026-11-21") && !is_date("2026-13-21") && !is_date("26-1-1") && !is_date("tomorrow"));
    }
}
