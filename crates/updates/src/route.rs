//! The way of one cluster from one release to another, with the risks of each step.

use std::sync::Arc;

use airlock_oci::{Error, ErrorKind};
use serde::Serialize;

use crate::answers::{Answer, Asked, Graphs, Query, Service};
use crate::architecture::Architecture;
use crate::channel::ChannelName;
use crate::graph::{Edges, Graph, Risk};
use crate::version::Version;

/// Most channels that are laid together to find a way.
const MAX_CHANNELS: usize = 30;

/// A way from one release to another.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// The start.
    pub from: Version,
    /// The end.
    pub to: Version,
    /// For what.
    pub architecture: Architecture,
    /// The channels that were asked.
    pub channels: Vec<String>,
    /// Each update in order; empty when start and end are one.
    pub hops: Vec<Hop>,
}

/// One update.
#[derive(Clone, Debug, Serialize)]
pub struct Hop {
    /// Before.
    pub from: Version,
    /// After.
    pub to: Version,
    /// The payload afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The channels that have this update's target, as its metadata lists them.
    pub channels: Vec<String>,
    /// Known risks; empty: recommended to everybody.
    pub risks: Vec<Risk>,
}

/// Finds the shortest way. Without `channel`, the stable channels of the minor versions from the start to the end are laid together.
///
/// A way without risks is preferred to any with; [`Error`]s say whether a version is unknown or no updates lead there.
pub async fn route(
    graphs: &dyn Graphs,
    service: Service,
    architecture: Architecture,
    channel: Option<&ChannelName>,
    from: &Version,
    to: &Version,
    edges: Edges,
) -> Result<Route, Error> {
    let what = || format!("find the way from {from} to {to} for {architecture}");
    if to < from {
        return Err(
            Error::new(ErrorKind::Invalid, what(), "no update leads to an older release").hint("exchange the two")
        );
    }
    let asked = Asked::new(graphs);
    let names = match channel {
        Some(name) => vec![name.clone()],
        None => default_channels(from, to).map_err(|cause| Error::new(ErrorKind::Invalid, what(), cause))?,
    };
    let mut answers: Vec<(ChannelName, Arc<Answer>)> = Vec::new();
    for name in names {
        let query = Query { service, architecture, channel: name.clone() };
        match asked.answer(&query).await {
            Ok(answer) if !answer.graph.is_empty() => answers.push((name, answer)),
            Ok(_) => {}
            // Of several channels one may be missing among the answers that were kept.
            Err(error) if error.kind() == ErrorKind::NotFound && channel.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    let channels: Vec<String> = answers.iter().map(|(name, _)| name.to_string()).collect();
    let union = Graph::union(answers.iter().map(|(_, answer)| &answer.graph));
    let locate = |version: &Version| {
        union.position(version).ok_or_else(|| {
            let near: Vec<String> = union.around(version).into_iter().flatten().map(ToString::to_string).collect();
            let place = if channels.is_empty() { asked.describe() } else { channels.join(", ") };
            let error = Error::new(ErrorKind::NotFound, what(), format!("{version} is not in {place}"));
            if near.is_empty() {
                error.hint("name the channel with --channel, and the architecture with --arch")
            } else {
                error.hint(format!("nearest: {}; or name another channel with --channel", near.join(" and ")))
            }
        })
    };
    let (start, end) = (locate(from)?, locate(to)?);
    let Some(path) = union.path(start, end, edges) else {
        let error =
            Error::new(ErrorKind::NotFound, what(), format!("no updates lead there in {}", channels.join(", ")));
        return Err(if union.path(start, end, Edges::All).is_some() {
            error.hint("updates with known risks do; leave --no-risks out to see them")
        } else {
            error.hint("the update is blocked, or needs another channel: name it with --channel")
        });
    };
    let hops = path
        .windows(2)
        .map(|step| {
            let target = &union.nodes()[step[1]];
            Hop {
                from: union.nodes()[step[0]].version.clone(),
                to: target.version.clone(),
                payload: target.payload.clone(),
                channels: target.channels().map(str::to_owned).collect(),
                risks: union.risks(step[0], step[1]).unwrap_or_default().into_iter().cloned().collect(),
            }
        })
        .collect();
    Ok(Route { from: from.clone(), to: to.clone(), architecture, channels, hops })
}

/// `stable` for every minor version after the start's, up to the end's; candidates are only in their own channel.
fn default_channels(from: &Version, to: &Version) -> Result<Vec<ChannelName>, String> {
    let (low, high) = (from.minor(), to.minor());
    if low.major != high.major {
        return Err("the two are of different major versions".to_owned());
    }
    let stream = if from.is_final() && to.is_final() { "stable" } else { "candidate" };
    let mut minor = if low == high { low } else { low.next() };
    let mut channels = Vec::new();
    while minor <= high && channels.len() < MAX_CHANNELS {
        channels.push(ChannelName::of(stream, minor).map_err(|e| e.to_string())?);
        minor = minor.next();
    }
    Ok(channels)
}
