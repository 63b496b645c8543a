//! `airlock rules resolve`.

use std::path::Path;

use airlock_oci::registries_conf::{Config, LoadError};
use airlock_rules::resolve::{Answer, Attempt, Explained, Node};

use crate::args::rules::ResolveArgs;
use crate::commands::rules::input;
use crate::exit::{Exit, Failure};
use crate::output;

/// Nothing can be tried at all: the class, and the words for people.
struct Unusable {
    class: String,
    message: String,
}

/// Runs the verb.
pub(crate) fn run(args: &ResolveArgs) -> Result<u8, Failure> {
    let node = match &args.registries_conf {
        Some(path) => of_files(path, args.dropins.as_deref())?,
        None => of_objects(args)?,
    };
    let answers: Vec<Answer> = match &node {
        Ok(node) => args.references.iter().map(|reference| node.resolve(reference)).collect(),
        Err(e) => args.references.iter().map(|r| Answer::failed(r, &e.class, e.message.clone())).collect(),
    };
    if !output::value(args.output, &answers)? && node.is_ok() {
        let shown: Vec<String> = answers.iter().map(lines).collect();
        output::text(&shown.join("\n"))?;
    }
    if let Err(unusable) = &node {
        eprintln!("{}", unusable.message);
    }
    Ok(if answers.iter().any(Answer::has_error) { Exit::Usage.code() } else { 0 })
}

fn of_files(path: &Path, dropins: Option<&Path>) -> Result<Result<Node, Unusable>, Failure> {
    let unloadable = |error: LoadError| Unusable { class: error.code.to_owned(), message: format!("error: {error}") };
    if !path.exists() && path.as_os_str() != input::STDIN {
        return Ok(Err(unloadable(LoadError::missing(path.display().to_string()))));
    }
    let text = input::text(path)?;
    let dropins = dropins.map(input::dropins).transpose()?.unwrap_or_default();
    Ok(Config::parse(Some(&text), &dropins).map(Node::of_config).map_err(|mut error| {
        if error.file == airlock_oci::registries_conf::MAIN_FILE {
            error.file = path.display().to_string();
        }
        unloadable(error)
    }))
}

fn of_objects(args: &ResolveArgs) -> Result<Result<Node, Unusable>, Failure> {
    let objects = input::objects(&args.rules, args.cluster.image_config.as_deref())?;
    let (base, payload) = input::cluster(&args.cluster)?;
    Ok(Node::of_objects(objects, &base, payload.as_ref())
        .map_err(|e| Unusable { class: e.class().to_owned(), message: e.to_string() }))
}

/// One answer for people.
fn lines(answer: &Answer) -> String {
    let mut out = format!("{}\n", answer.reference);
    if let Some(error) = &answer.error {
        out.push_str(&format!("  {error}\n"));
    }
    if answer.tag_and_digest_input == Some(true) {
        out.push_str("  the tag does not count beside a digest\n");
    }
    for candidate in answer.candidates.iter().flatten() {
        candidate_lines(&mut out, candidate);
    }
    out
}

fn candidate_lines(out: &mut String, candidate: &Explained) {
    let prefix = candidate.matched_prefix.as_deref().map_or_else(|| "no rule".to_owned(), |p| format!("rule `{p}`"));
    out.push_str(&format!("  {} ({prefix})\n", candidate.reference));
    if candidate.policy == Some("reject") {
        out.push_str("    policy.json rejects the name: it does not run, wherever it is pulled from\n");
    }
    if let Some(error) = &candidate.error {
        out.push_str(&format!("    {error}\n"));
    }
    for (at, attempt) in candidate.endpoints.iter().flatten().enumerate() {
        attempt_lines(out, at + 1, attempt);
    }
    for mirror in &candidate.passed_over {
        let from: Vec<String> = mirror.from.iter().map(ToString::to_string).collect();
        let from = if from.is_empty() { String::new() } else { format!("; from {}", from.join(", ")) };
        out.push_str(&format!("    -  {} not tried: {}{from}\n", mirror.location, mirror.why));
    }
}

fn attempt_lines(out: &mut String, number: usize, attempt: &Attempt) {
    let mark = if attempt.blocked { "x" } else { " " };
    out.push_str(&format!("    {number}{mark} {}\n       {}\n", attempt.reference, attempt.why));
    for place in &attempt.from {
        out.push_str(&format!("       from {place}\n"));
    }
}
