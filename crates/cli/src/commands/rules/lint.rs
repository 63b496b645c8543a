//! `airlock rules lint`.

use std::path::Path;

use airlock_oci::Error;
use airlock_rules::convert::images::list;
use airlock_rules::lint::{CATALOGUE, Files, Finding, Input, catalogue, fixed, lint, report, without_allowed};
use airlock_rules::objects::Other;
use airlock_rules::problem::code;
use airlock_rules::yaml::{self, Node};
use airlock_rules::{Objects, Others, Problem, Problems, Severity};
use base64::Engine;

use crate::args::rules::{LintArgs, LintFormat, Profile};
use crate::commands::rules::input::Given;
use crate::commands::rules::{input, observe};
use crate::exit::Failure;
use crate::output::{self, Format};

/// The exit code where findings are denied.
const DENIED: u8 = 1;

/// What makes the command fail.
struct Deny {
    severity: Severity,
    codes: Vec<&'static str>,
}

/// Findings that are not wanted.
struct Allow {
    code: &'static str,
    pattern: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: &LintArgs) -> Result<u8, Failure> {
    if let Some(code) = &args.explain {
        let text = report::explanation(code).ok_or_else(|| unknown(code))?;
        output::text(&text)?;
        return Ok(0);
    }
    let deny = deny(&args.deny)?;
    let allow = args.allow.iter().map(|text| allow(text)).collect::<Result<Vec<_>, _>>()?;
    let mut input = read(args)?;
    if args.check_mirror {
        input.observed = observe::observe(&input, args).await?;
    }
    let mut findings = wanted(&input, &allow);
    if args.fix {
        let changed = fix(&input.objects, &findings)?;
        if changed > 0 {
            eprintln!("{changed} files changed");
            let observed = std::mem::take(&mut input.observed);
            input = read(args)?;
            input.observed = observed;
            findings = wanted(&input, &allow);
        }
    }
    print(&findings, args.output)?;
    let denied = findings.iter().filter(|f| f.severity >= deny.severity || deny.codes.contains(&f.id)).count();
    let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
    eprintln!(
        "{} errors, {} warnings, {} for information",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Information)
    );
    Ok(if denied > 0 { DENIED } else { 0 })
}

fn unknown(code: &str) -> Failure {
    let last = CATALOGUE[CATALOGUE.len() - 1].code;
    Failure::usage(format!("`{code}` is no code and no severity"), format!("codes are {} to {last}", CATALOGUE[0].code))
}

fn deny(words: &[String]) -> Result<Deny, Failure> {
    let mut deny = Deny { severity: Severity::Error, codes: Vec::new() };
    for word in words {
        let severity = match word.to_ascii_lowercase().as_str() {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            "information" => Severity::Information,
            _ => {
                deny.codes.push(catalogue::find(word).ok_or_else(|| unknown(word))?.code);
                continue;
            }
        };
        deny.severity = deny.severity.min(severity);
    }
    Ok(deny)
}

fn allow(text: &str) -> Result<Allow, Failure> {
    let (code, pattern) = match text.split_once(':') {
        Some((code, pattern)) => (code, Some(pattern.to_owned())),
        None => (text, None),
    };
    Ok(Allow { code: catalogue::find(code).ok_or_else(|| unknown(code))?.code, pattern })
}

fn wanted(input: &Input, allow: &[Allow]) -> Vec<Finding> {
    let (mut findings, left_out) = without_allowed(&input.objects, lint(input));
    let before = findings.len();
    findings.retain(|finding| !allow.iter().any(|allow| allow.covers(finding)));
    let left_out = left_out + before - findings.len();
    if left_out > 0 {
        eprintln!("{left_out} findings allowed");
    }
    findings
}

impl Allow {
    fn covers(&self, finding: &Finding) -> bool {
        let matches = |pattern: &String| {
            finding.source.as_ref().is_some_and(|source| glob(pattern, source))
                || glob(&format!("*{pattern}*"), &finding.message)
        };
        self.code == finding.id && self.pattern.as_ref().is_none_or(matches)
    }
}

/// Whether a text matches a pattern in which `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn print(findings: &[Finding], format: LintFormat) -> Result<(), Failure> {
    match format {
        LintFormat::Table => output::text(&findings.iter().map(report::lines).collect::<String>()),
        LintFormat::Json => output::value(Format::Json, &findings).map(|_| ()),
        LintFormat::Yaml => output::value(Format::Yaml, &findings).map(|_| ()),
        LintFormat::Sarif => {
            output::value(Format::Json, &report::sarif(findings, env!("CARGO_PKG_VERSION"))).map(|_| ())
        }
    }
}

/// Writes the changed files; standard input cannot be changed.
fn fix(objects: &Objects, findings: &[Finding]) -> Result<usize, Failure> {
    let mut written = 0;
    for (at, text) in fixed(objects, findings) {
        let name = &objects.files[at].name;
        if &**name == input::STDIN {
            return Err(Failure::usage("standard input cannot be changed", "give the file's name to `--fix`"));
        }
        let path = Path::new(&**name);
        input::write(path, &text).map_err(|e| Failure::from(Error::io(format!("write `{name}`"), &e)))?;
        eprintln!("fixed {name}");
        written += 1;
    }
    Ok(written)
}

fn read(args: &LintArgs) -> Result<Input, Failure> {
    let mut files = input::given(&args.files)?;
    if let Some(path) = &args.cluster.image_config {
        files.push(Given { name: path.display().to_string(), text: input::text(path)?, found: false });
    }
    // Lint knows two kinds more than rendering, and no others.
    let all = files.iter().map(|file| (file.name.as_str(), file.text.as_str(), Others::Keep));
    let (mut objects, mut problems) = Objects::read_each(all);
    let (known, unknown): (Vec<Other>, Vec<Other>) =
        objects.others.drain(..).partition(|other| other.kind == "MachineConfig" || other.kind == "ConfigMap");
    let (found, named): (Vec<Other>, Vec<Other>) = unknown.into_iter().partition(|other| files[other.file].found);
    problems.extend(named.iter().map(|other| objects.other_kind(other)));
    objects.others = found;
    input::pass_over(&objects, &mut problems);
    objects.others = known;
    let (base, payload) = input::cluster(&args.cluster)?;
    let images = match &args.images {
        None => None,
        Some(path) => {
            let name = path.display().to_string();
            let (images, bad) = list(&name, &input::text(path)?);
            if let Some(first) = bad.first() {
                let problem = Problem::of_file(code::VALUE, &name, format!("{}: {}", first.at, first.message));
                return Err(problem.hint("one image a line, comments begin with #").into());
            }
            Some((name, images))
        }
    };
    let trusted_ca = match &args.trusted_ca {
        Some(path) => Some(keys_of(path, &["data"])?),
        None => named_ca(&objects),
    };
    let input = Input {
        base: args.cluster.base.is_some().then_some(base),
        payload,
        images,
        registries_conf: args.registries_conf.as_deref().map(|path| conf(path, args.dropins.as_deref())).transpose()?,
        pull_secret: args.pull_secret.as_deref().map(pull_secret).transpose()?,
        trusted_ca,
        current: args.current.as_ref().map(|path| input::objects(std::slice::from_ref(path), None)).transpose()?,
        values: args
            .values
            .as_deref()
            .map(|p| Ok::<_, Failure>((p.display().to_string(), input::text(p)?)))
            .transpose()?,
        observed: Vec::new(),
        nested_paths: args.max_nested_paths.iter().map(|text| nested(text)).collect::<Result<_, _>>()?,
        connected: args.profile == Profile::Connected,
        objects,
        problems,
    };
    let unreadable = input.unreadable();
    if unreadable.is_empty() { Ok(input) } else { Err(Problems(unreadable).into()) }
}

fn nested(text: &str) -> Result<(String, usize), Failure> {
    text.split_once('=')
        .and_then(|(host, n)| Some((host.to_owned(), n.parse().ok().filter(|n| *n > 0)?)))
        .ok_or_else(|| Failure::usage(format!("`--max-nested-paths {text}`"), "write HOST=N, such as registry.lab=2"))
}

fn conf(path: &Path, dropins: Option<&Path>) -> Result<Files, Failure> {
    Ok(Files {
        main: (path.display().to_string(), input::text(path)?),
        dropins: dropins.map(input::dropins).transpose()?.unwrap_or_default(),
    })
}

/// The keys of a mapping in a YAML or JSON file.
fn keys_of(path: &Path, at: &[&str]) -> Result<Vec<String>, Failure> {
    let text = input::text(path)?;
    let (roots, faults) = yaml::read(&text);
    let name = path.display().to_string();
    if let Some(fault) = faults.first() {
        return Err(Problem::at(fault.code, &name, &text, fault.mark, fault.message.clone()).into());
    }
    let found = roots.first().and_then(|root| root.at(at)).and_then(Node::as_map);
    let Some(entries) = found else {
        return Err(Problem::of_file(code::MISSING, &name, format!("`{}` is missing", at.join("."))).into());
    };
    Ok(entries.iter().map(|(key, _)| key.text.clone()).collect())
}

/// The keys of the ConfigMap that the image configuration names, if it is among the files.
fn named_ca(objects: &Objects) -> Option<Vec<String>> {
    let name = objects.image.as_ref()?.trusted_ca.as_ref()?;
    let map = objects.others.iter().find(|other| other.kind == "ConfigMap" && other.name == name.value)?;
    Some(map.node.get("data")?.as_map()?.iter().map(|(key, _)| key.text.clone()).collect())
}

/// The hosts of a pull secret: of a docker config, or of a Secret around one. Nothing else of it is kept, and what is wrong
/// with it is told without a line of it.
fn pull_secret(path: &Path) -> Result<Vec<String>, Failure> {
    let text = input::text(path)?;
    let fail = |what: &str| {
        Failure::from(
            Problem::of_file(code::SYNTAX, &path.display().to_string(), what)
                .hint("expected {\"auths\": {…}} or the Secret around it"),
        )
    };
    let (roots, faults) = yaml::read(&text);
    let (Some(root), true) = (roots.first(), faults.is_empty()) else { return Err(fail("not JSON and not YAML")) };
    let hosts = |root: &Node| {
        let entries = root.get("auths").and_then(Node::as_map)?;
        Some(entries.iter().map(|(key, _)| host_key(&key.text)).collect::<Vec<_>>())
    };
    if let Some(found) = hosts(root) {
        return Ok(found);
    }
    const KEY: &str = ".dockerconfigjson";
    let inner = match (root.at(&["stringData", KEY]), root.at(&["data", KEY])) {
        (Some(plain), _) => plain.as_scalar().map(str::to_owned),
        (None, Some(encoded)) => encoded.as_scalar().and_then(|encoded| {
            let compact: String = encoded.split_whitespace().collect();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(compact).ok()?).ok()
        }),
        (None, None) => None,
    };
    let inner = inner.ok_or_else(|| fail("no `auths` in it"))?;
    let (roots, _) = yaml::read(&inner);
    roots.first().and_then(hosts).ok_or_else(|| fail("no `auths` in its .dockerconfigjson"))
}

/// Old tools write keys as URLs.
fn host_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    bare.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        assert!(glob("quay.io/*", "quay.io/a") && glob("*a*c", "abc") && glob("a", "a"));
        assert!(!glob("quay.io", "quay.io/a") && !glob("a*b", "ac"));
    }
}
