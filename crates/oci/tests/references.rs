//! References: upstream's vectors, IPv6, and print/parse as a property.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod vectors;

use airlock_oci::reference::{ParseError, is_short_name, parse_docker};
use airlock_oci::{Reference, Registry};
use serde_json::{Value, json};

fn observed(input: &str) -> Value {
    match parse_docker(input) {
        Err(error) => json!({ "error_class": error.class() }),
        Ok(name) => json!({
            "normalized": name.to_string(),
            "domain": name.domain().map_or("", Registry::as_str),
            "path": name.path().as_str(),
            "tag": name.tag().map(ToString::to_string),
            "digest": name.digest().map(ToString::to_string),
            "familiar": name.familiar(),
            "docker_ref": name.clone().pulled().to_string(),
            "is_short_name": is_short_name(input).unwrap(),
        }),
    }
}

#[test]
fn references_normalise_as_upstream() {
    let Some(folder) = vectors::folder("refs") else { return };
    let file = vectors::json(&folder.join("normalize.json"));
    let cases = file["cases"].as_array().unwrap();
    assert!(cases.len() > 50);
    for case in cases {
        let input = case["input"].as_str().unwrap();
        assert_eq!(observed(input), case["expected"], "{input}");
    }
}

#[test]
fn what_upstream_accepts_a_reference_accepts_alike() {
    let Some(folder) = vectors::folder("refs") else { return };
    for case in vectors::json(&folder.join("normalize.json"))["cases"].as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let ours = input.parse::<Reference>();
        match parse_docker(input) {
            Ok(name) if name.domain().is_some() => assert_eq!(ours.unwrap().to_string(), name.to_string()),
            // A first part that only looks like a host: upstream would complete it with search registries.
            Ok(_) => assert_eq!(ours, Err(ParseError::Format), "{input}"),
            Err(_) if input.starts_with("[::1]") => assert!(ours.is_ok()),
            Err(error) => assert_eq!(ours, Err(error), "{input}"),
        }
    }
}

#[test]
fn ipv6_hosts_are_taken_in_brackets() {
    for good in [
        "[::1]:5000/a/b:1",
        "[fd00::a]/a",
        "[2001:db8::1]:443/a@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        assert_eq!(good.parse::<Reference>().map(|r| r.to_string()).as_deref(), Ok(good));
        assert!(parse_docker(good).is_err());
    }
    for bad in ["[::1/a", "::1/a", "[::1]x/a", "[::1]:/a", "[::g]/a", "[]/a", "[::1]", "[1.2.3.4]/a", "[::1]:5000"] {
        assert_eq!(bad.parse::<Reference>(), Err(ParseError::Format), "{bad}");
    }
}

/// A small generator, so that a failure repeats: xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len())]
    }
}

#[test]
fn printing_and_parsing_a_reference_is_the_identity() {
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hosts =
        ["quay.io", "localhost", "localhost:5000", "127.0.0.1:1", "[::1]", "[fe80::2]:8443", "Quay.IO", "docker.io"];
    let parts = ["a", "b2", "x_y", "x__y", "x--y", "x.y", "library", "0"];
    let tags = ["", ":latest", ":_", ":v1.2-rc.1", ":A"];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..20_000 {
        let mut text = format!("{}/{}", random.pick(&hosts), random.pick(&parts));
        for _ in 0..random.next(4) + usize::from(text.starts_with("docker.io")) {
            text.push('/');
            text.push_str(random.pick(&parts));
        }
        text.push_str(random.pick(&tags));
        if random.next(2) == 0 {
            text.push_str("@sha256:");
            text.push_str(hex);
        }
        let parsed: Reference = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(parsed.to_string(), text);
        let json = serde_json::to_string(&parsed).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), parsed);
    }
}

#[test]
fn whatever_parses_prints_to_something_that_parses_to_itself() {
    let bits = [
        "a",
        "A",
        ".",
        "/",
        ":",
        "@",
        "-",
        "_",
        "sha256",
        "sha256:",
        "docker.io",
        "index.docker.io",
        "[::1]",
        "1",
        "é",
        "localhost",
        " ",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    let mut random = Random(42);
    let mut parsed = 0;
    for _ in 0..200_000 {
        let text: String = (0..=random.next(7)).map(|_| random.pick(&bits)).collect();
        if let Ok(reference) = text.parse::<Reference>() {
            parsed += 1;
            assert_eq!(reference.to_string().parse::<Reference>().as_ref(), Ok(&reference), "{text}");
        }
        if let Ok(name) = parse_docker(&text) {
            assert_eq!(
                parse_docker(&name.to_string()).ok().filter(|_| name.domain().is_some()),
                name.domain().map(|_| name.clone())
            );
        }
    }
    assert!(parsed > 5_000, "{parsed}");
}
