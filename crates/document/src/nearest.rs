//! Which known word was probably meant.

/// Longest words that are compared, in characters; the rest of a longer one is not looked at.
const MAX_WORD: usize = 64;

/// Most slips that a word may have and still be recognised.
const MAX_SLIPS: usize = 4;

/// The known word that differs least, if it differs by little: by one slip for each three letters, case aside. Of several the first.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, MAX_SLIPS);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(MAX_WORD).collect(), b.chars().take(MAX_WORD).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let fields = ["additionalImages", "operators", "helm", "source", "mirrors", "mirrorSourcePolicy"];
        for (word, meant) in [
            ("aditionalImage", Some("additionalImages")),
            ("oeprators", Some("operators")),
            ("hlem", Some("helm")),
            ("mirror", Some("mirrors")),
            ("mirrorsourcePolicies", Some("mirrorSourcePolicy")),
            ("something", None),
            ("annotations", None),
        ] {
            assert_eq!(nearest(word, fields), meant, "{word}");
        }
        let channels = ["candidate-4.18", "fast-4.18", "stable-4.18", "stable-4.19"];
        assert_eq!(nearest("stabel-4.18", channels), Some("stable-4.18"));
        assert_eq!(nearest("stable4.18", channels), Some("stable-4.18"));
        assert_eq!(nearest("nightly", channels), None);
    }

    #[test]
    fn slips_are_counted() {
        for (a, b, slips) in [("kitten", "sitting", 3), ("", "abc", 3), ("helm", "hlem", 1)] {
            assert_eq!(distance(a, b), slips, "{a} {b}");
        }
    }
}
