//! `WWW-Authenticate`, read leniently (RFC 9110 11.6.1): several challenges in one header, commas in quotes, any case,
//! missing quotes. Pure; any text gives a list, maybe an empty one.

/// One way to authenticate that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The scheme in lower case: `basic`, `bearer`, `negotiate`, …
    pub scheme: String,
    /// Names in lower case, values unquoted, in the order written.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// The value of the first parameter of this name (lower case).
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads one header value. What cannot be understood is passed over.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        let (word, after) = token(rest);
        if word.is_empty() {
            // A character that cannot begin anything, such as a stray quote: step over it.
            let Some(first) = rest.chars().next() else { return challenges };
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let spaced = after.trim_start();
        // `name = value` is a parameter of the challenge before; `token68==` and a bare word are not.
        if let Some(value) = spaced.strip_prefix('=').filter(|v| !v.trim_start().starts_with('='))
            && let Some(challenge) = challenges.last_mut()
        {
            let (value, after) = parameter_value(value.trim_start());
            challenge.params.push((word.to_ascii_lowercase(), value));
            rest = after;
        } else {
            challenges.push(Challenge { scheme: word.to_ascii_lowercase(), params: Vec::new() });
            rest = after.trim_start_matches('=');
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    text.split_at(text.find(|c| !legal(c)).unwrap_or(text.len()))
}

fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => {
                if let Some((_, escaped)) = chars.next() {
                    value.push(escaped);
                }
            }
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenge(scheme: &str, params: &[(&str, &str)]) -> Challenge {
        let params = params.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Challenge { scheme: scheme.to_owned(), params }
    }

    #[test]
    fn the_usual_forms_are_read() {
        assert_eq!(
            parse(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [challenge(
                "bearer",
                &[
                    ("realm", "https://auth.docker.io/token"),
                    ("service", "registry.docker.io"),
                    ("scope", "repository:a/b:pull,push")
                ]
            )]
        );
        assert_eq!(parse(r#"Basic realm="a \"b\", c""#), [challenge("basic", &[("realm", "a \"b\", c")])]);
    }

    #[test]
    fn several_challenges_in_any_case_and_spacing_are_read() {
        assert_eq!(
            parse(r#"BASIC Realm=x , , bearer REALM = "y",Service=z, Negotiate"#),
            [
                challenge("basic", &[("realm", "x")]),
                challenge("bearer", &[("realm", "y"), ("service", "z")]),
                challenge("negotiate", &[])
            ]
        );
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert!(parse("").is_empty());
        assert!(parse(" ,, \"").is_empty());
        assert_eq!(parse("Negotiate YWJj==")[0].scheme, "negotiate");
        assert_eq!(parse("Basic realm=\"open")[0].param("realm"), Some("open"));
        assert!(parse("=,=\u{e4}\"\\").is_empty());
    }
}
