//! What is said of a run at its end: how it went, why what failed did, what was written, what to type next (ux.md 3.4). Twelve lines or so.

use std::path::Path;

use airlock_mirror::plan::catalogs::{OnMissing, Rules};
use airlock_mirror::report::{ErrorReport, ImageReport, Report, Status};
use airlock_mirror::run::{Settings, Workflow};
use serde_json::json;

use crate::args::mirror::MirrorArgs;
use crate::args::registries::{CommonArgs, SourceArgs, TargetArgs};
use crate::commands::shell;
use crate::output::size;
use crate::told;

/// Causes that are told, each once; the report has all.
const MAX_CAUSES: usize = 5;
/// Images that are named with a cause.
const MAX_NAMES: usize = 5;

/// Failures that have one cause.
struct Group<'a> {
    error: &'a ErrorReport,
    images: Vec<&'a ImageReport>,
}

/// Tells what came of a run.
pub(crate) fn tell(report: &Report, workflow: &Workflow, args: &MirrorArgs) {
    let done = report.images.iter().filter(|i| i.status == Status::Complete).count();
    let all = report.images.len();
    let bytes = format!("{} moved, {} there before", size(report.bytes.moved), size(report.bytes.reused));
    let text = match (report.dry_run, report.status) {
        (true, _) => format!("planned: {done} of {all} images, {}", size(report.bytes.planned)),
        (false, Status::Complete) => format!("complete: {done} images, {bytes}"),
        (false, Status::Partial) => format!("partial: {done} of {all} images, {bytes}"),
        (false, Status::Failed) => {
            format!("failed: {} of {all} images", if done == 0 { "none".into() } else { done.to_string() })
        }
        (false, Status::Interrupted) => format!("interrupted: {done} of {all} images, {bytes}"),
    };
    if told::is_json() {
        told::event_unless_quiet(&json!({
            "event": "summary", "status": report.status, "dryRun": report.dry_run, "done": done, "images": all,
            "bytes": report.bytes, "text": text,
        }));
    } else {
        told::say("summary", &text);
    }
    causes(report.failures());
    if let Some(archive) = &report.archive {
        let text = format!("archive {} ({}), {} parts", archive.sequence, archive.identity, archive.parts.len());
        told::say("archive", &text);
    }
    // As events they were told when they were written.
    for file in report.files.iter().filter(|_| !told::is_json()) {
        told::say("wrote", &format!("wrote {file}"));
    }
    for line in next_steps(report, workflow, args) {
        told::say("next", &if told::is_json() { line } else { format!("next: {line}") });
    }
}

/// Tells every cause once, with the images that it concerns.
pub(crate) fn causes<'a>(failures: impl Iterator<Item = &'a ImageReport>) {
    let failed: Vec<&ImageReport> = failures.filter(|i| !i.errors.is_empty()).collect();
    let (withheld, failed): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|i| i.errors.iter().all(ErrorReport::is_withheld));
    let groups = groups(&failed);
    for group in groups.iter().take(MAX_CAUSES) {
        told::error(&group.error.code, &group.text(), group.error.hint.as_deref());
    }
    if groups.len() > MAX_CAUSES {
        let more = groups.len() - MAX_CAUSES;
        told::error("more", &format!("{more} other causes are in the report"), None);
    }
    if let Some(why) = withheld.first().and_then(|i| i.errors.first()) {
        told::error(&why.code, &format!("{} images were {}", withheld.len(), why.cause), why.hint.as_deref());
    }
}

fn groups<'a>(failed: &[&'a ImageReport]) -> Vec<Group<'a>> {
    let mut groups: Vec<(String, Group<'a>)> = Vec::new();
    for image in failed {
        for error in &image.errors {
            let key = format!("{} {}", error.code, masked(&error.cause));
            match groups.iter_mut().find(|(known, _)| *known == key) {
                // One image fails by one cause once, however many of its layers do.
                Some((_, group)) if group.images.iter().any(|known| std::ptr::eq(*known, *image)) => {}
                Some((_, group)) => group.images.push(image),
                None => groups.push((key, Group { error, images: vec![image] })),
            }
        }
    }
    // What concerns most comes first; the order is otherwise that of the report.
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.images.len()));
    groups.into_iter().map(|(_, group)| group).collect()
}

/// A cause without what differs from image to image: of names in backquotes their host is left, of digests nothing.
fn masked(cause: &str) -> String {
    let words = cause.split_inclusive([' ', '`', ',', ';', '(', ')']).map(|word| {
        let bare = word.trim_end_matches([' ', '`', ',', ';', '(', ')', ':']);
        match bare.split_once('/') {
            Some((host, _)) => format!("{host}/…{}", &word[bare.len()..]),
            None if bare.contains("sha256:") || bare.contains("sha512:") => format!("…{}", &word[bare.len()..]),
            None => word.to_owned(),
        }
    });
    words.collect()
}

impl Group<'_> {
    fn text(&self) -> String {
        let named = |image: &&ImageReport| {
            let place = image.reasons.first().map_or_else(String::new, |r| format!(" ({}:{})", r.file, r.line));
            format!("`{}`{place}", image.name)
        };
        if let [image] = &self.images[..] {
            return format!("{}: {}", named(image), self.error.cause);
        }
        let mut names: Vec<String> = self.images.iter().take(MAX_NAMES).map(named).collect();
        if self.images.len() > MAX_NAMES {
            names.push(format!("and {} more in the report", self.images.len() - MAX_NAMES));
        }
        format!("{} images, such as: {} [{}]", self.images.len(), self.error.cause, names.join(", "))
    }
}

fn next_steps(report: &Report, workflow: &Workflow, args: &MirrorArgs) -> Vec<String> {
    let config = shell(&report.config);
    if report.dry_run {
        return vec!["run the same command without --dry-run".into()];
    }
    let retry = report.files.iter().find(|f| f.ends_with("report.json")).map(|f| {
        let flags = flags(&args.common, Some(&args.source), Some(&args.target));
        format!("when the cause is mended: airlock mirror --retry {}{flags}", shell(f))
    });
    match report.status {
        Status::Interrupted => vec!["run the same command again: it goes on where it stopped".into()],
        Status::Failed => retry.into_iter().collect(),
        Status::Partial | Status::Complete => {
            let mut steps: Vec<String> =
                (report.status == Status::Partial).then_some(retry).flatten().into_iter().collect();
            match workflow {
                Workflow::ToDisk { directory } => {
                    let from = shell(&format!("file://{}", directory.display()));
                    steps.push(format!(
                        "carry {} to the other side, then: airlock mirror -c {config} --from {from}{} docker://HOST:PORT",
                        shell(&directory.display().to_string()),
                        choice(&report.retry.settings)
                    ));
                }
                Workflow::FromDisk { .. } | Workflow::ToRegistry { .. } => {
                    if let Some(file) = report.files.iter().find(|f| f.contains("cluster-resources/")) {
                        let folder = Path::new(file).parent().unwrap_or(Path::new("."));
                        steps.push(format!("oc apply -f {}", shell(&folder.display().to_string())));
                    }
                    steps.extend(
                        report.releases.iter().map(|r| format!("to update a cluster to {}: {}", r.version, r.update)),
                    );
                }
            }
            steps
        }
    }
}

/// The flags that say what of the image set is carried: without them a load would ask for something else than the archive was written for.
fn choice(settings: &Settings) -> String {
    let on_missing = match settings.on_missing {
        OnMissing::Skip => "",
        OnMissing::Keep => " --on-missing keep",
        OnMissing::Fail => " --on-missing fail",
    };
    let flags = [
        (settings.all_attachments, " --attachments all"),
        (settings.remove_signatures, " --remove-signatures"),
        (settings.selection == Rules::Head, " --selection head"),
        (settings.with_dependencies, " --with-dependencies"),
        (settings.minimal_path, " --minimal-path"),
    ];
    flags.iter().filter(|(given, _)| *given).map(|(_, flag)| *flag).chain([on_missing]).collect()
}

/// The flags by which registries were spoken to, as they must be typed again. Passwords are left to the user.
fn flags(common: &CommonArgs, source: Option<&SourceArgs>, target: Option<&TargetArgs>) -> String {
    let mut text = String::new();
    let mut add = |flag: &str, value: Option<String>| match value {
        Some(value) => text.push_str(&format!(" --{flag} {}", shell(&value))),
        None => text.push_str(&format!(" --{flag}")),
    };
    let path = |path: &std::path::PathBuf| Some(path.display().to_string());
    let verify = |side: &str, verify: bool| format!("{side}tls-verify={verify}");
    if let Some(file) = &common.authfile {
        add("authfile", path(file));
    }
    if common.insecure {
        add("insecure", None);
    }
    if let Some(check) = common.tls_verify {
        add(&verify("", check), None);
    }
    if let Some(file) = &common.registries_conf {
        add("registries-conf", path(file));
    }
    let sides = [
        source.map(|s| ("src-", s.src_tls_verify, &s.src_cert_dir, &s.src_authfile, s.src_no_creds, &s.src_creds)),
        target
            .map(|t| ("dest-", t.dest_tls_verify, &t.dest_cert_dir, &t.dest_authfile, t.dest_no_creds, &t.dest_creds)),
    ];
    for (side, check, cert_dir, authfile, anonymous, creds) in sides.into_iter().flatten() {
        if let Some(check) = check {
            add(&verify(side, check), None);
        }
        if let Some(directory) = cert_dir {
            add(&format!("{side}cert-dir"), path(directory));
        }
        if let Some(file) = authfile {
            add(&format!("{side}authfile"), path(file));
        }
        if anonymous {
            add(&format!("{side}no-creds"), None);
        }
        if creds.is_some() {
            add(&format!("{side}creds"), Some("USER:PASSWORD".into()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use airlock_mirror::plan::Kind;

    fn failed(name: &str, causes: &[&str]) -> ImageReport {
        let error = |cause: &&str| ErrorReport { code: "server".into(), cause: (*cause).into(), hint: None };
        ImageReport {
            name: name.into(),
            kind: Kind::Additional,
            destination: None,
            digest: None,
            status: Status::Failed,
            reasons: Vec::new(),
            errors: causes.iter().map(error).collect(),
        }
    }

    #[test]
    fn one_cause_is_told_once() {
        let cause = |host: &str, n: usize| {
            format!("pull blob `sha256:{n:064}` of `{host}/team/image{n}`: registry answered 502 Bad Gateway")
        };
        let mut images: Vec<ImageReport> = (0..37)
            .map(|n| failed(&format!("image{n}"), &[&cause("quay.io", n), &cause("quay.io", n + 100)]))
            .collect();
        images.push(failed("other", &[&cause("docker.io", 1)]));
        let groups = groups(&images.iter().collect::<Vec<_>>());
        assert_eq!(groups.iter().map(|g| g.images.len()).collect::<Vec<_>>(), [37, 1]);
        let text = groups[0].text();
        assert!(text.starts_with("37 images, such as: pull blob") && text.contains("`image4`"), "{text}");
        assert!(text.ends_with("and 32 more in the report]"), "{text}");
        assert!(groups[1].text().starts_with("`other`: pull blob"), "{}", groups[1].text());
    }

    #[test]
    fn what_was_typed_is_typed_again_and_no_secret() {
        let common = CommonArgs {
            authfile: Some("/a b/auth.json".into()),
            tls_verify: Some(false),
            registries_conf: Some("r.conf".into()),
            ..CommonArgs::default()
        };
        let target = TargetArgs { dest_creds: Some("me:secret".into()), ..TargetArgs::default() };
        let text = flags(&common, None, Some(&target));
        assert_eq!(
            text,
            " --authfile '/a b/auth.json' --tls-verify=false --registries-conf r.conf --dest-creds USER:PASSWORD"
        );
    }
}
