//! `--check-mirror`: whether mirrors have what is meant to come from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use airlock_client::{Client, RegistrySource};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Source as _};
use airlock_rules::audit::{Audit, Check, Endpoint, Status};
use airlock_rules::usage::Images;
use futures_util::StreamExt as _;
use tokio::sync::OnceCell;

use crate::args::audit::AuditArgs;
use crate::exit::Failure;

/// What a mirror says about one name.
type Answer = Result<Digest, (Status, String)>;

/// The mirrors, as they are asked: with certificates checked, and where the rules say so without.
struct Mirrors {
    strict: RegistrySource,
    insecure: RegistrySource,
    /// Several images may be one at the mirror; it is asked once.
    answers: Mutex<HashMap<String, Arc<OnceCell<Answer>>>>,
    /// Hosts that did not answer, and why: nobody waits for them a thousand times.
    dead: Mutex<HashMap<String, String>>,
}

/// What is asked for one image.
struct Job {
    at: usize,
    mirrors: Vec<Endpoint>,
    /// What runs, where the name is a tag.
    running: Vec<Digest>,
}

/// Asks for every image that a mirror should have, and notes the answers.
pub(super) async fn check(args: &AuditArgs, images: &Images, audit: &mut Audit) -> Result<(), Failure> {
    let source = |insecure: bool| -> Result<RegistrySource, Failure> {
        Ok(RegistrySource::new(Client::new(args.mirror_options(insecure)?)?))
    };
    let mirrors =
        Mirrors { strict: source(false)?, insecure: source(true)?, answers: Mutex::default(), dead: Mutex::default() };
    let jobs: Vec<Job> = audit
        .findings()
        .iter()
        .enumerate()
        .map(|(at, finding)| {
            let tag = finding.normalized.as_ref().is_some_and(|name| name.digest().is_none());
            let running = images.images()[finding.image].running().iter().filter(|_| tag);
            Job {
                at,
                mirrors: finding.mirrors().cloned().collect(),
                running: running.map(|r| r.digest.clone()).collect(),
            }
        })
        .filter(|job| !job.mirrors.is_empty())
        .collect();
    let mirrors = &mirrors;
    let answers: Vec<(usize, Check)> = futures_util::stream::iter(jobs)
        .map(|job| async move { (job.at, mirrors.check(&job).await) })
        .buffer_unordered(args.parallel_images.into())
        .collect()
        .await;
    for (at, check) in answers {
        audit.set_check(at, check);
    }
    Ok(())
}

impl Mirrors {
    /// One mirror after the other until one has it, as a node does it.
    async fn check(&self, job: &Job) -> Check {
        let mut worst: Option<Check> = None;
        for endpoint in &job.mirrors {
            let check = self.at(endpoint, &job.running).await;
            if matches!(check.status, Status::Present | Status::TagDiffers) {
                return check;
            }
            // That a mirror could not be asked weighs more than that another does not have it.
            if worst.as_ref().is_none_or(|known| check.status > known.status) {
                worst = Some(check);
            }
        }
        worst.unwrap_or(Check {
            status: Status::Absent,
            endpoint: String::new(),
            digest: None,
            running: None,
            detail: String::new(),
        })
    }

    async fn at(&self, endpoint: &Endpoint, running: &[Digest]) -> Check {
        let mut check = Check {
            status: Status::Present,
            endpoint: endpoint.reference.clone(),
            digest: None,
            running: None,
            detail: String::new(),
        };
        let Ok(name) = endpoint.reference.parse::<Reference>() else { return check };
        let source = if endpoint.insecure { &self.insecure } else { &self.strict };
        let found = match self.ask(source, &name, &endpoint.reference).await {
            Ok(digest) => digest,
            Err((status, detail)) => return Check { status, detail, ..check },
        };
        check.digest = Some(found.to_string());
        let Some(first) = running.first() else { return check };
        if running.contains(&found) || self.has_child(source, &name, &found, running).await {
            return check;
        }
        check.status = Status::TagDiffers;
        check.running = Some(first.to_string());
        check.detail = "the tag is another image at the mirror than the one that runs".to_owned();
        check
    }

    async fn ask(&self, source: &RegistrySource, name: &Reference, key: &str) -> Answer {
        let cell = Arc::clone(lock(&self.answers).entry(key.to_owned()).or_default());
        cell.get_or_init(|| async {
            let host = name.registry().to_string();
            if let Some(detail) = lock(&self.dead).get(&host) {
                return Err((Status::Unreachable, detail.clone()));
            }
            source.resolve(name).await.map(|found| found.value).map_err(|error| {
                let status = status(&error);
                let detail = error.cause().to_owned();
                if status == Status::Unreachable {
                    lock(&self.dead).insert(host, detail.clone());
                }
                (status, detail)
            })
        })
        .await
        .clone()
    }

    /// A node reports the platform's image where the tag is an index.
    async fn has_child(&self, source: &RegistrySource, name: &Reference, index: &Digest, running: &[Digest]) -> bool {
        let manifest = source.manifest(&name.with_digest(index.clone())).await;
        manifest.is_ok_and(|found| found.value.children().iter().any(|child| running.contains(&child.digest)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is in there is whole after every single operation, a panic elsewhere or not.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn status(error: &Error) -> Status {
    match error.kind() {
        ErrorKind::NotFound => Status::Absent,
        ErrorKind::Unauthorized | ErrorKind::Denied => Status::Denied,
        ErrorKind::TooManyRequests => Status::Limited,
        _ => Status::Unreachable,
    }
}
