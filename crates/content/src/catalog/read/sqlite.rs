//! A catalog in a SQLite database, made into the documents that `opm migrate` writes of it.
//!
//! | table | becomes |
//! |---|---|
//! | `package`, and the icon of the default channel's head | `olm.package` |
//! | `channel_entry` | `olm.channel`: an entry that replaces several bundles replaces the first and skips the others |
//! | `operatorbundle`, `related_image` | `olm.bundle` |
//! | `properties`, `dependencies`, `api_provider`, `api_requirer`, `deprecated` | its properties |
//!
//! Databases were changed over the years; what a database does not have is taken from where older ones had it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use airlock_oci::{Error, ErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::build::Builder;
use crate::derived::sorted;

/// What errors call the database, and where its documents are said to come from.
const NAME: &str = "the catalog's database";

/// Reads the database at `path` into `builder`. Blocks.
pub(super) fn read(path: &Path, builder: &mut Builder) -> Result<(), Error> {
    let database = Database::open(path).map_err(|e| failed(&e))?;
    let packages = database.packages().map_err(|e| failed(&e))?;
    for package in &packages {
        for document in database.package(package).map_err(|e| failed(&e))? {
            builder.document(NAME, sorted(&document).as_bytes())?;
        }
        for bundle in &package.bundles() {
            let document = database.bundle(package, bundle).map_err(|e| failed(&e))?;
            builder.document(NAME, sorted(&document).as_bytes())?;
        }
    }
    Ok(())
}

fn failed(error: &rusqlite::Error) -> Error {
    Error::new(ErrorKind::Content, format!("read {NAME}"), error)
        .hint("it is not the database of a catalog of operators, or it is damaged")
}

struct Database {
    connection: Connection,
    columns: BTreeMap<String, BTreeSet<String>>,
}

/// A package with the entries of its channels.
struct Package {
    name: String,
    default_channel: Option<String>,
    channels: BTreeMap<String, Vec<Entry>>,
}

/// A bundle in a channel.
struct Entry {
    name: String,
    /// From the head downwards: first what is replaced, then what is skipped.
    older: Vec<String>,
}

impl Package {
    fn bundles(&self) -> BTreeSet<String> {
        self.channels.values().flatten().map(|entry| entry.name.clone()).collect()
    }
}

impl Database {
    fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // Somebody else's database: nothing in it is run, and no page is believed.
        connection
            .execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA query_only = ON;")?;
        let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        {
            // Only tables: a view could be a query without an end.
            let mut tables = connection.prepare(
                "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' \
                 AND m.sql NOT LIKE 'CREATE VIRTUAL%'",
            )?;
            let mut rows = tables.query([])?;
            while let Some(row) = rows.next()? {
                columns.entry(row.get(0)?).or_default().insert(row.get(1)?);
            }
        }
        Ok(Self { connection, columns })
    }

    fn has(&self, table: &str, column: &str) -> bool {
        self.columns.get(table).is_some_and(|columns| columns.contains(column))
    }

    /// All rows of texts that a query answers.
    fn texts(&self, sql: &str, of: &str) -> rusqlite::Result<Vec<Vec<Option<String>>>> {
        let mut statement = self.connection.prepare(sql)?;
        let columns = statement.column_count();
        let parameters = if statement.parameter_count() == 0 { &[][..] } else { &[&of as &dyn rusqlite::ToSql][..] };
        let mut rows = statement.query(parameters)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((0..columns).map(|at| row.get_ref(at).map(text)).collect::<rusqlite::Result<_>>()?);
        }
        Ok(found)
    }

    fn packages(&self) -> rusqlite::Result<Vec<Package>> {
        let mut found = Vec::new();
        for row in self.texts("SELECT name, default_channel FROM package ORDER BY name", "")? {
            let [Some(name), default_channel] = &row[..] else { continue };
            let mut channels: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
            // The entry nearest to the head says what a bundle replaces; the others are what it skips.
            let rows = self.texts(
                "SELECT e.channel_name, e.operatorbundle_name, older.operatorbundle_name FROM channel_entry e \
                 JOIN operatorbundle b ON b.name = e.operatorbundle_name \
                 LEFT JOIN channel_entry older ON older.entry_id = e.replaces \
                 WHERE e.package_name = ?1 ORDER BY e.channel_name, e.depth, e.entry_id",
                name,
            )?;
            for row in rows {
                let [Some(channel), Some(bundle), older] = &row[..] else { continue };
                let entries = channels.entry(channel.clone()).or_default();
                if !entries.iter().any(|entry| entry.name == *bundle) {
                    entries.push(Entry { name: bundle.clone(), older: Vec::new() });
                }
                let entry = entries.iter_mut().find(|entry| entry.name == *bundle);
                if let (Some(entry), Some(older)) = (entry, older)
                    && !entry.older.contains(older)
                {
                    entry.older.push(older.clone());
                }
            }
            found.push(Package { name: name.clone(), default_channel: default_channel.clone(), channels });
        }
        Ok(found)
    }

    /// A column of a bundle; `None` where the database has no such column, or nothing in it.
    fn of_bundle(&self, column: &str, bundle: &str) -> rusqlite::Result<Option<String>> {
        if !self.has("operatorbundle", column) {
            return Ok(None);
        }
        let sql = format!("SELECT {column} FROM operatorbundle WHERE name = ?1");
        let row = self.texts(&sql, bundle)?.into_iter().next();
        Ok(row.and_then(|mut row| row.pop()).flatten().filter(|text| !text.is_empty()))
    }

    fn skips(&self, bundle: &str) -> rusqlite::Result<Vec<String>> {
        let listed = self.of_bundle("skips", bundle)?.unwrap_or_default();
        Ok(listed.split(',').filter(|skip| !skip.is_empty()).map(str::to_owned).collect())
    }

    /// `olm.package` and the `olm.channel` of each channel.
    fn package(&self, package: &Package) -> rusqlite::Result<Vec<Value>> {
        let mut description = json!({"schema": "olm.package", "name": package.name});
        if let Some(default) = &package.default_channel {
            description["defaultChannel"] = default.as_str().into();
            let head = package.channels.get(default).and_then(|entries| entries.first());
            let csv = match head {
                Some(head) => self.csv(&head.name)?,
                None => Value::Null,
            };
            let icon = &csv["spec"]["icon"][0];
            if icon["base64data"].is_string() {
                description["icon"] = json!({"base64data": icon["base64data"], "mediatype": icon["mediatype"]});
            }
        }
        let mut documents = vec![description];
        for (name, entries) in &package.channels {
            let mut written = Vec::new();
            for entry in entries {
                let said = self.of_bundle("replaces", &entry.name)?;
                let mut skips = self.skips(&entry.name)?;
                let mut older = entry.older.iter();
                let replaces = match said {
                    // What it says itself, where the channel has it; the rest of the entries are what it skips.
                    Some(said) if entry.older.contains(&said) => Some(said),
                    _ => older.next().filter(|first| !skips.contains(first)).cloned(),
                };
                let more = older.filter(|o| Some(*o) != replaces.as_ref()).cloned().collect::<Vec<_>>();
                skips.extend(more.into_iter().filter(|o| !skips.contains(o)).collect::<Vec<_>>());
                let mut value = json!({"name": entry.name});
                if let Some(replaces) = replaces {
                    value["replaces"] = replaces.into();
                }
                if !skips.is_empty() {
                    value["skips"] = json!(skips);
                }
                if let Some(range) = self.of_bundle("skiprange", &entry.name)? {
                    value["skipRange"] = range.into();
                }
                written.push(value);
            }
            documents.push(json!({"schema": "olm.channel", "package": package.name, "name": name, "entries": written}));
        }
        Ok(documents)
    }

    fn csv(&self, bundle: &str) -> rusqlite::Result<Value> {
        let text = self.of_bundle("csv", bundle)?.unwrap_or_default();
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn bundle(&self, package: &Package, name: &str) -> rusqlite::Result<Value> {
        let mut document = json!({"schema": "olm.bundle", "name": name, "package": package.name});
        if let Some(image) = self.of_bundle("bundlepath", name)? {
            document["image"] = image.into();
        }
        let mut properties: Vec<Value> = Vec::new();
        let mut add = |kind: &str, value: Value| {
            let property = json!({"type": kind, "value": value});
            if !properties.contains(&property) {
                properties.push(property);
            }
        };
        let parse = |text: &Option<String>| text.as_deref().and_then(|t| serde_json::from_str::<Value>(t).ok());
        if self.has("properties", "operatorbundle_name") {
            for row in self.texts("SELECT type, value FROM properties WHERE operatorbundle_name = ?1", name)? {
                if let (Some(kind), Some(value)) = (&row[0], parse(&row[1])) {
                    add(kind, value);
                }
            }
        }
        if self.has("dependencies", "operatorbundle_name") {
            for row in self.texts("SELECT type, value FROM dependencies WHERE operatorbundle_name = ?1", name)? {
                let (Some(kind), Some(value)) = (&row[0], parse(&row[1])) else { continue };
                match kind.as_str() {
                    "olm.package" => {
                        let range = value.get("version").or_else(|| value.get("versionRange"));
                        add(
                            "olm.package.required",
                            json!({"packageName": value["packageName"], "versionRange": range}),
                        );
                    }
                    "olm.gvk" => add("olm.gvk.required", value),
                    other => add(other, value),
                }
            }
        }
        for (table, kind) in [("api_provider", "olm.gvk"), ("api_requirer", "olm.gvk.required")] {
            if !self.has(table, "operatorbundle_name") {
                continue;
            }
            let sql = format!("SELECT group_name, version, kind FROM {table} WHERE operatorbundle_name = ?1");
            for row in self.texts(&sql, name)? {
                add(kind, json!({"group": row[0], "version": row[1], "kind": row[2]}));
            }
        }
        if self.has("deprecated", "operatorbundle_name")
            && !self
                .texts("SELECT operatorbundle_name FROM deprecated WHERE operatorbundle_name = ?1", name)?
                .is_empty()
        {
            add("olm.deprecated", json!({}));
        }
        let csv = self.csv(name)?;
        let version = self.of_bundle("version", name)?.or_else(|| csv["spec"]["version"].as_str().map(str::to_owned));
        if let Some(version) = version {
            add("olm.package", json!({"packageName": package.name, "version": version}));
        }
        for object in objects(&self.of_bundle("bundle", name)?.unwrap_or_default()) {
            add("olm.bundle.object", json!({"data": STANDARD.encode(object)}));
        }
        document["properties"] = ordered(properties).into();
        let related = if self.has("related_image", "image") {
            self.texts("SELECT DISTINCT image FROM related_image WHERE operatorbundle_name = ?1 ORDER BY image", name)?
        } else {
            Vec::new()
        };
        let related: Vec<Value> =
            related.iter().filter_map(|row| row[0].as_ref()).map(|image| json!({"name": "", "image": image})).collect();
        if !related.is_empty() {
            document["relatedImages"] = related.into();
        }
        Ok(document)
    }
}

/// A value as text: some builders wrote texts as bytes.
fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(_) | ValueRef::Null => None,
    }
}

/// Properties by kind and text, so that they do not depend on the order in the database's pages.
fn ordered(mut properties: Vec<Value>) -> Vec<Value> {
    let mut described = false;
    // Exactly one `olm.package`: the table of properties, where there is one, has it already.
    properties.retain(|p| p["type"] != "olm.package" || !std::mem::replace(&mut described, true));
    properties.sort_by_cached_key(|p| (p["type"].as_str().unwrap_or_default().to_owned(), sorted(p)));
    properties
}

/// The manifests of a bundle, one JSON after another.
fn objects(text: &str) -> Vec<String> {
    let stream = serde_json::Deserializer::from_str(text).into_iter::<Box<serde_json::value::RawValue>>();
    stream.map_while(Result::ok).map(|object| object.get().to_owned()).collect()
}
