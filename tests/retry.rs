//! The promise: what could not be had costs only the images that need it, is named, and is filled in later, to the same bytes as
//! a run that never failed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::{Contents, altered};
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Fault, Registry};
use airlock_testkit::target::Target;
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, Upstream, World};
use support::{AIRLOCK, BAD, DAMAGED, GOOD, Gap, PART, PARTIAL, part, report, report_path, says};

const SET: &str = "add-01-tags";
/// The image that will miss a blob, and where it lands.
const IMAGE: (&str, &str) = ("quay.io/world/app1", "world/app1");

fn upstream() -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::DockerRegistry)
}

fn binary(upstream: &Upstream) -> Binary {
    // One date for every run, so that their archives can be compared.
    Binary::new(AIRLOCK).envs(upstream.env()).env("SOURCE_DATE_EPOCH", "1700000000")
}

fn mirror(binary: &Binary, isc: &Path, more: &[&str]) -> (Outcome, PathBuf) {
    let archive = binary.folder().join("archive");
    let (isc, to) = (isc.display().to_string(), format!("file://{}", archive.display()));
    (binary.run(["mirror", "-c", &isc].into_iter().chain(more.iter().copied()).chain([to.as_str()])), archive)
}

/// A layer of [`IMAGE`] that no other image of the set needs.
fn own_layer(upstream: &Upstream) -> String {
    let repos = &upstream.world().inventory().repos;
    let others: BTreeSet<_> = upstream
        .expected(SET)
        .images
        .iter()
        .filter(|image| !image.reference.starts_with(IMAGE.0))
        .flat_map(|image| &repos[image.reference.rsplit_once(':').expect("it has a tag").0].blobs)
        .collect();
    repos[IMAGE.0].blobs.iter().find(|blob| !others.contains(blob)).expect("it has a layer of its own").clone()
}

#[test]
fn a_blob_that_is_missing_leaves_a_void_that_a_retry_fills() {
    let (Some(tar), Some(upstream)) = (tools::need("tar"), upstream()) else { return };
    let isc = upstream.isc(SET);
    let undisturbed = binary(&upstream);
    let (outcome, whole) = mirror(&undisturbed, &isc, &[]);
    outcome.expect_code(0);

    let blob = own_layer(&upstream);
    let hidden = upstream.hide_blob(IMAGE.0, &blob);
    let here = binary(&upstream);
    let (outcome, archive) = mirror(&here, &isc, &["--retry-times", "1", "--retry-delay", "1ms"]);
    let outcome = outcome.expect_code(PARTIAL);
    assert!(outcome.stderr.contains(IMAGE.0), "the image is not named:\n{}", outcome.stderr);
    let report = archive.join("working-dir/report.json");
    let text = fs::read_to_string(&report).expect("there is a report");
    assert!(text.contains(IMAGE.0) && text.contains(&blob), "the report does not name image and blob:\n{text}");

    // Plain tar gives whole content only, and no link to what is not there.
    let unpacked = here.folder().join("unpacked");
    fs::create_dir(&unpacked).expect("create a folder");
    let done = Command::new(tar).arg("xf").arg(archive.join(PART)).arg("-C").arg(&unpacked).status().expect("run tar");
    assert!(done.success());
    let held = Contents::read(&unpacked);
    assert!(!held.blobs.contains_key(&blob));
    assert!(!held.repositories.contains_key(IMAGE.1), "the image is offered although a blob is missing");
    assert_eq!(altered(&unpacked), Vec::<String>::new());

    // The other side is told, and gets the rest.
    let verified = here.run(["archive", "verify", &archive.display().to_string()]);
    assert!((verified.stdout + &verified.stderr).contains("partial"), "verification does not say that it is partial");
    let listed = here.run(["archive", "ls", &archive.display().to_string()]);
    let said = listed.stdout + &listed.stderr;
    assert!(said.contains("partial"), "the listing does not say that it is partial:\n{said}");
    let Some(target) = Target::docker_registry() else { return };
    let (from, to) = (format!("file://{}", archive.display()), format!("docker://{}", target.address()));
    let config = isc.display().to_string();
    let load = ["mirror", "-c", &config, "--from", &from, "--dest-tls-verify=false", &to];
    here.run(load).expect_code(PARTIAL);
    let images = upstream.expected(SET).images;
    let arrived = target.contents().repositories;
    for image in &images {
        let repository = image.dest[0].rsplit_once(':').expect("it has a tag").0;
        assert_eq!(arrived.contains_key(repository), repository != IMAGE.1, "{repository}");
    }

    hidden.restore();
    here.run(["mirror", "--retry", &report.display().to_string()]).expect_code(0);
    assert!(
        fs::read(archive.join(PART)).expect("read the archive")
            == fs::read(whole.join(PART)).expect("read the archive"),
        "the mended archive differs from one that never failed"
    );
    here.run(load).expect_code(0);
    upstream.check(SET, target.address());
}

#[test]
fn an_image_that_was_not_there_is_fetched_by_a_retry() {
    let Some(upstream) = upstream() else { return };
    let isc = upstream.isc("add-09-missing");
    let here = binary(&upstream);
    let (outcome, archive) = mirror(&here, &isc, &[]);
    let outcome = outcome.expect_code(PARTIAL);
    assert!(outcome.stderr.contains("quay.io/world/nothere:v1"), "{}", outcome.stderr);
    let report = archive.join("working-dir/report.json").display().to_string();
    assert!(fs::read_to_string(&report).expect("there is a report").contains("quay.io/world/nothere:v1"));

    upstream.publish("quay.io/world/app4", "v1.4", "quay.io/world/nothere", "v1");
    here.run(["mirror", "--retry", &report]).expect_code(0);
    let undisturbed = binary(&upstream);
    let (outcome, whole) = mirror(&undisturbed, &isc, &[]);
    outcome.expect_code(0);
    assert!(
        fs::read(archive.join(PART)).expect("read the archive")
            == fs::read(whole.join(PART)).expect("read the archive"),
        "the mended archive differs from one that never failed"
    );
}

/// Paths of the blobs that were asked for.
fn blobs_asked(registry: &Registry) -> Vec<String> {
    let log = registry.log();
    log.iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/")).map(|r| r.path.clone()).collect()
}

#[test]
fn a_retry_fetches_exactly_what_is_void() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);

    gap.upstream.fault(Fault::on("GET", &gap.large_path()).status(404));
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    let report_file = report_path(&gap.archive()).display().to_string();
    says(
        &outcome,
        &["partial: 1 of 2 images", &format!("airlock mirror --retry {report_file}"), &gap.large(), "isc.yaml:6"],
    );
    let written = report(&gap.archive());
    let failed: Vec<_> =
        written["images"].as_array().into_iter().flatten().filter(|i| i["status"] == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["errors"][0]["code"], "not-found");
    assert_eq!(failed[0]["reasons"][0]["line"], 6);
    let voids = written["archive"]["voids"].as_array().expect("the report lists the voids");
    assert!(voids.iter().any(|v| *v == *gap.large()) && voids.iter().any(|v| *v == *gap.bad.digest().to_string()));

    // Who looks at the archive is told.
    let folder = gap.archive().display().to_string();
    says(
        &gap.binary.run(["archive", "ls", &folder]).expect_code(0),
        &["void", "partial: 2 blobs and manifests are void"],
    );
    let bad = format!("{}/{BAD}:v1", gap.upstream.address());
    says(
        &gap.verify(&gap.archive()).expect_code(PARTIAL),
        &["it is partial", &format!("missing: `{bad}`"), &gap.large()],
    );
    let quick = gap.binary.run(["archive", "verify", "--quick", "-o", "json", &folder]).expect_code(PARTIAL);
    let verdict: serde_json::Value = serde_json::from_str(&quick.stdout).expect("the verdict is JSON");
    assert_eq!((&verdict["whole"], &verdict["partial"]), (&false.into(), &true.into()));
    assert_eq!(verdict["missing"], serde_json::json!([bad]));

    // Who loads it gets the rest, and the name of what is missing.
    let target = Registry::start();
    let loaded = gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(PARTIAL);
    says(&loaded, &[&bad, "--retry"]);
    assert!(target.has(GOOD, &gap.good));
    assert!(target.content(|content| content.manifest(BAD, "v1").is_none()));

    // Nothing is better yet: the same again, and no harm done.
    let again = gap.retry(&gap.archive());
    again.expect_code(PARTIAL);
    gap.verify(&gap.archive()).expect_code(PARTIAL);

    gap.upstream.heal();
    gap.upstream.clear_log();
    gap.retry(&gap.archive()).expect_code(0);
    assert_eq!(blobs_asked(&gap.upstream), [gap.large_path()], "something else than the void was fetched");
    assert!(part(&gap.archive()) == part(&undisturbed), "the mended archive differs from one that never failed");
    assert_eq!(report(&gap.archive())["status"], "complete");
    gap.is_complete(&isc, &gap.archive());
    gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(0);
    gap.has_both(&target);
}

#[test]
fn a_blob_that_several_images_need_costs_them_all_and_one_retry_mends_them() {
    let upstream = Registry::start();
    let shared = fixture::blob("application/vnd.oci.image.layer.v1.tar+gzip", fixture::random(77, 40_000));
    let image = |seed| fixture::image(seed).given(vec![shared.clone()]);
    let children = [image(21).platform("linux/amd64").build(), fixture::image(22).platform("linux/arm64").build()];
    let index = fixture::index(&children).build();
    upstream.put("team/index", &index, Some("v1"));
    upstream.put("team/single", &image(23).build(), Some("v1"));
    let gap = Gap::at(upstream);
    let isc = gap.isc(&["team/index:v1", "team/single:v1", "team/good:v1"]);
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    gap.upstream.fault(Fault::on("GET", &format!("/v2/*/blobs/{}", shared.descriptor.digest)).status(404));
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    says(&outcome, &["partial: 1 of 3 images", "team/index:v1", "team/single:v1"]);
    gap.verify(&gap.archive()).expect_code(PARTIAL);
    gap.upstream.heal();
    gap.upstream.clear_log();
    gap.retry(&gap.archive()).expect_code(0);
    assert_eq!(blobs_asked(&gap.upstream).len(), 1, "{:?}", blobs_asked(&gap.upstream));
    assert!(part(&gap.archive()) == part(&undisturbed));
    gap.verify(&gap.archive()).expect_code(0);
}

#[test]
fn an_image_whose_tag_was_missing_is_added_to_the_same_bytes_without_fetching_the_rest() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    gap.upstream.content(|content| content.remove_tag(BAD, "v1"));
    let outcome = gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    says(&outcome, &["partial: 1 of 2 images", "team/bad:v1", "404"]);
    let folder = gap.archive().display().to_string();
    says(&gap.binary.run(["archive", "ls", &folder]).expect_code(0), &["missing: `", "team/bad:v1"]);
    says(&gap.verify(&gap.archive()).expect_code(PARTIAL), &["missing: `", "team/bad:v1"]);
    let target = Registry::start();
    says(&gap.load(&isc, &[&gap.archive()], &target, &[]).expect_code(PARTIAL), &["team/bad:v1"]);

    gap.upstream.put(BAD, &gap.bad, Some("v1"));
    gap.upstream.clear_log();
    gap.retry(&gap.archive()).expect_code(0);
    let of_good: Vec<_> = blobs_asked(&gap.upstream).into_iter().filter(|path| path.contains(GOOD)).collect();
    assert_eq!(of_good, Vec::<String>::new(), "what the archive had was fetched again");
    assert!(part(&gap.archive()) == part(&undisturbed), "the mended archive differs from one that never failed");
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn voids_are_filled_over_several_parts() {
    let gap = Gap::new();
    let isc = gap.both();
    let undisturbed = gap.folder("undisturbed");
    support::write_in_parts(&gap, &isc, &undisturbed, 800_000).expect_code(0);
    assert!(support::parts(&undisturbed).len() > 1, "there is one part only");
    gap.upstream.fault(Fault::on("GET", "/v2/team/bad/blobs/*").status(404));
    support::write_in_parts(&gap, &isc, &gap.archive(), 800_000).expect_code(PARTIAL);
    gap.verify(&gap.archive()).expect_code(PARTIAL);
    gap.upstream.heal();
    gap.retry(&gap.archive()).expect_code(0);
    assert_eq!(support::parts(&gap.archive()), support::parts(&undisturbed));
    for name in support::parts(&undisturbed) {
        let read = |folder: &Path| fs::read(folder.join(&name)).expect("read a part");
        assert!(read(&gap.archive()) == read(&undisturbed), "{name} differs");
    }
    gap.is_complete(&isc, &gap.archive());
}

#[test]
fn a_retry_of_what_is_complete_is_complete_and_of_nonsense_an_error() {
    let gap = Gap::new();
    let isc = gap.both();
    gap.write(&isc, &gap.archive(), &[]).expect_code(0);
    let before = part(&gap.archive());
    gap.upstream.clear_log();
    gap.retry(&gap.archive()).expect_code(0);
    assert!(part(&gap.archive()) == before, "a retry of a complete run changed the archive");
    assert_eq!(blobs_asked(&gap.upstream), Vec::<String>::new());
    gap.is_complete(&isc, &gap.archive());

    let path = gap.folder("nonsense.json");
    fs::write(&path, "{}").expect("write a file");
    let outcome = gap.binary.run(["mirror", "--retry", &path.display().to_string()]);
    assert!(matches!(outcome.code, Some(support::USAGE | DAMAGED)), "{:?}", outcome.code);
    says(&outcome, &["nonsense.json", "hint: give the report.json"]);
}

#[test]
fn the_second_archive_of_a_series_is_mended_to_the_same_bytes_too() {
    let gap = Gap::new();
    let undisturbed = gap.folder("undisturbed");
    for folder in [&undisturbed, &gap.archive()] {
        gap.write(&gap.isc(&["team/good:v1"]), folder, &[]).expect_code(0);
    }
    fs::create_dir(gap.folder("first")).expect("create a folder");
    fs::copy(undisturbed.join(PART), gap.folder("first").join(PART)).expect("keep the first archive");
    let isc = gap.both();
    gap.write(&isc, &undisturbed, &[]).expect_code(0);
    gap.upstream.fault(Fault::on("GET", &gap.large_path()).status(503));
    gap.write(&isc, &gap.archive(), &[]).expect_code(PARTIAL);
    gap.upstream.heal();
    gap.upstream.clear_log();
    gap.retry(&gap.archive()).expect_code(0);
    assert_eq!(blobs_asked(&gap.upstream), [gap.large_path()]);
    assert!(part(&gap.archive()) == part(&undisturbed), "the mended archive differs from one that never failed");
    let target = Registry::start();
    gap.load(&isc, &[&gap.folder("first"), &gap.archive()], &target, &[]).expect_code(0);
    gap.has_both(&target);
}
