//! Where graphs come from: an update service, or the answers that were kept when there was a network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::{Error, ErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;

use crate::architecture::Architecture;
use crate::channel::ChannelName;
use crate::graph::{Graph, MAX_GRAPH_BYTES};

/// Most questions that are with a service at once.
const MAX_AT_ONCE: usize = 8;

/// Whose releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// OpenShift Container Platform.
    #[default]
    Ocp,
    /// OKD.
    Okd,
}

/// What is asked of an update service: one channel for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    /// Which service.
    pub service: Service,
    /// Which architecture.
    pub architecture: Architecture,
    /// Which channel.
    pub channel: ChannelName,
}

/// The graph of a channel: as received, and understood.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The graph; empty for a channel that is not known.
    pub graph: Graph,
    /// The bytes as received, to be kept for those without a network.
    pub bytes: Bytes,
}

/// Answers questions for graphs.
#[async_trait]
pub trait Graphs: Send + Sync {
    /// For messages: `https://api.openshift.com`, `the archive /mnt/usb`.
    fn describe(&self) -> String;

    /// The graph of a channel. [`ErrorKind::NotFound`] when the answer is not among those that were kept.
    async fn answer(&self, query: &Query) -> Result<Arc<Answer>, Error>;
}

/// Answers that were kept by [`Query::file_name`], for a place without a network.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    place: String,
    files: BTreeMap<String, Bytes>,
}

/// Asks every question once, and keeps the answers.
pub(crate) struct Asked<'g> {
    graphs: &'g dyn Graphs,
    answers: Mutex<BTreeMap<Query, Result<Arc<Answer>, Error>>>,
}

impl Query {
    /// The name under which oc-mirror keeps the answer: `amd64-stable-4.18.json` (oc-mirror 5.1).
    pub fn file_name(&self) -> String {
        format!("{}-{}.json", self.architecture, self.channel)
    }

    /// What is done, for errors.
    pub(crate) fn what(&self) -> String {
        format!("read the update graph of channel `{}` for {}", self.channel, self.architecture)
    }
}

impl Answer {
    /// Understands the bytes of an answer to `query`.
    pub fn read(query: &Query, bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() > MAX_GRAPH_BYTES {
            let cause = format!("it has {} bytes, more than {MAX_GRAPH_BYTES}", bytes.len());
            return Err(Error::new(ErrorKind::Unsupported, query.what(), cause));
        }
        let graph = Graph::parse(&bytes).map_err(|error| error.into_error(query.what()))?;
        Ok(Self { graph, bytes })
    }
}

impl Kept {
    /// `place` says where the answers were kept: `the archive /mnt/usb`.
    pub fn new(place: impl Into<String>, files: BTreeMap<String, Bytes>) -> Self {
        Self { place: place.into(), files }
    }
}

#[async_trait]
impl Graphs for Kept {
    fn describe(&self) -> String {
        self.place.clone()
    }

    async fn answer(&self, query: &Query) -> Result<Arc<Answer>, Error> {
        let Some(bytes) = self.files.get(&query.file_name()) else {
            let cause = format!("{} holds no such graph", self.place);
            return Err(Error::new(ErrorKind::NotFound, query.what(), cause).hint(
                "mirror again where there is a network, with this channel and architecture in the configuration",
            ));
        };
        Ok(Arc::new(Answer::read(query, bytes.clone())?))
    }
}

impl<'g> Asked<'g> {
    pub(crate) fn new(graphs: &'g dyn Graphs) -> Self {
        Self { graphs, answers: Mutex::default() }
    }

    /// Who answers.
    pub(crate) fn describe(&self) -> String {
        self.graphs.describe()
    }

    /// The answer, from the service at the first time; a failure is not asked for again either.
    pub(crate) async fn answer(&self, query: &Query) -> Result<Arc<Answer>, Error> {
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(query).cloned();
        if let Some(known) = known {
            return known;
        }
        let answer = self.graphs.answer(query).await;
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(query.clone(), answer.clone());
        answer
    }

    /// Asks several questions side by side; what comes of them is kept for [`Asked::answer`].
    pub(crate) async fn at_once(&self, queries: BTreeSet<Query>) {
        // Boxed, so that the whole is `Send` whatever the lifetimes inside.
        let mut waiting: Vec<BoxFuture<'_, ()>> = Vec::new();
        for query in &queries {
            waiting.push(Box::pin(async move { drop(self.answer(query).await) }));
        }
        futures_util::stream::iter(waiting).buffer_unordered(MAX_AT_ONCE).collect::<()>().await;
    }

    /// Everything that was answered, in order.
    pub(crate) fn into_answers(self) -> Vec<(Query, Bytes)> {
        let answers = self.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        answers.into_iter().filter_map(|(query, answer)| Some((query, answer.ok()?.bytes.clone()))).collect()
    }
}
