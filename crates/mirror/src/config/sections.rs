//! The sections of the file, one function each: which fields there are, and what they become.

use std::path::PathBuf;

use airlock_document::nearest;
use airlock_oci::Platform;
use regex::Regex;

use super::image::Untagged;
use super::model::*;
use super::operators::{CatalogMarks, catalog};
use super::problem::code;
use super::reader::{Former, Reader, Section, UnderV1};
use super::yaml::{Mark, Node, Value};

const GROUP: &str = "mirror.openshift.io/";
/// The fields below `mirror`, and all but `blockedImages` below `delete`.
pub(super) const CONTENT_FIELDS: [&str; 6] =
    ["platform", "operators", "additionalImages", "helm", "blockedImages", "samples"];

const FORMER_TOP: [Former; 2] = [
    Former {
        name: "storageConfig",
        under_v1: UnderV1::Ignored("nothing is kept beside the archive and the workspace"),
        hint: "remove it: only v1alpha2 had it, and nothing is kept beside the archive and the workspace",
    },
    Former {
        name: "delete",
        under_v1: UnderV1::Refused("it belongs into a DeleteImageSetConfiguration"),
        hint: "`delete` belongs into a file of `kind: DeleteImageSetConfiguration`; what to mirror stands below `mirror`",
    },
];
const FORMER_DELETE_TOP: [Former; 1] = [Former {
    name: "mirror",
    under_v1: UnderV1::Refused("it belongs into an ImageSetConfiguration"),
    hint: "`mirror` belongs into a file of `kind: ImageSetConfiguration`; what to delete stands below `delete`",
}];
/// What the sections need to know of the file as a whole.
#[derive(Clone, Copy)]
pub(super) struct File {
    pub(super) v1: bool,
    /// `mirror` or `delete`.
    pub(super) root: &'static str,
}

impl File {
    fn untagged(self) -> Untagged {
        if self.v1 { Untagged::Latest } else { Untagged::Refused }
    }
}

/// The whole `ImageSetConfiguration`; `None` where it is not one.
pub(super) fn image_set(reader: &mut Reader<'_>, root: &Node) -> Option<ImageSetConfiguration> {
    let (api_version, section) = top(
        reader,
        root,
        "ImageSetConfiguration",
        "mirror",
        &["kind", "apiVersion", "archiveSize", "mirror"],
        &FORMER_TOP,
    )?;
    let archive_size = archive_size(reader, &section);
    let file = File { v1: api_version == ApiVersion::V1Alpha2, root: "mirror" };
    let mirror = content(reader, section.get("mirror")?, file, &CONTENT_FIELDS);
    reader.check_content(&mirror);
    Some(ImageSetConfiguration { api_version, archive_size, mirror: mirror.content })
}

/// The whole `DeleteImageSetConfiguration`; `None` where it is not one.
pub(super) fn delete_image_set(reader: &mut Reader<'_>, root: &Node) -> Option<DeleteImageSetConfiguration> {
    let fields = &["kind", "apiVersion", "delete"];
    let (api_version, section) =
        top(reader, root, "DeleteImageSetConfiguration", "delete", fields, &FORMER_DELETE_TOP)?;
    let file = File { v1: api_version == ApiVersion::V1Alpha2, root: "delete" };
    let known: Vec<&'static str> = CONTENT_FIELDS.into_iter().filter(|f| *f != "blockedImages").collect();
    let delete = content(reader, section.get("delete")?, file, &known);
    reader.check_content(&delete);
    Some(DeleteImageSetConfiguration { delete: delete.content })
}

/// Kind, version and the one section that must be there.
fn top<'n>(
    reader: &mut Reader<'_>,
    root: &'n Node,
    kind: &str,
    wanted: &str,
    fields: &[&'static str],
    former: &[Former],
) -> Option<(ApiVersion, Section<'n>)> {
    let Value::Map(entries) = &root.value else {
        reader.error(
            code::KIND,
            root.mark,
            format!("not an {kind}: the file must be a mapping with `kind` and `{wanted}`"),
        );
        return None;
    };
    let find = |name: &str| entries.iter().find(|(key, _)| key.text.eq_ignore_ascii_case(name));
    // With another kind, everything else would be a consequence of it.
    match find("kind").map(|(_, node)| (node, reader.text_of(node, "kind"))) {
        Some((_, Some((found, _)))) if found == kind => {}
        Some((node, found)) => {
            let found = found.map_or("", |(text, _)| text);
            let problem = reader.error(code::KIND, node.mark, format!("kind is `{found}`, expected `{kind}`"));
            problem.hint = nearest(found, [kind]).map(|_| format!("did you mean `{kind}`?"));
            return None;
        }
        None => {
            reader.error(code::KIND, root.mark, format!("`kind` is missing, expected `{kind}`")).hint =
                Some(format!("add `kind: {kind}`"));
            return None;
        }
    }
    let api_version = api_version(reader, root, find("apiVersion").map(|(_, node)| node));
    let section = reader.section(root, "", fields, former, api_version == ApiVersion::V1Alpha2);
    if section.get(wanted).is_none() {
        reader.error(code::KIND, root.mark, format!("`{wanted}` is missing: an {kind} must have it")).hint =
            Some(format!("add `{wanted}:` and below it what to {wanted}"));
        return None;
    }
    Some((api_version, section))
}

fn api_version(reader: &mut Reader<'_>, root: &Node, node: Option<&Node>) -> ApiVersion {
    let text = node.and_then(|node| reader.text_of(node, "apiVersion"));
    let (found, mark) = text.unwrap_or(("", node.map_or(root.mark, |n| n.mark)));
    match found.strip_prefix(GROUP) {
        Some("v2alpha1") => return ApiVersion::V2Alpha1,
        Some("v1alpha2") => return ApiVersion::V1Alpha2,
        _ => {}
    }
    let message = match found {
        "" => "`apiVersion` is missing: the file is read as v2alpha1".to_owned(),
        _ => format!("apiVersion `{found}` is unknown: the file is read as v2alpha1"),
    };
    reader.warning(code::API_VERSION, mark, message).hint = Some(format!("write `apiVersion: {GROUP}v2alpha1`"));
    ApiVersion::V2Alpha1
}

fn archive_size(reader: &mut Reader<'_>, section: &Section<'_>) -> ArchiveSize {
    let Some((gib, mark)) = reader.integer(section, "archiveSize") else { return ArchiveSize::default() };
    match u64::try_from(gib) {
        // More than the largest file is no limit but a slip of the hand.
        Ok(gib) if u32::try_from(gib).is_ok() => ArchiveSize::from_gib(gib),
        _ => {
            let message = format!("archiveSize is {gib}: it must be between 1 and {} (GiB)", u32::MAX);
            reader.error(code::VALUE, mark, message).hint = Some("leave it out for the default of 500 GiB".to_owned());
            ArchiveSize::default()
        }
    }
}

/// The content together with the places that checks across entries need.
pub(super) struct Marked {
    pub(super) content: Content,
    pub(super) strict: bool,
    pub(super) release_channels: Vec<Mark>,
    pub(super) catalogs: Vec<CatalogMarks>,
}

fn content(reader: &mut Reader<'_>, node: &Node, file: File, known: &[&'static str]) -> Marked {
    let section = reader.section(node, file.root, known, &[], file.v1);
    let mut marked = Marked {
        content: Content::default(),
        strict: file.root == "mirror",
        release_channels: Vec::new(),
        catalogs: Vec::new(),
    };
    if let Some(platform) = section.get("platform").filter(|n| !n.is_null()) {
        marked.content.platform = Some(releases(reader, platform, file, &mut marked.release_channels));
    }
    for (at, item) in reader.list(&section, "operators").iter().enumerate() {
        if let Some((catalog, marks)) = catalog(reader, item, file, at) {
            marked.content.operators.push(catalog);
            marked.catalogs.push(marks);
        }
    }
    for (at, item) in reader.list(&section, "additionalImages").iter().enumerate() {
        marked.content.additional_images.extend(additional_image(reader, item, file, at));
    }
    if let Some(node) = section.get("helm").filter(|n| !n.is_null()) {
        marked.content.helm = helm(reader, node, file);
    }
    for (at, item) in reader.list(&section, "blockedImages").iter().enumerate() {
        marked.content.blocked_images.extend(blocked_image(reader, item, file, at));
    }
    for (at, item) in reader.list(&section, "samples").iter().enumerate() {
        let entry = reader.section(item, format!("{}.samples[{at}]", file.root), &["name"], &[], file.v1);
        let name = reader.text(&entry, "name").map(|(name, _)| name.to_owned()).unwrap_or_default();
        marked.content.samples.push(Sample { line: entry.mark.line, name });
    }
    if let (Some(mark), false) = (section.field_mark("samples"), marked.content.samples.is_empty()) {
        reader.warning(code::IGNORED, mark, "`samples` are accepted and not mirrored, as with oc-mirror");
    }
    marked
}

fn releases(reader: &mut Reader<'_>, node: &Node, file: File, marks: &mut Vec<Mark>) -> Releases {
    let fields = ["graph", "channels", "architectures", "platforms", "release", "kubeVirtContainer"];
    let section = reader.section(node, format!("{}.platform", file.root), &fields, &[], file.v1);
    let mut channels = Vec::new();
    for (at, item) in reader.list(&section, "channels").iter().enumerate() {
        if let Some((channel, mark)) = release_channel(reader, item, &section, file, at) {
            channels.push(channel);
            marks.push(mark);
        }
    }
    let architectures = architectures(reader, &section);
    let platforms = platforms(reader, &section, file);
    if let (Some(mark), false) = (section.field_mark("architectures"), architectures.is_empty()) {
        if platforms.is_empty() {
            reader.warning(code::DEPRECATED, mark, "platform.architectures is deprecated").hint =
                Some("`platforms` with `os` and `architecture` filters within one payload".to_owned());
        } else {
            let message = "platform.platforms and platform.architectures cannot be used together";
            reader.error(code::EXCLUSIVE, mark, message).hint = Some("keep `platforms`".to_owned());
        }
    }
    let release = reader
        .text(&section, "release")
        .and_then(|(text, mark)| reader.image_name(text, mark, "release", Untagged::Refused));
    if let (true, Some(mark), false) = (release.is_some(), section.field_mark("release"), channels.is_empty()) {
        reader.warning(code::SUSPICIOUS, mark, "`release` is set, so `channels` are ignored");
    }
    Releases {
        line: section.mark.line,
        graph: reader.boolean(&section, "graph"),
        channels,
        architectures,
        platforms,
        release,
        kube_virt_container: reader.boolean(&section, "kubeVirtContainer"),
    }
}

fn architectures(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<String> {
    const KNOWN: [&str; 5] = ["amd64", "arm64", "ppc64le", "s390x", "multi"];
    let mut architectures = Vec::new();
    for item in reader.list(section, "architectures") {
        let Some((text, mark)) = reader.text_of(item, &section.at("architectures[]")) else { continue };
        if !KNOWN.contains(&text) {
            let meant = match text {
                "x86_64" | "x86-64" | "x64" => Some("amd64"),
                "aarch64" => Some("arm64"),
                _ => nearest(text, KNOWN),
            };
            let message = format!("architecture `{text}` is none that releases are made for");
            reader.warning(code::SUSPICIOUS, mark, message).hint = Some(
                meant.map_or_else(|| format!("there are {}", KNOWN.join(", ")), |m| format!("did you mean `{m}`?")),
            );
        }
        architectures.push(text.to_owned());
    }
    architectures
}

fn release_channel(
    reader: &mut Reader<'_>,
    item: &Node,
    parent: &Section<'_>,
    file: File,
    at: usize,
) -> Option<(ReleaseChannel, Mark)> {
    let fields = ["name", "type", "minVersion", "maxVersion", "shortestPath", "full"];
    let section = reader.section(item, parent.at(&format!("channels[{at}]")), &fields, &[], file.v1);
    let name = reader.required(&section, "name");
    let kind = match reader.text(&section, "type") {
        None => ReleaseKind::Ocp,
        Some((text, _)) if text.eq_ignore_ascii_case("ocp") => ReleaseKind::Ocp,
        Some((text, _)) if text.eq_ignore_ascii_case("okd") => ReleaseKind::Okd,
        Some((text, mark)) => {
            reader.error(code::VALUE, mark, format!("channel type `{text}` is unknown")).hint =
                Some("it is `ocp` or `okd`".to_owned());
            ReleaseKind::Ocp
        }
    };
    let (min_version, max_version) = reader.versions(&section, true);
    let channel = ReleaseChannel {
        line: section.mark.line,
        name: name.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        kind,
        min_version,
        max_version,
        shortest_path: reader.boolean(&section, "shortestPath"),
        full: reader.boolean(&section, "full"),
    };
    name.map(|(_, mark)| (channel, mark))
}

fn additional_image(reader: &mut Reader<'_>, item: &Node, file: File, at: usize) -> Option<AdditionalImage> {
    let fields = ["name", "targetRepo", "targetTag", "platforms"];
    let section = reader.section(item, format!("{}.additionalImages[{at}]", file.root), &fields, &[], file.v1);
    let name = reader
        .required(&section, "name")
        .and_then(|(text, mark)| reader.image_name(text, mark, "image", file.untagged()));
    let target = reader.text(&section, "targetRepo");
    let target_repo = reader.target_path(target, "targetRepo");
    let tag = reader.text(&section, "targetTag");
    let target_tag = reader.target_tag(tag);
    let platforms = platforms(reader, &section, file);
    Some(AdditionalImage { line: section.mark.line, name: name?, target_repo, target_tag, platforms })
}

fn helm(reader: &mut Reader<'_>, node: &Node, file: File) -> Helm {
    let section = reader.section(node, format!("{}.helm", file.root), &["repositories", "local"], &[], file.v1);
    let mut repositories = Vec::new();
    for (at, item) in reader.list(&section, "repositories").iter().enumerate() {
        let path = section.at(&format!("repositories[{at}]"));
        let entry = reader.section(item, path, &["name", "url", "charts"], &[], file.v1);
        let (name, url) = (reader.required(&entry, "name"), reader.required(&entry, "url"));
        let mut charts = Vec::new();
        for (at, item) in reader.list(&entry, "charts").iter().enumerate() {
            charts.extend(chart(reader, item, &entry.at(&format!("charts[{at}]")), "name", file));
        }
        if let (Some((name, _)), Some((url, _))) = (name, url) {
            let (name, url) = (name.to_owned(), url.to_owned());
            repositories.push(HelmRepository { line: entry.mark.line, name, url, charts });
        }
    }
    let mut local = Vec::new();
    for (at, item) in reader.list(&section, "local").iter().enumerate() {
        local.extend(chart(reader, item, &section.at(&format!("local[{at}]")), "path", file));
    }
    Helm { repositories, local }
}

fn chart(reader: &mut Reader<'_>, item: &Node, path: &str, needs: &str, file: File) -> Option<Chart> {
    let fields = ["name", "version", "path", "imagePaths", "platforms"];
    let section = reader.section(item, path, &fields, &[], file.v1);
    let needed = reader.required(&section, needs);
    let mut image_paths = Vec::new();
    for item in reader.list(&section, "imagePaths") {
        image_paths.extend(reader.text_of(item, &section.at("imagePaths[]")).map(|(text, _)| text.to_owned()));
    }
    let name = if needs == "name" { needed } else { reader.text(&section, "name") };
    let location = if needs == "path" { needed } else { reader.text(&section, "path") };
    let version = reader.text(&section, "version").map(|(text, _)| text.to_owned());
    let platforms = platforms(reader, &section, file);
    needed?;
    Some(Chart {
        line: section.mark.line,
        name: name.map(|(text, _)| text.to_owned()).unwrap_or_default(),
        version,
        path: location.map(|(text, _)| PathBuf::from(text)),
        image_paths,
        platforms,
    })
}

fn blocked_image(reader: &mut Reader<'_>, item: &Node, file: File, at: usize) -> Option<BlockedImage> {
    let section = reader.section(item, format!("{}.blockedImages[{at}]", file.root), &["name"], &[], file.v1);
    let (text, mark) = reader.required(&section, "name")?;
    match Regex::new(text) {
        Ok(pattern) => Some(BlockedImage { line: section.mark.line, pattern }),
        Err(error) => {
            // The last line of the regex crate's message is the reason; those before draw the pattern.
            let text_of_error = error.to_string();
            let reason = text_of_error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let message = format!("blockedImages pattern `{text}` is not a regular expression: {reason}");
            reader.error(code::VALUE, mark, message).hint = Some(
                "escape what is meant literally with a backslash; the match need not cover the whole name".to_owned(),
            );
            None
        }
    }
}

/// `platforms`: `{os, architecture}`, or `os/architecture` in short.
pub(super) fn platforms(reader: &mut Reader<'_>, parent: &Section<'_>, file: File) -> Vec<Platform> {
    let mut platforms = Vec::new();
    for (at, item) in reader.list(parent, "platforms").iter().enumerate() {
        let path = parent.at(&format!("platforms[{at}]"));
        if let Value::Scalar { .. } = item.value {
            let Some((text, mark)) = reader.text_of(item, &path) else { continue };
            match text.parse::<Platform>() {
                Ok(platform) => platforms.push(platform),
                Err(error) => {
                    reader.error(code::VALUE, mark, error.to_string());
                }
            }
            continue;
        }
        let section = reader.section(item, path, &["os", "architecture"], &[], file.v1);
        let (os, architecture) = (reader.required(&section, "os"), reader.required(&section, "architecture"));
        if let (Some((os, _)), Some((architecture, _))) = (os, architecture) {
            let (os, architecture) = (os.to_owned(), architecture.to_owned());
            platforms.push(Platform { os, architecture, ..Platform::default() });
        }
    }
    platforms
}
