//! Decides everything about an installation before anything is changed.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::settings::{DEFAULT_PORT, DEFAULT_USER, SERVICE_USER, UNIT};
use airlock_registry::install::{Host, Root, Scope, Service, Settings, free_bytes, names, unit};
use airlock_registry::tls::facts;
use airlock_registry::tls::own::Given;
use airlock_registry::{Password, Rights};

use super::accounts::{self, Owner};
use super::service::Systemd;
use super::{is_served, places};
use crate::args::registry_install::{InstallArgs, ServiceArg};
use crate::exit::{Exit, Failure};
use crate::output;

/// Bytes of a certificate, a key or a file of rights at most.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What one minor release of OpenShift takes: with less there is little use in a mirror.
const LITTLE_SPACE: u64 = 12 * 1024 * 1024 * 1024;
/// How long the DNS may take.
const DNS_PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a password's line at most.
const MAX_LINE_BYTES: u64 = 4096;

/// Everything that was decided.
pub(super) struct Prepared {
    pub(super) root: Root,
    /// What is installed there now.
    pub(super) before: Option<Settings>,
    pub(super) settings: Settings,
    pub(super) systemd: Option<Systemd>,
    /// The program that is copied.
    pub(super) program: PathBuf,
    /// A certificate that was given.
    pub(super) given: Option<Given>,
    /// The first user's password, when one was given.
    pub(super) password: Option<Password>,
    /// The text of the file of rights, when one was given.
    pub(super) rights: Option<String>,
    /// What the user should know.
    pub(super) warnings: Vec<String>,
}

impl Prepared {
    /// From flags, what was remembered, and the machine. Changes nothing.
    pub(super) async fn of(args: &InstallArgs) -> Result<Self, Failure> {
        let root = places::for_install(args.root.as_deref())?;
        let before = root.read()?;
        let mut warnings = Vec::new();
        let host = host(args, before.as_ref(), &mut warnings)?;
        let old_port = before.as_ref().map(|old| old.port);
        let port = host.port().or(old_port).or(args.listen.map(|l| l.port())).unwrap_or(DEFAULT_PORT);
        let listen = match (args.listen, &before) {
            (Some(listen), _) => listen,
            // It was asked for another port than before: at the same addresses.
            (None, Some(old)) if old.listen.port() == old.port => SocketAddr::new(old.listen.ip(), port),
            (None, Some(old)) => old.listen,
            (None, None) => everywhere(port),
        };
        if listen.port() == 0 {
            return Err(Failure::usage("an installed registry needs a port of its own", "give --listen ADDR:PORT"));
        }
        let storage = storage(args, &root, before.as_ref())?;
        let (systemd, service) = service(args, &root, &host, before.as_ref()).await?;
        let mut settings = Settings::new(host.name().to_owned(), port, listen, storage, service);
        settings.names = certificate_names(args, &host, before.as_ref())?;
        let old = before.as_ref();
        let given_user = args.init_user.clone().or(old.map(|old| old.init_user.clone()));
        settings.init_user = given_user.unwrap_or_else(|| DEFAULT_USER.to_owned());
        settings.anonymous_pull = args.anonymous_pull.unwrap_or_else(|| old.is_some_and(|old| old.anonymous_pull));
        settings.tokens = args.tokens.unwrap_or_else(|| old.is_some_and(|old| old.tokens));
        settings.metrics = args.metrics.or_else(|| old.and_then(|old| old.metrics));
        settings.rights = args.rights.is_some() || old.is_some_and(|old| old.rights);
        let rights = match &args.rights {
            None => None,
            Some(path) => {
                Rights::read(path)?;
                Some(String::from_utf8_lossy(&read(path)?).into_owned())
            }
        };
        let given = given(args, &settings.hostname)?;
        if given.as_ref().is_some_and(|given| given.authority.is_none()) {
            warnings.push(
                "the CA of the certificate is not in its file, so there is nothing for clusters to trust; --ssl-ca FILE says it".into(),
            );
        }
        let prepared = Self {
            program: std::env::current_exe().map_err(|e| Error::io("find the program that is running", &e))?,
            password: password(args, &mut warnings)?,
            root,
            before,
            settings,
            systemd,
            given,
            rights,
            warnings,
        };
        prepared.check_port(args)?;
        Ok(prepared.with_warnings().await)
    }

    /// Whose the storage, the certificate's folder and the users' file are, where the service is not who installs it.
    pub(super) async fn owner(&self) -> Result<Option<Owner>, Error> {
        let Some(user) = &self.settings.service.user else { return Ok(None) };
        let owner = accounts::owner(user).await;
        // What is there and somebody else's is not taken away from them: it may be served by another registry. An empty folder of root's
        // was made for this.
        let storage = &self.settings.storage;
        let uid = |path: &Path| fs::metadata(path).ok().map(|about| about.uid());
        let content = uid(&storage.join("docker"));
        let theirs = content.or(uid(storage).filter(|uid| *uid != 0));
        if let Some(theirs) = theirs.filter(|theirs| owner.is_none_or(|(uid, _)| uid != *theirs)) {
            let storage = storage.display();
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("use `{storage}` as the storage"),
                format!("it belongs to the user {theirs}, and the registry is to run as `{user}`"),
            )
            .hint(format!(
                "`--service-user` takes that user; or make the user `{user}` and `chown -R {user}: {storage}`"
            )));
        }
        Ok(owner)
    }

    fn is_running_here(&self) -> bool {
        self.before.as_ref().is_some_and(|old| old.installed && is_served(&old.storage))
    }

    /// Nobody else may be at the port.
    fn check_port(&self, args: &InstallArgs) -> Result<(), Failure> {
        let listen = self.settings.listen;
        let is_own = self.is_running_here() && self.before.as_ref().is_some_and(|old| old.listen == listen);
        if args.dry_run || is_own {
            return Ok(());
        }
        match TcpListener::bind(listen) {
            Ok(_) => Ok(()),
            Err(e) => {
                let hint = match e.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "ports below 1024 are root's: take another with --hostname HOST:PORT, or install as root"
                    }
                    std::io::ErrorKind::AddrInUse => {
                        "another program has this port: `ss -ltnp` shows which; --hostname HOST:PORT takes another"
                    }
                    _ => "--listen ADDR:PORT takes an address of this machine",
                };
                Err(Error::io(format!("listen on {listen}"), &e).hint(hint).into())
            }
        }
    }

    async fn with_warnings(mut self) -> Self {
        let settings = &self.settings;
        let host = &settings.hostname;
        if host.parse::<IpAddr>().is_ok() {
            self.warnings.push(format!("`{host}` is an address: OpenShift wants a name that every node can resolve"));
        } else if !host.contains('.') {
            self.warnings.push(format!("`{host}` has no domain: nodes must be able to resolve exactly this name"));
        } else if !is_known(host, settings.port).await {
            self.warnings.push(format!("`{host}` cannot be resolved on this machine: the DNS of clients needs it"));
        }
        if let Some(free) = free_bytes(&settings.storage).filter(|free| *free < LITTLE_SPACE) {
            self.warnings.push(format!(
                "{} are free for `{}`; one release of OpenShift takes about {}",
                output::size(free),
                settings.storage.display(),
                output::size(LITTLE_SPACE)
            ));
        }
        if self.systemd.is_none() {
            self.warnings.push("there is no systemd to keep the registry running".into());
        }
        if Path::new("/usr/bin/firewall-cmd").exists() && !settings.listen.ip().is_loopback() {
            let port = settings.listen.port();
            let open = format!("firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload");
            self.warnings.push(format!("the firewall must let clients in: `{open}`"));
        }
        self
    }
}

/// Whether a name can be resolved here; a DNS that does not answer is none.
async fn is_known(host: &str, port: u16) -> bool {
    matches!(tokio::time::timeout(DNS_PATIENCE, tokio::net::lookup_host((host, port))).await, Ok(Ok(_)))
}

fn host(args: &InstallArgs, before: Option<&Settings>, warnings: &mut Vec<String>) -> Result<Host, Failure> {
    if let Some(text) = &args.hostname {
        return Ok(text.parse()?);
    }
    if let Some(old) = before {
        return Ok(names::authority(&old.hostname, None).parse()?);
    }
    if let Some(text) = &args.default_hostname {
        return Ok(text.parse()?);
    }
    let machine = machine_name();
    let host: Host = machine.parse().map_err(|_| {
        Failure::usage(
            format!("this machine's name, `{machine}`, is no name for a registry"),
            "give --hostname HOST[:PORT]",
        )
    })?;
    warnings.push(format!("clients must know the registry as `{host}`, this machine's name; --hostname says another"));
    Ok(host)
}

fn machine_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Every address of the machine, of both families where it has both.
fn everywhere(port: u16) -> SocketAddr {
    let has_ipv6 = fs::read_to_string("/proc/net/if_inet6").is_ok_and(|text| !text.trim().is_empty());
    let ip: IpAddr = if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    (ip, port).into()
}

fn certificate_names(args: &InstallArgs, host: &Host, before: Option<&Settings>) -> Result<Vec<String>, Failure> {
    let mut wanted = match before {
        // What it is good for stays, so that an installation that is only repeated changes nothing.
        Some(old) if old.hostname == host.name() => old.names.clone(),
        _ => {
            let text = |path| fs::read_to_string(path).unwrap_or_default();
            let addresses = names::addresses(&text("/proc/net/fib_trie"), &text("/proc/net/if_inet6"));
            names::proposed(host, &machine_name(), &addresses)
        }
    };
    for text in &args.also_for {
        let more: Host = text.parse()?;
        if !wanted.iter().any(|name| name == more.name()) {
            wanted.push(more.name().to_owned());
        }
    }
    Ok(wanted)
}

fn storage(args: &InstallArgs, root: &Root, before: Option<&Settings>) -> Result<PathBuf, Failure> {
    let old = before.map(|old| old.storage.clone());
    let Some(given) = &args.storage else { return Ok(old.unwrap_or_else(|| root.storage())) };
    let wanted = std::path::absolute(given).map_err(|e| Error::io(format!("find `{}`", given.display()), &e))?;
    match old.filter(|old| *old != wanted && old.join("docker").exists()) {
        None => Ok(wanted),
        Some(old) => {
            let (old, wanted) = (old.display(), wanted.display());
            let error = Error::new(
                ErrorKind::Refused,
                format!("use `{wanted}` as the storage"),
                format!("what is mirrored lies in `{old}` and would not be served any more"),
            )
            .hint(format!("stop the registry, `mv {old} {wanted}`, and install again"));
            Err(Failure::Coded(error, Exit::Refused.code()))
        }
    }
}

async fn service(
    args: &InstallArgs,
    root: &Root,
    host: &Host,
    before: Option<&Settings>,
) -> Result<(Option<Systemd>, Service), Failure> {
    let old = before.map(|old| &old.service);
    let wanted = match (args.service, old.map(|old| old.scope)) {
        (Some(wanted), _) => wanted,
        (None, Some(Scope::System)) => ServiceArg::System,
        (None, Some(Scope::User)) => ServiceArg::User,
        (None, Some(Scope::None)) => ServiceArg::None,
        (None, None) => ServiceArg::Auto,
    };
    let systemd = Systemd::choose(wanted).await?;
    let scope = systemd.map_or(Scope::None, Systemd::scope);
    if let Some(old) = old.filter(|old| old.scope != scope && old.scope != Scope::None)
        && before.is_some_and(|old| old.installed)
    {
        return Err(Failure::usage(
            format!("it is kept running by `{}` of another systemd", old.unit),
            "uninstall it first (what is mirrored stays), then install it again",
        ));
    }
    let folder = systemd.map_or_else(|| root.path().to_owned(), Systemd::folder);
    // A name that is remembered from before an uninstallation may be another registry's by now.
    let unit = match old.filter(|old| old.scope == scope && is_ours_or_free(&folder.join(&old.unit), root)) {
        Some(old) => old.unit.clone(),
        None => unit_name(&folder, root, host),
    };
    let program = match scope {
        // Where SELinux keeps the machine's systemd from starting anything below /var.
        Scope::System => PathBuf::from("/usr/local/bin").join(unit.trim_end_matches(".service")),
        Scope::User | Scope::None => root.program(),
    };
    let user = match (scope, &args.service_user, old) {
        (Scope::System, Some(user), _) if user == "root" => None,
        (Scope::System, Some(user), _) => Some(user.clone()),
        (Scope::System, None, Some(old)) if old.scope == Scope::System => old.user.clone(),
        (Scope::System, None, _) => Some(SERVICE_USER.to_owned()),
        (_, Some(_), _) => {
            return Err(Failure::usage(
                "--service-user is for a registry that the machine's systemd keeps running",
                "leave it out: it runs as the user who installs it",
            ));
        }
        (_, None, _) => None,
    };
    let user_made = old.is_some_and(|old| old.user_made && old.user == user);
    Ok((systemd, Service { scope, unit, folder, program, user, user_made }))
}

/// The unit's usual name; with the port, and then a number, where other registries have that.
fn unit_name(folder: &Path, root: &Root, host: &Host) -> String {
    let usual = format!("{UNIT}.service");
    let port = host.port().unwrap_or(DEFAULT_PORT);
    // The port that clients write may be that of several registries behind one proxy.
    let further = (1u32..).map(|number| match number {
        1 => format!("{UNIT}-{port}.service"),
        _ => format!("{UNIT}-{port}-{number}.service"),
    });
    let mut names = std::iter::once(usual.clone()).chain(further);
    names.find(|name| is_ours_or_free(&folder.join(name), root)).unwrap_or(usual)
}

/// Whether a unit's file may be written for this root: there is none, or it is this root's already.
pub(super) fn is_ours_or_free(unit: &Path, root: &Root) -> bool {
    match fs::read_to_string(unit) {
        Ok(text) => unit::is_for(&text, root),
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn given(args: &InstallArgs, hostname: &str) -> Result<Option<Given>, Failure> {
    let (Some(certificate), Some(key)) = (&args.ssl_cert, &args.ssl_key) else { return Ok(None) };
    let host = (!args.ssl_check_skip).then_some(hostname);
    check_given(certificate, key, args.ssl_ca.as_deref(), host).map(Some)
}

/// Reads and judges a certificate from outside.
pub(super) fn check_given(
    certificate: &Path,
    key: &Path,
    ca: Option<&Path>,
    host: Option<&str>,
) -> Result<Given, Failure> {
    let mut given = Given::check(&read(certificate)?, &read(key)?, host, SystemTime::now())
        .map_err(|e| e.context(format!("use `{}` with `{}`", certificate.display(), key.display())))?;
    if let Some(path) = ca {
        let chain = facts::chain(&read(path)?).map_err(|e| e.context(format!("read `{}`", path.display())))?;
        given.authority = Some(chain.iter().map(|certificate| airlock_registry::tls::own::pem(certificate)).collect());
    }
    Ok(given)
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |e: &std::io::Error| Error::io(format!("read `{}`", path.display()), e);
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|e| failed(&e))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::new(ErrorKind::Invalid, format!("read `{}`", path.display()), "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The password that was given, if one was.
pub(super) fn password(args: &InstallArgs, warnings: &mut Vec<String>) -> Result<Option<Password>, Failure> {
    if args.init_password_stdin {
        let mut text = String::new();
        let read = std::io::stdin().take(MAX_LINE_BYTES).read_to_string(&mut text);
        read.map_err(|e| Error::io("read the password from standard input", &e))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(Some(Password::new(line.strip_suffix('\r').unwrap_or(line))?));
    }
    let Some(text) = &args.init_password else { return Ok(None) };
    warnings
        .push("a password on the command line is seen by everybody on this machine: use --init-password-stdin".into());
    Ok(Some(Password::new(text)?))
}
