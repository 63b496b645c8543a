//! The checks of one file and its normalisation, in the order of mirror-rules 2.5.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::decode::{Decoded, RawMirror, RawTable, Reader, Text, V1};
use super::{LoadError, Mirror, PullFromMirror, ShortNameMode, Table};
use crate::Reference;
use crate::reference::{is_domain, parse_raw};

/// What one file says; `None` where it says nothing.
pub(super) struct File {
    pub(super) registries: Vec<Table>,
    pub(super) search: Option<Vec<String>>,
    pub(super) credential_helpers: Option<Vec<String>>,
    pub(super) short_name_mode: Option<ShortNameMode>,
    pub(super) layer_store_auth_helper: String,
    /// `None` erases the alias of an earlier file.
    pub(super) aliases: Vec<(String, Option<Reference>)>,
}

/// Reads one file; `dropin` refuses version 1.
pub(super) fn read(name: &str, text: &str, dropin: bool) -> Result<File, LoadError> {
    let reader = Reader { name, text };
    let mut decoded = reader.decode()?;
    let v1 = std::mem::take(&mut decoded.v1);
    if v1.search.is_some() || v1.insecure.is_some() || v1.block.is_some() {
        let span = v1_span(&v1);
        if dropin {
            return Err(reader.error("E_V1_IN_DROPIN", &span, "a drop-in must be in version 2 format"));
        }
        if decoded.has_v2() {
            return Err(reader.error("E_V1_V2_MIXED", &span, "version 1 and version 2 settings are mixed"));
        }
        decoded = reader.upgrade(v1)?;
    }
    reader.check(decoded)
}

fn v1_span(v1: &V1) -> Range<usize> {
    let lists = [&v1.search, &v1.insecure, &v1.block];
    lists.into_iter().flatten().flatten().map(|t| t.span.clone()).next().unwrap_or_default()
}

impl Reader<'_> {
    /// Version 1 knows hosts only: blocked ones first, then insecure ones, both flags may meet on one host.
    fn upgrade(self, v1: V1) -> Result<Decoded, LoadError> {
        let mut registries: Vec<RawTable> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::new();
        let blocked = v1.block.into_iter().flatten().map(|text| (text, true));
        let insecure = v1.insecure.into_iter().flatten().map(|text| (text, false));
        for (text, blocks) in blocked.chain(insecure) {
            let location = Text { value: self.location(&text)?, span: text.span };
            let at = *known.entry(location.value.clone()).or_insert_with(|| {
                registries.push(RawTable {
                    span: location.span.clone(),
                    prefix: location.clone(),
                    location,
                    insecure: false,
                    blocked: false,
                    mirror_by_digest_only: false,
                    pull_from_mirror: Text::default(),
                    mirrors: Vec::new(),
                });
                registries.len() - 1
            });
            registries[at].blocked |= blocks;
            registries[at].insecure |= !blocks;
        }
        Ok(Decoded { registries, search: v1.search, ..Decoded::default() })
    }

    fn check(self, decoded: Decoded) -> Result<File, LoadError> {
        let mut registries = Vec::with_capacity(decoded.registries.len());
        for raw in decoded.registries {
            registries.push((raw.span.clone(), self.check_table(raw)?));
        }
        self.check_conflicts(&registries)?;
        let search = decoded.search.map(|list| self.check_search(&list)).transpose()?;
        // The first table of a prefix stays, without a word: upstream could no longer make it an error.
        let mut seen = HashSet::new();
        registries.retain(|(_, table)| seen.insert(table.prefix.clone()));
        let short_name_mode = self.check_mode(&decoded.short_name_mode)?;
        for (span, table) in &registries {
            if table.prefix.strip_prefix("*.").is_some_and(|domain| domain.contains(['/', '@', ':'])) {
                let cause =
                    format!("wildcard prefix `{}` must be `*.` and a domain, without port or path", table.prefix);
                return Err(self.error("E_WILDCARD_FORMAT", span, cause));
            }
        }
        Ok(File {
            registries: registries.into_iter().map(|(_, table)| table).collect(),
            search,
            credential_helpers: decoded.credential_helpers.map(|list| list.into_iter().map(|t| t.value).collect()),
            short_name_mode,
            layer_store_auth_helper: decoded.layer_store_auth_helper.value,
            aliases: self.check_aliases(decoded.aliases.unwrap_or_default())?,
        })
    }

    /// Without trailing slashes; `http://` and `https://` are refused, anything else is let through and never matches.
    fn location(self, text: &Text) -> Result<String, LoadError> {
        let trimmed = text.value.trim_end_matches('/');
        if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
            let cause = format!("`{}`: a location is host[:port]/path, without a scheme", text.value);
            return Err(self.error("E_SCHEME_NOT_ALLOWED", &text.span, cause));
        }
        Ok(trimmed.to_owned())
    }

    fn check_table(self, raw: RawTable) -> Result<Table, LoadError> {
        let location = self.location(&raw.location)?;
        let prefix = if raw.prefix.value.is_empty() {
            if location.is_empty() {
                let cause = "the table has neither `location` nor `prefix`";
                return Err(self.error("E_NO_LOCATION_NO_PREFIX", &raw.span, cause));
            }
            location.clone()
        } else {
            let prefix = self.location(&raw.prefix)?;
            if location.is_empty() && !prefix.starts_with("*.") {
                let cause = format!("prefix `{prefix}` needs a `location`; only a wildcard may go without");
                return Err(self.error("E_PREFIX_WITHOUT_LOCATION", &raw.prefix.span, cause));
            }
            prefix
        };
        if !raw.pull_from_mirror.value.is_empty() {
            let cause = "`pull-from-mirror` belongs into [[registry.mirror]], not into [[registry]]";
            return Err(self.error("E_PULL_FROM_MIRROR_ON_PRIMARY", &raw.pull_from_mirror.span, cause));
        }
        let mut mirrors = Vec::with_capacity(raw.mirrors.len());
        for mirror in raw.mirrors {
            mirrors.push(self.check_mirror(mirror, &prefix, raw.mirror_by_digest_only)?);
        }
        Ok(Table {
            prefix,
            location,
            insecure: raw.insecure,
            blocked: raw.blocked,
            mirror_by_digest_only: raw.mirror_by_digest_only,
            mirrors,
        })
    }

    fn check_mirror(self, raw: RawMirror, prefix: &str, by_digest_only: bool) -> Result<Mirror, LoadError> {
        let location = self.location(&raw.location)?;
        if location.is_empty() {
            let cause = format!("a mirror of `{prefix}` has no `location`");
            return Err(self.error("E_MIRROR_LOCATION_UNSET", &raw.span, cause));
        }
        let wanted = &raw.pull_from_mirror;
        if by_digest_only && !wanted.value.is_empty() {
            let cause = format!("`pull-from-mirror` and `mirror-by-digest-only` are both set for `{prefix}`");
            return Err(self.error("E_PULL_FROM_MIRROR_CONFLICT", &wanted.span, cause));
        }
        let pull_from_mirror = match wanted.value.as_str() {
            "" => PullFromMirror::Unset,
            "all" => PullFromMirror::All,
            "digest-only" => PullFromMirror::DigestOnly,
            "tag-only" => PullFromMirror::TagOnly,
            other => {
                let cause = format!("`pull-from-mirror` is `{other}`: expected all, digest-only or tag-only");
                return Err(self.error("E_PULL_FROM_MIRROR_VALUE", &wanted.span, cause));
            }
        };
        Ok(Mirror { location, insecure: raw.insecure, pull_from_mirror })
    }

    /// Tables that share a location must agree, since the location is what is contacted.
    fn check_conflicts(self, registries: &[(Range<usize>, Table)]) -> Result<(), LoadError> {
        let mut by_location: HashMap<&str, Vec<&Table>> = HashMap::new();
        let key =
            |table: &'_ Table| if table.location.is_empty() { table.prefix.clone() } else { table.location.clone() };
        let keys: Vec<String> = registries.iter().map(|(_, table)| key(table)).collect();
        for (key, (_, table)) in keys.iter().zip(registries) {
            by_location.entry(key).or_default().push(table);
        }
        for (key, (span, table)) in keys.iter().zip(registries) {
            for other in &by_location[key.as_str()] {
                let (code, setting) = if table.insecure != other.insecure {
                    ("E_CONFLICT_INSECURE", "insecure")
                } else if table.blocked != other.blocked {
                    ("E_CONFLICT_BLOCKED", "blocked")
                } else {
                    continue;
                };
                return Err(self.error(code, span, format!("two tables for `{key}` disagree about `{setting}`")));
            }
        }
        Ok(())
    }

    fn check_search(self, list: &[Text]) -> Result<Vec<String>, LoadError> {
        list.iter()
            .map(|entry| {
                let host = self.location(entry)?;
                if is_domain(&host) {
                    return Ok(host);
                }
                let cause = format!("search registry `{}` must be a host with or without port", entry.value);
                Err(self.error("E_SEARCH_ENTRY", &entry.span, cause))
            })
            .collect()
    }

    fn check_mode(self, mode: &Text) -> Result<Option<ShortNameMode>, LoadError> {
        match mode.value.as_str() {
            "" => Ok(None),
            "enforcing" => Ok(Some(ShortNameMode::Enforcing)),
            "permissive" => Ok(Some(ShortNameMode::Permissive)),
            "disabled" => Ok(Some(ShortNameMode::Disabled)),
            other => {
                let cause = format!("`short-name-mode` is `{other}`: expected enforcing, permissive or disabled");
                Err(self.error("E_SHORT_NAME_MODE", &mode.span, cause))
            }
        }
    }

    /// All bad aliases are reported together, at the place of the first.
    fn check_aliases(self, aliases: Vec<(String, Text)>) -> Result<Vec<(String, Option<Reference>)>, LoadError> {
        let mut checked = Vec::with_capacity(aliases.len());
        let mut bad: Vec<(Range<usize>, String)> = Vec::new();
        for (key, value) in aliases {
            let short = parse_raw(&key, false);
            if !short.is_ok_and(|raw| raw.is_short() && raw.tag.is_none() && raw.digest.is_none()) {
                bad.push((value.span, format!("alias `{key}` is not a short name (no host, tag or digest)")));
                continue;
            }
            if value.value.is_empty() {
                checked.push((key, None));
                continue;
            }
            let full = parse_raw(&value.value, false);
            let qualified = full.is_ok_and(|raw| !raw.is_short() && raw.tag.is_none() && raw.digest.is_none());
            match value.value.parse::<Reference>() {
                Ok(reference) if qualified => checked.push((key, Some(reference))),
                _ => bad.push((
                    value.span,
                    format!("alias `{key}` = `{}`: the value must be host/path without tag and digest", value.value),
                )),
            }
        }
        match bad.first() {
            None => Ok(checked),
            Some((first, _)) => {
                let causes: Vec<&str> = bad.iter().map(|(_, cause)| cause.as_str()).collect();
                Err(self.error("E_ALIAS", first, causes.join("; ")))
            }
        }
    }
}
