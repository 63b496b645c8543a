//! Progress: one honest bar in bytes on a terminal, plain lines elsewhere, JSON on request. A subscriber of the run's events.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use airlock_mirror::event::{Event, Events, Job, Phase};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use crate::output::size;
use crate::told;

/// Nothing may be silent for longer than this.
pub(crate) const QUIET_PERIOD: Duration = Duration::from_secs(5);
/// Failures that are told while the run goes on.
const MAX_TOLD: usize = 8;

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
    /// Only the bar and the counts: what happens is told by somebody else.
    mute: bool,
    bar: Option<ProgressBar>,
    counts: Arc<Counts>,
    jobs: Mutex<Arc<[Job]>>,
    failed: Mutex<HashSet<usize>>,
    told: AtomicUsize,
    images_done: AtomicU64,
    ended: AtomicBool,
}

/// What is counted in the phase at hand.
struct Counts {
    started: Instant,
    now: Mutex<Now>,
    done: AtomicU64,
    /// Of `done`, what this phase did itself: bytes that were there before say nothing of the rate.
    moved: AtomicU64,
    total: AtomicU64,
    /// What the copy will have to tell of, known before it begins.
    copied: AtomicU64,
}

#[derive(Clone, Copy)]
struct Now {
    phase: Option<Phase>,
    since: Instant,
    unit: Unit,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Bytes,
    Images,
    Questions,
}

impl Counts {
    fn new(now: Instant) -> Self {
        Self {
            started: now,
            now: Mutex::new(Now { phase: None, since: now, unit: Unit::Bytes }),
            done: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            total: AtomicU64::new(0),
            copied: AtomicU64::new(0),
        }
    }

    fn now(&self) -> Now {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase, since: Instant) {
        let unit = if phase == Phase::Plan { Unit::Images } else { Unit::Bytes };
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Now { phase: Some(phase), since, unit };
        let total = if phase == Phase::Copy { self.copied.load(Ordering::Relaxed) } else { 0 };
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.moved.store(0, Ordering::Relaxed);
    }

    fn set(&self, done: u64, total: u64, unit: Unit) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).unit = unit;
        self.done.store(done, Ordering::Relaxed);
        self.moved.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn amount(&self) -> String {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let now = self.now();
        match (now.unit, now.phase) {
            (Unit::Images, _) => format!("{done}/{total} images"),
            (Unit::Questions, _) => format!("{done}/{total} looked up"),
            (Unit::Bytes, Some(Phase::Copy | Phase::Verify)) => format!("{}/{}", size(done), size(total)),
            (Unit::Bytes, _) => String::new(),
        }
    }

    /// Bytes a second since the phase began, and the seconds that are left at that rate.
    fn rate(&self, at: Instant) -> Option<(u64, u64)> {
        let now = self.now();
        let moved = self.moved.load(Ordering::Relaxed);
        let seconds = at.saturating_duration_since(now.since).as_secs_f64();
        if now.unit != Unit::Bytes || moved == 0 || seconds <= 0.0 {
            return None;
        }
        let left = self.total.load(Ordering::Relaxed).saturating_sub(self.done.load(Ordering::Relaxed));
        let rate = moved as f64 / seconds;
        Some((rate as u64, (left as f64 / rate).ceil() as u64))
    }

    fn pace(&self, at: Instant) -> String {
        match self.rate(at) {
            Some((rate, 0)) => format!(" {}/s", size(rate)),
            Some((rate, left)) => format!(" {}/s eta {}", size(rate), time(left)),
            None => String::new(),
        }
    }
}

impl Progress {
    /// Begins to show.
    pub(crate) fn start(look: Look) -> Arc<Self> {
        let style = match look.style {
            // Who asked for events gets errors as events too.
            Style::Json => Style::Json,
            _ if look.quiet => Style::None,
            Style::Auto if on_terminal() => Style::Bar,
            Style::Auto => Style::Plain,
            other => other,
        };
        let this = Arc::new(Self::of(style, look, false));
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

    /// Counts, and shows a bar on a terminal; everything else is told by somebody else.
    pub(crate) fn beside() -> Arc<Self> {
        let style = if on_terminal() { Style::Bar } else { Style::None };
        Arc::new(Self::of(style, Look { quiet: false, verbose: 0, style }, true))
    }

    fn of(style: Style, look: Look, mute: bool) -> Self {
        let counts = Arc::new(Counts::new(Instant::now()));
        let bar = (style == Style::Bar).then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
            bar.set_style(template("{msg} {spinner}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            style,
            verbose: look.verbose,
            quiet: look.quiet,
            mute,
            bar,
            counts,
            jobs: Mutex::new(Arc::new([])),
            failed: Mutex::default(),
            told: AtomicUsize::new(0),
            images_done: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
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
        if self.style == Style::Json {
            told::say("note", text);
            return;
        }
        self.beneath(|| eprintln!("{text}"));
    }

    /// Prints something while the bar is out of the way.
    pub(crate) fn beneath(&self, print: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    /// Whether a bar shows what happens.
    pub(crate) fn is_drawn(&self) -> bool {
        self.bar.is_some()
    }

    /// The image that a job is about, as the user wrote it.
    pub(crate) fn job(&self, number: usize) -> Option<Job> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).get(number).cloned()
    }

    /// One line: phase, amount, rate, what is left, images.
    pub(crate) fn status(&self) -> String {
        self.status_at(Instant::now())
    }

    fn status_at(&self, at: Instant) -> String {
        let counts = &self.counts;
        let (done, total) = (counts.done.load(Ordering::Relaxed), counts.total.load(Ordering::Relaxed));
        let mut text = counts.now().phase.map_or("start", Phase::name).to_owned();
        if let Some(percent) = (done.min(total) * 100).checked_div(total) {
            text.push_str(&format!(" {percent}%"));
        }
        let amount = counts.amount();
        if !amount.is_empty() {
            text.push_str(&format!(" {amount}"));
        }
        text.push_str(&counts.pace(at));
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).len();
        let ok = self.images_done.load(Ordering::Relaxed);
        let elapsed = at.saturating_duration_since(counts.started).as_secs();
        format!("{text} ok={ok} fail={failed} {}", time(elapsed))
    }

    /// Takes in an event.
    pub(crate) fn on(&self, event: &Event) {
        if let Event::Images(jobs) = event {
            *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(jobs);
        }
        if self.style == Style::Json {
            if !self.quiet
                && let Some(value) = self.as_json(event)
            {
                told::event(&value);
            }
            return;
        }
        match event {
            Event::Phase(phase) => self.enter(*phase),
            Event::Planned { done, total } => self.set(*done as u64, *total as u64, Unit::Images),
            Event::Verified { done, total } => self.set(*done, *total, Unit::Bytes),
            Event::Sought { done, total } => self.set(*done, *total, Unit::Questions),
            Event::Forecast { images, bytes, blobs, carried_before, resumed, missing } => {
                self.counts.copied.store(*blobs, Ordering::Relaxed);
                let mut text = format!("{images} images, {} to be there in all", size(*bytes));
                if *carried_before > 0 {
                    text.push_str(&format!(", {} of it carried before", size(*carried_before)));
                }
                if *resumed > 0 {
                    text.push_str(&format!(", {} of it here already", size(*resumed)));
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
                if !self.quiet && !self.mute && (important || self.verbose > 0) {
                    self.line(&format!("note: {notice}"));
                }
            }
            Event::Warning(text) => {
                if !self.quiet && !self.mute {
                    self.line(&format!("warning: {text}"));
                }
            }
            Event::Images(_) | Event::Wrote(_) => {}
        }
    }

    fn transfer(&self, event: &airlock_transfer::Event) {
        use airlock_transfer::Event as Moved;
        let counts = &self.counts;
        match event {
            Moved::Moved { bytes } | Moved::Reused { bytes, .. } => {
                // What comes before or after the copy is none of its bytes.
                if counts.now().phase != Some(Phase::Copy) {
                    return;
                }
                if matches!(event, Moved::Moved { .. }) {
                    counts.moved.fetch_add(*bytes, Ordering::Relaxed);
                }
                let done = counts.done.fetch_add(*bytes, Ordering::Relaxed) + bytes;
                if let Some(bar) = &self.bar {
                    bar.set_position(done);
                }
            }
            Moved::Done { .. } => {
                self.images_done.fetch_add(1, Ordering::Relaxed);
            }
            Moved::Failed { job, error } => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(*job);
                if self.quiet || self.mute {
                    return;
                }
                // The summary groups them all; a flood would push everything else off the screen.
                match self.told.fetch_add(1, Ordering::Relaxed) {
                    0..MAX_TOLD => self.line(&format!("error: cannot {}: {}", error.what(), error.cause())),
                    MAX_TOLD => self.line("error: more fails; what, and why, is told at the end"),
                    _ => {}
                }
            }
            Moved::Begun { .. } | Moved::Written { .. } => {}
        }
    }

    fn enter(&self, phase: Phase) {
        self.counts.enter(phase, Instant::now());
        if let Some(bar) = &self.bar {
            let pattern = match phase {
                Phase::Copy | Phase::Verify => "{msg} [{wide_bar}] {amount}{pace}",
                Phase::Plan => "{msg} {amount} {spinner}",
                Phase::Probe | Phase::Seal | Phase::Outputs => "{msg} {spinner}",
            };
            let (of_amount, of_pace) = (Arc::clone(&self.counts), Arc::clone(&self.counts));
            let style = template(pattern)
                .with_key("amount", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = out.write_str(&of_amount.amount());
                })
                .with_key("pace", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = out.write_str(&of_pace.pace(Instant::now()));
                });
            bar.set_style(style);
            bar.set_message(phase.name());
            bar.set_length(self.counts.total.load(Ordering::Relaxed));
            bar.set_position(0);
        } else if self.verbose > 0 {
            self.tell(phase.name());
        }
    }

    fn set(&self, done: u64, total: u64, unit: Unit) {
        self.counts.set(done, total, unit);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn tell(&self, text: &str) {
        if self.style != Style::None && !self.mute {
            self.line(text);
        }
    }

    fn as_json(&self, event: &Event) -> Option<serde_json::Value> {
        use airlock_transfer::Event as Moved;
        let mut value = as_json(event)?;
        if let Event::Transfer(Moved::Begun { job } | Moved::Done { job } | Moved::Failed { job, .. }) = event
            && let Some(job) = self.job(*job)
        {
            value["name"] = job.name.into();
        }
        Some(value)
    }
}

fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
        && std::env::var_os("CI").is_none()
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
        Event::Forecast { images, bytes, blobs, carried_before, resumed, missing } => json!({
            "event": "forecast", "images": images, "bytes": bytes, "blobBytes": blobs, "carriedBefore": carried_before,
            "resumed": resumed, "missing": missing,
        }),
        Event::Verified { done, total } => json!({"event": "verified", "done": done, "total": total}),
        Event::Sought { done, total } => json!({"event": "sought", "done": done, "total": total}),
        // Each event of an image has its name.
        Event::Images(_) => return None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use airlock_transfer::Event as Moved;

    const MIB: u64 = 1 << 20;

    fn plain() -> Progress {
        Progress::of(Style::None, Look { quiet: false, verbose: 0, style: Style::None }, false)
    }

    fn forecast(blobs: u64) -> Event {
        Event::Forecast { images: 2, bytes: blobs + 9, blobs, carried_before: 0, resumed: 0, missing: 0 }
    }

    #[test]
    fn the_copy_knows_its_total_whatever_came_between_it_and_the_forecast() {
        let progress = plain();
        for event in [
            Event::Phase(Phase::Verify),
            Event::Verified { done: 4_670_976, total: 4_670_976 },
            Event::Phase(Phase::Plan),
        ] {
            progress.on(&event);
        }
        assert!(progress.status().starts_with("plan 0/0 images"), "{}", progress.status());
        progress.on(&Event::Sought { done: 3, total: 7 });
        assert!(progress.status().starts_with("plan 42% 3/7 looked up"), "{}", progress.status());
        for event in [forecast(8 * MIB), Event::Phase(Phase::Probe)] {
            progress.on(&event);
        }
        assert!(progress.status().starts_with("probe ok=0"), "{}", progress.status());
        progress.on(&Event::Phase(Phase::Copy));
        progress.on(&Event::Transfer(Moved::Moved { bytes: 2 * MIB }));
        assert!(progress.status().starts_with("copy 25% 2.0 MiB/8.0 MiB"), "{}", progress.status());
    }

    #[test]
    fn the_rate_is_of_this_phase_and_of_what_it_moved() {
        let progress = plain();
        let began = Instant::now();
        progress.on(&forecast(8 * MIB));
        // Planning took ten minutes, which say nothing of the copy.
        let copying = began + Duration::from_secs(600);
        progress.counts.enter(Phase::Copy, copying);
        let digest = airlock_oci::Digest::of(b"there");
        progress.on(&Event::Transfer(Moved::Reused { digest, bytes: 4 * MIB }));
        assert!(!progress.status_at(copying).contains("eta"));
        progress.on(&Event::Transfer(Moved::Moved { bytes: 2 * MIB }));
        let status = progress.status_at(copying + Duration::from_secs(2));
        assert!(status.starts_with("copy 75% 6.0 MiB/8.0 MiB 1.0 MiB/s eta 2s ok=0 fail=0 10m"), "{status}");
    }

    #[test]
    fn an_image_fails_once_however_much_of_it_does() {
        let progress = plain();
        for job in [1, 1, 1, 0] {
            let error = airlock_oci::Error::new(airlock_oci::ErrorKind::Network, "pull", "gone");
            progress.told.store(MAX_TOLD + 1, Ordering::Relaxed);
            progress.on(&Event::Transfer(Moved::Failed { job, error }));
        }
        assert!(progress.status().contains("fail=2"), "{}", progress.status());
    }
}
