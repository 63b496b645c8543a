//! Certificates: given ones, or a CA and a certificate made here.
//!
//! * [`own`] makes them, and keeps those that are in use in a folder
//! * [`facts`] is what a certificate says of itself

pub mod facts;
pub mod own;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Error, ErrorKind};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How often it is looked whether the files were replaced.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
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
    /// The same, but the certificate in the folder is used as long as it is good, others may replace it, and one that was
    /// given ([`own::Folder::put_given`]) goes before it.
    Kept {
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
    /// The CA that clients have to trust, as PEM, where it is known.
    pub(crate) authority: Option<String>,
    /// When a new one is to be made; never for one that was given.
    pub(crate) renew_at: Option<SystemTime>,
}

impl Tls {
    /// The states of the files that somebody may replace; none where the certificate is made here.
    fn files(&self) -> Vec<Option<(SystemTime, u64)>> {
        let paths = match self {
            Self::Files { certificate, key } => vec![certificate.clone(), key.clone()],
            Self::SelfMade { .. } => Vec::new(),
            Self::Kept { folder, .. } => own::Folder::at(folder).files(),
        };
        let state = |path: &PathBuf| fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
        paths.iter().map(state).collect()
    }

    /// Reads or makes the certificate. Blocks on the disk.
    pub(crate) fn load(&self, now: SystemTime) -> Result<Loaded, Error> {
        match self {
            Self::Files { certificate, key } => {
                let config = config(&read(certificate)?, &read(key)?, &format!("`{}`", certificate.display()))?;
                Ok(Loaded { config, authority: None, renew_at: None })
            }
            Self::SelfMade { folder, names } => own::Folder::at(folder).issue(names, now)?.loaded(),
            Self::Kept { folder, names } => own::Folder::at(folder).keep(names, now)?.loaded(),
        }
    }

    /// Reads again what somebody may have replaced. What another process put into the folder is taken as it is: it knows the
    /// names that are wanted now.
    fn reload(&self, now: SystemTime, is_due: bool) -> Result<Loaded, Error> {
        match self {
            Self::Kept { folder, .. } if !is_due => own::Folder::at(folder).read()?.loaded(),
            _ => self.load(now),
        }
    }
}

/// The certificate of a server that runs. Files that were replaced are read again, and what was made here is made anew long before it
/// ends; connections that are open keep what they have.
#[derive(Debug)]
pub(crate) struct Live {
    tls: Tls,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    config: Arc<ServerConfig>,
    authority: Option<String>,
    /// The states of the files that it was read from.
    files: Vec<Option<(SystemTime, u64)>>,
    renew_at: Option<SystemTime>,
    looked: Instant,
}

impl Live {
    /// Reads or makes the certificate. Blocks on the disk.
    pub(crate) fn load(tls: Tls) -> Result<Self, Error> {
        let Loaded { config, authority, renew_at } = tls.load(SystemTime::now())?;
        let files = tls.files();
        let state = State { config, authority, files, renew_at, looked: Instant::now() };
        Ok(Self { tls, state: Mutex::new(state) })
    }

    /// The CA that clients have to trust now, as PEM, where it is known: another one with another certificate.
    pub(crate) fn authority(&self) -> Option<String> {
        self.state().authority.clone()
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
        let (is_due, changed) = {
            let state = self.state();
            (state.renew_at.is_some_and(|at| now >= at), files != state.files)
        };
        if !is_due && !changed {
            return;
        }
        match self.tls.reload(now, is_due) {
            Ok(loaded) => {
                let files = self.tls.files();
                let mut state = self.state();
                (state.config, state.authority) = (loaded.config, loaded.authority);
                (state.files, state.renew_at) = (files, loaded.renew_at);
                tracing::info!("new connections get a new certificate");
            }
            Err(e) => tracing::warn!(error = %e, "the changed certificate cannot be used; the old one stays"),
        }
    }
}

pub(crate) fn config(certificate: &[u8], key: &[u8], name: &str) -> Result<Arc<ServerConfig>, Error> {
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

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|e| Error::io(format!("read `{}`", path.display()), &e))
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
        live.refresh(start + own::LEAF_LIFE / 2);
        assert!(Arc::ptr_eq(&first, &live.state().config));
        live.refresh(start + own::LEAF_LIFE * 3 / 4);
        assert!(!Arc::ptr_eq(&first, &live.state().config));
        assert_eq!(
            fs::read_to_string(root.path().join("ca.crt")).ok(),
            live.authority(),
            "clients need not learn anything"
        );
    }

    #[test]
    fn a_kept_folder_is_watched_and_what_is_broken_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = own::Folder::at(root.path());
        let names = vec!["mirror.example".to_owned()];
        let live = Live::load(Tls::Kept { folder: root.path().to_owned(), names: names.clone() }).unwrap();
        let now = SystemTime::now();
        let shown = || live.state().config.clone();
        let first = shown();
        live.refresh(now);
        assert!(Arc::ptr_eq(&first, &shown()));
        // A command made another one, for other names: it knows better.
        let other = folder.issue(&["other.example".to_owned()], now).unwrap().leaf().unwrap();
        live.refresh(now);
        let second = shown();
        assert!(!Arc::ptr_eq(&first, &second));
        assert_eq!(folder.read().unwrap().leaf().unwrap(), other);
        fs::write(folder.given(), "half a certifi").unwrap();
        live.refresh(now);
        assert!(Arc::ptr_eq(&second, &shown()));
        fs::remove_file(folder.given()).unwrap();
        // With one from elsewhere clients have another CA to trust, and with ours ours again.
        let elsewhere = tempfile::tempdir().unwrap();
        own::Folder::at(elsewhere.path()).issue(&names, now).unwrap();
        let theirs = |name: &str| fs::read_to_string(elsewhere.path().join(name)).unwrap();
        let chain = theirs("tls.crt") + &theirs("ca.crt");
        let given = own::Given::check(chain.as_bytes(), theirs("tls.key").as_bytes(), None, now).unwrap();
        folder.put_given(&given).unwrap();
        live.refresh(now);
        assert_eq!(live.authority(), Some(theirs("ca.crt")));
        folder.forget_given().unwrap();
        live.refresh(now);
        assert_eq!(live.authority(), fs::read_to_string(folder.ca()).ok());
        let second = shown();
        // In time it is made anew, for its own names.
        live.refresh(now + own::LEAF_LIFE * 3 / 4);
        assert!(!Arc::ptr_eq(&second, &shown()));
        assert!(facts::covers(&folder.read().unwrap().leaf().unwrap(), "mirror.example"));
    }

    #[test]
    fn the_ca_stays_and_keys_are_private() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("certs");
        let tls = Tls::SelfMade { folder: folder.clone(), names: vec!["mirror.example".into(), "10.1.2.3".into()] };
        let (first, second) = (tls.load(SystemTime::now()).unwrap(), tls.load(SystemTime::now()).unwrap());
        assert_eq!(first.authority, second.authority);
        for key in ["ca.key", "tls.key"] {
            let mode = fs::metadata(folder.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let files = Tls::Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
        assert!(files.load(SystemTime::now()).unwrap().authority.is_none());
        let mixed = Tls::Files { certificate: folder.join("tls.crt"), key: folder.join("ca.key") };
        assert_eq!(mixed.load(SystemTime::now()).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
