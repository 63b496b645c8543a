//! Which releases a configuration's channels stand for (oc-mirror 5.3): channels and graphs in, releases with their reasons out.
//!
//! Each channel is resolved on its own in [`channel`]; several channels of OpenShift together also stand for the way between them, which
//! [`across`] finds. Where oc-mirror leaves a gap silently, the gap is filled if any graph knows how, and told about in any case.

mod across;
mod bridge;
mod channel;
mod error;
mod reason;

use std::collections::BTreeMap;

use airlock_oci::Reference;
use bytes::Bytes;
use serde::Serialize;

use crate::answers::{Asked, Graphs, Query, Service};
use crate::architecture::Architecture;
use crate::channel::ChannelName;
use crate::graph::{Graph, Node};
use crate::version::Version;

pub use across::across_channels;
pub use error::{Failures, Range, SelectError};
pub use reason::{Note, Reason, Why};

/// `platform` of a configuration, as far as it chooses versions.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The channels, in the order of the file.
    pub channels: Vec<Channel>,
    /// `architectures` as written; none: amd64.
    pub architectures: Vec<String>,
    /// `platforms` is set: the payloads for all architectures are taken, whatever `architectures` says.
    pub platforms: bool,
    /// Never take a release only because an update with known risks leads over it. As a rule that is better than a gap.
    pub avoid_risks: bool,
}

/// `platform.channels[]`.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// Such as `stable-4.18`.
    pub name: String,
    /// Where it stands in the file, counted from 1; 0: nowhere.
    pub line: u32,
    /// `type`.
    pub service: Service,
    /// `minVersion`.
    pub min: Option<String>,
    /// `maxVersion`.
    pub max: Option<String>,
    /// `full`.
    pub full: bool,
    /// `shortestPath`.
    pub shortest_path: bool,
}

/// What a configuration stands for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By architecture in the configured order, then by version; each payload once.
    pub releases: Vec<Release>,
    /// What the user should know although nothing failed.
    pub notes: Vec<Note>,
    /// Every graph that was looked into, to be kept under [`Query::file_name`].
    pub answers: Vec<(Query, Bytes)>,
}

/// A release that is to be mirrored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Which one.
    pub version: Version,
    /// For what.
    pub architecture: Architecture,
    /// Its payload, as the graph names it.
    pub payload: Reference,
    /// Why it is mirrored; at least one reason, in the order in which they were found.
    pub why: Vec<Why>,
}

/// Collects releases of one architecture.
struct Gathered {
    service: Service,
    architecture: Architecture,
    releases: BTreeMap<(Version, Reference), Vec<Why>>,
}

/// What is asked for one channel, understood.
struct Bounds {
    name: ChannelName,
    line: u32,
    service: Service,
    min: Option<Version>,
    max: Option<Version>,
    full: bool,
    shortest_path: bool,
}

/// The versions that a channel of the configuration comes down to.
struct Resolved {
    name: ChannelName,
    line: u32,
    min: Version,
    max: Version,
}

impl Release {
    /// The channel of the first reason.
    pub fn channel(&self) -> Option<&ChannelName> {
        self.why.first().map(|why| &why.channel)
    }

    /// The tag that such a release has upstream: `4.18.3-x86_64`.
    pub fn tag(&self) -> String {
        // A tag has no `+`.
        format!("{}-{}", self.version, self.architecture.tag_suffix()).replace('+', "_")
    }
}

impl Gathered {
    fn new(service: Service, architecture: Architecture) -> Self {
        Self { service, architecture, releases: BTreeMap::new() }
    }

    /// Takes a release, or one reason more for it.
    fn add(&mut self, node: &Node, why: Why) -> Result<(), SelectError> {
        let payload = node.payload.as_deref().unwrap_or_default();
        let payload: Reference = payload.parse().map_err(|error| SelectError::Payload {
            version: node.version.clone(),
            channel: why.channel.clone(),
            payload: payload.to_owned(),
            reason: error,
        })?;
        let reasons = self.releases.entry((node.version.clone(), payload)).or_default();
        if !reasons.contains(&why) {
            reasons.push(why);
        }
        Ok(())
    }

    fn query(&self, channel: &ChannelName) -> Query {
        Query { service: self.service, architecture: self.architecture, channel: channel.clone() }
    }
}

/// Chooses the releases. All channels are looked at before failures are told, unless nobody answers at all.
pub async fn select(wanted: &Wanted, graphs: &dyn Graphs) -> Result<Selection, Failures> {
    let mut failures = Failures::default();
    let mut channels = Vec::new();
    for channel in &wanted.channels {
        match channel::understand(channel) {
            Ok(bounds) => channels.push(bounds),
            Err(errors) => failures.extend(errors),
        }
    }
    let architectures = match architectures(wanted) {
        Ok(architectures) => architectures,
        Err(error) => {
            failures.push(error);
            Vec::new()
        }
    };
    // What is wrong in the file itself is told before any network is needed.
    failures.check()?;

    let asked = Asked::new(graphs);
    let queries = architectures.iter().flat_map(|architecture| {
        let query = |bounds: &Bounds| Query {
            service: bounds.service,
            architecture: *architecture,
            channel: bounds.name.clone(),
        };
        channels.iter().map(query)
    });
    asked.at_once(queries.collect()).await;
    let mut selection = Selection::default();
    for architecture in architectures {
        let mut gathered = [Service::Ocp, Service::Okd].map(|service| Gathered::new(service, architecture));
        let mut resolved = Vec::new();
        for bounds in &channels {
            let [ocp, okd] = &mut gathered;
            let into = if bounds.service == Service::Ocp { ocp } else { okd };
            match channel::gather(bounds, into, &asked, wanted.avoid_risks, &mut selection.notes).await {
                Ok(found) if bounds.service == Service::Ocp => resolved.push(found),
                Ok(_) => {}
                Err(error) => {
                    let unreachable = error.is_network();
                    failures.push(error);
                    if unreachable {
                        // Every other question would wait as long for the same answer.
                        return Err(failures);
                    }
                }
            }
        }
        if resolved.len() > 1 && failures.is_empty() {
            let [ocp, _] = &mut gathered;
            if let Err(error) = across::gather(&resolved, ocp, &asked, wanted.avoid_risks, &mut selection.notes).await {
                failures.push(error);
            }
        }
        for gathered in gathered {
            let releases = gathered.releases.into_iter();
            selection.releases.extend(releases.map(|((version, payload), why)| Release {
                version,
                architecture,
                payload,
                why,
            }));
        }
    }
    failures.check()?;
    selection.answers = asked.into_answers();
    Ok(selection)
}

fn architectures(wanted: &Wanted) -> Result<Vec<Architecture>, SelectError> {
    if wanted.platforms {
        return Ok(vec![Architecture::Multi]);
    }
    let mut architectures = Vec::new();
    for text in &wanted.architectures {
        let architecture = text.parse().map_err(SelectError::Architecture)?;
        if !architectures.contains(&architecture) {
            architectures.push(architecture);
        }
    }
    if architectures.is_empty() {
        architectures.push(Architecture::default());
    }
    Ok(architectures)
}

/// The versions nearest to one that is not there, for messages.
fn near(graph: &Graph, version: &Version) -> Vec<Version> {
    graph.around(version).into_iter().flatten().cloned().collect()
}
