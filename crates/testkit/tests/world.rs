//! The harness itself, judged by skopeo: the world is served, targets take content, and the comparison of the two neither
//! misses nor invents a difference.

use std::path::Path;
use std::process::Command;

use airlock_testkit::contents::altered;
use airlock_testkit::target::{Access, Program, Target};
use airlock_testkit::tools;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};

const SET: &str = "add-09-missing";

fn copy(skopeo: &Path, upstream: &Upstream, source: &str, target: &str, more: &[&str]) {
    let copied = Command::new(skopeo)
        .arg("--registries-conf")
        .arg(upstream.registries_conf())
        .args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--retry-times", "2"])
        .args(more)
        .arg(format!("docker://{source}"))
        .arg(format!("docker://{target}"))
        .output()
        .expect("run skopeo");
    assert!(copied.status.success(), "skopeo: {}", String::from_utf8_lossy(&copied.stderr));
}

#[test]
fn a_copied_set_is_complete_and_one_image_more_is_noticed() {
    let (Some(skopeo), Some(world)) = (tools::need("skopeo"), World::get(Scale::Small)) else { return };
    let Some(upstream) = world.start(Serving::DockerRegistry) else { return };
    let Some(target) = Target::docker_registry() else { return };
    let expected = upstream.expected(SET);
    assert_eq!(expected.missing, ["quay.io/world/nothere:v1"]);
    let wanted = Wanted::of(&world, &expected);
    assert!(!wanted.differences(&target.contents(), |digest| target.bytes(digest), "", true).is_empty());

    for image in &expected.images {
        let to = format!("{}/{}", target.address(), image.dest[0]);
        copy(&skopeo, &upstream, &image.reference, &to, &["--dest-tls-verify=false"]);
    }
    upstream.check(SET, target.address());
    let found = wanted.differences(&target.contents(), |digest| target.bytes(digest), "", true);
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(wanted.altered(&world, |digest| target.bytes(digest)), Vec::<String>::new());
    assert_eq!(altered(target.storage()), Vec::<String>::new());

    let to = format!("{}/other/place:v9", target.address());
    copy(&skopeo, &upstream, "quay.io/world/app4:v1.4", &to, &["--dest-tls-verify=false"]);
    let found = wanted.differences(&target.contents(), |digest| target.bytes(digest), "", true);
    assert!(found.iter().any(|line| line.starts_with("other/place: tag v9")), "{found:?}");
}

#[test]
fn what_is_published_is_served_and_what_is_hidden_is_not() {
    let (Some(skopeo), Some(world)) = (tools::need("skopeo"), World::get(Scale::Small)) else { return };
    let Some(upstream) = world.start(Serving::DockerRegistry) else { return };
    upstream.publish("quay.io/world/app4", "v1.4", "quay.io/world/nothere", "v1");
    let folder = upstream.folder().join("copied");
    let pulls = |source: &str| {
        Command::new(&skopeo)
            .arg("--registries-conf")
            .arg(upstream.registries_conf())
            .args(["--insecure-policy", "copy", "--all"])
            .arg(format!("docker://{source}"))
            .arg(format!("dir:{}", folder.display()))
            .output()
            .expect("run skopeo")
            .status
            .success()
    };
    assert!(pulls("quay.io/world/nothere:v1"));
    assert!(pulls("quay.io/world/app5:v1.5"));
    let hidden = upstream.hide_blob("quay.io/world/app5", &world.inventory().repos["quay.io/world/app5"].blobs[0]);
    assert!(!pulls("quay.io/world/app5:v1.5"), "a hidden blob is not served");
    hidden.restore();
    assert!(pulls("quay.io/world/app5:v1.5"));
}

#[test]
fn the_scripted_upstream_and_a_closed_target_with_tls_serve_skopeo() {
    let (Some(skopeo), Some(world)) = (tools::need("skopeo"), World::get(Scale::Small)) else { return };
    let faults = Faults { auth: true, ..Faults::default() };
    let Some(upstream) = world.start(Serving::Scripted(faults)) else { return };
    let access = Access { user: Some(("keeper".into(), "secret".into())), tls: true };
    for program in [Program::DockerRegistry2, Program::Distribution3] {
        let Some(target) = Target::start(program, access.clone()) else { continue };
        let trusted = upstream.folder().join("trusted");
        std::fs::create_dir_all(&trusted).expect("create a folder of trusted certificates");
        std::fs::copy(target.certificate().expect("it has one"), trusted.join("ca.crt"))
            .expect("trust the certificate");
        let more = ["--dest-cert-dir", &trusted.display().to_string(), "--dest-creds", "keeper:secret"];
        copy(&skopeo, &upstream, "quay.io/world/app5:v1.5", &format!("{}/a/b:c", target.address()), &more);
        assert!(target.contents().repositories["a/b"].tags.contains_key("c"), "{}", target.output());
    }
}

#[test]
fn a_set_of_our_own_is_understood() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::Scripted(Faults::default())) else { return };
    upstream.add_sets(&serde_json::json!([{
        "id": "own-set", "title": "ours", "notes": "", "doc": "",
        "body": {"additionalImages": [{"name": "docker.io/library/alpine:3.20", "platforms": ["linux/amd64"]}]},
    }]));
    assert!(upstream.isc("own-set").is_file());
    let expected = upstream.expected("own-set");
    let all = Wanted::of(&world, &expected);
    let some = Wanted::of_platforms(&world, &expected, &["linux/amd64"]);
    assert!(format!("{all:?}").len() > format!("{some:?}").len());
}
