//! Proxies from the environment. The environment cannot be changed within a test, so the test runs itself again with another one.
#![allow(clippy::unwrap_used, reason = "a test fails by unwrapping")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

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

/// A SOCKS proxy (RFC 1928 and 1929; SOCKS4a) that leads everybody to one server; gives its address and what it was asked for.
fn socks(server: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (server, asked) = (server.to_owned(), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&asked);
    // Ends with the test's process.
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let said = if take(&mut client, 1)[0] == 5 { socks5(&mut client) } else { socks4(&mut client) };
            log.lock().unwrap().push(said);
            support::join(client, &server, usize::MAX);
        }
    });
    (address, asked)
}

fn take(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// A field that begins with its length.
fn counted(stream: &mut TcpStream) -> Vec<u8> {
    let length = take(stream, 1)[0];
    take(stream, length.into())
}

/// `USER:PASSWORD HOST:PORT`
fn socks5(client: &mut TcpStream) -> String {
    let methods = counted(client);
    let method = if methods.contains(&2) { 2 } else { 0 };
    client.write_all(&[5, method]).unwrap();
    let mut said = String::from("nobody");
    if method == 2 {
        assert_eq!(take(client, 1), [1]);
        let mut field = || String::from_utf8(counted(client)).unwrap();
        said = format!("{}:{}", field(), field());
        client.write_all(&[1, 0]).unwrap();
    }
    // Version, CONNECT, reserved, a name.
    assert_eq!(take(client, 4), [5, 1, 0, 3]);
    let host = String::from_utf8(counted(client)).unwrap();
    let port = u16::from_be_bytes(take(client, 2).try_into().unwrap());
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    format!("{said} {host}:{port}")
}

/// `HOST:PORT`
fn socks4(client: &mut TcpStream) -> String {
    assert_eq!(take(client, 1), [1]);
    let port = u16::from_be_bytes(take(client, 2).try_into().unwrap());
    assert_eq!(take(client, 3), [0, 0, 0], "a name follows");
    assert_ne!(take(client, 1), [0]);
    let mut text = || std::iter::from_fn(|| Some(take(client, 1)[0]).filter(|byte| *byte != 0)).collect();
    let _user: Vec<u8> = text();
    let host = String::from_utf8(text()).unwrap();
    client.write_all(&[0, 0x5a, 0, 0, 0, 0, 0, 0]).unwrap();
    format!("{host}:{port}")
}

#[test]
fn socks_proxies_get_the_name_and_who_asks() {
    let registry = Registry::start();
    let image = fixture::image(1).build();
    registry.put("app", &image, Some("v1"));
    let found = format!("found {}", image.digest());
    let (address, asked) = socks(&registry.address());
    for (scheme, said) in [
        (format!("socks5h://me:a%20word@{address}"), "me:a word registry.invalid:443"),
        (format!("socks5h://{address}"), "nobody registry.invalid:443"),
        (format!("socks4a://{address}"), "registry.invalid:443"),
    ] {
        asked.lock().unwrap().clear();
        let out = run("registry.invalid/app:v1", &[("ALL_PROXY", &scheme)]);
        assert!(out.contains(&found), "{scheme}: {out}");
        let asked = asked.lock().unwrap().clone();
        assert_eq!(asked[0], said, "{scheme}");
        assert!(asked.contains(&said.replace(":443", ":80")), "{scheme}: {asked:?}");
    }
}

#[test]
fn a_proxy_may_be_reached_by_tls() {
    let proxy = Registry::builder().tls().start();
    let image = fixture::image(1).build();
    proxy.put("app", &image, Some("v1"));
    let url = proxy.url();
    assert!(url.starts_with("https://"), "{url}");
    let out = run("registry.invalid/app:v1", &[("HTTP_PROXY", &url), ("HTTPS_PROXY", &url)]);
    assert!(out.contains(&format!("found {}", image.digest())), "{out}");
    assert!(proxy.count("CONNECT", "*") > 0, "TLS was tried first, through a tunnel");
    assert!(proxy.log().iter().any(|r| r.header("host") == Some("registry.invalid")));
}
