//! Fuzzing on the stable compiler: every parser of foreign bytes against mutated inputs of a kept corpus.
//!
//! Coverage-guided fuzzers want a nightly compiler. Instead each target notes *features* of what it did (an error class, a
//! number of entries, which branch a result shows), and an input with a feature not seen before is mutated further: the same
//! feedback in a coarser grain. A target fails by panicking, on a broken property of its own or of the code under test, or by
//! taking too long. Runs repeat from their seed.
//!
//! ```text
//! cargo run -p airlock-fuzz -- all --seconds 60
//! ```

mod mutate;
pub mod targets;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Longest input that is tried, in bytes.
pub const MAX_INPUT_BYTES: usize = 16 * 1024;
/// No input of that size may take more of the processor's time.
pub const MAX_INPUT_TIME: Duration = Duration::from_secs(5);
/// Most inputs that are kept in memory for further mutation.
const MAX_POOL: usize = 4096;

/// One parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and that of its folder in the corpus.
    pub name: &'static str,
    /// Runs one input; panics where something is wrong, and notes what it did.
    pub run: fn(&[u8], &mut Features),
    /// Words of the format, which blind mutation would hardly ever find.
    pub words: &'static [&'static [u8]],
}

/// What one run of a target did.
#[derive(Debug, Default)]
pub struct Features(Vec<u64>);

impl Features {
    /// Notes one thing.
    pub fn note(&mut self, feature: impl Hash) {
        let mut hasher = DefaultHasher::new();
        feature.hash(&mut hasher);
        self.0.push(hasher.finish());
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// Number of inputs that were tried.
    pub executions: u64,
    /// Inputs with a feature that neither the corpus nor an earlier one had.
    pub discovered: Vec<Vec<u8>>,
    /// The first input that failed.
    pub finding: Option<Finding>,
}

/// An input on which the target failed.
#[derive(Debug)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// The panic's message, or how long it took.
    pub message: String,
}

/// The folder of a target's corpus, in the repository.
pub fn corpus_folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

/// All inputs of a folder, by name; none where there is no such folder.
pub fn corpus(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.iter().map(std::fs::read).collect()
}

/// Tries the corpus, then mutations of it until the time is over or something is found.
pub fn run(target: &Target, corpus: &[Vec<u8>], seed: u64, time: Duration) -> Report {
    let start = Instant::now();
    let mut mutator = Mutator::new(seed, target.words);
    let mut seen = HashSet::new();
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let mut report = Report { executions: 0, discovered: Vec::new(), finding: None };
    for input in corpus {
        report.executions += 1;
        match execute(target, input) {
            Ok(features) => seen.extend(features.0),
            Err(message) => {
                report.finding = Some(Finding { input: input.clone(), message });
                return report;
            }
        }
        pool.push(input.clone());
    }
    if pool.is_empty() {
        pool.push(Vec::new());
    }
    while start.elapsed() < time {
        let input = mutator.next(&pool);
        report.executions += 1;
        match execute(target, &input) {
            Ok(features) => {
                let known = seen.len();
                seen.extend(features.0);
                if seen.len() > known && pool.len() < MAX_POOL {
                    report.discovered.push(input.clone());
                    pool.push(input);
                }
            }
            Err(message) => {
                report.finding = Some(Finding { input, message });
                return report;
            }
        }
    }
    report
}

fn execute(target: &Target, input: &[u8]) -> Result<Features, String> {
    let start = Instant::now();
    let mut features = Features::default();
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut features)));
    let mut took = start.elapsed();
    if result.is_ok() && took > MAX_INPUT_TIME {
        // The machine may have been busy with others, or asleep: what it costs by itself shows when it is run again. Asking the kernel for
        // that around every input would take longer than most of them.
        let used = cpu_time();
        let again = catch_unwind(AssertUnwindSafe(|| (target.run)(input, &mut Features::default())));
        if let (Ok(()), Some(before), Some(after)) = (again, used, cpu_time()) {
            took = after.saturating_sub(before);
        }
    }
    match result {
        Ok(()) if took > MAX_INPUT_TIME => Err(format!("took {took:?} for {} bytes", input.len())),
        Ok(()) => Ok(features),
        Err(panic) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "panicked".to_owned())),
    }
}

/// The processor time that this thread has used, as Linux tells it; `None` elsewhere.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
