//! Trust in a server's certificate, as Go's programs have it: a chain to a trusted authority, or a certificate that is itself among the
//! trusted ones.
//!
//! The second is what `openssl req -x509` makes and half of all test registries use: a certificate that calls itself an authority, signs
//! itself and is shown by the server. rustls refuses it as "CA used as end entity" although the user put exactly this certificate
//! into `certs.d`. Name and validity are still checked.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Certificates that are trusted.
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    /// As authorities …
    roots: RootCertStore,
    /// … and for themselves.
    listed: HashSet<CertificateDer<'static>>,
}

/// Chains to trusted authorities, or certificates that are themselves trusted.
#[derive(Debug)]
pub(crate) struct Listed {
    own: Trusted,
    /// Those that count for every host; read when the first server shows its certificate. Of a host that speaks plain HTTP, or is only
    /// named where mirrors are asked, that is never.
    everywhere: fn() -> &'static Trusted,
    all: OnceLock<Result<All, rustls::Error>>,
    provider: Arc<CryptoProvider>,
}

/// What is trusted for one host, ready for use.
#[derive(Debug)]
struct All {
    chains: Option<Arc<WebPkiServerVerifier>>,
    listed: HashSet<CertificateDer<'static>>,
}

/// Accepts any certificate; used where the user said so.
#[derive(Debug)]
pub(crate) struct AcceptAny(pub(crate) Arc<CryptoProvider>);

impl Trusted {
    pub(crate) fn nothing() -> Self {
        Self { roots: RootCertStore::empty(), listed: HashSet::new() }
    }

    /// Fails for what is no certificate of an authority.
    pub(crate) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), rustls::Error> {
        self.roots.add(certificate.clone())?;
        self.listed.insert(certificate);
        Ok(())
    }

    /// Adds those that can be read as an authority's; all of them count for themselves. How many could not be read.
    pub(crate) fn add_parsable(&mut self, certificates: Vec<CertificateDer<'static>>) -> usize {
        let (_, ignored) = self.roots.add_parsable_certificates(certificates.iter().cloned());
        self.listed.extend(certificates);
        ignored
    }
}

impl Listed {
    pub(crate) fn new(own: Trusted, everywhere: fn() -> &'static Trusted, provider: Arc<CryptoProvider>) -> Self {
        Self { own, everywhere, all: OnceLock::new(), provider }
    }

    fn all(&self) -> Result<&All, rustls::Error> {
        let all = self.all.get_or_init(|| {
            let Trusted { mut roots, mut listed } = (self.everywhere)().clone();
            roots.extend(self.own.roots.roots.iter().cloned());
            listed.extend(self.own.listed.iter().cloned());
            // A verifier without any root cannot be built; then nothing is trusted, which the handshake will say.
            let chains = if roots.is_empty() {
                None
            } else {
                let provider = Arc::clone(&self.provider);
                let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
                Some(builder.build().map_err(|e| rustls::Error::General(e.to_string()))?)
            };
            Ok(All { chains, listed })
        });
        all.as_ref().map_err(Clone::clone)
    }
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = self.all()?;
        let refused = match &all.chains {
            Some(chains) => match chains.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            },
            None => rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
        };
        if !all.listed.contains(&end_entity.clone().into_owned()) {
            return Err(refused);
        }
        let (from, to) =
            validity(end_entity).ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if now.as_secs() < from {
            return Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now.as_secs() > to {
            return Err(rustls::Error::InvalidCertificate(CertificateError::Expired));
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Not-before and not-after of a certificate, in seconds since 1970 (RFC 5280 4.1: the fifth field of the part that is signed, the
/// fourth where the version is left out).
fn validity(der: &[u8]) -> Option<(u64, u64)> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xA0;
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, mut fields, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, times, _) = element(fields).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (from_tag, from, times) = element(times)?;
    let (to_tag, to, _) = element(times)?;
    Some((seconds(from_tag, from)?, seconds(to_tag, to)?))
}

/// Tag, content and what follows of the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let count = usize::from(first & 0x7F);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        length = rest[..count].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        rest = &rest[count..];
    }
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// `YYMMDDhhmmssZ` (UTCTime) or `YYYYMMDDhhmmssZ` (GeneralizedTime).
fn seconds(tag: u8, text: &[u8]) -> Option<u64> {
    const UTC_TIME: u8 = 0x17;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|t| t.is_ascii())?;
    let (year, rest) = if tag == UTC_TIME {
        let (year, rest) = text.split_at_checked(2)?;
        let year: i64 = year.parse().ok()?;
        (if year < 50 { 2000 + year } else { 1900 + year }, rest)
    } else {
        let (year, rest) = text.split_at_checked(4)?;
        (year.parse().ok()?, rest)
    };
    if rest.len() != 10 {
        return None;
    }
    let part = |at: usize| rest[at..at + 2].parse::<i64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    // Days from the civil calendar, with the year beginning in March so that the leap day is its last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        change(&mut params);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(listed: &CertificateDer<'static>, shown: &CertificateDer<'_>, name: &str) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut own = Trusted::nothing();
        own.add(listed.clone()).unwrap();
        let nobody = || {
            static NOBODY: OnceLock<Trusted> = OnceLock::new();
            NOBODY.get_or_init(Trusted::nothing)
        };
        let verifier = Listed::new(own, nobody, provider);
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(drop).map_err(|e| e.to_string())
    }

    #[test]
    fn a_listed_certificate_is_trusted_for_its_names_and_time() {
        let own = certificate(|_| {});
        verify(&own, &own, "localhost").unwrap();
        assert!(verify(&own, &own, "other.example").unwrap_err().contains("not valid for"));
        assert!(verify(&certificate(|_| {}), &own, "localhost").is_err());
        let old = certificate(|p| p.not_after = rcgen::date_time_ymd(2021, 3, 1));
        assert!(verify(&old, &old, "localhost").unwrap_err().to_lowercase().contains("expired"));
        let future = certificate(|p| p.not_before = rcgen::date_time_ymd(2999, 1, 1));
        assert!(verify(&future, &future, "localhost").is_err());
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(seconds(0x17, b"700101000000Z"), Some(0));
        assert_eq!(seconds(0x17, b"240229120000Z"), Some(1_709_208_000));
        assert_eq!(seconds(0x18, b"20500101000000Z"), Some(2_524_608_000));
        assert_eq!(seconds(0x18, b"2050"), None);
        assert_eq!(validity(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
