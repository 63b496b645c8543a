//! A run on one thread.
//!
//! Large blobs are hashed and written by threads of their own, and what is left - small blobs, speaking with registries - waits most of the
//! time. On several threads every piece that arrives wakes one of them for another, which costs more than the piece.

use airlock_oci::{Error, ErrorKind};
use tokio::runtime::Builder;

/// Does `task`, and whatever it spawns, on one thread that is not the caller's: who listens for signals or shows progress goes on.
pub(super) async fn alone<T, F>(what: &'static str, task: impl FnOnce() -> F + Send + 'static) -> Result<T, Error>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>>,
{
    let running = tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| Error::io(what, &e))?;
        let result = runtime.block_on(task());
        // A thread that hangs on a slow disk is not waited for; what it writes, nobody counts on.
        runtime.shutdown_background();
        result
    });
    match running.await {
        Ok(result) => result,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(ended) => Err(Error::new(ErrorKind::Interrupted, what, ended)),
    }
}
