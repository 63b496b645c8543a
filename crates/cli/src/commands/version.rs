//! `airlock version`.

use serde::Serialize;

use crate::args::VersionArgs;
use crate::exit::Failure;
use crate::output;

/// The program's version.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    archive_format: u32,
    platform: String,
}

/// Prints the version.
pub(crate) fn run(args: &VersionArgs) -> Result<u8, Failure> {
    let version = Version {
        version: VERSION,
        archive_format: 1,
        platform: format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    };
    if !output::value(args.output, &version)? {
        output::text(&format!("airlock {} ({}, archive format 1)\n", version.version, version.platform))?;
    }
    Ok(0)
}
