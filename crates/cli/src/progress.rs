//! Progress: one honest bar in bytes on a terminal, plain lines elsewhere, JSON on request. A subscriber of the run's events.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use airlock_mirror::event::{Event, Events, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::output::size;

/// Nothing may be silent for longer than this.
const QUIET_PERIOD: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Style {
    /// A bar on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// Timed lines.
    Plain,
    /// One JSON object a line, on stderr.
    Json,
    /// Nothing but warnings and errors.
    None,
}

/// What the user asked to see.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Only errors.
    pub quiet: bool,
    /// Level of detail.
    pub verbose: u8,
    /// The style.
    pub style: Style,
}

/// Shows the progress of one run.
pub(crate) struct Progress {
    style: Style,
    verbose: u8,
    quiet: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    phase: Mutex<Option<Phase>>,
    done: AtomicU64,
    total: AtomicU64,
    images_done: AtomicU64,
    images_failed: AtomicU64,
    images: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// Begins to show.
    pub(crate) fn start(look: Look) -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        let style = match look.style {
            _ if look.quiet => Style::None,
            Style::Auto if terminal && std::env::var_os("CI").is_none() => Style::Bar,
            Style::Auto => Style::Plain,
            other => other,
        };
        let bar = (style == Style::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(template("{msg} {spinner}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let this = Arc::new(Self {
            style,
            verbose: look.verbose,
            quiet: look.quiet,
            bar,
            started: Instant::now(),
            phase: Mutex::default(),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            images_done: AtomicU64::new(0),
            images_failed: AtomicU64::new(0),
            images: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        if style == Style::Plain {
            let weak = Arc::downgrade(&this);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(QUIET_PERIOD).await;
                    match weak.upgrade() {
                        Some(this) if !this.ended.load(Ordering::Relaxed) => this.line(&this.status()),
                        _ => break,
                    }
                }
            });
        }
        this
    }

    /// Where the run's events go.
    pub(crate) fn events(self: &Arc<Self>) -> Events {
        let this = Arc::clone(self);
        Arc::new(move |event| this.on(&event))
    }

    /// Stops showing and clears the bar.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn phase(&self) -> Option<Phase> {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> String {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let phase = self.phase().map_or("start", Phase::name);
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        let percent = (done * 100).checked_div(total).unwrap_or(0);
        let amount = match self.phase() {
            Some(Phase::Plan) => format!("{done}/{total} images"),
            _ => format!("{}/{}", size(done), size(total)),
        };
        let eta = match self.phase() {
            Some(Phase::Copy) if done > 0 && total > done => {
                let left = seconds * (total - done) as f64 / done as f64;
                format!(" eta {}", time(left as u64))
            }
            _ => String::new(),
        };
        format!(
            "{phase} {percent}% {amount}{eta} ok={} fail={} {}",
            self.images_done.load(Ordering::Relaxed),
            self.images_failed.load(Ordering::Relaxed),
            time(seconds as u64)
        )
    }

    fn on(&self, event: &Event) {
        if self.style == Style::Json {
            if let Some(value) = as_json(event) {
                eprintln!("{value}");
            }
            return;
        }
        match event {
            Event::Phase(phase) => self.enter(*phase),
            Event::Planned { done, total } => self.set(*done as u64, *total as u64),
            Event::Verified { done, total } => self.set(*done, *total),
            Event::Forecast { images, bytes, carried_before, resumed, missing } => {
                self.images.store(*images as u64, Ordering::Relaxed);
                self.total.store(bytes - carried_before, Ordering::Relaxed);
                let mut text = format!("{images} images, {} to be there in all", size(*bytes));
                if *carried_before > 0 {
                    text.push_str(&format!(", {} of it carried before", size(*carried_before)));
                }
                if *resumed > 0 {
                    text.push_str(&format!(", {} here from an interrupted run", size(*resumed)));
                }
                if *missing > 0 {
                    text.push_str(&format!(", {missing} not to be had"));
                }
                self.tell(&text);
            }
            Event::Transfer(event) => self.transfer(event),
            Event::Client(notice) => {
                let important = matches!(
                    notice,
                    airlock_client::Notice::Retrying { .. }
                        | airlock_client::Notice::Waiting { .. }
                        | airlock_client::Notice::Warning { .. }
                );
                if !self.quiet && (important || self.verbose > 0) {
                    self.line(&format!("note: {notice}"));
                }
            }
            Event::Warning(text) => {
                if !self.quiet {
                    self.line(&format!("warning: {text}"));
                }
            }
            Event::Wrote(_) => {}
        }
    }

    fn transfer(&self, event: &airlock_transfer::Event) {
        use airlock_transfer::Event as Moved;
        match event {
            Moved::Moved { bytes } | Moved::Reused { bytes, .. } => {
                let done = self.done.fetch_add(*bytes, Ordering::Relaxed) + bytes;
                if let Some(bar) = &self.bar {
                    bar.set_position(done);
                }
            }
            Moved::Done { .. } => {
                self.images_done.fetch_add(1, Ordering::Relaxed);
            }
            Moved::Failed { error, .. } => {
                self.images_failed.fetch_add(1, Ordering::Relaxed);
                self.line(&format!("error: cannot {}: {}", error.what(), error.cause()));
            }
            Moved::Begun { .. } | Moved::Written { .. } => {}
        }
    }

    fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Some(phase);
        self.done.store(0, Ordering::Relaxed);
        if phase != Phase::Copy {
            self.total.store(0, Ordering::Relaxed);
        }
        if let Some(bar) = &self.bar {
            let pattern = match phase {
                Phase::Copy | Phase::Verify => {
                    "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} eta {eta}"
                }
                Phase::Plan => "{msg} {pos}/{len} images {spinner}",
                Phase::Probe | Phase::Seal | Phase::Outputs => "{msg} {spinner}",
            };
            bar.set_style(template(pattern));
            bar.set_message(phase.name());
            bar.set_length(self.total.load(Ordering::Relaxed));
            bar.set_position(0);
            bar.reset_eta();
        } else if self.verbose > 0 {
            self.tell(phase.name());
        }
    }

    fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn tell(&self, text: &str) {
        if self.style != Style::None {
            self.line(text);
        }
    }
}

fn template(pattern: &str) -> ProgressStyle {
    ProgressStyle::with_template(pattern).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// A duration for people.
pub(crate) fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn as_json(event: &Event) -> Option<serde_json::Value> {
    use airlock_transfer::Event as Moved;
    Some(match event {
        Event::Phase(phase) => json!({"event": "phase", "phase": phase.name()}),
        Event::Planned { done, total } => json!({"event": "planned", "done": done, "total": total}),
        Event::Forecast { images, bytes, carried_before, resumed, missing } => json!({
            "event": "forecast", "images": images, "bytes": bytes, "carriedBefore": carried_before,
            "resumed": resumed, "missing": missing,
        }),
        Event::Verified { done, total } => json!({"event": "verified", "done": done, "total": total}),
        Event::Transfer(Moved::Begun { job }) => json!({"event": "begun", "image": job}),
        Event::Transfer(Moved::Moved { bytes }) => json!({"event": "moved", "bytes": bytes}),
        Event::Transfer(Moved::Reused { digest, bytes }) => {
            json!({"event": "reused", "digest": digest, "bytes": bytes})
        }
        Event::Transfer(Moved::Written { digest, bytes }) => {
            json!({"event": "written", "digest": digest, "bytes": bytes})
        }
        Event::Transfer(Moved::Done { job }) => json!({"event": "done", "image": job}),
        Event::Transfer(Moved::Failed { job, error }) => {
            json!({"event": "failed", "image": job, "code": error.kind().code(), "error": error.to_string()})
        }
        Event::Client(notice) => json!({"event": "notice", "text": notice.to_string()}),
        Event::Warning(text) => json!({"event": "warning", "text": text}),
        Event::Wrote(path) => json!({"event": "wrote", "path": path}),
    })
}
