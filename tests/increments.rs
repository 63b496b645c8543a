//! The promise: each archive after the first carries what is new and says which earlier archive has the rest; what nobody has is named
//! before anything is pushed; and a lost history costs bytes, never an image.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::fixture::Built;
use airlock_testkit::scripted::{Fault, Registry};
use airlock_testkit::tools;
use serde_json::Value;
use support::{BAD, DAMAGED, GOOD, Gap, PART, PARTIAL, part, pushes, says};

/// A first archive with one image, kept in its own folder, and a second one of the same history that asks for both.
struct Two {
    gap: Gap,
    isc: String,
    first: PathBuf,
    second: PathBuf,
}

impl Two {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The second run has these flags.
    fn with(more: &[&str]) -> Self {
        let gap = Gap::new();
        let (first, second) = (gap.folder("first"), gap.archive());
        gap.write(&gap.isc(&["team/good:v1"]), &second, &[]).expect_code(0);
        copy_parts(&second, &first);
        gap.upstream.clear_log();
        let isc = gap.both();
        gap.write(&isc, &second, more).expect_code(0);
        Self { gap, isc, first, second }
    }

    fn list(&self, folder: &Path) -> Value {
        let outcome =
            self.gap.binary.run(["archive", "ls", "-o", "json", &folder.display().to_string()]).expect_code(0);
        serde_json::from_str(&outcome.stdout).expect("the listing is JSON")
    }

    #[track_caller]
    fn whole(&self, target: &Registry) {
        let to = format!("docker://{}", target.address());
        self.gap.binary.run(["verify", "-c", &self.isc, "--tls-verify=false", &to]).expect_code(0);
        self.gap.has_both(target);
    }
}

/// The parts only, as carried on a stick.
fn copy_parts(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("create a folder");
    for name in support::parts(from) {
        fs::copy(from.join(&name), to.join(&name)).expect("copy a part");
    }
}

/// The digests of the blobs that a part really has, manifests included.
fn carried(folder: &Path) -> Option<BTreeSet<String>> {
    let listed = Command::new(tools::need("tar")?).arg("tf").arg(folder.join(PART)).output().expect("run tar");
    assert!(listed.status.success());
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let hex = |path: &str| path.strip_suffix("/data").and_then(|path| path.rsplit('/').next().map(str::to_owned));
    Some(text.lines().filter_map(hex).collect())
}

fn hexes(image: &Built) -> Vec<String> {
    image.blobs.iter().map(|blob| blob.descriptor.digest.hex().to_string()).collect()
}

#[test]
fn the_second_archive_carries_only_what_is_new() {
    let two = Two::new();
    let (good, bad) = (&two.gap.good, &two.gap.bad);
    let listing = two.list(&two.second);
    assert_eq!(listing["sequence"], 2);
    assert_eq!(listing["carriedBefore"], good.blobs.len());
    assert_eq!(listing["images"].as_array().map(Vec::len), Some(2));
    assert_eq!(two.list(&two.first)["sequence"], 1);
    for blob in hexes(good) {
        assert_eq!(two.gap.upstream.count("GET", &format!("/v2/*/blobs/sha256:{blob}")), 0, "a blob was fetched again");
    }
    let Some(held) = carried(&two.second) else { return };
    assert!(hexes(good).iter().all(|blob| !held.contains(blob)), "a blob is carried again");
    assert!(hexes(bad).iter().all(|blob| held.contains(blob)), "a new blob is not carried");
    // Manifests are small, and each archive has all of them.
    assert!(held.contains(&*good.digest().hex()) && held.contains(&*bad.digest().hex()));
    two.gap.verify(&two.second).expect_code(0);
}

#[test]
fn since_a_day_to_come_is_the_default_and_since_one_before_the_first_run_is_everything() {
    let default = Two::new();
    let later = Two::with(&["--since", "2030-01-01"]);
    // The two upstreams have their own ports, which stand in the plan; the length is what the days decide.
    let length = |two: &Two| part(&two.second).len();
    assert_eq!(default.list(&default.second)["carriedBefore"], later.list(&later.second)["carriedBefore"]);
    assert_eq!(length(&default), length(&later));

    let everything = Two::with(&["--since", "2020-01-01"]);
    assert_eq!(everything.list(&everything.second)["carriedBefore"], 0);
    assert_eq!(everything.list(&everything.second)["sequence"], 2);
    everything.gap.is_complete(&everything.isc, &everything.second);

    let gap = Gap::new();
    let outcome = gap.write(&gap.both(), &gap.archive(), &["--since", "yesterday"]).expect_code(support::USAGE);
    says(&outcome, &["yesterday", "yyyy-MM-dd"]);
}

#[test]
fn one_after_the_other_is_complete() {
    let two = Two::new();
    let target = Registry::start();
    two.gap.load(&two.isc, &[&two.first], &target, &[]).expect_code(PARTIAL);
    assert!(target.has(GOOD, &two.gap.good));
    target.clear_log();
    two.gap.load(&two.isc, &[&two.second], &target, &[]).expect_code(0);
    two.whole(&target);
    for blob in hexes(&two.gap.good) {
        assert_eq!(
            target.count("GET", &format!("/v2/*/blobs/sha256:{blob}")),
            0,
            "a blob was read from the target in vain"
        );
    }
}

#[test]
fn the_second_alone_is_refused_by_name_before_anything_is_pushed() {
    let two = Two::new();
    let target = Registry::start();
    let outcome = two.gap.load(&two.isc, &[&two.second], &target, &[]).expect_code(DAMAGED);
    let first = two.list(&two.first);
    let identity = first["identity"].as_str().expect("an archive has an identity");
    says(
        &outcome,
        &["archive number 1 of 2023-11-14T22:13:20Z", identity, "hint: give the named archive with another --from"],
    );
    assert_eq!(pushes(&target), Vec::<String>::new());
}

#[test]
fn both_together_are_complete_in_either_order() {
    let two = Two::new();
    for from in [[&two.first, &two.second], [&two.second, &two.first]] {
        let target = Registry::start();
        two.gap.load(&two.isc, &from.map(PathBuf::as_path), &target, &[]).expect_code(0);
        two.whole(&target);
    }
}

#[test]
fn what_the_target_has_lost_since_is_named_and_taken_from_the_first() {
    let two = Two::new();
    let target = Registry::start();
    two.gap.load(&two.isc, &[&two.first], &target, &[]).expect_code(PARTIAL);
    let lost = &two.gap.good.blobs[1].descriptor.digest;
    target.content(|content| content.remove_blob(lost));
    target.clear_log();
    let outcome = two.gap.load(&two.isc, &[&two.second], &target, &[]).expect_code(DAMAGED);
    says(&outcome, &[&lost.to_string(), "archive number 1 of "]);
    assert_eq!(pushes(&target), Vec::<String>::new());
    two.gap.load(&two.isc, &[&two.second, &two.first], &target, &[]).expect_code(0);
    two.whole(&target);
}

#[test]
fn of_three_archives_the_absent_one_is_named_and_names_at_the_target_do_not_matter() {
    let two = Two::new();
    let second = two.gap.folder("second");
    copy_parts(&two.second, &second);
    // The third has nothing but another name for what was carried before.
    let renamed = format!(
        "  additionalImages:\n    - name: {0}/team/bad:v1\n    - name: {0}/team/good:v1\n      targetRepo: other/name\n",
        two.gap.upstream.address()
    );
    let isc = two.gap.config(&renamed);
    let third = two.gap.archive();
    two.gap.write(&isc, &third, &[]).expect_code(0);
    let listing = two.list(&third);
    assert_eq!(listing["sequence"], 3);
    assert_eq!(listing["carriedBefore"], two.gap.good.blobs.len() + two.gap.bad.blobs.len());

    let target = Registry::start();
    let outcome = two.gap.load(&isc, &[&third, &two.first], &target, &[]).expect_code(DAMAGED);
    says(&outcome, &["archive number 2 of "]);
    assert!(!outcome.stderr.contains("archive number 1 of "), "an archive that is there is asked for");
    assert_eq!(pushes(&target), Vec::<String>::new());

    // A registry that has the rest under other names needs nothing but the third.
    let both = two.gap.both();
    two.gap.load(&both, &[&two.first, &second], &target, &[]).expect_code(0);
    two.gap.load(&two.gap.config(&renamed), &[&third], &target, &[]).expect_code(0);
    assert!(target.has("other/name", &two.gap.good) && target.has(BAD, &two.gap.bad));
}

#[test]
fn a_lost_or_damaged_history_gives_a_full_archive() {
    for damage in [None, Some("{\"sequence\":"), Some("")] {
        let gap = Gap::new();
        gap.write(&gap.isc(&["team/good:v1"]), &gap.archive(), &[]).expect_code(0);
        let history = gap.archive().join("working-dir/.history");
        match damage {
            None => fs::remove_dir_all(&history).expect("lose the history"),
            Some(text) => {
                for entry in fs::read_dir(&history).expect("there is a history") {
                    fs::write(entry.expect("there is a history").path(), text).expect("damage the history");
                }
            }
        }
        let isc = gap.both();
        gap.write(&isc, &gap.archive(), &[]).expect_code(0);
        gap.is_complete(&isc, &gap.archive());
    }
}

#[test]
fn what_a_partial_archive_lacked_counts_as_new() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).status(404));
    gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    let first = gap.folder("first");
    copy_parts(&gap.archive(), &first);
    gap.upstream.heal();
    // Not a retry of the first but the next of the series.
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.verify(&gap.archive()).expect_code(0);
    if let Some(held) = carried(&gap.archive()) {
        assert!(held.contains(&*gap.bad.blobs[1].descriptor.digest.hex()), "what was missing is missing again");
    }
    let target = Registry::start();
    gap.load(&isc, &[&gap.archive(), &first], &target, &[]).expect_code(0);
    gap.has_both(&target);
}

#[test]
fn an_old_archive_stays_until_the_new_one_is_sealed() {
    let gap = Gap::new();
    let one = gap.isc(&["team/good:v1"]);
    gap.write(&one, &gap.archive(), &[]).expect_code(0);
    let before = part(&gap.archive());
    let both = gap.both();
    gap.upstream.fault(Fault::on("GET", "/v2/team/bad/blobs/*").status(403));
    gap.upstream.fault(Fault::on("*", "/v2/team/good/manifests/*").status(403));
    gap.write(&both, &gap.archive(), &[]).expect_code(support::NOT_AUTHORISED);
    assert!(part(&gap.archive()) == before, "the old archive was touched by a run that failed");
    gap.upstream.heal();
    gap.write(&both, &gap.archive(), &[]).expect_code(0);
    assert!(part(&gap.archive()) != before);
    let target = Registry::start();
    gap.load(&both, &[&gap.archive()], &target, &[]).expect_code(DAMAGED);
    assert!(target.content(|content| content.manifest(BAD, "v1").is_none()));
}

/// A request for a blob of an archive that is served; the status, and what is said.
fn asked(addr: &str, repository: &str, digest: &str) -> (String, String) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(addr).expect("connect");
    let head = format!("GET /v2/{repository}/blobs/{digest} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("ask");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer with a head");
    (head.split(' ').nth(1).unwrap_or_default().to_owned(), body.to_owned())
}

#[test]
fn a_registry_over_archives_serves_all_of_them_and_names_the_one_that_is_not_there() {
    let two = Two::new();
    let (all, alone) = (two.gap.folder("all"), two.gap.folder("alone"));
    let program = Path::new(support::AIRLOCK);
    let repository = "team/good";
    let open = ["--plain-http", "--anonymous", "pull"].map(str::to_owned);
    let serve = |folders: &[&Path]| {
        let more: Vec<String> =
            folders[1..].iter().flat_map(|f| ["--archive".into(), f.display().to_string()]).collect();
        airlock_testkit::target::serve(program, "--archive", folders[0], &[&open[..], &more].concat())
    };
    let blob = two.gap.good.all_blobs()[0].descriptor.digest.to_string();
    // In whichever order they are given.
    for folders in [[two.first.as_path(), two.second.as_path()], [two.second.as_path(), two.first.as_path()]] {
        let (server, addr) = serve(&folders);
        assert!(!server.stderr().contains("warning: "), "{}", server.stderr());
        assert_eq!(asked(&addr, repository, &blob).0, "200");
        let from = format!("docker://{addr}/team/good:v1");
        let to = format!("oci:{}:v1", all.display());
        two.gap.binary.run(["image", "copy", &from, &to, "--tls-verify=false"]).expect_code(0);
    }
    let (server, addr) = serve(&[&two.second]);
    let told = server.stderr();
    assert!(told.contains("warning: ") && told.contains("lie in archive 1 of "), "{told}");
    let (status, said) = asked(&addr, repository, &blob);
    assert!(status == "404" && said.contains("BLOB_UNKNOWN") && said.contains("archive 1 of "), "{status} {said}");
    let from = format!("docker://{addr}/team/good:v1");
    let outcome =
        two.gap.binary.run(["image", "copy", &from, &format!("oci:{}:v1", alone.display()), "--tls-verify=false"]);
    assert!(outcome.code != Some(0) && outcome.stderr.contains("archive 1 of "), "{}", outcome.stderr);
}
