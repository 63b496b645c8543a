//! The image from which an update service in a disconnected cluster takes the update graph's data (oc-mirror.md 5.7).
//!
//! It is a base image with one more layer, and a command that copies the data to where the service reads it:
//!
//! ```text
//! base (ubi9: a shell and cp)           stays as it is, is fetched from where it lies
//!   + /var/lib/cincinnati-graph-data/   version, channels/, blocked-edges/, raw/, LICENSE        GraphData
//!   + Cmd cp -rp … /var/lib/cincinnati/graph-data
//! ```
//!
//! The same data and the same base give the same digest: files are sorted, times are fixed; how it is put together is in [`crate::derived`].

mod data;
mod source;

use airlock_oci::Error;
use serde_json::json;

pub use crate::derived::{Base, Derived as GraphImage, Target};
use crate::derived::{Given, NewLayer, Recipe, derive};
pub use data::{DIRECTORY, GraphData, MAX_BYTES, MAX_FILES};
pub use source::GraphImageSource;

/// What runs in the image: the update service mounts an empty directory there (updates-and-releases.md 3.8).
pub const COMMAND: [&str; 3] =
    ["/bin/bash", "-c", "exec cp -rp /var/lib/cincinnati-graph-data/* /var/lib/cincinnati/graph-data"];
/// What the image's history says of our layer.
const CREATED_BY: &str = "airlock: the update graph's data";

/// Builds the graph image upon a base and writes what is new to a sink. Nothing is written twice.
pub async fn build(data: &GraphData, base: Base<'_>, target: Target<'_>) -> Result<GraphImage, Error> {
    let layer = NewLayer {
        descriptor: &data.layer.descriptor,
        diff_id: &data.layer.diff_id,
        content: &Given(data.bytes.clone()),
        created_by: CREATED_BY,
    };
    let recipe = Recipe {
        what: "the graph image",
        hint: "choose another base with --graph-base",
        layers: &[layer],
        index: false,
        run: &|run| {
            // An entry point would take the command for its arguments.
            run.remove("Entrypoint");
            run.insert("Cmd".into(), json!(COMMAND));
        },
    };
    derive(&recipe, base, target).await
}
