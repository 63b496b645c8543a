//! The promise: every set of additional images of the world arrives whole, unaltered and alone, by way of an archive and
//! straight, in docker-registry 2.8.2 and in our own registry. The world's inventory and its own judge say what must be there.

use std::path::Path;

use airlock_testkit::binary::Binary;
use airlock_testkit::contents::altered;
use airlock_testkit::target::{Access, Target};
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// Everything was carried.
const DONE: i32 = 0;
/// Something could not be had, everything else was carried.
const PARTIAL: i32 = 3;

/// One image set on its way.
struct Journey {
    upstream: Upstream,
    set: &'static str,
    wanted: Wanted,
    code: i32,
    /// Every image keeps the last component of its name; the world's judge looks for no other.
    keeps_names: bool,
}

impl Journey {
    /// `None`, with a printed line, where the world or what serves it is absent.
    fn begin(set: &'static str) -> Option<Self> {
        let world = World::get(Scale::Small)?;
        let upstream = world.start(Serving::DockerRegistry)?;
        let expected = upstream.expected(set);
        let wanted = Wanted::of(&world, &expected);
        let code = if expected.missing.is_empty() { DONE } else { PARTIAL };
        let last = |name: &str| {
            let name = name.rsplit('/').next().unwrap_or(name);
            name.split([':', '@']).next().unwrap_or(name).to_owned()
        };
        let keeps_names =
            expected.images.iter().all(|image| image.dest.iter().all(|dest| last(dest) == last(&image.reference)));
        Some(Self { upstream, set, wanted, code, keeps_names })
    }

    fn targets() -> Vec<Target> {
        let ours = Target::airlock(Path::new(AIRLOCK), Access::default());
        Target::docker_registry().into_iter().chain(ours).collect()
    }

    /// registry -> archive -> every target. The second half knows nothing of the upstream.
    fn by_archive(&self) {
        let here = Binary::new(AIRLOCK).envs(self.upstream.env());
        let archive = here.folder().join("archive");
        let isc = self.upstream.isc(self.set).display().to_string();
        let to = format!("file://{}", archive.display());
        here.run(["mirror", "-c", &isc, &to]).expect_code(self.code);
        for target in Self::targets() {
            let there = Binary::new(AIRLOCK).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
            let place = format!("docker://{}/deep/down", target.address());
            there.run(["mirror", "-c", &isc, "--from", &to, "--dest-tls-verify=false", &place]).expect_code(self.code);
            self.judge(&target, "deep/down");
        }
    }

    /// registry -> every target.
    fn straight(&self) {
        for target in Self::targets() {
            let here = Binary::new(AIRLOCK).envs(self.upstream.env());
            let isc = self.upstream.isc(self.set).display().to_string();
            let workspace = format!("file://{}", here.folder().join("workspace").display());
            let place = format!("docker://{}", target.address());
            here.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &place])
                .expect_code(self.code);
            if self.keeps_names {
                self.upstream.check(self.set, target.address());
            }
            self.judge(&target, "");
        }
    }

    fn judge(&self, target: &Target, prefix: &str) {
        let bytes = |digest: &str| target.bytes(digest);
        let found = self.wanted.differences(&target.contents(), bytes, prefix, !target.has_referrers_api());
        assert_eq!(found, Vec::<String>::new(), "{} at {}", self.set, target.address());
        assert_eq!(self.wanted.altered(self.upstream.world(), bytes), Vec::<String>::new());
        assert_eq!(altered(target.storage()), Vec::<String>::new());
    }
}

macro_rules! sets {
    ($($name:ident: $set:literal),+ $(,)?) => { $(
        #[test]
        fn $name() {
            let Some(journey) = Journey::begin($set) else { return };
            journey.by_archive();
            journey.straight();
        }
    )+ };
}

sets! {
    tags_of_single_and_multi_platform_images: "add-01-tags",
    digests_alone_and_tags_that_have_moved: "add-02-digests",
    lists_with_variants_attestations_and_mixed_kinds: "add-03-manifests",
    artifacts_and_a_chart: "add-05-artifacts",
    signatures_and_referrers: "add-07-signed",
    a_missing_image_between_good_ones: "add-09-missing",
    a_stack_of_many_registries: "add-10-ai-stack",
    other_names_at_the_target: "add-11-target",
    blocked_images: "add-12-blocked",
    images_blocked_by_a_pattern: "add-13-blocked-regex",
}

#[test]
fn the_signed_set_does_carry_attachments() {
    // Guards the test above: were the world to lose its attachments, it would prove less than it says.
    let Some(journey) = Journey::begin("add-07-signed") else { return };
    assert!(journey.wanted.has_signatures() && journey.wanted.has_referrers());
}
