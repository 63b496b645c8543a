//! Bearer tokens: fetched from the realm that a challenge names, kept until shortly before they expire.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::ErrorKind;
use http::Method;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::{Credential, Origin, Scope, basic};
use crate::Secret;
use crate::client::{Call, Client, Target};
use crate::failure::Failure;
use crate::host::{Host, is_loopback, name_of};

/// A token without `expires_in` lives this long (distribution's token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// A token is renewed this long before it expires, or after three quarters of its life if that is shorter.
const SKEW: Duration = Duration::from_secs(15);
/// The largest answer of a token server that is read (bytes).
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Above this number expired tokens are thrown out.
const MAX_TOKENS: usize = 2048;

/// What a token is asked for.
pub(crate) struct Wanted<'a> {
    pub(crate) realm: &'a Url,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: &'a Scope,
    pub(crate) credential: Option<&'a Arc<Credential>>,
}

/// The cache.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Option<Token>>>>>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    host: String,
    realm: String,
    service: Option<String>,
    scopes: Vec<String>,
    identity: Option<(String, Origin)>,
}

struct Token {
    text: Secret,
    good_until: Instant,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    /// A token that is good for a while, and whether it was fetched just now. Requests that want the same token at once wait for one fetch.
    pub(crate) async fn get(
        &self,
        client: &Client,
        host: &Host,
        wanted: &Wanted<'_>,
    ) -> Result<(Secret, bool), Failure> {
        let key = Key {
            host: host.name.clone(),
            realm: wanted.realm.to_string(),
            service: wanted.service.map(str::to_owned),
            scopes: wanted.scope.texts.clone(),
            identity: wanted.credential.map(|c| (c.username.clone(), c.origin.clone())),
        };
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= MAX_TOKENS {
                let now = Instant::now();
                slots.retain(|_, slot| {
                    slot.try_lock().map_or(true, |token| token.as_ref().is_some_and(|t| t.good_until > now))
                });
            }
            Arc::clone(slots.entry(key).or_default())
        };
        let mut slot = slot.lock().await;
        if let Some(token) = slot.as_ref().filter(|t| t.good_until > Instant::now()) {
            return Ok((token.text.clone(), false));
        }
        let token = fetch(client, host, wanted).await?;
        let text = token.text.clone();
        *slot = Some(token);
        Ok((text, true))
    }

    /// Throws out the token that this header carried: the registry refused it.
    pub(crate) fn drop_token(&self, header: &HeaderValue) {
        let Some(text) = header.to_str().ok().and_then(|h| h.strip_prefix("Bearer ")) else { return };
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            // A slot that is locked is being renewed, which is what is wanted.
            if let Ok(mut token) = slot.try_lock()
                && token.as_ref().is_some_and(|t| t.text.reveal() == text)
            {
                *token = None;
            }
        }
    }
}

async fn fetch(client: &Client, host: &Host, wanted: &Wanted<'_>) -> Result<Token, Failure> {
    let realm_name = name_of(wanted.realm);
    if wanted.realm.scheme() != "https" && !is_loopback(&realm_name) && !host.insecure {
        return Err(Failure::new(
            ErrorKind::Unauthorized,
            format!("`{}` names a token server without TLS (`{realm_name}`); no credentials are sent there", host.name),
        )
        .hint("if this network is trusted, set `insecure = true` for the registry in registries.conf or pass --tls-verify=false"));
    }
    let realm_host = client.host(&realm_name, host.insecure)?;
    let started = Instant::now();
    let mut call = Call::new(Method::GET, Target::Url(wanted.realm.clone()), Scope::none());
    call.what = Some(format!("GET token from {realm_name}"));
    let identity = wanted.credential.and_then(|c| c.identity_token.as_ref());
    if let Some(identity) = identity {
        // OAuth2: the stored refresh token buys an access token.
        let mut form = form_pairs(&[
            ("grant_type", "refresh_token"),
            ("client_id", "airlock"),
            ("refresh_token", identity.reveal()),
        ]);
        if let Some(service) = wanted.service {
            form.push_str(&form_pairs(&[("service", service)]));
        }
        form.push_str(&form_pairs(&[("scope", &wanted.scope.texts.join(" "))]));
        call.method = Method::POST;
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        call.body = form.trim_end_matches('&').to_owned().into_bytes().into();
    } else {
        let mut url = wanted.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = wanted.service {
                query.append_pair("service", service);
            }
            for scope in &wanted.scope.texts {
                query.append_pair("scope", scope);
            }
            if let Some(credential) = wanted.credential {
                query.append_pair("account", &credential.username);
            }
        }
        call.to = Target::Url(url);
        if let Some(credential) = wanted.credential {
            call.headers.insert(AUTHORIZATION, basic(credential)?);
        }
    }
    let mut answer = client.send_unauthorized(&realm_host, &call).await.map_err(|mut failure| {
        let by = wanted.credential.map(|c| format!(" (with {})", c.origin)).unwrap_or_default();
        failure.cause = format!("token server `{realm_name}`: {}{by}", failure.cause);
        if matches!(failure.kind, ErrorKind::NotFound | ErrorKind::Refused) {
            failure.kind = ErrorKind::Unauthorized;
        }
        if wanted.credential.is_some() && failure.hint.is_none() {
            failure.hint = super::hint(&host.name, failure.kind);
        }
        failure
    })?;
    let body = answer.read_all(MAX_ANSWER_BYTES).await?;
    let unusable = || Failure::new(ErrorKind::Server, format!("token server `{realm_name}` gave no usable token"));
    let parsed: Answer = serde_json::from_slice(&body).map_err(|_| unusable())?;
    let text = parsed.token.filter(|t| !t.is_empty()).or(parsed.access_token).ok_or_else(unusable)?;
    let lifetime = parsed.expires_in.filter(|s| *s > 0).map_or(DEFAULT_LIFETIME, Duration::from_secs);
    let skew = SKEW.min(lifetime / 4);
    Ok(Token { text: text.into(), good_until: started + lifetime.saturating_sub(skew) })
}

/// `a=b&` for each pair, percent-encoded.
fn form_pairs(pairs: &[(&str, &str)]) -> String {
    let mut form = String::new();
    for (name, value) in pairs {
        form.push_str(name);
        form.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                form.push(char::from(byte));
            } else {
                form.push_str(&format!("%{byte:02X}"));
            }
        }
        form.push('&');
    }
    form
}
