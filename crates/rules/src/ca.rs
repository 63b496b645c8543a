//! Certificates of mirrors for a cluster: a ConfigMap with a key for each host, and the patch of the image configuration that
//! points to it (mirror-rules 5.4).
//!
//! A ConfigMap's key cannot contain a colon, so that `mirror.corp:5000` is `mirror.corp..5000`. The key must be host and port
//! as the *mirror* is written in the rules: a key without port does not serve a mirror with one.

use airlock_oci::Registry;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::problem::Problem;
use crate::scope;
use crate::yaml;

/// The key that the update service reads, beside those of hosts.
pub const UPDATE_SERVICE_KEY: &str = "updateservice-registry";
/// Where image.config looks for the ConfigMap.
pub const NAMESPACE: &str = "openshift-config";
/// The ConfigMap's name unless another is wanted.
pub const DEFAULT_NAME: &str = "registry-config";
/// Largest certificate file, in bytes. A ConfigMap holds one MiB.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The stable codes of problems.
pub mod code {
    /// Not the name of a host, or one that no key can hold.
    pub const HOST: &str = "E0530";
    /// Not a certificate.
    pub const CERTIFICATE: &str = "E0531";
    /// A private key among the certificates.
    pub const PRIVATE_KEY: &str = "E0532";
    /// Not a ConfigMap with certificates.
    pub const CONFIG_MAP: &str = "E0533";
    /// A key that serves no pull.
    pub const USELESS: &str = "W0530";
    /// A mirror without a certificate of its own.
    pub const MISSING: &str = "MR044";
    /// The update service has no certificate.
    pub const UPDATE_SERVICE: &str = "W0531";
}

/// Certificates by host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    entries: Vec<(String, String)>,
    update_service: Option<String>,
}

/// The ConfigMap key of a host.
pub fn key_of(host: &str) -> Result<String, Problem> {
    let wrong = |message: String| {
        Problem::of_file(code::HOST, "", message).hint("write HOST or HOST:PORT, as the mirror is written in the rules")
    };
    if host.contains('/') {
        return Err(wrong(format!("`{host}` has a path: certificates belong to hosts")));
    }
    if host.starts_with('[') {
        return Err(wrong(format!("`{host}`: a ConfigMap's key cannot hold the brackets of an IPv6 address")));
    }
    Registry::new(host).map_err(|_| wrong(format!("`{host}` is not the name of a host")))?;
    Ok(host.replace(':', ".."))
}

/// The host that a key means.
pub fn host_of(key: &str) -> String {
    key.replace("..", ":")
}

/// Certificates as PEM, from PEM or DER. A private key is refused: a ConfigMap is readable by everybody.
pub fn certificates(file: &str, bytes: &[u8]) -> Result<String, Problem> {
    let wrong = |message: &str| Problem::of_file(code::CERTIFICATE, file, message);
    if bytes.len() > MAX_BYTES {
        return Err(wrong("it is larger than a ConfigMap can be (1 MiB)"));
    }
    if is_der(bytes) {
        return Ok(pem(bytes));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| {
        wrong("this is neither PEM nor DER").hint("a PEM file begins with `-----BEGIN CERTIFICATE-----`")
    })?;
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("-----BEGIN ") {
        rest = &rest[at + "-----BEGIN ".len()..];
        let (label, body) = rest.split_once("-----").ok_or_else(|| wrong("the line that begins a block is cut off"))?;
        if label.ends_with("PRIVATE KEY") {
            let message = "there is a private key in the file: it must not get into a cluster's ConfigMap";
            return Err(Problem::of_file(code::PRIVATE_KEY, file, message).hint("keep only the `CERTIFICATE` blocks"));
        }
        let end = format!("-----END {label}-----");
        let (encoded, after) = body.split_once(end.as_str()).ok_or_else(|| wrong("a block has no end"))?;
        rest = after;
        if !matches!(label, "CERTIFICATE" | "TRUSTED CERTIFICATE" | "X509 CERTIFICATE") {
            continue;
        }
        let encoded: String = encoded.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(encoded).map_err(|_| wrong("a block is not base64"))?;
        if !is_der(&der) {
            return Err(wrong("a block does not hold a certificate"));
        }
        out.push_str(&pem(&der));
    }
    if out.is_empty() {
        return Err(wrong("it holds no certificate").hint("a PEM file begins with `-----BEGIN CERTIFICATE-----`"));
    }
    Ok(out)
}

/// One DER sequence, to the last byte. What is in it is for those to judge who trust it.
fn is_der(bytes: &[u8]) -> bool {
    let (length, header) = match bytes {
        [0x30, length, ..] if *length < 0x80 => (usize::from(*length), 2),
        [0x30, 0x81, length, ..] => (usize::from(*length), 3),
        [0x30, 0x82, a, b, ..] => (usize::from(*a) << 8 | usize::from(*b), 4),
        [0x30, 0x83, a, b, c, ..] => (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c), 5),
        _ => return false,
    };
    bytes.len() == header + length && length > 0
}

fn pem(der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut out = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

impl Authorities {
    /// Adds the certificates (PEM) of a host; those of a host that is there already are added to them.
    pub fn add(&mut self, host: &str, pem: &str) -> Result<(), Problem> {
        let key = key_of(host)?;
        match self.entries.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) if known.contains(pem) => {}
            Some((_, known)) => known.push_str(pem),
            None => self.entries.push((key, pem.to_owned())),
        }
        self.entries.sort();
        Ok(())
    }

    /// The certificates that the update service trusts.
    pub fn set_update_service(&mut self, pem: &str) {
        self.update_service = Some(pem.to_owned());
    }

    /// Keys and certificates, sorted by key.
    fn data(&self) -> Vec<(&str, &str)> {
        let own = self.update_service.iter().map(|pem| (UPDATE_SERVICE_KEY, pem.as_str()));
        let mut data: Vec<_> = self.entries.iter().map(|(key, pem)| (key.as_str(), pem.as_str())).chain(own).collect();
        data.sort_unstable();
        data
    }

    /// The ConfigMap, as YAML to be applied.
    pub fn config_map(&self, name: &str) -> String {
        let mut out =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\ndata:\n");
        for (key, pem) in self.data() {
            out.push_str(&format!("  {key}: |\n"));
            for line in pem.lines() {
                out.push_str(&format!("    {line}\n"));
            }
        }
        out
    }

    /// The ConfigMap as a value, for an API.
    pub fn config_map_value(&self, name: &str) -> serde_json::Value {
        let data: serde_json::Map<_, _> = self.data().into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": NAMESPACE },
            "data": data,
        })
    }
}

/// The merge patch of `image.config.openshift.io/cluster` that points to the ConfigMap.
pub fn image_patch(name: &str) -> serde_json::Value {
    json!({ "spec": { "additionalTrustedCA": { "name": name } } })
}

/// The same as an object for `oc apply --server-side`.
pub fn image_object(name: &str) -> String {
    format!(
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata:\n  name: cluster\nspec:\n  additionalTrustedCA:\n    name: {name}\n"
    )
}

/// What is wrong with an existing ConfigMap: `mirrors` are the hosts that the rules name, `update_service` whether one is
/// generated.
pub fn check(file: &str, text: &str, mirrors: &[&str], update_service: bool) -> Vec<Problem> {
    let (roots, faults) = yaml::read(text);
    if let Some(fault) = faults.first() {
        return vec![Problem::at(fault.code, file, text, fault.mark, fault.message.clone())];
    }
    let map = roots.iter().find(|root| root.get("kind").and_then(|k| k.as_text()) == Some("ConfigMap"));
    let Some(map) = map else {
        return vec![Problem::of_file(code::CONFIG_MAP, file, "there is no ConfigMap in the file")];
    };
    let mut problems = Vec::new();
    let mut keys = Vec::new();
    for (section, encoded) in [("data", false), ("binaryData", true)] {
        for (key, value) in map.get(section).and_then(|data| data.as_map()).unwrap_or_default() {
            let at = |code, message: String| Problem::at(code, file, text, key.mark, message);
            keys.push(key.text.clone());
            let bytes = value.as_scalar().unwrap_or_default().as_bytes().to_vec();
            let compact: Vec<u8> = bytes.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
            // Text that happens to be base64 is used decoded, by the daemon too.
            let decoded = STANDARD.decode(&compact).ok();
            let bytes = if encoded { decoded.unwrap_or_default() } else { decoded.unwrap_or(bytes) };
            if let Err(problem) = certificates(file, &bytes) {
                problems.push(at(problem.code, format!("`{}`: {}", key.text, problem.message)));
            }
            if key.text == UPDATE_SERVICE_KEY {
                continue;
            }
            let host = host_of(&key.text);
            if key.text.contains(':') {
                let hint = format!("write `{}`", key.text.replace(':', ".."));
                problems.push(
                    at(code::HOST, format!("a ConfigMap's key cannot contain the colon of `{}`", key.text)).hint(hint),
                );
            } else if Registry::new(&host).is_err()
                || (!host.contains(['.', ':']) && host != "localhost")
                || host.ends_with(".crt")
            {
                let message = format!("`{}` is not the name of a host: no pull looks there", key.text);
                problems.push(
                    at(code::USELESS, message)
                        .warning()
                        .hint("name the key HOST or HOST..PORT, as the mirror is written in the rules"),
                );
            }
        }
    }
    for mirror in mirrors {
        let wanted = mirror.replace(':', "..");
        if keys.contains(&wanted) {
            continue;
        }
        let mut message = format!("the mirror `{mirror}` has no key `{wanted}`");
        if keys.iter().any(|key| key == scope::host_name(mirror)) {
            message.push_str(": the key without port serves only the default port");
        }
        let problem = Problem::at(code::MISSING, file, text, map.mark, message).warning();
        problems.push(problem.hint("add it, unless the mirror's certificate is publicly trusted"));
    }
    if update_service && !keys.iter().any(|key| key == UPDATE_SERVICE_KEY) {
        let message = format!("an UpdateService is generated, and there is no key `{UPDATE_SERVICE_KEY}`");
        let problem = Problem::at(code::UPDATE_SERVICE, file, text, map.mark, message);
        problems.push(problem.hint("add it with the certificates of the registry that holds the graph data"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sequence of the right form; whether it is a certificate is not asked here.
    fn der(length: u8) -> Vec<u8> {
        let mut der = vec![0x30, length];
        der.extend((0..length).collect::<Vec<u8>>());
        der
    }

    #[test]
    fn keys_hold_ports_as_dots() {
        assert_eq!(key_of("mirror.corp:5000").unwrap(), "mirror.corp..5000");
        assert_eq!(host_of("mirror.corp..5000"), "mirror.corp:5000");
        for bad in ["mirror.corp/x", "https://mirror.corp", "[::1]:5000", "", "a b"] {
            assert!(key_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pem_and_der_become_the_same_and_keys_are_refused() {
        let made = certificates("ca.der", &der(100)).unwrap();
        assert_eq!(certificates("ca.pem", made.as_bytes()).unwrap(), made);
        let two = format!("subject: x\n{made}\n{}", made.replace('\n', "\r\n"));
        assert_eq!(certificates("ca.pem", two.as_bytes()).unwrap(), made.repeat(2));
        let key = format!("{made}-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n");
        assert_eq!(certificates("ca.pem", key.as_bytes()).unwrap_err().code, code::PRIVATE_KEY);
        for bad in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
        ] {
            assert!(certificates("x", bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(certificates("x", b"\x30\x82\xff\xff").is_err());
        assert!(certificates("x", &vec![0; MAX_BYTES + 1]).is_err());
    }

    #[test]
    fn the_config_map_has_hosts_and_the_update_service() {
        let pem = certificates("x", &der(20)).unwrap();
        let mut authorities = Authorities::default();
        authorities.add("z.corp:5000", &pem).unwrap();
        authorities.add("a.corp", &pem).unwrap();
        authorities.add("a.corp", &pem).unwrap();
        authorities.set_update_service(&pem);
        let text = authorities.config_map("registry-config");
        let keys: Vec<&str> = text.lines().filter(|l| l.ends_with(": |")).collect();
        assert_eq!(keys, ["  a.corp: |", "  updateservice-registry: |", "  z.corp..5000: |"]);
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(value, authorities.config_map_value("registry-config"));
        assert_eq!(value["data"]["z.corp..5000"], pem.as_str());
        assert_eq!(image_patch("n").to_string(), r#"{"spec":{"additionalTrustedCA":{"name":"n"}}}"#);
        assert!(check("cm.yaml", &text, &["z.corp:5000", "a.corp"], true).is_empty());
        let codes: Vec<_> = check("cm.yaml", &text, &["z.corp", "a.corp:443"], true).iter().map(|p| p.code).collect();
        assert_eq!(codes, [code::MISSING, code::MISSING]);
    }

    #[test]
    fn a_config_map_that_serves_no_pull_is_told() {
        let pem = certificates("x", &der(20)).unwrap().replace('\n', "\n    ");
        let text = format!(
            "kind: ConfigMap\ndata:\n  ca.crt: |\n    {pem}\n  'm.corp:5000': |\n    {pem}\n  b.corp: no certificate\n"
        );
        let found: Vec<_> = check("cm.yaml", &text, &["m.corp:5000"], true).iter().map(|p| p.code).collect();
        assert_eq!(found, [code::USELESS, code::HOST, code::CERTIFICATE, code::MISSING, code::UPDATE_SERVICE]);
        assert_eq!(check("x", "kind: Secret\n", &[], false)[0].code, code::CONFIG_MAP);
        assert!(!check("x", "a: [\n", &[], false).is_empty());
    }
}
