//! The promise: before anything is applied, an administrator sees which images in use come from a mirror, which do not, why, and
//! who uses them; from dumps, folders, lists, manifests and a node's files, and after asking the mirror.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::fs;
use std::path::PathBuf;

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture;
use airlock_testkit::scripted::{Auth, Registry};
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const USAGE: i32 = 2;
const NOT_AUTHORISED: i32 = 5;
const NETWORK: i32 = 7;
const GAP: i32 = 8;

struct Desk {
    binary: Binary,
}

impl Desk {
    fn new() -> Self {
        Self { binary: Binary::new(AIRLOCK) }
    }

    fn file(&self, name: &str, text: impl AsRef<str>) -> String {
        let path: PathBuf = self.binary.folder().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text.as_ref()).unwrap();
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        self.binary.run(arguments)
    }

    /// `audit … -o json` with an exit code.
    fn audit(&self, arguments: &[&str], code: i32) -> Value {
        let outcome = self.run(&[&["audit", "-o", "json"], arguments].concat()).expect_code(code);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|e| panic!("{e}: {}", outcome.stdout))
    }
}

fn digest_of(c: &str) -> String {
    format!("sha256:{}", c.repeat(64))
}

/// `reference class` of each image.
fn classes(audit: &Value) -> Vec<String> {
    let line = |image: &Value| format!("{} {}", image["reference"].as_str().unwrap(), image["class"].as_str().unwrap());
    audit["images"].as_array().unwrap().iter().map(line).collect()
}

fn set(kind: &str, source: &str, mirror: &str) -> String {
    let list = if kind == "ImageDigestMirrorSet" { "imageDigestMirrors" } else { "imageTagMirrors" };
    format!(
        "apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: {}\nspec:\n  {list}:\n  - source: {source}\n    mirrors:\n    - {mirror}\n",
        kind.to_lowercase()
    )
}

fn idms(source: &str, mirror: &str) -> String {
    set("ImageDigestMirrorSet", source, mirror)
}

fn itms(source: &str, mirror: &str) -> String {
    set("ImageTagMirrorSet", source, mirror)
}

fn pod(name: &str, image: &str, running: Option<&str>) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"containers": [{"name": "main", "image": image}]},
    });
    if let Some(running) = running {
        pod["status"] = json!({"containerStatuses": [{"name": "main", "imageID": running}]});
    }
    pod
}

#[test]
fn a_dump_is_judged_against_rules_with_who_uses_what() {
    let desk = Desk::new();
    let dump = json!({"kind": "List", "apiVersion": "v1", "items": [
        pod("a", &format!("quay.io/acme/app@{}", digest_of("a")), None),
        pod("b", "quay.io/acme/app:1", None),
        pod("c", "ghcr.io/other/tool:2", None),
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "nightly", "namespace": "ops"},
         "spec": {"jobTemplate": {"spec": {"template": {"spec": {"initContainers": [{"name": "init", "image": "ghcr.io/other/tool:2"}]}}}}}},
    ]});
    let pods = desk.file("pods.json", dump.to_string());
    let rules = desk.file("rules.yaml", idms("quay.io/acme", "m.lab:5000/acme"));
    let audit = desk.audit(&[&pods, "--rules", &rules], GAP);
    let by_digest = format!("quay.io/acme/app@{}", digest_of("a"));
    assert_eq!(
        classes(&audit),
        ["quay.io/acme/app:1 WRONG-KIND", "ghcr.io/other/tool:2 UNCOVERED", &format!("{by_digest} MIRRORED")]
    );
    let uncovered = &audit["images"][1];
    assert_eq!((uncovered["verdict"].as_str(), uncovered["gap"].as_bool()), (Some("falls-through"), Some(true)));
    let users: Vec<_> = uncovered["users"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| (u["kind"].as_str().unwrap(), u["role"].as_str().unwrap()))
        .collect();
    assert_eq!(users, [("Pod", "container"), ("CronJob", "init")]);
    let mirrored = &audit["images"][2];
    assert_eq!(mirrored["endpoints"][0]["reference"], format!("m.lab:5000/acme/app@{}", digest_of("a")));
    assert_eq!(
        mirrored["endpoints"][0]["from"],
        json!([{"object": "ImageDigestMirrorSet/imagedigestmirrorset", "index": 0}])
    );
    assert_eq!(audit["summary"]["by_class"], json!({"MIRRORED": 1, "UNCOVERED": 1, "WRONG-KIND": 1}));
    // `rules audit` is the same, and the table says it to people.
    let table = desk.run(&["rules", "audit", &pods, "--rules", &rules]).expect_code(GAP).stdout;
    for word in [
        "falls through",
        "wrong kind",
        "covered",
        "ops/CronJob/nightly/init",
        "shop/Pod/c/main",
        "3 images in 4 places",
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let gaps = desk.run(&["audit", &pods, "--rules", &rules, "--gaps"]).expect_code(GAP).stdout;
    assert!(!gaps.contains(&by_digest), "{gaps}");
    let fixed = desk.file(
        "more.yaml",
        format!("{}---\n{}", itms("quay.io/acme", "m.lab:5000/acme"), itms("ghcr.io", "m.lab:5000/ghcr")),
    );
    desk.audit(&[&pods, "--rules", &rules, &fixed], 0);
}

#[test]
fn what_is_suggested_closes_the_gaps() {
    let desk = Desk::new();
    let list =
        desk.file("images.txt", format!("quay.io/new/app:1\nquay.io/acme/app:1\nghcr.io/x/y@{}\n", digest_of("b")));
    let rules = desk.file("rules.yaml", idms("quay.io/acme", "m.lab/mirror/acme"));
    let more = desk.binary.folder().join("suggested.yaml").display().to_string();
    desk.audit(&[&list, "--rules", &rules, "--suggest", &more], GAP);
    desk.audit(&[&list, "--rules", &rules, &more], 0);
    desk.run(&["rules", "render", &rules, &more]).expect_code(0);
}

#[test]
fn a_must_gather_brings_its_own_rules() {
    let desk = Desk::new();
    let base = "must-gather/quay-io-sha256-1/";
    let pods = json!({"apiVersion": "v1", "kind": "PodList", "items": [pod("a", "quay.io/acme/app:1", None)]});
    desk.file(&format!("{base}namespaces/shop/core/pods.yaml"), pods.to_string());
    desk.file(
        &format!("{base}cluster-scoped-resources/config.openshift.io/imagetagmirrorsets.yaml"),
        itms("quay.io/acme", "m.lab/acme"),
    );
    desk.file(&format!("{base}namespaces/shop/pods/a/a.yaml"), "not: [closed\n");
    desk.file(&format!("{base}event-filter.html"), "<html>");
    let outcome = desk.run(&["audit", "must-gather", "-o", "json"]).expect_code(0);
    let audit: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(classes(&audit), ["quay.io/acme/app:1 MIRRORED"]);
    assert!(outcome.stderr.contains("passed over") && outcome.stderr.contains("a.yaml:1:6"), "{}", outcome.stderr);
}

#[test]
fn manifests_lists_and_standard_input_are_sources_too() {
    let desk = Desk::new();
    let rules = desk.file("rules.yaml", itms("quay.io", "m.lab/quay"));
    let chart = desk.file(
        "chart.yaml",
        "---\n# Source: app/templates/job.yaml\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: migrate\n  annotations:\n    \"helm.sh/hook\": pre-install\nspec:\n  template:\n    spec:\n      containers:\n      - name: m\n        image: quay.io/app/migrate:1\n",
    );
    let list = desk.file("list.txt", "# all\ndocker://quay.io/app/web:1\nnginx\n");
    let audit = desk.audit(&[&format!("helm:{chart}"), "--images", &format!("list:{list}"), "--rules", &rules], GAP);
    assert_eq!(classes(&audit), ["nginx UNCOVERED", "quay.io/app/migrate:1 MIRRORED", "quay.io/app/web:1 MIRRORED"]);
    assert_eq!(audit["images"][1]["users"][0]["hook"], "pre-install");
    let script = format!("printf '%s\\n' quay.io/a/b:1 | {AIRLOCK} audit - --rules {rules}");
    let shell = Binary::new("/bin/sh");
    let outcome = shell.run(["-c", &script]).expect_code(0);
    assert!(outcome.stdout.contains("m.lab/quay/a/b:1"), "{}", outcome.stdout);
}

#[test]
fn a_registries_conf_serves_as_rules() {
    let desk = Desk::new();
    let conf = desk.file(
        "registries.conf",
        "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"m.lab/quay\"\n",
    );
    desk.file("conf.d/99.conf", "[[registry]]\nlocation = \"quay.io/blocked\"\nblocked = true\n");
    let list = desk.file("list.txt", "quay.io/a/b:1\nquay.io/blocked/x:1\n");
    let drop_ins = desk.binary.folder().join("conf.d").display().to_string();
    let audit = desk.audit(&[&list, "--registries-conf", &conf, "--dropins", &drop_ins], GAP);
    assert_eq!(classes(&audit), ["quay.io/blocked/x:1 SHADOWED", "quay.io/a/b:1 MIRRORED"]);
    desk.audit(&[&list, "--conf", &conf], 0);
    let broken = desk.file("broken.conf", "[[registry]]\nlocation = 1\n");
    let outcome = desk.run(&["audit", &list, "--registries-conf", &broken]).expect_code(USAGE);
    assert!(
        outcome.stderr.contains("broken.conf:2:12") && outcome.stderr.contains("E_TOML_TYPE"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn the_mirror_is_asked_whether_it_has_them() {
    let desk = Desk::new();
    let mirror = Registry::start();
    let host = mirror.address();
    let (one, two) = (fixture::image(1).build(), fixture::image(2).build());
    let both = fixture::index(&[
        fixture::image(3).platform("linux/amd64").build(),
        fixture::image(4).platform("linux/arm64").build(),
    ])
    .build();
    mirror.put("acme/app", &one, Some("1"));
    mirror.put("acme/moved", &two, Some("1"));
    mirror.put("acme/multi", &both, Some("1"));
    let child = both.children[0].digest().to_string();
    let dump = json!({"items": [
        pod("present", "quay.io/acme/app:1", Some(&format!("quay.io/acme/app@{}", one.digest()))),
        pod("by-digest", &format!("quay.io/acme/app@{}", one.digest()), None),
        pod("moved", "quay.io/acme/moved:1", Some(&format!("quay.io/acme/moved@{}", one.digest()))),
        pod("platform", "quay.io/acme/multi:1", Some(&format!("quay.io/acme/multi@{child}"))),
        pod("absent", "quay.io/acme/absent:1", None),
        pod("gone", &format!("quay.io/acme/app@{}", two.digest()), None),
    ], "kind": "PodList", "apiVersion": "v1"});
    let pods = desk.file("pods.json", dump.to_string());
    let rules = desk.file(
        "rules.yaml",
        format!(
            "{}---\n{}",
            itms("quay.io/acme", &format!("{host}/acme")),
            idms("quay.io/acme", &format!("{host}/acme"))
        ),
    );
    let audit = desk.audit(&[&pods, "--rules", &rules, "--check-mirror", "--tls-verify=false"], GAP);
    let verdicts: Vec<String> = audit["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| format!("{} {}", i["users"][0]["name"].as_str().unwrap(), i["verdict"].as_str().unwrap()))
        .collect();
    let mut sorted = verdicts.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "absent not-in-mirror",
            "by-digest covered",
            "gone not-in-mirror",
            "moved different-digest",
            "platform covered",
            "present covered"
        ]
    );
    let of = |name: &str| {
        audit["images"].as_array().unwrap().iter().find(|i| i["users"][0]["name"] == name).unwrap().clone()
    };
    assert_eq!(of("moved")["mirror_check"]["digest"], two.digest().to_string());
    assert_eq!(of("moved")["mirror_check"]["running"], one.digest().to_string());
    assert!(of("gone")["findings"].as_array().unwrap().contains(&json!("MR062")));
    assert_eq!(mirror.count("GET", "/v2/*/blobs/*"), 0, "blobs were fetched");
    assert!(mirror.log().iter().all(|r| matches!(r.method.as_str(), "GET" | "HEAD")), "the mirror was written to");
    let table =
        desk.run(&["audit", &pods, "--rules", &rules, "--check-mirror", "--tls-verify=false"]).expect_code(GAP).stdout;
    assert!(table.contains("different digest") && table.contains("not in mirror"), "{table}");
}

#[test]
fn a_mirror_that_refuses_or_is_away_is_no_gap_but_no_success() {
    let desk = Desk::new();
    let closed = Registry::builder().auth(Auth::basic("robot", "secret")).start();
    let list = desk.file("list.txt", "quay.io/a/b:1\nquay.io/a/c:1\n");
    let rules = desk.file("rules.yaml", itms("quay.io", &closed.address()));
    let arguments = [list.as_str(), "--rules", &rules, "--check-mirror", "--tls-verify=false", "--retry-times", "0"];
    let audit = desk.audit(&arguments, NOT_AUTHORISED);
    assert_eq!(audit["images"][0]["mirror_check"]["status"], "DENIED");
    assert_eq!(audit["images"][0]["verdict"], "unknown");
    let away = itms("quay.io", &format!("127.0.0.1:{}", free_port()));
    desk.file("rules.yaml", away);
    let audit = desk.audit(&arguments, NETWORK);
    assert_eq!(audit["images"][1]["mirror_check"]["status"], "UNREACHABLE");
    drop(closed);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    let desk = Desk::new();
    let rules = desk.file("rules.yaml", idms("quay.io/acme", "m.lab/acme"));
    let list = desk.file("list.txt", "quay.io/a/b:1\n");
    let broken = desk.file("broken.json", "{\n \"items\": [\n  {\"kind\": }\n");
    let bad_rules = desk.file("bad.yaml", idms("quay.io/Acme:1", "m.lab/acme"));
    let unknown = desk.file("unknown.yaml", idms("quay.io/acme", "m.lab/acme").replace("mirrors:", "mirror:"));
    let node = desk.file("host/etc/containers/registries.conf", "");
    let _ = node;
    for (arguments, words) in [
        (vec![broken.as_str(), "--rules", &rules], vec!["broken.json:3", "not valid JSON"]),
        (vec!["absent.json", "--rules", &rules], vec!["absent.json", "No such file"]),
        (vec![&list, "--rules", &bad_rules], vec!["bad.yaml:7:13", "E_SOURCE_FORMAT", "^"]),
        (vec![&list, "--rules", &unknown], vec!["unknown.yaml:8", "did you mean `mirrors`?"]),
        (vec![&list], vec!["no rules", "--rules FILE"]),
        (vec!["--rules", &rules], vec!["nothing to audit"]),
        (vec!["host", "--rules", &rules], vec!["--node host"]),
        (vec![&list, "--rules", &rules, "--registries-conf", "x"], vec!["cannot be used with"]),
        (vec!["-", "-", "--rules", &rules], vec!["only once"]),
    ] {
        let outcome = desk.run(&[&["audit"], arguments.as_slice()].concat()).expect_code(USAGE);
        for word in words {
            assert!(outcome.stderr.contains(word), "{arguments:?}: {word}: {}", outcome.stderr);
        }
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_nodes_files_are_examined() {
    let desk = Desk::new();
    let rules = desk.file("rules.yaml", idms("quay.io/acme", "m.lab:5000/acme"));
    let rendered = desk.run(&["rules", "render", &rules]).expect_code(0).stdout;
    desk.file("host/etc/containers/registries.conf", &rendered);
    desk.file("host/var/lib/kubelet/config.json", r#"{"auths":{"m.lab:5000":{"auth":"dTpodW50ZXIy"}}}"#);
    desk.file("host/etc/docker/certs.d/m.lab:5000/ca.crt", "x");
    let audit = desk.audit(&["--node", "host", "--rules", &rules], 0);
    let items: Vec<_> = audit["node"]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| (i["item"].as_str().unwrap(), i["present"].as_bool().unwrap()))
        .collect();
    assert_eq!(items, [("mirrors", true), ("drop-ins", false), ("certificates", true), ("credentials", true)]);
    assert_eq!(
        audit["node"]["mirrors"][0],
        json!({"host": "m.lab:5000", "credential": "m.lab:5000", "certificates": "etc/docker/certs.d/m.lab:5000", "insecure": false})
    );
    // With a list the node's own file is what counts.
    let list = desk.file("list.txt", format!("quay.io/acme/x@{}\n", digest_of("c")));
    desk.audit(&["--node", "host", &list], 0);
    // A drop-in takes the mirror away, the credential is for another port, the secret stays secret.
    desk.file("host/etc/containers/registries.conf.d/99-mine.conf", "[[registry]]\nlocation = \"quay.io/acme\"\n");
    desk.file("host/var/lib/kubelet/config.json", r#"{"auths":{"m.lab":{"auth":"dTpodW50ZXIy"}}}"#);
    let outcome = desk.run(&["audit", &list, "--node", "host", "--rules", &rules]).expect_code(GAP);
    for word in ["ND004", "MR053", "99-mine.conf", "error[", "help: "] {
        assert!(outcome.stdout.contains(word), "{word}: {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("dTpodW50ZXIy") && !outcome.stdout.contains("hunter2"));
    let outcome =
        desk.run(&["audit", "--node", &desk.binary.folder().join("home").display().to_string()]).expect_code(USAGE);
    assert!(outcome.stderr.contains("no folder"), "{}", outcome.stderr);
}

#[test]
fn the_rules_of_the_book_find_what_its_author_missed() {
    let shared = std::env::var("AIRLOCK_SHARED")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared").to_owned());
    let path = PathBuf::from(shared).join("seeds/000_93f158b4b273103f.txt");
    let Ok(book) = fs::read_to_string(&path) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return;
    };
    // The two documents begin with their comment, and end at the first line that is neither YAML nor empty.
    let document = |name: &str| -> String {
        let start = book.find(&format!("# {name}")).unwrap();
        let yaml =
            |line: &&str| line.is_empty() || line.starts_with([' ', '#']) || line.ends_with(':') || line.contains(": ");
        book[start..].lines().take_while(yaml).flat_map(|line| [line, "\n"]).collect()
    };
    let desk = Desk::new();
    let rules = [
        desk.file("idms.yaml", document("idms-ai-platform.yaml")),
        desk.file("itms.yaml", document("itms-ai-platform.yaml")),
    ];
    let list = desk.file(
        "images.txt",
        format!(
            "nvcr.io/nvidia/gpu-operator:v24.9\nnvcr.io/nvidia/cloud-native/dcgm:3\nnvcr.io/nvidia/gpu-operator@{0}\nmpioperator/mpi-operator:0.6\n\
             docker.io/mpioperator/mpi-operator:0.6\nregistry-1.docker.io/mpioperator/mpi-operator:0.6\nghcr.io/grafana/grafana:11\n\
             ghcr.io/grafana/grafana@{0}\nrunai.jfrog.io/core-llm/vllm:1\nrunai.jfrog.io/other/app:1\n",
            digest_of("d")
        ),
    );
    let audit = desk.audit(&[&list, "--rules", &rules[0], &rules[1]], GAP);
    let found = classes(&audit);
    for line in [
        "ghcr.io/grafana/grafana:11 WRONG-KIND",
        &format!("nvcr.io/nvidia/gpu-operator@{} WRONG-KIND", digest_of("d")),
        "docker.io/mpioperator/mpi-operator:0.6 UNCOVERED",
        "mpioperator/mpi-operator:0.6 UNCOVERED",
        "runai.jfrog.io/other/app:1 UNCOVERED",
        "registry-1.docker.io/mpioperator/mpi-operator:0.6 MIRRORED",
        "nvcr.io/nvidia/cloud-native/dcgm:3 MIRRORED",
        "runai.jfrog.io/core-llm/vllm:1 MIRRORED",
        &format!("ghcr.io/grafana/grafana@{} MIRRORED", digest_of("d")),
    ] {
        assert!(found.iter().any(|f| f == line), "{line}: {found:?}");
    }
    // The nested rule, not its parent, serves what lies below it (R-261).
    let dcgm = audit["images"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["reference"] == "nvcr.io/nvidia/cloud-native/dcgm:3")
        .unwrap();
    assert_eq!(dcgm["matched_prefix"], "nvcr.io/nvidia/cloud-native");
}
