//! The file that rendering starts from: decoded without the checks and changes that loading makes (mirror-rules 4.2 step 1).

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::refuse::class;
use super::{Mirror, Table};
use crate::problem::Problem;
use crate::yaml::Mark;

/// What every built-in pool starts from.
pub const DEFAULT: &str = "unqualified-search-registries = [\"registry.access.redhat.com\", \"docker.io\"]\n";

/// A registries.conf as decoded: tables in their order, nothing normalised.
#[derive(Clone, Debug, Default)]
pub struct Base {
    pub(crate) search: Option<Vec<String>>,
    pub(crate) credential_helpers: Option<Vec<String>>,
    pub(crate) short_name_mode: String,
    pub(crate) layer_store_auth_helper: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) aliases: Option<BTreeMap<String, String>>,
}

struct Decoder<'a> {
    name: &'a str,
    text: &'a str,
}

impl Base {
    /// Decodes a file.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problem> {
        let decoder = Decoder { name, text };
        let root = DeTable::parse(text)
            .map_err(|e| decoder.problem(class::TOML_SYNTAX, e.span().unwrap_or(0..0), e.message().to_owned()))?;
        decoder.base(root.get_ref())
    }

    /// The base of every built-in pool.
    pub fn of_pools() -> Self {
        let search = vec!["registry.access.redhat.com".to_owned(), "docker.io".to_owned()];
        Self { search: Some(search), ..Self::default() }
    }
}

impl Decoder<'_> {
    fn problem(&self, class: &'static str, span: std::ops::Range<usize>, message: String) -> Problem {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let mark = Mark { line: line as u32, column: column as u32, length: 1, start: span.start, end: span.end };
        Problem::at(class, self.name, self.text, mark, message)
    }

    fn wrong<T>(&self, value: &Spanned<DeValue<'_>>, key: &str, expected: &str) -> Result<T, Problem> {
        let message = format!("`{key}` must be {expected}, found {}", value.get_ref().type_str());
        Err(self.problem(class::TOML_TYPE, value.span(), message))
    }

    fn base(&self, root: &DeTable<'_>) -> Result<Base, Problem> {
        let mut tables = Vec::new();
        for table in self.tables(root, "registry")? {
            tables.push(self.table(table)?);
        }
        Ok(Base {
            search: self.strings(root, "unqualified-search-registries")?,
            credential_helpers: self.strings(root, "credential-helpers")?,
            short_name_mode: self.string(root, "short-name-mode")?,
            layer_store_auth_helper: self.string(root, "additional-layer-store-auth-helper")?,
            tables,
            aliases: self.aliases(root)?,
        })
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, Problem> {
        let mut mirrors = Vec::new();
        for mirror in self.tables(table, "mirror")? {
            mirrors.push(Mirror {
                location: self.string(mirror, "location")?,
                insecure: self.boolean(mirror, "insecure")?,
                pull_from_mirror: self.string(mirror, "pull-from-mirror")?,
                origins: Vec::new(),
            });
        }
        Ok(Table {
            prefix: self.string(table, "prefix")?,
            location: self.string(table, "location")?,
            insecure: self.boolean(table, "insecure")?,
            pull_from_mirror: self.string(table, "pull-from-mirror")?,
            blocked: self.boolean(table, "blocked")?,
            mirror_by_digest_only: self.boolean(table, "mirror-by-digest-only")?,
            mirrors,
            never: Vec::new(),
        })
    }

    fn aliases(&self, root: &DeTable<'_>) -> Result<Option<BTreeMap<String, String>>, Problem> {
        let Some(value) = field(root, "aliases") else { return Ok(None) };
        let DeValue::Table(table) = value.get_ref() else { return self.wrong(value, "aliases", "a table") };
        let mut aliases = BTreeMap::new();
        for (key, value) in table {
            let DeValue::String(text) = value.get_ref() else { return self.wrong(value, key.get_ref(), "a string") };
            aliases.insert(key.get_ref().to_string(), text.to_string());
        }
        Ok(Some(aliases))
    }

    fn string(&self, table: &DeTable<'_>, key: &str) -> Result<String, Problem> {
        match field(table, key) {
            None => Ok(String::new()),
            Some(value) => match value.get_ref() {
                DeValue::String(text) => Ok(text.to_string()),
                _ => self.wrong(value, key, "a string"),
            },
        }
    }

    fn boolean(&self, table: &DeTable<'_>, key: &str) -> Result<bool, Problem> {
        match field(table, key) {
            None => Ok(false),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(flag) => Ok(*flag),
                _ => self.wrong(value, key, "true or false"),
            },
        }
    }

    fn strings(&self, table: &DeTable<'_>, key: &str) -> Result<Option<Vec<String>>, Problem> {
        let Some(value) = field(table, key) else { return Ok(None) };
        let DeValue::Array(array) = value.get_ref() else { return self.wrong(value, key, "a list of strings") };
        let texts = array.iter().map(|item| match item.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => self.wrong(item, key, "a string"),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    fn tables<'t, 'i>(&self, table: &'t DeTable<'i>, key: &str) -> Result<Vec<&'t DeTable<'i>>, Problem> {
        let Some(value) = field(table, key) else { return Ok(Vec::new()) };
        let expected = "a list of tables: use double brackets";
        let DeValue::Array(array) = value.get_ref() else { return self.wrong(value, key, expected) };
        let tables = array.iter().map(|item| match item.get_ref() {
            DeValue::Table(child) => Ok(child),
            _ => self.wrong(item, key, expected),
        });
        tables.collect()
    }
}

/// The value of a key, by its exact name or else without regard to case, as upstream's decoder.
fn field<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table.get(key).or_else(|| table.iter().find(|(k, _)| k.get_ref().eq_ignore_ascii_case(key)).map(|(_, v)| v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_of_pools_is_its_text() {
        let parsed = Base::parse("base", DEFAULT).expect("parses");
        assert_eq!(parsed.search, Base::of_pools().search);
    }

    #[test]
    fn wrong_types_have_places() {
        let error = Base::parse("b.conf", "[[registry]]\nblocked = 1\n").expect_err("type");
        assert_eq!((error.code, error.line, error.column), ("E_TOML_TYPE", 2, 11));
        assert_eq!(Base::parse("b.conf", "[[registry]\n").expect_err("syntax").code, "E_TOML_SYNTAX");
    }
}
