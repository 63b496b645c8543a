//! Whatever a file holds: reading, linting, rendering and fixing end without a panic, and a fixed file still reads.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use airlock_rules::convert::icsp::{Style, migrate};
use airlock_rules::convert::policy::set_policy;
use airlock_rules::lint::{Input, fixed, lint};
use airlock_rules::render::{Base, render};
use airlock_rules::{Objects, Others, Policy};
use proptest::prelude::*;

const SAMPLE: &str = "# ünsere\n---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet # tags\nmetadata:\n  name: t\n  uid: abc\n  annotations: {a: b}\nspec:\n  imageTagMirrors:\n  - &one\n    source: index.docker.io/acme # old\n    mirrors:\n    - https://m.lab/acme/ # schnell\n    - n.lab/acme\n    - n.lab/acme\n  - source: \"quay.io/a:1\"\n    mirrors: [m.lab/a,\n      'quay.io/a:1']\n  - {source: '*.x.io', mirrors: [<m>/x], mirrorSourcePolicy: NeverContactSource}\n  - *one\n  - source: >-\n      quay.io/folded/\n    mirrors: [m.lab]\n---\n{\"apiVersion\": \"operator.openshift.io/v1alpha1\", \"kind\": \"ImageContentSourcePolicy\", \"metadata\": {\"name\": \"i\"}, \"spec\": {\"repositoryDigestMirrors\": [{\"source\": \"quay.io/b/\", \"mirrors\": [\"m.lab/b\", \"m.lab/b\"]}]}}\n";

/// A change of a text: cut out, put in, or double a part.
fn changes() -> impl Strategy<Value = Vec<(u8, prop::sample::Index, u8, String)>> {
    let words = prop::sample::select(vec![
        "",
        ":",
        "- ",
        "\n",
        "  ",
        "\t",
        "\"",
        "'",
        "{",
        "]",
        "*",
        "&a ",
        "ß",
        "#",
        "|",
        "source",
        "mirrors: x",
        "\n---\n",
    ]);
    prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..12_u8, words.prop_map(str::to_owned)), 0..6)
}

fn changed(changes: &[(u8, prop::sample::Index, u8, String)]) -> String {
    let mut text: Vec<char> = SAMPLE.chars().collect();
    for (how, at, length, word) in changes {
        let at = at.index(text.len() + 1);
        let end = (at + *length as usize).min(text.len());
        match how {
            0 => drop(text.splice(at..end, [])),
            1 => drop(text.splice(at..at, word.chars())),
            _ => {
                let part: Vec<char> = text[at..end].to_vec();
                drop(text.splice(end..end, part));
            }
        }
    }
    text.into_iter().collect()
}

fn input(text: &str) -> Input {
    let (objects, problems) = Objects::read(&[("a.yaml".to_owned(), text.to_owned())], Others::Keep);
    Input { objects, problems, ..Input::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_fixes_leave_a_readable_file(changes in changes()) {
        let text = changed(&changes);
        let input = input(&text);
        let findings = lint(&input);
        let _ = render(&input.objects, &Base::of_pools());
        for style in [Style::Keep, Style::Oc] {
            if let Ok(migrated) = migrate("a.yaml", &text, style) {
                let (_, problems) = Objects::read(&[("b.yaml".to_owned(), migrated.text.clone())], Others::Keep);
                prop_assert!(problems.iter().all(|p| p.code != "E0502"), "{}\n{}", text, migrated.text);
            }
        }
        if input.unreadable().is_empty() {
            let before = input.objects.entries().count();
            for (_, after) in fixed(&input.objects, &findings) {
                let again = self::input(&after);
                prop_assert!(again.unreadable().is_empty(), "{}\n{}", text, after);
                prop_assert_eq!(again.objects.entries().count(), before, "{}\n{}", text, after);
            }
            let (never, _) = set_policy(&input.objects, 0, Policy::NeverContactSource);
            let again = self::input(&never);
            prop_assert!(again.unreadable().is_empty(), "{}\n{}", text, never);
            prop_assert_eq!(again.objects.entries().count(), before, "{}\n{}", text, never);
        }
    }
}
