//! The shortest way from one release to another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Graph;

/// Which updates a path may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edges {
    /// Those that are recommended to everybody.
    Recommended,
    /// Those with known risks as well, but as few of them as possible.
    All,
}

/// What a path costs: updates with risks weigh more than any number of updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    risky: usize,
    hops: usize,
}

impl Graph {
    /// The positions of the releases on the shortest path, both ends included; `None` when there is no path.
    ///
    /// Among paths of one length the newest releases win, decided from the start on: what a breadth-first search finds that visits the
    /// newest neighbours first (updates-and-releases 4.4).
    pub fn path(&self, from: usize, to: usize, edges: Edges) -> Option<Vec<usize>> {
        let mut best: Vec<Option<Cost>> = vec![None; self.nodes.len()];
        let mut before: Vec<Option<usize>> = vec![None; self.nodes.len()];
        let mut done = vec![false; self.nodes.len()];
        // The number breaks ties in order of discovery, so that with equal weights this is the breadth-first search.
        let mut queue = BinaryHeap::from([Reverse((Cost { risky: 0, hops: 0 }, 0_usize, from))]);
        let mut discovered = 0;
        best[from] = Some(Cost { risky: 0, hops: 0 });
        while let Some(Reverse((cost, _, at))) = queue.pop() {
            if std::mem::replace(&mut done[at], true) {
                continue;
            }
            if at == to {
                return Some(trace(&before, from, to));
            }
            for update in &self.next[at] {
                let risky = !update.groups.is_empty();
                if risky && edges == Edges::Recommended {
                    continue;
                }
                let cost = Cost { risky: cost.risky + usize::from(risky), hops: cost.hops + 1 };
                if best[update.to].is_none_or(|known| cost < known) {
                    best[update.to] = Some(cost);
                    before[update.to] = Some(at);
                    discovered += 1;
                    queue.push(Reverse((cost, discovered, update.to)));
                }
            }
        }
        None
    }

    /// A path without risks where there is one, else one with as few risky updates as possible.
    pub fn best_path(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        self.path(from, to, Edges::All)
    }
}

fn trace(before: &[Option<usize>], from: usize, to: usize) -> Vec<usize> {
    let mut path = vec![to];
    let mut at = to;
    while at != from {
        let Some(previous) = before[at] else { break };
        path.push(previous);
        at = previous;
    }
    path.reverse();
    path
}
