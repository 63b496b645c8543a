//! Registry to registry, and what loading an archive has in common with it: probe the target, move, write the cluster's resources.

use std::path::Path;
use std::sync::Arc;

use airlock_client::RegistrySink;
use airlock_oci::{Error, Sink, Source};
use airlock_transfer::{Outcome, Stop};

use super::outcome::{Ledger, present};
use super::{DryRun, PLANNING, Planned, Request, Workflow, forecast, plan, unless_stopped};
use crate::event::{Event, Events, Phase};
use crate::outputs::catalogs::{catalogs, operator_hub};
use crate::outputs::mapping::mapping;
use crate::outputs::mirror_sets::{Stamp, mirror_sets};
use crate::outputs::releases::{install_config, releases, updates_by_hand};
use crate::plan::{Discovered, Documents, Image, Plan, Target, jobs};
use crate::report::{ReleaseReport, Report};
use crate::workspace::Workspace;

pub(super) async fn run(
    request: Request,
    workspace: &Path,
    registry: &str,
    events: Events,
    stop: &Stop,
) -> Result<Report, Error> {
    let ledger = Ledger::new(events);
    let events = ledger.events();
    let workspace = Workspace::of(workspace);
    let target = Target::parse(registry, request.settings.max_nested_paths)?;
    workspace.prepare()?;
    let sink = sink(&request, &target)?;
    unless_stopped(stop, PLANNING, sink.ping()).await?;
    let upstream = request.upstream(&workspace);
    let planning = plan(&request.loaded, upstream, &request.settings, Some(&target), &events);
    let Planned { discovered, source } = unless_stopped(stop, PLANNING, planning).await?;
    let Discovered { plan, documents, .. } = discovered;
    forecast(&plan, 0, 0, &events);
    load(request, Load { plan: &plan, documents: &documents }, &target, source, sink, &workspace, &ledger, stop).await
}

pub(super) fn sink(request: &Request, target: &Target) -> Result<RegistrySink, Error> {
    // Prefix and nesting limit belong together, so both are the target's business and the sink gets full names.
    RegistrySink::new(request.target.clone(), target.registry.clone(), None)
}

/// Asks, before the first byte moves, whether the target takes what the plan will push: rights, nested names, pushes by digest,
/// indexes. The error names the limit and what helps.
pub(super) async fn probe(plan: &Plan, target: &Target, sink: &RegistrySink, events: &Events) -> Result<(), Error> {
    events(Event::Phase(Phase::Probe));
    let mut deepest = None;
    for image in &plan.images {
        let repository = jobs::destination(image, Some(target))?;
        let depth = repository.components().count();
        if deepest.as_ref().is_none_or(|(most, _)| depth > *most) {
            deepest = Some((depth, repository));
        }
    }
    let Some((_, repository)) = deepest else { return Ok(()) };
    let probe = sink.probe(&repository).await?;
    let has = |media_type: &str| plan.manifests.values().any(|m| m.media_type == media_type);
    let untagged = plan.images.iter().any(|i| i.nodes.len() > 1);
    let checks = [
        (true, &probe.push),
        (untagged, &probe.push_by_digest),
        (has(airlock_oci::media_type::OCI_INDEX), &probe.oci_index),
        (has(airlock_oci::media_type::DOCKER_LIST), &probe.docker_list),
    ];
    match checks.iter().find_map(|(needed, check)| if *needed { check.refusal() } else { None }) {
        Some(refusal) => Err(refusal.clone()),
        None => Ok(()),
    }
}

/// What is moved, and what the cluster's resources are made from besides.
#[derive(Clone, Copy)]
pub(super) struct Load<'a> {
    pub(super) plan: &'a Plan,
    pub(super) documents: &'a Documents,
}

/// Moves a plan into a registry and writes everything that comes of it.
#[expect(clippy::too_many_arguments, reason = "the two workflows that end here share nothing but these")]
pub(super) async fn load(
    request: Request,
    Load { plan, documents }: Load<'_>,
    target: &Target,
    source: Arc<dyn Source>,
    sink: RegistrySink,
    workspace: &Workspace,
    ledger: &Arc<Ledger>,
    stop: &Stop,
) -> Result<Report, Error> {
    let events = ledger.events();
    if let Some(kind) = request.dry_run {
        workspace.clear("dry-run")?;
        let text = mapping(plan, Some(target), "", kind == DryRun::Instances)?;
        events(Event::Wrote(workspace.write("dry-run/mapping.txt", text.as_bytes())?));
        write_resources(&request, Load { plan, documents }, &|_| true, target, workspace, ledger)?;
        let mut report = ledger.report(&request, plan, Some(target), None, None)?;
        ledger.write_report(&mut report, workspace, true)?;
        return Ok(report);
    }
    unless_stopped(stop, "probe the target", probe(plan, target, &sink, &events)).await?;
    events(Event::Phase(Phase::Copy));
    let outcomes: Vec<Outcome> = {
        let forward = Arc::clone(&events);
        let sink: Arc<dyn Sink> = Arc::new(sink);
        let mut transfer = request.transfer.clone();
        transfer.keep_going = request.settings.keep_going;
        transfer.critical_failed = plan.lacks_release();
        airlock_transfer::run(
            jobs::jobs(plan, Some(target))?,
            source,
            sink,
            transfer,
            stop,
            Arc::new(move |event| forward(Event::Transfer(event))),
        )
        .await
    };
    events(Event::Phase(Phase::Outputs));
    // What an earlier, complete run wrote stays when this one was stopped half-way.
    if !outcomes.iter().any(|o| matches!(o, Outcome::Stopped)) {
        write_resources(&request, Load { plan, documents }, &present(plan, &outcomes), target, workspace, ledger)?;
    }
    if matches!(request.workflow, Workflow::ToRegistry { .. }) {
        ledger.write_pins(&request, plan, workspace)?;
    }
    let mut report = ledger.report(&request, plan, Some(target), Some(&outcomes), None)?;
    report.releases = updates_by_hand(plan, &present(plan, &outcomes), target)?
        .into_iter()
        .map(|(version, update)| ReleaseReport { version, update })
        .collect();
    ledger.write_report(&mut report, workspace, false)?;
    Ok(report)
}

fn write_resources(
    request: &Request,
    Load { plan, documents }: Load<'_>,
    present: &dyn Fn(&Image) -> bool,
    target: &Target,
    workspace: &Workspace,
    ledger: &Ledger,
) -> Result<(), Error> {
    let oc_mirror = request.settings.oc_mirror;
    let stamp = Stamp {
        created: ledger.started().rfc3339(),
        created_by: if oc_mirror { "oc-mirror v2" } else { "airlock" }.into(),
        version: request.version.clone(),
    };
    let mut warnings = Vec::new();
    let legacy = request.settings.legacy_resources;
    let mut resources = mirror_sets(plan, present, target, legacy, &stamp, &mut warnings)?;
    resources.extend(releases(plan, documents, present, target, &stamp)?);
    resources.extend(catalogs(plan, &request.loaded, present, target, &stamp, &mut warnings)?);
    for warning in warnings {
        ledger.tell(Event::Warning(warning));
    }
    workspace.clear("cluster-resources")?;
    for resource in resources {
        let path = workspace.write(&format!("cluster-resources/{}", resource.name), resource.text.as_bytes())?;
        ledger.tell(Event::Wrote(path));
    }
    // No object of a cluster, so not among those: `oc apply -f cluster-resources` must go through.
    if let Some(text) = install_config(plan, present, target)? {
        ledger.tell(Event::Wrote(workspace.write("install-config.yaml", text.as_bytes())?));
    }
    if let Some(text) = operator_hub(plan, present) {
        ledger.tell(Event::Wrote(workspace.write("operatorhub-patch.json", text.as_bytes())?));
    }
    workspace.keep(documents)?;
    Ok(())
}
