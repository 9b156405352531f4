//! Pictures of any objective's encoder: what its features look like, where it looks, and what it takes for similar.

use std::sync::Arc;

use splitmask_pipeline::request::{IMAGE, SampleRequest, ViewRequest};
use splitmask_pipeline::types::Batch;
use tch::{Device, Kind, Tensor};

use super::file::put_drawn;
use super::images::{first_images, images};
use crate::eval::EvalError;
use crate::picture::{self, Cell, principal_colours};
use crate::tensor::step_input;
use crate::trainer::setup::Setup;
use crate::trainer::state::RunState;

/// Images among which neighbours are searched at most, the queries among them.
const SEARCHED: usize = 512;
/// And at most so many times `train.batch`: the search then takes about as long as a step, on slow devices too, where a stop must not wait for long.
const BATCHES: usize = 4;
/// Neighbours of a query.
const NEIGHBOURS: usize = 6;
/// Images of a batch in that search at most.
const BATCH: usize = 64;
/// Longest side of the pictures that are kept for it, pixels.
const KEPT_SIDE: u32 = 128;

/// One view of each image, as evaluations see it.
fn request(setup: &Setup) -> Arc<SampleRequest> {
    let view = ViewRequest::new(IMAGE, setup.spec.model.image);
    Arc::new(SampleRequest::of_views(vec![view]))
}

/// The first `rows` images of a batch for the encoder: f32 B×3×S×S, normalised.
fn input(batch: &Batch, rows: usize, setup: &Setup) -> Result<Tensor, EvalError> {
    let mut input = step_input(batch, 0..rows, setup.device, &setup.spec.train.normalise())?;
    Ok(input.views.remove(0).pixels)
}

/// The bytes of an image of a batch, planar 3×S×S.
fn bytes(batch: &Batch, image: usize) -> Vec<u8> {
    batch.views[0].picture(image).to_vec()
}

fn save(name: &str, rows: &[Vec<Cell>], size: u32, step: u64, setup: &Setup) -> Result<(), EvalError> {
    let caption = picture::caption(setup.spec.objective.kind(), name);
    put_drawn(&setup.spec, name, step, &picture::sheet(caption, rows, size, &|_| (1, vec![0; 3])))
}

/// Draws `features.png` and `attention.png` of the first images.
///
/// # Errors
/// The images cannot be read, the features are not finite, the file cannot be written, or what libtorch said.
pub(super) fn draw_encoder(state: &RunState, setup: &Setup) -> Result<(), EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = setup.autocast()?;
    let batch = first_images(setup, &request(setup))?;
    let (pixels, size, vit) = (input(&batch, batch.len, setup)?, setup.spec.model.image, state.objective.encoder());
    let here = |t: &Tensor| t.to_kind(Kind::Float).to_device(Device::Cpu);

    let tokens = vit.forward_features(&pixels, false);
    let patches = tokens.size()[1] - 1;
    let (features, seen) = (here(&tokens.narrow(1, 1, patches)), here(&vit.cut(&pixels)));
    let colours = Vec::<u8>::try_from(principal_colours(&features, &seen)?.flatten(0, -1))?;
    let colours: Vec<[u8; 3]> = colours.as_chunks().0.to_vec();
    let rows = colours.chunks_exact(patches as usize).enumerate();
    let rows: Vec<_> = rows
        .map(|(i, colours)| vec![Cell::Pixels(bytes(&batch, i)), Cell::Pixels(picture::patches(colours, size))])
        .collect();
    save("features", &rows, size, state.step, setup)?;

    // B×(1+N)×(1+N): the mean over the heads. What goes to the class token is left out.
    let attention = here(&vit.last_attention(&pixels)).mean_dim(1i64, false, Kind::Float);
    let to_patches = attention.narrow(2, 1, patches);
    let of_class = to_patches.select(1, 0);
    let of_patches = to_patches.narrow(1, 1, patches).mean_dim(1i64, false, Kind::Float);
    let weights = |t: &Tensor| Vec::<f32>::try_from(t.contiguous().view([-1]));
    let (class, patch) = (weights(&of_class)?, weights(&of_patches)?);
    let each = |all: &[f32], i: usize| {
        let image = bytes(&batch, i);
        Cell::Pixels(picture::heat(&image, &all[i * patches as usize..(i + 1) * patches as usize], size))
    };
    let rows: Vec<_> = (0..batch.len)
        .map(|i| vec![Cell::Pixels(bytes(&batch, i)), each(&class, i), each(&patch, i)])
        .collect();
    save("attention", &rows, size, state.step, setup)
}

/// Draws `neighbours.png`: the first images, and those most similar to each among the first [`SEARCHED`].
///
/// # Errors
/// As [`draw_encoder`].
pub(super) fn draw_neighbours(state: &RunState, setup: &Setup, mut progress: impl FnMut()) -> Result<(), EvalError> {
    let _guard = tch::no_grad_guard();
    let _autocast = setup.autocast()?;
    let (size, batch) = (setup.spec.model.image, setup.spec.train.batch as usize);
    let searched = SEARCHED.min(BATCHES * batch).max(setup.spec.picture.rows as usize);
    let (mut vectors, mut kept, mut labels) = (vec![], vec![], vec![]);
    let (_, mut stream) = images(setup, &request(setup), BATCH.min(batch))?;
    while kept.len() < searched
        && let Some(batch) = stream.next().transpose()?
    {
        let rows = batch.len.min(searched - kept.len());
        let tokens = state.objective.encoder().forward_features(&input(&batch, rows, setup)?, false);
        vectors.push(setup.spec.eval.pool.of(&tokens).to_device(Device::Cpu));
        kept.extend((0..rows).map(|i| picture::smaller(batch.views[0].picture(i), size, size.div_ceil(KEPT_SIDE))));
        labels.extend(batch.labels[..rows].iter().copied());
        stream.recycle(batch);
        progress();
    }
    let Some(side) = kept.first().map(|(_, side)| *side) else {
        return Err(EvalError::Picture("no image for neighbours.png".into()));
    };
    let found = picture::nearest(&Tensor::f_cat(&vectors, 0)?, setup.spec.picture.rows as usize, NEIGHBOURS)?;
    let rows = found.iter().enumerate().map(|(query, near)| {
        let neighbour = |near: &usize| {
            let colour = picture::frame(labels[query], labels[*near]);
            Cell::Pixels(picture::framed(&kept[*near].0, colour, side))
        };
        let query = Cell::Pixels(kept[query].0.clone());
        std::iter::once(query).chain(near.iter().map(neighbour)).collect()
    });
    save("neighbours", &rows.collect::<Vec<Vec<Cell>>>(), side, state.step, setup)
}
