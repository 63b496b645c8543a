//! Back to before: which objects to delete, and which to apply again.

use serde::Serialize;

use crate::convert::draft::{Draft, DraftEntry, documents};
use crate::objects::{Kind, MirrorSet, Objects, Policy};

/// An object by kind and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// `apiVersion`.
    pub api_version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// `metadata.name`.
    pub name: String,
}

/// How to come back.
#[derive(Clone, Debug, Serialize)]
pub struct Undo {
    /// Objects that were not there before.
    pub delete: Vec<Named>,
    /// Objects as they were before; in the order of the old files.
    pub restore: Vec<Draft>,
}

/// What leads from `new` back to `old`. Objects are the same by kind and name, and equal by what they say.
pub fn undo(old: &Objects, new: &Objects) -> Undo {
    let find = |objects: &'_ Objects, set: &MirrorSet| {
        objects.sets.iter().find(|o| o.kind == set.kind && o.name.value == set.name.value).cloned()
    };
    let delete = new.sets.iter().filter(|set| find(old, set).is_none()).map(|set| Named {
        api_version: set.kind.api_version(),
        kind: set.kind.as_str(),
        name: set.name.value.clone(),
    });
    let restore = old.sets.iter().map(draft_of).filter(|draft| {
        let set = new.sets.iter().find(|o| o.kind == draft.kind && o.name.value == draft.name);
        set.is_none_or(|set| draft_of(set) != *draft)
    });
    Undo { delete: delete.collect(), restore: restore.collect() }
}

/// An object as it would be written anew.
pub fn draft_of(set: &MirrorSet) -> Draft {
    let entries = set.entries.iter().map(|entry| DraftEntry {
        comment: None,
        source: entry.source.value.clone(),
        mirrors: entry.mirrors.iter().map(|m| m.value.clone()).collect(),
        never: entry.policy == Policy::NeverContactSource,
    });
    Draft {
        kind: set.kind,
        name: set.name.value.clone(),
        labels: set.labels.clone(),
        annotations: set.annotations.clone(),
        entries: entries.collect(),
    }
}

impl Undo {
    /// A file for `oc delete -f`.
    pub fn delete_yaml(&self) -> String {
        let document = |o: &Named| {
            format!("---\napiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n", o.api_version, o.kind, o.name)
        };
        self.delete.iter().map(document).collect()
    }

    /// A file for `oc apply -f`.
    pub fn restore_yaml(&self) -> String {
        documents(&self.restore)
    }

    /// The resource that `oc` knows an object by.
    pub fn resource(kind: &str) -> &'static str {
        match Kind::ALL.into_iter().find(|k| k.as_str() == kind) {
            Some(Kind::Idms) => "imagedigestmirrorset",
            Some(Kind::Itms) => "imagetagmirrorset",
            Some(Kind::Icsp) | None => "imagecontentsourcepolicy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(text: &str) -> Objects {
        Objects::load(&[("a.yaml".to_owned(), text.to_owned())]).unwrap_or_else(|p| panic!("{p}"))
    }

    fn itms(name: &str, mirror: &str) -> String {
        format!(
            "---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: {name}\n  labels:\n    team: \"a: b\"\nspec:\n  imageTagMirrors:\n  - source: quay.io\n    mirrors:\n    - {mirror}\n"
        )
    }

    #[test]
    fn what_is_new_is_deleted_and_what_changed_restored() {
        let old = objects(&(itms("kept", "m.lab") + &itms("changed", "m.lab") + &itms("gone", "m.lab")));
        let new = objects(&(itms("kept", "m.lab") + &itms("changed", "n.lab") + &itms("added", "m.lab")));
        let undo = undo(&old, &new);
        assert_eq!(undo.delete.iter().map(|o| o.name.as_str()).collect::<Vec<_>>(), ["added"]);
        assert_eq!(undo.restore_yaml(), itms("changed", "m.lab") + &itms("gone", "m.lab"));
        assert!(undo.delete_yaml().contains("name: added\n"));
    }
}
