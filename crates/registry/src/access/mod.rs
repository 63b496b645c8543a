//! Who may do what: no credentials, or a user of an htpasswd file.

mod htpasswd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};

pub use htpasswd::Users;

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
    pub(crate) realm: String,
}

/// A name and a password as they came. Never printed.
struct Credentials {
    name: String,
    password: String,
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
}

impl Access {
    /// Lets a request through, or says why not.
    pub(crate) async fn authorize(&self, headers: &HeaderMap, action: Action) -> Result<Subject, Refusal> {
        let given = credentials(headers)?;
        match (&self.users, given) {
            (Some(users), Some(given)) => {
                if users.verify(&given.name, &given.password).await {
                    Ok(Subject::User(given.name))
                } else {
                    Err(self.challenge("wrong user name or password"))
                }
            }
            (_, given) => {
                let allowed = match self.anonymous {
                    Anonymous::Push => true,
                    // Clients ask here once and go without credentials ever after when they are not asked for any; those that have
                    // some, to push, must hear of it, and those that have none go on and may pull.
                    Anonymous::Pull => {
                        action == Action::Pull || (action == Action::Ping && (self.users.is_none() || given.is_some()))
                    }
                    Anonymous::None => action == Action::Ping && self.users.is_none(),
                };
                if allowed {
                    Ok(Subject::Anonymous)
                } else if self.users.is_some() {
                    Err(self.challenge("authentication is required"))
                } else {
                    Err(Refusal::new(
                        StatusCode::FORBIDDEN,
                        Code::Denied,
                        "this registry has no users and does not let anybody do this without credentials",
                    ))
                }
            }
        }
    }

    fn challenge(&self, message: &str) -> Refusal {
        Refusal::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
            .header(WWW_AUTHENTICATE, format!("Basic realm=\"{}\"", self.realm.replace(['"', '\\'], "")))
    }
}

/// The credentials of a request. Clients without any that were asked for some send an empty name and an empty password.
fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, Refusal> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let malformed = || Refusal::new(StatusCode::BAD_REQUEST, Code::Unauthorized, "malformed `Authorization` header");
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        // A token that we never gave out is worth nothing; the challenge says what is.
        return Ok(None);
    }
    let bytes = STANDARD.decode(rest.trim()).map_err(|_| malformed())?;
    let text = String::from_utf8(bytes).map_err(|_| malformed())?;
    let (name, password) = text.split_once(':').ok_or_else(malformed)?;
    if name.is_empty() && password.is_empty() {
        return Ok(None);
    }
    Ok(Some(Credentials { name: name.to_owned(), password: password.to_owned() }))
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
            let access = Access { users: with_users.then(users), anonymous, realm: "r".into() };
            for (action, expected) in [Ping, Pull, Push, Delete].into_iter().zip(expected) {
                let status = match access.authorize(&headers(given), action).await {
                    Ok(_) => 200,
                    Err(refusal) => refusal.status().as_u16(),
                };
                assert_eq!(status, expected, "users {with_users}, {anonymous:?}, {given:?}, {action:?}");
            }
        }
    }

    #[test]
    fn malformed_credentials_are_refused() {
        for value in ["Basic", "Basic !!!", "Basic YQ==", "Basic /w=="] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            assert!(credentials(&headers).is_err(), "{value}");
        }
    }
}
