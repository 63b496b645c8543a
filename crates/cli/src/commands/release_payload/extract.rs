//! `release extract`: files and programs out of a release (updates-and-releases.md 7.3).
//!
//! Files are written beside their name and renamed when every layer that was read turned out to be what the manifest says.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use airlock_content::image::instance;
use airlock_content::layers::{self, Collect, Image, Limits, Visitor, Wanted};
use airlock_content::release::tools::{self, Os, Slot, System, Tool};
use airlock_content::release::{DIRECTORY, MAX_DOCUMENT_BYTES, Payload, machine};
use airlock_mirror::event::Events;
use airlock_oci::{Error, ErrorKind, Platform};
use tempfile::{Builder, TempDir};

use super::{Opened, open, programs, shown};
use crate::args::release::ExtractArgs;
use crate::exit::Failure;

/// Most bytes of a release's files, in all; 4.12's are 15 MB.
const MAX_FILES_BYTES: u64 = 1 << 30;

pub(super) async fn run(args: ExtractArgs, events: &Events) -> Result<u8, Failure> {
    // What is wrong with the command line is said before anything is read.
    let tool = args.command.as_deref().map(Tool::named).transpose()?;
    let system = args.command_os.as_deref().map(str::parse::<System>).transpose()?;
    let opened = open(&args.release, &args.place, events).await?;
    if let Some(file) = &args.file {
        return print(&opened, file).await;
    }
    make(&args.to)?;
    if args.tools {
        return programs::run(&opened, &args.to).await;
    }
    match tool {
        Some(tool) => program(&opened, tool, system, &args.to).await,
        None => manifests(&opened, &args.to).await,
    }
}

pub(super) fn make(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|e| Error::io(format!("create `{}`", shown(directory)), &e))
}

/// A folder beside what is being written, on the same file system, that goes when this is over.
pub(super) fn beside(directory: &Path) -> Result<TempDir, Error> {
    let made = Builder::new().prefix(".airlock-extract-").tempdir_in(directory);
    made.map_err(|e| Error::io(format!("create a folder in `{}`", shown(directory)), &e))
}

async fn print(opened: &Opened, name: &str) -> Result<u8, Failure> {
    let payload = &opened.payload;
    let name = name.trim_start_matches('/');
    let name = name.strip_prefix(DIRECTORY).and_then(|n| n.strip_prefix('/')).unwrap_or(name);
    let found = payload.file(opened.source.as_ref(), name, Collect::new(MAX_DOCUMENT_BYTES)).await?.into_files();
    let Some(bytes) = found.into_values().next() else {
        let what = format!("extract `{name}` of the release `{}`", payload.name);
        return Err(Error::new(ErrorKind::NotFound, what, "the image does not contain it")
            .hint("`airlock release extract RELEASE --to DIR` writes all files, and shows their names")
            .into());
    };
    let mut out = std::io::stdout().lock();
    match out.write_all(&bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write to stdout", &e).into()),
        _ => Ok(0),
    }
}

/// Writes each file below a folder.
struct ToFolder {
    folder: PathBuf,
    names: Vec<String>,
    left: u64,
}

impl Visitor for ToFolder {
    fn file(&mut self, file: &layers::File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        // Normal by contract: no `..`, no leading slash. `release-manifests/` itself is left out.
        let name = file.path.strip_prefix(DIRECTORY).unwrap_or(file.path).trim_start_matches('/');
        let path = self.folder.join(name);
        let what = || format!("write `{}`", path.display());
        self.left = self.left.checked_sub(file.size).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, what(), format!("the files are more than {MAX_FILES_BYTES} bytes"))
        })?;
        if let Some(parent) = path.parent() {
            make(parent)?;
        }
        let mut out = File::create_new(&path).map_err(|e| Error::io(what(), &e))?;
        std::io::copy(content, &mut out).map_err(|e| layers::broken(e, what()))?;
        self.names.push(name.to_owned());
        Ok(())
    }
}

async fn manifests(opened: &Opened, to: &Path) -> Result<u8, Failure> {
    let (payload, beside) = (&opened.payload, beside(to)?);
    let visitor = ToFolder { folder: beside.path().to_owned(), names: Vec::new(), left: MAX_FILES_BYTES };
    let written = payload.files(opened.source.as_ref(), visitor).await?;
    for name in &written.names {
        let target = to.join(name);
        if let Some(parent) = target.parent() {
            make(parent)?;
        }
        fs::rename(beside.path().join(name), &target)
            .map_err(|e| Error::io(format!("write `{}`", shown(&target)), &e))?;
    }
    let created = payload.config.created.as_deref().map(|c| format!(" created at {c}")).unwrap_or_default();
    let (count, digest) = (written.names.len(), payload.digest());
    eprintln!(
        "extracted {count} files of the release {} from digest {digest}{created} to `{}`",
        payload.version(),
        shown(to)
    );
    Ok(0)
}

/// Writes one program, with the release's name in its slots.
struct Program {
    path: PathBuf,
    values: Vec<(Slot, String)>,
    missing: Vec<Slot>,
    found: bool,
}

impl Visitor for Program {
    fn file(&mut self, _file: &layers::File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        let what = || format!("write `{}`", self.path.display());
        let file = File::create_new(&self.path).map_err(|e| Error::io(what(), &e))?;
        let mut out = BufWriter::new(&file);
        let missing = tools::copy(content, &mut out, &self.values).and_then(|missing| out.flush().map(|()| missing));
        self.missing = missing.map_err(|e| layers::broken(e, what()))?;
        self.found = true;
        Ok(())
    }
}

fn value(payload: &Payload, slot: Slot) -> String {
    match slot {
        Slot::Image => payload.pull_spec().to_string(),
        Slot::Version => payload.version(),
        Slot::Architecture if payload.is_multi() => format!("multi ({})", payload.config.platform),
        Slot::Architecture => payload.config.platform.to_string(),
    }
}

/// What is written into a program; all of it fits.
pub(super) fn values(opened: &Opened, tool: Tool) -> Result<Vec<(Slot, String)>, Failure> {
    if !opened.named && tool.slots().contains(&Slot::Image) {
        return Err(Failure::usage(
            format!(
                "`{}` must name its release, and an image in a layout has no name that a cluster could pull",
                tool.name()
            ),
            "copy the release to a registry (`airlock image copy`), and extract the program from there",
        ));
    }
    let values: Vec<(Slot, String)> = tool.slots().iter().map(|slot| (*slot, value(&opened.payload, *slot))).collect();
    for (slot, value) in &values {
        tools::fits(*slot, value)?;
    }
    Ok(values)
}

async fn program(opened: &Opened, tool: Tool, system: Option<System>, to: &Path) -> Result<u8, Failure> {
    let payload = &opened.payload;
    let system = system.unwrap_or(System { os: Os::Linux, architecture: None });
    let location = tool.location(&system, &payload.config.platform.architecture)?;
    let what = || format!("extract `{}` of the release `{}`", tool.name(), payload.name);
    let Some(component) = payload.references.component(location.component) else {
        let cause = format!("the release has no component `{}`", location.component);
        return Err(Error::new(ErrorKind::NotFound, what(), cause).into());
    };
    let values = values(opened, tool)?;
    let (name, found) = opened.component(component).await?;
    let wanted = location.architecture.clone().map(|architecture| Platform {
        os: "linux".into(),
        architecture,
        ..Platform::default()
    });
    let image = instance(opened.source.as_ref(), &name, &found, wanted.as_ref()).await?;

    let folder = beside(to)?;
    let visitor = Program { path: folder.path().join("program"), values, missing: Vec::new(), found: false };
    let read = Image { source: opened.source.as_ref(), name: &name, manifest: &image, near: Some(&found.place) };
    let wanted = Wanted::new().file(&location.path)?;
    let written = layers::files(read, &wanted, Limits::default(), visitor).await?;
    if !written.found {
        let cause = format!("the image of `{}` has no `{}`", location.component, location.path);
        return Err(Error::new(ErrorKind::NotFound, what(), cause).into());
    }
    let target = to.join(&location.file_name);
    let failed = |e: std::io::Error| Error::io(format!("write `{}`", shown(&target)), &e);
    fs::set_permissions(&written.path, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    File::open(&written.path).and_then(|f| f.sync_all()).map_err(failed)?;
    fs::rename(&written.path, &target).map_err(failed)?;
    for slot in &written.missing {
        eprintln!(
            "warning: `{}` has no place for the release's {}; it stays as it was built",
            location.file_name,
            slot.what()
        );
    }
    if system.os == Os::Mac && system.architecture.as_deref() == Some("arm64") && !tool.slots().is_empty() {
        eprintln!("next: on the Mac, sign it again: codesign --force --sign - {}", location.file_name);
    }
    let architecture = machine(&payload.config.platform.architecture);
    eprintln!("extracted `{}` of {} ({architecture}) to `{}`", tool.name(), payload.version(), shown(&target));
    Ok(0)
}
