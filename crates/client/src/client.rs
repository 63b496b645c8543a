//! The client: one request to one host, done properly - scheme, authentication, redirects, limits, retries - and nothing about images.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION, WARNING};
use http::{Method, StatusCode};
use url::Url;

use crate::answer::Answer;
use crate::auth::{self, Credential, Credentials, Grant, Scope, Tokens};
use crate::endpoint::Endpoints;
use crate::exchange::{self, Body, Connections, Response};
use crate::failure::Failure;
use crate::host::{Host, is_loopback, name_of, same_origin};
use crate::limits::Permit;
use crate::retry::Policy;
use crate::surroundings::Surroundings;
use crate::{Notice, Options, tls};

/// Most redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;

/// Speaks with registries. Cheap to clone; all clones share connections, tokens, limits and findings.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    options: Options,
    certs_d: Vec<PathBuf>,
    endpoints: Endpoints,
    credentials: Credentials,
    tokens: Tokens,
    hosts: Mutex<HashMap<(String, bool), Arc<Host>>>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A path of the host.
    Path(String),
    /// An address that the host gave (upload session, next page).
    Url(Url),
}

/// A request whose body is small enough to be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) to: Target,
    pub(crate) scope: Scope,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What notices call it, where its address does not tell.
    pub(crate) what: Option<String>,
    /// The answer's body is a blob.
    pub(crate) bulk: bool,
    /// Fail at once when the host cannot be reached: another endpoint comes next.
    pub(crate) impatient: bool,
    /// The caller holds a place in the host's limit already.
    pub(crate) seated: bool,
}

impl Client {
    /// Builds a client; reads `registries.conf` now, credential files when they are needed.
    pub fn new(options: Options) -> Result<Self, Error> {
        Self::with_surroundings(options, &Surroundings::process())
    }

    pub(crate) fn with_surroundings(options: Options, env: &Surroundings) -> Result<Self, Error> {
        let certs_d = options.certs_d.clone().unwrap_or_else(|| tls::certs_d(env));
        let endpoints = Endpoints::load(&options.registries_conf, env)?;
        let credentials = Credentials::new(&options, env);
        let deprecated = credentials.deprecated();
        let client = Self(Arc::new(Inner {
            options,
            certs_d,
            endpoints,
            credentials,
            tokens: Tokens::default(),
            hosts: Mutex::default(),
        }));
        if let Some(text) = deprecated {
            client.notify(|| Notice::Warning { host: "environment".into(), text: text.into() });
        }
        Ok(client)
    }

    /// What it was built with.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.0.endpoints
    }

    pub(crate) fn credentials(&self) -> &Credentials {
        &self.0.credentials
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn policy(&self) -> Policy {
        let options = self.options();
        Policy { times: options.retry_times, delay: options.retry_delay, max_retry_after: options.max_retry_after }
    }

    /// Tells the caller something, if it listens.
    pub(crate) fn notify(&self, notice: impl FnOnce() -> Notice) {
        if let Some(listener) = &self.options().notices {
            listener(notice());
        }
    }

    pub(crate) fn credential_used(&self, host: &Host, credential: &Credential) {
        let text = credential.origin.to_string();
        if host.first_time(&text) {
            self.notify(|| Notice::CredentialUsed { host: host.name.clone(), credential: text });
        }
    }

    /// The state kept for a host.
    pub(crate) fn host(&self, name: &str, insecure: bool) -> Result<Arc<Host>, Error> {
        let insecure = insecure || !self.options().tls_verify;
        let key = (name.to_owned(), insecure);
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&key) {
            return Ok(Arc::clone(host));
        }
        let options = self.options();
        let tls = tls::config(crate::host::contact_name(name), !insecure, &options.cert_dirs, &self.0.certs_d)?;
        let host = Arc::new(Host::new(name, insecure, tls, &options.timeouts, options.requests_per_host));
        hosts.insert(key, Arc::clone(&host));
        Ok(host)
    }

    /// Sends a request until it succeeds or cannot: transient failures are tried again.
    pub(crate) async fn send(&self, host: &Arc<Host>, call: &Call) -> Result<Answer, Failure> {
        let policy = self.policy();
        // A mirror that is down would cost every pull its time-out.
        if call.impatient
            && let Some(cause) = host.down()
        {
            return Err(Failure { unreachable: true, ..Failure::new(ErrorKind::Network, cause) });
        }
        let mut attempt = 1;
        loop {
            let failure = match self.send_once(host, call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if failure.unreachable && call.impatient {
                host.went_down(&failure.cause);
            }
            let hopeless = !failure.transient || (failure.unreachable && call.impatient);
            if hopeless || attempt > policy.times {
                return Err(failure);
            }
            let delay = policy.delay(attempt, failure.retry_after);
            self.pause(&call.what(&host.name), &failure, attempt, delay).await;
            attempt += 1;
        }
    }

    /// Tells that something is tried again, and waits.
    pub(crate) async fn pause(&self, what: &str, failure: &Failure, attempt: u32, delay: Duration) {
        let of = self.policy().times + 1;
        self.notify(|| Notice::Retrying { request: what.to_owned(), cause: failure.cause.clone(), attempt, of, delay });
        tokio::time::sleep(delay).await;
    }

    /// Sends a request once, with authentication. An answer that is not a success is a failure.
    pub(crate) async fn send_once(&self, host: &Arc<Host>, call: &Call) -> Result<Answer, Failure> {
        let write = !matches!(call.method, Method::GET | Method::HEAD);
        let permit = match (call.seated, write) {
            (true, _) => None,
            (false, true) => Some(host.writes.acquire().await),
            (false, false) => Some(host.reads.acquire().await),
        };
        let mut grant = auth::authorize(self, host, &call.scope).await?;
        let mut response = self.exchange(host, call, grant.as_ref().map(|g| g.header.clone())).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && let Some(again) =
                auth::challenged(self, host, &call.scope, grant.as_ref(), response.headers(), response.url()).await?
        {
            response = self.exchange(host, call, Some(again.header.clone())).await?;
            grant = Some(again);
        }
        let answer = self.answer(host, response, permit);
        self.judge(host, &call.scope, grant.as_ref(), answer).await
    }

    /// Sends a request whose body is a stream, once: it cannot be sent again here. The session was begun just before, so scheme and
    /// authentication are known.
    pub(crate) async fn send_stream(&self, host: &Arc<Host>, call: &Call, body: Body) -> Result<Answer, Failure> {
        let Target::Url(url) = &call.to else {
            return Err(Failure::new(ErrorKind::Invalid, "a stream needs an address"));
        };
        let ours = same_host(host, url);
        let grant = if ours { auth::authorize(self, host, &call.scope).await? } else { None };
        let mut headers = call.headers.clone();
        if let Some(grant) = &grant {
            headers.insert(AUTHORIZATION, grant.header.clone());
        }
        // The sender watches the progress; a fixed time-out would cut a large blob.
        let connections = self.connections_for(host, &name_of(url), url, true)?;
        let response = connections.send(&host.name, call.method.clone(), url.clone(), headers, body).await?;
        if response.status() == StatusCode::UNAUTHORIZED && ours {
            // The header is renewed now, so that the caller's next try carries a good one.
            auth::challenged(self, host, &call.scope, grant.as_ref(), response.headers(), response.url()).await?;
        }
        let answer = self.answer(host, response, None);
        self.judge(host, &call.scope, grant.as_ref(), answer).await
    }

    /// Sends a request without authentication of ours (token servers).
    pub(crate) async fn send_unauthorized(&self, host: &Arc<Host>, call: &Call) -> Result<Answer, Failure> {
        let response = self.exchange(host, call, None).await?;
        let answer = self.answer(host, response, None);
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(answer.into_failure().await)
    }

    fn answer(&self, host: &Host, response: Response, permit: Option<Permit>) -> Answer {
        Answer::new(response, host.name.clone(), self.options().timeouts.stall, permit)
    }

    /// Success, or a failure that says who was shown to the registry.
    async fn judge(
        &self,
        host: &Arc<Host>,
        scope: &Scope,
        grant: Option<&Grant>,
        answer: Answer,
    ) -> Result<Answer, Failure> {
        for warning in answer.headers().get_all(WARNING) {
            // `299 - "text"`
            let Some(text) = warning.to_str().ok().and_then(|w| w.split('"').nth(1)) else { continue };
            if host.first_time(text) {
                self.notify(|| Notice::Warning { host: host.name.clone(), text: text.to_owned() });
            }
        }
        if answer.status().is_success() {
            host.reads.succeeded();
            host.writes.succeeded();
            return Ok(answer);
        }
        let mut failure = answer.into_failure().await;
        if matches!(failure.kind, ErrorKind::TooManyRequests | ErrorKind::Server) {
            let wait = failure.retry_after.map(|d| d.min(self.options().max_retry_after));
            host.reads.overloaded(wait);
            host.writes.overloaded(wait);
            if let Some(delay) = wait {
                self.notify(|| Notice::Waiting { host: host.name.clone(), delay });
            }
        }
        match grant.and_then(|g| g.credential.as_ref()) {
            Some(credential) => {
                failure.cause.push_str(&format!(" (with {})", credential.origin));
                if failure.hint.is_none() {
                    failure.hint = auth::hint(&host.name, failure.kind);
                }
            }
            None if matches!(failure.kind, ErrorKind::Unauthorized | ErrorKind::Denied) => {
                let found = self.credentials().find(&host.name, &scope.repository).await?;
                let name = if scope.repository.is_empty() {
                    host.name.clone()
                } else {
                    format!("{}/{}", host.name, scope.repository)
                };
                failure
                    .cause
                    .push_str(&format!(" (anonymously: no credential for `{name}`; {}", self.credentials().places()));
                for note in found.notes.iter() {
                    failure.cause.push_str(&format!("; {note}"));
                }
                failure.cause.push(')');
                failure.hint.get_or_insert_with(|| {
                    format!("log in with `airlock login {}`, or name the file with --authfile", host.name)
                });
            }
            None => {}
        }
        Err(failure)
    }

    /// The raw exchange: finds the scheme, follows redirects of reads.
    async fn exchange(&self, host: &Arc<Host>, call: &Call, header: Option<HeaderValue>) -> Result<Response, Failure> {
        let mut response = match &call.to {
            Target::Url(url) => {
                let header = header.clone().filter(|_| same_host(host, url));
                self.one(host, call, url.clone(), header).await?
            }
            Target::Path(path) => self.find_scheme(host, call, path, header.as_ref()).await?,
        };
        let follows = matches!(call.method, Method::GET | Method::HEAD);
        let mut hops = 0;
        while follows && matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            let from = response.url().clone();
            let broken =
                |text: String| Failure::new(ErrorKind::Server, format!("`{}` redirects {text}", name_of(&from)));
            hops += 1;
            if hops > MAX_REDIRECTS {
                return Err(broken(format!("more than {MAX_REDIRECTS} times")));
            }
            let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok());
            let to = location
                .and_then(|l| from.join(l).ok())
                .filter(|to| matches!(to.scheme(), "http" | "https"))
                .ok_or_else(|| broken("to no usable address".into()))?;
            if from.scheme() == "https" && to.scheme() == "http" && !host.insecure {
                return Err(broken(format!("from HTTPS to plain HTTP at `{}`, which is refused", name_of(&to))));
            }
            // Whoever stores the bytes for a registry has no business with its users' credentials.
            let header = header.clone().filter(|_| same_origin(&from, &to) && same_host(host, &to));
            response = self.one(host, call, to, header).await?;
        }
        Ok(response)
    }

    /// Asks by the scheme that is known, or by one after the other; while the first request of all finds it out, the others wait.
    async fn find_scheme(
        &self,
        host: &Arc<Host>,
        call: &Call,
        path: &str,
        header: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        if host.schemes().len() == 1 {
            return self.by_schemes(host, call, path, header).await;
        }
        let Ok(_finding) = host.finding.acquire().await else {
            return match host.down().filter(|_| call.impatient) {
                Some(cause) => Err(Failure { unreachable: true, ..Failure::new(ErrorKind::Network, cause) }),
                None => self.by_schemes(host, call, path, header).await,
            };
        };
        let answered = self.by_schemes(host, call, path, header).await;
        if let Err(failure) = &answered
            && failure.unreachable
            && call.impatient
        {
            host.went_down(&failure.cause);
        }
        // Found or not: what was tried once is no reason to keep the others waiting.
        host.finding.close();
        answered
    }

    async fn by_schemes(
        &self,
        host: &Arc<Host>,
        call: &Call,
        path: &str,
        header: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut first: Option<Failure> = None;
        for scheme in host.schemes() {
            let url = host.url(scheme, path).map_err(|e| {
                Failure::new(ErrorKind::Invalid, format!("`{}{path}` is not an address: {e}", host.name))
            })?;
            match self.one(host, call, url, header.cloned()).await {
                Ok(response) => {
                    if host.answered(scheme) && !is_loopback(&host.name) {
                        let text = "plain HTTP is used: nothing protects what is sent and received".to_owned();
                        if host.first_time(&text) {
                            self.notify(|| Notice::Warning { host: host.name.clone(), text });
                        }
                    }
                    return Ok(response);
                }
                Err(failure) if failure.unreachable => {
                    first = Some(match first {
                        // Both ways failed: the second says what is new.
                        Some(https) if https.cause != failure.cause => {
                            Failure { cause: format!("{}; over plain HTTP: {}", https.cause, failure.cause), ..failure }
                        }
                        _ => failure,
                    });
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(first.unwrap_or_else(|| Failure::new(ErrorKind::Network, format!("`{}` cannot be contacted", host.name))))
    }

    /// One HTTP request to one address.
    async fn one(
        &self,
        host: &Arc<Host>,
        call: &Call,
        url: Url,
        header: Option<HeaderValue>,
    ) -> Result<Response, Failure> {
        let name = name_of(&url);
        let mut headers = call.headers.clone();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header);
        }
        if call.body.is_empty() && !matches!(call.method, Method::GET | Method::HEAD) {
            // Some servers and proxies refuse a POST without a length.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let timeouts = &self.options().timeouts;
        let connections = self.connections_for(host, &name, &url, call.bulk)?;
        let sending = connections.send(&name, call.method.clone(), url, headers, exchange::whole(call.body.clone()));
        match tokio::time::timeout(timeouts.connect + timeouts.first_byte, sending).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure::new(
                ErrorKind::Network,
                format!("`{name}` gave no answer within {} s", (timeouts.connect + timeouts.first_byte).as_secs()),
            )),
        }
    }

    fn connections_for(&self, host: &Arc<Host>, name: &str, url: &Url, bulk: bool) -> Result<Connections, Failure> {
        if name == host.name || same_host(host, url) {
            return Ok(host.connections(bulk).clone());
        }
        // Another host has other certificates; what the user said about checking them holds for this one's content.
        Ok(self.host(name, host.insecure)?.connections(bulk).clone())
    }
}

impl Call {
    pub(crate) fn new(method: Method, to: Target, scope: Scope) -> Self {
        Self {
            method,
            to,
            scope,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            what: None,
            bulk: false,
            impatient: false,
            seated: false,
        }
    }

    /// For notices: `GET quay.io/a/b blobs/sha256:…`. Put together only when somebody is told.
    pub(crate) fn what(&self, host: &str) -> String {
        if let Some(what) = &self.what {
            return what.clone();
        }
        let (name, path) = match &self.to {
            Target::Path(path) => (host.to_owned(), path.as_str()),
            Target::Url(url) => (name_of(url), url.path()),
        };
        let (method, repository) = (&self.method, &self.scope.repository);
        let rest = path.strip_prefix("/v2/").and_then(|path| path.strip_prefix(&**repository)?.strip_prefix('/'));
        match (rest.filter(|_| !repository.is_empty()), &self.to) {
            (Some(rest), _) => format!("{method} {name}/{repository} {rest}"),
            (None, Target::Path(_)) => format!("{method} {name} {path}"),
            (None, Target::Url(_)) => format!("{method} {name}{path}"),
        }
    }
}

/// Whether an address is of this host (and may get its credentials).
fn same_host(host: &Host, url: &Url) -> bool {
    name_of(url) == crate::host::normal_name(&host.name, url.scheme()) && host.schemes().contains(&url.scheme())
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.0.options).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_told_by_its_repository() {
        let called = |to: Target, repository: &str| {
            Call::new(Method::GET, to, Scope::repository(repository, "pull")).what("quay.io")
        };
        let path = |path: &str| Target::Path(path.to_owned());
        let url = |url: &str| Target::Url(Url::parse(url).unwrap());
        assert_eq!(called(path("/v2/a/b/tags/list?n=9"), "a/b"), "GET quay.io/a/b tags/list?n=9");
        assert_eq!(called(path("/v2/a/bc/x"), "a/b"), "GET quay.io /v2/a/bc/x");
        assert_eq!(called(url("https://quay.io/v2/a/b/tags/list?last=v1"), "a/b"), "GET quay.io/a/b tags/list");
        let call = Call::new(Method::GET, url("https://charts.example/index.yaml?token=x"), Scope::none());
        assert_eq!(call.what("charts.example"), "GET charts.example/index.yaml");
        let call = Call { what: Some("log in".into()), ..Call::new(Method::GET, path("/v2/"), Scope::none()) };
        assert_eq!(call.what("quay.io"), "log in");
    }
}
