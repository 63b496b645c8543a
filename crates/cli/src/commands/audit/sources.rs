//! Files, folders and standard input to images in use.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use airlock_oci::Error;
use airlock_rules::usage::{Form, Images};

use crate::commands::rules::input::STDIN;
use crate::exit::Failure;
use crate::progress::Look;

/// What is read of a file at once, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Deepest nesting of a folder; a must-gather has about eight levels.
const MAX_DEPTH: usize = 32;

/// Most files of one folder. A must-gather of a large cluster has some ten thousand.
const MAX_FILES: usize = 500_000;

/// Files of a folder that could not be read and are named; the rest is counted.
const MAX_SKIPPED_SHOWN: usize = 5;

/// Reads all sources. A file that is named must be readable; of a folder, what is not readable is told and passed over.
pub(super) fn read(sources: &[&String], images: &mut Images, look: Look) -> Result<(), Failure> {
    if sources.iter().filter(|s| form(s).1 == STDIN).count() > 1 {
        return Err(Failure::usage("standard input can be read only once", "name `-` once"));
    }
    for source in sources {
        let (form, path) = form(source);
        if path == STDIN {
            one(images, STDIN, form, std::io::stdin().lock())?;
        } else if Path::new(path).is_dir() {
            folder(Path::new(path), form, images, look)?;
        } else {
            let file = File::open(path).map_err(|e| unreadable(path, &e))?;
            one(images, path, form, file)?;
        }
    }
    Ok(())
}

/// What a prefix says about a source, and its path.
fn form(source: &str) -> (Form, &str) {
    let known = [
        ("pods:", Form::Objects),
        ("csv:", Form::Objects),
        ("helm:", Form::Objects),
        ("nodes:", Form::Nodes),
        ("list:", Form::List),
    ];
    // A file of such a name counts for more than a prefix.
    let prefixed = known.into_iter().find_map(|(prefix, form)| Some((form, source.strip_prefix(prefix)?)));
    prefixed.filter(|_| !Path::new(source).exists()).unwrap_or((Form::Guess, source))
}

fn unreadable(path: &str, error: &std::io::Error) -> Failure {
    Failure::Coded(
        Error::io(format!("read `{path}`"), error)
            .hint("give a dump, a folder, rendered manifests or a list of images"),
        crate::exit::Exit::Usage.code(),
    )
}

fn wrong(error: &airlock_rules::usage::Error) -> Failure {
    let hint =
        "expected the output of `oc get … -o json` or `-o yaml`, rendered manifests, or one image a line (list:FILE)";
    Failure::usage(error.to_string(), hint)
}

fn one(images: &mut Images, path: &str, form: Form, input: impl std::io::Read) -> Result<(), Failure> {
    let input = BufReader::with_capacity(BUFFER_BYTES, input);
    let summary = images.read(path, form, input).map_err(|e| wrong(&e))?;
    if summary.more.is_some() {
        return Err(Failure::usage(
            format!("`{path}` is one page of a longer list"),
            "dump the whole (`oc get … -o json` without --limit, or with --chunk-size)",
        ));
    }
    if summary.objects == 0 && summary.uses == 0 && form != Form::List {
        // An empty list says that nothing runs; a file of something else must not say so.
        let empty = std::fs::metadata(path).is_ok_and(|meta| meta.len() == 0);
        let what = if empty { "is empty" } else { "holds no objects" };
        eprintln!("warning: `{path}` {what}");
    }
    Ok(())
}

fn folder(path: &Path, form: Form, images: &mut Images, look: Look) -> Result<(), Failure> {
    if path.join(airlock_rules::node::REGISTRIES_CONF).exists() {
        return Err(Failure::usage(
            format!("`{}` is the file system of a node", path.display()),
            format!("write `--node {}`", path.display()),
        ));
    }
    let mut files = Vec::new();
    walk(path, 0, &mut files)?;
    let before = images.objects();
    let mut skipped = Vec::new();
    for file in &files {
        let name = file.display().to_string();
        let read = File::open(file).map_err(|e| e.to_string()).and_then(|file| {
            let input = BufReader::with_capacity(BUFFER_BYTES, file);
            images.read(&name, if form == Form::Guess { Form::Objects } else { form }, input).map_err(|e| e.to_string())
        });
        if let Err(cause) = read {
            skipped.push(cause);
        }
    }
    if images.objects() == before {
        return Err(Failure::usage(
            format!("no objects in `{}`", path.display()),
            "the folder must hold dumps (.yaml, .yml, .json), such as a must-gather",
        ));
    }
    if !look.quiet {
        for cause in skipped.iter().take(MAX_SKIPPED_SHOWN) {
            eprintln!("warning: passed over {cause}");
        }
        if skipped.len() > MAX_SKIPPED_SHOWN {
            eprintln!("warning: passed over {} files more", skipped.len() - MAX_SKIPPED_SHOWN);
        }
    }
    Ok(())
}

/// YAML and JSON files below a folder, by name. Links to folders are not followed: they may lead in circles.
fn walk(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| unreadable(&path.display().to_string(), e);
    if depth > MAX_DEPTH {
        return Err(Failure::usage(
            format!("`{}` is nested too deep", path.display()),
            "name the folder that is meant",
        ));
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).map_err(|e| failed(&e))? {
        let entry = entry.map_err(|e| failed(&e))?;
        entries.push((entry.path(), entry.file_type().map_err(|e| failed(&e))?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (path, kind) in entries {
        if kind.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json") {
            files.push(path);
        }
        if files.len() > MAX_FILES {
            return Err(Failure::usage(format!("more than {MAX_FILES} files"), "name the folder that is meant"));
        }
    }
    Ok(())
}
