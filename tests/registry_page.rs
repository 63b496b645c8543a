//! The promise: whoever opens a registry's address in a browser sees what is mirrored and whether it is whole: in light and dark, on a narrow
//! screen, by keyboard alone, and without a script.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_testkit::binary::{Binary, Started};
use airlock_testkit::browser::{Browser, Scheme, request};
use airlock_testkit::tools;
use airlock_testkit::world::{Scale, Serving, World};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
const USER: (&str, &str) = ("auditor", "correct-horse-battery");
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// Every text with a contrast below 4.5 (3 where it is large), as `ratio text`. Colours are blended down to the first ground that is opaque.
const CONTRAST: &str = r"
    const parse = c => { const m = c.match(/[\d.]+/g).map(Number); return [m[0], m[1], m[2], m[3] === undefined ? 1 : m[3]]; };
    const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
    const light = c => { const f = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
    const bad = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const text = walk.currentNode.textContent.trim();
        const element = walk.currentNode.parentElement;
        const box = element.getBoundingClientRect();
        if (!text || box.width <= 1 || box.right < 0) continue;
        const layers = [];
        for (let e = element; e; e = e.parentElement) layers.push(parse(getComputedStyle(e).backgroundColor));
        let ground = [255, 255, 255, 1];
        for (const layer of layers.reverse()) ground = over(layer, ground);
        const style = getComputedStyle(element);
        const ink = over(parse(style.color), ground);
        const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
        if (ratio < (large ? 3 : 4.5)) bad.push(ratio.toFixed(2) + ' ' + text.slice(0, 40));
    }
    return bad;";

/// What a page lacks for those who do not see it, or who have no mouse.
const STRUCTURE: &str = r"
    const lacks = [];
    const need = (holds, what) => { if (!holds) lacks.push(what); };
    need(document.documentElement.lang === 'en', 'lang');
    need(document.title, 'title');
    need(document.querySelectorAll('h1').length === 1, 'one h1');
    for (const landmark of ['header', 'main', 'footer', 'nav']) need(document.querySelector(landmark), landmark);
    let level = 1;
    for (const h of document.querySelectorAll('h1, h2, h3, h4')) { const l = Number(h.tagName[1]); need(l <= level + 1, 'heading order'); level = l; }
    for (const i of document.querySelectorAll('input')) need(i.labels.length === 1, 'label of ' + i.name);
    for (const i of document.querySelectorAll('img')) need(i.hasAttribute('alt'), 'alt');
    for (const t of document.querySelectorAll('table')) {
        need(t.caption && t.caption.textContent, 'caption');
        for (const h of t.querySelectorAll('th')) need(h.scope, 'scope');
        for (const r of t.querySelectorAll('tbody tr')) need(r.cells.length === t.tHead.rows[0].cells.length, 'cells');
    }
    for (const a of document.querySelectorAll('a')) need(a.textContent.trim() && a.href, 'text of a link');
    const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
    need(new Set(ids).size === ids.length, 'ids once');
    for (const n of document.querySelectorAll('nav')) need(n.getAttribute('aria-label'), 'name of a nav');
    need(document.scripts.length === 0, 'no script');
    return lacks;";

/// The element that has the focus, and whether that can be seen.
const FOCUS: &str = r"
    const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
    return { text: (e.textContent || e.name || '').trim(), tag: e.tagName, href: e.getAttribute('href'),
        seen: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 && b.right > 0 && b.bottom > 0 };";

/// What of the page does not fit its width.
const OVERFLOW: &str = r"
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    if (wide <= 0) return [];
    return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('pre, thead, caption'))
        .slice(0, 5).map(e => e.outerHTML.slice(0, 120));";

/// A registry that serves, and where.
struct Served {
    _server: Started,
    binary: Binary,
    addr: String,
}

impl Served {
    /// Serves an empty directory to one user.
    fn new() -> Self {
        let binary = Binary::new(AIRLOCK);
        let mut add = Command::new(AIRLOCK)
            .args(["registry", "user", "add", USER.0, "--password-stdin", "--htpasswd", "htpasswd"])
            .current_dir(binary.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        add.stdin.take().unwrap().write_all(USER.1.as_bytes()).unwrap();
        assert!(add.wait().unwrap().success());
        Self::with(binary, &["--root", "store", "--htpasswd", "htpasswd"])
    }

    fn with(binary: Binary, arguments: &[&str]) -> Self {
        let common = ["registry", "serve", "--plain-http", "--listen", "127.0.0.1:0"];
        let mut server = binary.start(common.iter().chain(arguments));
        let addr = server.until(|stderr| {
            let (_, rest) = stderr.split_once(" at http://")?;
            rest.split_once('\n').map(|(addr, _)| addr.to_owned())
        });
        Self { _server: server, binary, addr }
    }

    fn ask(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> airlock_testkit::browser::Answer {
        let login = format!("Basic {}", STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
        request(&self.addr, method, path, &[("authorization", &login), ("content-type", media_type)], body)
    }

    fn page(&self, path: &str) -> String {
        let answer = self.ask("GET", path, "text/plain", b"");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    /// The page as soon as it has all these words: what is read from an archive, or has changed, shows when it was looked at.
    fn page_with(&self, path: &str, words: &[&str]) -> String {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let page = self.page(path);
            let missing: Vec<_> = words.iter().filter(|word| !page.contains(**word)).collect();
            if missing.is_empty() {
                return page;
            }
            assert!(Instant::now() < end, "{path} has no {missing:?}:\n{page}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn blob(&self, name: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let answer = self.ask("POST", &path, "application/octet-stream", bytes);
        assert_eq!(answer.status, 201, "{}", answer.text());
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }

    /// Pushes a manifest; its descriptor.
    fn manifest(&self, name: &str, at: Option<&str>, manifest: &Value) -> Value {
        let text = manifest.to_string();
        let digest = Digest::of(text.as_bytes()).to_string();
        let media_type = manifest["mediaType"].as_str().unwrap();
        let answer =
            self.ask("PUT", &format!("/v2/{name}/manifests/{}", at.unwrap_or(&digest)), media_type, text.as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        json!({ "mediaType": media_type, "digest": digest, "size": text.len() })
    }

    /// An image with labels; its descriptor.
    fn image(&self, name: &str, at: Option<&str>, architecture: &str, labels: &Value, layers: &[usize]) -> Value {
        let steps: Vec<Value> =
            (0..layers.len()).map(|n| json!({ "created_by": format!("RUN dnf install -y step-{n}") })).collect();
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2026-11-02T08:15:00Z",
            "config": { "Labels": labels }, "history": steps, "rootfs": { "type": "layers", "diff_ids": [] },
        });
        let config = self.blob(name, CONFIG, config.to_string().as_bytes());
        let layer = |(n, size): (usize, &usize)| {
            let bytes: Vec<u8> = format!("{name} {architecture} {n} ").bytes().cycle().take(*size).collect();
            self.blob(name, "application/vnd.oci.image.layer.v1.tar", &bytes)
        };
        let layers: Vec<Value> = layers.iter().enumerate().map(layer).collect();
        let annotations = json!({ "org.opencontainers.image.source": format!("https://git.example.com/{name}") });
        self.manifest(
            name,
            at,
            &json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers, "annotations": annotations }),
        )
    }

    /// What a small mirror may hold.
    fn fill(&self) {
        for (version, size) in [("4.18.5", 900_000), ("4.17.27", 800_000), ("4.9.12", 700_000)] {
            let labels = json!({ "io.openshift.release": version });
            self.image(
                "openshift/release-images",
                Some(&format!("{version}-x86_64")),
                "amd64",
                &labels,
                &[size, 40_000],
            );
        }
        let labels = json!({ "operators.operatorframework.io.index.configs.v1": "/configs" });
        self.image("redhat/redhat-operator-index", Some("v4.18"), "amd64", &labels, &[1_200_000]);
        for version in ["6.7.1", "6.6.0"] {
            let chart = json!({ "name": "podinfo", "version": version, "apiVersion": "v2" }).to_string();
            let config = self.blob("charts/podinfo", "application/vnd.cncf.helm.config.v1+json", chart.as_bytes());
            let layer =
                self.blob("charts/podinfo", "application/vnd.cncf.helm.chart.content.v1.tar+gzip", version.as_bytes());
            let chart = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
            self.manifest("charts/podinfo", Some(version), &chart);
        }
        for (name, tag) in [
            ("ubi9/ubi-minimal", "9.4-1227"),
            ("payments/ledger", "2.14.0"),
            ("payments/settlement-with-a-long-name", "2026.11.20-rc.1"),
        ] {
            let children: Vec<Value> = ["amd64", "arm64", "s390x"]
                .into_iter()
                .map(|architecture| {
                    let mut child = self.image(
                        name,
                        None,
                        architecture,
                        &json!({ "vendor": "Example Bank" }),
                        &[300_000, 20_000, 5000],
                    );
                    child["platform"] = json!({ "os": "linux", "architecture": architecture });
                    child
                })
                .collect();
            let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": children });
            let subject = self.manifest(name, Some(tag), &index);
            let empty = self.blob(name, "application/vnd.oci.empty.v1+json", b"{}");
            let signature = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [],
                "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json", "subject": subject,
            });
            self.manifest(name, None, &signature);
        }
    }
}

/// Where pictures are kept for whoever wants to look at them.
fn pictures() -> PathBuf {
    let folder = tools::target_dir().join("pictures");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_page_serves_everybody() {
    let Some(browser) = Browser::start() else { return };
    let served = Served::new();
    served.fill();
    served.binary.run(["registry", "scrub", "--root", "store"]).expect_code(0);
    browser.sign_in(USER.0, USER.1);
    browser.without_scripts();
    let image = "/r/payments/settlement-with-a-long-name:2026.11.20-rc.1";
    for (name, path) in [
        ("overview", "/"),
        ("releases", "/releases"),
        ("repository", "/r/openshift/release-images"),
        ("image", image),
        ("search", "/search?q=pay"),
        ("clusters", "/clusters"),
        ("nothing", "/r/no/such:image"),
    ] {
        for (scheme, word) in [(Scheme::Light, "light"), (Scheme::Dark, "dark")] {
            for (width, height) in [(1280, 900), (320, 700)] {
                browser.look(width, height, scheme);
                browser.open(&format!("http://{}{path}", served.addr));
                let place = format!("{path} in {word} at {width}");
                assert_eq!(browser.ask(STRUCTURE), json!([]), "{place}");
                assert_eq!(browser.ask(CONTRAST), json!([]), "{place}");
                assert_eq!(browser.ask(OVERFLOW), json!([]), "{place}");
                let picture = pictures().join(format!("{name}-{word}-{width}.png"));
                browser.picture(&picture);
                // A page that failed to take its style, or to show anything, is a small picture.
                assert!(std::fs::metadata(&picture).unwrap().len() > 8_000, "{place}");
            }
        }
    }
    let ground = |scheme| {
        browser.look(1280, 900, scheme);
        browser.ask("return getComputedStyle(document.body).backgroundColor")
    };
    assert_ne!(ground(Scheme::Light), ground(Scheme::Dark));
    let complaints: Vec<String> = browser.complaints().into_iter().filter(|text| !text.contains("404")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn the_keyboard_reaches_everything() {
    let Some(browser) = Browser::start() else { return };
    let served = Served::new();
    served.fill();
    browser.sign_in(USER.0, USER.1);
    browser.look(1280, 900, Scheme::Light);
    browser.open(&format!("http://{}/", served.addr));
    browser.press(TAB);
    let first = browser.ask(FOCUS);
    assert_eq!((first["text"].as_str(), first["seen"].as_bool()), (Some("Skip to the content"), Some(true)), "{first}");
    let reachable = browser
        .ask("return document.querySelectorAll('a[href], button, input, summary, pre').length")
        .as_u64()
        .unwrap();
    for number in 1..reachable {
        browser.press(TAB);
        let focus = browser.ask(FOCUS);
        assert_eq!(focus["seen"], true, "the {number}th stop: {focus}");
        assert_ne!(focus["tag"], "BODY", "the {number}th stop of {reachable}");
    }
    // Over the skip link to the first link of the content.
    browser.open(&format!("http://{}/", served.addr));
    browser.press(&format!("{TAB}{ENTER}"));
    browser.arrive("/#content");
    browser.press(TAB);
    assert_eq!(browser.ask("return document.activeElement.closest('main') !== null"), true);
    // Brand, search box: a question and Enter.
    browser.open(&format!("http://{}/", served.addr));
    browser.press(&format!("{TAB}{TAB}{TAB}ledger{ENTER}"));
    browser.arrive("/search?q=ledger");
    assert!(
        browser.ask("return document.querySelector('main').textContent").as_str().unwrap().contains("payments/ledger")
    );
    assert_eq!(browser.ask("return document.querySelector('#q').value"), "ledger");
    assert!(browser.title().starts_with("Search"));
}

#[test]
fn an_archive_of_a_release_and_operators_is_shown() {
    let Some(world) = World::get(Scale::Small) else { return };
    let Some(upstream) = world.start(Serving::DockerRegistry) else { return };
    let binary = Binary::new(AIRLOCK).envs(upstream.env());
    let isc = upstream.isc("mix-01-happy").display().to_string();
    binary.run(["mirror", "-c", &isc, "file://usb"]).expect_code(0);
    let served = Served::with(binary, &["--archive", "usb", "--anonymous", "pull"]);
    let overview = served.page_with("/", &["Not verified yet", "read-only", "href=\"/release/", "href=\"/catalog/"]);
    let find = |page: &str, what: &str| -> String {
        let (_, rest) = page.split_once(&format!("href=\"{what}")).unwrap_or_else(|| panic!("no {what}:\n{page}"));
        format!("{what}{}", rest.split_once('"').unwrap().0)
    };
    let release = served.page_with(&find(&overview, "/release/"), &["Complete"]);
    assert!(!release.contains("Missing"), "{release}");
    let catalog = served.page_with(&find(&overview, "/catalog/"), &["Packages by name", "All "]);
    served.page_with(&find(&catalog, "/catalog/").replace("&amp;", "&"), &["Channels"]);
    let clusters = served.page_with("/clusters", &["- source: quay.io/openshift-release-dev/", "kind: CatalogSource"]);
    assert!(
        !clusters.contains("image: 127.0.0.1") || !clusters.contains(":sha256-"),
        "the published catalog is not what a cluster wants"
    );
    served.binary.run(["archive", "verify", "usb"]).expect_code(0);
    // A receipt is noticed while it serves.
    served.page_with("/", &["Nothing is damaged or missing"]);
    if let Some(browser) = Browser::start() {
        for (name, path) in [
            ("archive", "/".to_owned()),
            ("archive-release", find(&overview, "/release/")),
            ("archive-catalog", find(&overview, "/catalog/")),
            ("archive-clusters", "/clusters".to_owned()),
        ] {
            browser.look(1280, 900, Scheme::Light);
            browser.open(&format!("http://{}{path}", served.addr));
            assert_eq!(browser.ask(STRUCTURE), json!([]), "{path}");
            assert_eq!(browser.ask(CONTRAST), json!([]), "{path}");
            browser.picture(&pictures().join(format!("{name}.png")));
        }
    }
}
