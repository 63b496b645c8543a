//! The promise: what could not be had costs only the images that need it, is named, and is filled in later, to the same bytes as
//! a run that never failed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::{Contents, altered};
use airlock_testkit::target::Target;
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const PART: &str = "mirror_000001.tar";
const PARTIAL: i32 = 3;
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

    // Loading from the same folder leaves a report of its own in its place.
    let kept = here.folder().join("report-of-the-archive.json");
    fs::copy(&report, &kept).expect("keep the report");

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
    here.run(["mirror", "--retry", &kept.display().to_string()]).expect_code(0);
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
