//! When to try again: backoff with jitter, and what `Retry-After` means.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

/// The first delay of the exponential series.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay of the exponential series.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// How often and how soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// Tries after the first.
    pub(crate) times: u32,
    /// Fixed delay; zero: exponential.
    pub(crate) delay: Duration,
    /// Cap on `Retry-After`.
    pub(crate) max_retry_after: Duration,
}

impl Policy {
    /// The delay before try number `attempt + 1` (`attempt` from 1).
    pub(crate) fn delay(&self, attempt: u32, retry_after: Option<Duration>) -> Duration {
        if let Some(wish) = retry_after {
            return wish.min(self.max_retry_after);
        }
        if !self.delay.is_zero() {
            return self.delay;
        }
        let base = FIRST_DELAY.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(MAX_DELAY);
        // Between three quarters and five quarters: many clients that failed together do not come back together.
        base.mul_f64(0.75 + random_fraction() / 2.0)
    }
}

/// A number in `0.0..1.0`; good enough to spread load, not for secrets.
fn random_fraction() -> f64 {
    // Every RandomState has new keys, so the hash of nothing is a fresh random number.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Reads a `Retry-After` value: seconds or an HTTP date.
pub(crate) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_with_jitter_and_a_registrys_wish_is_capped() {
        let policy = Policy { times: 5, delay: Duration::ZERO, max_retry_after: Duration::from_secs(7) };
        for (attempt, base) in [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (20, 30.0)] {
            let delay = policy.delay(attempt, None).as_secs_f64();
            assert!(delay >= base * 0.75 && delay <= base * 1.25, "{attempt}: {delay}");
        }
        assert_eq!(policy.delay(1, Some(Duration::from_secs(3))), Duration::from_secs(3));
        assert_eq!(policy.delay(1, Some(Duration::from_secs(3000))), Duration::from_secs(7));
        let fixed = Policy { delay: Duration::from_millis(5), ..policy };
        assert_eq!(fixed.delay(4, None), Duration::from_millis(5));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(" 12 "), Some(Duration::from_secs(12)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        let delay = retry_after(&date).unwrap();
        assert!(delay > Duration::from_secs(25) && delay <= Duration::from_secs(30), "{delay:?}");
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("soon"), None);
    }
}
