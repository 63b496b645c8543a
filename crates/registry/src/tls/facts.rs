//! What a certificate says of itself: for whom, from whom, from when until when.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_oci::{Error, ErrorKind};
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// For whom it is, as a distinguished name.
    pub subject: String,
    /// From whom it is, as a distinguished name.
    pub issuer: String,
    /// The host names and addresses that it is good for. The subject's name does not count: no client looks at it.
    pub names: Vec<String>,
    /// From when it is valid.
    #[serde(skip)]
    pub not_before: SystemTime,
    /// Until when it is valid.
    #[serde(skip)]
    pub not_after: SystemTime,
}

impl Facts {
    /// Of one certificate.
    pub fn of(der: &[u8]) -> Result<Self, Error> {
        let wrong = |cause: String| Error::new(ErrorKind::Invalid, "read the certificate", cause);
        let (_, certificate) = parse_x509_certificate(der).map_err(|e| wrong(e.to_string()))?;
        let names = match certificate.subject_alternative_name().map_err(|e| wrong(e.to_string()))? {
            None => Vec::new(),
            Some(extension) => extension.value.general_names.iter().filter_map(name).collect(),
        };
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            names,
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Whether it is its own issuer, as a root is.
    pub fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// When two thirds of its life are over.
    pub fn renew_at(&self) -> SystemTime {
        let life = self.not_after.duration_since(self.not_before).unwrap_or_default();
        self.not_before + life * 2 / 3
    }
}

/// The certificates of a PEM text, in its order; other blocks are passed over.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |cause: String| Error::new(ErrorKind::Invalid, "read the certificate", cause);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| wrong(format!("the certificate is no PEM: {e}")))?;
    if chain.is_empty() {
        return Err(wrong("there is no certificate in the file".into())
            .hint("a PEM file begins with `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(chain)
}

/// Whether clients that ask for this host accept the certificate.
pub fn covers(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Ok(name) = ServerName::try_from(host) else { return false };
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
}

/// Whether the certificate carries the signature of this authority's key.
pub fn is_signed_by(certificate: &[u8], authority: &[u8]) -> bool {
    let (Ok((_, certificate)), Ok((_, authority))) =
        (parse_x509_certificate(certificate), parse_x509_certificate(authority))
    else {
        return false;
    };
    certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn time(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}
