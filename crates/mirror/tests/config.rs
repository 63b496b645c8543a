//! The configuration: a table for every rule of the format, messages with their places, the world's image sets, robustness.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![expect(clippy::format_collect, reason = "test data, built once")]
#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::{Path, PathBuf};

use airlock_mirror::config::{
    self, ApiVersion, ImageLocation, ImageSetConfiguration, Loaded, Problem, Problems, ReleaseKind, Severity, code,
};
use airlock_oci::Platform;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A file with this text below `mirror:`, which is indented by two.
fn isc(body: &str) -> String {
    let body: String = body.lines().map(|line| format!("  {line}\n")).collect();
    format!("kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n{body}")
}

fn v1(body: &str) -> String {
    isc(body).replace("v2alpha1", "v1alpha2")
}

fn good(text: &str) -> Loaded {
    config::parse("isc.yaml", text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

fn bad(text: &str) -> Problems {
    match config::parse("isc.yaml", text) {
        Err(problems) => problems,
        Ok(loaded) => panic!("accepted: {text}\n{:?}", loaded.config),
    }
}

/// The only error of a text.
fn one(text: &str) -> Problem {
    let errors: Vec<Problem> = bad(text).problems.0.into_iter().filter(|p| p.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{text}\n{errors:#?}");
    errors.into_iter().next().unwrap()
}

/// (text, code, part of the message, (line, column), part of the hint)
type Case<'a> = (String, &'a str, &'a str, (u32, u32), &'a str);

fn check(cases: &[Case<'_>]) {
    for (text, code, message, place, hint) in cases {
        let problem = one(text);
        assert_eq!(problem.code, *code, "{text}\n{problem}");
        assert!(problem.message.contains(message), "{text}\n{problem}");
        assert_eq!((problem.line, problem.column), *place, "{text}\n{problem}");
        assert!(problem.hint.clone().unwrap_or_default().contains(hint), "{text}\n{problem}");
        assert!(problem.to_string().contains(&format!("--> isc.yaml:{}:{}", place.0, place.1)));
    }
}

#[test]
fn the_whole_schema_is_read() {
    let loaded = good(&format!(
        "apiVersion: mirror.openshift.io/v2alpha1
kind: ImageSetConfiguration
archiveSize: 4
mirror:
  platform:
    graph: true
    channels:
    - name: stable-4.18
      minVersion: 4.18.1
      maxVersion: '4.18.9'
      shortestPath: yes
    - name: okd-4
      type: okd
      full: true
    platforms:
    - {{os: linux, architecture: amd64}}
    release: quay.io/openshift-release-dev/ocp-release:4.18.1-x86_64
    kubeVirtContainer: true
  operators:
  - catalog: registry.redhat.io/redhat/redhat-operator-index:v4.18
    targetCatalog: mine/index
    targetTag: v4.18-a
    full: false
    skipDependencies: true
    targetCatalogSourceTemplate: /tmp/cs.yaml
    platforms: [linux/arm64]
    packages:
    - name: a
      defaultChannel: stable
      channels:
      - name: stable
        minVersion: v1.2
        maxVersion: 1.9.0-rc.1
    - name: b
      minVersion: 1.0.0
  - catalog: oci:///srv/catalog
  - catalog: oci://rel/catalog
  additionalImages:
  - name: docker://quay.io/a/b:1
    targetRepo: x/y__z
    targetTag: prod
    platforms:
    - os: linux
      architecture: arm64
    - linux/amd64
  - name: quay.io/a/c@{DIGEST}
  - name: quay.io/a/c:v1@{DIGEST}
  - name: '[::1]:5000/a/d:1'
  - name: oci:///abs/layout
  helm:
    repositories:
    - name: world
      url: https://example.com/charts
      charts:
      - name: podinfo
        version: 5.0.0
        imagePaths: ['{{.spec.image}}']
    local:
    - name: own
      path: ./own.tgz
  blockedImages:
  - name: 'quay.io/world/app[01].*'
  samples:
  - name: ruby
"
    ));
    let ImageSetConfiguration { api_version, archive_size, mirror } = &loaded.config;
    assert_eq!((*api_version, archive_size.gib(), archive_size.bytes()), (ApiVersion::V2Alpha1, 4, 4 << 30));
    let platform = mirror.platform.as_ref().unwrap();
    assert!(platform.graph && platform.kube_virt_container && platform.channels[0].shortest_path);
    assert_eq!(platform.channels[0].min_version.as_deref(), Some("4.18.1"));
    assert_eq!((platform.channels[1].kind, platform.channels[1].line), (ReleaseKind::Okd, 12));
    assert_eq!(platform.platforms, ["linux/amd64".parse::<Platform>().unwrap()]);
    let catalog = &mirror.operators[0];
    assert_eq!(catalog.target_catalog.as_ref().unwrap().as_str(), "mine/index");
    assert_eq!((catalog.line, catalog.packages[0].line, catalog.packages[0].channels[0].line), (20, 28, 31));
    assert_eq!(mirror.operators[1].catalog.location, ImageLocation::Layout("/srv/catalog".into()));
    assert_eq!(mirror.operators[2].catalog.location, ImageLocation::Layout("rel/catalog".into()));
    let images = &mirror.additional_images;
    assert_eq!(images.iter().map(|i| i.line).collect::<Vec<_>>(), [39, 46, 47, 48, 49]);
    assert_eq!(images[0].name.text, "quay.io/a/b:1");
    assert_eq!(images[0].target_tag.as_ref().unwrap().as_str(), "prod");
    assert_eq!(images[0].platforms.len(), 2);
    let ImageLocation::Registry(both) = &images[2].name.location else { panic!() };
    assert!(both.tag().is_some() && both.digest().is_some());
    assert_eq!(mirror.helm.repositories[0].charts[0].version.as_deref(), Some("5.0.0"));
    assert_eq!(mirror.helm.local[0].path.as_deref(), Some(Path::new("./own.tgz")));
    assert!(mirror.blocked_images[0].pattern.is_match("docker://quay.io/world/app1:v1"));
    assert_eq!(mirror.samples[0].name, "ruby");
    // `release` hides the channels, and samples are ignored: both are said, nothing else is.
    assert_eq!(loaded.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), [code::SUSPICIOUS, code::IGNORED]);
}

#[test]
fn loading_rules() {
    let image = "additionalImages:\n- name: quay.io/a/b:1";
    check(&[
        (String::new(), code::DOCUMENTS, "empty", (1, 1), ""),
        ("# nothing\n".into(), code::DOCUMENTS, "empty", (1, 1), ""),
        ("just text".into(), code::KIND, "not an ImageSetConfiguration", (1, 1), ""),
        (isc(image) + "---\nkind: x\n", code::DOCUMENTS, "one YAML document", (7, 1), ""),
        (isc("a: [1"), code::SYNTAX, "not valid YAML", (4, 6), ""),
        (isc("additionalImages:\n\t- name: x"), code::SYNTAX, "tabs disallowed", (5, 4), ""),
        (isc("helm:\nhelm:"), code::DUPLICATE_KEY, "duplicate key `helm`: it is already set in line 4", (5, 3), ""),
        (isc("helm:\nHelm:"), code::DUPLICATE_KEY, "`Helm`: it is `helm` again", (5, 3), ""),
        ("mirror: {}".into(), code::KIND, "`kind` is missing", (1, 1), "add `kind: ImageSetConfiguration`"),
        (
            "kind: ImageSetConfig\nmirror: {}".into(),
            code::KIND,
            "kind is `ImageSetConfig`, expected `ImageSetConfiguration`",
            (1, 7),
            "",
        ),
        (
            "kind: imagesetconfiguration\nmirror:".into(),
            code::KIND,
            "expected `ImageSetConfiguration`",
            (1, 7),
            "did you mean",
        ),
        (
            "kind: DeleteImageSetConfiguration\ndelete: {}".into(),
            code::KIND,
            "kind is `DeleteImageSetConfiguration`, expected `ImageSetConfiguration`",
            (1, 7),
            "",
        ),
        ("kind: ImageSetConfiguration\n".into(), code::KIND, "`mirror` is missing", (1, 1), "add `mirror:`"),
        (
            isc(image) + "delete: {}\n",
            code::UNKNOWN_FIELD,
            "unknown field \"delete\"",
            (6, 1),
            "DeleteImageSetConfiguration",
        ),
    ]);
    // An empty second document is what a trailing `---` makes.
    good(&(isc(image) + "---\n"));
    good(&format!("\u{feff}---\n{}...\n", isc(image)));
    good(&isc(image).replace('\n', "\r\n"));
}

#[test]
fn unknown_fields_are_errors_at_every_depth() {
    let unknown = code::UNKNOWN_FIELD;
    check(&[
        (isc("helm:") + "mirorr: {}\n", unknown, "unknown field \"mirorr\"", (5, 1), "did you mean `mirror`?"),
        (isc("helm:") + "operators: []\n", unknown, "\"operators\"", (5, 1), "belongs below `mirror`"),
        (
            isc("aditionalImages: []"),
            unknown,
            "\"aditionalImages\" in `mirror`",
            (4, 3),
            "did you mean `additionalImages`?",
        ),
        (isc("platform:\n  chanels: []"), unknown, "\"chanels\" in `mirror.platform`", (5, 5), "`channels`"),
        (
            isc("platform:\n  channels:\n  - name: a\n    minversions: 1"),
            unknown,
            "\"minversions\"",
            (7, 7),
            "`minVersion`",
        ),
        (
            isc("operators:\n- catalog: a/b:1\n  package: []"),
            unknown,
            "\"package\" in `mirror.operators[0]`",
            (6, 5),
            "`packages`",
        ),
        (
            isc("operators:\n- catalog: a/b:1\n  packages:\n  - name: x\n    bundles: []"),
            unknown,
            "\"bundles\"",
            (8, 7),
            "minVersion",
        ),
        (
            isc("operators:\n- catalog: a/b:1\n  packages:\n  - name: x\n    minBundle: x.v1"),
            unknown,
            "\"minBundle\"",
            (8, 7),
            "minVersion",
        ),
        (
            isc("operators:\n- catalog: a/b:1\n  packages:\n  - name: x\n    channels:\n    - name: z\n      head: 1"),
            unknown,
            "\"head\"",
            (10, 9),
            "",
        ),
        (isc("operators:\n- catalog: a/b:1\n  targetName: x"), unknown, "\"targetName\"", (6, 5), "targetCatalog"),
        (isc("operators:\n- catalog: a/b:1\n  originalRef: x"), unknown, "\"originalRef\"", (6, 5), "only v1alpha2"),
        (isc("additionalImages:\n- image: a/b:1\n  name: a/b:1"), unknown, "\"image\"", (5, 5), "`name`"),
        (
            isc("additionalImages:\n- name: a/b:1\n  platforms: [{os: linux, arch: amd64, architecture: amd64}]"),
            unknown,
            "\"arch\"",
            (6, 29),
            "",
        ),
        (isc("helm:\n  repos: []"), unknown, "\"repos\"", (5, 5), ""),
        (isc("helm:\n  local:\n  - path: x\n    values: y"), unknown, "\"values\"", (7, 7), ""),
        (isc("blockedImages:\n- name: a\n  regex: b"), unknown, "\"regex\"", (6, 5), ""),
        (isc("helm:") + "storageConfig:\n  local: {path: /x}\n", unknown, "\"storageConfig\"", (5, 1), "remove it"),
    ]);
}

#[test]
fn names_match_without_regard_to_case() {
    let loaded = good(
        "KIND: ImageSetConfiguration\nApiVersion: mirror.openshift.io/v2alpha1\nMIRROR:\n  additionalimages:\n  - NAME: quay.io/a/b:1\n    targetrepo: x\n",
    );
    assert!(loaded.warnings.is_empty());
    assert_eq!(loaded.config.mirror.additional_images[0].target_repo.as_ref().unwrap().as_str(), "x");
}

#[test]
fn scalars_are_typed() {
    let channel = |value: &str| isc(&format!("platform:\n  channels:\n  - name: stable-4.18\n    minVersion: {value}"));
    check(&[
        (channel("4.18"), code::TYPE, "must be a string, found a number", (7, 19), "quote it: \"4.18\""),
        (channel("4"), code::TYPE, "found a number", (7, 19), "quote it: \"4\""),
        (channel("true"), code::TYPE, "found a boolean", (7, 19), "quote it"),
        (channel("[a]"), code::TYPE, "found a list", (7, 19), ""),
        (
            isc("platform:\n  graph: 'true'"),
            code::TYPE,
            "must be true or false, found a string",
            (5, 12),
            "without quotes",
        ),
        (isc("platform:\n  graph: maybe"), code::TYPE, "must be true or false", (5, 12), ""),
        (isc("platform: []"), code::TYPE, "`mirror.platform` must be a mapping", (4, 13), ""),
        (isc("operators: {}"), code::TYPE, "`mirror.operators` must be a list", (4, 14), ""),
    ]);
    good(&channel("4.18.1"));
    good(&channel("\"4.18.0\""));
    good(&channel("!!str 4.18.0"));
    for (text, on) in [("yes", true), ("On", true), ("TRUE", true), ("n", false), ("~", false)] {
        assert_eq!(
            good(&isc(&format!("platform:\n  graph: {text}"))).config.mirror.platform.unwrap().graph,
            on,
            "{text}"
        );
    }
    // A bare string in place of a mapping is one problem, not two.
    let problems = bad(&isc("additionalImages:\n- quay.io/a/b:1"));
    assert_eq!(problems.problems.0.iter().map(|p| p.code).collect::<Vec<_>>(), [code::TYPE]);
    assert_eq!(problems.problems.0[0].hint.as_deref(), Some("write `name: quay.io/a/b:1`"));
}

#[test]
fn archive_size_is_in_gib() {
    let size = |value: &str| isc("helm:") + &format!("archiveSize: {value}\n");
    for (value, gib) in [("0", 500), ("1", 1), ("500", 500), ("", 500), ("0x10", 16), ("1_000", 1000)] {
        assert_eq!(good(&size(value)).config.archive_size.gib(), gib, "{value}");
    }
    assert_eq!(good(&isc("helm:")).config.archive_size.gib(), 500);
    check(&[
        (size("-1"), code::VALUE, "archiveSize is -1", (5, 14), "default of 500"),
        (size("99999999999"), code::VALUE, "archiveSize is", (5, 14), ""),
        (size("9999999999999999999999"), code::TYPE, "whole number", (5, 14), ""),
        (size("1.5"), code::TYPE, "whole number, found a number", (5, 14), ""),
        (size("'4'"), code::TYPE, "whole number, found a string", (5, 14), "without quotes"),
        (size("4GiB"), code::TYPE, "whole number, found a string", (5, 14), ""),
    ]);
}

#[test]
fn platform_rules() {
    let platform =
        |body: &str| isc(&format!("platform:\n{}", body.lines().map(|l| format!("  {l}\n")).collect::<String>()));
    check(&[
        (
            platform("channels:\n- name: a\n- name: b\n- name: a"),
            code::DUPLICATE,
            "release channel \"a\": duplicate found",
            (8, 13),
            "",
        ),
        (
            platform("channels:\n- type: ocp"),
            code::MISSING,
            "`mirror.platform.channels[0].name` is missing",
            (6, 7),
            "",
        ),
        (platform("channels:\n- name: ''"), code::MISSING, "name` is missing or empty", (6, 7), ""),
        (platform("channels:\n- name: a\n  type: odk"), code::VALUE, "channel type `odk`", (7, 13), "`ocp` or `okd`"),
        (
            platform("channels:\n- name: a\n  minVersion: '4.18'"),
            code::VERSION,
            "semantic versioning",
            (7, 19),
            "x.y.z",
        ),
        (platform("channels:\n- name: a\n  maxVersion: latest"), code::VERSION, "`latest`", (7, 19), "x.y.z"),
        (
            platform("architectures: [amd64]\nplatforms:\n- linux/amd64"),
            code::EXCLUSIVE,
            "platform.platforms and platform.architectures cannot be used together",
            (5, 5),
            "platforms",
        ),
        (platform("platforms:\n- os: linux"), code::MISSING, "architecture` is missing", (6, 7), ""),
        (platform("platforms:\n- os: ''\n  architecture: amd64"), code::MISSING, "os` is missing or empty", (6, 7), ""),
        (platform("platforms:\n- linux"), code::VALUE, "`linux` is not a platform", (6, 7), ""),
        (platform("release: quay.io/o/release"), code::REFERENCE, "tag and digest are empty", (5, 14), "add a tag"),
    ]);
    let loaded = good(&platform(
        "architectures: [amd64, x86_64]\nchannels:\n- name: a\n  minVersion: 4.18.5\n  maxVersion: 4.18.1",
    ));
    let warnings: Vec<&str> = loaded.warnings.iter().map(|w| w.message.as_str()).collect();
    assert!(warnings[0].contains("platform.architectures is deprecated"), "{warnings:?}");
    assert!(warnings[1].contains("`x86_64`") && loaded.warnings[1].hint.as_deref() == Some("did you mean `amd64`?"));
    assert!(warnings[2].contains("minVersion 4.18.5 is above maxVersion 4.18.1"));
}

#[test]
fn operator_rules() {
    let operators = |body: &str| isc(&format!("operators:\n{body}"));
    let package = |body: &str| {
        operators(&format!(
            "- catalog: a.io/b:1\n  packages:\n  - name: p\n{}",
            body.lines().map(|l| format!("    {l}\n")).collect::<String>()
        ))
    };
    check(&[
        (operators("- full: true"), code::MISSING, "operators[0].catalog` is missing", (5, 5), ""),
        (
            operators("- catalog: a.io/b"),
            code::REFERENCE,
            "catalog `a.io/b`: tag and digest are empty",
            (5, 14),
            "`a.io/b:latest`",
        ),
        (operators("- catalog: a.io/B:1"), code::REFERENCE, "must be lowercase", (5, 14), "did you mean `a.io/b:1`?"),
        (operators("- catalog: dir:///x"), code::REFERENCE, "transport `dir`", (5, 14), "oci://"),
        (operators("- catalog: oci://"), code::REFERENCE, "names no directory", (5, 14), "oci:///"),
        (
            operators("- catalog: a.io/b:1\n  targetCatalog: x/y:1"),
            code::VALUE,
            "invalid target path component `y:1`",
            (6, 20),
            "targetTag",
        ),
        (
            operators("- catalog: a.io/b:1\n  targetCatalog: x//y"),
            code::VALUE,
            "invalid target path component",
            (6, 20),
            "",
        ),
        (operators("- catalog: a.io/b:1\n  targetCatalog: X/y"), code::VALUE, "component `X`", (6, 20), "lower case"),
        (operators("- catalog: a.io/b:1\n  targetTag: a:b"), code::VALUE, "invalid targetTag `a:b`", (6, 16), ""),
        (
            operators("- catalog: a.io/b:1\n- catalog: a.io/c:1\n- catalog: docker://a.io/b:1"),
            code::DUPLICATE,
            "catalog \"a.io/b:1\": duplicate found in configuration",
            (7, 14),
            "",
        ),
        (
            operators(
                "- catalog: a.io/b:1\n  targetCatalog: x\n- catalog: a.io/c:2\n  targetCatalog: x\n  targetTag: '1'",
            ),
            code::DUPLICATE,
            "duplicate found in configuration",
            (7, 14),
            "",
        ),
        (
            package("").replace("- name: p\n", "- name: p\n    - name: q\n    - name: p\n"),
            code::DUPLICATE,
            "package \"p\": duplicate found",
            (9, 13),
            "",
        ),
        (package("channels:\n- name: c\n- name: c"), code::DUPLICATE, "channel \"c\": duplicate found", (10, 15), ""),
        (package("minVersion: stable"), code::VERSION, "must respect semantic versioning notation", (8, 19), ""),
        (package("channels:\n- name: c\n  maxVersion: 1.x"), code::VERSION, "semantic versioning", (10, 21), ""),
        (
            package("minVersion: 1.0.0\nchannels:\n- name: c\n  maxVersion: 2.0.0"),
            code::EXCLUSIVE,
            "mixing both filtering by minVersion/maxVersion and filtering by channel minVersion/maxVersion is not allowed",
            (8, 7),
            "",
        ),
        (
            package("defaultChannel: stable\nchannels:\n- minVersion: 1.0.0"),
            code::MISSING,
            "channels[0].name` is missing",
            (10, 9),
            "",
        ),
    ]);
    // Targets make one catalog two, and a channel without versions does not mix.
    good(&operators(
        "- catalog: a.io/b:1\n- catalog: a.io/b:1\n  targetTag: '2'\n- catalog: a.io/b:1\n  targetCatalog: x",
    ));
    good(&package("minVersion: '1.2'\nchannels:\n- name: c"));
}

#[test]
fn additional_image_rules() {
    let image = |body: &str| isc(&format!("additionalImages:\n- {}", body.replace('\n', "\n  ")));
    check(&[
        (
            image("name: quay.io/a/b"),
            code::REFERENCE,
            "image `quay.io/a/b`: tag and digest are empty",
            (5, 11),
            "add a tag: `quay.io/a/b:latest`",
        ),
        (image("name: ''"), code::MISSING, "additionalImages[0].name` is missing or empty", (5, 5), ""),
        (image("targetTag: x"), code::MISSING, "additionalImages[0].name` is missing", (5, 5), ""),
        (image("name: quay.io/a/b@sha256:abc"), code::REFERENCE, "invalid reference format", (5, 11), ""),
        (image("name: 'quay.io/a/b:'"), code::REFERENCE, "invalid reference", (5, 11), ""),
        (image("name: quay.io/A/b:1"), code::REFERENCE, "lowercase", (5, 11), "did you mean"),
        (image("name: quay.io/a/b:1\ntargetRepo: /x"), code::VALUE, "invalid targetRepo `/x`", (6, 17), ""),
        (image("name: quay.io/a/b:1\ntargetRepo: x@y"), code::VALUE, "invalid targetRepo", (6, 17), "no digest"),
        (image("name: quay.io/a/b:1\ntargetTag: -x"), code::VALUE, "invalid targetTag", (6, 16), ""),
        (image("name: quay.io/a/b:1\nplatforms: [linux/]"), code::VALUE, "`linux/` is not a platform", (6, 17), ""),
    ]);
    assert_eq!(one(&image("name: quay.io/a/b")).length, 11);
}

#[test]
fn helm_and_blocked_image_rules() {
    check(&[
        (
            isc("helm:\n  repositories:\n  - url: http://x"),
            code::MISSING,
            "repositories[0].name` is missing",
            (6, 7),
            "",
        ),
        (isc("helm:\n  repositories:\n  - name: x"), code::MISSING, "repositories[0].url` is missing", (6, 7), ""),
        (
            isc("helm:\n  repositories:\n  - name: x\n    url: http://x\n    charts:\n    - version: 1.0.0"),
            code::MISSING,
            "charts[0].name` is missing",
            (9, 9),
            "",
        ),
        (isc("helm:\n  local:\n  - name: x"), code::MISSING, "local[0].path` is missing", (6, 7), ""),
        (
            isc("blockedImages:\n- name: 'a(b'"),
            code::VALUE,
            "pattern `a(b` is not a regular expression: unclosed group",
            (5, 11),
            "",
        ),
        (isc("blockedImages:\n- {}"), code::MISSING, "blockedImages[0].name` is missing", (5, 5), ""),
    ]);
}

#[test]
fn all_problems_come_together_in_order_of_lines() {
    let text = isc(
        "additionalImages:\n- name: quay.io/a/b\n- nme: quay.io/a/b:1\n- name: quay.io/a/b:1\n  targetTag: ':'\nblockedImages:\n- name: '('\nhlem: {}",
    );
    let problems = bad(&text);
    let found: Vec<_> = problems.problems.0.iter().map(|p| (p.line, p.code)).collect();
    let expected = [
        (5, code::REFERENCE),
        (6, code::UNKNOWN_FIELD),
        (6, code::MISSING),
        (8, code::VALUE),
        (10, code::VALUE),
        (11, code::UNKNOWN_FIELD),
    ];
    assert_eq!(found, expected);
    let shown = problems.to_string();
    assert!(shown.contains("error[E0106]: unknown field \"hlem\" in `mirror`\n  --> isc.yaml:11:3\n   |\n11 |   hlem: {}\n   |   ^^^^\nhelp: did you mean `helm`?"), "{shown}");
}

#[test]
fn version_1_files_are_taken_with_warnings() {
    let text = v1(
        "operators:\n- catalog: a.io/x/index:v1\n  targetName: mine\n  originalRef: a.io/y:1\nadditionalImages:\n- name: quay.io/a/b",
    ) + "storageConfig:\n  registry:\n    imageURL: a.io/meta:1\n    skipTLS: true\narchiveSize: 2\n";
    let loaded = good(&text);
    let mirror = &loaded.config.mirror;
    assert_eq!(loaded.config.api_version, ApiVersion::V1Alpha2);
    assert_eq!(mirror.operators[0].target_catalog.as_ref().unwrap().as_str(), "x/mine");
    let ImageLocation::Registry(reference) = &mirror.additional_images[0].name.location else { panic!() };
    assert_eq!(
        (reference.to_string().as_str(), mirror.additional_images[0].name.text.as_str()),
        ("quay.io/a/b:latest", "quay.io/a/b:latest")
    );
    let warnings: Vec<_> = loaded.warnings.iter().map(|w| (w.line, w.code)).collect();
    assert_eq!(warnings, [(6, code::DEPRECATED), (7, code::IGNORED), (9, code::IMPLIED), (10, code::IGNORED)]);
    check(&[(
        v1("operators:\n- catalog: a.io/x:1\n  packages:\n  - name: p\n    minBundle: p.v1"),
        code::UNSUPPORTED,
        "`minBundle` is not supported",
        (8, 7),
        "minVersion",
    )]);
}

#[test]
fn other_versions_are_read_as_today_with_a_warning() {
    for version in ["apiVersion: mirror.openshift.io/v3\n", "apiVersion: v2alpha1\n", ""] {
        let loaded = good(&format!("kind: ImageSetConfiguration\n{version}mirror: {{}}\n"));
        assert_eq!(loaded.config.api_version, ApiVersion::V2Alpha1);
        assert_eq!(loaded.warnings.iter().map(|w| w.code).collect::<Vec<_>>(), [code::API_VERSION]);
        assert!(loaded.config.mirror.is_empty());
    }
}

#[test]
fn a_delete_configuration_is_the_same_below_delete() {
    let head = "kind: DeleteImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\n";
    let parse = |body: &str| config::parse_delete("disc.yaml", &format!("{head}{body}"));
    let loaded = parse("delete:\n  additionalImages:\n  - name: quay.io/a/b:1\n").unwrap();
    assert_eq!(loaded.config.delete.additional_images[0].line, 5);
    // Only duplicates of catalogs and channels are checked across entries.
    parse("delete:\n  operators:\n  - catalog: a.io/b:1\n    packages:\n    - name: p\n    - name: p\n").unwrap();
    for (body, message) in [
        ("archiveSize: 1\ndelete: {}\n", "unknown field \"archiveSize\""),
        ("delete:\n  blockedImages: []\n", "unknown field \"blockedImages\""),
        ("delete: {}\nmirror: {}\n", "unknown field \"mirror\""),
        ("mirror: {}\n", "`delete` is missing"),
        ("delete:\n  operators:\n  - catalog: a.io/b:1\n  - catalog: a.io/b:1\n", "duplicate found"),
    ] {
        let problems = parse(body).unwrap_err();
        assert!(problems.to_string().contains(message), "{body}\n{problems}");
    }
    let wrong = config::parse_delete("isc.yaml", &isc("helm:")).unwrap_err().to_string();
    assert!(wrong.contains("kind is `ImageSetConfiguration`, expected `DeleteImageSetConfiguration`"), "{wrong}");
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let loaded = good(&isc(
        "additionalImages:\n- &a\n  name: quay.io/a/b:1\n  platforms: &p [linux/amd64]\n- <<: *a\n  targetTag: two\n- name: quay.io/a/c:1\n  platforms: *p",
    ));
    let images = &loaded.config.mirror.additional_images;
    assert_eq!((images.len(), images[1].name.text.as_str(), images[2].platforms.len()), (3, "quay.io/a/b:1", 1));
    let bomb: String = (1..40).map(|n| format!("- &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    assert_eq!(one(&isc(&format!("samples:\n- &a0 [x]\n{bomb}"))).code, code::SYNTAX);
    assert_eq!(one(&isc("samples: &a [*a]")).code, code::SYNTAX);
}

#[test]
fn files_that_cannot_be_read_are_problems_too() {
    let folder = std::env::temp_dir().join(format!("airlock-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let missing = config::load(&folder.join("none.yaml")).unwrap_err();
    assert_eq!((missing.problems.0[0].code, missing.problems.0[0].line), (code::UNREADABLE, 0));
    assert!(missing.to_string().contains("none.yaml") && missing.to_string().contains("check the path"));
    let latin = folder.join("latin.yaml");
    std::fs::write(&latin, b"kind: x\nname: \xe9\n").unwrap();
    assert!(
        config::load(&latin).unwrap_err().to_string().contains("not UTF-8 text: the first wrong byte is in line 2")
    );
    let fine = folder.join("isc.yaml");
    std::fs::write(&fine, isc("helm:")).unwrap();
    let loaded = config::load(&fine).unwrap();
    assert_eq!((loaded.path, loaded.text), (fine, isc("helm:")));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn thousands_of_problems_are_cut_but_never_lost() {
    let untagged: String = (0..5_000).map(|n| format!("- name: quay.io/a/b{n}\n")).collect();
    let problems = bad(&isc(&format!("additionalImages:\n{untagged}"))).problems.0;
    assert_eq!(problems.len(), 501);
    assert!(problems[500].message.contains("there are 4500 errors more"));
    // Warnings beyond the limit do not hide an error that comes after them.
    let late = v1(&format!("additionalImages:\n{untagged}")) + "hlem: {}\n";
    assert_eq!(one(&late).line, 5_005);
    assert_eq!(good(&v1(&format!("additionalImages:\n{untagged}"))).warnings.len(), 501);
}

#[test]
fn a_value_as_long_as_the_file_is_not_repeated_in_full() {
    let long = "x".repeat(100_000);
    for text in
        [format!("additionalImages:\n- name: quay.io/{long}"), format!("{long}: 1"), format!("samples:\n- {long}")]
    {
        assert!(bad(&isc(&text)).to_string().len() < 4_000);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_walked() {
    let deep = |n: usize| isc(&format!("samples: {}{}", "[".repeat(n), "]".repeat(n)));
    assert_eq!(one(&deep(200)).code, code::SYNTAX);
    assert_eq!(one(&deep(100_000)).code, code::SYNTAX);
    let by_alias: String = (1..200).map(|n| format!("- &a{n} [[[[[*a{}]]]]]\n", n - 1)).collect();
    let problem = one(&isc(&format!("samples:\n- &a0 x\n{by_alias}")));
    assert!(problem.message.contains("levels deep"), "{problem}");
}

#[test]
fn control_characters_of_a_file_never_reach_a_terminal() {
    let shown = bad(&isc("\"a\\e[31m\": \"\\e[2J\"")).to_string() + &bad("kind: \"\\e[2Jx\"\nmirror: {}").to_string();
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

fn shared(folder: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("AIRLOCK_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let path = shared.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    let demanded = std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_some_and(|v| v == "1");
    assert!(!demanded, "no {}", path.display());
    println!("skipped: no {}", path.display());
    None
}

#[test]
fn the_worlds_image_sets_parse_or_fail_as_expected() {
    let Some(folder) = shared("world/isc") else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        seen += 1;
        let id = path.file_stem().unwrap().to_str().unwrap();
        let error = if id.starts_with("del-") {
            config::load_delete(&path).err().map(|e| e.to_string())
        } else {
            config::load(&path).err().map(|e| e.to_string())
        };
        // The one whose expectation is an error of the configuration; other expected errors need the catalog.
        match (id, error) {
            ("op-14-bundles", Some(error)) => assert!(error.contains("unknown field \"bundles\""), "{error}"),
            (_, None) => {}
            (id, Some(error)) => panic!("{id}: {error}"),
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn ten_thousand_images_load_quickly() {
    let images: String = (0..10_000).map(|n| format!("- name: quay.io/team{}/app{n}:v1.{n}\n", n % 97)).collect();
    let start = std::time::Instant::now();
    let loaded = good(&isc(&format!("additionalImages:\n{images}")));
    assert_eq!(loaded.config.mirror.additional_images[9_999].line, 10_004);
    assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn mutated_configurations_never_panic() {
    let seed = isc(
        "platform:\n  channels:\n  - name: a\n    minVersion: 4.1.1\noperators:\n- catalog: a.io/b:1\n  packages: [{name: p}]\nadditionalImages:\n- &x {name: 'é/b:1'}\n- *x\nblockedImages:\n- name: a.*\n",
    );
    let bits: [&[u8]; 16] = [
        b":", b"- ", b"\n", b"  ", b"{", b"[", b"&x ", b"*x", b"|", b"\"", b"\t", b"<<: ", b"\xff", b"\0", b"!!str ",
        b"---\n",
    ];
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let mut bytes = seed.clone().into_bytes();
        for _ in 0..=random(6) {
            let at = random(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match random(3) {
                0 if !bytes.is_empty() => drop(bytes.remove(at)),
                0 => {}
                1 => drop(bytes.splice(at..at, bits[random(bits.len())].iter().copied())),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(problems) = config::parse("fuzz.yaml", &text) {
            assert!(!problems.to_string().is_empty());
        }
        let _ = config::parse_delete("fuzz.yaml", &text);
    }
}
