//! Bearer tokens (docker's token flow): issued after a password was verified, for some minutes and some repositories.
//!
//! A token is what it says and an HMAC under a key of this process: nobody else can make one, and after a restart clients fetch new ones.
//! It never gives more than its user's rights at the moment of the request.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_oci::{Error, ErrorKind, Repository};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// How long a token is valid.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);
/// Repositories that one token may be for.
const MAX_SCOPES: usize = 64;

/// Makes and checks tokens.
pub(crate) struct Tokens(hmac::Key);

/// What a token allows its bearer, within his rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// Repository, or `catalog`.
    name: String,
    pull: bool,
    push: bool,
    delete: bool,
    /// It is for the list of repositories.
    catalog: bool,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    /// `None`: anonymous.
    user: Option<String>,
    /// Seconds since 1970.
    until: u64,
    grants: Vec<Grant>,
}

impl Grant {
    /// Reads `repository:NAME:pull,push` or `registry:catalog:*`; `None` for what is not ours.
    pub(crate) fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        // A name may hold no colon, but a repository with a port before it would.
        let (name, actions) = rest.rsplit_once(':')?;
        let has = |action: &str| actions.split(',').any(|a| a == action || a == "*");
        match kind {
            "repository" => {
                let name = Repository::new(name).ok()?.to_string();
                Some(Self { name, pull: has("pull"), push: has("push"), delete: has("delete"), catalog: false })
            }
            "registry" if name == "catalog" => {
                Some(Self { name: name.into(), pull: has("*"), push: false, delete: false, catalog: true })
            }
            _ => None,
        }
    }

    /// The repository; `None` for the list of all.
    pub(crate) fn repository(&self) -> Option<Repository> {
        if self.catalog { None } else { Repository::new(&self.name).ok() }
    }

    /// Keeps only the actions that `allowed` says.
    pub(crate) fn restrict(mut self, allowed: impl Fn(Action) -> bool) -> Self {
        self.pull &= allowed(Action::Pull);
        self.push &= allowed(Action::Push);
        self.delete &= allowed(Action::Delete);
        self
    }

    /// Whether it is for this; `None`: the list of repositories.
    pub(crate) fn covers(&self, action: Action, repository: Option<&Repository>) -> bool {
        let is_place = match repository {
            None => self.catalog,
            Some(repository) => !self.catalog && self.name == repository.as_str(),
        };
        is_place
            && match action {
                Action::Ping => true,
                Action::Pull => self.pull,
                Action::Push => self.push,
                Action::Delete => self.delete,
            }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Tokens {
    pub(crate) fn new() -> Result<Self, Error> {
        hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map(Self)
            .map_err(|_| Error::new(ErrorKind::Io, "prepare tokens", "the system gives no random numbers"))
    }

    pub(crate) fn issue(&self, subject: &Subject, grants: Vec<Grant>) -> String {
        self.issue_until(subject, grants, now() + LIFETIME.as_secs())
    }

    fn issue_until(&self, subject: &Subject, mut grants: Vec<Grant>, until: u64) -> String {
        grants.truncate(MAX_SCOPES);
        let user = match subject {
            Subject::Anonymous => None,
            Subject::User(name) => Some(name.clone()),
        };
        let claims = serde_json::to_vec(&Claims { user, until, grants }).unwrap_or_default();
        let tag = hmac::sign(&self.0, &claims);
        format!("{}.{}", URL_SAFE_NO_PAD.encode(&claims), URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }

    /// Whose token it is and what it is for; `None` when it is not ours, was altered or is too old.
    pub(crate) fn check(&self, token: &str) -> Option<(Subject, Vec<Grant>)> {
        let (claims, tag) = token.split_once('.')?;
        let (claims, tag) = (URL_SAFE_NO_PAD.decode(claims).ok()?, URL_SAFE_NO_PAD.decode(tag).ok()?);
        hmac::verify(&self.0, &claims, &tag).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        let subject = claims.user.map_or(Subject::Anonymous, Subject::User);
        (claims.until > now()).then_some((subject, claims.grants))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_and_restricted() {
        let name = Repository::new("a/b").unwrap();
        let grant = Grant::parse("repository:a/b:pull,push").unwrap();
        assert!(grant.covers(Action::Push, Some(&name)) && !grant.covers(Action::Delete, Some(&name)));
        assert!(!grant.covers(Action::Pull, Some(&Repository::new("a").unwrap())) && !grant.covers(Action::Pull, None));
        let grant = Grant::parse("repository:a/b:*").unwrap().restrict(|action| action == Action::Pull);
        assert!(grant.covers(Action::Pull, Some(&name)) && !grant.covers(Action::Push, Some(&name)));
        let catalog = Grant::parse("registry:catalog:*").unwrap();
        assert!(catalog.covers(Action::Pull, None) && !catalog.covers(Action::Pull, Some(&name)));
        for bad in ["", "repository:a", "repository:A:pull", "repository::pull", "other:a:pull", "registry:x:*"] {
            assert_eq!(Grant::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_our_own_tokens_count_and_only_for_a_while() {
        let (tokens, others) = (Tokens::new().unwrap(), Tokens::new().unwrap());
        let (anna, grants) = (Subject::User("anna".into()), vec![Grant::parse("repository:a:pull").unwrap()]);
        let token = tokens.issue(&anna, grants.clone());
        assert_eq!(tokens.check(&token), Some((anna.clone(), grants.clone())));
        assert_eq!(others.check(&token), None);
        assert_eq!(tokens.check(&tokens.issue_until(&anna, grants, now())), None);
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            // The last digit of base64 may hold bits that do not count.
            assert!(tokens.check(&altered).is_none_or(|(subject, _)| subject == anna && at + 1 == token.len()), "{at}");
        }
        for bad in ["", ".", "a.b", "!.!"] {
            assert_eq!(tokens.check(bad), None);
        }
    }
}
