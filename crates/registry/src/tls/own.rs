//! A CA of our own and certificates from it, in a folder.
//!
//! ```text
//! ca.crt     what clients trust, ten years
//! ca.key     its key (0600)
//! tls.crt    what is served: 397 days, made anew after two thirds of them
//! tls.key    its key (0600)
//! given.pem  a certificate that somebody gave, with its chain and key, in one file so that it is replaced at once (0600);
//!            it goes before `tls.crt`
//! given.crt  that one with its chain and without its key, for those who may not read the key
//! given-ca.crt  the root of that one, where it is known
//! ```
//!
//! Whoever changes the folder holds a lock on it, so that a running server and a command do not mix two pairs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use airlock_oci::{Error, ErrorKind};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;

use super::facts::{self, Facts};
use super::{Loaded, config};

/// How long a CA that we make is valid.
pub const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long a certificate that we make is valid: the longest that all clients take.
pub const LEAF_LIFE: Duration = Duration::from_secs(397 * 24 * 3600);
/// Clocks of clients that are behind ours by less than this trust a new certificate.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3600);
/// What every certificate of ours is good for besides the names that were asked for.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The folder.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// A certificate that can be served.
pub struct Pair {
    /// The certificate with its chain, as PEM.
    certificate: String,
    key: String,
    /// The CA, when it is ours.
    ca: Option<String>,
    /// What clients must trust, ours or not, where it is known.
    authority: Option<String>,
}

/// What a registry shows to whoever asks it: it takes no right to the key to know it.
pub struct Shown {
    /// The certificate with its chain, as PEM.
    certificate: String,
    /// The CA, when it is ours.
    ca: Option<String>,
}

/// A certificate from outside that was found good.
pub struct Given {
    pem: String,
    /// What it says of itself.
    pub facts: Facts,
    /// What clients must trust, as PEM: the root, when it is among the certificates, or what the caller knows better.
    pub authority: Option<String>,
}

impl Folder {
    /// The folder at a path; it need not be there yet.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.crt")
    }

    /// The certificate that somebody gave.
    pub fn given(&self) -> PathBuf {
        self.0.join("given.pem")
    }

    /// The same without its key.
    fn given_chain(&self) -> PathBuf {
        self.0.join("given.crt")
    }

    /// The root of the certificate that somebody gave, where it is known.
    fn given_ca(&self) -> PathBuf {
        self.0.join("given-ca.crt")
    }

    /// Every file that may be in it.
    pub fn all_files(&self) -> Vec<PathBuf> {
        let mut files = self.files();
        files.extend([self.ca(), self.0.join("ca.key"), self.given_chain()]);
        files
    }

    /// What clients must trust, as PEM, where it is known.
    pub fn authority(&self) -> Result<Option<String>, Error> {
        let path = if self.given().exists() { self.given_ca() } else { self.ca() };
        if path.exists() { text(&path).map(Some) } else { Ok(None) }
    }

    /// The files that decide what is served, and what clients are told to trust.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        vec![self.given(), self.given_ca(), self.0.join("tls.crt"), self.0.join("tls.key")]
    }

    /// What is served from here.
    pub fn read(&self) -> Result<Pair, Error> {
        let _turn = self.lock()?;
        self.pair()
    }

    /// What is shown from here, for anybody on this machine who may see the folder.
    pub fn shown(&self) -> Result<Shown, Error> {
        if !self.given().exists() {
            return Ok(Shown { certificate: text(&self.0.join("tls.crt"))?, ca: Some(text(&self.ca())?) });
        }
        // The file with the key is what is served; the other one is for those who may not read it.
        let certificate = match fs::read_to_string(self.given()) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => text(&self.given_chain())?,
            read => read.map_err(|e| Error::io(format!("read `{}`", self.given().display()), &e))?,
        };
        Ok(Shown { certificate, ca: None })
    }

    /// Makes the CA where there is none, and a certificate from it for these names. One that was given stays in front of it.
    pub fn issue(&self, names: &[String], now: SystemTime) -> Result<Pair, Error> {
        let _turn = self.lock()?;
        self.make(names, now)
    }

    /// What is served from here; when it is ours, and old, damaged or not good for one of these names, a new one.
    pub fn keep(&self, names: &[String], now: SystemTime) -> Result<Pair, Error> {
        let _turn = self.lock()?;
        if self.given().exists() {
            return self.pair();
        }
        let kept = self.pair().ok().filter(|pair| pair.loaded().is_ok() && pair.is_good(names, now));
        match kept {
            Some(pair) => Ok(pair),
            None => self.make(names, now),
        }
    }

    /// Puts a certificate that was given in front of our own.
    pub fn put_given(&self, given: &Given) -> Result<(), Error> {
        let _turn = self.lock()?;
        match &given.authority {
            Some(authority) => write(&self.given_ca(), authority, 0o644)?,
            None => drop(fs::remove_file(self.given_ca())),
        }
        let chain: String = facts::chain(given.pem.as_bytes())?.iter().map(|certificate| pem(certificate)).collect();
        write(&self.given_chain(), &chain, 0o644)?;
        write(&self.given(), &given.pem, 0o600)
    }

    /// Forgets the certificate that was given; whether there was one.
    pub fn forget_given(&self) -> Result<bool, Error> {
        let _turn = self.lock()?;
        let _ = fs::remove_file(self.given_ca());
        let _ = fs::remove_file(self.given_chain());
        match fs::remove_file(self.given()) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format!("remove `{}`", self.given().display()), &e)),
        }
    }

    fn lock(&self) -> Result<File, Error> {
        let failed = |e: &std::io::Error| Error::io(format!("use the folder `{}`", self.0.display()), e);
        fs::create_dir_all(&self.0).map_err(|e| failed(&e))?;
        let turn = File::open(&self.0).map_err(|e| failed(&e))?;
        turn.lock().map_err(|e| failed(&e))?;
        Ok(turn)
    }

    fn pair(&self) -> Result<Pair, Error> {
        if self.given().exists() {
            let pem = text(&self.given())?;
            // Clients are only told of it: the registry serves without.
            let authority = fs::read_to_string(self.given_ca()).ok();
            return Ok(Pair { certificate: pem.clone(), key: pem, ca: None, authority });
        }
        let (certificate, key) = (text(&self.0.join("tls.crt"))?, text(&self.0.join("tls.key"))?);
        let ca = Some(text(&self.ca())?);
        Ok(Pair { certificate, key, authority: ca.clone(), ca })
    }

    fn make(&self, names: &[String], now: SystemTime) -> Result<Pair, Error> {
        let failed = |e: rcgen::Error| Error::new(ErrorKind::Invalid, "make a certificate", e);
        let (ca_path, ca_key_path) = (self.ca(), self.0.join("ca.key"));
        let (ca, issuer) = if ca_path.exists() && ca_key_path.exists() {
            let pem = text(&ca_path)?;
            let key = KeyPair::from_pem(&text(&ca_key_path)?).map_err(failed)?;
            let issuer = Issuer::from_ca_cert_pem(&pem, key)
                .map_err(|e| failed(e).hint(format!("remove `{}` to have a new CA made", ca_path.display())))?;
            (pem, issuer)
        } else {
            let mut params = params(CA_LIFE, "Airlock registry CA", now);
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate().map_err(failed)?;
            let certificate = params.self_signed(&key).map_err(failed)?.pem();
            write(&ca_key_path, &key.serialize_pem(), 0o600)?;
            write(&ca_path, &certificate, 0o644)?;
            (certificate, Issuer::new(params, key))
        };
        let wanted = wanted(names);
        let mut leaf = params(LEAF_LIFE, &wanted[0], now);
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
        write(&self.0.join("tls.key"), &key, 0o600)?;
        write(&self.0.join("tls.crt"), &certificate, 0o644)?;
        Ok(Pair { certificate, key, authority: Some(ca.clone()), ca: Some(ca) })
    }
}

impl Pair {
    /// The certificate itself, without its chain.
    pub fn leaf(&self) -> Result<CertificateDer<'static>, Error> {
        Ok(facts::chain(self.certificate.as_bytes())?.remove(0))
    }

    /// The CA, as PEM, when it is ours.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Whether it is ours, for all these names, and not to be made anew yet.
    fn is_good(&self, names: &[String], now: SystemTime) -> bool {
        let (Ok(leaf), Some(ca)) = (self.leaf(), &self.ca) else { return false };
        let Ok(ca) = facts::chain(ca.as_bytes()) else { return false };
        let Ok(facts) = Facts::of(&leaf) else { return false };
        facts::is_signed_by(&leaf, &ca[0])
            && facts.not_before <= now
            && now < facts.renew_at()
            && wanted(names).iter().all(|name| facts::covers(&leaf, name))
    }

    pub(crate) fn loaded(&self) -> Result<Loaded, Error> {
        let name = if self.ca.is_some() { "the certificate made here" } else { "the certificate that was given" };
        let config = config(self.certificate.as_bytes(), self.key.as_bytes(), name)?;
        let renew_at = match self.ca {
            Some(_) => Some(Facts::of(&self.leaf()?)?.renew_at()),
            None => None,
        };
        Ok(Loaded { config, authority: self.authority.clone(), renew_at })
    }
}

impl Shown {
    /// The certificate itself, without its chain.
    pub fn leaf(&self) -> Result<CertificateDer<'static>, Error> {
        Ok(facts::chain(self.certificate.as_bytes())?.remove(0))
    }

    /// The CA, as PEM, when it is ours.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }
}

impl Given {
    /// Judges a certificate with its chain and its key (PEM both): they must belong together, be valid now and be for `host`, unless no
    /// host is given, as behind a proxy that shows another name.
    pub fn check(certificate: &[u8], key: &[u8], host: Option<&str>, now: SystemTime) -> Result<Self, Error> {
        let what = "use the certificate that was given";
        let wrong = |cause: String| Error::new(ErrorKind::Invalid, what, cause);
        let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| wrong("it is no PEM".into()));
        let (certificate, key) = (utf8(certificate)?, utf8(key)?);
        if key.contains("ENCRYPTED") {
            return Err(wrong("its key is protected by a password".into()).hint(
                "a server starts without anybody to type it: `openssl pkey -in KEY -out PLAIN` writes it without",
            ));
        }
        config(certificate.as_bytes(), key.as_bytes(), "the certificate that was given")?;
        let chain = facts::chain(certificate.as_bytes())?;
        let facts = Facts::of(&chain[0])?;
        let date = |at: SystemTime| httpdate::fmt_http_date(at);
        if now >= facts.not_after {
            return Err(wrong(format!("it was valid until {}", date(facts.not_after))));
        }
        if now < facts.not_before {
            return Err(wrong(format!("it is not valid before {}", date(facts.not_before)))
                .hint("is this machine's clock right?"));
        }
        if facts.names.is_empty() {
            return Err(wrong("it has no subjectAltName, without which no client accepts it".into())
                .hint("have it made anew with the registry's name as subjectAltName"));
        }
        if let Some(host) = host.filter(|host| !facts::covers(&chain[0], host)) {
            return Err(wrong(format!("it is not for `{host}` but for {}", facts.names.join(", ")))
                .hint("give another --hostname, or --ssl-check-skip where a proxy with another name stands in front"));
        }
        let last = &chain[chain.len() - 1];
        let authority = Facts::of(last)?.is_self_issued().then(|| pem(last));
        Ok(Self { pem: format!("{}\n{}\n", certificate.trim_end(), key.trim_end()), facts, authority })
    }
}

/// One certificate as PEM.
pub fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + "-----END CERTIFICATE-----\n"
}

/// The names of a certificate: those that were asked for and [`ALWAYS`].
fn wanted(names: &[String]) -> Vec<String> {
    let mut wanted: Vec<String> = names.iter().filter(|n| !n.is_empty()).cloned().collect();
    for own in ALWAYS {
        if !wanted.iter().any(|n| n == own) {
            wanted.push(own.to_owned());
        }
    }
    wanted
}

fn params(life: Duration, name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + life).into();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn text(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|e| Error::io(format!("read `{}`", path.display()), &e))
}

/// Replaces a file at once, with these permissions from the first moment, and with the folder's owner: root may change what another
/// user's server has to read.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("new");
    let written = (|| {
        // One left by an interrupted run may have other permissions.
        let _ = fs::remove_file(&beside);
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&beside)?;
        if let Some(folder) = path.parent().and_then(|folder| fs::metadata(folder).ok()) {
            let own = file.metadata()?;
            if own.uid() == 0 && folder.uid() != 0 {
                fchown(&file, Some(folder.uid()), Some(folder.gid()))?;
            }
        }
        // The process's mask may have taken bits away that were asked for: a service's mask is not for certificates.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&beside, path)
    })();
    written.map_err(|e| Error::io(format!("write `{}`", path.display()), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_kept_certificate_stays_until_it_is_old_or_lacks_a_name() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::at(&root.path().join("tls"));
        let now = SystemTime::now();
        let wanted = names(&["mirror.example", "mirror", "10.1.2.3", "fd00::1"]);
        let first = folder.keep(&wanted, now).unwrap();
        let leaf = first.leaf().unwrap();
        let facts = Facts::of(&leaf).unwrap();
        assert_eq!(facts.names, ["mirror.example", "mirror", "10.1.2.3", "fd00::1", "localhost", "127.0.0.1", "::1"]);
        assert!(facts.not_after.duration_since(now).unwrap() > 396 * DAY);
        assert!(facts.not_after.duration_since(facts.not_before).unwrap() < 399 * DAY);
        for at in [now, now + 200 * DAY] {
            assert_eq!(folder.keep(&wanted, at).unwrap().leaf().unwrap(), leaf);
        }
        let later = folder.keep(&wanted, now + 300 * DAY).unwrap();
        assert_ne!(later.leaf().unwrap(), leaf);
        assert_eq!(later.ca(), first.ca());
        let now = now + 300 * DAY;
        let more = folder.keep(&names(&["other.example"]), now).unwrap();
        assert!(facts::covers(&more.leaf().unwrap(), "other.example"));
        // A pair of which one half was replaced is no pair.
        fs::copy(root.path().join("tls/ca.key"), root.path().join("tls/tls.key")).unwrap();
        let mended = folder.keep(&names(&["other.example"]), now).unwrap();
        assert!(mended.loaded().is_ok() && mended.leaf().unwrap() != more.leaf().unwrap());
    }

    #[test]
    fn what_was_given_goes_first_and_comes_from_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Folder::at(&root.path().join("ours")), Folder::at(&root.path().join("theirs")));
        let now = SystemTime::now();
        let wanted = names(&["mirror.example"]);
        let own = ours.keep(&wanted, now).unwrap();
        let other = theirs.issue(&wanted, now).unwrap();
        let chain = format!("{}{}", other.certificate, other.ca.as_ref().unwrap());
        let check = |host, at| Given::check(chain.as_bytes(), other.key.as_bytes(), host, at);
        let given = check(Some("mirror.example"), now).unwrap();
        assert_eq!(given.authority, other.ca);
        ours.put_given(&given).unwrap();
        let served = ours.keep(&names(&["another"]), now + 380 * DAY).unwrap();
        assert_eq!(served.leaf().unwrap(), other.leaf().unwrap(), "what was given is nobody's to replace");
        let shown = fs::read_to_string(ours.given_chain()).unwrap();
        assert!(shown.matches("BEGIN CERTIFICATE").count() == 2 && !shown.contains("KEY"), "{shown}");
        assert!(served.loaded().unwrap().renew_at.is_none());
        assert!(ours.forget_given().unwrap() && !ours.forget_given().unwrap());
        assert!(ours.all_files().iter().all(|path| !path.display().to_string().contains("given") || !path.exists()));
        assert_eq!(ours.read().unwrap().leaf().unwrap(), own.leaf().unwrap());
        let cause = |result: Result<Given, Error>| result.err().unwrap().cause().to_owned();
        assert!(cause(check(Some("elsewhere.example"), now)).contains("not for `elsewhere.example` but for mirror"));
        assert!(check(None, now).is_ok());
        assert!(cause(check(None, now + 400 * DAY)).contains("valid until"));
        assert!(cause(check(None, now - 2 * DAY)).contains("not valid before"));
        assert!(Given::check(chain.as_bytes(), own.key.as_bytes(), None, now).is_err());
        let locked = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n";
        assert!(cause(Given::check(chain.as_bytes(), locked, None, now)).contains("password"));
    }
}
