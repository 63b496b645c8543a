//! Puts the report together: what was planned, what came of each image, what was written.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use airlock_oci::Error;
use airlock_transfer::Outcome;

use super::{Request, Retry, Workflow};
use crate::clock::{self, Time};
use crate::event::{Event, Events};
use crate::outputs::mapping::destination_of;
use crate::outputs::pins::pinned;
use crate::plan::{Image, Plan, Target, locked};
use crate::report::{ArchiveReport, BytesReport, ErrorReport, ImageReport, Report, Status};
use crate::workspace::Workspace;

/// What happens during a run, collected for its report.
pub(super) struct Ledger {
    started: Time,
    moved: AtomicU64,
    reused: AtomicU64,
    warnings: Mutex<Vec<String>>,
    files: Mutex<Vec<PathBuf>>,
    events: Events,
}

impl Ledger {
    /// Passes events on, counting bytes and keeping warnings and files.
    pub(super) fn new(events: Events) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self {
            started: clock::now(),
            moved: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            warnings: Mutex::default(),
            files: Mutex::default(),
            events,
        })
    }

    pub(super) fn events(self: &std::sync::Arc<Self>) -> Events {
        let this = std::sync::Arc::clone(self);
        std::sync::Arc::new(move |event| this.tell(event))
    }

    pub(super) fn tell(&self, event: Event) {
        match &event {
            Event::Transfer(airlock_transfer::Event::Moved { bytes }) => {
                self.moved.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Transfer(airlock_transfer::Event::Reused { bytes, .. }) => {
                self.reused.fetch_add(*bytes, Ordering::Relaxed);
            }
            Event::Warning(text) => locked(&self.warnings).push(text.clone()),
            Event::Wrote(path) => locked(&self.files).push(path.clone()),
            _ => {}
        }
        (self.events)(event);
    }

    pub(super) fn started(&self) -> Time {
        self.started
    }

    /// The report. `outcomes` are those of the plan's images, in their order; a dry run has none.
    pub(super) fn report(
        &self,
        request: &Request,
        plan: &Plan,
        target: Option<&Target>,
        outcomes: Option<&[Outcome]>,
        archive: Option<ArchiveReport>,
    ) -> Result<Report, Error> {
        let place = match &request.workflow {
            Workflow::ToDisk { directory } => format!("file://{}", directory.display()),
            _ => String::new(),
        };
        let mut images = Vec::new();
        for (number, image) in plan.images.iter().enumerate() {
            let destination = destination_of(image, target, &place)?;
            let mut withheld = false;
            let (status, errors) = match outcomes.map(|o| &o[number]) {
                Some(Outcome::Withheld) => {
                    withheld = true;
                    (Status::Failed, Vec::new())
                }
                None | Some(Outcome::Done) => (Status::Complete, Vec::new()),
                Some(Outcome::Failed(errors)) => (Status::Failed, errors.clone()),
                Some(Outcome::Stopped) => (Status::Interrupted, Vec::new()),
            };
            let mut report = ImageReport::moved(image, destination, status, &errors);
            if withheld {
                report.errors.push(ErrorReport::withheld());
            }
            images.push(report);
        }
        images.extend(plan.missing.iter().map(ImageReport::missing));
        let count = |status: Status| images.iter().filter(|i| i.status == status).count();
        let status = if count(Status::Interrupted) > 0 {
            Status::Interrupted
        } else if count(Status::Failed) == 0 {
            Status::Complete
        } else if count(Status::Complete) == 0
            || images.iter().any(|i| i.status == Status::Failed && i.kind.is_release())
        {
            Status::Failed
        } else {
            Status::Partial
        };
        let (workflow, source, destination) = match &request.workflow {
            Workflow::ToDisk { .. } => ("mirrorToDisk", "registries".to_owned(), place),
            Workflow::FromDisk { from, registry, .. } => {
                let from: Vec<String> = from.iter().map(|f| format!("file://{}", f.display())).collect();
                ("diskToMirror", from.join(" "), format!("docker://{registry}"))
            }
            Workflow::ToRegistry { registry, .. } => {
                ("mirrorToMirror", "registries".to_owned(), format!("docker://{registry}"))
            }
        };
        Ok(Report {
            api_version: "airlock/v1".into(),
            kind: "Report".into(),
            version: request.version.clone(),
            workflow: workflow.into(),
            status,
            dry_run: request.dry_run.is_some(),
            config: request.loaded.path.display().to_string(),
            source,
            destination,
            started: self.started.rfc3339(),
            ended: clock::now().rfc3339(),
            images,
            bytes: BytesReport {
                planned: plan.bytes().total(),
                moved: self.moved.load(Ordering::Relaxed),
                reused: self.reused.load(Ordering::Relaxed),
            },
            retry: Retry {
                config: absolute(&request.loaded.path),
                workflow: absolute_workflow(&request.workflow),
                settings: request.settings.clone(),
                // A retry that did not come to an archive is still about the one it was to finish.
                archive: archive.as_ref().map(|a| (a.sequence, a.created.clone())).or_else(|| request.retry.clone()),
            },
            archive,
            releases: Vec::new(),
            warnings: locked(&self.warnings).clone(),
            files: Vec::new(),
        })
    }

    /// Writes the configuration with catalogs by digest (oc-mirror 3.9).
    pub(super) fn write_pins(&self, request: &Request, plan: &Plan, workspace: &Workspace) -> Result<(), Error> {
        let always = request.settings.oc_mirror;
        let Some((mirror, delete)) = pinned(&request.loaded, plan, always) else { return Ok(()) };
        for (name, text) in [("isc", mirror), ("disc", delete)] {
            // Colons are hostile to some file systems (oc-mirror 14.2).
            let name = format!("{name}_pinned_{}.yaml", self.started.compact());
            self.tell(Event::Wrote(workspace.write(&name, text.as_bytes())?));
        }
        Ok(())
    }

    /// Writes the report and, where something failed, the list of errors. `keep`: the workspace must not be written to (a dry
    /// run's report would hide the one that `--retry` needs).
    pub(super) fn write_report(&self, report: &mut Report, workspace: &Workspace, keep: bool) -> Result<(), Error> {
        let errors = report.error_lines();
        if !errors.is_empty() {
            let name = format!("logs/mirroring_errors_{}.txt", self.started.compact());
            self.tell(Event::Wrote(workspace.write(&name, errors.as_bytes())?));
        }
        let name = match &report.retry.workflow {
            _ if keep => "dry-run/report.json",
            // It lies beside the report of the run that wrote the archive, which `--retry` needs on the connected side.
            Workflow::FromDisk { .. } => "load-report.json",
            _ => "report.json",
        };
        let path = workspace.path().join(name);
        let mut files: Vec<String> = locked(&self.files).iter().map(|f| f.display().to_string()).collect();
        files.push(path.display().to_string());
        report.files = files;
        workspace.write(name, &report.to_json())?;
        self.tell(Event::Wrote(path));
        Ok(())
    }
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn absolute_workflow(workflow: &Workflow) -> Workflow {
    match workflow {
        Workflow::ToDisk { directory } => Workflow::ToDisk { directory: absolute(directory) },
        Workflow::FromDisk { from, workspace, registry } => Workflow::FromDisk {
            from: from.iter().map(|f| absolute(f)).collect(),
            workspace: workspace.as_deref().map(absolute),
            registry: registry.clone(),
        },
        Workflow::ToRegistry { workspace, registry } => {
            Workflow::ToRegistry { workspace: absolute(workspace), registry: registry.clone() }
        }
    }
}

/// Whether an image came through, by its place in the plan.
pub(super) fn present<'a>(plan: &'a Plan, outcomes: &'a [Outcome]) -> impl Fn(&Image) -> bool + 'a {
    let done: HashMap<*const Image, bool> = plan
        .images
        .iter()
        .zip(outcomes)
        .map(|(image, outcome)| (std::ptr::from_ref(image), outcome.is_done()))
        .collect();
    move |image| done.get(&std::ptr::from_ref(image)).copied().unwrap_or(false)
}
