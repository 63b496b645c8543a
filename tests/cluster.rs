//! The promise: credentials, certificates and resources for a cluster are made and checked without a cluster; a mistake is shown at
//! its place, a secret never.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use airlock_testkit::binary::{Binary, Outcome};
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const FAILED: i32 = 1;
const USAGE: i32 = 2;
const GAP: i32 = 8;

/// base64 of `robot:hunter2`.
const ROBOT: &str = "cm9ib3Q6aHVudGVyMg==";
/// base64 of `pusher:hunter3`.
const PUSHER: &str = "cHVzaGVyOmh1bnRlcjM=";

struct Desk {
    binary: Binary,
}

impl Desk {
    fn new() -> Self {
        Self { binary: Binary::new(AIRLOCK) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.binary.folder().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.text(name)).unwrap()
    }

    /// `cluster …`; whatever comes of it, no secret is in what is printed.
    #[track_caller]
    fn run(&self, arguments: &[&str], code: i32) -> Outcome {
        Self::clean(self.binary.run([&["cluster"], arguments].concat()), code)
    }

    #[track_caller]
    fn clean(outcome: Outcome, code: i32) -> Outcome {
        let outcome = outcome.expect_code(code);
        let printed = format!("{}{}", outcome.stdout, outcome.stderr);
        for secret in [ROBOT, PUSHER, "hunter"] {
            assert!(!printed.contains(secret), "a secret was printed: {printed}");
        }
        outcome
    }

    /// The same with something on standard input.
    #[track_caller]
    fn pipe(&self, input: &str, arguments: &str, code: i32) -> Outcome {
        let shell = Binary::new("/bin/sh");
        let script = format!(
            "cd {} && printf '%s\\n' '{input}' | {AIRLOCK} cluster {arguments}",
            self.binary.folder().display()
        );
        Self::clean(shell.run(["-c", &script]), code)
    }
}

fn secret(entries: &[(&str, &str)]) -> String {
    let auths: serde_json::Map<String, Value> = entries
        .iter()
        .map(|(host, auth)| ((*host).to_owned(), json!({"auth": auth, "email": "me@example.com"})))
        .collect();
    json!({ "auths": auths }).to_string()
}

#[test]
fn a_malformed_pull_secret_is_shown_with_a_caret_and_without_its_secrets() {
    let desk = Desk::new();
    let text = format!(
        r#"{{"auths":{{"quay.io":{{"auth":"{ROBOT}"}}, "registry.connect.redhat.com"{{"auth":"{PUSHER}"}}}}}}"#
    );
    let column = text.find("com\"{").unwrap() + 5;
    let file = desk.file("pull-secret.json", &text);
    for arguments in [
        vec!["pull-secret", "show", &file],
        vec!["pull-secret", "remove", "quay.io", "--to", &file],
        vec!["pull-secret", "diff", &file, &file],
        vec!["pull-secret", "merge", &file, "--to", "new.json"],
    ] {
        let said = desk.run(&arguments, USAGE).stderr;
        assert!(
            said.contains(&format!("pull-secret.json:1:{column}")) && said.contains("a colon is missing"),
            "{said}"
        );
        let lines: Vec<&str> = said.lines().collect();
        let at = lines.iter().position(|l| l.contains('^')).unwrap();
        let caret = lines[at].find('^').unwrap();
        assert_eq!(lines[at - 1].as_bytes()[caret], b'{', "{said}");
        assert!(said.contains("help: put `:` between the key and its value"), "{said}");
    }
    assert_eq!(desk.text("pull-secret.json"), text, "it was changed");
    assert!(!desk.path("new.json").exists(), "something was written");
}

#[test]
fn the_example_of_the_book_is_refused_at_the_right_column() {
    let shared = std::env::var("AIRLOCK_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = PathBuf::from(shared).join("seeds/002_9e849fe5bee6e29f.txt");
    let Ok(book) = fs::read_to_string(&path) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return;
    };
    let literal = book.lines().find_map(|l| l.strip_prefix("$ ").filter(|l| l.starts_with("{\"auths\":"))).unwrap();
    let column =
        literal.find("\"registry.connect.redhat.com\"{").unwrap() + "\"registry.connect.redhat.com\"".len() + 1;
    let desk = Desk::new();
    let file = desk.file("book.json", literal);
    let said = desk.run(&["pull-secret", "show", &file], USAGE).stderr;
    assert!(said.contains(&format!("book.json:1:{column}\n")), "{said}");
    assert!(!said.contains("NTE3MTMwNDB8"), "{said}");
    // Mended, it can be worked with.
    let mended = format!("{}:{}", &literal[..column - 1], &literal[column - 1..]);
    let file = desk.file("mended.json", &mended);
    let shown = desk.run(&["pull-secret", "show", &file, "-o", "json"], 0).stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["entries"].as_array().unwrap().len(), 6);
    assert_eq!(shown["entries"][5]["registry"], "my-registry:5000/my-namespace");
    desk.run(&["pull-secret", "remove", "cloud.openshift.com", "--to", &file], 0);
    assert_eq!(desk.json("mended.json")["auths"].as_object().unwrap().len(), 5);
}

#[test]
fn credentials_are_added_and_removed_with_the_rest_left_alone() {
    let desk = Desk::new();
    let file = desk.file("ps.json", &secret(&[("quay.io", ROBOT)]));
    fs::set_permissions(desk.path(&file), fs::Permissions::from_mode(0o644)).unwrap();
    let outcome =
        desk.pipe("hunter2", "pull-secret add --registry m.lab:5000 --username robot --password-stdin --to ps.json", 0);
    assert!(outcome.stdout.contains("m.lab:5000  added"), "{}", outcome.stdout);
    let now = desk.json(&file);
    assert_eq!(now["auths"]["m.lab:5000"], json!({"auth": ROBOT}));
    assert_eq!(now["auths"]["quay.io"], json!({"auth": ROBOT, "email": "me@example.com"}));
    assert_eq!(fs::metadata(desk.path(&file)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(desk.binary.folder()).unwrap().count(), 1, "something was left beside it");
    // A dry run says the same and writes nothing; another file is written without touching the first.
    let before = desk.text(&file);
    let dry = desk.run(&["pull-secret", "remove", "quay.io", "--to", &file, "--dry-run"], 0);
    assert!(
        dry.stdout.contains("quay.io   removed") && dry.stderr.contains("nothing was written"),
        "{}{}",
        dry.stdout,
        dry.stderr
    );
    desk.run(&["pull-secret", "remove", "quay.io", "--from", &file, "--to", "other.json"], 0);
    assert_eq!(desk.text(&file), before);
    assert!(desk.json("other.json")["auths"].get("quay.io").is_none());
    let diff = desk.run(&["pull-secret", "diff", &file, "other.json", "-o", "json"], GAP).stdout;
    assert_eq!(serde_json::from_str::<Value>(&diff).unwrap(), json!([{"registry": "quay.io", "action": "removed"}]));
    desk.run(&["pull-secret", "diff", &file, &file], 0);
    desk.run(&["pull-secret", "remove", "nowhere.io", "--to", &file], FAILED);
    desk.run(&["pull-secret", "remove", "quay.io"], USAGE);
    desk.run(&["pull-secret", "remove", "quay.io", "--to", "-", "--from", &file], USAGE);
    desk.pipe("", "pull-secret add --registry m.lab --username u --password-stdin --to ps.json", USAGE);
    desk.pipe("x", "pull-secret add --registry 'm lab' --username u --password-stdin --to ps.json", USAGE);
    assert_eq!(desk.text(&file), before);
}

#[test]
fn files_are_merged_and_a_credential_that_pushes_is_named() {
    let desk = Desk::new();
    let base = desk.file("base.json", &secret(&[("quay.io", ROBOT), ("m.lab:5000", ROBOT)]));
    let push = desk.file("push.json", &secret(&[("m.lab:5000", PUSHER)]));
    let said = desk.run(&["pull-secret", "merge", &base, &push, "--to", "out.json"], USAGE).stderr;
    assert!(said.contains("m.lab:5000 (user, password)") && said.contains("--replace"), "{said}");
    assert!(!desk.path("out.json").exists());
    let said =
        desk.run(&["pull-secret", "merge", &base, &push, "--replace", "--pushes", &push, "--to", "out.json"], 0).stderr;
    assert!(said.contains("W0524") && said.contains("every node of the cluster could write there"), "{said}");
    assert_eq!(desk.json("out.json")["auths"]["m.lab:5000"]["auth"], PUSHER);
    // With the user that may only pull in its place there is nothing to warn of.
    let read = desk.file("read.json", &secret(&[("m.lab:5000", ROBOT)]));
    let arguments = [
        "pull-secret",
        "merge",
        &base,
        &push,
        "--replace",
        "--pushes",
        &push,
        "--read-only",
        &read,
        "--to",
        "out.json",
    ];
    assert!(!desk.run(&arguments, 0).stderr.contains("W0524"));
    assert_eq!(desk.json("out.json")["auths"]["m.lab:5000"]["auth"], ROBOT);
    assert!(desk.run(&["pull-secret", "show", &push, "--pushes", &push], 0).stderr.contains("W0524"));
    desk.run(&["pull-secret", "merge", &base, &push, "--keep", "--as-secret", "--to", "secret.yaml"], 0);
    assert!(desk.text("secret.yaml").contains("type: kubernetes.io/dockerconfigjson\n"));
    desk.run(&["pull-secret", "diff", "secret.yaml", &base], 0);
    // The same credential under two names is visible without being shown.
    let shown = desk.run(&["pull-secret", "show", &base, "-o", "json"], 0).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["entries"][0]["same_as"].as_array().unwrap().len(), 1);
}

/// A sequence that has the form of a certificate, as PEM.
fn certificate() -> String {
    "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n".to_owned()
}

#[test]
fn certificates_become_a_config_map_and_a_patch() {
    let desk = Desk::new();
    let file = desk.file("ca.crt", &certificate());
    let entry = format!("mirror.corp:5000={file}");
    let text = desk.run(&["ca", &entry, "--update-service", &file], 0).stdout;
    assert!(text.contains("  mirror.corp..5000: |\n") && text.contains("  updateservice-registry: |\n"), "{text}");
    assert!(text.contains("kind: Image\n") && text.contains("    name: registry-config\n"), "{text}");
    let patch = desk.run(&["ca", &entry, "--name", "trusted", "--patch"], 0).stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&patch).unwrap(),
        json!({"spec": {"additionalTrustedCA": {"name": "trusted"}}})
    );
    let said = desk.run(&["ca", &entry, "--to", "out"], 0).stderr;
    assert!(said.contains("next: airlock cluster resources apply --dry-run out"), "{said}");
    let dry = desk.run(&["cluster", "resources", "apply", "--dry-run", "out"][1..], 0).stdout;
    assert!(dry.contains("configmap/registry-config") && dry.contains("image.config.openshift.io/cluster"), "{dry}");
    // An existing one is checked against rules and the update service.
    let rules = desk.file(
        "rules.yaml",
        "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n  - {source: quay.io, mirrors: ['mirror.corp:5000/q', 'other.corp/q']}\n",
    );
    let map = "out/ca-config-map.yaml";
    let said = desk.run(&["ca", "--check", map, "--rules", &rules], GAP).stderr;
    assert!(said.contains("MR044") && said.contains("`other.corp`") && !said.contains("`mirror.corp:5000`"), "{said}");
    let said = desk.run(&["ca", "--check", map, "--expect-update-service"], USAGE).stderr;
    assert!(said.contains("updateservice-registry"), "{said}");
    desk.run(&["ca", "--check", map], 0);
    let key = desk
        .file("key.pem", &format!("{}-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", certificate()));
    for (entry, word) in [
        (format!("mirror.corp={key}"), "private key"),
        (format!("mirror.corp/path={file}"), "has a path"),
        ("mirror.corp".to_owned(), "HOST=FILE"),
        ("mirror.corp=absent.crt".to_owned(), "absent.crt"),
        (format!("mirror.corp={rules}"), "no certificate"),
    ] {
        let said = desk.run(&["ca", &entry], USAGE).stderr;
        assert!(said.contains(word), "{entry}: {said}");
    }
}

#[test]
fn resources_are_shown_in_the_order_of_applying_and_strangers_are_refused() {
    let desk = Desk::new();
    let folder = "working-dir/cluster-resources";
    let rules = |kind: &str, list: &str| {
        format!(
            "apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: mine\nspec:\n  {list}:\n  - source: quay.io\n    mirrors: [m.lab/q]\n"
        )
    };
    desk.file(&format!("{folder}/cs.yaml"), "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: cs-redhat\n  namespace: openshift-marketplace\nspec:\n  image: m.lab/c:1\n");
    desk.file(&format!("{folder}/itms.yaml"), &rules("ImageTagMirrorSet", "imageTagMirrors"));
    desk.file(&format!("{folder}/idms.yaml"), &rules("ImageDigestMirrorSet", "imageDigestMirrors"));
    let shown = desk.run(&["resources", "apply", "--dry-run", folder, "-o", "json"], 0).stdout;
    let titles: Vec<String> = serde_json::from_str::<Value>(&shown)
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["title"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        titles,
        [
            "imagedigestmirrorset.config.openshift.io/mine",
            "imagetagmirrorset.config.openshift.io/mine",
            "catalogsource.operators.coreos.com/cs-redhat"
        ]
    );
    desk.file(&format!("{folder}/typo.yaml"), &rules("ImageTagMirrorSet", "imageDigestMirrors"));
    let said = desk.run(&["resources", "apply", "--dry-run", folder], USAGE).stderr;
    assert!(said.contains("typo.yaml:6:3") && said.contains("imageTagMirrors"), "{said}");
    desk.file(&format!("{folder}/typo.yaml"), "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\n");
    let said = desk.run(&["resources", "apply", "--dry-run", folder], USAGE).stderr;
    assert!(said.contains("typo.yaml") && said.contains("`Pod`"), "{said}");
    desk.run(&["resources", "apply", folder], USAGE);
    desk.run(&["resources", "apply", "--dry-run", "absent"], USAGE);
}
