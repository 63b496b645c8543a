//! Drain predictions against the Machine Config Operator's own comparison.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod shared;

use airlock_rules::impact::{Action, NodeFiles, impact};
use airlock_rules::render::Base;

#[test]
fn every_drain_vector() {
    let vectors = shared::vectors("rules/drain");
    assert!(vectors.is_empty() || vectors.len() >= 18, "{}", vectors.len());
    for (id, vector) in vectors {
        let files = |key: &str| NodeFiles {
            registries_conf: Base::parse(key, vector[key].as_str().unwrap()).unwrap(),
            ..NodeFiles::default()
        };
        let cost = impact(&files("old_registries_conf"), &files("new_registries_conf"), None);
        assert_eq!(cost.drain_required, vector["expected"]["drain_required"], "{id}: {cost:?}");
        assert!(cost.action < Action::Reboot, "{id}");
        let changes = vector["old_registries_conf"] != vector["new_registries_conf"];
        assert_eq!(cost.action >= Action::Reload, changes, "{id}: {cost:?}");
        assert_eq!(cost.files.iter().any(|f| !f.reasons.is_empty()), changes, "{id}: a change has a reason");
    }
}
