//! The promise: a filter of platforms carries only those, under an index that stays byte for byte what it was, and a target that
//! refuses such an index is named instead of half filled.

use std::path::Path;
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::target::{Access, Target};
use airlock_testkit::tools;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const SET: &str = "one-platform";
const PLATFORMS: [&str; 1] = ["linux/amd64"];

fn upstream() -> Option<Upstream> {
    let upstream = World::get(Scale::Small)?.start(Serving::DockerRegistry)?;
    upstream.add_sets(&serde_json::json!([{
        "id": SET, "title": "one platform of several", "notes": "", "doc": "",
        "body": {"additionalImages": [
            {"name": "docker.io/library/alpine:3.20", "platforms": PLATFORMS},
            {"name": "quay.io/world/signed:v1", "platforms": PLATFORMS},
        ]},
    }]));
    Some(upstream)
}

fn mirror(binary: &Binary, upstream: &Upstream, target: &Target) -> Outcome {
    let isc = upstream.isc(SET).display().to_string();
    let workspace = format!("file://{}", binary.folder().join("workspace").display());
    let to = format!("docker://{}", target.address());
    binary.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to])
}

#[test]
fn only_the_platforms_asked_for_arrive_and_the_index_is_unaltered() {
    let (Some(crane), Some(upstream)) = (tools::need("crane"), upstream()) else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    mirror(&binary, &upstream, &target).expect_code(0);
    let expected = upstream.expected(SET);
    let wanted = Wanted::of_platforms(upstream.world(), &expected, &PLATFORMS);
    let bytes = |digest: &str| target.bytes(digest);
    assert_eq!(wanted.differences(&target.contents(), bytes, "", false), Vec::<String>::new());
    assert_eq!(wanted.altered(upstream.world(), bytes), Vec::<String>::new());
    for image in expected.images {
        let name = format!("{}/{}", target.address(), image.dest[0]);
        let validated = Command::new(&crane)
            .args(["validate", "--insecure", "--platform", PLATFORMS[0], "--remote", &name])
            .output()
            .expect("run crane");
        assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
    }
}

#[test]
fn a_registry_that_wants_whole_indexes_is_named() {
    let (Some(target), Some(upstream)) = (Target::docker_registry(), upstream()) else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let outcome = mirror(&binary, &upstream, &target);
    assert!(outcome.code.is_some_and(|code| code != 0), "it took a sparse index");
    assert!(outcome.stderr.contains("sparse"), "the limit is not named:\n{}", outcome.stderr);
    assert!(outcome.stderr.contains(target.address()), "the registry is not named:\n{}", outcome.stderr);
    let held = target.contents().repositories;
    for image in upstream.expected(SET).images {
        let (repository, tag) = image.dest[0].rsplit_once(':').expect("it has a tag");
        let named = held.get(repository).is_some_and(|held| held.tags.contains_key(tag));
        assert!(!named, "an incomplete image has its name: {}", image.dest[0]);
    }
}
