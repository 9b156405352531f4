//! Class labels of one set read in another: a label is a number in its own set's list of names, and two sets agree on names, not numbers.

use std::collections::HashMap;

/// How the labels of one set (say, of validation) read in another (say, of training): by class name.
///
/// Where a set has no list of names, numbers are all there is; then labels stay as they are and [`ClassMap::is_by_name`] says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassMap {
    /// Class in the other set for each class of this one; none without names.
    table: Option<Vec<Option<u32>>>,
    left_out: Vec<String>,
    unmet: Vec<String>,
}

impl ClassMap {
    /// From the names of one set to those of another, each by index, as [`super::manifest::Manifest::class_names`] gives them; no names where a set has no
    /// list.
    ///
    /// Equal lists map each class to itself. Otherwise a name that stands twice in a list says nothing about which of the two is meant:
    /// such classes are left out.
    #[must_use]
    pub fn new(from: &[String], to: &[String]) -> Self {
        if from.is_empty() || to.is_empty() {
            return Self {
                table: None,
                left_out: vec![],
                unmet: vec![],
            };
        }
        let once = |names: &[String]| {
            let mut places: HashMap<String, Option<u32>> = HashMap::new();
            for (index, name) in names.iter().enumerate() {
                places.entry(name.clone()).and_modify(|p| *p = None).or_insert(Some(index as u32));
            }
            places
        };
        let (here, there) = (once(from), once(to));
        let table: Vec<Option<u32>> = match from == to {
            true => (0..from.len() as u32).map(Some).collect(),
            false => from
                .iter()
                .map(|name| here[name].and_then(|_| there.get(name).copied().flatten()))
                .collect(),
        };
        let missing = |names: &[String], met: &dyn Fn(usize) -> bool| {
            let names = names.iter().enumerate().filter(|(i, _)| !met(*i));
            names.map(|(_, name)| name.clone()).collect()
        };
        let left_out = missing(from, &|i| table[i].is_some());
        let unmet = missing(to, &|i| table.contains(&Some(i as u32)));
        Self {
            table: Some(table),
            left_out,
            unmet,
        }
    }

    /// Whether both sets name their classes.
    #[must_use]
    pub fn is_by_name(&self) -> bool {
        self.table.is_some()
    }

    /// The label in the other set; −1 (no label) for a class without a partner there, a label beyond the list, and no label. Without names,
    /// the label itself.
    #[must_use]
    pub fn label(&self, label: i64) -> i64 {
        let Some(table) = &self.table else { return label };
        let place = usize::try_from(label).ok().and_then(|l| table.get(l));
        place.copied().flatten().map_or(-1, i64::from)
    }

    /// Names of this set's classes that have no partner in the other: their images cannot be judged there.
    #[must_use]
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Names of the other set's classes that have no partner in this one.
    #[must_use]
    pub fn unmet(&self) -> &[String] {
        &self.unmet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(from: &[&str], to: &[&str]) -> ClassMap {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        ClassMap::new(&list(from), &list(to))
    }

    fn labels(map: &ClassMap, labels: std::ops::Range<i64>) -> Vec<i64> {
        labels.map(|l| map.label(l)).collect()
    }

    #[test]
    fn labels_go_by_name_and_what_has_no_partner_has_no_label() {
        let found = map(&["b", "c", "x"], &["a", "b", "c"]);
        assert!(found.is_by_name());
        assert_eq!(labels(&found, -1..5), [-1, 1, 2, -1, -1, -1]);
        assert_eq!(found.label(i64::MAX), -1);
        assert_eq!(found.label(i64::MIN), -1);
        assert_eq!((found.left_out(), found.unmet()), (&["x".to_owned()][..], &["a".to_owned()][..]));
    }

    #[test]
    fn a_name_that_stands_twice_is_no_partner_unless_the_lists_are_equal() {
        let twice = ["crane", "crane", "owl"];
        assert_eq!(labels(&map(&twice, &twice), 0..3), [0, 1, 2]);
        let found = map(&twice, &["owl", "crane"]);
        assert_eq!(labels(&found, 0..3), [-1, -1, 0]);
        assert_eq!(found.left_out().len(), 2);
        assert_eq!(labels(&map(&["owl", "crane"], &twice), 0..2), [2, -1]);
    }

    #[test]
    fn without_names_numbers_are_kept_and_that_is_told() {
        let found = ClassMap::new(&[], &["a".to_owned()]);
        assert!(!found.is_by_name());
        assert_eq!((found.label(7), found.label(-1)), (7, -1));
        assert!(found.left_out().is_empty());
    }
}
