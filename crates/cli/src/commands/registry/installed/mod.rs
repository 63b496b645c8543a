//! `airlock registry install|upgrade|status|uninstall|cert`: a registry that stays.
//!
//! * [`install`] decides first (`prepare`), then does, and takes back what it did when a step fails
//! * [`places`] knows where registries are installed, [`service`] speaks to systemd, [`accounts`] to the machine's users
//! * [`cluster`] has what a cluster must be told, [`remote`] does any of it on another machine

pub(super) mod accounts;
pub(super) mod cert;
pub(super) mod cluster;
pub(super) mod install;
pub(super) mod places;
mod prepare;
mod remote;
mod service;
pub(super) mod status;
pub(super) mod uninstall;
pub(super) mod upgrade;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_mirror::clock::Time;
use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::probe::Answer;
use airlock_registry::install::{Probe, Root, Scope, Settings, trial};
use airlock_registry::tls::own::Folder;

use crate::args::registry_install::NeedlessArgs;
use service::Systemd;

/// How long a registry may take until it answers after its start.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// Starts that failed before one stops waiting for another.
const MAX_RESTARTS: u32 = 2;
/// Lines of the log that an error shows.
const LOG_LINES: usize = 12;

/// A word about flags that mirror-registry needs.
fn tell_needless(args: &NeedlessArgs) {
    for flag in args.given() {
        eprintln!("note: {flag} is not needed: there is no database, no container, no Ansible, no colour");
    }
}

/// How the registry is asked: under its name, with the certificate that it was given or made.
fn probe(root: &Root, settings: &Settings) -> Result<Probe, Error> {
    Probe::new(settings.listen, &settings.hostname, &Folder::at(&root.tls()))
}

/// Asks what systemd started until it answers.
async fn wait(
    systemd: &Systemd,
    root: &Root,
    settings: &Settings,
    credentials: Option<(&str, &str)>,
) -> Result<Answer, Error> {
    let unit = &settings.service.unit;
    let before = systemd.state(unit).await.map_or(0, |state| state.restarts);
    let mut reason = String::new();
    let gone = async || {
        let state = systemd.state(unit).await.ok()?;
        // Between two starts it does not say how the last one ended.
        if reason.is_empty() || state.result == "exit-code" {
            reason = state.reason();
        }
        (state.restarts >= before + MAX_RESTARTS || state.active == "failed")
            .then(|| format!("`{unit}` ends as soon as it is started ({reason})"))
    };
    let answered = probe(root, settings)?.wait(credentials, START_PATIENCE, gone).await;
    match answered {
        Ok(answer) => Ok(answer),
        Err(e) => {
            let log = trial::last_lines(&systemd.log(unit, LOG_LINES).await, LOG_LINES);
            let cause = if log.is_empty() { e.cause().to_owned() } else { format!("{}\n{log}", e.cause()) };
            Err(Error::new(ErrorKind::Server, e.what(), cause).hint(format!("look at `{}`", systemd.log_command(unit))))
        }
    }
}

/// The command that starts a registry which nobody keeps running, for a shell.
fn command_line(root: &Root, settings: &Settings) -> String {
    let mut words = vec![settings.service.program.display().to_string()];
    words.extend(settings.arguments(root));
    words.iter().map(|word| airlock_registry::install::unit::for_shell(word)).collect::<Vec<_>>().join(" ")
}

/// Whether a registry of this storage answers somebody.
fn is_served(storage: &Path) -> bool {
    airlock_registry::admin::ready(storage).is_some()
}

/// A time as RFC 3339.
fn date(time: SystemTime) -> String {
    Time(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())).rfc3339()
}

/// What systemd is asked with, where it keeps this registry running.
fn systemd_of(settings: &Settings) -> Option<Systemd> {
    match settings.service.scope {
        Scope::None => None,
        scope => Some(Systemd::of(scope)),
    }
}
