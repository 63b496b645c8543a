//! The promise: every set of releases of the world arrives whole, unaltered and alone, by way of an archive and straight, in
//! docker-registry 2.8.2 and in our own registry, and the second half of the way by archive needs no network.

use std::collections::BTreeSet;
use std::path::Path;

use airlock_testkit::binary::Binary;
use airlock_testkit::contents::{Contents, altered};
use airlock_testkit::target::{Access, Target};
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Where the graph image goes: the only content that no upstream has.
const GRAPH: &str = "openshift/graph-image";

/// One image set on its way.
struct Journey {
    upstream: Upstream,
    set: &'static str,
    wanted: Wanted,
    platforms: &'static [&'static str],
    graph: bool,
}

impl Journey {
    /// `None`, with a printed line, where the world or what serves it is absent.
    fn begin(set: &'static str, platforms: &'static [&'static str]) -> Option<Self> {
        let world = World::get(Scale::Small)?;
        let upstream = world.start(Serving::DockerRegistry)?;
        let expected = upstream.expected(set);
        let wanted = Wanted::of_platforms(&world, &expected, platforms);
        let isc = std::fs::read_to_string(upstream.isc(set)).expect("read the image set");
        Some(Self { upstream, set, wanted, platforms, graph: isc.contains("graph: true") })
    }

    /// docker-registry takes no sparse index.
    fn targets(&self) -> Vec<Target> {
        let ours = Target::airlock(Path::new(AIRLOCK), Access::default());
        let theirs = if self.platforms.is_empty() { Target::docker_registry() } else { None };
        theirs.into_iter().chain(ours).collect()
    }

    fn by_archive(&self) {
        let here = Binary::new(AIRLOCK).envs(self.upstream.env());
        let archive = here.folder().join("archive");
        let isc = self.upstream.isc(self.set).display().to_string();
        let to = format!("file://{}", archive.display());
        here.run(["mirror", "-c", &isc, &to]).expect_code(0);
        let before = self.upstream.requests().len();
        for target in self.targets() {
            // Nothing leads to the upstream, and what would be asked of an update service fails at once.
            let there = Binary::new(AIRLOCK)
                .env("CONTAINERS_REGISTRIES_CONF", "/dev/null")
                .env("UPDATE_URL_OVERRIDE", "http://127.0.0.1:1/graph")
                .env("OCP_SIGNATURE_URL", "http://127.0.0.1:1/");
            let place = format!("docker://{}/deep/down", target.address());
            there.run(["mirror", "-c", &isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(0);
            self.judge(&target, "deep/down");
        }
        assert_eq!(self.upstream.requests().len(), before, "loading asked the upstream");
    }

    fn straight(&self) {
        for target in self.targets() {
            let here = Binary::new(AIRLOCK).envs(self.upstream.env());
            let isc = self.upstream.isc(self.set).display().to_string();
            let workspace = format!("file://{}", here.folder().join("workspace").display());
            let place = format!("docker://{}", target.address());
            here.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &place])
                .expect_code(0);
            if self.platforms.is_empty() {
                self.upstream.check(self.set, target.address());
            }
            self.judge(&target, "");
        }
    }

    fn judge(&self, target: &Target, prefix: &str) {
        let bytes = |digest: &str| target.bytes(digest);
        let mut contents = target.contents();
        if self.graph {
            without_graph(&mut contents, prefix);
        }
        let found = self.wanted.differences(&contents, bytes, prefix, !target.has_referrers_api());
        assert_eq!(found, Vec::<String>::new(), "{} at {}", self.set, target.address());
        assert_eq!(self.wanted.altered(self.upstream.world(), bytes), Vec::<String>::new());
        assert_eq!(altered(target.storage()), Vec::<String>::new());
    }
}

/// Takes the graph image out of what lies at a target: it must be there, with `latest` on it, and is judged by its own test.
fn without_graph(contents: &mut Contents, prefix: &str) {
    let name = if prefix.is_empty() { GRAPH.to_owned() } else { format!("{prefix}/{GRAPH}") };
    let held = contents.repositories.remove(&name).expect("the graph image is there");
    assert!(held.tags.contains_key("latest"), "the graph image has its tag");
    let others: BTreeSet<String> =
        contents.repositories.values().flat_map(|h| h.manifests.iter().chain(&h.layers)).cloned().collect();
    for digest in held.manifests.iter().chain(&held.layers) {
        assert!(contents.blobs.contains_key(digest), "{digest} of the graph image is there");
        if !others.contains(digest) {
            contents.blobs.remove(digest);
        }
    }
}

/// `platforms` on a release makes sparse indexes of all its images.
#[test]
fn a_registry_that_wants_whole_indexes_gets_no_release_for_one_platform() {
    let Some(journey) = Journey::begin("rel-22-platforms", &["linux/amd64"]) else { return };
    let here = Binary::new(AIRLOCK).envs(journey.upstream.env());
    let isc = journey.upstream.isc(journey.set).display().to_string();
    let folder = |name: &str| format!("file://{}", here.folder().join(name).display());
    let (archive, workspace) = (folder("archive"), folder("workspace"));
    here.run(["mirror", "-c", &isc, &archive]).expect_code(0);
    for from in [["--workspace", &workspace], ["--from", &archive]] {
        let Some(target) = Target::docker_registry() else { return };
        let place = format!("docker://{}", target.address());
        let outcome = here.run(["mirror", "-c", &isc, from[0], from[1], "--dest-tls-verify=false", &place]);
        assert!(outcome.code.is_some_and(|code| code != 0), "it took sparse indexes");
        for word in ["sparse", target.address()] {
            assert!(outcome.stderr.contains(word), "`{word}` is not said:\n{}", outcome.stderr);
        }
        // What lies there are images of single platforms; nothing has a name by which somebody would take it for a release.
        for (repository, held) in target.contents().repositories {
            assert!(held.tags.is_empty(), "{repository} has {:?}", held.tags);
        }
    }
}

macro_rules! sets {
    ($($name:ident: $set:literal $(of $platforms:expr)?),+ $(,)?) => { $(
        #[test]
        fn $name() {
            #[allow(unused_mut, unused_assignments, reason = "only some sets have platforms")]
            let mut platforms: &'static [&'static str] = &[];
            $( platforms = $platforms; )?
            let Some(journey) = Journey::begin($set, platforms) else { return };
            journey.by_archive();
            journey.straight();
        }
    )+ };
}

sets! {
    the_newest_of_a_channel: "rel-01-head",
    a_range_of_versions: "rel-02-range",
    everything_up_to_a_version: "rel-04-max-only",
    a_whole_channel: "rel-05-full",
    a_shortest_path: "rel-06-shortest",
    a_path_around_a_blocked_edge: "rel-08-blocked-edge",
    a_path_across_minor_versions: "rel-09-cross-minor",
    a_path_from_eus_to_eus: "rel-10-eus",
    two_architectures: "rel-11-two-arches",
    one_payload_for_all_architectures: "rel-13-multi",
    a_candidate: "rel-14-candidate",
    a_release_by_digest: "rel-15-digest",
    disks_for_virtual_machines: "rel-17-kubevirt",
    a_release_with_the_graph: "rel-19-graph",
    one_platform_of_a_release: "rel-22-platforms" of &["linux/amd64"],
}
