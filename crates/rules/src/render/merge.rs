//! Several entries for one source to one ordered list of mirrors (mirror-rules 3.5).
//!
//! Each list is a chain of wishes "this before that". The operator sorts the union topologically, breaking ties and loops
//! by the bytes of the names, so that neither the order nor the names of the objects matter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::objects::{Objects, Origin, Policy, Pull};

/// The entries of one source for one kind of pull, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The source.
    pub source: String,
    /// In the order in which they are tried; the source itself only where it does not come last.
    pub mirrors: Vec<String>,
    /// Whether any entry says NeverContactSource.
    pub never: bool,
    /// The entries that took part.
    pub origins: Vec<Origin>,
    /// The lists contradicted one another (or one repeated a mirror), and the order was decided by the bytes of the names.
    pub cyclic: bool,
}

/// All sources that have mirrors for the kind of pull, in byte order. Entries without a mirror other than the source take no
/// part, their policy included.
pub fn merged(objects: &Objects, pull: Pull) -> Vec<Merged> {
    let mut sources: BTreeMap<&str, Vec<Origin>> = BTreeMap::new();
    for (origin, set, entry) in objects.entries() {
        if set.kind.pull() == pull && entry.has_real_mirror() {
            sources.entry(&entry.source.value).or_default().push(origin);
        }
    }
    sources
        .into_iter()
        .map(|(source, origins)| {
            let lists: Vec<Vec<&str>> = origins
                .iter()
                .map(|o| objects.entry(*o).mirrors.iter().map(|mirror| mirror.value.as_str()).collect())
                .collect();
            let (mirrors, cyclic) = order(source, &lists);
            let never = origins.iter().any(|o| objects.entry(*o).policy == Policy::NeverContactSource);
            Merged { source: source.to_owned(), mirrors, never, origins, cyclic }
        })
        .collect()
}

/// One list from several, and whether a loop had to be broken.
pub fn order(source: &str, lists: &[Vec<&str>]) -> (Vec<String>, bool) {
    let mut graph = Graph::default();
    for list in lists {
        for pair in list.windows(2) {
            graph.add(pair[0], pair[1]);
        }
        if !list.contains(&source)
            && let Some(last) = list.last()
        {
            graph.add(last, source);
        }
    }
    let (mut sorted, cyclic) = graph.sort();
    if sorted.last().is_some_and(|last| *last == source) {
        sorted.pop();
    }
    (sorted.into_iter().map(str::to_owned).collect(), cyclic)
}

#[derive(Default)]
struct Graph<'a> {
    after: BTreeMap<&'a str, BTreeSet<&'a str>>,
    before: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    fn add(&mut self, from: &'a str, to: &'a str) {
        self.after.entry(from).or_default().insert(to);
        self.after.entry(to).or_default();
        self.before.entry(to).or_default().insert(from);
        self.before.entry(from).or_default();
    }

    fn sort(mut self) -> (Vec<&'a str>, bool) {
        let free = |waiting: &BTreeSet<&str>| waiting.is_empty();
        let mut queue: VecDeque<&str> = self.before.iter().filter(|(_, w)| free(w)).map(|(node, _)| *node).collect();
        let mut unused: BTreeSet<&str> = self.before.keys().copied().collect();
        let mut sorted = Vec::with_capacity(unused.len());
        let mut cyclic = false;
        loop {
            let node = match queue.pop_front() {
                Some(node) => node,
                None => match unused.first() {
                    Some(node) => {
                        cyclic = true;
                        node
                    }
                    None => return (sorted, cyclic),
                },
            };
            unused.remove(node);
            sorted.push(node);
            for next in self.after.remove(node).unwrap_or_default() {
                let waiting = self.before.entry(next).or_default();
                waiting.remove(node);
                if waiting.is_empty() && unused.contains(next) {
                    queue.push_back(next);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(source: &str, lists: &[&[&str]]) -> (String, bool) {
        let lists: Vec<Vec<&str>> = lists.iter().map(|l| l.to_vec()).collect();
        let (sorted, cyclic) = order(source, &lists);
        (sorted.join(","), cyclic)
    }

    #[test]
    fn the_examples_of_the_specification() {
        let case = |source, lists: &[&[&str]], wanted: &str, cyclic| {
            assert_eq!(merge(source, lists), (wanted.to_owned(), cyclic));
        };
        case("q.io/x", &[&["z1", "y2", "x3"], &["b1", "a2"]], "b1,z1,a2,y2,x3", false);
        case("q.io/x", &[&["b", "c"], &["a", "b"]], "a,b,c", false);
        case("q.io/x", &[&["a", "b"], &["a", "b"]], "a,b", false);
        case("docker.io/x", &[&["m", "n"], &["n", "m"]], "docker.io/x,m,n", true);
        case("quay.io/acme", &[&["z", "z", "a"]], "a,quay.io/acme,z", true);
        case("quay.io/acme", &[&["a", "quay.io/acme"]], "a", false);
    }
}
