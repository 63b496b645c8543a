//! `airlock rules render`.

use std::path::Path;

use airlock_oci::Error;
use airlock_rules::render::{Effective, Rendered, search_dropin};
use airlock_rules::{Objects, Problem};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::rules::{RenderArgs, Style};
use crate::commands::rules::input;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

/// Where the files lie on a node.
const REGISTRIES_CONF: &str = "etc/containers/registries.conf";
const SEARCH_DROPIN: &str = "etc/containers/registries.conf.d/01-image-searchRegistries.conf";
const POLICY: &str = "etc/containers/policy.json";

/// What `-o json` prints, named as in the test vectors.
#[derive(Serialize)]
struct Shown {
    registries_conf_toml: String,
    registries_conf: Value,
    loadable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_error_class: Option<&'static str>,
    #[serde(flatten)]
    image: Option<ImageShown>,
}

/// What an image configuration adds.
#[derive(Serialize)]
struct ImageShown {
    registries_blocked: Vec<String>,
    policy_blocked: Vec<String>,
    policy_allowed: Vec<String>,
    warning: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    search_dropin_toml: Option<String>,
}

/// Runs the verb.
pub(crate) fn run(args: &RenderArgs) -> Result<u8, Failure> {
    let objects = input::objects(&args.files, args.cluster.image_config.as_deref())?;
    let refused = |problem: Problem| {
        // Programs learn the class from stdout, people the place from stderr.
        let _ = output::value(args.output, &json!({ "error_class": problem.code }));
        Failure::from(problem)
    };
    let (base, payload) = match input::cluster(&args.cluster) {
        Err(Failure::Rules(mut problems)) if problems.0.len() == 1 => return Err(refused(problems.0.remove(0))),
        other => other?,
    };
    let lists = Effective::of(&objects, &base, payload.as_ref()).map_err(refused)?;
    let rendered = lists.render(&objects, &base).map_err(refused)?;
    let text = match args.style {
        Style::Mco => rendered.mco(),
        Style::Plain => rendered.plain(),
    };
    let shown = shown(&objects, &lists, &rendered, text);
    say(&objects, &lists, args);
    if let Some(directory) = &args.to {
        write(directory, &shown)?;
        output::value(args.output, &shown)?;
    } else if args.output == Format::Table {
        output::text(&shown.registries_conf_toml)?;
    } else {
        output::value(args.output, &shown)?;
    }
    if let Err(error) = rendered.config() {
        eprintln!("error: no node can load this file, and then every pull fails: {error}");
        return Ok(Exit::Verification.code());
    }
    Ok(0)
}

fn shown(objects: &Objects, lists: &Effective, rendered: &Rendered, text: String) -> Shown {
    let image = objects.image.as_ref().map(|image| ImageShown {
        registries_blocked: lists.blocked.clone(),
        policy_blocked: lists.policy_blocked.clone(),
        policy_allowed: lists.policy_allowed.clone(),
        warning: lists.warning(),
        policy_json: lists.policy(),
        search_dropin_toml: search_dropin(image),
    });
    let loaded = rendered.config();
    Shown {
        registries_conf_toml: text,
        registries_conf: rendered.json(),
        loadable: loaded.is_ok(),
        load_error_class: loaded.err().map(|e| e.code),
        image,
    }
}

/// What the files do not say by themselves.
fn say(objects: &Objects, lists: &Effective, args: &RenderArgs) {
    for entry in &lists.dropped {
        eprintln!(
            "warning[{}]: `{entry}` is NOT blocked: the release payload comes from there and no digest mirror serves it",
            lists.warning().unwrap_or_default()
        );
    }
    let Some(image) = &objects.image else { return };
    if args.cluster.release_image.is_none() && !image.blocked.is_empty() {
        eprintln!("note: without --release-image, blocked registries count as they are written");
    }
    if args.to.is_none() && args.output == Format::Table && (lists.policy().is_some() || !image.search.is_empty()) {
        eprintln!("note: the image configuration makes more files; `--to DIR` writes all of them");
    }
}

fn write(directory: &Path, shown: &Shown) -> Result<(), Failure> {
    let mut files = vec![(REGISTRIES_CONF, shown.registries_conf_toml.clone())];
    if let Some(image) = &shown.image {
        files.extend(image.search_dropin_toml.clone().map(|text| (SEARCH_DROPIN, text)));
        files.extend(image.policy_json.as_ref().map(|policy| (POLICY, format!("{policy}\n"))));
    }
    for (name, text) in files {
        let path = directory.join(name);
        input::write(&path, &text).map_err(|e| Failure::from(Error::io(format!("write `{}`", path.display()), &e)))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
