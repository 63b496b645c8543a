//! The configuration: a table for every rule of the format, messages with their places, the world's image sets, robustness.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::format_collect, reason = "test data, built once")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

mod kinds;
mod robust;
mod schema;
mod sections;

use airlock_mirror::config::{
    self, ApiVersion, ImageLocation, ImageSetConfiguration, Loaded, Problem, Problems, ReleaseKind, Severity, code,
};
use airlock_oci::Platform;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A file with this text below `mirror:`, which is indented by two.
fn isc(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    format!("kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n{body}")
}

fn v1(body: &str) -> String {
    isc(body).replace("v2alpha1", "v1alpha2")
}

fn good(text: &str) -> Loaded {
    config::parse("isc.yaml", text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn bad(text: &str) -> Problems {
    match config::parse("isc.yaml", text) {
        Err(problems) => problems,
        Ok(loaded) => panic!("accepted: {text}\n{:?}", loaded.config),
    }
}

/// The only error of a text.
fn one(text: &str) -> Problem {
    let errors: Vec<Problem> = bad(text).problems.0.into_iter().filter(|p| p.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    errors.into_iter().next().unwrap()
}

/// (text, code, part of the message, (line, column), part of the hint)
type Case<'a> = (String, &'a str, &'a str, (u32, u32), &'a str);

fn check(cases: &[Case<'_>]) {
    for (text, code, message, place, hint) in cases {
        let problem = one(text);
        assert_eq!(problem.code, *code, "{text}\n{problem}");
        assert!(problem.message.contains(message), "{text}\n{problem}");
        assert_eq!((problem.line, problem.column), *place, "{text}\n{problem}");
        assert!(problem.hint.clone().unwrap_or_default().contains(hint), "{text}\n{problem}");
        assert!(problem.to_string().contains(&format!("--> isc.yaml:{}:{}", place.0, place.1)));
    }
}
