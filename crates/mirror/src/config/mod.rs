//! The image set as written: `ImageSetConfiguration` and `DeleteImageSetConfiguration`, v2alpha1 and v1alpha2.
//!
//! Text goes in; out comes either a [`Loaded`] configuration with warnings, or [`Problems`]: everything that is wrong, each
//! with file, line, column and what helps. Whatever is listed keeps its line, so that a plan can say why it wants an image.
//! The rules are those of oc-mirror (oc-mirror.md 1), which existing files were written for; where oc-mirror finds a
//! mistake only while running, or never, it is found here.

mod check;
mod image;
mod model;
mod operators;
mod problem;
mod reader;
mod sections;
mod version;
mod yaml;

use std::path::{Path, PathBuf};

pub(crate) use image::layout_tag;
pub use model::{
    AdditionalImage, ApiVersion, ArchiveSize, BlockedImage, Catalog, Chart, Content, DeleteImageSetConfiguration, Helm,
    HelmRepository, ImageLocation, ImageName, ImageSetConfiguration, Package, PackageChannel, ReleaseChannel,
    ReleaseKind, Releases, Sample,
};
pub use problem::{Problem, Problems, Severity, code};

/// Largest configuration that is read, in bytes. Ten thousand images take about one million.
pub const MAX_CONFIG_BYTES: u64 = 64 * 1024 * 1024;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded<C = ImageSetConfiguration> {
    /// What it says.
    pub config: C,
    /// What its author may want to know, in the order of lines.
    pub warnings: Vec<Problem>,
    /// Where it was read from, as the caller said.
    pub path: PathBuf,
    /// The text as read, which archives carry along.
    pub text: String,
}

/// Reads and checks an `ImageSetConfiguration`.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let text = read(path)?;
    parse(&path.display().to_string(), &text)
}

/// Checks the text of an `ImageSetConfiguration`; `name` is the file's name in messages.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    finish(name, text, sections::image_set)
}

/// Reads and checks a `DeleteImageSetConfiguration`.
pub fn load_delete(path: &Path) -> Result<Loaded<DeleteImageSetConfiguration>, Problems> {
    let text = read(path)?;
    parse_delete(&path.display().to_string(), &text)
}

/// Checks the text of a `DeleteImageSetConfiguration`; `name` is the file's name in messages.
pub fn parse_delete(name: &str, text: &str) -> Result<Loaded<DeleteImageSetConfiguration>, Problems> {
    finish(name, text, sections::delete_image_set)
}

fn finish<C>(
    name: &str,
    text: &str,
    section: fn(&mut reader::Reader<'_>, &yaml::Node) -> Option<C>,
) -> Result<Loaded<C>, Problems> {
    // A byte order mark is no part of the text; editors on Windows leave one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = reader::Reader::new(name, text);
    let (root, faults) = yaml::read(text);
    for fault in faults {
        reader.error(fault.code, fault.mark, fault.message);
    }
    let config = root.and_then(|root| section(&mut reader, &root));
    let problems = reader.into_problems();
    let path = PathBuf::from(name);
    match config {
        Some(config) if problems.iter().all(|p| p.severity == Severity::Warning) => {
            Ok(Loaded { config, warnings: problems, path, text: text.to_owned() })
        }
        _ => Err(Problems { path, problems: airlock_document::Problems(problems) }),
    }
}

fn read(path: &Path) -> Result<String, Problems> {
    let name = path.display().to_string();
    let fail = |message: String| {
        let mut problem = Problem::of_file(code::UNREADABLE, &name, message);
        problem.hint = (!path.exists()).then(|| "check the path given with -c/--config".to_owned());
        Problems { path: path.to_owned(), problems: problem.into() }
    };
    let size = std::fs::metadata(path).map_err(|e| fail(format!("cannot read the configuration: {e}")))?.len();
    if size > MAX_CONFIG_BYTES {
        return Err(fail(format!("the configuration has {size} bytes; at most {MAX_CONFIG_BYTES} are read")));
    }
    let bytes = std::fs::read(path).map_err(|e| fail(format!("cannot read the configuration: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let valid = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = valid.split(|b| *b == b'\n').count();
        fail(format!("the configuration is not UTF-8 text: the first wrong byte is in line {line}"))
    })
}
