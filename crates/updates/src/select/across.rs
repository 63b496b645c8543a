//! The way from the lowest version of several channels to the highest (updates-and-releases 4.4 B): through each minor version's channel to its
//! newest release, then on in the next one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::channel::{locate, tell};
use super::reason::{Note, Reason, Why};
use super::{Gathered, Release, Resolved, SelectError, bridge};
use crate::answers::{Answer, Asked, Graphs, Query};
use crate::channel::ChannelName;
use crate::graph::{Edges, Graph};
use crate::version::Version;

/// Most minor versions between two channels that are walked through.
const MAX_MINORS: u64 = 30;

/// One channel on the way.
struct Leg {
    channel: ChannelName,
    answer: Arc<Answer>,
    /// Positions in the channel's graph; both ends only where there is no path.
    path: Vec<usize>,
    connected: bool,
}

/// Adds what lies on the way from the channel with the lowest version to the one with the highest.
pub(super) async fn gather(
    channels: &[Resolved],
    into: &mut Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    notes: &mut Vec<Note>,
) -> Result<(), SelectError> {
    // Of equal ones the first in the file.
    let Some(first) = channels.iter().reduce(|low, next| if next.min < low.min { next } else { low }) else {
        return Ok(());
    };
    let Some(last) = channels.iter().reduce(|high, next| if next.max > high.max { next } else { high }) else {
        return Ok(());
    };
    walk(first, last, into, asked, avoid_risks, notes).await
}

/// The releases on the way from a version of one channel to a version of another, ascending, with what is to be known about it.
pub async fn across_channels(
    graphs: &dyn Graphs,
    query: &Query,
    from: &Version,
    target: &ChannelName,
    to: &Version,
) -> Result<(Vec<Release>, Vec<Note>), SelectError> {
    let asked = Asked::new(graphs);
    let mut gathered = Gathered::new(query.service, query.architecture);
    let mut notes = Vec::new();
    let end = |name: &ChannelName, version: &Version| Resolved {
        name: name.clone(),
        line: 0,
        min: version.clone(),
        max: version.clone(),
    };
    let first = end(&query.channel, from);
    let last = end(target, to);
    walk(&first, &last, &mut gathered, &asked, false, &mut notes).await?;
    let architecture = query.architecture;
    let releases = gathered.releases.into_iter();
    let releases = releases.map(|((version, payload), why)| Release { version, architecture, payload, why }).collect();
    Ok((releases, notes))
}

async fn walk(
    first: &Resolved,
    last: &Resolved,
    into: &mut Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    notes: &mut Vec<Note>,
) -> Result<(), SelectError> {
    let (from, to) = (&first.min, &last.max);
    let reason = || Reason::AcrossChannels { from: from.clone(), to: to.clone() };
    if first.name.minor() != last.name.minor() {
        // What is wrong is told in the order of the way.
        locate(&graph_of(first, into, asked).await?.graph, first, from)?;
    }
    let target = graph_of(last, into, asked).await?;
    let goal = locate(&target.graph, last, to)?;
    into.add(&target.graph.nodes()[goal], Why::new(last, reason()))?;

    let mut legs: Vec<Leg> = Vec::new();
    let whole = legs_between(first, last, &target, into, asked, avoid_risks, &mut legs).await?;
    for leg in &legs {
        let channel = leg.channel.clone();
        let graph = &leg.answer.graph;
        for end in [leg.path.first(), leg.path.last()].into_iter().flatten() {
            let why = Why {
                channel: channel.clone(),
                line: line(&channel, first, last),
                reason: reason(),
                risks: Vec::new(),
            };
            into.add(&graph.nodes()[*end], why)?;
        }
        if leg.connected {
            bridge::take(
                graph,
                &leg.path,
                into,
                notes,
                |_| Some(channel.clone()),
                line(&channel, first, last),
                |_| reason(),
            )?;
        }
    }
    if whole || from.is(to) {
        return Ok(());
    }
    // The newest release of a channel is not always one that may go on. Another one perhaps is, if all graphs are laid together.
    let mut graphs: Vec<(ChannelName, Arc<Answer>)> = vec![(first.name.clone(), graph_of(first, into, asked).await?)];
    graphs.extend(legs.iter().map(|leg| (leg.channel.clone(), Arc::clone(&leg.answer))));
    graphs.push((last.name.clone(), Arc::clone(&target)));
    let mut seen = BTreeSet::new();
    graphs.retain(|(name, _)| seen.insert(name.clone()));
    let union = Graph::union(graphs.iter().map(|(_, answer)| &answer.graph));
    let ends = union.position(from).zip(union.position(to));
    let Some(path) = ends.and_then(|(from, to)| bridge::path(&union, from, to, avoid_risks)) else {
        let avoided = avoid_risks && ends.is_some_and(|(a, b)| union.path(a, b, Edges::All).is_some());
        let channels = graphs.into_iter().map(|(name, _)| name).collect();
        tell(notes, Note::NoPath { from: from.clone(), to: to.clone(), channels, avoided });
        return Ok(());
    };
    let channel_of = |version: &Version| {
        graphs.iter().find(|(_, answer)| answer.graph.find(version).is_some()).map(|(name, _)| name.clone())
    };
    bridge::take(&union, &path, into, notes, channel_of, last.line, |_| reason())
}

/// Finds the legs of the way, as far as it leads; `true` when it leads to the end without a gap.
async fn legs_between(
    first: &Resolved,
    last: &Resolved,
    target: &Arc<Answer>,
    into: &Gathered,
    asked: &Asked<'_>,
    avoid_risks: bool,
    legs: &mut Vec<Leg>,
) -> Result<bool, SelectError> {
    let (from, to) = (&first.min, &last.max);
    if first.name == last.name {
        locate(&target.graph, first, from)?;
        let leg = leg(last.name.clone(), target, from, to, avoid_risks);
        return Ok(push(legs, leg));
    }
    let pattern =
        |channel: &Resolved| SelectError::ChannelPattern { channel: channel.name.clone(), line: channel.line };
    let (stream, begin) = first.name.parts().ok_or_else(|| pattern(first))?;
    let (_, end) = last.name.parts().ok_or_else(|| pattern(last))?;
    if begin == end {
        // Another stream of one minor version: the target's own graph must know the start.
        let leg = leg(last.name.clone(), target, from, to, avoid_risks);
        return Ok(push(legs, leg));
    }
    // A later major version, or a target before the source, is no way that these names could describe.
    if begin.major != end.major || begin > end {
        return Ok(false);
    }
    let source = graph_of(first, into, asked).await?;
    let Some(newest) = source.graph.last().map(|node| node.version.clone()) else { return Ok(false) };
    let mut whole = push(legs, leg(first.name.clone(), &source, from, &newest, avoid_risks));
    let mut start = newest;
    let mut minor = begin;
    while minor < end && minor.minor - begin.minor < MAX_MINORS {
        minor = minor.next();
        let at_end = minor == end;
        let (name, answer) = if at_end {
            (last.name.clone(), Arc::clone(target))
        } else {
            let Ok(name) = ChannelName::of(stream, minor) else { return Ok(false) };
            match asked.answer(&into.query(&name)).await {
                Ok(answer) => (name, answer),
                // Nobody asked for this channel by name: a gap, which is told, but no failure.
                Err(error) if error.kind() == airlock_oci::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(SelectError::Graph(error)),
            }
        };
        let goal = if at_end { Some(to.clone()) } else { answer.graph.last().map(|node| node.version.clone()) };
        let Some(goal) = goal else { return Ok(false) };
        let Some(leg) = leg(name, &answer, &start, &goal, avoid_risks) else { return Ok(false) };
        whole &= leg.connected;
        legs.push(leg);
        if at_end {
            return Ok(whole);
        }
        start = goal;
    }
    Ok(false)
}

fn push(legs: &mut Vec<Leg>, leg: Option<Leg>) -> bool {
    let Some(leg) = leg else { return false };
    let connected = leg.connected;
    legs.push(leg);
    connected
}

/// The way within one channel; `None` when the channel does not know one of the ends.
fn leg(channel: ChannelName, answer: &Arc<Answer>, from: &Version, to: &Version, avoid_risks: bool) -> Option<Leg> {
    let (from, to) = (answer.graph.position(from)?, answer.graph.position(to)?);
    let found = bridge::path(&answer.graph, from, to, avoid_risks);
    let connected = found.is_some();
    Some(Leg { channel, answer: Arc::clone(answer), path: found.unwrap_or_else(|| vec![from, to]), connected })
}

async fn graph_of(channel: &Resolved, into: &Gathered, asked: &Asked<'_>) -> Result<Arc<Answer>, SelectError> {
    asked.answer(&into.query(&channel.name)).await.map_err(SelectError::Graph)
}

fn line(channel: &ChannelName, first: &Resolved, last: &Resolved) -> u32 {
    if *channel == first.name { first.line } else { last.line }
}
