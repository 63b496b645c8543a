//! `airlock registry user`: the users of an htpasswd file. A registry that serves with it notices within a second.

use std::io::Read;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::{Password, PasswordFile};
use serde::Serialize;

use super::blocking;
use crate::args::registry::{UserArgs, UserCommand};
use crate::exit::Failure;
use crate::output;

/// Bytes of a password's line at most.
const MAX_LINE_BYTES: u64 = 4096;

#[derive(Serialize)]
struct Users {
    users: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: UserArgs) -> Result<u8, Failure> {
    let path = match args.htpasswd {
        Some(path) => path,
        None => super::installed::places::htpasswd()?.unwrap_or_else(|| "htpasswd".into()),
    };
    let file = PasswordFile::at(&path);
    match args.command {
        UserCommand::Add { name, password_stdin } => {
            let given = password(password_stdin)?;
            blocking(move || file.add(&name, &given.0).map(|()| given)).await.and_then(tell).map_err(Failure::from)
        }
        UserCommand::Passwd { name, password_stdin } => {
            let given = password(password_stdin)?;
            let changed = blocking(move || file.change_password(&name, &given.0).map(|()| given)).await;
            changed.and_then(tell).map_err(Failure::from)
        }
        UserCommand::Remove { name } => {
            blocking(move || file.remove(&name)).await?;
            Ok(0)
        }
        UserCommand::List { output: form } => {
            // A file that is yet to be made may be added to; that a wrong name has no users would be a lie.
            if !path.exists() {
                let what = format!("list the users of `{}`", path.display());
                let error = Error::new(ErrorKind::NotFound, what, "there is no such file");
                return Err(error.hint("name the file with --htpasswd; `airlock registry user add` makes one").into());
            }
            let users = blocking(move || file.names()).await?;
            if !output::value(form, &Users { users: users.clone() })? {
                let rows: Vec<Vec<String>> = users.into_iter().map(|name| vec![name]).collect();
                output::text(&output::table(&["USER"], &rows))?;
            }
            Ok(0)
        }
    }
}

/// The password from standard input, or a generated one, and which of the two.
fn password(from_stdin: bool) -> Result<(Password, bool), Failure> {
    if !from_stdin {
        return Ok((Password::generate()?, true));
    }
    let mut text = String::new();
    std::io::stdin()
        .take(MAX_LINE_BYTES)
        .read_to_string(&mut text)
        .map_err(|e| Error::io("read the password from standard input", &e))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok((Password::new(line.strip_suffix('\r').unwrap_or(line))?, false))
}

/// A generated password is data: it goes to standard output, once.
fn tell((password, generated): (Password, bool)) -> Result<u8, Error> {
    if generated {
        output::text(&format!("{}\n", password.reveal()))
            .map_err(|_| Error::new(ErrorKind::Io, "tell the password", "standard output cannot be written"))?;
    }
    Ok(0)
}
