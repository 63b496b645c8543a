//! The conformance suite of the OCI's distribution specification, as its authors publish it: all four workflows over each way in and with the content in
//! a bucket, and what can be read of a served archive. Nothing fails, and what it leaves out is only what its own conditions exclude of each other.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use airlock_oci::Digest;
use airlock_registry::{Anonymous, Server};
use airlock_store::archive::Archive;
use support::*;

/// The suite, as `.ci/run` builds it.
const SUITE: &str = "oci-conformance.test";

/// Parts that exclude others of the same run: content that is there before, against content that the suite pushes; and what a registry
/// without mounts answers, against what one with mounts does.
const EXCLUDED_BY_PUSHING: [&str; 3] = [
    "Pull Setup Get tag name from environment",
    "Push Cross-Repository Blob Mount Cross-mounting of nonexistent blob should yield session id",
    "Content Discovery Setup Populate registry with test tags (no push)",
];
/// What a mount without `from` does is asked in one of two ways, by what the settings say of the registry.
const WITHOUT_FROM: &str =
    "Push Cross-Repository Blob Mount Cross-mounting without from, and automatic content discovery";
/// They ask for the referrers that the suite has pushed in the same run, which an archive cannot have.
const OWN_REFERRERS: &str = "listing references.*(existing blob|missing manifest)";

macro_rules! conforms {
    ($($name:ident: $face:expr),* $(,)?) => { $(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            everything_is_asked($face).await;
        }
    )* };
}

conforms! {
    over_plain_http: Face::Plain,
    over_tls_with_a_password: Face::TlsWithPassword,
    over_tls_with_tokens: Face::TlsWithTokens,
    in_a_bucket: Face::BucketAtMoto,
}

/// All four workflows, on what the suite pushes itself.
async fn everything_is_asked(face: Face) {
    let Some(suite) = tool(SUITE).filter(|_| face.is_possible()) else { return };
    let registry = Registry::on(face).await;
    // A mount without `from` finds the blob wherever the client may read it; a token is for the repositories that it names, and here it names one.
    let finds = face != Face::TlsWithTokens;
    let mut settings = vec![
        ("OCI_ROOT_URL", registry.url("")),
        ("OCI_TEST_PUSH", "1".into()),
        ("OCI_TEST_CONTENT_MANAGEMENT", "1".into()),
        ("OCI_AUTOMATIC_CROSSMOUNT", u8::from(finds).to_string()),
    ];
    if face.has_user() {
        settings.extend([("OCI_USERNAME", USER.0.into()), ("OCI_PASSWORD", USER.1.into())]);
    }
    let report = judge(&suite, settings, &[]).await;
    assert_eq!(report.failed(), Vec::<String>::new(), "{}", report.text);
    let other = format!(
        "{WITHOUT_FROM} {}",
        if finds { "disabled should return a 202" } else { "enabled should return a 201" }
    );
    let mut excluded = EXCLUDED_BY_PUSHING.to_vec();
    excluded.push(&other);
    excluded.sort_unstable();
    assert_eq!(report.skipped(), excluded, "{}", report.text);
    assert_eq!(report.parts.len() - excluded.len(), report.passed());
    assert!(report.passed() > 70, "it asked for little: {}", report.passed());
    // It takes all that it brought away again.
    assert_eq!(json(registry.get("/v2/conformance/one/tags/list").await).await["tags"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_served_archive_can_be_read_and_discovered() {
    let Some(suite) = tool(SUITE) else { return };
    let (folder, set) = (tempfile::tempdir().unwrap(), archive::set());
    archive::write(folder.path(), &set).await;
    let served = Arc::new(Archive::open(folder.path()).unwrap());
    let running = Server::read_only(served).anonymous(Anonymous::Pull).bind(localhost()).await.unwrap();
    let report = judge(
        &suite,
        vec![
            ("OCI_ROOT_URL", format!("http://{}", running.addr)),
            ("OCI_NAMESPACE", "acme/app".into()),
            ("OCI_TAG_NAME", "v1".into()),
            ("OCI_MANIFEST_DIGEST", Digest::of(set.index.as_bytes()).to_string()),
            ("OCI_BLOB_DIGEST", Digest::of(&set.blobs[1]).to_string()),
            ("OCI_TAG_LIST", "v1,v2".into()),
        ],
        &["--ginkgo.skip", OWN_REFERRERS],
    )
    .await;
    assert_eq!(report.failed(), Vec::<String>::new(), "{}", report.text);
    // Whatever is neither preparation nor tidying up was asked, except for those referrers.
    let asked = |name: &&String| name.starts_with("Pull Pull ") || name.starts_with("Content Discovery Test ");
    let (passed, skipped) = (report.with(|outcome| outcome == "passed"), report.skipped());
    assert_eq!((passed.iter().filter(asked).count(), skipped.iter().filter(asked).count()), (16, 3), "{}", report.text);
    running.shutdown().await.unwrap();
}

/// What the suite found: the names of its parts, in their order, each with its outcome.
struct Report {
    parts: Vec<(String, String)>,
    /// What it printed.
    text: String,
}

/// Runs pulling and discovery, and what else the settings ask for.
async fn judge(suite: &str, settings: Vec<(&'static str, String)>, arguments: &[&'static str]) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let (suite, arguments) = (suite.to_owned(), arguments.to_vec());
    tokio::task::spawn_blocking(move || {
        let output = Command::new(&suite)
            .arg("--ginkgo.no-color")
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", folder.path())
            .envs([("OCI_TEST_PULL", "1"), ("OCI_TEST_CONTENT_DISCOVERY", "1"), ("OCI_NAMESPACE", "conformance/one")])
            .envs([("OCI_CROSSMOUNT_NAMESPACE", "conformance/two"), ("OCI_HIDE_SKIPPED_WORKFLOWS", "0")])
            .env("OCI_REPORT_DIR", folder.path())
            .envs(settings)
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let report = Report { parts: parts(&folder.path().join("junit.xml"), &text), text };
        // Its own word and its report agree.
        assert_eq!(output.status.success(), report.failed().is_empty(), "{}", report.text);
        report
    })
    .await
    .unwrap()
}

/// The outcomes in a JUnit file: `<testcase name="OCI Distribution Conformance Tests Pull …" … status="passed" …>`.
fn parts(junit: &Path, printed: &str) -> Vec<(String, String)> {
    let xml = std::fs::read_to_string(junit).unwrap_or_else(|e| panic!("no report ({e}): {printed}"));
    let attribute = |tag: &str, name: &str| {
        let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap();
        rest.split_once('"').unwrap().0.to_owned()
    };
    xml.split("<testcase")
        .skip(1)
        .map(|part| part.split_once('>').unwrap().0)
        .filter_map(|tag| {
            let name = attribute(tag, "name");
            // The others are the suite's reporters.
            let name = name.strip_prefix("OCI Distribution Conformance Tests ")?.to_owned();
            Some((name, attribute(tag, "status")))
        })
        .collect()
}

impl Report {
    fn with(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let parts = self.parts.iter().filter(|(_, outcome)| wanted(outcome));
        let mut names: Vec<String> = parts.map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    fn failed(&self) -> Vec<String> {
        self.with(|outcome| outcome != "passed" && outcome != "skipped")
    }

    fn skipped(&self) -> Vec<String> {
        self.with(|outcome| outcome == "skipped")
    }

    fn passed(&self) -> usize {
        self.with(|outcome| outcome == "passed").len()
    }
}
