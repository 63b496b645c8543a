//! Files, changes and charts around the rules: MR054 to MR056, MR058.

use super::Lint;
use crate::impact::{Action, NodeFiles, impact};
use crate::objects::Kind;
use crate::problem::Severity;
use crate::render::Base;
use crate::yaml::{self, Node, Value};

/// What the operator writes itself.
const MANAGED: &str = "/etc/containers/registries.conf";

pub(super) fn check(lint: &mut Lint<'_>) {
    machine_configs(lint);
    separate_files(lint);
    change(lint);
    values(lint);
}

/// MR054.
fn machine_configs(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    for other in objects.others.iter().filter(|other| other.kind == "MachineConfig") {
        let files = other.node.at(&["spec", "config", "storage", "files"]).and_then(Node::as_list).unwrap_or_default();
        for file in files {
            let Some(path) = file.get("path") else { continue };
            let text = path.as_scalar().unwrap_or_default();
            if text == MANAGED || text.starts_with("/etc/containers/registries.conf.d/") {
                let message = format!("MachineConfig `{}` writes `{text}`, which the operator writes too", other.name);
                lint.at_file("MR054", &objects.files[other.file].name, path.mark.line, message).about(text);
            }
        }
    }
}

/// MR056.
fn separate_files(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let first = |kind: Kind| objects.sets.iter().position(|set| set.kind == kind);
    let (Some(idms), Some(itms)) = (first(Kind::Idms), first(Kind::Itms)) else { return };
    let together = objects
        .sets
        .iter()
        .filter(|s| s.kind == Kind::Idms)
        .any(|digest| objects.sets.iter().any(|tag| tag.kind == Kind::Itms && tag.file == digest.file));
    if !together {
        let set = &objects.sets[idms.max(itms)];
        let (a, b) = (&objects.files[objects.sets[idms].file].name, &objects.files[objects.sets[itms].file].name);
        let message = format!("IDMS ({a}) and ITMS ({b}) in separate files may roll out twice");
        lint.at_set("MR056", idms.max(itms), set.mark, message);
    }
}

/// MR055.
fn change(lint: &mut Lint<'_>) {
    let Some(current) = &lint.input.current else { return };
    let base = lint.input.base.clone().unwrap_or_else(Base::of_pools);
    let files = |objects| NodeFiles::of_objects(objects, &base, lint.input.payload.as_ref());
    let (Ok(old), Ok(new)) = (files(current), files(lint.objects)) else { return };
    let cost = impact(&old, &new, None);
    for file in cost.files.iter().filter(|file| file.action >= Action::Drain) {
        let (severity, what) = match file.action {
            Action::Reboot => (Severity::Warning, "reboots"),
            _ => (Severity::Information, "drains"),
        };
        let reason = file.reasons.first().map_or_else(String::new, |r| format!(": `{}` {}", r.scope, r.message));
        let message = format!("applying this {what} every node ({}{reason})", file.path);
        lint.overall("MR055", message).severity(severity);
    }
}

/// MR058: `global.image.digest` beside several repositories.
fn values(lint: &mut Lint<'_>) {
    let Some((name, text)) = &lint.input.values else { return };
    let (roots, _) = yaml::read(text);
    for root in &roots {
        let Some(global) = root.get("global") else { continue };
        let digest = [global.at(&["image", "digest"]), global.get("imageDigest"), global.get("digest")];
        let Some(digest) = digest.into_iter().flatten().find(|d| d.as_text().is_some_and(|t| !t.is_empty())) else {
            continue;
        };
        let repositories = repositories(root);
        if repositories > 1 {
            let message =
                format!("one digest in `global` for {repositories} images: it can be right for one of them only");
            lint.at_file("MR058", name, digest.mark.line, message);
        }
    }
}

/// How many images the values name.
fn repositories(node: &Node) -> usize {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| match key.text.as_str() {
                "repository" if value.as_text().is_some() => 1,
                "image" if value.as_text().is_some_and(|t| t.contains('/')) => 1,
                _ => repositories(value),
            })
            .sum(),
        Value::List(items) => items.iter().map(repositories).sum(),
        Value::Scalar { .. } => 0,
    }
}
