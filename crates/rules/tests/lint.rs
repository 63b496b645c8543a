//! Every check: an input that triggers it, one that does not; the page of the docs; the seed's AI platform; what `--fix` does.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on says so by failing")]

mod shared;

use std::path::Path;

use airlock_rules::convert::images::list;
use airlock_rules::lint::{
    CATALOGUE, Files, Finding, Input, Observed, catalogue, fixed, lint, report, without_allowed,
};
use airlock_rules::render::Payload;
use airlock_rules::{Objects, Others, Severity};

/// `source=mirror,mirror!` entries, `!` for NeverContactSource, apart by blanks.
fn set(kind: &str, name: &str, entries: &str) -> String {
    let (version, kind, list) = match kind {
        "idms" => ("config.openshift.io/v1", "ImageDigestMirrorSet", "imageDigestMirrors"),
        "itms" => ("config.openshift.io/v1", "ImageTagMirrorSet", "imageTagMirrors"),
        _ => ("operator.openshift.io/v1alpha1", "ImageContentSourcePolicy", "repositoryDigestMirrors"),
    };
    let mut text = format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {list}:\n");
    for entry in entries.split_whitespace() {
        let (source, mirrors) = entry.split_once('=').unwrap();
        let (mirrors, never) = mirrors.strip_suffix('!').map_or((mirrors, false), |m| (m, true));
        text.push_str(&format!("  - source: \"{source}\"\n    mirrors:\n"));
        for mirror in mirrors.split(',').filter(|m| !m.is_empty()) {
            text.push_str(&format!("    - \"{mirror}\"\n"));
        }
        if never {
            text.push_str("    mirrorSourcePolicy: NeverContactSource\n");
        }
    }
    text.replace("    mirrors:\n  -", "    mirrors: []\n  -")
        .replace("    mirrors:\n    mirrorS", "    mirrors: []\n    mirrorS")
}

fn idms(entries: &str) -> String {
    set("idms", "d", entries)
}

fn itms(entries: &str) -> String {
    set("itms", "t", entries)
}

fn image(sources: &str) -> String {
    format!(
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {{name: cluster}}\nspec:\n  registrySources: {{{sources}}}\n"
    )
}

/// Everything a case may give.
#[derive(Default)]
struct Given<'a> {
    rules: &'a [String],
    images: Option<&'a str>,
    conf: Option<&'a [&'a str]>,
    pull_secret: Option<&'a [&'a str]>,
    trusted_ca: Option<&'a [&'a str]>,
    current: Option<String>,
    values: Option<&'a str>,
    observed: Vec<Observed>,
    nested_paths: &'a [(&'a str, usize)],
    connected: bool,
}

fn input(given: Given<'_>) -> Input {
    let files: Vec<(String, String)> =
        given.rules.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), text.clone())).collect();
    let (objects, problems) = Objects::read(&files, Others::Keep);
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    Input {
        objects,
        problems,
        images: given.images.map(|text| ("images.txt".to_owned(), list("images.txt", text).0)),
        registries_conf: given.conf.map(|texts| Files {
            main: ("registries.conf".to_owned(), texts[0].to_owned()),
            dropins: texts[1..].iter().enumerate().map(|(n, t)| (format!("d/{n}.conf"), (*t).to_owned())).collect(),
        }),
        pull_secret: given.pull_secret.map(owned),
        trusted_ca: given.trusted_ca.map(owned),
        current: given.current.map(|text| shared::objects(&[&text])),
        values: given.values.map(|text| ("values.yaml".to_owned(), text.to_owned())),
        observed: given.observed,
        nested_paths: given.nested_paths.iter().map(|(host, n)| ((*host).to_owned(), *n)).collect(),
        connected: given.connected,
        ..Input::default()
    }
}

fn rules(texts: &[String]) -> Input {
    input(Given { rules: texts, ..Given::default() })
}

fn with_images(texts: &[String], images: &str) -> Input {
    input(Given { rules: texts, images: Some(images), ..Given::default() })
}

fn conf(texts: &[&str]) -> Input {
    input(Given { conf: Some(texts), ..Given::default() })
}

fn severities(input: &Input, code: &str) -> Vec<Severity> {
    lint(input).into_iter().filter(|f| f.id == code).map(|f| f.severity).collect()
}

/// (code, severities of the input that triggers it, that input, inputs that do not).
type Case = (&'static str, Vec<Severity>, Input, Vec<Input>);

const E: Severity = Severity::Error;
const W: Severity = Severity::Warning;
const I: Severity = Severity::Information;
const DIGEST: &str = "@sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn observed(has_digest: Option<bool>, tag: Option<(&str, bool)>, source: Option<&str>) -> Input {
    let tag = tag.map(|(digest, index)| (digest.to_owned(), index));
    let seen = Observed {
        written: "quay.io/a/x:1".to_owned(),
        mirror: "m.lab/a/x:1".to_owned(),
        has_digest,
        tag,
        source_tag: source.map(str::to_owned),
    };
    input(Given { observed: vec![seen], images: Some("quay.io/a/x:1"), ..Given::default() })
}

fn cases() -> Vec<Case> {
    let good = || rules(&[idms("quay.io/a=m.lab/a!"), itms("quay.io/a=m.lab/a!")]);
    let r = |text: String| rules(&[text]);
    vec![
        (
            "MR001",
            vec![E, E],
            r(idms("quay.io/a:1=m.lab/a https://quay.io/b/=m.lab/b")),
            vec![good(), r(idms("*.a.io=m.lab/a"))],
        ),
        ("MR002", vec![E], r(idms("quay.io/a=m.lab/a@sha256:00")), vec![good()]),
        ("MR003", vec![E, E], r(idms("*.a.io/x=m.lab/x quay.io=*.lab")), vec![r(idms("*.a.io=m.lab/x"))]),
        ("MR004", vec![E], rules(&[idms("quay.io=m.lab!"), set("icsp", "i", "quay.io=m.lab")]), vec![good()]),
        ("MR005", vec![E], r(idms("quay.io/a=m.lab/a,quay.io/a!")), vec![r(idms("quay.io/a=m.lab/a,quay.io/a"))]),
        ("MR006", vec![W, W], r(idms("quay.io/a= quay.io/b=quay.io/b")), vec![good()]),
        ("MR007", vec![W], r(idms("quay.io/a=!")), vec![r(idms("quay.io/a=")), good()]),
        ("MR008", vec![W], r(idms("quay.io/a=quay.io/a,m.lab/a")), vec![r(idms("quay.io/a=quay.io/a"))]),
        ("MR009", vec![E], r(idms("quay.io/a=m.lab/a,m.lab/a")), vec![good()]),
        ("MR009", vec![W], r(set("icsp", "i", "quay.io/a=m.lab/a,m.lab/a")), vec![good()]),
        (
            "MR010",
            vec![W],
            r(idms("quay.io/a=z.lab/a quay.io/a=b.lab/a")),
            vec![
                r(idms("quay.io/a=z.lab/a,b.lab/a quay.io/a=b.lab/a")),
                r(idms("quay.io/a=b.lab/a quay.io/a=b.lab/a")),
            ],
        ),
        (
            "MR011",
            vec![W],
            r(idms("aa.io/x=m.lab/a,n.lab/a aa.io/x=n.lab/a,m.lab/a").replace("aa.io", "zz.io")),
            vec![r(idms("quay.io/a=m.lab/a,n.lab/a quay.io/a=n.lab/a,o.lab/a"))],
        ),
        ("MR011", vec![E], r(idms("docker.io/x=m.lab/a,n.lab/a docker.io/x=n.lab/a,m.lab/a")), vec![good()]),
        (
            "MR012",
            vec![W],
            r(idms("quay.io/a=mirror/a")),
            vec![r(idms("quay.io/a=mirror:5000/a quay.io/b=localhost/b"))],
        ),
        ("MR013", vec![E], r(idms("quay.io/a=docker.io")), vec![r(idms("quay.io/a=docker.io/a"))]),
        (
            "MR014",
            vec![W],
            r(itms("docker.io/alpine=m.lab/alpine")),
            vec![r(itms("docker.io/grafana=m.lab/g docker.io/library/alpine=m.lab/alpine"))],
        ),
        (
            "MR015",
            vec![W],
            r(itms("registry-1.docker.io/mpioperator=m.lab/mpi")),
            vec![r(itms("registry-1.docker.io/mpioperator=m.lab/mpi docker.io/mpioperator=m.lab/mpi"))],
        ),
        ("MR016", vec![E], r(itms("index.docker.io/acme=m.lab/acme")), vec![r(itms("docker.io/acme=m.lab/acme"))]),
        (
            "MR017",
            vec![W],
            r(itms("registry-1.docker.io/alpine=m.lab/alpine")),
            vec![r(itms("registry-1.docker.io/prom=m.lab/prom"))],
        ),
        (
            "MR018",
            vec![W],
            r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/other")),
            vec![r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/a/b quay.io/ab=m.lab/x"))],
        ),
        (
            "MR019",
            vec![I],
            r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/a/b")),
            vec![r(idms("quay.io/a=m.lab/a quay.io/a/b=m.lab/other"))],
        ),
        (
            "MR020",
            vec![E],
            rules(&[idms("quay.io/dell=m.lab/dell"), itms("quay.io/dell/csm=m.lab/csm")]),
            vec![
                rules(&[idms("quay.io/dell=m.lab/dell"), itms("quay.io/dell=m.lab/dell")]),
                rules(&[idms("quay.io/dell=m.lab/d quay.io/dell/csm=m.lab/csm"), itms("quay.io/dell/csm=m.lab/csm")]),
            ],
        ),
        (
            "MR021",
            vec![W],
            r(idms("quay.io/a=m.lab/a! quay.io/a/b=m.lab/a/b")),
            vec![r(idms("quay.io/a=m.lab/a! quay.io/a/b=m.lab/a/b!"))],
        ),
        (
            "MR022",
            vec![W],
            r(idms("*.example.io=m.lab/e a.example.io=m.lab/a")),
            vec![r(idms("*.example.io=m.lab/e a.other.io=m.lab/a"))],
        ),
        (
            "MR023",
            vec![E],
            rules(&[idms("*.redhat.io=m.lab/r"), image("blockedRegistries: [old.redhat.io]")]),
            vec![rules(&[
                idms("*.redhat.io=m.lab/r old.redhat.io=m.lab/old"),
                image("blockedRegistries: [old.redhat.io]"),
            ])],
        ),
        ("MR024", vec![W], r(idms("*.redhat.io=m.lab/r")), vec![good()]),
        (
            "MR025",
            vec![W],
            r(idms("ghcr.io/grafana=m.lab/g docker.io/grafana=m.lab/g")),
            vec![good(), r(idms("registry-1.docker.io/x=m.lab/x docker.io/x=m.lab/x"))],
        ),
        (
            "MR025",
            vec![E],
            with_images(&[idms("ghcr.io/g=m.lab/g docker.io/g=m.lab/g")], "ghcr.io/g/app:1\ndocker.io/g/app:2"),
            vec![good()],
        ),
        (
            "MR025",
            vec![I],
            r(idms("ghcr.io/g=m.lab/g docker.io/g=m.lab/g").replace(
                "  name: d",
                "  name: d\n  annotations:\n    airlock.lint/same-content: ghcr.io/g, docker.io/g",
            )),
            vec![good()],
        ),
        (
            "MR026",
            vec![W],
            r(idms("quay.io=m.lab ghcr.io/x=m.lab/x")),
            vec![r(idms("quay.io/n=m.lab/n quay.io/n/c=m.lab/n/c"))],
        ),
        ("MR027", vec![W], r(idms("quay.io=m.lab m.lab=n.lab")), vec![good()]),
        ("MR028", vec![E, E], r(idms("quay.io=m.lab! m.lab=quay.io!")), vec![r(idms("quay.io=m.lab m.lab=quay.io"))]),
        (
            "MR029",
            vec![W],
            with_images(&[idms("quay.io/a=m.lab/a")], "quay.io/a/x:1"),
            vec![with_images(&[idms("quay.io/a=m.lab/a")], &format!("quay.io/a/x{DIGEST}"))],
        ),
        (
            "MR030",
            vec![W],
            with_images(&[itms("quay.io/a=m.lab/a")], &format!("quay.io/a/x:1{DIGEST}")),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1")],
        ),
        (
            "MR031",
            vec![E],
            with_images(&[itms("quay.io/a=m.lab/a")], "ghcr.io/x/y:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "m.lab/x/y:1\nlocalhost/z:1\nquay.io/a/x:1")],
        ),
        (
            "MR032",
            vec![I],
            with_images(&[itms("quay.io/a=m.lab/a quay.io/b=m.lab/b")], "quay.io/a/x:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1"), good()],
        ),
        (
            "MR033",
            vec![W],
            r(idms("quay.io/a=m.lab/a")),
            vec![good(), input(Given { rules: &[idms("quay.io/a=m.lab/a")], connected: true, ..Given::default() })],
        ),
        ("MR034", vec![W], r(itms("quay.io/a=m.lab/a!")), vec![good()]),
        ("MR035", vec![W], r(set("icsp", "i", "quay.io/a=m.lab/a")), vec![good()]),
        ("MR036", vec![W], rules(&[idms("quay.io/a=m.lab/a"), itms("quay.io/a=n.lab/a")]), vec![good()]),
        (
            "MR037",
            vec![W],
            with_images(&[itms("reg.lab=m.lab/a")], "reg.lab:5000/a/b:1"),
            vec![with_images(&[itms("reg.lab:5000=m.lab/a")], "reg.lab:5000/a/b:1")],
        ),
        ("MR038", vec![W], r(itms("Quay.io/a=m.lab/a")), vec![good()]),
        ("MR039", vec![W], r(itms("ghcr.io/a=quay.io/org/deep/a")), vec![r(itms("ghcr.io/a=quay.io/org/a"))]),
        (
            "MR039",
            vec![W],
            input(Given { rules: &[itms("quay.io=flat.lab")], nested_paths: &[("flat.lab", 1)], ..Given::default() }),
            vec![r(itms("quay.io=flat.lab"))],
        ),
        (
            "MR039",
            vec![W],
            with_images(&[itms("ghcr.io/a=image-registry.openshift-image-registry.svc:5000/a")], "ghcr.io/a/b/c:1"),
            vec![with_images(&[itms("ghcr.io/a=image-registry.openshift-image-registry.svc:5000/a")], "ghcr.io/a/b:1")],
        ),
        (
            "MR040",
            vec![W],
            r(itms("quay.io/dell=m.lab/quay-dell")),
            vec![r(itms("quay.io/dell=m.lab/dell quay.io/dell/csm=m.lab/dell-csm"))],
        ),
        (
            "MR040",
            vec![W],
            with_images(&[itms("quay.io/dell/csm=m.lab/dell-csm")], "quay.io/dell/csm/driver:1"),
            vec![with_images(&[itms("quay.io/dell/csm=m.lab/dell-csm")], "quay.io/dell/csm:1")],
        ),
        (
            "MR041",
            vec![E],
            with_images(&[itms("quay.io/a=docker.io")], "quay.io/a/x:1"),
            vec![with_images(&[itms("quay.io/a=docker.io/n")], "quay.io/a/x:1")],
        ),
        ("MR042", vec![W, W], r(itms("quay.io/a=registry.example.com/a quay.io/b=<mirror-registry>/b")), vec![good()]),
        (
            "MR043",
            vec![W],
            input(Given {
                rules: &[itms("quay.io/a=m.lab:5000/a")],
                pull_secret: Some(&["m.lab", "quay.io"]),
                ..Given::default()
            }),
            vec![
                input(Given {
                    rules: &[itms("quay.io/a=m.lab:5000/a")],
                    pull_secret: Some(&["m.lab:5000"]),
                    ..Given::default()
                }),
                good(),
            ],
        ),
        (
            "MR044",
            vec![W],
            rules(&[itms("quay.io/a=m.lab:5000/a"), image("")]),
            vec![
                input(Given {
                    rules: &[itms("quay.io/a=m.lab:5000/a"), image("")],
                    trusted_ca: Some(&["m.lab..5000"]),
                    ..Given::default()
                }),
                rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: ['m.lab:5000']")]),
            ],
        ),
        (
            "MR045",
            vec![W],
            rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab:5000/a"), image("insecureRegistries: ['m.lab:5000']")])],
        ),
        (
            "MR046",
            vec![E],
            rules(&[itms("quay.io/a=m.lab/a"), image("allowedRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("allowedRegistries: [quay.io]")])],
        ),
        (
            "MR047",
            vec![W],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io]")]),
            vec![rules(&[idms("quay.io/openshift-release-dev=m.lab/ocp"), image("blockedRegistries: [quay.io]")])],
        ),
        (
            "MR048",
            vec![W],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [m.lab]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [n.lab]")])],
        ),
        (
            "MR049",
            vec![E],
            rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io/a/b]")]),
            vec![rules(&[itms("quay.io/a=m.lab/a"), image("blockedRegistries: [quay.io/b]")])],
        ),
        (
            "MR050",
            vec![E],
            conf(&["[[registry]]\nlocation = \"https://quay.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n"])],
        ),
        (
            "MR051",
            vec![W, W, W],
            conf(&[
                "[[registry]]\nlocation = \"quay.io\"\nblock = true\n[[registry.mirrors]]\nlocation = \"m.lab\"\n[[registry]]\nlocation = \"a.io\"\nmirror_by_digest_only = true\n",
            ]),
            vec![conf(&["short-name-mode = \"disabled\"\n[[registry]]\nlocation = \"quay.io\"\nblocked = true\n"])],
        ),
        (
            "MR052",
            vec![W],
            conf(&["[[registry]]\nlocation = \"quay.io\"\n[[registry]]\nprefix = \"quay.io\"\nlocation = \"b.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n[[registry]]\nlocation = \"b.io\"\n"])],
        ),
        (
            "MR053",
            vec![W],
            conf(&["[[registry]]\nlocation = \"quay.io\"\n", "[[registry]]\nlocation = \"quay.io\"\n"]),
            vec![conf(&["[[registry]]\nlocation = \"quay.io\"\n", "[[registry]]\nlocation = \"b.io\"\n"])],
        ),
        ("MR054", vec![W], r(machine_config("/etc/containers/registries.conf")), vec![r(machine_config("/etc/motd"))]),
        (
            "MR055",
            vec![I],
            input(Given { rules: &[itms("quay.io=m.lab")], current: Some(idms("quay.io=m.lab")), ..Given::default() }),
            vec![input(Given {
                rules: &[idms("quay.io=m.lab ghcr.io=m.lab/g")],
                current: Some(idms("quay.io=m.lab")),
                ..Given::default()
            })],
        ),
        (
            "MR055",
            vec![W],
            input(Given {
                rules: &[image("containerRuntimeSearchRegistries: [quay.io]")],
                current: Some(image("")),
                ..Given::default()
            }),
            vec![good()],
        ),
        (
            "MR056",
            vec![W],
            rules(&[idms("quay.io=m.lab"), itms("quay.io=m.lab")]),
            vec![r(idms("quay.io=m.lab") + "---\n" + &itms("quay.io=m.lab"))],
        ),
        (
            "MR057",
            vec![I],
            with_images(&[idms("quay.io/a=m.lab/a")], "m.lab/a/x:1"),
            vec![with_images(&[idms("quay.io/a=m.lab/a")], "quay.io/a/x:1")],
        ),
        (
            "MR058",
            vec![W],
            values(
                "global: {image: {digest: 'sha256:11'}}\na: {image: {repository: a}}\nb: {image: {repository: b}}\n",
            ),
            vec![
                values("global: {image: {digest: 'sha256:11'}}\na: {image: {repository: a}}\n"),
                values("a: {image: {repository: a, digest: x}}\nb: {image: {repository: b, digest: y}}\n"),
            ],
        ),
        (
            "MR059",
            vec![W],
            with_images(&[itms("runai.jfrog.io/op=m.lab/op")], "runai.jfrog.io/core-llm/x:1"),
            vec![with_images(&[itms("runai.jfrog.io/op=m.lab/op")], "runai.jfrog.io/op/x:1")],
        ),
        (
            "MR060",
            vec![I],
            r(itms("nvcr.io/a=m.lab/n/a nvcr.io/b=m.lab/n/b")),
            vec![r(itms("nvcr.io/a=m.lab/n/a nvcr.io/b=m.lab/other"))],
        ),
        (
            "MR061",
            vec![W],
            r(idms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i")),
            vec![rules(&[
                idms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i"),
                itms("registry.redhat.io/redhat/redhat-operator-index=m.lab/r/i"),
            ])],
        ),
        (
            "MR061",
            vec![W],
            r(itms("quay.io/acme/acme-bundle=m.lab/b")),
            vec![r(idms("quay.io/acme/acme-bundle=m.lab/b"))],
        ),
        (
            "MR062",
            vec![W],
            observed(Some(false), Some(("sha256:2", true)), None),
            vec![observed(Some(true), Some(("sha256:2", true)), None)],
        ),
        (
            "MR063",
            vec![W],
            observed(Some(false), Some(("sha256:2", false)), None),
            vec![observed(Some(true), Some(("sha256:2", false)), None)],
        ),
        (
            "MR064",
            vec![W],
            observed(None, Some(("sha256:2", true)), Some("sha256:3")),
            vec![observed(None, Some(("sha256:2", true)), Some("sha256:2")), observed(None, None, Some("sha256:2"))],
        ),
        (
            "MR065",
            vec![W, W],
            with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x\nquay.io/a/y:latest"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "quay.io/a/x:1\nghcr.io/z")],
        ),
        (
            "MR066",
            vec![W],
            with_images(&[itms("quay.io/a=m.lab/a")], "grafana/grafana:1"),
            vec![with_images(&[itms("quay.io/a=m.lab/a")], "docker.io/grafana/grafana:1")],
        ),
        ("MR067", vec![E], rules(&[idms("quay.io=m.lab"), idms("quay.io=m.lab")]), vec![good()]),
        ("MR067", vec![E], r(set("idms", "Bad_Name", "quay.io=m.lab")), vec![good()]),
        ("MR067", vec![E], r(idms("quay.io=m.lab").replace("  name: d\n", "  labels: {}\n")), vec![good()]),
        (
            "MR068",
            vec![W, W],
            r(idms("quay.io=m.lab").replace("  name: d", "  name: d\n  uid: x\n  resourceVersion: \"1\"")),
            vec![good()],
        ),
        (
            "MR069",
            vec![W],
            r(idms("quay.io=m.lab").replace("imageDigestMirrors", "repositoryDigestMirrors")),
            vec![good()],
        ),
        (
            "MR069",
            vec![W],
            r(idms("quay.io=m.lab").replace("config.openshift.io/v1", "operator.openshift.io/v1alpha1")),
            vec![good()],
        ),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("    mirrors:\n    - ", "    mirrors: ")), vec![good()]),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("source: \"quay.io\"", "source: [quay.io]")), vec![good()]),
        ("MR069", vec![W], r(idms("quay.io=m.lab").replace("  name: d", "  name: d\n  namespace: x")), vec![good()]),
        (
            "MR070",
            vec![I],
            r(idms("quay.io/openshift-release-dev/ocp-release=m.lab/r")),
            vec![
                r(idms("quay.io/openshift-release-dev=m.lab/o")),
                input(Given { rules: &[idms("quay.io/a=m.lab/a")], connected: true, ..Given::default() }),
            ],
        ),
    ]
}

fn machine_config(path: &str) -> String {
    format!(
        "apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfig\nmetadata: {{name: x}}\nspec:\n  config:\n    storage:\n      files:\n      - path: {path}\n"
    )
}

fn values(text: &str) -> Input {
    input(Given { values: Some(text), ..Given::default() })
}

#[test]
fn each_check_is_triggered_and_is_silent() {
    for (code, expected, bad, good) in cases() {
        assert_eq!(severities(&bad, code), expected, "{code} is triggered: {:#?}", lint(&bad));
        for (at, input) in good.iter().enumerate() {
            assert!(severities(input, code).is_empty(), "{code} is silent ({at}): {:#?}", lint(input));
        }
    }
    for check in &CATALOGUE {
        assert!(cases().iter().any(|(code, ..)| *code == check.code), "{} has no case", check.code);
    }
}

#[test]
fn the_catalogue_is_complete_and_in_order() {
    for (at, check) in CATALOGUE.iter().enumerate() {
        assert_eq!(check.code, format!("MR{:03}", at + 1));
        assert!(!check.why.is_empty() && !check.fix.is_empty());
    }
}

#[test]
fn the_page_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint.md");
    if std::env::var_os("AIRLOCK_WRITE_DOCS").is_some() {
        std::fs::write(&path, catalogue::page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), catalogue::page(), "AIRLOCK_WRITE_DOCS=1 writes it anew");
}

/// The two documents of the seed about an AI platform.
fn seed() -> Option<[String; 2]> {
    let path = shared::shared().join("seeds/000_93f158b4b273103f.txt");
    let Ok(text) = std::fs::read_to_string(&path) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", path.display());
        println!("skipped: {} is missing", path.display());
        return None;
    };
    let document = |name: &str| {
        let start = text.find(&format!("# {name}\n")).unwrap();
        let body = &text[start..];
        let end = body.find("\n\n2. ITMS").or(body.find("\n\nGroup entries")).unwrap();
        body[..end].to_owned() + "\n"
    };
    Some([document("idms-ai-platform.yaml"), document("itms-ai-platform.yaml")])
}

#[test]
fn the_ai_platform_of_the_seed_gets_its_findings() {
    let Some(documents) = seed() else { return };
    let images = "runai.jfrog.io/gpu-extra/x:1\nmpioperator/mpi-operator:0.6\nghcr.io/grafana/grafana:11\nnvcr.io/nvidia/gpu-operator:v24.9\nquay.io/new/thing:1\n";
    let input = with_images(&documents, images);
    assert!(input.unreadable().is_empty());
    let found = lint(&input);
    let has = |code: &str, about: &str| found.iter().any(|f| f.id == code && (f.message.contains(about)));
    for (code, about) in [
        ("MR015", "registry-1.docker.io/mpioperator"),
        ("MR015", "registry-1.docker.io/prom"),
        ("MR017", "registry-1.docker.io/alpine"),
        ("MR019", "nvcr.io/nvidia/clara"),
        ("MR019", "nvcr.io/nvidia/mellanox"),
        ("MR025", "ghcr.io/grafana"),
        ("MR029", "ghcr.io/grafana/grafana:11"),
        ("MR031", "mpioperator/mpi-operator"),
        ("MR031", "quay.io/new/thing"),
        ("MR033", "no source is forbidden"),
        ("MR042", "registry.example.com"),
        ("MR056", "separate files"),
        ("MR059", "runai.jfrog.io"),
        ("MR066", "mpioperator/mpi-operator"),
    ] {
        assert!(has(code, about), "{code} about {about}: {found:#?}");
    }
    assert!(!has("MR020", "") && !has("MR018", ""), "{found:#?}");
}

#[test]
fn fixes_keep_comments_and_order_and_leave_nothing_behind() {
    let text = "# ours\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet # tags\nmetadata:\n  name: t\n  uid: abc # from the cluster\nspec:\n  imageTagMirrors:\n  # hub\n  - source: index.docker.io/acme # old name\n    mirrors:\n    - https://m.lab/acme/ # fast\n    # twice\n    - n.lab/acme\n    - n.lab/acme\n  - source: 'quay.io/a:1'\n    mirrors: [m.lab/a]\n";
    let input = rules(&[text.to_owned()]);
    let changed = fixed(&input.objects, &lint(&input));
    let wanted = text
        .replace("  uid: abc # from the cluster\n", "")
        .replace("index.docker.io", "docker.io")
        .replace("https://m.lab/acme/", "m.lab/acme")
        .replace("    - n.lab/acme\n    - n.lab/acme\n", "    - n.lab/acme\n")
        .replace("'quay.io/a:1'", "'quay.io/a'");
    assert_eq!(changed, [(0, wanted.clone())]);
    assert!(lint(&rules(&[wanted])).iter().all(|f| !f.fixable));
}

#[test]
fn an_annotation_allows_a_finding() {
    let text = idms("quay.io/a=m.lab/a")
        .replace("  name: d", "  name: d\n  annotations:\n    airlock.lint/allow: MR033, MR099");
    let input = rules(&[text]);
    let (kept, left_out) = without_allowed(&input.objects, lint(&input));
    assert!(left_out == 1 && kept.iter().all(|f| f.id != "MR033"), "{kept:#?}");
}

#[test]
fn sarif_has_every_rule_and_every_place() {
    let findings: Vec<Finding> = lint(&rules(&[idms("quay.io/a:1=m.lab/a")]));
    let log = report::sarif(&findings, "1.0");
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"].as_array().unwrap().len(), 70);
    let results = log["runs"][0]["results"].as_array().unwrap();
    let first = results.iter().find(|r| r["ruleId"] == "MR001").unwrap();
    assert_eq!((&first["level"], &first["ruleIndex"]), (&"error".into(), &0.into()));
    assert_eq!(first["locations"][0]["physicalLocation"]["region"]["startLine"], 7);
    assert!(report::explanation("mr020").unwrap().contains("longest source"));
}

#[test]
fn a_given_payload_counts() {
    let texts = [idms("quay.io/openshift-release-dev=m.lab/o"), image("blockedRegistries: [quay.io]")];
    let mut input = rules(&texts);
    assert!(severities(&input, "MR047").is_empty());
    input.payload = Some(Payload::parse(&format!("quay.io/other/release{DIGEST}")).unwrap());
    assert_eq!(severities(&input, "MR047"), [W]);
}

#[test]
fn two_thousand_rules_and_ten_thousand_images_take_no_time() {
    let entries =
        |from: usize| (from..from + 1_000).map(|n| format!("r{}.corp.io/ns{n}=m.lab:5000/r{}/ns{n} ", n % 50, n % 50));
    let texts = [idms(&entries(0).collect::<String>()), itms(&entries(1_000).collect::<String>())];
    let images: Vec<String> =
        (0..10_000).map(|n| format!("r{}.corp.io/ns{}/team/app{n}:v1\n", n % 50, n % 2_000)).collect();
    let images = images.concat();
    let input = with_images(&texts, &images);
    let start = std::time::Instant::now();
    let found = lint(&input);
    assert_eq!(found.iter().filter(|f| f.id == "MR029").count(), 1_000, "by tag, below an IDMS");
    // Comparing every image with every rule again and again would take a minute.
    assert!(start.elapsed() < std::time::Duration::from_secs(8), "{:?}", start.elapsed());
    println!("{:?}", start.elapsed());
}
