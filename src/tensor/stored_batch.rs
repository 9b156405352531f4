//! A batch as a safetensors file: what a step saw, to the byte.

use std::path::Path;

use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::types::{Batch, PatchSet, SampleId, TARGET, View};
use tch::{Kind, TchError, Tensor};

use super::stored_objects;

/// Writes views (u8, `view.INDEX.NAME`), target, words, sets, hidden patches, label maps, objects, labels and sample ids (epoch, shard, member). The cursor is not among them.
///
/// # Errors
/// What libtorch said.
pub fn save_batch(batch: &Batch, path: &Path) -> Result<(), TchError> {
    let b = batch.len as i64;
    let mut named: Vec<(String, Tensor)> = Vec::new();
    let pixels = |view: &View| {
        let side = i64::from(view.size);
        Tensor::from_slice(&view.pixels).f_view([b, 3, side, side])
    };
    for (i, view) in batch.views.iter().enumerate() {
        named.push((format!("view.{i}.{}", view.name), pixels(view)?));
    }
    if let Some(target) = &batch.target {
        named.push((TARGET.into(), pixels(target)?));
    }
    let words: Vec<i64> = batch.words.iter().map(|&w| i64::from(w)).collect();
    named.push(("words".into(), Tensor::from_slice(&words).f_view([b, words.len() as i64 / b])?));
    for (name, sets) in [("sets", &batch.sets), ("hidden", &batch.hidden)] {
        let sets: Vec<u8> = sets.iter().map(|set| *set as u8).collect();
        named.push((name.into(), Tensor::from_slice(&sets).f_view([b, sets.len() as i64 / b])?));
    }
    if !batch.maps.is_empty() {
        let side = ((batch.maps.len() / batch.len) as i64).isqrt();
        named.push(("maps".into(), Tensor::from_slice(&batch.maps).f_view([b, side, side])?));
    }
    if !batch.object_offsets.is_empty() {
        named.extend(stored_objects::tensors(batch)?);
    }
    named.push(("labels".into(), Tensor::from_slice(&batch.labels)));
    let ids: Vec<i64> = batch
        .ids
        .iter()
        .flat_map(|id| [id.epoch, id.shard, id.member].map(i64::from))
        .collect();
    named.push(("ids".into(), Tensor::from_slice(&ids).f_view([b, 3])?));
    Tensor::write_safetensors(&named, path)
}

/// Reads what [`save_batch`] wrote.
///
/// # Errors
/// A missing tensor, or what libtorch said.
pub fn load_batch(path: &Path) -> Result<Batch, TchError> {
    let named = Tensor::read_safetensors(path)?;
    let find = |name: &str| {
        let found = named.iter().find(|(n, _)| n == name).map(|(_, t)| t);
        found.ok_or_else(|| TchError::FileFormat(format!("{}: no tensor {name}", path.display())))
    };
    let wrong = |what: String| TchError::FileFormat(format!("{}: {what}", path.display()));
    let view = |name: &str, pixels: &Tensor| {
        Ok::<_, TchError>(View {
            name: name.to_owned().into(),
            size: u32::try_from(pixels.size4()?.3).map_err(|e| wrong(e.to_string()))?,
            pixels: Vec::try_from(pixels.f_view([-1])?)?,
        })
    };
    let mut views = Vec::new();
    while let Some((name, pixels)) = named.iter().find_map(|(full, pixels)| {
        let name = full.strip_prefix(&format!("view.{}.", views.len()))?;
        Some((name, pixels))
    }) {
        views.push(view(name, pixels)?);
    }
    let target = named.iter().find(|(name, _)| name == TARGET);
    let whole = |name: &str| Vec::<i64>::try_from(find(name)?.f_view([-1])?.to_kind(Kind::Int64));
    let ids = whole("ids")?;
    let ids: Vec<SampleId> = ids
        .chunks_exact(3)
        .map(|id| SampleId {
            epoch: id[0] as u32,
            shard: id[1] as u32,
            member: id[2] as u32,
        })
        .collect();
    let sets = |tensor: &Tensor| {
        Vec::<u8>::try_from(tensor.f_view([-1])?)?
            .into_iter()
            .map(|set| PatchSet::try_from(set).map_err(|number| wrong(format!("there is no set {number}"))))
            .collect::<Result<Vec<_>, TchError>>()
    };
    let (objects, object_offsets) = match find("object_offsets") {
        Ok(_) => stored_objects::read(&|name| Ok(find(name)?.shallow_clone()))?,
        Err(_) => (vec![], vec![]),
    };
    Ok(Batch {
        len: ids.len(),
        views,
        target: target.map(|(name, pixels)| view(name, pixels)).transpose()?,
        words: whole("words")?.into_iter().map(|w| w as u32).collect(),
        sets: sets(find("sets")?)?,
        // Files of earlier versions lack them.
        hidden: find("hidden").ok().map_or(Ok(vec![]), sets)?,
        maps: find("maps").ok().map_or(Ok(vec![]), |maps| Vec::try_from(maps.f_view([-1])?))?,
        objects,
        object_offsets,
        labels: whole("labels")?,
        ids,
        cursor: Cursor::default(),
    })
}

#[cfg(test)]
mod tests {
    use splitmask_pipeline::types::{Object, ObjectMask};

    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_was() {
        let view = |name: &'static str, size, pixels| View {
            name: name.into(),
            size,
            pixels,
        };
        let batch = Batch {
            len: 2,
            views: vec![view("global", 2, (0..24).collect()), view("local", 1, (0..6).collect())],
            target: Some(view("target", 1, (6..12).collect())),
            words: vec![1, 2, 3, 4, 5, 6, 7, 8],
            sets: [1u8, 2, 2, 1, 0, 1, 1, 2].map(|n| PatchSet::try_from(n).unwrap()).to_vec(),
            hidden: [0u8, 1, 1, 0].map(|n| PatchSet::try_from(n).unwrap()).to_vec(),
            maps: vec![0, -1, 7, 300, 1, 1, 2, -1],
            objects: vec![
                Object {
                    class: 3,
                    corners: [0.25, 0.0, 1.75, 2.0],
                    crowd: false,
                    mask: Some(ObjectMask {
                        left: 0,
                        top: 0,
                        width: 2,
                        height: 2,
                        pixels: vec![1, 0, 1, 1],
                    }),
                },
                Object {
                    class: 0,
                    corners: [1.0, 1.0, 2.0, 2.0],
                    crowd: true,
                    mask: None,
                },
            ],
            object_offsets: vec![0, 0, 2],
            labels: vec![3, -1],
            ids: [(0, 1, 2), (0, 3, 4)]
                .map(|(epoch, shard, member)| SampleId { epoch, shard, member })
                .to_vec(),
            cursor: Cursor::default(),
        };
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("batch.safetensors");
        save_batch(&batch, &path).unwrap();
        assert_eq!(load_batch(&path).unwrap(), batch);
        assert!(load_batch(&file.path().join("absent")).is_err());
    }
}
