//! What came of one request, before it becomes an [`Error`] with a subject: status, the registry's own words, the credential.

use std::time::Duration;

use airlock_oci::{Error, ErrorKind};
use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Most characters of a registry's message that are repeated to the user.
const MAX_MESSAGE_CHARS: usize = 500;

/// A request that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    /// The status, if there was an answer.
    pub(crate) status: Option<StatusCode>,
    /// The codes of the registry's error body.
    pub(crate) codes: Vec<String>,
    /// In one line: status, the registry's message, credential.
    pub(crate) cause: String,
    pub(crate) hint: Option<String>,
    /// Trying the same again later may help.
    pub(crate) transient: bool,
    /// The registry's wish.
    pub(crate) retry_after: Option<Duration>,
    /// The connection could not be made at all.
    pub(crate) unreachable: bool,
}

/// The error body of the distribution specification.
#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<Item>,
    /// What some proxies and token servers say instead.
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
    /// What update services say (updates-and-releases 1.4).
    #[serde(default)]
    value: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    detail: serde_json::Value,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            status: None,
            codes: Vec::new(),
            cause: cause.into(),
            hint: None,
            transient: kind.is_transient(),
            retry_after: None,
            unreachable: false,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// From an answer that is not a success.
    pub(crate) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let (codes, message) = registry_message(body);
        let says = |words: &str| message.to_ascii_lowercase().contains(words);
        let has = |code: &str| codes.iter().any(|c| c == code);
        let kind = match status.as_u16() {
            401 => ErrorKind::Unauthorized,
            403 if says("quota") => ErrorKind::Full,
            403 => ErrorKind::Denied,
            404 | 410 => ErrorKind::NotFound,
            413 | 507 => ErrorKind::Full,
            429 => ErrorKind::TooManyRequests,
            _ if has("TOOMANYREQUESTS") => ErrorKind::TooManyRequests,
            400..=499 if says("quota") || says("insufficient storage") => ErrorKind::Full,
            500..=599 if says("no space left") || says("disk quota") => ErrorKind::Full,
            500..=599 => ErrorKind::Server,
            _ => ErrorKind::Refused,
        };
        let mut cause = format!("registry answered {}", status_text(status));
        if !message.is_empty() {
            cause.push_str(": ");
            cause.push_str(&message);
        }
        let mut failure = Self::new(kind, cause);
        failure.hint = match kind {
            ErrorKind::Full => Some(match status.as_u16() {
                413 => "the registry or a proxy before it limits the size of a request; raise that limit (nginx: \
                        `client_max_body_size 0`)"
                    .into(),
                _ => {
                    "free or add space at the registry, or raise its quota, and run again; what is there is kept".into()
                }
            }),
            ErrorKind::TooManyRequests => Some(
                "the registry limits the rate; log in, wait, or lower --parallel-images and --parallel-layers".into(),
            ),
            _ => None,
        };
        // 501 and 505 say that the request will never be understood; the other 5xx pass (oc-mirror 8.2).
        failure.transient = kind == ErrorKind::TooManyRequests
            || (kind == ErrorKind::Server && !matches!(status.as_u16(), 501 | 505..))
            || matches!(status.as_u16(), 408 | 425);
        failure.retry_after =
            headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(crate::retry::retry_after);
        failure.status = Some(status);
        failure.codes = codes;
        failure
    }

    /// Whether the registry's error body has this code.
    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.codes.iter().any(|c| c == code)
    }

    /// Whether the answer had this status.
    pub(crate) fn is_status(&self, status: u16) -> bool {
        self.status.is_some_and(|s| s.as_u16() == status)
    }

    /// As the error of an operation.
    pub(crate) fn into_error(self, what: impl Into<String>) -> Error {
        let error = Error::new(self.kind, what, self.cause).retryable(self.transient);
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(error.kind(), format!("{}: {}", error.what(), error.cause()));
        failure.hint = error.hint_text().map(str::to_owned);
        failure.transient = error.is_retryable();
        failure
    }
}

/// `404 Not Found`.
pub(crate) fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// The codes and the message of an error body in whatever form.
fn registry_message(body: &[u8]) -> (Vec<String>, String) {
    let Ok(parsed) = serde_json::from_slice::<Body>(body) else {
        // Plain text is a message, a page of HTML is not.
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        return if text.starts_with('<') { (Vec::new(), String::new()) } else { (Vec::new(), one_line(text)) };
    };
    let codes = parsed.errors.iter().map(|e| e.code.clone()).filter(|c| !c.is_empty()).collect();
    let mut parts: Vec<String> = Vec::new();
    for item in &parsed.errors {
        let mut part = match (item.code.as_str(), item.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_ascii_lowercase(),
            (code, message) => format!("{}: {message}", code.to_ascii_lowercase().replace('_', " ")),
        };
        match &item.detail {
            serde_json::Value::Null => {}
            serde_json::Value::String(text) if text.is_empty() => {}
            serde_json::Value::Object(map) if map.is_empty() => {}
            serde_json::Value::String(text) => part.push_str(&format!(" ({text})")),
            detail => part.push_str(&format!(" ({detail})")),
        }
        parts.push(part);
    }
    if parts.is_empty() {
        let plain = [parsed.error, parsed.error_description, parsed.message, parsed.details, parsed.value];
        parts = plain.into_iter().flatten().filter(|t| !t.is_empty()).collect();
    }
    (codes, one_line(&parts.join("; ")))
}

fn one_line(text: &str) -> String {
    if text.len() <= MAX_MESSAGE_CHARS && !text.contains(char::is_control) {
        return text.to_owned();
    }
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect();
    if text.chars().count() > MAX_MESSAGE_CHARS {
        line.push('…');
    }
    line
}

/// What an error of a connection means; `host` is the one that was contacted, `connecting` whether the connection never came about.
pub(crate) fn from_transport(
    host: &str,
    scheme: &str,
    error: &(dyn std::error::Error + 'static),
    connecting: bool,
) -> Failure {
    let mut chain: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(inner) = next {
        let text = inner.to_string();
        // Wrappers repeat what they wrap.
        if !chain.iter().any(|c| c.contains(&text)) {
            chain.push(text);
        }
        next = inner.source();
    }
    let text = chain.join(": ");
    let lower = text.to_ascii_lowercase();
    let mut failure = Failure::new(ErrorKind::Network, format!("cannot talk to `{host}`: {text}"));
    failure.unreachable = connecting;
    let certificate =
        |reason: &str| Failure::new(ErrorKind::Network, format!("cannot trust `{host}`: x509: {reason} ({text})"));
    if lower.contains("invalidcontenttype") || lower.contains("corrupt message") {
        failure.cause = format!("`{host}`: server gave HTTP response to HTTPS client");
        failure.hint = Some(format!(
            "it speaks plain HTTP; to allow that set `insecure = true` for `{host}` in registries.conf or pass --tls-verify=false \
             (--src-tls-verify, --dest-tls-verify)"
        ));
        failure.transient = false;
        failure.unreachable = true;
    } else if lower.contains("unknownissuer")
        || lower.contains("caused as end entity")
        || lower.contains("causedasendentity")
    {
        failure = certificate("certificate signed by unknown authority").hint(format!(
            "put the registry's CA certificate into /etc/containers/certs.d/{host}/ca.crt (or \
             ~/.config/containers/certs.d/{host}/ca.crt), or add it to the system's trust"
        ));
        failure.transient = false;
        failure.unreachable = true;
    } else if lower.contains("invalid peer certificate") {
        let reason = if lower.contains("notvalidforname") || lower.contains("not valid for name") {
            "certificate is valid for other names"
        } else if lower.contains("expired") {
            "certificate has expired or is not yet valid"
        } else {
            "certificate is not acceptable"
        };
        failure = certificate(reason).hint(
            "ask the registry's administrator for a certificate that is valid for this name and time; check this machine's clock",
        );
        failure.transient = false;
        failure.unreachable = true;
    } else if lower.contains("certificaterequired") || lower.contains("certificate required") {
        failure.hint = Some(format!(
            "the registry wants a client certificate: put it as client.cert and client.key into /etc/containers/certs.d/{host}/"
        ));
        failure.transient = false;
    } else if connecting && (lower.contains("dns") || lower.contains("lookup") || lower.contains("name or service")) {
        failure.hint = Some(format!("the name `{host}` is not known here; check its spelling, DNS and proxy settings"));
    } else if lower.contains("connection refused") {
        failure.hint =
            Some(format!("nothing listens at `{host}`; check that the registry runs, its port and the firewall"));
    }
    if connecting
        && failure.cause.starts_with("cannot talk to")
        && let Some((variable, proxy)) = proxy_for(host, scheme)
    {
        // The name in the message is the registry's; what could not be reached may well be what stands between.
        failure.cause.push_str(&format!(" (through the proxy `{proxy}` of {variable})"));
        failure.hint = Some(format!(
            "check that the proxy `{proxy}` can be reached; where `{host}` is reached without one, add it to NO_PROXY"
        ));
    }
    failure
}

/// The variable of the environment that names a proxy for this host, and the proxy without credentials.
fn proxy_for(host: &str, scheme: &str) -> Option<(&'static str, String)> {
    let variables: [&'static str; 4] = match scheme {
        "http" => ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"],
        _ => ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"],
    };
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        return None;
    }
    let direct = set("no_proxy").or_else(|| set("NO_PROXY")).unwrap_or_default();
    let mut direct = direct.split(',').map(|d| d.trim().trim_start_matches('.')).filter(|d| !d.is_empty());
    if direct.any(|d| d == "*" || name == d || name.strip_suffix(d).is_some_and(|rest| rest.ends_with('.'))) {
        return None;
    }
    let (variable, value) = variables.into_iter().find_map(|variable| Some((variable, set(variable)?)))?;
    let rest = value.split_once("://").map_or(value.as_str(), |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    Some((variable, place.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Failure {
        Failure::from_answer(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn the_registrys_own_words_are_kept_in_whatever_form_they_come() {
        let failure = answer(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"v1"}}]}"#,
        );
        assert_eq!(failure.kind, ErrorKind::NotFound);
        assert!(failure.has_code("MANIFEST_UNKNOWN"));
        assert_eq!(
            failure.cause,
            r#"registry answered 404 Not Found: manifest unknown: manifest unknown ({"Tag":"v1"})"#
        );
        assert!(answer(400, "too\nbad").cause.ends_with("400 Bad Request: too bad"));
        assert!(answer(502, "<html>x</html>").cause.ends_with("502 Bad Gateway"));
        assert!(answer(401, r#"{"details":"incorrect username"}"#).cause.ends_with("incorrect username"));
    }

    #[test]
    fn statuses_map_to_kinds_and_only_some_are_worth_a_retry() {
        use ErrorKind::*;
        let cases = [
            (400, Refused, false),
            (401, Unauthorized, false),
            (403, Denied, false),
            (404, NotFound, false),
            (408, Refused, true),
            (413, Full, false),
            (429, TooManyRequests, true),
            (500, Server, true),
            (501, Server, false),
            (503, Server, true),
            (507, Full, false),
        ];
        for (status, kind, transient) in cases {
            let failure = answer(status, "");
            assert_eq!((failure.kind, failure.transient), (kind, transient), "{status}");
        }
        assert_eq!(answer(500, "write: no space left on device").kind, Full);
        assert_eq!(answer(403, "adding 1 GiB exceeds the project quota").kind, Full);
    }
}
