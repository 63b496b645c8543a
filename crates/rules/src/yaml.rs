//! What files of mirror rules may be: any number of documents, of which empty ones do not count.

use airlock_document::yaml::Format;
pub use airlock_document::yaml::{Fault, Key, Mark, Node, Value};

use crate::problem::code;

/// A dump of 2,000 rules has about 12,000 values; objects of a cluster are ten levels deep.
const OBJECTS: Format =
    Format { max_values: 4_000_000, max_depth: 96, syntax: code::SYNTAX, duplicate_key: code::DUPLICATE_KEY };

/// The roots of all documents that are not empty, and what is wrong with the YAML. Duplicate keys are reported and the first value kept;
/// anything else ends the reading, and the documents before it are returned.
pub fn read(text: &str) -> (Vec<Node>, Vec<Fault>) {
    let (mut roots, faults) = OBJECTS.read(text);
    roots.retain(|root| !root.is_null());
    (roots, faults)
}
