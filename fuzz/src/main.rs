//! `airlock-fuzz TARGET|all [--seconds N] [--seed N] [--keep]`: runs targets for a while; exit code 1 where one fails.
//!
//! `--keep` adds inputs that did something new to the corpus. A failing input is written to `fuzz/findings/`.

#![expect(clippy::print_stdout, reason = "a command line tool")]
#![expect(clippy::print_stderr, reason = "a command line tool")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use airlock_fuzz::{Target, corpus, corpus_folder, run, targets};
use airlock_oci::Digest;

/// Most inputs that a target's corpus is filled up to, and their largest size: it is read by people too.
const MAX_KEPT: usize = 32;
const MAX_KEPT_BYTES: usize = 2 * 1024;

struct Arguments {
    targets: Vec<Target>,
    seconds: u64,
    seed: u64,
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(message) => {
            let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
            eprintln!(
                "{message}\nusage: airlock-fuzz TARGET|all [--seconds N] [--seed N] [--keep]\ntargets: {}",
                names.join(", ")
            );
            return ExitCode::from(2);
        }
    };
    let mut failed = false;
    for target in &arguments.targets {
        match fuzz(target, &arguments) {
            Ok(found) => failed |= found,
            Err(error) => {
                eprintln!("{}: {error}", target.name);
                return ExitCode::from(2);
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let name = words.next().ok_or("which target?")?;
    let targets: Vec<Target> = targets::ALL.into_iter().filter(|t| name == "all" || t.name == name).collect();
    if targets.is_empty() {
        return Err(format!("unknown target `{name}`"));
    }
    let mut arguments = Arguments { targets, seconds: 60, seed: 1, keep: false };
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("`{word}` needs a number"))?;
            text.parse::<u64>().map_err(|e| format!("`{word} {text}`: {e}"))
        };
        match word.as_str() {
            "--seconds" => arguments.seconds = number()?,
            "--seed" => arguments.seed = number()?,
            "--keep" => arguments.keep = true,
            _ => return Err(format!("unknown option `{word}`")),
        }
    }
    Ok(arguments)
}

/// Whether something was found.
fn fuzz(target: &Target, arguments: &Arguments) -> std::io::Result<bool> {
    let folder = corpus_folder(target);
    let known = corpus(&folder)?;
    let mut report = run(target, &known, arguments.seed, Duration::from_secs(arguments.seconds));
    println!(
        "{}: {} inputs in {} s from {} of the corpus, {} with something new, seed {}: {}",
        target.name,
        report.executions,
        arguments.seconds,
        known.len(),
        report.discovered.len(),
        arguments.seed,
        if report.finding.is_some() { "FAILED" } else { "no finding" }
    );
    if let Some(finding) = &report.finding {
        let path = save(&Path::new(env!("CARGO_MANIFEST_DIR")).join("findings"), target.name, &finding.input)?;
        println!("  {}\n  input: {path}", finding.message);
    }
    if arguments.keep {
        report.discovered.retain(|input| input.len() <= MAX_KEPT_BYTES);
        // The latest came furthest: each grew out of earlier ones.
        let room = MAX_KEPT.saturating_sub(known.len());
        for input in report.discovered.iter().rev().take(room) {
            save(&folder, "found", input)?;
        }
    }
    Ok(report.finding.is_some())
}

fn save(folder: &Path, prefix: &str, input: &[u8]) -> std::io::Result<String> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{prefix}-{}", Digest::of(input).short()));
    std::fs::write(&path, input)?;
    Ok(path.display().to_string())
}
