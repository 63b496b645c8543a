//! The promise: one command installs a registry that clients can use with what it printed; again it changes only what it was asked to; a
//! step that fails leaves nothing; certificates change under open connections; what is mirrored outlives all of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod installed;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use airlock_testkit::fixture;
use airlock_testkit::scripted::Registry;
use installed::{Site, tools, until};
use serde_json::Value;

/// The registry, started with the command that the installation printed.
struct Served(Child);

impl Served {
    fn start(site: &Site, printed: &Value) -> Self {
        let command = printed["command"].as_str().unwrap();
        // `exec`, so that what is ended is the registry and not the shell.
        let mut child = site.command("sh", &["-c", &format!("exec {command}")]);
        let child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let served = Self(child);
        until("the registry answers", || site.curl(&site.ca(), None, "/v2/") != 0);
        served
    }

    fn stop(mut self) {
        let id = self.0.id().to_string();
        std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const NONE: [&str; 4] = ["--service", "none", "-o", "json"];

#[test]
fn what_is_printed_is_all_that_clients_need() {
    if !tools(&["curl", "openssl", "skopeo", "python3"]) {
        return;
    }
    let site = Site::new();
    let ran = site.install(&NONE).expect(0);
    let printed = ran.json();
    assert!(ran.stderr.contains("it starts and answers"), "{}", ran.stderr);
    for (name, mode) in [
        ("htpasswd", 0o600),
        ("pull-secret.json", 0o600),
        ("tls/ca.key", 0o600),
        ("tls/tls.key", 0o600),
        ("tls/ca.crt", 0o644),
        ("registry.json", 0o644),
        ("storage", 0o750),
        ("bin/airlock", 0o755),
    ] {
        assert_eq!(site.mode(name), mode, "{name}");
    }
    let password = printed["password"].as_str().unwrap().to_owned();
    assert!(password.len() >= 8 && !password.contains(char::is_whitespace));
    for name in ["registry.json", "htpasswd", "cluster/registry-ca.yaml"] {
        let text = std::fs::read_to_string(site.root().join(name)).unwrap();
        assert!(!text.contains(&password), "the password is in {name}");
    }
    assert!(!printed["command"].as_str().unwrap().contains(&password));
    let served = Served::start(&site, &printed);
    let ca = Path::new(printed["ca"].as_str().unwrap()).to_owned();
    let login = format!("init:{password}");
    assert_eq!(site.curl(&ca, Some(&login), "/v2/"), 200);
    assert_eq!(site.curl(&ca, Some("init:wrong-password"), "/v2/"), 401);
    assert_eq!(site.curl(&ca, None, "/v2/"), 401);
    assert_eq!(site.curl(Path::new("/etc/ssl/certs/ca-certificates.crt"), Some(&login), "/v2/"), 0);
    site.fingerprint(&ca);
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 20_000]).build(), Some("1.0"));
    let digest = site.push_and_pull(&upstream.address());
    // The secret that skopeo used is the one that was printed, and the snippets are YAML that says what is in the files.
    let secret: Value =
        serde_json::from_str(&std::fs::read_to_string(site.root().join("pull-secret.json")).unwrap()).unwrap();
    assert_eq!(secret, printed["pullSecret"]);
    assert!(secret["auths"][site.host()]["auth"].is_string());
    if site.run("python3", &["-c", "import yaml"]).code == 0 {
        let script = "import sys, yaml\nfor f in sys.argv[1:]: yaml.safe_load(open(f))\n";
        let file = |name: &str| site.root().join("cluster").join(name).display().to_string();
        let files = ["registry-ca.yaml", "image-config.yaml", "install-config.yaml"].map(file);
        site.run("python3", &[&["-c", script][..], &files.each_ref().map(String::as_str)].concat()).expect(0);
    } else {
        airlock_testkit::tools::absent(
            "Python's module `yaml` is not installed, so that nobody else reads the snippets",
        );
    }
    let (map, pem) = (printed["configMap"].as_str().unwrap(), std::fs::read_to_string(&ca).unwrap());
    assert!(map.contains("kind: ConfigMap") && map.contains(&format!("  localhost..{}: |", site.port.number())));
    for line in pem.lines() {
        assert!(map.contains(line) && printed["installConfig"].as_str().unwrap().contains(line));
    }
    assert!(printed["imageConfig"].as_str().unwrap().contains("additionalTrustedCA"));
    // What people are printed has the same, and the last line that scripts of mirror-registry look for.
    let text = site.install(&["--service", "none"]).expect(0);
    assert!(text.stderr.contains("it is running; start it anew"), "{}", text.stderr);
    let last = format!("available at https://{} with credentials (init, {password})\n", site.host());
    assert!(text.stdout.ends_with(&last), "{}", text.stdout);
    let after = |title: &str| {
        let (_, rest) = text.stdout.split_once(title).unwrap();
        rest.split_once('\n').unwrap().1.split("\n\n").next().unwrap().to_owned()
    };
    assert_eq!(serde_json::from_str::<Value>(&after("# pull secret")).unwrap(), secret);
    assert_eq!(after("# CA for a cluster"), map.trim_end());
    // After a restart everything is there, under the same certificate.
    let before = site.fingerprint(&ca);
    served.stop();
    let _served = Served::start(&site, &printed);
    assert_eq!((site.fingerprint(&ca), site.digest()), (before, digest));
    // Users need no path.
    let users = site.airlock(&["registry", "user", "list", "-o", "json"]).expect(0).json();
    assert_eq!(users["users"], serde_json::json!(["init"]));
    let status = site.airlock(&["registry", "status", "-o", "json"]).expect(0).json();
    assert_eq!((&status["healthy"], &status["certificate"]["own"]), (&Value::Bool(true), &Value::Bool(true)));
}

#[test]
fn again_is_no_error_and_changes_only_what_is_asked_for() {
    let site = Site::new();
    let files = || {
        let read = |name: &str| std::fs::read(site.root().join(name)).unwrap();
        ["tls/ca.crt", "tls/tls.crt", "tls/tls.key", "htpasswd", "pull-secret.json", "registry.json"].map(read)
    };
    let first = site.install(&NONE).expect(0).json();
    let before = files();
    let second = site.install(&NONE).expect(0).json();
    assert_eq!((&first, before), (&second, files()));
    // Without a root: it is remembered. A password that is given counts; a name too, and the certificate follows.
    let given = ["registry", "install", "--init-password-stdin", "--also-for", "10.9.8.7", "-o", "json"];
    let ran = site.airlock_with("a-password-of-mine\n", &given).expect(0);
    let third = ran.json();
    assert!(ran.stderr.contains("`init` has the password that was given now"), "{}", ran.stderr);
    assert_eq!(third["password"], "a-password-of-mine");
    let status = site.airlock(&["registry", "status", "-o", "json"]).expect(1).json();
    assert!(status["certificate"]["names"].as_array().unwrap().contains(&"10.9.8.7".into()), "{status}");
    assert!(status["problems"][0].as_str().unwrap().contains("cannot reach the registry"), "{status}");
    assert_eq!(first["ca"], third["ca"]);
    // Under another name the same password is in the pull secret.
    let moved = site.airlock(&["registry", "install", "--hostname", "mirror.invalid", "-o", "json"]).expect(0);
    assert!(moved.stderr.contains("cannot be resolved"), "{}", moved.stderr);
    let moved = moved.json();
    assert_eq!(moved["url"], format!("https://mirror.invalid:{}", site.port.number()));
    assert_eq!(moved["password"], "a-password-of-mine");
}

/// A connection over TLS that stays open: openssl, fed and read by hand.
struct Held {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Held {
    fn open(site: &Site) -> Self {
        let address = format!("127.0.0.1:{}", site.port.number());
        let ca = site.ca().display().to_string();
        let arguments = ["s_client", "-quiet", "-connect", &address, "-CAfile", &ca, "-alpn", "http/1.1"];
        let mut command = site.command("openssl", &arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    /// Asks over it; the status.
    fn ask(&mut self) -> String {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert!(self.out.read_line(&mut line).unwrap() > 0, "the connection was closed");
            if line.trim().is_empty() {
                break;
            }
            lines.push(line);
        }
        let length = lines
            .iter()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        self.out.read_exact(&mut vec![0; length.unwrap()]).unwrap();
        lines.remove(0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A CA and a certificate from it for a name, made by openssl.
fn foreign(site: &Site, folder: &str, name: &str) {
    let folder = site.at(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "set -e; cd '{}'; \
         openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 30 -subj '/CN=Corporate CA' 2>/dev/null; \
         openssl req -newkey rsa:2048 -nodes -keyout tls.key -out tls.csr -subj '/CN={name}' 2>/dev/null; \
         printf 'subjectAltName=DNS:{name}\\n' >ext; \
         openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 20 -extfile ext -out tls.crt 2>/dev/null",
        folder.display()
    );
    site.run("sh", &["-c", &script]).expect(0);
}

#[test]
fn certificates_change_under_open_connections() {
    if !tools(&["curl", "openssl"]) {
        return;
    }
    let site = Site::new();
    let printed = site.install(&NONE).expect(0).json();
    let _served = Served::start(&site, &printed);
    let mut held = Held::open(&site);
    assert!(held.ask().contains("401"));
    let first = site.fingerprint(&site.ca());
    let ran = site.airlock(&["registry", "cert", "renew"]).expect(0);
    assert!(ran.stderr.contains("new connections get it, open ones go on"), "{}", ran.stderr);
    let second = site.fingerprint(&site.ca());
    assert_ne!(first, second);
    assert!(held.ask().contains("401"), "the connection goes on");
    // One from elsewhere, and back. What is not right is refused before anything changes.
    foreign(&site, "corporate", "localhost");
    foreign(&site, "other", "proxy.example.com");
    let set = |folder: &str, more: &[&str]| {
        let (certificate, key) = (site.at(folder).join("tls.crt"), site.at(folder).join("tls.key"));
        let usual =
            ["registry", "cert", "set", "--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
        site.airlock(&[&usual[..], more].concat())
    };
    let wrong = set("other", &[]).expect(2);
    assert!(wrong.stderr.contains("it is not for `localhost` but for proxy.example.com"), "{}", wrong.stderr);
    let (certificate, key) = (site.at("corporate/tls.crt"), site.at("other/tls.key"));
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let wrong = site.airlock(&[&["registry", "cert", "set"][..], &pair].concat()).expect(2);
    assert!(wrong.stderr.contains("the key must belong to the first certificate"), "{}", wrong.stderr);
    assert_eq!(site.fingerprint(&site.ca()), second);
    let ca = site.at("corporate/ca.crt");
    set("corporate", &["--ca", ca.to_str().unwrap()]).expect(0);
    assert_ne!(site.fingerprint(&ca), second);
    assert_eq!(site.curl(&site.ca(), None, "/v2/"), 0, "our CA is no longer the right one");
    let line = std::fs::read_to_string(&ca).unwrap().lines().nth(1).unwrap().to_owned();
    let map = std::fs::read_to_string(site.root().join("cluster/registry-ca.yaml")).unwrap();
    assert!(map.contains(&line), "clusters are told of the new CA");
    assert!(held.ask().contains("401"), "the first connection still goes on");
    let refused = site.airlock(&["registry", "cert", "renew"]).expect(9);
    assert!(refused.stderr.contains("cert renew --own"), "{}", refused.stderr);
    let status = site.airlock(&["registry", "status", "-o", "json"]).expect(0).json();
    assert_eq!(status["certificate"]["own"], false);
    assert!(status["warnings"][0].as_str().unwrap().contains("the certificate ends on"), "{status}");
    site.airlock(&["registry", "cert", "renew", "--own"]).expect(0);
    site.fingerprint(&site.ca());
    let proxied = set("other", &["--check-skip"]).expect(0);
    assert!(proxied.stderr.contains("--ca FILE"), "{}", proxied.stderr);
    assert!(held.ask().contains("401"));
    for key in ["tls/tls.key", "tls/given.pem", "tls/ca.key"] {
        assert_eq!(site.mode(key), 0o600, "{key}");
    }
}

/// `registry status` by somebody who may read no key.
fn asked_by_a_stranger(site: &Site) -> installed::Ran {
    let (root, program) = (site.root().display().to_string(), site.root().join("bin/airlock").display().to_string());
    let status = ["registry", "status", "--root", &root, "-o", "json"];
    if std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0 {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", &program];
        return site.run("setpriv", &[&nobody[..], &status].concat());
    }
    // Not root, one is as good as a stranger to a file that nobody may read.
    for name in ["tls/tls.key", "tls/ca.key", "tls/given.pem", "pull-secret.json"] {
        let hidden = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        let _ = std::fs::set_permissions(site.root().join(name), hidden);
    }
    site.run(&program, &status)
}

#[test]
fn anybody_may_ask_how_it_is() {
    if !tools(&["curl", "openssl", "setpriv"]) {
        return;
    }
    let mut site = Site::new();
    // Whatever the mask of who installs it.
    site.before = ["sh", "-c", "umask 077; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let printed = site.install(&NONE).expect(0).json();
    site.before.clear();
    let _served = Served::start(&site, &printed);
    foreign(&site, "corporate", "localhost");
    let (certificate, key) = (site.at("corporate/tls.crt"), site.at("corporate/tls.key"));
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    for own in [true, false] {
        if !own {
            site.airlock(&[&["registry", "cert", "set"][..], &pair].concat()).expect(0);
        }
        let status = asked_by_a_stranger(&site).expect(0).json();
        assert_eq!((&status["healthy"], &status["certificate"]["own"]), (&true.into(), &own.into()), "{status}");
    }
}

#[test]
fn the_flags_of_mirror_registry_are_understood() {
    if !tools(&["curl", "openssl"]) {
        return;
    }
    let site = Site::new();
    foreign(&site, "corporate", "quay.example.com");
    let path = |name: &str| site.at(name).display().to_string();
    let (root, storage) = (path("quay-install"), path("quay-storage"));
    let (certificate, key, ca) = (path("corporate/tls.crt"), path("corporate/tls.key"), path("corporate/ca.crt"));
    let host = format!("quay.example.com:{}", site.port.number());
    let listen = format!("127.0.0.1:{}", site.port.number());
    let install = [
        "registry",
        "install",
        "--quayHostname",
        &host,
        "--quayRoot",
        &root,
        "--quayStorage",
        &storage,
        "--sslCert",
        &certificate,
        "--sslKey",
        &key,
        "--ssl-ca",
        &ca,
        "--initUser",
        "admin",
        "--initPassword",
        "secret-enough",
        "--targetHostname",
        "localhost",
        "--targetUsername",
        "core",
        "--ssh-key",
        "/nowhere",
        "--sqliteStorage",
        "x",
        "--image-archive",
        "y",
        "--no-color",
        "-v",
        "--listen",
        &listen,
        "--service",
        "none",
    ];
    let ran = site.airlock(&install).expect(0);
    assert!(
        ran.stdout.ends_with(&format!("https://{host} with credentials (admin, secret-enough)\n")),
        "{}",
        ran.stdout
    );
    for word in ["--sqliteStorage is not needed", "seen by everybody", "cannot be resolved"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert!(Path::new(&storage).join("docker").is_dir() && !Path::new(&root).join("storage").exists());
    // What was given at the installation may be repeated, and nothing else.
    let upgrade = ["registry", "upgrade", "--quayHostname", &host, "--quayRoot", &root, "--quayStorage", &storage];
    site.airlock(&upgrade).expect(0);
    let again = ["--sslCert", &certificate, "--sslKey", &key, "--sslCheckSkip"];
    let ran = site.airlock(&[&upgrade[..], &again].concat()).expect(0);
    assert!(!ran.stderr.contains("warning: its CA"), "what is served already stays as it is: {}", ran.stderr);
    let absent = ["--sslCert", "/nowhere/tls.crt", "--sslKey", "/nowhere/tls.key"];
    site.airlock(&[&upgrade[..], &absent].concat()).expect(1);
    let other = site.airlock(&["registry", "upgrade", "--quayHostname", "other.example.com"]).expect(2);
    assert!(other.stderr.contains("was installed with `quay.example.com:"), "{}", other.stderr);
    // A certificate for another name.
    let more = ["--sslCert", &certificate, "--sslKey", &key, "--service", "none"];
    let second = Site::new();
    let refused = second.install(&more).expect(2);
    assert!(refused.stderr.contains("--ssl-check-skip"), "{}", refused.stderr);
    assert!(!second.root().exists());
    second.install(&[&more[..], &["--sslCheckSkip"]].concat()).expect(0);
    second.install(&["--sslCert", &certificate]).expect(2);
    site.airlock(&["registry", "uninstall", "--yes", "--quayRoot", &root, "--quayStorage", "/elsewhere"]).expect(2);
    // Nobody is there to be asked.
    let asked = site.airlock(&["registry", "uninstall", "-v", "--quayRoot", &root]).expect(9);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    site.airlock(&["registry", "uninstall", "-v", "--quayRoot", &root, "--autoApprove"]).expect(0);
    assert!(Path::new(&storage).join("docker").is_dir() && !Path::new(&root).join("bin/airlock").exists());
    site.airlock(&["registry", "status"]).expect(1);
}

#[test]
fn a_step_that_fails_leaves_nothing() {
    let site = Site::new();
    // What can be seen beforehand: the port, the names, the files.
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.port.number())).unwrap();
    let ran = site.install(&NONE).expect(1);
    assert!(ran.stderr.contains(&format!("cannot listen on {}", taken.local_addr().unwrap())), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: another program has this port"), "{}", ran.stderr);
    drop(taken);
    for (flags, word) in [
        (["--also-for", "a_b"], "letters, digits and hyphens"),
        (["--rights", "/nowhere"], "/nowhere"),
        (["--init-password", "short"], "fewer than eight"),
        (["--service-user", "somebody"], "machine's systemd"),
    ] {
        let ran = site.install(&[&NONE[..], &flags].concat());
        assert!(ran.code != 0 && ran.stderr.contains(word), "{flags:?}: {ran:?}");
    }
    assert!(!site.root().exists());
    // What shows only when it is started: a second port is taken.
    let health = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = health.local_addr().unwrap().to_string();
    let flags = [&NONE[..], &["--metrics", &metrics]].concat();
    let ran = site.install(&flags).expect(1);
    assert!(
        ran.stderr.contains("for health and metrics") && ran.stderr.contains("nothing was left behind"),
        "{}",
        ran.stderr
    );
    assert!(!site.root().exists());
    drop(health);
    let first = site.install(&flags).expect(0).json();
    // The same in a registry that is there: it is as it was.
    let before = std::fs::read(site.root().join("registry.json")).unwrap();
    let health = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = health.local_addr().unwrap().to_string();
    let ran = site.install(&[&NONE[..], &["--metrics", &metrics, "--also-for", "more.example"]].concat()).expect(1);
    assert!(ran.stderr.contains("everything is as it was before"), "{}", ran.stderr);
    assert_eq!(std::fs::read(site.root().join("registry.json")).unwrap(), before);
    assert_eq!(site.airlock(&["registry", "install", "-o", "json"]).expect(0).json(), first);
    // A dry run changes nothing either.
    let other = Site::new();
    let dry = other.install(&["--service", "none", "--dry-run"]).expect(0);
    assert!(dry.stdout.starts_with(&format!("would install https://{}", other.host())), "{}", dry.stdout);
    assert!(!other.root().exists());
}

#[test]
fn what_is_mirrored_outlives_the_installation() {
    if !tools(&["curl", "skopeo"]) {
        return;
    }
    let site = Site::new();
    let printed = site.install(&NONE).expect(0).json();
    let served = Served::start(&site, &printed);
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 20_000]).build(), Some("1.0"));
    let digest = site.push_and_pull(&upstream.address());
    let refused = site.airlock(&["registry", "uninstall", "--yes"]).expect(9);
    assert!(refused.stderr.contains("is being served by a process"), "{}", refused.stderr);
    served.stop();
    let gone = site.airlock(&["registry", "uninstall", "--yes"]).expect(0);
    assert!(gone.stderr.contains("kept: what is mirrored"), "{}", gone.stderr);
    let again = site.install(&NONE).expect(0).json();
    assert_eq!(again, printed);
    let served = Served::start(&site, &again);
    assert_eq!(site.digest(), digest);
    served.stop();
    // Storage is not left behind by a changed flag.
    let elsewhere = site.at("elsewhere").display().to_string();
    let refused = site.install(&[&NONE[..], &["--storage", &elsewhere]].concat()).expect(9);
    assert!(refused.stderr.contains("would not be served any more"), "{}", refused.stderr);
    std::fs::write(site.root().join("notes.txt"), "mine").unwrap();
    let deleted = site.airlock(&["registry", "uninstall", "--yes", "--delete-data"]).expect(0);
    assert!(deleted.stderr.contains("has files that are not the registry's"), "{}", deleted.stderr);
    let left: Vec<_> = std::fs::read_dir(site.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes.txt"]);
}

#[test]
fn an_address_is_taken_with_a_warning() {
    let site = Site::new();
    let host = format!("127.0.0.1:{}", site.port.number());
    let root = site.root().display().to_string();
    let ran = site.airlock(&[
        "registry",
        "install",
        "--hostname",
        &host,
        "--root",
        &root,
        "--listen",
        &host,
        "--service",
        "none",
    ]);
    let ran = ran.expect(0);
    assert!(ran.stderr.contains("`127.0.0.1` is an address: OpenShift wants a name"), "{}", ran.stderr);
    assert!(ran.stdout.contains(&format!("  127.0.0.1..{}: |", site.port.number())), "{}", ran.stdout);
}

/// Stands for the other machine: a home of its own, everything that ssh was asked for in a log.
const FAKE_SSH: &str = "#!/bin/sh
printf '%s\\n' \"$*\" >>\"$FAKE_LOG\"
while [ $# -gt 2 ]; do shift; done
[ \"$1\" = unreachable.example ] && exit 255
case \"$1 $2\" in slow.example*'cat > '*) touch \"$FAKE_HOME/slow\"; exec sleep 600;; esac
shift
HOME=\"$FAKE_HOME\" exec sh -c \"$*\"
";

#[test]
fn another_machine_is_reached_with_ssh() {
    let site = Site::new();
    let (home, log) = (site.at("there"), site.at("ssh.log"));
    std::fs::create_dir(&home).unwrap();
    let header = format!("#!/bin/sh\nFAKE_HOME='{}' FAKE_LOG='{}'\n", home.display(), log.display());
    site.program("ssh", &FAKE_SSH.replacen("#!/bin/sh\n", &header, 1));
    let (root, listen) =
        (home.join("mirror registry").display().to_string(), format!("127.0.0.1:{}", site.port.number()));
    let key = site.at("key");
    std::fs::write(&key, "").unwrap();
    let target = ["--targetHostname", "bastion.example", "-u", "core", "-k", key.to_str().unwrap(), "--root", &root];
    foreign(&site, "corporate", "bastion.example");
    let (certificate, tls_key) = (site.at("corporate/tls.crt"), site.at("corporate/tls.key"));
    let ssl = ["--ssl-cert", certificate.to_str().unwrap(), "--ssl-key", tls_key.to_str().unwrap()];
    let own = ["registry", "install", "--service", "none", "--listen", &listen, "--init-password-stdin", "-o", "json"];
    let ran =
        site.airlock_with("quite a secret".replace(' ', "-").as_str(), &[&own[..], &target, &ssl].concat()).expect(0);
    let printed = ran.json();
    assert_eq!(printed["url"], format!("https://bastion.example:{}", site.port.number()));
    assert_eq!(printed["password"], "quite-a-secret");
    assert_eq!(printed["root"], root.as_str());
    let asked = std::fs::read_to_string(&log).unwrap();
    assert!(
        asked.contains("-l core bastion.example uname -sm") && asked.contains("-i ") && !asked.contains("quite-a"),
        "{asked}"
    );
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(&home).unwrap();
        entries
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .filter(|n| n.contains("airlock"))
            .collect()
    };
    assert_eq!(left(), Vec::<String>::new(), "what was copied is gone");
    // The same machine by another name, or its address: the registry keeps its own.
    let other_name = ["registry", "install", "-H", "192.0.2.7", "--root", &root, "-o", "json"];
    let again = site.airlock(&other_name).expect(0).json();
    assert_eq!((&again["url"], &again["password"]), (&printed["url"], &printed["password"]));
    // Stopped in the middle, it takes away what it has brought.
    let mut child = site.command(installed::AIRLOCK, &["registry", "install", "-H", "slow.example"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("something is copied", || home.join("slow").exists());
    assert_eq!(left().len(), 1);
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let code = child.wait().unwrap().code();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((code, left()), (Some(130), Vec::new()), "{said}");
    assert!(said.contains("it was stopped"), "{said}");
    // A failure there is a failure here, with its words, and leaves nothing either.
    let taken = std::net::TcpListener::bind(("127.0.0.1", site.port.number())).unwrap();
    let ran = site.airlock(&[&["registry", "upgrade"][..], &target].concat()).expect(1);
    assert!(ran.stderr.contains("it ended at once") && ran.stderr.contains("is back"), "{}", ran.stderr);
    drop(taken);
    site.airlock(&[&["registry", "upgrade"][..], &target].concat()).expect(0);
    site.airlock(&[&["registry", "uninstall"][..], &target].concat()).expect(9);
    site.airlock(&[&["registry", "uninstall", "--yes", "--delete-data"][..], &target].concat()).expect(0);
    assert!(!Path::new(&root).exists() && left().is_empty());
    let ran = site.airlock(&["registry", "install", "-H", "unreachable.example"]).expect(7);
    assert!(ran.stderr.contains("ssh does not get there"), "{}", ran.stderr);
}
