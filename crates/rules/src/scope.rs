//! Names that cover other names: which texts may be sources, mirrors and scopes (mirror-rules 3.2), and which scope lies
//! within which (mirror-rules 4.2).

/// Whether the API server and the Machine Config Operator take the text as a source: a host, with or without port and path,
/// or `*.` and a domain.
pub fn is_source(text: &str) -> bool {
    match text.strip_prefix("*.") {
        Some(domain) => domain.split('.').all(is_label),
        None => is_mirror(text),
    }
}

/// Whether the text may be a mirror: a host, with or without port and path.
pub fn is_mirror(text: &str) -> bool {
    let mut parts = text.split('/');
    let host = parts.next().unwrap_or_default();
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    name.split('.').all(is_label)
        && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))
        && parts.all(is_component)
}

/// Whether the Machine Config Operator takes the text as an insecure, blocked or allowed registry. It looks at wildcards only.
pub fn is_listed_registry(text: &str) -> bool {
    match text.strip_prefix("*.") {
        Some(rest) => !rest.contains(['/', '@', ':', '*']),
        None => !text.is_empty() && !text.contains('*'),
    }
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// A component of a path. The pattern knows no longest length, unlike a repository's name.
fn is_component(text: &str) -> bool {
    let run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends = bytes.first().copied().is_some_and(run) && bytes.last().copied().is_some_and(run);
    ends && bytes
        .chunk_by(|a, b| run(*a) == run(*b))
        .all(|part| run(part[0]) || matches!(part, b"." | b"_" | b"__") || part.iter().all(|b| *b == b'-'))
}

/// Whether `inner` lies within `outer` as the Machine Config Operator sees it. Unlike the matching of a pull, a port is part
/// of the name: `quay.io:443` does not lie within `quay.io`.
pub fn lies_within(inner: &str, outer: &str) -> bool {
    if inner == outer {
        return true;
    }
    if let Some(domain) = outer.strip_prefix('*').filter(|d| d.starts_with('.')) {
        return host_name(inner).ends_with(domain);
    }
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// The host without its port.
pub fn host_name(scope: &str) -> &str {
    let host = host(scope);
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// The host with its port.
pub fn host(scope: &str) -> &str {
    scope.split_once('/').map_or(scope, |(host, _)| host)
}

/// The path behind the host; empty where there is none.
pub fn path(scope: &str) -> &str {
    scope.split_once('/').map_or("", |(_, path)| path)
}

/// Whether a pull of `name` (without tag and digest) falls under `prefix`, as containers/image sees it (mirror-rules 2.6).
pub fn matches(name: &str, prefix: &str) -> bool {
    if let Some(domain) = prefix.strip_prefix('*').filter(|d| d.starts_with('.')) {
        let end = name.find(['/', ':', '@']).unwrap_or(name.len());
        return name.find(domain).is_some_and(|at| at + domain.len() == end);
    }
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':', '@']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_part_scopes_but_not_pulls() {
        assert!(!lies_within("quay.io:443/a", "quay.io"));
        assert!(matches("quay.io:443/a", "quay.io"));
        assert!(lies_within("a.lab:5000/x", "*.lab") && matches("a.lab:5000/x", "*.lab"));
        assert!(!lies_within("lab/x", "*.lab") && !matches("lab", "*.lab"));
        assert!(!matches("quay.io/acmecorp/x", "quay.io/acme"));
    }

    #[test]
    fn a_component_may_be_longer_than_a_repository() {
        let long = format!("quay.io/{}", "a".repeat(300));
        assert!(is_source(&long) && is_mirror(&long));
        assert!(!is_source(&format!("{long}-")));
        assert!(!is_source(&format!("{long}__.b")));
    }
}
