//! The promise: releases, channels and the ways between them are found from the update graph, under both names of the program, and what cannot
//! be found is told with its reason.

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};
use serde_json::Value;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NETWORK: i32 = 7;

fn begin() -> Option<(Upstream, Binary)> {
    let upstream = World::get(Scale::Small)?.start(Serving::Scripted(Faults::default()))?;
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    Some((upstream, binary))
}

#[track_caller]
fn json(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

fn lines(outcome: &Outcome) -> Vec<&str> {
    outcome.stdout.lines().collect()
}

#[test]
fn releases_channels_and_minor_versions_are_listed() {
    let Some((_upstream, airlock)) = begin() else { return };
    let listed = airlock.run(["release", "list", "--version", "4.18"]).expect_code(0);
    let lines_of = lines(&listed);
    assert_eq!(lines_of[0].split_whitespace().collect::<Vec<_>>(), ["VERSION", "ARCHITECTURE", "PAYLOAD", "ERRATA"]);
    assert!(lines_of[1..].iter().all(|line| line.starts_with("4.18.")), "{listed:?}");

    let listed = json(
        &airlock
            .run(["release", "list", "--channel", "stable-4.18", "--arch", "amd64,multi", "-o", "json"])
            .expect_code(0),
    );
    let of = |number: usize| listed[number]["releases"].as_array().cloned().unwrap_or_default();
    assert_eq!(
        (listed[0]["architecture"].as_str(), listed[1]["architecture"].as_str()),
        (Some("amd64"), Some("multi"))
    );
    let last = of(0).pop().unwrap_or_default();
    assert_eq!(last["version"], "4.18.27");
    assert!(last["payload"].as_str().is_some_and(|p| p.contains("ocp-release@sha256:")), "{last}");
    assert!(last["channels"].as_array().is_some_and(|c| c.contains(&"stable-4.18".into())), "{last}");
    // The older minor versions, from which a cluster comes, are in the channel too.
    assert!(of(0).iter().any(|release| release["version"].as_str().is_some_and(|v| v.starts_with("4.17."))));
    let again = airlock.run(["updates", "show", "--channel", "stable-4.18", "--arch", "amd64,multi", "-o", "json"]);
    assert_eq!(json(&again), listed);

    let channels = airlock.run(["release", "list", "--version", "4.18", "--channels"]).expect_code(0);
    assert_eq!(lines(&channels), ["candidate-4.18", "eus-4.18", "fast-4.18", "stable-4.18"]);

    let minors = airlock.run(["release", "list"]).expect_code(0);
    assert_eq!(lines(&minors), ["4.16", "4.17", "4.18"]);
    let held = json(
        &airlock
            .run([
                "release",
                "list",
                "docker://quay.io/openshift-release-dev/ocp-release",
                "--version",
                "4.18",
                "--arch",
                "arm64",
                "-o",
                "json",
            ])
            .expect_code(0),
    );
    assert!(held.as_array().is_some_and(|all| !all.is_empty()), "{held}");
    for release in held.as_array().into_iter().flatten() {
        assert!(release["reference"].as_str().is_some_and(|r| r.ends_with("-aarch64")), "{release}");
    }
}

#[test]
fn a_way_is_shown_with_its_risks() {
    let Some((_upstream, airlock)) = begin() else { return };
    let way = json(&airlock.run(["release", "path", "4.16.21", "4.18.27", "-o", "json"]).expect_code(0));
    let hops = way["hops"].as_array().cloned().unwrap_or_default();
    assert_eq!(hops.len(), 2, "{way}");
    assert_eq!((&hops[0]["to"], &hops[1]["from"]), (&"4.17.37".into(), &"4.17.37".into()));
    assert_eq!(way["channels"], serde_json::json!(["stable-4.17", "stable-4.18"]));

    // Every update into 4.18.6 is conditional.
    let risky = airlock.run(["updates", "path", "4.17.10", "4.18.6", "--channel", "stable-4.18"]).expect_code(0);
    let told = lines(&risky);
    assert_eq!(told[0].split_whitespace().collect::<Vec<_>>(), ["FROM", "TO", "RISKS"]);
    assert!(told[1].starts_with("4.17.10  4.18.6"), "{risky:?}");
    assert!(!told[1].contains("none known"), "{risky:?}");
    assert!(risky.stdout.contains("https://"), "where more is said: {risky:?}");
    let refused = airlock.run(["release", "path", "4.17.10", "4.18.6", "--channel", "stable-4.18", "--no-risks"]);
    let refused = refused.expect_code(FAILED);
    assert!(refused.stderr.contains("no updates lead there") && refused.stderr.contains("--no-risks"), "{refused:?}");

    let same = airlock.run(["release", "path", "4.18.6", "4.18.6"]).expect_code(0);
    assert!(same.stdout.contains("4.18.6"), "{same:?}");
}

#[test]
fn what_cannot_be_found_says_why() {
    let Some((_upstream, airlock)) = begin() else { return };
    for (arguments, code, said) in [
        (&["release", "path", "4.17.5", "4.17.10"][..], FAILED, "4.17.5 is not in stable-4.17"),
        (&["release", "path", "4.18.6", "4.17.10"], USAGE, "no update leads to an older release"),
        (&["release", "path", "4.18", "4.18.6"], USAGE, "three numbers are needed"),
        (&["release", "list", "--channel", "stabel-4.18"], FAILED, "knows none"),
        (&["release", "list", "--channel", "Stable-4.18"], USAGE, "is no name of a channel"),
        (&["release", "list", "--version", "4.18", "--arch", "arrgh64"], USAGE, "there are amd64, arm64"),
        (&["release", "list", "--channels"], USAGE, "a version or a channel is needed"),
    ] {
        let outcome = airlock.run(arguments).expect_code(code);
        assert!(outcome.stderr.contains(said), "{arguments:?}: {outcome:?}");
        assert!(outcome.stdout.is_empty(), "{arguments:?}: {outcome:?}");
    }
    let nobody = Binary::new(AIRLOCK).env("UPDATE_URL_OVERRIDE", "http://127.0.0.1:1/graph");
    let outcome = nobody.run(["release", "list", "--channel", "stable-4.18"]).expect_code(NETWORK);
    assert!(outcome.stderr.contains("127.0.0.1:1"), "{outcome:?}");
}

#[test]
fn under_the_other_name_the_lines_are_those_that_scripts_know() {
    let Some((_upstream, airlock)) = begin() else { return };
    let run = |arguments: &[&str]| airlock.run_as("oc-mirror", arguments);
    let listed = run(&["list", "releases", "--version", "4.18", "--v2"]).expect_code(0);
    let told = lines(&listed);
    assert_eq!(told[0], "Listing stable channels. Use --channel=<channel-name> to filter.");
    assert_eq!(told[2..5], ["", "Channel: stable-4.18", "Architecture: amd64"]);
    assert!(told[4..].contains(&"4.18.27") && told.last() == Some(&"4.18.27"), "{listed:?}");

    let both = run(&["--v2", "list", "releases", "--channel", "candidate-4.18", "--filter-by-archs", "amd64,multi"]);
    let both = both.expect_code(0);
    assert_eq!(lines(&both)[..2], ["Channel: candidate-4.18", "Architecture: amd64"]);
    assert!(lines(&both).contains(&"Architecture: multi") && lines(&both).contains(&"4.18.0-rc.10"), "{both:?}");

    let channels = run(&["list", "releases", "--channels", "--version=4.18"]).expect_code(0);
    assert_eq!(lines(&channels)[..2], ["Listing channels for version 4.18:", ""]);
    assert!(lines(&channels)[2..].contains(&"stable-4.18"), "{channels:?}");

    let versions = run(&["list", "releases"]).expect_code(0);
    assert_eq!(
        lines(&versions),
        ["Available OpenShift Container Platform release versions:", "  4.16", "  4.17", "  4.18"]
    );
    for (arguments, said) in [
        (&["list", "releases", "--channels"][..], "must specify --version"),
        (&["list", "releases", "--version", "4.18", "--filter-by-archs", "sparc"], "amd64, arm64, ppc64le, s390x"),
        (&["list", "releases", "--version", "4.99"], "knows none"),
        (&["list", "nonsense"], "nonsense"),
    ] {
        let outcome = run(arguments).expect_code(FAILED);
        assert!(outcome.stderr.contains(said), "{arguments:?}: {outcome:?}");
    }
}
