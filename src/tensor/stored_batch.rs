//! A batch as a safetensors file: what a step saw, to the byte.

use std::path::Path;

use splitmask_pipeline::cursor::Cursor;
use splitmask_pipeline::types::{Batch, SampleId};
use tch::{Kind, TchError, Tensor};

/// Writes views (u8), words, parts, labels and sample ids (epoch, shard, member). The cursor is not among them.
///
/// # Errors
/// What libtorch said.
pub fn save_batch(batch: &Batch, path: &Path) -> Result<(), TchError> {
    let b = batch.len as i64;
    let mut named: Vec<(String, Tensor)> = Vec::new();
    for (i, (bytes, &side)) in batch.views.iter().zip(&batch.sizes).enumerate() {
        let side = i64::from(side);
        named.push((format!("view.{i}"), Tensor::from_slice(bytes).f_view([b, 3, side, side])?));
    }
    let words: Vec<i64> = batch.words.iter().map(|&w| i64::from(w)).collect();
    named.push(("words".into(), Tensor::from_slice(&words).f_view([b, words.len() as i64 / b])?));
    named.push(("parts".into(), Tensor::from_slice(&batch.parts).f_view([b, -1])?));
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
    let (mut views, mut sizes) = (Vec::new(), Vec::new());
    while let Ok(view) = find(&format!("view.{}", views.len())) {
        sizes.push(u32::try_from(view.size4()?.3).map_err(|e| TchError::FileFormat(e.to_string()))?);
        views.push(Vec::<u8>::try_from(view.f_view([-1])?)?);
    }
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
    Ok(Batch {
        len: ids.len(),
        sizes,
        views,
        words: whole("words")?.into_iter().map(|w| w as u32).collect(),
        parts: Vec::<u8>::try_from(find("parts")?.f_view([-1])?)?,
        labels: whole("labels")?,
        ids,
        cursor: Cursor::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_as_it_was() {
        let batch = Batch {
            len: 2,
            sizes: vec![2, 1],
            views: vec![(0..24).collect(), (0..6).collect()],
            words: vec![1, 2, 3, 4, 5, 6, 7, 8],
            parts: vec![1, 2, 2, 1, 0, 1, 1, 2],
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
