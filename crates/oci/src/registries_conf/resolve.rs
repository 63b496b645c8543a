//! Reference to ordered endpoints (mirror-rules 2.6 to 2.8).

use super::{Config, PullFromMirror, ResolveError, ShortNameMode, Table};
use crate::Reference;
use crate::reference::{ParseError, Raw, parse_raw};

/// Whose behaviour towards short names is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// CRI-O: all candidates are tried, whatever `short-name-mode` says.
    Crio,
    /// podman, skopeo, buildah without a terminal: as `short-name-mode` says.
    Podman,
}

/// One full name that a text may stand for. Qualified names have one, short names one for each search registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The logical name: tag dropped where there is a digest, `:latest` added where there is neither.
    pub reference: Reference,
    /// The prefix of the table that applies.
    pub matched_prefix: Option<String>,
    /// In the order of attempts, or why there are none.
    pub endpoints: Result<Vec<Endpoint>, ResolveError>,
}

/// One attempt: a physical name, and how to speak to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The physical name. Credentials and certificates are looked up by it, policy and naming by the logical one.
    pub reference: Reference,
    /// The location that replaced the prefix; empty where nothing was replaced.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// Which pulls this mirror serves.
    pub pull_from_mirror: PullFromMirror,
    /// The last one: the registry that the name itself says (or that its table puts in its place).
    pub is_source: bool,
    /// The table of the *physical* name forbids contact: the attempt fails without a connection.
    pub blocked: bool,
    /// The prefix of that table.
    pub blocked_by: Option<String>,
    /// The prefix of the table that made this endpoint.
    pub matched_prefix: Option<String>,
}

impl Config {
    /// What is tried for a text as a user or a pod writes it, short names included.
    pub fn resolve(&self, text: &str, mode: Mode) -> Result<Vec<Candidate>, ResolveError> {
        let fail = |error: ParseError| ResolveError::parse(text, error);
        let raw = parse_raw(text, true).map_err(fail)?;
        if !raw.is_short() {
            return Ok(vec![self.candidate(text.parse::<Reference>().map_err(fail)?)]);
        }
        let full = self.complete(text, &raw, mode)?;
        full.into_iter().map(|full| Ok(self.candidate(full.parse::<Reference>().map_err(fail)?))).collect()
    }

    /// What is tried for a qualified reference, in order; the source is always the last, also when it is blocked.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, ResolveError> {
        self.expand(&reference.clone().pulled()).1
    }

    /// The table that covers a name `host/path` (without tag and digest): the longest prefix wins.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.find(name).map(|(table, _)| table)
    }

    /// The full names for a short one: its alias, or one for each search registry.
    fn complete(&self, text: &str, raw: &Raw<'_>, mode: Mode) -> Result<Vec<String>, ResolveError> {
        let short = raw.name();
        if let Some(alias) = self.aliases.get(&short) {
            return Ok(vec![format!("{alias}{}", &text[short.len()..])]);
        }
        let error = |code, cause: String| Err(ResolveError { code, reference: text.to_owned(), cause });
        if self.search.is_empty() {
            let cause = format!("`{short}` is a short name, and no alias and no search registries are configured");
            return error("E_SHORT_NAME_UNRESOLVED", cause);
        }
        if mode == Mode::Podman && self.short_name_mode == ShortNameMode::Enforcing && self.search.len() > 1 {
            let cause = format!("`{short}` may be in {}: short-name-mode is enforcing", self.search.join(", "));
            return error("E_SHORT_NAME_AMBIGUOUS", cause);
        }
        Ok(self.search.iter().map(|registry| format!("{registry}/{text}")).collect())
    }

    fn candidate(&self, reference: Reference) -> Candidate {
        let reference = reference.pulled();
        let (matched_prefix, endpoints) = self.expand(&reference);
        Candidate { reference, matched_prefix, endpoints }
    }

    fn expand(&self, reference: &Reference) -> (Option<String>, Result<Vec<Endpoint>, ResolveError>) {
        let text = reference.to_string();
        let name = reference.name();
        let Some((table, matched)) = self.find(&name) else {
            let endpoint = self.endpoint(reference.clone(), "", false, PullFromMirror::Unset, true, None);
            return (None, Ok(vec![endpoint]));
        };
        let by_digest = reference.digest().is_some();
        let mut endpoints = Vec::with_capacity(table.mirrors.len() + 1);
        let mirrors = table.mirrors.iter().filter(|mirror| {
            if table.mirror_by_digest_only { by_digest } else { mirror.pull_from_mirror.serves(by_digest) }
        });
        let wanted = mirrors.map(|m| (&m.location, m.insecure, m.pull_from_mirror, false)).chain([(
            &table.location,
            table.insecure,
            PullFromMirror::Unset,
            true,
        )]);
        for (location, insecure, serves, is_source) in wanted {
            match rewrite(reference, &text, matched, location) {
                Ok(physical) => {
                    endpoints.push(self.endpoint(physical, location, insecure, serves, is_source, Some(table)));
                }
                // One endpoint that cannot be named ends the whole, before the first attempt: so does upstream.
                Err(error) => return (Some(table.prefix.clone()), Err(error)),
            }
        }
        (Some(table.prefix.clone()), Ok(endpoints))
    }

    fn endpoint(
        &self,
        reference: Reference,
        location: &str,
        insecure: bool,
        pull_from_mirror: PullFromMirror,
        is_source: bool,
        table: Option<&Table>,
    ) -> Endpoint {
        let own = self.table(&reference.name()).filter(|own| own.blocked);
        Endpoint {
            location: location.to_owned(),
            insecure,
            pull_from_mirror,
            is_source,
            blocked: own.is_some(),
            blocked_by: own.map(|own| own.prefix.clone()),
            matched_prefix: table.map(|table| table.prefix.clone()),
            reference,
        }
    }

    /// The table for a name and the length of what its prefix matched. Among equally long prefixes the smaller in bytes
    /// wins, so that `*.example.com` beats `a.example.com`.
    fn find(&self, name: &str) -> Option<(&Table, usize)> {
        let plain = boundaries(name).find_map(|end| Some((*self.plain.get(&name[..end])?, end)));
        let wildcard = self.find_wildcard(name);
        let length = |at: usize| self.registries[at].prefix.len();
        let (at, end) = match (plain, wildcard) {
            (Some(plain), Some(wildcard)) => {
                if length(wildcard.0) >= length(plain.0) {
                    wildcard
                } else {
                    plain
                }
            }
            (one, other) => one.or(other)?,
        };
        Some((&self.registries[at], end))
    }

    /// `*.D` applies where the *first* occurrence of `.D` ends the host name; a host with `.D` twice does not match.
    fn find_wildcard(&self, name: &str) -> Option<(usize, usize)> {
        if self.wildcards.is_empty() || name.starts_with('[') {
            return None;
        }
        let end = name.find([':', '/', '@']).unwrap_or(name.len());
        name[..end].match_indices('.').find_map(|(dot, _)| {
            let at = *self.wildcards.get(&name[dot + 1..end])?;
            (name.find(&name[dot..end]) == Some(dot)).then_some((at, end))
        })
    }
}

/// Where a prefix of the name may end, the longest first. A colon counts (upstream's quirk: a prefix without port matches
/// every port), but not one inside the brackets of an IPv6 address.
fn boundaries(name: &str) -> impl Iterator<Item = usize> {
    let bracket = if name.starts_with('[') { name.find(']').unwrap_or(0) } else { 0 };
    let inner = name.bytes().enumerate().rev().filter(move |(at, b)| *at > bracket && matches!(b, b'/' | b':' | b'@'));
    std::iter::once(name.len()).chain(inner.map(|(at, _)| at))
}

/// Puts the location in the place of what matched. The result must be in its normal form already: a mirror `docker.io` with
/// a single component behind it, or a host without dot and port, would silently mean something else.
fn rewrite(reference: &Reference, text: &str, matched: usize, location: &str) -> Result<Reference, ResolveError> {
    if location.is_empty() {
        return Ok(reference.clone());
    }
    let physical = format!("{location}{}", &text[matched..]);
    let error = |code, cause: String| {
        let cause = format!("the location `{location}` makes it `{physical}`: {cause}");
        Err(ResolveError { code, reference: text.to_owned(), cause })
    };
    match physical.parse::<Reference>() {
        Ok(parsed) if parsed.to_string() == physical => Ok(parsed),
        Ok(parsed) => error("E_REWRITE_NOT_CANONICAL", format!("that would mean `{parsed}`")),
        Err(cause @ ParseError::Uppercase) => error("E_REWRITE_UPPERCASE", cause.to_string()),
        Err(cause @ ParseError::TooLong) => error("E_REWRITE_TOO_LONG", cause.to_string()),
        Err(cause) => error("E_REWRITE_FORMAT", cause.to_string()),
    }
}
