//! One channel on its own: its bounds, and the releases between them or on the path.

use airlock_oci::ErrorKind;

use super::error::Range;
use super::reason::{Note, Reason, Why};
use super::{Bounds, Channel, Gathered, Resolved, SelectError, bridge, near};
use crate::answers::{Asked, Query};
use crate::architecture::Architecture;
use crate::channel::{ChannelName, STREAMS};
use crate::graph::Graph;
use crate::nearest;
use crate::version::Version;

/// A path from minor version to minor version passes every one of them: from this distance on there are some between.
const MINORS_APART: u64 = 2;

/// What the file says, understood; or everything that is wrong with it.
pub(super) fn understand(channel: &Channel) -> Result<Bounds, Vec<SelectError>> {
    let line = channel.line;
    let mut errors = Vec::new();
    let name =
        ChannelName::new(&channel.name).map_err(|source| errors.push(SelectError::ChannelName { line, source })).ok();
    let mut version = |field: &'static str, text: &Option<String>| -> Option<Version> {
        let text = text.as_deref().filter(|text| !text.is_empty())?;
        text.parse()
            .map_err(|source| {
                errors.push(SelectError::Version { field, channel: channel.name.clone(), line, source });
            })
            .ok()
    };
    let min = version("minVersion", &channel.min);
    let max = version("maxVersion", &channel.max);
    if let (Some(name), Some(min), Some(max)) = (&name, &min, &max)
        && min > max
    {
        let range = Box::new(Range { min: min.clone(), max: max.clone() });
        errors.push(SelectError::MinAboveMax { channel: name.clone(), line, range });
    }
    match name {
        Some(name) if errors.is_empty() => Ok(Bounds {
            name,
            line,
            service: channel.service,
            min,
            max,
            full: channel.full,
            shortest_path: channel.shortest_path,
        }),
        _ => Err(errors),
    }
}

/// Chooses the releases of one channel.
pub(super) async fn gather(
    bounds: &Bounds,
    into: &mut Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    notes: &mut Vec<Note>,
) -> Result<Resolved, SelectError> {
    let answer = asked.answer(&into.query(&bounds.name)).await.map_err(SelectError::Graph)?;
    let graph = &answer.graph;
    let (Some(first), Some(last)) = (graph.first(), graph.last()) else {
        return Err(explain_empty(bounds, into.architecture, asked).await);
    };
    // Where only one bound is given the channel itself is the other; where none is given only the newest is meant.
    let heads_only = bounds.min.is_none() && bounds.max.is_none() && !bounds.full;
    let max = bounds.max.clone().unwrap_or_else(|| last.version.clone());
    let lowest = if heads_only { &last.version } else { &first.version };
    let min = bounds.min.clone().unwrap_or_else(|| lowest.clone());
    let resolved = Resolved { name: bounds.name.clone(), line: bounds.line, min, max };

    if bounds.shortest_path {
        along_path(graph, &resolved, into, asked, avoid_risks, notes).await?;
        return Ok(resolved);
    }
    let reason = if heads_only {
        Reason::Latest
    } else if bounds.min.is_none() && bounds.max.is_none() {
        Reason::Full
    } else {
        Reason::InRange { min: resolved.min.clone(), max: resolved.max.clone() }
    };
    let chosen = graph.range(&resolved.min, &resolved.max);
    if chosen.is_empty() {
        return Err(SelectError::EmptyRange {
            channel: resolved.name,
            line: resolved.line,
            near: near(graph, &resolved.min),
            range: Box::new(Range { min: resolved.min, max: resolved.max }),
        });
    }
    for node in chosen {
        into.add(node, Why::new(&resolved, reason.clone()))?;
    }
    for (field, bound) in [("minVersion", &bounds.min), ("maxVersion", &bounds.max)] {
        if let Some(version) = bound
            && graph.find(version).is_none()
        {
            let (version, channel) = (version.clone(), bounds.name.clone());
            let near = near(graph, &version);
            tell(notes, Note::NotInChannel { field, version, channel, near });
        }
    }
    // Who begins at a version two minors below the end means to update from one to the other, which oc-mirror leaves to chance.
    if bounds.min.is_some()
        && let (Some(from), Some(to)) = (graph.position(&resolved.min), graph.position(&resolved.max))
        && apart(&resolved.min, &resolved.max)
        && graph.best_path(from, to).is_none()
    {
        bridge::gap(graph, &resolved, into, asked, avoid_risks, notes).await?;
    }
    Ok(resolved)
}

/// `shortestPath`: both ends and what lies on the path between them.
async fn along_path(
    graph: &Graph,
    resolved: &Resolved,
    into: &mut Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    notes: &mut Vec<Note>,
) -> Result<(), SelectError> {
    let from = locate(graph, resolved, &resolved.min)?;
    let to = locate(graph, resolved, &resolved.max)?;
    for end in [from, to] {
        let reason = Reason::PathEnd { from: resolved.min.clone(), to: resolved.max.clone() };
        into.add(&graph.nodes()[end], Why::new(resolved, reason))?;
    }
    match bridge::path(graph, from, to, avoid_risks) {
        Some(path) => {
            let reason = |between: bool| {
                let (from, to) = (resolved.min.clone(), resolved.max.clone());
                if between { Reason::IntermediateMinor { from, to } } else { Reason::OnPath { from, to } }
            };
            bridge::take(graph, &path, into, notes, |_| Some(resolved.name.clone()), resolved.line, reason)?;
            let through: Vec<Version> =
                path.iter().map(|at| graph.nodes()[*at].version.clone()).filter(|v| between(v, resolved)).collect();
            if apart(&resolved.min, &resolved.max) && !through.is_empty() {
                tell(
                    notes,
                    Note::Through {
                        from: resolved.min.clone(),
                        to: resolved.max.clone(),
                        channel: resolved.name.clone(),
                        through,
                    },
                );
            }
            Ok(())
        }
        None => bridge::gap(graph, resolved, into, asked, avoid_risks, notes).await,
    }
}

/// Where a version is in the graph, or an error that names its neighbours.
pub(super) fn locate(graph: &Graph, channel: &Resolved, version: &Version) -> Result<usize, SelectError> {
    graph.position(version).ok_or_else(|| SelectError::NotInChannel {
        version: version.clone(),
        channel: channel.name.clone(),
        line: channel.line,
        near: near(graph, version),
    })
}

/// Whether other minor versions lie between.
fn apart(min: &Version, max: &Version) -> bool {
    let (low, high) = (min.minor(), max.minor());
    low.major == high.major && high.minor >= low.minor + MINORS_APART
}

/// Whether a version is of a minor version strictly between the two ends.
pub(super) fn between(version: &Version, ends: &Resolved) -> bool {
    version.minor() > ends.min.minor() && version.minor() < ends.max.minor()
}

/// A note is told once, however many architectures lead to it.
pub(super) fn tell(notes: &mut Vec<Note>, note: Note) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// Why a channel is empty: a service answers no error for a name or an architecture that it does not know (updates-and-releases 1.3).
async fn explain_empty(bounds: &Bounds, architecture: Architecture, asked: &Asked<'_>) -> SelectError {
    let (channel, line) = (bounds.name.clone(), bounds.line);
    let query =
        |channel: &ChannelName, architecture| Query { service: bounds.service, architecture, channel: channel.clone() };
    for other in [Architecture::Amd64, Architecture::Multi] {
        if other != architecture
            && let Ok(answer) = asked.answer(&query(&channel, other)).await
            && !answer.graph.is_empty()
        {
            return SelectError::WrongArchitecture { channel, line, architecture, has: other };
        }
    }
    // A channel of the same minor version lists all channels that its releases are in.
    let mut known = std::collections::BTreeSet::new();
    if let Some(minor) = channel.minor() {
        for name in STREAMS.iter().filter_map(|stream| ChannelName::of(stream, minor).ok()) {
            match asked.answer(&query(&name, architecture)).await {
                Ok(answer) => known.extend(answer.graph.channels().into_iter().map(str::to_owned)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(_) => break,
            }
            if !known.is_empty() {
                break;
            }
        }
        known.retain(|name| ChannelName::new(name).is_ok_and(|name| name.minor() == Some(minor)));
    }
    SelectError::UnknownChannel {
        nearest: nearest(channel.as_str(), known.iter().map(String::as_str)).map(str::to_owned),
        known: known.into_iter().collect(),
        place: asked.describe(),
        channel,
        line,
        architecture,
    }
}

impl Why {
    pub(super) fn new(channel: &Resolved, reason: Reason) -> Self {
        Self { channel: channel.name.clone(), line: channel.line, reason, risks: Vec::new() }
    }
}
