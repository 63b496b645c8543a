//! The promise: what is printed can be relied upon. Errors come whatever was asked for, events are JSON and nothing else, commands work
//! as they are printed, and every failure names who really was asked.

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use airlock_testkit::binary::Outcome;
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Fault, Registry};
use serde_json::Value;
use support::{FAILED, GOOD, Gap, LARGE, NETWORK, PARTIAL, USAGE, report, report_path, said, says};

/// Both images, and one that is not there.
fn with_a_missing_one(gap: &Gap) -> String {
    gap.isc(&["team/good:v1", "team/bad:v1", "team/gone:v1"])
}

/// The events; every line is one.
#[track_caller]
fn events(outcome: &Outcome) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("`{line}` is no JSON: {e}"));
    outcome.stderr.lines().map(parse).collect()
}

#[track_caller]
fn has_event(events: &[Value], name: &str) -> Value {
    let found = events.iter().find(|event| event["event"] == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {events:?}")).clone()
}

#[test]
fn quiet_hides_all_but_errors() {
    let gap = Gap::new();
    let isc = with_a_missing_one(&gap);
    let outcome = gap.write(&isc, &gap.archive(), &["-q"]).expect_code(PARTIAL);
    assert!(outcome.stderr.contains("error: `") && outcome.stderr.contains("team/gone:v1"), "{}", outcome.stderr);
    assert!(!outcome.stderr.contains("partial:") && !outcome.stderr.contains("next:"), "{}", outcome.stderr);

    let whole = gap.both();
    let plan = gap.binary.run(["-q", "plan", "-c", &whole, "--tls-verify=false"]).expect_code(0);
    assert_eq!(plan.stderr, "");
    let target = Registry::start();
    gap.copy(&whole, &target, &["-q"]).expect_code(0);
    let to = format!("docker://{}", target.address());
    let verify = gap.binary.run(["-q", "verify", "-c", &whole, &to, "--tls-verify=false"]).expect_code(0);
    assert_eq!(verify.stderr, "");
}

#[test]
fn with_json_there_are_only_events_and_the_last_says_how_it_ended() {
    let gap = Gap::new();
    let isc = with_a_missing_one(&gap);
    let told = events(&gap.write(&isc, &gap.archive(), &["--progress", "json"]).expect_code(PARTIAL));
    for name in ["phase", "forecast", "wrote", "summary", "error", "next"] {
        has_event(&told, name);
    }
    assert_eq!(has_event(&told, "summary")["status"], "partial");
    let done = has_event(&told, "done");
    assert!(done["name"].as_str().is_some_and(|name| name.contains("team/")), "{done}");
    let end = told.last().expect("there are events");
    assert_eq!((&end["event"], &end["status"], &end["exit"]), (&"end".into(), &"partial".into(), &PARTIAL.into()));

    let told = events(&gap.binary.run(["--progress", "json", "plan", "-c", &isc, "--tls-verify=false"]));
    assert_eq!(told.last().expect("there are events")["status"], "partial");
    // A run that ends before there is a plan.
    let told = events(&gap.binary.run(["--progress", "json", "plan", "-c", "nowhere.yaml"]));
    has_event(&told, "error");
    assert_eq!(told.last().expect("there are events")["status"], "failed");

    let quick = gap.binary.run(["--progress", "json", "quickstart"]).expect_code(0);
    let told = events(&quick);
    has_event(&told, "summary");
    assert_eq!(told.last().expect("there are events")["status"], "complete");
}

#[test]
fn the_command_that_is_printed_finishes_the_run() {
    let gap = Gap::new();
    let isc = with_a_missing_one(&gap);
    let folder = gap.folder("my disk");
    let auth = gap.folder("my auth.json");
    fs::write(&auth, "{}").expect("write the credentials");
    let outcome = gap.write(&isc, &folder, &["--authfile", &auth.display().to_string(), "--src-creds", "me:secret"]);
    let outcome = outcome.expect_code(PARTIAL);
    assert!(!outcome.stderr.contains("secret"), "{}", outcome.stderr);
    let retry = outcome.stderr.lines().find_map(|line| line.split_once("airlock mirror --retry")).expect("a command").1;
    let wanted = format!(
        " '{}' --authfile '{}' --tls-verify=false --src-creds USER:PASSWORD",
        report_path(&folder).display(),
        auth.display()
    );
    assert_eq!(retry, wanted);
    // A shell takes it apart as it was meant.
    let words = Command::new("sh").arg("-c").arg(format!("printf '%s\\n' {retry}")).output().expect("run a shell");
    let words = String::from_utf8(words.stdout).expect("it is text");
    assert_eq!(words.lines().next(), Some(report_path(&folder).display().to_string().as_str()));
    let carry = outcome.stderr.lines().find(|line| line.contains("--from")).expect("what to do on the other side");
    assert!(carry.contains(&format!("--from 'file://{}'", folder.display())), "{carry}");
}

#[test]
fn what_an_archive_holds_and_a_load_leaves_is_told() {
    let gap = Gap::new();
    let attestation = format!("{}.att", gap.good.digest().fallback_tag());
    gap.upstream.put(GOOD, &fixture::image(7).build(), Some(&attestation));
    let whole = gap.both();
    let outcome = gap.write(&whole, &gap.archive(), &["--attachments", "all"]).expect_code(0);
    let carry = outcome.stderr.lines().find(|line| line.contains("--from")).expect("what to do on the other side");
    assert!(carry.contains("--attachments all docker://"), "{carry}");

    let target = Registry::start();
    let (from, to) = (format!("file://{}", gap.archive().display()), format!("docker://{}", target.address()));
    let load = |isc: &str, more: &[&str]| {
        let flags = ["mirror", "-c", isc, "--from", &from, "--dest-tls-verify=false", &to];
        gap.binary.run(flags.iter().chain(more)).expect_code(0).stderr
    };
    let told = load(&whole, &["--attachments", "all"]);
    assert!(!told.contains("more than this configuration"), "{told}");
    let told = load(&whole, &[]);
    assert!(told.contains("holds 0 images and 1 signatures, attestations or SBOMs more"), "{told}");
    let told = load(&gap.isc(&["team/good:v1"]), &[]);
    assert!(told.contains("holds 1 images (") && told.contains("team/bad"), "{told}");
}

#[test]
fn flags_that_say_nothing_here_are_told() {
    let gap = Gap::new();
    let isc = gap.both();
    let idle = ["--target-version", "4.18", "--max-nested-paths", "2", "--verify", "quick"];
    let outcome = gap.write(&isc, &gap.archive(), &idle).expect_code(0);
    says(&outcome, &["--target-version has no effect", "--max-nested-paths has no effect", "--verify has no effect"]);
    let target = Registry::start();
    let outcome = gap.load(&isc, &[&gap.archive()], &target, &["--since", "2026-02-28", "--replace"]).expect_code(0);
    says(&outcome, &["--since has no effect", "--replace has no effect"]);
    let wrong = gap.write(&isc, &gap.archive(), &["--since", "2026-02-30"]).expect_code(USAGE);
    says(&wrong, &["is not a date"]);
    says(&gap.write(&isc, &gap.archive(), &["--src-cert-dir", "nowhere"]).expect_code(USAGE), &["is not there"]);
    let blocked = "  additionalImages:\n    - name: r.io/a/b:v1\n  blockedImages:\n    - name: r.io\n";
    says(&gap.write(&gap.config(blocked), &gap.archive(), &[]), &["`blockedImages` leaves nothing"]);
}

#[test]
fn transports_of_other_tools_are_no_images_of_docker_hub() {
    let gap = Gap::new();
    for name in
        ["dir:foo", "oci-archive:foo.tar", "docker-archive:foo.tar", "containers-storage:x", "docker-daemon:x:1"]
    {
        let outcome = gap.binary.run(["image", "digest", name]).expect_code(USAGE);
        says(&outcome, &["is not supported", "docker:// and oci: are"]);
        let config = gap.config(&format!("  additionalImages:\n    - name: {name}\n"));
        says(&gap.binary.run(["plan", "-c", &config]).expect_code(USAGE), &["is not supported", "oci://"]);
    }
    let config = gap.config("  additionalImages:\n    - name: oci:lay\n");
    says(
        &gap.binary.run(["plan", "-c", &config]).expect_code(USAGE),
        &["the transport `oci` is not supported", "oci://DIR"],
    );
}

#[test]
fn the_host_that_was_asked_is_named() {
    let gap = Gap::new();
    let conf = gap.folder("registries.conf");
    let text = format!(
        "[[registry]]\nprefix = \"written.example.com\"\nlocation = \"{}\"\ninsecure = true\n",
        gap.upstream.address()
    );
    fs::write(&conf, text).expect("write registries.conf");
    let conf = conf.display().to_string();
    let asked = ["image", "digest", "docker://written.example.com/team/gone:v1", "--registries-conf", &conf];
    says(&gap.binary.run(asked).expect_code(FAILED), &["written.example.com", &gap.upstream.address()]);

    // Bytes that are wrong say of which image they are, and whose.
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).wrong_bytes());
    let isc = gap.config("  additionalImages:\n    - name: written.example.com/team/bad:v1\n");
    let outcome = gap.write(&isc, &gap.archive(), &["--registries-conf", &conf]);
    let host = gap.upstream.address();
    says(&outcome, &["written.example.com/team/bad", &format!("from `{host}/team/bad`"), &gap.large()]);
}

#[test]
fn a_plan_ends_as_its_run_would() {
    let gap = Gap::new();
    let plan = |isc: &str| gap.binary.run(["plan", "-c", isc, "--tls-verify=false", "--retry-times", "0"]);
    plan(&with_a_missing_one(&gap)).expect_code(PARTIAL);
    plan(&gap.isc(&["team/gone:v1"])).expect_code(FAILED);
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    plan(&gap.config(&format!("  additionalImages:\n    - name: {free}/a/b:v1\n"))).expect_code(NETWORK);
}

#[test]
fn tags_that_no_icsp_serves_are_told() {
    let gap = Gap::new();
    let target = Registry::start();
    let outcome = gap.copy(&gap.both(), &target, &["--target-version", "4.12"]).expect_code(0);
    says(&outcome, &["ImageContentSourcePolicy serves digests only", &format!("{}/team", gap.upstream.address())]);
}

#[test]
fn bytes_that_were_there_did_not_move() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).reset_after(LARGE / 2));
    let to = format!("file://{}", gap.archive().display());
    // Under this name nothing is sealed that lacks something, so the beginning of the layer stays where it is.
    let run = || {
        let words = ["-c", &isc, "--v2", "--src-tls-verify=false", "--retry-times", "0", &to];
        gap.binary.run_as("oc-mirror", words)
    };
    run().expect_code(8);
    gap.upstream.heal();
    run().expect_code(0);
    let bytes = report(&gap.archive())["bytes"].clone();
    let (moved, reused) = (bytes["moved"].as_u64().expect("moved"), bytes["reused"].as_u64().expect("reused"));
    assert!(moved < LARGE as u64 && reused > LARGE as u64 / 4, "{bytes}");
    // With nothing left to do, nothing was interrupted.
    let again = gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    assert!(!said(&again).contains("interrupted") && said(&again).contains("here already"), "{}", said(&again));
    assert_eq!(report(&gap.archive())["bytes"]["moved"], 0);
}

#[test]
fn layouts_and_tags() {
    let gap = Gap::new();
    let (upstream, target) = (gap.upstream.address(), Registry::start());
    let copy = |from: &str, to: &str| gap.binary.run(["image", "copy", from, to, "--tls-verify=false"]);
    for (image, tag) in [("good", "v1"), ("bad", "v2")] {
        copy(&format!("docker://{upstream}/team/{image}:v1"), &format!("oci:lay:{tag}")).expect_code(0);
    }
    assert_eq!(gap.binary.run(["image", "tags", "oci:lay"]).expect_code(0).stdout, "v1\nv2\n");
    let digest = gap.good.digest().to_string();
    for (from, to) in [("oci:lay:v1".to_owned(), "s2"), (format!("docker://{upstream}/{GOOD}:v1"), "b")] {
        copy(&from, &format!("docker://{}/{to}", target.address())).expect_code(0);
        let name = format!("docker://{}/{to}:latest", target.address());
        let found = gap.binary.run(["image", "digest", &name, "--tls-verify=false"]).expect_code(0).stdout;
        assert_eq!(found.trim(), digest);
    }
    // One of several in an image set.
    let lay = gap.folder("lay");
    let isc =
        gap.config(&format!("  additionalImages:\n    - name: oci://{}:v2\n      targetRepo: lay\n", lay.display()));
    gap.copy(&isc, &target, &[]).expect_code(0);
    assert_eq!(
        target.content(|c| c.manifest("lay", "v2").map(|m| m.digest().to_string())),
        Some(gap.bad.digest().to_string())
    );
    let isc =
        gap.config(&format!("  additionalImages:\n    - name: oci://{}:v3\n      targetRepo: lay\n", lay.display()));
    says(&gap.copy(&isc, &target, &[]), &["find `v3` in OCI layout", "`v1`, `v2`"]);
}

#[test]
fn under_the_other_name_nothing_is_silent_for_long() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).stall_after(1000, Duration::from_secs(7)));
    let to = format!("file://{}", gap.archive().display());
    let outcome = gap.binary.run_as("oc-mirror", ["-c", &isc, "--v2=true", "--src-tls-verify=0", &to]).expect_code(0);
    let at = |words: &str| outcome.stdout.find(words).unwrap_or_else(|| panic!("no `{words}` in {}", outcome.stdout));
    // The good image ends while the other is stuck, and is told then.
    assert!(at("team/good:v1 ") < at("⏳ copy ") && at("⏳ copy ") < at("team/bad:v1 "), "{}", outcome.stdout);
    for words in ["Pinned ISC written to", "Pinned DISC written to"] {
        let path = outcome.stdout[at(words) + words.len()..].lines().next().expect("a path").trim();
        assert!(fs::read_to_string(path).is_ok_and(|text| text.contains("team/bad:v1")), "{path}");
    }
}

#[test]
fn under_the_other_name_flags_may_stand_before_the_verb() {
    let gap = Gap::new();
    let run = |words: &[&str]| gap.binary.run_as("oc-mirror", words);
    assert!(run(&["--v2", "version"]).expect_code(0).stdout.starts_with("Client Version: "));
    let version = run(&["version", "--output", "json"]).expect_code(0);
    let version: Value = serde_json::from_str(&version.stdout).expect("it is JSON");
    assert!(version["clientVersion"]["gitVersion"].is_string(), "{version}");
    assert!(run(&["version", "--output=yaml"]).expect_code(0).stdout.contains("gitVersion:"));
    says(&run(&["help"]).expect_code(0), &["Workflows:"]);
    let isc = gap.both();
    let to = format!("file://{}", gap.archive().display());
    let words =
        ["-c", &isc, "--v2", "--src-tls-verify=false", "--dry-run=t", "--dest-compress", "--src-daemon-host=x", &to];
    says(&run(&words).expect_code(0), &["--dest-compress has no effect", "--src-daemon-host has no effect"]);
}
