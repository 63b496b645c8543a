//! The promise: `release info` and `release extract` say of a release what it holds, wherever it lies, and a program taken out of a mirrored
//! release names that release.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use std::process::Command;

use airlock_content::layers::writer::Writer;
use airlock_content::release::tools::Slot;
use airlock_oci::media_type;
use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture::{self, Blob, Built};
use airlock_testkit::scripted::Registry;
use airlock_testkit::tools;
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const RELEASES: &str = "quay.io/openshift-release-dev/ocp-release";
const UPSTREAM: &str = "quay.io/openshift-release-dev/ocp-v4.0-art-dev";

fn world() -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::Scripted(Faults::default()))
}

fn release_of(upstream: &Upstream, tag: &str) -> Value {
    let inventory: Value =
        serde_json::from_slice(&std::fs::read(upstream.folder().join("world.json")).unwrap()).unwrap();
    let releases = inventory["releases"]["releases"].as_array().unwrap();
    releases.iter().find(|r| r["tag"] == tag).unwrap().clone()
}

fn ok(outcome: Outcome) -> String {
    outcome.expect_code(0).stdout
}

#[test]
fn a_release_upstream_is_described_as_its_payload_says() {
    let Some(upstream) = world() else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let (release, name) = (release_of(&upstream, "4.17.10-x86_64"), format!("{RELEASES}:4.17.10-x86_64"));
    let digest = release["digest"].as_str().unwrap();
    let info = |more: &[&str]| binary.run(["release", "info", &name].iter().chain(more));

    let text = ok(info(&[]));
    for line in [
        "Name:      4.17.10",
        &format!("Digest:    {digest}"),
        "OS/Arch:   linux/amd64",
        &format!("Pull From: {RELEASES}@{digest}"),
        "  Version:  4.17.10",
        "  Upgrades: 4.16.21, 4.17.4",
        &format!("    url: {}", release["url"].as_str().unwrap()),
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is not in\n{text}");
    }
    for component in release["components"].as_array().unwrap() {
        let (component, image) = (component["name"].as_str().unwrap(), component["ref"].as_str().unwrap());
        let sum = image.split_once('@').unwrap().1;
        let has = |text: &str, end: &str| text.lines().any(|l| l.split_whitespace().eq([component, end]));
        assert!(has(&text, sum), "{component} {sum}\n{text}");
        assert!(has(&ok(info(&["--pullspecs"])), image), "{component}");
        assert_eq!(ok(info(&["--image-for", component])), format!("{image}\n"));
    }
    assert_eq!(ok(info(&["-o", "digest"])), format!("{digest}\n"));
    assert_eq!(ok(info(&["-o", "jsonpath={.digest}"])), format!("{digest}\n"));
    assert_eq!(ok(info(&["-o", "jsonpath={.metadata.version}"])), "4.17.10\n");
    assert_eq!(ok(info(&["-o", "pullspec"])), format!("{RELEASES}@{digest}\n"));
    let document: Value = serde_json::from_str(&ok(info(&["-o", "json", "--sizes"]))).unwrap();
    assert_eq!(document["digest"], release["digest"]);
    assert_eq!(document["metadata"]["previous"], release["previous"]);
    assert_eq!(document["references"]["kind"], "ImageStream");
    let sizes = document["images"].as_object().unwrap();
    assert_eq!(sizes.len(), 12);
    for image in sizes.values() {
        let manifest: Value =
            serde_json::from_slice(&upstream.world().manifest(image["digest"].as_str().unwrap())).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(image["layers"], layers.len());
        assert_eq!(image["bytes"], layers.iter().map(|l| l["size"].as_u64().unwrap()).sum::<u64>());
    }
    let missing = info(&["--image-for", "etc"]).expect_code(1);
    assert!(missing.stderr.contains("etcd") && missing.stdout.is_empty(), "{}", missing.stderr);
}

#[test]
fn a_release_for_several_architectures_is_read_for_one_and_named_by_its_index() {
    let Some(upstream) = world() else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let release = release_of(&upstream, "4.18.27-multi");
    let name = format!("{RELEASES}:4.18.27-multi");
    let text = ok(binary.run(["release", "info", &name]));
    assert!(text.contains("OS/Arch:   multi (linux/amd64)"), "{text}");
    assert!(text.contains(&format!("Digest:    {}", release["digest"].as_str().unwrap())), "{text}");
    let arm: Value =
        serde_json::from_str(&ok(binary.run(["release", "info", &name, "--platform", "linux/arm64", "-o", "json"])))
            .unwrap();
    assert_eq!((arm["config"]["architecture"].as_str(), &arm["listDigest"]), (Some("arm64"), &release["digest"]));
    assert_ne!(arm["contentDigest"], arm["listDigest"]);
}

#[test]
fn two_releases_differ_in_what_their_payloads_say() {
    let Some(upstream) = world() else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let names = ["4.17.4-x86_64", "4.17.10-x86_64"].map(|tag| format!("{RELEASES}:{tag}"));
    let text = ok(binary.run(["release", "info", &names[0], &names[1]]));
    assert!(text.contains("Upgrade From: Yes") && text.contains("Images Changed:"), "{text}");
    let document: Value =
        serde_json::from_str(&ok(binary.run(["release", "info", &names[0], &names[1], "-o", "json"]))).unwrap();
    let components = |tag| -> BTreeMap<String, String> {
        let list = release_of(&upstream, tag)["components"].as_array().unwrap().clone();
        list.iter().map(|c| (c["name"].as_str().unwrap().into(), c["digest"].as_str().unwrap().into())).collect()
    };
    let (from, to) = (components("4.17.4-x86_64"), components("4.17.10-x86_64"));
    let expected: BTreeMap<&String, (&String, &String)> =
        from.iter().filter(|(n, d)| to[*n] != **d).map(|(n, d)| (n, (d, &to[n]))).collect();
    let changed = document["changedImages"].as_object().unwrap();
    assert!(!expected.is_empty());
    assert_eq!(changed.keys().collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
    for (name, (from, to)) in expected {
        assert_eq!((changed[name]["from"].as_str(), changed[name]["to"].as_str()), (Some(&**from), Some(&**to)));
    }
    let back = ok(binary.run(["release", "info", &names[1], &names[0]]));
    assert!(back.contains("Upgrade From: No"), "{back}");
    assert_eq!(ok(binary.run(["release", "info", &names[0], &names[0]])), "Releases are identical\n");
}

fn blob_of(files: &[(&str, &[u8])]) -> Blob {
    let mut writer = Writer::new(Vec::new(), 0);
    for (path, bytes) in files {
        writer.file(path, bytes.len() as u64, &mut &bytes[..]).unwrap();
    }
    let (bytes, layer) = writer.finish().unwrap();
    Blob { descriptor: layer.descriptor, bytes: bytes.into() }
}

fn image_of(seed: u64, files: &[(&str, &[u8])]) -> Built {
    fixture::image(seed).platform("linux/amd64").layers(&[]).given(vec![blob_of(files)]).build()
}

fn release(components: &[(&str, &Built)]) -> Built {
    let tags: Vec<Value> = components
        .iter()
        .map(|(name, image)| json!({"name": name, "from": {"kind": "DockerImage", "name": format!("{UPSTREAM}@{}", image.digest())}}))
        .collect();
    let references = json!({"kind": "ImageStream", "apiVersion": "image.openshift.io/v1", "metadata": {"name": "4.16.1"}, "spec": {"tags": tags}});
    let metadata = json!({"kind": "cincinnati-metadata-v0", "version": "4.16.1", "previous": []});
    image_of(
        9,
        &[
            ("release-manifests/image-references", references.to_string().as_bytes()),
            ("release-manifests/release-metadata", metadata.to_string().as_bytes()),
        ],
    )
}

#[test]
fn a_program_of_a_mirrored_release_names_that_release() {
    let upstream = Registry::start();
    let slots = |first: &[u8]| [first, &Slot::Version.empty(), b"between", &Slot::Image.empty(), b"end"].concat();
    // Large enough that slots lie across the pieces it is read in.
    let program = slots(&vec![b'p'; 256 * 1024 - 100]);
    let installer = image_of(1, &[("usr/bin/openshift-install", &program)]);
    let cli = image_of(2, &[("usr/bin/oc", &slots(b"oc"))]);
    let payload = release(&[("installer", &installer), ("cli", &cli)]);
    upstream.put("ns/openshift/release-images", &payload, Some("4.16.1-x86_64"));
    upstream.put("ns/openshift/release", &installer, Some("4.16.1-x86_64-installer"));
    upstream.put("ns/openshift/release", &cli, Some("4.16.1-x86_64-cli"));
    let binary = Binary::new(AIRLOCK);
    let name = format!("{}/ns/openshift/release-images:4.16.1-x86_64", upstream.address());
    let extract = |more: &[&str]| {
        let fixed = ["release", "extract", &name, "--insecure", "--to", "out"];
        binary.run(fixed.iter().chain(more))
    };
    let done = extract(&["--command=openshift-install"]).expect_code(0);
    // This one has no slot for an architecture.
    assert!(done.stderr.contains("no place for the release's architecture"), "{}", done.stderr);
    assert!(done.stdout.is_empty());
    let path = binary.folder().join("out/openshift-install");
    let written = std::fs::read(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(written.len(), program.len());
    let spec = format!("{}/ns/openshift/release-images@{}\0", upstream.address(), payload.digest());
    let image_at = 256 * 1024 - 100 + Slot::Version.size() + 7;
    assert_eq!(&written[image_at..image_at + spec.len()], spec.as_bytes());
    assert_eq!(&written[256 * 1024 - 100..][..7], b"4.16.1\0");
    let differing = written.iter().zip(&program).filter(|(a, b)| a != b).count();
    assert!(differing <= spec.len() + 7, "nothing else was changed");

    extract(&["--command=oc"]).expect_code(0);
    let oc = std::fs::read(binary.folder().join("out/oc")).unwrap();
    assert_eq!(&oc[..9], b"oc4.16.1\0");
    assert!(oc.windows(24).any(|w| w == b"_RELEASE_IMAGE_LOCATION_"), "the client names no image");
    let names: Vec<_> =
        std::fs::read_dir(binary.folder().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");

    let missing = extract(&["--command=ccoctl"]).expect_code(1);
    assert!(missing.stderr.contains("cloud-credential-operator"), "{}", missing.stderr);
    extract(&["--command=kubectl"]).expect_code(2);
    extract(&["--command=oc", "--command-os=plan9"]).expect_code(2);
}

#[test]
fn a_release_is_read_where_the_rules_of_a_file_lead() {
    let mirror = Registry::start();
    let installer = image_of(1, &[("usr/bin/openshift-install", &Slot::Image.empty())]);
    let payload = release(&[("installer", &installer)]);
    mirror.put("ocp4", &payload, Some("4.16.1-x86_64"));
    mirror.put("ocp4", &installer, Some("4.16.1-x86_64-installer"));
    let binary = Binary::new(AIRLOCK);
    let entry = |source: &str| {
        format!(
            "  - mirrors:\n    - {}/ocp4\n    source: {source}\n    mirrorSourcePolicy: NeverContactSource\n",
            mirror.address()
        )
    };
    let idms = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: a\nspec:\n  imageDigestMirrors:\n";
    std::fs::write(binary.folder().join("idms.yaml"), format!("{idms}{}{}", entry(RELEASES), entry(UPSTREAM))).unwrap();
    let icsp = "apiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata:\n  name: a\nspec:\n  repositoryDigestMirrors:\n";
    let entries = (entry(RELEASES) + &entry(UPSTREAM)).replace("    mirrorSourcePolicy: NeverContactSource\n", "");
    std::fs::write(binary.folder().join("icsp.yaml"), format!("{icsp}{entries}")).unwrap();

    for rules in ["--idms-file=idms.yaml", "--icsp-file=icsp.yaml"] {
        for name in [format!("{RELEASES}:4.16.1-x86_64"), format!("{RELEASES}@{}", payload.digest())] {
            let info = ["release", "info", &name, rules, "--insecure=true", "--sizes", "-o", "json"];
            let document: Value = serde_json::from_str(&ok(binary.run(info))).unwrap();
            assert_eq!(document["digest"], payload.digest().to_string());
            assert!(
                document["images"]["installer"]["layers"].as_u64() > Some(0),
                "the component was not read: {document}"
            );
        }
        let name = format!("{RELEASES}:4.16.1-x86_64");
        let extract =
            ["release", "extract", &name, rules, "--insecure=true", "--command=openshift-install", "--to", "out"];
        binary.run(extract).expect_code(0);
        let written = std::fs::read(binary.folder().join("out/openshift-install")).unwrap();
        // By the name it has for everybody: the cluster that it installs has the rules too.
        let spec = format!("{RELEASES}@{}\0", payload.digest());
        assert!(written.windows(spec.len()).any(|w| w == spec.as_bytes()), "the installer does not name its release");
    }
    let wrong = ["release", "info", "a.io/b:1", "--idms-file=idms.yaml", "--icsp-file=icsp.yaml"];
    binary.run(wrong).expect_code(2);
    std::fs::write(binary.folder().join("none.yaml"), "kind: ConfigMap\n").unwrap();
    let none = binary.run(["release", "info", "a.io/b:1", "--idms-file=none.yaml"]).expect_code(2);
    assert!(none.stderr.contains("none.yaml"), "{}", none.stderr);
}

#[test]
fn all_programs_come_as_archives_with_checksums() {
    let upstream = Registry::start();
    let slots = |first: &[u8]| [first, &Slot::Version.empty(), b"between", &Slot::Image.empty(), b"end"].concat();
    let (client, artifact) = (slots(b"oc"), slots(b"artifact"));
    let shared = |file: &str| format!("usr/share/openshift/{file}");
    let artifacts = ["linux_amd64/oc.rhel9", "linux_arm64/oc", "mac/oc", "windows/oc.exe"].map(shared);
    let files: Vec<(&str, &[u8])> = artifacts.iter().map(|path| (path.as_str(), &artifact[..])).collect();
    let images = [
        ("cli", image_of(1, &[("usr/bin/oc", &client)])),
        ("cli-artifacts", image_of(2, &files)),
        ("installer", image_of(3, &[("usr/bin/openshift-install", &slots(b"install"))])),
        ("cloud-credential-operator", image_of(4, &[("usr/bin/ccoctl.rhel9", b"ccoctl")])),
    ];
    let payload = release(&images.iter().map(|(name, image)| (*name, image)).collect::<Vec<_>>());
    upstream.put("ocp4", &payload, Some("4.16.1-x86_64"));
    for (name, image) in &images {
        upstream.put("ocp4", image, Some(&format!("4.16.1-x86_64-{name}")));
    }
    let binary = Binary::new(AIRLOCK);
    let name = format!("{}/ocp4:4.16.1-x86_64", upstream.address());
    let done = binary.run(["release", "extract", &name, "--insecure", "--tools", "--to", "out"]).expect_code(0);
    assert!(done.stderr.contains("`openshift-client-mac-arm64-4.16.1.tar.gz` is left out"), "{}", done.stderr);
    let out = binary.folder().join("out");
    let names: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected: Vec<String> = [
        "client-linux",
        "client-linux-amd64",
        "client-linux-amd64-rhel9",
        "client-linux-arm64",
        "client-mac",
        "install-linux",
        "install-linux-amd64",
    ]
    .map(|name| format!("openshift-{name}-4.16.1.tar.gz"))
    .to_vec();
    expected.extend(
        ["openshift-client-windows-4.16.1.zip", "ccoctl-linux-rhel9-4.16.1.tar.gz", "release.txt", "sha256sum.txt"]
            .map(String::from),
    );
    assert_eq!(names.into_iter().collect::<std::collections::BTreeSet<_>>(), expected.into_iter().collect());
    let sums = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "sha256sum.txt"])
        .current_dir(&out)
        .output()
        .unwrap();
    assert!(sums.status.success() && sums.stdout.is_empty(), "{}", String::from_utf8_lossy(&sums.stdout));
    assert_eq!(std::fs::read_to_string(out.join("sha256sum.txt")).unwrap().lines().count(), 10);
    assert!(
        std::fs::read_to_string(out.join("release.txt"))
            .unwrap()
            .contains(&format!("{UPSTREAM}@{}", images[0].1.digest()))
    );

    let unpacked = |archive: &str, file: &str| -> Vec<u8> {
        let tar = Command::new("tar").arg("-xOzf").arg(out.join(archive)).arg(file).output().unwrap();
        assert!(tar.status.success(), "{archive}: {}", String::from_utf8_lossy(&tar.stderr));
        tar.stdout
    };
    for (archive, begins) in [
        ("openshift-client-linux-4.16.1.tar.gz", &b"oc4.16.1\0"[..]),
        ("openshift-client-linux-amd64-rhel9-4.16.1.tar.gz", b"artifact4.16.1\0"),
    ] {
        let oc = unpacked(archive, "oc");
        assert!(oc.starts_with(begins) && oc.windows(24).any(|w| w == b"_RELEASE_IMAGE_LOCATION_"), "{archive}");
    }
    let installer = unpacked("openshift-install-linux-4.16.1.tar.gz", "openshift-install");
    let spec = format!("{}/ocp4@{}\0", upstream.address(), payload.digest());
    assert!(installer.windows(spec.len()).any(|w| w == spec.as_bytes()), "the installer names no release");
    assert_eq!(unpacked("ccoctl-linux-rhel9-4.16.1.tar.gz", "ccoctl"), b"ccoctl");
    // Each image was read once.
    let layer = images[1].1.blobs[1].descriptor.digest.to_string();
    assert_eq!(upstream.log().iter().filter(|r| r.method == "GET" && r.path.ends_with(&layer)).count(), 1);
    binary.run(["release", "extract", &name, "--tools", "--command=oc"]).expect_code(2);
}

/// What a layer that is far larger than the program may take in memory.
const MOST_MEMORY_KIB: u64 = 64 * 1024;

#[test]
fn a_large_program_is_never_in_memory() {
    let upstream = Registry::start();
    let slot = Slot::Image.empty();
    let mut program = fixture::random(1, 48 << 20).to_vec();
    program.resize(256 << 20, 0);
    program.extend_from_slice(&slot);
    let installer = image_of(1, &[("usr/bin/openshift-install", &program)]);
    let payload = release(&[("installer", &installer)]);
    upstream.put("ocp4", &payload, Some("4.16.1-x86_64"));
    upstream.put("ocp4", &installer, Some("4.16.1-x86_64-installer"));
    let binary = Binary::new(AIRLOCK);
    let name = format!("{}/ocp4:4.16.1-x86_64", upstream.address());
    let fixed = ["release", "extract", &name, "--insecure", "--command", "openshift-install"];
    let done = binary.run(fixed).expect_code(0);
    assert!(done.usage.peak_rss_kib < MOST_MEMORY_KIB, "{} KiB", done.usage.peak_rss_kib);
    let path = binary.folder().join("openshift-install");
    assert_eq!(std::fs::metadata(path).unwrap().len(), program.len() as u64);
}

#[test]
fn a_program_that_came_damaged_is_not_left_behind() {
    let upstream = Registry::start();
    let installer = image_of(1, &[("usr/bin/openshift-install", &fixture::random(1, 400_000))]);
    let payload = release(&[("installer", &installer)]);
    upstream.put("r/release-images", &payload, Some("1"));
    let mut bad = installer.clone();
    let layer = &mut bad.blobs[1];
    let mut bytes = layer.bytes.to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    layer.bytes = bytes.into();
    upstream.put("r/release", &bad, Some("1-installer"));
    let binary = Binary::new(AIRLOCK);
    let name = format!("{}/r/release-images:1", upstream.address());
    let failed =
        binary.run(["release", "extract", &name, "--insecure", "--to", "out", "--command", "openshift-install"]);
    assert_ne!(failed.code, Some(0));
    assert!(failed.stderr.contains("digest"), "{}", failed.stderr);
    assert_eq!(std::fs::read_dir(binary.folder().join("out")).unwrap().count(), 0);
}

#[test]
fn the_files_of_the_real_release_come_out_as_they_went_in() {
    let Some(shared) = tools::shared() else { return };
    let vectors = shared.join("vectors/updates/release-payload");
    let packed = vectors.join("ocp-4.12.0-x86_64-release-manifests-layer.tar.gz");
    let layer = fixture::blob(media_type::DOCKER_LAYER_GZIP, std::fs::read(&packed).unwrap());
    let payload = fixture::image(1).docker().platform("linux/amd64").layers(&[]).given(vec![layer]).build();
    let upstream = Registry::start();
    upstream.put("openshift-release-dev/ocp-release", &payload, Some("4.12.0-x86_64"));
    let binary = Binary::new(AIRLOCK);
    let name = format!("{}/openshift-release-dev/ocp-release:4.12.0-x86_64", upstream.address());
    let extract = |more: &[&str]| {
        let fixed = ["release", "extract", &name, "--insecure"];
        binary.run(fixed.iter().chain(more)).expect_code(0)
    };
    let said = extract(&["--to", "out"]).stderr;
    assert!(said.contains("646 files") && said.contains(&payload.digest().to_string()), "{said}");
    let unpacked = tempfile::tempdir().unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(&packed).arg("-C").arg(unpacked.path()).status().unwrap();
    assert!(tar.success());
    let folders = [unpacked.path().join("release-manifests"), binary.folder().join("out")];
    assert!(Command::new("diff").arg("-r").args(folders).status().unwrap().success());
    // Again, over what is there.
    extract(&["--to", "out"]);
    let references = std::fs::read_to_string(vectors.join("image-references-4.12.0.json")).unwrap();
    assert_eq!(extract(&["--file", "image-references"]).stdout, references);
    assert_eq!(extract(&["--file", "release-manifests/image-references"]).stdout, references);
    let missing = binary.run(["release", "extract", &name, "--insecure", "--file", "nothing"]).expect_code(1);
    assert!(missing.stderr.contains("nothing"), "{}", missing.stderr);

    let text = binary.run(["release", "info", &name, "--insecure"]).expect_code(0).stdout;
    for line in [
        "Manifests:      643",
        "Metadata files: 1",
        "  Version:  4.12.0",
        "    url: https://access.redhat.com/errata/RHSA-2022:7399",
        "  kubernetes 1.25.4",
        "  machine-os 412.86.202301061548-0 Red Hat Enterprise Linux CoreOS",
    ] {
        assert!(text.lines().any(|l| l == line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn a_release_is_read_in_an_archive_under_the_name_it_came_from() {
    let Some(upstream) = world() else { return };
    let name = format!("{RELEASES}:4.17.10-x86_64");
    upstream.add_sets(&json!([{
        "id": "payload", "title": "one payload", "notes": "", "doc": "", "body": {"additionalImages": [{"name": name}]},
    }]));
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    binary.run(["mirror", "-c", &upstream.isc("payload").display().to_string(), "file://archive"]).expect_code(0);
    let digest = release_of(&upstream, "4.17.10-x86_64")["digest"].as_str().unwrap().to_owned();
    drop(upstream);
    let offline = |more: &[&str]| binary.run(["release", "info", &name, "--from", "file://archive"].iter().chain(more));
    assert_eq!(ok(offline(&["-o", "digest"])), format!("{digest}\n"));
    assert!(ok(offline(&["--pullspecs"])).contains(UPSTREAM));
    let other = binary.run(["release", "info", "quay.io/a/b:1", "--from", "file://archive"]);
    assert_ne!(other.code, Some(0));
}

#[test]
fn what_is_no_release_is_said_to_be_none() {
    let upstream = Registry::start();
    upstream.put("a/b", &image_of(1, &[("etc/os-release", b"x")]), Some("1"));
    let name = format!("{}/a/b:1", upstream.address());
    let failed = Binary::new(AIRLOCK).run(["release", "info", &name, "--insecure"]).expect_code(2);
    assert!(failed.stderr.contains("this is no release image"), "{}", failed.stderr);
}
