//! The way of an upload's bytes from the task that receives them to the thread that hashes and writes them.
//!
//! Handing one batch after the other to a thread and waiting for it costs several wake-ups of sleeping threads each time, together as much as
//! writing. So batches wait in a short queue, and the thread goes on for as long as it finds one there: with a fast client it stays awake, with
//! a slow one it goes back to the pool, which must not be emptied by clients that send nothing. Whoever receives is woken when the queue is empty,
//! not for each place in it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use airlock_oci::{Error, ErrorKind};
use bytes::Bytes;
use tokio::sync::Notify;

use super::uploads::{Hold, Session};

/// Batches that may wait behind the one that is written.
const WAITING_BATCHES: usize = 2;

/// One request's way into a session, of which it carries the hold.
pub(super) struct Lane {
    session: Arc<Session>,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Here while no thread works.
    hold: Option<Hold>,
    waiting: VecDeque<Vec<Bytes>>,
    failed: Option<Error>,
}

/// The thread's part; however it ends, the hold goes back.
struct Work {
    lane: Arc<Lane>,
    hold: Option<Hold>,
    /// Whether the end was meant.
    ended: bool,
}

impl Lane {
    pub(super) fn new(session: Arc<Session>, hold: Hold) -> Arc<Self> {
        let state = State { hold: Some(hold), waiting: VecDeque::with_capacity(WAITING_BATCHES), failed: None };
        Arc::new(Self { session, state: Mutex::new(state), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a batch, once there is room. An error is that of an earlier batch; nothing of it and of what came after it counts.
    pub(super) async fn send(self: &Arc<Self>, batch: Vec<Bytes>) -> Result<(), Error> {
        loop {
            {
                let mut state = self.lock();
                if let Some(error) = state.failed.take() {
                    return Err(error);
                }
                if state.hold.is_some() || state.waiting.len() < WAITING_BATCHES {
                    state.waiting.push_back(batch);
                    let hold = state.hold.take();
                    // Not under the lock: a runtime that ends drops the work at once, which gives the hold back.
                    drop(state);
                    if let Some(hold) = hold {
                        let work = Work { lane: Arc::clone(self), hold: Some(hold), ended: false };
                        drop(tokio::task::spawn_blocking(move || work.run()));
                    }
                    return Ok(());
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until everything was written; the hold, and what went wrong.
    pub(super) async fn settle(&self) -> (Option<Hold>, Result<(), Error>) {
        loop {
            {
                let mut state = self.lock();
                if state.hold.is_some() {
                    return (state.hold.take(), state.failed.take().map_or(Ok(()), Err));
                }
            }
            self.changed.notified().await;
        }
    }
}

/// The request has gone: nobody writes to the file soon.
impl Drop for Lane {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(staged) = state.hold.as_mut().and_then(|hold| hold.as_mut()) {
            staged.close();
        }
    }
}

impl Work {
    fn run(mut self) {
        while let Some(batch) = self.next() {
            let written = match self.hold.as_mut().and_then(|hold| hold.as_mut()) {
                Some(staged) => {
                    let written = staged.write(&batch);
                    self.lane.session.written(staged.len());
                    written
                }
                None => Err(super::uploads::gone()),
            };
            if let Err(error) = written {
                self.end(Some(error));
                return;
            }
        }
    }

    /// The next batch. `None`: there is none, and the work is over.
    fn next(&mut self) -> Option<Vec<Bytes>> {
        let mut state = self.lane.lock();
        let batch = state.waiting.pop_front();
        let none_left = state.waiting.is_empty();
        if batch.is_none() {
            // In the same breath as the look, so that no batch is put where nobody comes any more.
            state.hold = self.hold.take();
            self.ended = true;
        }
        drop(state);
        if none_left {
            self.lane.changed.notify_one();
        }
        batch
    }

    fn end(&mut self, failed: Option<Error>) {
        let mut state = self.lane.lock();
        state.failed = failed;
        state.waiting.clear();
        state.hold = self.hold.take();
        self.ended = true;
        drop(state);
        self.lane.changed.notify_one();
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.ended {
            // A panic, or a runtime that ends: how far the file is in step with its digest is not known.
            if let Some(hold) = self.hold.as_mut() {
                **hold = None;
            }
            self.end(Some(Error::new(ErrorKind::Io, "write an upload", "the thread that wrote it has ended")));
        }
    }
}
