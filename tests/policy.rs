//! The promise: with a policy, only what it allows is carried; everything else is named, and the rest goes on. skopeo, which reads the
//! same file, is the judge.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_oci::Digest;
use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture::{self, Blob, Built};
use airlock_testkit::scripted::Registry;
use airlock_testkit::tools;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const PARTIAL: i32 = 3;
const FAILED: i32 = 1;
const NOT_AUTHORISED: i32 = 5;

/// Something that signs as cosign does.
enum Key {
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// One image of the table.
struct Case {
    repository: &'static str,
    requirements: Value,
    accepted: bool,
    /// Where it is not as `accepted`.
    skopeo: Option<bool>,
}

impl Key {
    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn pem(&self) -> String {
        let der = match self {
            Self::P256(key) => key.public_key().as_der().unwrap(),
            Self::Rsa(key) => key.public_key().as_der().unwrap(),
            Self::Ed25519(key) => key.public_key().as_der().unwrap(),
        };
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
    }

    fn sign(&self, message: &[u8]) -> String {
        let random = SystemRandom::new();
        STANDARD.encode(match self {
            Self::P256(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        })
    }

    /// A layer of a manifest of signatures: `name` and `digest` are what is signed.
    fn layer(&self, name: &str, digest: &Digest) -> Blob {
        let payload = payload(name, digest);
        let signature = self.sign(payload.as_bytes());
        layer(&payload, &signature)
    }

    /// As `sigstoreSigned`, where the name in the signature need only have the same repository.
    fn required(&self) -> Value {
        json!([{"type": "sigstoreSigned", "keyData": STANDARD.encode(self.pem()),
            "signedIdentity": {"type": "matchRepository"}}])
    }
}

fn payload(name: &str, digest: &Digest) -> String {
    json!({"critical": {"identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature"}, "optional": null})
    .to_string()
}

fn layer(payload: &str, signature: &str) -> Blob {
    let mut layer = fixture::blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.to_owned().into_bytes());
    layer.descriptor.annotations =
        BTreeMap::from([("dev.cosignproject.cosign/signature".into(), signature.to_owned())]);
    layer
}

/// Lays signatures of a manifest beside it.
fn attach(registry: &Registry, repository: &str, digest: &Digest, layers: Vec<Blob>) {
    let signatures = fixture::image(0).given(layers).layers(&[]).build();
    registry.put(repository, &signatures, Some(&format!("{}.sig", digest.fallback_tag())));
}

/// The table, put into a registry. All images have the tag `1`.
fn cases(registry: &Registry) -> Vec<Case> {
    let (key, other) = (Key::p256(), Key::p256());
    let mut seed = 0;
    let mut image = || {
        seed += 1;
        fixture::image(seed).platform("linux/amd64").build()
    };
    let mut cases = Vec::new();
    let mut add = |repository: &'static str, image: Built, requirements: Value, accepted: bool| {
        registry.put(repository, &image, Some("1"));
        cases.push(Case { repository, requirements, accepted, skopeo: None });
        cases.len() - 1
    };
    let name = |repository: &str| format!("{}/{repository}", registry.address());
    let sign = |repository: &str, image: &Built, key: &Key| {
        attach(registry, repository, image.digest(), vec![key.layer(&name(repository), image.digest())]);
    };

    let rsa = Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let ed25519 = Key::Ed25519(Ed25519KeyPair::generate().unwrap());
    for (repository, key) in [("t/p256", &key), ("t/rsa", &rsa), ("t/ed25519", &ed25519)] {
        let image = image();
        sign(repository, &image, key);
        add(repository, image, key.required(), true);
    }
    add("t/free", image(), json!([{"type": "insecureAcceptAnything"}]), true);
    add("t/rejected", image(), json!([{"type": "reject"}]), false);
    add("t/unsigned", image(), key.required(), false);
    add("t/gpg", image(), json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere"}]), false);

    let stranger = image();
    sign("t/stranger", &stranger, &other);
    add("t/stranger", stranger, key.required(), false);

    let tampered = image();
    let signature = key.sign(payload(&name("t/another"), tampered.digest()).as_bytes());
    let changed = layer(&payload(&name("t/tampered"), tampered.digest()), &signature);
    attach(registry, "t/tampered", tampered.digest(), vec![changed]);
    add("t/tampered", tampered, key.required(), false);

    let moved = image();
    let older = Digest::of(b"an older image");
    attach(registry, "t/moved", moved.digest(), vec![key.layer(&name("t/moved"), &older)]);
    add("t/moved", moved, key.required(), false);

    let named = image();
    attach(registry, "t/named", named.digest(), vec![key.layer(&name("t/else"), named.digest())]);
    add("t/named", named, key.required(), false);

    // Without a `signedIdentity` the tag counts: cosign's signatures have none, those of podman do.
    let by_default = |key: &Key| json!([{"type": "sigstoreSigned", "keyData": STANDARD.encode(key.pem())}]);
    let full = image();
    attach(registry, "t/full", full.digest(), vec![key.layer(&format!("{}:1", name("t/full")), full.digest())]);
    add("t/full", full, by_default(&key), true);
    let short = image();
    sign("t/short", &short, &key);
    add("t/short", short, by_default(&key), false);

    let second = image();
    let layers = vec![other.layer(&name("t/second"), second.digest()), key.layer(&name("t/second"), second.digest())];
    attach(registry, "t/second", second.digest(), layers);
    add("t/second", second, key.required(), true);

    let twofold = image();
    sign("t/twofold", &twofold, &key);
    let both = [key.required()[0].clone(), other.required()[0].clone()];
    add("t/twofold", twofold, json!(both), false);

    // What an index names is identified by it: a signature of the index is enough here. skopeo wants each platform signed.
    let pair = |seed: u64| {
        let of = |n, platform| fixture::image(seed + n).platform(platform).build();
        fixture::index(&[of(0, "linux/amd64"), of(1, "linux/arm64")]).build()
    };
    let index = pair(100);
    sign("t/index", &index, &key);
    let at = add("t/index", index, key.required(), true);
    let platforms = pair(200);
    for child in &platforms.children {
        sign("t/platforms", child, &key);
    }
    add("t/platforms", platforms, key.required(), true);
    let half = pair(300);
    sign("t/half", &half.children[0], &key);
    add("t/half", half, key.required(), false);
    cases[at].skopeo = Some(false);
    cases
}

fn policy(binary: &Binary, registry: &Registry, cases: &[Case]) -> PathBuf {
    let scopes: BTreeMap<String, &Value> =
        cases.iter().map(|c| (format!("{}/{}", registry.address(), c.repository), &c.requirements)).collect();
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}).to_string();
    write(binary, "policy.json", &text)
}

fn write(binary: &Binary, name: &str, text: &str) -> PathBuf {
    let path = binary.folder().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn isc<'a>(binary: &Binary, file: &str, registry: &Registry, names: impl IntoIterator<Item = &'a str>) -> PathBuf {
    let mut text =
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n"
            .to_owned();
    for name in names {
        text.push_str(&format!("  - name: {}/{name}\n", registry.address()));
    }
    write(binary, file, &text)
}

fn run(binary: &Binary, verb: &str, config: &Path, more: &[&str]) -> Outcome {
    let config = config.display().to_string();
    let words = [verb, "-c", &config, "--tls-verify=false", "--retry-times=0"];
    binary.run(words.into_iter().chain(more.iter().copied()))
}

/// Names and codes of what a report or a plan could not have.
fn denied(report: &Value) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let of = |image: &Value, error: &Value| (text(&image["name"]), (text(&error["code"]), text(&error["cause"])));
    match report["missing"].as_array() {
        Some(missing) => missing.iter().map(|m| of(m, m)).collect(),
        None => {
            let images = report["images"].as_array().unwrap();
            images.iter().filter(|i| i["status"] != "complete").map(|i| of(i, &i["errors"][0])).collect()
        }
    }
}

fn skopeo(program: &Path, policy: &Path, folder: &Path, registry: &Registry, case: &Case) -> (bool, String) {
    let config = folder.join("registries.d");
    fs::create_dir_all(&config).unwrap();
    let text = format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", registry.address());
    fs::write(config.join("test.yaml"), text).unwrap();
    let out = tempfile::tempdir_in(folder).unwrap();
    let done = Command::new(program)
        .args(["--policy", &policy.display().to_string(), "--registries.d", &config.display().to_string(), "copy"])
        .args(["--all", "--remove-signatures", "--src-tls-verify=false"])
        .arg(format!("docker://{}/{}:1", registry.address(), case.repository))
        .arg(format!("dir:{}", out.path().display()))
        .output()
        .unwrap();
    (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
}

#[test]
fn each_image_is_judged_as_skopeo_judges_it() {
    let (registry, binary) = (Registry::start(), Binary::new(AIRLOCK));
    let cases = cases(&registry);
    let policy = policy(&binary, &registry, &cases);
    let names: Vec<String> = cases.iter().map(|c| format!("{}:1", c.repository)).collect();
    let isc = isc(&binary, "isc.yaml", &registry, names.iter().map(String::as_str));
    let outcome = run(&binary, "plan", &isc, &["--policy", &policy.display().to_string(), "-o", "json"]);
    let plan: Value = serde_json::from_str(&outcome.expect_code(PARTIAL).stdout).unwrap();
    let denied = denied(&plan);
    for case in &cases {
        let name = format!("{}/{}:1", registry.address(), case.repository);
        assert_eq!(!denied.contains_key(&name), case.accepted, "{name}: {:?}", denied.get(&name));
        let Some((code, cause)) = denied.get(&name) else { continue };
        assert!(cause.contains("Source image rejected"), "{cause}");
        if case.repository == "t/gpg" {
            assert!(code == "unsupported" && cause.contains("use `sigstoreSigned` with `keyPath`"), "{code}: {cause}");
        } else {
            assert!(code == "denied" && cause.contains("is rejected by policy"), "{code}: {cause}");
        }
        let says = match case.repository {
            "t/unsigned" | "t/half" => "A signature was required, but no signature exists",
            "t/moved" => "does not match",
            "t/named" => "is not accepted",
            "t/short" => "matchRepository",
            "t/stranger" | "t/tampered" | "t/twofold" => "cryptographic signature verification failed",
            _ => "",
        };
        assert!(cause.contains(says), "{name}: {cause}");
    }
    let Some(program) = tools::need("skopeo") else { return };
    let mut unchecked = Vec::new();
    for case in &cases {
        let (accepted, said) = skopeo(&program, &policy, &binary.folder(), &registry, case);
        if said.contains("sigstore disabled") {
            // Debian builds it so; it still judges what needs no signature.
            unchecked.push(case.repository);
            continue;
        }
        assert_eq!(accepted, case.skopeo.unwrap_or(case.accepted), "{}: {said}", case.repository);
    }
    if !unchecked.is_empty() {
        tools::skipped(&format!("this skopeo does not check the signatures of {}", unchecked.join(", ")));
    }
}

#[test]
fn a_partial_archive_names_what_was_refused_and_a_retry_asks_the_policy_again() {
    let (registry, target, binary) = (Registry::start(), Registry::start(), Binary::new(AIRLOCK));
    let key = Key::p256();
    let (signed, late) = (fixture::image(1).build(), fixture::image(2).build());
    let name = |repository: &str| format!("{}/{repository}", registry.address());
    for (repository, image) in [("t/signed", &signed), ("t/late", &late)] {
        registry.put(repository, image, Some("1"));
    }
    attach(&registry, "t/signed", signed.digest(), vec![key.layer(&name("t/signed"), signed.digest())]);
    let policy = write(
        &binary,
        "policy.json",
        &json!({"default": [{"type": "reject"}], "transports": {"docker": {registry.address(): key.required()}}})
            .to_string(),
    );
    let flag = policy.display().to_string();
    let isc = isc(&binary, "isc.yaml", &registry, ["t/signed:1", "t/late:1"]);

    // Registry to registry: the same judgement, and what is refused does not arrive.
    let to = format!("docker://{}/mirror", target.address());
    let outcome =
        run(&binary, "mirror", &isc, &["--policy", &flag, "--workspace", "file://ws", &to]).expect_code(PARTIAL);
    assert!(outcome.stderr.contains("is rejected by policy"), "{}", outcome.stderr);
    assert!(target.has("mirror/t/signed", &signed));
    assert!(!target.content(|c| c.repositories().contains(&"mirror/t/late")));

    // Without signatures to carry they are still looked at; the archive has the image and no more.
    let to = "file://archive";
    let plain = ["--policy", &flag, "--remove-signatures", to];
    run(&binary, "mirror", &isc, &plain).expect_code(PARTIAL);
    let path = binary.folder().join("archive/working-dir/report.json");
    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let denied = denied(&report);
    assert_eq!(denied.keys().collect::<Vec<_>>(), [&format!("{}:1", name("t/late"))]);
    assert_eq!(report["retry"]["settings"]["policy"], flag);

    let retry = ["mirror", "--tls-verify=false", "--retry", "archive/working-dir/report.json"];
    binary.run(retry).expect_code(PARTIAL);
    attach(&registry, "t/late", late.digest(), vec![key.layer(&name("t/late"), late.digest())]);
    binary.run(retry).expect_code(0);

    // What is in an archive was judged when it was written: a policy that refuses everything does not touch it.
    let refuse = write(&binary, "refuse.json", r#"{"default":[{"type":"reject"}]}"#).display().to_string();
    let to = format!("docker://{}/load", target.address());
    let outcome = run(&binary, "mirror", &isc, &["--policy", &refuse, "--from", "file://archive", &to]).expect_code(0);
    assert!(outcome.stderr.contains("not applied to archives"), "{}", outcome.stderr);
    assert!(target.has("load/t/signed", &signed) && target.has("load/t/late", &late));
    assert!(!target.content(|c| c.tags("load/t/signed").unwrap().iter().any(|t| t.ends_with(".sig"))));
}

/// Who mirrored with a policy verifies with it: what was refused is told as such, and nothing else is wanted in its place.
#[test]
fn verifying_asks_the_policy_as_mirroring_did() {
    let (registry, target, binary) = (Registry::start(), Registry::start(), Binary::new(AIRLOCK));
    for (repository, number) in [("t/allowed", 1), ("t/refused", 2)] {
        registry.put(repository, &fixture::image(number).build(), Some("1"));
    }
    let allowed = json!({(format!("{}/t/allowed", registry.address())): [{"type": "insecureAcceptAnything"}]});
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": allowed}}).to_string();
    let flag = write(&binary, "policy.json", &text).display().to_string();
    let both = isc(&binary, "isc.yaml", &registry, ["t/allowed:1", "t/refused:1"]);
    let (to, workspace) = (format!("docker://{}", target.address()), format!("file://{}", binary.folder().display()));
    run(&binary, "mirror", &both, &["--policy", &flag, "--workspace", &workspace, &to]).expect_code(PARTIAL);
    let judged = run(&binary, "verify", &both, &["--policy", &flag, "-o", "json", &to]);
    let told: Value = serde_json::from_str(&judged.stdout).unwrap();
    assert_eq!(told["absent"].as_array().map(Vec::len), Some(0), "{}", judged.stdout);
    assert_eq!(denied(&told).len(), 1, "{}", judged.stdout);
    let open = run(&binary, "verify", &both, &["-o", "json", &to]);
    let told: Value = serde_json::from_str(&open.stdout).unwrap();
    assert_ne!(told["absent"].as_array().map(Vec::len), Some(0), "without the policy it is wanted");
}

#[test]
fn the_users_own_policy_is_found_and_a_mistake_in_it_is_named_first() {
    let (registry, binary) = (Registry::start(), Binary::new(AIRLOCK));
    registry.put("t/a", &fixture::image(1).build(), Some("1"));
    let isc = isc(&binary, "isc.yaml", &registry, ["t/a:1"]);
    let own = binary.home().join(".config/containers/policy.json");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, r#"{"default":[{"type":"reject"}]}"#).unwrap();
    run(&binary, "plan", &isc, &[]).expect_code(0);
    let outcome = run(&binary, "plan", &isc, &["--secure-policy"]).expect_code(NOT_AUTHORISED);
    assert!(outcome.stderr.contains(&format!("default of {}", own.display())), "{}", outcome.stderr);

    registry.clear_log();
    fs::write(&own, "{\n  \"default\": [{\"type\": \"rejcet\"}]\n}").unwrap();
    let outcome = run(&binary, "mirror", &isc, &["--secure-policy", "file://archive"]).expect_code(2);
    assert!(outcome.stderr.contains(&own.display().to_string()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`rejcet`") && outcome.stderr.contains("line 2"), "{}", outcome.stderr);
    assert!(registry.log().is_empty() && !binary.folder().join("archive").exists());
}

#[test]
fn a_registry_that_does_not_answer_for_the_signatures_is_no_permission() {
    use airlock_testkit::scripted::Fault;
    let (registry, binary) = (Registry::start(), Binary::new(AIRLOCK));
    let (key, image) = (Key::p256(), fixture::image(1).build());
    registry.put("t/a", &image, Some("1"));
    attach(&registry, "t/a", image.digest(), vec![key.layer(&format!("{}/t/a", registry.address()), image.digest())]);
    let isc = isc(&binary, "isc.yaml", &registry, ["t/a:1"]);
    let text = json!({"default": key.required()}).to_string();
    let policy = write(&binary, "policy.json", &text).display().to_string();
    run(&binary, "plan", &isc, &["--policy", &policy]).expect_code(0);
    registry.fault(Fault::on("GET", "/v2/t/a/manifests/*.sig").status(503));
    let outcome = run(&binary, "plan", &isc, &["--policy", &policy]).expect_code(FAILED);
    assert!(outcome.stderr.contains("503"), "{}", outcome.stderr);
}

#[test]
fn layouts_are_judged_by_their_directory() {
    let binary = Binary::new(AIRLOCK);
    let layout = binary.folder().join("layout");
    let image = fixture::image(1).build();
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [image.manifest.descriptor()]}).to_string(),
    )
    .unwrap();
    fs::write(layout.join("blobs/sha256").join(image.digest().hex()), image.manifest.bytes()).unwrap();
    for blob in &image.blobs {
        fs::write(layout.join("blobs/sha256").join(blob.descriptor.digest.hex()), &blob.bytes).unwrap();
    }
    let text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  - name: oci://{}\n    targetRepo: local/image\n",
        layout.display()
    );
    let isc = write(&binary, "isc.yaml", &text);
    let accept = json!([{"type": "insecureAcceptAnything"}]);
    let signed = Key::p256().required();
    let below = binary.folder().canonicalize().unwrap().display().to_string();
    for (default, oci, code) in [
        (json!([{"type": "reject"}]), json!({}), NOT_AUTHORISED),
        (json!([{"type": "reject"}]), json!({below: accept}), 0),
        (accept.clone(), json!({"": [{"type": "reject"}]}), NOT_AUTHORISED),
        (signed, json!({}), NOT_AUTHORISED),
    ] {
        let text = json!({"default": default, "transports": {"oci": oci}}).to_string();
        let policy = write(&binary, "policy.json", &text).display().to_string();
        let outcome = run(&binary, "plan", &isc, &["--policy", &policy]).expect_code(code);
        assert_eq!(outcome.stderr.contains("is rejected by policy"), code != 0, "{text}: {}", outcome.stderr);
    }
}

#[test]
fn as_oc_mirror_a_refused_image_is_exit_code_8_and_a_policy_alone_does_nothing() {
    let (registry, binary) = (Registry::start(), Binary::new(AIRLOCK));
    registry.put("t/a", &fixture::image(1).build(), Some("1"));
    let isc = isc(&binary, "isc.yaml", &registry, ["t/a:1"]).display().to_string();
    let policy = write(&binary, "policy.json", r#"{"default":[{"type":"reject"}]}"#).display().to_string();
    let run = |more: &[&str]| {
        let words = ["-c", &isc, "file://disk", "--v2", "--src-tls-verify=false", "--policy", &policy];
        binary.run_as("oc-mirror", words.into_iter().chain(more.iter().copied()))
    };
    let outcome = run(&["--secure-policy"]).expect_code(8);
    let printed = outcome.stdout + &outcome.stderr;
    assert!(printed.contains("Source image rejected: Running image docker://"), "{printed}");
    assert!(printed.contains("is rejected by policy"), "{printed}");
    assert!(!binary.folder().join("disk/mirror_000001.tar").exists());
    let outcome = run(&["--registries.d", "/etc/containers/registries.d"]).expect_code(0);
    let printed = outcome.stdout + &outcome.stderr;
    assert!(printed.contains("not used without --secure-policy"), "{printed}");
    assert!(printed.contains("--registries.d is not needed"), "{printed}");
}
