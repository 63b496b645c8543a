//! `airlock catalog init`: a configuration for some operators of a catalog, with what its author wants to know beside it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use airlock_content::catalog::{Catalog, Channel, Package, Required};
use airlock_mirror::config;
use airlock_mirror::event::Events;
use airlock_oci::{Error, ErrorKind};

use super::view;
use crate::args::catalog::InitArgs;
use crate::commands::image;
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs the verb.
pub(super) async fn run(args: &InitArgs, events: &Events) -> Result<u8, Failure> {
    let name = configured_name(&args.catalog)?;
    let opened = super::open(&args.catalog, &args.place, events).await?;
    let text = write(&opened.catalog, &opened.shown, &name, &args.packages)?;
    // What cannot be read back must not be given out.
    config::parse(&args.output.as_deref().unwrap_or(Path::new("the configuration")).display().to_string(), &text)?;
    match &args.output {
        None => output::text(&text)?,
        Some(path) => {
            save(path, &text, args.force)?;
            eprintln!("wrote {}; next: airlock plan -c {}", path.display(), path.display());
        }
    }
    Ok(0)
}

/// The catalog as a configuration names it.
fn configured_name(text: &str) -> Result<String, Failure> {
    if super::is_directory(text) {
        return Err(Failure::usage(
            format!("`{text}`: a configuration cannot name a directory of catalog files"),
            "name an image (HOST/NAME:TAG) or an OCI layout (oci:DIR)",
        ));
    }
    Ok(match image::parse(text)? {
        image::Place::Registry(name) if name.digest().is_some() => name.to_string(),
        image::Place::Registry(name) => name.pulled().to_string(),
        image::Place::Layout { path, .. } => {
            let path = std::path::absolute(&path)
                .map_err(|e| Error::io(format!("find the OCI layout `{}`", path.display()), &e))?;
            format!("oci://{}", path.display())
        }
    })
}

fn write(catalog: &Catalog, shown: &str, name: &str, wanted: &[String]) -> Result<String, Failure> {
    let mut text = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  operators:\n  - catalog: {}\n    packages:\n",
        scalar(name)
    );
    let mut seen = Vec::new();
    for one in wanted {
        let mut parts = one.split(',').map(str::trim).filter(|part| !part.is_empty());
        let package = parts.next().ok_or_else(|| {
            Failure::usage(format!("--package `{one}` names no package"), "write NAME or NAME,CHANNEL")
        })?;
        let package = view::named(catalog, shown, package)?;
        if seen.contains(&&package.name) {
            return Err(Failure::usage(
                format!("package `{}` is named twice", package.name),
                format!("name its channels together: --package {},CHANNEL,CHANNEL", package.name),
            ));
        }
        seen.push(&package.name);
        let mut channels = parts.map(|name| view::channel(package, name)).collect::<Result<Vec<_>, _>>()?;
        channels.dedup_by(|a, b| a.name == b.name);
        text.push_str(&of_package(package, channels)?);
    }
    Ok(text)
}

/// The package's part, its lines indented.
fn of_package<'c>(package: &'c Package, mut channels: Vec<&'c Channel>) -> Result<String, Failure> {
    let name = &package.name;
    let default = package.default_channel.as_deref();
    if channels.is_empty() {
        let channel = default.and_then(|name| package.channel(name)).ok_or_else(|| {
            let known: Vec<&str> = package.channels.iter().map(|c| &*c.name).collect();
            let hint = format!("name one: --package {name},CHANNEL; it has {}", known.join(", "));
            Failure::usage(format!("package `{name}` has no default channel"), hint)
        })?;
        channels.push(channel);
    }
    let mut text = String::new();
    if let Some(display) = view::display_name(package) {
        text.push_str(&comment("    ", display));
    }
    text.push_str(&format!("    - name: {}\n", scalar(name)));
    if !channels.iter().any(|c| Some(&*c.name) == default)
        && let Some(first) = channels.first()
    {
        let was = default.map_or_else(|| "the catalog names none".to_owned(), |was| format!("`{was}` in the catalog"));
        text.push_str(&format!("      # {was}, which is not among the channels\n"));
        text.push_str(&format!("      defaultChannel: {}\n", scalar(&first.name)));
    }
    text.push_str("      channels:\n");
    for channel in channels {
        let entries = view::entries(package, channel);
        let versions: Vec<&str> = entries.iter().filter_map(|e| e.version).collect();
        let range = match versions[..] {
            [] => String::new(),
            [only] => format!("; version {only}"),
            [first, .., last] => format!("; {} versions, {first} to {last}", versions.len()),
        };
        let head = match view::head(channel) {
            Ok(head) => {
                for need in required(package, head) {
                    text.push_str(&comment("      ", &format!("needs package `{}` {}", need.package, need.range)));
                }
                let version = package.bundle(head).and_then(|b| b.version.as_deref());
                format!("newest {}", version.unwrap_or(head))
            }
            Err(fault) => fault,
        };
        text.push_str(&comment("      ", &format!("{head}{range}")));
        text.push_str(&format!("      - name: {}\n", scalar(&channel.name)));
    }
    Ok(text)
}

/// What OLM demands beside the newest version.
fn required<'p>(package: &'p Package, head: &str) -> &'p [Required] {
    package.bundle(head).map(|bundle| &bundle.needs().packages[..]).unwrap_or_default()
}

/// A comment in one line, whatever a publisher wrote.
fn comment(indent: &str, text: &str) -> String {
    let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    format!("{indent}# {}\n", line.join(" "))
}

/// A text in YAML: as it is where nobody can take it for anything else, such as a number.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@:".contains(c))
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn save(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let what = || format!("write `{}`", path.display());
    let opened = if force {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    } else {
        OpenOptions::new().write(true).create_new(true).open(path)
    };
    let mut file = opened.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => {
            let error = Error::new(ErrorKind::Refused, what(), "it exists").hint("add --force, or name another file");
            Failure::Coded(error, Exit::Refused.code())
        }
        _ => Error::io(what(), &e).into(),
    })?;
    file.write_all(text.as_bytes()).map_err(|e| Error::io(what(), &e).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_a_number_is_quoted() {
        assert_eq!(scalar("stable-4.18"), "stable-4.18");
        assert_eq!(scalar("registry.io/a/b@sha256:00"), "registry.io/a/b@sha256:00");
        for text in ["4.18", "true", "", "1", "a: b", "a #b", "x:"] {
            assert_eq!(scalar(text), format!("\"{text}\""));
        }
        assert_eq!(comment("  ", "a\nb:\u{7} c"), "  # a b: c\n");
    }
}
