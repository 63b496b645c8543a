//! What the registry did, as numbers in the text format of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::Method;

use crate::route::Route;

/// What requests are counted by.
const KINDS: [&str; 9] = ["base", "catalog", "tags", "manifest", "blob", "upload", "referrers", "none", "page"];
/// By what the page for people is counted.
pub(crate) const PAGE: usize = 8;
/// The upper ends of the times that are told apart (seconds).
const BUCKETS: [f64; 5] = [0.005, 0.05, 0.5, 5.0, 60.0];

/// The counters of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    kinds: [Kind; KINDS.len()],
    pub(crate) connections: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) refused_logins: AtomicU64,
}

#[derive(Debug, Default)]
struct Kind {
    /// Reading and writing, by the first digit of the status.
    answers: [[AtomicU64; 6]; 2],
    /// How many took at most so long, and all of them.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    microseconds: AtomicU64,
}

/// What the server knows at this moment.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) open_uploads: u64,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) writable: bool,
}

/// By what a request is counted; `None`: nothing is at its path.
pub(crate) fn kind(route: Option<&Route>) -> usize {
    match route {
        Some(Route::Base) => 0,
        Some(Route::Catalog) => 1,
        Some(Route::Tags(_)) => 2,
        Some(Route::Manifest(..)) => 3,
        Some(Route::Blob(..)) => 4,
        Some(Route::Uploads(_) | Route::Upload(..)) => 5,
        Some(Route::Referrers(..)) => 6,
        None => 7,
    }
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, kind: usize, method: &Method, status: u16, bytes: u64, took: Duration) {
        let kind = &self.kinds[kind.min(KINDS.len() - 1)];
        let writes = usize::from(method != Method::GET && method != Method::HEAD);
        kind.answers[writes][usize::from(status / 100).min(5)].fetch_add(1, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len());
        kind.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        kind.microseconds.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        if status == 401 {
            self.refused_logins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Everything as text.
    pub(crate) fn text(&self, gauges: &Gauges) -> String {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = write!(out, "# HELP airlock_registry_{name} {help}\n# TYPE airlock_registry_{name} {kind}\n");
        };
        head(&mut out, "requests_total", "counter", "Requests answered, by what was asked for.");
        for (kind, name) in self.kinds.iter().zip(KINDS) {
            for (answers, access) in kind.answers.iter().zip(["read", "write"]) {
                for (class, count) in answers.iter().enumerate().filter(|(_, count)| get(count) > 0) {
                    let count = get(count);
                    let _ = writeln!(
                        out,
                        "airlock_registry_requests_total{{kind=\"{name}\",access=\"{access}\",status=\"{class}xx\"}} {count}"
                    );
                }
            }
        }
        head(&mut out, "request_seconds", "histogram", "Time until the answer begins.");
        for (kind, name) in self.kinds.iter().zip(KINDS) {
            let mut sum = 0;
            for (bucket, end) in
                kind.buckets.iter().zip(BUCKETS.map(|end| end.to_string()).iter().chain([&"+Inf".into()]))
            {
                sum += get(bucket);
                let _ = writeln!(out, "airlock_registry_request_seconds_bucket{{kind=\"{name}\",le=\"{end}\"}} {sum}");
            }
            let seconds = get(&kind.microseconds) as f64 / 1e6;
            let _ = writeln!(out, "airlock_registry_request_seconds_sum{{kind=\"{name}\"}} {seconds}");
            let _ = writeln!(out, "airlock_registry_request_seconds_count{{kind=\"{name}\"}} {sum}");
        }
        for (name, kind, help, value) in [
            ("sent_bytes_total", "counter", "Bytes of bodies that were answered.", Some(get(&self.bytes_sent))),
            ("refused_logins_total", "counter", "Answers with status 401.", Some(get(&self.refused_logins))),
            ("connections", "gauge", "Connections that are open.", Some(get(&self.connections))),
            ("open_uploads", "gauge", "Upload sessions that are open.", Some(gauges.open_uploads)),
            ("free_bytes", "gauge", "Bytes that the storage's disk still takes.", gauges.free_bytes),
            ("writable", "gauge", "Whether pushes are taken.", Some(u64::from(gauges.writable))),
        ] {
            if let Some(value) = value {
                head(&mut out, name, kind, help);
                let _ = writeln!(out, "airlock_registry_{name} {value}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_kind_and_status() {
        let metrics = Metrics::default();
        metrics.answered(kind(Some(&Route::Base)), &Method::GET, 401, 10, Duration::from_millis(1));
        metrics.answered(kind(Some(&Route::Base)), &Method::GET, 200, 2, Duration::from_secs(100));
        metrics.answered(kind(None), &Method::PUT, 404, 0, Duration::from_millis(10));
        let text = metrics.text(&Gauges { open_uploads: 3, free_bytes: None, writable: true });
        for line in [
            "airlock_registry_requests_total{kind=\"base\",access=\"read\",status=\"4xx\"} 1",
            "airlock_registry_requests_total{kind=\"none\",access=\"write\",status=\"4xx\"} 1",
            "airlock_registry_request_seconds_bucket{kind=\"base\",le=\"0.005\"} 1",
            "airlock_registry_request_seconds_bucket{kind=\"base\",le=\"+Inf\"} 2",
            "airlock_registry_request_seconds_count{kind=\"base\"} 2",
            "airlock_registry_sent_bytes_total 12",
            "airlock_registry_refused_logins_total 1",
            "airlock_registry_open_uploads 3",
            "airlock_registry_writable 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("free_bytes"));
    }
}
