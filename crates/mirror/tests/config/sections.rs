//! The rules of each section: sizes, platform, operators, images, charts.

use super::*;

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
