//! The promise: a mirrored release is one that a disconnected cluster can trust and use, half a release is never taken for a whole one, and
//! finding out what a release consists of costs no request too many.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::target::{Access, Target};
use airlock_testkit::tools;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Scale, Serving, Upstream, World};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use support::{AIRLOCK, FAILED, PART, load_report_path, report, report_path, says};

const PAYLOADS: &str = "quay.io/openshift-release-dev/ocp-release";
const COMPONENTS: &str = "quay.io/openshift-release-dev/ocp-v4.0-art-dev";

fn upstream() -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::DockerRegistry)
}

fn binary(upstream: &Upstream) -> Binary {
    Binary::new(AIRLOCK).envs(upstream.env()).env("SOURCE_DATE_EPOCH", "1780000000")
}

fn to_disk(binary: &Binary, isc: &Path, more: &[&str]) -> (Outcome, PathBuf) {
    let archive = binary.folder().join("archive");
    let (isc, to) = (isc.display().to_string(), format!("file://{}", archive.display()));
    (binary.run(["mirror", "-c", &isc].into_iter().chain(more.iter().copied()).chain([to.as_str()])), archive)
}

fn load(binary: &Binary, isc: &Path, archive: &Path, target: &Target) -> Outcome {
    let (isc, from) = (isc.display().to_string(), format!("file://{}", archive.display()));
    let to = format!("docker://{}", target.address());
    binary.run(["mirror", "-c", &isc, "--from", &from, "--dest-tls-verify=false", &to])
}

/// One more image set, below the world's own.
fn add(upstream: &Upstream, id: &str, body: &Value) {
    upstream.add_sets(&json!([{ "id": id, "title": id, "notes": "", "doc": "", "body": body }]));
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("read the file")).expect("it is JSON")
}

fn resource(archive: &Path, name: &str) -> PathBuf {
    archive.join("working-dir/cluster-resources").join(name)
}

#[test]
fn the_config_map_holds_a_signature_that_gpg_accepts_for_the_mirrored_digest() {
    let (Some(gpg), Some(upstream)) = (tools::need("gpg"), upstream()) else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let binary = binary(&upstream);
    let isc = upstream.isc("rel-01-head");
    let (outcome, archive) = to_disk(&binary, &isc, &[]);
    outcome.expect_code(0);
    load(&binary, &isc, &archive, &target).expect_code(0);

    let map: Value = serde_json::from_slice(
        &fs::read(resource(&archive, "signature-configmap.json")).expect("there is a ConfigMap"),
    )
    .expect("it is JSON");
    assert_eq!(map["metadata"]["namespace"], "openshift-config-managed");
    assert_eq!(map["metadata"]["labels"]["release.openshift.io/verification-signatures"], "");
    let yaml = fs::read_to_string(resource(&archive, "signature-configmap.yaml")).expect("there is one in YAML");
    let data = map["binaryData"].as_object().expect("it has data");
    let payload =
        upstream.expected("rel-01-head").images.into_iter().find(|i| i.class == "release").expect("it has a release");
    assert_eq!(data.keys().collect::<Vec<_>>(), [&format!("{}-1", payload.digest.replace(':', "-"))]);
    for (key, value) in data {
        let text = value.as_str().expect("data are text");
        assert!(yaml.contains(&format!("{key}: {text}")), "YAML and JSON say the same");
        let home = tempfile::tempdir().expect("a folder for gpg");
        let signature = home.path().join("signature");
        fs::write(&signature, BASE64.decode(text).expect("it is base64")).expect("write the signature");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&gpg);
            command.args(["--batch", "--homedir"]).arg(home.path()).args(arguments).output().expect("run gpg")
        };
        let key = upstream.folder().join("keys/release-pk.asc").display().to_string();
        assert!(run(&["--import", &key]).status.success());
        let verified = run(&["--decrypt", &signature.display().to_string()]);
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
        let signed: Value = serde_json::from_slice(&verified.stdout).expect("what was signed is JSON");
        assert_eq!(signed["critical"]["image"]["docker-manifest-digest"], payload.digest.as_str());
    }
    // What else an administrator needs: how to update by hand, and what a new cluster's configuration says.
    let said = json_of(&load_report_path(&archive));
    let update = said["releases"][0]["update"].as_str().expect("it says how to update");
    let place = format!("{}/openshift/release-images@{}", target.address(), payload.digest);
    assert_eq!(update, format!("oc adm upgrade --allow-explicit-upgrade --to-image {place}"));
    let install = fs::read_to_string(archive.join("working-dir/install-config.yaml")).expect("there is a snippet");
    assert!(
        install.contains(&format!("  source: {COMPONENTS}\n")) && install.contains(&format!("  source: {PAYLOADS}\n")),
        "{install}"
    );
    let idms = fs::read_to_string(resource(&archive, "idms-oc-mirror.yaml")).expect("there is an IDMS");
    assert!(idms.contains("name: idms-release-0"), "{idms}");
    assert!(idms.contains(&format!("- {}/openshift/release\n    source: {COMPONENTS}\n", target.address())), "{idms}");
    assert!(
        idms.contains(&format!("- {}/openshift/release-images\n    source: {PAYLOADS}\n", target.address())),
        "{idms}"
    );
    assert!(!resource(&archive, "updateService.yaml").exists(), "no graph, no update service");
}

#[test]
fn the_graph_image_has_the_data_and_an_update_service_names_it() {
    let (Some(crane), Some(upstream)) = (tools::need("crane"), upstream()) else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let binary = binary(&upstream);
    let isc = upstream.isc("rel-19-graph");
    let (outcome, archive) = to_disk(&binary, &isc, &[]);
    outcome.expect_code(0);
    load(&binary, &isc, &archive, &target).expect_code(0);
    let name = format!("{}/openshift/graph-image:latest", target.address());
    let service = fs::read_to_string(resource(&archive, "updateService.yaml")).expect("there is an update service");
    assert!(service.contains(&format!("graphDataImage: {name}\n")), "{service}");
    assert!(service.contains(&format!("releases: {}/openshift/release-images\n", target.address())), "{service}");
    let validated =
        Command::new(&crane).args(["validate", "--insecure", "--remote", &name]).output().expect("run crane");
    assert!(validated.status.success(), "{}", String::from_utf8_lossy(&validated.stderr));
    let config = Command::new(&crane)
        .args(["config", "--insecure", "--platform", "linux/amd64", &name])
        .output()
        .expect("run crane");
    let config: Value = serde_json::from_slice(&config.stdout).expect("the configuration is JSON");
    assert_eq!(
        config["config"]["Cmd"][2],
        "exec cp -rp /var/lib/cincinnati-graph-data/* /var/lib/cincinnati/graph-data"
    );
    // Made again elsewhere, it is the same image.
    let again = Binary::new(AIRLOCK).envs(upstream.env()).env("SOURCE_DATE_EPOCH", "1780000000");
    let (outcome, other) = to_disk(&again, &isc, &[]);
    outcome.expect_code(0);
    assert!(
        fs::read(archive.join(PART)).expect("read") == fs::read(other.join(PART)).expect("read"),
        "another day, other bytes"
    );
}

/// An update service of one's own that has graphs, but not the data that they are made of.
fn enclave(upstream: &Upstream) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("it has an address");
    let behind = upstream.http().trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                match client.read(&mut piece) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.extend_from_slice(&piece[..count]),
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            if text.contains("graph-data") {
                let _ = client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                continue;
            }
            let Ok(mut server) = TcpStream::connect(&behind) else { return };
            let line = text.lines().next().unwrap_or_default();
            let _ = server.write_all(format!("{line}\r\nHost: {behind}\r\nConnection: close\r\n\r\n").as_bytes());
            let _ = std::io::copy(&mut server, &mut client);
        }
    });
    format!("http://{address}/graph")
}

#[test]
fn in_an_enclave_the_graph_image_is_taken_from_where_there_is_one_and_its_absence_is_told() {
    let Some(upstream) = upstream() else { return };
    let Some(mirror) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let isc = upstream.isc("rel-19-graph").display().to_string();
    // Nobody has one: everything else is carried.
    let here = binary(&upstream).env("UPDATE_URL_OVERRIDE", enclave(&upstream));
    let (outcome, archive) = to_disk(&here, &upstream.isc("rel-19-graph"), &[]);
    says(&outcome.expect_code(support::PARTIAL), &["graph", "404", "--graph-data"]);
    assert!(archive.join(PART).exists(), "the release itself is there");

    // The enterprise's registry has one beside its releases, as a mirror that was filled by us has.
    let to = format!("docker://{}/ocp", mirror.address());
    let workspace = format!("file://{}", here.folder().join("ws").display());
    binary(&upstream)
        .run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to])
        .expect_code(0);
    let conf = here.folder().join("enclave.conf");
    let place = mirror.address();
    let rule = |prefix: &str, location: &str| {
        format!(
            "[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{place}/ocp/openshift/{location}\"\ninsecure = true\n\n"
        )
    };
    let own = format!("[[registry]]\nlocation = \"{place}\"\ninsecure = true\n");
    fs::write(&conf, rule(PAYLOADS, "release-images") + &rule(COMPONENTS, "release") + &own).expect("write the rules");
    let inner = binary(&upstream)
        .env("UPDATE_URL_OVERRIDE", enclave(&upstream))
        .env("CONTAINERS_REGISTRIES_CONF", conf.display().to_string());
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let to = format!("docker://{}", target.address());
    let workspace = format!("file://{}", inner.folder().join("ws").display());
    inner.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to]).expect_code(0);
    let tag = |target: &Target, name: &str| target.contents().repositories[name].tags["latest"].clone();
    assert_eq!(tag(&target, "openshift/graph-image"), tag(&mirror, "ocp/openshift/graph-image"));
}

#[test]
fn a_narrower_configuration_loads_only_what_it_means_without_a_network() {
    let (Some(unshare), Some(upstream)) = (tools::need("unshare"), upstream()) else { return };
    let range =
        json!({"platform": {"channels": [{"name": "stable-4.17", "minVersion": "4.17.4", "maxVersion": "4.17.27"}]}});
    let one =
        json!({"platform": {"channels": [{"name": "stable-4.17", "minVersion": "4.17.10", "maxVersion": "4.17.10"}]}});
    add(&upstream, "range", &range);
    let here = binary(&upstream);
    let (outcome, archive) = to_disk(&here, &upstream.isc("range"), &[]);
    outcome.expect_code(0);
    let held = report(&archive);
    let payloads = |r: &Value| {
        let images = r["images"].as_array().expect("a report has images").iter();
        images
            .filter(|i| i["type"] == "ocpRelease")
            .map(|i| i["digest"].as_str().unwrap_or_default().to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(payloads(&held).len() > 1, "the archive has several releases");
    add(&upstream, "one", &one);
    let expected = upstream.expected("one");
    let isc = upstream.isc("one").display().to_string();
    let wanted = Wanted::of(upstream.world(), &expected);

    // A network namespace of its own, in which nothing but loopback is up: registry and program both run there.
    let there = Binary::new(AIRLOCK);
    let (folder, storage) = (there.folder(), there.folder().join("storage"));
    let script = format!(
        "ip link set lo up && {{ {AIRLOCK} registry serve --root {storage} --listen 127.0.0.1:5000 --plain-http --anonymous push & }} ; server=$!; \
         for n in $(seq 1200); do (echo > /dev/tcp/127.0.0.1/5000) 2>/dev/null && break; sleep 0.1; done; \
         {AIRLOCK} mirror -c {isc} --from file://{archive} --dest-tls-verify=false docker://127.0.0.1:5000; code=$?; \
         {AIRLOCK} verify -c {isc} --from file://{archive} --dest-tls-verify=false docker://127.0.0.1:5000 || code=99; \
         kill %1 2>/dev/null; kill $server 2>/dev/null; exit $code",
        storage = storage.display(),
        archive = archive.display(),
    );
    let run = Command::new(unshare)
        .args(["--net", "bash", "-c", &script])
        .env("HOME", &folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env_remove("CONTAINERS_REGISTRIES_CONF")
        .output()
        .expect("run unshare");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    if said.contains("Operation not permitted") {
        return tools::skipped("a network namespace needs rights that this user does not have");
    }
    assert!(run.status.success(), "{said}");
    let contents = airlock_testkit::contents::Contents::read(&storage);
    let bytes = |digest: &str| fs::read(airlock_testkit::contents::blob_path(&storage, digest)).unwrap_or_default();
    assert_eq!(wanted.differences(&contents, bytes, "", false), Vec::<String>::new());
}

/// A layer of a component that no other image has, the component's digest, and the repository.
fn a_component_layer(upstream: &Upstream, set: &str) -> String {
    let expected = upstream.expected(set);
    let world = upstream.world();
    let blobs = |digest: &str| -> BTreeSet<String> {
        let manifest: Value = serde_json::from_slice(&world.manifest(digest)).expect("a manifest is JSON");
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        layers.iter().filter_map(|l| l["digest"].as_str().map(str::to_owned)).collect()
    };
    let components: Vec<_> = expected.images.iter().filter(|i| i.class == "component").collect();
    for component in &components {
        let own = blobs(&component.digest);
        let others: BTreeSet<_> =
            expected.images.iter().filter(|i| i.digest != component.digest).flat_map(|i| blobs(&i.digest)).collect();
        if let Some(layer) = own.difference(&others).next() {
            return layer.clone();
        }
    }
    panic!("no component has a layer of its own");
}

#[test]
fn half_a_release_is_never_sealed_and_a_retry_completes_it_to_the_same_bytes() {
    let Some(upstream) = upstream() else { return };
    let isc = upstream.isc("rel-01-head");
    let undisturbed = binary(&upstream);
    let (outcome, whole) = to_disk(&undisturbed, &isc, &[]);
    outcome.expect_code(0);

    let layer = a_component_layer(&upstream, "rel-01-head");
    let hidden = upstream.hide_blob(COMPONENTS, &layer);
    let here = binary(&upstream);
    let (outcome, archive) = to_disk(&here, &isc, &["--parallel-images", "1"]);
    let outcome = outcome.expect_code(FAILED);
    says(&outcome, &[&layer, "without it the rest is of no use"]);
    assert!(!archive.join(PART).exists(), "half a release was sealed");
    assert!(archive.join(".airlock-journal").exists(), "what is there is kept");
    let said = report_path(&archive);
    let withheld = report(&archive)["images"]
        .as_array()
        .expect("images")
        .iter()
        .filter(|i| i["errors"][0]["code"] == "withheld")
        .count();
    assert!(withheld > 0, "new copies were begun");

    // The name that scripts know, with the bit that they know.
    let other = binary(&upstream);
    let to = format!("file://{}", other.folder().join("archive").display());
    other.run_as("oc-mirror", ["-c", &isc.display().to_string(), &to, "--v2"]).expect_code(2);

    hidden.restore();
    let before = upstream.requests().len();
    here.run(["mirror", "--retry", &said.display().to_string()]).expect_code(0);
    let read = |folder: &Path| fs::read(folder.join(PART)).expect("the archive is there");
    assert!(read(&archive) == read(&whole), "the retried archive differs");
    let again = upstream.requests().split_off(before);
    assert!(again.iter().any(|r| r.contains(&layer)), "it fetched what was missing");
    assert!(
        !again.iter().any(|r| r.starts_with("GET") && r.contains("/manifests/sha256:")),
        "manifests at hand are not asked for again: {again:?}"
    );
}

#[test]
fn what_belongs_to_no_release_goes_on_when_told_to() {
    let Some(upstream) = upstream() else { return };
    let body = json!({
        "platform": {"channels": [{"name": "stable-4.18"}]},
        "additionalImages": [{"name": "quay.io/world/app1:v1.1"}],
    });
    add(&upstream, "both", &body);
    let isc = upstream.isc("both");
    let layer = a_component_layer(&upstream, "both");
    let hidden = upstream.hide_blob(COMPONENTS, &layer);
    for (more, expected) in [(&[][..], 0), (&["--keep-going"][..], 1)] {
        let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
        let here = binary(&upstream);
        let workspace = format!("file://{}", here.folder().join("ws").display());
        let (isc, to) = (isc.display().to_string(), format!("docker://{}", target.address()));
        let fixed =
            ["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", "--parallel-images", "1"];
        here.run(fixed.into_iter().chain(more.iter().copied()).chain([to.as_str()])).expect_code(FAILED);
        let carried = target.contents().repositories.contains_key("world/app1");
        assert_eq!(usize::from(carried), expected, "{more:?}");
    }
    hidden.restore();
}

#[test]
fn planning_asks_for_each_manifest_once_and_planning_again_for_nothing_that_is_pinned() {
    let Some(upstream) = upstream() else { return };
    let here = binary(&upstream);
    let isc = upstream.isc("rel-01-head").display().to_string();
    here.run(["plan", "-c", &isc, "-o", "json"]).expect_code(0);
    let first = upstream.requests();
    let expected = upstream.expected("rel-01-head");
    let manifests: BTreeSet<String> = Wanted::of(upstream.world(), &expected)
        .manifests()
        .into_iter()
        .filter(|d| first.iter().any(|r| r.ends_with(d.as_str())))
        .collect();
    assert!(manifests.len() >= expected.images.len(), "every manifest was asked for");
    for digest in &manifests {
        let gets =
            first.iter().filter(|r| r.starts_with("GET") && r.ends_with(&format!("/manifests/{digest}"))).count();
        assert_eq!(gets, 1, "{digest} was asked for {gets} times");
        for suffix in [".sig", ""] {
            let tag = format!("/manifests/{}{suffix}", digest.replace(':', "-"));
            assert!(first.iter().filter(|r| r.ends_with(&tag)).count() <= 1, "{tag} was looked for more than once");
        }
    }
    let layers: BTreeSet<String> = expected
        .images
        .iter()
        .filter(|i| i.class == "release")
        .flat_map(|i| {
            let manifest: Value = serde_json::from_slice(&upstream.world().manifest(&i.digest)).expect("JSON");
            manifest["layers"].as_array().cloned().unwrap_or_default()
        })
        .filter_map(|l| l["digest"].as_str().map(str::to_owned))
        .collect();
    for request in first.iter().filter(|r| r.contains("/blobs/")) {
        assert!(layers.iter().any(|l| request.ends_with(l.as_str())), "a plan needs no {request}");
    }

    here.run(["plan", "-c", &isc, "-o", "json"]).expect_code(0);
    let second = upstream.requests().split_off(first.len());
    assert_eq!(second, Vec::<String>::new(), "nothing has changed");
}

#[test]
fn what_cannot_be_chosen_is_said_before_anything_moves() {
    let Some(upstream) = upstream() else { return };
    let channel = |more: Value| {
        let mut channel = json!({"name": "stable-4.18"});
        channel.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        json!({"platform": {"channels": [channel]}})
    };
    let cases = [
        ("unknown", channel(json!({"name": "stable-4.81"})), &["stable-4.81"][..]),
        ("above", channel(json!({"minVersion": "4.18.6", "maxVersion": "4.18.1"})), &["4.18.6", "4.18.1"]),
        (
            "absent",
            channel(json!({"minVersion": "4.18.999", "maxVersion": "4.18.1000", "shortestPath": true})),
            &["4.18.999", "stable-4.18"],
        ),
        ("arch", json!({"platform": {"architectures": ["sparc"], "channels": [{"name": "stable-4.18"}]}}), &["sparc"]),
    ];
    for (id, body, words) in cases {
        add(&upstream, id, &body);
        let here = binary(&upstream);
        let (outcome, archive) = to_disk(&here, &upstream.isc(id), &[]);
        assert!(outcome.code.is_some_and(|c| c != 0), "{id} was taken");
        says(&outcome, words);
        assert!(!archive.join(PART).exists(), "{id}");
        // oc-mirror's bit of releases.
        let to = format!("file://{}", here.folder().join("other").display());
        let named = here.run_as("oc-mirror", ["-c", &upstream.isc(id).display().to_string(), &to, "--v2"]);
        assert_eq!(named.code, Some(2), "{id}: {}", named.stdout);
        // Its words, and the cause that it keeps to itself.
        for word in ["no release images found"].iter().chain(words) {
            assert!(named.stdout.contains(word), "{id}: `{word}` is not said: {}", named.stdout);
        }
    }
    let here = binary(&upstream).env("UPDATE_URL_OVERRIDE", "http://127.0.0.1:1/graph");
    let (outcome, _) = to_disk(&here, &upstream.isc("rel-01-head"), &["--retry-times", "0"]);
    says(&outcome.expect_code(support::NETWORK), &["127.0.0.1:1"]);
    let to = format!("file://{}", here.folder().join("other").display());
    let named = here.run_as(
        "oc-mirror",
        ["-c", &upstream.isc("rel-01-head").display().to_string(), &to, "--v2", "--retry-times", "0"],
    );
    assert_eq!(named.code, Some(2), "{}", named.stdout);
    for word in ["no release images found", "127.0.0.1:1"] {
        assert!(named.stdout.contains(word), "`{word}` is not said: {}", named.stdout);
    }
}

#[test]
fn a_payload_that_nobody_trusted_signed_is_not_carried_unless_told_so() {
    let Some(upstream) = upstream() else { return };
    let isc = upstream.isc("rel-01-head");
    let bad = format!("{}/signatures-bad/openshift/release/", upstream.http());
    let here = binary(&upstream).env("OCP_SIGNATURE_URL", bad);
    let (outcome, archive) = to_disk(&here, &isc, &[]);
    let outcome = outcome.expect_code(FAILED);
    says(&outcome, &["signature"]);
    assert!(!archive.join(PART).exists());
    let (outcome, archive) = to_disk(&here, &isc, &["--ignore-release-signature"]);
    outcome.expect_code(0);
    assert!(archive.join(PART).exists());
}

#[test]
fn skopeo_finds_payload_and_components_through_the_generated_rules() {
    let (Some(skopeo), Some(upstream)) = (tools::need("skopeo"), upstream()) else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let here = binary(&upstream);
    let isc = upstream.isc("rel-01-head");
    let (outcome, archive) = to_disk(&here, &isc, &[]);
    outcome.expect_code(0);
    load(&here, &isc, &archive, &target).expect_code(0);
    // What a node of the cluster would have after these rules were applied, its registry being one without TLS.
    let cluster = here.folder().join("image.yaml");
    fs::write(
        &cluster,
        format!(
            "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata:\n  name: cluster\nspec:\n  registrySources:\n    insecureRegistries:\n    - {}\n",
            target.address()
        ),
    )
    .expect("write the cluster's image configuration");
    let idms = resource(&archive, "idms-oc-mirror.yaml").display().to_string();
    let rendered =
        here.run(["rules", "render", &idms, "--image-config", &cluster.display().to_string()]).expect_code(0);
    let conf = here.folder().join("node.conf");
    fs::write(&conf, &rendered.stdout).expect("write the node's registries.conf");
    let policy = here.folder().join("policy.json");
    fs::write(&policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("write a policy");
    for (number, image) in upstream.expected("rel-01-head").images.iter().enumerate() {
        let name = image.reference.split(['@']).next().unwrap_or_default();
        let copied = Command::new(&skopeo)
            .args(["--policy", &policy.display().to_string(), "--registries-conf", &conf.display().to_string()])
            .args(["copy", "--preserve-digests", &format!("docker://{name}@{}", image.digest)])
            .arg(format!("dir:{}", here.folder().join(format!("copied-{number}")).display()))
            .output()
            .expect("run skopeo");
        assert!(copied.status.success(), "{name}: {}", String::from_utf8_lossy(&copied.stderr));
    }
}

#[test]
fn a_release_in_an_archive_of_oc_mirror_loads_without_a_network() {
    let (Some(tar), Some(upstream)) = (tools::need("tar"), upstream()) else { return };
    let Some(target) = Target::airlock(Path::new(AIRLOCK), Access::default()) else { return };
    let here = binary(&upstream);
    let isc = upstream.isc("rel-01-head");
    let (outcome, archive) = to_disk(&here, &isc, &[]);
    outcome.expect_code(0);
    // Storage and working directory in one tar, without anything of ours (oc-mirror 3.7).
    let theirs = here.folder().join("theirs");
    fs::create_dir(&theirs).expect("make a folder");
    let run = |arguments: &[&str]| {
        let status = Command::new(&tar).args(arguments).status().expect("run tar");
        assert!(status.success(), "tar {arguments:?}");
    };
    let (unpacked, made) = (here.folder().join("unpacked"), theirs.join(PART));
    fs::create_dir(&unpacked).expect("make a folder");
    let (from, place, to) = (archive.display().to_string(), unpacked.display().to_string(), made.display().to_string());
    run(&["-xf", &archive.join(PART).display().to_string(), "-C", &place, "docker"]);
    run(&["-cf", &to, "-C", &place, "docker", "-C", &from, "working-dir/signatures", "working-dir/hold-release"]);

    let there = Binary::new(AIRLOCK)
        .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
        .env("UPDATE_URL_OVERRIDE", "http://127.0.0.1:1/graph");
    load(&there, &isc, &theirs, &target).expect_code(0);
    let wanted = Wanted::of(upstream.world(), &upstream.expected("rel-01-head"));
    let found = wanted.differences(&target.contents(), |d| target.bytes(d), "", false);
    assert_eq!(found, Vec::<String>::new());
    assert!(resource(&theirs, "signature-configmap.yaml").exists(), "the cluster can trust it");
}
