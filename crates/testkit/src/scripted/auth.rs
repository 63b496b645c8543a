//! Who may do what at a scripted registry.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;

use super::http::{Answer, Head};

/// How a scripted registry wants to know who asks.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Everybody may do everything.
    #[default]
    Open,
    /// User name and password with each request.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// Tokens from `/token` of the same server, or of the `realm` given.
    Bearer(Bearer),
}

/// A token server's rules.
#[derive(Clone, Debug)]
pub struct Bearer {
    /// Who gets push rights, and pull rights where anonymous pulls are off.
    pub user: String,
    /// The password.
    pub password: String,
    /// A refresh token that stands for the user.
    pub identity_token: Option<String>,
    /// Whoever asks may pull.
    pub anonymous_pull: bool,
    /// A token is refused after this time.
    pub lifetime: Duration,
    /// A token is refused after so many requests, whatever was promised.
    pub uses: u64,
    /// The address of the token server; `None`: `/token` here.
    pub realm: Option<String>,
}

/// The tokens that were issued.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    issued: HashMap<String, Token>,
    count: u64,
}

#[derive(Debug)]
struct Token {
    scopes: Vec<String>,
    until: Instant,
    uses: u64,
}

impl Auth {
    /// Basic with this user.
    pub fn basic(user: &str, password: &str) -> Self {
        Self::Basic { user: user.to_owned(), password: password.to_owned() }
    }

    /// Bearer with this user; tokens live for five minutes.
    pub fn bearer(user: &str, password: &str) -> Self {
        Self::Bearer(Bearer {
            user: user.to_owned(),
            password: password.to_owned(),
            identity_token: None,
            anonymous_pull: false,
            lifetime: Duration::from_secs(300),
            uses: u64::MAX,
            realm: None,
        })
    }
}

/// The user and password of a Basic header.
pub(crate) fn basic_of(head: &Head) -> Option<(String, String)> {
    let text = head.header("authorization")?.strip_prefix("Basic ")?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(u, p)| (u.to_owned(), p.to_owned()))
}

impl Tokens {
    /// Answers a request for a token; `params` are those of the query or of the form.
    pub(crate) fn issue(&mut self, rules: &Bearer, head: &Head, params: &[(String, String)]) -> Answer {
        let param = |name: &str| params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let refused = || Answer::error(401, "UNAUTHORIZED", "incorrect username or password");
        let known = match (head.method.as_str(), basic_of(head)) {
            ("POST", _) => match (param("refresh_token"), rules.identity_token.as_deref()) {
                (Some(given), Some(wanted)) if given == wanted => true,
                _ => return refused(),
            },
            (_, Some((user, password))) if user == rules.user && password == rules.password => true,
            (_, Some(_)) => return refused(),
            (_, None) => false,
        };
        let mut granted = Vec::new();
        for scope in params.iter().filter(|(n, _)| n == "scope").flat_map(|(_, v)| v.split(' ')) {
            let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
            for action in actions.split(',') {
                if known || (rules.anonymous_pull && action == "pull") {
                    granted.push(format!("{resource}:{action}"));
                }
            }
        }
        self.count += 1;
        let text = format!("token-{}-{}", self.count, std::process::id());
        let token = Token { scopes: granted, until: Instant::now() + rules.lifetime, uses: rules.uses };
        self.issued.insert(text.clone(), token);
        let body = serde_json::json!({"token": text, "expires_in": rules.lifetime.as_secs().max(1)}).to_string();
        Answer::new(200).with("Content-Type", "application/json").body(body)
    }

    /// Whether the request's token allows an action (`repository:a/b:pull`).
    pub(crate) fn allows(&mut self, head: &Head, wanted: Option<&str>) -> bool {
        let Some(text) = head.header("authorization").and_then(|a| a.strip_prefix("Bearer ")) else { return false };
        let Some(token) = self.issued.get_mut(text).filter(|t| t.until > Instant::now() && t.uses > 0) else {
            return false;
        };
        token.uses -= 1;
        wanted.is_none_or(|wanted| token.scopes.iter().any(|s| s == wanted))
    }

    /// From now on every token that was issued is refused.
    pub(crate) fn expire(&mut self) {
        self.issued.clear();
    }
}
