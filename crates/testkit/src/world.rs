//! The offline upstream: content of many registries, generated from real public data, served on loopback only.
//!
//! [`World::get`] generates it once per scale and version of the generator, below Cargo's target folder, however many test
//! processes ask at the same time. [`World::start`] serves it: a real registry, and the HTTP parts beside it, on ports of their
//! own. The generated files are shared between all running tests; each start has a folder of its own, which holds links to them and the
//! files that name its ports.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use airlock_oci::{Algorithm, Hasher};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Port, Running};
use crate::tools;

/// What [`Upstream::requests`] asks for, which is never there.
const MARK: &str = "/v2/airlock-testkit/mark-";
/// How long the registry may take to write down what it has answered, and how much longer for what it is slower with.
const LOGGED: Duration = Duration::from_secs(120);
const LOGGED_LATE: Duration = Duration::from_millis(300);

/// How much content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// 38 MB.
    Small,
    /// 1.1 GB.
    Medium,
}

/// A generated world on the disk.
#[derive(Clone, Debug)]
pub struct World {
    /// The generated files.
    root: PathBuf,
    /// The generator, `world.py`.
    generator: PathBuf,
    python: PathBuf,
    inventory: Arc<Inventory>,
}

/// What the world holds.
#[derive(Debug, Deserialize)]
pub struct Inventory {
    /// By `host/path`.
    pub repos: BTreeMap<String, Repo>,
}

impl Inventory {
    /// The repositories that have a blob besides the given one.
    pub fn others_with(&self, repository: &str, digest: &str) -> Vec<&str> {
        let others = self.repos.iter().filter(|(name, _)| name.as_str() != repository);
        others.filter(|(_, repo)| repo.blobs.iter().any(|blob| blob == digest)).map(|(name, _)| name.as_str()).collect()
    }
}

/// One repository of the world.
#[derive(Clone, Debug, Deserialize)]
pub struct Repo {
    /// Tag to digest.
    pub tags: BTreeMap<String, String>,
    /// Manifests by digest, with their media types.
    pub manifests: BTreeMap<String, String>,
    /// Configurations and layers by digest.
    pub blobs: Vec<String>,
}

/// Who serves the registries' part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Serving {
    /// Debian's `docker-registry`, read-only.
    DockerRegistry,
    /// The world's own read-only registry, with the referrers API and these faults.
    Scripted(Faults),
}

/// What the world's own registry does wrong. The default is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Demands an anonymous bearer token.
    pub auth: bool,
    /// One path in so many answers 500, 503 or 429 the first time; 0 is none.
    pub fail: u32,
    /// One blob in so many breaks off half-way the first time; 0 is none.
    pub truncate: u32,
    /// Seconds added to each request.
    pub slow: f64,
}

/// A world being served. Dropping it ends the servers.
#[derive(Debug)]
pub struct Upstream {
    registry: Running,
    http: Running,
    world: World,
    /// After the servers, so that they end before their files go.
    folder: TempDir,
}

/// One image that an image set stands for.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Image {
    /// As the configuration names it.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Of its top manifest.
    pub digest: String,
    /// `additional`, `release`, `component`, …
    #[serde(rename = "type")]
    pub class: String,
    /// `repository:tag` below the destination.
    pub dest: Vec<String>,
}

/// What an image set stands for.
#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    /// Why the run must fail, if it must.
    pub error: Option<String>,
    /// All images.
    pub images: Vec<Image>,
    /// Named by the configuration, absent upstream.
    pub missing: Vec<String>,
    /// Of each catalog, as the configuration names it: the bundles.
    #[serde(default)]
    pub bundles: BTreeMap<String, Vec<String>>,
}

/// A blob that was taken away from the upstream.
#[derive(Debug)]
pub struct Hidden {
    path: PathBuf,
    target: PathBuf,
}

impl Hidden {
    /// Gives the blob back.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn restore(self) {
        symlink(self.target, self.path).expect("give the blob back");
    }
}

impl Scale {
    fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
        }
    }
}

impl World {
    /// The world at this scale, generated when it is not there yet. `None`, with a printed line, where the generator or Python are absent.
    ///
    /// # Panics
    /// When the generator fails.
    pub fn get(scale: Scale) -> Option<Self> {
        let generator = tools::shared()?.join("world/world.py");
        let python = tools::need("python3")?;
        let kept = tools::target_dir().join("world");
        fs::create_dir_all(&kept).expect("create the folder of generated worlds");
        let name = format!("{}-{}", scale.name(), version(&generator));
        let root = kept.join(&name);
        // Whoever comes first generates; the others wait here. Only a complete world has its name.
        let lock = File::create(kept.join(format!("{name}.lock"))).expect("create the lock of the generated world");
        lock.lock().expect("lock the generated world");
        if !root.exists() {
            let beside = kept.join(format!("{name}.building"));
            let built = Command::new(&python)
                .arg(&generator)
                .args(["build", "--quiet", "--force", "--scale", scale.name(), "--out"])
                .arg(&beside)
                .output()
                .expect("run the generator of the world");
            assert!(built.status.success(), "the generator of the world failed:\n{}", text(&built));
            fs::rename(&beside, &root).expect("name the generated world");
        }
        drop(lock);
        let inventory = fs::read(root.join("world.json")).expect("read the inventory of the world");
        let inventory = serde_json::from_slice(&inventory).expect("understand the inventory of the world");
        Some(Self { root, generator, python, inventory: Arc::new(inventory) })
    }

    /// What the world holds.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The folder of its generated files, which all tests share: nobody writes there.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The bytes of a manifest of the world.
    ///
    /// # Panics
    /// When the world has no such content.
    pub fn manifest(&self, digest: &str) -> Vec<u8> {
        let path = self.root.join("blobs").join(digest.replace(':', "/"));
        fs::read(&path).unwrap_or_else(|error| panic!("the world has no {digest}: {error}"))
    }

    /// Serves this world. `None`, with a printed line, where `docker-registry` is needed and absent.
    ///
    /// # Panics
    /// When a server does not come up.
    pub fn start(&self, serving: Serving) -> Option<Upstream> {
        let server = match serving {
            Serving::DockerRegistry => tools::need("docker-registry")?,
            Serving::Scripted(_) => self.python.clone(),
        };
        let folder =
            tempfile::Builder::new().prefix("airlock-world-").tempdir().expect("create a folder for the world");
        let path = folder.path();
        for part in ["blobs", "http", "oci", "charts", "keys", "world.json"] {
            symlink(self.root.join(part), path.join(part)).expect("link to the generated world");
        }
        link_storage(&self.root, path);

        let registry = Running::start(&path.join("registry.log"), |port| match serving {
            Serving::DockerRegistry => docker_registry(&server, path, port),
            Serving::Scripted(faults) => self.scripted(path, port, faults),
        });
        let http = Running::start(&path.join("http.log"), |port| {
            let mut command = self.command();
            command.arg("serve").arg("--dir").arg(path).args(["--port", &port.number().to_string()]);
            command
        });
        let upstream = Upstream { registry, http, world: self.clone(), folder };
        upstream.render(&[]);
        Some(upstream)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.arg(&self.generator);
        command
    }

    fn scripted(&self, folder: &Path, port: &Port, faults: Faults) -> Command {
        let mut command = self.command();
        command.arg("registry").arg("--dir").arg(folder).args(["--port", &port.number().to_string()]);
        if faults.auth {
            command.arg("--auth");
        }
        command.args(["--fail", &faults.fail.to_string(), "--truncate", &faults.truncate.to_string()]);
        command.args(["--slow", &faults.slow.to_string()]);
        command
    }
}

impl Upstream {
    /// What is served.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Where the registries' part listens, `127.0.0.1:PORT`. Content of `quay.io/a/b` is there as `quay.io/a/b` below it.
    pub fn address(&self) -> String {
        self.registry.address()
    }

    /// Where graph, signatures and charts are served, `http://127.0.0.1:PORT`.
    pub fn http(&self) -> String {
        format!("http://{}", self.http.address())
    }

    /// Every request that docker-registry has answered, as `GET /v2/…`, in order. It writes them down after it has answered them: one more is
    /// made and waited for, which is not among them.
    ///
    /// # Panics
    /// When that does not come to its log.
    pub fn requests(&self) -> Vec<String> {
        static MARKS: AtomicU32 = AtomicU32::new(0);
        let mark = format!("{MARK}{}/tags/list", MARKS.fetch_add(1, Ordering::Relaxed));
        let mut asked = TcpStream::connect(self.address()).expect("reach the registry");
        let head = format!("GET {mark} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address());
        asked.write_all(head.as_bytes()).expect("ask the registry");
        asked.read_to_end(&mut Vec::new()).expect("read the registry's answer");
        let end = Instant::now() + LOGGED;
        while !self.registry.output().contains(&format!("GET {mark} ")) {
            assert!(Instant::now() < end, "the registry does not say that it was asked for {mark}");
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(LOGGED_LATE);
        let of_line = |line: &str| -> Option<String> {
            let (_, rest) = line.split_once("] \"")?;
            Some(rest.split_once(" HTTP/")?.0.to_owned())
        };
        self.registry.output().lines().filter_map(of_line).filter(|request| !request.contains(MARK)).collect()
    }

    /// A folder of this start, for a test's own files; it goes with the servers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The registries.conf that sends every name of the world to this start, so that nothing can leak to a network.
    pub fn registries_conf(&self) -> PathBuf {
        self.folder.path().join("registries-rewrite.conf")
    }

    /// The environment under which a mirroring tool sees this world by the real names.
    pub fn env(&self) -> Vec<(String, String)> {
        let key = self.folder.path().join("keys/release-pk.asc");
        [
            ("CONTAINERS_REGISTRIES_CONF", self.registries_conf().display().to_string()),
            ("UPDATE_URL_OVERRIDE", format!("{}/graph", self.http())),
            ("OCP_SIGNATURE_VERIFICATION_PK", key.display().to_string()),
            ("OCP_SIGNATURE_URL", format!("{}/signatures/openshift/release/", self.http())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// The configuration of image set `id`.
    pub fn isc(&self, id: &str) -> PathBuf {
        self.folder.path().join("isc").join(id).with_extension("yaml")
    }

    /// What image set `id` stands for.
    ///
    /// # Panics
    /// When there is no such set.
    pub fn expected(&self, id: &str) -> Expected {
        let path = self.folder.path().join("expected").join(id).with_extension("json");
        let read = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value: Value = serde_json::from_slice(&read).expect("understand what the image set stands for");
        let rules = &value["rules"];
        let rule = [value["primary"].as_str(), Some("both")].into_iter().flatten().find_map(|name| rules.get(name));
        serde_json::from_value(rule.expect("the set has rules").clone()).expect("understand the rules of the set")
    }

    /// What image set `id` stands for by the rule set of this name, or by the one that holds for every rule set.
    ///
    /// # Panics
    /// When there is no such set.
    pub fn expected_by(&self, id: &str, rule: &str) -> Expected {
        let path = self.folder.path().join("expected").join(id).with_extension("json");
        let read = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let value: Value = serde_json::from_slice(&read).expect("understand what the image set stands for");
        let rules = &value["rules"];
        let found = [rule, "both"].iter().find_map(|name| rules.get(*name));
        serde_json::from_value(found.expect("the set has such rules").clone()).expect("understand the rules of the set")
    }

    /// Asks the world's own judge whether every image of set `id` is in the plain registry at `registry`.
    ///
    /// # Panics
    /// When it is not; the message holds what the judge said.
    pub fn check(&self, id: &str, registry: &str) {
        self.check_by(id, None, registry);
    }

    /// The same by the rule set of this name.
    ///
    /// # Panics
    /// When it is not; the message holds what the judge said.
    pub fn check_by(&self, id: &str, rule: Option<&str>, registry: &str) {
        let judged = self
            .world
            .command()
            .arg("check")
            .arg("--dir")
            .arg(self.folder.path())
            .args(["--id", id, "--registry", registry])
            .args(rule.into_iter().flat_map(|rule| ["--rule", rule]))
            .output()
            .expect("run the world's judge");
        assert!(judged.status.success(), "the world's judge is not satisfied:\n{}", text(&judged));
    }

    /// Adds the image sets of a scenario file, written as the world's own `isc/scenarios.json`.
    ///
    /// # Panics
    /// When the world does not understand them.
    pub fn add_sets(&self, scenarios: &Value) {
        let path = self.folder.path().join("more-scenarios.json");
        fs::write(&path, scenarios.to_string()).expect("write the scenarios");
        self.render(&["--scenarios".into(), path.display().to_string()]);
    }

    /// Gives the upstream a repository that it lacked, with the content of another and one tag more.
    ///
    /// # Panics
    /// When the source has no such tag, or the target is there already.
    pub fn publish(&self, source: &str, source_tag: &str, target: &str, tag: &str) {
        let repo = &self.world.inventory.repos[source];
        let digest = &repo.tags[source_tag];
        let folder = self.folder.path().join("storage/docker/registry/v2/repositories");
        let mut parent = folder.clone();
        let parts: Vec<_> = target.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            parent.push(part);
            open_link(&parent);
        }
        let own = parent.join(parts[parts.len() - 1]);
        assert!(!own.exists(), "{target} is there already");
        let link = |folder: PathBuf, digest: &str| {
            fs::create_dir_all(&folder).expect("create a folder of the repository");
            fs::write(folder.join("link"), digest).expect("write a link of the repository");
        };
        for blob in &repo.blobs {
            link(own.join("_layers").join(blob.replace(':', "/")), blob);
        }
        for manifest in repo.manifests.keys() {
            link(own.join("_manifests/revisions").join(manifest.replace(':', "/")), manifest);
        }
        let tags = own.join("_manifests/tags").join(tag);
        link(tags.join("current"), digest);
        link(tags.join("index").join(digest.replace(':', "/")), digest);
    }

    /// Takes a blob away from the only repository that has it; what is given back undoes it.
    ///
    /// # Panics
    /// When the repository does not have it, or when another has it too: who wants the blob may find it there first, and
    /// nothing would be missing.
    pub fn hide_blob(&self, repository: &str, digest: &str) -> Hidden {
        let others = self.world.inventory().others_with(repository, digest);
        assert!(others.is_empty(), "{digest} is not only in {repository}, but also in {others:?}");
        let mut path = self.folder.path().join("storage/docker/registry/v2/repositories");
        let (algorithm, hex) = digest.split_once(':').expect("a digest has a colon");
        for part in repository.split('/').chain(["_layers", algorithm]) {
            path.push(part);
            open_link(&path);
        }
        path.push(hex);
        let target = fs::read_link(&path).unwrap_or_else(|error| panic!("{repository} has no {digest}: {error}"));
        fs::remove_file(&path).expect("remove a link of the repository");
        Hidden { path, target }
    }

    fn render(&self, more: &[String]) {
        let rendered = self
            .world
            .command()
            .arg("render")
            .arg("--dir")
            .arg(self.folder.path())
            .args(["--registry", &self.address(), "--http-port", &self.http.port().to_string()])
            .args(more)
            .output()
            .expect("render the world's configurations");
        assert!(rendered.status.success(), "the world's configurations were not written:\n{}", text(&rendered));
    }
}

/// `docker-registry` over the linked storage. Read-only: the storage belongs to every running test.
fn docker_registry(server: &Path, folder: &Path, port: &Port) -> Command {
    let configuration = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}/storage}}\n  maintenance: \
         {{readonly: {{enabled: true}}, uploadpurging: {{enabled: false}}}}\nhttp: {{addr: \"{}\"}}\n",
        folder.display(),
        port.address()
    );
    let path = folder.join("upstream.yml");
    fs::write(&path, configuration).expect("write the registry's configuration");
    let mut command = Command::new(server);
    command.arg("serve").arg(path);
    command
}

/// A storage folder of links to the generated one: real down to the hosts, so that [`Upstream::publish`] can add below them.
fn link_storage(root: &Path, folder: &Path) {
    let inner = Path::new("storage/docker/registry/v2");
    fs::create_dir_all(folder.join(inner)).expect("create the storage of links");
    symlink(root.join(inner).join("blobs"), folder.join(inner).join("blobs")).expect("link to the blobs");
    symlink(root.join(inner).join("repositories"), folder.join(inner).join("repositories"))
        .expect("link to the repositories");
    open_link(&folder.join(inner).join("repositories"));
}

/// Replaces a link to a folder by a folder of links to what that holds. Nothing happens to a real folder.
fn open_link(path: &Path) {
    let Ok(target) = fs::read_link(path) else {
        fs::create_dir_all(path).expect("create a folder of the storage");
        return;
    };
    fs::remove_file(path).expect("remove a link of the storage");
    fs::create_dir(path).expect("create a folder of the storage");
    for entry in fs::read_dir(&target).expect("list the linked folder") {
        let entry = entry.expect("list the linked folder");
        symlink(entry.path(), path.join(entry.file_name())).expect("link to the generated world");
    }
}

/// A short digest over the generator's own files: another generator makes another world.
fn version(generator: &Path) -> String {
    let base = generator.parent().expect("the generator lies in a folder");
    let mut files = vec![generator.to_path_buf()];
    for part in ["lib", "data", "isc"] {
        files_below(&base.join(part), &mut files);
    }
    files.sort();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for file in files {
        hasher.update(file.strip_prefix(base).unwrap_or(&file).as_os_str().as_encoded_bytes());
        hasher.update(&fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    hasher.finish().short().to_string()
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("list the generator's files").path();
        if path.is_dir() {
            // Python leaves its compiled modules here; they are no part of the generator.
            if path.file_name().is_some_and(|name| name != "__pycache__") {
                files_below(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
