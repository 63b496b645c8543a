//! OLM's own program for catalogs, `opm`, as a judge: what it reads out of a catalog, whether it takes it, and what it serves of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Deserializer, Value};
use tempfile::TempDir;

use crate::process::Running;
use crate::tools;

/// The program, with a home of its own.
#[derive(Debug)]
pub struct Opm {
    program: PathBuf,
    home: TempDir,
}

/// A catalog as the program read it out of an image.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// JSON documents, one after the other.
    text: Vec<u8>,
    documents: Vec<Value>,
}

/// The program serving a catalog as it does in a cluster. Dropping it ends it.
#[derive(Debug)]
pub struct Served {
    server: Running,
    client: PathBuf,
    /// The image's files, which it serves from.
    _files: TempDir,
}

impl Opm {
    /// `None`, with a printed line, where it is absent.
    pub fn find() -> Option<Self> {
        let program = tools::need("opm")?;
        Some(Self { program, home: tempfile::tempdir().expect("make a folder") })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.home.path()).env("CONTAINERS_REGISTRIES_CONF", "/dev/null");
        command
    }

    /// Reads the catalog `reference`, from a registry that speaks plain HTTP.
    ///
    /// # Panics
    /// When it cannot.
    pub fn render(&self, reference: &str) -> Rendered {
        let output = self.command().args(["render", "--use-http", "-o", "json", reference]).output().expect("run opm");
        assert!(output.status.success(), "opm render {reference}: {}", said(&output));
        let documents = Deserializer::from_slice(&output.stdout).into_iter::<Value>();
        let documents = documents.collect::<Result<_, _>>().expect("opm writes JSON");
        Rendered { text: output.stdout, documents }
    }

    /// Whether it takes the catalog, else what it has against it.
    ///
    /// # Errors
    /// Its own words.
    pub fn validate(&self, catalog: &Rendered) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("make a folder");
        fs::write(folder.path().join("catalog.json"), &catalog.text).expect("write the catalog");
        let output = self.command().arg("validate").arg(folder.path()).output().expect("run opm");
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }

    /// Serves the catalog `reference` as its image says: the command of its configuration over its own files. `None`, with a printed line,
    /// where the tools for it are absent.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn serve(&self, reference: &str) -> Option<Served> {
        let (crane, client) = (tools::need("crane")?, tools::need("grpcurl")?);
        let files = tempfile::tempdir().expect("make a folder");
        let root = files.path().join("root");
        fs::create_dir(&root).expect("make a folder");
        let crane = |arguments: &[&str]| {
            let output = Command::new(&crane)
                .args(["--insecure", "--platform", "linux/amd64"])
                .args(arguments)
                .output()
                .expect("run crane");
            assert!(output.status.success(), "crane {arguments:?}: {}", said(&output));
            output.stdout
        };
        let tar = files.path().join("files.tar");
        crane(&["export", reference, &tar.display().to_string()]);
        let unpacked = Command::new("tar").arg("xf").arg(&tar).arg("-C").arg(&root).status().expect("run tar");
        assert!(unpacked.success());
        let config: Value = serde_json::from_slice(&crane(&["config", reference])).expect("it has a configuration");
        let arguments = config["config"]["Cmd"].as_array().expect("it has a command");
        let arguments: Vec<String> = arguments.iter().map(|a| below(&root, a.as_str().expect("it is text"))).collect();
        let server = Running::start(&files.path().join("log"), |port| {
            let mut command = self.command();
            command.args(&arguments).args(["--port", &port.number().to_string()]);
            command.args(["--pprof-addr", "127.0.0.1:0", "--termination-log", "/dev/null"]);
            command
        });
        Some(Served { server, client, _files: files })
    }
}

impl Rendered {
    /// The names of its bundles.
    pub fn bundles(&self) -> BTreeSet<&str> {
        self.names("olm.bundle")
    }

    /// The names of its documents of a schema.
    pub fn names(&self, schema: &str) -> BTreeSet<&str> {
        let of = self.documents.iter().filter(|d| d["schema"] == schema);
        of.filter_map(|d| d["name"].as_str()).collect()
    }

    /// How many documents it has.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }
}

impl Served {
    /// The answers to one call of its API.
    ///
    /// # Panics
    /// When it refuses.
    pub fn ask(&self, method: &str) -> Vec<Value> {
        let asked = Command::new(&self.client)
            .args(["-plaintext", &self.server.address(), &format!("api.Registry/{method}")])
            .output()
            .expect("run grpcurl");
        assert!(asked.status.success(), "{method}: {}\n{}", said(&asked), self.server.output());
        let answers = Deserializer::from_slice(&asked.stdout).into_iter::<Value>();
        answers.collect::<Result<_, _>>().expect("it answers in JSON")
    }
}

/// An argument of the image's command with the paths of the image below `root`.
fn below(root: &Path, argument: &str) -> String {
    match argument.split_once('=') {
        Some((name, path)) if path.starts_with('/') => format!("{name}={}{path}", root.display()),
        None if argument.starts_with('/') => format!("{}{argument}", root.display()),
        _ => argument.to_owned(),
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
