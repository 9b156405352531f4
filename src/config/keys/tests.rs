use super::*;
use std::collections::BTreeSet;

#[test]
fn every_key_has_a_class_and_every_class_has_a_key() {
    for kind in OBJECTIVES {
        let own = keys().iter().filter(|k| k.objective.is_none_or(|o| o == kind.name));
        let listed: Vec<&str> = own.map(|k| k.path.as_str()).collect();
        let unique: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(listed.len(), unique.len(), "a key is listed twice");
        let existing = super::super::tree::keys_of(kind.name);
        let existing: BTreeSet<&str> = existing.keys().map(String::as_str).collect();
        let without_class: Vec<_> = existing.difference(&unique).collect();
        let without_key: Vec<_> = unique.difference(&existing).collect();
        assert!(without_class.is_empty(), "{}: no class: {without_class:?}", kind.name);
        assert!(without_key.is_empty(), "{}: no such key: {without_key:?}", kind.name);
    }
}
