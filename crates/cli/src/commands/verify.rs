//! `airlock verify`.

use airlock_client::RegistrySink;
use airlock_mirror::plan::Target;
use airlock_mirror::report::ImageReport;
use airlock_mirror::run::{Settings, verify_target};

use crate::args::mirror::{AttachmentsArg, VerifyArgs};
use crate::commands::mirror::{client, found_by, policy_file};
use crate::commands::plan::{discover, reading, verification};
use crate::commands::{host_of, registry_name, summary};
use crate::exit::Failure;
use crate::output::{self, table};
use crate::progress::{Look, Progress};
use crate::told;

/// Runs the verb.
pub(crate) async fn run(args: VerifyArgs, look: Look) -> Result<u8, Failure> {
    let registry = registry_name(&args.destination)?;
    let target = Target::parse(&registry, args.max_nested_paths)?;
    let settings = Settings {
        all_attachments: args.attachments == AttachmentsArg::All,
        remove_signatures: args.remove_signatures,
        policy: policy_file(&args.policy, &reading(&args.from))?,
        ..found_by(&args.release, &args.operators)
    };
    let source = args.source.side();
    let discovered = discover(&args.config, &args.from, &settings, &args.common, &source, Some(&target), look).await?;
    let progress = Progress::start(look);
    let events = progress.events();
    let client = client(&args.common, &args.target.side(), &[host_of(&registry)], &events)?;
    let sink = RegistrySink::new(client, target.registry.clone(), None)?;
    let report = verify_target(&discovered.plan, &target, &sink, &events).await;
    progress.end();
    let report = report?;
    let whole = report.absent.is_empty() && report.missing.is_empty();
    if !output::value(args.output, &report)? {
        if !report.absent.is_empty() {
            let rows: Vec<Vec<String>> = report
                .absent
                .iter()
                .map(|a| vec![a.image.clone(), a.repository.clone(), a.what.clone(), a.digest.to_string()])
                .collect();
            output::text(&table(&["IMAGE", "REPOSITORY", "ABSENT", "DIGEST"], &rows))?;
        }
        let text = format!(
            "{}: {} images, {} manifests, {} blobs looked for at {target}, {} absent",
            if whole { "whole" } else { "not whole" },
            report.images,
            report.manifests,
            report.blobs,
            report.absent.len()
        );
        told::say("summary", &text);
        if !report.absent.is_empty() {
            told::say("next", "hint: run the same `airlock mirror` again: it brings exactly what is absent");
        }
        let missing: Vec<ImageReport> = report.missing.iter().map(ImageReport::missing).collect();
        summary::causes(missing.iter());
    }
    Ok(verification(whole))
}
