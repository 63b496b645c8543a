//! The promise: zot is a target and a source like any other as far as its version goes, sparse indexes included; what it does not take is named;
//! and its own copying takes whole images, signatures and referrers out of our registry.
//!
//! This is zot 1.4.3. It refuses Docker's media types with 415, whatever it is told; it lists referrers, with the type of the configuration where their
//! own should be, and does not answer a push with `OCI-Subject`, so that fallback tags are written as for a registry without that list.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::Held;
use airlock_testkit::target::{Access, Target};
use airlock_testkit::tools;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Sets of the world with OCI's media types only: artifacts and a chart; an index with signatures and referrers.
const SETS: [&str; 2] = ["add-05-artifacts", "add-07-signed"];
/// One of ours: of four indexes one platform, which makes them sparse; attestations stay behind.
const SPARSE: &str = "one-platform-of-oci";
const PLATFORMS: [&str; 1] = ["linux/amd64"];
/// Another of ours, with an image that no other set has.
const LATER: &str = "later";
/// How long zot's first round of copying may take.
const COPYING: Duration = Duration::from_secs(60);

fn upstream() -> Option<Upstream> {
    let upstream = World::get(Scale::Small)?.start(Serving::DockerRegistry)?;
    let images = [
        "quay.io/world/signed:v1",
        "docker.io/world/buildkit:v1",
        "registry.access.redhat.com/ubi8/ubi-minimal:latest",
        "registry.k8s.io/sig-storage/csi-attacher:v4.7.0",
    ]
    .map(|name| serde_json::json!({ "name": name, "platforms": PLATFORMS }));
    let set = |id: &str, images: serde_json::Value| serde_json::json!({ "id": id, "title": id, "notes": "", "doc": "", "body": { "additionalImages": images } });
    let later = serde_json::json!([{ "name": "quay.io/world/single-index:v1" }]);
    upstream.add_sets(&serde_json::json!([set(SPARSE, images.into()), set(LATER, later)]));
    Some(upstream)
}

fn closed() -> Access {
    Access { user: Some(("keeper".to_owned(), "pass word".to_owned())), tls: true }
}

/// The program, which trusts the target.
fn program(upstream: Option<&Upstream>, target: &Target) -> Binary {
    let mut binary = Binary::new(AIRLOCK);
    binary = match upstream {
        Some(upstream) => binary.envs(upstream.env()),
        None => binary.env("CONTAINERS_REGISTRIES_CONF", "/dev/null"),
    };
    match target.certificate() {
        Some(certificate) => binary.env("SSL_CERT_FILE", certificate.display().to_string()),
        None => binary,
    }
}

/// Mirrors into a target; `from` is an archive, or the network.
fn mirror(binary: &Binary, isc: &Path, from: Option<&Path>, target: &Target, access: &Access) -> Outcome {
    let mut arguments = vec!["mirror".to_owned(), "-c".into(), isc.display().to_string()];
    arguments.extend(match from {
        Some(folder) => ["--from".to_owned(), format!("file://{}", folder.display())],
        None => ["--workspace".to_owned(), format!("file://{}", binary.folder().join("workspace").display())],
    });
    if let Some((user, password)) = &access.user {
        arguments.extend(["--dest-creds".to_owned(), format!("{user}:{password}")]);
    }
    if !access.tls {
        arguments.push("--dest-tls-verify=false".to_owned());
    }
    arguments.push(format!("docker://{}", target.address()));
    binary.run(arguments)
}

/// The target holds exactly this, to the last byte.
#[track_caller]
fn judge(upstream: &Upstream, wanted: &Wanted, target: &Target) {
    let bytes = |digest: &str| target.bytes(digest);
    let found = wanted.differences(&target.contents(), bytes, "", !target.has_referrers_api());
    assert_eq!(found, Vec::<String>::new(), "{}", target.output());
    assert_eq!(wanted.altered(upstream.world(), bytes), Vec::<String>::new());
    assert_eq!(target.altered(), Vec::<String>::new());
}

#[test]
fn sets_arrive_whole_and_with_some_platforms_only() {
    let Some(upstream) = upstream() else { return };
    let sets = SETS.into_iter().map(|set| (set, &[][..])).chain([(SPARSE, &PLATFORMS[..])]);
    for (set, platforms) in sets {
        let (Some(straight), Some(loaded)) = (Target::zot(Access::default()), Target::zot(closed())) else { return };
        let isc = upstream.isc(set);
        let wanted = Wanted::of_platforms(upstream.world(), &upstream.expected(set), platforms);
        let here = program(Some(&upstream), &straight);
        mirror(&here, &isc, None, &straight, &Access::default()).expect_code(0);
        judge(&upstream, &wanted, &straight);

        let archive = here.folder().join("archive");
        here.run(["mirror", "-c", &isc.display().to_string(), &format!("file://{}", archive.display())]).expect_code(0);
        let there = program(None, &loaded);
        mirror(&there, &isc, Some(&archive), &loaded, &closed()).expect_code(0);
        judge(&upstream, &wanted, &loaded);
    }
}

#[test]
fn the_sparse_set_does_leave_something_behind() {
    // Guards the test above: were the world to lose its platforms, it would prove less than it says.
    let Some(upstream) = upstream() else { return };
    let expected = upstream.expected(SPARSE);
    let (all, some) =
        (Wanted::of(upstream.world(), &expected), Wanted::of_platforms(upstream.world(), &expected, &PLATFORMS));
    assert!(all.manifests().len() >= some.manifests().len() + expected.images.len());
    assert!(some.has_signatures() && some.has_referrers());
}

#[test]
fn a_type_that_it_does_not_take_is_named() {
    let Some(upstream) = upstream() else { return };
    let Some(target) = Target::zot(Access::default()) else { return };
    let binary = program(Some(&upstream), &target);
    let outcome = mirror(&binary, &upstream.isc("add-13-blocked-regex"), None, &target, &Access::default());
    assert!(outcome.code.is_some_and(|code| code != 0), "it took Docker's types");
    for word in ["application/vnd.docker.distribution.manifest", target.address(), "does not take"] {
        assert!(outcome.stderr.contains(word), "`{word}` is not said:\n{}", outcome.stderr);
    }
    assert!(target.contents().repositories.values().all(|held| held.tags.is_empty()), "half an image has a name");
}

#[test]
fn a_set_goes_out_of_it_again() {
    let Some(upstream) = upstream() else { return };
    let Some(middle) = Target::zot(Access::default()) else { return };
    let here = program(Some(&upstream), &middle);
    let own = here.folder().join("own.yaml");
    let mut text =
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n"
            .to_owned();
    for set in SETS {
        mirror(&here, &upstream.isc(set), None, &middle, &Access::default()).expect_code(0);
        for image in upstream.expected(set).images {
            text += &format!("  - name: {}/{}\n", middle.address(), image.dest[0]);
        }
    }
    std::fs::write(&own, text).unwrap();
    let ends = Target::docker_registry().into_iter().chain(Target::airlock(Path::new(AIRLOCK), Access::default()));
    for end in ends {
        let there = program(None, &end);
        let workspace = format!("file://{}", there.folder().join("workspace").display());
        let (own, to) = (own.display().to_string(), format!("docker://{}", end.address()));
        let arguments = ["mirror", "-c", &own, "--workspace", &workspace, "--src-tls-verify=false"];
        there.run(arguments.into_iter().chain(["--dest-tls-verify=false", &to])).expect_code(0);
        let mut expected = upstream.expected(SETS[0]);
        expected.images.extend(upstream.expected(SETS[1]).images);
        judge(&upstream, &Wanted::of(upstream.world(), &expected), &end);
    }
}

#[test]
fn it_copies_out_of_our_registry() {
    let (Some(crane), Some(upstream)) = (tools::need("crane"), upstream()) else { return };
    for access in [Access::default(), closed()] {
        let Some(ours) = Target::airlock(Path::new(AIRLOCK), access.clone()) else { return };
        let here = program(Some(&upstream), &ours);
        for set in SETS {
            mirror(&here, &upstream.isc(set), None, &ours, &access).expect_code(0);
        }
        let Some(zot) = Target::zot_copying(&ours) else { return };
        let wanted = ours.contents().repositories;
        let end = Instant::now() + COPYING;
        loop {
            let found = zot.contents().repositories;
            let absent: Vec<_> =
                wanted.iter().flat_map(|(name, held)| absent(&ours, name, held, found.get(name))).collect();
            if absent.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "with {access:?}: {absent:#?}\n{}", zot.output());
            thread::sleep(Duration::from_millis(200));
        }
        assert_eq!(zot.altered(), Vec::<String>::new());
        // What comes later is copied when somebody asks for it.
        mirror(&here, &upstream.isc(LATER), None, &ours, &access).expect_code(0);
        for image in SETS.iter().chain([&LATER]).flat_map(|set| upstream.expected(set).images) {
            let name = format!("{}/{}", zot.address(), image.dest[0]);
            assert_eq!(run(Command::new(&crane).args(["digest", "--insecure", &name])), image.digest, "{name}");
        }
    }
}

/// What zot lacks of a repository. Of an index it takes the signature and what refers to it, but not the signatures of its children.
fn absent(ours: &Target, name: &str, wanted: &Held, found: Option<&Held>) -> Vec<String> {
    let nothing = Held::default();
    let found = found.unwrap_or(&nothing);
    let tagged: BTreeSet<String> =
        wanted.tags.values().map(|digest| format!("{}.sig", digest.replace(':', "-"))).collect();
    let (of_children, tags): (Vec<_>, Vec<_>) =
        wanted.tags.iter().partition(|(tag, _)| tag.ends_with(".sig") && !tagged.contains(*tag));
    let tags = tags.into_iter().filter(|(tag, digest)| found.tags.get(*tag) != Some(*digest));
    let manifests = wanted.manifests.difference(&found.manifests);
    let manifests = manifests.filter(|digest| of_children.iter().all(|(_, signature)| signature != digest));
    // With them stay behind what they alone are made of, and nothing else.
    let parts_of = |digest: &String| -> Vec<String> {
        let manifest: serde_json::Value = serde_json::from_slice(&ours.bytes(digest)).unwrap_or_default();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        layers.chain([&manifest["config"]]).filter_map(|part| part["digest"].as_str()).map(str::to_owned).collect()
    };
    let theirs: BTreeSet<String> = of_children.iter().flat_map(|(_, digest)| parts_of(digest)).collect();
    let layers = wanted.layers.difference(&found.layers);
    tags.map(|(tag, _)| format!("{name}:{tag}"))
        .chain(manifests.map(|digest| format!("{name}@{digest}")))
        .chain(layers.filter(|digest| !theirs.contains(*digest)).map(|digest| format!("{name}: {digest}")))
        .collect()
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(done.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}
