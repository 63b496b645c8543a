//! Files, directories and standard input to texts with names.

use std::io::Read;
use std::path::{Path, PathBuf};

use airlock_rules::problem::{Severity, code};
use airlock_rules::render::{Base, Payload};
use airlock_rules::{Objects, Others, Problem, Problems};

use crate::args::rules::ClusterArgs;
use crate::exit::Failure;

/// Most bytes of one file: a dump of a large cluster's objects has a tenth of it.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Deepest nesting of directories.
const MAX_DIRECTORY_DEPTH: usize = 16;

/// Name of standard input.
pub(crate) const STDIN: &str = "-";

fn unreadable(path: &Path, cause: impl std::fmt::Display) -> Failure {
    Problem::of_file(code::UNREADABLE, &path.display().to_string(), format!("cannot read the file: {cause}")).into()
}

/// One file, or standard input.
pub(crate) fn text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path.as_os_str() == STDIN {
        std::io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
    };
    match read {
        Err(error) => Err(unreadable(path, error)),
        Ok(read) if read as u64 > MAX_FILE_BYTES => Err(unreadable(path, format!("more than {MAX_FILE_BYTES} bytes"))),
        Ok(_) => Ok(text),
    }
}

/// A file of the command line, or one found below a directory of it.
pub(crate) struct Given {
    /// As it was written, or its path.
    pub name: String,
    /// Its whole text.
    pub text: String,
    /// Nobody named it: what else lies beside rules is passed over.
    pub found: bool,
}

/// Files as (name, text); of directories the YAML and JSON files below them, by name.
pub(crate) fn texts(paths: &[PathBuf]) -> Result<Vec<(String, String)>, Failure> {
    Ok(given(paths)?.into_iter().map(|file| (file.name, file.text)).collect())
}

/// The same, knowing which of them were named.
pub(crate) fn given(paths: &[PathBuf]) -> Result<Vec<Given>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found = Vec::new();
            directory(path, 0, &mut found)?;
            if found.is_empty() {
                return Err(unreadable(path, "no .yaml, .yml or .json file in it"));
            }
            files.extend(found.into_iter().map(|path| (path, true)));
        } else {
            files.push((path.clone(), false));
        }
    }
    let read =
        |(path, found): (PathBuf, bool)| Ok(Given { name: path.display().to_string(), text: text(&path)?, found });
    files.into_iter().map(read).collect()
}

/// Reads given files; objects of other kinds are kept.
pub(crate) fn read(files: &[Given]) -> (Objects, Vec<Problem>) {
    let choice = |file: &Given| if file.found { Others::Keep } else { Others::Refuse };
    Objects::read_each(files.iter().map(|file| (file.name.as_str(), file.text.as_str(), choice(file))))
}

/// Objects of other kinds found below a directory: a word about each, or an error where a kind was probably misspelt.
pub(crate) fn pass_over(objects: &Objects, problems: &mut Vec<Problem>) {
    for other in &objects.others {
        let problem = objects.other_kind(other);
        if other.meant().is_some() {
            problems.push(problem);
        } else {
            eprintln!("note: {}:{}: {} `{}` passed over", problem.file, problem.line, other.kind, other.name);
        }
    }
}

fn directory(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if depth > MAX_DIRECTORY_DEPTH {
        return Err(unreadable(path, format!("directories nested more than {MAX_DIRECTORY_DEPTH} levels deep")));
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut entries: Vec<PathBuf> = entries.map_err(|e| unreadable(path, e))?.into_iter().map(|e| e.path()).collect();
    entries.sort();
    for entry in entries {
        let known = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if entry.is_dir() {
            directory(&entry, depth + 1, files)?;
        } else if known {
            files.push(entry);
        }
    }
    Ok(())
}

/// The objects of files and of the cluster's image configuration; warnings go to stderr.
pub(crate) fn objects(paths: &[PathBuf], image_config: Option<&Path>) -> Result<Objects, Failure> {
    let mut files = given(paths)?;
    if let Some(path) = image_config {
        files.push(Given { name: path.display().to_string(), text: text(path)?, found: false });
    }
    let (objects, mut problems) = read(&files);
    pass_over(&objects, &mut problems);
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(Problems(problems).into());
    }
    for warning in problems {
        eprintln!("{warning}");
    }
    Ok(objects)
}

/// Base and release payload of a cluster.
pub(crate) fn cluster(args: &ClusterArgs) -> Result<(Base, Option<Payload>), Failure> {
    let base = match &args.base {
        Some(path) => Base::parse(&path.display().to_string(), &text(path)?)?,
        None => Base::of_pools(),
    };
    let payload = args.release_image.as_deref().map(Payload::parse).transpose()?;
    Ok((base, payload))
}

/// The `.conf` files directly in a directory. One that is not there has none; one that vanishes meanwhile is passed over.
pub(crate) fn dropins(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(path, error)),
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(|e| unreadable(path, e))?,
    };
    let mut files = Vec::new();
    for entry in entries.into_iter().map(|e| e.path()) {
        if entry.extension().is_some_and(|e| e == "conf") && entry.is_file() {
            files.push((entry.display().to_string(), text(&entry)?));
        }
    }
    Ok(files)
}

/// Writes a file so that it is there whole or not at all, making its directories.
pub(crate) fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = directory.join(format!(".{name}.{}.part", std::process::id()));
    let written = std::fs::File::create(&beside).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}
