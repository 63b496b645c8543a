//! Who may do what in which repositories: lines of a file.
//!
//! ```text
//! # who          where           what
//! mirror         **              pull,push
//! cluster        openshift/**    pull
//! @users         scratch/*       pull,push,delete
//! @anonymous     public/app      pull
//! admin          **              admin
//! ```
//!
//! `@users` is everybody with a password, `@anonymous` everybody. `*` stands for one component of a name, `**` at its end for one or more,
//! alone for every repository. `admin` is all of pull, push and delete. A right exists where some line gives it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::{Error, ErrorKind, Repository};

use super::{Action, Subject};

/// How often the file's time stamp is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The rights of a file. Cheap to clone; looked at again when the file has changed.
#[derive(Clone)]
pub struct Rights(Arc<Inner>);

struct Inner {
    path: Option<PathBuf>,
    rules: RwLock<(Arc<Rules>, Option<SystemTime>)>,
    looked: Mutex<Instant>,
}

/// The lines, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    who: Who,
    place: Vec<String>,
    pull: bool,
    push: bool,
    delete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Anybody,
    Users,
    User(String),
}

impl Rights {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (rules, modified) = read(path)?;
        Ok(Self::new(Some(path.to_owned()), rules, modified))
    }

    /// Takes the text of such a file.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self::new(None, Rules::parse(text)?, None))
    }

    fn new(path: Option<PathBuf>, rules: Rules, modified: Option<SystemTime>) -> Self {
        let rules = RwLock::new((Arc::new(rules), modified));
        Self(Arc::new(Inner { path, rules, looked: Mutex::new(Instant::now()) }))
    }

    /// The lines as they are now.
    pub(crate) async fn rules(&self) -> Arc<Rules> {
        self.look_again().await;
        self.0.rules.read().unwrap_or_else(PoisonError::into_inner).0.clone()
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
        let known = self.0.rules.read().unwrap_or_else(PoisonError::into_inner).1;
        let changed = tokio::task::spawn_blocking(move || {
            let modified = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
            (modified != known).then(|| read(&path))
        });
        match changed.await {
            Ok(None) | Err(_) => {}
            Ok(Some(Ok((rules, modified)))) => {
                *self.0.rules.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(rules), modified);
                tracing::info!("the file of rights was read again");
            }
            Ok(Some(Err(e))) => {
                tracing::warn!(error = %e, "the changed file of rights cannot be read; the old rights stay");
            }
        }
    }
}

fn read(path: &Path) -> Result<(Rules, Option<SystemTime>), Error> {
    let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let what = || format!("read `{}`", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| Error::io(what(), &e))?;
    Ok((Rules::parse(&text).map_err(|e| e.context(what()))?, modified))
}

impl Rules {
    fn parse(text: &str) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let wrong = |cause: String| {
                Error::new(ErrorKind::Invalid, format!("read line {} of the file of rights", number + 1), cause)
                    .hint("a line is `USER REPOSITORIES RIGHTS`, such as `mirror openshift/** pull,push`")
            };
            let (who, place, what) = match words[..] {
                [] => continue,
                [who, place, what] => (who, place, what),
                _ => return Err(wrong(format!("it has {} words, not three", words.len()))),
            };
            let who = match who {
                "@anonymous" => Who::Anybody,
                "@users" => Who::Users,
                _ if who.starts_with('@') => {
                    return Err(wrong(format!("`{who}` is neither `@users` nor `@anonymous`")));
                }
                name => Who::User(name.to_owned()),
            };
            let mut rule = Rule { who, place: pattern(place).map_err(wrong)?, pull: false, push: false, delete: false };
            for right in what.split(',') {
                match right {
                    "pull" => rule.pull = true,
                    "push" => rule.push = true,
                    "delete" => rule.delete = true,
                    "admin" => (rule.pull, rule.push, rule.delete) = (true, true, true),
                    _ => return Err(wrong(format!("`{right}` is none of pull, push, delete and admin"))),
                }
            }
            rules.push(rule);
        }
        Ok(Self(rules))
    }

    /// Whether some line lets the subject do this in the repository (`None`: in any at all).
    pub(crate) fn allow(&self, subject: &Subject, action: Action, repository: Option<&Repository>) -> bool {
        self.0.iter().any(|rule| {
            let is_meant = match (&rule.who, subject) {
                (Who::Anybody, _) | (Who::Users, Subject::User(_)) => true,
                (Who::User(name), Subject::User(user)) => name == user,
                (Who::Users | Who::User(_), Subject::Anonymous) => false,
            };
            let has_right = match action {
                Action::Ping => true,
                Action::Pull => rule.pull,
                Action::Push => rule.push,
                Action::Delete => rule.delete,
            };
            is_meant && has_right && repository.is_none_or(|repository| matches(&rule.place, repository))
        })
    }

    /// Whether the subject may do this everywhere.
    pub(crate) fn allow_everywhere(&self, subject: &Subject, action: Action) -> bool {
        let everywhere: Vec<Rule> = self.0.iter().filter(|rule| rule.place == ["**"]).cloned().collect();
        Self(everywhere).allow(subject, action, None)
    }
}

fn pattern(text: &str) -> Result<Vec<String>, String> {
    let words: Vec<&str> = text.split('/').collect();
    for (number, word) in words.iter().enumerate() {
        match *word {
            "*" => {}
            "**" if number + 1 == words.len() => {}
            "**" => return Err(format!("in `{text}` the `**` is not at the end")),
            word if Repository::new(word).is_ok() => {}
            word => return Err(format!("`{word}` in `{text}` is no component of a repository's name")),
        }
    }
    Ok(words.into_iter().map(str::to_owned).collect())
}

fn matches(pattern: &[String], repository: &Repository) -> bool {
    let mut components = repository.as_str().split('/');
    for (number, word) in pattern.iter().enumerate() {
        let Some(component) = components.next() else { return false };
        if word == "**" && number + 1 == pattern.len() {
            return true;
        }
        if word != "*" && word != component {
            return false;
        }
    }
    components.next().is_none()
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Rights({})", rules.0.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_components() {
        for (text, yes, no) in [
            ("**", &["a", "a/b", "a/b/c"][..], &[][..]),
            ("a", &["a"], &["b", "a/b", "aa"]),
            ("a/*", &["a/b"], &["a", "a/b/c", "b/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "ab/c", "b"]),
            ("*/x", &["a/x"], &["x", "a/b/x"]),
        ] {
            let pattern = pattern(text).unwrap();
            for name in yes {
                assert!(matches(&pattern, &Repository::new(name).unwrap()), "{text} {name}");
            }
            for name in no {
                assert!(!matches(&pattern, &Repository::new(name).unwrap()), "{text} {name}");
            }
        }
    }

    #[test]
    fn a_right_exists_only_where_a_line_gives_it() {
        let text = "# first\nanna a/** pull,push # hers\n@users b pull\n@anonymous c pull\nroot ** admin\n";
        let rules = Rules::parse(text).unwrap();
        let user = |name: &str| Subject::User(name.into());
        let name = |n: &str| Repository::new(n).unwrap();
        use Action::{Delete, Pull, Push};
        for (subject, action, repository, allowed) in [
            (user("anna"), Push, "a/x", true),
            (user("anna"), Delete, "a/x", false),
            (user("anna"), Push, "b", false),
            (user("anna"), Pull, "b", true),
            (user("anna"), Pull, "c", true),
            (user("bert"), Pull, "a/x", false),
            (user("bert"), Pull, "b", true),
            (Subject::Anonymous, Pull, "b", false),
            (Subject::Anonymous, Pull, "c", true),
            (Subject::Anonymous, Push, "c", false),
            (user("root"), Delete, "anything/at/all", true),
        ] {
            assert_eq!(
                rules.allow(&subject, action, Some(&name(repository))),
                allowed,
                "{subject:?} {action:?} {repository}"
            );
        }
        assert!(rules.allow_everywhere(&user("root"), Pull) && !rules.allow_everywhere(&user("anna"), Pull));
        for bad in [
            "anna",
            "anna ** pull extra",
            "@all ** pull",
            "anna ** fly",
            "anna a/**/b pull",
            "anna A pull",
            "anna /a pull",
        ] {
            assert!(Rules::parse(bad).unwrap_err().to_string().contains("line 1"), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rights");
        std::fs::write(&path, "anna ** pull\n").unwrap();
        let rights = Rights::read(&path).unwrap();
        let anna = Subject::User("anna".into());
        assert!(!rights.rules().await.allow(&anna, Action::Push, None));
        std::fs::write(&path, "anna ** pull,push\n").unwrap();
        tokio::time::sleep(LOOK_AGAIN + Duration::from_millis(50)).await;
        assert!(rights.rules().await.allow(&anna, Action::Push, None));
        std::fs::write(&path, "nonsense\n").unwrap();
        tokio::time::sleep(LOOK_AGAIN + Duration::from_millis(50)).await;
        assert!(rights.rules().await.allow(&anna, Action::Push, None), "what cannot be read changes nothing");
    }
}
