//! Pictures: what the objective and its encoder make of a few images, and the curves of the run.

mod encoder;
mod file;
mod images;

use splitmask_pipeline::types::Batch;
use tch::{Kind, Tensor};

use self::encoder::{draw_encoder, draw_neighbours};
pub(super) use self::file::put_drawn;
use self::file::put_picture;
use self::images::first_images;
use super::side_work::beside_training;
use super::{Boundary, Flow, Hook};
use crate::eval::{EVALUATIONS, EvalError};
use crate::objective::{Column, Panel, Sheet};
use crate::optim::Weights;
use crate::picture;
use crate::telemetry::metrics::SideTask;
use crate::trainer::control::{held, uptime_s};
use crate::trainer::error::TrainError;
use crate::trainer::metrics_log::MetricsLog;
use crate::trainer::outlets::Outlets;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;
use crate::trainer::tensorboard::TensorBoard;

/// Draws the objective's sheets, those of its encoder and `curves.svg` into the run folder.
pub(in crate::trainer) struct Pictures;

impl Hook for Pictures {
    /// At the end they are drawn too, behind the last checkpoint.
    fn due(&self, at: &Boundary<'_>) -> bool {
        at.is_multiple_of(at.setup.spec.picture.every_steps) && !at.last
    }

    fn beside_training(&self) -> bool {
        true
    }

    fn run(&mut self, state: &mut RunState, at: &Boundary<'_>, out: &mut Outlets) -> Result<Flow, TrainError> {
        self.draw(state, at.setup, out);
        Ok(Flow::GoOn)
    }
}

impl Pictures {
    /// Draws all of them now.
    pub(in crate::trainer) fn draw(&self, state: &mut RunState, setup: &Setup, out: &mut Outlets) {
        let before = out.tensorboard.as_ref().map(TensorBoard::drawn);
        beside_training(SideTask::Sheets, Weights::Raw, state, setup, out, |state| draw_sheets(state, setup));
        beside_training(SideTask::Encoder, Weights::Raw, state, setup, out, |state| {
            draw_encoder(state, setup)
        });
        let status = out.status.clone();
        // The one picture for which many images are looked at: the watchdog hears of it.
        let progress = || held(&status).last_progress_s = uptime_s();
        beside_training(SideTask::Neighbours, Weights::Raw, state, setup, out, |state| {
            draw_neighbours(state, setup, progress)
        });
        beside_training(SideTask::Curves, Weights::Raw, state, setup, out, |_| draw_curves(setup));
        if let Some((events, before)) = out.tensorboard.as_mut().zip(before) {
            events.pictures(state.step, &before);
        }
    }
}

fn draw_sheets(state: &RunState, setup: &Setup) -> Result<(), EvalError> {
    let batch = first_images(setup, &setup.request)?;
    let normalise = setup.spec.train.normalise();
    let input = setup.words.send(&batch, 0..batch.len, setup.device, &normalise)?;
    for sheet in state.objective.pictures(&input)? {
        draw_sheet(&sheet, &batch, state.step, setup)?;
    }
    Ok(())
}

fn draw_sheet(sheet: &Sheet, batch: &Batch, step: u64, setup: &Setup) -> Result<(), EvalError> {
    let size = setup.spec.model.image;
    let patches = setup.spec.model.patches() as usize;
    let view = |name: &str, i: usize| {
        let view = batch.view(name);
        let view = view.ok_or_else(|| EvalError::Picture(format!("{}: the batch has no view {name}", sheet.name)))?;
        Ok::<_, EvalError>(view.picture(i).to_vec())
    };
    let whole = |t: &Tensor| Vec::<i64>::try_from(t.flatten(0, -1));
    let mut rows: Vec<Vec<picture::Cell>> = (0..batch.len).map(|_| vec![]).collect();
    for column in &sheet.columns {
        match column {
            Column::View(name) => {
                for (i, row) in rows.iter_mut().enumerate() {
                    row.push(picture::Cell::Pixels(view(name, i)?));
                }
            }
            Column::Seen(name, seen) => {
                let (each, places) = (seen.size()[1] as usize, whole(seen)?);
                for (i, row) in rows.iter_mut().enumerate() {
                    let mut seen = vec![false; patches];
                    places[i * each..(i + 1) * each].iter().for_each(|p| seen[*p as usize] = true);
                    row.push(picture::Cell::Seen {
                        pixels: view(name, i)?,
                        seen,
                    });
                }
            }
            Column::Words(words) => {
                let words: Vec<u32> = whole(words)?.into_iter().map(|w| w as u32).collect();
                for (row, words) in rows.iter_mut().zip(words.chunks_exact(patches)) {
                    row.push(picture::Cell::Words(words.to_vec()));
                }
            }
            Column::Objects(name, objects) => {
                for (i, row) in rows.iter_mut().enumerate() {
                    row.push(picture::Cell::Pixels(picture::planes_with_objects(
                        &view(name, i)?,
                        size,
                        &objects[i],
                    )));
                }
            }
            Column::Classes(classes) => {
                let classes = whole(classes)?;
                for (row, classes) in rows.iter_mut().zip(classes.chunks_exact(classes.len() / batch.len)) {
                    row.push(picture::Cell::Pixels(picture::planes_of_classes(classes)));
                }
            }
            Column::Pixels(pixels) => {
                let bytes = whole(&setup.spec.train.normalise().undone(pixels).to_kind(Kind::Int64))?;
                let one = bytes.len() / batch.len;
                for (row, pixels) in rows.iter_mut().zip(bytes.chunks_exact(one)) {
                    row.push(picture::Cell::Pixels(pixels.iter().map(|p| *p as u8).collect()));
                }
            }
        }
    }
    let caption = picture::caption(setup.spec.objective.kind(), sheet.name);
    let drawn = picture::sheet(caption, &rows, size, &|word| setup.words.picture(word as usize));
    put_drawn(&setup.spec, sheet.name, step, &drawn)
}

fn draw_curves(setup: &Setup) -> Result<(), EvalError> {
    let (mut losses, mut shares) = (Vec::new(), Vec::new());
    let lines = MetricsLog::read(&setup.spec.run_dir).map_err(|e| EvalError::Picture(e.to_string()))?;
    for line in lines {
        let Some(step) = line["step"].as_u64() else { continue };
        let put = |panel: &mut Vec<picture::Point>, name: &str| {
            if let Some(value) = line[name].as_f64() {
                let curve = name.replace('_', " ");
                panel.push(picture::Point { step, curve, value });
            }
        };
        for number in setup.spec.objective.kind().numbers {
            match number.panel() {
                Some(Panel::Losses) => put(&mut losses, number.name),
                Some(Panel::Shares) => put(&mut shares, number.name),
                None => {}
            }
        }
        put(&mut losses, "token_entropy");
        for number in EVALUATIONS.iter().flat_map(|evaluation| evaluation.numbers()) {
            match number.panel {
                Some(Panel::Losses) => put(&mut losses, number.name),
                Some(Panel::Shares) => put(&mut shares, number.name),
                None => {}
            }
        }
    }
    let name = setup
        .spec
        .run_dir
        .file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let svg = picture::curves(&format!("{name}: losses and what they are judged by"), &losses, &shares).map_err(EvalError::Picture)?;
    put_picture(&setup.spec, "curves.svg", |path| {
        std::fs::write(path, svg).map_err(|e| e.to_string())
    })
}
