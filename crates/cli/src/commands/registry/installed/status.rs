//! `airlock registry status`: whether it runs, answers and is ready; until when its certificate lasts; how much room is left.

use std::time::SystemTime;

use airlock_oci::Error;
use airlock_registry::install::probe::Answer;
use airlock_registry::install::{Root, Scope, Settings, free_bytes, trial};
use airlock_registry::tls::facts::{self, Facts};
use airlock_registry::tls::own::Folder;
use airlock_registry::{PasswordFile, admin};
use serde::Serialize;

use super::cluster::kept_password;
use super::{LOG_LINES, date, places, probe, systemd_of};
use crate::args::registry_install::StatusArgs;
use crate::exit::Failure;
use crate::output;

/// A certificate that ends within this many seconds is told of.
const SOON: u64 = 30 * 24 * 3600;
/// A CA that ends within this many seconds is told of: every cluster has to be told of the next one.
const SOON_FOR_CA: u64 = 365 * 24 * 3600;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    url: String,
    root: String,
    storage: String,
    version: String,
    /// Everything is as it should be.
    healthy: bool,
    /// What is not, and what will soon not be.
    problems: Vec<String>,
    warnings: Vec<String>,
    service: ServiceStatus,
    certificate: Option<CertificateStatus>,
    users: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    free_bytes: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceStatus {
    scope: Scope,
    unit: Option<String>,
    state: String,
    since: String,
    restarts: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateStatus {
    /// Made here, rather than given.
    own: bool,
    #[serde(flatten)]
    facts: Facts,
    not_after: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_not_after: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: StatusArgs) -> Result<u8, Failure> {
    let (root, settings) = places::installed(args.root.as_deref())?;
    let (status, log) = look(&root, &settings).await;
    let code = u8::from(!status.healthy);
    if output::value(args.output, &status)? {
        return Ok(code);
    }
    let mut rows = vec![
        ("registry", status.url.clone()),
        ("health", if status.healthy { "healthy".to_owned() } else { "not healthy".to_owned() }),
        ("service", service_text(&status.service)),
        ("version", status.version.clone()),
    ];
    if let Some(certificate) = &status.certificate {
        let origin = match &certificate.renewed_at {
            Some(at) => format!("made anew by itself on {}", day(at)),
            None => "given; nobody renews it here".to_owned(),
        };
        rows.push(("certificate", format!("until {} ({origin})", day(&certificate.not_after))));
        rows.push(("good for", certificate.facts.names.join(", ")));
    }
    rows.push(("users", status.users.join(", ")));
    rows.push(("storage", status.storage.clone()));
    rows.extend(status.free_bytes.map(|free| ("free", output::size(free))));
    rows.push(("settings", root.settings().display().to_string()));
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::text(&output::table(&["WHAT", "HOW"], &rows))?;
    for problem in &status.problems {
        eprintln!("problem: {problem}");
    }
    for warning in &status.warnings {
        eprintln!("warning: {warning}");
    }
    if !log.is_empty() {
        eprintln!("the end of its log:\n{log}");
    }
    Ok(code)
}

/// The day of a time.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

fn service_text(service: &ServiceStatus) -> String {
    let unit = service.unit.as_deref().unwrap_or("nobody keeps it running");
    let mut text = format!("{unit}, {}", service.state);
    if !service.since.is_empty() {
        text.push_str(&format!(" since {}", service.since));
    }
    if service.restarts > 0 {
        text.push_str(&format!(", started again {} times", service.restarts));
    }
    text
}

async fn look(root: &Root, settings: &Settings) -> (Status, String) {
    let (mut problems, mut warnings, mut log) = (Vec::new(), Vec::new(), String::new());
    let mut service = ServiceStatus {
        scope: settings.service.scope,
        unit: None,
        state: String::new(),
        since: String::new(),
        restarts: 0,
    };
    let password = kept_password(root, settings);
    let credentials = password.as_deref().map(|password| (settings.init_user.as_str(), password));
    let answer = match probe(root, settings) {
        Ok(probe) => probe.ask(credentials).await,
        Err(e) => Err(e),
    };
    match &answer {
        Err(e) => problems.push(format!("cannot {}: {}", e.what(), e.cause())),
        Ok(Answer::Unauthorized) if credentials.is_some() => warnings.push(format!(
            "the password in `{}` is not that of `{}` any more",
            root.pull_secret().display(),
            settings.init_user
        )),
        Ok(_) => {}
    }
    if let Some(Err(why)) = admin::ready(&settings.storage) {
        problems.push(format!("it is not ready: {why}"));
    }
    match systemd_of(settings) {
        None => service.state = if answer.is_ok() { "running".to_owned() } else { "not running".to_owned() },
        Some(systemd) => {
            let unit = settings.service.unit.clone();
            match systemd.state(&unit).await {
                Err(e) => problems.push(format!("cannot {}: {}", e.what(), e.cause())),
                Ok(state) => {
                    if state.active != "active" {
                        problems.push(format!("`{unit}` is not running ({})", state.reason()));
                    }
                    service.state = format!("{} ({})", state.active, state.sub);
                    (service.since, service.restarts) = (state.since, state.restarts);
                }
            }
            if !problems.is_empty() {
                log = trial::last_lines(&systemd.log(&unit, LOG_LINES).await, LOG_LINES);
            }
            service.unit = Some(unit);
        }
    }
    let certificate = match certificate(root, settings, &mut problems, &mut warnings) {
        Ok(certificate) => Some(certificate),
        Err(e) => {
            problems.push(format!("cannot {}: {}", e.what(), e.cause()));
            None
        }
    };
    let status = Status {
        url: settings.url(),
        root: root.path().display().to_string(),
        storage: settings.storage.display().to_string(),
        version: settings.airlock.clone(),
        healthy: problems.is_empty(),
        problems,
        warnings,
        service,
        certificate,
        users: PasswordFile::at(&root.htpasswd()).names().unwrap_or_default(),
        free_bytes: free_bytes(&settings.storage),
    };
    (status, log)
}

fn certificate(
    root: &Root,
    settings: &Settings,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<CertificateStatus, Error> {
    let shown = Folder::at(&root.tls()).shown()?;
    let leaf = shown.leaf()?;
    let facts = Facts::of(&leaf)?;
    let now = SystemTime::now();
    let left = |until: SystemTime| until.duration_since(now).unwrap_or_default().as_secs();
    if left(facts.not_after) == 0 {
        problems.push("the certificate is not valid any more: `airlock registry cert renew|set`".to_owned());
    } else if left(facts.not_after) < SOON {
        warnings.push(format!("the certificate ends on {}: `airlock registry cert set`", day(&date(facts.not_after))));
    }
    if !facts::covers(&leaf, &settings.hostname) {
        warnings.push(format!("the certificate is not for `{}`: right only behind a proxy", settings.hostname));
    }
    let ca = match shown.ca() {
        Some(pem) => Some(Facts::of(&facts::chain(pem.as_bytes())?[0])?.not_after),
        None => None,
    };
    if let Some(end) = ca.filter(|end| left(*end) < SOON_FOR_CA) {
        warnings.push(format!("the CA ends on {}: every cluster has to be told of another one", day(&date(end))));
    }
    Ok(CertificateStatus {
        own: ca.is_some(),
        not_after: date(facts.not_after),
        renewed_at: ca.map(|_| date(facts.renew_at())),
        ca_not_after: ca.map(date),
        facts,
    })
}
