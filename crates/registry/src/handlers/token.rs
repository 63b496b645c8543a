//! `/token`: a token for a password (docker's token flow and its OAuth2 form).
//!
//! What is asked for is cut down to what the user may do, without an error: the registry itself says what is missing when it is used.

use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;

use crate::access::{Access, Grant, LIFETIME};
use crate::body;
use crate::lingering::Received;
use crate::page::words::rfc3339;
use crate::query::Query;
use crate::refusal::{Code, Refusal};
use crate::service::{Answer, document};

/// Bytes of a form at most.
const MAX_FORM_BYTES: usize = 16 * 1024;

#[derive(Serialize)]
struct Token<'a> {
    token: &'a str,
    access_token: &'a str,
    expires_in: u64,
    /// From when that counts, for clients whose clock is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_at: Option<String>,
}

/// GET with credentials in the header, or POST with a form.
pub(crate) async fn issue(
    access: &Access,
    method: &Method,
    headers: &HeaderMap,
    from: IpAddr,
    query: &str,
    body: &mut Option<Received>,
) -> Answer {
    let Some(tokens) = &access.tokens else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unsupported, "this registry issues no tokens"));
    };
    let malformed = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, Code::Unsupported, text);
    let (scopes, headers) = if method == Method::POST {
        let bytes = match body.take() {
            Some(body) => body::collect(body, MAX_FORM_BYTES).await?,
            None => None,
        };
        let form = bytes.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        // In forms a plus sign is a space.
        let form = form.and_then(|form| Query::parse(&form.replace('+', "%20")).ok());
        let form = form.ok_or_else(|| malformed("malformed form"))?;
        if form.get("grant_type") != Some("password") {
            return Err(malformed("`grant_type` must be `password`"));
        }
        let pair = format!("{}:{}", form.get("username").unwrap_or_default(), form.get("password").unwrap_or_default());
        let mut with_password = headers.clone();
        let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
        with_password.insert(AUTHORIZATION, value.map_err(|_| malformed("malformed form"))?);
        let scopes: Vec<String> = form.all("scope").flat_map(str::split_whitespace).map(str::to_owned).collect();
        (scopes, with_password)
    } else if method == Method::GET {
        let query = Query::parse(query).map_err(|e| malformed(&e.to_string()))?;
        let scopes = query.all("scope").flat_map(|scope| scope.split([' ', '+'])).map(str::to_owned).collect();
        (scopes, headers.clone())
    } else {
        let refusal =
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, "a token is asked for with GET or POST");
        return Err(refusal.header(ALLOW, "GET, POST"));
    };
    let permit = access.identify(&headers, from).await?;
    let grants = scopes
        .iter()
        .filter_map(|scope| Grant::parse(scope))
        .map(|grant| {
            let repository = grant.repository();
            grant.restrict(|action| permit.may(action, repository.as_ref()))
        })
        .collect();
    let token = tokens.issue(&permit.subject, grants);
    let answer = Token {
        token: &token,
        access_token: &token,
        expires_in: LIFETIME.as_secs(),
        issued_at: rfc3339(SystemTime::now()),
    };
    let mut response = document("application/json", &answer)?;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
