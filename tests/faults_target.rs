//! The promise: a target that stumbles costs time and no image, one that refuses is named with its reason before bytes move where that can
//! be known, and a full disk on either side ends the run with nothing half-written that a later run would trust.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Auth, Bearer, Behaviour, Fault, Registry};
use airlock_testkit::tools;
use support::{
    AIRLOCK, BAD, FAILED, GOOD, Gap, LARGE, NETWORK, NO_SPACE, NOT_AUTHORISED, PARTIAL, leftovers, load_report_path,
    part, parts, pushes, report_path, says,
};

const BEGIN: &str = "/v2/*/blobs/uploads/";
const SESSION: &str = "/v2/*/blobs/uploads/session*";
const BLOBS: &str = "/v2/*/blobs/*";
const MANIFESTS: &str = "/v2/*/manifests/*";
/// The session of an upload into the repository of the image that faults are made for.
const SESSION_OF_BAD: &str = "/v2/team/bad/blobs/uploads/session*";

/// An archive with both images, and the configuration that it was made from.
fn archived() -> (Gap, String) {
    let gap = Gap::new();
    let isc = gap.both();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.upstream.clear_log();
    (gap, isc)
}

/// From the archive when `load` says so, otherwise from the upstream.
fn move_into(gap: &Gap, isc: &str, load: bool, target: &Registry, more: &[&str]) -> Outcome {
    if load { gap.load(isc, &[&gap.archive()], target, more) } else { gap.copy(isc, target, more) }
}

/// A target like this.
fn target(change: impl FnOnce(&mut Behaviour)) -> Registry {
    let mut behaviour = Behaviour::default();
    change(&mut behaviour);
    Registry::builder().behaviour(behaviour).start()
}

/// Loading an archive into the target, and mirroring into another one like it, are as good as without the fault.
#[track_caller]
fn costs_no_image(make: impl Fn() -> Registry) -> Registry {
    let (gap, isc) = archived();
    let copied = make();
    gap.copy(&isc, &copied, &[]).expect_code(0);
    gap.has_both(&copied);
    let loaded = make();
    gap.upstream.clear_log();
    gap.load(&isc, &[&gap.archive()], &loaded, &[]).expect_code(0);
    gap.has_both(&loaded);
    assert_eq!(gap.upstream.log().len(), 0, "loading asked the upstream");
    loaded
}

fn faulty(fault: Fault) -> impl Fn() -> Registry {
    move || {
        let registry = Registry::start();
        registry.fault(fault.clone());
        registry
    }
}

/// One image does not arrive: both workflows are partial and name it, its tag is not pushed, and once the target is mended the same
/// command completes it.
#[track_caller]
fn costs_one_image(fault: Fault, words: &[&str]) {
    let (gap, isc) = archived();
    for load in [true, false] {
        let target = Registry::start();
        target.fault(fault.clone());
        let outcome = move_into(&gap, &isc, load, &target, &[]).expect_code(PARTIAL);
        says(&outcome, &["partial: 1 of 2 images", "team/bad", &target.address(), "--retry"]);
        says(&outcome, words);
        assert!(target.has(GOOD, &gap.good), "the other image did not arrive");
        assert!(target.content(|c| c.manifest(BAD, "v1").is_none()), "the tag of an incomplete image was pushed");
        target.heal();
        // By the report, as the message says.
        let report = if load { load_report_path(&gap.archive()) } else { report_path(&gap.folder("workspace")) };
        let report = report.display().to_string();
        gap.binary.run(["mirror", "--retry", &report, "--tls-verify=false"]).expect_code(0);
        gap.has_both(&target);
    }
}

/// The target takes nothing: both workflows end with `code` and `words`, and no content was sent.
#[track_caller]
fn refuses(make: impl Fn() -> Registry, more: &[&str], code: i32, words: &[&str]) {
    let (gap, isc) = archived();
    for load in [true, false] {
        let target = make();
        let outcome = move_into(&gap, &isc, load, &target, more).expect_code(code);
        says(&outcome, &[&target.address(), "hint: "]);
        says(&outcome, words);
        let sent: u64 = target.log().iter().filter(|r| r.method != "GET").map(|r| r.received).sum();
        assert!(sent < 1024, "{sent} bytes were sent before the refusal was noticed: {:?}", pushes(&target));
        assert!(target.content(|c| c.repositories().is_empty()), "something was pushed");
    }
}

#[test]
fn tokens_that_expire_are_fetched_again() {
    let bearer = Bearer {
        user: "keeper".into(),
        password: "secret".into(),
        identity_token: None,
        anonymous_pull: false,
        lifetime: Duration::from_secs(300),
        uses: 3,
        realm: None,
    };
    let (gap, isc) = archived();
    let target = Registry::builder().auth(Auth::Bearer(bearer)).start();
    // One after the other, so that no request uses up the token that another has just fetched.
    let more = ["--dest-creds", "keeper:secret", "--parallel-images", "1", "--parallel-layers", "1"];
    let outcome = gap.load(&isc, &[&gap.archive()], &target, &more).expect_code(0);
    assert!(!support::said(&outcome).contains("secret"), "a password was printed");
    gap.has_both(&target);
}

#[test]
fn a_password_that_is_wrong_or_absent_is_named_before_bytes_move() {
    let closed = || Registry::builder().auth(Auth::basic("keeper", "secret")).start();
    refuses(closed, &[], NOT_AUTHORISED, &["401", "airlock login"]);
    let words = ["401", "airlock login", "credentials given on the command line"];
    refuses(closed, &["--dest-creds", "keeper:mistaken"], NOT_AUTHORISED, &words);
}

#[test]
fn a_target_that_is_not_there_is_a_network_failure() {
    let (gap, isc) = archived();
    let port = airlock_testkit::process::Port::claim();
    let target = format!("docker://{}", port.address());
    let (archive, workspace) =
        (format!("file://{}", gap.archive().display()), format!("file://{}", gap.folder("workspace").display()));
    for from in [["--from", &archive], ["--workspace", &workspace]] {
        let fixed = ["mirror", "-c", &isc, from[0], from[1], "--tls-verify=false", "--retry-delay", "10ms", &target];
        let outcome = gap.binary.run(fixed).expect_code(NETWORK);
        says(&outcome, &[&port.address().to_string(), "Connection refused"]);
    }
}

#[test]
fn a_target_that_denies_is_named_before_bytes_move() {
    refuses(faulty(Fault::on("POST", BEGIN).status(403)), &[], NOT_AUTHORISED, &["403 Forbidden"]);
}

#[test]
fn a_read_only_target_is_named_before_bytes_move() {
    refuses(|| target(|b| b.read_only = true), &[], FAILED, &["405", "read-only"]);
}

#[test]
fn a_target_that_asks_to_slow_down_is_given_the_time() {
    for (method, path) in [("POST", BEGIN), ("PUT", MANIFESTS)] {
        let (gap, isc) = archived();
        let target = Registry::start();
        target.fault(Fault::on(method, path).nth(2).too_many_requests("2"));
        let outcome = gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
        assert!(outcome.wall >= Duration::from_secs(2), "it did not wait: {:?}", outcome.wall);
        gap.has_both(&target);
    }
}

#[test]
fn transient_server_errors_cost_no_image() {
    for status in [500, 502, 503, 504] {
        costs_no_image(faulty(Fault::on("*", "/v2/team/*").first(2).status(status)));
        costs_no_image(faulty(Fault::on("PUT", SESSION).first(2).status(status)));
    }
    costs_no_image(faulty(Fault::on("HEAD", BLOBS).first(2).status(500)));
    costs_no_image(faulty(Fault::on("PUT", "/v2/*/manifests/v1").first(2).status(503)));
}

#[test]
fn lasting_server_errors_cost_the_image() {
    costs_one_image(Fault::on("PUT", SESSION_OF_BAD).status(503), &["503 Service Unavailable", "scripted"]);
    costs_one_image(Fault::on("PUT", "/v2/team/bad/manifests/v1").status(500), &["500 Internal Server Error"]);
}

#[test]
fn a_target_that_always_fails_is_a_failure() {
    let (gap, isc) = archived();
    let target = Registry::start();
    target.fault(Fault::on("POST", BEGIN).status(502));
    let outcome = gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(FAILED);
    says(&outcome, &[&target.address(), "502 Bad Gateway"]);
    target.heal();
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    gap.has_both(&target);
}

#[test]
fn an_upload_that_breaks_goes_on_from_the_registrys_offset() {
    let (gap, isc) = archived();
    let target = Registry::start();
    target.fault(Fault::on("PUT", SESSION_OF_BAD).first(1).reset_upload_after(2_500));
    target.fault(Fault::on("PATCH", SESSION_OF_BAD).first(1).reset_upload_after(500));
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    gap.has_both(&target);
    let log = target.log();
    let blobs: u64 = [&gap.good, &gap.bad].iter().flat_map(|i| &i.blobs).map(|b| b.descriptor.size).sum();
    let sent: u64 = log.iter().filter(|r| r.path.contains("/uploads/")).map(|r| r.received).sum();
    assert_eq!(sent, blobs, "bytes were sent twice: {log:#?}");
}

#[test]
fn a_connection_that_breaks_after_the_fact_costs_no_image() {
    costs_no_image(faulty(Fault::on("PUT", SESSION).first(1).lose_answer()));
    costs_no_image(faulty(Fault::on("POST", BEGIN).nth(2).lose_answer()));
    costs_no_image(faulty(Fault::on("PUT", "/v2/*/manifests/v1").first(1).lose_answer()));
}

#[test]
fn a_lost_session_and_an_unsatisfiable_range_are_begun_anew() {
    costs_no_image(faulty(Fault::on("PUT", SESSION).first(1).lose_session()));
    costs_no_image(faulty(Fault::on("PUT", SESSION).first(1).status(416)));
    costs_no_image(|| {
        let target = target(|b| b.monolithic = false);
        target.fault(Fault::on("PATCH", SESSION).first(1).status(416));
        target
    });
}

#[test]
fn a_slow_target_is_waited_for() {
    costs_no_image(faulty(Fault::on("PUT", SESSION).first(1).delay(Duration::from_secs(2))));
}

#[test]
fn a_mount_that_is_answered_with_a_session_becomes_an_upload() {
    // Two repositories share a layer, so the second could be mounted.
    let upstream = Registry::start();
    let shared = fixture::image(7).layers(&[]).given(vec![fixture::blob("a/b", fixture::random(9, 50_000))]);
    let (one, two) = (shared.clone().build(), shared.annotation("second", "yes").build());
    upstream.put("team/one", &one, Some("v1"));
    upstream.put("team/two", &two, Some("v1"));
    let gap = Gap::at(upstream);
    let isc = gap.isc(&["team/one:v1", "team/two:v1"]);
    for mounts in [true, false] {
        let target = target(|b| b.mounts = mounts);
        gap.copy(&isc, &target, &["--parallel-images", "1"]).expect_code(0);
        assert!(target.has("team/one", &one) && target.has("team/two", &two));
        let layer = one.blobs[0].descriptor.digest.to_string();
        let asked = target.log().iter().any(|r| r.method == "POST" && r.query.contains(&format!("mount={layer}")));
        assert!(asked, "no mount was asked for: {:#?}", target.log());
        assert_eq!(target.content(|c| c.open_uploads()), 0, "the session of the mount was left open");
    }
}

#[test]
fn a_target_without_room_says_so() {
    let (gap, isc) = archived();
    for load in [true, false] {
        let target = target(|b| b.full = true);
        let run = || move_into(&gap, &isc, load, &target, &[]);
        let outcome = run().expect_code(NO_SPACE);
        says(&outcome, &[&target.address(), "507", "no space left on device", "hint: free or add space"]);
        assert!(target.content(|c| c.manifest(GOOD, "v1").is_none() && c.manifest(BAD, "v1").is_none()));
        target.behave(|b| b.full = false);
        run().expect_code(0);
        gap.has_both(&target);
    }
}

#[test]
fn a_target_that_fills_up_on_the_way_is_partial() {
    costs_one_image(
        Fault::on("PUT", SESSION_OF_BAD).answer(
            507,
            &[],
            r#"{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}"#,
        ),
        &["507", "no space left on device", "hint: free or add space"],
    );
}

#[test]
fn a_proxy_that_limits_requests_is_named() {
    // Smaller than the smallest chunk that helps.
    costs_one_image(Fault::on("*", SESSION_OF_BAD).status(413), &["413", "client_max_body_size"]);
}

#[test]
fn what_was_lost_at_the_target_is_repaired_by_the_next_run() {
    let (gap, isc) = archived();
    let target = Registry::start();
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    target.content(|c| c.remove_blob(&gap.bad.blobs[1].descriptor.digest));
    let verify = |code| {
        let to = format!("docker://{}", target.address());
        let from = format!("file://{}", gap.archive().display());
        let outcome = gap.binary.run(["verify", "-c", &isc, "--from", &from, "--tls-verify=false", &to]);
        outcome.expect_code(code)
    };
    says(&verify(support::DAMAGED), &[&gap.large(), BAD]);
    target.clear_log();
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    let sent: u64 = target.log().iter().filter(|r| r.path.contains("/uploads/")).map(|r| r.received).sum();
    assert_eq!(sent, LARGE as u64, "more than the lost blob was sent");
    verify(0);
    gap.has_both(&target);
}

/// Runs with a limit on the size of files, in KiB: writing beyond it fails as on a full disk.
fn with_file_limit(gap: &Gap, isc: &str, folder: &Path, kib: u32) -> Outcome {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    let binary = Binary::new("/bin/bash").env("SOURCE_DATE_EPOCH", "1700000000").timeout(Duration::from_secs(120));
    let to = format!("file://{}", folder.display());
    let fixed = ["mirror", "-c", isc, "--tls-verify=false", "--retry-times", "1", "--retry-delay", "10ms", &to];
    let outcome = binary.run(["-c", &script, AIRLOCK].iter().chain(&fixed));
    assert!(gap.upstream.count("GET", MANIFESTS) > 0, "nothing was planned");
    outcome
}

#[test]
fn an_archive_that_may_not_grow_ends_with_the_code_for_no_space() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    let outcome = with_file_limit(&gap, &isc, &gap.archive(), 200).expect_code(NO_SPACE);
    says(&outcome, &["reserve space", &gap.archive().display().to_string(), "hint: "]);
    assert_eq!(parts(&gap.archive()), Vec::<String>::new(), "something was sealed");
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    assert!(part(&gap.archive()) == part(&undisturbed), "the archive differs from one that was never short of room");
    gap.is_complete(&isc, &gap.archive());
}

/// A small file system in memory, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn new(folder: &'a Path, kib: u32) -> Option<Self> {
        fs::create_dir_all(folder).expect("create a folder to mount at");
        let mount = tools::need("mount")?;
        let options = format!("size={kib}k,mode=755");
        let done =
            Command::new(mount).args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output().expect("run mount");
        if !done.status.success() {
            tools::skipped(&format!("cannot mount here: {}", String::from_utf8_lossy(&done.stderr).trim()));
            return None;
        }
        Some(Self(folder))
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.0).status().expect("run mount");
        assert!(done.success(), "cannot remount {}", self.0.display());
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "{} stays mounted", self.0.display());
    }
}

#[test]
fn a_disk_without_room_is_refused_before_the_first_byte_and_a_larger_one_is_taken() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    let stick = gap.folder("stick");
    let Some(small) = Small::new(&stick, 500) else { return };
    let archive = stick.join("archive");
    gap.upstream.clear_log();
    let outcome = gap.write(&isc, &archive, &[]).expect_code(NO_SPACE);
    says(&outcome, &["the archive needs", "are free", &archive.display().to_string(), "hint: use a larger disk"]);
    assert_eq!(gap.upstream.count("GET", BLOBS), 0, "blobs were fetched for a disk that cannot hold them");
    small.remount("size=8192k");
    gap.write(&isc, &archive, &[]).expect_code(0);
    assert!(part(&archive) == part(&undisturbed));
}

#[test]
fn a_disk_that_somebody_else_fills_keeps_the_journal_and_the_run_goes_on_when_there_is_room() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    let stick = gap.folder("stick");
    let Some(_small) = Small::new(&stick, 2048) else { return };
    let archive = stick.join("archive");
    // The large blob stalls; meanwhile the reserved place is cut and the disk filled by somebody else.
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).first(1).stall_after(50_000, Duration::from_secs(300)));
    let to = format!("file://{}", archive.display());
    let started = gap.binary.start(["mirror", "-c", &isc, "--tls-verify=false", "--retry-times", "1", &to]);
    let partial = archive.join(".mirror_000001.tar.partial");
    let end = std::time::Instant::now() + Duration::from_secs(120);
    let large = gap.large_path();
    while gap.upstream.count("GET", &large) == 0 || !partial.exists() {
        assert!(std::time::Instant::now() < end, "the run did not begin: {}", started.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let length = fs::metadata(&partial).expect("the part is being written").len();
    let file = fs::OpenOptions::new().write(true).open(&partial).expect("open the part");
    // Only the end of the part: what has been written stays.
    let holes = Command::new("fallocate")
        .args(["--punch-hole", "--offset", &(length - 600_000).to_string(), "--length", "600000"])
        .arg(&partial)
        .status();
    if !holes.is_ok_and(|status| status.success()) {
        tools::skipped("no hole can be made in a file here");
        return;
    }
    drop(file);
    let filler = fs::File::create(stick.join("filler")).expect("create a file");
    let mut at = 0;
    while filler.write_all_at(&[7; 4096], at).is_ok() {
        at += 4096;
    }
    drop(filler);
    gap.upstream.heal();
    let outcome = started.wait(Duration::from_secs(120)).expect_code(NO_SPACE);
    says(&outcome, &["No space left", &archive.display().to_string(), "hint: free space on this disk"]);
    assert_eq!(parts(&archive), Vec::<String>::new(), "something was sealed");
    assert!(leftovers(&archive).contains(&".airlock-journal".to_owned()), "the journal is gone");

    fs::remove_file(stick.join("filler")).expect("make room");
    gap.write(&isc, &archive, &[]).expect_code(0);
    assert!(part(&archive) == part(&undisturbed), "the archive differs from one that was never short of room");
}

#[test]
fn an_archive_on_a_medium_that_cannot_be_written_loads() {
    let (gap, isc) = archived();
    let stick = gap.folder("stick");
    let Some(small) = Small::new(&stick, 8192) else { return };
    fs::copy(gap.archive().join(support::PART), stick.join(support::PART)).expect("copy the archive");
    small.remount("ro");
    let target = Registry::start();
    // Where to put the report must be known before anything is pushed.
    let outcome = gap.load(&isc, &[&stick], &target, &[]);
    assert_ne!(outcome.code, Some(0));
    says(&outcome, &["Read-only file system", "hint: ", "--workspace"]);
    assert_eq!(pushes(&target), Vec::<String>::new(), "something was pushed");
    let workspace = format!("file://{}", gap.folder("workspace").display());
    gap.load(&isc, &[&stick], &target, &["--workspace", &workspace]).expect_code(0);
    gap.has_both(&target);
    assert!(load_report_path(&gap.folder("workspace")).exists());
}

#[test]
fn no_secret_is_printed_however_much_is_asked_for() {
    let (gap, isc) = archived();
    let bearer = Auth::bearer("keeper", "hunter2secret");
    for auth in [Auth::basic("keeper", "hunter2secret"), bearer] {
        let target = Registry::builder().auth(auth).start();
        for more in
            [&["-vvv", "--dest-creds", "keeper:hunter2secret"][..], &["-vvv", "--dest-creds", "keeper:hunter2secreT"]]
        {
            let outcome = gap.load(&isc, &[&gap.archive()], &target, more);
            let said = support::said(&outcome).to_ascii_lowercase();
            // As it is, and as a Basic header has it.
            for secret in ["hunter2secret", "a2vlcgvyomh1bnrlcjj", "token-1-"] {
                assert!(!said.contains(secret), "`{secret}` was printed:\n{said}");
            }
        }
        gap.has_both(&target);
    }
}
