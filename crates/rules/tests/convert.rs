//! ICSP to IDMS against what `oc adm migrate icsp` wrote, and against the seed's own example.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod shared;

use airlock_rules::convert::icsp::{Style, migrate};
use airlock_rules::render::{Base, render};

#[test]
fn the_vector_of_oc_to_the_byte() {
    let Some(folder) = shared::folder("updates/migrate-icsp") else { return };
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let migrated = migrate("two.icsp.yaml", &read("two.icsp.yaml"), Style::Oc).unwrap();
    assert_eq!(migrated.text, read("two.idms.expected.yaml"));
    assert!(migrated.file_name.starts_with("imagedigestmirrorset_multiple-convert-1."), "{}", migrated.file_name);
    let number = migrated.file_name.split('.').nth(1).unwrap();
    assert!(number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit()), "{number}");
    let refused = migrate("idms.yaml", &read("idms-file-input-example.yaml"), Style::Oc).unwrap_err();
    assert!(refused.0[0].message.contains("could not decode"), "{refused}");
    assert!(migrate("idms.yaml", &read("idms-file-input-example.yaml"), Style::Keep).is_ok());
}

#[test]
fn the_node_does_not_notice() {
    let Some(folder) = shared::folder("updates/migrate-icsp") else { return };
    let text = std::fs::read_to_string(folder.join("two.icsp.yaml")).unwrap();
    let conf = |text: &str| render(&shared::objects(&[text]), &Base::of_pools()).unwrap().mco();
    for style in [Style::Keep, Style::Oc] {
        assert_eq!(conf(&migrate("a.yaml", &text, style).unwrap().text), conf(&text), "{style:?}");
    }
}
