//! Older versions of the format, and the configuration that deletes.

use super::*;

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
