//! The whole format, and what holds for every field: names, types, problems that come together.

use std::path::Path;

use super::*;

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
