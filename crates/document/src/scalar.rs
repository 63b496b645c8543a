//! A text as a value in YAML.

/// The text, in double quotes where it would otherwise be something else: a list (`[::1]:5000/a`), an alias (`*.example.com`), a
/// number, a comment. Names of images and hosts mostly stay as they are, which is how people write them.
pub fn scalar(text: &str) -> String {
    let first = text.chars().next();
    let begins = first.is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '$'));
    let within = text.chars().all(|c| c.is_ascii_alphanumeric() || "/_.$-:@+=~[] ()".contains(c));
    let ends = !text.ends_with([':', ' ']) && !text.contains(": ");
    // What is all digits and signs may be read as a number or a time, and some words as what they say.
    let letters = text.chars().any(|c| c.is_ascii_alphabetic());
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", ".inf", ".nan"];
    let number = text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o");
    let meant = letters && !number && !words.contains(&text.to_ascii_lowercase().as_str());
    if begins && within && ends && meant {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_again_as_itself() {
        for plain in ["quay.io/a/b", "mirror:5000/ns/x", "a@sha256:00ff", "oc-mirror v2", "NeverContactSource"] {
            assert_eq!(scalar(plain), plain);
        }
        for text in [
            "[::1]:6113/x",
            "*.example.com",
            "quay.io/a",
            "true",
            "1.5",
            "1e3",
            "",
            "a: b",
            "a #b",
            "x:",
            "-",
            "a\"b\\",
            "a\nb",
            "2001-01-01",
            "~",
        ] {
            let yaml = format!("- {}\n", scalar(text));
            let read: Vec<String> = serde_saphyr::from_str(&yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
            assert_eq!(read, [text], "{yaml}");
        }
        assert_eq!(scalar("[::1]:6113/x"), "\"[::1]:6113/x\"");
    }
}
