//! Users of the machine: the one that the service runs as, when root installs it.

use std::os::unix::fs::{MetadataExt, chown};
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

/// Gives a file or folder to an owner, unless it is theirs.
pub(super) fn give(path: &Path, (user, group): Owner) -> Result<(), Error> {
    let given = std::fs::metadata(path).and_then(|about| {
        if (about.uid(), about.gid()) == (user, group) { Ok(()) } else { chown(path, Some(user), Some(group)) }
    });
    given.map_err(|e| Error::io(format!("change the owner of `{}`", path.display()), &e))
}
