//! `WWW-Authenticate`.

use airlock_client::auth::challenge::{Challenge, parse};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "challenge",
    run,
    words: &[
        b"Bearer ",
        b"Basic ",
        b"Negotiate",
        b"Digest ",
        b"realm=",
        b"service=",
        b"scope=",
        b"\"https://a.example/token\"",
        b"\"repository:a/b:pull,push\"",
        b"error=\"insufficient_scope\"",
        b"\\\"",
        b"\"",
        b", ",
        b"==",
        b" = ",
        b"\xC3\xA4",
    ],
};

/// In the form of the standard: every value in quotes.
fn printed(challenges: &[Challenge]) -> String {
    let one = |challenge: &Challenge| {
        let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
        let params: Vec<String> =
            challenge.params.iter().map(|(name, value)| format!("{name}=\"{}\"", quoted(value))).collect();
        format!("{} {}", challenge.scheme, params.join(", "))
    };
    challenges.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn run(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let challenges = parse(&text);
    let mut bytes = 0;
    for challenge in &challenges {
        assert!(!challenge.scheme.is_empty() && challenge.scheme == challenge.scheme.to_ascii_lowercase());
        bytes += challenge.scheme.len() + challenge.params.iter().map(|(n, v)| n.len() + v.len()).sum::<usize>();
    }
    assert!(bytes <= text.len(), "nothing is invented");
    assert_eq!(parse(&printed(&challenges)), challenges, "printing and parsing");
    let params = challenges.iter().map(|c| c.params.len()).max().unwrap_or(0);
    let known = ["realm", "service", "scope"].map(|name| challenges.iter().any(|c| c.param(name).is_some()));
    let schemes = ["basic", "bearer"].map(|scheme| challenges.iter().any(|c| c.scheme == scheme));
    features.note((magnitude(challenges.len()), magnitude(params)));
    features.note((known, schemes));
    features.note(text.contains('\\'));
}
