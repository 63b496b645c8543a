//! `airlock registry cert set|renew`: another certificate for a registry that goes on serving.

use std::time::{Duration, SystemTime};

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::{Probe, Root, Settings, Undo};
use airlock_registry::tls::facts::Facts;
use airlock_registry::tls::own::{Folder, Given};

use super::cluster::Cluster;
use super::install::{turn, write_cluster};
use super::prepare::check_given;
use super::{date, places, probe};
use crate::args::registry_install::{CertArgs, CertCommand, CertRenewArgs, CertSetArgs};
use crate::exit::{Exit, Failure};

/// How long a running registry may take to notice.
const NOTICE: Duration = Duration::from_secs(10);

/// Runs the verb.
pub(crate) async fn run(args: CertArgs) -> Result<u8, Failure> {
    match args.command {
        CertCommand::Set(args) => set(args).await,
        CertCommand::Renew(args) => renew(args).await,
    }
}

/// Whether the certificate could be served.
pub(super) fn check(args: &CertSetArgs, settings: &Settings) -> Result<Given, Failure> {
    let host = (!args.check_skip).then_some(settings.hostname.as_str());
    check_given(&args.cert, &args.key, args.ca.as_deref(), host)
}

pub(super) async fn set(args: CertSetArgs) -> Result<u8, Failure> {
    let (root, settings) = places::installed(args.root.as_deref())?;
    let given = check(&args, &settings)?;
    if given.authority.is_none() {
        eprintln!("warning: its CA is not in the file, so there is nothing for clusters to trust; --ca FILE says it");
    }
    change(&root, &settings, |folder| folder.put_given(&given)).await
}

async fn renew(args: CertRenewArgs) -> Result<u8, Failure> {
    let (root, settings) = places::installed(args.root.as_deref())?;
    let has_given = Folder::at(&root.tls()).given().exists();
    if has_given && !args.own {
        let what = "renew the certificate";
        let error = Error::new(ErrorKind::Refused, what, "it was given, and only its CA can renew it")
            .hint("`airlock registry cert set` takes the next one; `cert renew --own` goes back to one made here");
        return Err(Failure::Coded(error, Exit::Refused.code()));
    }
    change(&root, &settings, |folder| {
        folder.issue(&settings.names, SystemTime::now())?;
        folder.forget_given().map(drop)
    })
    .await
}

/// Changes the folder, and sees that a registry that runs shows the new certificate; otherwise puts the old one back.
async fn change(
    root: &Root,
    settings: &Settings,
    change: impl FnOnce(&Folder) -> Result<(), Error>,
) -> Result<u8, Failure> {
    let _turn = turn(root)?;
    let folder = Folder::at(&root.tls());
    let was_running = match probe(root, settings) {
        Ok(probe) => probe.ask(None).await.is_ok(),
        Err(_) => false,
    };
    let mut undo = Undo::default();
    for path in folder.all_files() {
        undo.watch(&path)?;
    }
    change(&folder)?;
    write_cluster(root, &Cluster::of(settings, folder.authority()?.as_deref())?, &mut undo)?;
    if was_running {
        let exact = Probe::exactly(settings.listen, &settings.hostname, &folder)?;
        let shown = exact.wait(None, NOTICE, async || None).await;
        shown.map_err(|e| {
            Error::new(e.kind(), "see the new certificate at the running registry", e.cause()).hint(
                "the old certificate is back; is the registry running with other flags than it was installed with?",
            )
        })?;
    }
    undo.keep();
    let facts = Facts::of(&folder.read()?.leaf()?)?;
    let until = date(facts.not_after);
    let how = if was_running { "new connections get it, open ones go on" } else { "it is served at the next start" };
    eprintln!("the certificate for {} is valid until {until}; {how}", facts.names.join(", "));
    Ok(0)
}
