//! One HTTP exchange over kept connections: a request goes, an answer comes. Nothing is followed, retried or limited here.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io::Error as IoError;
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::ErrorKind;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http::header::{ACCEPT, AUTHORIZATION, Entry, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::{Client, Error as SendError};
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use url::Url;

use crate::connect::Connector;
use crate::failure::{self, Failure};

/// How long a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(50);
/// The most that is read from an HTTP/1.1 connection at once (bytes). hyper's own limit is 400 KiB: on a fast network each such buffer is new
/// memory, whose pages the system has to give and take, and none stays in the processor's cache until it is hashed.
const READ: usize = 128 * 1024;
/// Receive window of an HTTP/2 stream and of a connection (bytes): enough for a gigabit at 100 ms.
const HTTP2_WINDOW: u32 = 8 * 1024 * 1024;
/// Who asks.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("airlock/", env!("CARGO_PKG_VERSION")));

/// What a request carries.
pub(crate) type Body = UnsyncBoxBody<Bytes, IoError>;

/// Connections to one host, kept for the next request.
#[derive(Clone)]
pub(crate) struct Connections {
    client: Client<Connector, Body>,
    proxies: Option<Arc<Matcher>>,
}

/// What came back.
pub(crate) struct Response {
    url: Url,
    inner: http::Response<Incoming>,
}

/// A body that is all there.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that comes in pieces; its length is in the headers.
pub(crate) fn pieces(stream: impl Stream<Item = Result<Bytes, IoError>> + Send + 'static) -> Body {
    StreamBody::new(stream.map_ok(Frame::data)).boxed_unsync()
}

impl Connections {
    /// Connections that begin as `tls` says. `timeout`: the longest that one may take to begin.
    pub(crate) fn new(tls: ClientConfig, proxies: Option<Arc<Matcher>>, timeout: Duration) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(READ)
            .http2_initial_stream_window_size(HTTP2_WINDOW)
            .http2_initial_connection_window_size(HTTP2_WINDOW)
            .build(Connector::new(tls, proxies.clone(), timeout));
        Self { client, proxies }
    }

    /// Sends a request; `host` is who is named when that fails.
    pub(crate) async fn send(
        &self,
        host: &str,
        method: Method,
        mut url: Url,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Response, Failure> {
        shown_in_address(&mut url, &mut headers);
        let uri = Uri::try_from(url.as_str()).map_err(|e| {
            Failure::new(ErrorKind::Invalid, format!("`{host}`: {e}")).hint("write it as https://HOST[:PORT]/PATH")
        })?;
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        headers.entry(USER_AGENT).or_insert(AGENT);
        // In a tunnel the proxy hears it when the tunnel is asked for.
        if url.scheme() == "http"
            && let Some(auth) = self.proxies.as_ref().and_then(|p| p.intercept(&uri)?.basic_auth().cloned())
        {
            headers.entry(PROXY_AUTHORIZATION).or_insert(auth);
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        match self.client.request(request).await {
            Ok(inner) => Ok(Response { url, inner }),
            Err(error) => Err(failure::from_transport(host, url.scheme(), &error, SendError::is_connect(&error))),
        }
    }
}

/// A name and password in an address are shown as such and are no part of it from then on.
fn shown_in_address(url: &mut Url, headers: &mut HeaderMap) {
    if url.username().is_empty() && url.password().is_none() {
        return;
    }
    let password = url.password().unwrap_or_default();
    let pair = format!("{}:{}", percent_decoded(url.username()), percent_decoded(password));
    if let (Entry::Vacant(entry), Ok(mut value)) =
        (headers.entry(AUTHORIZATION), HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(pair))))
    {
        value.set_sensitive(true);
        entry.insert(value);
    }
    let _ = url.set_username("");
    let _ = url.set_password(None);
}

/// `%40` -> `@`; what is no text afterwards is left as it is.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

impl Response {
    pub(crate) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.inner.headers()
    }

    /// The address that was asked.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The next bytes of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Box<dyn StdError + Send + Sync>> {
        while let Some(frame) = self.inner.body_mut().frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_password_in_an_address_become_a_header() {
        let mut url = Url::parse("https://a%40b:p%3Aq@charts.example/index.yaml").unwrap();
        let mut headers = HeaderMap::new();
        shown_in_address(&mut url, &mut headers);
        assert_eq!(url.as_str(), "https://charts.example/index.yaml");
        assert_eq!(headers[AUTHORIZATION], format!("Basic {}", BASE64_STANDARD.encode("a@b:p:q")));
    }
}
