//! What is wrong with a pull secret that is JSON.

use super::json::{Key, Node, Value};
use super::{PullSecret, code, decode, has_token, mask, normal_key, pair, show};
use crate::problem::Problem;

impl PullSecret {
    /// What makes it useless: it cannot be worked with.
    pub(super) fn form(&self) -> Vec<Problem> {
        let problem = |node: &Node, message: &str| {
            show(&self.name, &self.text, node.place, code::FORM, message)
                .hint("expected `{\"auths\": {\"HOST\": {\"auth\": \"…\"}}}`")
        };
        let Value::Object(_) = self.root.value else {
            return vec![problem(&self.root, "a pull secret is a JSON object")];
        };
        let Some(auths) = self.root.get("auths") else {
            if self.root.entries().is_empty() || self.root.get("credHelpers").or(self.root.get("credsStore")).is_some()
            {
                return Vec::new();
            }
            return vec![problem(&self.root, "there is no `auths`")];
        };
        let Value::Object(entries) = &auths.value else {
            return vec![problem(auths, "`auths` must be an object with a registry for each key")];
        };
        let wrong = entries.iter().filter(|(_, entry)| !matches!(entry.value, Value::Object(_)));
        wrong
            .map(|(_, entry)| {
                problem(entry, "what belongs to a registry must be an object such as `{\"auth\": \"…\"}`")
            })
            .collect()
    }

    /// What will not work as its author may think. `pushes`: credentials that write to the mirror, which no node should have.
    pub fn check(&self, pushes: Option<&PullSecret>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let entries = self.auths();
        for (at, (key, entry)) in entries.iter().enumerate() {
            let name = name_of(key);
            let mut tell = |place, code: &'static str, message: String, hint: &str| {
                let problem = show(&self.name, &self.text, place, code, message).hint(hint);
                problems.push(if code.starts_with('W') { problem.warning() } else { problem });
            };
            match entry.get("auth") {
                Some(auth) if auth.text().is_none_or(|a| a.trim().is_empty()) || pair(entry).is_some() => {}
                Some(auth) => {
                    let what =
                        if auth.text().and_then(decode).is_none() { "base64" } else { "base64 of `user:password`" };
                    let message = format!("the `auth` of {name} is not {what}");
                    tell(
                        auth.place,
                        code::AUTH,
                        message,
                        "make it with `printf %s \"$USER:$PASSWORD\" | base64 -w0`, or with `airlock cluster pull-secret add`",
                    );
                }
                None => {}
            }
            let has_auth = entry.get("auth").and_then(Node::text).is_some_and(|a| !a.trim().is_empty());
            if !has_auth && pair(entry).is_some() {
                tell(
                    key.place,
                    code::NO_AUTH,
                    format!("{name} has user name and password but no `auth`: some tools ignore it"),
                    "write it anew with `airlock cluster pull-secret add`",
                );
            } else if !has_auth && !has_token(entry) {
                tell(
                    key.place,
                    code::EMPTY,
                    format!("{name} has nothing to log in with"),
                    "remove the entry, or give it an `auth`",
                );
            }
            if let Some((first, _)) =
                entries[..at].iter().find(|(other, _)| normal_key(&other.text) == normal_key(&key.text))
            {
                let message =
                    format!("{name} means the same registry as {} in line {}", name_of(first), first.place.line);
                tell(key.place, code::TWICE, message, "keep the one without scheme, version and slash");
            } else if key.text != normal_key(&key.text) && !key.text.contains("docker.io") {
                let message = format!(
                    "{name} is not how mirrors are looked up: scheme, version and a slash at the end do not belong there"
                );
                tell(
                    key.place,
                    code::SPELLING,
                    message,
                    "write HOST[:PORT] or HOST[:PORT]/PATH, as the mirror is written in the rules",
                );
            }
            let own = pair(entry);
            let pushing = pushes.and_then(|p| p.auths().iter().find(|(_, other)| own.is_some() && pair(other) == own));
            if pushing.is_some() {
                let message = format!(
                    "{name} has the credential that pushes to the mirror: every node of the cluster could write there"
                );
                tell(
                    key.place,
                    code::PUSHES,
                    message,
                    "make a user of the registry that may only pull, and add that one",
                );
            }
        }
        problems
    }
}

/// A key for a message: only where it cannot be a secret that slipped there.
fn name_of(key: &Key) -> String {
    if mask::is_name(&key.text) { format!("`{}`", key.text) } else { "this entry".to_owned() }
}
