//! `airlock cluster ca`.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::Path;

use airlock_oci::Error;
use airlock_rules::ca::{self, Authorities};
use airlock_rules::problem::Severity;
use airlock_rules::scope;

use crate::args::cluster::CaArgs;
use crate::commands::rules::input;
use crate::exit::{Exit, Failure};
use crate::output;

/// Runs the verb.
pub(super) async fn run(args: CaArgs) -> Result<u8, Failure> {
    if let Some(path) = &args.check {
        return check(&args, path);
    }
    let mut authorities = Authorities::default();
    for entry in &args.hosts {
        let Some((host, path)) = entry.split_once('=') else {
            return Err(Failure::usage(
                format!("`{entry}` is not of the form HOST=FILE"),
                format!("write `{entry}=ca.crt`, with the file that holds the mirror's certificates"),
            ));
        };
        authorities.add(host, &certificates(Path::new(path))?)?;
    }
    if let Some(path) = &args.update_service {
        authorities.set_update_service(&certificates(path)?);
    }
    #[cfg(feature = "cluster")]
    if args.live {
        return live(&args, &authorities).await;
    }
    if args.patch {
        output::text(&format!("{}\n", ca::image_patch(&args.name)))?;
        return Ok(0);
    }
    let (map, image) = (authorities.config_map(&args.name), ca::image_object(&args.name));
    let Some(folder) = &args.to else {
        output::text(&format!("{map}---\n{image}"))?;
        return Ok(0);
    };
    for (name, text) in [("ca-config-map.yaml", &map), ("image-config.yaml", &image)] {
        let path = folder.join(name);
        input::write(&path, text).map_err(|e| Error::io(format!("write `{}`", path.display()), &e))?;
        eprintln!("wrote {}", path.display());
    }
    eprintln!("next: airlock cluster resources apply --dry-run {}", folder.display());
    Ok(0)
}

fn certificates(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|f| f.take(ca::MAX_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| Failure::Coded(Error::io(format!("read `{name}`"), &e), Exit::Usage.code()))?;
    Ok(ca::certificates(&name, &bytes)?)
}

/// Looks at an existing ConfigMap.
fn check(args: &CaArgs, path: &Path) -> Result<u8, Failure> {
    let text = input::text(path)?;
    let mut mirrors = BTreeSet::new();
    if !args.rules.is_empty() {
        let objects = input::objects(&args.rules, None)?;
        for (_, _, entry) in objects.entries() {
            mirrors.extend(entry.mirrors.iter().map(|mirror| scope::host(&mirror.value).to_owned()));
        }
    }
    let hosts: Vec<&str> = mirrors.iter().map(String::as_str).collect();
    let problems = ca::check(&path.display().to_string(), &text, &hosts, args.expect_update_service);
    super::warn(&problems);
    let wrong = problems.iter().any(|p| p.severity == Severity::Error);
    let gap = problems.iter().any(|p| p.code == ca::code::MISSING);
    Ok(if wrong {
        Exit::Usage.code()
    } else if gap {
        Exit::Gap.code()
    } else {
        0
    })
}

#[cfg(feature = "cluster")]
async fn live(args: &CaArgs, authorities: &Authorities) -> Result<u8, Failure> {
    use crate::cluster::usage::IMAGE_CONFIG;
    use crate::cluster::{Change, Cluster};

    let path = format!("/api/v1/namespaces/{}/configmaps/{}", ca::NAMESPACE, args.name);
    if args.dry_run {
        output::text(&format!("{path}\n{IMAGE_CONFIG}\n"))?;
        eprintln!("dry run: nothing was written");
        return Ok(0);
    }
    let cluster = Cluster::connect(&args.kube).await?;
    cluster.apply(&path, &authorities.config_map_value(&args.name), Change::default()).await?;
    output::text(&format!("configmap/{} applied in {}\n", args.name, ca::NAMESPACE))?;
    cluster.patch(IMAGE_CONFIG, &ca::image_patch(&args.name)).await?;
    output::text("image.config.openshift.io/cluster patched\n")?;
    Ok(0)
}
