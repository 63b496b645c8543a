//! A rendered file as text: to the byte as the operator's encoder writes it, or for people.

use super::{Rendered, Table};

impl Rendered {
    /// As the Machine Config Operator writes it, empty settings included (mirror-rules 4.3).
    pub fn mco(&self) -> String {
        let mut out = String::new();
        if let Some(search) = &self.search {
            out.push_str(&format!("unqualified-search-registries = {}\n", strings(search)));
        }
        if let Some(helpers) = &self.credential_helpers {
            out.push_str(&format!("credential-helpers = {}\n", strings(helpers)));
        }
        out.push_str(&format!("short-name-mode = {}\n", quoted(&self.short_name_mode)));
        out.push_str(&format!("additional-layer-store-auth-helper = {}\n", quoted(&self.layer_store_auth_helper)));
        for table in &self.tables {
            table_text(&mut out, table, "  ", true);
        }
        self.aliases_text(&mut out, "  ");
        out
    }

    /// Without what says nothing: no empty settings, no empty prefixes, no indentation.
    pub fn plain(&self) -> String {
        let mut out = String::new();
        if let Some(search) = &self.search {
            out.push_str(&format!("unqualified-search-registries = {}\n", strings(search)));
        }
        if let Some(helpers) = self.credential_helpers.as_ref().filter(|h| !h.is_empty()) {
            out.push_str(&format!("credential-helpers = {}\n", strings(helpers)));
        }
        if !self.short_name_mode.is_empty() {
            out.push_str(&format!("short-name-mode = {}\n", quoted(&self.short_name_mode)));
        }
        if !self.layer_store_auth_helper.is_empty() {
            out.push_str(&format!("additional-layer-store-auth-helper = {}\n", quoted(&self.layer_store_auth_helper)));
        }
        for table in &self.tables {
            table_text(&mut out, table, "", false);
        }
        self.aliases_text(&mut out, "");
        out
    }

    /// The file as JSON, for programs.
    pub fn json(&self) -> serde_json::Value {
        toml::from_str(&self.mco()).unwrap_or_default()
    }

    fn aliases_text(&self, out: &mut String, indent: &str) {
        let Some(aliases) = &self.aliases else { return };
        out.push_str("\n[aliases]\n");
        for (key, value) in aliases {
            out.push_str(&format!("{indent}{} = {}\n", bare(key), quoted(value)));
        }
    }
}

/// The drop-in of `containerRuntimeSearchRegistries`, as the operator writes it.
pub fn search_text(search: &[String]) -> String {
    Rendered { search: Some(search.to_vec()), ..Rendered::default() }.mco()
}

fn table_text(out: &mut String, table: &Table, indent: &str, empty_prefix: bool) {
    out.push_str("\n[[registry]]\n");
    let mut line = |indent: &str, key: &str, value: String| out.push_str(&format!("{indent}{key} = {value}\n"));
    if empty_prefix || !table.prefix.is_empty() {
        line(indent, "prefix", quoted(&table.prefix));
    }
    if !table.location.is_empty() {
        line(indent, "location", quoted(&table.location));
    }
    if table.insecure {
        line(indent, "insecure", "true".to_owned());
    }
    if !table.pull_from_mirror.is_empty() {
        line(indent, "pull-from-mirror", quoted(&table.pull_from_mirror));
    }
    if table.blocked {
        line(indent, "blocked", "true".to_owned());
    }
    if table.mirror_by_digest_only {
        line(indent, "mirror-by-digest-only", "true".to_owned());
    }
    for mirror in &table.mirrors {
        out.push_str(&format!("\n{indent}[[registry.mirror]]\n"));
        let mut line = |key: &str, value: String| out.push_str(&format!("{indent}{indent}{key} = {value}\n"));
        if !mirror.location.is_empty() {
            line("location", quoted(&mirror.location));
        }
        if mirror.insecure {
            line("insecure", "true".to_owned());
        }
        if !mirror.pull_from_mirror.is_empty() {
            line("pull-from-mirror", quoted(&mirror.pull_from_mirror));
        }
    }
}

fn strings(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| quoted(text)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A key without quotes where TOML allows it.
fn bare(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if !key.is_empty() && key.bytes().all(plain) { key.to_owned() } else { quoted(key) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
