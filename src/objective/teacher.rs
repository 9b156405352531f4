//! A momentum teacher: a second network of one shape with the student's, whose weights are a running average of the student's (mean teacher,
//! arXiv 1703.01780; MoCo, arXiv 1911.05722; DINO, arXiv 2104.14294 §3.1).

use std::collections::BTreeMap;

use tch::nn::{Path, VarStore};
use tch::{Kind, Tensor};

use super::{Better, Number, ObjectiveError, Role, Unit};

/// What of itself the teacher keeps at a step, as its schedule and a reload have it.
pub(super) const TEACHER_MOMENTUM: Number = Number {
    name: "teacher_momentum",
    help: "Share of the teacher that a step keeps, as its schedule has come to, 0 to 1.",
    role: Role::Measure,
    unit: Unit::Plain,
    better: Better::Neither,
    baseline: None,
};

/// A setting in force at a step, as a scalar beside losses.
pub(super) fn in_force(value: f64, beside: &Tensor) -> Tensor {
    Tensor::full([0i64; 0], value, (Kind::Double, beside.device()))
}

/// What is odd about the momentum of a teacher over a training: it falls, or is 1 from the start.
pub(super) fn odd_momentum(momentum: f64, end: f64) -> Option<String> {
    if momentum == 1.0 && end == 1.0 {
        return Some("objective.momentum = 1: the teacher stays as it was drawn; 0.99 to 0.999 let it follow the student".into());
    }
    (end < momentum).then(|| {
        format!("objective.momentum_end = {end} is below objective.momentum = {momentum}: a teacher is meant to become steadier, not quicker, towards the end")
    })
}

/// The weights of a student and of its teacher, in pairs. Both stand in the run's variable store, so that checkpoints, resume and rollback hold them;
/// no gradient reaches the teacher's.
#[derive(Debug)]
pub(super) struct TeacherWeights {
    students: Vec<Tensor>,
    teachers: Vec<Tensor>,
    /// Those places of the lists that are averaged: what is trained. Buffers and frozen weights are not.
    averaged: Vec<usize>,
}

impl TeacherWeights {
    /// Builds `network` twice and puts the variables of one under `student`, those of the other under `teacher`, with the same names and values.
    /// Answers student, teacher and their weights. Draws from libtorch's CPU generator for both.
    pub(super) fn build<N>(student: &Path<'_>, teacher: &Path<'_>, network: impl Fn(&Path<'_>) -> N) -> (N, N, Self) {
        // A path cannot tell what lies under it; a store of its own can.
        let stores = [VarStore::new(student.device()), VarStore::new(teacher.device())];
        let networks = stores.each_ref().map(|store| network(&store.root()));
        // By name: a variable store answers in random order.
        let [students, mut teachers] = stores.map(|store| store.variables().into_iter().collect::<BTreeMap<_, _>>());
        let mut weights = Self {
            students: Vec::with_capacity(students.len()),
            teachers: Vec::with_capacity(students.len()),
            averaged: vec![],
        };
        for (name, of_student) in students {
            let of_teacher = teachers.remove(&name).expect("the same network has the same variables");
            let trained = of_student.requires_grad();
            if trained {
                weights.averaged.push(weights.students.len());
            }
            weights.students.push(put(student, &name, of_student, trained));
            weights
                .teachers
                .push(put(teacher, &name, of_teacher.set_requires_grad(false), false));
        }
        weights.reset_student();
        let [of_student, of_teacher] = networks;
        (of_student, of_teacher, weights)
    }

    /// Gives the student all of the teacher's weights.
    pub(super) fn reset_student(&self) {
        copy(&self.teachers, &self.students);
    }

    /// Gives the teacher all of the student's weights.
    pub(super) fn reset_teacher(&self) {
        copy(&self.students, &self.teachers);
    }

    /// Takes a step's weights in: teacher ← momentum · teacher + (1 − momentum) · student. Where the scalar `skipped` (f32, on the device) is 1, nothing
    /// changes. No host sync.
    ///
    /// # Errors
    /// What libtorch said.
    pub(super) fn update(&self, momentum: f64, skipped: &Tensor) -> Result<(), ObjectiveError> {
        let pick = |all: &[Tensor]| -> Vec<Tensor> { self.averaged.iter().map(|&i| all[i].shallow_clone()).collect() };
        let share = tch::no_grad(|| (1.0 - skipped.to_kind(Kind::Float)) * (1.0 - momentum));
        Ok(torch_ext::lerp(&pick(&self.teachers), &pick(&self.students), &share)?)
    }
}

fn copy(from: &[Tensor], to: &[Tensor]) {
    tch::no_grad(|| {
        for (from, to) in from.iter().zip(to) {
            to.shallow_clone().copy_(from);
        }
    });
}

/// Puts a variable of another store under `at`, by its dotted name. The storage is shared.
fn put(at: &Path<'_>, name: &str, variable: Tensor, trained: bool) -> Tensor {
    let (folders, last) = name.rsplit_once('.').unwrap_or(("", name));
    let folders = folders.split('.').filter(|folder| !folder.is_empty());
    folders.fold(at.clone(), |path, folder| path / folder).add(last, variable, trained)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::model::{Init, parameter};

    /// A weight, and a buffer.
    fn network(vs: &Path<'_>) -> [Tensor; 2] {
        let weight = parameter(&(vs / "layer"), "weight", &[3], Init::Normal { std: 1.0 });
        [weight, vs.zeros_no_train("seen", &[2])]
    }

    fn built() -> (VarStore, [Tensor; 2], [Tensor; 2], TeacherWeights) {
        let vs = VarStore::new(Device::Cpu);
        let (student, teacher, weights) = TeacherWeights::build(&(vs.root() / "student"), &vs.root(), network);
        (vs, student, teacher, weights)
    }

    #[test]
    fn both_stand_in_one_store_with_equal_values_and_only_the_student_is_trained() {
        let _turn = crate::tensor::alone();
        let (vs, student, teacher, _weights) = built();
        let named: BTreeMap<String, Tensor> = vs.variables().into_iter().collect();
        let trained: Vec<(&str, bool)> = named.iter().map(|(name, t)| (name.as_str(), t.requires_grad())).collect();
        assert_eq!(
            trained,
            [
                ("layer.weight", false),
                ("seen", false),
                ("student.layer.weight", true),
                ("student.seen", false)
            ]
        );
        assert_eq!(student[0], teacher[0]);
        // What a checkpoint puts into the store, the networks compute with.
        let _ = tch::no_grad(|| named["layer.weight"].shallow_clone().fill_(7.0));
        let _ = tch::no_grad(|| named["student.layer.weight"].shallow_clone().fill_(5.0));
        assert_eq!((teacher[0].double_value(&[1]), student[0].double_value(&[1])), (7.0, 5.0));
    }

    #[test]
    fn the_average_is_the_formulas_and_rests_on_skipped_steps() {
        let _turn = crate::tensor::alone();
        let (_vs, [mut weight, mut buffer], [average, other], weights) = built();
        let start = average.double_value(&[0]);
        let mut want = start;
        for (value, momentum) in [(3.0, 0.9), (-2.0, 0.5), (4.0, 1.0)] {
            let _ = tch::no_grad(|| (weight.fill_(value), buffer.fill_(value)));
            weights.update(momentum, &Tensor::from(1f32)).unwrap();
            assert!((average.double_value(&[0]) - want).abs() < 1e-6, "a skipped step changes nothing");
            weights.update(momentum, &Tensor::from(0f32)).unwrap();
            want = momentum * want + (1.0 - momentum) * value;
            assert!((average.double_value(&[0]) - want).abs() < 1e-6);
        }
        assert_eq!(other.double_value(&[0]), 0.0, "a buffer is no weight");
        weights.reset_student();
        assert_eq!(weight, average);
        assert_eq!(buffer, other);
        let _ = tch::no_grad(|| (weight.fill_(8.0), buffer.fill_(9.0)));
        weights.reset_teacher();
        assert_eq!((average.double_value(&[2]), other.double_value(&[1])), (8.0, 9.0));
    }
}
