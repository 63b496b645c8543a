//! `airlock cluster resources apply`.

use airlock_rules::resources;
use serde::Serialize;

use crate::args::cluster::{ApplyArgs, DryRun};
use crate::commands::rules::input;
use crate::exit::Failure;
use crate::output::{self, table};

/// One object, and what came of it.
#[derive(Serialize)]
struct Applied<'a> {
    #[serde(flatten)]
    resource: &'a resources::Resource,
    action: &'static str,
}

/// Runs the verb.
pub(super) async fn apply(args: ApplyArgs) -> Result<u8, Failure> {
    let files = input::texts(&args.paths)?;
    let found = resources::read(&files)?;
    let action = match args.dry_run {
        Some(DryRun::Client) => "would be applied",
        #[cfg(feature = "cluster")]
        Some(DryRun::Server) => {
            send(&args, &found, true).await?;
            "checked by the cluster"
        }
        #[cfg(feature = "cluster")]
        None => {
            send(&args, &found, false).await?;
            "applied"
        }
        #[cfg(not(feature = "cluster"))]
        None => "would be applied",
    };
    let applied: Vec<Applied<'_>> = found.iter().map(|resource| Applied { resource, action }).collect();
    if !output::value(args.output, &applied)? {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        let rows: Vec<Vec<String>> = applied
            .iter()
            .map(|a| {
                let resource = a.resource;
                vec![resource.title.clone(), or_dash(&resource.namespace), a.action.to_owned(), resource.file.clone()]
            })
            .collect();
        output::text(&table(&["OBJECT", "NAMESPACE", "IS", "FILE"], &rows))?;
    }
    if args.dry_run.is_some() {
        eprintln!("dry run: nothing was changed");
    }
    Ok(0)
}

/// One after the other, in their order, and stops at the first that is refused: what comes later needs what comes before.
#[cfg(feature = "cluster")]
async fn send(args: &ApplyArgs, found: &[resources::Resource], dry_run: bool) -> Result<(), Failure> {
    use crate::cluster::{Change, Cluster};

    let cluster = Cluster::connect(&args.kube).await?;
    let change = Change { dry_run, force: args.force_conflicts };
    for (at, resource) in found.iter().enumerate() {
        cluster.apply(&resource.path, &resource.object, change).await.inspect_err(|_| {
            if at > 0 && !dry_run {
                eprintln!("{at} of {} objects were applied before this one; applying again is safe", found.len());
            }
        })?;
    }
    Ok(())
}
