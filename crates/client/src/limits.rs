//! How much one host is asked at once: additive increase, multiplicative decrease, and a pause that the host asked for.
//!
//! The limit is courtesy, not a lock: a request that has waited [`PATIENCE`] goes ahead. So a stream that holds its place while its
//! reader waits for another stream of the same host can slow things down, but never stop them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The longest that a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// After one halving no other follows within this time: the failures of requests that were in flight together count once.
const SETTLE: Duration = Duration::from_secs(1);

/// The limit of one host.
#[derive(Debug)]
pub(crate) struct Limiter {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    most: f64,
    limit: f64,
    in_flight: usize,
    halved: Option<Instant>,
    not_before: Option<Instant>,
}

/// A request's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Limiter>);

impl Limiter {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let most = most.max(1) as f64;
        let state = State { most, limit: most, in_flight: 0, halved: None, not_before: None };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Permit {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            // Registered before looking, so that a place given back in between is not missed.
            let changed = self.changed.notified();
            let pause = {
                let mut state = self.state();
                let now = Instant::now();
                let pause = state.not_before.filter(|t| *t > now).map(|t| t - now);
                if pause.is_none()
                    && ((state.in_flight as f64) < state.limit.max(1.0) || tokio::time::Instant::now() >= deadline)
                {
                    state.in_flight += 1;
                    return Permit(Arc::clone(self));
                }
                pause
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => {
                    let _ = tokio::time::timeout_at(deadline, changed).await;
                }
            }
        }
    }

    /// A request succeeded: after as many successes as the limit, one more is allowed.
    pub(crate) fn succeeded(&self) {
        let mut state = self.state();
        if state.limit < state.most {
            state.limit = (state.limit + 1.0 / state.limit).min(state.most);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The host showed that it has too much to do.
    pub(crate) fn overloaded(&self, pause: Option<Duration>) {
        let mut state = self.state();
        let now = Instant::now();
        if state.halved.is_none_or(|t| now - t >= SETTLE) {
            state.halved = Some(now);
            state.limit = (state.limit / 2.0).max(1.0);
        }
        if let Some(pause) = pause {
            let until = now + pause;
            state.not_before = Some(state.not_before.map_or(until, |t| t.max(until)));
        }
    }

    /// How many requests are allowed now.
    #[cfg(test)]
    fn limit(&self) -> f64 {
        self.state().limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight = state.in_flight.saturating_sub(1);
        drop(state);
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_halves_once_per_burst_and_recovers() {
        let limiter = Limiter::new(8);
        limiter.overloaded(None);
        limiter.overloaded(None);
        assert!((limiter.limit() - 4.0).abs() < 0.01);
        for _ in 0..100 {
            limiter.succeeded();
        }
        assert!((limiter.limit() - 8.0).abs() < 0.01);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_waits_for_a_place_but_not_for_ever() {
        let limiter = Limiter::new(1);
        let first = limiter.acquire().await;
        let waiting = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move { limiter.acquire().await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        drop(first);
        let second = waiting.await.unwrap();
        let started = tokio::time::Instant::now();
        let third = limiter.acquire().await;
        assert!(started.elapsed() >= PATIENCE);
        drop((second, third));
    }
}
