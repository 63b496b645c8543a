//! A line of a credential file that may be shown: brackets, names of fields and of registries, and nothing else.

use super::json::Place;

/// Longest part of a line that is shown, in characters.
const MAX_SHOWN: usize = 160;

/// Names of fields, which are no secrets.
const FIELDS: [&str; 18] = [
    "auths",
    "auth",
    "email",
    "username",
    "password",
    "identitytoken",
    "registrytoken",
    "credHelpers",
    "credsStore",
    "kind",
    "apiVersion",
    "metadata",
    "data",
    "stringData",
    "type",
    "name",
    "namespace",
    ".dockerconfigjson",
];

/// A line without its secrets, the column (from 0) in it at which the place lies, and how many characters of it to mark.
pub(super) fn line(text: &str, place: Place) -> (String, usize, usize) {
    let source: Vec<char> =
        text.lines().nth((place.line as usize).saturating_sub(1)).unwrap_or_default().chars().collect();
    let target = (place.column.max(1) as usize - 1).min(source.len());
    let (mut out, mut at) = (Vec::new(), 0);
    let (mut column, mut end) = (0, 0);
    // The last sign before here that is no blank: after `{` and `,` a key may come, and at the beginning of a line.
    let mut before = '{';
    while at < source.len() {
        let start = at;
        let shown: Vec<char> = match source[at] {
            c if c.is_whitespace() => {
                at += 1;
                vec![' ']
            }
            c if "{}[]:,".contains(c) => {
                at += 1;
                before = c;
                vec![c]
            }
            '"' => {
                at += 1;
                while at < source.len() && source[at] != '"' {
                    at += if source[at] == '\\' { 2 } else { 1 };
                }
                let inner: String = source[start + 1..at.min(source.len())].iter().collect();
                let closed = at < source.len();
                at = (at + 1).min(source.len());
                let may_be_key = matches!(before, '{' | ',') && closed;
                before = '"';
                if may_be_key && is_name(&inner) { source[start..at].to_vec() } else { masked(at - start, closed) }
            }
            _ => {
                while at < source.len() && !source[at].is_whitespace() && !"{}[]:,\"".contains(source[at]) {
                    at += 1;
                }
                before = 'x';
                let word: String = source[start..at].iter().collect();
                if matches!(word.as_str(), "null" | "true" | "false" | "$") {
                    word.chars().collect()
                } else {
                    masked(at - start, false)
                }
            }
        };
        if (start..at).contains(&target) {
            column = out.len() + (target - start).min(shown.len().saturating_sub(1));
        }
        let last = target + place.length as usize;
        if last > start {
            end = out.len() + if last >= at { shown.len() } else { last - start };
        }
        out.extend(shown);
    }
    if target >= source.len() {
        column = out.len();
    }
    let cut = if out.len() > MAX_SHOWN { column.saturating_sub(MAX_SHOWN / 2) } else { 0 };
    let shown: String = out.iter().skip(cut).take(MAX_SHOWN).collect();
    let length = end.saturating_sub(column).clamp(1, MAX_SHOWN);
    let length = length.min((shown.chars().count() + cut).saturating_sub(column).max(1));
    (shown, column - cut, length)
}

/// Never longer than what it hides.
fn masked(length: usize, quoted: bool) -> Vec<char> {
    let stars = |n: usize| std::iter::repeat_n('*', n.min(3));
    if quoted { std::iter::once('"').chain(stars(length - 2)).chain(['"']).collect() } else { stars(length).collect() }
}

/// Whether a text is the name of a field or of a registry. Tokens have dots too, but capitals; passwords stand behind colons.
pub(super) fn is_name(text: &str) -> bool {
    let address = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = address.split('/').next().unwrap_or_default();
    let of = |t: &str, more: &str| t.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || more.contains(c));
    FIELDS.contains(&text)
        || (text.len() <= 255
            && (host.contains(['.', ':']) || host == "localhost")
            && of(host, ".-:[]")
            && of(address, ".-:[]/_"))
        || (text.starts_with('<') && text.len() <= 80 && text.ends_with(['>', '/']))
}
