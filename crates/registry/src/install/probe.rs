//! Asks a registry as a client would: TLS with the certificate that is expected, then the first question of the protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls::facts;
use crate::tls::own::{Folder, Shown};

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a registry that starts is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(150);
/// Bytes of an answer that are read at most.
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// Where to ask, and what is expected.
#[derive(Clone, Debug)]
pub struct Probe {
    addr: SocketAddr,
    host: String,
    config: Arc<ClientConfig>,
}

/// What it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The credentials, or none, suffice.
    Open,
    /// They do not.
    Unauthorized,
}

/// Accepts one certificate and no other, whatever its name and issuer: what was given may be for the name of a proxy, from a CA
/// that this machine does not know.
#[derive(Debug)]
struct Exactly {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Probe {
    /// A registry that listens at an address with the certificate of this folder, under the name of a host.
    pub fn new(listen: SocketAddr, host: &str, folder: &Folder) -> Result<Self, Error> {
        let config = config(&folder.shown()?)?;
        Ok(Self { addr: reachable(listen), host: host.to_owned(), config: Arc::new(config) })
    }

    /// The same, but only the very certificate that is in the folder now is accepted.
    pub fn exactly(listen: SocketAddr, host: &str, folder: &Folder) -> Result<Self, Error> {
        let config = exact(folder.shown()?.leaf()?)?;
        Ok(Self { addr: reachable(listen), host: host.to_owned(), config: Arc::new(config) })
    }

    /// Asks once. The password is in a header and nowhere else.
    pub async fn ask(&self, credentials: Option<(&str, &str)>) -> Result<Answer, Error> {
        let what = || format!("reach the registry at {}", self.addr);
        let slow = |_| Error::new(ErrorKind::Network, what(), format!("no answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, self.once(credentials)).await.map_err(slow)?
    }

    /// Asks until it answers, or until `patience` is over, or `gone` says why it never will.
    pub async fn wait(
        &self,
        credentials: Option<(&str, &str)>,
        patience: Duration,
        mut gone: impl AsyncFnMut() -> Option<String>,
    ) -> Result<Answer, Error> {
        let end = tokio::time::Instant::now() + patience;
        loop {
            let error = match self.ask(credentials).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if let Some(why) = gone().await {
                return Err(Error::new(ErrorKind::Server, format!("start the registry at {}", self.addr), why));
            }
            if tokio::time::Instant::now() >= end {
                return Err(error);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    async fn once(&self, credentials: Option<(&str, &str)>) -> Result<Answer, Error> {
        let what = || format!("reach the registry at {}", self.addr);
        let network = |e: std::io::Error| Error::new(ErrorKind::Network, what(), e);
        let name = ServerName::try_from(self.host.clone())
            .map_err(|e| Error::new(ErrorKind::Invalid, what(), format!("`{}`: {e}", self.host)))?;
        let stream = TcpStream::connect(self.addr).await.map_err(network)?;
        let mut stream = TlsConnector::from(self.config.clone()).connect(name, stream).await.map_err(network)?;
        let login = credentials.map(|(user, password)| {
            format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")))
        });
        let request = format!(
            "GET /v2/ HTTP/1.1\r\nHost: {}\r\nUser-Agent: airlock\r\nConnection: close\r\n{}\r\n",
            self.host,
            login.unwrap_or_default()
        );
        stream.write_all(request.as_bytes()).await.map_err(network)?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await.map_err(network)?;
        let answer = String::from_utf8_lossy(&answer);
        let head = answer.split("\r\n\r\n").next().unwrap_or_default().to_ascii_lowercase();
        let is_registry = head.contains("docker-distribution-api-version: registry/2.0");
        match head.split(' ').nth(1) {
            Some("200") if is_registry => Ok(Answer::Open),
            Some("401") if is_registry => Ok(Answer::Unauthorized),
            _ => {
                let line = head.lines().next().unwrap_or_default();
                Err(Error::new(ErrorKind::Server, what(), format!("it does not answer as a registry: `{line}`")))
            }
        }
    }
}

/// Where a client on this machine finds what listens at an address.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // What listens at `[::]` answers at 127.0.0.1 too, unless the system says otherwise.
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (ip, listen.port()).into()
}

fn config(shown: &Shown) -> Result<ClientConfig, Error> {
    let Some(ca) = shown.ca() else { return exact(shown.leaf()?) };
    let mut roots = RootCertStore::empty();
    for certificate in facts::chain(ca.as_bytes())? {
        roots.add(certificate).map_err(wrong)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build().map_err(wrong)?;
    with(provider, verifier)
}

fn exact(certificate: CertificateDer<'static>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    with(provider.clone(), Arc::new(Exactly { certificate, provider }))
}

fn with(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, Error> {
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn wrong(cause: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, "prepare to ask the registry", cause)
}

impl ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        served: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *served == self.certificate {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate than the one that it was given".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
