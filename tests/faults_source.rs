//! The promise: an upstream that stumbles costs time, one that fails costs the images that need what it will not give, and each of
//! these is named with its host and cause. What was carried meanwhile is good, and a later run finishes it.

mod support;

use std::time::Duration;

use airlock_testkit::binary::Outcome;
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Auth, Fault, Registry};
use support::{BAD, FAILED, Gap, LARGE, NETWORK, NOT_AUTHORISED, PARTIAL, leftovers, part, parts, says};

const BLOBS: &str = "/v2/*/blobs/*";
const MANIFESTS: &str = "/v2/*/manifests/*";
const MANIFESTS_OF_BAD: &str = "/v2/team/bad/manifests/*";

/// With this fault the run is as good as without, to the byte.
#[track_caller]
fn costs_no_image(fault: Fault) -> (Gap, Outcome) {
    costs_no_image_with(fault, &[])
}

#[track_caller]
fn costs_no_image_with(fault: Fault, more: &[&str]) -> (Gap, Outcome) {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    // The cache of manifests would spare the second run the requests that the fault is for.
    let gap = Gap { binary: support::program(), ..gap };
    let isc = gap.both();
    gap.upstream.clear_log();
    gap.upstream.fault(fault);
    let outcome = gap.write(&isc, &gap.archive(), more).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
    (gap, outcome)
}

/// With this fault one of the images cannot be had: the run is partial, the image, its host and `words` are named, and when the fault is gone
/// a retry completes the archive to the bytes of a run that never failed.
#[track_caller]
fn costs_one_image(fault: Fault, words: &[&str]) {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(fault);
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    says(&outcome, &["partial: 1 of 2 images", "team/bad", &gap.upstream.address(), "--retry"]);
    says(&outcome, words);
    let report = support::report(&gap.archive());
    assert_eq!(report["status"], "partial");
    gap.verify(&gap.archive()).expect_code(PARTIAL);

    gap.upstream.heal();
    gap.retry(&gap.archive()).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    assert!(part(&gap.archive()) == part(&undisturbed), "the mended archive differs from one that never failed");
}

/// With this fault nothing can be had: the run fails with `code`, says `words`, and leaves nothing that looks like an archive.
#[track_caller]
fn costs_everything(fault: Fault, code: i32, words: &[&str]) {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(fault);
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(code);
    says(&outcome, &[&gap.upstream.address()]);
    says(&outcome, words);
    assert_eq!(parts(&gap.archive()), Vec::<String>::new(), "something was sealed");
    gap.upstream.heal();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_token_that_expires_in_the_middle_of_a_blob_is_fetched_again() {
    let gap = Gap::at(Registry::builder().auth(Auth::bearer("reader", "secret")).start());
    let (isc, path) = (gap.both(), gap.large_path());
    // Broken off, then asked to wait: that is the time in which the token expires.
    gap.upstream.fault(Fault::on("GET", &path).nth(1).reset_after(300_000));
    gap.upstream.fault(Fault::on("GET", &path).nth(2).too_many_requests_and_tokens_expire("1"));
    let to = format!("file://{}", gap.archive().display());
    let fixed = ["mirror", "-c", &isc, "--tls-verify=false", "--src-creds", "reader:secret", &to];
    let outcome = gap.binary.run(fixed).expect_code(0);
    assert!(!support::said(&outcome).contains("secret"), "a password was printed");
    let log = gap.upstream.log();
    let tries: Vec<_> = log.iter().filter(|r| r.path == path).collect();
    assert!(tries.iter().any(|r| r.status == 401), "the old token was not refused: {tries:#?}");
    let got: u64 = tries.iter().filter(|r| r.status < 300).map(|r| r.sent).sum();
    assert_eq!(got, LARGE as u64, "bytes were fetched twice: {tries:#?}");
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_wrong_password_is_a_matter_of_credentials() {
    let gap = Gap::at(Registry::builder().auth(Auth::basic("reader", "secret")).start());
    let isc = gap.both();
    for more in [&[][..], &["--src-creds", "reader:mistaken"]] {
        let outcome = gap.write(&isc, &gap.archive(), more).expect_code(NOT_AUTHORISED);
        says(&outcome, &[&gap.upstream.address(), "401", "hint: ", "login"]);
        assert!(!support::said(&outcome).contains("mistaken"), "a password was printed");
        assert_eq!(parts(&gap.archive()), Vec::<String>::new());
    }
    gap.write(&isc, &gap.archive(), &["--src-creds", "reader:secret"]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_forbidden_blob_costs_its_image() {
    costs_one_image(Fault::on("GET", "/v2/team/bad/blobs/*").status(403), &["403 Forbidden", "scripted"]);
}

#[test]
fn a_forbidden_image_costs_itself() {
    costs_one_image(Fault::on("*", MANIFESTS_OF_BAD).status(403), &["403 Forbidden"]);
}

#[test]
fn a_blob_that_is_gone_costs_its_image() {
    costs_one_image(Fault::on("GET", "/v2/team/bad/blobs/*").status(404), &["404 Not Found"]);
}

#[test]
fn a_tag_that_is_gone_costs_its_image() {
    costs_one_image(Fault::on("*", MANIFESTS_OF_BAD).status(404), &["404 Not Found"]);
}

#[test]
fn everything_forbidden_or_gone_fails() {
    costs_everything(Fault::on("*", MANIFESTS).status(403), NOT_AUTHORISED, &["403 Forbidden"]);
    costs_everything(Fault::on("*", MANIFESTS).status(404), FAILED, &["404 Not Found"]);
}

#[test]
fn a_registry_that_asks_to_slow_down_is_given_the_time() {
    for path in [MANIFESTS, BLOBS] {
        let (_gap, outcome) = costs_no_image(Fault::on("GET", path).first(1).too_many_requests("2"));
        assert!(outcome.wall >= Duration::from_secs(2), "it did not wait: {:?}", outcome.wall);
    }
}

#[test]
fn transient_server_errors_cost_no_image() {
    for status in [500, 502, 503, 504] {
        costs_no_image(Fault::on("GET", "*").first(2).status(status));
        costs_no_image(Fault::on("GET", BLOBS).first(2).status(status));
    }
}

#[test]
fn lasting_server_errors_on_a_blob_cost_its_image() {
    for (status, text) in [(500, "500 Internal Server Error"), (503, "503 Service Unavailable")] {
        costs_one_image(Fault::on("GET", "/v2/team/bad/blobs/*").status(status), &[text, "scripted"]);
    }
}

#[test]
fn lasting_server_errors_on_everything_fail() {
    costs_everything(Fault::on("GET", "/v2/team/*").status(502), FAILED, &["502 Bad Gateway"]);
    // Only the blobs: the plan stands, nothing of it arrives.
    costs_everything(Fault::on("GET", BLOBS).status(504), FAILED, &["504 Gateway Timeout"]);
}

#[test]
fn an_upstream_that_is_not_there_is_a_network_failure() {
    let gap = Gap::new();
    let port = airlock_testkit::process::Port::claim();
    let isc = gap.config(&format!("  additionalImages:\n    - name: {}/team/app:v1\n", port.address()));
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(NETWORK);
    says(&outcome, &[&port.address().to_string(), "Connection refused", "hint: nothing listens"]);
    assert_eq!(parts(&gap.archive()), Vec::<String>::new());
}

/// Of the large blob, every byte was sent once.
#[track_caller]
fn was_resumed(gap: &Gap, at: u64) {
    let path = gap.large_path();
    let log = gap.upstream.log();
    let tries: Vec<_> = log.iter().filter(|r| r.method == "GET" && r.path == path).collect();
    assert!(tries.len() >= 2, "the blob was asked for once");
    assert_eq!(tries[1].header("range"), Some(format!("bytes={at}-").as_str()));
    assert_eq!(gap.upstream.fetched_twice(), [], "bytes were fetched twice");
    assert_eq!(tries.iter().map(|r| r.sent).sum::<u64>(), LARGE as u64);
}

#[test]
fn a_body_that_is_reset_goes_on_where_it_broke() {
    let path = Gap::new().large_path();
    let (gap, _) = costs_no_image(Fault::on("GET", &path).first(1).reset_after(300_000));
    was_resumed(&gap, 300_000);
}

#[test]
fn a_body_that_ends_early_goes_on_where_it_ended() {
    let path = Gap::new().large_path();
    let (gap, _) = costs_no_image(Fault::on("GET", &path).first(1).truncate_after(123_456));
    was_resumed(&gap, 123_456);
}

#[test]
fn a_server_without_ranges_costs_bytes_but_no_image() {
    let path = Gap::new().large_path();
    let gap = Gap::new();
    gap.upstream.fault(Fault::on("GET", &path).nth(1).truncate_after(200_000));
    gap.upstream.fault(Fault::on("GET", &path).nth(2).ignore_range());
    let isc = gap.both();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_body_that_always_breaks_costs_its_image() {
    // Never a byte more: no progress, so no hope.
    let path = Gap::new().large_path();
    costs_one_image(Fault::on("GET", &path).reset_after(0), &["blob"]);
}

#[test]
fn a_stall_that_passes_is_waited_for() {
    let path = Gap::new().large_path();
    costs_no_image(Fault::on("GET", &path).first(1).stall_after(100_000, Duration::from_secs(2)));
}

#[test]
fn a_stall_that_does_not_pass_ends_with_the_images_time() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).stall_after(100_000, Duration::from_secs(300)));
    let outcome = gap.write(&isc, &gap.archive(), &["--image-timeout", "20s"]).expect_code(PARTIAL);
    says(&outcome, &["team/bad", "longer than 20 s", "--image-timeout"]);
    gap.verify(&gap.archive()).expect_code(PARTIAL);
    gap.upstream.heal();
    gap.retry(&gap.archive()).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn wrong_bytes_are_never_kept() {
    let path = Gap::new().large_path();
    costs_one_image(Fault::on("GET", &path).wrong_bytes(), &["blob", "sha256:"]);
}

#[test]
fn a_manifest_with_wrong_bytes_costs_its_image() {
    let gap = Gap::new();
    let digest = gap.bad.digest().to_string();
    let isc = gap.isc(&["team/good:v1", &format!("team/bad@{digest}")]);
    gap.upstream.fault(Fault::on("GET", MANIFESTS_OF_BAD).wrong_bytes());
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    says(&outcome, &["team/bad", &gap.upstream.address(), &digest]);
    gap.upstream.heal();
    gap.retry(&gap.archive()).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_blob_of_another_length_costs_its_image() {
    let path = Gap::new().large_path();
    for by in [1, -1] {
        costs_one_image(Fault::on("GET", &path).wrong_length(by), &["blob", "bytes"]);
    }
}

#[test]
fn a_missing_digest_header_costs_nothing() {
    costs_no_image(Fault::on("*", MANIFESTS).without_header("docker-content-digest"));
    costs_no_image(Fault::on("*", "*").without_header("docker-content-digest"));
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let gap = Gap::at(Registry::builder().auth(Auth::basic("reader", "secret")).start());
    // Where the blobs really are: a store that wants no password and must not see one.
    let elsewhere = Registry::start();
    elsewhere.put(BAD, &gap.bad, None);
    let path = gap.large_path();
    gap.upstream.fault(Fault::on("GET", &path).redirect(&format!("{}{path}", elsewhere.url())));
    let isc = gap.both();
    gap.write(&isc, &gap.archive(), &["--src-creds", "reader:secret"]).expect_code(0);
    let asked = elsewhere.log();
    assert_eq!(asked.iter().filter(|r| r.method == "GET" && r.path == path).count(), 1, "{asked:#?}");
    assert!(asked.iter().all(|r| r.authorization().is_none()), "credentials went to another host");
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn faults_upstream_do_not_disturb_registry_to_registry() {
    let gap = Gap::new();
    let isc = gap.both();
    let target = Registry::start();
    let path = gap.large_path();
    gap.upstream.fault(Fault::on("GET", &path).first(1).reset_after(300_000));
    gap.upstream.fault(Fault::on("GET", "*").nth(3).status(503));
    gap.copy(&isc, &target, &[]).expect_code(0);
    gap.has_both(&target);
    assert_eq!(gap.upstream.fetched_twice(), []);

    // What cannot be had does not arrive, not even its name.
    let (gap, target) = (Gap::new(), Registry::start());
    let isc = gap.both();
    gap.upstream.fault(Fault::on("GET", &path).wrong_bytes());
    let outcome = gap.copy(&isc, &target, &[]).expect_code(PARTIAL);
    says(&outcome, &["team/bad", "sha256:"]);
    assert!(target.has("team/good", &gap.good));
    assert!(target.content(|c| c.manifest(BAD, "v1").is_none()), "the tag of a broken image was pushed");
    gap.upstream.heal();
    gap.copy(&isc, &target, &[]).expect_code(0);
    gap.has_both(&target);
}

#[test]
fn a_broken_signature_costs_the_image_that_it_belongs_to() {
    let gap = Gap::new();
    let signature = fixture::cosign(&gap.bad);
    gap.upstream.put(BAD, &signature.image, Some(&signature.tag));
    let isc = gap.both();
    let path = format!("/v2/{BAD}/blobs/{}", signature.image.blobs[1].descriptor.digest);
    gap.upstream.fault(Fault::on("GET", &path).status(404));
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    says(&outcome, &["team/bad", "404"]);
    assert_eq!(leftovers(&gap.archive()), Vec::<String>::new());
    gap.upstream.heal();
    gap.retry(&gap.archive()).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_page_in_place_of_a_manifest_costs_its_image() {
    let page = |status| {
        let headers = [("Content-Type", "text/html")];
        Fault::on("*", MANIFESTS_OF_BAD).answer(status, &headers, "<html><title>Sign in to the network</title></html>")
    };
    costs_one_image(page(200), &["pull manifest", "hint: ", "web page"]);
    costs_one_image(page(511), &["511"]);
}

#[test]
fn a_manifest_that_is_too_large_costs_its_image() {
    let large = format!("{{\"schemaVersion\":2,\"pad\":\"{}\"}}", "x".repeat(5 << 20));
    let headers = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
    costs_one_image(
        Fault::on("GET", MANIFESTS_OF_BAD).answer(200, &headers, &large),
        &["manifest", "more than 4194304 bytes"],
    );
}

#[test]
fn a_redirect_that_leads_nowhere_costs_its_image_and_is_named() {
    let path = Gap::new().large_path();
    let port = airlock_testkit::process::Port::claim();
    let nowhere = format!("http://{}{path}", port.address());
    costs_one_image(Fault::on("GET", &path).redirect(&nowhere), &[&port.address().to_string(), "Connection refused"]);
    // Round in circles.
    costs_one_image(Fault::on("GET", &path).redirect(&path), &["redirect"]);
    let headers: [(&str, &str); 0] = [];
    costs_one_image(Fault::on("GET", &path).answer(307, &headers, ""), &["redirects to no usable address"]);
}

#[test]
fn a_token_server_that_is_not_there_is_named() {
    let port = airlock_testkit::process::Port::claim();
    let mut auth = Auth::bearer("reader", "secret");
    if let Auth::Bearer(bearer) = &mut auth {
        bearer.realm = Some(format!("http://{}/token", port.address()));
    }
    let gap = Gap::at(Registry::builder().auth(auth).start());
    let isc = gap.both();
    let outcome = gap.write(&isc, &gap.archive(), &["--src-creds", "reader:secret"]).expect_code(NETWORK);
    says(&outcome, &["token server", &port.address().to_string(), "Connection refused"]);
    gap.upstream.set_auth(Auth::basic("reader", "secret"));
    gap.write(&isc, &gap.archive(), &["--src-creds", "reader:secret"]).expect_code(0);
    gap.is_complete(&isc, &gap.archive());
}
