//! The promise: an upstream at which everything goes wrong at once, now and then, costs no image of a whole set. One fault at a time:
//! `faults_source.rs`, `faults_target.rs`.

use airlock_testkit::binary::Binary;
use airlock_testkit::target::Target;
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Faults, Scale, Serving, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const SET: &str = "add-10-ai-stack";

#[test]
fn tokens_errors_and_cut_bodies_upstream_cost_no_image() {
    let faults = Faults { auth: true, fail: 5, truncate: 3, slow: 0.0 };
    let Some(upstream) = World::get(Scale::Small).and_then(|world| world.start(Serving::Scripted(faults))) else {
        return;
    };
    let Some(target) = Target::docker_registry() else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let workspace = format!("file://{}", binary.folder().join("workspace").display());
    let isc = upstream.isc(SET).display().to_string();
    let to = format!("docker://{}", target.address());
    let run =
        ["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", "--retry-delay", "50ms", &to];
    binary.run(run).expect_code(0);
    upstream.check(SET, target.address());
    let wanted = Wanted::of(upstream.world(), &upstream.expected(SET));
    let found = wanted.differences(&target.contents(), |digest| target.bytes(digest), "", true);
    assert_eq!(found, Vec::<String>::new());
}
