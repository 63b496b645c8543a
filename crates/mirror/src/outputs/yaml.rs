//! Objects as YAML that people read and scripts search: sorted, one line a value.

use serde_json::Value;

/// YAML with sorted keys; long texts are not folded.
pub(super) fn yaml(object: &Value) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // A tree of JSON can always be written.
    let mut text = serde_saphyr::to_string_with_options(&sorted(object), options).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The same with sorted keys, whatever order the map in memory has.
pub(crate) fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            Value::Object(keys.into_iter().map(|key| (key.clone(), sorted(&map[key]))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(sorted).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_on_their_line_and_what_they_are() {
        let object = serde_json::json!({"b": "x".repeat(300), "a": ["yes", "1.0", "2026-01-01T00:00:00Z", 1, true, "two\nlines"], "c": {}});
        let text = yaml(&object);
        assert!(text.starts_with("a:") && text.contains(&format!("b: {}", "x".repeat(300))), "{text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object);
    }
}
