//! `airlock cluster pull-secret show|add|remove|merge|diff`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use airlock_rules::pull_secret::{self, Action, Change, Conflict, Listing, PullSecret};
use serde::Serialize;

use crate::args::cluster::{
    AddArgs, DiffArgs, EditArgs, MergeArgs, PullSecretArgs, PullSecretCommand, RemoveArgs, ShowArgs,
};
use crate::commands::rules::input;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format, table};

/// Longest password, in bytes; tokens of some registries have four thousand.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

/// What `show -o json` prints.
#[derive(Serialize)]
struct Shown {
    entries: Vec<Listing>,
    problems: Vec<ProblemLine>,
}

/// A problem as data.
#[derive(Serialize)]
struct ProblemLine {
    code: &'static str,
    severity: &'static str,
    line: u32,
    column: u32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// Runs the verb.
pub(super) async fn run(args: PullSecretArgs) -> Result<u8, Failure> {
    match args.command {
        PullSecretCommand::Show(args) => show(args).await,
        PullSecretCommand::Add(args) => add(args).await,
        PullSecretCommand::Remove(args) => remove(args).await,
        PullSecretCommand::Merge(args) => merge(args).await,
        PullSecretCommand::Diff(args) => diff(args).await,
    }
}

/// Reads a file, or standard input.
fn read(path: &Path) -> Result<PullSecret, Failure> {
    let name = path.display().to_string();
    let failed = |e: &std::io::Error| {
        let error = Error::io(format!("read `{name}`"), e).hint("give a credential file, or a Secret that holds one");
        Failure::Coded(error, Exit::Usage.code())
    };
    let mut bytes = Vec::new();
    let limit = pull_secret::MAX_BYTES + 1;
    if name == input::STDIN {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    } else {
        let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
        file.take(limit).read_to_end(&mut bytes).map_err(|e| failed(&e))?;
    }
    if bytes.len() as u64 == limit {
        return Err(Failure::usage(format!("`{name}` is larger than 4 MiB"), "that is no credential file"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("`{name}` is not UTF-8 text"), "a credential file is JSON"))?;
    Ok(PullSecret::parse(&name, &text)?)
}

async fn show(args: ShowArgs) -> Result<u8, Failure> {
    #[cfg(feature = "cluster")]
    let secret = match &args.file {
        Some(file) => read(file)?,
        None => live::read(&args.live.kube).await?.secret,
    };
    #[cfg(not(feature = "cluster"))]
    let secret = read(args.file.as_deref().unwrap_or(Path::new(input::STDIN)))?;
    let pushes = args.pushes.as_deref().map(read).transpose()?;
    let problems = secret.check(pushes.as_ref());
    let line = |p: &airlock_rules::Problem| ProblemLine {
        code: p.code,
        severity: p.severity.as_str(),
        line: p.line,
        column: p.column,
        message: p.message.clone(),
        hint: p.hint.as_deref().map(str::to_owned),
    };
    let shown = Shown { entries: secret.listings(), problems: problems.iter().map(line).collect() };
    if !output::value(args.output, &shown)? {
        let login = |l: &Listing| match l.login {
            pull_secret::Login::Password => "password",
            pull_secret::Login::Token => "token",
            pull_secret::Login::None => "-",
        };
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { clean(text) };
        let rows: Vec<Vec<String>> = shown
            .entries
            .iter()
            .map(|l| {
                vec![
                    clean(&l.registry),
                    or_dash(&l.user),
                    login(l).to_owned(),
                    or_dash(&l.email),
                    or_dash(&l.same_as.join(", ")),
                ]
            })
            .collect();
        output::text(&table(&["REGISTRY", "USER", "LOGIN", "E-MAIL", "SAME CREDENTIAL AS"], &rows))?;
        super::warn(&problems);
    }
    Ok(0)
}

async fn add(args: AddArgs) -> Result<u8, Failure> {
    let password = password(&args)?;
    let (from, edit) = (args.from, args.edit);
    change(from.as_deref(), &edit, |secret| {
        Ok(vec![secret.add(&args.registry, &args.username, &password, args.email.as_deref())?])
    })
    .await
}

async fn remove(args: RemoveArgs) -> Result<u8, Failure> {
    change(args.from.as_deref(), &args.edit, |secret| {
        let mut changes = Vec::new();
        for registry in &args.registries {
            match secret.remove(registry) {
                Some(change) => changes.push(change),
                None => {
                    let error =
                        Error::new(ErrorKind::NotFound, format!("remove `{registry}`"), "there is no such entry");
                    return Err(error.hint("`airlock cluster pull-secret show` lists what there is").into());
                }
            }
        }
        Ok(changes)
    })
    .await
}

async fn merge(args: MergeArgs) -> Result<u8, Failure> {
    let conflict = match (args.replace, args.keep) {
        (true, _) => Conflict::Replace,
        (_, true) => Conflict::Keep,
        _ => Conflict::Refuse,
    };
    let mut files = args.files.clone();
    // Into a cluster's secret all are merged; otherwise the first is what the others are merged into.
    #[cfg(feature = "cluster")]
    let first = if args.edit.live.live { None } else { Some(files.remove(0)) };
    #[cfg(not(feature = "cluster"))]
    let first = Some(files.remove(0));
    let others: Vec<(String, PullSecret)> =
        files.iter().map(|f| Ok((f.display().to_string(), read(f)?))).collect::<Result<_, Failure>>()?;
    let read_only = args.read_only.as_deref().map(read).transpose()?;
    change(first.as_deref(), &args.edit, |secret| {
        let before = secret.clone();
        for (name, other) in &others {
            secret.merge(other, conflict).map_err(|conflicts| {
                let differ: Vec<String> = conflicts.0.iter().map(|c| format!("{} ({})", c.registry, c.fields.join(", "))).collect();
                Failure::usage(
                    format!("`{name}` has other credentials than the files before it for {}", differ.join(", ")),
                    "add --replace for those of the later file, or --keep for those of the earlier; nothing was written",
                )
            })?;
        }
        if let Some(read_only) = &read_only {
            // Replacing cannot fail.
            let _ = secret.merge(read_only, Conflict::Replace);
        }
        Ok(before.diff(secret))
    })
    .await
}

async fn diff(args: DiffArgs) -> Result<u8, Failure> {
    let old = read(&args.old)?;
    #[cfg(feature = "cluster")]
    let new = match &args.new {
        Some(new) => read(new)?,
        None => live::read(&args.live.kube).await?.secret,
    };
    #[cfg(not(feature = "cluster"))]
    let new = read(args.new.as_deref().unwrap_or(Path::new(input::STDIN)))?;
    let changes = old.diff(&new);
    list(&changes, args.output)?;
    Ok(if changes.is_empty() { 0 } else { Exit::Gap.code() })
}

/// Reads, changes, and writes in one step, or says what would be written.
async fn change(
    from: Option<&Path>,
    edit: &EditArgs,
    apply: impl FnOnce(&mut PullSecret) -> Result<Vec<Change>, Failure>,
) -> Result<u8, Failure> {
    if edit.to.as_deref().is_some_and(|to| to.as_os_str() == input::STDIN) {
        return Err(Failure::usage("secrets are not written to standard output", "name a file with --to"));
    }
    #[cfg(feature = "cluster")]
    let at = if edit.live.live { Some(live::read(&edit.live.kube).await?) } else { None };
    #[cfg(feature = "cluster")]
    let taken = at.as_ref().map(|at| at.secret.clone());
    #[cfg(not(feature = "cluster"))]
    let taken: Option<PullSecret> = None;
    let mut secret = match (taken, from, &edit.to) {
        (Some(_), Some(_), _) => {
            return Err(Failure::usage(
                "--live and --from say two things",
                "what is changed is the cluster's, or the file",
            ));
        }
        (Some(secret), None, _) => secret,
        (None, Some(from), _) => read(from)?,
        (None, None, Some(to)) if to.exists() => read(to)?,
        (None, None, _) => PullSecret::empty(),
    };
    let changes = apply(&mut secret)?;
    let pushes = edit.pushes.as_deref().map(read).transpose()?;
    let pushing = secret.check(pushes.as_ref()).into_iter().filter(|p| p.code == pull_secret::code::PUSHES);
    super::warn(&pushing.collect::<Vec<_>>());
    list(&changes, edit.output)?;
    if edit.dry_run {
        eprintln!("dry run: nothing was written");
        return Ok(0);
    }
    if let Some(to) = &edit.to {
        write(to, &if edit.as_secret { secret.to_secret() } else { secret.to_json() })?;
        eprintln!("wrote {}", to.display());
        return Ok(0);
    }
    #[cfg(feature = "cluster")]
    if let Some(at) = at {
        if changes.iter().all(|c| c.action == Action::Changed && c.fields.is_empty()) {
            eprintln!("the cluster's pull secret is as it should be");
            return Ok(0);
        }
        live::write(&at, &secret).await?;
    }
    Ok(0)
}

fn list(changes: &[Change], format: Format) -> Result<(), Failure> {
    if output::value(format, &changes)? {
        return Ok(());
    }
    if changes.is_empty() {
        eprintln!("no difference");
        return Ok(());
    }
    let row = |change: &Change| {
        let action = match change.action {
            Action::Added => "added",
            Action::Removed => "removed",
            Action::Changed if change.fields.is_empty() => "unchanged",
            Action::Changed => "changed",
        };
        let what = if change.fields.is_empty() { "-".to_owned() } else { clean(&change.fields.join(", ")) };
        vec![clean(&change.registry), action.to_owned(), what]
    };
    output::text(&table(&["REGISTRY", "CHANGE", "WHAT"], &changes.iter().map(row).collect::<Vec<_>>()))
}

/// A password without the line break at its end.
fn password(args: &AddArgs) -> Result<String, Failure> {
    let mut text = String::new();
    let (what, read) = match &args.password_file {
        Some(path) => {
            let file = std::fs::File::open(path);
            (
                format!("read `{}`", path.display()),
                file.and_then(|f| f.take(MAX_PASSWORD_BYTES).read_to_string(&mut text)),
            )
        }
        None => (
            "read standard input".to_owned(),
            std::io::stdin().lock().take(MAX_PASSWORD_BYTES).read_to_string(&mut text),
        ),
    };
    read.map_err(|e| Failure::Coded(Error::io(what.clone(), &e), Exit::Usage.code()))?;
    let text = text.trim_end_matches(['\r', '\n']).to_owned();
    if text.is_empty() {
        let hint = "printf %s \"$PASSWORD\" | airlock cluster pull-secret add --password-stdin …";
        return Err(Failure::usage(format!("{what}: the password is empty"), hint));
    }
    Ok(text)
}

/// Writes beside, syncs, renames; only the owner may read it. A link stays a link.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let path: PathBuf = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    });
    written.map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        Error::io(format!("write `{}`", path.display()), &e).into()
    })
}

/// A terminal must not obey what a file says.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(feature = "cluster")]
mod live {
    //! The secret of a cluster.

    use airlock_oci::{Error, ErrorKind};
    use airlock_rules::pull_secret::{CLUSTER_SECRET, PullSecret, SECRET_KEY};
    use base64::Engine as _;
    use serde_json::{Value, json};

    use crate::args::cluster::KubeArgs;
    use crate::cluster::Cluster;
    use crate::exit::Failure;

    /// The secret as it was read, and from where.
    pub(super) struct Live {
        pub(super) secret: PullSecret,
        cluster: Cluster,
        version: String,
    }

    fn path() -> String {
        let (namespace, name) = CLUSTER_SECRET;
        format!("/api/v1/namespaces/{namespace}/secrets/{name}")
    }

    pub(super) async fn read(kube: &KubeArgs) -> Result<Live, Failure> {
        let cluster = Cluster::connect(kube).await?;
        let (namespace, name) = CLUSTER_SECRET;
        let what = || format!("read the secret {namespace}/{name} of {}", cluster.server());
        let Some(text) = cluster.get(&path()).await? else {
            let error = Error::new(ErrorKind::NotFound, what(), "there is no such secret");
            return Err(error.hint("every OpenShift cluster has it: is this one?").into());
        };
        let secret = PullSecret::parse(&format!("{namespace}/{name}"), &text)?;
        let object: Value = serde_json::from_str(&text).map_err(|e| Error::new(ErrorKind::Server, what(), e))?;
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        Ok(Live { secret, cluster, version })
    }

    /// Refused by the cluster where somebody changed it since it was read.
    pub(super) async fn write(at: &Live, secret: &PullSecret) -> Result<(), Failure> {
        let data = base64::engine::general_purpose::STANDARD.encode(secret.to_json());
        let mut patch = json!({ "data": { SECRET_KEY: data } });
        if !at.version.is_empty() {
            patch["metadata"] = json!({ "resourceVersion": at.version });
        }
        at.cluster.patch(&path(), &patch).await?;
        eprintln!(
            "changed the pull secret of {}: nodes take it over without being drained or rebooted",
            at.cluster.server()
        );
        Ok(())
    }
}
