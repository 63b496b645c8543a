//! Mirror rules: IDMS, ITMS, ICSP and registries.conf, rendered, resolved, linted, converted, audited.

pub mod usage;
