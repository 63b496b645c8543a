//! Whether OLM would install what was chosen, found out before any bundle is fetched.

mod channel;

use std::collections::BTreeSet;

pub use channel::ChannelFault;
use channel::kept_fault;

use super::model::{Package, Text};

/// What is wrong with a channel of which only `kept` stays, in a sentence.
pub(super) fn broken_channel(package: &Package, channel: &str, kept: &BTreeSet<Text>) -> Option<String> {
    kept_fault(package, channel, kept).map(|fault| fault.to_string())
}
