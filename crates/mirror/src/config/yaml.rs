//! What the text of a configuration may be: one YAML document.

use airlock_document::yaml::Format;
pub(super) use airlock_document::yaml::{Fault, Key, Looks, Mark, Node, Value, looks};

use super::problem::code;

/// An image of a set takes about five values; the format is ten levels deep.
const CONFIGURATION: Format =
    Format { max_values: 1_000_000, max_depth: 64, syntax: code::SYNTAX, duplicate_key: code::DUPLICATE_KEY };

/// The root of the only document, and what is wrong with the YAML. Duplicate keys are reported and the first value kept; with anything
/// else there is no root.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<Fault>) {
    let (roots, mut faults) = CONFIGURATION.read(text);
    if faults.iter().any(|fault| fault.code == code::SYNTAX) {
        return (None, faults);
    }
    let mut roots = roots.into_iter();
    let first = roots.next().filter(|root| !root.is_null());
    let fault = match roots.find(|root| !root.is_null()) {
        Some(second) => Some((second.mark, "more than one document: a configuration is one YAML document")),
        None if first.is_none() => {
            Some((Mark { line: 1, column: 1, length: 1, start: 0, end: 0 }, "the file is empty"))
        }
        None => None,
    };
    match fault {
        Some((mark, message)) => {
            faults.push(Fault { code: code::DOCUMENTS, mark, message: message.to_owned() });
            (None, faults)
        }
        None => (first, faults),
    }
}
