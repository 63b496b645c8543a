//! podman and skopeo judge `airlock rules`: through a rendered file they try the endpoints that `rules resolve` names, in that
//! order, and take the first that is there. docker-registry plays mirror and source: up, down, and missing the image.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::path::Path;
use std::process::{Command, Output};

use airlock_testkit::process::Port;
use airlock_testkit::target::Target;
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, Upstream, World};
use serde_json::Value;
use tempfile::TempDir;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// A multi-platform image of the world.
const IMAGE: &str = "registry.redhat.io/ubi9/ubi:latest";

/// Source, two mirrors, and a port where nobody listens.
struct Stage {
    source: Target,
    first: Target,
    second: Target,
    down: Port,
    digest: String,
    folder: TempDir,
    _upstream: Upstream,
}

/// What a client did.
#[derive(Debug)]
struct Pull {
    succeeded: bool,
    /// The endpoints that it contacted, in order, and those that it refused to.
    tried: Vec<String>,
    log: String,
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

impl Stage {
    /// The image is at the source and at the second mirror; the first mirror is up and does not have it.
    fn set() -> Option<Self> {
        let skopeo = tools::need("skopeo")?;
        let upstream = World::get(Scale::Small)?.start(Serving::DockerRegistry)?;
        let (source, first, second) =
            (Target::docker_registry()?, Target::docker_registry()?, Target::docker_registry()?);
        let folder = tempfile::tempdir().unwrap();
        for to in [format!("{}/demo/app:1", source.address()), format!("{}/m/app:1", second.address())] {
            let copied = run(Command::new(&skopeo)
                .args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--quiet"])
                .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
                .arg(format!("docker://{}/{IMAGE}", upstream.address()))
                .arg(format!("docker://{to}")));
            assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        }
        let digest = second.contents().repositories["m/app"].tags["1"].clone();
        Some(Self { source, first, second, down: Port::claim(), digest, folder, _upstream: upstream })
    }

    /// Renders rules for the source: `kind` is `Digest` or `Tag`, mirrors in order.
    fn render(&self, kind: &str, mirrors: &[String], never: bool) {
        let policy = if never { "    mirrorSourcePolicy: NeverContactSource\n" } else { "" };
        let list: String = mirrors.iter().map(|mirror| format!("    - {mirror}\n")).collect();
        let source = self.source.address();
        let rules = format!(
            "apiVersion: config.openshift.io/v1\nkind: Image{kind}MirrorSet\nmetadata: {{name: judged}}\nspec:\n  image{kind}Mirrors:\n  - source: {source}/demo\n    mirrors:\n{list}{policy}"
        );
        let hosts: String = [source, self.first.address(), self.second.address(), &self.down.address().to_string()]
            .iter()
            .map(|host| format!("'{host}',"))
            .collect();
        let image = format!(
            "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {{name: cluster}}\nspec: {{registrySources: {{insecureRegistries: [{hosts}]}}}}\n"
        );
        std::fs::write(self.folder.path().join("rules.yaml"), rules).unwrap();
        std::fs::write(self.folder.path().join("image.yaml"), image).unwrap();
        let rendered = self.airlock(&["rules", "render", "rules.yaml", "--image-config", "image.yaml"]);
        std::fs::write(self.folder.path().join("registries.conf"), &rendered.stdout).unwrap();
        // This skopeo knows no variable for the file; the user's own is the same for both clients.
        let own = self.folder.path().join(".config/containers");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("registries.conf"), &rendered.stdout).unwrap();
    }

    fn airlock(&self, args: &[&str]) -> Output {
        let output = run(Command::new(AIRLOCK).args(args).current_dir(self.folder.path()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The endpoints that we name, in order, from the file and from the objects.
    fn named(&self, reference: &str) -> Vec<String> {
        let of = |args: &[&str]| {
            let all = [&["rules", "resolve", reference, "-o", "json"], args].concat();
            let answer: Value = serde_json::from_slice(&self.airlock(&all).stdout).unwrap();
            let endpoints = answer[0]["candidates"][0]["endpoints"].as_array().unwrap().clone();
            endpoints.iter().map(|e| e["reference"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let from_file = of(&["--registries-conf", "registries.conf"]);
        assert_eq!(of(&["--rules", "rules.yaml", "--image-config", "image.yaml"]), from_file);
        from_file
    }

    fn client(&self, command: &mut Command) -> Pull {
        let conf = self.folder.path().join("registries.conf");
        let output = run(command
            .env("CONTAINERS_REGISTRIES_CONF", conf)
            .env("CONTAINERS_REGISTRIES_CONF_DIR", self.folder.path().join("none"))
            .env("HOME", self.folder.path()));
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let quoted = |line: &str| {
            let rest = line.split_once("Trying to access ")?.1;
            Some(rest.trim_start_matches(['\\', '"']).split(['\\', '"']).next()?.to_owned())
        };
        Pull { succeeded: output.status.success(), tried: log.lines().filter_map(quoted).collect(), log }
    }

    fn skopeo(&self, reference: &str) -> Option<Pull> {
        let to = self.folder.path().join("copied");
        let _ = std::fs::remove_dir_all(&to);
        let mut command = Command::new(tools::need("skopeo")?);
        command.args(["--debug", "--insecure-policy", "copy", "--all"]);
        Some(self.client(command.arg(format!("docker://{reference}")).arg(format!("dir:{}", to.display()))))
    }

    fn podman(&self, reference: &str) -> Option<Pull> {
        let folder = self.folder.path().join("podman");
        let mut command = Command::new(tools::need("podman")?);
        command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
        command.args(["--storage-driver", "vfs", "--log-level=debug", "pull"]);
        command.arg("--signature-policy").arg(policy(self.folder.path()));
        Some(self.client(command.arg(reference)))
    }

    /// Both clients try exactly the first `wanted` of the endpoints that we name.
    fn judge(&self, reference: &str, wanted: usize, succeeds: bool) {
        let named = self.named(reference);
        for (client, pull) in [("skopeo", self.skopeo(reference)), ("podman", self.podman(reference))] {
            let Some(pull) = pull else { continue };
            assert_eq!(pull.tried, named[..wanted], "{client}: {}", pull.log);
            assert_eq!(pull.succeeded, succeeds, "{client}: {}", pull.log);
        }
    }
}

/// Accepts every image: signatures are not what is judged here.
fn policy(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("policy.json");
    std::fs::write(&path, "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}").unwrap();
    path
}

#[test]
fn clients_take_the_endpoint_that_we_name_first() {
    let Some(stage) = Stage::set() else { return };
    let (first, second) = (format!("{}/m", stage.first.address()), format!("{}/m", stage.second.address()));
    let down = format!("{}/m", stage.down.address());
    let by_tag = format!("{}/demo/app:1", stage.source.address());
    let by_digest = format!("{}/demo/app@{}", stage.source.address(), stage.digest);

    stage.render("Tag", std::slice::from_ref(&second), false);
    assert_eq!(stage.named(&by_tag)[0], format!("{second}/app:1"));
    stage.judge(&by_tag, 1, true);
    // A rule for tags is no rule for digests: the source alone is named and tried.
    assert_eq!(stage.named(&by_digest), std::slice::from_ref(&by_digest));
    stage.judge(&by_digest, 1, true);

    stage.render("Digest", &[first.clone(), second.clone()], false);
    assert_eq!(stage.named(&by_digest).len(), 3);
    stage.judge(&by_digest, 2, true);
    stage.judge(&by_tag, 1, true);

    // Nobody listens, then the image is missing, then it is there.
    stage.render("Digest", &[down.clone(), first.clone(), second], false);
    stage.judge(&by_digest, 3, true);
    // Nowhere but at the source.
    stage.render("Tag", &[down.clone(), first.clone()], false);
    stage.judge(&by_tag, 3, true);
}

#[test]
fn a_source_that_must_never_be_contacted_is_not() {
    let Some(stage) = Stage::set() else { return };
    let (first, second) = (format!("{}/m", stage.first.address()), format!("{}/m", stage.second.address()));
    let by_tag = format!("{}/demo/app:1", stage.source.address());
    stage.render("Tag", std::slice::from_ref(&second), true);
    stage.judge(&by_tag, 1, true);
    stage.render("Tag", std::slice::from_ref(&first), true);
    for (client, pull) in [("skopeo", stage.skopeo(&by_tag)), ("podman", stage.podman(&by_tag))] {
        let Some(pull) = pull else { continue };
        assert!(!pull.succeeded && pull.tried[0] == stage.named(&by_tag)[0], "{client}: {}", pull.log);
        assert!(pull.log.contains("is blocked in"), "{client}: {}", pull.log);
        let of_source = stage.source.output();
        assert!(!of_source.contains("GET /v2/demo/app/manifests/1"), "{client} contacted the source: {of_source}");
    }
}

#[test]
fn lint_asks_the_mirror_and_the_source() {
    let Some(stage) = Stage::set() else { return };
    let Some(skopeo) = tools::need("skopeo") else { return };
    let (source, mirror) = (stage.source.address(), stage.second.address());
    let from = format!("docker://{source}/demo/app:1");
    for (all, to) in [
        (true, format!("{source}/demo/other:1")),
        (false, format!("{mirror}/m/other:1")),
        (false, format!("{mirror}/m/single:1")),
    ] {
        let mut command = Command::new(&skopeo);
        command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false"]);
        if all {
            command.args(["--all", "--preserve-digests"]);
        }
        let copied = run(command.arg(&from).arg(format!("docker://{to}")));
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    }
    let moved = format!("sha256:{}", "7".repeat(64));
    let digest = &stage.digest;
    let images = format!(
        "{source}/demo/app:1\n{source}/demo/app:1@{digest}\n{source}/demo/app:1@{moved}\n{source}/demo/single:1@{digest}\n{source}/demo/other:1\n{source}/demo/absent:1\n"
    );
    std::fs::write(stage.folder.path().join("images.txt"), images).unwrap();
    let mirrors = [format!("{mirror}/m")];
    stage.render("Tag", &mirrors, false);
    let tags = std::fs::read_to_string(stage.folder.path().join("rules.yaml")).unwrap();
    stage.render("Digest", &mirrors, false);
    let digests = std::fs::read_to_string(stage.folder.path().join("rules.yaml")).unwrap();
    std::fs::write(stage.folder.path().join("rules.yaml"), format!("{tags}---\n{digests}")).unwrap();
    let output = run(Command::new(AIRLOCK)
        .args(["rules", "lint", "rules.yaml", "--image-config", "image.yaml", "--images", "images.txt"])
        .args(["--check-mirror", "--check-source", "--tls-verify=false", "-o", "json"])
        .env("HOME", stage.folder.path())
        .current_dir(stage.folder.path()));
    let findings: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let lines = |code: &str| {
        let of = |f: &&Value| f["id"] == code;
        findings.as_array().unwrap().iter().filter(of).map(|f| f["line"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((lines("MR062"), lines("MR063"), lines("MR064")), (vec![3], vec![4], vec![5]), "{findings:#}");
}
