//! `operators`: catalogs, their packages and channels.

use std::path::PathBuf;

use airlock_oci::Repository;

use super::image::Untagged;
use super::model::*;
use super::reader::{Former, Reader, Section, UnderV1};
use super::sections::{File, platforms};
use super::yaml::{Mark, Node};

const FORMER_CATALOG: [Former; 2] = [
    Former {
        name: "targetName",
        under_v1: UnderV1::Read("it becomes the last component of `targetCatalog`"),
        hint: "v2alpha1 writes the whole path as `targetCatalog`",
    },
    Former {
        name: "originalRef",
        under_v1: UnderV1::Ignored("the catalog is known by `catalog`"),
        hint: "remove it: only v1alpha2 had it",
    },
];
const MIN_BUNDLE: Former = Former {
    name: "minBundle",
    under_v1: UnderV1::Refused("it names a bundle, and selection goes by version"),
    hint: "use `minVersion` with the version of that bundle",
};
const FORMER_PACKAGE: [Former; 1] = [MIN_BUNDLE];

/// Places within one catalog.
pub(super) struct CatalogMarks {
    pub(super) catalog: Mark,
    pub(super) packages: Vec<PackageMarks>,
}

/// Places within one package.
pub(super) struct PackageMarks {
    pub(super) name: Mark,
    pub(super) versions: Vec<Mark>,
    pub(super) channels: Vec<(Mark, Vec<Mark>)>,
}

/// `operators[at]`; `None` where it has no usable catalog.
pub(super) fn catalog(reader: &mut Reader<'_>, item: &Node, file: File, at: usize) -> Option<(Catalog, CatalogMarks)> {
    let fields = [
        "catalog",
        "targetCatalog",
        "targetTag",
        "full",
        "packages",
        "skipDependencies",
        "targetCatalogSourceTemplate",
        "platforms",
    ];
    let section = reader.section(item, format!("{}.operators[{at}]", file.root), &fields, &FORMER_CATALOG, file.v1);
    let written = reader.required(&section, "catalog");
    let name = written.and_then(|(text, mark)| reader.image_name(text, mark, "catalog", Untagged::Refused));
    let target = reader.text(&section, "targetCatalog");
    let mut target_catalog = reader.target_path(target, "targetCatalog");
    if let (true, Some(target_name)) = (file.v1, reader.text(&section, "targetName")) {
        let base = target_catalog.as_ref().map(ToString::to_string).or_else(|| catalog_path(name.as_ref()?));
        target_catalog = renamed(reader, base, target_name);
    }
    let target_tag = reader.text(&section, "targetTag");
    let target_tag = reader.target_tag(target_tag);
    let mut packages = Vec::new();
    let mut marks = Vec::new();
    for (at, item) in reader.list(&section, "packages").iter().enumerate() {
        if let Some((package, mark)) = package(reader, item, &section, file, at) {
            packages.push(package);
            marks.push(mark);
        }
    }
    let (full, skip_dependencies) = (reader.boolean(&section, "full"), reader.boolean(&section, "skipDependencies"));
    let template = reader.text(&section, "targetCatalogSourceTemplate").map(|(path, _)| PathBuf::from(path));
    let platforms = platforms(reader, &section, file);
    let catalog = Catalog {
        line: section.mark.line,
        catalog: name?,
        target_catalog,
        target_tag,
        full,
        packages,
        skip_dependencies,
        target_catalog_source_template: template,
        platforms,
    };
    Some((catalog, CatalogMarks { catalog: written?.1, packages: marks }))
}

fn catalog_path(name: &ImageName) -> Option<String> {
    match &name.location {
        ImageLocation::Registry(reference) => Some(reference.repository().to_string()),
        ImageLocation::Layout(path) => path.file_name().map(|n| n.to_string_lossy().into_owned()),
    }
}

/// v1's `targetName` replaces the last component of the path.
fn renamed(reader: &mut Reader<'_>, base: Option<String>, (name, mark): (&str, Mark)) -> Option<Repository> {
    let path = match base.as_deref().and_then(|base| base.rsplit_once('/')) {
        Some((parents, _)) => format!("{parents}/{name}"),
        None => name.to_owned(),
    };
    reader.target_path(Some((&path, mark)), "targetName")
}

fn package(
    reader: &mut Reader<'_>,
    item: &Node,
    parent: &Section<'_>,
    file: File,
    at: usize,
) -> Option<(Package, PackageMarks)> {
    let fields = ["name", "defaultChannel", "minVersion", "maxVersion", "channels", "bundles"];
    let section = reader.section(item, parent.at(&format!("packages[{at}]")), &fields, &FORMER_PACKAGE, file.v1);
    let name = reader.required(&section, "name");
    let (min_version, max_version) = reader.versions(&section, false);
    let mut channels = Vec::new();
    let mut marks = Vec::new();
    for (at, item) in reader.list(&section, "channels").iter().enumerate() {
        let fields = ["name", "minVersion", "maxVersion"];
        let channel = reader.section(item, section.at(&format!("channels[{at}]")), &fields, &[MIN_BUNDLE], file.v1);
        let name = reader.required(&channel, "name");
        let (min_version, max_version) = reader.versions(&channel, false);
        if let Some((name, mark)) = name {
            marks.push((mark, version_marks(&channel)));
            channels.push(PackageChannel { line: channel.mark.line, name: name.to_owned(), min_version, max_version });
        }
    }
    let mut bundles = Vec::new();
    for (at, item) in reader.list(&section, "bundles").iter().enumerate() {
        let bundle = reader.section(item, section.at(&format!("bundles[{at}]")), &["name"], &[], file.v1);
        if let Some((name, mark)) = reader.required(&bundle, "name") {
            bundles.push(PackageBundle { line: mark.line, name: name.to_owned() });
        }
    }
    let package = Package {
        line: section.mark.line,
        name: name.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        default_channel: reader.text(&section, "defaultChannel").map(|(text, _)| text.to_owned()),
        min_version,
        max_version,
        channels,
        bundles,
    };
    let marks = PackageMarks { name: name?.1, versions: version_marks(&section), channels: marks };
    Some((package, marks))
}

/// Where the version fields are written, whether or not their values are good.
fn version_marks(section: &Section<'_>) -> Vec<Mark> {
    ["minVersion", "maxVersion"]
        .iter()
        .filter(|field| section.get(field).is_some_and(|node| !node.is_null()))
        .filter_map(|field| section.field_mark(field))
        .collect()
}
