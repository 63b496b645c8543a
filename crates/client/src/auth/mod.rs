//! Showing a registry who asks: challenges, Basic, Bearer with a cache of tokens, credential files.
//!
//! Nothing is sent before a host has challenged. After that every request carries the header at once; a 401 to a cached token drops
//! it and fetches another, once.

pub mod challenge;
pub(crate) mod credentials;
pub(crate) mod file;
pub(crate) mod helper;
pub mod login;
mod token;

use std::sync::Arc;

use airlock_oci::ErrorKind;
use base64::Engine as _;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use url::Url;

use crate::client::Client;
use crate::failure::Failure;
use crate::host::Host;
pub(crate) use credentials::Credentials;
pub use credentials::{Credential, Origin};
pub(crate) use token::Tokens;

/// How a host wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer { realm: Url, service: Option<String> },
}

/// What a request is allowed to do with which repository: the scope of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The repository's path; empty for the registry itself.
    pub(crate) repository: String,
    /// The text of the scope parameters, in order.
    pub(crate) texts: Vec<String>,
}

/// A header that shows who asks.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    /// Made for this request: a 401 to it is final.
    fresh: bool,
    pub(crate) credential: Option<Arc<Credential>>,
}

impl Scope {
    /// Nothing in particular (ping).
    pub(crate) fn none() -> Self {
        Self { repository: String::new(), texts: Vec::new() }
    }

    /// `pull`, `pull,push` or `delete` in a repository.
    pub(crate) fn repository(repository: &str, actions: &str) -> Self {
        Self { repository: repository.to_owned(), texts: vec![format!("repository:{repository}:{actions}")] }
    }

    /// The list of repositories.
    pub(crate) fn catalog() -> Self {
        Self { repository: String::new(), texts: vec!["registry:catalog:*".into()] }
    }

    /// Also pull from another repository (mount).
    pub(crate) fn and_pull(mut self, other: &str) -> Self {
        self.texts.push(format!("repository:{other}:pull"));
        self
    }
}

/// The header for a request, as far as the host's scheme is known.
pub(crate) async fn authorize(client: &Client, host: &Host, scope: &Scope) -> Result<Option<Grant>, Failure> {
    match host.auth() {
        None => Ok(None),
        Some(scheme) => grant(client, host, scope, &scheme).await,
    }
}

/// The header after a 401. `previous` is what the refused request carried.
pub(crate) async fn challenged(
    client: &Client,
    host: &Host,
    scope: &Scope,
    previous: Option<&Grant>,
    headers: &HeaderMap,
    request_url: &Url,
) -> Result<Option<Grant>, Failure> {
    let offers: Vec<challenge::Challenge> =
        headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok()).flat_map(challenge::parse).collect();
    let insufficient = offers.iter().any(|c| c.param("error") == Some("insufficient_scope"));
    let Some(scheme) = choose(&offers, request_url)? else {
        if offers.is_empty() {
            return Ok(None);
        }
        let names: Vec<&str> = offers.iter().map(|c| c.scheme.as_str()).collect();
        return Err(Failure::new(
            ErrorKind::Unauthorized,
            format!("`{}` offers only authentication by {}, which is not supported", host.name, names.join(", ")),
        ));
    };
    let scheme = Arc::new(scheme);
    let known = host.auth().is_some_and(|s| *s == *scheme);
    host.set_auth(Arc::clone(&scheme));
    if let Some(previous) = previous
        && known
    {
        let helper = previous.credential.as_ref().is_some_and(|c| matches!(c.origin, Origin::Helper { .. }));
        if helper {
            client.credentials().forget(&host.name, &scope.repository);
        }
        match *scheme {
            Scheme::Bearer { .. } if previous.fresh => return Ok(None),
            Scheme::Bearer { .. } => client.tokens().drop_token(&previous.header),
            Scheme::Basic => {
                let again = grant(client, host, scope, &scheme).await?;
                return Ok(again.filter(|g| g.header != previous.header));
            }
        }
    }
    if insufficient && previous.is_some_and(|p| p.fresh) {
        return Ok(None);
    }
    grant(client, host, scope, &scheme).await
}

/// The best of the offers: a token before a password.
fn choose(offers: &[challenge::Challenge], request_url: &Url) -> Result<Option<Scheme>, Failure> {
    if let Some(bearer) = offers.iter().find(|c| c.scheme == "bearer") {
        let wrong = |text: &str| {
            Failure::new(
                ErrorKind::Unauthorized,
                format!("the registry names a token server that cannot be used (realm `{text}`)"),
            )
        };
        let text = bearer.param("realm").unwrap_or_default();
        // A relative realm is against the specification, but its meaning is plain.
        let realm = request_url.join(text).map_err(|_| wrong(text))?;
        if text.is_empty() || !matches!(realm.scheme(), "http" | "https") {
            return Err(wrong(text));
        }
        return Ok(Some(Scheme::Bearer { realm, service: bearer.param("service").map(str::to_owned) }));
    }
    Ok(offers.iter().any(|c| c.scheme == "basic").then_some(Scheme::Basic))
}

async fn grant(client: &Client, host: &Host, scope: &Scope, scheme: &Scheme) -> Result<Option<Grant>, Failure> {
    let found = client.credentials().find(&host.name, &scope.repository).await?;
    if let Some(credential) = &found.credential {
        client.credential_used(host, credential);
    }
    match scheme {
        Scheme::Basic => {
            let Some(credential) = found.credential.filter(|c| c.identity_token.is_none()) else { return Ok(None) };
            let header = basic(&credential)?;
            Ok(Some(Grant { header, fresh: false, credential: Some(credential) }))
        }
        Scheme::Bearer { realm, service } => {
            let wanted =
                token::Wanted { realm, service: service.as_deref(), scope, credential: found.credential.as_ref() };
            let (token, fresh) = client.tokens().get(client, host, &wanted).await?;
            let mut header = HeaderValue::from_str(&format!("Bearer {}", token.reveal())).map_err(|_| {
                Failure::new(ErrorKind::Server, format!("token server `{}` gave an unusable token", realm))
            })?;
            header.set_sensitive(true);
            Ok(Some(Grant { header, fresh, credential: found.credential }))
        }
    }
}

/// What helps when a host refuses the credential it was shown.
pub(crate) fn hint(host: &str, kind: ErrorKind) -> Option<String> {
    match kind {
        ErrorKind::Unauthorized => {
            Some(format!("user name or password are wrong or have expired: log in again with `airlock login {host}`"))
        }
        ErrorKind::Denied => {
            Some(format!("this user lacks the right: ask for it, or log in as another with `airlock login {host}`"))
        }
        _ => None,
    }
}

/// `Basic …` of a credential.
pub(crate) fn basic(credential: &Credential) -> Result<HeaderValue, Failure> {
    let pair = format!("{}:{}", credential.username, credential.password.reveal());
    let text = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let mut header = HeaderValue::from_str(&text)
        .map_err(|_| Failure::new(ErrorKind::Invalid, format!("{} cannot be sent", credential.origin)))?;
    header.set_sensitive(true);
    Ok(header)
}
