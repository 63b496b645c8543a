//! Names of images and parts of them: what may stand in `name`, `catalog`, `release`, `targetRepo`, `targetTag`.

use std::path::PathBuf;

use airlock_oci::reference::{ParseError, foreign_transport};
use airlock_oci::{Reference, Repository, Tag};

use super::model::{ImageLocation, ImageName};
use super::problem::code;
use super::reader::Reader;
use super::yaml::Mark;

/// The directory and the tag of `DIR:TAG`; `None` without a tag.
pub(crate) fn layout_tag(directory: &str) -> Option<(&str, Tag)> {
    let (path, tag) = directory.rsplit_once(':').filter(|(path, _)| !path.is_empty())?;
    // A tag has no slash: a colon before the last slash is one of the path.
    Some((path, Tag::new(tag).ok()?))
}

/// What happens to a name that has neither tag nor digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Untagged {
    /// It is an error.
    Refused,
    /// It means `:latest`, with a warning.
    Latest,
}

impl Reader<'_> {
    /// `host/path:tag@digest`, with or without `docker://`, or `oci://directory`.
    pub(super) fn image_name(&mut self, text: &str, mark: Mark, what: &str, untagged: Untagged) -> Option<ImageName> {
        if let Some(directory) = text.strip_prefix("oci://") {
            if directory.is_empty() {
                let message = format!("{what} `{text}` names no directory");
                self.error(code::REFERENCE, mark, message).hint = Some("write `oci:///absolute/path`".to_owned());
                return None;
            }
            // A colon after the last slash begins the name of one of its images, as `oci:DIR:NAME` elsewhere.
            let path = layout_tag(directory).map_or(directory, |(path, _)| path);
            let location = ImageLocation::Layout(PathBuf::from(path));
            return Some(ImageName { text: text.to_owned(), location });
        }
        let name = text.strip_prefix("docker://").unwrap_or(text);
        let foreign = foreign_transport(text).or(text.strip_prefix("oci:").map(|_| "oci"));
        if let Some(transport) = name.split_once("://").map(|(transport, _)| transport).or(foreign) {
            let message = format!("{what} `{text}`: the transport `{transport}` is not supported");
            self.error(code::REFERENCE, mark, message).hint =
                Some("docker:// (or none) and oci:// (an OCI layout: oci://DIR or oci://DIR:TAG) are".to_owned());
            return None;
        }
        let reference = match name.parse::<Reference>() {
            Ok(reference) => reference,
            Err(error) => {
                let lower =
                    (error == ParseError::Uppercase).then(|| format!("did you mean `{}`?", name.to_lowercase()));
                self.error(code::REFERENCE, mark, format!("{what} `{text}`: {error}")).hint = lower;
                return None;
            }
        };
        if reference.tag().is_some() || reference.digest().is_some() {
            return Some(ImageName { text: name.to_owned(), location: ImageLocation::Registry(reference) });
        }
        match untagged {
            Untagged::Refused => {
                let message = format!("{what} `{text}`: tag and digest are empty");
                self.error(code::REFERENCE, mark, message).hint = Some(format!("add a tag: `{text}:latest`"));
                None
            }
            Untagged::Latest => {
                let message =
                    format!("{what} `{text}` has neither tag nor digest: `:latest` is taken, as oc-mirror v1 does");
                self.warning(code::IMPLIED, mark, message).hint = Some("v2alpha1 wants it written".to_owned());
                let location = ImageLocation::Registry(reference.pulled());
                Some(ImageName { text: format!("{name}:latest"), location })
            }
        }
    }

    /// `targetCatalog`, `targetRepo`: path components without tag, digest or host.
    pub(super) fn target_path(&mut self, found: Option<(&str, Mark)>, field: &str) -> Option<Repository> {
        let (text, mark) = found?;
        match Repository::new(text) {
            Ok(path) => Some(path),
            Err(error) => {
                let component = text.split('/').find(|c| Repository::new(c).is_err()).unwrap_or(text);
                let message = match error {
                    ParseError::TooLong => format!("invalid {field} `{text}`: {error}"),
                    _ => format!("invalid {field} `{text}`: invalid target path component `{component}`"),
                };
                let hint = if text.contains(['@', ':']) {
                    "it has no tag and no digest: use `targetTag` for the tag"
                } else if error == ParseError::Uppercase {
                    "use lower case"
                } else {
                    "a component is lower-case letters and digits, joined by `.`, `_`, `__` or `-`; no slash at the ends"
                };
                self.error(code::VALUE, mark, message).hint = Some(hint.to_owned());
                None
            }
        }
    }

    /// `targetTag`.
    pub(super) fn target_tag(&mut self, found: Option<(&str, Mark)>) -> Option<Tag> {
        let (text, mark) = found?;
        let tag = Tag::new(text).ok();
        if tag.is_none() {
            let hint = "a tag is up to 128 letters, digits, `_`, `.` and `-`, beginning with a letter, digit or `_`";
            self.error(code::VALUE, mark, format!("invalid targetTag `{text}`")).hint = Some(hint.to_owned());
        }
        tag
    }
}
