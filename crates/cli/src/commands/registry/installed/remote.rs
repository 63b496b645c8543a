//! The same on another machine: this program is copied there and run there, over the system's `ssh`.
//!
//! Passwords go through standard input, never onto a command line. What was copied is removed again, also when something failed; what
//! stays is what the installation itself put in place.

use std::path::Path;
use std::process::Stdio;

use airlock_oci::{Error, ErrorKind};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::prepare;
use super::uninstall::confirm;
use crate::args::registry_install::{InstallArgs, ServiceArg, TargetArgs, UninstallArgs, UpgradeArgs};
use crate::exit::Failure;
use crate::output::Format;

/// Seconds until a machine that does not answer is given up.
const CONNECT_SECONDS: u32 = 20;
/// What `ssh` itself ends with when it fails, rather than the command there.
const SSH_FAILED: i32 = 255;

/// Whether another machine than this one is meant.
pub(super) fn is_elsewhere(target: &TargetArgs) -> bool {
    let Some(host) = &target.target_hostname else { return false };
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    !(matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1") || *host == own.trim())
}

/// `registry install` there.
pub(super) async fn install(args: &InstallArgs) -> Result<u8, Failure> {
    let mut warnings = Vec::new();
    let password = prepare::password(args, &mut warnings)?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    let password = password.as_ref().map(|password| password.reveal());
    on(&args.target, async |there| install_there(there, args, password).await).await
}

/// Copies this program to another machine, has it work there, and removes it again: also when that failed, or was stopped by Ctrl-C, for
/// what was copied may be a key.
async fn on(target: &TargetArgs, work: impl AsyncFnOnce(&Machine) -> Result<u8, Error>) -> Result<u8, Failure> {
    let listen = |kind| signal(kind).map_err(|e| Error::io("listen for Ctrl-C", &e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let there = Machine::reach(target).await?;
    let work = async {
        there.copy_program().await?;
        work(&there).await
    };
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = stopped => {
            let what = format!("work on `{}`", there.host);
            Err(Error::new(ErrorKind::Interrupted, what, "it was stopped")
                .hint("what had begun there may still be done; the same command again goes on"))
        }
    };
    there.remove().await;
    Ok(outcome?)
}

async fn install_there(there: &Machine, args: &InstallArgs, password: Option<&str>) -> Result<u8, Error> {
    let mut words = Words::of(&["registry", "install"]);
    words.pair("--hostname", args.hostname.clone());
    // Only for the first time: afterwards it is called what it has been called since.
    words.pair("--default-hostname", args.target.target_hostname.clone());
    words.pair("--root", args.root.as_ref().map(|path| path.display().to_string()));
    words.pair("--storage", args.storage.as_ref().map(|path| path.display().to_string()));
    words.pair("--listen", args.listen.map(|listen| listen.to_string()));
    for name in &args.also_for {
        words.pair("--also-for", Some(name.clone()));
    }
    words.pair("--init-user", args.init_user.clone());
    words.flag("--init-password-stdin", password.is_some());
    let files = [
        ("--ssl-cert", &args.ssl_cert, "tls.crt"),
        ("--ssl-key", &args.ssl_key, "tls.key"),
        ("--ssl-ca", &args.ssl_ca, "ca.crt"),
        ("--rights", &args.rights, "rights"),
    ];
    for (flag, path, name) in files {
        if let Some(path) = path {
            words.pair(flag, Some(there.copy(path, name).await?));
        }
    }
    words.flag("--ssl-check-skip", args.ssl_check_skip);
    words.joined("--anonymous-pull", args.anonymous_pull);
    words.joined("--tokens", args.tokens);
    words.pair("--metrics", args.metrics.map(|metrics| metrics.to_string()));
    let service = args.service.map(|service| match service {
        ServiceArg::Auto => "auto",
        ServiceArg::System => "system",
        ServiceArg::User => "user",
        ServiceArg::None => "none",
    });
    words.pair("--service", service.map(str::to_owned));
    words.pair("--service-user", args.service_user.clone());
    words.flag("--dry-run", args.dry_run);
    let form = match args.output {
        Format::Table => "table",
        Format::Json => "json",
        Format::Yaml => "yaml",
    };
    words.pair("--output", Some(form.to_owned()));
    there.airlock(&words, password).await
}

/// `registry upgrade` there, to this program.
pub(super) async fn upgrade(args: &UpgradeArgs) -> Result<u8, Failure> {
    if args.program.is_some() {
        return Err(Failure::usage(
            "--program cannot be copied to another machine",
            "run that program here instead: it upgrades the other machine to itself",
        ));
    }
    on(&args.target, async |there| upgrade_there(there, args).await).await
}

async fn upgrade_there(there: &Machine, args: &UpgradeArgs) -> Result<u8, Error> {
    let mut words = Words::of(&["registry", "upgrade"]);
    words.pair("--root", args.root.as_ref().map(|path| path.display().to_string()));
    words.pair("--hostname", args.hostname.clone());
    words.pair("--storage", args.storage.as_ref().map(|path| path.display().to_string()));
    words.flag("--ssl-check-skip", args.ssl_check_skip);
    words.flag("--dry-run", args.dry_run);
    for (flag, path, name) in [("--ssl-cert", &args.ssl_cert, "tls.crt"), ("--ssl-key", &args.ssl_key, "tls.key")] {
        if let Some(path) = path {
            words.pair(flag, Some(there.copy(path, name).await?));
        }
    }
    there.airlock(&words, None).await
}

/// `registry uninstall` there; asked is here.
pub(super) async fn uninstall(args: &UninstallArgs) -> Result<u8, Failure> {
    let host = args.target.target_hostname.as_deref().unwrap_or_default();
    let data = if args.delete_data { " and DELETE everything that is mirrored there" } else { "" };
    confirm(&format!("Uninstall the registry on `{host}`{data}?"), args.yes)?;
    let mut words = Words::of(&["registry", "uninstall", "--yes"]);
    words.pair("--root", args.root.as_ref().map(|path| path.display().to_string()));
    words.flag("--delete-data", args.delete_data);
    on(&args.target, async |there| there.airlock(&words, None).await).await
}

/// A command line.
struct Words(Vec<String>);

impl Words {
    fn of(words: &[&str]) -> Self {
        Self(words.iter().map(|word| (*word).to_owned()).collect())
    }

    fn pair(&mut self, flag: &str, value: Option<String>) {
        self.0.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }

    fn flag(&mut self, flag: &str, given: bool) {
        self.0.extend(given.then(|| flag.to_owned()));
    }

    fn joined(&mut self, flag: &str, value: Option<bool>) {
        self.0.extend(value.map(|value| format!("{flag}={value}")));
    }
}

/// Another machine, with a folder of ours in the user's home: where `/tmp` may not have programs, homes may.
struct Machine {
    ssh: Vec<String>,
    host: String,
    folder: String,
}

impl Machine {
    /// Makes the folder there, after a look whether this program can run there.
    async fn reach(target: &TargetArgs) -> Result<Self, Error> {
        let host = target.target_hostname.clone().unwrap_or_default();
        let mut ssh: Vec<String> = vec!["-o".into(), format!("ConnectTimeout={CONNECT_SECONDS}")];
        if let Some(key) = &target.ssh_key {
            ssh.extend(["-o".into(), "IdentitiesOnly=yes".into(), "-i".into(), key.display().to_string()]);
        }
        if let Some(user) = &target.target_username {
            ssh.extend(["-l".to_owned(), user.clone()]);
        }
        // What begins with a hyphen would be taken for a flag.
        if host.is_empty() || host.starts_with('-') {
            let what = format!("reach `{host}`");
            return Err(
                Error::new(ErrorKind::Invalid, what, "it is not the name of a host").hint("--target-hostname HOST")
            );
        }
        let mut there = Self { ssh, host, folder: String::new() };
        let kind = there.answer("uname -sm").await?;
        if kind.trim() != own_kind() {
            let cause = format!("it is `{}`, and this program is for `{}`", kind.trim(), own_kind());
            return Err(Error::new(ErrorKind::Unsupported, format!("install on `{}`", there.host), cause)
                .hint("run the airlock that was built for that machine, from any machine of its kind"));
        }
        there.folder = there.answer("umask 077 && mktemp -d \"$HOME/.airlock-XXXXXX\"").await?.trim().to_owned();
        Ok(there)
    }

    /// Copies this program into the folder, and sees that it runs.
    async fn copy_program(&self) -> Result<(), Error> {
        let program = std::env::current_exe().map_err(|e| Error::io("find the program that is running", &e))?;
        eprintln!("copying airlock to {}", self.host);
        let path = self.copy(&program, "airlock").await?;
        self.answer(&format!("chmod 700 {0} && {0} version", quoted(&path))).await.map(drop)
    }

    /// Copies a file into the folder; its path there.
    async fn copy(&self, from: &Path, name: &str) -> Result<String, Error> {
        let path = format!("{}/{name}", self.folder);
        let file = std::fs::File::open(from).map_err(|e| Error::io(format!("read `{}`", from.display()), &e))?;
        let mut command = self.command(&format!("umask 077 && cat > {}", quoted(&path)));
        let output = command.stdin(file).stdout(Stdio::null()).output().await;
        self.judge(&format!("copy `{}` to", from.display()), output).map(|_| path)
    }

    /// Runs our program there; what it prints is printed here. Its exit code.
    async fn airlock(&self, words: &Words, input: Option<&str>) -> Result<u8, Error> {
        let what = || format!("run airlock on `{}`", self.host);
        let mut line = quoted(&format!("{}/airlock", self.folder));
        for word in &words.0 {
            line.push(' ');
            line.push_str(&quoted(word));
        }
        let mut command = self.command(&line);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|e| missing(&e).context(what()))?;
        if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
            // Where it ended without reading, its own words say why.
            let _ = pipe.write_all(format!("{text}\n").as_bytes()).await;
        }
        let status = child.wait().await.map_err(|e| Error::io(what(), &e))?;
        match status.code() {
            Some(SSH_FAILED) | None => Err(Error::new(ErrorKind::Network, what(), "the connection ended")),
            Some(code) => Ok(u8::try_from(code).unwrap_or(1)),
        }
    }

    /// Removes what was copied.
    async fn remove(&self) {
        if let Err(e) = self.answer(&format!("rm -rf -- {}", quoted(&self.folder))).await {
            eprintln!("warning: `{}` on {} is left behind: {e}", self.folder, self.host);
        }
    }

    /// Runs a command of the shell there; what it printed.
    async fn answer(&self, line: &str) -> Result<String, Error> {
        let output = self.command(line).stdin(Stdio::null()).stdout(Stdio::piped()).output().await;
        self.judge("use", output)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(&self.ssh).arg(&self.host).arg(line).stderr(Stdio::inherit()).kill_on_drop(true);
        command
    }

    fn judge(&self, doing: &str, output: std::io::Result<std::process::Output>) -> Result<String, Error> {
        let what = format!("{doing} `{}`", self.host);
        let output = output.map_err(|e| missing(&e).context(what.clone()))?;
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Some(SSH_FAILED) => Err(Error::new(ErrorKind::Network, what, "ssh does not get there")
                .hint("try `ssh` by hand; --target-username and --ssh-key say as whom")),
            _ => Err(Error::new(ErrorKind::Io, what, "the command there failed, as it says above")),
        }
    }
}

fn missing(e: &std::io::Error) -> Error {
    let error = Error::io("run `ssh`", e);
    if e.kind() == std::io::ErrorKind::NotFound { error.hint("install the OpenSSH client") } else { error }
}

/// What `uname -sm` says on machines that run this program.
fn own_kind() -> String {
    let machine = match std::env::consts::ARCH {
        "powerpc64" => "ppc64le",
        other => other,
    };
    format!("Linux {machine}")
}

/// One word for the shell there.
fn quoted(word: &str) -> String {
    airlock_registry::install::unit::for_shell(word)
}
