//! The promise: what is said of dumps is said of a live cluster, and what is written to one is exactly what was shown; against an API
//! that answers from files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::fs;

use airlock_testkit::api_server::ApiServer;
use airlock_testkit::binary::{Binary, Outcome};
use base64::Engine as _;
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const USAGE: i32 = 2;
const NOT_AUTHORISED: i32 = 5;
const NETWORK: i32 = 7;
const GAP: i32 = 8;

const PULL_SECRET: &str = "/api/v1/namespaces/openshift-config/secrets/pull-secret";
const LISTS: [&str; 7] = [
    "/api/v1/pods",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/daemonsets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/replicasets",
    "/apis/batch/v1/jobs",
    "/apis/batch/v1/cronjobs",
];

struct Desk {
    binary: Binary,
    api: ApiServer,
}

impl Desk {
    /// A cluster with nothing in it.
    fn new() -> Self {
        let binary = Binary::new(AIRLOCK);
        let api = ApiServer::start(binary.home().join("recorded"));
        let kubeconfig = binary.home().join("kubeconfig");
        fs::write(&kubeconfig, api.kubeconfig()).unwrap();
        for path in LISTS {
            api.record(path, &json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}));
        }
        Self { binary: binary.env("KUBECONFIG", kubeconfig.display().to_string()), api }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.binary.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        name.to_owned()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str], code: i32) -> Outcome {
        let outcome = self.binary.run(arguments).expect_code(code);
        let printed = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!printed.contains("hunter") && !printed.contains("sha256~recorded"), "a secret was printed: {printed}");
        outcome
    }

    #[track_caller]
    fn audit(&self, arguments: &[&str], code: i32) -> Value {
        serde_json::from_str(&self.run(&[&["audit", "--live", "-o", "json"], arguments].concat(), code).stdout).unwrap()
    }
}

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn rules(kind: &str, list: &str, source: &str) -> Value {
    json!({"kind": format!("{kind}List"), "apiVersion": "config.openshift.io/v1", "metadata": {"resourceVersion": "7"}, "items": [{
        "metadata": {"name": "mine", "uid": "1", "resourceVersion": "3", "managedFields": []},
        "spec": {list: [{"source": source, "mirrors": [format!("m.lab:5000/{source}")]}]}, "status": {},
    }]})
}

/// A pod as the API lists it: without its kind.
fn pod(name: &str, image: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"containers": [{"name": "main", "image": image}]}})
}

#[test]
fn images_and_rules_of_a_cluster_are_audited_page_by_page() {
    let desk = Desk::new();
    let mut pods: Vec<Value> = (0..1200).map(|n| pod(&format!("p{n}"), "quay.io/acme/app:1")).collect();
    pods.push(pod("last", "ghcr.io/other/tool:2"));
    desk.api.record("/api/v1/pods", &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}));
    desk.api.record(
        "/apis/config.openshift.io/v1/imagetagmirrorsets",
        &rules("ImageTagMirrorSet", "imageTagMirrors", "quay.io/acme"),
    );
    desk.api.record(
        "/apis/config.openshift.io/v1/images/cluster",
        &json!({"kind": "Image", "apiVersion": "config.openshift.io/v1", "metadata": {"name": "cluster", "uid": "2"},
            "spec": {"registrySources": {"blockedRegistries": ["ghcr.io"]}}, "status": {"internalRegistryHostname": "x"}}),
    );
    let release = format!("quay.io/openshift-release-dev/ocp-release@sha256:{}", "a".repeat(64));
    desk.api.record(
        "/apis/config.openshift.io/v1/clusterversions/version",
        &json!({"kind": "ClusterVersion", "apiVersion": "config.openshift.io/v1", "metadata": {"name": "version"}, "status": {"desired": {"image": release}}}),
    );
    let audit = desk.audit(&[], GAP);
    let images = audit["images"].as_array().unwrap();
    let class =
        |i: usize| format!("{} {}", images[i]["reference"].as_str().unwrap(), images[i]["class"].as_str().unwrap());
    assert_eq!([class(0), class(1)], ["ghcr.io/other/tool:2 REJECTED", "quay.io/acme/app:1 MIRRORED"]);
    assert_eq!(images[1]["users"].as_array().unwrap().len(), 1200);
    assert_eq!(
        (images[0]["users"][0]["kind"].as_str(), images[0]["users"][0]["source"].as_str()),
        (Some("Pod"), Some(desk.api.url().as_str()))
    );
    let pages: Vec<String> = desk.api.log().into_iter().filter(|a| a.path == "/api/v1/pods").map(|a| a.query).collect();
    assert_eq!(pages, ["limit=500", "limit=500&continue=500", "limit=500&continue=1000"]);
    assert!(desk.api.changes().is_empty(), "an audit changes nothing");
    // Rules that are named count for more than those of the cluster.
    let file = desk.file("rules.yaml", "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n  - {source: ghcr.io, mirrors: [m.lab/g]}\n  - {source: quay.io, mirrors: [m.lab/q]}\n");
    desk.audit(&["--rules", &file], 0);
}

#[test]
fn a_cluster_that_is_away_or_refuses_is_named_with_what_helps() {
    let desk = Desk::new();
    desk.api.refuse("/api/v1/pods", 403, "pods is forbidden: User \"me\" cannot list resource \"pods\"");
    let said = desk.run(&["audit", "--live"], NOT_AUTHORISED).stderr;
    assert!(
        said.contains("cannot list resource") && said.contains("cluster-reader") && said.contains(&desk.api.url()),
        "{said}"
    );
    let wrong = desk.file("wrong-token", &desk.api.kubeconfig_with("stale"));
    let said = desk.run(&["audit", "--live", "--kubeconfig", &wrong], NOT_AUTHORISED).stderr;
    assert!(said.contains("oc login"), "{said}");
    let away = desk.file("away", &desk.api.kubeconfig().replace(&desk.api.url(), "https://127.0.0.1:1"));
    desk.run(&["audit", "--live", "--kubeconfig", &away], NETWORK);
    let said = desk.run(&["audit", "--live", "--context", "other"], USAGE).stderr;
    assert!(said.contains("other") && said.contains("--context"), "{said}");
    desk.run(&["audit", "--live", "--kubeconfig", "absent"], USAGE);
    let untrusted = desk.file(
        "untrusted",
        &desk
            .api
            .kubeconfig()
            .lines()
            .map(|l| if l.contains("certificate-authority-data") { String::new() } else { format!("{l}\n") })
            .collect::<String>(),
    );
    desk.run(&["audit", "--live", "--kubeconfig", &untrusted], NETWORK);
}

#[test]
fn the_pull_secret_of_a_cluster_is_shown_and_changed() {
    let desk = Desk::new();
    let content = json!({"auths": {"quay.io": {"auth": encoded("robot:hunter2")}}}).to_string();
    desk.api.record(
        PULL_SECRET,
        &json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "pull-secret", "namespace": "openshift-config", "resourceVersion": "42"},
            "data": {".dockerconfigjson": encoded(&content)}, "type": "kubernetes.io/dockerconfigjson"}),
    );
    let shown = desk.run(&["cluster", "pull-secret", "show", "--live"], 0).stdout;
    assert!(shown.contains("quay.io") && shown.contains("robot"), "{shown}");
    let more =
        desk.file("more.json", &json!({"auths": {"m.lab:5000": {"auth": encoded("reader:hunter3")}}}).to_string());
    desk.run(&["cluster", "pull-secret", "merge", &more, "--live", "--dry-run"], 0);
    assert!(desk.api.changes().is_empty(), "a dry run changed something");
    let said = desk.run(&["cluster", "pull-secret", "merge", &more, "--live"], 0);
    assert!(
        said.stdout.contains("m.lab:5000  added") && said.stderr.contains("without being drained"),
        "{}{}",
        said.stdout,
        said.stderr
    );
    let change = desk.api.changes().remove(0);
    assert_eq!(
        (change.method.as_str(), change.path.as_str(), change.content_type.as_str()),
        ("PATCH", PULL_SECRET, "application/merge-patch+json")
    );
    assert_eq!(change.body["metadata"]["resourceVersion"], "42");
    let now = desk.api.recorded(PULL_SECRET).unwrap();
    let decoded =
        base64::engine::general_purpose::STANDARD.decode(now["data"][".dockerconfigjson"].as_str().unwrap()).unwrap();
    let decoded: Value = serde_json::from_slice(&decoded).unwrap();
    assert_eq!(decoded["auths"].as_object().unwrap().keys().collect::<Vec<_>>(), ["m.lab:5000", "quay.io"]);
    // Taken out into a file, and compared with it.
    desk.run(&["cluster", "pull-secret", "remove", "quay.io", "--live", "--to", "out.json"], 0);
    assert_eq!(desk.api.changes().len(), 1);
    let diff = desk.run(&["cluster", "pull-secret", "diff", "out.json", "--live"], GAP).stdout;
    assert!(diff.contains("quay.io   added"), "{diff}");
    desk.api.refuse(PULL_SECRET, 409, "the object has been modified");
    desk.run(&["cluster", "pull-secret", "remove", "quay.io", "--live"], 1);
}

#[test]
fn resources_and_certificates_are_applied_as_shown() {
    let desk = Desk::new();
    let rule = |kind: &str, list: &str| {
        format!(
            "apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: mine\nspec:\n  {list}:\n  - source: quay.io\n    mirrors: [m.lab/q]\n"
        )
    };
    desk.file("res/itms.yaml", &rule("ImageTagMirrorSet", "imageTagMirrors"));
    desk.file("res/idms.yaml", &rule("ImageDigestMirrorSet", "imageDigestMirrors"));
    desk.run(&["cluster", "resources", "apply", "--dry-run", "res"], 0);
    assert!(desk.api.log().is_empty(), "the cluster was asked");
    desk.run(&["cluster", "resources", "apply", "--dry-run=server", "res"], 0);
    assert!(desk.api.changes().iter().all(|c| c.query.contains("dryRun=All")));
    let before = desk.api.changes().len();
    desk.run(&["cluster", "resources", "apply", "--server-side", "res"], 0);
    let applied: Vec<_> = desk.api.changes().split_off(before);
    let paths: Vec<&str> = applied.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/apis/config.openshift.io/v1/imagedigestmirrorsets/mine",
            "/apis/config.openshift.io/v1/imagetagmirrorsets/mine"
        ]
    );
    assert_eq!(applied[0].query, "fieldManager=airlock&fieldValidation=Strict");
    assert_eq!(
        (applied[0].content_type.as_str(), &applied[0].body["spec"]["imageDigestMirrors"][0]["source"]),
        ("application/apply-patch+yaml", &json!("quay.io"))
    );
    desk.api.refuse("/apis/config.openshift.io/v1/imagetagmirrorsets/mine", 409, "conflict with \"oc\"");
    let said = desk.run(&["cluster", "resources", "apply", "--server-side", "res"], 1).stderr;
    assert!(said.contains("--force-conflicts") && said.contains("1 of 2 objects were applied"), "{said}");
    let image = "/apis/config.openshift.io/v1/images/cluster";
    desk.api.record(image, &json!({"kind": "Image", "metadata": {"name": "cluster"}, "spec": {"registrySources": {}}}));
    let ca = desk.file("ca.crt", "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n");
    desk.run(&["cluster", "ca", &format!("m.lab:5000={ca}"), "--live"], 0);
    assert_eq!(
        desk.api.recorded(image).unwrap()["spec"],
        json!({"registrySources": {}, "additionalTrustedCA": {"name": "registry-config"}})
    );
    let map = desk.api.changes().into_iter().find(|c| c.path.ends_with("/configmaps/registry-config")).unwrap();
    assert!(map.body["data"]["m.lab..5000"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
}
