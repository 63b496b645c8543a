//! Certificates: given ones, or a CA and a certificate made on the spot.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Error, ErrorKind};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long a CA that we make is valid.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a certificate that we make is valid: the longest that all clients take. It is made anew at every start, and after two thirds of
/// this time.
const LEAF_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// How often it is looked whether the files were replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Clocks of clients that are behind ours by less than this trust a new certificate.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Tls {
    /// PEM files: the certificate with its chain, and its key.
    Files {
        /// The certificate, then the intermediate ones.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// A CA of our own, kept in a folder (`ca.crt`, `ca.key`), and a certificate from it (`tls.crt`, `tls.key`) for these names
    /// and addresses, `localhost`, `127.0.0.1` and `::1`.
    SelfMade {
        /// The folder; made where there is none.
        folder: PathBuf,
        /// Host names and IP addresses.
        names: Vec<String>,
    },
}

/// What a server needs, and what its clients need.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Arc<ServerConfig>,
    /// The CA that clients have to trust, when it is ours.
    pub(crate) ca_pem: Option<String>,
}

impl Tls {
    /// The states of the files that somebody may replace; none where the certificate is made here.
    fn files(&self) -> Vec<Option<(SystemTime, u64)>> {
        let paths = match self {
            Self::Files { certificate, key } => vec![certificate, key],
            Self::SelfMade { .. } => Vec::new(),
        };
        let state = |path: &PathBuf| fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
        paths.into_iter().map(state).collect()
    }

    /// Reads or makes the certificate. Blocks on the disk.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        match self {
            Self::Files { certificate, key } => {
                let config = config(&read(certificate)?, &read(key)?, &format!("`{}`", certificate.display()))?;
                Ok(Loaded { config, ca_pem: None })
            }
            Self::SelfMade { folder, names } => {
                let made = make(folder, names)?;
                let config = config(made.certificate.as_bytes(), made.key.as_bytes(), "the certificate made here")?;
                Ok(Loaded { config, ca_pem: Some(made.ca) })
            }
        }
    }
}

/// The certificate of a server that runs. Files that were replaced are read again, and what was made here is made anew long before it
/// ends; connections that are open keep what they have.
#[derive(Debug)]
pub(crate) struct Live {
    tls: Tls,
    /// The CA that clients have to trust, when it is ours. It stays the same.
    pub(crate) ca_pem: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    /// The states of the files that it was read from.
    files: Vec<Option<(SystemTime, u64)>>,
    loaded: SystemTime,
    looked: Instant,
}

impl Live {
    /// Reads or makes the certificate. Blocks on the disk.
    pub(crate) fn load(tls: Tls) -> Result<Self, Error> {
        let files = tls.files();
        let Loaded { config, ca_pem } = tls.load()?;
        let state = State { config, files, loaded: SystemTime::now(), looked: Instant::now() };
        Ok(Self { tls, ca_pem, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next connection is answered with.
    pub(crate) async fn config(self: &Arc<Self>) -> Arc<ServerConfig> {
        {
            let mut state = self.state();
            if state.looked.elapsed() < LOOK_AGAIN {
                return state.config.clone();
            }
            state.looked = Instant::now();
        }
        let this = self.clone();
        if let Err(e) = tokio::task::spawn_blocking(move || this.refresh(SystemTime::now())).await {
            tracing::error!(error = %e, "the certificate cannot be looked at");
        }
        self.state().config.clone()
    }

    /// Loads again where that is due. What cannot be loaded changes nothing: the files may be in the middle of being replaced.
    fn refresh(&self, now: SystemTime) {
        let files = self.tls.files();
        let due = {
            let state = self.state();
            let is_made_here = matches!(self.tls, Tls::SelfMade { .. });
            files != state.files || (is_made_here && is_old(state.loaded, now))
        };
        if !due {
            return;
        }
        match self.tls.load() {
            Ok(loaded) => {
                let mut state = self.state();
                (state.config, state.files, state.loaded) = (loaded.config, files, now);
                tracing::info!("new connections get a new certificate");
            }
            Err(e) => tracing::warn!(error = %e, "the changed certificate cannot be used; the old one stays"),
        }
    }
}

/// Whether a certificate made here has come to two thirds of its life.
fn is_old(made: SystemTime, now: SystemTime) -> bool {
    now.duration_since(made).is_ok_and(|age| age >= LEAF_LIFE * 2 / 3)
}

struct Made {
    ca: String,
    certificate: String,
    key: String,
}

fn config(certificate: &[u8], key: &[u8], name: &str) -> Result<Arc<ServerConfig>, Error> {
    let what = || format!("use {name} for TLS");
    let invalid = |cause: String| Error::new(ErrorKind::Invalid, what(), cause);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|e| invalid(format!("the certificate is no PEM: {e}")))?;
    if chain.is_empty() {
        return Err(invalid("there is no certificate in the file".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| invalid(format!("the key is no PEM key: {e}")))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| invalid(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| invalid(e.to_string()).hint("the key must belong to the first certificate of the file"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn make(folder: &Path, names: &[String]) -> Result<Made, Error> {
    fs::create_dir_all(folder).map_err(|e| Error::io(format!("create directory `{}`", folder.display()), &e))?;
    let failed = |e: rcgen::Error| Error::new(ErrorKind::Invalid, "make a certificate", e);
    let (ca_path, ca_key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
    let (ca, issuer) = if ca_path.exists() && ca_key_path.exists() {
        let pem = text(&ca_path)?;
        let key = KeyPair::from_pem(&text(&ca_key_path)?).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .map_err(|e| failed(e).hint(format!("remove `{}` to have a new CA made", ca_path.display())))?;
        (pem, issuer)
    } else {
        let mut params = params(CA_LIFE, "Airlock registry CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        write(&ca_key_path, &key.serialize_pem(), 0o600)?;
        write(&ca_path, &certificate, 0o644)?;
        (certificate, Issuer::new(params, key))
    };
    let mut wanted: Vec<String> = names.iter().filter(|n| !n.is_empty()).cloned().collect();
    for own in ["localhost", "127.0.0.1", "::1"] {
        if !wanted.iter().any(|n| n == own) {
            wanted.push(own.to_owned());
        }
    }
    let mut leaf = params(LEAF_LIFE, &wanted[0]);
    leaf.subject_alt_names = CertificateParams::new(wanted.clone())
        .map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("make a certificate for {}", wanted.join(", ")), e)
                .hint("give host names or IP addresses")
        })?
        .subject_alt_names;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = leaf.signed_by(&key, &issuer).map_err(failed)?.pem();
    let key = key.serialize_pem();
    write(&folder.join("tls.key"), &key, 0o600)?;
    write(&folder.join("tls.crt"), &certificate, 0o644)?;
    Ok(Made { ca, certificate, key })
}

fn params(life: Duration, name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|e| Error::io(format!("read `{}`", path.display()), &e))
}

fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| Error::io(format!("read `{}`", path.display()), &e))
}

/// Replaces a file at once, with these permissions from the first moment.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let written = (|| {
        // One left by an interrupted run may have other permissions.
        let _ = fs::remove_file(&beside);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|e| Error::io(format!("write `{}`", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_made_here_is_made_anew_in_time() {
        let root = tempfile::tempdir().unwrap();
        let live = Live::load(Tls::SelfMade { folder: root.path().to_owned(), names: vec![] }).unwrap();
        let first = live.state().config.clone();
        let start = SystemTime::now();
        live.refresh(start + LEAF_LIFE / 2);
        assert!(Arc::ptr_eq(&first, &live.state().config));
        live.refresh(start + LEAF_LIFE * 3 / 4);
        assert!(!Arc::ptr_eq(&first, &live.state().config));
        assert_eq!(fs::read_to_string(root.path().join("ca.crt")).ok(), live.ca_pem, "clients need not learn anything");
    }

    #[test]
    fn the_ca_stays_and_keys_are_private() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("certs");
        let tls = Tls::SelfMade { folder: folder.clone(), names: vec!["mirror.example".into(), "10.1.2.3".into()] };
        let (first, second) = (tls.load().unwrap(), tls.load().unwrap());
        assert_eq!(first.ca_pem, second.ca_pem);
        for key in ["ca.key", "tls.key"] {
            let mode = fs::metadata(folder.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let files = Tls::Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        assert!(files.load().unwrap().ca_pem.is_none());
        let mixed = Tls::Files { certificate: folder.join("tls.crt"), key: folder.join("ca.key") };
        assert_eq!(mixed.load().unwrap_err().kind(), ErrorKind::Invalid);
    }
}
