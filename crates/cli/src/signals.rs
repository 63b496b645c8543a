//! Ctrl-C once: stop at the next checkpoint and say how to go on. Twice: stop now.

use airlock_transfer::Stop;

use crate::told;

/// Listens for SIGINT and SIGTERM for as long as the program runs.
pub(crate) fn listen(stop: &Stop) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        let words = "stopping: what has arrived is kept (press Ctrl-C again to stop at once)";
        // On a terminal the line has a `^C` in it already.
        told::say("stopping", &if told::is_json() { words.to_owned() } else { format!("\n{words}") });
        stop.stop();
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        #[expect(clippy::exit, reason = "the user asked twice; the journal is what makes this safe")]
        std::process::exit(130);
    });
}

/// As [`listen`], for a server: stopping is what it is expected to do.
pub(crate) fn listen_quietly(stop: &Stop) {
    let stop = stop.clone();
    tokio::spawn(async move {
        let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.stop();
    });
}
