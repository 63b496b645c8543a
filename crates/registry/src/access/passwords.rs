//! Changes the users of an htpasswd file: adds, removes, gives new passwords. Other lines and comments stay as they are.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};

/// What guessing costs whoever gets hold of the file.
const COST: u32 = 10;
/// Fewest characters of a password.
const MIN_PASSWORD: usize = 8;
/// bcrypt looks at no more bytes than this.
const MAX_PASSWORD_BYTES: usize = 72;
/// Characters of a generated password.
const GENERATED: usize = 32;
/// What it is made of: nothing that looks like something else.
const ALPHABET: &[u8; 54] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ234567";

/// A file of users.
#[derive(Clone, Debug)]
pub struct PasswordFile(PathBuf);

/// A password that keeps to the rules. Never printed, except by whoever made it.
pub struct Password(String);

impl Password {
    /// Takes a password: at least eight characters, no white space, at most 72 bytes.
    pub fn new(text: &str) -> Result<Self, Error> {
        let wrong = |cause: &str| Err(Error::new(ErrorKind::Invalid, "take the password", cause));
        if text.chars().count() < MIN_PASSWORD {
            return wrong("it has fewer than eight characters");
        }
        if text.len() > MAX_PASSWORD_BYTES {
            return wrong("it has more than 72 bytes");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return wrong("it has white space in it");
        }
        Ok(Self(text.to_owned()))
    }

    /// Makes one of 32 letters and digits.
    pub fn generate() -> Result<Self, Error> {
        let mut text = String::with_capacity(GENERATED);
        while text.len() < GENERATED {
            let mut byte = [0];
            aws_lc_rs::rand::fill(&mut byte)
                .map_err(|_| Error::new(ErrorKind::Io, "make a password", "the system gives no random numbers"))?;
            // All are equally likely: what is left over of a byte's range is drawn again.
            let most = (256 / ALPHABET.len()) * ALPHABET.len();
            if usize::from(byte[0]) < most {
                text.push(char::from(ALPHABET[usize::from(byte[0]) % ALPHABET.len()]));
            }
        }
        Ok(Self(text))
    }

    /// The password itself, for the one who needs to know it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl PasswordFile {
    /// The file at a path; it need not be there yet.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn failed(&self, doing: &str, cause: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Invalid, format!("{doing} in `{}`", self.0.display()), cause.to_string())
    }

    /// The names of all users, as they stand in the file.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        Ok(self.text()?.lines().filter_map(name_of).map(str::to_owned).collect())
    }

    /// Adds a user. [`ErrorKind::Invalid`] when there is one of that name.
    pub fn add(&self, name: &str, password: &Password) -> Result<(), Error> {
        let doing = format!("add the user `{name}`");
        if name.is_empty()
            || name.starts_with(['@', '#'])
            || name.chars().any(|c| c == ':' || c.is_whitespace() || c.is_control())
        {
            let cause = "a name has no colon and no white space, and begins with neither `@` nor `#`";
            return Err(self.failed(&doing, cause));
        }
        let line = line(name, password)?;
        self.change(|lines| {
            if lines.iter().any(|line| name_of(line) == Some(name)) {
                return Err(self
                    .failed(&doing, "there is one of this name")
                    .hint("`passwd` gives a user a new password"));
            }
            lines.push(line);
            Ok(())
        })
    }

    /// Gives a user a new password. [`ErrorKind::NotFound`] when there is none of that name.
    pub fn change_password(&self, name: &str, password: &Password) -> Result<(), Error> {
        let new = line(name, password)?;
        self.change(|lines| {
            let line = lines.iter_mut().find(|line| name_of(line) == Some(name));
            *line.ok_or_else(|| self.unknown(name))? = new;
            Ok(())
        })
    }

    /// Removes a user. [`ErrorKind::NotFound`] when there is none of that name.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.change(|lines| {
            let before = lines.len();
            lines.retain(|line| name_of(line) != Some(name));
            if lines.len() == before { Err(self.unknown(name)) } else { Ok(()) }
        })
    }

    fn unknown(&self, name: &str) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("find the user `{name}` in `{}`", self.0.display()),
            "there is none of this name",
        )
    }

    fn text(&self) -> Result<String, Error> {
        match fs::read_to_string(&self.0) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.map_err(|e| Error::io(format!("read `{}`", self.0.display()), &e)),
        }
    }

    /// Changes the lines while nobody else does, and replaces the file at once; only its owner may read a new one.
    fn change(&self, change: impl FnOnce(&mut Vec<String>) -> Result<(), Error>) -> Result<(), Error> {
        let failed = |e: &std::io::Error| Error::io(format!("write `{}`", self.0.display()), e);
        let folder = match self.0.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let turn = File::open(folder).map_err(|e| failed(&e))?;
        turn.lock().map_err(|e| failed(&e))?;
        let mut lines: Vec<String> = self.text()?.lines().map(str::to_owned).collect();
        change(&mut lines)?;
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut beside = self.0.clone().into_os_string();
        beside.push(".new");
        let written = (|| {
            // One left by an interrupted run may have other permissions.
            let _ = fs::remove_file(&beside);
            let mut file = File::options().write(true).create_new(true).mode(0o600).open(&beside)?;
            if let Ok(metadata) = fs::metadata(&self.0) {
                // Root may change what another user's server has to read.
                let own = file.metadata()?;
                if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
                    fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
                }
                file.set_permissions(metadata.permissions())?;
            }
            file.write_all(text.as_bytes())?;
            file.sync_data()?;
            fs::rename(&beside, &self.0)?;
            turn.sync_all()
        })();
        written.map_err(|e| failed(&e))
    }
}

/// The user of a line; `None` for comments and empty lines.
fn name_of(line: &str) -> Option<&str> {
    let line = line.trim();
    if line.starts_with('#') { None } else { line.split_once(':').map(|(name, _)| name) }
}

fn line(name: &str, password: &Password) -> Result<String, Error> {
    let hash = bcrypt::hash(&password.0, COST).map_err(|e| Error::new(ErrorKind::Invalid, "take the password", e))?;
    Ok(format!("{name}:{hash}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{Users, Verdict};
    use super::*;

    async fn is_right(users: &Users, name: &str, password: &str) -> bool {
        users.verify(name, password, std::net::Ipv4Addr::LOCALHOST.into()).await == Verdict::Right
    }

    #[tokio::test]
    async fn users_come_change_and_go_and_other_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("htpasswd");
        let file = PasswordFile::at(&path);
        let password = |text: &str| Password::new(text).unwrap();
        assert_eq!(file.names().unwrap(), Vec::<String>::new());
        file.add("anna", &password("first password".replace(' ', "-").as_str())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, format!("# who\n\n{}", fs::read_to_string(&path).unwrap())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        file.add("bert", &password("12345678")).unwrap();
        assert_eq!(file.names().unwrap(), ["anna", "bert"]);
        assert_eq!(file.add("anna", &password("12345678")).unwrap_err().kind(), ErrorKind::Invalid);
        let users = Users::read(&path).unwrap();
        assert!(is_right(&users, "anna", "first-password").await && is_right(&users, "bert", "12345678").await);
        file.change_password("anna", &password("second-one")).unwrap();
        let users = Users::read(&path).unwrap();
        assert!(is_right(&users, "anna", "second-one").await && !is_right(&users, "anna", "first-password").await);
        file.remove("bert").unwrap();
        for error in [file.remove("bert"), file.change_password("bert", &password("12345678"))] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::NotFound);
        }
        assert_eq!(file.names().unwrap(), ["anna"]);
        assert!(fs::read_to_string(&path).unwrap().starts_with("# who\n\nanna:$2"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        for name in ["", "a:b", "a b", "@users", "#x", "a\nb"] {
            assert!(file.add(name, &password("12345678")).is_err(), "{name:?}");
        }
    }

    #[test]
    fn passwords_keep_to_the_rules() {
        for bad in ["", "1234567", "12345 678", "1234567\n", &"x".repeat(73)] {
            assert!(Password::new(bad).is_err(), "{bad:?}");
        }
        let (one, two) = (Password::generate().unwrap(), Password::generate().unwrap());
        assert!(one.reveal() != two.reveal() && Password::new(one.reveal()).is_ok());
        assert_eq!((one.reveal().len(), format!("{one:?}")), (32, "Password".to_owned()));
    }
}
