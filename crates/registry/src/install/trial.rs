//! Where nothing keeps a registry running, it is started once to see that what is printed works.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::probe::{Answer, Probe};

/// How long it may take to end when it is asked to.
const END: Duration = Duration::from_secs(45);
/// Lines of its output that an error shows.
const LINES: usize = 10;

/// Starts the program with these arguments, asks it, and ends it. What it prints goes to `log`; the end of it is in the error.
pub async fn run(
    program: &Path,
    arguments: &[String],
    probe: &Probe,
    credentials: Option<(&str, &str)>,
    patience: Duration,
    log: &Path,
) -> Result<Answer, Error> {
    let what = || format!("start `{}`", program.display());
    let failed = |e: std::io::Error| Error::io(what(), &e);
    let output = File::create(log).map_err(|e| Error::io(format!("write `{}`", log.display()), &e))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let ended = async || child.try_wait().ok().flatten().map(|status| format!("it ended at once ({status})"));
    let answer = probe.wait(credentials, patience, ended).await;
    end(&mut child).await;
    answer.map_err(|e| {
        let said = last_lines(&std::fs::read_to_string(log).unwrap_or_default(), LINES);
        if said.is_empty() { e } else { Error::new(ErrorKind::Server, e.what(), format!("{}\n{said}", e.cause())) }
    })
}

async fn end(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(END, child.wait()).await.is_ok() {
            return;
        }
    }
    let _ = child.kill().await;
}

/// The last lines of a text, indented.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(count);
    lines[from..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}
