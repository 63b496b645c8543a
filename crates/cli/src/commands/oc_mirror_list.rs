//! `oc-mirror list releases|operators`: the same questions as `airlock release list` and `airlock catalog list`, the lines that scripts know
//! (oc-mirror 12).

use std::ffi::OsString;
use std::process::ExitCode;

use airlock_client::{Client, RegistrySource};
use airlock_content::catalog::Package;
use airlock_oci::{Error, ErrorKind, Reference};
use airlock_updates::{Architecture, ChannelName, GraphClient, Graphs, Minor, Options, Query, Service};
use clap::{CommandFactory, Parser};

use crate::args::oc_mirror::plain_switches;
use crate::args::oc_mirror_list::{OcMirrorListArgs, OcMirrorListed, OcMirrorOperatorsArgs, OcMirrorReleasesArgs};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::catalog::{self, view};
use crate::commands::release_graph::published;
use crate::exit::Failure;
use crate::{diagnostics, output};

/// Whether the arguments mean `list`, perhaps after flags such as `--v2`.
pub(crate) fn is_meant(words: &[String]) -> bool {
    // Only flags without a value of their own may stand before: `-c list` names a file.
    let at = words.iter().position(|word| word == "list");
    at.is_some_and(|at| words[..at].iter().all(|word| word == "--v2" || (word.starts_with("--") && word.contains('='))))
}

/// Runs the verb; exit code 1 for every failure, as there.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let mut rest = arguments.into_iter().skip(1);
    let mut given = vec![OsString::from("oc-mirror list")];
    given.extend(rest.by_ref().take_while(|word| word != "list"));
    given.extend(rest);
    let args = match OcMirrorListArgs::try_parse_from(plain_switches(given, &OcMirrorListArgs::command())) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let listed = runtime.block_on(async {
        match &args.what {
            OcMirrorListed::Releases(wanted) => releases(&args, wanted).await,
            OcMirrorListed::Operators(wanted) => operators(&args, wanted).await,
        }
    });
    match listed {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            diagnostics::print(&failure);
            ExitCode::from(1)
        }
    }
}

async fn releases(args: &OcMirrorListArgs, wanted: &OcMirrorReleasesArgs) -> Result<(), Failure> {
    if wanted.channels && wanted.version.is_none() {
        return Err(Failure::usage("must specify --version", "--channels lists the channels of one version"));
    }
    let mut architectures: Vec<Architecture> = Vec::new();
    for text in &wanted.filter_by_archs {
        architectures.push(text.parse().map_err(|error| {
            Failure::usage(format!("{error}"), "--filter-by-archs takes amd64, arm64, ppc64le, s390x, multi")
        })?);
    }
    let minor = wanted.version.as_deref().map(minor_of).transpose()?;
    let client = client(args)?;
    let channel = match (&wanted.channel, minor) {
        (Some(name), _) => name.clone(),
        (None, Some(minor)) => format!("stable-{minor}"),
        (None, None) => return versions(client).await,
    };
    let channel =
        ChannelName::new(&channel).map_err(|error| Failure::usage(error.to_string(), "such as stable-4.18"))?;
    let options = Options { url: std::env::var("UPDATE_URL_OVERRIDE").ok(), ..Options::default() };
    let graphs = GraphClient::new(client, &options)?;
    let mut text = String::new();
    if let (true, Some(minor)) = (wanted.channels, minor) {
        let stable = ChannelName::of("stable", minor).map_err(|e| Failure::usage(e.to_string(), "such as 4.18"))?;
        let query = Query { service: Service::Ocp, architecture: Architecture::default(), channel: stable };
        let answer = graphs.answer(&query).await?;
        if answer.graph.is_empty() {
            return Err(nothing(&query, &graphs));
        }
        text.push_str(&format!("Listing channels for version {minor}:\n\n"));
        for channel in answer.graph.channels() {
            text.push_str(&format!("{channel}\n"));
        }
        return output::text(&text);
    }
    if channel.as_str().starts_with("stable") {
        text.push_str("Listing stable channels. Use --channel=<channel-name> to filter.\n");
        text.push_str("Use oc-mirror list releases --channels to discover other channels.\n\n");
    }
    for architecture in architectures {
        let query = Query { service: Service::Ocp, architecture, channel: channel.clone() };
        let answer = graphs.answer(&query).await?;
        if answer.graph.is_empty() {
            return Err(nothing(&query, &graphs));
        }
        text.push_str(&format!("Channel: {channel}\nArchitecture: {architecture}\n"));
        for node in answer.graph.nodes() {
            text.push_str(&format!("{}\n", node.version));
        }
    }
    output::text(&text)
}

fn client(args: &OcMirrorListArgs) -> Result<Client, Failure> {
    let common = CommonArgs { authfile: args.authfile.clone(), retry_times: 5, ..CommonArgs::default() };
    let side = Side { tls_verify: Some(args.src_tls_verify), ..Side::default() };
    Ok(Client::new(common.options(&side, &[])?)?)
}

async fn operators(args: &OcMirrorListArgs, wanted: &OcMirrorOperatorsArgs) -> Result<(), Failure> {
    let refused =
        |message: &str| Err(Failure::usage(message, "such as --catalogs --version 4.18, or --catalog NAME:TAG"));
    match (&wanted.catalog, wanted.catalogs || wanted.version.is_some()) {
        (Some(_), true) => refused("--catalog and --catalogs (or --version) cannot be used together"),
        (None, false) => refused("must specify --catalogs with --version, or --catalog"),
        (None, true) if wanted.package.is_some() || wanted.channel.is_some() => refused("--package needs --catalog"),
        (Some(_), false) if wanted.channel.is_some() && wanted.package.is_none() => {
            refused("--channel needs --package")
        }
        (None, true) => match wanted.version.as_deref() {
            Some(version) => catalogs(args, minor_of(version)?).await,
            None => refused("must specify --version with --catalogs"),
        },
        (Some(catalog), false) => operators_of(args, wanted, catalog).await,
    }
}

async fn catalogs(args: &OcMirrorListArgs, version: Minor) -> Result<(), Failure> {
    let mut text = format!("Available OpenShift OperatorHub catalogs:\nOpenShift {version}:\n");
    for listed in catalog::published(client(args)?, version).await? {
        let wrong = "Invalid catalog reference, please check version: ";
        text.push_str(&format!("{}{}\n", if listed.digest.is_some() { "" } else { wrong }, listed.catalog));
    }
    output::text(&text)
}

async fn operators_of(args: &OcMirrorListArgs, wanted: &OcMirrorOperatorsArgs, catalog: &str) -> Result<(), Failure> {
    let name: Reference = catalog.strip_prefix("docker://").unwrap_or(catalog).parse().map_err(|e| {
        Failure::usage(
            format!("`{catalog}`: {e}"),
            "write HOST/NAME:TAG; `airlock catalog list oci:DIR` reads a layout",
        )
    })?;
    let source = RegistrySource::new(client(args)?);
    let read = airlock_content::catalog::read(&source, &name.pulled(), &std::env::temp_dir()).await?;
    let row = |package: &Package| {
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        vec![package.name.to_string(), text(view::display_name(package)), text(package.default_channel.as_deref())]
    };
    let header = ["NAME", "DISPLAY NAME", "DEFAULT CHANNEL"];
    let Some(package) = &wanted.package else {
        return output::text(&output::table(&header, &read.packages().map(row).collect::<Vec<_>>()));
    };
    let package = view::named(&read, catalog, package)?;
    if let Some(channel) = &wanted.channel {
        let mut entries = view::entries(package, view::channel(package, channel)?);
        entries.sort_by_key(|entry| entry.bundle);
        let versions = entries.iter().filter_map(|entry| entry.version);
        return output::text(&format!("VERSIONS\n{}", versions.map(|v| format!("{v}\n")).collect::<String>()));
    }
    let heads: Vec<Vec<String>> = package
        .channels
        .iter()
        .map(|channel| {
            let head = view::head(channel).map_or_else(|fault| format!("ERROR: {fault}"), ToString::to_string);
            vec![package.name.to_string(), channel.name.to_string(), head]
        })
        .collect();
    let (first, second) =
        (output::table(&header, &[row(package)]), output::table(&["PACKAGE", "CHANNEL", "HEAD"], &heads));
    output::text(&format!("{first}\n{second}"))
}

/// The minor versions that there are.
async fn versions(client: Client) -> Result<(), Failure> {
    let mut text = "Available OpenShift Container Platform release versions:\n".to_owned();
    for minor in published(client).await? {
        text.push_str(&format!("  {minor}\n"));
    }
    output::text(&text)
}

/// `4.18`; a full version is taken for its minor.
fn minor_of(text: &str) -> Result<Minor, Failure> {
    let parts: Vec<&str> = text.split('.').collect();
    let short = parts.get(..2).map(|parts| parts.join(".")).unwrap_or_else(|| text.to_owned());
    short.parse().map_err(|error| Failure::usage(format!("--version: {error}"), "write X.Y, such as 4.18"))
}

fn nothing(query: &Query, graphs: &GraphClient) -> Failure {
    let what = format!("list the releases of channel `{}` for {}", query.channel, query.architecture);
    Error::new(ErrorKind::NotFound, what, format!("{} knows none", graphs.describe()))
        .hint("look at the channels of a version with `oc-mirror list releases --channels --version X.Y`")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_is_told_from_a_file_of_that_name() {
        let meant = |text: &str| is_meant(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(meant("list releases") && meant("--v2 list releases") && meant("--log-level=debug --v2 list releases"));
        assert!(!meant("-c list file://x --v2") && !meant("--config list file://x") && !meant("-c isc.yaml file://x"));
    }
}
