//! Who may do what: credentials or tokens, and the rights that they have where.

mod attempts;
mod htpasswd;
mod passwords;
mod rights;
mod token;

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{Error, ErrorKind, Repository};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};

pub use htpasswd::Users;
pub(crate) use htpasswd::Verdict;
pub use passwords::{Password, PasswordFile};
pub use rights::Rights;
use rights::Rules;
pub(crate) use token::{Grant, LIFETIME, Tokens};

use crate::refusal::{Code, Refusal};
use crate::route::Route;

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    /// Find out how to log in.
    Ping,
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Take away.
    Delete,
}

/// What a client without credentials may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anonymous {
    /// Nothing.
    #[default]
    None,
    /// Read.
    Pull,
    /// Read and write; delete too where there are no users, who alone may delete elsewhere.
    Push,
}

/// The URL by which clients reach a server that something stands before: `https://mirror.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl {
    pub(crate) https: bool,
    /// Host, and port if it is another than the scheme's.
    pub(crate) authority: String,
}

/// What a proxy says of the connection to it.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Whom a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Anonymous,
    User(String),
}

/// The rules of one registry.
#[derive(Debug, Default)]
pub(crate) struct Access {
    pub(crate) users: Option<Users>,
    pub(crate) anonymous: Anonymous,
    /// What users may do; everything where there is no file of rights.
    pub(crate) rights: Option<Rights>,
    /// Issues tokens; without it clients are asked for a password.
    pub(crate) tokens: Option<Tokens>,
    pub(crate) realm: String,
    /// The server speaks HTTPS, for the address of the tokens.
    pub(crate) tls: bool,
    /// What clients call the server, where something stands before it.
    pub(crate) external: Option<ExternalUrl>,
}

/// Whom a request comes from, and what he may do.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    pub(crate) subject: Subject,
    anonymous: Anonymous,
    /// Whether anybody can log in.
    has_users: bool,
    /// `None`: users may do everything.
    rules: Option<Arc<Rules>>,
    /// What the token is for, if there is one.
    grants: Option<Vec<Grant>>,
}

/// A name and a password as they came. Never printed.
struct Credentials {
    name: String,
    password: String,
}

/// What stands in `Authorization`.
enum Given {
    Nothing,
    Password(Credentials),
    Token(String),
}

impl Action {
    /// What a method does to a route.
    pub(crate) fn of(method: &Method, route: &Route) -> Self {
        match (method, route) {
            (_, Route::Base) => Self::Ping,
            (&Method::GET | &Method::HEAD, Route::Upload(..) | Route::Uploads(_)) => Self::Push,
            // Ending an upload of one's own takes nothing away.
            (&Method::DELETE, Route::Upload(..)) => Self::Push,
            (&Method::DELETE, _) => Self::Delete,
            (&Method::GET | &Method::HEAD, _) => Self::Pull,
            _ => Self::Push,
        }
    }

    /// What a token must be for (docker's words).
    fn scope(self) -> &'static str {
        match self {
            Self::Ping => "",
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

impl Permit {
    /// Whether it may be done in the repository; `None`: in any, or to the list of repositories.
    pub(crate) fn may(&self, action: Action, repository: Option<&Repository>) -> bool {
        let in_token = self.grants.as_ref().is_none_or(|grants| grants.iter().any(|g| g.covers(action, repository)));
        in_token && self.has_right(action, repository)
    }

    /// Whether it may be done in every repository there is.
    pub(crate) fn may_everywhere(&self, action: Action) -> bool {
        self.grants.is_none()
            && (self.by_flag(action)
                || match (&self.subject, &self.rules) {
                    (Subject::User(_), None) => true,
                    (Subject::Anonymous, None) => false,
                    (subject, Some(rules)) => rules.allow_everywhere(subject, action),
                })
    }

    /// Whether it may pull anything at all, and so may hear what is a name and what is none.
    pub(crate) fn may_see_names(&self) -> bool {
        self.has_right(Action::Pull, None)
    }

    /// Whether the list of repositories may show this one: whoever may see the list sees what he may pull.
    pub(crate) fn may_see(&self, repository: &Repository) -> bool {
        self.has_right(Action::Pull, Some(repository))
    }

    fn has_right(&self, action: Action, repository: Option<&Repository>) -> bool {
        self.by_flag(action)
            || match (&self.subject, &self.rules) {
                (Subject::User(_), None) => true,
                (Subject::Anonymous, None) => false,
                (subject, Some(rules)) => rules.allow(subject, action, repository),
            }
    }

    /// What everybody may do, with and without a password.
    fn by_flag(&self, action: Action) -> bool {
        match self.anonymous {
            Anonymous::Push => action != Action::Delete || !self.has_users,
            Anonymous::Pull => action == Action::Pull,
            Anonymous::None => false,
        }
    }
}

impl Access {
    /// Finds out whom a request comes from.
    pub(crate) async fn identify(&self, headers: &HeaderMap, from: IpAddr) -> Result<Permit, Refusal> {
        let (subject, grants) = match (given(headers)?, &self.users) {
            (Given::Password(Credentials { name, password }), Some(users)) => {
                match users.verify(&name, &password, from).await {
                    Verdict::Right => (Subject::User(name), None),
                    Verdict::Wrong => return Err(self.challenge(headers, "wrong user name or password", "")),
                    Verdict::TooMany(wait) => return Err(too_many(wait)),
                }
            }
            (Given::Token(token), _) if self.tokens.is_some() => {
                let checked = self.tokens.as_ref().and_then(|tokens| tokens.check(&token));
                let refused = || self.challenge(headers, "the token is not valid any more", ",error=\"invalid_token\"");
                let (subject, grants) = checked.ok_or_else(refused)?;
                (subject, Some(grants))
            }
            _ => (Subject::Anonymous, None),
        };
        let rules = match &self.rights {
            Some(rights) => Some(rights.rules().await),
            None => None,
        };
        Ok(Permit { subject, anonymous: self.anonymous, has_users: self.users.is_some(), rules, grants })
    }

    /// Lets a request through, or says why not. `source` is the repository that a blob is to be mounted from.
    pub(crate) fn check(
        &self,
        permit: &Permit,
        headers: &HeaderMap,
        action: Action,
        repository: Option<&Repository>,
        source: Option<&Repository>,
    ) -> Result<(), Refusal> {
        // Clients ask once and go without credentials ever after when they are not asked for any; those that have some, to push, must hear of it,
        // and those that have none go on and may pull.
        let knows_of_login = self.users.is_none() || permit.grants.is_some() || permit.subject != Subject::Anonymous;
        let allowed = match action {
            Action::Ping => knows_of_login,
            // Who would see more repositories with his password must not take a part of the list for the whole.
            Action::Pull if repository.is_none() && !knows_of_login && !permit.may_everywhere(action) => false,
            // Without the right to the source the blob is uploaded; where only the token is not for it, the client can ask for one that is.
            _ => {
                permit.may(action, repository)
                    && source
                        .is_none_or(|_| permit.may(Action::Pull, source) || !permit.has_right(Action::Pull, source))
            }
        };
        if allowed {
            return Ok(());
        }
        let scope = match repository {
            _ if action == Action::Ping => String::new(),
            Some(repository) => {
                let more = source.map(|source| format!(" repository:{source}:pull")).unwrap_or_default();
                format!(",scope=\"repository:{repository}:{}{more}\"", action.scope())
            }
            None => ",scope=\"registry:catalog:*\"".to_owned(),
        };
        match permit.subject {
            // The right exists, but the token was not asked for it.
            _ if permit.grants.is_some() && permit.has_right(action, repository) => Err(self.challenge(
                headers,
                "the token is not for this",
                &format!("{scope},error=\"insufficient_scope\""),
            )),
            Subject::Anonymous if self.users.is_some() => {
                Err(self.challenge(headers, "authentication is required", &scope))
            }
            Subject::Anonymous => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                Code::Denied,
                "this registry has no users and does not let anybody do this without credentials",
            )),
            Subject::User(_) => Err(Refusal::new(StatusCode::FORBIDDEN, Code::Denied, "you may not do this here")),
        }
    }

    /// Whether clients reach the server by HTTPS: because it speaks it, because that was said, or because a proxy on this machine says so (the
    /// header of others is taken away before).
    fn is_https(&self, headers: &HeaderMap) -> bool {
        let forwarded = || headers.get(FORWARDED_PROTO).is_some_and(|proto| proto.as_bytes() == b"https");
        self.is_https_outside() || (self.external.is_none() && forwarded())
    }

    /// The same as far as the configuration tells.
    pub(crate) fn is_https_outside(&self) -> bool {
        self.external.as_ref().map_or(self.tls, |external| external.https)
    }

    /// Asks for credentials; `more` goes to the parameters of a token.
    pub(crate) fn challenge(&self, headers: &HeaderMap, message: &str, more: &str) -> Refusal {
        let clean = |text: &str| text.replace(['"', '\\'], "");
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
        let host = match &self.external {
            Some(external) => Some(external.authority.clone()),
            None => headers.get(HOST).and_then(|host| host.to_str().ok()).map(clean),
        };
        match (&self.tokens, host) {
            (Some(_), Some(host)) => {
                let scheme = if self.is_https(headers) { "https" } else { "http" };
                let realm = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{host}\"{more}");
                refusal.header(WWW_AUTHENTICATE, realm)
            }
            _ => refusal.header(WWW_AUTHENTICATE, format!("Basic realm=\"{}\"", clean(&self.realm))),
        }
    }
}

fn too_many(wait: Duration) -> Refusal {
    let text = "too many wrong passwords; wait before the next one";
    let seconds = wait.as_secs_f64().ceil().max(1.0);
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, Code::TooManyRequests, text).header(RETRY_AFTER, seconds.to_string())
}

impl FromStr for ExternalUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |cause: &str| {
            Error::new(ErrorKind::Invalid, format!("read the URL `{text}`"), cause)
                .hint("it is `https://HOST` or `https://HOST:PORT`, as clients reach the registry")
        };
        let uri: hyper::Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins with neither `https://` nor `http://`")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?.as_str();
        if authority.contains('@') || !matches!(uri.path_and_query().map(|p| p.as_str()), None | Some("" | "/")) {
            return Err(wrong("more than a host and a port stands in it"));
        }
        Ok(Self { https, authority: authority.to_owned() })
    }
}

/// The credentials of a request. Clients without any that were asked for some send an empty name and an empty password.
fn given(headers: &HeaderMap) -> Result<Given, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(Given::Nothing) };
    let malformed = || Refusal::new(StatusCode::BAD_REQUEST, Code::Unauthorized, "malformed `Authorization` header");
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Given::Token(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(Given::Nothing);
    }
    let bytes = STANDARD.decode(rest.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (name, password) = text.split_once(':').ok_or_else(malformed)?;
    if name.is_empty() && password.is_empty() {
        return Ok(Given::Nothing);
    }
    Ok(Given::Password(Credentials { name: name.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(credentials: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(credentials) = credentials {
            let value = format!("Basic {}", STANDARD.encode(credentials));
            headers.insert(AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        }
        headers
    }

    fn users() -> Users {
        Users::parse(&format!("anna:{}\n", bcrypt::hash("secret", 4).unwrap())).unwrap()
    }

    #[tokio::test]
    async fn nobody_gets_a_right_that_was_not_given() {
        use Action::{Delete, Ping, Pull, Push};
        use Anonymous as A;
        // (users, anonymous, credentials) -> status for ping, pull, push, delete; 200 is "let through"
        for (with_users, anonymous, given, expected) in [
            (false, A::None, None, [200, 403, 403, 403]),
            (false, A::Pull, None, [200, 200, 403, 403]),
            (false, A::Push, None, [200, 200, 200, 200]),
            (false, A::Pull, Some("x:y"), [200, 200, 403, 403]),
            (true, A::None, None, [401, 401, 401, 401]),
            (true, A::None, Some(":"), [401, 401, 401, 401]),
            (true, A::Pull, None, [401, 200, 401, 401]),
            (true, A::Pull, Some(":"), [401, 200, 401, 401]),
            (true, A::Push, None, [401, 200, 200, 401]),
            (true, A::Push, Some("anna:secret"), [200, 200, 200, 200]),
            (true, A::Push, Some("anna:wrong"), [401, 401, 401, 401]),
            (true, A::Pull, Some("nobody:secret"), [401, 401, 401, 401]),
            (true, A::None, Some("anna:secret"), [200, 200, 200, 200]),
            (true, A::None, Some("anna:secret "), [401, 401, 401, 401]),
            (true, A::None, Some("Anna:secret"), [401, 401, 401, 401]),
        ] {
            let access = Access { users: with_users.then(users), anonymous, realm: "r".into(), ..Access::default() };
            let name = Repository::new("a").unwrap();
            for (action, expected) in [Ping, Pull, Push, Delete].into_iter().zip(expected) {
                let headers = headers(given);
                let outcome = match access.identify(&headers, std::net::Ipv4Addr::LOCALHOST.into()).await {
                    Ok(permit) => access.check(&permit, &headers, action, Some(&name), None),
                    Err(refusal) => Err(refusal),
                };
                let status = outcome.map_or_else(|refusal| refusal.status().as_u16(), |()| 200);
                assert_eq!(status, expected, "users {with_users}, {anonymous:?}, {given:?}, {action:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_address_of_tokens_is_that_of_the_clients() {
        let realm = |access: &Access, proto: Option<&'static str>| {
            let mut headers = headers(None);
            headers.insert(HOST, HeaderValue::from_static("inside:5000"));
            proto.map(|proto| headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto)));
            let response = access.challenge(&headers, "", "").into_response();
            response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned()
        };
        let mut access = Access { tokens: Some(Tokens::new().unwrap()), ..Access::default() };
        assert!(realm(&access, None).starts_with("Bearer realm=\"http://inside:5000/token\""));
        assert!(realm(&access, Some("https")).starts_with("Bearer realm=\"https://inside:5000/token\""));
        access.external = Some("https://mirror.example.com:8443/".parse().unwrap());
        let outside = "Bearer realm=\"https://mirror.example.com:8443/token\",service=\"mirror.example.com:8443\"";
        assert_eq!(realm(&access, Some("http")), outside);
        for bad in
            ["mirror.example.com", "ftp://a", "https://", "https://a/b", "https://a?b", "https://u:p@a", "https://a b"]
        {
            assert!(bad.parse::<ExternalUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_credentials_are_refused() {
        for value in ["Basic", "Basic !!!", "Basic YQ==", "Basic /w=="] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert!(super::given(&headers).is_err(), "{value}");
        }
    }
}
