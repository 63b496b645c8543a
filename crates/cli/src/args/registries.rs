//! Flags that say how registries are spoken to, for each side.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use airlock_client::{HostCredentials, Options, RegistriesConf, Secret};
use clap::Args;

use crate::exit::Failure;

/// For both sides.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct CommonArgs {
    /// Credential file (else the lookup order of podman and docker).
    #[arg(long, short = 'a', visible_alias = "registry-config", env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Check certificates; `false` also allows plain HTTP. For both sides.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// The same as --tls-verify=false.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, action = clap::ArgAction::Set, conflicts_with = "tls_verify"
    )]
    pub insecure: bool,
    /// registries.conf to use (else CONTAINERS_REGISTRIES_CONF, the user's, the system's).
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// How often a transient failure is tried again.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub retry_times: u32,
    /// Time between tries (`2s`, `500ms`); 0: 1, 2, 4, 8, 16 s.
    #[arg(long, default_value = "0", value_parser = duration, value_name = "TIME")]
    pub retry_delay: Duration,
}

/// For one side.
#[derive(Clone, Debug, Default)]
pub(crate) struct Side {
    /// `user:password`, for the host that is written on the command line.
    pub creds: Option<String>,
    /// Check certificates.
    pub tls_verify: Option<bool>,
    /// Directory with `*.crt`, `*.cert`, `*.key`.
    pub cert_dir: Option<PathBuf>,
    /// Anonymous.
    pub no_creds: bool,
    /// A file for this side only.
    pub authfile: Option<PathBuf>,
    /// Mirror rules that pulls go through, as a text above registries.conf, and where they came from.
    pub rules: Option<Rules>,
}

/// Mirror rules as registries.conf.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The file of rules, for messages.
    pub name: String,
    /// The tables.
    pub text: String,
}

/// Where images come from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SourceArgs {
    /// Credentials for the source (visible in the process list; prefer `airlock login`).
    #[arg(long, visible_alias = "screds", value_name = "USER:PASSWORD")]
    pub src_creds: Option<String>,
    /// Check the source's certificates.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub src_tls_verify: Option<bool>,
    /// Certificates for the source.
    #[arg(long, value_name = "DIR")]
    pub src_cert_dir: Option<PathBuf>,
    /// Read anonymously.
    #[arg(long, conflicts_with = "src_creds")]
    pub src_no_creds: bool,
    /// Credential file for the source.
    #[arg(long, value_name = "FILE")]
    pub src_authfile: Option<PathBuf>,
}

/// Where images go.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TargetArgs {
    /// Credentials for the target (visible in the process list; prefer `airlock login`).
    #[arg(long, visible_alias = "dcreds", value_name = "USER:PASSWORD")]
    pub dest_creds: Option<String>,
    /// Check the target's certificates.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub dest_tls_verify: Option<bool>,
    /// Certificates for the target.
    #[arg(long, value_name = "DIR")]
    pub dest_cert_dir: Option<PathBuf>,
    /// Write anonymously.
    #[arg(long, conflicts_with = "dest_creds")]
    pub dest_no_creds: bool,
    /// Credential file for the target.
    #[arg(long, value_name = "FILE")]
    pub dest_authfile: Option<PathBuf>,
}

/// For commands with one side.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OneSideArgs {
    /// Credentials (visible in the process list; prefer `airlock login`).
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    /// Certificates.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Anonymously.
    #[arg(long, conflicts_with = "creds")]
    pub no_creds: bool,
}

/// `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// `host[:port]` or `host[:port]/namespace`.
    pub registry: String,
    /// The user.
    #[arg(long, short)]
    pub username: Option<String>,
    /// The password (visible in the process list; prefer --password-stdin).
    #[arg(long, short, conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub password_stdin: bool,
    /// Common flags.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Certificates.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
}

/// `logout`.
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// `host[:port]` or `host[:port]/namespace`.
    pub registry: String,
    /// Credential file.
    #[arg(long, short = 'a', visible_alias = "registry-config", env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
}

impl SourceArgs {
    /// As one side.
    pub(crate) fn side(&self) -> Side {
        Side {
            creds: self.src_creds.clone(),
            tls_verify: self.src_tls_verify,
            cert_dir: self.src_cert_dir.clone(),
            no_creds: self.src_no_creds,
            authfile: self.src_authfile.clone(),
            rules: None,
        }
    }
}

impl TargetArgs {
    /// As one side.
    pub(crate) fn side(&self) -> Side {
        Side {
            creds: self.dest_creds.clone(),
            tls_verify: self.dest_tls_verify,
            cert_dir: self.dest_cert_dir.clone(),
            no_creds: self.dest_no_creds,
            authfile: self.dest_authfile.clone(),
            rules: None,
        }
    }
}

impl OneSideArgs {
    /// As one side.
    pub(crate) fn side(&self) -> Side {
        Side {
            creds: self.creds.clone(),
            tls_verify: None,
            cert_dir: self.cert_dir.clone(),
            no_creds: self.no_creds,
            authfile: None,
            rules: None,
        }
    }
}

impl CommonArgs {
    /// The client's options for one side; `hosts` are the hosts that explicit credentials are for.
    pub(crate) fn options(&self, side: &Side, hosts: &[String]) -> Result<Options, Failure> {
        let mut credentials = Vec::new();
        if let Some(creds) = &side.creds {
            let Some((username, password)) = creds.split_once(':') else {
                return Err(Failure::usage("credentials must have the form USER:PASSWORD", "or use `airlock login`"));
            };
            for host in hosts {
                credentials.push(HostCredentials {
                    host: host.clone(),
                    username: username.to_owned(),
                    password: Secret::new(password),
                });
            }
        }
        let files = match &self.registries_conf {
            Some(path) => RegistriesConf::File { path: path.clone(), dropins: None },
            None => RegistriesConf::Lookup,
        };
        let registries_conf = match &side.rules {
            Some(rules) => {
                RegistriesConf::Over { below: Box::new(files), name: rules.name.clone(), text: rules.text.clone() }
            }
            None => files,
        };
        if let Some(directory) = side.cert_dir.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(Failure::usage(
                format!("the directory of certificates {} is not there", directory.display()),
                "it holds *.crt, and *.cert with *.key",
            ));
        }
        let verify = side.tls_verify.or(self.tls_verify).unwrap_or(true) && !self.insecure;
        Ok(Options {
            authfile: side.authfile.clone().or_else(|| self.authfile.clone()),
            credentials,
            anonymous: side.no_creds,
            tls_verify: verify,
            cert_dirs: side.cert_dir.clone().into_iter().collect(),
            registries_conf,
            retry_times: self.retry_times,
            retry_delay: self.retry_delay,
            ..Options::default()
        })
    }
}

/// `127.0.0.1:5000`, `[::1]:5000`, `localhost:5000`; `:5000` is every address of this machine.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    use std::net::ToSocketAddrs;
    if let Some(port) = text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        return Ok((std::net::Ipv4Addr::UNSPECIFIED, port).into());
    }
    let invalid = |why: String| {
        format!("`{text}` is no address: {why}; expected such as 127.0.0.1:5000, localhost:5000 or :5000")
    };
    let mut found = text.to_socket_addrs().map_err(|e| invalid(e.to_string()))?;
    found.next().ok_or_else(|| invalid("the name has no address".into()))
}

/// `90`, `90s`, `500ms`, `10m`, `1h`, `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("`{text}` is not a time; expected such as 30s, 500ms, 10m or 1h30m");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let number: u64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit_ms: u64 = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(invalid()),
        };
        total += Duration::from_millis(number.checked_mul(unit_ms).ok_or_else(invalid)?);
        rest = &rest[letters..];
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address(":5000"), Ok(([0, 0, 0, 0], 5000).into()));
        assert_eq!(address("127.0.0.1:0"), Ok(([127, 0, 0, 1], 0).into()));
        assert!(address("localhost:5000").is_ok_and(|a| a.ip().is_loopback() && a.port() == 5000));
        for bad in ["5000", "localhost", ":x", "127.0.0.1:70000"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "s", "1x", "1.5s", "-1"] {
            assert!(duration(bad).is_err() || bad.is_empty(), "{bad}");
        }
    }
}
