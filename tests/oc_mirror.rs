//! The promise: under the name `oc-mirror` the program behaves as scripts expect of it: flags, lines, folders and exit codes, and
//! nothing is sealed when something failed.

mod support;

use std::fs;
use std::path::Path;

use airlock_testkit::binary::Outcome;
use airlock_testkit::scripted::{Fault, Registry};
use support::{Gap, parts, said, says};

/// The kind of image that failed: additional ones.
const ADDITIONAL: i32 = 8;
const GENERIC: i32 = 1;
const NEITHER_V1_NOR_V2: i32 = 255;

fn run(gap: &Gap, arguments: &[&str]) -> Outcome {
    gap.binary.run_as("oc-mirror", arguments)
}

fn archive_of(gap: &Gap) -> String {
    format!("file://{}", gap.archive().display())
}

/// Registry to archive, with a short patience.
fn to_disk(gap: &Gap, isc: &str, more: &[&str]) -> Outcome {
    let to = archive_of(gap);
    let fixed = ["-c", isc, "--v2", "--src-tls-verify=false", "--retry-times", "1", "--retry-delay", "10ms", &to];
    run(gap, &[&fixed, more].concat())
}

fn from_disk(gap: &Gap, isc: &str, from: &str, target: &Registry) -> Outcome {
    let to = format!("docker://{}/ns", target.address());
    run(gap, &["-c", isc, "--v2", "--from", from, "--dest-tls-verify=false", &to])
}

/// The lines without their times and colours.
fn lines(outcome: &Outcome) -> Vec<String> {
    let line = |line: &str| {
        let (stamp, message) = line.split_once("  : ")?;
        let [date, time, level] = stamp.split(' ').collect::<Vec<_>>()[..] else { return None };
        let form = date.len() == 10 && date.matches('/').count() == 2 && time.matches(':').count() == 2;
        let level = level.split(['[', ']']).nth(2)?;
        (form && matches!(level, "INFO" | "WARN" | "ERROR" | "DEBUG")).then(|| format!("{level} {message}"))
    };
    said(outcome).lines().filter_map(line).collect()
}

#[track_caller]
fn has_lines(outcome: &Outcome, wanted: &[&str]) {
    let lines = lines(outcome);
    for wanted in wanted {
        assert!(lines.iter().any(|line| line.contains(wanted)), "no line has `{wanted}`:\n{}", said(outcome));
    }
}

#[test]
fn the_three_workflows_say_what_scripts_look_for() {
    let gap = Gap::new();
    let isc = gap.both();
    let common =
        ["images to copy 2", "=== Results ===", "2 / 2 additional images mirrored successfully", "mirror time     : "];
    let outcome = to_disk(&gap, &isc, &[]).expect_code(0);
    has_lines(&outcome, &common);
    has_lines(
        &outcome,
        &["workflow mode: mirrorToDisk", "Preparing the tarball archive...", "Start copying the images..."],
    );
    has_lines(&outcome, &[&format!("Success copying {}/team/good:v1", gap.upstream.address())]);
    assert!(!said(&outcome).contains("[ERROR]"), "{}", said(&outcome));
    // Lines go to stdout and to the log once the log is open, as there.
    assert!(outcome.stdout.contains("workflow mode: mirrorToDisk"));
    let logs: Vec<_> = fs::read_dir(gap.archive().join("working-dir/logs")).expect("there are logs").collect();
    assert_eq!(logs.len(), 1);
    assert_eq!(parts(&gap.archive()), ["mirror_000001.tar"]);

    let target = Registry::start();
    let outcome = from_disk(&gap, &isc, &archive_of(&gap), &target).expect_code(0);
    has_lines(&outcome, &common);
    has_lines(&outcome, &["workflow mode: diskToMirror", "-oc-mirror.yaml file created"]);
    assert!(target.has("ns/team/good", &gap.good) && target.has("ns/team/bad", &gap.bad));
    let resources = gap.archive().join("working-dir/cluster-resources");
    assert!(fs::read_dir(resources).expect("there are resources").count() > 0);

    let target = Registry::start();
    let workspace = format!("file://{}", gap.folder("workspace").display());
    let to = format!("docker://{}", target.address());
    let arguments =
        ["-c", &isc, "--v2", "--workspace", &workspace, "--src-tls-verify=false", "--dest-tls-verify=false", &to];
    let outcome = run(&gap, &arguments).expect_code(0);
    has_lines(&outcome, &common);
    has_lines(&outcome, &["workflow mode: mirrorToMirror"]);
    gap.has_both(&target);
}

#[test]
fn nothing_is_sealed_on_failure_and_the_code_says_which_kind_failed() {
    for (fault, counted) in [
        // While copying.
        (Fault::on("GET", "/v2/team/bad/blobs/*").status(404), "images to copy 2"),
        // While collecting.
        (Fault::on("*", "/v2/team/bad/manifests/*").status(404), "404"),
    ] {
        let gap = Gap::new();
        let isc = gap.both();
        gap.upstream.fault(fault);
        let outcome = to_disk(&gap, &isc, &[]).expect_code(ADDITIONAL);
        assert_eq!(parts(&gap.archive()), Vec::<String>::new(), "something was sealed");
        has_lines(
            &outcome,
            &[counted, "1 / 2 additional images mirrored: Some additional images failed to be mirrored"],
        );
        assert!(lines(&outcome).iter().any(|line| line.starts_with("ERROR") && line.contains("team/bad:v1")));
        let logs = gap.archive().join("working-dir/logs");
        let names: Vec<String> = fs::read_dir(&logs)
            .expect("there are logs")
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        let errors =
            names.iter().find(|name| name.starts_with("mirroring_errors_")).expect("there is a list of errors");
        let text = fs::read_to_string(logs.join(errors)).expect("read the list of errors");
        assert!(text.contains("team/bad:v1"), "{text}");

        gap.upstream.heal();
        let outcome = to_disk(&gap, &isc, &[]).expect_code(0);
        has_lines(&outcome, &["2 / 2 additional images mirrored successfully"]);
        gap.is_complete(&isc, &gap.archive());
    }
}

#[test]
fn a_failing_target_has_the_same_code() {
    let gap = Gap::new();
    let isc = gap.both();
    to_disk(&gap, &isc, &[]).expect_code(0);
    let target = Registry::start();
    target.fault(Fault::on("PUT", "/v2/ns/team/bad/manifests/*").status(400));
    let outcome = from_disk(&gap, &isc, &archive_of(&gap), &target).expect_code(ADDITIONAL);
    has_lines(&outcome, &["1 / 2 additional images mirrored: Some additional images failed"]);
    target.heal();
    from_disk(&gap, &isc, &archive_of(&gap), &target).expect_code(0);
    assert!(target.has("ns/team/bad", &gap.bad));
}

#[test]
fn the_version_must_be_chosen() {
    let gap = Gap::new();
    let isc = gap.both();
    let outcome = run(&gap, &["-c", &isc, &archive_of(&gap)]).expect_code(NEITHER_V1_NOR_V2);
    says(&outcome, &["--v1", "--v2"]);
    run(&gap, &["version"]).expect_code(0);
    assert!(run(&gap, &["version"]).stdout.starts_with("Client Version: "));
    assert_eq!(gap.upstream.log().len(), 0);
}

#[test]
fn flags_that_contradict_one_another_are_refused() {
    let gap = Gap::new();
    let isc = gap.both();
    let cases: [(&[&str], &str); 15] = [
        (&["file://a", "--v2"], "--config flag is mandatory"),
        (&["-c", &isc, "--v2", "--from", "file://b", "file://a"], "--from is not needed"),
        (&["-c", &isc, "--v2", "--workspace", "file://b", "file://a"], "--workspace is not needed"),
        (
            &["-c", &isc, "--v2", "--from", "file://a", "--workspace", "file://b", "docker://h"],
            "cannot be used together",
        ),
        (&["-c", &isc, "--v2", "docker://h"], "either --from or --workspace"),
        (&["-c", &isc, "--v2", "oci://a"], "must have either file:// or docker:// protocol prefixes"),
        (&["-c", &isc, "--v2", "--from", "a", "docker://h"], "file:// prefix"),
        (&["-c", &isc, "--v2", "--workspace", "a", "docker://h"], "file:// prefix"),
        (&["-c", &isc, "--v2", "--since", "yesterday", "file://a"], "yyyy-MM-dd"),
        (&["-c", &isc, "--v2", "--dry-run", "--dry-run-manifest-lists", "file://a"], "cannot be used together"),
        (&["-c", &isc, "--v2", "--parallel-images", "0", "file://a"], "parallel-images"),
        (&["-c", &isc, "--v2", "--parallel-images", "11", "file://a"], "parallel-images"),
        (&["-c", &isc, "--v2", "--parallel-layers", "11", "file://a"], "parallel-layers"),
        (&["-c", &isc, "--v2", "--log-level", "loud", "file://a"], "invalid log-level"),
        (&["-c", &isc, "--v2", "--no-such-flag", "file://a"], "--no-such-flag"),
    ];
    for (arguments, words) in cases {
        let outcome = run(&gap, arguments);
        assert_eq!(outcome.code, Some(GENERIC), "{arguments:?}\n{}", said(&outcome));
        assert!(said(&outcome).contains(words), "{arguments:?} does not say `{words}`:\n{}", said(&outcome));
    }
    assert_eq!(gap.upstream.log().len(), 0, "the network was asked");
    assert!(!gap.folder("a").exists(), "a folder was made");
    // What is not needed is accepted, and said.
    let outcome = to_disk(&gap, &isc, &["--cache-dir", "x", "-p", "55001"]).expect_code(0);
    has_lines(&outcome, &["--cache-dir is not needed", "--port is not needed"]);
}

#[test]
fn paths_that_contain_internal_words_are_no_error_here() {
    let gap = Gap::new();
    let isc = gap.both();
    let to = format!("file://{}", gap.folder("helm/logs").display());
    run(&gap, &["-c", &isc, "--v2", "--src-tls-verify=false", &to]).expect_code(0);
}

#[test]
fn archives_that_are_none_are_named_as_there() {
    let gap = Gap::new();
    let isc = gap.both();
    let target = Registry::start();
    let folder = gap.folder("empty");
    fs::create_dir(&folder).expect("create a folder");
    let from = format!("file://{}", folder.display());
    let outcome = from_disk(&gap, &isc, &from, &target).expect_code(GENERIC);
    says(&outcome, &[r#"no tar archives matching "mirror_[0-9]{6}\.tar""#, &folder.display().to_string()]);
    fs::write(folder.join("mirror_000001.tar"), b"").expect("write an empty archive");
    let outcome = from_disk(&gap, &isc, &from, &target).expect_code(GENERIC);
    says(&outcome, &["empty archive file", "mirror_000001.tar"]);
    assert_eq!(target.log().len(), 0, "the target was asked");
    let absent = from_disk(&gap, &isc, "file:///nowhere/at/all", &target).expect_code(GENERIC);
    says(&absent, &["/nowhere/at/all"]);
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn a_dry_run_writes_the_mapping_and_moves_nothing() {
    let gap = Gap::new();
    let isc = gap.both();
    let outcome = to_disk(&gap, &isc, &["--dry-run"]).expect_code(0);
    let mapping =
        fs::read_to_string(gap.archive().join("working-dir/dry-run/mapping.txt")).expect("there is a mapping");
    let host = gap.upstream.address();
    for name in ["good", "bad"] {
        assert!(mapping.contains(&format!("docker://{host}/team/{name}")), "{mapping}");
    }
    assert_eq!(parts(&gap.archive()), Vec::<String>::new());
    assert_eq!(gap.upstream.count("GET", "/v2/*/blobs/*"), 0);
    has_lines(&outcome, &["workflow mode: mirrorToDisk"]);
}
