//! `--idms-file` and `--icsp-file`: a release is read where the mirror rules of a file lead (updates-and-releases.md 7.4).
//!
//! On a cluster an IDMS or ICSP is for pulls by digest only. Whoever names the file here wants the mirror, and names the release by a tag as
//! often as not: so each rule is given for tags too, and the rest is what a node makes of them.

use airlock_rules::convert::draft::{Draft, documents};
use airlock_rules::render::{Base, render};
use airlock_rules::undo::draft_of;
use airlock_rules::{Kind, Objects};

use crate::args::registries::Rules;
use crate::args::release::WhereArgs;
use crate::commands::rules::input;
use crate::exit::Failure;

/// The rules of the file that was given, if one was.
pub(super) fn rules(place: &WhereArgs) -> Result<Option<Rules>, Failure> {
    let Some(path) = place.idms_file.as_ref().or(place.icsp_file.as_ref()) else { return Ok(None) };
    let (name, text) = (path.display().to_string(), input::text(path)?);
    Ok(Some(Rules { text: registries_conf(&name, &text)?, name }))
}

fn registries_conf(name: &str, text: &str) -> Result<String, Failure> {
    let mut files = vec![(name.to_owned(), text.to_owned())];
    let objects = Objects::load(&files)?;
    let for_digests = objects.sets.iter().filter(|set| set.kind != Kind::Itms);
    let for_tags = for_digests.map(|set| {
        let draft = draft_of(set);
        Draft { kind: Kind::Itms, name: format!("{}-by-tag", draft.name), ..draft }
    });
    files.push((format!("{name} (by tag)"), documents(&for_tags.collect::<Vec<_>>())));
    files.retain(|(_, text)| !text.is_empty());
    Ok(render(&Objects::load(&files)?, &Base::default())?.plain())
}

#[cfg(test)]
mod tests {
    use airlock_oci::registries_conf::Config;

    use super::*;

    #[test]
    fn tags_and_digests_go_to_the_mirror_first() {
        let idms = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: a}\nspec:\n  imageDigestMirrors:\n  - source: quay.io/o/r\n    mirrors: [m.lab/ocp4]\n  - source: quay.io/o/never\n    mirrors: [m.lab/never]\n    mirrorSourcePolicy: NeverContactSource\n";
        let icsp = "apiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata: {name: a}\nspec:\n  repositoryDigestMirrors:\n  - source: quay.io/o/r\n    mirrors: [m.lab/ocp4]\n";
        for (text, policy) in [(idms, true), (icsp, false)] {
            let conf = registries_conf("a.yaml", text).unwrap();
            let config = Config::parse(Some(&conf), &[]).unwrap();
            let of = |name: &str| -> Vec<(String, bool)> {
                let endpoints = config.endpoints(&name.parse().unwrap()).unwrap();
                endpoints.into_iter().map(|e| (e.reference.to_string(), e.blocked)).collect()
            };
            let digest = format!("@sha256:{}", "0".repeat(64));
            for end in [":4.16.0", &digest] {
                let both = [(format!("m.lab/ocp4{end}"), false), (format!("quay.io/o/r{end}"), false)];
                assert_eq!(of(&format!("quay.io/o/r{end}")), both);
                if policy {
                    let both = [(format!("m.lab/never{end}"), false), (format!("quay.io/o/never{end}"), true)];
                    assert_eq!(of(&format!("quay.io/o/never{end}")), both);
                }
            }
        }
        assert!(registries_conf("a.yaml", "kind: ConfigMap\n").is_err());
    }
}
