//! The promise: a run that is stopped by hand keeps what it has and says how to go on, the next one goes on there, and two runs never write
//! into one directory.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use airlock_testkit::binary::Started;
use airlock_testkit::scripted::{Fault, Registry};
use support::{BAD, DAMAGED, GOOD, Gap, INTERRUPTED, PARTIAL, REFUSED, leftovers, part, parts, pushes, says};

/// For what must happen, on the busiest machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What nobody waits for: much longer than the patience, so that a run that does fails.
const STALL: Duration = Duration::from_secs(300);

fn signal(started: &Started, name: &str) {
    let sent = Command::new("kill").args([name, &started.id().to_string()]).status().expect("run kill");
    assert!(sent.success());
}

/// Waits until something is so.
#[track_caller]
fn wait_for(what: &str, started: &Started, so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "{what} did not happen:\n{}", started.stderr());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nobody_need_read_what_is_told() {
    let gap = Gap::new();
    let (isc, to) = (gap.both(), format!("file://{}", gap.archive().display()));
    let run = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().expect("make a pipe");
        // As with `2>&1 | head`, from the first line on.
        drop(reader);
        let home = gap.binary.home();
        let mut command = Command::new(support::AIRLOCK);
        command.args(arguments).env("HOME", &home).env("XDG_CACHE_HOME", home.join("cache")).stderr(writer);
        command.status().expect("run the program").code()
    };
    assert_eq!(run(&["plan", "-vvv", "-c", "there-is-none.yaml"]), Some(2));
    assert_eq!(run(&["mirror", "-v", "-c", &isc, "--tls-verify=false", &to]), Some(0));
    gap.is_complete(&isc, &gap.archive());
}

/// A run to disk that hangs in the middle of the large blob, when everything else has arrived.
fn hanging(gap: &Gap, isc: &str) -> Started {
    let path = gap.large_path();
    gap.upstream.fault(Fault::on("GET", &path).first(1).stall_after(400_000, STALL));
    let to = format!("file://{}", gap.archive().display());
    let started = gap.binary.start(["mirror", "-c", isc, "--tls-verify=false", &to]);
    let others: Vec<String> =
        gap.good.blobs.iter().chain(&gap.bad.blobs).map(|b| b.descriptor.digest.to_string()).collect();
    wait_for("the download", &started, || {
        others.iter().all(|digest| gap.upstream.count("GET", &format!("/v2/*/blobs/{digest}")) == 1)
            && gap.upstream.log().iter().any(|r| r.path == path && r.sent == 400_000)
    });
    // What was sent is on its way to the disk.
    std::thread::sleep(Duration::from_millis(500));
    started
}

#[test]
fn a_run_to_disk_that_is_interrupted_goes_on_where_it_was() {
    for name in ["-INT", "-TERM"] {
        let gap = Gap::new();
        let isc = gap.both();
        let undisturbed = gap.folder("undisturbed");
        gap.write(&isc, &undisturbed, &[]).expect_code(0);
        gap.upstream.clear_log();

        let started = hanging(&gap, &isc);
        signal(&started, name);
        let outcome = started.wait(PATIENCE).expect_code(INTERRUPTED);
        says(&outcome, &["stopping", "interrupted: 1 of 2 images", "next: run the same command again"]);
        assert_eq!(parts(&gap.archive()), Vec::<String>::new(), "something was sealed");
        assert!(leftovers(&gap.archive()).contains(&".airlock-journal".to_owned()), "there is no journal");
        assert_eq!(support::report(&gap.archive())["status"], "interrupted");

        gap.upstream.clear_log();
        gap.write(&isc, &gap.archive(), &[]).expect_code(0);
        assert!(part(&gap.archive()) == part(&undisturbed), "the archive differs from one that was never interrupted");
        let blobs = gap.upstream.log().into_iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/"));
        let again: Vec<_> = blobs.map(|r| (r.path.clone(), r.header("range").map(str::to_owned))).collect();
        assert!(
            again.iter().all(|(path, _)| *path == gap.large_path()),
            "complete blobs were fetched again: {again:?}"
        );
        let resumed = |range: &str| range.strip_prefix("bytes=").is_some_and(|from| !from.starts_with("0-"));
        assert!(
            again.iter().any(|(_, range)| range.as_deref().is_some_and(resumed)),
            "what was there of the large one was fetched again: {again:?}"
        );
        gap.is_complete(&isc, &gap.archive());
    }
}

#[test]
fn a_run_into_a_registry_that_is_interrupted_is_finished_by_the_next() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    let target = Registry::start();
    target.fault(Fault::on("PUT", "/v2/team/bad/manifests/v1").first(1).delay(STALL));
    let (from, to) = (format!("file://{}", gap.archive().display()), format!("docker://{}", target.address()));
    let started = gap.binary.start(["mirror", "-c", &isc, "--from", &from, "--tls-verify=false", &to]);
    wait_for("the push", &started, || {
        target.count("PUT", "/v2/team/bad/manifests/v1") == 1 && target.has(GOOD, &gap.good)
    });
    signal(&started, "-INT");
    let outcome = started.wait(PATIENCE).expect_code(INTERRUPTED);
    says(&outcome, &["stopping", "interrupted: ", "next: run the same command again"]);
    target.heal();
    target.clear_log();
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    gap.has_both(&target);
    let uploads: u64 = target.log().iter().filter(|r| r.path.contains("/uploads/")).map(|r| r.received).sum();
    assert_eq!(uploads, 0, "blobs were pushed again: {:?}", pushes(&target));
    assert!(target.content(|content| content.manifest(BAD, "v1").is_some()));
}

#[test]
fn two_signals_end_it_at_once() {
    let gap = Gap::new();
    let isc = gap.both();
    let mut started = hanging(&gap, &isc);
    signal(&started, "-INT");
    started.until(|printed| printed.contains("stopping").then_some(()));
    signal(&started, "-INT");
    started.wait(PATIENCE).expect_code(INTERRUPTED);
    gap.upstream.heal();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn the_second_of_two_runs_on_one_directory_is_refused() {
    let gap = Gap::new();
    let isc = gap.both();
    let first = hanging(&gap, &isc);
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(REFUSED);
    says(&outcome, &["another run of airlock", &gap.archive().display().to_string(), "hint: wait"]);
    assert!(leftovers(&gap.archive()).contains(&".airlock-journal".to_owned()), "the first run's journal is gone");
    gap.upstream.heal();
    let outcome = first.wait(PATIENCE);
    outcome.expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_run_that_is_still_planning_ends_at_once() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(Fault::on("*", "/v2/team/bad/manifests/*").delay(STALL));
    let to = format!("file://{}", gap.archive().display());
    let started = gap.binary.start(["mirror", "-c", &isc, "--tls-verify=false", &to]);
    wait_for("the plan", &started, || gap.upstream.count("*", "/v2/team/bad/manifests/v1") > 0);
    signal(&started, "-INT");
    let outcome = started.wait(PATIENCE).expect_code(INTERRUPTED);
    says(
        &outcome,
        &["plan the image set: stopped on request", "hint: nothing has been moved yet; run the same command again"],
    );
    gap.upstream.heal();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());

    let target = Registry::start();
    target.fault(Fault::on("GET", "/v2/").delay(STALL));
    let (from, to) = (format!("file://{}", gap.archive().display()), format!("docker://{}", target.address()));
    let started = gap.binary.start(["mirror", "-c", &isc, "--from", &from, "--tls-verify=false", &to]);
    wait_for("the first question", &started, || target.count("GET", "/v2/") > 0);
    signal(&started, "-INT");
    started.wait(PATIENCE).expect_code(INTERRUPTED);
    assert_eq!(pushes(&target), Vec::<String>::new());
}

#[test]
fn an_interrupted_run_that_goes_on_with_another_plan_mixes_nothing_and_keeps_what_it_can() {
    let gap = Gap::new();
    let third = airlock_testkit::fixture::image(3).layers(&[50_000]).build();
    gap.upstream.put("team/third", &third, Some("v1"));
    let started = hanging(&gap, &gap.both());
    signal(&started, "-INT");
    started.wait(PATIENCE).expect_code(INTERRUPTED);
    gap.upstream.clear_log();
    let isc = gap.isc(&["team/third:v1", "team/good:v1"]);
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    for blob in &gap.good.blobs {
        let path = format!("/v2/*/blobs/{}", blob.descriptor.digest);
        assert_eq!(gap.upstream.count("GET", &path), 0, "a complete blob was fetched again");
    }
    assert_eq!(leftovers(&gap.archive()), Vec::<String>::new());
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    assert!(part(&gap.archive()) == part(&undisturbed), "the archive differs from one that began anew");
}

#[test]
fn what_was_altered_between_two_runs_is_never_offered() {
    let gap = Gap::new();
    let isc = gap.both();
    let started = hanging(&gap, &isc);
    signal(&started, "-INT");
    started.wait(PATIENCE).expect_code(INTERRUPTED);
    // One byte of a blob that the journal calls complete, and one of the beginning of the other.
    let path = gap.archive().join(".mirror_000001.tar.partial");
    let mut bytes = std::fs::read(&path).expect("read the part");
    for content in [&gap.good.blobs[1].bytes, &gap.bad.blobs[1].bytes] {
        let begin = &content[..64];
        let at = bytes.windows(64).position(|window| window == begin).expect("the blob has begun");
        bytes[at + 10] ^= 1;
    }
    std::fs::write(&path, &bytes).expect("alter the part");
    gap.write(&isc, &gap.archive(), &[]);
    let target = Registry::start();
    let outcome = gap.load(&isc, &[&gap.archive()], &target, &[]);
    assert!(matches!(outcome.code, Some(0 | PARTIAL | DAMAGED)), "{:?}\n{}", outcome.code, outcome.stderr);
    for (repository, image) in [(GOOD, &gap.good), (BAD, &gap.bad)] {
        let offered = target.content(|content| content.manifest(repository, "v1").is_some());
        assert_eq!(offered, target.has(repository, image), "{repository} is offered and is not whole");
        assert!(outcome.code != Some(0) || offered, "{repository} is missing without a word");
    }
}
