//! `airlock rules impact`.

use std::path::{Path, PathBuf};

use airlock_oci::registries_conf::Config;
use airlock_rules::convert::images::list;
use airlock_rules::impact::{Action, Impact, NodeFiles, Step, Version, impact, steps, unsupported};
use airlock_rules::render::{Base, Payload};
use airlock_rules::resolve::Node;
use airlock_rules::{Objects, Problem};
use serde::Serialize;

use crate::args::rules::ImpactArgs;
use crate::commands::rules::input;
use crate::exit::Failure;
use crate::output;

/// What `-o json` prints.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    impact: Impact,
    error: Option<&'static str>,
    /// Pools that are rolled out: all of them, whatever changed.
    pools: [&'static str; 2],
    /// Roll-outs where everything is applied at once.
    rollouts_together: usize,
    /// Roll-outs where each file is applied and rolled out on its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rollouts_one_by_one: Vec<Step>,
    /// Images that are pulled from elsewhere afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pulls: Vec<Pull>,
}

/// One image whose first endpoint changes.
#[derive(Serialize)]
struct Pull {
    reference: String,
    before: String,
    after: String,
}

/// One side of the comparison.
struct Side {
    objects: Option<Objects>,
    files: NodeFiles,
    path: PathBuf,
}

/// Runs the verb.
pub(crate) fn run(args: &ImpactArgs) -> Result<u8, Failure> {
    let version =
        match &args.openshift_version {
            None => None,
            Some(text) => Some(Version::parse(text).ok_or_else(|| {
                Failure::usage(format!("`{text}` is no version of OpenShift"), "write for example 4.18")
            })?),
        };
    let base = match &args.base {
        Some(path) => Base::parse(&path.display().to_string(), &input::text(path)?)?,
        None => Base::of_pools(),
    };
    let payload = args.release_image.as_deref().map(Payload::parse).transpose()?;
    let old = side(&args.old, &base, payload.as_ref())?;
    let new = side(&args.new, &base, payload.as_ref())?;
    let mut cost = impact(&old.files, &new.files, version);
    let mut one_by_one = Vec::new();
    if let (Some(old), Some(new)) = (&old.objects, &new.objects) {
        one_by_one = steps(old, new, &base, payload.as_ref(), version)?;
        cost.notes = unsupported(new, version);
    }
    let pulls = match &args.images {
        Some(path) => pulls(path, old, new, &base, payload.as_ref())?,
        None => Vec::new(),
    };
    let shown = Shown {
        rollouts_together: usize::from(cost.action != Action::None),
        impact: cost,
        error: None,
        pools: ["master", "worker (and custom pools, which inherit from it)"],
        rollouts_one_by_one: one_by_one,
        pulls,
    };
    if !output::value(args.output, &shown)? {
        output::text(&text(&shown))?;
    }
    Ok(0)
}

fn side(path: &Path, base: &Base, payload: Option<&Payload>) -> Result<Side, Failure> {
    let conf = path.extension().is_some_and(|e| e == "conf" || e == "toml");
    if conf {
        let registries_conf = Base::parse(&path.display().to_string(), &input::text(path)?)?;
        let files = NodeFiles { registries_conf, ..NodeFiles::default() };
        return Ok(Side { objects: None, files, path: path.to_owned() });
    }
    let objects = input::objects(&[path.to_owned()], None)?;
    let files = NodeFiles::of_objects(&objects, base, payload)?;
    Ok(Side { objects: Some(objects), files, path: path.to_owned() })
}

fn pulls(images: &Path, old: Side, new: Side, base: &Base, payload: Option<&Payload>) -> Result<Vec<Pull>, Failure> {
    let (images, bad) = list(&images.display().to_string(), &input::text(images)?);
    for note in bad {
        eprintln!("warning: {}: {}", note.at, note.message);
    }
    let node = |side: Side| -> Result<Node, Failure> {
        let unusable = |name: &str, cause: String| Failure::from(Problem::of_file("E_UNUSABLE", name, cause));
        let name = side.path.display().to_string();
        match side.objects {
            Some(objects) => Node::of_objects(objects, base, payload).map_err(|e| unusable(&name, e.to_string())),
            None => Config::parse(Some(&input::text(&side.path)?), &[])
                .map(Node::of_config)
                .map_err(|e| unusable(&name, e.to_string())),
        }
    };
    let (old, new) = (node(old)?, node(new)?);
    let changed = images.into_iter().filter_map(|image| {
        let (before, after) = (old.first_endpoint(&image.written), new.first_endpoint(&image.written));
        (before != after).then_some(Pull { reference: image.written, before, after })
    });
    Ok(changed.collect())
}

fn text(shown: &Shown) -> String {
    let mut out = match shown.impact.action {
        Action::None => "nothing changes on any node\n".to_owned(),
        Action::Reload => "nodes reload CRI-O; no drain, no reboot\n".to_owned(),
        Action::Drain => "every node of every pool is drained, then reloads CRI-O; no reboot\n".to_owned(),
        Action::Reboot => "every node of every pool is drained and REBOOTS\n".to_owned(),
    };
    for file in &shown.impact.files {
        out.push_str(&format!("{}: {}\n", file.path, word(file.action)));
        for reason in &file.reasons {
            out.push_str(&format!("  {:<6} `{}`: {}\n", word(reason.action), reason.scope, reason.message));
        }
    }
    let rolling = shown.rollouts_one_by_one.len();
    if rolling > 1 {
        out.push_str(&format!("applied together: one roll-out; one by one: {rolling}\n"));
        for step in &shown.rollouts_one_by_one {
            out.push_str(&format!("  {:<6} {}\n", word(step.action), step.what));
        }
    }
    for pull in &shown.pulls {
        out.push_str(&format!("{}: {} -> {}\n", pull.reference, pull.before, pull.after));
    }
    for note in &shown.impact.notes {
        out.push_str(&format!("note: {note}\n"));
    }
    out
}

fn word(action: Action) -> &'static str {
    match action {
        Action::None => "none",
        Action::Reload => "reload",
        Action::Drain => "drain",
        Action::Reboot => "reboot",
    }
}
