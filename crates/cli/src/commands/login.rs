//! `airlock login`, `airlock logout`.

use std::io::{BufRead, IsTerminal};

use airlock_client::Secret;
use airlock_oci::{Error, ErrorKind};

use crate::args::registries::{LoginArgs, LogoutArgs, Side};
use crate::exit::Failure;
use crate::progress::Look;

/// Tries the credentials, then keeps them.
pub(crate) async fn login(args: LoginArgs, look: Look) -> Result<u8, Failure> {
    let registry = args.registry.trim_start_matches("docker://").trim_end_matches('/').to_owned();
    let username = match &args.username {
        Some(username) => username.clone(),
        None => ask("Username: ")?,
    };
    let password = match (&args.password, args.password_stdin) {
        (Some(password), _) => password.clone(),
        (None, true) => read_line()?,
        (None, false) => {
            return Err(Failure::usage(
                "no password",
                "use --password-stdin: printf %s \"$PASSWORD\" | airlock login --username NAME --password-stdin HOST",
            ));
        }
    };
    let side = Side { cert_dir: args.cert_dir.clone(), ..Side::default() };
    let options = args.common.options(&side, &[])?;
    let kept =
        airlock_client::auth::login::login(options, &registry, &username, &Secret::new(password.as_str())).await?;
    if !look.quiet {
        eprintln!("logged in to {registry}; credentials kept in {}", kept.path.display());
    }
    Ok(0)
}

/// Forgets credentials.
pub(crate) async fn logout(args: LogoutArgs) -> Result<u8, Failure> {
    let registry = args.registry.trim_start_matches("docker://").trim_end_matches('/');
    match airlock_client::auth::login::logout(args.authfile.clone(), registry).await? {
        Some(kept) => {
            eprintln!("removed the credentials of {registry} from {}", kept.path.display());
            Ok(0)
        }
        None => {
            Err(Error::new(ErrorKind::NotFound, format!("log out of `{registry}`"), "no credentials are kept for it")
                .into())
        }
    }
}

fn ask(prompt: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("no user name", "add --username NAME"));
    }
    eprint!("{prompt}");
    read_line()
}

fn read_line() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Failure::from(Error::io("read standard input", &e)))?;
    let line = line.trim_end_matches(['\r', '\n']).to_owned();
    if line.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "read standard input", "it is empty").into());
    }
    Ok(line)
}
