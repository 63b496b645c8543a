//! Users of an htpasswd file, bcrypt only.
//!
//! Clients send their password with every request, and bcrypt is slow on purpose: verified once, a pair is remembered for
//! some minutes, by an HMAC under a key of this process, so that neither passwords nor plain hashes of them lie in memory.
//! The file is looked at again when it has changed; then everything remembered is forgotten.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Error, ErrorKind};
use aws_lc_rs::hmac;
use tokio::sync::Semaphore;

use super::attempts::Attempts;

/// How long a verified password is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
/// Verified passwords remembered at most.
const MAX_REMEMBERED: usize = 4096;
/// Verifications at once: each takes one core for its time, and guessing must not take all of them.
const MAX_VERIFICATIONS: usize = 2;
/// How often the file's time stamp is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// bcrypt looks at no more bytes of a password than this; longer ones are refused rather than cut off silently.
const MAX_PASSWORD_BYTES: usize = 72;
/// The cost of the pretended verification where there is no user to take it from.
const PRETENDED_COST: u32 = 10;

/// The users of an htpasswd file. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    file: RwLock<File>,
    looked: Mutex<Instant>,
    key: hmac::Key,
    /// When each verified pair is to be forgotten.
    remembered: Mutex<HashMap<[u8; 32], Instant>>,
    verifications: Semaphore,
    attempts: Attempts,
}

/// What came of a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the user's.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// It was not looked at: too many were wrong; how long to wait.
    TooMany(Duration),
}

struct File {
    hashes: Arc<HashMap<String, String>>,
    modified: Option<SystemTime>,
    /// What an unknown user's password is compared with, so that it takes as long as a known one's.
    pretended: Arc<str>,
}

impl Users {
    /// Reads a file. Every line must be `name:hash` with a bcrypt hash; `#` begins a comment.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (text, modified) = read(path)?;
        let file = File::parse(&text, modified).map_err(|e| e.context(format!("read `{}`", path.display())))?;
        Self::new(Some(path.to_owned()), file)
    }

    /// Takes the text of such a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::new(None, File::parse(text, None)?)
    }

    fn new(path: Option<PathBuf>, file: File) -> Result<Self, Error> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &aws_lc_rs::rand::SystemRandom::new())
            .map_err(|_| Error::new(ErrorKind::Io, "prepare logins", "the system gives no random numbers"))?;
        Ok(Self(Arc::new(Inner {
            path,
            file: RwLock::new(file),
            looked: Mutex::new(Instant::now()),
            key,
            remembered: Mutex::default(),
            verifications: Semaphore::new(MAX_VERIFICATIONS),
            attempts: Attempts::default(),
        })))
    }

    /// Whether the password is the user's, who asks from this address. Wrong ones are answered late, and not at all when there were too many.
    pub(crate) async fn verify(&self, name: &str, password: &str, from: IpAddr) -> Verdict {
        self.look_again().await;
        let tag = self.tag(name, password);
        if self.is_remembered(&tag) {
            return Verdict::Right;
        }
        // One at a time from each address; many requests of one client wait here together, and the first of them does the work.
        let turn = self.0.attempts.turn(from);
        let Ok(turn) = turn.acquire().await else { return Verdict::Wrong };
        if self.is_remembered(&tag) {
            return Verdict::Right;
        }
        if let Some(wait) = self.0.attempts.blocked(from, name) {
            tracing::debug!(user = name, peer = %from, "too many wrong passwords");
            return Verdict::TooMany(wait);
        }
        if self.has(name, password).await {
            let mut remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if remembered.len() >= MAX_REMEMBERED {
                remembered.retain(|_, until| *until > Instant::now());
                if remembered.len() >= MAX_REMEMBERED {
                    remembered.clear();
                }
            }
            remembered.insert(tag, Instant::now() + REMEMBERED);
            return Verdict::Right;
        }
        tracing::warn!(user = name, peer = %from, "wrong user name or password");
        let delay = self.0.attempts.failed(from, name);
        drop(turn);
        tokio::time::sleep(delay).await;
        Verdict::Wrong
    }

    /// Whether the password is the user's, for who is no client of a server: nothing is counted and nothing is remembered.
    pub async fn has(&self, name: &str, password: &str) -> bool {
        password.len() <= MAX_PASSWORD_BYTES && self.matches(name, password).await
    }

    /// The slow comparison.
    async fn matches(&self, name: &str, password: &str) -> bool {
        let Ok(_turn) = self.0.verifications.acquire().await else { return false };
        let (hashes, pretended) = {
            let file = self.0.file.read().unwrap_or_else(PoisonError::into_inner);
            (file.hashes.clone(), file.pretended.clone())
        };
        let (known, hash) = match hashes.get(name) {
            Some(hash) => (true, hash.clone()),
            None => (false, pretended.to_string()),
        };
        let password = password.to_owned();
        let matches = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        known && matches.unwrap_or(false)
    }

    fn tag(&self, name: &str, password: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0.key);
        // The length keeps `a` + `bc` apart from `ab` + `c`.
        context.update(&(name.len() as u64).to_be_bytes());
        context.update(name.as_bytes());
        context.update(password.as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    fn is_remembered(&self, tag: &[u8; 32]) -> bool {
        let remembered = self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.get(tag).is_some_and(|until| *until > Instant::now())
    }

    async fn look_again(&self) {
        let Some(path) = self.0.path.clone() else { return };
        {
            let mut looked = self.0.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.elapsed() < LOOK_AGAIN {
                return;
            }
            *looked = Instant::now();
        }
        let known = self.0.file.read().unwrap_or_else(PoisonError::into_inner).modified;
        let read = tokio::task::spawn_blocking(move || {
            let modified = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
            if modified == known {
                return None;
            }
            Some(read(&path).and_then(|(text, modified)| File::parse(&text, modified)))
        });
        match read.await {
            Ok(None) | Err(_) => {}
            Ok(Some(Ok(file))) => {
                *self.0.file.write().unwrap_or_else(PoisonError::into_inner) = file;
                self.0.remembered.lock().unwrap_or_else(PoisonError::into_inner).clear();
                tracing::info!("the password file was read again");
            }
            // It may be in the middle of being written; what was read before stays valid until it can be read.
            Ok(Some(Err(e))) => tracing::warn!(error = %e, "the changed password file cannot be read"),
        }
    }
}

impl File {
    fn parse(text: &str, modified: Option<SystemTime>) -> Result<Self, Error> {
        let mut hashes = HashMap::new();
        let mut cost = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |cause: &str| {
                Error::new(ErrorKind::Invalid, format!("read line {} of the password file", number + 1), cause)
            };
            let (name, hash) = line.split_once(':').ok_or_else(|| wrong("expected `name:hash`"))?;
            if name.is_empty() {
                return Err(wrong("the user's name is empty"));
            }
            let parts = hash.parse::<bcrypt::HashParts>().ok();
            let Some(parts) = parts.filter(|_| ["$2a$", "$2b$", "$2y$"].iter().any(|p| hash.starts_with(p))) else {
                return Err(wrong(&format!("the hash of `{name}` is no bcrypt hash"))
                    .hint("make the line with `htpasswd -nbB NAME PASSWORD`; MD5, SHA-1 and crypt are not accepted"));
            };
            cost = cost.max(Some(parts.get_cost()));
            hashes.insert(name.to_owned(), hash.to_owned());
        }
        let pretended = bcrypt::hash("nobody's", cost.unwrap_or(PRETENDED_COST))
            .map_err(|e| Error::new(ErrorKind::Invalid, "read the password file", e))?;
        Ok(Self { hashes: Arc::new(hashes), modified, pretended: pretended.into() })
    }
}

fn read(path: &Path) -> Result<(String, Option<SystemTime>), Error> {
    let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(format!("read `{}`", path.display()), &e))?;
    Ok((text, modified))
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = self.0.file.read().unwrap_or_else(PoisonError::into_inner).hashes.len();
        write!(f, "Users({users})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn is_right(users: &Users, name: &str, password: &str) -> bool {
        users.verify(name, password, HERE).await == Verdict::Right
    }

    fn line(name: &str, password: &str, cost: u32) -> String {
        format!("{name}:{}\n", bcrypt::hash(password, cost).unwrap())
    }

    #[tokio::test]
    async fn a_verified_password_is_not_verified_again() {
        let users = Users::parse(&line("anna", "secret", 10)).unwrap();
        let start = Instant::now();
        assert!(is_right(&users, "anna", "secret").await);
        let first = start.elapsed();
        // The quickest of some: this machine may have been busy with others in the meantime, but hardly in each of them.
        let mut quickest = Duration::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            for _ in 0..100 {
                assert!(is_right(&users, "anna", "secret").await);
            }
            quickest = quickest.min(start.elapsed());
        }
        assert!(quickest < first, "a hundred of them in {quickest:?}, one in {first:?}");
        assert!(!is_right(&users, "ann", "asecret").await);
        assert!(!is_right(&users, "anna", &"x".repeat(73)).await);
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_old_passwords_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        std::fs::write(&path, format!("# users\n\n{}", line("anna", "old", 4))).unwrap();
        let users = Users::read(&path).unwrap();
        assert!(is_right(&users, "anna", "old").await);
        std::fs::write(&path, line("anna", "new", 4)).unwrap();
        tokio::time::sleep(LOOK_AGAIN + Duration::from_millis(50)).await;
        assert!(!is_right(&users, "anna", "old").await);
        assert!(is_right(&users, "anna", "new").await);
    }

    #[tokio::test]
    async fn who_guesses_waits_and_keeps_nobody_else_from_logging_in() {
        let users = Users::parse(&line("anna", "secret", 10)).unwrap();
        let elsewhere: IpAddr = "192.0.2.1".parse().unwrap();
        let guesses = (0..200).map(|number| {
            let users = users.clone();
            tokio::spawn(async move { users.verify("anna", &format!("guess-{number}"), elsewhere).await })
        });
        let guesses: Vec<_> = guesses.collect();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let begun = Instant::now();
        assert!(is_right(&users, "anna", "secret").await);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let mut refused = 0;
        for guess in guesses {
            match guess.await.unwrap() {
                Verdict::Right => panic!("a guess was right"),
                Verdict::Wrong => {}
                Verdict::TooMany(wait) => refused += usize::from(wait > Duration::ZERO),
            }
        }
        assert!(refused > 150, "{refused}");
        assert_eq!(users.verify("anna", "secret", elsewhere).await, Verdict::Right, "it is remembered");
    }

    #[test]
    fn other_hashes_are_refused_by_name_and_line() {
        for bad in ["anna:$apr1$x$y", "anna:{SHA}xyz", "anna:plain", "anna:$2y$10$short"] {
            let error = Users::parse(&format!("\n{bad}\n")).unwrap_err();
            assert!(error.to_string().contains("line 2") && error.to_string().contains("`anna`"), "{error}");
            assert!(error.hint_text().unwrap().contains("htpasswd"));
        }
        assert!(Users::parse("no colon").is_err());
        assert!(Users::parse(":x").is_err());
    }
}
