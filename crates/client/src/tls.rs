//! Certificates: the system's roots, and per host the directories of podman and docker
//! (`certs.d/<host[:port]>/{*.crt,*.cert,*.key}`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use airlock_oci::{Error, ErrorKind};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::surroundings::Surroundings;
use crate::trust::{AcceptAny, Listed, Trusted};

/// What a host's directories hold.
#[derive(Debug, Default)]
struct HostFiles {
    roots: Vec<CertificateDer<'static>>,
    client: Option<(PathBuf, PathBuf)>,
}

/// The folders that hold a directory for each host, in the order in which they are read.
pub(crate) fn certs_d(env: &Surroundings) -> Vec<PathBuf> {
    let user = env.home().map(|home| home.join(".config/containers/certs.d"));
    user.into_iter().chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]).collect()
}

/// The TLS configuration for one host. `everywhere`: directories whose files count for every host.
pub(crate) fn config(
    host: &str,
    verify: bool,
    everywhere: &[PathBuf],
    certs_d: &[PathBuf],
) -> Result<ClientConfig, Error> {
    let mut files = HostFiles::default();
    let per_host = certs_d.iter().map(|dir| dir.join(host));
    for dir in everywhere.iter().cloned().chain(per_host) {
        files.add(&dir)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let what = || format!("prepare TLS for `{host}`");
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Invalid, what(), e))?;
    let builder = if verify {
        let mut own = Trusted::nothing();
        for der in files.roots {
            own.add(der).map_err(|e| Error::new(ErrorKind::Invalid, what(), e))?;
        }
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Listed::new(own, system, provider)))
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    };
    let Some((cert, key)) = files.client else { return Ok(builder.with_no_client_auth()) };
    let chain = read_certificates(&cert)?;
    let bad_key = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Invalid, format!("read client key `{}`", key.display()), e).hint(
            "it must be an unencrypted PEM key (PKCS#8, PKCS#1 or SEC1) that belongs to the `.cert` of the same name",
        )
    };
    let key_der = PrivateKeyDer::from_pem_file(&key).map_err(|e| bad_key(&e))?;
    builder.with_client_auth_cert(chain, key_der).map_err(|e| bad_key(&e))
}

impl HostFiles {
    fn add(&mut self, dir: &Path) -> Result<(), Error> {
        let what = || format!("read certificates in `{}`", dir.display());
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(e) => return Err(Error::io(what(), &e)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry.map_err(|e| Error::io(what(), &e))?.path());
        }
        paths.sort();
        for path in paths {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => self.roots.extend(read_certificates(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !key.exists() {
                        return Err(Error::new(
                            ErrorKind::Invalid,
                            what(),
                            format!("`{}` has no `{}` beside it", path.display(), key.display()),
                        )
                        .hint(
                            "a CA certificate must end in `.crt`; `.cert` is a client certificate and needs its key",
                        ));
                    }
                    // The first pair wins, as the directories are read from the most to the least specific.
                    self.client.get_or_insert((path, key));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |e: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Invalid, format!("read certificate `{}`", path.display()), e)
            .hint("it must be in PEM form (`-----BEGIN CERTIFICATE-----`)")
    };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(|e| bad(&e))?.collect::<Result<_, _>>().map_err(|e| bad(&e))?;
    if certificates.is_empty() {
        return Err(bad(&"it holds no certificate"));
    }
    Ok(certificates)
}

/// The system's roots, or what SSL_CERT_FILE and SSL_CERT_DIR name; read once. A machine without any is no error here: then
/// only hosts with a CA of their own can be trusted, and the failing handshake says so.
fn system() -> &'static Trusted {
    static SYSTEM: OnceLock<Trusted> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!("system certificates: {error}");
        }
        let mut trusted = Trusted::nothing();
        let ignored = trusted.add_parsable(loaded.certs);
        if ignored > 0 {
            tracing::debug!("{ignored} system certificates could not be read");
        }
        trusted
    })
}
