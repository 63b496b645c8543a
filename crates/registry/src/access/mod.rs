//! Who may do what: credentials or tokens, and the rights that they have where.

mod htpasswd;
mod passwords;
mod rights;
mod token;

use std::sync::Arc;

use airlock_oci::Repository;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};

pub use htpasswd::Users;
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
    /// Read, write and delete.
    Push,
}

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
}

/// Whom a request comes from, and what he may do.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    pub(crate) subject: Subject,
    anonymous: Anonymous,
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
            Anonymous::Push => true,
            Anonymous::Pull => action == Action::Pull,
            Anonymous::None => false,
        }
    }
}

impl Access {
    /// Finds out whom a request comes from.
    pub(crate) async fn identify(&self, headers: &HeaderMap) -> Result<Permit, Refusal> {
        let (subject, grants) = match (given(headers)?, &self.users) {
            (Given::Password(Credentials { name, password }), Some(users)) => {
                if !users.verify(&name, &password).await {
                    return Err(self.challenge(headers, "wrong user name or password", ""));
                }
                (Subject::User(name), None)
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
        Ok(Permit { subject, anonymous: self.anonymous, rules, grants })
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
        let allowed = match action {
            // Clients ask here once and go without credentials ever after when they are not asked for any; those that have
            // some, to push, must hear of it, and those that have none go on and may pull.
            Action::Ping => {
                self.anonymous == Anonymous::Push
                    || self.users.is_none()
                    || permit.grants.is_some()
                    || permit.subject != Subject::Anonymous
            }
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

    /// Asks for credentials; `more` goes to the parameters of a token.
    pub(crate) fn challenge(&self, headers: &HeaderMap, message: &str, more: &str) -> Refusal {
        let clean = |text: &str| text.replace(['"', '\\'], "");
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message);
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).map(clean);
        match (&self.tokens, host) {
            (Some(_), Some(host)) => {
                let scheme = if self.tls { "https" } else { "http" };
                let realm = format!("Bearer realm=\"{scheme}://{host}/token\",service=\"{host}\"{more}");
                refusal.header(WWW_AUTHENTICATE, realm)
            }
            _ => refusal.header(WWW_AUTHENTICATE, format!("Basic realm=\"{}\"", clean(&self.realm))),
        }
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
            (true, A::Push, None, [200, 200, 200, 200]),
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
                let outcome = match access.identify(&headers).await {
                    Ok(permit) => access.check(&permit, &headers, action, Some(&name), None),
                    Err(refusal) => Err(refusal),
                };
                let status = outcome.map_or_else(|refusal| refusal.status().as_u16(), |()| 200);
                assert_eq!(status, expected, "users {with_users}, {anonymous:?}, {given:?}, {action:?}");
            }
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
