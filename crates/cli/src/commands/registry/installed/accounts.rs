//! Users of the machine: the one that the service runs as, when root installs it.

use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;

use airlock_oci::{Error, ErrorKind};
use tokio::process::Command;

/// A user and its group, as numbers.
pub(super) type Owner = (u32, u32);

/// The numbers of a user; `None` where there is no such user.
pub(super) async fn owner(user: &str) -> Option<Owner> {
    let number = async |flag: &str| {
        let output = Command::new("id").args([flag, "--", user]).output().await.ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse::<u32>().ok()
    };
    Some((number("-u").await?, number("-g").await?))
}

/// Makes a user that nobody can log in as.
pub(super) async fn make(user: &str, home: &Path) -> Result<Owner, Error> {
    let what = || format!("make the user `{user}`");
    let hint = "make it yourself, or say who the registry is to run as with --service-user NAME";
    let output = Command::new("useradd")
        .args(["--system", "--user-group", "--no-create-home", "--shell", "/sbin/nologin", "--home-dir"])
        .arg(home)
        .args(["--comment", "Airlock registry", "--", user])
        .output()
        .await
        .map_err(|e| Error::io(what(), &e).hint(hint))?;
    match owner(user).await {
        Some(owner) if output.status.success() => Ok(owner),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Error::new(ErrorKind::Io, what(), format!("`useradd` says: {said}")).hint(hint))
        }
    }
}

/// Removes a user that [`make`] made.
pub(super) async fn remove(user: &str) -> Result<(), Error> {
    let what = || format!("remove the user `{user}`");
    let output = Command::new("userdel").args(["--", user]).output().await.map_err(|e| Error::io(what(), &e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Io, what(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Gives a file or folder to an owner, unless it is theirs. Never what a link leads to, nor a file that has another name elsewhere: the
/// folder may be the service's own, and whoever has the service must not get a file of root's for it.
pub(super) fn give(path: &Path, (user, group): Owner) -> Result<(), Error> {
    let what = || format!("change the owner of `{}`", path.display());
    let about = fs::symlink_metadata(path).map_err(|e| Error::io(what(), &e))?;
    let is_plain = about.is_dir() || about.is_file() && about.nlink() == 1;
    if !is_plain {
        return Err(Error::new(ErrorKind::Invalid, what(), "it is a link or has another name elsewhere")
            .hint("move it away, then try again"));
    }
    if (about.uid(), about.gid()) == (user, group) {
        return Ok(());
    }
    // Should it have become a link since, only the link changes hands.
    lchown(path, Some(user), Some(group)).map_err(|e| Error::io(what(), &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_is_given_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["secret", "twice"] {
            fs::write(at(name), "").unwrap();
        }
        std::os::unix::fs::symlink(at("secret"), at("link")).unwrap();
        fs::hard_link(at("twice"), at("again")).unwrap();
        let about = fs::metadata(at("secret")).unwrap();
        // Only root can give to another: for others it is seen that nothing is said to be given.
        let to = if about.uid() == 0 { (65534, 65534) } else { (about.uid(), about.gid()) };
        for name in ["link", "again"] {
            assert!(give(&at(name), to).is_err(), "{name}");
            let after = fs::metadata(at(name)).unwrap();
            assert_eq!((after.uid(), after.gid()), (about.uid(), about.gid()), "{name}");
        }
        for name in ["secret", "."] {
            give(&at(name), to).unwrap();
            assert_eq!(fs::metadata(at(name)).unwrap().uid(), to.0, "{name}");
        }
    }
}
