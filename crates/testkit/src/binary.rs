//! Runs the program under test as a user would: a home of its own, nothing of the machine's settings, a time limit, and an
//! account of what the process used, read from `/proc` while it runs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How often a running process is looked at.
const LOOK: Duration = Duration::from_millis(3);
/// How long a run may take unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(120);
/// `/proc/PID/stat` counts processor time in hundredths of a second on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// The program, and the small machine it believes to run on.
#[derive(Debug)]
pub struct Binary {
    program: PathBuf,
    home: Arc<TempDir>,
    env: BTreeMap<String, String>,
    timeout: Duration,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
    /// From start to end.
    pub wall: Duration,
    /// What the process used.
    pub usage: Usage,
}

/// What a process used, as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The most memory it held at once, in KiB.
    pub peak_rss_kib: u64,
    /// Processor time, in user and kernel mode.
    pub cpu: Duration,
    /// Bytes handed to write calls of every kind, sockets and pipes included.
    pub written: u64,
    /// Bytes that it caused to go to a disk.
    pub written_to_disk: u64,
    /// Bytes returned by read calls of every kind, sockets and pipes included.
    pub read: u64,
}

/// A run that was started and not waited for. Dropping it ends the process.
#[derive(Debug)]
pub struct Started {
    child: Child,
    began: Instant,
    usage: Usage,
    output: TempDir,
    /// The program may outlive the value that started it, and needs its home.
    _home: Arc<TempDir>,
}

impl Binary {
    /// The program at `program`, with an empty home.
    ///
    /// # Panics
    /// When no folder can be made.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let home = tempfile::Builder::new().prefix("airlock-home-").tempdir().expect("create a home");
        let path = home.path();
        let mut env = BTreeMap::new();
        for (name, folder) in [
            ("HOME", "home"),
            ("TMPDIR", "tmp"),
            ("XDG_CACHE_HOME", "home/.cache"),
            ("XDG_CONFIG_HOME", "home/.config"),
            ("XDG_DATA_HOME", "home/.local/share"),
            ("XDG_RUNTIME_DIR", "run"),
        ] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).expect("create a home");
            env.insert(name.to_owned(), folder.display().to_string());
        }
        env.insert("PATH".to_owned(), std::env::var("PATH").unwrap_or_default());
        fs::create_dir_all(path.join("work")).expect("create a working folder");
        Self { program: program.into(), home: Arc::new(home), env, timeout: TIMEOUT }
    }

    /// Sets a variable of the program's environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets several variables.
    #[must_use]
    pub fn envs(mut self, pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(pairs);
        self
    }

    /// Another time limit than two minutes.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The folder that the program is run in; it starts empty and goes with this value.
    pub fn folder(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// The program's `HOME`.
    pub fn home(&self) -> PathBuf {
        self.home.path().join("home")
    }

    /// Runs to the end.
    ///
    /// # Panics
    /// When the program cannot be started or takes too long; the message holds what it printed.
    pub fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        self.start(arguments).wait(self.timeout)
    }

    /// Runs to the end under another name of the program, which some programs take for an instruction.
    ///
    /// # Panics
    /// As [`Binary::run`].
    pub fn run_as(&self, name: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        let link = self.home.path().join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(&self.program, &link).expect("give the program another name");
        }
        self.spawn(&link, arguments).wait(self.timeout)
    }

    /// Runs and kills without warning after `after`. `Some` when the program was quicker.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn kill_after(
        &self,
        after: Duration,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Option<Outcome> {
        let mut started = self.start(arguments);
        while started.began.elapsed() < after {
            if started.ended() {
                return Some(started.wait(self.timeout));
            }
            thread::sleep(LOOK.min(after.saturating_sub(started.began.elapsed())));
        }
        None
    }

    /// Starts without waiting, for what runs until it is told to stop.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Started {
        self.spawn(&self.program, arguments)
    }

    fn spawn(&self, program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Started {
        let output = tempfile::tempdir().expect("create a folder for the output");
        // Files, not pipes: nobody has to read for the program to go on, and what it printed survives its death.
        let file = |name| File::create(output.path().join(name)).expect("create a file for the output");
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", program.display()));
        Started { child, began: Instant::now(), usage: Usage::default(), output, _home: Arc::clone(&self.home) }
    }
}

impl Started {
    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to its standard output.
    pub fn stdout(&self) -> String {
        self.printed("stdout")
    }

    /// What it has printed to its standard error.
    pub fn stderr(&self) -> String {
        self.printed("stderr")
    }

    /// Waits until `find` finds what it looks for in the output (standard output and error one after the other), and gives it.
    ///
    /// # Panics
    /// When the process ends, or two minutes pass, without it.
    pub fn until<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + TIMEOUT;
        loop {
            let ended = self.ended();
            if let Some(found) = find(&(self.stdout() + &self.stderr())) {
                return found;
            }
            let printed = || format!("it printed:\n{}{}", self.stdout(), self.stderr());
            assert!(!ended, "the program ended early; {}", printed());
            assert!(Instant::now() < end, "the program did not say it in two minutes; {}", printed());
            thread::sleep(LOOK);
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it takes longer than `timeout` from now on; the message holds what was printed.
    pub fn wait(mut self, timeout: Duration) -> Outcome {
        let called = Instant::now();
        while !self.ended() {
            let printed = || format!("it printed:\n{}{}", self.stdout(), self.stderr());
            assert!(called.elapsed() < timeout, "the program took longer than {timeout:?}; {}", printed());
            thread::sleep(LOOK);
        }
        let wall = self.began.elapsed();
        let status: ExitStatus = self.child.wait().expect("wait for the program");
        Outcome { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), wall, usage: self.usage }
    }

    /// Looks at the process: whether it has ended, and what it has used so far. It is not reaped here, because the kernel keeps
    /// the account only until then.
    fn ended(&mut self) -> bool {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let (state, cpu) = state_and_cpu(&folder);
        self.usage.cpu = self.usage.cpu.max(cpu);
        // Memory is gone when the process has ended, so the last look before that counts; it is a high-water mark.
        self.usage.peak_rss_kib = self.usage.peak_rss_kib.max(field(&folder.join("status"), "VmHWM:"));
        let io = folder.join("io");
        self.usage.written = self.usage.written.max(field(&io, "wchar:"));
        self.usage.written_to_disk = self.usage.written_to_disk.max(field(&io, "write_bytes:"));
        self.usage.read = self.usage.read.max(field(&io, "rchar:"));
        state == 'Z'
    }

    fn printed(&self, name: &str) -> String {
        let bytes = fs::read(self.output.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself, or been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Outcome {
    /// This outcome, when its exit code is `code`.
    ///
    /// # Panics
    /// When it is not; the message holds what was printed.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert!(
            self.code == Some(code),
            "the exit code is {:?}, not {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }
}

/// The state letter and the processor time of `/proc/PID/stat`. A process that is not there any more counts as ended.
fn state_and_cpu(folder: &Path) -> (char, Duration) {
    let text = fs::read_to_string(folder.join("stat")).unwrap_or_default();
    // The program's name is in parentheses and may hold anything; the fields begin after the last one.
    let Some((_, rest)) = text.rsplit_once(')') else { return ('Z', Duration::ZERO) };
    let fields: Vec<_> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or_default();
    let state = fields.first().and_then(|field| field.chars().next()).unwrap_or('Z');
    (state, TICK * (ticks(11) + ticks(12)))
}

/// The number after `name` at the start of a line.
fn field(path: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell() -> Binary {
        Binary::new("/bin/sh")
    }

    #[test]
    fn the_program_sees_its_own_home_and_nothing_else() {
        let shell = shell().env("GREETING", "hello");
        let outcome =
            shell.run(["-c", "echo $GREETING $HOME ${CARGO_MANIFEST_DIR:-none}; echo bad >&2; exit 7"]).expect_code(7);
        assert_eq!(outcome.stdout, format!("hello {} none\n", shell.home().display()));
        assert_eq!(outcome.stderr, "bad\n");
    }

    #[test]
    fn what_was_written_and_used_is_counted() {
        // Memory is looked at while it runs: at its end, for once, long enough.
        let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; printf '%01000d' 0; sleep 0.5";
        let usage = shell().run(["-c", script]).expect_code(0).usage;
        assert_eq!(usage.written, 1000);
        assert!(usage.cpu >= TICK, "{usage:?}");
        assert!(usage.peak_rss_kib > 100, "{usage:?}");
    }

    #[test]
    fn a_killed_run_leaves_no_outcome_and_a_quick_one_does() {
        assert!(shell().kill_after(Duration::from_millis(50), ["-c", "exec sleep 60"]).is_none());
        let quick = shell().kill_after(Duration::from_secs(60), ["-c", "exit 3"]).expect("it was quicker");
        assert_eq!(quick.code, Some(3));
    }

    #[test]
    #[should_panic(expected = "took longer than 5s; it printed:\nsleepy")]
    fn a_run_that_takes_too_long_fails_with_its_output() {
        shell().timeout(Duration::from_secs(5)).run(["-c", "echo sleepy; exec sleep 60"]);
    }
}
