//! What applying a change costs: which files of a node change, and whether nodes reload, drain or reboot (mirror-rules 5).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::objects::{ImageConfig, Kind, MirrorSet, Objects};
use crate::problem::Problem;
use crate::render::{Base, Effective, Mirror, Payload, Rendered, Table, render_with, search_dropin};

/// `/etc/containers/registries.conf`.
pub const REGISTRIES_CONF: &str = "/etc/containers/registries.conf";
/// `/etc/containers/policy.json`.
pub const POLICY: &str = "/etc/containers/policy.json";
/// The drop-in of search registries.
pub const SEARCH_DROPIN: &str = "/etc/containers/registries.conf.d/01-image-searchRegistries.conf";

/// What the Machine Config Operator does to a node, the cheapest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// No file changes.
    #[default]
    None,
    /// The file is written and `systemctl reload crio` runs; pods stay.
    Reload,
    /// Pods are moved away first, then as above.
    Drain,
    /// Pods are moved away, and the node starts anew.
    Reboot,
}

/// A version of OpenShift, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
}

/// One reason for an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What changed: a scope of registries.conf, or an entry of a list.
    pub scope: String,
    /// In words.
    pub message: String,
    /// What it asks for by itself.
    pub action: Action,
}

/// One file that changes.
#[derive(Clone, Debug, Serialize)]
pub struct FileImpact {
    /// Where it lies on a node.
    pub path: &'static str,
    /// What it asks for.
    pub action: Action,
    /// Why, the dearest first.
    pub reasons: Vec<Reason>,
}

/// What a change costs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Impact {
    /// The dearest of all.
    pub action: Action,
    /// Whether pods have to move; true for a reboot too.
    pub drain_required: bool,
    /// Whether nodes start anew.
    pub reboot_required: bool,
    /// The files that change; none where nothing does.
    pub files: Vec<FileImpact>,
    /// What else to know, such as kinds that the version does not have.
    pub notes: Vec<String>,
}

/// Everything on a node that rules decide.
#[derive(Clone, Debug, Default)]
pub struct NodeFiles {
    /// registries.conf as the operator writes it.
    pub registries_conf: Base,
    /// policy.json; `None` where only the default stands.
    pub policy: Option<serde_json::Value>,
    /// The drop-in of search registries, if there is one.
    pub search: Option<String>,
}

impl Version {
    /// The first with IDMS and ITMS.
    const MIRROR_SETS: Self = Self { major: 4, minor: 13 };
    /// The first that reloads CRI-O instead of rebooting (from release notes).
    const RELOADS: Self = Self { major: 4, minor: 7 };

    /// `4.18` or `4.18.3`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let number = |part: Option<&str>| part?.parse::<u32>().ok();
        let version = Self { major: number(parts.next())?, minor: number(parts.next())? };
        parts.all(|rest| !rest.is_empty()).then_some(version)
    }
}

impl NodeFiles {
    /// The files of a cluster with these objects.
    pub fn of_objects(objects: &Objects, base: &Base, payload: Option<&Payload>) -> Result<Self, Problem> {
        let lists = Effective::of(objects, base, payload)?;
        let rendered = lists.render(objects, base)?;
        Ok(Self {
            registries_conf: Base::from(rendered),
            policy: lists.policy(),
            search: objects.image.as_ref().and_then(search_dropin),
        })
    }
}

impl From<Rendered> for Base {
    fn from(rendered: Rendered) -> Self {
        Self {
            search: rendered.search,
            credential_helpers: rendered.credential_helpers,
            short_name_mode: rendered.short_name_mode,
            layer_store_auth_helper: rendered.layer_store_auth_helper,
            tables: rendered.tables,
            aliases: rendered.aliases,
        }
    }
}

/// What it costs to come from one set of files to another.
pub fn impact(old: &NodeFiles, new: &NodeFiles, version: Option<Version>) -> Impact {
    let mut files = Vec::new();
    let (before, after) = (text(&old.registries_conf), text(&new.registries_conf));
    if before != after {
        let mut reasons = drain_reasons(&old.registries_conf, &new.registries_conf);
        let mut action = reasons.iter().map(|r| r.action).max().unwrap_or_default().max(Action::Reload);
        if version.is_some_and(|v| v < Version::RELOADS) {
            action = Action::Reboot;
            let message = "before OpenShift 4.7 any change of this file reboots".to_owned();
            reasons.push(Reason { scope: REGISTRIES_CONF.to_owned(), message, action });
        }
        files.push(file(REGISTRIES_CONF, action, reasons));
    }
    if old.policy != new.policy {
        let message = "allowed or blocked registries changed".to_owned();
        let reason = Reason { scope: "registrySources".to_owned(), message, action: Action::Reload };
        let reboots = version.is_some_and(|v| v < Version::RELOADS);
        files.push(file(POLICY, if reboots { Action::Reboot } else { Action::Reload }, vec![reason]));
    }
    if old.search != new.search {
        let message =
            "search registries changed; no disruption policy covers this file, and then nodes reboot".to_owned();
        let scope = "containerRuntimeSearchRegistries".to_owned();
        files.push(file(SEARCH_DROPIN, Action::Reboot, vec![Reason { scope, message, action: Action::Reboot }]));
    }
    let action = files.iter().map(|file| file.action).max().unwrap_or_default();
    Impact {
        action,
        drain_required: action >= Action::Drain,
        reboot_required: action == Action::Reboot,
        files,
        notes: Vec::new(),
    }
}

fn file(path: &'static str, action: Action, mut reasons: Vec<Reason>) -> FileImpact {
    reasons.sort_by(|a, b| b.action.cmp(&a.action).then_with(|| a.scope.cmp(&b.scope)));
    FileImpact { path, action, reasons }
}

/// One application of a file on the way from one set of objects to another.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The file that is applied; `deleted objects` for what is left to remove at the end.
    pub what: String,
    /// What this application asks for by itself. [`Action::None`] rolls nothing out.
    pub action: Action,
}

/// The way from `old` to `new` when every file is applied on its own and rolled out before the next. All at once, there is
/// one roll-out.
pub fn steps(
    old: &Objects,
    new: &Objects,
    base: &Base,
    payload: Option<&Payload>,
    version: Option<Version>,
) -> Result<Vec<Step>, Problem> {
    let mut current = old.clone();
    let mut before = NodeFiles::of_objects(&current, base, payload)?;
    let mut steps = Vec::new();
    let mut step = |what: String, current: &Objects| -> Result<(), Problem> {
        let after = NodeFiles::of_objects(current, base, payload)?;
        let action = impact(&before, &after, version).action;
        if action != Action::None {
            steps.push(Step { what, action });
        }
        before = after;
        Ok(())
    };
    let shift = current.files.len();
    current.files.extend(new.files.iter().cloned());
    for (at, file) in new.files.iter().enumerate() {
        for set in new.sets.iter().filter(|set| set.file == at) {
            let same = |o: &&mut MirrorSet| o.kind == set.kind && o.name.value == set.name.value;
            let applied = MirrorSet { file: set.file + shift, ..set.clone() };
            match current.sets.iter_mut().find(same) {
                Some(known) => *known = applied,
                None => current.sets.push(applied),
            }
        }
        if let Some(image) = new.image.as_ref().filter(|image| image.file == at) {
            current.image = Some(ImageConfig { file: image.file + shift, ..image.clone() });
        }
        step(file.name.to_string(), &current)?;
    }
    let kept = |set: &MirrorSet| new.sets.iter().any(|o| o.kind == set.kind && o.name.value == set.name.value);
    current.sets.retain(kept);
    if new.image.is_none() {
        current.image = None;
    }
    step("deleted objects".to_owned(), &current)?;
    Ok(steps)
}

/// Kinds that a version does not have.
pub fn unsupported(objects: &Objects, version: Option<Version>) -> Vec<String> {
    let Some(version) = version.filter(|v| *v < Version::MIRROR_SETS) else { return Vec::new() };
    let sets = objects.sets.iter().filter(|set| set.kind != Kind::Icsp);
    sets.map(|set| {
        format!(
            "{}: OpenShift {}.{} has no {}; it came with 4.13",
            set.title(),
            version.major,
            version.minor,
            set.kind.as_str()
        )
    })
    .collect()
}

fn text(base: &Base) -> String {
    // Rendering nothing onto a file gives the file in the operator's form, whatever its comments and blanks were.
    render_with(&Objects::default(), base, &[], &[]).map(|rendered| rendered.mco()).unwrap_or_default()
}

/// Every difference of two registries.conf with what it asks for (mirror-rules 5.2).
pub fn drain_reasons(old: &Base, new: &Base) -> Vec<Reason> {
    let mut reasons = Vec::new();
    let mut push = |scope: &str, drains: bool, message: String| {
        let action = if drains { Action::Drain } else { Action::Reload };
        reasons.push(Reason { scope: scope.to_owned(), message, action });
    };
    let (before, after) = (old.search.clone().unwrap_or_default(), new.search.clone().unwrap_or_default());
    if before != after {
        let grown = after.starts_with(&before);
        let how = if grown { "grew at the end" } else { "lost or reordered entries" };
        push("unqualified-search-registries", !grown, format!("the search list {how}"));
    }
    let by_scope = |base: &'_ Base| -> BTreeMap<String, Table> {
        base.tables.iter().map(|table| (table.scope().to_owned(), table.clone())).collect()
    };
    let (before, after) = (by_scope(old), by_scope(new));
    for scope in before.keys().filter(|scope| !after.contains_key(*scope)) {
        push(scope, true, "removed".to_owned());
    }
    for (scope, table) in &after {
        match before.get(scope) {
            None => new_table(scope, table, &mut push),
            Some(known) if known == table || same(known, table) => {}
            Some(known) => changed_table(scope, known, table, &mut push),
        }
    }
    reasons
}

/// Equal but for where its parts came from.
fn same(a: &Table, b: &Table) -> bool {
    let bare = |table: &Table| {
        let mirrors = table.mirrors.iter().map(|m| Mirror { origins: Vec::new(), ..m.clone() }).collect();
        Table { mirrors, never: Vec::new(), ..table.clone() }
    };
    bare(a) == bare(b)
}

fn new_table(scope: &str, table: &Table, push: &mut impl FnMut(&str, bool, String)) {
    let digest_only = |mirror: &Mirror| mirror.pull_from_mirror == "digest-only" || table.mirror_by_digest_only;
    if table.mirrors.is_empty() && !table.mirror_by_digest_only {
        let what = match (table.blocked, table.insecure) {
            (true, _) => "new, blocked and without mirrors",
            (false, true) => "new, insecure and without mirrors",
            (false, false) => "new, without mirrors",
        };
        return push(scope, true, what.to_owned());
    }
    for mirror in table.mirrors.iter().filter(|mirror| !digest_only(mirror)) {
        push(scope, true, format!("new, with the mirror `{}` for pulls by tag", mirror.location));
    }
    if table.mirrors.iter().all(digest_only) {
        push(scope, false, "new, with mirrors for pulls by digest only".to_owned());
    }
}

fn changed_table(scope: &str, old: &Table, new: &Table, push: &mut impl FnMut(&str, bool, String)) {
    for (field, differs) in [
        ("prefix", old.prefix != new.prefix),
        ("location", old.location != new.location),
        ("blocked", old.blocked != new.blocked),
        ("insecure", old.insecure != new.insecure),
    ] {
        if differs {
            let how = match field {
                "blocked" => format!("`blocked` becomes {}", new.blocked),
                "insecure" => format!("`insecure` becomes {}", new.insecure),
                field => format!("`{field}` changed"),
            };
            push(scope, true, how);
        }
    }
    for mirror in &old.mirrors {
        if !new.mirrors.iter().any(|m| m.location == mirror.location) {
            push(scope, true, format!("the mirror `{}` is gone", mirror.location));
        }
    }
    let mut told = false;
    for mirror in &new.mirrors {
        // The operator looks at the first of the old mirrors with the location, whatever the others say.
        let known = old.mirrors.iter().find(|m| m.location == mirror.location);
        let serves = match mirror.pull_from_mirror.as_str() {
            "" => "all pulls",
            other => other,
        };
        match known {
            Some(known) if known.pull_from_mirror == mirror.pull_from_mirror => continue,
            Some(_) => {
                let drains = mirror.pull_from_mirror != "digest-only";
                push(scope, drains, format!("the mirror `{}` now serves {serves}", mirror.location));
            }
            None => {
                let drains = mirror.pull_from_mirror != "digest-only" && !new.mirror_by_digest_only;
                push(scope, drains, format!("the mirror `{}` ({serves}) is new", mirror.location));
            }
        }
        told = true;
    }
    if !told {
        push(scope, false, "mirrors reordered, or their flags changed".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(text: &str) -> NodeFiles {
        let objects = Objects::load(&[("a.yaml".to_owned(), text.to_owned())]).expect("loads");
        NodeFiles::of_objects(&objects, &Base::of_pools(), None).expect("renders")
    }

    const IMAGE: &str =
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec:\n  registrySources:\n";

    #[test]
    fn each_file_has_its_price() {
        let none = files(IMAGE);
        let allowed = files(&format!("{IMAGE}    allowedRegistries: [quay.io]\n"));
        assert_eq!(impact(&none, &allowed, None).action, Action::Reload);
        let search = files(&format!("{IMAGE}    containerRuntimeSearchRegistries: [quay.io]\n"));
        assert_eq!(impact(&none, &search, None).action, Action::Reboot);
        assert_eq!(impact(&search, &search, None).action, Action::None);
        let insecure = files(&format!("{IMAGE}    insecureRegistries: [m.lab]\n"));
        let cost = impact(&none, &insecure, Version::parse("4.18.3"));
        assert_eq!((cost.action, cost.files[0].reasons[0].scope.as_str()), (Action::Drain, "m.lab"));
        assert_eq!(impact(&none, &insecure, Version::parse("4.6")).action, Action::Reboot);
    }

    #[test]
    fn files_applied_one_by_one_roll_out_one_by_one() {
        let idms = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: a}\nspec:\n  imageDigestMirrors: [{source: quay.io, mirrors: [m.lab]}]\n";
        let itms = idms.replace("Digest", "Tag");
        let load = |files: &[(&str, &str)]| {
            let files: Vec<(String, String)> = files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
            Objects::load(&files).expect("loads")
        };
        let old = load(&[("old", &idms.replace("name: a", "name: gone").replace("quay.io", "ghcr.io"))]);
        let new =
            load(&[("i.yaml", idms), ("t.yaml", &itms.replace("imageDigest", "imageTag").replace("Digest", "Tag"))]);
        let steps = steps(&old, &new, &Base::of_pools(), None, None).expect("renders");
        let shown: Vec<(&str, Action)> = steps.iter().map(|s| (s.what.as_str(), s.action)).collect();
        assert_eq!(shown, [("i.yaml", Action::Reload), ("t.yaml", Action::Drain), ("deleted objects", Action::Drain)]);
    }

    #[test]
    fn versions_are_read() {
        assert!(Version::parse("4.13").expect("version") > Version::parse("4.9.1").expect("version"));
        assert!(Version::parse("4").is_none() && Version::parse("4.x").is_none());
    }
}
