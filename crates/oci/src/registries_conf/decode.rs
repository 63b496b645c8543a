//! TOML to values with their places; nothing is checked but their types.
//!
//! The TOML is walked by hand rather than through serde: unknown keys are ignored but wrong types are errors, keys match
//! without regard to case as in upstream's decoder, and each error has a line.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::LoadError;

/// As decoded, with the places for errors. Nothing is checked yet.
#[derive(Default)]
pub(super) struct Decoded {
    pub(super) registries: Vec<RawTable>,
    pub(super) search: Option<Vec<Text>>,
    pub(super) credential_helpers: Option<Vec<Text>>,
    pub(super) short_name_mode: Text,
    pub(super) layer_store_auth_helper: Text,
    pub(super) aliases: Option<Vec<(String, Text)>>,
    pub(super) v1: V1,
}

/// The lists of version 1; any of them present makes the file one of version 1.
#[derive(Default)]
pub(super) struct V1 {
    pub(super) search: Option<Vec<Text>>,
    pub(super) insecure: Option<Vec<Text>>,
    pub(super) block: Option<Vec<Text>>,
}

/// A string; empty where none is written.
#[derive(Clone, Default)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) span: Range<usize>,
}

/// One `[[registry]]`.
pub(super) struct RawTable {
    pub(super) span: Range<usize>,
    pub(super) prefix: Text,
    pub(super) location: Text,
    pub(super) insecure: bool,
    pub(super) blocked: bool,
    pub(super) mirror_by_digest_only: bool,
    pub(super) pull_from_mirror: Text,
    pub(super) mirrors: Vec<RawMirror>,
}

/// One `[[registry.mirror]]`.
pub(super) struct RawMirror {
    pub(super) span: Range<usize>,
    pub(super) location: Text,
    pub(super) insecure: bool,
    pub(super) pull_from_mirror: Text,
}

impl Decoded {
    /// Whether anything of version 2 is set.
    pub(super) fn has_v2(&self) -> bool {
        !self.registries.is_empty()
            || self.search.is_some()
            || self.credential_helpers.is_some()
            || !self.short_name_mode.value.is_empty()
            || !self.layer_store_auth_helper.value.is_empty()
            || self.aliases.is_some()
    }
}

/// One file, for the places of errors.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Reader<'_> {
    pub(super) fn error(&self, code: &'static str, span: &Range<usize>, cause: impl Into<String>) -> LoadError {
        let (line, column) = self.place(span);
        LoadError { file: self.name.to_owned(), code, cause: cause.into(), line, column }
    }

    fn place(&self, span: &Range<usize>) -> (u32, u32) {
        if *span == (0..0) {
            return (0, 0);
        }
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line as u32, column as u32)
    }

    /// Everything the file says.
    pub(super) fn decode(&self) -> Result<Decoded, LoadError> {
        let root = DeTable::parse(self.text)
            .map_err(|e| self.error("E_TOML_SYNTAX", &e.span().unwrap_or(0..0), e.message()))?;
        let root = root.get_ref();
        let mut decoded = Decoded {
            search: self.strings(root, "unqualified-search-registries")?,
            credential_helpers: self.strings(root, "credential-helpers")?,
            short_name_mode: self.string(root, "short-name-mode")?,
            layer_store_auth_helper: self.string(root, "additional-layer-store-auth-helper")?,
            ..Decoded::default()
        };
        for (span, table) in self.tables(root, "registry")? {
            decoded.registries.push(self.table(span, table)?);
        }
        if let Some((_, table)) = self.child(root, "aliases")? {
            let mut aliases = Vec::new();
            for (key, value) in table {
                aliases.push((key.get_ref().to_string(), self.text_of(value, key.get_ref())?));
            }
            decoded.aliases = Some(aliases);
        }
        if let Some((_, v1)) = self.child(root, "registries")? {
            for (key, list) in [
                ("search", &mut decoded.v1.search),
                ("insecure", &mut decoded.v1.insecure),
                ("block", &mut decoded.v1.block),
            ] {
                if let Some((_, table)) = self.child(v1, key)? {
                    *list = self.strings(table, "registries")?;
                }
            }
        }
        Ok(decoded)
    }

    fn table(&self, span: Range<usize>, table: &DeTable<'_>) -> Result<RawTable, LoadError> {
        let mut mirrors = Vec::new();
        for (span, mirror) in self.tables(table, "mirror")? {
            mirrors.push(RawMirror {
                span,
                location: self.string(mirror, "location")?,
                insecure: self.boolean(mirror, "insecure")?,
                pull_from_mirror: self.string(mirror, "pull-from-mirror")?,
            });
        }
        Ok(RawTable {
            span,
            prefix: self.string(table, "prefix")?,
            location: self.string(table, "location")?,
            insecure: self.boolean(table, "insecure")?,
            blocked: self.boolean(table, "blocked")?,
            mirror_by_digest_only: self.boolean(table, "mirror-by-digest-only")?,
            pull_from_mirror: self.string(table, "pull-from-mirror")?,
            mirrors,
        })
    }

    fn type_error<T>(&self, value: &Spanned<DeValue<'_>>, key: &str, expected: &str) -> Result<T, LoadError> {
        let cause = format!("`{key}` must be {expected}, found {}", value.get_ref().type_str());
        Err(self.error("E_TOML_TYPE", &value.span(), cause))
    }

    fn text_of(&self, value: &Spanned<DeValue<'_>>, key: &str) -> Result<Text, LoadError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(Text { value: text.to_string(), span: value.span() }),
            _ => self.type_error(value, key, "a string"),
        }
    }

    fn string(&self, table: &DeTable<'_>, key: &str) -> Result<Text, LoadError> {
        field(table, key).map_or_else(|| Ok(Text::default()), |value| self.text_of(value, key))
    }

    fn boolean(&self, table: &DeTable<'_>, key: &str) -> Result<bool, LoadError> {
        match field(table, key) {
            None => Ok(false),
            Some(value) => match value.get_ref() {
                DeValue::Boolean(flag) => Ok(*flag),
                _ => self.type_error(value, key, "true or false"),
            },
        }
    }

    fn strings(&self, table: &DeTable<'_>, key: &str) -> Result<Option<Vec<Text>>, LoadError> {
        let Some(value) = field(table, key) else { return Ok(None) };
        let DeValue::Array(array) = value.get_ref() else { return self.type_error(value, key, "a list of strings") };
        array.iter().map(|item| self.text_of(item, key)).collect::<Result<_, _>>().map(Some)
    }

    fn child<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
    ) -> Result<Option<(Range<usize>, &'t DeTable<'i>)>, LoadError> {
        let Some(value) = field(table, key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Table(child) => Ok(Some((value.span(), child))),
            _ => self.type_error(value, key, "a table"),
        }
    }

    fn tables<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        key: &str,
    ) -> Result<Vec<(Range<usize>, &'t DeTable<'i>)>, LoadError> {
        let Some(value) = field(table, key) else { return Ok(Vec::new()) };
        let expected = "a list of tables: use double brackets";
        let DeValue::Array(array) = value.get_ref() else { return self.type_error(value, key, expected) };
        array
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::Table(child) => Ok((item.span(), child)),
                _ => self.type_error(item, key, expected),
            })
            .collect()
    }
}

/// The value of a key, by its exact name or else without regard to case.
fn field<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    table.get(key).or_else(|| table.iter().find(|(k, _)| k.get_ref().eq_ignore_ascii_case(key)).map(|(_, v)| v))
}
