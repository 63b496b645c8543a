//! Objects to registries.conf, exactly as the Machine Config Operator does it (mirror-rules 4).
//!
//! Input: [`Objects`] and a [`Base`]. Output: [`Rendered`], whose tables remember which entry each mirror came from, and its
//! text in two styles: [`Rendered::mco`] to the byte, [`Rendered::plain`] for people.

mod base;
pub mod merge;
mod policy;
pub mod refuse;
mod text;

use airlock_oci::registries_conf::{Config, LoadError};

pub use base::{Base, DEFAULT as DEFAULT_BASE};
pub use policy::{Effective, Payload, W_PAYLOAD_REGISTRY_NOT_BLOCKED, search_dropin};
pub use text::search_text;

use crate::objects::{Objects, Origin, Pull};
use crate::problem::Problem;
use crate::scope::lies_within;
use merge::{Merged, merged};
use refuse::class;

/// One `[[registry]]` as it will be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Empty for plain sources: then the location is the prefix.
    pub prefix: String,
    /// Empty for wildcards.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// A mistake of the base; kept because the operator keeps it.
    pub pull_from_mirror: String,
    /// The location must not be contacted.
    pub blocked: bool,
    /// Only where the base says so.
    pub mirror_by_digest_only: bool,
    /// In the order in which they are tried.
    pub mirrors: Vec<Mirror>,
    /// The entries whose NeverContactSource blocks it.
    pub never: Vec<Origin>,
}

/// One `[[registry.mirror]]` as it will be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// What replaces the prefix.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// `digest-only`, `tag-only`, or what the base says.
    pub pull_from_mirror: String,
    /// The entries that asked for it; none where the base did.
    pub origins: Vec<Origin>,
}

/// A registries.conf, not yet text.
#[derive(Clone, Debug, Default)]
pub struct Rendered {
    /// `unqualified-search-registries`.
    pub search: Option<Vec<String>>,
    /// `credential-helpers`.
    pub credential_helpers: Option<Vec<String>>,
    /// `short-name-mode`; empty where unset.
    pub short_name_mode: String,
    /// `additional-layer-store-auth-helper`; empty where unset.
    pub layer_store_auth_helper: String,
    /// In the order of the file.
    pub tables: Vec<Table>,
    /// `[aliases]`.
    pub aliases: Option<std::collections::BTreeMap<String, String>>,
}

impl Table {
    /// What the table is about: its prefix, or else its location.
    pub fn scope(&self) -> &str {
        if self.prefix.is_empty() { &self.location } else { &self.prefix }
    }
}

/// Renders with the lists of the objects' image configuration as they stand. See [`Effective`] for what the release payload
/// changes in them.
pub fn render(objects: &Objects, base: &Base) -> Result<Rendered, Problem> {
    refuse::check(objects)?;
    let texts = |list: &[crate::objects::Text]| list.iter().map(|text| text.value.clone()).collect::<Vec<_>>();
    let (insecure, blocked) =
        objects.image.as_ref().map_or_else(Default::default, |i| (texts(&i.insecure), texts(&i.blocked)));
    render_with(objects, base, &insecure, &blocked)
}

/// Renders with given lists. Nothing is checked but what comes out of the rendering itself.
pub fn render_with(
    objects: &Objects,
    base: &Base,
    insecure: &[String],
    blocked: &[String],
) -> Result<Rendered, Problem> {
    let mut rendered = Rendered {
        search: base.search.clone(),
        credential_helpers: base.credential_helpers.clone(),
        short_name_mode: base.short_name_mode.clone(),
        layer_store_auth_helper: base.layer_store_auth_helper.clone(),
        tables: base.tables.clone(),
        aliases: base.aliases.clone(),
    };
    let sets: Vec<(Pull, Vec<Merged>)> =
        [Pull::Digest, Pull::Tag].into_iter().map(|pull| (pull, merged(objects, pull))).collect();
    for (pull, sets) in &sets {
        for set in sets {
            let table = rendered.table(&set.source);
            if set.never {
                table.blocked = true;
                table.never.extend(&set.origins);
            }
            for location in &set.mirrors {
                let from = |o: &&Origin| objects.entry(**o).mirrors.iter().any(|m| m.value == *location);
                table.mirrors.push(Mirror {
                    location: location.clone(),
                    insecure: false,
                    pull_from_mirror: pull.pull_from_mirror().to_owned(),
                    origins: set.origins.iter().filter(from).copied().collect(),
                });
            }
        }
    }
    for scope in blocked {
        rendered.table(scope);
    }
    for scope in insecure {
        rendered.table(scope).insecure = true;
        for table in &mut rendered.tables {
            table.insecure |= lies_within(table.scope(), scope);
            for mirror in &mut table.mirrors {
                mirror.insecure |= lies_within(&mirror.location, scope);
            }
        }
    }
    for scope in blocked {
        for table in &mut rendered.tables {
            table.blocked |= lies_within(table.scope(), scope);
        }
    }
    for (_, sets) in &sets {
        for set in sets {
            rendered.hand_down(objects, set)?;
        }
    }
    Ok(rendered)
}

impl Rendered {
    /// The first table of a scope, or a new one at the end.
    fn table(&mut self, scope: &str) -> &mut Table {
        let at = self.tables.iter().position(|table| table.scope() == scope).unwrap_or_else(|| {
            let table = if scope.starts_with("*.") {
                Table { prefix: scope.to_owned(), ..Table::default() }
            } else {
                Table { location: scope.to_owned(), ..Table::default() }
            };
            self.tables.push(table);
            self.tables.len() - 1
        });
        &mut self.tables[at]
    }

    /// Tables without mirrors inside a source get the source's mirrors: the longest prefix alone counts for a pull, so without
    /// this a blocked or insecure scope would take the mirrors away.
    fn hand_down(&mut self, objects: &Objects, set: &Merged) -> Result<(), Problem> {
        let mirrors = self.table(&set.source).mirrors.clone();
        for table in self.tables.iter_mut().filter(|table| table.mirrors.is_empty()) {
            let scope = table.scope().to_owned();
            if !lies_within(&scope, &set.source) {
                continue;
            }
            let Some(rest) = scope.strip_prefix(set.source.as_str()) else {
                let origin = set.origins[0];
                let (file, source) = (objects.sets[origin.set].file, &objects.entry(origin).source);
                let message = format!("`{}` covers `{scope}`, which is blocked, insecure or in the base", set.source);
                let problem = refuse::problem(objects, file, class::WILDCARD_NESTED, source, message);
                return Err(problem.hint("name the hosts one by one instead of the wildcard, or give it its own entry"));
            };
            table.mirrors = mirrors
                .iter()
                .map(|mirror| Mirror { location: format!("{}{rest}", mirror.location), ..mirror.clone() })
                .collect();
        }
        Ok(())
    }

    /// Loads the text again, as CRI-O will. A base may make that fail, and then every pull on every node fails.
    pub fn config(&self) -> Result<Config, LoadError> {
        Config::parse(Some(&self.mco()), &[])
    }

    /// The table that a loaded configuration calls by a prefix.
    pub fn table_of(&self, prefix: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.scope().trim_end_matches('/') == prefix)
    }
}
