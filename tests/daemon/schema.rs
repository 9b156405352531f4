//! As much of JSON Schema as docs/openapi.json uses; a word that is not known here fails.

use serde_json::Value;

/// Words that say something to people only.
const FOR_PEOPLE: [&str; 2] = ["description", "format"];

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no such type: {other}"),
    }
}

/// What in `value` is not as `schema`, a part of `document`, says; each with its place.
pub(crate) fn mismatches(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(document, schema, value, "", &mut found);
    found
}

fn compare(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (word, says) in schema.as_object().unwrap_or_else(|| panic!("{at}: {schema} is no schema")) {
        match word.as_str() {
            word if FOR_PEOPLE.contains(&word) => {}
            "$ref" => {
                let place = says.as_str().unwrap().strip_prefix('#').unwrap();
                let schema = document.pointer(place).unwrap_or_else(|| panic!("{place} is not there"));
                compare(document, schema, value, at, found);
            }
            "oneOf" => {
                let fitting = says
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|s| mismatches(document, s, value).is_empty())
                    .count();
                if fitting != 1 {
                    found.push(format!("{at}: {fitting} of the alternatives fit {value}"));
                }
            }
            "type" => {
                let kinds: Vec<&str> = says.as_array().map_or_else(
                    || vec![says.as_str().unwrap()],
                    |all| all.iter().map(|k| k.as_str().unwrap()).collect(),
                );
                if !kinds.iter().any(|kind| is(value, kind)) {
                    found.push(format!("{at}: {value} is none of {kinds:?}"));
                }
            }
            "enum" => {
                if !says.as_array().unwrap().contains(value) {
                    found.push(format!("{at}: {value} is none of {says}"));
                }
            }
            "required" => {
                for name in says.as_array().unwrap().iter().map(|n| n.as_str().unwrap()) {
                    if value.is_object() && value.get(name).is_none() {
                        found.push(format!("{at}: no {name}"));
                    }
                }
            }
            "properties" => {
                for (name, schema) in says.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        compare(document, schema, value, &format!("{at}/{name}"), found);
                    }
                }
            }
            "additionalProperties" => {
                let known = |name: &String| schema["properties"].get(name).is_some();
                for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !known(name)) {
                    match says {
                        Value::Bool(true) => {}
                        Value::Bool(false) => found.push(format!("{at}: {name} is not described")),
                        says => compare(document, says, value, &format!("{at}/{name}"), found),
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    compare(document, says, item, &format!("{at}/{n}"), found);
                }
            }
            "minItems" | "maxItems" => {
                let (length, limit) = (value.as_array().map_or(0, Vec::len) as u64, says.as_u64().unwrap());
                if value.is_array() && (if word == "minItems" { length < limit } else { length > limit }) {
                    found.push(format!("{at}: {length} items, {word} {limit}"));
                }
            }
            other => panic!("{at}: {other} is not checked here"),
        }
    }
}

#[test]
fn what_differs_is_found() {
    let document = serde_json::json!({ "n": { "type": ["integer", "null"] } });
    let schema = serde_json::json!({
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "$ref": "#/n" }, "b": { "type": "array", "maxItems": 1, "items": { "enum": ["x"] } }, "c": { "oneOf": [{ "type": "null" }, { "type": "number" }] } },
    });
    let of = |value: Value| mismatches(&document, &schema, &value);
    for right in [
        serde_json::json!({ "a": 1, "b": ["x"], "c": 1.5 }),
        serde_json::json!({ "a": null, "c": null }),
    ] {
        assert_eq!(of(right), [""; 0]);
    }
    for wrong in [
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!({ "a": 1.5 }),
        serde_json::json!({ "a": 1, "d": 1 }),
        serde_json::json!({ "a": 1, "b": ["y"] }),
        serde_json::json!({ "a": 1, "b": ["x", "x"] }),
        serde_json::json!({ "a": 1, "c": "x" }),
    ] {
        assert_eq!(of(wrong.clone()).len(), 1, "{wrong}: {:?}", of(wrong.clone()));
    }
}
