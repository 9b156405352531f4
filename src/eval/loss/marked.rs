//! What the samples of `data.val` are marked with, in the numbers of the run: labels, pixels or objects, whichever the objective learns.

use std::collections::BTreeMap;

use splitmask_pipeline::bucket::classes::ClassMap;
use splitmask_pipeline::types::{Batch, UNLABELLED};

use crate::eval::classes::Remarks;
use crate::eval::data::Set;
use crate::eval::error::EvalError;
use crate::eval::evaluation::Subject;
use crate::eval::marks::Marks;

/// Which marks of a sample.
#[derive(Clone, Copy)]
enum Kind {
    Labels,
    Pixels,
    Objects,
}

/// Brings the marks of batches into the numbers of the run, and counts what no learnt class goes with.
pub(super) struct Marked<'a> {
    kind: Kind,
    place: String,
    theirs: Vec<String>,
    learnt: &'a [String],
    map: ClassMap,
    /// Classes that the run learns.
    outputs: i64,
    /// Images, pixels or objects by the number of their class in the set.
    unknown: BTreeMap<usize, u64>,
    /// Images without a label.
    pub(super) unlabelled: usize,
}

impl<'a> Marked<'a> {
    /// For an objective that learns classes; `None` for another one.
    ///
    /// # Errors
    /// The set cannot be read.
    pub(super) fn of(subject: &Subject<'a>, set: &Set) -> Result<Option<Self>, EvalError> {
        let Some(learnt) = subject.training.classes else { return Ok(None) };
        let request = &subject.training.request;
        let (kind, theirs) = match (&request.map, &request.objects) {
            (None, None) => (Kind::Labels, set.names.clone()),
            (Some(_), _) => {
                let reduce_zero = subject.sets.data.map_reduce_zero;
                let whole = subject.sets.val_set()?;
                let names = whole.map_classes().map(|maps| maps.learnt(reduce_zero).0.to_vec());
                (Kind::Pixels, names.unwrap_or_default())
            }
            (None, Some(_)) => {
                let whole = subject.sets.val_set()?;
                let names = whole.object_classes().map(|objects| objects.classes.clone());
                (Kind::Objects, names.unwrap_or_default())
            }
        };
        Ok(Some(Self {
            kind,
            place: set.place.clone(),
            map: ClassMap::new(&theirs, learnt),
            theirs,
            learnt,
            outputs: subject.training.outputs as i64,
            unknown: BTreeMap::new(),
            unlabelled: 0,
        }))
    }

    /// The marks of a batch become numbers of the run, or none. Answers how much its loss counts: by the labelled images that it is a mean of, and by one where
    /// pixels or objects are learnt.
    pub(super) fn in_numbers_of_the_run(&mut self, batch: &mut Batch) -> usize {
        let Self { map, outputs, unknown, .. } = self;
        let mut learnt = |class: i64| {
            let known = map.label(class);
            if (0..*outputs).contains(&known) {
                return known;
            }
            if let Ok(class) = usize::try_from(class) {
                *unknown.entry(class).or_default() += 1;
            }
            -1
        };
        match self.kind {
            Kind::Labels => {
                self.unlabelled += batch.labels.iter().filter(|label| **label < 0).count();
                batch.labels.iter_mut().for_each(|label| *label = learnt(*label));
                batch.labels.iter().filter(|label| **label >= 0).count()
            }
            Kind::Pixels => {
                let mut pixel = |class: i16| i16::try_from(learnt(class.into())).unwrap_or(UNLABELLED);
                batch.maps.iter_mut().for_each(|class| *class = pixel(*class));
                1
            }
            // An unknown class lies beyond all that are learnt: it is left out of the loss.
            Kind::Objects => {
                let mut object = |class: u32| u32::try_from(learnt(class.into())).unwrap_or(u32::MAX);
                batch.objects.iter_mut().for_each(|found| found.class = object(found.class));
                1
            }
        }
    }

    fn marks(&self) -> Marks<'_> {
        Marks {
            place: &self.place,
            theirs: self.theirs.clone(),
            learnt: self.learnt,
        }
    }

    /// Why nothing of the set could be judged.
    pub(super) fn nothing(self) -> EvalError {
        match self.unknown.values().sum::<u64>() as usize {
            0 => EvalError::NoLabels { place: self.place },
            images => self
                .marks()
                .none_learnt(images, self.unknown.keys().copied(), self.outputs as usize, "no class"),
        }
    }

    /// What was left out.
    pub(super) fn remarks(self) -> Remarks {
        let counted = match self.kind {
            Kind::Labels => "images",
            Kind::Pixels => "pixels",
            Kind::Objects => "objects",
        };
        let marks = self.marks();
        Remarks {
            warning: marks.warning(),
            left_out: marks.left_out(self.unknown.clone(), counted),
        }
    }
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::cursor::Cursor;

    use super::*;

    fn batch(labels: &[i64]) -> Batch {
        Batch {
            len: labels.len(),
            views: vec![],
            target: None,
            words: vec![],
            sets: vec![],
            hidden: vec![],
            maps: vec![],
            objects: vec![],
            object_offsets: vec![],
            labels: labels.to_vec(),
            ids: vec![],
            cursor: Cursor::default(),
        }
    }

    fn marked<'a>(theirs: &[String], learnt: &'a [String], outputs: i64) -> Marked<'a> {
        Marked {
            kind: Kind::Labels,
            place: "val".into(),
            map: ClassMap::new(theirs, learnt),
            theirs: theirs.to_vec(),
            learnt,
            outputs,
            unknown: BTreeMap::new(),
            unlabelled: 0,
        }
    }

    #[test]
    fn a_batch_counts_by_its_learnt_labels_and_the_rest_is_told() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (theirs, learnt) = (names(&["a", "b", "x"]), names(&["b", "a"]));
        let mut found = marked(&theirs, &learnt, 2);
        let mut first = batch(&[0, 1, 2, -1]);
        assert_eq!((found.in_numbers_of_the_run(&mut first), first.labels), (2, vec![1, 0, -1, -1]));
        assert_eq!(found.in_numbers_of_the_run(&mut batch(&[-1, -1])), 0);
        assert_eq!(found.unlabelled, 3);
        let told = found.remarks().lines().join("\n");
        assert!(told.contains("x (1 image)"), "{told}");
    }

    #[test]
    fn numbers_beyond_the_outputs_are_not_learnt_where_names_are_missing() {
        let mut found = marked(&[], &[], 2);
        let mut all = batch(&[0, 1, 5]);
        assert_eq!((found.in_numbers_of_the_run(&mut all), all.labels), (2, vec![0, 1, -1]));
        let mut nothing = marked(&[], &[], 2);
        assert_eq!(nothing.in_numbers_of_the_run(&mut batch(&[7])), 0);
        assert!(nothing.nothing().to_string().contains("none of its 1 labelled images"));
        assert!(marked(&[], &[], 2).nothing().to_string().contains("no sample has a label"));
    }
}
