//! The promise: a configuration that is wrong, or asks for what cannot be, is refused with its place before anything is fetched or
//! pushed.

mod support;

use airlock_testkit::binary::Outcome;
use airlock_testkit::scripted::Registry;
use support::{Gap, USAGE, parts, says};

/// Planning, writing and loading refuse alike, before a blob moves.
#[track_caller]
fn refused(gap: &Gap, isc: &str, words: &[&str]) {
    let target = Registry::start();
    let outcomes: [Outcome; 3] = [
        gap.binary.run(["plan", "-c", isc, "--tls-verify=false"]),
        gap.write(isc, &gap.archive(), &[]),
        gap.copy(isc, &target, &[]),
    ];
    for outcome in outcomes {
        says(&outcome.clone().expect_code(USAGE), words);
    }
    assert_eq!(gap.upstream.count("GET", "/v2/*/blobs/*"), 0, "blobs were fetched");
    assert_eq!(parts(&gap.archive()), Vec::<String>::new());
    assert!(target.content(|content| content.repositories().is_empty()));
}

#[test]
fn two_images_for_one_name_are_named_with_what_helps() {
    let gap = Gap::new();
    let host = gap.upstream.address();
    let isc = gap.config(&format!(
        "  additionalImages:\n    - name: {host}/team/good:v1\n      targetRepo: app\n    - name: {host}/team/bad:v1\n      targetRepo: app\n"
    ));
    let [good, bad] = ["good", "bad"].map(|name| format!("`{host}/team/{name}:v1` (isc.yaml:"));
    refused(&gap, &isc, &[&good, &bad, "isc.yaml:5", "isc.yaml:7", "`app:v1`", "`targetRepo`", "`targetTag`"]);
    // The same content twice is no contradiction, and the proposal helps.
    let isc = gap.config(&format!(
        "  additionalImages:\n    - name: {host}/team/good:v1\n      targetRepo: app\n    - name: {host}/team/good:v1\n      targetRepo: app\n    - name: {host}/team/bad:v1\n      targetRepo: app\n      targetTag: v2\n"
    ));
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
}

#[test]
fn names_that_clash_only_at_the_target_are_named_too() {
    let gap = Gap::new();
    gap.upstream.put("team/a-b", &gap.good, Some("v1"));
    gap.upstream.put("team/a/b", &gap.bad, Some("v1"));
    let isc = gap.isc(&["team/a-b:v1", "team/a/b:v1"]);
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    let target = Registry::start();
    for nested in ["2", "1"] {
        let more = ["--max-nested-paths", nested];
        let outcomes = [gap.copy(&isc, &target, &more), gap.load(&isc, &[&gap.archive()], &target, &more)];
        for outcome in outcomes {
            says(&outcome.expect_code(USAGE), &["team/a-b:v1", "team/a/b:v1", "targetRepo"]);
        }
    }
    assert!(target.content(|content| content.repositories().is_empty()));
}

#[test]
fn all_mistakes_are_shown_at_once_with_their_places() {
    let gap = Gap::new();
    let host = gap.upstream.address();
    let isc = gap.config(&format!(
        "  additionalImage:\n    - name: {host}/team/good:v1\n  additionalImages:\n    - nam: {host}/team/good:v1\n    - name: {host}/Team/Bad:v1\narchiveSize: none\n"
    ));
    refused(
        &gap,
        &isc,
        &[
            "isc.yaml:4:3",
            "additionalImage",
            "isc.yaml:7:7",
            "nam",
            "isc.yaml:8:",
            "Team/Bad",
            "isc.yaml:9:14",
            "none",
            "^",
        ],
    );
    assert_eq!(gap.upstream.log().len(), 0, "the network was asked about a wrong configuration");
}

#[test]
fn a_duplicate_key_and_broken_yaml_are_shown() {
    let gap = Gap::new();
    let host = gap.upstream.address();
    let isc =
        gap.config(&format!("  additionalImages:\n    - name: {host}/team/good:v1\n      name: {host}/team/bad:v1\n"));
    refused(&gap, &isc, &["isc.yaml:6:7", "name"]);
    let isc = gap.config("  additionalImages: [\n");
    refused(&gap, &isc, &["isc.yaml:"]);
    assert_eq!(gap.upstream.log().len(), 0);
}

#[test]
fn sections_of_a_later_version_are_refused_at_their_line() {
    let section = "mirror.helm";
    let text = "  helm:\n    repositories:\n      - name: charts\n        url: https://charts.example.com\n        charts:\n          - name: app\n";
    let gap = Gap::new();
    let isc = gap.config(&format!("{text}  additionalImages:\n    - name: {}/team/good:v1\n", gap.upstream.address()));
    refused(&gap, &isc, &[section, "not yet supported", "isc.yaml:", "hint: "]);
    assert_eq!(gap.upstream.log().len(), 0);
}

#[test]
fn an_empty_set_a_missing_file_and_contradicting_flags_are_refused() {
    let gap = Gap::new();
    let isc = gap.config("  additionalImages: []\n");
    refused(&gap, &isc, &["no images to copy"]);
    let absent = gap.folder("absent.yaml").display().to_string();
    says(&gap.write(&absent, &gap.archive(), &[]).expect_code(USAGE), &["absent.yaml"]);
    let isc = gap.both();
    let run = |arguments: &[&str]| gap.binary.run(["mirror", "-c", &isc].iter().chain(arguments)).expect_code(USAGE);
    says(&run(&["--from", "file://a", "file://b"]), &["--from is not needed", "hint: "]);
    says(&run(&["--workspace", "file://a", "file://b"]), &["--workspace is not needed", "hint: "]);
    says(&run(&["docker://127.0.0.1:1"]), &["--from", "--workspace", "hint: "]);
    says(&run(&["127.0.0.1:1"]), &["must begin with file:// or docker://", "hint: "]);
    says(&run(&["--from", "a", "docker://127.0.0.1:1"]), &["--from", "file://"]);
    assert_eq!(gap.upstream.log().len(), 0);
}

#[test]
fn a_folder_without_an_archive_is_named_and_not_made() {
    let gap = Gap::new();
    let isc = gap.both();
    let target = Registry::start();
    let folder = gap.folder("mistyped");
    let outcome = gap.load(&isc, &[&folder], &target, &[]);
    assert_ne!(outcome.code, Some(0));
    says(&outcome, &["no tar archives", &folder.display().to_string(), "hint: "]);
    assert!(!folder.exists(), "the folder was made");
    assert_eq!(target.log().len(), 0, "the target was asked");
    says(&gap.verify(&folder), &["no tar archives"]);
}
