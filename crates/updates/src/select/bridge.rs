//! Paths as releases, and what is done where a channel's own graph has none: the graphs of the minor versions between are asked.
//!
//! An update service answers for one channel only what lies in that channel. An extended update (4.14 to 4.16) passes through a 4.15 that
//! need not be in it; and every update into a minor version may be conditional for a while. oc-mirror then mirrors both ends and says nothing,
//! so that the cluster is stuck on the other side (requirement R-164).

use std::sync::Arc;

use super::channel::{between, tell};
use super::reason::{Note, Reason, Why};
use super::{Gathered, Resolved, SelectError};
use crate::answers::{Answer, Asked};
use crate::channel::ChannelName;
use crate::graph::{Edges, Graph, Risk};
use crate::version::Version;

/// Most channels that are asked for a way that one channel does not know.
const MAX_BRIDGE_CHANNELS: u64 = 12;

/// The best path that is allowed.
pub(super) fn path(graph: &Graph, from: usize, to: usize, avoid_risks: bool) -> Option<Vec<usize>> {
    graph.path(from, to, if avoid_risks { Edges::Recommended } else { Edges::All })
}

/// Takes what lies between the ends of a path; `channel_of` says whose a release is, `reason` why it is taken, depending on whether it is of a
/// minor version between the ends.
pub(super) fn take(
    graph: &Graph,
    path: &[usize],
    into: &mut Gathered,
    notes: &mut Vec<Note>,
    channel_of: impl Fn(&Version) -> Option<ChannelName>,
    line: u32,
    reason: impl Fn(bool) -> Reason,
) -> Result<(), SelectError> {
    let (Some(first), Some(last)) = (path.first(), path.last()) else { return Ok(()) };
    let ends = [*first, *last].map(|at| graph.nodes()[at].version.minor());
    for step in path.windows(2) {
        let (from, to) = (&graph.nodes()[step[0]], &graph.nodes()[step[1]]);
        let risks = names(graph.risks(step[0], step[1]).unwrap_or_default());
        if !risks.is_empty() {
            tell(notes, Note::Risky { from: from.version.clone(), to: to.version.clone(), risks: risks.clone() });
        }
        if step[1] == *last {
            continue;
        }
        let minor = to.version.minor();
        if let Some(channel) = channel_of(&to.version) {
            let reason = reason(minor > ends[0] && minor < ends[1]);
            into.add(to, Why { channel, line, reason, risks })?;
        }
    }
    Ok(())
}

/// The names of risks, each once.
pub(super) fn names(risks: Vec<&Risk>) -> Vec<String> {
    let mut names: Vec<String> = risks.into_iter().map(|risk| risk.name.clone()).collect();
    names.dedup();
    names
}

/// The channel has no path between its bounds: looks for one through the channels of the minor versions above the lower bound.
pub(super) async fn gap(
    graph: &Graph,
    resolved: &Resolved,
    into: &mut Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    notes: &mut Vec<Note>,
) -> Result<(), SelectError> {
    let mut looked: Vec<(ChannelName, Arc<Answer>)> = Vec::new();
    let mut graphs = vec![graph];
    if let Some((stream, _)) = resolved.name.parts() {
        // There is no eus channel for the minors between.
        let stream = if resolved.name.is_eus() { "stable" } else { stream };
        looked = further(stream, resolved, into, asked).await;
        graphs.extend(looked.iter().map(|(_, answer)| &answer.graph));
    }
    let channel_of = |version: &Version| {
        let other = looked.iter().find(|(_, answer)| answer.graph.find(version).is_some());
        let own = graph.find(version).map(|_| resolved.name.clone());
        own.or_else(|| other.map(|(name, _)| name.clone()))
    };
    let union = Graph::union(graphs.iter().copied());
    let ends = union.position(&resolved.min).zip(union.position(&resolved.max));
    let found = ends.and_then(|(from, to)| path(&union, from, to, avoid_risks));
    let Some(found) = found else {
        let avoided = avoid_risks && ends.is_some_and(|(from, to)| union.best_path(from, to).is_some());
        let mut channels = vec![resolved.name.clone()];
        channels.extend(looked.iter().map(|(name, _)| name.clone()));
        let (from, to) = (resolved.min.clone(), resolved.max.clone());
        tell(notes, Note::NoPath { from, to, channels, avoided });
        return Ok(());
    };
    let reason = |between: bool| {
        let (from, to) = (resolved.min.clone(), resolved.max.clone());
        if between { Reason::IntermediateMinor { from, to } } else { Reason::OnPath { from, to } }
    };
    take(&union, &found, into, notes, channel_of, resolved.line, reason)?;
    let through: Vec<Version> =
        found.iter().map(|at| union.nodes()[*at].version.clone()).filter(|v| between(v, resolved)).collect();
    if !through.is_empty() {
        let (from, to) = (resolved.min.clone(), resolved.max.clone());
        tell(notes, Note::Through { from, to, channel: resolved.name.clone(), through });
    }
    Ok(())
}

/// The channels of a stream after the minor of the lower bound, up to that of the upper one. Those that nobody knows are left out: this is a
/// search for help, not what was asked for.
async fn further(
    stream: &str,
    resolved: &Resolved,
    into: &Gathered,
    asked: &Asked<'_>,
) -> Vec<(ChannelName, Arc<Answer>)> {
    let (low, high) = (resolved.min.minor(), resolved.max.minor());
    let mut found = Vec::new();
    let mut minor = low;
    while minor < high && minor.major == high.major && minor.minor - low.minor < MAX_BRIDGE_CHANNELS {
        minor = minor.next();
        let Ok(name) = ChannelName::of(stream, minor) else { break };
        if name == resolved.name {
            continue;
        }
        if let Ok(answer) = asked.answer(&into.query(&name)).await
            && !answer.graph.is_empty()
        {
            found.push((name, answer));
        }
    }
    found
}
