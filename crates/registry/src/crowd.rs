//! Who is connected, and since when he has nothing under way: so that those who ask for nothing leave their places to others.
//!
//! hyper's own timers begin only after a connection's first bytes have told its version, and leave an idle HTTP/2 connection open for ever. A
//! connection is therefore watched from outside: until its first request is whole, and between requests.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::body::Body;
use crate::limits::{FIRST_HEAD_TIME, HEADER_TIME, IDLE_GRACE, SILENT_GRACE};

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    present: Mutex<HashMap<u64, Arc<Presence>>>,
    next: AtomicU64,
}

/// One connection in the crowd; it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    presence: Arc<Presence>,
}

/// What one connection does.
#[derive(Debug)]
pub(crate) struct Presence {
    state: Mutex<State>,
    leave: Notify,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Requests whose answers have not been handed over whole.
    requests: usize,
    /// The rest of an answer waits for the client to take it.
    writing: bool,
    /// Whether there was a request at all.
    asked: bool,
    /// Since when it is idle.
    since: Instant,
}

impl State {
    fn is_idle(self) -> bool {
        self.requests == 0 && !self.writing
    }
}

/// A request under way, until its answer was handed over whole.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Presence>);

/// The body of an answer, with the turn that ends with it.
pub(crate) struct Held {
    body: Body,
    _turn: Turn,
}

impl Crowd {
    /// One more connection.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let state = State { requests: 0, writing: false, asked: false, since: Instant::now() };
        let presence = Arc::new(Presence { state: Mutex::new(state), leave: Notify::new() });
        self.present.lock().unwrap_or_else(PoisonError::into_inner).insert(number, presence.clone());
        Place { crowd: self.clone(), number, presence }
    }

    /// Asks the connection to go that has had nothing to do for the longest time, if there is one. Those that never asked for anything go first.
    pub(crate) fn make_room(&self) {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |presence: &&Arc<Presence>| {
            let state = presence.state();
            let grace = if state.asked { IDLE_GRACE } else { SILENT_GRACE };
            state.is_idle() && state.since.elapsed() >= grace
        };
        let longest = present.values().filter(idle).min_by_key(|presence| {
            let state = presence.state();
            (state.asked, state.since)
        });
        if let Some(presence) = longest {
            presence.leave.notify_one();
        }
    }
}

impl Place {
    /// The connection.
    pub(crate) fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.present.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

impl Presence {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The time for the first request begins now: the handshake is done.
    pub(crate) fn is_open(&self) {
        self.change(|state| state.since = Instant::now());
    }

    /// The rest of an answer waits to be taken, or does no longer.
    pub(crate) fn is_writing(&self, writing: bool) {
        self.change(|state| (state.writing, state.since) = (writing, Instant::now()));
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>) -> Turn {
        self.change(|state| {
            state.requests += 1;
            state.asked = true;
        });
        Turn(self.clone())
    }

    /// Waits until the connection has been idle for too long, or has to make room.
    pub(crate) async fn is_over(&self) {
        loop {
            let state = self.state();
            let patience = if state.asked { HEADER_TIME } else { FIRST_HEAD_TIME };
            let left = if state.is_idle() { patience.saturating_sub(state.since.elapsed()) } else { HEADER_TIME };
            if left == Duration::ZERO {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                () = self.leave.notified() => {
                    // A request may have come in between.
                    if self.state().is_idle() {
                        return;
                    }
                }
            }
        }
    }
}

impl Turn {
    /// The turn lasts until this body was taken whole, or was dropped.
    pub(crate) fn hold(self, body: Body) -> Held {
        Held { body, _turn: self }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.change(|state| {
            state.requests -= 1;
            state.since = Instant::now();
        });
    }
}

impl hyper::body::Body for Held {
    type Data = Bytes;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_over_when_it_asks_for_nothing_and_not_before() {
        let crowd = Arc::new(Crowd::default());
        let place = crowd.enter();
        let presence = place.presence();
        let begun = Instant::now();
        presence.is_over().await;
        assert_eq!(begun.elapsed().as_secs(), FIRST_HEAD_TIME.as_secs());
        let turn = presence.begin();
        assert!(timeout(HEADER_TIME * 10, presence.is_over()).await.is_err(), "a request is under way");
        drop(turn);
        presence.is_writing(true);
        let over = timeout(HEADER_TIME * 10, presence.is_over()).await;
        assert!(over.is_err(), "the end of an answer has not been taken");
        presence.is_writing(false);
        let begun = Instant::now();
        presence.is_over().await;
        assert_eq!(begun.elapsed().as_secs(), HEADER_TIME.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn the_idle_make_room_and_the_busy_do_not() {
        let crowd = Arc::new(Crowd::default());
        let [busy, kept, silent, fresh] = std::array::from_fn(|_| crowd.enter());
        let _turn = busy.presence().begin();
        drop(kept.presence().begin());
        sleep(IDLE_GRACE / 2).await;
        fresh.presence().is_open();
        let goes = async |place: &Place| timeout(Duration::from_millis(1), place.presence().is_over()).await.is_ok();
        crowd.make_room();
        assert!(goes(&silent).await && !goes(&kept).await && !goes(&busy).await && !goes(&fresh).await);
        drop(silent);
        crowd.make_room();
        assert!(!goes(&kept).await, "it has just been used");
        drop(fresh);
        sleep(IDLE_GRACE).await;
        crowd.make_room();
        assert!(goes(&kept).await && !goes(&busy).await);
        assert_eq!(crowd.present.lock().unwrap().len(), 2);
    }
}
