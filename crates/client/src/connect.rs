//! One connection: TCP, through the proxy that the environment names for the host, and TLS.

use std::error::Error as StdError;
use std::io::{Error as IoError, ErrorKind as IoErrorKind, IoSlice, Result as IoResult};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::{SocksV4, SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Time without a byte after which the system asks whether the other side is still there …
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … how often it asks again, and after how many questions without an answer it gives up.
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;
/// A connection on which nothing that was sent is taken for this long is dead.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// The port of a SOCKS proxy that is named without one.
const SOCKS_PORT: u16 = 1080;

type Cause = Box<dyn StdError + Send + Sync>;
type Connecting = Pin<Box<dyn Future<Output = Result<Link, Cause>> + Send>>;

/// Makes connections to one host.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    tls: Arc<ClientConfig>,
    /// What is said to a proxy that is itself reached by TLS: nothing about HTTP/2.
    proxy_tls: Arc<ClientConfig>,
    proxies: Option<Arc<Matcher>>,
    /// All of it together may take this long.
    timeout: Duration,
}

/// A connection, whatever lies under it.
pub(crate) struct Link {
    io: Box<dyn Io>,
    /// The other side is a proxy that wants to hear whole addresses.
    proxied: bool,
    http2: bool,
}

trait Io: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Io for T {}

/// The way to a proxy.
#[derive(Clone)]
struct ToProxy(Connector);

impl Connector {
    /// `tls` as it is shown to the host. Without `proxies` every connection is direct.
    pub(crate) fn new(tls: ClientConfig, proxies: Option<Arc<Matcher>>, timeout: Duration) -> Self {
        let mut proxy_tls = tls.clone();
        proxy_tls.alpn_protocols.clear();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_AGAIN));
        tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
        #[cfg(target_os = "linux")]
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        Self { tcp, tls: Arc::new(tls), proxy_tls: Arc::new(proxy_tls), proxies, timeout }
    }

    async fn connect(mut self, to: Uri) -> Result<Link, Cause> {
        let secure = to.scheme() == Some(&Scheme::HTTPS);
        let proxy = self.proxies.as_ref().and_then(|proxies| proxies.intercept(&to));
        let link = match &proxy {
            None => Link::plain(self.tcp.call(to.clone()).await?),
            Some(proxy) => self.connect_through(proxy, to.clone(), secure).await?,
        };
        if secure { encrypt(&self.tls, link, &to).await } else { Ok(link) }
    }

    async fn connect_through(&self, proxy: &Intercept, to: Uri, secure: bool) -> Result<Link, Cause> {
        let (at, tcp) = (proxy.uri().clone(), self.tcp.clone());
        // What asks a SOCKS proxy takes every address without a port for one of HTTPS.
        let port = if secure { 443 } else { 80 };
        match at.scheme_str() {
            // The names without a letter look the host up here, the others leave that to the proxy.
            Some(scheme @ ("socks4" | "socks4a")) => {
                let local = scheme == "socks4";
                let mut socks = SocksV4::new(with_port(&at, SOCKS_PORT)?, tcp).local_dns(local);
                Ok(Link::plain(socks.call(with_port(&to, port)?).await?))
            }
            Some(scheme @ ("socks5" | "socks5h")) => {
                let mut socks = SocksV5::new(with_port(&at, SOCKS_PORT)?, tcp).local_dns(scheme == "socks5");
                if let Some((user, password)) = proxy.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                Ok(Link::plain(socks.call(with_port(&to, port)?).await?))
            }
            _ if secure => {
                let mut tunnel = Tunnel::new(at, ToProxy(self.clone()));
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                Ok(tunnel.call(to).await?)
            }
            _ => Ok(Link { proxied: true, ..ToProxy(self.clone()).call(at).await? }),
        }
    }
}

/// An address with its port written out.
fn with_port(to: &Uri, port: u16) -> Result<Uri, Cause> {
    if to.port().is_some() {
        return Ok(to.clone());
    }
    let authority = format!("{}:{port}", to.host().unwrap_or_default());
    let mut parts = to.clone().into_parts();
    parts.authority = Some(authority.parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// TLS over a connection.
async fn encrypt(config: &Arc<ClientConfig>, link: Link, to: &Uri) -> Result<Link, Cause> {
    let host = to.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, TokioIo::new(link)).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Link { io: Box::new(TokioIo::new(stream)), proxied: false, http2 })
}

/// Ends what takes longer than `timeout`.
async fn within(timeout: Duration, connecting: impl Future<Output = Result<Link, Cause>>) -> Result<Link, Cause> {
    match tokio::time::timeout(timeout, connecting).await {
        Ok(result) => result,
        Err(_) => Err(IoError::new(IoErrorKind::TimedOut, "operation timed out").into()),
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = Cause;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Connecting {
        let this = self.clone();
        Box::pin(within(this.timeout, this.connect(to)))
    }
}

impl Service<Uri> for ToProxy {
    type Response = Link;
    type Error = Cause;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, at: Uri) -> Connecting {
        let Self(mut connector) = self.clone();
        Box::pin(async move {
            let link = Link::plain(connector.tcp.call(at.clone()).await?);
            let secure = at.scheme() == Some(&Scheme::HTTPS);
            if secure { encrypt(&connector.proxy_tls, link, &at).await } else { Ok(link) }
        })
    }
}

impl Link {
    fn plain(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), proxied: false, http2: false }
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        let connected = Connected::new().proxy(self.proxied);
        if self.http2 { connected.negotiated_h2() } else { connected }
    }
}

impl Read for Link {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<IoResult<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<IoResult<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
