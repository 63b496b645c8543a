//! What is told on stderr: lines for people, or with `--progress json` one JSON object a line and nothing else. Only errors with `-q`.

use std::io::Write;
use std::sync::OnceLock;

use airlock_oci::Error;
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::progress::{Look, Style};

/// How this process speaks; set once, from the command line.
static VOICE: OnceLock<Voice> = OnceLock::new();

#[derive(Clone, Copy, Debug, Default)]
struct Voice {
    json: bool,
    quiet: bool,
}

/// Lines of the program's own diagnostics, as events.
pub(crate) struct Lines;

/// Says how this process speaks from here on.
pub(crate) fn begin(look: Look) {
    let _ = VOICE.set(Voice { json: look.style == Style::Json, quiet: look.quiet });
}

fn voice() -> Voice {
    VOICE.get().copied().unwrap_or_default()
}

/// Whether only JSON may come.
pub(crate) fn is_json() -> bool {
    voice().json
}

/// Prints an event as one line.
pub(crate) fn event(event: &Value) {
    eprintln!("{event}");
}

/// Prints an event that `-q` hides.
pub(crate) fn event_unless_quiet(value: &Value) {
    if !voice().quiet {
        event(value);
    }
}

/// A line that no failure is told by: hidden with `-q`. With JSON it is an event of this name.
pub(crate) fn say(event_name: &str, text: &str) {
    let Voice { json, quiet } = voice();
    match (json, quiet) {
        (_, true) => {}
        (true, _) => event(&json!({"event": event_name, "text": text})),
        (false, _) => eprintln!("{text}"),
    }
}

/// A failure in one line, with what helps.
pub(crate) fn error(code: &str, text: &str, hint: Option<&str>) {
    if is_json() {
        event(&json!({"event": "error", "code": code, "error": text, "hint": hint}));
        return;
    }
    eprintln!("error: {text}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}

/// The failure that ended the run.
pub(crate) fn failure(failure: &Failure) {
    match failure {
        Failure::Error(error) | Failure::Coded(error, _) => whole(error),
        Failure::Usage { message, hint } => error("usage", message, hint.as_deref()),
        Failure::Config(problems) if is_json() => error("invalid", &problems.to_string(), None),
        Failure::Rules(problems) if is_json() => error("invalid", &problems.to_string(), None),
        Failure::Config(problems) => eprintln!("{problems}"),
        Failure::Rules(problems) => eprintln!("{problems}"),
    }
}

/// One error with its attempts and hint.
pub(crate) fn whole(error: &Error) {
    let text = format!("cannot {}: {}", error.what(), error.cause());
    if is_json() {
        let tried: Vec<Value> =
            error.tried().iter().map(|a| json!({"endpoint": a.endpoint, "outcome": a.outcome})).collect();
        event(&json!({
            "event": "error", "code": error.kind().code(), "error": text, "hint": error.hint_text(), "tried": tried,
        }));
        return;
    }
    eprintln!("error: {text}");
    for attempt in error.tried() {
        eprintln!("  tried {}: {}", attempt.endpoint, attempt.outcome);
    }
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {hint}");
    }
}

/// The last event of a process that tells events: how it ended.
pub(crate) fn end(code: u8) {
    if is_json() {
        let status = match code {
            0 => "complete",
            3 => "partial",
            130 => "interrupted",
            _ => "failed",
        };
        event(&json!({"event": "end", "status": status, "exit": code}));
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if is_json() {
            event(&json!({"event": "log", "text": String::from_utf8_lossy(bytes).trim_end()}));
            return Ok(bytes.len());
        }
        std::io::stderr().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
