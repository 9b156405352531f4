//! Which classes and images count, and what is told of the rest.

use super::*;

fn set(place: &str, names: &[&str], of: &[i64]) -> Labels {
    Labels {
        place: place.into(),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        of: of.to_vec(),
    }
}

fn classes(rows: &[(i64, i64)]) -> Vec<i64> {
    rows.iter().map(|(_, class)| *class).collect()
}

#[test]
fn classes_are_the_same_by_name_wherever_they_stand_in_the_lists() {
    let train = set("train", &["a", "b", "c"], &[0, 1, 2, 1, 2]);
    let val = set("val", &["c", "d", "b"], &[0, 1, 2, 2]);
    let got = match_classes(&train, &val, 1).unwrap();
    assert_eq!(got.classes, ["b", "c"]);
    assert_eq!(got.references, [(1, 0), (2, 1), (3, 0), (4, 1)]);
    assert_eq!(got.queries, [(0, 1), (2, 0), (3, 0)]);
    let told: Vec<String> = got.remarks.left_out.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "a of train (1 image: not in the other set, as far as it was looked at (eval.max_reference, eval.max_queries))",
            "d of val (1 image: not in the other set, as far as it was looked at (eval.max_reference, eval.max_queries))"
        ]
    );
    assert_eq!(got.remarks.warning, None);
}

#[test]
fn one_class_alone_is_no_test() {
    let val = set("val", &["b"], &[0, 0]);
    let error = match_classes(&set("train", &["a", "b"], &[0, 1, 0, 1]), &val, 1).unwrap_err();
    assert!(error.to_string().contains("only the class b counts"), "{error}");
    assert!(error.hint().unwrap().contains("eval.min_class"));
}

#[test]
fn without_names_numbers_count_and_unequal_counts_are_warned_of() {
    let (train, val) = (set("train", &[], &[0, 1, 2]), set("val", &[], &[2, 0, 1]));
    let got = match_classes(&train, &val, 1).unwrap();
    assert_eq!((classes(&got.queries), &got.remarks), (vec![2, 0, 1], &Remarks::default()));
    let fewer = match_classes(&train, &set("val", &[], &[0, 1]), 1).unwrap();
    let warning = fewer.remarks.warning.unwrap();
    assert!(
        warning.contains("3 in train, 2 in val") && warning.contains("no class names (manifest.json) in train and val"),
        "{warning}"
    );
    assert_eq!(
        fewer.references.len(),
        3,
        "a class that val does not show is still one to be told from"
    );
    // A list on one side only names nothing on the other.
    let one = match_classes(&set("train", &["a", "b", "c"], &[0, 1, 2]), &val, 1).unwrap();
    assert_eq!(one.remarks, Remarks::default());
    let one = match_classes(&set("train", &["a", "b"], &[0, 1]), &val, 1).unwrap();
    assert!(one.remarks.warning.unwrap().contains("(manifest.json) in val"));
    assert_eq!(one.remarks.left_out[0].class, "label 2");
}

#[test]
fn a_label_of_four_thousand_million_costs_nothing_and_is_told() {
    let huge = 4_000_000_000;
    let train = set("train", &["a", "b"], &[0, 1, huge, i64::MAX]);
    let val = set("val", &["a", "b"], &[1, huge]);
    let got = match_classes(&train, &val, 1).unwrap();
    assert_eq!((got.references.len(), got.queries.len()), (2, 1));
    assert_eq!(got.remarks.left_out.len(), 3);
    assert!(
        got.remarks.lines()[1].contains("left out of val, beyond the class list of manifest.json: label 4000000000 (1 image)"),
        "{:?}",
        got.remarks.lines()
    );
    let got = match_classes(&set("train", &[], &[0, huge]), &set("val", &[], &[huge, 0]), 1).unwrap();
    assert_eq!((got.classes.len(), classes(&got.queries)), (2, vec![1, 0]));
}

#[test]
fn too_few_everywhere_nothing_in_common_and_no_labels_are_told_in_words() {
    let (train, val) = (
        set("train", &["a", "b", "c"], &[0, 0, 0, 1, 2, 2]),
        set("val", &["b", "a", "c"], &[0, 1, 2]),
    );
    let error = match_classes(&train, &val, 50).unwrap_err();
    assert!(
        error.to_string().contains("eval.min_class = 50") && error.to_string().contains("a, has 3"),
        "{error}"
    );
    let got = match_classes(&train, &val, 2).unwrap();
    assert_eq!(
        got.remarks.left_out.iter().map(|l| (l.place.as_str(), l.why)).collect::<Vec<_>>(),
        [("train", Why::TooFew), ("val", Why::TooFew)]
    );
    let error = match_classes(&train, &set("val", &["d"], &[0]), 1).unwrap_err();
    assert!(
        error.to_string().contains("no class is both in train (a, b, c) and in val (d)"),
        "{error}"
    );
    let error = match_classes(&train, &set("val", &["a"], &[]), 1).unwrap_err();
    assert!(matches!(&error, EvalError::NoLabels { place } if place == "val"), "{error}");
}

#[test]
fn a_name_that_stands_twice_in_a_list_has_no_partner() {
    let train = set("train", &["a", "b", "a", "c"], &[0, 1, 2, 3]);
    let got = match_classes(&train, &set("val", &["b", "a", "c"], &[0, 1, 2]), 1).unwrap();
    assert_eq!(
        (got.classes.as_slice(), got.queries.as_slice()),
        (&["b".to_owned(), "c".to_owned()][..], &[(0, 0), (2, 1)][..])
    );
    assert_eq!(got.remarks.left_out.len(), 3);
}
