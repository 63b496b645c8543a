//! The update graph of OpenShift: model, wire format, client, and what a configuration of channels means on it.
