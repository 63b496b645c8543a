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

/// Finds the shortest way. Without `channel`, the channels of one stream for the minor versions from the start to the end are laid together:
/// stable, and where that does not know both ends fast, then candidate.
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
    let streams: &[&str] = match channel {
        Some(_) => &[""],
        // A candidate is in no other stream.
        None if !from.is_final() || !to.is_final() => &["candidate"],
        None => &["stable", "fast", "candidate"],
    };
    // Of several streams the most careful one that knows both ends; where none does, the first says what it lacks.
    let mut refused = None;
    let mut found = None;
    for stream in streams {
        let names = match channel {
            Some(name) => vec![name.clone()],
            None => channels_of(stream, from, to).map_err(|cause| Error::new(ErrorKind::Invalid, what(), cause))?,
        };
        let answers = ask(&asked, service, architecture, &names, channel.is_some()).await?;
        let channels: Vec<String> = answers.iter().map(|(name, _)| name.to_string()).collect();
        let union = Graph::union(answers.iter().map(|(_, answer)| &answer.graph));
        match (union.position(from), union.position(to)) {
            (Some(start), Some(end)) => {
                found = Some((channels, union, start, end));
                break;
            }
            (start, _) => {
                let version = if start.is_none() { from } else { to };
                let place = if channels.is_empty() { asked.describe() } else { channels.join(", ") };
                refused.get_or_insert_with(|| unknown(what(), version, &union, &place));
            }
        }
    }
    let Some((channels, union, start, end)) = found else {
        return Err(refused.unwrap_or_else(|| Error::new(ErrorKind::NotFound, what(), "no channel was asked")));
    };
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

/// The graphs of channels, without those that are not known.
async fn ask(
    asked: &Asked<'_>,
    service: Service,
    architecture: Architecture,
    names: &[ChannelName],
    by_name: bool,
) -> Result<Vec<(ChannelName, Arc<Answer>)>, Error> {
    let mut answers = Vec::new();
    for name in names {
        let query = Query { service, architecture, channel: name.clone() };
        match asked.answer(&query).await {
            Ok(answer) if !answer.graph.is_empty() => answers.push((name.clone(), answer)),
            Ok(_) => {}
            // Of several channels one may be missing among the answers that were kept.
            Err(error) if error.kind() == ErrorKind::NotFound && !by_name => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answers)
}

fn unknown(what: String, version: &Version, graph: &Graph, place: &str) -> Error {
    let near: Vec<String> = graph.around(version).into_iter().flatten().map(ToString::to_string).collect();
    let error = Error::new(ErrorKind::NotFound, what, format!("{version} is not in {place}"));
    if near.is_empty() {
        return error.hint("name the channel with --channel, and the architecture with --arch");
    }
    error.hint(format!("nearest: {}; or name another channel with --channel", near.join(" and ")))
}

/// The channels of a stream for every minor version after the start's, up to the end's.
fn channels_of(stream: &str, from: &Version, to: &Version) -> Result<Vec<ChannelName>, String> {
    let (low, high) = (from.minor(), to.minor());
    if low.major != high.major {
        return Err("the two are of different major versions".to_owned());
    }
    let mut minor = if low == high { low } else { low.next() };
    let mut channels = Vec::new();
    while minor <= high && channels.len() < MAX_CHANNELS {
        channels.push(ChannelName::of(stream, minor).map_err(|e| e.to_string())?);
        minor = minor.next();
    }
    Ok(channels)
}
