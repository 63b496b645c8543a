//! A real browser without a window: Chromium, told what to do through chromedriver's HTTP (W3C WebDriver).
//!
//! What is judged here is what a visitor meets: whether the keyboard reaches everything, whether text stands out from its ground,
//! whether the page fits a narrow screen, and what the browser complains about.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Running;
use crate::tools;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a page may take to be there after a key.
const ARRIVAL: Duration = Duration::from_secs(30);

/// A browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    driver: Running,
    session: String,
    /// The browser's profile, after the driver so that it ends first.
    _profile: TempDir,
}

/// An answer over HTTP.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head as it came, lower-case.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

/// What a browser is to pretend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// The visitor likes light pages.
    Light,
    /// The visitor likes dark pages.
    Dark,
}

/// One request to a server on this machine, on a connection of its own.
///
/// # Panics
/// When nobody answers, or not as HTTP.
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("connect to {address}: {e}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("set a time limit");
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    head.push_str(&format!("content-length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    // A server may answer, and close, before it has read everything.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    // Some servers keep the connection all the same, so that the length counts, where it is said.
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        let read = stream.read(&mut piece).unwrap_or_else(|e| panic!("{method} {address}{path}: {e}"));
        bytes.extend_from_slice(&piece[..read]);
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n");
        let Some(end) = end else {
            assert!(read > 0, "{method} {address}{path}: no answer");
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let whole = length.is_some_and(|length| method == "HEAD" || bytes.len() >= end + 4 + length);
        if read == 0 || whole {
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
            return Answer { status: status.expect("a status"), body: bytes.split_off(end + 4), head };
        }
    }
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Browser {
    /// Starts one. `None`, with a printed line, where Chromium or its driver are absent.
    ///
    /// # Panics
    /// When they are there and do not start.
    pub fn start() -> Option<Self> {
        let chromium = tools::need("chromium")?;
        let driver = tools::need("chromedriver")?;
        let profile = tempfile::Builder::new().prefix("airlock-browser-").tempdir().expect("create a profile");
        let driver = Running::start(&profile.path().join("driver.log"), |port| {
            let mut command = Command::new(&driver);
            // Everything that the browser writes stays in the profile.
            command.arg(format!("--port={}", port.number())).env("HOME", profile.path()).env("TMPDIR", profile.path());
            command
        });
        let arguments = [
            "--headless=new".to_owned(),
            // Root may not have a sandbox of Chromium's, and continuous integration often is root.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.path().join("profile").display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let address = driver.address();
        let answer = request(&address, "POST", "/session", &[], wanted.to_string().as_bytes());
        let value: Value = serde_json::from_slice(&answer.body).expect("an answer of the driver");
        let session = value["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {value}")).to_owned();
        Some(Self { driver, session, _profile: profile })
    }

    fn tell(&self, method: &str, what: &str, body: &Value) -> Value {
        self.try_tell(method, what, body).unwrap_or_else(|value| panic!("{what}: {value}"))
    }

    /// The driver's answer, or what it says against the command.
    fn try_tell(&self, method: &str, what: &str, body: &Value) -> Result<Value, Value> {
        let path = format!("/session/{}/{what}", self.session);
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let answer = request(&self.driver.address(), method, &path, &[], body.as_bytes());
        let mut value: Value = serde_json::from_slice(&answer.body).expect("an answer of the driver");
        if answer.status == 200 { Ok(value["value"].take()) } else { Err(value) }
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.tell("POST", "goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    /// Opens an address.
    ///
    /// # Panics
    /// When the browser cannot.
    pub fn open(&self, url: &str) {
        self.tell("POST", "url", &json!({ "url": url }));
    }

    /// Waits until a page whose address ends so is there and loaded: a key that sends a form or follows a link only starts the journey.
    ///
    /// # Panics
    /// When it is not there within half a minute.
    pub fn arrive(&self, end: &str) {
        let since = Instant::now();
        let place = json!({ "script": "return [document.readyState, location.href]", "args": [] });
        loop {
            // Between two pages there may be none to ask.
            let answer = self.try_tell("POST", "execute/sync", &place).unwrap_or_else(|refusal| refusal);
            if answer[0] == "complete" && answer[1].as_str().is_some_and(|url| url.ends_with(end)) {
                return;
            }
            assert!(since.elapsed() < ARRIVAL, "{end} is not there: {answer}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The title of the page.
    pub fn title(&self) -> String {
        self.tell("GET", "title", &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    /// Runs JavaScript of the test's own in the page (a function's body): the page itself has none.
    pub fn ask(&self, script: &str) -> Value {
        self.tell("POST", "execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Forbids the page to run anything.
    pub fn without_scripts(&self) {
        self.devtools("Emulation.setScriptExecutionDisabled", &json!({ "value": true }));
    }

    /// Presses keys, in the notation of WebDriver (`\u{e004}` is Tab, `\u{e007}` Enter).
    pub fn press(&self, keys: &str) {
        let of_key = |key: char| [json!({ "type": "keyDown", "value": key }), json!({ "type": "keyUp", "value": key })];
        let actions: Vec<Value> = keys.chars().flat_map(of_key).collect();
        self.tell("POST", "actions", &json!({ "actions": [{ "type": "key", "id": "keys", "actions": actions }] }));
    }

    /// Sets the size of the page and the scheme that the visitor likes.
    pub fn look(&self, width: u32, height: u32, scheme: Scheme) {
        let screen = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", &screen);
        let value = if scheme == Scheme::Dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": value }] });
        self.devtools("Emulation.setEmulatedMedia", &media);
    }

    /// Sends this with every request: what the visitor would type into the browser's own dialog.
    pub fn sign_in(&self, user: &str, password: &str) {
        let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        self.devtools("Network.enable", &json!({}));
        self.devtools("Network.setExtraHTTPHeaders", &json!({ "headers": { "Authorization": value } }));
    }

    /// A picture of the whole page.
    ///
    /// # Panics
    /// When it cannot be taken or written.
    pub fn picture(&self, path: &Path) {
        let taken = self.devtools("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let bytes = STANDARD.decode(taken["data"].as_str().unwrap_or_default()).expect("a picture");
        fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// What the browser complained about since it was asked last.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.tell("POST", "se/log", &json!({ "type": "browser" }));
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        log.as_array().map(|entries| entries.iter().map(text).collect()).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser's processes; killed, it would leave them behind.
        let path = format!("/session/{}", self.session);
        if let Ok(mut stream) = TcpStream::connect(self.driver.address()) {
            let head =
                format!("DELETE {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.driver.address());
            let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.read(&mut [0; 1024]));
        }
    }
}
