//! What the tests with scripted registries share: images that are made in code, an upstream and a target whose answers can be broken on
//! purpose, and the program between the two.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};

use airlock_testkit::binary::{Binary, Outcome};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::Registry;
use serde_json::Value;

pub(crate) const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
pub(crate) const PART: &str = "mirror_000001.tar";
/// Nothing usable came of it, for reasons of no other code.
pub(crate) const FAILED: i32 = 1;
/// Usage or configuration.
pub(crate) const USAGE: i32 = 2;
/// Some of it is there and usable.
pub(crate) const PARTIAL: i32 = 3;
/// Something is missing or altered.
pub(crate) const DAMAGED: i32 = 4;
/// Credentials.
pub(crate) const NOT_AUTHORISED: i32 = 5;
/// No room.
pub(crate) const NO_SPACE: i32 = 6;
/// Unreachable, or too slow.
pub(crate) const NETWORK: i32 = 7;
/// Another run is at work.
pub(crate) const REFUSED: i32 = 9;
/// Stopped by the user.
pub(crate) const INTERRUPTED: i32 = 130;

/// An image that nothing happens to, and where it is.
pub(crate) const GOOD: &str = "team/good";
/// An image that the faults are made for.
pub(crate) const BAD: &str = "team/bad";
/// The size of the layer of [`BAD`] that is large enough to break off in.
pub(crate) const LARGE: usize = 700_000;

/// An upstream, and a program that mirrors from it.
pub(crate) struct Gap {
    pub(crate) upstream: Registry,
    pub(crate) binary: Binary,
    pub(crate) good: Built,
    pub(crate) bad: Built,
}

impl Gap {
    /// An open upstream with [`GOOD`] and [`BAD`], and one date for all runs.
    pub(crate) fn new() -> Self {
        Self::at(Registry::start())
    }

    /// The same with another upstream.
    pub(crate) fn at(upstream: Registry) -> Self {
        let good = fixture::image(1).layers(&[20_000]).build();
        let bad = fixture::image(2).layers(&[LARGE, 3_000]).build();
        upstream.put(GOOD, &good, Some("v1"));
        upstream.put(BAD, &bad, Some("v1"));
        Self { upstream, binary: program(), good, bad }
    }

    /// The digest of the large layer of [`BAD`].
    pub(crate) fn large(&self) -> String {
        self.bad.blobs[1].descriptor.digest.to_string()
    }

    /// The path of the large layer of [`BAD`] at a registry.
    pub(crate) fn large_path(&self) -> String {
        format!("/v2/{BAD}/blobs/{}", self.large())
    }

    /// A folder of the run's own.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        self.binary.folder().join(name)
    }

    /// Where archives are written unless a test says otherwise.
    pub(crate) fn archive(&self) -> PathBuf {
        self.folder("archive")
    }

    /// A configuration that asks for these images of the upstream.
    pub(crate) fn isc(&self, names: &[&str]) -> String {
        let images: Vec<String> =
            names.iter().map(|name| format!("    - name: {}/{name}\n", self.upstream.address())).collect();
        self.config(&format!("  additionalImages:\n{}", images.concat()))
    }

    /// A configuration with this text below `mirror:`.
    pub(crate) fn config(&self, mirror: &str) -> String {
        let text = format!("kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n{mirror}");
        let path = self.folder("isc.yaml");
        fs::write(&path, text).expect("write the configuration");
        path.display().to_string()
    }

    /// Both images.
    pub(crate) fn both(&self) -> String {
        self.isc(&["team/good:v1", "team/bad:v1"])
    }

    /// Registry to archive, in `folder`, with a short patience.
    pub(crate) fn write(&self, isc: &str, folder: &Path, more: &[&str]) -> Outcome {
        let to = format!("file://{}", folder.display());
        self.binary.run(mirror(isc).iter().map(String::as_str).chain(more.iter().copied()).chain([to.as_str()]))
    }

    /// Registry to registry.
    pub(crate) fn copy(&self, isc: &str, target: &Registry, more: &[&str]) -> Outcome {
        let workspace = format!("file://{}", self.folder("workspace").display());
        let to = format!("docker://{}", target.address());
        let fixed = ["--workspace", &workspace, &to];
        self.binary.run(mirror(isc).iter().map(String::as_str).chain(fixed).chain(more.iter().copied()))
    }

    /// Archives to registry.
    pub(crate) fn load(&self, isc: &str, from: &[&Path], target: &Registry, more: &[&str]) -> Outcome {
        let to = format!("docker://{}", target.address());
        let from = from.iter().flat_map(|folder| ["--from".to_owned(), format!("file://{}", folder.display())]);
        let arguments = mirror(isc).into_iter().chain(from).chain([to]);
        self.binary.run(arguments.chain(more.iter().map(|argument| (*argument).to_owned())))
    }

    /// Finishes the run that left its report in the folder.
    pub(crate) fn retry(&self, folder: &Path) -> Outcome {
        let report = report_path(folder).display().to_string();
        self.binary.run(["mirror", "--retry", &report, "--tls-verify=false", "--retry-delay", "10ms"])
    }

    /// `archive verify`.
    pub(crate) fn verify(&self, folder: &Path) -> Outcome {
        self.binary.run(["archive", "verify", &folder.display().to_string()])
    }

    /// The archive is whole, and gives both images to a registry.
    #[track_caller]
    pub(crate) fn is_complete(&self, isc: &str, folder: &Path) {
        self.verify(folder).expect_code(0);
        assert_eq!(leftovers(folder), Vec::<String>::new(), "half-written files are left in {}", folder.display());
        let target = Registry::start();
        self.load(isc, &[folder], &target, &[]).expect_code(0);
        self.has_both(&target);
    }

    /// The registry has both images to the last byte.
    #[track_caller]
    pub(crate) fn has_both(&self, target: &Registry) {
        for (repository, image) in [(GOOD, &self.good), (BAD, &self.bad)] {
            assert!(target.has(repository, image), "{repository} is not whole at the target");
        }
    }
}

/// The program, in an empty home and with one date for all runs.
pub(crate) fn program() -> Binary {
    Binary::new(AIRLOCK).env("SOURCE_DATE_EPOCH", "1700000000")
}

/// The arguments that all runs have.
fn mirror(isc: &str) -> Vec<String> {
    ["mirror", "-c", isc, "--tls-verify=false", "--retry-times", "2", "--retry-delay", "10ms"].map(str::to_owned).into()
}

/// Where the report of a run lies.
pub(crate) fn report_path(folder: &Path) -> PathBuf {
    folder.join("working-dir/report.json")
}

/// Where the report of a run that loaded an archive lies, beside that of the run that wrote it.
pub(crate) fn load_report_path(folder: &Path) -> PathBuf {
    folder.join("working-dir/load-report.json")
}

/// The report of a run.
pub(crate) fn report(folder: &Path) -> Value {
    let path = report_path(folder);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("the report is JSON")
}

/// The bytes of the first part.
pub(crate) fn part(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(PART)).expect("read the part")
}

/// Files of a run that is not finished.
pub(crate) fn leftovers(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.ends_with(".partial") || name == ".airlock-journal" || name == ".airlock-previous");
    names.sort();
    names
}

/// Names of the parts that have got their names.
pub(crate) fn parts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with("mirror_"));
    names.sort();
    names
}

/// Requests that put content into a registry, or begin to; the probe's offers that no registry keeps do not count.
pub(crate) fn pushes(registry: &Registry) -> Vec<String> {
    let writes = |method: &str| matches!(method, "PUT" | "POST" | "PATCH");
    let log = registry.log();
    let kept = log.iter().filter(|r| writes(&r.method)).map(|r| format!("{} {} {}", r.method, r.path, r.status));
    kept.collect()
}

/// Everything a run has printed.
pub(crate) fn said(outcome: &Outcome) -> String {
    format!("{}{}", outcome.stdout, outcome.stderr)
}

/// What was printed has each of these words.
#[track_caller]
pub(crate) fn says(outcome: &Outcome, words: &[&str]) {
    let said = said(outcome);
    for word in words {
        assert!(said.contains(word), "`{word}` is not said in:\n{said}");
    }
}

/// Registry to archive in parts of so many bytes. A configuration counts in GiB; a report keeps the exact number, and is followed.
pub(crate) fn write_in_parts(gap: &Gap, isc: &str, folder: &Path, bytes: u64) -> Outcome {
    gap.write(isc, folder, &["--dry-run"]).expect_code(0);
    let path = folder.join("working-dir/dry-run/report.json");
    let text = fs::read(&path).expect("read the report of the dry run");
    let mut report: Value = serde_json::from_slice(&text).expect("the report is JSON");
    report["retry"]["settings"]["partBytes"] = bytes.into();
    fs::write(&path, report.to_string()).expect("write the report");
    let path = path.display().to_string();
    gap.binary.run(["mirror", "--retry", &path, "--tls-verify=false", "--retry-times", "1", "--retry-delay", "10ms"])
}
