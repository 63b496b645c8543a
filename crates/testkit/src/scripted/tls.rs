//! A certificate authority made for one test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority, and what it made: all in PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The authority's certificate, for `certs.d/<host>/ca.crt`.
    pub ca: String,
    /// A client's certificate, for `client.cert`.
    pub client_cert: String,
    /// Its key, for `client.key`.
    pub client_key: String,
}

/// Which certificate a TLS registry shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Valid for `localhost` and `127.0.0.1`.
    #[default]
    Valid,
    /// Valid for another name.
    OtherName,
    /// Expired.
    Expired,
}

pub(crate) fn make(shown: Shown, ask_client: bool) -> (Certificates, Arc<rustls::ServerConfig>) {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(DnType::CommonName, "test authority");
    let ca_cert = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let names = match shown {
        Shown::OtherName => vec!["other.example".to_owned()],
        _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
    };
    let mut leaf = CertificateParams::new(names).expect("parameters");
    if shown == Shown::Expired {
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf_cert = leaf.signed_by(&leaf_key, &issuer).expect("a certificate");
    let client_key = KeyPair::generate().expect("a key");
    let client_cert = CertificateParams::new(vec!["client".to_owned()])
        .expect("parameters")
        .signed_by(&client_key, &issuer)
        .expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("protocol versions");
    let builder = if ask_client {
        let mut roots = RootCertStore::empty();
        roots.add(ca_cert.der().clone()).expect("a root");
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
    } else {
        builder.with_no_client_auth()
    };
    let chain: Vec<CertificateDer<'static>> = vec![leaf_cert.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let config = builder.with_single_cert(chain, key).expect("a server configuration");
    let certificates =
        Certificates { ca: ca_cert.pem(), client_cert: client_cert.pem(), client_key: client_key.serialize_pem() };
    (certificates, Arc::new(config))
}
