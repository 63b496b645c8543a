//! `airlock rules convert`.

use std::path::Path;

use airlock_oci::Error;
use airlock_rules::convert::draft::{Draft, documents};
use airlock_rules::convert::icsp::{Style, migrate};
use airlock_rules::convert::images::{Listed, Scope, from_images, list};
use airlock_rules::convert::{Note, conf, mapping, policy, scope};
use airlock_rules::render::Base;
use airlock_rules::resolve::Node;
use airlock_rules::{Objects, Others, Policy, Problem};

use crate::args::rules::{ConvertArgs, MigrateStyle, PolicyArg, ScopeArg};
use crate::commands::rules::input;
use crate::exit::Failure;
use crate::output;

/// One converted file.
struct Converted {
    name: String,
    kind: &'static str,
    text: String,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Registry => Self::Registry,
            ScopeArg::Namespace => Self::Namespace,
            ScopeArg::Repository => Self::Repository,
        }
    }
}

impl From<PolicyArg> for Policy {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Never => Self::NeverContactSource,
            PolicyArg::Allow => Self::AllowContactingSource,
        }
    }
}

/// Runs the verb.
pub(crate) fn run(args: &ConvertArgs) -> Result<u8, Failure> {
    let images = args.images.as_deref().map(read_images).transpose()?;
    if !args.files.is_empty() {
        return files(args, images.as_deref().unwrap_or_default());
    }
    let (mut drafts, notes) = drafts(args, images)?;
    if args.policy == Some(PolicyArg::Never) {
        drafts.iter_mut().flat_map(|draft| &mut draft.entries).for_each(|entry| entry.never = true);
    }
    tell(&notes);
    let text = documents(&drafts);
    if text.is_empty() {
        eprintln!("note: nothing in the input needs a rule");
    }
    output::text(&text)?;
    Ok(0)
}

fn read_images(path: &Path) -> Result<Vec<Listed>, Failure> {
    let (images, bad) = list(&path.display().to_string(), &input::text(path)?);
    match bad.first() {
        None => Ok(images),
        Some(first) => {
            Err(Failure::usage(format!("{}: {}", first.at, first.message), "one image a line, comments begin with #"))
        }
    }
}

fn drafts(args: &ConvertArgs, images: Option<Vec<Listed>>) -> Result<(Vec<Draft>, Vec<Note>), Failure> {
    if let Some(path) = &args.registries_conf {
        let dropins = args.dropins.as_deref().map(input::dropins).transpose()?.unwrap_or_default();
        let name = path.display().to_string();
        return conf::from_conf(&name, &input::text(path)?, &dropins, &args.name)
            .map_err(|e| Problem::of_file(e.code, &name, e.to_string()).into());
    }
    if let Some(path) = &args.mapping {
        return Ok(mapping::from_mapping(&path.display().to_string(), &input::text(path)?, &args.name));
    }
    let Some(mirror) = &args.mirror else {
        return Err(Failure::usage(
            "`--images` alone says not where they go",
            "add `--mirror HOST/PATH`, or files of rules",
        ));
    };
    let scope = args.scope.map_or(Scope::Namespace, Scope::from);
    let (drafts, notes) = from_images(&images.unwrap_or_default(), mirror, scope, &args.name, args.both);
    if drafts.is_empty() {
        return Err(Failure::usage(format!("`--mirror {mirror}`: {}", notes[0].message), "write HOST[:PORT][/PATH]"));
    }
    Ok((drafts, notes))
}

fn tell(notes: &[Note]) {
    for note in notes {
        eprintln!("note: {}: {}", note.at, note.message);
    }
}

fn files(args: &ConvertArgs, images: &[Listed]) -> Result<u8, Failure> {
    let style = match args.style {
        MigrateStyle::Keep => Style::Keep,
        MigrateStyle::Oc => Style::Oc,
    };
    let (mut converted, mut failed) = (Vec::new(), None);
    for file in input::given(&args.files)? {
        let other = || Objects::read(&[(file.name.clone(), file.text.clone())], Others::Keep).0.sets.is_empty();
        if file.found && other() {
            eprintln!("note: {}: passed over, no mirror rules in it", file.name);
            continue;
        }
        match convert(args, &file.name, &file.text, style, images) {
            Ok(file) => converted.push(file),
            // As with oc, the other files are still converted; ours are all or nothing.
            Err(failure) if style == Style::Oc => {
                crate::diagnostics::print(&failure);
                failed = Some(1);
            }
            Err(failure) => return Err(failure),
        }
    }
    match &args.dest_dir {
        None => {
            let texts: Vec<&str> = converted.iter().map(|file| file.text.as_str()).collect();
            output::text(&joined(&texts))?;
        }
        Some(directory) => {
            for file in &converted {
                let path = directory.join(&file.name);
                input::write(&path, &file.text)
                    .map_err(|e| Failure::from(Error::io(format!("write `{}`", path.display()), &e)))?;
                output::text(&format!("wrote {} to {}\n", file.kind, path.display()))?;
            }
        }
    }
    Ok(failed.unwrap_or(0))
}

fn convert(args: &ConvertArgs, name: &str, text: &str, style: Style, images: &[Listed]) -> Result<Converted, Failure> {
    let migrated = migrate(name, text, style)?;
    tell(&migrated.notes);
    let was_icsp = migrated.text != text || style == Style::Oc;
    let mut text = migrated.text;
    let load = |text: &str| Objects::load(&[(name.to_owned(), text.to_owned())]);
    if let Some(wanted) = args.policy {
        let (changed, notes) = policy::set_policy(&load(&text)?, 0, wanted.into());
        tell(&notes);
        text = changed;
    }
    if let Some(wanted) = args.scope {
        let before = load(&text)?;
        let (changed, notes) = scope::rescope_text(&before, 0, wanted.into(), images);
        tell(&notes);
        text = changed;
        effect(before, load(&text)?, images)?;
    }
    let base =
        Path::new(name).file_name().map_or_else(|| "rules.yaml".to_owned(), |n| n.to_string_lossy().into_owned());
    let base = if base == input::STDIN { "rules.yaml".to_owned() } else { base };
    Ok(Converted {
        name: if was_icsp && args.scope.is_none() && args.policy.is_none() { migrated.file_name } else { base },
        kind: if was_icsp { "ImageDigestMirrorSet" } else { "rules" },
        text,
    })
}

/// Which images are pulled from elsewhere, once the entries cover more or less.
fn effect(before: Objects, after: Objects, images: &[Listed]) -> Result<(), Failure> {
    let node = |objects| Node::of_objects(objects, &Base::of_pools(), None);
    let refused = |e: airlock_rules::resolve::Unusable| {
        Failure::usage(format!("the changed rules cannot be used: {e}"), "see `airlock rules lint`")
    };
    let (before, after) = (node(before).map_err(refused)?, node(after).map_err(refused)?);
    for image in images {
        let (was, is) = (before.first_endpoint(&image.written), after.first_endpoint(&image.written));
        if was != is {
            eprintln!("effect: {}: {} -> {}", image.written, was, is);
        }
    }
    Ok(())
}

/// Several texts as one, a separator between.
fn joined(texts: &[&str]) -> String {
    let mut out = String::new();
    for text in texts {
        if !out.is_empty() && !text.starts_with("---") {
            out.push_str("---\n");
        }
        out.push_str(text);
        if !text.ends_with('\n') {
            out.push('\n');
        }
    }
    out
}
