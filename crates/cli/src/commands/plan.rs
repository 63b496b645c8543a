//! `airlock plan`.

use std::path::PathBuf;
use std::sync::Arc;

use airlock_mirror::archives::Archives;
use airlock_mirror::config;
use airlock_mirror::plan::explain::explain;
use airlock_mirror::plan::{Cache, Discovered, Plan};
use airlock_mirror::report::{ImageReport, failed_code};
use airlock_mirror::run::{Carried, Settings, Upstream, Workflow};
use serde::Serialize;

use crate::args::mirror::{AttachmentsArg, PlanArgs};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::mirror::{client, found_by, policy_file, source_hosts, warn};
use crate::commands::{file_path, summary};
use crate::exit::{Exit, Failure};
use crate::output::{self, size, table};
use crate::progress::{Look, Progress};
use crate::{environment, told};

/// What `-o json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    bytes: airlock_mirror::plan::Bytes,
    warnings: &'a [String],
}

/// A plan is made from where a run would read: archives, or registries, whose images are judged.
pub(crate) fn reading(from: &[String]) -> Workflow {
    if from.is_empty() {
        return Workflow::ToDisk { directory: PathBuf::new() };
    }
    Workflow::FromDisk { from: Vec::new(), workspace: None, registry: String::new() }
}

/// Runs the verb.
pub(crate) async fn run(args: PlanArgs, look: Look) -> Result<u8, Failure> {
    let settings = Settings {
        all_attachments: args.attachments == AttachmentsArg::All,
        remove_signatures: args.remove_signatures,
        policy: policy_file(&args.policy, &reading(&args.from))?,
        ..found_by(&args.release, &args.operators)
    };
    let discovered =
        discover(&args.config, &args.from, &settings, &args.common, &args.source.side(), None, look).await?;
    let plan = &discovered.plan;
    if let Some(what) = &args.explain {
        let found = explain(plan, what);
        if found.is_empty() {
            return Err(Failure::usage(
                format!("`{what}` is not in the plan"),
                "`airlock plan -c FILE` lists what is; a part of a name is enough",
            ));
        }
        if !output::value(args.output, &found)? {
            for answer in found {
                let mut text = format!("{} {}\n  {}\n", answer.image, answer.digest, answer.role);
                for reason in &answer.reasons {
                    text.push_str(&format!("  because of {}:{} ({})\n", reason.file, reason.line, reason.what));
                }
                text.push_str(&format!("  goes to {}, {}\n", answer.destination, size(answer.bytes)));
                output::text(&text)?;
            }
        }
        return Ok(0);
    }
    let shown = Shown { plan, bytes: plan.bytes(), warnings: &discovered.warnings };
    if !output::value(args.output, &shown)? {
        let rows: Vec<Vec<String>> = plan
            .images
            .iter()
            .map(|image| {
                let reason = image.reasons.first().map_or_else(String::new, |r| format!("{}:{}", r.file, r.line));
                vec![
                    image.name.clone(),
                    format!("{}:{}", image.repository, image.tag),
                    image.digest.short().to_string(),
                    size(plan.bytes_of(image).total()),
                    image.attachments.len().to_string(),
                    reason,
                ]
            })
            .collect();
        output::text(&table(&["IMAGE", "DESTINATION", "DIGEST", "SIZE", "ATTACHMENTS", "WHY"], &rows))?;
        let bytes = plan.bytes();
        let text = format!(
            "{} images, {} manifests, {} blobs: {} in all ({} of blobs), each byte counted once",
            plan.images.len(),
            plan.manifests.len(),
            plan.blobs.len(),
            size(bytes.total()),
            size(bytes.blobs)
        );
        told::say("summary", &text);
    }
    let missing: Vec<ImageReport> = plan.missing.iter().map(ImageReport::missing).collect();
    summary::causes(missing.iter());
    // A run of this plan would end so.
    let nothing = plan.images.is_empty() || missing.iter().any(|image| image.kind.is_release());
    Ok(match missing.is_empty() {
        true => 0,
        false if nothing => failed_code(missing.iter()),
        false => 3,
    })
}

/// The plan of a configuration, from registries or from archives.
pub(crate) async fn discover(
    config: &std::path::Path,
    from: &[String],
    settings: &Settings,
    common: &CommonArgs,
    side: &Side,
    target: Option<&airlock_mirror::plan::Target>,
    look: Look,
) -> Result<Discovered, Failure> {
    let progress = Progress::start(look);
    let loaded = config::load(config)?;
    warn(&loaded, &progress, look);
    let events = progress.events();
    let planned = if from.is_empty() {
        let client = client(common, side, &source_hosts(&loaded), &events)?;
        let services = environment::services();
        let upstream = Upstream {
            client: &client,
            services: &services,
            cache: Arc::new(Cache::open(&environment::cache())),
            workspace: None,
            archive: false,
        };
        airlock_mirror::run::plan(&loaded, upstream, settings, target, &events).await
    } else {
        let directories = from.iter().map(|f| file_path(f, "--from")).collect::<Result<Vec<_>, _>>()?;
        let archives = Arc::new(Archives::open(&directories)?);
        let cache = environment::cache();
        let carried = Carried::alone(&archives, &cache);
        airlock_mirror::run::plan_from(&loaded, carried, settings, target, &events).await
    };
    progress.end();
    Ok(planned?.discovered)
}

/// The exit code of a check.
pub(crate) fn verification(whole: bool) -> u8 {
    if whole { 0 } else { Exit::Verification.code() }
}
