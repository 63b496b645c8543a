//! Runs jobs: images side by side, blobs of an image side by side, manifests in order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Error, ErrorKind, Repository, Sink, Source};
use futures_util::StreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::blobs::Blobs;
use crate::{Event, Events, Job, Node, Outcome, Stop};

/// How much at once, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images side by side.
    pub parallel_images: usize,
    /// Blobs of one image side by side.
    pub parallel_layers: usize,
    /// Blobs side by side over all images: bounds memory.
    pub parallel_blobs: usize,
    /// The longest that one image may take, all retries included. `None`: as long as bytes flow.
    pub image_timeout: Option<Duration>,
    /// Images one after the other, in order: for a sink that wants bytes in the order of the plan.
    pub ordered: bool,
    /// When a critical job fails, those that are not critical are begun nevertheless.
    pub keep_going: bool,
    /// Something critical is known to have failed before anything was begun.
    pub critical_failed: bool,
    /// Where the sink is known to have a blob already, in one of its other repositories: it is mounted from there.
    pub held: HashMap<Digest, Repository>,
}

struct Engine {
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    blobs: Blobs,
    options: Options,
    transfers: Semaphore,
    critical_failed: AtomicBool,
    /// Whether a job is done, once it has ended.
    ended: Vec<watch::Sender<Option<bool>>>,
    names: Vec<String>,
    events: Events,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            parallel_images: 8,
            parallel_layers: 5,
            parallel_blobs: 8,
            image_timeout: None,
            ordered: false,
            keep_going: false,
            critical_failed: false,
            held: HashMap::new(),
        }
    }
}

/// Moves everything that the jobs list. The outcomes are in the order of the jobs. Returns when every job has ended or, once stopped, at
/// the next checkpoint of those under way.
pub async fn run(
    jobs: Vec<Job>,
    source: Arc<dyn Source>,
    sink: Arc<dyn Sink>,
    options: Options,
    stop: &Stop,
    events: Events,
) -> Vec<Outcome> {
    let images = if options.ordered { 1 } else { options.parallel_images.max(1) };
    let engine = Arc::new(Engine {
        blobs: Blobs::new(Arc::clone(&source), Arc::clone(&sink), Arc::clone(&events), options.held.clone()),
        source,
        sink,
        // Who asks for more images or layers at once than blobs means it.
        transfers: Semaphore::new(options.parallel_blobs.max(options.parallel_layers).max(images)),
        critical_failed: AtomicBool::new(options.critical_failed),
        ended: jobs.iter().map(|_| watch::channel(None).0).collect(),
        names: jobs.iter().map(|job| job.name.clone()).collect(),
        options,
        events,
    });
    let mut outcomes: Vec<Outcome> = jobs.iter().map(|_| Outcome::Stopped).collect();
    let mut running = JoinSet::new();
    let mut waiting = jobs.into_iter().enumerate();
    loop {
        while running.len() < images && !stop.is_stopped() {
            let Some((index, job)) = waiting.next() else { break };
            if engine.critical_failed.load(Ordering::Relaxed) && (job.critical || !engine.options.keep_going) {
                engine.ended[index].send_replace(Some(false));
                outcomes[index] = Outcome::Withheld;
                continue;
            }
            let engine = Arc::clone(&engine);
            running.spawn(async move { (index, engine.job(index, &job).await) });
        }
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = stop.stopped() => {
                running.shutdown().await;
                break;
            }
        };
        match ended {
            None => break,
            Some(Ok((index, outcome))) => outcomes[index] = outcome,
            // A panic in one image is that image's failure; which one is told by its outcome staying `Stopped`.
            Some(Err(error)) => tracing::error!("an image ended unexpectedly: {error}"),
        }
    }
    outcomes
}

/// Tells that a job has ended, whichever way: also when it was dropped, or has panicked.
struct Ending<'a> {
    ended: &'a watch::Sender<Option<bool>>,
    done: bool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.ended.send_replace(Some(self.done));
    }
}

impl Engine {
    async fn job(&self, index: usize, job: &Job) -> Outcome {
        let mut ending = Ending { ended: &self.ended[index], done: false };
        let outcome = match self.lacking(index, job).await {
            None => self.begun(index, job).await,
            Some(need) => {
                let cause =
                    format!("skipped because one of its related images failed to mirror: `{}`", self.names[need]);
                let error = Error::new(ErrorKind::NotFound, format!("copy `{}`", job.name), cause)
                    .hint("mend the cause of the other failure; the next run brings both");
                (self.events)(Event::Failed { job: index, error: error.clone() });
                Outcome::Failed(vec![error])
            }
        };
        ending.done = outcome.is_done();
        outcome
    }

    /// Waits for the jobs that this one needs, all of which were begun before it; answers one that came to nothing.
    async fn lacking(&self, index: usize, job: &Job) -> Option<usize> {
        for need in job.needs.iter().copied().filter(|need| *need < index) {
            let mut ended = self.ended[need].subscribe();
            // An error means that the sender is gone, which cannot be while the engine is there.
            let done = ended.wait_for(Option::is_some).await.is_ok_and(|done| *done == Some(true));
            if !done {
                return Some(need);
            }
        }
        None
    }

    async fn begun(&self, index: usize, job: &Job) -> Outcome {
        (self.events)(Event::Begun { job: index });
        let failures = match self.options.image_timeout {
            None => self.move_image(index, job).await,
            Some(limit) => match tokio::time::timeout(limit, self.move_image(index, job)).await {
                Ok(failures) => failures,
                Err(_) => {
                    let error = Error::new(
                        ErrorKind::Network,
                        format!("copy `{}`", job.name),
                        format!("it took longer than {} s", limit.as_secs()),
                    )
                    .hint("raise --image-timeout; what arrived is kept and the next run goes on there");
                    (self.events)(Event::Failed { job: index, error: error.clone() });
                    vec![error]
                }
            },
        };
        if failures.is_empty() {
            (self.events)(Event::Done { job: index });
            Outcome::Done
        } else {
            if job.critical {
                self.critical_failed.store(true, Ordering::Relaxed);
            }
            Outcome::Failed(failures)
        }
    }

    async fn move_image(&self, index: usize, job: &Job) -> Vec<Error> {
        let mut failures: Vec<Error> = Vec::new();
        let mut fail = |error: Error| {
            (self.events)(Event::Failed { job: index, error: error.clone() });
            failures.push(error);
        };
        // Every blob is tried even when one has failed: what is there need not be fetched by the run that completes this one.
        let mut seen = HashSet::new();
        let wanted: Vec<_> =
            job.nodes.iter().flat_map(|n| &n.blobs).filter(|b| seen.insert(b.digest.clone())).cloned().collect();
        let mut missing: HashSet<Digest> = HashSet::new();
        let mut ensured = futures_util::stream::iter(wanted)
            .map(|blob| async move {
                // The permit is taken in the order of the plan, and held only while this blob is looked at or moved.
                let _permit = self.transfers.acquire().await;
                (self.blobs.ensure(job, &blob).await, blob)
            })
            .buffer_unordered(self.options.parallel_layers.max(1));
        while let Some((result, blob)) = ensured.next().await {
            if let Err(error) = result {
                missing.insert(blob.digest.clone());
                fail(error);
            }
        }
        drop(ensured);
        let known = self.is_known(job).await;
        for node in &job.nodes {
            let lacks = node.blobs.iter().map(|b| &b.digest).chain(&node.children).any(|d| missing.contains(d));
            if lacks {
                missing.insert(node.manifest.digest.clone());
                continue;
            }
            if let Err(error) = self.put(job, node, known).await {
                missing.insert(node.manifest.digest.clone());
                fail(error);
            }
        }
        failures
    }

    /// Whether the sink seems to have the image already: then each manifest is asked for before it is put again.
    async fn is_known(&self, job: &Job) -> bool {
        let Some(root) = job.nodes.iter().find(|n| !n.tags.is_empty()).or(job.nodes.last()) else { return false };
        let at = ManifestName::Digest(root.manifest.digest.clone());
        matches!(self.sink.head_manifest(&job.repository, &at).await, Ok(Some(_)))
    }

    async fn put(&self, job: &Job, node: &Node, known: bool) -> Result<(), Error> {
        let digest = &node.manifest.digest;
        let claim = self.blobs.claim(digest);
        let _held = claim.lock().await;
        let names: Vec<Option<&airlock_oci::Tag>> =
            if node.tags.is_empty() { vec![None] } else { node.tags.iter().map(Some).collect() };
        let mut manifest = None;
        for tag in names {
            if known {
                let at = tag.map_or_else(|| ManifestName::Digest(digest.clone()), |t| ManifestName::Tag(t.clone()));
                if self.sink.head_manifest(&job.repository, &at).await?.as_ref() == Some(digest) {
                    continue;
                }
            }
            if manifest.is_none() {
                manifest = Some(self.source.manifest(&job.source.with_digest(digest.clone())).await?.value);
            }
            if let Some(manifest) = &manifest {
                self.sink.put_manifest(&job.repository, manifest, tag).await?;
            }
        }
        Ok(())
    }
}
