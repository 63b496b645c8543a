//! Checks across entries: what is listed twice, and what excludes each other (oc-mirror.md 1.3, 1.4).

use std::cmp::Ordering;
use std::collections::HashMap;

use super::model::{Catalog, ImageLocation, Package};
use super::operators::PackageMarks;
use super::problem::code;
use super::reader::{Reader, Section};
use super::sections::Marked;
use super::version::Version;
use super::yaml::Mark;

impl Reader<'_> {
    /// Duplicates of every kind, and ranges that are mixed. A delete configuration is only checked for duplicate catalogs
    /// and channels of releases, as by oc-mirror.
    pub(super) fn check_content(&mut self, marked: &Marked) {
        let channels = marked.content.platform.iter().flat_map(|p| &p.channels);
        let names = channels.zip(&marked.release_channels).map(|(channel, mark)| (channel.name.clone(), *mark));
        self.check_unique(names, |name| format!("release channel \"{name}\""));
        let catalogs = marked.content.operators.iter().zip(&marked.catalogs);
        let names = catalogs.clone().map(|(catalog, marks)| (destination(catalog), marks.catalog));
        self.check_unique(names, |name| format!("catalog \"{name}\""));
        if !marked.strict {
            return;
        }
        for (catalog, marks) in catalogs {
            let packages = catalog.packages.iter().zip(&marks.packages);
            let names = packages.clone().map(|(package, marks)| (package.name.clone(), marks.name));
            let of = &catalog.catalog.text;
            self.check_unique(names, |name| format!("catalog \"{of}\": package \"{name}\""));
            for (package, marks) in packages {
                self.check_package(package, marks);
            }
        }
    }

    fn check_package(&mut self, package: &Package, marks: &PackageMarks) {
        let names =
            package.channels.iter().zip(&marks.channels).map(|(channel, (mark, _))| (channel.name.clone(), *mark));
        let of = &package.name;
        self.check_unique(names, |name| format!("package \"{of}\": channel \"{name}\""));
        let in_channels = marks.channels.iter().flat_map(|(_, versions)| versions).next();
        if let (Some(mark), Some(_)) = (marks.versions.first(), in_channels) {
            let message = format!(
                "package \"{of}\": mixing both filtering by minVersion/maxVersion and filtering by channel \
                 minVersion/maxVersion is not allowed"
            );
            self.error(code::EXCLUSIVE, *mark, message).hint =
                Some("keep the versions either at the package or at its channels".to_owned());
        }
    }

    fn check_unique(&mut self, names: impl Iterator<Item = (String, Mark)>, what: impl Fn(&str) -> String) {
        let mut first: HashMap<String, u32> = HashMap::new();
        for (name, mark) in names {
            if let Some(line) = first.get(&name) {
                let message = format!("{}: duplicate found in configuration", what(&name));
                self.error(code::DUPLICATE, mark, message).earlier = *line;
            } else {
                first.insert(name, mark.line);
            }
        }
    }

    /// `minVersion` and `maxVersion` of a section. Releases need all three numbers.
    pub(super) fn versions(&mut self, section: &Section<'_>, full: bool) -> (Option<String>, Option<String>) {
        let min = self.version(section, "minVersion", full);
        let max = self.version(section, "maxVersion", full);
        if let (Some((low, min)), Some((high, max))) = (&min, &max)
            && min.compare(max) == Ordering::Greater
            && let Some(mark) = section.field_mark("minVersion")
        {
            let message = format!("minVersion {low} is above maxVersion {high}: no version lies between");
            self.warning(code::SUSPICIOUS, mark, message);
        }
        (min.map(|(text, _)| text), max.map(|(text, _)| text))
    }

    fn version(&mut self, section: &Section<'_>, field: &str, full: bool) -> Option<(String, Version)> {
        let (text, mark) = self.text(section, field)?;
        match Version::parse(text) {
            Some(version) if version.is_full() || !full => Some((text.to_owned(), version)),
            _ => {
                let path = section.at(field);
                let message = format!("`{path}` is `{text}`: it must respect semantic versioning notation");
                let form = if full { "x.y.z, such as 4.18.3" } else { "x.y.z, such as 1.2.0" };
                self.error(code::VERSION, mark, message).hint = Some(format!("write {form}"));
                None
            }
        }
    }
}

/// What the catalog will be called, which must be one of a kind.
fn destination(catalog: &Catalog) -> String {
    let reference = match &catalog.catalog.location {
        ImageLocation::Registry(reference) => reference,
        ImageLocation::Layout(path) => {
            let target =
                catalog.target_catalog.as_ref().map_or_else(|| path.display().to_string(), ToString::to_string);
            return match &catalog.target_tag {
                Some(tag) => format!("{target}:{tag}"),
                None => target,
            };
        }
    };
    let mut name = match &catalog.target_catalog {
        Some(target) => format!("{}/{target}", reference.registry()),
        None => reference.name(),
    };
    match (&catalog.target_tag, reference.tag(), reference.digest()) {
        (Some(tag), ..) | (None, Some(tag), None) => name.push_str(&format!(":{tag}")),
        (None, _, Some(digest)) => name.push_str(&format!("@{digest}")),
        (None, None, None) => {}
    }
    name
}
