//! The promise: an upstream that stumbles costs no image, and a target that will not take anything is named, with the exit code that
//! scripts go by, before it holds half of something.

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::contents::Contents;
use airlock_testkit::target::{Access, Program, Target};
use airlock_testkit::wanted::Wanted;
use airlock_testkit::world::{Faults, Scale, Serving, Upstream, World};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const SET: &str = "add-10-ai-stack";
const NOT_AUTHORISED: i32 = 5;

fn upstream(faults: Faults) -> Option<Upstream> {
    World::get(Scale::Small)?.start(Serving::Scripted(faults))
}

fn mirror(upstream: &Upstream, set: &str, target: &Target, more: &[&str]) -> Outcome {
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let workspace = format!("file://{}", binary.folder().join("workspace").display());
    let isc = upstream.isc(set).display().to_string();
    let to = format!("docker://{}", target.address());
    let fixed = ["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to];
    binary.run(fixed.iter().chain(more))
}

#[test]
fn tokens_errors_and_cut_bodies_upstream_cost_no_image() {
    let faults = Faults { auth: true, fail: 5, truncate: 3, slow: 0.0 };
    let (Some(upstream), Some(target)) = (upstream(faults), Target::docker_registry()) else { return };
    mirror(&upstream, SET, &target, &["--retry-delay", "50ms"]).expect_code(0);
    upstream.check(SET, target.address());
    let wanted = Wanted::of(upstream.world(), &upstream.expected(SET));
    let found = wanted.differences(&target.contents(), |digest| target.bytes(digest), "", true);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_target_that_wants_a_password_is_named_with_what_to_do() {
    let access = Access { user: Some(("keeper".into(), "secret".into())), tls: false };
    let (Some(upstream), Some(target)) = (upstream(Faults::default()), Target::start(Program::DockerRegistry2, access))
    else {
        return;
    };
    for more in [&[][..], &["--dest-creds", "keeper:n0tIt"]] {
        let outcome = mirror(&upstream, "add-01-tags", &target, more).expect_code(NOT_AUTHORISED);
        assert!(outcome.stderr.contains(target.address()), "the registry is not named:\n{}", outcome.stderr);
        let helps = if more.is_empty() { "login" } else { "credentials given on the command line" };
        assert!(outcome.stderr.contains(helps), "what helps is not said:\n{}", outcome.stderr);
        assert!(!(outcome.stdout + &outcome.stderr).contains("n0tIt"), "a password was printed");
        assert_eq!(target.contents(), Contents::default());
    }
    mirror(&upstream, "add-01-tags", &target, &["--dest-creds", "keeper:secret"]).expect_code(0);
}

#[test]
fn a_target_that_is_read_only_is_named() {
    let (Some(upstream), Some(target)) = (upstream(Faults::default()), World::get(Scale::Small)) else { return };
    // The world's own upstream takes nothing.
    let Some(closed) = target.start(Serving::DockerRegistry) else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let workspace = format!("file://{}", binary.folder().join("workspace").display());
    let isc = upstream.isc("add-01-tags").display().to_string();
    let to = format!("docker://{}/new", closed.address());
    let outcome = binary.run(["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", &to]);
    assert!(outcome.code.is_some_and(|code| code != 0 && code != 3), "code {:?}\n{}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.contains(&closed.address()), "the registry is not named:\n{}", outcome.stderr);
    assert!(outcome.stderr.contains("405") || outcome.stderr.contains("read-only"), "no reason:\n{}", outcome.stderr);
}

#[test]
fn an_unreachable_target_is_a_network_failure() {
    let Some(upstream) = upstream(Faults::default()) else { return };
    let port = airlock_testkit::process::Port::claim();
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let workspace = format!("file://{}", binary.folder().join("workspace").display());
    let isc = upstream.isc("add-01-tags").display().to_string();
    let to = format!("docker://{}", port.address());
    let fixed =
        ["mirror", "-c", &isc, "--workspace", &workspace, "--dest-tls-verify=false", "--retry-delay", "10ms", &to];
    let outcome = binary.run(fixed).expect_code(7);
    assert!(outcome.stderr.contains(&port.address().to_string()), "the registry is not named:\n{}", outcome.stderr);
}
