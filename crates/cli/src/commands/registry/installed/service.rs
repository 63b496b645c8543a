//! What systemd is asked for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::Scope;
use tokio::process::Command;

use super::places::uid;
use crate::args::registry_install::ServiceArg;
use crate::environment;
use crate::exit::Failure;

/// How long systemd may take for one thing: a registry that is stopped lets requests under way finish.
const PATIENCE: Duration = Duration::from_secs(120);

/// A systemd: the machine's or the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Systemd {
    scope: Scope,
}

/// How a unit is.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// `active`, `activating`, `inactive`, `failed`.
    pub(super) active: String,
    /// What it says of that in detail.
    pub(super) sub: String,
    /// How the last run ended.
    pub(super) result: String,
    /// Its exit code.
    pub(super) code: String,
    /// How often it was started again by itself.
    pub(super) restarts: u32,
    /// Since when it is as it is.
    pub(super) since: String,
}

impl State {
    /// Why it is not running, in a few words.
    pub(super) fn reason(&self) -> String {
        match (self.result.as_str(), self.code.as_str()) {
            ("exit-code", code) => format!("exit code {code}"),
            ("" | "success", _) => format!("{}, {}", self.active, self.sub),
            (result, _) => result.to_owned(),
        }
    }
}

impl Systemd {
    /// The one of a scope that was chosen before.
    pub(super) fn of(scope: Scope) -> Self {
        Self { scope }
    }

    /// Who is to keep a registry running; `None` for nobody.
    pub(super) async fn choose(wanted: ServiceArg) -> Result<Option<Self>, Failure> {
        let (scope, is_wish) = match wanted {
            ServiceArg::None => return Ok(None),
            ServiceArg::System => (Scope::System, true),
            ServiceArg::User => (Scope::User, true),
            ServiceArg::Auto => (if uid() == 0 { Scope::System } else { Scope::User }, false),
        };
        if scope == Scope::System && uid() != 0 {
            return Err(Failure::usage(
                "only root can have the machine's systemd keep a registry running",
                "run it with sudo, or take --service user",
            ));
        }
        let systemd = Self { scope };
        // A container may have the programs without the service.
        let there = is_wish || Path::new("/run/systemd/system").is_dir();
        let asked = if there { systemd.run(&["show-environment"]).await } else { return Ok(None) };
        match asked {
            Ok(_) => Ok(Some(systemd)),
            Err(e) if is_wish => Err(e.hint("is systemd running here? --service none does without it").into()),
            Err(_) => Ok(None),
        }
    }

    /// Its scope.
    pub(super) fn scope(self) -> Scope {
        self.scope
    }

    /// Where it looks for units that were installed by hand.
    pub(super) fn folder(self) -> PathBuf {
        match self.scope {
            Scope::System | Scope::None => "/etc/systemd/system".into(),
            Scope::User => environment::config().join("systemd/user"),
        }
    }

    fn command(self, program: &str) -> Command {
        let mut command = Command::new(program);
        if self.scope == Scope::User {
            command.arg("--user");
            // After `su` or from cron the variable is missing, and the user's systemd is there.
            let place = format!("/run/user/{}", uid());
            if std::env::var_os("XDG_RUNTIME_DIR").is_none() && Path::new(&place).is_dir() {
                command.env("XDG_RUNTIME_DIR", place);
            }
        }
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs `systemctl`.
    pub(super) async fn run(self, arguments: &[&str]) -> Result<String, Error> {
        let shown =
            format!("systemctl {}{}", if self.scope == Scope::User { "--user " } else { "" }, arguments.join(" "));
        let what = || format!("run `{shown}`");
        let output = tokio::time::timeout(PATIENCE, self.command("systemctl").args(arguments).output())
            .await
            .map_err(|_| Error::new(ErrorKind::Io, what(), format!("it takes longer than {} s", PATIENCE.as_secs())))?
            .map_err(|e| Error::io(what(), &e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Error::new(ErrorKind::Io, what(), if said.is_empty() { output.status.to_string() } else { said }))
    }

    /// Starts a unit anew, as its file says now, and at every boot.
    pub(super) async fn start(self, unit: &str) -> Result<(), Error> {
        self.run(&["daemon-reload"]).await?;
        self.run(&["enable", unit]).await?;
        // What it counted of failed starts before is no news. One that systemd has not seen yet has nothing to forget.
        let _ = self.run(&["reset-failed", unit]).await;
        match self.run(&["restart", unit]).await {
            Ok(_) => Ok(()),
            // It was started and ended at once: whoever waits for it finds out why, and has the log.
            Err(e) => match self.state(unit).await {
                Ok(state) if state.result == "exit-code" || state.restarts > 0 => Ok(()),
                _ => Err(e),
            },
        }
    }

    /// Stops a unit and starts it at no boot. One that is not there is no error.
    pub(super) async fn stop(self, unit: &str) -> Result<(), Error> {
        let state = self.state(unit).await?;
        if state.active != "inactive" {
            self.run(&["stop", unit]).await?;
        }
        if self.folder().join(unit).exists() {
            self.run(&["disable", unit]).await?;
        }
        Ok(())
    }

    /// How a unit is.
    pub(super) async fn state(self, unit: &str) -> Result<State, Error> {
        let properties = "ActiveState,SubState,Result,ExecMainStatus,NRestarts,StateChangeTimestamp";
        let text = self.run(&["show", unit, "-p", properties]).await?;
        let mut state = State::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim().to_owned();
            match name {
                "ActiveState" => state.active = value,
                "SubState" => state.sub = value,
                "Result" => state.result = value,
                "ExecMainStatus" => state.code = value,
                "NRestarts" => state.restarts = value.parse().unwrap_or_default(),
                "StateChangeTimestamp" => state.since = value,
                _ => {}
            }
        }
        Ok(state)
    }

    /// The end of a unit's log; empty where there is none.
    pub(super) async fn log(self, unit: &str, lines: usize) -> String {
        let lines = lines.to_string();
        let arguments = ["-u", unit, "-n", &lines, "-o", "cat", "--no-pager", "-q"];
        let read = tokio::time::timeout(PATIENCE, self.command("journalctl").args(arguments).output()).await;
        match read {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
            _ => String::new(),
        }
    }

    /// What shows the whole log.
    pub(super) fn log_command(self, unit: &str) -> String {
        format!("journalctl {}-u {unit}", if self.scope == Scope::User { "--user " } else { "" })
    }

    /// A user's services end when the user logs out, unless they may linger; a word about it where that cannot be had.
    pub(super) async fn linger(self) -> Option<String> {
        if self.scope != Scope::User {
            return None;
        }
        let done = Command::new("loginctl").arg("enable-linger").stdin(std::process::Stdio::null()).output().await;
        match done {
            Ok(output) if output.status.success() => None,
            _ => Some(
                "the registry ends when this user logs out: have root run `loginctl enable-linger USER` to keep it"
                    .to_owned(),
            ),
        }
    }
}
