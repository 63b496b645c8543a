//! `airlock audit`: which images in use these rules, and these mirrors, can serve.
//!
//! [`sources`] reads who uses what, [`node`] a node's files, [`mirror`] asks the mirrors; the judging is `airlock_rules`'.

mod mirror;
pub(crate) mod node;
mod sources;
mod table;

use std::io::Write as _;
use std::path::PathBuf;

use airlock_oci::Error;
use airlock_oci::registries_conf::Config;
use airlock_rules::audit::{Audit, Options, Rules, Status, suggested_objects};
use airlock_rules::render::Payload;
use airlock_rules::resolve::{Node, Unusable};
use airlock_rules::usage::Images;
use airlock_rules::{Objects, Others, Problem, Problems};

use crate::args::audit::AuditArgs;
#[cfg(feature = "cluster")]
use crate::cluster::usage::Live;
use crate::commands::rules::input;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::progress::Look;

/// Largest source that is read a second time for the rules in it, in bytes. Rules are dumped apart from ten thousand pods.
const MAX_RULE_SOURCE_BYTES: u64 = 32 << 20;

/// Without a cluster to ask there are no rules of one.
#[cfg(not(feature = "cluster"))]
struct Live {
    objects: Objects,
    release: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: AuditArgs, look: Look) -> Result<u8, Failure> {
    let mut images = Images::default();
    let named: Vec<&String> = args.sources.iter().chain(&args.images).collect();
    sources::read(&named, &mut images, look)?;
    #[cfg(feature = "cluster")]
    let live = if args.live { Some(crate::cluster::usage::read(&args.kube, &mut images).await?) } else { None };
    #[cfg(not(feature = "cluster"))]
    let live: Option<Live> = None;
    let files = args.node.as_deref().map(node::read).transpose()?;
    let given = given_rules(&args, &images, live)?;
    let mut of_node = None;
    let node = files.as_ref().map(|files| {
        let root = args.node.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        let (report, config) = airlock_rules::node::examine(&root, files, given.as_ref());
        of_node = config;
        report
    });
    if named.is_empty() && node.is_none() && images.objects() == 0 && !is_live(&args) {
        return Err(Failure::usage(
            "nothing to audit",
            "name a dump (`oc get pods -A -o json > pods.json`), a must-gather folder, rendered manifests or a list of images",
        ));
    }
    let rules = match given {
        Some(rules) => rules,
        None if node.is_some() => Rules::of(Node::of_config(of_node.unwrap_or_default())),
        None => {
            return Err(Failure::usage(
                "no rules: there are none among the sources",
                "name them with --rules FILE, --registries-conf FILE or --node DIR",
            ));
        }
    };
    let options = Options { mirror_hosts: args.mirror_host.clone(), internal_hosts: args.internal_host.clone() };
    let mut audit = Audit::of(&images, &rules, &options);
    if args.check_mirror {
        mirror::check(&args, &images, &mut audit).await?;
    }
    if let Some(path) = &args.suggest {
        suggest(path, &audit)?;
    }
    match args.output {
        Format::Json => json(&audit.document(&images, node.as_ref(), args.gaps))?,
        Format::Yaml => {
            output::value(Format::Yaml, &audit.document(&images, node.as_ref(), args.gaps))?;
        }
        Format::Table => table::print(&audit, &images, node.as_ref(), args.gaps, args.check_mirror)?,
    }
    Ok(code(&audit, node.as_ref().is_some_and(|node| node.has_error())))
}

fn is_live(args: &AuditArgs) -> bool {
    #[cfg(feature = "cluster")]
    return args.live;
    #[cfg(not(feature = "cluster"))]
    {
        let _ = args;
        false
    }
}

/// A gap counts for more than a mirror that could not be asked.
fn code(audit: &Audit, node: bool) -> u8 {
    if audit.has_gap() || node {
        return Exit::Gap.code();
    }
    let asked = |wanted: &[Status]| {
        audit.findings().iter().filter_map(|f| f.check.as_ref()).any(|check| wanted.contains(&check.status))
    };
    if asked(&[Status::Denied]) {
        Exit::NotAuthorised.code()
    } else if asked(&[Status::Unreachable, Status::Limited]) {
        Exit::Network.code()
    } else {
        0
    }
}

/// The rules that the user named, that the cluster has, or that are among the sources; in this order.
fn given_rules(args: &AuditArgs, images: &Images, live: Option<Live>) -> Result<Option<Rules>, Failure> {
    if let Some(path) = &args.registries_conf {
        let text = input::text(path)?;
        let dropins = args.dropins.as_deref().map(input::dropins).transpose()?.unwrap_or_default();
        let config = Config::parse(Some(&text), &dropins).map_err(|error| {
            let file = if error.file == airlock_oci::registries_conf::MAIN_FILE {
                path.display().to_string()
            } else {
                error.file
            };
            let place = if error.line > 0 { format!("{file}:{}:{}", error.line, error.column) } else { file };
            Problem::of_file(error.code, &place, error.cause)
        })?;
        return Ok(Some(Rules::of(Node::of_config(config))));
    }
    let image_config = args.cluster.image_config.as_deref();
    let mut release = None;
    let objects = if !args.rules.is_empty() || (image_config.is_some() && live.is_none()) {
        input::objects(&args.rules, image_config)?
    } else if let Some(live) = live {
        release = live.release.as_deref().map(Payload::parse).transpose()?;
        live.objects
    } else if !images.rule_sources().is_empty() {
        of_sources(images.rule_sources())?
    } else {
        return Ok(None);
    };
    let (base, payload) = input::cluster(&args.cluster)?;
    let node = Node::of_objects(objects, &base, payload.or(release).as_ref()).map_err(|error| match error {
        Unusable::Refused(problems) => Failure::from(problems),
        Unusable::Unloadable(error) => Problem::of_file(error.code, &error.file, error.cause).into(),
    })?;
    Ok(Some(Rules::of(node)))
}

/// The rules in dumps that hold other things too.
fn of_sources(sources: &[String]) -> Result<Objects, Failure> {
    let mut files = Vec::new();
    for source in sources {
        let path = PathBuf::from(source);
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.len());
        if source == input::STDIN || size > MAX_RULE_SOURCE_BYTES {
            return Err(Failure::usage(
                format!("`{source}` holds rules, and cannot be read a second time for them"),
                "dump the rules into a file of their own (`oc get idms,itms -o yaml > rules.yaml`), and name it with --rules",
            ));
        }
        files.push((source.clone(), input::text(&path)?));
    }
    Ok(Objects::load_with(&files, Others::Ignore).map_err(|Problems(problems)| {
        Problems(problems.into_iter().filter(|p| p.severity == airlock_rules::Severity::Error).collect())
    })?)
}

fn suggest(path: &std::path::Path, audit: &Audit) -> Result<(), Failure> {
    let text = suggested_objects(audit.findings(), "airlock-suggested");
    if text.is_empty() {
        eprintln!("there is nothing to suggest; `{}` is not written", path.display());
        return Ok(());
    }
    input::write(path, &text).map_err(|e| Error::io(format!("write `{}`", path.display()), &e))?;
    eprintln!("wrote `{}`: look at the mirrors in it before it is applied", path.display());
    Ok(())
}

/// Written piece by piece: a document of all users of all images need not lie in memory.
fn json(document: &impl serde::Serialize) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let written = serde_json::to_writer_pretty(&mut out, document).map_err(std::io::Error::from);
    match written.and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::io("write to stdout", &e).into()),
        _ => Ok(()),
    }
}
