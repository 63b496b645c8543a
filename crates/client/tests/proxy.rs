//! Proxies from the environment. The environment cannot be changed within a test, so the test runs itself again with another one.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::process::Command;

use airlock_client::{Client, Options, RegistrySource};
use airlock_oci::Source;
use airlock_testkit::fixture;
use airlock_testkit::scripted::Registry;

const NAME: &str = "TEST_PROXY_NAME";

/// Not a test by itself: what runs with a proxy in the environment.
#[tokio::test]
#[ignore = "run by the other test with another environment"]
async fn child() {
    let Ok(name) = std::env::var(NAME) else { return };
    let options = Options { retry_times: 0, ..support::options() };
    let source = RegistrySource::new(Client::new(options).unwrap());
    match source.manifest(&name.parse().unwrap()).await {
        Ok(found) => println!("\nfound {}", found.value.digest()),
        Err(error) => println!("\nfailed {error}"),
    }
}

fn run(name: &str, env: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "child", "--nocapture"]).env(NAME, name);
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    for (variable, value) in env {
        command.env(variable, value);
    }
    String::from_utf8_lossy(&command.output().unwrap().stdout).into_owned()
}

#[test]
fn a_proxy_is_used_except_for_this_machine_and_what_no_proxy_names() {
    let proxy = Registry::start();
    let image = fixture::image(1).build();
    proxy.put("app", &image, Some("v1"));
    let url = proxy.url();
    let found = format!("found {}", image.digest());
    // The name cannot be looked up: only a proxy gets there.
    let all = [("HTTP_PROXY", url.as_str()), ("HTTPS_PROXY", url.as_str())];
    let out = run("registry.invalid/app:v1", &all);
    assert!(out.contains(&found), "{out}");
    assert!(proxy.count("CONNECT", "*") > 0, "TLS was tried first, through a tunnel");
    assert!(proxy.log().iter().any(|r| r.header("host") == Some("registry.invalid")));

    proxy.clear_log();
    let out = run("registry.invalid/app:v1", &[all[0], all[1], ("NO_PROXY", ".invalid")]);
    assert!(out.contains("failed"), "{out}");
    assert!(proxy.log().is_empty());

    // A proxy that is not there shows that nobody asked it.
    let name = proxy.reference("app:v1").to_string();
    let out = run(&name, &[("HTTP_PROXY", "http://127.0.0.1:1"), ("HTTPS_PROXY", "http://127.0.0.1:1")]);
    assert!(out.contains(&found), "{out}");
}
