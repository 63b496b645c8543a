//! The promise: systemd keeps an installed registry running, an upgrade that does not work is taken back, and nothing of it is left when
//! it is uninstalled.
//!
//! The user's systemd is a real one, in a mount namespace of its own. The machine's is played by a script, since a real one would
//! take over the machine; what it is given is judged by `systemd-analyze`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod installed;

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use airlock_testkit::fixture;
use airlock_testkit::scripted::Registry;
use airlock_testkit::tools as kit;
use installed::{AIRLOCK, Ran, Site, tools, until};

/// A process that holds namespaces; everything in them ends with it.
struct Namespace(Child);

impl Namespace {
    /// Runs a script in a mount namespace of its own until it says that it is ready. `None` where that may not be had.
    fn of(site: &mut Site, script: &str) -> Option<Self> {
        if !site.run("unshare", &["-m", "true"]).stderr.is_empty() {
            kit::skipped("a mount namespace needs root");
            return None;
        }
        let ready = site.at("ready");
        let script = format!("set -e\n{script}\ntouch '{}'\nexec sleep 600\n", ready.display());
        let log = std::fs::File::create(site.at("namespace.log")).unwrap();
        let mut command = site.command("unshare", &["-m", "--propagation", "private", "sh", "-c", &script]);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let namespace = Self(child);
        until("the namespace is ready", || ready.exists());
        site.before = ["nsenter", "-t", &namespace.0.id().to_string(), "-m", "--"].map(str::to_owned).to_vec();
        Some(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A user's systemd, in a namespace in which the machine seems to run systemd.
struct UserSystemd {
    site: Site,
    _namespace: Namespace,
    _turn: MutexGuard<'static, ()>,
}

/// One at a time: two of them keep units of one name in one control group, and the one's end of a unit would end the other's.
static TURN: Mutex<()> = Mutex::new(());

impl UserSystemd {
    /// What the machine's manager makes at boot for hiding files behind.
    const INACCESSIBLE: &str = "mkdir -p /run/systemd/inaccessible/dir\ncd /run/systemd/inaccessible\ntouch reg\nmkfifo fifo sock\n\
                                mknod chr c 0 0\nmknod blk b 0 0\nchmod 0 *\ncd /\n";

    fn start() -> Option<Self> {
        if !tools(&["systemctl", "curl", "skopeo", "openssl"]) || !Path::new("/lib/systemd/systemd").exists() {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut site = Site::new();
        let units = site.at("home/.config/systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        // Nothing of the machine is touched: no start-up services but a target of our own, and no cleaning of temporary files.
        std::fs::write(units.join("test.target"), "[Unit]\nDefaultDependencies=no\n").unwrap();
        std::os::unix::fs::symlink("/dev/null", units.join("systemd-tmpfiles-setup.service")).unwrap();
        std::os::unix::fs::symlink("/dev/null", units.join("systemd-tmpfiles-clean.timer")).unwrap();
        let script = format!(
            "mount -t tmpfs none /run/systemd\nmkdir -p /run/systemd/system\n{}\
             /lib/systemd/systemd --user --unit=test.target >'{}' 2>&1 &\n\
             for i in $(seq 300); do systemctl --user show-environment >/dev/null 2>&1 && break; sleep 0.1; done\n\
             systemctl --user show-environment >/dev/null",
            Self::INACCESSIBLE,
            site.at("systemd.log").display()
        );
        let namespace = Namespace::of(&mut site, &script)?;
        Some(Self { site, _namespace: namespace, _turn: turn })
    }

    fn systemctl(&self, arguments: &[&str]) -> Ran {
        self.site.run("systemctl", &[&["--user"][..], arguments].concat())
    }

    fn pid(&self) -> String {
        self.systemctl(&["show", "airlock-registry.service", "-p", "MainPID", "--value"]).stdout.trim().to_owned()
    }
}

impl Drop for UserSystemd {
    fn drop(&mut self) {
        // The manager ends what it started, then itself.
        self.systemctl(&["stop", "airlock-registry.service"]);
        self.systemctl(&["exit"]);
        until("the user's systemd has ended", || self.systemctl(&["show-environment"]).code != 0);
    }
}

const USER: [&str; 4] = ["--service", "user", "-o", "json"];

#[test]
fn the_users_systemd_keeps_it_running_and_an_upgrade_falls_back() {
    let Some(systemd) = UserSystemd::start() else { return };
    let site = &systemd.site;
    let printed = site.install(&USER).expect(0).json();
    assert_eq!(printed["unit"], "airlock-registry.service");
    let unit = site.at("home/.config/systemd/user/airlock-registry.service");
    assert!(!std::fs::read_to_string(&unit).unwrap().contains(printed["password"].as_str().unwrap()));
    let login = format!("init:{}", printed["password"].as_str().unwrap());
    assert_eq!(site.curl(&site.ca(), Some(&login), "/v2/"), 200);
    assert_eq!(systemd.systemctl(&["is-enabled", "airlock-registry"]).stdout.trim(), "enabled");
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 20_000]).build(), Some("1.0"));
    let digest = site.push_and_pull(&upstream.address());
    let certificate = site.fingerprint(&site.ca());
    // It is killed, and comes back.
    let pid = systemd.pid();
    site.run("kill", &["-9", &pid]).expect(0);
    until("systemd starts it again", || systemd.pid() != pid && site.curl(&site.ca(), Some(&login), "/v2/") == 200);
    let status = site.airlock(&["registry", "status", "-o", "json"]).expect(0).json();
    assert_eq!((&status["service"]["restarts"], &status["healthy"]), (&1.into(), &true.into()), "{status}");
    assert_eq!((site.fingerprint(&site.ca()), site.digest()), (certificate.clone(), digest.clone()));
    // Nothing changed: it is started anew and everything is the same.
    assert_eq!(site.install(&USER).expect(0).json(), printed);
    // A program that says its version but does not serve; one that says nothing; one that works.
    let script = |body: &str| {
        site.program(
            "next",
            &format!("#!/bin/sh\ncase \"$1\" in version) echo '{{\"version\": \"9.9.9\"}}';; *) {body};; esac\n"),
        );
        site.at("bin/next").display().to_string()
    };
    let broken = script("echo it is broken >&2; exit 3");
    let ran = site.airlock(&["registry", "upgrade", "--program", &broken]).expect(1);
    assert!(ran.stderr.contains("ends as soon as it is started (exit code 3)"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the program that was there (0.1.0) is back and works"), "{}", ran.stderr);
    assert_eq!((site.curl(&site.ca(), Some(&login), "/v2/"), site.digest()), (200, digest.clone()));
    let mute = site.airlock(&["registry", "upgrade", "--program", "/bin/true"]).expect(2);
    assert!(mute.stderr.contains("it gives none"), "{}", mute.stderr);
    let works = script(&format!("exec '{AIRLOCK}' \"$@\""));
    let ran = site.airlock(&["registry", "upgrade", "--program", &works]).expect(0);
    assert!(ran.stderr.contains("(0.1.0 -> 9.9.9) and works"), "{}", ran.stderr);
    let before = site.root().join("previous/htpasswd");
    assert_eq!(std::fs::read(before).unwrap(), std::fs::read(site.root().join("htpasswd")).unwrap());
    assert_eq!((site.fingerprint(&site.ca()), site.digest()), (certificate.clone(), digest.clone()));
    site.airlock(&["registry", "upgrade"]).expect(0);
    let status = site.airlock(&["registry", "status", "-o", "json"]).expect(0).json();
    assert_eq!(status["version"], "0.1.0");
    // A start that fails takes everything back, in a registry that is there and in one that is not.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = taken.local_addr().unwrap().to_string();
    let ran = site.install(&[&USER[..], &["--metrics", &metrics]].concat()).expect(1);
    assert!(ran.stderr.contains("everything is as it was before"), "{}", ran.stderr);
    assert_eq!((site.curl(&site.ca(), Some(&login), "/v2/"), site.digest()), (200, digest.clone()));
    // Stopped, it says so.
    systemd.systemctl(&["stop", "airlock-registry"]).expect(0);
    let status = site.airlock(&["registry", "status"]).expect(1);
    assert!(status.stderr.contains("is not running (inactive, dead)"), "{}", status.stderr);
    // It goes, and comes back as it was.
    site.airlock(&["registry", "uninstall", "--yes"]).expect(0);
    assert!(!unit.exists() && site.curl(&site.ca(), None, "/v2/") == 0);
    let ran = site.install(&[&USER[..], &["--metrics", &metrics]].concat()).expect(1);
    assert!(ran.stderr.contains("nothing was left behind"), "{}", ran.stderr);
    assert!(!unit.exists() && site.root().join("storage/docker").is_dir());
    assert_eq!(site.install(&USER).expect(0).json(), printed);
    assert_eq!((site.fingerprint(&site.ca()), site.digest()), (certificate, digest));
    site.airlock(&["registry", "uninstall", "--yes", "--delete-data"]).expect(0);
    assert!(!unit.exists() && !site.root().exists());
}

#[test]
fn the_machines_unit_works_behind_its_walls() {
    let Some(systemd) = UserSystemd::start() else { return };
    let site = &systemd.site;
    // Neither below /tmp nor in a home, which the unit hides or shows as they are: as /var/lib would be.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = folder.path().join("registry").display().to_string();
    let (host, listen) = (site.host(), format!("127.0.0.1:{}", site.port.number()));
    let install = ["registry", "install", "--root", &root, "--hostname", &host, "--listen", &listen, "--service"];
    site.airlock(&[&install[..], &["none"]].concat()).expect(0);
    site.program("systemctl-that-agrees", "#!/bin/sh\nexit 0\n");
    let agreeing = site.at("agreeing");
    std::fs::create_dir(&agreeing).unwrap();
    std::os::unix::fs::symlink(site.at("bin/systemctl-that-agrees"), agreeing.join("systemctl")).unwrap();
    let path = format!("PATH={}:{}", agreeing.display(), std::env::var("PATH").unwrap());
    let dry = site.run("env", &[&[path.as_str(), AIRLOCK][..], &install, &["system", "--dry-run"]].concat()).expect(0);
    let (_, unit) = dry.stdout.split_once("\n\n").unwrap();
    // The user's systemd of root can do all that the machine's can but change to another user.
    let unit: String = unit
        .replace("/usr/local/bin/airlock-registry", &format!("{root}/bin/airlock"))
        .lines()
        .filter(|line| !line.starts_with("User=") && !line.starts_with("Group="))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(unit.contains("ProtectSystem=strict\n") && unit.contains("SystemCallFilter="), "{unit}");
    std::fs::write(site.at("home/.config/systemd/user/airlock-registry.service"), unit).unwrap();
    systemd.systemctl(&["daemon-reload"]).expect(0);
    systemd.systemctl(&["restart", "airlock-registry"]).expect(0);
    let ca = folder.path().join("registry/tls/ca.crt");
    until("it answers", || site.curl(&ca, None, "/v2/") == 401);
    let pid = systemd.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in ["CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line}");
    }
    let inside = |script: &str| site.run("nsenter", &["-t", &pid, "-m", "sh", "-c", script]).code;
    assert_ne!(inside("touch /etc/x"), 0);
    assert_ne!(inside(&format!("touch '{root}/htpasswd'")), 0);
    assert_eq!(inside(&format!("touch '{root}/tls/x' '{root}/storage/x'")), 0);
    // What it has to do, it can do: renew its certificate, take a push.
    site.airlock(&["registry", "cert", "renew"]).expect(0);
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 20_000]).build(), Some("1.0"));
    std::os::unix::fs::symlink(&root, site.root()).unwrap();
    assert!(site.push_and_pull(&upstream.address()).starts_with("sha256:"));
}

#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    if !tools(&["systemd-analyze"]) {
        return;
    }
    let site = Site::new();
    let unit = |text: &str| {
        let (_, unit) = text.split_once("\n\n").unwrap();
        let path = site.at("airlock-registry.service");
        // What it starts has to be there.
        std::fs::write(&path, unit.replace("/usr/local/bin/airlock-registry", AIRLOCK)).unwrap();
        path.display().to_string()
    };
    let root = site.at("a registry").display().to_string();
    let dry = ["registry", "install", "--hostname", "mirror.example.com", "--root", &root, "--dry-run", "--service"];
    site.program("systemctl", "#!/bin/sh\nexit 0\n");
    std::fs::create_dir_all(Path::new(&root).join("bin")).unwrap();
    std::os::unix::fs::symlink(AIRLOCK, Path::new(&root).join("bin/airlock")).unwrap();
    for scope in ["user", "system"] {
        if scope == "system" && std::fs::metadata("/proc/self").unwrap().uid() != 0 {
            kit::skipped("the machine's unit needs root");
            continue;
        }
        let text = site.airlock(&[&dry[..], &[scope]].concat()).expect(0).stdout;
        let path = unit(&text);
        let verified = site.run("systemd-analyze", &[&format!("--{scope}"), "verify", "--man=no", &path]);
        let about: Vec<&str> = verified.stderr.lines().filter(|line| line.contains("airlock")).collect();
        assert!(about.is_empty(), "{about:?}");
        if scope == "system" {
            // Ten is open to everything, zero is locked in; the network is what a registry is for.
            site.run("systemd-analyze", &["security", "--offline=yes", "--threshold=20", "--no-pager", &path])
                .expect(0);
        }
    }
}

/// Plays the machine's systemd: starts what a unit says as the user that it names, and remembers the process.
const FAKE_SYSTEMCTL: &str = r#"#!/bin/bash
verb=$1 unit=$2 file=/etc/systemd/system/$2 pid=/etc/systemd/$2.pid
echo "$*" >>/etc/systemd/log
value() { sed -n "s/^$1=//p" "$file" | head -1; }
alive() { [[ -f $pid ]] && kill -0 "$(cat "$pid")" 2>/dev/null; }
stop() { if alive; then kill "$(cat "$pid")"; while alive; do sleep 0.05; done; fi; rm -f "$pid"; }
case $verb in
  restart)
    stop
    user=$(value User)
    read -ra command <<<"$(value ExecStart)"
    setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs "${command[@]}" >/etc/systemd/out 2>&1 </dev/null &
    echo $! >"$pid"
    ;;
  stop) stop ;;
  show)
    if alive; then echo ActiveState=active; echo SubState=running
    elif [[ -f $pid ]]; then echo ActiveState=failed; echo SubState=failed; echo Result=exit-code; echo ExecMainStatus=1
    else echo ActiveState=inactive; echo SubState=dead; fi
    ;;
esac
exit 0
"#;

#[test]
fn root_installs_it_for_a_user_of_its_own() {
    if !tools(&["curl", "skopeo", "setpriv", "useradd"]) {
        return;
    }
    let mut site = Site::new();
    let etc = site.at("etc").display().to_string();
    // The machine's own /etc, with its users, stays as it is: what is changed is a copy.
    let script = format!(
        "cp -a /etc '{etc}'\nmount --bind '{etc}' /etc\nmount -t tmpfs none /usr/local/bin\nmkdir -p /etc/systemd/system"
    );
    let Some(_namespace) = Namespace::of(&mut site, &script) else { return };
    site.program("systemctl", FAKE_SYSTEMCTL);
    site.program("journalctl", "#!/bin/sh\ncat /etc/systemd/out\n");
    let printed = site.install(&["--service", "system", "-o", "json"]).expect(0).json();
    let login = format!("init:{}", printed["password"].as_str().unwrap());
    let in_etc = |name: &str| Path::new(&etc).join(name);
    let users = std::fs::read_to_string(in_etc("passwd")).unwrap();
    let line = users.lines().find(|line| line.starts_with("airlock-registry:")).unwrap();
    let uid: u32 = line.split(':').nth(2).unwrap().parse().unwrap();
    assert!(line.ends_with("/sbin/nologin"), "{line}");
    let about = |name: &str| {
        let about = std::fs::metadata(site.root().join(name)).unwrap();
        (about.uid(), about.mode() & 0o777)
    };
    // What it has to write is its own; what it only reads is root's; the credentials are root's alone.
    for (name, expected) in [
        ("tls/ca.key", (uid, 0o600)),
        ("tls/tls.key", (uid, 0o600)),
        ("storage", (uid, 0o750)),
        ("htpasswd", (0, 0o640)),
        ("pull-secret.json", (0, 0o600)),
        ("registry.json", (0, 0o644)),
    ] {
        assert_eq!(about(name), expected, "{name}");
    }
    let pid = std::fs::read_to_string(in_etc("systemd/airlock-registry.service.pid")).unwrap();
    assert_eq!(std::fs::metadata(format!("/proc/{}", pid.trim())).unwrap().uid(), uid);
    assert_eq!(site.curl(&site.ca(), Some(&login), "/v2/"), 200);
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 20_000]).build(), Some("1.0"));
    let digest = site.push_and_pull(&upstream.address());
    // Root changes users and certificates; the service still reads them.
    site.airlock_with("another-password\n", &["registry", "user", "add", "cluster", "--password-stdin"]).expect(0);
    assert_eq!(about("htpasswd"), (0, 0o640));
    until("the service reads the users again", || {
        site.curl(&site.ca(), Some("cluster:another-password"), "/v2/") == 200
    });
    site.airlock(&["registry", "cert", "renew"]).expect(0);
    assert_eq!(about("tls/tls.key"), (uid, 0o600));
    site.airlock(&["registry", "upgrade"]).expect(0);
    assert_eq!((site.digest(), about("storage").0), (digest, uid));
    // A second one has a unit and a program of its own, and its failure leaves neither.
    let second = Site::new();
    let (root, listen) = (second.root().display().to_string(), format!("127.0.0.1:{}", second.port.number()));
    let more = [
        "registry",
        "install",
        "--root",
        &root,
        "--hostname",
        &second.host(),
        "--listen",
        &listen,
        "--service",
        "system",
    ];
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = taken.local_addr().unwrap().to_string();
    let ran = site.airlock(&[&more[..], &["--metrics", &metrics]].concat()).expect(1);
    assert!(ran.stderr.contains("for health and metrics"), "{}", ran.stderr);
    assert!(!second.root().exists());
    let unit = format!("systemd/system/airlock-registry-{}.service", second.port.number());
    assert!(!in_etc(&unit).exists());
    site.airlock(&more).expect(0);
    assert!(in_etc(&unit).exists());
    let several = site.airlock(&["registry", "status"]).expect(2);
    assert!(several.stderr.contains("several registries are installed"), "{}", several.stderr);
    let second_root = ["--root", &root];
    site.airlock(&[&["registry", "uninstall", "--yes", "--delete-data"][..], &second_root].concat()).expect(0);
    assert!(!in_etc(&unit).exists() && !second.root().exists());
    site.airlock(&["registry", "uninstall", "--yes", "--delete-data"]).expect(0);
    let users = std::fs::read_to_string(in_etc("passwd")).unwrap();
    assert!(!users.contains("airlock-registry") && !in_etc("systemd/system/airlock-registry.service").exists());
    assert!(!site.root().exists());
}

#[test]
fn a_registry_is_never_taken_for_another() {
    if !tools(&["curl", "setpriv", "useradd"]) {
        return;
    }
    let mut site = Site::new();
    let etc = site.at("etc").display().to_string();
    let script = format!(
        "cp -a /etc '{etc}'\nmount --bind '{etc}' /etc\nmount -t tmpfs none /usr/local/bin\nmkdir -p /etc/systemd/system"
    );
    let Some(_namespace) = Namespace::of(&mut site, &script) else { return };
    site.program("systemctl", FAKE_SYSTEMCTL);
    site.program("journalctl", "#!/bin/sh\ncat /etc/systemd/out\n");
    let unit = |name: &str| std::fs::read_to_string(Path::new(&etc).join("systemd/system").join(name)).ok();
    let users = || std::fs::read_to_string(Path::new(&etc).join("passwd")).unwrap();
    // The first one is uninstalled, its data stay, and a second one gets the names that the first one remembers.
    site.install(&["--service", "system"]).expect(0);
    site.airlock(&["registry", "uninstall", "--yes"]).expect(0);
    assert_eq!(unit("airlock-registry.service"), None);
    let second = Site::new();
    let (root, listen) = (second.root().display().to_string(), format!("127.0.0.1:{}", second.port.number()));
    let flags = ["--root", &root, "--hostname", &second.host(), "--listen", &listen, "--service", "system"];
    site.airlock(&[&["registry", "install"][..], &flags].concat()).expect(0);
    let text = unit("airlock-registry.service").unwrap();
    let answers = || second.curl(&second.ca(), None, "/v2/") == 401;
    assert!(answers());
    // The first one comes back beside it, and is deleted again.
    site.install(&["--service", "system"]).expect(0);
    assert_eq!(unit("airlock-registry.service").as_ref(), Some(&text));
    let own = format!("airlock-registry-{}.service", site.port.number());
    assert!(unit(&own).is_some_and(|text| text.contains(site.root().to_str().unwrap())));
    assert_eq!(site.curl(&site.ca(), None, "/v2/"), 401);
    let first_root = site.root().display().to_string();
    // A unit that somebody else has put in the place of its own is not overwritten.
    let (path, before) = (Path::new(&etc).join("systemd/system").join(&own), unit(&own).unwrap());
    let theirs = "[Service]\nExecStart=/usr/bin/somebody-elses --tls-folder /srv/other/tls --users x\n";
    std::fs::write(&path, theirs).unwrap();
    let settings = std::fs::read_to_string(site.root().join("registry.json")).unwrap();
    let refused = site.airlock(&["registry", "upgrade", "--root", &first_root]).expect(9);
    assert!(refused.stderr.contains("is not the unit of this registry"), "{}", refused.stderr);
    assert!(refused.stderr.contains("airlock registry install"), "{}", refused.stderr);
    assert_eq!(unit(&own).as_deref(), Some(theirs));
    assert_eq!(std::fs::read_to_string(site.root().join("registry.json")).unwrap(), settings);
    std::fs::remove_file(&path).unwrap();
    site.airlock(&["registry", "upgrade", "--root", &first_root]).expect(0);
    assert_eq!(unit(&own).as_ref(), Some(&before), "one that is missing is written again");
    site.airlock(&["registry", "uninstall", "--yes", "--root", &first_root]).expect(0);
    assert_eq!(unit(&own), None);
    // One that was installed before it remembered the other's names.
    let settings = site.root().join("registry.json");
    let remembered = std::fs::read_to_string(&settings).unwrap().replace(&own, "airlock-registry.service");
    let program = own.replace(".service", "\"");
    std::fs::write(&settings, remembered.replace(&program, "airlock-registry\"")).unwrap();
    let gone = site.airlock(&["registry", "uninstall", "--yes", "--delete-data", "--root", &first_root]).expect(0);
    assert!(gone.stderr.contains("another registry runs as it"), "{}", gone.stderr);
    assert!(!site.root().exists());
    assert_eq!(unit("airlock-registry.service"), Some(text));
    assert!(users().contains("airlock-registry:") && answers());
    site.run("test", &["-x", "/usr/local/bin/airlock-registry"]).expect(0);
    site.airlock(&["registry", "uninstall", "--yes", "--delete-data"]).expect(0);
    assert_eq!(unit("airlock-registry.service"), None);
}
